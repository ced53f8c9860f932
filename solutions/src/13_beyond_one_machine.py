# %% [markdown]
# # Exercise 13 · Beyond one machine
#
# You read a checkpoint on another number of ranks, work out how often to write one, find faults in runs that nobody complains about, and make a training loop that can be killed. Ten minutes each.
# Replace every `raise NotImplementedError(...)`, run the cell, then the check below it.
#
# The checks compare exactly, with the whole tensor or with the run that was never interrupted, **and they count** what is read and written. (They are folded; click the dots to read one.) To have the whole
# notebook graded: `course check exercises/13_beyond_one_machine.ipynb`

# %%
import copy
import math
import random
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from course_lib import launch, span
from course_lib.faults.diagnosis import copies, difference
from course_lib.faults.museum import TENSOR, train
from course_lib.grading import check, seed
from course_lib.layout import Layout, Shard, region
from course_lib.trace import Trace

# %% [markdown]
# ## 13.1 Read a checkpoint on another number of ranks
#
# A tensor of `shape`, (rows, columns), was saved by $n$ ranks: each wrote its part, cut along dim `old`, into a file of its own, number 0 to $n-1$. Now $m$ ranks go on, and cut it along dim `new`. Return what `rank` of those $m$ holds.
#
# `read(file, rows, columns)` reads a part of a file. Rows and columns are pairs (start, stop), **counted in that file**, whose first row is row 0. `region(shape, Shard(dim), n, rank)` gives the two ranges, counted in the whole tensor, of what a rank holds (it cuts as `torch.chunk` does: the last ranks may have less, or nothing).
#
# Cost: only what you need is read, nothing twice, and no file is read from more than once.
#
# See for yourself: `files = Files(torch.arange(28.0).reshape(7, 4), 0, 2)` are the two files of a 7 × 4 tensor cut by rows; `files.read(1, (0, 2), (0, 4))` gives rows 4 and 5. Of three ranks by rows, rank 1 holds rows 3 to 5: one row from file 0, two from file 1. Then cut it by columns.


# %% id="support-13-1" jupyter={"source_hidden": true}
class Files:
    """What n ranks wrote of a tensor, cut along a dim; counts what is read."""

    def __init__(self, whole, dim, n):
        self.parts = [whole[ranges(whole.shape, dim, n, rank)].clone() for rank in range(n)]
        self.numbers, self.reads = 0, 0

    def read(self, file, rows, columns):
        if not 0 <= file < len(self.parts):
            raise IndexError(f"there is no file {file}: there are 0 to {len(self.parts) - 1}")
        part = self.parts[file]
        for name, (start, stop), length in zip(("rows", "columns"), (rows, columns), part.shape):
            if not 0 <= start <= stop <= length:
                raise IndexError(f"{name} {start} to {stop} of file {file}, which has {length} of them")
        found = part[rows[0] : rows[1], columns[0] : columns[1]].clone()
        self.numbers += found.numel()
        self.reads += 1
        return found


def ranges(shape, dim, n, rank):
    return tuple(slice(*pair) for pair in region(shape, Shard(dim), n, rank))


def cuts(number):
    """For each case: shape, old dim, n, new dim, m."""
    draw = random.Random(number)
    found = {
        "rows, the same cut": ((8, 3), 0, 4, 0, 4),
        "rows, fewer ranks": ((8, 3), 0, 4, 0, 2),
        "rows, more ranks": ((8, 3), 0, 2, 0, 4),
        "rows, nothing fits": ((7, 3), 0, 2, 0, 3),
        "columns, nothing fits": ((3, 10), 1, 4, 1, 3),
        "rows, then columns": ((6, 5), 0, 3, 1, 2),
        "columns, then rows": ((5, 7), 1, 2, 0, 3),
        "files that are empty": ((5, 2), 0, 4, 1, 2),
        "ranks that hold nothing": ((5, 2), 1, 2, 0, 4),
    }
    for i in range(12):
        shape = draw.randint(1, 9), draw.randint(1, 9)
        found[f"random {i}"] = (shape, draw.randrange(2), draw.randint(1, 6), draw.randrange(2), draw.randint(1, 6))
    return found


