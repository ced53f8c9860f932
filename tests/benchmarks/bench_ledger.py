"""What recording every operation costs: an all-reduce of 1,000 floats on two ranks, with the ledger and without, paired."""

import statistics
import time

import torch
import torch.distributed as dist

from course_lib import launch

ROUNDS, EACH = (
    300,
    15,
)  # many short blocks: on a machine that naps between messages, a block is slow or fast as a whole


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
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    parts = [statistics.median(seconds["with"][k::5]) / statistics.median(seconds["without"][k::5]) for k in range(5)]
    print(
        f"{title:42s}{1e6 * medians['without']:8.1f} µs without{1e6 * medians['with']:8.1f} µs with   "
        f"ratio {medians['with'] / medians['without']:.3f} (each fifth of the rounds: {min(parts):.3f} to {max(parts):.3f})"
    )


def main():
    """Print the cost on two ranks, and of the calls alone."""
    launch(paired, 2)
    report("2 ranks, all-reduce of 1,000 floats", launch(paired, 2)[0])
    report("1 rank (the calls alone, nothing is sent)", launch(calls_alone, 1)[0])


if __name__ == "__main__":
    main()
