"""A plain GPT or BERT turned into a tensor parallel one, and read back; with or without sequence parallel.

    x ─► ln1 ─f─► q k v ─► heads ─► o ─g─► + ─► ln2 ─f─► up ─► gelu ─► down ─g─► +        f, g: the collectives
         whole    │ columns        rows │  whole        │ columns      rows  │  whole

                  f forward     f backward        g forward        g backward
    plain         nothing       all-reduce        all-reduce       nothing
    sequence      all-gather    reduce-scatter    reduce-scatter   all-gather

Plain, what lies outside of f … g is replicated: every rank does the norms and the residual sums of all tokens. With sequence
parallel each rank does those of its part of the sequence, for the same bytes.
Source: Shoeybi et al. 2019, section 3; Korthikanti et al. 2022, section 4.2.
"""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from course_lib.collectives.along import all_gather_along
from course_lib.collectives.autograd import Group, copy_to_group, split_to_group
from course_lib.layout import even_share
from course_lib.models.gpt import Attention
from course_lib.parallel.broadcast_model import attentions, become, start_as_one
from course_lib.parallel.tensor import ColumnParallelLinear, RowParallelLinear, column_parallel
from course_lib.parallel.vocabulary import VocabParallelEmbedding

SEQUENCE = 1  # the dim of the sequence in (b, s, h)


def tensor_parallelize(
    model: nn.Module, group: Group = None, *, sequence_parallel: bool = False, regather: bool = False
) -> nn.Module:
    """Split every weight matrix of a GPT or BERT of `course_lib.models` over the ranks, in place, and return the model.

    tokens (b, s) replicated  ->  logits (b, s, V/t) sharded on the vocabulary: their loss is vocab_parallel_cross_entropy.
    The weights are the group's rank 0's. Train as ever; every gradient is complete when backward returns.

    communication for each block and micro-batch, forward and backward: 8bsh(t−1)/t elements sent by each rank, in 4
    all-reduces, or with sequence_parallel in 4 all-gathers and 4 reduce-scatters. Sequence parallel also all-reduces the
    gradients of a norm, 2h elements, since a rank's part of the sequence gives only a summand of them. Once a step: the
    embedding's output, and ∂x of the head.
    regather, with sequence_parallel: keep of the gathered x only this rank's part for backward, and gather it once more there:
    10bsh(t−1)/t elements for a t-th of those bytes of memory.

    Raises ValueError if t does not divide the heads, a width or the vocabulary, and, in forward, the sequence; if the caller
    is not in the group; if the model has no Attention to split, or one that is split already.
    """
    found = attentions(model, "project")
    start_as_one(model, group)
    t, rank = dist.get_world_size(group), dist.get_rank(group)
    for attention in found:
        for name, layer in (("heads", attention.q), ("key and value heads", attention.k)):
            even_share(layer.out_features // attention.head_width, t, f"rank {rank}: the number of {name}")
    dim = SEQUENCE if sequence_parallel else None

    def column(linear: nn.Linear) -> ColumnParallelLinear:
        shape = linear.in_features, linear.out_features, linear.bias is not None
        return ColumnParallelLinear(*shape, group=group, sequence_dim=dim, regather=regather, whole=linear)

    def row(linear: nn.Linear) -> RowParallelLinear:
        shape = linear.in_features, linear.out_features, linear.bias is not None
        return RowParallelLinear(*shape, group=group, sequence_dim=dim, whole=linear)

    for module in list(model.modules()):
        if isinstance(module, Attention):
            module.q, module.k, module.v, module.o = (*map(column, (module.q, module.k, module.v)), row(module.o))
            become(module, HeadParallelAttention, group)
        elif hasattr(module, "up"):
            module.up, module.down = column(module.up), row(module.down)
        elif isinstance(module, nn.LayerNorm) and sequence_parallel:
            module.__class__, module.group = SequenceShardedNorm, group
    tied = model.head.weight is model.wte.weight
    model.wte = VocabParallelEmbedding(*model.wte.weight.shape, group=group, sequence_dim=dim, whole=model.wte)
    model.head = column(model.head)
    if tied:
        model.head.weight = model.wte.weight
    if sequence_parallel:
        model.wpe.__class__, model.wpe.group = SequenceShardedPositions, group
    return model


class HeadParallelAttention(Attention):
    """Attention by this rank's heads: x (b, s, h) -> (b, s, h), or (b, s/t, h) each with sequence parallel.

    q, k and v are column parallel by whole heads and share one message; o is row parallel.
    """

    def project(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return column_parallel(x, self.q, self.k, self.v)


class SequenceShardedNorm(nn.LayerNorm):
    """LayerNorm of this rank's tokens, (b, s/t, h). Its weight and bias enter split work, so f stands before them too.

    forward: nothing;  backward: all-reduce of their gradients, 2(t−1)/t · 2h elements sent by each rank.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias = copy_to_group(torch.stack((self.weight, self.bias)), self.group)  # one message for both
        return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


class SequenceShardedPositions(nn.Embedding):
    """Position embeddings (s/t, h) of this rank's tokens, from all s positions; backward: all-gather of ∂y."""

    def forward(self, positions: torch.Tensor) -> torch.Tensor:
        return split_to_group(super().forward(positions), 0, self.group)


class Split(NamedTuple):
    """A tensor is split along `dim`, in equal slices, over the ranks of `group`."""

    dim: int
    group: Group


def splits(model: nn.Module) -> dict[str, Split]:
    """How each split entry of the model's state_dict is split; the others are whole on every rank."""
    found = {}
    for path, module in model.named_modules():
        for kind, dim in getattr(module, "shard_dims", {}).items():
            if getattr(module, kind) is not None:
                found[f"{path}.{kind}".lstrip(".")] = Split(dim, module.group)
    return found


@torch.no_grad()
def full_state_dict(model: nn.Module) -> dict[str, torch.Tensor]:
    """The plain model's state_dict, a copy on every rank. Communication: an all-gather of every split parameter."""
    split, gathered, state = splits(model), {}, {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if tensor not in gathered:  # a tied one comes twice
            gathered[tensor] = whole(tensor.detach(), split.get(name))
        state[name] = gathered[tensor]
    return state


def whole(mine: torch.Tensor, split: Split | None) -> torch.Tensor:
    """A copy of the whole tensor, on every rank, of which `mine` is this rank's slice; of `mine` itself if it is not split."""
    if split is None:
        return mine.clone()
    return all_gather_along(mine, *split).wait().contiguous()
