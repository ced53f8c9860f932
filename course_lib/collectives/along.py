"""torch.distributed's all-gather and reduce-scatter join and cut dim 0; here they do so along any dim, while one computes.

All return at once; `.wait()` gives the tensor.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Pending:
    """A collective under way: `wait()` for its result, once."""

    work: dist.Work
    result: Callable[[], torch.Tensor]

    def wait(self) -> torch.Tensor:
        """What the collective gives this rank, as soon as it is there."""
        self.work.wait()
        return self.result()


def all_reduce_in_place(x: torch.Tensor, group: dist.ProcessGroup | None) -> Pending:
    """x becomes the sum over the ranks: 2(t−1)/t · |x| bytes sent by each of t ranks."""
    return Pending(dist.all_reduce(x, group=group, async_op=True), lambda: x)


def all_gather_along(x: torch.Tensor, dim: int, group: dist.ProcessGroup | None) -> Pending:
    """(…, k, …) on each rank -> (…, t·k, …), in the order of the ranks: (t−1) · |x| bytes sent by each of t ranks."""
    t = dist.get_world_size(group)
    parts = x.new_empty(t * x.shape[0], *x.shape[1:])
    work = dist.all_gather_single(parts, x.contiguous(), group=group, async_op=True)
    parts = parts.view(t, *x.shape)  # (t, …, k, …)
    return Pending(work, lambda: parts.movedim(0, dim).flatten(dim, dim + 1))  # no copy where dim is 0


def reduce_scatter_along(x: torch.Tensor, dim: int, group: dist.ProcessGroup | None) -> Pending:
    """(…, t·k, …) on each rank -> this rank's part (…, k, …) of their sum: (t−1)/t · |x| bytes sent by each of t ranks."""
    t = dist.get_world_size(group)
    parts = x.unflatten(dim, (t, x.shape[dim] // t)).movedim(dim, 0).contiguous()  # (t, …, k, …)
    mine = torch.empty_like(parts[0])
    work = dist.reduce_scatter_single(mine, parts.flatten(0, 1), group=group, async_op=True)
    return Pending(work, lambda: mine)
