"""Context parallel: the sequence is split over the ranks of a group, and every rank holds all weights.

All of a transformer but attention works on each token by itself and needs no message. For attention there are two ways:

                   ring (see ring_attention.py)              all to all
    a rank has     some queries, one block of keys a time    some heads, the whole sequence
    messages       c−1 forward, 2(c−1) backward, hidden      2 all-to-alls each way, waited for
    elements sent  2(c−1)|k|, 4(c−1)|k|                      (c−1)/c · 2(|q| + |k|) each way
    c is bounded   by the sequence                           by the heads of k and v

c is the size of the group, |q| and |k| the elements of a rank's q and k. Training is data parallel over tokens:

    model = DataParallel(context_parallelize(GPT(...), group), group)
    x, y = split_sequence(tokens, 1, group), split_sequence(targets, 1, group)
    loss = cross_entropy(model(x, local_positions(s, group)), y)

DataParallel's mean over the ranks is right since all have equally many targets. Where some are ignored, as in BERT's
loss, each rank's loss must be c times its sum divided by the number of targets of all ranks.

Source: Liu, Zaharia, Abbeel 2023, "Ring Attention"; Jacobs et al. 2023, "DeepSpeed Ulysses"; for the split in 2c chunks
Dubey et al. 2024, "The Llama 3 Herd of Models", section 3.3.2.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from course_lib.collectives.autograd import Group, gather_from_group
from course_lib.collectives.messages import Member
from course_lib.layout import even_share, nearest_multiples
from course_lib.models.gpt import Attention
from course_lib.parallel.broadcast_model import attentions, become
from course_lib.parallel.ring_attention import check_shapes, ring_attention


def split_sequence(x: torch.Tensor, dim: int = 1, group: Group = None, *, zigzag: bool = True) -> torch.Tensor:
    """This rank's part of the sequence, which lies along dim.

        zigzag, c = 2      chunk 0   chunk 1   chunk 2   chunk 3        zigzag=False     half 0   half 1
                           rank 0    rank 1    rank 1    rank 0                          rank 0   rank 1

    x (…, s, …) replicated  ->  (…, s/c, …) sharded on dim. Communication: none.
    Under a causal mask a late token has more to see than an early one. Of 2c chunks rank r takes chunk r and chunk
    2c−1−r, one early and one late, so that all ranks have equally much to do. With zigzag=False it takes the r-th of c.
    Raises ValueError if 2c (with zigzag=False, or on one rank: c) does not divide s, if the caller is not in the group.
    """
    me = Member.of(group)
    s, chunks = x.shape[dim], _num_chunks(me.size, zigzag)
    if s % chunks:
        raise ValueError(
            f"rank {dist.get_rank()}: dim {dim} of {tuple(x.shape)} is {s}, which {me.size} ranks cannot "
            f"have in {chunks} equal chunks; {nearest_multiples(s, chunks)} would do."
        )
    return _cut(x, dim, me.size, zigzag)[me.rank].contiguous()


def local_positions(
    s: int, group: Group = None, *, zigzag: bool = True, device: torch.device | None = None
) -> torch.Tensor:
    """Where in a sequence of s tokens those of this rank stand, (s/c,) int64, for `model(tokens, positions)`.

    Communication: none. Raises ValueError as split_sequence does.
    """
    return split_sequence(torch.arange(s, device=device), 0, group, zigzag=zigzag)


def join_sequence(x: torch.Tensor, dim: int = 1, group: Group = None, *, zigzag: bool = True) -> torch.Tensor:
    """The whole sequence from the ranks' parts, in its true order: what split_sequence cut.

    x (…, s/c, …) sharded on dim  ->  (…, s, …) replicated, for a use that is the same on every rank.
    forward: all-gather of x, (c−1)|x| elements sent by each rank, after one of 8 bytes;  backward: nothing.
    Raises ValueError if the parts differ in size, or if the caller is not in the group.
    """
    c = Member.of(group).size
    return _join(gather_from_group(x, dim, group).chunk(c, dim), dim, zigzag)


def all_to_all_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, group: Group = None, causal: bool = False, zigzag: bool = True
) -> torch.Tensor:
    """softmax(q kᵀ / √head_width) v over the whole sequence: ranks trade parts of the sequence for parts of the heads.

        (b, heads, s/c, d)  ─ all-to-all ─►  (b, heads/c, s, d)  ─ attention, all-to-all ─►  (b, heads, s/c, d)

    q (b, heads, s/c, head_width), k and v (b, kv_heads, s/c, head_width), sharded on the sequence  ->  as q.
    forward: one all-to-all of q, k and v, one of the output: (c−1)/c · 2(|q| + |k|) elements sent by each rank;
    backward: the same of their gradients.
    heads and kv_heads must be divisible by c. zigzag: how the sequence was split, as in split_sequence.

    Raises ValueError if they are not, for shapes that do not go together, for zigzag with an odd s/c, and if the caller
    is not in the group.
    Source: Jacobs et al. 2023, "DeepSpeed Ulysses", section 3.
    """
    c = Member.of(group).size
    check_shapes(q, k, v, in_halves=zigzag and c > 1)
    _check_heads(q.shape[1], k.shape[1], group)
    heads = [q.shape[1] // c, k.shape[1] // c, k.shape[1] // c]
    parts = zip(*(x.chunk(c, 1) for x in (q, k, v)), strict=True)  # for each rank its heads of q, k and v
    arrived = _AllToAll.apply(torch.stack([torch.cat(part, 1) for part in parts]), group)  # (c, b, …, s/c, d)
    q, k, v = _join(arrived.unbind(), 2, zigzag).split(heads, 1)  # (b, heads/c, s, d)
    output = F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=heads[0] != heads[1])
    return torch.cat(_AllToAll.apply(torch.stack(_cut(output, 2, c, zigzag)), group).unbind(), 1)


def context_parallelize(
    model: nn.Module, group: Group = None, *, method: str = "ring", zigzag: bool = True
) -> nn.Module:
    """Let every Attention of a plain model of `course_lib.models` attend across the ranks, in place; returns the model.

    tokens (b, s/c) and their positions (s/c,)  ->  logits (b, s/c, V), all of this rank's part of the sequence.
    method: "ring" or "all_to_all".  zigzag: how the sequence is split, as in split_sequence and local_positions.
    The weights stay whole and are left as they are: `DataParallel` makes them equal, and averages their gradients.
    Communication: none here; in forward and backward that of the method, for each Attention.

    Raises ValueError for another method, if the model has no Attention or one that is split already, if the caller is not in the group, and for
    "all_to_all" if c does not divide the heads, those of keys and values too.
    """
    kinds = {"ring": RingAttention, "all_to_all": AllToAllAttention}
    if method not in kinds:
        raise ValueError(f"method is {method!r}: attention goes across ranks by {' or '.join(kinds)}.")
    Member.of(group)
    found = attentions(model, "attend")
    for attention in found:
        if method == "all_to_all":
            widths = attention.q.out_features, attention.k.out_features
            _check_heads(*(width // attention.head_width for width in widths), group)
        become(attention, kinds[method], group)
        attention.group, attention.zigzag = group, zigzag
    return model


class RingAttention(Attention):
    """Attention of this rank's queries to all keys, by ring_attention: x (b, s/c, width) -> (b, s/c, width)."""

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return ring_attention(q, k, v, group=self.group, causal=self.causal, zigzag=self.zigzag)


