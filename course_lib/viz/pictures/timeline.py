"""The timeline of a trace: a lane a rank, with its spans, with work and waiting of its thread, and with what is in flight."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from math import ceil, log10

import numpy as np

from course_lib.layout import Layout
from course_lib.layout.ownership import ranks_text
from course_lib.numbers import bytes_text, count, seconds_text
from course_lib.trace import Event, Trace
from course_lib.viz.controls import View
from course_lib.viz.pictures.timeline_lanes import Item, Lanes
from course_lib.viz.scene import Mark, Panel, Scene, arrow, line, path, rect, text, text_width
from course_lib.viz.widget import Picture

LEFT, RIGHT = 56, 14  # beside the lanes
FEW, NAMES, ARROWS = (1200, 800), (200, 90), 60  # most boxes and names, live and still; most arrows
LONG = (90_000, 20_000)  # letters in the paths for more boxes
KINDS = {  # what the legend says; how the name in a box is written
    "compute": ("the thread works", ""),
    "wait": ("the thread waits", "small mid"),
    "forward": ("F: forward", "small mid dark"),
    "backward": ("B: backward", "small mid bright"),
    "input": ("I: backward for the input", "small mid dark"),
    "weight": ("W: backward for the weights", "small mid dark"),
    "span": ("", "small mid"),
}
TOLD = ("forward", "backward", "input", "weight")  # spans whose colour says what they do
HINT = "Point at a bar, or walk there with Tab and the arrow keys. + and − zoom, 0 shows all; drag to move."
Place = Callable[[float], float]
Times = tuple[float, float]
width_of = cache(text_width)


def timeline(trace: Trace | Mapping[str, Trace], layout: Layout | None = None) -> Picture:
    """Draw what each rank did when; the reader zooms, pans and asks for each event's details.

    trace: several, {"one message": a.trace, "five messages": b.trace}, are drawn below each other on one scale of time, which
    is 0 at the first event of each.  layout: the mesh of these ranks; what is in flight then has the colour of the axis
    along which its ranks differ. Without one, groups of each shape have a colour.
    Raises TypeError for anything else, ValueError for no trace and for a layout of another number of ranks.
    """
    traces = dict(trace) if isinstance(trace, Mapping) else {"": trace}
    for one in traces.values():
        if not isinstance(one, Trace):
            hint = ": pass run.trace" if hasattr(one, "trace") else ""
            raise TypeError(f"timeline() draws a Trace, not a {type(one).__name__}{hint}.")
        if layout and layout.world_size != one.world_size:
            raise ValueError(f"{layout} has {layout.world_size} ranks, this trace {one.world_size}.")
    if not traces:
        raise ValueError("timeline() has no trace to draw: name at least one.")
    lanes = Lanes(traces, layout)
    view = (0.0, float(np.float32(1.02 * lanes.length)))  # few digits: no sum in the page is a digit beyond
    words = _words(lanes)
    return Timeline(partial(build, lanes, words, view), (View(*view),), {"view": view}, "timeline", False)


class Timeline(Picture):
    """A timeline. Where no kernel runs, a page shows the whole trace in less than 40 kB."""

    def html(self) -> str:
        """The whole trace, whatever part is in view."""
        live, self._build = self._build, partial(self._build, still=True)
        try:
            return super().html()
        finally:
            self._build = live


def build(lanes: Lanes, words: tuple, whole: Times, view: Times, width: int, still: bool = False) -> Scene:
    """The part of the time that is in view, as a scene. still: all of it, and light."""
    (a, b), right = whole if still else view, width - RIGHT

    def x(seconds: float) -> float:  # what juts out of the view ends at its edge
        return LEFT + (right - LEFT) * min(max((seconds - a) / (b - a), 0.0), 1.0)

    shown = np.flatnonzero((lanes.stop >= a) & (lanes.start <= b))
    many = len(shown) > FEW[still]
    boxes = [] if many else [*_boxes(lanes, shown, x, NAMES[still])]
    marks = _columns(lanes, shown, (a, b), x, LONG[still]) if many else boxes
    named = not any(mark.kind in TOLD for mark in marks) if many else not lanes.letters
    legend = _legend(lanes, width, named)
    panel = Panel(width, legend[-1].y + 6, [*_frame(lanes, (a, b), x), *marks, *legend])
    return Scene(words[0], (panel,), words[1], HINT, words[2], zoom=(LEFT, right))


def _frame(lanes: Lanes, view: Times, x: Place) -> Iterator[Mark | None]:
    """The axis, the ranks, and of several traces their names and ends."""
    (a, b), high, pitch = view, lanes.tops[-1] + lanes.floor + 4, lanes.floor + lanes.gap
    rough = (b - a) * 75 / (x(b) - LEFT)
    step = min(s for k in range(-12, 6) for m in (1, 2, 5) if (s := m * 10.0**k) >= rough)
    for k in range(ceil(a / step - 1e-9), int(b / step + 1e-9) + 1):
        at, words = x(k * step), time_text(k * step, lanes.length, step)
        yield line(at, 18, at, high, "grid")
        yield text(at, 11, words, f"small quiet {'end' if at > x(b) - 12 else 'mid'}")
    for (name, rank), top in zip(lanes.places, lanes.tops):
        if rank % ceil(13 / pitch) == 0:
            middle = top + lanes.thread + lanes.body / 2 + 4
            yield text(0, middle, f"rank {rank}", "small" if pitch < 30 else "")
        if name and rank == 0:
            yield text(0, top - 9, f"{name}: {seconds_text(lanes.ends[name])}", "strong")
            at, below = x(lanes.ends[name]), top + pitch * lanes.traces[name].world_size - lanes.gap
            yield line(at, top - 4, at, below + 4, "line dashed")


def _boxes(lanes: Lanes, shown: np.ndarray, x: Place, most: int) -> Iterator[Mark | None]:
    """Each item as a box, the names that fit, and arrows from send to recv where they are few."""
    names, arrows = [], {}
    for i in shown.tolist():
        item = lanes.items[i]
        at, (y, h), flies = x(item.start), lanes.box(item), item.sort == "flight"
        wide = max(1.0, x(item.stop) - at - 0.6)
        some = dict.fromkeys(lanes.together[e] for e in item.events if e in lanes.together)
        groups = tuple(f"g{members[0]}" for members in some)[:20]
        of = (*groups, "flights") if flies else ("own",)
        lights = (*groups, "own") if groups else ("own", "flights")
        tip = lanes.tips.get(i) or lanes.tips.setdefault(i, said(lanes, item))
        yield Mark("rect", item.kind, at, y, wide, h, "", f"i{i}", of, tip, lights, (), "events")
        arrows |= {members: None for members in some if flies and members[0] in lanes.cut}
        below = h < 11 and len(item.events) > 1 and lanes.gap >= 14  # it tells how many are united here
        if wide > 10 and (h >= 11 or below):
            kind = "small mid quiet" if below else KINDS.get(item.kind, ("", "small mid paper"))[1]
            if name := next((n for n in _names(lanes, item) if width_of(n, kind) <= wide - 4), ""):
                middle = y + (h + 11 if below else h / 2 + 3.5)
                names.append((-wide, text(at + wide / 2, middle, name, kind, key=f"i{i}", of=of)))
    for pair in arrows if len(arrows) <= ARROWS else ():
        a, b = (lanes.bars[e] for e in pair)
        (y1, h1), (y2, h2) = lanes.box(a), lanes.box(b)
        y1, y2 = (y1 + h1, lanes.tops[b.lane] - 1) if a.lane < b.lane else (lanes.tops[a.lane] - 1, y2 + h2)
        yield arrow(x(a.start), y1, x(b.stop), y2, "faint", of=(f"g{pair[0]}", "flights"), key=f"a{pair[0]}")
    yield from (mark for _, mark in sorted(names)[:most])


def _columns(lanes: Lanes, shown: np.ndarray, view: Times, x: Place, most: int, letters=8) -> list[Mark]:
    """Of more: in columns of pixels the share of waiting and of flights as height, and the kind of span that takes most."""
    (a, b), wide = view, int(x(view[1])) - LEFT
    step = max(2, ceil(letters * wide * len(lanes.tops) / most))
    n, codes = ceil(wide / step), lanes.codes
    rows = (lanes.lane * len(codes) + lanes.code)[shown] * (n + 2)
    cells = np.zeros(len(lanes.tops) * len(codes) * (n + 2))  # what begins in a column, less what ends there
    for times, sign in ((lanes.start[shown], 1), (lanes.stop[shown], -1)):
        at = np.clip((times - a) / (b - a) * wide / step, 0, n)
        for column, part in ((at.astype(int), 1 - at % 1), (at.astype(int) + 1, at % 1)):
            cells += np.bincount(rows + column, sign * part, len(cells))
    shares = np.cumsum(cells.reshape(len(lanes.tops), len(codes), n + 2), axis=2)[:, :, :n]
    seconds = shares.sum(axis=2) * (b - a) * step / wide
    sent = np.bincount(lanes.lane[shown], lanes.sent[shown], len(lanes.tops))
    tops, marks, outlines = np.array(lanes.tops) + lanes.thread, [], []
    bands = {"span": (-2, lanes.thread - 2, 0.1), "thread": (lanes.body, lanes.body, 1)}
    bands["flight"] = lanes.floor - lanes.thread, lanes.rows * lanes.flight, lanes.rows
    for sort, (base, high, full) in bands.items():
        fine = sort != "span" or step <= 16  # in wider columns the kind that takes most misleads
        some = [key for key in codes if key[0] == sort and key[1] != "compute" and fine]
        of, bases = shares[:, [codes[key] for key in some]], (tops + base).tolist()
        total = np.minimum(of.sum(axis=1) / full, 1)
        levels = np.rint(high * (total >= 1 if sort == "span" else total)).astype(int)
        for k, (_, kind) in enumerate(some):
            mine = np.where(of.argmax(axis=1) == k, levels, 0)
            outlines.append(path(_skyline(mine, bases, step, int(x(lanes.length))), kind))
    if (long := sum(len(mark.text) for mark in outlines)) > most:
        return _columns(lanes, shown, view, x, most, letters * long / most)
    for lane, (name, _) in enumerate(lanes.places):
        took = {kind: seconds_text(max(0.0, seconds[lane, code])) for (_, kind), code in codes.items()}
        tip = f"{lanes.who[lane]}, in view · worked {took.get('compute', '0 s')} · waited {took.get('wait', '0 s')} · "
        tip += f"sent {bytes_text(round(sent[lane]))} · Zoom in to see single events."
        at = x(0), int(tops[lane]), x(lanes.ends[name]) - x(0), lanes.body
        marks.append(rect(*at, "compute", tip=tip, focus="events"))
    return marks + [mark for mark in outlines if mark.text]


def _skyline(levels: np.ndarray, bases: list[int], step: int, right: int) -> str:
    """The outlines of bars that stand side by side, a row of them on each base."""
    changes, parts, at, high = np.diff(levels, prepend=0, append=0), [], 0, 0
    rows, columns = np.nonzero(changes)
    for row, column, change in zip(rows.tolist(), columns.tolist(), changes[rows, columns].tolist()):
        x = min(LEFT + column * step, right)
        parts.append(f"h{x - at}v{-change}" if high else f"M{x} {bases[row]}v{-change}")
        at, high = x, high + change
    return "".join(parts)


def _legend(lanes: Lanes, width: float, named: bool) -> list[Mark | None]:
    """What the colours mean that are there. named: those of spans are told in place, or not there."""
    shapes = {kind: f", {n} ranks {apart} apart" for (apart, n), kind in lanes.groups.items()}
    kinds, marks = {kind: 0 for _, kind in lanes.codes}, []
    at, y = 0.0, lanes.tops[-1] + lanes.floor + 26
    for kind in sorted(kinds, key=[*KINDS, *kinds].index):
        along = f" along {kind}" if kind != "world" else " across axes"
        others = along if lanes.layout else ", all ranks" if shapes else ""
        words = KINDS.get(kind, (f"in flight{shapes.get(kind, others)}",))[0]
        if words and not (named and kind in TOLD):
            wide = 26 + width_of(words, "small")
            at, y = (0.0, y + 18) if at and at + wide > width else (at, y)
            marks += [rect(at, y - 9, 18, 10, kind), text(at + 24, y, words, "small quiet")]
            at += wide + 14
    return marks


def _names(lanes: Lanes, item: Item) -> list[str]:
    """What may stand in a box, the longest first."""
    if len(item.events) != 1:
        return [f"{len(item.events)} operations", f"×{len(item.events)}"] if item.events else []
    e = lanes.events[item.events[0]]
    if item.kind == "wait":
        return [f"waits for {e.operation}", "waits" if lanes.flight > 11 else e.operation]
    labels = {key: value for key, value in e.labels if not key.endswith("_s")}
    full = ", ".join(f"{key} {value}" for key, value in labels.items() if key != e.operation)
    short = [f"{e.operation} {', '.join(map(str, labels.values()))}"] if labels else []
    if len(e.operation) == 1 and "microbatch" in labels:  # as schedules write it
        short = [f"{stage}{e.operation}{labels['microbatch']}" for stage in (labels.get("stage", ""), "")]
    return [*([f"{e.operation}, {full}"] if full else []), *short, _call(e), e.operation]


def _call(e: Event) -> str:
    arrow = "→" if e.is_send else "←"
    return f"{e.operation} {arrow} rank {e.peers[0]}" if e.kind == "message" and e.peers else e.operation


def said(lanes: Lanes, item: Item) -> str:
    """All that is known of an item."""

    def when(start: float, stop: float) -> str:
        step = max((stop - start) / 100, lanes.length * 1e-7)
        return f"{time_text(start, lanes.length, step)} + {seconds_text(stop - start)}"

    who, times = lanes.who[item.lane], when(item.start, item.stop)
    some = [lanes.events[i] for i in item.events]
    if not some:
        return f"{who} · compute or other Python · {times}"
    if len(some) > 1:
        names = ", ".join(f"{n} {name}" for name, n in Counter(e.operation for e in some).items())
        return f"{who} · {len(some)} in flight: {names} · {sum(e.nbytes for e in some):,} bytes · {times}"
    e, zero = some[0], lanes.zero[lanes.places[item.lane][0]]
    waited = sum(b - a for a, b in e.waits)
    flies = item.sort == "flight" and item.events[0] in lanes.cut
    parts = [who, f"its thread waits {times} for" if item.kind == "wait" else ""]
    parts += [_call(e) + " (asynchronous)" * e.async_op, ", ".join(f"{k} {v}" for k, v in e.labels)]
    parts += [] if e.is_span else [f"{e.group} (ranks {ranks_text(e.ranks)})", f"{e.nbytes:,} bytes"]
    parts += [e.shape, e.detail, when(e.start_s - zero, e.end_s - zero)]
    parts += ["" if e.complete else "never complete", f"in flight {times}" if flies else ""]
    if not e.is_span:
        parts.append(f"its thread waited {seconds_text(waited)}" if waited else "no wait")
        parts.append(f"{item.others} more in flight" if item.others else "")
    return " · ".join(filter(None, [*parts, f"{e.line}: {e.source}" if e.line else ""]))


def time_text(seconds: float, of: float, step: float) -> str:
    """A time in the unit that suits `of` seconds, to the decimal that tells two times a step apart."""
    factor, unit = (1, "s") if of >= 2 else (1e3, "ms") if of >= 2e-3 else (1e6, "µs")
    decimals = max(0, ceil(-log10(step * factor) - 1e-9))
    return f"{seconds * factor:.{decimals}f} {unit}" if seconds else "0"


def _words(lanes: Lanes) -> tuple[str, tuple[str, ...], str]:
    """Title, notes, and all in words."""
    of = {name: f"{name}: " if name else "" for name in lanes.traces}
    notes = [of[name] + note for name, trace in lanes.traces.items() for note in trace.notes()]
    alt = [f"{name}: {str(trace).splitlines()[0]}" if name else str(trace) for name, trace in lanes.traces.items()]
    title = f"Timeline of {count(lanes.all, 'rank')} · {seconds_text(lanes.length)} from the first event to the last"
    if len(of) > 1:
        title = f"Timelines of {len(of)} runs, on one scale"
    if lanes.all > len(lanes.tops):
        notes.append(f"Ranks 0 to {len(lanes.tops) - 1} of {lanes.all} are drawn.")
    waits = (lanes.stop - lanes.start) * (lanes.code == lanes.codes.get(("thread", "wait")))
    for lane, waited in enumerate(np.bincount(lanes.lane, waits)[:16].tolist()):
        worked = lanes.ends[lanes.places[lane][0]] - waited
        alt.append(f"{lanes.who[lane]}: worked {worked:.4f} s, waited {waited:.4f} s")
    return title, tuple(notes), "\n".join(alt)
