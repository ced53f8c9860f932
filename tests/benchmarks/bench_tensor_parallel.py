"""A training step of our tensor parallel GPT against PyTorch's own: DTensor's parallelize_module with column- and row-wise plans.

All in one launch, in turns of a few steps, with AdamW, vocabulary and loss split in both. Beside it what cannot be undercut: this
rank's kernels without any communication, and a step's bytes at the rate that collectives of that size reach in this run.
"""

import statistics
import time
from contextlib import nullcontext

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    loss_parallel,
    parallelize_module,
)
from torch.nn import functional as F

from course_lib import launch, span
from course_lib.data import text_batch
from course_lib.models.gpt import GPT
from course_lib.parallel.tensor_model import tensor_parallelize
from course_lib.parallel.vocabulary import vocab_parallel_cross_entropy
from tests.benchmarks.turns import in_turns, ratio

BATCH, CONTEXT = 4, 64


def gpt():
    torch.manual_seed(0)
    return GPT(context=CONTEXT, tied=False)


def dtensor(model, sequence_parallel):
    """The plan of PyTorch's tutorial, with its loss; one message for q, k and v, which the tutorial's plan does not have."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    outside = Shard(1) if sequence_parallel else Replicate()
    block_plan = {
        "attention": PrepareModuleInput(input_layouts=outside, desired_input_layouts=Replicate()),
        "attention.q": ColwiseParallel(),
        "attention.k": ColwiseParallel(),
        "attention.v": ColwiseParallel(),
        "attention.o": RowwiseParallel(output_layouts=outside),
        "up": ColwiseParallel(input_layouts=outside),
        "down": RowwiseParallel(output_layouts=outside),
    }
    plan = {
        "wte": RowwiseParallel(input_layouts=Replicate(), output_layouts=outside),
        "head": ColwiseParallel(input_layouts=outside, output_layouts=Shard(-1), use_local_output=False),
    }
    if sequence_parallel:
        block_plan |= {"ln1": SequenceParallel(), "ln2": SequenceParallel()}
        plan |= {"ln_f": SequenceParallel(), "wpe": RowwiseParallel(input_layouts=Replicate(), output_layouts=Shard(0))}
    for block in model.blocks:
        parallelize_module(block, mesh, block_plan)
    return parallelize_module(model, mesh, plan)


def alone():
    """Our parallel model with every group cut down to this rank: the kernels of a step, and no message."""
    model = tensor_parallelize(gpt())
    me = [dist.new_group([rank]) for rank in range(dist.get_world_size())][dist.get_rank()]
    for module in model.modules():
        if hasattr(module, "group"):
            module.group = me
    return model


STRATEGIES = {
    "compute alone": alone,
    "ours": lambda: tensor_parallelize(gpt()),
    "DTensor": lambda: dtensor(gpt(), False),
    "ours, sequence": lambda: tensor_parallelize(gpt(), sequence_parallel=True),
    "DTensor, sequence": lambda: dtensor(gpt(), True),
}
AGAINST = {"ours": "DTensor", "ours, sequence": "DTensor, sequence"}


def stepper(name):
    model = STRATEGIES[name]()
    kinds = {}  # fused, or DTensor's overhead would count in the optimizer too; fused takes one kind of tensor a group
    for parameter in model.parameters():
        kinds.setdefault(type(parameter.data), []).append(parameter)
    optimizer = torch.optim.AdamW([{"params": same} for same in kinds.values()], lr=1e-4, fused=True)
    x, y = text_batch(0, BATCH, CONTEXT)
    group, theirs = None, "DTensor" in name
    if name == "compute alone":
        group = model.head.group
        x, y = x % len(model.head.weight), y % len(model.head.weight)

    def step():
        optimizer.zero_grad()
        with loss_parallel() if theirs else nullcontext():
            logits = model(x)
            if theirs:
                loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
            else:
                loss = vocab_parallel_cross_entropy(logits, y, group=group)
            loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def measure():
    """On a rank: (seconds of a step by strategy and round, the loss of a last step, bytes a second of an all-reduce)."""
    steps = {name: stepper(name) for name in STRATEGIES}
    seconds = in_turns(steps)
    losses = {}
    for name, step in steps.items():
        loss = step()
        losses[name] = float(loss.full_tensor() if "DTensor" in name else loss)
    message = torch.ones(BATCH * CONTEXT, 128)  # as in a block: its rate is not that of a large one
    return seconds, losses, all_reduce_rate(message)


def all_reduce_rate(message, repeats=50):
    """Bytes a second of an all-reduce of this message, of its payload."""
    times = []
    for _ in range(repeats):
        dist.barrier()
        begin = time.perf_counter()
        dist.all_reduce(message)
        times.append(time.perf_counter() - begin)
    return message.nbytes / statistics.median(times)


def two_steps(name):
    step = stepper(name)
    step()
    dist.barrier()
    with span("step"):
        step()


def sent_bytes(name, n):
    """What a rank sends in a step, and in how many calls."""
    events = launch(two_steps, n, name).trace.of(rank=0).during("step").events
    calls = [e for e in events if not e.is_span]
    return sum(e.ring_bytes for e in calls), len(calls)


def main():
    """Print each strategy's step and its ratio to DTensor's in the same round; the slowest rank counts."""
    for n in (2, 4):
        run = launch(measure, n, timeout_s=300)
        _, losses, rate = run[0]
        assert max(losses[name] for name in AGAINST) - min(losses[name] for name in AGAINST.values()) < 1e-4
        slowest = {name: [max(times) for times in zip(*(rank[0][name] for rank in run))] for name in STRATEGIES}
        alone_s = statistics.median(slowest["compute alone"])
        print(f"GPT of 8 layers, {n} ranks; an all-reduce as in a block: {rate / 1e9:.2f} GB/s")
        for name, values in slowest.items():
            nbytes, calls = sent_bytes(name, n)
            sending_s = nbytes / (2 * (n - 1) / n) / rate
            line = f"  {name:18s}{1000 * statistics.median(values):7.1f} ms  sends {nbytes / 1e6:5.2f} MB in {calls:3d} calls"
            line += f"  bound {1000 * max(alone_s, sending_s):5.1f} to {1000 * (alone_s + sending_s):5.1f}"
            if name in AGAINST:
                line += f"  {ratio(values, slowest[AGAINST[name]])} x {AGAINST[name]}"
            print(line, flush=True)


if __name__ == "__main__":
    main()
