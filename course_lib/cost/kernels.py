"""How long one kernel takes on a GPU: the roofline, and what the size of a matrix product does to it. Seconds."""

from math import ceil

from course_lib.cost.hardware import System

# A product is computed in tiles. One is padded to whole fragments of 64; and before its first multiplication a pipeline of 4
# loads of 32 elements each has to fill. Source: NVIDIA, CUTLASS, "Efficient GEMM in CUDA" (tiles, multistage pipelines).
_FRAGMENT, _FILL = 64, 128


def matmul_s(system: System, m: float, n: float, k: float, count: float = 1) -> float:
    """`count` products (m × k) · (k × n) in 16 bits: arithmetic or memory, whichever takes longer, and the kernel's start."""
    rates = system.roofline
    flops = 2 * (ceil(m / _FRAGMENT) * ceil(n / _FRAGMENT) * _FRAGMENT**2) * (k + _FILL) * count
    nbytes = 2 * (m * k + k * n + m * n) * count
    return max(flops / rates.flops_per_s, nbytes / rates.bytes_per_s) + system.kernel_s


def linear_s(system: System, tokens: float, inputs: float, outputs: float) -> tuple[float, float]:
    """Forward and backward of y = xWᵀ: backward has two products, the gradient of x and that of W, which is added up."""
    forward = matmul_s(system, tokens, outputs, inputs)
    dx, dw = matmul_s(system, tokens, inputs, outputs), matmul_s(system, outputs, inputs, tokens)
    return forward, dx + dw + stream_s(system, 4 * inputs * outputs)


def stream_s(system: System, nbytes: float) -> float:
    """An operation that only moves bytes to and from memory, such as a norm, a dropout, a sum."""
    return nbytes / system.roofline.bytes_per_s + system.kernel_s
