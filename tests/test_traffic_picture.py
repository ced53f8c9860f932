"""The matrix of traffic: its numbers, its shades, and the axis that each cell belongs to."""

from xml.etree import ElementTree

import pytest

from course_lib.layout import Layout
from course_lib.trace import Event, Trace
from course_lib.viz import traffic
from course_lib.viz.pictures.traffic import axis_of, level
from course_lib.viz.show import show
from tests.traces import data_parallel, ring, trace_of


def marks(picture):
    return [mark for panel in picture.scene.panels for mark in panel.marks]


def texts(picture):
    return [mark.text for mark in marks(picture) if mark.shape == "text"]


def sends(n, nbytes):
    """A message for each pair of ranks for which nbytes(a, b) is not 0."""
    pairs = [(a, b, nbytes(a, b)) for a in range(n) for b in range(n) if a != b and nbytes(a, b)]
    return trace_of(
        n, [Event(a, "message", "send", 0, 1, peers=(b,), nbytes=k, sent_bytes=k) for a, b, k in pairs], 1.0
    )


def test_there_is_a_number_for_every_pair_that_talked_and_a_cell_for_every_pair():
    picture = traffic(ring(4, nbytes=250_000))
    assert texts(picture).count("1.5 MB") == 4 and texts(picture).count("6 msg") == 4
    assert picture.scene.notes == ("24 messages, 6,000,000 bytes",)
    tips = [mark.tip for mark in marks(picture) if mark.focus == "cells"]
    assert len(tips) == 16 and tips[1] == "rank 0 → rank 1: 1,500,000 bytes in 6 messages"
    assert tips[0] == "rank 0 → rank 0: no message"


def test_a_shade_is_the_share_of_the_largest_cell():
    assert [level(k, 100) for k in (0, 1, 20, 21, 100)] == [0, 1, 1, 2, 5]
    kinds = [mark.kind for mark in marks(traffic(sends(2, lambda a, b: 50 + 50 * a))) if mark.focus]
    assert kinds == ["hit", "level-3", "level-5", "hit"]


def test_with_a_layout_a_cell_has_the_colour_of_its_axis():
    mesh = Layout(pp=2, dp=2, tp=2)
    assert [axis_of(mesh, 0, rank) for rank in (1, 2, 4, 3)] == ["tp", "dp", "pp", ""]
    picture = traffic(sends(8, lambda a, b: 10 if b in (a ^ 1, a ^ 4) else 0), mesh)
    cells = [mark for mark in marks(picture) if mark.focus and mark.kind != "hit"]
    assert {mark.kind for mark in cells} == {"level-5 tp", "level-5 pp"} and len(cells) == 16
    assert cells[0].tip.endswith("10 bytes in 1 message, along tp") and "along dp" in texts(picture)
    with pytest.raises(ValueError, match="has 4 ranks, this traffic is of 8"):
        traffic(sends(8, lambda a, b: 1), Layout(tp=4))


def test_what_has_no_known_path_and_what_was_emulated_is_said():
    said = " ".join(traffic(data_parallel(2, steps=1)).scene.notes)
    assert "Messages only; 800,008 bytes of gloo's own collectives have no known path." in said
    odd = trace_of(2, ring(2).events, 1.0, emulated="emulated links: 10 Gb/s", dropped=7)
    said = " ".join(traffic(odd).scene.notes)
    assert "emulated links: 10 Gb/s" in said and "7 later events are missing" in said and "no known path" not in said


@pytest.mark.parametrize("trace", [Trace(3, 0.5), Trace(1, 0.5), ring(5), ring(16), ring(17)])
def test_any_traffic_is_drawn_and_shows_itself(trace):
    picture = traffic(trace)
    assert ElementTree.fromstring(picture.svg()) is not None
    assert show(trace.traffic()).html() == picture.html()


def test_a_large_matrix_stays_small():
    picture = traffic(sends(64, lambda a, b: 1 + (a * 37 + b * 91) % 997))
    assert len(picture.svg()) < 80_000 and len(picture._block) < 50_000


def test_anything_else_is_refused_with_a_hint():
    class Run:
        trace = Trace(1, 0.5)

    with pytest.raises(TypeError, match=r"draws a Trace or its traffic\(\), not a Run: pass run.trace"):
        traffic(Run())
    with pytest.raises(TypeError, match="there is no picture of a list"):
        show([])
