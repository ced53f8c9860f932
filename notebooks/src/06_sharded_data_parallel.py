# %% [markdown]
# # 06 · Sharded data parallel
#
# In three quarters of an hour you will be able to
#
# - say where the 16 bytes of each parameter lie, and measure it in a running process,
# - build the three stages of ZeRO out of two collectives, and say before a run what each holds and what each sends,
# - train a model on four ranks that fits on none of them, and say when that is worth its price.
#
# You need [chapter 05](05_data_parallel.ipynb), and from [chapter 03](03_collectives.ipynb) all-gather and reduce-scatter. The lesson begins where section 8.2.1 of
# [the source](../README.md#where-it-comes-from) ends: with models too large for data parallel.
#
# **The question:** every rank of data parallel holds the same 16 bytes a parameter. *What if each held only its share?*
#
# Here four ranks hold all of it, as in data parallel. Choose *shard dim 0*:

# %% jupyter={"source_hidden": true}
from course_lib.viz import Replicate, sharding

sharding({"parameters": (16,), "gradients": (16,), "Adam's two averages": (16, 2)}, 4, Replicate())

# %%
from contextlib import nullcontext
from functools import partial

import torch
import torch.distributed as dist
from torch.nn import functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from course_lib import Link, launch, span
from course_lib.cost.memory import training_state
from course_lib.data import text, text_batch
from course_lib.memory import MemoryMeter
from course_lib.models.gpt import GPT
from course_lib.viz import parts, predict, tally
from course_lib.viz.plots import new_plot

# %% [markdown]
# ## A model that could grow
#
# Sharding is for large models, and the large ones are transformers. Ours is a small one, built as GPT-2 is. It reads text byte by byte
# and says which byte comes next. The text is on your disk already: the source code of Python's own standard library.

# %%
print(bytes(text(800_000)[-400:].tolist()).decode(errors="replace"))

# %% tags=["nbval-check-output"]
model = GPT(num_layers=4)
psi = sum(p.numel() for p in model.parameters())
print(f"{psi:,} parameters, Ψ from now on; {4 * psi / 1e6:.1f} MB in float32")
in_blocks = sum(p.numel() for p in model.blocks.parameters())
print(f"of those in the {len(model.blocks)} blocks: {in_blocks:,}")

# %% [markdown]
# ## Where the bytes are
#
# One step of training has three parts: forward, backward, the optimizer's step. A `MemoryMeter` follows every tensor that is alive, and says for what it is
# there. We ask it after each part, in one process.


# %%
def loss_of(model, x, y):
    return F.cross_entropy(model(x).flatten(0, 1), y.flatten())


def table(uses, psi):
    """Rows of what is held, in bytes for each of psi parameters."""
    print(f"{'bytes a parameter':19s} weights  gradients  optimizer  activations    total")
    for name, use in uses.items():
        kinds = use.parameters, use.gradients, use.optimizer_state, use.activations, use.total
        row = zip((8, 11, 11, 13, 9), kinds)
        print(f"{name:19s}" + "".join(f"{size / psi:{width}.2f}" for width, size in row))


# %% jupyter={"source_hidden": true}
predict(
    "float32, Adam. How many bytes a parameter are held after the first backward, before the step, "
    "without activations?",
    {
        "4": (
            "Only the weights take 4 bytes. Backward has left a gradient for each of them, 4 bytes more, "
            "and they wait for the step."
        ),
        "8": (
            "A weight and its gradient are 4 bytes each. Adam's two running means, 8 bytes more, do not "
            "exist before its first step."
        ),
        "12": (
            "Weights and Adam's state make 12 bytes, which are held between later steps. Before the "
            "first step there is no state, but there are gradients."
        ),
        "16": (
            "16 bytes are held once Adam has its two running means. It makes them in its first step, and "
            "not when it is created."
        ),
    },
    right=1,
)

# %%
optimizer = torch.optim.Adam(model.parameters())
x, y = text_batch(0, batch=2, context=64)  # 2 windows of 64 bytes

