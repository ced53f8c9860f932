"""One JupyterLab over a copy of the course and one real browser for all of these tests, and a fresh page for each that asks."""

import shutil
from pathlib import Path

import pytest

from tests.browser.chromium import find_chromium
from tests.browser.jupyter import Lab
from tests.browser.page import screenshot

ROOT = Path(__file__).resolve().parents[2]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="package")
def lab(tmp_path_factory):
    """A running JupyterLab; what a test runs and saves goes into a copy of the course."""
    home = tmp_path_factory.mktemp("lab")
    course = home / "course"
    for folder in ("notebooks", "solutions", "exercises"):
        shutil.copytree(ROOT / folder, course / folder, ignore=shutil.ignore_patterns("src", ".ipynb_checkpoints"))
    lab = Lab(course, home)
    try:
        lab.wait_until_ready()
        yield lab
    finally:
        lab.stop()


@pytest.fixture(scope="package")
def browser():
    """The system's Chromium. It ends with these tests: an open playwright would leave the later ones its event loop."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, request):
    """A fresh page; what it looked like at the end is kept when the test failed (see `screenshot`)."""
    page = new_page(browser)
    yield page
    if getattr(request.node, "failed", False):
        screenshot(page, request.node.name)
    page.close()


def new_page(browser):
    """A page of a laptop's size whose steps fail after half a minute."""
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.set_default_timeout(30_000)
    return page


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    item.failed = getattr(item, "failed", False) or report.failed
    return report
