"""The story of ranks that wait for ever, or whose calls do not belong together: a sentence, the lines, a table, a hint."""

from course_lib.numbers import columns
from course_lib.ranks.failure import RankEnd
from course_lib.ranks.ledger_reader import Entry
from course_lib.ranks.match import Mismatch
from course_lib.ranks.report import RankError, Waiting, table
from course_lib.ranks.stall import Stall
from course_lib.ranks.text import for_whom, listed, name_of, operation_of, ranks_listed, source, tensors_of, where

_IN_ORDER = "every rank must make the same collective calls of a group, in the same order"


class RankDeadlock(RankError):
    """Ranks could never have gone on: they waited for each other, or for one that had ended.

    waiting: for each such rank the operation that it stood still in.
    """

    waiting: dict[int, str]


class RankMismatch(RankError):
    """The ranks called what does not belong together; the result would have been wrong, or would never have come."""


def describe_mismatch(mismatch: Mismatch, ends: list[RankEnd], waiting: Waiting) -> RankMismatch:
    """The error to raise for two calls that meet and do not agree."""
    one, other = sorted(mismatch.entries, key=lambda entry: entry.rank)
    a, b = name_of(one.rank), name_of(other.rank)
    both = operation_of(one)
    if mismatch.kind == "order":
        summary = f"{a} and {b} make the same two calls of {both} in opposite order"
        hint = f"{_IN_ORDER}; here two different tensors were added up, in this call and in the one before."
    elif mismatch.number is None:
        summary = f"{a} sends {tensors_of(one)} and {b} receives {tensors_of(other)}"
        if one.call["operation"] == "recv":
            summary = f"{b} sends {tensors_of(other)} and {a} receives {tensors_of(one)}"
        hint = "a message is received into a tensor of the sender's size and dtype."
    elif mismatch.kind == "operation":
        summary = f"{a} calls {both} where {b} calls {operation_of(other)}"
        hint = f"{_IN_ORDER}; look for a branch that only some ranks take."
    elif mismatch.kind == "reduction":
        summary = f"{a} asks for the {one.call['reduce']} and {b} for the {other.call['reduce']} in the same {both}"
        hint = "all ranks must ask for the same reduction."
    elif mismatch.kind == "root":
        summary = f"in the same {both}, {a} names rank {one.call['root']} as the root and {b} rank {other.call['root']}"
        hint = "the root (src or dst) is one rank, the same in every rank's call."
    else:
        summary = f"{a} hands in {tensors_of(one)} and {b} {tensors_of(other)} to the same {both}"
        hint = (
            "all ranks must hand in the same number of values, of the same dtype."
            if mismatch.kind == "size"
            else "all ranks must hand in the same dtype."
        )
    lines = [summary, ""]
    if mismatch.number is not None:
        lines += [f"It is collective number {mismatch.number + 1} of {_group(one)}:"]
    lines += _calls([one, other])
    others = [end for end in ends if end.rank not in (one.rank, other.rank)]
    if others:
        lines += ["", "The other ranks:", *table(others, waiting)]
    return RankMismatch(summary, "\n".join([*lines, "", f"Try: {hint}"]), one.rank, ends)


def describe_stall(stall: Stall, ends: list[RankEnd], waiting: Waiting) -> RankDeadlock:
    """The error to raise when it is proven that ranks can never go on."""
    waits = {rank: operation_of(entry) for rank, (entry, _) in stall.waiting.items()}
    if stall.gone:
        gone = ranks_listed(stall.gone)
        for_them = [r for r, (_, needs) in stall.waiting.items() if set(needs) & set(stall.gone)]
        first = for_them[0]
        was = "was" if len(for_them) == 1 else "were"
        summary = f"{gone} returned while {ranks_listed(for_them)} {was} still in {waits[first]}"
        hint = _hint_for_gone(stall.waiting[first][0], gone)
    elif len(stall.cycle) == 1:
        summary = f"{name_of(stall.cycle[0])} waits in {waits[stall.cycle[0]]} for itself"
        hint = "a rank cannot send to itself and wait for it: copy the tensor instead."
    elif stall.cycle:
        circle = [*stall.cycle, stall.cycle[0]]
        links = [f"{name_of(a)} waits in {waits[a]} for {name_of(b)}" for a, b in zip(circle, circle[1:], strict=False)]
        shown = links if len(links) <= 4 else [*links[:2], "…", links[-1]]
        summary = f"deadlock: {', '.join(shown[:-1])}, and {shown[-1]}"
        hint = _hint_for_cycle([stall.waiting[rank][0] for rank in stall.cycle])
    else:
        rank, (_entry, needs) = next(iter(stall.waiting.items()))
        summary = f"{name_of(rank)} waits in {waits[rank]}{for_whom(needs)}, and nobody can go on"
        hint = f"{_IN_ORDER}, and every recv needs its send."
    lines = [summary, "", "Where each rank is:", *table(ends, waiting), "", f"Try: {hint}"]
    error = RankDeadlock(summary, "\n".join(lines), min(stall.waiting), ends)
    error.waiting = waits
    return error


def _hint_for_gone(entry: Entry, gone: str) -> str:
    if entry.call["operation"] == "recv":
        return f"{gone} never sent this message: does every recv have its send, with the same tag?"
    if entry.call["operation"] == "send":
        return f"{gone} never received this message: does every send have its recv, with the same tag?"
    if entry.call["operation"] == "new_group":
        return "every rank must call new_group, also those that are not in the group."
    return "every rank must take part in every collective of its group, in the same order: look for an early return."


def _hint_for_cycle(entries: list[Entry]) -> str:
    operations = {entry.call["operation"] for entry in entries}
    groups = {entry.call["group"] for entry in entries}
    if operations == {"send"}:
        return "send returns when the other side receives: let one side receive first, or use isend."
    if operations == {"recv"}:
        return "somebody must send before it receives: change the order on one of the ranks."
    if operations <= {"send", "recv"}:
        return "follow the messages in order: each send needs its recv, with the same tag, before the next step."
    if len(groups) > 1 and not operations & {"send", "recv"}:
        return "ranks in several groups must call the groups' collectives in the same order."
    return f"{_IN_ORDER}; a send or recv between them must have its counterpart at the same point."


def _calls(entries: list[Entry]) -> list[str]:
    rows = []
    for entry in entries:
        arguments = [text for text in (_detail(entry), tensors_of(entry)) if text]
        call = f"{operation_of(entry)}({', '.join(arguments)})"
        place = f"{where(entry.site.stack[-1])}:  {source(entry.site.stack[-1])}" if entry.site.stack else ""
        rows.append((f"  {name_of(entry.rank)}", call, place))
    return columns(rows, left=3)


def _detail(entry: Entry) -> str:
    call = entry.call
    if call["operation"] in ("send", "recv"):
        to = "any rank" if call["peer"] is None else name_of(call["peer"])
        tag = f", tag {call['tag']}" if call["tag"] else ""
        return f"{'to' if call['operation'] == 'send' else 'from'} {to}{tag}"
    root = f"root {call['root']}" if call["root"] is not None else ""
    return ", ".join(filter(None, [call["reduce"], root]))


def _group(entry: Entry) -> str:
    if entry.call["group"] == "0":
        return "all ranks"
    return f"the group of ranks {listed([str(rank) for rank in entry.call['ranks']])}"