held = {}
with MemoryMeter(model, optimizer) as meter:
    held["at first"] = meter.now
    loss = loss_of(model, x, y)
    held["after forward"] = meter.now
    loss.backward()
    held["after backward"] = meter.now
    optimizer.step()
    held["after the step"] = meter.now
    optimizer.zero_grad()
    held["gradients freed"] = meter.now
table(held, psi)

# %% [markdown]
# Read it in columns. **Parameters**, 4 bytes each, are always there. **Activations**, what forward leaves for backward to use, come and go, and depend on the
# batch. **Gradients**, 4 bytes, are there from backward to the step. **Optimizer state**, 8 bytes, appears in the first step and then stays: Adam keeps two
# running means for each parameter, of its gradient and of the square. $4 + 4 + 8 = 16$.
#
# Large models are trained in *mixed precision*: weights and gradients in 16 bits, and the optimizer's work in 32. The sum is the same
# (Rajbhandari et al. 2020, section 3.1):
#
# | bytes a parameter | weights | gradients | optimizer state |
# |---|---|---|---|
# | our runs, float32 and Adam | 4 | 4 | 8: two running means |
# | mixed precision and Adam | 2 | 2 | 12: two running means, and the weights again in float32 |
#
# The paper calls the last entry $K$: $K = 12$ there, and $K = 8$ in our runs.
#
# Now ask who needs these bytes, and when:
#
# - Adam treats each parameter by itself. To step parameter 17, nobody needs the state of parameter 18. **The state is needed by whoever steps, in the step only.**
# - **A gradient, once averaged, is needed by whoever steps its parameter.** Nobody else.
# - **A weight is needed by every rank**, since every rank has samples of its own. But only while its layer computes, a small part of the time.
#
# In plain data parallel all $n$ ranks step all parameters, and all come to the same result. That is $n$ times the work and $n$ times the memory, for one
# answer. *ZeRO* (zero redundancy optimizer) takes that away in three stages, in the order of the list.

# %% [markdown]
# ## Stage 1: everybody steps a share
#
# What stays as it was: each rank computes with all parameters, on its rows of the batch. What changes is what comes after backward. To see that nothing else
# does, we first write a training loop into which a *method* is put. A method gets the model, and returns a function for "after backward" and the optimizer, in which the meter
# looks for state.


# %%
TINY = {"width": 32, "num_layers": 2, "num_heads": 2}
BATCH = 8  # windows of 64 bytes in each step, for all ranks together


def my_rows(step):
    rank, n = dist.get_rank(), dist.get_world_size()
    return (t.chunk(n)[rank] for t in text_batch(step, BATCH, 64))


def train(method, size=TINY, steps=4, dtype=torch.float64, limit_bytes=None):
    """On a rank: the weights after some steps, what was held between backward and step, and more."""
    torch.manual_seed(0)
    model, after_backward, optimizer = method(GPT(**size).to(dtype))
    meter = MemoryMeter(model, optimizer, limit_bytes)
    losses = []
    with span("steps"):
        for step in range(steps):
            with meter if step < 4 else nullcontext():  # all later steps hold as much
                loss = loss_of(model, *my_rows(step))
                loss.backward()
                held = meter.now
                after_backward()
                model.zero_grad()
                optimizer.zero_grad()
            losses.append(loss.item())
    weights = getattr(model, "full_state_dict", model.state_dict)()
    return {"weights": weights, "held": held, "peak": meter.peak, "losses": losses}


# %% [markdown]
# The method of chapter 05, to compare with. One rank alone is the truth; four ranks are the same truth, four times.


# %%
def data_parallel(model):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def after_backward():
        for parameter in model.parameters():
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()
        optimizer.step()

    return model, after_backward, optimizer


# %%
truth = launch(train, 1, data_parallel)[0]["weights"]
tiny_psi, held = sum(p.numel() for p in GPT(**TINY).parameters()), {}


def distance(run):
    """The largest difference between any rank's weights and those of one process."""
    return max(
        (rank["weights"][name] - right).abs().max().item()
        for rank in run
        for name, right in truth.items()
    )