def saved(case, number):
    """The tensor of a case and its files."""
    shape, old, n, _, _ = case
    generator = torch.Generator().manual_seed(number)
    whole = torch.randint(1, 10**6, shape, generator=generator).double()
    return whole, Files(whole, old, n)


# %% id="answer-13-1"
def my_part(shape, old, n, new, m, rank, read):
    """What `rank` of m ranks, cut along dim `new`, holds of the tensor that n ranks saved."""
    ### BEGIN SOLUTION 13.1: read a checkpoint on another number of ranks
    ### HINT two ranges meet from the max of their starts to the min of their ends; that may be nothing
    ### HINT in a file it begins at that start minus the file's own; in a tensor of your size, minus yours
    mine = region(shape, Shard(new), m, rank)
    part = torch.empty([stop - start for start, stop in mine], dtype=torch.float64)
    for file in range(n):
        theirs = region(shape, Shard(old), n, file)
        both = [(max(a, c), min(b, d)) for (a, b), (c, d) in zip(mine, theirs)]
        if any(start >= stop for start, stop in both):
            continue
        inside = [(a - c, b - c) for (a, b), (c, _) in zip(both, theirs)]
        (r, s), (t, u) = [(a - c, b - c) for (a, b), (c, _) in zip(both, mine)]
        part[r:s, t:u] = read(file, *inside)
    return part
    ### END SOLUTION


# %% id="check-13-1" jupyter={"source_hidden": true}
def least(case):
    """How many numbers have to be read by all ranks, and how many times a file."""
    shape, old, n, new, m = case
    meet = 0
    for rank in range(m):
        for file in range(n):
            pairs = zip(region(shape, Shard(new), m, rank), region(shape, Shard(old), n, file))
            meet += all(max(a, c) < min(b, d) for (a, b), (c, d) in pairs)
    return shape[0] * shape[1], meet


with check("13.1") as c:
    hints = {
        "rows, the same cut": "file r holds what rank r needs, and inside that file it begins at row 0",
        "rows, fewer ranks": "a part may lie in several files; put the pieces one after the other",
        "rows, more ranks": "a part may begin in the middle of a file: subtract where the file begins in the whole",
        "rows, then columns": "along the other dim every file has some of each rank's part",
        "columns, then rows": "what is true of rows is true of columns: treat both dims alike",
        "files that are empty": "a file may hold nothing: skip it",
        "ranks that hold nothing": "a rank without rows returns a tensor with 0 rows and all columns",
    }
    numbers = reads = 0
    for name, case in cuts(seed()).items():
        shape, old, n, new, m = case
        whole, files = saved(case, seed())
        parts = [my_part(shape, old, n, new, m, rank, files.read) for rank in range(m)]
        c.equal(
            name,
            {f"rank {rank}": {"shape": list(part.shape), "values": part} for rank, part in enumerate(parts)},
            lambda case=case, whole=whole: {
                f"rank {rank}": {"shape": list(part.shape), "values": part}
                for rank in range(case[4])
                for part in [whole[ranges(case[0], case[3], case[4], rank)]]
            },
            hint=hints.get(name, "where the two ranges meet: max of the starts, min of the ends, in each dim"),
        )
        numbers, reads = numbers + files.numbers, reads + files.reads
    c.at_most(
        "numbers read",
        numbers,
        lambda: sum(least(case)[0] for case in cuts(seed()).values()),
        hint="right, but it reads too much: only where your part and the file's meet, in both dims, and that once",
    )
    c.at_most(
        "reads",
        reads,
        lambda: sum(least(case)[1] for case in cuts(seed()).values()),
        hint="right, but too many reads: one for each file that has some of your part, none for the others",
    )

