# %% [markdown]
# # 08 · Sequence and context parallel
#
# In three quarters of an hour you will be able to
#
# - say what tensor parallelism leaves whole on every rank, and cut it too, for the same bytes,
# - find what this breaks, and put it right,
# - compute attention over a sequence that is spread over ranks: in a ring, exactly, with the passing hidden behind the computing; and by heads,
# - say from the length of a sequence whether the ring is fast enough.
#
# You need [chapter 07](07_tensor_parallel.ipynb): $f$, $g$, column and row. [The source](../README.md#where-it-comes-from) ends before this; long sequences came later.
#
# **The question:** the weights are split over the ranks now. *Why is memory still full?*
#
# Grey in this picture is what every rank holds in full. Choose more ranks: what gets smaller, and what does not?

# %% jupyter={"source_hidden": true}
from course_lib.viz import transformer_block

transformer_block(b=2, s=64, h=128, num_heads=8, t=2)

# %%
import math
from dataclasses import replace

import torch
import torch.distributed as dist
from torch.nn import functional as F

from course_lib import Link, launch, span
from course_lib.collectives.autograd import copy_to_group, gather_sequence, reduce_from_group, reduce_scatter_sequence
from course_lib.data import text_batch
from course_lib.memory import MemoryMeter, saved_for_backward
from course_lib.models.gpt import GPT
from course_lib.parallel.tensor_model import tensor_parallelize
from course_lib.parallel.vocabulary import vocab_parallel_cross_entropy
from course_lib.viz import predict, tally
from course_lib.viz.plots import new_plot

# %% [markdown]
# ## What is left
#
# Take one block of a tensor parallel GPT, and count what its forward keeps for backward, on each rank, in units of one $x$: $b\cdot s\cdot h$ numbers.

# %%
b, s, h = 2, 64, 128


