# %% [markdown]
# # 12 · Choosing a layout
#
# In three quarters of an hour you will be able to
#
# - say which ways of cutting a model over a cluster are possible, and how many there are,
# - find the fastest one that fits, and say what limits it, and what limits any other,
# - judge a published choice, and a rule of thumb, by the same measure,
# - train one model through four interfaces of PyTorch and four of this course, and say what each asks of you and what it leaves out.
#
# You need [chapter 01](01_why_distributed.ipynb) for what is counted, and data, sharded, tensor and pipeline parallel: chapters [05](05_data_parallel.ipynb), [06](06_sharded_data_parallel.ipynb), [07](07_tensor_parallel.ipynb) and [09](09_pipeline_parallel.ipynb). The lesson is about the last sentence of section 8.2.4 of
# [the source](../README.md#where-it-comes-from): *the choice of strategy sets how efficiently a model is trained, and the interface of the framework sets how productive its engineer is*.
#
# **The question:** GPT-3, 1,024 GPUs, 1,536 sequences a step. *How many ways are there to do that, and does it matter which one you take?*
#
# Here is one way. It does not fit, but each of six changes would make it fit. Which of them costs least time?

# %% jupyter={"source_hidden": true}
from course_lib.cost.plan import Plan
from course_lib.viz import memory_estimator

memory_estimator("GPT-3 175B", "A100", Plan(pp=8, dp=16, tp=8, batch=1536))

# %%
import inspect
import statistics
import time
from collections import Counter
from dataclasses import replace
from functools import cache
from textwrap import fill

import torch
import torch.distributed as dist
from torch.nn import functional as F

from course_lib import launch, span
from course_lib.cost.candidate import MEGATRON_2021, MEGATRON_2022, TODAY, Tools, weigh
from course_lib.cost.hardware import SYSTEMS
from course_lib.cost.memory import memory_use
from course_lib.cost.planner import divisors, search
from course_lib.cost.published import MEGATRON, RUNS, SOFTWARE, megatron_gpt
from course_lib.cost.shapes import Transformer
from course_lib.cost.step_time import layer_time
from course_lib.data import text_batch
from course_lib.models.gpt import GPT
from course_lib.viz import parts, planner_explorer, predict, tally
from course_lib.viz.plots import new_plot

# %% [markdown]
# ## What a layout must satisfy
#
# Three numbers tell how a cluster of $n$ GPUs is cut: $p$ pipeline stages, $d$ data-parallel copies, $t$ tensor-parallel slices, with $p \cdot d \cdot t = n$. They are not free:
#
# - $p$ divides the layers;
# - $t$ divides the attention heads and the columns of the MLP, and it divides a node, since tensor parallel needs the fast links inside;
# - $d$, times the sequences of a micro-batch, divides the batch.
#
# And then the fullest GPU has to hold its part. A `Plan` is one way of doing it. Four of them for GPT-3, with its 96 layers; the second is the $64 \times 6 \times 8$ that the source names for it:

# %% tags=["nbval-check-output"]
gpt3, a100 = megatron_gpt("GPT-3 175B"), SYSTEMS["A100"]
again = {"batch": 1536, "recompute": "full"}  # forward is done a second time, to save memory
plans = [Plan(16, 8, 8, **again), Plan(64, 6, 8, 3072), Plan(1, 128, 8, **again)]
for plan in [*plans, Plan(16, 8, 8, 1536)]:
    try:
        gigabytes = memory_use(gpt3, plan).total / 1e9
        print(f"{plan.pp} × {plan.dp} × {plan.tp}: {gigabytes:.0f} GB on the first stage's GPUs")
    except ValueError as error:
        print(f"{plan.pp} × {plan.dp} × {plan.tp}: {error}")

# %% [markdown]
# The first is what was run (Narayanan et al. 2021). The second is not possible: those are the numbers of their trillion-parameter model, which has 128 layers. The third is legal, and far beyond the 80 GB of a GPU. The fourth is the first without recomputation, and leaves nothing to spare. How many ways are there?

# %% jupyter={"source_hidden": true}
predict(
    "GPT-3 on 1,024 GPUs: how many (p, d, t) cut the model, the nodes and a batch of 1,536?",
    {
        "1 or 2": (
            "The rules look strict, but sizes here are full of powers of two: six values of p and four "
            "of t keep them nearly always."
        ),
        "About 25": (
            "p must divide 96 and 1,024, so it is one of six; t is one of four. Of these 24 pairs 23 "
            "leave a d that divides the batch."
        ),
        "About 250": (
            "1,024 GPUs suggest many. But p can only be one of six numbers, and t one of four. Large "
            "numbers come with the other choices of a plan."
        ),
    },
    right=1,
)

