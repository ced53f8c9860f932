"""What each rank of a training run does. torch.distributed is initialised; whether by launch or by torchrun makes no difference."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from course_lib import checkpoint
from course_lib.checkpoint.folder import found
from course_lib.cost.hardware import GPUS
from course_lib.cost.shapes import Transformer
from course_lib.data import text_batch
from course_lib.models.gpt import GPT
from course_lib.parallel.hybrid import HybridParallel
from course_lib.train.options import VOCABULARY, Options, check
from course_lib.train.progress import Progress


def train(
    options: Options,
    device: torch.device | str = "cpu",
    resume: bool = False,
    after_step: Callable[[int], Any] | None = None,
) -> dict[str, Any]:
    """Train from the newest checkpoint, or from the start, to the last step; every rank calls it and gets the same.

    resume: what rank 0 says counts.
    Returns {"losses": of every step since the start, "steps": how many of them were made now, "seconds", "tokens_per_s"}.
    after_step(steps done) is called on each rank.
    Raises ValueError as `check` and `checkpoint.load` do.
    """
    layout = check(options, dist.get_world_size())
    torch.manual_seed(options.seed + dist.get_rank())  # what counts are the weights of rank 0
    model = gpt(options)
    num_parameters = sum(p.numel() for p in model.parameters())
    hybrid = HybridParallel(
        model.to(device, getattr(torch, options.dtype)),
        layout,
        torch.optim.AdamW,
        num_microbatches=options.num_microbatches,
        schedule=options.make_schedule,
        zero=options.zero,
        sequence_parallel=options.sequence_parallel,
        max_norm=options.max_norm,
        lr=options.lr,
    )
    losses, newest = [], _newest(options.checkpoint if resume else None)
    if newest is not None:
        losses = checkpoint.load(hybrid, newest)["losses"]
    first, begin = len(losses), time.perf_counter()
    progress = Progress(options, layout, num_parameters, flops_per_token(options), peak_flops(options, device))
    if dist.get_rank() == 0:
        progress.begin(first)
    for step in range(first, options.steps):
        for group in hybrid.optimizer.param_groups:
            group["lr"] = options.lr_at(step)
        x, y = (tokens.to(device) for tokens in batch_of(options, step))
        losses.append(hybrid.step(x, y).item())
        if dist.get_rank() == 0:
            progress.show(step + 1, losses[-1])
        if options.checkpoint and ((step + 1) % options.every == 0 or step + 1 == options.steps):
            checkpoint.save(hybrid, options.checkpoint, step + 1, {**options.as_json(), "losses": losses})
        if after_step:
            after_step(step + 1)
    seconds = time.perf_counter() - begin
    if dist.get_rank() == 0:
        progress.end(losses)
    tokens = (options.steps - first) * options.batch * options.context
    return {"losses": losses, "steps": options.steps - first, "seconds": seconds, "tokens_per_s": tokens / seconds}


def gpt(options: Options) -> GPT:
    """A model of the sizes asked for."""
    return GPT(VOCABULARY, options.context, options.width, options.layers, options.heads)


def batch_of(options: Options, step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The whole batch of a step, x and y (batch, context): a function of the step, so that a resumed run sees what is next."""
    return text_batch(options.seed * 1_000_000 + step, options.batch, options.context)


def flops_per_token(options: Options) -> float:
    """FLOPs that training needs for a token: 6 for each parameter in a matrix, and those of attention."""
    shape = Transformer("GPT", options.layers, options.width, options.heads, VOCABULARY, options.context)
    return shape.model_flops(1) / options.context


def peak_flops(options: Options, device: torch.device | str) -> float | None:
    """FLOP/s that all devices together can do at most, in 16 bits, if that is known."""
    peak = options.peak_tflops
    if peak is None and torch.device(device).type == "cuda":
        name = torch.cuda.get_device_name(device)
        peak = next((gpu.tflops for key, gpu in GPUS.items() if key in name), None)
    return peak and peak * 1e12 * dist.get_world_size()


def _newest(folder: Path | None) -> Path | None:
    """The newest checkpoint in the folder that rank 0 was given, as it sees it; None if there is none."""
    newest = [found(folder)[-1:] if folder and dist.get_rank() == 0 else []]
    dist.broadcast_object_list(newest, src=0)
    return newest[0][0] if newest[0] else None
