"""Runs a command and measures what it takes: the clock, processor time, memory, and what others took meanwhile."""

import os
import subprocess
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.2
READ_BYTES = 4 << 20
TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Took:
    seconds: float
    cpu_seconds: float  # of the tool and its processes, user and system
    server_cpu_seconds: float  # of the server and its processes
    other_cpu_seconds: float  # of everything else on the machine, the kernel's own threads among it
    memory_bytes: int  # the tool's processes together, each shared page counted once
    stored_bytes: int = 0  # how much the repository grew
    read_bytes: int = 0  # of the data directory, where the tool tells

    def as_dict(self):
        return asdict(self)


class Sampler(threading.Thread):
    """Watches how much memory the processes of a session have."""

    def __init__(self, session):
        super().__init__(daemon=True)
        self.session, self.peak, self.ended = session, 0, threading.Event()

    def run(self):
        while not self.ended.wait(SAMPLE_SECONDS):
            self.peak = max(self.peak, sum(map(_memory, _processes(self.session))))


def _processes(session):
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if int((entry / "stat").read_text().rpartition(")")[2].split()[3]) == session:
                    yield entry
            except OSError:
                pass  # it has ended


def _memory(process):
    try:
        for line in (process / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _machine_cpu_seconds():
    user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:8])
    return (user + nice + system + irq + softirq) / TICK


class Bench:
    """How commands are run: by whom, against which server, with caches in which state."""

    def __init__(self, account, server, archiving, log, cache):
        self.account, self.server, self.archiving = account, server, archiving
        self.log, self.cache = Path(log), cache

    def run(self, command, environment=None):
        """Runs a command that is not measured."""
        return self._start(command, environment).wait_well()

    def output(self, command, environment=None):
        """What a command prints that is not measured."""
        command = list(map(str, command))
        return subprocess.run(
            command, check=True, text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, cwd="/",
            env={**self.server.environment(), **(environment or {})}, **self.account.options).stdout

    def measure(self, command, environment=None, reads=(), grows=None):
        """Runs a command that will read the directories `reads`, and measures it."""
        before = directory_size(grows) if grows else 0
        self.server.settle()
        if self.cache == "cold":
            Path("/proc/sys/vm/drop_caches").write_text("3")
        else:
            for directory in reads:
                read_through(directory)
        machine, server = _machine_cpu_seconds(), self.server.cpu_seconds()
        began = time.monotonic()
        running = self._start(command, environment)
        sampler = Sampler(running.process.pid)
        sampler.start()
        usage = running.wait_well()
        seconds = time.monotonic() - began
        sampler.ended.set()
        sampler.join()
        cpu = usage.ru_utime + usage.ru_stime
        server = self.server.cpu_seconds() - server
        others = _machine_cpu_seconds() - machine - cpu - server
        memory = max(sampler.peak, usage.ru_maxrss * 1024)
        stored = directory_size(grows) - before if grows else 0
        return Took(seconds, cpu, server, max(others, 0.0), memory, stored)

    def _start(self, command, environment):
        return Running(self, list(map(str, command)), environment or {})

    def background(self, command, environment=None):
        return self._start(command, environment)


class Running:
    def __init__(self, bench, command, environment):
        self.command, self.log = command, bench.log
        with open(self.log, "ab") as log:
            log.write(f"$ {' '.join(command)}\n".encode())
            log.flush()
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True,
                env={**bench.server.environment(), **environment}, **bench.account.options)

    def wait_well(self):
        """Waits, and returns what the command and those it waited for used. A failure ends the benchmark."""
        try:
            _, status, usage = os.wait4(self.process.pid, 0)
        except BaseException:
            self.process.terminate()
            raise
        self.process.returncode = os.waitstatus_to_exitcode(status)
        if self.process.returncode != 0:
            said = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise SystemExit(f"bench: {self.command[0]} failed with {self.process.returncode}; {self.log}:\n{said}")
        return usage

    def stop(self):
        """Asks it to end and waits until it has."""
        self.process.terminate()
        return self.wait_well()


def files(directory):
    """All files below a directory, those vanishing meanwhile left out."""
    for folder, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(folder, name)
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                continue
            yield path, status.st_size


def directory_size(directory):
    return sum(size for _, size in files(directory))


def read_through(directory):
    """Brings a directory's files into the page cache."""
    buffer = bytearray(READ_BYTES)
    for path, size in files(directory):
        if size:
            try:
                with open(path, "rb", buffering=0) as file:
                    while file.readinto(buffer):
                        pass
            except FileNotFoundError:
                pass
