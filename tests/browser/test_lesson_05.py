"""Lesson 05 in a real JupyterLab: every cell runs, and the sharding widget answers the reader."""

import pytest

from tests.browser.conftest import new_page
from tests.browser.page import cells, open_notebook, run_all, screenshot, show_cell

pytestmark = pytest.mark.browser

LESSON = "notebooks/05_data_parallel.ipynb"
WIDGET = ".course-picture[data-picture=sharding]"
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
    """The first sharding picture with a world size to choose, on the screen."""
    for index, cell in enumerate(cells(lesson)):
        if any(WIDGET_TYPE in output.get("data", {}) for output in cell.get("outputs", [])):
            show_cell(lesson, index)
            found = lesson.locator(f"{WIDGET}:has(input[type=radio]:visible)")
            if found.count():
                screenshot(lesson, "lesson_05")
                return found.first
    raise AssertionError(f"{LESSON} shows no sharding picture with controls")


def picture(widget):
    return widget.locator(".stage").inner_html()


def test_every_cell_ran_in_order(lesson):
    counts = [cell["execution_count"] for cell in cells(lesson) if cell["cell_type"] == "code" and cell["source"]]
    assert counts == list(range(1, len(counts) + 1))


@pytest.mark.parametrize("control", [0, 1])
def test_moving_a_control_changes_the_picture(widget, control):
    radios = widget.get_by_role("radiogroup").nth(control).get_by_role("radio")
    chosen = radios.evaluate_all("all => all.findIndex((one) => one.checked)")
    before = picture(widget)
    radios.nth(0 if chosen else 1).check()
    widget.page.wait_for_timeout(500)
    assert picture(widget) != before
    radios.nth(chosen).check()
    widget.page.wait_for_timeout(500)
    assert picture(widget) == before


def test_the_control_answers_to_the_keyboard(widget, lesson):
    radios = widget.get_by_role("radiogroup").first.get_by_role("radio")
    before = picture(widget)
    radios.and_(lesson.locator(":checked")).focus()
    lesson.keyboard.press("ArrowRight")
    lesson.wait_for_timeout(500)
    assert picture(widget) != before
