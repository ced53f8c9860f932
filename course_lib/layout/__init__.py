"""Where things live: which rank stands where in a mesh, and which index range of a tensor it holds.

Pure functions of sizes: no torch, no process group. A range is (start, stop), as in `x[start:stop]`; a region has one
range per tensor dim.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import NamedTuple

Range = tuple[int, int]
Region = tuple[Range, ...]


class Coordinates(NamedTuple):
    """Where a rank stands along each axis of a mesh: its pipeline stage, its copy, its part of a sequence, its slice."""

    pp: int = 0
    dp: int = 0
    cp: int = 0
    tp: int = 0


AXES = Coordinates._fields


@dataclass(frozen=True)
class Layout:
    """A mesh of pp × dp × cp × tp ranks: pipeline stages, copies of the model, parts of a sequence, slices of a weight.

    order: the axes, the one whose neighbours are farthest apart in number first. As it stands,
    rank = ((pp · DP + dp) · CP + cp) · TP + tp: the ranks of a tensor-parallel group are neighbours, for they talk most and
    should share a node; pipeline stages lie farthest apart. It is the order of Megatron-LM (Narayanan et al. 2021, section 3).
    An axis of size 1 may be left out of `order`.
    Raises TypeError or ValueError, naming the axis, for what cannot be a size, and for an order that does not name each larger axis once.
    """

    pp: int = 1
    dp: int = 1
    cp: int = 1
    tp: int = 1
    order: tuple[str, ...] = AXES

    def __post_init__(self) -> None:
        for axis, size in zip(AXES, self.sizes, strict=True):
            if isinstance(size, bool) or not isinstance(size, int):
                raise TypeError(f"{axis} is the number of ranks along an axis, a whole number, not {size!r}.")
            if size < 1:
                raise ValueError(f"{axis} is {size}: an axis has at least 1 rank.")
        named = tuple(self.order)
        left_out = tuple(axis for axis in AXES if axis not in named)
        needed = [axis for axis in left_out if getattr(self, axis) > 1]
        if needed or len(set(named)) != len(named) or set(named) - set(AXES):
            raise ValueError(
                f"order is {named}: it names each axis of more than one rank once, out of {', '.join(AXES)}, outermost first."
            )
        object.__setattr__(self, "order", left_out + named)

    @property
    def sizes(self) -> Coordinates:
        """How many ranks there are along each axis."""
        return Coordinates(self.pp, self.dp, self.cp, self.tp)

    @property
    def world_size(self) -> int:
        """How many ranks the mesh has."""
        return prod(self.sizes)

    def coordinates(self, rank: int) -> Coordinates:
        """Where a rank stands. Raises ValueError for a rank outside the mesh."""
        check_rank(rank, self.world_size)
        return Coordinates(*(rank // self.stride(axis) % getattr(self, axis) for axis in AXES))

    def rank(self, pp: int = 0, dp: int = 0, cp: int = 0, tp: int = 0) -> int:
        """The rank that stands there. Raises ValueError for a place outside the mesh."""
        places = Coordinates(pp, dp, cp, tp)
        for axis, size, place in zip(AXES, self.sizes, places, strict=True):
            if not 0 <= place < size:
                raise ValueError(f"{axis} = {place} is outside {self}: along {axis} places go from 0 to {size - 1}.")
        return sum(place * self.stride(axis) for axis, place in zip(AXES, places, strict=True))

    def stride(self, axis: str) -> int:
        """How far apart in number two neighbours along an axis are."""
        inner = self.order[self.order.index(_known(axis)) + 1 :]
        return prod(getattr(self, other) for other in inner)

    def group(self, rank: int, *axes: str) -> tuple[int, ...]:
        """The ranks that differ from this one along the axes named and along no other, in their order, itself among them."""
        here, along = self.coordinates(rank), [axis for axis in self.order if axis in set(map(_known, axes))]
        first = rank - sum(getattr(here, axis) * self.stride(axis) for axis in along)
        ways = [range(0, getattr(self, axis) * self.stride(axis), self.stride(axis)) for axis in along]
        return tuple(first + sum(steps) for steps in product(*ways))

    def groups(self, *axes: str) -> tuple[tuple[int, ...], ...]:
        """All groups along the axes named: each rank is in one of them."""
        others = [axis for axis in AXES if axis not in axes]
        return tuple(self.group(first, *axes) for first in self.group(0, *others))

    def __str__(self) -> str:
        sizes = [f"{axis} {getattr(self, axis)}" for axis in self.order if getattr(self, axis) > 1]
        return " × ".join(sizes) or "1 rank"


def nodes_of(ranks: Sequence[int], ranks_per_node: int) -> tuple[int, ...]:
    """The nodes that these ranks live on, where node 0 has the first ranks_per_node ranks, node 1 the next, …"""
    check_world_size(ranks_per_node)
    return tuple(sorted({rank // ranks_per_node for rank in ranks}))


def _known(axis: str) -> str:
    if axis not in AXES:
        raise ValueError(f"{axis!r} is no axis of a layout: take one of {', '.join(AXES)}.")
    return axis


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
    check_rank(rank, world_size)
    ranges = [(0, length) for length in shape]
    if isinstance(placement, Shard):
        dim = normalize_dim(placement.dim, shape)
        bounds = split_bounds(shape[dim], world_size)
        ranges[dim] = bounds[rank], bounds[rank + 1]
    return tuple(ranges)


def shard_shape(shape: Sequence[int], placement: Placement, world_size: int, rank: int) -> tuple[int, ...]:
    """The shape of what `rank` holds."""
    return tuple(stop - start for start, stop in region(shape, placement, world_size, rank))


def owners(shape: Sequence[int], placement: Placement, world_size: int, index: Sequence[int]) -> tuple[int, ...]:
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


def check_rank(rank: int, world_size: int) -> None:
    """Raise ValueError, in a sentence, for a rank that is not in the world."""
    if not 0 <= rank < world_size:
        raise ValueError(f"rank {rank} is not in a world of {world_size}: ranks go from 0 to {world_size - 1}.")


def check_world_size(world_size: int) -> None:
    """Raise TypeError or ValueError, in a sentence, for what cannot be a number of ranks."""
    if isinstance(world_size, bool) or not isinstance(world_size, int):
        raise TypeError(f"world_size is the number of ranks, a whole number, not {world_size!r}.")
    if world_size < 1:
        raise ValueError(f"world_size must be at least 1, not {world_size}: there is always a rank 0.")
