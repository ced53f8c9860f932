"""The sharding picture: a tensor or a model, and the part of it that each rank holds.

One tensor: its values, each with the rank that owns it, and beside them what each rank holds. A model: a row a tensor, a column
a rank. Below: the bytes on all ranks against one copy.
"""

from functools import partial
from typing import Any

from course_lib.layout import (
    Placement,
    Region,
    Replicate,
    Shard,
    check_world_size,
    contains,
    normalize_dim,
    num_elements,
    slice_text,
)
from course_lib.layout import ownership as own
from course_lib.layout.locate import located
from course_lib.layout.ownership import MAX_WORLD_SIZE, Ownership, TensorInfo
from course_lib.numbers import bytes_text, count
from course_lib.viz.controls import Choice
from course_lib.viz.scene import Mark, Panel, Scene, rect, text, text_width
from course_lib.viz.widget import Picture, picture

MAX_VALUE_ROWS, MAX_VALUE_COLUMNS = 16, 16  # a larger tensor is drawn as what each rank holds only
MAX_TENSORS = 40  # rows of a model's table; the rest is counted, not drawn
HINT = "Point at a value or at what a rank holds, or walk there with Tab and the arrow keys, for its range, rank and bytes."


def sharding(
    what: Any, world_size: int = 2, placement: Placement | None = None, *, whole: Any = None, name: str = "tensor"
) -> Picture:
    """Draw which rank owns which part of a tensor or of a model; the reader changes world size and placement.

    what: a tensor, a shape, a model (its parameters), or a dict of name to tensor or shape. With `whole`, what a launch
    returned (one tensor a rank, or a dict of them): each rank's tensor is found inside `whole` by its values and drawn
    where it really is.
    placement: Shard(0) by default, Shard(1), Replicate(), or Partial().

    Raises ValueError for a world size outside 1 to 8 or a dim that the tensor lacks, TypeError for what is no tensor.
    """
    if whole is not None:
        return picture(partial(build, located(what, whole, name)), name="sharding", frames=True)
    if hasattr(what, "results") and not hasattr(what, "shape"):
        raise TypeError("a run is drawn inside the tensor that its ranks share: sharding(run, whole=w).")
    tensors = tuple(own.describe(label, tensor) for label, tensor in own.named_tensors(what, name))
    if not tensors:
        raise ValueError(f"{type(what).__name__} has no parameters to draw: pass one that has some.")
    check_world_size(world_size)
    if world_size > MAX_WORLD_SIZE:
        raise ValueError(f"at most {MAX_WORLD_SIZE} ranks side by side, not {world_size}: pick fewer.")
    most_dims = max((tensor.shape for tensor in tensors), key=len)
    placement = _checked(placement, most_dims)
    shards = (Shard(dim) for dim in range(min(2, len(most_dims))))
    placements = {str(p): p for p in (Replicate(), *shards, placement)}
    title = own.title_of(type(what).__name__ if hasattr(what, "named_parameters") else None, tensors)

    def plan(world_size: int, placement: str) -> Scene:
        return build(own.planned(title, tensors, placements[placement], world_size))

    sizes = Choice("world_size", range(1, MAX_WORLD_SIZE + 1), look="buttons", still=(1, 2, 3, 4))
    where = Choice("placement", tuple(placements), look="buttons")
    chosen = {"world_size": world_size, "placement": str(placement)}
    return picture(plan, [sizes, where], chosen, name="sharding", frames=len(tensors) <= 10)


def build(ownership: Ownership) -> Scene:
    """Who holds what, as a scene."""
    tensors = ownership.tensors
    if len(tensors) > 1:
        panels = [_table(ownership)]
    elif has_values(tensors[0]):
        panels = [_values(tensors[0], ownership), _ranks(ownership, 354)]
    else:
        panels = [_ranks(ownership, 640)]
    memory = _memory(ownership, panels[-1].w)
    return Scene(ownership.title, (*panels, memory), ownership.notes, HINT, str(ownership))


def has_values(tensor: TensorInfo) -> bool:
    """Whether the picture shows single values: one small vector or matrix."""
    rows, columns = _extent(tensor, _axes(tensor))
    return len(tensor.shape) in (1, 2) and 0 < rows <= MAX_VALUE_ROWS and 0 < columns <= MAX_VALUE_COLUMNS


def _checked(placement: Placement | None, shape: tuple[int, ...]) -> Placement:
    if placement is None:
        return Shard(0) if shape else Replicate()
    if not isinstance(placement, Placement):
        raise TypeError(f"placement is Replicate(), Shard(0) or Shard(1), not {placement!r}.")
    if not isinstance(placement, Shard):
        return placement
    dim = normalize_dim(placement.dim, shape)
    if dim > 1:
        raise ValueError(f"sharding() draws dims 0 and 1; Shard({placement.dim}) of shape {shape} splits dim {dim}.")
    return Shard(dim)


