# %% [markdown]
# # Exercise 09 · Pipeline parallel
#
# First you cut a model into stages, then you write 1F1B as data, then you choose a schedule that fits, and last you carry one out with plain messages. Ten minutes each.
# Replace every `raise NotImplementedError(...)`, run the cell, then the check below it.
#
# The checks compare with one process, in float64, on real ranks; **and they count** bubbles, micro-batches held, messages, bytes. (They are folded; click
# the dots to read one.) To have the whole notebook graded: `course check exercises/09_pipeline_parallel.ipynb`
#
# As in the lesson: $p$ ranks, $m$ micro-batches, $v$ chunks of the model on each rank; $b$ samples in a batch, $h$ the width.

# %%
import random
import time
import weakref
from itertools import accumulate, combinations

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from course_lib import RankTimeout, launch, schedules
from course_lib.grading import by_hand, check, seed
from course_lib.parallel.pipeline import run_pipeline
from course_lib.parallel.stages import pipeline_stages
from course_lib.schedules import Action, Schedule
from course_lib.schedules.simulation import Costs, simulate
from course_lib.viz import arena

# %% [markdown]
# ## 9.1 Cut a model into stages
#
# A pipeline goes at the pace of its slowest stage, so the cut matters. `costs` has a whole number for each layer: microseconds, or parameters. Cut the layers, in their
# order, into $p$ stages so that **the slowest stage is as fast as it can be**, and return the $p + 1$ boundaries: `[0, 2, 5]` makes stages of the layers 0–1 and 2–4. No
# stage may be empty, and there are at least $p$ layers.
#
# Cost: 96 layers in 16 stages have some $10^{17}$ cuts. Yours must be found within a few seconds, so not by trying them all.
#
# See for yourself, before the check says so: of `[1, 2, 3, 4, 5]` in two stages there are four cuts; `stage_costs([1, 2, 3, 4, 5], [0, 3, 5])` is `[6, 9]`, and
# no other cut has less than 9. Cutting equally *many* layers fails on `[9, 1, 1, 1]`, and filling each stage up to the mean on `[3, 3, 2, 2, 2]`, $p = 3$: there 5 can be had.


# %% id="support-9-1" jupyter={"source_hidden": true}
def stage_costs(costs, bounds):
    """The cost of each stage."""
    return [sum(costs[start:stop]) for start, stop in zip(bounds, bounds[1:])]


def slowest(costs, p, bounds):
    """The cost of the slowest stage, or what is wrong with the boundaries."""
    bounds = list(bounds)
    if len(bounds) != p + 1:
        return f"{len(bounds)} boundaries for {p} stages"
    if (bounds[0], bounds[-1]) != (0, len(costs)):
        return f"from {bounds[0]} to {bounds[-1]} of {len(costs)} layers"
    empty = [i for i in range(p) if bounds[i] >= bounds[i + 1]]
    return f"stage {empty[0]} is empty" if empty else max(stage_costs(costs, bounds))


def layers(number):
    """Some small models: the costs of their layers, and a number of stages."""
    draw = random.Random(number)
    found = {
        "equal layers": ([4] * 7, 3),
        "the first is dear": ([9, 1, 1, 1], 3),
        "the last is dear": ([1, 2, 1, 2, 30], 4),
        "one stage": ([3, 1, 2], 1),
        "as many stages as layers": ([5, 1, 4, 1], 4),
        "[3, 3, 2, 2, 2]": ([3, 3, 2, 2, 2], 3),
        "[1, 1, 4, 6, 1]": ([1, 1, 4, 6, 1], 3),
        "[3, 3, 3, 9, 1]": ([3, 3, 3, 9, 1], 4),
    }
    for i in range(20):
        n = draw.randint(4, 9)
        found[f"random {i}"] = ([draw.randint(1, 20) for _ in range(n)], draw.randint(2, min(n, 5)))
    return found


def large(number):
    """96 layers."""
    draw = random.Random(number)
    return [draw.randint(100, 1000) for _ in range(96)]


