# %% [markdown]
# # Exercise 06 · Sharded data parallel
#
# You work out how many ranks a model needs, and then take away, one after the other, what data parallel holds several times: gradients, the state of the
# optimizer, weights. Ten minutes each. Replace every `raise NotImplementedError(...)`, run the cell, then the check below it.
#
# The checks compare with one process, in float64, on several numbers of ranks; **and they count bytes**: those sent, and those held. (They are
# folded; click the dots to read one.) To have the whole notebook graded: `course check exercises/06_sharded_data_parallel.ipynb`

# %%
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from course_lib import launch
from course_lib.grading import check, seed
from course_lib.memory import MemoryMeter

# %% [markdown]
# What the checks use: a small model of three tensors, 12 samples, and a count of what was sent. The trace knows what each rank handed to a
# collective; what becomes of it is what a ring sends. Of $V$ bytes, a broadcast, a reduce, a reduce-scatter or an all-gather sends $(n-1)V$ over all ranks together,
# an all-reduce $2(n-1)V$.


# %% id="support-model" jupyter={"source_hidden": true}
def build(number):
    """A model of three tensors, with fresh random weights."""
    torch.manual_seed(number)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3, bias=False)).double()


def batch(number):
    """Samples (12, 6) and targets (12, 3)."""
    generator = torch.Generator().manual_seed(number)
    x, y = (torch.randn(12, width, generator=generator) for width in (6, 3))
    return x.double(), y.double()


def backward(model, x, y):
    F.mse_loss(model(x), y).backward()
    return model


def nbytes(tensors):
    return sum(t.numel() * t.element_size() for t in tensors)


def of_each(runs, name):
    """One result of every rank, for each number of ranks."""
    return {f"{n} ranks": [rank[name] for rank in run] for n, run in runs.items()}


def bytes_sent(run):
    """How many bytes all ranks together sent."""
    return round(sum(event.ring_bytes for event in run.trace.events))


# %% [markdown]
# ## 6.1 How many ranks does it take?
#
# In mixed precision with Adam a parameter has 2 bytes of weight, 2 bytes of gradient and 12 bytes of optimizer state. ZeRO of a `stage` shares them out
# over $n$ ranks: stage 0 nothing, 1 the optimizer's state, 2 the gradients as well, 3 the weights too. What is shared out weighs $1/n$ on each rank (no
# rounding), the rest weighs all of it.
#
# Return the smallest number of ranks on which this state takes at most `memory_bytes` on a rank, or `None` if no number of ranks is enough.
#
# Try it: GPT-3 has 175 billion parameters, a large GPU 80 GB.


