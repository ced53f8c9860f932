"""launch: results, output, arguments, what may be sent to a rank and back, and the promise about torchrun."""

import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

import course_lib
from course_lib import RankError, RankTimeout, launch
from tests.ranks_helpers import note_pid, sum_of_ranks, survivors


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 8])
def test_every_rank_takes_part_and_returns(world_size):
    def fn():
        assert dist.get_world_size() == world_size
        return dist.get_rank(), sum_of_ranks()

    run = launch(fn, world_size)
    assert list(run) == [(rank, sum(range(world_size))) for rank in range(world_size)]
    assert len(run) == run.world_size == world_size and run.seconds > 0


def test_64_ranks_start():
    assert launch(sum_of_ranks, 64)[63] == sum(range(64))


def test_arguments_and_closures_reach_every_rank():
    offset = torch.arange(3.0)
    run = launch(lambda x, y: x + y + offset + dist.get_rank(), 2, torch.ones(3), 5)
    assert torch.equal(run[1], torch.arange(3.0) + 7)


def test_classes_defined_beside_the_function_keep_their_identity():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

    run = launch(lambda model: (type(model).__name__, model), 2, Net())
    name, model = run[1]
    assert name == "Net" and isinstance(model, Net) and model.layer.weight.requires_grad


def test_ranks_know_what_torchrun_would_tell_them():
    names = ["RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"]
    assert launch(lambda: [os.environ[n] for n in names], 3)[2] == ["2", "2", "3", "3"]


def test_caller_settings_reach_the_ranks(monkeypatch, tmp_path):
    monkeypatch.setenv("SOME_SETTING", "here")
    monkeypatch.chdir(tmp_path)
    torch.set_default_dtype(torch.float64)
    try:
        run = launch(lambda: (os.environ["SOME_SETTING"], os.getcwd(), torch.zeros(1).dtype), 2)
    finally:
        torch.set_default_dtype(torch.float32)
    assert run[1] == ("here", str(tmp_path), torch.float64)


def test_each_launch_is_fresh():
    def fn():
        first = not hasattr(course_lib, "been_here")
        course_lib.been_here = True
        return first

    assert all(launch(fn, 2)) and all(launch(fn, 2))


def test_python_and_numpy_randomness_differ_between_ranks():
    run = launch(lambda: (random.random(), np.random.rand()), 4)
    assert len({a for a, _ in run}) == 4 and len({b for _, b in run}) == 4


def test_output_is_labelled_and_in_the_same_order_every_time(capfd):
    def fn():
        for step in range(3):
            print(f"step {step}")
            dist.barrier()
        os.write(1, b"written past Python\n")
        print("no newline", end="")

    expected = "".join(
        f"[rank {r}] {line}\n"
        for r in range(3)
        for line in ("step 0", "step 1", "step 2", "written past Python", "no newline")
    )
    for _ in range(3):
        launch(fn, 3)
        assert capfd.readouterr().out == expected


def test_rank_0_prints_live(tmp_path):
    script = tmp_path / "live.py"
    script.write_text(
        textwrap.dedent("""
        import time, torch.distributed as dist
        from course_lib import launch
        def fn():
            print("first"); dist.barrier(); time.sleep(1.5); print("second")
        launch(fn, 2)
        """)
    )
    import time

    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "[rank 0] first\n"
    seen = time.monotonic()
    assert process.stdout.readline() == "[rank 0] second\n"
    assert time.monotonic() - seen > 0.5, "the first line came only when the second did"
    process.wait()


def test_stderr_stays_stderr(capfd):
    launch(lambda: print("careful", file=sys.stderr), 1)
    assert capfd.readouterr().err == "[rank 0] careful\n"