def _axes(tensor: TensorInfo, row: tuple[Region | None, ...] = ()) -> tuple[int | None, int | None]:
    """The tensor dims that run down and across its picture; a vector runs across."""
    if len(tensor.shape) < 2:
        return None, 0 if tensor.shape else None
    dims = range(1, len(tensor.shape))
    split = [d for d in dims if any(part and part[d] != (0, tensor.shape[d]) for part in row)]
    return 0, split[0] if split else 1


def _extent(tensor: TensorInfo, dims: tuple[int | None, int | None]) -> tuple[int, int]:
    rows, columns = (1 if dim is None else tensor.shape[dim] for dim in dims)
    return rows, columns


def _values(tensor: TensorInfo, ownership: Ownership) -> Panel:
    """The values with their owners."""
    down, across = _axes(tensor)
    rows, columns = _extent(tensor, (down, across))
    wide, high = (44 if columns <= 6 else 32 if columns <= 9 else 24), (30 if rows <= 8 else 22)
    x0, y0 = (52 if down is not None else 2), 54
    cells: list[Mark] = []
    words: list[Mark | None] = [
        text(0, 12, "The rank of each value", "strong"),
        text(x0, y0 - 22, f"dim {across} →", "small quiet"),
        text(0, y0 - 6, f"dim {down} ↓", "small quiet") if down is not None else None,
    ]
    words += [text(x0 + wide * (j + 0.5), y0 - 6, str(j), "small quiet mid") for j in range(columns)]
    for i in range(rows):
        y = y0 + high * i
        if down is not None:
            words.append(text(x0 - 8, y + high / 2 + 4, str(i), "small quiet end"))
        for j in range(columns):
            index = (j,) if down is None else (i, j)
            row = ownership.regions[0]
            ranks = tuple(r for r, part in enumerate(row) if part is not None and contains(part, index))
            of = tuple(f"r{rank}" for rank in ranks)
            tip, kind = _value_tip(tensor, index, ranks, row), _owner_kind(ranks, len(row))
            x, at = x0 + wide * j, f"{i},{j}"
            box, middle = (x + 1.5, y + 1.5, wide - 3, high - 3), (x + wide / 2, y + high / 2 + 4.5)
            cells.append(rect(*box, kind, key=at, of=of, tip=tip, focus="values"))
            words.append(text(*middle, own.ranks_text(ranks), "strong mid", wide - 4, of=of, key=at))
    return Panel(max(x0 + wide * columns + 2, 150), y0 + high * rows + 2, [*cells, *words])


def _value_tip(tensor: TensorInfo, index: tuple[int, ...], ranks: tuple[int, ...], row: tuple) -> str:
    where = f"{tensor.name}[{', '.join(map(str, index))}] · {count(tensor.itemsize, 'byte')}"
    if not ranks:
        return f"{where} · on no rank"
    if len(ranks) > 1:
        together = count(tensor.itemsize * len(ranks), "byte")
        return f"{where} · on ranks {own.ranks_text(ranks)}: {together} together"
    part = row[ranks[0]]
    held = count(num_elements(part) * tensor.itemsize, "byte")
    return f"{where} · on rank {ranks[0]}, which holds {slice_text(part, tensor.shape)}: {held}"


def _owner_kind(ranks: tuple[int, ...], world_size: int) -> str:
    """The kind of a value: its one rank, or that all, some or none hold it."""
    if len(ranks) == 1:
        return f"rank-{ranks[0]} held"
    return "none" if not ranks else "all" if len(ranks) == world_size else "some"


