"""A lesson exported with nbconvert and opened from a file, with the network cut: frames are live, the rest is a still picture."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser.widget import said

pytestmark = pytest.mark.browser
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Lesson 04 as `jupyter nbconvert --to html` writes it."""
    folder = tmp_path_factory.mktemp("export")
    lesson = ROOT / "notebooks/04_one_product_two_splits.ipynb"
    line = [sys.executable, "-m", "jupyter", "nbconvert", "--to", "html", f"--output-dir={folder}", lesson]
    subprocess.run(line, check=True, capture_output=True)
    return folder / f"{lesson.stem}.html"


@pytest.fixture
def opened(page, exported):
    page.context.set_offline(True)
    page.goto(f"file://{exported}")
    page.wait_for_function("document.querySelectorAll('figure[data-frames]:not([data-live])').length === 0")
    yield page
    page.context.set_offline(False)


def test_pictures_with_frames_answer(opened):
    figure = opened.locator("figure[data-live][data-picture=product]").first
    before = figure.locator(".title").inner_text()
    figure.get_by_role("radio", name="2", exact=True).check()
    assert figure.locator(".title").inner_text() != before
    figure.locator("[tabindex='0']").first.focus()
    assert "rank" in said(figure)


def test_a_question_covers_what_follows_it_until_it_is_answered(opened):
    asked = opened.locator("figure[data-picture=prediction]").first
    assert opened.locator(".course-covered").count() > 0
    before = opened.locator(".course-covered").count()
    asked.get_by_role("radio").first.check()
    asked.get_by_role("button", name="Lock it in").click()
    assert opened.locator(".course-covered").count() < before
    assert opened.locator("[data-predicted]").count() == 1


def test_everything_else_is_a_still_picture_with_its_words(opened):
    images = opened.locator(".jp-OutputArea img").all()
    assert images and all(len(image.get_attribute("alt")) > 10 for image in images)
    assert all(image.evaluate("node => node.naturalWidth") > 200 for image in images)
