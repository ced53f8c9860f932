"""The planner explorer: the candidates of a search by memory and time; filter them, and ask any of them why it is not the best."""

from collections.abc import Callable
from functools import lru_cache, partial
from math import ceil, floor, log10
from typing import Any, NamedTuple

from course_lib.cost.overview import ANY, FILTERS, LIMIT_NAMES, PARTS, Overview, Pick, gb
from course_lib.cost.ranking import Search
from course_lib.numbers import seconds_text
from course_lib.viz.controls import Button, Choice, Control, Number
from course_lib.viz.palette import PART_COLORS
from course_lib.viz.pictures.facts import NARROW, WIDEST, facts
from course_lib.viz.scene import Mark, Panel, Scene, dot, line, num, path, rect, text
from course_lib.viz.widget import Picture, picture

LEFT, TOP, HIGH = 46, 26, 330  # beside, above, and of the plot
SHAPES = {  # around a place
    "kernels": "m-4.4-1.5h8.8v3h-8.8z",
    "recomputation_s": "m0-4.4l4.2 7.2h-8.4z",
    "tensor_parallel_s": "m-3.3-3.3h6.6v6.6h-6.6z",
    "pipeline_messages_s": "m0-4.6l4.6 4.6l-4.6 4.6l-4.6-4.6z",
    "bubble_s": "m0 4.4l4.2-7.2h-8.4z",
    "data_parallel_s": "m-3.7 0a3.7 3.7 0 1 1 7.4 0a3.7 3.7 0 1 1-7.4 0z",
    "optimizer_s": "m-1.4-4.2h2.8v2.8h2.8v2.8h-2.8v2.8h-2.8v-2.8h-2.8v-2.8h2.8z",
}
HINT = "Click another, or walk: ↑ slower, ↓ faster, ← less memory, → more; Home the best, End the slowest."


def planner_explorer(search: Search) -> Picture:
    """Draw what a search found: a mark a candidate, seconds of its step over GB of its fullest GPU, its shape what limits it.

    The reader filters by layout, schedule, recomputation, ZeRO and sequence parallel, and chooses a mark to see its plan, its
    memory and time by part, and where it loses against the best. Drawn are the fastest of each choice of these, at most 600;
    the picture says what is left out.
    Raises TypeError for anything but a Search.
    """
    if not isinstance(search, Search):
        found = type(search).__name__
        raise TypeError(f"planner_explorer draws what course_lib.cost.planner.search returns, not a {found}.")
    over, said = Overview(search), {False: "no", True: "yes"}
    controls: list[Control] = []
    for name, options in over.options.items():
        labels = {value: said[value] if isinstance(value, bool) else str(value) for value in options}
        controls.append(Choice(name, {ANY: ANY} | labels, FILTERS[name]))
    chosen = {control.name: ANY for control in controls} | ({"mark": 0} if over.marks else {})
    if over.marks:
        controls += [Button("all", "all again", chosen), Number("mark", 0, search.num_fit, hidden=True)]
    return picture(partial(build, over), controls, chosen, name="planner")


def build(over: Overview, *, mark: int = 0, width: int = 760, **filters: Any) -> Scene:
    """What the filters leave, and the mark of that rank as a scene; if it is not left, with the best that is."""
    title, width = over.search.title, min(width, WIDEST)
    left = over.left(filters) if filters else []
    shown = next((one for one in left if one.rank == mark), left[0] if left else None)
    notes, alt = [over.counts], over.describe(left, shown)
    if not over.marks:
        return Scene(title, notes=tuple(notes), alt=alt)
    notes.append(over.left_text(left))
    plot, say, rings = _plot(over, tuple(filters.items()), width), HINT, []
    if shown:
        rings, say = _rings(plot, left[0], shown), f"Number {shown.rank:,}: {shown.said}. {HINT}"
    panels = [Panel(width, plot.h, rings), *(_panels(over, shown, width) if shown else [])]
    off = {} if any(value != ANY for value in filters.values()) else {"all": "all marks are shown"}
    return Scene(title, tuple(panels), tuple(notes), say, alt, plot.marks, keys=_keys(left, shown), off=off)


class Plot(NamedTuple):
    """What stays while a mark is chosen: height, marks, and where a candidate is."""

    h: float
    marks: tuple[Mark, ...]
    place: Callable[[Pick], tuple[float, float]]


