"""The results as Markdown and JSON."""

import json
import os
import platform
import statistics
import subprocess
from pathlib import Path

STEPS = {
    "full": "full backup, to an empty repository",
    "full again": "full backup, nothing changed since the last",
    "restore": "restore of the full backup, to an empty directory",
    "one database": "one small database: by Everpoint back into the running server, by others into a second cluster, up to the first query",
    "differential 1 %": "differential, about 1 % of the pages changed",
    "differential 10 %": "differential, about 11 % of the pages changed",
    "not doubled": "differential, about 1 % of the pages changed",
    "doubled": "the same, the cluster doubled by databases that do not change",
    "move": "one database into another running server",
}


def machine(root):
    cpu = next((line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                if line.startswith("model name")), platform.processor())
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    command = ["findmnt", "-n", "-o", "FSTYPE", "-T", root]
    kind = subprocess.run(command, text=True, stdout=subprocess.PIPE, check=True)
    return {
        "processor": cpu, "processors": os.cpu_count(), "memory_bytes": pages * page, "kernel": platform.release(),
        "file_system": kind.stdout.strip(),
    }


def commit():
    command = ["git", "describe", "--always", "--dirty"]
    found = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return found.stdout.strip()


def median(values, field):
    return statistics.median(value[field] for value in values)


def write(path, facts, results):
    """`results`: step, then tool, then what each run took."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(markdown(facts, results))
    path.with_suffix(".json").write_text(json.dumps({"facts": facts, "results": results}, indent=1) + "\n")


def markdown(facts, results):
    at, cluster = facts["machine"], facts["cluster"]
    lines = [
        "# Measured", "",
        f"{at['processors']} × {at['processor']}, {at['memory_bytes'] / 2**30:.0f} GiB of memory, {at['file_system']}, Linux "
        f"{at['kernel']}. " + "; ".join(facts["versions"]) + ".", "",
        f"Cluster: {cluster['bytes'] / 1e9:.2f} GB in {cluster['files']} files. {facts['jobs']} threads or processes each, "
        f"caches {facts['cache']}, runs interleaved; medians, every value in brackets. Processor time is user and system "
        "time of the tool and of the server. Memory is the tool's, at its highest. `Others` is processor "
        "time of the rest of the machine meanwhile: the kernel writing out what a tool left to it, and whoever else was at "
        "work, which makes times doubtful.", "",
        "| step | tool | seconds | processor s | of it server | memory | stored | others |", "|---|---|---|---|---|---|---|---|",
    ]
    for step, tools in results.items():
        for tool, values in tools.items():
            cpu = [value["cpu_seconds"] + value["server_cpu_seconds"] for value in values]
            stored = median(values, "stored_bytes")
            lines.append(
                f"| {STEPS[step]} | {tool} | **{median(values, 'seconds'):.1f}** ({each(values, 'seconds')}) "
                f"| **{statistics.median(cpu):.1f}** ({' '.join(f'{value:.1f}' for value in cpu)}) "
                f"| {median(values, 'server_cpu_seconds'):.1f} | {median(values, 'memory_bytes') / 1e6:.0f} MB "
                f"| {f'{stored / 1e6:.0f} MB' if stored else ''} | {each(values, 'other_cpu_seconds')} |")
    lines += ["", "Everpoint beside the others (less than 1 is better):", "",
              "| step | beside | time | processor time | memory | stored |", "|---|---|---|---|---|---|"]
    for step, tools in results.items():
        own = tools.get("everpoint")
        for tool, values in tools.items():
            if own and tool != "everpoint":
                lines.append(f"| {STEPS[step]} | {tool} | " + " | ".join(ratios(own, values)) + " |")
    changed = facts.get("changed_pages")
    if changed:
        lines += ["", "Pages changed: " + "; ".join(f"{name}: {' '.join(map(str, counts))}" for name, counts in changed.items())]
    for name, runs in facts.get("reading", {}).items():
        lines += ["", f"Read by everpoint, {name}: " + "; ".join(map(reading, runs))]
    one = facts.get("one_database", {})
    if one.get("doubled"):
        doubled = one["doubled"]
        lines += ["", "Cluster doubled, with the same changes: "
                  f"**{statistics.median(run['ratio'] for run in doubled):.2f}** times the time of a differential ("
                  + " ".join(f"{run['ratio']:.2f}" for run in doubled) + "), "
                  f"{doubled[-1]['doubled_bytes'] / doubled[-1]['bytes']:.2f} times the size"]
    if one.get("fetched_bytes"):
        lines += ["", "Fetched for one database, beside what is stored of its files and of the log: " + "; ".join(
            f"{run['fetched'] / 1e6:.1f} of {run['stored'] / 1e6:.1f} MB, {run['fetched'] / run['stored']:.2f}"
            for run in one["fetched_bytes"])]
    if one.get("replay_seconds"):
        lines += ["", "Replay of one database's part of the log beside all of it: " + "; ".join(
            f"{run['one']:.1f} s and {run['all']:.1f} s, {run['all'] / run['one']:.1f} times as fast, its share "
            f"{run['share']:.0%}" for run in one["replay_seconds"])]
    serving = facts.get("serving")
    if serving:
        times = serving["list_ms"]
        lines += ["", f"The service on one processor: {serving['databases']} databases of an instance listed in "
                  f"**{statistics.median(times):.1f} ms** (at most {max(times):.1f}); "
                  f"**{serving['requests_per_second']:.0f}** other requests a second, "
                  f"{1000 * serving['cpu_seconds_per_request']:.2f} ms of the processor each"]
    return "\n".join(lines) + "\n"


def reading(run):
    """Bytes read beside the bytes of blocks that changed, those of files that are copied whole among them."""
    ratio = run["read"] / run["changed"]
    return (f"{run['read'] / 1e6:.0f} MB; {run['changed'] / 1e6:.0f} MB changed (blocks that the log names): "
            f"{ratio:.2f} times what changed")


def each(values, field):
    return " ".join(f"{value[field]:.1f}" for value in values)


def ratios(own, other):
    def cpu(values):
        return statistics.median(value["cpu_seconds"] + value["server_cpu_seconds"] for value in values)

    yield f"**{median(own, 'seconds') / median(other, 'seconds'):.2f}**"
    yield f"{cpu(own) / cpu(other):.2f}"
    yield f"{median(own, 'memory_bytes') / median(other, 'memory_bytes'):.2f}"
    stored = median(other, "stored_bytes")
    yield f"{median(own, 'stored_bytes') / stored:.2f}" if stored else ""
