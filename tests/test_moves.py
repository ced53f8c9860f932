"""The moves that the animation draws: each rank ends with what the operation promises, and the real collectives do just this."""

import pytest

from course_lib import launch
from course_lib.schedules.moves import ALGORITHMS, Move, apply, final, initial, moves, num_chunks, states
from tests.moves_ranks import LENGTH, messages_of, value

CASES = [(operation, algorithm) for operation, names in ALGORITHMS.items() for algorithm in names]


@pytest.mark.parametrize("n", range(1, 9))
@pytest.mark.parametrize(("operation", "algorithm"), CASES)
def test_every_rank_ends_with_what_the_operation_promises(operation, algorithm, n):
    end = states(operation, algorithm, n)[-1]
    for rank, promised in enumerate(final(operation, algorithm, n)):
        assert {chunk: end[rank].get(chunk) for chunk in promised} == promised


@pytest.mark.parametrize(
    ("operation", "algorithm", "steps", "messages"),
    [
        ("broadcast", "tree", [0, 1, 2, 2, 3, 3, 3, 3], lambda n: n - 1),
        ("broadcast", "flat", [0, 1, 1, 1, 1, 1, 1, 1], lambda n: n - 1),
        ("reduce", "tree", [0, 1, 2, 2, 3, 3, 3, 3], lambda n: n - 1),
        ("all_gather", "ring", range(8), lambda n: n * (n - 1)),
        ("reduce_scatter", "ring", range(8), lambda n: n * (n - 1)),
        ("all_reduce", "ring", range(0, 16, 2), lambda n: 2 * n * (n - 1)),
        ("all_reduce", "reduce_broadcast", [0, 2, 4, 4, 6, 6, 6, 6], lambda n: 2 * (n - 1)),
        ("all_to_all", "pairwise", [0, 1, 1, 1, 1, 1, 1, 1], lambda n: n * (n - 1)),
    ],
)
def test_the_number_of_steps_and_messages_is_the_formulas(operation, algorithm, steps, messages):
    for n, count in zip(range(1, 9), steps, strict=True):
        found = moves(operation, algorithm, n)
        assert len(found) == count
        assert sum(map(len, found)) == messages(n)


def test_a_sum_that_counts_twice_is_noticed():
    start = initial("all_reduce", "doubling", 2)
    with pytest.raises(ValueError, match=r"rank 1 would add the contributions of ranks \[0\] twice"):
        apply(apply(start, [Move(0, 1, 0, True)]), [Move(0, 1, 0, True)])
    with pytest.raises(ValueError, match="rank 1 has no chunk 0 to send to rank 0"):
        apply(initial("broadcast", "flat", 2), [Move(1, 0, 0)])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("allreduce",), "operation is 'allreduce': there are broadcast, scatter"),
        (("all_reduce", "tree"), "algorithm is 'tree': all_reduce has ring and doubling and reduce_broadcast"),
        (("all_reduce", None, 0), "whole number of at least 1, not 0"),
    ],
)
def test_a_wrong_argument_is_refused_in_a_sentence(arguments, words):
    with pytest.raises(ValueError, match=words):
        moves(*arguments)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8])
def test_the_real_collectives_send_these_very_messages_in_this_order(n):
    real = launch(_all_cases, n)
    for case, (operation, algorithm) in enumerate(CASES):
        sends = [[m for m in real[rank][case] if m[0] == "send"] for rank in range(n)]
        recvs = [[m for m in real[rank][case] if m[0] == "recv"] for rank in range(n)]
        want_sends, want_recvs = [[] for _ in range(n)], [[] for _ in range(n)]
        size = LENGTH // num_chunks(operation, algorithm, n)
        now = initial(operation, algorithm, n)
        for step in moves(operation, algorithm, n):
            for move in step:
                # Which chunk it is, and whose contributions are in it, is read from the values that really left.
                chunk = move.chunk % n if operation == "all_to_all" else move.chunk
                said = sum(value(rank, chunk) for rank in now[move.src][move.chunk])
                want_sends[move.src].append(("send", move.dst, size, [said, said]))
                want_recvs[move.dst].append(("recv", move.src, size, None))
            now = apply(now, step)
        assert sends == want_sends, (operation, algorithm)
        assert recvs == want_recvs, (operation, algorithm)


def _all_cases():
    return [messages_of(operation, algorithm) for operation, algorithm in CASES]
