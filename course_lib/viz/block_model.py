"""A transformer block on t tensor-parallel ranks, as data: what each rank holds, and where something is sent.

    x ─► ln1 ─f─► q k v ─► heads ─► o ─g─► + ─► ln2 ─f─► up ─► gelu ─► down ─g─► +
         outside  │ columns        rows │  outside       │ columns       rows │  outside

Outside of f … g every rank has all of it, or with sequence parallel its own tokens. Nothing is built and nothing is run;
`course_lib.parallel.tensor_model` is what does it.
Source: Shoeybi et al. 2019, section 3; Korthikanti et al. 2022, sections 4.1 and 4.2.
"""

from dataclasses import dataclass
from math import prod

from course_lib.cost.communication import ring_bytes
from course_lib.cost.memory import layer_activations
from course_lib.cost.plan import Plan
from course_lib.cost.shapes import Transformer
from course_lib.layout import (
    Partial,
    Placement,
    Replicate,
    Shard,
    check_world_size,
    even_share,
    nearest_multiples,
    region,
    shard_shape,
)
from course_lib.viz.ownership import MAX_WORLD_SIZE

SEQUENCE, FEATURES = Shard(1), Shard(2)  # of activations (b, s, h)
COLUMNS, ROWS = Shard(0), Shard(1)  # of a weight (outputs, inputs), by the names that they have in y = x Wᵀ

SUM = "+ bias, + x"


@dataclass(frozen=True)
class Piece:
    """A tensor and where it lies. symbols: its dims as they are written, "s" or "4h"."""

    name: str
    shape: tuple[int, ...]
    symbols: tuple[str, ...]
    placement: Placement


@dataclass(frozen=True)
class Activation:
    """What the ranks hold at this place. words: what it is, in the picture. outside: of f … g."""

    words: str
    tensor: Piece
    outside: bool


@dataclass(frozen=True)
class Weights:
    """Linears that are cut alike. Their parameters are `pieces`; the first is a weight."""

    words: str
    pieces: tuple[Piece, ...]
    outside: bool = False


@dataclass(frozen=True)
class Exchange:
    """f or g: a collective of (b, s, h) in each direction, "" where nothing is sent. function: of `collectives.autograd`."""

    symbol: str
    function: str
    forward: str
    backward: str
    of: str  # the tensor that goes forward through it


