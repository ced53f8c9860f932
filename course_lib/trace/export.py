"""A trace as a Chrome trace-event file, which Perfetto (ui.perfetto.dev) and chrome://tracing open.

Source: "Trace Event Format", the Chromium project's description of the file.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from course_lib.trace import Event, Trace

MAIN, COMMUNICATION = 0, 1  # thread ids; operations that overlap get further threads after COMMUNICATION
_SHORTEST_NS = 2  # an arrow has to end inside its operation
Placed = tuple["Event", int, int, int]  # thread, start_ns, stop_ns


def write_chrome(trace: "Trace", path: Path) -> Path:
    """Write the file as a whole or not at all. See Trace.to_chrome."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file in it, such as {path / 'trace.json'}.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent}: make it first, or name another.")
    content = json.dumps(chrome_events(trace), ensure_ascii=False, separators=(",", ":"))
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(draft, 0o666 & ~mask)  # mkstemp's file is for its owner alone
        os.replace(draft, path)
    except BaseException:
        os.unlink(draft)
        raise
    return path


def chrome_events(trace: "Trace") -> dict[str, Any]:
    """The file's content: a complete event ("X") a span, wait and operation, and flows ("s", "f") for messages."""
    names, slices = [], []
    placed: list[Placed] = []
    for rank, events in enumerate(trace.by_rank):
        slices += _nested(rank, events)
        threads = 0
        for event, thread, start, stop in _side_by_side([event for event in events if not event.is_span]):
            threads = max(threads, thread)
            placed.append((event, thread, start, stop))
            name = event.operation if event.complete else f"{event.operation} (never complete)"
            slices.append(_slice(rank, thread, name, event.kind, start, stop, _arguments(event)))
        names += _names(rank, threads)
    timed = sorted(slices + _flows(placed), key=lambda e: (e["ts"], -e.get("dur", 0)))
    other = {"world_size": trace.world_size, "emulated": trace.emulated, "dropped": trace.dropped}
    return {"traceEvents": names + timed, "displayTimeUnit": "ms", "otherData": other}


def _names(rank: int, last_thread: int) -> list[dict]:
    def named(what: str, thread: int, **args: Any) -> dict:
        return {"ph": "M", "name": what, "pid": rank, "tid": thread, "args": args}

    threads = [(MAIN, "main"), (COMMUNICATION, "communication")]
    threads += [(thread, f"communication {thread}") for thread in range(2, last_thread + 1)]
    rows = [named("process_name", MAIN, name=f"rank {rank}"), named("process_sort_index", MAIN, sort_index=rank)]
    for thread, name in threads:
        rows += [named("thread_name", thread, name=name), named("thread_sort_index", thread, sort_index=thread)]
    return rows


def _slice(rank: int, thread: int, name: str, kind: str, start: int, stop: int, args: dict) -> dict:
    times = {"ts": start / 1000, "dur": (stop - start) / 1000}
    return {"ph": "X", "pid": rank, "tid": thread, "name": name, "cat": kind, **times, "args": args}


def _nested(rank: int, events: list["Event"]) -> list[dict]:
    """The main thread: spans and waits. Each lies inside or outside of every other one; what juts out is cut off."""
    found = []
    for event in events:
        if event.is_span:
            labels = {key: value if isinstance(value, (int, float)) else str(value) for key, value in event.labels}
            found.append((_ns(event.start_s), _ns(event.end_s), event.operation, "span", labels))
        for start, stop in event.waits:
            found.append((_ns(start), _ns(stop), f"wait: {event.operation}", "wait", _arguments(event)))
    found.sort(key=lambda part: (part[0], -part[1]))
    open_until: list[int] = []
    slices = []
    for start, stop, *rest in found:
        while open_until and open_until[-1] <= start:
            open_until.pop()
        stop = min([stop, *open_until[-1:]])
        open_until.append(stop)
        slices.append(_slice(rank, MAIN, rest[0], rest[1], start, stop, rest[2]))
    return slices


def _side_by_side(events: list["Event"]) -> list[Placed]:
    """Operations with the first thread that is free: (event, thread, start, stop)."""
    free_at: list[int] = []
    rows = []
    for event in events:
        start = _ns(event.start_s)
        stop = max(_ns(event.end_s), start + _SHORTEST_NS)
        lane = next((i for i, free in enumerate(free_at) if free <= start), len(free_at))
        free_at[lane : lane + 1] = [stop]
        rows.append((event, COMMUNICATION + lane, start, stop))
    return rows


def _flows(placed: list[Placed]) -> list[dict]:
    """An arrow from each send to its recv: messages of one sender, receiver, group and tag arrive in order."""
    queues: dict[tuple, tuple[list, list]] = {}
    for event, *place in placed:  # each rank's in order
        if event.kind == "message" and len(event.peers) == 1:
            ends = (event.rank, event.peers[0]) if event.is_send else (event.peers[0], event.rank)
            key = (*ends, event.group, _tag(event))
            queues.setdefault(key, ([], []))[not event.is_send].append((event, *place))
    flows = []
    for sends, receives in queues.values():
        for (send, thread, start, _), (receive, to_thread, _, stop) in zip(sends, receives):
            if not receive.complete or stop - 1 < start:
                continue
            common = {"name": "message", "cat": "message", "id": len(flows) // 2 + 1}
            flows.append({"ph": "s", "pid": send.rank, "tid": thread, "ts": start / 1000, **common})
            end = {"ph": "f", "bp": "e", "pid": receive.rank, "tid": to_thread, "ts": (stop - 1) / 1000}
            flows.append(end | common)
    return flows


def _tag(event: "Event") -> str:
    return next((part for part in event.detail.split(", ") if part.startswith("tag ")), "tag 0")


def _arguments(event: "Event") -> dict[str, Any]:
    args = {
        "group": event.group,
        "ranks": list(event.ranks),
        "peers": list(event.peers),
        "bytes": event.nbytes,
        "sent_bytes": "not known" if event.sent_bytes is None else event.sent_bytes,
        "shape": event.shape,
        "detail": event.detail,
        "line": event.line,
        "source": event.source,
    }
    return {key: value for key, value in args.items() if value not in ("", [])}


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
