"""Trace: what it counts, how it cuts a rank's time, and the file for Perfetto."""

import json
import os
from collections import Counter, defaultdict

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st

from course_lib import launch, span
from course_lib.trace import Event, Trace
from tests.traces import data_parallel, ring, trace_of


def collective(rank, start, end, waits=(), **more):
    return Event(rank, "collective", "all_reduce", start, end, waits=waits, ranks=(0, 1), nbytes=8, **more)


# --- what is counted


@pytest.mark.parametrize("n", [2, 3, 4, 8])
def test_a_ring_sends_the_same_from_every_rank(n):
    trace = ring(n, nbytes=500)
    for rank in range(n):
        assert trace.messages(rank) == 2 * (n - 1)
        assert trace.sent_bytes(rank) == trace.totals("rank")[rank].sent_bytes == 2 * (n - 1) * 500
    traffic = trace.traffic()
    for sender in range(n):
        for receiver in range(n):
            is_next = receiver == (sender + 1) % n
            assert traffic.messages[sender][receiver] == is_next * 2 * (n - 1)
            assert traffic.nbytes[sender][receiver] == is_next * 2 * (n - 1) * 500
    assert traffic.unplaced_bytes == 0 and "own collectives" not in repr(traffic)


@pytest.mark.parametrize(
    ("kind", "operation", "factor"),
    [
        ("collective", "all_reduce", 2 * 3 / 4),
        ("collective", "all_gather_into_tensor", 3),  # of its own part, to three others
        ("collective", "reduce_scatter_tensor", 3 / 4),
        ("collective", "all_to_all_single", 3 / 4),
        ("collective", "broadcast", 3 / 4),  # only the root hands in: the mean over the ranks
        ("span", "steps", 0),
    ],
)
def test_ring_bytes_are_what_a_ring_would_send_of_the_backends_own_collective(kind, operation, factor):
    event = Event(0, kind, operation, 0.0, 1.0, ranks=(0, 1, 2, 3), nbytes=1000)
    assert event.ring_bytes == factor * 1000


def test_ring_bytes_of_what_was_counted_are_the_counted_ones():
    assert [event.ring_bytes for event in ring(2, nbytes=500).events] == [0, 500] * 4


def test_bytes_inside_the_backend_are_called_logical_and_have_no_path():
    trace = data_parallel(2, steps=1, buckets=2)
    assert trace.sent_bytes(0) == trace.messages(0) == 0
    row = trace.totals("rank")[0]
    assert (row.count, row.nbytes, row.sent_bytes, row.logical_bytes) == (3, 200_004, 0, 200_004)
    assert "200,004 logical" in repr(trace.totals("rank"))
    assert trace.traffic().unplaced_bytes == 400_008
    assert "400,008 bytes of gloo's own collectives have no known path" in repr(trace.traffic())
    mixed = trace_of(2, [*trace.events, *ring(2, nbytes=12).events], 1.0)
    assert "24 + 200,004 logical" in repr(mixed.totals("rank"))


def test_totals_add_up_to_the_whole_however_they_are_grouped():
    trace = trace_of(4, [*data_parallel(4).events, *ring(4).events], 1.0)
    for by in ("rank", "group", "operation"):
        rows = trace.totals(by).rows
        assert sum(row.count for row in rows) == 60 + 48
        assert sum(row.nbytes for row in rows) == sum(e.nbytes for e in trace.events)
    assert set(trace.totals("operation")) == {"all_reduce", "isend", "irecv"}
    spans = trace.totals("span")
    assert {name: spans[name].count for name in spans} == dict.fromkeys(
        ("step", "forward", "backward", "optimizer"), 12
    )
    assert "bytes" not in repr(spans)


def test_a_rank_that_did_nothing_has_a_row_of_zeros():
    totals = Trace(3, 1.0, (collective(0, 0.1, 0.2),)).totals("rank")
    assert [totals[rank].count for rank in totals] == [1, 0, 0]
    with pytest.raises(KeyError, match="no rank 7 in these totals; they have 0, 1, 2"):
        totals[7]


