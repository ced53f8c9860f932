"""The shapes in the lanes of a timeline that stands alone: of bounded size, however many events there are."""

from collections.abc import Iterable, Iterator

import numpy as np

from course_lib.trace import Event, Trace
from course_lib.viz.picture import MARGIN, WIDTH
from course_lib.viz.svg import element, number, text
from course_lib.viz.timeline_layout import LEFT, Geometry, span_colors, span_rows

MAX_BYTES = 28_000  # of all the lanes' shapes together; the document around them takes the rest of 40 kB
_NAME_PIXELS = 6.0  # width of a letter, on the safe side
Placed = tuple[float, float, str, "Event | None"]


def lane_shapes(trace: Trace, g: Geometry, begin: float, scale: float) -> str:
    """All that is in the lanes: each event where they are few, bars of their share where they are many."""
    lanes = [_placed(trace, rank, begin, scale) for rank in range(g.lanes)]
    spans = [_placed_spans(events, begin, scale, g.rows) for events in trace.by_rank[: g.lanes]]
    floors = [g.top + r * g.pitch for r in range(g.lanes)]
    right = [max((stop for _, stop, _, _ in lane), default=LEFT) for lane in lanes]
    parts = [
        element(
            "path",
            d="".join(_box(LEFT, y + g.strips, x - LEFT, g.body) for y, x in zip(floors, right)),
            class_="compute",
        )
    ]
    count = sum(what != "compute" for lane in lanes for _, _, what, _ in lane)
    both = (("wait", "wait", g.body), ("communication", "flight", g.flight))
    if count < 600:
        for kind, name, height in both:
            boxes = [_box(a, y, max(0.8, b - a), height) for a, b, y in _of_kind(lanes, floors, g, kind)]
            parts.append(_path(boxes, name))
    elif count < MAX_BYTES // 15:
        for kind, name, height in both:
            lines = _lines((a, b, y + height / 2) for a, b, y in _of_kind(lanes, floors, g, kind))
            parts.append(_path(lines, f"line {name}", height))
    else:
        for columns in (360, 240, 160, 100, 64, 40, 24, 14, 8, 4):
            bars = [
                "".join(_bars(lane, y + g.strips, height, kind, columns) for lane, y in zip(lanes, floors))
                for kind, _, height in both
            ]
            if sum(map(len, bars)) < MAX_BYTES * 2 // 3:
                break
        parts += [_path([bars[0]], "wait many"), _path([bars[1]], "flight")]
    return "".join([*parts, *_strips(g, spans, floors, span_colors(trace)), *_names(g, lanes, spans, floors)])


def _path(shapes: list[str], kind: str, width: float | None = None) -> str:
    """One path for all the shapes; a width makes it a line as thick as that."""
    style = None if width is None else f"stroke-width:{number(width)}"
    return element("path", d="".join(shapes), class_=kind, style=style) if any(shapes) else ""


def _of_kind(lanes: list[list[Placed]], floors: list[float], g: Geometry, kind: str) -> Iterator[tuple]:
    for lane, y in zip(lanes, floors):
        yield from ((start, stop, y + g.strips) for start, stop, what, _ in lane if what == kind)


def _lines(pieces: Iterable[tuple[float, float, float]]) -> list[str]:
    """(start, stop, y) as horizontal lines, each counted from the end of the one before: the shortest way to write them."""
    parts, level, at = [], None, 0.0
    for start, stop, y in pieces:
        start, length = round(start, 1), max(0.8, round(stop - start, 1))
        parts.append(f"m{number(start - at)} 0" if y == level else f"M{number(start)} {number(y)}")
        parts.append(f"h{number(length)}")
        level, at = y, start + length
    return parts


def _box(x: float, y: float, width: float, height: float) -> str:
    return f"M{number(round(x, 1))} {number(y)}h{number(round(width, 1))}v{number(height)}h-{number(round(width, 1))}z"


