"""The planner: how long it takes to weigh every layout of a large model, and how near published layouts come to its best.

Bars: 530 billion parameters on 2,520 GPUs in 2 s, a trillion on up to 100,000 GPUs in 10 s.
"""

import statistics
import time

from course_lib.cost.candidate import Tools, weigh
from course_lib.cost.hardware import SYSTEMS
from course_lib.cost.planner import search
from course_lib.cost.published import RUNS, SOFTWARE
from course_lib.cost.shapes import MODELS
from course_lib.cost.step_time import head_time, layer_time

TASKS = (  # model, GPUs, batch, bar in seconds
    ("MT-NLG 530B", 2520, 2520, 2),
    ("Megatron 1T", 3072, 3072, 10),
    ("Megatron 1T", 24_576, 24_576, 10),
    ("Megatron 1T", 98_304, 6144, 10),
    ("Megatron 1T", 98_304, 98_304, 10),
    ("Megatron 1T", 100_000, 100_000, 10),
)


def seconds_of(model, gpus, batch, rounds=5):
    """The search, and its seconds in each round, every one from nothing."""
    taken = []
    for _ in range(rounds):
        layer_time.cache_clear()
        head_time.cache_clear()
        begin = time.perf_counter()
        found = search(model, SYSTEMS["A100"], gpus, batch, software=1.1)
        taken.append(time.perf_counter() - begin)
    return found, taken


def main():
    """Print both."""
    for name, gpus, batch, bar in TASKS:
        found, taken = seconds_of(MODELS[name], gpus, batch)
        print(
            f"  {name} on {gpus:7,} GPUs, batch {batch:7,}: {found.num_legal:7,} candidates, {found.num_weighed:7,} weighed, "
            f"{found.num_fit:6,} fit; {statistics.median(taken):6.3f} s ({min(taken):.3f} to {max(taken):.3f}), bar {bar} s",
            flush=True,
        )
    for run in RUNS:
        software = SOFTWARE[run.paper]
        mine = weigh(run.model, run.plan, SYSTEMS["A100"], software)
        args = run.model, SYSTEMS["A100"], run.plan.num_gpus, run.plan.batch
        best = search(*args, tools=Tools.like(run.plan), software=software).best
        away = mine.total_s / best.total_s - 1
        print(f"  {run.name:34s} {mine.layout:24s}{mine.total_s:8.2f} s; best {best.layout:24s}{away:+7.1%}")


if __name__ == "__main__":
    main()
