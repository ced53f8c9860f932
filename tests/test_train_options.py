"""What `course train` refuses, what it computes of its options, and what it shows."""

import argparse
import re
from io import StringIO

import pytest

from course_lib.cli import main
from course_lib.layout import Layout
from course_lib.train.loop import flops_per_token
from course_lib.train.options import MODEL, Options, add_arguments, check, options_from
from course_lib.train.progress import MARK, Progress, Screen, curve
from tests.test_train import SMALL
from tests.test_two_nodes import line
from tests.two_nodes import ROOT

# --- what is refused ---------------------------------------------------------------------------------------------------

WRONG = {
    "--pp 2 --zero 2": "--zero 2 does not go with --pp 2: take --zero 1, or --pp 1.",
    "--heads 6 --width 100": "--width, 100, is not divisible by --heads, 6: 96 or 102 would do.",
    "--tp 3 --dp 1": "--heads, 4, is not divisible by --tp, 3: 3 or 6 would do.",
    "--batch 6 --dp 4": "--batch, 6, is not divisible by dp 4 × 1 micro-batches, 4: 4 or 8 would do.",
    "--batch 10 --pp 2": "--batch, 10, is not divisible by dp 2 × 4 micro-batches, 8: 8 or 16 would do.",
    "--ranks 6 --tp 4": "6 ranks cannot form pp 1 × cp 1 × tp 4, which takes 4 for each copy: 4 or 8 would do.",
    "--ranks 4 --dp 3": "change --dp or leave it out.",
    "--pp 4 --layers 3": "--layers 3 are too few for the 4 stages of 1F1B: take more layers.",
    "--pp 2 --schedule zb-v --layers 3": "--layers 3 are too few for the 4 stages of ZB-V",
    "--schedule 1f2b": "no schedule is called '1f2b': take one of GPipe, 1F1B",
    "--pp 2 --schedule dualpipe-v --microbatches 2": "DualPipeV needs at least 2p = 4 micro-batches",
    "--sequence-parallel": "it needs --tp of 2 or more",
    "--cp 4 --context 12": "--context, 12, is not divisible by 2 × --cp, 8: 8 or 16 would do.",
    "--resume": "--resume needs --checkpoint DIR",
    "--zero 4": "--zero is 4: take one of 0, 1, 2, 3.",
    "--dtype int8": "--dtype is int8: take one of float32, float64, bfloat16.",
    "--dp 0": "--dp is 0: it must be at least 1.",
    "--lr 0": "--lr is 0.0: it must be above 0.",
    "--order dp,pp --tp 2": "it names each axis of more than one rank once",
    "--ranks 300": "300 ranks are too many for one machine: take up to 256, or torchrun.",
    "--backend mpi": "--backend is mpi: take one of gloo, nccl.",
}  # fmt: skip


@pytest.mark.parametrize("arguments", WRONG)
def test_what_cannot_be_trained_is_refused_in_a_sentence_before_any_process_starts(arguments, capsys, monkeypatch):
    monkeypatch.setattr("course_lib.launch", lambda *_, **__: pytest.fail("ranks were started"))
    assert main(["train", *arguments.split()]) == 2
    error = capsys.readouterr().err
    assert error.startswith("course train: ") and error.count("\n") == 1 and WRONG[arguments] in error


@pytest.mark.parametrize("page", ["README.md", "docs/train.slurm"])
def test_every_line_that_a_page_shows_can_be_trained(page):
    text = (ROOT / page).read_text("utf-8").replace("\\\n", "")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    lines = re.findall(
        r"(?m)^(torchrun .*course_lib\.train|course train|# .*sbatch docs/train\.slurm)( --[^#\n]*)?", text
    )
    assert lines
    for program, arguments in lines:
        options = options_from(parser.parse_args(arguments.split()))
        is_here = program == "course train"
        check(options, options.wanted_ranks if is_here else 16)  # two nodes of eight, in both pages


@pytest.mark.parametrize("axis", ["pp", "cp"])
def test_what_sends_its_messages_one_by_one_is_refused_over_nccl(axis, capsys, monkeypatch):
    monkeypatch.setattr("course_lib.train.start.choose_backend", lambda *_: ("nccl", "as if there were GPUs"))
    assert main(["train", f"--{axis}", "2"]) == 2
    assert f"Take --backend gloo, or --{axis} 1." in capsys.readouterr().err