def kept_by_a_block(mode):
    """On a rank: the shapes that one block keeps, and their sum in units of b·s·h."""
    t = dist.get_world_size()
    block = tensor_parallelize(GPT(context=s, width=h, num_layers=1, num_heads=8), **mode).blocks[0]
    x = torch.randn(b, s // t if mode else s, h, requires_grad=True)
    kept = saved_for_backward(block, x)
    return [shape for shape, _, _ in kept], sum(size for _, _, size in kept) / (4 * b * s * h)


# %% jupyter={"source_hidden": true}
predict(
    "One rank keeps 16 x. Eight ranks share the block. How much does each of them keep?",
    {
        "2 x": (
            "An eighth would be right if everything were cut. The inputs and outputs of the two norms "
            "are not: each rank has these 4 x in full."
        ),
        "5.5 x": (
            "The inputs and outputs of both norms, 4 x, are whole on every rank. The other 12 x are cut: "
            "4 + 12/8 = 5.5."
        ),
        "16 x": (
            "Tensor parallel splits weights, so activations may seem to stay whole. But each rank has "
            "only its own heads and MLP columns: 12 of the 16 x are cut."
        ),
    },
    right=1,
)

# %% tags=["nbval-check-output"]
for t in (1, 2, 4, 8):
    shapes, total = launch(kept_by_a_block, t, {})[0]
    print(f"{t} ranks: {total:5.2f} x")
for shape in dict.fromkeys(shapes):
    print(f"  on each of 8 ranks: {shapes.count(shape)} of {shape}")

# %% [markdown]
# With more ranks it goes towards 4, not towards 0. Four tensors of $(b, s, h)$ are there in full on every rank: the inputs of both norms, and their outputs, which are the inputs of the column layers. The others
# are cut by $t$ and make up $12/t$: $q$, $k$, $v$, the heads' results, and the MLP's middle before and after the gelu. (The little that is left over are means and deviations.) With dropout there is more of the kind. Korthikanti et al. 2022, equation 2, count
# $sbh\,(10 + \frac{24}{t} + 5\frac{as}{ht})$ bytes for a block in 16 bits. Our 4 tensors of 2 bytes are 8 of the 10; two dropout masks of 1 byte are the rest. (The last term are attention's scores, of $a$ heads, which ours does not keep.) The 10 is what we are after.
#
# And not only memory: all ranks compute the same norms and the same sums, $t$ times the work for one answer. That is what was wrong with data parallel's optimizer in chapter 06.

# %% [markdown]
# ## An all-reduce in two halves
#
# A norm works on each token by itself. So do the sum with the residual, and dropout. **They could be cut along the sequence**: each rank does $s/t$ of the tokens. But a norm stands between $g$, an all-reduce, before it, and
# $f$ after it, since the column layer needs all tokens.
#
# Chapter 03: an all-reduce is a reduce-scatter and then an all-gather. Take them apart, and put the norm in between:
#
# | | | |
# |---|---|---|
# | tensor parallel | row layer → **all-reduce** → sum, norm of $s$ tokens | → column layer |
# | and sequence parallel | row layer → **reduce-scatter** → sum, norm of $s/t$ tokens → **all-gather** | → column layer |
#
# The reduce-scatter gives each rank the finished sums of its own tokens; the all-gather brings the normed tokens together again. As operators: $\bar g$ reduce-scatters forward and all-gathers backward, the new $g$ all-gathers forward and
# reduce-scatters backward. (The names are the paper's: this $g$ takes the place of $f$, and $\bar g$ that of the old $g$. We have both, from chapter 04's file: `reduce_scatter_sequence` and `gather_sequence`.)

# %% [markdown]
# Half a block, $x + \mathrm{MLP}(\mathrm{norm}(x))$, by hand, in float64:


# %%
def mine(tensor, dim):
    """This rank's part of a tensor that is cut along `dim`."""
    return tensor.chunk(dist.get_world_size(), dim)[dist.get_rank()]


torch.manual_seed(0)
b, s, h = 2, 8, 16
x = torch.randn(b, s, h, dtype=torch.float64)
A, B = torch.randn(h, 4 * h, dtype=torch.float64) / 4, torch.randn(4 * h, h, dtype=torch.float64) / 8
gamma = 1 + torch.randn(h, dtype=torch.float64) / 4  # the norm's weight
SEQ = 1  # the dim of the sequence in (b, s, h)


def tensor_only():
    x_, gamma_ = x.clone().requires_grad_(), gamma.clone().requires_grad_()
    z = copy_to_group(F.layer_norm(x_, (h,), gamma_))
    y = x_ + reduce_from_group(F.gelu(z @ mine(A, 1)) @ mine(B, 0))  # all (b, s, h)
    y.square().sum().backward()
    return {"y": y.detach(), "∂x": x_.grad, "∂γ": gamma_.grad}


def with_sequence(enter=lambda weight: weight):
    x_, gamma_ = mine(x, SEQ).clone().requires_grad_(), gamma.clone().requires_grad_()
    z = gather_sequence(F.layer_norm(x_, (h,), enter(gamma_)), SEQ)  # (b, s/t, h) → (b, s, h)
    y = x_ + reduce_scatter_sequence(F.gelu(z @ mine(A, 1)) @ mine(B, 0), SEQ)  # → (b, s/t, h)
    y.square().sum().backward()
    return {"y": y.detach(), "∂x": x_.grad, "∂γ": gamma_.grad}


def compare(run):
    truth = launch(tensor_only, 1)[0]
    for name, right in truth.items():
        parts = [rank[name] for rank in run]
        got = torch.cat(parts, SEQ) if name != "∂γ" and parts[0].shape != right.shape else parts[0]
        print(f"  {name:3s} {'right' if torch.allclose(got, right) else 'WRONG'}")


# %% jupyter={"source_hidden": true}
predict(
    "With sequence parallel: which of y, ∂x and ∂γ is not that of one process?",
    {
        "y": (
            "Each rank norms only its own tokens, but a norm treats each token by itself, and the "
            "reduce-scatter adds up the parts of all ranks."
        ),
        "∂x": (
            "∂x is cut along the sequence, but it is complete: the backward of the all-gather is a "
            "reduce-scatter, which adds up what all ranks found for a token."
        ),
        "∂γ": (
            "γ is whole on every rank and multiplies only the rank's own tokens. So each rank has the "
            "gradient of those, and nobody adds them up."
        ),
        "All are right": (
            "The two operators add up what they send, and γ need not be sent forward. But then each rank "
            "has its gradient from its own tokens alone."
        ),
    },
    right=2,
)

# %% tags=["nbval-check-output"]
print("tensor parallel:")
compare(launch(tensor_only, 4))
print("with sequence parallel:")
compare(launch(with_sequence, 4))

# %% [markdown]
# $\gamma$ is whole on every rank, and now it goes into work that is cut: each rank multiplies its own tokens by it, and gets the gradient of those. The true one is the sum. A whole tensor that enters cut work: that is
# just where $f$ stands. **A weight is no exception.**

# %% tags=["nbval-check-output"]
print("f before the norm's weight:")
compare(launch(with_sequence, 4, copy_to_group))

# %% [markdown]
# Without it, nothing fails and the loss looks as it should. The norms on the ranks just part ways, and with them what the ranks take for one model:


# %%
def norms_after(steps, mend):
    """On a rank: the last norm's weight after some steps, with or without the sum of its gradients."""
    from course_lib.parallel import tensor_model

    if not mend:
        tensor_model.copy_to_group = lambda weight, group: weight
    torch.manual_seed(0)
    model = tensor_parallelize(GPT(width=32, num_layers=2, num_heads=4), sequence_parallel=True)
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=3e-3), []
    for step in range(steps):
        x, y = text_batch(step, 4, 64)
        loss = vocab_parallel_cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model.ln_f.weight.detach(), losses


