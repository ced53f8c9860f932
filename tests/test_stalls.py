"""Ranks that wait for ever, and calls that do not belong together: named within a second, never by waiting for the timeout.

Each fault runs at several world sizes; the time to the message is that from the launch to the error, so it holds the start of the
ranks as well. After each, a correct launch must work.
"""

import time

import pytest
import torch
import torch.distributed as dist

from course_lib import RankDeadlock, RankError, RankMismatch, RankTimeout, launch
from tests.ranks_helpers import sum_of_ranks

SIZES = [2, 4, 8]
WITHIN_S = 4.0  # generous: this machine may be busy; tests/benchmarks/bench_faults.py measures it
TRIES = 3


@pytest.fixture(scope="module", autouse=True)
def warm():
    launch(sum_of_ranks, 2)


def fails(fn, world_size, error, **options):
    for _ in range(TRIES):  # other work only ever adds to the time: the shortest counts
        begin = time.monotonic()
        with pytest.raises(error) as caught:
            launch(fn, world_size, **options)
        seconds = time.monotonic() - begin
        assert launch(sum_of_ranks, world_size)[0] == sum(range(world_size))
        assert len(str(caught.value).splitlines()) <= 24, "more than a screen"
        if seconds < WITHIN_S:
            return caught.value
    raise AssertionError(f"the explanation took {seconds:.1f} s, and no less in {TRIES} tries")


def text(error):
    return " ".join(str(error).split())


# --- calls that do not belong together ----------------------------------------------------------------------------------


def mismatched_operation():
    x = torch.ones(3)
    if dist.get_rank() == 1:
        dist.broadcast(x, 0)
    else:
        dist.all_reduce(x)


def mismatched_size():
    dist.all_reduce(torch.ones(3 + (dist.get_rank() == 1)))


def mismatched_dtype():
    dist.all_reduce(torch.ones(3, dtype=torch.int32 if dist.get_rank() == 1 else torch.float32))


def mismatched_reduction():
    dist.all_reduce(torch.ones(3), op=dist.ReduceOp.MAX if dist.get_rank() == 1 else dist.ReduceOp.SUM)


def mismatched_root():
    dist.broadcast(torch.ones(3), src=1 if dist.get_rank() == 1 else 0)


def swapped_calls():
    a, b = torch.ones(3), torch.zeros(3)
    if dist.get_rank() == 1:
        dist.all_reduce(b)
        dist.all_reduce(a)
    else:
        dist.all_reduce(a)
        dist.all_reduce(b)


def swapped_functions():
    def first():
        dist.all_reduce(torch.ones(3))

    def second():
        dist.all_reduce(torch.zeros(3))

    if dist.get_rank() == 1:
        second()
        first()
    else:
        first()
        second()


def one_collective_left_out():
    x = torch.ones(3)
    if dist.get_rank() != 1:
        dist.broadcast(x, 0)
    dist.all_reduce(x)


def message_of_another_size():
    if dist.get_rank() == 0:
        dist.send(torch.ones(3), 1)
    elif dist.get_rank() == 1:
        dist.recv(torch.ones(4), 0)


def message_of_another_dtype():
    if dist.get_rank() == 0:
        dist.send(torch.ones(3), 1)
    elif dist.get_rank() == 1:
        dist.recv(torch.ones(3, dtype=torch.int32), 0)


MISMATCHES = {
    mismatched_operation: "rank 0 calls all_reduce where rank 1 calls broadcast",
    mismatched_size: "rank 0 hands in float32[3] and rank 1 float32[4] to the same all_reduce",
    mismatched_dtype: "rank 0 hands in float32[3] and rank 1 int32[3] to the same all_reduce",
    mismatched_reduction: "rank 0 asks for the sum and rank 1 for the max in the same all_reduce",
    mismatched_root: "in the same broadcast, rank 0 names rank 0 as the root and rank 1 rank 1",
    swapped_calls: "rank 0 and rank 1 make the same two calls of all_reduce in opposite order",
    swapped_functions: "rank 0 and rank 1 make the same two calls of all_reduce in opposite order",
    one_collective_left_out: "rank 0 calls broadcast where rank 1 calls all_reduce",
    message_of_another_size: "rank 0 sends float32[3] and rank 1 receives float32[4]",
    message_of_another_dtype: "rank 0 sends float32[3] and rank 1 receives int32[3]",
}


