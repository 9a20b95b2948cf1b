"""Measures Everpoint beside pgBackRest and pg_basebackup, interleaved, on the same cluster."""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import cluster
import report
import serving
from changes import ChangedBlocks
from measure import Bench, directory_size, files
from moving import Moving
from server import Account, Server, programs
from tools import Archiving, Everpoint, PgBackRest, PgBasebackup, built

SETTINGS = {
    "autovacuum": "off", "checkpoint_timeout": "1h", "max_wal_size": "8GB", "shared_buffers": "256MB",
    "archive_mode": "on", "archive_timeout": "0", "max_wal_senders": "10", "wal_level": "replica",
}
FREE_BYTES = 25 << 30
# ext4 does not use the inodes of deleted files again for this long, and looks for others slowly meanwhile.
INODE_SECONDS = 40
STEPS = ("full", "again", "restore", "differential", "doubled", "database", "move", "serve")
TOOLS = ("everpoint", "pgbackrest", "pg_basebackup")


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def arguments():
    def several(known):
        def parse(text):
            chosen = text.split(",")
            if not set(chosen) <= set(known):
                raise argparse.ArgumentTypeError(f"choose of {', '.join(known)}")
            return chosen
        return parse

    parser = argparse.ArgumentParser(prog="scripts/bench.sh", description=__doc__)
    parser.add_argument("--runs", type=int, default=int(os.environ.get("BENCH_RUNS", "5")))
    parser.add_argument("--jobs", type=int, default=int(os.environ.get("BENCH_JOBS", "2")))
    parser.add_argument("--cache", choices=("warm", "cold"), default=os.environ.get("BENCH_CACHE", "warm"),
                        help="read what will be read before each run, or drop caches (as root)")
    parser.add_argument("--tools", type=several(TOOLS), default=list(TOOLS), help=",".join(TOOLS))
    parser.add_argument("--steps", type=several(STEPS), default=list(STEPS), help=",".join(STEPS))
    parser.add_argument("--pgbackrest", action="append", metavar="PROGRAM",
                        help="another pgbackrest than the one in PATH; may be given several times")
    parser.add_argument("--output", type=Path, default=Path("target/bench/results.md"))
    chosen = parser.parse_args()
    if chosen.cache == "cold" and os.getuid() != 0:
        parser.error("only root can drop caches")
    return chosen