for mend in (True, False):
    run = launch(norms_after, 4, 20, mend)
    apart = (run[0][0] - run[1][0]).abs().max()
    print(f"summed: {mend!s:5}   norms apart by {apart:.4f}   loss {run[0][1][0]:.3f} → {run[0][1][-1]:.3f}")

# %% [markdown]
# Such a bug is found by comparing *weights* between the ranks; no loss shows it early.

# %% [markdown]
# ## The whole block, again
#
# Switch *sequence parallel* on and off, and watch the collectives, the bytes, and the shapes outside of the column and row pairs:

# %%
transformer_block(b=2, s=64, h=128, num_heads=8, t=4, sequence_parallel=True)

# %% [markdown]
# Two halves for one whole: so the bytes should be the same as in chapter 07, $8bsh\frac{t-1}{t}$ numbers a block. Counted:


# %%
def step_of(num_layers, mode):
    model = tensor_parallelize(GPT(context=64, width=128, num_layers=num_layers, num_heads=8), **mode)
    x, y = text_batch(0, 2, 64)
    with span("step"):
        vocab_parallel_cross_entropy(model(x), y).backward()


def sent_by_a_block(t, mode):
    """By operation, the calls and bytes of rank 0 that one more block brings."""
    more = {}
    for layers, sign in ((3, 1), (2, -1)):
        trace = launch(step_of, t, layers, mode).trace.of(rank=0).during("step")
        for event in trace.events:
            if not event.is_span:
                calls, nbytes = more.get(event.operation, (0, 0))
                more[event.operation] = calls + sign, nbytes + sign * event.ring_bytes
    return {operation: change for operation, change in more.items() if change[0]}


# %% tags=["nbval-check-output"]
MODES = {"tensor": {}, "and sequence": {"sequence_parallel": True}}
print(f"formula: {8 * 2 * 64 * 128 * 3 / 4 * 4:,.0f} bytes")
for name, mode in MODES.items():
    more = sent_by_a_block(4, mode)
    print(f"{name}: {sum(nbytes for _, nbytes in more.values()):,.0f}")
    for operation, (calls, nbytes) in more.items():
        print(f"  {calls} {operation}: {nbytes:,.0f}")