@pytest.mark.parametrize("world_size", SIZES)
@pytest.mark.parametrize("fault", MISMATCHES, ids=lambda fault: fault.__name__)
def test_calls_that_do_not_belong_together_are_both_named(fault, world_size):
    error = fails(fault, world_size, RankMismatch)
    # Rank 1 is the odd one out; whichever other rank came first may stand for the rest.
    others = set(range(world_size)) - {1}
    expected = [MISMATCHES[fault].replace("rank 0", f"rank {other}", 1) for other in others]
    assert sorted(error.summary.split()) in [sorted(words.split()) for words in expected]
    assert str(error).count("test_stalls.py, line") >= 2 and "Try: " in str(error)


def test_a_mismatch_in_the_very_last_call_is_found_too():
    """float32 and int32 of the same size are added up by gloo without a word."""

    def fn():
        dist.barrier()
        dist.all_reduce(torch.ones(3, dtype=torch.int32 if dist.get_rank() else torch.float32))

    assert "int32[3]" in fails(fn, 2, RankMismatch).summary


@pytest.mark.parametrize("world_size", [4, 8])
def test_a_mismatch_within_a_group_names_the_group(world_size):
    def fn():
        group = dist.new_group([1, 3])
        if dist.get_rank() in (1, 3):
            dist.all_reduce(torch.ones(dist.get_rank()), group=group)

    error = fails(fn, world_size, RankMismatch)
    assert "rank 1 hands in float32[1] and rank 3 float32[3]" in error.summary
    assert "collective number 1 of the group of ranks 1 and 3" in str(error)


# --- ranks that wait for ever ---------------------------------------------------------------------------------------------


def everybody_sends():
    rank, n = dist.get_rank(), dist.get_world_size()
    dist.send(torch.ones(3), (rank + 1) % n)
    dist.recv(torch.ones(3), (rank - 1) % n)


def everybody_receives():
    rank, n = dist.get_rank(), dist.get_world_size()
    dist.recv(torch.ones(3), (rank - 1) % n)
    dist.send(torch.ones(3), (rank + 1) % n)


def waits_in_an_async_handle():
    rank, n = dist.get_rank(), dist.get_world_size()
    handle = dist.irecv(torch.ones(3), (rank - 1) % n)
    handle.wait()
    dist.send(torch.ones(3), (rank + 1) % n)


def different_tags():
    if dist.get_rank() == 0:
        dist.send(torch.ones(3), 1, tag=1)
    elif dist.get_rank() == 1:
        dist.recv(torch.ones(3), 0, tag=2)
    else:
        dist.barrier()


def collective_against_message():
    x = torch.ones(3)
    if dist.get_rank() == 0:
        dist.recv(x, 1)
    dist.all_reduce(x)
    if dist.get_rank() == 1:
        dist.send(x, 0)


DEADLOCKS = {
    everybody_sends: ("deadlock: rank 0 waits in send for rank 1", "let one side receive first"),
    everybody_receives: ("deadlock: rank 0 waits in recv for rank", "somebody must send"),
    waits_in_an_async_handle: ("deadlock: rank 0 waits in irecv for rank", "somebody must send"),
    different_tags: ("deadlock: rank 0 waits in send for rank 1", "same tag"),
    collective_against_message: ("deadlock: rank 0 waits in recv for rank 1", "counterpart"),
}


@pytest.mark.parametrize("world_size", SIZES)
@pytest.mark.parametrize("fault", DEADLOCKS, ids=lambda fault: fault.__name__)
def test_a_deadlock_is_explained_as_a_circle(fault, world_size):
    error = fails(fault, world_size, RankDeadlock)
    cause, hint = DEADLOCKS[fault]
    assert error.summary.startswith(cause) and hint in text(error)
    assert str(error).count("test_stalls.py, line") >= 2


@pytest.mark.parametrize("world_size", [4, 8])
def test_groups_called_in_different_orders_are_a_circle(world_size):
    def fn():
        one, other = dist.new_group([0, 1]), dist.new_group([0, 1])
        if dist.get_rank() < 2:
            for group in (one, other) if dist.get_rank() else (other, one):
                dist.all_reduce(torch.ones(1), group=group)

    error = fails(fn, world_size, RankDeadlock)
    assert "deadlock: rank 0 waits in all_reduce for rank 1" in error.summary and "several groups" in text(error)


@pytest.mark.parametrize("world_size", SIZES)
def test_a_recv_that_nobody_sends_to_names_the_one_who_did_not(world_size):
    def fn():
        if dist.get_rank() == 1:
            dist.recv(torch.ones(3), 0)

    error = fails(fn, world_size, RankDeadlock)
    assert error.summary == "rank 0 returned while rank 1 was still in recv" and "never sent" in str(error)


