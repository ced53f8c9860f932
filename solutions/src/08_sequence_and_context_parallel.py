# %% [markdown]
# # Exercise 08 · Sequence and context parallel
#
# First you cut along the sequence what tensor parallel leaves whole: the norm, the sum, and what is kept for backward. Then you cut attention itself: a
# softmax in pieces, and the ring. Ten minutes each. Replace every `raise NotImplementedError(...)`, run the cell, then the check below it.
#
# The checks compare with one process, in float64, on one to four ranks; **and they count** bytes, messages, and what is held. (They are
# folded; click the dots to read one.) To have the whole notebook graded: `course check exercises/08_sequence_and_context_parallel.ipynb`

# %%
import math
import time

import torch
import torch.distributed as dist
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from course_lib import launch, span
from course_lib.collectives.autograd import copy_to_group, gather_sequence, reduce_scatter_sequence
from course_lib.grading import check, seed
from course_lib.memory import MemoryMeter

# %% [markdown]
# What the checks use: random numbers, a rank's part of them, and a count of what was sent. Of $V$ bytes in all, a reduce-scatter or an all-gather sends
# $(t-1)V$ over all ranks together, an all-reduce $2(t-1)V$.


# %% id="support-numbers" jupyter={"source_hidden": true}
def numbers(secret, *shape):
    """Random numbers of this shape, float64; the same for the same secret."""
    generator = torch.Generator().manual_seed(secret)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def part(x, dim, rank=None, n=None):
    """A rank's part of x, cut along dim; this rank's if none is named."""
    n = dist.get_world_size() if n is None else n
    return x.chunk(n, dim)[dist.get_rank() if rank is None else rank].clone()


def parts(x, dim, n):
    """The parts of all n ranks."""
    return [part(x, dim, rank, n) for rank in range(n)]


def of_each(runs, name):
    """One result of every rank, for each number of ranks."""
    return {f"{n} ranks": [rank[name] for rank in run] for n, run in runs.items()}


def backward(y, weights):
    """Backward of the weighted sum of y, if there is a weight for each of its numbers."""
    if y.shape == weights.shape:
        (y * weights).sum().backward()


def bytes_sent(run):
    """How many bytes all ranks together sent."""
    return round(sum(event.ring_bytes for event in run.trace.events))


SIZES_ASKED = 4 * 8 * 4  # bytes, times n - 1: gather_sequence asks first how much each rank has, in 8 bytes

# %% [markdown]
# ## 8.1 Half a block on a part of the tokens
#
# Write $y = x + \mathrm{MLP}(\mathrm{norm}(x))$, with $\mathrm{MLP}(z) = \mathrm{gelu}(zA)\,B$ and a norm that has a weight $\gamma$:
# `F.layer_norm(x, gamma.shape, gamma)`. Each of $t$ ranks has
#
# | | shape | |
# |---|---|---|
# | `x` | $(b, s/t, h)$ | its tokens |
# | `gamma` | $(h,)$ | all of it, the same on each rank |
# | `A`, `B` | $(h, f/t)$, $(f/t, h)$ | its columns of one, its rows of the other |
#
# and returns $y$ of its tokens, $(b, s/t, h)$. Backward must be right as well: for `x`, `A` and `B` of what is this rank's, and for `gamma` of
# all. `gather_sequence`, `reduce_scatter_sequence` and `copy_to_group` bring their backward along.
#
# Cost, in both directions together: two all-gathers and two reduce-scatters of $bsh$ numbers, and one all-reduce of $h$ (and the 8 bytes a rank in which `gather_sequence` asks for sizes). The norm sees $s/t$ tokens
# only, and **one tensor of $(b, s, h)$ is kept for backward.** Which is it?
#
# See for yourself, before the check says so: `run = launch(rank_halves, 4, half_block, 0)` has each rank's `"y"`, `"∂γ"` and so on. Put the $y$
# together, `torch.cat([rank["y"] for rank in run], 1)`: it must be `whole_half(0)["y"]`, the formula in one process.


# %% id="support-8-1" jupyter={"source_hidden": true}
BATCH, TOKENS, WIDTH, MIDDLE = 2, 12, 10, 36  # b, s, h, f