class AllToAllAttention(Attention):
    """Attention of all queries in some of the heads, by all_to_all_attention: x (b, s/c, width) -> (b, s/c, width)."""

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return all_to_all_attention(q, k, v, group=self.group, causal=self.causal, zigzag=self.zigzag)


class _AllToAll(torch.autograd.Function):
    """y[i] on rank r is x[r] of rank i, (c, …) -> (c, …); its own backward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, group: Group) -> torch.Tensor:
        ctx.group = group
        y, x = torch.empty_like(x), x.contiguous()
        dist.all_to_all_single(y, x, group=group)
        return y

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return _AllToAll.apply(grad, ctx.group), None


def _num_chunks(c: int, zigzag: bool) -> int:
    return 2 * c if zigzag and c > 1 else c


def _cut(x: torch.Tensor, dim: int, c: int, zigzag: bool) -> list[torch.Tensor]:
    """The parts of all c ranks."""
    chunks = x.chunk(_num_chunks(c, zigzag), dim)
    if len(chunks) == c:
        return list(chunks)
    return [torch.cat((chunks[r], chunks[-1 - r]), dim) for r in range(c)]


def _join(parts: Sequence[torch.Tensor], dim: int, zigzag: bool) -> torch.Tensor:
    """The whole from the parts of all ranks."""
    if _num_chunks(len(parts), zigzag) > len(parts):
        early, late = zip(*(part.chunk(2, dim) for part in parts), strict=True)
        parts = [*early, *reversed(late)]
    return torch.cat(parts, dim)


def _check_heads(heads: int, kv_heads: int, group: Group) -> None:
    c, rank = dist.get_world_size(group), dist.get_rank(group)
    even_share(heads, c, f"rank {rank}: the number of heads")
    even_share(kv_heads, c, f"rank {rank}: the number of key and value heads")
