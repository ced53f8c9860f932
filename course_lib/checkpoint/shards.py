"""What a rank of a HybridParallel holds of each parameter of the plain model, and of its optimizer state.

    whole ─ tensor parallel ─► slice ─ ZeRO, along dp and cp ─► consecutive elements of the slice, in row-major order

Without ZeRO these are all of the slice; with ZeRO-3 whole rows of it; the optimizer's share with ZeRO-1 and 2 may begin and end inside
a row. Pipeline stages do not cut parameters: they have other ones.
"""

from collections.abc import Iterator
from math import prod
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import nn

from course_lib.checkpoint.dcp_planners import Boxes, boxes_of_flat
from course_lib.layout import Region, Shard, region
from course_lib.parallel.hybrid import HybridParallel


class Held(NamedTuple):
    """What a rank holds of a parameter: elements start to stop, in row-major order, of its tensor parallel slice.

    name: in the plain model.  shape: of the whole.  slice: where in it the slice lies.  values: the tensor that is trained, or
    the part of it that this rank's optimizer steps.
    """

    name: str
    shape: tuple[int, ...]
    slice: Region
    start: int
    stop: int
    values: torch.Tensor

    def boxes(self, tensor: torch.Tensor) -> Boxes:
        """A tensor of as many elements as `values`, as boxes of the whole."""
        inside = boxes_of_flat([stop - start for start, stop in self.slice], self.start, self.stop)
        shifted = [
            tuple((a + start, b + start) for (a, b), (start, _) in zip(box, self.slice, strict=True)) for box in inside
        ]
        return Boxes(self.shape, shifted, tensor)


def held_parameters(hybrid: HybridParallel) -> Iterator[Held]:
    """What this rank keeps of each parameter."""
    n, rank = dist.get_world_size(hybrid.groups["data"]), dist.get_rank(hybrid.groups["data"])
    full = {}  # ZeRO-3's shards: the shape of what they were cut from
    if hybrid.sharded:
        full = {piece.shard: piece.shape for unit in hybrid.sharded.units for piece in unit.pieces}
    for p in hybrid.parameters:
        local, start, stop = tuple(full.get(p, p.shape)), 0, p.numel()
        if p in full:
            first, last = region(local, Shard(0), n, rank)[0]
            start, stop = (row * prod(local[1:]) for row in (first, last))
        yield _held(hybrid, p, local, start, stop, p)


def held_by_optimizer(hybrid: HybridParallel) -> Iterator[Held]:
    """What this rank's optimizer steps: that, or with ZeRO-1 and 2 its pieces of it."""
    if hybrid.zero in (1, 2):
        for piece in hybrid.optimizer.pieces:
            p = piece.parameter
            yield _held(hybrid, p, tuple(p.shape), piece.start, piece.stop, piece.values)
    else:
        yield from held_parameters(hybrid)


def _held(
    hybrid: HybridParallel, p: nn.Parameter, local: tuple[int, ...], start: int, stop: int, values: torch.Tensor
) -> Held:
    whole, offset = list(local), [0] * len(local)
    split = hybrid.splits.get(hybrid.names[p])
    if split is not None:
        whole[split.dim] *= dist.get_world_size(split.group)
        offset[split.dim] = local[split.dim] * dist.get_rank(split.group)
    place = tuple((first, first + length) for first, length in zip(offset, local, strict=True))
    return Held(_name(hybrid, p), tuple(whole), place, start, stop, values)


def _name(hybrid: HybridParallel, p: nn.Parameter) -> str:
    """In the checkpoint a weight that the head shares with the embedding has the embedding's name, on every stage."""
    shared = next((s.shared_weight for s in hybrid.stages.values() if _is_end(s)), None)
    return "wte.weight" if p is shared else hybrid.names[p]


def _is_end(stage: nn.Module) -> bool:
    return getattr(stage, "shared_weight", None) is not None


def saved_by_another_stage(hybrid: HybridParallel) -> str | None:
    """The shared weight, where the first stage is another rank's: its optimizer may cut it elsewhere."""
    if any(_is_end(stage) for stage in hybrid.stages.values()) and 0 not in hybrid.stages:
        return "wte.weight"
    return None
