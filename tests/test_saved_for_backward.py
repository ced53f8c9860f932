"""What autograd keeps for backward: cases small enough to count by hand, and a block of the GPT against the formula."""

from weakref import ref

import pytest
import torch
from torch import nn

from course_lib.cost.memory import layer_activations
from course_lib.cost.plan import Plan
from course_lib.cost.shapes import Transformer
from course_lib.memory import MemoryMeter, saved_for_backward
from course_lib.models.gpt import Block


class Square(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, 5))

    def forward(self, x):
        return (x @ self.weight).square()


def test_what_is_saved_for_backward_is_listed_without_parameters():
    x = torch.ones(7, 3, requires_grad=True)
    assert saved_for_backward(Square(), x) == [
        ((7, 3), torch.float32, 4 * 21),  # for the gradient of the weight
        ((7, 5), torch.float32, 4 * 35),  # for that of the square
    ]


def test_a_storage_that_is_saved_twice_is_listed_once():
    class Twice(nn.Module):
        def forward(self, x):
            return x * x.view(2, 6).T.reshape(3, 4) + x[:1] * x

    kept = saved_for_backward(Twice(), torch.ones(3, 4, requires_grad=True, dtype=torch.float64))
    assert [nbytes for *_, nbytes in kept] == [96, 96]  # x in all its views, and the reshaped copy


def test_nothing_stays_alive():
    class Output(nn.Module):
        def forward(self, x):
            self.seen = ref(y := x.exp())  # exp keeps its own output
            return y

    module = Output()
    assert len(saved_for_backward(module, torch.ones(3, requires_grad=True))) == 1
    assert module.seen() is None


def test_nothing_is_saved_when_nothing_needs_a_gradient():
    module = Square()
    module.weight.requires_grad_(False)
    assert saved_for_backward(module, torch.ones(7, 3)) == []


@pytest.mark.parametrize(("s", "b", "h", "a"), [(96, 2, 128, 4), (64, 1, 32, 1), (33, 3, 48, 6)])
def test_a_block_keeps_what_the_formula_says(s, b, h, a):
    kept = saved_for_backward(Block(h, a), torch.randn(b, s, h, requires_grad=True))
    small = 2 * 2 * s * b + a * s * b  # mean and deviation of two norms; a sum for each head and token
    assert sum(nbytes for *_, nbytes in kept) == 4 * (16 * s * b * h + small)
    plan = Plan(batch=b, microbatch=b, recompute="selective")  # fused attention keeps no scores
    shape = Transformer("block", 1, h, a, context=s, dropout=False)
    assert 2 * layer_activations(shape, plan) == 4 * 16 * s * b * h  # its bytes are for 16 bits


def test_the_meter_and_the_hooks_agree_on_a_block():
    block, x = Block(64, 4), torch.randn(2, 32, 64, requires_grad=True)
    kept = sum(nbytes for *_, nbytes in saved_for_backward(block, x))
    with MemoryMeter(block) as meter:
        y = block(x)
        held = meter.now.activations
    output, given = y.untyped_storage().nbytes(), x.untyped_storage().nbytes()
    assert held == kept + output - given  # the meter does not count what was there before
