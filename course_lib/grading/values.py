"""Values as lines of text, and when two such texts mean the same value.

The check in a notebook and the grader outside it both decide by `same`, so that a learner's ✓ and the grader's agree.
This file imports nothing heavy: the process that runs nbval uses it too.
"""

from __future__ import annotations

import hashlib
import json
import math
import re

RELATIVE = 1e-9  # of the largest number in the value
ABSOLUTE = 1e-12  # so that a difference that should be 0 may be rounding
LISTED_NUMBERS = 20_000  # a larger tensor is shown by a digest
DIGEST_SUMS = 64
PREFIX = "value "  # the lines that the grader compares begin so
# A name may hold " = " or " <= " itself, and ends at the first tab.
LINE = re.compile(PREFIX + r"(?P<task>\S+) \| (?P<name>[^\t]*)\t(?P<relation>=|<=) (?P<text>.*)")


def line(task: str, name: str, relation: str, text: str) -> str:
    """One value as a line for the grader, which `LINE` takes apart again; relation is "=", or "<=" for a cost."""
    name = name.replace("\t", " ")
    return f"{PREFIX}{task} | {name}\t{relation} {text}"


def leaves(name: str, value) -> dict[str, str]:
    """`value` as {name: text}: one entry for a number, string or tensor, one for each element of a dict or list of those.

    Lists and tuples of numbers, tensors and arrays of one shape give the same text.
    """
    if hasattr(value, "detach"):  # a torch tensor: bfloat16 has no numpy counterpart, so floats go through float64
        value = value.detach().cpu()
        value = (value.double() if value.is_floating_point() else value).numpy()
    if isinstance(value, dict):
        parts = sorted(((f"{name}[{key!r}]", v) for key, v in value.items()), key=lambda part: part[0])
    elif isinstance(value, (list, tuple)) and not all(isinstance(v, (int, float)) for v in value):
        parts = [(f"{name}[{i}]", v) for i, v in enumerate(value)]
    else:
        return {name: _text(value)}
    found = {name: f"{len(parts)} entries"}
    for part_name, part in parts:
        found.update(leaves(part_name, part))
    return found


def same(got: str, want: str) -> bool:
    """Whether two texts from `leaves` give the same value: integers, strings and shapes exactly, floats nearly."""
    if got == want:
        return True
    got_head, got_numbers = _numbers(got)
    want_head, want_numbers = _numbers(want)
    if got_numbers is None or want_numbers is None or got_head != want_head or len(got_numbers) != len(want_numbers):
        return False
    tolerance = _tolerance(want_numbers)
    return all(_near(g, w, tolerance) for g, w in zip(got_numbers, want_numbers, strict=True))


def within(got: str, bound: str) -> bool:
    """Whether `got` is the text of a number that is at most the one in `bound`."""
    try:
        return float(got) <= float(bound)
    except ValueError:
        return False


def differ(got: str, want: str) -> str:
    """Two texts that are not the same, in a few words: 'yours 4.0, should be 2.0'."""
    got_head, got_numbers = _numbers(got)
    want_head, want_numbers = _numbers(want)
    if got_numbers is None or want_numbers is None or len(want_numbers) == 1 or got_head.endswith("digest "):
        return f"yours {short(got)}, should be {short(want)}"
    if got_head != want_head or len(got_numbers) != len(want_numbers):
        return f"yours has shape {_shape(got_head)}, should have {_shape(want_head)}"
    tolerance = _tolerance(want_numbers)
    wrong = [i for i, (g, w) in enumerate(zip(got_numbers, want_numbers, strict=True)) if not _near(g, w, tolerance)]
    if len(want_numbers) <= 6:
        return f"yours {short(got)}, should be {short(want)}"
    first = wrong[0]
    return (
        f"{len(wrong)} of {len(want_numbers)} numbers differ; number {first}: "
        f"yours {_rounded(got_numbers[first])}, should be {_rounded(want_numbers[first])}"
    )


def short(text: str) -> str:
    """A text from `leaves` for people: rounded numbers, at most six of them."""
    head, numbers = _numbers(text)
    if numbers is None:
        return text if len(text) <= 60 else text[:57] + "..."
    if not head:
        return _rounded(numbers[0])
    listed = ", ".join(_rounded(n) for n in numbers[:6]) + (", ..." if len(numbers) > 6 else "")
    return f"[{listed}]"


def _text(value) -> str:
    if hasattr(value, "tolist") and hasattr(value, "shape"):
        return _array_text(value)
    if isinstance(value, (list, tuple)):
        return f"({len(value)},) [{', '.join(_number_text(v) for v in value)}]"
    if isinstance(value, (bool, int, float)):
        return _number_text(value)
    if isinstance(value, str):
        return json.dumps(value)
    return repr(value).replace("\n", " ")[:2000]


def _array_text(array) -> str:
    if not array.shape:
        return _text(array.tolist())
    shape = f"({', '.join(map(str, array.shape))}{',' if len(array.shape) == 1 else ''})"
    if array.size <= LISTED_NUMBERS:
        return f"{shape} [{', '.join(_number_text(v) for v in array.ravel().tolist())}]"
    if array.dtype.kind != "f":
        return f"{shape} sha256:{hashlib.sha256(array.tobytes()).hexdigest()}"
    import numpy

    # Weighted sums: rounding moves them a little, any other change a lot; their norm sets the scale.
    flat = numpy.asarray(array, dtype="float64").ravel()
    weighted = flat * numpy.cos(numpy.arange(flat.size))
    sums = [part.sum() for part in numpy.array_split(weighted, DIGEST_SUMS)]
    return f"{shape} digest [{', '.join(repr(float(v)) for v in [numpy.linalg.norm(flat), *sums])}]"


def _number_text(value) -> str:
    return repr(value) if isinstance(value, (bool, int)) else repr(float(value))


def _numbers(text: str) -> tuple[str, list | None]:
    """(what stands before the numbers, the numbers); (text, None) where the text holds no list of numbers."""
    head, bracket, rest = text.partition("[")
    if bracket and not (head.startswith("(") and rest.endswith("]")):
        return text, None
    items = rest[:-1].split(", ") if bracket else [text]
    try:
        return (head, [_parsed(item) for item in items if item]) if bracket else ("", [_parsed(text)])
    except ValueError:
        return text, None


def _parsed(item: str):
    if item in ("True", "False"):
        return item == "True"
    try:
        return int(item)
    except ValueError:
        return float(item)


def _near(got, want, tolerance: float) -> bool:
    if isinstance(got, bool) or isinstance(want, bool):
        return got is want
    if isinstance(got, int) or isinstance(want, int):
        return got == want
    return got == want or abs(got - want) <= tolerance


def _tolerance(want: list) -> float:
    return RELATIVE * max((abs(n) for n in want if math.isfinite(n)), default=0.0) + ABSOLUTE


def _rounded(number) -> str:
    return str(number) if isinstance(number, int) else f"{number:.7g}"


def _shape(head: str) -> str:
    return head.strip() or "()"
