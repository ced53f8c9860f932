# %% [markdown]
# # 05 · Data parallel
#
# In twenty-five minutes you will be able to
#
# - train one model on four processes and prove that it is the model one process would have trained, to the last digits,
# - name the two lines of code that this takes, and recognise what happens without each of them,
# - say from its size whether a model can be trained this way at all.
#
# You need [chapter 00](00_start_here.ipynb): ranks, and all-reduce. The lesson follows section 8.2.1 of [the source](../README.md#where-it-comes-from).
#
# **The question:** four copies of a model, four slices of the data. *Are they still one model?*

# %%
import torch
import torch.distributed as dist
from torch.nn import functional as F

from course_lib import launch
from course_lib.data import digits
from course_lib.models.resnet import ResNet
from course_lib.viz import Replicate, predict, sharding
from course_lib.viz.plots import new_plot, show_images

# %% [markdown]
# ## The picture: slice the data, copy the model
#
# The source's own example is one matrix product, $x\,(4\times5) \cdot w\,(5\times8) = y\,(4\times8)$. Data parallel cuts $x$
# along its first dimension, the samples. Two ranks get two samples each, and both hold all of $w$:

# %%
x = torch.arange(20.0).reshape(4, 5)
w = torch.arange(40.0).reshape(5, 8)

sharding(x, world_size=2, name="x")


# %% [markdown]
# Change the world size to 3: rank 2 gets less. Nothing says that slices must be equal; remember it for later. Now
# let two real ranks multiply, each its own slice, and look at which part of the whole product each of them *really* holds:


# %%
def multiply_my_slice():
    mine = x.chunk(dist.get_world_size())[dist.get_rank()]  # (2, 5)
    return mine @ w  # (2, 8)


run = launch(multiply_my_slice, 2)
sharding(run, whole=x @ w, name="y")

# %% [markdown]
# The outputs, one under the other, are the whole product. **Forward, the ranks need not talk at all.** If that were all
# there is to training, this lesson would end here.
#
# ## A model and its truth
#
# The data are 1,797 scanned digits. They ship with scikit-learn, so nothing is downloaded.

# %%
data = digits(torch.float64)
show_images(data.train_x[:16], data.train_y[:16])

# %% [markdown]
# The model is a residual network, small enough for your laptop. The one that the source names is ResNet-50, and its parameters can
# be counted from its plan (He et al. 2015, table 1): a first convolution, four groups of blocks of three convolutions, a last layer.

# %% tags=["nbval-check-output"]
model = ResNet()
print(f"our ResNet: {sum(p.numel() for p in model.parameters()):>12,} parameters")



def conv(size, n_in, n_out):
    return size * size * n_in * n_out + 2 * n_out  # weights; the norm's scale and shift


count, n_in = conv(7, 3, 64), 64
for width, blocks in [(64, 3), (128, 4), (256, 6), (512, 3)]:
    for block in range(blocks):
        count += conv(1, n_in, width) + conv(3, width, width) + conv(1, width, 4 * width)
        count += conv(1, n_in, 4 * width) if block == 0 else 0  # the shortcut
        n_in = 4 * width
count += 2048 * 1000 + 1000
print(f"ResNet-50:  {count:>12,} parameters")

# %% [markdown]
# Every run below takes 144 images a step. With $n$ ranks, rank $r$ takes the $r$-th of $n$ equal slices of those same 144.
# So the *data of a step* never depends on how many ranks there are.

# %%
BATCH = 144


def my_slice(step):
    """Images and labels of this rank in this step."""
    rank, n = dist.get_rank(), dist.get_world_size()
    size = BATCH // n
    first = step % 10 * BATCH + rank * size  # ten batches are one pass over the data
    return data.train_x[first : first + size], data.train_y[first : first + size]


# %% [markdown]
# This is a training loop like any other. Only `after_backward` is new: a place to talk, between backward and the optimizer's
# step. For now nobody talks. The function returns what all weights were after each step.

