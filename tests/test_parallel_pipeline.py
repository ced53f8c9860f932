"""Pipeline parallel: every schedule gives the loss and every gradient of one process, float64, another seed on every rank."""

import random

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from course_lib import Link, RankError, launch
from course_lib.data import text_batch
from course_lib.models.gpt import GPT
from course_lib.parallel import pipeline, stages
from course_lib.parallel.pipeline import run_pipeline
from course_lib.parallel.stages import cut, defer_weights, parameters_of, pipeline_stages, weight_gradients
from course_lib.schedules import dualpipe_v, gpipe, interleaved, one_f_one_b, parse, relay, zb_h1, zb_v
from course_lib.schedules.simulation import Costs, measured, simulate
from tests.test_schedules import random_legal

CONTEXT = 6


def schedules(p, m):
    made = [gpipe(p, m), one_f_one_b(p, m), zb_h1(p, m), zb_v(p, m)]
    if m % max(1, m // p) == 0:
        made.append(interleaved(p, m, 2))
    if m >= 2 * p:
        made.append(dualpipe_v(p, m))
    return made if m > 1 else [*made, relay(p)]


def build(tied):
    return GPT(64, CONTEXT, 8, num_layers=16, num_heads=2, tied=tied).double()


def batch(b):
    return tuple(tokens % 64 for tokens in text_batch(0, b, CONTEXT))


def token_loss(logits, tokens):
    return F.cross_entropy(logits.flatten(0, 1), tokens.flatten())


def one_process(tied, b):
    torch.manual_seed(0)
    model, (x, y) = build(tied), batch(b)
    loss = token_loss(model(x), y)
    loss.backward()
    grads = {name: p.grad for name, p in model.named_parameters(remove_duplicate=False)}
    return loss.item(), grads


def on_a_rank(schedule, tied, b):
    torch.manual_seed(dist.get_rank())
    mine, (x, y) = pipeline_stages(build(tied), schedule), batch(b)
    loss = run_pipeline(mine, x, y, token_loss, schedule.num_microbatches, schedule)
    grads = {name: p.grad for stage in mine.values() for name, p in stage.named_parameters(remove_duplicate=False)}
    return None if loss is None else loss.item(), grads


def differences(run, truth):
    """(of the loss, of the gradients, how many parameters lack one), the largest over all ranks."""
    loss, grads = truth
    losses = [found for found, _ in run if found is not None]
    named = {name for _, mine in run for name in mine}
    furthest = max((g - grads[name]).abs().max().item() for _, mine in run for name, g in mine.items())
    return max(abs(found - loss) for found in losses), furthest, len(grads.keys() - named)


@pytest.mark.parametrize("p", [1, 2, 3, 4, 8])
def test_every_schedule_gives_the_loss_and_the_gradients_of_one_process(p):
    counts = (1, 3, 2 * p) if p < 8 else (3, 16)
    cases = [(schedule, m % 2 == 0, 2 * m) for m in counts for schedule in schedules(p, m)]
    run = launch(lambda: [on_a_rank(*case) for case in cases], p)
    for number, (schedule, tied, b) in enumerate(cases):
        found = differences([rank[number] for rank in run], one_process(tied, b))
        assert max(found) <= 1e-10, f"{schedule.name}, p = {p}, m = {schedule.num_microbatches}: {found}"


def test_random_legal_schedules_run_too():
    made = [random_legal(3, 4, random.Random(seed)) for seed in range(12)]
    run = launch(lambda: [on_a_rank(schedule, True, 8) for schedule in made], 3)
    truth = one_process(True, 8)
    for number, schedule in enumerate(made):
        assert max(differences([rank[number] for rank in run], truth)) <= 1e-10, str(schedule)


def test_any_sequential_can_be_cut_and_shapes_change_on_the_way():
    def build():
        return nn.Sequential(
            nn.Linear(3, 7), nn.Tanh(), nn.Unflatten(1, (1, 7)), nn.Linear(7, 4), nn.Flatten(), nn.Linear(4, 2)
        ).double()

    x, y = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)

    def fn():
        torch.manual_seed(dist.get_rank())
        mine = pipeline_stages(build(), one_f_one_b(3, 3))
        run_pipeline(mine, x, y, F.mse_loss, 3, one_f_one_b(3, 3))
        return {name: p.grad for stage in mine.values() for name, p in stage.named_parameters(remove_duplicate=False)}

    torch.manual_seed(0)
    plain = build()
    F.mse_loss(plain(x), y).backward()
    found = {name: grad for rank in launch(fn, 3) for name, grad in rank.items()}
    assert found.keys() == dict(plain.named_parameters()).keys()
    for name, p in plain.named_parameters():
        assert (found[name] - p.grad).abs().max() < 1e-12


