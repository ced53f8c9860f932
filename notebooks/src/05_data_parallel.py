# %% [markdown]
# # 05 · Data parallel
#
# In three quarters of an hour you will be able to
#
# - train one model on four processes, and show that it is the model one process would have trained,
# - name the two calls that this takes, and recognise what happens without each of them,
# - send few messages, and send them while the ranks still compute; and read off a trace what stays exposed,
# - say from the size of a model whether it can be trained this way at all, and when it pays.
#
# You need [chapter 00](00_start_here.ipynb): ranks, `launch`, all-reduce; and [chapter 03](03_collectives.ipynb): what a message costs. The
# lesson follows section 8.2.1 of [the source](../README.md#where-it-comes-from).
#
# **The question:** four copies of a model, four slices of the data. *Are they still one model?*

# %% [markdown]
# ## The picture: slice the data, copy the model
#
# The source's own example is one matrix product, $x\,(4\times5) \cdot w\,(5\times8) = y\,(4\times8)$. Data parallel cuts $x$
# along its first dimension, the samples. Each rank gets some rows of $x$, and all of $w$:

# %% jupyter={"source_hidden": true}
from course_lib.viz import sharding

sharding((4, 5), world_size=2, name="x")

# %% [markdown]
# Change the world size to 4, then to 3. Four samples do not divide by three, and the rule of `torch.chunk` leaves the last rank
# with nothing at all. Remember it for later. Each rank multiplies its rows of $x$ by the whole $w$, and has the same rows of $y$: **forward, the
# ranks need not talk at all.** If that were all there is to training, this lesson would end here.

# %%
import torch
import torch.distributed as dist
from torch.nn import functional as F

from course_lib import Link, launch, span
from course_lib.data import digits
from course_lib.models.resnet import ResNet
from course_lib.viz import predict, tally, timeline
from course_lib.viz.plots import new_plot, show_images

# %% [markdown]
# ## A model and its truth
#
# The data are 1,797 scanned digits of 8 × 8 grey values. They ship with scikit-learn, so nothing is downloaded. We train on
# 1,440 of them and keep 357 to test with.

# %%
data = digits(torch.float64)
show_images(data.train_x[:16], data.train_y[:16])

# %% [markdown]
# The model is a residual network, a small cousin of ResNet-50, which the source names
# ([torchvision's](https://docs.pytorch.org/vision/stable/models/generated/torchvision.models.resnet50.html) has 25,557,032 parameters).

# %% tags=["nbval-check-output"]
print(f"our ResNet: {sum(p.numel() for p in ResNet().parameters()):,} parameters")

# %% [markdown]
# Every run below takes 144 images a step. With $n$ ranks, rank $r$ takes the $r$-th of $n$ equal slices of those same 144
# (we use 1 and 4 ranks; both divide 144). So the *data of a step* does not depend on how many ranks there are.

# %%
BATCH = 144


def my_slice(step):
    """Images and labels of this rank in this step."""
    rank, n = dist.get_rank(), dist.get_world_size()
    size = BATCH // n
    first = step % 10 * BATCH + rank * size  # ten batches are one pass over the data
    return data.train_x[first : first + size], data.train_y[first : first + size]


# %% [markdown]
# This is a training loop like any other, with two places where the ranks could talk: before the first step, and between `backward` and
# the optimizer's step. For now they do nothing there. The function returns all weights, as one long vector, before the first step and
# after every step.

# %%
from torch.nn.utils import parameters_to_vector, vector_to_parameters

STEPS = 12


def nothing(model):
    pass


