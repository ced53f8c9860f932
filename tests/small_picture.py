"""A new picture is one Python file: who sends to whom in a ring, for the reader's number of ranks."""

from math import cos, pi, sin

from course_lib.viz.controls import Choice, Switch
from course_lib.viz.scene import Panel, Scene, arrow, dot, text
from course_lib.viz.widget import picture


def ring(ranks=4):
    """Draw a ring of ranks; the reader changes their number and the direction."""
    controls = [Choice("ranks", range(2, 9), look="buttons"), Switch("backwards")]
    return picture(build, controls, {"ranks": ranks, "backwards": False}, frames=True)


def build(ranks, backwards):
    """The ring as a scene."""
    if backwards and ranks == 2:
        raise ValueError("two ranks have one neighbour each: take more of them, or go forwards.")
    places = [(100 + 80 * sin(2 * pi * r / ranks), 100 - 80 * cos(2 * pi * r / ranks)) for r in range(ranks)]
    marks = []
    for rank, (x, y) in enumerate(places):
        other = (rank + (-1 if backwards else 1)) % ranks
        tip, of = f"rank {rank} sends to rank {other}", (f"r{rank}",)
        marks.append(arrow(x, y, *places[other], "line", bend=12, key=f"a{rank}", of=of))
        marks.append(dot(x, y, 14, f"rank-{rank} held", key=f"d{rank}", of=of, tip=tip, focus="ranks"))
        marks.append(text(x, y + 4, str(rank), "strong mid", key=f"t{rank}"))
    return Scene(f"A ring of {ranks}", (Panel(200, 200, marks),), say="Point at a rank.")
