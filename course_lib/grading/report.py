"""Results as a plain-text table and as CSV."""

from __future__ import annotations

import csv
import shutil
import textwrap
from pathlib import Path

from course_lib.grading.grade import Result

MARKS = {"passed": "✓ passed", "failed": "✗ failed", "not solved": "○ not solved"}


def table(result: Result, width: int | None = None) -> str:
    """The report of one notebook: a row for each task, the sum, the seed and the confinement."""
    rows = [("task", "title", "result", "why", "what to try")]
    rows += [(t.task, t.title, MARKS[t.result], t.why, t.hint) for t in result.tasks]
    right = sum(t.result == "passed" for t in result.tasks)
    width = width or shutil.get_terminal_size((110, 24)).columns
    total = f"{right} of {len(result.tasks)} tasks passed in {result.exercise} (seed {result.seed})."
    return "\n".join([*_grid(rows, width), "", total, textwrap.fill(result.confinement, max(width, 60))])


def one_line(result: Result) -> str:
    """The report of one notebook among many."""
    right = sum(t.result == "passed" for t in result.tasks)
    rest = ", ".join(f"{t.task} {t.result}" for t in result.tasks if t.result != "passed")
    return f"{right} of {len(result.tasks)}{f' ({rest})' if rest else ''}"


def write_csv(path: Path, graded: list[tuple[Path, Result | str]]) -> None:
    """One row for each task of each notebook; a notebook that could not be graded has one row that says why."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file", "exercise", "task", "title", "result", "points", "why", "seed"))
        for name, result in graded:
            if isinstance(result, str):
                writer.writerow(map(_cell, (name, "", "", "", "not graded", 0, result, "")))
                continue
            for t in result.tasks:
                points = int(t.result == "passed")
                row = (name, result.exercise, t.task, t.title, t.result, points, t.why, result.seed)
                writer.writerow(map(_cell, row))


def _cell(value):
    """A spreadsheet takes text that begins so for a formula, and some of this text comes from learners."""
    text = str(value)
    return "'" + text if text[:1] in ("=", "+", "-", "@") else text


def _grid(rows: list[tuple[str, ...]], width: int) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    room = max(width, 60) - sum(widths[i] for i in (0, 2)) - 2 * (len(widths) - 1)
    # title, why and hint share what is left: each gets what it needs, but none more than its part while others lack.
    flexible = sorted((1, 3, 4), key=lambda i: widths[i])
    for left, i in zip((3, 2, 1), flexible, strict=True):
        widths[i] = max(min(widths[i], room // left), 8)
        room -= widths[i]
    lines = []
    for number, row in enumerate(rows):
        parts = [textwrap.wrap(text, w) or [""] for text, w in zip(row, widths, strict=True)]
        for i in range(max(map(len, parts))):
            cells = [(p[i] if i < len(p) else "").ljust(w) for p, w in zip(parts, widths, strict=True)]
            lines.append("  ".join(cells).rstrip())
        if number == 0:
            lines.append("  ".join("─" * w for w in widths))
    return lines
