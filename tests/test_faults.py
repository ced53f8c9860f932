"""What launch must do when something goes wrong: name the first cause, be quick, leave nothing behind, work again.

Every fault runs at several world sizes. After each one a correct launch must work, and no process may be left.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from course_lib import RankError, RankTimeout, launch
from tests.ranks_helpers import note_pid, start_sleeper, sum_of_ranks, survivors

ROOT = Path(__file__).parents[1]
SIZES = [2, 4, 8]

TRIES = 3


@pytest.fixture(scope="module", autouse=True)
def warm():
    """The fork server has imported torch, so that the times below are those of the fault alone."""
    launch(sum_of_ranks, 2)


def fails(fn, world_size, tmp_path, within_s=4.0, error=RankError, **options):
    """Launch fn, which must fail within the time given, leave no process, and not harm the next launch."""

    def noted():
        note_pid(tmp_path)
        dist.barrier()  # every rank is noted before the fault strikes
        return fn()

    for _ in range(TRIES):  # other work only ever adds to the time: the shortest counts
        begin = time.monotonic()
        with pytest.raises(error) as caught:
            launch(noted, world_size, **options)
        seconds = time.monotonic() - begin
        assert not survivors(tmp_path, within_s=0), "a process outlived the launch"
        assert launch(sum_of_ranks, world_size)[0] == sum(range(world_size))
        if seconds < within_s:
            return caught.value
    raise AssertionError(f"the error took {seconds:.1f} s, and no less in {TRIES} tries")


@pytest.mark.parametrize("world_size", SIZES)
def test_first_cause_is_the_rank_that_raised_not_its_neighbours(world_size, tmp_path):
    def fn():
        if dist.get_rank() == 1:
            raise ZeroDivisionError("the real cause")
        dist.all_reduce(torch.ones(1))

    error = fails(fn, world_size, tmp_path)
    assert error.rank == 1 and error.summary == f"rank 1 of {world_size} raised ZeroDivisionError: the real cause"
    assert isinstance(error.__cause__, ZeroDivisionError)
    assert "→" in str(error) and 'raise ZeroDivisionError("the real cause")' in str(error)
    assert str(error).count("lost its connection in all_reduce") == world_size - 1


def test_a_message_of_many_pages_is_cut_to_a_screen(tmp_path):
    def fn():
        raise ValueError("\n".join("y" * 1000 for _ in range(500)))

    error = fails(fn, 2, tmp_path)
    assert len(str(error).splitlines()) < 40 and max(map(len, str(error).splitlines())) < 400


def test_a_connection_error_of_the_learners_own_is_no_consequence(tmp_path):
    def fn():
        if dist.get_rank() == 1:
            raise ConnectionRefusedError("connection refused")

    assert "rank 1 of 2 raised ConnectionRefusedError" in fails(fn, 2, tmp_path).summary


@pytest.mark.parametrize("world_size", SIZES)
def test_the_earlier_of_two_failures_is_the_cause(world_size, tmp_path):
    def fn():
        if dist.get_rank() == 0:
            time.sleep(0.1)
            raise ValueError("later")
        if dist.get_rank() == world_size - 1:
            raise KeyError("earlier")
        time.sleep(5)

    error = fails(fn, world_size, tmp_path)
    assert error.rank == world_size - 1 and "KeyError" in error.summary


@pytest.mark.parametrize("world_size", SIZES)
@pytest.mark.parametrize("leave", [lambda: os._exit(0), lambda: os._exit(3)], ids=["status 0", "status 3"])
def test_a_rank_that_leaves_is_named_with_its_line(world_size, leave, tmp_path):
    def fn():
        if dist.get_rank() == 1:
            leave()
        dist.all_reduce(torch.ones(1))

    error = fails(fn, world_size, tmp_path)
    assert error.rank == 1 and "left with exit status" in error.summary
    assert "os._exit" in str(error) and "return from the function" in str(error)


@pytest.mark.parametrize("world_size", SIZES)
def test_sys_exit_is_reported_as_what_it_is(world_size, tmp_path):
    def fn():
        if dist.get_rank() == world_size - 1:
            sys.exit(0)
        dist.all_reduce(torch.ones(1))

    assert fails(fn, world_size, tmp_path).summary.startswith(
        f"rank {world_size - 1} of {world_size} raised SystemExit"
    )


@pytest.mark.parametrize("world_size", SIZES)
def test_an_early_return_is_explained(world_size, tmp_path):
    def fn():
        if dist.get_rank() == 0:
            return
        for _ in range(3):
            dist.all_reduce(torch.ones(1))

    error = fails(fn, world_size, tmp_path)
    assert error.summary.startswith("rank 0 returned while rank") and "still in all_reduce" in error.summary


@pytest.mark.parametrize("world_size", SIZES)
def test_a_killed_rank_is_named_with_a_hint_about_memory(world_size, tmp_path):
    def fn():
        if dist.get_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        dist.all_reduce(torch.ones(1))

    error = fails(fn, world_size, tmp_path)
    assert error.rank == 1 and "was killed by SIGKILL" in error.summary and "memory ran out" in str(error)


@pytest.mark.parametrize("world_size", SIZES)
def test_a_crash_shows_its_python_line(world_size, tmp_path):
    def fn():
        if dist.get_rank() == 1:
            ctypes.string_at(0)
        dist.all_reduce(torch.ones(1))

    error = fails(fn, world_size, tmp_path, within_s=5)
    assert error.rank == 1 and "SIGSEGV" in error.summary and "ctypes.string_at(0)" in str(error)


@pytest.mark.parametrize("world_size", SIZES)
def test_timeout_shows_where_every_rank_was(world_size, tmp_path):
    def fn():
        if dist.get_rank() == 0:
            while True:
                time.sleep(0.01)  # never joins the others
        if dist.get_rank() == 1:
            dist.recv(torch.ones(1), 0)
        return "done"

    error = fails(fn, world_size, tmp_path, within_s=4.5, error=RankTimeout, timeout_s=1)
    text = str(error)
    assert error.summary == "rank 0 was still running after 1 s, and rank 1 waited for it in recv"
    assert "time.sleep(0.01)" in text and "waits in recv for rank 0" in text
    assert "dist.recv(torch.ones(1), 0)" in text
    assert text.count("returned") == world_size - 2
    assert {0, 1} <= set(error.stacks)


def test_a_rank_stuck_outside_python_still_gives_its_stack(tmp_path):
    def fn():
        dist.barrier()
        libc = ctypes.PyDLL(None)  # PyDLL keeps the GIL: no Python code can run in this process
        libc.sleep(60)

    error = fails(fn, 2, tmp_path, within_s=4.5, error=RankTimeout, timeout_s=1)
    assert "libc.sleep(60)" in str(error)


@pytest.mark.parametrize("world_size", SIZES)
def test_a_rank_that_ignores_signals_and_starts_children_leaves_nothing(world_size, tmp_path):
    def fn():
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        start_sleeper(tmp_path)
        start_sleeper(tmp_path, escape=True)
        if dist.get_rank() == 0:
            raise ValueError("now")
        time.sleep(60)

    assert fails(fn, world_size, tmp_path).rank == 0


@pytest.mark.parametrize("escape", [False, True])
def test_children_of_a_correct_run_are_swept_too(escape, tmp_path):
    launch(lambda: start_sleeper(tmp_path, escape=escape), 2)
    assert not survivors(tmp_path, within_s=0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces a limit on address space")
@pytest.mark.parametrize("world_size", SIZES)
def test_a_memory_hog_is_stopped_by_its_limit(world_size, tmp_path):
    def fn():
        if dist.get_rank() == 1:
            hoard = [torch.empty(2**26) for _ in range(64)]
            return len(hoard)
        dist.barrier()

    error = fails(fn, world_size, tmp_path, within_s=6, memory_limit_gb=3)
    assert error.rank == 1 and "the limit is 3.0 GiB a rank" in str(error) and "memory_limit_gb" in str(error)


def test_there_is_a_memory_limit_by_default():
    import resource

    soft = launch(lambda: resource.getrlimit(resource.RLIMIT_AS)[0], 2)[1]
    assert (soft != resource.RLIM_INFINITY) == (sys.platform == "linux")


def test_input_does_not_hang(tmp_path):
    error = fails(lambda: input("name? "), 2, tmp_path)
    assert "EOFError" in error.summary and "no keyboard" in str(error)


def test_output_before_a_failure_is_shown(capfd, tmp_path):
    def fn():
        print("about to fail")
        dist.barrier()
        if dist.get_rank() == 1:
            os._exit(1)

    fails(fn, 2, tmp_path)
    out = capfd.readouterr().out
    assert "[rank 0] about to fail" in out and "[rank 1] about to fail" in out


def test_a_killed_fork_server_is_replaced(tmp_path):
    from course_lib.ranks import client

    def fn():
        note_pid(tmp_path)
        time.sleep(60)

    server = client.starter().process.pid
    import threading

    threading.Timer(1.0, os.kill, (server, signal.SIGKILL)).start()
    with pytest.raises(RuntimeError, match="run the cell again"):
        launch(fn, 2)
    assert launch(sum_of_ranks, 2)[0] == 1
    assert not survivors(tmp_path)


STUCK = """
import os, time, torch, torch.distributed as dist
from course_lib import launch
from course_lib.ranks import client
from tests.ranks_helpers import note_pid, start_sleeper, sum_of_ranks
FOLDER = {folder!r}
def stuck():
    note_pid(FOLDER)
    start_sleeper(FOLDER, escape=True)
    dist.barrier()
    if dist.get_rank() == 0:
        print("all stuck")
        time.sleep(300)
    dist.all_reduce(torch.ones(1))
