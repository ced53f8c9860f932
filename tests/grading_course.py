"""A course of one small exercise, and notebooks handed in for it; the tests of grading share them."""

import json
import random

from course_lib.authoring.build import build

SOLUTION = """\
# %% [markdown]
# # Three tasks

# %% id="setup"
import random

from course_lib.grading import check, seed

numbers = [random.Random(seed() + i).random() for i in range(5)]

# %% id="answer-90-1"
def total(numbers):
    ### BEGIN SOLUTION 90.1: add the numbers
    return sum(numbers)
    ### END SOLUTION


# %% id="look"
print("a look:", total(numbers))

# %% id="check-90-1"
with check("90.1") as c:
    c.equal("total", total(numbers), lambda: sum(numbers), hint="every number counts once")
    c.equal("totals from start = 0", [total(numbers[:n]) for n in range(5)], lambda: [sum(numbers[:n]) for n in range(5)])

# %% id="between"
print("between tasks")

# %% id="answer-90-2"
def largest(numbers):
    ### BEGIN SOLUTION 90.2: find the largest number
    return max(numbers), len(numbers)
    ### END SOLUTION


# %% id="check-90-2"
with check("90.2") as c:
    value, looks = largest(numbers)
    c.equal("largest", value, lambda: max(numbers))
    c.at_most("looks", looks, lambda: len(numbers), hint="one look at each number is enough")

# %% id="answer-90-3"
def twice(numbers):
    ### BEGIN SOLUTION 90.3: double the total
    return 2 * total(numbers)
    ### END SOLUTION


# %% id="check-90-3"
with check("90.3") as c:
    c.equal("twice", {"value": twice(numbers), "of": [len(numbers)]}, lambda: {"value": 2 * sum(numbers), "of": [5]})
print("what another run prints otherwise is no value:", object())
"""
RIGHT = {
    "answer-90-1": "def total(numbers):\n    return sum(numbers)",
    "answer-90-2": "def largest(numbers):\n    return max(numbers), len(numbers)",
    "answer-90-3": "def twice(numbers):\n    return 2 * total(numbers)",
}
VISIBLE_TOTAL = sum(random.Random(i).random() for i in range(5))  # what a learner sees


def make_course(root):
    """Builds the exercise and its solution in the empty folder `root`."""
    for folder in ("notebooks/src", "solutions/src", "exercises"):
        (root / folder).mkdir(parents=True)
    (root / "solutions/src/90_numbers.py").write_text(SOLUTION, encoding="utf-8")
    build(root, say=lambda line: None)
    return root


def hand_in(course, name, answers=None, change=None):
    """Writes exercises/<name>.ipynb with `answers` filled in, after `change(cells)`, and returns the file."""
    notebook = json.loads((course / "exercises/90_numbers.ipynb").read_text("utf-8"))
    for cell in notebook["cells"]:
        cell["source"] = (answers or {}).get(cell["id"], cell["source"])
    if change:
        change(notebook["cells"])
    file = course / "exercises" / f"{name}.ipynb"
    file.write_text(json.dumps(notebook), encoding="utf-8")
    return file


def results(result):
    return [task.result for task in result.tasks]


def scratch(source):
    return {"cell_type": "code", "id": "scratch", "metadata": {}, "source": source, "outputs": [], "execution_count": 1}