# %% [markdown]
# ## 13.2 How often to save
#
# A job saves after every $k$ steps. Return the whole number $k$, at least 1, with which the least time is lost, and what is lost then, for each second of work:
#
# $$ \text{lost} = \frac{\delta}{\tau} + \frac{\tau/2 + R}{M} $$
#
# with $\tau$ the time of $k$ steps, $\delta$ the time of a checkpoint, $M$ the mean time between failures *of the job*, and $R$ the time from a failure until all ranks are running again. A `job` has
#
# - `step_s`, seconds of a step; `restart_s`, $R$ in seconds;
# - `parameters`, `bytes_each`, what a checkpoint holds; `write_gb_s`, the GB ($10^9$ bytes) that the storage takes in a second;
# - `gpus`, their number; `gpu_mtbf_years`, the mean time between failures of a single one, in years of 365 days.
#
# See for yourself: `LLAMA` is about the job of the lesson. It has $\delta = 33$ s and a failure every 3.1 hours; Young's formula says 14 minutes, so it is a number of steps near that. With half as many steps, and with twice as many, more must be lost.


# %% id="support-13-2" jupyter={"source_hidden": true}
@dataclass(frozen=True)
class Job:
    step_s: float
    restart_s: float
    parameters: float
    bytes_each: float
    write_gb_s: float
    gpus: int
    gpu_mtbf_years: float


LLAMA = Job(10, 600, 405e9, 162, 2000, 16_384, 5.79)
YEAR_S = 365 * 24 * 3600


def jobs(number):
    """Some jobs, by name."""
    draw = random.Random(number)

    def of(delta_s, mtbf_s, step_s, restart_s):
        """A job with such times."""
        gpus, speed = draw.choice([8, 512, 4096]), draw.choice([1, 40, 2000])
        return Job(step_s, restart_s, delta_s * speed * 1e9 / 16, 16, speed, gpus, mtbf_s * gpus / YEAR_S)

    step = draw.uniform(1, 9)
    found = {
        "like Llama 3": Job(10, 600, 405e9, 162, 2000, 16_384, draw.uniform(5, 6)),
        "restarts at once": of(draw.uniform(20, 60), draw.uniform(5e3, 5e4), 5, 0),
        "one GPU": Job(0.5, 100, 1.6e6, 12, 0.1, 1, draw.uniform(0.5, 2)),
        "steps that last long": of(draw.uniform(1, 2), 400, draw.uniform(100, 200), 60),
        "between two and one": of(2.1 * step**2 / 1000, 500, step, 30),
        "just below two and three": of(5.9 * step**2 / 1000, 500, step, 30),
        "just above two and three": of(6.12 * step**2 / 1000, 500, step, 30),
    }
    for i in range(4):
        found[f"random {i}"] = of(draw.uniform(5, 300), draw.uniform(3e3, 1e5), draw.uniform(1, 30), draw.uniform(0, 900))
    return found


# %% id="answer-13-2"
def save_every(job):
    """(steps between two checkpoints, seconds lost for each second of work)."""
    ### BEGIN SOLUTION 13.2: how often to save
    ### HINT the job fails `gpus` times as often as one GPU
    ### HINT Young's τ over step_s is seldom whole: which is better, the whole number below or above?
    delta = job.parameters * job.bytes_each / (job.write_gb_s * 1e9)
    mtbf = job.gpu_mtbf_years * 365 * 24 * 3600 / job.gpus

    def lost(k):
        tau = k * job.step_s
        return delta / tau + (tau / 2 + job.restart_s) / mtbf

    best = math.sqrt(2 * delta * mtbf) / job.step_s
    k = min((max(1, math.floor(best)), math.ceil(best)), key=lost)
    return k, lost(k)
    ### END SOLUTION


# %% id="check-13-2" jupyter={"source_hidden": true}
def by_trying(job):
    """The best of all numbers of steps up to one that is surely too large."""
    delta = job.parameters * job.bytes_each / (job.write_gb_s * 1e9)
    mtbf = job.gpu_mtbf_years * YEAR_S / job.gpus
    best, k = (math.inf, 0), 1
    while k == 1 or (k - 1) * job.step_s / 2 / mtbf < best[0]:  # beyond, that alone is more
        best = min(best, (delta / (k * job.step_s) + k * job.step_s / 2 / mtbf, k))
        k += 1
    return best[1], best[0] + job.restart_s / mtbf


