"""Helpers for tests of launch: which processes existed, and whether any of them is left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch.distributed as dist


def note_pid(folder, pid=None):
    """On a rank: leave a file named after a process id, so that the test can look for survivors."""
    Path(folder, str(pid or os.getpid())).touch()


def survivors(folder, within_s=2.0):
    """The noted processes that are still alive after `within_s` seconds (returns as soon as there are none)."""
    pids = [int(path.name) for path in Path(folder).iterdir() if path.name.isdigit()]
    assert pids, "no process was noted: the test would pass on nothing"
    deadline = time.monotonic() + within_s
    while alive := [pid for pid in pids if is_alive(pid)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    return alive


def is_alive(pid):
    """Whether a process runs; a zombie does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:  # it ended meanwhile, or there is no /proc
        return not Path("/proc").exists()


def descendants(pid):
    """The processes that a process has started, and those that they have, as far as /proc tells; outer ones first."""
    children = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(entry.read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):  # it ended meanwhile
            continue
        children.setdefault(parent, []).append(int(entry.parent.name))
    found = list(children.get(pid, ()))
    for child in found:  # grows while it is gone through
        found += children.get(child, ())
    return found


def kill_rank_of_torchrun(rank, under, when, within_s=120):
    """SIGKILL for a rank that a torchrun below the process `under` has started, as soon as when() is true."""
    deadline = time.monotonic() + within_s
    while not when():
        assert time.monotonic() < deadline, f"there was nothing to kill after {within_s} s"
        time.sleep(0.01)
    for pid in descendants(under):
        try:
            if f"RANK={rank}" in Path(f"/proc/{pid}/environ").read_text().split("\0"):
                os.kill(pid, signal.SIGKILL)
        except OSError:
            pass


def start_sleeper(folder, escape=False):
    """On a rank: start a child process that outlives it if nobody looks; `escape` puts it in a session of its own."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=escape)
    note_pid(folder, child.pid)


def sum_of_ranks():
    """The plainest distributed function: one all-reduce."""
    import torch

    x = torch.tensor([float(dist.get_rank())], dtype=torch.float64)
    dist.all_reduce(x)
    return x.item()
