# %% [markdown]
# # Exercise 11 · Hybrid parallel
#
# First you number a mesh, then you find its groups, then you count which bytes cross between nodes and seat the ranks so that few do, and last you find the norm of a gradient that lies on all of the mesh. Ten minutes each.
# Replace every `raise NotImplementedError(...)`, run the cell, then the check below it.
#
# The checks compare with meshes made in another way, and the last with one process, in float64, on real ranks; **and they count** seconds, bytes and messages. (They are folded; click
# the dots to read one.) To have the whole notebook graded: `course check exercises/11_hybrid_parallel.ipynb`
#
# In all tasks `sizes` says how many ranks there are along each axis, `{"pp": 2, "dp": 3, "tp": 4}`, and `order` names the axes, **outermost first**: `("pp", "dp", "tp")`. Ranks are counted from 0, and the **last axis of the order counts fastest**.

# %%
import random
import time
from itertools import permutations, product
from math import prod
from operator import index

import numpy as np
import torch
import torch.distributed as dist

from course_lib import RankTimeout, launch, span
from course_lib.grading import by_hand, check, seed
from course_lib.layout import Layout
from course_lib.viz import mesh_explorer

# %% [markdown]
# ## 11.1 Place the ranks
#
# Two functions, each the other one's inverse:
#
# - `coordinates(rank, sizes, order)`: where a rank stands, as `{"pp": 1, "dp": 0, "tp": 3}`.
# - `rank_of(place, sizes, order)`: the rank that stands there.
#
# Any order, any number of axes, one of size 1 among them. Cost: arithmetic, not search. A mesh of $10^{12}$ ranks takes no longer than one of eight.
#
# See for yourself, before the check says so: for 2 × 3 × 4 in the order above rank 17 is `{"pp": 1, "dp": 1, "tp": 1}`, and with `("tp", "dp", "pp")` it is `{"pp": 1, "dp": 2, "tp": 2}`.


# %% id="support-11-1" jupyter={"source_hidden": true}
TIME = 2  # seconds


def meshes(number):
    """Some meshes: sizes and an order each."""
    draw = random.Random(number)
    found = {
        "2 × 3 × 4": ({"pp": 2, "dp": 3, "tp": 4}, ("pp", "dp", "tp")),
        "one rank": ({"pp": 1, "dp": 1, "tp": 1}, ("pp", "dp", "tp")),
        "one axis": ({"dp": 6}, ("dp",)),
        "an axis of 1": ({"pp": 3, "dp": 1, "tp": 2}, ("pp", "dp", "tp")),
        "tp outermost": ({"pp": 2, "dp": 3, "tp": 4}, ("tp", "dp", "pp")),
        "dp outermost": ({"pp": 2, "dp": 3, "tp": 4}, ("dp", "pp", "tp")),
        "four axes": ({"tp": 2, "cp": 3, "dp": 2, "pp": 4}, ("dp", "tp", "pp", "cp")),
    }
    for i in range(4):
        axes = draw.sample(["pp", "dp", "cp", "tp"], 4)
        found[f"random {i}"] = ({axis: draw.randint(1, 4) for axis in sorted(axes)}, tuple(axes))
    return found


def walk(sizes, order):
    """The places of all ranks, in their order: as one writes down the times of a day."""
    return [dict(zip(order, place)) for place in product(*(range(sizes[axis]) for axis in order))]


def sorted_place(place):
    return {axis: index(place[axis]) for axis in sorted(place)}  # whole numbers, of whatever kind


def all_places(answer, number):
    """Of each mesh, the places of all ranks, as an answer finds them."""
    mine = by_hand(answer, "course_lib.layout")
    return {
        name: [sorted_place(mine(rank, dict(sizes), order)) for rank in range(prod(sizes.values()))]
        for name, (sizes, order) in meshes(number).items()
    }


