# %% [markdown]
# # 11 · Hybrid parallel
#
# In three quarters of an hour you will be able to
#
# - lay three ways of cutting over one mesh of ranks, and say of any rank, among 3,072, with whom it shares what,
# - say which of them belongs inside a node and which goes across, with bytes and seconds,
# - train with all three at once, on eight real ranks, and get what one process gets,
# - name the two places where the three meet, and where one goes wrong in silence: the norm of the gradient, and the tied embedding.
#
# You need [chapter 05](05_data_parallel.ipynb), [chapter 07](07_tensor_parallel.ipynb) and [chapter 09](09_pipeline_parallel.ipynb): data, tensor and pipeline parallel, each by itself. The lesson follows section 8.2.4 of
# [the source](../README.md#where-it-comes-from), which ends with one example: "GPT-3", in 64 pipeline stages, each on 6 DGX-A100 hosts side by side, each host cutting the model over its 8 GPUs.
#
# **The question:** that is $64 \times 6 \times 8 = 3072$ GPUs. *Who of them talks to whom, and would it matter if we had seated them in another way?*
#
# The smallest mesh that has everything is a cube of eight ranks. Click one: with whom does it talk?

# %% jupyter={"source_hidden": true}
from course_lib.layout import Layout
from course_lib.viz import mesh_explorer

cube = Layout(pp=2, dp=2, tp=2)
mesh_explorer(cube, model="GPT-3 Small", num_microbatches=4)

# %%
import time
from dataclasses import replace
from itertools import permutations

import torch
import torch.distributed as dist

from course_lib import Link, launch, span
from course_lib.cost.hardware import SYSTEMS
from course_lib.cost.links import Cluster
from course_lib.cost.plan import Plan
from course_lib.cost.shapes import MODELS
from course_lib.cost.traffic import step_traffic
from course_lib.data import text_batch
from course_lib.layout import nodes_of
from course_lib.models.gpt import GPT
from course_lib.parallel.hybrid import HybridParallel
from course_lib.viz import parts, predict, tally, traffic

# %% [markdown]
# ## Three cuts, one mesh
#
# Each strategy cuts something else, so they do not get in each other's way:
#
# | | cuts | what its ranks send each other | how often in a step |
# |---|---|---|---|
# | tensor, $t$ | each weight | activations, all-reduced | four times for each layer and micro-batch |
# | pipeline, $p$ | the list of layers | activations, to the next stage | twice for each micro-batch |
# | data, $d$ | the batch | gradients, all-reduced | once |
#
# Cut the weights in $t$, the layers in $p$: that is one copy of the model, on $p\cdot t$ ranks. Now take $d$ such copies. Every rank then has three numbers, its **coordinates**: the stage, the copy and the slice. The ranks form a **mesh** of three axes.
#
# A rank, though, has *one* number, and ranks 0 … 7 sit in the first node, 8 … 15 in the second. So somebody has to decide how to number the mesh. Megatron-LM counts like a clock: the slice is the seconds, the copy is the minutes, the stage is the hours (Narayanan et al. 2021):
#
# $$ \text{rank} = (\text{stage}\cdot d + \text{copy})\cdot t + \text{slice} $$
#
# The cube at the top has these coordinates at its edges. Those of rank 6:

# %% tags=["nbval-check-output"]
cube.coordinates(6)

# %% [markdown]
# (`cp` is context parallel, chapter 08: a fourth axis, here of one rank. We leave it at that.)

# %% jupyter={"source_hidden": true}
predict(
    "Gradients are averaged over ranks that hold the same weights. With whom does rank 5 average?",
    {
        "with rank 4": (
            "Rank 4 is the other half of rank 5's tensor-parallel group: the same stage and copy, but "
            "the other slice, and so other weights."
        ),
        "with rank 7": (
            "Ranks 5 and 7 have the same stage and the same slice, and differ in the copy alone. So they "
            "hold the same weights."
        ),
        "with rank 1": (
            "Rank 1 has the same copy and slice, but the other stage: its weights are those of other layers."
        ),
        "with all others": (
            "In plain data parallel every rank holds all weights. Here they are cut by layers and by "
            "slices, and only two ranks hold the same."
        ),
    },
    right=1,
)

# %% [markdown]
# The same weights means the same stage and the same slice: only the copy differs. A **group** is that: all ranks that differ along one axis and along no other.

