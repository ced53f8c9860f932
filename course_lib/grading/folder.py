"""Grading every notebook of a folder."""

from __future__ import annotations

from pathlib import Path

from course_lib.grading.grade import Grader
from course_lib.grading.report import one_line, write_csv
from course_lib.grading.submission import GradingError


def grade_folder(
    folder: Path, *, csv_file: Path | None = None, timeout_s: float | None = None, seed: int | None = None, say=print
) -> int:
    """Grades each notebook in `folder` and below it; returns 0, or 2 where one could not be graded.

    All are graded with one fresh seed, so each exercise's reference is made once. The solutions are the course's own:
    those that lie among the notebooks are not looked at.
    """
    if not folder.is_dir():
        raise GradingError(f"there is no folder {folder}")
    files = sorted(f for f in folder.rglob("*.ipynb") if ".ipynb_checkpoints" not in f.parts)
    if not files:
        raise GradingError(f"{folder} holds no notebooks")
    grader = Grader(timeout_s=timeout_s, seed=seed)
    near = [Path.cwd(), folder.resolve().parent, Path(__file__).parents[2]]
    graded, confinement = [], ""
    for number, file in enumerate(files, 1):
        name = file.relative_to(folder)
        say(f"[{number}/{len(files)}] {name} ...")
        try:
            result = grader.grade(file, solutions_near=near)
            confinement = result.confinement
            graded.append((name, result))
            say(f"    {one_line(result)}")
        except GradingError as error:
            graded.append((name, str(error)))
            say(f"    not graded: {error}")
    if csv_file:
        write_csv(csv_file, graded)
        say(f"wrote {csv_file}")
    say(f"Seed {grader.seed}. {confinement}".strip())
    return 2 if any(isinstance(result, str) for _, result in graded) else 0
