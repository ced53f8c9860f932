"""The picture of a matrix product whose factors lie on several ranks: which rank multiplies what, and what comes out.

`a` stands left of the result and `b` above it, so that a cut through a's rows or b's columns runs on through the result.
"""

import re
from dataclasses import dataclass
from html import escape
from typing import Any
from urllib.parse import quote

import anywidget
import traitlets

from course_lib.layout import Partial, Placement, Replicate, Shard, check_world_size, region, shard_shape
from course_lib.viz.ownership import shape_text
from course_lib.viz.shards import STATIC, WIDTH, _standalone_style
from course_lib.viz.svg import document, element, number, rect, text
from course_lib.viz.widgets import IN_URL

CELL, GAP, CARD = (
    24.0,
    34.0,
    6.0,
)  # a value; between the matrices; how far one rank's partial sum shows behind another
MAX_SIDE, MAX_RANKS, LINE = 14, 4, 26.0
STYLE = (
    ".shards .grid { fill: none; stroke: var(--shards-card); stroke-width: 1.5 }"
    ".shards .one { fill-opacity: var(--shards-tint); stroke-width: 1.5 }"
    ".shards .cut { fill: none; stroke: var(--shards-fg); stroke-width: 1.5; stroke-dasharray: 5 4 }"
    ".shards .block text { font-weight: 600; stroke: none }"
    ".shards .block .owned { fill-opacity: var(--shards-tint) }"
    ".shards .all .owned { fill-opacity: 0.14 }"
    ".shards .block .paper { fill: var(--shards-card); fill-opacity: 1; stroke: none }"
)


@dataclass(frozen=True)
class Product:
    """a · b = out on `world_size` ranks: shapes (m, k) and (k, n), where each factor lies, and the three names.

    `out` says where the result lies after each rank has multiplied what it holds, and `needs` what it takes to have it
    whole on every rank. Raises ValueError for shapes that do not fit and for placements that leave a rank with factors
    that it cannot multiply.
    """

    a: tuple[int, int]
    b: tuple[int, int]
    a_placement: Placement = Replicate()
    b_placement: Placement = Replicate()
    world_size: int = 2
    names: tuple[str, str, str] = ("x", "w", "out")

    def __post_init__(self) -> None:
        check_world_size(self.world_size)
        if len(self.a) != 2 or len(self.b) != 2 or self.a[1] != self.b[0]:
            raise ValueError(
                f"{self.names[0]} {self.a} and {self.names[1]} {self.b} cannot be multiplied: the last dim of the first "
                "must be the first dim of the second."
            )
        if max(*self.a, *self.b) > MAX_SIDE or self.world_size > MAX_RANKS:
            raise ValueError(
                f"product() draws up to {MAX_SIDE} values a side on up to {MAX_RANKS} ranks: take a smaller example."
            )
        _ = self.out

    @property
    def shape(self) -> tuple[int, int]:
        return self.a[0], self.b[1]

    @property
    def out(self) -> Placement:
        """Cut along the dim that is summed over: partial sums. Along a dim that stays: cut there. Else replicated."""
        cuts = {
            (Replicate(), Replicate()): Replicate(),
            (Shard(0), Replicate()): Shard(0),
            (Replicate(), Shard(1)): Shard(1),
            (Shard(1), Shard(0)): Partial(),
        }
        if (self.a_placement, self.b_placement) not in cuts:
            a, b = self._multiplied_by_rank_0()
            raise ValueError(
                f"{self.names[0]} ({self.a_placement}) and {self.names[1]} ({self.b_placement}): rank 0 would hold {a} and "
                f"{b}, which gives no part of the product; cut one of them on a dim that stays, or both on the dim that is "
                "summed over."
            )
        return cuts[self.a_placement, self.b_placement]

    @property
    def needs(self) -> str:
        """The collective that gives every rank the whole result."""
        out = self.out
        if isinstance(out, Shard):
            return f"all-gather on dim {out.dim}"
        return "all-reduce" if isinstance(out, Partial) else "nothing"

    def lines(self) -> list[str]:
        """What the picture says in words."""
        first, second, out = self.names
        if self.world_size == 1:
            return [
                f"each value of {out} is a row of {first} times a column of {second}:",
                f"a sum of {self.a[1]} products",
            ]
        a, b = self._multiplied_by_rank_0()
        whole = self.out if isinstance(self.out, Shard) else Replicate()
        result = _size(shard_shape(self.shape, whole, self.world_size, 0))
        return [
            f"{first}: {_words(self.a_placement)}",
            f"{second}: {_words(self.b_placement)}",
            f"rank 0 multiplies {a} · {b} = {result}",
            f"{out}: {_words(self.out)}",
            f"all of {out} on every rank takes: {self.needs}",
        ]

    def _multiplied_by_rank_0(self) -> list[str]:
        factors = (self.a, self.a_placement), (self.b, self.b_placement)
        return [_size(shard_shape(shape, placement, self.world_size, 0)) for shape, placement in factors]

    def __str__(self) -> str:
        return "\n".join([_title(self), *(f"  {line}" for line in self.lines())])


