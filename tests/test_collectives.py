"""Our collectives must do what PyTorch's do, for every tensor, group and world size, with the messages that they promise.

Hypothesis draws batches of cases; a batch is one launch, in which every rank makes each call twice, once with each library.
For a case that fails, hypothesis then looks for a smaller one that does so on its own.
"""

import math
import time

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from course_lib import launch
from tests import collectives_scenes as scenes
from tests.collectives_cases import ALGORITHMS, ASYNC, MOVED, MOVES, REDUCED, REDUCTIONS, Case, run_batch

SIZES = range(1, 9)


@st.composite
def draw_case(draw, calls=REDUCTIONS + MOVES, ops=tuple(REDUCED), algorithms=None):
    call = draw(st.sampled_from(calls))
    op = draw(st.sampled_from(ops)) if call in REDUCTIONS else "SUM"
    algorithm = draw(st.sampled_from(algorithms or ALGORITHMS.get(call, [None])))
    return Case(
        call,
        op,
        draw(st.sampled_from(REDUCED[op] if call in REDUCTIONS else MOVED)),
        draw(st.lists(st.integers(0, 7), max_size=3).map(tuple) | st.tuples(st.integers(0, 3000))),
        draw(st.sampled_from(["plain", "gaps", "transposed"])),
        algorithm,
        draw(st.integers(0, 2)),
        draw(st.integers(0, 7)),
        call in ASYNC and algorithm != "tree" and draw(st.booleans()),
        draw(st.integers(0, 999)),
    )


@st.composite
def draw_batch(draw, n):
    """Two groups of some of n ranks, in any order, and cases for them and for the whole world."""
    groups = [draw(st.permutations(range(n)))[: draw(st.integers(1, n))] for _ in range(2)]
    return groups, draw(st.lists(draw_case(), min_size=20, max_size=80))


# --- equal to PyTorch's ------------------------------------------------------------------------------------------------


def first_wrong(n, groups, cases):
    """The first case of a batch that goes wrong and what is wrong with it, or None."""
    run = launch(run_batch, n, groups, cases, timeout_s=20)
    for case, *outcomes in zip(cases, *run, strict=True):
        for rank, outcome in enumerate(outcomes):
            if outcome and outcome[0]:
                return case, f"rank {rank}: {outcome[0]}"
        if case.call == "all_reduce" and len({outcome[1] for outcome in outcomes if outcome}) > 1:
            return case, "the ranks' bits differ"
    return None


def smallest_like(n, groups, case):
    """The smallest case of the same call and operation that goes wrong on its own, as far as 20 s tell."""
    known, stop_at = {}, time.monotonic() + 20

    def is_wrong(other):
        if other not in known:
            known[other] = time.monotonic() < stop_at and first_wrong(n, groups, [other]) is not None
        return known[other]

    like = draw_case([case.call], [case.op], [case.algorithm])
    try:
        return find(like, is_wrong, settings=settings(max_examples=50, deadline=None, database=None))
    except NoSuchExample:
        return case


@pytest.mark.parametrize("n", SIZES)
def test_every_collective_does_what_pytorchs_does(n):
    @given(batch=draw_batch(n))
    @settings(max_examples=3, deadline=None, database=None, phases=[Phase.generate])
    def check(batch):
        found.append((batch, first_wrong(n, *batch)))

    found = []
    check()
    for (groups, _), wrong in found:
        assert not wrong, f"{wrong[1]} in {wrong[0]}; a small one: {smallest_like(n, groups, wrong[0])} of {groups}"


# --- what is sent ------------------------------------------------------------------------------------------------------

V = 8 * scenes.LENGTH  # bytes of the tensor that is sent, which every n divides


