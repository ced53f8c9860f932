# %% [markdown]
# # 04 · One product, two splits
#
# In about an hour you will be able to
#
# - cut a matrix product over several ranks in each of the three ways there are, and say what each rank may then leave out,
# - say before you run it which results come out whole, which in pieces, and which as sums that are not finished,
# - name the collective that each needs, count its bytes, and choose the cheaper cut.
#
# You need [chapter 00](00_start_here.ipynb), and from [chapter 03](03_collectives.ipynb) what all-reduce, all-gather and broadcast do. The lesson follows sections 8.2 to
# 8.2.2 of [the source](../README.md#where-it-comes-from), and corrects them: where it says broadcast, where it needs no all-reduce, and about BERT. It has two splits; there is a third.
#
# Most of the work in training a large model is multiplying matrices. Whoever can split one product can split a model.
#
# **The question:** two ranks, one product. *What can each of them leave out, and what must they then tell each other?*
#
# One value of the product takes a row of $x$ and a column of $w$. Point at a value, and see which:

# %% jupyter={"source_hidden": true}
from course_lib.viz import product

product((4, 5), (5, 8), world_size=1)

# %%
import torch
import torch.distributed as dist

from course_lib import launch
from course_lib.viz import Shard, predict, sharding, tally
from course_lib.viz.plots import new_plot

# %% [markdown]
# ## The product
#
# It is the source's example: four samples of five values each, times a weight that makes eight outputs of them. We fill both with small whole
# numbers. Sums of those have no rounding, so everything below is compared *exactly*.

# %%
torch.manual_seed(4)
x = torch.randint(-4, 5, (4, 5)).double()  # 4 samples, 5 inputs
w = torch.randint(-4, 5, (5, 8)).double()  # 5 inputs, 8 outputs
out = x @ w  # (4, 8)

# %% [markdown]
# In the picture at the top $x$ stands to the left of the result and $w$ above it. So the row and the column that make a value of $\text{out}$ point at it, as the
# blue ones do:
#
# $$\text{out}_{ij} \;=\; \sum_k x_{ik}\, w_{kj}$$
#
# Three letters: $i$ counts samples (4), $k$ counts inputs (5), $j$ counts outputs (8). Each of the three matrices carries two of them, and lacks
# the third. To cut the product is to cut a letter: to give each rank some of its numbers. **There are three letters, so there are three cuts.** (Four ranks
# could cut two letters at once; it is the same rule, twice.)
#
# ## Cut the samples: split by data
#
# Cut $i$. Of $x$ each rank gets two rows; $w$ has no $i$, so each gets all of it. In code, and in the pictures, `Shard(0)` means: cut along dim 0, the rows,
# a part for each rank. `product` takes how $x$ and how $w$ are cut; nothing, or `None`, means whole on every rank.

# %% jupyter={"source_hidden": true}
predict(
    "Rank 0 has the upper two rows of x and all of w. What can it compute alone?",
    {
        "The upper two rows of out, finished": (
            "A row of `out` needs the same row of `x` and all of `w`. For the upper two, rank 0 has both."
        ),
        "The left four columns of out, finished": (
            "A column of `out` needs every row of `x`, and rank 0 has two of the four. Cutting the "
            "columns of `w` would give columns."
        ),
        "Something of every value of out, and none of them finished": (
            "So it is when the inputs are cut, over which the sum runs. Rank 0 has two whole rows of "
            "`x`, with all five inputs."
        ),
    },
    right=0,
)

# %%
product(x, w, Shard(0))

# %% [markdown]
# The cut through $x$ runs on through $\text{out}$. Now on two real ranks. `mine` is all we need for it:


# %%
def mine(tensor, dim):
    """This rank's part of a tensor that is cut along `dim`."""
    return tensor.chunk(dist.get_world_size(), dim)[dist.get_rank()]


def by_data():
    x_i = mine(x, 0)  # (2, 5)
    return {"x": x_i, "w": w, "out": x_i @ w}  # out: (2, 8)


run = launch(by_data, 2)
sharding(run, whole={"x": x, "w": w, "out": out})