def product(
    a: Any,
    b: Any,
    a_placement: Placement | None = None,
    b_placement: Placement | None = None,
    world_size: int = 2,
    names: tuple[str, str, str] = ("x", "w", "out"),
) -> "ProductPicture":
    """Draw a · b with its factors on `world_size` ranks; a, b: matrices or their shapes. Placements default to Replicate()."""
    shapes = [tuple(getattr(factor, "shape", factor)) for factor in (a, b)]
    return ProductPicture(
        Product(*shapes, a_placement or Replicate(), b_placement or Replicate(), world_size, tuple(names))
    )


def draw(value: Product, standalone: bool = True) -> str:
    """The picture as SVG, the same for the same value; standalone: with its own light background and colours."""
    (m, k), n = value.a, value.b[1]
    ax, bx = 46.0, 46.0 + CELL * k + GAP
    by, ay = 66.0, 66.0 + CELL * k + GAP
    spread = CARD * (value.world_size - 1) if isinstance(value.out, Partial) else 0.0
    bottom, right = ay + CELL * m + spread + 22, bx + CELL * n + spread + 46
    below = right > WIDTH - 340  # no room for the words beside the matrices
    words_at = (ax, bottom + 8) if below else (right, by + 10)
    height = max(bottom, words_at[1] + LINE * len(value.lines()) - 8)
    corners = {"a": (ax, ay), "b": (bx, by), "out": (bx, ay)}
    parts = [
        _matrix(value.a, value.a_placement, value.world_size, corners["a"], value.names[0]),
        _matrix(value.b, value.b_placement, value.world_size, corners["b"], value.names[1]),
        _matrix(value.shape, value.out, value.world_size, corners["out"], value.names[2]),
        _cuts(value, corners) if value.world_size > 1 else _one_value(value, corners),
    ]
    for i, line in enumerate(value.lines()):
        parts.append(text(words_at[0], words_at[1] + LINE * i, line, class_="caption" if i > 2 else None))
    heading = text(20, 32, _title(value), class_="title")
    background = rect(0.5, 0.5, WIDTH - 1, height - 1, rx=8, class_="card")
    style = _standalone_style() + _light(STYLE) if standalone else STYLE
    return document(WIDTH, height, _title(value), str(value), style, background, heading, *parts)


class ProductPicture(anywidget.AnyWidget):
    """The picture of a Product in the page's own colours. `svg()` is the same as a standalone SVG."""

    _esm = """export default { render({ model, el }) {
      el.classList.add("shards-widget");
      el.innerHTML = model.get("picture");
    } };"""
    _css = "\n".join((STATIC / name).read_text(encoding="utf-8") for name in ("picture.css", "widget.css"))
    picture = traitlets.Unicode().tag(sync=True)

    def __init__(self, value: Product) -> None:
        self.value = value
        super().__init__(picture=draw(value, standalone=False))

    def svg(self) -> str:
        """The picture as a standalone SVG."""
        return draw(self.value)

    def __repr__(self) -> str:
        return str(self.value)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        image = quote(re.sub(r'="([^"\']*)"', r"='\1'", self.svg()), safe=IN_URL)
        alt = escape(repr(self).replace("\n", "; "), quote=True)
        data["text/html"] = f'<img alt="{alt}" style="max-width: 100%" src="data:image/svg+xml,{image}">'
        return data, metadata


def _size(shape: tuple[int, ...]) -> str:
    return f"({shape_text(shape).replace(' ', '')})"


def _title(value: Product) -> str:
    named = zip(value.names, (value.a, value.b, value.shape), strict=True)
    first, second, third = (f"{name} {_size(shape)}" for name, shape in named)
    ranks = "one process" if value.world_size == 1 else f"{value.world_size} ranks"
    return f"{first} · {second} = {third} on {ranks}"


def _words(placement: Placement) -> str:
    """Where a matrix lies, in a few words."""
    if isinstance(placement, Shard):
        return f"sharded on dim {placement.dim}"
    return (
        "whole on every rank" if isinstance(placement, Replicate) else "partial: the ranks' sums add up to it"
    )


