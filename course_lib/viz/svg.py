"""A scene as an SVG that stands alone: the same bytes for the same scene, light or dark as the reader's system is."""

import re
from collections.abc import Iterable
from html import escape
from itertools import groupby

from course_lib.viz.palette import FONT, css
from course_lib.viz.scene import Frame, Mark, Panel, Scene, num, wrapped

MARGIN, GAP, ROOM = 20, 16, 760  # around everything; between panels; how wide panels side by side may be


def svg(scene: Scene, alone: bool = True) -> str:
    """Title, notes and panels on a card; of an animation up to four named frames, side by side. alone: with its words for who cannot see it."""
    notes = [line for note in scene.notes for line in wrapped(note, ROOM, "quiet")]
    drawn = _drawn(scene)
    kinds = {word for _, panel in drawn for mark in panel.marks for word in mark.kind.split()}
    body, y = [f'<text x="{MARGIN}" y="34" class="t title">{_said(scene.title)}</text>'], 34.0
    for note in notes:
        y += 19
        body.append(f'<text x="{MARGIN}" y="{num(y)}" class="t quiet">{_said(note)}</text>')
    y += 18
    for row in _rows(drawn):
        x, named = float(MARGIN), any(name for name, _, _ in row)
        y += 16 * named
        for name, panel, scale in row:
            if name:
                body.append(f'<text x="{num(x)}" y="{num(y - 4)}" class="t strong">{_said(name)}</text>')
            place = f"translate({num(x)} {num(y)})" + (f" scale({scale:.3g})" if scale != 1 else "")
            body.append(f'<g transform="{place}">{"".join(_shapes(panel.marks))}</g>')
            x += panel.w * scale + GAP
        y += max(panel.h * scale for _, panel, scale in row) + GAP
    width, height = ROOM + 2 * MARGIN, y + (4 if scene.panels else 0)
    rules = css(kinds | {"quiet", "title", "card", "strong"}).replace(
        "text{", ".t{"
    )  # the class of a group of texts
    style = f"svg{{font-family:{FONT}}}{rules}"
    words = f"<title>{_said(scene.title)}</title><desc>{_said(str(scene))}</desc>" if alone else ""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {num(height)}" width="{width}" height="{num(height)}" '
        f'role="img">{words}<style>{style}</style><rect x=".5" y=".5" width="{width - 1}" height="{num(height - 1)}" rx="8" class="card"/>'
        f"{''.join(body)}</svg>"
    )


def image(drawn: str, alt: str) -> str:
    """An SVG as an <img>: JupyterLab shows it in a notebook that it does not trust yet, where it strips inline SVG."""
    url = re.sub(r'="([^"\']*)"', r"='\1'", drawn)
    for odd in '%#"&\n':  # all that may not stand in a quoted address; base64 would be a third longer
        url = url.replace(odd, f"%{ord(odd):02X}")
    alt = escape(alt.replace("\n", "; "), quote=True)
    return f'<img alt="{alt}" style="max-width:100%;height:auto" src="data:image/svg+xml,{url}">'


def _drawn(scene: Scene) -> list[tuple[str, Panel]]:
    """The panels that a still picture shows, named frames under their names."""
    if not scene.panels:
        return []
    first, *rest = scene.panels
    base = (*scene.ground, *first.marks)
    named = [frame for frame in scene.frames if frame.name] or [Frame(())]
    named = [named[round(at * (len(named) - 1) / 3)] for at in range(4)] if len(named) > 4 else named
    stills = [(frame.name, Panel(first.w, first.h, (*base, *frame.marks))) for frame in named]
    return [*stills, *(("", panel) for panel in rest)]


def _rows(drawn: list[tuple[str, Panel]]) -> list[list[tuple[str, Panel, float]]]:
    """Panels in rows that fit, each with its scale; many wide frames fit side by side at three quarters."""
    rows: list[list[tuple[str, Panel, float]]] = []
    shrink = 0.75 if sum(bool(name) for name, _ in drawn) > 3 else 1.0
    taken = 0.0
    for name, panel in drawn:
        scale = min(shrink if name and panel.w > 250 else 1.0, ROOM / panel.w)
        if not rows or taken + panel.w * scale > ROOM + 1:
            rows.append([])
            taken = 0.0
        rows[-1].append((name, panel, scale))
        taken += panel.w * scale + GAP
    return rows


def _said(words: str) -> str:
    return escape(words, quote=False)


def _shapes(marks: Iterable[Mark]) -> Iterable[str]:
    """The marks as elements: rectangles of a kind that follow each other as one path, texts of a kind as one group."""
    drawn = (mark for mark in marks if "hit" not in mark.kind.split())  # nothing is pointed at here
    for shape, run in groupby(drawn, key=lambda mark: mark.shape):
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
    def one(m: Mark) -> str:
        squeezed = f' textLength="{num(m.w)}" lengthAdjust="spacingAndGlyphs"' if m.w else ""
        return f'<text x="{num(m.x)}" y="{num(m.y)}"{squeezed}>{_said(m.text)}</text>'

    return f'<g class="t {kind}">{"".join(map(one, marks))}</g>'


_WRITE = {"rect": _rects, "line": _lines, "dot": _dots, "path": _paths, "text": _texts}
