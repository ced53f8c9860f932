"""The traffic of a run as a matrix: a row a sender, a column a receiver, shaded by bytes."""

from typing import Any

import anywidget
import traitlets

from course_lib.trace import Trace
from course_lib.trace_tables import Traffic
from course_lib.viz.ownership import bytes_text
from course_lib.viz.picture import MARGIN, WIDTH, image, joined, standalone_style
from course_lib.viz.shards import STATIC
from course_lib.viz.svg import document, element, number, rect, text

MAX_VALUES = 16  # up to so many ranks the numbers stand in the cells
LEVELS = 5  # shades; the darkest is the largest cell


def traffic(trace: Trace | Traffic) -> "TrafficMatrix":
    """Draw how many bytes and messages each rank sent to each other; pointing at a cell tells its exact numbers.

    Only messages have a path: what the backend's own collectives moved is said, and not drawn.
    Raises TypeError for what is neither a Trace nor a Traffic.
    """
    if isinstance(trace, Trace):
        trace = trace.traffic()
    if not isinstance(trace, Traffic):
        hint = ": pass run.trace" if hasattr(trace, "trace") else ""
        raise TypeError(f"traffic() draws a Trace or its traffic(), not a {type(trace).__name__}{hint}.")
    return TrafficMatrix(trace)


class TrafficMatrix(anywidget.AnyWidget):
    """The matrix of traffic; `svg()` is its picture."""

    _esm = STATIC / "traffic.js"
    _css = joined("picture.css", "traffic.css", "widget.css", "trace_widget.css")
    picture = traitlets.Unicode().tag(sync=True)
    data = traitlets.Dict().tag(sync=True)

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic
        x, y, size = _place(traffic)
        cells = [
            [sender, receiver, nbytes, traffic.messages[sender][receiver]]
            for sender, row in enumerate(traffic.nbytes)
            for receiver, nbytes in enumerate(row)
            if traffic.messages[sender][receiver]
        ]
        data = {"n": traffic.world_size, "x": x, "y": y, "size": size, "cells": cells}
        super().__init__(picture=draw(traffic, standalone=False), data=data)

    def svg(self) -> str:
        """The picture as a standalone SVG."""
        return draw(self.traffic)

    def __repr__(self) -> str:
        return repr(self.traffic)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        data["text/html"] = image(self.svg(), repr(self))
        return data, metadata


def draw(traffic: Traffic, standalone: bool = True) -> str:
    """The matrix as SVG, the same for the same traffic. standalone: with its own colours, readable on any page."""
    n = traffic.world_size
    x0, y0, size = _place(traffic)
    most = max(map(max, traffic.nbytes), default=0)
    height = max(y0 + n * size, y0 + 150) + MARGIN
    notes = traffic.sentences()
    title = f"Traffic between {n} ranks" if n > 1 else "Traffic of 1 rank"
    parts = [
        rect(0.5, 0.5, WIDTH - 1, height - 1, rx=8, class_="card"),
        text(MARGIN, 32, title, class_="title"),
    ]
    parts += [text(MARGIN, 54 + 19 * i, note, class_="note") for i, note in enumerate(notes)]
    parts.append(text(x0 + n * size / 2, y0 - 26, "to rank", class_="axis mid"))
    parts.append(text(MARGIN, y0 + 13, "from rank", class_="axis"))
    every = 1 if size >= 13 else 4
    for rank in range(0, n, every):
        parts.append(text(x0 + (rank + 0.5) * size, y0 - 8, str(rank), class_="rank mid"))
        parts.append(text(x0 - 8, y0 + (rank + 0.5) * size + 4, str(rank), class_="rank end"))
    parts.append(rect(x0, y0, n * size, n * size, class_="box"))
    parts += _shades(traffic, most, x0, y0, size)
    lines = "".join(
        f"M{number(x0 + k * size)} {y0}v{number(n * size)}M{x0} {number(y0 + k * size)}h{number(n * size)}"
        for k in range(1, n)
    )
    parts.append(element("path", d=lines, class_="lines" if n <= 32 else "lines thin") if lines else "")
    parts += _values(traffic, x0, y0, size) if n <= MAX_VALUES else []
    parts.append(_legend(most, x0 + n * size + 36, y0))
    style = standalone_style("picture.css", "traffic.css") if standalone else ""
    return document(
        WIDTH, height, title, repr(traffic) if n <= MAX_VALUES else "; ".join(notes), style, *parts
    )


def _place(traffic: Traffic) -> tuple[int, int, float]:
    """Left and upper edge of the matrix, and the size of a cell."""
    n = max(1, traffic.world_size)
    size = min(64.0, 528 / n) if n <= MAX_VALUES else max(5.0, 528 // n)
    return MARGIN + 86, 54 + 19 * len(traffic.sentences()) + 36, size


def level(nbytes: int, most: int) -> int:
    """The shade of a cell, 1 to LEVELS; 0 for no bytes."""
    return -(-LEVELS * nbytes // most) if nbytes and most else 0


def _shades(traffic: Traffic, most: int, x0: float, y0: float, size: float) -> list[str]:
    paths: dict[int, list[str]] = {}
    for sender, row in enumerate(traffic.nbytes):
        levels = [level(nbytes, most) for nbytes in row] + [-1]
        begin = 0
        for end in range(1, len(levels)):  # equal neighbours are one shape
            if levels[end] != levels[begin]:
                wide = number((end - begin) * size)
                box = f"M{number(x0 + begin * size)} {number(y0 + sender * size)}h{wide}v{number(size)}h-{wide}z"
                if levels[begin]:
                    paths.setdefault(levels[begin], []).append(box)
                begin = end
    return [element("path", d="".join(boxes), class_=f"shade s{at}") for at, boxes in sorted(paths.items())]


def _values(traffic: Traffic, x0: float, y0: float, size: float) -> list[str]:
    parts = []
    for sender, row in enumerate(traffic.nbytes):
        for receiver, nbytes in enumerate(row):
            messages = traffic.messages[sender][receiver]
            if not messages:
                continue
            x, y = x0 + (receiver + 0.5) * size, y0 + (sender + 0.5) * size
            amount = bytes_text(nbytes)
            roomy = size >= 44
            value = amount.replace(" bytes", " B") if roomy else _short(nbytes)
            parts.append(
                text(x, y + (0 if roomy else 4), value, class_="value mid" if roomy else "value mid tight")
            )
            if roomy:
                parts.append(text(x, y + 15, f"{messages:,} msg", class_="count mid"))
    return parts


def _short(nbytes: int) -> str:
    """At most four letters for a narrow cell: 958k, 1.8M."""
    for unit, name in ((1, ""), (10**3, "k"), (10**6, "M"), (10**9, "G")):
        value = nbytes / unit
        if value < 999.5:
            return f"{value:.1f}{name}" if name and value < 9.95 else f"{value:.0f}{name}"
    return f"{nbytes / 10**12:.0f}T"


def _legend(most: int, x: float, y: float) -> str:
    parts = [text(x, y + 10, "bytes", class_="caption")]
    for k in range(LEVELS if most else 0, 0, -1):
        top = y + 20 + (LEVELS - k) * 20
        parts.append(rect(x, top, 20, 14, class_=f"shade s{k}"))
        parts.append(text(x + 28, top + 11, f"up to {bytes_text(most * k // LEVELS)}", class_="axis"))
    return "".join(parts)
