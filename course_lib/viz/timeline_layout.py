"""Where the lanes of a timeline are, and how deep its spans lie inside each other."""

from dataclasses import dataclass

from course_lib.trace import Event, Trace

MAX_LANES = 128
LEFT = 72
_SIZES = (  # up to so many ranks: height of a span row, of a body, gap, most span rows
    (4, 16, 24, 12, 3),
    (8, 14, 17, 8, 2),
    (16, 12, 13, 6, 2),
    (32, 6, 9, 3, 1),
    (MAX_LANES, 4, 6, 2, 1),
)


@dataclass(frozen=True)
class Geometry:
    """Where the lanes are: lane r begins at top + r · pitch with its rows of spans; `body` is high what comes below them."""

    lanes: int
    rows: int
    row: float
    strips: float
    body: float
    flight: float
    pitch: float
    top: float
    height: float
    left: float = LEFT


def geometry_of(trace: Trace) -> Geometry:
    """Room for every rank up to MAX_LANES: the more there are, the less each has."""
    lanes = min(trace.world_size, MAX_LANES)
    row, body, gap, most = next(sizes[1:] for sizes in _SIZES if lanes <= sizes[0])
    deepest = max((max(span_rows(events), default=-1) for events in trace.by_rank[:lanes]), default=-1)
    rows = min(deepest + 1, most)
    strips = rows * row + (2 if rows else 0)
    flight = max(2, round(body * 0.3))
    pitch = strips + body + gap
    return Geometry(lanes, rows, row, strips, body, flight, pitch, 32, 32 + lanes * pitch)


def span_rows(events: list[Event]) -> list[int]:
    """How deep each span of a rank lies inside others: 0 for an outermost one."""
    open_until: list[float] = []
    depths = []
    for event in events:
        if event.is_span:
            while open_until and open_until[-1] <= event.start_s:
                open_until.pop()
            depths.append(len(open_until))
            open_until.append(event.end_s)
    return depths


def span_colors(trace: Trace) -> dict[str, int]:
    """A colour number for each name of a span, in the order of their first appearance."""
    names = dict.fromkeys(event.operation for event in trace.events if event.is_span)
    return {name: place % 8 for place, name in enumerate(names)}
