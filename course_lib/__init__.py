"""course_lib: distributed training on real ranks, from a notebook.

Importing it starts nothing and imports nothing heavy. Asking for `launch` starts, in the background, the process from which it
forks its ranks, so that the first launch need not wait for `import torch`.
"""

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

_HOMES = {
    "Cluster": "cost.links",
    "Link": "cost.links",
    "RankDeadlock": "ranks.explain",
    "RankError": "ranks.report",
    "RankMismatch": "ranks.explain",
    "RankTimeout": "ranks.report",
    "Run": "runtime.launch",
    "launch": "runtime.launch",
    "span": "ranks.spans",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    is_rank = "COURSE_LIB_RANK" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ  # ours, or torchrun's
    is_command = bool(sys.argv) and Path(sys.argv[0]).stem == "course"
    if name == "launch" and not (is_rank or is_command):
        import_module(f"{__name__}.ranks.client").starter()
    return found


if "IPython" in sys.modules:  # a notebook: values there show themselves
    from course_lib.viz.show import register

    register()
