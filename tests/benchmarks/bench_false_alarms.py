"""Two thousand correct runs: random programs of random length on 1 to 8 ranks. One false alarm ends it with its seed."""

import os
import sys
import time

from course_lib import RankError, launch
from tests.random_programs import run_program


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
            print(
                f"  {number + 1} runs, {operations:,} operations, {time.monotonic() - begin:.0f} s",
                flush=True,
            )
    print(f"{count} correct runs (seeds from {first}), {operations:,} operations, no false alarm")


if __name__ == "__main__":
    main()
