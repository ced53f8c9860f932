"""The transformer block picture: time goes down, a column a rank, and bars across all of them where they talk.

A box is a tensor, and what is filled in it is what the rank holds: a whole one grey, a part in the rank's colour. It is drawn as
in y = x Wᵀ: tokens down and features across; of a weight the inputs down and the outputs across. So a column of a weight
makes a column of y, and rows of the next weight take it in. A bar is as high as its bytes.
"""

from dataclasses import replace

from course_lib.cost.block import ADD, ROWS, SplitBlock, Step
from course_lib.layout import Partial, Shard
from course_lib.layout.ownership import MAX_WORLD_SIZE
from course_lib.numbers import bytes_text
from course_lib.viz.controls import Choice, Switch
from course_lib.viz.scene import Mark, Panel, Scene, path, rect, text, text_width
from course_lib.viz.widget import Picture, picture

LEFT, END, ROW, BAR = 188, 54, 32, 46  # room for words, and for bytes; how high a step is, and bars
HINT = "Point at a rank's column, or walk there with Tab and the arrow keys, to see what the rank holds."
LEGEND = "Filled: what a rank holds. Thick frame: a weight, its inputs down and its outputs across. "
LEGEND += "Dashed: a summand. A bar's height: its bytes, ↓ forward and ↑ backward, from each rank."


def transformer_block(
    *,
    b: int = 2,
    s: int = 64,
    h: int = 128,
    num_heads: int = 8,
    t: int = 2,
    sequence_parallel: bool = False,
    itemsize: int = 4,
) -> Picture:
    """Draw a transformer block on t tensor-parallel ranks; the reader changes t and switches sequence parallel on and off.

    b sequences of s tokens, h wide, an MLP of 4h: the block of `course_lib.models.gpt`. itemsize: bytes of a number that is
    held or sent. What is kept for backward is counted as in the paper, in 16 bits and with dropout.
    Raises ValueError for h that num_heads does not divide, for t that does not divide num_heads or is above 8, and with
    sequence_parallel for t that does not divide s; TypeError for what is no whole number.
    """
    asked = SplitBlock(b, s, h, num_heads, t, sequence_parallel, itemsize)
    ranks = [ranks for ranks in range(1, MAX_WORLD_SIZE + 1) if num_heads % ranks == 0]
    controls = [Choice("t", ranks, "tensor-parallel ranks t", "buttons"), Switch("sequence_parallel")]
    choices = {"t": t, "sequence_parallel": sequence_parallel}
    return picture(lambda **chosen: build(asked, **chosen), controls, choices, name="block", frames=True)


