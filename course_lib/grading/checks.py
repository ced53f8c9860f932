"""The check blocks of an exercise, as they run inside the notebook.

COURSE_GRADED tells what the block does with the values it is given:

    (unset)      a learner pressed Run: compare with what the check expects and say the outcome in one line
    reference    the teacher's solution before a grading: compare, and print the values
    1            a learner's answers in a grading: print the values only; the grader outside the kernel compares them

When values are printed, COURSE_NOTES names a file for exceptions and hints. They explain a result and never decide it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys

from course_lib.grading.values import differ, leaves, line, same, short, within


def seed() -> int:
    """The number that an exercise draws its data from: 0 for a learner, fresh and unknown in each grading."""
    return int(os.environ.get("COURSE_SEED", "0"))


def check(task: str) -> Check:
    """The check of one task: `with check("5.1") as c: c.equal(...); c.at_most(...)`.

    Nothing raised inside the block leaves it, except an interrupt by the user.
    """
    return Check(task)


class Check:
    """What one check block has compared so far; see `check`."""

    def __init__(self, task: str):
        self.task = task
        self.graded = os.environ.get("COURSE_GRADED", "")
        self.passed: list[str] = []
        self.failure = ""
        self._lines: list[str] = []
        self._quiet = contextlib.ExitStack()

    def equal(self, name: str, got, want=None, *, hint: str = "") -> None:
        """`got` must be the value that `want()` gives: integers exactly, floats to 1e-9 of the largest."""
        texts = leaves(name, got)
        self._lines += [line(self.task, part, "=", text) for part, text in texts.items()]
        self._note(name=name, hint=hint)
        if self._to_compare():
            self._settle(name, _difference(name, texts, leaves(name, want() if callable(want) else want)), hint)

    def at_most(self, name: str, got, bound=None, *, hint: str = "") -> None:
        """`got`, a cost, must be a number no larger than what `bound()` gives."""
        self._note(name=name, hint=hint)
        text = leaves(name, got)[name]
        if self._to_compare():
            limit = leaves(name, bound() if callable(bound) else bound)[name]
            wrong = "" if within(text, limit) else f"{name}: yours {short(text)}, should be at most {short(limit)}"
            self._settle(name, wrong, hint)
            text = limit if self.graded == "reference" else text  # the grader holds a learner's cost against it
        self._lines.append(line(self.task, name, "<=", text))

    def __enter__(self):
        if self.graded:  # what the learner's code prints is not a value
            self._quiet.enter_context(contextlib.redirect_stdout(_Nowhere()))
            self._quiet.enter_context(contextlib.redirect_stderr(_Nowhere()))
        return self

    def __exit__(self, kind, error, trace) -> bool:
        self._quiet.close()
        if error is not None and not isinstance(error, (Exception, SystemExit)):
            return False
        if self.graded:
            sys.stdout.write("".join(f"{text}\n" for text in self._lines))
            reason = _reason(self.task, error) if error is not None else self.failure
            if reason:
                self._note(reason=reason)
        else:
            sys.stdout.write(self._verdict(error) + "\n")
        return True

    def _verdict(self, error) -> str:
        if error is not None and self.failure == "":
            missing = _unsolved(error)
            if missing == self.task:
                return f"○ Task {self.task} is not solved yet."
            return f"✗ Task {self.task}: {_reason(self.task, error)}"
        if self.failure:
            return f"✗ Task {self.task}: {self.failure}"
        if not self.passed:
            return f"✗ Task {self.task}: this check compared nothing."
        return f"✓ Task {self.task}: {', '.join(self.passed)}."

    def _to_compare(self) -> bool:
        return self.graded != "1" and not self.failure

    def _settle(self, name: str, wrong: str, hint: str) -> None:
        if wrong:
            self.failure = f"{wrong}.{f' Try: {hint}' if hint else ''}"
        else:
            self.passed.append(name)

    def _note(self, **note) -> None:
        path = os.environ.get("COURSE_NOTES")
        if self.graded and path:
            with contextlib.suppress(OSError), open(path, "a", encoding="utf-8") as notes:
                notes.write(json.dumps({"task": self.task, **note}) + "\n")


class _Nowhere:
    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        pass


def _difference(name: str, got: dict[str, str], want: dict[str, str]) -> str:
    """What is wrong with `got`, or nothing."""
    for part, text in want.items():
        if part not in got:
            return f"{name}: yours {short(got[name])}, should have {part}"
        if not same(got[part], text):
            return f"{part}: {differ(got[part], text)}"
    extra = [part for part in got if part not in want]
    return f"{name}: {extra[0]} should not be there" if extra else ""


def _unsolved(error: BaseException) -> str:
    """The task whose stub was run into, or nothing. On a rank the stub's error arrives inside a RankError's text."""
    found = re.search(r"NotImplementedError\W+Task (\d+\.\d+)", f"{type(error).__name__}: {error}")
    return found[1] if found else ""


def _reason(task: str, error: BaseException) -> str:
    missing = _unsolved(error)
    if missing:
        return "not solved yet." if missing == task else f"it needs Task {missing}, which is not solved yet."
    lines = str(getattr(error, "summary", "") or error).strip().splitlines()
    return f"{type(error).__name__}{': ' + lines[-1].strip()[:300] if lines else ''}"
