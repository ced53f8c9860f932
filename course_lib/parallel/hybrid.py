"""Hybrid parallel: pipeline, data, context and tensor parallel at once, each over its own axis of a mesh of ranks.

    pp 2 × dp 2 × tp 2      stage 0                      stage 1
    copy 0                  rank 0 ─tp─ rank 1  ──pp──►  rank 4 ─tp─ rank 5
                              │dp         │dp              │dp         │dp
    copy 1                  rank 2 ─tp─ rank 3  ──pp──►  rank 6 ─tp─ rank 7

Nothing here is new but the order: cut the weights (tp), then the sequence (cp), then the layers (pp); then copy (dp). Whoever
holds the same parameters averages gradients (dp and cp); the norm for clipping is over all of them, each counted once.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer

from course_lib.layout import Layout, nearest_multiples
from course_lib.models.gpt import GPT
from course_lib.parallel.clip import clip_shards_
from course_lib.parallel.context import context_parallelize, local_positions, split_sequence
from course_lib.parallel.data import BucketedDataParallel
from course_lib.parallel.pipeline import run_pipeline
from course_lib.parallel.sharded import FullyShardedDataParallel
from course_lib.parallel.stages import parameters_of, pipeline_stages
from course_lib.parallel.tensor_model import splits, tensor_parallelize, whole
from course_lib.parallel.vocabulary import vocab_parallel_cross_entropy
from course_lib.parallel.zero import ShardedOptimizer
from course_lib.schedules import Schedule, one_f_one_b

DATA = "dp", "cp"  # along these axes ranks hold the same parameters and have different tokens


def make_groups(layout: Layout) -> dict[str, dist.ProcessGroup]:
    """This rank's process groups: "pp", "dp", "cp", "tp", and "data", along dp and cp. Every rank of the job calls it.

    Raises ValueError if the job has another number of ranks than the layout.
    """
    n = dist.get_world_size()
    if n != layout.world_size:
        raise ValueError(f"the layout {layout} has {layout.world_size} ranks, and this job {n}: they must agree.")
    axes = {axis: (axis,) for axis in ("pp", "dp", "cp", "tp")} | {"data": DATA}
    return {
        name: dist.new_subgroups_by_enumeration(list(map(list, layout.groups(*along))))[0]
        for name, along in axes.items()
    }


class HybridParallel:
    """A plain GPT and its optimizer on a mesh: one `step(x, y)` is one step of training on the whole batch, as in one process.

    Use, on every rank: `hybrid = HybridParallel(GPT(), Layout(pp=2, dp=2, tp=2), torch.optim.AdamW, num_microbatches=4, lr=1e-3)`,
    then `loss = hybrid.step(x, y)`. The model starts as rank 0 has it. The learning rate is that of the batch, whatever the layout:
    the gradient is the mean over all tokens, not a sum over ranks.

    num_microbatches: into how many parts each copy cuts its rows.  schedule: from (p, m) to the order of a pipeline, 1F1B unless given.
    zero: ZeRO's stage along dp and cp.  sequence_parallel: as in tensor_parallelize.  max_norm: clip the gradient to it; `grad_norm`
    is what it was.  options: the optimizer's, which must treat every element by itself (Adam, SGD, …).

    communication: that of each strategy along its axis; besides, a step sends 8 bytes to add up the loss, and 8 for the norm.
    Raises ValueError for a layout that has not as many ranks as the job; what tp, cp or pp cannot cut; a batch that dp and m do not
    divide; and for zero 2 or 3 with pp: every micro-batch would send all gradients, where a pipeline has them wait.
    Source: Narayanan et al. 2021, "Efficient Large-Scale Language Model Training on GPU Clusters Using Megatron-LM", section 3.
    """

    def __init__(
        self,
        model: GPT,
        layout: Layout,
        optimizer_cls: type[Optimizer] = torch.optim.AdamW,
        *,
        num_microbatches: int = 1,
        schedule: Callable[[int, int], Schedule] = one_f_one_b,
        zero: int = 0,
        sequence_parallel: bool = False,
        max_norm: float | None = None,
        **options: Any,
    ):
        if zero not in (0, 1, 2, 3):
            raise ValueError(f"zero is {zero!r}: it must be 0, 1, 2 or 3.")
        if zero > 1 and layout.pp > 1:
            raise ValueError(
                f"zero = {zero} would send all gradients once for each micro-batch of a pipeline (pp = {layout.pp}): take zero = 1, or pp = 1."
            )
        self.layout, self.zero, self.max_norm, self.m = layout, zero, max_norm, num_microbatches
        self.groups = make_groups(layout)
        self.coordinates = layout.coordinates(dist.get_rank())
        self.grad_norm: torch.Tensor | None = None
        # Each strategy starts its group as its first rank: over tp, then pp, then dp and cp, rank 0's weights come to all ranks.
        if layout.tp > 1:
            tensor_parallelize(model, self.groups["tp"], sequence_parallel=sequence_parallel)
        if layout.cp > 1:
            context_parallelize(model, self.groups["cp"])
        self.splits = splits(model)
        self.schedule = schedule(layout.pp, num_microbatches) if layout.pp > 1 else None
        self.stages = pipeline_stages(model, self.schedule, self.groups["pp"]) if self.schedule else {0: model}
        self._average(optimizer_cls, options)
        self.copies = {p: self._copies_of(name, p) for p, name in self.names.items()}

    def _average(self, optimizer_cls: type[Optimizer], options: dict) -> None:
        """Who keeps what along dp and cp, and how gradients become their mean there."""
        group = self.groups["data"]
        self.sharded = FullyShardedDataParallel(self.stages[0], group) if self.zero == 3 else None
        self.names = {p: name for stage in self.stages.values() for name, p in stage.named_parameters()}
        self.parameters = parameters_of(self.stages)
        self.averaged: BucketedDataParallel | None = None
        if self.zero in (1, 2):
            self.optimizer: Optimizer = ShardedOptimizer(
                self.parameters, optimizer_cls, group=group, shard_gradients=self.zero == 2, **options
            )
            return
        self.optimizer = optimizer_cls(self.parameters, **options)
        if self.zero == 0:
            self.averaged = BucketedDataParallel(nn.ModuleList(self.stages.values()), group)

    def _copies_of(self, name: str, p: nn.Parameter) -> int:
        """On how many ranks of the job the same values of a gradient are found when they are clipped."""
        along_data = dist.get_world_size(self.groups["data"]) if self.zero == 0 else 1
        along_tp = 1 if name in self.splits else self.layout.tp
        along_pp = 1
        if self.schedule and any(p is stage.shared_weight for stage in self.stages.values()):
            owner = self.schedule.rank_of  # the first and the last stage have it, often on two ranks
            along_pp = len({owner[0], owner[self.schedule.num_stages - 1]})
        return along_data * along_tp * along_pp

    def step(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Forward, backward and the optimizer's step. x, y (b, s): the whole batch on every rank; the loss of it, on every rank."""
        x, y = self._part_of_this_rank(x), self._part_of_this_rank(y)
        if self.schedule:
            loss = self._pipeline(x, y)
        else:
            loss = self._one_after_the_other(x, y)
        if self.averaged:
            self.averaged.finish_gradient_sync()
        if self.max_norm is not None:
            self.grad_norm = self._clip()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return self._mean_of_all_ranks(loss)

    def _part_of_this_rank(self, tokens: torch.Tensor) -> torch.Tensor:
        """This rank's rows, and of these its part of the sequence: (b, s) -> (b/dp, s/cp)."""
        dp, b = self.layout.dp, len(tokens)
        if b % (dp * self.m):
            raise ValueError(
                f"rank {dist.get_rank()}: a batch of {b} does not split over dp = {dp} copies of {self.m} micro-batches: "
                f"{nearest_multiples(b, dp * self.m)} would do."
            )
        share = b // dp
        rows = tokens[self.coordinates.dp * share :][:share]
        return split_sequence(rows, 1, self.groups["cp"]) if self.layout.cp > 1 else rows

    def _positions(self, x: torch.Tensor) -> torch.Tensor | None:
        if self.layout.cp == 1:
            return None
        return local_positions(x.shape[1] * self.layout.cp, self.groups["cp"], device=x.device)

    def _loss(self, logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Mean over the tokens of a micro-batch; logits (b, s, V/t)."""
        if self.layout.tp > 1:
            return vocab_parallel_cross_entropy(logits, y, group=self.groups["tp"])
        return F.cross_entropy(logits.flatten(0, 1), y.flatten())

    def _pipeline(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor | None:
        if 0 in self.stages:
            self.stages[0].positions = self._positions(x)
        with self._without_averaging():
            return run_pipeline(self.stages, x, y, self._loss, self.m, self.schedule, group=self.groups["pp"])

    def _one_after_the_other(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        model, positions, losses = self.sharded or self.stages[0], self._positions(x), []
        for rows, targets in zip(x.chunk(self.m), y.chunk(self.m), strict=True):
            loss = self._loss(model(rows, positions), targets) / self.m
            losses.append(loss.detach())
            with self._without_averaging() if len(losses) < self.m else nullcontext():
                loss.backward()
            if self.sharded:
                self.sharded.finish_gradient_sync()
        return torch.stack(losses).sum()

    def _without_averaging(self) -> AbstractContextManager:
        """Backward in here adds up gradients, and nothing is averaged."""
        return self.averaged.no_sync() if self.averaged else nullcontext()

    def _mean_of_all_ranks(self, loss: torch.Tensor | None) -> torch.Tensor:
        """The mean over the parts of the batch. The tp ranks of a last stage have the same one, other stages have none."""
        total = self.parameters[0].new_zeros((), dtype=torch.float64) if loss is None else loss.double()
        dist.all_reduce(total)
        return total * self.layout.pp / self.layout.world_size

    def _clip(self) -> torch.Tensor:
        if self.zero in (1, 2):
            pairs = self.optimizer.gradient_pieces()
        else:
            pairs = [(p, p.grad) for p in self.parameters if p.grad is not None]
        gradients, counts = [g for _, g in pairs], [self.copies[p] for p, _ in pairs]
        return clip_shards_(gradients, self.max_norm, self.parameters[0], None, counts)

    @torch.no_grad()
    def full_state_dict(self) -> dict[str, torch.Tensor]:
        """The plain model's state_dict, a copy on every rank. Communication: every rank gets all of it."""
        state = self.sharded.full_state_dict() if self.sharded else {}
        for stage in () if self.sharded else self.stages.values():
            state |= {name: t.detach() for name, t in stage.state_dict(keep_vars=True).items()}
        mine = {name: whole(t, self.splits.get(name)) for name, t in state.items()}
        everyone: list[Any] = [None] * self.layout.pp
        dist.all_gather_object(everyone, mine, group=self.groups["pp"])
        return {name: t for stage in everyone for name, t in stage.items()}
