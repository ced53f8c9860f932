"""Ring attention: exact attention over a sequence that is split over the ranks; keys and values go round, queries stay.

    c = 4, whose keys and values a rank works with     step 0   step 1   step 2   step 3
    rank 0                                             0        3        2        1
    rank 1                                             1        0        3        2         … while the next ones come

A rank sees one block of keys at a time, so no softmax can be finished before the last. Kept for each query are the
largest score m so far, the sum l of exp(score − m), and the sum of exp(score − m)·v; a larger m shrinks what was summed
before by exp(old m − new m). In the end the output is the quotient of the sums. L = m + log l is all that backward
needs to have the probabilities P = exp(score − L) again, block by block, while keys and values go round once more:

    D = rowsum(∂o ∘ o)    ∂S = P ∘ (∂o vᵀ − D)    ∂q = ∂S k / √d    ∂k = ∂Sᵀ q / √d    ∂v = Pᵀ ∂o

∂q stays. ∂k and ∂v of a block go round too, a step behind it, and each rank adds its summand.

c is the size of the group, |k| the elements of a rank's k. Source: Liu, Zaharia, Abbeel 2023, "Ring Attention with
Blockwise Transformers"; Dao et al. 2022, "FlashAttention", section 3 and appendix B.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch.autograd.function import once_differentiable

from course_lib.collectives.messages import Member
from course_lib.layout import nearest_multiples

TILE = 2**19  # scores that are computed at a time: 2 MB in float32, which a cache can hold


def ring_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    group: dist.ProcessGroup | None = None,
    causal: bool = False,
    zigzag: bool = True,
) -> torch.Tensor:
    """softmax(q kᵀ / √head_width) v over the whole sequence; every rank holds the part that split_sequence gave it.

    q (b, heads, s/c, head_width), k and v (b, kv_heads, s/c, head_width), sharded on the sequence  ->  as q.
    forward: c−1 messages to the next rank, each a k and a v, while it computes: 2(c−1)|k| elements sent by each rank;
    backward: c−1 such messages, and c−1 of their gradients: 4(c−1)|k| elements.
    Kept for backward: q, k, v, the output, and L, a number for each query and head. While it computes, a rank holds
    TILE scores, or those of 64 places if these are more, and in backward their gradients too.
    causal: a token sees itself and those before it. What is hidden is not computed, but for the tiles on the diagonal.
    zigzag: how the sequence was split, as in split_sequence.
    heads must be divisible by kv_heads: head i uses head i · kv_heads // heads of k, v. Computed in float32 at least.

    Raises ValueError for shapes that do not go together, for zigzag with an odd s/c, if the caller is not in the group.
    """
    me = Member.of(group)
    check_shapes(q, k, v, in_halves=zigzag and me.size > 1)
    return _RingAttention.apply(q, k, v, me, causal, zigzag)


def check_shapes(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, in_halves: bool) -> None:
    """Raise ValueError unless these are queries, keys and values of one attention, and of two chunks if in_halves."""
    fits = q.dim() == k.dim() == 4 and k.shape == v.shape and q.dtype == k.dtype == v.dtype
    fits = fits and (q.shape[0], *q.shape[2:]) == (k.shape[0], *k.shape[2:]) and q.shape[1] % k.shape[1] == 0
    if not fits:
        found = (f"{name} {tuple(x.shape)} {x.dtype}" for name, x in zip("qkv", (q, k, v), strict=True))
        raise ValueError(
            f"rank {dist.get_rank()}: {', '.join(found)} do not go together: give (b, heads, s/c, head_width) of one "
            "dtype, alike but for the heads, of which k and v have equally many, a divisor of those of q."
        )
    s = q.shape[2]
    if in_halves and s % 2:
        raise ValueError(
            f"rank {dist.get_rank()}: q of shape {tuple(q.shape)} has {s} places of the sequence, and zigzag needs two "
            f"equal chunks of it; {nearest_multiples(s, 2)} would do, or zigzag=False."
        )


class _RingAttention(torch.autograd.Function):
    """In here n = b · kv_heads; the g heads of q that share one lie together: q (n, s·g, d), k and v (n, s, d)."""

    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, me: Member, causal: bool, zigzag: bool
    ) -> torch.Tensor:
        queries = _rows(q, k) / math.sqrt(q.shape[-1])
        largest = queries.new_full((*queries.shape[:2], 1), -math.inf)  # m
        total, output = torch.zeros_like(largest), torch.zeros_like(queries)  # the sums of exp and of exp · v
        for source, kv in _around(me, torch.stack((k, v))):
            keys, values = kv.flatten(1, 2).to(queries.dtype)
            for rows, n, hidden in _tiles(me, source, queries, keys, causal, zigzag):
                scores = _scores(queries[:, rows], keys[:, :n], hidden)
                now = torch.maximum(largest[:, rows], scores.amax(-1, keepdim=True))
                powers, shrink = scores.sub_(now).exp_(), (largest[:, rows] - now).exp_()
                total[:, rows] = total[:, rows] * shrink + powers.sum(-1, keepdim=True)
                output[:, rows] = torch.baddbmm(output[:, rows] * shrink, powers, values[:, :n])
                largest[:, rows] = now
        output = _heads(output.div_(total), q)
        ctx.me, ctx.causal, ctx.zigzag = me, causal, zigzag
        ctx.save_for_backward(q, k, v, output, largest.add_(total.log_()))
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple:
        q, k, v, output, log_sum = ctx.saved_tensors
        me, scale = ctx.me, 1 / math.sqrt(q.shape[-1])
        queries, grad = _rows(q, k) * scale, _rows(grad, k)
        inner = (grad * _rows(output, k)).sum(-1, keepdim=True)  # D
        grad_q, relay = torch.zeros_like(queries), _Relay(me)
        for source, kv in _around(me, torch.stack((k, v))):
            keys, values = kv.flatten(1, 2).to(queries.dtype)
            grad_kv = torch.zeros_like(kv, dtype=queries.dtype)
            grad_k, grad_v = grad_kv.flatten(1, 2)
            for rows, n, hidden in _tiles(me, source, queries, keys, ctx.causal, ctx.zigzag):
                p = _scores(queries[:, rows], keys[:, :n], hidden).sub_(log_sum[:, rows]).exp_()
                grad_v[:, :n].baddbmm_(p.mT, grad[:, rows])
                grad_scores = torch.bmm(grad[:, rows], values[:, :n].mT).sub_(inner[:, rows]).mul_(p)
                grad_k[:, :n].baddbmm_(grad_scores.mT, queries[:, rows])
                grad_q[:, rows].baddbmm_(grad_scores, keys[:, :n])
            if source == me.rank:
                home = grad_kv
            else:
                relay.pass_on(grad_kv)
        home += relay.arrived()
        return _heads(grad_q.mul_(scale), q), *home.to(k.dtype), None, None, None


def _rows(x: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """(b, kv_heads · g, s, d) -> (b · kv_heads, s · g, d), in float32 at least."""
    x = x.to(torch.promote_types(x.dtype, torch.float32)).unflatten(1, (k.shape[1], -1))
    return x.transpose(2, 3).reshape(k.shape[0] * k.shape[1], -1, k.shape[3])


def _heads(rows: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """The inverse, in q's dtype and shape. In memory a token's heads lie side by side, as the next layer wants them."""
    b, heads, s, d = q.shape
    by_token = rows.view(b, -1, s, rows.shape[1] // s, d).transpose(1, 2).reshape(b, s, heads, d)
    return by_token.transpose(1, 2).to(q.dtype)


def _around(me: Member, here: torch.Tensor) -> Iterator[tuple[int, torch.Tensor]]:
    """(source, what that rank gave) for every rank, this one first; while the caller works with one, the next comes."""
    for step in range(me.size):
        is_last = step == me.size - 1
        if not is_last:
            coming = torch.empty_like(here)
            pending = me.receive(coming, me.rank - 1), me.send(here, me.rank + 1)
        yield (me.rank - step) % me.size, here
        if not is_last:
            for work in pending:
                work.wait()
            here = coming


class _Relay:
    """Sums on their way round: each starts at the rank after its own, and comes home from the rank before."""

    def __init__(self, me: Member):
        self.me, self.pending, self.coming = me, (), 0

    def pass_on(self, part: torch.Tensor) -> None:
        """Add this rank's part to the sum that has come, and send it to the next rank."""
        part += self.arrived()
        self.coming = torch.empty_like(part)
        self.pending = self.me.receive(self.coming, self.me.rank - 1), self.me.send(part, self.me.rank + 1)

    def arrived(self) -> torch.Tensor | int:
        """What the rank before sent last, 0 before it sent anything."""
        for work in self.pending:
            work.wait()
        return self.coming


