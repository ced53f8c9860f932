"""The sharding picture: a tensor or a model, and the part of it that each rank holds.

Left and right of one tensor: its values, each with the rank that owns it, and one panel per rank. A model: a row per
tensor, a column per rank. Below: the bytes on all ranks against one copy.
"""

import re
from functools import cache
from pathlib import Path

from course_lib.layout import Region, contains, num_elements
from course_lib.viz.ownership import (
    Ownership,
    TensorInfo,
    bytes_text,
    held_text,
    owner_class,
    ranks_text,
    shape_text,
    short_text,
    total_text,
)
from course_lib.viz.svg import document, element, rect, text

STATIC = Path(__file__).parent / "static"
WIDTH, MARGIN = 800, 20
MAX_VALUE_ROWS, MAX_VALUE_COLUMNS = 16, 24  # a larger tensor is drawn as panels only
MAX_TENSORS = 40  # rows of a model's table; the rest is counted, not drawn
BAR_X, BAR_END = 100, 616


def draw(ownership: Ownership, slots: int | None = None, standalone: bool = True) -> str:
    """The picture as SVG, the same for the same value.

    slots: room for so many ranks (the widget leaves room for more than it shows); default: as many as there are.
    standalone: with its own light background and colours, readable on any page; else the page's style sheet colours it.
    """
    slots = slots or ownership.world_size
    heading, y = _heading(ownership)
    body, y = (_one_tensor if len(ownership.tensors) == 1 else _table)(ownership, slots, y + 14)
    memory, y = _memory(ownership, slots, y + 12)
    background = rect(0.5, 0.5, WIDTH - 1, y - 1, rx=8, class_="card")
    style = _standalone_style() if standalone else ""
    svg = document(WIDTH, y, ownership.title, str(ownership), style, background, heading, body, memory)
    for_script = r' data-\w+="[^"]*"| class="panel cell"'  # what only the widget reads
    return re.sub(for_script, "", svg) if standalone else svg


def axes(tensor: TensorInfo, row: tuple[Region | None, ...] = ()) -> tuple[int | None, int | None]:
    """The tensor dims that run down and across its picture; a vector runs across."""
    if len(tensor.shape) < 2:
        return None, 0 if tensor.shape else None
    split = [
        d
        for d in range(1, len(tensor.shape))
        if any(part and part[d] != (0, tensor.shape[d]) for part in row)
    ]
    return 0, split[0] if split else 1


def has_values(tensors: tuple[TensorInfo, ...]) -> bool:
    """Whether the picture shows single values: one small vector or matrix."""
    if len(tensors) > 1 or len(tensors[0].shape) not in (1, 2):
        return False
    rows, columns = _extent(tensors[0], axes(tensors[0]))
    return 0 < rows <= MAX_VALUE_ROWS and 0 < columns <= MAX_VALUE_COLUMNS


def _heading(ownership: Ownership) -> tuple[str, float]:
    lines = [
        text(MARGIN, 32 + MARGIN * i + 2 * (i > 0), note, class_="note")
        for i, note in enumerate(ownership.notes, 1)
    ]
    return text(MARGIN, 32, ownership.title, class_="title") + "".join(lines), 36 + MARGIN * len(
        ownership.notes
    )


