"""The story of a failed run as text: who failed first, at which line of the notebook, what the others did, what to try."""

import linecache
import re
import signal

from course_lib.numbers import columns
from course_lib.ranks.failure import Frame, RankEnd
from course_lib.ranks.ledger_reader import Entry
from course_lib.ranks.text import (
    clipped,
    doing,
    for_whom,
    listed,
    name_of,
    operation_of,
    ranks_listed,
    source,
    user_frames,
    where,
)

Waiting = dict[
    int, tuple[Entry, tuple[int, ...]]
]  # rank -> the operation it stands still in, and whom that still lacks

_HINTS = (
    (
        r"can't allocate memory|Unable to allocate|MemoryError|bad_alloc",
        "make it smaller, or raise memory_limit_gb in launch().",
    ),
    (r"EOF when reading a line", "a rank has no keyboard: pass the value to launch() as an argument."),
    (r"name '(\w+)' is not defined", "run the cell that defines it, then this one again."),
    (r"No module named", "a rank imports what your function imports; is the module installed or beside the notebook?"),
    (
        r"Default process group has (not|already)",
        "launch() has already joined the process group; leave init_process_group out.",
    ),
    (
        r"Invalid rank|invalid peer|rank .* out of range|not in (the )?group",
        "ranks count from 0 to world size − 1, inside their group.",
    ),
    (
        r"element 0 of tensors does not require grad",
        "was backward called under no_grad, or on a tensor that came over the network?",
    ),
)


class RankError(RuntimeError):
    """A rank failed. `rank` is the first that did, `ends` how every rank ended, `summary` one line; str() is the report."""

    def __init__(self, summary: str, report: str, rank: int | None, ends: list[RankEnd]):
        super().__init__(report)
        self.summary = summary
        self.rank = rank
        self.ends = ends

    @property
    def stacks(self) -> dict[int, tuple[Frame, ...]]:
        """Each rank's Python stack (file, line, function), outermost frame first, where it is known."""
        return {end.rank: end.stack for end in self.ends if end.stack}

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]  # IPython: the report alone, without the frames of launch()


class RankTimeout(RankError):
    """The ranks did not finish within `timeout_s`."""


def describe_failure(cause: RankEnd, ends: list[RankEnd], memory_limit_bytes: int | None) -> RankError:
    """The error to raise for a run in which `cause` was the first failure."""
    who = f"rank {cause.rank} of {len(ends)}"
    returned = [end for end in ends if end.how == "returned"]
    hint = ""
    if cause.is_consequence and returned:
        names = listed([f"rank {end.rank}" for end in returned])
        summary = f"{names} returned while {name_of(cause.rank)} was still in {doing(cause.stack) or 'a collective'}"
        hint = (
            "every rank must take part in every collective of its group, in the same order: look for an early return."
        )
    elif cause.how == "raised":
        summary = f"{who} raised {cause.type}" + (f": {clipped(cause.message)}" if cause.message else "")
        hint = next((text for pattern, text in _HINTS if re.search(pattern, f"{cause.type}: {cause.message}")), "")
        if memory_limit_bytes and "memory_limit_gb" in hint:
            hint = f"the limit is {memory_limit_bytes / 2**30:.1f} GiB a rank: " + hint
    elif cause.how == "killed":
        name = (
            signal.Signals(-cause.status).name if -cause.status in list(signal.Signals) else f"signal {-cause.status}"
        )
        summary = f"{who} was killed by {name}"
        if name == "SIGKILL":
            hint = "if you did not kill it, the system did, most often because memory ran out: use fewer ranks or less memory."
    else:
        summary = f"{who} left with exit status {cause.status} before its function returned"
        hint = "return from the function instead of ending the process."

    lines = [summary, "", *_place(cause)]
    others = [end for end in ends if end.rank != cause.rank]
    if others:
        lines += ["", "The other ranks:", *table(others, {})]
    if hint:
        lines += ["", f"Try: {hint}"]
    return RankError(summary.splitlines()[0], "\n".join(lines), cause.rank, ends)


