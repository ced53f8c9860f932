"""What recording every operation costs: an all-reduce of 1,000 floats on two ranks, with the ledger and without, paired."""

import statistics
import time

import torch
import torch.distributed as dist

from course_lib import launch

ROUNDS, EACH = 60, 50


def paired():
    """Alternate blocks of all-reduces with the hooks in place and with the methods that they replaced."""
    hooked = dist.ProcessGroup.allreduce, dist.Work.wait
    plain = hooked[0].__wrapped__, hooked[1].__wrapped__
    x = torch.zeros(1000)
    seconds = {"with": [], "without": []}
    for number in range(ROUNDS):
        ways = [("with", hooked), ("without", plain)]
        for name, (all_reduce, wait) in ways if number % 2 else ways[::-1]:
            dist.ProcessGroup.allreduce, dist.Work.wait = all_reduce, wait
            dist.all_reduce(x)
            begin = time.perf_counter()
            for _ in range(EACH):
                dist.all_reduce(x)
            seconds[name].append((time.perf_counter() - begin) / EACH)
    dist.ProcessGroup.allreduce, dist.Work.wait = hooked
    return seconds


def calls_alone():
    """The same without a partner to wait for: on one rank nothing is sent, so that only the calls are left."""
    return paired()


def report(title, seconds):
    ratios = [a / b for a, b in zip(seconds["with"], seconds["without"], strict=True)]
    quarter, three_quarters = statistics.quantiles(ratios, n=4)[::2]
    micro = {name: 1e6 * statistics.median(values) for name, values in seconds.items()}
    print(
        f"{title:42s}{micro['without']:8.1f} µs without{micro['with']:8.1f} µs with   "
        f"ratio {statistics.median(ratios):.3f} (middle half {quarter:.3f} to {three_quarters:.3f})"
    )


def main():
    """Print the cost on two ranks, and of the calls alone."""
    launch(paired, 2)
    report("2 ranks, all-reduce of 1,000 floats", launch(paired, 2)[0])
    report("1 rank (the calls alone, nothing is sent)", launch(calls_alone, 1)[0])


if __name__ == "__main__":
    main()