# %% id="answer-6-1"
def ranks_needed(num_parameters, memory_bytes, stage):
    """The fewest ranks with num_parameters' state in memory_bytes each; None if none suffice."""
    ### BEGIN SOLUTION 6.1: the fewest ranks that hold it
    ### HINT how many bytes a parameter are shared out, and how many stay whole on each rank?
    ### HINT what stays whole leaves some room: how often does it go into what is shared? -(-a // b) rounds up
    shared = (0, 12, 14, 16)[stage]
    room = memory_bytes - (16 - shared) * num_parameters  # for this rank's share
    if stage == 0:
        return 1 if room >= 0 else None
    return -(-shared * num_parameters // room) if room > 0 else None
    ### END SOLUTION


# %% id="check-6-1" jupyter={"source_hidden": true}
def fewest(num_parameters, memory_bytes, stage):
    """What ranks_needed should be, by trying one number of ranks after the other."""
    shared = [0, 12, 14, 16][stage] * num_parameters
    whole = 16 * num_parameters - shared
    if whole + (shared > 0) > memory_bytes:
        return None
    n = 1
    while whole * n + shared > memory_bytes * n:
        n += 1
    return n


MODELS = {
    "GPT-3, 80 GB": (175 * 10**9, 80 * 10**9),
    "7 billion, 80 GB": (7 * 10**9, 80 * 10**9),
    "1.5 billion, 24 GB: just fits": (15 * 10**8, 24 * 10**9),
    "1.5 billion, one byte less": (15 * 10**8, 24 * 10**9 - 1),
    "weights and gradients fill it": (10**9, 4 * 10**9),
    "yours": ((1 + seed() % 97) * 10**9, 40 * 10**9),
}

with check("6.1") as c:
    for stage, hint in enumerate(
        (
            "nothing is shared out: either one rank is enough or no number is",
            "12 of the 16 bytes are shared out, 4 stay on every rank, however many there are",
            "weights stay: 2 bytes on every rank",
            "all 16 bytes are shared out",
        )
    ):
        c.equal(
            f"stage {stage}",
            {name: ranks_needed(*model, stage) for name, model in MODELS.items()},
            lambda stage=stage: {name: fewest(*model, stage) for name, model in MODELS.items()},
            hint=hint,
        )

# %% [markdown]
# ## 6.2 Gradients go to their owner
#
# Parameter number $i$, in the order of `parameters`, **belongs to rank $i \bmod n$**. After `backward` every rank has the gradients of its own slice of the batch;
# the slices are equal. Leave each gradient's mean over all ranks at its owner, and free it everywhere else: `p.grad = None`. A frozen parameter has no gradient on
# any rank, and counts when they are numbered.
#
# Cost: no more than one reduce of each gradient. There may be more ranks than parameters.


# %% id="answer-6-2"
def reduce_to_owners(parameters):
    """The owner's p.grad becomes the mean over the ranks; everybody else's becomes None."""
    ### BEGIN SOLUTION 6.2: reduce each gradient to its owner
    ### HINT dist.reduce(tensor, dst=rank) puts the sum on one rank only; the others' tensor is of no use afterwards
    ### HINT enumerate(parameters) numbers them; what turns a sum into a mean?
    rank, n = dist.get_rank(), dist.get_world_size()
    for i, parameter in enumerate(parameters):
        if parameter.grad is None:
            continue
        dist.reduce(parameter.grad, dst=i % n)
        if i % n == rank:
            parameter.grad /= n
        else:
            parameter.grad = None
    ### END SOLUTION


# %% id="support-6-2" jupyter={"source_hidden": true}
def build_frozen(number):
    """The model with its bias, parameter number 1, frozen."""
    model = build(number)
    model[0].bias.requires_grad_(False)
    return model


def rank_reduces(answer, number):
    """On a rank: backward on its slice, the answer, and what is left of each gradient."""
    rank, n = dist.get_rank(), dist.get_world_size()
    model = backward(build_frozen(number), *(t.chunk(n)[rank] for t in batch(number)))
    answer(list(model.parameters()))
    grads = [p.grad for p in model.parameters()]
    return {
        "mean": ["freed" if g is None else g for g in grads],
        "held": sum(g is not None for g in grads),
    }


def owned_gradients(n, number):
    """What the ranks should be left with."""
    model = backward(build_frozen(number), *batch(number))
    grads = ["freed" if p.grad is None else p.grad for p in model.parameters()]
    return [[g if i % n == rank else "freed" for i, g in enumerate(grads)] for rank in range(n)]


# %% id="check-6-2" jupyter={"source_hidden": true}
with check("6.2") as c:
    runs = {n: launch(rank_reduces, n, reduce_to_owners, seed(), timeout_s=20) for n in (1, 2, 3, 4)}
    c.equal(
        "gradients held",
        of_each(runs, "held"),
        lambda: {f"{n} ranks": [sum(g != "freed" for g in r) for r in owned_gradients(n, 0)] for n in runs},
        hint="only the owner keeps a gradient: number i stays on rank i % n, None on the others",
    )
    c.equal(
        "mean at the owner",
        of_each(runs, "mean"),
        lambda: {f"{n} ranks": owned_gradients(n, seed()) for n in runs},
        hint="reduce gives the owner the sum over the ranks: divide it by the world size",
    )
    c.at_most(
        "bytes sent by 4 ranks",
        bytes_sent(runs[4]),
        lambda: (4 - 1) * 8 * (5 * 6 + 3 * 5),
        hint="right, but too dear: an all_reduce gives the sum to everybody; dist.reduce to the owner only",
    )

# %% [markdown]
# ## 6.3 An optimizer in shares
#
# Write an optimizer that keeps state for this rank's own parameters only: number $i$ belongs to rank $i \bmod n$, as before. `make_optimizer(list)` makes an
# ordinary one for the parameters in the list, and like all of PyTorch's it refuses an empty list. When `step()` is called, the gradients are as
# 6.2 leaves them. After it, **all parameters are the same on all ranks**, in place.
#
# Cost: state of no parameter on more than one rank (some optimizers make it at once, before any gradient is there), and one broadcast of each parameter a step.
# There may be more ranks than parameters.


# %% id="answer-6-3"
class ShardedOptimizer:
    """Steps this rank's parameters, then every owner sends the others what it has stepped."""

    def __init__(self, parameters, make_optimizer):
        ### BEGIN SOLUTION 6.3: an optimizer in shares
        ### HINT which of the parameters are this rank's? Give make_optimizer those only
        ### HINT parameters[rank::n] may be empty: then there is no optimizer to make
        self.parameters = list(parameters)
        mine = self.parameters[dist.get_rank() :: dist.get_world_size()]
        self.optimizer = make_optimizer(mine) if mine else None
        ### END SOLUTION

    def step(self):
        ### BEGIN SOLUTION 6.3: an optimizer in shares
        ### HINT dist.broadcast(parameter.detach(), src=owner) is a call for all ranks, those that own nothing too
        if self.optimizer is not None:
            self.optimizer.step()
        for i, parameter in enumerate(self.parameters):
            dist.broadcast(parameter.detach(), src=i % dist.get_world_size())
        ### END SOLUTION


# %% id="support-6-3" jupyter={"source_hidden": true}
OPTIMIZERS = {
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=0.1),
    "Adagrad": lambda parameters: torch.optim.Adagrad(parameters, lr=0.1),  # state at once
}


