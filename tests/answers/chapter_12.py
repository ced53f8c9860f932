"""Answers to the exercise of chapter 12: plausible wrong ones, and right ones that are not the teacher's."""

LAYOUTS = """def layouts(num_gpus, batch, num_layers, num_heads, gpus_per_node):
    found = []
    for t in range(1, gpus_per_node + 1):
        for p in range(1, num_layers + 1):
            if num_heads % t or gpus_per_node % t or num_layers % p or num_gpus % (p * t): continue
            d = num_gpus // (p * t)
            if batch % d == 0: found.append((p, d, t))
    return found"""

BYTES = """def stage_bytes(shape, cut):
    layers, h, a, s = shape
    p, d, t, batch, b, zero, recompute = cut
    n = layers // p * 12 * h * h // t
    state = n * 2 // (d if zero > 2 else 1) + n * 2 // (d if zero > 1 else 1) + n * 12 // (d if zero > 0 else 1)
    core = 5 * a * s * s * b / t
    none = s * b * h * (10 + 24 / t) + core
    kept = {"none": none, "selective": none - core, "full": 2 * s * b * h}[recompute]
    m = batch // (d * b)
    again = none if recompute == "full" else 0
    return state + layers // p * min(p, m) * kept + again
"""

LARGEST = """
def largest_microbatch(shape, cut, limit):
    copy = cut.batch // cut.d
    fits = [b for b in range(1, copy + 1) if copy % b == 0 and stage_bytes(shape, cut._replace(microbatch=b)) <= limit]
    return max(fits, default=0)"""

FIT = BYTES + LARGEST

FASTEST = """def fastest(candidates, memory, seconds, bound, limit):
    best, least = None, None
    for c in sorted(candidates, key=bound):
        if least is not None and bound(c) > least: break
        if memory(c) > limit: continue
        taken = seconds(c)
        if least is None or taken < least: best, least = c, taken
    return best"""

WHY = """def why_not(mine, best, limit):
    held, mine_s, best_s = sum(mine.memory.values()), sum(mine.seconds.values()), sum(best.seconds.values())
    if held > limit:
        kind = max(mine.memory, key=lambda k: mine.memory[k])
        return "memory", kind, held - limit
    if mine_s <= best_s:
        return "best", "", 0
    part = max(mine.seconds, key=lambda k: mine.seconds[k] - best.seconds[k])
    return "time", part, mine.seconds[part] - best.seconds[part]"""


def but(answer, *changes):
    """The answer with one thing in it changed."""
    for old, new in changes:
        assert old in answer, old
        answer = answer.replace(old, new)
    return answer


