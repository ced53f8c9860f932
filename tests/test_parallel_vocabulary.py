"""The embedding and the loss of a split vocabulary: equal to F.embedding and F.cross_entropy, and the logits stay where they are."""

import math

import pytest
import torch
import torch.distributed as dist
from torch.nn import functional as F

from course_lib import RankError, launch
from course_lib.parallel.vocabulary import VocabParallelEmbedding, vocab_parallel_cross_entropy

V, N = 24, 10
CASES = {
    "plain": lambda z, y: (z, y),
    "huge": lambda z, y: (z * 1e4, y),
    "far below 0": lambda z, y: (z - 1e4, y),
    "some ignored": lambda z, y: (z, torch.where(torch.arange(N) % 3 == 0, -100, y)),
    "two dims": lambda z, y: (z.unflatten(0, (2, 5)), y.unflatten(0, (2, 5))),
    "strided": lambda z, y: (z.T.contiguous().T, y),
}


def cases():
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(N, V, generator=generator, dtype=torch.float64)
    return {name: change(z, torch.randint(V, (N,), generator=generator)) for name, change in CASES.items()}


def split_loss():
    found = {}
    for name, (z, y) in cases().items():
        mine = z.chunk(dist.get_world_size(), -1)[dist.get_rank()].clone().requires_grad_()
        before = mine.detach().clone()
        loss = vocab_parallel_cross_entropy(mine, y)
        (loss * 3).backward()
        assert torch.equal(mine.detach(), before), "the logits are the caller's"
        found[name] = loss.item(), mine.grad
    return found


@pytest.mark.parametrize("t", [1, 2, 3, 4, 8])
def test_loss_and_gradient_equal_cross_entropy(t):
    run = launch(split_loss, t)
    for name, (z, y) in cases().items():
        z = z.clone().requires_grad_()
        loss = F.cross_entropy(z.flatten(0, -2), y.flatten())
        (loss * 3).backward()
        for rank in run:
            assert rank[name][0] == pytest.approx(loss.item(), rel=1e-12, abs=1e-12), name
        grad = torch.cat([rank[name][1] for rank in run], -1)
        assert (grad - z.grad).abs().max() < 1e-12, name


def test_all_targets_ignored_gives_nan_as_in_pytorch():
    def fn():
        return vocab_parallel_cross_entropy(torch.zeros(2, 3), torch.full((2,), 9), ignore_index=9).item()

    assert all(math.isnan(loss) for loss in launch(fn, 2))


@pytest.mark.parametrize("t", [2, 4])
def test_only_three_numbers_a_token_travel(t):
    trace = launch(split_loss, t).trace
    per_rank = sum(e.ring_bytes for e in trace.of(rank=0).events)
    assert per_rank == len(CASES) * 3 * N * 8 * 2 * (t - 1) / t
    assert {e.operation for e in trace.events} == {"all_reduce"}


def embedding():
    torch.manual_seed(dist.get_rank())
    layer = VocabParallelEmbedding(V, 6).double()
    whole = torch.cat(layer_rows(layer))
    tokens = torch.randint(V, (3, 4), generator=torch.Generator().manual_seed(1))
    scale = torch.arange(6)
    y = layer(tokens)
    (y * scale).pow(2).sum().backward()
    plain = whole.clone().requires_grad_()
    expected = F.embedding(tokens, plain)
    (expected * scale).pow(2).sum().backward()
    mine = plain.grad.chunk(dist.get_world_size())[dist.get_rank()]
    return (y - expected).abs().max().item(), (layer.weight.grad - mine).abs().max().item()


def layer_rows(layer):
    rows = [torch.empty_like(layer.weight) for _ in range(dist.get_world_size())]
    dist.all_gather(rows, layer.weight.detach())
    return rows


@pytest.mark.parametrize("t", [1, 2, 3, 4])
def test_the_embedding_and_its_gradient_equal_pytorchs(t):
    assert max(max(rank) for rank in launch(embedding, t)) < 1e-12


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: vocab_parallel_cross_entropy(torch.zeros(2, 3), torch.tensor([0, 6])), "rank 0: target 6 is not in the vocabulary of 6: they go from 0 to 5"),
        (lambda: vocab_parallel_cross_entropy(torch.zeros(2, 3), torch.tensor([0])), r"need targets of shape \(2,\), one a row, not \(1,\)"),
        (lambda: VocabParallelEmbedding(4, 2)(torch.tensor([-1])), "token -1 is not in the vocabulary of 4"),
    ],
)  # fmt: skip
def test_what_does_not_belong_to_the_vocabulary_is_named(call, error):
    with pytest.raises(RankError, match=error):
        launch(lambda: call() and None, 2, timeout_s=20)