# %% [markdown]
# That picture is not drawn by hand: it was read from what the two ranks returned, by looking for their values in the whole. The same in words, together
# with what was sent, will be all we need from here on:


# %%
def layout(parts, whole):
    """How the ranks' parts make up the whole, to the last digit."""
    if all(torch.equal(part, whole) for part in parts):
        return "whole on every rank"
    for dim in (0, 1):
        fit = all(part.shape[1 - dim] == whole.shape[1 - dim] for part in parts)
        if fit and torch.equal(torch.cat(parts, dim), whole):
            return f"sharded on dim {dim}"
    return "partial sums" if torch.equal(sum(parts), whole) else "WRONG"


def report(run, **wholes):
    """How each tensor lies on the ranks; what rank 0 called, and the bytes it handed in."""
    for name, whole in wholes.items():
        print(f"  {name:<4} {layout([rank[name] for rank in run], whole)}")
    calls = run.trace.of(rank=0, kind="collective").events
    for call in calls:
        print(f"  {call.operation} of {call.shape}: {call.nbytes} bytes")
    if not calls:
        print("  no collective")


# %% tags=["nbval-check-output"]
report(run, out=out)

# %% [markdown]
# The halves, one under the other, are the whole. **Forward, nothing is sent.**

# %% [markdown]
# ### And backward?
#
# Training needs two more products. From the loss comes $\partial\text{out}$, which is short for the gradient
# $\partial L/\partial\,\text{out}$, of the same shape as $\text{out}$. From it come the gradients of the two factors:
#
# $$
# \partial x_{ik} = \sum_j \partial\text{out}_{ij}\, w_{kj}
# \qquad\qquad
# \partial w_{kj} = \sum_i x_{ik}\, \partial\text{out}_{ij}
# $$
#
# That is the chain rule: $x_{ik}$ takes part in $\text{out}_{ij}$ for every $j$, with the factor $w_{kj}$, so its gradient adds up over $j$; likewise that of $w_{kj}$ over
# $i$. As matrices: $\partial x = \partial\text{out}\; w^\mathsf{T}$ and $\partial w = x^\mathsf{T}\, \partial\text{out}$. Let us take some whole numbers for
# $\partial\text{out}$; from which loss they came does not matter here.

# %%
dout = torch.randint(-4, 5, (4, 8)).double()
dx, dw = dout @ w.T, x.T @ dout

# %% jupyter={"source_hidden": true}
predict(
    "The samples are cut: rank 0 has two rows of x and two rows of ∂out. It multiplies the first, "
    "transposed, by the second. What does it have of ∂w?",
    {
        "Half of its values, finished": (
            "Forward, cut samples gave finished rows of `out`. But `∂w` has no row for each sample: it "
            "adds up over them."
        ),
        "All 40 values, finished": (
            "The shape is that of `∂w`, which makes it look finished: (5 × 2) · (2 × 8). But each value "
            "adds up two samples of four."
        ),
        "All 40 values, and none of them finished": (
            "Each value of `∂w` is a sum over the samples. Rank 0 has two of the four, so it has two of "
            "four terms in every place."
        ),
    },
    right=2,
)

# %%
product(x.T, dout, Shard(1), Shard(0), names=("xᵀ", "∂out", "∂w"))

# %% [markdown]
# The sum in $\partial w$ runs over $i$, over the samples, and each rank has only two of the four. So each gets a full-sized matrix of
# *partial sums*: two of four terms in every place. Rank 0's sheet lies on top of rank 1's, and $\partial w$ is both of them, added up.
#
# The sum in $\partial x$ runs over $j$, which nobody has cut. Look at what the ranks hold:


# %%
def backward_by_data():
    x_i, dout_i = mine(x, 0), mine(dout, 0)  # (2, 5), (2, 8)
    return {"dx": dout_i @ w.T, "dw": x_i.T @ dout_i}  # (2, 5), (5, 8)


sharding(launch(backward_by_data, 2), whole={"dx": dx, "dw": dw})

# %% [markdown]
# The question marks stand for values that are found nowhere in the true $\partial w$; only their sum is. The collective that adds up what all ranks
# hold, and gives the result to all, is **all-reduce**. It is the one that the source names here.


