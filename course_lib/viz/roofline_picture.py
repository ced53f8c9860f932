"""The picture of a roofline: its frame, which stays, and the shapes of a scene, which the page draws anew for each choice.

static/roofline_draw.js makes the same shapes from the same numbers; a test holds the two together.
"""

from collections.abc import Iterable
from math import ceil, floor, hypot, log10
from xml.sax.saxutils import escape

from course_lib.cost.hardware import Roofline
from course_lib.viz.picture import MARGIN, WIDTH, standalone_style
from course_lib.viz.roofline_marks import BOLD, Box, Plot, Shape, label, marks, places, poly
from course_lib.viz.roofline_scene import Scene, amount, sentences, three, title
from course_lib.viz.svg import document, element, number, rect, text

_BELOW = 0.1  # of the height, for names under the lowest roof


def plot_of(rooflines: Iterable[Roofline]) -> Plot:
    """Axes that hold all of these roofs and any operation of a layer."""
    rooflines = list(rooflines)
    x_low, x_high = log10(0.2), log10(40_000)
    slowest = log10(min(roofline.attainable(10**x_low) for roofline in rooflines))
    y_high = log10(max(roofline.flops_per_s for roofline in rooflines)) + 0.3
    y_low = slowest - _BELOW * (y_high - slowest)
    return Plot(x_low, x_high, floor(2 * y_low) / 2, y_high)


def shapes(scene: Scene, plot: Plot) -> list[Shape]:
    """Everything in the frame, from back to front."""
    roofline, left, right, bottom = scene.roofline, plot.left, plot.right, plot.bottom
    ridge, top = plot.x(roofline.ridge), plot.y(roofline.flops_per_s)
    slope = (left, plot.roof_y(roofline, left)), (ridge, top)
    x = plot.x(scene.operation.intensity(scene.tokens))
    found = [
        poly("polygon", "roof-memory", *slope, (ridge, bottom), (left, bottom)),
        poly("polygon", "roof-arithmetic", (ridge, top), (right, top), (right, bottom), (ridge, bottom)),
    ]
    labels = []
    if scene.beside:
        line, named = _beside(*scene.beside, plot, top)
        found.append(line)
        labels.append(named)
    found += [
        poly("polyline", "roof-ridge", (ridge, top), (ridge, bottom)),
        poly("polyline", "roof-drop", (x, plot.roof_y(roofline, x)), (x, bottom)),
        poly("polyline", "roof-line", *slope, (right, top)),
    ]
    peak = f"{scene.device}: {amount(roofline.flops_per_s, 'FLOP/s')}"
    labels += [
        label(right - 6, top - 7, peak, "roof-name end"),
        label(ridge, bottom - 8, f"ridge {three(roofline.ridge)}", "roof-name mid"),
        label(ridge - 46, bottom - 8, "limited by memory", "roof-muted end"),
        label(ridge + 46, bottom - 8, "limited by arithmetic", "roof-muted"),
    ]
    bandwidth, blocked = _bandwidth(roofline, plot)
    found += marks(scene, plot, blocked + [box for _, box in labels])
    return [*found, bandwidth, *(shape for shape, _ in labels)]


def _beside(name: str, other: Roofline, plot: Plot, top: float) -> tuple[Shape, tuple[Shape, Box]]:
    """The roof of another device, and its name."""
    height = plot.y(other.flops_per_s)
    start = (plot.left, plot.roof_y(other, plot.left))
    line = poly("polyline", "roof-beside", start, (plot.x(other.ridge), height), (plot.right, height))
    below = 24 if abs(height - top) < 17 else 0  # else it would be on the name of a roof as high
    said = f"{name}: {amount(other.flops_per_s, 'FLOP/s')}, ridge {three(other.ridge)}"
    return line, label(plot.right - 6, height - 7 + below, said, "roof-muted end")


def _bandwidth(roofline: Roofline, plot: Plot) -> tuple[Shape, list[Box]]:
    """The memory's bandwidth, written along the slope that it makes; and the boxes that it takes."""
    across = (plot.right - plot.left) / (plot.x_high - plot.x_low)
    up = (plot.bottom - plot.top) / (plot.y_high - plot.y_low)
    cos, sin = (side / hypot(across, up) for side in (across, up))
    x = (plot.x(2.5) + plot.x(roofline.ridge)) / 2
    turned = " ".join(map(number, (cos, -sin, sin, cos)))
    said = amount(roofline.bytes_per_s, "B/s")
    half = BOLD * len(said) / 2
    boxes = [
        (start, plot.roof_y(roofline, start + half) - 18, start + half, plot.roof_y(roofline, start) - 4)
        for start in (x - half, x)
    ]
    turned = f"matrix({turned} {places((x, plot.roof_y(roofline, x)))})"
    return ("text", {"class": "roof-name mid", "transform": turned, "y": -8.0}, said), boxes


def frame(plot: Plot) -> str:
    """The box of the plot and its axes, without a roof."""
    left, top, right, bottom = plot.left, plot.top, plot.right, plot.bottom
    parts = [rect(left, top, right - left, bottom - top, class_="box")]
    for power in range(ceil(plot.x_low), ceil(plot.x_high)):
        x = plot.x(10.0**power)
        parts.append(element("path", d=f"M{number(x)} {top}V{bottom}", class_="roof-grid"))
        parts.append(text(x, bottom + 17, f"{10**power:,}", class_="axis mid"))
    for power in range(ceil(plot.y_low), ceil(plot.y_high)):
        y = plot.y(10.0**power)
        tick = f"{10 ** (power % 3)} {' kMGTPE'[power // 3]}"
        parts.append(element("path", d=f"M{left} {number(y)}H{right}", class_="roof-grid"))
        parts.append(text(left - 8, y + 4, tick.strip(), class_="axis end"))
    parts.append(text(left - 8, top - 11, "FLOP/s", class_="caption end"))
    below = "intensity: FLOPs for each byte of memory traffic"
    parts.append(text((left + right) / 2, bottom + 36, below, class_="caption mid"))
    return "".join(parts)


def picture(plot: Plot) -> str:
    """The frame with an empty group for the page to draw into."""
    height = plot.bottom + 50
    card = rect(0.5, 0.5, WIDTH - 1, height - 1, rx=8, class_="card")
    live = element("g", class_="live")
    return document(WIDTH, height, "Roofline", "drawn by the page", "", card, frame(plot), live)


def draw(scene: Scene, plot: Plot) -> str:
    """A scene as a standalone SVG, the same for the same scene."""
    notes = sentences(scene)
    head = 40 + 19 * len(notes)
    height = head + plot.bottom + 50
    live = (
        element(tag, *([escape(content)] if content else []), **attributes)
        for tag, attributes, content in shapes(scene, plot)
    )
    parts = [
        rect(0.5, 0.5, WIDTH - 1, height - 1, rx=8, class_="card"),
        text(MARGIN, 32, title(scene), class_="title"),
        *(text(MARGIN, 54 + 19 * i, note, class_="note") for i, note in enumerate(notes)),
        element("g", frame(plot), *live, transform=f"translate(0 {head})"),
    ]
    style = standalone_style("picture.css", "roofline.css")
    return document(WIDTH, height, title(scene), " ".join(notes), style, *parts)
