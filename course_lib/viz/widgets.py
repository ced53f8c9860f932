"""The pictures with controls around them. They are redrawn in the page, so they answer while the kernel is busy or gone."""

import re
from collections.abc import Sequence
from html import escape
from typing import Any
from urllib.parse import quote

import anywidget
import traitlets

from course_lib.layout import Placement, Replicate, Shard, check_world_size, normalize_dim, split_bounds
from course_lib.viz.locate import located
from course_lib.viz.ownership import (
    MAX_WORLD_SIZE,
    Ownership,
    TensorInfo,
    describe,
    named_tensors,
    planned,
    title_of,
    total_text,
)
from course_lib.viz.shards import STATIC, axes, draw

IN_URL = (
    " ='/:;,()[]*!.-+&|@$?~"  # what may stand in a quoted data: URL as it is; base64 would be a sixth longer
)


def sharding(
    what: Any,
    world_size: int = 2,
    placement: Placement | None = None,
    *,
    whole: Any = None,
    name: str = "tensor",
) -> "Sharding":
    """Draw which rank owns which part of a tensor or of a model; the reader changes world size and placement.

    what: a tensor, a shape, a model (its parameters), or a dict of name to tensor or shape. With `whole`, what a launch
    returned (one tensor a rank, or a dict of them): each rank's tensor is found inside `whole` by its values and drawn
    where it really is.
    placement: Shard(0) by default, Shard(1), Replicate(), or Partial().

    Raises ValueError for a world size outside 1 to 8 or a dim that the tensor lacks, TypeError for what is no tensor.
    """
    if whole is not None:
        return Sharding(located(what, whole, name))
    if _is_run(what):
        raise TypeError(
            "sharding(run) also needs the tensor that the ranks hold parts of: sharding(run, whole=w)."
        )
    tensors = tuple(describe(label, tensor) for label, tensor in named_tensors(what, name))
    if not tensors:
        raise ValueError(
            f"{type(what).__name__} has no parameters to draw: pass a model or tensors that have some."
        )
    check_world_size(world_size)
    if world_size > MAX_WORLD_SIZE:
        raise ValueError(
            f"sharding() draws at most {MAX_WORLD_SIZE} ranks side by side, not {world_size}: pick fewer."
        )
    most_dims = max((tensor.shape for tensor in tensors), key=len)
    placement = _checked(placement, most_dims)
    kind = type(what).__name__ if hasattr(what, "named_parameters") else None
    return Sharding(planned(title_of(kind, tensors), tensors, placement, world_size), placement)


class Sharding(anywidget.AnyWidget):
    """The sharding picture with its controls. `world_size` and `placement` are what is shown; `svg()` is its picture."""

    _esm = STATIC / "sharding.js"
    _css = "\n".join((STATIC / name).read_text(encoding="utf-8") for name in ("picture.css", "widget.css"))
    world_size = traitlets.Int().tag(sync=True)
    placement = traitlets.Unicode().tag(sync=True)
    picture = traitlets.Unicode().tag(sync=True)
    data = traitlets.Dict().tag(sync=True)

    def __init__(self, ownership: Ownership, placement: Placement | None = None) -> None:
        self._ownerships = _choices(ownership, placement) if placement else {}
        self._located = ownership
        super().__init__(
            world_size=ownership.world_size,
            placement=str(placement or "as found"),
            picture=draw(ownership, MAX_WORLD_SIZE if placement else None, standalone=False),
            data=_data(ownership, self._ownerships),
        )

    @property
    def ownership(self) -> Ownership:
        """Who holds what, in the picture as it is shown now."""
        return self._ownerships.get((self.world_size, self.placement), self._located)

    def svg(self) -> str:
        """The picture as it is shown now, as a standalone SVG."""
        return draw(self.ownership)

    def __repr__(self) -> str:
        return str(self.ownership)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        # An <img>: JupyterLab shows it in a notebook that it does not trust yet, where it strips inline SVG.
        image = quote(re.sub(r'="([^"\']*)"', r"='\1'", self.svg()), safe=IN_URL)
        alt = escape(repr(self).replace("\n", "; "), quote=True)
        data["text/html"] = f'<img alt="{alt}" style="max-width: 100%" src="data:image/svg+xml,{image}">'
        return data, metadata


def _is_run(what: Any) -> bool:
    return hasattr(what, "results") and not hasattr(what, "shape")


def _checked(placement: Placement | None, shape: tuple[int, ...]) -> Placement:
    if placement is None:
        return Shard(0) if shape else Replicate()
    if not isinstance(placement, Placement):
        raise TypeError(f"placement is Replicate(), Shard(0) or Shard(1), not {placement!r}.")
    if not isinstance(placement, Shard):
        return placement
    dim = normalize_dim(placement.dim, shape)
    if dim > 1:
        raise ValueError(
            f"sharding() draws dims 0 and 1; Shard({placement.dim}) of shape {shape} splits dim {dim}."
        )
    return Shard(dim)


def _choices(ownership: Ownership, placement: Placement) -> dict[tuple[int, str], Ownership]:
    """The picture for every choice of the controls."""
    tensors = ownership.tensors
    dims = min(2, max(len(tensor.shape) for tensor in tensors))
    placements = dict.fromkeys([Replicate(), *(Shard(dim) for dim in range(dims)), placement])
    return {
        (n, str(choice)): planned(ownership.title, tensors, choice, n)
        for choice in placements
        for n in range(1, MAX_WORLD_SIZE + 1)
    }


def _data(ownership: Ownership, choices: dict[tuple[int, str], Ownership]) -> dict[str, Any]:
    """What the page needs to redraw the picture for any choice, as JSON."""
    rows = zip(ownership.tensors, ownership.regions, strict=True)
    data: dict[str, Any] = {
        "tensors": [_tensor(tensor, () if choices else row) for tensor, row in rows],
        "controls": {},
    }
    if not choices:
        return data | {"regions": ownership.regions, "nbytes": ownership.nbytes}
    sizes, placements = (list(dict.fromkeys(keys)) for keys in zip(*choices, strict=True))
    lengths = {length for tensor in ownership.tensors for length in tensor.shape}
    data["controls"] = {
        "world_size": {"label": "world size", "options": sizes},
        "placement": {"label": "placement", "options": placements},
    }
    data["splits"] = {length: [split_bounds(length, n) for n in sizes] for length in sorted(lengths)}
    data["summaries"] = {f"{n}|{placement}": _summary(choice) for (n, placement), choice in choices.items()}
    return data


def _tensor(tensor: TensorInfo, row: Sequence) -> dict[str, Any]:
    return {
        "name": tensor.name,
        "shape": tensor.shape,
        "itemsize": tensor.itemsize,
        "axes": axes(tensor, tuple(row)),
    }


def _summary(choice: Ownership) -> dict[str, Any]:
    total = total_text(choice.tensors, choice.nbytes).replace(" on all ranks", "")
    per_rank = [choice.rank_bytes(rank) for rank in range(choice.world_size)]
    return {"notes": choice.notes, "total": total, "rankBytes": per_rank}