def cut_large(answer, number):
    """The slowest of 16 stages of 96 layers, and the seconds it took, on a process that is stopped after TIME and one."""
    costs = large(number)

    def on_a_rank():
        begin = time.perf_counter()
        found = slowest(costs, 16, answer(list(costs), 16))
        return found, time.perf_counter() - begin

    try:
        return launch(on_a_rank, 1, timeout_s=TIME + 1)[0]
    except RankTimeout:
        return "not done", TIME + 1


TIME = 5  # seconds


# %% id="answer-9-1"
def cut(costs, p):
    """The p + 1 boundaries of p stages, the slowest of which is as fast as can be."""
    ### BEGIN SOLUTION 9.1: cut a model into stages
    ### HINT wherever the last stage begins, the layers before it are to be cut as well as can be into p − 1: the same task, smaller. Keep what you have found
    upto = [0, *accumulate(costs)]  # the cost of the first i layers
    best = {i: (upto[i], [0, i]) for i in range(1, len(upto))}  # their best cut: one stage so far
    for stages in range(2, p + 1):
        best = {
            stop: min(
                (max(best[start][0], upto[stop] - upto[start]), [*best[start][1], stop])
                for start in range(stages - 1, stop)
            )
            for stop in range(stages, len(upto))
        }
    return best[len(costs)][1]
    ### END SOLUTION


# %% id="check-9-1" jupyter={"source_hidden": true}
def least(costs, p):
    """The slowest stage's cost in the best of all cuts."""
    inner = combinations(range(1, len(costs)), p - 1)
    return min(max(stage_costs(costs, [0, *places, len(costs)])) for places in inner)


def cut_well(costs, p):
    """The slowest of p stages in the best cut: the smallest limit under which p stages are enough."""
    low, high = max(costs), sum(costs)
    while low < high:
        limit, stages, here = (low + high) // 2, 1, 0
        for cost in costs:
            if here + cost > limit:
                stages, here = stages + 1, 0
            here += cost
        low, high = (low, limit) if stages <= p else (limit + 1, high)
    return low


HINT = "a stage that is good by itself may spoil what is left: compare all places where the last stage can begin"

with check("9.1") as c:
    c.equal(
        "slowest stage",
        {name: slowest(*model, cut(list(model[0]), model[1])) for name, model in layers(seed()).items()},
        lambda: {name: least(*model) for name, model in layers(seed()).items()},
        hint=HINT,
    )
    found, seconds = cut_large(cut, seed())
    c.at_most(
        "seconds for 96 layers",
        seconds,
        lambda: TIME,
        hint="the same smaller task comes up again and again: solve it once and keep it, for each number of layers and stages",
    )
    c.equal("slowest of 16 stages of 96 layers", found, lambda: cut_well(large(seed()), 16), hint=HINT)

# %% [markdown]
# ## 9.2 1F1B as data
#
# Write the schedule 1F1B: for each rank $r$, which has stage $r$, the list of its actions in order. `Action("F", r, i)` is the forward of micro-batch $i$ on stage $r$,
# `Action("B", r, i)` its backward. (`course_lib.schedules` has it ready-made; here you write it.)
#
# A rank warms up with forwards, then does a forward and a backward in turn, then the backwards that are left. How many forwards is the question: so few that little is held,
# so many that nobody waits. There may be fewer micro-batches than ranks.
#
# Cost, with a backward twice as long as a forward: **a bubble of exactly $(p-1)/m$, and at most $\min(m, p - r)$ micro-batches held on rank $r$.** GPipe has the
# same bubble and holds all $m$.
#
# See for yourself: the cell below your answer puts it into the arena. Your row must have the makespan and the bubble of GPipe, and hold 4 3 2 1; in the
# picture the last rank does forward and backward in turn without a gap, and rank 0 four forwards before its first backward. Try other sizes:
# `look(my_1f1b, 4, 2)`, or `arena(schedules.gpipe(4, 8))`.


# %% id="support-9-2" jupyter={"source_hidden": true}
READY_MADE = "course_lib.schedules.loops", "course_lib.schedules.vee", "course_lib.viz", "torch"