def test_a_recv_from_any_rank_that_nobody_sends_to():
    def fn():
        if dist.get_rank() == 1:
            dist.recv(torch.ones(3))

    assert "was still in recv" in fails(fn, 4, RankDeadlock).summary


@pytest.mark.parametrize("world_size", SIZES)
def test_one_more_all_reduce_on_one_rank(world_size):
    def fn():
        for _ in range(3 + (dist.get_rank() == 1)):
            dist.all_reduce(torch.ones(1))

    error = fails(fn, world_size, RankDeadlock)
    assert "returned while rank 1 was still in all_reduce" in error.summary and "early return" in str(error)


@pytest.mark.parametrize("world_size", [4, 8])
def test_a_new_group_that_one_member_does_not_make(world_size):
    def fn():
        if dist.get_rank() != 1:
            dist.new_group([0, 1])

    error = fails(fn, world_size, RankDeadlock)
    assert error.summary == "rank 1 returned while rank 0 was still in new_group" and "must call new_group" in str(
        error
    )


def test_a_part_of_the_ranks_may_be_stuck_while_others_work():
    def fn():
        if dist.get_rank() < 2:
            dist.recv(torch.ones(1), 1 - dist.get_rank())
        else:
            time.sleep(30)

    assert fails(fn, 3, RankDeadlock).summary.startswith("deadlock: rank 0 waits in recv for rank 1")


def test_the_absent_rank_is_named_at_the_timeout():
    def fn():
        if dist.get_rank() == 2:
            time.sleep(30)
        dist.all_reduce(torch.ones(1))

    error = fails(fn, 4, RankTimeout, timeout_s=0.7)
    assert error.summary == "rank 2 was still running after 0.7 s, and ranks 0, 1 and 3 waited for it in all_reduce"
    assert "time.sleep(30)" in str(error)


# --- what must not be accused ---------------------------------------------------------------------------------------------


def test_an_own_failure_is_the_cause_not_the_waiting_that_follows():
    def fn():
        if dist.get_rank() == 1:
            raise ValueError("the cause")
        dist.all_reduce(torch.ones(1))

    assert "the cause" in fails(fn, 4, RankError).summary


def slow():
    time.sleep(0.6 * (dist.get_rank() == 1))
    dist.all_reduce(torch.ones(1))


def taking_turns():
    for root in range(dist.get_world_size()):
        if dist.get_rank() == root:
            dist.broadcast(torch.ones(3), root)
        else:
            dist.broadcast(torch.zeros(3), root)
    for root in range(dist.get_world_size()):
        if dist.get_rank() == root:
            dist.all_reduce(torch.ones(3))
        else:
            dist.all_reduce(torch.zeros(3))


def different_lines():
    if dist.get_rank() == 0:
        dist.all_reduce(torch.ones(2))
        dist.all_reduce(torch.ones(3))
    else:
        x, y = torch.zeros(2), torch.zeros(3)
        dist.all_reduce(x)
        dist.all_reduce(y)


def an_interrupted_wait_of_ones_own():
    """A wait with a time limit gives up by itself, so that it is no deadlock."""
    from datetime import timedelta

    if dist.get_rank() == 0:
        with pytest.raises(RuntimeError):
            dist.irecv(torch.ones(1), 1).wait(timedelta(seconds=0.5))
    else:
        time.sleep(0.8)


def messages_from_any():
    rank, n = dist.get_rank(), dist.get_world_size()
    if rank == 0:
        for _ in range(n - 1):
            time.sleep(0.2)
            dist.recv(torch.ones(1))
    else:
        dist.send(torch.ones(1), 0)


def helped_by_a_thread():
    import threading

    if dist.get_rank() == 0:
        group = dist.group.WORLD

        def later():
            time.sleep(0.6)
            dist.send(torch.ones(1), 1, group=group)

        thread = threading.Thread(target=later)
        thread.start()
        dist.recv(torch.ones(1), 1)
        thread.join()
    else:
        dist.recv(torch.ones(1), 0)
        dist.send(torch.ones(1), 0)


@pytest.mark.parametrize(
    "fn",
    [slow, taking_turns, different_lines, an_interrupted_wait_of_ones_own, messages_from_any, helped_by_a_thread],
    ids=lambda fn: fn.__name__,
)
def test_correct_code_is_not_accused(fn):
    launch(fn, 2)
    if fn in (slow, taking_turns, messages_from_any):
        launch(fn, 4)
