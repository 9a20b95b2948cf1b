"""What a differential has to read: blocks that the log names."""

import re
import subprocess

from server import programs

BLOCK = 8192
REFERENCE = re.compile(rb"blkref #\d+: rel (\d+/\d+/\d+)(?: fork (\w+))? blk (\d+)")


class ChangedBlocks:
    """The blocks of main forks that records name since a backup began. Counted by pg_waldump, not by Everpoint."""

    def __init__(self, server, start):
        self.server, self.blocks, self.at = server, set(), start
        self.read()

    def read(self):
        """Takes what was logged since the last call. The slot of the backup keeps it until it is received."""
        end = self.server.sql("SELECT pg_current_wal_flush_lsn()")
        command = [programs() / "pg_waldump", "-p", self.server.data / "pg_wal", "-s", self.at, "-e", end]
        waldump = subprocess.Popen(command, stdout=subprocess.PIPE, cwd="/", **self.server.account.options)
        for line in waldump.stdout:
            for relation, fork, block in REFERENCE.findall(line):
                if not fork or fork == b"main":
                    self.blocks.add((relation, block))
        if waldump.wait() != 0:
            raise SystemExit(f"bench: pg_waldump from {self.at} to {end} failed")
        self.at = end

    def skip(self):
        """Passes over what was logged since the last call, which may be gone by the next: a backup and a checkpoint
        change no pages."""
        self.at = self.server.sql("SELECT pg_current_wal_flush_lsn()")

    def size(self):
        return len(self.blocks) * BLOCK