def as_schedule(ranks):
    """Lists of actions as a Schedule."""
    return Schedule("yours", tuple(tuple(Action(*action) for action in actions) for actions in ranks))


def look(answer, p, m):
    """The answer's schedule in the arena: what is wrong with it, or how it does beside the known ones."""
    try:
        return arena(as_schedule(answer(p, m)))
    except Exception as error:
        print(f"{type(error).__name__}: {error}")


def sizes(number):
    """(p, m) to try."""
    return [(1, 3), (2, 5), (4, 2), (3, 3), (4, 8), (8, 20), (2 + number % 6, 1 + number % 13)]


def size(p, m):
    return f"p={p}, m={m}"


def misfit(schedule, p, m):
    """What is wrong with a schedule for p ranks and m micro-batches, or nothing."""
    found = schedule.num_ranks, schedule.num_stages, schedule.num_microbatches
    if found != (p, p, m):
        return "it has {} ranks, {} stages, {} micro-batches".format(*found)
    return str(schedules.check(schedule) or "")


def measured(answer, number):
    """Of each size: what hinders it, its bubble, and how many micro-batches each rank holds."""
    found = {"works": {}, "bubble": {}, "held": {}, "why": ""}
    for p, m in sizes(number):
        name, schedule = size(p, m), as_schedule(by_hand(answer, *READY_MADE)(p, m))
        why = misfit(schedule, p, m)
        found["works"][name] = why or "yes"
        found["why"] = found["why"] or why
        ran = None if why else simulate(schedule)
        found["bubble"][name] = ran.bubble if ran else "none"
        found["held"][name] = list(ran.peak_activations) if ran else "none"
    return found


def build(number):
    """A model of eight layers, with fresh random weights."""
    torch.manual_seed(number)
    return nn.Sequential(*(layer for _ in range(4) for layer in (nn.Linear(5, 5), nn.Tanh()))).double()


def batch(number):
    """Samples and targets, (40, 5) both."""
    generator = torch.Generator().manual_seed(number)
    return tuple(torch.randn(40, 5, generator=generator, dtype=torch.float64) for _ in range(2))


def rank_runs(answer, number):
    """On one of 3 ranks: the schedule at work; the gradients of this rank's stage."""
    found = {}
    for m in (2, 5, 8):
        schedule = as_schedule(answer(3, m))
        mine = pipeline_stages(build(number), schedule)
        run_pipeline(mine, *batch(number), F.mse_loss, m, schedule)
        found[f"m={m}"] = {
            name: p.grad for stage in mine.values() for name, p in stage.named_parameters()
        }
    return found


def gradients_of_3(answer, number):
    """What the ranks found, put together."""
    run = launch(rank_runs, 3, answer, number, timeout_s=30)
    return {m: {name: grad for rank in run for name, grad in rank[m].items()} for m in run[0]}


def gradients_of_1(number):
    model, (x, y) = build(number), batch(number)
    F.mse_loss(model(x), y).backward()
    grads = {name: p.grad for name, p in model.named_parameters()}
    return {f"m={m}": grads for m in (2, 5, 8)}


# %% id="answer-9-2"
def my_1f1b(p, m):
    """A list of actions for each of p ranks."""
    ### BEGIN SOLUTION 9.2: 1F1B as data
    ### HINT the last rank can begin a backward after its first forward. How many forwards more does the rank above it need, until that backward reaches it?
    ranks = []
    for rank in range(p):
        warm_up = min(p - 1 - rank, m)
        actions = [Action("F", rank, i) for i in range(warm_up)]
        for i in range(m):
            if warm_up + i < m:
                actions.append(Action("F", rank, warm_up + i))
            actions.append(Action("B", rank, i))
        ranks.append(actions)
    return ranks
    ### END SOLUTION


# %% id="see-9-2"
look(my_1f1b, 4, 8)

