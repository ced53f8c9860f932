# %% [markdown]
# # 01 · Why distributed
#
# In half an hour you will be able to
#
# - say how many parameters, FLOPs and bytes a transformer has, from four numbers about it, and check that on a real one,
# - work out how many days it takes to train on any number of GPUs, and name the assumptions in such a number,
# - say which of two limits stops a model, time or memory, and which way of distributing it answers that limit.
#
# You need to know how a model is trained in PyTorch. The lesson follows section 8.1 of [the source](../README.md#where-it-comes-from), which says: models outgrow single devices;
# GPT-3 has 175 billion parameters; *with 1,024 A100 GPUs of 80 GB, training it still takes a month*.
#
# **The question:** *is that so? And why can it not be done on one?*
#
# This is what one GPU must hold to train GPT-3, beside what it has. Choose smaller models until one fits:

# %% jupyter={"source_hidden": true}
from course_lib.viz import memory_estimator

memory_estimator("GPT-3 175B", "A100")

# %%
import torch
from torch.nn import functional as F

from course_lib.cost.hardware import GPUS
from course_lib.cost.machine import measure_roofline
from course_lib.cost.memory import memory_use
from course_lib.cost.plan import Plan
from course_lib.cost.shapes import MODELS, Transformer
from course_lib.data import text_batch
from course_lib.models.gpt import GPT
from course_lib.viz import predict, tally, validation
from course_lib.viz.plots import new_plot

# %% [markdown]
# ## Two curves
#
# We will need 16 bytes of memory for each parameter while a model is trained (this chapter counts them further down). Here is that number for well-known models, in the year of
# their paper, beside the memory of the largest GPU of its time.

# %% jupyter={"source_hidden": true}
predict(
    "From 2018 to 2022 the memory of the largest GPU grew 2.5 times, from 32 to 80 GB. How much did the "
    "largest models grow?",
    {
        "About 3 times": (
            "So it would be if a model had to fit into one GPU. Large ones are cut over many, and are "
            "no longer bound by the memory of one."
        ),
        "About 30 times": (
            "Thirty times BERT-Large, the largest of 2018 here, would be 10 billion parameters. GPT-3 "
            "had 175 billion already in 2020."
        ),
        "About 1,600 times": (
            "From BERT-Large with 0.34 billion parameters to PaLM with 540 billion: models are cut over "
            "many GPUs, so one GPU's memory does not bound them."
        ),
        "About 100,000 times": (
            "Growth as steep as this is easily overestimated. A hundred thousand times BERT-Large would "
            "be 34,000 billion parameters; PaLM has 540 billion."
        ),
    },
    right=2,
)

# %%
YEARS = {
    "BERT-Large": 2018.8, "GPT-2": 2019.1, "GPT-3 175B": 2020.4, "MT-NLG 530B": 2022.1,
    "PaLM 540B": 2022.3, "Llama 3 405B": 2024.5,
}
state_gb = {name: 16 * MODELS[name].parameters / 1e9 for name in YEARS}

# %%
axes = new_plot("year", "GB", "what training must hold, and what a GPU has", log=True)
axes.plot(YEARS.values(), state_gb.values(), markevery=1, label="16 bytes for each parameter")
devices = GPUS.values()
years, sizes = [gpu.year for gpu in devices], [gpu.memory_gb for gpu in devices]
axes.plot(years, sizes, markevery=1, label="memory of a GPU")
for name, year in YEARS.items():
    where = (3, -13) if name == "PaLM 540B" else (-24, 6)
    axes.annotate(name, (year, state_gb[name]), where, textcoords="offset points", fontsize=8)
axes.set_ylim(4, 40000)
axes.legend(loc="lower right");

# %%
growth = MODELS["PaLM 540B"].parameters / MODELS["BERT-Large"].parameters
print(f"parameters, 2018 to 2022: {growth:,.0f} times")

# %% [markdown]
# Between GPT-2 and GPT-3 the curves crossed, and the state of the largest models has not fitted into one GPU since. (Gholami et al. 2024, figure 1, has the same picture with many more models.)
#
# The last point is lower, and that is no accident. Since 2022 it is the *texts* that grow: GPT-3 read 300 billion tokens, Llama 3 read 15,600 billion. So we have to count work as well as
# memory.

