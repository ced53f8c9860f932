"""The planner explorer in a page: filters, marks that are pointed at, clicked and walked to, and a search that found nothing."""

from functools import cache

import pytest

from course_lib.cost.hardware import SYSTEMS
from course_lib.cost.overview import ANY, FILTERS, Overview
from course_lib.cost.planner import search
from course_lib.cost.shapes import MODELS
from course_lib.viz import planner_explorer
from tests.browser.widget import mount, said, settle, texts

pytestmark = pytest.mark.browser
EVERYTHING = dict.fromkeys(FILTERS, ANY)


@cache
def overview():
    return Overview(search(MODELS["GPT-3 175B"], SYSTEMS["A100"], 1024, 1536))


def shown(page):
    return mount(page, planner_explorer(overview().search))


def pick(page, widget, label, value):
    widget.get_by_role("combobox", name=label, exact=True).select_option(label=value)
    settle(page)


def test_filters_leave_marks_say_how_many_and_the_best_of_them(page):
    widget, over, chosen = shown(page), overview(), {}
    again = widget.get_by_role("button", name="all again")
    assert again.is_disabled()
    for name, value in {
        "tp": 2,
        "schedule": "1F1B",
        "sequence_parallel": False,
        "recompute": "full",
        "zero": 1,
        "pp": 16,
    }.items():
        chosen[name] = value
        pick(page, widget, FILTERS[name], "no" if value is False else str(value))
        left = over.left(EVERYTHING | chosen)
        assert widget.locator(".notes p").nth(1).inner_text() == over.left_text(left)
        assert over.name(left[0]) in texts(widget)
        there = widget.evaluate("el => el.picture.nodes.filter(({ mark }) => mark.kind === 'hit').length")
        assert there == len(left) > 0
    pick(page, widget, "dp", "128")
    assert widget.locator(".notes").inner_text().splitlines()[-1].startswith("None of 578 marks is left")
    assert "Time of the step" not in texts(widget)
    again.click()
    settle(page)
    assert page.widget.choices == EVERYTHING | {"mark": 0} and "Time of the step" in texts(widget)


def test_a_mark_is_told_when_pointed_at_and_chosen_by_a_click(page):
    widget, over = shown(page), overview()
    places = {m.sets[0][1]: (m.x, m.y) for m in page.widget.scene.ground if m.sets}
    alone = [
        rank
        for rank, (x, y) in places.items()
        if all(abs(x - u) + abs(y - v) > 8 for other, (u, v) in places.items() if other != rank)
    ]
    marks = {mark.rank: mark for mark in over.marks}
    box = widget.locator(".stage svg").first.bounding_box()
    zoom = box["width"] / page.widget.scene.panels[0].w
    for rank in alone[:: len(alone) // 5]:
        x, y = places[rank]
        page.mouse.move(box["x"] + (x + 3) * zoom, box["y"] + y * zoom)  # beside it is near enough
        assert said(widget) == marks[rank].said
        page.mouse.click(box["x"] + (x + 3) * zoom, box["y"] + y * zoom)
        settle(page)
        assert page.widget.choices["mark"] == rank and over.name(marks[rank]) in texts(widget)


def test_every_mark_can_be_reached_by_keyboard(page):
    widget, over = shown(page), overview()
    chosen = {"schedule": "GPipe", "zero": 1, "tp": 4}
    left = over.left(EVERYTHING | chosen)
    for name, value in chosen.items():
        pick(page, widget, FILTERS[name], str(value))
    widget.locator(".stage svg").first.focus()
    walked = []
    assert len(left) > 4
    for _ in left:
        walked.append(next(text for text in texts(widget) if text.startswith("Number ")))
        page.keyboard.press("ArrowUp")
        settle(page)
    assert walked == [over.name(mark) for mark in left]
    by_memory = sorted(left, key=lambda mark: (mark.candidate.memory.total, mark.rank))
    for key, mark in (
        ("Home", left[0]),
        ("ArrowDown", left[0]),
        ("End", left[-1]),
        ("ArrowLeft", by_memory[by_memory.index(left[-1]) - 1]),
    ):
        page.keyboard.press(key)
        settle(page)
        assert said(widget).startswith(f"Number {mark.rank:,}: {mark.candidate.layout}, "), key


@pytest.mark.parametrize("width", [390, 760])
def test_bars_and_numbers_of_the_tables_are_inside_the_page(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    widget = shown(page)
    pick(page, widget, "ZeRO", "3")
    page.wait_for_function(f"document.querySelector('.stage svg').viewBox.baseVal.width < {width}")
    settle(page)
    for panel in widget.locator(".stage svg").all()[2:]:
        bars = [b.bounding_box() for b in panel.locator("rect:not(.blank)").all()]
        assert max(bar["width"] for bar in bars) > 60 and all(b["x"] + b["width"] <= width for b in bars)
        numbers = [t.bounding_box() for t in panel.locator("text.digits").all()]
        assert numbers and all(0 <= n["x"] and n["x"] + n["width"] <= width for n in numbers)


def test_a_search_that_found_nothing_says_so_without_a_picture(page):
    widget = mount(page, planner_explorer(search(MODELS["Megatron 1T"], SYSTEMS["A100"], 8, 8)))
    assert widget.locator(".notes").inner_text().startswith("none fits into 64 GB")
    assert not widget.locator("select, button, .stage svg").count()
