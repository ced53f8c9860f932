"""Devices, nodes and networks as data, each number with its source; and the roofline, which two of the numbers give.

1 TFLOP/s = 10¹² operations a second; a multiplication and an addition are two. 1 GB = 10⁹ bytes, 1 GiB = 2³⁰.
"""

from dataclasses import dataclass, field

from course_lib.cost.links import Link
from course_lib.numbers import amount, three


@dataclass(frozen=True)
class Roofline:
    """How fast an operation can be on a device: limited by its arithmetic, or by its memory.

    flops_per_s: the most operations a second;  bytes_per_s: the most bytes a second between memory and arithmetic units.
    Source: Williams, Waterman and Patterson 2009.
    """

    flops_per_s: float
    bytes_per_s: float

    def __post_init__(self) -> None:
        if not (self.flops_per_s > 0 and self.bytes_per_s > 0):
            raise ValueError(
                f"a roofline needs rates above 0, not {self.flops_per_s!r} FLOP/s and {self.bytes_per_s!r} bytes/s."
            )

    @property
    def ridge(self) -> float:
        """The intensity, in FLOPs for each byte, from which on arithmetic and not memory is the limit."""
        return self.flops_per_s / self.bytes_per_s

    def attainable(self, intensity: float) -> float:
        """FLOP/s that an operation with this many FLOPs for each byte can reach at best."""
        return min(self.flops_per_s, intensity * self.bytes_per_s)

    def seconds(self, flops: float, nbytes: float) -> float:
        """The least time for an operation with so many FLOPs that moves so many bytes."""
        return max(flops / self.flops_per_s, nbytes / self.bytes_per_s)

    def __str__(self) -> str:
        rates = f"{amount(self.flops_per_s, 'FLOP/s')}, {amount(self.bytes_per_s, 'B/s')}"
        return f"{rates}, ridge at {three(self.ridge)} FLOPs a byte"


@dataclass(frozen=True)
class GPU:
    """What the maker says of one GPU, and what was measured where it is known.

    tflops: dense 16-bit matrix products.  memory_gb: 10⁹ bytes.  memory_tb_s: its bandwidth.  nvlink_gb_s: to the other
    GPUs of its node, in each direction.  matmul_share: the part of tflops that the best measured matrix product reaches.
    """

    name: str
    year: int
    tflops: float
    memory_gb: float
    memory_tb_s: float
    nvlink_gb_s: float
    matmul_share: float = 0.85

    @property
    def roofline(self) -> Roofline:
        """The roofline of the maker's numbers."""
        return Roofline(self.tflops * 1e12, self.memory_tb_s * 1e12)


# Peaks, memory and links: Bekman, Machine Learning Engineering, compute/accelerator and network (which cite NVIDIA's pages),
# https://github.com/stas00/ml-engineering; the best matrix products measured there: A100 271.2, H100 794.5, B200 1745
# TFLOP/s. Where none was measured we take 85 %. P100 and V100: NVIDIA's data sheets.
GPUS = {
    gpu.name: gpu
    for gpu in (
        GPU("P100", 2016, 21, 16, 0.73, 80),
        GPU("V100", 2017, 125, 32, 0.9, 150),
        GPU("A100", 2020, 312, 80, 2.0, 300, 271.2 / 312),
        GPU("H100", 2022, 989, 80, 3.35, 450, 794.5 / 989),
        GPU("H200", 2024, 989, 141, 4.8, 450, 794.5 / 989),
        GPU("B200", 2025, 2250, 180, 8.0, 900, 1745 / 2250),
    )
}


@dataclass(frozen=True)
class System:
    """Nodes of equal GPUs: a fast link between the GPUs of a node, and for each GPU a share of the network between nodes.

    inside, across: what a collective gets out of one direction of a link, which is less than what is printed on it.
    memory_share: the part of the memory's bandwidth that a large copy gets.  kernel_s: from the end of one kernel to the
    start of the next.
    """

    gpu: GPU
    inside: Link
    across: Link
    gpus_per_node: int = 8
    memory_share: float = 0.9
    kernel_s: float = 4e-6
    roofline: Roofline = field(init=False, repr=False, compare=False)  # what kernels really get

    def __post_init__(self) -> None:
        matmul, memory = self.gpu.roofline.flops_per_s, self.gpu.roofline.bytes_per_s
        real = Roofline(matmul * self.gpu.matmul_share, memory * self.memory_share)
        object.__setattr__(self, "roofline", real)

    def __str__(self) -> str:
        return f"nodes of {self.gpus_per_node} {self.gpu.name}: inside {self.inside}; across {self.across}"


def _dgx(name: str, network_gb_s: float) -> System:
    # NVLink: all-reduce over the 8 GPUs of an A100 node was measured at 235 of 300 GB/s (ml-engineering, network). InfiniBand
    # at 90 % and memory at 90 % of what is printed: systems/a100_80g.json of Calculon (Isaev et al. 2023).
    gpu = GPUS[name]
    return System(gpu, Link(5e-6, gpu.nvlink_gb_s * 235 / 300), Link(1e-5, 0.9 * network_gb_s))


# The networks of 8 GPUs: 4 × 100 Gb/s (DGX-1), 8 × 200 (DGX A100), 8 × 400 (DGX H100, H200, B200).
SYSTEMS = {
    "V100": _dgx("V100", 6.25),
    "A100": _dgx("A100", 25),
    "H100": _dgx("H100", 50),
    "H200": _dgx("H200", 50),
    "B200": _dgx("B200", 50),
}
