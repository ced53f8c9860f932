"""The roofline of this machine against operations that it was not measured with: predicted over measured time.

Ten rounds: every operation once, each in turns with the roofline. Within 25 % is good; ✓ marks nine of ten.
"""

import statistics

import torch
from torch.nn import functional as F

from course_lib.cost.machine import LENGTH, Operation, copy, dot, linear, matmul, predicted_and_measured, relu, total

ROUNDS, TOLERANCE, ENOUGH = 10, 0.25, 0.9
WIDTH = 4096


def vector(name, flops, values, call):
    """An operation on vectors a, b, c, with so many FLOPs and values moved for each place in them."""

    def build():
        a, b, c = (torch.ones(LENGTH) for _ in range(3))
        return lambda: call(a, b, c)

    return Operation(name, flops * LENGTH, 4 * values * LENGTH, build)


def pixels(width):
    """A linear layer on every pixel of an image, as a 1 × 1 convolution: oneDNN's kernels instead of MKL's."""
    side = int((7e6 / width) ** 0.5)  # a result of 32 MiB or more would be put into new pages in each call

    def build():
        x = torch.rand(1, width, side, side).to(memory_format=torch.channels_last)
        weight = torch.rand(width, width, 1, 1)
        return lambda: F.conv2d(x, weight)

    return Operation(f"1×1 convolution {width}", 2 * side**2 * width**2, 4 * 2 * side**2 * width, build)


GROUPS = {
    "those of the lesson": [copy(), relu(), dot(), matmul(2048, 512, 1024), matmul(768, 3072, 768)],
    "more vectors and products": [
        copy(2**20),  # add, which it takes turns with, empties the cache
        total(),
        vector("subtract", 1, 3, lambda a, b, c: torch.sub(a, b, out=c)),
        matmul(1000, 3000, 500),
        matmul(256, 4096, 1024),
        linear(512, WIDTH, WIDTH),
    ],
    "around the ridge": [pixels(width) for width in (32, 128)],
    "known to fail": [
        *(linear(batch, WIDTH, WIDTH) for batch in (1, 8, 64)),
        vector("mul_, in place", 1, 2, lambda a, b, c: a.mul_(1.0)),
        vector("tanh as one FLOP", 1, 2, lambda a, b, c: torch.tanh(a, out=c)),
        vector("add into a new tensor", 1, 3, lambda a, b, c: a + b),
    ],
}


def main():
    """Print the ratio of each operation in each round, the least, median and greatest, and how many are good."""
    print(
        f"{torch.get_num_threads()} threads. Predicted / measured in each round; least, median, greatest; good rounds"
    )
    ratios = {operation: [] for operations in GROUPS.values() for operation in operations}
    for _ in range(ROUNDS):
        for operation, found in ratios.items():
            predicted, measured = predicted_and_measured(operation)
            found.append(predicted / measured)
    for group, operations in GROUPS.items():
        print(group)
        for operation in operations:
            found = ratios[operation]
            good = sum(abs(ratio - 1) <= TOLERANCE for ratio in found)
            each = " ".join(f"{ratio:5.2f}" for ratio in found)
            middle = f"{min(found):5.2f} {statistics.median(found):5.2f} {max(found):5.2f}"
            print(f"  {operation.name:31s}{each}   {middle}   {good:2d} {'✓' if good >= ENOUGH * ROUNDS else ''}")


if __name__ == "__main__":
    main()
