"""Answers to the exercise of chapter 11: plausible wrong ones, and right ones that are not the teacher's."""

PLACE = """def coordinates(rank, sizes, order):
    place = {}
    for axis in reversed(order):
        place[axis] = rank % sizes[axis]
        rank = rank // sizes[axis]
    return place

def rank_of(place, sizes, order):
    number, stride = 0, 1
    for axis in reversed(order):
        number += place[axis] * stride
        stride *= sizes[axis]
    return number"""

GROUPS = """def groups(axis, sizes, order):
    n, stride = prod(sizes.values()), 1
    for other in reversed(order):
        if other == axis: break
        stride *= sizes[other]
    found = []
    for rank in range(n):
        if rank // stride % sizes[axis] == 0:
            found.append([rank + i * stride for i in range(sizes[axis])])
    return found"""

SENT = """def sent(rank, sizes, order, k, work):
    place = coordinates(rank, sizes, order)
    found = {"inside": 0, "across": 0}
    for axis in order:
        n, here = sizes[axis], place[axis]
        if axis == "pp":
            each = work["m"] * work["tp"]
            to = [(here + 1, each)] * (here + 1 < n) + [(here - 1, each)] * (here > 0)
        else:
            each = work["dp"] if axis == "dp" else 4 * work["layers"] * work["m"] * work["tp"]
            to = [((here + 1) % n, 2 * (n - 1) / n * each)]
        for other, nbytes in to:
            there = rank_of({**place, axis: other}, sizes, order)
            found["inside" if there // k == rank // k else "across"] += nbytes
    return found
"""

BEST = """
def best_order(sizes, k, work):
    best, least = None, float("inf")
    for order in permutations(("pp", "dp", "tp")):
        total = 0
        for rank in range(prod(sizes.values())):
            total += sent(rank, sizes, order, k, work)["across"]
        if total < least: best, least = order, total
    return best"""

NORM = """def grad_norm(grads, split, tied, sizes, place):
    total = torch.zeros(1, dtype=torch.float64)
    for name, grad in grads.items():
        copies = sizes["dp"]
        if name not in split: copies *= sizes["tp"]
        if name in tied: copies *= min(2, sizes["pp"])
        total += (grad * grad).sum() / copies
    dist.all_reduce(total)
    return total.sqrt().item()"""


def but(answer, *changes):
    """The answer with one thing in it changed."""
    for old, new in changes:
        assert old in answer, old
        answer = answer.replace(old, new)
    return answer


DOWN = "for axis in reversed(order):"
COUNTS = "places.*counts fastest"
WORTH = "ranks.*product of the sizes of all axes inside"
APART = "groups.*members are as far apart"