def half_data(secret):
    """x, gamma, A, B, and a weight for each number in y, so that the loss is their sum."""
    x, w = numbers(5 * secret, 2, BATCH, TOKENS, WIDTH)
    gamma = 1 + numbers(5 * secret + 1, WIDTH) / 4
    A, B = numbers(5 * secret + 2, WIDTH, MIDDLE) / 3, numbers(5 * secret + 3, MIDDLE, WIDTH) / 5
    return x, gamma, A, B, w


def rank_halves(answer, secret):
    """On a rank: the answer forward and backward; results, gradients, and how many whole tensors it keeps."""
    x, gamma, A, B, w = half_data(secret)
    x, gamma, A, B = mine = part(x, 1), gamma, part(A, 1), part(B, 0)
    kept = set()

    def note(tensor):
        if tensor.numel() == BATCH * TOKENS * WIDTH:
            kept.add(tensor.untyped_storage().data_ptr())
        return tensor.detach()

    for tensor in mine:
        tensor.requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        y = answer(x, gamma, A, B)
    backward(y, part(w, 1))
    return {"y": y, "∂x": x.grad, "∂γ": gamma.grad, "∂A": A.grad, "∂B": B.grad, "whole": len(kept)}


def whole_half(secret):
    """The same in one process, without an answer."""
    *tensors, w = half_data(secret)
    x, gamma, A, B = (tensor.requires_grad_() for tensor in tensors)
    y = x + F.gelu(F.layer_norm(x, gamma.shape, gamma) @ A) @ B
    (y * w).sum().backward()
    return {"y": y.detach(), "∂x": x.grad, "∂γ": gamma.grad, "∂A": A.grad, "∂B": B.grad}


def half_of_each(name, secret):
    """What each of 1, 2 and 4 ranks should have."""
    whole, dim = whole_half(secret)[name], {"y": 1, "∂x": 1, "∂A": 1, "∂B": 0}.get(name)
    return {f"{n} ranks": [whole] * n if dim is None else parts(whole, dim, n) for n in (1, 2, 4)}


# %% id="answer-8-1"
def half_block(x, gamma, A, B):
    """y = x + MLP(norm(x)) of this rank's tokens, (b, s/t, h)."""
    ### BEGIN SOLUTION 8.1: gather, two products, reduce-scatter
    ### HINT norm, gather along the sequence (dim 1), A, gelu, B, reduce-scatter along it, add x. And gamma?
    z = F.layer_norm(x, gamma.shape, copy_to_group(gamma))
    z = gather_sequence(z, 1)
    return x + reduce_scatter_sequence(F.gelu(z @ A) @ B, 1)
    ### END SOLUTION


# %% id="check-8-1" jupyter={"source_hidden": true}
with check("8.1") as c:
    runs = {n: launch(rank_halves, n, half_block, seed(), timeout_s=20) for n in (1, 2, 4)}
    for name, hint in (
        (
            "y",
            "reduce_scatter adds the ranks' products up along dim 1; x is added after it, once, to this rank's tokens",
        ),
        (
            "∂A",
            "A works on all tokens: gather_sequence along dim 1 in front of it, the norm with gamma before that",
        ),
        (
            "∂B",
            "B's gradient needs ∂y of all tokens: reduce_scatter_sequence gathers it in backward, along dim 1",
        ),
        (
            "∂x",
            "each rank's columns give a part of ∂z: gather_sequence adds the parts up in backward, nothing else may",
        ),
        (
            "∂γ",
            "gamma is whole and works on cut tokens, so its gradients are added up: what stands before such a tensor?",
        ),
    ):
        c.equal(name, of_each(runs, name), lambda name=name: half_of_each(name, seed()), hint=hint)
    for n in (2, 4):
        c.at_most(
            f"bytes sent by {n} ranks",
            bytes_sent(runs[n]),
            lambda n=n: (n - 1) * (4 * 8 * BATCH * TOKENS * WIDTH + 2 * 8 * WIDTH + SIZES_ASKED),
            hint="right, but too dear: forward one gather and one reduce_scatter of b·s·h, backward their opposites; an all_reduce of gamma's gradient only",
        )
        c.at_most(
            f"tensors of (b, s, h) kept on {n} ranks",
            max(rank["whole"] for rank in runs[n]),
            lambda: 1,
            hint="right, but more than the column layer's input is kept whole: norm and sum work on s/t tokens, gather after the norm",
        )