# %% id="check-9-2" jupyter={"source_hidden": true}
with check("9.2") as c:
    found = measured(my_1f1b, seed())
    c.equal(
        "can be carried out",
        found["works"],
        lambda: {size(p, m): "yes" for p, m in sizes(seed())},
        hint="stage r on rank r, each action once, nobody waiting for ever: look(my_1f1b, 4, 8), or the size named here, shows the place",
    )
    c.equal(
        "bubble",
        found["bubble"],
        lambda: {size(p, m): (p - 1) / m for p, m in sizes(seed())},
        hint="p − 1 − r forwards before the first turn, then one forward and one whole backward in turn: with other numbers some rank waits in every turn",
    )
    c.equal(
        "micro-batches held",
        found["held"],
        lambda: {size(p, m): [min(m, p - r) for r in range(p)] for p, m in sizes(seed())},
        hint="as fast, but it holds too much: do a backward as soon as one can be, after p − 1 − r forwards and one more. With m of them first it is GPipe",
    )
    c.equal(
        "gradients on 3 real ranks",
        "none" if found["why"] else gradients_of_3(my_1f1b, seed()),
        lambda: gradients_of_1(seed()),
        hint="the schedule was run by run_pipeline: does every micro-batch go forward and back once?",
    )

# %% [markdown]
# What you wrote was drawn, checked, simulated and run, all as the same list.
#
# ## 9.3 A bubble and a memory limit
#
# Now choose. `makers` are the schedules at hand, each a function of $(p, m)$ such as `schedules.gpipe`; some raise `ValueError` for some $m$. `costs` says how long the **whole part
# of a rank** takes for one micro-batch: `costs.forward_s`, `costs.backward_s` and, where a backward is in two parts, `costs.input_s` and `costs.weight_s`; and
# `costs.message_s`, the time of a message.
#
# Return the schedule with the fewest micro-batches, $m$ from 1 to `MOST`, whose bubble is at most `target` and for which **no rank ever holds more activations than those of
# `limit` micro-batches** through its whole part. Where several schedules do it with the same $m$, any of them; where none does, `None`.
#
# A schedule with $v$ chunks has $p\,v$ stages. Of what a rank's part takes and holds, a stage takes and holds $1/v$; its message takes as long as any. `simulate(schedule, costs)`
# wants the costs of a *stage*, and its `peak_activations` counts those of a *stage*. It also gives `bubble`.
#
# See for yourself: print the `simulate(...)` of your choice; then the same schedule with $m - 1$ must fail one of the two, and so must the others. By the formulas, with four
# ranks and no message time, a bubble of 0.2 takes 15 micro-batches with 1F1B and 8 with two chunks.


# %% id="support-9-3" jupyter={"source_hidden": true}
MOST = 16  # micro-batches: with more of them the batch would be too large


def in_2(p, m):
    return schedules.interleaved(p, m, 2)


def in_4(p, m):
    return schedules.interleaved(p, m, 4)


WHOLE = [schedules.gpipe, schedules.one_f_one_b, in_2, in_4]
SPLIT = [schedules.zb_h1, schedules.zb_v, schedules.dualpipe_v]


def wishes(number):
    """For each case: makers, p, costs, limit, target."""
    draw = random.Random(number)
    even, slow = Costs(1, 2, 1, 1), Costs(1, 2, 1, 1, message_s=0.5)
    off = draw.randint(1, 9) / 10_000  # no target is hit to the last digit
    found = {
        "memory to spare": ([schedules.gpipe, schedules.one_f_one_b], 4, even, 16, 0.25 + off),
        "memory for p": ([schedules.gpipe, schedules.one_f_one_b, in_2], 4, even, 4, 0.2 + off),
        "only interleaved will do": (WHOLE, 4, even, 6, 0.1 + off),
        "messages cost time": (WHOLE, draw.choice([3, 4]), slow, 7, 0.35 + off),
        "only zero bubble will do": (WHOLE + SPLIT, 3, even, 3, 0.04 + off),
        "half of a micro-batch is over": ([in_2, schedules.one_f_one_b], 2, even, 2, 0.15 + off),
        "out of reach": (WHOLE, 4, even, 4, 0.05 + off),
    }
    for i in range(3):
        input_s, weight_s = draw.choice([0.5, 1, 1.5]), draw.choice([0.5, 1, 1.5])
        costs = Costs(1, input_s + weight_s, input_s, weight_s, draw.choice([0, 0.25, 0.5]))
        p, makers = draw.choice([2, 3, 4]), draw.sample(WHOLE + SPLIT, 4)
        found[f"random {i}"] = (makers, p, costs, draw.randint(p, 2 * p), draw.randint(15, 70) / 100 + off)
    return found


