"""Schedules: the orders are PyTorch's, the bubbles those of the papers, and whatever cannot be carried out is named."""

import random
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.schedules import (
    Action,
    check,
    dualpipe_v,
    executable,
    gpipe,
    interleaved,
    one_f_one_b,
    parse,
    relay,
    zb_h1,
    zb_v,
)
from course_lib.schedules.known import SCHEDULES
from course_lib.schedules.simulation import Costs, simulate
from tests import torch_schedules as torchs

SIZES = [1, 2, 3, 4, 5, 8, 16]
COUNTS = [1, 2, 3, 4, 5, 7, 8, 12, 16, 32, 33]
GRID = [(p, m) for p in SIZES for m in COUNTS]


def test_gpipe_is_pytorchs():
    for p, m in GRID:
        assert gpipe(p, m).actions == torchs.gpipe(p, m).actions


def test_1f1b_is_pytorchs_but_for_its_last_rank():
    """PyTorch 2.13.0's `Schedule1F1B._get_pipeline_order` numbers the last rank's forwards from 1, a slip: what it runs counts from 0.

    It also lets a rank warm up with more forwards than there are micro-batches, so m is at least p here.
    """
    for p, m in GRID:
        if m < p:
            continue
        mine, theirs = one_f_one_b(p, m).actions, torchs.one_f_one_b(p, m).actions
        assert mine[:-1] == theirs[:-1]
        assert [a.kind for a in mine[-1]] == [a.kind for a in theirs[-1]]
        shifted = [a._replace(microbatch=a.microbatch - (a.kind == "F")) for a in theirs[-1]]
        assert list(mine[-1]) == shifted


