"""In the caller: proof that ranks can never go on. A slow run is never accused.

A rank can go on if its thread does not stand still in an operation; or if all that its operation needs has been called; or if those
that have yet to call it can still go on. Starting from the ranks that can, this is followed until nothing changes; whoever is left
waits, directly or through others, only for ranks that have ended or that wait for it.
"""

from dataclasses import dataclass

from course_lib.ranks.ledger import DONE, FAILED, RUNNING
from course_lib.ranks.ledger_reader import Entry, Record, State
from course_lib.ranks.match import Matcher, Mismatch

STILL_S = 0.12  # how long nothing must have happened before it is asked whether anything still can
PATIENCE_S = 0.3  # how long ranks that still work may take to get stuck too, so that the story has all of them


@dataclass(frozen=True)
class Stall:
    """Why nobody goes on. waiting: each stuck rank's operation, and the ranks whose part it lacks.

    gone: the ranks that have ended and are waited for; cycle: ranks that wait for each other in a circle, each for the next.
    """

    waiting: dict[int, tuple[Entry, tuple[int, ...]]]
    gone: tuple[int, ...]
    cycle: tuple[int, ...]
    complete: bool = True  # no other rank is at work


class Watch:
    """Looks at a run again and again; `look` returns what is provably wrong with it, once."""

    def __init__(self, record: Record):
        self.record, self.matcher = record, Matcher()
        self.states: tuple[State, ...] = ()
        self.still_since = 0.0
        self.proven_at: float | None = None

    def look(self, now: float, ended: set[int]) -> Mismatch | Stall | None:
        """ended: ranks whose process is gone."""
        entries = self.record.update()
        states = self.record.states()
        if any(state.lost for state in states):
            return None  # with gaps in the record nothing can be proven
        mismatch = self.matcher.add(entries)
        if mismatch:
            return mismatch
        if states != self.states:
            self.states, self.still_since = states, now
            return None
        if now - self.still_since < STILL_S:
            return None
        stall = self.proof(ended)
        # Had anything happened since the states were read, they would now differ: then there was no one moment to judge.
        if stall is None or self.record.states() != states:
            return None
        self.proven_at = self.proven_at or now
        return stall if stall.complete or now - self.proven_at > PATIENCE_S else None

    def waiting(self, ended: set[int] = frozenset()) -> dict[int, tuple[Entry, tuple[int, ...]]]:
        """What each rank stands still in, and the ranks whose part is missing, as far as the ledger tells."""
        found = {}
        for rank, state in enumerate(self.record.states()):
            if state.blocked and state.state == RUNNING and rank not in ended:
                entry = self.record.entry(rank, state.blocked - 1)
                if entry and not entry.complete:
                    found[rank] = entry, self.matcher.missing(entry)
        return found

    def proof(self, ended: set[int]) -> Stall | None:
        """The stall that the present state proves, if it does."""
        gone = {rank for rank, state in enumerate(self.states) if rank in ended or state.state in (DONE, FAILED)}
        waiting = self.waiting(ended)
        may_go_on = {
            rank
            for rank, state in enumerate(self.states)
            if rank not in gone and (rank not in waiting or waiting[rank][0].gives_up or state.threads)
        }
        changed = True
        while changed:
            able = {
                r for r, (entry, needs) in waiting.items() if r not in may_go_on and self._can(entry, needs, may_go_on)
            }
            changed = bool(able)
            may_go_on |= able
        stuck = {rank: waiting[rank] for rank in waiting if rank not in may_go_on}
        if not stuck:
            return None
        missed = {rank for _, needs in stuck.values() for rank in needs} & gone
        cycle = _cycle({rank: needs for rank, (_, needs) in stuck.items()})
        return Stall(stuck, tuple(sorted(missed)), cycle, complete=not may_go_on)

    def _can(self, entry: Entry, needs: tuple[int, ...], may_go_on: set[int]) -> bool:
        from_any = entry.call["operation"] == "recv" and entry.call["peer"] is None
        if from_any and needs:
            return any(rank in may_go_on for rank in needs)
        return all(rank in may_go_on for rank in needs)


def _cycle(needs: dict[int, tuple[int, ...]]) -> tuple[int, ...]:
    """A shortest circle of ranks that wait for each other, beginning with its smallest; () if there is none."""
    best: tuple[int, ...] = ()
    for start in needs:
        paths, seen = [(start,)], {start}
        while paths:
            path = paths.pop(0)
            if best and len(path) >= len(best):
                break
            for rank in needs[path[-1]]:
                if rank == start:
                    best = path
                    paths.clear()
                    break
                if rank in needs and rank not in seen:
                    seen.add(rank)
                    paths.append((*path, rank))
    smallest = best.index(min(best)) if best else 0
    return best[smallest:] + best[:smallest]
