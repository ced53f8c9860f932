"""ShardedOptimizer must train exactly as its ordinary optimizer does in one process: float64, another seed on every rank."""

from contextlib import nullcontext
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from course_lib import launch
from course_lib.parallel import sharded_bucket
from course_lib.parallel.sharded_bucket import ShardedBucket
from course_lib.parallel.zero import ShardedOptimizer
from tests import parallel_cases
from tests.parallel_cases import BATCH, SIZES, awkward_batch, furthest

STAGES = [False, True]  # of shard_gradients
OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    "adamw": (torch.optim.AdamW, {"lr": 0.01}),
}


MODELS = {
    **parallel_cases.MODELS,
    "tiny": (lambda: nn.Linear(6, 1, bias=False), lambda: (awkward_batch()[0], torch.ones(BATCH, 1)), F.mse_loss),
}


def groups_of(model):
    """Matrices and the rest, in two groups with their own settings."""
    matrices = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() <= 1]
    return [{"params": matrices, "weight_decay": 0.1}, {"params": rest, "lr": 0.03, "weight_decay": 0.0}]


def train(optimizer, model, model_name, rank, n, *, steps=4, num_microbatches=1, clip=None, schedule=False, first=0):
    """Train on the rank-th n-th of the batch, each step scaled otherwise; returns the norms that clipping gave."""
    _, batch, loss_fn = MODELS[model_name]
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5) if schedule else None
    x, y = (t.chunk(n)[rank] for t in batch())
    norms = []
    for step in range(first, first + steps):
        for part_x, part_y in zip(x.chunk(num_microbatches), y.chunk(num_microbatches)):
            loss = loss_fn(model(part_x), part_y) / num_microbatches
            (loss * (1 + step)).backward()
        if clip and isinstance(optimizer, ShardedOptimizer):
            norms.append(optimizer.clip_grad_norm_(clip))
        elif clip:
            norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), clip))
        optimizer.step()
        optimizer.zero_grad()
        if schedule:
            scheduler.step()
    return torch.stack(norms) if norms else torch.zeros(1)


# name: model, optimizer, whether in groups, how to train, bucket cap in MB
CASES = {
    **{f"resnet {o}": ("resnet", o, False, {"steps": 2}, 0.05) for o in OPTIMIZERS},
    **{f"awkward {o}": ("awkward", o, False, {}, 25.0) for o in OPTIMIZERS},
    "awkward, tiny buckets": ("awkward", "sgd", False, {}, 0.0),
    "tiny": ("tiny", "adamw", False, {}, 25.0),
    "gpt": ("gpt", "adamw", False, {"clip": 0.1}, 0.005),
    "gpt, groups": ("gpt", "adamw", True, {"schedule": True}, 0.005),
    "awkward, groups": ("awkward", "adamw", True, {"schedule": True, "num_microbatches": 2, "clip": 0.3}, 0.0002),
    "micro-batches": ("awkward", "sgd", True, {"num_microbatches": 2}, 25.0),
}


def build(model_name, seed):
    torch.manual_seed(seed)
    model = MODELS[model_name][0]().double()
    for buffer in model.buffers():  # the optimizer leaves them to the caller
        buffer.fill_(0.5)
    return model


def one_process(case):
    model_name, optimizer_name, in_groups, how, _ = CASES[case]
    model = build(model_name, 0)
    optimizer_cls, settings = OPTIMIZERS[optimizer_name]
    optimizer = optimizer_cls(groups_of(model) if in_groups else model.parameters(), **settings)
    norms = train(optimizer, model, model_name, 0, 1, **how)
    return {**model.state_dict(), "norms": norms}


def sharded(case, shard_gradients):
    """On a rank: the same, every rank with another seed."""
    model_name, optimizer_name, in_groups, how, cap = CASES[case]
    rank, n = dist.get_rank(), dist.get_world_size()
    model = build(model_name, rank)
    optimizer_cls, settings = OPTIMIZERS[optimizer_name]
    params = groups_of(model) if in_groups else model.parameters()
    optimizer = ShardedOptimizer(params, optimizer_cls, shard_gradients=shard_gradients, bucket_cap_mb=cap, **settings)
    norms = train(optimizer, model, model_name, rank, n, **how)
    return {name: t.clone() for name, t in model.state_dict().items()} | {"norms": norms}


@pytest.fixture(scope="module")
def truths():
    return launch(lambda: {case: one_process(case) for case in CASES}, 1)[0]


def test_cases_train_and_clip(truths):
    """Else the comparisons below would show nothing."""
    for case, (model_name, _, _, how, _) in CASES.items():
        before = build(model_name, 0).state_dict()
        assert furthest([before], {name: truths[case][name] for name in before}) > 1e-3, case
        assert "clip" not in how or truths[case]["norms"].max() > how["clip"]
    untouched = build("awkward", 0).never
    assert torch.equal(truths["awkward adamw"]["never"], untouched), "nobody uses it: not even decay moves it"