# %%
def backward_by_data():
    x_i, dout_i = mine(x, 0), mine(dout, 0)
    dw_i = x_i.T @ dout_i  # (5, 8), partial
    dist.all_reduce(dw_i)  # (5, 8), the same on every rank
    return {"dx": dout_i @ w.T, "dw": dw_i}


# %% tags=["nbval-check-output"]
report(launch(backward_by_data, 2), dx=dx, dw=dw)

# %% [markdown]
# One all-reduce of $5\cdot8$ numbers of 8 bytes: 320 bytes handed in by each rank (what then
# travels comes further down). There is no $i$ in $k\cdot j$: with a thousand times as many samples it would be the same.
#
# (Lesson 05 will divide the sum by the number of ranks. There each rank starts from the *mean* loss over its own samples; here $\partial\text{out}$ is the
# gradient of the one loss of all samples, and so the sum is already right.)

# %% [markdown]
# ## Cut the outputs: split by model
#
# Now cut $j$. Each rank gets four columns of $w$; $x$ has no $j$, so every rank needs all of it.

# %%
product(x, w, None, Shard(1))


# %%
def by_model():
    w_j = mine(w, 1)  # (5, 4)
    return {"x": x, "w": w_j, "out": x @ w_j}  # out: (4, 4)


run = launch(by_model, 2)
sharding(run, whole={"x": x, "w": w, "out": out})

# %% [markdown]
# This time the *weight* is there only once, half of it on each rank. A weight too large for one device can be used this way; when
# splitting by data it cannot.
#
# ### Handing the result on
#
# The next layer wants all eight columns as its input, and each rank has four. Of model parallelism the source says that the input must be
# broadcast to every device. Let us try that.

# %% jupyter={"source_hidden": true}
predict(
    "Each rank holds its own (4 × 4) half of out. Both call dist.broadcast(half, src=0). What do they "
    "hold now?",
    {
        "Each holds all of out": (
            "Joining what the ranks hold is what an all-gather does. A broadcast has one sender, and "
            "overwrites what the others hold."
        ),
        "Each holds the left half": (
            "Rank 0 is the sender, and its half is the left one. It overwrites the right half on rank "
            "1, which nobody else has."
        ),
        "Each holds the sum of the two halves": (
            "Adding up is what an all-reduce does. A broadcast adds nothing: it copies from `src` to "
            "all the others."
        ),
    },
    right=1,
)


# %%
def broadcast_it():
    out_j = x @ mine(w, 1)  # (4, 4)
    dist.broadcast(out_j, src=0)
    return out_j


sharding(launch(broadcast_it, 2), whole=out, name="out after a broadcast")

# %% [markdown]
# A broadcast has *one* sender. Here each rank holds something that the other lacks, so each must send. That is an **all-gather**. It puts the
# pieces into a list; that they belong side by side, along dim 1, only we know.


# %%
def all_gather(part, dim, comm=dist):
    """All ranks' parts, joined along `dim`. comm: a module with these calls; we need another one below."""
    parts = [torch.empty_like(part) for _ in range(dist.get_world_size())]
    comm.all_gather(parts, part)
    return torch.cat(parts, dim)


def gather_it():
    return {"out": all_gather(x @ mine(w, 1), dim=1)}  # (4, 8)


# %% tags=["nbval-check-output"]
report(launch(gather_it, 2), out=out)

# %% [markdown]
# So what is right in the source? The *first* input must indeed be on every rank, and where a single rank has read it, broadcast is the word. But
# the input of every *later* layer is spread over the ranks, and then it takes an all-gather (which is $n$ broadcasts, one from each rank).

# %% [markdown]
# ### Backward, by model
#
# The source also says that the split by model needs no all-reduce of gradients. Is that so?

