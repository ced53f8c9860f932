"""What is counted from a trace: totals, the traffic between ranks, and how much communication hid behind work."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from course_lib.numbers import columns

if TYPE_CHECKING:
    from course_lib.trace import Event, Trace

RINGS = "Collectives are counted as rings: each call one message to the next rank of its group."
LOGICAL = "logical: the payload of collectives inside the backend; what it sends for them is not known."
_BY = {
    "rank": lambda event: event.rank,
    "group": lambda event: event.group,
    "operation": lambda event: event.operation,
    "span": lambda event: event.operation,
}


@dataclass(frozen=True)
class Row:
    """The sums of one rank, group, operation or span.

    nbytes: payload;  sent_bytes: put on the wire, as far as that is known;  logical_bytes: the payload of the operations for
    which it is not;  in_flight_s, waited_s: added up over the ranks, on each rank what overlaps counts once.
    """

    name: object
    count: int
    nbytes: int
    sent_bytes: int
    logical_bytes: int
    in_flight_s: float
    waited_s: float

    def cells(self, is_span: bool = False) -> list[str]:
        """The row of the table; a span moves no bytes."""
        if is_span:
            return [str(self.name), f"{self.count:,}", f"{self.in_flight_s:.4f}"]
        known = f"{self.sent_bytes:,}" if self.sent_bytes or not self.logical_bytes else ""
        logical = f"{self.logical_bytes:,} logical" if self.logical_bytes else ""
        sent = " + ".join(filter(None, [known, logical]))
        times = f"{self.in_flight_s:.4f}", f"{self.waited_s:.4f}"
        return [str(self.name), f"{self.count:,}", f"{self.nbytes:,}", sent, *times]


@dataclass(frozen=True, repr=False)
class Totals(Mapping):
    """Sums as a table, and as a mapping from a rank, or a group's or operation's name, to its Row."""

    by: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: object) -> Row:
        for row in self.rows:
            if row.name == name:
                return row
        have = ", ".join(repr(row.name) for row in self.rows) or "none"
        raise KeyError(f"no {self.by} {name!r} in these totals; they have {have}.")

    def __iter__(self) -> Iterator:
        return (row.name for row in self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def text(self, most_rows: int | None = None) -> str:
        """The table, aligned; the rows after the first `most_rows` are counted only."""
        shown = [row.cells(self.by == "span") for row in self.rows[:most_rows]]
        lines = columns([self._head(), *shown], left=1)
        more = [f"… and {len(self.rows) - len(shown)} more"] if len(shown) < len(self.rows) else []
        return "\n".join([*lines, *more, *self._below()])

    def __repr__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        def line(tag: str, cells: list[str]) -> str:
            styles = ["left", *["right"] * (len(cells) - 1)]
            marked = [f'<{tag} style="text-align:{s}">{escape(c)}</{tag}>' for s, c in zip(styles, cells)]
            return f"<tr>{''.join(marked)}</tr>"

        body = "".join(line("td", row.cells(self.by == "span")) for row in self.rows)
        notes = "<br>".join(map(escape, self._below()))
        return f"<table><thead>{line('th', self._head())}</thead><tbody>{body}</tbody></table>" + (
            f"<small>{notes}</small>" if notes else ""
        )

    def _head(self) -> list[str]:
        if self.by == "span":
            return ["span", "count", "seconds"]
        return [self.by, "count", "payload bytes", "sent bytes", "in flight s", "waited s"]

    def _below(self) -> list[str]:
        return [*([LOGICAL] if any(row.logical_bytes for row in self.rows) else []), *self.notes]


@dataclass(frozen=True, repr=False)
class Traffic:
    """Bytes and messages from each rank to each other: `nbytes[sender][receiver]`, `messages[sender][receiver]`.

    unplaced_bytes: payload of collectives that the backend carried out itself: no path is known for them.
    """

    nbytes: tuple[tuple[int, ...], ...]
    messages: tuple[tuple[int, ...], ...]
    unplaced_bytes: int = 0
    backend: str = "gloo"
    notes: tuple[str, ...] = ()

    @property
    def world_size(self) -> int:
        """How many ranks there are."""
        return len(self.nbytes)

    def sentences(self) -> list[str]:
        """The totals, and what the numbers leave out."""
        total, count = sum(map(sum, self.nbytes)), sum(map(sum, self.messages))
        sums = f"{count:,} message{'s' * (count != 1)}, {total:,} bytes"
        unplaced = (
            f"Messages only; {self.unplaced_bytes:,} bytes of {self.backend}'s own collectives have no known path."
        )
        return [sums, *([unplaced] if self.unplaced_bytes else []), *self.notes]

    def __repr__(self) -> str:
        head = ["from \\ to", *map(str, range(self.world_size))]
        rows = [[str(rank), *(f"{n:,}" if n else "·" for n in row)] for rank, row in enumerate(self.nbytes)]
        return "\n".join(["Traffic in bytes: " + "; ".join(self.sentences()), *columns([head, *rows])])


@dataclass(frozen=True)
class Overlap:
    """A rank's time: in_flight_s of communication, of which overlapped_s while its thread worked; exposed_s it stood still.

    compute_s: its thread worked (compute or other Python), overlapped_s included; compute_s + exposed_s is all its time.
    """

    compute_s: float
    in_flight_s: float
    exposed_s: float
    overlapped_s: float

    @property
    def hidden(self) -> float:
        """The share of the communication's time in which the rank worked, 0 to 1; 1 if there was no communication."""
        return self.overlapped_s / self.in_flight_s if self.in_flight_s else 1.0


