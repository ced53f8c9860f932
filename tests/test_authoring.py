"""Sources become notebooks and exercises: markers, ids, cleaning, what is stale, and what must fail the build."""

import re
import sys
from pathlib import Path

import nbformat
import pytest

from course_lib import cli
from course_lib.authoring import AuthoringError, Task
from course_lib.authoring.build import build, find_root, stale
from course_lib.authoring.execute import clean, clean_text
from course_lib.authoring.markers import find_tasks, to_stub, without_markers
from course_lib.authoring.source import read_lesson, read_solution

LESSON = """\
# %% [markdown]
# # A lesson
# cat, more, ls: words that are also commands

# %% id="sum"
# %more than one line
total = 1 + 1
print(f"\\x1b[31mtotal {total}\\x1b[0m in {__import__('os').getcwd()}")

# %%
total
"""

SOLUTION = '''\
# %% id="setup"
from course_lib.grading import check

# %% id="answer-91-1"
class Counter:
    def add(self, a, b):
        """Adds."""
        total = 0
        ### BEGIN SOLUTION 91.1: add "two" numbers
        ### HINT a plus b
        total = a + b
        ### HINT nothing else
        ### END SOLUTION
        return total

# %% id="try-it"
print(Counter().add(1, 2))

# %% id="check-91-1"
with check("91.1") as c:
    c.equal("sum", Counter().add(1, 2), lambda: 3)
'''


@pytest.fixture
def course(tmp_path):
    for folder in ("notebooks/src", "solutions/src", "exercises"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "notebooks/src/90_sums.py").write_text(LESSON, encoding="utf-8")
    (tmp_path / "solutions/src/91_counter.py").write_text(SOLUTION, encoding="utf-8")
    return tmp_path


def test_solution_and_stub_of_an_answer():
    cell = SOLUTION.split('# %% id="answer-91-1"\n')[1].split("\n\n# %%")[0]
    assert find_tasks(SOLUTION, "f.py") == [Task("91.1", 'add "two" numbers')]
    assert without_markers(cell).endswith("        total = 0\n        total = a + b\n        return total")
    stub = to_stub(cell)
    assert stub.endswith(
        "        total = 0\n        # Hint: a plus b\n        # Hint: nothing else\n"
        '        raise NotImplementedError("Task 91.1: add \\"two\\" numbers")\n        return total'
    )
    space = {}
    exec(stub, space)  # noqa: S102
    with pytest.raises(NotImplementedError, match='Task 91.1: add "two" numbers'):
        space["Counter"]().add(1, 2)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("        ### END SOLUTION\n", "", 9, "without an END"),
        ("        ### HINT nothing else", "        ### BEGIN SOLUTION 91.1: again", 12, "inside the block that line 9"),
        ('        ### BEGIN SOLUTION 91.1: add "two" numbers\n', "", 9, "HINT without a BEGIN"),
        ("        ### HINT a plus b\n        total = a + b\n        ### HINT nothing else\n", "", 10, "holds no code"),
        ('91.1: add "two" numbers', "add two numbers", 9, "write BEGIN SOLUTION as"),
        ('SOLUTION 91.1: add "two"', 'SOLUTION 91.2: add "two"', 9, 'id="answer-91-2"'),
        ("        ### END SOLUTION", "    ### END SOLUTION", 13, "not indented like"),
        ("def add(self, a, b):", "if True:", 9, "inside the body of a function"),
        ('id="answer-91-1"', 'id="add"', 9, 'id="answer-91-1"'),
        ('id="check-91-1"', 'id="check"', 9, "has no cell with id"),
        ('# %% id="setup"', '# %% id="check-91-1"', 1, "comes before its answer"),
        ('check("91.1")', 'check("91.2")', 19, 'does not contain check("91.1")'),
        ("lambda: 3", "3", 19, "must be a lambda"),
        ('    c.equal("sum", Counter().add(1, 2), lambda: 3)', "    pass", 19, "compares nothing"),
        ('# %% id="try-it"', '# %% id="answer-91-3"', 16, "has no BEGIN SOLUTION marker"),
    ],
)
def test_wrong_markers_are_refused_with_file_and_line(old, new, line, message):
    assert SOLUTION.count(old) == 1
    with pytest.raises(AuthoringError, match=re.escape(message)) as caught:
        find_tasks(SOLUTION.replace(old, new), "solutions/src/91_counter.py")
    assert str(caught.value).startswith(f"solutions/src/91_counter.py:{line}:")
    assert "\n" not in str(caught.value)


