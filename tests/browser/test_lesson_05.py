"""Lesson 05 in a real JupyterLab: every cell runs, and the sharding widget answers the reader."""

import pytest

from tests.browser.conftest import new_page
from tests.browser.page import cells, open_notebook, run_all, screenshot, show_cell

pytestmark = pytest.mark.browser

LESSON = "notebooks/05_data_parallel.ipynb"
WIDGET = ".shards-widget"
WIDGET_TYPE = "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def lesson(browser, lab):
    """The page of the lesson after all its cells have run."""
    page = new_page(browser)
    open_notebook(page, lab, LESSON)
    run_all(page, within_s=240)
    yield page
    page.close()


@pytest.fixture(scope="module")
def widget(lesson):
    """The first sharding widget with controls, on the screen."""
    for index, cell in enumerate(cells(lesson)):
        if any(WIDGET_TYPE in output.get("data", {}) for output in cell.get("outputs", [])):
            show_cell(lesson, index)
            lesson.locator(WIDGET).first.wait_for()
            if lesson.locator(f"{WIDGET}:has(select:visible)").count():
                screenshot(lesson, "lesson_05")
                return lesson.locator(f"{WIDGET}:has(select:visible)").first
    raise AssertionError(f"{LESSON} shows no sharding widget with controls")


def picture(widget):
    return widget.locator("svg").first.inner_html()


def test_every_cell_ran_in_order(lesson):
    counts = [
        cell["execution_count"] for cell in cells(lesson) if cell["cell_type"] == "code" and cell["source"]
    ]
    assert counts == list(range(1, len(counts) + 1))


@pytest.mark.parametrize("control", [0, 1])
def test_moving_a_control_changes_the_picture(widget, control):
    select = widget.locator("select").nth(control)
    before, chosen = picture(widget), select.input_value()
    others = [
        value
        for value in select.locator("option").evaluate_all("o => o.map(x => x.value)")
        if value != chosen
    ]
    select.select_option(others[0])
    assert picture(widget) != before
    select.select_option(chosen)
    assert picture(widget) == before


def test_the_control_answers_to_the_keyboard(widget, lesson):
    select = widget.locator("select").first
    before, chosen = picture(widget), select.input_value()
    select.focus()
    lesson.keyboard.press("ArrowDown")
    if select.input_value() == chosen:  # it was the last one
        lesson.keyboard.press("ArrowUp")
    assert select.input_value() != chosen and picture(widget) != before