note_pid(FOLDER, client.starter().process.pid)
"""


def run_stuck_script(tmp_path, ending):
    script = tmp_path / "stuck.py"
    script.write_text(STUCK.format(folder=str(tmp_path)) + textwrap.dedent(ending))
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, str(script)], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "[rank 0] all stuck\n"
    time.sleep(0.3)  # the others leave the barrier
    return process


def test_killing_the_caller_leaves_nothing(tmp_path):
    process = run_stuck_script(tmp_path, "launch(stuck, 4)")
    folders = set(Path("/tmp").glob("course_lib-*"))
    process.kill()
    process.wait()
    assert not survivors(tmp_path)
    assert folders != set(Path("/tmp").glob("course_lib-*")) or not folders, "its temporary folder is still there"


def test_interrupting_a_script_leaves_nothing_and_the_next_launch_works(tmp_path):
    ending = """
    try:
        launch(stuck, 4)
    except KeyboardInterrupt:
        print("interrupted", launch(sum_of_ranks, 4)[0])
    """
    process = run_stuck_script(tmp_path, ending)
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert out.splitlines()[-1] == "interrupted 6.0", err
    assert time.monotonic() - begin < 3
    assert "time.sleep(300)" in err and "waits in all_reduce for rank 0" in err
    assert not survivors(tmp_path)


@pytest.fixture
def kernel(tmp_path):
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=str(tmp_path))
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def execute(client, code, timeout=60):
    """Run one cell; returns (what it printed, the text of its error)."""
    out, errors = [], []

    def hook(message):
        content = message["content"]
        if message["msg_type"] == "stream":
            out.append(content["text"])
        elif message["msg_type"] == "error":
            errors.append("\n".join(content["traceback"]))

    client.execute_interactive(textwrap.dedent(code), output_hook=hook, timeout=timeout, store_history=True)
    return "".join(out), "\n".join(errors)


def reply(client, message_id):
    """Wait for the end of a cell that was sent before; returns the content of its reply."""
    while True:
        message = client.get_shell_msg(timeout=30)
        if message["parent_header"].get("msg_id") == message_id:
            return message["content"]


def test_in_a_kernel_errors_show_the_cell_and_its_lines(kernel):
    _, client = kernel
    setup = """
    import torch, torch.distributed as dist
    from course_lib import launch
    class Trainer:
        def step(self, x):
            return 1 / x
    """
    assert execute(client, setup) == ("", "")
    _, error = execute(
        client,
        """
        def train():
            if dist.get_rank() == 1:
                return Trainer().step(0)
            dist.all_reduce(torch.ones(1))
        launch(train, 2)
        """,
    )
    assert error.startswith("RankError: rank 1 of 2 raised ZeroDivisionError: division by zero")
    assert "Cell In[1], line 5, in step" in error and "return 1 / x" in error
    assert "called from Cell In[2], line 3, in train:  return Trainer().step(0)" in error
    assert "dist.all_reduce(torch.ones(1))" in error and "_wait" not in error, "the launcher's own frames are noise"


def test_interrupting_and_restarting_a_kernel_leaves_nothing(kernel, tmp_path):
    manager, client = kernel
    folder = tmp_path / "pids"
    folder.mkdir()
    execute(client, STUCK.format(folder=str(folder)))
    for _ in range(2):
        stuck = client.execute("launch(stuck, 4)", stop_on_error=False)  # else Jupyter may drop the next
        wait_until(lambda: len(list(folder.iterdir())) >= 9)
        begin = time.monotonic()
        manager.interrupt_kernel()
        # A cell sent before the error has come back would be dropped by Jupyter: wait for it.
        assert reply(client, stuck)["ename"] == "KeyboardInterrupt" and time.monotonic() - begin < 2
        out, error = execute(client, "print(launch(sum_of_ranks, 4).results)")
        assert out.endswith("(6.0, 6.0, 6.0, 6.0)\n") and not error
        alive = survivors(folder)
        assert len(alive) == 1, "only the fork server should be left"
        for path in folder.iterdir():
            if int(path.name) not in alive:
                path.unlink()
    client.execute("launch(stuck, 4)")
    wait_until(lambda: len(list(folder.iterdir())) >= 9)
    manager.restart_kernel(now=True)
    assert not survivors(folder)
    client.wait_for_ready(timeout=60)
    out, error = execute(client, "from course_lib import launch\nprint(launch(lambda: 1, 2).results)")
    assert (out, error) == ("(1, 1)\n", "")


def test_killing_a_kernel_leaves_nothing(kernel, tmp_path):
    manager, client = kernel
    folder = tmp_path / "pids"
    folder.mkdir()
    execute(client, STUCK.format(folder=str(folder)))
    client.execute("launch(stuck, 4)")
    wait_until(lambda: len(list(folder.iterdir())) >= 9)
    os.kill(manager.provisioner.pid, signal.SIGKILL)
    assert not survivors(folder)


def wait_until(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)
    time.sleep(0.3)


def test_reports_survive_json():
    """Nothing in a report needs the ranks any more: it can be stored beside a grade."""
    with pytest.raises(RankError) as caught:
        launch(lambda: 1 / 0, 1)
    assert json.dumps([str(caught.value), caught.value.summary, caught.value.rank])
