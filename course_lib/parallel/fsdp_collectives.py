"""Parameters that travel together, each rank with its rows of every one: the all-gather and the reduce-scatter of a message."""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from course_lib.layout import Shard, shard_shape

Places = list[tuple[nn.Module, str]]


@dataclass
class Piece:
    """One parameter: `shard` (a module's parameter from now on) holds this rank's rows of the whole of `shape`.

    Every rank sends the same number of elements, `size`: as many rows as the first rank has, the last ranks' filled up.
    """

    shape: torch.Size
    places: Places  # every module and name under which it is used: more than one if it is tied
    shard: nn.Parameter
    size: int
    offset: int  # of its elements within what a rank sends


class Message:
    """The pieces that travel as one message. Dim 0 of each is split by the rule of torch.chunk.

    home (size,)                 this rank's rows of every piece, one after the other: what an all-gather sends
    flat (world_size · size,)    every piece whole, one after the other: what a gather leaves
    """

    def __init__(self, parameters: dict[nn.Parameter, Places], group: dist.ProcessGroup | None):
        self.group = group
        self.rank, self.world_size = dist.get_rank(group), dist.get_world_size(group)
        sizes = [self._shape(p, rank=0).numel() for p in parameters]
        first = next(iter(parameters))
        self.size = sum(sizes)
        self.home = first.new_zeros(self.size)
        self.pieces = []
        offset = 0
        for (parameter, places), size in zip(parameters.items(), sizes, strict=True):
            shape = self._shape(parameter, self.rank)
            mine = self.home[offset : offset + shape.numel()].view(shape)
            rows = parameter.detach().reshape(-1, *parameter.shape[1:])  # a scalar counts as one row
            mine.copy_(rows.chunk(self.world_size)[self.rank] if mine.numel() else mine)
            shard = nn.Parameter(mine, parameter.requires_grad)
            self.pieces.append(Piece(parameter.shape, places, shard, size, offset))
            offset += size
        self.trained = [piece for piece in self.pieces if piece.shard.requires_grad]

    def _shape(self, parameter: nn.Parameter, rank: int) -> torch.Size:
        return torch.Size(shard_shape(parameter.shape or (1,), Shard(0), self.world_size, rank))

    def whole(self, flat: torch.Tensor, piece: Piece) -> torch.Tensor:
        """The part of `flat` that a piece has, filling included, one row a rank: (world_size, piece.size)."""
        start, length = self.world_size * piece.offset, self.world_size * piece.size
        return flat[start : start + length].view(self.world_size, piece.size)


class Gather:
    """An all-gather of one message into `flat`, under way: each of n ranks sends `size` elements to the n−1 others.

    A piece that travels alone arrives where it belongs; several arrive rank by rank and are then copied into place.
    """

    def __init__(self, message: Message, flat: torch.Tensor):
        self.message, self.flat = message, flat
        alone = len(message.pieces) == 1
        if alone:
            flat.untyped_storage().resize_(flat.nbytes)
        self.arrived = flat if alone else torch.empty_like(flat)
        home = message.home.to(flat.dtype)
        self.work = dist.all_gather_single(self.arrived, home, group=message.group, async_op=True)

    @torch.no_grad()
    def finish(self) -> None:
        self.work.wait()
        if self.arrived is not self.flat:
            self.flat.untyped_storage().resize_(self.flat.nbytes)  # only now: until here one copy is enough
            by_rank = self.arrived.view(self.message.world_size, self.message.size)
            for piece in self.message.pieces:
                mine = by_rank[:, piece.offset : piece.offset + piece.size]
                self.message.whole(self.flat, piece).copy_(mine)


class Reduction:
    """A reduce-scatter of one message's gradients, under way: every rank gets the mean of what belongs to its shards.

    As an all-to-all, each of n ranks sending 1/n of its gradients to each other one, and a sum of what came: gloo's own
    reduce-scatter takes longer for large messages (tests/benchmarks has both). Low-precision gradients are added up in the dtype of the shards. One flag
    a parameter goes to everyone, to tell a gradient of zero from one that nobody has.
    """

    @torch.no_grad()
    def __init__(self, message: Message, gradients: list[torch.Tensor | None], dtype: torch.dtype):
        self.message = message
        self.has_all = all(gradient is not None for gradient in gradients)
        n, count = message.world_size, len(message.trained)
        sent = message.home.new_zeros((n, sum(piece.size for piece in message.trained) + count), dtype=dtype)
        slots = sent.split([*(piece.size for piece in message.trained), count], dim=1)
        for index, gradient in enumerate(gradients):
            if gradient is None:
                continue
            slots[-1][:, index] = 1
            full_ranks, left = divmod(gradient.numel(), message.trained[index].size or 1)
            flat, slot = gradient.reshape(-1), slots[index]
            slot[:full_ranks].copy_(flat[: full_ranks * slot.shape[1]].view(full_ranks, -1))
            if left:
                slot[full_ranks, :left] = flat[-left:]
        self.sent, self.received = sent, torch.empty_like(sent)
        self.work = dist.all_to_all_single(self.received, sent, group=message.group, async_op=True)

    def held(self) -> list[torch.Tensor]:
        """What takes memory while it is under way."""
        return [self.sent, self.received]

    @torch.no_grad()
    def finish(self) -> None:
        """Wait, and add the mean to each shard's gradient."""
        self.work.wait()
        message = self.message
        total = self.received.sum(0, dtype=message.home.dtype)
        count = len(message.trained)
        used = [True] * count if self.has_all else total[-count:].tolist()
        total[:-count] /= message.world_size
        offset = 0
        for piece, is_used in zip(message.trained, used, strict=True):
            shard = piece.shard
            mean = total[offset : offset + shard.numel()].view_as(shard)
            offset += piece.size
            if is_used and shard.grad is None:
                shard.grad = mean
            elif is_used:
                shard.grad += mean