def describe_timeout(ends: list[RankEnd], timeout_s: float, waiting: Waiting) -> RankTimeout:
    """The error to raise when time ran out: every rank's stack, in the lines of the notebook."""
    late = [end for end in ends if end.how == "stopped"]
    busy = [end.rank for end in late if end.rank not in waiting]
    if busy and len(busy) < len(late):
        waits = [rank for rank in waiting if set(waiting[rank][1]) & set(busy)]
        summary = f"{ranks_listed(busy)} {_were(busy)} still running after {timeout_s:g} s"
        if waits:
            them = "it" if len(busy) == 1 else "them"
            summary += f", and {ranks_listed(waits)} waited for {them} in {operation_of(waiting[waits[0]][0])}"
    else:
        who = [end.rank for end in late]
        everybody = f"all {len(ends)} ranks" if len(ends) > 2 else "both ranks"
        name = everybody if len(late) == len(ends) > 1 else ranks_listed(who) if who else "no rank"
        summary = f"{name} {_were(who)} still running after {timeout_s:g} s"
    lines = [summary, "", "Where each rank was:", *table(ends, waiting), ""]
    for end in late:
        stack = user_frames(end.stack)
        if len(stack) > 1:
            lines += [f"Stack of {name_of(end.rank)}:", *(f"  {where(f)}   {source(f)}" for f in stack), ""]
    lines += [
        "Try: a rank that waits in a collective waits for a rank that has not called it, or that called another one first.",
        "If the work is only slow, give launch() a larger timeout_s.",
    ]
    return RankTimeout(summary, "\n".join(lines), late[0].rank if late else None, ends)


def _were(ranks: list[int]) -> str:
    return "was" if len(ranks) == 1 else "were"


def where_ranks_were(ends: list[RankEnd], waiting: Waiting) -> str:
    """A line for each rank: what it was doing when it was stopped."""
    return "\n".join(table(ends, waiting))


def _place(end: RankEnd) -> list[str]:
    """The line that failed with the lines around it, then who called it."""
    user = user_frames(end.stack)
    if not user:
        return end.text.rstrip().splitlines()[-15:]
    file, number, name = user[-1]
    inside = doing(end.stack)
    lines = [f"{name_of(end.rank)} was at {where(user[-1])}" + (f", inside {inside}:" if inside else ":")]
    for n in range(max(1, number - 2), number + 3):
        text = linecache.getline(file, n).rstrip()
        if text or n == number:
            lines.append(f"  {'→' if n == number else ' '} {n:4d}  {text}")
    lines += [f"  called from {where(frame)}:  {source(frame)}" for frame in reversed(user[:-1])]
    return lines


def table(ends: list[RankEnd], waiting: Waiting) -> list[str]:
    """One line a rank: how it ended or what it waits for, and its place in the learner's code."""
    rows = []
    for end in ends:
        user = user_frames(end.stack)
        inside = doing(end.stack)
        if end.how == "returned":
            what = "returned"
        elif end.how == "raised" and end.is_consequence:
            what = f"lost its connection in {inside}" if inside else "lost its connection"
        elif end.how == "raised":
            what = f"raised {end.type}"
        elif end.how == "stopped" and end.rank in waiting:
            entry, needs = waiting[end.rank]
            what = f"waits in {operation_of(entry)}{for_whom(needs)}"
            user = list(entry.site.stack) or user
        elif end.how == "stopped":
            what = f"was in {inside}" if inside else "was running" if user else "was stopped"
        else:
            what = f"was {end.how}" if end.how == "killed" else "left"
        place = f"{where(user[-1])}:  {source(user[-1])}" if user else ""
        rows.append((f"  {name_of(end.rank)}", what, place))
    return columns(rows, left=3)
