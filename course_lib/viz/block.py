"""The sharding view of a whole transformer block: who holds what, and where something is sent, for the reader's choice of t."""

from dataclasses import replace
from typing import Any

import anywidget
import traitlets

from course_lib.layout import even_share
from course_lib.viz.block_model import SplitBlock
from course_lib.viz.block_picture import draw
from course_lib.viz.block_words import describe, rank_line, spoken
from course_lib.viz.ownership import MAX_WORLD_SIZE
from course_lib.viz.picture import image, joined


def transformer_block(
    *,
    b: int = 2,
    s: int = 64,
    h: int = 128,
    num_heads: int = 8,
    t: int = 2,
    sequence_parallel: bool = False,
    itemsize: int = 4,
) -> "TransformerBlock":
    """Draw a transformer block on t tensor-parallel ranks; the reader changes t and switches sequence parallel on and off.

    b sequences of s tokens, h wide, an MLP of 4h: the block of `course_lib.models.gpt`. itemsize: bytes of a number that is
    held or sent. What is kept for backward is counted as in the paper, in 16 bits and with dropout.
    Raises ValueError for h that num_heads does not divide, for t that does not divide num_heads or is above 8, and with
    sequence_parallel for t that does not divide s; TypeError for what is no whole number.
    """
    return TransformerBlock(SplitBlock(b, s, h, num_heads, t, sequence_parallel, itemsize))


class TransformerBlock(anywidget.AnyWidget):
    """The picture of a SplitBlock with its controls. `t` and `sequence_parallel` are what is shown; `svg()` is its picture.

    Every picture that can be chosen is drawn here, once; the page shows one or another, and needs no kernel for it.
    """

    _esm = joined("elements.js", "block.js")
    _css = joined("picture.css", "block.css", "widget.css", "block_widget.css")
    t = traitlets.Int().tag(sync=True)
    sequence_parallel = traitlets.Bool().tag(sync=True)
    data = traitlets.Dict().tag(sync=True)

    def __init__(self, block: SplitBlock) -> None:
        self._block = block
        super().__init__(t=block.t, sequence_parallel=block.sequence_parallel, data=_data(block))

    @traitlets.validate("t", "sequence_parallel")
    def _check(self, proposal: Any) -> Any:
        now = {"t": self.t, "sequence_parallel": self.sequence_parallel} if self.t else {}
        replace(self._block, **now | {proposal["trait"].name: proposal["value"]})
        return proposal["value"]

    @property
    def block(self) -> SplitBlock:
        """What is shown now."""
        return replace(self._block, t=self.t, sequence_parallel=self.sequence_parallel)

    def svg(self) -> str:
        """The picture as it is shown now, as a standalone SVG."""
        return draw(self.block)

    def __repr__(self) -> str:
        return describe(self.block)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        data["text/html"] = image(self.svg(), repr(self))
        return data, metadata


def _data(block: SplitBlock) -> dict[str, Any]:
    """All that can be chosen: under "4" the picture of four ranks, under "4s" that with sequence parallel."""
    options = [t for t in range(1, MAX_WORLD_SIZE + 1) if block.num_heads % t == 0]
    shown, refused = {}, {1: "Sequence parallel divides by t, which is 1."}
    for t in options:
        plain = replace(block, t=t, sequence_parallel=False)
        shown[f"{t}"] = plain
        try:
            even_share(block.s, t, "The sequence length s")
        except ValueError as error:
            refused[t] = str(error)
        else:
            if t > 1:
                shown[f"{t}s"] = replace(plain, sequence_parallel=True)
    return {
        "options": options,
        "refused": refused,
        "pictures": {key: draw(value, standalone=False) for key, value in shown.items()},
        "ranks": {key: [rank_line(value, rank) for rank in range(value.t)] for key, value in shown.items()},
        "spoken": {key: spoken(value) for key, value in shown.items()},
    }