def all_ranks(answer, number):
    """Of each mesh, the numbers of all places, as an answer finds them."""
    mine = by_hand(answer, "course_lib.layout")
    return {
        name: [index(mine(dict(place), dict(sizes), order)) for place in walk(sizes, order)]
        for name, (sizes, order) in meshes(number).items()
    }


def huge(number):
    """A mesh of a million million ranks, and a place in it."""
    draw = random.Random(number)
    sizes = {axis: 10_000 + draw.randint(0, 9) for axis in ("pp", "dp", "tp")}
    return sizes, {axis: draw.randrange(10_000) for axis in sizes}


def there_and_back(answers, number):
    """The rank of that place, the place of that rank, and seconds, on a process that is stopped after TIME and two."""
    sizes, place = huge(number)
    coordinates, rank_of = answers

    def on_a_rank():
        begin = time.perf_counter()
        rank = index(rank_of(dict(place), dict(sizes), ("dp", "tp", "pp")))
        back = sorted_place(coordinates(rank, dict(sizes), ("dp", "tp", "pp")))
        return rank, back, time.perf_counter() - begin

    try:
        return launch(on_a_rank, 1, timeout_s=TIME + 2)[0]
    except RankTimeout:
        return "not found", "not found", TIME + 2


# %% id="answer-11-1"
def coordinates(rank, sizes, order):
    """Where a rank stands: a dict of axis to place."""
    ### BEGIN SOLUTION 11.1: place the ranks
    ### HINT the innermost axis first: the rank modulo its size is the place along it, and what is left of the division is a rank of the mesh without it
    place = {}
    for axis in reversed(order):
        rank, place[axis] = divmod(rank, sizes[axis])
    return place
    ### END SOLUTION


def rank_of(place, sizes, order):
    """The rank that stands at a place."""
    ### BEGIN SOLUTION 11.1: place the ranks
    ### HINT the same way round: from the outermost axis inwards, multiply what you have by the size and add the place
    rank = 0
    for axis in order:
        rank = rank * sizes[axis] + place[axis]
    return rank
    ### END SOLUTION


# %% id="check-11-1" jupyter={"source_hidden": true}
with check("11.1") as c:
    c.equal(
        "places",
        all_places(coordinates, seed()),
        lambda: {
            name: [sorted_place(place) for place in walk(sizes, order)]
            for name, (sizes, order) in meshes(seed()).items()
        },
        hint="the last axis of the order counts fastest: its place is rank % size. Go on with rank // size, and ask `order`, not the order of the names in `sizes`",
    )
    c.equal(
        "ranks",
        all_ranks(rank_of, seed()),
        lambda: {name: list(range(prod(sizes.values()))) for name, (sizes, _) in meshes(seed()).items()},
        hint="a step along an axis is worth the product of the sizes of all axes inside it, those behind it in the order",
    )
    found, back, seconds = there_and_back((coordinates, rank_of), seed())
    c.at_most(
        "seconds for 10¹² ranks",
        seconds,
        lambda: TIME,
        hint="do not go through the ranks: a division with remainder for each axis is enough",
    )
    c.equal(
        "a rank among 10¹²",
        found,
        lambda: int(
            np.ravel_multi_index(
                [huge(seed())[1][axis] for axis in ("dp", "tp", "pp")],
                [huge(seed())[0][axis] for axis in ("dp", "tp", "pp")],
            )
        ),
        hint="stay with whole numbers: // and not /",
    )
    c.equal(
        "and its place",
        back,
        lambda: sorted_place(huge(seed())[1]),
        hint="stay with whole numbers: // and not /",
    )

# %% [markdown]
# ## 11.2 Who shares what
#
# A group along an axis has the ranks that differ along that axis and along no other. Return all of them, as a list of lists: `groups("dp", sizes, order)`. Ranks ascend in each group, and the groups are in the order of their first ranks.
#
# Cost: 8,192 ranks within a few seconds. (Comparing every rank with every other takes minutes.)
#
# See for yourself: for 2 × 3 × 4 the groups along dp are `[0, 4, 8]`, `[1, 5, 9]`, …, along pp `[0, 12]`, `[1, 13]`, …; every rank is in one of them. Or click on ranks in the picture: the same mesh, on nodes of 4.