# task -> (answer, words that the verdict must hold); an answer is a whole cell, `def` included
WRONG = {
    "11.1": [
        # the first axis counts fastest: in both, in one, in the other
        (but(PLACE, (DOWN, "for axis in order:")), COUNTS),
        (but(PLACE, ("place = {}\n    " + DOWN, "place = {}\n    for axis in order:")), COUNTS),
        (but(PLACE, ("stride = 0, 1\n    " + DOWN, "stride = 0, 1\n    for axis in order:")), WORTH),
        # the order of the names in sizes
        (but(PLACE, ("place = {}\n    " + DOWN, "place = {}\n    for axis in reversed(list(sizes)):")), COUNTS),
        (but(PLACE, ("stride = 0, 1\n    " + DOWN, "stride = 0, 1\n    for axis in reversed(list(sizes)):")), WORTH),
        # always the usual order
        (but(PLACE, ("place = {}\n", 'place = {}\n    order = ("pp", "dp", "tp")\n')), "KeyError|places"),
        # multiplied too early: strides of the axis itself
        (
            but(
                PLACE,
                (
                    "        number += place[axis] * stride\n        stride *= sizes[axis]",
                    "        stride *= sizes[axis]\n        number += place[axis] * stride",
                ),
            ),
            WORTH,
        ),
        # sums of sizes
        (but(PLACE, ("stride *= sizes[axis]", "stride += sizes[axis]")), WORTH),
        # ranks from 1
        (but(PLACE, ("rank % sizes[axis]", "(rank - 1) % sizes[axis]")), COUNTS),
        (but(PLACE, ("return number", "return number + 1")), WORTH),
        # / in place of //
        (but(PLACE, ("rank // sizes[axis]", "rank / sizes[axis]")), "float"),
        # one too few
        (but(PLACE, ("rank // sizes[axis]", "rank // (sizes[axis] + 1)")), COUNTS),
        # divided before it is taken
        (
            but(
                PLACE,
                (
                    "        place[axis] = rank % sizes[axis]\n        rank = rank // sizes[axis]",
                    "        rank = rank // sizes[axis]\n        place[axis] = rank % sizes[axis]",
                ),
            ),
            COUNTS,
        ),
        # not divided at all
        (but(PLACE, ("        rank = rank // sizes[axis]\n", "")), COUNTS),
        # axes of one rank are left out
        (but(PLACE, ("    return place", "    return {a: p for a, p in place.items() if sizes[a] > 1}")), "places"),
        # a tuple
        (
            but(PLACE, ("    return place", "    return tuple(place[axis] for axis in order)")),
            "TypeError|IndexError|places",
        ),
        # search
        (
            but(
                PLACE,
                (
                    "    number, stride = 0, 1\n",
                    "    n = prod(sizes.values())\n    return next(r for r in range(n) if coordinates(r, sizes, order) == place)\n",
                ),
            ),
            "seconds for 10¹² ranks.*do not go through the ranks",
        ),
        (
            but(
                PLACE,
                (
                    "    place = {}\n",
                    "    for number, place in enumerate(product(*(range(sizes[a]) for a in order))):\n        if number == rank: return dict(zip(order, place))\n    place = {}\n",
                ),
            ),
            "seconds for 10¹² ranks.*do not go through the ranks",
        ),
        # the library's
        (
            PLACE
            + "\ndef coordinates(rank, sizes, order): return Layout(**sizes, order=order).coordinates(rank)._asdict()",
            "this answer calls course_lib.layout: write here",
        ),
        (
            PLACE + "\ndef rank_of(place, sizes, order): return Layout(**sizes, order=order).rank(**place)",
            "this answer calls course_lib.layout: write here",
        ),
    ],
    "11.2": [
        # the axes outside in place of those inside
        (but(GROUPS, ("reversed(order)", "order")), APART),
        # the order of the names in sizes
        (but(GROUPS, ("reversed(order)", "reversed(list(sizes))")), APART),
        # with its own size
        (
            but(
                GROUPS,
                (
                    "        if other == axis: break\n        stride *= sizes[other]",
                    "        stride *= sizes[other]\n        if other == axis: break",
                ),
            ),
            APART,
        ),
        # neighbours in number
        (
            "def groups(axis, sizes, order):\n    n = sizes[axis]\n    return [list(range(i, i + n)) for i in range(0, prod(sizes.values()), n)]",
            APART,
        ),
        # that of rank 0 only
        (but(GROUPS, ("return found", "return found[:1]")), APART),
        # those of the first block only
        (but(GROUPS, ("range(n)", "range(stride)")), APART),
        # once for each rank
        (
            but(
                GROUPS,
                (
                    "        if rank // stride % sizes[axis] == 0:\n            found",
                    "        if True:\n            rank -= rank // stride % sizes[axis] * stride\n            found",
                ),
            ),
            APART,
        ),
        # the last member is missing; or one too many
        (but(GROUPS, ("range(sizes[axis])]", "range(sizes[axis] - 1)]")), APART),
        (but(GROUPS, ("range(sizes[axis])]", "range(sizes[axis] + 1)]")), APART),
        # ranks that agree along the axis and differ along the others
        (
            """def groups(axis, sizes, order):
    found = {}
    for rank in range(prod(sizes.values())):
        found.setdefault(coordinates(rank, sizes, order)[axis], []).append(rank)
    return list(found.values())""",
            APART,
        ),
        # from the last to the first
        (but(GROUPS, ("range(sizes[axis])]", "reversed(range(sizes[axis]))]")), APART),
        # groups in another order
        (
            but(GROUPS, ("return found", "return sorted(found, key=lambda g: (g[0] % stride, g[0]))")),
            "order of their first ranks",
        ),
        (but(GROUPS, ("return found", "return found[::-1]")), "order of their first ranks"),
        # an axis of one rank has no groups
        (but(GROUPS, ("    found = []\n", "    found = []\n    if sizes[axis] == 1: return []\n")), APART),
        # one flat list
        (but(GROUPS, ("found.append(", "found.extend(")), "TypeError|not iterable"),
        # the usual three axes
        (but(GROUPS, ("reversed(order)", '("tp", "dp", "pp")')), "KeyError|groups"),
        # every rank with every other
        (
            """def groups(axis, sizes, order):
    n, found = prod(sizes.values()), []
    for rank in range(n):
        mine = coordinates(rank, sizes, order)
        group = [r for r in range(n) if all(mine[a] == p for a, p in coordinates(r, sizes, order).items() if a != axis)]
        if group not in found: found.append(group)
    return found""",
            "seconds for 8,192 ranks.*do not compare ranks with each other",
        ),
        # the library's
        (
            "def groups(axis, sizes, order): return Layout(**sizes, order=order).groups(axis)",
            "this answer calls course_lib.layout: write here",
        ),
    ],
    "11.3": [
        # a ring sends twice
        (but(SENT, ("2 * (n - 1) / n", "(n - 1) / n")) + BEST, r"one node.*2\(n − 1\)/n"),
        (but(SENT, ("2 * (n - 1) / n", "2")) + BEST, "one rank.*a group of one rank sends nothing"),
        (but(SENT, ("2 * (n - 1) / n", "2 * (n - 1)")) + BEST, r"one node.*2\(n − 1\)/n"),
        # so many all-reduces
        (but(SENT, ("4 * work", "2 * work")) + BEST, "one node.*four for each layer"),
        (but(SENT, ('4 * work["layers"] * work["m"]', '4 * work["m"]')) + BEST, "one node.*four for each layer"),
        (but(SENT, ('4 * work["layers"] * work["m"]', '4 * work["layers"]')) + BEST, "one node.*micro-batch"),
        (but(SENT, ('work["dp"] if', 'work["m"] * work["dp"] if')) + BEST, "one node.*one along dp"),
        # half of it to either neighbour
        (
            but(
                SENT,
                (
                    "to = [((here + 1) % n, 2 * (n - 1) / n * each)]",
                    "to = [((here + s) % n, (n - 1) / n * each) for s in (1, -1)]",
                ),
            )
            + BEST,
            "tp over two nodes.*the next rank of a ring decides",
        ),
        # to the one before
        (but(SENT, ("((here + 1) % n, 2", "((here - 1) % n, 2")) + BEST, "tp over two nodes.*the next rank"),
        # the last of a ring sends nothing
        (
            but(
                SENT,
                (
                    "to = [((here + 1) % n, 2 * (n - 1) / n * each)]",
                    "to = [((here + 1) % n, 2 * (n - 1) / n * each)] * (here + 1 < n)",
                ),
            )
            + BEST,
            "one node",
        ),
        # a pipeline as a ring
        (
            but(
                SENT,
                (
                    "[(here + 1, each)] * (here + 1 < n) + [(here - 1, each)] * (here > 0)",
                    "[((here + 1) % n, each), ((here - 1) % n, each)]",
                ),
            )
            + BEST,
            "one rank|one node",
        ),
        # no gradients back; only gradients
        (but(SENT, (" + [(here - 1, each)] * (here > 0)", "")) + BEST, "one node.*gradients back"),
        (but(SENT, ("[(here + 1, each)] * (here + 1 < n) + ", "")) + BEST, "one node.*activations forward"),
        # for each layer
        (
            but(SENT, ('each = work["m"] * work["tp"]', 'each = work["layers"] * work["m"] * work["tp"]')) + BEST,
            "one node.*m activations forward",
        ),
        # which node
        (
            but(SENT, ("there // k == rank // k", "there % k == rank % k")) + BEST,
            r"nodes of 1.*rank r is on node r // k|one node",
        ),
        (
            but(SENT, ("there // k == rank // k", "abs(there - rank) < k")) + BEST,
            "tp over two nodes.*sends to the first|tp outermost|cuts|random",
        ),
        (but(SENT, ('"inside" if', '"across" if'), ('else "across"', 'else "inside"')) + BEST, "one node"),
        # all of it across, if the group has a rank in another node
        (
            but(
                SENT,
                (
                    "            there = rank_of({**place, axis: other}, sizes, order)\n",
                    "            group = [rank_of({**place, axis: i}, sizes, order) for i in range(n)]\n            far = [r for r in group if r // k != rank // k]\n            there = far[0] if far else rank\n",
                ),
            )
            + BEST,
            "tp over two nodes.*the next rank of a ring decides",
        ),
        # the usual order, whatever is asked for
        (but(SENT, ("    place = coord", '    order = ("pp", "dp", "tp")\n    place = coord')) + BEST, "ask `order`"),
        # the usual order is best
        (SENT + '\ndef best_order(sizes, k, work): return ("pp", "dp", "tp")', "bytes across.*depends on the bytes"),
        # innermost first
        (SENT + but(BEST, ("return best", "return best[::-1]")), "bytes across.*each of the six"),
        # of rank 0 only
        (SENT + but(BEST, ("range(prod(sizes.values()))", "range(1)")), "bytes across.*of all ranks"),
        # the worst; all bytes; the fewest inside
        (SENT + but(BEST, ("total < least", "total > least"), ('float("inf")', "-1")), "bytes across"),
        (SENT + but(BEST, ('["across"]', '["inside"]')), "bytes across"),
        (
            SENT
            + but(
                BEST,
                (
                    "total += sent(rank, sizes, order, k, work)",
                    "total += sum(sent(rank, sizes, order, k, work).values()) + 0 * sent(rank, sizes, order, k, work)",
                ),
            ),
            "bytes across",
        ),
        # the smallest axis inside; the most bytes of one group inside
        (
            SENT
            + '\ndef best_order(sizes, k, work): return tuple(sorted(("pp", "dp", "tp"), key=sizes.get, reverse=True))',
            "bytes across",
        ),
        # two axes are enough
        (SENT + but(BEST, ("return best", "return best[1:]")), "bytes across.*inf"),
        # the library's
        (
            SENT.replace("    place = coord", "    Layout(**sizes, order=order)\n    place = coord") + BEST,
            "this answer calls course_lib.layout",
        ),
    ],
    "11.4": [
        # each by itself
        (but(NORM, ("    dist.all_reduce(total)\n", "")), "1 × 1 × 2.*an all-reduce adds up"),
        # everything is counted as often as there are ranks that have it
        (but(NORM, (" / copies", "")), "1 × 1 × 2.*the same on both, and counts once"),
        # one kind of copies is forgotten
        (but(NORM, ('copies = sizes["dp"]', "copies = 1")), "1 × 3 × 1.*counts once"),
        (but(NORM, ('copies *= sizes["tp"]', "pass")), "1 × 1 × 2.*not in `split` is the same on both"),
        (but(NORM, ("copies *= min", "copies = copies or min")), "2 × 1 × 1.*the one that both hold"),
        # slices as if they were copies
        (but(NORM, ("if name not in split: ", "")), "1 × 1 × 2.*slices of a weight that is cut are different"),
        (but(NORM, ("not in split", "in split")), "1 × 1 × 2"),
        # the tied weight as often as there are stages; twice in one stage, too
        (but(NORM, ('min(2, sizes["pp"])', 'sizes["pp"]')), "3 × 1 × 2.*only the first and the last"),
        (but(NORM, ('min(2, sizes["pp"])', "2")), "1 × 1 × 1"),
        # a mean over all ranks
        (but(NORM, (" / copies", " / dist.get_world_size()")), "1 × 1 × 2"),
        (but(NORM, ("return total.sqrt()", "total /= dist.get_world_size()\n    return total.sqrt()")), "1 × 1 × 2"),
        # norms are added up
        (
            but(NORM, ("(grad * grad).sum() / copies", "grad.norm() / copies")),
            "1 × 1 × 1.*root of the sum of the squares",
        ),
        (
            but(
                NORM,
                (
                    "    dist.all_reduce(total)\n    return total.sqrt()",
                    "    total = total.sqrt()\n    dist.all_reduce(total)\n    return total",
                ),
            ),
            "1 × 1 × 2",
        ),
        # norms are divided where squares should be
        (but(NORM, ("(grad * grad).sum() / copies", "(grad.norm() / copies) ** 2")), "1 × 1 × 2"),
        # no root
        (but(NORM, ("total.sqrt().item()", "total.item()")), "1 × 1 × 1.*the root"),
        # the largest
        (but(NORM, ("dist.all_reduce(total)", "dist.all_reduce(total, dist.ReduceOp.MAX)")), "1 × 1 × 2"),
        # in single precision
        (but(NORM, ("dtype=torch.float64", "dtype=torch.float32")), "1 × 1 × 1"),
        # found on rank 0, and nobody is told
        (but(NORM, ("dist.all_reduce(total)", "dist.reduce(total, 0)")), "1 × 1 × 2"),
        # the embedding is left out
        (
            but(NORM, ("        copies = sizes", "        if name in tied: continue\n        copies = sizes")),
            "1 × 1 × 1",
        ),
        # the tied weight on the first stage only: right; but on the first rank of the whole mesh it is not
        (
            but(
                NORM,
                (
                    '        if name in tied: copies *= min(2, sizes["pp"])\n',
                    "        if name in tied and any(place.values()): continue\n        if name in tied: copies = 1\n",
                ),
            ),
            "1 × 1 × 2",
        ),
        # gradients are squared in place
        (but(NORM, ("(grad * grad).sum()", "grad.square_().sum()")), "gradients as they were.*only looks"),
        (
            but(NORM, ("for name, grad in grads.items():", "for name in list(grads):\n        grad = grads.pop(name)")),
            "gradients as they were",
        ),
        # a call for each parameter, for each axis
        (
            """def grad_norm(grads, split, tied, sizes, place):
    total = 0
    for name in ("wte", "up", "down", "norm"):
        grad = grads.get(name, torch.zeros(1, dtype=torch.float64))
        copies = sizes["dp"] * (1 if name in split else sizes["tp"]) * (min(2, sizes["pp"]) if name in tied else 1)
        square = grad.square().sum() / copies
        dist.all_reduce(square)
        total += square
    return total.sqrt()""",
            "calls.*sum up on the rank first",
        ),
        (but(NORM, ("    dist.all_reduce(total)\n", "    dist.all_reduce(total)\n    dist.barrier()\n")), "calls"),
        # a number for each kind of weight
        (
            """def grad_norm(grads, split, tied, sizes, place):
    both = torch.zeros(3, dtype=torch.float64)
    for name, grad in grads.items():
        both[0 if name in tied else 1 if name in split else 2] += grad.square().sum()
    dist.all_reduce(both)
    both /= sizes["dp"]
    return (both[0] / min(2, sizes["pp"]) + both[1] + both[2] / sizes["tp"]).sqrt()""",
            "bytes handed in.*one number",
        ),
        # everybody gets every gradient
        (
            """def grad_norm(grads, split, tied, sizes, place):
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, (place, grads))
    total = 0
    for there, theirs in everyone:
        for name, grad in theirs.items():
            if there["dp"] or (there["tp"] and name not in split) or (there["pp"] and name in tied): continue
            total += grad.square().sum()
    return total.sqrt()""",
            "calls|bytes handed in",
        ),
        # the library's
        (
            """from course_lib.parallel.clip import clip_shards_
def grad_norm(grads, split, tied, sizes, place):
    copies = [sizes["dp"] * (1 if n in split else sizes["tp"]) * (min(2, sizes["pp"]) if n in tied else 1) for n in grads]
    return clip_shards_(list(grads.values()), 1e9, torch.zeros(1, dtype=torch.float64), None, copies)""",
            "this answer calls course_lib.parallel",
        ),
    ],
}

