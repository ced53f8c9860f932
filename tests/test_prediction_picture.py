"""Predictions: what is said before and after an answer is locked in, and the tally at a chapter's end."""

import pytest

from course_lib.viz.pictures import prediction
from course_lib.viz.pictures.prediction import OPEN, predict, tally

OPTIONS = {"0": "Each rank has a copy of its own.", "4": "That would need one memory.", "10": "Nobody added."}


@pytest.fixture(autouse=True)
def a_kernel_of_its_own(monkeypatch):
    monkeypatch.setattr(prediction, "_asked", {})
    monkeypatch.setattr(prediction, "_tallies", [])


def test_what_follows_is_covered_until_the_answer_is_locked_in():
    asked = predict("What is `counter`?", OPTIONS, right=0)
    assert asked.frames and asked.scene.after == "" and "lock" in asked.scene.off
    assert asked.choose(answer=1).scene.after == "" and not asked.scene.off
    assert all(words not in asked.scene.say for words in OPTIONS.values()), "nothing is given away before"
    locked = asked.choose(locked=True).scene
    assert locked.after == "You predicted: 4" and "answer" in locked.off


@pytest.mark.parametrize(
    ("answer", "right", "said"),
    [
        (1, 0, "✗ Not so. That would need one memory. The answer: “0”. Each rank has a copy of its own."),
        (0, 0, "✓ Right. Each rank has a copy of its own."),
        (2, None, "Nobody added. Your run below tells."),
        (OPEN, 0, "The answer: “0”. Each rank has a copy of its own."),
    ],
)
def test_a_locked_answer_is_told_what_it_says(answer, right, said):
    scene = predict("What?", OPTIONS, right).choose(answer=answer, locked=True).scene
    assert scene.say == said
    assert scene.after == ("You did not predict." if answer == OPEN else f"You predicted: {list(OPTIONS)[answer]}")


def test_a_page_without_widgets_has_the_question_and_gives_nothing_away():
    asked = predict("2 < 3?", {"yes": "It is.", "no": "It is not."}, right=0)
    html = asked.html().split("<script")[0]
    assert "<p><b>Predict: 2 &lt; 3?</b><br>  ( ) yes<br>  ( ) no</p>" in html and "It is" not in html
    assert str(asked) == "Predict: 2 < 3?\n  ( ) yes\n  ( ) no"


def test_the_tally_counts_what_was_locked_in_and_follows():
    first, second = predict("one?", OPTIONS, right=0), predict("two?", OPTIONS, right=2)
    total = tally()
    assert total.scene.notes == ("2 questions; none is answered in this run yet.",)
    first.choose(answer=0)
    assert "none is answered" in total._scene, "chosen is not yet locked in"
    first.choose(locked=True)
    second.choose(answer=1, locked=True)
    assert total.scene.notes[0] == "2 of 2 predicted, 1 right." and "2 of 2 predicted" in total._scene
    signs = [mark.text for mark in total.scene.panels[0].marks if mark.kind == "strong"]
    assert signs == ["✓", "✗"]
    predict("two?", OPTIONS, right=2)  # its cell is run again
    assert total.scene.notes[0] == "1 of 2 predicted, 1 right."


def test_a_question_without_a_choice_is_refused():
    with pytest.raises(ValueError, match="at least two options, not 1"):
        predict("why?", ["because"])
    with pytest.raises(ValueError, match="right is 3: it counts the options from 0 to 2"):
        predict("why?", OPTIONS, right=3)
