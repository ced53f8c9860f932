"""The two ends of a language model with the vocabulary split over the ranks of a group: rank r has tokens rV/t … (r+1)V/t − 1.

t is the size of the group, V the vocabulary, n the tokens of a batch. The logits, n × V, are the largest tensor of many a
model: they are never gathered.
Source: Shoeybi et al. 2019, "Megatron-LM", section 3.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from course_lib.collectives.autograd import Group, reduce_from_group, reduce_scatter_sequence
from course_lib.parallel.broadcast_model import start_as_one
from course_lib.parallel.tensor import take_slices


class VocabParallelEmbedding(nn.Module):
    """nn.Embedding with its rows, one a token, split over the ranks: a rank gives zeros for tokens that it does not have.

    tokens (…) int64 replicated  ->  (…, embedding_dim) replicated.  weight (num_embeddings / t, embedding_dim).
    forward: all-reduce, 2(t−1)/t · n · embedding_dim elements sent by each rank;  backward: nothing.
    sequence_dim: the result is this rank's part of that dim only. forward: reduce-scatter;  backward: all-gather.
    whole: the plain embedding to take this rank's rows of; unless given, a new nn.Embedding of the group's rank 0.

    Raises ValueError if t does not divide num_embeddings, IndexError for a token that no rank has.
    """

    shard_dims = {"weight": 0}

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        group: Group = None,
        sequence_dim: int | None = None,
        whole: nn.Embedding | None = None,
    ):
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.group, self.sequence_dim = group, sequence_dim
        if whole is None:
            whole = nn.Embedding(num_embeddings, embedding_dim)
            start_as_one(whole, group)
        take_slices(self, whole)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        local, elsewhere = _local(tokens, len(self.weight), self.group, "token")
        rows = F.embedding(local, self.weight).masked_fill(elsewhere.unsqueeze(-1), 0)
        if self.sequence_dim is None:
            return reduce_from_group(rows, self.group)
        return reduce_scatter_sequence(rows, self.sequence_dim, self.group)

    def extra_repr(self) -> str:
        """What print(layer) shows."""
        return f"{self.num_embeddings}, {self.embedding_dim}, holds {tuple(self.weight.shape)}"


def vocab_parallel_cross_entropy(
    logits: torch.Tensor, targets: torch.Tensor, *, group: Group = None, ignore_index: int = -100
) -> torch.Tensor:
    """F.cross_entropy of logits whose vocabulary is split over the ranks: the mean over all targets but ignore_index.

    logits (…, V/t) sharded on the last dim, targets (…) int64 replicated  ->  loss () replicated.
    forward: all-reduces of n maxima and of 2n sums, 2(t−1)/t · 3n elements sent by each rank;  backward: nothing.
    The gradient is that of one loss, which every rank has: each rank calls backward() on its copy.

    Raises ValueError if the shapes do not go together, IndexError for a target that no rank has.
    """
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"rank {dist.get_rank(group)}: logits of shape {tuple(logits.shape)} need targets of shape "
            f"{tuple(logits.shape[:-1])}, one a row, not {tuple(targets.shape)}."
        )
    return _CrossEntropy.apply(logits, targets, group, ignore_index)


class _CrossEntropy(torch.autograd.Function):
    """−log softmax(z)[y] = log Σⱼ exp(zⱼ − m) − (z_y − m), where m is the largest z of all ranks, so that no exp overflows."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor, group: Group, ignore_index: int):
        ignored = targets == ignore_index
        local, elsewhere = _local(targets.masked_fill(ignored, 0), logits.shape[-1], group, "target")
        largest = logits.amax(-1)
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
        shifted = logits - largest.unsqueeze(-1)
        mine = shifted.gather(-1, local.unsqueeze(-1)).squeeze(-1).masked_fill(elsewhere, 0)
        powers = shifted.exp_()
        sums = torch.stack((powers.sum(-1), mine))  # (2, …): both in one message
        dist.all_reduce(sums, group=group)
        weights = (~ignored).to(logits.dtype)
        weights /= weights.sum()
        ctx.save_for_backward(powers.div_(sums[0].unsqueeze(-1)), local, elsewhere, weights)
        return ((sums[0].log() - sums[1]) * weights).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple:
        probabilities, local, elsewhere, weights = ctx.saved_tensors
        hit = torch.where(elsewhere, 0.0, 1.0).to(probabilities.dtype).unsqueeze(-1)
        grad_logits = probabilities.scatter_add(-1, local.unsqueeze(-1), -hit)
        return grad_logits.mul_((weights * grad).unsqueeze(-1)), None, None, None


def _local(tokens: torch.Tensor, held: int, group: Group, what: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(index into this rank's rows, 0 for those elsewhere; which are elsewhere), for tokens of the whole vocabulary."""
    total = held * dist.get_world_size(group)
    if tokens.numel():
        low, high = (int(v) for v in tokens.aminmax())
        if low < 0 or high >= total:
            bad = low if low < 0 else high
            raise IndexError(
                f"rank {dist.get_rank(group)}: {what} {bad} is not in the vocabulary of {total}: they go from 0 to {total - 1}."
            )
    local = tokens - held * dist.get_rank(group)
    elsewhere = (local < 0) | (local >= held)
    return local.masked_fill(elsewhere, 0), elsewhere