def _one_tensor(ownership: Ownership, slots: int, y: float) -> tuple[str, float]:
    tensor, row = ownership.tensors[0], ownership.regions[0]
    values, right, bottom = _values(tensor, row, y) if has_values(ownership.tensors) else ("", 0, y)
    beside = 0 < right <= 340
    x, top, columns = (right + 44, y, 4) if beside else (MARGIN, bottom + (12 if values else 0), 8)
    pitch = (WIDTH - MARGIN - x) / columns
    rows, across = _extent(tensor, axes(tensor, row))
    scale = min(72 / max(across, 1), 46 / max(rows, 1))
    box = max(14.0, across * scale), max(10.0, rows * scale)
    height = box[1] + 58
    parts = [values, text(x, top + 14, "What each rank holds", class_="caption")]
    for rank in range(slots):
        at = rank // columns, rank % columns
        parts.append(_panel(ownership, rank, at, (x + pitch * at[1], top + 40 + height * at[0], *box)))
    return "".join(parts), max(bottom, top + 40 + height * -(-slots // columns) - 14)


def _values(tensor: TensorInfo, row: tuple[Region | None, ...], y: float) -> tuple[str, float, float]:
    """The values with their owners: (svg, right edge, bottom)."""
    rows, columns = _extent(tensor, axes(tensor))
    width = min(44.0, (WIDTH - 2 * MARGIN - 44) / columns)
    height = 30 if rows <= 8 else 22
    x0, y0 = MARGIN + 44, y + 58
    down, across = axes(tensor)
    parts = [
        text(MARGIN, y + 14, "The tensor, and the rank of each value", class_="caption"),
        text(x0, y0 - 22, f"dim {across} →", class_="axis"),
        text(MARGIN, y0 - 6, f"dim {down} ↓", class_="axis") if down is not None else "",
    ]
    parts += [text(x0 + width * (j + 0.5), y0 - 6, str(j), class_="index mid") for j in range(columns)]
    for i in range(rows):
        if down is not None:
            parts.append(text(x0 - 8, y0 + height * (i + 0.5) + 4, str(i), class_="index end"))
        for j in range(columns):
            index = (j,) if down is None else (i, j)
            ranks = tuple(r for r, part in enumerate(row) if part is not None and contains(part, index))
            x, top = x0 + width * j, y0 + height * i
            parts.append(
                element(
                    "g",
                    rect(x + 1.5, top + 1.5, width - 3, height - 3, rx=3),
                    text(x + width / 2, top + height / 2 + 4.5, ranks_text(ranks), class_="mid"),
                    class_=f"value cell {owner_class(ranks, len(row))}",
                    data_at=f"{i},{j}",
                )
            )
    return "".join(parts), x0 + width * columns, y0 + height * rows


def _panel(
    ownership: Ownership, rank: int, at: tuple[int, int], place: tuple[float, float, float, float]
) -> str:
    """One rank's part of one tensor: the tensor's outline, the part it holds, its range and its bytes."""
    x, y, width, height = place
    shown = rank < ownership.world_size
    lines = _panel_lines(ownership, 0, rank) if shown else ("", "")
    return element(
        "g",
        text(x, y, f"rank {rank}", class_="rank"),
        _boxes(ownership, 0, rank, (x, y + 8, width, height)),
        text(x, y + height + 22, lines[0], class_="range"),
        text(x, y + height + 36, lines[1], class_="amount"),
        class_="panel cell",
        data_t=0,
        data_r=rank,
        data_at=f"{at[0]},{at[1]}",
        display=None if shown else "none",
    )


def _panel_lines(ownership: Ownership, t: int, rank: int) -> tuple[str, str]:
    nbytes = ownership.nbytes[t][rank]
    return held_text(ownership.regions[t][rank], ownership.tensors[t], nbytes), bytes_text(nbytes)


def _boxes(ownership: Ownership, t: int, rank: int, box: tuple[float, float, float, float]) -> str:
    """The tensor's outline and, inside it, what the rank holds."""
    x, y, width, height = box
    part = ownership.regions[t][rank] if rank < ownership.world_size else None
    held = (x, y, 0.0, 0.0)
    outline = "box" if part is not None or rank >= ownership.world_size else "box wrong"
    if part is not None:
        tensor = ownership.tensors[t]
        down, across = axes(tensor, ownership.regions[t])
        top, bottom = _fraction(part, tensor, down)
        left, right = _fraction(part, tensor, across)
        some = bool(num_elements(part))
        held = (
            x + left * width,
            y + top * height,
            some * (right - left) * width,
            some * (bottom - top) * height,
        )
    return rect(*box, class_=outline) + rect(*held, class_=f"held r{rank}")


def _fraction(part: Region, tensor: TensorInfo, dim: int | None) -> tuple[float, float]:
    if dim is None or not tensor.shape[dim]:
        return 0.0, 1.0
    return part[dim][0] / tensor.shape[dim], part[dim][1] / tensor.shape[dim]


def _extent(tensor: TensorInfo, dims: tuple[int | None, int | None]) -> tuple[int, int]:
    rows, columns = (1 if dim is None else tensor.shape[dim] for dim in dims)
    return rows, columns


def _table(ownership: Ownership, slots: int, y: float) -> tuple[str, float]:
    x0 = 276
    pitch = (WIDTH - MARGIN - x0) / slots
    beneath = 6 * _longest_label(ownership) > pitch - 29  # labels too long to stand beside the smallest box
    box_width, row_height = (pitch - 12, 34) if beneath else (min(72.0, pitch - 46), 21)
    shown = (
        ownership.tensors if len(ownership.tensors) <= MAX_TENSORS else ownership.tensors[: MAX_TENSORS - 1]
    )
    parts = [text(MARGIN, y + 14, "tensor", class_="caption"), text(178, y + 14, "shape", class_="caption")]
    for rank in range(slots):
        hide = None if rank < ownership.world_size else "none"
        parts.append(
            text(x0 + pitch * rank, y + 14, f"rank {rank}", class_="rank", data_r=rank, display=hide)
        )
    y += 24
    for t, tensor in enumerate(shown):
        name = tensor.name if len(tensor.name) <= 25 else "…" + tensor.name[-24:]
        parts += [
            rect(MARGIN, y, WIDTH - 2 * MARGIN, 0.5, class_="rule"),
            text(MARGIN, y + 14.5, name, class_="name"),
        ]
        parts.append(text(178, y + 14.5, shape_text(tensor.shape).replace(" ", ""), class_="index"))
        for rank in range(slots):
            x, used = x0 + pitch * rank, rank < ownership.world_size
            label = short_text(ownership.regions[t][rank], tensor, ownership.nbytes[t][rank]) if used else ""
            parts.append(
                element(
                    "g",
                    _boxes(ownership, t, rank, (x, y + 4, box_width, 13)),
                    text(*((x, y + 29) if beneath else (x + box_width + 5, y + 14.5)), label, class_="range"),
                    class_="panel cell",
                    data_t=t,
                    data_r=rank,
                    data_at=f"{t},{rank}",
                    display=None if used else "none",
                )
            )
        y += row_height
    if len(shown) < len(ownership.tensors):
        parts.append(
            text(MARGIN, y + 16, f"… and {len(ownership.tensors) - len(shown)} more tensors", class_="index")
        )
        y += row_height
    parts += [
        rect(MARGIN, y, WIDTH - 2 * MARGIN, 1, class_="rule"),
        text(MARGIN, y + 18, "together", class_="caption"),
    ]
    for rank in range(slots):
        used = rank < ownership.world_size
        amount = bytes_text(ownership.rank_bytes(rank)) if used else ""
        parts.append(
            text(
                x0 + pitch * rank,
                y + 18,
                amount,
                class_="rank sum",
                data_r=rank,
                display=None if used else "none",
            )
        )
    return "".join(parts), y + 26


def _longest_label(ownership: Ownership) -> int:
    """Characters of the longest range that a row can show, for any world size."""
    digits = max(len(str(max(tensor.shape, default=0))) for tensor in ownership.tensors)
    rows = zip(ownership.tensors, ownership.regions, ownership.nbytes, strict=True)
    found = [
        len(short_text(part, tensor, nbytes))
        for tensor, parts, amounts in rows
        for part, nbytes in zip(parts, amounts, strict=True)
    ]
    return max(2 * digits + 1, *found)


def _memory(ownership: Ownership, slots: int, y: float) -> tuple[str, float]:
    one_copy = ownership.one_copy_bytes
    total = sum(map(sum, ownership.nbytes))
    scale = (BAR_END - BAR_X) / max(slots * one_copy, total, 1)
    parts = [
        text(MARGIN, y + 14, "Memory", class_="caption"),
        text(MARGIN, y + 38, "one copy", class_="axis"),
        rect(BAR_X, y + 26, one_copy * scale, 16, class_="box copy", data_scale=repr(scale)),
        text(BAR_X + one_copy * scale + 8, y + 38, bytes_text(one_copy), class_="amount"),
        text(MARGIN, y + 62, "all ranks", class_="axis"),
    ]
    x = float(BAR_X)
    for rank in range(slots):
        used = rank < ownership.world_size
        width = ownership.rank_bytes(rank) * scale if used else 0.0
        label = text(x + width / 2, y + 62, str(rank) if width >= 8 else "", class_="mid")
        parts.append(element("g", rect(x, y + 50, width, 16), label, class_=f"bar r{rank}", data_r=rank))
        x += width
    amount = total_text(ownership.tensors, ownership.nbytes).replace(" on all ranks", "")
    parts.append(text(x + 8, y + 62, amount, class_="amount total"))
    return "".join(parts), y + 86


@cache
def _standalone_style() -> str:
    """The picture's rules with the light colours written in: a viewer that knows no CSS variables shows them too."""
    css = (STATIC / "picture.css").read_text(encoding="utf-8")
    light = dict(re.findall(r"(--shards-\w+):\s*([^;]+);", css))
    rules = css[css.index("}") + 1 :]
    rules = re.sub(r"var\((--shards-\w+)\)", lambda match: light[match[1]], rules)
    return re.sub(r"\s+", " ", re.sub(r"/\*.*?\*/", "", rules, flags=re.DOTALL)).strip()