# %%
from torch.nn.utils import parameters_to_vector, vector_to_parameters

STEPS = 16


def train(after_backward=lambda model: None, seed=lambda: 0, norm="group"):
    """Train on this rank; return its weights after every step: (steps, parameters)."""
    torch.manual_seed(seed())
    model = ResNet(norm=norm).double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    history = []
    for step in range(STEPS):
        images, labels = my_slice(step)
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        after_backward(model)
        optimizer.step()
        history.append(parameters_to_vector(model.parameters()).detach())
    return torch.stack(history)


def test_loss(weights):
    """The loss of a model with these weights on images that no rank trains on."""
    model = ResNet().double()
    vector_to_parameters(weights, model.parameters())
    with torch.no_grad():
        return F.cross_entropy(model(data.test_x), data.test_y).item()


# %% [markdown]
# With one rank there is only one slice, the whole batch. That is ordinary training, **the truth that every later run is held to**.
# All of it is in float64, so that a difference of $10^{-12}$ is still a difference, and not noise.

# %%
truth = launch(train, 1)[0]
print(f"test loss {test_loss(truth[0]):.3f} -> {test_loss(truth[-1]):.3f} in {STEPS} steps")

# %% [markdown]
# ## Nobody talks
#
# Four ranks start from the same weights (the same seed). Each takes a quarter of the batch, and none says anything.

# %%
predict(
    "After 16 steps, how do the four models compare?",
    [
        "They are the same: same start, same code",
        "They differ, but only by rounding (about 1e-15)",
        "They differ as much as four models trained on different data do",
    ],
)

# %%
silent = launch(train, 4)

axes = new_plot("step", "distance from rank 0's weights", "Four models drift apart")
for rank in range(1, 4):
    distance = (silent[rank] - silent[0]).norm(dim=1)
    axes.plot(range(1, STEPS + 1), distance, label=f"rank {rank}")
axes.legend();

# %% [markdown]
# They were one model before the first step, and never again. Each took its steps downhill on *its own* quarter of the
# data. Four ranks have trained four models, each on a quarter of the data. That is the opposite of what we want.
#
# ## Why the mean is enough
#
# The loss of a batch is the mean over its $B$ samples. Cut the batch into $n$ slices of equal size $B/n$:
#
# $$
# L \;=\; \frac1B\sum_{i=1}^{B} \ell_i \;=\; \frac1n \sum_{r=0}^{n-1} \underbrace{\frac{n}{B}\sum_{i\,\in\,\text{slice } r} \ell_i}_{L_r}
# \qquad\Longrightarrow\qquad
# \nabla L \;=\; \frac1n\sum_{r=0}^{n-1} \nabla L_r .
# $$
#
# The right-hand side is what we are after. $\nabla L_r$ is the gradient that rank $r$ has just computed. **The mean of
# the ranks' gradients is the gradient of the whole batch**, exactly, not nearly. All-reduce gives the sum; one division makes it the mean.

# %%
def average_gradients(model):
    for parameter in model.parameters():
        dist.all_reduce(parameter.grad)  # the sum over the ranks, in place
        parameter.grad /= dist.get_world_size()


talking = launch(train, 4, average_gradients)

# %%
predict(
    "How far are the four ranks' weights now from those of the single process?",
    [
        "Exactly 0 in every weight",
        "About 1e-15: the order of the additions differs",
        "About 1e-3: averaging loses some detail",
    ],
)

# %%
last = torch.stack([history[-1] for history in talking])  # (4, parameters)
print(f"largest difference from one process: {(last - truth[-1]).abs().max():.1e}")
print(f"largest difference between ranks:    {(last - last[0]).abs().max():.1e}")

# %% [markdown]
# Two lines, and four processes train *one* model. Between the ranks the difference is exactly 0: they all step with the very
# same bytes. Against the single process there are a few digits at the end, since four sums of 36 terms
# round differently from one of 144.
#
# ## When slices are not equal
#
# The algebra asked for equal slices. Ten samples on four ranks cannot be equal. Then the mean of the means is not the mean:

# %% tags=["nbval-check-output"]
samples = torch.arange(10.0) ** 2
slices = samples.chunk(4)
print("sizes:               ", [len(s) for s in slices])
print("mean:                ", samples.mean().item())
print("mean of the means:   ", torch.stack([s.mean() for s in slices]).mean().item())
weighted = sum(s.mean() * len(s) for s in slices) / len(samples)
print("weighted by the size:", weighted.item())


# %% [markdown]
# The cure is to weight each rank's gradient by the size of its slice. Frameworks mostly avoid the question: they drop the last few
# samples, or repeat some. In the exercise you will do it right.
#
# ## Break it on purpose
#
# The seed above was 0 on every rank, so the copies began equal *by luck of our seeding*. Real code does not rely on
# that: rank 0 sends its weights to all the others first. Let us leave that out, with another seed on each rank, and then
# forget to divide the sum:


# %%
def sum_gradients(model):
    for parameter in model.parameters():
        dist.all_reduce(parameter.grad)


def my_rank():
    return dist.get_rank()


runs = {
    "right": talking,
    "nobody talks": silent,
    "no first broadcast": launch(train, 4, average_gradients, my_rank),
    "sum, not mean": launch(train, 4, sum_gradients),
}

# %%
predict(
    "Which of the four has the lowest test loss on rank 0 after 16 steps?",
    ["The right one", "One of the three broken ones"],
)

# %%
axes = new_plot("step", "test loss of rank 0's model", "What you would watch in practice")
for name, run in runs.items():
    axes.plot(range(1, STEPS + 1), [test_loss(weights) for weights in run[0]], label=name)
axes.legend();

# %% [markdown]
# Every curve falls, and the lowest is a bug: the sum of four gradients is the mean with a learning rate four times as large, which
# happens to be a better one here. (In a longer run, or with a rate that was well chosen, it would be worse. With Adam, which
# divides the scale of a gradient out, you would hardly see a difference at all.) Now the weights:

# %%
print("                     between ranks   from one process")
for name, run in runs.items():
    last = torch.stack([history[-1] for history in run])  # (4, parameters)
    between, away = (last - last[0]).abs().max(), (last - truth[-1]).abs().max()
    print(f"{name:20s}{between:14.1e}{away:19.1e}")

# %% [markdown]
# This is the most useful thing to know about bugs in distributed training: **they rarely crash, and the loss still falls.**
# "Nobody talks" learns, from a quarter of the data. "No first broadcast" applies the mean gradient of four
# different models to each of them, and they stay different for ever. Only the weights tell, between ranks and against
# one process; so that is how this course tests everything it builds.
#
# ### One more: BatchNorm
#
# Our ResNet normalises each image by itself (GroupNorm). The original one normalises by the batch (BatchNorm), and a
# rank's batch is only its slice:

# %%
alone = launch(train, 1, average_gradients, lambda: 0, "batch")
four = launch(train, 4, average_gradients, lambda: 0, "batch")
away = (four[0][-1] - alone[0][-1]).abs().max()
print(f"BatchNorm, four ranks against one process: {away:.1e}")

# %% [markdown]
# No bug here, but not the same training either: 36 images have another mean and variance than 144. It is usually accepted. Where
# it hurts, `torch.nn.SyncBatchNorm` computes them over all ranks, at the price of talking in the forward pass too. BatchNorm also
# keeps *buffers* (running means), which are no parameters and get no gradient: whoever broadcasts the parameters alone forgets
# them.
#
# ## In a library
#
# `DataParallel` of `course_lib` is what we built, with the first broadcast (parameters *and* buffers), and right for frozen,
# tied and unused parameters. [Read it](../course_lib/parallel/data.py): it is short. Now let us train to the end, with the
# optimizer that one would pick (Adam, and a learning rate that rises and falls), and another seed on every rank.