# %% [markdown]
# ## Count: parameters
#
# A transformer's shape is told by its number of layers $l$, its width $h$ and its vocabulary $V$; for a sequence of $s$ tokens it has $s$ learned positions. The matrices of a layer are four of $h\times h$ in
# attention, and two of $h\times4h$ in the MLP:
#
# $$\Psi \;\approx\; l\,(\underbrace{4h^2}_{\text{attention}} + \underbrace{8h^2}_{\text{MLP}}) + Vh + sh \;=\; 12\,l\,h^2 + (V+s)\,h$$
#
# Biases and norms add $13h$ a layer, and the last norm $2h$. On a real model, built here:

# %% tags=["nbval-check-output"]
real = GPT(vocab_size=256, context=64, width=128, num_layers=8, num_heads=4)
print(f"counted in the module: {sum(p.numel() for p in real.parameters()):,}")

layers, h, V, s = 8, 128, 256, 64
print(f"by the formula:        {layers * (12 * h**2 + 13 * h) + (V + s) * h + 2 * h:,}")

# %% [markdown]
# `Transformer` knows this formula, and its variants (BERT's pooler, Llama's three matrices in the MLP). GPT-3 has 96 layers of width 12,288:

# %% tags=["nbval-check-output"]
gpt3 = MODELS["GPT-3 175B"]
print(gpt3)
print(f"share of 12 l h²: {12 * 96 * 12288**2 / gpt3.parameters:.1%}")

# %% [markdown]
# ## Count: work
#
# A number of $W$ is multiplied with a number of $x$, and added to a sum: two FLOPs, for each parameter in a matrix and each token. Backward does two products of that size, one for the gradient of
# $x$ and one for that of $W$. So a token costs about $2\Psi$ FLOPs forward, $4\Psi$ backward,
# **$6\Psi$ to train on.** What this leaves out is attention itself, where tokens are multiplied with tokens. PyTorch can count the products of a real model while they are done:

# %%
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

x, y = text_batch(0, batch=4, context=64)
plain_attention = sdpa_kernel(SDPBackend.MATH)  # the counter cannot look into a fused one
with plain_attention, FlopCounterMode(display=False) as counter:
    F.cross_entropy(real(x).flatten(0, 1), y.flatten()).backward()

# %% tags=["nbval-check-output"]
shape = Transformer("ours", num_layers=8, width=128, num_heads=4, vocab_size=256, context=64)
print(f"PyTorch counted: {counter.get_total_flops():,} FLOPs")
print(f"by formula:      {shape.model_flops(batch=4):,}")
print(f"6 Ψ tokens:      {6 * shape.parameters * 4 * 64:,}")

# %% [markdown]
# The formula is exact; for $b$ sequences it is
#
# $$3\,\bigl(\underbrace{24\,b s l h^2}_{\text{matrices}} + \underbrace{4\,b s^2 l h}_{\text{attention}} + \underbrace{2\,b s h V}_{\text{logits}}\bigr)$$
#
# (Narayanan et al. 2021, appendix). And $6\Psi$ is a good rule: for GPT-3 it is off by

# %% tags=["nbval-check-output"]
print(f"{gpt3.model_flops(batch=1) / (6 * gpt3.parameters * 2048) - 1:+.1%}")
total_flops = 6 * gpt3.parameters * 300e9
print(f"GPT-3, 300 billion tokens: {total_flops:.3g} FLOPs")

# %% [markdown]
# The paper prints 3.14e23 (Brown et al. 2020, table D.1). How much is that? Let us see how fast your own machine multiplies.

# %% jupyter={"source_hidden": true}
predict(
    "How long would your computer's processor take to train GPT-3, if it had the memory?",
    {
        "Less than 100 years": (
            "That takes 100 TFLOP/s, which is near the peak of a V100. Processors are built for other "
            "work, and do far less."
        ),
        "100 to 10,000 years": (
            "That takes 1 to 100 TFLOP/s: a GPU, or a processor with very many cores or with units made "
            "for matrix products."
        ),
        "10,000 to 1,000,000 years": (
            "That is 0.01 to 1 TFLOP/s. Most processors are in this range: a few cores, each with some "
            "dozens of GFLOP/s."
        ),
        "Longer still": (
            "That would be less than 10 GFLOP/s. Even one core mostly does more, since it multiplies "
            "several numbers at once."
        ),
    },
)

