"""What the roofline explorer shows: one operation on one device, and how that is said in figures and sentences."""

from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from course_lib.cost.hardware import Roofline
from course_lib.cost.operations import LayerOperation

_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))
_SMALL = ((1, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
UNITS = {"training": "tokens", "generating": "sequences"}  # what the tokens of an operation are


@dataclass(frozen=True)
class Scene:
    """An operation of a model on so many tokens on a device.

    others: operations drawn faintly.  beside: the name and roofline of another device to compare with, or None.
    """

    device: str
    roofline: Roofline
    model: str
    operation: LayerOperation
    tokens: int
    others: tuple[LayerOperation, ...] = ()
    beside: tuple[str, Roofline] | None = None


def three(value: float) -> str:
    """A number above 0 with three digits; from 1,000 on whole. Halves are rounded up, as a page's toPrecision does."""
    if value >= 999.5:
        return f"{int(value + 0.5):,}"
    exact = Decimal(value)
    for _ in range(2):  # 9.996 becomes 10.00, and then 10.0
        exact = exact.quantize(Decimal((0, (1,), exact.adjusted() - 2)), ROUND_HALF_UP)
    return format(exact, "f")


def amount(value: float, unit: str) -> str:
    """312e12 and "FLOP/s" give "312 TFLOP/s"; a unit of seconds goes down to nanoseconds."""
    prefixes = _SMALL if unit == "s" else _PREFIXES
    size, prefix = next((p for p in prefixes if value >= 0.9995 * p[0]), prefixes[-1])
    return f"{three(value / size)} {prefix}{unit}"


def count(value: float) -> str:
    """A whole number with commas; another with three digits."""
    return f"{int(value):,}" if value == int(value) else three(value)


def figures(scene: Scene) -> dict[str, str]:
    """The readout: each number under its name."""
    operation, tokens, roofline = scene.operation, scene.tokens, scene.roofline
    flops, nbytes = operation.flops(tokens), operation.nbytes(tokens)
    intensity = operation.intensity(tokens)
    rate = roofline.attainable(intensity)
    return {
        "FLOPs": amount(flops, "FLOP"),
        "bytes": amount(nbytes, "B"),
        "intensity": f"{three(intensity)} FLOPs a byte",
        "at best": amount(rate, "FLOP/s"),
        "of the peak": f"{three(100 * (rate / roofline.flops_per_s))} %",
        "least time": amount(roofline.seconds(flops, nbytes), "s"),
    }


def title(scene: Scene) -> str:
    """The scene in a few words."""
    return f"{scene.operation.name} · {scene.model} · {scene.device}"


def sentences(scene: Scene) -> list[str]:
    """All of it in words: what is done, how fast, what limits it, and with what batch that changes."""
    operation, tokens, said = scene.operation, scene.tokens, figures(scene)
    length, limit = operation.length(tokens), operation.limit(scene.roofline, tokens)
    formula = operation.formula
    for name, value in (("tokens", tokens), ("length", length), ("batch", tokens / length)):
        formula = formula.replace(f"{{{name}}}", count(value))
    return [
        f"{formula[:1].upper()}{formula[1:]}.",
        f"{said['FLOPs']} over {said['bytes']} are {said['intensity']}. "
        f"At best {said['at best']}, {said['of the peak']} of the peak; at least {said['least time']}.",
        f"Limited by {limit}: the ridge is at {three(scene.roofline.ridge)} FLOPs a byte. {_batch(scene, limit)}",
    ]


def _batch(scene: Scene, limit: str) -> str:
    """With what batch arithmetic is the limit."""
    operation = scene.operation
    if not any(operation.flops_terms[1:]):
        return "The batch has no part in it."
    enough = operation.tokens_at_ridge(scene.roofline)
    if enough is None:
        return "No batch is large enough to change that."
    if enough == 1:
        return "It is so with any batch."
    what = f"{enough:,} {UNITS[operation.phase]}"
    if limit == "arithmetic":
        return f"With fewer than {what}, memory would be the limit."
    return f"From {what} on, arithmetic would be the limit."
