"""A training step of our pipeline against torch.distributed.pipelining, for GPipe and 1F1B; and the simulator against measured time.

All in one launch, in turns of a few steps. Beside it what cannot be undercut: the work of the busiest rank without any message, and
that plus the bubble.
"""

import statistics
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe
from torch.nn import functional as F

from course_lib import Link, launch
from course_lib.data import text_batch
from course_lib.models.gpt import GPT
from course_lib.parallel.pipeline import run_pipeline
from course_lib.parallel.stages import cut, pipeline_stages
from course_lib.schedules import dualpipe_v, gpipe, interleaved, one_f_one_b, zb_h1, zb_v
from course_lib.schedules.simulation import Costs, simulate
from tests.benchmarks.turns import in_turns, ratio

BATCH, CONTEXT, MICROBATCHES = 16, 64, 8
THEIRS = {"GPipe": ScheduleGPipe, "1F1B": Schedule1F1B}
OURS = {"GPipe": gpipe, "1F1B": one_f_one_b}


def loss_of(logits, tokens):
    return F.cross_entropy(logits.flatten(0, 1), tokens.flatten())


def gpt():
    torch.manual_seed(0)
    return GPT(num_layers=8, tied=False)


def our_step(name):
    rank, p = dist.get_rank(), dist.get_world_size()
    schedule = OURS[name](p, MICROBATCHES)
    stages = pipeline_stages(gpt(), schedule)
    x, y = text_batch(0, BATCH, CONTEXT)

    def step():
        stages[rank].zero_grad()
        return run_pipeline(stages, x, y, loss_of, MICROBATCHES, schedule)

    return step


def their_step(name):
    rank, p = dist.get_rank(), dist.get_world_size()
    module = cut(gpt(), p)[rank]
    stage = PipelineStage(module, rank, p, torch.device("cpu"))
    schedule = THEIRS[name](stage, n_microbatches=MICROBATCHES, loss_fn=loss_of)
    x, y = text_batch(0, BATCH, CONTEXT)

    def step():
        module.zero_grad()
        losses = []
        schedule.step(*([x] if rank == 0 else []), **({"target": y, "losses": losses} if rank == p - 1 else {}))
        return torch.stack(losses).mean() if losses else None

    return step


def work_alone():
    """Forward and backward of this rank's layers on all micro-batches, without a message."""
    rank, p = dist.get_rank(), dist.get_world_size()
    module = cut(gpt(), p)[rank]
    x, y = text_batch(0, BATCH, CONTEXT)
    here = torch.randn(BATCH, CONTEXT, 128)

    def step():
        module.zero_grad()
        for i in range(MICROBATCHES):
            part = x.chunk(MICROBATCHES)[i] if rank == 0 else here.chunk(MICROBATCHES)[i].requires_grad_()
            out = module(part)
            (loss_of(out, y.chunk(MICROBATCHES)[i]) if rank == p - 1 else out.sum()).backward()

    return step


def measure():
    """On a rank: (seconds of a step by strategy and round, a last loss by strategy)."""
    steps = {"work alone": work_alone()}
    for name in OURS:
        steps[f"ours, {name}"], steps[f"theirs, {name}"] = our_step(name), their_step(name)
    seconds = in_turns(steps, until_all_have=True)
    losses = {name: step() for name, step in steps.items() if name != "work alone"}
    return seconds, {name: loss.item() for name, loss in losses.items() if loss is not None}


def emulated(schedule, costs):
    parts = cut(nn.Sequential(*(nn.Linear(4, 4) for _ in range(schedule.num_stages))), schedule.num_stages)
    mine = {stage: parts[stage] for stage, rank in schedule.rank_of.items() if rank == dist.get_rank()}
    x = torch.ones(schedule.num_microbatches, 4)
    for _ in range(2):
        dist.barrier()
        begin = time.perf_counter()
        run_pipeline(mine, x, x, F.mse_loss, schedule.num_microbatches, schedule, emulate=costs)
        dist.barrier()
    return time.perf_counter() - begin


def main():
    """Print our step over theirs in the same round, and measured over simulated time with emulated compute."""
    for p in (2, 4):
        run = launch(measure, p, timeout_s=300)
        losses = run[p - 1][1].values()
        assert max(losses) - min(losses) < 1e-4, losses
        seconds = run[0][0]
        alone = max(statistics.median(rank[0]["work alone"]) for rank in run)
        print(f"GPT of 8 layers, {p} ranks, {MICROBATCHES} micro-batches of {BATCH // MICROBATCHES} x {CONTEXT} tokens")
        for name, values in seconds.items():
            line = f"  {name:15s}{1000 * statistics.median(values):7.1f} ms"
            if name == "work alone":
                bubble = simulate(gpipe(p, MICROBATCHES)).bubble
                line += f"  bound, with a core for each rank: {1000 * alone:.1f} ms, with the bubble {1000 * alone * (1 + bubble):.1f}"
            if name.startswith("ours"):
                line += f"  {ratio(values, seconds[name.replace('ours', 'theirs')])} x theirs"
            print(line, flush=True)
    link, costs = Link(0.002, 10), Costs(0.02, 0.04, message_s=0.002)
    made = [gpipe(4, 8), one_f_one_b(4, 8), interleaved(4, 8, 2), zb_h1(4, 8), zb_v(4, 8), dualpipe_v(4, 8)]
    made += [one_f_one_b(8, 16), zb_v(8, 16)]
    for schedule in made:
        expected = simulate(schedule, costs).makespan_s
        measured = max(launch(emulated, schedule.num_ranks, schedule, costs, link=link, timeout_s=120))
        print(
            f"  {schedule.name}, {schedule.num_ranks} ranks: simulated {expected:.3f} s, measured {measured:.3f} s, {measured / expected:.3f}"
        )


if __name__ == "__main__":
    main()
