"""`course check` and `course grade`: exit statuses, reports, and one sentence for what cannot be graded."""

import csv
import json
from pathlib import Path

import nbformat
import pytest

from course_lib import cli
from course_lib.grading.grade import Grader, GradingError
from course_lib.grading.submission import MAX_BYTES, load
from tests.grading_course import RIGHT, hand_in, make_course, scratch


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    return make_course(tmp_path_factory.mktemp("course"))


def junk(course, kind, tmp_path):
    file = tmp_path / f"{kind}.ipynb"
    text = (course / "exercises/90_numbers.ipynb").read_text("utf-8")
    notebook = json.loads(text)
    if kind == "truncated":
        text = text[: len(text) // 2]
    elif kind == "copied":
        text = json.dumps({**notebook, "cells": [*notebook["cells"], notebook["cells"][2]]})
    elif kind == "foreign":
        text = nbformat.writes(nbformat.v4.new_notebook())
    elif kind == "solution":
        text = (course / "solutions/90_numbers.ipynb").read_text("utf-8")
    elif kind == "without-ids":
        text = json.dumps({**notebook, "cells": [{k: v for k, v in c.items() if k != "id"} for c in notebook["cells"]]})
    elif kind == "unknown":
        text = text.replace('"exercise": "90_numbers"', '"exercise": "99_nothing"')
    elif kind == "path":
        text = text.replace('"exercise": "90_numbers"', '"exercise": "../90_numbers"')
    elif kind == "list":
        text = "[]"
    elif kind == "deep":
        text = "[" * 100_000
    elif kind == "huge":
        text = " " * (MAX_BYTES + 1)
    file.write_bytes(b"\x89PNG\xff" if kind == "picture" else text.encode())
    return file


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", "or a truncated one: its JSON breaks off in line"),
        ("copied", "has 2 cells with the id answer-90-1"),
        ("foreign", "is a notebook but no exercise of this course"),
        ("solution", "is a solution"),
        ("without-ids", "has lost its cell ids"),
        ("unknown", "there is no solutions/99_nothing.ipynb"),
        ("path", "no exercise of this course"),
        ("list", "it has no list of cells"),
        ("deep", "it is nested too deeply"),
        ("huge", "is larger than 10 MiB"),
        ("picture", "it is not text"),
    ],
)
def test_what_cannot_be_graded_is_said_in_one_sentence(course, tmp_path, capsys, kind, message):
    assert cli.main(["check", str(junk(course, kind, tmp_path))]) == 2
    out, err = capsys.readouterr()
    assert message in err
    assert err.startswith("course check: ")
    assert len(err.splitlines()) == 1
    assert out == ""


def test_a_missing_file_and_an_empty_folder_are_named(tmp_path, capsys):
    assert cli.main(["check", str(tmp_path / "no.ipynb")]) == 2
    assert cli.main(["grade", str(tmp_path)]) == 2
    assert cli.main(["grade", str(tmp_path / "no")]) == 2
    err = capsys.readouterr().err
    assert "there is no file" in err
    assert "holds no notebooks" in err
    assert "there is no folder" in err


def test_extra_cells_with_the_same_id_do_not_matter(course, tmp_path):
    file = hand_in(course, "scratches", change=lambda cells: cells.extend([scratch("1"), scratch("2")]))
    assert set(load(file).answers) == set(RIGHT)


def test_a_solution_that_fails_its_own_check_is_the_teachers_fault(course, tmp_path):
    for folder in ("solutions", "exercises"):
        (tmp_path / folder).mkdir()
    text = (course / "solutions/90_numbers.ipynb").read_text("utf-8")
    (tmp_path / "solutions/90_numbers.ipynb").write_text(text.replace("lambda: max(", "lambda: min("), encoding="utf-8")
    file = hand_in(course, "good", RIGHT)
    with pytest.raises(GradingError, match=r"fails its own check 90.2 with this seed: largest: yours"):
        Grader().grade(file, solutions_near=[tmp_path / "exercises"])


def test_check_command_passes_and_fails_by_exit_status(course, capsys):
    file = hand_in(course, "solved", RIGHT)
    assert cli.main(["check", str(file), "--seed", "5"]) == 0
    out = capsys.readouterr().out
    assert "3 of 3 tasks passed in 90_numbers (seed 5)." in out
    assert "Confinement: " in out
    assert cli.main(["check", str(hand_in(course, "stub"))]) == 1
    assert "○ not solved" in capsys.readouterr().out


def test_grade_command_writes_a_row_for_every_task(course, tmp_path, capsys, monkeypatch):
    folder = tmp_path / "collected"
    (folder / "ada" / "solutions").mkdir(parents=True)
    (folder / "ada" / "90.ipynb").write_bytes(
        hand_in(course, "ada", {**RIGHT, "answer-90-3": "raise ValueError('=1+1')"}).read_bytes()
    )
    (folder / "ada" / "solutions" / "90_numbers.ipynb").write_text("{}", encoding="utf-8")  # not looked at
    (folder / "bob.ipynb").write_bytes(hand_in(course, "bob").read_bytes())
    monkeypatch.chdir(course)
    assert cli.main(["grade", str(folder), "--csv", str(tmp_path / "out.csv")]) == 2
    out = capsys.readouterr().out
    assert "2 of 3 (90.3 failed)" in out
    assert "not graded: " in out
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["task"], row["points"]) for row in rows] == [
        (str(Path("ada/90.ipynb")), "90.1", "1"),
        (str(Path("ada/90.ipynb")), "90.2", "1"),
        (str(Path("ada/90.ipynb")), "90.3", "0"),
        (str(Path("ada/solutions/90_numbers.ipynb")), "", "0"),
        ("bob.ipynb", "90.1", "0"),
        ("bob.ipynb", "90.2", "0"),
        ("bob.ipynb", "90.3", "0"),
    ]
    assert rows[2]["why"] == "ValueError: =1+1"
