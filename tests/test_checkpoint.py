"""Checkpoints: a run that moves from layout to layout keeps the curve of one process; a kill never leaves half a checkpoint."""

import os
import re
import signal
from functools import partial

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from course_lib import RankError, checkpoint, launch
from course_lib.checkpoint import save_load, shards
from course_lib.checkpoint.dcp_planners import boxes_of_flat
from course_lib.checkpoint.folder import found
from course_lib.data import text_batch
from course_lib.layout import Layout
from course_lib.models.gpt import GPT
from course_lib.parallel.hybrid import HybridParallel
from course_lib.schedules import interleaved, zb_v
from tests.tensor_cases import shaken

BATCH, CONTEXT, LEG, MAX_NORM = 24, 8, 2, 0.5
PIPELINE = {"zero": 1, "num_microbatches": 2}


def two_chunks(p, m):
    return interleaved(p, m, 2)


# Each leg goes on from the checkpoint of the one before it; the last writes for the first, so every layout is read and written.
LEGS = {
    "one rank": (Layout(), {}),
    "dp 2 × tp 2, ZeRO-3": (Layout(dp=2, tp=2), {"zero": 3}),
    "pp 2 × dp 2 × tp 2, ZeRO-1": (Layout(pp=2, dp=2, tp=2), PIPELINE),
    "dp 3, ZeRO-2": (Layout(dp=3), {"zero": 2}),
    "pp 2 × tp 2, both ends on one rank": (Layout(pp=2, tp=2), {"schedule": zb_v, "num_microbatches": 4}),
    "dp 3, ZeRO-3": (Layout(dp=3), {"zero": 3}),
    "pp 4, ZeRO-1": (Layout(pp=4), {"zero": 1, "num_microbatches": 4}),
    "dp 2 × cp 2, ZeRO-2": (Layout(dp=2, cp=2), {"zero": 2}),
    "pp 2 × dp 2, interleaved": (Layout(pp=2, dp=2), {"schedule": two_chunks, "num_microbatches": 4}),
    "tp 2 × cp 2, sequence parallel": (Layout(cp=2, tp=2), {"sequence_parallel": True}),
    "dp 2, ZeRO-1": (Layout(dp=2), {"zero": 1}),
    "one rank again": (Layout(), {}),
}  # fmt: skip


def build(**sizes):
    small = {"vocab_size": 64, "context": CONTEXT, "width": 24, "num_layers": 4, "num_heads": 4}
    return shaken(GPT(**small | sizes).double())


def batch(step):
    return tuple(tokens % 64 for tokens in text_batch(step, BATCH, CONTEXT))


def one_process(steps, **sizes):
    """(losses, weights)."""
    torch.manual_seed(0)
    model = build(**sizes)
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=0.01), []
    for step in range(steps):
        x, y = batch(step)
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        optimizer.step()
        losses.append(loss.item())
    return losses, model.state_dict()


def make(layout, options, **sizes):
    torch.manual_seed(dist.get_rank())
    return HybridParallel(build(**sizes), layout, max_norm=MAX_NORM, lr=0.01, **options)


def leg(number, layout, options, folder, sizes=None):
    """On a rank: train on from the newest checkpoint, and leave one. (losses, weights)"""
    hybrid = make(layout, options, **sizes or {})
    if number:
        assert checkpoint.load(hybrid, found(folder)[-1])["step"] == number * LEG
    losses = [hybrid.step(*batch(step)).item() for step in range(number * LEG, (number + 1) * LEG)]
    checkpoint.save(hybrid, folder, (number + 1) * LEG, {"layout": str(layout)})
    return losses, hybrid.full_state_dict()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("moving")


@pytest.fixture(scope="module")
def truth():
    return launch(one_process, 1, len(LEGS) * LEG)[0]


@pytest.mark.parametrize("name", LEGS)
def test_a_run_that_moves_from_layout_to_layout_keeps_the_curve_of_one_process(name, folder, truth):
    number, (layout, options) = list(LEGS).index(name), LEGS[name]
    run = launch(leg, layout.world_size, number, layout, options, folder)
    expected = truth[0][number * LEG : (number + 1) * LEG]
    assert max(abs(a - b) for losses, _ in run for a, b in zip(losses, expected, strict=True)) < 1e-10
    if number == len(LEGS) - 1:
        assert max((run[0][1][key] - whole).abs().max().item() for key, whole in truth[1].items()) < 1e-10


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_torchs_own_load_reads_it_in_one_process_without_a_group(folder, truth):
    """After the test above, whose last leg left its weights."""
    newest = found(folder)[-1]
    state = {f"model.{name}": torch.empty_like(t) for name, t in truth[1].items() if name != "head.weight"}
    state["optimizer.blocks.0.up.weight.step"] = torch.zeros(())
    dcp.load(state, checkpoint_id=newest, no_dist=True)
    assert max((state[f"model.{n}"] - t).abs().max().item() for n, t in truth[1].items() if n != "head.weight") < 1e-10
    assert state["optimizer.blocks.0.up.weight.step"] == len(LEGS) * LEG


ENDS = {
    "an untied head": {"tied": False},
    "a shared weight that the ends cut differently": {"vocab_size": 512, "num_layers": 2},
}


