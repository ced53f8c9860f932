# %% [markdown]
# # Exercise 12 · Choosing a layout
#
# You write a small planner: the layouts that are possible, what one of them holds, which is the fastest that fits, and why another one is not. Ten minutes each.
# Replace every `raise NotImplementedError(...)`, run the cell, then the check below it.
#
# The checks compare with the course's own calculator and planner; **and they count** what you looked at on the way. (They are folded; click
# the dots to read one.) `by_hand` stops an answer that calls `course_lib`: here it is you who counts. To have the whole notebook graded: `course check exercises/12_choosing_a_layout.ipynb`
#
# As in the lesson: $p$ pipeline stages, $d$ data-parallel copies, $t$ tensor-parallel slices of $n$ GPUs; $B$ sequences a step, $b$ in a micro-batch,
# $m = B/(d\,b)$ micro-batches. The model has $l$ layers, $h$ numbers a token, $a$ heads, $s$ tokens a sequence.

# %%
import functools
import random
import time
from dataclasses import replace
from typing import NamedTuple

from course_lib import RankTimeout, launch
from course_lib.cost import planner
from course_lib.cost.candidate import Tools, weigh
from course_lib.cost.hardware import SYSTEMS
from course_lib.cost.memory import layer_activations, training_state
from course_lib.cost.plan import Plan
from course_lib.cost.planner import divisors, search
from course_lib.cost.shapes import Transformer
from course_lib.cost.step_time import tensor_parallel_bytes
from course_lib.grading import by_hand, check, seed

# %% [markdown]
# ## 12.1 Every layout
#
# Return every $(p, d, t)$ that is possible, in any order, each once, as whole numbers:
#
# - $p \cdot d \cdot t$ is the number of GPUs,
# - $p$ divides the layers,
# - $t$ divides the heads, and it divides the GPUs of a node, so that no group of ranks lies in two nodes,
# - $d$ divides the batch.
#
# Cost: **720,720 GPUs within a few seconds.** There are more triples than you can try; but who chooses $p$ and $t$ has no choice of $d$.
#
# See for yourself: a model of 6 layers and 4 heads on 8 GPUs with nodes of 4, batch 8, has `(1, 2, 4)`, `(1, 4, 2)`, `(1, 8, 1)`, `(2, 1, 4)`, `(2, 2, 2)`, `(2, 4, 1)`.


# %% id="support-12-1" jupyter={"source_hidden": true}
class Cluster(NamedTuple):
    """What layouts() is asked."""

    num_gpus: int
    batch: int
    num_layers: int
    num_heads: int
    gpus_per_node: int


def clusters(number):
    """Some to try, by what they are about."""
    draw = random.Random(number)
    found = {
        "layers": Cluster(48, 48, 10, 8, 8),
        "heads": Cluster(64, 64, 4, draw.choice([6, 10, 12, 20]), 8),
        "a node of 6": Cluster(72, 72, 12, 24, 6),
        "batch": Cluster(64, draw.choice([12, 20, 24]), 32, 32, 8),
        "more GPUs than the batch needs": Cluster(4096, 4, 8, 8, 8),
        "an odd number of GPUs": Cluster(105, 315, 105, 128, 8),
        "a small one": Cluster(8, 8, 6, 4, 4),
        "GPT-3 on 1,024 GPUs": Cluster(1024, 1536, 96, 96, 8),
    }
    for i in range(4):
        n = draw.choice([24, 60, 96, 120, 144]) * draw.randint(1, 3)
        layers, heads = draw.choice([12, 20, 24, 30]), draw.choice([8, 12, 16])
        found[f"random {i}"] = Cluster(n, n * draw.randint(1, 4), layers, heads, draw.choice([4, 6, 8]))
    return found


def listed(layouts):
    """Triples as a sorted text."""
    return " ".join(f"({p},{d},{t})" for p, d, t in sorted(tuple(layout) for layout in layouts)) or "none"


HUGE = Cluster(720_720, 720_720, 120, 120, 8)
TIME = 5  # seconds


def huge(answer):
    """How many layouts the answer finds for HUGE, and the seconds it took, on a process that is stopped after TIME and one."""

    def on_a_rank():
        begin = time.perf_counter()
        found = len(list(answer(*HUGE)))
        return found, time.perf_counter() - begin

    try:
        return launch(on_a_rank, 1, timeout_s=TIME + 1)[0]
    except RankTimeout:
        return "not done", TIME + 1