@lru_cache(16)
def _plot(over: Overview, filters: tuple, width: int) -> Plot:
    """The box with its axes, the limit, what is left by shape and colour, the rest as dots, and the legend."""
    search, all_of_them, left = over.search, over.marks, over.left(dict(filters))
    right, bottom, limit = width - 10, TOP + HIGH, search.limit_bytes / 1e9
    most = max(1.02 * limit, min(search.memory_gb, 1.1 * limit))
    low, high = (log10(all_of_them[i].candidate.total_s) for i in (0, -1))
    span = max(high - low, 0.3)
    low, high = low - 0.14 * span, high + 0.04 * span

    def x(gigabytes: float) -> float:
        return LEFT + (right - LEFT) * gigabytes / most

    def y(seconds: float) -> float:
        return bottom - HIGH * (log10(seconds) - low) / (high - low)

    def place(plan: Pick) -> tuple[float, float]:
        return round(x(plan.candidate.memory.total / 1e9), 1), round(y(plan.candidate.total_s), 1)

    marks = [
        rect(LEFT, TOP, right - LEFT, HIGH, "box"),
        rect(x(limit), TOP, right - x(limit), HIGH, "shade"),
        text(0, 14, "seconds of a step", "small quiet"),
        text(right, 14, f"limit: {over.room_gb} of {search.memory_gb:g} GB", "small quiet end"),
        text((LEFT + right) / 2, bottom + 34, "GB held by the fullest GPU", "small quiet mid"),
    ]
    for gigabytes in _even(most):
        marks.append(line(x(gigabytes), TOP, x(gigabytes), bottom, "grid"))
        marks.append(text(x(gigabytes), bottom + 16, f"{gigabytes:g}", "small digits mid"))
    for seconds in _ticks(low, high):
        marks.append(line(LEFT, y(seconds), right, y(seconds), "grid"))
        marks.append(text(LEFT - 6, y(seconds) + 4, f"{seconds:g}", "small digits end"))
    marks.append(line(x(limit), TOP - 4, x(limit), bottom, "limit dashed"))
    chosen = {mark.rank for mark in left}
    spots = [(mark.limit if mark.rank in chosen else "", *place(mark)) for mark in all_of_them]
    legend, v = 0.0, bottom + 58.0
    for part, shape in {"": "m-1-1h2v2h-2z", **SHAPES}.items():
        d = "".join(f"M{num(a)} {num(b)}{shape}" for of, a, b in spots if of == part)
        marks.append(path(d, f"{PART_COLORS[part]} edged" if part else "some") if d else None)
        if part and any(mark.limit == part for mark in all_of_them):
            marks += [sign(part, legend + 6, v - 4), text(legend + 16, v, LIMIT_NAMES[part], "small")]
            legend, v = (legend + 172, v) if legend + 332 <= width else (0.0, v + 19)
    for mark in reversed(left):  # the fastest on top
        marks.append(dot(*place(mark), 2, "hit", tip=mark.said, sets=(("mark", mark.rank),)))
    return Plot(v + (10 if legend else -9), tuple(filter(None, marks)), place)


def sign(part: str, x: float, y: float) -> Mark:
    """The shape of a limit, in its colour."""
    return path(f"M0 0{SHAPES[part]}", f"{PART_COLORS[part]} edged", x, y)


def _rings(plot: Plot, best: Pick, shown: Pick) -> list[Mark | None]:
    """Rings around the best that is left and the chosen one, and from that one lines to the axes."""
    (x, y), (u, v) = plot.place(shown), plot.place(best)
    return [
        line(LEFT, y, x, y, "faint dotted", key="across"),
        line(x, y, x, TOP + HIGH, "faint dotted", key="down"),
        dot(u, v, 9.5, "frame", key="best"),
        dot(x, y, 6.5, "chosen", key="chosen"),
        text(u, v + 22, "best" if best.rank == 1 else "best of these", "small halo mid", key="name"),
    ]


def _keys(left: list[Pick], shown: Pick | None) -> dict[str, dict[str, int]]:
    """Where each key leads from the chosen mark."""
    if not shown:
        return {}
    by_memory = sorted(left, key=lambda mark: (mark.candidate.memory.total, mark.rank))
    to = {"Home": left[0], "End": left[-1]}
    for down, up, row in (("ArrowDown", "ArrowUp", left), ("ArrowLeft", "ArrowRight", by_memory)):
        at = row.index(shown)
        to |= {down: row[max(0, at - 1)], up: row[min(len(row) - 1, at + 1)]}
    return {key: {"mark": mark.rank} for key, mark in to.items()}


def _panels(over: Overview, shown: Pick, width: float) -> list[Panel]:
    """The chosen plan in words; its time by part and its memory by kind, beside those of the best."""
    best, c = over.marks[0], shown.candidate
    head = f"GB on the fullest GPU, which has room for {over.room_gb} GB"
    memory = vars(c.memory), vars(best.candidate.memory), over.search.limit_bytes
    return [
        facts(over.name(shown), over.facts(shown), width),
        _table("Time of the step", seconds_text, width, shown.parts, best.parts, c.total_s),
        _table(head, gb, width, *memory),
    ]


def _table(head: str, say: Callable, width: float, mine: dict, best: dict, scale: float) -> Panel:
    """A row a part: a bar that starts where the one before ends, out of `scale`, and numbers beside the best's."""
    narrow, heads = width < NARROW, ("this one", "the best", "difference")
    step = 67 if narrow else 70
    columns = [width] if mine == best else [width - 2 * step, width - step, width]
    # Narrow: bars below their names.
    left, right, high = (0, width, 34) if narrow else (190, columns[0] - 78, 21)
    marks: list[Mark | None] = [text(0, 14, head, "strong", width)]
    marks += [text(x, 36, words, "small quiet end") for x, words in zip(columns, heads)]
    y, start = 57.0, 0.0
    for part in (*mine, "together"):
        last, v = part == "together", y + 6 if narrow else y - 10
        size, other = (sum(every.values()) if last else every[part] for every in (mine, best))
        gap = "+" if size > other else "−" if size < other else ""
        said = [say(value) if value else "0" for value in (size, other)]
        said.append(gap + say(abs(size - other)) if gap else "0")
        kind, name = PART_COLORS.get(part, part.partition("_")[0]), PARTS.get(part, part.replace("_", " "))
        marks += [sign(part, 6, y - 4)] if part in PARTS else []
        marks.append(text(16 if part in PARTS else 0, y, name, "strong" * last, columns[0] - 66))
        x, wide = (left + (right - left) * (0 if last else start) / scale), (right - left) * size / scale
        marks += [rect(left, v, right - left, 11, "blank"), rect(x, v, wide, 11, "some" if last else kind)]
        marks += [text(x, y, words, f"digits end{' strong' * last}") for x, words in zip(columns, said)]
        y, start = y + high, start + size
    return Panel(width, y - high + (22 if narrow else 8), marks)


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
