"""The pairs of tensor parallelism: the gradient must be that of the program as a whole, over all ranks, in float64."""

import pytest
import torch

from course_lib import launch
from tests import collectives_autograd_ranks as ranks

SIZES = [1, 2, 3, 4]


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", ranks.OPERATORS)
def test_the_backward_is_the_gradient_of_the_whole_program(name, n):
    run = launch(lambda: [ranks.check_gradient(name, dim) for dim in (0, -1)], n)
    assert run.results == ([True] * 2,) * n


@pytest.mark.parametrize("n", SIZES)
def test_parts_are_cut_and_joined_along_every_dim(n):
    run = launch(lambda: [ranks.forward_along(dim) for dim in range(-3, 3)], n)
    assert run.results == ([[True] * 4] * 6,) * n


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("style", ["tensor", "sequence"])
def test_a_parallel_mlp_has_the_gradients_of_one_process(style, n):
    assert max(launch(ranks.mlp, n, style)) < 1e-10


@pytest.mark.parametrize("n", [1, 3])
def test_no_operator_changes_its_input(n):
    run = launch(lambda: [ranks.keeps_its_input(name) for name in ranks.OPERATORS], n)
    assert run.results == ([True] * len(ranks.OPERATORS),) * n


def test_a_gradient_can_be_differentiated():
    """x is 1 … 16 on both ranks, the loss a sum of cubes."""
    x = torch.arange(1.0, 17, dtype=torch.float64)
    for found in launch(lambda: {name: ranks.second_derivative(name) for name in ranks.OPERATORS}, 2):
        for name in ("copy_to_group", "gather_sequence"):  # two ranks use x, each in a loss of its own: 2·3x²
            assert torch.equal(found[name][0], 6 * x**2) and torch.equal(found[name][1], 12 * x)
        first, second = found["gather_from_group"]  # both ranks have the same loss, which counts once
        assert torch.equal(first, 3 * x**2) and torch.equal(second, 6 * x)


REFUSED = {
    "split": "rank 0: dim 1 of (2, 7) is 7, which 3 ranks cannot share equally; 6 or 9 would do.",
    "short": "rank 0: dim 0 of (2, 7) is 2, which 3 ranks cannot share equally; 3 would do.",
    "reduce_scatter": "rank 0: dim 0 of (8, 2) is 8, which 3 ranks cannot share equally; 6 or 9 would do.",
    "gather": "rank 0: the ranks of the group hold [3, 4, 3] of dim 1, 10 in all, and must hold equal parts; "
    "9 or 12 in all would do.",
    "gather_sequence": "rank 0: the ranks of the group hold [3, 4, 3] of dim 0, 10 in all, and must hold equal parts; "
    "9 or 12 in all would do.",
    "dim": "rank 0: dim 2 does not exist in a tensor of shape (2, 7); name one that does.",
}


def test_uneven_parts_are_refused_in_one_sentence_on_every_rank():
    run = launch(ranks.refusals, 3, timeout_s=20)
    assert run[0] == REFUSED
    for rank in (1, 2):
        expected = {name: text.replace("rank 0", f"rank {rank}") for name, text in REFUSED.items()}
        assert {name: run[rank][name] for name in REFUSED} == expected
    assert run[2]["member"] == "rank 2 is not in the group: only its members make this call."


def test_a_layer_that_knows_its_parts_saves_the_check():
    assert launch(ranks.unchecked, 2).results == (4, 4)
