"""A training step of our data parallel and fully sharded strategies against PyTorch's DDP and fully_shard (FSDP2).

All in one launch, in turns of a few steps, with AdamW. Beside it what cannot be undercut: the same step without any
communication, and the bytes of a step at the rate that one large collective of this run reaches.
"""

import statistics
import time
from functools import partial

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from course_lib import launch, span
from course_lib.data import digits, text_batch
from course_lib.models.gpt import GPT
from course_lib.models.resnet import ResNet
from course_lib.parallel.data import BucketedDataParallel
from course_lib.parallel.sharded import FullyShardedDataParallel
from course_lib.parallel.zero import ShardedOptimizer
from tests.benchmarks.turns import WARM_UP, in_turns, ratio

RATE_BYTES = 2**24


def resnet():
    data = digits()
    return ResNet((32, 96)), (data.train_x[:32], data.train_y[:32]), F.cross_entropy


def gpt():
    x, y = text_batch(dist.get_rank(), 4, 64)
    return GPT(num_layers=8), (x, y), lambda logits, y: F.cross_entropy(logits.flatten(0, 1), y.flatten())


def fsdp2(model):
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    return fully_shard(model, mesh=mesh)


WRAPS = {
    "compute alone": lambda model: model,
    "ours, bucketed": BucketedDataParallel,
    "DDP": DistributedDataParallel,
    "ours, ZeRO-2": lambda model: model,
    "ours, sharded": FullyShardedDataParallel,
    "fully_shard": fsdp2,
}
REDUCES_ALL = ("ours, bucketed", "DDP")  # the others gather and scatter
AGAINST = {"ours, bucketed": "DDP", "ours, ZeRO-2": "DDP", "ours, sharded": "fully_shard", "fully_shard": "DDP"}


def stepper(name, build):
    torch.manual_seed(0)
    model, (x, y), loss_fn = build()
    model = WRAPS[name](model)
    adamw = partial(torch.optim.AdamW, lr=1e-4)
    if "ZeRO" in name:
        optimizer = ShardedOptimizer(model.parameters(), adamw, shard_gradients=True, bucket_cap_mb=1)
    else:
        optimizer = adamw(model.parameters())

    def step():
        optimizer.zero_grad()
        loss_fn(model(x), y).backward()
        if isinstance(model, (BucketedDataParallel, FullyShardedDataParallel)):
            model.finish_gradient_sync()
        optimizer.step()

    return step


def rate_of(call):
    """Bytes a second that go through a large collective, of its payload."""
    seconds = []
    for _ in range(5):
        dist.barrier()
        begin = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begin)
    return RATE_BYTES / min(seconds)


def measure(build):
    """On a rank: the seconds of a step by strategy and round, the parameters' bytes, and the rates."""
    steps = {name: stepper(name, build) for name in WRAPS}
    seconds = in_turns(steps)
    n = dist.get_world_size()
    whole = torch.ones(RATE_BYTES // 4)
    rates = {
        "all-reduce": rate_of(lambda: dist.all_reduce(whole)),
        "all-gather": rate_of(lambda: dist.all_gather_single(torch.empty_like(whole), whole[: len(whole) // n])),
    }
    psi = sum(p.nbytes for p in build()[0].parameters())
    return seconds, psi, rates


def ten_steps(name, build):
    """On a rank: the CPU time that a step takes this process, gloo's threads included."""
    step = stepper(name, build)
    for _ in range(WARM_UP):
        step()
    dist.barrier()
    begin = time.process_time()
    with span("steps"):
        for _ in range(10):
            step()
    return (time.process_time() - begin) / 10


def profile(name, build, n):
    """Of a step by itself: seconds in all, seconds of standing still for others, CPU seconds, and bytes that a rank sends."""
    run = launch(ten_steps, n, name, build)
    events = run.trace.of(rank=0).during("steps").events
    (steps,) = (e for e in events if e.is_span)
    still_s = sum(stop - start for e in events for start, stop in e.waits)
    sent_bytes = sum(e.ring_bytes for e in events if not e.is_span)
    return (steps.end_s - steps.start_s) / 10, still_s / 10, run[0], sent_bytes / 10


def main():
    """Print each strategy's step and its ratio to the yardstick's in the same round; the slowest rank counts."""
    for build in (resnet, gpt):
        for n in (2, 4):
            run = launch(measure, n, build, timeout_s=300)
            _, psi, rates = run[0]
            slowest = {name: [max(times) for times in zip(*(rank[0][name] for rank in run))] for name in WRAPS}
            alone = statistics.median(slowest["compute alone"])
            print(
                f"{build.__name__}, {n} ranks: {psi / 1e6:.2f} MB of parameters. GB/s of one collective of "
                f"{RATE_BYTES >> 20} MB: " + ", ".join(f"{name} {rate / 1e9:.2f}" for name, rate in rates.items())
            )
            for name, values in slowest.items():
                step_s, still_s, cpu_s, sent_bytes = profile(name, build, n)
                # an all-reduce of Ψ sends 2(n-1)/n Ψ at its rate, an all-gather (n-1)/n Ψ
                rate, share = (rates["all-reduce"], 2) if name in REDUCES_ALL else (rates["all-gather"], 1)
                sending = sent_bytes / (share * (n - 1) / n) / rate
                line = f"  {name:15s}{1000 * statistics.median(values):7.1f} ms  sends {sent_bytes / 1e6:5.2f} MB"
                line += f"  bound {1000 * max(alone, sending):5.1f} to {1000 * (alone + sending):5.1f}"
                line += f"  by itself {1000 * step_s:5.1f}: waits {1000 * still_s:5.1f}, CPU {1000 * cpu_s:5.1f}"
                if name in AGAINST:
                    line += f"  {ratio(values, slowest[AGAINST[name]])} x {AGAINST[name]}"
                print(line, flush=True)


if __name__ == "__main__":
    main()
