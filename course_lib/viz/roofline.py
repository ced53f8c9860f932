"""The roofline explorer: how fast an operation of a transformer layer can be on a device, and what limits it."""

from dataclasses import asdict
from typing import Any

import anywidget
import traitlets

from course_lib.cost.hardware import GPUS, Roofline
from course_lib.cost.operations import PHASES, operations
from course_lib.cost.shapes import MODELS, Transformer
from course_lib.viz.picture import image, joined
from course_lib.viz.roofline_picture import draw, picture, plot_of
from course_lib.viz.roofline_scene import UNITS, Scene, sentences, title

MINE, NOTHING = "this machine", "nothing"
MOST_TOKENS = 2**16


def roofline(
    device: str = "A100",
    operation: str = "MLP up",
    model: str | Transformer = "GPT-3 6.7B",
    tokens: int = 2048,
    *,
    beside: str = NOTHING,
    everything: bool = True,
    mine: Roofline | None = None,
) -> "RooflineExplorer":
    """Draw a device's roofline with an operation of a transformer layer on it; the reader changes all of that.

    device: a GPU of `course_lib.cost.hardware`, or "this machine" if `mine` is its roofline. beside: one to compare with.
    operation: a name from `course_lib.cost.operations`. model: a name from `course_lib.cost.shapes`, or a Transformer.
    tokens: batch × sequence, a power of two up to 65,536; in "generating" the number of sequences, which get one token each.
    everything: whether the layer's other operations are there, too. Peaks are those of 16-bit matrix products.

    Raises ValueError for a name or number that is not there, with those that are; TypeError if `mine` is no Roofline.
    """
    if mine is not None and not isinstance(mine, Roofline):
        raise TypeError(f"mine is a Roofline, measured or made up, not a {type(mine).__name__}.")
    rooflines = {name: gpu.roofline for name, gpu in GPUS.items()} | ({MINE: mine} if mine else {})
    models = dict(MODELS)
    if isinstance(model, Transformer):
        models[model.name] = model
        model = model.name
    return RooflineExplorer(
        rooflines,
        models,
        device=device,
        beside=beside,
        model=model,
        operation=operation,
        tokens=tokens,
        everything=everything,
    )


class RooflineExplorer(anywidget.AnyWidget):
    """The roofline with its controls. What was chosen is in device, beside, model, operation, tokens and everything."""

    _esm = joined("roofline_model.js", "roofline_draw.js", "roofline.js")
    _css = joined("picture.css", "roofline.css", "widget.css", "trace_widget.css", "roofline_widget.css")
    device = traitlets.Unicode().tag(sync=True)
    beside = traitlets.Unicode().tag(sync=True)
    model = traitlets.Unicode().tag(sync=True)
    operation = traitlets.Unicode().tag(sync=True)
    tokens = traitlets.Int().tag(sync=True)
    everything = traitlets.Bool().tag(sync=True)
    picture = traitlets.Unicode().tag(sync=True)
    data = traitlets.Dict().tag(sync=True)

    def __init__(self, rooflines: dict[str, Roofline], models: dict[str, Transformer], **chosen: Any) -> None:
        self._rooflines = rooflines
        self._operations = {name: operations(model) for name, model in models.items()}
        self._plot = plot_of(rooflines.values())
        super().__init__(picture=picture(self._plot), data=self._data(), **chosen)

    @traitlets.validate("device", "beside", "model", "operation")
    def _check_name(self, proposal: Any) -> str:
        kind, name = proposal["trait"].name, proposal["value"]
        there = {
            "device": [*self._rooflines],
            "beside": [NOTHING, *self._rooflines],
            "model": [*self._operations],
            "operation": [*next(iter(self._operations.values()))],
        }[kind]
        if name not in there:
            raise ValueError(f"{kind} is one of {', '.join(there)}, not {name!r}.")
        return name

    @traitlets.validate("tokens")
    def _check_tokens(self, proposal: Any) -> int:
        tokens = proposal["value"]
        if not 1 <= tokens <= MOST_TOKENS or tokens & (tokens - 1):
            raise ValueError(
                f"tokens is a power of two from 1 to {MOST_TOKENS:,}: 1, 2, 4 and so on, not {tokens}."
            )
        return tokens

    @property
    def scene(self) -> Scene:
        """What is shown now."""
        there = self._operations[self.model]
        chosen = there[self.operation]
        others = tuple(op for op in there.values() if op.phase == chosen.phase) if self.everything else ()
        beside = (self.beside, self._rooflines[self.beside]) if self.beside in self._rooflines else None
        beside = None if self.beside == self.device else beside
        roof = self._rooflines[self.device]
        return Scene(self.device, roof, self.model, chosen, self.tokens, others, beside)

    def svg(self) -> str:
        """The picture as it is shown now, as a standalone SVG."""
        return draw(self.scene, self._plot)

    def __repr__(self) -> str:
        return "\n".join([title(self.scene), *sentences(self.scene)])

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        data["text/html"] = image(self.svg(), repr(self))
        return data, metadata

    def _data(self) -> dict[str, Any]:
        """What the page computes and draws with: every number it has is from here."""
        return {
            "rooflines": {name: asdict(roof) for name, roof in self._rooflines.items()},
            "models": {
                name: {op.name: asdict(op) for op in there.values()}
                for name, there in self._operations.items()
            },
            "plot": asdict(self._plot),
            "phases": [[phase, UNITS[phase]] for phase in PHASES],
            "powers": MOST_TOKENS.bit_length() - 1,
            "nothing": NOTHING,
        }
