"""Pictures that draw themselves in a notebook, each a function of values: see scene.py, and pictures/ for one of them.

Nothing is imported before it is asked for.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "animate": "pictures.collective",
    "arena": "pictures.arena",
    "copies_picture": "pictures.copies",
    "memory_estimator": "pictures.estimator",
    "mesh_explorer": "pictures.mesh",
    "pipeline": "pictures.schedule",
    "planner_explorer": "pictures.planner",
    "predict": "pictures.prediction",
    "product": "pictures.product",
    "parts": "pictures.parts",
    "roofline": "pictures.roofline",
    "schedule_picture": "pictures.schedule",
    "sharding": "pictures.sharding",
    "tally": "pictures.prediction",
    "timeline": "pictures.timeline",
    "traffic": "pictures.traffic",
    "transformer_block": "pictures.block",
    "validation": "validation",
}
__all__ = [*_HOMES, "Partial", "Replicate", "Shard"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = f"{__name__}.{_HOMES[name]}" if name in _HOMES else "course_lib.layout"
    found = globals()[name] = getattr(import_module(home), name)
    return found
