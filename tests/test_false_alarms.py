"""Correct programs are never accused: random ones here, two thousand of them in tests/benchmarks/bench_false_alarms.py."""

import time

import pytest
import torch
import torch.distributed as dist

from course_lib import launch
from tests.random_programs import run_program


@pytest.mark.parametrize("seed", range(24))
def test_a_random_correct_program_runs_through(seed):
    world_size = (1, 2, 3, 4, 5, 8)[seed % 6]
    run = launch(run_program, world_size, seed, 25)
    assert list(run) == [world_size] * world_size
    assert all(event.complete for event in run.trace.events)


def test_ranks_that_are_very_slow_are_not_accused():
    """Long enough for every proof to have been tried many times."""

    def fn():
        rank, n = dist.get_rank(), dist.get_world_size()
        for turn in range(n):
            if rank == turn:
                time.sleep(0.4)
                for other in range(n):
                    if other != rank:
                        dist.send(torch.ones(1), other)
            else:
                dist.recv(torch.ones(1), turn)
        return True

    assert list(launch(fn, 4)) == [True] * 4
