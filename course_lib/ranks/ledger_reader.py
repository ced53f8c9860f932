"""In the caller: what the ranks have written into the ledger, read while they run."""

import json
import mmap
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from course_lib.ranks.ledger import (
    BEGUN,
    BLOCKED,
    CAPACITY,
    DONE,
    ENDED,
    FAILED_CALL,
    HEADER,
    LOST,
    OWN_TIMEOUT,
    READ,
    RECORD,
    SINCE,
    STRIDE,
    THREADS,
    WORDS,
    size,
)
from course_lib.ranks.worker import Spec

MAX_EVENTS = 200_000  # kept of a run, over all ranks: a trace; what comes later is checked and counted, not kept


@dataclass(frozen=True)
class Site:
    """Where an operation was called; see course_lib.ranks.call_sites."""

    api: str
    via: str
    stack: tuple[tuple[str, int, str], ...]


@dataclass(slots=True, eq=False)
class Entry:
    """One operation of one rank. Times are on the monotonic clock, 0 where something has not happened."""

    rank: int
    number: int
    call: dict[str, Any]
    site: Site
    begun: float
    wait_from: float = 0.0
    wait_to: float = 0.0
    ended: float = 0.0
    early_end: float = 0.0
    source: int | None = None  # group rank that a message from any source came from
    flags: int = 0
    matched: bool = False  # all the ranks that it needs have called their part

    @property
    def failed(self) -> bool:
        return bool(self.flags & FAILED_CALL)

    @property
    def gives_up(self) -> bool:
        """Whether it has a time limit of its own."""
        return bool(self.flags & OWN_TIMEOUT) or self.call["operation"] == "monitored_barrier"

    @property
    def complete(self) -> bool:
        return self.ended > 0 or self.failed


@dataclass(frozen=True)
class State:
    """What a rank is doing. Two equal states of a rank mean that it has done nothing in between."""

    state: int
    begun: int
    blocked: int  # number of the operation that its thread stands still in, plus 1; 0: none
    blocked_since: int  # the bits of the time, to be compared only
    ended: int
    lost: int  # operations that went unrecorded, since the caller did not keep up
    threads: bool  # there are others: what one thread waits for, another may bring about


@dataclass
class _Rank:
    read: int = 0
    open: dict[int, Entry] = field(default_factory=dict)
    recent: dict[int, Entry] = field(default_factory=dict)
    names: dict[int, Any] = field(default_factory=dict)
    offset: int = 0

    def read_names(self, path: Path) -> None:
        """Read what has been added to a rank's file of names."""
        with open(path, "rb") as file:
            file.seek(self.offset)
            lines = file.read()
        whole = lines[: lines.rfind(b"\n") + 1]
        self.offset += len(whole)
        for line in whole.splitlines():
            number, value = json.loads(line)
            if "stack" in value:
                value = Site(value["api"], value["via"], tuple(tuple(frame) for frame in value["stack"]))
            self.names[number] = value


@dataclass(frozen=True)
class Kept:
    """What is left of a run when its memory is gone."""

    world_size: int
    entries: list[Entry]
    dropped: int


class Record:
    """Follows the ledger of a run. `update` often: it returns what has begun since."""

    def __init__(self, spec: Spec):
        self.spec = spec
        with open(spec.file("ledger"), "r+b") as file:
            self.memory = mmap.mmap(file.fileno(), size(spec.world_size))
        self.words = memoryview(self.memory).cast("Q")
        self.ranks = [_Rank() for _ in range(spec.world_size)]
        self.order = threading.Lock()
        self.entries: list[Entry] = []
        self.dropped = 0

    def update(self) -> list[Entry]:
        """Read all that is new. Returns the operations that have begun, rank by rank, each rank's in order."""
        return [entry for rank in range(len(self.ranks)) for entry in self._read(rank)]

    def states(self) -> tuple[State, ...]:
        """What every rank is doing now."""
        return tuple(self._state(rank) for rank in range(len(self.ranks)))

    def _state(self, rank: int) -> State:
        at = rank * WORDS
        words = self.words[at : at + 8].tolist()
        return State(
            state=self.memory[rank * STRIDE],
            begun=words[BEGUN],
            blocked=words[BLOCKED],
            blocked_since=words[SINCE],
            ended=words[ENDED],
            lost=words[LOST],
            threads=words[THREADS] > 1,
        )

    def done(self) -> set[int]:
        """The ranks whose function has returned."""
        return {rank for rank in range(len(self.ranks)) if self.memory[rank * STRIDE] == DONE}

    def entry(self, rank: int, number: int) -> Entry | None:
        """An operation that a rank stands still in."""
        here = self.ranks[rank]
        return here.open.get(number) or here.recent.get(number)

    def kept(self) -> Kept:
        """All operations, as far as they were kept."""
        lost = sum(state.lost for state in self.states())
        return Kept(len(self.ranks), self.entries, self.dropped + lost)

    def close(self) -> None:
        """Give the memory back."""
        self.words.release()
        self.memory.close()

    def _read(self, rank: int) -> list[Entry]:
        here = self.ranks[rank]
        begun = self.words[rank * WORDS + BEGUN]
        with self.order:  # see Ledger.begin: what was announced is read after its announcement
            pass
        for number in list(here.open):
            self._refresh(here, rank, number)
        new = []
        for number in range(here.read, begun):
            _, call, site, start, wait_from, wait_to, ended, early, source, flags = self._fields(rank, number)
            source = source - 1 if source else None
            call, site = self._name(rank, call), self._name(rank, site)
            entry = Entry(rank, number, call, site, start, wait_from, wait_to, ended, early, source, flags)
            if not entry.complete:
                here.open[number] = entry
            new.append(entry)
        here.read = begun
        if len(self.entries) < MAX_EVENTS:
            self.entries += new
        else:
            self.dropped += len(new)
        # An operation that never completes must not hold up the ring for ever: after half a turn we look no more.
        oldest = max(min(here.open, default=begun), begun - CAPACITY // 2)
        for number in [number for number in here.open if number < oldest]:
            here.recent[number] = here.open.pop(number)
        self.words[rank * WORDS + READ] = oldest
        return new

    def _fields(self, rank: int, number: int) -> tuple:
        return RECORD.unpack_from(self.memory, rank * STRIDE + HEADER.size + number % CAPACITY * RECORD.size)

    def _refresh(self, here: _Rank, rank: int, number: int) -> None:
        stamp, *_, wait_from, wait_to, ended, early, source, flags = self._fields(rank, number)
        entry = here.open[number]
        if stamp == number + 1:
            entry.wait_from, entry.wait_to, entry.ended, entry.early_end = wait_from, wait_to, ended, early
            entry.source, entry.flags = source - 1 if source else None, flags
        if entry.complete:
            here.recent = {number: here.open.pop(number)}  # it may have completed an instant after a state was read

    def _name(self, rank: int, number: int) -> Any:
        here = self.ranks[rank]
        if number not in here.names:
            here.read_names(self.spec.file("names", rank))
        return here.names[number]