def test_ten_megabytes_of_prints_are_clipped_and_kept_in_a_file(capfd):
    def fn():
        for n in range(100_000):
            print(f"{n:06d} " + "x" * 92)

    launch(fn, 2)
    out = capfd.readouterr().out
    assert len(out) < 2 * 75_000
    named = [line.rsplit(" ", 1)[1] for line in out.splitlines() if "all of it is in" in line]
    assert len(named) == 2
    for name in named:
        assert Path(name).read_text().splitlines()[-1].startswith("099999")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((sum_of_ranks, 0), ValueError, "between 1 and"),
        ((sum_of_ranks, -2), ValueError, "between 1 and"),
        ((sum_of_ranks, 100_000), ValueError, "between 1 and"),
        ((sum_of_ranks, 2.0), TypeError, "whole number"),
        ((sum_of_ranks, True), TypeError, "whole number"),
        ((sum_of_ranks, "4"), TypeError, "whole number"),
        (("sum_of_ranks", 2), TypeError, "without brackets"),
        ((None, 2), TypeError, "without brackets"),
        ((sum_of_ranks, 2, 7), TypeError, "too many positional"),
        ((lambda x: x, 2), TypeError, "missing a required argument"),
    ],
)
def test_bad_arguments_are_refused_in_one_sentence(arguments, error, words):
    with pytest.raises(error, match=words) as caught:
        launch(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"timeout_s": 0}, {"timeout_s": "5"}, {"memory_limit_gb": -1}, {"backend": "carrier pigeon"}]
)
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match="must be a positive number|is not available here"):
        launch(sum_of_ranks, 2, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about a machine without a GPU")
def test_nccl_without_gpus_is_refused_before_any_process_starts():
    with pytest.raises(ValueError, match="nccl"):
        launch(sum_of_ranks, 2, backend="nccl")


def test_a_function_that_cannot_be_pickled_names_the_culprit():
    lock = __import__("threading").Lock()
    with pytest.raises(TypeError, match="variable 'lock'"):
        launch(lambda: lock, 2)
    with pytest.raises(TypeError, match=r"argument 0 \(generator\)"):
        launch(lambda g: g, 2, (n for n in range(3)))


def test_a_result_that_cannot_be_sent_back_is_explained():
    with pytest.raises(RankError, match="cannot be sent back") as caught:
        launch(lambda: (n for n in range(3)), 1)
    assert caught.value.rank == 0


def test_ranks_cannot_start_ranks():
    with pytest.raises(RankError, match="a rank cannot start ranks"):
        launch(lambda: launch(sum_of_ranks, 2), 2)


def test_run_shows_its_backend_and_results():
    text = repr(launch(lambda: dist.get_rank(), 2, backend="gloo"))
    assert text.startswith("2 ranks, gloo on CPU, forked") and "rank 1: 1" in text


def test_spawned_ranks_give_the_same(tmp_path):
    """The way that Windows takes: fresh interpreters instead of forks, the same results and the same cleaning up."""
    script = tmp_path / "spawn.py"
    script.write_text(
        textwrap.dedent(f"""
        import time, torch, torch.distributed as dist
        from course_lib import RankError, RankTimeout, launch
        from tests.ranks_helpers import note_pid, start_sleeper, sum_of_ranks
        run = launch(sum_of_ranks, 2)
        assert run.results == (1.0, 1.0) and "spawned" in repr(run), run
        def stuck():
            note_pid({str(tmp_path)!r}); start_sleeper({str(tmp_path)!r})
            if dist.get_rank() == 0:
                dist.all_reduce(torch.ones(1))
            time.sleep(60)
        try:
            launch(stuck, 2, timeout_s=12)
        except RankTimeout as error:
            print(error)
        def fail():
            raise KeyError("lost")
        try:
            launch(fail, 2)
        except RankError as error:
            print(error)
        """)
    )
    env = {**os.environ, "COURSE_LIB_START": "spawn", "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "waits in all_reduce for rank 1" in done.stdout and "raised KeyError" in done.stdout
    assert not survivors(tmp_path)


def test_the_same_body_runs_under_torchrun(tmp_path):
    """What launch promises: a function moves to a torchrun script unchanged, and gives the same numbers."""
    module = tmp_path / "body.py"
    module.write_text(
        textwrap.dedent("""
        import torch, torch.distributed as dist
        def train():
            torch.manual_seed(dist.get_rank())
            w = torch.zeros(5, dtype=torch.float64, requires_grad=True)
            for _ in range(4):
                x = torch.randn(8, 5, dtype=torch.float64)
                ((x @ w - x.sum(1)) ** 2).mean().backward()
                dist.all_reduce(w.grad)
                with torch.no_grad():
                    w -= 0.1 * w.grad / dist.get_world_size()
                w.grad = None
            return w.tolist()
        """)
    )
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import json, torch.distributed as dist
        from body import train
        dist.init_process_group("gloo")
        w = train()
        if dist.get_rank() == 0:
            print(json.dumps(w))
        dist.destroy_process_group()
        """)
    )
    import json

    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=3", "--standalone", str(script)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    sys.path.insert(0, str(tmp_path))
    try:
        from body import train

        run = launch(train, 3)
    finally:
        sys.path.remove(str(tmp_path))
    assert run[0] == json.loads(done.stdout.strip().splitlines()[-1])


def test_200_correct_runs_without_a_false_alarm():
    def fn(n):
        x = torch.full((n,), float(dist.get_rank()))
        dist.all_reduce(x)
        if dist.get_rank() == 0:
            dist.send(x, 1)
        elif dist.get_rank() == 1:
            dist.recv(x, 0)
        return x.sum().item()  # ranks return at different times, and nobody destroys the process group

    for n in range(200):
        world_size = 2 + n % 3
        run = launch(fn, world_size, n)
        assert set(run) == {n * sum(range(world_size))}


def test_timeout_is_an_error_of_the_same_family():
    assert issubclass(RankTimeout, RankError)


@pytest.mark.gpu
def test_a_gpu_for_every_rank_means_nccl():
    def fn():
        x = torch.ones(1, device="cuda")
        dist.all_reduce(x)
        y = torch.ones(1)
        dist.all_reduce(y)  # CPU tensors still have gloo
        return x, y.item(), torch.cuda.current_device()

    n = torch.cuda.device_count()
    run = launch(fn, n)
    assert run.backend.startswith("nccl") and [device for *_, device in run] == list(range(n))
    assert run[0][0].item() == run[0][1] == n


@pytest.mark.gpu
def test_more_ranks_than_gpus_means_gloo_and_says_so(tmp_path):
    run = launch(lambda: (note_pid(tmp_path), sum_of_ranks())[1], torch.cuda.device_count() + 1)
    assert run.backend.startswith("gloo on CPU") and "too few" in run.backend
    assert not survivors(tmp_path)
