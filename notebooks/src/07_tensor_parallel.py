# %% [markdown]
# # 07 · Tensor parallel
#
# In three quarters of an hour you will be able to
#
# - split a transformer block over ranks so that each half of it needs one collective in each direction, and say why it cannot be fewer,
# - split attention by heads, and the vocabulary with its loss, without ever putting the logits together,
# - say which random masks must be the same on all ranks and which must not,
# - tell from the width of a model and the speed of a link how many ranks it can be split over, and where there is a cliff.
#
# You need [chapter 04](04_one_product_two_splits.ipynb): the three cuts of a product, and the two operators with their backward. The lesson follows section 8.2.2 of
# [the source](../README.md#where-it-comes-from), "model parallelism", and its example, BERT.
#
# **The question:** in chapter 06 the weights travelled to the samples. *Can the weights stay where they are, and every rank do its part of every layer?*
#
# Here is a block of a transformer on two ranks. Choose more: what does each of them hold, and where do they talk?

# %% jupyter={"source_hidden": true}
from course_lib.viz import transformer_block

transformer_block(b=2, s=64, h=128, num_heads=8, t=2)

# %%
from dataclasses import replace

import torch
import torch.distributed as dist
from torch.nn import functional as F

from course_lib import Link, launch, span
from course_lib.collectives.autograd import copy_to_group, reduce_from_group
from course_lib.data import masked_batch, text, text_batch
from course_lib.models.bert import BERT
from course_lib.models.gpt import GPT, Attention
from course_lib.viz import predict, tally
from course_lib.viz.plots import COLORS, new_plot

# %% [markdown]
# ## One product is not a layer
#
# The source cuts one weight $w$ by its columns and stops there. A transformer has two products in a row with something between them. Its *MLP*, with a width of $h$:
#
# $$ y = \mathrm{gelu}(x A)\, B, \qquad A: (h, 4h), \quad B: (4h, h) $$
#
# Small numbers for now, in float64. (PyTorch keeps a linear's weight as (outputs, inputs), the transpose of this. In this section we write products as the source does.)

# %%
torch.manual_seed(0)
b, s, h = 2, 8, 16  # batch, sequence, width
x = torch.randn(b, s, h, dtype=torch.float64)
A = torch.randn(h, 4 * h, dtype=torch.float64) / 4
B = torch.randn(4 * h, h, dtype=torch.float64) / 8
y = F.gelu(x @ A) @ B  # (b, s, h): the truth

# %% [markdown]
# Chapter 04 had two cuts of a weight. *By columns*: nothing is sent forward, and the outputs lie cut. *By rows*: the inputs must lie cut, and out come partial sums that have to be
# added up. So for two weights there are four ways. Which is best?

# %% jupyter={"source_hidden": true}
predict(
    "A by rows gives partial sums. Can they be left so, each rank taking the gelu of its own, until one "
    "all-reduce at the end?",
    {
        "Yes, with any function in between": (
            "A sum can be put off past a product, which is linear. A gelu is not linear: gelu(a) + "
            "gelu(b) is not gelu(a + b)."
        ),
        "Yes, with relu and not with gelu": (
            "relu is linear on each side of 0, but not across it: relu(2) + relu(-1) is 2, and relu of "
            "their sum is 1."
        ),
        "No, with neither": (
            "Neither is linear, so the function of a sum is not the sum of the functions. The partial "
            "sums have to be added up first."
        ),
    },
    right=2,
)

# %%
x0, x1 = x.chunk(2, -1)
A0, A1 = A.chunk(2, 0)  # rows
for act in (F.gelu, torch.relu, lambda z: z):
    late, right = act(x0 @ A0) + act(x1 @ A1), act(x @ A)
    print(f"largest difference: {(late - right).abs().max():.3f}")

