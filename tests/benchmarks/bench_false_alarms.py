"""Two thousand correct runs: random programs of random length on 1 to 8 ranks. One false alarm ends it with its seed.

Then fifty pipelines in random order, whose ranks are put aside again and again, as a busy system may do.
"""

import os
import random
import sys
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional

from course_lib import RankError, launch
from course_lib.parallel.pipeline import run_pipeline
from tests.random_programs import put_aside, run_program
from tests.test_schedules import random_legal


def put_aside_in_a_pipeline(seed, schedule):
    """Who waits for whom changes with every message, and while one rank waits, another issues what it will wait for itself."""
    put_aside(seed * 100 + dist.get_rank())
    mine = {s: nn.Linear(2, 2) for s, rank in schedule.rank_of.items() if rank == dist.get_rank()}
    x = torch.ones(schedule.num_microbatches, 2)
    run_pipeline(mine, x, x, functional.mse_loss, schedule.num_microbatches, schedule)


def main():
    """Print how many runs went through; a different set of programs every time unless COURSE_SEED is set."""
    count = int(os.environ.get("COURSE_RUNS", "2000"))
    first = int(os.environ.get("COURSE_SEED", time.time_ns() % 10**9))
    begin, operations = time.monotonic(), 0
    for number in range(count):
        seed = first + number
        world_size = 1 + seed % 8 if seed % 10 else 16
        try:
            run = launch(run_program, world_size, seed, 5 + seed % 25)
        except RankError as error:
            print(f"FALSE ALARM after {number} correct runs, seed {seed}, {world_size} ranks:\n{error}")
            sys.exit(1)
        assert list(run) == [world_size] * world_size
        operations += len(run.trace.events)
        if (number + 1) % 250 == 0:
            print(f"  {number + 1} runs, {operations:,} operations, {time.monotonic() - begin:.0f} s", flush=True)
    for seed in range(first, first + count // 40):
        try:
            launch(put_aside_in_a_pipeline, 3, seed, random_legal(3, 4, random.Random(seed)))
        except RankError as error:
            print(f"FALSE ALARM in a pipeline whose ranks are put aside, seed {seed}:\n{error}")
            sys.exit(1)
    print(
        f"{count} correct runs (seeds from {first}), {operations:,} operations, and {count // 40} put aside, no false alarm"
    )


if __name__ == "__main__":
    main()