# %% [markdown]
# The one whole tensor is $z$, the gathered input of $A$, for $\partial A$. That is next.
#
# ## 8.2 Gather again
#
# Write the column layer with its gather, $z = \mathrm{gather}(x)\,A$, as a `torch.autograd.Function` that keeps **this rank's part of $x$ only**, and gathers once more in backward.
# Here the sequence is dim 0, as in Megatron-LM, so that PyTorch's collectives join and cut the right dim: `x` is $(s/t, b, h)$, `A` $(h, f/t)$, the result $(s, b, f/t)$.
#
# - $\partial x$: $\partial z\,A^\mathsf{T}$ has all tokens, of this rank's columns; reduce-scatter it.
# - $\partial A = x^\mathsf{T}\,\partial z$ with all tokens, summed over both $s$ and $b$.
#
# Cost: two all-gathers and one reduce-scatter of $sbh$ numbers; nothing is kept but what came in. `dist.all_gather_single(whole, part)` and
# `dist.reduce_scatter_single(part, whole)` want contiguous tensors.
#
# See for yourself: `run = launch(rank_regathers, 4, regather, 0)` has each rank's `"z"`; side by side, along dim 2, they are `x @ A` of `x, A, _ = column_data(0)`. Its
# `run.trace` shows three bars a rank.


# %% id="support-8-2" jupyter={"source_hidden": true}
def column_data(secret):
    """x (s, b, h), A (h, f), and a weight for each number of the result."""
    shapes = (TOKENS, BATCH, WIDTH), (WIDTH, MIDDLE), (TOKENS, BATCH, MIDDLE)
    return [numbers(7 * secret + i, *shape) for i, shape in enumerate(shapes)]


def share_bytes(n):
    """Bytes of a rank's part of x, and a few more."""
    return 8 * TOKENS * BATCH * WIDTH // n + 64


def settled_bytes(meter, result_bytes, patience_s=0.3):
    """What is held besides the result; the backend may need a moment to let go of what it has sent."""
    enough, deadline = result_bytes + share_bytes(dist.get_world_size()), time.monotonic() + patience_s
    while meter.now.total > enough and time.monotonic() < deadline:
        time.sleep(0.005)
    return meter.now.total - result_bytes


def rank_regathers(answer, secret):
    """On a rank: the answer forward and backward; results, gradients, and bytes kept in between."""
    x, A, w = column_data(secret)
    x, A, w = part(x, 0).requires_grad_(), part(A, 1).requires_grad_(), part(w, 2)
    with MemoryMeter() as meter:
        z = answer(x, A)
        kept = settled_bytes(meter, z.numel() * 8)
    backward(z, w)
    return {"z": z, "∂x": x.grad, "∂A": A.grad, "kept": kept}


def column_of_each(name, secret):
    """What each of 1, 3 and 4 ranks should have."""
    x, A, w = column_data(secret)
    x, A = x.requires_grad_(), A.requires_grad_()
    z = x @ A
    (z * w).sum().backward()
    whole, dim = {"z": (z.detach(), 2), "∂x": (x.grad, 0), "∂A": (A.grad, 1)}[name]
    return {f"{n} ranks": parts(whole, dim, n) for n in (1, 3, 4)}


# %% id="answer-8-2"
class Regather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, A):
        """All tokens times this rank's columns, (s, b, f/t)."""
        ### BEGIN SOLUTION 8.2: keep a part, gather again
        ### HINT ctx.save_for_backward(x, A) keeps what came in; the gathered tensor is only used here
        ctx.save_for_backward(x, A)
        whole = x.new_empty(dist.get_world_size() * len(x), *x.shape[1:])
        dist.all_gather_single(whole, x.contiguous())
        return whole @ A
        ### END SOLUTION

    @staticmethod
    def backward(ctx, dz):
        """(∂x of this rank's tokens, ∂A of its columns) from dz (s, b, f/t)."""
        ### BEGIN SOLUTION 8.2: keep a part, gather again
        ### HINT gather x as in forward; whole.flatten(0, 1) has one row a token, and dz.flatten(0, 1) too
        x, A = ctx.saved_tensors
        whole = x.new_empty(dist.get_world_size() * len(x), *x.shape[1:])
        dist.all_gather_single(whole, x.contiguous())
        dx = torch.empty_like(x)
        dist.reduce_scatter_single(dx, dz @ A.T)
        return dx, whole.flatten(0, 1).T @ dz.flatten(0, 1)
        ### END SOLUTION