# %% [markdown]
# Only without a nonlinearity can the sum wait. With one, a product by rows has to be finished, by an all-reduce of $b\cdot s\cdot 4h$ numbers, before the gelu. By columns it
# is otherwise: the gelu works on each number by itself, so it may work on some of the columns. And columns of the first product are just what a second
# one by rows wants. The four ways, forward:
#
# | $A$ | $B$ | sent |
# |---|---|---|
# | columns | columns | all-gather of $4h$ numbers a token, and of $h$ |
# | **columns** | **rows** | **all-reduce of $h$** |
# | rows | columns | all-reduce of $4h$, all-gather of $h$ |
# | rows | rows | all-reduce of $4h$, all-reduce of $h$ |
#
# **Column, then row: one all-reduce, of the narrow result, at the very end.** It cannot be none: each number of $y$ depends on all columns of $A$, and those are on different ranks.
#
# In each direction, that is. Backward, the two operators of chapter 04 do it: $f$ (`copy_to_group`) stands where a whole $x$ goes into cut work, $g$ (`reduce_from_group`) where partial sums come out.
#
# | | forward | backward |
# |---|---|---|
# | $f$, before $A$ | nothing | all-reduce of $\partial x$ |
# | $g$, after $B$ | all-reduce of $y$ | nothing |


# %%
def mine(tensor, dim):
    """This rank's part of a tensor that is cut along `dim`."""
    return tensor.chunk(dist.get_world_size(), dim)[dist.get_rank()]


def mlp(f=copy_to_group, g=reduce_from_group):
    """On a rank: y, and the gradients of x, of A's columns and of B's rows."""
    x_, A_, B_ = (part.clone().requires_grad_() for part in (x, mine(A, 1), mine(B, 0)))
    y_ = g(F.gelu(f(x_) @ A_) @ B_)
    y_.square().sum().backward()
    return y_.detach(), x_.grad, A_.grad, B_.grad


def compare(run):
    truth = launch(mlp, 1)[0]
    names = {"y": None, "∂x": None, "∂A": 1, "∂B": 0}
    for (name, dim), right, *parts in zip(names.items(), truth, *run):
        got = parts[0] if dim is None else torch.cat(parts, dim)
        print(f"  {name:3s} {'right' if torch.allclose(got, right) else 'WRONG'}")


# %% tags=["nbval-check-output"]
compare(launch(mlp, 4))

# %% [markdown]
# $t$ is the number of ranks that share a layer; here $t = 4$. Now take $f$ away, as one forgets a line that does nothing when one tries it out. Chapter 04 did that to a single product. Here there are more gradients:

# %% jupyter={"source_hidden": true}
predict(
    "An MLP cut by columns, then by rows, and f left out: which gradients are wrong?",
    {
        "∂x": "Each rank has the ∂x that came back through its own columns of A. f would have added them up.",
        "∂x and ∂A": (
            "∂A comes from x, which is whole, and from the gradients of the rank's own columns, which "
            "are complete. Only what flows on to x is a part."
        ),
        "∂x, ∂A and ∂B": (
            "Backward comes to f last, when ∂B and ∂A are already computed. What is missing there harms "
            "only what comes after it: ∂x."
        ),
    },
    right=0,
)

# %% tags=["nbval-check-output"]
compare(launch(mlp, 4, lambda x: x))

# %% [markdown]
# Only $\partial x$, which goes on to the layers *before*, is one rank's share of the truth. The gradients of those layers are then wrong, and differ between ranks. The loss does not tell; comparing with one process does.
#
# Two more details that a library must get right. **The bias of the row layer** is added after the all-reduce, once; before it, the sum would have it $t$ times. (A column layer's bias is cut with its columns.)
# And the all-reduce of $\partial x$ need not be waited for at once: the gradient of the weight does not depend on it, so
# [ours](../course_lib/parallel/tensor.py) computes $\partial A$ while $\partial x$ travels. Look for it over an emulated network, in flight below the work:


# %%
def one_layer():
    from course_lib.parallel.tensor import ColumnParallelLinear

    layer = ColumnParallelLinear(512, 1024)
    x = torch.randn(1500, 512, requires_grad=True)
    with span("forward"):
        y = layer(x)
    with span("backward"):
        y.sum().backward()


