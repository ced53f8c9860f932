"""The timeline: what lies in its lanes, at which place, in which colour, and what is said of it."""

import subprocess
import sys
import time
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from course_lib.layout import Layout
from course_lib.trace import Event, Trace
from course_lib.viz import timeline
from course_lib.viz.pictures.timeline import LEFT, RIGHT
from course_lib.viz.pictures.timeline_lanes import Lanes
from course_lib.viz.show import show
from tests.traces import data_parallel, ring, trace_of

SPANS = ("forward", "backward", "input", "weight", "span")
FLIGHTS = ("world", "tp", "dp", "pp", "cp", "ep")


def marks(picture):
    return picture.scene.panels[0].marks


def boxes(picture, *kinds):
    return [mark for mark in marks(picture) if mark.focus and mark.kind in kinds]


def texts(picture):
    return [mark.text for mark in marks(picture) if mark.shape == "text"]


def reduces(*times, ranks=(0,)):
    """An all-reduce in flight from start to stop, for each pair of times."""
    more = {"ranks": ranks, "nbytes": 8, "async_op": True}
    return [Event(0, "collective", "all_reduce", a, b, number=k, **more) for k, (a, b) in enumerate(times)]


def message(sender, receiver, sent, arrived, posted=None, awaited=None):
    """A send and its recv, which may be posted before and awaited after the message is under way."""
    more = {"ranks": (0, 1, 2, 3), "nbytes": 8}
    send = Event(sender, "message", "isend", sent, awaited or arrived, peers=(receiver,), **more)
    start = sent if posted is None else posted
    return [send, Event(receiver, "message", "irecv", start, arrived, peers=(sender,), **more)]


def spans(*names):
    return [Event(0, "span", name, k, k + 1, number=k) for k, name in enumerate(names)]


BOTH = [replace(e, waits=((e.start_s, e.end_s),)) for e in reduces((0, 5), (3, 8))]  # waits that overlap
THREE = [data_parallel(3), ring(5, rounds=2), trace_of(1, BOTH, 8.0)]


@pytest.mark.parametrize("trace", THREE, ids=["step", "ring", "both"])
def test_work_and_waiting_are_those_of_the_trace(trace):
    lanes, zero = Lanes({"": trace}), trace.active_s[0]
    for rank in range(trace.world_size):
        mine = [item for item in lanes.items if item.lane == rank and item.sort == "thread"]
        waits = [(zero + item.start, zero + item.stop) for item in mine if item.kind == "wait"]
        want = [(a, b) for a, b, what, _ in trace.segments(rank) if what == "wait"]
        assert waits == [pytest.approx(pair) for pair in want]
        worked = sum(item.stop - item.start for item in mine if item.kind == "compute")
        assert worked == pytest.approx(trace.overlap(rank).compute_s)
        assert [item.stop for item in mine[:-1]] == pytest.approx([item.start for item in mine[1:]])


def test_five_messages_are_five_bars_that_can_be_counted():
    found = boxes(timeline(trace_of(1, reduces((0, 5), (1, 6), (2, 7), (3, 8), (4, 9)), 9.0)), "world")
    assert len(found) == 5 and len({bar.y for bar in found}) == 5
    in_turn = boxes(timeline(trace_of(1, reduces((0, 1), (1, 2), (2, 3)), 3.0)), "world")
    assert len({bar.y for bar in in_turn}) == 1
    assert all(a.x + a.w < b.x for a, b in zip(in_turn, in_turn[1:]))


def test_where_more_overlap_than_there_are_rows_the_last_is_their_union_and_says_how_many():
    picture = timeline(trace_of(1, reduces(*((k, 10 + k) for k in range(9))), 20.0))
    found = boxes(picture, "world")
    assert len(found) == 5 and "5 operations" in texts(picture)
    assert found[-1].tip.startswith("rank 0 · 5 in flight: 5 all_reduce · 40 bytes · 4.0 s + 14.0 s")
    assert "8 more in flight" in found[0].tip


