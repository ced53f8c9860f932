"""From sources to notebooks: which are stale, and building those."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import nbformat

from course_lib.authoring.execute import clean, execute
from course_lib.authoring.markers import AuthoringError
from course_lib.authoring.source import read_lesson, read_solution, sha256_of


@dataclass(frozen=True)
class Page:
    """One source and the executed notebook built from it; a solution also has the exercise made from it."""

    source: Path
    built: Path
    exercise: Path | None = None


def find_root(start: Path | None = None) -> Path:
    """The course's folder: the nearest one at or above `start` (the current folder) with notebooks/ and solutions/,
    else the one that this package was installed from."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents, Path(__file__).resolve().parents[2]):
        if (folder / "notebooks").is_dir() and (folder / "solutions").is_dir():
            return folder
    raise AuthoringError("no course found here: run this in a folder that has notebooks/ and solutions/")


def pages(root: Path) -> list[Page]:
    """Every source of the course, lessons first, in the chapters' order."""
    lessons = [Page(s, root / "notebooks" / f"{s.stem}.ipynb") for s in _sources(root / "notebooks")]
    solutions = [
        Page(s, root / "solutions" / f"{s.stem}.ipynb", root / "exercises" / f"{s.stem}.ipynb")
        for s in _sources(root / "solutions")
    ]
    return lessons + solutions


def stale(root: Path) -> list[str]:
    """One sentence for each built notebook that is missing, not what its source gives, or without a source."""
    found = []
    for page in pages(root):
        if not _is_fresh(page):
            found.append(f"{_name(page.built, root)} is not built from the present {_name(page.source, root)}")
        if page.exercise and not _exercise_is_fresh(page):
            found.append(f"{_name(page.exercise, root)} is not what {_name(page.source, root)} generates")
    known = {path for page in pages(root) for path in (page.built, page.exercise)}
    for folder in ("notebooks", "solutions", "exercises"):
        for path in sorted((root / folder).glob("*.ipynb")):
            if path not in known:
                found.append(f"{_name(path, root)} has no source")
    return found


def build(root: Path, names: tuple[str, ...] = (), *, everything: bool = False, say=print) -> int:
    """Builds the stale notebooks, only those whose file name starts with one of `names` if any are given, all of them
    with `everything`; returns how many files were written. AuthoringError leaves the older files in place."""
    chosen = [p for p in pages(root) if not names or p.source.stem.startswith(tuple(names))]
    for name in names:
        if not any(page.source.stem.startswith(name) for page in chosen):
            raise AuthoringError(f"no source's name starts with {name!r}; look into notebooks/src and solutions/src")
    written = 0
    for page in chosen:
        if page.exercise and (everything or not _exercise_is_fresh(page)):
            _write(read_solution(page.source)[1], page.exercise)
            say(f"generated {_name(page.exercise, root)}")
            written += 1
        if everything or not _is_fresh(page):
            say(f"running   {_name(page.built, root)} ...")
            start = time.monotonic()
            _write(_executed(page, root), page.built)
            say(f"built     {_name(page.built, root)} in {time.monotonic() - start:.1f} s")
            written += 1
    if not written:
        say(f"nothing to do: {len(chosen)} source{'' if len(chosen) == 1 else 's'} built already")
    return written


def _executed(page: Page, root: Path) -> nbformat.NotebookNode:
    notebook = read_solution(page.source)[0] if page.exercise else read_lesson(page.source)
    name = _name(page.source, root)
    execute(notebook, page.built.parent, name=name)
    metadata = notebook.metadata
    # nbclient writes the exact Python version here; the sources' fixed entry keeps pages the same on every machine.
    metadata.language_info = {k: v for k, v in metadata.language_info.items() if k in _LANGUAGE_KEYS}
    for task in metadata.course.get("tasks", []):
        check_id = "check-" + task["task"].replace(".", "-")
        cell = next(c for c in notebook.cells if c.id == check_id)
        text = "".join(o.get("text", "") for o in cell.outputs)
        if f"✓ Task {task['task']}" not in text:
            raise AuthoringError(
                f"{name}: the solution does not pass its own {check_id}: {text.strip() or 'no output'}"
            )
    return clean(notebook, root)


_LANGUAGE_KEYS = ("file_extension", "mimetype", "name", "pygments_lexer")


def _is_fresh(page: Page) -> bool:
    return _recorded_hash(page.built) == sha256_of(page.source)


def _exercise_is_fresh(page: Page) -> bool:
    return page.exercise.exists() and page.exercise.read_text("utf-8") == _text(read_solution(page.source)[1])


def _recorded_hash(built: Path) -> str | None:
    try:
        return json.loads(built.read_text("utf-8"))["metadata"]["course"]["source_sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _text(notebook: nbformat.NotebookNode) -> str:
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def _write(notebook: nbformat.NotebookNode, path: Path) -> None:
    """Whole or not at all, so that an interrupted build leaves no half notebook."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(_text(notebook), encoding="utf-8", newline="\n")
    os.replace(partial, path)


def _sources(folder: Path) -> list[Path]:
    return sorted((folder / "src").glob("[0-9][0-9]_*.py"))


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix()