run = launch(one_layer, 2, link=Link(latency_s=0.001, bandwidth_gb_s=0.2))
run.trace.during("backward")

# %% [markdown]
# ## Attention: whole heads
#
# The other half of a block is attention: from $x$ come queries $q$, keys $k$ and values $v$, each cut into $a$ *heads*; each head attends by itself; $o$ mixes what they
# found. It has the same form as the MLP. $q$, $k$, $v$ are the first products; the heads are what works on parts; $o$ is the second product. **Cut $q$, $k$, $v$ by columns so that each rank has
# whole heads, and $o$ by rows.**
#
# Our `Attention` counts its heads from what comes in. So a rank that is given the slices of a quarter of the heads runs the same code:


# %%
def slice_heads(attention):
    """Keep this rank's heads of a plain Attention. Linear weights are (outputs, inputs)."""
    for linear in (attention.q, attention.k, attention.v):
        linear.weight.data = mine(linear.weight.data, 0)
        linear.bias.data = mine(linear.bias.data, 0)
    attention.o.weight.data = mine(attention.o.weight.data, 1)


def attend(sliced):
    torch.manual_seed(0)
    attention = Attention(x.shape[-1], num_heads=4).double()
    x_ = x.clone().requires_grad_()
    if sliced:
        slice_heads(attention)
        bias, attention.o.bias = attention.o.bias, None
        y = reduce_from_group(attention(copy_to_group(x_))) + bias
    else:
        y = attention(x_)
    y.square().sum().backward()
    return y.detach(), x_.grad


# %% tags=["nbval-check-output"]
whole = launch(attend, 1, False)[0]
for t in (2, 4):
    found = launch(attend, t, True)[0]
    print(f"{t} ranks: y and ∂x as in one process:", all(map(torch.allclose, found, whole)))

# %% [markdown]
# One $f$ for all three of $q$, $k$ and $v$: their gradients are added up first, and then sent. With an $f$ before each of them it would be right too, and send three times as much backward.
#
# Heads are not cut. So **$t$ must divide the number of heads**. With *grouped-query attention*, where several heads of queries share one head of keys and values (Ainslie et al. 2023), our library wants it to divide the number of those as well. Llama 3's models have 8 of
# them, and the largest was split 8 ways (Grattafiori et al. 2024, tables 3 and 4). What cannot be shared is refused:

# %% tags=["raises-exception"]
from course_lib.parallel.tensor_model import full_state_dict, tensor_parallelize

launch(lambda: tensor_parallelize(GPT(width=96, num_heads=6)), 4)

# %% [markdown]
# ## The whole block

# %% jupyter={"source_hidden": true}
predict(
    "Four ranks. How many all-reduces does a block need for a step, forward and backward together?",
    {
        "2": (
            "Two are enough forward, one at the end of each half. Backward needs as many, for ∂x at the "
            "beginning of each half."
        ),
        "4": (
            "A block has two halves, attention and MLP. Each has one g, which sends forward, and one f, "
            "which sends backward."
        ),
        "12": (
            "Six weights, forward and backward, would be 12. But nothing is sent between column and row "
            "layer of a half, and q, k, v share one f."
        ),
    },
    right=1,
)

# %% [markdown]
# Both halves together. Choose how many ranks there are, and look what each of them holds, and where something is sent:

# %%
transformer_block(b=2, s=64, h=128, num_heads=8, t=4)

# %% [markdown]
# (What *sequence parallel* does is for [chapter 08](08_sequence_and_context_parallel.ipynb).) The norms and the two sums stand outside of $f \dots g$: they are whole on each rank. So is $x$ between the blocks.

# %%
def model_step(num_layers, b, s, h, build=GPT, **options):
    """On a rank: forward and backward of a tensor parallel model."""
    from course_lib.parallel.vocabulary import vocab_parallel_cross_entropy

    model = tensor_parallelize(build(context=s, width=h, num_layers=num_layers, num_heads=8), **options)
    x, y = text_batch(0, b, s)
    with span("step"):
        vocab_parallel_cross_entropy(model(x), y).backward()