# %% jupyter={"source_hidden": true}
predict(
    "The outputs are cut: rank 0 has four columns of w and of ∂out. Which gradient comes out as partial "
    "sums?",
    {
        "∂w = xᵀ · ∂out": (
            "`∂w` was partial when the samples were cut. It sums over samples, which are all on every "
            "rank now: a rank's four columns are finished."
        ),
        "∂x = ∂out · wᵀ": (
            "`∂x` sums over the outputs, and these are cut: each rank adds up four of the eight terms "
            "of every value."
        ),
        "Both": (
            "A cut does not make everything partial, only sums over the letter that is cut. `∂w` sums "
            "over the samples, and nobody has cut those."
        ),
        "Neither": (
            "The source says that the split by model needs no all-reduce of gradients. That holds for "
            "`∂w`, but `∂x` sums over the outputs, which are cut."
        ),
    },
    right=1,
)

# %%
product(dout, w.T, Shard(1), Shard(0), names=("∂out", "wᵀ", "∂x"))


# %%
def backward_by_model():
    w_j, dout_j = mine(w, 1), mine(dout, 1)  # (5, 4), (4, 4)
    dx_j = dout_j @ w_j.T  # (4, 5), partial
    dist.all_reduce(dx_j)  # (4, 5), the same on every rank
    return {"dx": dx_j, "dw": x.T @ dout_j}  # dw: (5, 4)


# %% tags=["nbval-check-output"]
report(launch(backward_by_model, 2), dx=dx, dw=dw)

# %% [markdown]
# "No all-reduce" holds for $\partial w$: every rank has all samples, and owns the gradient of its own columns. It does not hold for $\partial x$. That sum
# runs over $j$, over the outputs, and those are cut. And $\partial x$ is what the layer before needs for *its* backward.

# %% [markdown]
# ## Cut the inputs: the third letter
#
# The source stops here, but one letter is left. Cut $k$: columns of $x$, and the matching rows of $w$.

# %% jupyter={"source_hidden": true}
predict(
    "The inputs are cut. Which of the three products now comes out as partial sums?",
    {
        "out, forward": (
            "`out` sums over the inputs. Each rank has some of them, and so only some of the terms of "
            "every value."
        ),
        "∂x, backward": (
            "`∂x` was partial when outputs were cut. It sums over outputs, which are whole here: a "
            "rank's columns of `∂x` are finished."
        ),
        "∂w, backward": (
            "`∂w` was partial when samples were cut. It sums over samples, which are whole here: a "
            "rank's rows of `∂w` are finished."
        ),
        "None": (
            "So far it was always a gradient, and both of their sums run over whole letters now. But "
            "forward has a sum as well, over the inputs."
        ),
    },
    right=0,
)

# %%
product(x, w, Shard(1), Shard(0))


# %%
def by_inputs():
    out_k = mine(x, 1) @ mine(w, 0)  # (4, 8), partial
    dist.all_reduce(out_k)
    return {"out": out_k, "dx": dout @ mine(w, 0).T, "dw": mine(x, 1).T @ dout}


# %% tags=["nbval-check-output"]
report(launch(by_inputs, 2), out=out, dx=dx, dw=dw)

# %% [markdown]
# Five inputs on two ranks were three and two, and nothing minded: every rank's sums have the same shape. Backward, nothing is sent, provided
# that every rank has all of $\partial\text{out}$.

# %% [markdown]
# ## The rule
#
# > - A letter that is cut and **summed over** gives partial sums: all-reduce.
# > - A letter that is cut and **stays** gives pieces: join them, by an all-gather, if anybody needs the whole.
#
# Of the three products, each sums over a different letter. So, whichever letter you cut, exactly one of the three comes out as partial sums: the one
# whose result lacks that letter.
#
# | cut | sharded, with their gradients | lacks the letter | forward | backward | all-reduce of |
# |---|---|---|---|---|---|
# | $i$, samples: *by data* | $x$ and $\text{out}$, on dim 0 | $w$ | nothing | all-reduce $\partial w$ | $k\cdot j = 40$ numbers |
# | $j$, outputs: *by model* | $w$ and $\text{out}$, on dim 1 | $x$ | nothing; all-gather if $\text{out}$ is needed whole | all-reduce $\partial x$ | $i\cdot k = 20$ numbers |
# | $k$, inputs | $x$ on dim 1, $w$ on dim 0 | $\text{out}$ | all-reduce $\text{out}$ | nothing | $i\cdot j = 32$ numbers |
#
# You need not learn the table by heart: *the tensor that lacks the letter is the one to talk about*. It is whole on every rank where it goes in, and partial
# where it comes out.
#
# ## Two products in a row
#
# A model is many products. Take two, with a nonlinearity in between: $h = \text{relu}(x\,a)$ and then $y = h\,b$. We could cut both weights by columns. Or
# use what we just learned: $h$ comes out with its columns cut, and its columns are the letter that the second product sums over. Cut $b$ by rows,
# and $h$ lies where it is needed already.