# %%
from torch.optim.lr_scheduler import OneCycleLR

from course_lib.parallel.data import DataParallel


def train_to_the_end(wrap, steps=80):
    torch.manual_seed(dist.get_rank())
    model = wrap(ResNet().double())
    optimizer = torch.optim.Adam(model.parameters())
    schedule = OneCycleLR(optimizer, max_lr=0.01, total_steps=steps)
    for step in range(steps):
        images, labels = my_slice(step)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        if wrap is DataParallel:
            model.finish_gradient_sync()
        optimizer.step()
        schedule.step()
        if step % 20 == 19 and dist.get_rank() == 0:
            print(f"step {step + 1} of {steps}: loss {loss.item():.3f}")
    with torch.no_grad():
        right = (model(data.test_x).argmax(1) == data.test_y).double().mean().item()
    return right, parameters_to_vector(model.parameters()).detach()


ours = launch(train_to_the_end, 4, DataParallel)

# %% [markdown]
# Those are the losses of rank 0, on its quarter. How many of the 357 images that no rank has seen does the model get right, and is it
# the model that one process trains?

# %% tags=["nbval-check-output"]
one = launch(train_to_the_end, 1, DataParallel)
print("at least 97 % right:", ours[0][0] >= 0.97)
away = (ours[3][1] - one[0][1]).abs().max().item()
print("as one process, to 1e-10:", away <= 1e-10)

# %%
print(f"accuracy {ours[0][0]:.1%}")
print(f"four ranks {ours.seconds:.1f} s, one process {one.seconds:.1f} s")
print(f"messages a step: one for each of the {len(list(model.parameters()))} gradients")

# %% [markdown]
# Four ranks may well have been *slower* than one here: they share the cores of one laptop, the model is tiny, and each
# of its gradients is a message of its own. When does data parallel pay, then?
#
# ## When it pays, in numbers
#
# In a step, a rank computes on its slice and sends its gradients. Computing grows with the slice; sending does not. Under a ring
# all-reduce (chapter 03) each of $n$ ranks sends $2\frac{n-1}{n}$ times the bytes of the gradients, hence nearly $2 \cdot 4\Psi$ bytes for $\Psi$
# parameters in float32, *however many ranks there are*.
#
# The source says that data parallel is good for large data and small models, such as ResNet-50, because a small model has few gradients
# to send. Let us hold that against numbers. Forward and backward cost about 6 FLOPs for each parameter and token of a transformer.
# A convolution uses each weight at many positions, so for ResNet-50 we count 3.8 · 10⁹ multiply-adds an image (He et al. 2015, table 1),
# times 2, and times 3 for forward and backward.

# %%
GPU_FLOPS = 312e12 * 0.45  # an A100's bf16 peak, at the 45 % that large runs reach
NETWORK = 25e9  # bytes/s for each GPU: 200 Gb/s InfiniBand
MEMORY = 80e9  # bytes

print("                      parameters     state  fits 80 GB   compute      send")
for name, parameters, flops in [
    ("ResNet-50, 32 images", count, 32 * 3.8e9 * 2 * 3),
    ("BERT-large, 8 × 512", 340e6, 8 * 512 * 6 * 340e6),
    ("GPT-3, 1 × 2048", 175e9, 2048 * 6 * 175e9),
]:
    state, compute, send = 16 * parameters, flops / GPU_FLOPS, 2 * 4 * parameters / NETWORK
    fits = "yes" if state <= MEMORY else "NO"
    size = f"{parameters / 1e6:>10,.0f} M{state / 1e9:>8,.1f} GB{fits:>10s}"
    print(f"{name:20s}{size}{compute:>10.3f} s{send:>8.3f} s")

