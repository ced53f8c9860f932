"""Checkpoints of a HybridParallel: every rank writes the part that it holds, and any other layout can read its own part.

    a weight of the plain model     written by tp 2 × dp 2, ZeRO-1          read by dp 3, ZeRO-3
    8 rows                          tp 0: rows 0:4    tp 1: rows 4:8        rows 0:3, 3:6, 6:8

What a rank holds of a tensor is some boxes: a range along each dim. Two layouts cut one tensor into different boxes; where a box of
the one meets a box of the other, that part of the file is read. No rank ever has a whole tensor that it does not train with.

The files are those of torch.distributed.checkpoint (`.metadata`, `__RANK_0.distcp`), which does the work, and `about.json`. Plain
tensors can be loaded from them with its own `load`. Names: `model.NAME` and `optimizer.NAME.STATE`, with the plain model's names.
"""

import json
import os
import shutil
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from course_lib.layout import Region, Shard, region
from course_lib.parallel.boxes import Boxes, BoxesLoadPlanner, BoxesSavePlanner, boxes_of_flat
from course_lib.parallel.checkpoint_folder import ABOUT, PARTIAL, about, folder_of, found
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
            tuple((a + start, b + start) for (a, b), (start, _) in zip(box, self.slice, strict=True))
            for box in inside
        ]
        return Boxes(self.shape, shifted, tensor)


def save(hybrid: HybridParallel, folder: str | Path, step: int, facts: dict[str, Any], keep: int = 2) -> Path:
    """Write parameters and optimizer state after `step` steps into folder/step-…; every rank calls it. Returns that path.

    facts: what else belongs to it, as JSON, in the words of rank 0; "step" is added.  keep: how many to leave, the newest.
    All is written beside it first, and renamed when it is complete: a folder of that name is never half a checkpoint, whenever
    the job is killed. Ranks on several machines need one folder that all of them see.

    communication: the list of boxes, gathered on rank 0, which shares out the writing of what several ranks hold.
    """
    path = folder_of(folder, step)
    partial = path.with_suffix(PARTIAL)
    if dist.get_rank() == 0:
        partial.parent.mkdir(parents=True, exist_ok=True)
        for left_over in partial.parent.glob(f"step-*{PARTIAL}"):
            shutil.rmtree(left_over)
    dcp.save(_state(hybrid, for_saving=True), checkpoint_id=partial, planner=BoxesSavePlanner())
    if dist.get_rank() == 0:
        (partial / ABOUT).write_text(json.dumps({"step": step, **facts}) + "\n", encoding="utf-8")
        shutil.rmtree(path, ignore_errors=True)
        os.replace(partial, path)
        for old in found(folder)[:-keep]:
            shutil.rmtree(old)
    dist.barrier()  # from here on it is there for everybody
    return path


@torch.no_grad()
def load(hybrid: HybridParallel, path: str | Path) -> dict[str, Any]:
    """Take parameters and optimizer state from a checkpoint of any layout, ZeRO stage and number of ranks. Returns its facts.

    Every rank calls it, with a model of the same sizes. communication: each rank reads its own boxes; besides, names and shapes.
    Raises ValueError, on every rank, for the checkpoint of another model, and for a path that a rank does not see.
    """
    path = Path(path)
    _agree(
        None if (path / ABOUT).exists() else f"does not see {path}: give a folder that all machines share."
    )
    saved = dcp.FileSystemReader(path).read_metadata().state_dict_metadata
    there = {name.removeprefix("model."): e.size for name, e in saved.items() if name.startswith("model.")}
    _require_the_same_model(hybrid, path, there)
    for part in _optimized(hybrid):
        hybrid.optimizer.state[part.values] = _empty_state(part, saved)
    dcp.load(_state(hybrid), checkpoint_id=path, planner=BoxesLoadPlanner())
    return about(path)


