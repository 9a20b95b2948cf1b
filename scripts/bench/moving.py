"""Moves a database of the cluster into another running server, beside pg_dump and pg_restore."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from server import PORT, SUPERUSER, Server, programs

DATABASE = "bank"  # pgbench's, of more than 1 GB
MOVED = "moved"
# Of a scratch server, as Everpoint cages one.
CAGE = {"autovacuum": "off", "fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}
SETTINGS = {"autovacuum": "off", "checkpoint_timeout": "1h", "max_wal_size": "8GB", "shared_buffers": "256MB"}


def connection(server, database):
    return f"host={server.sockets} port={PORT} user={SUPERUSER} dbname={database}"


class EverpointMove:
    name = "everpoint"

    def __init__(self, root, jobs):
        built = Path(os.environ.get("CARGO_TARGET_DIR", "target")).absolute() / "release/examples/move_database"
        if not built.exists():
            raise SystemExit(f"bench: no {built}; build it with `cargo build --release -p everpoint-engine --examples`")
        self.program, self.jobs = root / "move_database.bin", jobs
        shutil.copy(built, self.program)
        self.program.chmod(0o755)

    def command(self, source, target, work):
        return [self.program, connection(source, "postgres"), DATABASE, connection(target, "postgres"), MOVED, work,
                self.jobs, programs()]


class EverpointFiles(EverpointMove):
    name = "everpoint, files"

    def command(self, source, target, work):
        return [*super().command(source, target, work), "files"]


class DumpAndRestore:
    name = "pg_dump -Fd, pg_restore"

    def __init__(self, jobs):
        self.jobs = jobs

    def command(self, source, target, work):
        dump, quote = work / "dump", lambda server, database: shlex.quote(connection(server, database))
        at, jobs = programs(), self.jobs
        return ["bash", "-euc", f"""
            {at}/pg_dump -Fd -j{jobs} -f {dump} -d {quote(source, DATABASE)}
            {at}/psql -qX -d {quote(target, 'postgres')} -c 'CREATE DATABASE {MOVED} TEMPLATE template0'
            {at}/pg_restore -j{jobs} -d {quote(target, MOVED)} {dump}"""]


class Moving:
    """The second server, and the ways there."""

    def __init__(self, bench, root, jobs):
        self.bench, self.root = bench, root
        self.data, self.work, self.branch = root / "move-target", root / "move-work", root / "move-branch"
        self.tools = [EverpointMove(root, jobs), EverpointFiles(root, jobs), DumpAndRestore(jobs)]
        if self.data.exists():
            shutil.rmtree(self.data)
        command = [programs() / "initdb", "-D", self.data, "-U", SUPERUSER, "--auth=trust", "--data-checksums",
                   "--no-sync", "--locale=C", "--encoding=UTF8", "--no-instructions"]
        subprocess.run(command, check=True, cwd="/", stdout=subprocess.DEVNULL, **bench.account.options)

    def measure(self, tool):
        """Moves the database by one of the ways, and measures that."""
        self.bench.account.make_empty(self.work)
        took = self.from_branch(tool) if isinstance(tool, EverpointFiles) else self.from_living(tool)
        shutil.rmtree(self.work)
        return took

    def from_living(self, tool):
        with Server(self.bench.account, self.data, self.root / "socket-target", SETTINGS) as target:
            target.settle()
            source = self.bench.server
            took = self.bench.measure(tool.command(source, target, self.work), reads=[source.data / "base"])
            wanted, found = contents(source, DATABASE), contents(target, MOVED)
            if wanted != found:
                raise SystemExit(f"bench: {tool.name} moved {found}, not {wanted}")
            target.sql(f"DROP DATABASE {MOVED}")
        return took

    def from_branch(self, tool):
        """Files go back to the server that they are from, out of a copy of it that is stopped on the way."""
        target = self.bench.server
        shutil.rmtree(self.branch, ignore_errors=True)
        target.run("pg_basebackup", "-D", self.branch, "-c", "fast", "-X", "stream", "--no-sync")
        with Server(self.bench.account, self.branch, self.root / "socket-branch", CAGE) as source:
            source.settle()
            command = tool.command(source, target, self.work)
            took = self.bench.measure(command, reads=[source.data / "base"])
        wanted, found = contents(target, DATABASE), contents(target, MOVED)
        if wanted != found:
            raise SystemExit(f"bench: {tool.name} moved {found}, not {wanted}")
        target.sql(f"DROP DATABASE {MOVED}")
        shutil.rmtree(self.branch)
        return took

    def clean(self):
        for path in (self.data, self.work, self.branch):
            shutil.rmtree(path, ignore_errors=True)


def contents(server, database):
    return server.sql("SELECT count(*), sum(abalance), sum(hashint8(aid::bigint)) FROM pgbench_accounts", database)
