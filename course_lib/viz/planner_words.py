"""What the planner explorer says: how many candidates there are, what a choice leaves, what limits one and where it loses time.

static/planner_model.js says the same in the page; tests/browser/test_planner_explorer.py holds the two to the same words.
"""

from collections.abc import Mapping
from math import floor
from typing import Any

from course_lib.cost.shapes import RECOMPUTE
from course_lib.viz.planner_model import ANY, KINDS, LIMIT_NAMES, MOST, PARTS, Mark, Overview

WHY = (
    "Nothing beyond forward and backward costs a hundredth of the step.",
    "Not all that forward computed can be kept, and backward computes it again.",
    "The ranks of a tensor-parallel group wait for the sums that they make together.",
    "Stages wait for activations from their neighbours, and for the gradients of them.",
    "Stages stand idle while the pipeline fills and empties.",
    "Gradients, and with ZeRO 3 parameters too, travel for longer than arithmetic hides.",
    "The update of the parameters reads and writes much memory.",
)
AGAIN = (
    "nothing is computed again",
    "attention cores are computed again (selective)",
    "forward is computed again (full)",
)
SHARED = (
    "ZeRO 0: every copy holds all of it",
    "ZeRO 1: copies share out the optimizer state",
    "ZeRO 2: copies share out optimizer state and gradients",
    "ZeRO 3: copies share out optimizer state, gradients and parameters",
)


def gb(overview: Overview, units: int) -> str:
    """ "58.7": three digits."""
    return _three(units / overview.per_gb)


def time(overview: Overview, units: int) -> str:
    """ "16.7 s", "340 ms", "7 ms": three digits, and none smaller than a unit."""
    seconds, known = units / overview.per_second, len(str(overview.per_second)) - 1
    if seconds >= 1:
        return f"{_three(seconds, known)} s"
    if seconds >= 1e-3:
        return f"{_three(seconds / 1e-3, max(0, known - 3))} ms"
    return f"{_three(seconds / 1e-6, max(0, known - 6))} µs"


def counts(overview: Overview) -> str:
    """How many candidates there are, and which of them have a mark."""
    s, shown = overview.search, len(overview.marks)
    if not shown:
        return s.table().splitlines()[-1]
    room = f"{s.limit_bytes / 1e9:g} of {s.memory_gb:g} GB"
    text = f"{s.num_fit:,} of {s.num_legal:,} candidates fit into {room}."
    standing = sum(mark.ways for mark in overview.marks)
    if standing > shown:
        text += (
            f" A mark is the fastest with its layout, schedule, recomputation, ZeRO and sequence parallel: {shown:,} marks. "
            f"Left out: {standing - shown:,} that differ from one only in micro-batch or pieces, none faster."
        )
    if rest := overview.groups[MOST:]:
        ways = sum(ways for *_, ways in rest)
        text += f" Left out, too: the {len(rest):,} slowest such marks ({ways:,} candidates), of {rest[0][1].total_s:.3g} s and more."
    return text


def left_text(overview: Overview, state: Mapping[str, Any]) -> str:
    """How many a choice leaves, and the best of them."""
    left, shown = overview.left(state), len(overview.marks)
    if not left:
        return f"None of {shown:,} marks is left: set something back to “{ANY}”."
    ways, standing = (sum(mark.ways for mark in some) for some in (left, overview.marks))
    best = left[0]
    text = f"Left: {len(left):,} of {shown:,} marks, {ways:,} of {standing:,} candidates."
    if len(left) == shown:
        text = f"All {shown:,} marks are shown." if shown > 1 else "There is one mark."
    text += f" The best of them: {best.layout}, {time(overview, sum(best.seconds))}"
    if best.rank == 1:
        return f"{text}, the best of all."
    return f"{text}, number {best.rank:,}, {_more(overview, best)}."


def difference(overview: Overview, mark: Mark) -> str:
    """Its seconds, and where it loses and gains some against the best; the largest part first."""
    best, total = overview.marks[0], time(overview, sum(mark.seconds))
    if mark.rank == 1:
        return f"{total}: the fastest of all that fit."
    gaps = [(mine - other, name) for mine, other, name in zip(mark.seconds, best.seconds, PARTS)]
    gaps = [(gap, name) for gap, name in gaps if 100 * abs(gap) > sum(best.seconds)]
    said = ", ".join(
        f"{name} {time(overview, abs(gap))} {'more' if gap > 0 else 'less'}"
        for gap, name in sorted(gaps, key=lambda pair: -abs(pair[0]))
    )
    return f"{total}, {_more(overview, mark)}: {said or 'nearly the same in every part'}."


def words(overview: Overview, mark: Mark) -> list[str]:
    """Which one it is; its plan; what limits it; its difference to the best."""
    *_, schedule, recompute, zero, sequence = mark.choices
    pieces = f", {mark.chunks} pieces of the model on each stage" if mark.chunks > 1 else ""
    m, b = mark.num_microbatches, mark.microbatch
    cost, total = mark.seconds[mark.limit], sum(mark.seconds)
    beyond = f": {time(overview, cost)}, {_percent(cost, total)} % of the step" if mark.limit else ""
    return [
        f"Number {mark.rank:,} of {overview.search.num_fit:,}: {mark.layout}",
        f"{schedule}{pieces}; {m:,} micro-batch{'' if m == 1 else 'es'} of {b:,} sequence{'' if b == 1 else 's'}; "
        f"{AGAIN[RECOMPUTE.index(recompute)]}; {SHARED[zero]}; {'with' if sequence else 'without'} sequence parallel.",
        f"Limited by {LIMIT_NAMES[mark.limit]}{beyond}. {WHY[mark.limit]}",
        difference(overview, mark),
    ]


def describe(overview: Overview, state: Mapping[str, Any]) -> str:
    """All of it in words, with the memory and the time of the chosen mark by part."""
    lines = [overview.search.title, counts(overview)]
    if overview.marks:
        lines.append(left_text(overview, state))
    if mark := overview.chosen(state):
        held = ", ".join(f"{name} {gb(overview, size)}" for name, size in zip(KINDS, mark.memory))
        spent = ", ".join(f"{name} {time(overview, size)}" for name, size in zip(PARTS, mark.seconds) if size)
        room = f"{overview.search.limit_bytes / 1e9:g} GB"
        lines += words(overview, mark)
        lines += [f"Memory: {gb(overview, sum(mark.memory))} of {room}: {held}.", f"Time: {spent}."]
    return "\n".join(lines)


def _more(overview: Overview, mark: Mark) -> str:
    best, total = sum(overview.marks[0].seconds), sum(mark.seconds)
    if (total - best) * 200 < best:
        return "nearly as fast as the best of all"
    return f"{_percent(total - best, best)} % slower than the best of all"


def _percent(part: int, whole: int) -> str:
    return f"{(200 * part + whole) // (2 * whole):,}"


def _three(value: float, most: int = 2) -> str:
    digits = min(most, 2 if value < 10 else 1 if value < 100 else 0)
    return f"{floor(value * 10**digits + 0.5) / 10**digits:.{digits}f}"