# %% tags=["nbval-check-output"]
for axis in ("tp", "dp", "pp"):
    print(f"{axis}: rank 5 is with {cube.group(5, axis)}; all groups: {cube.groups(axis)}")

# %% [markdown]
# Look at it on two nodes of four ranks each. Click on other ranks:

# %%
mesh_explorer(cube, ranks_per_node=4, rank=5, model="GPT-3 Small", num_microbatches=4)

# %% [markdown]
# Along tp neighbours are 1 apart, along dp 2, along pp 4: an axis has a **stride**, the product of the sizes of the axes inside it. That is the strides of a tensor of shape $(p, d, t)$, and so PyTorch has it: a `DeviceMesh` is a tensor of ranks, and a group is one of its rows. Is it the same mesh?


# %%
def pytorchs_groups():
    from torch.distributed.device_mesh import init_device_mesh

    mesh = init_device_mesh("cpu", (2, 2, 2), mesh_dim_names=("pp", "dp", "tp"))
    groups = {axis: mesh[axis].get_group() for axis in mesh.mesh_dim_names}
    return {axis: tuple(dist.get_process_group_ranks(group)) for axis, group in groups.items()}


# %% tags=["nbval-check-output"]
run = launch(pytorchs_groups, 8)
same = all(run[r][axis] == cube.group(r, axis) for r in range(8) for axis in run[r])
print("the same groups on every rank:", same)

# %% [markdown]
# ## The mesh of the source
#
# The same for 3,072 ranks. Nothing is started for this: a layout is arithmetic.

# %% tags=["nbval-check-output"]
large = Layout(pp=64, dp=6, tp=8)
print(f"rank 1234: {large.coordinates(1234)}")
for axis in ("tp", "dp", "pp"):
    group = large.group(1234, axis)
    nodes = nodes_of(group, ranks_per_node=8)
    print(axis, group[0], "to", group[-1], "by", large.stride(axis), "on nodes:", len(nodes))

# %% [markdown]
# A tensor-parallel group is one node. The other two never have two ranks in the same node.

# %% jupyter={"source_hidden": true}
predict(
    "A stage has 2 layers, a copy 512 micro-batches, a rank 2 billion weights. Which of rank 1234's three "
    "groups sends most bytes in one step?",
    {
        "dp": (
            "2 billion gradients make the largest messages, but they go once a step. Activations go for "
            "every layer and every micro-batch."
        ),
        "tp": (
            "Activations are all-reduced several times for each of 2 layers and 512 micro-batches: 1.2 "
            "TB, against 13 GB along pp and 7 GB along dp."
        ),
        "pp": (
            "512 micro-batches cross the border of a stage, each way. But that is one activation for a "
            "whole stage, where tp sends several for each layer."
        ),
    },
    right=1,
)

# %% [markdown]
# Who sits where, and who sends what? Here is every rank, a block for each node, and what the chosen one sends. **Click one**, or walk from rank to rank with the keys:

# %%
mesh_explorer(large, ranks_per_node=8, rank=1234)

# %% [markdown]
# Things to try:
#
# - Click rank 0, then rank 3071. What do they have that rank 1234 has not?
# - Keep the rank, and turn the order round, from `pp · dp · cp · tp` to `cp · tp · dp · pp`. Which group is now at home in a node? What becomes of the last column?
# - Nodes of 4 in place of 8. Nodes of 72, as the newest machines have them.
# - 60 stages. Why does it refuse?

# %% [markdown]
# ## Is that GPT-3?
#
# The source calls its example GPT-3. Try it:

# %% tags=["raises-exception"]
Plan(pp=64, dp=6, tp=8, batch=3072).check_fits(MODELS["GPT-3 175B"])

# %% [markdown]
# GPT-3's 96 layers do not fit 64 equal stages. But 64 · 6 · 8 *is* in a table: Narayanan et al. 2021, table 1, last row: 128 layers, a width of 25,600, 160 heads, $t = 8$, $p = 64$, 3,072 GPUs, a batch of 3,072. How large is that one? A layer has $12h^2$ weights:

# %% tags=["nbval-check-output"]
trillion = MODELS["Megatron 1T"]
print(f"12 · 128 · 25600² = {12 * 128 * 25600**2 / 1e12:.3f} trillion; {trillion}")
plan = Plan(pp=64, dp=6, tp=8, batch=3072, recompute="full")
plan.check_fits(trillion)
layers, m = trillion.num_layers // plan.pp, plan.num_microbatches
print(f"{layers} layers a stage, {m} micro-batches a copy")

# %% [markdown]
# **The source's example is the model of a trillion parameters**, the largest of that paper, six times GPT-3. GPT-3 itself is there, too (section 5.1, and the README of Megatron-LM): $t = 8$, $p = 16$ and $d = 8$, on 1,024 GPUs.

# %% tags=["nbval-check-output"]
gpt3 = MODELS["GPT-3 175B"]
Plan(pp=16, dp=8, tp=8, batch=1536).check_fits(gpt3)
layers = gpt3.num_layers
print(f"{layers} layers = 64 · {layers // 64} + {layers % 64} = 16 · {layers // 16}")

# %% [markdown]
# ## Why the tensor axis sits inside
#
# A node of 8 A100s has NVLink inside: an all-reduce gets some 235 GB/s out of it. Across nodes each GPU has a 200 Gb/s InfiniBand of its own, 22.5 GB/s in practice: **ten times less**.

# %% tags=["nbval-check-output"]
A100 = SYSTEMS["A100"]
print(A100)

# %% [markdown]
# The explorer has shown who sends most: tp. Its formulas are those of chapters 05, 07 and 09, each for one rank and one step; $\Psi$ is the number of parameters that the rank holds, and everything is in numbers of 2 bytes:
#
# $$ \underbrace{m\,\tfrac{l}{p}\cdot 8bsh\tfrac{t-1}{t}}_{\text{tensor}} \qquad
# \underbrace{2\Psi\tfrac{d-1}{d}}_{\text{data}} \qquad \underbrace{m\cdot 2\tfrac{bsh}{t}}_{\text{pipeline}} $$
#
# (With activations computed again, as here, the 8 is a 12: forward runs twice.)

# %%
print(step_traffic(trillion, plan, A100, rank=1234))

# %% [markdown]
# More than a terabyte along tp: nearly two hundred times what goes along dp, and ninety times what goes along pp. Now turn the mesh round. There are six orders. The bytes are the same in all of them; what changes is who is whose neighbour, and so over which link they go. Which order is best, and what does the worst one cost? A bar for each, the innermost axis named last:

# %%
seconds = {}
for order in permutations(("pp", "dp", "tp")):
    step = step_traffic(trillion, plan, A100, 1234, replace(large, order=order))
    seconds[" · ".join(order)] = {axis: step[axis].seconds for axis in ("tp", "dp", "pp")}
parts(seconds, title="Seconds of communication in a step: 1 trillion parameters, 3,072 A100")

# %% [markdown]
# Only where tp is last does its group live in a node; and then it does not matter much which of the other two is outermost. With dp innermost, six of eight neighbours are copies, which talk once. With pp innermost stages hand over for nothing, and that gains half a second and costs fifty. The step took about a hundred seconds in all
# (Narayanan et al. 2021, table 1, from its 163 TFLOP/s a GPU). So their first takeaway: **tensor parallel up to the size of a node, then pipelines across** (section 3.2). And data parallel takes what is left, as it needs the links once.
#
# How few bytes a pipeline takes, and how many tensor parallel, has one reason: the first sends an activation for each *stage*, the second four for each *layer*.
#
# $$ \frac{\text{tensor}}{\text{pipeline}} = \frac{l}{p}\cdot\frac{8bsh\frac{t-1}{t}}{2bsh/t} = 4\,\frac lp\,(t-1) $$

# %% tags=["nbval-check-output"]
layers, t = 128 // 64, 8  # of a stage; slices
print("bytes along tp for one along pp:", 4 * layers * (t - 1))
print("where forward runs twice:       ", 6 * layers * (t - 1))

# %% [markdown]
# (Counted above were 91. What comes from another stage in $t$ slices is gathered inside the node, and that goes along tp, too.)

# %% [markdown]
# ## For real
#
# Eight processes, 2 × 2 × 2. [`HybridParallel`](../course_lib/parallel/hybrid.py) takes a plain GPT and puts together what the earlier chapters built: it cuts the weights over tp, then the layers over pp, then averages gradients over dp. Each rank picks its rows of the batch by its own coordinate. The truth is one process, as always; all in float64, and every rank starts with other weights on purpose.


