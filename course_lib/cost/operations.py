"""The operations of a transformer layer: how many FLOPs each takes and how many bytes it must move. No tensor, no run.

Numbers are of 16 bits. Every input is read from memory once, every output written once; what an operation needs in between
stays on the chip. Biases of linear layers, dropout and residual sums are left out, as in `kernels`.

An exponential, a tanh, a root and a comparison count as one FLOP each. Operations that are no matrix product have few FLOPs a
byte, so they are limited by memory whether one counts 5 or 9 of them a value.
"""

from dataclasses import dataclass

from course_lib.cost.hardware import Roofline
from course_lib.cost.shapes import Transformer
from course_lib.numbers import amount, count, three

_MOST_TOKENS = 2**20  # no operation here comes to a ridge later than this, if it ever does
_NORM, _SOFTMAX, _GELU, _SWIGLU, _ADAM = 7, 5, 9, 5, 14  # FLOPs a value; of Adam a parameter
_ADAM_BYTES = 28  # a parameter, in float32: reads weight, gradient, moments (16), writes weight, moments (12)


@dataclass(frozen=True)
class LayerOperation:
    """One operation on T tokens. Its FLOPs and its bytes are a + b·T + c·T·L, and (a, b, c) are given for both.

    L is the length of the sequences that the tokens form: `context`, or T if there are fewer tokens than that. So T·L is the
    number of pairs of tokens that attend to each other (no causal saving is counted).
    phase: "training", a batch of whole sequences, or "generating", where each of T sequences gets one new token.
    formula: the operation in words, in which {tokens}, {length} and {batch} stand for T, L and T/L.
    """

    name: str
    phase: str
    formula: str
    flops_terms: tuple[int, int, int]
    bytes_terms: tuple[int, int, int]
    context: int

    def length(self, tokens: int) -> int:
        """L, the length of the sequences."""
        return min(tokens, self.context)

    def flops(self, tokens: int) -> int:
        """Additions and multiplications."""
        return self._sum(self.flops_terms, tokens)

    def nbytes(self, tokens: int) -> int:
        """Bytes read from memory and written to it."""
        return self._sum(self.bytes_terms, tokens)

    def intensity(self, tokens: int) -> float:
        """FLOPs for each byte: the place on the x axis of a roofline. It never falls when the batch grows."""
        return self.flops(tokens) / self.nbytes(tokens)

    def limit(self, roofline: Roofline, tokens: int) -> str:
        """What takes longer on this device: "memory", or "arithmetic", which it is from the ridge on."""
        return "arithmetic" if self.intensity(tokens) >= roofline.ridge else "memory"

    def tokens_at_ridge(self, roofline: Roofline) -> int | None:
        """The smallest T with which arithmetic is the limit; None if no batch is large enough."""
        if self.limit(roofline, _MOST_TOKENS) == "memory":
            return None
        low, high = 0, _MOST_TOKENS  # low is too few, high is enough
        while high - low > 1:
            middle = (low + high) // 2
            if self.limit(roofline, middle) == "arithmetic":
                high = middle
            else:
                low = middle
        return high

    def figures(self, roofline: Roofline, tokens: int) -> dict[str, str]:
        """Its numbers on a device as text, each under its name."""
        flops, nbytes, intensity = self.flops(tokens), self.nbytes(tokens), self.intensity(tokens)
        rate = roofline.attainable(intensity)
        return {
            "FLOPs": amount(flops, "FLOP"),
            "bytes": amount(nbytes, "B"),
            "FLOPs a byte": three(intensity),
            "at best": amount(rate, "FLOP/s"),
            "of the peak": f"{three(100 * (rate / roofline.flops_per_s))} %",
            "least time": amount(roofline.seconds(flops, nbytes), "s"),
        }

    def sentences(self, roofline: Roofline, tokens: int) -> list[str]:
        """What it does, how fast it can be on a device, what limits it there, and with what batch that changes."""
        flops, nbytes, intensity, best, share, least = self.figures(roofline, tokens).values()
        limit, enough = self.limit(roofline, tokens), self.tokens_at_ridge(roofline)
        length = self.length(tokens)
        does = self.formula.format(tokens=count(tokens), length=count(length), batch=count(tokens / length))
        unit = "tokens" if self.phase == "training" else "sequences"
        if not any(self.flops_terms[1:]):
            batch = "The batch has no part in it."
        elif enough is None:
            batch = "No batch is large enough to change that."
        elif enough == 1:
            batch = "It is so with any batch."
        elif limit == "arithmetic":
            batch = f"With fewer than {enough:,} {unit}, memory would be the limit."
        else:
            batch = f"From {enough:,} {unit} on, arithmetic would be the limit."
        return [
            f"{does[:1].upper()}{does[1:]}.",
            f"{flops} over {nbytes} are {intensity} FLOPs a byte. "
            f"At best {best}, {share} of the peak; at least {least}.",
            f"Limited by {limit}: the ridge is at {three(roofline.ridge)} FLOPs a byte. {batch}",
        ]

    def _sum(self, terms: tuple[int, int, int], tokens: int) -> int:
        fixed, per_token, per_pair = terms
        return fixed + per_token * tokens + per_pair * tokens * self.length(tokens)

    def __str__(self) -> str:
        return f"{self.name}: {self.formula}"


