"""The traffic of a run as a matrix: a row a sender, a column a receiver, shaded by bytes; with a layout, coloured by axis."""

from functools import partial

from course_lib.layout import AXES, Layout
from course_lib.numbers import bytes_text, count
from course_lib.trace import Trace
from course_lib.trace.tables import Traffic
from course_lib.viz.scene import Mark, Panel, Scene, line, rect, text
from course_lib.viz.widget import Picture, picture

MAX_VALUES = 16  # up to so many ranks the numbers stand in the cells
LEVELS = 5  # shades; the darkest is the largest cell
HINT = "Point at a cell, or walk there with Tab and the arrow keys, for its bytes and messages."
_LEFT, _TOP = 62, 44


def traffic(trace: Trace | Traffic, layout: Layout | None = None) -> Picture:
    """Draw how many bytes and messages each rank sent to each other.

    layout: the mesh of these ranks; each cell then has the colour of the axis along which its two ranks differ.
    Only messages have a path: what the backend's own collectives moved is said, and not drawn.
    Raises TypeError for what is neither a Trace nor a Traffic, ValueError for a layout of another number of ranks.
    """
    if isinstance(trace, Trace):
        trace = trace.traffic()
    if not isinstance(trace, Traffic):
        hint = ": pass run.trace" if hasattr(trace, "trace") else ""
        raise TypeError(f"traffic() draws a Trace or its traffic(), not a {type(trace).__name__}{hint}.")
    if layout and layout.world_size != trace.world_size:
        raise ValueError(f"{layout} has {layout.world_size} ranks, this traffic is of {trace.world_size}.")
    return picture(partial(build, trace, layout), frames=True)


def build(traffic: Traffic, layout: Layout | None = None) -> Scene:
    """The matrix as a scene."""
    n = traffic.world_size
    size = min(64.0, 420 / n) if n <= MAX_VALUES else max(5.0, 528 // n)
    most = max(map(max, traffic.nbytes), default=0)
    marks: list[Mark | None] = [
        text(_LEFT + n * size / 2, 12, "to rank", "small quiet mid"),
        text(0, _TOP - 8, "from rank", "small quiet"),
        rect(_LEFT, _TOP, n * size, n * size, "box"),
    ]
    for rank in range(0, n, 1 if size >= 13 else 4):
        marks.append(text(_LEFT + (rank + 0.5) * size, _TOP - 8, str(rank), "strong mid"))
        marks.append(text(_LEFT - 8, _TOP + (rank + 0.5) * size + 4, str(rank), "strong end"))
    values: list[Mark | None] = []
    for sender, row in enumerate(traffic.nbytes):
        for receiver, nbytes in enumerate(row):
            x, y, messages = _LEFT + receiver * size, _TOP + sender * size, traffic.messages[sender][receiver]
            counts = f"{count(nbytes, 'byte')} in {count(messages, 'message')}" if messages else "no message"
            axis = axis_of(layout, sender, receiver) if layout else ""
            kind = f"level-{level(nbytes, most)} {axis}".strip() if messages else "hit"
            tip = f"rank {sender} → rank {receiver}: {counts}{f', along {axis}' if axis and messages else ''}"
            marks.append(rect(x, y, size, size, kind, tip=tip, focus="cells"))
            if messages and n <= MAX_VALUES:
                values += _numbers(x + size / 2, y + size / 2, size, nbytes, messages)
    right, bottom = _LEFT + n * size, _TOP + n * size
    ticks = [k * size for k in range(1, n if n <= 32 else 0)]
    lines = [line(_LEFT + at, _TOP, _LEFT + at, bottom, "grid") for at in ticks]
    lines += [line(_LEFT, _TOP + at, right, _TOP + at, "grid") for at in ticks]
    matrix = Panel(right + 4, bottom + 4, [*marks, *lines, *values])
    title = f"Traffic between {n} ranks" if n > 1 else "Traffic of 1 rank"
    alt = repr(traffic) if n <= MAX_VALUES else "; ".join(traffic.sentences())
    return Scene(title, (matrix, _legend(most, layout)), tuple(traffic.sentences()), HINT, alt)


def level(nbytes: int, most: int) -> int:
    """The shade of a cell, 1 to LEVELS; 0 for no bytes."""
    return -(-LEVELS * nbytes // most) if nbytes and most else 0


def axis_of(layout: Layout, a: int, b: int) -> str:
    """The axis along which two ranks differ; "" if they differ along several."""
    pair = zip(AXES, layout.coordinates(a), layout.coordinates(b), strict=True)
    found = [axis for axis, x, y in pair if x != y]
    return found[0] if len(found) == 1 else ""


def _numbers(x: float, y: float, size: float, nbytes: int, messages: int) -> list[Mark | None]:
    """Bytes and messages in a cell, as much of it as there is room for."""
    if size < 44:
        return [text(x, y + 4, _short(nbytes), "small strong mid", size - 2)]
    value = bytes_text(nbytes).replace(" bytes", " B")
    return [
        text(x, y, value, "strong mid", size - 4),
        text(x, y + 15, f"{messages:,} msg", "small mid", size - 4, "drop"),
    ]


def _short(nbytes: int) -> str:
    """At most four letters for a narrow cell: 958k, 1.8M."""
    for unit, name in ((1, ""), (10**3, "k"), (10**6, "M"), (10**9, "G")):
        value = nbytes / unit
        if value < 999.5:
            return f"{value:.1f}{name}" if name and value < 9.95 else f"{value:.0f}{name}"
    return f"{nbytes / 10**12:.0f}T"


def _legend(most: int, layout: Layout | None) -> Panel:
    marks: list[Mark | None] = [text(0, 12, "bytes in a cell", "strong")]
    for place, k in enumerate(range(LEVELS if most else 0, 0, -1)):
        y = 22 + 20 * place
        marks += [
            rect(0, y, 20, 14, f"level-{k}"),
            text(28, y + 11, f"up to {bytes_text(most * k // LEVELS)}", "small quiet"),
        ]
    axes = [axis for axis in AXES if layout and getattr(layout, axis) > 1]
    for place, axis in enumerate(axes):
        y = 136 + 20 * place
        marks += [rect(0, y, 20, 14, f"level-4 {axis}"), text(28, y + 11, f"along {axis}", "small quiet")]
    return Panel(130, 124 + (20 * len(axes) + 10 if axes else 0), marks)
