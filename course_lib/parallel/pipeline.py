"""Pipeline parallel: each rank holds some layers, and carries out its part of a schedule on micro-batches.

    rank 0   stage 0 ── activation (b/m, s, h) ─►            ◄─ its gradient ──
    rank 1                     stage 1 ── activation ─► …  loss of micro-batch i / m, backward

Any schedule of `course_lib.schedules` that `check` passes: the list of actions that is drawn and simulated is the one that runs.
"""

import time
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from course_lib.collectives.autograd import Group
from course_lib.layout import even_share
from course_lib.parallel.stage_messages import StageMessages
from course_lib.parallel.stages import defer_weights, weight_gradients
from course_lib.ranks.spans import span
from course_lib.schedules import Action, Schedule, check
from course_lib.schedules.simulation import Costs

# gloo sends a message when its receiver has asked for it. Eight actions ahead make a step of GPipe some 8 % shorter than two, and take
# the memory of as many inputs of a stage at most, which is little beside what a stage keeps for backward.
AHEAD = 8


def run_pipeline(
    stages: dict[int, nn.Module],
    x: torch.Tensor | None,
    target: torch.Tensor | None,
    loss_fn: Any,
    num_microbatches: int,
    schedule: Schedule,
    *,
    group: Group = None,
    emulate: Costs | None = None,
) -> torch.Tensor | None:
    """Forward and backward of one batch: every stage's gradients as in one process. Returns the loss on the last stage's rank.

    stages: this rank's, by number, each a module from one tensor to one tensor, as `pipeline_stages` gives them.
    x (b, …): the batch, wanted where stage 0 is;  target (b, …): wanted where the last stage is;  elsewhere None will do.
    loss_fn(output, target) is a mean over samples; with equal micro-batches the mean of theirs is that of the batch. Gradients are
    added to what is in `.grad`, as by backward(). A weight that first and last stage share gets both stages' gradient.

    communication: for each micro-batch and each border between ranks the activation forward and its gradient back; once a border
    its shape; once, between the first and the last rank, the gradient of a shared weight.
    What the next AHEAD actions need is expected beforehand, and comes while this rank computes; nobody waits for what was sent.
    In the order of the schedule, or not at all: a rank does nothing in between.
    emulate: let each action last as long as it says, by sleeping, if it takes less here: more stages than cores show their true
    shape. The trace says so.

    Raises ValueError if stages, schedule, group and num_microbatches do not go together, or m does not divide b.
    Source: Huang et al. 2019, "GPipe", section 2; Narayanan et al. 2021, section 2.2; the split backward: Qi et al. 2023.
    """
    run = _Run(stages, x, target, loss_fn, num_microbatches, schedule, group)
    actions = schedule.actions[run.rank]
    for at, action in enumerate(actions):
        for coming in actions[at : at + AHEAD]:
            run.messages.expect(coming)
        run.messages.wait_for(action)
        labels = {"stage": action.stage, "microbatch": action.microbatch}
        if emulate:
            labels["emulated_s"] = emulate.of(action.kind, action.stage)
        begin = time.perf_counter()
        with span(action.kind, **labels):
            result = run.do(action)
            if emulate:
                time.sleep(max(0.0, labels["emulated_s"] - (time.perf_counter() - begin)))
        run.messages.hand_on(action, result)
    return run.finish()


class _Run:
    """One rank's state during one batch."""

    def __init__(self, stages, x, target, loss_fn, m: int, schedule: Schedule, group: Group):
        self.stages, self.loss_fn, self.m, self.schedule, self.group = stages, loss_fn, m, schedule, group
        self.rank, self.last, self.rank_of = dist.get_rank(group), schedule.num_stages - 1, schedule.rank_of
        self._require_fit()
        device = next((p.device for stage in stages.values() for p in stage.parameters()), None)
        self.messages = StageMessages(schedule, group, device)
        self.inputs = self._microbatches(x, 0, "x")
        self.targets = self._microbatches(target, self.last, "target")
        self.live: dict[tuple[int, int], Any] = {}  # stage, micro-batch -> its input and output
        self.later: dict[tuple[int, int], list] = {}  # weight gradients that an I has left for its W
        self.losses: list[torch.Tensor] = []
        split = any(a.kind == "I" for a in schedule.actions[self.rank])
        self.deferring = {number: defer_weights(stage) for number, stage in stages.items() if split}

    def do(self, action: Action) -> torch.Tensor | None:
        """Compute. Returns what another stage wants: an activation, the gradient of an input, or nothing."""
        kind, stage, i = action
        if kind == "F":
            x = self.inputs[i] if stage == 0 else self.messages.take(action).requires_grad_()
            y = self.stages[stage](x)
            if stage == self.last:
                y = self.loss_fn(y, self.targets[i]) / self.m
                self.losses.append(y.detach())
            self.live[stage, i] = x, y
            self.messages.expect_gradient_like(stage, y)
            return y.detach()
        if kind == "W":
            weight_gradients(self.later.pop((stage, i)))
            return None
        x, y = self.live.pop((stage, i))
        grad = None if stage == self.last else self.messages.take(action)
        if kind == "B":
            y.backward(grad)
        else:
            with self.deferring[stage]() as later:
                y.backward(grad)
            self.later[stage, i] = later
        return x.grad

    def finish(self) -> torch.Tensor | None:
        """Wait for what is still being sent; add up the gradient of a shared weight; the loss, where the last stage is."""
        self._sum_shared_weight()
        self.messages.finish()
        return torch.stack(self.losses).sum() if self.losses else None

    def _sum_shared_weight(self) -> None:
        ends = {number: getattr(self.stages.get(number), "shared_weight", None) for number in (0, self.last)}
        first, last = self.rank_of[0], self.rank_of[self.last]
        mine = ends[0] if self.rank == first else ends[self.last]
        if first == last or self.rank not in (first, last) or mine is None or not mine.requires_grad:
            return
        self.messages.add_from(last if self.rank == first else first, mine.grad)

    def _microbatches(self, batch: torch.Tensor | None, stage: int, name: str) -> tuple[torch.Tensor, ...]:
        if self.rank_of[stage] != self.rank:
            return ()
        if batch is None:
            raise ValueError(f"rank {self.rank} has stage {stage} and needs {name}, the whole batch, not None.")
        even_share(len(batch), self.m, f"rank {self.rank}: the batch of {name}")
        return batch.chunk(self.m)

    def _require_fit(self) -> None:
        p, mine = dist.get_world_size(self.group), [s for s, r in self.rank_of.items() if r == self.rank]
        problem = check(self.schedule)
        problems = (
            (p != self.schedule.num_ranks, f"is for {self.schedule.num_ranks} ranks, and the group has {p}"),
            (self.m != self.schedule.num_microbatches,
             f"is for {self.schedule.num_microbatches} micro-batches, not {self.m}"),
            (problem, f"cannot be carried out: {problem}"),
            (sorted(mine) != sorted(self.stages), f"wants stages {sorted(mine)} here, not {sorted(self.stages)}"),
        )  # fmt: skip
        for wrong, why in problems:
            if wrong:
                raise ValueError(f"rank {self.rank}: {self.schedule.name} {why}.")
