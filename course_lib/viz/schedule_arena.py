"""A schedule of one's own: what is wrong with it and where, or its picture beside what the known schedules reach."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from html import escape

from course_lib.schedules import Problem, Schedule, check, executable, parse
from course_lib.simulate import Costs, Simulation, simulate
from course_lib.viz.picture import image
from course_lib.viz.schedule import SCHEDULES
from course_lib.viz.schedule_gantt import describe, schedule_picture, short, title_of

_AROUND = 9  # actions shown on each side of the one that is wrong


def arena(
    mine: Schedule | Iterable[str], against: Iterable[Schedule] | None = None, costs: Costs | None = None
) -> "Arena":
    """Judge a schedule: the first thing that is wrong with it, or makespan, bubble and memory beside other schedules.

    mine: a Schedule, or its rows as text, as `parse` takes them.
    against: by default the known schedules that p ranks and m micro-batches can have.
    costs: of mine's stages. Where another schedule has more stages, each is a smaller part of the model: it takes, and holds,
    that much less. Costs given stage by stage are compared with schedules of as many stages only.
    Raises ValueError for text that is no action.
    """
    if isinstance(mine, str):
        mine = mine.strip().splitlines()
    schedule = mine if isinstance(mine, Schedule) else parse("mine", mine)
    return Arena(schedule, None if against is None else tuple(against), costs or Costs())


@dataclass(frozen=True, repr=False)
class Arena:
    """A schedule with its judgement. In a notebook it shows itself; printed, it is the same without the picture."""

    mine: Schedule
    against: tuple[Schedule, ...] | None
    costs: Costs

    @property
    def problem(self) -> Problem | None:
        """What is wrong first, or None."""
        if not any(self.mine.actions):
            return Problem(None, None, "there is no action in it: begin with a forward, 0F0.")
        return check(self.mine)

    @property
    def simulation(self) -> Simulation:
        """Mine with a clock. Raises ValueError if it cannot be carried out."""
        return simulate(self.mine, self.costs)

    @property
    def others(self) -> tuple[Simulation, ...]:
        """The schedules to compare with."""
        found = _known(self.mine) if self.against is None else self.against
        each = [self.costs.forward_s, self.costs.backward_s, self.costs.input_s, self.costs.weight_s]
        if any(isinstance(value, Sequence) for value in each):
            return tuple(simulate(s, self.costs) for s in found if s.num_stages == self.mine.num_stages)
        return tuple(simulate(s, _scaled(self.costs, self.mine.num_stages / s.num_stages)) for s in found)

    @property
    def rows(self) -> list[tuple[str, str, str, str]]:
        """(schedule, makespan, bubble, what each rank holds at most), mine first."""
        return [
            _row(s, self.mine.num_stages / s.schedule.num_stages) for s in (self.simulation, *self.others)
        ]

    @property
    def verdict(self) -> str:
        """How mine stands among the others, in a sentence."""
        mine, others = self.simulation, self.others
        if not others:
            return ""
        quick, least = min(others, key=lambda s: s.makespan_s), min(others, key=self._held)
        behind, more = mine.makespan_s - quick.makespan_s, self._held(mine) - self._held(least)
        if abs(behind) <= 1e-9 * mine.makespan_s:
            time = "as fast as the fastest"
        else:
            time = (
                f"{short(behind)} s behind {quick.schedule.name}"
                if behind > 0
                else f"{short(-behind)} s ahead of all"
            )
        held = (
            f"{short(more, 4)} more than that of {least.schedule.name}"
            if more > 0
            else "less than any other's"
        )
        return (
            f"{mine.schedule.name} is {time}; its fullest rank holds {held if more else 'as little as any'}."
        )

    def _held(self, simulation: Simulation) -> float:
        return max(simulation.peak_activations) * self.mine.num_stages / simulation.schedule.num_stages

    def __repr__(self) -> str:
        if problem := self.problem:
            return f"{self.mine.name}: {problem}"
        table = [_HEAD, *self.rows]
        wide = [max(len(row[k]) for row in table) for k in range(3)]
        lines = [
            "  ".join([r[0].ljust(wide[0]), r[1].rjust(wide[1]), r[2].rjust(wide[2]), r[3]]) for r in table
        ]
        return "\n".join([title_of(self.mine), *lines, self.verdict]).strip()

    def _repr_html_(self) -> str:
        if said := complaint(self.mine, self.problem, self.costs):
            return said
        lines = "".join(
            f"<tr>{''.join(f'<t{cell} style=text-align:{side}>{escape(text)}</t{cell}>' for text, side in zip(row, _SIDES))}</tr>"
            for cell, row in [
                ("h", _HEAD),
                *(("h" if k == 0 else "d", row) for k, row in enumerate(self.rows)),
            ]
        )
        drawn = self.simulation
        return f"{image(schedule_picture(drawn), describe(drawn))}<table style=margin-top:8px>{lines}</table><p>{escape(self.verdict)}</p>"


_HEAD = ("schedule", "makespan", "bubble", "held at most, rank by rank")
_SIDES = ("left", "right", "right", "left")


def complaint(schedule: Schedule, problem: Problem | None = None, costs: Costs | None = None) -> str:
    """What is wrong with a schedule as HTML, with its rows, the wrong place marked; "" if nothing is.

    Where ranks wait for ever, what they did before is drawn, and the action at which each waits is underlined.
    """
    problem = problem or check(schedule)
    if problem is None:
        return ""
    done = [0] * schedule.num_ranks
    for rank, at, _ in executable(schedule):
        done[rank] = at + 1
    stuck = problem.position is not None and problem.position == done[problem.rank]
    stuck = stuck and schedule.actions[problem.rank][problem.position].needs != ()
    rows = [
        _marked(schedule, rank, problem, done[rank] if stuck else None) for rank in range(schedule.num_ranks)
    ]
    said = f"<p><b>✗ {escape(schedule.name)}:</b> {escape(problem.why)}</p><table>{''.join(rows)}</table>"
    if not stuck or not any(done):
        return said
    reached = Schedule(f"{schedule.name}, as far as it goes", _cut(schedule, done))
    drawn = simulate(reached, costs)
    return said + image(schedule_picture(drawn), describe(drawn))


def _cut(schedule: Schedule, done: list[int]) -> tuple:
    return tuple(actions[:n] for actions, n in zip(schedule.actions, done, strict=True))


def _marked(schedule: Schedule, rank: int, problem: Problem, waits: int | None) -> str:
    """A rank's actions, those near what is to be seen."""
    actions = schedule.actions[rank]
    wrong = problem.position if problem.rank == rank else None
    seen = wrong if wrong is not None else waits
    first = max(0, seen - _AROUND) if seen is not None else 0
    last = min(len(actions), first + 2 * _AROUND + 1)
    parts = ["…"] if first else []
    for at in range(first, last):
        name = str(actions[at])
        parts.append(f"<mark>{name}</mark>" if at == wrong else f"<u>{name}</u>" if at == waits else name)
    parts += ["…"] if last < len(actions) else []
    head = f"<b>rank {rank}</b>" if rank == problem.rank else f"rank {rank}"
    return f"<tr><td style=text-align:left>{head}</td><td style=text-align:left><code>{' '.join(parts)}</code></td></tr>"


def _known(mine: Schedule) -> list[Schedule]:
    """The known schedules of as many ranks and micro-batches, as far as these can be."""
    found = []
    for name, make in SCHEDULES.items():
        try:
            made = make(mine.num_ranks, mine.num_microbatches, 2)
        except ValueError:
            continue
        if name != "relay" and made.actions != mine.actions:
            found.append(made)
    return found


def _scaled(costs: Costs, factor: float) -> Costs:
    names = ("forward_s", "backward_s", "input_s", "weight_s")
    given = {name: getattr(costs, name) for name in names if getattr(costs, name) is not None}
    return replace(costs, **{name: value * factor for name, value in given.items()})


def _row(simulation: Simulation, factor: float) -> tuple[str, str, str, str]:
    bubble = simulation.bubble if simulation.bubble > 1e-9 else 0.0
    held = " ".join(f"{short(peak * factor, 4)}" for peak in simulation.peak_activations)
    return simulation.schedule.name, f"{short(simulation.makespan_s)} s", f"{short(bubble, 4)}", held
