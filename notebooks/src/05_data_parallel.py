# %% [markdown]
# # 05 · Data parallel
#
# In half an hour you will be able to
#
# - train one model on four processes, and show that it is the model one process would have trained,
# - name the two calls that this takes, and recognise what happens without each of them,
# - say from the size of a model whether it can be trained this way at all, and when it pays.
#
# You need [chapter 00](00_start_here.ipynb): ranks, `launch`, all-reduce. The lesson follows section 8.2.1 of
# [the source](../README.md#where-it-comes-from).
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
# along its first dimension, the samples. Each rank gets some rows of $x$, and all of $w$:

# %%
x = torch.arange(20.0).reshape(4, 5)
w = torch.arange(40.0).reshape(5, 8)

sharding(x, world_size=2, name="x")


# %% [markdown]
# Change the world size to 4, then to 3. Four samples do not divide by three, and the rule of `torch.chunk` leaves the last rank
# with nothing at all. Remember it for later.
#
# Now let two real ranks multiply, each its own slice. Each hands back what it holds, and the picture shows where in the
# whole tensors those values are:


# %%
def multiply_my_slice():
    mine = x.chunk(dist.get_world_size())[dist.get_rank()]  # (2, 5)
    return {"x": mine, "w": w, "y": mine @ w}  # y: (2, 8)


run = launch(multiply_my_slice, 2)
sharding(run, whole={"x": x, "w": w, "y": x @ w})

# %% [markdown]
# $x$ is cut, $w$ is there twice, and the two halves of $y$, one under the other, are the whole product. **Forward, the
# ranks need not talk at all.** If that were all there is to training, this lesson would end here.
#
# ## A model and its truth
#
# The data are 1,797 scanned digits of 8 × 8 grey values. They ship with scikit-learn, so nothing is downloaded. We train on
# 1,440 of them and keep 357 to test with.

# %%
data = digits(torch.float64)
show_images(data.train_x[:16], data.train_y[:16])

# %% [markdown]
# The model is a residual network, a small cousin of ResNet-50, which the source names. (The second number is counted from the plan
# of ResNet-50, He et al. 2015, table 1. The cell is folded; click the dots if you like counting.)

# %% jupyter={"source_hidden": true} tags=["nbval-check-output"]
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
count += 2048 * 1000 + 1000  # the last layer, for 1,000 classes
print(f"ResNet-50:  {count:>12,} parameters")

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

STEPS = 16


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
    "The weights of one process travelled the distance printed above. After as many steps, how far will "
    "the four ranks be from each other?",
    [
        "Zero: same start, same code",
        "About 1e-15: they differ by rounding",
        "A good part of the distance travelled",
    ],
)

# %%
silent = launch(train, 4)

axes = new_plot("step", "distance from rank 0's weights")
for rank in range(1, 4):
    distance = (silent[rank] - silent[0]).norm(dim=1)
    axes.plot(range(STEPS + 1), distance, label=f"rank {rank}")
axes.axhline(travelled, color="gray", linestyle=":", label="travelled by one process")
axes.legend();

# %% [markdown]
# They were one model before the first step, and never again. Each walks downhill on *its own* quarter of the data. Four ranks
# are training four models, each on a quarter of the data: the opposite of what we want.
#
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
    "How far are the four ranks' weights now from those of the single process?",
    ["Exactly 0", "About 1e-15", "About 1e-3"],
)

# %%
last = torch.stack([history[-1] for history in talking])  # (4, parameters)
print(f"largest difference from one process: {(last - truth[-1]).abs().max():.1e}")
print(f"largest difference between ranks:    {(last - last[0]).abs().max():.1e}")

# %% [markdown]
# Four processes train *one* model. Between the ranks the difference is exactly 0: they all step with the very same bytes. Against the
# single process the last digit differs, since a computer rounds, and four sums of 36 terms round differently from one of 144.
#
# ### When slices are not equal
#
# Ten samples on four ranks cannot be equal slices. Then the mean of the means is not the mean:

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
predict("Which of the four has the lowest test loss on rank 0 at the end?", list(runs))

