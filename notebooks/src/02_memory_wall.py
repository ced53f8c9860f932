# %% [markdown]
# # 02 · The memory wall
#
# In forty minutes you will be able to
#
# - say of an operation whether arithmetic or memory limits it, and predict from two measured rates how long it takes on your machine,
# - explain why a GPU with three times the FLOP/s does not train three times as fast,
# - count the bytes that a transformer keeps for backward, to the byte, and say what recomputing them frees and costs.
#
# You need [chapter 01](01_why_distributed.ipynb). The lesson follows the "memory wall" of section 8.1 of [the source](../README.md#where-it-comes-from), which says that one device's compute and
# capacity are limited, so one uses many. That is true, and it leaves out the wall itself, which is neither of the two.
#
# **The question:** *an A100 does 312 trillion FLOPs a second. Why did GPT-3 get 140 from each of 1,024, and the best run of all not much more than half?*
#
# Each mark is an operation of a transformer. Only those under the flat part of the roof can reach 312. Choose other GPUs, and more tokens:

# %% jupyter={"source_hidden": true}
from course_lib.viz import roofline

roofline("A100")

# %%
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from course_lib.cost import machine
from course_lib.cost.hardware import GPUS, SYSTEMS
from course_lib.cost.machine import add, matmul, measure_roofline, predicted_and_measured
from course_lib.cost.memory import layer_activations
from course_lib.cost.plan import Plan
from course_lib.cost.report import leave_one_out
from course_lib.cost.shapes import Transformer
from course_lib.cost.step_time import layer_time, step_time
from course_lib.memory import MemoryMeter, saved_for_backward
from course_lib.models.gpt import Block
from course_lib.viz import parts, predict, tally, validation
from course_lib.viz.plots import new_plot

# %% [markdown]
# ## Work is not time
#
# Two operations on your machine: the sum of two long vectors, and the product of two square matrices.

# %% tags=["nbval-check-output"]
vectors = add(2**25)
square = matmul(1024, 1024, 1024)
print(f"{vectors.name}: {vectors.flops:13,} FLOPs")
print(f"{square.name}: {square.flops:,} FLOPs, {square.flops / vectors.flops:.0f} times as many")

# %% jupyter={"source_hidden": true}
predict(
    "How long does the product take, compared with the sum?",
    {
        "64 times as long": (
            "So it would be if every FLOP took the same time. But the sum spends its time on moving 403 "
            "MB, not on adding."
        ),
        "About 20 times as long": (
            "This grants the product a better kernel, and still counts only FLOPs. The time of the sum "
            "goes into moving 403 MB."
        ),
        "Between a tenth of its time and twice its time": (
            "The sum takes as long as its 403 MB need, the product as long as its 2.1 billion FLOPs "
            "need. On most machines these times are not far apart."
        ),
        "About a thirtieth of the time": (
            "It does move only a thirtieth of the bytes, 13 MB against 403 MB. But it does not wait for "
            "bytes: its 2.1 billion FLOPs take longer."
        ),
    },
)

# %%
for op in (vectors, square):
    taken = op.measure()
    print(f"{op.name:28s}{1000 * taken:7.1f} ms   {op.flops / taken / 1e9:8.1f} GFLOP/s")

# %% [markdown]
# The sum is dozens of times slower for each FLOP. The processor is not to blame: it waits. Each addition needs two numbers from memory and brings one back, 12 bytes for one FLOP. The product reads each number once from memory,
# keeps it near, and multiplies it a thousand times.
#
# So an operation has two prices, FLOPs and bytes, and what counts is how many FLOPs it does *for each byte*. That is its **arithmetic intensity**:
#
# $$I = \frac{\text{FLOPs}}{\text{bytes read and written}}$$
#
# We count each operand once and each result once. For $(m \times k)\cdot(k \times j)$ with numbers of $e$ bytes, 4 here and 2 on the GPUs below:
#
# $$I = \frac{2\,m\,k\,j}{e\,(mk + kj + mj)}$$

