"""Where in the learner's code an operation was called: cheap to note on every call, written out once a place."""

import os
import sysconfig
from pathlib import Path
from types import CodeType, FrameType

from course_lib.ranks.ledger import Ledger

DEPTH = 8  # of the learner's frames
LIBRARY = tuple(
    {os.path.realpath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    | {str(Path(__file__).resolve().parents[1]) + os.sep}
)
WRAPPERS = {"wrapper", "inner", "_call_impl", "_wrapped_call_impl", "decorate_context"}


def is_library(file: str) -> bool:
    """Whether a file belongs to Python, to an installed package or to this library, not to the learner."""
    return file.startswith("<frozen") or os.path.realpath(file).startswith(LIBRARY)


class Sites:
    """The places that one rank has called from."""

    def __init__(self, ledger: Ledger):
        self.ledger = ledger
        self.codes: list[CodeType] = []  # kept, so that no other code object gets the id of a known one

    def number(self, frame: FrameType | None) -> int:
        """The number in the ledger of the place that `frame` was reached from."""
        key, frames = [], []
        while frame is not None:
            code = frame.f_code
            key += (id(code), frame.f_lasti)
            frames.append(frame)
            if code.co_name == "run_rank":
                break
            frame = frame.f_back
        return self.ledger.name(("site", *key), lambda: self._describe(frames))

    def _describe(self, frames: list[FrameType]) -> dict:
        """api: the function of torch.distributed called; via: what the learner's line called; stack: outermost first."""
        stack, api, via = [], "", ""
        for frame in frames:
            code = frame.f_code
            self.codes.append(code)
            if is_library(code.co_filename):
                if not stack and code.co_name not in WRAPPERS:
                    via = code.co_name
                    if code.co_filename.endswith("distributed_c10d.py"):
                        api = code.co_name
            elif len(stack) < DEPTH:
                stack.append((code.co_filename, frame.f_lineno, code.co_name))
        return {"api": api, "via": via, "stack": stack[::-1]}
