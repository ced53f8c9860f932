"""Lesson 03 in a real JupyterLab: every cell runs, and what the reader is to see is there."""

import pytest

from tests.browser.conftest import new_page
from tests.browser.page import cells, open_notebook, run_all, screenshot, text_of

pytestmark = pytest.mark.browser

LESSON = "notebooks/03_collectives.ipynb"


def code_cells(page):
    return [cell for cell in cells(page) if cell["cell_type"] == "code" and cell["source"]]


@pytest.fixture(scope="module")
def lesson(browser, lab):
    """The page of the lesson after all its cells have run."""
    page = new_page(browser)
    open_notebook(page, lab, LESSON)
    run_all(page, within_s=240)
    for _ in range(480):  # JupyterLab calls it done at a cell that is meant to fail, while the later ones still run
        if all(cell["execution_count"] for cell in code_cells(page)):
            break
        page.wait_for_timeout(250)
    screenshot(page, "lesson_03")
    yield page
    page.close()


@pytest.fixture(scope="module")
def shown(lesson):
    """All that the cells print and raise."""
    return "\n".join(text_of(cell) for cell in cells(lesson))


def test_every_cell_ran_in_order(lesson):
    counts = [cell["execution_count"] for cell in code_cells(lesson)]
    assert counts == list(range(1, len(counts) + 1))


def test_the_ring_sends_what_the_formula_says(shown):
    assert "rank 3 sent 12,000 bytes in 6 messages" in shown
    assert "n=8: sent {8400} bytes, formula 8400; {14} messages, 14" in shown


@pytest.mark.parametrize(
    "words",
    [
        "to the same all_reduce",
        "make the same two calls of all_reduce in opposite order",
        "rank 2 returned while ranks 0, 1 and 3 were still in all_reduce",
    ],
)
def test_each_mistake_made_on_purpose_is_explained(shown, words):
    assert words in shown