# %% [markdown]
# Four all-reduces have become four reduce-scatters and four all-gathers of half the bytes each. The two small all-reduces on top are one for each norm, of $2h$ numbers: its weight's gradient and its bias's. (They do not grow with the tokens. Megatron-LM
# adds them up once a step, after the last micro-batch.)
#
# And memory? The norms' inputs are cut now. Their *outputs* are not: the column layer wants all tokens, in forward and again in backward, for $\partial A$. The paper keeps only the rank's own part of them, and gathers them a second time in backward: memory
# for bytes, as in ZeRO-3. The library does it if you ask:

# %%
regather = {"sequence_parallel": True, "regather": True}
b, s, h = 2, 64, 128
print("kept by a block, in x      t = 1      2      4      8    bytes sent")
for name, mode in {**MODES, "and regathered": regather}.items():
    row = "".join(f"{launch(kept_by_a_block, t, mode)[0][1]:7.2f}" for t in (1, 2, 4, 8))
    total = sum(nbytes for _, nbytes in sent_by_a_block(4, mode).values())
    print(f"{name:24s}{row}{total:14,.0f}")

# %% [markdown]
# Regathered, everything is a $t$-th, as in the paper's $\frac{sbh}{t}(34 + 5\frac{as}{h})$. **Ten instead of eight** $bsh\frac{t-1}{t}$ is the price: one more all-gather for each of the two column layers. It is hidden behind the product that gives $\partial x$.

# %% [markdown]
# ## A long sequence
#
# Sequence parallel cuts the tokens *outside* of the column and row pairs. Inside, each rank has all $s$ tokens, for its heads and columns. With $t$ at most 8, the GPUs of a node, how far does that go? One $x$ of Llama 3 405B, in 16 bits, for a book of 131,072
# tokens (Grattafiori et al. 2024, tables 3 and 4):

# %% tags=["nbval-check-output"]
s, h, layers, t = 131_072, 16_384, 126, 8
print(f"one x: {2 * s * h / 1e9:.1f} GB; of a block a rank keeps several, each {2 * s * h / t / 1e9:.2f} GB")
print(f"only one kept for each of {layers} blocks: {2 * s * h / t * layers / 1e9:.0f} GB of a GPU's 80")

# %% [markdown]
# So cut the sequence everywhere, and leave the weights whole: rank $r$ of $c$ has $s/c$ of the tokens, through the whole model. Norms, linears, gelu, loss: all of them treat each token by itself, and need no message at all. To them it is like
# data parallel, with tokens for samples, and so are the gradients: an average over the ranks. **Only attention looks from one token at others.** This is called *context parallel*.
#
# A query needs all keys and values. Fetch them all? An all-gather would do it, and each rank would hold them all. Does it need them *at the same time*?
#
# ### A softmax in pieces
#
# The output for one query is a mean of the values, weighted by $e^{z_j}$, with the scores $z_j = q \cdot k_j/\sqrt d$, where $d$ is the width of a head:
#
# $$ \text{out} = \frac{\sum_j e^{z_j - m}\, v_j}{\sum_j e^{z_j - m}}, \qquad m = \max_j z_j $$
#
# Two sums and a maximum, all over keys. Sums can be taken in pieces. The maximum, which is there so that nothing overflows, can change when a new piece comes; then what was summed so far is multiplied by $e^{m_\text{old} - m_\text{new}}$ (Milakov and Gimelshein
# 2018). In chapter 07 the vocabulary's softmax was cut over ranks at one time; here it is cut over time on one rank.


# %%
def look_at(q, k, v, so_far=None):
    """Queries look at one more block of keys: (sum of e·v, sum of e, m)."""
    scores = q @ k.mT / math.sqrt(q.shape[-1])
    top = scores.amax(-1, keepdim=True)
    m = top if so_far is None else torch.maximum(top, so_far[2])
    e = (scores - m).exp()
    found = e @ v, e.sum(-1, keepdim=True)
    if so_far is not None:
        shrink = (so_far[2] - m).exp()
        found = [new + old * shrink for new, old in zip(found, so_far)]
    return *found, m