# %% [markdown]
# The first three lines of the cell are those of Selene, the machine of Narayanan et al. 2021 (table 1 and section 5).
# *State* is 16 bytes for each parameter under mixed precision with Adam: 2 for the weight, 2 for its gradient, and 12 for what the optimizer
# keeps in float32 (Rajbhandari et al. 2020, section 3.1). (The rates are round numbers for the sake of the argument, and nothing overlaps.)
#
# Two things to see:
#
# 1. **Memory decides first.** ResNet-50 needs 0.4 GB on every rank, BERT-large 5.4 GB. GPT-3 needs 2,800 GB on *every* rank, and
#    data parallel copies it, however many ranks you add. That is why it is for "small models".
# 2. **For time, the batch of a rank matters, not the size of the model.** Here the source needs correcting. A large model has more
#    to send, but it has more to compute in the same proportion. Compare the two columns: with 32 images on each GPU, sending
#    ResNet-50's gradients takes 1.6 times as long as computing them, if nothing is hidden; with four times as many images it
#    takes 0.4 times as long, and the same goes for BERT and GPT-3. That is the "large data": enough samples for each rank, in each step.
#
# Here is the same as a picture: who holds what, when the model is copied. Switch the placement from *replicate* to *shard dim 0* and
# compare the bytes on all ranks. Chapter 06 does just that.

# %%
sharding(model, world_size=4, placement=Replicate())

# %% [markdown]
# ## PyTorch's own
#
# `DistributedDataParallel` (DDP) does the same. You wrap the model, and `backward` itself averages the gradients:

# %%
from torch.nn.parallel import DistributedDataParallel as DDP

theirs = launch(train_to_the_end, 4, DDP)

# %% tags=["nbval-check-output"]
away = (theirs[0][1] - ours[0][1]).abs().max().item()
print("same weights as ours, to 1e-10:", away <= 1e-10)

# %%
print(f"ours {ours.seconds:.1f} s, DDP {theirs.seconds:.1f} s")

# %% [markdown]
# Same weights. What DDP adds is speed: it packs many small gradients into *buckets*, fewer and larger messages, and sends a bucket
# while backward is still at work on the layers before it. Both come later in this course. What it does not change is what
# is sent, and when it must have arrived.
#
# ## Where this ends
#
# Every rank holds everything: all weights, all gradients, all of the optimizer's state. Twice the GPUs give no room for a larger model.
# Chapter 06 keeps the idea and shares the state out. Chapters 07 and 09 cut the model itself.
#
# ## In five lines
#
# - Data parallel: the whole model on every rank, a slice of the batch each. Forward needs no communication.
# - The mean of the ranks' gradients is the gradient of the whole batch, if the slices are equal and the loss is a mean.
# - Two things keep the copies one model: **one broadcast at the start, one all-reduce of the gradients in each step.**
# - Without them nothing crashes. Compare weights, not losses.
# - Each rank needs 16 bytes a parameter: memory, not arithmetic, is what stops it.
#
# | symbol | meaning |
# |---|---|
# | $n$, $r$ | world size, rank |
# | $B$ | samples in a global batch; each rank has $B/n$ |
# | $L$, $L_r$ | mean loss over the batch, over rank $r$'s slice |
# | $\Psi$ | number of parameters |
#
# **To read**
#
# - Li et al. 2020, [*PyTorch Distributed*](https://arxiv.org/abs/2006.15704), section 3: how DDP came to its buckets. Look at figure 2
#   for the time of 60 M parameters as messages grow.
# - Goyal et al. 2017, [*Accurate, Large Minibatch SGD*](https://arxiv.org/abs/1706.02677), section 2 and 3: the learning rate when $B$ grows with
#   $n$, and a list of pitfalls, among them two you have just seen.
# - Rajbhandari et al. 2020, [*ZeRO*](https://arxiv.org/abs/1910.02054), section 3: where the 16 bytes go. You will need it for chapter 06.
#
# **Now you:** [the exercise](../exercises/05_data_parallel.ipynb).
