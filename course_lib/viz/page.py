"""What a page gets of a picture: its scenes as data, a still form, and the one script that all pictures share."""

import base64
import gzip
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from html import escape
from itertools import product
from typing import Any

from course_lib.viz.controls import Button, Choice, Control, Switch
from course_lib.viz.palette import STATIC, css
from course_lib.viz.scene import Mark, Scene
from course_lib.viz.svg import image, svg

MAX_FRAMES = 400
Build = Callable[..., Scene]


class Pool:
    """Marks as columns, each mark once: scenes of one picture share most of theirs."""

    def __init__(self) -> None:
        self.places: dict[Mark, int] = {}

    def add(self, marks: Sequence[Mark]) -> list[int]:
        """The places of these marks, each as its step from the one before: neighbours, as they mostly are, compress to little."""
        places, at = self.places, 0
        steps = []
        for mark in marks:
            place = places.setdefault(mark, len(places))
            steps.append(place - at)
            at = place
        return steps

    def columns(self) -> dict[str, list]:
        """One list an attribute; one that no mark has is left out."""
        if not self.places:
            return {}
        usual = Mark._field_defaults
        rows = zip(Mark._fields, zip(*self.places, strict=True), strict=True)
        return {
            name: [round(v, 1) for v in values] if name in ("x", "y", "w", "h") else list(values)
            for name, values in rows
            if name not in usual or any(value != usual[name] for value in values)
        }


def encoded(scene: Scene | str, pool: Pool, with_ground: bool = True) -> dict[str, Any]:
    """A scene, or the rule that its choices break, with marks as places in the pool."""
    if isinstance(scene, str):
        return {"rule": scene}
    under = [scene.ground if with_ground else (), *[()] * len(scene.panels)]
    panels = [{"w": p.w, "h": p.h, "marks": pool.add((*under[i], *p.marks))} for i, p in enumerate(scene.panels)]
    frames = [{"marks": pool.add(f.marks), "say": f.say, "name": f.name, "passing": f.passing} for f in scene.frames]
    rest = {"title": scene.title, "notes": scene.notes, "say": scene.say, "panels": panels}
    some = {"frames": frames, "seconds": scene.seconds if frames else 0, "keys": scene.keys, "off": scene.off}
    some |= {"wires": scene.wires, "zoom": scene.zoom, "alt": scene.alt}
    after = {} if scene.after is None else {"after": scene.after}
    return rest | after | {name: value for name, value in some.items() if value}


def all_scenes(build: Build, controls: Sequence[Control]) -> dict[str, Any]:
    """The controls, and the scene of every set of choices, in the order in which the last control changes fastest."""
    options = []
    for control in controls:
        if not isinstance(control, Choice | Switch | Button):
            raise TypeError(f"{control.name} has too many values for frames: ask the kernel (frames=False).")
        if not isinstance(control, Button):
            values = control.values if isinstance(control, Choice) else (False, True)
            options.append([(control.name, value) for value in values])
    sets = list(product(*options))
    if len(sets) > MAX_FRAMES:
        raise ValueError(f"{len(sets)} sets of choices are too many for frames: at most {MAX_FRAMES}.")
    pool, scenes = Pool(), []
    for chosen in sets:
        try:
            scenes.append(encoded(build(**dict(chosen)), pool))
        except ValueError as rule:
            scenes.append({"rule": str(rule)})
    return {"controls": [plain(c) for c in controls], "scenes": scenes, "pool": pool.columns()}


def plain(control: Control) -> dict[str, Any]:
    """A control as the page makes it."""
    found = {n: v for n, v in vars(control).items() if n != "still"} | {"kind": type(control).__name__.lower()}
    if isinstance(control, Choice):
        found |= {"options": list(control.labels.items()), "values": control.values}
    return found | {"label": _label(control)}


def _label(control: Control) -> str:
    return control.label or control.name.replace("_", " ")


