"""What a run did, on one clock: every operation and every span of every rank. A real run and a simulated one give the same type."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from course_lib.cost.communication import ring_bytes
from course_lib.trace.export import write_chrome
from course_lib.trace.tables import Overlap, Totals, Traffic, covered_s, make_totals, make_traffic

Interval = tuple[float, float]
KINDS = ("collective", "message", "span")


@dataclass(frozen=True, slots=True)
class Event:
    """One operation or span of one rank. Times are seconds since the run began, on one clock for all ranks.

    kind: "collective", "message" or "span";  operation: as the learner called it; of a span its name.
    end_s: when it was complete; the end of the trace for one that never was (`complete` is False then).
    waits: when the rank's own thread stood still for it, inside start_s to end_s or, for a late wait(), after it.
    group: "world", "group 1", …;  ranks: its members, () for a span.
    peers: of a message the other rank, of a rooted collective its root.
    nbytes: payload, what this rank handed in; of a recv what it gets; 0 for a span and a barrier.
    sent_bytes: what this rank put on the wire; None where only the backend knows (its own collectives).
    shape, detail: for the reader, "1000 × float32" and "sum" or "root 0" or "tag 3".
    line, source: where the learner's code called it, and that line's text;  labels: of a span.
    number: it is the number-th event of its rank.
    """

    rank: int
    kind: str
    operation: str
    start_s: float
    end_s: float
    waits: tuple[Interval, ...] = ()
    group: str = "world"
    ranks: tuple[int, ...] = ()
    peers: tuple[int, ...] = ()
    nbytes: int = 0
    sent_bytes: int | None = None
    shape: str = ""
    detail: str = ""
    async_op: bool = False
    complete: bool = True
    line: str = ""
    source: str = ""
    labels: tuple[tuple[str, object], ...] = ()
    number: int = 0

    @property
    def is_span(self) -> bool:
        """Whether it is a named part of the rank's own work, and no communication."""
        return self.kind == "span"

    @property
    def is_send(self) -> bool:
        """Whether it is a message that this rank sent."""
        return self.kind == "message" and self.operation in ("send", "isend")

    @property
    def ring_bytes(self) -> float:
        """What this rank puts on the wire: as counted or, of the backend's own collective among n ranks, by formula.

        2(n−1)/n of what it hands in for an all-reduce in a ring, n−1 times that for an all-gather, (n−1)/n for a
        reduce-scatter and an all-to-all, and, as the mean over the ranks, for a broadcast.
        """
        if self.sent_bytes is not None or self.kind != "collective":
            return self.sent_bytes or 0
        n = len(self.ranks)
        if self.operation.startswith("all_gather"):
            return ring_bytes("all_gather", n * self.nbytes, n)
        kind = "all_reduce" if self.operation.startswith("all_reduce") else "reduce_scatter"
        return ring_bytes(kind, self.nbytes, n)


Segment = tuple[float, float, str, Event | None]


