"""The roofline picture: roofs, marks and their names, figures, what was measured, and what it refuses."""

import subprocess
import sys
from itertools import combinations

import pytest

from course_lib.cost.hardware import GPUS, Roofline
from course_lib.cost.operations import operations
from course_lib.cost.shapes import MODELS, Transformer
from course_lib.viz import roofline
from course_lib.viz.scene import text_width

TINY = Transformer("tiny", 2, 8, 2, 64, 16)
MINE = Roofline(1.3e11, 1.1e10)
MEASURED = {"copy": (0.0, 0.0), "dot": (0.25, 2.2e9), "a product": (146.0, 1.0e11)}


def marks(picture, focus=None):
    found = picture.scene.panels[0].marks
    return [mark for mark in found if focus is None or mark.focus == focus]


def texts(picture):
    return [mark.text for mark in marks(picture) if mark.shape == "text"]


def test_figures_words_and_roofs_are_those_of_the_choice():
    picture = roofline("V100").choose(device="H100", operation="softmax", model="GPT-2", tokens=16, beside="V100")
    op, roof = operations(MODELS["GPT-2"])["softmax"], GPUS["H100"].roofline
    said = op.sentences(roof, 16)
    assert picture.scene.title == "softmax · GPT-2 · H100" and picture.scene.notes == (said[0], said[2])
    assert str(picture).split("\n")[1:] == [*said, f"Compared with V100: {GPUS['V100'].roofline}."]
    figures = op.figures(roof, 16)
    assert len(figures) == 6 and {*figures, *figures.values()} <= set(texts(picture))
    for words in ("H100: 989 TFLOP/s", "3.35 TB/s", "ridge 295", "V100: 125 TFLOP/s, ridge 139"):
        assert words in texts(picture)


def test_a_mark_is_on_the_roof_and_its_shape_tells_what_limits():
    for tokens, shape in ((1, "dot"), (4096, "path")):
        (first, *_) = [m for m in marks(roofline(tokens=tokens), "operations") if m.key == "MLP up"]
        assert first.shape == shape and first.sets == (("operation", "MLP up"),)
        assert f"limited by {'memory' if tokens == 1 else 'arithmetic'}" in first.tip
    flat = [m for m in marks(roofline(tokens=65536), "operations") if m.shape == "path"]
    assert len(flat) > 3 and len({m.y for m in flat}) == 1, "where arithmetic is the limit the roof is flat"
    slope = sorted((m.x, m.y) for m in marks(roofline(tokens=1), "operations"))
    steep = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in zip(slope, slope[1:]) if b[0] - a[0] > 1]
    assert max(steep) - min(steep) < 1e-6 and max(steep) < 0, "where memory is, it rises with the intensity"


def test_the_chosen_operation_is_there_with_the_others_of_its_kind_or_alone():
    there = operations(TINY)
    for name, op in there.items():
        alike = {other.name for other in there.values() if other.phase == op.phase}
        assert {mark.key for mark in marks(roofline(operation=name), "operations")} == alike
        assert [m.key for m in marks(roofline(operation=name, everything=False), "operations")] == [name]


@pytest.mark.parametrize("device", ["P100", "V100", "H100", "this machine"])
@pytest.mark.parametrize("width", [320, 760, 1100])
def test_names_overlap_nowhere_and_only_a_phone_leaves_out_many(device, width):
    picture = roofline(device, mine=MINE, measured=MEASURED, beside="A100")
    picture.width, named, there = width, 0, 0
    for operation in operations(TINY):
        for tokens in (1, 64, 2048, 65536):
            for model in ("GPT-2", "Llama 3 70B"):
                picture.choose(operation=operation, tokens=tokens, model=model)
                words = [m for m in marks(picture) if m.shape == "text" and "halo" in m.kind]
                for a, b in combinations(map(box, words), 2):
                    apart = a[2] <= b[0] + 1 or b[2] <= a[0] + 1 or a[3] <= b[1] + 1 or b[3] <= a[1] + 1
                    assert apart, (operation, tokens, model)
                assert width == 320 or operation in [mark.text for mark in words]
                named += sum(bool(mark.key) for mark in words)
                there += len(marks(picture, "operations"))
    assert named / there > (0.75 if width == 320 else 0.98)