# %%
mine = measure_roofline(seconds=1.5)
rates = {"this machine": mine.flops_per_s}  # measured; those of GPUs are their makers' peaks
rates |= {f"one {name}": gpu.tflops * 1e12 for name, gpu in GPUS.items()}
for name, flops_per_s in rates.items():
    years = total_flops / flops_per_s / (365.25 * 86400)
    print(f"{name:12s}{flops_per_s / 1e12:9,.2f} TFLOP/s {years:11,.0f} years")

# %% [markdown]
# **That is the first limit: time.** Nobody waits thirty years for an A100. (Narayanan et al. 2021 write "approximately 288 years" for one V100, three and a half times what its peak
# allows: no run reaches its peak. Chapter 02 says why.)

# %% [markdown]
# ## Days
#
# Share the work out over $n$ GPUs that reach $X$ FLOP/s each:
#
# $$\text{seconds} = \frac{6\,\Psi\,T}{n\,X}\quad\text{for } T \text{ tokens, and } 8\,\Psi \text{ in place of } 6\,\Psi \text{ when forward is done twice}$$
#
# Why anybody would do forward twice comes in a moment.
#
# Now the source's sentence: 1,024 A100, a month. It names no $T$ and no $X$. Which make it true?


# %%
def days(model, tokens, gpus, tflops, recompute="none"):
    flops = model.hardware_flops(tokens / model.context, recompute)
    return flops / (gpus * tflops * 1e12) / 86400


print("GPT-3 on 1,024 A100")
for tokens, tflops, recompute, label in (
    (300e9, 312, "none", "at the peak, 312 TFLOP/s"),
    (300e9, 140, "none", "at 140 TFLOP/s, as measured"),
    (300e9, 140, "full", "the same, forward done twice"),
    (15_600e9, 140, "full", "the same"),
):
    taken = days(gpt3, tokens, 1024, tflops, recompute)
    print(f"{tokens / 1e9:10,.0f} billion tokens, {label:29s}{taken:8,.1f} days")
rule = 8 * gpt3.parameters * 300e9 / (1024 * 140e12) / 86400
print(f"by the rule of 8 Ψ, which leaves attention out: {rule:.1f} days")

# %% [markdown]
# Three things hide in "a month".
#
# - **$T$**: 300 billion tokens, what GPT-3 was trained on. With the 15,600 billion of Llama 3 it would be five years, as the last line shows.
# - **$X$**: 140 of the 312 TFLOP/s. That is what the authors reached with this model on so many GPUs, after much work (Narayanan et al. 2021, section 5.1); the rest is waiting, for memory, for messages, for other GPUs.
# - **Forward done twice.** To save memory, that run threw the results of forward away and computed them again in backward: $8\Psi$ a token, not $6\Psi$. (Its 140 TFLOP/s count that work, too.) [Chapter 02](02_memory_wall.ipynb) does it.
#
# The paper says 34 days, by the rule; so **the source's sentence is right, with these assumptions, and only with them**. And did twice the GPUs take half the time?

# %%
from course_lib.cost.published import DAYS

gpus = [384, 768, 1024, 1536, 3072]
axes = new_plot("GPUs", "days", "GPT-3 on 300 billion tokens, forward done twice")
ideal = [days(gpt3, 300e9, n, 153, "full") for n in gpus]
axes.plot(gpus, ideal, markevery=1, label="if each GPU kept 153 TFLOP/s")
published = [(n, float(d)) for name, _, n, _, d in DAYS if name == "GPT-3 175B"]
axes.plot(*zip(*sorted(published)), "s", markevery=1, label="published (Narayanan et al. 2021)")
axes.set(xscale="log", yscale="log", xticks=gpus, xticklabels=gpus)
axes.set(yticks=[10, 20, 40, 80], yticklabels=[10, 20, 40, 80])
axes.minorticks_off()
axes.legend();

# %% [markdown]
# Nearly. More GPUs, each a little slower: at 384 a GPU does 153 TFLOP/s, at 1,536 it does 141. Why it gets slower is what most of this course is about.
#
# ## Bytes
#
# Time alone would be an easy problem: give each GPU a copy of the model and a share of the texts. But the copy has to fit. What does training hold? One step, on our small model:

# %%
optimizer = torch.optim.Adam(real.parameters())
F.cross_entropy(real(x).flatten(0, 1), y.flatten()).backward()
optimizer.step()


def nbytes(tensors):
    return sum(t.numel() * t.element_size() for t in tensors)


parameters = list(real.parameters())
states = optimizer.state.values()
running = [t for state in states for t in state.values() if t.dim()]  # not its step counters
psi = sum(p.numel() for p in parameters)