@dataclass(frozen=True)
class SplitBlock:
    """A block of h wide with num_heads heads and its MLP of 4h, for b sequences of s tokens, on t ranks.

    itemsize: bytes of a number that is held or sent.
    Raises TypeError or ValueError, in a sentence, for what is no size, for h that num_heads does not divide, and for t that
    does not divide num_heads or, with sequence_parallel, s.
    """

    b: int
    s: int
    h: int
    num_heads: int
    t: int = 2
    sequence_parallel: bool = False
    itemsize: int = 4

    def __post_init__(self) -> None:
        for name in ("b", "s", "h", "num_heads", "itemsize"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise TypeError(f"{name} is a whole number, not {value!r}.")
            if value < 1:
                raise ValueError(f"{name} is {value}: it must be at least 1.")
        check_world_size(self.t)
        if self.t > MAX_WORLD_SIZE:
            raise ValueError(f"the picture has room for {MAX_WORLD_SIZE} ranks, not for t = {self.t}.")
        if self.h % self.num_heads:
            raise ValueError(
                f"h = {self.h} is not divisible by num_heads = {self.num_heads}, and every head takes an equal part of the "
                f"width; {nearest_multiples(self.h, self.num_heads)} would do."
            )
        even_share(self.num_heads, self.t, "num_heads")
        if self.sequence_parallel:
            even_share(self.s, self.t, "the sequence length s")

    @property
    def steps(self) -> tuple[Activation | Weights | Exchange, ...]:
        """The block from top to bottom."""
        outside = SEQUENCE if self.cuts_tokens else Replicate()
        enter = Exchange("f", "copy_to_group", "", "all_reduce", "x")
        leave = Exchange("g", "reduce_from_group", "all_reduce", "", "y")
        if self.cuts_tokens:
            enter = Exchange("g", "gather_sequence", "all_gather", "reduce_scatter", "x")
            leave = Exchange("ḡ", "reduce_scatter_sequence", "reduce_scatter", "all_gather", "y")

        def narrow(words: str, placement: Placement = outside) -> Activation:
            tensor = Piece(words, (self.b, self.s, self.h), ("b", "s", "h"), placement)
            return Activation(words, tensor, placement != Partial())

        wide = Piece("gelu", (self.b, self.s, 4 * self.h), ("b", "s", "4h"), FEATURES)
        pieces = {piece.name: piece for piece in self.parameters}

        def weights(words: str, *names: str) -> Weights:
            return Weights(words, tuple(pieces[f"{n}.{kind}"] for kind in ("weight", "bias") for n in names))

        heads = narrow("attention", FEATURES).tensor
        return (
            narrow("x"),
            narrow("LayerNorm 1"),
            enter,
            weights("q, k, v", "attention.q", "attention.k", "attention.v"),
            Activation("attention", heads, False),
            weights("o", "attention.o"),
            narrow("y", Partial()),
            leave,
            narrow(SUM),
            narrow("LayerNorm 2"),
            enter,
            weights("up", "up"),
            Activation("gelu", wide, False),
            weights("down", "down"),
            narrow("y", Partial()),
            leave,
            narrow(SUM),
        )

    @property
    def parameters(self) -> tuple[Piece, ...]:
        """Those of `course_lib.models.gpt.Block`, under its names, and how each is cut."""
        found = []

        def norm(name: str) -> None:
            found.extend(
                Piece(f"{name}.{kind}", (self.h,), ("h",), Replicate()) for kind in ("weight", "bias")
            )

        def linear(name: str, out: int, into: int, cut: Placement) -> None:
            symbols = tuple("h" if n == 1 else f"{n}h" for n in (out, into))
            shape = (out * self.h, into * self.h)
            bias = COLUMNS if cut == COLUMNS else Replicate()  # of rows: whole, and added once, to the sum
            found.append(Piece(f"{name}.weight", shape, symbols, cut))
            found.append(Piece(f"{name}.bias", shape[:1], symbols[:1], bias))

        norm("ln1")
        for name in ("q", "k", "v"):
            linear(f"attention.{name}", 1, 1, COLUMNS)
        linear("attention.o", 1, 1, ROWS)
        norm("ln2")
        linear("up", 4, 1, COLUMNS)
        linear("down", 1, 4, ROWS)
        return tuple(found)

    @property
    def cuts_tokens(self) -> bool:
        """Whether each rank has only its own tokens outside of f … g; with one rank sequence parallel changes nothing."""
        return self.sequence_parallel and self.t > 1

    @property
    def exchanges(self) -> tuple[Exchange, ...]:
        """The four places of the block where something is sent."""
        return tuple(step for step in self.steps if isinstance(step, Exchange))

    def held(self, piece: Piece, rank: int = 0) -> tuple[int, ...]:
        """The shape of a rank's part; all ranks' are alike."""
        return shard_shape(piece.shape, piece.placement, self.t, rank)

    def span(self, piece: Piece, rank: int) -> tuple[int, int]:
        """The indices that a rank has along the dim that is cut."""
        return region(piece.shape, piece.placement, self.t, rank)[piece.placement.dim]

    def held_bytes(self, *pieces: Piece) -> int:
        """Bytes of a rank's parts of these."""
        return self.itemsize * sum(prod(self.held(piece)) for piece in pieces)

    def sent_bytes(self, operation: str) -> int:
        """Bytes that each rank sends in one collective of (b, s, h); 0 for ""."""
        whole = self.itemsize * self.b * self.s * self.h
        return round(ring_bytes(operation, whole, self.t)) if operation else 0

    @property
    def block_sent_bytes(self) -> int:
        """Bytes that each rank sends for the block, forward and backward: 8bsh(t−1)/t numbers."""
        return sum(self.sent_bytes(e.forward) + self.sent_bytes(e.backward) for e in self.exchanges)

    @property
    def rank_parameters(self) -> int:
        """Parameters on each rank."""
        return sum(prod(self.held(piece)) for piece in self.parameters)

    @property
    def kept_bytes(self) -> int:
        """Bytes that each rank keeps for backward, by the paper: in 16 bits, and with dropout."""
        plan = Plan(tp=self.t, batch=self.b, microbatch=self.b, sequence_parallel=self.sequence_parallel)
        model = Transformer("block", 1, self.h, self.num_heads, context=self.s)
        return round(layer_activations(model, plan))
