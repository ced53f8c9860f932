"""What a pipeline schedule is: for each rank, its actions in order. A value, with no process and no clock in it."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple


class Action(NamedTuple):
    """One thing that a rank does for one stage and one micro-batch, written as PyTorch writes it: "1F3".

    kind: "F" forward; "B" backward, all of it; or in its place "I", the gradient of the stage's input, and later "W", that of its
    weights.
    """

    kind: str
    stage: int
    microbatch: int

    def __str__(self) -> str:
        return f"{self.stage}{self.kind}{self.microbatch}"

    @property
    def needs(self) -> tuple[tuple[str, int, int], ...]:
        """What must have ended before, as (kind, stage, microbatch), where "I" stands for a "B" as well."""
        kind, stage, microbatch = self
        if kind == "F":
            return (("F", stage - 1, microbatch),) if stage else ()
        if kind == "W":
            return (("I", stage, microbatch),)
        return ("F", stage, microbatch), ("I", stage + 1, microbatch)

    @property
    def gives(self) -> tuple[str, int, int]:
        """What others may wait for when this has ended."""
        return ("I" if self.kind == "B" else self.kind), self.stage, self.microbatch


@dataclass(frozen=True)
class Schedule:
    """Who does what, in which order: actions[rank] is a tuple of Actions. When, only `simulate` or a run can say.

    A rank waits at an action until what that needs has come, and does nothing else meanwhile. Which rank holds a stage is
    said by the actions themselves. Whether the whole can be carried out, `check` says.
    """

    name: str
    actions: tuple[tuple[Action, ...], ...]

    @cached_property
    def num_ranks(self) -> int:
        """p, the ranks of the pipeline."""
        return len(self.actions)

    @cached_property
    def num_stages(self) -> int:
        """Stages of the model: p times the chunks of a rank."""
        return 1 + max((a.stage for rank in self.actions for a in rank), default=-1)

    @cached_property
    def num_microbatches(self) -> int:
        """m, the micro-batches of a step."""
        return 1 + max((a.microbatch for rank in self.actions for a in rank), default=-1)

    @cached_property
    def rank_of(self) -> dict[int, int]:
        """The rank that holds each stage."""
        return {a.stage: rank for rank, actions in enumerate(self.actions) for a in actions}

    def __str__(self) -> str:
        head = f"{self.name}: {self.num_ranks} ranks, {self.num_stages} stages, {self.num_microbatches} micro-batches"
        rows = (f"rank {rank}: {' '.join(map(str, actions))}" for rank, actions in enumerate(self.actions))
        return "\n".join((head, *rows))


def parse(name: str, rows: Iterable[str]) -> Schedule:
    """A schedule from text, a row of actions for each rank: parse("mine", ["0F0 0B0", "1F0 1B0"]).

    Raises ValueError for what is no action.
    """
    return Schedule(name, tuple(tuple(map(_action, row.split())) for row in rows))


def _action(text: str) -> Action:
    for kind in "FBIW":
        stage, found, microbatch = text.partition(kind)
        if found and stage.isdecimal() and microbatch.isdecimal():
            return Action(kind, int(stage), int(microbatch))
    raise ValueError(f"{text!r} is no action: write the stage, then F, B, I or W, then the micro-batch, as in 1F3.")