@pytest.mark.parametrize("arguments, words", [
    ([], "holds a run that is at step 2: add --resume to go on with it, or name another folder."),
    (["--resume", "--layers", "3"], "is of a model with --layers 2, not 3: give the same, or name another folder."),
])  # fmt: skip
def test_a_folder_with_checkpoints_is_never_written_over(arguments, words, tmp_path, capsys):
    newest = tmp_path / "step-00000002"
    newest.mkdir()
    (tmp_path / "step-00000004.partial").mkdir()
    text = str({"step": 2, **SMALL.as_json()}).replace("'", '"')
    (newest / "about.json").write_text(text)
    model = line(**{name: getattr(SMALL, name) for name in MODEL})
    assert main(["train", "--checkpoint", str(tmp_path), *model, *arguments]) == 2
    assert words in capsys.readouterr().err


# --- what is computed --------------------------------------------------------------------------------------------------


def test_the_layout_is_what_the_ranks_leave():
    assert Options(tp=2).layout(8) == Layout(dp=4, tp=2)
    assert (Options().wanted_ranks, Options(tp=3).wanted_ranks, Options(dp=3, pp=2).wanted_ranks) == (4, 3, 6)
    assert check(Options(pp=2, tp=2), 16) == Layout(pp=2, dp=4, tp=2)


def test_the_learning_rate_warms_up_and_falls_to_a_tenth_as_a_function_of_the_step():
    options = Options(lr=1.0, warmup=10, steps=110)
    assert [options.lr_at(step) for step in (0, 4, 9, 10)] == [0.1, 0.5, 1.0, 1.0]
    assert options.lr_at(60) == pytest.approx(0.55) and options.lr_at(109) == pytest.approx(0.1, abs=1e-3)
    assert all(options.lr_at(step) > options.lr_at(step + 1) for step in range(10, 109))


def test_flops_are_six_for_each_parameter_in_a_matrix_and_those_of_attention():
    o = Options()
    matrices = 12 * o.layers * o.width**2 + 256 * o.width
    assert flops_per_token(o) == 6 * matrices + 12 * o.layers * o.context * o.width


# --- what is shown -----------------------------------------------------------------------------------------------------


def test_the_curve_goes_down_as_the_loss_does():
    text = curve([4.0 - step / 100 for step in range(200)], width=40, height=5).splitlines()
    assert text[0].startswith("  3.98 │•") and text[4].startswith("  2.03 │") and text[4].endswith("•")
    assert text[5].count("─") == 40 and text[-1].strip() == "steps 1 to 200"
    assert "•" in curve([1.0]) and "•" in curve([2.0, 2.0])
    assert curve([float("nan")] * 3).count("•") == 0 and curve([1.0, 0.5, float("nan")]).count("•") == 2


def test_speed_is_said_as_mfu_only_where_the_peak_is_known():
    progress = Progress(SMALL, Layout(dp=2), 1000, flops_per_token=1e6, peak=1e10)
    assert progress.speed(5000) == "5,000 tokens/s  MFU 50.0 %"
    progress.peak = None
    assert progress.speed(5000) == "5,000 tokens/s  5.0 GFLOP/s"
    assert "3/6 ██████████░░░░░░░░░░ loss 2.500  5,000 tokens/s  5.0 GFLOP/s  1:02:03 left" in progress.line(
        3, 2.5, 5000, 3723
    )


@pytest.mark.parametrize("terminal", [True, False])
def test_on_a_terminal_each_line_of_progress_takes_the_place_of_the_one_before(terminal):
    stream = StringIO()
    stream.isatty = lambda: terminal
    screen = Screen(stream)
    for text in ("[rank 0] hello\n", f"[rank 0] {MARK}1/9\n", f"[rank 0] {MARK}2/9\n[rank 0] done\n"):
        screen.write(text)
    expected = "hello\n\rstep 1/9\rstep 2/9\ndone\n" if terminal else "hello\nstep 1/9\nstep 2/9\ndone\n"
    assert stream.getvalue() == expected