def regather(x, A):
    return Regather.apply(x, A)


# %% id="check-8-2" jupyter={"source_hidden": true}
with check("8.2") as c:
    runs = {n: launch(rank_regathers, n, regather, seed(), timeout_s=20) for n in (1, 3, 4)}
    for name, hint in (
        ("z", "gather x along dim 0, so that it is (s, b, h), and multiply by this rank's A"),
        (
            "∂x",
            "dz @ A.T is one rank's summand for all tokens: a reduce_scatter adds them up and leaves this rank's, no mean",
        ),
        (
            "∂A",
            "all tokens' x, gathered, times dz, which is there for all tokens: nothing is added over the ranks",
        ),
    ):
        c.equal(name, of_each(runs, name), lambda name=name: column_of_each(name, seed()), hint=hint)
    for n in (3, 4):
        c.at_most(
            f"bytes kept for backward on {n} ranks",
            max(rank["kept"] for rank in runs[n]),
            lambda n=n: share_bytes(n),
            hint="right, but what was gathered is still there: keep x and A only, and gather again in backward",
        )
        c.at_most(
            f"bytes sent by {n} ranks",
            bytes_sent(runs[n]),
            lambda n=n: (n - 1) * (3 * 8 * TOKENS * BATCH * WIDTH + SIZES_ASKED),
            hint="right, but too dear: gather in forward, gather and reduce_scatter in backward (an all_reduce is twice a reduce_scatter)",
        )

# %% [markdown]
# ## 8.3 Two pieces of a softmax
#
# Of some block of keys, with scores $z_j$ for a query, three results are known:
#
# $$ m = \max_j z_j \qquad \ell = \sum_j e^{z_j - m} \qquad o = \sum_j e^{z_j - m}\, v_j $$
#
# `one` and `other` are two such triples `(o, l, m)`, of different blocks of keys for the same queries: `o` is $(\dots, d)$, `l` and `m` are $(\dots, 1)$. Return the triple of both blocks together.
#
# - Scores may be as large as $\pm 10^4$, and $e^{10^4}$ is more than a float64 holds.
# - A query from which a mask hides the whole block has $o = 0$, $\ell = 0$, $m = -\infty$. Hidden from both blocks: the same again. Mind that $-\infty - (-\infty)$ is not a number.
# - Leave `one` and `other` as they are.
#
# Cost: two exponentials a query, however wide the values are.
#
# See for yourself: `block(0, 0, 8)` and `block(0, 8, 12)` are the triples of keys 0 to 7 and 8 to 11, `block(0, 0, 12)` is that of all.


# %% id="support-8-3" jupyter={"source_hidden": true}
def block(secret, first, last, push=0.0, hidden=None):
    """(o, l, m) of keys first to last of 12, for 2 · 5 queries and values 16 wide.

    push: added to the scores of keys 0 to 7 and taken from the others'.  hidden: query 1 sees no keys of "first"
    (0 to 7), "last" (8 to 11) or "both".
    """
    scores, values = 3 * numbers(3 * secret, 2, 5, 12), numbers(3 * secret + 1, 2, 12, 16)
    scores = scores + push * torch.where(torch.arange(12) < 8, 1.0, -1.0)
    if hidden in ("first", "both"):
        scores[:, 1, :8] = -math.inf
    if hidden in ("last", "both"):
        scores[:, 1, 8:] = -math.inf
    scores, values = scores[..., first:last], values[:, first:last]
    m = scores.amax(-1, keepdim=True)
    e = (scores - m.clamp(min=-1e9)).exp()
    return e @ values, e.sum(-1, keepdim=True), m


def named(triple):
    return dict(zip(("o", "l", "m"), triple, strict=True))