# %% tags=["nbval-check-output"]
for op in (vectors, square, matmul(1024, 1024, 16), matmul(1024, 1024, 1)):
    print(f"{op.name:28s}{op.flops:14,} FLOPs {op.nbytes / 1e6:6.1f} MB", end="")
    print(f"  {op.intensity:6.2f} FLOPs a byte")

# %% [markdown]
# A matrix times a vector, the last line, is half a FLOP for each byte. What a product costs depends on its shape.

# %% [markdown]
# ## Two roofs
#
# A device does at most $P$ FLOPs a second, and moves at most $B$ bytes a second. An operation with $F$ FLOPs and $N$ bytes cannot be faster than either allows; at best the two happen at the same time:
#
# $$\text{seconds} \;\ge\; \max\left(\frac{F}{P},\; \frac{N}{B}\right) \qquad\Longleftrightarrow\qquad \frac{\text{FLOPs}}{\text{second}} \;\le\; \min(P,\; I\cdot B)$$
#
# This is the *roofline* (Williams et al. 2009). Measured on your machine, it takes two operations: a product for $P$, a sum for $B$.

# %%
mine = measure_roofline()
print(f"P: {mine.flops_per_s / 1e9:.0f} GFLOP/s")
print(f"B: {mine.bytes_per_s / 1e9:.1f} GB/s")
print(f"the roofs meet at {mine.ridge:.0f} FLOPs a byte")

# %% [markdown]
# With two measured rates one can say how long *other* operations take. How well? Here are five, each timed in turns with the two that give $P$ and $B$. (A machine that others use is faster in one minute than in the
# next, so the rates are measured anew for each line.)

# %%
ran = {}  # where each stands under the roofs of this machine
others = [machine.copy(2**25), machine.relu(2**25), machine.dot(2**25)]
others += [matmul(2048, 512, 1024), matmul(768, 3072, 768)]
print(f"{'':26s}predicted   measured  predicted / measured")
for op in others:
    predicted, measured = predicted_and_measured(op)
    ran[op.name] = op.intensity, op.flops / measured
    limit = "memory" if op.intensity < mine.ridge else "arithmetic"
    print(f"{op.name:25s}{1000 * predicted:7.1f} ms{1000 * measured:8.1f} ms", end="")
    print(f"{predicted / measured:8.2f}   limited by {limit}")

# %% [markdown]
# The same under the two roofs of your machine, hollow, beside the operations of a transformer. (A copy has no FLOPs, and no place there.)

# %%
roofline("this machine", mine=mine, measured=ran)

# %% [markdown]
# Mostly within a quarter, for operations that the roofline has not seen. (Above 1 is faster than predicted: $P$ and $B$ are what two good kernels reached, and another may be better.) Where it fails:
#
# - near the ridge, the point where the roofs meet, since reading and computing do not overlap perfectly;
# - for small operands used again and again, which stay in the processor's cache and never see the memory;
# - for functions such as GELU, whose FLOPs are of another kind;
# - for products with a few rows, where the library has no good kernel.
#
# ## The wall
#
# The number at which the roofs meet, $P/B$, the *ridge*, says how many FLOPs a device must do for each byte to be busy. You have just measured your machine's.
# Now GPUs, from the P100 of 2016 to the B200 of 2025, with the rates of 16-bit products and of the GPU's own memory. (The P100 had no matrix units yet; every later one has.)

# %% jupyter={"source_hidden": true}
predict(
    "From 2016 to 2025 a GPU's arithmetic became 107 times faster. And the bandwidth of its memory?",
    {
        "About 100 times": (
            "Then the two would still be in the proportion of 2016, 29 FLOPs for each byte. In 2025 it "
            "is 281, since memory did not keep up."
        ),
        "About 50 times": (
            "Most new GPUs had faster memory, but together that is 0.73 to 8 TB/s. Arithmetic also got "
            "matrix units, and memory got nothing like them."
        ),
        "About 10 times": (
            "From 0.73 to 8 TB/s is 11 times. Bytes cross between chips over a limited number of wires; "
            "arithmetic grows inside the chip."
        ),
        "About 2 times": (
            "1.7 times is its growth in two years. Over these nine years that makes 11 times, still far "
            "from 107."
        ),
    },
    right=2,
)