# %% tags=["nbval-check-output"]
print(f"parameters      {nbytes(parameters) / psi:4.1f} bytes for each parameter")
print(f"gradients       {nbytes(p.grad for p in parameters) / psi:4.1f}")
print(f"optimizer state {nbytes(running) / psi:4.1f}   two running means in Adam")

# %% [markdown]
# 16 bytes. Large models are trained with 16-bit weights and gradients, and the optimizer works on a float32 copy of the weights: $2 + 2 + (4 + 4 + 4)$, which is 16 again (Rajbhandari et al. 2020, section 3.1).
# This is the **training state**. Beside it there are *activations*, what forward leaves behind for backward; they depend on the batch, and chapter 02 measures them.

# %%
print(f"{'':14s}{'GB of state':>12s}" + "".join(f"{gpu.name:>7s}" for gpu in GPUS.values()))
for name in (
    "BERT-Large", "GPT-2", "Llama 3 8B", "Llama 3 70B", "GPT-3 175B", "Llama 3 405B", "Megatron 1T",
):
    gb = 16 * MODELS[name].parameters / 1e9
    fits = [f"{gb / gpu.memory_gb:7.1f}" for gpu in GPUS.values()]
    print(f"{name:14s}{gb:12,.0f}" + "".join(fits))
print("(how many GPUs' memories the state alone fills)")

# %% [markdown]
# **That is the second limit: memory.** Below 1.0 a model fits. BERT-Large fits everywhere. The state of GPT-3 fills 35 A100, before the first activation. An 8-billion model, small today, does not fit a GPU
# of 80 GB.
#
# The two limits want different things. To save time, copies will do. To save memory, *something has to be cut*.
#
# ## What can be cut
#
# A training step sends samples through layers of matrices, and keeps a state for every parameter. So there are five things to cut. (A *rank* is one process, with one GPU.)
#
# | cut | name | chapter | every rank then has |
# |---|---|---|---|
# | the samples | data parallel | [05](05_data_parallel.ipynb) | the whole model, some of the batch |
# | the state, kept whole nowhere | sharded data parallel | [06](06_sharded_data_parallel.ipynb) | a share of each number's 16 bytes, and fetches what it needs |
# | each matrix | tensor parallel | 07 | a slice of every layer |
# | the tokens of a sequence | sequence and context parallel | 08 | some positions |
# | the layers | pipeline parallel | 09 | some layers, whole |
#
# Here is what each does to the bytes of GPT-3, on 48 GPUs (a number that divides its 96 layers and heads). A step has a batch of 48 sequences, computed one at a time. `Plan` says how many parts there are:
# `dp` data-parallel copies, `tp` slices of each matrix, `pp` stages of a pipeline; `zero=3` shares out the state of the copies.

# %% jupyter={"source_hidden": true}
predict(
    "48 A100 have 3,840 GB, the state of GPT-3 is 2,794 GB. Which of these will fit?",
    {
        "Data parallel: each GPU has one of the 48 sequences": (
            "Data parallel cuts the samples and nothing else. Each GPU has one sequence, and still the "
            "whole state of 2,794 GB."
        ),
        "Pipeline parallel: each GPU has 2 of the 96 layers": (
            "The state does fit, with 68 GB. But the first stage works on all 48 sequences before the "
            "first comes back, and keeps 277 GB of activations."
        ),
        "Both": (
            "Together the GPUs have room for the state. But data parallel does not divide it, and "
            "pipeline parallel does not divide the activations beside it."
        ),
        "Neither": (
            "With data parallel each GPU holds the whole state. A pipeline divides it, but its first "
            "stage keeps the activations of 48 sequences: 277 GB."
        ),
    },
    right=3,
)

# %%
PLANS = {
    "one GPU": Plan(),
    "data parallel": Plan(dp=48, batch=48),
    "fully sharded": Plan(dp=48, batch=48, zero=3),
    "tensor parallel": Plan(tp=48, batch=48),
    "pipeline parallel": Plan(pp=48, batch=48),
}
print(f"{'GB on a GPU':20s}weights  gradients  optimizer  activations   total")
for name, plan in PLANS.items():
    use = memory_use(gpt3, plan)
    kinds = use.parameters, use.gradients, use.optimizer_state, use.activations, use.total
    row = zip(kinds, (9, 11, 11, 13, 8))
    print(f"{name:18s}" + "".join(f"{size / 1e9:{width}.1f}" for size, width in row))

