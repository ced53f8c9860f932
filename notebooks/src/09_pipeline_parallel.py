# %% [markdown]
# # 09 · Pipeline parallel
#
# In three quarters of an hour you will be able to
#
# - cut a model by its layers over ranks, and see what that alone gains,
# - derive the bubble, measure it, and say how many micro-batches it takes to make it small,
# - write a schedule down as data: the list that is drawn, simulated and run is one and the same,
# - choose among GPipe, 1F1B, interleaved and zero-bubble schedules by bubble, memory and messages.
#
# You need [chapter 00](00_start_here.ipynb): send and receive; [chapter 02](02_memory_wall.ipynb): what activations are; and [chapter 05](05_data_parallel.ipynb): accumulating gradients. The lesson follows section 8.2.3 of
# [the source](../README.md#where-it-comes-from) and starts exactly there.
#
# **The question:** layers T1 and T2 on one device, T3 and T4 on another. *Two devices: twice as fast?*
#
# Here are four, and a batch in four pieces. Grey is idle. What do more micro-batches change, what more ranks?

# %% jupyter={"source_hidden": true}
from course_lib.viz import pipeline

pipeline("GPipe", p=4, m=4)

# %%
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from course_lib import Link, launch
from course_lib.data import text_batch
from course_lib.memory import MemoryMeter
from course_lib.models.gpt import GPT
from course_lib.viz import predict, schedule_picture, tally

# %% [markdown]
# ## The relay
#
# Four layers, in float64. In one process first; that is the truth.

# %%
torch.manual_seed(0)
T1, T2, T3, T4 = (nn.Sequential(nn.Linear(16, 16), nn.Tanh()).double() for _ in range(4))
x, target = torch.randn(2, 8, 16, dtype=torch.float64)  # 8 samples each

F.mse_loss(T4(T3(T2(T1(x)))), target).backward()
truth = [layer[0].weight.grad.clone() for layer in (T1, T2, T3, T4)]

# %% [markdown]
# Now as the source has it: rank 0 has T1 and T2, rank 1 has T3 and T4. Rank 0 computes, hands its result on, and rank 1 goes on with it. Backward the other way: rank 1 hands back the gradient of what
# it was given.


# %%
def relay_by_hand():
    if dist.get_rank() == 0:
        y = T2(T1(x))
        dist.send(y.detach(), 1)
        grad = torch.empty_like(y)
        dist.recv(grad, 1)
        y.backward(grad)  # from here on it is as if rank 1's layers were there
        return T1[0].weight.grad, T2[0].weight.grad
    y = torch.empty_like(x)
    dist.recv(y, 0)
    y.requires_grad_()
    F.mse_loss(T4(T3(y)), target).backward()
    dist.send(y.grad, 0)
    return T3[0].weight.grad, T4[0].weight.grad


# %% tags=["nbval-check-output"]
for layer in (T1, T2, T3, T4):
    layer.zero_grad()
grads = [grad for rank in launch(relay_by_hand, 2) for grad in rank]
print("the gradients of one process:", all(map(torch.allclose, grads, truth)))

# %% [markdown]
# Right at once. Two messages; no collective at all; each rank holds half of the weights, gradients and optimizer state. As a way to *fit* a model this is as simple as it gets. And the time?
#
# To see it, the layers have to take a while, and your machine may have fewer cores than we will have ranks. So we **emulate compute**: each piece of work really happens, small as it is, and then
# the rank sleeps until the stated time is over. Sleeping needs no core. (The pictures say "emulated".)

# %%
from course_lib.parallel.pipeline import run_pipeline
from course_lib.parallel.stages import cut
from course_lib.schedules import check, dualpipe_v, gpipe, interleaved, one_f_one_b, parse, relay, zb_h1, zb_v
from course_lib.schedules.simulation import Costs, measured, simulate


def small_layers(num_stages):
    return cut(nn.Sequential(*(nn.Linear(4, 4) for _ in range(num_stages))), num_stages)