def busiest(run, what="held"):
    """What the rank held that held most."""
    return max((rank[what] for rank in run), key=lambda use: use.total)


def try_out(name, method):
    run = launch(train, 4, method)
    held[name] = busiest(run)
    print(f"{name}: same weights as one process, to 1e-10: {distance(run) < 1e-10}")
    table(held, tiny_psi)
    return run


plain = try_out("data parallel", data_parallel)

# %% [markdown]
# (In float64 everything has twice the bytes: $8 + 8 + 16$.)
#
# For stage 1 we need shares. Put all parameters end to end into one flat vector, with a few zeros after it so that $n$ divides its length, and let rank $r$ own the $r$-th
# part. PyTorch's `vector_to_parameters` makes each parameter a *view* of its place in the vector: who writes into the vector has changed the model.


# %%
def flatten(parameters):
    """(flat, mine): parameters become views of flat, mine is this rank's equal share of it."""
    rank, n = dist.get_rank(), dist.get_world_size()
    values = parameters_to_vector(parameters).detach()
    flat = F.pad(values, (0, -len(values) % n))
    vector_to_parameters(flat, parameters)
    return flat, flat.chunk(n)[rank].requires_grad_()


def my_mean(gradient):
    """This rank's share of the mean of all ranks' gradients (length): reduce-scatter."""
    n = dist.get_world_size()
    padded = F.pad(gradient, (0, -len(gradient) % n))
    share = padded.new_empty(len(padded) // n)
    dist.reduce_scatter_single(share, padded)
    return share / n


# %% [markdown]
# Then the method is three lines: the mean of my share, step my share, gather everybody's. Adam is given one "parameter", the
# share, and so has state for no more than that.


# %%
def zero1(model):
    parameters = list(model.parameters())
    flat, mine = flatten(parameters)
    optimizer = torch.optim.Adam([mine], lr=1e-3)

    def after_backward():
        mine.grad = my_mean(torch.cat([p.grad.flatten() for p in parameters]))
        optimizer.step()
        dist.all_gather_single(flat, mine.detach())

    return model, after_backward, optimizer


stage1 = try_out("ZeRO-1", zero1)

# %% [markdown]
# The same weights, and the state is a quarter: 16 bytes a parameter have become 4 (of these float64 ones). **And what does it cost?** In place of an all-reduce of the
# gradients there is a reduce-scatter of the gradients and an all-gather of the weights.
#
# To count: the trace knows what each rank handed to each call. What the backend's own collectives put on the wire it cannot see, so there
# we take what a ring sends (chapter 03).


# %%
def sent(run, rank=0):
    """What a rank hands to each collective, and what it would send in a ring, both in bytes."""
    handed, wire = {}, 0
    trace = run.trace.of(rank=rank)
    (steps,) = trace.of(operation="steps").events  # what was sent before and after is left out
    for event in trace.of(kind="collective").events:
        if not steps.start_s <= event.start_s <= steps.end_s:
            continue
        handed[event.operation] = handed.get(event.operation, 0) + event.nbytes
        wire += event.ring_bytes
    return handed, wire


def show_sent(name, run, psi=tiny_psi, steps=4, size=8):
    """In units of Ψ, the bytes of all weights, for each step."""
    handed, wire = sent(run)
    unit, share = steps * size * psi, 1 - 1 / run.world_size
    each = ", ".join(f"{op} {nbytes / unit:.2f} Ψ" for op, nbytes in handed.items())
    print(f"{name}: hands over {each}")
    print(f"{'':{len(name)}}  sends {wire / unit:.2f} Ψ = (n-1)/n · {wire / unit / share:.2f} Ψ")


# %% jupyter={"source_hidden": true}
predict(
    "How many bytes does a rank send with ZeRO-1, compared with plain data parallel?",
    {
        "Half as many": (
            "A reduce-scatter alone does send half as much. But each rank then steps only its share, and "
            "the all-gather of the weights sends the other half."
        ),
        "As many": (
            "An all-reduce is a reduce-scatter and an all-gather. ZeRO-1 sends the same two halves, with "
            "the optimizer's step in between."
        ),
        "1.5 times as many": (
            "That counts a whole all-reduce of the gradients, and the all-gather on top. A "
            "reduce-scatter is enough here, which is half of an all-reduce."
        ),
        "Twice as many": (
            "Two collectives in place of one look like twice the bytes. But each of these two sends only "
            "half of what an all-reduce sends."
        ),
    },
    right=1,
)

# %% tags=["nbval-check-output"]
show_sent("data parallel", plain)
show_sent("ZeRO-1", stage1)

# %% [markdown]
# As many, for **an all-reduce is a reduce-scatter and an all-gather**. Of $V$ bytes a ring sends $\frac{n-1}{n}V$ for each of the two. (To an all-gather each
# rank hands only its own quarter.) Plain data parallel has both in one call; ZeRO-1 takes them apart and puts the optimizer in between, where each rank has the
# sum of one share only. People write this volume as $2\Psi$ and leave out the factor $\frac{n-1}{n}$, which is
# nearly 1 when there are many ranks. **On many ranks, in mixed precision, the first stage takes away nearly 12 of the 16 bytes, for nothing.**

# %% [markdown]
# ## Stage 2: gradients go to their owner
#
# Between backward and the step, each rank still holds all gradients, though it steps only its share of them. And backward makes them one after the other: as soon as one is complete it
# could be reduced to its owners, and its memory freed. PyTorch calls a hook at that very moment. So that no gradient has to wait for another, each
# parameter now gets a flat tensor of its own:


# %%
def zero2(model):
    pieces = {p: flatten([p]) for p in model.parameters()}
    shares = [mine for _, mine in pieces.values()]
    optimizer = torch.optim.Adam(shares, lr=1e-3)

    def reduce_now(p):  # backward has just finished p.grad
        _, mine = pieces[p]
        mine.grad = my_mean(p.grad.flatten())
        p.grad = None

    def after_backward():
        optimizer.step()
        for flat, mine in pieces.values():
            dist.all_gather_single(flat, mine.detach())

    for p in pieces:
        p.register_post_accumulate_grad_hook(reduce_now)
    # where the meter finds the gradients now:
    optimizer.gradient_shards = lambda: [s.grad for s in shares if s.grad is not None]
    return model, after_backward, optimizer


stage2 = try_out("ZeRO-2", zero2)

# %% tags=["nbval-check-output"]
show_sent("ZeRO-2", stage2)

# %% [markdown]
# Gradients are down to a quarter, the bytes are the same $2\Psi$: every gradient is still reduced once and every weight gathered once. (A few more for padding.) What has
# changed is how many messages there are, one for each tensor. Real implementations collect gradients in buckets, as in chapter 05, and free a bucket at a time.
#
# ## Stage 3: weights on demand
#
# What is left are the weights, 2 bytes of 16 in mixed precision. After stages 1 and 2 on 64 ranks, they are nearly all there is. But a rank needs a layer's weight only *while that
# layer computes*: once in forward and once in backward. So let each rank keep its share, and **gather a layer just before its use, and let go of it right
# after.**
#
# The first idea takes one line. Chapter 04 had an all-gather that autograd knows, and its backward is a reduce-scatter:


# %%
from course_lib.collectives.autograd import gather_sequence

LAYERS, WIDTH = 6, 256


def gather_and_keep(x, shard):
    return x @ gather_sequence(shard, check=False).T


def stack_of(layer):
    """On a rank: forward and backward through a stack of layers; what was held between them."""
    rank, n = dist.get_rank(), dist.get_world_size()
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(LAYERS, WIDTH, WIDTH, generator=generator, dtype=torch.float64) / 16
    shards = [w.chunk(n)[rank].clone().requires_grad_() for w in weights]  # rows of w
    x = torch.randn(4, WIDTH, generator=generator, dtype=torch.float64).chunk(n)[rank]
    x.requires_grad_()
    with MemoryMeter() as meter:
        for shard in shards:
            x = torch.tanh(layer(x, shard))
        held = meter.now.activations
    x.square().mean().backward()
    return [shard.grad for shard in shards], held


run = launch(stack_of, 4, gather_and_keep)
weight_bytes = 8 * WIDTH * WIDTH
print(f"held after forward: {run[0][1] / weight_bytes:.1f} weights, of {LAYERS} layers")

# %% [markdown]
# It computes the right thing (but for the mean), and saves nothing. To get the gradient with respect to $x$, backward needs $W$, so autograd *keeps* what was gathered: after forward all
# weights are there again. We have to say ourselves what is kept:


# %%
def gather(shard):
    whole = shard.new_empty(dist.get_world_size() * len(shard), shard.shape[1])
    dist.all_gather_single(whole, shard)
    return whole


class GatherOnUse(torch.autograd.Function):
    """y = x Wᵀ, with some rows of W on each rank."""

    @staticmethod
    def forward(ctx, x, shard):
        ctx.save_for_backward(x, shard)  # the share, not the whole
        return x @ gather(shard).T

    @staticmethod
    def backward(ctx, dy):
        x, shard = ctx.saved_tensors
        dx = dy @ gather(shard)  # gathered again, and gone after this line
        dw = my_mean((dy.T @ x).flatten())
        return dx, dw.view_as(shard)


# %%
once = launch(stack_of, 4, GatherOnUse.apply)
one = launch(stack_of, 1, GatherOnUse.apply)
whole = [torch.cat([grads[i] for grads, _ in once]) for i in range(LAYERS)]
away = max((a - b).abs().max().item() for a, b in zip(whole, one[0][0]))
print(f"gradients as in one process, to 1e-12: {away < 1e-12}")
print(f"held after forward: {once[0][1] / weight_bytes:.1f} weights, of {LAYERS} layers")


# %% [markdown]
# Held is what the activations take, and at most one weight that the backend has not let go of yet. The price can be seen in the trace. Two ranks, over an emulated network, so that one sees the messages:


# %%
def one_step():
    shards = [torch.ones(WIDTH // 2, WIDTH, requires_grad=True) for _ in range(3)]
    x = torch.ones(2000, WIDTH)
    with span("forward"):
        for shard in shards:
            x = torch.tanh(GatherOnUse.apply(x, shard))
    with span("backward"):
        x.sum().backward()


run = launch(one_step, 2, link=Link(latency_s=0.001, bandwidth_gb_s=0.1))
run.trace

# %% [markdown]
# Three layers: three gathers in forward, three in backward, each of those followed by a reduce-scatter. In bytes: weights are gathered twice and gradients reduced once. **That
# is $3\Psi$, one and a half times plain data parallel.** For stages 1 and 2 nothing had to be paid; this one has its price, and it waits for each gather besides.
#
# ## In a library
#
# Our layers had no bias and no rows left over, and each stood still until its weight had come. A library has to do better:
#
# - [`ShardedOptimizer`](../course_lib/parallel/zero.py) is stages 1 and 2, in buckets, around any optimizer that treats each number by itself.
# - [`FullyShardedDataParallel`](../course_lib/parallel/sharded.py) is stage 3, for any model. It gathers the model unit by unit, here a block at a time, with
#   the next unit's gather under way while this one computes.
#
# You use them as you used `DataParallel`. As methods for our training loop:

# %%
from course_lib.parallel.data import BucketedDataParallel
from course_lib.parallel.sharded import FullyShardedDataParallel
from course_lib.parallel.zero import ShardedOptimizer


def sharded_optimizer(model, **options):
    options |= {"lr": 1e-3, "bucket_cap_mb": 1}
    optimizer = ShardedOptimizer(model.parameters(), torch.optim.Adam, **options)
    return model, optimizer.step, optimizer


def wrapped(model, wrap, **options):
    model = wrap(model, **options)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)  # of shares, in stage 3

    def after_backward():
        model.finish_gradient_sync()
        optimizer.step()

    return model, after_backward, optimizer


# %%
copies = partial(wrapped, wrap=BucketedDataParallel, bucket_cap_mb=1)
fully_sharded = partial(wrapped, wrap=FullyShardedDataParallel)
STAGES = {
    "ZeRO-1": sharded_optimizer,
    "ZeRO-2": partial(sharded_optimizer, shard_gradients=True),
    "ZeRO-3": fully_sharded,
}
runs = {name: launch(train, 4, method) for name, method in STAGES.items()}

# %% tags=["nbval-check-output"]
for name, run in runs.items():
    print(f"{name}: same weights as one process, to 1e-10: {distance(run) < 1e-10}")

# %% [markdown]
# Three stages, one model. And now memory, on a model of decent size, in float32. What should be held between backward and step can be said beforehand. With $K$ bytes of
# optimizer state for each of $\Psi$ parameters, and $g$ bytes each for weight and gradient (Rajbhandari et al. 2020, figure 1, where $g = 2$; here $g = 4$, $K = 8$):
#
# | stage | bytes on each of $n$ ranks | with many ranks, mixed precision |
# |---|---|---|
# | 0, data parallel | $(g + g + K)\,\Psi$ | $16\,\Psi$ |
# | 1 | $(g + g)\,\Psi + K\Psi/n$ | $4\,\Psi$ |
# | 2 | $g\,\Psi + (g + K)\,\Psi/n$ | $2\,\Psi$ |
# | 3 | $(g + g + K)\,\Psi/n$ | nearly 0 |

# %%
SIZE = {"width": 192, "num_layers": 6, "num_heads": 6}
psi = sum(p.numel() for p in GPT(**SIZE).parameters())
print(f"{psi:,} parameters; 16 bytes each are {16 * psi / 1e6:.1f} MB")

methods = {"data parallel": copies, **STAGES}
measured = {name: launch(train, 4, method, SIZE, 2, torch.float32) for name, method in methods.items()}

# %%
both = {}
for stage, (name, run) in enumerate(measured.items()):
    both[f"{name}, measured"] = vars(busiest(run))
    both[f"{name}, by the formula"] = vars(training_state(psi, 4, stage))
parts(both, unit="B", title="The busiest rank between two steps")

# %% [markdown]
# The first of each pair is measured, the second is the formula. (In ZeRO-3 we look before `finish_gradient_sync()`: its last message is still under way.)
#
# ## A model that does not fit
#
# Real devices end somewhere. Let every rank have 29 MB: the meter stops the operation that needs more, as a GPU would.

# %% tags=["raises-exception"]
LIMIT = 29_000_000
launch(train, 1, copies, SIZE, 2, torch.float32, LIMIT)

# %% [markdown]
# One process does not get through its first forward: the activations of 8 windows are too much. Four ranks have 2 windows each.

# %% jupyter={"source_hidden": true}
predict(
    "Four ranks with 29 MB each, plain data parallel. Does it train?",
    {
        "Yes": (
            "Four ranks have four times the memory, but only the batch is shared out. Each rank still "
            "needs all 16 bytes a parameter, 43.7 MB."
        ),
        "No: it stops at the same operation": (
            "One process stopped there with the activations of 8 windows. A rank has 2 windows here, so "
            "its forward and backward fit."
        ),
        "No: it stops in the optimizer's step": (
            "The activations are shared out with the batch, so forward and backward fit. Adam's state is "
            "not shared out, and there is no room for it."
        ),
    },
    right=2,
)

# %% tags=["raises-exception"]
launch(train, 4, copies, SIZE, 2, torch.float32, LIMIT)

# %% [markdown]
# The activations were shared out with the batch. But the 16 bytes a parameter each rank has to hold for itself, and where Adam makes its state there is no room for it. **More ranks
# do not help, however many.** Now the same model on the same four ranks, fully sharded:

# %%
long = launch(train, 4, fully_sharded, SIZE, 30, torch.float32, LIMIT)
print(f"peak of the busiest rank: {busiest(long, 'peak')}")

# %%
losses = torch.tensor([rank["losses"] for rank in long]).mean(dim=0)  # of the whole batch
axes = new_plot("step", "loss", "a model that fits on no rank")
axes.plot(losses, label="mean over the four ranks")
axes.legend();

# %% [markdown]
# A model of 44 MB, trained in 29. What does each method need at its worst moment, activations and all?

# %%
both = {}
for stage, (name, run) in enumerate(measured.items()):
    both[f"{name}, measured"] = vars(busiest(run, "peak"))
    both[f"{name}, state by the formula"] = vars(training_state(psi, 4, stage))
parts(both, unit="B", title="The busiest rank at its worst moment", limit=LIMIT)

# %% [markdown]
# Two things stick out over the formula, and sharding shrinks neither:
#
# - **Activations.** They belong to the samples of a rank, not to the parameters. Twice the samples are twice the activations, however many ranks there are. (Recomputing them in
#   backward helps, and chapter 08 cuts them.)
# - **What is whole for a moment:** in ZeRO-3 the unit that computes and the one that is being fetched, with the gradient of one unit; in ZeRO-2 the buckets. A model that is one huge layer gains nothing
#   from being gathered unit by unit. *The largest unit has to fit.*

# %%
print("windows a rank   weights  gradients  optimizer  activations, MB at the peak")
for BATCH in (4, 32):
    use = busiest(launch(train, 4, fully_sharded, SIZE, 2, torch.float32), "peak")
    kinds = use.parameters, use.gradients, use.optimizer_state, use.activations
    print(f"{BATCH // 4:14d}" + "".join(f"{kind / 1e6:11.1f}" for kind in kinds))
BATCH = 8

# %% [markdown]
# ## What it costs, and when that hurts

# %% tags=["nbval-check-output"]
for name, run in measured.items():
    show_sent(name, run, psi, steps=2, size=4)

# %% [markdown]
# $2\Psi$, $2\Psi$, $2\Psi$, $3\Psi$, as we built them. Half as many bytes again, then. Is that much? Chapter 05 asked how long a rank sends for each second that it computes, on a
# cluster of A100 GPUs (Narayanan et al. 2021), and found that the number of parameters cancels. It still does. With 2 bytes for each number and $T$ tokens a rank:
#
# $$
# \frac{\text{send}}{\text{compute}} \;=\; \frac{3\cdot 2\,\Psi}{\text{network}} \Big/ \frac{6\,\Psi\,T}{\text{FLOPS}} \;=\; \frac{\text{FLOPS}}{\text{network}\cdot T}
# $$

# %%
FLOPS = 0.45 * 312e12  # operations/s that large runs reach
NETWORK = 25e9  # bytes/s for each GPU
print("tokens a rank   data parallel   fully sharded   (send / compute)")
for tokens in (1024, 2048, 4096, 8192, 16384):
    compute, send = 6 * tokens / FLOPS, 2 / NETWORK
    print(f"{tokens:13,d}{2 * send / compute:16.2f}{3 * send / compute:16.2f}")
print(f"as long to send as to compute: {FLOPS / NETWORK:,.0f} tokens a rank, fully sharded")

# %% [markdown]
# Below 1, sending can hide behind computing, if it is well arranged: that is what fetching the next unit early is for. Above 1 the GPUs wait. So **a rank needs some thousand tokens in
# each step**; with long sequences it has them. What cannot be had is a small batch on very many ranks: with 8 million tokens in a step and 4,096 ranks, 2,048 are left for each. There
# one shards within a node only and copies between nodes, or cuts the model itself (chapters 07 and 11).
#
# And what it buys, in mixed precision:

# %% tags=["nbval-check-output"]
print("GB a GPU, on 64 GPUs   data parallel  ZeRO-1  ZeRO-2  ZeRO-3")
for name, parameters in (("7 billion", 7e9), ("70 billion", 70e9), ("GPT-3, 175 billion", 175e9)):
    states = [training_state(int(parameters), 64, stage, 2, 2, 12) for stage in range(4)]
    sizes = [state.total / 1e9 for state in states]
    print(f"{name:22s}{sizes[0]:14,.0f}{sizes[1]:8,.0f}{sizes[2]:8,.0f}{sizes[3]:8,.1f}")

# %% [markdown]
# On GPUs with 80 GB, the 7 billion need stage 1 only, which is free. GPT-3 needs stage 3, which leaves nearly half of the memory for activations.
#
# ### Fewer bytes: compute in 16 bits
#
# Shares can stay in float32, for the optimizer, while what is gathered is in bfloat16: half the bytes on the wire and half the size of what is whole for a moment. This is how mixed
# precision looks when it is sharded; no second copy of the weights is needed beside the share.

# %%
half = partial(fully_sharded, compute_dtype=torch.bfloat16)
low = launch(train, 4, half, SIZE, 2, torch.float32)
show_sent("bfloat16", low, psi, steps=2, size=4)
print("loss, float32 and bfloat16:", measured["ZeRO-3"][0]["losses"][1], low[0]["losses"][1])


# %% [markdown]
# ## PyTorch's own
#
# `fully_shard`, called FSDP2, works in the same way. One call for each unit, the last for what is left:


# %%
def pytorch(steps=4):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.manual_seed(0)
    model = GPT(**TINY).double()
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for unit in [*model.blocks, model]:
        fully_shard(unit, mesh=mesh)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(steps):
        loss_of(model, *my_rows(step)).backward()  # reduces, too
        optimizer.step()
        optimizer.zero_grad()
    return {"weights": {name: p.full_tensor() for name, p in model.state_dict().items()}}


theirs = launch(pytorch, 4)

# %% tags=["nbval-check-output"]
print(f"PyTorch's fully_shard, same weights as one process, to 1e-10: {distance(theirs) < 1e-10}")

# %% [markdown]
# The same weights again. Where ours says `FullyShardedDataParallel(model)` and chooses the units, theirs lets you say them; where ours wants `finish_gradient_sync()`, theirs does that at the end of
# backward. And it keeps shares as `DTensor`s, which know what they are a share of (chapter 11).
#
# ## Where this ends
#
# Sharded data parallel is still *data* parallel: the weights travel, and every rank computes every layer, whole, for its own samples. When one layer is too large for that, or the batch too small,
# the computation itself must be cut. That is next: [chapter 07](../README.md#chapters).

# %% [markdown]
# ## How well did you predict?

# %% jupyter={"source_hidden": true}
tally()

# %% [markdown]
# ## In five lines
#
# - Weight 2, gradient 2, optimizer 12: 16 bytes a parameter, and data parallel holds all of them on every rank.
# - State is needed in the step only, a gradient by its owner only, a weight while its layer computes: ZeRO-1, 2, 3.
# - **Memory** $(g+g+K)\Psi$ falls to $\frac1n$ of it. **Bytes** stay $2\Psi$ in stages 1 and 2, since an all-reduce is a reduce-scatter and an all-gather; stage 3 sends $3\Psi$.
# - Whoever lets autograd keep what was gathered has sharded nothing.
# - Activations and the largest unit do not shrink; and a rank needs thousands of tokens in a step, or it waits.
#
# | symbol | meaning |
# |---|---|
# | $n$, $r$ | world size, rank |
# | $\Psi$ | number of parameters; as a volume, the bytes of all weights |
# | $g$ | bytes of a weight, and of a gradient: 2 in mixed precision, 4 in float32 |
# | $K$ | bytes of optimizer state for each parameter: 12 in mixed precision, 8 in float32 |
# | $T$ | tokens that one rank computes on in a step |
#
# **To read**
#
# - Rajbhandari et al. 2020, [*ZeRO*](https://arxiv.org/abs/1910.02054), sections 3, 5 and 7: where memory goes, the three stages, and their bytes. Figure 1 is the picture above,
#   for 7.5 billion parameters on 64 GPUs.
# - Zhao et al. 2023, [*PyTorch FSDP*](https://arxiv.org/abs/2304.11277), section 3: units, flat parameters, fetching early, and what happens when the CPU runs too far ahead of the GPU. Look at how the
#   size of a unit trades memory against messages.
#
# **Now you:** [the exercise](../exercises/06_sharded_data_parallel.ipynb).
