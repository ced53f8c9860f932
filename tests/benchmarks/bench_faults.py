"""Time to the explanation of every kind of fault, from the call of launch to its error, on 2, 4 and 8 ranks."""

import os
import signal
import statistics
import time

import torch
import torch.distributed as dist

from course_lib import RankError, RankTimeout, launch
from tests import test_stalls

ROUNDS = 10


def raises():
    if dist.get_rank() == 1:
        raise ValueError("the cause")
    dist.all_reduce(torch.ones(1))


def leaves():
    if dist.get_rank() == 1:
        os._exit(0)
    dist.all_reduce(torch.ones(1))


def returns_early():
    if dist.get_rank() != 1:
        dist.all_reduce(torch.ones(1))


def is_killed():
    if dist.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    dist.all_reduce(torch.ones(1))


def never_comes():
    if dist.get_rank() == 1:
        time.sleep(60)
    dist.all_reduce(torch.ones(1))


FAULTS = [raises, leaves, returns_early, is_killed, *test_stalls.MISMATCHES, *test_stalls.DEADLOCKS]


def seconds(fault, world_size, timeout_s=60):
    begin = time.monotonic()
    try:
        launch(fault, world_size, timeout_s=timeout_s)
    except RankError:
        return time.monotonic() - begin
    raise AssertionError(f"{fault.__name__} went through")


def main():
    """Print median and largest of each kind, and the 95th percentile over all."""
    launch(dist.barrier, 2)
    every = []
    print(f"seconds from launch to explanation: median (largest) of {ROUNDS}, start of the ranks included")
    print(f"{'':28s}{'2 ranks':>16s}{'4 ranks':>16s}{'8 ranks':>16s}")
    for fault in FAULTS:
        row = ""
        for world_size in (2, 4, 8):
            found = [seconds(fault, world_size) for _ in range(ROUNDS)]
            every += found
            row += f"{statistics.median(found):9.2f} ({max(found):.2f})"
        print(f"{fault.__name__.replace('_', ' '):28s}{row}", flush=True)
    cuts = statistics.quantiles(every, n=100)
    print(f"all {len(every)}: median {cuts[49]:.2f} s, 95th percentile {cuts[94]:.2f} s, largest {max(every):.2f} s")
    try:
        begin = time.monotonic()
        launch(never_comes, 4, timeout_s=1)
    except RankTimeout:
        print(f"a rank that never comes, timeout_s=1: {time.monotonic() - begin:.2f} s")


if __name__ == "__main__":
    main()