def test_exercise_has_the_solutions_cells_with_stubs_and_no_outputs(course):
    solution, exercise = read_solution(course / "solutions/src/91_counter.py")
    assert [c.id for c in exercise.cells] == [c.id for c in solution.cells]
    assert [c.id for c in solution.cells] == ["setup", "answer-91-1", "try-it", "check-91-1"]
    different = [a.id for a, b in zip(solution.cells, exercise.cells, strict=True) if a.source != b.source]
    assert different == ["answer-91-1"]
    assert all(c.outputs == [] and c.execution_count is None for c in exercise.cells)
    assert exercise.metadata.course.exercise == "91_counter"
    assert "tasks" not in exercise.metadata.course
    assert solution.metadata.course.tasks[0]["stub"] == exercise.cells[1].source
    assert exercise.cells[3].metadata.tags == ["nbval-check-output"]


def test_ids_stay_when_another_cell_changes(course):
    source = course / "notebooks/src/90_sums.py"
    before = [c.id for c in read_lesson(source).cells]
    source.write_text(LESSON.replace("1 + 1", "1 + 2") + "\n# %%\ntotal\n", encoding="utf-8")
    after = [c.id for c in read_lesson(source).cells]
    assert after[:3] == before
    assert before[1] == "sum"
    assert after[3] == before[2] + "-2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LESSON + '\n# %% id="sum"\n2\n', "used twice"),
        (LESSON.replace('id="sum"', 'id="a b"'), "no cell id"),
        (LESSON + SOLUTION, "a lesson holds no tasks"),
    ],
)
def test_a_wrong_lesson_is_refused(course, text, message):
    source = course / "notebooks/src/90_sums.py"
    source.write_text(text, encoding="utf-8")
    with pytest.raises(AuthoringError, match=message):
        read_lesson(source)


