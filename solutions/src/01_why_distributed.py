# %% [markdown]
# # Exercise 01 · Why distributed
#
# You work out what a model asks for: how many parameters it has, how long it trains, how many bytes its training state takes,
# and how many GPUs those bytes need. Ten minutes each. Replace every `raise NotImplementedError(...)`, run the cell, then the
# check below it.
#
# All of it is arithmetic, most of it on whole numbers. The checks hold it against models that are really built and trained for
# a step, and against what papers print. (They are folded; click the dots to read one.) To have the whole notebook graded:
# `course check exercises/01_why_distributed.ipynb`
#
# | letter | in code | what it counts |
# |---|---|---|
# | $l$ | `num_layers` | layers |
# | $h$ | `width` | numbers that stand for a token between two layers |
# | $V$ | `vocab_size` | words in the vocabulary |
# | $s$ | `context` | tokens in a sequence |
# | $\Psi$ | `num_parameters` | parameters |
# | $T$, $n$ | `tokens`, `num_gpus` | tokens trained on, and GPUs |
#
# A multiplication is one FLOP, an addition another. 1 TFLOP/s is $10^{12}$ FLOPs a second.

# %%
import functools

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from course_lib.grading import by_hand, check, seed
from course_lib.models.gpt import GPT

# %% [markdown]
# What the checks use. `built` makes a small GPT and has PyTorch count it. `by_hand` stops an answer that calls PyTorch or
# `course_lib.cost`: they can count, but here it is you who counts.


# %% id="support-built" jupyter={"source_hidden": true}
@functools.cache
def built(num_layers, width, vocab_size, context):
    """(parameters, forward FLOPs of one sequence) of a GPT that is built, as PyTorch counts them."""
    model = GPT(vocab_size, context, width, num_layers, num_heads=1)
    parameters = sum(p.numel() for p in model.parameters())
    with FlopCounterMode(display=False) as counter:  # "meta": shapes only, nothing is computed
        model.to("meta")(torch.zeros(1, context, dtype=torch.long, device="meta"))
    return parameters, counter.get_total_flops()


parameters, flops = built(1, 8, 50, 16)
print(f"l = 1, h = 8, V = 50, s = 16: {parameters:,} parameters, {flops:,} FLOPs")

# %% [markdown]
# ## 1.1 Parameters and FLOPs
#
# A GPT is made of
#
# - two tables: $V \times h$, a row for each word, and $s \times h$, a row for each place in the sequence;
# - $l$ layers, each with two norms (a scale and a shift, $h$ numbers each) and six linear layers, all with a bias: q, k, v and
#   o from $h$ to $h$, one from $h$ to $4h$, one from $4h$ to $h$;
# - at the end one more norm, and the head, which gives every token $V$ logits. The head has no bias, and its matrix *is* the
#   table of words: the two are tied.
#
# Return the number of its parameters, and the FLOPs of **forward** for **one** sequence of $s$ tokens. Count matrix products
# only: $(i \times k)$ times $(k \times j)$ takes $2ikj$ FLOPs. Attention has two without parameters, $QK^\mathsf{T}$ and its
# product with the values. All heads together are $h$ wide. Both products count in full, although the causal mask throws half of
# their results away. To look up a row of a table multiplies nothing.
#
# See for yourself: the two numbers printed above; and `gpt_size(96, 12288, 50257, 2048)` is GPT-3, which has 174.6 billion
# parameters (Brown et al. 2020, table D.1). How far are your FLOPs from the rule of thumb, two for each parameter and token?


# %% id="answer-1-1"
def gpt_size(num_layers, width, vocab_size, context):
    """(parameters, forward FLOPs of one sequence of `context` tokens), two whole numbers."""
    ### BEGIN SOLUTION 1.1: parameters and FLOPs of a GPT
    ### HINT a linear layer from i to j has ij + j parameters: what do the six of a layer have together, and its norms?
    ### HINT a linear layer takes 2 FLOPs for each token and each weight of its matrix; QKᵀ is (s × h) times (h × s)
    h, V, s = width, vocab_size, context
    parameters = num_layers * (12 * h**2 + 13 * h) + V * h + s * h + 2 * h
    flops = num_layers * (24 * s * h**2 + 4 * s**2 * h) + 2 * s * h * V
    return parameters, flops
    ### END SOLUTION


