"""The grader: honest work passes; accidents and cheats lose their own task and no other."""

import os
import sys
import time
from pathlib import Path

import pytest

from course_lib import grading
from course_lib.grading.grade import Grader
from course_lib.grading.report import table
from tests.grading_course import RIGHT, VISIBLE_TOTAL, hand_in, make_course, results, scratch


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    return make_course(tmp_path_factory.mktemp("course"))


@pytest.fixture(scope="module")
def grader():
    return Grader(timeout_s=3)


def test_honest_work_passes_however_untidy(course, grader):
    answers = {
        "answer-90-1": "# NBVAL_SKIP\nimport math, sys\ndef print(*a): pass\n"
        "def total(numbers):\n    sys.stderr.write('warning!\\n')\n    return math.fsum(numbers)",
        "answer-90-2": "import warnings\ndef largest(numbers):\n    '''Mine.'''\n    warnings.warn('careful')\n"
        "    sys.stdout.write('debugging\\n')\n    return sorted(numbers)[-1], 1",
        "answer-90-3": "%matplotlib inline\ndef twice(numbers): return total(numbers) + total(numbers)",
    }

    def untidy(cells):
        for cell in cells:
            if cell["id"].startswith("answer"):
                cell["metadata"] = {"tags": ["nbval-skip", "raises-exception"]}
            if cell["id"] == "check-90-2":
                cell["source"] = "raise SystemExit"
        cells[:] = [cell for cell in cells if cell["id"] != "check-90-1"]
        cells.insert(3, scratch("1 / 0 # a stray cell"))

    result = grader.grade(hand_in(course, "honest", answers, untidy))
    assert results(result) == ["passed"] * 3, table(result)
    assert [task.title for task in result.tasks] == ["add the numbers", "find the largest number", "double the total"]


def test_unsolved_gets_no_credit_and_runs_nothing(course, grader):
    def comment(cells):
        for cell in cells:
            if cell["id"] == "answer-90-2":
                cell["source"] = ["# I will do this tomorrow\n", *cell["source"]]

    result = grader.grade(hand_in(course, "unsolved", change=comment))
    assert results(result) == ["not solved"] * 3
    assert "no answer was run" in result.confinement


def test_hard_coded_and_wasteful_answers_lose_their_own_task_only(course, grader):
    answers = {
        **RIGHT,
        "answer-90-1": f"# NBVAL_IGNORE_OUTPUT\ndef total(numbers):\n    return {VISIBLE_TOTAL} if numbers else 0",
        "answer-90-2": "import math\ndef largest(numbers):\n    return max(numbers), 2 * len(numbers)",
        # The import in the cell above is this one's too, although that answer is replaced before this one is judged.
        "answer-90-3": "def twice(numbers):\n    return math.fsum([total(numbers)] * 2)",
    }
    result = grader.grade(hand_in(course, "wrong", answers))
    assert results(result) == ["failed", "failed", "passed"]
    first, second, _ = result.tasks
    assert first.why.startswith("total: yours 2.408833, should be ")
    assert first.hint == "every number counts once"
    assert second.why == "looks: yours 10, should be at most 5"
    assert second.hint == "one look at each number is enough"


def test_a_dead_kernel_and_an_endless_loop_hide_nothing(course, grader, tmp_path):
    pid_file = tmp_path / "pid"
    answers = {
        "answer-90-1": "import os, subprocess\n"
        "child = subprocess.Popen(['sleep', '600'], start_new_session=True)\n"
        f"open({str(pid_file)!r}, 'w').write(str(child.pid))\nos._exit(0)",
        "answer-90-2": "def largest(numbers):\n    while True:\n        try:\n            while True: pass\n"
        "        except BaseException: pass",
        "answer-90-3": RIGHT["answer-90-3"],
    }
    start = time.monotonic()
    result = grader.grade(hand_in(course, "exits", answers))
    assert results(result) == ["failed", "failed", "passed"], table(result)
    assert result.tasks[0].why == "the Python process ended while this ran"
    assert result.tasks[1].why.startswith("stopped after 3 s; the solution takes ")
    assert time.monotonic() - start < 60
    if sys.platform == "linux":  # a process that left its parent is found and ended
        assert not Path(f"/proc/{pid_file.read_text()}").exists()


def test_cheats_in_the_kernel_find_no_reference(course, grader):
    answers = {
        "answer-90-1": "from course_lib.grading import Check\nplain = Check.equal\n"
        "Check.equal = lambda self, name, got, want=None, hint='': plain(self, name, want() if want else got)\n"
        "def total(numbers): return 0",
        "answer-90-2": "import builtins, glob\nfound = glob.glob('*.ipynb') + glob.glob('../**/*.ipynb', recursive=True)\n"
        "builtins.print = lambda *a, **k: None\ndef largest(numbers): raise ValueError(f'found {found}')",
        "answer-90-3": "import sys\ndef twice(numbers): sys.exit(0)",
    }
    result = grader.grade(hand_in(course, "cheats", answers))
    assert results(result) == ["failed"] * 3, table(result)
    assert result.tasks[1].why == "ValueError: found []"
    assert result.tasks[2].why == "SystemExit: 0"


def test_answers_that_are_lacking_or_no_python_lose_their_own_task_only(course, grader):
    def lose(cells):
        cells[:] = [cell for cell in cells if cell["id"] != "answer-90-1"]

    helper = "def twice(numbers): return helper(total(numbers))"
    answers = {**RIGHT, "answer-90-2": "def largest(numbers:\n    return 1", "answer-90-3": helper}
    result = grader.grade(hand_in(course, "lacking", answers, lose))
    assert [task.why for task in result.tasks] == [
        "the answer cell answer-90-1 is missing",
        "SyntaxError in line 1: '(' was never closed",
        "NameError: name 'helper' is not defined",
    ]
    assert "other cells of yours are not graded" in result.tasks[2].hint


@pytest.mark.skipif(sys.platform != "linux", reason="limits differ on other systems")
def test_the_kernel_is_confined_and_the_report_says_how(course, grader):
    limits = "[resource.getrlimit(getattr(resource, 'RLIMIT_' + n))[0] for n in ('CPU', 'FSIZE')]"
    answers = {
        "answer-90-1": f"import resource\nraise ValueError({limits}, 'COURSE_LIB_PROGRESS' in __import__('os').environ)"
    }
    result = grader.grade(hand_in(course, "limits", answers))
    assert result.tasks[0].why == f"ValueError: ([900, {512 << 20}], True)"
    report = table(result, width=1000)
    assert "Confinement: 900 s of CPU, 512 MiB a file" in report
    assert ("It ran as root" in report) == (os.geteuid() == 0)


def test_a_kernel_that_dies_before_its_first_word_is_started_again(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(grading.__file__).parent))  # where the grader starts this file as a script
    from nbval_session import start_kernel

    tries = []

    def start(good_from):
        tries.append(good_from)
        if len(tries) < good_from:
            raise RuntimeError("Kernel died before replying to kernel_info")

    start_kernel(lambda: start(3))
    assert len(tries) == 3
    tries.clear()
    with pytest.raises(RuntimeError, match="Kernel died"):
        start_kernel(lambda: start(9))
    assert len(tries) == 3
