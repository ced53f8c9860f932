"""Sharded checkpoints: `checkpoint.save(hybrid, folder, step, facts)`, `found(folder)`, and `load(hybrid, path)` in any other layout.

save_load.py     both of them, through torch.distributed.checkpoint
shards.py        what a rank holds of each parameter and of its optimizer state
dcp_planners.py  boxes of a tensor, as torch.distributed.checkpoint writes and reads them
folder.py        which checkpoints there are in a folder, without torch
"""

from typing import Any

from course_lib.checkpoint.folder import found

__all__ = ["found", "load", "save"]


def __getattr__(name: str) -> Any:
    if name in ("save", "load"):  # only now: the folder can be looked at without torch
        from course_lib.checkpoint import save_load

        return getattr(save_load, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