# %% id="check-1-1" jupyter={"source_hidden": true}
SHAPES = {
    "h = 8, V = 50, s = 16": (1, 8, 50, 16),
    "long sequence": (1, 6 + seed() % 5, 11, 90 + seed() % 17),
    "yours": (1 + seed() % 2, 12 + seed() % 13, 40 + seed() % 29, 20 + seed() % 11),
}


def a_layer(size, which, num_layers, *rest):
    """What one more layer adds to size(...)[which]."""
    return size(num_layers + 1, *rest)[which] - size(num_layers, *rest)[which]


def around(size, which, num_layers, *rest):
    """What is left of size(...)[which] without its layers."""
    return size(num_layers, *rest)[which] - num_layers * a_layer(size, which, num_layers, *rest)


with check("1.1") as c:
    yours = by_hand(gpt_size)
    for which, what, part, hint in (
        (0, "parameters of a layer", a_layer, "six matrices are 12h², their biases 9h, two norms 4h"),
        (
            0,
            "parameters around the layers",
            around,
            "Vh and sh for the tables, 2h for the last norm; the head adds none",
        ),
        (
            1,
            "FLOPs of a layer",
            a_layer,
            "matrices: 2 · s · 12h². QKᵀ: 2s²h, and its product with the values the same",
        ),
        (
            1,
            "FLOPs around the layers",
            around,
            "the logits: (s × h) times (h × V). The tables multiply nothing",
        ),
    ):
        c.equal(
            what,
            {name: part(yours, which, *shape) for name, shape in SHAPES.items()},
            lambda part=part, which=which: {
                name: part(built, which, *shape) for name, shape in SHAPES.items()
            },
            hint=hint,
        )
    c.equal(
        "billions of parameters of GPT-3",
        round(yours(96, 12288, 50257, 2048)[0] / 1e9, 1),
        lambda: 174.6,
        hint="96 layers of 1.81 billion, and 0.64 billion around them: print what each part has",
    )

# %% [markdown]
# ## 1.2 Days
#
# A model of $\Psi$ parameters is trained on $T$ tokens. Forward takes about $2\Psi$ FLOPs a token and backward twice that,
# together $6\Psi T$. With full recomputation of activations forward runs a second time, which makes it $8\Psi T$. There are $n$
# GPUs, and each does $X$ FLOPs a second, those of recomputation included. So the training takes $8\Psi T/(nX)$ seconds
# (Narayanan et al. 2021, equation 4), or $6\Psi T/(nX)$ without recomputation.
#
# Write `days_to_train`, which gives that in **days**. Then turn it round: `tokens_in` gives the number of tokens that the
# cluster gets through in so many days, a whole number, because a token that is not finished does not count.
#
# See for yourself: 175 billion parameters, 300 billion tokens, 1,024 GPUs at 140 TFLOP/s and full recomputation give 34 days
# (same paper, section 5.1). "1,024 A100 need a month" is true of about that many tokens. How many would it be in a week?


# %% id="answer-1-2"
def days_to_train(num_parameters, tokens, num_gpus, flops_per_s, recompute):
    """Days of training; flops_per_s is what one GPU does, recompute is True or False."""
    ### BEGIN SOLUTION 1.2: days of training, and tokens in so many days
    ### HINT all FLOPs over those of all GPUs in a second gives seconds; a day has 24 · 60 · 60
    per_token = (8 if recompute else 6) * num_parameters
    return per_token * tokens / (num_gpus * flops_per_s) / 86400
    ### END SOLUTION


def tokens_in(days, num_parameters, num_gpus, flops_per_s, recompute):
    """The most whole tokens that can be trained on in so many days."""
    ### BEGIN SOLUTION 1.2: days of training, and tokens in so many days
    ### HINT the FLOPs that the cluster does in that time, over the FLOPs of a token; // rounds down
    per_token = (8 if recompute else 6) * num_parameters
    return days * 86400 * num_gpus * flops_per_s // per_token
    ### END SOLUTION


