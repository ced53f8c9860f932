"""The mesh explorer: up to 4,096 ranks on their nodes; choose one to see its groups, its links, what it sends and what it holds."""

from collections.abc import Mapping
from itertools import permutations
from typing import Any

import anywidget
import traitlets

from course_lib.cost.hardware import SYSTEMS, System
from course_lib.cost.shapes import MODELS, Transformer
from course_lib.layout import Layout
from course_lib.viz.mesh_model import MAX_RANKS, Mesh, describe, shape_data, system_data
from course_lib.viz.mesh_picture import draw
from course_lib.viz.picture import image, joined

_FIELDS = {  # how each choice is called in the page, and its least and largest value
    "pp": ("pp", 1, MAX_RANKS),
    "dp": ("dp", 1, MAX_RANKS),
    "cp": ("cp", 1, MAX_RANKS),
    "tp": ("tp", 1, MAX_RANKS),
    "order": ("order", None, None),
    "ranks_per_node": ("ranks a node", 1, MAX_RANKS),
    "rank": ("rank", 0, MAX_RANKS - 1),
}


def mesh_explorer(
    layout: Layout | None = None,
    ranks_per_node: int = 8,
    rank: int = 0,
    *,
    model: str | Transformer = "Megatron 1T",
    system: str | System = "A100",
    num_microbatches: int = 512,
    microbatch: int = 1,
    recompute: str = "full",
    sequence_parallel: bool = False,
) -> "MeshExplorer":
    """Draw a mesh by its nodes; the reader chooses a rank, and changes the sizes of the axes, their order and the nodes.

    layout: 64 × 6 × 8 by default, and then the rest is that row of Narayanan et al. 2021, table 1: a batch of 3,072.
    num_microbatches: of each copy; each has `microbatch` sequences. What is sent and held is that of `cost.traffic`, in 16 bits,
    without ZeRO; where the model cannot be cut in this way, the rule that it breaks stands in its place.
    Raises ValueError for a layout of more than 4,096 ranks, a rank outside it or an unknown name; TypeError for another type.
    """
    layout = layout or Layout(pp=64, dp=6, tp=8)
    mesh = Mesh(
        layout,
        ranks_per_node,
        rank,
        _named(model, MODELS, Transformer),
        _named(system, SYSTEMS, System),
        num_microbatches,
        microbatch,
        recompute,
        sequence_parallel,
    )
    return MeshExplorer(mesh)


class MeshExplorer(anywidget.AnyWidget):
    """The explorer with its controls. `state` is what was chosen: sizes, "order" (axes, outermost first), nodes and rank.

    Assigning to it changes the page; what is left out stays. `mesh` is the value behind it; it raises ValueError while a
    size or the rank is out of range.
    """

    _esm = joined("elements.js", "mesh_model.js", "mesh_draw.js", "mesh.js")
    _css = joined("picture.css", "mesh.css", "widget.css", "trace_widget.css", "mesh_widget.css")
    state = traitlets.Dict().tag(sync=True)
    data = traitlets.Dict().tag(sync=True)

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        order = " ".join(mesh.layout.order)
        # cp beside tp, as its ranks talk next to as much; and the order that was given, if it is another
        orders = [" ".join(axes).replace("tp", "cp tp") for axes in permutations(("pp", "dp", "tp"))]
        data = {
            "fields": _FIELDS,
            "orders": list(dict.fromkeys([*orders, order])),
            "model": shape_data(mesh.model),
            "system": system_data(mesh.system),
            "plan": {
                name: getattr(mesh, name)
                for name in ("num_microbatches", "microbatch", "recompute", "sequence_parallel")
            },
        }
        sizes = mesh.layout.sizes._asdict()
        rest = {"order": order, "ranks_per_node": mesh.ranks_per_node, "rank": mesh.rank}
        super().__init__(state=sizes | rest, data=data)

    @traitlets.validate("state")
    def _checked(self, proposal: Any) -> dict[str, Any]:
        state = {**self.state, **proposal["value"]}
        if unknown := sorted(set(state) - set(_FIELDS)):
            raise ValueError(f"there is nothing called {', '.join(unknown)}: state has {', '.join(_FIELDS)}.")
        for name, (_, low, high) in _FIELDS.items():
            value = state[name]
            if low is not None and (type(value) is not int or not low <= value <= high):
                raise ValueError(f"{name} is a whole number from {low} to {high:,}, not {value!r}.")
        _layout(state)
        return state

    @property
    def mesh(self) -> Mesh:
        """What is chosen now."""
        settings = {
            name: value for name, value in vars(self._mesh).items() if name in Mesh.__dataclass_fields__
        }
        chosen = {name: self.state[name] for name in ("ranks_per_node", "rank")}
        return Mesh(**settings | {"layout": _layout(self.state)} | chosen)

    def svg(self) -> str:
        """What is shown now as a standalone SVG. Raises ValueError while a size or the rank is out of range."""
        return draw(self.mesh)

    def __repr__(self) -> str:
        try:
            return describe(self.mesh)
        except ValueError as error:
            return str(error)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        try:
            data["text/html"] = image(self.svg(), repr(self))
        except ValueError as error:
            data["text/html"] = f"<p>{error}</p>"
        return data, metadata


def _layout(state: Mapping[str, Any]) -> Layout:
    return Layout(*(state[axis] for axis in ("pp", "dp", "cp", "tp")), tuple(state["order"].split()))


def _named(what: Any, presets: Mapping[str, Any], kind: type) -> Any:
    """The preset of that name, or `what` itself if it is such a value."""
    if isinstance(what, kind):
        return what
    if not isinstance(what, str):
        raise TypeError(f"pass a name or a {kind.__name__}, not a {type(what).__name__}.")
    if what not in presets:
        raise ValueError(
            f"there is no {kind.__name__} called {what!r}: take {', '.join(presets)}, or pass one of your own."
        )
    return presets[what]
