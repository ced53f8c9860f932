"""How a whole is made of parts: a bar a row, its parts one after the other, all on one scale."""

from collections.abc import Mapping
from functools import partial

from course_lib.numbers import amount
from course_lib.viz.palette import COLORS, PART_COLORS
from course_lib.viz.scene import Mark, Panel, Scene, line, rect, text, text_width
from course_lib.viz.widget import Picture, picture

KINDS = PART_COLORS | {"forward_and_backward": "span", "compute": "span", "optimizer_state": "optimizer"}
HINT = "Point at a part for its amount and share, or walk there with Tab and the arrow keys."
PALE = ("compute", "wait", "span")  # words can be read on these as they are, on others on a tint
_WIDE = 560
Rows = Mapping[str, Mapping[str, float]]


def parts(
    rows: Rows, unit: str = "s", kinds: Mapping[str, str] | None = None, title: str = "", limit: float | None = None
) -> Picture:
    """Draw what wholes are made of: what a step spends its time on, what is in memory.

    rows: the name of a whole -> its parts by name; "bubble_s" is called "bubble", so vars() of a StepTime or of a MemoryUse is a row.
    unit: of every amount: "s", "B", "FLOP".  kinds: part -> a word of the palette, where the course has not settled its colour.
    limit: an amount that no whole should exceed, drawn as a line through all of them.
    Raises ValueError for no amounts, an amount below 0, and a word that is none.
    """
    rows = {row: {_called(name): value for name, value in inside.items()} for row, inside in rows.items()}
    amounts = [value for inside in rows.values() for value in inside.values()]
    if not any(amounts) or min(amounts) < 0:
        raise ValueError("parts() draws amounts of at least 0, not all of them 0: {row: {part: amount}}.")
    kinds = {_called(name): kind for name, kind in (KINDS | dict(kinds or {})).items()}
    if odd := sorted(set(kinds.values()) - set(COLORS)):
        raise ValueError(f"{odd[0]!r} is no word of the palette: take one of {', '.join(COLORS)}.")
    title = title or f"Parts of {' and '.join(rows)}"
    return picture(partial(build, rows, unit, kinds, title, limit), frames=True)


def _called(name: str) -> str:
    return name.removesuffix("_s").removesuffix("_bytes").replace("_", " ")


def build(rows: Rows, unit: str, kinds: Mapping[str, str], title: str, limit: float | None = None) -> Scene:
    """The bars as a scene; parts that have room for their name in no bar are named below."""
    most, y, below, said = max(sum(inside.values()) for inside in rows.values()), 0, {}, [title]
    most = max(most, limit or 0)
    scale = (_WIDE - text_width(amount(most, unit), "strong") - 8) / most
    marks: list[Mark | None] = []
    for row, inside in rows.items():
        whole, x, y = amount(sum(inside.values()), unit, most), 0.0, y + 18
        marks.append(text(0, y - 6, row, "strong", _WIDE))
        said.append(f"{row}: {whole}: {', '.join(f'{n} {amount(v, unit, most)}' for n, v in inside.items())}")
        for name, value in inside.items():
            kind, wide, words = kinds.get(name, name), value * scale, amount(value, unit, most)
            kind = kind if kind in COLORS else "compute"
            kind += " held" * (kind not in PALE)
            tip = f"{row}: {name} {words}, {value / (sum(inside.values()) or 1):.0%} of {whole}"
            marks.append(rect(x, y, wide, 34, kind, of=(name,), tip=tip, focus="parts" if value else ""))
            label = text(x + 5, y + 15, name, "small", wide - 8, "drop", of=(name,))
            marks += [label, text(x + 5, y + 28, words, "small", wide - 8, "drop", of=(name,))]
            below[name] = "" if label or not below.get(name, kind) else kind
            x += wide
        marks.append(text(x + 6, y + 22, whole, "strong halo"))
        y += 44
    if limit:
        x, over = limit * scale, f"limit {amount(limit, unit, most)}"
        marks += [line(x, 8, x, y - 4, "limit dashed"), text(x - 6, 12, over, "small end")]
        said.append(over)
    for k, (name, kind) in enumerate((name, kind) for name, kind in below.items() if kind):
        x, top = k % 3 * 186, y + 4 + k // 3 * 20
        marks += [rect(x, top, 14, 12, kind, of=(name,)), text(x + 20, top + 10, name, "small", of=(name,))]
    high = y + 20 * -(-sum(map(bool, below.values())) // 3)
    marks = sorted(filter(None, marks), key=lambda mark: mark.shape == "text")  # no line through words
    return Scene(title, (Panel(_WIDE, high, marks),), say=HINT, alt="\n  ".join(said))
