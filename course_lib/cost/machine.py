"""The roofline of the machine at hand, measured in two seconds, and operations to hold it against. CPU, float32.

FLOPs and bytes come from shapes alone. Counted is every byte that an operation must read or write, once: each
operand in, each result out, so 3 · 4 · length bytes for add(a, b, out=c). Results go into tensors that are there
already: into a new one, add takes several times as long, as the system first clears each of its pages.

A prediction is good for vectors of which some are read and another is written, or none is; and for matrix products
whose sizes are all some hundreds or more. It is known to fail for

- in-place operations, which are faster. Before a CPU writes what it has not read, it fetches the old bytes (a write
  allocate): they are not counted, but the measured rate pays for them. In place there is nothing to fetch.
- small operands that are still in the cache when the operation is called again by itself. Large is four times the
  last-level cache (McCalpin's rule). In `predicted_and_measured`, add empties the cache between two calls.
- exp, tanh, GELU: tens of instructions for each value, while FLOP/s were measured with multiply-adds.
- linear layers on small batches, for which the library has no good kernel: MKL multiplies a matrix by one vector on
  one core of an AMD CPU (https://github.com/pytorch/pytorch/issues/96643), and by a few vectors slower still.
- intensities within a factor of 3 of the ridge. The roofline takes it that arithmetic and memory overlap perfectly;
  where they do not at all, the two times add up, at the ridge to twice the prediction.

Source: McCalpin, STREAM, whose SUM is add; Hager, "The McCalpin STREAM benchmark: How to do it right and interpret
the results", on write allocates, https://blogs.fau.de/hager/archives/8263.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import torch

from course_lib.cost.hardware import Roofline

LENGTH = 2**25  # values in a large vector: 128 MiB, four times a last-level cache of 32 MiB
FLOAT = 4  # bytes
QUANTILE = 0.1
LEAST_CALLS = 3


def time_in_turns(*fns: Callable[[], object], seconds: float = 1.0) -> list[float]:
    """Seconds of one call of each function, all called in turns: a tenth of its calls were faster.

    As many calls as fit into `seconds`, but 3 of each at least. Other programs make a call slower and never faster, so a low
    quantile is nearest to the operation itself: nine calls in ten may be disturbed. The very fastest is a lucky one, the
    luckier the more calls there were. In turns, so that a slow second hits all alike. The first call is not counted: it
    touches pages and starts threads.
    Raises TypeError for what cannot be called, ValueError for no time.
    """
    for fn in fns:
        if not callable(fn):
            raise TypeError(f"a function is timed, and {fn!r} is none: pass lambda: ..., or an operation's .build().")
    if not seconds > 0:
        raise ValueError(f"timing needs more than 0 seconds, not {seconds!r}: 0.3 is enough for most operations.")
    for fn in fns:
        fn()
    taken = [[] for _ in fns]
    stop = perf_counter() + seconds
    while perf_counter() < stop or len(taken[0]) < LEAST_CALLS:
        for fn, times in zip(fns, taken, strict=True):
            begin = perf_counter()
            fn()
            times.append(perf_counter() - begin)
    return [sorted(times)[int(QUANTILE * len(times))] for times in taken]


def time_operation(fn: Callable[[], object], seconds: float = 0.3) -> float:
    """Seconds of one call of fn(), by `time_in_turns`."""
    return time_in_turns(fn, seconds=seconds)[0]


@dataclass(frozen=True)
class Operation:
    """What an operation costs, and how to do it: build() makes the operands and returns a function that does it once.

    flops: multiplications and additions;  nbytes: bytes that must be read or written, once each. Nothing is
    allocated before build(), and what it allocates goes when its function does.
    """

    name: str
    flops: int
    nbytes: int
    build: Callable[[], Callable[[], object]] = field(repr=False, compare=False)

    @property
    def intensity(self) -> float:
        """FLOPs for each byte."""
        return self.flops / self.nbytes

    def measure(self, seconds: float = 0.3) -> float:
        """Seconds of one call on fresh operands, by time_operation."""
        return time_operation(self.build(), seconds)


def _check(kind: str, *sizes: int) -> None:
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"{kind} needs sizes that are whole numbers from 1 up, not {size!r}: pass such.")


def matmul(m: int, k: int, n: int) -> Operation:
    """(m, k) @ (k, n): 2mkn FLOPs; mk + kn values in, mn out."""
    _check("matmul", m, k, n)

    def build():
        a, b, out = torch.rand(m, k), torch.rand(k, n), torch.zeros(m, n)
        return lambda: torch.mm(a, b, out=out)

    return Operation(f"matmul {m} × {k} × {n}", 2 * m * k * n, FLOAT * (m * k + k * n + m * n), build)


def linear(batch: int, in_features: int, out_features: int) -> Operation:
    """A linear layer, x @ Wᵀ: the FLOPs and bytes of the product, for a small batch mostly the bytes of W."""
    _check("linear", batch, in_features, out_features)

    def build():
        x, weight = torch.rand(batch, in_features), torch.rand(out_features, in_features)
        out = torch.zeros(batch, out_features)
        return lambda: torch.mm(x, weight.T, out=out)

    same = matmul(batch, in_features, out_features)
    return Operation(f"linear {in_features} → {out_features}, batch {batch}", same.flops, same.nbytes, build)


def _vector(name: str, length: int, flops: int, tensors: int, call: Callable[..., object]) -> Operation:
    """An operation that moves each of its vectors once and has so many FLOPs for each place in them."""
    _check(name, length)

    def build():
        vectors = [torch.ones(length) for _ in range(tensors)]
        return lambda: call(*vectors)

    return Operation(f"{name} {length:,}", flops * length, FLOAT * tensors * length, build)


def add(length: int = LENGTH) -> Operation:
    """c = a + b: one FLOP and three values for each place."""
    return _vector("add", length, 1, 3, lambda a, b, c: torch.add(a, b, out=c))


def copy(length: int = LENGTH) -> Operation:
    """b = a: no FLOP, two values for each place."""
    return _vector("copy", length, 0, 2, lambda a, b: b.copy_(a))


def relu(length: int = LENGTH) -> Operation:
    """b = max(a, 0): one FLOP and two values for each place."""
    return _vector("relu", length, 1, 2, lambda a, b: torch.clamp_min(a, 0, out=b))


def total(length: int = LENGTH) -> Operation:
    """The sum of a: one FLOP and one value for each place."""
    return _vector("sum", length, 1, 1, torch.sum)


def dot(length: int = LENGTH) -> Operation:
    """a · b: two FLOPs and two values for each place."""
    return _vector("dot", length, 2, 2, torch.dot)


def measure_roofline(seconds: float = 2.0) -> Roofline:
    """The roofline of this CPU in float32, with as many threads as torch has now. Meanwhile it needs 384 MiB.

    flops_per_s: of a product of 1024 × 1024 matrices;  bytes_per_s: of add at its default length. They take turns.
    Other programs falsify it, so predict and time right after it, or with `predicted_and_measured`. Raises ValueError for no time.
    """
    return _with_roofline((), seconds)[0]


def predicted_and_measured(operation: Operation, seconds: float = 1.0) -> tuple[float, float]:
    """Seconds of one call of an operation: as the roofline has it, and as measured. The roofline has not seen it.

    Both are measured in the same `seconds`, in turns: when a clock falls or another program starts, what is predicted
    and what is measured change alike. Raises ValueError for no time.
    """
    roofline, measured = _with_roofline((operation,), seconds)
    return roofline.seconds(operation.flops, operation.nbytes), measured[0]


def _with_roofline(operations: Sequence[Operation], seconds: float) -> tuple[Roofline, list[float]]:
    product, vector = matmul(1024, 1024, 1024), add()
    runs = [operation.build() for operation in (product, vector, *operations)]
    product_s, vector_s, *measured = time_in_turns(*runs, seconds=seconds)
    return Roofline(product.flops / product_s, vector.nbytes / vector_s), measured