# %% [markdown]
# In the table NVLink joins the GPUs of one machine, a *node*.

# %% tags=["nbval-check-output"]
print("       year  TFLOP/s  memory TB/s  NVLink GB/s   FLOPs a byte: memory  NVLink")
for gpu in GPUS.values():
    ridge, across = gpu.roofline.ridge, gpu.tflops * 1e3 / gpu.nvlink_gb_s
    rates = f"{gpu.tflops:9,}{gpu.memory_tb_s:13.2f}{gpu.nvlink_gb_s:13d}"
    print(f"{gpu.name:6s}{gpu.year:5d}{rates}{ridge:23,.0f}{across:8,.0f}")

# %%
first, last = GPUS["P100"], GPUS["B200"]
kinds = {
    "arithmetic": "tflops", "memory bandwidth": "memory_tb_s",
    "NVLink": "nvlink_gb_s", "memory size": "memory_gb",
}
years = [gpu.year for gpu in GPUS.values()]
axes = new_plot("year", "times the P100 of 2016", log=True)
for label, name in kinds.items():
    growth = [getattr(gpu, name) / getattr(first, name) for gpu in GPUS.values()]
    every_two = growth[-1] ** (2 / (last.year - first.year))
    axes.plot(years, growth, markevery=1, label=f"{label}: {every_two:.1f}× every two years")
axes.set(yticks=[1, 3, 10, 30, 100], yticklabels=[1, 3, 10, 30, 100])
axes.legend();

# %% [markdown]
# Over twenty years: peak arithmetic grew 3.0 times every two years, memory bandwidth 1.6 times, the bandwidth between devices 1.4 times (Gholami et al. 2024). It goes in jumps: matrix units took the ridge from 29 to
# 139, and faster memory at times takes some of it back. **That is the memory wall**: not that a
# device is limited, but that its parts grow apart. An operation with 100 FLOPs a byte kept a P100 busy. On a B200 the same operation leaves two thirds of the arithmetic idle.
#
# So the source's sentence needs a correction. Using many devices adds compute *and* memory bandwidth, in the same proportion: that moves no wall. And it adds a third roof, lower than both, the network. A byte
# costs an A100 as much time as so many FLOPs:

# %% tags=["nbval-check-output"]
for where, gb_s in (("another node", 25), ("the GPU beside it", 300), ("its own memory", 2000)):
    print(f"from {where:18s}{gb_s:6,} GB/s {312e12 / (gb_s * 1e9):9,.0f} FLOPs")

# %% [markdown]
# ### The parts of a transformer
#
# Where do they stand under these roofs? Change the device, and the number of tokens; look for the operations that no batch can save.

# %%
roofline("A100", mine=mine, measured=ran)

# %% [markdown]
# The products with a weight matrix move to the right when they get more tokens: the matrix is read once for all of them. That is why training likes large batches, and why a chatbot that writes one token for one reader
# uses less than one percent of its GPU's arithmetic. Norms, GELU, softmax and the optimizer stay where they are, whatever the batch. And so does one matrix product: *attention scores* multiply each sequence with itself, and a
# larger batch brings more sequences to read. *Fused attention* helps: it never writes the scores to memory, and reads and writes only what goes in and what comes out.
#
# ## From a roofline to a cluster
#
# One layer of a model of 22 billion parameters, cut into 8 slices for the 8 A100 of a node. Its forward pass is a row of *kernels*, the single operations that a GPU does one after the other. Add up what the roofline
# says of each:

# %%
model = Transformer("22B", num_layers=48, width=6144, num_heads=64)
flops = model.layer_flops(batch=4) / 8
layer = layer_time(model, SYSTEMS["A100"], microbatch=4, tp=8, sequence_parallel=False)
predicted = layer.forward_s + layer.forward_message_s
print(f"{1000 * flops / 312e12:.1f} ms   its matrix products, at the peak of 312 TFLOP/s")
print(f"{1000 * flops / 271.2e12:.1f} ms   at 271, the most measured for a product on an A100")
print(f"{1000 * layer.forward_s:.1f} ms   with softmax, dropout, norms and GELU, limited by memory")
print(f"{1000 * predicted:.1f} ms   with the messages between the 8 GPUs")
print(f"7.7 ms   measured (Korthikanti et al. 2022, table 4): {flops / 7.7e-3 / 1e12:.0f} TFLOP/s")

# %% [markdown]
# There is the answer, but for the last tenth: a GPU's arithmetic waits, for memory and for messages. The tenth is software: gaps between kernels, and kernels that are not perfect. And how much faster is the same layer on a
# GPU with 3.2 times the FLOP/s?

# %%
newer = layer_time(model, SYSTEMS["H100"], microbatch=4, tp=8, sequence_parallel=False)
print(f"H100: {predicted / (newer.forward_s + newer.forward_message_s):.1f} times as fast as an A100")

# %% [markdown]
# Put such layers together with all that later chapters are about, messages between nodes, the idle time of a pipeline, the optimizer, and a whole step on a cluster can be predicted. GPT-3 on 1,024 A100: 16 pipeline stages, each in
# 8 slices, and 8 copies of it all:

# %%
gpt3 = Transformer("GPT-3", num_layers=96, width=12288, num_heads=96)
plan = Plan(pp=16, dp=8, tp=8, batch=1536, recompute="full")
time = step_time(gpt3, plan, SYSTEMS["A100"], software=1.19)
rate = gpt3.hardware_flops(1536, "full") / 1024 / time.total_s
print(f"{rate / 1e12:.0f} TFLOP/s from each GPU")
parts({"a step": vars(time)}, title="A step of GPT-3 on 1,024 A100, predicted")

# %% [markdown]
# Measured were 138 (README of Megatron-LM; chapter 01 had 140 from the paper). Not everything in the prediction comes from a data sheet: a product reaches 87 % of the peak at best, links and memory 78 to 90 % of what is printed on
# them, and `software` says how much longer the kernels of a paper take than that, 1.19 times in 2021 and 1.10 in 2022. One number for each paper, none for a run. In the table are all runs; in the line below it each was *left out* when
# the number of its paper was determined.

# %%
validation("time of a step", opened="time of a step")

# %%
alone = [abs(error) for error in leave_one_out().values()]
print(f"each run predicted by the others: mean error {sum(alone) / len(alone):.1%}, largest {max(alone):.1%}")

# %% [markdown]
# ## The other wall: how much fits
#
# That was one property of memory, its bandwidth. The other is its size, and besides the state of chapter 01 there are the **activations**: backward needs what forward computed. To multiply the gradient into $W$, it needs the
# $x$ that $W$ was multiplied with; for GELU, what went into it. Autograd keeps these tensors, and tells on request which:

# %%
x = torch.randn(64, 128, requires_grad=True)
w = torch.randn(128, 512, requires_grad=True)


def show(t):
    print("keeps", tuple(t.shape), f"{t.untyped_storage().nbytes():,} bytes")
    return t.detach()


with torch.autograd.graph.saved_tensors_hooks(show, lambda t: t):
    y = F.gelu(x @ w)

# %% [markdown]
# The two factors of the product, and what went into GELU. The result, `y`, is not among them: this operation's backward does not need it, the next one's may. `saved_for_backward` collects them for a whole module, each storage once, parameters left
# out. A block of our GPT, in float32, for $b=2$ sequences of $s=96$ tokens, width $h=128$ and $a=4$ heads:

# %% tags=["nbval-check-output"]
s, b, h, a = 96, 2, 128, 4
block = Block(h, a)
kept = saved_for_backward(block, torch.randn(b, s, h, requires_grad=True))
names = "input of norm 1, its mean, its deviation, input of q k v, q, k, v, sums, input of o, "
names += "input of norm 2, its mean, its deviation, input of up, input of GELU, input of down"
for name, (shape, _, size) in zip(names.split(", "), kept):
    print(f"{name:16s}{str(shape):15s}{size:8,} bytes, {size / 4 / (s * b * h):6.3f} sbh numbers")
print(f"{'together':31s}{sum(size for *_, size in kept):8,}")

# %% [markdown]
# One $sbh$ is a tensor of $s \times b$ tokens and width $h$. (*sums* are attention's: for each head and token, what softmax has divided by. The last three are of the MLP.) In all sixteen times $sbh$ numbers of 4 bytes, and the
# small ones.

# %% jupyter={"source_hidden": true}
predict(
    "Look at the shapes above. What does this block keep when b doubles, and when s doubles?",
    {
        "Twice as much, and four times as much": (
            "Attention is known for scores of shape s × s, which would grow four times. But the list "
            "has no such tensor: each has the factor s once."
        ),
        "Both times twice as much": (
            "Every shape in the list has the factor b once and the factor s once; the s × s scores are "
            "not kept, but computed again in backward."
        ),
        "Twice as much, and between two and four times as much": (
            "So it is for a block that keeps the s × s scores beside tensors that grow with s. This one "
            "keeps only the latter."
        ),
    },
    right=1,
)

# %% tags=["nbval-check-output"]
def block_bytes(s, b, h, a, size=4):
    small = 2 * 2 * s * b + a * s * b  # mean and deviation of two norms; the sums
    return size * (16 * s * b * h + small)


for s, b in ((96, 2), (96, 4), (192, 2)):
    kept = saved_for_backward(block, torch.randn(b, s, h, requires_grad=True))
    total = sum(size for *_, size in kept)
    print(f"s {s:3d}, b {b}: kept {total:9,}   formula {block_bytes(s, b, h, a):9,}")

# %% [markdown]
# To the byte, and twice as many both times. But only because our block uses a *fused* attention, which never keeps the $s \times s$ scores (Dao et al. 2022).

# %% [markdown]
# ### With attention spelled out
#
# The block that the papers of 2020 to 2022 count keeps these scores, and has dropout as well. Here it is, in their precision, bfloat16:


# %%
class PaperBlock(nn.Module):
    """The block of Korthikanti et al. 2022, figure 2: attention spelled out, dropout in three places."""

    def __init__(self, h, a):
        super().__init__()
        self.a = a
        self.ln1, self.ln2 = nn.LayerNorm(h), nn.LayerNorm(h)
        self.q, self.k, self.v, self.o = (nn.Linear(h, h) for _ in range(4))
        self.up, self.down = nn.Linear(h, 4 * h), nn.Linear(4 * h, h)

    def core(self, q, k, v):
        q, k, v = (t.unflatten(-1, (self.a, -1)).transpose(1, 2) for t in (q, k, v))
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5  # (b, a, s, s)
        return (dropout(scores.softmax(-1)) @ v).transpose(1, 2).flatten(2)

    def forward(self, x):
        y = self.ln1(x)
        x = x + dropout(self.o(self.core(self.q(y), self.k(y), self.v(y))))
        return x + dropout(self.down(F.gelu(self.up(self.ln2(x)))))


def dropout(x):
    return torch.native_dropout(x, 0.1, True)[0]  # keeps a mask of one byte a number, as on a GPU


# %% tags=["nbval-check-output"]
for s, b in ((96, 2), (96, 4), (192, 2), (384, 2)):
    block = PaperBlock(h, a).bfloat16()
    kept = saved_for_backward(block, torch.randn(b, s, h, dtype=torch.bfloat16, requires_grad=True))
    formula = 34 * s * b * h + 5 * a * s * s * b
    norms = 2 * 2 * s * b * 2  # mean and deviation of two norms, in 2 bytes
    total = sum(size for *_, size in kept)
    print(f"s {s:3d}, b {b}: kept {total:9,}   formula {formula + norms:9,}")

