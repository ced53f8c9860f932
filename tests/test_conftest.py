"""What could not be run is said in the very last lines, and is an error where it had to run."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run_without_a_browser(**settings):
    environment = {k: v for k, v in os.environ.items() if k != "COURSE_REQUIRE_BROWSER"}
    environment |= {"COURSE_CHROMIUM": "no-such-program", **settings}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/browser/test_lab.py"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_a_missing_browser_is_reported_last():
    result = run_without_a_browser()
    assert result.returncode == 0, result.stdout
    assert "NOT RUN: 3 tests that need a Chromium" in result.stdout.strip().splitlines()[-1]
    assert " passed" not in result.stdout


def test_where_a_browser_is_required_its_absence_is_an_error():
    result = run_without_a_browser(COURSE_REQUIRE_BROWSER="1")
    assert result.returncode == 1
    assert "3 errors" in result.stdout and "NOT RUN" not in result.stdout


def run_without_namespaces(**settings):
    environment = {k: v for k, v in os.environ.items() if k != "COURSE_REQUIRE_NODES"} | {"PATH": "", **settings}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "nodes", "tests/test_two_nodes.py"]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_missing_namespaces_are_reported_last():
    result = run_without_namespaces()
    assert result.returncode == 0, result.stdout
    assert "NOT RUN: 1 test that needs two network namespaces" in result.stdout.strip().splitlines()[-1]
    assert " passed" not in result.stdout


def test_where_namespaces_are_required_their_absence_is_an_error():
    result = run_without_namespaces(COURSE_REQUIRE_NODES="1")
    assert result.returncode == 1
    assert "1 error" in result.stdout and "NOT RUN" not in result.stdout