def _state(hybrid: HybridParallel, for_saving: bool = False) -> dict[str, Any]:
    """What this rank holds, by the names of the checkpoint. for_saving: without what another stage writes too."""
    skip = _written_elsewhere(hybrid) if for_saving else None
    state: dict[str, Any] = {}
    for part in _trained(hybrid):
        if part.name != skip:
            state[f"model.{part.name}"] = part.boxes(part.values.detach())
    for part in _optimized(hybrid):
        if part.name == skip:
            continue
        for kind, value in hybrid.optimizer.state.get(part.values, {}).items():
            key = f"optimizer.{part.name}.{kind}"
            per_element = value.shape == part.values.shape  # or one number, such as that of the steps
            state[key] = part.boxes(value) if per_element else Boxes((), [()], value)
    return state


def _trained(hybrid: HybridParallel) -> Iterator[Held]:
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


def _optimized(hybrid: HybridParallel) -> Iterator[Held]:
    """What this rank's optimizer steps: that, or with ZeRO-1 and 2 its pieces of it."""
    if hybrid.zero in (1, 2):
        for piece in hybrid.optimizer.pieces:
            p = piece.parameter
            yield _held(hybrid, p, tuple(p.shape), piece.start, piece.stop, piece.values)
    else:
        yield from _trained(hybrid)


def _held(
    hybrid: HybridParallel, p: Any, local: tuple[int, ...], start: int, stop: int, values: torch.Tensor
) -> Held:
    whole, offset = list(local), [0] * len(local)
    split = hybrid.splits.get(hybrid.names[p])
    if split is not None:
        whole[split.dim] *= dist.get_world_size(split.group)
        offset[split.dim] = local[split.dim] * dist.get_rank(split.group)
    place = tuple((first, first + length) for first, length in zip(offset, local, strict=True))
    return Held(_name(hybrid, p), tuple(whole), place, start, stop, values)


def _name(hybrid: HybridParallel, p: Any) -> str:
    """In the checkpoint a weight that the head shares with the embedding has the embedding's name, on every stage."""
    shared = next((s.shared_weight for s in hybrid.stages.values() if _is_end(s)), None)
    return "wte.weight" if p is shared else hybrid.names[p]


def _is_end(stage: Any) -> bool:
    return getattr(stage, "shared_weight", None) is not None


def _written_elsewhere(hybrid: HybridParallel) -> str | None:
    """The shared weight, where the first stage is another rank's: its optimizer may cut it elsewhere."""
    if any(_is_end(stage) for stage in hybrid.stages.values()) and 0 not in hybrid.stages:
        return "wte.weight"
    return None


def _empty_state(part: Held, saved: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Room for what the checkpoint has of a parameter's optimizer state."""
    prefix, state = f"optimizer.{part.name}.", {}
    for key, entry in saved.items():
        if key.startswith(prefix):
            per_element = entry.size == torch.Size(part.shape) and part.shape
            like = torch.zeros(entry.size, dtype=entry.properties.dtype)
            state[key.removeprefix(prefix)] = torch.zeros_like(part.values) if per_element else like
    return state


def _require_the_same_model(hybrid: HybridParallel, path: Path, there: dict[str, torch.Size]) -> None:
    here: dict[str, Any] = {}
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, {part.name: tuple(part.shape) for part in _trained(hybrid)})
    for shapes in everyone:
        here |= shapes
    for name in [*here, *there]:
        mine, theirs = here.get(name, "not there"), tuple(there[name]) if name in there else "not there"
        if mine != theirs:
            raise ValueError(
                f"{path} is of another model: {name} is {theirs} in it and {mine} here. Build the model with its sizes; "
                f"{path / ABOUT} says which."
            )


def _agree(problem: str | None) -> None:
    """Raise ValueError on every rank if one has a problem, in the words of the first that has."""
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, problem)
    for rank, words in enumerate(everyone):
        if words:
            raise ValueError(f"rank {rank} {words}")
