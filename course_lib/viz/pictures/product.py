"""The product picture: a · b = out with its factors on several ranks, which rank multiplies what, and what comes out.

`a` stands left of the result and `b` above it, so that a cut through a's rows or b's columns runs on through the result.
"""

from itertools import product as pairs
from typing import Any, NamedTuple

from course_lib import layout
from course_lib.layout import Partial, Placement, Region, Replicate, Shard
from course_lib.viz.controls import Choice
from course_lib.viz.scene import Mark, Panel, Scene, line, rect, text, text_width
from course_lib.viz.widget import Picture, picture

CELL, SHEET, X, Y, GAP = 24, 6, 12, 20, 34  # a value; by how much a partial sum shows behind another; margins
MAX_SIDE, MAX_RANKS = 14, 4
WHOLE, ROWS, COLUMNS, SUMS = Replicate(), Shard(0), Shard(1), Partial()
# Where the factors lie -> where the product does. A cut along the dim that is summed over makes partial sums.
CUTS = {(WHOLE, WHOLE): WHOLE, (ROWS, WHOLE): ROWS, (WHOLE, COLUMNS): COLUMNS, (COLUMNS, ROWS): SUMS}
LIES = {WHOLE: "whole on every rank", SUMS: "partial: the ranks' sums add up to it"}
LIES |= {ROWS: "sharded on dim 0", COLUMNS: "sharded on dim 1"}
NEEDS = {WHOLE: "nothing", SUMS: "all-reduce", ROWS: "all-gather on dim 0", COLUMNS: "all-gather on dim 1"}
HINT = "Point at a part, or walk there with Tab and the arrow keys, to see what is made of what."


class Matrix(NamedTuple):
    """One of the three: its name and shape, where it lies on the ranks, and where it stands in the picture."""

    name: str
    shape: tuple[int, int]
    at: Placement
    ranks: int
    x: int
    y: int

    def __str__(self) -> str:
        return "{} ({}×{})".format(self.name, *self.shape)

    def part(self, rank: int) -> Region:
        return layout.region(self.shape, self.at if isinstance(self.at, Shard) else WHOLE, self.ranks, rank)

    def size(self, rank: int) -> str:
        return "({}×{})".format(*(stop - start for start, stop in self.part(rank)))

    def written(self, rank: int) -> str:
        if self.at == SUMS:
            return f"its summand of {self.name}"
        return self.name + layout.slice_text(self.part(rank), self.shape) * isinstance(self.at, Shard)

    def block(self, part: Region, kind: str, label: str = "", off: int = 0, **more: Any) -> list[Mark | None]:
        (top, low), (left, right) = part
        x, y = self.x + CELL * left + off, self.y + CELL * top + off
        w, h = CELL * (right - left), CELL * (low - top)
        rules = [line(x, y + CELL * i, x + w, y + CELL * i, "gap") for i in range(1, low - top)]
        rules += [line(x + CELL * j, y, x + CELL * j, y + h, "gap") for j in range(1, right - left)]
        label = label if text_width(label, "strong") <= w - 4 else label.replace("rank ", "")
        words = text(x + w / 2, y + h / 2 + 4, label, "strong mid", w - 4, of=more["of"])
        both = [rect(x, y, w, h, "blank"), rect(x, y, w, h, kind, focus=self.name, **more)]
        return [*both, *rules, words if label else None] if w and h else []


def product(
    a: Any,
    b: Any,
    a_placement: Placement | None = None,
    b_placement: Placement | None = None,
    world_size: int = 2,
    names: tuple[str, str, str] = ("x", "w", "out"),
) -> Picture:
    """Draw a · b with its factors on `world_size` ranks; the reader changes the cut and the world size.

    a, b: matrices or their shapes, up to 14 values a side. Placements default to Replicate(). Raises ValueError for shapes
    that do not fit, for more than 4 ranks, and for placements that leave a rank with factors that it cannot multiply.
    """
    layout.check_world_size(world_size)
    a, b = (tuple(getattr(factor, "shape", factor)) for factor in (a, b))
    first, second, _ = names
    if len(a) != 2 or len(b) != 2 or a[1] != b[0]:
        rule = "the last dim of the first must be the first dim of the second"
        raise ValueError(f"{first} {a} and {second} {b} cannot be multiplied: {rule}.")
    if max(*a, *b) > MAX_SIDE or world_size > MAX_RANKS:
        most = f"{MAX_SIDE} values a side on up to {MAX_RANKS} ranks"
        raise ValueError(f"product() draws up to {most}: take a smaller example.")
    cut = a_placement or WHOLE, b_placement or WHOLE
    if cut not in CUTS:
        held = [Matrix(name, f, at, world_size, 0, 0).size(0) for name, f, at in zip(names, (a, b), cut)]
        why = f"rank 0 would hold {held[0]} and {held[1]}, which gives no part of the product"
        rule = "cut one of them on a dim that stays, or both on the dim that is summed over"
        raise ValueError(f"{first} ({cut[0]}) and {second} ({cut[1]}): {why}; {rule}.")
    words = "nothing", f"rows of {first}", f"columns of {second}", f"columns of {first}, rows of {second}"
    cuts, sizes = dict(zip(words, CUTS)), sorted({1, 2, 4, world_size})
    controls = [Choice("cut", words, look="buttons"), Choice("world_size", sizes, look="buttons", still=(1, 2))]
    choices = {"cut": words[list(CUTS).index(cut)], "world_size": world_size}

    def build(cut: str, world_size: int) -> Scene:
        x, y = X + CELL * a[1] + GAP, Y + CELL * a[1] + GAP  # the result's corner
        places = cuts[cut] if world_size > 1 else (WHOLE, WHOLE)
        shapes, corners = (a, b, (a[0], b[1])), ((X, y), (x, Y), (x, y))
        three = zip(names, shapes, (*places, CUTS[places]), corners)
        return drawn(*(Matrix(name, shape, at, world_size, *corner) for name, shape, at, corner in three))

    return picture(build, controls, choices, name="product", frames=True)


