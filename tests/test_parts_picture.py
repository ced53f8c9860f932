"""Bars of parts: lengths, names in place or below, colours, words, and what is refused."""

import pytest

from course_lib.cost.memory import MemoryUse
from course_lib.cost.step_time import StepTime
from course_lib.viz import parts

STEP = StepTime(25.0, 3.16, 0.13, 2.0, 0.0, 0.02)


def marks(picture, shape):
    return [mark for mark in picture.scene.panels[0].marks if mark.shape == shape]


def test_parts_are_to_one_scale_one_after_the_other():
    picture = parts({"predicted": vars(STEP), "measured": {"a step": 32.0}}, title="A step")
    *bars, whole = [mark for mark in marks(picture, "rect") if mark.h == 34]
    assert [bar.w / whole.w for bar in bars] == pytest.approx([s / 32.0 for s in vars(STEP).values()])
    assert all(a.x + a.w == pytest.approx(b.x) and a.y == b.y for a, b in zip(bars, bars[1:]))
    assert bars[1].tip == "predicted: tensor parallel 3.16 s, 10% of 30.3 s"
    assert [bar.focus for bar in bars] == ["parts"] * 4 + ["", "parts"], "there is nothing to point at where nothing is"
    panel = picture.scene.panels[0]
    assert all(mark.x + mark.w <= panel.w and mark.y <= panel.h for mark in panel.marks)


def test_amounts_have_one_unit_and_all_is_said_in_words():
    assert str(parts({"predicted": vars(STEP)}, title="A step")) == (
        "A step\n  predicted: 30.3 s: compute 25.0 s, tensor parallel 3.16 s, pipeline messages 0.130 s, bubble 2.00 s, "
        "data parallel 0 s, optimizer 0.0200 s"
    )
    assert "gradients 0.200 GB" in str(parts({"a GPU": vars(MemoryUse(10**9, 2 * 10**8, 0, 5))}, "B"))


def test_a_part_is_named_in_its_bar_or_else_below():
    picture = parts({"predicted": vars(STEP)})
    named = [mark.text for mark in marks(picture, "text")]
    assert all(named.count(name.removesuffix("_s").replace("_", " ")) == 1 for name in vars(STEP))
    (inside,) = [mark for mark in marks(picture, "text") if mark.text == "compute"]
    assert inside.y < 34 + 18 < min(mark.y for mark in marks(picture, "text") if mark.text == "optimizer")


def test_a_part_has_the_colour_that_it_has_elsewhere_or_the_callers():
    step = [mark.kind for mark in marks(parts({"a": vars(STEP)}), "rect")][:6]
    assert step == ["span", "tp held", "pp held", "wait", "dp held", "optimizer held"]
    use = [mark.kind for mark in marks(parts({"a": vars(MemoryUse(1, 1, 1, 1))}, "B"), "rect")][:4]
    assert use == ["parameters held", "gradients held", "optimizer held", "activations held"]
    own = [mark.kind for mark in marks(parts({"a": {"x": 1, "y": 2}}, kinds={"y": "forward"}), "rect")]
    assert own == ["compute", "forward held"]


@pytest.mark.parametrize(
    ("rows", "kinds", "message"),
    [
        ({}, None, "parts\\(\\) draws amounts of at least 0, not all of them 0"),
        ({"a": {"x": 0}}, None, "not all of them 0"),
        ({"a": {"x": 2, "y": -1}}, None, "amounts of at least 0"),
        ({"a": {"x": 1}}, {"x": "mauve"}, "'mauve' is no word of the palette: take one of ink, "),
    ],
)
def test_what_is_refused_is_refused_in_a_sentence(rows, kinds, message):
    with pytest.raises(ValueError, match=message):
        parts(rows, kinds=kinds)


def test_it_needs_no_kernel_and_stays_small():
    picture = parts({str(k): vars(STEP) for k in range(8)})
    assert picture.frames and len(picture._block) < 4_000


def test_a_limit_is_a_line_at_its_amount_on_the_same_scale():
    picture = parts({"a": {"x": 30.0}}, limit=60.0)
    (wall,), (bar, *_) = marks(picture, "line"), marks(picture, "rect")
    assert wall.x == pytest.approx(2 * bar.w) and wall.kind == "limit dashed"
    assert "limit 60.0 s" in [mark.text for mark in marks(picture, "text")] and "limit 60.0 s" in str(picture)
