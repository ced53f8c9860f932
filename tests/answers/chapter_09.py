"""Answers to the exercise of chapter 09: plausible wrong ones, and right ones that are not the teacher's."""

CUT = """def cut(costs, p):
    n = len(costs)
    best = [[0] + [float("inf")] * n]
    came = []
    for stage in range(p):
        row, at = [float("inf")] * (n + 1), [0] * (n + 1)
        for stop in range(stage + 1, n + 1):
            here = 0
            for start in range(stop - 1, stage - 1, -1):
                here += costs[start]
                worst = max(here, best[-1][start])
                if worst < row[stop]: row[stop], at[stop] = worst, start
        best.append(row); came.append(at)
    bounds = [n]
    for at in reversed(came): bounds.append(at[bounds[-1]])
    return bounds[::-1]"""

# fills a stage as long as a limit allows, and leaves a layer for each stage that is still to come
LIMIT = """def filled(costs, p, limit):
    bounds, here = [0], 0
    for i, cost in enumerate(costs):
        must = len(costs) - i == p - len(bounds)
        if i > bounds[-1] and (here + cost > limit or must):
            bounds.append(i); here = 0
        here += cost
    return bounds + [len(costs)]

def cut(costs, p):
    low, high = max(costs), sum(costs)
    while low < high:
        limit = (low + high) // 2
        if len(filled(costs, p, limit)) <= p + 1: high = limit
        else: low = limit + 1
    return filled(costs, p, low)"""

ORDER = """def my_1f1b(p, m):
    ranks = []
    for r in range(p):
        first = min(p - 1 - r, m)
        fs = [Action("F", r, i) for i in range(m)]
        bs = [Action("B", r, i) for i in range(m)]
        actions = fs[:first]
        for i in range(m):
            actions += fs[first + i : first + i + 1] + bs[i : i + 1]
        ranks.append(actions)
    return ranks"""

CHOOSE = """def choose(makers, p, costs, limit, target):
    for m in range(1, MOST + 1):
        for make in makers:
            try: schedule = make(p, m)
            except ValueError: continue
            v = schedule.num_stages / p
            stage = Costs(costs.forward_s / v, costs.backward_s / v, costs.input_s / v, costs.weight_s / v, costs.message_s)
            ran = simulate(schedule, stage)
            held = max(ran.peak_activations) / v
            if ran.bubble <= target and held <= limit: return schedule
    return None"""

CARRY = """def carry_out(actions, stage, inputs, targets, m, shape):
    rank, p = dist.get_rank(), dist.get_world_size()
    first, last = rank == 0, rank == p - 1
    live, works, total = {}, [], 0.0
    def receive(source):
        there = torch.empty(shape, dtype=torch.float64)
        dist.recv(there, source)
        return there
    for action in actions:
        i = action.microbatch
        if action.kind == "F":
            x = inputs[i] if first else receive(rank - 1).requires_grad_()
            y = stage(x)
            if last:
                y = F.mse_loss(y, targets[i]) / m
                total = total + y.item()
            else:
                works.append(dist.isend(y.detach(), rank + 1))
            live[i] = x, y
        else:
            grad = None if last else receive(rank + 1)
            x, y = live.pop(i)
            y.backward(grad)
            if not first:
                works.append(dist.isend(x.grad, rank - 1))
    for work in works: work.wait()
    return total if last else None"""


def but(answer, *changes):
    """The answer with one thing in it changed."""
    for old, new in changes:
        assert old in answer, old
        answer = answer.replace(old, new)
    return answer


STUCK = "RankDeadlock|RankMismatch|RankTimeout"
HELD = r"held by rank \d of 3.*holds too much"