@pytest.mark.parametrize("what", ENDS)
def test_the_weights_at_the_two_ends_of_a_pipeline_are_kept(what, tmp_path):
    sizes = ENDS[what]
    first = launch(leg, 4, 0, Layout(pp=2, dp=2), PIPELINE, tmp_path, sizes)
    second = launch(leg, 2, 1, Layout(tp=2), {}, tmp_path, sizes)
    losses, weights = launch(partial(one_process, 2 * LEG, **sizes), 1)[0]
    assert max(abs(a - b) for a, b in zip(first[0][0] + second[0][0], losses, strict=True)) < 1e-10
    assert max((second[1][1][name] - whole).abs().max().item() for name, whole in weights.items()) < 1e-10


# --- folders -----------------------------------------------------------------------------------------------------------


def save_some(folder, steps):
    hybrid = make(Layout(dp=dist.get_world_size()), {"zero": 1})
    hybrid.step(*batch(0))
    for step in steps:
        checkpoint.save(hybrid, folder, step, {})
    return checkpoint.load(hybrid, found(folder)[-1])


def killed_while_saving(folder):
    """The last rank is killed when it is about to write the second checkpoint."""
    write = dcp.FileSystemWriter.write_data

    def write_data(self, plan, planner):
        if "step-00000009" in str(self.path) and dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return write(self, plan, planner)

    dcp.FileSystemWriter.write_data = write_data
    save_some(folder, [7, 9])


def test_a_kill_while_saving_leaves_the_checkpoint_before_and_the_next_one_clears_up(tmp_path):
    with pytest.raises(RankError, match="SIGKILL"):
        launch(killed_while_saving, 2, tmp_path)
    assert [path.name for path in found(tmp_path)] == ["step-00000007"]
    assert (tmp_path / "step-00000009.partial").is_dir()
    assert launch(save_some, 2, tmp_path, [8, 9, 10])[1]["step"] == 10
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000009", "step-00000010"]


OTHERS = {
    "fewer layers": ({"num_layers": 2}, "blocks.2.ln1.weight is (24,) in it and not there here"),
    "more layers": ({"num_layers": 5}, "blocks.4.ln1.weight is not there in it and (24,) here"),
    "another width": ({"width": 16}, "wte.weight is (64, 24) in it and (64, 16) here"),
    "a context of its own": ({"context": 16}, "wpe.weight is (8, 24) in it and (16, 24) here"),
}  # fmt: skip


def load_into(sizes, path):
    checkpoint.load(make(Layout(tp=2), {}, **sizes), path)


@pytest.mark.parametrize("what", OTHERS)
def test_the_checkpoint_of_another_model_is_refused_in_a_sentence_on_every_rank(what, folder):
    sizes, words = OTHERS[what]
    newest = found(folder)[-1]
    with pytest.raises(RankError, match=re.escape(words)) as caught:
        launch(load_into, 2, sizes, newest)
    assert all(end.how == "raised" for end in caught.value.ends)


def test_a_folder_that_a_machine_does_not_see_is_said(tmp_path):
    with pytest.raises(RankError, match="rank 0 does not see .*: give a folder that all machines share"):
        launch(load_into, 2, {}, tmp_path / "step-00000001")


# --- boxes -------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 5), max_size=3), st.data())
def test_boxes_hold_the_elements_in_order_and_no_others(shape, data):
    whole = torch.arange(max(1, torch.Size(shape).numel())).view(shape)
    start = data.draw(st.integers(0, whole.numel()))
    stop = data.draw(st.integers(start, whole.numel()))
    boxes = boxes_of_flat(shape, start, stop)
    found = [whole[tuple(slice(*side) for side in box)].reshape(-1) for box in boxes]
    assert torch.cat([torch.empty(0), *found]).tolist() == list(range(start, stop))
    assert len(boxes) <= max(1, 2 * len(shape) - 1)


# --- broken versions ---------------------------------------------------------------------------------------------------


def every_slice_is_a_whole(patch):
    patch.setattr(shards, "_held", lambda h, p, local, start, stop, values: shards.Held(
        shards._name(h, p), tuple(local), tuple((0, n) for n in local), start, stop, values))  # fmt: skip


BREAK = {
    "the slices of tensor parallel are taken for wholes": every_slice_is_a_whole,
    "the optimizer's state is left out": lambda m: m.setattr(save_load, "held_by_optimizer", lambda h: iter(())),
    "both ends write the shared weight": lambda m: m.setattr(save_load, "saved_by_another_stage", lambda h: None),
    "pieces begin at the first element": lambda m: m.setattr(
        shards, "boxes_of_flat", lambda shape, start, stop: boxes_of_flat(shape, 0, stop - start)
    ),
}  # fmt: skip


def broken_leg(how, number, layout, options, folder, sizes):
    with pytest.MonkeyPatch.context() as patch:
        BREAK[how](patch)
        return leg(number, layout, options, folder, sizes)


@pytest.mark.parametrize("how", BREAK)
def test_broken_versions_are_caught(how, tmp_path):
    sizes = ENDS["a shared weight that the ends cut differently"]
    first = LEGS["dp 2 × tp 2, ZeRO-3"] if "slices" in how else (Layout(pp=2, dp=2), PIPELINE)
    try:
        launch(broken_leg, 4, how, 0, *first, tmp_path, sizes)
        found = launch(broken_leg, 3, how, 1, *LEGS["dp 3, ZeRO-2"], tmp_path, sizes)[0][0]
    except RankError as error:
        assert re.search("overlapping chunks|invalid fill|of another model", str(error.__cause__))
    else:
        right = launch(partial(one_process, 2 * LEG, **sizes), 1)[0][0][LEG:]
        assert max(abs(a - b) for a, b in zip(found, right, strict=True)) > 1e-8
