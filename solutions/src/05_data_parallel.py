# %% [markdown]
# # Exercise 05 · Data parallel
#
# You write the four functions that keep copies of a model one model. Ten minutes each. Replace every
# `raise NotImplementedError(...)`, run the cell, then the check below it.
#
# The checks compare with one process, in float64, on several world sizes. To have the whole notebook graded:
# `course check exercises/05_data_parallel.ipynb`

# %%

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from course_lib import launch
from course_lib.grading import check, seed

# %% [markdown]
# A small model with everything that can go wrong in it: a frozen layer, and a normalisation with buffers. `batch` gives 24 samples.


# %% id="support-model"
def build(number):
    """A model with fresh random weights and buffers."""
    torch.manual_seed(number)
    layers = nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 5), nn.Linear(5, 3)
    model = nn.Sequential(*layers).double()
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.5, 2)
    model[3].requires_grad_(False)
    return model.eval()  # BatchNorm then uses its buffers, not the other samples


def batch(number, size=24):
    """Samples (size, 6) and targets (size, 3)."""
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(size, 6, generator=generator, dtype=torch.float64)
    return x, torch.randn(size, 3, generator=generator, dtype=torch.float64)


def gradients(model):
    """All gradients as one vector, those of the frozen layer left out."""
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def whole_gradient(number, size=24):
    """What one process computes: the gradient of the mean loss over the whole batch."""
    model = build(number)
    x, y = batch(number, size)
    F.mse_loss(model(x), y).backward()
    return gradients(model)


# %% [markdown]
# ## 5.1 A slice for each rank
#
# Cut `x` along dim 0 into `n` slices, one for each rank, in order. Where `n` does not divide the number of samples, the first
# ranks get one sample more than the last ones; no two ranks differ by more than one. (`torch.chunk` does something else: look at
# `[len(s) for s in torch.arange(9).chunk(4)]`.)


# %% id="answer-5-1"
def my_slice(x, rank, n):
    """The rows of x that belong to `rank` of `n`."""
    ### BEGIN SOLUTION 5.1: slices that differ by one sample at most
    ### HINT everybody gets len(x) // n; how many are left over, and who gets them?
    size, extra = divmod(len(x), n)
    first = rank * size + min(rank, extra)
    return x[first : first + size + (rank < extra)]
    ### END SOLUTION


# %% id="check-5-1"
with check("5.1") as c:
    for rows, n in ((12, 4), (9, 4), (10 + seed() % 13, 3), (2, 3), (5 + seed() % 7, 1)):
        x = torch.arange(rows) * 3 + seed()
        c.equal(
            f"{rows} samples on {n} ranks",
            [my_slice(x, rank, n).tolist() for rank in range(n)],
            lambda x=x, n=n: [part.tolist() for part in x.tensor_split(n)],
            hint="divmod(len(x), n): the first `extra` ranks get one more",
        )

# %% [markdown]
# ## 5.2 Average the gradients
#
# After `backward`, each rank holds the gradients of the mean loss over *its* slice. The slices are equal here. Turn them into those of
# the whole batch. Frozen parameters have no gradient (`p.grad is None`), on every rank alike.


# %% id="answer-5-2"
def average_gradients(model):
    """Replace every gradient by its mean over the ranks, in place."""
    ### BEGIN SOLUTION 5.2: the mean over the ranks
    ### HINT dist.all_reduce adds; what turns a sum into a mean?
    for parameter in model.parameters():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()
    ### END SOLUTION


# %% id="support-5-2"
def backward_on_my_slice(answer, number):
    """On a rank: forward and backward on an equal slice, then the answer."""
    model = build(number)
    x, y = (t.chunk(dist.get_world_size())[dist.get_rank()] for t in batch(number))
    F.mse_loss(model(x), y).backward()
    answer(model)
    return gradients(model)