def sent(run):
    """What rank 0 called within the step, and the bytes it sent, as rings send them."""
    calls = [e for e in run.trace.of(rank=0).during("step").events if not e.is_span]
    return len(calls), sum(call.ring_bytes for call in calls)


# %% tags=["nbval-check-output"]
b, s, h = 2, 64, 128
print("one more block, for b = 2, s = 64, h = 128, in float32:")
for t in (2, 4, 8):
    two, three = (sent(launch(model_step, t, layers, b, s, h)) for layers in (2, 3))
    formula = 8 * b * s * h * (t - 1) / t * 4
    print(f"  {t} ranks: {three[0] - two[0]} calls, {three[1] - two[1]:,.0f} bytes; formula {formula:,.0f}")

# %% [markdown]
# Four all-reduces of $b\cdot s\cdot h$ numbers, of which each rank sends $2\frac{t-1}{t}$ (Narayanan et al. 2021, section 3.2). For one block and one micro-batch that is
#
# $$ 8\,b\,s\,h\,\frac{t-1}{t} \quad\text{numbers sent by each rank.} $$
#
# The weights are not in it. They stay where they are; what travels are activations. That is the opposite of chapter 06, where the weights travelled.

# %% [markdown]
# ## The vocabulary
#
# At the two ends of a language model are its largest matrices: the embedding, $V\times h$, and the head, which makes $V$ logits for each token. Of the embedding rank $r$
# takes a $t$-th of the rows, the tokens $rV/t$ to $(r+1)V/t-1$. A rank gives zeros for tokens that it does not have, and an all-reduce adds up one row and zeros.
#
# The head is a column layer: each rank has the logits of its tokens, $(b, s, V/t)$. Now the loss wants a softmax over *all* of them. One could gather the logits. How much is that?

# %% tags=["nbval-check-output"]
V, tokens, width = 50257, 8 * 1024, 768  # GPT-2, small, eight sequences
print(f"x: {tokens * width * 4 / 2**20:,.0f} MB    logits: {tokens * V * 4 / 2**20:,.0f} MB, in float32")

# %% [markdown]
# It is the largest tensor of the whole model. But what does the loss need of it? For logits $z$ and a target token $k$,
#
# $$ L = -\log\frac{e^{z_k}}{\sum_j e^{z_j}} = \log\sum_j e^{z_j - m} \;-\; (z_k - m) $$
#
# for any number $m$. From the other ranks a token needs two numbers: their part of the sum, and $z_k$, which one of them has. And a third, first: $m$ has to be the largest logit *of all
# ranks*, or an $e^{z-m}$ overflows, and it has to be the same $m$ everywhere, or sums of different things are added up.

# %%
z = torch.randn(6, 32, dtype=torch.float64) * 1000  # 6 tokens, a vocabulary of 32; huge on purpose
targets = torch.tensor([0, 7, 8, 15, 30, 31])


def split_loss():
    z_ = mine(z, 1)  # (6, 32/t)
    m = z_.amax(1)
    dist.all_reduce(m, dist.ReduceOp.MAX)
    local = targets - dist.get_rank() * z_.shape[1]  # its place in this rank's logits, if it is there
    here = (local >= 0) & (local < z_.shape[1])
    target = torch.where(here, z_[torch.arange(6), local.where(here, 0)] - m, 0)
    both = torch.stack([(z_ - m[:, None]).exp().sum(1), target])  # (2, 6)
    dist.all_reduce(both)
    return (both[0].log() - both[1]).mean()


# %% tags=["nbval-check-output"]
print("equal to F.cross_entropy:", torch.allclose(launch(split_loss, 4)[0], F.cross_entropy(z, targets)))

