"""A plain model cut into pipeline stages, whose state dicts together are the plain one's; and backward in two parts."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from course_lib.collectives.autograd import Group
from course_lib.models.gpt import GPT, positions_of
from course_lib.parallel.broadcast_model import start_as_one
from course_lib.schedules import Schedule


class GPTStage(nn.Module):
    """Some consecutive blocks of a GPT, under the names that they have there: (b, s, h) -> (b, s, h).

    The first stage takes tokens (b, s) and has the embeddings; the last gives logits (b, s, V) and has the last norm and the head.
    shared_weight: the weight that those two have in common, where this is one of them and the GPT is tied; else None.
    positions: for a first stage whose tokens are a part of a sequence, where in it they stand.
    """

    shared_weight: nn.Parameter | None = None
    positions: torch.Tensor | None = None  # (s,): where each token stands; 0, 1, 2 … unless set

    def __init__(self, gpt: GPT, start: int, stop: int):
        super().__init__()
        self.context, self.is_first, self.is_last = gpt.context, start == 0, stop == len(gpt.blocks)
        if self.is_first:
            self.wte, self.wpe = gpt.wte, gpt.wpe
        self.blocks = nn.ModuleDict({str(i): gpt.blocks[i] for i in range(start, stop)})
        if self.is_last:
            self.ln_f, self.head = gpt.ln_f, gpt.head
        if gpt.head.weight is gpt.wte.weight and (self.is_first or self.is_last):
            self.__dict__["shared_weight"] = gpt.wte.weight  # no parameter of its own

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.is_first:
            positions = positions_of(x, self.context) if self.positions is None else self.positions
            x = self.wte(x) + self.wpe(positions)
        for block in self.blocks.values():
            x = block(x)
        return self.head(self.ln_f(x)) if self.is_last else x


def cut(model: nn.Module, num_stages: int) -> list[nn.Module]:
    """A GPT of `course_lib.models`, or any nn.Sequential, as num_stages modules, one after the other.

    Blocks, or the parts of a Sequential, are shared out as equally as their number allows. Parameters are the model's own.
    Raises ValueError for more stages than there are parts, TypeError for another kind of model.
    """
    if isinstance(model, GPT):
        parts, make = len(model.blocks), lambda a, b: GPTStage(model, a, b)
    elif isinstance(model, nn.Sequential):
        named = list(model.named_children())
        parts, make = len(named), lambda a, b: nn.Sequential(OrderedDict(named[a:b]))
    else:
        raise TypeError(f"a {type(model).__name__} cannot be cut: give a GPT of course_lib.models or an nn.Sequential.")
    if not 1 <= num_stages <= parts:
        raise ValueError(f"{num_stages} stages cannot be cut from {parts} parts: ask for 1 to {parts} stages.")
    bounds = [stage * parts // num_stages for stage in range(num_stages + 1)]
    return [make(a, b) for a, b in zip(bounds, bounds[1:], strict=False)]


def pipeline_stages(model: nn.Module, schedule: Schedule, group: Group = None) -> dict[int, nn.Module]:
    """This rank's stages of the model, by number, with the weights of the group's rank 0.

    Communication: a broadcast of every parameter. What belongs to other ranks is let go with `model`.
    Raises as `cut` does, and ValueError if the group has not as many ranks as the schedule.
    """
    rank, p = dist.get_rank(group), dist.get_world_size(group)
    if p != schedule.num_ranks:
        raise ValueError(f"rank {rank}: {schedule.name} is for {schedule.num_ranks} ranks, and the group has {p}.")
    start_as_one(model, group)
    stages = cut(model, schedule.num_stages)
    return {number: stages[number] for number, owner in sorted(schedule.rank_of.items()) if owner == rank}


def parameters_of(stages: dict[int, nn.Module]) -> list[nn.Parameter]:
    """What this rank's optimizer steps: every parameter once, also one that its first and last stage share."""
    return list(dict.fromkeys(p for stage in stages.values() for p in stage.parameters()))


class DeferringLinear(nn.Linear):
    """nn.Linear whose weight gradient can be left for later: inside `deferring`, backward computes the others only."""

    later: list | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _Linear.apply(x, self.weight, self.bias, self)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: Any, layer: DeferringLinear):
        ctx.save_for_backward(x, weight)
        ctx.layer = layer
        return F.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
        rows, inputs = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        grad_weight = None
        if needs_weight and ctx.layer.later is not None:
            ctx.layer.later.append((ctx.layer.weight, rows, inputs))
        elif needs_weight:
            grad_weight = rows.T @ inputs
        return grad @ weight if needs_x else None, grad_weight, rows.sum(0) if needs_bias else None, None


def defer_weights(module: nn.Module) -> Callable[[], Any]:
    """Make every nn.Linear of the module a DeferringLinear; returns a context manager `deferring()` for its backward.

    deferring = defer_weights(stage)
    with deferring() as later:
        y.backward(grad)              # I: the gradient of the input, of biases and norms
    weight_gradients(later)           # W: the products that were left, one for each linear
    """
    linears = [m for m in module.modules() if isinstance(m, nn.Linear)]
    for linear in linears:
        linear.__class__ = DeferringLinear

    @contextmanager
    def deferring() -> Iterator[list]:
        later: list = []
        for linear in linears:
            linear.later = later
        try:
            yield later
        finally:
            for linear in linears:
                linear.later = None

    return deferring


@torch.no_grad()
def weight_gradients(later: list) -> None:
    """Add the products that backward left to the weights' gradients."""
    for weight, rows, inputs in later:
        if weight.grad is None:
            weight.grad = rows.T @ inputs
        else:
            weight.grad.addmm_(rows.T, inputs)
    later.clear()
