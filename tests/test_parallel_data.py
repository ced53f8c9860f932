"""Data parallel, naive and in buckets, must train exactly as one process does: float64, several world sizes, a different seed on every rank."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from course_lib import RankError, launch
from course_lib.data import digits
from course_lib.models.resnet import ResNet
from course_lib.parallel.data import BucketedDataParallel, DataParallel, average_gradients
from tests.parallel_cases import MODELS, OPTIMIZERS, SIZES, Awkward, awkward_batch, furthest, train


def one_message(module, group=None):
    return BucketedDataParallel(module, group, overlap=False)


def many_messages(module, group=None):
    return BucketedDataParallel(module, group, bucket_cap_mb=0.01, first_bucket_mb=1e-4)


WRAPS = {"naive": DataParallel, "one bucket": one_message, "many buckets": many_messages}


def train_with_each(model_name, optimizer_name):
    some = WRAPS if dist.get_world_size() == 3 else ["naive", "many buckets"]
    return {name: train(WRAPS[name], model_name, optimizer_name) for name in some}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", MODELS)
def test_equals_one_process(model, optimizer):
    truth = launch(train, 1, DataParallel, model, optimizer)[0]
    untouched = launch(train, 1, DataParallel, model, optimizer, 0)[0]
    assert furthest([untouched], truth) > 1e-3, "training must change the weights, or the comparison shows nothing"
    for n in SIZES:
        run = launch(train_with_each, n, model, optimizer)
        for name in run[0]:
            assert furthest([states[name] for states in run], truth) <= 1e-10, f"{name}, {n} ranks"


class InSixLines(DataParallel):
    def finish_gradient_sync(self):
        average_gradients(self.module, self.group)


@pytest.mark.parametrize("n", SIZES)
def test_averaging_in_six_lines_is_data_parallel(n):
    truth = launch(train, 1, DataParallel, "resnet", "sgd")[0]
    assert furthest(launch(train, n, InSixLines, "resnet", "sgd"), truth) <= 1e-10


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
        (lambda: nn.Linear(2, 2, dtype=[torch.float32, torch.float64][dist.get_rank()]), "float64 where rank 0"),
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
