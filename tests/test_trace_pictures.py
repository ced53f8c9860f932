"""The pictures of traces and of collectives: what they say, how heavy they are, and that they are the same in every run."""

import json
import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from course_lib.trace import Event, Trace
from course_lib.viz import animate, timeline, traffic
from course_lib.viz.collective_picture import label
from course_lib.viz.moves import ALGORITHMS
from tests.traces import data_parallel, ring, trace_of

SVG = "{http://www.w3.org/2000/svg}"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
EMPTY = Trace(3, 0.5)


def texts(svg):
    return [node.text or "" for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def odd_traces():
    instant = Event(0, "span", "<now & here>", 0.5, 0.5)
    never = Event(1, "message", "recv", 0.2, 1.0, ranks=(0, 1), complete=False, waits=((0.2, 1.0),))
    return [EMPTY, trace_of(1, [instant], 1.0), trace_of(2, [instant, never], 1.0), ring(150)]


# --- any of them


@pytest.mark.parametrize("make", [timeline, traffic])
def test_any_trace_gives_well_formed_svg_with_a_text_alternative(make):
    for trace in [*odd_traces(), ring(4), data_parallel(20)]:
        root = ElementTree.fromstring(make(trace).svg())
        assert root.get("role") == "img" and root.find(f"{SVG}title").text and root.find(f"{SVG}desc").text
        json.dumps(make(trace).data)


@pytest.mark.parametrize(
    "widget",
    [timeline(ring(4)), traffic(ring(4)), animate("all_reduce")],
    ids=["timeline", "traffic", "animate"],
)
def test_a_notebook_gets_a_widget_a_picture_that_stands_alone_and_a_text(widget):
    bundle, _ = widget._repr_mimebundle_()
    assert set(bundle) == {WIDGET_VIEW, "text/html", "text/plain"}
    assert bundle["text/html"].startswith('<img alt="') and "data:image/svg+xml," in bundle["text/html"]
    svg = widget.svg()
    assert "var(" not in svg and "http" not in svg.replace("http://www.w3.org/2000/svg", "")


def test_the_saved_pictures_are_the_same_in_every_run():
    program = (
        "from course_lib.viz import *; from tests.traces import *;"
        "print(timeline(data_parallel(3)).svg(), traffic(ring(5)).svg(), animate('all_reduce', 'doubling', 6).svg())"
    )
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    here = [timeline(data_parallel(3)), traffic(ring(5)), animate("all_reduce", "doubling", 6)]
    assert there == " ".join(widget.svg() for widget in here) + "\n"


def test_emulation_and_missing_events_are_written_into_the_pictures():
    trace = trace_of(2, ring(2).events, 1.0, emulated="emulated links: 10 Gb/s", dropped=7)
    for widget in (timeline(trace), traffic(trace)):
        assert any("emulated links: 10 Gb/s" in t for t in texts(widget.svg()))
        assert any("7 later events are missing" in t for t in texts(widget.svg()))
    assert "emulated links: 10 Gb/s" in timeline(trace).data["notes"]


# --- the timeline


def test_a_trace_shows_itself_as_its_timeline():
    trace = data_parallel(2)
    bundle, _ = trace._repr_mimebundle_()
    assert bundle["text/html"] == timeline(trace)._repr_mimebundle_()[0]["text/html"]
    assert bundle["text/plain"] == repr(trace)


def test_every_rank_has_a_lane_and_spans_and_waits_are_named():
    found = texts(timeline(data_parallel(4)).svg())
    assert [t for t in found if t.startswith("rank ")] == [f"rank {r}" for r in range(4)]
    assert {"forward", "backward", "step"} <= set(found)
    assert texts(timeline(ring(4)).svg()).count("irecv") == 24


def test_wait_communication_and_compute_differ_in_more_than_colour():
    root = ElementTree.fromstring(timeline(data_parallel(4)).svg())
    assert root.find(f".//{SVG}pattern").get("id") == "hatch"
    heights = {}
    for path in root.iter(f"{SVG}path"):
        found = re.match(r"M[\d. ]+h[\d.]+v([\d.]+)", path.get("d"))
        if found:
            heights[path.get("class").split()[0]] = float(found[1])
    assert heights["flight"] < 0.5 * heights["wait"] == 0.5 * heights["compute"]


@pytest.mark.parametrize(("ranks", "steps"), [(4, 3), (8, 100), (64, 3), (64, 60), (128, 4)])
def test_the_picture_stays_small_however_many_events_there_are(ranks, steps):
    widget = timeline(data_parallel(ranks, steps, buckets=8))
    assert len(widget._repr_mimebundle_()[0]["text/html"]) < 40_000


def test_an_ordinary_run_makes_a_light_page():
    widget = timeline(data_parallel(4, steps=6))
    assert 200 <= len(widget.trace.events) <= 220
    page = [
        widget._repr_mimebundle_()[0]["text/html"],
        json.dumps(widget.data),
        str(widget._esm),
        widget._css,
    ]
    assert sum(map(len, page)) < 60_000


def test_columns_name_each_call_once_and_say_when_it_was():
    trace = data_parallel(2, steps=2, buckets=2)
    data = timeline(trace).data
    assert len(data["calls"]) < len(trace.events) / 1.5
    at = 0
    for rank, count in enumerate(data["counts"]):
        start = 0
        for event in trace.of(rank=rank).events:
            start += data["start"][at]
            assert data["calls"][data["call"][at]][1] == event.operation
            assert data["begin_s"] + start * data["tick_s"] == pytest.approx(
                event.start_s, abs=2 * data["tick_s"]
            )
            length = data["length"][at] * data["tick_s"]
            assert length == pytest.approx(event.end_s - event.start_s, abs=2 * data["tick_s"])
            at += 1
        assert count == len(trace.of(rank=rank).events)


def test_what_is_no_trace_is_refused_with_a_hint():
    class Run:
        trace = EMPTY

    with pytest.raises(TypeError, match=r"draws a Trace, not a Run: pass run.trace"):
        timeline(Run())
    with pytest.raises(TypeError, match=r"not a list$|not a list\."):
        traffic([])


# --- the matrix


def test_the_matrix_has_a_number_for_every_pair_that_talked():
    found = texts(traffic(ring(4, nbytes=250_000)).svg())
    assert found.count("1.5 MB") == 4 and found.count("6 msg") == 4
    assert "24 messages, 6,000,000 bytes" in found


def test_what_has_no_known_path_is_said():
    found = " ".join(texts(traffic(data_parallel(2, steps=1)).svg()))
    assert "Messages only; 800,008 bytes of gloo's own collectives have no known path." in found
    assert "no known path" not in " ".join(texts(traffic(ring(2)).svg()))


def test_traffic_shows_itself_as_the_matrix():
    trace = ring(3)
    assert (
        trace.traffic()._repr_mimebundle_()[0]["text/html"]
        == traffic(trace)._repr_mimebundle_()[0]["text/html"]
    )


def test_a_large_matrix_stays_small():
    every = [
        Event(a, "message", "send", 0, 1, peers=(b,), nbytes=1 + (a * 37 + b * 91) % 997, sent_bytes=1)
        for a in range(64)
        for b in range(64)
    ]
    assert len(traffic(trace_of(64, every, 1.0)).svg()) < 60_000


# --- collectives


@pytest.mark.parametrize(
    ("ranks", "chunk", "n", "want"),
    [
        ({0}, 2, 4, "a2"),
        ({1, 0}, 3, 4, "a3+b3"),
        ({1, 2, 3}, 0, 4, "b0…d0"),
        ({3, 0, 1}, 1, 5, "a1+b1+d1"),
        ({4, 0, 1}, 1, 5, "e1…b1"),
        ({0, 1, 4, 5}, None, 7, "a+b+e+f"),
        ({0, 1, 2}, None, 3, "Σ"),
    ],
)
def test_a_partial_sum_is_named_after_whose_it_is(ranks, chunk, n, want):
    assert label(frozenset(ranks), chunk, n) == want


@pytest.mark.parametrize("n", [2, 3, 4, 7, 8])
@pytest.mark.parametrize("operation", ALGORITHMS)
def test_every_step_has_its_panel(operation, n):
    for algorithm in ALGORITHMS[operation]:
        widget = animate(operation, algorithm, n)
        found = texts(widget.svg())
        steps = len(widget.data[algorithm][n]["steps"])
        assert [t for t in found if t == "start" or re.fullmatch(r"step \d+", t)] == [
            "start",
            *(f"step {k}" for k in range(1, steps + 1)),
        ]
        assert repr(widget).count("step ") >= steps


def test_a_ring_all_reduce_of_four_is_drawn_to_its_end():
    svg = animate("all_reduce", "ring", 4).svg()
    assert "all_reduce · ring · 4 ranks: 6 steps, 24 messages" in svg
    assert texts(svg).count("Σ0") == 1 + 2 + 3 + 4
    assert len(svg) < 16_000


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("all_reduce", "tree"), "all_reduce has ring and doubling and reduce_broadcast"),
        (("all_reduce", "ring", 9), "shows 2 to 8 ranks, not 9"),
        (("all_reduce", "ring", 1), "shows 2 to 8 ranks, not 1"),
        (("allreduce",), "operation is 'allreduce'"),
    ],
)
def test_a_wrong_argument_is_refused_in_a_sentence(arguments, words):
    with pytest.raises(ValueError, match=words):
        animate(*arguments)
