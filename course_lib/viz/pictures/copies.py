"""Which ranks hold the same values: a row a tensor, a tile a rank, and equal tiles where the bits are equal."""

from functools import partial
from typing import Any

from course_lib.numbers import three
from course_lib.viz.scene import Panel, Scene, rect, text
from course_lib.viz.widget import Picture, picture

TILE = 44


def copies_picture(copies: Any) -> Picture:
    """Draw what `course_lib.faults.diagnosis.copies` found."""
    return picture(partial(build, copies), frames=True)


def build(copies: Any) -> Scene:
    """The tiles as a scene. Letters tell as much as colours do."""
    ranks = max(map(len, copies.letters.values()), default=0)
    marks, left = [text(172 + TILE * r, 12, str(r), "strong mid") for r in range(ranks)], 150
    marks.append(text(0, 12, "rank", "strong"))
    for row, (name, letters) in enumerate(copies.letters.items()):
        y, apart = 20 + 30 * row, copies.apart[name]
        marks.append(text(0, y + 17, name, "", left - 8, "clip"))
        for rank, letter in enumerate(letters):
            same = [str(other) for other, its in enumerate(letters) if its == letter]
            tip = f"{name} on rank {rank}: the same bits on rank{'s' * (len(same) > 1)} {', '.join(same)}"
            kind = "none" if letter == "·" else f"group-{min(ord(letter) - ord('a'), 3)} held"
            of = (f"{name} {letter}",)
            marks.append(rect(left + TILE * rank, y, TILE - 4, 24, kind, of=of, tip=tip, focus="tiles"))
            marks.append(text(left + TILE * (rank + 0.5) - 2, y + 17, letter, "strong mid", of=of))
        gap = f"furthest apart {three(apart) if apart > 0.01 else f'{apart:.1e}'}" if apart else "all equal"
        marks.append(text(left + TILE * ranks + 8, y + 17, gap, "small quiet"))
    panel = Panel(left + TILE * ranks + 150, 20 + 30 * len(copies.letters), marks)
    return Scene("Which ranks hold the same bits", (panel,), say="Point at a tile.", alt=repr(copies))