with check("13.2") as c:
    hints = {
        "like Llama 3": "δ = parameters · bytes_each / (write_gb_s · 10⁹); M = years · 365 · 24 · 3600 / gpus; τ = √(2δM)",
        "restarts at once": "δ in seconds, M in seconds, τ = k · step_s; a failure costs τ/2 on average",
        "one GPU": "1 GB is 10⁹ bytes; a job of one GPU fails as often as that GPU",
        "steps that last long": "the least is after every step: k is at least 1",
        "between two and one": "rounding is not enough: compare what is lost with the whole number below and above, and take the better",
    }
    for name, job in jobs(seed()).items():
        steps, loss = save_every(job)
        hint = hints.get(name, "compare what is lost with the whole number of steps below Young's and above")
        c.equal(f"steps, {name}", steps, lambda job=job: by_trying(job)[0], hint=hint)
        c.equal(
            f"lost, {name}",
            loss,
            lambda job=job: by_trying(job)[1],
            hint="with the whole k: δ/τ, and for each failure τ/2 and R; R changes what is lost, and not the best k",
        )

# %% [markdown]
# ## 13.3 Name the fault
#
# Below are runs of the museum's job. Each may have a fault out of the nine `NAMES`; you are told neither which, nor in which order. Write the function that finds out. It gets the `run`, and a `healthy` run of the same job for comparison. Both have
#
# - `ranks`: for each rank what `train` returned there: `"first"`, the weights at the start, `"weights"`, those at the end (name → tensor), `"losses"`, the loss of its copy's own rows in each step, `"norms"`, the norm of the gradient in each step;
# - `trace`: of the last step;
# - `layout`: `layout.dp` copies, `layout.tp` slices; `layout.groups("dp")` are the groups of ranks that average gradients with each other, `layout.groups("tp")` those that share a copy; `m`: micro-batches of a step, more than there are copies.
#
# The three tools of the lesson are there: `copies(rank["weights"] for rank in run.ranks).letters`, `difference(run.trace, healthy.trace)` with its `missing` (for each rank calls and how often), and your own eyes. The seeds, the layouts and the tensor that is forgotten change.
#
# | name | what is wrong |
# |---|---|
# | `healthy` | nothing |
# | `sum for mean` | gradients of the copies are added up and not divided by their number |
# | `not divided` | gradients of micro-batches are added up and not divided by their number |
# | `mean of means` | each micro-batch takes its own mean over its tokens |
# | `same rows` | all copies get the same rows |
# | `no all-reduce` | no gradient is averaged over the copies |
# | `one forgotten` | one tensor's gradient is not averaged over the copies |
# | `norms drift` | the norm's gradient is not added up over the slices |
# | `other order` | one copy averages two tensors of one shape the other way round |
#
# See for yourself: `shown("norms drift", TENSOR, 4, 0)` is such a run; look at what it holds, beside `shown("healthy", TENSOR, 4, 0)`.


# %% id="support-13-3" jupyter={"source_hidden": true}
NAMES = ["healthy", "sum for mean", "not divided", "mean of means", "same rows"]
NAMES += ["no all-reduce", "one forgotten", "norms drift", "other order"]


@dataclass(frozen=True)
class Evidence:
    """What is known of a run."""

    ranks: list
    trace: Trace
    layout: Layout
    m: int


@cache
def all_runs(layout, m, number):
    """Every exhibit on one layout, one after the other on the same ranks."""
    faults = [name for name in NAMES if layout.tp > 1 or name != "norms drift"]

    def on_a_rank():
        found = []
        for name in faults:
            with span(name):
                found.append(train(layout, "" if name == "healthy" else name, number, m, steps=2))
        return found

    run = launch(on_a_rank, layout.world_size)
    return {
        name: Evidence(
            [rank[i] for rank in run], run.trace.during(name).during("step", last=1), layout, m
        )
        for i, name in enumerate(faults)
    }


