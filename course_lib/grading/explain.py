"""Why a task failed and what to try, in words for the learner. Nothing here decides a result."""

from __future__ import annotations

import re
from dataclasses import dataclass

from course_lib.authoring.markers import Task
from course_lib.grading.session import Outcome


@dataclass(frozen=True)
class Reason:
    """Why a task did not pass and what to try; `solved` is False where nothing was written yet."""

    why: str
    hint: str = ""
    solved: bool = True


def explain(
    task: Task, outcome: Outcome, notes: list[dict], hints: dict[str, str], timeout_s: float, reference_s: float
) -> Reason:
    """The reason behind a cell's outcome.

    notes: what the learner's kernel wrote down, so no more than a claim.  hints: the author's, by value name.
    reference_s: what the same cell takes in the solution.
    """
    if outcome.kind == "timeout":
        return Reason(
            f"stopped after {timeout_s:g} s; the solution takes {reference_s:.1f} s",
            "look for a loop that does not end, or for ranks that wait for each other",
        )
    if outcome.kind == "dead":
        return Reason("the Python process ended while this ran", "leave out exit() and os._exit(), and mind the memory")
    if outcome.kind == "error":
        return _from_error(outcome.error)
    if outcome.reason:
        return Reason(plain(outcome.reason), _hint_for(outcome.name, hints))
    for note in reversed(notes):
        if note.get("task") == task.number and isinstance(note.get("reason"), str):
            return _from_error(note["reason"])
    return Reason("the check did not print the values it should", "restart the kernel, run all cells, then check again")


def plain(text: str, limit: int = 300) -> str:
    """Text from a learner's kernel made safe for a terminal: one line, no control characters."""
    text = re.sub(r"\x1b\[[0-9;?]*[ -/]*[@-~]", "", text)
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _from_error(error: str) -> Reason:
    text = plain(error)
    if text.startswith("NotImplementedError") or text == "not solved yet.":
        return Reason("not solved yet", "", solved=False)
    if text.startswith("NameError"):
        return Reason(text, "keep all that the answer needs in its own cell: other cells of yours are not graded")
    return Reason(text, "run the notebook from the top: the same error shows there, with its place")


def _hint_for(name: str, hints: dict[str, str]) -> str:
    """The hint of the value called `name`, or of the dict or list that it is a part of."""
    fitting = [known for known in hints if name.startswith(known)]
    return hints[max(fitting, key=len)] if fitting else ""