def figure(name: str, scene: Scene | str, controls: Iterable[Control], choices: Mapping, block: bytes) -> str:
    """A still picture, or the rule in its place, with what becomes live; and with a block of frames all that makes it live."""
    shown = still(scene) if isinstance(scene, Scene) else f"<p>{escape(scene)}</p>"
    if caption := hint(scene, controls):
        shown += f'<figcaption style="font-size:12px;opacity:.75">{escape(caption)}</figcaption>'
    if not block:
        return f'<figure style="margin:0" data-picture="{name}">{shown}</figure>'
    blocks = {name_of(block): block, name_of(runtime()): runtime()}
    frames, code = blocks
    scripts = (
        f'<script type="text/plain" data-course-block="{key}">{base64_of(value)}</script>'
        for key, value in blocks.items()
    )
    data = f'data-frames="{frames}" data-choices="{escape(as_json(choices), quote=True)}"'
    return (
        f'<figure style="margin:0" data-picture="{name}" {data}>{shown}</figure>{"".join(scripts)}'
        f'<script type="module">{LOAD}(await load("{code}")).hydrate()</script>'
    )


def still(scene: Scene) -> str:
    """A scene where nothing is live: an image, or, if nothing is drawn, its words."""
    if scene.panels:
        return image(svg(scene, alone=False), str(scene))
    lines = str(scene).splitlines()
    return f"<p><b>{escape(lines[0])}</b><br>{'<br>'.join(map(escape, lines[1:]))}</p>"


def hint(scene: Scene | str, controls: Iterable[Control]) -> str:
    """What becomes live when the cell is run."""
    if isinstance(scene, str):
        return ""
    can = []
    if labels := [_label(c) for c in controls if not getattr(c, "hidden", False) and _label(c).strip()]:
        can.append(f"change {', '.join(labels[:-1])}{' and ' if labels[1:] else ''}{labels[-1]}")
    if scene.frames:
        can.append("play it")
    if any(mark.tip for panel in scene.panels for mark in panel.marks):
        can.append("point at its parts")
    return f"Run this cell to {', '.join(can)}." if can else ""


# --- what the page runs


@cache
def runtime() -> bytes:
    """The one script and style sheet of all pictures, compressed."""
    style = css(live=True) + (STATIC / "scene.css").read_text(encoding="utf-8")
    parts = ("marks.js", "picture.js", "player.js", "controls.js", "page.js")
    script = "\n".join((STATIC / name).read_text(encoding="utf-8") for name in parts)
    style = re.sub(r"/\*.*?\*/|(?<=[{};:,])\s+|\s+(?=[{}])", "", style, flags=re.DOTALL)
    script = re.sub(r"^\s*//.*|^\s+| //.*", "", script, flags=re.MULTILINE)
    return packed(script.replace("{{style}}", json.dumps(style)[1:-1]))


@cache
def loader() -> str:
    """The widget's own script: it unpacks the runtime, once a page."""
    code = name_of(runtime())
    return (
        f'const packed = "{base64_of(runtime())}";\n{LOAD}\n'
        f'export default {{ async render(context) {{ return (await load("{code}", packed)).render(context); }} }};'
    )


# load(name, packed): the module of that name, from what is packed here or lies in the page.
LOAD = """const load = (name, packed) => ((window.coursePictures ??= {})[name] ??= (async () => {
const text = packed ?? document.querySelector(`[data-course-block="${name}"]`).textContent;
const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const code = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
return import(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
})());"""


def packed(what: Any) -> bytes:
    """Text, or a value as JSON, compressed to the same bytes each time."""
    data = (what if isinstance(what, str) else as_json(what)).encode()
    return gzip.compress(data, 9, mtime=0)


def name_of(block: bytes) -> str:
    """A name for what is in a block, so that a page keeps it once: gzip's own checksum and length of the content."""
    return block[-8:].hex()


def base64_of(block: bytes) -> str:
    """A block as text."""
    return base64.b64encode(block).decode("ascii")


def as_json(value: Any) -> str:
    """A value as the page reads it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