# %% id="answer-12-1"
def layouts(num_gpus, batch, num_layers, num_heads, gpus_per_node):
    """All (p, d, t) that cut the cluster, the model and the batch."""
    ### BEGIN SOLUTION 12.1: every layout that is possible
    ### HINT go through the t up to the GPUs of a node, and the p up to the layers; then d is num_gpus // (p * t), if that leaves no rest
    found = []
    for t in range(1, gpus_per_node + 1):
        if gpus_per_node % t or num_heads % t:
            continue
        for p in range(1, num_layers + 1):
            d, rest = divmod(num_gpus, p * t)
            if num_layers % p == 0 and rest == 0 and d > 0 and batch % d == 0:
                found.append((p, d, t))
    return found
    ### END SOLUTION


# %% id="check-12-1" jupyter={"source_hidden": true}
def all_layouts(num_gpus, batch, num_layers, num_heads, gpus_per_node):
    """The same from the divisors of everything."""
    ts = [t for t in divisors(gpus_per_node) if num_heads % t == 0]
    ds = [d for d in divisors(batch) if num_gpus % d == 0]
    return [(p, d, t) for p in divisors(num_layers) for d in ds for t in ts if p * d * t == num_gpus]


with check("12.1") as c:
    hints = {
        "layers": "p divides the layers: 3 stages of 10 layers would be unequal",
        "heads": "t divides the heads: each rank has whole ones",
        "a node of 6": "t divides the GPUs of a node: with t = 4 in nodes of 6 the second group lies in two nodes",
        "batch": "d divides the batch, so that each copy has as many sequences",
        "more GPUs than the batch needs": "with d up to the batch, p up to the layers and t up to the node, that many GPUs cannot be used",
    }
    yours = by_hand(layouts)
    for name, cluster in clusters(seed()).items():
        c.equal(
            name,
            listed(yours(*cluster)),
            lambda cluster=cluster: listed(all_layouts(*cluster)),
            hint=hints.get(name, "p · d · t is all GPUs; each triple once, as (p, d, t), in whole numbers"),
        )
    found, seconds = huge(layouts)
    c.at_most(
        "seconds for 720,720 GPUs",
        seconds,
        lambda: TIME,
        hint="do not go through the values of d: with p and t given there is only one",
    )
    c.equal("layouts of 720,720 GPUs", found, lambda: len(all_layouts(*HUGE)), hint="as for the small ones")

# %% [markdown]
# ## 12.2 The largest micro-batch that fits
#
# What does a GPU of the **first stage** hold? It has $l/p$ layers of $12h^2$ parameters, and a $t$-th of each.
#
# - *State*: 2 bytes a parameter for weights, 2 for gradients, 12 for the optimizer. ZeRO 1 divides the last by $d$, ZeRO 2 the gradients as well, ZeRO 3 the weights as well.
# - *Activations* of one layer and one micro-batch, by `recompute`: "none" $sbh\left(10 + \frac{24}{t} + \frac{5as}{ht}\right)$; "selective" the same without the last term; "full" $2sbh$ (Korthikanti et al. 2022, equations 1 to 6).
# - With 1F1B, the first stage has $\min(p, m)$ micro-batches under way; each leaves activations in all layers of the stage.
# - With "full", while one layer runs again, what "none" keeps of a layer is there too, once.
#
# Embedding and head are left out. `stage_bytes` returns the sum in bytes. `largest_microbatch` returns the largest $b$ with which at most `limit` bytes are held, or 0 if there
# is none; $b$ must divide the $B/d$ sequences of a copy. It gets `cut` with some `microbatch` in it, and `cut._replace(microbatch=2)` is the same with another.
#
# See for yourself: for GPT-3 (`Shape(96, 12288, 96, 2048)`), `Cut(16, 8, 8, 1536, 1, 0, "full")` holds 27,153,924,096 bytes, most of it state.


# %% id="support-12-2" jupyter={"source_hidden": true}
class Shape(NamedTuple):
    """A model."""

    num_layers: int
    width: int
    num_heads: int
    context: int


class Cut(NamedTuple):
    """How it is trained."""

    p: int
    d: int
    t: int
    batch: int
    microbatch: int
    zero: int
    recompute: str


