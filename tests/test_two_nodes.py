"""`torchrun -m course_lib.train` on two nodes, where a rank is killed, gives the curve of `course train`, undisturbed."""

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from course_lib import launch
from course_lib.checkpoint.folder import about, found
from course_lib.train.loop import train
from course_lib.train.options import Options
from tests.ranks_helpers import kill_rank_of_torchrun
from tests.two_nodes import ROOT, run_on_two_nodes, unshare

SIZES = {"context": 16, "width": 32, "layers": 2, "batch": 8, "dtype": "float64"}
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds the ranks in /proc")


def line(**options):
    """Options as a command takes them."""
    flags = ((f"--{name.replace('_', '-')}", value) for name, value in options.items())
    return [str(part) for flag, value in flags for part in ((flag,) if value is True else (flag, value))]


def require_the_curve_of_one_node(output, folder, world_size, options):
    """And that the run was interrupted on its way."""
    assert 20 <= int(re.search(r"going on from \S+/step-(\d+)", output)[1]) < options["steps"]
    here = launch(train, world_size, Options(**options))[0]["losses"]
    there = about(found(folder)[-1])["losses"]
    assert len(there) == options["steps"] and max(abs(a - b) for a, b in zip(here, there, strict=True)) < 1e-9


@pytest.mark.nodes
def test_the_same_arguments_train_on_two_nodes_and_a_killed_rank_costs_only_the_steps_since_a_checkpoint(tmp_path):
    options = SIZES | {"pp": 2, "tp": 2, "zero": 1, "steps": 100}
    arguments = ["-m", "course_lib.train", *line(**options, every=20, checkpoint=tmp_path)]
    with ThreadPoolExecutor() as pool:
        killed = pool.submit(kill_rank_of_torchrun, 0, os.getpid(), lambda: found(tmp_path))
        run = run_on_two_nodes(arguments, timeout_s=240, max_restarts=1)
        killed.result()
    assert run.returncode == 0, run.stdout
    assert "on 4 ranks (pp 2 × tp 2), ZeRO-1" in run.stdout and "100/100" in run.stdout
    require_the_curve_of_one_node(run.stdout, tmp_path, 4, options)


@pytest.mark.skipif(unshare() is not None, reason="two nodes can be made here, which is more")
def test_where_there_can_be_one_node_only_a_killed_rank_costs_no_more(tmp_path):
    options = SIZES | {"steps": 100, "zero": 3}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    command += ["-m", "course_lib.train", *line(**options, every=20, checkpoint=tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        kill_rank_of_torchrun(0, process.pid, lambda: found(tmp_path))
        out, _ = process.communicate(timeout=180)
    finally:
        process.terminate()
    assert process.returncode == 0, out
    require_the_curve_of_one_node(out, tmp_path, 2, options)
