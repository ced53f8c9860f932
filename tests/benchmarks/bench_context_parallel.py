"""Ring attention against one process: time and memory by the length of the sequence; zig-zag; and all-to-all beside it.

One process computes the whole sequence on one thread, on rank 0 while the others wait, in the same launch and in turns with
the ranks: by F.scaled_dot_product_attention, and by softmax(q kᵀ) v with all scores in memory at once. Times are of forward
and backward, the slowest rank's, each as a ratio to the yardstick of the same round. Beside it the CPU time of the ranks'
own threads, without gloo's: of the least busy and of the busiest rank, whatever the number of cores. Memory is what a
MemoryMeter counts: all tensors, but not what a kernel takes for itself while it runs.
"""

import os
import statistics
import time
from functools import partial

import torch
import torch.distributed as dist
from torch.nn import functional as F

from course_lib import launch
from course_lib.memory import MemoryMeter
from course_lib.parallel.context import all_to_all_attention
from course_lib.parallel.ring_attention import ring_attention
from tests.benchmarks.turns import ratio

BATCH, HEADS, HEAD_WIDTH = 1, 8, 64
RUNS = [  # causal, ranks, lengths
    (False, 1, (1024,)),
    (False, 2, (1024,)),
    (True, 1, (1024,)),
    (True, 2, (512, 1024, 2048, 4096)),
    (True, 4, (512, 1024, 2048, 4096)),
]
ROUNDS = {512: 20, 1024: 10, 2048: 5, 4096: 3}
MB = 2**20


def plain(q, k, v, is_causal):
    """Attention as it is taught: all scores at once."""
    scores = q @ k.mT / HEAD_WIDTH**0.5
    if is_causal:
        scores.masked_fill_(torch.ones(scores.shape[-2:], dtype=torch.bool).triu_(1), float("-inf"))
    return scores.softmax(-1) @ v


def strategies(s, causal):
    """By name: whether all ranks share the work, and the attention."""
    found = {
        "one process": (False, partial(F.scaled_dot_product_attention, is_causal=causal)),
        "plain softmax": (False, partial(plain, is_causal=causal)),
        "ring": (True, partial(ring_attention, causal=causal)),
        "all to all": (True, partial(all_to_all_attention, causal=causal)),
    }
    if causal:
        found["ring, consecutive"] = (True, partial(ring_attention, causal=True, zigzag=False))
    if s > 2048:
        del found["plain softmax"]  # it takes seconds and gigabytes
    return found


def step(attention, s):
    """Forward and backward of new tensors; returns a function that does them again with the same."""
    q, k, v, gradient = (torch.randn(BATCH, HEADS, s, HEAD_WIDTH) for _ in range(4))

    def again():
        leaves = [x.requires_grad_() for x in (q, k, v)]
        for leaf in leaves:
            leaf.grad = None
        attention(*leaves).backward(gradient)

    again()
    return again


def measure(s, causal):
    """On a rank: (seconds, CPU seconds) by strategy and round, and the peak of memory by strategy."""
    found = {
        name: (attention, s // dist.get_world_size() if shared else s)
        for name, (shared, attention) in strategies(s, causal).items()
        if shared or dist.get_rank() == 0
    }
    times, peak, run = {name: [] for name in strategies(s, causal)}, {}, {}
    for name, (attention, length) in found.items():
        with MemoryMeter() as meter:
            step(attention, length)
        peak[name] = meter.peak.total
        run[name] = step(attention, length)
    order = list(times)
    for _ in range(1 + ROUNDS[s]):
        order.append(order.pop(0))  # no strategy always comes after the same one
        for name in order:
            dist.barrier()
            begin, busy = time.perf_counter(), time.thread_time()
            if name in run:
                run[name]()
            times[name].append((time.perf_counter() - begin, time.thread_time() - busy))
            dist.barrier()  # or a rank would begin the next while another still computes
    return {name: values[1:] for name, values in times.items()}, peak


def report(run):
    """Print a line for each strategy of one launch."""
    wall, busy = {}, {}
    for name in run[0][0]:
        by_rank = [rank[0][name] for rank in run if name in rank[1]]  # of those that took part
        wall[name] = [max(one[0] for one in times) for times in zip(*by_rank, strict=True)]
        busy[name] = [1000 * statistics.median(one[1] for one in times) for times in by_rank]
    for name, seconds in wall.items():
        memory = max(rank[1].get(name, 0) for rank in run) / MB
        line = f"  {name:18s}{1000 * statistics.median(seconds):7.0f} ms, CPU {min(busy[name]):5.0f} to "
        line += f"{max(busy[name]):5.0f}, {memory:7.1f} MB"
        if name != "one process":
            line += f"  {ratio(seconds, wall['one process'])} x one process"
        if name in ("all to all", "ring, consecutive"):
            line += f"  {ratio(seconds, wall['ring'])} x ring"
        print(line, flush=True)


def main():
    """Print milliseconds, ratios and megabytes a rank by mask, ranks and length."""
    cores = os.cpu_count()
    print(f"{BATCH} x {HEADS} heads of {HEAD_WIDTH}, float32, {cores} cores; medians, of ratios also the quartiles")
    for causal, c, lengths in RUNS:
        for s in lengths:
            print(f"{'causal' if causal else 'no mask'}, {c} rank{'s' * (c > 1)}, {s} tokens", flush=True)
            report(launch(measure, c, s, causal, timeout_s=300))


if __name__ == "__main__":
    main()
