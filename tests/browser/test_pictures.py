"""What holds for every picture in a page: its keys, its size, its words, its themes, and no barrier that axe finds."""

from functools import cache

import pytest
from axe_playwright_python.sync_playwright import Axe

from course_lib.viz.controls import Number, Switch, View
from course_lib.viz.scene import Panel, Scene, rect
from course_lib.viz.widget import picture
from tests import small_picture
from tests.browser.page import screenshot
from tests.browser.widget import choose, contrast, control, mount, said, settle, texts
from tests.every_picture import PICTURES

pytestmark = pytest.mark.browser
WIDTHS = (390, 1024, 1920)


@cache
def made(name):
    return PICTURES[name]()


@pytest.mark.parametrize("name", PICTURES)
def test_it_can_be_used_by_everybody(page, name):
    """In both themes: axe finds nothing serious, every key stays inside, and no width is too small or too large."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        widget = mount(page, made(name))
        found = Axe().run(page, "#widget").response
        serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
        assert not serious, [(v["id"], [node["html"][:200] for node in v["nodes"][:3]]) for v in serious]
        screenshot(page, f"{name} {scheme}")
    takers = widget.locator(":is(button, input, select, textarea, [tabindex])")
    unguarded = takers.locator("xpath=self::*[not(@data-lm-suppress-shortcuts='true')]")
    assert not unguarded.count(), unguarded.first.evaluate("node => node.outerHTML")
    small = [
        box
        for box in map(lambda node: node.bounding_box(), widget.locator("button, select").all())
        if box["height"] < 24
    ]
    assert not small, "targets are at least 24 pixels high"
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(120)
        settle(page)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        ratio = (
            widget.locator(".stage svg").first.evaluate(
                "(svg) => svg.getBoundingClientRect().width / svg.viewBox.baseVal.width"
            )
            if widget.locator(".stage svg").count()
            else 1
        )
        assert ratio > 0.85, "text of 12 pixels would be smaller than 10"
        screenshot(page, f"{name} {width}")
    page.set_viewport_size({"width": 1200, "height": 900})


@pytest.mark.parametrize("name", PICTURES)
def test_the_still_picture_is_light_enough(name):
    blocks = len(made(name)._block) * 4 / 3
    assert len(made(name).html()) - blocks < 75_000


def test_a_new_picture_needs_no_script_of_its_own(page):
    widget = mount(page, small_picture.ring(), alive=False)
    control(widget, "backwards").check()
    settle(page)
    widget.locator("circle").nth(1).hover()
    assert said(widget) == "rank 1 sends to rank 0"
    widget.get_by_role("radio", name="2", exact=True).check()
    assert "two ranks have one neighbour each" in widget.locator(".rule").inner_text()
    control(widget, "backwards").uncheck()
    settle(page)
    assert texts(widget) == ["0", "1"] and not widget.locator(".rule").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_in_both_themes(page, scheme):
    page.emulate_media(color_scheme=scheme)
    widget = mount(page, small_picture.ring())
    colors = {
        name: widget.locator(where).first.evaluate(f"node => getComputedStyle(node).{what}")
        for name, where, what in [
            ("ink", ".stage text", "fill"),
            ("say", ".say", "color"),
            ("page", ".course-picture", "backgroundColor"),
        ]
    }
    assert contrast(colors["ink"], colors["page"]) > 7 and contrast(colors["say"], colors["page"]) > 7


# --- asking the kernel


def boxes(n, on=False, width=760):
    if n == 7:
        raise ValueError("seven cannot be: take six or eight.")
    marks = [
        rect(12 * i, 4, 10, 20, "rank-1 held", tip=f"box {i}", focus="boxes", sets=(("n", i + 1),)) for i in range(n)
    ]
    return Scene(
        f"{n} boxes",
        (Panel(width, 30, marks),),
        say="Point at a box.",
        off={"on": "it does nothing"} if n > 5 else None,
    )


CONTROLS = [Number("n", 1, 60), Switch("on")]


def test_controls_clicks_and_rules_ask_the_kernel(page):
    widget = mount(page, picture(boxes, CONTROLS, {"n": 3, "on": False}))
    control(widget, "n").fill("5")
    settle(page)
    assert widget.locator(".stage rect").count() == 5 and page.widget.choices["n"] == 5
    widget.locator(".stage rect").nth(1).click()
    settle(page)
    assert widget.locator(".title").inner_text() == "2 boxes"
    control(widget, "n").fill("7")
    settle(page)
    assert widget.locator(".rule").inner_text() == "✗ seven cannot be: take six or eight."
    assert widget.locator(".title").inner_text() == "2 boxes", "the last picture stays"
    control(widget, "n").fill("99")
    assert "n takes a whole number from 1 to 60" in widget.locator(".rule").inner_text()
    choose(page, n=8)
    assert control(widget, "on").is_disabled() and control(widget, "on").get_attribute("title") == "it does nothing"


def test_enter_chooses_what_has_the_focus_and_the_focus_stays(page):
    widget = mount(page, picture(boxes, CONTROLS, {"n": 5, "on": False}))
    widget.locator(".stage [tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    assert said(widget) == "box 1"
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    settle(page)
    assert widget.locator(".title").inner_text() == "4 boxes"


def test_a_wide_page_gets_a_wide_picture(page):
    widget = mount(page, picture(boxes, CONTROLS, {"n": 5, "on": False}))
    for wide, built in ((390, 360), (900, 880), (1600, 1100)):
        page.set_viewport_size({"width": wide, "height": 800})
        page.wait_for_function(f"document.querySelector('.stage svg').viewBox.baseVal.width == {built}")
    assert widget.locator(".stage svg").bounding_box()["width"] <= 1200
    page.set_viewport_size({"width": 1200, "height": 900})


def test_without_a_kernel_the_last_picture_stays_and_it_is_said_why(page):
    widget = mount(page, picture(boxes, CONTROLS, {"n": 5, "on": False}), alive=False)
    control(widget, "n").fill("4")
    widget.locator(".rule", has_text="The kernel has not answered").wait_for()
    assert widget.locator(".stage rect").count() == 5


def test_zoom_and_pan_by_buttons_keys_wheel_and_drag(page):
    def part(view, width=760):
        return Scene("part", (Panel(width, 40, [rect(0, 0, width, 40, "box", tip="all of it")]),), zoom=(0, width))

    widget = mount(page, picture(part, [View(0, 10)], {"view": [0, 10]}))

    def view():
        settle(page)
        start, stop = page.widget.choices["view"]
        return round(start, 6), round(stop, 6)

    widget.get_by_label("zoom in (+)").click()
    assert view() == (2, 8)
    widget.get_by_label("pan left").click()
    assert view() == (0.5, 6.5)
    widget.locator(".stage svg").focus()
    page.keyboard.press("ArrowLeft")
    assert view() == (0, 6), "the view stays on the axis"
    page.keyboard.press("-")
    assert view() == (0, 10)
    box = widget.locator(".stage svg").bounding_box()
    page.mouse.move(box["x"] + 10, box["y"] + 20)
    page.mouse.wheel(0, -300)
    assert view() == (0, 10), "without ctrl the page scrolls"
    page.keyboard.down("Control")
    page.mouse.wheel(0, -60)
    page.keyboard.up("Control")
    page.wait_for_timeout(100)
    start, stop = view()
    assert start < 0.3 and 6 < stop < 8
    page.mouse.down()
    page.mouse.move(box["x"] - 300 + box["width"] / 2, box["y"] + 20, steps=3)
    page.mouse.up()
    assert view()[0] >= 0
    page.keyboard.press("0")
    assert view() == (0, 10)
