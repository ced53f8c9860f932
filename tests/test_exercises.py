"""The checks of every exercise: plausible wrong answers are rejected for the right reason, unusual right ones accepted.

Most run as a learner runs them, the check cell after the answer; a few go through the grader from end to end.
"""

import importlib
import json
import os
import re
import shutil
from functools import cache
from pathlib import Path

import pytest

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


@cache
def before(task, seed):
    """What the teacher's cells ahead of the answer define, and the cells from the answer to the check. Run once."""
    number = task.replace(".", "-")
    cells = cells_of(NAMES[task.split(".")[0]])
    ids = [cell_id for cell_id, _ in cells]
    answer, check = ids.index(f"answer-{number}"), ids.index(f"check-{number}")
    space = {"__name__": "__main__"}
    for cell_id, source in cells[:answer]:
        if not cell_id.startswith("check-"):
            exec(source, space)
    return space, cells[answer + 1 : check + 1]


def verdict(task, answer, capsys):
    """What the check of one task says of an answer, the other cells being the teacher's."""
    made, rest = before(task, os.environ["COURSE_SEED"])
    space = dict(made)
    exec(answer, space)
    for _, source in rest:
        capsys.readouterr()
        exec(source, space)
    return [line for line in capsys.readouterr().out.splitlines() if line[:1] in "✓✗○"][-1]


def cases(table):
    return [
        pytest.param(task, case, id=f"{task}-{number}")
        for task, found in table.items()
        for number, case in enumerate(found)
    ]


@pytest.mark.parametrize(("task", "case"), cases(WRONG))
def test_a_wrong_answer_is_rejected_with_its_reason(task, case, capsys, monkeypatch):
    monkeypatch.setenv("COURSE_SEED", "20261123")
    answer, words = case
    said = verdict(task, answer, capsys)
    assert said.startswith(f"✗ Task {task}:") and re.search(words, said), said


@pytest.mark.parametrize(("task", "case"), cases(RIGHT))
def test_an_unusual_right_answer_is_accepted(task, case, capsys, monkeypatch):
    for seed in ("0", "1", "987654321"):
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
def test_solved_as_in_the_solution_gets_full_marks_and_unsolved_none(name, grader, tmp_path):
    assert lost(grader.grade(hand_in(tmp_path, name, {}), solutions_near=[ROOT])) == []
    result = grader.grade(ROOT / "exercises" / f"{name}.ipynb", solutions_near=[ROOT])
    assert lost(result) == [row.task for row in result.tasks] != []


def test_sum_and_missing_broadcast_lose_exactly_their_tasks(grader, tmp_path):
    wrong = {"5.2": WRONG["5.2"][0][0], "5.3": WRONG["5.3"][0][0]}
    result = grader.grade(hand_in(tmp_path, NAMES["5"], wrong), solutions_near=[ROOT])
    assert lost(result) == ["5.2", "5.3"]
    reasons = {row.task: row.why + row.hint for row in result.tasks}
    assert "divide" in reasons["5.2"] and "broadcast" in reasons["5.3"]
