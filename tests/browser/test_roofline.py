"""The roofline in a page: its controls, and marks that are pointed at, walked to and chosen."""

import pytest

from course_lib.cost.hardware import Roofline
from course_lib.viz import roofline
from tests.browser.widget import control, mount, said, settle, texts

pytestmark = pytest.mark.browser


def test_a_choice_changes_roof_figures_and_words(page):
    picture = roofline("V100", tokens=16)
    widget = mount(page, picture)
    for label, value in {"device": "H100", "compared with": "V100", "model": "GPT-2", "operation": "training: softmax"}.items():  # fmt: skip
        widget.get_by_role("combobox", name=label, exact=True).select_option(label=value)
        settle(page)
    control(widget, "all operations of the layer").uncheck()
    settle(page)
    want = roofline("H100", "softmax", "GPT-2", 16, beside="V100", everything=False)
    assert picture.choices == want.choices and widget.locator(".title").inner_text() == want.scene.title
    assert widget.locator("[tabindex][role=button]").count() == 1
    assert "V100: 125 TFLOP/s, ridge 139" in texts(widget)


def test_the_slider_goes_by_powers_of_two_from_the_keyboard(page):
    picture = roofline(tokens=2048)
    widget = mount(page, picture)
    slider = widget.get_by_role("slider")
    slider.focus()
    for key, tokens in (("ArrowLeft", 1024), ("ArrowLeft", 512), ("Home", 1), ("End", 65536)):
        page.keyboard.press(key)
        settle(page)
        assert picture.choices["tokens"] == tokens and slider.get_attribute("aria-valuetext") == f"{tokens:,}"
    page.keyboard.press("Home")
    settle(page)
    assert "Limited by memory" in widget.locator(".notes").inner_text()


def test_marks_are_pointed_at_walked_to_and_chosen(page):
    picture = roofline()
    widget = mount(page, picture)
    widget.locator("circle[aria-label^='softmax']").hover()
    assert said(widget).startswith("softmax: 1.25 FLOPs a byte, limited by memory")
    widget.locator("circle[aria-label^='softmax']").click()
    settle(page)
    assert (
        widget.get_by_role("combobox", name="operation").input_value() == "3"
        and picture.choices["operation"] == "softmax"
    )
    widget.locator("circle[aria-label^='softmax']").focus()
    page.keyboard.press("ArrowRight")
    assert said(widget).startswith("layer norm")
    page.keyboard.press("Enter")
    settle(page)
    assert picture.choices["operation"] == "layer norm"
    widget.locator("text", has_text="MLP down").click()
    settle(page)
    assert picture.choices["operation"] == "MLP down", "a name means its mark"


def test_a_click_on_the_name_of_the_other_roof_exchanges_the_two(page):
    picture = roofline(mine=Roofline(1.3e11, 1.1e10), measured={"dot": (0.25, 2.2e9)})
    widget = mount(page, picture)
    widget.locator("circle.hollow").hover()
    assert said(widget).startswith("dot, measured: 0.250 FLOPs a byte")
    widget.locator("text", has_text="this machine: 130 GFLOP/s").click()
    settle(page)
    assert (picture.choices["device"], picture.choices["beside"]) == ("this machine", "A100")
    assert widget.locator("circle.hollow").count() == 1