def shown(name, layout, m, number):
    """One run; a copy that may be changed."""
    return copy.deepcopy(all_runs(layout, m, number)[name])


def puzzles(number):
    """Runs in an order that nobody knows: (name, layout, m, number of the data) each."""
    draw = random.Random(number)
    found = []
    for layout, forgotten in ((TENSOR, [1, 4]), (Layout(dp=3), [0, 2, 3])):  # the norm or the bias; another
        m, data = draw.choice([4, 5]), 5 * draw.randrange(20) + draw.choice(forgotten)
        found += [(name, layout, m, data) for name in all_runs(layout, m, data)]
    draw.shuffle(found)
    return found


# %% id="answer-13-3"
def diagnose(run, healthy):
    """Which of NAMES it is."""
    ### BEGIN SOLUTION 13.3: name the fault
    ### HINT first: is a call missing, in a group along dp or along tp, and how many of them?
    ### HINT then: do tensors differ between ranks where in the healthy run they do not?
    ### HINT then: the first norm against the healthy one, and the losses of the copies
    missing = difference(run.trace, healthy.trace).missing[0]
    if missing:
        along_tp = any(call.ranks in run.layout.groups("tp") for call in missing)
        if run.layout.tp > 1 and along_tp:
            return "norms drift"
        if all(call.nbytes == 8 for call in missing):  # one number: how many tokens count
            return "mean of means"
        return "one forgotten" if missing.total() == 1 else "no all-reduce"
    now, right = (copies(rank["weights"] for rank in r.ranks).letters for r in (run, healthy))
    if now != right:
        return "other order"
    times = run.ranks[0]["norms"][0] / healthy.ranks[0]["norms"][0]
    if math.isclose(times, run.layout.dp, rel_tol=1e-6):
        return "sum for mean"
    if math.isclose(times, run.m, rel_tol=1e-6):
        return "not divided"
    first, *others = (run.ranks[group[0]]["losses"] for group in run.layout.groups("tp"))
    return "same rows" if all(losses == first for losses in others) else "healthy"
    ### END SOLUTION


# %% id="check-13-3" jupyter={"source_hidden": true}
with check("13.3") as c:
    hints = {
        "healthy": "nothing is wrong with this run: it has all calls, equal copies, the healthy norm, and copies with different losses",
        "sum for mean": "the first gradient is exactly layout.dp times as large as the healthy one, and nothing else is to be seen",
        "not divided": "the first gradient is exactly m times as large as the healthy one, and nothing else is to be seen",
        "mean of means": "a call of 8 bytes along dp is missing, for how many tokens count was never asked",
        "same rows": "the copies have equal losses, to the last digit",
        "no all-reduce": "along dp, a call for every tensor is missing",
        "one forgotten": "along dp, the call for one tensor is missing: which one differs from run to run, and its bytes with it",
        "norms drift": "a call is missing in a group along tp, not dp; it has the bytes that a forgotten norm would have",
        "other order": "no call is missing, and yet two tensors of one shape differ between the copies",
    }
    for i, (name, layout, m, data) in enumerate(puzzles(seed())):
        case = shown(name, layout, m, data), shown("healthy", layout, m, data)
        c.equal(f"run {i}, on {layout}", diagnose(*case), lambda name=name: name, hint=hints[name])

# %% [markdown]
# ## 13.4 A training that can be killed
#
# `Trainer` trains in data parallel: a network with dropout, AdamW, a learning rate that falls, rows in an order that is drawn anew in each epoch. Write `save` and `load`, so that a run that was stopped goes on **exactly** as if it had never been. Every rank calls them.
#
# - `save(trainer, folder)` writes files into `folder`, a `Path` that all ranks see. It must not change the run that it saves.
# - `load(trainer, folder)` gets a fresh trainer, of another seed, in new processes.
#
# What a trainer consists of is in the cell below: `model`, `optimizer`, `schedule`, `order`, `queue`, and what is not in it: the random numbers of dropout come from torch's own generator, which is another one on each rank (`torch.get_rng_state()`).
#
# Cost: what all ranks have alike is written **once**, not once a rank. `torch.save` and `torch.load` will do, and ranks may talk.
#
# See for yourself, with a folder of `tempfile.TemporaryDirectory()`: `launch(a_leg, 2, save, load, Path(folder), 0, 0, 5)` and then `launch(a_leg, 2, save, load, Path(folder), 0, 5, 11)`: the losses must be those of `launch(a_leg, 2, None, None, None, 0, 0, 11)[0]["losses"]`.


