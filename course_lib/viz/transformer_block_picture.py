"""The picture of a block over ranks: matrices with their slices, the activations between, and a band wherever ranks send."""

from course_lib.layout import Partial, Placement, Replicate, Shard, split_bounds
from course_lib.viz.picture import MARGIN, WIDTH, standalone_style
from course_lib.viz.svg import document, element, rect, text
from course_lib.viz.transformer_block_model import BlockSplit, Row, Weight

STRIP = 11  # px of a slice, so that its rank's number can be read
HEIGHTS = {"norm": 40, "sum": 40, "inner": 40, "band": 46}
WHAT, WORDS, AFTER = MARGIN + 12, MARGIN + 260, 540  # left edges of the columns
CALLS = {"all_reduce": "all-reduce", "all_gather": "all-gather", "reduce_scatter": "reduce-scatter"}


def draw(split: BlockSplit, standalone: bool = True) -> str:
    """The block from x at the top to y at the bottom, as an SVG with a text alternative."""
    parts, y = [], 74
    inside = False
    for row in split.rows:
        height = _height(row)
        if row.kind == "band":
            parts.append(_band(split, row, y))
            inside = row.text == "into the cut part"
        else:
            parts.append(_row(split, row, y, height, inside))
        y += height
    head = [
        text(MARGIN, 26, title(split), class_="title"),
        text(MARGIN, 48, total(split), class_="note"),
        text(WHAT, 68, "what each rank computes with", class_="axis"),
        text(AFTER, 68, "what comes out of it", class_="axis"),
    ]
    style = standalone_style("picture.css", "transformer_block.css") if standalone else ""
    return document(WIDTH, y + 12, title(split), words(split), style, *head, *parts)


def title(split: BlockSplit) -> str:
    """What is shown."""
    ranks = "1 rank" if split.t == 1 else f"{split.t} ranks"
    return f"A transformer block on {ranks}" + (", with sequence parallel" if split.sequence_parallel else "")


def total(split: BlockSplit) -> str:
    """What it comes to, for each rank."""
    return (
        f"each rank holds {split.parameters:,} parameters, and sends {split.total_sent_bytes:,} bytes a step "
        f"for b = {split.b}, s = {split.s}, h = {split.h}"
    )


def words(split: BlockSplit) -> str:
    """The picture in words, from top to bottom."""
    lines = []
    for row in split.rows:
        if row.kind == "band":
            lines.append(
                f"{row.title}: {_direction(split, 'forward', row.forward)}; {_direction(split, 'backward', row.backward)}"
            )
            continue
        held = " ".join(f"{w.name} {split.local_shape(w.shape, w.placement)}" for w in row.weights)
        lines.append(f"{row.title}{': ' + held if held else ''} → {_after(split, row)}")
    return f"{total(split)}. " + "; ".join(lines)


def _height(row: Row) -> int:
    if row.kind != "weights":
        return HEIGHTS[row.kind]
    return 8 * STRIP + 26 if row.weights[0].placement == Shard(0) else 78


def _row(split: BlockSplit, row: Row, y: float, height: float, inside: bool) -> str:
    region = "inside" if inside else "outside"
    parts = [rect(MARGIN, y, WIDTH - 2 * MARGIN, height, class_=region)]
    x = WHAT
    if row.weights:
        for weight in row.weights:
            width, drawn = _matrix(split, weight, x, y + 18)
            parts.append(drawn)
            x += width + 26
        middle = y + height / 2
        parts += [
            text(WORDS, middle - 2, f"{row.title}: {split.local_shape(row.weights[0].shape, row.weights[0].placement)} each", class_="caption"),
            *(text(WORDS, middle + 14 + 14 * i, line, class_="axis") for i, line in enumerate(_lines(row.text))),
        ]  # fmt: skip
    else:
        parts += [
            text(x, y + 24, row.title, class_="caption"),
            text(x + 76, y + 24, row.text, class_="axis"),
        ]
    parts += _activation(split, row, AFTER, y + height / 2)
    return element("g", *parts)


def _lines(words: str) -> list[str]:
    return words.split("; ")


