"""Answers to the exercise of chapter 01: plausible wrong ones, and right ones that are not the teacher's."""

SIZE = """def gpt_size(num_layers, width, vocab_size, context):
    l, h, V, s = num_layers, width, vocab_size, context
    attention, mlp, norms = 4 * (h * h + h), 4 * h * h + 4 * h + 4 * h * h + h, 4 * h
    parameters = l * (attention + mlp + norms) + V * h + s * h + 2 * h
    products = 8 * s * h * h + 16 * s * h * h + 2 * s * s * h + 2 * s * s * h
    return parameters, l * products + 2 * s * h * V"""

DAYS = """def days_to_train(num_parameters, tokens, num_gpus, flops_per_s, recompute):
    flops = 6 * num_parameters * tokens
    if recompute: flops += 2 * num_parameters * tokens
    return flops / (num_gpus * flops_per_s) / 86400

def tokens_in(days, num_parameters, num_gpus, flops_per_s, recompute):
    each = (6 + 2 * recompute) * num_parameters
    return days * 86400 * num_gpus * flops_per_s // each"""

STATE = """def state_bytes(num_parameters, weight_dtype, gradient_dtype, optimizer, master):
    n, w, g = num_parameters, weight_dtype.itemsize, gradient_dtype.itemsize
    m = {"sgd": 0, "momentum": 1, "adam": 2}[optimizer]
    stepped = 4 if master else w
    kept = {"weights": n * w, "gradients": n * g}
    return {**kept, "master copy": n * 4 * master, "moments": n * m * stepped}"""

FIT = """def fewest_gpus(state_bytes, memory, reserve_percent):
    amount, unit = memory.split()
    nbytes = int(amount) * {"GB": 10**9, "GiB": 2**30, "MiB": 2**20}[unit]
    share = 100 - reserve_percent
    return -(-100 * state_bytes // (nbytes * share))"""


def but(answer, *changes):
    """The answer with one thing in it changed."""
    for old, new in changes:
        assert old in answer, old
        answer = answer.replace(old, new)
    return answer


FIT_CEIL = "-(-100 * state_bytes // (nbytes * share))"

