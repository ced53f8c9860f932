"""For every test: where it runs, and what is said at the end.

What needs a browser, a GPU or two nodes runs where there are, and is loudly reported as not run elsewhere. Tests are run in groups, the
dearest first, so that two workers end together; a group is a file, or a chapter of the exercises. The report names the dearest groups,
and those that take far longer than `budgets.json` gives them.
"""

import json
import os
import re
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from tests.browser.chromium import find_chromium
from tests.two_nodes import unshare

HOW_TO = {
    "browser": "a Chromium or Chrome: install one, or name it in COURSE_CHROMIUM",
    "gpu": "an NVIDIA GPU and a CUDA build of torch",
    "nodes": "two network namespaces for two nodes: Linux that allows them, iproute2 and util-linux",
}
REQUIRE = {"browser": "COURSE_REQUIRE_BROWSER", "nodes": "COURSE_REQUIRE_NODES"}  # set where their absence is an error
BUDGETS = json.loads((Path(__file__).parent / "budgets.json").read_text("utf-8"))["seconds"]  # of each group
SEED = "COURSE_TEST_SEED"  # of the inputs that right answers to exercises get; another one each day
counts = Counter()  # of tests that were not run
seconds = Counter()  # that each group took


def pytest_configure(config):
    os.environ.setdefault(SEED, str(int(time.time()) // 86400))  # workers inherit it
    settings.register_profile("soak", max_examples=2000)
    if os.environ.get("COURSE_SOAK"):
        settings.load_profile("soak")


def pytest_report_header(config):
    return f"seed of the exercises' inputs: {os.environ[SEED]}; {SEED}={os.environ[SEED]} gives the same"


def group_of(nodeid):
    """The file of a test; of exercises and notebooks the chapter; one for all that share a JupyterLab."""
    path, _, test = nodeid.partition("::")
    name, chapter = Path(path).stem.removeprefix("test_"), re.search(r"\[(?:\w+/)?(\d+)", test)
    if name in ("exercises", "notebooks") and chapter:
        return f"{name} {int(chapter[1]):02d}"
    return "browser" if "browser/" in path and name != "second_sight" else name


class ByGroup(LoadScopeScheduling):
    """Gives a worker all tests of a group, in their order."""

    def _split_scope(self, nodeid):
        return group_of(nodeid)


def pytest_xdist_make_scheduler(config, log):
    return ByGroup(config, log)


def pytest_collection_modifyitems(items):
    groups = {item: group_of(item.nodeid) for item in items}
    items.sort(key=lambda item: (-BUDGETS.get(groups[item], 0), groups[item]))  # within a group they stay in order


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
    """Count where the report is written, which is another process than the tests' when there are several."""
    seconds[group_of(report.nodeid)] += report.duration
    reason = report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple | list) else ""
    for marker, need in HOW_TO.items():
        if reason.endswith(f"needs {need}"):
            counts[marker] += 1


def pytest_terminal_summary(terminalreporter):
    every = os.environ.get("COURSE_ALL_DURATIONS")
    terminalreporter.write_line(f"{sum(seconds.values()):.0f} s of tests in all; the dearest, beside their budgets:")
    for group, taken in seconds.most_common(None if every else 10):
        budget = BUDGETS.get(group, 0)
        over = "  OVER ITS BUDGET" if taken > 1.5 * budget + 2 else ""
        terminalreporter.write_line(f"  {taken:6.1f} s of {budget:4.0f} s  {group}{over}", yellow=bool(over))


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