def _matrix(split: BlockSplit, weight: Weight, x: float, y: float) -> tuple[float, str]:
    """(its width, the drawing): outputs downwards, inputs to the right, and a strip for each rank with its number."""
    by_rows = weight.placement == Shard(0)
    across, along = (52 if weight.shape[0] == weight.shape[1] else 26), 8 * STRIP
    bounds = split_bounds(along, split.t)
    parts = []
    for rank in range(split.t):
        start, stop = bounds[rank], bounds[rank + 1]
        left, top = (x, y + start) if by_rows else (x + start, y)
        width, height = (across, stop - start) if by_rows else (stop - start, across)
        number = text(left + width / 2, top + height / 2 + 3.5, str(rank), class_="slice mid")
        parts.append(
            element("g", rect(left, top, width, height), number, class_=f"held r{rank}", data_rank=rank)
        )
    name = text(x, y - 5, weight.name, class_="rank")
    return (across if by_rows else along), element("g", name, *parts)


def _band(split: BlockSplit, row: Row, y: float) -> str:
    """A line across the picture where the ranks talk: in which direction, and how much."""
    middle = y + HEIGHTS["band"] / 2
    parts = [
        rect(MARGIN, y + 4, WIDTH - 2 * MARGIN, HEIGHTS["band"] - 8, class_="band"),
        text(WHAT, middle + 5, row.title, class_="operator"),
        text(WHAT + 24, middle + 4, row.text, class_="axis"),
    ]
    for at, arrow, direction, operation in (
        (WHAT + 130, "↓", "forward", row.forward),
        (WHAT + 440, "↑", "backward", row.backward),
    ):
        style = "caption" if operation and split.t > 1 else "axis"
        parts.append(text(at, middle + 4, f"{arrow} {_direction(split, direction, operation)}", class_=style))
    return element("g", *parts)


def _direction(split: BlockSplit, direction: str, operation: str) -> str:
    if not operation or split.t == 1:
        return f"{direction}: nothing to send"
    return f"{direction}: {CALLS[operation]}, {split.sent_bytes(operation):,} bytes"


def _activation(split: BlockSplit, row: Row, x: float, middle: float) -> list[str]:
    """A small tile, tokens downwards and features to the right, cut as the activation is; and its shape in words."""
    placement = _placement(split, row)
    return [
        *_tile(split, placement, x, middle - 13),
        text(x + 62, middle - 2, _shape(split, row), class_="rank"),
        text(x + 62, middle + 12, _placement_words(split, placement), class_="axis"),
    ]


def _placement(split: BlockSplit, row: Row) -> Placement:
    """What comes out of a row layer is a summand until g has added it up."""
    if split.t == 1:
        return Replicate()
    return Partial() if row.kind == "weights" and row.weights[0].placement == Shard(1) else row.placement


def _shape(split: BlockSplit, row: Row) -> str:
    placement = _placement(split, row)
    shape = split.local_shape(row.shape, placement) if isinstance(placement, Shard) else row.shape
    return f"({', '.join(map(str, shape))})"


def _placement_words(split: BlockSplit, placement: Placement) -> str:
    if split.t == 1:
        return "all of it"
    if isinstance(placement, Shard):
        return "cut by tokens" if placement.dim == 1 else "cut by features"
    return "a summand on each rank" if isinstance(placement, Partial) else "whole on every rank"


def _after(split: BlockSplit, row: Row) -> str:
    return f"{_shape(split, row)} {_placement_words(split, _placement(split, row))}"


def _tile(split: BlockSplit, placement: Placement, x: float, y: float) -> list[str]:
    width, height = 48, 26
    if not isinstance(placement, Shard):
        sheets = 1 if split.t == 1 else 3
        kind = "tile partial" if isinstance(placement, Partial) else "tile"
        parts = [
            rect(x + 3 * i, y - 3 * i + 3, width - 6, height - 4, class_=kind)
            for i in reversed(range(sheets))
        ]
        if kind != "tile":
            parts.append(text(x + (width - 6) / 2, y + 20, "Σ", class_="slice mid"))
        return parts
    parts = []
    for rank in range(split.t):
        if placement.dim == 1:
            bounds = [height * r / split.t for r in (rank, rank + 1)]
            box = rect(x, y + bounds[0], width, bounds[1] - bounds[0])
        else:
            bounds = [width * r / split.t for r in (rank, rank + 1)]
            box = rect(x + bounds[0], y, bounds[1] - bounds[0], height)
        parts.append(element("g", box, class_=f"held r{rank}", data_rank=rank))
    return parts
