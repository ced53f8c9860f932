"""What the meter's counts are for: a limit that is enforced, and the prediction beside them."""

import pytest
import torch
from torch import nn

from course_lib.cost.memory import MB, MemoryUse, training_state
from course_lib.memory import MemoryMeter, OutOfMemory


def test_over_the_limit_names_the_operation_the_bytes_and_a_next_step():
    model, x = nn.Linear(500, 500, bias=False), torch.ones(500, 500)  # 1 MB each
    kept = []
    with pytest.raises(OutOfMemory) as caught, MemoryMeter(model, limit_bytes=3 * MB) as meter:
        for _ in range(3):
            kept.append(model(x))
    message = str(caught.value)
    assert "aten.mm" in message and "made 1.00 MB" in message and "limit is 3.00 MB" in message
    assert "4.00 MB: parameters 1.00" in message and "activations 3.00" in message and "smaller micro-batch" in message
    assert meter.peak.total == 4 * MB and len(kept) == 2


def test_exactly_the_limit_fits():
    with MemoryMeter(limit_bytes=400) as meter:
        x = torch.zeros(100)
        with pytest.raises(OutOfMemory):
            torch.zeros(1)
    assert meter.peak.total == 404 and x.sum() == 0


def test_backward_runs_out_of_memory_too_and_names_what_to_shard():
    model = nn.Sequential(*[nn.Linear(500, 500, bias=False) for _ in range(4)])  # 1 MB each
    optimizer = torch.optim.Adam(model.parameters())
    for limit_mb, largest in ((5.5, "ZeRO-3"), (9.5, "ZeRO-2"), (13.5, "ZeRO-1")):
        with pytest.raises(OutOfMemory, match=largest), MemoryMeter(model, optimizer, limit_mb * MB):
            model(torch.ones(1, 500)).sum().backward()
            optimizer.step()
        model.zero_grad()
        optimizer.state.clear()


# --- the prediction


def test_training_state_divides_one_kind_more_at_each_stage():
    """A model of 7.5 billion on 64 ranks, in mixed precision with Adam: figure 1 of the ZeRO paper, in its GB of 10**9."""
    figure_1 = [120, 31.4, 16.6, 1.9]
    for stage, expected in enumerate(figure_1):
        use = training_state(7_500_000_000, 64, stage, parameter_bytes=2, gradient_bytes=2, optimizer_bytes=12)
        assert round(use.total / 1e9, 1) == expected
        assert use.activations == 0


def test_training_state_rounds_a_part_up_and_refuses_what_is_not_there():
    assert training_state(10, 3, 3) == MemoryUse(14, 14, 27)
    assert training_state(10, 3, 2) == MemoryUse(40, 14, 27)
    assert training_state(10, 3, 1) == MemoryUse(40, 40, 27)
    for arguments, message in (((10, 1, 4), "stage is 4"), ((10, 0, 1), "world_size is 0")):
        with pytest.raises(ValueError, match=message):
            training_state(*arguments)
