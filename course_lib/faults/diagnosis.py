"""Two questions that find most faults of a distributed run: do the ranks still hold the same, and did they say the same?

`copies(states)` answers the first from the ranks' tensors, `difference(trace, healthy)` the second from two traces.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from string import ascii_lowercase
from typing import NamedTuple

import torch

from course_lib.trace import Trace


@dataclass(frozen=True, repr=False)
class Copies:
    """Which ranks hold the same values. It prints as a table: a row a tensor, a letter a rank.

    letters: name -> one letter a rank; equal letters are equal to the last bit, "·" is a rank that has no such tensor.
    apart: name -> the largest difference between two ranks that have one of the same shape; nan if a value is not a number.
    """

    letters: dict[str, str]
    apart: dict[str, float]

    def __repr__(self) -> str:
        ranks = len(next(iter(self.letters.values()), ""))
        wide = max(len("rank"), *map(len, self.letters)) if self.letters else len("rank")
        lines = [f"{'rank':<{wide}}  {' '.join(f'{r:>2}' for r in range(ranks))}   furthest apart"]
        for name, row in self.letters.items():
            gap = f"{self.apart[name]:.1e}" if self.apart[name] else "0"
            lines.append(f"{name:<{wide}}  {' '.join(f'{letter:>2}' for letter in row)}   {gap}")
        return "\n".join(lines)


def copies(states: Iterable[Mapping[str, torch.Tensor]]) -> Copies:
    """Compare what the ranks hold: one mapping from names to tensors for each rank, in the order of the ranks."""
    states = list(states)
    letters, apart = {}, {}
    for name in dict.fromkeys(name for state in states for name in state):
        kinds: list[torch.Tensor] = []
        row = ""
        for state in states:
            if name not in state:
                row += "·"
                continue
            value = state[name].detach()
            known = (i for i, kind in enumerate(kinds) if _same(kind, value))
            number = next(known, len(kinds))
            if number == len(kinds):
                kinds.append(value)
            row += ascii_lowercase[number] if number < len(ascii_lowercase) else "?"
        letters[name], apart[name] = row, _furthest(kinds)
    return Copies(letters, apart)


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and bool(((a == b) | (a.isnan() & b.isnan())).all())


def _furthest(kinds: Sequence[torch.Tensor]) -> float:
    gaps = [0.0]
    for i, a in enumerate(kinds):
        gaps += [(a.double() - b.double()).abs().max().item() for b in kinds[:i] if a.shape == b.shape]
    return max(gaps) if all(gap == gap for gap in gaps) else float("nan")


class Call(NamedTuple):
    """What a rank called: of a collective the ranks of its group, of a message this rank and the other."""

    operation: str
    ranks: tuple[int, ...]
    nbytes: int

    def __str__(self) -> str:
        among = ", ".join(map(str, self.ranks))
        return f"{self.operation} among ranks {among}, {self.nbytes:,} bytes"


def operations(trace: Trace, rank: int) -> Counter[Call]:
    """How often a rank called what. Spans are left out; `trace.during("step", last=1)` leaves one step in."""
    return Counter(
        Call(event.operation, event.ranks if event.kind == "collective" else (rank, *event.peers), event.nbytes)
        for event in trace.by_rank[rank]
        if not event.is_span
    )


@dataclass(frozen=True, repr=False)
class Difference:
    """What ranks called less (missing) and more (extra) often than in a healthy run: rank -> calls. It prints both."""

    missing: tuple[Counter[Call], ...]
    extra: tuple[Counter[Call], ...]

    def __bool__(self) -> bool:
        return any(self.missing) or any(self.extra)

    def __repr__(self) -> str:
        lines = [*_lines("missing", self.missing), *_lines("extra", self.extra)]
        return "\n".join(lines) or "the same calls, equally often, with as many bytes"


def difference(trace: Trace, healthy: Trace) -> Difference:
    """The calls of two runs of the same job, rank by rank; their order does not count.

    Raises ValueError for runs of different numbers of ranks.
    """
    if trace.world_size != healthy.world_size:
        raise ValueError(
            f"one run has {trace.world_size} ranks, the other {healthy.world_size}: compare runs of one layout."
        )
    pairs = [(operations(trace, rank), operations(healthy, rank)) for rank in range(trace.world_size)]
    return Difference(tuple(b - a for a, b in pairs), tuple(a - b for a, b in pairs))


def _lines(word: str, by_rank: tuple[Counter[Call], ...]) -> list[str]:
    callers: dict[tuple[Call, int], list[int]] = {}
    for rank, calls in enumerate(by_rank):
        for call, count in calls.items():
            callers.setdefault((call, count), []).append(rank)
    return [
        f"{word} {count} × {call}" + ("" if tuple(ranks) == call.ranks else f", on ranks {ranks}")
        for (call, count), ranks in callers.items()
    ]
