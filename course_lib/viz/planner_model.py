"""What the planner explorer knows without a page: the marks of a search, and those that a choice leaves."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from math import floor, log10
from typing import Any

from course_lib.cost.candidate import LIMITS, ONE_STAGE, SCHEDULES, Candidate
from course_lib.cost.ranking import Search
from course_lib.cost.shapes import RECOMPUTE

MOST = 600  # marks
ANY = "any"
FILTERS = {  # what can be chosen, and how it is called
    "pp": "pp",
    "dp": "dp",
    "tp": "tp",
    "schedule": "schedule",
    "recompute": "recomputation",
    "zero": "ZeRO",
    "sequence_parallel": "sequence parallel",
}
KINDS = ("parameters", "gradients", "optimizer state", "activations")
PARTS = ("kernels", *(words.removeprefix("memory: ") for words in LIMITS.values()))
LIMIT_NAMES = ("arithmetic", *LIMITS.values())  # each beside its part
ALL_SCHEDULES = (ONE_STAGE, *SCHEDULES)


@dataclass(frozen=True, slots=True)
class Mark:
    """A candidate as it is drawn. rank: its place, from 1.  ways: how many candidates it stands for, itself among them.

    choices: what it has of each of FILTERS.  limit: a place in LIMIT_NAMES.  memory, seconds: by KINDS and PARTS, in whole
    units of the overview.
    """

    rank: int
    ways: int
    choices: tuple
    microbatch: int
    num_microbatches: int
    chunks: int
    limit: int
    memory: tuple[int, ...]
    seconds: tuple[int, ...]

    @property
    def layout(self) -> str:
        pp, dp, tp = self.choices[:3]
        return f"pp {pp} × dp {dp} × tp {tp}"


@dataclass(frozen=True)
class Overview:
    """A search as marks, the fastest first: the best of each choice of FILTERS, and of those the MOST fastest.

    So the best of what a choice leaves is the best of all candidates with that choice, if it has a mark.
    """

    search: Search

    @cached_property
    def per_second(self) -> int:
        """Units of time in a second: the fastest step has five digits."""
        best = self.search.candidates[0].total_s if self.search.candidates else 1.0
        return 10 ** max(0, 4 - floor(log10(best)))

    @cached_property
    def per_gb(self) -> int:
        """Units of memory in a GB: the limit has four digits."""
        return 10 ** max(0, 3 - floor(log10(max(self.search.limit_bytes, 1) / 1e9)))

    @cached_property
    def groups(self) -> list[tuple[int, Candidate, int]]:
        """Of each choice of FILTERS that fits, the fastest first: (rank, the fastest candidate, how many there are)."""
        found: dict[tuple, list] = {}
        for rank, c in enumerate(self.search.candidates, 1):
            found.setdefault(_choices(c), [rank, c, 0])[2] += 1
        return [tuple(group) for group in found.values()]

    @cached_property
    def marks(self) -> tuple[Mark, ...]:
        """The fastest first."""
        return tuple(self._mark(*group) for group in self.groups[:MOST])

    def _mark(self, rank: int, c: Candidate, ways: int) -> Mark:
        seconds = (c.time.compute_s - c.recomputation_s, *c.losses.values())
        return Mark(
            rank,
            ways,
            _choices(c),
            c.plan.microbatch,
            c.plan.num_microbatches,
            c.plan.chunks,
            LIMIT_NAMES.index(c.limit),
            _whole([size / 1e9 for size in vars(c.memory).values()], self.per_gb),
            _whole(seconds, self.per_second),
        )

    @cached_property
    def options(self) -> dict[str, list]:
        """What the marks have of each of FILTERS, in order."""
        orders = {"schedule": ALL_SCHEDULES.index, "recompute": RECOMPUTE.index}
        columns = zip(*(mark.choices for mark in self.marks)) if self.marks else [()] * len(FILTERS)
        return {name: sorted(set(column), key=orders.get(name)) for name, column in zip(FILTERS, columns)}

    def left(self, state: Mapping[str, Any]) -> list[Mark]:
        """The marks that have all that was chosen."""
        chosen = [(i, state[name]) for i, name in enumerate(FILTERS) if state.get(name, ANY) != ANY]
        return [mark for mark in self.marks if all(mark.choices[i] == value for i, value in chosen)]

    def chosen(self, state: Mapping[str, Any]) -> Mark | None:
        """The mark whose rank is state["mark"], if it is left; else the best that is."""
        left = self.left(state)
        return next((mark for mark in left if mark.rank == state.get("mark")), left[0] if left else None)

    @property
    def limit(self) -> int:
        """What the counted tensors may take, in units."""
        return round(self.search.limit_bytes / 1e9 * self.per_gb)


def _choices(c: Candidate) -> tuple:
    p = c.plan
    return p.pp, p.dp, p.tp, c.schedule, p.recompute, p.zero, p.sequence_parallel


def _whole(parts: Any, scale: int) -> tuple[int, ...]:
    """Parts in whole units; their sum is the rounded sum."""
    ends = [0, *(floor(end * scale + 0.5) for end in accumulate(parts))]
    return tuple(after - before for before, after in pairwise(ends))
