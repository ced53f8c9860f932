"""The timeline as a picture that stands alone: the whole trace at a notebook's width, of bounded size."""

from math import ceil, floor, log10

from course_lib.trace import Trace
from course_lib.viz.picture import MARGIN, WIDTH, standalone_style
from course_lib.viz.svg import document, element, number, rect, text
from course_lib.viz.timeline_layout import LEFT, MAX_LANES, Geometry, geometry_of
from course_lib.viz.timeline_shapes import lane_shapes


def title_of(trace: Trace) -> str:
    """The line above the picture."""
    ranks = "1 rank" if trace.world_size == 1 else f"{trace.world_size} ranks"
    begin, end = trace.active_s
    return f"Timeline of {ranks} · {time_text(end - begin, max(end - begin, 1e-9))} from the first event to the last"


def notes_of(trace: Trace) -> list[str]:
    """The sentences below the title."""
    lanes = min(trace.world_size, MAX_LANES)
    some = [f"Ranks 0 to {lanes - 1} of {trace.world_size} are drawn."] if lanes < trace.world_size else []
    return [*trace.notes(), *some]


def time_text(seconds: float, of: float, step: float | None = None) -> str:
    """A time in the unit that suits `of` seconds, to the decimal that tells two times a step apart."""
    factor, unit = (1, "s") if of >= 2 else (1e3, "ms") if of >= 2e-3 else (1e6, "µs")
    decimals = max(0, ceil(-log10((step or of / 1000) * factor) - 1e-9))
    return f"{seconds * factor:.{decimals}f} {unit}"


def draw(trace: Trace) -> str:
    """The picture as SVG, the same for the same trace."""
    g = geometry_of(trace)
    begin, end = trace.active_s
    notes = notes_of(trace)
    down = 34 + 18 * len(notes) + 26
    height = down + g.height + 8
    scale = (WIDTH - MARGIN - LEFT) / max(end - begin, 1e-12)
    lines = [text(MARGIN, 50 + 18 * i, note, class_="note") for i, note in enumerate(notes)]
    shapes = lane_shapes(trace, g, begin, scale)
    body = [
        element("defs", _HATCH),
        rect(0.5, 0.5, WIDTH - 1, height - 1, rx=8, class_="card"),
        text(MARGIN, 30, title_of(trace), class_="title"),
        *lines,
        _legend(34 + 18 * len(notes) + 14, "span r" in shapes),
        element("g", _axis(g, begin, end, scale), shapes, transform=f"translate(0 {down})"),
    ]
    style = standalone_style("picture.css", "trace.css")
    return document(WIDTH, height, title_of(trace), _description(trace, g), style, *body)


_HATCH = (
    '<pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)">'
    '<rect width="5" height="5" class="card" stroke="none" style="stroke:none"/><path d="M0 2.5h5" class="hatch"/></pattern>'
)
_LEGEND = (
    ("compute", "compute or other Python"),
    ("flight", "in flight, the thread works"),
    ("wait", "the thread waits"),
)


def _legend(y: float, has_spans: bool) -> str:
    parts, x = [], float(MARGIN)
    for kind, name in (*_LEGEND, *([("span r0", "a span")] if has_spans else [])):
        if kind == "flight":
            parts.append(rect(x, y - 9, 22, 12, class_="compute"))
        parts += [
            rect(x, y - 9, 22, 4 if kind == "flight" else 12, class_=kind),
            text(x + 28, y, name, class_="axis"),
        ]
        x += 50 + 5.6 * len(name)
    return "".join(parts)


def _axis(g: Geometry, begin: float, end: float, scale: float) -> str:
    step = _nice(max(end - begin, 1e-9) / 6)
    parts = []
    for k in range(int(begin / step), int(end / step) + 2):
        if begin <= k * step <= end and end > begin:
            x = round(LEFT + (k * step - begin) * scale, 1)
            align = "axis end" if x > WIDTH - MARGIN - 24 else "axis mid"
            parts.append(element("path", d=f"M{x} {number(g.top - 6)}V{number(g.height)}", class_="grid"))
            parts.append(text(x, g.top - 12, time_text(k * step, end - begin, step), class_=align))
    small = g.pitch < 16
    if small:
        parts.append(text(LEFT - 28, g.top - 12, "rank", class_="axis end"))
    labels = [
        text(
            LEFT - 8,
            g.top + rank * g.pitch + g.strips + g.body / 2 + (3 if small else 4),
            f"{'' if small else 'rank '}{rank}",
        )
        for rank in range(g.lanes)
    ]
    return "".join([*parts, element("g", *labels, class_="range end" if small else "rank end")])


def _nice(rough: float) -> float:
    """The next of 1, 2, 5, 10, 20, …"""
    power = 10.0 ** floor(log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)


def _description(trace: Trace, g: Geometry) -> str:
    lines = [repr(trace)]
    for rank in range(min(g.lanes, 16)):
        o = trace.overlap(rank)
        lines.append(f"rank {rank}: worked {o.compute_s:.4f} s, waited {o.exposed_s:.4f} s")
    return "\n".join(lines)
