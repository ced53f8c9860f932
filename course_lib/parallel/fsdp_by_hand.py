"""Fully sharded data parallel by hand, for a chain of layers: what `FullyShardedDataParallel` does for any model, by hooks.

forward    layer by layer:  all-gather ─► compute ─► free
backward   layer by layer:  all-gather ─► compute again, backward ─► free, reduce-scatter the gradients
"""

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from course_lib.parallel.broadcast_model import start_as_one


class ShardedLayer:
    """A layer of which each of n ranks keeps 1/n of the elements, filled up with zeros: `shard`, what an optimizer steps."""

    def __init__(self, layer: nn.Module, group: dist.ProcessGroup | None = None):
        start_as_one(layer, group)
        self.layer, self.group, self.n = layer, group, dist.get_world_size(group)
        self.shapes = {name: p.shape for name, p in layer.named_parameters()}
        self.shard = nn.Parameter(self._flat(list(layer.parameters())).chunk(self.n)[dist.get_rank(group)].clone())
        for p in layer.parameters():
            p.data = p.new_empty(0)  # whole parameters are there only while they are used

    def _flat(self, tensors: Sequence[torch.Tensor]) -> torch.Tensor:
        flat = torch.cat([t.detach().flatten() for t in tensors])
        return F.pad(flat, (0, -len(flat) % self.n))

    def gather(self) -> dict[str, torch.Tensor]:
        """The whole parameters by name: an all-gather, (n−1)/n of their elements sent by each rank."""
        flat = self.shard.new_empty(self.n * len(self.shard))
        dist.all_gather_single(flat, self.shard.detach(), group=self.group)
        sizes = [shape.numel() for shape in self.shapes.values()]
        parts = zip(self.shapes.items(), flat[: sum(sizes)].split(sizes), strict=True)
        return {name: part.view(shape).requires_grad_() for (name, shape), part in parts}

    def reduce_scatter(self, whole: dict[str, torch.Tensor]) -> None:
        """This rank's shard of the mean gradient: as many elements sent again."""
        self.shard.grad = torch.empty_like(self.shard)
        dist.reduce_scatter_single(self.shard.grad, self._flat([p.grad for p in whole.values()]), group=self.group)
        self.shard.grad /= self.n


def fsdp_by_hand(layers: Sequence[ShardedLayer], x: torch.Tensor, loss_of: Callable) -> torch.Tensor:
    """Forward and backward of this rank's part of the batch; returns loss_of(y), and leaves a gradient on every shard.

    Only the inputs of the layers are kept; what else backward needs is computed again from them.
    communication: 3 (n−1)/n · Ψ elements sent by each of n ranks, for Ψ parameters: two gathers and a reduce-scatter.
    """
    inputs = []
    for layer in layers:
        inputs.append(x)
        with torch.no_grad():
            x = functional_call(layer.layer, layer.gather(), (x,))
    y = x.requires_grad_()
    loss = loss_of(y)
    loss.backward()
    gradient = y.grad
    for layer, x in zip(reversed(layers), reversed(inputs), strict=True):
        whole, x = layer.gather(), x.detach().requires_grad_()
        functional_call(layer.layer, whole, (x,)).backward(gradient)
        layer.reduce_scatter(whole)
        gradient = x.grad
    return loss.detach()
