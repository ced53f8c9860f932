"""Grading one notebook: a fresh reference, nbval on the merge, and a result for every task.

An answer that fails is replaced by the teacher's, and the rest is run again: a task is judged by its own answer, whatever
an earlier one did.
"""

from __future__ import annotations

import json
import math
import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nbformat

from course_lib.authoring.execute import execute
from course_lib.authoring.markers import AuthoringError, Task
from course_lib.grading.explain import Reason, explain
from course_lib.grading.session import Run, run_nbval
from course_lib.grading.submission import GradingError, find_solution, is_unsolved, load, splice, syntax_problem
from course_lib.grading.values import PREFIX


@dataclass(frozen=True)
class TaskResult:
    """One task's result: passed, failed or not solved, with the reason and what to try next."""

    task: str
    title: str
    result: str
    why: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Result:
    """One notebook's results, the seed that they were made with, and what confined the learner's code."""

    file: Path
    exercise: str
    tasks: tuple[TaskResult, ...]
    seed: int
    confinement: str

    @property
    def passed(self) -> bool:
        return all(task.result == "passed" for task in self.tasks)


@dataclass(frozen=True)
class Reference:
    """The teacher's solution as run for this grading: outputs, seconds by cell, hints by (task, name)."""

    notebook: nbformat.NotebookNode
    seconds: dict[str, float]
    hints: dict[tuple[str, str], str]


class Grader:
    """Grades notebooks with one seed; the reference of an exercise is made once and serves all its notebooks.

    timeout_s: for one cell; by default five times the slowest cell of the solution, at least 30 s.
    seed: fresh by default.
    """

    def __init__(self, *, timeout_s: float | None = None, seed: int | None = None, say=lambda line: None):
        self.timeout_s, self.say = timeout_s, say
        self.seed = secrets.randbelow(2**31 - 1) + 1 if seed is None else seed
        self._references: dict[Path, Reference] = {}

    def grade(self, file: Path, *, solutions_near: list[Path] | None = None) -> Result:
        """The result of one notebook; GradingError where it cannot be graded.

        The solution is looked for in and above `solutions_near`: by default the notebook's folder, the current one and
        the folder that this package was installed from.
        """
        submission = load(file)
        folders = solutions_near or [file.parent, Path.cwd(), Path(__file__).parents[2]]
        solution_file = find_solution(submission.name, folders)
        solution, tasks = _read_solution(solution_file)
        results = {}
        for task, stub in tasks.items():
            problem = _problem_before_running(submission.answers, task, stub)
            if problem:
                results[task.number] = problem
        limits = None
        if len(results) < len(tasks):
            reference = self._reference(solution_file, solution, tasks)
            self.say("running your answers under nbval ...")
            limits = _judge(list(tasks), submission.answers, reference, results, self._env(), self._timeout(reference))
        rows = tuple(TaskResult(t.number, t.title, *_row(results[t.number])) for t in tasks)
        return Result(file, submission.name, rows, self.seed, self._confinement(limits))

    def _reference(self, file: Path, solution, tasks) -> Reference:
        if file not in self._references:
            self.say(f"running the teacher's solution with the seed {self.seed} ...")
            self._references[file] = _make_reference(file, solution, list(tasks), self._env())
        return self._references[file]

    def _env(self) -> dict[str, str]:
        return {"COURSE_GRADED": "1", "COURSE_SEED": str(self.seed), "COURSE_LIB_PROGRESS": "0"}

    def _timeout(self, reference: Reference) -> float:
        return self.timeout_s or max(30.0, 5 * math.ceil(max(reference.seconds.values(), default=0.0)))

    def _confinement(self, limits: list[str] | None) -> str:
        if limits is None:
            return "Confinement: none was needed, no answer was run."
        held = ", ".join([*limits, "a time limit for every cell"])
        text = f"Confinement: {held}; files and network were not closed off."
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            text += " It ran as root, who may lift such limits: grade other people's notebooks as an ordinary user."
        return text


