"""The memory meter: cases small enough to count by hand, then a training step of the GPT, then real ranks."""

import gc
from contextlib import nullcontext
from dataclasses import replace

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from course_lib import launch
from course_lib.cost.memory import MemoryUse, training_state
from course_lib.data import text_batch
from course_lib.memory import MemoryMeter
from course_lib.models.gpt import GPT

WEIGHTS = 4 * (8 * 3 + 3)  # bytes of Linear(8, 3) in float32


def test_a_linear_layer_is_counted_by_hand():
    model, x = nn.Linear(8, 3), torch.randn(5, 8)
    optimizer = torch.optim.Adam(model.parameters())
    with MemoryMeter(model, optimizer) as meter:
        assert meter.now == MemoryUse(parameters=WEIGHTS), "x was there before: it does not count"
        y = model(x)  # (5, 3)
        assert meter.now == MemoryUse(WEIGHTS, activations=4 * 15)
        squares = y.square()
        loss = squares.sum()
        assert meter.now == MemoryUse(WEIGHTS, activations=4 * (15 + 15 + 1))
        del y, squares
        assert meter.now == MemoryUse(WEIGHTS, activations=4 * (15 + 1)), "the graph keeps y, and not its squares"
        loss.backward()
        del loss
        assert meter.now == MemoryUse(WEIGHTS, WEIGHTS)
        optimizer.step()
        state = 2 * WEIGHTS + 2 * 4  # two moments, and the step's number for each of the two parameters
        assert meter.now == MemoryUse(WEIGHTS, WEIGHTS, state)
        optimizer.zero_grad()
        assert meter.now == MemoryUse(WEIGHTS, 0, state)
    assert meter.peak_of.gradients == WEIGHTS and meter.peak_of.optimizer_state == state
    assert meter.now == MemoryUse(WEIGHTS, 0, state)


def test_the_peak_is_one_moment_and_peak_of_is_each_kinds_own():
    model = nn.Linear(8, 3, bias=False)
    with MemoryMeter(model) as meter:
        early = torch.zeros(1000)
        del early
        model(torch.ones(5, 8)).sum().backward()
        late = torch.zeros(990)
        del late
    weights = 4 * 24
    assert meter.peak == MemoryUse(weights, weights, 0, 3960)
    assert meter.peak_of == MemoryUse(weights, weights, 0, 4000), "the 4000 were not there together with the gradient"


def test_a_gradient_made_by_the_last_operation_of_the_block_is_seen():
    model = nn.Linear(8, 3)
    with MemoryMeter(model) as meter:
        model(torch.ones(5, 8)).sum().backward()
    assert meter.peak_of.gradients == WEIGHTS