def test_a_message_is_in_flight_from_its_send_to_its_arrival():
    picture = timeline(trace_of(4, message(0, 1, 0.4, 0.5, posted=0.1, awaited=0.9), 1.0))
    send, recv = boxes(picture, "world")
    assert (send.x, send.w) == (recv.x, recv.w) and send.w == pytest.approx(690 / 8 / 1.02, abs=1)
    assert "isend → rank 1 · " in send.tip and "300 ms + 500 ms" in send.tip
    assert "in flight 300 ms + 100 ms" in send.tip and "irecv ← rank 0" in recv.tip


def test_arrows_lead_from_send_to_recv_where_they_are_few():
    events = message(0, 1, 0.0, 0.5) + message(3, 2, 0.5, 1.0)

    def arrows(trace):
        return [mark for mark in marks(timeline(trace)) if mark.kind == "faint"]

    down, up = (float(mark.text.split("M")[1].split(" ")[-1]) for mark in arrows(trace_of(4, events, 1.0)))
    assert down > 0 > up
    assert {"isend → rank 1", "irecv ← rank 3"} <= set(texts(timeline(trace_of(4, events, 1.0))))
    assert len(arrows(ring(4))) == 24 and not arrows(ring(12))
    assert not arrows(trace_of(4, [replace(event, complete=event.is_send) for event in events], 1.0))


def test_what_belongs_together_lights_up_together():
    picture = timeline(data_parallel(3, steps=1))
    bar = boxes(picture, "world")[-1]
    same = [other for other in boxes(picture, "world") if other.of[0] == bar.of[0]]
    assert [other.tip[:6] for other in same] == ["rank 0", "rank 1", "rank 2"]
    assert sum(wait.lights[0] == bar.of[0] for wait in boxes(picture, "wait")) == 3
    missing = replace(data_parallel(2, 1), events=data_parallel(2, 1).events[:-1])  # a call of one rank
    assert any(len(bar.of) == 1 for bar in boxes(timeline(missing), "world")), "who belongs to whom is not known"


def test_spans_have_the_colour_of_what_they_do_or_none():
    picture = timeline(trace_of(1, spans("Forward", "b", "I", "W", "load", "backward pass"), 6.0))
    found = [box.kind for box in boxes(picture, *SPANS)]
    assert found == ["forward", "backward", "input", "weight", "span", "span"]


def test_spans_nest_and_are_named_as_far_as_there_is_room():
    labels = (("stage", 1), ("microbatch", 3), ("emulated_s", 0.05))
    times = ((0, 5), (5, 5.4), (5.5, 5.75), (5.8, 5.81))
    events = [Event(0, "span", "step", 0, 10, labels=(("step", 2),))]
    events += [Event(0, "span", "F", a, b, labels=labels) for a, b in times]
    picture = timeline(trace_of(1, events, 10.0))
    named = [text for text in texts(picture) if "F" in text or "step" in text]
    assert named == ["step 2", "F, stage 1, microbatch 3", "1F3", "F", "F: forward"]
    outer, inner = boxes(picture, *SPANS)[:2]
    assert inner.y > outer.y and "stage 1, microbatch 3, emulated_s 0.05" in inner.tip


def test_a_flight_has_the_colour_of_its_axis_or_of_the_shape_of_its_group():
    groups = [(0, 1), (0, 2), (0, 1, 2, 3)]
    events = [Event(0, "collective", "all_reduce", k, k + 1, ranks=ranks) for k, ranks in enumerate(groups)]
    trace = trace_of(4, events + message(0, 2, 3, 4) + message(0, 3, 4, 5), 5.0)
    picture = timeline(trace, Layout(dp=2, tp=2, order=("tp", "dp")))
    assert [box.kind for box in boxes(picture, *FLIGHTS)][:5] == ["dp", "tp", "world", "tp", "world"]
    assert "in flight along tp" in texts(picture)
    picture = timeline(trace)
    assert [box.kind for box in boxes(picture, *FLIGHTS)][:5] == ["tp", "dp", "world", "world", "world"]
    assert {"in flight, 2 ranks 1 apart", "in flight, 2 ranks 2 apart"} <= set(texts(picture))
    with pytest.raises(ValueError, match="tp 2 has 2 ranks, this trace 4"):
        timeline(trace, Layout(tp=2))