def _judge(tasks: list[Task], answers: dict, reference: Reference, results: dict, env: dict, timeout_s: float):
    """Fills `results` for every task that it lacks; returns the limits that held."""
    areas = _areas(reference.notebook, tasks)
    limits = None
    while undecided := [t for t in tasks if t.number not in results]:
        # A task that passed keeps the learner's answer in later runs: what follows may build on it.
        used = [t for t in tasks if results.get(t.number, "") == ""]
        judged = {cell_id for t in undecided for cell_id in areas[t.number]}
        merged = splice(reference.notebook, answers, {t.answer_id for t in used}, {t.check_id for t in tasks})
        run = run_nbval(merged, judged, env=env, timeout_s=timeout_s)
        limits = run.limits if limits is None else [limit for limit in limits if limit in run.limits]
        culprit, cell_id = None, ""
        for task in undecided:
            bad = [c for c in areas[task.number] if c in run.cells and run.cells[c].kind]
            if bad:
                culprit, cell_id = task, bad[0]
                break
            if task.check_id in run.cells:
                results[task.number] = ""
        if culprit is None and any(t.number not in results for t in tasks):
            culprit, cell_id = _blame(run, merged, used)
        if culprit is not None:
            outcome = run.cells[cell_id]
            hints = {name: hint for (task, name), hint in reference.hints.items() if task == culprit.number}
            takes = reference.seconds.get(cell_id, 0.0)
            results[culprit.number] = explain(culprit, outcome, run.notes, hints, timeout_s, takes)
    return limits


def _blame(run: Run, merged, used: list[Task]) -> tuple[Task, str]:
    """(the task, the cell) for a run that ended between tasks: the learner's last answer before it is the cause."""
    ended = [c for c, outcome in run.cells.items() if outcome.kind in ("dead", "timeout")]
    order = [cell.id for cell in merged.cells]
    if ended:
        before = order[: order.index(ended[-1]) + 1]
        for task in reversed(used):
            if task.answer_id in before:
                return task, ended[-1]
    cell = ended[-1] if ended else next((c for c, o in run.cells.items() if o.kind == "setup"), None)
    detail = run.cells[cell].error if cell else ""
    raise GradingError(
        f"nbval could not run the notebook{f' (cell {cell}: {detail})' if cell else ''}:\n{run.log.strip()}"
    )


def _areas(notebook, tasks: list[Task]) -> dict[str, list[str]]:
    """The code cells that decide each task: from its answer to its check."""
    order = [cell.id for cell in notebook.cells if cell.cell_type == "code"]
    return {t.number: order[order.index(t.answer_id) : order.index(t.check_id) + 1] for t in tasks}


def _problem_before_running(answers: dict, task: Task, stub: str) -> Reason | None:
    source = answers.get(task.answer_id)
    if task.answer_id not in answers:
        return Reason(
            f"the answer cell {task.answer_id} is missing", "edit inside the answer cells of a fresh exercise"
        )
    if source is None:
        return Reason(f"the cell {task.answer_id} is no code cell", "turn it back into a code cell")
    if is_unsolved(source, stub):
        return Reason("not solved yet", "", solved=False)
    problem = syntax_problem(source)
    return Reason(problem, "run the cell: Python points at the place") if problem else None


def _row(reason: Reason | str) -> tuple[str, str, str]:
    if not reason:
        return "passed", "", ""
    return ("failed" if reason.solved else "not solved"), reason.why, reason.hint


def _read_solution(file: Path) -> tuple[nbformat.NotebookNode, dict[Task, str]]:
    notebook = nbformat.read(file, as_version=4)
    entries = notebook.metadata.get("course", {}).get("tasks", [])
    if not entries:
        raise GradingError(f"{file} names no tasks: build it with `course build`")
    return notebook, {Task(entry["task"], entry["title"]): entry["stub"] for entry in entries}


def _make_reference(file: Path, solution, tasks: list[Task], env: dict[str, str]) -> Reference:
    notebook = nbformat.from_dict(solution)
    with tempfile.TemporaryDirectory(prefix="course-reference-", ignore_cleanup_errors=True) as folder:
        notes = Path(folder, "notes.jsonl")
        try:
            extra = {**env, "COURSE_GRADED": "reference", "COURSE_NOTES": str(notes)}
            seconds = execute(notebook, Path(folder), name=file.name, env=extra)
        except AuthoringError as error:
            raise GradingError(f"the teacher's own notebook does not run: {error}") from None
        noted = [json.loads(line) for line in notes.read_text("utf-8").splitlines()] if notes.exists() else []
    for note in noted:
        if "reason" in note:
            raise GradingError(f"{file.name} fails its own check {note['task']} with this seed: {note['reason']}")
    cells = {cell.id: cell for cell in notebook.cells}
    for task in tasks:
        outputs = cells[task.check_id].outputs
        if not any(PREFIX in output.get("text", "") for output in outputs):
            raise GradingError(f"{file.name}: {task.check_id} compares no values")
    return Reference(notebook, seconds, {(n["task"], n["name"]): n["hint"] for n in noted if n.get("hint")})
