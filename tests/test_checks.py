"""The check block in a notebook, when two values are the same, and what is taken out of a notebook before grading."""

import json
import sys

import pytest

from course_lib.grading import by_hand, check, seed
from course_lib.grading.submission import without_expectations, without_orders
from course_lib.grading.values import LINE, differ, leaves, line, same, within


def test_learner_sees_one_line_for_every_outcome(capsys):
    with check("1.1") as c:
        c.equal("sum", 3, lambda: 3)
        c.at_most("messages", 2, lambda: 2)
    with check("1.2") as c:
        c.equal("sum", 4.0, lambda: 2.0, hint="divide by the world size")
        c.equal("never", 1, lambda: 1 / 0)
    with check("1.3") as c:
        c.at_most("bytes sent", 400, lambda: 200, hint="send once")
    with check("1.4"):
        raise NotImplementedError("Task 1.4: average")
    with check("1.5"):
        raise RuntimeError("rank 1 of 2 raised NotImplementedError: Task 1.4: average")
    with check("1.6"):
        raise ValueError("first line\n\nlast line")
    with check("1.7"):
        sys.exit(0)
    with check("1.8"):
        pass
    assert capsys.readouterr().out.splitlines() == [
        "✓ Task 1.1: sum, messages.",
        "✗ Task 1.2: sum: yours 4, should be 2. Try: divide by the world size",
        "✗ Task 1.3: bytes sent: yours 400, should be at most 200. Try: send once",
        "○ Task 1.4 is not solved yet.",
        "✗ Task 1.5: it needs Task 1.4, which is not solved yet.",
        "✗ Task 1.6: ValueError: last line",
        "✗ Task 1.7: SystemExit: 0",
        "✗ Task 1.8: this check compared nothing.",
    ]


def test_an_interrupt_leaves_the_check_block():
    with pytest.raises(KeyboardInterrupt), check("1.1"):
        raise KeyboardInterrupt


def test_graded_block_prints_values_only_and_never_asks_what_is_right(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_GRADED", "1")
    monkeypatch.setenv("COURSE_SEED", "17")
    monkeypatch.setenv("COURSE_NOTES", str(tmp_path / "notes"))
    with check("1.1") as c:
        print("the learner's own output")
        c.equal("pair", (seed(), [0.5]), lambda: 1 / 0, hint="halve it")
        c.at_most("bytes", 8)
        raise ValueError("stopped here")
    assert capsys.readouterr().out.splitlines() == [
        "value 1.1 | pair\t= 2 entries",
        "value 1.1 | pair[0]\t= 17",
        "value 1.1 | pair[1]\t= (1,) [0.5]",
        "value 1.1 | bytes\t<= 8",
    ]
    notes = [json.loads(line) for line in (tmp_path / "notes").read_text("utf-8").splitlines()]
    assert notes[0] == {"task": "1.1", "name": "pair", "hint": "halve it"}
    assert notes[-1] == {"task": "1.1", "reason": "ValueError: stopped here"}


def tensor(values, dtype="float64"):
    import torch

    return torch.tensor(values, dtype=getattr(torch, dtype))


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (0.1 + 0.2, 0.3),
        (1e-17, 0.0),
        (2.0, 2),
        ([1, 2], (1, 2)),
        (lambda: tensor([1.0, 2.0]), [1.0, 2.0]),
        (lambda: tensor(2.5), 2.5),
        (lambda: tensor([[1.5]], "bfloat16"), lambda: tensor([[1.5]])),
        (lambda: {"w": tensor([1.0, 1e-12]), "b": None}, lambda: {"b": None, "w": tensor([1.0, 0.0])}),
        (float("inf"), float("inf")),
        (lambda: tensor(range(30_000)) * (1 + 1e-13), lambda: tensor(range(30_000))),
        (lambda: tensor(range(30_000), "int64"), lambda: tensor(range(30_000), "int64")),
    ],
)
def test_values_that_are_the_same(got, want):
    assert matches(got, want)