def state_of(optimizers):
    """Bytes of the optimizers' tensors, their step counters left out."""
    states = [state for optimizer in optimizers for state in optimizer.state.values()]
    return nbytes(t for s in states for t in s.values() if torch.is_tensor(t) and t.dim())


def rank_steps(answer, name, number, steps=3):
    """On a rank: some steps with the answer; all parameters, and the bytes of the state it made."""
    rank, n = dist.get_rank(), dist.get_world_size()
    model, made = build(number), []

    def make_optimizer(parameters):
        made.append(OPTIMIZERS[name](parameters))
        return made[-1]

    optimizer = answer(model.parameters(), make_optimizer)
    for step in range(steps):
        model.zero_grad()
        backward(model, *batch(number + step))  # the whole batch: its gradient is the mean
        for i, parameter in enumerate(model.parameters()):
            if i % n != rank:
                parameter.grad = None
        optimizer.step()
    weights = [p.detach() for p in model.parameters()]
    return {"weights": weights, "state": state_of(made)}


def one_process_steps(name, number, steps=3):
    model = build(number)
    optimizer = OPTIMIZERS[name](model.parameters())
    for step in range(steps):
        model.zero_grad()
        backward(model, *batch(number + step))
        optimizer.step()
    return [p.detach() for p in model.parameters()]


def share_of_state(name, n, rank):
    """Bytes of state of the parameters that are this rank's."""
    copies = {"Adam": 2, "Adagrad": 1}[name]
    return copies * nbytes(list(build(0).parameters())[rank::n])


