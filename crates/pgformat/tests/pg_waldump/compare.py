#!/usr/bin/env python3
"""Compares the decoder with pg_waldump over a directory of segments.

    compare.py <wal_records> <pg_waldump> <major version> <directory> <timeline> <start> [<end>]

Build the first argument by `cargo build --release -p everpoint-pgformat --example wal_records`.
"""

import os
import re
import subprocess
import sys

from normal_form import normal_form


def main():
    wal_records, pg_waldump, version, directory, timeline, start, *end = sys.argv[1:]
    ours = subprocess.run(
        [wal_records, version, directory, timeline, start, *end], capture_output=True, text=True
    ).stdout.splitlines()
    end_option = ["-e", end[0]] if end else []
    theirs = subprocess.run(
        [pg_waldump, "-p", directory, "-t", timeline, "-s", start, *end_option],
        capture_output=True,
        env=os.environ | {"TZ": "UTC"},
    )
    record = re.compile(r"^(\S+/\S+ \S+) [0-9A-F]{2} (\d.*)$")
    last = [line for line in ours if not record.match(line)]
    ours = [f"{found[1]} {found[2]}" for line in ours if (found := record.match(line))]
    expected = list(normal_form(theirs.stdout.decode("utf-8", "replace")))
    differences = [pair for pair in zip(ours, expected) if pair[0] != pair[1]]
    for our_line, their_line in differences[:5]:
        print(f"- {our_line}\n+ {their_line}")
    print(f"ours:   {len(ours)} records, then: {last[-1] if last else 'nothing'}")
    print(f"theirs: {len(expected)} records, then: {theirs.stderr.decode().strip()}")
    print(f"{len(differences)} differences")
    sys.exit(bool(differences) or len(ours) != len(expected))


if __name__ == "__main__":
    main()