# task -> (answer, words that the verdict must hold); an answer is a whole cell, `def` included
WRONG = {
    "1.1": [
        # the head counted as if it had a matrix of its own
        (but(SIZE, ("V * h + s * h", "2 * V * h + s * h")), "parameters around the layers.*the head adds none"),
        (but(SIZE, (" + s * h + 2 * h", " + 2 * h")), "parameters around the layers.*Vh and sh"),
        # equation 2 of the paper leaves out the last norm
        (but(SIZE, ("s * h + 2 * h", "s * h")), "parameters around the layers.*2h for the last norm"),
        # matrices only
        (but(SIZE, ("(attention + mlp + norms)", "12 * h * h")), "parameters of a layer.*biases 9h"),
        (but(SIZE, ("(attention + mlp + norms)", "(attention + mlp)")), "parameters of a layer.*norms 4h"),
        (but(SIZE, ("norms = 4 * (h * h + h)", "norms = 3 * (h * h + h)")), "parameters of a layer.*six matrices"),
        # one norm
        (but(SIZE, (", 4 * h\n", ", 2 * h\n")), "parameters of a layer.*two norms"),
        # the rule of thumb: no attention, and tables and biases as if they multiplied
        (but(SIZE, ("l * products + 2 * s * h * V", "2 * parameters * s")), "FLOPs of a layer"),
        (but(SIZE, (" + 2 * s * s * h + 2 * s * s * h", "")), "FLOPs of a layer.*QKᵀ"),
        (but(SIZE, (" + 2 * s * s * h + 2 * s * s * h", " + 2 * s * s * h")), "FLOPs of a layer.*values the same"),
        # half of the scores are masked, but they are computed
        (but(SIZE, ("2 * s * s * h + 2 * s * s * h", "s * s * h + s * s * h")), "FLOPs of a layer"),
        # a multiplication with its addition counted as one
        (but(SIZE, ("l * products + 2 * s * h * V", "(l * products + 2 * s * h * V) // 2")), "FLOPs of a layer"),
        # forward and backward
        (but(SIZE, ("l * products + 2 * s * h * V", "3 * (l * products + 2 * s * h * V)")), "FLOPs of a layer"),
        # of one token
        (but(SIZE, ("l * products + 2 * s * h * V", "(l * products + 2 * s * h * V) // s")), "FLOPs of a layer"),
        (but(SIZE, ("l * products + 2 * s * h * V", "l * products")), "FLOPs around the layers.*logits"),
        # looking up a word counted as a product
        (but(SIZE, ("+ 2 * s * h * V", "+ 4 * s * h * V")), "FLOPs around the layers.*tables multiply nothing"),
        (but(SIZE, ("+ 2 * s * h * V", "+ 2 * s * h * (V + s)")), "FLOPs around the layers"),
        ("def gpt_size(*shape): return 1416, 45568", "parameters of a layer"),
        (but(SIZE, ("return parameters, ", "return parameters #")), "TypeError"),
        # somebody else counts
        (
            "from course_lib.cost.shapes import Transformer\n"
            "def gpt_size(num_layers, width, vocab_size, context):\n"
            "    model = Transformer('mine', num_layers, width, 1, vocab_size, context)\n"
            "    return model.parameters, model.forward_flops(1)",
            "calls course_lib.cost.shapes: write here",
        ),
        ("def gpt_size(*shape): return built(*shape)", "calls (torch|course_lib).*: write here"),
    ],
    "1.2": [
        (but(DAYS, ("if recompute", "if False")), "days with full recomputation.*8"),
        (but(DAYS, ("if recompute", "if True")), "days without recomputation.*once, not twice"),
        (but(DAYS, ("if recompute", "if not recompute")), "days with full recomputation"),
        # forward alone
        (but(DAYS, ("flops = 6", "flops = 2")), "days with full recomputation"),
        # recomputation taken as a third more of everything, twice
        (but(DAYS, ("+= 2 *", "+= 6 *")), "days with full recomputation"),
        (but(DAYS, (" / 86400", "")), "days with full recomputation.*86,400"),
        (but(DAYS, (" / 86400", " / 3600")), "days with full recomputation.*86,400"),
        # FLOP/s taken for TFLOP/s
        (but(DAYS, ("(num_gpus * flops_per_s)", "(num_gpus * flops_per_s * 10**12)")), "days with full recomputation"),
        (but(DAYS, ("(num_gpus * flops_per_s)", "flops_per_s")), "days with full recomputation.*GPUs"),
        (but(DAYS, ("flops / (num_gpus", "flops * (num_gpus")), "days with full recomputation"),
        # whole days
        (
            but(
                DAYS,
                ("return flops / (num_gpus * flops_per_s) / 86400", "return flops // (num_gpus * flops_per_s * 86400)"),
            ),
            "days with full recomputation",
        ),
        # the other direction
        (but(DAYS, ("(6 + 2 * recompute)", "6")), "tokens with full recomputation"),
        (but(DAYS, ("(6 + 2 * recompute)", "8")), "tokens without recomputation"),
        (but(DAYS, ("days * 86400 * num", "days * num")), "tokens with full recomputation.*86,400"),
        (but(DAYS, ("num_gpus * flops_per_s // each", "flops_per_s // each")), "tokens with full recomputation"),
        (but(DAYS, ("flops_per_s // each", "flops_per_s / each")), "tokens with full recomputation.*rounded down"),
        (but(DAYS, ("flops_per_s // each", "flops_per_s // each + 1")), "tokens with full recomputation.*rounded down"),
        (
            but(DAYS, ("return days *", "return -(-days *"), ("// each", "// each)")),
            "tokens with full recomputation.*rounded down",
        ),
        (
            but(
                DAYS,
                (
                    "return days * 86400 * num_gpus * flops_per_s // each",
                    "return round(days * 86400 * num_gpus * flops_per_s / each)",
                ),
            ),
            "tokens with(out|) .*rounded down",
        ),
        # rounds too early: FLOPs of a day over those of a token
        (
            but(
                DAYS,
                (
                    "return days * 86400 * num_gpus * flops_per_s // each",
                    "return days * (86400 * num_gpus * flops_per_s // each)",
                ),
            ),
            "tokens with",
        ),
        ("def days_to_train(*run): return 34.0\ndef tokens_in(*run): return 0", "days with full recomputation"),
    ],
    "1.3": [
        # Adam without its copy: 8 bytes where there are 12
        (but(STATE, ("n * 4 * master", "0")), "sgd with a master copy, counted.*the copy is float32"),
        (but(STATE, ("n * 4 * master", "n * w * master")), "sgd with a master copy, counted.*the copy is float32"),
        (but(STATE, ("n * 4 * master", "n * 4")), "sgd, counted.*other two kinds are 0"),
        (
            but(STATE, ("stepped = 4 if master else w", "stepped = w")),
            "momentum with a master copy, counted.*moments are float32",
        ),
        # float32 whatever the optimizer steps
        (but(STATE, ("stepped = 4 if master else w", "stepped = 4")), "momentum, counted.*in the dtype of the weights"),
        (but(STATE, ('"adam": 2', '"adam": 1')), "adam, counted.*two numbers"),
        # Adam's moments and the copy in one
        (but(STATE, ('"adam": 2', '"adam": 3')), "adam, counted.*two numbers"),
        (but(STATE, ('"momentum": 1', '"momentum": 0')), "momentum, counted.*one number"),
        (but(STATE, ('"momentum": 1', '"momentum": 2')), "momentum, counted.*one number"),
        (but(STATE, ('"sgd": 0', '"sgd": 1')), "sgd, counted"),
        # all in float32
        (but(STATE, ("weight_dtype.itemsize, gradient_dtype.itemsize", "4, 4")), "sgd, counted.*itemsize"),
        (but(STATE, ("weight_dtype.itemsize, gradient_dtype.itemsize", "2, 2")), "sgd, counted.*itemsize"),
        (but(STATE, ("gradient_dtype.itemsize", "weight_dtype.itemsize")), "gradients kept in float32.*gradient_dtype"),
        # gradients of the copy, in float32, as well
        (but(STATE, ('"gradients": n * g', '"gradients": n * (g + 4 * master)')), "sgd with a master copy"),
        # the copy in place of the weights
        (but(STATE, ('"weights": n * w', '"weights": n * w * (not master)')), "sgd with a master copy"),
        (but(STATE, ('"gradients": n * g', '"gradients": 0')), "sgd, counted.*and for gradients"),
        # a kind that is missing
        (but(STATE, ('"master copy": n * 4 * master, ', "")), "sgd, counted.*3 entries|sgd, counted.*master copy"),
        (but(STATE, ("return {", "return sum({"), ("n * m * stepped}", "n * m * stepped}.values())")), "sgd, counted"),
        (but(STATE, ("n, w, g = num_parameters", "n, w, g = num_parameters / 1e9")), "sgd, counted"),
        # it has no name for plain momentum
        (but(STATE, ('"momentum": 1, ', "")), "KeyError"),
        # made and counted, where it is to be worked out
        (
            "def state_bytes(num_parameters, weight_dtype, *rest):\n"
            "    return {'weights': sum(p.nbytes for p in nn.Linear(num_parameters, 1).parameters())}",
            "calls torch.*: write here",
        ),
    ],
    "1.4": [
        # GB for GiB and the reverse
        (but(FIT, ('"GiB": 2**30', '"GiB": 10**9')), "GPUs of so many GiB.*2..30"),
        (but(FIT, ('"GB": 10**9', '"GB": 2**30')), "GPUs of so many GB.*10..9"),
        (but(FIT, ('"MiB": 2**20', '"MiB": 10**6')), "GPUs of so many MiB.*2..20"),
        (but(FIT, ('{"GB": 10**9, "GiB": 2**30, "MiB": 2**20}[unit]', "10**9")), "GPUs of so many GiB"),
        (but(FIT, (', "MiB": 2**20', "")), "KeyError"),
        # activations forgotten
        (but(FIT, ("share = 100 - reserve_percent", "share = 100")), "GPUs of so many GB.*100 - reserve_percent"),
        # the reserve taken as that part of the state
        (but(FIT, (FIT_CEIL, "-(-state_bytes * (100 + reserve_percent) // (nbytes * 100))")), "GPUs of so many GB"),
        (but(FIT, ("share = 100 - reserve_percent", "share = reserve_percent or 100")), "GPUs of so many GB"),
        (but(FIT, ("share = 100 - reserve_percent", "share = 100 + reserve_percent")), "GPUs of so many GB"),
        # rounding
        (but(FIT, (FIT_CEIL, "100 * state_bytes // (nbytes * share)")), "GPUs of so many GB.*rounded up"),
        (
            but(FIT, (FIT_CEIL, "100 * state_bytes // (nbytes * share) + 1")),
            "GPUs of so many GB.*yours 36, should be 35",
        ),
        (but(FIT, (FIT_CEIL, "round(100 * state_bytes / (nbytes * share))")), "GPUs of so many GB.*rounded up"),
        (but(FIT, (FIT_CEIL, "100 * state_bytes / (nbytes * share)")), "GPUs of so many GB.*rounded up"),
        # up to the next even number, as GPUs come in pairs
        (but(FIT, (FIT_CEIL, FIT_CEIL + " // 2 * 2 + 2")), "GPUs of so many GB"),
        # 24e9 * 0.7 is a little less than 16.8e9
        (
            "import math\n" + but(FIT, (FIT_CEIL, "math.ceil(state_bytes / (nbytes * (1 - reserve_percent / 100)))")),
            "where it just fits.*rounding error",
        ),
        # forgives one byte
        (
            but(FIT, (FIT_CEIL, "max(1, -(-100 * (state_bytes - 1) // (nbytes * share)))")),
            "where one byte is too many.*round up",
        ),
        # in whole GB first
        (but(FIT, ("share = 100", "state_bytes = state_bytes // 10**9 * 10**9; share = 100")), "one byte is too many"),
        # a wrong divisor: only the optimizer's 12 of 16 bytes, as if the rest took no room
        (but(FIT, ("-100 *", "-75 *")), "GPUs of so many GB"),
        ("def fewest_gpus(*args): return 39", "GPUs of so many GB"),
        (but(FIT, ("memory.split()", "memory[:2], memory[3:]")), "KeyError"),
    ],
}

