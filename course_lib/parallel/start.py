"""How copies of a model become one model: the same tensors on every rank, with the values of the group's rank 0."""

from itertools import chain
from typing import Any

import torch.distributed as dist
from torch import nn


def start_as_one(module: nn.Module, group: dist.ProcessGroup | None) -> None:
    """Broadcast every parameter and buffer from the group's rank 0, in place.

    Raises ValueError if the caller is not in the group, or if the ranks' models differ in a name, a shape, a dtype or in what
    is frozen: their collectives would mix up tensors, or wait for ever.
    """
    if dist.get_rank(group) < 0:
        raise ValueError(
            f"rank {dist.get_rank()} is not in the group: only its members can build this module."
        )
    _require_same_model(module, group)
    for tensor in chain(module.parameters(), module.buffers()):
        dist.broadcast(tensor.detach(), group=group, group_src=0)


def _require_same_model(module: nn.Module, group: dist.ProcessGroup | None) -> None:
    named = chain(module.named_parameters(), module.named_buffers())
    mine = {name: (tuple(t.shape), str(t.dtype).removeprefix("torch."), t.requires_grad) for name, t in named}
    models: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(models, mine, group=group)
    for rank, theirs in enumerate(models):
        for name in chain(models[0], theirs):
            here, there = models[0].get(name), theirs.get(name)
            if here != there:
                raise ValueError(
                    f"rank {rank} has {_describe(name, there)} where rank 0 has {_describe(name, here)}: "
                    "build the same model, with the same frozen parameters, on every rank."
                )


def _describe(name: str, entry: tuple[tuple[int, ...], str, bool] | None) -> str:
    if entry is None:
        return f"no {name}"
    shape, dtype, trained = entry
    return f"{name} of shape {shape}, {dtype}" + ("" if trained else ", not trained")