# %% [markdown]
# $$\text{bytes of a layer} = s\,b\,h\left(34 + 5\,\frac{a\,s}{h}\right)$$
#
# This is equation 1 of Korthikanti et al. 2022, and it is exact but for the mean and deviation of the norms, which the paper neglects. Where the numbers come from, in bytes:
#
# | for each of the $sbh$ | | for each of the $b\,a\,s^2$ scores | |
# |---|---|---|---|
# | inputs of the two norms | 2 + 2 | result of softmax | 2 |
# | input of q, k, v; these three | 2 + 6 | mask of its dropout | 1 |
# | input of o; mask of its dropout | 2 + 1 | result of its dropout | 2 |
# | inputs of up, GELU, down | 2 + 8 + 8 | | |
# | mask of the last dropout | 1 | | |
# | together | **34** | | **5** |
#
# The first part grows with $s$, the second with $s^2$. For GPT-3 $5as/h$ is 80: spelled out like this, **more than two thirds of its activations are attention's scores.** (The 276 GB of chapter 01 count them.) All layers, on one
# GPU, for one sequence:

# %%
for recompute in ("none", "selective", "full"):
    print(f"{recompute:10s}{96 * layer_activations(gpt3, Plan(recompute=recompute)) / 1e9:8.1f} GB")

# %% [markdown]
# ## Pay with time
#
# The remedy is already in that output: do not keep, **compute again**. In forward, keep only what went *into* a part. When backward comes there, run that part once more, and then go back through it. `checkpoint(f, x)` does this. *Full*: every
# layer keeps its input alone, $2sbh$. *Selective*: only the core of attention, between q, k, v and its result, is run again: the large part, and few FLOPs.
#
# What is held after forward, and at most during backward? Four of these layers, in float32:

# %%
def again(f):
    """f, computed again in backward: of f itself only what goes in is kept."""
    return partial(checkpoint, f, use_reentrant=False)


def forward(blocks, x, recompute="none"):
    for block in blocks:
        if recompute == "selective":
            block.core = again(block.core)
        x = again(block)(x) if recompute == "full" else block(x)
    return x


# %%
s, b, h, a = 128, 4, 256, 8
x = torch.randn(b, s, h, requires_grad=True)
for recompute in ("none", "selective", "full"):
    blocks = nn.ModuleList(PaperBlock(h, a) for _ in range(4))
    with MemoryMeter(blocks) as meter:
        y = forward(blocks, x, recompute)
        held = meter.now.activations
        y.sum().backward()
    peak = meter.peak_of.activations
    print(f"{recompute:10s}{held / 1e6:6.1f} MB after forward,{peak / 1e6:6.1f} MB at most")

# %% [markdown]
# At most there is more: while a layer runs again, all that *it* keeps is there. (And selective recomputation frees less here than on GPT-3, for $5as/h$ is 20 here and 80 there.) And the price? We time it on four blocks of our
# GPT, whose kernels are faster than those of the block above.

# %% jupyter={"source_hidden": true}
predict(
    "By the count of FLOPs, how much longer should a step with full recomputation be?",
    {
        "A tenth longer": (
            "A tenth would do for a small part of forward. Full recomputation repeats all of it, and "
            "forward is a third of a step."
        ),
        "A third longer": (
            "Forward is one part of a step and backward two. With a second forward, three parts become four."
        ),
        "A half longer": (
            "So it would be if backward did as many FLOPs as forward. But it has two products for each "
            "one of forward: for the gradients of `x` and of `W`."
        ),
        "Twice as long": (
            "Forward alone is done twice. Backward, two thirds of the FLOPs, is done once as before."
        ),
    },
    right=1,
)

