"""A pipeline schedule to play with: who does what when, for sizes and times that the reader changes."""

from collections.abc import Callable, Mapping
from typing import Any

import anywidget
import traitlets

from course_lib.schedules import Schedule, dualpipe_v, gpipe, interleaved, one_f_one_b, relay, zb_h1, zb_v
from course_lib.simulate import Costs, Simulation, simulate
from course_lib.viz.picture import image, joined
from course_lib.viz.schedule_gantt import describe, schedule_picture

SCHEDULES: Mapping[str, Callable[[int, int, int], Schedule]] = {
    "relay": lambda p, m, v: relay(p),
    "GPipe": lambda p, m, v: gpipe(p, m),
    "1F1B": lambda p, m, v: one_f_one_b(p, m),
    "interleaved 1F1B": interleaved,
    "ZB-H1": lambda p, m, v: zb_h1(p, m),
    "ZB-V": lambda p, m, v: zb_v(p, m),
    "DualPipeV": lambda p, m, v: dualpipe_v(p, m),
}
_FIELDS = {  # how each choice is called in the page, and its least and largest value
    "schedule": ("schedule", None, None),
    "p": ("ranks p", 1, 16),
    "m": ("micro-batches m", 1, 64),
    "v": ("chunks v", 1, 4),
    "forward": ("forward", 0.01, 100),
    "backward": ("backward (I and W: half each)", 0.01, 100),
    "message": ("message", 0, 100),
}


def pipeline(
    schedule: str = "1F1B",
    p: int = 4,
    m: int = 8,
    v: int = 2,
    forward: float = 1.0,
    backward: float = 2.0,
    message: float = 0.0,
) -> "Pipeline":
    """Draw a schedule of p ranks and m micro-batches; the reader changes everything, plays it, and asks what waits for what.

    schedule: a name of SCHEDULES. v: chunks of a rank, of "interleaved 1F1B" only; the relay has one micro-batch whatever m is.
    forward, backward: seconds that one micro-batch takes on one rank, with all of its chunks, so that schedules can be
    compared: a stage takes 1/chunks of that, and I and W half of a backward each. message: seconds from one rank to another.
    Raises ValueError for an unknown schedule or a number out of range, naming the range. Sizes that the schedule cannot
    have are shown with the rule that they break.
    """
    return Pipeline(
        {"schedule": schedule, "p": p, "m": m, "v": v}
        | {"forward": forward, "backward": backward, "message": message}
    )


class Pipeline(anywidget.AnyWidget):
    """The picture with its controls. `state` is what was chosen: the arguments of `pipeline`, by name.

    Assigning to it changes the page; what is left out stays. `schedule` and `simulation` are the values behind it; they
    raise ValueError, naming the rule, while the sizes are not possible.
    """

    _esm = joined(
        "elements.js",
        "schedule_orders.js",
        "schedule_model.js",
        "schedule_draw.js",
        "schedule_play.js",
        "schedule.js",
    )
    _css = joined("picture.css", "schedule.css", "widget.css", "trace_widget.css", "schedule_widget.css")
    state = traitlets.Dict().tag(sync=True)
    data = traitlets.Dict().tag(sync=True)

    def __init__(self, state: Mapping[str, Any]) -> None:
        super().__init__(state=dict(state), data={"fields": _FIELDS, "schedules": list(SCHEDULES)})

    @traitlets.validate("state")
    def _checked(self, proposal: Any) -> dict[str, Any]:
        state = {**self.state, **proposal["value"]}
        if unknown := sorted(set(state) - set(_FIELDS)):
            raise ValueError(f"there is nothing called {', '.join(unknown)}: state has {', '.join(_FIELDS)}.")
        if state["schedule"] not in SCHEDULES:
            raise ValueError(f"no schedule is called {state['schedule']!r}: take {', '.join(SCHEDULES)}.")
        for name, (_, low, high) in list(_FIELDS.items())[1:]:
            value, kind = state[name], int if name in "pmv" else int | float
            if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
                what = "a whole number" if kind is int else "a number"
                raise ValueError(f"{name} is {what} from {low} to {high}, not {value!r}.")
        return state

    @property
    def schedule(self) -> Schedule:
        """The schedule that is chosen now."""
        return SCHEDULES[self.state["schedule"]](*(self.state[name] for name in "pmv"))

    @property
    def simulation(self) -> Simulation:
        """What is shown now, as a value."""
        schedule = self.schedule
        chunks = schedule.num_stages // schedule.num_ranks
        forward, backward, message = (self.state[name] for name in ("forward", "backward", "message"))
        return simulate(schedule, Costs(forward / chunks, backward / chunks, message_s=message))

    def svg(self) -> str:
        """What is shown now as a standalone SVG. Raises ValueError while the sizes are not possible."""
        return schedule_picture(self.simulation)

    def __repr__(self) -> str:
        try:
            return describe(self.simulation)
        except ValueError as error:
            return f"{self.state['schedule']}: {error}"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        try:
            data["text/html"] = image(self.svg(), repr(self))
        except ValueError as error:
            data["text/html"] = f"<p>{self.state['schedule']}: {error}</p>"
        return data, metadata