# %%
a = torch.randint(-4, 5, (5, 8)).double()
b = torch.randint(-4, 5, (8, 4)).double()
y = torch.relu(x @ a) @ b


def column_column(comm=dist):
    h = all_gather(torch.relu(x @ mine(a, 1)), 1, comm)  # (4, 8)
    return {"y": all_gather(h @ mine(b, 1), 1, comm)}  # (4, 4)


def column_row(comm=dist):
    h_j = torch.relu(x @ mine(a, 1))  # (4, 4), and there it stays
    y_j = h_j @ mine(b, 0)  # (4, 4), partial
    comm.all_reduce(y_j)
    return {"y": y_j}


# %% tags=["nbval-check-output"]
for way in (column_column, column_row):
    print(way.__name__)
    report(launch(way, 2), y=y)

# %% [markdown]
# One collective instead of two, and the large matrix in the middle never leaves its rank. (The relu acts on each value alone, so it works on
# columns as well as on all of $h$.) Megatron-LM splits a transformer's layers this way (Shoeybi et al. 2019, section 3), and chapter 07 will.
#
# What a rank *hands to* a collective is not yet what it *sends*. `course_lib.collectives` does the same with messages that can be counted
# (chapter 03 builds them): a ring all-reduce of $V$ bytes sends $2\frac{n-1}{n}V$ from each rank, and an all-gather whose result has
# $V$ bytes half as much.

# %% tags=["nbval-check-output"]
from course_lib import collectives

print("bytes sent by rank 0   column, column   column, row")
for n in (2, 4):
    ways = column_column, column_row
    sent = [launch(way, n, collectives).trace.sent_bytes(0) for way in ways]
    print(f"on {n} ranks{sent[0]:>26}{sent[1]:>14}")

# %% [markdown]
# By the formulas: on 2 ranks $\frac12\cdot(32+16)\cdot8 = 192$ and $2\cdot\frac12\cdot16\cdot8 = 128$; on 4 ranks $\frac34\cdot48\cdot8 = 288$ and
# $2\cdot\frac34\cdot16\cdot8 = 192$. In a transformer the middle is four times as wide as the ends, and the difference is larger.
#
# ## With autograd: one line for each cut
#
# So far we wrote backward by hand. Autograd does it for us, if it knows what the backward of a collective is. The rule says it: *where a tensor goes in whole and
# its gradient comes out partial*, forward does nothing and backward all-reduces. *Where a result comes out partial*, forward all-reduces and backward does
# nothing. (Why? If $\text{out} = \text{out}_0 + \text{out}_1$, the sum hands its gradient unchanged to each summand: nothing to do. And a tensor that $n$ ranks use gets $n$ gradients, which add up, as for any
# tensor that is used more than once: that sum is the all-reduce.) These two are called conjugate, and the library has them as `copy_to_group` and `reduce_from_group`
# ([read them](../course_lib/collectives/autograd.py)). Each cut then takes one of them, in one place:

# %%
from course_lib.collectives.autograd import copy_to_group, reduce_from_group

PARTS = {
    "i": lambda: (mine(x, 0), w.clone(), mine(dout, 0)),
    "j": lambda: (x.clone(), mine(w, 1), mine(dout, 1)),
    "k": lambda: (mine(x, 1), mine(w, 0), dout.clone()),
}
FORWARD = {
    "i": lambda x, w: x @ copy_to_group(w),
    "j": lambda x, w: copy_to_group(x) @ w,
    "k": lambda x, w: reduce_from_group(x @ w),
}


