"""For tasks in which the learner is to work something out that a library would do as well."""

import sys
from collections.abc import Callable
from typing import Any

_LIBRARIES = ("torch", "course_lib.cost", "course_lib.models")


def by_hand(answer: Callable[..., Any], *libraries: str) -> Callable[..., Any]:
    """The answer, stopped where it calls a Python function of these libraries: by default torch and what the course counts with.

    libraries: beginnings of modules' names. What is written in C, such as the methods of a tensor, is not seen.
    The call raises RuntimeError, in a sentence that names the module.
    """

    def watch(frame: Any, event: str, _: Any) -> None:
        module = frame.f_globals.get("__name__", "")
        if event == "call" and module.startswith(libraries or _LIBRARIES):
            raise RuntimeError(f"this answer calls {module}: write here what that does")

    def run(*args: Any) -> Any:
        before = sys.getprofile()
        sys.setprofile(watch)
        try:
            return answer(*args)
        finally:
            sys.setprofile(before)

    return run