def judged(wish, schedule):
    """How many micro-batches a choice takes, or why it is none."""
    makers, p, costs, limit, target = wish
    if schedule is None:
        return "none"
    m, v = schedule.num_microbatches, schedule.num_stages // p
    if not any(made(maker, p, m) == schedule.actions for maker in makers):
        return f"{schedule.name} is not one of the makers'"
    ran = simulate(schedule, of_a_stage(costs, v))
    if max(ran.peak_activations) > limit * v:
        return f"{schedule.name} holds {max(ran.peak_activations) / v:g}, the limit is {limit}"
    return m if ran.bubble <= target else f"{schedule.name} has a bubble of {ran.bubble:.3f}, not {target:.3f}"


def made(maker, p, m):
    try:
        return maker(p, m).actions
    except ValueError:
        return None


def of_a_stage(costs, v):
    parts = costs.forward_s, costs.backward_s, costs.input_s, costs.weight_s
    return Costs(*(seconds / v for seconds in parts), costs.message_s)


# %% id="answer-9-3"
def choose(makers, p, costs, limit, target):
    """The schedule with the fewest micro-batches that keeps to both, or None."""
    ### BEGIN SOLUTION 9.3: reach a bubble within a memory limit
    ### HINT for each m, each maker; v = schedule.num_stages // p. Divide the costs by v, and count against limit * v
    for m in range(1, MOST + 1):
        for make in makers:
            try:
                schedule = make(p, m)
            except ValueError:  # not for this m
                continue
            v = schedule.num_stages // p
            parts = costs.forward_s, costs.backward_s, costs.input_s, costs.weight_s
            ran = simulate(schedule, Costs(*(seconds / v for seconds in parts), costs.message_s))
            if ran.bubble <= target and max(ran.peak_activations) <= limit * v:
                return schedule
    return None
    ### END SOLUTION


# %% id="check-9-3" jupyter={"source_hidden": true}
def fewest(makers, p, costs, limit, target):
    """How many micro-batches it takes."""
    for m in range(1, MOST + 1):
        for maker in makers:
            if made(maker, p, m) and judged(([maker], p, costs, limit, target), maker(p, m)) == m:
                return m
    return "none"


with check("9.3") as c:
    hints = {
        "memory to spare": "the fewest micro-batches with which any schedule at hand keeps to both; the bubble is idle time by work",
        "memory for p": "no rank may hold more than limit: the most of peak_activations over the ranks, times 1/v (GPipe holds all m)",
        "only interleaved will do": "a stage holds 1/v of what a rank's part does: hold peak_activations against limit * v",
        "messages cost time": "a stage's forward and backward take 1/v of the rank's, and its message takes message_s, undivided",
        "only zero bubble will do": "input_s and weight_s go into the Costs of a stage; a maker that raises ValueError for one m may do for the next",
        "half of a micro-batch is over": "five halves are more than two: do not round what is held down",
        "out of reach": "None, when no schedule does it with up to MOST micro-batches",
    }
    for name, wish in wishes(seed()).items():
        c.equal(
            name,
            judged(wish, choose(*wish)),
            lambda wish=wish: fewest(*wish),
            hint=hints.get(name, "try every maker with m before you go on to m + 1"),
        )