def test_time_that_operations_share_counts_once():
    trace = trace_of(2, [collective(0, 0.0, 0.3), collective(0, 0.1, 0.4), collective(1, 0.0, 0.3)], 1.0)
    assert trace.totals("operation")["all_reduce"].in_flight_s == pytest.approx(0.4 + 0.3)


def test_a_table_is_aligned_and_marks_itself_up():
    totals = ring(4).totals("operation")
    lines = repr(totals).splitlines()
    assert len({len(line) for line in lines}) == 1 and lines[0].endswith("waited s")
    assert totals._repr_html_().count("<tr>") == 3
    odd = Trace(1, 1.0, (Event(0, "span", "<b>&", 0.0, 1.0),)).totals("span")
    assert "&lt;b&gt;&amp;" in odd._repr_html_()


def test_emulation_and_missing_events_are_said_everywhere():
    trace = trace_of(2, ring(2).events, 1.0, emulated="emulated links: 10 Gb/s, 1 ms", dropped=1234)
    for said in (repr(trace), repr(trace.totals("rank")), trace.totals()._repr_html_(), repr(trace.traffic())):
        assert "emulated links: 10 Gb/s, 1 ms" in said and "1,234 later events are missing" in said


def test_a_trace_fits_on_one_screen():
    events = [Event(0, "collective", f"operation_{i}", i, i + 1) for i in range(50)]
    text = repr(Trace(1, 51.0, tuple(events)))
    assert text.startswith("Trace of 1 rank, 51.000 s: 50 operations") and "… and 38 more" in text
    assert len(text.splitlines()) < 25
    assert "0 operations" in repr(Trace(2, 0.5))


# --- filters


def test_of_keeps_what_fits_all_that_is_given():
    trace = trace_of(4, [*data_parallel(4).events, *ring(4).events], 1.0)
    assert {e.rank for e in trace.of(rank=2).events} == {2}
    sends = trace.of(rank=1, operation="isend", kind="message", group="world").events
    assert len(sends) == 6 and all(e.is_send and e.rank == 1 for e in sends)
    assert trace.of(group="group 1").events == ()


def test_during_keeps_the_spans_of_a_name_and_what_starts_in_them_on_the_same_rank():
    def fn():
        for step in range(3):
            dist.barrier()
            with span("step" if dist.get_rank() == 0 else "other"):
                dist.all_reduce(torch.ones(step + 1))
        dist.barrier()

    trace = launch(fn, 2).trace
    steps = trace.during("step")
    assert {e.rank for e in steps.events} == {0}
    assert [e.shape for e in steps.events if not e.is_span] == [f"float32[{n}]" for n in (1, 2, 3)]
    assert sum(e.is_span for e in steps.events) == 3
    (last,) = (e for e in trace.during("step", last=1).events if not e.is_span)
    assert last.shape == "float32[3]"
    with pytest.raises(ValueError, match=r"no span is called 'train'; there are \['other', 'step'\]"):
        trace.during("train")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda trace: trace.of(rank=4), "no rank 4: this run had ranks 0 to 3"),
        (lambda trace: trace.segments(-1), "no rank -1"),
        (lambda trace: trace.messages(9), "no rank 9"),
        (lambda trace: trace.of(kind="spans"), "'spans': an event is a collective, a message or a span"),
        (lambda trace: trace.totals("kind"), "by is 'kind': totals are by rank, group, operation or span"),
    ],
)
def test_a_wrong_argument_is_refused_in_a_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call(ring(4))


# --- a rank's time


