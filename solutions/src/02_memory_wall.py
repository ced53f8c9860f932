# %% [markdown]
# # Exercise 02 · The memory wall
#
# You find out whether an operation waits for arithmetic or for memory, count what forward keeps for backward, once with hooks
# and once with a formula, and choose what to compute again instead of keeping it. Ten minutes each. Replace every
# `raise NotImplementedError(...)`, run the cell, then the check below it.
#
# The checks hold your numbers against PyTorch's own counts, against graphs of real modules, and against a search through all
# choices. (They are folded; click the dots to read one.) To have the whole notebook graded:
# `course check exercises/02_memory_wall.ipynb`
#
# The letters: $b$ sequences of $s$ tokens, $h$ numbers that stand for a token between two layers, $a$ heads of attention, $t$
# tensor-parallel ranks. A FLOP is one multiplication or one addition. `itemsize` is the bytes of one number: 2 in bfloat16, 4
# in float32.

# %%
import itertools

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from course_lib.cost.hardware import GPUS
from course_lib.cost.memory import layer_activations
from course_lib.cost.plan import Plan
from course_lib.cost.shapes import Transformer
from course_lib.grading import by_hand, check, seed
from course_lib.memory import MemoryMeter
from course_lib.models.gpt import GPT, Block

# %% [markdown]
# What the checks use. `counted` has PyTorch count the FLOPs of an operation, and adds up the bytes of its tensors. In 2.1 to 2.4
# `by_hand` stops an answer that lets a library do the work: `course_lib` or, except in 2.3, PyTorch.


# %% id="support-counted" jupyter={"source_hidden": true}
DTYPES = {2: torch.bfloat16, 4: torch.float32, 8: torch.float64}


def counted(operation, itemsize, *shapes):
    """(FLOPs, bytes of inputs and output, one over the other) of an operation on tensors that have a shape and no numbers."""
    tensors = [torch.empty(shape, dtype=DTYPES[itemsize], device="meta") for shape in shapes]
    with FlopCounterMode(display=False) as counter:
        tensors.append(operation(*tensors))
    flops, nbytes = counter.get_total_flops(), sum(t.nbytes for t in tensors)
    return flops, nbytes, flops / nbytes


def linear(x, weight):
    return x @ weight.T


def scores(q, k):
    return q @ k.transpose(-1, -2)


flops, nbytes, intensity = counted(linear, 4, (3, 4), (5, 4))
print(f"3 rows, from 4 to 5, float32: {flops} FLOPs, {nbytes} bytes, {intensity:.3f} FLOPs a byte")

# %% [markdown]
# ## 2.1 FLOPs for each byte
#
# An operation has to fetch its inputs from memory and to put its output there. Suppose that each goes once. The **arithmetic
# intensity** is the number of FLOPs over the number of those bytes. A product of $(i \times k)$ and $(k \times j)$ takes $2ikj$
# FLOPs. Work out FLOPs, bytes and intensity of
#
# - a linear layer without a bias: $x$ of (rows, inputs) times $W^\mathsf{T}$, with $W$ of (outputs, inputs);
# - attention scores: for each of $b$ sequences and each of $a$ heads, $Q\,K^\mathsf{T}$, with $Q$ and $K$ of ($s$, $w$), where
#   $w$ is the width of one head. (No scale, no mask, no softmax.)
#
# FLOPs and bytes are whole numbers. See for yourself: the line printed above. Then try `linear_cost(rows, 12288, 12288, 2)`
# with 1, 100 and 10,000 rows, and `scores_cost(1, 96, s, 128, 2)` with longer and longer sequences. Neither intensity grows
# without end. Where do they stop, and why there?


# %% id="answer-2-1"
def linear_cost(rows, inputs, outputs, itemsize):
    """(FLOPs, bytes, FLOPs for each byte) of (rows, inputs) times (inputs, outputs)."""
    ### BEGIN SOLUTION 2.1: FLOPs, bytes and intensity
    ### HINT every number of the output is a sum of `inputs` products
    ### HINT three matrices are moved: both factors and the output
    flops = 2 * rows * inputs * outputs
    nbytes = itemsize * (rows * inputs + inputs * outputs + rows * outputs)
    return flops, nbytes, flops / nbytes
    ### END SOLUTION


