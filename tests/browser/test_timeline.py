"""The timeline in a real browser: pointing, walking over events, zoom and pan."""

import pytest

from course_lib.viz import timeline
from tests.browser.widget import mount, said, settle, texts
from tests.traces import data_parallel, ring

pytestmark = pytest.mark.browser


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)
        settle(page)


def view(page):
    assert list(page.widget.choices["view"]) == page.evaluate("document.querySelector('#widget').picture.choices.view")
    return page.widget.choices["view"]


def focus(page, start):
    """Give the focus to the first bar of which this is said."""
    find = (
        "start => [...document.querySelectorAll('.stage rect')].find((node) => node.mark.tip.startsWith(start)).focus()"
    )
    page.evaluate(find, start)


def test_keys_walk_over_events_and_ranks_and_zoom_keeps_the_one_that_has_the_focus(page):
    widget = mount(page, timeline(data_parallel(4)))
    assert "arrow keys" in said(widget)
    focus(page, "rank 0 · forward")
    press(page, "ArrowRight")
    assert said(widget).startswith("rank 0 · backward")
    press(page, "ArrowDown", "ArrowRight")
    assert said(widget).startswith("rank 0 · all_reduce (asynchronous) · world (ranks 0–3) · 100,000 bytes")
    press(page, "ArrowDown", "ArrowDown", "ArrowDown", "ArrowDown")
    assert said(widget).startswith(("rank 1", "rank 2"))
    focus(page, "rank 1 · backward")
    press(page, "+")
    assert said(widget).startswith("rank 1 · backward")


def test_pointing_lights_up_the_same_call_on_every_rank_and_the_other_end_of_a_message(page):
    widget = mount(page, timeline(data_parallel(3)))
    widget.locator("rect.world").first.hover()
    assert said(widget).startswith("rank 0 · all_reduce (asynchronous)")
    assert widget.locator("rect.world.lit").count() == 3
    assert not widget.locator("rect.forward:not(.lit)").count(), "what the ranks do stays as it is"
    page.mouse.move(0, 0)
    assert "arrow keys" in said(widget)
    widget = mount(page, timeline(ring(4)))
    assert widget.locator("path.faint").count() == 24
    focus(page, "rank 0 · isend → rank 1")
    assert widget.locator("path.faint.lit").count() == 1 and widget.locator("rect.world.lit").count() == 2


def test_zoom_and_pan_by_keys_buttons_wheel_and_drag(page):
    widget = mount(page, timeline(data_parallel(4)))
    whole = view(page)
    widget.locator(".stage svg").focus()
    press(page, "+")
    nearer = view(page)
    assert nearer[1] - nearer[0] == pytest.approx(0.6 * (whole[1] - whole[0])) and "0" not in texts(widget)
    press(page, *["ArrowRight"] * 5)
    assert view(page)[1] == pytest.approx(whole[1]), "the view stays on the trace"
    press(page, "0")
    assert list(view(page)) == list(whole)
    widget.get_by_title("zoom in").click()
    settle(page)
    assert view(page) == pytest.approx(nearer)
    box, panel = widget.locator(".stage svg").bounding_box(), page.widget.scene.panels[0]
    page.mouse.move(box["x"] + 400, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 60, steps=4)
    page.mouse.up()
    settle(page)
    x0, x1 = page.widget.scene.zoom
    share = 100 / (box["width"] / panel.w) / (x1 - x0)
    assert view(page)[0] - nearer[0] == pytest.approx(share * (nearer[1] - nearer[0]), rel=0.02)
    before = view(page)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -200)
    page.keyboard.up("Control")
    page.wait_for_function("a => document.querySelector('#widget').picture.choices.view[0] > a", arg=before[0])


def test_of_many_events_a_lane_tells_its_totals_and_single_ones_come_with_zoom(page):
    widget = mount(page, timeline(data_parallel(8, steps=40)))
    focus(page, "rank 3")
    assert said(widget).endswith("Zoom in to see single events.") and widget.locator("path.wait").count() == 1
    for _ in range(8):
        widget.get_by_title("zoom in").click()
        settle(page)
    assert widget.locator("rect.world").count() > 20 and not widget.locator("path.wait").count()
