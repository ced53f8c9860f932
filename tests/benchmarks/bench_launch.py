"""launch against what PyTorch offers: four ranks and one all-reduce, paired; then 64 ranks with their memory."""

import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from course_lib import launch
from course_lib.ranks import client

ROUNDS = 5
TORCHRUN_SCRIPT = """
import torch, torch.distributed as dist
dist.init_process_group("gloo")
x = torch.ones(1)
dist.all_reduce(x)
assert x.item() == dist.get_world_size()
dist.destroy_process_group()
"""


def all_reduce_once():
    x = torch.ones(1)
    dist.all_reduce(x)
    assert x.item() == dist.get_world_size()


def spawned(rank, world_size, store):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    all_reduce_once()
    dist.destroy_process_group()


def with_launch(world_size=4):
    launch(all_reduce_once, world_size)


def with_spawn(world_size=4):
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(spawned, (world_size, Path(folder, "store")), nprocs=world_size)


def with_torchrun(world_size=4):
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "script.py")
        script.write_text(TORCHRUN_SCRIPT)
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc-per-node={world_size}",
            script,
        ]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def seconds(fn):
    begin = time.perf_counter()
    fn()
    return time.perf_counter() - begin


def spread(values, unit="s"):
    return f"{statistics.median(values):8.3f} {unit}  ({min(values):.3f} to {max(values):.3f})"


class MemoryOfRanks:
    """Samples the proportional memory (Linux: Pss) of the fork server and all of its ranks while a block runs."""

    def __init__(self, server_pid):
        self.server_pid = server_pid
        self.peak_bytes = 0
        self.over = threading.Event()

    def __enter__(self):
        self.thread = threading.Thread(target=self._sample)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def _sample(self):
        while not self.over.wait(0.05):
            pids = [self.server_pid, *_children(self.server_pid)]
            self.peak_bytes = max(self.peak_bytes, sum(_pss_bytes(pid) for pid in pids))


def _children(pid):
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _pss_bytes(pid):
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def wait_together():
    """All ranks are up at once, so that their memory can be measured."""
    all_reduce_once()
    time.sleep(3)


def main():
    """Print the comparison and the figures for 64 ranks."""
    ways = {"launch": with_launch, "mp.spawn": with_spawn, "torchrun": with_torchrun}
    with_launch()  # the fork server is up, as it is when a learner runs the second cell
    times = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            times[name].append(seconds(way))
    print("4 ranks, gloo, one all-reduce, from call to return; median (smallest to largest) of", ROUNDS)
    for name, values in times.items():
        ratios = [value / ours for value, ours in zip(values, times["launch"], strict=True)]
        print(f"  {name:9s}{spread(values)}   {statistics.median(ratios):6.1f} x launch")

    many = [seconds(lambda: with_launch(64)) for _ in range(3)]
    print(f"64 ranks\n  launch   {spread(many)}")
    if Path("/proc/self/smaps_rollup").exists():
        with MemoryOfRanks(client.starter().process.pid) as memory:
            launch(wait_together, 64)
        print(
            f"  memory   {memory.peak_bytes / 2**30:8.3f} GiB of server and 64 ranks together (proportional set size)"
        )


if __name__ == "__main__":
    main()
