"""The transformer block in a real browser: its buttons change the picture without a kernel, by keyboard too, in both themes."""

import pytest

from course_lib.viz import transformer_block
from tests.browser.test_sharding_widget import MOUNT, contrast, luminance

pytestmark = pytest.mark.browser


def mount(page, view):
    state = {name: getattr(view, name) for name in ("t", "sequence_parallel", "sizes", "pictures")}
    page.goto("about:blank")
    page.evaluate(MOUNT, {"source": str(view._esm), "css": view._css, "state": state})
    return page.locator("#widget")


def press(widget, group, name):
    widget.locator("fieldset", has_text=group).get_by_role("button", name=name, exact=True).click()


def test_the_buttons_show_what_python_draws_for_the_choice(page):
    view = transformer_block(t=2)
    widget = mount(page, view)
    assert "on 2 ranks" in widget.locator("svg title").text_content()
    press(widget, "ranks, t", "8")
    press(widget, "sequence parallel", "on")
    assert (
        widget.locator("svg title").text_content() == "A transformer block on 8 ranks, with sequence parallel"
    )
    assert "8 ranks" in widget.get_by_role("status").text_content()
    assert widget.locator("svg text", has_text="all-reduce").count() == 0
    press(widget, "sequence parallel", "off")
    assert widget.locator("svg text", has_text="all-reduce").count() == 4
    assert page.evaluate("[widget.state.t, widget.state.sequence_parallel]") == [8, False]


def test_one_rank_can_be_looked_at_and_is_let_go_when_it_is_no_longer_there(page):
    widget = mount(page, transformer_block(t=4))
    press(widget, "show rank", "3")
    faded = widget.locator("[data-rank='0']").first.evaluate("e => getComputedStyle(e).opacity")
    shown = widget.locator("[data-rank='3']").first.evaluate("e => getComputedStyle(e).opacity")
    assert float(faded) < 0.5 and shown == "1"
    press(widget, "ranks, t", "2")
    assert widget.locator("[data-rank='0']").first.evaluate("e => getComputedStyle(e).opacity") == "1"
    assert not widget.get_by_role("button", name="3", exact=True).is_visible()


def test_it_works_by_keyboard(page):
    widget = mount(page, transformer_block(t=1))
    page.keyboard.press("Tab")
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert "on 8 ranks" in widget.locator("svg title").text_content()
    pressed = widget.locator("button[aria-pressed=true]").all_text_contents()
    assert pressed[:2] == ["8", "off"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_in_both_themes(page, scheme):
    page.emulate_media(color_scheme=scheme)
    widget = mount(page, transformer_block(t=8))
    fill = "node => getComputedStyle(node).fill"
    card, ink, muted = (
        widget.locator(f"svg {c}").first.evaluate(fill) for c in (".outside", ".caption", ".axis")
    )
    assert contrast(card, ink) > 7 and contrast(card, muted) > 4.5
    assert (luminance(card) < 0.5) == (scheme == "dark")
    ground, words = widget.locator("button[aria-pressed=true]").first.evaluate(
        "node => [getComputedStyle(node).backgroundColor, getComputedStyle(node).color]"
    )
    assert contrast(ground, words) > 7
