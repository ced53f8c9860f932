"""The picture of a split transformer block: time goes down, a column a rank, and bars across all of them where they talk.

A small box is a tensor, and what is filled in it is what the rank holds: a whole one grey, a part in the rank's colour. Boxes are
drawn as in y = x Wᵀ: tokens down and features across; of a weight the inputs down and the outputs across. So a column of a
weight makes a column of y, and rows of the next weight take it in. A bar is as high as its bytes.
"""

from course_lib.layout import Partial, Replicate
from course_lib.viz.block_model import COLUMNS, SEQUENCE, SUM, Activation, Exchange, SplitBlock, Weights
from course_lib.viz.block_words import (
    amount,
    describe,
    facts,
    footnotes,
    heads,
    message,
    place,
    shape,
    sizes,
    title,
)
from course_lib.viz.picture import MARGIN, WIDTH, standalone_style
from course_lib.viz.svg import document, element, number, rect, text

LEFT, RIGHT = 264, 716  # of the columns
TOP = 106  # of the first step
ROW, HEADS, BAR = 32, 46, 46  # heights of a step, of the one that names heads, of an exchange
LEGEND = (
    "Filled: what a rank holds. Thick frame: a weight, its inputs down and its outputs across. Dashed: a summand. "
    "A bar's height: its bytes."
)
_TALL, _DEEP = 20, 26  # of a box: s tokens or h inputs, and 4h inputs


def draw(block: SplitBlock, standalone: bool = True) -> str:
    """The picture as SVG, the same for the same block; standalone: with its own light background and colours."""
    tops, y = [], float(TOP)
    for step in block.steps:
        tops.append(y)
        y += BAR if isinstance(step, Exchange) else HEADS if _names_heads(step) else ROW
    parts = [
        rect(0.5, 0.5, WIDTH - 1, y + 105, rx=8, class_="card"),
        text(MARGIN, 30, title(block), class_="title"),
        text(MARGIN, 50, sizes(block), class_="note"),
        text(MARGIN, 68, LEGEND, class_="small"),
        text(WIDTH - MARGIN, TOP - 10, "each rank", class_="axis end"),
        *_insides(block, tops),
        *_skips(block, tops),
    ]
    for step, top in zip(block.steps, tops, strict=True):
        parts.append(_exchange(block, step, top) if isinstance(step, Exchange) else _step(block, step, top))
    parts += [_column(block, rank, tops) for rank in range(block.t)]
    parts.append(_sums(block, y + 12))
    style = standalone_style("picture.css", "block.css") if standalone else ""
    return document(WIDTH, y + 106, title(block), describe(block), style, *parts)


def _names_heads(step: Activation | Weights) -> bool:
    return step.words == "attention"


def _insides(block: SplitBlock, tops: list[float]) -> list[str]:
    """A ground behind what lies between f and g."""
    edges = [top for step, top in zip(block.steps, tops, strict=True) if isinstance(step, Exchange)]
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return [
        rect(LEFT - 8, a + BAR - 1, RIGHT - LEFT + 12, b - a - BAR + 1, class_="inside") for a, b in pairs
    ]


def _skips(block: SplitBlock, tops: list[float]) -> list[str]:
    """The residual's way past each half."""
    steps = zip(block.steps, tops, strict=True)
    ends = [top + ROW / 2 for step, top in steps if isinstance(step, Activation) and step.words in ("x", SUM)]
    paths = []
    for a, b in zip(ends, ends[1:], strict=False):
        paths.append(element("path", d=f"M16 {number(a + 5)}h-8V{number(b - 3)}h5", class_="skip"))
        paths.append(element("path", d=f"M12 {number(b - 6)}l5 3l-5 3z", class_="tip"))
    return paths


def _step(block: SplitBlock, step: Activation | Weights, top: float) -> str:
    tensor = step.pieces[0] if isinstance(step, Weights) else step.tensor
    strong = "strong" if isinstance(step, Weights) else None
    words = element("tspan", step.words, class_=strong) + element(
        "tspan", f" · {place(block, step)}", class_="where"
    )
    each = "each " if isinstance(step, Weights) and len(step.pieces) > 2 else ""
    return "".join(
        [
            element("text", words, x=float(MARGIN), y=top + 14, class_="step"),
            text(MARGIN, top + 27, each + shape(block, tensor), class_="small"),
            text(WIDTH - MARGIN, top + 19, amount(block, step), class_="small end"),
        ]
    )


