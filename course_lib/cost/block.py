"""A transformer block on t tensor-parallel ranks, as data: what each rank holds, and where something is sent.

    x ─► ln1 ─f─► q k v ─► heads ─► o ─g─► + ─► ln2 ─f─► up ─► gelu ─► down ─g─► +
         outside  │ columns        rows │  outside       │ columns       rows │  outside

Outside of f … g every rank has all of it, or with sequence parallel its own tokens. `course_lib.parallel.tensor_model` does it.
Source: Shoeybi et al. 2019, section 3; Korthikanti et al. 2022, sections 4.1 and 4.2.
"""

from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from course_lib import layout
from course_lib.cost.communication import ring_bytes
from course_lib.cost.memory import layer_activations
from course_lib.cost.plan import Plan
from course_lib.cost.shapes import Transformer
from course_lib.layout import Partial, Placement, Replicate, Shard

WHOLE, SEQUENCE, FEATURES = Replicate(), Shard(1), Shard(2)  # of activations (b, s, h)
COLUMNS, ROWS = Shard(0), Shard(1)  # of a weight (outputs, inputs), by the names that they have in y = x Wᵀ
ADD = "+ bias, + x"


class Piece(NamedTuple):
    """A tensor, its dims as they are written ("s" or "4h"), and where it lies."""

    symbols: tuple[str, ...]
    placement: Placement


# Those of `course_lib.models.gpt.Block`, under its names. The bias of rows is whole, and added once, to the sum.
KINDS = ("weight", "bias")
PARAMETERS = {f"{norm}.{kind}": Piece(("h",), WHOLE) for norm in ("ln1", "ln2") for kind in KINDS}
for _name, _out in {"attention.q": "h", "attention.k": "h", "attention.v": "h", "up": "4h"}.items():
    PARAMETERS |= {f"{_name}.weight": Piece((_out, "h"), COLUMNS), f"{_name}.bias": Piece((_out,), COLUMNS)}
for _name, _into in {"attention.o": "h", "down": "4h"}.items():
    PARAMETERS |= {f"{_name}.weight": Piece(("h", _into), ROWS), f"{_name}.bias": Piece(("h",), WHOLE)}


class Step(NamedTuple):
    """An activation, the weights and biases of linears that are cut alike, or, without pieces, what is sent: f or g.

    words: what it is, or the symbol.  place: where it lies, in words, or the function of `collectives.autograd`.
    forward, backward: the collective of (b, s, h) in each direction, "" for none.  of: the tensor that goes forward through it.
    """

    words: str
    place: str
    pieces: tuple[Piece, ...] = ()
    forward: str = ""
    backward: str = ""
    of: str = ""


@dataclass(frozen=True)
class SplitBlock:
    """A block of h wide with num_heads heads and its MLP of 4h, for b sequences of s tokens, on t ranks.

    Raises TypeError or ValueError, in a sentence, for what is no size, for h that num_heads does not divide, and for t that
    does not divide num_heads or, with sequence_parallel, s.
    """

    b: int
    s: int
    h: int
    num_heads: int
    t: int = 2
    sequence_parallel: bool = False
    itemsize: int = 4  # bytes of a number that is held or sent

    def __post_init__(self) -> None:
        for name in ("b", "s", "h", "num_heads", "itemsize"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} is a whole number, not {value!r}.")
            if value < 1:
                raise ValueError(f"{name} is {value}: it must be at least 1.")
        if self.h % self.num_heads:
            near = layout.nearest_multiples(self.h, self.num_heads)
            why = f"h = {self.h} is not divisible by num_heads = {self.num_heads}"
            raise ValueError(f"{why}, and every head takes an equal part of the width; {near} would do.")
        layout.even_share(self.num_heads, self.t, "num_heads")
        if self.sequence_parallel:
            layout.even_share(self.s, self.t, "The sequence length s")

    @property
    def steps(self) -> tuple[Step, ...]:
        """The block from top to bottom."""
        outside, place = (SEQUENCE, "own tokens") if self.cuts_tokens else (WHOLE, "whole on every rank")
        enter = Step("f", "copy_to_group", (), "", "all_reduce", "x")
        leave = Step("g", "reduce_from_group", (), "all_reduce", "", "y")
        if self.cuts_tokens:
            enter = Step("g", "gather_sequence", (), "all_gather", "reduce_scatter", "x")
            leave = Step("ḡ", "reduce_scatter_sequence", (), "reduce_scatter", "all_gather", "y")

        def held(words: str, place: str = place, at: Placement = outside, width: str = "h") -> Step:
            return Step(words, place, (Piece(("b", "s", width), at),))

        def linear(words: str, place: str, *names: str) -> Step:
            both = (f"{name}.{kind}" for kind in KINDS for name in names)
            return Step(words, place, tuple(PARAMETERS[name] for name in both))

        qkv = linear("q, k, v", "cut by columns", "attention.q", "attention.k", "attention.v")
        attention = qkv, held("attention", "own heads", FEATURES), linear("o", "cut by rows", "attention.o")
        gelu = held("gelu", "own columns", FEATURES, "4h")
        mlp = linear("up", "cut by columns", "up"), gelu, linear("down", "cut by rows", "down")
        end = held("y", "a summand each", Partial()), leave, held(ADD)
        return held("x"), held("LayerNorm 1"), enter, *attention, *end, held("LayerNorm 2"), enter, *mlp, *end

    @property
    def cuts_tokens(self) -> bool:
        """Whether each rank has only its own tokens outside of f … g; with one rank sequence parallel changes nothing."""
        return self.sequence_parallel and self.t > 1

    def held(self, piece: Piece) -> tuple[int, ...]:
        """The shape of a rank's part; all ranks' are alike."""
        sizes = {"b": self.b, "s": self.s, "h": self.h, "4h": 4 * self.h}
        shape = tuple(sizes[symbol] for symbol in piece.symbols)
        return layout.shard_shape(shape, piece.placement, self.t, 0)

    def held_numbers(self, *pieces: Piece) -> int:
        """How many numbers a rank holds of these; by default of all parameters."""
        return sum(prod(self.held(piece)) for piece in pieces or PARAMETERS.values())

    def sent_bytes(self, operation: str) -> int:
        """Bytes that each rank sends in one collective of (b, s, h); 0 for ""."""
        whole = self.itemsize * self.b * self.s * self.h
        return round(ring_bytes(operation, whole, self.t)) if operation else 0

    @property
    def block_sent_bytes(self) -> int:
        """Bytes that each rank sends for the block, forward and backward: 8bsh(t−1)/t numbers."""
        return sum(self.sent_bytes(step.forward) + self.sent_bytes(step.backward) for step in self.steps)

    @property
    def kept_bytes(self) -> int:
        """Bytes that each rank keeps for backward, by the paper: in 16 bits, and with dropout."""
        plan = Plan(tp=self.t, batch=self.b, microbatch=self.b, sequence_parallel=self.sequence_parallel)
        model = Transformer("block", 1, self.h, self.num_heads, context=self.s)
        return round(layer_activations(model, plan))