def test_a_gradient_made_by_the_last_operation_is_seen_by_a_step_that_only_changes_in_place():
    model = nn.Linear(8, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with MemoryMeter(model, optimizer) as meter:
        model(torch.ones(5, 8)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert meter.peak_of.gradients == WEIGHTS and meter.now == MemoryUse(WEIGHTS)


def test_views_and_changes_in_place_add_nothing():
    with MemoryMeter() as meter:
        x = torch.zeros(6, 4)
        views = [x.T, x[1:], x.view(-1), x.detach(), x.chunk(2), x.expand(6, 4)]
        x += 1
        x[2:4].mul_(3)
        torch.add(x, 1, out=x)
        assert meter.now.activations == 4 * 24
        del x
        assert meter.now.activations == 4 * 24, "one view keeps all of it"
        del views
        assert meter.now.activations == 0
    assert meter.peak_of.activations == 4 * 24


def test_what_was_there_before_counts_only_as_what_it_is_for():
    model, data = nn.Linear(8, 3), torch.zeros(1000, 8)
    model.register_buffer("counts", torch.zeros(10, dtype=torch.int64))
    model(data).sum().backward()
    with MemoryMeter(model) as meter:
        rows = data[:5]
        data.add_(1)
        assert meter.now == MemoryUse(WEIGHTS + 80, WEIGHTS) and rows.shape == (5, 8)
        made = [torch.tensor([1.0, 2.0]), rows.double()]
        assert meter.now.activations == 8 + 5 * 8 * 8 and made


def test_a_tensor_in_a_cycle_counts_until_it_is_collected():
    gc.disable()
    try:
        with MemoryMeter() as meter:
            cycle = [torch.zeros(100)]
            cycle.append(cycle)
            del cycle
            assert meter.now.activations == 400
            gc.collect()
            assert meter.now.activations == 0
    finally:
        gc.enable()


def test_a_storage_counts_at_the_size_it_has_now():
    weight = nn.Parameter(torch.ones(100))
    model = nn.ParameterList([weight])
    with MemoryMeter(model) as meter:
        other = torch.zeros(50)
        assert meter.now == MemoryUse(400, activations=200)
        weight.untyped_storage().resize_(0)
        other.untyped_storage().resize_(0)
        assert meter.now == MemoryUse()
        weight.untyped_storage().resize_(400)
        other.untyped_storage().resize_(200)
        weight.detach().copy_(torch.ones(100))
        assert meter.now == MemoryUse(400, activations=200)
    assert meter.peak == MemoryUse(400, activations=600)


def test_a_storage_of_two_kinds_counts_once_and_as_the_first():
    flat = torch.ones(20)
    tied = nn.Linear(4, 4, bias=False)
    tied.weight = nn.Parameter(flat[:16].view(4, 4))
    model = nn.Sequential(tied, tied)
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)
    tied.weight.grad = torch.ones(4, 4)
    optimizer.state[tied.weight]["momentum_buffer"] = tied.weight.grad
    optimizer.state[tied.weight]["others"] = None
    assert MemoryMeter(model, optimizer).now == MemoryUse(80, 64)


class ShardedModel(nn.Linear):
    """Says itself what it holds, as a model does that gathers its parameters and lets go of them."""

    pieces = ()

    def held_parameters(self):
        return [self.weight]

    def held_gradients(self):
        return list(self.pieces)


class ShardedSGD(torch.optim.SGD):
    pieces = ()

    def gradient_shards(self):
        return list(self.pieces)


def test_a_model_and_an_optimizer_can_say_what_they_hold():
    model = ShardedModel(8, 3)
    optimizer = ShardedSGD(model.parameters())
    plain, whole = nn.Linear(8, 3), 4 * 24
    with MemoryMeter(model, optimizer) as meter, MemoryMeter(plain, optimizer) as of_plain:
        model.pieces, optimizer.pieces = [torch.zeros(7)], [torch.zeros(5), torch.zeros(6)]
        assert meter.now == MemoryUse(whole, 4 * (7 + 5 + 6))
        plain(torch.zeros(2, 8)).sum().backward()
        assert of_plain.now.gradients == WEIGHTS + 4 * (5 + 6)


def gpt_step(meter, model, optimizer, batch=2):
    """The bytes after each part of a step."""
    with meter:
        x, y = text_batch(0, batch, 64)
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        forward = meter.now
        loss.backward()
        del loss, x, y
        backward = meter.now
        optimizer.step()
        step = meter.now
        optimizer.zero_grad()
    return forward, backward, step


def small_gpt():
    torch.manual_seed(0)
    model = GPT(width=32, num_layers=2)
    return model, torch.optim.Adam(model.parameters(), foreach=True)


def test_adam_on_a_gpt_holds_sixteen_bytes_a_parameter():
    model, optimizer = small_gpt()
    count = sum(p.numel() for p in model.parameters())
    predicted = training_state(count, world_size=1, stage=0)
    assert predicted.total == (4 + 4 + 8) * count
    meter = MemoryMeter(model, optimizer)
    forward, backward, step = gpt_step(meter, model, optimizer)
    steps = 4 * len(list(model.parameters()))  # Adam counts its steps, a number for each parameter
    assert step == replace(predicted, optimizer_state=predicted.optimizer_state + steps)
    assert backward == replace(predicted, optimizer_state=0), "all activations were freed"
    assert forward.activations > 0 and forward.gradients == 0
    assert meter.peak.total >= max(forward.total, backward.total, step.total)


def test_activations_grow_with_the_batch_and_nothing_else_does():
    model, optimizer = small_gpt()
    gpt_step(MemoryMeter(model, optimizer), model, optimizer)  # from here on the optimizer has its state
    use = [gpt_step(MemoryMeter(model, optimizer), model, optimizer, batch)[0] for batch in (2, 3, 4)]
    assert use[2].activations - use[1].activations == use[1].activations - use[0].activations > 0
    assert len({replace(u, activations=0) for u in use}) == 1


def test_measuring_changes_no_result():
    results = []
    for metered in (False, True):
        model, optimizer = small_gpt()
        meter = MemoryMeter(model, optimizer) if metered else nullcontext()
        for step in range(2):
            x, y = text_batch(step, 2, 64)
            with meter:
                F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
                optimizer.step()
                optimizer.zero_grad()
        results.append(list(model.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


# --- on ranks


def measure_a_rank():
    rank = dist.get_rank()
    before = torch.ones(100)
    with MemoryMeter() as meter:
        made = torch.ones(50 * (rank + 1))
        for tensor in (before, made[:50]):
            dist.all_reduce(tensor)
        gathered = torch.empty(200)
        dist.all_gather_single(gathered, before)
        work = dist.all_reduce(gathered, async_op=True)
        work.wait()
        now = meter.now
    return now.activations, before.tolist()


def test_each_rank_counts_its_own_and_collectives_write_where_they_are_told():
    run = launch(measure_a_rank, 2)
    for rank in range(2):
        assert run[rank] == (4 * (50 * (rank + 1) + 200), [2.0] * 100)