# %%
axes = new_plot("step", "test loss of rank 0's model")
for name, run in runs.items():
    axes.plot(range(STEPS + 1), [test_loss(weights) for weights in run[0]], label=name)
axes.legend();

# %% [markdown]
# All four learn, and the one that looks best is a bug. The sum of four gradients is their mean times four, as if the learning rate
# were 0.04 instead of 0.01, and for these few steps that is the better rate. "Nobody talks" can hardly be told from the right one.
# Now look at the weights instead: rank 3's, and how far they are from those of the single process.

# %%
axes = new_plot("step", "distance from one process (log scale)", log=True)
for name, run in runs.items():
    axes.plot(range(1, STEPS + 1), (run[3] - truth).norm(dim=1)[1:], label=name)
axes.legend(loc="center right");

# %% [markdown]
# Fifteen orders of magnitude lie between right and wrong. This is the most useful thing to know about bugs in distributed training:
# **they rarely crash, and the loss still falls.** Only the weights tell. So this course holds everything that it builds
# against one process, on a model small enough for that; and so should you, before you start a run that is not.
#
# ## In a library
#
# `DataParallel` of `course_lib` is what we built. It also copes with parameters that are frozen (not trained), unused in a step, or shared
# by two layers. You call `finish_gradient_sync()` after `backward`. [Read it](../course_lib/parallel/data.py): it is short. Let us train to the
# end with it, with another seed on every rank, and the optimizer that one would pick: Adam, with a rate that rises and falls.

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
        if step % 20 == 19:
            mean = loss.detach() / dist.get_world_size()
            dist.all_reduce(mean)  # the loss of the whole batch
            if dist.get_rank() == 0:
                print(f"step {step + 1} of {steps}: loss {mean.item():.3f}")
    with torch.no_grad():
        right = (model(data.test_x).argmax(1) == data.test_y).double().mean().item()
    return right, parameters_to_vector(model.parameters()).detach()


ours = launch(train_to_the_end, 4, DataParallel)

# %% [markdown]
# The same with one process, and the comparison:

# %%
one = launch(train_to_the_end, 1, DataParallel)
away = (ours[3][1] - one[0][1]).abs().max().item()
print(f"{ours[0][0]:.1%} of the test images right; from one process: {away:.0e}")
print(f"four ranks {ours.seconds:.1f} s, one process {one.seconds:.1f} s")

# %% tags=["nbval-check-output"]
print("at least 97 % right:", ours[0][0] >= 0.97)
print("as one process, to 1e-10:", away <= 1e-10)

# %% [markdown]
# A difference in the last digit may grow over many steps; $10^{-10}$ is the bar that every strategy of this course has to pass.
#
# Four ranks may have been *slower* than one: they share the cores of one laptop, the model is tiny, and each of its 18 gradients is a
# message of its own. So when does data parallel pay?
#
# ## When it pays, in numbers
#
# In a step, a rank computes on its slice and then sends its gradients. Under a ring all-reduce (chapter 03 builds one) it sends
# $2\frac{n-1}{n}$ times their bytes: nearly twice, *however many ranks there are*. And it holds the whole training state: in the usual
# mixed precision with Adam 16 bytes a parameter, namely 2 for the weight, 2 for its gradient, and 12 for what the
# optimizer keeps in float32 (Rajbhandari et al. 2020, section 3.1).
#
# The source says: data parallel is good when the data are many and the model is small, as with ResNet-50, because little time then goes
# into synchronising gradients. Let us put in numbers, for an A100 GPU with 80 GB:

# %%
FLOPS = 0.45 * 312e12  # operations/s: 45 % of the peak, which large runs do reach
NETWORK = 25e9  # bytes/s for each GPU
MEMORY = 80e9  # bytes