def test_the_legend_has_only_what_is_there_and_not_named_in_place():
    assert texts(timeline(data_parallel(2)))[-3:] == ["the thread works", "the thread waits", "in flight"]
    assert texts(timeline(trace_of(1, spans("F", "load"), 2.0)))[-2:] == ["the thread works", "F: forward"]


def test_pointing_tells_all_about_an_event():
    bar = boxes(timeline(data_parallel(4)), "world")[0]
    call = "rank 0 · all_reduce (asynchronous) · world (ranks 0–3) · 100,000 bytes · 25,000 × float32 · sum · 6."
    assert bar.tip.startswith(call) and " · no wait · " in bar.tip
    assert bar.tip.endswith(" · In[3], line 10: work.append(dist.all_reduce(bucket[0], async_op=True))")
    more = {"ranks": (0, 1), "peers": (1,), "complete": False, "waits": ((0.2, 1.0),)}
    picture = timeline(trace_of(2, [Event(0, "message", "recv", 0.2, 1.0, **more)], 1.0))
    (recv,), (wait,) = boxes(picture, "world"), boxes(picture, "wait")
    assert "recv ← rank 1" in recv.tip and "never complete · its thread waited 800 ms" in recv.tip
    assert wait.tip.startswith("rank 0 · its thread waits 0 + 800 ms for · recv ← rank 1")
    (work,) = boxes(timeline(trace_of(1, spans("load"), 1.0)), "compute")
    assert work.tip == "rank 0 · compute or other Python · 0 + 1.00 s"


def test_emulation_missing_events_and_ranks_are_told_and_all_in_words():
    odd = trace_of(2, ring(2).events, 1.0, emulated="emulated links: 10 Gb/s", dropped=7)
    first, second = timeline(odd).scene.notes
    assert first == "emulated links: 10 Gb/s" and "7 later events are missing" in second
    assert timeline({"a": odd, "b": ring(2)}).scene.notes == (f"a: {first}", f"a: {second}")
    assert timeline(data_parallel(150, 1, 1)).scene.notes == ("Ranks 0 to 127 of 150 are drawn.",)
    said, overlap = str(timeline(odd)), odd.overlap(1)
    assert said.startswith(repr(odd))
    assert said.endswith(f"\nrank 1: worked {overlap.compute_s:.4f} s, waited {overlap.exposed_s:.4f} s")


def test_time_counts_from_the_first_event():
    picture = timeline(data_parallel(2, begin_s=3.6))
    assert texts(picture)[:2] == ["0", "10 ms"] and min(box.x for box in boxes(picture, *SPANS)) == LEFT
    assert texts(timeline(trace_of(1, reduces((7, 10)), 10.0)))[1] == "0.5 s"
    assert texts(timeline(trace_of(1, reduces((7, 7.0001)), 10.0)))[1] == "20 µs"


def test_runs_that_are_compared_have_one_scale_and_begin_at_its_zero():
    long, short = trace_of(2, reduces((3, 7)), 9), trace_of(2, reduces((1, 2)), 9)
    picture = timeline({"long": long, "short": short})
    a, b = boxes(picture, "world")
    assert a.x == b.x == LEFT and a.w + 0.6 == pytest.approx(4 * (b.w + 0.6))
    assert {"long: 4.00 s", "short: 1.00 s"} <= set(texts(picture)) and b.tip.startswith("short, rank 0")
    assert [text for text in texts(picture) if text.startswith("rank")] == ["rank 0", "rank 1"] * 2