def test_interleaved_is_pytorchs():
    for p, m in GRID:
        for v in (1, 2, 3, 4):
            if m % max(1, m // p) == 0:
                assert interleaved(p, m, v).actions == torchs.interleaved(p, m, v).actions


def test_zb_h1_is_pytorchs_zero_bubble_with_one_chunk():
    for p, m in GRID:
        if m % max(1, m // p) == 0:
            assert zb_h1(p, m).actions == torchs.zero_bubble(p, m).actions


def test_zb_v_and_dualpipe_v_are_pytorchs():
    for p, m in GRID:
        assert zb_v(p, m).actions == torchs.zb_v(p, m).actions
        if m >= 2 * p:
            assert dualpipe_v(p, m).actions == torchs.dualpipe_v(p, m).actions


def every_schedule(p, m):
    yield gpipe(p, m)
    yield one_f_one_b(p, m)
    yield zb_h1(p, m)
    yield zb_v(p, m)
    if m >= 2 * p:
        yield dualpipe_v(p, m)
    if m % max(1, m // p) == 0:
        yield from (interleaved(p, m, v) for v in (1, 2, 3))


def test_every_schedule_can_be_carried_out():
    for p, m in GRID:
        for schedule in every_schedule(p, m):
            assert check(schedule) is None, f"{schedule.name}, p = {p}, m = {m}: {check(schedule)}"
        assert check(relay(p)) is None


def test_bubbles_are_those_of_the_papers():
    for p, m in GRID:
        exact = pytest.approx((p - 1) / m, abs=1e-12)
        assert simulate(gpipe(p, m)).bubble == exact and simulate(one_f_one_b(p, m)).bubble == exact
        for v in (2, 3, 4):
            if m % p == 0:
                half = Costs(1 / v, 2 / v)
                found = simulate(interleaved(p, m, v), half).bubble
                assert found == pytest.approx((p - 1) / (v * m), abs=1e-12)
        if m >= 2 * p - 1:
            assert simulate(zb_h1(p, m)).bubble == pytest.approx((p - 1) / (3 * m), abs=1e-12)
    assert simulate(relay(5)).bubble == 4


def test_a_promised_bubble_is_exact_if_what_it_asks_for_is_true_and_says_so_if_not():
    for name, known in SCHEDULES.items():
        for p, rounds, v in product(range(1, 7), (1, 2, 5), (1, 2, 4) if "v" in known.uses else (1,)):
            if known.bubble:
                m = p * rounds
                simulation = simulate(known.make(p, m, v), Costs(0.5 / v, 1 / v))
                assert simulation.bubble == pytest.approx(known.bubble(p, m, v), abs=1e-9), (name, p, m, v)
                assert "if" not in known.promise(p, m, v, simulation.bubble)
    known = SCHEDULES["interleaved"]
    want = "(p−1)/(v·m) = 0.1875, if p divides m and messages are free"
    assert known.promise(4, 8, 2, 0.2) == want and not SCHEDULES["ZB-V"].promise(4, 8, 2, 0.2)


def test_a_step_says_what_its_rank_waited_for_and_gaps_are_the_rest_of_the_time():
    for schedule in (one_f_one_b(4, 8), zb_v(3, 7), interleaved(2, 6, 3)):
        simulation = simulate(schedule, Costs(0.7, 1.9, message_s=0.3))
        idle = sum(end - start for _, start, end, _, _ in simulation.gaps)
        assert idle == pytest.approx(simulation.idle_s)
        for step in simulation.steps:
            arrived = [
                start + 0.3 * (owner != step.rank)
                for owner, name in step.needs
                for start in [next(other.end_s for other in simulation.steps if str(other.action) == name)]
            ]
            assert step.start_s == pytest.approx(max([step.free_s, *arrived]))
            assert (step.waited == "no wait") == (step.start_s - step.free_s < 1e-9)
    first = next(step for step in simulation.steps if step.rank == 1)
    assert (
        str(first) == "rank 1, stage 1: forward of micro-batch 0, from 1 s to 1.7 s; waited 1 s for 0F0 and its message"
    )


def test_what_ranks_do_and_hold_at_a_time():
    simulation = simulate(one_f_one_b(4, 8))  # a forward takes 1 s, a backward 2 s
    assert [simulation.working_at(t) for t in (0, 3.5, 5, 32, 33)] == [1, 4, 1, 1, 0]
    assert simulation.activations_at(0) == [1, 0, 0, 0] and simulation.activations_at(33) == [0, 0, 0, 0]
    for rank, peak in enumerate(simulation.peak_activations):
        assert max(simulation.activations_at(k / 4)[rank] for k in range(4 * 33)) == peak


def test_zb_v_is_never_idle_but_while_it_starts_and_ends():
    for p in SIZES:
        result = simulate(zb_v(p, 4 * p))
        for rank, times in enumerate(result.times):
            assert times[0][0] == rank, "the first micro-batch comes down"
            assert times[-1][1] - times[0][0] == pytest.approx(result.work_s[rank])


def test_memory_is_as_promised():
    for p, m in GRID:
        assert simulate(gpipe(p, m)).peak_activations == (m,) * p
        assert simulate(one_f_one_b(p, m)).peak_activations == tuple(min(m, p - r) for r in range(p))
        if m >= 2 * p:
            assert max(simulate(zb_h1(p, m)).peak_activations) <= p
            assert max(simulate(zb_v(p, m)).peak_activations) == 2 * p  # of half the size each


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 10**6))
def test_any_order_that_keeps_dependencies_is_legal_and_a_swap_that_breaks_one_is_named(p, m, seed):
    """Random legal schedules: actions drawn one by one among those that can be done."""
    schedule = random_legal(p, m, random.Random(seed))
    assert check(schedule) is None
    result = simulate(schedule)
    assert result.makespan_s >= max(result.work_s) and min(result.peak_activations) >= 1
    assert [a for _, _, a in executable(schedule)].__len__() == sum(map(len, schedule.actions))
    for rank, actions in enumerate(schedule.actions):
        backward = next(i for i, a in enumerate(actions) if a.kind in "BI")
        own = actions.index(Action("F", *actions[backward][1:]))
        swapped = list(actions)
        swapped[own], swapped[backward] = swapped[backward], swapped[own]
        broken = schedule.__class__(
            "swapped", (*schedule.actions[:rank], tuple(swapped), *schedule.actions[rank + 1 :])
        )
        assert check(broken) is not None
        with pytest.raises(ValueError, match="cannot be carried out"):
            simulate(broken)


def random_legal(p, m, rng):
    stages = [list(range(rank, rng.choice((p, 2 * p)) if p > 1 else 2, p)) for rank in range(p)]
    count = min(map(len, stages)) * p
    todo = {Action(kind, s, i) for s in range(count) for i in range(m)
            for kind in ("FB" if rng.random() < 0.5 else "FIW")}  # fmt: skip
    done, ranks = set(), [[] for _ in range(p)]
    while todo:
        possible = [a for a in sorted(todo) if all(n in done or n[1] >= count for n in a.needs)]
        action = rng.choice(possible)
        todo.remove(action)
        done.add(action.gives)
        ranks[action.stage % p].append(action)
    return parse("random", (" ".join(map(str, rank)) for rank in ranks))


WRONG = [
    (["0F0 0B0", "1F0"], "rank 1 never does 1B0: add it"),
    (["0F0 0F0 0B0"], "rank 0 does 0F0 twice"),
    (["0F0 0B0", "0F1 0B1"], "rank 1 does 0F1, but rank 0 holds stage 0: a stage lies on one rank"),
    (["0F0 0B0 0W0"], "rank 0 does 0W0 though the backward is there already: either B, or I and W"),
    (["0F0 0I0"], "rank 0 never does 0W0"),
    (["1F0 1B0"], "no rank holds stage 0"),
    (["0B0 0F0"], "rank 0 waits at 0B0 for 0F0, later in its own list: nobody can go on"),
    (
        ["0F0 0B0 0F1 0B1", "1F1 1F0 1B0 1B1"],
        "rank 0 waits at 0B0 for 1B0, which rank 1 has not done yet; rank 1 waits at 1F1 for 0F1, which rank 0 has not done yet",
    ),
]


@pytest.mark.parametrize(("rows", "why"), WRONG)
def test_what_is_wrong_first_is_named(rows, why):
    assert why in str(check(parse("wrong", rows)))


def test_text_and_back():
    schedule = one_f_one_b(3, 4)
    rows = [line.partition(": ")[2] for line in str(schedule).splitlines()[1:]]
    assert parse("1F1B", rows) == schedule
    with pytest.raises(ValueError, match="'0G1' is no action: write the stage, then F, B, I or W"):
        parse("mine", ["0G1"])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gpipe(0, 4), "p is the number of ranks, a whole number from 1 up, not 0"),
        (lambda: one_f_one_b(2, 1.5), "m is the number of micro-batches"),
        (lambda: interleaved(4, 13, 2), "13 micro-batches cannot go in 3 equal rounds of about p = 4; 12 or 16 would do"),
        (lambda: dualpipe_v(4, 7), "at least 2p = 8 micro-batches, not m = 7"),
    ],
)  # fmt: skip
def test_impossible_sizes_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
