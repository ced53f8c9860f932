"""Checks inside exercises, and the grader behind `course check` and `course grade`.

A notebook needs two names: `check`, the block that compares what the learner's code gives, and `seed`, the number from
which an exercise draws its data; a third, `by_hand`, keeps an answer from calling what it is to write. Everything else here runs outside the notebook.
"""

from course_lib.grading.by_hand import by_hand
from course_lib.grading.checks import Check, check, seed

__all__ = ["Check", "by_hand", "check", "seed"]
