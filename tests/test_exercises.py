"""The checks of every exercise: plausible wrong answers are rejected for the right reason, unusual right ones accepted.

Most run as a learner runs them, the check cell after the answer; a few go through the grader from end to end. Right answers
get the inputs of one seed, another each day; with COURSE_SOAK set, of several.
"""

import importlib
import json
import os
import re
import shutil
from functools import cache
from pathlib import Path

import pytest

from course_lib import launch
from course_lib.grading.grade import Grader

ROOT = Path(__file__).parents[1]

CHAPTERS = [
    importlib.import_module(f"tests.answers.{path.stem}")
    for path in sorted((ROOT / "tests" / "answers").glob("chapter_*.py"))
]
WRONG = {task: cases for chapter in CHAPTERS for task, cases in chapter.WRONG.items()}
RIGHT = {task: cases for chapter in CHAPTERS for task, cases in chapter.RIGHT.items()}


def cells_of(name):
    notebook = json.loads((ROOT / "solutions" / f"{name}.ipynb").read_text("utf-8"))
    return [(cell["id"], "".join(cell["source"])) for cell in notebook["cells"] if cell["cell_type"] == "code"]


NAMES = {path.stem.split("_")[0].lstrip("0") or "0": path.stem for path in (ROOT / "solutions").glob("*.ipynb")}
SEEDS = [os.environ["COURSE_TEST_SEED"], *(("0", "1", "987654321") if os.environ.get("COURSE_SOAK") else ())]


@cache
def before(task, seed):
    """What the teacher's cells ahead of the answer define, the teacher's answer, and the cells from there to the check. Run once."""
    number = task.replace(".", "-")
    cells = cells_of(NAMES[task.split(".")[0]])
    ids = [cell_id for cell_id, _ in cells]
    answer, check = ids.index(f"answer-{number}"), ids.index(f"check-{number}")
    space = {"__name__": "__main__"}
    for cell_id, source in cells[:answer]:
        if not cell_id.startswith("check-"):
            exec(source, space)
    return space, cells[answer][1], [source for _, source in cells[answer + 1 : check + 1]]


def verdict(task, answer, capsys, start=launch):
    """What the check of one task says of an answer, the other cells being the teacher's. start: what `launch` is for them."""
    made, _, rest = before(task, os.environ["COURSE_SEED"])
    if "launch" in made:
        made["launch"] = start  # also for the functions that were made before
    space = dict(made)
    exec(answer, space)
    for source in rest:
        capsys.readouterr()
        exec(source, space)
    return [line for line in capsys.readouterr().out.splitlines() if line[:1] in "✓✗○"][-1]


def runs_of_teacher(task, capsys, known={}):  # noqa: B006
    """(world size, what it gave) of each launch while the check looks at the teacher's answer. Run once for each seed."""
    seed = os.environ["COURSE_SEED"]
    if (task, seed) not in known:
        runs = known[task, seed] = []

        def noting(fn, world_size, *args, **options):
            runs.append((world_size, launch(fn, world_size, *args, **options)))
            return runs[-1][1]

        assert verdict(task, before(task, seed)[1], capsys, noting).startswith("✓")
    return known[task, seed]


def sparing(runs):
    """A `launch` that starts ranks at the largest world size only; a smaller one gives what it gave for the teacher."""
    largest, calls = max((world_size for world_size, _ in runs), default=0), iter(runs)

    def spared(fn, world_size, *args, **options):
        usual, run = next(calls, (0, None))
        return run if usual == world_size < largest else launch(fn, world_size, *args, **options)

    return spared


def cases(table):
    return [
        pytest.param(NAMES[task.split(".")[0]], task, case, id=f"{task}-{number}")
        for task, found in table.items()
        for number, case in enumerate(found)
    ]


@pytest.mark.parametrize(("name", "task", "case"), cases(WRONG))
def test_a_wrong_answer_is_rejected_with_its_reason(name, task, case, capsys, monkeypatch):
    monkeypatch.setenv("COURSE_SEED", "20261123")
    answer, words = case
    for start in (sparing(runs_of_teacher(task, capsys)), launch):  # most fail at the largest
        said = verdict(task, answer, capsys, start)
        if said.startswith(f"✗ Task {task}:") and re.search(words, said):
            return
    raise AssertionError(said)


@pytest.mark.parametrize(("name", "task", "case"), cases(RIGHT))
def test_an_unusual_right_answer_is_accepted(name, task, case, capsys, monkeypatch):
    for seed in SEEDS:
        monkeypatch.setenv("COURSE_SEED", seed)
        assert verdict(task, case, capsys).startswith(f"✓ Task {task}:")


def test_every_task_has_wrong_and_right_answers():
    tasks = {
        cell_id[6:].replace("-", ".")
        for name in NAMES.values()
        for cell_id, _ in cells_of(name)
        if cell_id.startswith("check-")
    }
    assert set(WRONG) == set(RIGHT) == tasks


@pytest.fixture(scope="module")
def grader():
    return Grader()


def hand_in(folder, name, answers):
    """The exercise with its answers filled in: the solution's, or those given by task."""
    solved = dict(cells_of(name))
    path = folder / f"{name}.ipynb"
    shutil.copy(ROOT / "exercises" / f"{name}.ipynb", path)
    notebook = json.loads(path.read_text("utf-8"))
    for cell in notebook["cells"]:
        if cell["id"].startswith("answer-"):
            cell["source"] = answers.get(cell["id"][7:].replace("-", "."), solved[cell["id"]])
    path.write_text(json.dumps(notebook), "utf-8")
    return path


def lost(result):
    return [row.task for row in result.tasks if row.result != "passed"]


@pytest.mark.parametrize("name", NAMES.values())
def test_solved_as_in_the_solution_gets_full_marks(name, grader, tmp_path):
    assert lost(grader.grade(hand_in(tmp_path, name, {}), solutions_near=[ROOT])) == []


@pytest.mark.parametrize("name", [NAMES["3"]])
def test_unsolved_gets_no_marks(name, grader):  # of every other chapter test_notebooks.py runs the unsolved checks
    result = grader.grade(ROOT / "exercises" / f"{name}.ipynb", solutions_near=[ROOT])
    assert lost(result) == [row.task for row in result.tasks] != []


def test_sum_and_missing_broadcast_lose_exactly_their_tasks(grader, tmp_path):
    wrong = {"5.2": WRONG["5.2"][0][0], "5.3": WRONG["5.3"][0][0]}
    result = grader.grade(hand_in(tmp_path, NAMES["5"], wrong), solutions_near=[ROOT])
    assert lost(result) == ["5.2", "5.3"]
    reasons = {row.task: row.why + row.hint for row in result.tasks}
    assert "divide" in reasons["5.2"] and "broadcast" in reasons["5.3"]