print(f"{'one rank, one step':22s}{'state':>10s}  fits  compute     send  ratio")
for name, parameters, operations in [
    ("ResNet-50, 32 images", count, 32 * 3.8e9 * 2 * 3),
    ("ResNet-50, 128 images", count, 128 * 3.8e9 * 2 * 3),
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
# twice as much again. A *token* is a piece of a word. What the table leaves out: activations need memory too, and sending can be hidden behind
# computing.
#
# 1. **Memory decides first.** At 16 bytes a parameter nothing beyond 5 billion parameters fits. ResNet-50 needs 0.4 GB on every rank, GPT-3
#    2,800 GB on *every* rank, and more ranks do not help, since each holds a copy. That is why data parallel is for small models.
# 2. **For time, not the model's size counts, but how much each rank has to compute on.** Here the source needs correcting. A larger model has
#    more gradients to send, but more to compute in the same proportion: BERT and GPT-3 have the same ratio, though one is 500 times as large. With
#    $T$ tokens a rank, $\text{send}/\text{compute} = \frac{4\Psi}{\text{network}} \Big/ \frac{6\Psi T}{\text{FLOPS}}$, and $\Psi$ cancels. What brings the
#    ratio down is more images or tokens *for each rank*, in each step: the source's "many data".
# 3. **So it has an end.** With a fixed batch, twice the ranks have half to compute and as much to send. At a ratio of 1, with nothing
#    hidden, half of the time is spent waiting.
#
# And here is what "each holds a copy" looks like for the weights of our own model. Switch the placement to *shard dim 0* and watch the
# bytes of all ranks together: that is what chapter 06 does.

# %%
sharding(model, world_size=4, placement=Replicate())

# %% [markdown]
# ## PyTorch's own
#
# `DistributedDataParallel` (DDP) does the same. You wrap the model, and `backward` itself averages the gradients:

# %%
from torch.nn.parallel import DistributedDataParallel as DDP

theirs = launch(train_to_the_end, 4, DDP)

# %%
away = (theirs[0][1] - ours[0][1]).abs().max().item()
print(f"from ours: {away:.0e}; ours {ours.seconds:.1f} s, DDP {theirs.seconds:.1f} s")

# %% tags=["nbval-check-output"]
print("same weights as ours, to 1e-10:", away <= 1e-10)

# %% [markdown]
# The same weights, sooner. DDP packs gradients into *buckets*, and our 18 fit into a single one: one message a step instead of 18. In
# larger models it also sends a bucket while backward is still at work on the layers before it, which hides the sending. Both
# come later in this course. Neither changes *what* is sent.
#
# ## Where this ends
#
# Every rank holds everything: all weights, all gradients, all of the optimizer's state. Twice the GPUs give no room for a larger model.
# Chapter 06 keeps the idea and shares the state out. Chapters 07 and 09 cut the model itself.
#
# ## In five lines
#
# - Data parallel: the whole model on every rank, a slice of the batch each. Forward needs no communication.
# - The mean of the ranks' gradients is the gradient of the whole batch, if slices are equal and no sample's loss depends on another sample.
# - Two calls keep the copies one model: **one broadcast at the start, one all-reduce of the gradients in each step.**
# - Without them nothing crashes. Compare weights, not losses.
# - Each rank needs 16 bytes a parameter. Memory bounds the model; the batch of a rank decides how well its time is spent.
#
# | symbol | meaning |
# |---|---|
# | $n$, $r$ | world size, rank |
# | $B$ | samples in a global batch; each rank has $B/n$ |
# | $\ell_i$, $L$, $L_r$ | loss of a sample; mean loss over the batch; over rank $r$'s slice |
# | $\Psi$ | number of parameters |
# | $T$ | tokens that one rank computes on in a step |
#
# **To read**
#
# - Li et al. 2020, [*PyTorch Distributed*](https://arxiv.org/abs/2006.15704), section 3: how DDP came to its buckets. Figure 2 shows why: the
#   same gradients in fewer, larger messages take less time.
# - Goyal et al. 2017, [*Accurate, Large Minibatch SGD*](https://arxiv.org/abs/1706.02677), sections 2 and 3: the learning rate when $B$ grows with
#   $n$, and the pitfalls of doing it by hand; summing where one should average is among them.
# - Rajbhandari et al. 2020, [*ZeRO*](https://arxiv.org/abs/1910.02054), section 3: where the 16 bytes go. You will need it for chapter 06.
#
# **Now you:** [the exercise](../exercises/05_data_parallel.ipynb).
