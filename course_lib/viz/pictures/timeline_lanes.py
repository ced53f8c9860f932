"""Traces as a timeline draws them, worked out once: what lies in which lane from when to when, and what belongs together."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from course_lib.layout import Layout
from course_lib.trace import Event, Trace
from course_lib.viz.pictures.traffic import axis_of

SIZES = (  # up to so many lanes: how high are a row of spans, the thread, all flights, a gap; most rows of spans, of flights
    (4, 18, 18, 30, 14, 3, 5),
    (8, 16, 14, 18, 12, 2, 3),
    (16, 13, 10, 10, 7, 2, 2),
    (32, 7, 8, 4, 4, 1, 1),
    (128, 4, 5, 3, 2, 1, 1),
)
LETTERS = {"f": "forward", "b": "backward", "i": "input", "w": "weight"}
NAMES = LETTERS | {"forward": "forward", "backward": "backward"}
# Without a layout groups of each shape have a word, those of neighbours first.
GROUPS = ("tp", "dp", "pp", "cp", "ep")


class Item(NamedTuple):
    """A box in a lane; times count from the trace's first event. events: what it stands for, as places in Lanes.events.

    sort: "span", "outer" (a span that holds others), "thread" or "flight".  kind: its word of the palette.
    others: how many more are in flight meanwhile.
    """

    lane: int
    start: float
    stop: float
    sort: str
    kind: str
    row: int = 0
    events: tuple[int, ...] = ()
    others: int = 0


class Lanes:
    """In a lane, from above: the rank's spans; work and waiting of its thread; a bar for each operation in flight."""

    def __init__(self, traces: Mapping[str, Trace], layout: Layout | None = None) -> None:
        places = [(name, rank) for name, trace in traces.items() for rank in range(trace.world_size)]
        self.traces, self.layout, self.all, self.places = traces, layout, len(places), places[: SIZES[-1][0]]
        self.zero = {name: trace.active_s[0] for name, trace in traces.items()}
        self.ends = {name: trace.active_s[1] - self.zero[name] for name, trace in traces.items()}
        self.who = [f"{name}, rank {rank}" if name else f"rank {rank}" for name, rank in self.places]
        self.length = max(*self.ends.values(), 1e-6)
        lanes = [traces[name].by_rank[rank] for name, rank in self.places]
        self.events = [event for lane in lanes for event in lane]
        self.firsts = np.cumsum([0, *map(len, lanes)]).tolist()  # of a lane, among the events
        self.letters = any(len(e.operation) == 1 for e in self.events)  # as schedules call their actions
        world = max(trace.world_size for trace in traces.values())
        shapes = sorted({_shape(e.ranks) for e in self.events if 1 < len(e.ranks) < world})
        self.groups = {} if layout else {shape: GROUPS[k % len(GROUPS)] for k, shape in enumerate(shapes)}
        self.together: dict[int, tuple[int, ...]] = {}  # the events that are one collective or one message
        self.tips: dict[int, str] = {}  # of items, as far as they are known
        self.cut: dict[int, tuple[float, float]] = {}  # from when to when a message was in flight
        self._match()
        sizes = next(size for size in SIZES if len(lanes) <= size[0])
        _, self.row, self.body, flights, self.gap, self.depth, self.most = sizes
        self.items = [item for lane in range(len(lanes)) for item in self._items(lane)]
        self.bars = {i: item for item in self.items if item.sort == "flight" for i in item.events}
        self.lane, self.start, self.stop = (np.array([item[k] for item in self.items]) for k in range(3))
        keys = sorted({item[3:5] for item in self.items})  # sort, kind
        self.codes = {key: k for k, key in enumerate(keys)}
        self.code = np.array([self.codes[item[3:5]] for item in self.items])
        calls = (item.events if item.sort == "flight" else () for item in self.items)
        self.sent = np.array([sum(self.events[i].ring_bytes for i in some) for some in calls])  # bytes
        strips = 1 + max((item.row for item in self.items if item.sort in ("span", "outer")), default=-1)
        self.rows = 1 + max((item.row for item in self.bars.values()), default=-1)
        self.flight = min(14, flights // max(1, self.rows))
        self.thread = strips * self.row + 2 * (strips > 0)  # below the top of a lane, which ends at its floor
        self.floor = self.thread + self.body + self.rows * self.flight + 1
        self.gap += 10 if self.cut and len(lanes) <= 8 else 0
        heads = np.cumsum([28 * (len(traces) > 1 and rank == 0) for _, rank in self.places]).tolist()
        self.tops = [26 + head + (self.floor + self.gap) * lane for lane, head in enumerate(heads)]

    def box(self, item: Item) -> tuple[float, float]:
        """Where an item begins, from above, and its height; waiting is lower than work."""
        top, less = self.tops[item.lane], self.body // 6 if item.kind == "wait" else 0
        if item.sort == "thread":
            return top + self.thread + less, self.body - less
        if item.sort == "flight":
            return top + self.thread + self.body + 1 + item.row * self.flight, self.flight - 1
        return top + item.row * self.row, self.row - 2

    def _items(self, lane: int) -> Iterator[Item]:
        (first, after), name, at = self.firsts[lane : lane + 2], self.places[lane][0], 0.0
        events, zero = list(enumerate(self.events[first:after], first)), self.zero[name]
        for start, stop, i in sorted((a - zero, b - zero, i) for i, e in events for a, b in e.waits):
            if stop > (start := max(start, at)):  # where two overlap, the time is the first one's
                yield from [Item(lane, at, start, "thread", "compute")] if start > at else []
                yield Item(lane, start, stop, "thread", "wait", 0, (i,))
                at = stop
        if self.ends[name] > at or not at:
            yield Item(lane, at, self.ends[name], "thread", "compute")
        spans = [(e.start_s - zero, e.end_s - zero, i) for i, e in events if e.is_span]
        depths = _rows(spans)
        for (start, stop, i), depth, below in zip(spans, depths, [*depths[1:], 0]):
            if depth < self.depth - 1 or below <= depth:  # the last row is for spans that hold no others
                kind = NAMES.get(self.events[i].operation.lower(), "span")
                sort, row = "outer" if below > depth else "span", min(depth, self.depth - 1)
                yield Item(lane, start, stop, sort, kind, row, (i,))
        times = ((*self.cut.get(i, (e.start_s, e.end_s)), i) for i, e in events if not e.is_span)
        flights = sorted((start - zero, stop - zero, i) for start, stop, i in times)
        starts, stops, _ = np.array(flights).reshape(-1, 3).T
        others = np.searchsorted(starts, stops) - np.searchsorted(np.sort(stops), starts, "right") - 1
        bars: list[list] = []
        last: list = []  # in the last row those that overlap are one bar
        for (start, stop, i), row, more in zip(flights, _rows(flights), others.tolist()):
            if row >= self.most - 1 and last and last[1] > start:
                last[1] = max(last[1], stop)
                last[3].append(i)
                continue
            bars.append([start, stop, min(row, self.most - 1), [i], max(0, more)])
            last = bars[-1] if row >= self.most - 1 else last
        for start, stop, row, some, more in bars:
            kind = self._kind(self.events[some[0]])
            yield Item(lane, start, stop, "flight", kind, row, tuple(some), more)

    def _kind(self, e: Event) -> str:
        """The axis along which those who take part differ; without a layout, a word for each shape of groups."""
        if not self.layout:
            return self.groups.get(_shape(e.ranks), "world")
        first, *others = (e.rank, *e.peers) if e.kind == "message" and e.peers else e.ranks
        axes = {axis_of(self.layout, first, other) for other in others}
        return (axes.pop() if len(axes) == 1 else "") or "world"

    def _match(self) -> None:
        """Find the calls of a collective on all its ranks, and the send and the recv of a message.

        A message is in flight from its send to the end of its recv at most, whenever they were posted or awaited.
        """
        calls: dict[tuple, dict[int, list[int]]] = {}
        for lane, (name, rank) in enumerate(self.places):
            for i in range(*self.firsts[lane : lane + 2]):
                e, side = self.events[i], rank
                who, what = e.ranks, e.operation
                if e.kind == "message":  # those between two ranks arrive in order
                    who, what, side = ((rank, *e.peers) if e.is_send else (*e.peers, rank)), "", not e.is_send
                if not e.is_span:
                    calls.setdefault((what, name, who, e.group, e.detail), {}).setdefault(side, []).append(i)
        for (collective, *_), sides in calls.items():
            if len(sides) == 1 or len(set(map(len, sides.values()))) > 1:
                continue  # some of them lie outside the trace
            for members in zip(*(sides[side] for side in sorted(sides))):
                self.together.update(dict.fromkeys(members, members))
                send, recv = (self.events[i] for i in members[:2])
                arrives = max([recv.end_s, *(stop for _, stop in recv.waits if recv.end_s < send.start_s)])
                if not collective and recv.complete and arrives >= send.start_s:
                    self.cut[members[0]] = send.start_s, max(send.start_s, min(send.end_s, arrives))
                    self.cut[members[1]] = max(recv.start_s, send.start_s), arrives


def _rows(times: list[tuple[float, float, int]]) -> list[int]:
    """For each start, stop the first row that is free then; of spans, which lie inside each other, that is the depth."""
    free: list[float] = []
    rows = []
    for start, stop, _ in times:
        rows.append(next((row for row, until in enumerate(free) if until <= start), len(free)))
        free[rows[-1] : rows[-1] + 1] = [stop]
    return rows


def _shape(ranks: tuple[int, ...]) -> tuple[int, int]:
    """How far apart neighbours in a group are, and how many ranks it has."""
    return (ranks[1] - ranks[0] if ranks[1:] else 0, len(ranks))
