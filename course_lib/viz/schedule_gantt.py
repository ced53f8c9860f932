"""A simulated pipeline schedule as a picture that stands alone: of bounded size, the same for the same simulation."""

from course_lib.schedules import Schedule
from course_lib.simulate import Simulation, simulate
from course_lib.viz.picture import MARGIN, WIDTH, image, standalone_style
from course_lib.viz.schedule_layout import Gantt
from course_lib.viz.svg import document, element, rect, text


def schedule_picture(simulation: Simulation) -> str:
    """SVG with a lane a rank and a box an action; what is empty is the bubble. Boxes too narrow for their number have none.

    Behind each lane stands how many stage activations the rank holds at most, of all that there are.
    """
    gantt = Gantt(simulation, WIDTH - MARGIN)
    down, height = 62, 62 + gantt.height + 6
    title = title_of(simulation.schedule)
    body = [
        rect(0.5, 0.5, WIDTH - 1, height - 1, rx=8, class_="card"),
        text(MARGIN, 30, title, class_="title"),
        text(MARGIN, 50, summary(simulation), class_="note"),
        element("g", gantt.shapes, transform=f"translate(0 {down})"),
    ]
    style = standalone_style("picture.css", "schedule.css")
    return document(WIDTH, height, title, describe(simulation), style, *body)


def title_of(schedule: Schedule) -> str:
    """ "1F1B: 4 ranks, 8 micro-batches"."""
    p, m = schedule.num_ranks, schedule.num_microbatches
    return f"{schedule.name}: {p} rank{'s' * (p != 1)}, {m} micro-batch{'es' * (m != 1)}"


def summary(simulation: Simulation) -> str:
    """Makespan, bubble and what is held, in a line."""
    work = sum(simulation.work_s)
    idle = simulation.makespan_s * simulation.schedule.num_ranks - work
    idle = idle if idle >= 1e-9 * work else 0.0  # what rounding leaves
    peak = max(simulation.peak_activations, default=0)
    parts = [
        f"makespan {short(simulation.makespan_s)} s",
        f"bubble {short(idle / work if work else 0.0, 4)}: {short(idle)} s idle / {short(work)} s of work",
        f"a rank holds at most {peak} stage activation{'s' * (peak != 1)}",
    ]
    return " · ".join(parts)


def short(value: float, digits: int = 6) -> str:
    """A number with at most so many digits, halves rounded up as the page does it."""
    return f"{value * (1 + 1e-12):.{digits}g}"


def describe(simulation: Simulation) -> str:
    """The picture in words, with a line for each rank."""
    lines = [f"{title_of(simulation.schedule)}. {summary(simulation)}."]
    for rank, (work, peak) in enumerate(zip(simulation.work_s, simulation.peak_activations, strict=True)):
        idle = max(0.0, simulation.makespan_s - work)
        lines.append(f"rank {rank}: works {short(work)} s, idle {short(idle)} s, holds at most {peak}")
    return "\n".join(lines)


def shown(what: Schedule | Simulation) -> str:
    """What a notebook shows of it: its picture, or what is wrong with the schedule."""
    if isinstance(what, Schedule):
        from course_lib.viz.schedule_arena import complaint

        if said := complaint(what):
            return said
        what = simulate(what)
    return image(schedule_picture(what), describe(what))