class Exponentials(TorchDispatchMode):
    """Counts the numbers that go through an exponential in its block."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if (
            any(word in func.name() for word in ("exp", "pow", "softmax", "sigmoid"))
            and "expand" not in func.name()
        ):
            self.count += max(x.numel() for x in args if torch.is_tensor(x))
        return func(*args, **(kwargs or {}))


EXTREMES = {"keys 0 to 7 at +10,000": 1e4, "keys 8 to 11 at +10,000": -1e4}
WHERE = ("first", "last", "both")


# %% id="answer-8-3"
def merge(one, other):
    """The triple (o, l, m) of two blocks of keys together."""
    ### BEGIN SOLUTION 8.3: one maximum, two factors
    ### HINT both sums are brought to the larger maximum: multiply each block's o and l by exp(its m - the larger m)
    ### HINT where the larger maximum is -inf, subtract 0 instead: exp(-inf - 0) is 0
    (o1, l1, m1), (o2, l2, m2) = one, other
    m = torch.maximum(m1, m2)
    finite = m.masked_fill(m == -math.inf, 0.0)
    a1, a2 = (m1 - finite).exp(), (m2 - finite).exp()
    return o1 * a1 + o2 * a2, l1 * a1 + l2 * a2, m
    ### END SOLUTION


# %% id="check-8-3" jupyter={"source_hidden": true}
with check("8.3") as c:
    one, other = block(seed(), 0, 8), block(seed(), 8, 12)
    together = named(merge(one, other))
    for name, hint in (
        ("m", "the largest score of both blocks is the larger of the two maxima, for each query"),
        (
            "l",
            "bring each block's sum to the new maximum: times exp(its old m - the new m), at most 1, and then add",
        ),
        ("o", "o is a sum with the same powers in it as l, so it is multiplied by the same factors"),
    ):
        c.equal(name, together[name], lambda name=name: named(block(seed(), 0, 12))[name], hint=hint)
    c.equal(
        "one and other afterwards",
        [named(one), named(other)],
        lambda: [named(block(seed(), 0, 8)), named(block(seed(), 8, 12))],
        hint="leave both as they are: make new tensors, no += and no *=",
    )
    c.equal(
        "large scores",
        {
            name: named(merge(block(seed(), 0, 8, push), block(seed(), 8, 12, push)))
            for name, push in EXTREMES.items()
        },
        lambda: {name: named(block(seed(), 0, 12, push)) for name, push in EXTREMES.items()},
        hint="never exp(m) alone: only exp(m - the larger m), which is between 0 and 1",
    )
    c.equal(
        "hidden",
        {name: named(merge(block(seed(), 0, 8, 0, name), block(seed(), 8, 12, 0, name))) for name in WHERE},
        lambda: {name: named(block(seed(), 0, 12, 0, name)) for name in WHERE},
        hint="hidden from both blocks, both maxima are -inf, and -inf - -inf is nan: such a factor must be 0",
    )
    thirds = [block(seed() + 1, first, first + 4, 0, "first") for first in (0, 4, 8)]
    c.equal(
        "three blocks in any order",
        [
            named(merge(merge(thirds[0], thirds[1]), thirds[2])),
            named(merge(thirds[0], merge(thirds[1], thirds[2]))),
            named(merge(thirds[2], merge(thirds[1], thirds[0]))),
        ],
        lambda: [named(block(seed() + 1, 0, 12, 0, "first"))] * 3,
        hint="what merge returns is a triple like its arguments: neither is the first, and nothing is divided yet",
    )
    with Exponentials() as used:
        merge(one, other)
    c.at_most(
        "exponentials a query",
        used.count / one[2].numel(),
        lambda: 2,
        hint="right, but too dear: one factor a block and query; as (..., 1) it multiplies all of o's columns",
    )

# %% [markdown]
# Merging needs no order: blocks may come from wherever they come first. From a ring, say.
#
# ## 8.4 Ring attention
#
# Each of $c$ ranks has `q`, `k`, `v` of its tokens, $(b, a, s/c, d)$ with $a$ heads, and returns their attention, $(b, a, s/c, d)$, over **all** tokens' keys and values. Queries stay; keys and values go round.
#
# - `places` is `None`, or it is for causal attention: a tensor $(c, s/c)$ whose row $r$ says where in the text the tokens of rank $r$ stand. They lie in a zig-zag, one early chunk and one late. A query sees a key whose place is not later than its own.
# - `found = look_at(q, k, v, seen, found)` looks at one more block. It is the lesson's, with a mask: `seen` is `None` or boolean, (queries, keys). `found` begins as `None`; in the end $o$ and $\ell$ are its first two.
#
# Cost: $c-1$ messages from each rank to the next, rank + 1, each with one block of keys *and* its values, `torch.stack([k, v])`; no collective. **Both the `isend` and the `irecv` of a block come before the look
# at the one that is there, their `wait` after it.** A rank holds two blocks at most, however many ranks there are. Leave `q`, `k` and `v` as they are.
#
# See for yourself: `run = launch(rank_attends, 4, ring_attention, 0)` has each rank's `"plain"`; one after the other, along dim 2, they are
# `F.scaled_dot_product_attention(*qkv(0, 4))[:, :, zigzag(4).flatten()]`. And `run.trace` shows whether messages are under way while a rank looks.


# %% id="support-look" jupyter={"source_hidden": true}
def look_at(q, k, v, seen=None, found=None):
    """Queries look at one more block of keys: (o, l, m), as in 8.3, with what was found before."""
    with span("look"):
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        if seen is not None:
            scores = scores.masked_fill(~seen, -math.inf)
        m = scores.amax(-1, keepdim=True)
        if found is not None:
            m = torch.maximum(m, found[2])
        e = (scores - m.clamp(min=-1e300)).exp()
        o, ell = e @ v, e.sum(-1, keepdim=True)
        if found is not None:
            shrink = (found[2] - m.clamp(min=-1e300)).exp()
            o, ell = o + found[0] * shrink, ell + found[1] * shrink
        return o, ell, m


# %% id="support-8-4" jupyter={"source_hidden": true}
HEADS, PART, HEAD_WIDTH = 2, 6, 16  # a, s/c, d


def qkv(secret, n):
    """q, k, v of n ranks' tokens in the order of the text, (b, a, 6 n, d)."""
    return numbers(11 * secret + n, 3, BATCH, HEADS, PART * n, HEAD_WIDTH).unbind()