# %%
class Trainer:
    def __init__(self, number):
        torch.manual_seed(1000 * number + dist.get_rank())
        layers = nn.Linear(8, 300), nn.Tanh(), nn.Dropout(0.2), nn.Linear(300, 2)
        self.model = nn.Sequential(*layers).double()
        for p in self.model.parameters():
            dist.broadcast(p.detach(), src=0)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda n: 1 / (1 + n / 3))
        self.order = torch.Generator().manual_seed(number)  # alike on all ranks
        self.queue = torch.empty(0, dtype=torch.long)  # the rows that are left of this epoch

    def step(self):
        """One step on the next 4 rows, 2 on each of 2 ranks; the loss of all 4."""
        if len(self.queue) < 4:
            self.queue = torch.randperm(len(DATA[0]), generator=self.order)
        rows, self.queue = self.queue[:4], self.queue[4:]
        x, y = (part[rows.chunk(2)[dist.get_rank()]] for part in DATA)
        loss = F.mse_loss(self.model(x), y)
        self.optimizer.zero_grad()
        loss.backward()
        for p in self.model.parameters():
            dist.all_reduce(p.grad)
            p.grad /= 2
        self.optimizer.step()
        self.schedule.step()
        dist.all_reduce(loss := loss.detach())
        return loss.item() / 2


# %% id="support-13-4" jupyter={"source_hidden": true}
DATA = torch.randn(2, 14, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64).unbind()
DATA = DATA[0], DATA[1][:, :2].contiguous()


def inside(trainer):
    """What a trainer is made of, as numbers."""
    after = torch.Generator()
    after.set_state(trainer.order.get_state())
    state = trainer.optimizer.state_dict()["state"]
    return {
        "weights": [p.detach().sum() for p in trainer.model.parameters()],
        "optimizer": [[one["step"].item(), one["exp_avg"].abs().sum(), one["exp_avg_sq"].sum()] for one in state.values()],
        "rate": [trainer.optimizer.param_groups[0]["lr"], trainer.schedule.last_epoch],
        "rows": trainer.queue.tolist(),
        "order": torch.randperm(14, generator=after).tolist(),
        "dropout": int(torch.get_rng_state().double().mul(torch.arange(5056) % 97).sum()),
    }


def a_leg(save, load, folder, number, first, stop, then=0):
    """On a rank: steps first to stop, of a run that was loaded unless it begins; save it; `then` go on for some more."""
    trainer = Trainer(number if first == 0 else number + 1 + first)
    if first:
        load(trainer, folder)
    dist.barrier()
    found = {"loaded": inside(trainer), "losses": [trainer.step() for _ in range(stop - first)]}
    if save:
        save(trainer, folder)
    dist.barrier()
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if save else 0
    return found | {"bytes": size, "then": [trainer.step() for _ in range(then)]}


def stops(number):
    """After which steps the run is stopped: in the middle of an epoch (of 3 steps), and at the end of one."""
    draw = random.Random(number)
    return draw.choice([4, 5]), draw.choice([9, 10]), 14


def legs(save, load, number):
    """The run in three legs, each of them in new processes."""
    with tempfile.TemporaryDirectory() as folder:
        first, second, last = stops(number)
        return [
            launch(a_leg, 2, save, load, Path(folder), number, 0, first, 3),
            launch(a_leg, 2, save, load, Path(folder), number, first, second),
            launch(a_leg, 2, None, load, Path(folder), number, second, last),
        ]


