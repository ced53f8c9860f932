"""The memory estimator in a page: its controls, its rules, and changes that are chosen by pointer and keys."""

import pytest

from course_lib.cost.plan import Plan
from course_lib.viz import memory_estimator
from tests.browser.widget import control, mount, said, settle, texts

pytestmark = pytest.mark.browser

NEAR = Plan(tp=8, pp=8, dp=2, batch=32)  # of GPT-3 175B: 20 GB too many for an A100


def rows(widget):
    return widget.locator("rect.tap")


def test_every_control_is_there_in_its_group_and_answers(page):
    picture = memory_estimator(plan=NEAR)
    widget = mount(page, picture)
    assert widget.locator("legend").all_inner_texts() == ["Train", "Cut into", "Each step", "Save memory"]
    assert "✗ does not fit: 20.4 GB too many" in texts(widget)
    for label, value in {"model": "Llama 3 70B", "GPU": "H200", "ZeRO stage": "1", "recomputation": "full"}.items():
        widget.get_by_role("combobox", name=label, exact=True).select_option(value)
        settle(page)
    for label, value in {"tensor parallel tp": 4, "pipeline stages pp": 5, "data-parallel copies dp": 4, "batch": 160, "micro-batch": 2, "chunks per stage": 2}.items():  # fmt: skip
        control(widget, label).fill(str(value))
        settle(page)
    control(widget, "sequence parallel").check()
    settle(page)
    want = {"model": "Llama 3 70B", "gpu": "H200", "tp": 4, "pp": 5, "dp": 4, "chunks": 2, "batch": 160}
    want |= {"microbatch": 2, "zero": 1, "recompute": "full", "sequence_parallel": True}
    assert picture.choices == want and widget.locator(".title").inner_text().startswith("Llama 3 70B on H200")
    assert "80 GPUs = tp 4 × pp 5 × dp 4 · 20 micro-batches" in widget.locator(".notes").inner_text()


def test_a_change_is_chosen_by_click_and_by_keyboard_and_its_control_follows(page):
    widget = mount(page, memory_estimator(plan=NEAR))
    rows(widget).nth(3).hover()
    assert said(widget).startswith("pipeline stages 8 → 16: fits: 1.35 GB to spare")
    rows(widget).nth(3).click()
    settle(page)
    assert control(widget, "pipeline stages pp").input_value() == "16" and "✓ fits: 1.35 GB to spare" in texts(widget)
    rows(widget).first.focus()
    page.keyboard.press("ArrowDown")
    chosen = said(widget)
    page.keyboard.press("Enter")
    settle(page)
    assert chosen.split(":")[0] not in " ".join(texts(widget)), "what was chosen is offered no more"
    assert page.evaluate("document.activeElement.mark.focus") == "changes", "the focus stays where it was"


def test_a_plan_that_cannot_be_shows_the_rule_and_keeps_what_was_typed(page):
    widget = mount(page, memory_estimator(plan=NEAR))
    stages, rule = control(widget, "pipeline stages pp"), widget.get_by_role("status")
    stages.fill("7")
    settle(page)
    assert rule.inner_text().startswith("✗ GPT-3 175B has 96 layers, which pp × chunks = 7 does not divide")
    assert stages.input_value() == "7" and rows(widget).count() == 6, "the last picture stays, faded"
    stages.fill("1.5")
    assert rule.inner_text() == "✗ pipeline stages pp takes a whole number from 1 to 1000000."
    assert stages.get_attribute("aria-invalid") == "true"
    stages.fill("8")
    settle(page)
    assert not rule.is_visible() and stages.get_attribute("aria-invalid") == "false"


def test_on_a_narrow_page_bars_stand_under_their_words(page):
    picture = memory_estimator(plan=NEAR)
    page.set_viewport_size({"width": 390, "height": 900})
    mount(page, picture)
    page.wait_for_function("document.querySelector('#widget').picture.model.get('width') < 400")
    settle(page)
    words, bar = page.locator("text", has_text="optimizer state").first, page.locator("rect.optimizer").first
    box = words.bounding_box()  # a little of it is below the letters, how much depends on the font
    assert bar.bounding_box()["y"] >= box["y"] + 0.6 * box["height"]