def operations(model: Transformer) -> dict[str, LayerOperation]:
    """The operations of one layer by name: its forward pass, the optimizer's step, and two of generating text.

    The FLOPs of the four linear layers and twice those of the attention scores (the product with V costs what QKᵀ does) are
    `model.layer_flops`. "fused attention" is scores, softmax and that product as one operation, which keeps the scores on
    the chip (Dao et al. 2022); "generating: linear layers" is all four of them, each weight read once for all sequences.
    """
    h, q, kv, f, heads = model.width, model.query_width, model.kv_width, model.mlp_width, model.num_heads
    wide, s, parameters = model.head_width, model.context, model.layer_parameters

    def operation(name: str, formula: str, flops: tuple, nbytes: tuple, phase: str = "training") -> LayerOperation:
        return LayerOperation(name, phase, formula, flops, nbytes, s)

    def linear(name: str, inputs: int, outputs: int) -> LayerOperation:
        """y = xWᵀ: reads W and x, writes y."""
        weights = inputs * outputs
        formula = f"matrix product ({{tokens}} × {inputs:,}) · ({inputs:,} × {outputs:,})"
        return operation(name, formula, (0, 2 * weights, 0), (2 * weights, 2 * (inputs + outputs), 0))

    def each(name: str, what: str, values: int, flops: int, nbytes: int, fixed: int = 0) -> LayerOperation:
        """The same for each of values · T numbers."""
        formula = f"{what} of {{tokens}} × {values:,} values, {flops} FLOPs each"
        return operation(name, formula, (0, flops * values, 0), (fixed, nbytes * values, 0))

    # SwiGLU takes both products of the MLP's first linear, and writes half as much
    gate, activation, cost, moved = (2, "SwiGLU", _SWIGLU, 6) if model.gated else (1, "GELU", _GELU, 4)
    times = f"{{batch}} × {heads} times (sequences × heads)"
    attend = f"matrix product ({{length}} × {wide}) · ({wide} × {{length}}), {times}"
    linears = {
        "QKV projection": (h, q + 2 * kv),
        "output projection": (q, h),
        "MLP up": (h, gate * f),
        "MLP down": (f, h),
    }
    linears = {name: linear(name, *sizes) for name, sizes in linears.items()}
    together = [
        tuple(map(sum, zip(*terms)))
        for terms in zip(*((linear.flops_terms, linear.bytes_terms) for linear in linears.values()))
    ]
    found = [
        each("layer norm", "the norm", h, _NORM - (not model.bias), 4, 2 * h * (1 + model.bias)),
        linears["QKV projection"],
        operation("attention scores", attend, (0, 0, 2 * q), (0, 2 * (q + kv), 2 * heads)),
        operation(
            "softmax",
            f"{{length}} × {{length}} scores, {_SOFTMAX} FLOPs each, {times}",
            (0, 0, _SOFTMAX * heads),
            (0, 0, 4 * heads),
        ),
        operation(
            "fused attention",
            f"QKᵀ, softmax and the product with V in one, {times}",
            (0, 0, 4 * q + _SOFTMAX * heads),
            (0, 4 * (q + kv), 0),
        ),
        linears["output projection"],
        linears["MLP up"],
        each("activation", activation, f, cost, moved),
        linears["MLP down"],
        operation(
            "Adam step",
            f"{parameters:,} parameters of a layer in float32, {_ADAM} FLOPs and {_ADAM_BYTES} bytes each",
            (_ADAM * parameters, 0, 0),
            (_ADAM_BYTES * parameters, 0, 0),
        ),
        operation(
            "generating: linear layers",
            f"{{tokens}} rows times the {model.layer_matrices:,} weights of the layer's matrices",
            *together,
            phase="generating",
        ),
        operation(
            "generating: attention",
            f"{{tokens}} queries, each to its own {s:,} keys and values in the cache",
            (0, (4 * q + _SOFTMAX * heads) * s, 0),
            (0, 4 * (q + kv * s), 0),
            phase="generating",
        ),
    ]
    return {operation.name: operation for operation in found}