def box(mark):
    wide = mark.w or text_width(mark.text, mark.kind)
    left = mark.x - wide * ("end" in mark.kind)
    return left, mark.y - 10, left + wide, mark.y + 3


def test_a_measured_machine_is_compared_with_from_the_start_and_has_what_ran_on_it():
    picture = roofline(mine=MINE, measured=MEASURED)
    assert picture.choices["beside"] == "this machine" and "this machine: 130 GFLOP/s, ridge 11.8" in texts(picture)
    hollow = [mark for mark in marks(picture) if mark.kind == "hollow"]
    assert [mark.key for mark in hollow] == ["a product", "dot"], "a copy does no FLOPs"
    assert hollow[1].tip == "dot, measured: 0.250 FLOPs a byte, 2.20 GFLOP/s, 80% of its roof"
    alone = roofline(mine=MINE, measured=MEASURED, beside="nothing")
    assert not [mark for mark in marks(alone) if mark.kind == "hollow"], "its roof is not there either"
    assert roofline("this machine", mine=MINE).choices["beside"] == "nothing"
    assert roofline().choices["beside"] == "nothing"


def test_the_name_of_the_other_roof_exchanges_the_two():
    (swap,) = [mark for mark in marks(roofline("A100", beside="V100")) if mark.sets[:1] == (("device", "V100"),)]
    assert swap.sets == (("device", "V100"), ("beside", "A100")) and "click" in swap.tip


@pytest.mark.parametrize("width", [320, 480, 760, 1100])
def test_all_of_it_stays_in_the_panel(width):
    for operation in ("generating: linear layers", "MLP up"):
        picture = roofline("H200", operation, "Llama 3 405B", 1, beside="H100", mine=MINE, measured=MEASURED)
        picture.width = width
        (panel,) = picture.scene.panels
        for mark in panel.marks:
            wide = mark.w or text_width(mark.text, mark.kind) * (mark.shape == "text")
            assert mark.x >= 0 and mark.x + wide * ("end" not in mark.kind) <= panel.w + 1, mark
            assert 0 <= mark.y <= panel.h


def test_the_same_choice_gives_the_same_picture_in_another_process():
    program = "from course_lib.viz import roofline; print(roofline('H100', 'softmax', beside='V100').svg())"
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True)
    here = roofline("H100", "softmax", beside="V100")
    assert there.stdout == here.svg() + "\n" and len(here.html()) < 15_000 and len(here._scene) < 15_000


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"device": "A10"}, ValueError, "device is one of 'P100', 'V100', .*, not 'A10'"),
        ({"device": "this machine"}, ValueError, "device is one of 'P100', .*, not 'this machine'"),
        ({"beside": "TPU"}, ValueError, "beside is one of 'nothing', 'P100', .*, not 'TPU'"),
        ({"operation": "dropout"}, ValueError, "operation is one of 'layer norm', .*, not 'dropout'"),
        ({"model": "GPT-5"}, ValueError, "model is one of 'BERT-Base', .*, not 'GPT-5'"),
        ({"tokens": 3}, ValueError, "tokens is one of 1, 2, 4, .*, 65536, not 3"),
        ({"mine": GPUS["A100"]}, TypeError, "mine is a Roofline, measured or made up, not a GPU"),
        ({"measured": MEASURED}, TypeError, "mine is a Roofline, measured or made up, not a NoneType"),
    ],
)
def test_what_is_refused_is_refused_in_a_sentence(wrong, error, message):
    with pytest.raises(error, match=message):
        roofline(**wrong)


def test_a_model_of_ones_own_can_be_chosen():
    picture = roofline(model=Transformer("a < b & c", 1, 8, 2, 64), operation="Adam step")
    assert picture.scene.title == "Adam step · a < b & c · A100" and "a &lt; b &amp; c" in picture.svg()
