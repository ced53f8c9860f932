"""The animation of a collective: which chunk goes where in each step, and what every rank holds after it."""

from typing import Any

import anywidget
import traitlets

from course_lib.viz.collective_picture import caption, draw, sentence
from course_lib.viz.moves import ALGORITHMS, chosen, final, initial, moves, num_chunks
from course_lib.viz.picture import image, joined
from course_lib.viz.shards import STATIC

MAX_WORLD_SIZE = 8


def animate(operation: str, algorithm: str | None = None, world_size: int = 4) -> "Collective":
    """Show a collective step by step; the reader plays it, and changes the algorithm and the world size.

    operation: "broadcast", "scatter", "gather", "reduce", "all_gather", "reduce_scatter", "all_reduce" or "all_to_all".
    algorithm: one of those that the operation has, such as "ring", "doubling" or "reduce_broadcast" of an all_reduce.
    What is drawn are the moves of `course_lib.viz.moves`, which a test holds equal to what course_lib.collectives sends.

    Raises ValueError for an unknown operation or algorithm, or a world size outside 2 to 8.
    """
    algorithm = chosen(operation, algorithm)
    if not isinstance(world_size, int) or not 2 <= world_size <= MAX_WORLD_SIZE:
        raise ValueError(
            f"animate() shows 2 to {MAX_WORLD_SIZE} ranks, not {world_size!r}: pick a number in between."
        )
    return Collective(operation, algorithm, world_size)


class Collective(anywidget.AnyWidget):
    """The animation with its controls; `svg()` is a picture of all its steps."""

    _esm = STATIC / "collective.js"
    _css = joined("picture.css", "collective.css", "widget.css", "trace_widget.css", "collective_widget.css")
    operation = traitlets.Unicode().tag(sync=True)
    algorithm = traitlets.Unicode().tag(sync=True)
    world_size = traitlets.Int().tag(sync=True)
    data = traitlets.Dict().tag(sync=True)

    def __init__(self, operation: str, algorithm: str, world_size: int) -> None:
        data = {
            name: {n: _choice(operation, name, n) for n in range(2, MAX_WORLD_SIZE + 1)}
            for name in ALGORITHMS[operation]
        }
        super().__init__(operation=operation, algorithm=algorithm, world_size=world_size, data=data)

    def svg(self) -> str:
        """The start and every step of what is shown now, as a standalone SVG."""
        return draw(self.operation, self.algorithm, self.world_size)

    def __repr__(self) -> str:
        lines = [caption(self.operation, self.algorithm, self.world_size)]
        for k, step in enumerate(moves(self.operation, self.algorithm, self.world_size), 1):
            lines.append(f"  step {k}: {sentence(step)}")
        return "\n".join(lines)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        data["text/html"] = image(self.svg(), repr(self))
        return data, metadata


def _choice(operation: str, algorithm: str, n: int) -> dict[str, Any]:
    """What the page needs for one algorithm and world size: each move is [src, dst, chunk, combine]."""

    def plain(holdings: Any) -> list:
        return [[[chunk, *sorted(ranks)] for chunk, ranks in held.items()] for held in holdings]

    return {
        "caption": caption(operation, algorithm, n),
        "slots": num_chunks(operation, algorithm, n),
        "start": plain(initial(operation, algorithm, n)),
        "goal": [[chunk for chunk in held] for held in final(operation, algorithm, n)],
        "steps": [
            [[move.src, move.dst, move.chunk, int(move.combine)] for move in step]
            for step in moves(operation, algorithm, n)
        ],
    }
