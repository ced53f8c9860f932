"""A question to answer before what follows is read: choose, lock it in, and compare. Nothing is graded, nothing leaves the page."""

from collections.abc import Mapping, Sequence
from functools import partial

from course_lib.viz.controls import Button, Choice, Switch
from course_lib.viz.scene import Panel, Scene, text
from course_lib.viz.widget import Picture, picture

OPEN, WIDE, ROW = -1, 700, 22
_asked: dict[str, Picture] = {}  # of this kernel, in the order of the lesson
_tallies: list[Picture] = []


def predict(question: str, options: Mapping[str, str] | Sequence[str], right: int | None = None) -> Picture:
    """Ask the reader for a prediction. Until it is locked in, the page covers what follows, up to the next heading or question.

    options: what can be chosen -> the sentence that is said of it then.  right: which of them is, from 0; None where only
    the reader's own run can tell. Raises ValueError for fewer than two options, or a `right` that is none of them.
    """
    said = dict(options) if isinstance(options, Mapping) else dict.fromkeys(options, "")
    if len(said) < 2:
        raise ValueError(f"a prediction needs at least two options, not {len(said)}.")
    if right is not None and not 0 <= right < len(said):
        raise ValueError(f"right is {right}: it counts the options from 0 to {len(said) - 1}.")
    controls = [
        Choice("answer", dict(enumerate(said)), look="radio", label=" ", empty=OPEN),
        Switch("locked", hidden=True),
        Button("lock", "Lock it in", {"locked": True}),
        Button("skip", "Show me", {"locked": True, "answer": OPEN}),
    ]
    shown = picture(
        partial(build, question, said, right),
        controls,
        {"answer": OPEN, "locked": False},
        name="prediction",
        frames=True,
    )
    _asked[question] = shown
    shown.right = right
    shown.observe(lambda _: [one.refresh() for one in _tallies], "choices")
    return shown


def build(question: str, said: Mapping[str, str], right: int | None, answer: int, locked: bool) -> Scene:
    """The question, and once it is locked in what is to be said of the answer."""
    names = list(said)
    alt = "\n".join([f"Predict: {question}", *(f"  ( ) {name}" for name in names)])
    scene = partial(Scene, "Predict", notes=(question,), alt=alt)
    if not locked:
        ready = (
            "Lock it in, and what follows is shown."
            if answer != OPEN
            else "Choose one; what follows is covered until then."
        )
        return scene(say=ready, off={} if answer != OPEN else {"lock": "choose one first"}, after="")
    off = {"answer": "locked in"}
    truth = f"The answer: “{names[right]}”. {said[names[right]]}" if right is not None else "Your run below tells."
    if answer == OPEN:
        return scene(say=truth, off=off, after="You did not predict.")
    verdict = "" if right is None else "✓ Right. " if answer == right else "✗ Not so. "
    more = f" {truth}" if answer != right else ""
    return scene(say=f"{verdict}{said[names[answer]]}{more}".strip(), off=off, after=f"You predicted: {names[answer]}")


def tally() -> Picture:
    """The predictions of this lesson, each with what was chosen and whether it was right. Put it at the end."""
    shown = picture(_tally, name="tally")
    _tallies.append(shown)
    return shown


def _tally() -> Scene:
    marks, right, answered = [], 0, 0
    for place, (question, asked) in enumerate(_asked.items()):
        chosen, locked = asked.choices["answer"], asked.choices["locked"]
        done = locked and chosen != OPEN
        good = done and chosen == asked.right
        answered, right = answered + done, right + good
        sign = "✓" if good else "·" if not done or asked.right is None else "✗"
        marks += [
            text(4, 14 + ROW * place, sign, "strong"),
            text(24, 14 + ROW * place, question, "", WIDE - 30, "clip", tip=question),
        ]
    count = len(_asked)
    note = (
        f"{answered} of {count} predicted, {right} right."
        if answered
        else f"{count} questions; none is answered in this run yet."
    )
    why = "A wrong one is worth most: read again what follows it." if answered > right else ""
    return Scene(
        "Your predictions", (Panel(WIDE, ROW * count + 4, marks),) if answered else (), (note, why) if why else (note,)
    )