def emulated(schedule, costs, samples=16):
    """On a rank: one batch through the schedule, with actions that last as long as costs say."""
    parts, rank = small_layers(schedule.num_stages), dist.get_rank()
    mine = {s: parts[s] for s, owner in schedule.rank_of.items() if owner == rank}
    x = torch.ones(samples, 4)
    dist.barrier()
    run_pipeline(mine, x, x, F.mse_loss, schedule.num_microbatches, schedule, emulate=costs)


# %% jupyter={"source_hidden": true}
predict(
    "One device takes 1.2 s for a batch, forward and backward. How long do two devices take, each with "
    "half of the layers?",
    {
        "0.6 s": (
            "Half of the work each would be half of the time, if both worked at once. But rank 1 has no "
            "input until rank 0 is done."
        ),
        "0.9 s": (
            "With two devices some gain seems sure. But it needs a time when both compute, and the batch "
            "is with one of them at a time."
        ),
        "1.2 s": (
            "Each device does half of the work, but one after the other: while one computes, the other "
            "has nothing to compute on."
        ),
    },
    right=2,
)

# %%
half_a_model = Costs(forward_s=0.2, backward_s=0.4)  # backward takes about twice as long
run = launch(emulated, 2, relay(2), half_a_model)
print(f"{measured(relay(2), run.trace).makespan_s:.2f} s")
run.trace

# %% [markdown]
# **One of the two always waits.** While rank 0 computes, rank 1 has nothing to compute on, and the other way round. With $p$ ranks each works for a $p$-th of the time. The source shows this relay, and stops here.

# %% [markdown]
# ## Micro-batches
#
# Rank 1 waits for *all* of the batch. But the samples do not need each other: cut the batch into $m$ micro-batches, and hand on the first as soon as it is done. Then rank 0 does the second one while rank 1 does the first.
#
# That is a plan: who does what, in which order. We write it down as **data**, a list of actions for each rank. A *stage* is a run of layers, here one on each rank. `0F3` is stage 0, forward, micro-batch 3; `1B0` is stage 1, backward, micro-batch 0.

# %% tags=["nbval-check-output"]
schedule = gpipe(p=2, m=4)
print(schedule)

# %% [markdown]
# First all forwards, then all backwards: that is GPipe (Huang et al. 2019). Nothing says *when*. A rank does its actions in order, and each as soon as what it needs has come. So if we say how long actions take, the times follow,
# without running anything:

# %%
quarter = Costs(forward_s=0.05, backward_s=0.1)  # of a batch that is cut in four
run = launch(emulated, 2, schedule, quarter)
schedule_picture({"simulated": simulate(schedule, quarter), "measured": measured(schedule, run.trace)})

# %% [markdown]
# 1.2 s have become 0.75. What is left of the waiting is called the **bubble**: the first rank waits for the last at the turn, the last for the first at both ends. Count it, in units of what a micro-batch takes on one rank, forward and backward together. Work is $m$ on each rank. Rank $r$ waits for $r$ forwards
# at the start and $r$ backwards at the end, of the ranks before it; and at the turn for a forward and a backward of each of the $p-1-r$ ranks behind it. Together: $p-1$ of each, on every rank. So
#
# $$ \text{bubble} = \frac{\text{waiting}}{\text{work}} = \frac{p-1}{m} $$

# %% [markdown]
# (Of the step's time it is $\frac{p-1}{m+p-1}$.)

# %% tags=["nbval-check-output"]
for p, m in ((2, 1), (2, 4), (4, 4), (4, 16), (16, 16), (16, 128)):
    print(f"p = {p:2d}, m = {m:3d}: bubble {simulate(gpipe(p, m)).bubble:.4f}   formula {(p - 1) / m:.4f}")

# %% [markdown]
# ### One batch, in pieces
#
# Is it still the gradient of the batch? The loss is a mean over samples, and with equal micro-batches a mean of their means. So each micro-batch's loss is divided by $m$, and gradients add up over micro-batches: that is gradient accumulation (chapter 05). A GPT on four ranks, for three steps:


# %%
def train(schedule_of, steps=3):
    """On a rank: train a GPT by a schedule for (ranks, 4 micro-batches); this rank's weights."""
    from course_lib.parallel.stages import parameters_of, pipeline_stages

    torch.manual_seed(dist.get_rank())  # other weights on every rank: rank 0's win
    schedule = schedule_of(dist.get_world_size(), 4)
    model = GPT(context=32, width=32, num_layers=8, num_heads=2).double()
    stages = pipeline_stages(model, schedule)
    optimizer = torch.optim.SGD(parameters_of(stages), lr=0.1)
    for step in range(steps):
        x, y = text_batch(step, 8, 32)
        optimizer.zero_grad()
        run_pipeline(stages, x, y, token_loss, 4, schedule)
        optimizer.step()
    return {name: w for stage in stages.values() for name, w in stage.state_dict().items()}


def token_loss(logits, tokens):
    return F.cross_entropy(logits.flatten(0, 1), tokens.flatten())


# %% tags=["nbval-check-output"]
one = launch(train, 1, gpipe)[0]
for schedule_of in (gpipe, one_f_one_b, zb_h1, zb_v):
    weights = {name: w for rank in launch(train, 4, schedule_of) for name, w in rank.items()}
    away = max((weights[name] - right).abs().max() for name, right in one.items())
    print(f"{schedule_of(4, 4).name:8s} as in one process, to 1e-10: {away < 1e-10}")

# %% [markdown]
# (The names are those of schedules to come.) One detail hides in there: GPT's head and its token embedding are *one* weight, and they lie at the two ends of the pipeline (on different ranks, except in a V). Each end has a part of its gradient; the two are added up, once a step, or the two copies part ways as in chapter 08.
#
# [`run_pipeline`](../course_lib/parallel/pipeline.py) is short, since it decides nothing. It takes the next action, waits for what that needs, does it, hands on the result.
#
# ## What GPipe holds
#
# More micro-batches, less bubble. So take very many? Each has to keep a size at which a device computes well (chapter 02), so more of them make a larger batch.

# %% jupyter={"source_hidden": true}
predict(
    "GPipe, p = 4, and 16 micro-batches in place of 4, of the same size. What becomes of the activations "
    "that rank 0 holds?",
    {
        "They stay as they are": (
            "It would be so if each micro-batch went forward and backward before the next one. GPipe "
            "does all forwards first, and holds them all."
        ),
        "They double": (
            "What is held would grow more slowly than their number if some were finished early. In GPipe "
            "none is: all 16 forwards come before the first backward."
        ),
        "They are four times as many": (
            "GPipe does all forwards before the first backward, so rank 0 holds the activations of all "
            "micro-batches at once: 16 in place of 4."
        ),
    },
    right=2,
)

# %% tags=["nbval-check-output"]
for m in (4, 16):
    print(f"m = {m:2d}: rank 0 holds {simulate(gpipe(4, m)).peak_activations[0]} micro-batches' activations")

# %% [markdown]
# Four times: rank 0 holds those of all 16, since forward of the last is done before backward of the first begins. (The paper recomputes them, for that reason.) What for? Backward of micro-batch 0 could start as soon as it has come through the last rank. Then its activations are free. A rank that has warmed up does **one forward, one backward**, in turn:

# %% tags=["nbval-check-output"]
print(one_f_one_b(p=2, m=4))

# %% jupyter={"source_hidden": true}
predict(
    "What does 1F1B do to the bubble of GPipe, when messages take no time?",
    {
        "It is smaller": (
            "1F1B saves memory, which is easily taken for time. The last rank still waits for p - 1 "
            "forwards at the start, and p - 1 backwards at the end."
        ),
        "It is the same": (
            "The first micro-batch still has to come to the last rank, and the last one back to the "
            "first. Only the order of the work in between differs."
        ),
        "It is larger": (
            "A forward has to wait for a backward, but meanwhile the rank does one that GPipe does "
            "later. It is larger only when messages take time."
        ),
    },
    right=1,
)

# %%
schedule_picture(simulate(gpipe(4, 16)), simulate(one_f_one_b(4, 16)))