def drawn(a: Matrix, b: Matrix, out: Matrix) -> Scene:
    """The three matrices, and what is said of them, as a scene."""
    ranks, marks = range(a.ranks), [text(one.x, one.y - 8, str(one), "strong") for one in (a, b, out)]
    end, low = out.x + CELL * out.shape[1] + 10, out.y + CELL * out.shape[0] + 10
    sizes = [f"{a.size(rank)} · {b.size(rank)} = {out.size(rank)}" for rank in ranks]
    said = [*(f"{one.name}: {LIES[one.at]}" for one in (a, b)), f"rank 0 multiplies {sizes[0]}"]
    said += [f"{out.name}: {LIES[out.at]}", f"all of {out.name} on every rank takes: {NEEDS[out.at]}"]
    if a.ranks == 1:
        said = [f"each value of {out.name} is a row of {a.name} times a column of {b.name}:"]
        said, marks = [*said, f"a sum of {a.shape[1]} products"], marks + _values(a, b, out)
    for one, rank in ((one, rank) for one in (a, b, out) for rank in reversed(ranks) if a.ranks > 1):
        part, kind, label, of = one.part(rank), f"rank-{rank} held", f"rank {rank}", (f"r{rank}",)
        tip = f"rank {rank} · {a.written(rank)} · {b.written(rank)} = {out.written(rank)}: {sizes[rank]}"
        if one.at == WHOLE:
            kind, label, of, tip = "all", "every rank", tuple(f"r{r}" for r in ranks), f"{one}, {LIES[WHOLE]}"
        elif one.at == SUMS:
            label = "" if rank else " + ".join(f"rank {r}" for r in ranks)
        if one.at != WHOLE or rank == 0:
            marks += one.block(part, kind, label, SHEET * rank * (one.at == SUMS), of=of, tip=tip)
    for one, rank in ((one, rank) for one in (a, b) for rank in ranks[1:]):  # cuts run on through the result
        (top, _), (left, _) = one.part(rank)
        if one.at == ROWS and top < one.shape[0]:
            marks.append(line(one.x - 10, one.y + CELL * top, end, one.y + CELL * top, "line dashed"))
        if one.at == COLUMNS and left < one.shape[1]:
            marks.append(line(one.x + CELL * left, one.y - 4, one.x + CELL * left, low, "line dashed"))
    words = [text(0, 14 + 24 * i, words, "strong" * (i > 2)) for i, words in enumerate(said)]
    beside = Panel(max(text_width(one.text, one.kind) for one in words), 24 * len(said), words)
    title = f"{a} · {b} = {out} on {'one process' if a.ranks == 1 else f'{a.ranks} ranks'}"
    off = {"cut": "One process holds all of it: there is nothing to cut."} if a.ranks == 1 else None
    alt = "\n  ".join([title, *said])
    return Scene(title, (Panel(end + 12, low + 12, marks), beside), (), HINT, alt, off=off)


def _values(a: Matrix, b: Matrix, out: Matrix) -> list[Mark | None]:
    """In one process: each value of out lights up the row of a and the column of b that make it; one is shown."""
    (m, k), n, marks = a.shape, b.shape[1], []
    parts = [(a, (i, i + 1), (0, k), f"a{i}", (), f"row {i} of {a.name}") for i in range(m)]
    parts += [(b, (0, k), (j, j + 1), f"b{j}", (), f"column {j} of {b.name}") for j in range(n)]
    for i, j in pairs(range(m), range(n)):
        made = f"row {i} of {a.name} times column {j} of {b.name}: a sum of {k} products"
        made = f"{out.name}[{i}, {j}] · {made}"
        parts.append((out, (i, i + 1), (j, j + 1), "out", (f"a{i}", f"b{j}"), made))
    for one, rows, columns, of, lights, tip in parts:
        shown = (one is b or m // 2 in range(*rows)) and (one is a or n // 2 in range(*columns))
        kind = "rank-0 held" if shown else "all thin"
        marks += one.block((rows, columns), kind, of=(of,), lights=lights, tip=tip)
    return marks
