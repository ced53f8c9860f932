"""course_lib: distributed training on real ranks, from a notebook.

Importing it starts, in the background, the process from which `launch` forks its ranks, so that the first launch need not
wait for `import torch`.
"""

import os
import sys
from pathlib import Path

from course_lib.launch import Run, launch
from course_lib.links import Cluster, Link
from course_lib.ranks.client import starter as _starter
from course_lib.ranks.explain import RankDeadlock, RankMismatch
from course_lib.ranks.report import RankError, RankTimeout
from course_lib.ranks.spans import span

__all__ = [
    "Cluster",
    "Link",
    "RankDeadlock",
    "RankError",
    "RankMismatch",
    "RankTimeout",
    "Run",
    "launch",
    "span",
]

_is_rank = "COURSE_LIB_RANK" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ  # ours, or torchrun's
_is_command = Path(sys.argv[0]).stem == "course" if sys.argv else False
if not (_is_rank or _is_command):
    _starter()
