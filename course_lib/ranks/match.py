"""In the caller: which calls of the ranks belong together, and whether they agree. Pure bookkeeping, no processes.

Collectives match by their order within a group, messages by their order between two ranks with one tag. That is what
backends do too, whether or not the calls make sense together; here they are compared.
"""

from collections import defaultdict, deque
from dataclasses import dataclass
from itertools import pairwise

from course_lib.ranks import exclusive
from course_lib.ranks.ledger_reader import Entry


@dataclass(frozen=True)
class Mismatch:
    """Calls that meet and do not belong together.

    kind: "operation", "reduction", "root", "dtype", "size", or "order" (right calls, swapped); number: which
    collective of its group it is, from 0, None for a message; entries: the two calls that differ.
    """

    kind: str
    number: int | None
    entries: tuple[Entry, Entry]

    @property
    def time(self) -> float:
        """When the later of the two was called."""
        return max(entry.begun for entry in self.entries)


class _Group:
    """The collectives of one group that not all of its members have called yet."""

    def __init__(self, ranks: tuple[int, ...]):
        self.calls: dict[int, deque[Entry]] = {rank: deque() for rank in ranks}
        self.number = 0  # of the first call in the queues
        self.before: dict[int, Entry] = {}  # the row that was matched last


class Matcher:
    """Takes calls as they come; tells which are still missing their counterparts."""

    def __init__(self):
        self.groups: dict[str, _Group] = {}
        self.sends: dict[tuple, deque[Entry]] = defaultdict(deque)
        self.receives: dict[tuple, deque[Entry]] = defaultdict(deque)
        self.from_any: dict[tuple, list[Entry]] = defaultdict(list)  # whose message is not known yet
        self.changed: dict[tuple, None] = {}  # channels whose messages may have to be paired

    def add(self, entries: list[Entry]) -> Mismatch | None:
        """Take note of calls, each rank's in order, and of what has ended since. Returns the first mismatch."""
        found = [self._add(entry) for entry in entries if entry.call["operation"] != "span"]
        self._settle_from_any()  # not before all ranks' calls are in: the message may be a later rank's
        found += [self._meet(channel) for channel in list(self.changed)]
        return min((mismatch for mismatch in found if mismatch), key=lambda mismatch: mismatch.time, default=None)

    def missing(self, entry: Entry) -> tuple[int, ...]:
        """The ranks whose part an unfinished operation still lacks."""
        call = entry.call
        if entry.matched or entry.complete:
            return ()
        if call["operation"] == "send":
            open_to_all = self.from_any.get((call["group"], call["peer"], call["tag"]))
            return () if open_to_all or not call["nbytes"] else (call["peer"],)
        if call["operation"] == "recv":
            if call["peer"] is not None:
                sent = self.sends[call["group"], call["peer"], entry.rank, call["tag"]]
                return () if sent else (call["peer"],)
            senders = [rank for rank in call["ranks"] if rank != entry.rank]
            waiting = (self.sends[call["group"], rank, entry.rank, call["tag"]] for rank in senders)
            return () if any(waiting) else tuple(senders)
        calls = self.groups[call["group"]].calls
        place = calls[entry.rank].index(entry)
        return tuple(rank for rank, theirs in calls.items() if len(theirs) <= place)

    def number_of(self, entry: Entry) -> int | None:
        """Which collective of its group a waiting call is, from 0; None for a message."""
        group = self.groups.get(entry.call["group"])
        if group is None or entry.call["operation"] in ("send", "recv") or entry not in group.calls[entry.rank]:
            return None
        return group.number + group.calls[entry.rank].index(entry)

    def _add(self, entry: Entry) -> Mismatch | None:
        call = entry.call
        if call["operation"] == "send":
            channel = (call["group"], entry.rank, call["peer"], call["tag"])
            self.sends[channel].append(entry)
            self.changed[channel] = None
            return None
        if call["operation"] == "recv":
            if call["peer"] is None:
                self.from_any[call["group"], entry.rank, call["tag"]].append(entry)
                return None
            channel = (call["group"], call["peer"], entry.rank, call["tag"])
            self.receives[channel].append(entry)
            self.changed[channel] = None
            return None
        group = self.groups.get(call["group"])
        if group is None:
            group = self.groups[call["group"]] = _Group(tuple(call["ranks"]))
        group.calls[entry.rank].append(entry)
        place = len(group.calls[entry.rank]) - 1
        for theirs in group.calls.values():  # as soon as two have come, not when all have
            if len(theirs) > place and theirs[place] is not entry:
                kind = _difference(theirs[place], entry)
                if kind:
                    return Mismatch(kind, group.number + place, (theirs[place], entry))
                break
        while all(group.calls.values()):
            row = {rank: theirs.popleft() for rank, theirs in group.calls.items()}
            for one in row.values():
                one.matched = True
            swapped = _swapped(group.before, row)
            group.before = row
            group.number += 1
            if swapped:
                return Mismatch("order", group.number - 1, swapped)
        return None

    def _settle_from_any(self) -> None:
        """A receive from any source that has ended took the first message of one channel."""
        for (group, receiver, tag), entries in self.from_any.items():
            for entry in [entry for entry in entries if entry.complete]:
                if entry.source is not None:
                    sent = self.sends[group, entry.call["ranks"][entry.source], receiver, tag]
                    if not sent:
                        continue  # its end was read before its message: that comes with the next calls
                    sent.popleft().matched = True
                entries.remove(entry)

    def _meet(self, channel: tuple) -> Mismatch | None:
        """Pair a channel's messages, as long as no receive from any source may have taken them first."""
        group, _, receiver, tag = channel
        sends, receives = self.sends[channel], self.receives[channel]
        while sends and receives:
            open_to_all = self.from_any.get((group, receiver, tag), ())
            if any(entry.number < receives[0].number for entry in open_to_all):
                return None
            pair = sends.popleft(), receives.popleft()
            for entry in pair:
                entry.matched = True
            kind = _difference(*pair, names=("", "dtype", "size"))
            if kind:
                return Mismatch(kind, None, pair)
        del self.changed[channel]
        return None


def _difference(one: Entry, other: Entry, names=("operation", "dtype", "size", "reduction", "root")) -> str:
    """What two calls that meet do not agree on; "" if nothing."""
    for name, a, b in zip(names, one.call["agree"], other.call["agree"], strict=False):
        if name and a != b:
            return name
    return ""


def _swapped(before: dict[int, Entry], row: dict[int, Entry]) -> tuple[Entry, Entry] | None:
    """Two ranks that made the same two calls in opposite order.

    Calls are told apart by the text of their source line. Programs in which ranks take turns (`if rank == i: … else: …`
    in a loop) look the same from the record alone, so it must also be certain that on each rank the two lines follow each
    other, and are not the branches of one choice.
    """
    if not before or len({entry.site.stack[-1:] for entry in row.values()}) == 1:
        return None
    texts = {rank: (_text(before[rank]), _text(row[rank])) for rank in row}
    for one, other in pairwise(row):
        first, second = texts[one]
        if first and second and first != second and texts[other] == (second, first):
            ordered = [exclusive.in_sequence(before[rank].site.stack, row[rank].site.stack) for rank in (one, other)]
            if all(ordered) and before[one].call["agree"] == row[one].call["agree"]:
                return row[one], row[other]
    return None


def _text(entry: Entry) -> str:
    return exclusive.line_text(entry.site.stack[-1]) if entry.site.stack else ""
