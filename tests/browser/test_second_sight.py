"""A page before it is run, after it, and the next day: in the real JupyterLab, saved, closed, and reopened in a new server."""

import pytest

from course_lib.authoring.build import build
from tests.browser.conftest import new_page
from tests.browser.jupyter import Lab
from tests.browser.page import cells, open_notebook, run_all, show_cell

pytestmark = pytest.mark.browser

LESSON = """\
# %% [markdown]
# # A lesson of every kind of picture

# %%
from course_lib.viz import predict, sharding
from course_lib.viz.plots import new_plot
from course_lib.viz.controls import Number
from course_lib.viz.scene import Panel, Scene, rect
from course_lib.viz.widget import picture

# %%
predict("How much is 20 + 22?", {"42": "It is.", "44": "Two too many."}, right=0)

# %%
20 + 22

# %% [markdown]
# Forty-two, as everybody knows.

# %% [markdown]
# ## Pictures

# %%
sharding((4, 5), world_size=2)

# %%
def boxes(n):
    return Scene(f"{n} boxes", (Panel(300, 30, [rect(20 * i, 4, 16, 16, "box") for i in range(n)]),))


picture(boxes, [Number("n", 1, 9)], {"n": 3})

# %%
axes = new_plot("step", "loss")
axes.plot([1, 2], [2, 1]);
"""
ASKS, ANSWER, TEXT, SHARDING, KERNEL, PLOT = 2, 3, 4, 6, 7, 8
LAB = "work/notebooks/90_pictures.ipynb"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A course with one lesson, built as authors build it."""
    home = tmp_path_factory.mktemp("second")
    for folder in ("notebooks/src", "solutions/src", "exercises"):
        (home / "course" / folder).mkdir(parents=True)
    (home / "course/notebooks/src/90_pictures.py").write_text(LESSON, encoding="utf-8")
    build(home / "course", say=lambda _: None)
    return home


def serving(browser, home, path, do):
    """What `do(page)` gives, in a server of its own that is stopped after it."""
    lab, page = Lab(home / "course", home), new_page(browser)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    try:
        lab.wait_until_ready()
        open_notebook(page, lab, path)
        return do(page)
    finally:
        page.close()
        lab.stop()
        assert not errors


def cell(page, index):
    show_cell(page, index)
    page.wait_for_timeout(300)
    return page.locator(".jp-Notebook .jp-Cell").nth(index)


def test_a_page_that_nobody_trusts_shows_its_pictures_and_covers_what_answers_a_question(browser, home):
    def look(page):
        for index, alt in ((SHARDING, "tensor · 4 × 5"), (KERNEL, "3 boxes"), (PLOT, "Plot: loss over step")):
            image = cell(page, index).locator("img")
            assert image.get_attribute("alt").startswith(alt)
            assert image.evaluate("node => node.naturalWidth") > 200
        shown = page.locator(".jp-Notebook").inner_text()
        assert "<Figure" not in shown and "Error displaying widget" not in shown
        assert "Run this cell to change world size and placement, point at its parts." in shown
        assert "How much is 20 + 22?" in cell(page, ASKS).inner_text()
        answer = cell(page, ANSWER)
        assert not answer.locator(".jp-OutputArea").is_visible() and "42" not in answer.inner_text()
        text = cell(page, TEXT)
        assert not text.locator("p", has_text="as everybody knows").is_visible()
        text.locator("summary").click()
        assert text.locator("p", has_text="as everybody knows").is_visible()

    serving(browser, home, LAB, look)


def test_a_page_that_was_run_and_saved_comes_back_live_the_next_day(browser, home):
    tracked = home / "course/notebooks/90_pictures.ipynb"
    before = tracked.read_bytes()

    def first_day(page):
        run_all(page, within_s=90)
        covered = page.locator(".course-covered")
        assert covered.count() == 2, "the answer's output and its text"
        asked = cell(page, ASKS)
        assert "covered until then" in asked.locator(".say").inner_text()
        asked.get_by_role("radio", name="44").check()
        asked.get_by_role("button", name="Lock it in").click()
        assert asked.locator(".say").inner_text().startswith("✗ Not so. Two too many. The answer: “42”.")
        page.wait_for_function("!document.querySelector('.course-covered')")
        assert cell(page, ANSWER).get_attribute("data-predicted") == "You predicted: 44"
        assert page.locator("p", has_text="as everybody knows").is_visible(), "the text is unfolded with it"
        choose(cell(page, SHARDING), "4")
        boxes = cell(page, KERNEL)
        boxes.get_by_label("n", exact=True).fill("5")
        boxes.locator(".title", has_text="5 boxes").wait_for()
        page.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
        page.wait_for_function("!window.jupyterapp.shell.currentWidget.context.model.dirty")
        page.wait_for_timeout(1000)

    serving(browser, home, LAB, first_day)
    assert tracked.read_bytes() == before, "what git tracks is as it was"

    def next_day(page):
        picture = cell(page, SHARDING)
        picture.locator(".stage rect").first.wait_for()
        assert "over 4 ranks" in picture.locator(".notes").inner_text()
        choose(picture, "8")
        assert "over 8 ranks" in picture.locator(".notes").inner_text(), "frames need no kernel"
        boxes = cell(page, KERNEL)
        assert boxes.locator(".title").inner_text() == "5 boxes" and boxes.locator(".stage rect").count() == 5
        boxes.get_by_label("n", exact=True).fill("7")
        boxes.locator(".rule", has_text="The kernel has not answered").wait_for()
        asked = cell(page, ASKS)
        assert asked.locator(".say").inner_text().startswith("✗ Not so.")
        assert not page.locator(".course-covered").count()
        assert "Error displaying widget" not in page.locator(".jp-Notebook").inner_text()
        assert len(cells(page)) == 9

    serving(browser, home, LAB, next_day)


def choose(picture, ranks):
    picture.get_by_role("radiogroup", name="world size").get_by_role("radio", name=ranks, exact=True).check()
    picture.locator(".notes", has_text=f"over {ranks} ranks").wait_for()