# %% id="check-5-2"
with check("5.2") as c:
    for n in (1, 2, 3, 4):
        run = launch(backward_on_my_slice, n, average_gradients, seed(), timeout_s=20)
        c.equal(
            f"gradients on {n} ranks",
            list(run),
            lambda n=n: [whole_gradient(seed())] * n,
            hint="all_reduce gives the sum over the ranks: divide it by the world size",
        )

# %% [markdown]
# ## 5.3 Start as one model
#
# Each rank has built its model with another seed. Make all of them equal to rank 0's: weights, frozen weights, and buffers too.


# %% id="answer-5-3"
def start_as_one(model):
    """Give every rank the parameters and buffers of rank 0, in place."""
    ### BEGIN SOLUTION 5.3: the first broadcast
    ### HINT dist.broadcast(tensor, src=0) fills a tensor on all ranks; see also model.buffers()
    for tensor in [*model.parameters(), *model.buffers()]:
        dist.broadcast(tensor.detach(), src=0)
    ### END SOLUTION


# %% id="support-5-3"
def build_and_start(answer, number):
    """On a rank: build with a seed of its own, apply the answer, show what the model holds."""
    model = build(number + dist.get_rank())
    answer(model)
    return model.state_dict()


def of_kind(kind, state):
    """The tensors in a model's state whose name ends so."""
    return [tensor for name, tensor in state.items() if name.endswith(kind)]


HINTS = {
    "weight": "broadcast every parameter from rank 0, the frozen ones too",
    "bias": "broadcast every parameter from rank 0, the frozen ones too",
    "running_mean": "the buffers too: model.buffers()",
    "running_var": "the buffers too: model.buffers()",
}


# %% id="check-5-3"
with check("5.3") as c:
    for n in (1, 2, 4):
        states = launch(build_and_start, n, start_as_one, seed(), timeout_s=20)
        for kind, hint in HINTS.items():
            c.equal(
                f"{kind} on {n} ranks",
                [of_kind(kind, state) for state in states],
                lambda n=n, kind=kind: [of_kind(kind, build(seed()).state_dict())] * n,
                hint=hint,
            )

# %% [markdown]
# ## 5.4 Unequal slices
#
# Now the slices differ: `num_samples` is how many samples *this* rank had, and a rank may have had none (its gradients are then zeros).
# Turn the ranks' gradients into those of the mean loss over all samples. Dividing by the world size is wrong here: see lesson 05,
# "When slices are not equal".


# %% id="answer-5-4"
def average_unequal(model, num_samples):
    """Replace every gradient by the mean over all samples of all ranks, in place."""
    ### BEGIN SOLUTION 5.4: a mean over samples, not over ranks
    ### HINT weight each rank's gradient by its samples; how many are there in all?
    total = torch.tensor(num_samples)
    dist.all_reduce(total)
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad *= num_samples / total.item()
            dist.all_reduce(parameter.grad)
    ### END SOLUTION


# %% id="support-5-4"
def backward_on_unequal_slices(answer, number, size):
    """On a rank: forward and backward on a slice of the size that it happens to get."""
    model = build(number)
    rank, n = dist.get_rank(), dist.get_world_size()
    x, y = (t.tensor_split(n)[rank] for t in batch(number, size))
    if len(x):
        F.mse_loss(model(x), y).backward()
    else:  # nothing to learn from: all gradients are zero
        (0 * model(torch.zeros(1, 6).double())).sum().backward()
    answer(model, len(x))
    return gradients(model)


# %% id="check-5-4"
with check("5.4") as c:
    for n, size in ((1, 5), (2, 7), (3, 10 + seed() % 9), (4, 3)):
        run = launch(backward_on_unequal_slices, n, average_unequal, seed(), size, timeout_s=20)
        c.equal(
            f"gradients of {size} samples on {n} ranks",
            list(run),
            lambda n=n, size=size: [whole_gradient(seed(), size)] * n,
            hint="multiply by num_samples, add up, divide by the samples of all ranks",
        )

# %% [markdown]
# Four functions, and any model trains on any number of ranks as it would on one. In chapter 06 you take away what every rank
# holds twice.
