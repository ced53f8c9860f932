"""A search as a picture: a mark a candidate, seconds of its step over the memory of its fullest GPU, its shape what limits it.

static/planner.js draws the same marks in the page, into the frame that is drawn here.
"""

from collections.abc import Mapping
from math import ceil, floor, log10
from textwrap import wrap
from typing import Any

from course_lib.viz.picture import MARGIN, WIDTH, standalone_style
from course_lib.viz.planner_model import LIMIT_NAMES, Mark, Overview
from course_lib.viz.planner_words import describe
from course_lib.viz.svg import document, element, number, rect, text

LEFT, TOP, RIGHT, BOTTOM = 66, 26, 784, 356
# Around its place, for each of LIMIT_NAMES: a bar, a triangle, a square, a diamond, a triangle on its head, a disc, a cross.
SHAPES = (
    "m-4.4-1.5h8.8v3h-8.8z",
    "m0-4.4l4.2 7.2h-8.4z",
    "m-3.3-3.3h6.6v6.6h-6.6z",
    "m0-4.6l4.6 4.6l-4.6 4.6l-4.6-4.6z",
    "m0 4.4l4.2-7.2h-8.4z",
    "m-3.7 0a3.7 3.7 0 1 1 7.4 0a3.7 3.7 0 1 1-7.4 0z",
    "m-1.4-4.2h2.8v2.8h2.8v2.8h-2.8v2.8h-2.8v-2.8h-2.8v-2.8h2.8z",
)
_LEGEND_COLUMN, _LEGEND_ROW = 250, 20