def test_several_steps_train_as_one_process_and_state_dicts_join_to_the_plain_one():
    def fn(p=None):
        torch.manual_seed(dist.get_rank())
        schedule = zb_v(dist.get_world_size(), 4)
        mine = pipeline_stages(build(True), schedule)
        optimizer = torch.optim.AdamW(parameters_of(mine), lr=0.01)
        for step in range(3):
            x, y = (tokens % 64 for tokens in text_batch(step, 8, CONTEXT))
            optimizer.zero_grad()
            run_pipeline(mine, x, y, token_loss, 4, schedule)
            optimizer.step()
        return {name: w for stage in mine.values() for name, w in stage.state_dict().items()}

    truth = launch(fn, 1)[0]
    joined = {name: w for rank in launch(fn, 4) for name, w in rank.items()}
    assert joined.keys() == truth.keys() == build(True).state_dict().keys()
    assert max((joined[name] - truth[name]).abs().max() for name in truth) < 1e-10


# --- broken on purpose ----------------------------------------------------------------------------------------------------


def loss_not_scaled():
    pipeline._Run._microbatches, plain = lambda self, *a: plain(self, *a), pipeline._Run._microbatches
    init = pipeline._Run.__init__

    def broken(self, stages, x, target, loss_fn, m, *rest):
        init(self, stages, x, target, lambda output, y: loss_fn(output, y) * m, m, *rest)

    pipeline._Run.__init__ = broken


def shared_weight_not_summed():
    pipeline._Run._sum_shared_weight = lambda self: None


def weight_gradients_forgotten():
    plain = pipeline.weight_gradients
    pipeline.weight_gradients = lambda later: plain(later[:-1])


def no_broadcast():
    stages.start_as_one = lambda model, group: None


@pytest.mark.parametrize(
    ("breaks", "schedule"),
    [
        (loss_not_scaled, gpipe(2, 4)),
        (shared_weight_not_summed, one_f_one_b(2, 4)),
        (weight_gradients_forgotten, zb_h1(2, 4)),
        (no_broadcast, gpipe(2, 4)),
    ],
)
def test_the_comparison_catches_broken_versions(breaks, schedule):
    def fn():
        breaks()
        loss, grads = on_a_rank(schedule, True, 8)
        return loss, {name: torch.zeros(1) if g is None else g for name, g in grads.items()}

    assert max(differences(launch(fn, 2), one_process(True, 8))) > 1e-6


# --- what it sends, when, and what it keeps -------------------------------------------------------------------------------


def test_messages_are_an_activation_and_its_gradient_for_each_micro_batch_and_border():
    schedule, b = one_f_one_b(4, 4), 8
    trace = launch(on_a_rank, 4, schedule, False, b).trace
    one = b // 4 * CONTEXT * 8 * 8  # (b/m, s, h) float64
    header = 10 * 8
    for rank, borders in ((0, (1, 0)), (1, (1, 1)), (3, (0, 1))):
        forward, back = borders
        assert trace.sent_bytes(rank) == 4 * one * (forward + back) + header * forward


def test_activations_of_1f1b_are_let_go_and_those_of_gpipe_pile_up():
    def fn(schedule):
        alive = []
        stage = nn.Linear(4, 4)
        stage.register_forward_hook(lambda *_: alive.append(len(run.live) + 1))
        init = pipeline._Run.__init__

        def noted(self, *args):
            nonlocal run
            run = self
            init(self, *args)

        run, pipeline._Run.__init__ = None, noted
        mine = {dist.get_rank(): stage}
        run_pipeline(mine, torch.ones(8, 4), torch.ones(8, 4), F.mse_loss, 8, schedule)
        return max(alive)

    for schedule in (gpipe(3, 8), one_f_one_b(3, 8)):
        assert launch(fn, 3, schedule).results == simulate(schedule).peak_activations


