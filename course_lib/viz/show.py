"""Which picture shows which value: in a notebook a trace, a schedule or a simulation shows itself by this list.

The values know nothing of pictures. What is not imported is not imported for this list either.
"""

from importlib import import_module
from typing import Any

_SHOWN = {  # module and name of a type -> the function of course_lib.viz that draws it
    ("course_lib.faults.diagnosis", "Copies"): "copies_picture",
    ("course_lib.trace", "Trace"): "timeline",
    ("course_lib.trace.tables", "Traffic"): "traffic",
    ("course_lib.schedules.schedule", "Schedule"): "schedule_picture",
    ("course_lib.schedules.simulation", "Simulation"): "schedule_picture",
}


def show(value: Any) -> Any:
    """The picture of a value. Raises TypeError for a value that has none."""
    for kind in type(value).__mro__:
        if name := _SHOWN.get((kind.__module__, kind.__qualname__)):
            return getattr(import_module("course_lib.viz"), name)(value)
    raise TypeError(f"there is no picture of a {type(value).__name__}.")


def register() -> None:
    """Let the notebook that runs this show each of these values as its picture. Elsewhere it does nothing."""
    from IPython import get_ipython

    if shell := get_ipython():
        for module, name in _SHOWN:
            shell.display_formatter.mimebundle_formatter.for_type_by_name(module, name, _bundle)


def _bundle(value: Any, include: Any = None, exclude: Any = None) -> tuple[dict, dict]:
    data, metadata = show(value)._repr_mimebundle_()
    return data | {"text/plain": repr(value)}, metadata
