"""A scene as an SVG that stands alone: the same bytes for the same scene, light or dark as the reader's system is."""

import re
from collections.abc import Iterable, Iterator
from functools import partial
from html import escape
from itertools import groupby

from course_lib.viz.palette import css
from course_lib.viz.scene import Frame, Mark, Panel, Scene, num, wrapped

_said = partial(escape, quote=False)
MARGIN, GAP, ROOM = 20, 16, 760  # around everything; between panels; how wide panels side by side may be


def svg(scene: Scene, alone: bool = True) -> str:
    """Title, notes and panels on a card; of an animation the first, the middle and the last named frame.

    alone: with its words for whoever cannot see it.
    """
    notes = [line for note in scene.notes for line in wrapped(note, ROOM, "quiet")]
    body, y = ([f'<text x="{MARGIN}" y="34" class="t title">{_said(scene.title)}</text>'], 52.0 + 19 * len(notes))
    for place, said in enumerate(notes):
        body.append(f'<text x="{MARGIN}" y="{53 + 19 * place}" class="t quiet">{_said(said)}</text>')
    for row in _rows(scene):
        x, named = float(MARGIN), any(name for name, *_ in row)
        y += 16 * named
        for name, panel, scale, drawn in row:
            if name:
                body.append(f'<text x="{num(x)}" y="{num(y - 4)}" class="t strong">{_said(name)}</text>')
            place = f"translate({num(x)} {num(y)})" + (f" scale({scale:.3g})" if scale != 1 else "")
            body.append(f'<g transform="{place}">{drawn}</g>')
            x += panel.w * scale + GAP
        y += max(panel.h * scale for _, panel, scale, _ in row) + GAP
    width, height = ROOM + 2 * MARGIN, y + (4 if scene.panels else 0)
    card = f'<rect x=".5" y=".5" width="{width - 1}" height="{num(height - 1)}" rx="8" class="card"/>'
    inside = card + "".join(body)
    kinds = {word for kind in re.findall(r'class="([^"]+)"', inside) for word in kind.split()}
    rules = css(kinds).replace("text{", ".t{")  # texts of a kind are a group, whose class they inherit
    words = f"<title>{_said(scene.title)}</title><desc>{_said(str(scene))}</desc>" if alone else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {num(height)}" width="{width}" height="{num(height)}" '
        f'role="img">{words}<style>svg{{font-family:system-ui,sans-serif}}{rules}</style>{inside}</svg>'
    )


def image(drawn: str, alt: str) -> str:
    """An SVG as an <img>: JupyterLab shows it in a notebook that it does not trust yet, where it strips inline SVG."""
    url = re.sub(r'="([^"\']*)"', r"='\1'", drawn)
    for odd in '%#"&\n':  # all that may not stand in a quoted address; base64 would be a third longer
        url = url.replace(odd, f"%{ord(odd):02X}")
    alt = escape(alt.replace("\n", "; "), quote=True)
    return f'<img alt="{alt}" style="max-width:100%;height:auto" src="data:image/svg+xml,{url}">'


def _drawn(scene: Scene) -> Iterator[tuple[str, Panel, str]]:
    """The panels that a still picture shows, frames under their names; what lies under all frames is drawn once, and then used."""
    named = [frame for frame in scene.frames if frame.name] or [Frame(())]
    if len(named) > 3:
        named = [named[0], named[len(named) // 2], named[-1]]
    for first in scene.panels[:1]:
        under = f'<g id="under">{"".join(_shapes((*scene.ground, *first.marks)))}</g>'
        for frame in named:
            yield frame.name, first, under + "".join(_shapes(frame.marks))
            under = '<use href="#under"/>'
    for panel in scene.panels[1:]:
        yield "", panel, "".join(_shapes(panel.marks))


def _rows(scene: Scene) -> list[list[tuple[str, Panel, float, str]]]:
    """Panels in rows that fit, each with its scale."""
    rows: list[list[tuple[str, Panel, float, str]]] = []
    taken = 0.0
    for name, panel, drawn in _drawn(scene):
        scale = min(1.0, ROOM / panel.w)
        if not rows or taken + panel.w * scale > ROOM + 1:
            rows.append([])
            taken = 0.0
        rows[-1].append((name, panel, scale, drawn))
        taken += panel.w * scale + GAP
    return rows


def _shapes(marks: Iterable[Mark]) -> Iterable[str]:
    """The marks as elements, texts last: rectangles of a kind that follow each other as one path, texts of a kind as one group."""
    drawn = (mark for mark in marks if "hit" not in mark.kind.split())  # nothing is pointed at here
    for shape, run in groupby(sorted(drawn, key=lambda m: m.shape == "text"), key=lambda m: m.shape):
        by_kind: dict[str, list[Mark]] = {}
        for mark in run:
            by_kind.setdefault(mark.kind, []).append(mark)
        for kind, alike in by_kind.items():
            yield _WRITE[shape](kind, alike)


def _rects(kind: str, marks: list[Mark]) -> str:
    boxes = (f"M{num(m.x)} {num(m.y)}h{num(m.w)}v{num(m.h)}h{num(-m.w)}z" for m in marks)
    return f'<path class="{kind}" d="{"".join(boxes)}"/>'


def _lines(kind: str, marks: list[Mark]) -> str:
    ways = (f"M{num(m.x)} {num(m.y)}l{num(m.w)} {num(m.h)}" for m in marks)
    return f'<path class="{kind}" d="{"".join(ways)}"/>'


def _dots(kind: str, marks: list[Mark]) -> str:
    circles = (f'<circle cx="{num(m.x)}" cy="{num(m.y)}" r="{num(m.w)}"/>' for m in marks)
    return f'<g class="{kind}">{"".join(circles)}</g>'


def _paths(kind: str, marks: list[Mark]) -> str:
    drawn = (f'<path transform="translate({num(m.x)} {num(m.y)})" d="{m.text}"/>' for m in marks)
    return f'<g class="{kind}">{"".join(drawn)}</g>'


def _texts(kind: str, marks: list[Mark]) -> str:
    written = []
    for (y, w, _), row in groupby(marks, key=lambda m: (m.y, m.w, len(m.text) == 1 or m)):
        xs, words = zip(*((num(m.x), m.text) for m in row))  # several in a row: a letter each, each at its x
        squeezed = f' textLength="{num(w)}" lengthAdjust="spacingAndGlyphs"' if w else ""
        written.append(f'<text x="{" ".join(xs)}" y="{num(y)}"{squeezed}>{_said("".join(words))}</text>')
    return f'<g class="t {kind}">{"".join(written)}</g>'


_WRITE = {"rect": _rects, "line": _lines, "dot": _dots, "path": _paths, "text": _texts}
