"""One widget for every picture: it shows a scene, and has another one built when the reader changes something.

There are two ways. `frames`: the scene of every set of choices is built at once and sent as one compressed block; the page
then needs no kernel, and neither does an exported one. Otherwise the page sends its choices and Python builds.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import anywidget
import traitlets

from course_lib.viz import page
from course_lib.viz.controls import Button, Choice, Control
from course_lib.viz.page import Build, Pool, as_json, encoded
from course_lib.viz.scene import Scene
from course_lib.viz.svg import svg


def picture(
    build: Build,
    controls: Sequence[Control] = (),
    choices: Mapping[str, Any] | None = None,
    *,
    name: str = "",
    frames: bool = False,
) -> "Picture":
    """Show `build(**choices)`, and let the reader change the choices.

    build: raises ValueError, in a sentence, for choices that cannot be; the page shows that sentence. One that takes a `width` is
    told how many pixels wide the page is.  choices: what is chosen at first, a value for each control.
    frames: build every set of choices now; at most 400 of them, of Choice and Switch alone. name: of the kind of picture.
    """
    home = getattr(build, "func", build).__module__.rpartition(".")[2]
    return Picture(build, tuple(controls), dict(choices or {}), name or home, frames)


class Picture(anywidget.AnyWidget):
    """A picture with its controls. `choices` is what is chosen now, `scene` what is shown, `svg()` the same as a file."""

    _esm = traitlets.Unicode().tag(sync=True)
    _picture = traitlets.Unicode().tag(sync=True)
    _controls = traitlets.List().tag(sync=True)
    _block = traitlets.Bytes().tag(sync=True)
    _ground = traitlets.Unicode().tag(sync=True)
    _scene = traitlets.Unicode().tag(sync=True)
    choices = traitlets.Dict().tag(sync=True, echo_update=False)
    width = traitlets.Int(760).tag(sync=True, echo_update=False)

    def __init__(self, build: Build, controls: tuple, choices: dict, name: str, frames: bool) -> None:
        self._build, self._all_controls = build, list(controls)
        self._by_name = {c.name: c for c in controls if not isinstance(c, Button)}
        self._takes_width = "width" in inspect.signature(build).parameters
        self._check(choices)
        self.frames, self._under = frames, ()  # the ground that was sent
        block = page.packed(page.all_scenes(build, controls)) if frames else b""
        super().__init__(
            _esm=page.loader(),
            _picture=name,
            _controls=[page.plain(c) for c in controls],
            _block=block,
            choices=choices,
        )
        if not frames:
            self.refresh()
            self.observe(self.refresh, ["choices", "width"])

    @traitlets.validate("choices")
    def _checked(self, proposal: Any) -> dict[str, Any]:
        choices = {**self.choices, **proposal["value"]}
        self._check(choices)
        return choices

    def _check(self, choices: Mapping[str, Any]) -> None:
        if set(choices) != set(self._by_name):
            odd = ", ".join(sorted(set(choices) ^ set(self._by_name)))
            raise ValueError(f"there is nothing called {odd}: choices are {', '.join(self._by_name) or 'none'}.")
        for name, value in choices.items():
            self._by_name[name].check(value)

    def choose(self, **changes: Any) -> "Picture":
        """Change some of the choices, as the reader does in the page. Raises ValueError for what there is not."""
        self.choices = {**self.choices, **changes}
        return self

    @property
    def scene(self) -> Scene:
        """What is shown. Raises ValueError, naming the rule, while the choices cannot be."""
        return self._build(**self.choices, **({"width": self.width} if self._takes_width else {}))

    def refresh(self, *_: Any) -> None:
        """Build the scene again, and show it."""
        pool, scene = Pool(), self._scene_or_rule()
        with self.hold_sync():
            if isinstance(scene, Scene) and scene.ground is not self._under:
                ground, self._under = Pool(), scene.ground
                places = ground.add(scene.ground)
                self._ground = as_json({"pool": ground.columns(), "marks": places})
            shown = encoded(scene, pool, with_ground=False)
            self._scene = as_json({"for": self.choices, "scene": shown, "pool": pool.columns()})

    def _scene_or_rule(self) -> Scene | str:
        try:
            return self.scene
        except ValueError as rule:
            return str(rule)

    def svg(self) -> str:
        """What is shown, as an SVG that stands alone. Raises ValueError while the choices cannot be."""
        return svg(self.scene)

    def __repr__(self) -> str:
        return str(self._scene_or_rule())

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        data["text/html"] = self.html()
        return data, metadata

    def html(self) -> str:
        """What a page shows where no kernel runs: a still picture, and with `frames` the live one."""
        block, there = b"", self._all_controls
        if self.frames:
            small = [c.in_a_page(self.choices[c.name]) if isinstance(c, Choice) else c for c in there]
            block = page.packed(page.all_scenes(self._build, small)) if small != there else self._block
        return page.figure(self._picture, self._scene_or_rule(), self._by_name.values(), self.choices, block)
