"""Ownership: which region of each tensor each rank holds. The value that the sharding picture draws."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from course_lib.layout import Placement, Region, Replicate, Shard, num_elements, region, slice_text, split_bounds
from course_lib.numbers import bytes_text

MAX_WORLD_SIZE = 8  # ranks side by side at a notebook's width


@dataclass(frozen=True)
class TensorInfo:
    """What a picture needs to know of a tensor."""

    name: str
    shape: tuple[int, ...]
    itemsize: int
    dtype: str

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.itemsize


@dataclass(frozen=True)
class Ownership:
    """Who holds what.

    regions[t][r]: the region of tensor t on rank r, None where rank r holds something else or nothing;
    nbytes[t][r]: the bytes it holds;  notes: the sentences under the title.
    """

    title: str
    tensors: tuple[TensorInfo, ...]
    regions: tuple[tuple[Region | None, ...], ...]
    nbytes: tuple[tuple[int, ...], ...]
    notes: tuple[str, ...]

    @property
    def world_size(self) -> int:
        return len(self.regions[0])

    def rank_bytes(self, rank: int) -> int:
        return sum(row[rank] for row in self.nbytes)

    @property
    def one_copy_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors)

    def __str__(self) -> str:
        lines = [self.title, *self.notes]
        for rank in range(self.world_size):
            held = f"{self.rank_bytes(rank):,} bytes"
            if len(self.tensors) == 1:
                part = self.regions[0][rank]
                what = held_text(part, self.tensors[0], self.nbytes[0][rank])
                held = f"{what}, {held}"
            lines.append(f"  rank {rank}: {held}")
        return "\n".join(lines)


def planned(title: str, tensors: tuple[TensorInfo, ...], placement: Placement, world_size: int) -> Ownership:
    """What each of world_size ranks holds under `placement`. In a model, a tensor without the dim stays replicated."""
    placements = [_applicable(placement, tensor, len(tensors)) for tensor in tensors]
    regions = tuple(
        tuple(region(tensor.shape, placed, world_size, rank) for rank in range(world_size))
        for tensor, placed in zip(tensors, placements, strict=True)
    )
    nbytes = tuple(
        tuple(num_elements(part) * tensor.itemsize for part in row)
        for tensor, row in zip(tensors, regions, strict=True)
    )
    ranks = "1 rank" if world_size == 1 else f"{world_size} ranks"
    over = "over" if isinstance(placement, Shard) else "on"
    per_rank = sorted({sum(row[rank] for row in nbytes) for rank in range(world_size)})
    amounts = " to ".join(bytes_text(n) for n in (per_rank[0], per_rank[-1])[: len(per_rank)])
    headline = f"{placement} {over} {ranks}: {amounts} a rank; {total_text(tensors, nbytes)}"
    return Ownership(
        title, tensors, regions, nbytes, (headline, _consequence(placement, placements, tensors, world_size))
    )


def title_of(kind: str | None, tensors: tuple[TensorInfo, ...]) -> str:
    """The line above a picture: what it is, its shape or how many values, its dtype."""
    dtypes = {tensor.dtype for tensor in tensors}
    dtype = dtypes.pop() if len(dtypes) == 1 else "mixed dtypes"
    if len(tensors) == 1:
        return f"{tensors[0].name} · {shape_text(tensors[0].shape)} · {dtype}"
    values = sum(prod(tensor.shape) for tensor in tensors)
    counts = f"{len(tensors)} tensors · {values:,} values · {dtype}"
    return f"{kind} · {counts}" if kind else counts


def describe(name: str, tensor: Any) -> TensorInfo:
    """The TensorInfo of a tensor, or of a bare shape (then of float32)."""
    if hasattr(tensor, "shape") and hasattr(tensor, "dtype"):
        return TensorInfo(name, tuple(tensor.shape), tensor.dtype.itemsize, str(tensor.dtype).removeprefix("torch."))
    if isinstance(tensor, (tuple, list)) and all(isinstance(n, int) and n >= 0 for n in tensor):
        return TensorInfo(name, tuple(tensor), 4, "float32")
    raise TypeError(
        f"{name} is a {type(tensor).__name__}: sharding() draws tensors, shapes such as (4, 5), and models."
    )


def named_tensors(what: Any, name: str) -> Iterable[tuple[str, Any]]:
    """The (name, tensor or shape) pairs of a model (its parameters), a dict, or one tensor called `name`."""
    if hasattr(what, "named_parameters"):
        return what.named_parameters()
    return what.items() if isinstance(what, Mapping) else [(name, what)]


def shape_text(shape: tuple[int, ...]) -> str:
    """4 × 5; one number for a vector; "scalar" for a tensor without dims."""
    return " × ".join(map(str, shape)) or "scalar"


def total_text(tensors: tuple[TensorInfo, ...], nbytes: tuple[tuple[int, ...], ...]) -> str:
    """What all ranks hold together, against one copy."""
    total, one_copy = sum(map(sum, nbytes)), sum(tensor.nbytes for tensor in tensors)
    hundredths = (100 * total + one_copy // 2) // one_copy if one_copy else 100
    return f"{bytes_text(total)} on all ranks = {hundredths / 100:g} × one copy"


def held_text(part: Region | None, tensor: TensorInfo, nbytes: int) -> str:
    """A rank's region in Python's notation, or why it has none."""
    if part is None:
        return "not a shard of it" if nbytes else "absent"
    return slice_text(part, tensor.shape) if num_elements(part) or not prod(tensor.shape) else "nothing"


def short_text(part: Region | None, tensor: TensorInfo, nbytes: int) -> str:
    """The split dim's range alone: "0:4", "all", "–" for nothing, "?" for what is no shard of it."""
    if part is None:
        return "?" if nbytes else "–"
    if not num_elements(part):
        return "–"
    pairs = zip(part, tensor.shape, strict=True)
    return ",".join(f"{start}:{stop}" for (start, stop), n in pairs if (start, stop) != (0, n)) or "all"


