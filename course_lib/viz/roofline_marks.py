"""The operations on a roofline: a mark for each, and names that do not overlap. roofline_draw.js does the same in the page."""

from dataclasses import dataclass
from math import log10

from course_lib.cost.hardware import Roofline
from course_lib.viz.roofline_scene import Scene
from course_lib.viz.svg import number

Box = tuple[float, float, float, float]  # left, top, right, bottom
Shape = tuple[str, dict[str, str | float], str]  # tag, attributes, text

LETTER, BOLD, LINE = 7.0, 7.8, 15  # the width of a letter and the height of a line of names, amply
_ROWS = 14  # so many lines away from its mark a name may stand


@dataclass(frozen=True)
class Plot:
    """Where things stand: the box of the plot, and the powers of ten at its edges."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    left: int = 62
    top: int = 30
    right: int = 780
    bottom: int = 350

    def x(self, intensity: float) -> float:
        """The place of an intensity; what lies outside is at the edge."""
        share = (log10(intensity) - self.x_low) / (self.x_high - self.x_low)
        return self.left + (self.right - self.left) * min(1.0, max(0.0, share))

    def y(self, flops_per_s: float) -> float:
        """The place of a rate."""
        share = (log10(flops_per_s) - self.y_low) / (self.y_high - self.y_low)
        return self.bottom - (self.bottom - self.top) * min(1.0, max(0.0, share))

    def roof_y(self, roofline: Roofline, x: float) -> float:
        """The place of the roof above x."""
        share = (x - self.left) / (self.right - self.left)
        return self.y(roofline.attainable(10 ** (self.x_low + share * (self.x_high - self.x_low))))


def places(*points: tuple[float, float]) -> str:
    """Points as SVG writes them."""
    return " ".join(f"{number(x)},{number(y)}" for x, y in points)


def poly(tag: str, kind: str, *points: tuple[float, float]) -> Shape:
    """A polyline or a polygon of a class."""
    return tag, {"class": kind, "points": places(*points)}, ""


def label(x: float, y: float, content: str, kind: str) -> tuple[Shape, Box]:
    """A text, and the box that it takes."""
    wide = (BOLD if kind.startswith("roof-name") else LETTER) * len(content)
    left = x - (wide if kind.endswith("end") else wide / 2 if kind.endswith("mid") else 0)
    return ("text", {"class": kind, "x": x, "y": y}, content), (left, y - 11, left + wide, y + 4)


def marks(scene: Scene, plot: Plot, blocked: list[Box]) -> list[Shape]:
    """Marks on the roof, and names where there is room: the chosen operation's above the roof, the others' below it."""
    chosen, roofline, tokens = scene.operation, scene.roofline, scene.tokens
    found = []
    for operation in [chosen, *(other for other in scene.others if other.name != chosen.name)]:
        x = plot.x(operation.intensity(tokens))
        found.append((operation, x, plot.roof_y(roofline, x)))
    taken = blocked + [(x - 6, y - 6, x + 6, y + 6) for _, x, y in found]
    drop = (found[0][1] - 2, found[0][2], found[0][1] + 2, plot.bottom)  # the line to the axis
    lines, dots, names = [], [], []
    # from right to left, so that lines to the names of crowded marks do not cross
    for operation, x, y in [found[0], *sorted(found[1:], key=lambda mark: -mark[1])]:
        first = operation is chosen
        kind, wide = ("roof-chosen", 1.05 * BOLD) if first else ("roof-other", LETTER)
        box, far = _free(scene, plot, (x, y), wide * len(operation.name), first, taken, drop)
        taken.append(box)
        ends = box[0] < x
        place = {"x": box[2] if ends else box[0], "y": box[3] - 4}
        names.append(("text", {"class": f"{kind} end" if ends else kind, **place}, operation.name))
        if far:
            near = (box[2] + 3 if ends else box[0] - 3, box[3] - 8)
            lines.append(poly("polyline", "roof-leader", (x, y), near))
        size = 6.5 if first else 4.0
        dots.append(_dot(operation.limit(roofline, tokens), x, y, size, kind, operation.name))
    return [*lines, *reversed(dots), *names]


def _dot(limit: str, x: float, y: float, size: float, kind: str, name: str) -> Shape:
    """A disc where memory is the limit, a square where arithmetic is."""
    common = {"class": f"{kind} by-{limit}", "data-operation": name}
    if limit == "memory":
        return "circle", {**common, "cx": x, "cy": y, "r": size}, ""
    side = 1.8 * size
    return "rect", {**common, "x": x - side / 2, "y": y - side / 2, "width": side, "height": side}, ""


def _free(
    scene: Scene,
    plot: Plot,
    at: tuple[float, float],
    wide: float,
    above: bool,
    taken: list[Box],
    drop: Box,
) -> tuple[Box, bool]:
    """The nearest free place for a name, not on `drop` if possible; and whether a line must lead there."""
    x, y = at
    for over, full in ((above, [*taken, drop]), (above, taken), (not above, taken)):
        for left in (x - 10 - wide, x + 10) if over else (x + 10, x - 10 - wide):
            for row in range(_ROWS):
                bottom = y - 6 - LINE * row if over else y + 20 + LINE * row
                box = (left, bottom - LINE, left + wide, bottom)
                # the roof rises to the right: a box under it meets it on the left, one over it on the right
                roof = plot.roof_y(scene.roofline, box[2] if over else left)
                clear = bottom < roof - 2 if over else box[1] > roof + 2
                if clear and _inside(box, plot) and not any(_meet(box, other) for other in full):
                    return box, row > 0
    return (x + 10, y - LINE / 2, x + 10 + wide, y + LINE / 2), False


def _inside(box: Box, plot: Plot) -> bool:
    return box[0] > plot.left and box[1] > plot.top and box[2] < plot.right and box[3] < plot.bottom


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