def promised(name, n, rank):
    """Messages and bytes that a rank sends, from the docstrings; src and dst are rank 1, or 0 where there is no other."""
    root = min(1, n - 1)
    place = (rank - root) % n
    core = 2 ** int(math.log2(n))
    doublings = 1 if rank >= core else int(math.log2(core)) + (rank + core < n)
    return {
        "all_reduce ring": (2 * (n - 1), 2 * (n - 1) * V // n),
        "all_reduce doubling": (doublings, doublings * V),
        "reduce tree": (int(rank != root), V * (rank != root)),
        "broadcast flat": ((n - 1) * (rank == root), (n - 1) * V * (rank == root)),
        "broadcast tree": (tree_children(place, n), tree_children(place, n) * V),
        "all_reduce reduce_broadcast": (tree_children(rank, n) + (rank > 0), V * (tree_children(rank, n) + (rank > 0))),
        "scatter": ((n - 1) * (rank == root), (n - 1) * V * (rank == root)),
        "gather": (int(rank != root), V * (rank != root)),
        "all_gather": (n - 1, (n - 1) * V),
        "reduce_scatter": (n - 1, (n - 1) * V // n),
        "all_to_all": (n - 1, (n - 1) * V // n),
    }[name]


def tree_children(place, n):
    """Whom a member of a binomial tree serves: place + 1, + 2, + 4, … below its own lowest bit."""
    lowest = place & -place or n
    return sum(1 for k in range(8) if 2**k < lowest and place + 2**k < n)


@pytest.mark.parametrize("n", SIZES)
def test_every_rank_sends_what_the_docstring_promises(n):
    for rank, sent in enumerate(launch(scenes.count_all, n)):
        assert sent == {name: promised(name, n, rank) for name in sent}


@pytest.mark.parametrize("n", [2, 3, 5, 8])
def test_trees_take_few_steps(n):
    depth = math.ceil(math.log2(n))
    sent = [run["broadcast tree"][0] for run in launch(scenes.count_all, n)]
    assert sum(sent) == n - 1 and sent[1] == max(sent) == depth


@pytest.mark.parametrize("n", [3, 4, 7])
def test_a_ring_all_reduce_of_an_awkward_length_sends_all_chunks_twice_but_two(n):
    length = 13
    chunks = [length // n + (rank < length % n) for rank in range(n)]
    for rank, sent in enumerate(launch(scenes.count_awkward, n, length)):
        assert sent == (2 * (n - 1), 8 * (2 * length - chunks[rank] - chunks[(rank + 1) % n]))


# --- messages do not mix -----------------------------------------------------------------------------------------------


def test_two_groups_of_the_same_ranks_keep_their_messages_apart():
    assert launch(scenes.two_groups_at_once, 4, timeout_s=20).results == (None,) * 4


def test_calls_under_way_do_not_mix_with_those_after_them():
    assert launch(scenes.several_under_way, 4, timeout_s=20).results == (None,) * 4


def test_the_callers_own_messages_stay_its_own():
    assert launch(scenes.own_messages, 2, timeout_s=20).results == (None,) * 2


# --- the rest of the contract ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 5])
def test_shapes_may_differ_from_rank_to_rank(n):
    launch(scenes.uneven_shapes, n, timeout_s=20)


def test_parameters_and_conjugates_are_taken_as_they_are():
    launch(scenes.unusual_tensors, 3, timeout_s=20)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_all_ranks_end_with_the_same_bits_of_zeros_too(n):
    first, *others = launch(scenes.signed_zeros, n, timeout_s=20)
    assert all(other == first for other in others)


def test_product_of_complex_numbers():
    launch(scenes.complex_product, 3, timeout_s=20)


REFUSED = {
    "not a member": "rank 2 is not in the group: only its members make this call.",
    "src": "rank 0: src=2 is not in the group of ranks [0, 1]; src counts in the whole world, so name one of these.",
    "dst": "rank 0: dst=2 is not in the group of ranks [0, 1]; dst counts in the whole world, so name one of these.",
    "average of integers": "rank 0: AVG is not defined for torch.int64; convert the tensor on every rank, for example to float32.",
    "order of complex": "rank 0: MAX is not defined for torch.complex64; convert the tensor on every rank, for example to float32.",
    "sum of bytes": "rank 0: SUM is not defined for torch.float8_e4m3fn; convert the tensor on every rank, for example to float32.",
    "operation": "rank 0: op is RedOpType.BAND; these collectives know SUM, AVG, PRODUCT, MIN, MAX.",
    "all_reduce": "rank 0: algorithm is 'rings'; all_reduce knows ring, doubling and reduce_broadcast.",
    "broadcast": "rank 0: broadcast knows the algorithms tree and flat, and async_op with flat only; "
    "this is algorithm='tree', async_op=True.",
    "no list": "rank 0: scatter_list is missing; give one tensor for each of the group's 3 ranks.",
    "short list": "rank 0: tensor_list has 2 entries; give one tensor for each of the group's 3 ranks.",
    "shape": "rank 0: gather_list[0] is (3,) torch.float32 and belongs with (2,) torch.float32; "
    "make the two equal, and all of gather_list of one dtype.",
    "dtype": "rank 0: input_list[0] is (2,) torch.float32 and belongs with (2,) torch.float64; "
    "make the two equal, and all of input_list of one dtype.",
}


def test_a_call_that_cannot_work_is_refused_in_one_sentence():
    run = launch(scenes.refusals, 3, timeout_s=20)
    assert {name: run[2 if name == "not a member" else 0][name] for name in REFUSED} == REFUSED
