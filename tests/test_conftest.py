"""What could not be run is said in the very last lines, and is an error where it had to run."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NEEDS = ("tests/browser/test_lab.py", "tests/test_two_nodes.py")  # a browser, and two nodes


def run_with_neither(**settings):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("COURSE_REQUIRE")}
    environment |= {"COURSE_CHROMIUM": "no-such-program", "PATH": "", **settings}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "browser or nodes", *NEEDS]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_what_is_missing_is_reported_last():
    result = run_with_neither()
    assert result.returncode == 0, result.stdout
    last = "\n".join(result.stdout.strip().splitlines()[-2:])
    assert "NOT RUN: 3 tests that need a Chromium" in last
    assert "NOT RUN: 1 test that needs two network namespaces" in last
    assert " passed" not in result.stdout


def test_where_it_is_required_its_absence_is_an_error():
    result = run_with_neither(COURSE_REQUIRE_BROWSER="1", COURSE_REQUIRE_NODES="1")
    assert result.returncode == 1
    assert "4 errors" in result.stdout and "NOT RUN" not in result.stdout
