"""Schedules with two chunks on each rank in a V: rank r holds stage r on the way down and stage 2p − 1 − r on the way up.

So rank 0 has the first stage and the last, and backward can start where forward ends, on the same rank. In both the
weight gradients fill gaps. `down` and `up` are a rank's two stages.
"""

from collections import Counter, deque

from course_lib.schedules.loops import require_positive
from course_lib.schedules.schedule import Action, Schedule


def zb_v(p: int, m: int) -> Schedule:
    """Zero bubble with the memory of 1F1B: no rank is ever idle if F, I and W are equally long and m is at least 2p − 1.

    Source: Qi et al. 2024, "Pipeline Parallelism with Controllable Memory", section 4 and appendix.
    """
    require_positive(p=p, m=m)
    return Schedule("ZB-V", tuple(_zb_v(p, m, rank) for rank in range(p)))


def _zb_v(p: int, m: int, rank: int) -> tuple[Action, ...]:
    full = max(m, 2 * p - 1)  # written for at least so many; what is not there is left out
    down, up = rank, 2 * p - 1 - rank
    line = _Line()
    line.add(("F", down), times=2 * (p - rank) - 1)
    line.add(("F", up), ("F", down), times=rank)
    line.add(("F", up), ("I", up), ("W", up), times=p - rank)
    while line.count["F", up] < full:
        if line.count["F", down] < full:
            line.add(("F", down))
        line.add(("I", down), ("W", down), ("F", up), ("I", up), ("W", up))
    line.add(("I", down), ("I", up), times=rank)
    line.add(("I", down), ("W", down), times=p - rank)
    line.add(("W", up), times=full - line.count["W", up])
    line.add(("W", down), times=full - line.count["W", down])
    return tuple(action for action in line.actions if action.microbatch < m)


def dualpipe_v(p: int, m: int) -> Schedule:
    """A forward of one direction beside a backward of the other, so that messages of one hide behind the other's computing.

    Where PyTorch and its authors run the two at once, here the forward comes first. m must be at least 2p, else ValueError.
    Source: DeepSeek-AI 2024, "DeepSeek-V3 Technical Report", section 3.2.1, halved to a V as in their released code.
    """
    require_positive(p=p, m=m)
    if m < 2 * p:
        raise ValueError(
            f"DualPipeV needs at least 2p = {2 * p} micro-batches, not m = {m}: take more, or another schedule."
        )
    return Schedule("DualPipeV", tuple(_dualpipe_v(p, m, rank) for rank in range(p)))


def _dualpipe_v(p: int, m: int, rank: int) -> tuple[Action, ...]:
    down, up, below = rank, 2 * p - 1 - rank, p - 1 - rank  # below: ranks further down
    line = _Line()
    line.add(("F", down), times=2 * below)
    line.add(("F", down), ("F", up), times=rank + 1)
    for _ in range(below):
        line.add(("I", up))
        line.add_pending()
        line.add(("F", up))
    line.add(("F", down), ("B", up), ("F", up), ("B", down), times=m - 2 * p + rank + 1)
    line.add(("B", up), ("F", up), ("B", down), times=below)
    # Of the last 2(rank + 1) backwards the second half leaves its weight gradients for later.
    for number in range(2 * (rank + 1)):
        line.add(("B" if number <= rank else "I", down if number % 2 else up))
    for _ in range(below):
        line.add_pending()
        line.add(("I", down))
    while line.pending:
        line.add_pending()
    return tuple(line.actions)


class _Line:
    """A rank's actions as they are written: each kind of action of a stage takes that stage's next micro-batch."""

    def __init__(self):
        self.actions: list[Action] = []
        self.count: Counter[tuple[str, int]] = Counter()  # I counts a B as well, and so does W
        self.pending: deque[Action] = deque()  # weight gradients whose I is done

    def add(self, *pattern: tuple[str, int], times: int = 1) -> None:
        for kind, stage in pattern * times:
            counted = "I" if kind == "B" else kind
            action = Action(kind, stage, self.count[counted, stage])
            self.actions.append(action)
            self.count[counted, stage] += 1
            if kind == "I":
                self.pending.append(action._replace(kind="W"))

    def add_pending(self) -> None:
        """The oldest weight gradient that is left, if there is one."""
        if self.pending:
            self.actions.append(self.pending.popleft())