def _matrix(
    shape: tuple[int, int], placement: Placement, world_size: int, at: tuple[float, float], name: str
) -> str:
    """One matrix, with its name above it and, where it is cut, the rank that holds each part."""
    (rows, columns), (x, y) = shape, at
    label = text(x, y - 8, f"{name} {_size(shape)}", class_="rank")
    if isinstance(placement, Partial):
        places = [(x + CARD * rank, y + CARD * rank) for rank in range(world_size)]
        cards = [_block(f"r{rank}", (0, rows), (0, columns), place) for rank, place in enumerate(places)]
        names = " + ".join(f"rank {rank}" for rank in range(world_size))
        words = text(x + CELL * columns / 2, y + CELL * rows / 2 + 4, names, class_="mid caption")
        return label + "".join(reversed(cards)) + words
    if isinstance(placement, Replicate):
        words = "" if world_size == 1 else "every rank"
        return label + _block("all", (0, rows), (0, columns), at, words)
    blocks = []
    for rank in range(world_size):
        down, across = region(shape, placement, world_size, rank)
        if down[0] < down[1] and across[0] < across[1]:
            blocks.append(_block(f"r{rank}", down, across, at, f"rank {rank}"))
    return label + "".join(blocks)


def _block(
    owner: str, down: tuple[int, int], across: tuple[int, int], at: tuple[float, float], words: str = ""
) -> str:
    """Consecutive rows and columns that one owner holds, ruled into values."""
    x, y = at[0] + CELL * across[0], at[1] + CELL * down[0]
    width, height = CELL * (across[1] - across[0]), CELL * (down[1] - down[0])
    rules = [(x, y + CELL * i, f"h{number(width)}") for i in range(1, down[1] - down[0])]
    rules += [(x + CELL * j, y, f"v{number(height)}") for j in range(1, across[1] - across[0])]
    middle = x + width / 2, y + height / 2 + 4
    turn = f"rotate(-90 {number(middle[0])} {number(middle[1] - 4)})" if width < 54 < height else None
    return element(
        "g",
        rect(x, y, width, height, class_="paper"),
        rect(x, y, width, height, class_="owned"),
        element("path", d="".join(f"M{number(i)} {number(j)}{rule}" for i, j, rule in rules), class_="grid"),
        text(*middle, words, class_="mid", transform=turn) if words else "",
        class_=f"block {owner}",
    )


def _cuts(value: Product, corners: dict[str, tuple[float, float]]) -> str:
    """The cuts as dashed lines, from the factor that is cut on through the result."""
    (ax, ay), (bx, by) = corners["a"], corners["b"]
    (m, k), n = value.a, value.b[1]
    right, bottom = bx + CELL * n + 10, ay + CELL * m + 10
    lines = []
    for rank in range(1, value.world_size):
        row, inner = (CELL * region(value.a, Shard(dim), value.world_size, rank)[dim][0] for dim in (0, 1))
        column = CELL * region(value.b, Shard(1), value.world_size, rank)[1][0]
        if value.a_placement == Shard(0) and row < CELL * m:
            lines.append((ax - 10, ay + row, right, ay + row))
        if value.b_placement == Shard(1) and column < CELL * n:
            lines.append((bx + column, by - 4, bx + column, bottom))
        if value.a_placement == Shard(1) and inner < CELL * k:
            lines += [(ax + inner, ay - 4, ax + inner, bottom), (bx - 10, by + inner, right, by + inner)]
    paths = "".join(f"M{number(x1)} {number(y1)}L{number(x2)} {number(y2)}" for x1, y1, x2, y2 in lines)
    return element("path", d=paths, class_="cut") if paths else ""


def _one_value(value: Product, corners: dict[str, tuple[float, float]]) -> str:
    """A row of a, a column of b, and the value that they make."""
    row, column = value.a[0] // 2, value.b[1] // 2
    (ax, ay), (bx, by) = corners["a"], corners["b"]
    x, y = bx + CELL * column, ay + CELL * row
    boxes = (ax, y, CELL * value.a[1], CELL), (x, by, CELL, CELL * value.b[0]), (x, y, CELL, CELL)
    return "".join(rect(*box, class_="one r0") for box in boxes)


def _light(css: str) -> str:
    """The rules with the light colours written in."""
    page = (STATIC / "picture.css").read_text(encoding="utf-8")
    light = dict(re.findall(r"(--shards-\w+):\s*([^;]+);", page))
    return re.sub(r"var\((--shards-\w+)\)", lambda match: light[match[1]], css)