def test_build_runs_what_is_stale_and_only_that(course, capsys, monkeypatch):
    said = []
    assert len(stale(course)) == 3
    assert build(course, say=said.append) == 3
    assert stale(course) == []
    assert build(course, say=said.append) == 0

    lesson = nbformat.read(course / "notebooks/90_sums.ipynb", as_version=4)
    assert [c.execution_count for c in lesson.cells[1:]] == [1, 2]
    assert lesson.cells[1].source.startswith("# %more than one line")
    # Colours and the machine's own path are gone; the folder is the notebook's.
    assert lesson.cells[1].outputs[0].text == "total 2 in notebooks\n"
    assert "version" not in lesson.metadata.language_info
    solution = nbformat.read(course / "solutions/91_counter.ipynb", as_version=4)
    assert solution.cells[-1].outputs[0].text == "✓ Task 91.1: sum.\n"

    exercise = course / "exercises/91_counter.ipynb"
    built = exercise.read_text("utf-8")
    exercise.write_text(built.replace("a plus b", "guess"), encoding="utf-8")
    (course / "notebooks/92_orphan.ipynb").write_text("{}", encoding="utf-8")
    monkeypatch.chdir(course / "notebooks")
    assert cli.main(["build", "--check"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "exercises/91_counter.ipynb is not what solutions/src/91_counter.py generates",
        "notebooks/92_orphan.ipynb has no source",
    ]
    assert cli.main(["build", "91"]) == 0
    assert exercise.read_text("utf-8") == built
    assert cli.main(["build", "93"]) == 2
    assert "no source's name starts with '93'" in capsys.readouterr().err


def test_a_changed_source_makes_its_notebooks_stale(course):
    for folder, name in (("notebooks", "90_sums"), ("solutions", "91_counter")):
        source = course / folder / "src" / f"{name}.py"
        reader = read_lesson if folder == "notebooks" else lambda s: read_solution(s)[0]
        (course / folder / f"{name}.ipynb").write_text(nbformat.writes(reader(source)), encoding="utf-8")
        assert not any(f"{folder}/{name}" in line for line in stale(course))
        source.write_text(source.read_text("utf-8") + "\n# a word\n", encoding="utf-8")
        assert any(f"{folder}/{name}.ipynb is not built" in line for line in stale(course))


def test_a_failing_cell_fails_the_build_and_keeps_the_old_page(course, capsys, monkeypatch):
    source = course / "notebooks/src/90_sums.py"
    source.write_text('# %% tags=["raises-exception"]\n1 / 0\n\n# %% id="bad"\nint("x")\n', encoding="utf-8")
    page = course / "notebooks/90_sums.ipynb"
    page.write_text("old", encoding="utf-8")
    monkeypatch.chdir(course)
    assert cli.main(["build", "90"]) == 2
    assert "notebooks/src/90_sums.py: cell bad raised ValueError" in capsys.readouterr().err
    assert page.read_text("utf-8") == "old"
    assert list(page.parent.glob("*.partial")) == []


def test_a_solution_that_fails_its_own_check_fails_the_build(course):
    source = course / "solutions/src/91_counter.py"
    source.write_text(SOLUTION.replace("lambda: 3", "lambda: 4"), encoding="utf-8")
    with pytest.raises(
        AuthoringError, match=r"does not pass its own check-91-1: ✗ Task 91.1: sum: yours 3, should be 4"
    ):
        build(course, say=lambda line: None)


def test_outputs_keep_nothing_of_the_machine(tmp_path):
    text = f"""{tmp_path}/course_lib/launch.py:3 {tmp_path}
{Path.home()}/x.py {sys.prefix}/ipykernel_12/345.py:1: UserWarning <Box object at 0x7f0123456789> \x1b[1;31mred\x1b[0m"""
    assert clean_text(text, tmp_path) == (
        "course_lib/launch.py:3 .\n~/x.py cell:1: UserWarning <Box object at 0x…> red"
    )
    assert clean_text(f"{sys.prefix}-other {tmp_path}-other", tmp_path).endswith(f"{tmp_path.name}-other")


def test_a_widget_leaves_its_static_picture(tmp_path):
    data = {"application/vnd.jupyter.widget-view+json": {"model_id": "a" * 32}, "text/html": "<img>"}
    cell = nbformat.v4.new_code_cell("w", outputs=[nbformat.v4.new_output("display_data", data=data)])
    notebook = clean(nbformat.v4.new_notebook(cells=[cell]), tmp_path)
    assert notebook.cells[0].outputs[0].data == {"text/html": "<img>"}


def test_what_pictures_bring_is_kept_once_a_page(tmp_path):
    def block(name, content):
        return f'<script type="text/plain" data-course-block="{name}">{content}</script>'

    base64 = f"QUJD{tmp_path}/ZGVm"  # what looks like a path of this machine is none there
    pages = [block("a1", base64) + block("b2", "xx"), "<p>two</p>" + block("a1", base64) + block("c3", "yy")]
    outputs = [nbformat.v4.new_output("display_data", data={"text/html": html}) for html in pages]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("p", outputs=outputs)])
    found = [output.data["text/html"] for output in clean(notebook, tmp_path).cells[0].outputs]
    assert found == [pages[0], "<p>two</p>" + block("c3", "yy")]


LESSON_THAT_ASKS = """\
# %% [markdown]
# # Asks

# %%
predict("2 + 2?", ["4", "5"])

# %% jupyter={"source_hidden": true}
2 + 2

# %% [markdown]
# It is four.

# %%
predict("3 + 3?", ["6", "7"])

# %%
3 + 3

# %% [markdown]
# It is six.
#
# ## Another thing

# %% [markdown]
# Text.
"""


def test_what_answers_a_prediction_is_folded_up_to_the_next_heading_or_question(course):
    source = course / "notebooks/src/90_sums.py"
    source.write_text(LESSON_THAT_ASKS, encoding="utf-8")
    cells = read_lesson(source).cells
    hidden = [cell.metadata.get("jupyter", {}).get("outputs_hidden", False) for cell in cells]
    assert hidden == [False, False, True, False, False, True, False, False]
    assert cells[2].metadata.jupyter.source_hidden
    folded = [cell.source.startswith("<details><summary>") for cell in cells]
    assert folded == [False, False, False, True, False, False, False, False]
    assert cells[3].source.endswith("\n\nIt is four.\n\n</details>")


def test_nothing_of_a_folded_output_is_shown_beside_it(tmp_path):
    folded = nbformat.v4.new_code_cell("40 + 2", outputs=[nbformat.v4.new_output("stream", text="42")])
    folded.metadata["jupyter"] = {"outputs_hidden": True}
    empty, answer = clean(nbformat.v4.new_notebook(cells=[folded]), tmp_path).cells[0].outputs
    assert empty.data == {} and answer.text == "42"


def test_the_course_is_found_from_inside_it(course, tmp_path):
    assert find_root(course / "notebooks" / "src") == course
    assert (find_root(Path("/")) / "course_lib").is_dir()