@dataclass(frozen=True, repr=False)
class Trace:
    """What a run did. In a notebook it shows itself as its timeline.

    events: sorted by start_s, rank, number.
    emulated: "" or what was emulated, "emulated links: 10 Gb/s, 1 ms"; every picture and table says so.
    dropped: events beyond the limit, which are missing here; every picture and table says so.
    """

    world_size: int
    seconds: float
    events: tuple[Event, ...] = field(default=())
    emulated: str = ""
    dropped: int = 0

    def of(
        self, rank: int | None = None, operation: str | None = None, kind: str | None = None, group: str | None = None
    ) -> "Trace":
        """The trace with only the events that fit all that is given.

        Raises ValueError for a rank that the run did not have, or an unknown kind.
        """
        if rank is not None:
            self._check(rank)
        if kind is not None and kind not in KINDS:
            raise ValueError(f"kind is {kind!r}: an event is a collective, a message or a span.")
        wanted = [
            (name, value)
            for name, value in (("rank", rank), ("operation", operation), ("kind", kind), ("group", group))
            if value is not None
        ]
        return replace(
            self, events=tuple(e for e in self.events if all(getattr(e, name) == value for name, value in wanted))
        )

    def during(self, name: str, last: int | None = None) -> "Trace":
        """The spans of this name, on each rank the last so many of them, and whatever starts within one on its rank.

        Raises ValueError if there is no such span.
        """
        spans: list[Event] = []
        for rank in range(self.world_size):
            mine = [e for e in self._of_rank(rank) if e.is_span and e.operation == name]
            spans += mine if last is None else mine[-last:]
        if not spans:
            known = sorted({e.operation for e in self.events if e.is_span})
            raise ValueError(
                f"no span is called {name!r}; there are {known or 'none'}: mark one by `with span(name):`."
            )
        times = {(e.rank, e.start_s, e.end_s) for e in spans}
        inside = (any(e.rank == r and a <= e.start_s <= b for r, a, b in times) for e in self.events)
        return replace(self, events=tuple(e for e, keep in zip(self.events, inside, strict=True) if keep))

    def totals(self, by: str = "operation") -> Totals:
        """What was called how often, with how many bytes and how much waiting, by "rank", "group" or "operation".

        A table, and a mapping: `trace.totals("rank")[0].sent_bytes`. Spans are no operations; by="span" adds up those.
        Raises ValueError for any other `by`.
        """
        return make_totals(self, by)

    def messages(self, rank: int) -> int:
        """How many point-to-point messages a rank sent."""
        return sum(event.is_send for event in self._of_rank(rank))

    def sent_bytes(self, rank: int) -> int:
        """How many bytes a rank sent in point-to-point messages."""
        return sum(event.nbytes for event in self._of_rank(rank) if event.is_send)

    def traffic(self, rings: bool = False) -> Traffic:
        """Who sent how much to whom, from messages; what the backend's own collectives moved has no known path.

        rings=True: count those as if each rank had sent its share, `ring_bytes`, to the next one of its group.
        """
        return make_traffic(self, rings)

    @cached_property
    def active_s(self) -> Interval:
        """From the first event's start to the last one's end: before it processes start, after it they end."""
        if not self.events:
            return 0.0, self.seconds
        last = max(max([e.end_s, *(stop for _, stop in e.waits)]) for e in self.events)
        return min(e.start_s for e in self.events), last

    def overlap(self, rank: int) -> Overlap:
        """How much of a rank's communication hid behind its own work, and how much it stood still for."""
        seconds = dict.fromkeys(("compute", "communication", "wait"), 0.0)
        for start, stop, what, _ in self.segments(rank):
            seconds[what] += stop - start
        flights = [(e.start_s, e.end_s) for e in self._of_rank(rank) if not e.is_span]
        return Overlap(
            compute_s=seconds["compute"] + seconds["communication"],
            in_flight_s=covered_s(flights),
            exposed_s=seconds["wait"],
            overlapped_s=seconds["communication"],
        )

    def segments(self, rank: int) -> list[Segment]:
        """A rank's time from the first event of the trace to the last, cut into (start_s, end_s, what, event).

        what: "wait", its thread stood still;  "communication", something was in flight while its thread worked;
        "compute", the rest: compute or other Python.
        """
        events = [e for e in self._of_rank(rank) if not e.is_span]
        waits = _in_turn((start, stop, e) for e in events for start, stop in e.waits)
        flights = _in_turn((e.start_s, e.end_s, e) for e in events)
        busy = [(start, stop, "wait", e) for start, stop, e in waits]
        busy += [(start, stop, "communication", e) for start, stop, e in _without(flights, waits)]
        at, finish = self.active_s
        lane: list[Segment] = []
        for segment in sorted(busy, key=lambda segment: segment[0]):
            if segment[0] > at:
                lane.append((at, segment[0], "compute", None))
            lane.append(segment)
            at = segment[1]
        return [*lane, (at, finish, "compute", None)] if finish > at else lane

    def to_chrome(self, path: str | Path) -> Path:
        """Write the trace as a Chrome trace-event file, which https://ui.perfetto.dev opens; return its path.

        A process a rank; its threads are "main" (spans and waits) and "communication". Arrows go from each send to its
        recv. Raises FileNotFoundError if the folder is not there, IsADirectoryError if the path is a folder.
        """
        return write_chrome(self, Path(path))

    def notes(self) -> list[str]:
        """What every picture and table of this trace has to say: emulation, and events that are missing."""
        missing = f"{self.dropped:,} later events are missing: the run had more than a trace keeps."
        return [*([self.emulated] if self.emulated else []), *([missing] if self.dropped else [])]

    def __repr__(self) -> str:
        spans = sum(event.is_span for event in self.events)
        count = len(self.events) - spans
        ranks = "1 rank" if self.world_size == 1 else f"{self.world_size} ranks"
        operations = "1 operation" if count == 1 else f"{count:,} operations"
        named = f", {spans:,} span{'s' * (spans != 1)}" if spans else ""
        head = f"Trace of {ranks}, {self.seconds:.3f} s: {operations}{named}"
        return "\n".join([head, *([self.totals().text(12)] if count else self.notes())])

    def _check(self, rank: int) -> None:
        if not 0 <= rank < self.world_size:
            raise ValueError(f"there is no rank {rank}: this run had ranks 0 to {self.world_size - 1}.")

    def _of_rank(self, rank: int) -> list[Event]:
        self._check(rank)
        return self.by_rank[rank]

    @cached_property
    def by_rank(self) -> list[list[Event]]:
        """The events of each rank, in order."""
        rows: list[list[Event]] = [[] for _ in range(self.world_size)]
        for event in self.events:
            rows[event.rank].append(event)
        return rows


Piece = tuple[float, float, Event]


def _in_turn(pieces: Iterator[Piece]) -> list[Piece]:
    """In order, each cut back to what none before it covers."""
    taken: list[Piece] = []
    at = float("-inf")
    for start, stop, event in sorted(pieces, key=lambda piece: piece[:2]):
        if stop > max(start, at):
            taken.append((max(start, at), stop, event))
            at = stop
    return taken


def _without(pieces: list[Piece], holes: list[Piece]) -> Iterator[Piece]:
    """What is left of the pieces outside the holes; both in order and without overlaps."""
    first = 0
    for start, stop, event in pieces:
        while first < len(holes) and holes[first][1] <= start:
            first += 1
        at = start
        for hole_start, hole_stop, _ in _from(holes, first, stop):
            if hole_start > at:
                yield at, hole_start, event
            at = max(at, hole_stop)
        if stop > at:
            yield at, stop, event


def _from(holes: list[Piece], first: int, before: float) -> Iterator[Piece]:
    while first < len(holes) and holes[first][0] < before:
        yield holes[first]
        first += 1
