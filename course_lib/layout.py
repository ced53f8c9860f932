"""Where a tensor's values live: placements, and the index range of a tensor that each rank holds.

Pure functions of shapes: no torch, no process group. A range is (start, stop), as in `x[start:stop]`; a region has one
range per tensor dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

Range = tuple[int, int]
Region = tuple[Range, ...]


@dataclass(frozen=True)
class Replicate:
    """Every rank holds the whole tensor."""

    def __str__(self) -> str:
        return "replicate"


@dataclass(frozen=True)
class Shard:
    """The ranks hold consecutive parts of the tensor, split along `dim` as torch.chunk splits it."""

    dim: int

    def __post_init__(self) -> None:
        if isinstance(self.dim, bool) or not isinstance(self.dim, int):
            raise TypeError(f"Shard(dim) takes the number of a tensor dim, as in Shard(0), not {self.dim!r}.")

    def __str__(self) -> str:
        return f"shard dim {self.dim}"


@dataclass(frozen=True)
class Partial:
    """Every rank holds a tensor of the full shape; `op` over the ranks ("sum" …) gives the true values."""

    op: str = "sum"

    def __str__(self) -> str:
        return f"partial {self.op}"


Placement = Replicate | Shard | Partial


def split_bounds(length: int, world_size: int) -> tuple[int, ...]:
    """world_size + 1 bounds: rank r holds [bounds[r], bounds[r + 1]) of `length` indices.

    torch.chunk's rule: every part has ceil(length / world_size) indices until they run out, so the last parts may be
    shorter or empty: split_bounds(5, 4) is (0, 2, 4, 5, 5).
    """
    check_world_size(world_size)
    part = -(-length // world_size)
    return tuple(min(rank * part, length) for rank in range(world_size + 1))


def region(shape: Sequence[int], placement: Placement, world_size: int, rank: int) -> Region:
    """The part of a tensor of `shape` that `rank` holds: one (start, stop) per dim.

    Raises ValueError for a world size below 1, a rank outside it, or a Shard of a dim that the shape lacks.
    """
    check_world_size(world_size)
    if not 0 <= rank < world_size:
        raise ValueError(
            f"rank {rank} is not in a world of {world_size}: ranks go from 0 to {world_size - 1}."
        )
    ranges = [(0, length) for length in shape]
    if isinstance(placement, Shard):
        dim = normalize_dim(placement.dim, shape)
        bounds = split_bounds(shape[dim], world_size)
        ranges[dim] = bounds[rank], bounds[rank + 1]
    return tuple(ranges)


def shard_shape(shape: Sequence[int], placement: Placement, world_size: int, rank: int) -> tuple[int, ...]:
    """The shape of what `rank` holds."""
    return tuple(stop - start for start, stop in region(shape, placement, world_size, rank))


def owners(
    shape: Sequence[int], placement: Placement, world_size: int, index: Sequence[int]
) -> tuple[int, ...]:
    """The ranks that hold the element at `index`."""
    if len(index) != len(shape) or not all(0 <= i < length for i, length in zip(index, shape, strict=True)):
        raise ValueError(f"index {list(index)} is not in a tensor of shape {tuple(shape)}.")
    ranks = range(world_size)
    return tuple(rank for rank in ranks if contains(region(shape, placement, world_size, rank), index))


def contains(part: Region, index: Sequence[int]) -> bool:
    """Whether the element at `index` lies in the region."""
    return all(start <= i < stop for i, (start, stop) in zip(index, part, strict=True))


def num_elements(part: Region) -> int:
    """How many elements a region has."""
    return prod(stop - start for start, stop in part)


def normalize_dim(dim: int, shape: Sequence[int]) -> int:
    """`dim` counted from the front: -1 is the last. Raises ValueError when the shape has no such dim."""
    if not -len(shape) <= dim < len(shape):
        has = f"dims {-len(shape)} to {len(shape) - 1}" if len(shape) else "no dim at all"
        raise ValueError(
            f"Shard({dim}) needs a dim {dim}, but shape {tuple(shape)} has {has}: pick one of those, or Replicate()."
        )
    return dim % len(shape)


def even_share(length: int, world_size: int, what: str) -> int:
    """length / world_size, where only equal shares will do. Raises ValueError with what is cut and the nearest lengths."""
    check_world_size(world_size)
    if length % world_size:
        raise ValueError(
            f"{what} is {length}, which {world_size} ranks cannot share equally; "
            f"{nearest_multiples(length, world_size)} would do."
        )
    return length // world_size


def nearest_multiples(length: int, world_size: int) -> str:
    """The multiples of world_size on either side of length, in words."""
    below = length // world_size * world_size
    return f"{below} or {below + world_size}" if below else f"{world_size}"


def slice_text(part: Region, shape: Sequence[int]) -> str:
    """A region as it is written in Python, a full dim as a colon: "[0:2, :]"."""
    ranges = zip(part, shape, strict=True)
    return "[" + ", ".join(":" if r == (0, n) else f"{r[0]}:{r[1]}" for r, n in ranges) + "]"


def check_world_size(world_size: int) -> None:
    """Raise TypeError or ValueError, in a sentence, for what cannot be a number of ranks."""
    if isinstance(world_size, bool) or not isinstance(world_size, int):
        raise TypeError(f"world_size is the number of ranks, a whole number, not {world_size!r}.")
    if world_size < 1:
        raise ValueError(f"world_size must be at least 1, not {world_size}: there is always a rank 0.")
