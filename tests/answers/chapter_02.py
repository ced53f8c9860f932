"""Answers to the exercise of chapter 02: plausible wrong ones, and right ones that are not the teacher's."""

COST = """def linear_cost(rows, inputs, outputs, itemsize):
    flops = 2 * rows * inputs * outputs
    numbers = rows * inputs + inputs * outputs + rows * outputs
    return flops, itemsize * numbers, flops / (itemsize * numbers)

def scores_cost(batch, heads, context, head_width, itemsize):
    products = batch * heads
    each = 2 * context * context * head_width
    moved = 2 * context * head_width + context * context
    return products * each, itemsize * products * moved, each / (itemsize * moved)"""

ROOF = """def least_seconds(flops, nbytes, flops_per_s, bytes_per_s):
    return max(flops / flops_per_s, nbytes / bytes_per_s)

def smallest_batch(inputs, outputs, itemsize, flops_per_s, bytes_per_s):
    k, n, i, F, B = inputs, outputs, itemsize, flops_per_s, bytes_per_s
    before_m = 2 * k * n * B - i * (k + n) * F
    if before_m <= 0: return None
    return -(-i * k * n * F // before_m)"""

SAVED = """def saved_bytes(module, *inputs):
    sizes = {}
    there = {p.untyped_storage().data_ptr() for p in module.parameters()}
    def pack(t):
        storage = t.untyped_storage()
        if storage.data_ptr() not in there: sizes[storage.data_ptr()] = storage.nbytes()
        return t.detach()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        module(*inputs)
    return sum(sizes.values())"""

LAYER = """def layer_bytes(s, b, h, a, t=1, sequence_parallel=False, recompute="none"):
    along = t if sequence_parallel else 1
    if recompute == "full": return 2 * s * b * h / along
    norms, linears, masks = 4 * s * b * h, 4 * s * b * h, 2 * s * b * h
    heads, mlp = 8 * s * b * h, 16 * s * b * h
    core = 5 * a * s * s * b if recompute == "none" else 0
    return (norms + linears + masks) / along + (heads + mlp + core) / t"""

CHOOSE = """def peak_bytes(layers, recomputed):
    held, peak = 0, 0
    for i, (kept, given, ms) in enumerate(layers):
        peak = max(peak, held + kept)
        held += given if i in recomputed else kept
    return peak

def choose(layers, limit_bytes):
    best, least = None, float("inf")
    for bits in range(2 ** len(layers)):
        again = [i for i in range(len(layers)) if bits >> i & 1]
        ms = sum(layers[i][2] for i in again)
        if peak_bytes(layers, again) <= limit_bytes and ms < least: best, least = again, ms
    return best"""


def but(answer, *changes):
    """The answer with one thing in it changed."""
    for old, new in changes:
        assert old in answer, old
        answer = answer.replace(old, new)
    return answer


def choose(*lines):
    """Another way to choose, with the right peak."""
    return CHOOSE[: CHOOSE.index("def choose")] + "\n    ".join(["def choose(layers, limit_bytes):", *lines])


def greedy(key):
    """Takes layers by `key`, the largest first, until the peak fits."""
    return choose(
        "again = []",
        f"for i in sorted(range(len(layers)), key=lambda i: -({key})):",
        "    if peak_bytes(layers, again) <= limit_bytes: break",
        "    again.append(i)",
        "return again if peak_bytes(layers, again) <= limit_bytes else None",
    )


ROUND_UP = "-(-i * k * n * F // before_m)"