# %% [markdown]
# Three numbers a token in place of 50,257. The loss sends nothing backward: the gradient of a logit is $\text{softmax}_j - [j = k]$, and each rank has its own. (The head before it is a column layer, and its $f$ sends $\partial x$ as any does.) The library's
# [`vocab_parallel_cross_entropy`](../course_lib/parallel/vocabulary.py) does that, and leaves out targets of −100 as PyTorch's does.
#
# GPT-2's vocabulary of 50,257 is odd, so not even two ranks can share it. Real code adds tokens that never occur until it can be divided: Megatron-LM's GPT has 51,200 (Narayanan et al. 2021, section 5).
#
# ## What is random
#
# *Dropout* sets random numbers to zero while training. In one process it is one mask. What about ranks? Two cases, and they want opposite things.

# %% jupyter={"source_hidden": true}
predict(
    "After the row layer y is whole on every rank, and dropout follows. Each rank draws its own mask. "
    "What happens?",
    {
        "Nothing bad": (
            "Dropout is meant to be random, but x is one tensor, held by all ranks. With a mask for each "
            "they hold several, and add up parts of different ones."
        ),
        "The all-reduce of the next layer repairs it": (
            "It makes the next y equal on all ranks, but that y is a sum of parts made from different x. "
            "And each x itself stays as it is."
        ),
        "The ranks' x part ways, and the results are wrong": (
            "What is whole has to be the same everywhere. With other masks each rank multiplies its "
            "slice of the weights by another x."
        ),
    },
    right=2,
)


