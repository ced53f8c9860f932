"""One transformer block over t tensor-parallel ranks, as rows from top to bottom: what a rank holds, and where it sends. Pure.

Shoeybi et al. 2019, section 3; with sequence parallel Korthikanti et al. 2022, section 4.2.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from course_lib.cost.communication import ring_bytes
from course_lib.layout import Placement, Replicate, Shard, even_share, shard_shape


class Weight(NamedTuple):
    """A matrix (outputs, inputs): its name, its whole shape, how it is cut; its bias is cut with the outputs, or whole."""

    name: str
    shape: tuple[int, int]
    placement: Shard


class Row(NamedTuple):
    """A line of the picture. kind: "norm", "weights", "inner", "sum" or "band"; a band is where ranks send.

    title and text say what it is; weights are those of a "weights" row; shape and placement are of the activation after it.
    forward, backward: the operation of a band in each direction, "" for none.
    """

    kind: str
    title: str
    text: str
    shape: tuple[int, ...] = ()
    placement: Placement = Replicate()
    weights: tuple[Weight, ...] = ()
    forward: str = ""
    backward: str = ""


@dataclass(frozen=True)
class BlockSplit:
    """A block of width h with num_heads heads, for b sequences of s tokens, on t ranks; numbers of item_bytes bytes.

    Raises ValueError if t does not divide the heads, the width or, with sequence_parallel, the tokens.
    """

    b: int
    s: int
    h: int
    num_heads: int
    t: int
    sequence_parallel: bool = False
    item_bytes: int = 4

    def __post_init__(self) -> None:
        if self.h % self.num_heads:
            raise ValueError(f"a width of {self.h} is not divisible by {self.num_heads} heads.")
        even_share(self.num_heads, self.t, "the number of heads")
        if self.sequence_parallel:
            even_share(self.s, self.t, "the number of tokens")

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """From x to y."""
        b, s, h = self.b, self.s, self.h
        outside = Shard(1) if self.sequence_parallel else Replicate()
        enters = ("all_gather", "reduce_scatter") if self.sequence_parallel else ("", "all_reduce")
        leaves = ("reduce_scatter", "all_gather") if self.sequence_parallel else ("all_reduce", "")
        names = ("g", "ḡ") if self.sequence_parallel else ("f", "g")
        where = "each rank its part of the tokens" if self.sequence_parallel else "every rank all of it"

        def half(number: int, first: tuple[Weight, ...], inner: Row, last: Weight) -> list[Row]:
            shared = "; one x for all three, one message" if len(first) > 1 else ""
            return [
                Row("norm", f"norm {number}", f"weight and bias (h) on every rank; {where}", (b, s, h), outside),
                Row("band", names[0], "into the cut part", forward=enters[0], backward=enters[1]),
                Row("weights", ", ".join(w.name for w in first), f"column parallel{shared}", inner.shape, inner.placement, first),
                inner,
                Row("weights", last.name, "row parallel; the bias is added once, to the sum", (b, s, h), outside, (last,)),
                Row("band", names[1], "out of it", forward=leaves[0], backward=leaves[1]),
                Row("sum", "+", f"the residual sum; {where}", (b, s, h), outside),
            ]  # fmt: skip

        columns, cut_rows = Shard(0), Shard(1)
        qkv = tuple(Weight(name, (h, h), columns) for name in ("q", "k", "v"))
        heads = self.num_heads // self.t
        each = f"{heads} {'head' if heads == 1 else 'heads'} on each rank" if self.t > 1 else f"{heads} heads"
        attention = Row("inner", "attention", f"{each}; no rank needs another's", (b, s, h), Shard(2))
        gelu = Row("inner", "gelu", "each number by itself", (b, s, 4 * h), Shard(2))
        return (
            *half(1, qkv, attention, Weight("o", (h, h), cut_rows)),
            *half(2, (Weight("up", (4 * h, h), columns),), gelu, Weight("down", (h, 4 * h), cut_rows)),
        )

    def local_shape(self, shape: tuple[int, ...], placement: Placement) -> tuple[int, ...]:
        """What a rank holds of a tensor."""
        return shard_shape(shape, placement, self.t, 0)

    def sent_bytes(self, operation: str) -> int:
        """Bytes that each rank sends for one of the operations, on (b, s, h) numbers, as rings send them."""
        return (
            round(ring_bytes(operation, self.b * self.s * self.h * self.item_bytes, self.t))
            if operation
            else 0
        )

    @cached_property
    def total_sent_bytes(self) -> int:
        """Bytes that each rank sends for the block, forward and backward: 8bsh(t−1)/t numbers, whatever the mode."""
        bands = [row for row in self.rows if row.kind == "band"]
        return sum(self.sent_bytes(row.forward) + self.sent_bytes(row.backward) for row in bands)

    @cached_property
    def parameters(self) -> int:
        """Parameters on each rank: a t-th of the matrices and of q's, k's, v's and up's biases; norms and o's, down's biases whole."""
        h = self.h
        return (12 * h * h + 7 * h) // self.t + 6 * h