# %% id="check-6-3" jupyter={"source_hidden": true}
with check("6.3") as c:
    for name, sizes in (("Adam", (1, 2, 4)), ("Adagrad", (3,))):
        runs = {n: launch(rank_steps, n, ShardedOptimizer, name, seed(), timeout_s=20) for n in sizes}
        c.equal(
            f"weights, {name}",
            of_each(runs, "weights"),
            lambda name=name, sizes=sizes: {
                f"{n} ranks": [one_process_steps(name, seed())] * n for n in sizes
            },
            hint="step what is yours, then let the owner of every parameter broadcast it, in place",
        )
        c.at_most(
            f"bytes of state for what others own, {name}",
            max(
                run[rank]["state"] - share_of_state(name, n, rank)
                for n, run in runs.items()
                for rank in range(n)
            ),
            lambda: 0,
            hint="right, but some rank keeps too much: give make_optimizer only this rank's parameters",
        )
        c.at_most(
            f"bytes sent by {sizes[-1]} ranks, {name}",
            bytes_sent(runs[sizes[-1]]),
            lambda sizes=sizes: 3 * (sizes[-1] - 1) * nbytes(build(0).parameters()),
            hint="right, but too dear: one broadcast of each parameter, from its owner, in each step",
        )

# %% [markdown]
# ## 6.4 Gather on use
#
# A linear layer $y = x\,W^\mathsf{T}$ whose weight no rank holds. $W$ is (out, in), and each rank has equally many of its rows, one rank after the other. Where $n$ does not
# divide *out*, rows of padding follow the last one, so that all shards are $(\lceil \text{out}/n \rceil, \text{in})$; what is in them does not matter. Each rank has its own `x`, (rows, in).
#
# - Forward: gather $W$, use it, and let go of it. **Nothing of the size of $W$ may stay until backward.**
# - Backward: gather it again. The gradient of `x` is this rank's own; that of `shard` is the *mean* over the ranks of its rows of $\partial W$, zero for padding.
#
# Cost: two all-gathers and one reduce-scatter of the shards. `dist.all_gather_single(whole, part)` and
# `dist.reduce_scatter_single(part, whole)` work on one tensor, along its dim 0.


# %% id="answer-6-4"
class GatherOnUse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, shard, out_features):
        """y (rows, out) of x (rows, in) and this rank's shard of W."""
        ### BEGIN SOLUTION 6.4: gather on use
        ### HINT gather into an empty tensor of n * len(shard) rows; the first out_features of them are W
        ### HINT ctx.save_for_backward keeps tensors until backward: which two are enough?
        ctx.save_for_backward(x, shard)
        gathered = shard.new_empty(dist.get_world_size() * len(shard), shard.shape[1])
        dist.all_gather_single(gathered, shard.detach())
        return x @ gathered[:out_features].T
        ### END SOLUTION

    @staticmethod
    def backward(ctx, dy):
        """(gradient of x, gradient of shard, None) from dy (rows, out)."""
        ### BEGIN SOLUTION 6.4: gather on use
        ### HINT dx = dy W,  dW = dyᵀ x;  put dW into a tensor of zeros that has the rows of padding too
        ### HINT reduce_scatter adds over the ranks; what turns a sum into a mean?
        x, shard = ctx.saved_tensors
        n = dist.get_world_size()
        gathered = shard.new_empty(n * len(shard), shard.shape[1])
        dist.all_gather_single(gathered, shard.detach())
        dx = dy @ gathered[: dy.shape[1]]
        gradient = torch.zeros_like(gathered)
        gradient[: dy.shape[1]] = dy.T @ x
        mine = torch.empty_like(shard)
        dist.reduce_scatter_single(mine, gradient)
        return dx, mine / n, None
        ### END SOLUTION


def sharded_linear(x, shard, out_features):
    return GatherOnUse.apply(x, shard, out_features)


# %% id="support-6-4" jupyter={"source_hidden": true}
ROWS, IN, HIDDEN, OUT = 3, 20, 34, 31


def two_weights(number):
    generator = torch.Generator().manual_seed(number)
    shapes = (HIDDEN, IN), (OUT, HIDDEN)
    return [torch.randn(s, generator=generator, dtype=torch.float64) / 5 for s in shapes]


