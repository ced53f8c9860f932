"""Words that every report uses: where a line is, what a rank is called, how a list reads."""

import linecache
import sys
from pathlib import Path

from course_lib.ranks.call_sites import WRAPPERS, is_library
from course_lib.ranks.failure import Frame
from course_lib.ranks.ledger_reader import Entry


def user_frames(stack: tuple[Frame, ...]) -> list[Frame]:
    """The frames of the learner's own code: neither Python's library, nor an installed package, nor this one."""
    return [f for f in stack if not is_library(f[0])]


def doing(stack: tuple[Frame, ...]) -> str:
    """The library function that the learner's innermost line had called, e.g. "all_reduce"; empty if none."""
    user = user_frames(stack)
    if not user:
        return ""
    inner = stack[len(stack) - 1 - stack[::-1].index(user[-1]) + 1 :]
    return next((name for _, _, name in inner if name not in WRAPPERS), "")


def where(frame: Frame) -> str:
    """A place in the learner's code: "Cell In[3], line 5, in step"."""
    file, number, name = frame
    ipython = sys.modules.get("IPython") and sys.modules["IPython"].get_ipython()
    label = ipython.compile.format_code_name(file) if ipython else None
    if label:
        place = " ".join(label)  # ("Cell", "In[3]")
    else:
        path = Path(file)
        place = str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name
    return f"{place}, line {number}" + (f", in {name}" if name != "<module>" else "")


def source(frame: Frame) -> str:
    """The text of a source line."""
    return linecache.getline(frame[0], frame[1]).strip()


def clipped(message: str, lines: int = 12, width: int = 300) -> str:
    """A message that fits on the screen: what is printed with a large tensor in it goes on for pages."""
    found = [line if len(line) <= width else line[:width] + " …" for line in message.strip().splitlines()]
    return "\n".join(found[:lines] + ["…"] * (len(found) > lines))


def name_of(rank: int) -> str:
    """rank 3"""
    return f"rank {rank}"


def listed(words: list[str]) -> str:
    """a, b and c"""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def ranks_listed(ranks: list[int] | tuple[int, ...]) -> str:
    """rank 3; ranks 0, 1 and 2; many in a row as ranks 0 to 6."""
    ranks = sorted(ranks)
    if len(ranks) == 1:
        return name_of(ranks[0])
    if len(ranks) > 3 and ranks[-1] - ranks[0] == len(ranks) - 1:
        return f"ranks {ranks[0]} to {ranks[-1]}"
    return "ranks " + listed([str(rank) for rank in ranks])


def operation_of(entry: Entry) -> str:
    """What an operation is called where the learner called it: its name in torch.distributed."""
    return entry.site.api or entry.call["operation"]


def for_whom(needs: tuple[int, ...]) -> str:
    """for rank 1; nothing if all have come."""
    return f" for {ranks_listed(needs)}" if needs else ""


def tensors_of(entry: Entry) -> str:
    """float32[2, 3] for a tensor of that shape; float32[] has one number and no dims."""
    parts = [f"{dtype}[{', '.join(map(str, shape))}]" for dtype, shape in entry.call["tensors"]]
    return ", ".join(parts[:3]) + (f", … ({len(parts)} tensors)" if len(parts) > 3 else "")