# %% [markdown]
# The same bubble, and the memory of $p - r$ micro-batches on rank $r$, *however many there are*. 1F1B is not faster. It allows more micro-batches in the same memory, and those make it faster. Measured, with real activations:


# %%
def peak(make, p=4, m=16):
    """On a rank: MB of activations at the worst moment."""
    from course_lib.parallel.stages import pipeline_stages

    schedule = make(p, m)
    stages = pipeline_stages(GPT(context=32, width=32, num_layers=4, num_heads=2), schedule)
    x, y = text_batch(0, 2 * m, 32)
    with MemoryMeter(stages[dist.get_rank()]) as meter:
        run_pipeline(stages, x, y, token_loss, m, schedule)
    return meter.peak_of.activations / 2**20


for make in (gpipe, one_f_one_b):
    row = "".join(f"{mb:8.2f}" for mb in launch(peak, 4, make))
    print(f"{make(4, 16).name:6s} MB on ranks 0 to 3:{row}")

# %% [markdown]
# (With other things, messages and gradients on their way, so it is not quite 4 to 1 on rank 0. The last rank also has logits: of every micro-batch in GPipe, of one in 1F1B.)

# %% [markdown]
# ## Less bubble without more micro-batches
#
# The bubble is $p-1$ times what a micro-batch takes on a *stage*. Make stages smaller: give each rank $v$ thin slices of the model in place of one thick one, ranks in turn: with $p = 2$, $v = 2$, rank 0 has stages 0 and 2, rank 1 has 1 and 3. The way through all ranks is $v$ times shorter now. This is **interleaved 1F1B**
# (Narayanan et al. 2021, section 2.2):
#
# $$ \text{bubble} = \frac{p-1}{v\,m} $$

# %% tags=["nbval-check-output"]
print("p = 4, m = 16   bubble  formula   held at most   borders a micro-batch crosses, each way")
for v in (1, 2, 4):
    made = interleaved(4, 16, v) if v > 1 else one_f_one_b(4, 16)
    result = simulate(made, Costs(1 / v, 2 / v))  # a slice takes a v-th
    held = max(result.peak_activations) / v  # in micro-batches of a whole rank
    print(f"  v = {v}        {result.bubble:8.4f}{3 / (v * 16):9.4f}{held:12.2f}{made.num_stages - 1:9d}")

# %% [markdown]
# The price: $\frac{vp-1}{p-1}$ times the messages, which is more than $v$, and more activations.
#
# ### Two backwards
#
# Look closely at backward. It makes two gradients, of the *input*, which the rank before is waiting for, and of the *weights*, which nobody waits for until the optimizer's step. In a linear layer they are two products, equally large. **Split them**: `I` at once, and `W` when there is nothing better to do, in what would have been bubble (Qi et al.
# 2023, "zero bubble"). With $F$, $I$ and $W$ equally long:

# %%
for made in (one_f_one_b(4, 8), zb_h1(4, 8), zb_v(4, 8), dualpipe_v(4, 8)):
    costs = Costs(1, 2) if made.num_stages == 4 else Costs(0.5, 1)
    result = simulate(made, costs)
    held = max(result.peak_activations) / (made.num_stages // 4)  # those of a thinner stage count less
    print(f"{made.name:10s} bubble {result.bubble:.4f}, held at most {held:.1f} micro-batches")

# %% [markdown]
# **ZB-H1** is 1F1B with the backward in two: a third of the bubble, and the same memory. **ZB-V** bends the pipeline into a V, down the ranks and up again, so that the last stage lies on rank 0: backward starts where forward ended, and no rank is idle between its first action and its last. What is left is that ranks start and end at different times; with one step after the other, the next can begin there. **DualPipeV** (DeepSeek-AI 2024, section 3.2.1) runs the two directions side by side, to hide the messages of one behind
# the other's computing. Try them. Hover over an action to see what it waited for:

# %%
pipeline("1F1B", p=4, m=8)

# %% [markdown]
# Things to try: GPipe and 1F1B, back and forth: what moves, and what does not? 1F1B with $m = 4$, then with 32. ZB-V, and then a message time that is not 0. And which schedule suffers most from messages?
#
# Is that picture true? The same lists on real ranks, with emulated compute over emulated links, beside their simulations:

# %%
costs, link = Costs(0.02, 0.04, message_s=0.005), Link(latency_s=0.005, bandwidth_gb_s=10)
print("4 ranks, 8 micro-batches     simulated   measured")
for made in (gpipe(4, 8), one_f_one_b(4, 8), interleaved(4, 8, 2), zb_h1(4, 8), zb_v(4, 8)):
    thin = costs if made.num_stages == 4 else replace(costs, forward_s=0.01, backward_s=0.02)
    took = measured(made, launch(emulated, 4, made, thin, link=link).trace)
    print(f"{made.name:28s}{simulate(made, thin).makespan_s:8.3f} s{took.makespan_s:9.3f} s")

# %% [markdown]
# One of them, action by action, simulated and as four real ranks ran it:

# %%
made = one_f_one_b(4, 8)
run = launch(emulated, 4, made, costs, link=link)
schedule_picture({"simulated": simulate(made, costs), "measured": measured(made, run.trace, costs)})

# %% [markdown]
# What is measured beyond the simulation is what starting actions, and your machine's other work, cost. Look at GPipe and 1F1B: with messages that take time they are no longer equal. In 1F1B a rank waits in every turn for a message that GPipe would have had long before.
#
# ## What it sends
#
# Across a border goes one activation forward and its gradient back: $2\,b\,s\,h$ numbers for a micro-batch of $b$ sequences. No more, however many layers a stage has. Compare with the tensor parallel $8bsh\frac{t-1}{t}$ for *each layer* (chapter 07). For a rank with $l/p$ layers of $72\,bsh^2$ operations a layer, and numbers of 2 bytes (with $t$ ranks a stage, each computes a $t$-th of that, and sends a $t$-th too if the stage's ranks share the message, as Megatron-LM's do):
#
# $$ \frac{\text{send}}{\text{compute}} = \frac{2\cdot 2\,bsh}{\text{network}} \Big/ \frac{72\,bsh^2\cdot l/p}{\text{FLOPS}} = \frac{\text{FLOPS}}{18\,h\,\frac lp\cdot\text{network}} $$

# %%
FLOPS, NETWORK = 0.45 * 312e12, 25e9  # as in chapters 05 to 08
for name, h, layers, p in (("GPT-3", 12288, 96, 16), ("1 trillion", 25600, 128, 64)):  # Narayanan et al.
    each = FLOPS / (18 * h * layers / p * NETWORK)
    print(f"{name:10s} {layers} layers, p = {p}: send / compute {each:.4f} between nodes")

# %% [markdown]
# Some thousandths, over the slow links. So **pipelines are what one takes across nodes**, and tensor parallel inside: chapter 11 puts both together.
#
# ## What the source leaves out
#
# - **Micro-batches**, without which there is no gain at all.
# - **The batch must be large**: $m$ of several $p$. With 64 stages and a bubble of a tenth, 630 micro-batches, or interleaving.
# - **Stages must be equal.** All wait for the slowest:

# %%
for name, forward in {"equal": [1, 1, 1, 1], "one slower by half": [1, 1, 1, 1.5]}.items():
    slow = Costs(forward, [2 * f for f in forward])
    result = simulate(one_f_one_b(4, 32), slow)
    idle = [round(result.makespan_s - work, 1) for work in result.work_s]
    print(f"{name:20s} {result.makespan_s:6.1f}   idle: {idle}")

# %% [markdown]
#   The ends are the usual suspects: the embedding is nearly free, and the head with its loss is not. Give the last stage fewer layers.
# - **The end of a step.** All schedules here drain before the optimizer's step, so they compute what one process computes. PipeDream (Narayanan et al. 2019) does not drain, has no bubble, and so a micro-batch meets weights of different steps.
#
# ## A schedule of your own
#
# A schedule is data, so write one. `check` says what is wrong with it, before anybody waits for ever. Read this one first: who waits for whom?

# %%
mine = parse("mine", ["0F0 0B0 0F1 0B1", "1F1 1F0 1B0 1B1"])
check(mine)

# %%
mine = parse("mine", ["0F0 0F1 0B1 0B0", "1F0 1F1 1B1 1B0"])
print(check(mine), "·", simulate(mine))

# %% [markdown]
# `None`: nothing is wrong with that one. In the exercise you write 1F1B in this way, and run it.
#
# ## PyTorch's own
#
# `torch.distributed.pipelining` has these schedules (ZB-H1 as its zero-bubble schedule with one chunk): [our tests](../tests/test_schedules.py) compare the orders, action by action. A stage is a `PipelineStage`, and a schedule is an object that runs.


# %%
def pytorch():
    from torch.distributed.pipelining import PipelineStage, Schedule1F1B

    torch.manual_seed(0)
    rank, p = dist.get_rank(), dist.get_world_size()
    module = cut(GPT(context=32, width=32, num_layers=8, num_heads=2, tied=False).double(), p)[rank]
    stage = PipelineStage(module, rank, p, torch.device("cpu"))
    x, y = text_batch(0, 8, 32)
    schedule, losses = Schedule1F1B(stage, n_microbatches=4, loss_fn=token_loss), []
    schedule.step(*([x] if rank == 0 else []), target=y, losses=losses)
    return {name: w.grad for name, w in module.named_parameters()}


def ours():
    torch.manual_seed(0)
    rank, p = dist.get_rank(), dist.get_world_size()
    module = cut(GPT(context=32, width=32, num_layers=8, num_heads=2, tied=False).double(), p)[rank]
    x, y = text_batch(0, 8, 32)
    run_pipeline({rank: module}, x, y, token_loss, 4, one_f_one_b(p, 4))
    return {name: w.grad for name, w in module.named_parameters()}


# %% tags=["nbval-check-output"]
pairs = zip(launch(pytorch, 4), launch(ours, 4))
away = max((a[name] - b[name]).abs().max() for a, b in pairs for name in b)
print(f"the same gradients, to 1e-12: {away < 1e-12}")

# %% [markdown]
# ## Where this ends
#
# - The bubble needs many micro-batches, and many micro-batches need a large batch.
# - A single layer that does not fit on a rank is not helped.
# - All ranks wait for the slowest stage, and for each other.

# %% [markdown]
# ## How well did you predict?

# %% jupyter={"source_hidden": true}
tally()

# %% [markdown]
# ## In six lines
#
# - Layers on different ranks, and nothing else, is a relay: one works, the others wait.
# - With $m$ micro-batches the bubble is $\frac{p-1}{m}$, for GPipe and for 1F1B.
# - GPipe holds $m$ micro-batches' activations, 1F1B $p - r$ on rank $r$.
# - Interleaved: $\frac{p-1}{vm}$, for more than $v$ times the messages. Zero bubble: weight gradients fill the gaps.
# - Sent is $2bsh$ for a border and micro-batch, whatever the stage holds: good across nodes.
# - A schedule is data: checked, drawn, simulated and run.
#
# | symbol | meaning |
# |---|---|
# | $p$, $r$ | ranks of the pipeline, one of them |
# | $m$ | micro-batches of a step |
# | $v$ | stages on each rank |
# | $F$; $B$; $I$, $W$ | forward; backward; its two parts, of the input and of the weights |
# | $b$, $s$, $h$, $l$ | sequences of a micro-batch, their length, width, layers |
#
# **To read**
#
# - Huang et al. 2019, [*GPipe*](https://arxiv.org/abs/1811.06965), section 2: micro-batches and recomputation.
# - Narayanan et al. 2021, [*Efficient Large-Scale Language Model Training*](https://arxiv.org/abs/2104.04473), section 2.2: 1F1B and interleaving. Look at figures 3 and 4.
# - Qi et al. 2023, [*Zero Bubble Pipeline Parallelism*](https://arxiv.org/abs/2401.10241), and 2024, [*Pipeline Parallelism with Controllable Memory*](https://arxiv.org/abs/2405.15362): the V.
#
# **Now you:** [the exercise](../exercises/09_pipeline_parallel.ipynb).