class Axes:
    """From units of memory and time to places; `data` is what the page needs for the same."""

    def __init__(self, overview: Overview) -> None:
        totals = [sum(mark.seconds) for mark in overview.marks]
        low, high = log10(totals[0]), log10(totals[-1])
        span = max(high - low, 0.3)
        memory = overview.search.memory_gb * overview.per_gb
        self.x_high = max(1.02 * overview.limit, min(memory, 1.1 * overview.limit))
        self.y_low, self.y_high = low - 0.12 * span, high + 0.04 * span

    @property
    def data(self) -> dict[str, float]:
        edges = {"left": LEFT, "top": TOP, "right": RIGHT, "bottom": BOTTOM}
        return {**edges, "xHigh": self.x_high, "yLow": self.y_low, "yHigh": self.y_high}

    def x(self, units: float) -> float:
        return LEFT + (RIGHT - LEFT) * units / self.x_high

    def y(self, units: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (log10(units) - self.y_low) / (self.y_high - self.y_low)

    def place(self, mark: Mark) -> tuple[float, float]:
        """Where a mark is, to a tenth of a pixel."""
        found = self.x(sum(mark.memory)), self.y(sum(mark.seconds))
        return tuple(floor(10 * value + 0.5) / 10 for value in found)


def frame(overview: Overview, axes: Axes) -> str:
    """The box with its axes, the line of the limit and the legend, without a mark."""
    per_gb, per_second, middle = overview.per_gb, overview.per_second, (LEFT + RIGHT) / 2
    edge = axes.x(overview.limit)
    parts = [
        rect(LEFT, TOP, RIGHT - LEFT, BOTTOM - TOP, class_="box"),
        rect(edge, TOP, RIGHT - edge, BOTTOM - TOP, class_="plan-beyond"),
    ]
    for gb in _even(axes.x_high / per_gb):
        x = axes.x(gb * per_gb)
        parts.append(element("path", d=f"M{number(x)} {TOP}V{BOTTOM}", class_="plan-grid"))
        parts.append(text(x, BOTTOM + 17, f"{gb:g}", class_="axis mid"))
    for seconds in _ticks(axes.y_low - log10(per_second), axes.y_high - log10(per_second)):
        y = axes.y(seconds * per_second)
        parts.append(element("path", d=f"M{LEFT} {number(y)}H{RIGHT}", class_="plan-grid"))
        parts.append(text(LEFT - 8, y + 4, f"{seconds:g}", class_="axis end"))
    parts.append(text(MARGIN, TOP - 9, "seconds of a step", class_="caption"))
    parts.append(text(middle, BOTTOM + 36, "GB held by the fullest GPU", class_="caption mid"))
    parts.append(element("path", d=f"M{number(edge)} {TOP - 4}V{BOTTOM}", class_="plan-limit"))
    said = f"limit: {overview.search.limit_bytes / 1e9:g} of {overview.search.memory_gb:g} GB"
    parts.append(text(RIGHT, TOP - 9, said, class_="caption end"))
    return "".join([*parts, *_legend(overview)])


def height_of(overview: Overview) -> int:
    """Of the frame."""
    return BOTTOM + 62 + _LEGEND_ROW * ceil(len(_limits(overview)) / 3)


def _limits(overview: Overview) -> list[int]:
    return sorted({mark.limit for mark in overview.marks})


def _legend(overview: Overview) -> list[str]:
    parts = []
    for place, limit in enumerate(_limits(overview)):
        x = LEFT + 8 + _LEGEND_COLUMN * (place % 3)
        y = BOTTOM + 62 + _LEGEND_ROW * (place // 3)
        parts.append(element("path", d=f"M{x} {y - 4}{SHAPES[limit]}", class_=f"plan-{limit}"))
        parts.append(text(x + 12, y, LIMIT_NAMES[limit], class_="name"))
    return parts


def _even(high: float) -> list[float]:
    """Round numbers from 0 to `high`, at most ten."""
    power = 10.0 ** floor(log10(high))
    step = next(s * power for s in (0.1, 0.2, 0.5, 1, 2) if high / (s * power) <= 9)
    return [step * k for k in range(floor(high / step) + 1)]


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers of which the logarithms are from low to high: 1, 2, 5 and so on, and more of them where those are few."""
    for steps in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9), [k / 10 for k in range(10, 100)]):
        found = [s * 10.0**p for p in range(floor(low), ceil(high) + 1) for s in steps]
        found = [value for value in found if low <= log10(value) <= high]
        if len(found) >= 3:
            break
    return found


def live(overview: Overview, axes: Axes, state: Mapping[str, Any]) -> str:
    """What a choice leaves, a path for each limit; dots for the rest; rings around the best that is left and the chosen one."""
    left, chosen = overview.left(state), overview.chosen(state)
    ranks = {mark.rank for mark in left}
    dots = "".join(f"M{_at(axes, mark)}h0" for mark in overview.marks if mark.rank not in ranks)
    parts = [element("path", d=dots, class_="plan-others")] if dots else []
    for limit in range(len(LIMIT_NAMES)):
        path = "".join(f"M{_at(axes, mark)}{SHAPES[limit]}" for mark in left if mark.limit == limit)
        if path:
            parts.append(element("path", d=path, class_=f"plan-mark plan-{limit}"))
    if chosen:
        x, y = axes.place(chosen)
        parts.append(element("path", d=f"M{LEFT} {number(y)}H{number(x)}V{BOTTOM}", class_="plan-drop"))
        parts.append(element("circle", cx=x, cy=y, r=6.5, class_="plan-chosen"))
        x, y = axes.place(left[0])
        parts.append(element("circle", cx=x, cy=y, r=9.5, class_="plan-best"))
        said = "best" if left[0].rank == 1 else "best of these"
        parts.append(text(x, y + 23, said, class_="caption mid"))
    return "".join(parts)


def _at(axes: Axes, mark: Mark) -> str:
    return " ".join(map(number, axes.place(mark)))


def picture(overview: Overview) -> str:
    """The frame, and an empty group for the page to draw into."""
    height = height_of(overview)
    card = rect(0.5, 0.5, WIDTH - 1, height - 1, rx=8, class_="card")
    return document(
        WIDTH, height, "", "", "", card, frame(overview, Axes(overview)), element("g", class_="live")
    )


def draw(overview: Overview, state: Mapping[str, Any]) -> str:
    """A search as a standalone SVG, the same for the same search and choice."""
    title, *lines = describe(overview, state).splitlines()
    said = [line for line in lines if not line.startswith(("All ", "Memory: ", "Time: "))]
    notes = [row for line in said for row in wrap(line, 116)]
    head = 40 + 19 * len(notes)
    height, body = head + 6, []
    if overview.marks:
        height, axes = head + height_of(overview), Axes(overview)
        body = [frame(overview, axes), live(overview, axes, state)]
    parts = [
        rect(0.5, 0.5, WIDTH - 1, height - 1, rx=8, class_="card"),
        text(MARGIN, 32, title, class_="title"),
        *(text(MARGIN, 54 + 19 * i, note, class_="note") for i, note in enumerate(notes)),
        element("g", *body, transform=f"translate(0 {head})") if body else "",
    ]
    style = standalone_style("picture.css", "planner.css")
    return document(WIDTH, height, title, "\n".join(lines), style, *parts)
