"""For every test: what needs a browser, a GPU or two nodes runs where there are, and is loudly reported as not run elsewhere."""

import os
from collections import Counter

import pytest

from tests.browser.chromium import find_chromium
from tests.two_nodes import unshare

HOW_TO = {
    "browser": "a Chromium or Chrome: install one, or name it in COURSE_CHROMIUM",
    "gpu": "an NVIDIA GPU and a CUDA build of torch",
    "nodes": "two network namespaces for two nodes: Linux that allows them, iproute2 and util-linux",
}
REQUIRE = {"browser": "COURSE_REQUIRE_BROWSER", "nodes": "COURSE_REQUIRE_NODES"}  # set where their absence is an error
counts = Counter()  # of tests that were not run


def pytest_runtest_setup(item):
    for marker, is_missing in (("browser", no_browser), ("gpu", no_gpu), ("nodes", no_nodes)):
        if item.get_closest_marker(marker) and is_missing():
            required = REQUIRE.get(marker)
            if required and os.environ.get(required):
                pytest.fail(f"{required} is set, and this needs {HOW_TO[marker]}", pytrace=False)
            pytest.skip(f"needs {HOW_TO[marker]}")


def no_browser():
    return find_chromium() is None


def no_gpu():
    import torch

    return not torch.cuda.is_available()


def no_nodes():
    return unshare() is None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_logreport(report):
    """Count what was not run where the report is written, which is another process than the tests' when there are several."""
    reason = report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple | list) else ""
    for marker, need in HOW_TO.items():
        if reason.endswith(f"needs {need}"):
            counts[marker] += 1


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session):
    """Around the terminal's own report, so that these are the very last lines."""
    result = yield
    terminal = session.config.pluginmanager.getplugin("terminalreporter")
    if terminal is None:  # one of several processes that run tests: the one that reports has counted
        return result
    for marker, count in counts.items():
        tests = "1 test that needs" if count == 1 else f"{count} tests that need"
        terminal.write_line(f"NOT RUN: {tests} {HOW_TO[marker]}", red=True, bold=True)
    return result
