"""The animation of a collective in a page, with nothing but its frames behind it: stepping, playing, choosing."""

import pytest

from course_lib.viz import animate
from tests.browser.widget import choose, mount, said, texts

pytestmark = pytest.mark.browser


def place(widget):
    return widget.locator(".where").inner_text()


def flying(widget):
    """How many chips are on their way."""
    return widget.locator(".chip").evaluate_all("nodes => nodes.filter((n) => n.getAnimations().length).length")


def test_keys_and_slider_lead_through_the_steps_and_each_is_said(page):
    page.emulate_media(reduced_motion="reduce")
    widget = mount(page, animate("all_reduce", "ring", 4), alive=False)
    assert place(widget) == "start" and said(widget).startswith(
        "all_reduce · ring · 4 ranks: 6 steps, 24 messages. Start"
    )
    widget.locator("svg").first.focus()
    page.keyboard.press("ArrowRight")
    assert place(widget) == "step 1" and "a3+b3" in texts(widget)
    assert said(widget) == "Step 1 of 6: 0→1 a3, 1→2 b0, 2→3 c1, 3→0 d2 · receivers add"
    assert not widget.locator(".chip").count(), "no motion for who wants none"
    page.keyboard.press("End")
    assert said(widget).endswith("done") and widget.locator(".frame").count() == 16
    page.keyboard.press("ArrowLeft")
    widget.get_by_label("step", exact=True).focus()
    page.keyboard.press("ArrowLeft")
    assert place(widget) == "step 4"
    choose(page, algorithm="doubling", world_size=6)
    assert widget.locator(".title").inner_text() == "all_reduce · doubling · 6 ranks: 4 steps, 12 messages"
    assert place(widget) == "start"


def test_chips_fly_from_sender_to_receiver_before_the_next_step(page):
    widget = mount(page, animate("all_gather", None, 4), alive=False)
    before = texts(widget)
    widget.get_by_label("step forward").click()
    assert flying(widget) == 4 and said(widget).startswith("Step 1 of 3: 0→1 a, 1→2 b")
    page.wait_for_function("document.querySelector('.where').textContent === 'step 1'")
    assert not widget.locator(".chip").count() and len(texts(widget)) == len(before) + 4


def test_it_plays_and_pauses(page):
    widget = mount(page, animate("broadcast", "tree", 8), alive=False)
    widget.locator("svg").first.focus()
    page.keyboard.press(" ")
    page.wait_for_function("document.querySelector('.where').textContent === 'step 2'")
    page.keyboard.press(" ")
    assert texts(widget).count("a") == 4
    page.wait_for_timeout(1700)
    assert place(widget) == "step 2"
