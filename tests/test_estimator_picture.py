"""The memory estimator: what it says, draws, offers and refuses."""

import subprocess
import sys
from dataclasses import asdict, replace

import pytest

from course_lib.cost.advice import Estimate
from course_lib.cost.hardware import GPU, GPUS
from course_lib.cost.plan import Plan
from course_lib.cost.shapes import MODELS, Transformer
from course_lib.viz import memory_estimator
from course_lib.viz.pictures.estimator import GROUPS

NEAR = Plan(tp=8, pp=8, dp=2, batch=32)  # of GPT-3 175B: 20 GB too many for an A100
OWN = Transformer("my own", 6, 384, 6, vocab_size=1000, context=256)
WIDTHS = (320, 380, 760, 1100)


def marks(picture):
    return picture.scene.panels[0].marks


def texts(picture):
    return [mark.text for mark in marks(picture) if mark.shape == "text"]


def bars(picture, of):
    """The bars of one row, in order."""
    kinds = ("parameters", "gradients", "optimizer", "activations")
    return [m for m in marks(picture) if m.shape == "rect" and m.kind in kinds and m.key.startswith(f"{of} ")]


def test_it_says_and_draws_what_the_reader_chose():
    picture = memory_estimator().choose(gpu="H200", tp=8, pp=8, dp=2, batch=32)
    now = Estimate(MODELS["GPT-3 175B"], GPUS["H200"], NEAR)
    assert str(picture).startswith(str(now))
    for words in ("100.4 GB", "H200: 141 GB", "✓ fits: 40.6 GB to spare", "optimizer state"):
        assert words in texts(picture)
    assert picture.scene.notes[0] == f"{now.sizes} · ZeRO stage 0 · recomputation none."


@pytest.mark.parametrize("width", WIDTHS)
def test_bars_are_to_scale_meet_and_stay_in_the_panel(width):
    picture = memory_estimator("GPT-3 175B", "A100", NEAR)
    picture.width = width
    total, use = bars(picture, "total"), Estimate(MODELS["GPT-3 175B"], GPUS["A100"], NEAR).use
    assert [m.kind for m in total] == ["parameters", "gradients", "optimizer", "activations"]
    assert all(a.x + a.w == pytest.approx(b.x) for a, b in zip(total, total[1:]))
    assert [m.w / total[0].w for m in total] == pytest.approx([n / use.parameters for n in vars(use).values()])
    (limit,) = [m for m in marks(picture) if m.key == "total limit"]
    assert (limit.x - total[0].x) / sum(m.w for m in total) == pytest.approx(80e9 / use.total)
    panel = picture.scene.panels[0]
    assert all(0 <= m.x and m.x + m.w <= panel.w + 0.1 and m.y + m.h <= panel.h for m in panel.marks)


def test_a_change_is_a_row_that_a_click_chooses_and_shows_what_it_leads_to():
    picture = memory_estimator("GPT-3 175B", "A100", NEAR)
    rows = [mark for mark in marks(picture) if mark.focus == "changes"]
    assert [row.sets for row in rows] == [
        (("recompute", "selective"),), (("sequence_parallel", True),), (("tp", 16),), (("pp", 16),),
        (("gpu", "H200"),), (("zero", 1),),
    ]  # fmt: skip
    tip = "recomputation none → selective: fits: 3.79 GB to spare, 76.2 GB on each of 128 GPUs"
    assert rows[0].tip == tip and "✓ recomputation none → selective" in texts(picture)
    assert "The total after one change: 5 of 6 fit." in texts(picture)
    shown = [mark.w for mark in bars(picture, "recompute")]
    before = bars(picture, "total")
    picture.choose(**dict(rows[0].sets))
    assert "✓ fits: 3.79 GB to spare" in texts(picture)
    after = bars(picture, "total")  # on a scale of its own
    assert [w / before[0].w for w in shown] == pytest.approx([mark.w / after[0].w for mark in after])


def test_choices_that_change_nothing_are_told_and_where_nothing_helps_it_is_said():
    idle = memory_estimator("GPT-2", plan=Plan(zero=1, sequence_parallel=True)).scene.notes[1]
    assert idle.startswith("ZeRO divides by dp, which is 1. Sequence parallel divides by tp, which is 1. ")
    tiny = Transformer("tiny", 1, 64, 1, vocab_size=256, context=64)
    picture = memory_estimator(tiny, plan=Plan(recompute="selective"))
    assert "No single change needs less memory." in texts(picture) and "✓ fits: 80.0 GB to spare" in texts(picture)


def test_in_place_of_a_plan_that_cannot_be_stands_the_rule():
    picture = memory_estimator(plan=Plan(pp=7, batch=7))
    rule = "GPT-3 175B has 96 layers, which pp × chunks = 7 does not divide: take a divisor of 96."
    assert str(picture) == rule and rule in picture.html()
    with pytest.raises(ValueError, match="take a divisor of 96"):
        _ = picture.scene


def test_every_preset_and_an_own_model_and_gpu_can_be_chosen():
    picture = memory_estimator(OWN, GPU("my card", 2024, 100, 24, 1.0, 32), Plan(batch=8, gradient_bytes=4))
    assert picture._by_name["model"].values == (*MODELS, "my own")
    assert picture._by_name["gpu"].values == (*GPUS, "my card")
    assert str(picture).startswith("my own on my card (24 GB)")
    assert bars(picture, "total")[1].tip.startswith(f"gradients: {4 * OWN.parameters:,} bytes, ")
    fields = set(asdict(Plan())) - {"overlap_gradients", "gradient_bytes"}
    assert {name for group in GROUPS.values() for name in group} == fields | {"model", "gpu"}


def test_the_same_choice_gives_the_same_picture_in_another_process():
    code = "from course_lib.viz import memory_estimator as m; print(m('Llama 3 70B', 'H100').svg())"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, encoding="utf-8")
    here = memory_estimator("Llama 3 70B", "H100")
    assert there.stdout == here.svg() + "\n" and len(here.svg()) < 15_000 and len(here._scene) < 15_000


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"model": "GPT-4"}, ValueError, "model is one of 'BERT-Base', .*, not 'GPT-4'"),
        ({"gpu": "H300"}, ValueError, "gpu is one of 'P100', 'V100', .*, not 'H300'"),
        ({"model": replace(OWN, name="GPT-2")}, ValueError, "'GPT-2' is a preset with other numbers"),
        ({"model": 7}, TypeError, "pass a name or a Transformer, not a int"),
        ({"gpu": None}, TypeError, "pass a name or a GPU, not a NoneType"),
        ({"plan": {"tp": 8}}, TypeError, r"plan is a Plan\(tp=..., pp=..., dp=...\), not a dict"),
    ],
)
def test_what_is_refused_is_refused_in_a_sentence(arguments, error, message):
    with pytest.raises(error, match=message):
        memory_estimator(**arguments)
