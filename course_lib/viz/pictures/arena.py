"""A schedule of one's own: what is wrong with it and where, or its picture beside what the known schedules reach."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import accumulate

from course_lib.schedules import Problem, Schedule, check, parse
from course_lib.schedules.known import like, rivals, standing, verdict
from course_lib.schedules.simulation import Costs, simulate
from course_lib.viz.controls import Text
from course_lib.viz.pictures.facts import WIDEST
from course_lib.viz.pictures.schedule import LEFT, drawn
from course_lib.viz.scene import Panel, Scene, line, rect, text, text_width
from course_lib.viz.widget import Picture, picture


def arena(
    mine: Schedule | Iterable[str], against: Iterable[Schedule] | None = None, costs: Costs | None = None
) -> Picture:
    """Judge a schedule: the first thing that is wrong with it, or makespan, bubble and memory beside other schedules.

    mine: a Schedule, or its rows as text, as `parse` takes them. The reader edits them, a line a rank.
    against: by default the known schedules that p ranks and m micro-batches can have.
    costs: of mine's stages. Where another schedule has more stages, each is a smaller part of the model: it takes, and holds,
    that much less. Costs given stage by stage are compared with schedules of as many stages only.
    Raises ValueError for text that is no action.
    """
    rows = mine.strip().splitlines() if isinstance(mine, str) else mine
    schedule = rows if isinstance(rows, Schedule) else parse("mine", rows)
    others = None if against is None else list(against)

    def build(mine: str, width: int = 760) -> Scene:
        """What the rows that are written come to."""
        edited = parse(schedule.name, mine.rstrip().splitlines())
        return judged(edited, width, costs, like(edited) if others is None else others)

    box = Text("mine", "actions, a line a rank", rows=max(2, min(16, schedule.num_ranks)))
    return picture(build, [box], {"mine": "\n".join(" ".join(map(str, rank)) for rank in schedule.actions)})


def judged(schedule: Schedule, width: int = 760, costs: Costs | None = None, against: Iterable[Schedule] = ()) -> Scene:
    """What is wrong with a schedule as a scene; or its picture, and a table with others."""
    width = min(width, WIDEST)
    if problem := check(schedule):
        return _wrong(schedule, problem, width, costs)
    mine = simulate(schedule, costs)
    scene, others = drawn([("", mine, "")], width), rivals(mine, against)
    if not others:
        return scene
    rows, said = standing(mine, others), verdict(mine, others)
    alt = "\n".join([scene.alt, *map(" ".join, rows), said])
    return replace(scene, panels=(*scene.panels, _table(rows, width)), notes=(*scene.notes, said), alt=alt)


def _table(rows: list[list[str]], width: float) -> Panel:
    """Names left, numbers right. Where there is no room for every rank, the fullest of each schedule is told."""
    wide = [max(text_width(words, "strong") for words in column) + 18 for column in zip(*rows)]
    if sum(wide) > width:
        rows = [[*rows[0][:3], "fullest"], *([*row[:3], max(row[3:], key=float)] for row in rows[1:])]
        wide[3:] = [text_width("fullest", "strong") + 18]
        wide[0] = min(wide[0], width - sum(wide[1:]))
    ends = list(accumulate(wide))
    marks = [rect(0, 36, ends[-1], 22, "shade")]
    marks.append(text(ends[-1] - 8, 12, "activations held at most, on rank", "small quiet end"))
    for i, row in enumerate(rows):
        kind, y = ("small quiet", "strong", "")[min(i, 2)], 30 + 22 * i
        marks.append(text(8, y, row[0], kind, wide[0] - 10))
        marks += [text(end - 8, y, words, f"{kind} end digits") for words, end in zip(row[1:], ends[1:])]
    return Panel(ends[-1], 20 + 22 * len(rows), marks)


def _wrong(schedule: Schedule, problem: Problem, width: int, costs: Costs | None) -> Scene:
    """The rows with the wrong place marked; and, where ranks wait for ever, what they did before."""
    marks, y, why = [], 2.0, f"{schedule.name}: {problem.why}"
    words = [str(action) for rank in schedule.actions for action in rank]
    cell = 12 + max([20.0, *(text_width(word, "strong") for word in words)])
    room = max(1, int((width - LEFT) / cell) - 2)  # actions of a rank that are shown: those around the place
    for rank, actions in enumerate(schedule.actions):
        wrong = problem.position if rank == problem.rank else None
        place = wrong if wrong is not None else problem.reached[rank] if problem.reached else -1
        first = max(0, min(place - room // 2, len(actions) - room))
        marks.append(text(LEFT - 10, y + 15, f"rank {rank}", "end strong" if rank == problem.rank else "end"))
        for k, action in enumerate(actions[max(0, first - 1) : first + room + 1]):
            at, x = max(0, first - 1) + k, LEFT + cell * k
            word = str(action) if first <= at < first + room else "…"
            marks.append(text(x + cell / 2, y + 15, word, "mid strong" if at == wrong else "mid"))
            if at == wrong:
                marks.append(rect(x + 1, y, cell - 2, 22, "wrong", tip=problem.why))
            elif at == place:
                tip = f"rank {rank} waits here for ever"
                marks.append(line(x + 6, y + 20, x + cell - 6, y + 20, tip=tip))
        y += 28
    title, notes = f"{schedule.name}: it cannot be carried out", (f"✗ {problem.why}",)
    if not any(problem.reached):
        return Scene(title, (Panel(width, y, marks),), notes, alt=why)
    done = Schedule(schedule.name, tuple(row[:n] for row, n in zip(schedule.actions, problem.reached)))
    part = f"{schedule.name}, as far as it goes", simulate(done, costs), None
    scene = drawn([part], width, Panel(width, y + 8, marks))
    return replace(scene, title=title, notes=notes, alt=f"{why}\n{scene.alt}")