# %%
blocks = nn.ModuleList(Block(h, a) for _ in range(4))


def step(recompute):
    forward(blocks, x, recompute).sum().backward()


threads = torch.get_num_threads()
torch.set_num_threads(1)  # steadier, when the machine has other work as well
once, plain, full = machine.time_in_turns(
    partial(forward, blocks, x), partial(step, "none"), partial(step, "full"), seconds=3
)
torch.set_num_threads(threads)

# %%
print(f"a step: {1000 * plain:.0f} ms; with one more forward it should be {1 + once / plain:.2f} times that")
print(f"with full recomputation: {1000 * full:.0f} ms, {full / plain:.2f} times")

# %% [markdown]
# A step is forward, and backward that does twice the FLOPs; with another forward it becomes $\frac{4}{3}$ of that: $8\Psi$ FLOPs for a token in place of $6\Psi$. That is where the 8 of chapter 01 comes from. Times scatter about it: backward is
# not exactly twice forward on any machine.
#
# Selective recomputation frees most for little. On GPT-3 it takes away 70 % of the activations and adds 1 % of FLOPs:

# %% tags=["nbval-check-output"]
for recompute in ("selective", "full"):
    less = 1 - layer_activations(gpt3, Plan(recompute=recompute)) / layer_activations(gpt3, Plan())
    more = gpt3.hardware_flops(1, recompute) / gpt3.model_flops(1) - 1
    print(f"{recompute:10s}{less:5.0%} of the bytes less, {more:6.1%} more FLOPs")

# %% [markdown]
# Fused attention is selective recomputation taken to its end: the scores are never written to memory, in forward or backward. It does *more* FLOPs and is *faster*, since its bytes are gone. Only a roofline explains that.

# %% [markdown]
# ## Where this ends
#
# The roofline knows one device. As soon as work is cut, there is a third roof, the network, and messages have a latency besides. That is the next chapter. And activations can be cut as well as recomputed: chapters 07 to 09.

# %% [markdown]
# ## How well did you predict?

# %% jupyter={"source_hidden": true}
tally()

# %% [markdown]
# ## In five lines
#
# - An operation has two prices, FLOPs and bytes. Its time is at least $\max(F/P,\,N/B)$.
# - The ridge $P/B$ of GPUs was 29 FLOPs a byte in 2016 and is 281 in 2025, since arithmetic grows faster than memory: **the memory wall**.
# - Products with a weight matrix get better with more tokens; norms, softmax, GELU and attention's scores do not.
# - A layer keeps $sbh\,(34 + 5as/h)$ bytes for backward if attention is spelled out; the second part, most of it in large models, goes when attention is fused or its core recomputed.
# - Recomputing all costs a third more time; recomputing the scores costs a hundredth.
#
# | symbol | meaning |
# |---|---|
# | $F$, $N$ | FLOPs and bytes of an operation |
# | $P$, $B$ | FLOP/s and bytes/s of a device |
# | $I = F/N$ | arithmetic intensity, FLOPs a byte; the ridge is $P/B$ |
# | $s$, $b$, $h$, $a$, $l$ | tokens in a sequence, sequences in a micro-batch, width, heads, layers |
#
# **To read**
#
# - Williams, Waterman and Patterson 2009, [*Roofline*](https://doi.org/10.1145/1498765.1498785): the model, and what lies between the roof and a real kernel.
# - Gholami et al. 2024, [*AI and memory wall*](https://arxiv.org/abs/2403.14123): twenty years of the growing gap. Look at figure 1.
# - Korthikanti et al. 2022, [*Reducing activation recomputation in large transformer models*](https://arxiv.org/abs/2205.05198): section 4 counts what you have just measured; table 4 is the layer above.
# - Dao et al. 2022, [*FlashAttention*](https://arxiv.org/abs/2205.14135): more FLOPs, fewer bytes, less time.
#
# **Now you:** [the exercise](../exercises/02_memory_wall.ipynb).