# %% [markdown]
# ## 9.4 Carry it out
#
# Last, one rank's part of a step, with messages by hand. Rank $r$ of $p$ has `stage`, a module of some layers, and `actions`, its row of a schedule with one stage a rank: each has
# a `kind`, "F" or "B", and a `microbatch`. Every rank calls your function; it goes through its actions in order:
#
# - **Forward** of micro-batch $i$: its input is `inputs[i]` on the first rank, elsewhere what the rank above sends. The output goes to the rank below; the last rank makes of it
#   `F.mse_loss(output, targets[i])`, scaled so that all $m$ together are the mean over the batch.
# - **Backward**: from the loss on the last rank, elsewhere from the gradient that the rank below sends. The gradient of the input goes to the rank above.
#
# Return the loss of the batch on the last rank, `None` elsewhere; gradients stay in the parameters' `.grad`. What goes from rank to rank is always of `shape`, $(b/m, h)$, in float64.
# `inputs` is `None` but on the first rank, `targets` but on the last.
#
# Cost: one message a micro-batch, border and direction, of $b/m \cdot h$ numbers, no other communication. **When a backward begins, a rank holds no micro-batch that has been all the
# way back**: with 1F1B's actions, at most $\min(m, p - r)$.
#
# `dist.send` returns when the other side receives. In GPipe somebody always does. In 1F1B two neighbours may be sending to each other, and then neither ever receives:
# `work = dist.isend(tensor, to)` goes on at once; `work.wait()` later.
#
# See for yourself: `run = launch(rank_carries, 4, carry_out, [(schedules.gpipe, 3)], 0)`. The values in `run[3]` must be those of `one_process(4, [(schedules.gpipe, 3)], 0)[3]`;
# then with `schedules.one_f_one_b`. `run.trace` shows who sent when.


# %% id="support-9-4" jupyter={"source_hidden": true}
ROWS, WIDTH = 2, 6  # b/m and h


class Held:
    """Stays as long as the graph of one forward does."""


class Noted(torch.autograd.Function):
    """Changes nothing; tells the stage when backward comes by."""

    @staticmethod
    def forward(ctx, x, stage):
        ctx.stage, ctx.held = stage, Held()
        stage.graphs.append(weakref.ref(ctx.held))
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        ctx.stage.look()
        return grad, None


class Stage(nn.Module):
    """Two layers that know how many micro-batches are held: those whose graph or input still exists."""

    def __init__(self, rank, number, own_inputs):
        super().__init__()
        torch.manual_seed(100 * number + rank)
        self.layers = nn.Sequential(nn.Linear(WIDTH, 9), nn.Tanh(), nn.Linear(9, WIDTH)).double()
        self.graphs, self.inputs, self.peak, self.own_inputs = [], [], 0, own_inputs

    def forward(self, x):
        if torch.is_grad_enabled() and not self.own_inputs:
            self.inputs.append(weakref.ref(x))
        return Noted.apply(self.layers(x), self)

    def look(self):
        held = (sum(one() is not None for one in kind) for kind in (self.graphs, self.inputs))
        self.peak = max(self.peak, *held)


def samples(m, number):
    """Inputs and targets of m micro-batches."""
    generator = torch.Generator().manual_seed(number + m)
    x, y = torch.randn(2, m, ROWS, WIDTH, generator=generator, dtype=torch.float64)
    return list(x), list(y)


def rank_carries(answer, cases, number):
    """On a rank, for each case: loss, gradients, and how many micro-batches it held."""
    rank, p, found = dist.get_rank(), dist.get_world_size(), []
    mine = by_hand(answer, "course_lib.parallel", "torch.distributed.pipelining")
    for make, m in cases:
        stage, (inputs, targets) = Stage(rank, number, rank == 0), samples(m, number)
        loss = mine(
            make(p, m).actions[rank],
            stage,
            inputs if rank == 0 else None,
            targets if rank == p - 1 else None,
            m,
            (ROWS, WIDTH),
        )
        grads = [p.grad for p in stage.parameters()]
        loss = "None" if loss is None else loss.item() if torch.is_tensor(loss) else loss
        found.append({"loss": loss, "gradients": grads, "held": stage.peak})
        dist.barrier()
    return found


def one_process(p, cases, number):
    """What each of p ranks should have found."""
    found = [[] for _ in range(p)]
    for _, m in cases:
        stages = [Stage(rank, number, True) for rank in range(p)]
        x, y = map(torch.cat, samples(m, number))
        loss = F.mse_loss(nn.Sequential(*stages)(x), y)
        loss.backward()
        for rank, stage in enumerate(stages):
            grads = [p.grad for p in stage.parameters()]
            found[rank].append({"loss": loss.item() if rank == p - 1 else "None", "gradients": grads})
    return found


