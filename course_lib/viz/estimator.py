"""The memory estimator: for a model, a GPU and a plan, what is in memory and what would make it fit."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import anywidget
import traitlets

from course_lib.cost.hardware import GPU, GPUS
from course_lib.cost.memory import MemoryUse, memory_use
from course_lib.cost.plan import Plan
from course_lib.cost.shapes import MODELS, RECOMPUTE, Transformer
from course_lib.viz.estimator_model import LABELS, Estimate, capacity_bytes, shape_data
from course_lib.viz.estimator_picture import HEIGHT, LEFT, bars, draw
from course_lib.viz.picture import image, joined
from course_lib.viz.svg import document

_WIDTH = 540  # of the bars in the page


def memory_estimator(
    model: str | Transformer = "GPT-3 175B", gpu: str | GPU = "A100", plan: Plan | None = None
) -> "MemoryEstimator":
    """Show what one GPU of the first pipeline stage holds, beside what it has; the reader changes everything.

    model, gpu: names of MODELS and GPUS, or one of your own, under a name of its own.
    plan: Plan() by default; one that cannot cut the model is shown with the rule that it breaks.
    Raises ValueError for an unknown name, TypeError for what is no name and no Transformer, GPU or Plan.
    """
    models, gpus = _with_own(model, MODELS, Transformer), _with_own(gpu, GPUS, GPU)
    if not isinstance(plan, Plan | None):
        raise TypeError(f"plan is a Plan(tp=..., pp=..., dp=...), not a {type(plan).__name__}.")
    names = {"model": getattr(model, "name", model), "gpu": getattr(gpu, "name", gpu)}
    return MemoryEstimator(models, gpus, names | asdict(plan or Plan()))


class MemoryEstimator(anywidget.AnyWidget):
    """The estimator with its controls. `state` is what was chosen: "model", "gpu" and every field of a Plan.

    Assigning to it changes the page; what is left out stays. `model`, `gpu`, `plan` and `memory` are the
    values behind it; the last two raise ValueError, naming the rule, while the choice is not possible.
    """

    _esm = joined("elements.js", "estimator_model.js", "estimator.js")
    _css = joined("picture.css", "estimator.css", "widget.css", "trace_widget.css", "estimator_widget.css")
    state = traitlets.Dict().tag(sync=True)
    data = traitlets.Dict().tag(sync=True)
    picture = traitlets.Unicode().tag(sync=True)

    def __init__(
        self, models: Mapping[str, Transformer], gpus: Mapping[str, GPU], state: Mapping[str, Any]
    ) -> None:
        self._models, self._gpus = models, gpus
        data = {
            "models": {name: shape_data(model) for name, model in models.items()},
            "gpus": {name: capacity_bytes(gpu) for name, gpu in gpus.items()},
            "presets": list(GPUS),
            "recompute": RECOMPUTE,
            "labels": LABELS,
            "left": LEFT,
            "right": _WIDTH,
        }
        super().__init__(state=dict(state), data=data)
        shown = bars(self.estimate, _WIDTH)
        self.picture = document(_WIDTH, HEIGHT, "Memory of one GPU", str(self.estimate), "", shown)

    @traitlets.validate("state")
    def _checked(self, proposal: Any) -> dict[str, Any]:
        state = {**self.state, **proposal["value"]}
        if unknown := sorted(set(state) - {"model", "gpu", *Plan.__dataclass_fields__}):
            raise ValueError(
                f"there is nothing called {', '.join(unknown)}: state has model, gpu and the fields of Plan."
            )
        _with_own(state["model"], self._models, Transformer)
        _with_own(state["gpu"], self._gpus, GPU)
        return state

    @property
    def model(self) -> Transformer:
        """The model that is chosen now."""
        return self._models[self.state["model"]]

    @property
    def gpu(self) -> GPU:
        """The GPU that is chosen now."""
        return self._gpus[self.state["gpu"]]

    @property
    def plan(self) -> Plan:
        """The plan that is chosen now."""
        return Plan(**self._settings)

    @property
    def memory(self) -> MemoryUse:
        """What one GPU of the first pipeline stage holds now."""
        return memory_use(self.model, self.plan)

    @property
    def estimate(self) -> Estimate:
        """What is shown now, possible or not, with its verdict."""
        return Estimate(self.model, self.gpu, self._settings)

    @property
    def _settings(self) -> dict[str, Any]:
        return {name: value for name, value in self.state.items() if name not in ("model", "gpu")}

    def svg(self) -> str:
        """What is shown now as a standalone SVG."""
        return draw(self.estimate)

    def __repr__(self) -> str:
        return str(self.estimate)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        data["text/html"] = image(self.svg(), repr(self))
        return data, metadata


def _with_own(what: Any, presets: Mapping[str, Any], kind: type) -> Mapping[str, Any]:
    """The presets, and with them `what` if it is a value of that kind; else it must be one of their names."""
    if isinstance(what, kind):
        if presets.get(what.name, what) != what:
            raise ValueError(f"{what.name!r} is a preset with other numbers: give yours a name of its own.")
        return {**presets, what.name: what}
    if not isinstance(what, str):
        raise TypeError(f"pass a name or a {kind.__name__}, not a {type(what).__name__}.")
    if what not in presets:
        raise ValueError(
            f"there is no {kind.__name__} called {what!r}: take {', '.join(presets)}, "
            "or pass one of your own."
        )
    return presets