# %% id="check-1-2" jupyter={"source_hidden": true}
BILLION = 10**9
RUNS = {  # parameters, tokens, GPUs, FLOP/s that one does
    "175 billion": (175 * BILLION, 300 * BILLION, 1024, 140 * 10**12),
    "a trillion": (1000 * BILLION, 450 * BILLION, 3072, 163 * 10**12),
    "a single GPU": (175 * BILLION, 300 * BILLION, 1, 44 * 10**12),
    "yours": (
        (3 + seed() % 89) * BILLION,
        (100 + seed() % 997) * BILLION,
        8 + seed() % 500,
        (90 + seed() % 211) * 10**12,
    ),
}
EVEN = (BILLION, 8, 10**14)  # parameters, GPUs, FLOP/s: just a whole number of tokens a day


def days_of(parameters, tokens, gpus, rate, recompute):
    """What days_to_train should be: all FLOPs over those of a day."""
    return (8 if recompute else 6) * parameters * tokens / (24 * 60 * 60 * rate * gpus)


def whole_tokens(days, parameters, gpus, rate, recompute):
    """What tokens_in should be: the FLOPs of so many days, in portions of one token."""
    return divmod(days * 24 * 60 * 60 * gpus * rate, (8 if recompute else 6) * parameters)[0]


with check("1.2") as c:
    days_yours, tokens_yours = by_hand(days_to_train), by_hand(tokens_in)
    for recompute, label, hint in (
        (
            True,
            "with full recomputation",
            "8 · parameters · tokens over GPUs · FLOP/s are seconds; a day has 86,400",
        ),
        (False, "without recomputation", "forward runs once, not twice: 6 FLOPs in place of 8"),
    ):
        c.equal(
            f"days {label}",
            {name: days_yours(*run, recompute) for name, run in RUNS.items()},
            lambda recompute=recompute: {name: days_of(*run, recompute) for name, run in RUNS.items()},
            hint=hint,
        )
    c.equal(
        "days the paper prints, rounded",
        round(days_yours(*RUNS["175 billion"], True)),
        lambda: 34,
        hint="175 billion parameters, 300 billion tokens, 1,024 GPUs at 140 TFLOP/s",
    )
    days = 2 + seed() % 60
    for recompute, label in ((True, "with full recomputation"), (False, "without recomputation")):
        cases = {name: (days, p, n, x, recompute) for name, (p, _, n, x) in RUNS.items()}
        cases |= {
            "a whole number, just": (1, *EVEN, recompute),
            "one FLOP/s less": (1, *EVEN[:2], EVEN[2] - 1, recompute),
        }
        c.equal(
            f"tokens {label}",
            {name: tokens_yours(*case) for name, case in cases.items()},
            lambda cases=cases: {name: whole_tokens(*case) for name, case in cases.items()},
            hint="days · 86,400 · GPUs · FLOP/s, over the FLOPs of a token (8 or 6 times the parameters), rounded down",
        )

# %% [markdown]
# ## 1.3 Bytes of the training state
#
# Whatever the batch, a training holds
#
# - `"weights"` and `"gradients"`, each in a dtype of its own (`dtype.itemsize` is the bytes of one number);
# - `"moments"`, what the optimizer remembers of earlier steps: plain `"sgd"` nothing, SGD with `"momentum"` one number for each
#   parameter, `"adam"` two;
# - a `"master copy"` of the weights in float32, if `master` is true. The optimizer then steps this copy, and the 16-bit weights
#   are rounded from it.
#
# Moments have the dtype of what the optimizer steps. (Adam's step counters, a few bytes in all, are left out.)
#
# Return all four kinds as a dict, with whole numbers. The check builds models, trains them for a step, and adds up the bytes of
# their tensors.
#
# See for yourself: GPT-3, with its 175 billion parameters in 16 bits, Adam and a master copy, has 2.8 TB of this: 16 bytes a
# parameter (Rajbhandari et al. 2020, section 3.1). Activations come on top; exercise 02 counts those.


# %% id="answer-1-3"
def state_bytes(num_parameters, weight_dtype, gradient_dtype, optimizer, master):
    """Bytes by kind: {"weights": ..., "gradients": ..., "master copy": ..., "moments": ...}."""
    ### BEGIN SOLUTION 1.3: bytes of a training state
    ### HINT torch.bfloat16.itemsize is 2; a kind that is not there has 0 bytes
    ### HINT which tensor does the optimizer step, the weights or their copy? The moments are as wide as that
    moments = {"sgd": 0, "momentum": 1, "adam": 2}[optimizer]
    return {
        "weights": num_parameters * weight_dtype.itemsize,
        "gradients": num_parameters * gradient_dtype.itemsize,
        "master copy": 4 * num_parameters if master else 0,
        "moments": num_parameters * moments * (4 if master else weight_dtype.itemsize),
    }
    ### END SOLUTION


