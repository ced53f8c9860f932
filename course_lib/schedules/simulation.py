"""When each action of a schedule starts and ends, if it takes as long as is said: makespan, bubble, memory, and a Trace. Exact."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from course_lib.schedules import Action, Schedule, check, executable
from course_lib.trace import Event, Trace

Seconds = float | Sequence[float]


@dataclass(frozen=True)
class Costs:
    """Seconds of an action, for every stage or a sequence with one entry a stage; message_s from one rank to another.

    backward_s of a whole backward; a backward in two parts takes input_s and weight_s, each half of it unless given.
    A rank goes on while its message is under way.
    """

    forward_s: Seconds = 1.0
    backward_s: Seconds = 2.0
    input_s: Seconds | None = None
    weight_s: Seconds | None = None
    message_s: float = 0.0

    def of(self, kind: str, stage: int) -> float:
        """Seconds of an action of this kind."""
        value = {"F": self.forward_s, "B": self.backward_s, "I": self.input_s, "W": self.weight_s}[kind]
        if value is None:
            return self.of("B", stage) / 2
        if not isinstance(value, Sequence):
            return value
        if stage >= len(value):
            raise ValueError(f"there are costs of {len(value)} stages and none of stage {stage}: add it.")
        return value[stage]

    def scaled(self, factor: float) -> "Costs":
        """The costs of stages that are so many times as large; messages stay. Raises TypeError for costs stage by stage."""
        names = ("forward_s", "backward_s", "input_s", "weight_s")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return replace(self, **{name: value * factor for name, value in given.items()})


KINDS = {"F": "forward", "B": "backward", "I": "backward for inputs", "W": "backward for weights"}


class Step(NamedTuple):
    """An action with its time. chunk: which of its rank's stages it is of, counted from 0.

    free_s: since when its rank could have begun it.  needs: what it needs, "1F3", each after the rank that gives it.
    waited: for how long its rank waited for it, and for what.
    """

    rank: int
    chunk: int
    action: Action
    start_s: float
    end_s: float
    free_s: float
    needs: tuple[tuple[int, str], ...]
    waited: str

    def __str__(self) -> str:
        kind, stage, microbatch = self.action
        what = f"rank {self.rank}, stage {stage}: {KINDS[kind]} of micro-batch {microbatch}"
        return f"{what}, from {self.start_s:.6g} s to {self.end_s:.6g} s; {self.waited}"


@dataclass(frozen=True)
class Simulation:
    """A schedule with a clock: times[rank] has (start_s, end_s) of each of its actions, in order.

    source: "simulated", or "measured" and what was emulated in that run.
    """

    schedule: Schedule
    costs: Costs
    times: tuple[tuple[tuple[float, float], ...], ...] = field(repr=False)
    source: str = "simulated"

    @cached_property
    def makespan_s(self) -> float:
        """From the start of the first action to the end of the last."""
        return max((rank[-1][1] for rank in self.times if rank), default=0.0)

    @cached_property
    def work_s(self) -> tuple[float, ...]:
        """For each rank, the time in which it does something."""
        return tuple(sum(end - start for start, end in rank) for rank in self.times)

    @cached_property
    def idle_s(self) -> float:
        """Together, the time in which ranks do nothing; 0 where only rounding is left."""
        work = sum(self.work_s)
        idle = self.makespan_s * self.schedule.num_ranks - work
        return idle if idle > 1e-9 * work else 0.0

    @cached_property
    def bubble(self) -> float:
        """Idle time of all ranks as a part of their work: (p−1)/m for GPipe and 1F1B. Narayanan et al. 2021, section 2.2."""
        work = sum(self.work_s)
        return self.idle_s / work if work else 0.0

    @cached_property
    def peak_activations(self) -> tuple[int, ...]:
        """For each rank, the most micro-batches at once, counted for each stage, that went forward and not all the way back.

        Those of a stage are held from the start of F to the end of B, or of W: both parts of a backward need them.
        """
        peaks = []
        for actions in self.schedule.actions:
            live = peak = 0
            for action in actions:
                live += action.kind == "F"
                peak = max(peak, live)
                live -= action.kind in "BW"
            peaks.append(peak)
        return tuple(peaks)

    @cached_property
    def trace(self) -> Trace:
        """The same as a run gives: a span for each action, whose label says stage and micro-batch."""
        events = [
            _event(rank, number, action, *time)
            for rank, (actions, times) in enumerate(zip(self.schedule.actions, self.times, strict=True))
            for number, (action, time) in enumerate(zip(actions, times, strict=True))
        ]
        events.sort(key=lambda e: (e.start_s, e.rank, e.number))
        return Trace(self.schedule.num_ranks, self.makespan_s, tuple(events), self.source)

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """Every action, rank by rank, with what it waited for."""
        message, tiny = self.costs.message_s, 1e-9 * self.makespan_s
        ranks = [list(zip(*pair)) for pair in zip(self.schedule.actions, self.times)]
        ended = {action.gives: (end, rank, str(action)) for rank, row in enumerate(ranks) for action, (_, end) in row}
        steps = []
        for rank, row in enumerate(ranks):
            chunks = {stage: k for k, stage in enumerate(sorted({action.stage for action, _ in row}))}
            free = 0.0
            for action, (start, end) in row:
                needs, waited = [ended[need] for need in action.needs if need in ended], "no wait"
                if start - free > tiny:
                    came = [(at + message * (owner != rank), owner, name) for at, owner, name in needs]
                    at, owner, name = max(came, default=(0.0, rank, ""))
                    sent = " and its message" if message and owner != rank else ""
                    waited = f"waited {start - free:.6g} s for {name}{sent}"
                    if at <= free:  # of a measured run
                        waited = f"began {start - free:.6g} s after its rank was free"
                by = tuple([(owner, name) for _, owner, name in needs])
                steps.append(Step(rank, chunks[action.stage], action, start, end, free, by, waited))
                free = end
        return tuple(steps)

    @cached_property
    def gaps(self) -> list[tuple[int, float, float, str, tuple[str, ...]]]:
        """Where ranks are idle: rank, from when to when, why in words, and the action that ends it with what that needs."""
        gaps = []
        for step in self.steps:
            if step.start_s - step.free_s > 1e-9 * self.makespan_s:
                why = f", until {step.action} can start: {step.waited}"
                names = (str(step.action), *(name for _, name in step.needs))
                gaps.append((step.rank, step.free_s, step.start_s, why, names))
        ends = [times[-1][1] if times else 0.0 for times in self.times]
        gaps += [(rank, end, self.makespan_s, ": all of its work is done", ()) for rank, end in enumerate(ends)]
        return [(r, a, b, f"rank {r} is idle from {a:.6g} s to {b:.6g} s{why}", names) for r, a, b, why, names in gaps]

    @cached_property
    def _clocks(self) -> list[tuple[list[float], list[float], list[float], list[float]]]:
        """For each rank when actions begin and end, when activations come, and when they go."""
        clocks = []
        for actions, times in zip(self.schedule.actions, self.times):
            come = [start for action, (start, _) in zip(actions, times) if action.kind == "F"]
            go = [end for action, (_, end) in zip(actions, times) if action.kind in "BW"]
            clocks.append(([start for start, _ in times], [end for _, end in times], come, go))
        return clocks

    def working_at(self, time_s: float) -> int:
        """How many ranks do something at a time."""
        return sum(bisect_right(start, time_s) > bisect_right(end, time_s) for start, end, _, _ in self._clocks)

    def activations_at(self, time_s: float) -> list[int]:
        """For each rank, what it holds at a time, counted as in `peak_activations`."""
        return [bisect_right(come, time_s) - bisect_right(go, time_s) for _, _, come, go in self._clocks]

    @property
    def title(self) -> str:
        """ "1F1B: 4 ranks, 8 micro-batches"."""
        p, m = self.schedule.num_ranks, self.schedule.num_microbatches
        return f"{self.schedule.name}: {p} rank{'s' * (p != 1)}, {m} micro-batch{'es' * (m != 1)}"

    def sentences(self) -> list[str]:
        """What it is, what it comes to, and a line for each rank."""
        peak, work = max(self.peak_activations, default=0), sum(self.work_s)
        bubble = f"bubble {self.bubble:.4g}: {self.idle_s:.6g} s idle / {work:.6g} s of work"
        holds = f"a rank holds at most {peak} stage activation{'s' * (peak != 1)}"
        lines = [f"{self.title}.", f"makespan {self.makespan_s:.6g} s · {bubble} · {holds}."]
        for rank, (work, peak) in enumerate(zip(self.work_s, self.peak_activations)):
            idle = max(0.0, self.makespan_s - work)
            lines.append(f"rank {rank}: works {work:.6g} s, idle {idle:.6g} s, holds at most {peak}")
        return lines

    def __str__(self) -> str:
        peak = max(self.peak_activations)
        return f"{self.schedule.name}: {self.makespan_s:g} s, bubble {self.bubble:.3g}, at most {peak} micro-batches' activations"


def simulate(schedule: Schedule, costs: Costs | None = None) -> Simulation:
    """Let every rank do its actions in order, each as soon as the rank is free and what it needs has arrived.

    Raises ValueError if the schedule cannot be carried out, with what `check` says, or if a cost is missing.
    """
    costs = costs or Costs()
    num_stages, rank_of = schedule.num_stages, schedule.rank_of
    seconds = {(kind, stage): costs.of(kind, stage) for kind in "FBIW" for stage in range(num_stages)}
    free = [0.0] * schedule.num_ranks
    ended: dict[tuple[str, int, int], float] = {}
    times: list[list[tuple[float, float]]] = [[] for _ in schedule.actions]
    for rank, _, action in executable(schedule):
        start = free[rank]
        for need in action.needs:
            if need[1] < num_stages:
                arrived = ended[need] + (costs.message_s if rank_of[need[1]] != rank else 0.0)
                start = max(start, arrived)
        end = free[rank] = start + seconds[action.kind, action.stage]
        ended[action.gives] = end
        times[rank].append((start, end))
    if any(len(done) < len(actions) for done, actions in zip(times, schedule.actions, strict=True)):
        raise ValueError(f"{schedule.name} cannot be carried out: {check(schedule)}")
    return Simulation(schedule, costs, tuple(map(tuple, times)))


def measured(schedule: Schedule, trace: Trace, costs: Costs | None = None) -> Simulation:
    """The same value with the times of a real run of run_pipeline: it draws itself in the same way, and can be compared.

    Raises ValueError if the trace has not one span for each action of the schedule.
    """
    spans = [
        [e for e in trace.events if e.is_span and e.rank == rank and dict(e.labels).keys() >= {"stage", "microbatch"}]
        for rank in range(schedule.num_ranks)
    ]
    begin = min((e.start_s for rank in spans for e in rank), default=0.0)
    times = []
    for rank, (events, actions) in enumerate(zip(spans, schedule.actions, strict=True)):
        ran = [(e.operation, *(dict(e.labels)[name] for name in ("stage", "microbatch"))) for e in events]
        if ran != [tuple(action) for action in actions]:
            raise ValueError(
                f"rank {rank} of this trace did not run {schedule.name} once: {len(ran)} actions, not {len(actions)}."
            )
        times.append(tuple((e.start_s - begin, e.end_s - begin) for e in events))
    source = ", ".join(filter(None, ["measured", trace.emulated]))
    return Simulation(schedule, costs or Costs(), tuple(times), source)


def _event(rank: int, number: int, action: Action, start_s: float, end_s: float) -> Event:
    labels = (("stage", action.stage), ("microbatch", action.microbatch))
    return Event(rank, "span", action.kind, start_s, end_s, labels=labels, number=number)