def with_autograd(cut):
    x_r, w_r, dout_r = PARTS[cut]()
    out_r = FORWARD[cut](x_r.requires_grad_(), w_r.requires_grad_())
    out_r.backward(dout_r)
    return {"out": out_r.detach(), "dx": x_r.grad, "dw": w_r.grad}


# %% tags=["nbval-check-output"]
for cut in "ijk":
    print(f"cut {cut}:")
    report(launch(with_autograd, 2, cut), out=out, dx=dx, dw=dw)

# %% [markdown]
# In `FORWARD`, line `"i"` is data parallel training. Lines `"j"` and `"k"` are the two layers of tensor parallel training, with Shoeybi's operators $f$
# (`copy_to_group`) and $g$ (`reduce_from_group`).
#
# ## PyTorch's own
#
# PyTorch can work out all of this by itself. A `DTensor` is a tensor together with its *placement*: `Shard(dim)`, `Replicate()` or `Partial()`. You say where the
# factors lie; where the result lies follows from the rule. Rank 0 prints what DTensor derived:


# %%
def with_dtensor(x_dim, w_dim):
    import torch.distributed.tensor as dt

    def place(tensor, dim):
        placement = dt.Replicate() if dim is None else dt.Shard(dim)
        return dt.distribute_tensor(tensor, mesh, [placement]).requires_grad_()

    mesh = dt.init_device_mesh("cpu", (dist.get_world_size(),))  # the ranks that share them
    x_d, w_d = place(x, x_dim), place(w, w_dim)
    out_d = x_d @ w_d
    (out_d.full_tensor() * dout).sum().backward()  # a loss whose gradient is dout
    found = {"out": out_d.detach(), "dx": x_d.grad, "dw": w_d.grad}
    if dist.get_rank() == 0:
        print({name: str(tensor.placements[0]) for name, tensor in found.items()})
    return {name: tensor.full_tensor() for name, tensor in found.items()}


# %%
runs = {}
for cut, dims in {"i": (0, None), "j": (None, 1), "k": (1, 0)}.items():
    print(f"cut {cut}:")
    runs[cut] = launch(with_dtensor, 2, *dims)

# %% [markdown]
# `S(0)` is short for `Shard(0)`, `P(sum)` for `Partial`. There is exactly one `Partial` in each line, and it is where our rule has it. `full_tensor()` asks for the whole, and DTensor chooses the collective for it.
# Here is all that was called when $k$ was cut:

# %% tags=["nbval-check-output"]
report(runs["k"], out=out, dx=dx, dw=dw)

# %% [markdown]
# Two scatters from rank 0 place the factors. (A factor that is to be whole on every rank is placed by a broadcast: that is where the source's word belongs.) Then comes the all-reduce of $\text{out}$ that we know; all that follows is `full_tensor()`, once for each of the three results that
# we wanted to see whole.
#
# ## Where it breaks
#
# **A forgotten all-reduce of $\partial x$.** Nothing crashes, the output is right, and so is this layer's own gradient. Only what is handed to the layer before is
# a part of the truth, another part on each rank:

# %% tags=["nbval-check-output"]
right, FORWARD["j"] = FORWARD["j"], lambda x, w: x @ w  # copy_to_group is gone
report(launch(with_autograd, 2, "j"), out=out, dx=dx, dw=dw)
FORWARD["j"] = right

# %% [markdown]
# **The wrong dim.** `all_gather_single` is the quick variant: it writes into one tensor and joins along dim 0, always. `view` then gives any shape that has as many values,
# the right one too:


# %%
def gather_and_view():
    out_j = x @ mine(w, 1)  # (4, 4)
    both = torch.empty(8, 4).double()
    dist.all_gather_single(both, out_j)
    return both.view(4, 8)


# %% tags=["nbval-check-output"]
got = launch(gather_and_view, 2)[0]
print("shape:", tuple(got.shape))
print("right values:", int((got == out).sum()), "of 32")