torch.manual_seed(0)
q, k, v = torch.randn(3, 1, 4, 64, 16, dtype=torch.float64)  # each (b, heads, s, head width)
first, second = zip(k.chunk(2, 2), v.chunk(2, 2))
above, below, _ = look_at(q, *second, look_at(q, *first))

# %% tags=["nbval-check-output"]
whole = F.scaled_dot_product_attention(q, k, v)
print("two pieces, the same attention:", torch.allclose(above / below, whole))

# %% [markdown]
# ### Pass it on
#
# Then no rank needs more than one block of keys at any moment. Put the ranks in a ring: each looks at its own block, passes it to the next rank, gets one from the rank before, looks at that. After $c$ looks everybody has seen everything. And
# the passing needs no waiting: **send first, then look, while the messages are under way.**


# %%
def ring(q, k, v):
    """Attention over all ranks' tokens: this rank's q, k, v → its output, each (b, heads, s/c, d)."""
    rank, c = dist.get_rank(), dist.get_world_size()
    here, found = torch.stack([k, v]), None
    for step in range(c):
        coming = torch.empty_like(here)
        if step < c - 1:
            handles = dist.isend(here, (rank + 1) % c), dist.irecv(coming, (rank - 1) % c)
        found = look_at(q, *here, found)
        if step < c - 1:
            for handle in handles:
                handle.wait()
        here = coming
    return found[0] / found[1]


# %% tags=["nbval-check-output"]
run = launch(lambda: ring(mine(q, 2), mine(k, 2), mine(v, 2)), 4)
print("four ranks, the same attention:", torch.allclose(torch.cat(list(run), 2), whole))
sent = run.trace.sent_bytes(0)
print(f"rank 0 sent {sent:,} bytes = 3 times its keys and values, {2 * k.nbytes // 4:,}")

# %% [markdown]
# Exact, and no rank held more than two blocks. Backward goes round once more. It needs each block's probabilities, and computes them again, from $q$, $k$ and one number for each query: the logarithm of the sum. The gradients of $k$ and $v$ travel along with their block, each rank adds its share, and at the end they are home. A rank sends $2(c-1)|k|$ numbers
# forward and $4(c-1)|k|$ backward; $|k|$ is the size of its keys. The code is in [`ring_attention.py`](../course_lib/parallel/ring_attention.py). Watch it, over an emulated network (bars below the work: in flight):