def shapes(number):
    """Models to try."""
    draw = random.Random(number)
    heads = draw.choice([8, 16, 24])
    return {
        "GPT-3": Shape(96, 12288, 96, 2048),
        "yours": Shape(draw.choice([12, 24, 36]), heads * 64 * draw.randint(2, 5), heads, draw.choice([1024, 4096])),
    }


def cuts(number):
    """Of each kind some, by what they are about."""
    draw = random.Random(number)
    d, b = draw.choice([4, 8, 16]), draw.choice([1, 2, 4])
    usual = Cut(4, d, 4, 32 * d, b, 0, "none")
    found = {"one GPU": Cut(1, 1, 1, 8, 1, 0, "none"), "everything cut": usual}
    found |= {f"ZeRO {zero}": usual._replace(zero=zero) for zero in (1, 2, 3)}
    found |= {kind: usual._replace(recompute=kind) for kind in ("selective", "full")}
    found["fewer micro-batches than stages"] = usual._replace(p=12, batch=2 * d * b)
    found["full, with few micro-batches"] = found["fewer micro-batches than stages"]._replace(recompute="full")
    return found


def limits(number):
    """For largest_microbatch: shape, cut, limit in bytes."""
    draw, gpt3 = random.Random(number), Shape(96, 12288, 96, 2048)
    off = draw.randint(1, 1000) * 10**5
    found = {
        "GPT-3, full": (gpt3, Cut(16, 8, 8, 1536, 1, 0, "full"), 64 * 10**9 - off),
        "GPT-3, selective": (gpt3, Cut(12, 8, 8, 1536, 1, 1, "selective"), 64 * 10**9 - off),
        "divisors of 105": (Shape(24, 2048, 16, 2048), Cut(2, 2, 2, 210, 1, 1, "full"), 30 * 10**9 - off),
        "nothing fits": (gpt3, Cut(1, 128, 8, 1536, 1, 0, "full"), 64 * 10**9 - off),
        "all of it fits": (Shape(12, 1024, 16, 1024), Cut(2, 4, 2, 48, 4, 1, "full"), 64 * 10**9 - off),
    }
    exact = Cut(8, 8, 8, 512, 1, 1, "selective")
    found["to the last byte"] = (gpt3, exact, round(held(gpt3, exact._replace(microbatch=2))))
    return found


