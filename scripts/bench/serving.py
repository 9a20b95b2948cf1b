"""How fast the service answers about an instance of a thousand databases."""

import multiprocessing
import os
import shutil
import statistics
import time

from served import Client, Served, new_cluster
from server import Server

DATABASES = 1000
LISTINGS, MIX_SECONDS, CLIENTS = 30, 10, 3
BACKUP_SECONDS, SEEN_SECONDS = 900, 120
SETTINGS = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off", "max_wal_size": "8GB"}
# What clients ask for while they wait and look: one database, its policy, the instance, the operations.
MIX = ("/databases/tenant_{0}", "/databases/tenant_{0}/backupShortTermRetentionPolicies/default", "", "/operations")
CONFIGURATION = """[limits]
requests_per_second = 65535
burst = 65535
"""


def ensure(account, root, say):
    """A cluster of a thousand databases, made once and kept."""
    data, stamp = root / "thousand", root / "thousand.databases"
    if stamp.exists() and stamp.read_text() == str(DATABASES) and data.stat().st_uid == account.uid:
        return data
    say(f"making a cluster of {DATABASES} databases (once; some minutes)")
    stamp.unlink(missing_ok=True)
    shutil.rmtree(data, ignore_errors=True)
    new_cluster(account, data)
    with Server(account, data, root / "socket-thousand", SETTINGS) as server:
        # Each by itself, as it may not be made in a transaction.
        server.sql("\n".join(f"CREATE DATABASE tenant_{number};" for number in range(1, DATABASES + 1)))
    os.sync()
    stamp.write_text(str(DATABASES))
    return data


def wait(what, seconds, done, say):
    begun = time.monotonic()
    while not done():
        if time.monotonic() - begun > seconds:
            raise SystemExit(f"bench: waited {seconds} s in vain: {what}")
        time.sleep(0.5)
    say(f"  {what}: {time.monotonic() - begun:.1f} s")


def measure(account, root, program, say):
    """Facts for the report. The service has one processor, whoever asks the other."""
    data = ensure(account, root, say)
    with Served(program, account, data, root, CONFIGURATION) as served:
        client = Client(served)

        def seen():
            return len(client.list("/databases")) > DATABASES
        wait("all databases are seen", SEEN_SECONDS, seen, say)
        wait("the first full backup", BACKUP_SECONDS, lambda: client.operation("FullBackup") == "Succeeded", say)
        pin(served.process.pid, {0})
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        try:
            listings = []
            for _ in range(LISTINGS):
                begun = time.monotonic()
                count = len(client.list("/databases"))
                listings.append((time.monotonic() - begun) * 1000)
            answered, used = load(served)
        finally:
            os.sched_setaffinity(0, range(os.cpu_count()))
    facts = {
        "databases": count, "list_ms": listings, "requests_per_second": answered / MIX_SECONDS,
        "cpu_seconds_per_request": used / answered,
    }
    say(f"  {count} databases listed in {statistics.median(listings):.1f} ms, at most {max(listings):.1f} ms; "
        f"{facts['requests_per_second']:.0f} requests a second, {1000 * used / answered:.2f} ms of the processor each")
    return facts


def pin(process, processors):
    for thread in os.listdir(f"/proc/{process}/task"):
        os.sched_setaffinity(int(thread), processors)


def load(served):
    """Several clients ask without a pause. Returns how many answers there were, and the service's processor time."""
    with multiprocessing.Pool(CLIENTS, initializer=connect, initargs=(served,)) as pool:
        pool.map(warm, range(CLIENTS))
        before = cpu_seconds(served.process.pid)
        answered = sum(pool.map(ask, range(CLIENTS), chunksize=1))
        return answered, cpu_seconds(served.process.pid) - before


def cpu_seconds(process):
    with open(f"/proc/{process}/stat", encoding="utf-8") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def connect(served):
    global CLIENT
    CLIENT = Client(served)


def warm(_):
    CLIENT.get("")
    time.sleep(0.2)


def ask(number):
    until, answered = time.monotonic() + MIX_SECONDS, 0
    while time.monotonic() < until:
        path = MIX[answered % len(MIX)].format(1 + (number * 331 + answered) % DATABASES)
        CLIENT.get(path)
        answered += 1
    return answered
