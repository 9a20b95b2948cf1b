"""Moves a database of the cluster into another running server, beside pg_dump and pg_restore."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from server import PORT, SUPERUSER, Server, programs

DATABASE = "bank"  # pgbench's, of more than 1 GB
MOVED = "moved"
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
    """The second server, and the two ways there."""

    def __init__(self, bench, root, jobs):
        self.bench, self.root = bench, root
        self.data, self.work = root / "move-target", root / "move-work"
        self.tools = [EverpointMove(root, jobs), DumpAndRestore(jobs)]
        if self.data.exists():
            shutil.rmtree(self.data)
        command = [programs() / "initdb", "-D", self.data, "-U", SUPERUSER, "--auth=trust", "--data-checksums",
                   "--no-sync", "--locale=C", "--encoding=UTF8", "--no-instructions"]
        subprocess.run(command, check=True, cwd="/", stdout=subprocess.DEVNULL, **bench.account.options)

    def measure(self, tool):
        """Moves the database by one of the ways, and measures that."""
        self.bench.account.make_empty(self.work)
        with Server(self.bench.account, self.data, self.root / "socket-target", SETTINGS) as target:
            target.settle()
            source = self.bench.server
            took = self.bench.measure(tool.command(source, target, self.work), reads=[source.data / "base"])
            wanted, found = contents(source, DATABASE), contents(target, MOVED)
            if wanted != found:
                raise SystemExit(f"bench: {tool.name} moved {found}, not {wanted}")
            target.sql(f"DROP DATABASE {MOVED}")
        shutil.rmtree(self.work)
        return took

    def clean(self):
        for path in (self.data, self.work):
            shutil.rmtree(path, ignore_errors=True)


def contents(server, database):
    return server.sql("SELECT count(*), sum(abalance), sum(hashint8(aid::bigint)) FROM pgbench_accounts", database)