# %% id="see-11-2"
mesh_explorer(Layout(pp=2, dp=3, tp=4), ranks_per_node=4, rank=4, model="GPT-3 Small", num_microbatches=4)


# %% id="support-11-2" jupyter={"source_hidden": true}
def plain(found):
    return [[index(rank) for rank in group] for group in found]


def all_groups(answer, number):
    """Of each mesh and axis, the groups that an answer finds."""
    mine = by_hand(answer, "course_lib.layout", "torch.distributed")
    return {
        f"{axis} of {name}": plain(mine(axis, dict(sizes), order))
        for name, (sizes, order) in meshes(number).items()
        for axis in sorted(sizes)
    }


def rows(axis, sizes, order):
    """The groups as rows of a tensor of ranks."""
    mesh = np.arange(prod(sizes.values())).reshape([sizes[a] for a in order])
    return sorted(np.moveaxis(mesh, order.index(axis), -1).reshape(-1, sizes[axis]).tolist())


WIDE = {"pp": 64, "dp": 16, "tp": 8}, ("pp", "tp", "dp")


def many_groups(answer, axis):
    """The groups of 8,192 ranks, and the seconds it took, on a process that is stopped after TIME and two."""

    def on_a_rank():
        begin = time.perf_counter()
        found = plain(answer(axis, dict(WIDE[0]), WIDE[1]))
        return found, time.perf_counter() - begin

    try:
        return launch(on_a_rank, 1, timeout_s=TIME + 2)[0]
    except RankTimeout:
        return "not found", TIME + 2


