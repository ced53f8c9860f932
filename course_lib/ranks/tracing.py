"""In the caller: a run's record as the Trace that everybody else uses."""

from functools import cache

from course_lib.ranks.ledger_reader import Entry, Kept, Site
from course_lib.ranks.text import operation_of, source, tensors_of, where
from course_lib.trace import Event, Trace


def trace_of(record: Kept, begin: float, end: float, emulated: str = "") -> Trace:
    """Everything that the record holds, on a clock that is 0 at `begin`. What never completed ends at `end`."""
    place = cache(_place)
    events = sorted(
        (_event(entry, begin, end, place) for entry in record.entries),
        key=lambda event: (event.start_s, event.rank, event.number),
    )
    if any(label == "emulated_s" for event in events for label, _ in event.labels):
        emulated = "; ".join(filter(None, (emulated, "emulated compute")))
    return Trace(record.world_size, end - begin, tuple(events), emulated, record.dropped)


def _event(entry: Entry, begin: float, end: float, place) -> Event:
    call = entry.call
    if call["operation"] == "span":
        return Event(
            rank=entry.rank,
            kind="span",
            operation=call["name"],
            start_s=entry.begun - begin,
            end_s=(entry.ended or end) - begin,
            complete=entry.ended > 0,
            labels=tuple(call["labels"].items()),
            number=entry.number,
        )
    is_message = call["operation"] in ("send", "recv")
    line, text = place(entry.site)
    peer = call["peer"] if entry.source is None or not is_message else call["ranks"][entry.source]
    done = entry.early_end or entry.ended or end
    sent = (call["nbytes"] if call["operation"] == "send" else 0) if is_message else None
    return Event(
        rank=entry.rank,
        kind="message" if is_message else "collective",
        operation=_name(entry) if is_message else operation_of(entry),
        start_s=entry.begun - begin,
        end_s=done - begin,
        waits=((entry.wait_from - begin, entry.wait_to - begin),) if entry.wait_to else (),
        group=_group(call["group"]),
        ranks=tuple(call["ranks"]),
        peers=tuple(rank for rank in (peer, call["root"]) if rank is not None),
        nbytes=call["nbytes"],
        sent_bytes=sent,
        shape=tensors_of(entry),
        detail=_detail(call),
        async_op=call["asynchronous"],
        complete=entry.ended > 0 and not entry.failed,
        line=line,
        source=text,
        number=entry.number,
    )


def _name(entry: Entry) -> str:
    """send or isend, recv or irecv; what batch_isend_irecv issues counts as the latter."""
    operation = entry.call["operation"]
    return operation if operation_of(entry) in ("send", "recv") else f"i{operation}"


def _group(name: str) -> str:
    return "world" if name == "0" else name if name.startswith("new group") else f"group {name}"


def _detail(call: dict) -> str:
    root = f"root {call['root']}" if call["root"] is not None else ""
    tag = f"tag {call['tag']}" if call["tag"] else ""
    return ", ".join(filter(None, [call["reduce"], root, tag]))


def _place(site: Site) -> tuple[str, str]:
    return (where(site.stack[-1]), source(site.stack[-1])) if site.stack else ("", "")
