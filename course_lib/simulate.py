"""When each action of a schedule starts and ends, if it takes as long as is said: makespan, bubble, memory, and a Trace. Exact."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

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
        return value[stage] if isinstance(value, Sequence) else value


@dataclass(frozen=True)
class Simulation:
    """A schedule with a clock: times[rank] has (start_s, end_s) of each of its actions, in order."""

    schedule: Schedule
    costs: Costs
    times: tuple[tuple[tuple[float, float], ...], ...] = field(repr=False)

    @cached_property
    def makespan_s(self) -> float:
        """From the start of the first action to the end of the last."""
        return max((rank[-1][1] for rank in self.times if rank), default=0.0)

    @cached_property
    def work_s(self) -> tuple[float, ...]:
        """For each rank, the time in which it does something."""
        return tuple(sum(end - start for start, end in rank) for rank in self.times)

    @cached_property
    def bubble(self) -> float:
        """Idle time of all ranks as a part of their work: (p−1)/m for GPipe and 1F1B. Narayanan et al. 2021, section 2.2."""
        work = sum(self.work_s)
        return (self.makespan_s * self.schedule.num_ranks - work) / work

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
        return Trace(self.schedule.num_ranks, self.makespan_s, tuple(events), "simulated")

    def __str__(self) -> str:
        peak = max(self.peak_activations)
        return f"{self.schedule.name}: {self.makespan_s:g} s, bubble {self.bubble:.3g}, at most {peak} micro-batches' activations"

    def _repr_html_(self) -> str:
        from course_lib.viz.schedule_gantt import shown  # a simulation needs no picture before it is shown

        return shown(self)


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
        [
            e
            for e in trace.events
            if e.is_span and e.rank == rank and dict(e.labels).keys() >= {"stage", "microbatch"}
        ]
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
    return Simulation(schedule, costs or Costs(), tuple(times))


def _event(rank: int, number: int, action: Action, start_s: float, end_s: float) -> Event:
    labels = (("stage", action.stage), ("microbatch", action.microbatch))
    return Event(rank, "span", action.kind, start_s, end_s, labels=labels, number=number)
