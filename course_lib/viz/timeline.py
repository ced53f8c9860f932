"""The timeline of a trace: a lane per rank, with its spans and with the time its thread worked, communicated and waited."""

from dataclasses import asdict
from math import ceil, log10
from typing import Any

import anywidget
import traitlets

from course_lib.trace import Event, Trace
from course_lib.viz.picture import image, joined
from course_lib.viz.timeline_layout import geometry_of, span_colors, span_rows
from course_lib.viz.timeline_picture import draw, notes_of, title_of

_KINDS = ("collective", "message", "span")


def timeline(trace: Trace) -> "Timeline":
    """Draw what each rank did when; the reader zooms, pans and asks for each event's details.

    Raises TypeError for what is no Trace.
    """
    if not isinstance(trace, Trace):
        hint = ": pass run.trace" if hasattr(trace, "trace") else ""
        raise TypeError(f"timeline() draws a Trace, not a {type(trace).__name__}{hint}.")
    return Timeline(trace)


class Timeline(anywidget.AnyWidget):
    """The timeline with its controls. `svg()` is the picture of the whole trace, however many events it has."""

    _esm = joined("timeline_lanes.js", "timeline_view.js", "timeline_draw.js", "timeline.js")
    _css = joined("picture.css", "trace.css", "widget.css", "trace_widget.css")
    data = traitlets.Dict().tag(sync=True)

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        super().__init__(data=columns(trace))

    def svg(self) -> str:
        """The picture as a standalone SVG of less than 40 kB; where events are too many, a bar is as high as their share."""
        return draw(self.trace)

    def __repr__(self) -> str:
        return repr(self.trace)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        data["text/html"] = image(self.svg(), repr(self))
        return data, metadata


def columns(trace: Trace) -> dict[str, Any]:
    """The events as the page needs them: one list a column, rank after rank, and each call described once.

    Times are whole ticks of tick_s seconds; start[i] counts from the start before it on the same rank, from[i] from its own
    start. wait[i] is 0 for an event without a wait; `more` has the waits of events with several.
    """
    geometry = geometry_of(trace)
    begin, end = trace.active_s
    tick_s = 10.0 ** (ceil(log10(max(end - begin, 1e-9))) - 8)
    colors = span_colors(trace)
    calls: dict[tuple, int] = {}
    lists: dict[str, list] = {
        name: []
        for name in ("call", "start", "length", "from", "wait", "more", "open", "row", "spans", "counts")
    }
    for events in trace.by_rank[: geometry.lanes]:
        lists["counts"].append(len(events))
        rows = span_rows(events)
        lists["row"] += rows
        lists["spans"].append(len(rows))
        before = 0
        for event in events:
            start, stop = _ticks(event.start_s, begin, tick_s), _ticks(event.end_s, begin, tick_s)
            waits = [(_ticks(a, begin, tick_s), _ticks(b, begin, tick_s)) for a, b in event.waits]
            spread = [(a - start, b - a) for a, b in waits if b > a]
            at = len(lists["call"])
            lists["more"] += [(at, *wait) for wait in spread[1:]]
            if not event.complete:
                lists["open"].append(at)
            first = spread[0] if spread else (0, 0)
            call = calls.setdefault(_call(event, colors), len(calls))
            for name, value in zip(
                ("call", "start", "length", "from", "wait"), (call, start - before, stop - start, *first)
            ):
                lists[name].append(value)
            before = start
    head = {"title": title_of(trace), "notes": notes_of(trace), "geometry": asdict(geometry)}
    times = {"begin_s": begin, "tick_s": tick_s, "ticks": _ticks(end, begin, tick_s)}
    return head | times | {"calls": [list(call) for call in calls]} | lists


def _ticks(seconds: float, begin: float, tick_s: float) -> int:
    return round((seconds - begin) / tick_s)


def _call(event: Event, colors: dict[str, int]) -> tuple:
    """What events share; the page names the fields (FIELDS in timeline_lanes.js)."""
    peers = " ".join(map(str, event.peers))
    arrow = "→" if event.is_send else "←"
    is_message = event.kind == "message"
    return (
        _KINDS.index(event.kind),
        event.operation,
        f"{arrow} rank {peers}" if is_message and peers else "",
        "" if event.is_span else event.group,
        event.ranks,
        event.nbytes,
        event.shape,
        event.detail,
        int(event.async_op),
        event.line,
        event.source,
        ", ".join(f"{key} {value}" for key, value in event.labels),
        colors.get(event.operation, 0) if event.is_span else 0,
    )