def _exchange(block: SplitBlock, step: Exchange, top: float) -> str:
    """A bar a direction, as high as its bytes."""
    width, y, high = RIGHT - LEFT + 12, top + 4, BAR - 8
    idle = _idle(block, step)
    parts = [
        text(MARGIN, top + 29, step.symbol, class_="symbol"),
        text(MARGIN + 22, top + (22 if idle else 28), step.function, class_="small"),
        text(MARGIN + 22, top + 35, idle, class_="small") if idle else "",
    ]
    said = {d: message(block, step, d) for d in ("forward", "backward")}
    if not any(said.values()):
        bar = rect(LEFT - 8, y + high / 4, width, high / 2, rx=4, class_="idle")
        nothing = text((LEFT + RIGHT) / 2, y + high / 2 + 4, "nothing to send", class_="small mid")
        return "".join([*parts, bar, nothing])
    most = block.sent_bytes("all_reduce")
    for direction, arrow in (("forward", "↓"), ("backward", "↑")):
        if not said[direction]:
            continue
        tall = high * block.sent_bytes(getattr(step, direction)) / most
        way = "send" if direction == "forward" else "send up"
        parts.append(rect(LEFT - 8, y + 0.6, width, tall - 1.2, rx=4, class_=way))
        words = f"{arrow} {direction}: {said[direction]}"
        parts.append(text((LEFT + RIGHT) / 2, y + tall / 2 + 4.3, words, class_="says mid"))
        y += tall
    return "".join(parts)


def _idle(block: SplitBlock, step: Exchange) -> str:
    idle = [d for d in ("forward", "backward") if not message(block, step, d)]
    return "" if block.t == 1 or not idle else f"{idle[0]}: nothing"


def _column(block: SplitBlock, rank: int, tops: list[float]) -> str:
    """One rank's boxes, as few paths: all outlines, all that it holds."""
    pitch = (RIGHT - LEFT) / block.t
    room = round(min(104, pitch - 20))
    x0 = round(LEFT + pitch * rank + (pitch - room - 14) / 2)
    paths: dict[str, list[str]] = {"thing": [], "weight": [], "whole": [], "mine": [], "summand": []}
    levels, below = [], ""
    for step, top in zip(block.steps, tops, strict=True):
        if isinstance(step, Exchange):
            continue
        tensor = step.pieces[0] if isinstance(step, Weights) else step.tensor
        kind = "weight" if isinstance(step, Weights) else "thing"
        tall, wide = _box(room, kind, tensor.symbols)
        x, y = x0 + 14, top + (ROW - tall) / 2
        levels.append(top + ROW / 2 + 4)
        paths[kind].append(_path(x, y, wide, tall))
        if block.t == 1 or isinstance(tensor.placement, Replicate | Partial):
            is_sum = block.t > 1 and isinstance(tensor.placement, Partial)
            paths["summand" if is_sum else "whole"].append(paths[kind][-1])
            continue
        rows = tensor.placement == SEQUENCE if kind == "thing" else tensor.placement != COLUMNS
        part = (x, y + tall * rank / block.t, wide, tall / block.t)
        if not rows:
            part = (x + wide * rank / block.t, y, wide / block.t, tall)
        paths["mine"].append(_path(*part))
        if _names_heads(step):
            below = text(
                LEFT + pitch * (rank + 0.5), top + ROW + 9, _heads(block, rank, pitch), class_="which mid"
            )
    return element(
        "g",
        element(
            "path", d=_path(LEFT + pitch * rank, TOP - 24, pitch, tops[-1] - TOP + 24 + ROW), class_="hit"
        ),
        text(LEFT + pitch * (rank + 0.5), TOP - 10, f"rank {rank}", class_="rank mid"),
        *(element("path", d="".join(d), class_=kind) for kind, d in paths.items() if d),
        element(
            "text",
            str(rank) * len(levels),
            x=" ".join([number(x0 + 2)] * len(levels)),
            y=" ".join(map(number, levels)),
            class_="which",
        ),
        below,
        class_=f"column cell r{rank}",
        data_r=rank,
    )


def _box(room: int, kind: str, symbols: tuple[str, ...]) -> tuple[float, float]:
    """The height and width of a box."""
    down, across = symbols[-2:] if kind == "thing" else symbols[::-1]
    return (_DEEP if down == "4h" else _TALL), (room if across == "4h" else round(0.62 * room))


def _path(x: float, y: float, wide: float, tall: float) -> str:
    return f"M{number(x)} {number(y)}h{number(wide)}v{number(tall)}h{number(-wide)}z"


def _heads(block: SplitBlock, rank: int, pitch: float) -> str:
    words = heads(block, rank)
    return words if 6 * len(words) < pitch else words.removeprefix("heads ").removeprefix("head ")


def _sums(block: SplitBlock, y: float) -> str:
    """Below: the sums of a rank, each with a meter."""
    parts, wide = [rect(MARGIN, y, WIDTH - 2 * MARGIN, 1, class_="rule")], 236
    for k, (what, much, formula, share) in enumerate(facts(block)):
        x = MARGIN + k * (wide + 26)
        parts += [
            text(x, y + 18, what, class_="caption"),
            text(x, y + 37, much, class_="much"),
            text(x + wide, y + 37, formula, class_="small end"),
            rect(x, y + 44, wide, 6, class_="box"),
            rect(x, y + 44, wide * share, 6, class_="meter"),
        ]
    parts += [text(MARGIN, y + 70 + 15 * k, line, class_="small") for k, line in enumerate(footnotes(block))]
    return "".join(parts)
