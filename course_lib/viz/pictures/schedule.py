"""Pipeline schedules with a clock: a lane a rank, a box an action; what is empty is the bubble."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import ceil, floor, log10

from course_lib.numbers import count
from course_lib.schedules import Schedule, check
from course_lib.schedules.known import SCHEDULES, spelled
from course_lib.schedules.simulation import KINDS, Costs, Simulation, Step, simulate
from course_lib.viz.controls import Choice, Number
from course_lib.viz.pictures.facts import WIDEST
from course_lib.viz.scene import Frame, Mark, Panel, Scene, rect, text, text_width, wrapped
from course_lib.viz.widget import Picture, picture

LEFT = 62  # x of the lanes
MANY = 450  # more boxes than so many are a few strokes, and more labels are left out
FRAMES, SECONDS = 48, 9.0  # of the animation
AXIS = [k * 10.0**e for e in range(-9, 9) for k in (1, 2, 5)]  # seconds from line to line
LOOKS = {"F": "forward", "B": "backward", "I": "input", "W": "weight", "": "forward later"}
LETTERS = {**dict.fromkeys(LOOKS, "small mid dark"), "B": "small mid bright"}
LATER = "paler, less high: later stages of a rank"
HINT = "Point at a box to see what it waited for, or walk there with Tab and the arrow keys. Space plays."
UNUSED = {"v": "only interleaved has chunks to choose", "m": "the relay does not cut the batch"}
Value = Schedule | Simulation
Part = tuple[str, Simulation, str | None]  # with its name, and the formula of its bubble; None for no results


def pipeline(
    schedule: str = "1F1B",
    p: int = 4,
    m: int = 8,
    v: int = 2,
    forward: float = 1.0,
    backward: float = 2.0,
    message: float = 0.0,
) -> Picture:
    """Draw a schedule of p ranks and m micro-batches; the reader changes everything, plays it, and asks what waits for what.

    schedule: a name of SCHEDULES. v: chunks of a rank, of "interleaved" only; the relay has one micro-batch whatever m is.
    forward, backward: seconds that one micro-batch takes on one rank, with all of its chunks, so that schedules can be
    compared: a stage takes 1/chunks of that, and I and W half of a backward each. message: seconds from one rank to another.
    Raises ValueError for an unknown schedule or a number out of range, naming the range. Sizes that the schedule cannot
    have are shown with the rule that they break.
    """
    sizes, times = dict(look="slider", group="order and sizes"), dict(whole=False, group="seconds on a rank")
    controls = (
        Choice("schedule", tuple(SCHEDULES), group="order and sizes"),
        Number("p", 1, 16, "ranks p", **sizes),
        Number("m", 1, 64, "micro-batches m", **sizes),
        Number("v", 1, 4, "chunks v", **sizes),
        Number("forward", 0.01, 100, **times),
        Number("backward", 0.01, 100, "backward (I and W: half each)", **times),
        Number("message", 0, 100, **times),
    )
    chosen = (spelled(schedule), p, m, v, forward, backward, message)
    return picture(build, controls, {control.name: value for control, value in zip(controls, chosen)})


def schedule_picture(what: Value | Mapping[str, Value], *more: Value) -> Picture:
    """Draw a schedule, a simulation or a measured run; or several of them below each other, with one scale of time.

    what: one of them, or a mapping that gives each its name.  more: others. A Schedule takes the usual costs. If one alone
    cannot be carried out, what is wrong with it is drawn; among several it raises ValueError.
    """
    named = [*what.items()] if isinstance(what, Mapping) else [("", one) for one in (what, *more)]
    if len(named) == 1 and isinstance(named[0][1], Schedule):
        from course_lib.viz.pictures.arena import judged  # it draws with what is here

        return picture(partial(judged, named[0][1]), name="schedule")
    if problem := next(filter(None, (check(one) for _, one in named if isinstance(one, Schedule))), None):
        raise ValueError(problem.why)
    parts = [(name, simulate(one) if isinstance(one, Schedule) else one, "") for name, one in named]
    if len(parts) > 1:
        parts = [(name or f"{one.title}, {one.source.split(',')[0]}", one, "") for name, one, _ in parts]
    return picture(partial(drawn, parts), name="schedule")


def build(schedule: str, p: int, m: int, v: int, width: int = 760, **seconds: float) -> Scene:
    """A known schedule as a scene. seconds: forward and backward, of all chunks of a rank, and message."""
    known = SCHEDULES[schedule]
    made = known.make(p, m, v)
    stage = [seconds[name] * made.num_ranks / made.num_stages for name in ("forward", "backward")]
    simulation = simulate(made, Costs(*stage, message_s=seconds["message"]))
    scene = drawn([("", simulation, known.promise(p, m, v, simulation.bubble))], width)
    return replace(scene, off={size: why for size, why in UNUSED.items() if size not in known.uses})


def drawn(parts: list[Part], width: int = 760, above: Panel | None = None) -> Scene:
    """Simulations as a scene, below each other, on one scale of time."""
    simulations, width = [one for _, one, _ in parts], min(width, WIDEST)
    longest = max(one.makespan_s for one in simulations) or 1.0
    marks, y, overs, frames = list(above.marks if above else ()), above.h if above else 0.0, [], []
    for name, one, formula in parts:
        if name:
            marks.append(text(0, y + 14, name, "strong", width, "clip"))
            y += 24
        if formula is not None:
            marks += _results(one, y, width, formula)
            y = max(mark.y for mark in marks) + 12
        found, y, over = _lanes(one, y + 24, width, longest, f"{len(overs)}:" if overs else "")
        marks, overs = [*marks, *found], [*overs, over]
    marks += _legend([step for one in simulations for step in one.steps], y, width)
    for time in (longest * k / FRAMES for k in range(FRAMES)):
        work = " and ".join(f"{one.working_at(time)} of {one.schedule.num_ranks}" for one in simulations)
        clock = f"{time:.{max(0, min(4, ceil(2 - log10(longest))))}f} s"
        frames.append(Frame(tuple(mark for over in overs for mark in over(time)), f"{clock}: {work} work"))
    sources = dict.fromkeys(f"{one.source[0].upper()}{one.source[1:]}." for one in simulations)
    return Scene(
        " · ".join(dict.fromkeys(one.title for one in simulations)),
        (Panel(width, marks[-1].y + 7, marks),),
        tuple(source for source in sources if source != "Simulated."),
        HINT,
        "\n".join("\n".join([f"{name}:"] * bool(name) + one.sentences()) for name, one, _ in parts),
        frames=tuple(frames),
        seconds=SECONDS / FRAMES,
        wires=True,
    )


def _legend(steps: list[Step], y: float, width: float) -> list[Mark]:
    """What the boxes mean, of those that are there."""
    there, marks, x = {s.action.kind for s in steps} | {"" for s in steps if s.chunk}, [], 0.0
    for kind, words in (*KINDS.items(), ("", LATER)):
        if kind in there:
            wide = text_width(words, "small") + 38
            x, y = (0.0, y + 20) if x + wide > width else (x, y)
            marks += [rect(x, y, 18, 14, LOOKS[kind]), text(x + 9, y + 11, kind, LETTERS[kind])]
            marks.append(text(x + 24, y + 11, words, "small quiet"))
            x += wide
    return marks


def _results(simulation: Simulation, y: float, width: float, formula: str) -> list[Mark | None]:
    """Makespan, bubble and memory, a large number each. formula: what the papers say of the bubble."""
    s, p, work = simulation, simulation.schedule.num_ranks, sum(simulation.work_s)
    peak, chunks = max(s.peak_activations), s.schedule.num_stages // p
    idle = f"{count(s.idle_s)} s / {count(work)} s{' · formula ' if formula else ''}{formula}"
    of = f"of {s.schedule.num_microbatches * chunks} stage activations, on rank {s.peak_activations.index(peak)}"
    whole = f": {peak / chunks:.4g} whole micro-batches" if chunks > 1 else ""
    said = (
        (0.26, "makespan", f"{count(s.makespan_s)} s", f"without bubble {count(work / p)} s"),
        (0.38, "bubble: idle / work", f"{s.bubble:.4g}", idle),
        (0.36, "activations held", f"at most {peak}", of + whole),
    )
    marks, x = [], 0.0
    for share, name, value, why in said:
        marks += [text(x, y + 12, name, "small quiet"), text(x, y + 34, value, "big", share * width - 8)]
        rows = enumerate(wrapped(why, share * width - 14, "small"))
        marks += [text(x, y + 52 + 15 * k, row, "small quiet") for k, row in rows]
        x += share * width
    return marks


def _lanes(
    simulation: Simulation, y0: float, width: float, longest: float, prefix: str
) -> tuple[list[Mark | None], float, Callable[[float], list[Mark]]]:
    """A simulation: its marks, where they end, and what lies over them at a time. longest: seconds that fill the width."""
    s, p, makespan = simulation, simulation.schedule.num_ranks, simulation.makespan_s
    pitch = 38 if p <= 4 and len(s.steps) <= MANY else 30 if p <= 8 else 22
    bar = 64 if width >= 480 else 32
    bars, scale, high = width - bar - 34, (width - LEFT - bar - 48) / longest, pitch * p - 4
    most = s.schedule.num_microbatches * (1 + max(step.chunk for step in s.steps))
    ys = [y0 + pitch * rank + pitch / 2 - 2 for rank in range(p)]  # the middles of the lanes

    def held(numbers: Sequence[int]) -> list[Mark]:
        full = [rect(bars, y - 5, bar * n / most, 10, "activations") for y, n in zip(ys, numbers)]
        return full + [text(bars + bar + 6, y + 4, str(n), "strong digits") for y, n in zip(ys, numbers)]

    def over(time: float) -> list[Mark]:
        gone = min(time, makespan) * scale
        left = [(LEFT + gone, makespan * scale - gone, "veil"), (bars, bar, "veil")]
        left.append((bars + bar + 4, 30, "cover"))
        cursor = rect(LEFT + gone - 1, y0 - 4, 2, high + 6, "cursor")
        return [*(rect(x, y0, w, high, kind) for x, w, kind in left), cursor, *held(s.activations_at(time))]

    marks = [text(bars, y0 - 9, f"holds, of {most}", "small quiet", bar + 34)]
    for rank, y in enumerate(ys):
        marks += [text(LEFT - 10, y + 4, f"rank {rank}", "end"), rect(bars, y - 5, bar, 10, "shade")]
        marks.append(rect(LEFT, y - pitch / 2 + 2, makespan * scale, pitch - 4, "shade"))
    step = next(step for step in AXIS if step * scale >= 75)
    for k in range(floor(makespan / step + 1e-9) + 1):
        x, kind = LEFT + k * step * scale, f"small quiet {'mid' if (k + 0.3) * step <= makespan else 'end'}"
        marks += [Mark("line", "grid", x, y0 - 5, 0, high + 5), text(x, y0 - 9, f"{k * step:.6g} s", kind)]
    marks += [*held(s.peak_activations), *_boxes(s, y0, pitch, scale, prefix)]
    return marks, y0 + high + 14, over


def _boxes(simulation: Simulation, y0: float, pitch: int, scale: float, prefix: str) -> list[Mark]:
    """The gaps, a box for each action, and the labels that fit. Of many, boxes only light up, and strokes are under them."""
    steps, high, boxes, labels = simulation.steps, pitch - 4, [], []
    fits = 2 + 7 * len(str(simulation.schedule.num_microbatches - 1))
    strokes = {}  # of a kind and y, how far the pen has come, and its way, both in pixels of `grid`
    grid = next(grid for most, grid in ((1500, 0.1), (3100, 0.5), (3900, 1), (10**9, 2)) if len(steps) < most)
    for rank, start, end, tip, names in simulation.gaps:
        if (wide := (end - start) * scale) >= 1:
            place, lit = (LEFT + start * scale, y0 + rank * pitch, wide, high), [prefix + n for n in names]
            boxes.append(rect(*place, "hit", tip=tip, lights=tuple(lit)))
    for step in steps:
        rank, chunk, (kind, _, microbatch), start, end, _, needs, _ = step
        look, name, y = LOOKS[kind] + " later" * (chunk > 0), f"{prefix}{step.action}", y0 + rank * pitch
        x, wide = LEFT + start * scale, (end - start) * scale
        wide -= 1 if wide >= 4 else 0.5 if wide >= 2 else 0
        h = high - (4 if high > 20 else 3) * min(chunk, 1 if len(steps) > MANY else 3)
        if len(steps) > MANY:
            row = f"{look} strokes high-{h}", y + high / 2
            pen, way = strokes.get(row, (0, "M0 0"))
            left, right = round(x / grid), round((x + wide) / grid)
            if right > left:
                strokes[row] = right, f"{way}m{(left - pen) * grid:g} 0h{(right - left) * grid:g}"
            look = f"hit {look}"
        lit = [name, *[prefix + need for _, need in needs]]
        lit += [f"{prefix}={need}" for owner, need in needs if owner != rank]  # by key: a line leads there
        more = f"{prefix}={step.action}", (name,), str(step), tuple(lit), (), "actions"
        boxes.append(Mark("rect", look, x, y + (high - h) / 2, wide, h, "", *more))
        if wide >= fits:
            words, at = f"{kind if wide >= fits + 8 else ''}{microbatch}", (x + wide / 2, y + high / 2 + 4)
            labels.append(Mark("text", LETTERS[kind], *at, text=words, key=name))
    under = [Mark("path", kind, 0, y, text=way, of=("strokes",)) for (kind, y), (_, way) in strokes.items()]
    return [*under, *boxes, *(labels if len(labels) <= MANY else [])]
