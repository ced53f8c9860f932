"""The roofline: how fast an operation of a transformer layer can be on a device, and what limits it."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from math import ceil, floor, log10
from typing import Any

from course_lib.cost.hardware import GPUS, Roofline
from course_lib.cost.operations import LayerOperation, operations
from course_lib.cost.shapes import MODELS, Transformer
from course_lib.numbers import amount, three
from course_lib.viz.controls import Choice, Switch
from course_lib.viz.scene import Mark, Panel, Scene, dot, line, path, rect, text, text_width
from course_lib.viz.widget import Picture, picture

MINE, NOTHING = "this machine", "nothing"
HINT = "Click a mark, or go there with Tab and arrow keys and press Enter. Disc: memory limits it; square: arithmetic."
_LEFT, _TOP, _LINE = 44, 24, 15  # the corner of the plot; the height of a line of names


def roofline(
    device: str = "A100", operation: str = "MLP up", model: str | Transformer = "GPT-3 6.7B", tokens: int = 2048, *,
    beside: str | None = None, everything: bool = True,
    mine: Roofline | None = None, measured: Mapping[str, tuple[float, float]] | None = None,
) -> Picture:  # fmt: skip
    """Draw a device's roofline with an operation of a transformer layer on it; the reader changes all of that.

    device: one of GPUS, or "this machine" if `mine` is its roofline.  beside: one to compare with, or "nothing"; by default this
    machine if it was measured.  operation, model: names from `operations` and MODELS, or a Transformer of your own.
    tokens: batch × sequence, a power of two up to 65,536; in "generating" the number of sequences, which get one token each.
    everything: whether the layer's other operations are there, too. Peaks are those of 16-bit matrix products.
    measured: what ran on this machine, name -> (FLOPs a byte, FLOP/s reached), drawn hollow; without FLOPs it has no place here.
    Raises ValueError for a name or number that is not there; TypeError for a `mine` that is no Roofline. Source: Williams et al. 2009.
    """
    if (measured or mine is not None) and not isinstance(mine, Roofline):
        raise TypeError(f"mine is a Roofline, measured or made up, not a {type(mine).__name__}.")
    measured = {name: point for name, point in (measured or {}).items() if min(point) > 0}
    rooflines = {name: gpu.roofline for name, gpu in GPUS.items()} | ({MINE: mine} if mine else {})
    there = {m.name: operations(m) for m in (*MODELS.values(), model) if isinstance(m, Transformer)}
    named = {n: n if op.phase in n else f"{op.phase}: {n}" for n, op in there["GPT-2"].items()}
    controls = [
        Choice("device", tuple(rooflines)),
        Choice("beside", (NOTHING, *rooflines), "compared with"),
        Choice("model", tuple(there)),
        Choice("operation", named),
        Choice("tokens", {2**k: f"{2**k:,}" for k in range(17)}, "tokens (generating: sequences)", "slider"),
        Switch("everything", "all operations of the layer"),
    ]
    first = (device, beside or (MINE if mine and device != MINE else NOTHING), getattr(model, "name", model))
    chosen = dict(zip((c.name for c in controls), (*first, operation, tokens, everything)))
    return picture(partial(build, there, rooflines, measured), controls, chosen)


class Plot:
    """Logarithmic axes that hold all of these roofs, what was measured, and any operation of a layer; with room for names below."""

    def __init__(self, rooflines: Iterable, measured: Iterable, width: float) -> None:
        low = min([0.2, *(intensity / 1.6 for intensity, _ in measured)])
        rates = [*(r.attainable(low) for r in rooflines), *(rate for _, rate in measured)]
        self.xs = log10(low), log10(40_000)
        self.ys = floor(2 * log10(min(rates)) - 1) / 2, log10(max(r.flops_per_s for r in rooflines)) + 0.3
        self.right, self.bottom = width - 4, _TOP + max(270, 0.415 * width)

    def at(self, intensity: float, flops_per_s: float = 1.0) -> tuple[float, float]:
        """The place of an operation; one that lies outside is at the edge."""
        across = (log10(intensity) - self.xs[0]) / (self.xs[1] - self.xs[0])
        up = (log10(flops_per_s) - self.ys[0]) / (self.ys[1] - self.ys[0])
        x = _LEFT + (self.right - _LEFT) * min(1.0, max(0.0, across))
        return x, self.bottom - (self.bottom - _TOP) * up

    def corners(self, roof: Roofline) -> list[tuple[float, float]]:
        """Where the roof begins, its ridge, and where it ends."""
        return [self.at(i, roof.attainable(i)) for i in (10 ** self.xs[0], roof.ridge, 10 ** self.xs[1])]

    def axes(self) -> tuple[Mark, ...]:
        """The box and the ticks, without a roof."""
        right, bottom, kind = self.right, self.bottom, "small quiet mid"
        marks = [rect(_LEFT, _TOP, right - _LEFT, bottom - _TOP, "blank"), text(22, 12, "FLOP/s", kind)]
        for power in range(ceil(self.xs[0]), ceil(self.xs[1])):
            x, words = self.at(10.0**power)[0], f"{10**power:,}" if power >= 0 else f"{10.0**power:g}"
            marks += [line(x, _TOP, x, bottom, "grid"), text(x, bottom + 16, words, kind)]
        for power in range(ceil(self.ys[0]), ceil(self.ys[1])):
            y, words = self.at(1.0, 10.0**power)[1], f"{10 ** (power % 3)} {' kMGTPE'[power // 3]}"
            marks += [line(_LEFT, y, right, y, "grid"), text(_LEFT - 6, y + 4, words, "small quiet end")]
        return *marks, text((_LEFT + right) / 2, bottom + 34, "intensity: FLOPs for each byte moved", kind)


def build(there: Mapping, rooflines: Mapping, measured: Mapping, width: int = 760, **chosen: Any) -> Scene:
    """Roofs, operations and figures as a scene."""
    device, beside, tokens, width = chosen["device"], chosen["beside"], chosen["tokens"], min(width, 820)
    roof, plot = rooflines[device], Plot(rooflines.values(), measured.values(), width)
    layer, corners, right, bottom = there[chosen["model"]], plot.corners(roof), plot.right, plot.bottom
    (start, (ridge, top), end), op = corners, layer[chosen["operation"]]
    x = plot.at(op.intensity(tokens))[0]
    marks = [
        _way("by-memory region", start, (ridge, top), (ridge, bottom), (_LEFT, bottom)),
        _way("by-arithmetic region", (ridge, top), end, (right, bottom), (ridge, bottom)),
        line(ridge, top, ridge, bottom, "line dotted"),
        line(x, _roof_y(corners, x), x, bottom, "faint"),
        _way("roof", *corners),
    ]
    labels = [
        text(right - 6, top - 7, f"{device}: {amount(roof.flops_per_s, 'FLOP/s')}", "strong end halo"),
        text((_LEFT + ridge) / 2, (start[1] + top) / 2 - 9, amount(roof.bytes_per_s, "B/s"), "strong end"),
        text(ridge + 6, bottom - 24, f"ridge {three(roof.ridge)}", "strong halo"),
        text(ridge - 6, bottom - 8, "limited by memory", "small quiet end halo", ridge - _LEFT - 8),
        text(ridge + 6, bottom - 8, "limited by arithmetic", "small quiet halo", right - ridge - 8),
    ]
    other = None if beside == device else rooflines.get(beside)
    if other:
        high = plot.corners(other)[2][1]  # its name must not be on that of a roof as high
        y = min(high - 7, top - 22) if high < top else high + (17 if high - top < 17 else -7)
        says = f"{beside}: {amount(other.flops_per_s, 'FLOP/s')}{f', ridge {three(other.ridge)}' * (width > 480)}"
        tip, sets = f"{beside}: {other}. A click changes places.", (("device", beside), ("beside", device))
        marks.append(_way("faint dashed", *plot.corners(other)))
        labels.append(text(right - 6, y, says, "small quiet end halo", tip=tip, sets=sets))
    shown = [one for one in layer.values() if one is op or (chosen["everything"] and one.phase == op.phase)]
    shown.sort(key=lambda one: (one is not op, -one.intensity(tokens)))  # so that lines to names do not cross
    points = [(_point(one, tokens, roof, plot, one is op), corners) for one in shown]
    for name, (intensity, rate) in (measured if MINE in (device, beside) else {}).items():
        reached = f"{amount(rate, 'FLOP/s')}, {rate / rooflines[MINE].attainable(intensity):.0%} of its roof"
        more = {"tip": f"{name}, measured: {three(intensity)} FLOPs a byte, {reached}", "focus": "operations"}
        at = plot.at(intensity, rate)
        points.append((dot(*at, 4.5, "hollow", key=name, of=(name,), **more), plot.corners(rooflines[MINE])))
    tiles = _tiles(op.figures(roof, tokens), width, bottom + 48)
    said = op.sentences(roof, tokens) + ([f"Compared with {beside}: {other}."] if other else [])
    marks += [*_named(points, plot, labels, (x - 2, _roof_y(corners, x), x + 2, bottom)), *labels, *tiles]
    title, panel = f"{op.name} · {chosen['model']} · {device}", Panel(width, tiles[-1].y + 12, marks)
    return Scene(title, (panel,), (said[0], said[2]), HINT, "\n".join([title, *said]), ground=plot.axes())


def _way(kind: str, *points: tuple[float, float]) -> Mark:
    return path("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points), kind)


def _roof_y(corners: list[tuple[float, float]], x: float) -> float:
    (left, low), (ridge, top), _ = corners
    return top + (low - top) * max(0.0, (ridge - x) / max(1.0, ridge - left))


def _point(op: LayerOperation, tokens: int, roof: Roofline, plot: Plot, first: bool) -> Mark:
    """An operation on the roof: a disc where memory is the limit, a square where arithmetic is."""
    intensity, limit, size = op.intensity(tokens), op.limit(roof, tokens), 6.5 if first else 4.5
    (x, y), kind = plot.at(intensity, roof.attainable(intensity)), f"by-{limit} {('other', 'first')[first]}"
    best = amount(roof.attainable(intensity), "FLOP/s")
    tip = f"{op.name}: {three(intensity)} FLOPs a byte, limited by {limit}, at best {best}"
    more = {"tip": tip, "sets": (("operation", op.name),), "focus": "operations"}
    mark = dot(x, y, size, kind, key=op.name, of=(op.name,), **more)
    square = f"M{-0.9 * size} {-0.9 * size}h{1.8 * size}v{1.8 * size}h{-1.8 * size}z"
    return mark if limit == "memory" else mark._replace(shape="path", w=0.0, text=square)


def _named(points: list[tuple[Mark, list]], plot: Plot, labels: list[Mark], drop: tuple) -> list[Mark]:
    """The marks, each with its name where there is room: of the first one above the roof, of the others below."""
    taken, lines, names = [drop, *((m.x - 6, m.y - 6, m.x + 6, m.y + 6) for m, _ in points)], [], []
    for m in labels:
        left = m.x - (m.w or text_width(m.text, m.kind)) * ("end" in m.kind)
        taken.append((left, m.y - 11, left + (m.w or text_width(m.text, m.kind)), m.y + 4))
    for m, corners in points:
        first = m is points[0][0]
        kind = "strong halo" if first else "small quiet halo"
        for a, b, c, d in _places(m.x, m.y, text_width(m.key, kind), corners, plot, first):
            if not any(a < right and left < c and b < low and top < d for left, top, right, low in taken):
                taken.append((a, b, c, d))
                at, end, gap = (c, " end", 3) if a < m.x else (a, "", -3)
                names.append(text(at, d - 4, m.key, kind + end, tip=m.tip, sets=m.sets, key=m.key, of=m.of))
                lines.append(line(m.x, m.y, at + gap, d - 8, "faint thin", key=m.key, of=m.of))
                break
    return [*lines, *(m for m, _ in reversed(points)), *names]


def _places(x: float, y: float, wide: float, corners: list, plot: Plot, above: bool) -> Iterator[tuple]:
    """Boxes for a name inside the plot and clear of the roof, the nearest first."""
    for over in (above, not above):
        for left in (x - 10 - wide, x + 10) if over else (x + 10, x - 10 - wide):
            # the roof rises to the right: a box under it meets it on the left, one over it on the right
            roof = _roof_y(corners, left + wide if over else left)
            for low in (y - 6 - _LINE * row if over else y + 20 + _LINE * row for row in range(12)):
                clear = low < roof - 2 if over else low - _LINE > roof + 2
                if clear and left > _LEFT and left + wide < plot.right and _TOP + _LINE < low < plot.bottom:
                    yield left, low - _LINE, left + wide, low


def _tiles(said: Mapping[str, str], width: float, y: float) -> list[Mark]:
    columns = 6 if width >= 700 else 3 if width >= 420 else 2
    pitch, marks = (width + 8) / columns, []
    for k, (name, value) in enumerate(said.items()):
        x, top = k % columns * pitch + 9, y + k // columns * 54
        marks += [rect(x - 9, top, pitch - 8, 46, "box"), text(x, top + 16, name, "small quiet")]
        marks.append(text(x, top + 37, value, "big", pitch - 24))
    return marks
