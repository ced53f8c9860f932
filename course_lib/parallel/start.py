"""How copies of a model become one model: the same tensors on every rank, with the values of the group's rank 0."""

from collections.abc import Mapping
from itertools import chain

import torch
import torch.distributed as dist
from torch import nn

from course_lib.models.gpt import Attention


def start_as_one(module: nn.Module, group: dist.ProcessGroup | None) -> None:
    """Broadcast every parameter and buffer from the group's rank 0, in place.

    Raises ValueError if the caller is not in the group, or if the ranks' models differ in a name, a shape, a dtype or in what
    is frozen: their collectives would mix up tensors, or wait for ever.
    """
    named = dict(chain(module.named_parameters(), module.named_buffers()))
    require_same(named, group, "build the same model, with the same frozen parameters, on every rank.")
    for tensor in chain(module.parameters(), module.buffers()):
        dist.broadcast(tensor.detach(), group=group, group_src=0)


def require_same(named: Mapping[str, torch.Tensor], group: dist.ProcessGroup | None, next_step: str) -> None:
    """Raise ValueError, on every rank alike, if the ranks' tensors differ in a name, a shape, a dtype or in being trained.

    Also if the caller is not in the group. Communication: an all-gather of a text a tensor. next_step ends the sentence.
    """
    if dist.get_rank(group) < 0:
        raise ValueError(f"rank {dist.get_rank()} is not in the group: only its members can build this.")
    mine = {name: _describe(name, tensor) for name, tensor in named.items()}
    everyone: list[dict[str, str]] = [{}] * dist.get_world_size(group)
    dist.all_gather_object(everyone, mine, group=group)
    first = everyone[0]
    for rank, theirs in enumerate(everyone):
        for name in chain(first, theirs):
            here, there = first.get(name, f"no {name}"), theirs.get(name, f"no {name}")
            if here != there:
                raise ValueError(f"rank {rank} has {there} where rank 0 has {here}: {next_step}")


def plain_attentions(model: nn.Module) -> list[Attention]:
    """The model's Attentions, which a strategy is about to replace by its own.

    Raises ValueError if there is none, or if one was replaced before: a second strategy would undo the first without a word.
    """
    found = [module for module in model.modules() if isinstance(module, Attention)]
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no Attention of course_lib.models: build a GPT or a BERT."
        )
    for attention in found:
        if type(attention) is not Attention:
            raise ValueError(
                f"this model's attention is a {type(attention).__name__} already: start from a plain model, and split it in one way."
            )
    return found


def _describe(name: str, tensor: torch.Tensor) -> str:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return f"{name} of shape {tuple(tensor.shape)}, {dtype}" + (
        "" if tensor.requires_grad else ", not trained"
    )