# %% [markdown]
# Read the columns.
#
# - **Data parallel** leaves every byte where it was. It answers the limit of time, and that one only.
# - **Sharding** divides the state by 48. Not the activations.
# - **Tensor parallel** divides the state, too, and the activations inside the layers. What lies between them, the inputs of its norms, every rank has whole.
# - **Pipeline parallel** divides the state, but not the activations. A pipeline works like an assembly line: while the last stage has the first sequence, the first stage has long begun with others, 48 of them, and keeps what it
#   needs to go back through each. A 48th of the layers, 48 sequences: nothing is gained. (Its state is a little more than a 48th, as the first stage also has the embedding.)
#
# None of the five fits into 80 GB: where the state is small, it is the activations.

# %% [markdown]
# ### A way that fits
#
# So real runs cut several ways at once, and save activations besides. Find a way that fits:

# %%
memory_estimator("GPT-3 175B", "A100", Plan(pp=8, tp=8, batch=64))

# %% [markdown]
# On 64 GPUs it does not fit. Take one of the offers below the bars. Then go down to as few GPUs as you can; *recomputation* is the forward that is done twice, *sequence parallel* cuts what tensor parallel leaves
# whole. (Korthikanti et al. 2022 ran this model on 64 A100, with both.) Then take Llama 3 70B, and find out what 16 GPUs can do.
#
# What each cut *costs*, in bytes sent and in time waited, is what the chapters on it measure. Memory is only half of the answer.
#
# ## Is the calculator right?
#
# Anybody can write formulas. Ours are held against what papers printed, and computed anew each time this cell is run. A line for each kind; click one to see its numbers.

# %%
validation("parameters", "floating-point operations", "days to train", "ZeRO", "memory")

# %% [markdown]
# Some errors are only the rounding of a printed number: 1.7 billion for 1.652. What is left beyond that is the last figure of each line. Two rows are shown and not held, as other papers contradict them or they are
# mere names. And two printed numbers turned out to be odd. The 13-billion GPT-3 is printed with a width of 5140; its 40 heads of 128 make 5120, and only that gives the printed number of parameters. And the printed
# cost of *selective* recomputation (chapter 02) counts three times what is computed again once.
#
# `course validate` prints the same in a terminal. The times of whole training steps follow in [chapter 02](02_memory_wall.ipynb), which has what they need.
#
# ## Where this ends
#
# Everything here is a count. That a GPU reaches 140 of its 312 TFLOP/s was taken from a paper; why it is not 312, and what limits *your* machine, is the next chapter. And the counts assume that work can be cut
# into equal parts that never wait for each other; chapters 03 to 11 are about how near one can come.

# %% [markdown]
# ## How well did you predict?

# %% jupyter={"source_hidden": true}
tally()

# %% [markdown]
# ## In five lines
#
# - A transformer has about $12\,l\,h^2$ parameters; training on a token takes about $6\Psi$ FLOPs, $8\Psi$ with full recomputation.
# - **Time**: $6\Psi T/(nX)$, or $8\Psi T/(nX)$. GPT-3 takes 34 days on 1,024 A100 if $T$ is 300 billion, $X$ is 140 TFLOP/s, and forward is done twice.
# - **Memory**: 16 bytes for each parameter, and activations. GPT-3's state alone fills 35 A100.
# - Copies of a model save time. To save memory, state, matrices, tokens or layers have to be cut.
# - A number of days without $T$, $X$ and what is recomputed says little.
#
# | symbol | meaning |
# |---|---|
# | $l$, $h$ | layers, width |
# | $V$, $s$, $b$ | vocabulary, tokens in a sequence, sequences in a micro-batch |
# | $\Psi$ | number of parameters |
# | $T$ | tokens trained on |
# | $n$, $X$ | number of GPUs, and the FLOP/s that each reaches |
#
# **To read**
#
# - Narayanan et al. 2021, [*Efficient large-scale language model training on GPU clusters*](https://arxiv.org/abs/2104.04473): the appendix for the count of FLOPs, section 5.1 for days, table 1 for what was reached.
# - Brown et al. 2020, [*Language models are few-shot learners*](https://arxiv.org/abs/2005.14165): table 2.1 and appendix D. Look for what its count leaves out.
# - Gholami et al. 2024, [*AI and memory wall*](https://arxiv.org/abs/2403.14123): figure 1, the two curves with many more points.
#
# **Now you:** [the exercise](../exercises/01_why_distributed.ipynb).
