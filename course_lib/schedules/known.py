"""The schedules that have a name: how each is made, the bubble that its paper promises, and how another one compares."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from course_lib.schedules.loops import gpipe, interleaved, one_f_one_b, relay, zb_h1
from course_lib.schedules.schedule import Schedule
from course_lib.schedules.simulation import Simulation, simulate
from course_lib.schedules.vee import dualpipe_v, zb_v

FREE = "messages are free"


@dataclass(frozen=True)
class Known:
    """A schedule for p ranks, m micro-batches and v chunks of the model on each rank.

    make(p, m, v).  uses: which of the three change anything.
    formula, bubble(p, m, v): idle time as a part of the work, in words and as a number.  exact_if: what that asks for.
    """

    make: Callable[[int, int, int], Schedule]
    uses: str = "pm"
    formula: str = ""
    bubble: Callable[[int, int, int], float] | None = None
    exact_if: str = FREE

    def promise(self, p: int, m: int, v: int, bubble: float) -> str:
        """The formula with its value, and what it asks for if the bubble is another one; "" if there is none."""
        if not self.bubble:
            return ""
        value = self.bubble(p, m, v)
        return f"{self.formula} = {value:.4g}" + ("" if abs(value - bubble) < 1e-9 else f", if {self.exact_if}")


SCHEDULES: dict[str, Known] = {
    "relay": Known(lambda p, m, v: relay(p), "p", "p − 1", lambda p, m, v: p - 1),
    "GPipe": Known(lambda p, m, v: gpipe(p, m), "pm", "(p−1)/m", lambda p, m, v: (p - 1) / m),
    "1F1B": Known(lambda p, m, v: one_f_one_b(p, m), "pm", "(p−1)/m", lambda p, m, v: (p - 1) / m),
    "interleaved": Known(
        interleaved, "pmv", "(p−1)/(v·m)", lambda p, m, v: (p - 1) / (v * m), f"p divides m and {FREE}"
    ),
    "ZB-H1": Known(
        lambda p, m, v: zb_h1(p, m),
        "pm",
        "(p−1)/(3m)",
        lambda p, m, v: (p - 1) / (3 * m),
        f"F = I = W, m ≥ p, and {FREE}",
    ),
    "ZB-V": Known(lambda p, m, v: zb_v(p, m)),
    "DualPipeV": Known(lambda p, m, v: dualpipe_v(p, m)),
}


def spelled(name: str, among: Iterable[str] = SCHEDULES) -> str:
    """The name as SCHEDULES has it; capitals and hyphens do not matter. Raises ValueError for one that is not known."""
    for known in among:
        if known.lower().replace("-", "") == name.lower().replace("-", ""):
            return known
    raise ValueError(f"no schedule is called {name!r}: take one of {', '.join(among)}.")


def like(schedule: Schedule) -> list[Schedule]:
    """The known schedules of as many ranks and micro-batches, as far as they can be, but for the relay and this one itself."""
    found = []
    for name, known in SCHEDULES.items():
        try:
            made = known.make(schedule.num_ranks, schedule.num_microbatches, 2)
        except ValueError:
            continue
        if name != "relay" and made.actions != schedule.actions:
            found.append(made)
    return found


def rivals(mine: Simulation, against: Iterable[Schedule]) -> list[Simulation]:
    """Other schedules with the same costs.

    Where one has more stages, each is a smaller part of the model: it takes that much less. Costs given stage by stage are
    compared with schedules of as many stages only.
    """
    costs, stages = mine.costs, mine.schedule.num_stages
    by_stage = any(isinstance(s, Sequence) for s in (costs.forward_s, costs.backward_s, costs.input_s, costs.weight_s))
    if by_stage:
        return [simulate(one, costs) for one in against if one.num_stages == stages]
    return [simulate(one, costs.scaled(stages / one.num_stages)) for one in against]


def standing(mine: Simulation, others: Sequence[Simulation]) -> list[list[str]]:
    """A table: of each, its makespan, its bubble, and what each rank holds at most, in activations of mine's stages."""
    rows = [["schedule", "makespan", "bubble", *map(str, range(mine.schedule.num_ranks))]]
    for one in (mine, *others):
        part = mine.schedule.num_stages / one.schedule.num_stages
        held = [f"{part * peak:.4g}" for peak in one.peak_activations]
        rows.append([one.schedule.name, f"{one.makespan_s:.6g} s", f"{one.bubble:.4g}", *held])
    return rows


def verdict(mine: Simulation, others: Sequence[Simulation]) -> str:
    """How one stands among others, in time and in what its fullest rank holds, in a sentence; "" without others."""
    if not others:
        return ""

    def held(one: Simulation) -> float:  # in activations of mine's stages
        return max(one.peak_activations) * mine.schedule.num_stages / one.schedule.num_stages

    quick, least = min(others, key=lambda one: one.makespan_s), min(others, key=held)
    behind, more = mine.makespan_s - quick.makespan_s, held(mine) - held(least)
    time = f"{behind:.6g} s behind {quick.schedule.name}" if behind > 0 else f"{-behind:.6g} s ahead of all"
    if abs(behind) <= 1e-9 * mine.makespan_s:
        time = "as fast as the fastest"
    memory = f"{more:.4g} more than that of {least.schedule.name}" if more > 0 else "less than any other's"
    return f"{mine.schedule.name} is {time}; its fullest rank holds {memory if more else 'as little as any'}."
