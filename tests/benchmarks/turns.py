"""How strategies are timed side by side in one launch, so that what slows the machine slows them all; and how ratios are printed."""

import statistics
import time

import torch.distributed as dist

ROUNDS, STEPS, WARM_UP = 12, 2, 3


def in_turns(steps, until_all_have=False):
    """On a rank: by name the seconds of a step in each round. steps: name -> a function that does one.

    until_all_have: a step lasts until the last rank has done it, where ranks do not end together.
    """
    seconds, order = {name: [] for name in steps}, list(steps.items())
    for _ in range(WARM_UP + ROUNDS):
        order.append(order.pop(0))  # no strategy always comes after the same one
        for name, step in order:
            dist.barrier()
            begin = time.perf_counter()
            for _ in range(STEPS):
                step()
            if until_all_have:
                dist.barrier()
            seconds[name].append((time.perf_counter() - begin) / STEPS)
    return {name: values[WARM_UP:] for name, values in seconds.items()}


def ratio(ours, theirs):
    """Ours over theirs round by round: the median and the quartiles."""
    low, middle, high = statistics.quantiles([a / b for a, b in zip(ours, theirs, strict=True)], n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"