# task -> (answer, words that the verdict must hold); an answer is a whole cell, `def` included
WRONG = {
    "2.1": [
        # a multiplication with its addition counted as one
        (but(COST, ("2 * rows * inputs", "rows * inputs")), "FLOPs, linear.*a multiplication and an addition"),
        # a sum of k numbers has k - 1 additions, but nobody counts so
        (but(COST, ("2 * rows * inputs * outputs", "rows * outputs * (2 * inputs - 1)")), "FLOPs, linear"),
        (but(COST, ("2 * rows * inputs", "6 * rows * inputs")), "FLOPs, linear"),
        (but(COST, ("2 * rows * inputs * outputs", "2 * inputs * outputs")), "FLOPs, linear.*2 · rows"),
        (but(COST, ("return flops, itemsize *", "return flops,")), "bytes, linear.*itemsize"),
        (but(COST, (" + rows * outputs", "")), "bytes, linear.*of the output"),
        (but(COST, (" + inputs * outputs", "")), "bytes, linear.*of W"),
        (but(COST, ("rows * inputs + ", "")), "bytes, linear.*of x"),
        # the weight once a row, the output read before it is written
        (but(COST, ("+ inputs * outputs", "+ rows * inputs * outputs")), "bytes, linear"),
        (but(COST, ("+ rows * outputs", "+ 2 * rows * outputs")), "bytes, linear"),
        # with a bias
        (but(COST, ("+ rows * outputs", "+ rows * outputs + outputs")), "bytes, linear"),
        (but(COST, ("flops / (itemsize", "flops // (itemsize")), "intensity, linear.*and not //"),
        (
            but(COST, ("flops / (itemsize * numbers)", "itemsize * numbers / flops")),
            "intensity, linear.*FLOPs over bytes",
        ),
        # as if only the weight were moved
        (but(COST, ("flops / (itemsize * numbers)", "2 * rows / itemsize")), "intensity, linear"),
        (but(COST, ("each = 2 *", "each =")), "FLOPs, scores.*head_width products"),
        (but(COST, ("products = batch * heads", "products = batch")), "FLOPs, scores.*batch · heads"),
        # with the product with the values, or half of it for the mask
        (but(COST, ("each = 2 *", "each = 4 *")), "FLOPs, scores"),
        (but(COST, ("each = 2 *", "each = 1 *")), "FLOPs, scores"),
        (but(COST, (" + context * context\n", "\n")), "bytes, scores.*the scores context²"),
        (but(COST, ("moved = 2 *", "moved =")), "bytes, scores.*Q and K"),
        # every query fetches all of K
        (but(COST, ("moved = 2 * context * head_width", "moved = context * context * head_width")), "bytes, scores"),
        # PyTorch counts
        (
            "def linear_cost(m, k, n, size): return counted(linear, size, (m, k), (n, k))\n"
            "def scores_cost(b, a, s, w, size): return counted(scores, size, (b, a, s, w), (b, a, s, w))",
            "calls torch.*: write here",
        ),
    ],
    "2.2": [
        (
            but(ROOF, ("max(flops / flops_per_s, nbytes / bytes_per_s)", "flops / flops_per_s + nbytes / bytes_per_s")),
            "least seconds.*at the same time",
        ),
        (but(ROOF, ("return max(", "return min(")), "least seconds.*the longer of the two"),
        (but(ROOF, ("max(flops / flops_per_s, nbytes / bytes_per_s)", "flops / flops_per_s")), "least seconds"),
        (but(ROOF, ("max(flops / flops_per_s, nbytes / bytes_per_s)", "nbytes / bytes_per_s")), "least seconds"),
        (
            but(ROOF, ("flops / flops_per_s, nbytes / bytes_per_s", "flops / bytes_per_s, nbytes / flops_per_s")),
            "least seconds",
        ),
        # the rate, not the time
        (
            but(
                ROOF,
                ("max(flops / flops_per_s, nbytes / bytes_per_s)", "min(flops_per_s, flops / nbytes * bytes_per_s)"),
            ),
            "least seconds",
        ),
        # the rule of thumb: weights only
        (but(ROOF, ("- i * (k + n) * F", "")), "rows on real GPUs.*solve"),
        (but(ROOF, ("- i * (k + n) * F", "- i * k * F")), "rows on real GPUs"),
        (but(ROOF, ("2 * k * n * B", "k * n * B")), "rows on real GPUs"),
        (but(ROOF, ("- i * (k + n)", "- 2 * (k + n)"), ("(-i *", "(-2 *")), "rows on real GPUs.*float32"),
        # more rows mean more weights
        (but(ROOF, ("- i * (k + n) * F", "- i * k * n * F")), "rows on real GPUs"),
        (but(ROOF, (ROUND_UP, "i * k * n * F // before_m")), "rows on real GPUs.*round up"),
        (but(ROOF, (ROUND_UP, "i * k * n * F / before_m")), "rows on real GPUs.*round up"),
        (but(ROOF, (ROUND_UP, "i * k * n * F // before_m + 1")), "rows of a small layer.*yours 1876, should be 1875"),
        # never
        (but(ROOF, ("    if before_m <= 0: return None\n", "")), "rows of a small layer.*None"),
        (but(ROOF, ("return None", "return float('inf')")), "rows of a small layer.*None"),
        (but(ROOF, ("return None", "return 0")), "rows of a small layer.*None"),
        (but(ROOF, ("before_m <= 0", "before_m < 0")), "ZeroDivisionError"),
        (but(ROOF, ("before_m <= 0", "min(k, n) < 600")), "rows of a small layer.*None"),
        # tries up to a hundred thousand
        (
            ROOF[: ROOF.index("    before_m")] + "    for m in range(1, 10**5) if min(k, n) * B > F * i / 2 else ():\n"
            "        if 2 * m * k * n * B >= i * (m * k + k * n + m * n) * F: return m",
            "rows where it is enough, just",
        ),
        # in floats, by the intensity of the ridge
        (
            "import math\n"
            + but(
                ROOF,
                ("before_m = 2 * k * n * B - i * (k + n) * F", "before_m = 2 / i - F / B * (1 / k + 1 / n)"),
                (ROUND_UP, "math.ceil(F / B / before_m)"),
            ),
            "rows where .*just",
        ),
        # as if inputs and outputs were equally many
        (
            but(ROOF, ("k, n, i, F, B = inputs, outputs", "k, n, i, F, B = inputs, inputs")),
            "rows on real GPUs|wide and narrow",
        ),
        # the library's
        (
            "from course_lib.cost.hardware import Roofline\n"
            + but(
                ROOF,
                (
                    "max(flops / flops_per_s, nbytes / bytes_per_s)",
                    "Roofline(flops_per_s, bytes_per_s).seconds(flops, nbytes)",
                ),
            ),
            "calls course_lib.cost.hardware",
        ),
    ],
    "2.3": [
        # every tensor that is put aside: parameters and all
        (
            """def saved_bytes(module, *inputs):
    sizes = []
    def pack(t): sizes.append(t.nbytes); return t.detach()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t): module(*inputs)
    return sum(sizes)""",
            "bytes of LayerNorm.*are parameters",
        ),
        (
            but(SAVED, ("there = {p.untyped_storage().data_ptr() for p in module.parameters()}", "there = ()")),
            "bytes of LayerNorm.*are parameters",
        ),
        # the transposed weight is not a parameter
        (
            but(SAVED, ("if storage.data_ptr() not in there", "if not isinstance(t, nn.Parameter)")),
            "bytes of LayerNorm.*LayerNorm and linear.*transposed weight",
        ),
        # nor does it begin where the weight of another size does
        (
            but(SAVED, ("if storage.data_ptr() not in there", "if not any(t is p for p in module.parameters())")),
            "bytes of LayerNorm.*LayerNorm and linear",
        ),
        # inputs are there anyway, it says, or what needs no gradient is not kept
        (
            but(SAVED, ("for p in module.parameters()}", "for p in [*module.parameters(), *inputs]}")),
            "bytes of LayerNorm.*its input counts",
        ),
        (
            but(
                SAVED, ("if storage.data_ptr() not in there", "if t.requires_grad and storage.data_ptr() not in there")
            ),
            "bytes of LayerNorm",
        ),
        # one entry a tensor, not a storage
        (
            but(
                SAVED,
                ("sizes = {}", "sizes = []"),
                ("sizes[storage.data_ptr()] = storage.nbytes()", "sizes.append(storage.nbytes())"),
                ("sizes.values()", "sizes"),
            ),
            "bytes of MLP with ReLU.*one storage, counted once",
        ),
        # entries by where a tensor begins, and of its own size only
        (
            but(SAVED, ("sizes[storage.data_ptr()] = storage.nbytes()", "sizes[t.data_ptr()] = storage.nbytes()")),
            "bytes of attention.*views of one storage",
        ),
        (but(SAVED, ("= storage.nbytes()", "= t.nbytes")), "bytes of attention.*and whole"),
        (
            but(SAVED, ("= storage.nbytes()", "= storage.nbytes() // t.element_size() * 4")),
            "bytes of MLP with GELU.*float64",
        ),
        (but(SAVED, ("= storage.nbytes()", "= t.numel()")), "bytes of LayerNorm"),
        # floats only: a mask, an index
        (
            but(SAVED, ("if storage.data_ptr()", "if t.is_floating_point() and storage.data_ptr()")),
            "bytes of Block.*GPT.*whatever their dtype",
        ),
        # what modules give, which is not what they keep
        (
            """def saved_bytes(module, *inputs):
    outputs = []
    handles = [m.register_forward_hook(lambda m, i, o: outputs.append(o)) for m in module.modules()]
    module(*inputs)
    for handle in handles: handle.remove()
    return sum({o.data_ptr(): o.nbytes for o in outputs}.values())""",
            "bytes of LayerNorm",
        ),
        (
            but(
                SAVED,
                ("        module(*inputs)", "        y = module(*inputs)"),
                ("sum(sizes.values())", "sum(sizes.values()) + y.nbytes"),
            ),
            "bytes of LayerNorm",
        ),
        (
            "def saved_bytes(module, *inputs):\n"
            "    with MemoryMeter(module) as meter: y = module(*inputs)\n    return meter.now.activations",
            "calls course_lib.memory",
        ),
        (
            but(SAVED, ("        module(*inputs)", "        with torch.no_grad(): module(*inputs)")),
            "bytes of LayerNorm",
        ),
        # counts on from where the last call ended
        ("sizes = {}\n" + but(SAVED, ("    sizes = {}\n", "")), "bytes of"),
        # the list of them stays, tensors and all
        (
            "tensors = []\n"
            + but(SAVED, ("        return t.detach()", "        tensors.append(t); return t.detach()")),
            "bytes still alive.*outside the function",
        ),
        # a circle
        (but(SAVED, ("return t.detach()", "return t")), "bytes still alive.*tensor.detach"),
        # hooks that nobody takes away
        (
            but(
                SAVED,
                (
                    "    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):\n    ",
                    "    torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t).__enter__()\n",
                ),
            ),
            "pairs of hooks left in force.*takes them away",
        ),
        (but(SAVED, ("    sizes = {}", "    module(*inputs)\n    sizes = {}")), "forwards.*too dear"),
        (
            but(SAVED, ("        module(*inputs)", "        module(*inputs).sum().backward()")),
            "bytes of|backwards.*too dear",
        ),
        (
            but(SAVED, ("        module(*inputs)", "        y = module(*inputs)\n    y.sum().backward()")),
            "backwards.*too dear",
        ),
    ],
    "2.4": [
        # masks forgotten, or two bytes each
        (but(LAYER, ("masks) / along", "0 * masks) / along")), "one rank, none.*4 . 4 . 2"),
        (
            but(LAYER, ("masks = 4 * s * b * h, 4 * s * b * h, 2 *", "masks = 4 * s * b * h, 4 * s * b * h, 4 *")),
            "one rank, none",
        ),
        # activations in float32
        (but(LAYER, ("return (norms", "return 2 * (norms")), "one rank, none"),
        # the norms' inputs, one linear's input, or those of o and of the second linear forgotten
        (but(LAYER, ("(norms + linears", "(linears")), "one rank, none"),
        (but(LAYER, ("heads, mlp = 8", "heads, mlp = 6")), "one rank, none"),
        (but(LAYER, ("16 * s * b * h", "8 * s * b * h")), "one rank, none"),
        # attention's squares: without dropout, of one head, of a width
        (but(LAYER, ("5 * a * s * s * b", "2 * a * s * s * b")), "one rank, none.*as²b"),
        (but(LAYER, ("5 * a * s * s * b", "5 * s * s * b")), "one rank, none.*as²b"),
        (but(LAYER, ("5 * a * s * s * b", "5 * a * s * s")), "one rank, none.*as²b"),
        (but(LAYER, ("5 * a * s * s * b", "5 * a * s * s * h * b")), "one rank, none"),
        (but(LAYER, (' if recompute == "none" else 0', "")), "one rank, selective.*last two rows"),
        # selective keeps the mask: it would have to draw it again
        (but(LAYER, ('"none" else 0', '"none" else a * s * s * b')), "one rank, selective.*last two rows"),
        # selective recomputes all of attention
        (
            but(LAYER, ("    return (norms", "    if recompute == 'selective': heads = 0\n    return (norms")),
            "one rank, selective.*all others",
        ),
        (but(LAYER, ('"full": return 2 * s', '"full": return 1 * s')), "one rank, full.*2 bytes"),
        (but(LAYER, ('"full": return 2 * s', '"full": return 4 * s')), "one rank, full.*first norm only"),
        (but(LAYER, ('"full": return 2 * s * b * h', '"full": return 0')), "one rank, full"),
        # the wrong divisor
        (but(LAYER, ("along = t if sequence_parallel else 1", "along = t")), "tensor parallel.*whole on every rank"),
        (but(LAYER, ("/ along + (heads", "/ along + t * (heads")), "tensor parallel"),
        (but(LAYER, ("(heads + mlp + core) / t", "(heads + mlp) / t + core")), "tensor parallel"),
        (but(LAYER, ("(heads + mlp + core) / t", "(heads + core) / t + mlp")), "tensor parallel"),
        (but(LAYER, ("along = t if sequence_parallel else 1", "along = 1")), "tensor and sequence parallel.*every row"),
        (but(LAYER, ("h / along", "h")), "tensor and sequence parallel"),
        (but(LAYER, ("h / along", "h / t")), "tensor parallel.*kept with full"),
        (but(LAYER, ("masks) / along", "masks) / along / along")), "tensor and sequence parallel.*once"),
        # in GiB
        (but(LAYER, ("return (norms", "return 2**-30 * (norms")), "one rank, none"),
        # the library's
        (
            "def layer_bytes(s, b, h, a, t=1, sequence_parallel=False, recompute='none'):\n"
            "    plan = Plan(1, 1, t, b, b, sequence_parallel=sequence_parallel, recompute=recompute)\n"
            "    return layer_activations(Transformer('', 1, h, a, context=s), plan)",
            "calls course_lib.cost",
        ),
    ],
    "2.5": [
        # the sum of what is held, as if nothing came back
        (
            but(
                CHOOSE,
                (
                    "peak = max(peak, held + kept)\n        held += given if i in recomputed else kept",
                    "held += given if i in recomputed else kept\n        peak = held",
                ),
            ),
            "peak, some again.*at layer i",
        ),
        (
            but(CHOOSE, ("peak = max(peak, held + kept)", "peak = held + kept")),
            "peak, some again|peak of a large layer",
        ),
        # input beside the kept bytes it is part of
        (but(CHOOSE, ("held + kept)", "held + kept + given)")), "peak, nothing again"),
        (but(CHOOSE, ("held + kept)", "held + kept + given * (i in recomputed))")), "peak, some again"),
        # a recomputed layer holds nothing; or the input's other way round
        (but(CHOOSE, ("held += given if", "held += 0 if")), "peak, some again"),
        (
            but(CHOOSE, ("given if i in recomputed else kept", "kept if i in recomputed else given")),
            "peak, nothing again",
        ),
        # all that comes back at once
        (but(CHOOSE, ("    return peak", "    return sum(kept for kept, _, _ in layers)")), "peak, some again"),
        # on top of everything, whichever layers are gone by then
        (
            but(CHOOSE, ("    return peak", "    return held + max((layers[i][0] for i in recomputed), default=0)")),
            "peak, some again",
        ),
        (but(CHOOSE, ("kept, given, ms", "given, kept, ms")), "peak, nothing again"),
        # recomputes everything, or nothing, if that fits
        (
            choose("n = len(layers)", "return list(range(n)) if peak_bytes(layers, range(n)) <= limit_bytes else None"),
            "added ms.*another choice adds less",
        ),
        (choose("return [] if peak_bytes(layers, []) <= limit_bytes else None"), "is there a choice"),
        (choose("return []"), "is there a choice"),
        # the first ones; the last ones
        (
            choose(
                "for k in range(len(layers) + 1):",
                "    if peak_bytes(layers, range(k)) <= limit_bytes: return list(range(k))",
            ),
            "added ms",
        ),
        (
            choose(
                "n = len(layers)",
                "for k in range(n, -1, -1):",
                "    if peak_bytes(layers, range(k, n)) <= limit_bytes: return list(range(k, n))",
            ),
            "added ms",
        ),
        (greedy("layers[i][0]"), "added ms"),
        (greedy("-layers[i][2]"), "added ms"),
        (greedy("(layers[i][0] - layers[i][1]) / layers[i][2]"), "added ms.*try them all"),
        # fewest layers, or least memory, in place of least time
        (but(CHOOSE, ("ms = sum(layers[i][2] for i in again)", "ms = len(again)")), "added ms"),
        (but(CHOOSE, ("ms = sum(layers[i][2] for i in again)", "ms = peak_bytes(layers, again)")), "added ms"),
        # most time
        (but(CHOOSE, ("ms = sum(layers", "ms = -sum(layers")), "added ms"),
        (but(CHOOSE, ("<= limit_bytes and", "< limit_bytes and")), "is there a choice"),
        # never to recompute nothing
        (but(CHOOSE, ("for bits in range(2 **", "for bits in range(1, 2 **")), "added ms"),
        (but(CHOOSE, ("return best", "return best or None")), "is there a choice"),
        (but(CHOOSE, ("return best", "return best or []")), "is there a choice"),
        # the layers to keep
        (
            but(CHOOSE, ("return best", "return best and [i for i in range(len(layers)) if i not in best]")),
            "is there a choice|bytes over the limit|added ms",
        ),
        # what comes back is not in the limit
        (
            but(
                CHOOSE,
                (
                    "peak_bytes(layers, again) <= limit_bytes and",
                    "sum(g if i in again else k for i, (k, g, _) in enumerate(layers)) <= limit_bytes and",
                ),
            ),
            "is there a choice|bytes over the limit",
        ),
        # yes or no for each layer
        (
            but(CHOOSE, ("return best", "return best and [i in best for i in range(len(layers))]")),
            "is there a choice|bytes over the limit|added ms",
        ),
    ],
}

