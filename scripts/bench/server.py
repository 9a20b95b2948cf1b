"""A PostgreSQL server of the benchmark's own: started, asked and stopped by its handle, on a unix socket only."""

import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path

MAJOR = 15
SUPERUSER = "postgres"
PORT = 5432  # names the socket in a directory of our own: no address is bound
START_SECONDS = 60
STOP_SECONDS = 300


class Account:
    """Whom servers and tools run as: PostgreSQL refuses to run as root."""

    def __init__(self):
        self.options = {}
        self.uid, self.gid = os.getuid(), os.getgid()
        if self.uid == 0:
            users = {user.pw_name: user for user in pwd.getpwall()}
            user = users.get("postgres") or users.get("nobody")
            if user is None:
                raise SystemExit("bench: run by root it needs a user `postgres` or `nobody` to run servers as")
            self.uid, self.gid = user.pw_uid, user.pw_gid
            self.options = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def make_directory(self, path):
        path = Path(path)
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
        os.chown(path, self.uid, self.gid)
        return path

    def make_empty(self, path):
        if Path(path).exists():
            shutil.rmtree(path)
        return self.make_directory(path)


def programs():
    """The directory of PostgreSQL's programs."""
    return Path(os.environ[f"EVERPOINT_PG{MAJOR}_BIN"])


class Server:
    def __init__(self, account, data, sockets, settings):
        self.account, self.data, self.sockets, self.settings = account, Path(data), Path(sockets), settings
        self.process = None

    def __enter__(self):
        self.account.make_directory(self.sockets)
        self.log = self.data.parent / (self.data.name + ".log")
        settings = {
            "listen_addresses": "", "unix_socket_directories": self.sockets, "port": PORT, "logging_collector": "off",
        } | self.settings
        command = [programs() / "postgres", "-D", self.data]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with open(self.log, "ab") as log:
            # A session of its own: an interrupt at the keyboard stops it by way of __exit__, in good order.
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True,
                **self.account.options)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.__exit__()
                raise SystemExit(f"bench: the server did not start; see {self.log}")
            time.sleep(0.1)
        return self

    def _answers(self):
        try:
            return self.sql("SELECT NOT pg_is_in_recovery()", quiet=True) == "t"
        except subprocess.CalledProcessError:
            return False

    def __exit__(self, *_):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait()

    def environment(self):
        return {**os.environ, "PGHOST": str(self.sockets), "PGPORT": str(PORT), "PGUSER": SUPERUSER}

    def run(self, *command, **options):
        """Runs one of PostgreSQL's programs against this server."""
        command = [programs() / command[0], *command[1:]]
        return subprocess.run(
            command, check=True, text=True, cwd="/", env=self.environment(), **self.account.options, **options)

    def sql(self, text, database="postgres", quiet=False):
        """Runs SQL, and returns what it says, unaligned."""
        command = ["psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d", database, "-f", "-"]
        errors = subprocess.DEVNULL if quiet else None
        return self.run(*command, input=text, stdout=subprocess.PIPE, stderr=errors).stdout.strip()

    def switch_log(self):
        """Ends the segment of log. Returns the position and the segment's name."""
        return self.sql("SELECT lsn, pg_walfile_name(lsn) FROM pg_switch_wal() lsn").split("|")

    def settle(self):
        """Leaves the server with nothing to write."""
        self.sql("CHECKPOINT")
        os.sync()

    def cpu_seconds(self):
        """User and system time of the server: processes that ended, and those that live."""
        tick = os.sysconf("SC_CLK_TCK")
        main = self.process.pid
        total = sum(_times(main))
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and _parent(entry.name) == main:
                total += sum(_times(entry.name))
        return total / tick


def _stat(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _parent(pid):
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _times(pid):
    fields = _stat(pid)
    return map(int, fields[11:15])
