"""What ShardedOptimizer promises beside equal weights: memory, bytes on the wire, overlap, manners, clear refusals."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from course_lib import RankError, launch, span
from course_lib.models.gpt import GPT
from course_lib.models.resnet import ResNet
from course_lib.parallel.zero import ShardedOptimizer

STAGES = [False, True]  # of shard_gradients
NUM_LAYERS, LAYER_BYTES = 16, 33 * 32 * 4


def stack():
    return nn.Sequential(*[nn.Linear(32, 32) for _ in range(NUM_LAYERS)])


def state_bytes(optimizer_of, build):
    """On a rank: how much an optimizer's state holds after a step."""
    parameters = [*build().parameters()]
    optimizer = optimizer_of(parameters)
    for p in parameters:
        p.grad = torch.ones_like(p)
    optimizer.step()
    tensors = [t for values in optimizer.state.values() for t in values.values()]
    return sum(storage.nbytes() for storage in {t.untyped_storage() for t in tensors})


def ordinary_adamw(params):
    return torch.optim.AdamW(params)


def sharded_adamw(params):
    return ShardedOptimizer(params, torch.optim.AdamW, bucket_cap_mb=0.01)


def is_spread(bytes_by_rank, whole_bytes):
    n = len(bytes_by_rank)
    return sum(bytes_by_rank) <= 1.1 * whole_bytes and max(bytes_by_rank) <= 1.2 * whole_bytes / n


@pytest.mark.parametrize("model", [ResNet, GPT])
def test_each_rank_holds_its_part_of_the_state(model):
    whole_bytes = launch(state_bytes, 1, ordinary_adamw, model)[0]
    for n in (2, 4):
        assert is_spread(launch(state_bytes, n, sharded_adamw, model).results, whole_bytes), n
    assert not is_spread(launch(state_bytes, 2, ordinary_adamw, model).results, whole_bytes)


def by_kind(params):
    return [{"params": [p for p in params if p.dim() == dim]} for dim in (1, 2)]


def live_gradient_bytes(optimizer, params):
    """Of whole gradients: in p.grad, and in messages; and of shards."""
    messages = [t for b in optimizer._buckets for t in (b._whole, b._received) if t is not None]
    whole = {t.untyped_storage() for t in [*(p.grad for p in params if p.grad is not None), *messages]}
    return sum(s.nbytes() for s in whole), sum(t.nbytes for t in optimizer.gradient_shards())


@pytest.mark.parametrize("in_groups", [False, True])
def test_zero_2_never_holds_all_gradients(in_groups):
    def fn(shard_gradients):
        model = stack()
        params = [*model.parameters()]
        groups = by_kind(params) if in_groups else params
        optimizer = ShardedOptimizer(
            groups, torch.optim.AdamW, shard_gradients=shard_gradients, bucket_cap_mb=LAYER_BYTES / 2**20
        )
        during = []
        for p in params:
            p.register_post_accumulate_grad_hook(lambda p: during.append(live_gradient_bytes(optimizer, params)[0]))
        for _ in range(2):  # the second accumulates
            model(torch.ones(1, 32)).sum().backward()
        return max(during), *live_gradient_bytes(optimizer, params)

    all_bytes = NUM_LAYERS * LAYER_BYTES
    for peak, after, shards in launch(fn, 4, True):
        assert peak <= 4 * LAYER_BYTES and after == 0 and shards == all_bytes / 4
    for peak, after, shards in launch(fn, 4, False):  # so the measure can see whole gradients
        assert peak == after == all_bytes and shards == 0


def test_zero_2_sends_buckets_while_backward_runs():
    def fn():
        model = stack()
        settings = {"shard_gradients": True, "bucket_cap_mb": 0.01}
        ShardedOptimizer(model.parameters(), torch.optim.SGD, **settings)  # gone at once: takes no gradient
        optimizer = ShardedOptimizer(model.parameters(), torch.optim.SGD, **settings)
        model[0].register_full_backward_pre_hook(lambda *_: enter(span("first layer")))
        model(torch.ones(1, 32)).sum().backward()
        assert len(optimizer.gradient_shards()) == 8

    def enter(part):
        part.__enter__()

    run = launch(fn, 2)
    first_layer = min(e.start_s for e in run.trace.events if e.is_span)
    sent = [e.start_s for e in run.trace.of(rank=0, operation="all_to_all_single").events]
    assert sum(start < first_layer for start in sent) >= 5


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("n", [2, 4])
def test_a_step_sends_twice_the_model(n, stage):
    def fn():
        model = stack()
        optimizer = ShardedOptimizer(model.parameters(), torch.optim.AdamW, shard_gradients=stage, bucket_cap_mb=0.01)
        dist.barrier()
        model(torch.ones(1, 32)).sum().backward()
        optimizer.step()

    trace = launch(fn, n).trace
    psi = NUM_LAYERS * LAYER_BYTES
    for rank in range(n):
        events = trace.of(rank=rank).events
        first = 1 + max(i for i, e in enumerate(events) if e.operation == "barrier")
        handed_in = {}
        for event in events[first:]:
            handed_in[event.operation] = handed_in.get(event.operation, 0) + event.nbytes
        assert handed_in.pop("all_to_all_single") == psi  # of which (n-1)/n leave the rank
        assert handed_in.pop("all_gather_single") == psi / n  # to n-1 others
        assert handed_in == {"all_reduce": 32}  # whether a tensor was used