def test_a_late_wait_is_told_from_time_in_flight():
    events = [
        collective(0, 1.0, 5.0, ((4.0, 5.0),), async_op=True),  # worked from 1 to 4 while it was in flight
        collective(0, 2.0, 3.0, ((6.0, 6.5),), async_op=True),  # over long before its wait() was called
        collective(1, 0.0, 8.0, ((0.0, 8.0),)),
    ]
    trace = trace_of(2, events, 9.0)
    assert [segment[:3] for segment in trace.segments(0)] == [
        (0.0, 1.0, "compute"),
        (1.0, 4.0, "communication"),
        (4.0, 5.0, "wait"),
        (5.0, 6.0, "compute"),
        (6.0, 6.5, "wait"),
        (6.5, 8.0, "compute"),
    ]
    overlap = trace.overlap(0)
    assert (overlap.compute_s, overlap.in_flight_s) == (6.5, 4.0)
    assert (overlap.exposed_s, overlap.overlapped_s, overlap.hidden) == (1.5, 3.0, 0.75)
    assert trace.overlap(1).exposed_s == 8.0 and trace.overlap(1).compute_s == 0.0


def test_starting_processes_is_not_counted_as_compute():
    trace = trace_of(2, [collective(0, 0.30, 0.5), collective(1, 0.35, 0.5, ((0.35, 0.5),))], 0.7)
    assert trace.active_s == (0.30, 0.5)
    assert trace.segments(1)[0][:3] == (0.30, 0.35, "compute")
    assert Trace(2, 0.7).segments(0) == [(0.0, 0.7, "compute", None)]


times = st.integers(0, 60)


@st.composite
def anything(draw):
    events = []
    for number in range(draw(st.integers(0, 12))):
        start, length = draw(times), draw(st.integers(0, 20))
        waits = [(start + a, start + a + b) for a, b in draw(st.lists(st.tuples(times, times), max_size=2))]
        events.append(collective(draw(st.integers(0, 1)), start, start + length, tuple(waits), number=number))
    return trace_of(2, events, 200)


@given(anything())
def test_segments_cover_the_time_once_and_agree_with_the_events(trace):
    begin, finish = trace.active_s
    for rank in (0, 1):
        lane = trace.segments(rank)
        assert [a[1] for a in lane[:-1]] == [b[0] for b in lane[1:]]
        assert not lane or (lane[0][0], lane[-1][1]) == (begin, finish)
        assert all(start < stop for start, stop, *_ in lane)
        events = [e for e in trace.events if e.rank == rank]
        for tick in range(int(begin), int(finish)):
            middle = tick + 0.5
            what, event = next((s[2], s[3]) for s in lane if s[0] <= middle < s[1])
            waiting = [e for e in events if any(a <= middle < b for a, b in e.waits)]
            flying = [e for e in events if e.start_s <= middle < e.end_s]
            assert what == ("wait" if waiting else "communication" if flying else "compute")
            assert event in (waiting or flying or [None])
        overlap = trace.overlap(rank)
        assert overlap.compute_s + overlap.exposed_s == pytest.approx(finish - begin)
        assert overlap.overlapped_s <= overlap.in_flight_s + 1e-9


# --- the file for Perfetto

REQUIRED = {
    "M": {"name", "pid", "tid", "args"},
    "X": {"name", "cat", "pid", "tid", "ts", "dur"},
    "s": {"name", "cat", "id", "pid", "tid", "ts"},
    "f": {"name", "cat", "id", "pid", "tid", "ts", "bp"},
}


def ns(us):
    return round(us * 1000)


