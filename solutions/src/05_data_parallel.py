# %% [markdown]
# # Exercise 05 · Data parallel
#
# You write the functions that keep copies of a model one model, and then make them cheap. Ten minutes each. Replace every
# `raise NotImplementedError(...)`, run the cell, then the check below it.
#
# The checks compare with one process, in float64, on several world sizes; where a task names a cost, it is counted in the trace of your own run. (Most checks
# are folded; click the dots to read one.) To have the whole notebook graded: `course check exercises/05_data_parallel.ipynb`

# %%
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from course_lib import launch
from course_lib.grading import check, seed
from course_lib.parallel.data import BucketedDataParallel

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
#
# It must cost no more than one all-reduce of all gradients: in a ring $2\frac{n-1}{n}$ times their bytes for each rank. When the function
# returns, the gradients must be there. (The check lets one rank come late.)


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


# %% id="support-5-2" jupyter={"source_hidden": true}
def backward_on_my_slice(answer, number, *args):
    """On a rank: backward on an equal slice, then the answer; its gradients, and when it began and ended."""
    model = build(number)
    rank, n = dist.get_rank(), dist.get_world_size()
    x, y = (t.chunk(n)[rank] for t in batch(number))
    F.mse_loss(model(x), y).backward()
    dist.barrier()
    if rank == n - 1:
        time.sleep(0.1)
    begin = time.monotonic()
    answer(model, *args)
    end, averaged = time.monotonic(), gradients(model).clone()
    dist.barrier()  # whatever is still under way ends here
    return averaged, begin, end


def too_early(run):
    """The ranks that were done before the last one had begun."""
    return [rank for rank, (_, _, end) in enumerate(run) if end < run[len(run) - 1][1]]


def ring_bytes(run):
    """What rank 0 sends, if collectives go round a ring."""
    n = run.world_size
    shares = {"all_reduce": 2 * (n - 1) / n, "reduce_scatter": (n - 1) / n, "broadcast": 1, "reduce": 1}
    events = run.trace.of(rank=0, kind="collective").events  # a gather sends all to n - 1 ranks
    sent = sum(event.nbytes * shares.get(event.operation, n - 1) for event in events)
    return round(sent + run.trace.sent_bytes(0))


def sizes_sent(run):
    """The bytes of each all-reduce of rank 0, in the order of the calls."""
    return [event.nbytes for event in run.trace.of(rank=0, operation="all_reduce").events]


WAIT = (
    "the mean needs the last rank's gradients, so nobody can return before it has come: "
    "wait() for what async_op=True started"
)