# %% [markdown]
# Eight are right because their halves of the first and the last row lie where they should; the others by luck.
#
# **A nonlinearity on partial sums.** relu may act on columns one by one; on sums that are not finished it may not. The first weight of a pair is cut by
# columns for that reason, not by rows: relu(3) + relu(−5) is 3, but relu(3 − 5) is 0.


# %%
def row_too_early():
    h = torch.relu(mine(x, 1) @ mine(a, 0))  # relu of a partial sum
    dist.all_reduce(h)
    return h


# %% tags=["nbval-check-output"]
h = torch.relu(x @ a)
got = launch(row_too_early, 2)[0]
print("right values:", int((got == h).sum()), "of 32")


# %% [markdown]
# **Uneven parts.** Eight columns do not divide by three. Partial sums do not mind, as we saw, but gloo, the backend on a CPU,
# gathers equal parts only, and fails somewhere inside. (DTensor met this above, where $k$ was cut: rank 1 has two columns of $x$, and handed in three, one of them padding.)
# `course_lib`'s all-gather for autograd asks for the sizes first:


# %% tags=["raises-exception"]
from course_lib.collectives.autograd import gather_from_group

launch(lambda: gather_from_group(x @ mine(w, 1), dim=1), 3)

# %% [markdown]
# One chooses sizes that divide (large models are built with such sizes), or fills up the last part with zeros, or sends parts of different sizes one by
# one. In the exercise, parts are equal or refused.
#
# ## Which cut, and when
#
# Compare the tensors that are all-reduced: $w$ has $k\cdot j$ numbers, $x$ has $i\cdot k$. So splitting by data sends less if $j < i$: **if the layer has fewer outputs than the
# batch has rows.** And if the next layer needs $\text{out}$ whole, splitting by model also gathers $i\cdot j$.
#
# A *row* is a sample in our example, a token in a transformer, and one position of one image in a convolution. (In a 3 × 3 convolution nine neighbouring positions share each input
# value: $w$ has $9\,c\,j$ numbers and $x$ only $i\,c$, so there the rule is $9j < i$.) Take a layer of BERT-large, from 1,024 values to
# 4,096 (Devlin et al. 2018, section 3), on 8 ranks, with 2 bytes a number:


# %%
def sends(w, x, out, n=8):
    """MB that each rank sends: split by data, by model, by model in a pair."""
    reduce, gather = 2 * (n - 1) / n, (n - 1) / n  # ring all-reduce, all-gather
    values = reduce * w, reduce * x + gather * out, reduce * x
    return [2 * v / 1e6 for v in values]


rows = [2**e for e in range(8, 17)]
sent = [sends(1024 * 4096, r * 1024, r * 4096) for r in rows]
axes = new_plot("rows in the batch", "MB sent by each rank", log=True)
axes.plot(rows, sent, label=["by data", "by model", "by model, in a pair"])
axes.set_xscale("log", base=2)
axes.set_xticks(rows[::2], [f"{r:,}" for r in rows[::2]])
axes.set_yticks([1, 10, 100], ["1", "10", "100"])
axes.axvline(4096, color="gray", linestyle=":")
axes.legend();
# %% [markdown]
# The lines of *by data* and *by model, in a pair* cross at 4,096 rows: where the batch has as many rows as the layer has outputs. ("In a pair" is column, then row, so that
# nothing is gathered.) The source names ResNet-50 for data parallel and BERT for model parallel. Here are layers of both, and of two other models:

# %% tags=["nbval-check-output"]
def dense(rows, inputs, outputs):
    return inputs * outputs, rows * inputs, rows * outputs  # numbers in w, x, out


def conv(images, side, channels):  # 3 x 3, as many channels out as in
    x = images * side * side * channels
    return 9 * channels * channels, x, x


LAYERS = {
    "ResNet-50, early, 32 images": conv(32, 56, 64),
    "ResNet-50, late, 32 images": conv(32, 7, 512),
    "ResNet-50, late, 256 images": conv(256, 7, 512),
    "VGG-16, dense, 256 images": dense(256, 25088, 4096),
    "BERT-large, 4,096 tokens": dense(4096, 1024, 4096),
    "BERT-large, 131,072 tokens": dense(131072, 1024, 4096),
    "GPT-3, 2,048 tokens": dense(2048, 12288, 49152),
    "GPT-3, 3.2 million tokens": dense(3.2e6, 12288, 49152),
}
print("MB sent by each of 8 ranks         by data   by model   in a pair")
for name, sizes in LAYERS.items():
    data, model, pair = sends(*sizes)
    print(f"{name:31s}{data:>11,.2f}{model:>11,.1f}{pair:>12,.1f}")