def _ranks(ownership: Ownership, room: float) -> Panel:
    """What each rank holds of one tensor: its outline, the part that is held, its range and its bytes."""
    tensor, n = ownership.tensors[0], ownership.world_size
    columns = min(n, 2 if n in (2, 4) and room < 400 else 3 if room < 400 else 4)
    pitch = room / columns
    rows, across = _extent(tensor, _axes(tensor, ownership.regions[0]))
    scale = min((pitch - 24) / max(across, 1), 64 / max(rows, 1), 20)
    box_w, box_h = max(14.0, across * scale), max(10.0, rows * scale)
    marks: list[Mark | None] = [text(0, 12, "What each rank holds", "strong")]
    for rank in range(n):
        x, y = pitch * (rank % columns), 36 + (box_h + 54) * (rank // columns)
        nbytes, part = ownership.nbytes[0][rank], ownership.regions[0][rank]
        marks.append(text(x, y, f"rank {rank}", "strong"))
        marks += _held(ownership, 0, rank, (x, y + 8, box_w, box_h))
        marks.append(text(x, y + box_h + 22, own.held_text(part, tensor, nbytes), "small", pitch - 8))
        marks.append(text(x, y + box_h + 36, bytes_text(nbytes), "small quiet"))
    return Panel(room, 36 + (box_h + 54) * -(-n // columns) - 12, marks)


def _held(ownership: Ownership, t: int, rank: int, box: tuple[float, float, float, float]) -> list[Mark]:
    """The tensor's outline and, inside it, what the rank holds."""
    x, y, w, h = box
    part, tensor, of = ownership.regions[t][rank], ownership.tensors[t], (f"r{rank}",)
    tip, key = _part_tip(ownership, t, rank), f"{t}/{rank}"
    outline = rect(*box, "box" if part is not None else "wrong", key=f"o{key}", of=of, tip=tip, focus="ranks")
    if part is None or not num_elements(part):
        return [outline]
    down, across = _axes(tensor, ownership.regions[t])
    (top, bottom), (left, right) = (_fraction(part, tensor, dim) for dim in (down, across))
    inner = (x + left * w, y + top * h, (right - left) * w, (bottom - top) * h)
    return [outline, rect(*inner, f"rank-{rank} held", key=f"h{key}", of=of)]


def _part_tip(ownership: Ownership, t: int, rank: int) -> str:
    tensor, part, nbytes = ownership.tensors[t], ownership.regions[t][rank], ownership.nbytes[t][rank]
    held = f"rank {rank} · {tensor.name} {own.held_text(part, tensor, nbytes)}"
    if part is None:
        return f"{held} · {count(nbytes, 'byte')}"
    whole = num_elements(tuple((0, n) for n in tensor.shape))
    return f"{held} · {num_elements(part):,} of {whole:,} values · {count(nbytes, 'byte')}"


def _fraction(part: Region, tensor: TensorInfo, dim: int | None) -> tuple[float, float]:
    if dim is None or not tensor.shape[dim]:
        return 0.0, 1.0
    return part[dim][0] / tensor.shape[dim], part[dim][1] / tensor.shape[dim]


def _table(ownership: Ownership) -> Panel:
    """A model: a row a tensor, a column a rank."""
    n, tensors = ownership.world_size, ownership.tensors
    shown = tensors if len(tensors) <= MAX_TENSORS else tensors[: MAX_TENSORS - 1]
    name_room = min(190.0, max(text_width(tensor.name) for tensor in shown) + 8)
    shape_room = max(text_width(_short_shape(tensor), "small") for tensor in shown) + 16
    x0 = max(name_room, 60) + max(shape_room, 48)
    pitch = min(150.0, max(62.0, (760 - x0) / n))
    room, y = pitch - 10, 22.0
    marks: list[Mark | None] = [text(0, 12, "tensor", "strong"), text(max(name_room, 60), 12, "shape", "strong")]
    marks += [text(x0 + pitch * rank, 12, f"rank {rank}", "strong", of=(f"r{rank}",)) for rank in range(n)]
    wide = x0 + pitch * n
    for t, tensor in enumerate(shown):
        name = tensor.name
        while text_width(name) > name_room - 4:
            name = "…" + name.removeprefix("…")[1:]
        marks += [rect(0, y, wide, 0.5, "rule thin"), text(0, y + 17, name)]
        marks.append(text(max(name_room, 60), y + 17, _short_shape(tensor), "small quiet"))
        for rank in range(n):
            x = x0 + pitch * rank
            words = own.short_text(ownership.regions[t][rank], tensor, ownership.nbytes[t][rank])
            marks += _held(ownership, t, rank, (x, y + 4, room, 11))
            marks.append(text(x, y + 26, words, "small", room, of=(f"r{rank}",)))
        y += 31
    if len(shown) < len(tensors):
        marks.append(text(0, y + 17, f"… and {len(tensors) - len(shown)} more tensors", "small quiet"))
        y += 31
    marks += [rect(0, y, wide, 1, "rule"), text(0, y + 17, "together", "strong")]
    for rank in range(n):
        amount = bytes_text(ownership.rank_bytes(rank))
        marks.append(text(x0 + pitch * rank, y + 17, amount, "strong", room, of=(f"r{rank}",)))
    return Panel(wide, y + 24, marks)


def _short_shape(tensor: TensorInfo) -> str:
    return own.shape_text(tensor.shape).replace(" ", "")


def _memory(ownership: Ownership, wide: float) -> Panel:
    """The bytes of one copy, and below them those of all ranks, one after the other."""
    one_copy, left = ownership.one_copy_bytes, 66
    total = sum(map(sum, ownership.nbytes))
    said = own.total_text(ownership.tensors, ownership.nbytes).replace(" on all ranks", "")
    room = wide - left - text_width(said, "small") - 8
    scale = room / max(one_copy, total, 1)
    marks: list[Mark | None] = [
        text(0, 12, "Memory", "strong"),
        text(0, 34, "one copy", "small quiet"),
        rect(left, 22, one_copy * scale, 17, "box", key="copy"),
        text(left + one_copy * scale + 8, 34, bytes_text(one_copy), "small quiet", key="amount"),
        text(0, 58, "all ranks", "small quiet"),
    ]
    x = float(left)
    for rank in range(ownership.world_size):
        w, of = ownership.rank_bytes(rank) * scale, (f"r{rank}",)
        tip = f"rank {rank} · {count(ownership.rank_bytes(rank), 'byte')} in all"
        marks.append(rect(x, 46, w, 17, f"rank-{rank} held", key=f"m{rank}", of=of, tip=tip))
        marks.append(text(x + w / 2, 58, str(rank), "small strong mid", w, "drop", of=of, key=f"n{rank}"))
        x += w
    marks.append(text(x + 8, 58, said, "small quiet", key="total"))
    return Panel(wide, 66, marks)
