"""The planner explorer: the candidates of a search by memory and time; filter them, and ask any of them why it is not the best."""

from typing import Any

import anywidget
import traitlets

from course_lib.cost.ranking import Search
from course_lib.cost.shapes import RECOMPUTE
from course_lib.viz.picture import image, joined
from course_lib.viz.planner_model import (
    ALL_SCHEDULES,
    ANY,
    FILTERS,
    KINDS,
    LIMIT_NAMES,
    PARTS,
    Mark,
    Overview,
)
from course_lib.viz.planner_picture import SHAPES, Axes, draw, picture
from course_lib.viz.planner_words import AGAIN, SHARED, WHY, counts, describe


def planner_explorer(search: Search) -> "PlannerExplorer":
    """Draw what a search found: a mark a candidate, seconds of its step over GB of its fullest GPU, its shape what limits it.

    The reader filters by layout, schedule, recomputation, ZeRO and sequence parallel, and chooses a mark to see its plan, its
    memory and time by part, and where it loses against the best. Drawn are the fastest of each choice of these, at most 600;
    the picture says what is left out.
    Raises TypeError for what is no Search.
    """
    if not isinstance(search, Search):
        raise TypeError(
            f"planner_explorer draws what course_lib.cost.planner.search returns, not a {type(search).__name__}."
        )
    return PlannerExplorer(Overview(search))


class PlannerExplorer(anywidget.AnyWidget):
    """The explorer with its controls. `state` is what was chosen: a value or "any" for each filter, and the rank as "mark".

    Assigning to it changes the page; what is left out stays. A mark of 0, or one that is not left, stands for the best that is.
    `overview` is the value behind it, `chosen` the mark that is shown; None if nothing is left.
    """

    _esm = joined("elements.js", "planner_model.js", "planner.js")
    _css = joined("picture.css", "planner.css", "widget.css", "trace_widget.css", "planner_widget.css")
    state = traitlets.Dict().tag(sync=True)
    data = traitlets.Dict().tag(sync=True)
    picture = traitlets.Unicode().tag(sync=True)

    def __init__(self, overview: Overview) -> None:
        self.overview = overview
        super().__init__(
            state=dict.fromkeys(FILTERS, ANY) | {"mark": 0},
            data=_data(overview),
            picture=picture(overview) if overview.marks else "",
        )

    @traitlets.validate("state")
    def _checked(self, proposal: Any) -> dict[str, Any]:
        state = {**self.state, **proposal["value"]}
        if unknown := sorted(set(state) - {*FILTERS, "mark"}):
            raise ValueError(
                f"there is nothing called {', '.join(unknown)}: state has {', '.join(FILTERS)} and mark."
            )
        for name, options in self.overview.options.items():
            if state[name] not in [ANY, *options]:
                there = ", ".join(map(str, options))
                raise ValueError(f"no mark has {name} = {state[name]!r}: take {ANY!r} or one of {there}.")
        if state["mark"] not in {0, *(mark.rank for mark in self.overview.marks)}:
            raise ValueError(f"number {state['mark']} has no mark: take the rank of one, or 0 for the best.")
        return state

    @property
    def chosen(self) -> Mark | None:
        """The mark that is shown."""
        return self.overview.chosen(self.state)

    def svg(self) -> str:
        """What is shown now as a standalone SVG."""
        return draw(self.overview, self.state)

    def __repr__(self) -> str:
        return describe(self.overview, self.state)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        data["text/html"] = image(self.svg(), repr(self))
        return data, metadata


def _data(overview: Overview) -> dict[str, Any]:
    """What the page draws and says all of it with. rows: a line a mark, of whole numbers; a text, since it is small as that."""
    search = overview.search
    data = {"title": search.title, "counts": counts(overview), "any": ANY, "rows": ""}
    if not overview.marks:
        return data
    return data | {
        "rows": "\n".join(",".join(map(str, _row(mark))) for mark in overview.marks),
        "filters": [[name, label, overview.options[name]] for name, label in FILTERS.items()],
        "fit": search.num_fit,
        "gpus": search.num_gpus,
        "batch": search.batch,
        "perSecond": overview.per_second,
        "perGB": overview.per_gb,
        "limit": overview.limit,
        "room": f"{search.limit_bytes / 1e9:g} GB",
        "plot": Axes(overview).data,
        "shapes": SHAPES,
        "kinds": KINDS,
        "parts": PARTS,
        "limits": LIMIT_NAMES,
        "why": WHY,
        "schedules": ALL_SCHEDULES,
        "recompute": RECOMPUTE,
        "again": AGAIN,
        "shared": SHARED,
    }


def _row(mark: Mark) -> list[int]:
    """dp and the number of micro-batches follow from the rest."""
    pp, _, tp, schedule, recompute, zero, sequence = mark.choices
    cut = pp, tp, mark.microbatch, mark.chunks
    ways = ALL_SCHEDULES.index(schedule), RECOMPUTE.index(recompute), zero, int(sequence)
    return [mark.rank, mark.ways, *cut, *ways, mark.limit, *mark.memory, *mark.seconds]
