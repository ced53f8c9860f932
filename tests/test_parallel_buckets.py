"""What buckets change: how many messages, when they leave, and what happens when a step is cut into micro-batches."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from course_lib import RankError, launch, span
from course_lib.models.resnet import ResNet
from course_lib.parallel.buckets import fill_buckets
from course_lib.parallel.data import BucketedDataParallel, DataParallel
from tests.parallel_cases import Awkward, awkward_batch, furthest, resnet_batch, train


def parameters(*sizes, dtype=torch.float32):
    return [nn.Parameter(torch.zeros(size, dtype=dtype)) for size in sizes]


def sizes(buckets):
    return [[p.numel() for p in bucket] for bucket in buckets]


def test_buckets_are_filled_to_the_cap_in_bytes_and_never_beyond():
    assert sizes(fill_buckets(parameters(3, 2, 5, 1), 20)) == [[3, 2], [5], [1]]
    assert sizes(fill_buckets(parameters(3, 2, 5, 1), 19)) == [[3], [2], [5], [1]]
    assert sizes(fill_buckets(parameters(9, 1, 1), 20)) == [[9], [1, 1]]  # larger than the cap: alone
    assert sizes(fill_buckets(parameters(1, 1, 1, 1, 1), 16, first_bytes=4)) == [[1], [1, 1, 1, 1]]
    assert fill_buckets([], 16) == []


def test_dtypes_never_share_a_bucket():
    mixed = [*parameters(1), *parameters(2, dtype=torch.float64), *parameters(3), *parameters(4, dtype=torch.float64)]
    assert sizes(fill_buckets(mixed, 100)) == [[1, 3], [2, 4]]


class Mixed(nn.Module):
    """Half of it in float32, half in float64."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 5), nn.Linear(5, 4).double(), nn.Linear(4, 6)

    def forward(self, x):
        return self.c(self.b(self.a(x.float()).double()).float())


def test_mixed_dtypes_are_averaged_each_in_its_own():
    def fn(wrap):
        torch.manual_seed(dist.get_rank())
        model = wrap(Mixed())
        x, y = (t.chunk(2)[dist.get_rank()] for t in awkward_batch())
        F.mse_loss(model(x), y.float()).backward()
        model.finish_gradient_sync()
        return [p.grad for p in model.module.parameters()]

    naive, bucketed = launch(fn, 2, DataParallel)[0], launch(fn, 2, BucketedDataParallel)
    for rank in range(2):
        for ours, theirs in zip(bucketed[rank], naive, strict=True):
            assert ours.dtype == theirs.dtype and torch.allclose(ours, theirs, rtol=1e-5)