def test_a_view_shows_its_part_and_cuts_what_juts_out():
    picture = timeline(trace_of(1, spans("load", "work", "save"), 3.0)).choose(view=(0.5, 1.5))
    load, work = boxes(picture, "span")
    assert picture.scene.zoom == (LEFT, 760 - RIGHT) and load.x == LEFT
    assert load.x + load.w < work.x == pytest.approx((LEFT + 746) / 2) and work.x + work.w <= 746
    for width in (320, 1100):
        picture.width = width
        assert picture.scene.panels[0].w == width
        assert max(m.x + m.w for m in marks(picture) if m.focus) == pytest.approx(width - RIGHT, abs=1)


def test_no_sum_that_the_page_makes_leads_beyond_the_end():
    for k in range(1, 400):
        high = timeline(trace_of(1, reduces((0, 1 + k / 7)), 9.0))._controls[0]["high"]
        wide = high * k / 401
        assert (high - wide) + wide <= high


def test_of_many_each_lane_shows_shares_and_tells_its_totals():
    trace = data_parallel(8, steps=40)
    picture = timeline(trace)
    tips = [mark.tip for mark in marks(picture) if mark.focus]
    overlap, sent = trace.overlap(3), sum(event.ring_bytes for event in trace.of(rank=3).events)
    assert len(tips) == 8 and tips[3].startswith("rank 3, in view · worked ")
    assert f"worked {1e3 * overlap.compute_s:.0f} ms · waited {1e3 * overlap.exposed_s:.0f} ms" in tips[3]
    assert tips[3].endswith(f"sent {sent / 1e6:.1f} MB · Zoom in to see single events.")
    paths = [mark.kind for mark in marks(picture) if mark.shape == "path"]
    assert sorted(paths) == ["backward", "forward", "span", "wait", "world"]
    end = picture.choices["view"][1]
    assert len(boxes(picture.choose(view=(0.5 * end, 0.52 * end)), "world", "wait")) > 20


@pytest.mark.parametrize(("ranks", "steps"), [(4, 3), (8, 100), (64, 3), (64, 60), (128, 4)])
def test_it_stays_small_and_quick_however_many_events_there_are(ranks, steps):
    picture = timeline(data_parallel(ranks, steps, buckets=8))
    assert len(picture.html()) < 40_000
    end = picture.choices["view"][1]
    for view in ((0.0, end), (0.4 * end, 0.6 * end), (0.5 * end, 0.505 * end)):
        took = []
        for _ in range(4):
            begin = time.process_time()
            assert len(marks(picture.choose(view=view))) < 2500
            took.append(time.process_time() - begin)
        assert min(took) < 0.2


def test_an_ordinary_run_makes_a_light_page_which_shows_all_of_it():
    picture = timeline(data_parallel(4, steps=6))  # some 200 events
    whole = picture.html()
    assert len(whole) < 30_000 and picture.choose(view=(0.01, 0.02)).html() == whole


def test_it_is_the_same_in_another_process():
    two = "timeline({'a': data_parallel(3), 'b': ring(5)}).html()"
    program = f"from course_lib.viz import timeline; from tests.traces import *; print({two})"
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert there == eval(two) + "\n"


NOW = Event(0, "span", "<now & here>", 0.5, 0.5)
ODD = [Trace(3, 0.5), Trace(1, 0.0), trace_of(1, [NOW], 1.0), data_parallel(150, 1, 1), data_parallel(20).of(rank=3)]


@pytest.mark.parametrize("trace", ODD)
def test_any_trace_is_drawn_and_shows_itself(trace):
    picture = timeline(trace)
    assert ElementTree.fromstring(picture.svg()) is not None and show(trace).html() == picture.html()
    assert sum(text.startswith("rank ") for text in texts(picture)) == min(trace.world_size, 128)


def test_anything_else_is_refused_with_a_hint():
    class Run:
        trace = Trace(1, 1.0)

    for what, words in ((Run(), "not a Run: pass run.trace"), ({"a": []}, r"not a list\.$")):
        with pytest.raises(TypeError, match=words):
            timeline(what)
    with pytest.raises(ValueError, match="no trace to draw"):
        timeline({})