def train(after_backward=nothing, at_the_start=nothing, seeds=(0, 0, 0, 0), norm="group"):
    """Train on this rank; return its weights at every step: (STEPS + 1, parameters)."""
    torch.manual_seed(seeds[dist.get_rank()])
    model = ResNet(norm=norm).double()
    at_the_start(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    history = [parameters_to_vector(model.parameters()).detach()]
    for step in range(STEPS):
        images, labels = my_slice(step)
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        after_backward(model)
        optimizer.step()
        history.append(parameters_to_vector(model.parameters()).detach())
    return torch.stack(history)


# %% [markdown]
# With one rank there is only one slice, the whole batch. That is ordinary training, **the truth that every later run is held to**.
# All of it is in float64, so that a difference of $10^{-12}$ is still a difference, and not noise.


# %%
def test_loss(weights):
    """The loss of a model with these weights on the 357 test images."""
    model = ResNet().double()
    vector_to_parameters(weights, model.parameters())
    with torch.no_grad():
        return F.cross_entropy(model(data.test_x), data.test_y).item()


truth = launch(train, 1)[0]
travelled = (truth[-1] - truth[0]).norm()
print(f"test loss {test_loss(truth[0]):.3f} -> {test_loss(truth[-1]):.3f} in {STEPS} steps")
print(f"distance from the first weights to the last: {travelled:.2f}")

# %% [markdown]
# ## Four ranks, first attempt
#
# Four ranks run the same function. They start from the same weights (the same seed), and each takes its quarter of the batch.

# %% jupyter={"source_hidden": true}
predict(
    "One process travelled the distance printed above. How far will the four ranks be from each other?",
    {
        "Zero": (
            "The start and the code are the same, but the data are not: each rank has a gradient of its "
            "own quarter of the batch."
        ),
        "About 1e-15": (
            "Rounding is what remains when the same numbers are added in another order. Here the "
            "gradients are of different images."
        ),
        "A good part of the distance travelled": (
            "Each rank follows the gradient of its own quarter, and nothing brings them together: after "
            "12 steps the others are more than half of that distance away from rank 0."
        ),
    },
    right=2,
)

# %%
silent = launch(train, 4)
for rank in range(1, 4):
    away = (silent[rank] - silent[0]).norm(dim=1)[::3]
    print(f"rank {rank} from rank 0, every third step:", *[f"{distance:.3f}" for distance in away])

# %% [markdown]
# They were one model before the first step, and never again. Each walks downhill on *its own* quarter of the data. Four ranks
# are training four models, each on a quarter of the data: the opposite of what we want.

# %% [markdown]
# ## Why the mean is enough
#
# The loss of a batch is the mean over its $B$ samples. Cut the batch into $n$ slices of equal size $B/n$:
#
# $$
# L \;=\; \frac1B\sum_{i=1}^{B} \ell_i \;=\; \frac1n \sum_{r=0}^{n-1} L_r
# \quad\text{with}\quad L_r = \frac{n}{B}\sum_{i\,\in\,\text{slice } r} \ell_i
# \qquad\Longrightarrow\qquad
# \nabla L \;=\; \frac1n\sum_{r=0}^{n-1} \nabla L_r .
# $$
#
# $\nabla L_r$ is the gradient that rank $r$ has just computed, so **the mean of the ranks' gradients is the gradient of the whole
# batch.** This holds exactly, on paper, under two conditions: the slices are equal, and the loss $\ell_i$ of a sample depends on that sample and
# the weights alone. All-reduce gives the sum over the ranks; one division makes it the mean.

# %%
def average_gradients(model):
    for parameter in model.parameters():
        dist.all_reduce(parameter.grad)  # the sum over the ranks, in place
        parameter.grad /= dist.get_world_size()


talking = launch(train, 4, average_gradients)

# %% jupyter={"source_hidden": true}
predict(
    "How far are they now from the weights of one process?",
    {
        "Exactly 0": (
            "On paper it is exactly 0. But a computer rounds, and four sums of 36 terms round "
            "differently from one of 144."
        ),
        "Not 0, but below 1e-14": (
            "It is the same sum of 144 terms, added in another order. In float64 that changes the last "
            "of some 16 digits."
        ),
        "About 1e-3": (
            "A mean over slices may look like an estimate. But all 144 images are in it with equal "
            "weight, so nothing is lost but rounding."
        ),
    },
    right=1,
)

# %%
last = torch.stack([history[-1] for history in talking])  # (4, parameters)
print(f"largest difference from one process: {(last - truth[-1]).abs().max():.1e}")
print(f"largest difference between ranks:    {(last - last[0]).abs().max():.1e}")

# %% [markdown]
# Four processes train *one* model. Between the ranks the difference is exactly 0: they all step with the very same bytes. Against the
# single process the last digit differs, since a computer rounds, and four sums of 36 terms round differently from one of 144.

# %% [markdown]
# ### When slices are not equal
#
# Ten samples on four ranks cannot be equal slices. Then the mean of the means is not the mean, and each rank's gradient must be weighted by the size of
# its slice. Frameworks mostly avoid the question: they drop the last few samples, or repeat some. In the exercise you will do it right.
#
# ### When a sample's loss depends on its neighbours
#
# Our ResNet normalises each image by itself (GroupNorm). The original one normalises by the batch (BatchNorm), and what a rank has
# of the batch is its slice. That breaks the second condition:

# %%
alone = launch(train, 1, average_gradients, nothing, (0,), "batch")
four = launch(train, 4, average_gradients, nothing, (0, 0, 0, 0), "batch")
away = (four[0][-1] - alone[0][-1]).abs().max()
print(f"BatchNorm, largest difference from one process: {away:.1e}")

# %% [markdown]
# That is no bug, but it is not the same training: 36 images have another mean and variance than 144. Usually one accepts it. Where
# it hurts, `torch.nn.SyncBatchNorm` takes the mean over all ranks, and so has to talk in the forward pass too.
#
# ## The other call: start as one
#
# So far all ranks built their model from the same seed. Real code does not rely on that. It lets rank 0 send its model to all the
# others, once, before the first step. The collective for that is called **broadcast**. A model is more than its parameters: a BatchNorm
# also keeps running means, which get no gradient. PyTorch calls such tensors *buffers*, and they must be sent too.


# %%
def start_as_one(model):
    for tensor in [*model.parameters(), *model.buffers()]:
        dist.broadcast(tensor.detach(), src=0)  # rank 0's values, now on every rank


OWN_SEEDS = (0, 1, 2, 3)
right = launch(train, 4, average_gradients, start_as_one, OWN_SEEDS)
away = max((history[-1] - truth[-1]).abs().max().item() for history in right)
print(f"different seeds, largest difference from one process: {away:.1e}")


# %% [markdown]
# **One broadcast at the start, one all-reduce of the gradients in each step: those two calls are data parallel training.**
#
# ## Break it on purpose
#
# Now leave out one thing at a time: the broadcast, the division, or all of it.


# %%
def sum_gradients(model):
    for parameter in model.parameters():
        dist.all_reduce(parameter.grad)


runs = {
    "right": right,
    "no broadcast": launch(train, 4, average_gradients, nothing, OWN_SEEDS),
    "sum, not mean": launch(train, 4, sum_gradients),
    "nobody talks": silent,
}

# %% jupyter={"source_hidden": true}
predict(
    "Which of the four has the lowest test loss on rank 0 at the end?",
    {
        "right": (
            "It is trained as one process would train it. But a low loss after 12 steps is no proof of "
            "that: larger steps get there faster."
        ),
        "no broadcast": (
            "The ranks have different weights, and each steps with a mean to which the others' weights "
            "gave three of four gradients. Its loss falls most slowly."
        ),
        "sum, not mean": (
            "The sum of four gradients is four times their mean, as if the learning rate were 0.04. For "
            "these few steps that is the better rate."
        ),
        "nobody talks": (
            "Rank 0 trains on its own quarter of the images. For a few steps that is nearly as good as "
            "the whole batch, but not better."
        ),
    },
    right=2,
)

# %%
axes = new_plot("step", "test loss of rank 0's model")
for name, run in runs.items():
    axes.plot(range(0, STEPS + 1, 3), [test_loss(weights) for weights in run[0][::3]], label=name)
axes.legend();

# %% [markdown]
# All four learn, and the one that looks best is a bug. The sum of four gradients is their mean times four, as if the learning rate
# were 0.04 instead of 0.01, and for these few steps that is the better rate. "Nobody talks" can hardly be told from the right one.
# Now look at the weights instead: rank 3's, and how far they are from those of the single process.

# %%
axes = new_plot("step", "distance from one process (log scale)", log=True)
for name, run in runs.items():
    axes.plot(range(1, STEPS + 1), (run[3] - truth).norm(dim=1)[1:], label=name)
axes.set_yticks([1e-15, 1e-10, 1e-5, 1], ["1e-15", "1e-10", "1e-5", "1"])
axes.legend(loc="center right");

# %% [markdown]
# Fifteen orders of magnitude lie between right and wrong. This is the most useful thing to know about bugs in distributed training:
# **they rarely crash, and the loss still falls.** Only the weights tell. So this course holds everything that it builds
# against one process, on a model small enough for that; and so should you, before you start a run that is not.

# %% [markdown]
# ## What a step costs
#
# Right is not yet fast. To see what talking costs, we take a model with more to send: seven linear layers in a row (a multilayer perceptron, MLP), in
# float32, as is usual. And two ranks, so that on two cores each has its own.

# %% tags=["nbval-check-output"]
from torch import nn

images, labels = data.train_x.float().flatten(1), data.train_y  # (1440, 64)


def mlp(width=512, hidden=5):
    """64 pixels -> width -> … -> width -> 10 classes; the same weights on every rank."""
    torch.manual_seed(0)
    sizes = [64] + [width] * (hidden + 1)
    layers = [layer for a, b in zip(sizes, sizes[1:]) for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(width, 10))


tensors = list(mlp().parameters())
print(f"{len(tensors)} tensors, {sum(p.numel() for p in tensors):,} parameters")


# %% [markdown]
# Three steps on this rank; `span` names the parts of a step for the trace. There is no optimizer: we want to see the gradients.


# %%
def three_steps(after_backward, at_the_start=nothing, samples=512):
    """Three times forward and backward; the gradients of the last time, as one vector."""
    model = mlp()
    at_the_start(model)
    mine = slice(dist.get_rank() * samples, (dist.get_rank() + 1) * samples)
    for _ in range(3):
        model.zero_grad(set_to_none=False)
        dist.barrier()  # all ranks begin a step together
        with span("forward"):
            loss = F.cross_entropy(model(images[mine]), labels[mine])
        with span("backward"):
            loss.backward()
        with span("finish"):
            after_backward(model)
    return torch.cat([p.grad.flatten() for p in model.parameters()])


# %% jupyter={"source_hidden": true}
predict(
    "Seven layers, 1,351,690 parameters. What does average_gradients hand to all-reduce in a step?",
    {
        "1 message of 5.4 MB": (
            "That would take all gradients in one tensor. `average_gradients` is a loop, and calls "
            "all-reduce once for each parameter."
        ),
        "7 messages, 5.4 MB together": (
            "A layer is not one tensor. It has a weight and a bias, and the loop hands in the gradient "
            "of each by itself."
        ),
        "14 messages, 5.4 MB together": (
            "Seven weights and seven biases are 14 tensors, and the loop hands in one after the other: "
            "4 bytes for each parameter."
        ),
    },
    right=2,
)

# %% tags=["nbval-check-output"]
from dataclasses import replace
from functools import partial


def last_step(run):
    """The trace of the last step alone; the steps before it warm up."""
    begin = run.trace.of(operation="forward").events[-len(run)].start_s
    return replace(run.trace, events=tuple(e for e in run.trace.events if e.start_s >= begin))


def count(run):
    sent = last_step(run).of(rank=0, operation="all_reduce").events
    print(f"messages: {len(sent)}, together {sum(event.nbytes for event in sent):,} bytes")


naive = launch(three_steps, 2, average_gradients)
count(naive)

# %% [markdown]
# One message a tensor, $4\Psi$ bytes together, with $\Psi$ the number of parameters. (What rank 0 *hands in*. A ring all-reduce then sends
# $2\frac{n-1}{n}$ times as much, chapter 03; with $n=2$ that is the same.) And this is the step, on one clock:

# %%
last_step(naive)

# %% [markdown]
# First everybody computes, then everybody talks: during *finish*, the model stands still. Half of the messages are biases of
# 2 kB or less. What does it cost to send so little at a time? Let two ranks all-reduce the same megabyte in more and more messages:

# %%
import time


def in_messages(count, rounds=5):
    """Seconds to all-reduce 1 MB as that many messages: the fastest round."""
    x, seconds = torch.zeros(2**18), []
    for _ in range(rounds):
        dist.barrier()
        start = time.perf_counter()
        for part in x.chunk(count):
            dist.all_reduce(part)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


for k in (1, 16, 128):
    seconds = launch(in_messages, 2, k)[0]
    print(f"1 MB in {k:3d} messages: {1e3 * seconds:6.1f} ms, {1e3 * seconds / k:.2f} ms each")

# %% [markdown]
# The same bytes, and yet each message has a price of its own. In the terms of chapter 03, for $S$ bytes in $k$ messages over a ring of $n$ ranks:
#
# $$ t_\text{send} \;=\; k\cdot 2(n-1)\,\alpha \;+\; 2\,\frac{n-1}{n}\,\beta S $$
#
# The second term is there whatever we do. The first one we can have nearly for nothing: make $k$ small.

# %% [markdown]
# ## Buckets
#
# Put all gradients one after the other into one flat tensor, a **bucket**; send that; copy the means back.


# %% tags=["nbval-check-output"]
def average_as_one(model):
    parameters = list(model.parameters())
    flat = torch.cat([p.grad.flatten() for p in parameters])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for p, part in zip(parameters, flat.split([p.numel() for p in parameters])):
        p.grad.copy_(part.view_as(p))


packed = launch(three_steps, 2, average_as_one)
count(packed)
print("same gradients:", torch.equal(packed[0], naive[0]))

# %% [markdown]
# One message instead of 14, and not a byte more. What it does cost is memory, a second copy of all gradients, and two copies in each step. Neither is
# needed: let each gradient *be* a part of the bucket from the start. Autograd adds to a gradient that is already there, so it writes straight into it:


# %% tags=["nbval-check-output"]
def bucket_for(parameters):
    """One flat tensor of zeros; the parameters' gradients become views of it."""
    flat = torch.zeros(sum(p.numel() for p in parameters))
    for p, part in zip(parameters, flat.split([p.numel() for p in parameters])):
        p.grad = part.view_as(p)
    return flat


model = mlp()
flat = bucket_for(list(model.parameters()))
F.cross_entropy(model(images), labels).backward()
print("backward filled the bucket:", bool(flat.any()))
print("nothing to copy:", torch.equal(flat, torch.cat([p.grad.flatten() for p in model.parameters()])))

# %% [markdown]
# There is one trap: a plain `zero_grad()` sets gradients to `None`, and the next backward would make new ones outside the bucket.
# Hence the `set_to_none=False` in `three_steps`.
#
# ## Talk while backward still computes
#
# Backward goes from the last layer to the first. The last layer's gradient is complete when most of the work is still to come, and could be on
# its way by then. With *one* bucket it waits for the first layer's gradient. With several, each can leave when it is full. PyTorch calls
# a function of ours, a *hook*, whenever a parameter's gradient is complete:


# %%
class Bucket:
    """Gradients that travel together, as soon as backward has made the last of them."""

    def __init__(self, parameters):
        self.flat = bucket_for(parameters)
        self.size = self.missing = len(parameters)
        for p in parameters:
            p.register_post_accumulate_grad_hook(self.one_more)

    def one_more(self, parameter):
        self.missing -= 1
        if self.missing == 0:
            self.work = dist.all_reduce(self.flat, async_op=True)  # starts it, does not wait

    def finish(self):
        self.work.wait()
        self.flat /= dist.get_world_size()
        self.missing = self.size


# %% [markdown]
# Which gradients go together? The library's [`fill_buckets`](../course_lib/parallel/buckets.py) takes parameters in the order given, as many
# into a bucket as fit. We hand them over in reverse, the order of backward, and let 1.5 MB fit:

# %% tags=["nbval-check-output"]
from course_lib.parallel.buckets import fill_buckets


def start_early(model, cap_bytes=1.5e6):
    groups = fill_buckets(reversed(list(model.parameters())), cap_bytes)
    model.buckets = [Bucket(group) for group in groups]


def finish(model):
    for bucket in model.buckets:
        bucket.finish()


early = launch(three_steps, 2, finish, start_early)
count(early)
print("same gradients:", torch.equal(early[0], naive[0]))

# %% [markdown]
# To see what it is good for, we need a network. Between processes of one machine the messages are copied by the very cores that compute. So we emulate
# one, as in chapter 03: each operation lasts as long as it would over links of 0.2 GB/s with a latency of 0.5 ms, and the cores are free
# meanwhile.

# %% jupyter={"source_hidden": true}
predict(
    "Five buckets, each sent when full. Which one must the ranks wait for, however slow their computing?",
    {
        "The first": (
            "It holds the last layer, which backward completes first. While it is sent, most of "
            "backward is still to be computed."
        ),
        "The last": (
            "It holds the first layer, which backward completes last. When it leaves, nothing is left "
            "to compute behind which it could hide."
        ),
        "None of them": (
            "Slow computing hides the first four. The last one is full only when backward has ended, so "
            "nothing is left to hide it."
        ),
    },
    right=1,
)

# %%
network = Link(latency_s=0.0005, bandwidth_gb_s=0.2)
one_each = partial(start_early, cap_bytes=0)  # nothing fits beside anything
ways = {
    "14 messages, after backward": launch(three_steps, 2, average_gradients, link=network),
    "1 message, after backward": launch(three_steps, 2, average_as_one, link=network),
    "14 messages, early": launch(three_steps, 2, finish, one_each, link=network),
    "5 messages, early": launch(three_steps, 2, finish, start_early, link=network),
}
print(f"{'(emulated network)':28s}  step  standing still")
for name, run in ways.items():
    step = last_step(run)
    begin, end = step.active_s
    print(f"{name:28s}{1e3 * (end - begin):3.0f} ms{1e3 * step.overlap(0).exposed_s:12.0f} ms")

# %% [markdown]
# Few messages save latency; an early start hides what is left behind the computing. The part for which a rank stands still is called **exposed**. Here
# are the second and the fourth as timelines on one scale. Below the work of a rank stands what is in flight, and pale red is where it stands still:

# %%
timeline({name: last_step(ways[name]) for name in ("1 message, after backward", "5 messages, early")})

# %% [markdown]
# The last bucket holds the first layer. It is complete when backward ends, so there is nothing left to hide it behind, and it
# queues behind those before it. At best, with $t_f$ and $t_b$ for forward and backward,
#
# $$ t_\text{step} \;\ge\; t_f + \max\,(t_b,\; t_\text{send}). $$
#
# So how large should a bucket be? Small, so that the first leaves early and the last is short; and large, so that $\alpha$ is paid
# seldom. PyTorch's default is 25 MB, with a first bucket of 1 MB; Li et al. 2020, section 5, measure other sizes. Our whole model would fit into one of
# those, but real ones are larger.

# %% [markdown]
# ## In a library
#
# `BucketedDataParallel` is what we built. It also copes with parameters that are frozen (not trained), unused in a step, or shared
# by two layers, and does the first broadcast. You call `finish_gradient_sync()` after `backward`.
# [Read it](../course_lib/parallel/data.py), after `DataParallel`, the version without buckets. Let us train our ResNet to the
# end with it, with another seed on every rank, and the optimizer that one would pick: Adam, with a rate that rises and falls.

# %%
from torch.optim.lr_scheduler import OneCycleLR

from course_lib.parallel.data import BucketedDataParallel


def train_to_the_end(wrap, steps=60):
    torch.manual_seed(dist.get_rank())
    model = wrap(ResNet().double())
    optimizer = torch.optim.Adam(model.parameters())
    schedule = OneCycleLR(optimizer, max_lr=0.01, total_steps=steps)
    for step in range(steps):
        images, labels = my_slice(step)
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        if wrap is BucketedDataParallel:
            model.finish_gradient_sync()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        right = (model(data.test_x).argmax(1) == data.test_y).double().mean().item()
    return right, parameters_to_vector(model.parameters()).detach()


ours = launch(train_to_the_end, 4, BucketedDataParallel)

# %% [markdown]
# The same with one process; and four ranks once more with PyTorch's own, `DistributedDataParallel` (DDP). There you wrap the model, and `backward`
# itself averages the gradients, with buckets and overlap:

# %%
from torch.nn.parallel import DistributedDataParallel as DDP

one = launch(train_to_the_end, 1, BucketedDataParallel)
theirs = launch(train_to_the_end, 4, DDP)
away, from_ddp = ((other[0][1] - ours[3][1]).abs().max().item() for other in (one, theirs))
print(f"{ours[0][0]:.1%} of the test images right; from one process {away:.0e}, from DDP {from_ddp:.0e}")
print(f"four ranks {ours.seconds:.1f} s, one process {one.seconds:.1f} s, DDP {theirs.seconds:.1f} s")

# %% tags=["nbval-check-output"]
print("at least 95 % right:", ours[0][0] >= 0.95)
print("as one process, to 1e-10:", away <= 1e-10)
print("as PyTorch's DDP, to 1e-10:", from_ddp <= 1e-10)

# %% [markdown]
# A difference in the last digit may grow over many steps; $10^{-10}$ is the bar that every strategy of this course has to pass. As to the times:
# four ranks share the cores of one laptop, so do not expect a quarter of one process's. DDP's hooks and buckets are written in C++, ours in
# Python; what they send differs by a few flags.
#
# ## Small batches in a row: talk once
#
# A batch may be too large for a rank's memory. Then it goes through in *micro-batches*: forward and backward on each, gradients add up, one optimizer
# step at the end. This is **gradient accumulation**. Nobody needs a mean before that step. But hooks know nothing of that, and would send
# after each backward, so they have to be told: that is `no_sync()`, here as in DDP.

# %%
from contextlib import nullcontext


def accumulate(talk_once, parts=4):
    """The gradients of 512 samples a rank, in four micro-batches."""
    model = BucketedDataParallel(mlp())
    mine = slice(dist.get_rank() * 512, (dist.get_rank() + 1) * 512)
    for part, (x, y) in enumerate(zip(images[mine].chunk(parts), labels[mine].chunk(parts))):
        quiet = talk_once and part < parts - 1
        with model.no_sync() if quiet else nullcontext():
            loss = F.cross_entropy(model(x), y) / parts  # the mean over all four
            loss.backward()
        if not quiet:
            model.finish_gradient_sync()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


# %% jupyter={"source_hidden": true}
predict(
    "Without no_sync, all gradients are averaged after each of the four micro-batches. What comes of it?",
    {
        "The right ones, with four times the messages": (
            "What was averaged before is the same on all ranks, so averaging it again does not change "
            "it. Only the sending is for nothing."
        ),
        "Wrong gradients": (
            "A mean of means is wrong where parts weigh differently. Here what was averaged before is "
            "equal on all ranks, and so is its own mean."
        ),
        "The right ones, at no cost": (
            "The gradients are right. But the hooks send all of them after each micro-batch: 8 messages "
            "in place of 2."
        ),
    },
    right=0,
)

# %% tags=["nbval-check-output"]
for talk_once in (False, True):
    run = launch(accumulate, 2, talk_once)
    sent = run.trace.of(rank=0, operation="all_reduce").events
    print(f"no_sync {talk_once!s:5}: {len(sent)} messages, {sum(e.nbytes for e in sent):,} bytes")
    print(f"    as all samples at once: {torch.allclose(run[0], naive[0], atol=1e-6)}")

# %% [markdown]
# What was averaged before is the same on all ranks, and its mean is itself: nothing wrong, three quarters of the sending for nothing. (Two
# buckets, since the first may hold 1 MB only; and a number more for each tensor, a flag with which ranks tell each other whether they used it.)
# Accumulation is also the cheapest way to more samples for each message. When does one need that?

# %% [markdown]
# ## When it pays, in numbers
#
# A rank holds the whole training state: in the usual mixed precision with Adam 16 bytes a parameter, namely 2 for the weight, 2 for its
# gradient, and 12 for what the optimizer keeps in float32 (Rajbhandari et al. 2020, section 3.1). And in each step it sends nearly twice the bytes
# of its gradients, *however many ranks there are*.
#
# The source says: data parallel is good when the data are many and the model is small, as with ResNet-50, because little time then goes
# into synchronising gradients. Let us put in numbers, for an A100 GPU with 80 GB:

# %%
FLOPS = 0.45 * 312e12  # operations/s: 45 % of the peak, which large runs do reach
NETWORK = 25e9  # bytes/s for each GPU
MEMORY = 80e9  # bytes

print(f"{'one rank, one step':22s}{'state':>10s}  fits  compute     send  ratio")
for name, parameters, operations in [
    ("ResNet-50, 32 images", 25_557_032, 32 * 3.8e9 * 2 * 3),
    ("ResNet-50, 128 images", 25_557_032, 128 * 3.8e9 * 2 * 3),
    ("BERT-large, 4k tokens", 340e6, 4096 * 6 * 340e6),
    ("GPT-3, 4k tokens", 175e9, 4096 * 6 * 175e9),
]:
    state, compute, send = 16 * parameters, operations / FLOPS, 2 * 2 * parameters / NETWORK
    fits = "yes" if state <= MEMORY else "NO"
    times = f"{compute:>8.3f} s{send:>7.3f} s{send / compute:>7.2f}"
    print(f"{name:22s}{state / 1e9:>7,.1f} GB{fits:>6s}{times}")
print(f"largest state that fits: {MEMORY / 16 / 1e9:.0f} billion parameters")

# %% [markdown]
# The GPU's rate and its network are those of a published cluster (Narayanan et al. 2021, table 1 and section 5). ResNet-50 takes
# 3.8 · 10⁹ multiply-adds an image forward (He et al. 2015, table 1), a transformer 2 operations for each parameter and token; backward takes
# twice as much again. A *token* is a piece of a word. What the table leaves out: activations need memory too, and sending can be hidden.
#
# 1. **Memory decides first.** At 16 bytes a parameter nothing beyond 5 billion parameters fits. ResNet-50 needs 0.4 GB on every rank, GPT-3
#    2,800 GB on *every* rank, and more ranks do not help, since each holds a copy. That is why data parallel is for small models.
# 2. **For time, not the model's size counts, but how much each rank has to compute on.** Here the source needs correcting. A larger model has
#    more gradients to send, but more to compute in the same proportion: BERT and GPT-3 have the same ratio, though one is 500 times as large. With
#    $T$ tokens a rank, $\text{send}/\text{compute} = \frac{4\Psi}{\text{network}} \Big/ \frac{6\Psi T}{\text{FLOPS}}$, and $\Psi$ cancels. What brings the
#    ratio down is more images or tokens *for each rank*, in each step: the source's "many data".
# 3. **So it has an end.** With a fixed batch, twice the ranks have half to compute and as much to send.
#
# The share of a step in which a rank computes is its **efficiency**. With nothing hidden, and $\Psi$ gone,
#
# $$ \text{efficiency} \;=\; \frac{t_\text{compute}}{t_\text{compute}+t_\text{send}}
#    \;=\; \frac{1}{1+\frac{4\cdot\text{FLOPS}}{6\,T\cdot\text{network}}} . $$
#
# ### Measured, in slow motion
#
# You probably have no A100 at hand, nor links of 1, 10 and 100 Gb/s, and an emulated link can only be slower than your machine, never faster. But your
# cores are much slower than a GPU, and the formula knows only *ratios*. So take one of your cores for an A100 in slow motion, and slow the
# links down by the same factor. First the factor, from steps in which nobody talks. (In an MLP each sample uses each weight once, as each token does in a
# transformer: $6\Psi$ operations for a sample here too. Many of them go through in micro-batches of 512.)


# %%
def compute_and_step(after_backward, micro_batches, rounds=3, hidden=2):
    """For each number of micro-batches, the seconds of computing and of the whole step: the fastest round."""
    model, fastest = mlp(64, hidden), []
    x, y = torch.rand(512, 64), torch.randint(10, (512,))
    for number in micro_batches:
        seconds = []
        for _ in range(rounds):
            dist.barrier()
            start = time.perf_counter()
            for _ in range(number):
                F.cross_entropy(model(x), y).backward()
            computed = time.perf_counter()
            after_backward(model)
            seconds.append((computed - start, time.perf_counter() - start))
        fastest.append([min(kind) for kind in zip(*seconds)])
    return fastest


compute, _ = launch(compute_and_step, 2, nothing, [64], 5)[0][0]
my_flops = 6 * sum(p.numel() for p in mlp(64, 2).parameters()) * 64 * 512 / compute
slowness = FLOPS / my_flops
print(f"a core here: {my_flops / 1e9:.0f} · 10⁹ operations/s; an A100 {slowness:,.0f} times as many")

# %% [markdown]
# Two ranks with 4-byte gradients send 4 bytes a parameter, as in the formula (there: 2-byte gradients, nearly twice, on many ranks). Latency is left out:
# for the few large messages of a real model it hardly counts. And to see whether $\Psi$ really cancels, one more run has nearly three times the parameters.


# %%
def over(gigabits, rounds, hidden=2):
    """Efficiency over a link of so many Gb/s in slow motion, for 512, 4,096 and 32,768 tokens."""
    link = Link(latency_s=0, bandwidth_gb_s=gigabits / 8 / slowness)
    run = launch(compute_and_step, 2, average_as_one, [1, 8, 64], rounds, hidden, link=link)
    return [compute / step for compute, step in run[0]]


measured = {gigabits: over(gigabits, rounds) for gigabits, rounds in [(100, 5), (10, 2), (1, 1)]}
larger = over(100, 3, hidden=8)

# %%
axes = new_plot("tokens a rank and step, T (log scale)", "efficiency", "slow motion, emulated links")
axes.set_xscale("log")
axes.minorticks_off()
tokens, line = [512, 4096, 32768], torch.logspace(2.5, 5, 20)
for gigabits, points in measured.items():
    formula = 1 / (1 + 4 * FLOPS / (6 * line * gigabits * 1e9 / 8))
    curve, *_ = axes.plot(line, formula, marker="", label=f"{gigabits} Gb/s, formula")
    axes.plot(tokens, points, "o", markevery=1, color=curve.get_color())
axes.plot(tokens, larger, "x", markersize=8, markevery=1, color="gray", label="100 Gb/s, larger model")
axes.legend();

# %% [markdown]
# Lines are the formula with an A100's numbers, points are steps of two real ranks in slow motion. (Where they part, your cores were at times slower or faster than in the
# first run.) **Ten times the network or ten times the tokens: the same efficiency.** And the larger model, the crosses, is about where the smaller one is.
#
# Hiding helps, within limits: with $t_b = 2\,t_f$, the step of $t_f+t_b+t_\text{send}$ can shrink to $t_f+\max(t_b, t_\text{send})$, which is best where
# $t_\text{send}=t_b$, and there it is from 5 to 3. A link that is ten times too slow stays too slow.
#
# ## Where this ends
#
# Every rank holds everything: all weights, all gradients, all of the optimizer's state. Twice the GPUs give no room for a larger model.
# Chapter 06 keeps the idea and shares the state out. Chapters 07 and 09 cut the model itself.

# %% [markdown]
# ## How well did you predict?

# %% jupyter={"source_hidden": true}
tally()

# %% [markdown]
# ## In seven lines
#
# - Data parallel: the whole model on every rank, a slice of the batch each. Forward needs no communication.
# - The mean of the ranks' gradients is the gradient of the whole batch, if slices are equal and no sample's loss depends on another sample.
# - Two calls keep the copies one model: **one broadcast at the start, one all-reduce of the gradients in each step.**
# - Without them nothing crashes. Compare weights, not losses.
# - Buckets make few messages of many. Sent while backward computes, all but the last can hide.
# - Accumulating micro-batches, talk once, after the last.
# - Each rank needs 16 bytes a parameter. Memory bounds the model; the batch of a rank decides how well its time is spent.
#
# | symbol | meaning |
# |---|---|
# | $n$, $r$ | world size, rank |
# | $B$ | samples in a global batch; each rank has $B/n$ |
# | $\ell_i$, $L$, $L_r$ | loss of a sample; mean loss over the batch; over rank $r$'s slice |
# | $\Psi$ | number of parameters |
# | $S$, $k$ | bytes of all gradients; messages in which they are sent |
# | $\alpha$, $\beta$ | latency, seconds a message; seconds a byte |
# | $t_f$, $t_b$ | seconds of a forward, of a backward |
# | $T$ | tokens that one rank computes on in a step |
#
# **To read**
#
# - Li et al. 2020, [*PyTorch Distributed*](https://arxiv.org/abs/2006.15704), section 3: how DDP came to its buckets, its overlap and `no_sync`. Figure 2 shows why: the
#   same gradients in fewer, larger messages take less time.
# - Goyal et al. 2017, [*Accurate, Large Minibatch SGD*](https://arxiv.org/abs/1706.02677), sections 2 and 3: the learning rate when $B$ grows with
#   $n$, and the pitfalls of doing it by hand; summing where one should average is among them.
# - Rajbhandari et al. 2020, [*ZeRO*](https://arxiv.org/abs/1910.02054), section 3: where the 16 bytes go. You will need it for chapter 06.
#
# **Now you:** [the exercise](../exercises/05_data_parallel.ipynb).