def build(block: SplitBlock, t: int, sequence_parallel: bool) -> Scene:
    """The block from top to bottom, and the sums of a rank, as a scene."""
    block = replace(block, t=t, sequence_parallel=sequence_parallel)
    pitch, y, since, under, ends, said = max(46, 184 // t), 24.0, 0.0, [], [], []
    end = LEFT + pitch * t + END
    marks: list[Mark | None] = [text(end, 12, "each rank", "small quiet end", END - 2)]
    for step in block.steps:
        more, words = (_row if step.pieces else _bars)(block, step, y, pitch)
        marks, said = marks + more, [*said, words]
        ends += [y + ROW / 2] * (step.words in ("x", ADD))
        if not step.pieces:  # a ground from f to g
            under += [rect(LEFT - 6, since - 1, pitch * t + 10, y - since + 2, "shade")] * bool(since)
            since = 0.0 if since else y + BAR
        y += (ROW if step.pieces else BAR) + 14 * (step.words == "attention")
    for a, b in zip(ends, ends[1:]):  # the residual's way past each half
        marks += [path(f"M12 {a + 5:g}h-9V{b - 3:g}h8", "faint"), path(f"M7 {b - 6:g}l5 3l-5 3z", "solid")]
    for rank in range(t):
        x, of = LEFT + pitch * rank, (f"r{rank}",)
        under.append(rect(x, 0, pitch, y, "hit", of=of, tip=rank_line(block, rank), focus="ranks"))
        marks.append(text(x + pitch / 2, 12, f"rank {rank}", "strong mid", pitch, of=of))
    on = f"{t} ranks: tensor{' and sequence' * sequence_parallel} parallel" if t > 1 else "one rank"
    title, (sums, facts) = f"A transformer block on {on}", _sums(block)
    heads = f"{block.num_heads} head{'s' * (block.num_heads > 1)}"
    sizes = f"b = {block.b}, s = {block.s:,}, h = {block.h:,}, {heads}, {block.itemsize} bytes a number"
    alt = "\n  ".join([f"{title} ({sizes})", *said, *facts])
    off = {"sequence_parallel": "Sequence parallel divides by t, which is 1."} if t == 1 else None
    kept = "Kept for backward: Korthikanti et al. 2022, section 4, in 16 bits and with dropout"
    rest = "Whole on every rank: the norms' weights and biases, and the biases of o and down."
    if block.cuts_tokens:
        kept += f"; they gather x again in backward, 2 × {bytes_text(block.sent_bytes('all_gather'))} more"
        rest = "Left out: the all-reduces of the norms' gradients, 2h numbers for each norm."
    notes = (sizes, LEGEND, f"{kept}.", *[rest] * (t > 1))
    return Scene(title, (Panel(end + 2, y, [*under, *marks]), sums), notes, HINT, alt, off=off)


def _row(block: SplitBlock, step: Step, y: float, pitch: int) -> tuple[list[Mark | None], str]:
    """A step: its words, on each rank a box, and its bytes."""
    t, piece, room, is_weight = block.t, step.pieces[0], min(104, pitch - 14), len(step.pieces) > 1
    cut, strong = isinstance(piece.placement, Shard) and t > 1, "strong" * is_weight
    nbytes, place = block.itemsize * block.held_numbers(*step.pieces), step.place if t > 1 else "whole"
    symbols = [f"{s}/t" if cut and dim == piece.placement.dim else s for dim, s in enumerate(piece.symbols)]
    shape = f"({', '.join(symbols)}) = ({', '.join(map(str, block.held(piece)))})"
    x = 19 + 0.95 * text_width(step.words, strong)
    marks = [text(14, y + 14, step.words, strong), text(x, y + 14, f"· {place}", "small quiet", LEFT - 6 - x)]
    marks += [text(14, y + 27, "each " * (len(step.pieces) > 2) + shape, "small quiet", LEFT - 20)]
    marks += [text(LEFT + pitch * t + END, y + 19, bytes_text(nbytes), "small quiet end", END - 2)]
    down, across = piece.symbols[::-1] if is_weight else piece.symbols[-2:]
    w, h = room if across == "4h" else round(0.62 * room), 26 if down == "4h" else 20
    top, rows, blanks, fills, words = y + (ROW - h) / 2, piece.placement == ROWS, [], [], []
    for rank in range(t):
        middle, of, kind, a, b = LEFT + pitch * (rank + 0.5), (f"r{rank}",), f"rank-{rank}", rank / t, 1 / t
        whole = x, *_ = middle - room / 2 + 5, top, w, h
        part = (x, top + h * a, w, h * b) if rows else (x + w * a, top, w * b, h)
        if not cut:
            part, kind = whole, f"{kind} held dashed" if piece.placement == Partial() and t > 1 else "all"
        blanks.append(rect(*whole, "blank", of=of))
        fills.append(rect(*part, kind, of=of))
        words.append(text(x - 3, y + ROW / 2 + 4, str(rank), "small strong end", of=of))
        if step.words == "attention":
            heads = _heads(block, rank)
            heads = heads if text_width(heads, "small strong") < pitch else heads.split()[1]
            words.append(text(middle, y + ROW + 9, heads, "small strong mid", pitch, of=of))
    frames = [mark._replace(kind="frame") for mark in blanks] * is_weight
    said = f"{step.words}: {shape} {place}, {bytes_text(nbytes)} on each rank"
    return [*marks, *blanks, *fills, *frames, *words], said


def _bars(block: SplitBlock, step: Step, y: float, pitch: int) -> tuple[list[Mark | None], str]:
    """What is sent: a bar a direction, as high as its bytes."""
    wide, middle, top, idle, said = pitch * block.t + 10, LEFT + pitch * block.t / 2, y + 4, "", []
    marks: list[Mark | None] = [text(14, y + 29, step.words, "symbol")]
    for way, sign, of in (("forward", "↓", step.of), ("backward", "↑", f"∂{step.of}")):
        operation = getattr(step, way)
        if not (sent := block.sent_bytes(operation)):
            said, idle = [*said, f"{way} nothing"], f"{way}: nothing"
            continue
        words = f"{operation.replace('_', '-')} of {of}, {bytes_text(sent)}"
        said.append(f"{way} {words} from each rank")
        high = (BAR - 8) * sent / block.sent_bytes("all_reduce")
        kind, tip = "sent" + " back" * (sign == "↑"), f"{step.place}, {said[-1]}"
        marks.append(rect(LEFT - 6, top + 0.6, wide, high - 1.2, kind, tip=tip, focus="messages"))
        marks.append(text(middle, top + high / 2 + 4, f"{sign} {words}", "small strong mid", wide - 6))
        top += high
    if block.t == 1:
        idle, marks = "", [*marks, rect(LEFT - 6, y + 13, wide, 20, "rule")]
        marks.append(text(middle, y + 27, "nothing to send", "small quiet mid"))
    marks.append(text(34, y + (22 if idle else 28), step.place, "small quiet"))
    marks.append(text(34, y + 35, idle, "small quiet") if idle else None)
    return marks, f"{step.words}: {'; '.join(said)}"


def _sums(block: SplitBlock) -> tuple[Panel, list[str]]:
    """The sums of a rank, each with a meter of the most that there can be; and the same in words."""
    alone, kept = replace(block, t=1, sequence_parallel=False), block.kept_bytes
    mine, whole, sent = block.held_numbers(), alone.held_numbers(), block.block_sent_bytes
    most = 8 * block.b * block.s * block.h * block.itemsize
    formula = f"sbh{'/t' * (block.t > 1)} · (34 + 5as/h)"
    if block.t > 1 and not block.sequence_parallel:
        formula = "sbh(10 + 24/t + 5as/(ht))"
    marks: list[Mark | None] = []
    sums = [("parameters on each rank", f"{mine:,}", f"of {whole:,}", mine / whole)]
    sums.append(("sent by each rank, ↓ and ↑", bytes_text(sent), "8bsh · (t−1)/t numbers", sent / most))
    sums.append(("kept for backward on each rank", bytes_text(kept), formula, kept / alone.kept_bytes))
    for y, (what, much, formula, share) in zip((12, 88, 164), sums):
        marks += [text(0, y, what, "strong"), text(0, y + 24, much, "big")]
        marks += [rect(0, y + 32, 290, 7, "box"), rect(0, y + 32, 290 * share, 7, "solid")]
        marks.append(text(290, y + 24, formula, "small quiet end"))
    return Panel(290, 204, marks), [f"{what}: {much}, {formula}" for what, much, formula, _ in sums]


def rank_line(block: SplitBlock, rank: int) -> str:
    """What one rank holds, with indices."""
    lengths, t = (block.s, block.h, 4 * block.h), block.t
    s, h, wide = (f"{length * rank // t}:{length * (rank + 1) // t}" for length in lengths)
    cut = f"q, k, v: columns {h} · o: rows {h} · up: columns {wide} · down: rows {wide}"
    cut = f"outside of g … ḡ tokens {s} · " * block.cuts_tokens + cut
    return f"rank {rank} · {_heads(block, rank)} · {cut} · {block.held_numbers():,} parameters"


def _heads(block: SplitBlock, rank: int) -> str:
    """The attention heads of a rank: "head 3", "heads 4–5"."""
    each = block.num_heads // block.t
    return f"head {rank}" if each == 1 else f"heads {rank * each}–{rank * each + each - 1}"