# %% tags=["nbval-check-output"]
found = [
    (p, 1024 // (p * t), t)
    for t in (1, 2, 4, 8)
    for p in divisors(96)
    if 1024 % (p * t) == 0 and 1536 % (1024 // (p * t)) == 0
]
print(len(found), "layouts:", *found[:4], "…")

# %% [markdown]
# That is not many. But a layout is not yet a plan. Left to choose are
#
# - the **micro-batch** $b$, any divisor of $B/d$: large ones make kernels efficient, small ones make the bubble small;
# - the **schedule**: GPipe, 1F1B, interleaved with any $v$ that divides the layers of a stage, zero bubble (ZB-H1);
# - **recomputation**: none, of the attention cores alone, of everything;
# - the stage of **ZeRO**, 0 to 3, and whether the **sequence** is cut as well (chapters 06 and 08).
#
# All of them multiply. So we let a program look at each one:

# %%
software = SOFTWARE[MEGATRON]  # 1.19: how much longer kernels take than the hardware would allow
begin = time.perf_counter()
everything = search(gpt3, a100, num_gpus=1024, batch=1536, software=software)
print(f"{time.perf_counter() - begin:.2f} s")

# %% tags=["nbval-check-output"]
everything

# %% [markdown]
# Each line is a candidate: a plan (pp, dp and tp are $p$, $d$ and $t$; *interleaved, 12* has $v = 12$ pieces of the model on each stage; SP is sequence parallel), the memory it takes, the predicted time of a step, the share of the GPUs' peak that does the model's own arithmetic, and what costs most beyond that. Time and memory are those of [`step_time`](../course_lib/cost/step_time.py) and [`memory`](../course_lib/cost/memory.py), which are held to published measurements within 8 % (`course validate` prints them). Nothing
# has more than 64 of the 80 GB: the rest is for what nobody counts, libraries' buffers and an allocator's gaps. (By this count the largest published run below takes 58 GB; and one of 66 GB did not fit, which is why its authors recompute: Narayanan et al. 2021, section 5.6.)
#
# How does it look at so many in so little time? Memory is a sum of two parts, state and activations, and most candidates share both with others. It grows with the micro-batch, so when the most thrifty candidate of a layout does not fit, larger micro-batches need not be looked at. And time is only worked out for what fits.

# %% [markdown]
# ## Does it matter?

# %% jupyter={"source_hidden": true}
predict(
    "3,956 candidates train the same model on the same GPUs, and all fit. How many times as long does the "
    "slowest take as the fastest?",
    {
        "About 1.3 times": (
            "All do the same arithmetic, but they wait and recompute very differently: half of them take "
            "at least 1.6 times as long as the fastest."
        ),
        "About 3 times": (
            "Half of them take 1.6 times as long or less. But a bubble has no such limit: with 32 stages "
            "and 3 micro-batches it is ten times the work."
        ),
        "About 15 times": (
            "14 times. The slowest has 32 stages and only 3 micro-batches, so that its bubble is (32 - "
            "1)/3, ten times the work."
        ),
        "About 100 times": (
            "What costs most here is the bubble. With the most stages, 32, and only 3 micro-batches it "
            "is ten times the work, not a hundred times."
        ),
    },
    right=2,
)

# %% tags=["nbval-check-output"]
best, last = everything.best, everything.candidates[-1]
middle = everything.candidates[everything.num_fit // 2]
near = sum(c.total_s < 1.1 * best.total_s for c in everything.candidates)
print(f"fastest {best.total_s:.1f} s, slowest {last.total_s:.0f} s:", end=" ")
print(f"{last.total_s / best.total_s:.0f} times as long")
print(f"half of them take at least {middle.total_s / best.total_s:.1f} times as long")
print(f"within a tenth of the fastest: {near} of {everything.num_fit:,}")
print(f"the slowest: {last.layout}, m = {last.plan.num_microbatches}, b = {last.plan.microbatch}")

# %% [markdown]
# **The choice of strategy sets the efficiency**: the first half of the source's sentence is right, and by a large factor. (The slowest has 32 stages and 3 micro-batches: nearly all of it is bubble.) Here is the best of each $p$ and $t$; $d$ is what is left.

# %%
axes = new_plot("pipeline stages p", "seconds of a step", "the best of each layout", log=True)
layouts = everything.best_by("tp", "pp")
for tp, style in {1: "-", 2: "--", 4: ":", 8: "-."}.items():
    line = sorted((pp, c.total_s) for (t, pp), c in layouts.items() if t == tp)
    axes.plot(*zip(*line), style, marker="", label=f"t = {tp}")
ticks, seconds = [1, 2, 4, 8, 16, 32], [15, 20, 30, 50]
axes.set(xscale="log", xticks=ticks, xticklabels=ticks, yticks=seconds, yticklabels=seconds)
axes.minorticks_off()
axes.legend();

# %% [markdown]
# A shallow valley. With the rest chosen well, many layouts come within a few percent of the best. Its walls are on both sides: with few stages and slices everything has to be sharded and recomputed to fit, and many have a bubble, or messages.

# %% [markdown]
# ## What limits each
#
# A step is forward and backward of the model itself, and what comes on top. For the best candidate of each $t$:

# %%
rows = {f"t = {t}, p = {c.plan.pp}": c for (t,), c in sorted(everything.best_by("tp").items())}
steps = {
    name: {"forward and backward": c.total_s - sum(c.losses.values()), **c.losses} for name, c in rows.items()
}
parts(steps, title="Where the time of a step goes")

# %% [markdown]
# (*Forward and backward* is the model's own arithmetic.) Nothing is free, and every cut pays in another coin. More tensor parallel: messages in every layer, and smaller matrices. Less of it: more memory on each GPU, so more recomputation, or more stages with their bubble. Ask why a plan is not the best, and the answer is in these coins:

# %% tags=["nbval-check-output"]
published = Plan(16, 8, 8, 1536, recompute="full", overlap_gradients=True)
better = replace(published, pp=8, dp=16, sequence_parallel=True, recompute="selective", zero=1)
for plan in (published, better, Plan(1, 128, 8, 1536, 12, zero=3), Plan(16, 4, 16, 1536)):
    print(fill(f"{plan.pp} × {plan.dp} × {plan.tp}. {everything.why_not(plan)}", 96), "\n")

# %% [markdown]
# What limits them, over all that fit?

# %% tags=["nbval-check-output"]
for limit, count in Counter(c.limit for c in everything.candidates).most_common():
    print(f"{count:6,} {limit}")

# %% [markdown]
# And now all of them by themselves: memory, time, and, by the shape and colour of a mark, what limits it. Filter, and choose a mark to see its plan and where it loses:

# %% id="planner-explorer"
planner_explorer(everything)

# %% [markdown]
# Things to try: $t = 8$ and $t = 1$, back and forth: what limits the marks at the lower edge? How much memory does the fastest take that recomputes nothing, and how little does a plan take that is within a tenth of the best? And another model and cluster: `search(megatron_gpt("MT-NLG 530B"), a100, 2520, 2520, software=software)` in place of `everything`; then with half of the GPUs, or `memory_gb=40`.

# %% [markdown]
# ## Published choices
#
# Were the large runs laid out well? To be fair, hold each against what its authors had: Megatron-LM of 2021 had no ZeRO, no sequence parallel, and recomputed all or nothing. Three searches for each of thirteen published runs:
#
# - **alike**: with its own schedule, its own recomputation and sharding; layout, micro-batch and chunks are free,
# - **that year**: with all that the software of its year had,
# - **today**: with everything above.


# %%
@cache
def searched(run, tools):
    """The search that the run's authors could have made."""
    args = run.model, a100, run.plan.num_gpus, run.plan.batch
    return search(*args, tools=tools, software=SOFTWARE[run.paper])


def slower(run, tools):
    """By how much the published plan is slower than the best with these tools."""
    published = weigh(run.model, run.plan, a100, SOFTWARE[run.paper])
    return published.total_s / searched(run, tools).best.total_s - 1


# %% jupyter={"source_hidden": true}
predict(
    "By how much is the worst of the thirteen published plans slower than the best that is alike?",
    {
        "Under 1 %": (
            "Seven of the thirteen are that close. In most of the others half as many slices, with fewer "
            "messages, would have gained a few percent."
        ),
        "1 to 10 %": (
            "7.6 %, for 174.6B on 384 GPUs. Its authors chose well, and around the best there are many "
            "layouts that take nearly as long."
        ),
        "10 to 50 %": (
            "Some are so far from the best of that year, as they recompute everything or do not "
            "interleave. Alike means that the best does as they do."
        ),
        "More than 50 %": (
            "Against the tools of today, many are. But later software brought that, not a better layout: "
            "with the same tools it is 7.6 %."
        ),
    },
    right=1,
)

# %% tags=["nbval-check-output"]
year = dict(zip(SOFTWARE, (MEGATRON_2021, MEGATRON_2022)))
print(f"{'':34s}{'p × d × t':>13s}  alike, and the best of them  that year  today")
for run in RUNS:
    alike = Tools.like(run.plan)
    cuts = [f"{p.pp} × {p.dp} × {p.tp}" for p in (run.plan, searched(run, alike).best.plan)]
    away = [f"{slower(run, tools):.1%}" for tools in (alike, year[run.paper], TODAY)]
    print(f"{run.name:34s}{cuts[0]:>13s} {away[0]:>6s}  {cuts[1]:20s}  {away[1]:>9s} {away[2]:>6s}")

# %% [markdown]
# **Alike**, all thirteen are within a tenth of the best, and within the 8 % by which such predictions may be off: nobody who laid out these runs left much on the table. The larger differences are half as many slices, $t = 4$ in place of 8 or 2 in place of 4: fewer messages in every layer, for more stages or copies.
#
# **That year**, some are further off, for one of two reasons:
#
# - *Recomputation.* 1.7B, 7.5B and the two of Korthikanti et al. with full recomputation would have fitted without, or with less of it, says our count. The first paper recomputes in every run, to compare like with like and because large models with a pipeline need it (sections 3.5 and 5.6); the second runs full recomputation in order to show what it costs.
# - *Interleaving.* The runs of 174.6B use plain 1F1B. Interleaved, 16 stages have so small a bubble that $t = 4$ pays.
#
# **Today**: sequence parallel, selective recomputation, sharding, zero bubble. What those years of software brought is worth far more than what better layouts would have gained. What does *today's* best look like, for one of them?

# %% tags=["nbval-check-output"]
trillion = next(run for run in RUNS if run.name == "1008.0B")
published = weigh(trillion.model, trillion.plan, a100, software)
then, now = (searched(trillion, tools).best for tools in (MEGATRON_2021, TODAY))
for name, one in {"published": published, "best in 2021": then, "best today": now}.items():
    print(fill(f"{name}: {one}", 96, subsequent_indent="    "))

# %% [markdown]
# ## Rules of thumb
#
# Nobody searched when those runs were planned. Narayanan et al. 2021 (section 3) give three rules, and picked their layouts by them. Now they can be tested, on the models that the paper itself measured.
#
# **Rule 1: tensor parallel up to the GPUs of a node, then pipeline.** 162 billion parameters, 64 GPUs, $d = 1$ (figure 13):

# %% tags=["nbval-check-output"]
def step_s(model, pp, dp, tp, batch, microbatch=1):
    """Seconds of a step, with full recomputation and 1F1B."""
    plan = Plan(pp, dp, tp, batch, microbatch, recompute="full")
    return weigh(model, plan, a100, software).total_s


wide = Transformer("162B", num_layers=32, width=20480, num_heads=128)
for batch in (32, 128):
    times = {f"{64 // t} × {t}": step_s(wide, 64 // t, 1, t, batch) for t in (2, 4, 8)}
    print(f"batch {batch:3d}: ", *(f"p × t = {cut}: {s:.1f} s   " for cut, s in times.items()))

# %% [markdown]
# It holds, and less so for a large batch, where the bubble is small anyway. And beyond a node? GPU-milliseconds of one layer:

# %% tags=["nbval-check-output"]
for t in (4, 8, 16):
    layer = layer_time(wide, a100, 1, t, False)
    kernels = layer.forward_s + layer.backward_s
    messages = layer.forward_message_s + layer.backward_message_s
    print(f"t = {t:2d}: kernels {1000 * t * kernels:5.0f}, messages {1000 * t * messages:4.0f}")

# %% [markdown]
# Sixteen ranks lie in two nodes, and the links between those are slower: a wall, not a slope. That is why our search does not even look there.
#
# **Rule 2: no more model parallel, $p \cdot t$, than it takes to fit; the rest is data parallel.** 5.9 billion parameters, 64 GPUs, a batch of 512 (figures 14 and 15):

# %% tags=["nbval-check-output"]
thin = Transformer("5.9B", num_layers=32, width=3840, num_heads=32)
pipeline = {p: step_s(thin, p, 64 // p, 1, 512) for p in (2, 4, 8, 16, 32)}
tensor = {t: step_s(thin, 1, 64 // t, t, 512) for t in (2, 4, 8)}
print("p = ", *(f"{p}: {s:.1f} s  " for p, s in pipeline.items()))
print("t = ", *(f"{t}: {s:.1f} s  " for t, s in tensor.items()))

# %% [markdown]
# It holds too: each is slower than the one before. **Rule 3: the best micro-batch depends on everything.** 91 billion parameters, $(t, p) = (8, 8)$, $d = 1$ (figure 16, where 2 is best):

# %% tags=["nbval-check-output"]
large = Transformer("91B", num_layers=32, width=15360, num_heads=120)
for batch in (32, 128, 512, 2048):
    times = {b: step_s(large, 8, 1, 8, batch, b) for b in (1, 2, 4, 8)}
    least = min(times, key=times.get)
    away = (f"{seconds / times[least] - 1:+6.1%}" for seconds in times.values())
    print(f"batch {batch:4d}: b = {least}  ", *away)

# %% [markdown]
# (By how much each of $b = 1, 2, 4, 8$ is slower.) The larger the batch, the more micro-batches there are anyway, and the larger they may be. The paper finds 2 the best for both batches that it tried; at 128 we say 1, by a margin that our model of kernels cannot vouch for.
#
# So each rule holds where it comes from. Now let them choose by themselves, for the paper's nine runs: the smallest $p \cdot t$ that fits, tensor parallel first; all else, micro-batch, schedule and so on, as good as can be.


# %%
def by_the_rules(found):
    allowed = [c for c in found.candidates if c.plan.pp == 1 or c.plan.tp == 8]
    least = min(c.plan.pp * c.plan.tp for c in allowed)
    return next(c for c in allowed if c.plan.pp * c.plan.tp == least)


# %% jupyter={"source_hidden": true}
predict(
    "The rules choose p, d and t; the search chooses freely. What do the rules lose, at most, over the "
    "nine runs: with the paper's tools, and with those of 2022?",
    {
        "Nothing, with either": (
            "Each rule held where it was tried, on one model. For 174.6B they take t = 8 where t = 4 "
            "would be faster, even with the paper's tools."
        ),
        "About 6 % with both": (
            "That is so with the paper's tools. Those of 2022 often save full recomputation, but not at "
            "the smallest p · t, which the rules insist on."
        ),
        "About 6 %, then about 26 %": (
            "The smallest p · t that fits may need full recomputation. With the paper's tools every plan "
            "pays for that; in 2022 one with a larger p · t does not."
        ),
        "About 26 %, then about 6 %": (
            "Better tools might seem to forgive more. But they add choices that the rules know nothing "
            "of: to recompute less, with a larger p · t."
        ),
    },
    right=2,
)

# %% tags=["nbval-check-output"]
full = replace(MEGATRON_2021, recompute=("full",))
kinds = {"full recomputation, as in the paper": full, "2022": MEGATRON_2022, "today": TODAY}
for name, tools in kinds.items():
    found = [searched(run, tools) for run in RUNS if run.paper == MEGATRON]
    lost = [by_the_rules(f).total_s / f.best.total_s - 1 for f in found]
    print(f"{name:36s}", *(f"{x:6.1%}" for x in lost))

# %% [markdown]
# In their own world the rules lose at most 6 %, without any search. With later tools they lose up to a quarter, and the reason is plain: "just large enough to fit" leaves open at what price. It takes the smallest $p \cdot t$, and pays with full recomputation, where a larger $p \cdot t$ would do without. And with ZeRO 3 nearly everything fits, so that the rule says nothing any more. **A rule of thumb is a search that somebody made once, with the tools of that year.**

# %% [markdown]
# ## What a planner does not know
#
# It is as good as its model of time. One thing in it is known to be too kind. ZeRO 3 gathers weights ahead of their use, in ours over a network that is never crowded. Narayanan et al. 2021 (table 2) measured ZeRO 3 without model parallelism, in the DeepSpeed of that year:

# %% tags=["nbval-check-output"]
sharded = next(run.model for run in RUNS if run.name == "174.6B on 384")
for gpus, b, measured in ((384, 4, 144), (768, 2, 88), (1536, 1, 44)):
    plan = Plan(1, gpus, 1, 1536, b, recompute="full", zero=3)
    seconds = weigh(sharded, plan, a100, software).total_s
    tflops = sharded.hardware_flops(1536, "full") / gpus / seconds / 1e12
    print(f"{gpus:5,} GPUs, b = {b}: ours {tflops:.0f} TFLOP/s on each, measured {measured}")

# %% [markdown]
# That run did not hide its messages; ours hides all of them. Software has become better at it, but how much your cluster hides you have to measure. How much of *today* hangs on it? Once more without ZeRO 2 and 3:

# %% tags=["nbval-check-output"]
for name in ("76.1B", "1008.0B", "174.6B on 1024"):
    run = next(run for run in RUNS if run.name == name)
    gains = (slower(run, tools) for tools in (TODAY, replace(TODAY, zero=(0, 1))))
    print(f"{name:15s} the published plan is slower by", *(f"{gain:.0%}" for gain in gains))

# %% [markdown]
# Little, for these. So trust a search most where its candidates resemble what has been measured, and try its best *few*.
#
# It does not know either: stages that are unequal, a network that others use, a GPU that is slow or fails, the work of making a combination run at all. (Who has written ZeRO 2 with an interleaved schedule?) And it takes the batch as given: whether a batch trains well is another question.
#
# ## The interface of the framework
#
# Now the other half of the sentence: *the interface of the framework sets how productive its engineer is*. The same small GPT, the same batches, two ranks, float64, four strategies; each through PyTorch's own interface and through ours. All that a user writes is in the cells below. First what needs no parallelism: a model, a loss, and a step that every strategy can use, with two places for what it may have to add.


# %%
def gpt():
    torch.manual_seed(0)
    return GPT(context=32, width=128, num_layers=2, tied=False).double()


def loss_of(logits, y):
    return F.cross_entropy(logits.flatten(0, 1), y.flatten())


# %%
def trainer(model, part=lambda batch: batch, loss_of=loss_of, finish=lambda: None):
    """A step, x, y -> loss. part: this rank's part of a batch; finish: called after backward."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(x, y):
        optimizer.zero_grad()
        loss = loss_of(model(part(x)), part(y))
        loss.backward()
        finish()
        optimizer.step()
        return loss

    return step


def mine(batch):
    return batch.chunk(dist.get_world_size())[dist.get_rank()]


# %% [markdown]
# **Data parallel.** Wrap the model. Ours wants to be told when backward is over; DDP has hooks in autograd for that.

# %%
from torch.nn.parallel import DistributedDataParallel

from course_lib.parallel.data import BucketedDataParallel


def ddp():
    return trainer(DistributedDataParallel(gpt()), mine)


def our_data_parallel():
    model = BucketedDataParallel(gpt())
    return trainer(model, mine, finish=model.finish_gradient_sync)


# %% [markdown]
# **Sharded (ZeRO 3).** FSDP2 wants to know what to gather together: a unit is what you call `fully_shard` on. Ours takes every element of a `ModuleList`.

# %%
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from course_lib.parallel.sharded import FullyShardedDataParallel


def fsdp2():
    model, mesh = gpt(), init_device_mesh("cpu", (dist.get_world_size(),))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    return trainer(fully_shard(model, mesh=mesh), mine)


def our_sharded():
    model = FullyShardedDataParallel(gpt())
    return trainer(model, mine, finish=model.finish_gradient_sync)


# %% [markdown]
# **Tensor parallel.** DTensor knows no GPT: you say of every linear layer how it is cut, and of inputs and outputs how they lie. Ours knows this GPT, and nothing else.

# %%
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, loss_parallel, parallelize_module


def dtensor():
    model, mesh = gpt(), init_device_mesh("cpu", (dist.get_world_size(),))
    for block in model.blocks:
        columns = ("attention.q", "attention.k", "attention.v", "up")
        plan = {name: ColwiseParallel() for name in columns}
        plan |= {name: RowwiseParallel() for name in ("attention.o", "down")}
        parallelize_module(block, mesh, plan)
    ends = {"wte": RowwiseParallel(input_layouts=Replicate())}
    ends["head"] = ColwiseParallel(output_layouts=Shard(-1), use_local_output=False)
    parallelize_module(model, mesh, ends)
    step = loss_parallel()(trainer(model))  # the loss of logits that stay cut
    return lambda x, y: step(x, y).full_tensor()


# %%
from course_lib.parallel.tensor_model import tensor_parallelize
from course_lib.parallel.vocabulary import vocab_parallel_cross_entropy


def our_tensor_parallel():
    return trainer(tensor_parallelize(gpt()), loss_of=vocab_parallel_cross_entropy)


# %% [markdown]
# **Pipeline.** No step of ours fits any more: forward and backward of many micro-batches are interwoven, and each rank has other arguments to pass. Both interfaces take the step over.

# %%
from torch.distributed.pipelining import PipelineStage, Schedule1F1B

from course_lib.parallel.stages import cut


def pipelining():
    rank, p = dist.get_rank(), dist.get_world_size()
    model = cut(gpt(), p)[rank]  # ours; PyTorch can also trace a model and split it there
    stage = PipelineStage(model, rank, p, torch.device("cpu"))
    schedule = Schedule1F1B(stage, n_microbatches=4, loss_fn=loss_of)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(x, y):
        losses = []
        optimizer.zero_grad()
        schedule.step(*([x] if rank == 0 else []), target=y, losses=losses)
        optimizer.step()
        return torch.stack(losses).mean() if losses else None

    return step


# %%
from course_lib.parallel.pipeline import run_pipeline
from course_lib.parallel.stages import parameters_of, pipeline_stages
from course_lib.schedules import one_f_one_b


def our_pipeline():
    schedule = one_f_one_b(dist.get_world_size(), 4)
    stages = pipeline_stages(gpt(), schedule)
    optimizer = torch.optim.SGD(parameters_of(stages), lr=0.1)

    def step(x, y):
        optimizer.zero_grad()
        loss = run_pipeline(stages, x, y, loss_of, 4, schedule)
        optimizer.step()
        return loss

    return step


# %% [markdown]
# Everything in one launch, in turns, so that whatever else your machine does slows all of them alike:


# %%
STEPS = 8


def in_turns(strategies):
    """On a rank, by name: each step's loss, if it is known here; the median of a step's seconds."""
    steps = {make.__name__: make() for make in strategies}
    losses, seconds = {name: [] for name in steps}, {name: [] for name in steps}
    for number in range(STEPS):
        for name, step in steps.items():
            dist.barrier()
            begin = time.perf_counter()
            with span(name):
                loss = step(*text_batch(number, 16, 32))
            dist.barrier()  # a step is over when the last rank is done
            seconds[name].append(time.perf_counter() - begin)
            losses[name].append(None if loss is None else loss.item())
    return losses, {name: statistics.median(times[2:]) for name, times in seconds.items()}


# %%
pairs = {
    "data parallel": (ddp, our_data_parallel),
    "sharded": (fsdp2, our_sharded),
    "tensor parallel": (dtensor, our_tensor_parallel),
    "pipeline": (pipelining, our_pipeline),
}
strategies = [make for pair in pairs.values() for make in pair]
truth = launch(in_turns, 1, [lambda: trainer(gpt())])[0][0]["<lambda>"]
run = launch(in_turns, 2, strategies, backend="gloo")

# %% jupyter={"source_hidden": true}
predict(
    "Which of PyTorch's four takes the most lines, and which sends the fewest bytes?",
    {
        "FSDP2; DDP": (
            "FSDP2 takes 4 lines, since it need only be told what is gathered together. DDP takes 1, but "
            "sends every gradient: 3.73 MB, and a pipeline 0.52."
        ),
        "Pipelining; DTensor": (
            "Pipelining does take the most lines. DTensor sends the most: activations are added up in "
            "every layer, 7.35 MB a step."
        ),
        "Pipelining, both": (
            "It takes over the step, which is 12 lines. And it sends only the activations at one border "
            "and their gradients, 0.52 MB."
        ),
        "DTensor; DDP": (
            "DTensor comes close, with 11 lines for how each layer is cut. But DDP sends every gradient: "
            "3.73 MB, and a pipeline 0.52."
        ),
    },
    right=2,
)


# %%
def lines(make):
    """Lines in the body of a strategy: what its user writes, the imports aside."""
    source = inspect.getsource(make).splitlines()[1:]
    return sum(bool(line.strip()) for line in source)


def sent(make):
    """Megabytes that rank 0 sends in a step."""
    events = run.trace.of(rank=0).during(make.__name__, last=1).events
    return sum(event.ring_bytes for event in events) / 1e6


print(f"{'':34s}lines  MB sent a step  ms a step")
for kind, pair in pairs.items():
    for make in pair:
        ms = 1000 * max(rank[1][make.__name__] for rank in run)
        print(f"{kind:16s}{make.__name__:19s}{lines(make):4d}{sent(make):14.2f}{ms:12.0f}")

# %% tags=["nbval-check-output"]
for make in strategies:
    ranks = [rank[0][make.__name__] for rank in run]
    known = [[loss for loss in step if loss is not None] for step in zip(*ranks)]
    away = max(abs(statistics.mean(losses) - right) for losses, right in zip(known, truth))
    print(f"{make.__name__:20s} losses of one process, to 1e-10: {away < 1e-10}")

# %% [markdown]
# **The same losses, eight times; what differs is everything else.** What is sent is the strategy's, and hardly the interface's. Two pairs differ: FSDP2 keeps its outermost unit whole from forward to backward, and so gathers it once less. And DTensor's plan sends a gradient back for each of q, k and v, where ours sends one for all three; an entry more in the plan (`PrepareModuleInput`) would do the same.
#
# The time of a step on two ranks of one machine says little of a cluster; it says what an interface costs in Python and copies. And the lines? They count *how much of the model, and of the step, the framework has to be told*:
#
# | interface | you tell it | it leaves to you | it does not do |
# |---|---|---|---|
# | DDP | the model | which samples are this rank's | make anything smaller |
# | FSDP2 | what is gathered together | the same; saving what is in shards | cut the activations |
# | DTensor | how every layer is cut | pairs of column and row that belong together; the loss | warn of a plan that is slow |
# | `pipelining` | where to cut, on which rank, which schedule | stages that take equally long; other arguments on each rank | share one embedding between the first and the last stage |
# | ours | the model | to say when backward is over | other models, a compiler, GPUs that come and go |
#
# That is how the second half of the sentence reads when it is measured: **an interface is productive as far as the strategy can be told apart from the model.** Data parallel can be, entirely, and takes a line. A pipeline cannot, and takes the training loop over. In between lies what a description can do: DTensor's plan is *data*, which one can read, check, and change without touching the model.
#
# Ours are shorter here because they know one GPT. That is no better design; it is a smaller promise.

# %% [markdown]
# ## Where this ends
#
# - Times are predictions, good to some percent for what resembles published runs, and untested elsewhere.
# - One model, one cluster of equal nodes, one batch. Experts (chapter 10) and long sequences (chapter 08) are further axes.
# - A search finds the best of what it is told about. The largest gains above came from new tools, not from better choices.

# %% [markdown]
# ## How well did you predict?

# %% jupyter={"source_hidden": true}
tally()

# %% [markdown]
# ## In six lines
#
# - $p \cdot d \cdot t = n$; $p$ divides the layers, $t$ the heads and a node, $d \cdot b$ the batch; and it must fit.
# - Few layouts, many thousand candidates, in less than a second; the slowest that fits is many times slower than the fastest.
# - Every cut is paid for: messages, bubble, recomputation, sharding. What limits a plan is the largest of them.
# - Published layouts are within a tenth of the best with the same tools.
# - Rules of thumb hold with the tools that they were found with.
# - An interface is productive as far as the strategy can be told apart from the model.
#
# | symbol | meaning |
# |---|---|
# | $n$ | GPUs |
# | $p$, $d$, $t$ | pipeline stages, data-parallel copies, tensor-parallel slices |
# | $B$, $b$, $m$ | sequences of a step, of a micro-batch; micro-batches, $B/(d\,b)$ |
# | $v$ | pieces of the model on each stage |
#
# **To read**
#
# - Narayanan et al. 2021, [*Efficient Large-Scale Language Model Training*](https://arxiv.org/abs/2104.04473), sections 3 and 5.4: the rules, and the measurements behind them.
# - Isaev et al. 2023, [*Calculon*](https://doi.org/10.1145/3581784.3607102): a search over many more choices than ours.
# - Zheng et al. 2022, [*Alpa*](https://arxiv.org/abs/2201.12023): layouts found by a compiler, operator by operator.
# - Zhao et al. 2023, [*PyTorch FSDP*](https://arxiv.org/abs/2304.11277), section 3: how an interface was designed.
#
# **Now you:** [the exercise](../exercises/12_choosing_a_layout.ipynb).