# %% id="support-1-3" jupyter={"source_hidden": true}
OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=0.1),
}


def small_model(number, dtype):
    torch.manual_seed(number)
    width = 7 + number % 23
    return nn.Sequential(nn.Linear(5, width), nn.Tanh(), nn.Linear(width, 3)).to(dtype)


def held_after_a_step(number, dtype, optimizer, master):
    """Bytes of the real tensors of a small model after a real step."""
    model = small_model(number, dtype)
    weights = list(model.parameters())
    copies = [w.detach().float().requires_grad_() for w in weights] if master else []
    stepping = OPTIMIZERS[optimizer](copies or weights)
    model(torch.ones(2, 5, dtype=dtype)).sum().backward()
    for copy, weight in zip(copies, weights):
        copy.grad = weight.grad.float()
    stepping.step()
    for copy, weight in zip(copies, weights):
        weight.data.copy_(copy)
        copy.grad = None
    moments = [
        t for state in stepping.state.values() for t in state.values() if torch.is_tensor(t) and t.dim()
    ]
    kinds = {
        "weights": weights,
        "gradients": [w.grad for w in weights],
        "master copy": copies,
        "moments": moments,
    }
    return {kind: sum(t.nbytes for t in tensors) for kind, tensors in kinds.items()}


# %% id="check-1-3" jupyter={"source_hidden": true}
with check("1.3") as c:
    yours = by_hand(state_bytes)
    count = sum(p.numel() for p in small_model(seed(), torch.float32).parameters())
    for optimizer, hint in (
        ("sgd", "num_parameters · itemsize for weights, and for gradients; the other two kinds are 0"),
        ("momentum", "moments: one number a parameter, in the dtype of the weights, which it steps"),
        ("adam", "moments: two numbers a parameter, in the dtype of the weights, which it steps"),
    ):
        dtypes = (torch.float32, torch.float64, torch.bfloat16)
        c.equal(
            f"{optimizer}, counted",
            {str(dtype): yours(count, dtype, dtype, optimizer, False) for dtype in dtypes},
            lambda optimizer=optimizer, dtypes=dtypes: {
                str(dtype): held_after_a_step(seed(), dtype, optimizer, False) for dtype in dtypes
            },
            hint=hint,
        )
    for optimizer in OPTIMIZERS:
        dtypes = (torch.bfloat16, torch.float16)
        c.equal(
            f"{optimizer} with a master copy, counted",
            {str(dtype): yours(count, dtype, dtype, optimizer, True) for dtype in dtypes},
            lambda optimizer=optimizer, dtypes=dtypes: {
                str(dtype): held_after_a_step(seed(), dtype, optimizer, True) for dtype in dtypes
            },
            hint="the copy is float32; the optimizer steps the copy, so its moments are float32 as well",
        )
    billions = (175, 3 + seed() % 500)
    c.equal(
        "gradients kept in float32",
        {
            f"{n} billion parameters": yours(n * 10**9, torch.bfloat16, torch.float32, "adam", True)
            for n in billions
        },
        lambda: {  # the 18 bytes a parameter of Megatron-LM, theoretical_memory_usage.py
            f"{n} billion parameters": {
                kind: bytes_each * n * 10**9
                for kind, bytes_each in {"weights": 2, "gradients": 4, "master copy": 4, "moments": 8}.items()
            }
            for n in billions
        },
        hint="gradients have a dtype of their own, gradient_dtype",
    )
    c.equal(
        "terabytes of GPT-3",
        sum(yours(175 * 10**9, torch.bfloat16, torch.bfloat16, "adam", True).values()) / 1e12,
        lambda: 2.8,
        hint="2 + 2 + 4 + 8 bytes a parameter",
    )