def accumulate(wrap, micro_batches, use_no_sync=True):
    """The gradients of one step in micro-batches, and after it those of a second one on top."""
    rank, n = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(rank)
    model = wrap(Awkward().double())
    x, y = (t.chunk(n)[rank] for t in awkward_batch())
    pieces = list(zip(x.chunk(micro_batches), y.chunk(micro_batches), strict=True))
    for step in range(2):
        for number, (inputs, targets) in enumerate(pieces):
            loss = F.mse_loss(model(inputs), targets) / micro_batches
            if use_no_sync and number < micro_batches - 1:
                with model.no_sync():
                    loss.backward()
            else:
                loss.backward()
        with span(f"sync {step}"):
            model.finish_gradient_sync()  # no zero_grad between the steps: the second adds to the first
    return {name: p.grad for name, p in model.module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("wrap", [DataParallel, BucketedDataParallel])
def test_micro_batches_without_sync_give_the_gradient_of_the_whole_batch(wrap):
    truth = launch(accumulate, 1, DataParallel, 1)[0]
    run = launch(accumulate, 3, wrap, 2)
    assert all(set(grads) == set(truth) for grads in run) and "sometimes" in truth
    assert furthest(run, truth) <= 1e-12


def test_nothing_is_sent_inside_no_sync():
    def fn(micro_batches):
        model = BucketedDataParallel(ResNet())
        x, y = resnet_batch()
        for _ in range(micro_batches - 1):
            with model.no_sync():
                F.cross_entropy(model(x.float()), y).backward()
        F.cross_entropy(model(x.float()), y).backward()
        model.finish_gradient_sync()

    one, four = (launch(fn, 2, micro_batches).trace for micro_batches in (1, 4))
    assert one.messages(0) == four.messages(0) and one.sent_bytes(0) == four.sent_bytes(0)


class Deep(nn.Module):
    """Six layers of one size."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*(nn.Linear(64, 64) for _ in range(6)))

    def forward(self, x):
        return self.layers(x)


@pytest.mark.parametrize("overlap", [True, False])
def test_buckets_leave_during_backward_if_and_only_if_they_overlap(overlap):
    def fn():
        model = BucketedDataParallel(Deep(), bucket_cap_mb=0.02, first_bucket_mb=0.02, overlap=overlap)
        with span("backward"):
            model(torch.randn(4, 64)).sum().backward()
        model.finish_gradient_sync()
        views = all(p.grad.untyped_storage().data_ptr() == b.flat.untyped_storage().data_ptr()
                    for b in model.buckets for p in b.parameters)  # fmt: skip
        return len(model.buckets), [b.bytes for b in model.buckets], views

    run = launch(fn, 2)
    num_buckets, num_bytes, views = run[0]
    assert num_buckets == 6 and views
    events = [e for e in run.trace.events if e.rank == 0]
    backward = next(e for e in events if e.is_span)
    sent = [e for e in events if e.operation == "all_reduce" and e.start_s >= backward.start_s]
    assert [e.nbytes for e in sent] == num_bytes
    early = [e for e in sent if e.start_s < backward.end_s]
    assert len(early) == (num_buckets if overlap else 0)


def two_backwards(model, x):
    model(x).sum().backward()
    model(x).sum().backward()


def two_losses_one_after_the_other(model, x):
    first, second = model(x).sum(), model(x).sum()
    first.backward()
    second.backward()


@pytest.mark.parametrize(
    ("misuse", "words"),
    [
        (two_backwards, "have not been synchronised. Call finish_gradient_sync"),
        (two_losses_one_after_the_other, r"a second backward reached a parameter of shape \(3,\)"),
    ],
)
def test_a_forgotten_sync_is_told(misuse, words):
    with pytest.raises(RankError, match=words):
        launch(lambda: misuse(BucketedDataParallel(nn.Linear(2, 3)), torch.ones(1, 2)), 2)


def test_evaluation_between_backward_and_sync_is_allowed():
    def fn():
        model = BucketedDataParallel(nn.Linear(2, 1))
        model(torch.ones(1, 2)).sum().backward()
        with torch.no_grad():
            model(torch.ones(1, 2))
        model.finish_gradient_sync()

    launch(fn, 2)


class NeverFlushed(BucketedDataParallel):
    def finish_gradient_sync(self):
        for bucket in self.buckets[: self._num_sent]:
            bucket.work.wait()
        for bucket in self.buckets:
            bucket.missing = set(bucket.parameters)
        self._num_sent = 0


class NoFlags(BucketedDataParallel):
    def _send(self, bucket, unused=()):
        super()._send(bucket, set(bucket.parameters))


class Sum(BucketedDataParallel):
    def _put(self, parameter, bucket):
        super()._put(parameter, bucket)
        parameter.grad *= self.world_size


@pytest.mark.parametrize("broken", [NeverFlushed, NoFlags, Sum])
def test_the_comparison_catches_broken_buckets(broken):
    truth = launch(train, 1, DataParallel, "awkward", "sgd")[0]
    assert furthest(launch(train, 2, broken, "awkward", "sgd"), truth) > 1e-6


def test_sizes_that_are_no_sizes_are_refused():
    with pytest.raises(RankError, match="numbers above 0"):
        launch(lambda: BucketedDataParallel(nn.Linear(1, 1), bucket_cap_mb=0), 1)
