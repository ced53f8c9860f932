"""A picture as plain data. Python says what is where, what it means and what is said of it; a page only paints it.

    Mark     one shape: its place, its kind (a word of marks.css), what is said when it is pointed at, what a click chooses
    Panel    marks on a ground of a size; panels stand side by side, and below each other where a page is narrow
    Frame    marks laid over the first panel for a while: an animation has several
    Scene    title, sentences, panels, frames, and the same in words

A picture is a function `build(**choices) -> Scene`; `controls.py` has what a reader can choose. `svg.py` writes a scene as a file
that stands alone, `widget.py` shows it with its controls, `static/` paints it. Lengths are pixels; text of 12 px is usual.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import hypot
from typing import Any, NamedTuple

Value = bool | int | float | str
Sets = tuple[tuple[str, Value], ...]

_NARROW, _WIDE = frozenset("iljtfrI.,:;'|!()[]{} ·"), frozenset("mwMW@%—→←↔Σ…∂")


class Mark(NamedTuple):
    """One shape. Make it by rect, dot, line, arrow, path or text.

    shape: "rect", "dot", "line", "path" or "text".  kind: words of marks.css, "rank-3 held".
    x, y, w, h: corner and size; of a dot its centre and, as w, its radius; of a line its start and where it goes from there.
    text: the words; of a path its `d`, counted from (x, y).
    key: what keeps its key is moved, not made anew.  of: groups that it belongs to.
    tip: what the read-out says when it is pointed at.  lights: keys and groups that light up with it; by default `of`.
    sets: what a click chooses, (("rank", 12),).  focus: the group of marks that the arrow keys walk over, "" for none.
    came: in an animation, how far from here a new mark starts.
    """

    shape: str
    kind: str
    x: float = 0.0
    y: float = 0.0
    w: float = 0.0
    h: float = 0.0
    text: str = ""
    key: str = ""
    of: tuple[str, ...] = ()
    tip: str = ""
    lights: tuple[str, ...] = ()
    sets: Sets = ()
    focus: str = ""
    came: tuple[float, float] | None = None


def rect(x: float, y: float, w: float, h: float, kind: str, **more: Any) -> Mark:
    """A rectangle whose upper left corner is (x, y)."""
    return Mark("rect", kind, x, y, w, h, **more)


def dot(x: float, y: float, r: float, kind: str, **more: Any) -> Mark:
    """A disc around (x, y)."""
    return Mark("dot", kind, x, y, r, **more)


def line(x1: float, y1: float, x2: float, y2: float, kind: str = "line", **more: Any) -> Mark:
    """A straight line."""
    return Mark("line", kind, x1, y1, x2 - x1, y2 - y1, **more)


def path(d: str, kind: str, x: float = 0.0, y: float = 0.0, w: float = 0.0, h: float = 0.0, **more: Any) -> Mark:
    """A path whose `d` counts from (x, y). w, h: the box in which it can be pointed at."""
    return Mark("path", kind, x, y, w, h, d, **more)


def arrow(x1: float, y1: float, x2: float, y2: float, kind: str = "line", bend: float = 0.0, **more: Any) -> Mark:
    """An arrow; bend: how far its middle is off the straight line, to the left of its way."""
    dx, dy = x2 - x1, y2 - y1
    off = 2 * bend / (hypot(dx, dy) or 1.0)
    mx, my = dx / 2 + off * dy, dy / 2 - off * dx  # the point that a curve is drawn towards
    ex, ey = (dx - mx, dy - my) if bend else (dx, dy)
    size = 5 / (hypot(ex, ey) or 1.0)
    ends = [(dx - size * (ex + s * 0.6 * ey), dy - size * (ey - s * 0.6 * ex)) for s in (1, -1)]
    (ax, ay), (bx, by) = ends
    way = f"Q{num(mx)} {num(my)} {num(dx)} {num(dy)}" if bend else f"L{num(dx)} {num(dy)}"
    d = f"M0 0{way}M{num(ax)} {num(ay)}L{num(dx)} {num(dy)}L{num(bx)} {num(by)}"
    return Mark("path", kind, x1, y1, text=d, **more)


def text(
    x: float, y: float, words: str, kind: str = "", room: float | None = None, fit: str = "shrink", **more: Any
) -> Mark | None:
    """Words whose baseline starts at (x, y), or with the kind "mid" is centred there, with "end" ends there.

    room: how wide they may be. Wider ones shrink to it, are cut short (fit="clip"), or are left out ("drop": None).
    """
    if room is not None and text_width(words, kind) > room:
        if fit == "drop":
            return None
        if fit == "shrink":
            return Mark("text", kind, x, y, room, text=words, **more)
        while words and text_width(words + "…", kind) > room:
            words = words[:-1]
        words += "…"
    return Mark("text", kind, x, y, text=words, **more)


def text_width(words: str, kind: str = "") -> float:
    """How wide words are at most, in the widest of the usual fonts."""
    kinds = kind.split()
    size = 11 if "small" in kinds else 18 if "big" in kinds else 12
    ems = sum(0.38 if c in _NARROW else 0.98 if c in _WIDE else 0.7 if c.isupper() else 0.63 for c in words)
    return ems * size * (1.08 if "strong" in kinds or "big" in kinds else 1.0)


def num(value: float) -> str:
    """A coordinate as it is written: at most one decimal."""
    said = f"{value:.1f}".removesuffix(".0")
    return "0" if said == "-0" else said


def wrapped(sentence: str, room: float, kind: str = "") -> list[str]:
    """The sentence in lines of at most so many pixels."""
    lines = [""]
    for word in sentence.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and text_width(longer, kind) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


@dataclass(frozen=True)
class Panel:
    """Marks on a ground of w × h. What is None is left out, so that `text(…, fit="drop")` can stand in the list."""

    w: float
    h: float
    marks: tuple[Mark, ...]

    def __init__(self, w: float, h: float, marks: Iterable[Mark | None]) -> None:
        object.__setattr__(self, "w", w)
        object.__setattr__(self, "h", h)
        object.__setattr__(self, "marks", tuple(mark for mark in marks if mark is not None))


@dataclass(frozen=True)
class Frame:
    """Marks laid over the first panel. say: what the read-out says.  name: how it is called beside the player.

    passing: not a place to stop at, only the way to the next frame.
    """

    marks: tuple[Mark, ...]
    say: str = ""
    name: str = ""
    passing: bool = False


@dataclass(frozen=True)
class Scene:
    """What is shown for one set of choices.

    notes: the sentences under the title.  say: what the read-out says while nothing is pointed at.
    alt: all of it in words; by default title, notes and what the frames say.
    ground: marks under the first panel's that stay while choices change; they are sent once.
    frames: an animation; named frames are what a still picture shows, side by side. seconds: how long a frame stays.
    keys: what a key chooses, {"t": {"rank": 13}}.  off: controls that mean nothing now, and why.
    wires: whether a line leads from what lights up to what is pointed at.
    zoom: the part of the first panel, (from x, to x), that a View shows.
    after: of a question, what stands above the cells after it once it is answered; until then "", and they are covered.
    """

    title: str
    panels: tuple[Panel, ...] = ()
    notes: tuple[str, ...] = ()
    say: str = ""
    alt: str = ""
    ground: tuple[Mark, ...] = ()
    frames: tuple[Frame, ...] = ()
    seconds: float = 1.0
    keys: Mapping[str, Mapping[str, Value]] | None = None
    off: Mapping[str, str] | None = None
    wires: bool = False
    zoom: tuple[float, float] | None = None
    after: str | None = None

    def __str__(self) -> str:
        said = [f"  {frame.say}" if frame.name else "" for frame in self.frames]
        return self.alt or "\n".join(filter(None, [self.title, *self.notes, *said]))