def ranks_text(ranks: tuple[int, ...]) -> str:
    """0–3 for consecutive ranks, 0,2 for others, – for none."""
    if len(ranks) > 1 and ranks[-1] - ranks[0] == len(ranks) - 1:
        return f"{ranks[0]}–{ranks[-1]}"
    return ",".join(map(str, ranks)) or "–"


def _applicable(placement: Placement, tensor: TensorInfo, count: int) -> Placement:
    lacks_dim = isinstance(placement, Shard) and not -len(tensor.shape) <= placement.dim < len(tensor.shape)
    return Replicate() if lacks_dim and count > 1 else placement


def _consequence(placement: Placement, placements: list, tensors: tuple[TensorInfo, ...], world_size: int) -> str:
    """The sentence under the headline: what follows from the placement."""
    if not isinstance(placement, Shard):
        whole = "every value" if isinstance(placement, Replicate) else "a partial result of every value"
        return f"Each rank holds {whole}."
    lacking = sum(placed != placement for placed in placements)
    if lacking:
        tensor_has = "1 tensor has" if lacking == 1 else f"{lacking} tensors have"
        return f"{tensor_has} no dim {placement.dim} and stay{'s' if lacking == 1 else ''} replicated on every rank."
    lengths = {tensor.shape[placement.dim] for tensor in tensors}
    uneven = sorted(length for length in lengths if length % world_size)
    if not uneven:
        return "Each value lives on exactly one rank."
    if len(tensors) > 1:
        count = sum(tensor.shape[placement.dim] in uneven for tensor in tensors)
        return f"Each value lives on one rank; {count} of {len(tensors)} tensors do not split evenly over {world_size} ranks."
    bounds = split_bounds(uneven[0], world_size)
    parts = ", ".join(str(bounds[rank + 1] - bounds[rank]) for rank in range(world_size))
    return f"{uneven[0]} indices do not split evenly over {world_size} ranks; torch.chunk's rule gives them {parts}."
