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
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from course_lib.checkpoint.dcp_planners import Boxes, BoxesLoadPlanner, BoxesSavePlanner
from course_lib.checkpoint.folder import ABOUT, PARTIAL, about, folder_of, found
from course_lib.checkpoint.shards import Held, held_by_optimizer, held_parameters, saved_by_another_stage
from course_lib.parallel.hybrid import HybridParallel


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
    _agree(None if (path / ABOUT).exists() else f"does not see {path}: give a folder that all machines share.")
    saved = dcp.FileSystemReader(path).read_metadata().state_dict_metadata
    shapes, states = {}, defaultdict(dict)
    for key, entry in saved.items():
        kind, _, name = key.partition(".")
        if kind == "model":
            shapes[name] = entry.size
        else:
            name, _, kind = name.rpartition(".")
            states[name][kind] = entry
    _require_the_same_model(hybrid, path, shapes)
    for part in held_by_optimizer(hybrid):
        hybrid.optimizer.state[part.values] = _empty_state(part, states[part.name])
    dcp.load(_state(hybrid), checkpoint_id=path, planner=BoxesLoadPlanner())
    return about(path)


def _state(hybrid: HybridParallel, for_saving: bool = False) -> dict[str, Any]:
    """What this rank holds, by the names of the checkpoint. for_saving: without what another stage writes too."""
    skip = saved_by_another_stage(hybrid) if for_saving else None
    state: dict[str, Any] = {}
    for part in held_parameters(hybrid):
        if part.name != skip:
            state[f"model.{part.name}"] = part.boxes(part.values.detach())
    for part in held_by_optimizer(hybrid):
        if part.name == skip:
            continue
        for kind, value in hybrid.optimizer.state.get(part.values, {}).items():
            if torch.is_tensor(value):
                per_element = value.shape == part.values.shape  # or one number, such as that of the steps
                boxes = part.boxes(value) if per_element else Boxes((), [()], value)
                state[f"optimizer.{part.name}.{kind}"] = boxes
    return state


def _empty_state(part: Held, saved: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Room for a parameter's optimizer state; saved: what the checkpoint says of each part of it."""
    state = {}
    for kind, entry in saved.items():
        per_element = entry.size == torch.Size(part.shape)
        one = torch.zeros(entry.size, dtype=entry.properties.dtype)
        state[kind] = torch.zeros_like(part.values) if per_element else one
    return state


def _require_the_same_model(hybrid: HybridParallel, path: Path, there: dict[str, torch.Size]) -> None:
    here: dict[str, Any] = {}
    everyone: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, {part.name: tuple(part.shape) for part in held_parameters(hybrid)})
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
