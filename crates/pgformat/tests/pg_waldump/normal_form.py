"""Puts the output of pg_waldump into the form in which the example wal_records prints records.

    normal_form.py < output of TZ=UTC pg_waldump > lines

Info bits are left out, since pg_waldump does not print them. For servers that come without pg_waldump,
walinspect.sql makes the same output by the extension pg_walinspect.
"""

import calendar
import re
import sys
import time

RECORD = re.compile(
    r"^rmgr: (?P<manager>\S+)\s+len \(rec/tot\):\s*(?P<rec>\d+)/\s*(?P<tot>\d+), tx:\s*(?P<tx>\d+), "
    r"lsn: (?P<lsn>\S+), prev (?P<prev>\S+), desc: (?P<desc>.*)$"
)
BLOCK = re.compile(
    r"(?P<start>blkref #\d+: rel \d+/\d+/\d+)(?: fork main)?(?P<end>(?: fork \w+)? blk \d+)"
    r"(?: \(?(?P<image>FPW for WAL verification|FPW)\)?)?"
)
END = re.compile(
    r"^(?P<kind>COMMIT|ABORT|COMMIT_PREPARED|ABORT_PREPARED|PREPARE) (?:(?:gid )?(?P<id>.*?): )?"
    r"(?P<date>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.(?P<micro>\d{1,6}))?(?: UTC|\+00)(?P<rest>.*)$"
)
KINDS = {
    "COMMIT": "Commit",
    "ABORT": "Abort",
    "COMMIT_PREPARED": "CommitPrepared",
    "ABORT_PREPARED": "AbortPrepared",
    "PREPARE": "Prepare",
}


def lsn(text):
    high, low = text.split("/")
    return f"{int(high, 16):X}/{int(low, 16):X}"


def listed(rest, name):
    found = re.search(rf"; {name}: ([^;]*)", rest)
    return len(found[1].split()) if found else 0


def details(manager, transaction, desc):
    if manager == "Transaction" and (end := END.match(desc)):
        seconds = calendar.timegm(time.strptime(end["date"], "%Y-%m-%d %H:%M:%S"))
        kind = KINDS[end["kind"]]
        ended = end["id"] if kind.endswith("Prepared") else transaction
        relations = listed(end["rest"], r"rels(?:\(commit\))?")
        micro = (end["micro"] or "").ljust(6, "0")
        return (
            f"; {kind} {ended} time {seconds}{micro} "
            f"children {listed(end['rest'], 'subxacts')} relations {relations}"
        )
    if manager == "XLOG" and desc.startswith("RESTORE_POINT "):
        return f"; restore point {desc.removeprefix('RESTORE_POINT ').rstrip()}"
    if manager == "XLOG" and (redo := re.match(r"CHECKPOINT_(?:SHUTDOWN|ONLINE) redo (\S+?);", desc)):
        return f"; redo {lsn(redo[1])}"
    return ""


def normal_form(output):
    """The lines of pg_waldump's output, one a record."""
    for text in output.splitlines():
        record = RECORD.match(text)
        if not record:
            continue
        line = (
            f"{lsn(record['lsn'])} {record['manager']} {record['tx']} {record['rec']}/{record['tot']} "
            f"prev {lsn(record['prev'])}"
        )
        for block in BLOCK.finditer(record["desc"]):
            line += f" {block['start']}{block['end']}"
            if block["image"]:
                line += f" {block['image']}"
        yield line + details(record["manager"], record["tx"], record["desc"])


if __name__ == "__main__":
    for line in normal_form(sys.stdin.buffer.read().decode("utf-8", "replace")):
        print(line)
