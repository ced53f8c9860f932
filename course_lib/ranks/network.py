"""In a rank: emulated links. An operation is not over before it would be over on the emulated network.

The real message travels at once. Its sender writes beside it, in memory that all ranks share, when it would arrive; the receiver's wait
lasts until then. So nothing is delayed twice, and a rank that computes meanwhile hides the time as it would on a real network.
A rank has one port for each kind of link, busy in each direction with one message at a time.
"""

import mmap
import struct
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from course_lib.cost.communication import collective_s
from course_lib.cost.links import Cluster, Link

if TYPE_CHECKING:  # importing it takes torch, which the caller's first cell should not have to wait for
    from course_lib.ranks.operations import Call

SLOTS = 256  # notes that a pair of ranks can be ahead
_SLOT = struct.Struct("@dQ")  # when, key: whoever finds the key finds the time
_TABLE = SLOTS * _SLOT.size


def size(world_size: int) -> int:
    """Bytes of the shared file: a table for each ordered pair of ranks, and one for each rank's own collectives."""
    return world_size * (world_size + 1) * _TABLE


class Network:
    """One rank's end of the emulated links."""

    def __init__(self, path: Path, rank: int, world_size: int, links: Link | Cluster):
        with open(path, "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), size(world_size))
        self.rank, self.world_size, self.links = rank, world_size, links
        self.out_free: Counter = Counter()  # link -> when the port is free
        self.in_free: Counter = Counter()
        self.collectives_free: Counter = Counter()
        self.counts: Counter = Counter()  # (channel) -> messages so far
        self.open: dict[int, tuple] = {}  # number of an operation -> what its end depends on

    def begin(self, number: int, call: "Call") -> None:
        """An operation begins: work out, or write down, what its end depends on."""
        now = time.monotonic()
        if call.operation == "send" and call.peer is not None:
            link = self.links.between(self.rank, call.peer)
            start = max(now, self.out_free[link])
            self.out_free[link] = left = start + link.transfer_s(call.nbytes)
            self._note(self.rank, call.peer, self._key(call, self.rank, call.peer), left + link.latency_s)
            self.open[number] = ("at", left)
        elif call.operation == "recv":
            key = self._key(call, call.peer, self.rank) if call.peer is not None else None
            self.open[number] = ("message", call, key)
        else:
            key = self._key(call, None, None)
            self._note(self.rank, self.world_size, key, now)
            self.open[number] = ("collective", call, key)

    def wait(self, number: int, source: int = -1) -> float:
        """Return when the operation, really complete already, would be so on the emulated network; with that time."""
        end = self._end(number, source)
        self.open.pop(number, None)
        while (left := end - time.monotonic()) > 0:
            time.sleep(max(0.0, left - 1e-4))  # a sleep is late by about that much
        return end

    def is_over(self, number: int, source: int = -1) -> bool:
        """Whether it would be complete by now."""
        end = self._end(number, source)
        self.open[number] = ("at", end)
        return time.monotonic() >= end

    def _end(self, number: int, source: int) -> float:
        kind, *about = self.open.get(number, ("at", 0.0))
        if kind == "at":
            return about[0]
        call, key = about
        if kind == "message":
            sender = call.peer
            if sender is None:
                sender = call.ranks[source]
                key = self._key(call, sender, self.rank)
            link = self.links.between(sender, self.rank)
            arrival = self._find(sender, self.rank, key)
            end = max(arrival, self.in_free[link] + link.transfer_s(call.nbytes))
            self.in_free[link] = end
            return end
        begins = [self._find(rank, self.world_size, key) for rank in call.ranks]
        start = max(*begins, self.collectives_free[call.group])
        end = start + collective_s(call.operation, call.nbytes, call.ranks, self.links)
        self.collectives_free[call.group] = end
        return end

    def _key(self, call: "Call", src: int | None, dst: int | None) -> int:
        channel = (call.group, call.tag, src, dst)
        self.counts[channel] += 1
        return zlib.crc32(f"{call.group}/{call.tag}".encode()) << 32 | self.counts[channel]

    def _note(self, rank: int, to: int, key: int, when: float) -> None:
        at = (rank * (self.world_size + 1) + to) * _TABLE + (key % SLOTS) * _SLOT.size
        _SLOT.pack_into(self.memory, at, when, key)

    def _find(self, rank: int, to: int, key: int) -> float:
        at = (rank * (self.world_size + 1) + to) * _TABLE + (key % SLOTS) * _SLOT.size
        when, found = _SLOT.unpack_from(self.memory, at)
        return when if found == key else 0.0  # overwritten: the sender is more than SLOTS messages ahead
