"""Percent sources as notebooks: stable cell ids, clean metadata, tasks; nothing is executed here."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import nbformat

from course_lib.authoring.markers import AuthoringError, Task, find_tasks, to_stub, without_markers

VALID_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
CHECK_TAG = "nbval-check-output"
KEPT_METADATA = ("tags", "jupyter")
AFTER = "What comes out, and why: open it when you have predicted"
# Fixed, so that a page built with another patch release of Python does not differ.
NOTEBOOK_METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "pygments_lexer": "ipython3",
    },
}


def sha256_of(source: Path) -> str:
    """The hash that a built notebook keeps of its source; the same whatever the line ends on disk."""
    return hashlib.sha256(_text_of(source).encode()).hexdigest()


def read_lesson(source: Path) -> nbformat.NotebookNode:
    """The lesson's notebook, not executed; AuthoringError where the source holds solution markers."""
    name = _display_name(source)
    tasks = find_tasks(_text_of(source), name)
    if tasks:
        raise AuthoringError(f"{name}: a lesson holds no tasks; task {tasks[0].number} belongs in solutions/src")
    notebook = _notebook(source, name, {"source_sha256": sha256_of(source)})
    cover_answers(notebook)
    return notebook


def cover_answers(notebook: nbformat.NotebookNode) -> None:
    """Hide what answers a prediction, up to the next heading or prediction, for those who open the page without running it.

    Outputs are folded, and come out when their cell is run; text is folded under a line to click.
    """
    covering = False
    for cell in notebook.cells:
        if cell.cell_type == "code":
            asks = cell.source.startswith("predict(")
            if covering and not asks:
                cell.metadata["jupyter"] = {**cell.metadata.get("jupyter", {}), "outputs_hidden": True}
            covering = covering or asks
        elif re.search(r"^#{1,3} ", cell.source, re.MULTILINE):
            covering = False
        elif covering:
            cell.source = f"<details><summary>{AFTER}</summary>\n\n{cell.source}\n\n</details>"


def read_solution(source: Path) -> tuple[nbformat.NotebookNode, nbformat.NotebookNode]:
    """The solution's notebook, not executed, and the exercise made from the same cells."""
    name = _display_name(source)
    tasks = find_tasks(_text_of(source), name)
    if not tasks:
        raise AuthoringError(f"{name}: no task was found; mark at least one with BEGIN SOLUTION")
    hash_ = sha256_of(source)
    solution = _notebook(source, name, {"source_sha256": hash_, "solution": source.stem})
    exercise = _notebook(source, name, {"source_sha256": hash_, "exercise": source.stem})
    answers = {task.answer_id for task in tasks}
    stubs = {}
    for cell in exercise.cells:
        if cell.id in answers:
            stubs[cell.id] = cell.source = to_stub(cell.source)
    for cell in solution.cells:
        cell.source = without_markers(cell.source) if cell.id in answers else cell.source
    solution.metadata.course["tasks"] = [
        {"task": t.number, "title": t.title, "stub": stubs[t.answer_id]} for t in tasks
    ]
    for notebook in (solution, exercise):
        for task in tasks:
            _tag(notebook, task)
    return solution, exercise


def _notebook(source: Path, name: str, course: dict) -> nbformat.NotebookNode:
    import jupytext

    # Magics are left alone: jupytext would turn a comment such as "# more than one rank" into a shell command.
    percent = {"extension": ".py", "format_name": "percent", "comment_magics": False}
    notebook = jupytext.reads(_text_of(source), fmt=percent)
    notebook.metadata = nbformat.from_dict({**NOTEBOOK_METADATA, "course": course})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    seen = set()
    for cell in notebook.cells:
        given = cell.metadata.get("id")
        cell.id = given if given is not None else _content_id(cell, seen)
        if not VALID_ID.fullmatch(str(cell.id)):
            raise AuthoringError(f"{name}: {cell.id!r} is no cell id: use up to 64 letters, digits, - and _")
        if cell.id in seen:
            raise AuthoringError(f"{name}: the cell id {cell.id} is used twice")
        seen.add(cell.id)
        cell.metadata = nbformat.from_dict({k: v for k, v in cell.metadata.items() if k in KEPT_METADATA})
    nbformat.validate(notebook)
    return notebook


def _content_id(cell, seen: set[str]) -> str:
    digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
    number = 1
    while (cell_id := digest if number == 1 else f"{digest}-{number}") in seen:
        number += 1
    return cell_id


def _tag(notebook, task: Task) -> None:
    for cell in notebook.cells:
        if cell.id == task.check_id:
            cell.metadata["tags"] = [*(t for t in cell.metadata.get("tags", []) if t != CHECK_TAG), CHECK_TAG]


def _text_of(source: Path) -> str:
    return source.read_text(encoding="utf-8").replace("\r\n", "\n")


def _display_name(source: Path) -> str:
    """The source as seen from the project's root: solutions/src/05_data_parallel.py."""
    return "/".join(source.parts[-3:])