def zigzag(n):
    """Where the tokens of each of n ranks stand, (n, 6)."""
    chunks = torch.arange(PART * n).chunk(2 * n)
    return torch.stack([torch.cat([chunks[rank], chunks[-1 - rank]]) for rank in range(n)])


class Products(TorchDispatchMode):
    """Makes a span of each matrix product, so that the trace shows when a rank computed."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if any(word in func.name() for word in ("mm", "dot_product")):
            with span("product"):
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def rank_attends(answer, secret):
    """On a rank: the answer, plain and causal; what it held at most, and its inputs afterwards."""
    rank, n = dist.get_rank(), dist.get_world_size()
    places = zigzag(n)
    mine, again = ([x[:, :, places[rank]] for x in qkv(secret, n)] for _ in range(2))
    with MemoryMeter() as meter, Products(), span("plain"):
        plain = answer(*mine)
    dist.barrier()
    with span("causal"):
        causal = answer(*again, places)
    return {"plain": plain, "causal": causal, "held": meter.peak.total, "afterwards": mine}


def attention_of_each(secret, causal):
    """What each of 1, 3 and 4 ranks should have."""
    wanted = {}
    for n in (1, 3, 4):
        whole = F.scaled_dot_product_attention(*qkv(secret, n), is_causal=causal)
        wanted[f"{n} ranks"] = [whole[:, :, places] for places in zigzag(n)]
    return wanted


def passed_on(run, name):
    """For each rank what it sent, plain or causal: calls of collectives, messages, blocks in them, and to whom."""
    block_bytes, found = 2 * 8 * BATCH * HEADS * PART * HEAD_WIDTH, []
    for rank in range(run.world_size):
        trace = run.trace.of(rank=rank).during(name)
        sends = [event for event in trace.events if event.is_send]
        found.append(
            {
                "collectives": len(trace.of(kind="collective").events),
                "messages": len(sends),
                "blocks": sum(event.nbytes for event in sends) / block_bytes,
                "to": sorted({to for event in sends for to in event.peers}),
            }
        )
    return found


def looks_meanwhile(run):
    """For each rank: in how many steps it computed, for a block's part of all products, while a block was coming."""
    found = []
    for rank in range(run.world_size):
        events = run.trace.of(rank=rank).during("plain").events
        products = [e.start_s for e in events if e.is_span and e.operation == "product"]
        sends = [e for e in events if e.is_send]
        receives = [e for e in events if e.kind == "message" and not e.is_send]
        steps = 0
        for send, receive in zip(sends, receives, strict=False):
            begin = max(send.start_s, receive.start_s)
            end = min([wait[0] for e in (send, receive) for wait in e.waits], default=math.inf)
            meanwhile = sum(begin < at < end for at in products)
            steps += meanwhile >= max(1, len(products) // run.world_size)
        found.append(steps)
    return found


# %% id="answer-8-4"
def ring_attention(q, k, v, places=None):
    """This rank's tokens' attention over all tokens, (b, a, s/c, d)."""
    ### BEGIN SOLUTION 8.4: send, look, wait
    ### HINT in step i a rank looks at the block of rank - i; in the last step nothing is sent
    ### HINT places[source] <= places[rank][:, None] has a row for each query, a column for each key
    rank, c = dist.get_rank(), dist.get_world_size()
    here, found = torch.stack([k, v]), None
    for step in range(c):
        if step < c - 1:
            coming = torch.empty_like(here)
            handles = dist.isend(here, (rank + 1) % c), dist.irecv(coming, (rank - 1) % c)
        seen = None if places is None else places[(rank - step) % c] <= places[rank][:, None]
        found = look_at(q, *here, seen, found)
        if step < c - 1:
            for handle in handles:
                handle.wait()
            here = coming
    return found[0] / found[1]
    ### END SOLUTION


# %% id="check-8-4" jupyter={"source_hidden": true}
with check("8.4") as c:
    runs = {n: launch(rank_attends, n, ring_attention, seed(), timeout_s=20) for n in (1, 3, 4)}
    traffic = {(n, name): passed_on(run, name) for n, run in runs.items() for name in ("plain", "causal")}
    c.equal(
        "attention",
        of_each(runs, "plain"),
        lambda: attention_of_each(seed(), False),
        hint="every rank looks at all c blocks, its own first, each once: what was received is what is sent next",
    )
    c.equal(
        "causal attention",
        of_each(runs, "causal"),
        lambda: attention_of_each(seed(), True),
        hint="in step i a rank has the keys of rank - i: their places are that rank's row; seen where key's place <= query's place",
    )
    for name, want, hint in (
        (
            "collectives",
            lambda n, r: 0,
            "right, but with a collective every rank holds all keys: pass blocks on by isend and irecv",
        ),
        (
            "to",
            lambda n, r: [(r + 1) % n] if n > 1 else [],
            "all messages go to the next rank, (rank + 1) % c",
        ),
        (
            "messages",
            lambda n, r: n - 1,
            "right, but k and v go in one message, torch.stack([k, v]), and after the last look nothing is sent",
        ),
        (
            "blocks",
            lambda n, r: n - 1,
            "right, but too many bytes: in each message one block of keys and its values",
        ),
    ):
        c.equal(
            f"sent: {name}",
            {f"{n} ranks, {how}": [rank[name] for rank in found] for (n, how), found in traffic.items()},
            lambda want=want: {f"{n} ranks, {how}": [want(n, r) for r in range(n)] for n, how in traffic},
            hint=hint,
        )
    c.equal(
        "looks while a block is coming",
        {f"{n} ranks": looks_meanwhile(run) for n, run in runs.items()},
        lambda: {f"{n} ranks": [n - 1] * n for n in (1, 3, 4)},
        hint="right, but computing and sending take turns: first isend and irecv, then look, then wait for both",
    )
    c.at_most(
        "bytes that a rank of 4 holds more than one of 3",
        min(rank["held"] for rank in runs[4]) - min(rank["held"] for rank in runs[3]),
        lambda: 8 * BATCH * HEADS * PART * HEAD_WIDTH,
        hint="right, but blocks pile up: after a look let go of the block, and keep the one that came",
    )
    c.equal(
        "q, k, v afterwards",
        of_each(runs, "afterwards"),
        lambda: {
            f"{n} ranks": [[x[:, :, places] for x in qkv(seed(), n)] for places in zigzag(n)]
            for n in (1, 3, 4)
        },
        hint="leave q, k and v as they are: receive into new memory",
    )

# %% [markdown]
# Half of the causal looks saw what a mask then hid. Which blocks, or halves of blocks, need no look at all? With the zig-zag, each rank saves equally much; the library's
# [`ring_attention.py`](../course_lib/parallel/ring_attention.py) does it, and its backward goes round once more.
