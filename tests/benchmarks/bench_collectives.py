"""Our ring all-reduce against gloo's own: paired, alternating, in one launch for each size; 2 and 4 ranks."""

import statistics
import time

import torch
import torch.distributed as dist

from course_lib import collectives, launch

CALLS = {
    "gloo": dist.all_reduce,
    "ring": collectives.all_reduce,
    "doubling": lambda x: collectives.all_reduce(x, algorithm="doubling"),
    "reduce_broadcast": lambda x: collectives.all_reduce(x, algorithm="reduce_broadcast"),
}
SIZES = {"1 kB": (1_000, 200), "1 MB": (1_000_000, 60), "16 MB": (16_000_000, 25)}  # bytes, rounds
WARM_UP = 3


def measure(size_bytes, rounds):
    """On a rank: the seconds of every call in every round, all calls one after another in each."""
    x = torch.empty(size_bytes // 4)
    seconds = {name: [] for name in CALLS}
    order = list(CALLS.items())
    for _ in range(WARM_UP + rounds):
        order.append(order.pop(0))  # no call always comes after the same one
        for name, call in order:
            x.fill_(1)
            dist.barrier()
            begin = time.perf_counter()
            call(x)
            seconds[name].append(time.perf_counter() - begin)
            assert x[0] == x[-1] == dist.get_world_size()
    return {name: values[WARM_UP:] for name, values in seconds.items()}


def main():
    """Print the time of each call, the slowest rank's, and its ratio to gloo's in the same round."""
    print("all-reduce of float32; median ms, and the ratio to gloo in the same round: median (quartiles)")
    for n in (2, 4):
        for label, (size_bytes, rounds) in SIZES.items():
            run = launch(measure, n, size_bytes, rounds)
            slowest = {name: [max(times) for times in zip(*(rank[name] for rank in run))] for name in CALLS}
            for name, values in slowest.items():
                ratios = [ours / gloo for ours, gloo in zip(values, slowest["gloo"], strict=True)]
                low, middle, high = statistics.quantiles(ratios, n=4)
                print(
                    f"  {n} ranks  {label:>5}  {name:17s}{1000 * statistics.median(values):8.2f} ms"
                    f"   {middle:5.2f} x ({low:.2f} to {high:.2f})"
                )


if __name__ == "__main__":
    main()
