"""The ledger: what every rank has begun and finished, in memory that the caller reads while the ranks run.

One file, mapped by the caller and by every rank. Each rank has a region of its own that only it writes: a header, then a ring of
records, one an operation. What is long and repeats (shapes, source lines, groups) is written once, to a text file beside
it, and named by a number. Times are those of the machine's monotonic clock, the same for all processes.

The header is written word by word, through a memoryview: that stores a number as a whole. struct.pack_into writes zeros first, and
a reader in another process now and then sees them.
"""

import itertools
import json
import mmap
import os
import struct
import threading
import time
from pathlib import Path

STARTED, RUNNING, DONE, FAILED = b"SRDF"  # a rank's state; 0 until it has started

CAPACITY = 16384  # records that a rank can be ahead of the caller's reading
HEADER = struct.Struct("@B7xQQdQQQQ")  # state, begun, blocked, blocked_since, ended, read, threads, lost
RECORD = struct.Struct("@QIIdddddII")  # number, call, site, begun, wait_from, wait_to, ended, early_end, peer, flags
STRIDE = HEADER.size + CAPACITY * RECORD.size
BEGUN, BLOCKED, SINCE, ENDED, READ, THREADS, LOST = range(1, 8)  # the header's fields, as 8-byte words
WORDS = STRIDE // 8
_TIMES = struct.Struct("@ddd")
FAILED_CALL, OWN_TIMEOUT = 1, 2  # flags of a record: it raised; it will give up by itself


def size(world_size: int) -> int:
    """Bytes of the ledger's file; it is sparse, so that only what is written takes memory."""
    return world_size * STRIDE


class Ledger:
    """A rank's pen. `begin` before an operation, `end` after it; between them the caller sees it as under way.

    Any thread of the rank may use it. A record that the caller has not read is never overwritten: when it is that far
    behind, what follows is only counted as lost, and `begin` returns -1.
    """

    def __init__(self, path: Path, names: Path, rank: int, world_size: int):
        with open(path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), size(world_size))
        self.words = memoryview(self.memory).cast("Q")
        self.at, self.header, self.world_size = rank * STRIDE, rank * WORDS, world_size
        self.names = os.open(names, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.numbers: dict = {}  # what has been written to the names file -> its number there
        self.lock, self.order = threading.Lock(), threading.Lock()
        self.ended = itertools.count(1)
        self.main_thread = threading.get_ident()
        self.begun = self.room = self.lost = 0

    def set_state(self, state: int) -> None:
        """Say how far this rank is: STARTED, RUNNING, DONE or FAILED."""
        self.memory[self.at] = state

    def states(self) -> list[int]:
        """The state of every rank, as it is now."""
        return [self.memory[rank * STRIDE] for rank in range(self.world_size)]

    def name(self, key, describe) -> int:
        """The number of something that is written once; describe() gives what to write, as JSON can hold it."""
        number = self.numbers.get(key)
        if number is None:
            with self.lock:
                number = self.numbers.setdefault(key, len(self.numbers))
                os.write(self.names, (json.dumps([number, describe()]) + "\n").encode())
        return number

    def begin(self, call: int, site: int, blocks: bool = True) -> int:
        """An operation begins now; if it blocks, the calling thread stands still in it until `resume`. Returns its number."""
        now = time.monotonic()
        with self.lock:
            number = self.begun
            if number >= self.room:
                self.room = self.words[self.header + READ] + CAPACITY
                if number >= self.room:
                    self.lost += 1
                    self.words[self.header + LOST] = self.lost
                    return -1
            at = self.at + HEADER.size + number % CAPACITY * RECORD.size
            RECORD.pack_into(self.memory, at, number + 1, call, site, now, 0.0, 0.0, 0.0, 0.0, 0, 0)
            self.begun = number + 1
        with self.order:  # on processors that reorder writes, taking a lock keeps the record before its announcement
            self.words[self.header + BEGUN] = self.begun
        if blocks:
            self.block(number, now)
        return number

    def block(self, number: int, now: float) -> None:
        """The calling thread stands still in operation `number`."""
        if threading.get_ident() == self.main_thread:
            self.words[self.header + THREADS] = threading.active_count()
            struct.pack_into("@d", self.memory, self.at + 8 * SINCE, now)
            self.words[self.header + BLOCKED] = number + 1

    def resume(self) -> None:
        """The calling thread goes on."""
        if threading.get_ident() == self.main_thread:
            self.words[self.header + BLOCKED] = 0

    def end(self, number: int, wait_from: float = 0.0, wait_to: float = 0.0, peer: int = -1) -> None:
        """Operation `number` is complete; the thread waited for it from wait_from to wait_to, if at all."""
        at = self._record(number)
        if at is not None:
            if peer >= 0:  # before the times: whoever sees that it is complete looks no more
                struct.pack_into("@I", self.memory, at + 56, peer + 1)
            if wait_to:
                _TIMES.pack_into(self.memory, at + 24, wait_from, wait_to, wait_to)
            else:
                struct.pack_into("@d", self.memory, at + 40, time.monotonic())
            self.words[self.header + ENDED] = next(self.ended)

    def end_early(self, number: int, when: float) -> None:
        """Operation `number` was complete at `when`, before anybody waited for it."""
        at = self._record(number)
        if at is not None:
            struct.pack_into("@d", self.memory, at + 48, when)

    def flag(self, number: int, flags: int) -> None:
        """Set the flags of operation `number`."""
        at = self._record(number)
        if at is not None:
            struct.pack_into("@I", self.memory, at + 60, flags)

    def _record(self, number: int) -> int | None:
        """Where a record is, unless it was lost or its place was given to a later one."""
        at = self.at + HEADER.size + number % CAPACITY * RECORD.size
        return at if number >= 0 and self.words[at // 8] == number + 1 else None