# task -> answers that must be accepted
RIGHT = {
    "11.1": [
        PLACE,
        # strides first
        """def coordinates(rank, sizes, order):
    stride = {a: prod(sizes[b] for b in order[i + 1:]) for i, a in enumerate(order)}
    return {a: rank // stride[a] % sizes[a] for a in sizes}
def rank_of(place, sizes, order):
    return sum(place[a] * prod(sizes[b] for b in order[i + 1:]) for i, a in enumerate(order))""",
        # NumPy knows it
        """def coordinates(rank, sizes, order):
    return dict(zip(order, np.unravel_index(rank, [sizes[a] for a in order])))
def rank_of(place, sizes, order):
    return np.ravel_multi_index([place[a] for a in order], [sizes[a] for a in order])""",
        # from the outside inwards
        """def coordinates(rank, sizes, order):
    left, place = prod(sizes.values()), {}
    for a in order:
        left //= sizes[a]
        place[a], rank = divmod(rank, left)
    return place
def rank_of(place, sizes, order):
    left, rank = prod(sizes.values()), 0
    for a in order:
        left //= sizes[a]
        rank += left * place[a]
    return rank""",
        # one axis, and the rest of the mesh
        """def coordinates(rank, sizes, order):
    if not order: return {}
    *outer, axis = order
    return {**coordinates(rank // sizes[axis], sizes, outer), axis: rank % sizes[axis]}
def rank_of(place, sizes, order):
    return rank_of(place, sizes, order[:-1]) * sizes[order[-1]] + place[order[-1]] if order else 0""",
        # as a clock is set: step by step along each axis
        """def coordinates(rank, sizes, order):
    place = dict.fromkeys(order, 0)
    for i, axis in enumerate(order):
        step = prod(sizes[a] for a in order[i + 1 :])
        while rank >= step:
            rank -= step; place[axis] += 1
    return place
from functools import reduce
def rank_of(place, sizes, order):
    return reduce(lambda rank, axis: rank * sizes[axis] + place[axis], order, 0)""",
        # tensors
        """def coordinates(rank, sizes, order):
    rank, place = torch.tensor(rank), {}
    for a in order[::-1]:
        place[a] = (rank % sizes[a]).item()
        rank = rank.div(sizes[a], rounding_mode="floor")
    return place
def rank_of(place, sizes, order):
    s = [1]
    for a in order[:0:-1]: s.insert(0, s[0] * sizes[a])
    return int((torch.tensor([place[a] for a in order]) * torch.tensor(s)).sum())""",
    ],
    "11.2": [
        GROUPS,
        # sorted by all other coordinates
        """def groups(axis, sizes, order):
    found = {}
    for rank in range(prod(sizes.values())):
        place = coordinates(rank, sizes, order)
        del place[axis]
        found.setdefault(tuple(place.values()), []).append(rank)
    return sorted(found.values())""",
        # rows of an array
        """def groups(axis, sizes, order):
    mesh = np.arange(prod(sizes.values())).reshape([sizes[a] for a in order])
    return sorted(map(tuple, np.moveaxis(mesh, order.index(axis), -1).reshape(-1, sizes[axis])))""",
        # blocks outside, steps inside
        """def groups(axis, sizes, order):
    i = order.index(axis)
    inner, outer = prod(sizes[a] for a in order[i + 1 :]), prod(sizes[a] for a in order[:i])
    block = inner * sizes[axis]
    return [list(range(b * block + f, (b + 1) * block, inner)) for b in range(outer) for f in range(inner)]""",
        # all places of the other axes
        """def groups(axis, sizes, order):
    others = [a for a in order if a != axis]
    found = []
    for rest in product(*(range(sizes[a]) for a in others)):
        place = dict(zip(others, rest))
        found.append([rank_of({**place, axis: i}, sizes, order) for i in range(sizes[axis])])
    return found""",
        # ticked off
        """def groups(axis, sizes, order):
    step = prod(sizes[a] for a in order[order.index(axis) + 1 :])
    seen, found = set(), []
    for rank in range(prod(sizes.values())):
        if rank in seen: continue
        found.append([rank])
        while len(found[-1]) < sizes[axis]: found[-1].append(found[-1][-1] + step)
        seen.update(found[-1])
    return found""",
        # a tensor, turned
        """def groups(axis, sizes, order):
    mesh = torch.arange(prod(sizes.values())).view(*(sizes[a] for a in order))
    return sorted(mesh.movedim(order.index(axis), -1).flatten(0, -2).tolist() if len(order) > 1 else [mesh.tolist()])""",
    ],
    "11.3": [
        SENT + BEST,
        # by groups
        """def sent(rank, sizes, order, k, work):
    found = dict(inside=0.0, across=0.0)
    def to(other, nbytes): found["inside" if other // k == rank // k else "across"] += nbytes
    for axis in sizes:
        group = next(g for g in groups(axis, sizes, order) if rank in g)
        i, n = group.index(rank), len(group)
        if axis == "pp":
            if i: to(group[i - 1], work["tp"] * work["m"])
            if i < n - 1: to(group[i + 1], work["tp"] * work["m"])
        elif n > 1:
            whole = work["dp"] if axis == "dp" else work["tp"] * work["layers"] * work["m"] * 4
            to(group[(i + 1) % n], whole * 2 * (n - 1) / n)
    return found
"""
        + BEST,
        # strides, and the rank itself where a group is alone
        """def sent(rank, sizes, order, k, work):
    stride = {a: prod(sizes[b] for b in order[i + 1:]) for i, a in enumerate(order)}
    at = {a: rank // stride[a] % sizes[a] for a in order}
    out = []
    for a, nbytes in (("tp", 8 * work["layers"] * work["m"] * work["tp"]), ("dp", 2 * work["dp"])):
        ahead = rank + stride[a] if at[a] < sizes[a] - 1 else rank - at[a] * stride[a]
        out.append((ahead, nbytes - nbytes / sizes[a]))
    one = work["m"] * work["tp"]
    out += [(rank + stride["pp"], one)] if at["pp"] + 1 < sizes["pp"] else []
    out += [(rank - stride["pp"], one)] if at["pp"] else []
    inside = sum(n for other, n in out if other // k == rank // k)
    return {"across": sum(n for _, n in out) - inside, "inside": inside}

def best_order(sizes, k, work):
    totals = {o: sum(sent(r, sizes, o, k, work)["across"] for r in range(prod(sizes.values()))) for o in permutations(sizes)}
    return sorted(totals, key=totals.get)[0]""",
        # other words for the best
        SENT
        + """
def best_order(sizes, k, work):
    n, names = prod(sizes.values()), ["tp", "pp", "dp"]
    return list(min(permutations(names), key=lambda o: np.sum([sent(r, sizes, o, k, work)["across"] for r in range(n)])))""",
        # a table of who sends what to whom
        """def sent(rank, sizes, order, k, work):
    n = prod(sizes.values())
    table = [0.0] * n
    for axis, share in (("tp", 4 * work["layers"] * work["m"] * work["tp"]), ("dp", work["dp"])):
        for g in groups(axis, sizes, order):
            for a, b in zip(g, g[1:] + g[:1]):
                if a == rank: table[b] += 2 * share * (len(g) - 1) / len(g)
    for g in groups("pp", sizes, order):
        for a, b in zip(g, g[1:]):
            if a == rank: table[b] += work["m"] * work["tp"]
            if b == rank: table[a] += work["m"] * work["tp"]
    first = rank // k * k
    inside = sum(table[first : first + k])
    return {"inside": inside, "across": sum(table) - inside}
"""
        + BEST,
        # message by message
        """def sent(rank, sizes, order, k, work):
    place, found = coordinates(rank, sizes, order), {"inside": 0, "across": 0}
    def send(other, nbytes):
        found[["across", "inside"][other // k == rank // k]] += nbytes
    def ring(axis, nbytes):
        n = sizes[axis]
        ahead = rank_of(place | {axis: (place[axis] + 1) % n}, sizes, order)
        for _ in range(2 * (n - 1)): send(ahead, nbytes / n)
    ring("dp", work["dp"])
    for _ in range(work["m"]):
        for _ in range(work["layers"]):
            for _ in range(4): ring("tp", work["tp"])
        for step in (-1, 1):
            if 0 <= place["pp"] + step < sizes["pp"]: send(rank_of(place | {"pp": place["pp"] + step}, sizes, order), work["tp"])
    return found
"""
        + BEST,
        # the reverse: innermost axis chosen last
        SENT
        + """
def best_order(sizes, k, work):
    best = ("dp", "tp", "pp")
    cost = lambda o: sum(sent(r, sizes, o, k, work)["across"] for r in range(prod(sizes.values())))
    for inner in ("pp", "dp", "tp"):
        for a, b in permutations([x for x in ("pp", "dp", "tp") if x != inner]):
            if cost((a, b, inner)) <= cost(best): best = (a, b, inner)
    return best""",
    ],
    "11.4": [
        NORM,
        # one of those that have it counts it alone
        """def grad_norm(grads, split, tied, sizes, place):
    def mine(name):
        return not (place["dp"] or (place["tp"] and name not in split) or (place["pp"] and name in tied))
    total = torch.tensor(sum((grads[n].norm() ** 2).item() for n in grads if mine(n)), dtype=torch.float64)
    dist.all_reduce(total)
    return total ** 0.5""",
        # the last one of them
        """def grad_norm(grads, split, tied, sizes, place):
    total = torch.zeros((), dtype=torch.float64)
    if place["dp"] == sizes["dp"] - 1:
        for name, grad in grads.items():
            if name not in split and place["tp"] != sizes["tp"] - 1: continue
            if name in tied and place["pp"] != sizes["pp"] - 1: continue
            total += torch.dot(grad.reshape(-1), grad.reshape(-1))
    dist.all_reduce(total, op=dist.ReduceOp.SUM)
    return float(total.sqrt())""",
        # a long vector, scaled
        """import math
def grad_norm(grads, split, tied, sizes, place):
    parts = []
    for name, grad in grads.items():
        twice = name in tied and sizes["pp"] > 1
        parts.append(grad.flatten() / math.sqrt(sizes["dp"] * (sizes["tp"] ** (name not in split)) * (1 + twice)))
    square = torch.cat(parts).norm().square()
    dist.all_reduce(square)
    return square.sqrt()""",
        # waited for later
        but(
            NORM,
            ("    dist.all_reduce(total)\n", "    work = dist.all_reduce(total, async_op=True)\n    work.wait()\n"),
        ),
        # kinds summed up on the rank, then one number
        """def grad_norm(grads, split, tied, sizes, place):
    squares = {name: torch.linalg.vector_norm(grad).pow(2) for name, grad in grads.items()}
    total = sum(s for n, s in squares.items() if n in split and n not in tied)
    total = total + sum(s for n, s in squares.items() if n not in split and n not in tied) / sizes["tp"]
    ends = 2 if sizes["pp"] >= 2 else 1
    total = total + sum(s / (1 if n in split else sizes["tp"]) for n, s in squares.items() if n in tied) / ends
    total = total / sizes["dp"]
    dist.all_reduce(total)
    return np.sqrt(total.item())""",
        # an average over all ranks, and back
        """def grad_norm(grads, split, tied, sizes, place):
    total = torch.zeros(1, dtype=torch.float64)
    for name, grad in grads.items():
        own = 1 if name in split else 1 / sizes["tp"]
        if name in tied and sizes["pp"] != 1: own /= 2
        total += own * (grad.detach() ** 2).sum()
    dist.all_reduce(total)
    return torch.sqrt(total / sizes["dp"])[0]""",
    ],
}