# task -> answers that must be accepted
RIGHT = {
    "1.1": [
        SIZE,
        """def gpt_size(num_layers, width, vocab_size, context):
    h = width
    linears = [(h, h)] * 4 + [(h, 4 * h), (4 * h, h)]
    layer = sum(i * o + o for i, o in linears) + 4 * h
    flops = sum(2 * context * i * o for i, o in linears) + 2 * (2 * context * context * h)
    logits = 2 * context * h * vocab_size
    return (num_layers * layer + (vocab_size + context + 2) * h, num_layers * flops + logits)""",
        # equations 2 and 3 of Narayanan et al. 2021, the last norm and no backward; in floats, rounded
        """def gpt_size(l, h, V, s):
    parameters = 12 * l * h**2 * (1 + 13 / (12 * h) + (V + s) / (12 * l * h)) + 2 * h
    flops = 24 * s * l * h**2 * (1 + s / (6 * h) + V / (12 * l * h))
    return round(parameters), round(flops)""",
        # layer by layer
        """def gpt_size(num_layers, width, vocab_size, context):
    parameters, flops = width * (vocab_size + context + 2), 2 * context * width * vocab_size
    for _ in range(num_layers):
        parameters += width * (12 * width + 13)
        flops += 4 * context * width * (6 * width + context)
    return [parameters, flops]""",
        # whole numbers that happen to be floats, or numpy's
        but(SIZE, ("return parameters, l * products", "return float(parameters), 1.0 * l * products")),
        "import numpy as np\n"
        + but(
            SIZE,
            ("l, h, V, s = ", "l, h, V, s = map(np.int64, ("),
            ("vocab_size, context\n", "vocab_size, context))\n"),
        ),
        """def product(i, k, j): return 2 * i * k * j
def gpt_size(l, h, V, s):
    matrices, rest = 12 * h * h, 13 * h
    once = product(s, h, V)
    core = product(s, h, s) + product(s, s, h)
    return l * (matrices + rest) + h * (V + s) + 2 * h, once + l * (2 * s * matrices + core)""",
    ],
    "1.2": [
        DAYS,
        """from fractions import Fraction
def seconds(num_parameters, tokens, num_gpus, flops_per_s, recompute):
    return Fraction((8 if recompute else 6) * num_parameters * tokens, num_gpus * flops_per_s)
def days_to_train(*run): return float(seconds(*run) / (24 * 3600))
def tokens_in(days, num_parameters, *rest):
    return int(days * 24 * 3600 / seconds(num_parameters, 1, *rest))""",
        """from datetime import timedelta
def days_to_train(num_parameters, tokens, num_gpus, flops_per_s, recompute):
    flops = [6, 8][recompute] * num_parameters * tokens
    return flops / num_gpus / flops_per_s / timedelta(days=1).total_seconds()
def tokens_in(days, num_parameters, num_gpus, flops_per_s, recompute):
    seconds = timedelta(days=days) // timedelta(seconds=1)
    return divmod(seconds * num_gpus * flops_per_s, [6, 8][recompute] * num_parameters)[0]""",
        # a token at a time is too slow: halving instead
        """def days_to_train(num_parameters, tokens, num_gpus, flops_per_s, recompute):
    forward = 2 * num_parameters * tokens
    return (forward + 2 * forward + forward * bool(recompute)) / (num_gpus * flops_per_s * 60 * 60 * 24)
def tokens_in(days, num_parameters, num_gpus, flops_per_s, recompute):
    low, high = 0, 2**80
    while high - low > 1:
        middle = (low + high) // 2
        enough = (8 if recompute else 6) * num_parameters * middle <= days * 86400 * num_gpus * flops_per_s
        low, high = (middle, high) if enough else (low, middle)
    return low""",
        # a whole number that happens to be a float
        but(DAYS, ("return days *", "return float(days *"), ("// each", "// each)")),
        "import math\n"
        + but(
            DAYS,
            (
                "return days * 86400 * num_gpus * flops_per_s // each",
                "return math.floor(days * 86400 * num_gpus * flops_per_s / each)",
            ),
        ),
        "import numpy as np\n"
        + but(
            DAYS,
            (
                "return flops / (num_gpus * flops_per_s) / 86400",
                "return np.float64(flops) / np.prod([num_gpus, flops_per_s, 24.0, 3600.0])",
            ),
        ),
    ],
    "1.3": [
        STATE,
        """def state_bytes(num_parameters, weight_dtype, gradient_dtype, optimizer, master):
    stepped = torch.float32 if master else weight_dtype
    dtypes = {"weights": [weight_dtype], "gradients": [gradient_dtype], "moments": [], "master copy": []}
    if optimizer != "sgd": dtypes["moments"].append(stepped)
    if optimizer == "adam": dtypes["moments"].append(stepped)
    if master: dtypes["master copy"].append(torch.float32)
    return {kind: sum(d.itemsize for d in found) * num_parameters for kind, found in dtypes.items()}""",
        # bytes of an empty tensor's elements
        but(
            STATE,
            (
                "weight_dtype.itemsize, gradient_dtype.itemsize",
                "*(torch.empty(0, dtype=d).element_size() for d in (weight_dtype, gradient_dtype))",
            ),
        ),
        # bits
        but(
            STATE,
            (
                "weight_dtype.itemsize, gradient_dtype.itemsize",
                "torch.finfo(weight_dtype).bits // 8, torch.finfo(gradient_dtype).bits // 8",
            ),
        ),
        but(STATE, ('{"sgd": 0, "momentum": 1, "adam": 2}[optimizer]', '["sgd", "momentum", "adam"].index(optimizer)')),
        # tables of names
        """def state_bytes(num_parameters, weight_dtype, gradient_dtype, optimizer, master):
    size = {"torch.float64": 8, "torch.float32": 4, "torch.bfloat16": 2, "torch.float16": 2}
    w, g = size[str(weight_dtype)], size[str(gradient_dtype)]
    found = dict(weights=w, gradients=g, moments=0)
    found["master copy"] = 4 if master else 0
    for _ in range({"momentum": 1, "adam": 2}.get(optimizer, 0)):
        found["moments"] += found["master copy"] or w
    return {kind: nbytes * num_parameters for kind, nbytes in found.items()}""",
        but(STATE, ("n, w, g = num_parameters", "n, w, g = float(num_parameters)")),
    ],
    "1.4": [
        FIT,
        "import math\nfrom fractions import Fraction\n"
        + but(FIT, (FIT_CEIL, "math.ceil(state_bytes / (nbytes * (1 - Fraction(reserve_percent, 100))))")),
        # the rest that // leaves
        but(
            FIT,
            ("return " + FIT_CEIL, "n, rest = divmod(100 * state_bytes, nbytes * share)\n    return n + (rest > 0)"),
        ),
        but(FIT, (FIT_CEIL, "(100 * state_bytes + nbytes * share - 1) // (nbytes * share)")),
        # the unit read from its letters
        but(
            FIT,
            (
                '{"GB": 10**9, "GiB": 2**30, "MiB": 2**20}[unit]',
                "(1024 if 'i' in unit else 1000) ** (3 if unit[0] == 'G' else 2)",
            ),
        ),
        # in units of a hundredth of a GPU
        """def fewest_gpus(state_bytes, memory, reserve_percent):
    amount, unit = memory.split(" ")
    base, power = (2, 10) if unit.endswith("iB") else (10, 3)
    hundredth = int(amount) * base ** (power * (" MG".index(unit[0]) + 1))  # of a GPU's memory, times 100
    need = 100 * state_bytes
    return (need - 1) // (hundredth * (100 - reserve_percent)) + 1""",
        # from above, one after the other, once it is near
        """def fewest_gpus(state_bytes, memory, reserve_percent):
    amount, unit = memory.split()
    room = int(amount) * dict(GB=10**9, GiB=2**30, MiB=2**20)[unit] * (100 - reserve_percent)
    n = max(1, 100 * state_bytes // room - 3)
    while n * room < 100 * state_bytes: n += 1
    return n""",
    ],
}