@pytest.mark.parametrize("n", SIZES)
def test_equals_one_process(n, truths):
    run = launch(lambda: {(c, s): sharded(c, s) for c in CASES for s in STAGES}, n)
    for case in CASES:
        for stage in STAGES:
            states = [results[case, stage] for results in run]
            assert furthest(states, truths[case]) <= 1e-10, f"{case}, shard_gradients={stage}"


class Done:
    def wait(self):
        pass


def sum_not_mean(bucket, receive=ShardedBucket.receive):
    before = 0 if bucket.shard is None else bucket.shard.clone()
    receive(bucket)
    bucket.shard.sub_(before).mul_(dist.get_world_size()).add_(before)


def own_gradient_alone(bucket, receive=ShardedBucket.receive):
    bucket._received[:] = bucket._whole[bucket._own].repeat(dist.get_world_size())
    bucket._work = Done()
    receive(bucket)


def last_microbatch_alone(bucket, receive=ShardedBucket.receive):
    bucket.shard = None
    receive(bucket)


BROKEN = {
    "no initial broadcast": lambda: mock.patch.object(sharded_bucket.dist, "broadcast"),
    "no gather after the step": lambda: mock.patch.object(ShardedBucket, "gather", lambda self: Done()),
    "sum, not mean": lambda: mock.patch.object(ShardedBucket, "receive", sum_not_mean),
    "no reduction": lambda: mock.patch.object(ShardedBucket, "receive", own_gradient_alone),
    "no accumulation": lambda: mock.patch.object(ShardedBucket, "receive", last_microbatch_alone),
}


def test_the_comparison_catches_broken_versions(truths):
    def fn():
        results = {}
        for name, patch in {"whole": nullcontext, **BROKEN}.items():
            with patch():
                results[name] = sharded("micro-batches", True)
        return results

    run = launch(fn, 2)
    assert furthest([results["whole"] for results in run], truths["micro-batches"]) <= 1e-10
    for name in BROKEN:
        assert furthest([results[name] for results in run], truths["micro-batches"]) > 1e-6, name


def go_on(saved, optimizer_name, shard_gradients, steps, first):
    """On a rank: take over a saved training, go on, and save it again."""
    rank, n = dist.get_rank(), dist.get_world_size()
    model, optimizer_state = build("awkward", rank), None
    optimizer_cls, settings = OPTIMIZERS[optimizer_name]
    if saved is not None:
        model_state, optimizer_state = saved
        model.load_state_dict(model_state)
        settings = {**settings, "lr": 77.0}  # the saved one must win
    optimizer = ShardedOptimizer(groups_of(model), optimizer_cls, shard_gradients=shard_gradients, **settings)
    if optimizer_state is not None:
        optimizer.load_state_dict(optimizer_state)
    train(optimizer, model, "awkward", rank, n, steps=steps, first=first)
    return {name: t.clone() for name, t in model.state_dict().items()}, optimizer.state_dict()


def ordinary(saved, optimizer_name, steps, first):
    model = build("awkward", 0)
    optimizer_cls, settings = OPTIMIZERS[optimizer_name]
    optimizer = optimizer_cls(groups_of(model), **settings)
    if saved is not None:
        model.load_state_dict(saved[0])
        optimizer.load_state_dict(saved[1])
    train(optimizer, model, "awkward", 0, 1, steps=steps, first=first)
    return {name: t.clone() for name, t in model.state_dict().items()}, optimizer.state_dict()


def assert_same_state(one, other):
    assert one["param_groups"] == other["param_groups"]
    assert one["state"].keys() == other["state"].keys()
    for i, values in one["state"].items():
        assert values.keys() == other["state"][i].keys()
        for name, value in values.items():
            assert value.shape == other["state"][i][name].shape
            assert value.dtype == other["state"][i][name].dtype
            assert (value - other["state"][i][name]).abs().max() <= 1e-10, (i, name)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("stage", STAGES)
def test_state_is_the_ordinary_optimizers_and_moves_between_any_numbers_of_ranks(optimizer, stage):
    half, whole = ordinary(None, optimizer, 2, 0), ordinary(None, optimizer, 4, 0)
    run = launch(go_on, 2, None, optimizer, stage, 2, 0)
    for _, optimizer_state in run:
        assert_same_state(optimizer_state, half[1])
    finished = [
        ordinary(run[1], optimizer, 2, 2),  # sharded, then ordinary
        *launch(go_on, 3, run[0], optimizer, stage, 2, 2),  # from two ranks to three
        *launch(go_on, 2, half, optimizer, stage, 2, 2),  # ordinary, then sharded
    ]
    assert furthest([state for state, _ in finished], whole[0]) <= 1e-10
    for _, state in finished:
        assert_same_state(state, whole[1])
