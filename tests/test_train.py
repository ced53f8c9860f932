"""`course train`: a run goes on after a kill, on any layout, along the same curve."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from course_lib import launch
from course_lib.checkpoint.folder import about, found
from course_lib.cli import main
from course_lib.data import text_batch
from course_lib.models.gpt import GPT
from course_lib.train.loop import train
from course_lib.train.options import Options
from tests.ranks_helpers import descendants, is_alive
from tests.test_two_nodes import SIZES, line

STEPS = 6
SMALL = Options(**SIZES, heads=4, steps=STEPS, warmup=2, seed=3)


def one_process(options):
    """The losses, by plain PyTorch."""
    torch.manual_seed(options.seed)
    model = GPT(256, options.context, options.width, options.layers, options.heads).double()
    optimizer, losses = torch.optim.AdamW(model.parameters()), []
    for step in range(options.steps):
        x, y = text_batch(options.seed * 1_000_000 + step, options.batch, options.context)
        optimizer.param_groups[0]["lr"] = options.lr_at(step)
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), options.max_norm)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.fixture(scope="module")
def truth():
    return one_process(SMALL)


def furthest(losses, truth):
    return max(abs(a - b) for a, b in zip(losses, truth, strict=True))


# --- the command -------------------------------------------------------------------------------------------------------

RESUMED = [
    ["--tp", "2", "--dp", "2", "--zero", "3"],
    ["--ranks", "1"],
    ["--pp", "2", "--schedule", "zb-h1", "--zero", "1"],
    ["--ranks", "8", "--tp", "2", "--sequence-parallel", "--pp", "2"],
    ["--cp", "2", "--zero", "2", "--ranks", "4"],
]


def test_a_run_interrupted_four_times_goes_on_along_the_curve_of_one_process(tmp_path, truth, capfd):
    arguments = line(**{name: getattr(SMALL, name) for name in (*SIZES, "warmup", "seed")})
    for number, layout in enumerate(RESUMED):
        more = ["--steps", str(STEPS), "--checkpoint", str(tmp_path), "--every", "1", "--resume"]
        stop_at = number + 1 if number < len(RESUMED) - 1 else None
        assert stopping(stop_at, ["train", *arguments, *more, *layout]) == (1 if stop_at else 0)
    output = capfd.readouterr()
    assert "no checkpoint in" in output.out and "going on from" in output.out
    assert f"{found(tmp_path)[-2]} is complete" not in output.err and "add --resume to the same command" in output.err
    kept = about(found(tmp_path)[-1])
    assert kept["step"] == STEPS and furthest(kept["losses"], truth) < 1e-10
    assert len(found(tmp_path)) == 2


def stopping(at, arguments):
    """`course …` in which the last rank raises after so many steps."""
    from course_lib.train import start

    def on_a_rank(options, backend):
        def after_step(step):
            if step == at and dist.get_rank() == dist.get_world_size() - 1:
                raise RuntimeError("pulled the plug")

        import torch.distributed as dist

        train(options, "cpu", options.resume, after_step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(start, "on_a_rank", on_a_rank)
        return main(arguments)


@pytest.mark.skipif(sys.platform != "linux", reason="finds the ranks in /proc")
@pytest.mark.parametrize("how", ["a rank is killed", "Ctrl-C"])
def test_a_job_that_loses_a_rank_or_is_interrupted_ends_within_seconds_and_leaves_no_process(how, tmp_path):
    options = SIZES | {"steps": 100_000, "every": 5, "checkpoint": tmp_path}
    command = [sys.executable, "-m", "course_lib.train", *line(**options, tp=2, dp=2)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        wait_until(lambda: found(tmp_path), 60)
        started = descendants(process.pid)
        os.kill(*((started[-1], signal.SIGKILL) if how == "a rank is killed" else (process.pid, signal.SIGINT)))
        begin = time.monotonic()
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert time.monotonic() - begin < 10
    assert len(started) >= 5 and not wait_until(lambda: not any(map(is_alive, started)), 5)
    assert process.returncode == (1 if how == "a rank is killed" else 130)
    assert ("SIGKILL" in err) == (how == "a rank is killed")
    assert "GPT of" in out and "is complete: add --resume" in err.splitlines()[-1]


def wait_until(is_so, within_s):
    """None once it is; otherwise the test fails."""
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline, f"not so after {within_s} s"
        time.sleep(0.02)


def test_the_loss_falls_with_the_arguments_left_at_their_defaults_on_four_ranks():
    options = Options()
    run = launch(train, options.wanted_ranks, replace(options, steps=40), timeout_s=120)
    assert options.wanted_ranks == 4
    assert 5.2 < run[0]["losses"][0] < 5.8 and sum(run[3]["losses"][-5:]) / 5 < 3.2


def test_a_complete_run_that_is_resumed_only_says_so(tmp_path, capfd):
    arguments = ["train", *line(**SIZES, steps=2, checkpoint=tmp_path, ranks=1), "--resume"]
    assert main(arguments) == main(arguments) == 0
    assert "step-00000002 has all of its 2 steps: --steps asks for more" in capfd.readouterr().out
    assert main([*arguments, "--steps", "3", "--lr", "0.1"]) == 0
    assert "another curve than before, for --steps was 2, --lr was 0.003" in capfd.readouterr().out


# --- on a GPU ----------------------------------------------------------------------------------------------------------


@pytest.mark.gpu
def test_on_a_gpu_it_trains_over_nccl_along_the_same_curve_and_its_checkpoint_goes_on_without_one(tmp_path, truth):
    options = line(**SIZES, warmup=2, seed=3, checkpoint=tmp_path)
    assert main(["train", *options, "--ranks", "1", "--steps", "6", "--every", "3", "--backend", "nccl"]) == 0
    assert furthest(about(found(tmp_path)[-1])["losses"], truth) < 1e-8
    shutil.rmtree(found(tmp_path)[-1])
    assert main(["train", *options, "--ranks", "2", "--steps", "6", "--resume", "--backend", "gloo"]) == 0
    assert furthest(about(found(tmp_path)[-1])["losses"], truth) < 1e-8


@pytest.mark.gpu
def test_on_every_gpu_there_is_each_kind_of_cut_that_nccl_can_do_gives_the_same_losses(tmp_path, truth):
    n = torch.cuda.device_count()
    for number, (cut, why_not) in enumerate((
        (["--zero", "1"], 8 % n), (["--zero", "3"], 8 % n), (["--tp", str(n)], 4 % n),
    )):  # fmt: skip
        if why_not == 0:
            options = line(**SIZES, warmup=2, seed=3, steps=STEPS, checkpoint=tmp_path / str(number))
            assert main(["train", *options, *cut, "--ranks", str(n), "--backend", "nccl"]) == 0
            assert furthest(about(found(tmp_path / str(number))[-1])["losses"], truth) < 1e-8