def _tiles(
    me: Member, source: int, queries: torch.Tensor, keys: torch.Tensor, causal: bool, zigzag: bool
) -> Iterator[tuple[slice, int, int]]:
    """(rows, n, hidden): a tile of this rank's queries sees the source's first n keys, of the last `hidden` a triangle.

        zig-zag, c = 2          keys of rank 0        keys of rank 1
                                chunk 0   chunk 3     chunk 1   chunk 2
        rank 0, chunk 0         triangle
                chunk 3         all       triangle    all       all
        rank 1, chunk 1         all                   triangle
                chunk 2         all                   all       triangle

    A rank's own keys make one triangle, since its places ascend. Of an earlier rank's keys all queries see the first
    chunk; a later rank's keys are all seen by the second chunk of queries. Without zigzag, all queries see all keys of
    an earlier rank, none see those of a later one.
    """
    n, s, _ = keys.shape
    g = queries.shape[1] // s
    first, seen = 0, s
    if causal and source < me.rank:
        seen = s // 2 if zigzag else s
    elif causal and source > me.rank:
        first = s // 2 if zigzag else s
    height = max(64, TILE // (n * g * s))
    for start in range(first, s, height):
        stop = min(start + height, s)
        rows = slice(start * g, stop * g)
        yield (rows, stop, stop - start) if causal and source == me.rank else (rows, seen, 0)


def _scores(queries: torch.Tensor, keys: torch.Tensor, hidden: int) -> torch.Tensor:
    """(n, tile · g, d) and (n, keys, d) -> (n, tile · g, keys), −∞ where a key comes after the query."""
    scores = torch.bmm(queries, keys.mT)
    if hidden:
        future = torch.ones(hidden, hidden, dtype=torch.bool, device=scores.device).triu_(1)
        scores[..., -hidden:].masked_fill_(future.repeat_interleave(scores.shape[1] // hidden, 0), -math.inf)
    return scores
