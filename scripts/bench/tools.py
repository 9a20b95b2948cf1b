"""The tools that are measured: how each is set up, backs up and restores."""

import json
import os
import re
import shlex
import shutil
import subprocess
import time
from pathlib import Path

from server import PORT, SUPERUSER, programs

RESTORED = "restored_one"  # what one database is called when it is back
LOG_SECONDS = 300  # how long log may take to be stored
UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


def version_of(command):
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE, cwd="/").stdout.strip()


def built():
    """The program that is measured."""
    path = Path(os.environ.get("CARGO_TARGET_DIR", "target")).absolute() / "release" / "everpoint"
    if not path.exists():
        raise SystemExit(f"bench: no {path}; build it with `cargo build --release`")
    return path


class Everpoint:
    name = "everpoint"
    instance = "bench"

    def __init__(self, bench, root, jobs):
        self.bench, self.jobs = bench, jobs
        # Where it was built may be closed to the account it runs as.
        self.program = root / "everpoint.bin"
        shutil.copy(built(), self.program)
        self.program.chmod(0o755)
        self.version = version_of([self.program, "--version"])
        self.repository, self.key = root / "everpoint", root / "everpoint.key"
        self.scratch = root / "everpoint.scratch"
        self.environment = {"EVERPOINT_REPOSITORY": f"file://{self.repository}", "EVERPOINT_KEY_FILE": str(self.key)}
        self.receiver = None

    def command(self, *arguments):
        return [self.program, *arguments]

    def prepare(self):
        """An empty repository that knows the instance."""
        self.bench.server.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
        self.key.unlink(missing_ok=True)
        self.bench.account.make_empty(self.repository)
        connection = f"host={self.bench.server.sockets} port={PORT} user={SUPERUSER} dbname=postgres"
        for arguments in (
                ["init", "--generate-key-file"],
                ["instance", "add", self.instance, "--connection", connection,
                 "--data-directory", self.bench.server.data]):
            self.bench.run(self.command(*arguments), self.environment)

    def backup(self, kind):
        command = self.command("backup", self.instance, "--type", kind, "--jobs", self.jobs)
        took = self.bench.measure(command, self.environment, [self.bench.server.data], self.repository)
        took.read_bytes = self.last_backup()["read_bytes"]
        return took

    def last_backup(self):
        listed = subprocess.run(
            list(map(str, self.command("--output", "json", "backups", self.instance))), check=True, text=True, cwd="/",
            stdout=subprocess.PIPE, env={**self.bench.server.environment(), **self.environment},
            **self.bench.account.options)
        return max(json.loads(listed.stdout), key=lambda backup: backup["started_at"])

    def full(self):
        return self.backup("full")

    def differential(self):
        return self.backup("differential")

    def restore(self, target):
        command = self.command("restore", "instance", self.instance, "--to", target, "--jobs", self.jobs)
        return self.bench.measure(command, self.environment, [self.repository])

    def database_command(self, database, *purpose):
        return self.command("restore", "database", f"{self.instance}/{database}", "--jobs", self.jobs,
                            "--scratch", self.scratch, "--bin-directory", programs(), *purpose)

    def one_database(self, database, query):
        """Restores one database into the running server, up to the answer of a first query there."""
        self.bench.account.make_directory(self.scratch)
        restore = self.database_command(database, "--to", RESTORED)
        ask = [programs() / "psql", "-X", "-At", "-d", RESTORED, "-c", query]
        script = f"{shlex.join(map(str, restore))} && {shlex.join(map(str, ask))}"
        try:
            return self.bench.measure(["/bin/sh", "-c", script], self.environment, [self.repository])
        finally:
            self.bench.server.sql(f"DROP DATABASE IF EXISTS {RESTORED}")

    def stored_bytes(self, database):
        """What the repository holds of a database's files and of the log that its restore reads."""
        self.bench.account.make_directory(self.scratch)
        plan = json.loads(self.bench.output(self.database_command(database, "--dry-run", "--output", "json"), self.environment))
        return plan["stored_bytes"] + plan["stored_log_bytes"]

    def said(self):
        """What the last command said of the bytes it fetched, and of when replay began and ended."""
        found = {}
        for line in self.bench.log.read_text(errors="replace").splitlines():
            if line.startswith("$ "):
                found = {}
            if match := re.match(r" *([0-9.]+) s  (Recovering|Recovered)(?:; ([0-9.]+) (\w+) fetched)?", line):
                found[match[2]] = float(match[1])
                if match[3]:
                    found["fetched_bytes"] = float(match[3]) * UNITS[match[4]]
            if match := re.match(r"files restored in ([0-9.]+) s, recovered after ([0-9.]+) s", line):
                found["Recovering"], found["Recovered"] = float(match[1]), float(match[2])
        return found

    def replay_seconds(self):
        said = self.said()
        return said["Recovered"] - said["Recovering"]

    def replay_one(self, database):
        self.bench.account.make_directory(self.scratch)
        self.bench.run(self.database_command(database, "--exec", "true"), self.environment)
        return self.replay_seconds()

    def replay_all(self, target, sockets):
        command = self.command("restore", "instance", self.instance, "--to", target, "--jobs", self.jobs, "--start",
                               "--socket-directory", sockets, "--port", PORT, "--bin-directory", programs())
        self.bench.run(command, self.environment)
        seconds = self.replay_seconds()
        stop(self.bench, target)
        return seconds

    def begin_log(self):
        command = self.command("wal", "receive", self.instance, "--interval", "1s")
        self.receiver = self.bench.background(command, self.environment)

    def end_log(self, position, _segment):
        """Waits until log up to here is stored."""
        sql = self.bench.server.sql
        wait_for(lambda: sql(f"SELECT restart_lsn >= '{position}' FROM pg_replication_slots") == "t")
        self.give_up()

    def give_up(self):
        """Ends what is left running when the benchmark ends early."""
        if self.receiver:
            self.receiver.stop()
            self.receiver = None