# %% id="answer-11-2"
def groups(axis, sizes, order):
    """All groups along an axis: lists of ranks."""
    ### BEGIN SOLUTION 11.2: who shares what
    ### HINT the members of a group are a fixed distance apart: the product of the sizes of the axes inside this one. Which ranks are the first of a group?
    inside = order[order.index(axis) + 1 :]
    stride = prod(sizes[other] for other in inside)
    firsts = [r for r in range(prod(sizes.values())) if r // stride % sizes[axis] == 0]
    return [[first + k * stride for k in range(sizes[axis])] for first in firsts]
    ### END SOLUTION


# %% id="check-11-2" jupyter={"source_hidden": true}
with check("11.2") as c:
    c.equal(
        "groups",
        all_groups(groups, seed()),
        lambda: {
            f"{axis} of {name}": rows(axis, sizes, order)
            for name, (sizes, order) in meshes(seed()).items()
            for axis in sorted(sizes)
        },
        hint="members are as far apart as the axes inside this one have ranks; a rank is the first of its group where its own place along the axis is 0. Each rank is in one group, and groups are in the order of their first ranks",
    )
    found, seconds = many_groups(groups, "tp")
    c.at_most(
        "seconds for 8,192 ranks",
        seconds,
        lambda: TIME,
        hint="do not compare ranks with each other: sort them by their other coordinates, or start at the first of each group and take steps",
    )
    c.equal("groups of 8,192 ranks", found, lambda: rows("tp", *WIDE), hint="as above")

# %% [markdown]
# ## 11.3 Which link carries what
#
# Nodes have `k` ranks each: 0 … k−1 in the first, and so on. What does a rank send in one step to ranks **inside** its node, and what **across** to other nodes? `work` says what is to be done:
#
# - `work["tp"]`: bytes of *one* activation, $bsh$ numbers. Along tp it is all-reduced **four times for each layer and micro-batch**; there are `work["layers"]` layers *on this stage* and `work["m"]` micro-batches.
# - `work["dp"]`: bytes of all gradients of the rank: one all-reduce a step.
# - Along pp each of the `m` micro-batches goes on to the next stage, `work["tp"]` bytes, and its gradient goes back to the stage before, as many. The first stage has none before it, the last none behind it: no ring.
#
# All-reduces run in rings: in a group of $n$, each rank sends $2\frac{n-1}{n}$ of the bytes, all of it **to the next rank of its group**, the last to the first.
#
# - `sent(rank, sizes, order, k, work)` returns `{"inside": …, "across": …}`, in bytes.
# - `best_order(sizes, k, work)` returns an order of the axes, with as few bytes across as can be, summed over all ranks. Where several are equally good, any of them.
#
# Here the axes are always pp, dp and tp. You may use what you wrote in 11.1 and 11.2. See for yourself: on 2 × 2 × 2 ranks in the usual order and nodes of 4 only pp crosses: rank 0 sends $m$ activations across, and so does rank 4 with their gradients.


# %% id="support-11-3" jupyter={"source_hidden": true}
USUAL = ("pp", "dp", "tp")


def works(number):
    """For each case: sizes, order, ranks a node, and what is to be done."""
    draw = random.Random(number)
    work = {"tp": 4000 + draw.randrange(1000), "dp": 90_000 + draw.randrange(10_000), "layers": 3, "m": 5}
    found = {
        "2 × 2 × 2, nodes of 4": ({"pp": 2, "dp": 2, "tp": 2}, USUAL, 4, work),
        "one node": ({"pp": 2, "dp": 2, "tp": 2}, USUAL, 8, work),
        "nodes of 1": ({"pp": 2, "dp": 2, "tp": 2}, USUAL, 1, work),
        "three stages": ({"pp": 3, "dp": 1, "tp": 2}, USUAL, 2, work),
        "tp over two nodes": ({"pp": 1, "dp": 1, "tp": 6}, USUAL, 3, work),
        "tp outermost": ({"pp": 2, "dp": 2, "tp": 4}, ("tp", "pp", "dp"), 4, work),
        "a group of 3 that a node cuts": ({"pp": 2, "dp": 3, "tp": 2}, USUAL, 4, work),
        "one rank": ({"pp": 1, "dp": 1, "tp": 1}, USUAL, 8, work),
    }
    for i in range(3):
        sizes = {axis: draw.randint(1, 4) for axis in USUAL}
        found[f"random {i}"] = (sizes, tuple(draw.sample(USUAL, 3)), draw.choice((2, 3, 4, 8)), work)
    return found


def links_of(answer, number):
    """What each rank sends, inside and across, as an answer has it."""
    found = {}
    for name, (sizes, order, k, work) in works(number).items():
        ranks = range(prod(sizes.values()))
        sums = [by_hand(answer, "course_lib.cost", "course_lib.layout")(r, sizes, order, k, work) for r in ranks]
        found[name] = {f"rank {r}": {way: float(s[way]) for way in ("inside", "across")} for r, s in enumerate(sums)}
    return found


def matrix(sizes, order, work):
    """Bytes from each rank to each other, from the mesh as an array."""
    n = prod(sizes.values())
    mesh, table = np.arange(n).reshape([sizes[axis] for axis in order]), np.zeros((n, n))
    each = {"tp": 4 * work["layers"] * work["m"] * work["tp"], "dp": work["dp"]}
    for axis in order:
        for row in np.moveaxis(mesh, order.index(axis), -1).reshape(-1, sizes[axis]):
            for a, b in zip(row, np.roll(row, -1)) if axis != "pp" else zip(row, row[1:]):
                share = work["m"] * work["tp"] if axis == "pp" else 2 * (len(row) - 1) / len(row) * each[axis]
                table[a, b] += share
                if axis == "pp":
                    table[b, a] += share
    return table


def split_up(sizes, order, k, work):
    """Bytes inside and across of each rank."""
    table, n = matrix(sizes, order, work), prod(sizes.values())
    same = np.arange(n)[:, None] // k == np.arange(n) // k
    pairs = zip((table * same).sum(1), (table * ~same).sum(1))
    return {f"rank {r}": {"inside": float(a), "across": float(b)} for r, (a, b) in enumerate(pairs)}


def across(sizes, order, k, work):
    """Bytes between nodes, all ranks together."""
    return round(sum(rank["across"] for rank in split_up(sizes, order, k, work).values()), 3)


def wishes(number):
    """Machines and models to choose an order for."""
    draw = random.Random(number + 1)
    few, many = {"layers": 1, "m": 2}, {"layers": 4, "m": 16}
    tp, dp = 1000 + draw.randrange(100), 50_000 + draw.randrange(5000)
    return {
        "a tensor-parallel node": ({"pp": 4, "dp": 2, "tp": 4}, 4, {"tp": tp, "dp": dp} | many),
        "large weights, few tokens": ({"pp": 2, "dp": 4, "tp": 2}, 4, {"tp": tp, "dp": 100 * dp} | few),
        "many stages": ({"pp": 8, "dp": 2, "tp": 2}, 4, {"tp": 100 * tp, "dp": dp} | few),
        "tp is 1": ({"pp": 4, "dp": 4, "tp": 1}, 4, {"tp": tp, "dp": 10 * dp} | few),
        "tp is 1, and many micro-batches": ({"pp": 4, "dp": 4, "tp": 1}, 4, {"tp": 100 * tp, "dp": dp} | many),
        "nodes of 6": ({"pp": 2, "dp": 3, "tp": 4}, 6, {"tp": tp, "dp": 10 * dp} | few),
    }


# %% id="answer-11-3"
def sent(rank, sizes, order, k, work):
    """Bytes that a rank sends in a step, inside its node and across."""
    ### BEGIN SOLUTION 11.3: which link carries what
    ### HINT for each axis: to which ranks does this one send, and how much to each? Then look at rank // k of both
    here, found = coordinates(rank, sizes, order), {"inside": 0, "across": 0}

    def send(axis, step, nbytes):
        other = rank_of({**here, axis: (here[axis] + step) % sizes[axis]}, sizes, order)
        found["inside" if other // k == rank // k else "across"] += nbytes

    for axis, nbytes in (("tp", 4 * work["layers"] * work["m"] * work["tp"]), ("dp", work["dp"])):
        send(axis, 1, 2 * (sizes[axis] - 1) / sizes[axis] * nbytes)
    if here["pp"] < sizes["pp"] - 1:
        send("pp", 1, work["m"] * work["tp"])
    if here["pp"] > 0:
        send("pp", -1, work["m"] * work["tp"])
    return found
    ### END SOLUTION


def best_order(sizes, k, work):
    """The order of the axes, outermost first, that sends fewest bytes between nodes."""
    ### BEGIN SOLUTION 11.3: which link carries what
    ### HINT there are only six: itertools.permutations
    ranks = range(prod(sizes.values()))

    def total(order):
        return sum(sent(rank, sizes, order, k, work)["across"] for rank in ranks)

    return min(permutations(("pp", "dp", "tp")), key=total)
    ### END SOLUTION


# %% id="check-11-3" jupyter={"source_hidden": true}
with check("11.3") as c:
    hints = {
        "one rank": "a group of one rank sends nothing: 2(n − 1)/n is 0",
        "one node": "of an all-reduce each rank sends 2(n − 1)/n of the bytes: four for each layer and micro-batch along tp, one along dp; along pp m activations forward and m gradients back",
        "nodes of 1": "with a rank a node all of it goes across; and a node has k ranks, so rank r is on node r // k",
        "three stages": "the stage in the middle sends activations on and gradients back; the first sends no gradients, the last no activations",
        "tp over two nodes": "the next rank of a ring decides: ranks 0 and 1 send inside, rank 2 across, and the last rank sends to the first",
    }
    found, order_hint = links_of(sent, seed()), "ask `order` for who is the next one along an axis, and rank // k for the node of each of the two"
    for name in [*hints, *(name for name in works(seed()) if name not in hints)]:
        c.equal(
            name,
            found[name],
            lambda name=name: split_up(*works(seed())[name]),
            hint=hints.get(name, order_hint),
        )
    for name, (sizes, k, work) in wishes(seed()).items():
        order = tuple(best_order(dict(sizes), k, dict(work)))
        c.at_most(
            f"{name}, bytes across",
            across(sizes, order, k, work) if sorted(order) == sorted(USUAL) else float("inf"),
            lambda name=name, case=(sizes, k, work): min(
                across(case[0], order, *case[1:]) for order in permutations(USUAL)
            ),
            hint="it depends on the bytes, and on what fits into a node: add up `across` of all ranks for each of the six orders",
        )

# %% [markdown]
# That is why no order is best for all: with few tokens and large weights it may be the copies that should share a node.
#
# ## 11.4 One norm for all
#
# Gradients have been averaged over the copies; now they are to be clipped, and for that everybody needs the norm of the *whole* gradient: the root of the sum of all squares, **each parameter once**. Every rank calls your function:
#
# - `grads`: this rank's gradients by name. Each is a tensor, the whole one or a slice.
# - `split`: the names of weights that are cut over tp. Others, such as norms, are whole and equal on all slices.
# - `tied`: the names of weights that the first *and* the last stage hold, as the embedding is. (Their gradient has been added up, so both have the same.)
# - `sizes` and `place`: the mesh, and where in it this rank stands, as in 11.1.
#
# Return the norm, the same number on all ranks. Cost: **one all-reduce of one number in float64, 8 bytes**, and nothing else is sent. The gradients stay as they are.
#
# See for yourself: `launch(rank_norm, 8, grad_norm, {"pp": 2, "dp": 2, "tp": 2}, 0)` has to give eight times the number `whole_norm({"pp": 2, "dp": 2, "tp": 2}, 0)`, each with a `True`: the gradients are as they were. If it is too large by $\sqrt 2$, everything was counted twice.


# %% id="support-11-4" jupyter={"source_hidden": true}
MESHES = [
    {"pp": 1, "dp": 1, "tp": 1},
    {"pp": 1, "dp": 1, "tp": 2},
    {"pp": 1, "dp": 3, "tp": 1},
    {"pp": 2, "dp": 1, "tp": 1},
    {"pp": 3, "dp": 1, "tp": 2},
    {"pp": 2, "dp": 2, "tp": 2},
]
SPLIT, TIED = ("wte", "up", "down"), ("wte",)


def gradient(sizes, number):
    """The whole gradient: name to tensor. Two weights that are cut and one that is not for each stage; an embedding."""
    generator = torch.Generator().manual_seed(number)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    found = {"wte": draw(12, 3)}
    for stage in range(sizes["pp"]):
        found |= {f"up{stage}": draw(12, 3), f"down{stage}": 3 * draw(12, 2), f"norm{stage}": 5 * draw(3)}
    return found


def piece(sizes, place, number):
    """What of it a rank has."""
    mine = {}
    for name, grad in gradient(sizes, number).items():
        kind, stage = name.rstrip("0123456789"), name.lstrip("adeimnoprtuw")
        here = place["pp"] in (0, sizes["pp"] - 1) if kind == "wte" else int(stage) == place["pp"]
        if here:
            mine[kind] = grad.chunk(sizes["tp"])[place["tp"]].clone() if kind in SPLIT else grad.clone()
    return mine


def whole_norm(sizes, number):
    """In one process."""
    return torch.cat([grad.flatten() for grad in gradient(sizes, number).values()]).norm().item()


def rank_norm(answer, sizes, number):
    """On a rank: what an answer returns, and whether the gradients are as they were."""
    place = walk(sizes, ("pp", "dp", "tp"))[dist.get_rank()]
    grads = piece(sizes, place, number)
    before = {name: grad.clone() for name, grad in grads.items()}
    mine = by_hand(answer, "course_lib.parallel", "torch.distributed.tensor", "torch.nn.utils")
    with span("norm"):
        found = mine(grads, set(SPLIT), set(TIED), dict(sizes), place)
    same = grads.keys() == before.keys() and all(torch.equal(grads[name], before[name]) for name in before)
    return float(found), same


def norms(answer, number):
    """On each mesh: the norm on each rank, whether gradients changed, and the calls and bytes of the busiest rank."""
    found = {"norm": {}, "kept": {}, "calls": 0, "bytes": 0}
    for sizes in MESHES:
        name = " × ".join(map(str, sizes.values()))
        run = launch(rank_norm, prod(sizes.values()), answer, sizes, number, timeout_s=30)
        found["norm"][name] = [norm for norm, _ in run]
        found["kept"][name] = [str(same) for _, same in run]
        for rank in range(run.trace.world_size):
            sends = [e for e in run.trace.of(rank=rank).during("norm").events if not e.is_span]
            found["calls"] = max(found["calls"], len(sends))
            found["bytes"] = max(found["bytes"], sum(e.nbytes for e in sends))
    return found


# %% id="answer-11-4"
def grad_norm(grads, split, tied, sizes, place):
    """The norm of the whole gradient, on every rank."""
    ### BEGIN SOLUTION 11.4: one norm for all
    ### HINT on how many ranks of the mesh is the same gradient found? Either each of them counts for its part, or one of them counts alone
    total = torch.zeros((), dtype=torch.float64)
    for name, grad in grads.items():
        copies = sizes["dp"]
        if name not in split:
            copies *= sizes["tp"]
        if name in tied and sizes["pp"] > 1:
            copies *= 2
        total += grad.double().square().sum() / copies
    dist.all_reduce(total)
    return total.sqrt()
    ### END SOLUTION


# %% id="check-11-4" jupyter={"source_hidden": true}
HINTS = {
    "1 × 1 × 1": "the root of the sum of the squares of all gradients",
    "1 × 1 × 2": "slices of a weight that is cut are different: both count, and an all-reduce adds up their squares. What is not in `split` is the same on both, and counts once",
    "1 × 3 × 1": "the three copies have the same gradient: it counts once",
    "2 × 1 × 1": "the stages have different weights, but for the one that both hold, and its gradient counts once",
    "3 × 1 × 2": "only the first and the last of the stages hold the tied weight: two, however many stages there are",
    "2 × 2 × 2": "all of it together: the copies along dp, along tp, and of the tied weight, multiply",
}

with check("11.4") as c:
    found = norms(grad_norm, seed())
    for sizes in MESHES:
        name = " × ".join(map(str, sizes.values()))
        c.equal(
            name,
            found["norm"][name],
            lambda sizes=sizes: [whole_norm(sizes, seed())] * prod(sizes.values()),
            hint=HINTS[name],
        )
    c.equal(
        "gradients as they were",
        found["kept"],
        lambda: {
            " × ".join(map(str, sizes.values())): ["True"] * prod(sizes.values()) for sizes in MESHES
        },
        hint="the norm only looks; who clips is another function",
    )
    c.at_most(
        "calls",
        found["calls"],
        lambda: 1,
        hint="sum up on the rank first; then one all-reduce over all ranks is enough, whatever groups there are",
    )
    c.at_most(
        "bytes handed in",
        found["bytes"],
        lambda: 8,
        hint="one number: the sum of squares. No gradient has to travel",
    )

# %% [markdown]
# Eight bytes, and 3,072 ranks know by how much to shorten a step. What you wrote is `clip_shards_` of [course_lib/parallel/clip.py](../course_lib/parallel/clip.py).
