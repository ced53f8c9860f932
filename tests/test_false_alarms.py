"""Correct programs are never accused: random ones here, two thousand of them in tests/benchmarks/bench_false_alarms.py."""

import time

import pytest
import torch
import torch.distributed as dist

from course_lib import launch
from course_lib.ranks.ledger import Ledger
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


def test_a_receive_from_any_source_needs_only_one_of_them():
    """Rank 2 waits for rank 0, and rank 0 for whoever comes first: rank 1, late."""

    def fn():
        rank, x = dist.get_rank(), torch.ones(1)
        if rank == 0:
            dist.recv(x)
            dist.send(x, 2)
        elif rank == 1:
            time.sleep(1)
            dist.send(x, 0)
        else:
            dist.recv(x, 0)
        return True

    assert list(launch(fn, 3)) == [True] * 3


def irecv_then_send(x, one):
    if one:
        work = dist.irecv(x, 1)
        dist.send(torch.ones(1), 1)
        work.wait()
    else:
        dist.recv(x, 0)
        dist.send(x, 0)


def isend_then_send(x, one):
    if one:
        work = dist.isend(x, 1, tag=1)
        dist.send(x, 1, tag=2)
        work.wait()
    else:
        dist.recv(x, 0, tag=2)
        dist.recv(x, 0, tag=1)


def all_reduce_then_send(x, one):
    if one:
        work = dist.all_reduce(x, async_op=True)
        dist.send(torch.ones(1), 1)
        work.wait()
    else:
        dist.recv(torch.ones(1), 0)
        dist.all_reduce(x)


def send_to_one_that_takes_from_any(x, one):
    if one:
        dist.send(x, 1)
    else:
        dist.recv(x)
    dist.barrier()


@pytest.mark.parametrize(
    ("program", "written"),
    [
        (irecv_then_send, "begin"),
        (isend_then_send, "begin"),
        (all_reduce_then_send, "begin"),
        (send_to_one_that_takes_from_any, "resume"),
    ],
)
def test_a_rank_that_is_put_aside_beside_an_operation_does_not_wait_in_it(program, written):
    """A busy system may stop a rank anywhere: when it has written that it begins, or before it has written that it goes on."""

    def fn():
        plain = getattr(Ledger, written)

        def slow(self, *args):
            time.sleep(0.5 * (written == "resume"))
            result = plain(self, *args)
            time.sleep(0.5 * (written == "begin"))
            return result

        one = dist.get_rank() == 0
        if one:
            setattr(Ledger, written, slow)
        program(torch.ones(1), one)
        return True

    assert list(launch(fn, 2)) == [True, True]