# %% [markdown]
# The sizes are those of 3 × 3 convolutions of the second and the last stage (He et al. 2015, table 1), of VGG-16's first dense layer (7 · 7 · 512 inputs;
# Simonyan and Zisserman 2014, table 1), and of the wide layer in a transformer block (Devlin et al. 2018, section 3; Brown et al. 2020, section 2.1). The large batches are those
# of the papers: 256 images (He et al., section 3.4), 256 sequences of 512 tokens (Devlin et al., appendix A.2), 3.2 million tokens (Brown et al., table 2.1).
#
# 1. **Few weights and many positions: by data.** Early in ResNet-50 it sends about two hundred times less. That is the source's example, and it is right. A dense layer such as
#    VGG's is the opposite, even with a large batch. Krizhevsky (2014) therefore split convolutions by data and dense layers by model, within one network.
# 2. **The batch decides.** Bytes for $\partial w$ do not grow with it, bytes for $x$ do. One sequence of 2,048 tokens on 8 ranks is for the split by model; the large batches that these models
#    are really trained with are for the split by data, late in ResNet, in BERT and in GPT-3 alike, by factors of 3 to 65.
# 3. **Memory overrules it.** GPT-3 is split by model all the same, since it does not fit into one device. BERT is not: 340 million parameters at 16 bytes of training state (lesson 05
#    says which) are 5.4 GB, so neither bytes nor memory are a reason to split BERT by model today.
#
# What the table leaves out is *when*. By data, one all-reduce at the end of a step is enough, and it may run while backward is still at work on other
# layers. By model, the next product waits for each collective. So the ranks that share a product should have the fastest links: those inside one
# machine.

# %% [markdown]
# ## How well did you predict?

# %% jupyter={"source_hidden": true}
tally()

# %% [markdown]
# ## In six lines
#
# - $\text{out}_{ij} = \sum_k x_{ik} w_{kj}$: three letters, three cuts.
# - A cut letter that stays gives pieces (all-gather, if one needs the whole). A cut letter that is summed over gives partial sums (all-reduce).
# - Samples cut, *by data*: nothing forward, all-reduce $\partial w$ backward.
# - Outputs cut, *by model*: the weight is there once; all-reduce $\partial x$ backward. Handing $\text{out}$ on takes an all-gather, not a broadcast.
# - Inputs cut: all-reduce $\text{out}$ forward. After a column cut a row cut needs no all-gather in between.
# - The tensor that lacks the letter is what is sent. Cut so that it is the smallest.
#
# | symbol | meaning |
# |---|---|
# | $i$, $k$, $j$ | rows (samples), inputs, outputs of a product |
# | $\partial x$, $\partial w$, $\partial\text{out}$ | gradient of the loss with respect to $x$, $w$, $\text{out}$ |
# | $x_i$, $w_j$, … in code `x_i`, `w_j` | a rank's part, with that letter cut |
# | $n$ | number of ranks |
#
# **To read**
#
# - Shoeybi et al. 2019, [*Megatron-LM*](https://arxiv.org/abs/1909.08053), section 3: column, then row, in both halves of a transformer layer. Look for $f$ and $g$ in figure 3:
#   they are the two functions that you used.
# - Xu et al. 2021, [*GSPMD*](https://arxiv.org/abs/2105.04663), sections 3 and 4: the user says of a few tensors how they are cut, and the compiler derives it for all others. Look for
#   what becomes of a cut dimension that a product sums over.
# - Krizhevsky 2014, [*One weird trick for parallelizing convolutional neural networks*](https://arxiv.org/abs/1404.5997): which layers to split how, and why.
#
# **Now you:** [the exercise](../exercises/04_one_product_two_splits.ipynb).