CASES = {
    1: [(schedules.one_f_one_b, 3)],
    3: [(schedules.gpipe, 4), (schedules.one_f_one_b, 2), (schedules.one_f_one_b, 7)],
}


def only(name, runs):
    """One result of every rank and case."""
    return {f"p={p}": [[case[name] for case in rank] for rank in run] for p, run in runs.items()}


def sendings(run):
    """All that was sent: messages, and collectives other than the barrier between two cases."""
    return [e for e in run.trace.events if e.is_send or (e.kind == "collective" and e.operation != "barrier")]


# %% id="answer-9-4"
def carry_out(actions, stage, inputs, targets, m, shape):
    """One rank's part of a step; the loss of the batch on the last rank."""
    ### BEGIN SOLUTION 9.4: carry a schedule out by hand
    ### HINT keep (x, y) of micro-batch i in a dict at its forward, and pop it at its backward: y.backward(gradient) leaves x.grad. What arrives needs .requires_grad_()
    rank, last = dist.get_rank(), dist.get_world_size() - 1
    live, works, loss = {}, [], 0
    for kind, _, i in actions:
        arriving = torch.empty(shape, dtype=torch.float64)
        if kind == "F":
            if rank > 0:
                dist.recv(arriving, rank - 1)
            x = inputs[i] if rank == 0 else arriving.requires_grad_()
            y = stage(x)
            if rank == last:
                y = F.mse_loss(y, targets[i]) / m
                loss += y.detach()
            else:
                works.append(dist.isend(y.detach(), rank + 1))
            live[i] = x, y
        else:
            if rank < last:
                dist.recv(arriving, rank + 1)
            x, y = live.pop(i)
            y.backward(None if rank == last else arriving)
            if rank > 0:
                works.append(dist.isend(x.grad, rank - 1))
    for work in works:
        work.wait()
    return loss if rank == last else None
    ### END SOLUTION


# %% id="check-9-4" jupyter={"source_hidden": true}
with check("9.4") as c:
    runs = {p: launch(rank_carries, p, carry_out, cases, seed(), timeout_s=20) for p, cases in CASES.items()}
    c.equal(
        "gradients",
        only("gradients", runs),
        lambda: only("gradients", {p: one_process(p, cases, seed()) for p, cases in CASES.items()}),
        hint="a micro-batch's loss over m, on the last rank only; back goes x.grad of the same micro-batch; in .grad they add up by themselves",
    )
    c.equal(
        "loss",
        only("loss", runs),
        lambda: only("loss", {p: one_process(p, cases, seed()) for p, cases in CASES.items()}),
        hint="on the last rank the sum of the m scaled losses, None elsewhere",
    )
    for rank in range(3):
        c.at_most(
            f"micro-batches held by rank {rank} of 3",
            runs[3][rank][-1]["held"],
            lambda rank=rank: 3 - rank,
            hint="right, but it holds too much: keep to the order of `actions`, and let go of x and y at backward, by live.pop(i)",
        )
    c.at_most(
        "messages",
        sum(len(sendings(run)) for run in runs.values()),
        lambda: sum(2 * m * (p - 1) for p, cases in CASES.items() for _, m in cases),
        hint="right, but too many messages: one forward and one back for each micro-batch and border, and no collective",
    )
    c.at_most(
        "bytes",
        round(sum(e.ring_bytes for run in runs.values() for e in sendings(run))),
        lambda: sum(2 * m * (p - 1) * ROWS * WIDTH * 8 for p, cases in CASES.items() for _, m in cases),
        hint="right, but too dear: a message is one micro-batch's activation or its gradient, (b/m, h)",
    )

# %% [markdown]
# That is all there is in a pipeline: a list, two kinds of messages, and a dict of what is live. `run_pipeline` does the same with any schedule, and receives ahead while it computes.
#
# To go on: keep only `x` at the forward, run the stage again at the backward, and see what rank 0 holds then.