# %% id="check-5-2" jupyter={"source_hidden": true}
with check("5.2") as c:
    runs = {
        n: launch(backward_on_my_slice, n, average_gradients, seed(), timeout_s=20)
        for n in (1, 2, 3, 4)
    }
    c.equal(
        "ranks that did not wait",
        {f"{n} ranks": too_early(run) for n, run in runs.items()},
        lambda: {f"{n} ranks": [] for n in runs},
        hint=WAIT,
    )
    c.equal(
        "gradients",
        {f"{n} ranks": [averaged for averaged, _, _ in run] for n, run in runs.items()},
        lambda: {f"{n} ranks": [whole_gradient(seed())] * n for n in runs},
        hint="all_reduce gives the sum over the ranks: divide it by the world size",
    )
    c.at_most(
        "bytes that one of 4 ranks sends",
        ring_bytes(runs[4]),
        lambda: round(2 * 3 / 4 * whole_gradient(seed()).nbytes) + 64,
        hint="right, but more bytes than an all-reduce of each gradient takes",
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


# %% id="support-5-3" jupyter={"source_hidden": true}
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


# %% id="check-5-3" jupyter={"source_hidden": true}
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


# %% id="support-5-4" jupyter={"source_hidden": true}
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


# %% id="check-5-4" jupyter={"source_hidden": true}
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
# ## 5.5 Fewer messages
#
# As 5.2, but in buckets. Take the gradients from the last parameter to the first, in the order in which backward makes them. As long as the next one fits, it goes into
# the same bucket; a bucket holds `cap_bytes` bytes at most. A gradient that is larger than that has a bucket to itself. Each bucket is one flat
# tensor and one all-reduce, and there are no other messages. Afterwards `p.grad` holds the mean, as before. (`t.nbytes` is the size of a tensor in bytes.)


# %% id="answer-5-5"
def average_in_buckets(model, cap_bytes):
    """Replace every gradient by its mean over the ranks; one all-reduce for each bucket."""
    ### BEGIN SOLUTION 5.5: one message for many gradients
    ### HINT first make a list of lists: start a new bucket when the next gradient does not fit
    ### HINT torch.cat of flattened gradients makes one tensor of them; flat.split(sizes) cuts it up again
    buckets, filled_bytes = [[]], 0
    for parameter in reversed(list(model.parameters())):
        if parameter.grad is not None:
            if buckets[-1] and filled_bytes + parameter.grad.nbytes > cap_bytes:
                buckets.append([])
                filled_bytes = 0
            buckets[-1].append(parameter.grad)
            filled_bytes += parameter.grad.nbytes
    for bucket in buckets:
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        for gradient, part in zip(bucket, flat.split([g.numel() for g in bucket])):
            gradient.copy_(part.view_as(gradient))
    ### END SOLUTION


# %% [markdown]
# In `build`'s model the gradients have these sizes in bytes, from the last to the first (the frozen layer has none):

# %% id="support-5-5"
SIZES = [p.nbytes for p in reversed(list(build(0).parameters())) if p.requires_grad]
print(SIZES)
SENT = {100: [24, 120, 80, 40, 240], 200: [184, 80, 240], 384: [264, 240], 10_000: [504]}  # by cap


# %% id="check-5-5" jupyter={"source_hidden": true}
with check("5.5") as c:
    runs = {
        f"cap {cap} bytes on {n} ranks": launch(
            backward_on_my_slice, n, average_in_buckets, seed(), cap, timeout_s=20
        )
        for n, cap in [*((2, cap) for cap in SENT), (3, 200), (1, 200)]
    }
    wanted = {f"cap {cap} bytes on 2 ranks": sizes for cap, sizes in SENT.items()}
    c.equal(
        "ranks that did not wait",
        too_early(runs["cap 100 bytes on 2 ranks"]),
        lambda: [],
        hint=WAIT,
    )
    c.equal(
        "bytes sent in all",
        {name: sum(sizes_sent(run)) for name, run in runs.items()},
        lambda: {name: sum(SIZES) for name in runs},
        hint="every gradient travels once; is the last bucket sent, which may not be full?",
    )
    c.equal(
        "gradients",
        {name: [averaged for averaged, _, _ in run] for name, run in runs.items()},
        lambda: {name: [whole_gradient(seed())] * len(run) for name, run in runs.items()},
        hint="each bucket becomes a mean, and its parts go back to where they came from",
    )
    sent = sizes_sent(runs["cap 200 bytes on 2 ranks"])
    c.at_most(
        "bytes of the largest message, cap 200 bytes",
        max(sent, default=0),
        lambda: max(SENT[200]),
        hint="right, but a bucket is too large: the cap counts bytes, not elements (see .nbytes)",
    )
    c.at_most(
        "messages, cap 200 bytes",
        len(sent),
        lambda: len(SENT[200]),
        hint="right, but too many messages: put in the next gradient as long as it fits",
    )
    c.equal(
        "bytes of each message",
        {name: sizes_sent(runs[name]) for name in wanted},
        lambda: wanted,
        hint="from the last parameter to the first; a bucket is sent when the next gradient does not fit",
    )

# %% [markdown]
# ## 5.6 Talk once
#
# The batch is too large for a rank, and comes as a list of micro-batches `(x, y)`, all of the same size, on each rank its own. Leave in `p.grad` the gradient of the mean
# loss over all samples of all ranks and micro-batches. `model` is a `BucketedDataParallel`: its hooks send during backward, except inside
# `with model.no_sync():`, and `model.finish_gradient_sync()` ends the averaging. One backward for each micro-batch, so that never more than
# one has its activations in memory; and all gradients go over the network *once*.


# %% id="answer-5-6"
def accumulate(model, micro_batches):
    """Gradients of the mean of F.mse_loss(model(x), y) over all micro-batches of all ranks."""
    ### BEGIN SOLUTION 5.6: synchronise the last micro-batch only
    ### HINT gradients of several backwards add up: what must each loss be divided by to make the sum a mean?
    ### HINT all but the last go inside no_sync; the last one sends the sum of all
    number = len(micro_batches)
    with model.no_sync():
        for x, y in micro_batches[:-1]:
            (F.mse_loss(model(x), y) / number).backward()
    x, y = micro_batches[-1]
    (F.mse_loss(model(x), y) / number).backward()
    model.finish_gradient_sync()
    ### END SOLUTION


# %% id="support-5-6" jupyter={"source_hidden": true}
def accumulate_my_slice(answer, number, micro):
    """On a rank: the answer on its slice in micro-batches; the gradients, the backwards, the buckets."""
    model = BucketedDataParallel(build(number))
    backwards = []
    model.module[0].weight.register_post_accumulate_grad_hook(lambda _: backwards.append(1))
    x, y = (t.chunk(dist.get_world_size())[dist.get_rank()] for t in batch(number))
    answer(model, list(zip(x.chunk(micro), y.chunk(micro))))
    dist.barrier()
    return gradients(model), len(backwards), len(model.buckets)


# %% id="check-5-6" jupyter={"source_hidden": true}
with check("5.6") as c:
    cases = {f"{k} micro-batches on {n} ranks": (n, k) for n, k in ((1, 3), (2, 1), (2, 4), (3, 2))}
    runs = {
        name: launch(accumulate_my_slice, n, accumulate, seed(), k, timeout_s=20)
        for name, (n, k) in cases.items()
    }
    c.equal(
        "backwards",
        {name: [backwards for _, backwards, _ in run] for name, run in runs.items()},
        lambda: {name: [k] * n for name, (n, k) in cases.items()},
        hint="one backward for each micro-batch",
    )
    c.equal(
        "gradients",
        {name: [averaged for averaged, _, _ in run] for name, run in runs.items()},
        lambda: {name: [whole_gradient(seed())] * n for name, (n, _) in cases.items()},
        hint="a mean over all: divide each loss by the number of micro-batches, and send their sum",
    )
    c.at_most(
        "all-reduces of a rank for 4 micro-batches",
        len(sizes_sent(runs["4 micro-batches on 2 ranks"])),
        lambda: runs["4 micro-batches on 2 ranks"][0][2],
        hint="right, but sent more than once: all micro-batches but the last inside model.no_sync()",
    )

# %% [markdown]
# Now any model trains on any number of ranks as it would on one, with few messages. In chapter 06 you take away what every rank
# holds twice.
