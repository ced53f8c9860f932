"""Hybrid parallel: every layout of eight ranks trains as one process does, in float64, from another seed on every rank."""

from functools import cache, partial
from itertools import product

import pytest
import torch
import torch.distributed as dist
from torch.nn import functional as F

from course_lib import RankError, launch
from course_lib.data import text_batch
from course_lib.layout import Layout
from course_lib.models.gpt import GPT
from course_lib.parallel import data, hybrid, pipeline, stages, tensor, tensor_model
from course_lib.parallel.data import BucketedDataParallel
from course_lib.parallel.hybrid import HybridParallel
from course_lib.schedules import gpipe, interleaved, zb_h1, zb_v
from tests.tensor_cases import shaken

STEPS, BATCH, CONTEXT, MAX_NORM = 2, 16, 8, 0.5
OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    "adamw": (torch.optim.AdamW, {"lr": 0.01}),
}
SIZES = [(pp, dp, tp) for pp, dp, tp in product((1, 2, 4, 8), repeat=3) if pp * dp * tp == 8]
CASES = [(Layout(pp, dp, 1, tp), zero) for pp, dp, tp in SIZES for zero in range(4) if zero < 2 or pp == 1]
WITH_CONTEXT = [
    (Layout(cp=2, tp=2), 0),
    (Layout(dp=2, cp=2), 1),
    (Layout(dp=2, cp=2, tp=2), 3),
    (Layout(pp=2, cp=2), 1),
    (Layout(pp=2, cp=2, tp=2), 0),
    (Layout(pp=2, dp=2, cp=2), 1),
]
CUBE = Layout(pp=2, dp=2, tp=2)


def build(layers, tied):
    return shaken(GPT(64, CONTEXT, 32, num_layers=layers, num_heads=8, tied=tied).double())


def batch(step):
    return tuple(tokens % 64 for tokens in text_batch(step, BATCH, CONTEXT))


@cache
def one_process(optimizer, layers, tied):
    """(losses, norms, weights), the truth."""
    torch.manual_seed(0)
    model = build(layers, tied)
    cls, options = OPTIMIZERS[optimizer]
    stepper, losses, norms = cls(model.parameters(), **options), [], []
    for step in range(STEPS):
        x, y = batch(step)
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        stepper.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM).item())
        stepper.step()
        losses.append(loss.item())
    return losses, norms, model.state_dict()


def on_a_rank(layout, optimizer, layers, tied, options):
    torch.manual_seed(dist.get_rank())
    cls, of_optimizer = OPTIMIZERS[optimizer]
    model = build(layers, tied)
    trained = HybridParallel(model, layout, cls, max_norm=MAX_NORM, **options, **of_optimizer)
    losses, norms = [], []
    for step in range(STEPS):
        losses.append(trained.step(*batch(step)).item())
        norms.append(trained.grad_norm.item())
    return losses, norms, trained.full_state_dict()


def distance(layout, optimizer="adamw", layers=4, tied=True, num_microbatches=2, **options):
    """The largest difference of a loss, a norm or a weight on any rank from one process."""
    options["num_microbatches"] = num_microbatches
    run = launch(on_a_rank, layout.world_size, layout, optimizer, layers, tied, options)
    true_losses, true_norms, true_weights = one_process(optimizer, layers, tied)
    found = []
    for losses, norms, weights in run:
        assert weights.keys() == true_weights.keys()
        found += [abs(a - b) for a, b in zip(losses + norms, true_losses + true_norms, strict=True)]
        found += [(weights[name] - whole).abs().max().item() for name, whole in true_weights.items()]
    return max(found)


def name(value):
    return str(value) if isinstance(value, Layout) else f"zero {value}"


@pytest.mark.parametrize(("layout", "zero"), CASES + WITH_CONTEXT, ids=name)
def test_every_layout_trains_as_one_process_does(layout, zero):
    number = layout.pp + layout.dp + zero  # a bit of everything: not every option with every layout
    found = distance(
        layout,
        optimizer=("sgd", "adamw")[number % 2],
        layers=max(4, layout.pp),
        tied=number % 3 > 0,
        zero=zero,
        sequence_parallel=layout.tp > 1 and (layout.tp + zero) % 4 > 0,
    )
    assert found < 1e-10


SCHEDULES = {"gpipe": gpipe, "interleaved": partial(interleaved, v=2), "zb_h1": zb_h1, "zb_v": zb_v}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_trains_as_one_process_does(schedule):
    options = {"num_microbatches": 4, "zero": 1, "sequence_parallel": True}
    assert distance(CUBE, schedule=SCHEDULES[schedule], **options) < 1e-10


BREAK = {
    "gradients are not averaged along dp": lambda m: m.setattr(BucketedDataParallel, "finish_gradient_sync", lambda self: None),
    "ranks start from their own weights": lambda m: [m.setattr(module, "start_as_one", lambda *_: None) for module in (stages, data, tensor_model, tensor)],
    "the norm counts copies": lambda m: m.setattr(HybridParallel, "_copies_of", lambda self, *_: 1),
    "the norm is this rank's own": lambda m: m.setattr(hybrid, "clip_shards_", _own_norm),
    "the norm counts a shared weight twice": lambda m: m.setattr(HybridParallel, "_copies_of", lambda self, name, p, of=HybridParallel._copies_of: of(self, name, None)),
    "every copy has the same rows": lambda m: m.setattr(HybridParallel, "_part_of_this_rank", lambda self, x: x[: len(x) // 2]),
    "the shared weight's gradients are not added": lambda m: m.setattr(pipeline._Run, "_sum_shared_weight", lambda self: None),
    "the loss is one copy's": lambda m: m.setattr(HybridParallel, "_mean_of_all_ranks", lambda self, loss: loss if loss is not None else self.parameters[0].sum()),
}  # fmt: skip


def _own_norm(gradients, max_norm, *_):
    return torch.nn.utils.get_total_norm(gradients)


@pytest.mark.parametrize("how", BREAK)
def test_broken_versions_are_caught(how):
    def broken():
        with pytest.MonkeyPatch.context() as patch:
            BREAK[how](patch)
            return on_a_rank(CUBE, "sgd", 4, True, {"num_microbatches": 2})

    losses, norms, weights = one_process("sgd", 4, True)
    run = launch(broken, 8)
    off = [abs(a - b) for got in run for a, b in zip(got[0] + got[1], losses + norms, strict=True)]
    off += [(got[2][n] - whole).abs().max().item() for got in run for n, whole in weights.items()]
    assert max(off) > 1e-6


REFUSED = {
    "another number of ranks": (Layout(dp=4), {}, "the layout dp 4 has 4 ranks, and this job 2"),
    "zero 2 with a pipeline": (Layout(pp=2), {"zero": 2}, "take zero = 1, or pp = 1"),
    "no such stage of zero": (Layout(dp=2), {"zero": 4}, "zero is 4: it must be 0, 1, 2 or 3"),
    "rows that do not split": (Layout(dp=2), {"num_microbatches": 3}, "12 or 18 would do"),
    "more stages than layers": (Layout(pp=2), {"layers": 1}, "2 stages cannot be cut from 1 parts"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_is_refused_in_a_sentence(what):
    layout, options, words = REFUSED[what]
    options = dict(options)
    layers = options.pop("layers", 2)
    with pytest.raises(RankError, match=words):
        launch(on_a_rank, 2, layout, "sgd", layers, True, options)