def make_totals(trace: "Trace", by: str) -> Totals:
    """The sums of a trace's operations (or of its spans) by what `by` names."""
    if by not in _BY:
        raise ValueError(f"by is {by!r}: totals are by rank, group, operation or span.")
    rows: dict[object, list[Event]] = {rank: [] for rank in range(trace.world_size)} if by == "rank" else {}
    for event in trace.events:
        if event.is_span == (by == "span"):
            rows.setdefault(_BY[by](event), []).append(event)
    return Totals(by, tuple(_row(name, events) for name, events in rows.items()), tuple(trace.notes()))


def make_traffic(trace: "Trace", rings: bool = False) -> Traffic:
    """The messages of a trace by sender and receiver; with rings also its collectives, each call from a rank to the next."""
    size = range(trace.world_size)
    nbytes, messages = ([[0 for _ in size] for _ in size] for _ in range(2))
    collectives = [event for event in trace.events if event.kind == "collective"]
    for event in trace.events:
        if event.is_send:
            for peer in event.peers:
                nbytes[event.rank][peer] += event.nbytes
                messages[event.rank][peer] += 1
    for event in collectives if rings else ():
        if event.ring_bytes:
            after = event.ranks[(event.ranks.index(event.rank) + 1) % len(event.ranks)]
            nbytes[event.rank][after] += round(event.ring_bytes)
            messages[event.rank][after] += 1
    unplaced = 0 if rings else sum(event.nbytes for event in collectives)
    notes = [RINGS] * rings + trace.notes()
    return Traffic(tuple(map(tuple, nbytes)), tuple(map(tuple, messages)), unplaced, notes=tuple(notes))


def _row(name: object, events: list["Event"]) -> Row:
    flights: dict[int, list] = {}
    waits: dict[int, list] = {}
    for event in events:
        flights.setdefault(event.rank, []).append((event.start_s, event.end_s))
        waits.setdefault(event.rank, []).extend(event.waits)
    return Row(
        name=name,
        count=len(events),
        nbytes=sum(event.nbytes for event in events),
        sent_bytes=sum(event.sent_bytes or 0 for event in events),
        logical_bytes=sum(event.nbytes for event in events if event.sent_bytes is None),
        in_flight_s=sum(map(covered_s, flights.values())),
        waited_s=sum(map(covered_s, waits.values())),
    )


def covered_s(intervals: list[tuple[float, float]]) -> float:
    """The length of the union of intervals."""
    total, at = 0.0, float("-inf")
    for start, stop in sorted(intervals):
        total += max(0.0, stop - max(start, at))
        at = max(at, stop)
    return total