def scores_cost(batch, heads, context, head_width, itemsize):
    """(FLOPs, bytes, FLOPs for each byte) of QKᵀ for all heads of all sequences."""
    ### BEGIN SOLUTION 2.1: FLOPs, bytes and intensity
    ### HINT batch · heads products, each (context × head_width) times (head_width × context)
    flops = 2 * batch * heads * context**2 * head_width
    nbytes = itemsize * batch * heads * (2 * context * head_width + context**2)
    return flops, nbytes, flops / nbytes
    ### END SOLUTION


# %% id="check-2-1" jupyter={"source_hidden": true}
LINEARS = {
    "3 rows, 4 to 5, float32": (3, 4, 5, 4),
    "one row, 12,288 to 12,288, 16 bits": (1, 12288, 12288, 2),
    "4,096 rows, 12,288 to 49,152, 16 bits": (4096, 12288, 49152, 2),
    "yours, float64": (7 + seed() % 91, 30 + seed() % 53, 100 + seed() % 67, 8),
}
SCORES = {
    "one head, 5 tokens, width 3, float32": (1, 1, 5, 3, 4),
    "96 heads, 2,048 tokens, width 128, 16 bits": (1, 96, 2048, 128, 2),
    "yours, float64": (2 + seed() % 5, 3 + seed() % 7, 20 + seed() % 83, 8 + seed() % 11, 8),
}

with check("2.1") as c:
    for what, answer, cases, real, hints in (
        (
            "linear",
            linear_cost,
            LINEARS,
            lambda m, k, n, size: counted(linear, size, (m, k), (n, k)),
            (
                "2 · rows · inputs · outputs: a multiplication and an addition",
                "itemsize · (all numbers of x, of W and of the output)",
            ),
        ),
        (
            "scores",
            scores_cost,
            SCORES,
            lambda b, a, s, w, size: counted(scores, size, (b, a, s, w), (b, a, s, w)),
            (
                "each score is a sum of head_width products; there are batch · heads · context²",
                "Q and K have context · head_width numbers a head, the scores context²",
            ),
        ),
    ):
        yours = {name: by_hand(answer)(*case) for name, case in cases.items()}
        for i, part, hint in (
            (0, "FLOPs", hints[0]),
            (1, "bytes", hints[1]),
            (2, "intensity", "FLOPs over bytes, with / and not //"),
        ):
            c.equal(
                f"{part}, {what}",
                {name: costs[i] for name, costs in yours.items()},
                lambda i=i, cases=cases, real=real: {name: real(*case)[i] for name, case in cases.items()},
                hint=hint,
            )

# %% [markdown]
# ## 2.2 The roofline
#
# A device does at most `flops_per_s` FLOPs a second and moves at most `bytes_per_s` bytes a second, and it can do both at the
# same time. So an operation takes **at least** as long as the slower of the two needs (Williams, Waterman and Patterson 2009).
# Write
#
# - `least_seconds`: that time;
# - `smallest_batch`: the fewest rows with which the linear layer of 2.1 is no longer *memory-bound*, that is, its FLOPs take at
#   least as long as its bytes. With more rows that stays so. For some layers no number of rows is enough: return `None`.
#
# All arguments of `smallest_batch` are whole numbers, and so is the result. Solve for it, and stay with whole numbers: some
# layers need billions of rows, too many to try one after the other and too close for floats.
#
# See for yourself: an A100 does 312 TFLOP/s and moves 2 TB/s, which makes 156 FLOPs for each byte. There a layer from 12,288 to
# 12,288 in 16 bits needs 161 rows, and one from 300 to 300 waits for memory whatever you give it.


# %% id="answer-2-2"
def least_seconds(flops, nbytes, flops_per_s, bytes_per_s):
    """The least time that an operation with so many FLOPs and bytes takes."""
    ### BEGIN SOLUTION 2.2: the roofline, and where a linear layer leaves memory behind
    ### HINT two times, at the same time: the longer one counts
    return max(flops / flops_per_s, nbytes / bytes_per_s)
    ### END SOLUTION


