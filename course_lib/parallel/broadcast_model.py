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


def attentions(model: nn.Module, replacing: str) -> list[Attention]:
    """The model's Attentions, of which a strategy is about to replace one method, "project" or "attend", by its own.

    Raises ValueError if there is none, or if that method was replaced before: a second strategy would undo the first without a
    word. One that splits the heads (project) and one that splits the sequence (attend) go together.
    """
    found = [module for module in model.modules() if isinstance(module, Attention)]
    if not found:
        raise ValueError(f"{type(model).__name__} has no Attention of course_lib.models: build a GPT or a BERT.")
    for attention in found:
        if getattr(type(attention), replacing) is not getattr(Attention, replacing):
            raise ValueError(
                f"this model's attention is a {type(attention).__name__} already: start from a plain model, and split it in one way."
            )
    return found


def become(attention: Attention, kind: type[Attention], group: dist.ProcessGroup | None) -> None:
    """Make an attention one of this kind, split over a group, and let it keep what another strategy has replaced.

    Raises ValueError if the two groups have more ranks than this one in common.
    """
    before, ranks = type(attention), set(dist.get_process_group_ranks(group))
    both = ranks & attention.__dict__.setdefault("split_over", {dist.get_rank()})
    if len(both) > 1:
        raise ValueError(
            f"ranks {sorted(both)} would split attention by heads and by sequence at once: give each of the two its own axis of a "
            "mesh (course_lib.layout.Layout)."
        )
    attention.split_over |= ranks
    attention.__class__ = (
        kind if before is Attention else type(f"{kind.__name__}And{before.__name__}", (kind, before), {})
    )


def _describe(name: str, tensor: torch.Tensor) -> str:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return f"{name} of shape {tuple(tensor.shape)}, {dtype}" + ("" if tensor.requires_grad else ", not trained")