# task -> (answer, words that the verdict must hold); an answer is a whole cell, `def` included
WRONG = {
    "9.1": [
        # equally many layers
        ("def cut(costs, p): return [i * len(costs) // p for i in range(p + 1)]", "slowest stage.*compare all places"),
        # filled up to the mean
        (
            """def cut(costs, p):
    bounds, here = [0], 0
    for i, cost in enumerate(costs):
        must = len(costs) - i == p - len(bounds)
        if i > bounds[-1] and len(bounds) < p and (here + cost > sum(costs) / p or must):
            bounds.append(i); here = 0
        here += cost
    return bounds + [len(costs)]""",
            "slowest stage.*compare all places",
        ),
        # ends each stage where the running sum is nearest to its share
        (
            """def cut(costs, p):
    upto, bounds = [0, *accumulate(costs)], [0]
    for k in range(1, p):
        inside = range(bounds[-1] + 1, len(costs) - (p - k) + 1)
        bounds.append(min(inside, key=lambda i: abs(upto[i] - k * upto[-1] / p)))
    return bounds + [len(costs)]""",
            "compare all places",
        ),
        # cuts in two, and the dearer part again
        (
            """def cut(costs, p):
    bounds = [0, len(costs)]
    while len(bounds) < p + 1:
        a, b = max((x for x in zip(bounds, bounds[1:]) if x[1] - x[0] > 1), key=lambda x: sum(costs[x[0]:x[1]]))
        middle = min(range(a + 1, b), key=lambda i: max(sum(costs[a:i]), sum(costs[i:b])))
        bounds = sorted(bounds + [middle])
    return bounds""",
            "slowest stage.*compare all places",
        ),
        # joins the two cheapest neighbours until p are left
        (
            """def cut(costs, p):
    bounds = list(range(len(costs) + 1))
    while len(bounds) > p + 1:
        bounds.pop(min(range(1, len(bounds) - 1), key=lambda i: sum(costs[bounds[i - 1]:bounds[i + 1]])))
    return bounds""",
            "slowest stage.*compare all places",
        ),
        # fewer stages than asked for, where fewer would do
        (but(LIMIT, ("or must", "or False")), r"slowest stage.*boundaries for \d stages"),
        # the last two are so small that a stage stays empty
        (
            but(
                CUT,
                ("range(stop - 1, stage - 1, -1)", "range(stop, -1, -1)"),
                ("here += costs[start]", "here += costs[start] if start < stop else 0"),
                ("range(stage + 1, n + 1)", "range(n + 1)"),
            ),
            r"slowest stage.*stage \d is empty",
        ),
        # least squares are another aim than the slowest
        (but(CUT, ("max(here, best[-1][start])", "here**2 + best[-1][start]")), "compare all places"),
        (but(CUT, ("max(here, best[-1][start])", "here + best[-1][start]")), "slowest stage.*compare all places"),
        # sizes of stages, no boundaries
        (
            CUT + "\nbounds_of = cut\ndef cut(*a): b = bounds_of(*a); return [y - x for x, y in zip(b, b[1:])]",
            r"slowest stage.*boundaries for \d stages",
        ),
        # only the inner ones
        (
            CUT + "\nbounds_of = cut\ndef cut(*a): return bounds_of(*a)[1:-1]",
            r"slowest stage.*boundaries for \d stages",
        ),
        # the last layer's number instead of where it ends
        (
            CUT + "\nbounds_of = cut\ndef cut(*a): b = bounds_of(*a); return b[:-1] + [b[-1] - 1]",
            r"slowest stage.*from 0 to \d+ of \d+ layers|slowest stage.*is empty",
        ),
        # all cuts
        (
            """def cut(costs, p):
    cuts = ([0, *c, len(costs)] for c in combinations(range(1, len(costs)), p - 1))
    return min(cuts, key=lambda c: max(stage_costs(costs, c)))""",
            "seconds for 96 layers.*at most 5.*solve it once and keep it",
        ),
    ],
    "9.2": [
        # GPipe passed off as 1F1B
        (but(ORDER, ("min(p - 1 - r, m)", "m")), r"micro-batches held.*it holds too much.*GPipe"),
        (
            """def my_1f1b(p, m):
    return [[Action(kind, r, i) for kind in "FB" for i in range(m)] for r in range(p)]""",
            r"micro-batches held.*it holds too much.*GPipe",
        ),
        # warm-up off by one: one too many holds more, one too few is slower
        (but(ORDER, ("min(p - 1 - r, m)", "min(p - r, m)")), "micro-batches held.*it holds too much"),
        (
            but(ORDER, ("min(p - 1 - r, m)", "max(0, min(p - 2 - r, m))")),
            "bubble.*p − 1 − r forwards before the first turn",
        ),
        # the same warm-up on every rank
        (but(ORDER, ("min(p - 1 - r, m)", "min(p - 1, m)")), "bubble.*some rank waits in every turn"),
        (but(ORDER, ("min(p - 1 - r, m)", "0")), "bubble"),
        # that of interleaving, twice as many
        (but(ORDER, ("min(p - 1 - r, m)", "min(2 * (p - 1 - r), m)")), "micro-batches held.*it holds too much"),
        # ranks from the wrong end
        (but(ORDER, ("min(p - 1 - r, m)", "min(r, m)")), "bubble|can be carried out"),
        # more forwards than micro-batches
        (
            but(
                ORDER,
                ("min(p - 1 - r, m)", "p - 1 - r"),
                ("range(m)]\n        b", "range(max(m, p - 1 - r))]\n        b"),
            ),
            r"can be carried out.*it has 4 ranks, 4 stages, 3 micro-batches",
        ),
        # the last backwards are left out
        (but(ORDER, ("for i in range(m):\n", "for i in range(m - first):\n")), "can be carried out.*never does"),
        # a backward before its forward
        (
            but(
                ORDER,
                ("fs[first + i : first + i + 1] + bs[i : i + 1]", "bs[i : i + 1] + fs[first + i : first + i + 1]"),
            ),
            "can be carried out.*waits at 0B0 for 0F0, later in its own list.*shows the place",
        ),
        # backwards in the opposite order, last in first out
        (
            but(
                ORDER,
                ('bs = [Action("B", r, i) for i in range(m)]', 'bs = [Action("B", r, m - 1 - i) for i in range(m)]'),
            ),
            "can be carried out.*waits at 0B2 for 0F2, later in its own list",
        ),
        # the backward in two parts is another schedule
        (but(ORDER, ("bs[i : i + 1]", '[Action("I", r, i), Action("W", r, i)]')), "bubble"),
        # stage 0 everywhere
        (but(ORDER, ('"F", r', '"F", 0'), ('"B", r', '"B", 0')), "can be carried out.*it has 2 ranks, 1 stages"),
        # one list, of rank 0
        (but(ORDER, ("return ranks", "return ranks[:1]")), "can be carried out.*it has 1 ranks"),
        # the library's
        (
            "def my_1f1b(p, m): return schedules.one_f_one_b(p, m).actions",
            "this answer calls course_lib.schedules.loops: write here",
        ),
    ],
    "9.3": [
        # by the formula of GPipe and 1F1B, whatever is there
        (
            """def choose(makers, p, costs, limit, target):
    m = -int(-(p - 1) // target)
    return schedules.one_f_one_b(p, m) if m <= MOST and limit >= p else None""",
            "only interleaved will do.*should be 8|memory to spare",
        ),
        # the limit is forgotten
        (but(CHOOSE, (" and held <= limit", "")), r"memory for p.*holds 5\.5, the limit is 4"),
        # what a stage holds is taken for what a rank's part holds
        (
            but(CHOOSE, ("max(ran.peak_activations) / v", "max(ran.peak_activations)")),
            "only interleaved will do.*'?none.*limit \\* v",
        ),
        # rounded down
        (
            but(CHOOSE, ("max(ran.peak_activations) / v", "max(ran.peak_activations) // v")),
            "half of a micro-batch.*five halves",
        ),
        # less than the limit
        (but(CHOOSE, ("held <= limit", "held < limit")), "memory for p"),
        # the rank that holds least; the last; the mean
        (but(CHOOSE, ("max(ran", "min(ran")), "GPipe|holds|should be"),
        (but(CHOOSE, ("max(ran.peak_activations)", "ran.peak_activations[-1]")), "holds .*the limit is"),
        (but(CHOOSE, ("max(ran.peak_activations)", "sum(ran.peak_activations) / p")), "holds .*the limit is"),
        # all ranks together
        (but(CHOOSE, ("max(ran.peak_activations)", "sum(ran.peak_activations)")), "memory for p|memory to spare"),
        # a stage takes as long as all of a rank's part: right without messages
        (
            but(CHOOSE, ("simulate(schedule, stage)", "simulate(schedule, costs)")),
            "messages cost time.*undivided|random",
        ),
        # the message is divided as well
        (but(CHOOSE, ("costs.message_s)", "costs.message_s / v)")), "messages cost time.*undivided|random"),
        # messages forgotten
        (but(CHOOSE, (", costs.message_s)", ")")), "messages cost time"),
        # the simulator's own costs
        (but(CHOOSE, ("simulate(schedule, stage)", "simulate(schedule)")), "messages cost time"),
        # idle time as a part of all time
        (
            but(CHOOSE, ("ran.bubble <= target", "ran.bubble / (1 + ran.bubble) <= target")),
            "memory to spare.*bubble of",
        ),
        # the first schedule that does it at all
        (
            but(
                CHOOSE,
                (
                    "    for m in range(1, MOST + 1):\n        for make in makers:",
                    "    for make in makers:\n        for m in range(1, MOST + 1):",
                ),
            ),
            "should be",
        ),
        # a maker refuses, and that is the end
        (but(CHOOSE, ("except ValueError: continue", "except ValueError: return None")), "should be"),
        (
            but(
                CHOOSE, ("try: schedule = make(p, m)\n            except ValueError: continue", "schedule = make(p, m)")
            ),
            "ValueError",
        ),
        # multiples of p only
        (but(CHOOSE, ("range(1, MOST + 1)", "range(p, MOST + 1, p)")), "memory for p.*16.*15"),
        # the most micro-batches
        (but(CHOOSE, ("range(1, MOST + 1)", "range(MOST, 0, -1)")), "memory to spare.*16.*12"),
        # never None
        (but(CHOOSE, ("return None", "return schedule")), "out of reach.*should be"),
    ],
    "9.4": [
        # loss scaled wrongly
        (
            but(CARRY, ("F.mse_loss(y, targets[i]) / m", "F.mse_loss(y, targets[i])")),
            "gradients.*loss over m, on the last rank only",
        ),
        # every rank scales: m to the power of its distance from the end
        (but(CARRY, ("y.backward(grad)", "y.backward(grad if last else grad / m)")), "gradients"),
        # right gradients of a loss that is not scaled, but not the loss
        (but(CARRY, ("total + y.item()", "total + y.item() * m")), "loss.*sum of the m scaled losses"),
        (but(CARRY, ("total + y.item()", "y.item()")), "loss.*sum of the m scaled losses"),
        (but(CARRY, ("return total if last else None", "return total")), "loss.*None elsewhere"),
        # activations never freed
        (but(CARRY, ("live.pop(i)", "live[i]")), HELD),
        (but(CARRY, ("y.backward(grad)", "y.backward(grad, retain_graph=True); live[i] = x, y")), HELD),
        (but(CARRY, ("live.pop(i)", "live.pop(i); live[i, 'input'] = x")), HELD),
        # all forwards first, whatever the actions say: GPipe passed off as 1F1B
        (but(CARRY, ("in actions:", "in sorted(actions, key=lambda a: (a.kind == 'B', a.microbatch)):")), HELD),
        # a send that waits: two neighbours send to each other
        (
            but(
                CARRY,
                ("works.append(dist.isend(y.detach(), rank + 1))", "dist.send(y.detach(), rank + 1)"),
                ("works.append(dist.isend(x.grad, rank - 1))", "dist.send(x.grad, rank - 1)"),
            ),
            "RankDeadlock.*send",
        ),
        # so it does if it is waited for at once
        (
            but(
                CARRY,
                ("works.append(dist.isend(y.detach(), rank + 1))", "dist.isend(y.detach(), rank + 1).wait()"),
                ("works.append(dist.isend(x.grad, rank - 1))", "dist.isend(x.grad, rank - 1).wait()"),
            ),
            "RankDeadlock",
        ),
        # what arrives is no leaf that wants a gradient
        (but(CARRY, (".requires_grad_()", "")), "RankError"),
        # in single precision
        (but(CARRY, (", dtype=torch.float64", "")), "RankMismatch"),
        # the gradient of the output is sent back
        (but(CARRY, ("dist.isend(x.grad", "dist.isend(x.grad if last else grad")), "gradients"),
        # the last micro-batch's gradients only
        (but(CARRY, ("            y.backward(grad)", "            stage.zero_grad(); y.backward(grad)")), "gradients"),
        # the gradient of another micro-batch: a stack
        (but(CARRY, ("x, y = live.pop(i)", "x, y = live.pop(max(live))")), "gradients"),
        # nobody sends back
        (but(CARRY, ("if not first:", "if False:")), STUCK),
        # everybody is told the loss
        (
            but(
                CARRY,
                (
                    "return total if last else None",
                    "t = torch.tensor(total); dist.all_reduce(t)\n    return total if last else None",
                ),
            ),
            "messages.*too many messages",
        ),
        # the shape goes along every time
        (
            but(
                CARRY,
                (
                    "        dist.recv(there, source)\n",
                    "        size = torch.empty(2, dtype=torch.int64); dist.recv(size, source)\n        dist.recv(there, source)\n",
                ),
                (
                    "works.append(dist.isend(y.detach(), rank + 1))",
                    "works.append(dist.isend(torch.tensor(y.shape), rank + 1)); works.append(dist.isend(y.detach(), rank + 1))",
                ),
                (
                    "works.append(dist.isend(x.grad, rank - 1))",
                    "works.append(dist.isend(torch.tensor(x.shape), rank - 1)); works.append(dist.isend(x.grad, rank - 1))",
                ),
            ),
            "messages.*too many messages",
        ),
        # whole, and its gradient beside it
        (
            but(
                CARRY,
                ("torch.empty(shape, dtype=torch.float64)", "torch.empty(2, *shape, dtype=torch.float64)"),
                ("        return there", "        return there[0].clone()"),
                ("dist.isend(y.detach(),", "dist.isend(torch.stack([y.detach()] * 2),"),
                ("dist.isend(x.grad,", "dist.isend(torch.stack([x.grad, x.detach()]),"),
            ),
            "bytes.*too dear",
        ),
        # the library's
        (
            """from course_lib.parallel.pipeline import run_pipeline
def carry_out(actions, stage, inputs, targets, m, shape):
    x, y = (None if t is None else torch.cat(t) for t in (inputs, targets))
    return run_pipeline({dist.get_rank(): stage}, x, y, F.mse_loss, m, schedules.one_f_one_b(dist.get_world_size(), m))""",
            "this answer calls course_lib.parallel",
        ),
    ],
}