def test_a_split_backward_does_the_weights_in_w_and_all_else_in_i():
    torch.manual_seed(0)
    stage = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2)).double()
    x = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    stage(x).square().sum().backward()
    truth = [x.grad.clone(), *(p.grad.clone() for p in stage.parameters())]
    x.grad = None
    stage.zero_grad()
    deferring = defer_weights(stage)
    with deferring() as later:
        stage(x).square().sum().backward()
    assert torch.allclose(x.grad, truth[0]) and stage[0].weight.grad is None
    assert stage[1].weight.grad is not None and len(later) == 2
    weight_gradients(later)
    assert all(map(torch.allclose, (p.grad for p in stage.parameters()), truth[1:])) and not later


@pytest.mark.parametrize("schedule", [one_f_one_b(4, 6), zb_v(4, 8)])
def test_with_emulated_compute_a_run_lasts_as_long_as_its_simulation(schedule):
    costs = Costs(0.02, 0.04, message_s=0.01)

    def fn():
        parts = cut(nn.Sequential(*(nn.Linear(2, 2) for _ in range(schedule.num_stages))), schedule.num_stages)
        mine = {s: parts[s] for s, rank in schedule.rank_of.items() if rank == dist.get_rank()}
        x = torch.ones(2 * schedule.num_microbatches, 2)
        dist.barrier()
        run_pipeline(mine, x, x, F.mse_loss, schedule.num_microbatches, schedule, emulate=costs)

    trace = launch(fn, 4, link=Link(0.01, 1)).trace
    found, expected = measured(schedule, trace), simulate(schedule, costs)
    assert 0.99 < found.makespan_s / expected.makespan_s < 1.5  # a busy machine only ever adds
    for ran, planned in zip(found.times, expected.times, strict=True):
        assert all(at >= start - 1e-3 for (at, _), (start, _) in zip(ran, planned, strict=True))
    with pytest.raises(ValueError, match="did not run GPipe once"):
        measured(gpipe(4, 2), trace)
    assert "emulated compute" in trace.emulated


REFUSED = [
    (lambda: run_pipeline({}, None, None, F.mse_loss, 4, gpipe(3, 4)), r"GPipe is for 3 ranks, and the group has 2"),
    (lambda: run_pipeline({}, None, None, F.mse_loss, 3, gpipe(2, 4)), r"GPipe is for 4 micro-batches, not 3"),
    (lambda: run_pipeline({}, None, None, F.mse_loss, 4, gpipe(2, 4)), r"wants stages \[[01]\] here, not \[\]"),
    (lambda: run_pipeline({dist.get_rank(): nn.Linear(1, 1)}, None, torch.ones(4, 1), F.mse_loss, 4, gpipe(2, 4)), "rank 0 has stage 0 and needs x"),
    (lambda: run_pipeline({dist.get_rank(): nn.Linear(1, 1)}, torch.ones(6, 1), torch.ones(6, 1), F.mse_loss, 4, gpipe(2, 4)), "the batch of x is 6, which 4 ranks"),
    (lambda: pipeline_stages(GPT(num_layers=1), gpipe(2, 1)), "2 stages cannot be cut from 1 parts"),
    (lambda: pipeline_stages(nn.Linear(1, 1), gpipe(2, 1)), "a Linear cannot be cut"),
    (lambda: pipeline_stages(GPT(num_layers=2), gpipe(3, 1)), "GPipe is for 3 ranks, and the group has 2"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "words"), REFUSED)
def test_what_does_not_go_together_is_refused_in_a_sentence(call, words):
    with pytest.raises(RankError, match=words):
        launch(lambda: call() and None, 2, timeout_s=20)


def test_a_schedule_that_cannot_be_carried_out_is_explained_as_any_deadlock_is():
    stuck = parse("stuck", ["0F0 0B0 0F1 0B1", "1F1 1F0 1B0 1B1"])

    def fn():
        mine = {dist.get_rank(): nn.Linear(1, 1)}
        run_pipeline(mine, torch.ones(2, 1), torch.ones(2, 1), F.mse_loss, 2, stuck)

    with pytest.raises(RankError, match="stuck cannot be carried out"):
        launch(fn, 2, timeout_s=20)