# task -> (answer, words that the verdict must hold); an answer is a whole cell, `def` included
WRONG = {
    "12.1": [
        # the batch forgotten
        (but(LAYOUTS, ("if batch % d == 0: ", "")), "batch: yours.*d divides the batch"),
        # no more copies than sequences, but not as many for each
        (but(LAYOUTS, ("batch % d == 0", "d <= batch")), "batch: yours.*d divides the batch"),
        (but(LAYOUTS, ("batch % d == 0", "d % batch == 0 or d < 9")), "yours"),
        # the copies divide among all GPUs
        (but(LAYOUTS, ("batch % d == 0", "batch % num_gpus == 0")), "yours"),
        # heads forgotten
        (but(LAYOUTS, ("num_heads % t or ", "")), "heads: yours.*whole ones"),
        # the node: any t that is not larger
        (but(LAYOUTS, ("gpus_per_node % t or ", "")), "a node of 6: yours.*second group"),
        # the node forgotten altogether
        (
            but(LAYOUTS, ("gpus_per_node % t or ", ""), ("gpus_per_node + 1", "num_heads + 1")),
            "a node of 6: yours.*second group",
        ),
        # powers of two only
        (but(LAYOUTS, ("range(1, gpus_per_node + 1)", "(1, 2, 4, 8)")), "a node of 6: yours"),
        # tensor parallel fills the node, by the rule of thumb
        (but(LAYOUTS, ("range(1, gpus_per_node + 1)", "[gpus_per_node]")), "layers: yours.*should be"),
        # layers need not be equal
        (but(LAYOUTS, ("num_layers % p or ", "")), "a small one|layers"),
        # a layer a stage left out
        (but(LAYOUTS, ("num_layers + 1", "num_layers")), "yours"),
        (but(LAYOUTS, ("gpus_per_node + 1", "gpus_per_node")), "layers: yours"),
        # not all GPUs are used
        (but(LAYOUTS, (" or num_gpus % (p * t)", "")), "yours|ZeroDivision"),
        # in another order
        (but(LAYOUTS, ("(p, d, t))", "(t, p, d))")), "layers: yours"),
        (but(LAYOUTS, ("(p, d, t))", "(d, p, t))")), "layers: yours"),
        # not whole numbers
        (but(LAYOUTS, ("num_gpus // (p * t)", "num_gpus / (p * t)")), "layers: yours"),
        # twice
        (but(LAYOUTS, ("found.append((p, d, t))", "found += [(p, d, t)] * 2")), "layers: yours"),
        # every triple tried
        (
            """def layouts(num_gpus, batch, num_layers, num_heads, gpus_per_node):
    return [(p, d, t) for p in range(1, num_layers + 1) for t in range(1, gpus_per_node + 1) for d in range(1, num_gpus + 1)
            if p * d * t == num_gpus and num_layers % p == num_heads % t == gpus_per_node % t == batch % d == 0]""",
            "seconds for 720,720 GPUs.*only one",
        ),
        # somebody else lists them
        (
            """def layouts(num_gpus, batch, num_layers, num_heads, gpus_per_node):
    from course_lib.cost.planner import layouts as theirs
    from dataclasses import replace
    model = Transformer("mine", num_layers, 128 * num_heads, num_heads)
    return list(theirs(model, replace(SYSTEMS["A100"], gpus_per_node=gpus_per_node), num_gpus, batch))""",
            "calls course_lib.cost.*write here",
        ),
        ("def layouts(*cluster): return all_layouts(*cluster)", "calls|yours|NameError"),
        ("def layouts(*cluster): pass", "TypeError"),
    ],
    "12.2": [
        # Adam's state as in float32
        (but(FIT, ("n * 12", "n * 8")), "one GPU.*16 bytes of state"),
        (but(FIT, ("n * 12", "n * 16")), "one GPU.*16 bytes of state"),
        # only the attention's matrices
        (but(FIT, ("12 * h * h", "4 * h * h")), "one GPU"),
        # not cut by t, by p
        (but(FIT, ("h * h // t", "h * h")), "everything cut.*divided by p and t"),
        (but(FIT, ("n = layers // p", "n = layers")), "everything cut.*l/p layers"),
        # ZeRO 0 is taken to share as well
        (but(FIT, ("(d if zero > 0 else 1)", "d")), "everything cut.*not by d"),
        # sequence parallel assumed
        (but(FIT, ("(10 + 24 / t)", "34 / t")), "everything cut.*the 10 is divided by nothing"),
        # GPipe: all micro-batches are held
        (but(FIT, ("min(p, m)", "m")), "one GPU.*one micro-batch under way|everything cut"),
        # p of them, however few there are
        (but(FIT, ("min(p, m)", "p")), "fewer micro-batches than stages.*all there is"),
        (but(FIT, ("min(p, m)", "1")), "everything cut.*min"),
        # all layers
        (but(FIT, ("state + layers // p * min", "state + layers * min")), "everything cut.*l/p layers"),
        # stages of ZeRO off by one
        (
            but(FIT, ("zero > 2", "zero > 1"), ("zero > 1 else 1) + n * 12", "zero > 0 else 1) + n * 12")),
            "ZeRO 1.*optimizer's 12",
        ),
        (but(FIT, ("n * 2 // (d if zero > 1", "n * 2 // (d if zero > 2")), "ZeRO 2.*gradients"),
        (but(FIT, ("n * 2 // (d if zero > 2", "n * 2 // (d if zero > 3")), "ZeRO 3.*all 16"),
        (but(FIT, ("(d if zero > 0 else 1)", "(d if zero == 1 else 1)")), "ZeRO 2"),
        # shared by the tensor-parallel ranks
        (but(FIT, ("(d if zero > 0 else 1)", "(t if zero > 0 else 1)")), "ZeRO 1"),
        # selective drops more, or nothing
        (but(FIT, ("none - core", "none - core - 24 * s * b * h / t")), "selective.*keeps 10 \\+ 24/t"),
        (but(FIT, ("none - core", "none")), "selective"),
        # full: forgotten that a layer runs again, or once for every layer, or every micro-batch
        (but(FIT, ('none if recompute == "full" else 0', "0")), "full.*once, while a layer runs again"),
        (
            but(FIT, ('none if recompute == "full" else 0', 'layers // p * none if recompute == "full" else 0')),
            "full.*once",
        ),
        (
            but(FIT, ('none if recompute == "full" else 0', 'min(p, m) * none if recompute == "full" else 0')),
            "full.*once",
        ),
        (but(FIT, ('"full": 2 * s * b * h}', '"full": 2 * s * b * h / t}')), "full.*not divided by t"),
        # micro-batches that do not divide
        (but(FIT, ("copy % b == 0 and ", "")), "largest micro-batch.*divi"),
        # powers of two
        (
            but(
                FIT,
                ("for b in range(1, copy + 1) if copy % b == 0 and", "for b in (1, 2, 4, 8, 16) if copy % b == 0 and"),
            ),
            "divisors of 105|largest micro-batch",
        ),
        # of the whole batch
        (but(FIT, ("cut.batch // cut.d", "cut.batch")), "largest micro-batch"),
        (but(FIT, ("<= limit", "< limit")), "to the last byte.*exactly so many bytes"),
        (but(FIT, ("default=0", "default=1")), "nothing fits.*0 where"),
        (but(FIT, (", default=0", "")), "ValueError|nothing fits"),
        # the smallest
        (but(FIT, ("max(fits", "min(fits")), "largest micro-batch"),
        # the one after the last that fits
        (but(FIT, ("max(fits, default=0)", "len(fits)")), "largest micro-batch"),
        # all of it left out
        (but(FIT, ("range(1, copy + 1)", "range(1, copy)")), "all of it fits.*all of batch"),
        # somebody else counts
        (
            but(FIT, ("    state = n", "    state = training_state(n, d, zero, 2, 2, 12).total\n    other = n")),
            "calls course_lib.cost.memory: write here",
        ),
        ("stage_bytes = held\n" + LARGEST, "calls course_lib.cost"),
    ],
    "12.3": [
        # all that fits is timed
        (
            """def fastest(candidates, memory, seconds, bound, limit):
    fits = [c for c in candidates if memory(c) <= limit]
    return min(fits, key=seconds, default=None)""",
            "timed, .*go by the bounds",
        ),
        # and everything is
        (
            """def fastest(candidates, memory, seconds, bound, limit):
    times = {c: seconds(c) for c in candidates}
    fits = [c for c in candidates if memory(c) <= limit]
    return min(fits, key=times.get, default=None)""",
            "timed and too large.*ask for memory first",
        ),
        # memory forgotten
        (but(FASTEST, ("        if memory(c) > limit: continue\n", "")), "shortest step.*at most limit"),
        # memory looked at after timing
        (
            but(
                FASTEST,
                (
                    "        if memory(c) > limit: continue\n        taken = seconds(c)",
                    "        taken = seconds(c)\n        if memory(c) > limit: continue",
                ),
            ),
            "timed and too large|timed, ",
        ),
        # in the order in which they came
        (but(FASTEST, ("sorted(candidates, key=bound)", "candidates")), "shortest step|timed, "),
        # pruned in the order in which they came
        (
            but(FASTEST, ("sorted(candidates, key=bound)", "candidates"), ("break", "continue")),
            "timed, .*go by the bounds",
        ),
        # never stops
        (but(FASTEST, ("break", "pass")), "timed, .*stop in time"),
        # the largest bound first
        (but(FASTEST, ("key=bound)", "key=bound, reverse=True)"), ("break", "continue")), "timed, .*smallest first"),
        # the first that fits
        (
            """def fastest(candidates, memory, seconds, bound, limit):
    for c in sorted(candidates, key=bound):
        if memory(c) <= limit: return c""",
            "shortest step.*a small bound alone says nothing",
        ),
        # stops at the first that is slower
        (
            but(FASTEST, ("best, least = c, taken", "best, least = c, taken\n        else: break")),
            "shortest step.*first that fits is not the best",
        ),
        # stops at the first that does not fit
        (but(FASTEST, ("continue", "break")), "shortest step"),
        # the one that holds least
        (
            """def fastest(candidates, memory, seconds, bound, limit):
    c = min(candidates, key=memory)
    return c if memory(c) <= limit else None""",
            "shortest step|calls of memory",
        ),
        # its time in place of the candidate
        (but(FASTEST, ("return best", "return least")), "shortest step.*is no candidate"),
        # nothing fits
        (
            but(FASTEST, ("return best", "return best or candidates[0]")),
            "memory for nothing.*None if no candidate fits",
        ),
        (
            but(FASTEST, ("    return best", "    if best is None: raise ValueError('nothing')\n    return best")),
            "ValueError",
        ),
        # asked twice
        (
            but(
                FASTEST,
                (
                    "taken = seconds(c)\n        if least is None or taken < least: best, least = c, taken",
                    "if least is None or seconds(c) < least: best, least = c, seconds(c)",
                ),
            ),
            "calls of seconds for one candidate.*dear to ask twice",
        ),
        (
            but(FASTEST, ("if memory(c) > limit: continue", "if memory(c) > limit or memory(c) < 0: continue")),
            "calls of memory for one candidate",
        ),
        # what just fits is thrown away: half of the limit
        (but(FASTEST, ("memory(c) > limit", "memory(c) > 0.8 * limit")), "shortest step"),
        # a bound that is a little above, to be safe
        (but(FASTEST, ("bound(c) > least", "bound(c) > 1.3 * least")), "timed, "),
        # and one that stops too early
        (but(FASTEST, ("bound(c) > least", "bound(c) > 0.9 * least")), "shortest step"),
        # somebody else searches
        (
            """def fastest(candidates, memory, seconds, bound, limit):
    return search(Transformer("18B", 40, 6144, 48), A100, 64, 1536).best""",
            "calls course_lib.cost",
        ),
        ("def fastest(*asked): return None", "shortest step.*should be"),
    ],
    "12.4": [
        # the largest part of it
        (
            but(WHY, ("mine.seconds[k] - best.seconds[k])", "mine.seconds[k])")),
            "which kind or part.*largest difference",
        ),
        # relative
        (
            but(WHY, ("mine.seconds[k] - best.seconds[k])", "mine.seconds[k] / (best.seconds[k] or 1e-9))")),
            "which kind or part.*in seconds",
        ),
        # whatever differs most, gains too
        (
            but(WHY, ("mine.seconds[k] - best.seconds[k])", "abs(mine.seconds[k] - best.seconds[k]))")),
            "which kind or part.*mine - best|how much",
        ),
        # the wrong way round
        (
            but(
                WHY,
                ("key=lambda k: mine.seconds[k] - best.seconds[k]", "key=lambda k: best.seconds[k] - mine.seconds[k]"),
            ),
            "which kind or part.*mine - best",
        ),
        (
            but(WHY, ("part, mine.seconds[part] - best", "part, best.seconds[part] - mine.seconds[part] + 0 * best")),
            "how much.*seconds lost",
        ),
        # the whole difference
        (
            but(WHY, ("part, mine.seconds[part] - best.seconds[part]", "part, mine_s - best_s")),
            "how much.*in that part alone",
        ),
        # all of the part
        (
            but(WHY, ("part, mine.seconds[part] - best.seconds[part]", "part, mine.seconds[part]")),
            "how much.*against best",
        ),
        # a share
        (
            but(
                WHY,
                (
                    "part, mine.seconds[part] - best.seconds[part]",
                    "part, (mine.seconds[part] - best.seconds[part]) / best_s",
                ),
            ),
            "how much.*seconds",
        ),
        # memory forgotten
        (but(WHY, ("held > limit", "False")), "memory, time or best.*sum of all kinds"),
        # one kind against the limit
        (but(WHY, ("held > limit", "max(mine.memory.values()) > limit")), "memory, time or best.*sum of all kinds"),
        (but(WHY, ("sum(mine.memory.values())", "mine.memory['activations']")), "memory, time or best"),
        # exactly the limit is taken for too much
        (but(WHY, ("held > limit", "held >= limit")), "memory, time or best.*as much as limit"),
        # a reserve nobody asked for
        (but(WHY, ("held > limit", "held > 0.8 * limit")), "memory, time or best"),
        # all that it holds
        (but(WHY, ("kind, held - limit", "kind, held")), "how much.*beyond limit"),
        (but(WHY, ("kind, held - limit", "kind, mine.memory[kind] - limit")), "how much.*beyond limit"),
        (but(WHY, ("kind, held - limit", "kind, limit - held")), "how much.*beyond limit"),
        # of what it holds most against the best
        (
            but(WHY, ("key=lambda k: mine.memory[k]", "key=lambda k: mine.memory[k] - best.memory[k]")),
            "which kind or part.*most bytes",
        ),
        (but(WHY, ("kind = max(", "kind = min(")), "which kind or part.*most bytes"),
        # never the best
        (but(WHY, ("mine_s <= best_s", "False")), "memory, time or best"),
        (but(WHY, ("mine_s <= best_s", "mine_s < best_s")), "memory, time or best.*whole steps"),
        # any part shorter
        (
            but(WHY, ("mine_s <= best_s", "any(mine.seconds[k] < best.seconds[k] for k in mine.seconds)")),
            "memory, time or best",
        ),
        # time before memory
        (
            """def why_not(mine, best, limit):
    if sum(mine.seconds.values()) <= sum(best.seconds.values()): return "best", "", 0
    """
            + WHY.split("\n", 1)[1].strip().replace("mine_s <= best_s", "False"),
            "memory, time or best",
        ),
        (but(WHY, ('return "memory", kind, held - limit', 'return "memory", kind')), "IndexError"),
    ],
}

