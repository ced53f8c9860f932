"""Everything built is fresh, clean and runs: lessons, solutions and exercises as they lie in the repository.

New lessons are picked up by themselves. `pytest -k 05` looks at one chapter.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from course_lib.authoring.build import pages, stale
from course_lib.authoring.execute import execute
from course_lib.authoring.source import read_solution

ROOT = Path(__file__).resolve().parents[1]
MAX_BYTES = 150_000
CELL_TIMEOUT_S = 120
# Only beginnings that cannot be part of a web address or of a relative path.
MACHINE_PATH = re.compile(r"(?<![\w./:])(/(home|root|Users|tmp|var|work|usr|opt|mnt)/\w|[A-Z]:\\\w)")

PAGES = pages(ROOT)
EXECUTED = [page.built for page in PAGES]
EXERCISES = [page for page in PAGES if page.exercise]


def name_of(value):
    path = value if isinstance(value, Path) else value.exercise
    return path.relative_to(ROOT).as_posix()


def read(path):
    return nbformat.read(path, as_version=4)


def text_of(output):
    """What a reader sees of one output as text."""
    if output.output_type == "error":
        return "\n".join([output.evalue, *output.traceback])
    data = [v for mime, v in output.get("data", {}).items() if mime.startswith("text/") and isinstance(v, str)]
    return "\n".join([output.get("text", ""), *data])


def test_everything_built_is_what_the_sources_give():
    assert stale(ROOT) == [], "run `course build`"


@pytest.mark.parametrize("path", EXECUTED, ids=name_of)
def test_page_is_whole_and_clean(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert path.stat().st_size < MAX_BYTES
    for cell in notebook.cells:
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        assert cell.execution_count is not None, f"cell {cell.id} was not run"
        for output in cell.outputs:
            expected = "raises-exception" in cell.metadata.get("tags", [])
            assert output.output_type != "error" or expected, f"cell {cell.id} holds an error"
            text = text_of(output)
            assert not MACHINE_PATH.search(text), f"cell {cell.id} shows {MACHINE_PATH.search(text)[0]}..."
            assert "\x1b" not in text, f"cell {cell.id} holds terminal colours"
            assert output.get("name") != "stderr", f"cell {cell.id} shows a warning: {text[:200]}"


@pytest.mark.parametrize("page", EXERCISES, ids=name_of)
def test_exercise_holds_stubs_and_no_outputs(page):
    solution, _ = read_solution(page.source)
    exercise = read(page.exercise)
    assert exercise.metadata.course.exercise == page.source.stem
    tasks = solution.metadata.course["tasks"]
    code = [cell.source for cell in exercise.cells if cell.cell_type == "code"]
    assert [source for source in code if "raise NotImplementedError" in source] == [task["stub"] for task in tasks]
    assert 3 <= len(tasks) <= 6
    assert "### " not in "".join(code)
    for cell in exercise.cells:
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("page", EXERCISES, ids=name_of)
def test_unsolved_exercise_passes_no_check_and_stops_nobody(page, tmp_path):
    exercise = read(page.exercise)
    # A cell between an answer and its check may run into the stub; the reader's next cell must still work.
    for cell in exercise.cells:
        if not cell.id.startswith(("answer-", "check-")):
            cell.metadata["tags"] = ["raises-exception"]
    execute(exercise, tmp_path, name=page.exercise.name, timeout_s=CELL_TIMEOUT_S)
    for cell in exercise.cells:
        if cell.id.startswith("check-"):
            text = "".join(map(text_of, cell.outputs))
            number = cell.id.removeprefix("check-").replace("-", ".")
            assert f"Task {number}" in text
            assert "✓" not in text, f"{cell.id} passes unsolved"


@pytest.mark.parametrize("path", [path for path in EXECUTED if path.parent.name == "notebooks"], ids=name_of)
def test_nbval_lax(path, tmp_path):
    """Every cell runs again without an error, and those tagged nbval-check-output print what is saved.

    Solutions go through nbval in test_exercises.py: the grader holds them to full marks under a fresh seed.
    """
    config = tmp_path / "pytest.ini"
    config.write_text("[pytest]\n", encoding="utf-8")
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    line = [sys.executable, "-m", "pytest", str(path), "--nbval-lax", "--nbval-current-env", "-q", "--color=no"]
    line += ["-p", "nbval.plugin", "-p", "no:cacheprovider", "-c", str(config), f"--rootdir={path.parent}"]
    done = subprocess.run(
        [*line, f"--nbval-cell-timeout={CELL_TIMEOUT_S}", "-x"],
        env={**env, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "COURSE_LIB_PROGRESS": "0"},
        capture_output=True,
        text=True,
        timeout=10 * CELL_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    code_cells = sum(cell["cell_type"] == "code" for cell in json.loads(path.read_text("utf-8"))["cells"])
    assert f"{code_cells} passed" in done.stdout