@pytest.mark.parametrize("stage", STAGES)
def test_gradients_that_are_zeroed_and_not_dropped_count_as_zeros(stage):
    """As with the ordinary optimizer: momentum moves the weights on, and a step without zero_grad repeats the gradient."""

    def steps(optimizer, model):
        model(torch.ones(1, 3, dtype=torch.float64)).sum().backward()
        optimizer.step()
        optimizer.step()
        optimizer.zero_grad(set_to_none=False)
        optimizer.step()
        optimizer.zero_grad()
        optimizer.step()  # nothing has a gradient: nothing moves
        return model.weight.detach()

    def fn():
        model = build_linear()
        settings = {"lr": 0.1, "momentum": 0.9}
        return steps(ShardedOptimizer(model.parameters(), torch.optim.SGD, shard_gradients=stage, **settings), model)

    def build_linear():
        torch.manual_seed(0)
        return nn.Linear(3, 2, dtype=torch.float64)

    model = build_linear()
    truth = steps(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), model)
    for weight in launch(fn, 2):
        assert (weight - truth).abs().max() <= 1e-12


def test_works_inside_a_group_and_with_two_dtypes():
    def fn():
        groups = [dist.new_group([0, 1]), dist.new_group([2, 3])]
        params = [nn.Parameter(torch.full((3,), float(dist.get_rank()), dtype=d)) for d in DTYPES]
        optimizer = ShardedOptimizer(params, torch.optim.SGD, group=groups[dist.get_rank() // 2], lr=1.0)
        sum((p * dist.get_rank()).sum() for p in params).backward()
        norm = optimizer.clip_grad_norm_(float("inf"))
        optimizer.step()
        return [p.tolist() for p in params], norm.item()

    DTYPES = torch.float32, torch.float64, torch.bfloat16
    for rank, (values, norm) in enumerate(launch(fn, 4)):
        start, gradient = [(0.0, 0.5), (2.0, 2.5)][rank // 2]
        assert values == [[start - gradient] * 3] * 3 and norm == pytest.approx(3 * gradient)


def sgd(params, **more):
    return ShardedOptimizer(params, torch.optim.SGD, lr=0.1, **more)


def backward_after_clip():
    model = nn.Linear(2, 2)
    optimizer = sgd(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.clip_grad_norm_(1.0)
    model(torch.ones(1, 2)).sum().backward()


def unfrozen_later():
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    optimizer = sgd(model.parameters())
    model.bias.requires_grad_(True)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()


def two_on_one_model():
    model = nn.Linear(2, 2)
    both = [sgd(model.parameters(), shard_gradients=True) for _ in range(2)]
    model(torch.ones(1, 2)).sum().backward()
    return both


def load_another():
    model = nn.Linear(2, 2)
    state = torch.optim.SGD([model.weight]).state_dict()
    sgd(model.parameters()).load_state_dict(state)


@pytest.mark.parametrize(
    ("misuse", "words"),
    [
        (lambda: sgd(nn.Linear(2, 2).parameters()).step(lambda: 0.0), "a closure would have to run backward"),
        (lambda: sgd(nn.Linear(2, 2).requires_grad_(False).parameters()), "nothing to optimize"),
        (
            lambda: sgd(nn.Linear(2, 2 + dist.get_rank()).parameters()),
            r"rank 1 has parameter 0 .* of shape \(3, 2\), float32 where",
        ),
        (
            lambda: sgd(nn.Linear(2, 2, bias=dist.get_rank() < 1).parameters()),
            r"rank 1 has no parameter 1 \(group 0\) where rank 0 has parameter 1",
        ),
        (
            lambda: sgd([torch.ones(2).requires_grad_(dist.get_rank() < 1)]),
            "rank 1 has parameter 0 .* not trained where rank 0",
        ),
        (lambda: sgd(nn.Linear(2, 2).parameters()).add_param_group({"params": []}), "laid out already"),
        (lambda: sgd(nn.Linear(2, 2).parameters(), group=dist.new_group([0])), "rank 1 is not in the group"),
        (backward_after_clip, "a backward after clip_grad_norm_"),
        (unfrozen_later, "was frozen has a gradient"),
        (two_on_one_model, "another ShardedOptimizer"),
        (load_another, "doesn't match the size"),
    ],
)
def test_misuse_is_refused(misuse, words):
    with pytest.raises(RankError, match=words):
        launch(lambda: misuse() and None, 2, timeout_s=10)
