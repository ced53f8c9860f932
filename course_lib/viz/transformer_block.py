"""The sharding view of a whole transformer block: every weight of every rank, and where ranks send, for any t and both modes."""

from typing import Any

import anywidget
import traitlets

from course_lib.viz.picture import image, joined
from course_lib.viz.shards import STATIC
from course_lib.viz.transformer_block_model import BlockSplit
from course_lib.viz.transformer_block_picture import draw, title, words

SIZES = (1, 2, 4, 8)


def transformer_block(
    b: int = 2, s: int = 64, h: int = 128, num_heads: int = 8, t: int = 2, sequence_parallel: bool = False
) -> "TransformerBlock":
    """Show a block of a transformer over t tensor-parallel ranks; the reader changes t and switches sequence parallel.

    b sequences of s tokens, width h, num_heads heads, numbers of 4 bytes. Offered are those of 1, 2, 4 and 8 ranks that divide the
    heads and the tokens. Raises ValueError for a t that is not among them, or a width that the heads do not divide.
    """
    sizes = tuple(n for n in SIZES if num_heads % n == 0 and s % n == 0)
    if t not in sizes:
        BlockSplit(b, s, h, num_heads, t, sequence_parallel=True)  # says why, if t does not divide
        raise ValueError(f"t is {t}: the picture is for {', '.join(map(str, sizes))} ranks.")
    return TransformerBlock(b, s, h, num_heads, sizes, t, sequence_parallel)


class TransformerBlock(anywidget.AnyWidget):
    """The picture with its controls. `t` and `sequence_parallel` are what is shown; `svg()` is its picture."""

    _esm = STATIC / "transformer_block.js"
    _css = joined("picture.css", "transformer_block.css", "widget.css", "transformer_block_widget.css")
    t = traitlets.Int().tag(sync=True)
    sequence_parallel = traitlets.Bool().tag(sync=True)
    sizes = traitlets.List().tag(sync=True)
    pictures = traitlets.Dict().tag(sync=True)

    def __init__(
        self, b: int, s: int, h: int, num_heads: int, sizes: tuple[int, ...], t: int, sequence_parallel: bool
    ) -> None:
        self._splits = {
            (n, mode): BlockSplit(b, s, h, num_heads, n, mode) for n in sizes for mode in (False, True)
        }
        pictures = {
            f"{n} {'sequence' if mode else 'plain'}": draw(split, standalone=False)
            for (n, mode), split in self._splits.items()
        }
        super().__init__(t=t, sequence_parallel=sequence_parallel, sizes=list(sizes), pictures=pictures)

    @property
    def split(self) -> BlockSplit:
        """What is shown now."""
        return self._splits[self.t, self.sequence_parallel]

    def svg(self) -> str:
        """The picture as it is shown now, as a standalone SVG."""
        return draw(self.split)

    def __repr__(self) -> str:
        return f"{title(self.split)}: {words(self.split)}"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        data["text/html"] = image(self.svg(), repr(self))
        return data, metadata