class Archiving:
    """The server's archive_command: archives for who wants log now, and throws it away when nobody does.

    pgBackRest insists on its name in the command.
    """

    def __init__(self, root):
        self.script, self.wanted = root / "pgbackrest-archive.sh", {}
        self.script.unlink(missing_ok=True)

    @staticmethod
    def command(root):
        return f"test ! -e {root}/pgbackrest-archive.sh || sh -e {root}/pgbackrest-archive.sh %p"

    def begin(self, tool, command):
        self._write(self.wanted | {tool: command})

    def end(self, tool):
        self._write({other: command for other, command in self.wanted.items() if other != tool})

    def _write(self, wanted):
        self.wanted = wanted
        new = self.script.with_suffix(".new")
        new.write_text("".join(f'{command} "$1"\n' for command in wanted.values()))
        new.rename(self.script)


class PgBackRest:
    stanza = "bench"

    def __init__(self, bench, root, jobs, program="pgbackrest"):
        self.bench, self.program = bench, program
        self.version = version_of([program, "version"])
        self.name = self.version.lower()
        place = self.name.replace(" ", "-")
        self.repository = root / place
        numbers = tuple(map(int, re.findall(r"\d+", self.version)[:2]))
        self.configuration = root / f"{place}.conf"
        options = {
            "repo1-path": self.repository, "repo1-cipher-type": "aes-256-cbc", "repo1-cipher-pass": "bench" * 8,
            "repo1-retention-full": 9, "repo1-bundle": "y", "compress-type": "zst", "compress-level": 1,
            "process-max": jobs, "start-fast": "y", "log-level-console": "warn", "log-level-file": "off",
            "lock-path": root / f"{place}.lock", "spool-path": root / f"{place}.spool",
        }
        if numbers >= (2, 46):
            options["repo1-block"] = "y"
        text = ["[global]", *(f"{name}={value}" for name, value in options.items()), f"[{self.stanza}]",
                f"pg1-path={bench.server.data}", f"pg1-socket-path={bench.server.sockets}", f"pg1-port={PORT}",
                f"pg1-user={SUPERUSER}"]
        self.configuration.write_text("\n".join(text) + "\n")
        for name in ("lock-path", "spool-path"):
            bench.account.make_directory(options[name])

    def command(self, *arguments):
        return [self.program, f"--config={self.configuration}", f"--stanza={self.stanza}", *arguments]

    def prepare(self):
        self.bench.account.make_empty(self.repository)
        self.bench.run(self.command("stanza-create"))

    def backup(self, kind):
        self.begin_log()
        took = self.bench.measure(
            self.command(f"--type={kind}", "backup"), None, [self.bench.server.data], self.repository)
        self.bench.archiving.end(self.name)
        return took

    def full(self):
        return self.backup("full")

    def differential(self):
        return self.backup("diff")

    def restore(self, target):
        self.bench.account.make_empty(target)
        return self.bench.measure(self.command(f"--pg1-path={target}", "restore"), None, [self.repository])

    def one_database(self, database, query, target, sockets):
        """Restores a cluster with one database and starts it, up to the answer of a first query."""
        self.bench.account.make_empty(target)
        restore = self.command(f"--pg1-path={target}", f"--db-include={database}", "restore")
        start = [programs() / "pg_ctl", "-D", target, "-s", "-w", "-t", "600", "-l", f"{target}.log", "-o",
                 f"'-c unix_socket_directories={sockets} -c listen_addresses= -c archive_mode=off'", "start"]
        ask = [programs() / "psql", "-X", "-At", "-h", sockets, "-p", PORT, "-U", SUPERUSER, "-d", database, "-c",
               f"'{query}'"]
        # A hot standby answers before its recovery ends: the answer of a promoted server is what is waited for.
        ready = [*ask[:-1], "'SELECT 1 / (NOT pg_is_in_recovery())::int'"]
        words = lambda command: " ".join(map(str, command))
        script = f"{words(restore)} && {words(start)} && until {words(ready)}; do sleep 0.02; done && {words(ask)}"
        took = self.bench.measure(["/bin/sh", "-c", script], None, [self.repository])
        stop(self.bench, target)
        return took

    def begin_log(self):
        self.bench.archiving.begin(self.name, " ".join(self.command("archive-push")))

    def end_log(self, _position, segment):
        sql = self.bench.server.sql
        wait_for(lambda: sql(f"SELECT last_archived_wal >= '{segment}' FROM pg_stat_archiver") == "t")
        self.bench.archiving.end(self.name)


class PgBasebackup:
    name = "pg_basebackup"

    def __init__(self, bench, root, jobs):
        self.bench, self.jobs, self.repository = bench, jobs, root / "basebackup"
        self.version = version_of([programs() / "pg_basebackup", "--version"])

    def prepare(self):
        self.bench.account.make_empty(self.repository)

    def full(self):
        command = [programs() / "pg_basebackup", "-D", self.repository, "-Ft", "-X", "none", "--checkpoint=fast",
                   f"--compress=server-zstd:level=1,workers={self.jobs}"]
        return self.bench.measure(command, None, [self.bench.server.data], self.repository)


def stop(bench, data):
    bench.run([programs() / "pg_ctl", "-D", data, "-s", "-m", "immediate", "-w", "stop"])


def wait_for(condition):
    deadline = time.monotonic() + LOG_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("bench: log was not stored in time")
        time.sleep(0.2)