def _exact(lane: list[Placed], y: float, height: float, kind: str) -> str:
    return "".join(_box(a, y, max(0.8, b - a), height) for a, b, what, _ in lane if what == kind)


def _bars(lane: list[Placed], y: float, height: float, kind: str, columns: int) -> str:
    """A bar a column, as high as its share of `kind`; equal neighbours are one."""
    edges = np.linspace(LEFT, WIDTH - MARGIN, columns + 1)
    stops = np.array([LEFT, *(stop for _, stop, _, _ in lane)])
    lengths = [stop - start if what == kind else 0.0 for start, stop, what, _ in lane]
    until = np.interp(edges, stops, np.cumsum([0.0, *lengths]))
    levels = np.rint(np.diff(until) / (edges[1] - edges[0]) * height).astype(int)
    begins = [0, *(np.flatnonzero(np.diff(levels)) + 1), columns]
    return "".join(
        _box(edges[a], y + (height - levels[a]) * (kind == "wait"), edges[b] - edges[a], float(levels[a]))
        for a, b in zip(begins, begins[1:])
        if levels[a] > 0
    )


def _placed(trace: Trace, rank: int, begin: float, scale: float) -> list[Placed]:
    return [
        (LEFT + (start - begin) * scale, LEFT + (stop - begin) * scale, what, event)
        for start, stop, what, event in trace.segments(rank)
    ]


def _placed_spans(events: list[Event], begin: float, scale: float, rows: int) -> list[tuple]:
    """Those that are drawn, as (start, stop, row, event): the last row is for the innermost spans only."""
    spans = [event for event in events if event.is_span]
    depths = [*span_rows(events), 0]
    return [
        (LEFT + (e.start_s - begin) * scale, LEFT + (e.end_s - begin) * scale, min(depth, rows - 1), e)
        for e, depth, following in zip(spans, depths, depths[1:])
        if depth < rows - 1 or following <= depth
    ]


def _strips(g: Geometry, spans: list[list[tuple]], floors: list[float], colors: dict[str, int]) -> list[str]:
    """The spans as boxes; as lines where they are many; where too many, without the narrow ones."""
    found = [
        (y + row * g.row, start, stop, colors[event.operation])
        for lane, y in zip(spans, floors)
        for start, stop, row, event in lane
    ]
    high = g.row - 1.5
    used = sorted({color for *_, color in found})
    if len(found) < 350:
        boxes = [
            (c, [_box(a, y, max(0.8, b - a - 0.6), high) for y, a, b, of in found if of == c]) for c in used
        ]
        return [_path(shapes, f"span r{color}") for color, shapes in boxes]
    for least in (0.0, 1.0, 2.0, 4.0, 8.0, 16.0):  # pixels
        wide = [entry for entry in found if entry[2] - entry[1] >= least]
        if len(wide) < MAX_BYTES // 30:
            lines = [(c, _lines((a, b - 0.6, y + high / 2) for y, a, b, of in wide if of == c)) for c in used]
            return [_path(shapes, f"line span r{color}", high) for color, shapes in lines]
    return []


def _names(
    g: Geometry, lanes: list[list[Placed]], spans: list[list[tuple]], floors: list[float]
) -> list[str]:
    """Names of spans and of waits, where there is room for them; the widest first, up to a bound."""
    found = []
    for lane, strip, y in zip(lanes, spans, floors):
        if g.row >= 10:
            found += [(b - a, a, y + d * g.row + g.row - 5, e, "small mid") for a, b, d, e in strip]
        if g.body >= 12:
            middle = y + g.strips + g.body / 2 + 3.5
            found += [(b - a, a, middle, e, "small mid halo") for a, b, what, e in lane if what == "wait"]
    fitting = [entry for entry in found if len(entry[3].operation) * _NAME_PIXELS + 4 < entry[0]]
    fitting.sort(key=lambda entry: -entry[0])
    return [text(round(x + w / 2, 1), y, e.operation, class_=c) for w, x, y, e, c in fitting[:90]]
