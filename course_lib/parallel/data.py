"""Data parallel: every rank holds the whole model and a slice of the batch; gradients are averaged."""

from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch import nn


class DataParallel(nn.Module):
    """The same model on every rank of `group`, kept the same by averaging gradients.

        x (b, …) whole            rank 0: x[0:b/n]   rank 1: x[b/n:2b/n]   …      a slice each
        parameters, buffers       rank 0: all        rank 1: all           …      a copy each

    Use: `model = DataParallel(net)`; forward and backward as ever; `model.finish_gradient_sync()`; optimizer step.
    With slices of equal size and a loss that is a mean over its slice, the averaged gradient is the gradient of the mean
    loss over the whole batch, so that n ranks train exactly as one process does.

    communication: once at the start a broadcast of every parameter and buffer from the group's rank 0; in each
    `finish_gradient_sync()` an all-reduce of every gradient, under a ring 2(n−1)/n · Ψ elements sent by each of n ranks
    for Ψ parameters, and before it one of a byte a tensor, to learn which parameters were used.
    Frozen parameters are left out. A tied parameter counts once. A parameter that only some ranks used counts as zero
    on the others; one that nobody used keeps `grad = None`, so that the optimizer skips it as in one process.

    Raises ValueError if the caller is not in the group, if no parameter needs a gradient, or if the ranks' models differ.
    Source: Li et al. 2020, "PyTorch Distributed", section 3; without its buckets and its overlap.
    """

    def __init__(self, module: nn.Module, group: dist.ProcessGroup | None = None):
        super().__init__()
        self.module = module
        self.group = group
        self.world_size = dist.get_world_size(group)
        if dist.get_rank(group) < 0:
            raise ValueError(
                f"rank {dist.get_rank()} is not in the group: only its members can build this module."
            )
        self._trained = [p for p in module.parameters() if p.requires_grad]
        if not self._trained:
            raise ValueError("no parameter of this module requires a gradient: there is nothing to average.")
        _require_same_model(module, group)
        for tensor in chain(module.parameters(), module.buffers()):
            dist.broadcast(tensor.detach(), group=group, group_src=0)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    @torch.no_grad()
    def finish_gradient_sync(self) -> None:
        """Replace every gradient by its mean over the ranks. Call it on all ranks, after backward, before the step."""
        used = torch.tensor(
            [p.grad is not None for p in self._trained], dtype=torch.uint8, device=self._trained[0].device
        )
        dist.all_reduce(used, dist.ReduceOp.MAX, group=self.group)
        waiting = []
        for parameter, is_used in zip(self._trained, used.tolist(), strict=True):
            if is_used:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                waiting.append(
                    (parameter.grad, dist.all_reduce(parameter.grad, group=self.group, async_op=True))
                )
        for gradient, work in waiting:  # all are under way before the first is waited for
            work.wait()
            gradient /= self.world_size


def _require_same_model(module: nn.Module, group: dist.ProcessGroup | None) -> None:
    """Refuse models that differ between ranks: their collectives would mix up tensors, or wait for ever."""
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