# %%
def dropouts(seed_of_rank):
    """On a rank: y after dropout where it is whole, and which of this rank's heads' values were kept."""
    torch.manual_seed(seed_of_rank(dist.get_rank()))
    in_whole = F.dropout(torch.ones(4, 8))
    in_heads = F.dropout(torch.ones(4, 8 // dist.get_world_size()))
    return in_whole, in_heads


for name, seed in {"one seed": lambda rank: 1, "a seed for each rank": lambda rank: rank}.items():
    first, second = launch(dropouts, 2, seed)
    same = [torch.equal(*pair) for pair in zip(first, second)]
    print(f"{name}: the same mask on what is whole: {same[0]}, on the heads: {same[1]}")

# %% [markdown]
# **What is whole must stay the same on all ranks: one seed.** What is cut, the heads' attention weights or the middle of the MLP, should have a mask for each part: with one seed, the first head of rank 0 and the first head of rank 1 would always lose the same
# numbers, which no single process would do. So neither line is right, and one needs two random generators: one with the same seed on all ranks, for what is whole, and one with
# its own on each, for what is cut. Megatron-LM keeps such a pair and switches between them. The models here have no dropout, so that a run can be compared to the last digit. The same goes for the weights' *first* values: with one seed and without care, every
# rank would start with the same slice. Ours takes slices of one whole matrix.

# %% [markdown]
# ## BERT, on four ranks
#
# The source's example. BERT reads text with some of it blanked out, and fills it in (Devlin et al. 2018). Ours reads bytes of Python's standard library. `tensor_parallelize` takes a plain model and puts a parallel layer in each
# linear's place, with this rank's slices of rank 0's weights.

# %%
SIZE = {"width": 128, "num_layers": 2, "num_heads": 4}


def train_bert(steps, dtype, split):
    from course_lib.parallel.vocabulary import vocab_parallel_cross_entropy

    torch.manual_seed(dist.get_rank())  # other weights on every rank: rank 0's win
    model, losses = BERT(**SIZE).to(dtype), []
    if split:
        model = tensor_parallelize(model)
    held = sum(p.numel() for p in model.parameters())
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(steps):
        x, y = masked_batch(step, batch=16, context=64)  # the whole batch, on every rank
        logits = model(x)
        if split:
            loss = vocab_parallel_cross_entropy(logits, y)
        else:
            loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, full_state_dict(model), held


# %% tags=["nbval-check-output"]
one = launch(train_bert, 1, 3, torch.float64, False)[0]
for t in (2, 4):
    run = launch(train_bert, t, 3, torch.float64, True)
    away = max((rank[1][name] - right).abs().max() for rank in run for name, right in one[1].items())
    print(f"{t} ranks: weights as in one process, to 1e-10: {away < 1e-10}; "
          f"each holds {run[0][2]:,} of {one[2]:,} parameters")

# %% [markdown]
# A bit more than a $t$-th: norms, positions and the row layers' biases are on every rank. Now some more steps, in float32, beside the loss of somebody who knows nothing but how often each byte
# occurs (the entropy of the bytes):

# %%
losses = torch.tensor(launch(train_bert, 4, 60, torch.float32, True)[0][0])
often = torch.bincount(text().long()) / len(text())
knows_counts = torch.special.entr(often).sum()

axes = new_plot("step", "loss of the masked bytes", "BERT on four ranks")
axes.plot(losses, label="four ranks")
axes.axhline(knows_counts, color="gray", linestyle="--", label="entropy of the bytes")
axes.legend();

# %% [markdown]
# That much is learned quickly. To look at a blank's neighbours takes it far more steps (BERT learns from 15 % of the bytes, a GPT from all of them); set 60 to 1,000 if you have minutes. The original was trained for a million (Devlin et al. 2018, appendix A.2).
#
# ## How many ranks?
#
# For how long does a rank send, for each second that it computes? One block has $12h^2$ weights; each takes 6 operations a token, forward and backward, and a rank has a $t$-th of them. (Attention's scores have no weights and are left out.) With numbers of 2 bytes:
#
# $$ \frac{\text{send}}{\text{compute}}
#    = \frac{8\,bsh\,\frac{t-1}{t}\cdot 2}{\text{link}} \Big/ \frac{72\,bsh^2/t}{\text{FLOPS}}
#    = \frac{2\,(t-1)}{9\,h}\cdot\frac{\text{FLOPS}}{\text{link}} $$
#
# The tokens cancel: a larger batch does not help here. (It did in chapters 05 and 06.) What helps is **width**. And the ranks count in full: twice as many ranks have half to compute, and nearly as much to send.

# %%
FLOPS = 0.45 * 312e12  # operations/s that large runs reach on an A100
NVLINK = 235e9  # bytes/s of each GPU inside a node of eight
NETWORK = 25e9  # bytes/s of one network card
WIDTHS = {"BERT-Large": 1024, "Llama 3 8B": 4096, "GPT-3": 12288}


def ratio(width, t, link):
    """Seconds of sending for each second of computing."""
    return 2 * (t - 1) / (9 * width) * FLOPS / link


TS, ONE_CARD = (2, 4, 8, 16, 32), 12.5e9  # bytes/s, where the GPUs of a node share 100 Gb/s
axes = new_plot("ranks t", "send / compute", "a node has 8 GPUs", log=True)
for color, (model, width) in zip(COLORS, WIDTHS.items()):
    for style, label, across in (("--", None, ONE_CARD), ("-", model, 8 * NETWORK)):
        values = [ratio(width, t, NVLINK if t <= 8 else across) for t in TS]
        axes.plot(TS, values, style, color=color, marker="", label=label)
for width, t, link in (1024, 2, NVLINK), (12288, 8, NVLINK), (12288, 16, 8 * NETWORK), (12288, 16, ONE_CARD):
    value = ratio(width, t, link)
    axes.text(t, value * (1.3 if link == ONE_CARD else 0.5), f"{value:.2f}")
axes.plot([], [], "--", color="gray", marker="", label="one card a node")
axes.axvline(8, color="gray", linewidth=1)
axes.set(xscale="log", xticks=TS, xticklabels=TS)
axes.minorticks_off()
axes.legend();

# %% [markdown]
# From 8 ranks to 16 the group leaves its node, and then the links between nodes carry the ring. **How deep the cliff is, is a question of network cards.** With one for each GPU, as in a DGX A100, the eight of a node share the work, and it is a step: more than half of it is $t - 1$ growing. With one Ethernet card a node it is a
# cliff: for GPT-3, 0.08 seconds of sending for each second of computing become 3. What the formula leaves out, latency above all, also counts for more between nodes; measured on a cluster of the first kind, $t = 8$ was best (Narayanan et al. 2021, section 5.4). Hence the rule: *tensor parallel inside a node, something else between nodes.* And narrow models are not
# worth it at all: BERT-Large on two GPUs sends for an eighth as long as it computes, and the forward half of that cannot hide.
#
# (The rates are those of chapter 05 and of a measured all-reduce over NVLink, as in `course_lib/cost/hardware.py`. Rings alone are counted here, no latency. The calculator of chapter 01 takes both, and all kernels.)
#
# ### Measured, in slow motion
#
# As in chapter 05, take a core for an A100 in slow motion, and slow the links down by the same factor. One more factor comes from the formula: our block is narrower and its numbers have 4 bytes, so the
# link is scaled by $2h_\text{real}/h$. Then $\text{send}/\text{compute}$ is that of the real model. Two ranks, so that each has a core of yours to itself: two GPUs of one node, or one GPU in each of two nodes, with its own card.

# %%
h, tokens = 512, 1024


def block_steps(steps=6):
    """On a rank: some steps of the products of one block of width h, forward and backward."""
    from course_lib.parallel.tensor import ColumnParallelLinear, RowParallelLinear

    qkv, o = ColumnParallelLinear(h, 3 * h), RowParallelLinear(h, h)
    up, down = ColumnParallelLinear(h, 4 * h), RowParallelLinear(4 * h, h)
    x = torch.randn(tokens, h, requires_grad=True)
    for _ in range(steps + 1):
        dist.barrier()
        with span("step"):
            q, k, v = qkv(x).chunk(3, -1)
            y = x + o(q + k + v)  # attention without its scores
            (y + down(torch.relu(up(y)))).sum().backward()


def standing_still(run):
    """Share of the fastest step in which rank 0 stood still; and its seconds."""
    steps = [e for e in run.trace.of(rank=0, operation="step").events][1:]
    fastest = min(steps, key=lambda step: step.end_s - step.start_s)
    inside = [e for e in run.trace.of(rank=0).events if fastest.start_s <= e.start_s <= fastest.end_s]
    seconds = fastest.end_s - fastest.start_s
    return replace(run.trace, events=tuple(inside)).overlap(0).exposed_s / seconds, seconds


still, seconds = standing_still(launch(block_steps, 2))
my_flops = 72 * tokens * h**2 / 2 / (seconds * (1 - still))
print(f"a rank here: {my_flops / 1e9:.0f} · 10⁹ operations/s; an A100 {FLOPS / my_flops:,.0f} times as many")

# %%
print(f"{'(emulated links)':16s}{'in one node':>24s}{'in two':>24s}")
for name, real_h in WIDTHS.items():
    row = f"{name:16s}"
    for link in (NVLINK, NETWORK):
        slow = link / 1e9 * my_flops / FLOPS * 2 * real_h / h
        run = launch(block_steps, 2, link=Link(latency_s=0, bandwidth_gb_s=slow))
        expected = ratio(real_h, 2, link)
        row += f"{standing_still(run)[0]:10.0%}, formula {expected / (1 + expected):4.0%}"
    print(row)

# %% [markdown]
# How much of a step two ranks stand still. The formula counts all four messages of a block. The two of the column layers' backward are under way while $\partial A$ is computed, so that the truth lies **between half of the formula and all of it**, plus what two processes wait for each other anyway: on a busy machine that can be more than all the rest in
# the small numbers. Read down: width. Read across: the same two ranks, the same work, and only their place has changed.
#
# ## When did BERT need this?
#
# The source says "for example BERT". Count, with the 16 bytes of chapter 06 for each parameter:

# %% tags=["nbval-check-output"]
from course_lib.cost.hardware import GPUS
from course_lib.cost.shapes import MODELS, Transformer

megatron = Transformer("Megatron's BERT, 2019", 48, 2560, 40, vocab_size=30522, context=512)
gpus = "V100", "A100", "B200"
print(f"{'':22s}parameters    state   " + "".join(f"{name:>6s}" for name in gpus))
for model in (MODELS["BERT-Large"], megatron):
    state = 16 * model.parameters / 1e9
    fits = ["fits" if state < GPUS[gpu].memory_gb else "no" for gpu in gpus]
    row = f"{model.name:22s}{model.parameters / 1e6:7,.0f} M  {state:5.1f} GB  "
    print(row + "".join(f"{fit:>6s}" for fit in fits))

# %% [markdown]
# BERT-Large, of 2018, fitted on one GPU then and does now. What had to be split was the BERT that Megatron-LM's authors made to show that one can: 3.9 billion parameters, on GPUs of 32 GB (Shoeybi et al. 2019). Its
# state fits on one GPU of today, with some room for activations. **The models did not stop there, and that is what tensor parallel is for now**: wide layers, whose
# activations and weights are too large for one GPU, or a step on it too slow.
#
# ## PyTorch's own
#
# `parallelize_module` takes a plan: which linear by columns, which by rows. Each weight becomes a `DTensor`, which knows how it is cut.


# %%
def pytorch(steps=3):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    torch.manual_seed(0)
    model, losses = BERT(**SIZE).double(), []
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    columns = {name: ColwiseParallel() for name in ("attention.q", "attention.k", "attention.v", "up")}
    rows = {name: RowwiseParallel() for name in ("attention.o", "down")}
    for block in model.blocks:
        parallelize_module(block, mesh, columns | rows)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(steps):
        x, y = masked_batch(step, batch=16, context=64)
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# %% tags=["nbval-check-output"]
theirs = launch(pytorch, 4)[0]
print("the same losses, to 1e-10:", max(abs(a - b) for a, b in zip(theirs, one[0])) < 1e-10)

# %% [markdown]
# The same losses. Theirs works for any model that you write a plan for; ours knows the two models of this course, and sends one $\partial x$ for $q$, $k$ and $v$ where this plan sends three. (`PrepareModuleInput` in the plan
# mends that.) Step times side by side: `make bench ARGS=tensor_parallel`.
#
# ## Where this ends
#
# - **Inside a node.** Beyond it the links are too slow. For more ranks there are data parallel, and chapters 09 and 11.
# - **Not everything is cut.** Norms, sums, dropout, and all activations between the blocks are whole on every rank, in memory and in time. Chapter 08 cuts those too.
# - **Two stops a block in forward**, which nothing hides, since the next product waits for them; and two in backward, partly hidden.

# %% [markdown]
# ## How well did you predict?

# %% jupyter={"source_hidden": true}
tally()

# %% [markdown]
# ## In six lines
#
# - Column, then row: whatever lies between must work on each part by itself, as a gelu and a head do.
# - $f$: nothing forward, all-reduce of $\partial x$ backward. $g$: all-reduce forward, nothing backward. Forget $f$, and the loss looks right.
# - A block sends $8bsh\frac{t-1}{t}$ numbers: activations, not weights.
# - The loss of a split vocabulary needs three numbers a token.
# - What is whole shares a seed; what is cut does not.
# - $\text{send}/\text{compute} = \frac{2(t-1)}{9h}\cdot\frac{\text{FLOPS}}{\text{link}}$: wide models, fast links, inside a node.
#
# | symbol | meaning |
# |---|---|
# | $t$ | ranks that share one model's layers: the tensor parallel size |
# | $b$, $s$, $h$ | sequences of a micro-batch, tokens of each, width |
# | $a$ | heads |
# | $V$ | tokens of the vocabulary |
# | $f$, $g$ | the operators before and after cut work |
#
# **To read**
#
# - Shoeybi et al. 2019, [*Megatron-LM*](https://arxiv.org/abs/1909.08053), section 3: this lesson's splits, in four pages. Look at figures 3 and 4.
# - Narayanan et al. 2021, [*Efficient Large-Scale Language Model Training*](https://arxiv.org/abs/2104.04473), sections 3.2 and 5.4: why not beyond a node, measured.
#
# **Now you:** [the exercise](../exercises/07_tensor_parallel.ipynb).