# task -> answers that must be accepted
RIGHT = {
    "2.1": [
        COST,
        """def product(count, i, k, j, size):
    flops, nbytes = count * 2 * i * k * j, count * size * (i * k + k * j + i * j)
    return [flops, nbytes, flops / nbytes]
def linear_cost(rows, inputs, outputs, itemsize): return product(1, rows, inputs, outputs, itemsize)
def scores_cost(b, a, s, w, itemsize): return product(b * a, s, w, s, itemsize)""",
        # intensity by itself, from one over each size
        but(
            COST,
            ("flops / (itemsize * numbers)", "2 / itemsize / (1 / rows + 1 / inputs + 1 / outputs)"),
            ("each / (itemsize * moved)", "2 / itemsize / (2 / context + 1 / head_width)"),
        ),
        "from math import prod\n"
        + but(
            COST,
            ("2 * rows * inputs * outputs", "2 * prod((rows, inputs, outputs))"),
            ("products = batch * heads", "products = prod([batch, heads])"),
        ),
        "from fractions import Fraction\n"
        + but(COST, ("flops / (itemsize * numbers)", "float(Fraction(flops, itemsize * numbers))")),
        "import numpy as np\n"
        + but(
            COST,
            (
                "return products * each, itemsize * products * moved, each",
                "return np.int64(products * each), np.int64(itemsize * products * moved), np.float64(each)",
            ),
        ),
        but(COST, ("return flops, itemsize * numbers,", "return float(flops), float(itemsize * numbers),")),
    ],
    "2.2": [
        ROOF,
        # from the rate that is attainable at this intensity
        but(
            ROOF,
            (
                "return max(flops / flops_per_s, nbytes / bytes_per_s)",
                "rate = min(flops_per_s, flops / nbytes * bytes_per_s)\n"
                "    return flops / rate if flops else nbytes / bytes_per_s",
            ),
        ),
        but(
            ROOF,
            (
                "return max(flops / flops_per_s, nbytes / bytes_per_s)",
                "t, u = flops / flops_per_s, nbytes / bytes_per_s\n    return t if t > u else u",
            ),
        ),
        "from fractions import Fraction\nimport math\n"
        + but(
            ROOF,
            (
                "before_m = 2 * k * n * B - i * (k + n) * F",
                "ridge = Fraction(F, B)\n    before_m = Fraction(2, i) - ridge * (Fraction(1, k) + Fraction(1, n))",
            ),
            (ROUND_UP, "math.ceil(ridge / before_m)"),
        ),
        but(ROOF, (ROUND_UP, "(i * k * n * F + before_m - 1) // before_m")),
        # doubling and halving, once it is clear that there is an end
        ROOF[: ROOF.index("    return -(")]
        + """    fits = lambda m: 2 * m * k * n * B >= i * (m * k + k * n + m * n) * F
    low, high = 0, 1
    while not fits(high): low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high""",
        but(
            ROOF,
            ("    if before_m <= 0: return None\n", "    if before_m > 0:\n    "),
            (ROUND_UP, "sum(divmod(i * k * n * F - 1, before_m)[:1]) + 1"),
        ),
    ],
    "2.3": [
        SAVED,
        # storages themselves, in a set
        """def saved_bytes(module, *inputs):
    found = set()
    def pack(t): found.add(t.untyped_storage()); return t.detach()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t): y = module(*inputs)
    return sum(s.nbytes() for s in found - {p.untyped_storage() for p in module.parameters()})""",
        # a list of tensors, looked at afterwards
        """def saved_bytes(module, *inputs):
    tensors = []
    def pack(t): tensors.append(t.detach()); return len(tensors) - 1
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda i: tensors[i]): module.forward(*inputs)
    storages = {s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in tensors)}
    for p in module.parameters(): storages.pop(p.untyped_storage().data_ptr(), 0)
    return sum(storages.values())""",
        # a class with both hooks as methods; the storage is what it packs
        """class Scale:
    def __init__(self): self.seen, self.total = set(), 0
    def pack(self, t):
        if t.untyped_storage().data_ptr() not in self.seen: self.total += t.untyped_storage().nbytes()
        self.seen.add(t.untyped_storage().data_ptr())
        return t.untyped_storage()
    def unpack(self, s): raise AssertionError("no backward")
def saved_bytes(module, *inputs):
    scale = Scale()
    scale.seen |= {p.untyped_storage().data_ptr() for p in module.parameters()}
    hooks = torch.autograd.graph.saved_tensors_hooks(scale.pack, scale.unpack)
    hooks.__enter__()
    try: module(*inputs)
    finally: hooks.__exit__()
    return scale.total""",
        # no hooks: through the graph
        """def saved_bytes(module, *inputs):
    mine = {p.untyped_storage().data_ptr() for p in module.parameters()}
    found, todo, seen = {}, [module(*inputs).grad_fn], set()
    while todo:
        node = todo.pop()
        if node is None or node in seen: continue
        seen.add(node); todo.extend(n for n, _ in node.next_functions)
        for name in filter(lambda name: name.startswith("_saved"), dir(node)):
            t = getattr(node, name)
            if not isinstance(t, torch.Tensor): continue
            found[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
    return sum(v for k, v in found.items() if k not in mine)""",
        # decorated
        """import contextlib
@contextlib.contextmanager
def weighing(skip):
    kept = {s: 0 for s in skip}
    def pack(t):
        kept.setdefault(t.untyped_storage().data_ptr(), t.untyped_storage().nbytes()); return t.detach()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t): yield kept
def saved_bytes(module, *inputs):
    with weighing([p.untyped_storage().data_ptr() for p in module.parameters()]) as kept: module(*inputs)
    return sum(kept.values())""",
        # what views of parameters look into, by their base
        but(
            SAVED,
            (
                "if storage.data_ptr() not in there",
                "base = t if t._base is None else t._base\n        if not any(base is p for p in module.parameters())",
            ),
        ),
    ],
    "2.4": [
        LAYER,
        # table 2 of the paper, row by row
        """def layer_bytes(s, b, h, a, t=1, sequence_parallel=False, recompute="none"):
    sbh, squares = s * b * h, 5 * a * s / h
    if recompute == "full": return 2 * sbh / (t if sequence_parallel else 1)
    if recompute == "selective": return 34 * sbh / t if sequence_parallel else sbh * (10 + 24 / t)
    return sbh * (34 / t + squares / t) if sequence_parallel else sbh * (10 + 24 / t + squares / t)""",
        # whole numbers: t divides everything here
        but(LAYER, ("h / along", "h // along"), (") / along", ") // along"), (") / t", ") // t")),
        # a list of tensors
        """def layer_bytes(s, b, h, a, t=1, sequence_parallel=False, recompute="none"):
    row, square = s * b * h, a * s * s * b
    kept = [(2 * row, "s")]
    if recompute != "full":
        kept += [(2 * row, "s")] * 3 + [(row, "s")] * 2 + [(2 * row, "t")] * 4 + [(8 * row, "t")] * 2
    if recompute == "none": kept += [(2 * square, "t"), (2 * square, "t"), (square, "t")]
    return sum(nbytes / (t if cut == "t" or sequence_parallel else 1) for nbytes, cut in kept)""",
        "from fractions import Fraction\n"
        + but(LAYER, ("return (norms", "return Fraction(1) * (norms"), (") / t", ") * Fraction(1, t)")),
        "def layer_bytes(s, b, h, a, t=1, sequence_parallel=False, recompute='none'):\n"
        "    squares = {'none': 5 * a * s * s * b, 'selective': 0, 'full': -24 * s * b * h}[recompute]\n"
        "    whole = s * b * h * (2 if recompute == 'full' else 10)\n"
        "    return whole / t ** sequence_parallel + (24 * s * b * h + squares) / t",
        "import numpy as np\n" + but(LAYER, ("return (norms", "return np.float64(1) * (norms")),
    ],
    "2.5": [
        CHOOSE,
        # from the last layer to the first, as backward goes
        """def peak_bytes(layers, recomputed):
    held = [g if i in set(recomputed) else k for i, (k, g, _) in enumerate(layers)]
    moments = []
    while held:
        held.pop()
        moments.append(sum(held) + layers[len(held)][0])
    return max(moments)
"""
        + CHOOSE[CHOOSE.index("def choose") :],
        # all choices in the order of their time: the first that fits
        choose(
            "import itertools",
            "n = len(layers)",
            "bits = itertools.product((0, 1), repeat=n)",
            "choices = [set(itertools.compress(range(n), each)) for each in bits]",
            "choices.sort(key=lambda again: sum(layers[i][2] for i in again))",
            "return next((again for again in choices if peak_bytes(layers, again) <= limit_bytes), None)",
        ),
        # layer by layer: of the ways to hold so many bytes, the cheapest
        choose(
            "ways = {0: (0, ())}",
            "for i, (kept, given, ms) in enumerate(layers):",
            "    longer = {}",
            "    for held, (time, again) in ways.items():",
            "        if held + kept > limit_bytes: continue",
            "        for more, way in ((kept, (time, again)), (given, (time + ms, again + (i,)))):",
            "            longer[held + more] = min(longer.get(held + more, way), way)",
            "    ways = longer",
            "return min(ways.values())[1] if ways else None",
        ),
        # recursion
        choose(
            "def rest(i, held):",
            "    if i == len(layers): return 0, []",
            "    kept, given, ms = layers[i]",
            "    if held + kept > limit_bytes: return float('inf'), None",
            "    keep, again = rest(i + 1, held + kept), rest(i + 1, held + given)",
            "    return keep if keep[0] <= again[0] + ms else (again[0] + ms, [i] + again[1])",
            "return rest(0, 0)[1]",
        ),
        # of equally good choices, the one with most layers, as a set, backwards
        but(
            CHOOSE,
            ("range(2 ** len(layers))", "reversed(range(2 ** len(layers)))"),
            ("return best", "return best if best is None else set(best[::-1])"),
        ),
        but(CHOOSE, ("return best", "return best if best is None else dict.fromkeys(best, 'again')")),
        "import numpy as np\n"
        + but(CHOOSE, ("return best", "return None if best is None else np.array(best, dtype=int)")),
    ],
}
