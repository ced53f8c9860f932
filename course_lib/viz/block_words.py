"""A split transformer block in words: its shapes, its messages and its sums, for the picture and for those who cannot see it."""

from dataclasses import replace
from math import prod

from course_lib.layout import Partial, Replicate, Shard
from course_lib.viz.block_model import SEQUENCE, Activation, Exchange, Piece, SplitBlock, Weights
from course_lib.viz.ownership import bytes_text

OPERATIONS = {"all_reduce": "all-reduce", "all_gather": "all-gather", "reduce_scatter": "reduce-scatter"}


def title(block: SplitBlock) -> str:
    """What is shown."""
    if block.t == 1:
        return "A transformer block on one rank"
    return (
        f"A transformer block on {block.t} ranks: tensor{' and sequence' * block.sequence_parallel} parallel"
    )


def sizes(block: SplitBlock) -> str:
    """The sizes that were chosen."""
    heads = f"{block.num_heads} head{'s' * (block.num_heads > 1)}"
    return f"b = {block.b}, s = {block.s:,}, h = {block.h:,}, {heads}, {block.itemsize} bytes a number"


def shape(block: SplitBlock, piece: Piece) -> str:
    """A rank's shape in symbols and in numbers: "(h/t, h) = (32, 128)"."""
    cut = piece.placement.dim if isinstance(piece.placement, Shard) and block.t > 1 else None
    symbols = [f"{name}/t" if dim == cut else name for dim, name in enumerate(piece.symbols)]
    numbers = [str(length) for length in block.held(piece)]
    both = (f"({', '.join(names)}{',' * (len(names) == 1)})" for names in (symbols, numbers))
    return " = ".join(both)


def place(block: SplitBlock, step: Activation | Weights) -> str:
    """Where it lies, in two or three words."""
    if block.t == 1:
        return "whole"
    if isinstance(step, Weights):
        return {0: "cut by columns", 1: "cut by rows"}[step.pieces[0].placement.dim]
    placement = step.tensor.placement
    if isinstance(placement, Replicate | Partial):
        return "whole on every rank" if isinstance(placement, Replicate) else "a summand each"
    return (
        "own tokens" if placement == SEQUENCE else "own heads" if step.words == "attention" else "own columns"
    )


def amount(block: SplitBlock, step: Activation | Weights) -> str:
    """The bytes on each rank: of the activation, or of the weights with their biases."""
    return bytes_text(block.held_bytes(*(step.pieces if isinstance(step, Weights) else (step.tensor,))))


def message(block: SplitBlock, exchange: Exchange, direction: str) -> str:
    """What is sent in a direction, "forward" or "backward": "" if nothing is."""
    operation = getattr(exchange, direction)
    if not operation or block.t == 1:
        return ""
    of = exchange.of if direction == "forward" else f"∂{exchange.of}"
    return f"{OPERATIONS[operation]} of {of}, {bytes_text(block.sent_bytes(operation))} from each rank"


def facts(block: SplitBlock) -> list[tuple[str, str, str, float]]:
    """The sums of a rank: what they are of, how much it is, the formula, and the share of the most there can be."""
    parameters = sum(prod(piece.shape) for piece in block.parameters)
    alone = replace(block, t=1, sequence_parallel=False).kept_bytes
    most = 8 * block.b * block.s * block.h * block.itemsize
    kept = "sbh(10 + 24/t + 5as/(ht))"
    if block.t == 1 or block.sequence_parallel:
        kept = f"sbh{'/t' * (block.t > 1)} · (34 + 5as/h)"
    return [
        (
            "parameters on each rank",
            f"{block.rank_parameters:,}",
            f"of {parameters:,}",
            block.rank_parameters / parameters,
        ),
        (
            "sent by each rank, ↓ and ↑",
            bytes_text(block.block_sent_bytes),
            "8bsh · (t−1)/t numbers",
            block.block_sent_bytes / most,
        ),
        ("kept for backward on each rank", bytes_text(block.kept_bytes), kept, block.kept_bytes / alone),
    ]


def footnotes(block: SplitBlock) -> list[str]:
    """What the sums count and what they leave out."""
    lines = ["Kept for backward: Korthikanti et al. 2022, section 4, in 16 bits and with dropout."]
    if block.cuts_tokens:
        once = block.sent_bytes("all_gather")
        lines[0] = lines[0][:-1] + f"; they gather x again in backward, 2 × {bytes_text(once)} more."
        lines.append("Left out: the all-reduces of the norms' gradients, 2h numbers for each norm.")
    elif block.t > 1:
        lines.append("Whole on every rank: the norms' weights and biases, and the biases of o and down.")
    return lines


def rank_line(block: SplitBlock, rank: int) -> str:
    """What one rank holds, with indices."""
    pieces = {piece.name: piece for piece in block.parameters}

    def span(name: str) -> str:
        return "{}:{}".format(*block.span(pieces[name], rank))

    parts = [
        f"rank {rank} · {heads(block, rank)}",
        f"q, k, v: columns {span('attention.q.weight')}",
        f"o: rows {span('attention.o.weight')}",
        f"up: columns {span('up.weight')}",
        f"down: rows {span('down.weight')}",
        f"{block.rank_parameters:,} parameters",
    ]
    if block.cuts_tokens:
        start, stop = block.span(block.steps[0].tensor, rank)
        parts.insert(1, f"outside of g … ḡ tokens {start}:{stop}")
    return " · ".join(parts)


def heads(block: SplitBlock, rank: int) -> str:
    """The attention heads of a rank: "head 3", "heads 4–5"."""
    each = block.num_heads // block.t
    first = rank * each
    return f"head {first}" if each == 1 else f"heads {first}–{first + each - 1}"


def spoken(block: SplitBlock) -> str:
    """What a screen reader says when the choice has changed."""
    return ". ".join([title(block), *(f"{what}: {much}" for what, much, _, _ in facts(block))])


def describe(block: SplitBlock) -> str:
    """The whole picture in words, a line a step."""
    lines = [f"{title(block)} ({sizes(block)})"]
    for step in block.steps:
        if isinstance(step, Exchange):
            both = [message(block, step, direction) or "nothing" for direction in ("forward", "backward")]
            lines.append("  {}: forward {}; backward {}".format(step.symbol, *both))
        else:
            tensor = step.pieces[0] if isinstance(step, Weights) else step.tensor
            lines.append(
                f"  {step.words}: {shape(block, tensor)} {place(block, step)}, {amount(block, step)} on each rank"
            )
    lines += [f"  {what}: {much}, {formula}" for what, much, formula, _ in facts(block)]
    return "\n".join(lines)