def samples(number, n):
    """The samples of n ranks, one after the other: (n ROWS, IN)."""
    generator = torch.Generator().manual_seed(1000 + number)
    return torch.randn(n * ROWS, IN, generator=generator, dtype=torch.float64)


def padded(weight, n):
    """The weight with rows of padding at its end, so that n divides them."""
    return F.pad(weight, (0, 0, 0, -len(weight) % n))


def settled_bytes(meter, result_bytes, patience_s=0.5):
    """What is held besides the result; the backend may need a moment to let go of what it has sent."""
    deadline = time.monotonic() + patience_s
    while meter.now.total >= result_bytes + HIDDEN * IN * 8 and time.monotonic() < deadline:
        time.sleep(0.005)
    return meter.now.total - result_bytes


def rank_gathers(answer, number):
    """On a rank: two layers forward and backward; results, gradients, and bytes kept in between."""
    rank, n = dist.get_rank(), dist.get_world_size()
    shards = [nn.Parameter(padded(w, n).chunk(n)[rank].clone()) for w in two_weights(number)]
    x = samples(number, n)[rank * ROWS : (rank + 1) * ROWS].clone().requires_grad_()
    with MemoryMeter() as meter:
        h = answer(x, shards[0], HIDDEN)
        kept = settled_bytes(meter, len(h) * HIDDEN * 8)
    y = answer(torch.tanh(h), shards[1], OUT)
    y.square().mean().backward()
    return {"y": y, "dx": x.grad, "dW": [s.grad for s in shards], "kept": kept}


def one_process_gathers(name, n, number):
    """What each of n ranks should have."""
    weights = [w.requires_grad_() for w in two_weights(number)]
    x = samples(number, n).requires_grad_()
    y = torch.tanh(x @ weights[0].T) @ weights[1].T
    losses = torch.stack([part.square().mean() for part in y.chunk(n)])  # one a rank
    dx = torch.autograd.grad(losses.sum(), x, retain_graph=True)[0]
    dW = [padded(g, n).chunk(n) for g in torch.autograd.grad(losses.mean(), weights)]
    wholes = {"y": y.chunk(n), "dx": dx.chunk(n), "dW": list(zip(*dW, strict=True))}
    return list(wholes[name])


# %% id="check-6-4" jupyter={"source_hidden": true}
with check("6.4") as c:
    runs = {n: launch(rank_gathers, n, sharded_linear, seed(), timeout_s=20) for n in (1, 2, 3, 4)}
    for name, hint in (
        ("y", "x @ W.T with all of W: the gathered rows, without those of padding"),
        ("dx", "dy @ W with all of W; every rank has its own x, so nothing is added over the ranks"),
        (
            "dW",
            "dy.T @ x, zeros below it for padding, then a reduce_scatter: the sum over the ranks, to be divided by their number",
        ),
    ):
        c.equal(
            name,
            of_each(runs, name),
            lambda name=name: {f"{n} ranks": one_process_gathers(name, n, seed()) for n in (1, 2, 3, 4)},
            hint=hint,
        )
    for n in (3, 4):
        c.at_most(
            f"bytes kept for backward on {n} ranks",
            max(of_each(runs, "kept")[f"{n} ranks"]),
            lambda n=n: 8 * IN * (ROWS + -(-HIDDEN // n)) + 64,
            hint="right, but the gathered weight is still there: keep x and the shard, and gather again in backward",
        )
        c.at_most(
            f"bytes sent by {n} ranks",
            bytes_sent(runs[n]),
            lambda n=n: 3 * (n - 1) * nbytes(padded(w, n) for w in two_weights(0)),
            hint="right, but too dear: all_gather, all_gather again, and one reduce_scatter (an all_reduce is twice that)",
        )

# %% [markdown]
# Four pieces, and no rank holds more than its share between two uses. Fully sharded data parallel is the last of them for every layer of a model, with the next layer's
# gather under way while this one computes.