@pytest.mark.parametrize(
    ("got", "want"),
    [
        (1.0, 1.00000001),
        (2.5, 2),
        (True, 1),
        (10**17, 10**17 + 1),
        (float("nan"), 1.0),
        ("1", 1),
        ("a", "b"),
        (None, 0),
        ([1, 2], [2, 1]),
        ([1, 2], [1, 2, 3]),
        ([], [[]]),
        (lambda: tensor([[1.0, 2.0]]), lambda: tensor([1.0, 2.0])),
        (lambda: {"w": tensor([1.0])}, lambda: {"w": tensor([1.0]), "b": tensor([1.0])}),
        (lambda: {"large": 1e9, "small": 1.0}, lambda: {"large": 1e9, "small": 1.1}),
        (lambda: tensor(range(30_000)), lambda: tensor(range(30_000)) * (1 + 1e-7)),
        (lambda: tensor(range(30_000)), lambda: tensor(range(30_000)).flip(0)),
        (lambda: tensor(range(30_000), "int64"), lambda: tensor([*range(29_999), 0], "int64")),
    ],
)
def test_values_that_are_not_the_same(got, want):
    assert not matches(got, want)
    assert not matches(want, got)


def matches(got, want):
    got, want = (leaves("x", value() if callable(value) else value) for value in (got, want))
    return got.keys() == want.keys() and all(same(got[name], want[name]) for name in want)


def test_a_difference_is_said_in_few_words():
    row = leaves("x", [float(i) for i in range(100)])["x"]
    other = leaves("x", [float(i + (i > 97)) for i in range(100)])["x"]
    assert differ(other, row) == "2 of 100 numbers differ; number 98: yours 99, should be 98"
    assert differ("(2,) [1, 2]", "(3,) [1, 2, 3]") == "yours has shape (2,), should have (3,)"
    assert differ("None", "0.3333333333333") == "yours None, should be 0.3333333"
    assert within("7", "8.0")
    assert not any(within(text, "8") for text in ("9", "nan", "None", "True"))


@pytest.mark.parametrize("name", ["sum", "loss at t = 2", "m <= p: messages", "of['a = b']", "a\ttab", ""])
@pytest.mark.parametrize("text", ["0.5", json.dumps("x = 1"), "a repr\twith <= 3"])
def test_a_line_is_taken_apart_into_what_it_was_made_of(name, text):
    for relation in ("=", "<="):
        found = LINE.fullmatch(line("9.1", name, relation, text))
        assert found.groups() == ("9.1", name.replace("\t", " "), relation, text)


def test_what_is_expected_leaves_the_check_cell():
    source = 'with check("1.1") as c:\n    c.equal("a", f(1), lambda: secret(), hint="h")\n    c.at_most("b", n, bound=secret)'
    assert "secret" not in without_expectations(source)
    assert "c.equal('a', f(1), hint='h')" in without_expectations(source)


@pytest.mark.parametrize("order", ["# NBVAL_SKIP", "  #NBVAL_IGNORE_OUTPUT ", "##  PYTEST_VALIDATE_IGNORE_OUTPUT"])
def test_nbval_reads_no_orders_from_answers(order):
    from nbval.plugin import find_comment_markers

    source = f"x = 1\n{order}\ny = 2"
    assert dict(find_comment_markers(source))
    assert not dict(find_comment_markers(without_orders(source)))
    assert len(without_orders(source).splitlines()) == 3


def test_an_answer_that_calls_what_it_is_to_write_is_stopped():
    import torch

    from course_lib.cost.memory import training_state

    assert by_hand(lambda a, b: sum([a, b]))(2, 3) == 5
    with pytest.raises(RuntimeError, match="this answer calls course_lib.cost.memory: write here what that does"):
        by_hand(lambda: training_state(1, 1, 0))()
    with pytest.raises(RuntimeError, match="this answer calls torch"):
        by_hand(lambda: torch.nn.Linear(1, 1))()
    assert by_hand(lambda: training_state(1, 1, 0), "torch")().total == 16, "only the named libraries"
    before = sys.getprofile()
    with pytest.raises(ZeroDivisionError):
        by_hand(lambda: 1 / 0)()
    assert sys.getprofile() is before
