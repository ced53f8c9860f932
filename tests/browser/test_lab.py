"""`course lab` opens JupyterLab on the first lesson; and what the browser tests stand on does notice a failing cell."""

import nbformat
import pytest

from tests.browser.page import NotebookFailed, cells, open_notebook, run_all, screenshot, text_of

pytestmark = pytest.mark.browser


def test_course_lab_opens_the_first_lesson(lab, page):
    page.goto(lab.url)  # where `course lab` sends the browser: the server itself leads on to the lesson
    page.wait_for_function("() => window.jupyterapp?.shell?.currentWidget?.context?.isReady", timeout=60_000)
    path = page.evaluate("() => window.jupyterapp.shell.currentWidget.context.path")
    assert path == "work/notebooks/00_start_here.ipynb"
    title = page.locator(".jp-Notebook h1").first
    title.wait_for()
    first = "".join(cells(page)[0]["source"])
    assert first.startswith("# ") and title.inner_text().rstrip("¶") in first
    screenshot(page, "lesson_00")


@pytest.mark.parametrize(
    ("cell", "within_s", "said"),
    [
        ("print('so far so good'); 1 / 0", 60, ["cell 1 raised", "so far so good", "ZeroDivisionError"]),
        ("import time; time.sleep(600)", 5, ["not all cells had run after 5 s", "cell 1 is the first", "sleep(600)"]),
    ],
)
def test_a_cell_that_fails_is_shown(lab, page, cell, within_s, said):
    path = lab.course / "notebooks" / f"fails_{within_s}.ipynb"
    code = [nbformat.v4.new_code_cell(source) for source in ("print(40 + 2)", cell, "print('after')")]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=code, metadata=kernel), path)
    open_notebook(page, lab, f"notebooks/{path.name}")
    with pytest.raises(NotebookFailed) as failure:
        run_all(page, within_s)
    assert all(text in str(failure.value) for text in said)
    assert text_of(cells(page)[0]).strip() == "42"