# %% [markdown]
# ## 1.4 How many GPUs hold it?
#
# All of a training's state is `state_bytes`, and $n$ GPUs share it out perfectly: each holds $1/n$ of it (no rounding). On
# every GPU `reserve_percent` of the memory is left free, for activations. Return the smallest $n$ with which the state fits.
#
# The memory of a GPU comes as a text, an amount and a unit. **Mind the unit**: $1$ GB is $10^9$ bytes, $1$ GiB is $2^{30}$, and
# $1$ MiB, in which `nvidia-smi` reports, is $2^{20}$. And mind the last byte: where the state just fits, no further GPU is
# needed, and where it is one byte too large, one is. Whole numbers keep that exact; `24 * 10**9 * (1 - 0.3)` does not.
#
# See for yourself: 2.8 TB with 10 % left free need 39 GPUs of `"80 GB"`, but 37 of `"80 GiB"`, or of `"81920 MiB"`, which is
# the same.


# %% id="answer-1-4"
def fewest_gpus(state_bytes, memory, reserve_percent):
    """The smallest number of GPUs with `memory`, such as "80 GB", that holds state_bytes."""
    ### BEGIN SOLUTION 1.4: the fewest GPUs that hold the state
    ### HINT "80 GB".split() gives the amount and the unit
    ### HINT state / n <= memory · (100 - reserve) / 100: multiply by 100 and solve for n. -(-a // b) rounds up
    amount, unit = memory.split()
    room = int(amount) * {"GB": 10**9, "GiB": 2**30, "MiB": 2**20}[unit] * (100 - reserve_percent)
    return -(-100 * state_bytes // room)
    ### END SOLUTION


# %% id="check-1-4" jupyter={"source_hidden": true}
STATES = {  # bytes: bytes a parameter, times parameters
    "7 billion": 16 * 7 * 10**9,
    "175 billion": 16 * 175 * 10**9,
    "405 billion": 18 * 405 * 10**9,
    "yours": (12 + 2 * (seed() % 5)) * (11 + seed() % 701) * 10**9,
}
FULL = 168 * 10**8  # what 24 GB hold when 30 % are left free


def enough(n, state, unit_bytes, amount, reserve):
    return 100 * state <= n * amount * unit_bytes * (100 - reserve)


def smallest(state, unit_bytes, amount, reserve):
    """What fewest_gpus should be, found by trying: doubling until it is enough, then halving the steps."""
    high = 1
    while not enough(high, state, unit_bytes, amount, reserve):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle, state, unit_bytes, amount, reserve) else (middle, high)
    return high


with check("1.4") as c:
    yours, reserve = by_hand(fewest_gpus), 5 + seed() % 40
    for unit, unit_bytes, amounts, hint in (
        (
            "GB",
            10**9,
            (24, 80, 141),
            "a GB is 10**9 bytes, and (100 - reserve_percent) in 100 of them are for the state; rounded up",
        ),
        ("GiB", 2**30, (24, 80, 141), "a GiB is 2**30 bytes, 7 % more than a GB"),
        ("MiB", 2**20, (81920, 23000 + seed() % 1000), "a MiB is 2**20 bytes"),
    ):
        c.equal(
            f"GPUs of so many {unit}",
            {
                f"{name}, {amount} {unit}, {free} % free": yours(state, f"{amount} {unit}", free)
                for name, state in STATES.items()
                for amount in amounts
                for free in (0, reserve)
            },
            lambda unit=unit, unit_bytes=unit_bytes, amounts=amounts: {
                f"{name}, {amount} {unit}, {free} % free": smallest(state, unit_bytes, amount, free)
                for name, state in STATES.items()
                for amount in amounts
                for free in (0, reserve)
            },
            hint=hint,
        )
    several = 2 + seed() % 30
    c.equal(
        "where it just fits",
        [yours(n * FULL, "24 GB", 30) for n in (1, several)],
        lambda: [1, several],
        hint="state / memory comes out even, and a rounding error must not make it one more: stay with whole numbers",
    )
    c.equal(
        "where one byte is too many",
        [yours(n * FULL + 1, "24 GB", 30) for n in (1, several)],
        lambda: [2, several + 1],
        hint="always round up: -(-a // b)",
    )

# %% [markdown]
# So a model outgrows one device twice: its FLOPs would take centuries, and its state does not fit. More devices help with both,
# if each holds a share, and if the shares are brought together in time. The rest of the course is about that.
