"""Parameters side by side in one flat tensor that is cut into a chunk a rank: what ZeRO-1 and ZeRO-2 send and update."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import nn


class Piece(NamedTuple):
    """The part of a parameter that lies in this rank's chunk: `values` is 1-D, a view of elements start to stop."""

    parameter: nn.Parameter
    start: int
    stop: int
    values: torch.Tensor


class ShardedBucket:
    """Parameters of one dtype in a flat tensor of n equal chunks; rank r of `group` owns chunk r.

        | weight . . . . . . . . | bias . | weight . . . . . 0 |    0: padding, so that n divides the length
        |   chunk 0   |   chunk 1   |   chunk 2   |  chunk 3   |

    Each parameter becomes a view of its place, so that whoever changes the flat tensor changes the parameters.
    Communication, for Ψ elements, n ranks: at the start a broadcast of rank 0's values; `send` and `receive` together
    are a reduce-scatter, `gather` is an all-gather: each rank sends (n−1)/n · Ψ, and keeps Ψ/n.
    """

    def __init__(self, parameters: list[nn.Parameter], group: dist.ProcessGroup | None):
        self.parameters = parameters
        self.group = group
        self.missing = set(parameters)  # of these `take` has not had the gradient yet
        self.shard: torch.Tensor | None = None  # the mean gradient of this rank's chunk
        self._whole: torch.Tensor | None = None  # this rank's gradient of the whole bucket, while it is made
        self._received: torch.Tensor | None = None  # every rank's gradient of this rank's chunk, in a row
        self._starts, total = {}, 0
        for p in parameters:
            self._starts[p] = total
            total += p.numel()
        n, rank = dist.get_world_size(group), dist.get_rank(group)
        chunk = -(-total // n)
        self._flat = parameters[0].new_zeros(n * chunk)
        self._own = slice(rank * chunk, (rank + 1) * chunk)
        self._padding = slice(total, n * chunk)
        for p in parameters:
            self._place_of(p, self._flat).copy_(p.detach())
        dist.broadcast(self._flat, group=group, group_src=0)
        for p in parameters:
            p.data = self._place_of(p, self._flat)

    def _place_of(self, p: nn.Parameter, flat: torch.Tensor) -> torch.Tensor:
        return flat[self._starts[p] : self._starts[p] + p.numel()].view(p.shape)

    def pieces(self) -> Iterator[Piece]:
        """The parts of parameters that lie in this rank's chunk, in order; none if the chunk is padding alone."""
        for p in self.parameters:
            at = self._starts[p]
            start, stop = max(self._own.start, at), min(self._own.stop, at + p.numel())
            if start < stop:
                yield Piece(p, start - at, stop - at, self._flat[start:stop])

    def gradient_of(self, piece: Piece) -> torch.Tensor:
        """The mean gradient of a piece: a view of the shard."""
        start = self._starts[piece.parameter] + piece.start - self._own.start
        return self.shard[start : start + len(piece.values)]

    def take(self, p: nn.Parameter) -> None:
        """Copy a parameter's gradient to its place in the message. Raises RuntimeError if it cannot be this one's turn."""
        if p.grad is None or p not in self.missing:
            raise RuntimeError(
                f"a parameter of shape {tuple(p.shape)} has two gradients in one backward, or another ShardedOptimizer "
                "takes them: use one ShardedOptimizer a model, and checkpoint(..., use_reentrant=False)."
            )
        if self._whole is None:
            self._whole = torch.empty_like(self._flat)
        self._place_of(p, self._whole).copy_(p.grad)
        self.missing.remove(p)

    def send(self) -> None:
        """Start to send each rank the gradient of its chunk; what is missing counts as zero."""
        if self._whole is None:
            self._whole = torch.empty_like(self._flat)
        self._whole[self._padding] = 0
        for p in self.missing:
            self._place_of(p, self._whole).zero_()
        self.missing = set(self.parameters)
        self._received = torch.empty_like(self._whole)
        self._work = dist.all_to_all_single(self._received, self._whole, group=self.group, async_op=True)

    def receive(self) -> None:
        """Wait for everybody's gradient of this rank's chunk, and add their mean to the shard."""
        self._work.wait()
        mean = self._received.view(dist.get_world_size(self.group), -1).mean(0)  # (n, chunk) -> (chunk,)
        self.shard = mean if self.shard is None else self.shard.add_(mean)
        self._whole = self._received = self._work = None

    def gather(self) -> dist.Work:
        """Start to collect all ranks' chunks into the parameters."""
        return dist.all_gather_single(self._flat, self._flat[self._own], group=self.group, async_op=True)