def held(shape, cut):
    """The bytes, from the course's calculator."""
    model = Transformer("model", shape.num_layers, shape.width, shape.num_heads, context=shape.context)
    p, d, t, batch, b, zero, recompute = cut
    parameters = shape.num_layers // p * 12 * shape.width**2 // t
    state = training_state(parameters, d, zero, 2, 2, 12).total
    layer, whole = (
        layer_activations(model, Plan(tp=t, batch=b, microbatch=b, recompute=kind)) for kind in (recompute, "none")
    )
    under_way = min(p, batch // (d * b)) * shape.num_layers // p
    return float(state + under_way * layer + (whole if recompute == "full" else 0))


# %% id="answer-12-2"
def stage_bytes(shape, cut):
    """Bytes on a GPU of the first stage."""
    layers, h, a, s = shape
    p, d, t, batch, b, zero, recompute = cut
    ### BEGIN SOLUTION 12.2: the largest micro-batch that fits
    ### HINT state: parameters on this GPU times 2 + 2 + 12, each divided by d from its ZeRO stage on
    ### HINT activations: those of a layer, times the layers of the stage, times the micro-batches under way
    parameters = layers / p * 12 * h**2 / t
    state = parameters * (
        2 / (d if zero >= 3 else 1) + 2 / (d if zero >= 2 else 1) + 12 / (d if zero >= 1 else 1)
    )
    core = 5 * a * s / (h * t)
    a_layer = {"none": 10 + 24 / t + core, "selective": 10 + 24 / t, "full": 2}
    under_way = min(p, batch // (d * b))
    once_more = a_layer["none"] if recompute == "full" else 0
    return state + s * b * h * (layers / p * under_way * a_layer[recompute] + once_more)
    ### END SOLUTION


def largest_microbatch(shape, cut, limit):
    """The largest micro-batch with which at most `limit` bytes are held, or 0."""
    ### BEGIN SOLUTION 12.2: the largest micro-batch that fits
    ### HINT try the divisors of batch // d, the largest first: stage_bytes(shape, cut._replace(microbatch=b))
    copy = cut.batch // cut.d
    for b in range(copy, 0, -1):
        if copy % b == 0 and stage_bytes(shape, cut._replace(microbatch=b)) <= limit:
            return b
    return 0
    ### END SOLUTION


# %% id="check-12-2" jupyter={"source_hidden": true}
def largest(shape, cut, limit):
    """The same, tried from below."""
    fits = [b for b in divisors(cut.batch // cut.d) if held(shape, cut._replace(microbatch=b)) <= limit]
    return max(fits, default=0)


with check("12.2") as c:
    yours, most = by_hand(stage_bytes), by_hand(largest_microbatch)
    hints = {
        "one GPU": "16 bytes of state a parameter; sbh(34 + 5as/h) of activations a layer, for one micro-batch under way",
        "everything cut": "l/p layers, a t-th of each: state is divided by p and t, not by d; the 10 is divided by nothing; min(p, m) are under way",
        "ZeRO 1": "ZeRO 1 divides the optimizer's 12 bytes by d, and nothing else",
        "ZeRO 2": "ZeRO 2 divides the 12 and the 2 of gradients by d",
        "ZeRO 3": "ZeRO 3 divides all 16 by d",
        "selective": "selective drops 5as/(ht) and keeps 10 + 24/t",
        "full": "full keeps 2sbh of each layer, not divided by t; and once, while a layer runs again, what none keeps of one",
        "fewer micro-batches than stages": "m = B/(d b) micro-batches are all there is: min(p, m) are under way",
        "full, with few micro-batches": "the layer that runs again is there once, however many micro-batches are under way",
    }
    for about, cut in cuts(seed()).items():
        c.equal(
            about,
            {name: float(yours(shape, cut)) for name, shape in shapes(seed()).items()},
            lambda cut=cut: {name: held(shape, cut) for name, shape in shapes(seed()).items()},
            hint=hints[about],
        )
    hints = {
        "divisors of 105": "b divides the sequences of a copy, batch // d: with 105 of them there is no 2, and no 4",
        "nothing fits": "0 where even b = 1 does not fit",
        "all of it fits": "b may be all of batch // d, and no more; the microbatch that came in cut does not matter",
        "to the last byte": "at most limit: exactly so many bytes still fit",
    }
    for about, (shape, cut, limit) in limits(seed()).items():
        c.equal(
            f"largest micro-batch, {about}",
            most(shape, cut, limit),
            lambda case=(shape, cut, limit): largest(*case),
            hint=hints.get(about, "of the divisors of batch // d, the largest with which stage_bytes is at most limit"),
        )

# %% [markdown]
# ## 12.3 The fastest that fits
#
# Now choose. `candidates` is a list; what a candidate is made of does not matter here. Of each you can ask
#
# - `memory(candidate)`: bytes on its fullest GPU. At most `limit` of them fit.
# - `seconds(candidate)`: what a step takes. In this task that is dear, as if each call ran a benchmark on the cluster.
# - `bound(candidate)`: a time that its step cannot be shorter than, since arithmetic, tensor-parallel messages and bubble alone take so long. This is cheap; ask as often as you like.
#
# Return the candidate with the shortest step of those that fit, or `None` if none does.
#
# Cost: **`seconds` only where it can matter**: never for what does not fit, never twice for one, and never for a candidate whose bound is above the shortest step. `memory` at
# most once for each.
#
# See for yourself: `look(fastest)` has a model of 18 billion parameters on 64 GPUs, and prints how many of its candidates you asked about. Of 672 candidates, 222 fit, and fewer than a hundred timings are enough to know the best of them.


# %% id="support-12-3" jupyter={"source_hidden": true}
A100 = SYSTEMS["A100"]
# What is left open: layout, micro-batch, recomputation.
LIKE = Tools(schedules=("1F1B",), zero=(1,), sequence_parallel=(False,))


class Asked:
    """A function of candidates that remembers for which it was asked."""

    def __init__(self, values):
        self.values, self.times = values, dict.fromkeys(values, 0)

    def __call__(self, candidate):
        self.times[candidate] += 1
        return self.values[candidate]


class Choice:
    """A model on a cluster: every legal candidate, with its memory, its time, and a bound of that."""

    def __init__(self, model, num_gpus, batch, limit_gb, software=1.2):
        self.asked, self.limit, self.software = (model, num_gpus, batch), limit_gb * 1e9, software
        weighed = {}
        for p, d, t in planner.layouts(model, A100, num_gpus, batch):
            for b in divisors(batch // d):
                for kind in LIKE.recompute:
                    plan = Plan(p, d, t, batch, b, recompute=kind, zero=1, overlap_gradients=True)
                    weighed[p, d, t, b, kind] = weigh(model, plan, A100, software)
        self.memory = {name: c.memory.total for name, c in weighed.items()}
        self.seconds = {name: c.total_s for name, c in weighed.items()}
        self.bound = {name: self.least(c.plan) for name, c in weighed.items()}

    def least(self, plan):
        """Seconds of the arithmetic at its best rate, of the messages without latency, and of the bubble."""
        model, n, batch = self.asked
        head = 3 * model.head_flops(batch)
        flops = self.software / (n * A100.roofline.flops_per_s)
        messages = tensor_parallel_bytes(model, plan) * (1.5 if plan.recompute == "full" else 1)
        messages *= model.num_layers / plan.pp * plan.num_microbatches / (1e9 * A100.inside.bandwidth_gb_s)
        layers = (model.hardware_flops(batch, plan.recompute) - head) * flops + messages
        return layers * (1 + plan.bubble) + head * flops

    @functools.cached_property
    def best(self):
        """The shortest step of those that fit, by the planner; None if none does."""
        (model, n, batch), gigabytes = self.asked, self.limit / 1e9
        found = search(model, A100, n, batch, gigabytes, reserve_gb=0, tools=LIKE, software=self.software)
        return found.best.total_s if found.num_fit else None

    def answered(self, answer, order):
        """What an answer chose, and what it asked."""
        memory, seconds = Asked(self.memory), Asked(self.seconds)
        names = random.Random(order).sample(list(self.memory), len(self.memory))
        chosen = answer(list(names), memory, seconds, self.bound.get, self.limit)
        found = {"memory": memory.times, "seconds": seconds.times, "chosen": chosen}
        if chosen is None:
            return found | {"verdict": "none"}
        if not isinstance(chosen, tuple) or chosen not in self.memory:
            return found | {"verdict": f"{chosen} is no candidate"}
        if self.memory[chosen] > self.limit:
            return found | {"verdict": "it does not fit"}
        return found | {"verdict": self.seconds[chosen]}

    def fewest(self):
        """How many may be timed: those that fit and whose bound is not above the shortest step."""
        if self.best is None:
            return 0
        return sum(self.bound[c] <= self.best for c in self.memory if self.memory[c] <= self.limit)


class Drawn(Choice):
    """Numbers such as no model has: all bounds are far below the times, but for one."""

    def __init__(self, number):
        draw = random.Random(number)
        first, last, *names = [(draw.random(), i) for i in range(200)]
        self.limit, self.memory = 100, {name: draw.choice([20, 99, 100, 101, 300]) for name in names}
        self.bound = {name: draw.uniform(1.01, 3) for name in names}
        self.seconds = {name: 1.5 * self.bound[name] for name in names}
        self.memory |= {first: 50, last: 100}
        self.bound |= {first: 1.0, last: 1.45}
        self.seconds |= {first: 1.5, last: 1.45 + 0.01 * draw.random()}

    @functools.cached_property
    def best(self):
        return min(self.seconds[name] for name in self.memory if self.memory[name] <= self.limit)


def choices(number):
    """Some to make, by name."""
    draw = random.Random(number)
    gpt18 = Transformer("18B", 40, 6144, 48)
    some = Transformer("some", draw.choice([24, 36]), 128 * draw.choice([24, 32, 40]), 8)
    return {
        "18 billion, 64 GPUs": Choice(gpt18, 64, 1536, 64),
        "the same with little memory": Choice(gpt18, 64, 1536, 16 + draw.random()),
        "memory for nothing": Choice(gpt18, 8, 64, 20),
        "memory for all": Choice(Transformer("small", 12, 2048, 16), 16, 64, 1000),
        "some model": Choice(some, draw.choice([32, 48]), 192, draw.choice([20, 30, 40])),
        "a small batch": Choice(some, 64, 64, draw.choice([20, 30, 40])),
        "drawn at random": Drawn(number),
    }


def look(answer):
    """What an answer does with the first of them."""
    choice = choices(0)["18 billion, 64 GPUs"]
    found = choice.answered(answer, 0)
    counts = {name: sum(found[name].values()) for name in ("memory", "seconds")}
    print(f"{found['chosen']}: {found['verdict']} s; the best {choice.best} s")
    print(f"{len(choice.memory)} candidates; asked for memory {counts['memory']} times, for seconds {counts['seconds']}")


# %% id="answer-12-3"
def fastest(candidates, memory, seconds, bound, limit):
    """The candidate with the shortest step of those that fit, or None."""
    ### BEGIN SOLUTION 12.3: the fastest that fits, with few timings
    ### HINT take them in the order of their bounds. When the next bound is above the best time so far, what can still come?
    best, shortest = None, float("inf")
    for candidate in sorted(candidates, key=bound):
        if bound(candidate) > shortest:
            break
        if memory(candidate) <= limit:
            taken = seconds(candidate)
            if taken < shortest:
                best, shortest = candidate, taken
    return best
    ### END SOLUTION


# %% id="see-12-3"
try:
    look(fastest)
except Exception as error:
    print(f"{type(error).__name__}: {error}")

# %% id="check-12-3" jupyter={"source_hidden": true}
with check("12.3") as c:
    made = choices(seed())
    yours = {name: choice.answered(by_hand(fastest), seed()) for name, choice in made.items()}
    for name, choice in made.items():
        c.equal(
            f"shortest step, {name}",
            yours[name]["verdict"],
            lambda choice=choice: "none" if choice.best is None else choice.best,
            hint={
                "memory for nothing": "None if no candidate fits",
                "memory for all": "return the candidate, not its time",
            }.get(name, "of those whose memory is at most limit, the one with the shortest step: a small bound alone says nothing, and the first that fits is not the best"),
        )
    for name in ("memory", "seconds"):
        c.at_most(
            f"calls of {name} for one candidate",
            max(max(asked[name].values()) for asked in yours.values()),
            lambda: 1,
            hint=f"keep what {name} has told you: it is dear to ask twice",
        )
    for name, choice in made.items():
        timed = {one: n for one, n in yours[name]["seconds"].items() if n}
        c.equal(
            f"timed and too large, {name}",
            sum(choice.memory[one] > choice.limit for one in timed),
            lambda: 0,
            hint="ask for memory first: what does not fit need not be timed",
        )
        c.at_most(
            f"timed, {name}",
            len(timed),
            lambda choice=choice: choice.fewest(),
            hint="a candidate whose bound is above the shortest step cannot be the best: go by the bounds, the smallest first, and stop in time",
        )

# %% [markdown]
# ## 12.4 Why not this one?
#
# Somebody has a favourite plan. Say why it is not the best. `mine` and `best` are two plans that were weighed, each with
#
# - `memory`: bytes on the fullest GPU, by kind ("parameters", "gradients", "optimizer state", "activations"); together they are what it holds,
# - `seconds`: of a step, by what they are spent on ("kernels", "recomputation", "tensor-parallel messages", "messages between stages", "bubble", "messages of data parallel",
#   "optimizer"); together they are the step.
#
# Return three things:
#
# - `("memory", kind, bytes)` if `mine` holds more than `limit`: the kind of which it holds most, and how many bytes are too many;
# - `("best", "", 0)` if it fits and takes no longer than `best`;
# - `("time", part, seconds)` otherwise: the part in which it loses most **against `best`**, and how many seconds it loses there. In some parts it may well gain.
#
# See for yourself: tensor-parallel messages may be the largest part of both, and then they explain nothing.


# %% id="support-12-4" jupyter={"source_hidden": true}
class Weighed(NamedTuple):
    """A plan's bytes and seconds, by kind."""

    memory: dict
    seconds: dict


WORDS = {
    "recomputation_s": "recomputation",
    "tensor_parallel_s": "tensor-parallel messages",
    "pipeline_messages_s": "messages between stages",
    "bubble_s": "bubble",
    "data_parallel_s": "messages of data parallel",
    "optimizer_s": "optimizer",
}


def weighed(model, plan):
    """A plan on A100, by the course's calculator."""
    found = weigh(model, plan, A100, 1.2)
    seconds = {"kernels": found.time.compute_s - found.recomputation_s}
    seconds |= {WORDS[name]: s for name, s in found.losses.items()}
    return Weighed({kind.replace("_", " "): n for kind, n in vars(found.memory).items()}, seconds)


def favourites(number):
    """Plans of GPT-3 that somebody likes, by name; the best is the one called so."""
    draw = random.Random(number)
    good = Plan(16, 16, 4, 1536, 1, 3, "selective", True, zero=1, overlap_gradients=True)
    plans = {
        "the best": good,
        "plain 1F1B": replace(good, chunks=1),
        "all recomputed": replace(good, recompute="full"),
        "more tensor parallel": replace(good, tp=8, dp=8),
        "less of it": replace(good, tp=1, pp=32, dp=32, microbatch=1, chunks=1),
        "many chunks": replace(good, chunks=6),
        "gradients after backward": Plan(2, 512, 1, 1536, 1, 1, "selective", zero=2),
        "as published": Plan(16, 8, 8, 1536, 1, 1, "full"),
        "nothing sharded": Plan(1, 128, 8, 1536, 1, recompute="selective"),
        "nothing recomputed": replace(good, recompute="none"),
        "four stages": Plan(4, 32, 8, 1536, draw.choice([4, 6, 12]), zero=1),
        "large micro-batches": Plan(8, 16, 8, 1536, draw.choice([16, 24, 32]), 1, "selective", zero=1),
        "ZeRO 3": Plan(2, 512, 1, 1536, 1, 1, "full", zero=3),
    }
    return plans


def pairs(number):
    """mine, best, limit: each favourite against the best, and the best against others."""
    model, draw = Transformer("GPT-3", 96, 12288, 96), random.Random(number)
    made = {name: weighed(model, plan) for name, plan in favourites(number).items()}
    best, limit = made["the best"], 64 * 10**9
    most = max(sum(w.memory.values()) for w in made.values())
    found = {name: (w, best, limit) for name, w in made.items()}
    found |= {f"{name}, with room": (w, best, most) for name, w in made.items()}
    found["faster than the best"] = (best, made["as published"], limit)
    found["against few stages"] = (made["as published"], made["ZeRO 3"], limit)
    found["against one that does not fit either"] = (made["less of it"], made["nothing recomputed"], limit)
    found["to the last byte"] = (made["as published"], best, sum(made["as published"].memory.values()))
    name = draw.choice(["as published", "nothing sharded"])
    found["one byte too many"] = (made[name], best, sum(made[name].memory.values()) - 1)
    return found


# %% id="answer-12-4"
def why_not(mine, best, limit):
    """("memory", kind, bytes), ("time", part, seconds) or ("best", "", 0)."""
    ### BEGIN SOLUTION 12.4: say why a plan is not the best
    ### HINT what matters is mine.seconds[part] - best.seconds[part], not how large a part is
    too_many = sum(mine.memory.values()) - limit
    if too_many > 0:
        return "memory", max(mine.memory, key=mine.memory.get), too_many
    if sum(mine.seconds.values()) <= sum(best.seconds.values()):
        return "best", "", 0
    lost = {part: mine.seconds[part] - best.seconds[part] for part in mine.seconds}
    part = max(lost, key=lost.get)
    return "time", part, lost[part]
    ### END SOLUTION


# %% id="check-12-4" jupyter={"source_hidden": true}
def reasons(mine, best, limit):
    """The right answer."""
    need = sum(mine.memory.values())
    if need > limit:
        return "memory", max((n, kind) for kind, n in mine.memory.items())[1], need - limit
    lost = sorted((mine.seconds[part] - best.seconds[part], part) for part in best.seconds)
    if sum(mine.seconds.values()) <= sum(best.seconds.values()):
        return "best", "", 0
    return "time", lost[-1][1], lost[-1][0]


with check("12.4") as c:
    yours, cases = by_hand(why_not), pairs(seed())
    said = {name: list(yours(*case)) for name, case in cases.items()}
    right = {name: reasons(*case) for name, case in cases.items()}
    for what, place, hint in (
        (
            "memory, time or best",
            0,
            "does the sum of all kinds fit? It may be as much as limit. Only then compare the times of the whole steps",
        ),
        (
            "which kind or part",
            1,
            "memory: the kind with the most bytes. time: the part with the largest difference mine - best, in seconds",
        ),
        (
            "how much",
            2,
            "memory: the bytes beyond limit. time: the seconds lost in that part alone, against best",
        ),
    ):
        c.equal(
            what,
            {name: answer[place] for name, answer in said.items()},
            lambda place=place: {name: answer[place] for name, answer in right.items()},
            hint=hint,
        )

# %% [markdown]
# With these four you have a planner. What the course's own adds is a model of time that stands up to measurements: [`course_lib/cost/step_time.py`](../course_lib/cost/step_time.py).