# %%
def build(layout, optimizer=torch.optim.AdamW, dtype=torch.float64, **options):
    """On a rank: a small GPT, cut by the layout."""
    torch.manual_seed(dist.get_rank())
    model = GPT(context=32, width=32, num_layers=4, num_heads=4).to(dtype)
    return HybridParallel(model, layout, optimizer, num_microbatches=4, lr=0.01, **options)


def train(layout, steps=3, **options):
    """On a rank: the losses, and the weights put together again."""
    hybrid, losses = build(layout, max_norm=1.0, **options), []
    for step in range(steps):
        x, y = text_batch(step, 16, 32)  # 16 sequences of 32 bytes, the same on every rank
        with span("step", number=step):
            losses.append(hybrid.step(x, y).item())
    return losses, hybrid.full_state_dict()


# %% jupyter={"source_hidden": true}
predict(
    "AdamW, gradients clipped, three steps. How close will 8 ranks come to one process?",
    {
        "to 15 digits, or so": (
            "Every cut is exact: the same sums, added up in another order. In float64 that changes the "
            "last of some 16 digits."
        ),
        "to 5 digits": (
            "That is about what float32 would leave of its 7 digits. This run is in float64, which has "
            "some 16."
        ),
        "to a few percent": (
            "Ranks that only approximate the gradient would be that far off. No cut approximates: "
            "gradients and their norm are those of the whole batch and model."
        ),
    },
    right=0,
)

# %%
one, truth = launch(train, 1, Layout())[0]
run = launch(train, 8, cube)
print("1 process:", one)
print("8 ranks:  ", run[0][0])

# %% tags=["nbval-check-output"]
others = Layout(pp=4, tp=2), Layout(pp=2, cp=2, tp=2)
for layout in (cube, *others):
    losses, weights = (run if layout == cube else launch(train, 8, layout))[0]
    off = max(abs(a - b) for a, b in zip(losses, one))
    apart = max((weights[n] - truth[n]).abs().max().item() for n in truth)
    print(f"{layout!s:18}  losses to 1e-12: {off < 1e-12}, weights to 1e-10: {apart < 1e-10}")

# %% [markdown]
# With ZeRO (chapter 06) along dp, and sequence parallel (chapter 08) along tp, nothing changes either:

# %% tags=["nbval-check-output"]
losses, _ = launch(lambda: train(cube, zero=1, sequence_parallel=True), 8)[0]
print("the same losses:", max(abs(a - b) for a, b in zip(losses, one)) < 1e-12)

# %% [markdown]
# ### Who sent what to whom
#
# That very run, its last step: a row for each sender, a column for each receiver. (What a collective does inside is gloo's affair; counted is what a ring would send, from each rank to the next of its group.) Before you look: which pairs are the darkest?

# %%
traffic(run.trace.during("step", last=1).traffic(rings=True), layout=cube)

# %% [markdown]
# Read it by colour, or by the distance from the diagonal, which is the stride of an axis:
#
# - **1 apart**, the 2 × 2 blocks along the diagonal: tp. Ranks 0 and 1, 2 and 3, …
# - **2 apart**: dp. 0 and 2, 1 and 3, …
# - **4 apart**, in the far corners: pp. Below the diagonal gradients come back.
# - A few bytes from each rank to the next, round the whole world: the sum of the loss, and of the squared norm. 8 bytes each.
#
# Do the formulas give these numbers? A rank has $l/p = 2$ layers and 4 micro-batches of $b = 2$ sequences; a number takes 8 bytes here. At either end of the pipeline there is one all-reduce more for each micro-batch, of the embedding or of the head's input:

# %% tags=["nbval-check-output"]
m, bsh = 4, 2 * 32 * 32
layer, end = 8 * bsh // 2, 2 * bsh // 2  # numbers, for t = 2
print(f"rank 0 to rank 1, along tp: {m * (2 * layer + end) * 8:,} bytes")
tied = 2 * 256 * 32 // 2 // 2  # an all-reduce of the embedding's slice, between the two ends
pipe = m * bsh
print(f"rank 0 to rank 4, along pp: {pipe * 8:,} + {tied * 8:,} = {(pipe + tied) * 8:,} bytes")

# %% [markdown]
# And along dp, where every parameter of the rank counts, cut or whole:

# %% tags=["nbval-check-output"]
h = 32
cut, whole = 12 * h * h + 7 * h, 6 * h  # of a layer: matrices and their biases; norms, biases of row layers
held = 2 * (cut // 2 + whole) + 256 * h // 2 + 32 * h  # with half of the embedding, and the positions
flags = 2 * 16 + 2  # for each tensor a number that says that it was used: chapter 05
print(f"rank 0 to rank 2, along dp: 8 · ({held:,} + {flags}) = {8 * (held + flags):,} bytes")

# %% [markdown]
# To the byte, but for 80 with which the pipeline announces a shape, once, and the few that go round the world. Two differences to the formulas above. The last stage has the vocabulary's loss, three numbers a token (chapter 07). And ours sends $bsh$ from each of the $t$ ranks to its partner, all the same; Megatron-LM sends a $t$-th each, over its
# own network link, and gathers them inside the node on the other side (section 4.1).
#
# The number that was not computed is the 32,768. Why does an embedding travel along pp? That is the first of two places where strategies meet.
#
# ## Where they meet: the tied embedding
#
# GPT's head and its token embedding are one weight. In a pipeline it lies at both ends: on two ranks for each slice and copy, and each has a *part* of its gradient. First stage: from looking tokens up. Last stage: from the logits. The gradient is the sum.
#
# What if one forgets? Nothing stops. Each end steps with its part. Let us forget it, and look at the two after three steps:


# %%
def two_ends(forget):
    hybrid = build(cube, torch.optim.SGD)
    for stage in hybrid.stages.values() if forget else ():
        stage.shared_weight = None  # then the pipeline does not know that there are two
    losses = [hybrid.step(*text_batch(step, 16, 32)).item() for step in range(3)]
    names = {name: p.detach() for p, name in hybrid.names.items()}
    return losses, names.get("wte.weight", names.get("head.weight"))


# %% tags=["nbval-check-output"]
for forget in (True, False):
    run = launch(two_ends, 8, forget)
    (losses, first), (_, last) = run[0], run[cube.rank(pp=1)]  # the same copy and slice
    print(f"forgotten: {forget!s:5s}  the two ends differ by {(first - last).abs().max():.4f},")
    print("  losses", [round(loss, 4) for loss in losses])

# %% [markdown]
# Two different weights under one name, and the loss goes down all the same, only a little less. Without the other line beside it nobody would notice. So: an all-reduce of that gradient, between the first and the last stage, once a step. Those two are a group of their own; the explorer calls it `ends`.
#
# ## Where they meet: the norm of the gradient
#
# Clipping needs one number: the norm of the *whole* gradient (chapter 06). Every rank has some of it. Each rank can square and add up what it has. And then?


# %%
def squares(layout):
    """On a rank: the sum of squares of each gradient it has; and the norm that clipping finds."""
    hybrid, mine = build(layout, torch.optim.SGD, max_norm=1e9), {}

    def look(*_):
        mine.update({name: p.grad.square().sum().item() for p, name in hybrid.names.items()})

    hybrid.optimizer.register_step_pre_hook(look)
    hybrid.step(*text_batch(0, 16, 32))
    return mine, hybrid.grad_norm.item()


# %% jupyter={"source_hidden": true}
predict(
    "Add up the squares of all ranks with one all-reduce, and take the root. Is it the norm of the gradient?",
    {
        "Yes": (
            "It would be if each value lay on one rank alone. But copies have the same gradients, and "
            "slices have norms and biases in common."
        ),
        "No: too large": (
            "Each value lies on two or four of the eight ranks, copies or slices, and its square is "
            "counted as often: 7.124 in place of 3.609."
        ),
        "No: too small": (
            "Each rank has only a part, but no value is missing: each lies on at least two of the eight "
            "ranks, and is counted as often."
        ),
    },
    right=1,
)

# %%
run = launch(squares, 8, cube)
print("each rank by itself:", [round(sum(mine.values()) ** 0.5, 3) for mine, _ in run])
print("root of the sum:    ", round(sum(sum(mine.values()) for mine, _ in run) ** 0.5, 3))
print("what clipping found:", round(run[0][1], 3))
print("one process:        ", round(launch(squares, 1, Layout())[0][1], 3))

# %% [markdown]
# **By itself**, each rank would scale its gradient by another number, and the copies of a norm's weight on two slices would part ways. **The sum of all** counts most values more than once: copies have the same gradients (that was the point of averaging them), and the slices have what is not cut in common, norms and the biases of row layers.
#
# So each square is to be divided by the number of ranks that have it:
#
# | | along dp | along tp | along pp | ranks |
# |---|---|---|---|---|
# | a weight that is cut | $d$ | 1 | 1 | 2 |
# | a norm, a bias of a row layer | $d$ | $t$ | 1 | 4 |
# | the tied embedding, cut | $d$ | 1 | 2 | 4 |


# %% tags=["nbval-check-output"]
def copies(name):
    cut = not any(part in name for part in ("ln", "wpe", "o.bias", "down.bias"))
    return cube.dp * (1 if cut else cube.tp) * (2 if name in ("wte.weight", "head.weight") else 1)


total = sum(square / copies(name) for mine, _ in run for name, square in mine.items())
print("as clipping found it:", abs(total**0.5 - run[0][1]) < 1e-12)

# %% [markdown]
# One all-reduce of one number, over all ranks. (With ZeRO along dp, copies have different parts, and the $d$ goes away.) Did you see how it could go wrong in silence? A norm that is too large clips too much; training is a little slower, and nobody knows why. Compare with one process, with clipping on.

# %% [markdown]
# ## Seated badly
#
# Now the order of the axes, measured. Two emulated nodes of four ranks: a fast link inside, a slow one between. The mesh has three axes of two, so *exactly one of them has to cross*. We can choose which:

# %% tags=["nbval-check-output"]
for outer in ("pp", "dp", "tp"):
    order = (outer, *(axis for axis in ("pp", "dp", "tp") if axis != outer))
    seats = replace(cube, order=order)
    crossing = [axis for axis in order if len(nodes_of(seats.group(0, axis), 4)) > 1]
    print(f"{outer} outermost: from node to node goes {crossing}")


# %%
def step_seconds(layout):
    hybrid, times = build(layout, torch.optim.SGD, torch.float32), []
    for step in range(3):
        dist.barrier()
        begin = time.perf_counter()
        hybrid.step(*text_batch(step, 16, 32))
        times.append(time.perf_counter() - begin)
    return min(times[1:])


# %% jupyter={"source_hidden": true}
predict(
    "Which axis across the slow link costs most?",
    {
        "pp": (
            "Every micro-batch has to cross, but that is four messages each way, and some of them travel "
            "while other micro-batches are computed."
        ),
        "dp": (
            "It has the largest message, but only one all-reduce a step. The latency of the slow link is "
            "paid for one, where tp pays it for 36."
        ),
        "tp": (
            "It has the most messages: 9 all-reduces for each of 4 micro-batches. Computing waits for "
            "each, and each pays the latency of the slow link."
        ),
    },
    right=2,
)

# %%
slow = Link(latency_s=0.01, bandwidth_gb_s=0.02)
machine = Cluster(ranks_per_node=4, inside=Link(latency_s=1e-5, bandwidth_gb_s=10), across=slow)
for outer in ("pp", "dp", "tp"):
    order = (outer, *(axis for axis in ("pp", "dp", "tp") if axis != outer))
    run = launch(step_seconds, 8, replace(cube, order=order), link=machine)
    print(f"{outer} across: {max(run):.2f} s a step")

# %% [markdown]
# The same eight ranks, the same bytes, the same losses. Along tp there are $4\cdot\frac lp + 1 = 9$ all-reduces for each of 4 micro-batches, and computing waits for each of them: each pays $2(t-1)$ times the latency of the slow link. Along dp it is one all-reduce (so few as here they travel once a step), along pp four messages each way, which partly hide behind each other. Small messages make it worse still than the bytes had said: here it is the latency that counts.

# %% [markdown]
# ## What to choose
#
# For the sizes of the mesh Narayanan et al. give two rules (section 3), and their third is that of chapter 09, about the size of a micro-batch:
#
# 1. tensor parallel up to the GPUs of a node, then pipeline parallel;
# 2. $p\cdot t$ just so large that one copy fits into memory, and all else copies.
#
# Why not more stages? Because the batch is what it is. It is shared by the copies, and what is left for each copy must fill its pipeline: $m = B/(d\,b)$, and the bubble is $(p-1)/m$. Twice the copies, at the same batch: half the micro-batches, twice the bubble.

# %% tags=["nbval-check-output"]
for pp, dp in ((64, 6), (32, 12), (16, 24), (8, 48)):
    plan = Plan(pp=pp, dp=dp, tp=8, batch=3072)
    states = 16 * trillion.parameters / (pp * 8) / 1e9  # in mixed precision with Adam: chapter 06
    print(f"{pp:2d} × {dp:2d} × 8: m = {plan.num_microbatches:3d}, bubble {plan.bubble:.3f}, {states:.0f} GB")

# %% [markdown]
# (The product $d\,p$ stays the same, and so nearly does the bubble: $(p-1)\,d\,b/B$. Memory decides: weights, gradients and optimizer state want 126 GB with 16 stages, and an A100 has 80. Chapter 12 weighs all of it.)
#
# Which of pp and dp should be outermost? Here both cross nodes anyway. On larger machines the network has levels, too, and then it matters. Llama 3 has the copies outermost: their messages can be hidden behind computing, so they may take the longest way (Grattafiori et al. 2024, section 3.3.2). Narayanan et al. have the stages there.
#
# ## PyTorch's own
#
# `init_device_mesh` makes the mesh, and `mesh["tp"]` is handed to `parallelize_module`, `mesh["dp"]` to `fully_shard`, `mesh["pp"].get_group()` to a `PipelineStage`. Putting them together is your own business: in torchtitan it takes a file for each model. The norm over shards of a `DTensor` comes out right by itself; over stages of a pipeline it does not, and torchtitan has a function of its own for that.
#
# ## Where this ends
#
# - **All 3,072 wait for the slowest.** One GPU that throttles, one link that drops packets, and every group it is in waits, and every group of those.
# - **One failure stops everything**; no axis has a rank to spare. Hence checkpoints: chapter 13.
# - **Equal shares.** Every axis has to divide something: heads, layers, the batch. A mesh for 3,000 GPUs would be another one.
# - **More axes.** Context parallel is the fourth: its ranks share weights as copies do, and so gradients are averaged over dp and cp together. Experts (Lepikhin et al. 2020) are spread over ranks that are copies for everything else.
# - The cost model here counts links and bytes, not cables. Two groups that share a switch may be in each other's way.

# %% [markdown]
# ## How well did you predict?

# %% jupyter={"source_hidden": true}
tally()

# %% [markdown]
# ## In six lines
#
# - Three cuts do not get in each other's way: a rank has a stage, a copy and a slice. Groups are the rows of the mesh.
# - $\text{rank} = (\text{stage}\cdot d + \text{copy})\cdot t + \text{slice}$: the innermost axis shares a node.
# - Along tp go activations of every layer, along pp of every stage, along dp gradients once: tensor to pipeline as $4\frac lp(t-1)$ to 1.
# - So tensor parallel inside a node, the other two across. In the wrong order the same bytes take ten times as long.
# - The tied embedding has a gradient at both ends: add them up. A norm counts each parameter once: divide by its copies.
# - 64 × 6 × 8 is the model of a trillion; GPT-3 ran on 16 × 8 × 8.
#
# | symbol | meaning |
# |---|---|
# | $p$, $d$, $t$ | ranks along pp, dp, tp: stages, copies, slices |
# | $B$, $b$, $m$ | sequences of a step, of a micro-batch; micro-batches of each copy, $B/(d\,b)$ |
# | $l$, $h$, $s$ | layers, width, tokens of a sequence |
# | $\Psi$ | parameters that a rank holds |
#
# **To read**
#
# - Narayanan et al. 2021, [*Efficient Large-Scale Language Model Training*](https://arxiv.org/abs/2104.04473), section 3: every pair of the three weighed against each other. Table 1; figures 13 to 15.
# - Smith et al. 2022, [*Using DeepSpeed and Megatron to Train Megatron-Turing NLG 530B*](https://arxiv.org/abs/2201.11990), section 2: the same three, and how ranks are mapped to the machine.
# - Grattafiori et al. 2024, [*The Llama 3 Herd of Models*](https://arxiv.org/abs/2407.21783), section 3.3.2: four axes, 16,384 GPUs, and what went wrong on them (3.3.4).
#
# **Now you:** [the exercise](../exercises/11_hybrid_parallel.ipynb).
