"""FullyShardedDataParallel must train as one process does, while no rank ever holds the whole model."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from course_lib import RankError, launch
from course_lib.layout import Shard, shard_shape
from course_lib.models.gpt import GPT
from course_lib.models.resnet import ResNet
from course_lib.parallel import sharded
from course_lib.parallel.data import DataParallel
from course_lib.parallel.fsdp_collectives import Reduction
from course_lib.parallel.sharded import FullyShardedDataParallel
from tests.parallel_cases import (
    MODELS,
    OPTIMIZERS,
    SIZES,
    Awkward,
    awkward_batch,
    furthest,
    gpt_batch,
    small_gpt,
    token_loss,
    train,
)


def each_by_itself(module):
    return FullyShardedDataParallel(module, prefetch=False, bucket_cap_mb=0)


WRAPS = {"prefetch": FullyShardedDataParallel, "each by itself": each_by_itself}


def train_with_each(model, optimizer):
    some = WRAPS if dist.get_world_size() == 3 else ["prefetch"]  # an odd size for the rarer way: one is enough
    return {name: train(WRAPS[name], model, optimizer) for name in some}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("model", MODELS)
def test_equals_one_process(model, optimizer):
    truth = launch(train, 1, DataParallel, model, optimizer)[0]
    for n in SIZES:
        run = launch(train_with_each, n, model, optimizer)
        for name in run[0]:
            states = [states[name] for states in run]
            assert all(set(state) == set(truth) for state in states)
            assert furthest(states, truth) <= 1e-10, f"{name}, {n} ranks"


class NoReduction(FullyShardedDataParallel):
    """Every rank keeps its own gradient of its own rows."""

    def _backward_is_over(self, call, gradients):
        super()._backward_is_over(call, gradients)
        for reduction in self._reductions:
            reduction.finish = lambda r=reduction: own(r)


def own(reduction):
    reduction.received = reduction.sent
    Reduction.finish(reduction)


class Sum(FullyShardedDataParallel):
    def finish_gradient_sync(self):
        super().finish_gradient_sync()
        for p in self.parameters():
            if p.grad is not None:
                p.grad *= dist.get_world_size()


class OutOfDate(FullyShardedDataParallel):
    """Never forgets what it has prefetched, and prefetches the first unit of the next step."""

    def _forget_prefetched(self):
        self._coming.setdefault(self.units[0], self._new_call(self.units[0]))


class NoFirstBroadcast(FullyShardedDataParallel):
    def __init__(self, module):
        before, sharded.start_as_one = sharded.start_as_one, lambda module, group: None
        super().__init__(module)
        sharded.start_as_one = before


@pytest.mark.parametrize("broken", [NoReduction, Sum, OutOfDate, NoFirstBroadcast])
def test_the_comparison_catches_broken_versions(broken):
    truth = launch(train, 1, DataParallel, "gpt", "sgd")[0]
    assert furthest(launch(train, 2, broken, "gpt", "sgd"), truth) > 1e-6


def test_gradients_have_the_shape_of_the_shard_and_absent_ones_stay_absent():
    def fn():
        model = FullyShardedDataParallel(Awkward().double())
        rank, n = dist.get_rank(), dist.get_world_size()
        x, y = (t.chunk(n)[rank] for t in awkward_batch())
        F.mse_loss(model(x), y).backward()
        model.finish_gradient_sync()
        return {
            name: (tuple(p.shape), None if p.grad is None else tuple(p.grad.shape))
            for name, p in model.module.named_parameters()
        }

    whole = {name: p.shape for name, p in Awkward().named_parameters()}
    run = launch(fn, 3)
    for rank, shapes in enumerate(run):
        assert set(shapes) == set(whole)
        for name, (shard, gradient) in shapes.items():
            assert shard == shard_shape(whole[name] or (1,), Shard(0), 3, rank)
            assert gradient == (None if name == "never" or name.startswith("frozen") else shard)


def peaks(prefetch, bucket_cap_mb):
    """On a rank: bytes of the shards, of the largest unit, and the most that parameters ever took."""
    model = FullyShardedDataParallel(
        GPT(vocab_size=32, context=16, width=64, num_layers=4, num_heads=4),
        prefetch=prefetch,
        bucket_cap_mb=bucket_cap_mb,
    )
    seen = []

    def look(*_):
        seen.append(sum(t.untyped_storage().nbytes() for t in model.held_parameters()))

    for module in model.modules():
        if not isinstance(module, nn.ModuleList):
            module.register_forward_hook(look)
            module.register_full_backward_pre_hook(look)
    shards = look() or seen[-1]
    unit = max(sum(piece.size for piece in unit.pieces) for unit in model.units) * 4 * dist.get_world_size()
    tokens = torch.randint(32, (4, 17))
    for _ in range(3):
        token_loss(model(tokens[:, :-1]), tokens[:, 1:]).backward()
        model.finish_gradient_sync()
    look()
    return shards, unit, max(seen), seen[-1]


@pytest.mark.parametrize(
    ("prefetch", "bucket_cap_mb", "units"), [(False, 0, 1), (False, 1, 2), (True, 0, 2), (True, 1, 2)]
)
def test_parameters_never_take_more_than_the_shard_and_the_units_in_use(prefetch, bucket_cap_mb, units):
    whole = sum(p.nbytes for p in GPT(vocab_size=32, context=16, width=64, num_layers=4).parameters())
    for n in (2, 4):
        for shards, unit, peak, after in launch(peaks, n, prefetch, bucket_cap_mb):
            assert whole / n <= shards <= 1.02 * whole / n
            assert shards + unit * 0.9 < peak <= shards + units * unit
            assert after == shards, "everything gathered is free again"


def test_the_optimizer_keeps_state_for_the_shards_alone():
    def fn(wrap):
        build, batch, loss_fn = MODELS["resnet"]
        model = wrap(build().double())
        optimizer = torch.optim.AdamW(model.parameters())
        x, y = batch()
        loss_fn(model(x), y).backward()
        model.finish_gradient_sync()
        optimizer.step()
        tensors = [t for state in optimizer.state.values() for t in state.values()]
        return sum(t.nbytes for t in tensors if t.dim())

    whole = launch(fn, 1, DataParallel)[0]
    assert whole == 2 * 8 * 33946
    for n in (2, 4):
        held = list(launch(fn, n, FullyShardedDataParallel))
        assert sum(held) <= 1.1 * whole and max(held) <= 1.2 / n * whole
    assert sum(launch(fn, 2, DataParallel)) == 2 * whole  # and the measure sees what is not sharded


def test_three_times_the_parameters_are_sent():
    def fn(steps):
        torch.manual_seed(0)
        model = FullyShardedDataParallel(ResNet(widths=(16, 64)).double())
        x, y = MODELS["resnet"][1]()
        for _ in range(steps):
            F.cross_entropy(model(x), y).backward()
            model.finish_gradient_sync()

    n, psi = 4, sum(p.nbytes for p in ResNet(widths=(16, 64)).double().parameters())
    two, three = (launch(fn, n, steps).trace for steps in (2, 3))
    sent = {}
    for sign, trace in ((-1, two), (1, three)):
        for event in trace.events:
            if event.rank == 0:
                sent[event.operation] = sent.get(event.operation, 0) + sign * event.nbytes
    sent = {operation: nbytes for operation, nbytes in sent.items() if nbytes}
    assert set(sent) == {"all_gather_single", "all_to_all_single"}
    assert 2 * psi <= n * sent["all_gather_single"] <= 2.1 * psi  # each rank hands in its n-th, once a pass
    assert psi <= sent["all_to_all_single"] <= 1.1 * psi


def test_clipping_is_by_the_norm_of_the_whole_gradient():
    def fn(wrap):
        build, batch, loss_fn = MODELS["resnet"]
        torch.manual_seed(0)
        model = wrap(build().double())
        x, y = (t.chunk(dist.get_world_size())[dist.get_rank()] for t in batch())
        loss_fn(model(x), y).backward()
        model.finish_gradient_sync()
        if wrap is DataParallel:
            norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        else:
            norm = model.clip_grad_norm_(0.1)
        squares = torch.stack([(p.grad**2).sum() for p in model.parameters()]).sum()
        if wrap is not DataParallel:
            dist.all_reduce(squares)
        return {"norm": norm, "after": squares.sqrt()}

    truth = launch(fn, 1, DataParallel)[0]
    assert truth["norm"] > 0.2
    assert furthest(launch(fn, 3, FullyShardedDataParallel), truth) <= 1e-12


def step_in_micro_batches(wrap, micro_batches):
    """On a rank: one step of SGD in micro-batches, looking at the model in between; the weights after it."""
    rank, n = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(rank)
    model = wrap(small_gpt().double())
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    x, y = (t.chunk(n)[rank] for t in gpt_batch())
    for inputs, targets in zip(x.chunk(micro_batches), y.chunk(micro_batches), strict=True):
        (token_loss(model(inputs), targets) / micro_batches).backward()
        if wrap is not DataParallel:
            model.finish_gradient_sync()
        with torch.no_grad():
            model(inputs[:1])
    if wrap is DataParallel:
        model.finish_gradient_sync()
    optimizer.step()
    with torch.no_grad():
        logits = model(gpt_batch()[0])
    state = model.full_state_dict() if wrap is not DataParallel else model.module.state_dict()
    return {"logits": logits} | {name: t.detach() for name, t in state.items()}


class LastMicroBatchAlone(FullyShardedDataParallel):
    def finish_gradient_sync(self):
        for p in self.parameters():
            p.grad = None
        super().finish_gradient_sync()


def test_micro_batches_add_up_and_evaluation_in_between_changes_nothing():
    truth = launch(step_in_micro_batches, 1, DataParallel, 1)[0]
    assert furthest(launch(step_in_micro_batches, 2, FullyShardedDataParallel, 3), truth) <= 1e-10
    assert furthest(launch(step_in_micro_batches, 2, LastMicroBatchAlone, 3), truth) > 1e-6


def test_low_precision_compute_keeps_shards_and_gradients_in_full_precision():
    def fn(dtype):
        rank, n = dist.get_rank(), dist.get_world_size()
        torch.manual_seed(rank)
        model = FullyShardedDataParallel(ResNet(), compute_dtype=dtype)
        x, y = (t.chunk(n)[rank] for t in MODELS["resnet"][1]())
        output = model(x.float())
        F.cross_entropy(output.float(), y).backward()
        model.finish_gradient_sync()
        kinds = {p.dtype for p in model.parameters()} | {p.grad.dtype for p in model.parameters()}
        return output.dtype, kinds, torch.cat([p.grad.flatten() for p in model.parameters()])

    low, full = launch(fn, 2, torch.bfloat16), launch(fn, 2, None)
    for rank in range(2):
        assert low[rank][0] == torch.bfloat16 and low[rank][1] == {torch.float32}
        similar = torch.cosine_similarity(low[rank][2], full[rank][2], dim=0)
        assert 0.98 < similar < 1 - 1e-7
    halves = [sum(e.nbytes for e in run.trace.events if "single" in e.operation) for run in (low, full)]
    assert 0.45 < halves[0] / halves[1] < 0.55


def test_a_full_state_goes_into_another_number_of_ranks():
    def save():
        torch.manual_seed(5)
        return FullyShardedDataParallel(Awkward().double()).full_state_dict()

    def load(state):
        model = FullyShardedDataParallel(Awkward().double())
        model.load_full_state_dict(state)
        return model.full_state_dict()

    state = launch(save, 2)[0]
    assert furthest(launch(load, 3, state), state) == 0
    state["first.weight"] = state["first.weight"][1:]
    with pytest.raises(RankError, match=r"first.weight has shape \(4, 6\) in the state and \(5, 6\) here"):
        launch(load, 2, state)


def test_a_forgotten_sync_is_told():
    def fn():
        model = FullyShardedDataParallel(nn.Linear(2, 3))
        model(torch.ones(1, 2)).sum().backward()
        model(torch.ones(1, 2))

    with pytest.raises(RankError, match="have not been synchronised. Call finish_gradient_sync"):
        launch(fn, 2)


class Checkpointed(nn.Module):
    """Layers that backward would run again, by themselves."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))

    def forward(self, x):
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=False)
        return x


@pytest.mark.parametrize("n", [1, 2])
def test_a_part_that_runs_outside_the_models_forward_is_refused(n):
    def fn():
        FullyShardedDataParallel(Checkpointed())(torch.ones(2, 8)).sum().backward()

    with pytest.raises(RankError, match="ran outside the model's own forward"):
        launch(fn, n)
