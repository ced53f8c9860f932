"""DataParallel must train exactly as one process does: float64, several world sizes, a different seed on every rank."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from course_lib import RankError, launch
from course_lib.data import digits
from course_lib.models.resnet import ResNet
from course_lib.parallel.data import DataParallel

SIZES = [1, 2, 3, 4, 8]
BATCH = 24
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
}


class Awkward(nn.Module):
    """Tied, frozen, buffered, and used by some samples only or by none."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 5)
        self.frozen = nn.Linear(5, 5).requires_grad_(False)
        self.sometimes = nn.Parameter(torch.randn(5))
        self.never = nn.Parameter(torch.randn(3))
        self.last = nn.Linear(5, 6, bias=False)
        self.last.weight = nn.Parameter(self.first.weight.T.detach().clone())
        self.tied = self.last
        self.register_buffer("shift", torch.randn(5))

    def forward(self, x):
        y = self.frozen(torch.tanh(self.first(x))) + self.shift
        if (x[:, 0] > 10).any():  # true of the first sample alone: the other ranks never touch `sometimes`
            y = y + (x[:, :1] > 10) * self.sometimes
        return self.tied(F.gelu(self.last(y) @ self.last.weight))


def awkward_batch():
    x = torch.randn(BATCH, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x[0, 0] = 11.0
    return x, x.roll(1, 0)


def resnet_batch():
    data = digits(torch.float64)
    return data.train_x[:BATCH], data.train_y[:BATCH]


MODELS = {"resnet": (ResNet, resnet_batch, F.cross_entropy), "awkward": (Awkward, awkward_batch, F.mse_loss)}


def train(wrap, model_name, optimizer_name, steps=4):
    """On a rank: train on this rank's slice, return the final state. `wrap` makes the model parallel."""
    build, batch, loss_fn = MODELS[model_name]
    rank, n = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(rank)  # every rank builds different weights; rank 0's must win
    model = wrap(build().double())
    optimizer = OPTIMIZERS[optimizer_name](model.parameters())
    x, y = (t.chunk(n)[rank] for t in batch())
    for _ in range(steps):
        optimizer.zero_grad()
        loss_fn(model(x), y).backward()
        model.finish_gradient_sync()
        optimizer.step()
    return {name: tensor.detach() for name, tensor in model.module.state_dict().items()}


def furthest(states, truth):
    return max((state[name] - truth[name]).abs().max().item() for state in states for name in truth)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", MODELS)
def test_equals_one_process(model, optimizer):
    truth = launch(train, 1, DataParallel, model, optimizer)[0]
    untouched = launch(train, 1, DataParallel, model, optimizer, 0)[0]
    assert furthest([untouched], truth) > 1e-3, (
        "training must change the weights, or the comparison shows nothing"
    )
    for n in SIZES:
        assert furthest(launch(train, n, DataParallel, model, optimizer), truth) <= 1e-10, f"{n} ranks"


class NoBroadcast(DataParallel):
    def __init__(self, module, group=None):
        nn.Module.__init__(self)
        self.module, self.group, self.world_size = module, group, dist.get_world_size(group)
        self._trained = [p for p in module.parameters() if p.requires_grad]


class NoBuffers(DataParallel):
    def __init__(self, module, group=None):
        kept = {name: buffer.clone() for name, buffer in module.named_buffers()}
        super().__init__(module, group)
        for name, buffer in kept.items():
            module.get_buffer(name).copy_(buffer)


class SumNotMean(DataParallel):
    def finish_gradient_sync(self):
        super().finish_gradient_sync()
        for p in self._trained:
            if p.grad is not None:
                p.grad *= self.world_size


class NoSync(DataParallel):
    def finish_gradient_sync(self):
        pass


@pytest.mark.parametrize("broken", [NoBroadcast, NoBuffers, SumNotMean, NoSync])
def test_the_comparison_catches_broken_versions(broken):
    truth = launch(train, 1, DataParallel, "awkward", "sgd")[0]
    assert furthest(launch(train, 2, broken, "awkward", "sgd"), truth) > 1e-6


def test_a_parameter_that_nobody_used_keeps_no_gradient():
    def grads():
        model = DataParallel(Awkward().double())
        x, y = (t.chunk(2)[dist.get_rank()] for t in awkward_batch())
        F.mse_loss(model(x), y).backward()
        model.finish_gradient_sync()
        return {name: p.grad is not None for name, p in model.module.named_parameters()}

    for run in launch(grads, 2):
        assert run["sometimes"] and not run["never"] and not run["frozen.weight"]


def test_works_inside_a_group_and_ranks_count_within_it():
    def fn():
        groups = [dist.new_group([0, 1]), dist.new_group([2, 3])]
        group = groups[dist.get_rank() // 2]
        torch.manual_seed(dist.get_rank())
        model = DataParallel(nn.Linear(1, 1, bias=False), group)
        model(torch.full((1, 1), float(dist.get_rank()))).sum().backward()
        model.finish_gradient_sync()
        return model.module.weight.item(), model.module.weight.grad.item()

    run = launch(fn, 4)
    assert run[0] == run[1] and run[2] == run[3] and run[0][0] != run[2][0]
    assert run[0][1] == 0.5 and run[2][1] == 2.5


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: nn.Linear(2, 2 + dist.get_rank()), r"rank 1 has weight of shape \(3, 2\)"),
        (lambda: nn.Linear(2, 2, bias=dist.get_rank() == 0), "rank 1 has no bias where rank 0 has bias"),
        (
            lambda: nn.Linear(2, 2, dtype=[torch.float32, torch.float64][dist.get_rank()]),
            "float64 where rank 0",
        ),
        (lambda: nn.Linear(2, 2).requires_grad_(False), "nothing to average"),
    ],
)
def test_models_that_cannot_be_averaged_are_refused(build, words):
    with pytest.raises(RankError, match=words):
        launch(lambda: DataParallel(build()), 2)


def test_a_rank_outside_the_group_is_refused():
    def fn():
        group = dist.new_group([0])
        DataParallel(nn.Linear(1, 1), group)

    with pytest.raises(RankError, match="rank 1 is not in the group"):
        launch(fn, 2)


def test_output_does_not_depend_on_the_batch_mates():
    """What lets lesson 05 compare four slices with one batch; with norm="batch" it would not hold."""
    x = digits().train_x[:8]
    for norm, same in (("group", True), ("batch", False)):
        torch.manual_seed(0)
        model = ResNet(norm=norm)
        assert torch.allclose(model(x)[:4], model(x[:4]), atol=1e-5) == same