def smallest_batch(inputs, outputs, itemsize, flops_per_s, bytes_per_s):
    """The fewest rows with which FLOPs take at least as long as bytes; None if they never do."""
    ### BEGIN SOLUTION 2.2: the roofline, and where a linear layer leaves memory behind
    ### HINT with m rows, k inputs, n outputs: 2·m·k·n / flops_per_s >= itemsize·(m·k + k·n + m·n) / bytes_per_s
    ### HINT multiply by both rates and bring all that has m to the left; then divide and round up, -(-a // b)
    ### HINT is what stands before m positive? If not, more rows do not help
    per_row = 2 * inputs * outputs * bytes_per_s - itemsize * (inputs + outputs) * flops_per_s
    weights = itemsize * inputs * outputs * flops_per_s
    return -(-weights // per_row) if per_row > 0 else None
    ### END SOLUTION


# %% id="check-2-2" jupyter={"source_hidden": true}
DEVICES = {name: (round(gpu.tflops * 1e12), round(gpu.memory_tb_s * 1e12)) for name, gpu in GPUS.items()}
BYTES_PER_S = 2 * (10**9 + seed())
MINE = (20 * BYTES_PER_S, BYTES_PER_S)  # 20 FLOPs for each byte
CLOSE = (20 * BYTES_PER_S + BYTES_PER_S // 2 - 1, BYTES_PER_S)  # a little less than 20.5
OPERATIONS = {
    "much arithmetic": (10**15 + seed(), 10**9),
    "many bytes": (10**9, 10**12 + seed()),
    "no arithmetic": (0, 12345 + seed()),
}
LAYERS = {
    "12,288 to 12,288, 16 bits": (12288, 12288, 2),
    "4,096 to 16,384, float32": (4096, 16384, 4),
    "yours, 16 bits": (1000 + seed() % 9000, 2000 + seed() % 7000, 2),
}


def waits_for_memory(rows, inputs, outputs, itemsize, flops_per_s, bytes_per_s):
    flops, nbytes = 2 * rows * inputs * outputs, itemsize * (rows * (inputs + outputs) + inputs * outputs)
    return flops * bytes_per_s < nbytes * flops_per_s


def by_search(*case):
    """What smallest_batch should be, by doubling and halving; None if 2 to the 120 rows are not enough."""
    high = 1
    while waits_for_memory(high, *case):
        high *= 2
        if high > 2**120:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if waits_for_memory(middle, *case) else (low, middle)
    return high


with check("2.2") as c:
    time_yours, rows_yours = by_hand(least_seconds), by_hand(smallest_batch)
    c.equal(
        "least seconds",
        {
            f"{name} on {gpu}": time_yours(*cost, *rates)
            for name, cost in OPERATIONS.items()
            for gpu, rates in DEVICES.items()
        },
        lambda: {
            f"{name} on {gpu}": sorted((cost[0] / rates[0], cost[1] / rates[1]))[1]
            for name, cost in OPERATIONS.items()
            for gpu, rates in DEVICES.items()
        },
        hint="FLOPs over FLOP/s, bytes over bytes/s, and the longer of the two: both go on at the same time",
    )
    c.equal(
        "rows on real GPUs",
        {
            f"{name} on {gpu}": rows_yours(*layer, *rates)
            for name, layer in LAYERS.items()
            for gpu, rates in DEVICES.items()
        },
        lambda: {
            f"{name} on {gpu}": by_search(*layer, *rates)
            for name, layer in LAYERS.items()
            for gpu, rates in DEVICES.items()
        },
        hint="solve 2mkn / flops_per_s >= itemsize (mk + kn + mn) / bytes_per_s for m, the rows, and round up",
    )
    c.equal(
        "rows of a small layer",
        {f"300 to 300, 16 bits on {gpu}": rows_yours(300, 300, 2, *rates) for gpu, rates in DEVICES.items()},
        lambda: {
            f"300 to 300, 16 bits on {gpu}": by_search(300, 300, 2, *rates) for gpu, rates in DEVICES.items()
        },
        hint="None where more rows never help, on this device: where what stands before m is not positive",
    )
    for name, layer, hint in (
        (
            "rows where it comes out even",
            (120, 120, 2, *MINE),
            "with these rows both take equally long, and that is enough",
        ),
        ("rows where it is never enough, just", (40, 40, 2, *MINE), "what stands before m is 0: None"),
        (
            "rows where it is enough, just",
            (41, 41, 2, *CLOSE),
            "what stands before m is positive, if only just: whole numbers show that, floats round it away",
        ),
        (
            "rows of a wide and narrow layer",
            (10**6, 20 + seed() % 4, 2, *MINE),
            "the smaller of inputs and outputs decides whether it is ever enough",
        ),
    ):
        c.equal(name, rows_yours(*layer), lambda layer=layer: by_search(*layer), hint=hint)

# %% [markdown]
# ## 2.3 What forward keeps
#
# While forward runs, autograd puts tensors aside that backward will need. In a block
# `with torch.autograd.graph.saved_tensors_hooks(pack, unpack):` it calls `pack` with each tensor that it puts aside and keeps
# what `pack` returns; in backward it calls `unpack` with that, to have the tensor back.
#
# Return how many bytes `module(*inputs)` keeps for backward, where
#
# - every **storage** (`tensor.untyped_storage()`) counts once, with all of its `nbytes()`, however many tensors look into it:
#   one view keeps all of it alive;
# - parameters don't count, since they are there anyway, nor does a view of one: a linear layer puts its weight aside
#   transposed;
# - all else counts, inputs too, if it is put aside.
#
# Cost: one forward, no backward. Afterwards all is as before: no hooks in force, no tensors alive, and the next call counts
# from zero. One trap: a result that is put aside knows the step of the graph that made it. If `pack` returns that very tensor,
# the step holds the tensor and the tensor the step, and nothing ever frees the two. `tensor.detach()` has the same storage and
# no part in the graph.
#
# See for yourself: an MLP, `nn.Sequential(nn.Linear(h, 4 * h), nn.GELU(), nn.Linear(4 * h, h))`, keeps its input, what goes
# into GELU, and what comes out of it: $9h$ numbers for each token.


# %% id="answer-2-3"
def saved_bytes(module, *inputs):
    """Bytes that module(*inputs) keeps for backward, parameters left out."""
    ### BEGIN SOLUTION 2.3: bytes that forward keeps
    ### HINT a dict from storage.data_ptr(), its address, to storage.nbytes() holds every storage once
    ### HINT at which addresses are the parameters?
    ### HINT let pack return tensor.detach(): it holds the storage, so that its address is not used again, and nothing else
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        module(*inputs)
    for parameter in module.parameters():
        kept.pop(parameter.untyped_storage().data_ptr(), None)
    return sum(kept.values())
    ### END SOLUTION


# %% id="support-2-3" jupyter={"source_hidden": true}
class FusedAttention(nn.Module):
    """Attention with q, k and v cut from one product; one head, no mask."""

    def __init__(self, width):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return torch.softmax(q @ k.transpose(-1, -2), dim=-1) @ v


class Counting(nn.Module):
    """A module that counts how often it goes forward, and how often a gradient comes back."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.forwards, self.backwards = inner, 0, 0

    def forward(self, *inputs):
        self.forwards += 1
        output = self.inner(*inputs)
        if output.requires_grad:
            output.register_hook(self.count_backward)
        return output

    def count_backward(self, gradient):
        self.backwards += 1


def mlp(width, between):
    return nn.Sequential(nn.Linear(width, 4 * width), between, nn.Linear(4 * width, width))


def modules(number):
    """Modules with an input each, of sizes that `number` gives."""
    torch.manual_seed(number)
    h, s = 2 * (3 + number % 7), 5 + number % 11
    x = torch.randn(2, s, h)
    return {
        "LayerNorm": (nn.LayerNorm(h), x),
        "LayerNorm and linear": (nn.Sequential(nn.LayerNorm(h), nn.Linear(h, 3)), x),
        "MLP with GELU": (mlp(h, nn.GELU()), x),
        "MLP with GELU, float64": (mlp(h, nn.GELU()).double(), x.double()),
        "MLP with ReLU": (mlp(h, nn.ReLU()), x),
        "attention with q, k, v in one": (FusedAttention(h), x),
        "Block": (Block(h, 2), x),
        "GPT": (GPT(50, s, h, num_layers=2, num_heads=2), torch.randint(50, (3, s))),
    }


def in_the_graph(module, *inputs):
    """Bytes of the storages that the finished graph holds, found by walking through it from its end."""
    todo, seen, storages = [module(*inputs).grad_fn], set(), {}
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        todo += [before for before, _ in node.next_functions]
        for name in dir(node):
            if name.startswith("_saved_") and torch.is_tensor(tensor := getattr(node, name)):
                storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    for parameter in module.parameters():
        storages.pop(parameter.untyped_storage().data_ptr(), None)
    return sum(storages.values())


def hooks_in_force():
    """How many pairs of hooks are in force; afterwards there are none."""
    for count in itertools.count():
        try:  # refused where hooks have packed the tensor already
            y = torch.ones(1, requires_grad=True).exp()
            y.grad_fn._raw_saved_result.register_hooks(id, id)
            return count
        except Exception:
            torch.autograd.graph.saved_tensors_hooks(id, id).__exit__()


# %% id="check-2-3" jupyter={"source_hidden": true}
with check("2.3") as c:
    hooks_in_force()  # takes away what an earlier attempt may have left
    cases = modules(seed())
    yours = {name: by_hand(saved_bytes, "course_lib.memory")(*case) for name, case in cases.items()}
    left = hooks_in_force()
    for names, hint in (
        (
            ("LayerNorm", "LayerNorm and linear"),
            "its weight and bias are parameters, the linear's transposed weight has a parameter's storage; its input counts",
        ),
        (
            ("MLP with GELU", "MLP with GELU, float64"),
            "its input, GELU's input and its output: 9h numbers a token, in bytes",
        ),
        (
            ("MLP with ReLU",),
            "ReLU keeps its output, and so does the linear that has it as its input: one storage, counted once",
        ),
        (
            ("attention with q, k, v in one",),
            "q, k and v are views of one storage: it counts once, and whole",
        ),
        (("Block", "GPT"), "add up storages, each once, whatever their dtype, and no parameter's"),
    ):
        c.equal(
            f"bytes of {names[0]}",
            {name: yours[name] for name in names},
            lambda names=names: {name: in_the_graph(*cases[name]) for name in names},
            hint=hint,
        )
    c.equal(
        "bytes of Block, asked again",
        saved_bytes(*cases["Block"]),
        lambda: in_the_graph(*cases["Block"]),
        hint="start from an empty count in every call",
    )
    c.at_most(
        "pairs of hooks left in force",
        left + hooks_in_force(),
        lambda: 0,
        hint="right, but the hooks are still there: `with` takes them away at its end",
    )
    module, x = Counting(cases["Block"][0]), cases["Block"][1]
    with MemoryMeter(module) as meter:
        saved_bytes(module, x)
        alive = meter.now
    hooks_in_force()
    c.at_most(
        "forwards",
        module.forwards,
        lambda: 1,
        hint="right, but too dear: one forward puts aside all that there is to count",
    )
    c.at_most(
        "backwards",
        module.backwards,
        lambda: 0,
        hint="right, but too dear: what forward keeps is known when it ends",
    )
    c.at_most(
        "bytes still alive",
        alive.activations,
        lambda: 0,
        hint="right, but tensors outlive the call: pack returns tensor.detach(), and none is kept outside the function",
    )

# %% [markdown]
# ## 2.4 The same by formula
#
# What one layer of a GPT keeps, in 16 bits and with dropout, as Korthikanti et al. 2022 count it (section 4.1). A mask of
# dropout has one byte a number:
#
# | what | bytes | cut by $t$ |
# |---|---|---|
# | inputs of the two norms | $2 \cdot 2sbh$ | no |
# | input of q, k and v; input of the MLP | $2 \cdot 2sbh$ | no |
# | masks of the two dropouts, behind attention and behind the MLP | $2 \cdot sbh$ | no |
# | q, k, v, and the input of o | $4 \cdot 2sbh$ | yes, by heads |
# | inputs of GELU and of the MLP's second linear, $4h$ wide | $2 \cdot 8sbh$ | yes, by columns |
# | result of softmax, and that after its dropout, $s \times s$ for each head | $2 \cdot 2as^2b$ | yes, by heads |
# | mask of that dropout | $as^2b$ | yes, by heads |
#
# With $t$ tensor-parallel ranks each holds one $t$-th of what is cut. **Sequence parallel** cuts the other rows as well, along
# the sequence. **Selective** recomputation does not keep the last two rows: from q and k on, scores, softmax and dropout run
# again in backward. **Full** recomputation keeps nothing but the input of the layer's first norm, whole on every rank, or cut
# if sequence parallel is on.
#
# Return the bytes on one rank. See for yourself: without any of that there are $sbh(34 + 5as/h)$ (equation 1). For GPT-3, where
# $s = 2048$, $h = 12288$ and $a = 96$, the bracket is $34 + 80$, so that selective recomputation saves 70 %. Then compare with
# what you measured in 2.3: a `Block` keeps about $16sbh$ numbers, which in 16 bits would be $32sbh$ bytes. Which two are
# missing, and where are the 80?


# %% id="answer-2-4"
def layer_bytes(s, b, h, a, t=1, sequence_parallel=False, recompute="none"):
    """Bytes that one layer keeps on one of t ranks; recompute is "none", "selective" or "full"."""
    ### BEGIN SOLUTION 2.4: bytes of activations by formula
    ### HINT add up three groups: cut only by sequence parallel; cut by t; cut by t and not kept with "selective"
    parts = t if sequence_parallel else 1
    if recompute == "full":
        return 2 * s * b * h / parts
    core = 0 if recompute == "selective" else 5 * a * s**2 * b
    return 10 * s * b * h / parts + (24 * s * b * h + core) / t
    ### END SOLUTION


# %% id="check-2-4" jupyter={"source_hidden": true}
GPT_LAYERS = {  # s, b, h, a
    "22 billion": (2048, 4, 6144, 64),
    "175 billion": (2048, 1, 12288, 96),
    "long sequence": (16384, 1, 4096, 32),
    "yours": (64 * (1 + seed() % 29), 1 + seed() % 6, 24 * 8 * (1 + seed() % 11), 24),
}


def by_the_library(s, b, h, a, t=1, sequence_parallel=False, recompute="none"):
    model = Transformer("a GPT of one layer", 1, h, a, context=s)
    plan = Plan(tp=t, batch=b, microbatch=b, sequence_parallel=sequence_parallel, recompute=recompute)
    return float(layer_activations(model, plan))


def over_sbh(answer, s, b, h, *rest):
    """Bytes over sbh: 34 + 5as/h on one rank."""
    return float(answer(s, b, h, *rest)) / (s * b * h)


with check("2.4") as c:
    yours, again = by_hand(layer_bytes), ("none", "selective", "full")
    for what, options, hint in (
        (
            "one rank, none",
            [(1, False, "none")],
            "the table's column, added up: 4 + 4 + 2, and 8 + 16, each times sbh, and 4 + 1 times as²b",
        ),
        (
            "one rank, selective",
            [(1, False, "selective")],
            "the last two rows of the table are not kept, all others are",
        ),
        ("one rank, full", [(1, False, "full")], "the input of the first norm only: sbh numbers of 2 bytes"),
        (
            "tensor parallel",
            [(t, False, recompute) for t in (2, 4, 8) for recompute in again],
            "t divides the rows that say yes; the others are whole on every rank, and so is the input that is kept with full",
        ),
        (
            "tensor and sequence parallel",
            [(t, True, recompute) for t in (2, 4, 8) for recompute in again],
            "now t divides every row, once",
        ),
    ):
        cases = {
            f"{name}, t = {t}, {recompute}": (*layer, t, sequence, recompute)
            for name, layer in GPT_LAYERS.items()
            for t, sequence, recompute in options
        }
        c.equal(
            f"bytes / sbh, {what}",
            {name: over_sbh(yours, *case) for name, case in cases.items()},
            lambda cases=cases: {name: over_sbh(by_the_library, *case) for name, case in cases.items()},
            hint=hint,
        )

# %% [markdown]
# ## 2.5 What to compute again
#
# `layers` is a chain, numbered from 0. Each layer is a triple of whole numbers: `kept_bytes`, what it keeps for backward, its
# input included; `input_bytes`, its input alone; `forward_ms`, the time of its forward. A layer is either kept or recomputed.
#
# - From its forward to its own backward, layer $j$ holds `kept_bytes` if it is kept, and `input_bytes` if it is recomputed.
# - Backward goes from the last layer to the first. While it is at layer $i$, that layer has all of its `kept_bytes`,
#   **recomputed or not**: a recomputed layer runs forward again first, and that adds its `forward_ms`. The layers after $i$
#   hold nothing any more; those before $i$ hold what they held.
#
# So the most bytes at any moment are $\max_i \left(\text{kept}_i + \sum_{j<i} \text{held}_j\right)$: that is `peak_bytes`.
# (Gradients and weights are not counted here.) Then `choose`: which layers to recompute so that the peak is at most
# `limit_bytes` and the **added time is least**. Return their numbers, in any collection, or `None` if every choice is above the
# limit. There are ten layers at most, so that all choices can be tried. Of choices that add equally little, any will do.
#
# See for yourself: with `layers = [(10, 1, 5)] * 3` the peak is 30. It is 21 with layer 0 recomputed, 12 with layers 0 and 1,
# and 30 again with layer 2 alone. Why does it save nothing to recompute the last layer?


# %% id="answer-2-5"
def peak_bytes(layers, recomputed):
    """The most bytes at any moment; recomputed holds the numbers of the layers that are recomputed."""
    ### BEGIN SOLUTION 2.5: what to compute again
    ### HINT go through the layers with a running sum of what is held before this one
    held = peak = 0
    for i, (kept_bytes, input_bytes, _) in enumerate(layers):
        peak = max(peak, held + kept_bytes)
        held += input_bytes if i in recomputed else kept_bytes
    return peak
    ### END SOLUTION


def choose(layers, limit_bytes):
    """The numbers of the layers to recompute; None if no choice stays within limit_bytes."""
    ### BEGIN SOLUTION 2.5: what to compute again
    ### HINT itertools.combinations(range(n), k) gives all choices of k layers; k may be 0
    ### HINT of the choices whose peak fits, take the one with the least sum of forward_ms
    n = len(layers)
    choices = (c for k in range(n + 1) for c in itertools.combinations(range(n), k))
    fitting = (c for c in choices if peak_bytes(layers, c) <= limit_bytes)
    return min(fitting, key=lambda choice: sum(layers[i][2] for i in choice), default=None)
    ### END SOLUTION


# %% id="support-2-5" jupyter={"source_hidden": true}
def drawn_layers(number, n):
    """n layers of random sizes, whole numbers."""
    generator = torch.Generator().manual_seed(number)
    rows = torch.randint(1, 100, (n, 3), generator=generator).tolist()
    return [(10 * small + large, small, ms) for large, small, ms in rows]


def peak_of(layers, recomputed):
    """What peak_bytes should be: the bytes at every moment, written down."""
    again = set(recomputed)
    held = [given if i in again else kept for i, (kept, given, _) in enumerate(layers)]
    return max(kept + sum(held[:i]) for i, (kept, _, _) in enumerate(layers))


def added_ms(layers, recomputed):
    return sum(layers[i][2] for i in set(recomputed))


def every_choice(n):
    return [[i for i in range(n) if bits >> i & 1] for bits in range(2**n)]


def least_ms(layers, limit_bytes):
    """The least time that has to be added, or None: all choices tried."""
    fits = [c for c in every_choice(len(layers)) if peak_of(layers, c) <= limit_bytes]
    return min((added_ms(layers, c) for c in fits), default=None)


def tasks(number):
    """Layers and a limit each."""
    u, v = 1 + number % 53, 1 + number % 7  # bytes and milliseconds: the size of the unit must not matter
    chain, long = drawn_layers(number, 7), drawn_layers(number + 1, 9)
    least, most = peak_of(long, range(9)), peak_of(long, [])
    found = {
        "no need": (chain, peak_of(chain, [])),
        "the least possible": (chain, peak_of(chain, range(7))),
        "a byte below that": (chain, peak_of(chain, range(7)) - 1),
        "a large one, a cheap one": ([(70, 10, 40), (110, 10, 90), (20, 10, 10), (100, 10, 50)], 240),
        "one that is enough": ([(70, 10, 20), (110, 10, 35), (20, 10, 10), (150, 10, 90)], 250),
        "a cheap last layer": ([(60, 10, 30), (50, 10, 20), (90, 10, 1)], 160),
        "a large layer comes back": ([(10, 1, 5), (200, 1, 5), (10, 1, 5)], 202),
        "too large to come back": ([(10, 1, 5), (200, 1, 5), (10, 1, 5)], 150),
        "equal layers": ([(114, 2, 7)] * 8, 600),
    }
    scaled = {
        name: ([(u * kept, u * given, v * ms) for kept, given, ms in layers], u * limit)
        for name, (layers, limit) in found.items()
    }
    return scaled | {f"nine layers, {k}": (long, least + (most - least) * k // 5) for k in (1, 2, 3, 4)}


# %% id="check-2-5" jupyter={"source_hidden": true}
with check("2.5") as c:
    cases, chain = tasks(seed()), drawn_layers(seed() + 2, 6)
    for name, choices, hint in (
        ("nothing again", [[]], "all kept: the sum of all kept_bytes, reached in backward of the last layer"),
        (
            "some again",
            [[5], [0], [0, 2, 4], [1, 3], [0, 1, 2, 3, 4, 5]],
            "at layer i: its kept_bytes, recomputed or not, and what the layers before it hold; the largest over all i",
        ),
    ):
        c.equal(
            f"peak, {name}",
            {f"{again}": peak_bytes(chain, again) for again in choices},
            lambda choices=choices: {f"{again}": peak_of(chain, again) for again in choices},
            hint=hint,
        )
    c.equal(
        "peak of a large layer that comes back",
        [peak_bytes(cases["a large layer comes back"][0], again) for again in ([1], [0, 1])],
        lambda: [peak_of(cases["a large layer comes back"][0], again) for again in ([1], [0, 1])],
        hint="while backward is at a recomputed layer, that layer has all of its kept_bytes",
    )
    yours = {name: choose(*case) for name, case in cases.items()}
    c.equal(
        "is there a choice",
        {name: "no" if choice is None else "yes" for name, choice in yours.items()},
        lambda: {name: "no" if least_ms(*case) is None else "yes" for name, case in cases.items()},
        hint="None only where the peak is above the limit whatever is recomputed; to recompute nothing is a choice, []",
    )
    met = {name: choice for name, choice in yours.items() if choice is not None}
    c.equal(
        "bytes over the limit",
        {name: max(0, peak_of(cases[name][0], choice) - cases[name][1]) for name, choice in met.items()},
        lambda: {name: 0 for name, case in cases.items() if least_ms(*case) is not None},
        hint="take only choices whose peak is at most limit_bytes",
    )
    c.equal(
        "added ms",
        {name: added_ms(cases[name][0], choice) for name, choice in met.items()},
        lambda: {name: ms for name, case in cases.items() if (ms := least_ms(*case)) is not None},
        hint="it fits, but another choice adds less: try them all, and compare sums of forward_ms",
    )

# %% [markdown]
# It is memory that runs out: its bandwidth, since whatever is not a large product waits for it, and its room, since forward
# keeps far more than a layer's input. One answer is to compute again. The other is to have more devices; but then they must
# talk. That is chapter 03.
