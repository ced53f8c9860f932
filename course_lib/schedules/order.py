"""Going through a schedule as ranks would: each in its own order, waiting for what an action needs."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from course_lib.schedules.schedule import Action, Schedule


def executable(schedule: Schedule) -> Iterator[tuple[int, int, Action]]:
    """(rank, position in its list, action), each after everything that it needs. Ends early where all ranks wait for ever."""
    position = [0] * schedule.num_ranks
    ended: set[tuple[str, int, int]] = set()
    waiting: dict[tuple[str, int, int], list[int]] = {}
    last = schedule.num_stages - 1
    ready = deque(range(schedule.num_ranks))
    while ready:
        rank = ready.popleft()
        actions = schedule.actions[rank]
        at = position[rank]
        while at < len(actions):
            action = actions[at]
            missing = [need for need in action.needs if need not in ended and need[1] <= last]
            if missing:
                waiting.setdefault(missing[0], []).append(rank)
                break
            yield rank, at, action
            at += 1
            ended.add(action.gives)
            ready.extend(waiting.pop(action.gives, ()))
        position[rank] = at


@dataclass(frozen=True)
class Problem:
    """What is wrong with a schedule first: where it stands (rank, position in its list, from 0), and why in one sentence.

    reached: if ranks wait for ever, how many of its actions each can do.
    """

    rank: int | None
    position: int | None
    why: str
    reached: tuple[int, ...] = ()

    def __str__(self) -> str:
        return self.why


@lru_cache(maxsize=256)
def check(schedule: Schedule) -> Problem | None:
    """None if the schedule can be carried out, or the first thing that is wrong with it.

    It can be if every stage has for every micro-batch one forward, and one backward whole or in two parts; if all of a stage lies on
    one rank, which holds its weights; and if no rank waits for ever.
    """
    if not any(schedule.actions):
        return Problem(None, None, "there is no action in it: begin with a forward, 0F0.")
    found = _whole(schedule)
    if found:
        return found
    done = [0] * schedule.num_ranks
    for rank, at, _ in executable(schedule):
        done[rank] = at + 1
    stuck = [rank for rank, actions in enumerate(schedule.actions) if done[rank] < len(actions)]
    return _explain(schedule, done, stuck) if stuck else None


def _whole(schedule: Schedule) -> Problem | None:
    """Whether every action is there once, and where it can be."""
    seen: dict[Action, int] = {}
    holder: dict[int, int] = {}
    for rank, actions in enumerate(schedule.actions):
        for at, action in enumerate(actions):
            if holder.setdefault(action.stage, rank) != rank:
                other = holder[action.stage]
                why = (
                    f"rank {rank} does {action}, but rank {other} holds stage {action.stage}: a stage lies on one rank."
                )
                return Problem(rank, at, why)
            if action in seen:
                return Problem(rank, at, f"rank {rank} does {action} twice: once is enough.")
            seen[action] = at
            whole = action._replace(kind="B")
            if action.kind in "IW" and whole in seen or action.kind == "B" and _parts(action) & seen.keys():
                why = f"rank {rank} does {action} though the backward is there already: either B, or I and W."
                return Problem(rank, at, why)
    for stage in range(schedule.num_stages):
        if stage not in holder:
            return Problem(None, None, f"no rank holds stage {stage}: give all of its actions to one rank.")
        for microbatch in range(schedule.num_microbatches):
            kinds = {kind for kind in "FBIW" if Action(kind, stage, microbatch) in seen}
            lacking = {"F", "B"} - kinds if not kinds & {"I", "W"} else {"F", "I", "W"} - kinds
            if lacking:
                action = Action(min(lacking), stage, microbatch)
                return Problem(holder[stage], None, f"rank {holder[stage]} never does {action}: add it.")
    return None


def _parts(action: Action) -> set[Action]:
    return {action._replace(kind="I"), action._replace(kind="W")}


def _explain(schedule: Schedule, done: list[int], stuck: list[int]) -> Problem:
    """Follow from one stuck rank whom it waits for, until the circle closes."""
    chain, rank = [], stuck[0]
    while rank not in chain:
        chain.append(rank)
        rank = _waits_for(schedule, done, rank)[1]
    circle = chain[chain.index(rank) :]
    parts = []
    for member in circle:
        need, holder = _waits_for(schedule, done, member)
        action = schedule.actions[member][done[member]]
        where = "later in its own list" if holder == member else f"which rank {holder} has not done yet"
        parts.append(f"rank {member} waits at {action} for {Action(*need)}, {where}")
    first = circle[0]
    why = "; ".join(parts) + ": nobody can go on. Move one of them behind what it needs."
    return Problem(first, done[first], why, tuple(done))


def _waits_for(schedule: Schedule, done: list[int], rank: int) -> tuple[tuple[str, int, int], int]:
    """(what this rank waits for, as written in the schedule; who has it)."""
    ended = {a.gives for actions, n in zip(schedule.actions, done, strict=True) for a in actions[:n]}
    action = schedule.actions[rank][done[rank]]
    need = next(n for n in action.needs if n not in ended and n[1] < schedule.num_stages)
    holder = schedule.rank_of[need[1]]
    if need[0] == "I" and Action("B", *need[1:]) in schedule.actions[holder]:
        need = ("B", *need[1:])
    return need, holder