# task -> right answers that are unusual
RIGHT = {
    "12.1": [
        LAYOUTS,
        # a set
        but(LAYOUTS, ("found = []", "found = set()"), ("append", "add")),
        # one after the other
        but(LAYOUTS, ("    found = []\n", ""), ("found.append((p, d, t))", "yield p, d, t"), ("    return found", "")),
        # from the divisors of the number of GPUs
        """def divides(n): return [k for k in range(1, int(n**0.5) + 1) if n % k == 0]
def layouts(num_gpus, batch, num_layers, num_heads, gpus_per_node):
    parts = {q for k in divides(num_gpus) for q in (k, num_gpus // k)}
    return [[num_gpus // (d * t), d, t] for d in parts if batch % d == 0
            for t in parts if gpus_per_node % t == 0 and num_heads % t == 0
            if num_gpus % (d * t) == 0 and num_layers % (num_gpus // (d * t)) == 0]""",
        # greatest common divisors
        """from math import gcd
def layouts(n, batch, layers, heads, node):
    def parts(k): return (q for q in range(1, k + 1) if k % q == 0)
    return [(p, n // p // t, t) for t in parts(gcd(heads, node, n)) for p in parts(gcd(layers, n // t)) if batch % (n // p // t) == 0]""",
        # numpy
        """import numpy as np
def layouts(n, batch, layers, heads, node):
    p, t = (axis.ravel() for axis in np.meshgrid(np.arange(1, layers + 1), np.arange(1, node + 1)))
    good = (layers % p == 0) & (heads % t == 0) & (node % t == 0) & (n % (p * t) == 0)
    p, t = p[good], t[good]
    d = n // (p * t)
    good = batch % d == 0
    return [tuple(map(int, row)) for row in np.stack((p, d, t), 1)[good]]""",
        # all rules at once, p and t from the largest down
        """from itertools import product
def layouts(num_gpus, batch, num_layers, num_heads, gpus_per_node):
    found = []
    for p, t in product(range(num_layers, 0, -1), range(gpus_per_node, 0, -1)):
        d = num_gpus // p // t
        if d and p * d * t == num_gpus and not any((num_layers % p, num_heads % t, gpus_per_node % t, batch % d)):
            found.append((p, d, t))
    return tuple(found)""",
    ],
    "12.2": [
        FIT,
        # fractions
        """from fractions import Fraction as Q
def stage_bytes(shape, cut):
    n = Q(12 * shape.num_layers * shape.width**2, cut.p * cut.t)
    state = sum(n * k / (cut.d if cut.zero >= z else 1) for k, z in ((2, 3), (2, 2), (12, 1)))
    def layer(kind):
        bs = shape.context * cut.microbatch
        if kind == "full": return 2 * bs * shape.width
        core = Q(5 * shape.num_heads * shape.context * bs, cut.t) if kind == "none" else 0
        return bs * shape.width * (10 + Q(24, cut.t)) + core
    flying = min(cut.p, Q(cut.batch, cut.d * cut.microbatch))
    return state + Q(shape.num_layers, cut.p) * flying * layer(cut.recompute) + (layer("none") if cut.recompute == "full" else 0)
"""
        + LARGEST,
        # the largest first
        BYTES
        + """
def largest_microbatch(shape, cut, limit):
    copy = cut.batch // cut.d
    return next((b for b in range(copy, 0, -1) if copy % b == 0 and stage_bytes(shape, cut._replace(microbatch=b)) <= limit), 0)""",
        # up, as long as it fits
        BYTES
        + """
def largest_microbatch(shape, cut, limit):
    best, copy = 0, cut.batch // cut.d
    for b in range(1, copy + 1):
        if copy % b: continue
        if stage_bytes(shape, cut._replace(microbatch=b)) > limit: break
        best = b
    return best""",
        # bisection over the divisors
        BYTES
        + """
from bisect import bisect_right
def largest_microbatch(shape, cut, limit):
    copy = cut.batch // cut.d
    bs = [b for b in range(1, copy + 1) if copy % b == 0]
    return ([0] + bs)[bisect_right([stage_bytes(shape, cut._replace(microbatch=b)) for b in bs], limit)]""",
        # by the number of micro-batches
        BYTES
        + """
def largest_microbatch(shape, cut, limit):
    copy = cut.batch // cut.d
    for m in range(1, copy + 1):
        if copy % m == 0 and stage_bytes(shape, cut._replace(microbatch=copy // m)) <= limit: return copy // m
    return 0""",
        # ZeRO as a table, activations in one go
        """def stage_bytes(shape, cut):
    l, h, a, s = shape
    p, d, t, batch, b, zero, recompute = cut
    kept = [(2, 2, 12), (2, 2, 12 / d), (2, 2 / d, 12 / d), (2 / d, 2 / d, 12 / d)][zero]
    words = {"full": 2, "selective": 10 + 24 / t, "none": 10 + 24 / t + 5 * a * s / (h * t)}
    on_stage = min(l, l * batch / (p * d * b)) * words[recompute]
    if recompute == "full": on_stage += words["none"]
    return 12 * l * h * h / p / t * sum(kept) + s * b * h * on_stage
"""
        + LARGEST,
    ],
    "12.3": [
        FASTEST,
        # a heap
        """import heapq
def fastest(candidates, memory, seconds, bound, limit):
    heap = [(bound(c), i) for i, c in enumerate(candidates)]
    heapq.heapify(heap)
    best = (float("inf"), None)
    while heap and heap[0][0] <= best[0]:
        c = candidates[heapq.heappop(heap)[1]]
        if memory(c) <= limit: best = min(best, (seconds(c), c), key=lambda pair: pair[0])
    return best[1]""",
        # first all that fits
        """def fastest(candidates, memory, seconds, bound, limit):
    fits = sorted((c for c in candidates if memory(c) <= limit), key=bound)
    best, least = None, float("inf")
    for c in fits:
        if bound(c) >= least: break
        taken = seconds(c)
        if taken < least: best, least = c, taken
    return best""",
        # recursion
        """def fastest(candidates, memory, seconds, bound, limit):
    order = sorted(candidates, key=bound)
    best = least = None
    def go(rest):
        nonlocal best, least
        for i, c in enumerate(rest):
            if least is not None and bound(c) > least: return
            if memory(c) <= limit:
                taken = seconds(c)
                if least is None or taken < least:
                    best, least = c, taken
    go(order)
    return best""",
        # one heap for bounds and times: what comes out as a time is the best
        """import heapq
def fastest(candidates, memory, seconds, bound, limit):
    heap = [(bound(c), 0, i) for i, c in enumerate(candidates) if memory(c) <= limit]
    heapq.heapify(heap)
    while heap:
        _, timed, i = heapq.heappop(heap)
        if timed: return candidates[i]
        heapq.heappush(heap, (seconds(candidates[i]), 1, i))
    return None""",
        # numpy's order
        """import numpy as np
def fastest(candidates, memory, seconds, bound, limit):
    bounds = np.array([bound(c) for c in candidates])
    times = {}
    for i in np.argsort(bounds):
        c = candidates[i]
        if times and bounds[i] > min(times.values()): break
        if memory(c) <= limit: times[c] = seconds(c)
    return min(times, key=times.get) if times else None""",
        # with caches
        """from functools import cache
def fastest(candidates, memory, seconds, bound, limit):
    memory, seconds = cache(memory), cache(seconds)
    best = None
    for c in sorted(candidates, key=bound):
        if best is not None and bound(c) > seconds(best): return best
        if memory(c) <= limit and (best is None or seconds(c) < seconds(best)): best = c
    return best""",
        # the smallest bound picked each time
        """def fastest(candidates, memory, seconds, bound, limit):
    left, best, least = set(candidates), None, float("inf")
    while left:
        c = min(left, key=bound)
        left.remove(c)
        if bound(c) > least: return best
        if memory(c) > limit: continue
        taken = seconds(c)
        if taken < least: best, least = c, taken
    return best""",
    ],
    "12.4": [
        WHY,
        # a list
        but(
            WHY,
            ('return "memory", kind, held - limit', 'return ["memory", kind, held - limit]'),
            ('return "best", "", 0', 'return ["best", "", 0]'),
        ),
        # sorted
        """def why_not(mine, best, limit):
    over = sum(mine.memory.values()) - limit
    if over > 0: return "memory", sorted(mine.memory.items(), key=lambda item: item[1])[-1][0], over
    lost = sorted(((seconds - best.seconds[part]), part) for part, seconds in mine.seconds.items())
    if sum(mine.seconds.values()) > sum(best.seconds.values()): return "time", lost[-1][1], lost[-1][0]
    return "best", "", 0""",
        # a Counter
        """from collections import Counter
def why_not(mine, best, limit):
    (kind, _), *_ = Counter(mine.memory).most_common()
    (part, lost), *_ = Counter({k: mine.seconds[k] - best.seconds[k] for k in best.seconds}).most_common()
    if sum(mine.memory.values()) > limit: return "memory", kind, sum(mine.memory.values()) - limit
    return ("time", part, lost) if sum(mine.seconds.values()) > sum(best.seconds.values()) else ("best", "", 0)""",
        # numpy
        """import numpy as np
def why_not(mine, best, limit):
    held = np.array(list(mine.memory.values()), dtype=np.int64)
    if held.sum() > limit: return "memory", list(mine.memory)[int(held.argmax())], int(held.sum() - limit)
    parts = list(mine.seconds)
    gap = np.array([mine.seconds[k] for k in parts]) - np.array([best.seconds[k] for k in parts])
    if sum(mine.seconds.values()) <= sum(best.seconds.values()): return "best", "", 0
    return "time", parts[int(gap.argmax())], float(gap.max())""",
        # a loop
        """def why_not(mine, best, limit):
    total, kind, most = 0, "", -1
    for name, n in mine.memory.items():
        total += n
        if n > most: kind, most = name, n
    if not total <= limit: return "memory", kind, total - limit
    part, worst = "", float("-inf")
    for name in mine.seconds:
        gap = mine.seconds[name] - best.seconds[name]
        if gap > worst: part, worst = name, gap
    slower = sum(mine.seconds.values()) > sum(best.seconds.values())
    return "time" if slower else "best", part if slower else "", worst if slower else 0""",
        # memory as a dict's remainder, written with max over pairs
        """def why_not(mine, best, limit):
    need = 0
    for n in mine.memory.values(): need += n
    match (need > limit, sum(best.seconds.values()) >= sum(mine.seconds.values())):
        case (True, _): return "memory", max(mine.memory.items(), key=lambda kv: kv[1])[0], need - limit
        case (_, True): return "best", "", 0
    return ("time", *max(((k, s - best.seconds[k]) for k, s in mine.seconds.items()), key=lambda kv: kv[1]))""",
    ],
}
