"""Cuts the log between two positions out of 1 MiB segments, and writes down what pg_waldump says of it.

    cut_fixture.py <directory of segments> <output of pg_waldump> <start> <end> <fixture, without extension>
"""

import pathlib
import re
import sys

from normal_form import lsn, normal_form

PAGE = 8192
SEGMENT = 1 << 20


def number(text):
    high, low = text.split("/")
    return int(high, 16) << 32 | int(low, 16)


def main():
    directory, dump, start, end, fixture = sys.argv[1:]
    first = number(start) // PAGE * PAGE
    last = -(-number(end) // PAGE) * PAGE
    log = b""
    for segment in range(first // SEGMENT, (last - 1) // SEGMENT + 1):
        name = f"00000001{segment // 4096:08X}{segment % 4096:08X}"
        log += pathlib.Path(directory, name).read_bytes()
    offset = first % SEGMENT
    pathlib.Path(fixture + ".bin").write_bytes(log[offset : offset + last - first])

    dump = pathlib.Path(dump).read_text("utf-8", "replace")
    marks = re.findall(r"lsn: (\S+), prev \S+, desc: INPLACE", dump.partition("Database")[0])
    with open(fixture + ".txt", "w", encoding="utf-8") as text:
        text.write(f"# page {first >> 32:X}/{first & 0xFFFFFFFF:X}\n")
        text.write(f"# start {lsn(start)}\n# end {lsn(end)}\n# undo {lsn(marks[-1])}\n")
        for line in normal_form(dump):
            text.write(line + "\n")


if __name__ == "__main__":
    main()