class Rounds:
    def __init__(self, chosen, bench, root):
        self.chosen, self.bench, self.root = chosen, bench, root
        self.tools = []
        if "everpoint" in chosen.tools:
            self.tools.append(Everpoint(bench, root, chosen.jobs))
        if "pgbackrest" in chosen.tools:
            programs_asked = chosen.pgbackrest or ["pgbackrest"]
            self.tools += [PgBackRest(bench, root, chosen.jobs, program) for program in programs_asked]
        if "pg_basebackup" in chosen.tools:
            self.tools.append(PgBasebackup(bench, root, chosen.jobs))
        self.incremental = [tool for tool in self.tools if hasattr(tool, "restore")]
        self.results, self.changed, self.facts = {}, {}, {}
        self.reading = {}
        self.moving = Moving(bench, root, chosen.jobs) if "move" in chosen.steps else None

    def note(self, step, tool, took):
        self.results.setdefault(step, {}).setdefault(tool.name, []).append(took.as_dict())
        say(f"  {step}, {tool.name}: {took.seconds:.1f} s, processor {took.cpu_seconds + took.server_cpu_seconds:.1f} s, "
            f"{took.memory_bytes / 1e6:.0f} MB, stored {took.stored_bytes / 1e6:.0f} MB, others {took.other_cpu_seconds:.1f} s")

    def turn(self, tools, number):
        """The tools, another one first in each round."""
        first = number % len(tools)
        return tools[first:] + tools[:first]

    def round(self, number):
        say(f"round {number + 1} of {self.chosen.runs}")
        if self.clean():
            time.sleep(INODE_SECONDS)
        if "doubled" in self.chosen.steps:
            self.doubled(number)
        if set(self.chosen.steps) - {"move", "doubled", "serve"}:
            self.backups(number)
        if self.moving:
            for tool in self.turn(self.moving.tools, number):
                self.note("move", tool, self.moving.measure(tool))

    def doubled(self, number):
        """The same changes in the cluster as it is and doubled by databases that nobody changes."""
        own = [tool for tool in self.tools if tool.name == Everpoint.name]
        if not own:
            return
        pages = directory_size(self.bench.server.data / "base") // 8192 // 100
        took = {}
        for step in self.turn(["not doubled", "doubled"], number):
            if step == "doubled":
                cluster.double(self.bench.server)
            size = directory_size(self.bench.server.data / "base")
            own[0].prepare()
            own[0].full()
            blocks = self.changed_since(own[0])
            self.differential(step, pages, number, own, blocks)
            took[step] = self.results[step][Everpoint.name][-1]["seconds"], size
            if step == "doubled":
                cluster.halve(self.bench.server)
                self.bench.server.settle()
                time.sleep(INODE_SECONDS)
        self.facts.setdefault("doubled", []).append({
            "bytes": took["not doubled"][1], "doubled_bytes": took["doubled"][1],
            "ratio": took["doubled"][0] / took["not doubled"][0]})

    def changed_since(self, tool):
        """What changes from the start of its last backup on, which differentials build on."""
        return ChangedBlocks(self.bench.server, tool.last_backup()["start_lsn"])

    def backups(self, number):
        blocks = None
        for tool in self.turn(self.tools, number):
            tool.prepare()
            self.note("full", tool, tool.full())
            if tool.name == Everpoint.name:
                blocks = self.changed_since(tool)
        if "again" in self.chosen.steps:
            for tool in (tool for tool in self.tools if tool.name == Everpoint.name):
                self.note("full again", tool, tool.full())
                blocks = self.changed_since(tool)
        if "restore" in self.chosen.steps:
            for tool in self.turn(self.incremental, number):
                target = tool.repository.with_name(f"restored-{tool.repository.name}")
                self.note("restore", tool, tool.restore(target))
                if number == 0 and tool.name == Everpoint.name:
                    self.check(target)
        if "differential" in self.chosen.steps:
            pages = directory_size(self.bench.server.data / "base") // 8192
            for percent in (1, 10):
                step = f"differential {percent} %"
                self.differential(step, pages * percent // 100, number, self.incremental, blocks)
        # Last, as its log changes pages that a differential would have to store.
        if "database" in self.chosen.steps:
            self.one_database(number)

    def one_database(self, number):
        """One database of many: back in the running server, up to the first query, beside a second cluster with only
        that one; what is fetched for it; and how fast its part of the log is replayed."""
        database, query = cluster.ONE, "SELECT count(*) FROM t7"
        sockets = self.root / "socket-restored"
        self.bench.account.make_directory(sockets)
        for tool in self.incremental:
            tool.begin_log()
        end = self.bench.server.switch_log()
        for tool in self.incremental:
            tool.end_log(*end)
        for tool in self.turn(self.incremental, number):
            if tool.name == Everpoint.name:
                self.note("one database", tool, tool.one_database(database, query))
                fetched = tool.said().get("fetched_bytes")
                self.facts.setdefault("fetched_bytes", []).append({"fetched": fetched, "stored": tool.stored_bytes(database)})
            else:
                target = tool.repository.with_name(f"restored-one-{tool.repository.name}")
                self.note("one database", tool, tool.one_database(database, query, target, sockets))
        for tool in self.incremental:
            if tool.name != Everpoint.name:
                continue
            tool.begin_log()
            share = cluster.write_log(self.bench.server)
            tool.end_log(*self.bench.server.switch_log())
            one = tool.replay_one(cluster.ONE)
            everything = tool.replay_all(self.root / "restored-all", sockets)
            self.facts.setdefault("replay_seconds", []).append({"one": one, "all": everything, "share": share})
            cluster.forget_log(self.bench.server)
            say(f"  replay of log of which {share:.0%} are the database's: {one:.1f} s, of all {everything:.1f} s")

    def differential(self, step, pages, number, tools, blocks):
        for tool in tools:
            tool.begin_log()
        if blocks:
            blocks.skip()
        changed = cluster.change(self.bench.server, pages)
        if blocks:
            blocks.read()
        self.bench.server.sql("CHECKPOINT")
        end = self.bench.server.switch_log()
        for tool in tools:
            tool.end_log(*end)
        self.changed.setdefault(step, []).append(changed)
        for tool in self.turn(tools, number):
            took = tool.differential()
            self.note(step, tool, took)
            if blocks and took.read_bytes:
                self.reading.setdefault(step, []).append({"read": took.read_bytes, "changed": blocks.size()})

    def clean(self):
        """Removes what the last round made."""
        left = [path for path in self.root.glob("restored-*") if path.is_dir()]
        left += [tool.repository for tool in self.tools if tool.repository.exists()]
        for path in left:
            shutil.rmtree(path)
        return bool(left)

    def check(self, restored):
        """A backup that cannot be restored has no speed: the restored cluster must hold what the first does."""
        wanted = contents(self.bench.server)
        with Server(self.bench.account, restored, self.root / "socket-restored", {"autovacuum": "off"}) as server:
            found = contents(server)
        if wanted != found:
            raise SystemExit(f"bench: the restored cluster holds {found}, not {wanted}")
        self.bench.run([programs() / "pg_checksums", "--check", "-D", restored])
        say("  the restored cluster is right")


def contents(server):
    return [server.sql(f"SELECT count(*), sum({column}), sum(hashint8({key}::bigint)) FROM {table}", database)
            for database, table, key, column in cluster.UPDATED]


def main():
    chosen = arguments()
    account = Account()
    root = Path(os.environ.get("EVERPOINT_BENCH_DIR", "/var/tmp/everpoint-bench")).absolute()
    account.make_directory(root)
    data = cluster.ensure(account, root, say)
    if shutil.disk_usage(root).free < FREE_BYTES:
        raise SystemExit(f"bench: {root} wants {FREE_BYTES >> 30} GiB free; set EVERPOINT_BENCH_DIR")
    log = root / "commands.log"
    log.write_bytes(b"")
    settings = SETTINGS | {"archive_command": Archiving.command(root)}
    with Server(account, data, root / "socket", settings) as server:
        cluster.halve(server)
        sizes = [size for _, size in files(data / "base")]
        rounds = Rounds(chosen, Bench(account, server, Archiving(root), log, chosen.cache), root)
        facts = {
            "machine": report.machine(root), "jobs": chosen.jobs, "cache": chosen.cache,
            "cluster": {"bytes": sum(sizes), "files": len(sizes)},
            "versions": [f"{tool.version}" if tool.name != "everpoint" else f"{tool.version} ({report.commit()})"
                         for tool in rounds.tools],
        }
        try:
            # Sets what hints its queries leave in pages, which would count as changes.
            contents(server)
            for number in range(chosen.runs):
                rounds.round(number)
                # After every round, so that a long measurement that is broken off leaves something.
                facts["changed_pages"] = rounds.changed
                facts["one_database"] = rounds.facts
                facts["reading"] = rounds.reading
                report.write(chosen.output, facts, rounds.results)
            if "serve" in chosen.steps:
                facts["serving"] = serving.measure(account, root, built(), say)
                report.write(chosen.output, facts, rounds.results)
        finally:
            for tool in rounds.tools:
                if isinstance(tool, Everpoint):
                    tool.give_up()
            stop_slots(server)
            cluster.halve(server)
            rounds.clean()
            if rounds.moving:
                rounds.moving.clean()
    if not rounds.results and "serving" not in facts:
        return
    say(f"results are in {chosen.output} and {chosen.output.with_suffix('.json')}")
    print(chosen.output.read_text())


def stop_slots(server):
    """No slot may keep log between measurements."""
    try:
        server.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT active")
    except subprocess.CalledProcessError:
        pass


if __name__ == "__main__":
    main()