# task -> answers that must be accepted
RIGHT = {
    "9.1": [
        CUT,
        LIMIT,
        # recursion that keeps what it finds
        """from functools import cache
def cut(costs, p):
    @cache
    def best(start, stages):
        if stages == 1: return sum(costs[start:]), (len(costs),)
        tries = []
        for stop in range(start + 1, len(costs) - stages + 2):
            worst, ends = best(stop, stages - 1)
            tries.append((max(worst, sum(costs[start:stop])), (stop, *ends)))
        return min(tries)
    return (0, *best(0, p)[1])""",
        # with numpy, over a whole row at once
        """import numpy as np
def cut(costs, p):
    upto = np.concatenate([[0], np.cumsum(costs)])
    width = upto[None, :] - upto[:, None]
    width = np.where(np.arange(len(upto))[:, None] < np.arange(len(upto)), width, 10**12)
    best, came = width[0], []
    for _ in range(p - 1):
        table = np.maximum(best[:, None], width)
        came.append(table.argmin(0)); best = table.min(0)
    bounds = [len(costs)]
    for at in came[::-1]: bounds.append(int(at[bounds[-1]]))
    return [0, *bounds[::-1]]""",
        # filled from the back
        """def cut(costs, p):
    def back(limit):
        bounds, here = [len(costs)], 0
        for i in range(len(costs) - 1, -1, -1):
            left = p - len(bounds)
            if i + 1 < bounds[-1] and (here + costs[i] > limit or i + 1 == left):
                bounds.append(i + 1); here = 0
            here += costs[i]
        return [0] + bounds[::-1]
    sums = [0, *accumulate(costs)]
    limits = sorted({b - a for j, b in enumerate(sums) for a in sums[:j] if b - a >= max(costs)})
    low, high = 0, len(limits) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(back(limits[middle])) <= p + 1 else (middle + 1, high)
    return back(limits[low])""",
        # one limit after the other: from what the slowest of a poor cut takes, ever lower
        """def cut(costs, p):
    found, limit = None, sum(costs)
    while True:
        bounds, here = [0], 0
        for i, cost in enumerate(costs):
            if i > bounds[-1] and here + cost > limit: bounds.append(i); here = 0
            here += cost
        bounds.append(len(costs))
        if len(bounds) > p + 1 or limit < max(costs): break
        found = bounds
        limit = max(stage_costs(costs, bounds)) - 1
    while len(found) < p + 1:
        wide = next(i for i in range(len(found) - 1) if found[i + 1] - found[i] > 1)
        found.insert(wide + 1, found[wide] + 1)
    return found""",
    ],
    "9.2": [
        ORDER,
        # first p − r forwards, then backward and forward in turn
        """def my_1f1b(p, m):
    def of(r):
        first = min(p - r, m)
        yield from (Action("F", r, i) for i in range(first))
        for i in range(m):
            yield Action("B", r, i)
            if first + i < m: yield Action("F", r, first + i)
    return [tuple(of(r)) for r in range(p)]""",
        # by the clock: a rank does what it can, a backward first, and holds no more than p − r
        """def my_1f1b(p, m):
    ranks, done = [[] for _ in range(p)], {}
    nf, nb, free, now = [0] * p, [0] * p, [0] * p, 0
    while min(nb) < m:
        for r in range(p):
            if free[r] > now: continue
            if nb[r] < nf[r] and (r == p - 1 or done.get(("B", r + 1, nb[r]), now + 1) <= now):
                kind, i, cost = "B", nb[r], 2; nb[r] += 1
            elif nf[r] < m and nf[r] - nb[r] < p - r and (r == 0 or done.get(("F", r - 1, nf[r]), now + 1) <= now):
                kind, i, cost = "F", nf[r], 1; nf[r] += 1
            else: continue
            ranks[r].append(Action(kind, r, i)); free[r] = done[kind, r, i] = now + cost
        now += 1
    return ranks""",
        # sorted by when each would happen: forward i at its turn, backward i half a turn later
        """def my_1f1b(p, m):
    rows = []
    for r in range(p):
        late = p - 1 - r
        keyed = [(i - late, 0, Action("F", r, i)) for i in range(m)] + [(i, 1, Action("B", r, i)) for i in range(m)]
        rows.append([a for *_, a in sorted(keyed, key=lambda k: k[:2])])
    return rows""",
        # plain tuples in a dict's values
        """def my_1f1b(p, m):
    rows = {}
    for r in reversed(range(p)):
        w = min(m, p - r - 1)
        rows[r] = [("F", r, i) for i in range(w)]
        rows[r] += [(k, r, i + w * (k == "F")) for i in range(m - w) for k in "FB"]
        rows[r] += [("B", r, i) for i in range(m - w, m)]
    return [rows[r] for r in range(p)]""",
        # the micro-batches may come in any order
        """def my_1f1b(p, m):
    rows = []
    for r in range(p):
        forwards, backwards, row = list(range(m)), list(range(m)), []
        while backwards:
            live = len(backwards) - len(forwards)
            if forwards and live < p - r: row.append(Action("F", r, forwards.pop()))
            else: row.append(Action("B", r, backwards.pop()))
        rows.append(row)
    return rows""",
        # as text
        """from course_lib.schedules import parse
def my_1f1b(p, m):
    def row(r):
        w = min(m, p - 1 - r)
        words = [f"{r}F{i}" for i in range(w)]
        for i in range(m):
            words += [f"{r}F{w + i}"] * (w + i < m) + [f"{r}B{i}"]
        return " ".join(words)
    return parse("mine", map(row, range(p))).actions""",
    ],
    "9.3": [
        CHOOSE,
        # all of them, then the least
        """def choose(makers, p, costs, limit, target):
    good = []
    for make in makers:
        for m in range(1, MOST + 1):
            try: s = make(p, m)
            except ValueError: continue
            v = s.num_stages // p
            ran = simulate(s, of_a_stage(costs, v))
            if ran.bubble <= target and all(n <= v * limit for n in ran.peak_activations): good.append((m, len(good), s))
    return min(good, key=lambda g: g[:2])[2] if good else None""",
        # everything times v instead: the message too
        """def choose(makers, p, costs, limit, target):
    for m in range(1, MOST + 1):
        for make in reversed(makers):
            try: s = make(p, m)
            except ValueError: continue
            v = s.num_stages // p
            ran = simulate(s, Costs(costs.forward_s, costs.backward_s, costs.input_s, costs.weight_s, costs.message_s * v))
            if ran.bubble <= target and max(ran.peak_activations) / v <= limit: return s""",
        # the bubble by itself, from makespan and work
        """from dataclasses import replace
def choose(makers, p, costs, limit, target):
    def fits(s):
        v = s.num_stages / p
        ran = simulate(s, replace(costs, **{k: getattr(costs, k) / v for k in ("forward_s", "backward_s", "input_s", "weight_s")}))
        work = (costs.forward_s + costs.backward_s) * s.num_microbatches
        return max(ran.peak_activations) <= v * limit and ran.makespan_s / work - 1 <= target
    def tried():
        for m in range(1, MOST + 1):
            for make in makers:
                try: yield make(p, m)
                except ValueError: pass
    return next(filter(fits, tried()), None)""",
        # memory first, counted in the actions, then the clock; costs a stage as a list
        """def held(s):
    most = 0
    for row in s.actions:
        live = 0
        for a in row:
            live += (a.kind == "F") - (a.kind in "BW")
            most = max(most, live)
    return most
def choose(makers, p, costs, limit, target):
    best = None
    for make in makers:
        for m in range(1, MOST + 1 if best is None else best.num_microbatches):
            try: s = make(p, m)
            except ValueError: continue
            n = s.num_stages
            if held(s) * p > limit * n: continue
            f, b, i, w = ([t * p / n] * n for t in (costs.forward_s, costs.backward_s, costs.input_s, costs.weight_s))
            if simulate(s, Costs(f, b, i, w, costs.message_s)).bubble <= target:
                best = s; break
    return best""",
        # whole backwards need no parts
        but(
            CHOOSE,
            (
                "            stage = Costs",
                "            split = any(a.kind == 'I' for row in schedule.actions for a in row)\n            stage = Costs",
            ),
            (
                "costs.input_s / v, costs.weight_s / v",
                "*((costs.input_s / v, costs.weight_s / v) if split else (None, None))",
            ),
        ),
        # a while loop
        """def choose(makers, p, costs, limit, target):
    m = 0
    while m < MOST:
        m += 1
        fitting = []
        for make in makers:
            try:
                s = make(p, m); v = s.num_stages // p
                ran = simulate(s, Costs(costs.forward_s / v, costs.backward_s / v, costs.input_s / v, costs.weight_s / v, costs.message_s))
                if max(ran.peak_activations) <= limit * v: fitting.append((ran.bubble, s.name, s))
            except ValueError: pass
        if fitting and min(fitting)[0] <= target: return min(fitting)[2]""",
    ],
    "9.4": [
        CARRY,
        # sends are waited for when their micro-batch is done with
        """def carry_out(actions, stage, inputs, targets, m, shape):
    rank, last = dist.get_rank(), dist.get_world_size() - 1
    live, back, losses = {}, None, []
    for kind, _, i in actions:
        if kind == "F":
            x, work = inputs[i] if inputs else None, None
            if rank:
                x = torch.zeros(*shape, dtype=torch.double); dist.recv(x, src=rank - 1); x.requires_grad = True
            y = stage(x)
            if rank < last: work = dist.isend(y.data, dst=rank + 1)
            else: losses.append(F.mse_loss(y, targets[i], reduction="sum") / (m * y.numel())); y = losses[-1]
            live[i] = (x, y, work)
            if rank == last: losses[-1] = losses[-1].detach()
        if kind == "B":
            x, y, work = live[i]; del live[i]
            if rank < last:
                work.wait(); g = torch.zeros_like(y); dist.recv(g, src=rank + 1); torch.autograd.backward([y], [g])
            else: y.backward()
            if back is not None: back.wait()
            if rank: back = dist.isend(x.grad, dst=rank - 1)
    if back is not None: back.wait()
    return sum(losses) if rank == last else None""",
        # the receive is posted ahead, one action early; tags keep activations and gradients apart
        """def carry_out(actions, stage, inputs, targets, m, shape):
    rank, last = dist.get_rank(), dist.get_world_size() - 1
    coming, live, works, loss = {}, {}, [], None
    def expect(a):
        source = rank - 1 if a.kind == "F" else rank + 1
        if 0 <= source <= last and a not in coming:
            buffer = torch.empty(shape, dtype=torch.float64)
            coming[a] = buffer, dist.irecv(buffer, source, tag=2 * a.microbatch + (a.kind == "B"))
    for at, a in enumerate(actions):
        for b in actions[at : at + 2]: expect(b)
        got, work = coming.pop(a, (None, None))
        if work: work.wait()
        i = a.microbatch
        if a.kind == "F":
            x = inputs[i] if got is None else got.requires_grad_()
            y = stage(x)
            if rank < last: works.append(dist.isend(y.detach(), rank + 1, tag=2 * i))
            else:
                y = F.mse_loss(y, targets[i]) / m; loss = y.detach() + (0 if loss is None else loss)
            live[i] = [x, y]
        else:
            x, y = live.pop(i); y.backward(got)
            if rank: works.append(dist.isend(x.grad, rank - 1, tag=2 * i + 1))
    [w.wait() for w in works]
    return loss""",
        # it keeps the input only, and runs the stage again
        """def carry_out(actions, stage, inputs, targets, m, shape):
    rank, last = dist.get_rank(), dist.get_world_size() - 1
    kept, works, total = {}, [], 0
    for kind, _, i in actions:
        there = torch.empty(shape, dtype=torch.float64)
        if kind == "F":
            if rank: dist.recv(there, rank - 1)
            kept[i] = there if rank else inputs[i]
            if rank < last:
                with torch.no_grad(): works.append(dist.isend(stage(kept[i]), rank + 1))
            del there
        else:
            if rank < last: dist.recv(there, rank + 1)
            x = kept.pop(i).detach().requires_grad_()
            y = stage(x)
            if rank == last:
                y = F.mse_loss(y, targets[i]) / m; total += y.item(); y.backward()
            else: y.backward(there)
            if rank: works.append(dist.isend(x.grad, rank - 1))
            del x, y
    for w in works: w.wait()
    return total if rank == last else None""",
        # blocking sends, in a thread that does nothing else
        """import queue, threading
def carry_out(actions, stage, inputs, targets, m, shape):
    rank, last = dist.get_rank(), dist.get_world_size() - 1
    out = queue.Queue(); live = {}; losses = []
    def post():
        for tensor, to in iter(out.get, None): dist.send(tensor, to)
    thread = threading.Thread(target=post); thread.start()
    def get(source):
        t = torch.empty(shape, dtype=torch.float64); dist.recv(t, source); return t
    for kind, _, i in actions:
        if kind == "F":
            x = get(rank - 1).requires_grad_() if rank else inputs[i]
            y = stage(x)
            if rank == last: y = F.mse_loss(y, targets[i]) / m; losses.append(y.detach())
            else: out.put((y.detach(), rank + 1))
            live[i] = (x, y)
        else:
            x, y = live.pop(i)
            y.backward(get(rank + 1) if rank < last else None)
            if rank: out.put((x.grad, rank - 1))
    out.put(None); thread.join()
    return torch.stack(losses).sum() if losses else None""",
        # the loss is scaled at the end of the chain: the gradient that backward starts with
        but(
            CARRY,
            (
                "y = F.mse_loss(y, targets[i]) / m\n                total = total + y.item()",
                "y = F.mse_loss(y, targets[i])\n                total = total + y.item() / m",
            ),
            (
                "None if last else receive(rank + 1)",
                "torch.tensor(1 / m, dtype=torch.float64) if last else receive(rank + 1)",
            ),
        ),
        # gradients asked for, and added up by hand
        but(
            CARRY,
            (
                "            y.backward(grad)\n",
                "            weights = list(stage.parameters())\n            *grads, dx = torch.autograd.grad(y, [*weights, x] if not first else [*weights, weights[0]], grad)\n            for w, g in zip(weights, grads): w.grad = g if w.grad is None else w.grad + g\n",
            ),
            ("x.grad", "dx"),
        ),
        # send and receive in one step, as in Megatron-LM
        """def carry_out(actions, stage, inputs, targets, m, shape):
    rank, last = dist.get_rank(), dist.get_world_size() - 1
    live, loss, pending = {}, 0, []
    for kind, _, i in actions:
        forward = kind == "F"
        source, to = (rank - 1, rank + 1) if forward else (rank + 1, rank - 1)
        got = torch.empty(shape, dtype=torch.float64)
        if 0 <= source <= last:
            for work in dist.batch_isend_irecv([dist.P2POp(dist.irecv, got, source)]): work.wait()
        if forward:
            x = got.requires_grad_() if rank else inputs[i]
            y = stage(x)
            if rank == last: y = F.mse_loss(y, targets[i]) / m; loss += y.detach()
            live[i] = x, y
            result = y.detach()
        else:
            x, y = live.pop(i); y.backward(None if rank == last else got); result = x.grad
        if 0 <= to <= last: pending += dist.batch_isend_irecv([dist.P2POp(dist.isend, result, to)])
    for work in pending: work.wait()
    return loss if rank == last else None""",
    ],
}
