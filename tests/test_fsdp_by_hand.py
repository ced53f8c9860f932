"""Fully sharded data parallel by hand: it trains as one process does, sends what it says, and holds no more than its share."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from course_lib import launch, span
from course_lib.parallel.fsdp_by_hand import ShardedLayer, fsdp_by_hand

STEPS, BATCH = 3, 12


def layers():
    """Sizes that no world size divides."""
    return [nn.Sequential(nn.Linear(a, b), nn.Tanh()).double() for a, b in ((5, 7), (7, 9), (9, 3))]


def batch(step):
    made = torch.Generator().manual_seed(step)
    return [torch.randn(BATCH, size, dtype=torch.float64, generator=made) for size in (5, 3)]


def one_process():
    torch.manual_seed(0)
    model = nn.Sequential(*layers())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(STEPS):
        x, y = batch(step)
        optimizer.zero_grad()
        F.mse_loss(model(x), y).backward()
        optimizer.step()
    return [p.detach() for p in model.parameters()]


def sharded(scale=1.0):
    rank, n = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(rank)  # rank 0's values must win
    chain = [ShardedLayer(layer) for layer in layers()]
    assert all(p.numel() == 0 for layer in chain for p in layer.layer.parameters())
    optimizer = torch.optim.SGD([layer.shard for layer in chain], lr=0.1, momentum=0.9)
    for step in range(STEPS):
        x, y = (t.chunk(n)[rank] for t in batch(step))
        with span(f"step {step}"):
            fsdp_by_hand(chain, x, lambda out, y=y: scale * F.mse_loss(out, y))
        optimizer.step()
    return [p.detach() for layer in chain for p in layer.gather().values()]


def furthest(run):
    return max((a - b).abs().max() for rank in run for a, b in zip(rank, one_process(), strict=True))


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_it_trains_as_one_process_and_sends_what_it_says(n):
    run = launch(sharded, n)
    assert furthest(run) <= 1e-10
    psi = sum(p.numel() for layer in layers() for p in layer.parameters())
    sent = sum(event.ring_bytes for event in run.trace.during("step 1").events if event.rank == 0)
    assert 3 * (n - 1) / n * 8 * psi <= sent <= 3 * (n - 1) / n * 8 * (psi + 3 * n)  # the difference: what fills up


def test_the_comparison_catches_another_gradient():
    assert furthest(launch(sharded, 2, 2.0)) > 1e-6