def validated(path):
    """The file's events, after checking them against the trace-event format."""
    content = json.loads(path.read_text("utf-8"))
    events = content["traceEvents"]
    threads, last = defaultdict(list), 0
    named = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    for event in events:
        assert REQUIRED[event["ph"]] <= set(event)
        if event["ph"] == "M":
            continue
        assert isinstance(event["pid"], int) and (event["pid"], event["tid"]) in named
        assert event["ts"] >= last, "the events must be in order of time"
        last = event["ts"]
        if event["ph"] == "X":
            assert event["dur"] >= 0
            threads[event["pid"], event["tid"]].append((ns(event["ts"]), ns(event["ts"]) + ns(event["dur"])))
    for slices in threads.values():
        stack = []
        for start, stop in slices:
            while stack and stack[-1] <= start:
                stack.pop()
            assert not stack or stop <= stack[-1], "slices of a thread must nest"
            stack.append(stop)
    flows = defaultdict(list)
    for event in events:
        if event["ph"] in "sf":
            flows[event["id"]].append(event)
            at = ns(event["ts"])
            assert any(a <= at < b for a, b in threads[event["pid"], event["tid"]]), "an arrow hangs in the air"
    for pair in flows.values():
        assert [e["ph"] for e in sorted(pair, key=lambda e: e["ph"] == "f")] == ["s", "f"]
        start, end = sorted(pair, key=lambda e: e["ph"] == "f")
        assert start["ts"] <= end["ts"]
    return content, list(flows.values())


@pytest.mark.parametrize("n", [2, 4, 7])
def test_the_perfetto_file_of_messages_is_valid_and_its_arrows_go_to_the_next_rank(tmp_path, n):
    trace = ring(n, rounds=3)
    content, flows = validated(trace.to_chrome(tmp_path / "ring.json"))
    assert len(flows) == sum(e.is_send for e in trace.events) == 6 * n * (n - 1)
    for flow in flows:
        ends = {event["ph"]: event["pid"] for event in flow}
        assert ends["f"] == (ends["s"] + 1) % n


def test_the_perfetto_file_of_a_training_step_is_valid(tmp_path):
    trace = data_parallel(3, steps=2)
    content, _ = validated(trace.to_chrome(tmp_path / "step.json"))
    slices = [e for e in content["traceEvents"] if e["ph"] == "X"]
    kinds = Counter(e["cat"] for e in slices)
    assert kinds["span"] == 24 and kinds["collective"] == 30 and kinds["wait"] >= 6
    names = {e["args"].get("name") for e in content["traceEvents"] if e["ph"] == "M"}
    assert {"rank 0", "rank 2", "main", "communication", "communication 2"} <= names
    first = next(e for e in slices if e["cat"] == "collective")
    assert first["args"]["line"] == "In[3], line 10" and first["args"]["sent_bytes"] == "not known"
    begin = min(e.start_s for e in trace.events)
    assert min(e["ts"] for e in slices) == pytest.approx(begin * 1e6)  # microseconds


@given(anything())
def test_the_perfetto_file_of_anything_is_valid(tmp_path_factory, trace):
    validated(trace.to_chrome(tmp_path_factory.mktemp("trace") / "any.json"))


def test_messages_are_matched_by_tag(tmp_path):
    def message(rank, operation, start, peer, tag):
        return Event(rank, "message", operation, start, start + 1, peers=(peer,), detail=tag)

    sends = [message(0, "send", 0, 1, "tag 5"), message(0, "send", 1, 1, "tag 6")]
    receives = [message(1, "recv", 2, 0, "tag 6"), message(1, "recv", 3, 0, "tag 5")]
    _, flows = validated(trace_of(2, sends + receives, 5.0).to_chrome(tmp_path / "tags.json"))
    spans = sorted(tuple(round(e["ts"] / 1e6) for e in sorted(f, key=lambda e: e["ts"])) for f in flows)
    assert spans == [(0, 4), (1, 3)]


def test_the_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "trace.json"
    path.write_text("before")

    def fails(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="full"):
        ring(2).to_chrome(path)
    assert path.read_text() == "before" and os.listdir(tmp_path) == ["trace.json"]


def test_a_place_that_is_not_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder .*missing: make it first"):
        ring(2).to_chrome(tmp_path / "missing" / "trace.json")
    with pytest.raises(IsADirectoryError, match="is a folder: name a file in it"):
        ring(2).to_chrome(tmp_path)