# %%
def watched(s=2048, heads=4, d=64):
    from course_lib.parallel.ring_attention import ring_attention

    part = (1, heads, s // dist.get_world_size(), d)
    q, k, v = (torch.randn(part, requires_grad=True) for _ in range(3))
    for _ in range(2):  # the first is to warm up
        dist.barrier()
        with span("forward"):
            out = ring_attention(q, k, v)
        with span("backward"):
            out.sum().backward()


run = launch(watched, 2, link=Link(latency_s=0.0005, bandwidth_gb_s=0.25))
both = [run.trace.during(name, last=1).events for name in ("forward", "backward")]
replace(run.trace, events=both[0] + both[1])

# %% [markdown]
# ### Half of the work
#
# A language model's attention is *causal*: a token looks at itself and at those before it. Half of all pairs fall away. Which half?

# %% jupyter={"source_hidden": true}
predict(
    "Four ranks with a quarter of the text each, in order. Pairs that the mask hides are skipped. Who "
    "computes most?",
    {
        "Rank 0": (
            "All ranks look at rank 0's keys, but the rank that has the queries computes. Rank 0's "
            "queries are the first, and see few keys."
        ),
        "Rank 3": (
            "Its queries are the last of the text and see nearly all keys: of 64 tokens 904 pairs, "
            "against 136 on rank 0."
        ),
        "All the same": (
            "All have as many tokens, but not as many pairs: a token looks at all before it, so a late "
            "one computes more than an early one."
        ),
    },
    right=1,
)


# %%
def pairs_of(places):
    """For each rank's places in the text, how many (query, key) pairs there are with the key not later."""
    return [sum(place + 1 for place in part) for part in places]


s, c = 64, 4
in_order = torch.arange(s).chunk(c)
chunks = torch.arange(s).chunk(2 * c)
zigzag = [torch.cat([chunks[r], chunks[-1 - r]]) for r in range(c)]
for name, places in {"in order": in_order, "zig-zag": zigzag}.items():
    pairs = pairs_of([part.tolist() for part in places])
    print(f"{name:9s} pairs of each rank: {pairs}   slowest / mean: {max(pairs) / (sum(pairs) / c):.2f}")

# %% [markdown]
# In order, the last rank has nearly 7 times as much as the first, and nearly twice the mean, so skipping what is hidden saves little: all wait for it. The **zig-zag** cuts the text into $2c$ chunks and gives rank $r$ the $r$-th from the front and the $r$-th from the back, one early and one late. Now
# all have the same, to the pair. `split_sequence` does it to data, and `local_positions` says where in the text a rank's tokens stand, as the position embeddings have to know.


# %%
def busy(zigzag, s=4096, heads=4, d=64):
    """On a rank: causal forward and backward, marked in the trace."""
    from course_lib.parallel.ring_attention import ring_attention

    q, k, v = (torch.randn(1, heads, s // 2, d, requires_grad=True) for _ in range(3))
    for _ in range(3):
        dist.barrier()
        with span("step"):
            ring_attention(q, k, v, causal=True, zigzag=zigzag).sum().backward()
        dist.barrier()


for balanced in (False, True):
    trace = launch(busy, 2, balanced).trace
    still = [trace.of(rank=rank).during("step", last=1).overlap(rank) for rank in (0, 1)]
    step = max(e.end_s - e.start_s for e in trace.during("step", last=1).events if e.is_span)
    computes = ", ".join(f"{part.compute_s:.3f}" for part in still)
    print(
        f"{'zig-zag' if balanced else 'in order':9s} the ranks compute {computes} s; a step takes {step:.3f} s"
    )

# %% [markdown]
# With two ranks the pairs are as 1 to 3 in order, and as 1 to 1 in zig-zag; the longer of the two makes the step. (Not all of a step is pairs, so that the gain is less than a third.)

# %% [markdown]
# ### Memory
#
# What does attention hold at its worst, forward and backward, in one process and in a ring? Plain attention writes down all $s^2$ scores of each head.


# %%
def plain(q, k, v):
    return torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), -1) @ v


def peak_mb(s, how, heads=4, d=64):
    """On a rank: the peak of what attention over s tokens holds, in MB, its inputs aside."""
    from course_lib.parallel.ring_attention import ring_attention

    part = (1, heads, s // dist.get_world_size(), d)
    q, k, v = (torch.randn(part, requires_grad=True) for _ in range(3))
    with MemoryMeter() as meter:
        (ring_attention if how == "ring" else how)(q, k, v).sum().backward()
    return meter.peak.total / 2**20


lengths = [256, 512, 1024, 2048]
measured = {"plain, 1 process": [launch(peak_mb, 1, s, plain)[0] for s in lengths]}
for c in (1, 2, 4, 8):
    measured[f"ring of {c}"] = [launch(peak_mb, c, s, "ring")[0] for s in lengths]

# %%
axes = new_plot("tokens, s (log scale)", "MB a rank (log scale)", "peak of attention, forward and backward")
axes.set_xscale("log", base=2)
axes.set_yscale("log", base=2)
for name, values in measured.items():
    axes.plot(lengths, values, label=name)
axes.legend();
# %% [markdown]
# Plain attention takes four times the memory for twice the text. The ring takes twice as much, even on one rank: it works its way through a block in tiles of scores, and keeps none of them. That is what *FlashAttention* does with the blocks of one GPU (Dao et al. 2022).
#
# With $c$ ranks each tensor is a $c$-th as long. But there are more of them, since keys, values and their gradients are there at hand *and* under way, and some tiles of scores are there whatever $c$ is. So two ranks hold little less than one did. **The gain comes with more ranks and longer texts: in the end, twice the ranks, twice the text in the same memory.**
#
# ## The other way: trade tokens for heads
#
# Heads do not need each other. So exchange: before attention, each rank gives away the tokens of most heads, and gets all tokens of a few. That is an *all-to-all*, chapter 03's last collective. Then plain attention over the whole
# text, and back again. It is known as Ulysses (Jacobs et al. 2023).

# %% tags=["nbval-check-output"]
from course_lib.parallel.context import all_to_all_attention, join_sequence, local_positions, split_sequence
from course_lib.parallel.ring_attention import ring_attention


def both_ways():
    parts = [split_sequence(x, 2) for x in (q, k, v)]  # zig-zag
    ways = {"ring": ring_attention, "all-to-all": all_to_all_attention}
    out = {}
    for name, attend in ways.items():
        with span(name):
            out[name] = attend(*parts, causal=True)
    return {name: join_sequence(x, 2) for name, x in out.items()}


run = launch(both_ways, 4)
whole = F.scaled_dot_product_attention(q, k, v, is_causal=True)
for name, out in run[0].items():
    nbytes = sum(e.ring_bytes for e in run.trace.of(rank=0).during(name).events)
    print(f"{name:10s} the same attention: {torch.allclose(out, whole)}; rank 0 sent {nbytes:,.0f} bytes")

# %% [markdown]
# | | ring | all-to-all |
# |---|---|---|
# | sent by a rank, forward, in numbers | $2\,(c-1)\cdot\frac{bsh}{c}$ | $4\,\frac{c-1}{c}\cdot\frac{bsh}{c}$ |
# | waits for it | no, if a block's computing lasts long enough | yes |
# | $c$ is bounded by | the text | the heads: of keys and values, if those are fewer |
# | fewer heads of keys and values | less to send, in proportion | only the half of $k$ and $v$ shrinks |
#
# The all-to-all sends $c/2$ times less, and stops where the heads end. Real systems take either, or both.
#
# ## A whole model
#
# Attention was all that needed care. Around it stands chapter 05: `DataParallel` starts the copies as one and averages gradients; only that the ranks' samples are parts of one text.


# %%
def train_gpt(method, steps=3):
    from course_lib.parallel.context import context_parallelize
    from course_lib.parallel.data import DataParallel

    torch.manual_seed(dist.get_rank())
    model = GPT(context=64, width=32, num_layers=2, num_heads=4).double()
    model = DataParallel(context_parallelize(model, method=method))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    positions = local_positions(64)
    for step in range(steps):
        x, y = (split_sequence(tokens, 1) for tokens in text_batch(step, 2, 64))
        loss = F.cross_entropy(model(x, positions).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        model.finish_gradient_sync()
        optimizer.step()
    return model.module.state_dict()


# %% tags=["nbval-check-output"]
one = launch(train_gpt, 1, "ring")[0]
for method in ("ring", "all_to_all"):
    run = launch(train_gpt, 4, method)
    away = max((rank[name] - right).abs().max() for rank in run for name, right in one.items())
    print(f"{method}: weights as in one process, to 1e-10: {away < 1e-10}")

# %% [markdown]
# ## Is the ring fast enough?
#
# While a rank looks at a block, the next has to arrive. A block has $s/c$ queries and as many keys: $4\,(s/c)^2 h$ operations, half of that with a causal mask. It is $2\,(s/c)\,h$ numbers of 2 bytes to send, less by the share of heads that keys and values have.
#
# $$ \frac{\text{send}}{\text{compute}} = \frac{4\,\frac sc h}{\text{network}} \Big/ \frac{2\,(\frac sc)^2 h}{\text{FLOPS}} = \frac{2\,\text{FLOPS}}{\text{network}\cdot s/c} $$

# %%
FLOPS, NETWORK = 0.45 * 312e12, 25e9  # as in chapters 05 to 07
print(f"as long to send as to compute: {2 * FLOPS / NETWORK:,.0f} tokens a rank, causal")
for c in (2, 4, 16, 64):
    part = 131_072 // c
    print(f"131,072 tokens on {c:2d} ranks: {part:6,d} each, send / compute {2 * FLOPS / NETWORK / part:.2f}")

# %% [markdown]
# (Forward. Backward sends twice and computes two and a half times as much.) Width cancels here, and the batch does too. What counts are **tokens a rank**: about eleven thousand here, and fewer with few heads of keys and values. Long texts have them; that is what it is for. Llama 3 405B was trained on texts of 131,072 tokens with $c = 16$: 8,192 a rank. Its 8 heads of keys and values for 128 of queries bring the
# 1.37 down to 0.09. (They are cheap enough to send and to hold all of them, and so its makers took an all-gather in place of a ring; Grattafiori et al. 2024, section 3.3.2.)
#
# ## PyTorch's own
#
# Sequence parallel is `SequenceParallel()` in the plan of `parallelize_module`, for each norm, with `Shard(1)` as the layout around the blocks. Context parallel is `context_parallel` in `torch.distributed.tensor.experimental`: within its block `scaled_dot_product_attention` goes round the
# ring. In PyTorch 2.13 it knows the GPU's kernels only; on a CPU it says that there is no rule for splitting that operator.
#
# ## Where this ends
#
# - Context parallel leaves the weights whole. It is used *with* tensor parallel (inside a node), sharding, and pipelines: chapter 11.
# - With too few tokens a rank, the ring waits.
# - $s^2$ is still computed. Memory is linear in the text, work is not.

# %% [markdown]
# ## How well did you predict?

# %% jupyter={"source_hidden": true}
tally()

# %% [markdown]
# ## In six lines
#
# - Tensor parallel leaves norms, sums and dropout whole. An all-reduce is a reduce-scatter and an all-gather: put them in between, on $s/t$ tokens. The same bytes.
# - A weight that is whole and works on cut tokens needs $f$, too: sum its gradient, or the ranks part ways in silence.
# - Keep a part and gather again in backward: 10 for 8 $bsh\frac{t-1}{t}$, and everything is a $t$-th.
# - Attention in pieces: two sums and a maximum. Keys and values go round, queries stay.
# - Causal: one early and one late chunk for each rank.
# - $\text{send}/\text{compute} = \frac{2\,\text{FLOPS}}{\text{network}\cdot s/c}$: long texts.
#
# | symbol | meaning |
# |---|---|
# | $t$, $c$ | ranks that share the layers (tensor parallel), the sequence (context parallel) |
# | $b$, $s$, $h$ | batch, sequence, width |
# | $f$ | nothing forward, all-reduce backward |
# | $g$, $\bar g$ | of sequence parallel: all-gather forward and reduce-scatter backward; the other way round |
# | $q$, $k$, $v$; $z$, $d$, $a$ | queries, keys, values of attention; scores, width of a head, heads |
# | $\gamma$ | a norm's weight |
# | $m$ | the largest score so far |
#
# **To read**
#
# - Korthikanti et al. 2022, [*Reducing Activation Recomputation*](https://arxiv.org/abs/2205.05198), section 4: sequence parallel, and what each tensor takes. Look at figure 5.
# - Liu, Zaharia and Abbeel 2023, [*Ring Attention*](https://arxiv.org/abs/2310.01889), section 3: the ring, and how long a block must be.
# - Jacobs et al. 2023, [*DeepSpeed Ulysses*](https://arxiv.org/abs/2309.14509), section 3; Dao et al. 2022, [*FlashAttention*](https://arxiv.org/abs/2205.14135), section 3.
#
# **Now you:** [the exercise](../exercises/08_sequence_and_context_parallel.ipynb).