# %% id="answer-13-4"
def save(trainer, folder):
    """Every rank calls it."""
    ### BEGIN SOLUTION 13.4: a training that can be killed
    ### HINT rank 0 writes what all have alike: three state_dicts, order.get_state(), the queue
    ### HINT and each rank its own torch.get_rng_state(), to a file with its number
    if dist.get_rank() == 0:
        shared = {
            "model": trainer.model.state_dict(),
            "optimizer": trainer.optimizer.state_dict(),
            "schedule": trainer.schedule.state_dict(),
            "order": trainer.order.get_state(),
            "queue": trainer.queue.clone(),
        }
        torch.save(shared, folder / "shared.pt")
    torch.save(torch.get_rng_state(), folder / f"rank-{dist.get_rank()}.pt")
    ### END SOLUTION


def load(trainer, folder):
    """Every rank calls it, with a fresh trainer."""
    ### BEGIN SOLUTION 13.4: a training that can be killed
    ### HINT load_state_dict for three of them; order.set_state, torch.set_rng_state
    shared = torch.load(folder / "shared.pt")
    trainer.model.load_state_dict(shared["model"])
    trainer.optimizer.load_state_dict(shared["optimizer"])
    trainer.schedule.load_state_dict(shared["schedule"])
    trainer.order.set_state(shared["order"])
    trainer.queue = shared["queue"]
    torch.set_rng_state(torch.load(folder / f"rank-{dist.get_rank()}.pt"))
    ### END SOLUTION


# %% id="check-13-4" jupyter={"source_hidden": true}
@cache
def uninterrupted(number):
    """For each stop what was inside every rank, and all losses of a run without one."""

    def on_a_rank():
        trainer, losses, at = Trainer(number), [], {}
        for step in range(stops(number)[-1]):
            at[step] = inside(trainer)
            losses.append(trainer.step())
        return at, losses

    return launch(on_a_rank, 2)


HINTS = {
    "weights": "the model's state_dict, on both ranks",
    "optimizer": "the optimizer's state_dict: AdamW has two moments and a count of steps for each tensor",
    "rate": "the schedule's state_dict too, or the learning rate begins anew",
    "rows": "the queue: which rows are left of this epoch",
    "order": "the state of `order`, or the next epoch comes in another order",
    "dropout": "torch.get_rng_state() of each rank, given back to that rank, as the last thing: whatever draws a number moves it",
}


def losses_of(runs):
    """Of some legs, on both ranks."""
    return [[loss for run in runs for loss in run[rank]["losses"]] for rank in range(2)]


with check("13.4") as c:
    runs = legs(save, load, seed())
    c.equal(
        "the run that was saved",
        [rank["then"] for rank in runs[0]],
        lambda: [losses[stops(seed())[0] :][:3] for _, losses in uninterrupted(seed())],
        hint="it goes on otherwise than without saving: save must not draw random numbers, nor change the trainer",
    )
    for leg, again in ((1, ""), (2, ", the second time")):
        for name, hint in HINTS.items():
            c.equal(
                f"{name} after loading{again}",
                [rank["loaded"][name] for rank in runs[leg]],
                lambda leg=leg, name=name: [at[stops(seed())[leg - 1]][name] for at, _ in uninterrupted(seed())],
                hint=hint,
            )
        c.equal(
            f"losses{again}",
            losses_of(runs[: leg + 1]),
            lambda leg=leg: [losses[: stops(seed())[leg]] for _, losses in uninterrupted(seed())],
            hint="all is there after loading, and yet it trains otherwise: give the values to the trainer's own parts, which know each other",
        )
    c.at_most(
        "bytes in the folder",
        max(run[0]["bytes"] for run in runs),
        lambda: 150_000,  # the weights three times, 79 kB, random states, 5 kB a rank, and what files need around them
        hint="right, but too much is written: what all ranks have alike once, by one of them, and no older states",
    )

# %% [markdown]
# The real thing is the same with more ranks: `checkpoint.save` writes parts instead of copies, and it renames when all is there.
#
# To go on: kill a rank in the middle of `save`, between its two files. What would `load` find? Make it find the older checkpoint whole.
