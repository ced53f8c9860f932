"""The memory estimator without a page: what it computes, suggests, draws and refuses."""

import subprocess
import sys
from dataclasses import asdict, replace
from itertools import product
from xml.etree import ElementTree

import pytest

from course_lib.cost.hardware import GPU, GPUS
from course_lib.cost.memory import memory_use
from course_lib.cost.plan import Plan
from course_lib.cost.shapes import MODELS, Transformer
from course_lib.viz import memory_estimator
from course_lib.viz.estimator_model import LABELS, capacity_bytes, gb_text, heading, suggestions

SVG = "{http://www.w3.org/2000/svg}"
NEAR = Plan(tp=8, pp=8, dp=2, batch=32)  # of GPT-3 175B: 20 GB too many for an A100
OWN = Transformer("my own", 6, 384, 6, vocab_size=1000, context=256)


def texts(svg):
    return [node.text or "" for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


PLANS = [
    Plan(),
    NEAR,
    Plan(tp=2, pp=2, dp=4, batch=64, microbatch=2, chunks=2, zero=1),
    Plan(tp=4, dp=8, batch=96, microbatch=6, recompute="selective", sequence_parallel=True, zero=2),
    Plan(pp=2, batch=2, recompute="full", zero=3),
]
CASES = [
    (model, plan, gpu)
    for model, plan, gpu in product(MODELS.values(), PLANS, GPUS.values())
    if not (model.num_layers % (plan.pp * plan.chunks) or model.num_heads % plan.tp)
]


# --- suggestions


def test_a_suggestion_leads_where_it_says():
    fitting = 0
    for model, plan, gpu in CASES:
        now = memory_use(model, plan).total
        for found in suggestions(model, plan, gpu):
            settings = dict(found.settings)
            on = GPUS[settings.pop("gpu", gpu.name)]
            after = replace(plan, **settings)
            total = memory_use(model, after).total
            assert (total, after.num_gpus) == (found.total_bytes, found.num_gpus)
            assert found.spare_bytes == on.memory_gb * 10**9 - total
            assert found.fits == (total <= on.memory_gb * 10**9)
            assert total < now or on.memory_gb > gpu.memory_gb
            fitting += found.fits
    assert fitting > 100


def test_those_that_fit_come_first_and_those_that_change_nothing_do_not_come():
    for model, plan, gpu in CASES:
        found = suggestions(model, plan, gpu)
        fits = [s.fits for s in found]
        assert fits == sorted(fits, reverse=True)
        rest = [s.spare_bytes for s in found if not s.fits]
        assert rest == sorted(rest, reverse=True)
        names = {name for s in found for name in s.settings}
        assert plan.tp > 1 or "sequence_parallel" not in names
        assert plan.dp > 1 or "zero" not in names
        assert len({s.change for s in found}) == len(found)
        if memory_use(model, plan).total <= capacity_bytes(gpu):
            assert "gpu" not in names


def test_what_would_help_gpt_3():
    found = suggestions(MODELS["GPT-3 175B"], NEAR, GPUS["A100"])
    assert [s.change for s in found] == [
        "recomputation none → selective",
        "sequence parallel off → on",
        "tensor parallel 8 → 16",
        "pipeline stages 8 → 16",
        "GPU A100 → H200",
        "ZeRO stage 0 → 1",
    ]
    assert heading(found, False) == "The total after one change: 5 of 6 make it fit."
    alone = suggestions(MODELS["GPT-3 175B"], Plan(), GPUS["A100"])
    assert heading(alone, False) == "No single change is enough. The best ones:"
    assert alone[0].change == "pipeline stages 1 → 2" and not any(s.fits for s in alone)


def test_a_doubled_degree_goes_on_to_the_next_that_divides_the_model():
    found = suggestions(MODELS["Llama 3 405B"], Plan(pp=2, tp=8, batch=2), GPUS["H100"])  # 126 layers
    assert "pipeline stages 2 → 6" in [s.change for s in found]
    found = suggestions(MODELS["GPT-2"], Plan(zero=1), GPUS["P100"])  # 25 heads
    assert "tensor parallel 1 → 5" in [s.change for s in found]


def test_twice_the_copies_take_the_batch_along_only_where_they_must():
    model, gpu = MODELS["GPT-3 13B"], GPUS["A100"]
    changes = [s.change for s in suggestions(model, Plan(dp=4, batch=4, zero=1), gpu)]
    assert "data-parallel copies 4 → 8, batch 4 → 8" in changes
    changes = [s.change for s in suggestions(model, Plan(dp=4, batch=8, zero=1), gpu)]
    assert "data-parallel copies 4 → 8" in changes


def test_the_bigger_gpu_is_the_smallest_that_is_enough():
    model = MODELS["GPT-3 2.7B"]  # 60 GB
    (bigger,) = [s for s in suggestions(model, Plan(), GPUS["P100"]) if "gpu" in s.settings]
    assert bigger.change == "GPU P100 → A100" and bigger.fits
    (bigger,) = [s for s in suggestions(MODELS["GPT-3 175B"], Plan(), GPUS["A100"]) if "gpu" in s.settings]
    assert bigger.change == "GPU A100 → B200" and not bigger.fits
    assert not [s for s in suggestions(MODELS["GPT-3 175B"], Plan(), GPUS["B200"]) if "gpu" in s.settings]


def test_suggestions_for_what_is_impossible_name_the_rule():
    with pytest.raises(ValueError, match="96 layers, which pp × chunks = 7"):
        suggestions(MODELS["GPT-3 175B"], Plan(pp=7, batch=7), GPUS["A100"])


# --- numbers


@pytest.mark.parametrize(
    ("nbytes", "shown"),
    [
        (0, "0.000000 GB"),
        (80 * 10**9, "80.0 GB"),
        (2_798_449_999_999, "2,798.4 GB"),
        (1_835_000_000, "1.84 GB"),
        (31_249_999, "0.0312 GB"),
        (9_999_999_999, "10.00 GB"),
    ],
)
def test_gigabytes_are_written_with_three_digits_or_one_decimal(nbytes, shown):
    assert gb_text(nbytes) == shown


def test_parts_are_written_like_their_total():
    assert gb_text(31_249_999, of=80 * 10**9) == "0.0 GB"


# --- the widget


def test_it_says_and_draws_what_the_reader_chose():
    widget = memory_estimator()
    widget.state = {"gpu": "H200", **asdict(NEAR)}  # as the page would; the model stays
    assert widget.plan == NEAR and widget.model is MODELS["GPT-3 175B"] and widget.gpu is GPUS["H200"]
    assert widget.memory == memory_use(widget.model, NEAR)
    want = "GPT-3 175B on H200 (141 GB), one GPU of the first stage: parameters 5.6 GB, gradients 5.6 GB, "
    assert repr(widget).startswith(want) and "fits: 40.6 GB to spare" in repr(widget)
    found = texts(widget.svg())
    for line in ("100.4 GB", "H200: 141 GB", "✓ fits: 40.6 GB to spare", "optimizer state"):
        assert line in found


def test_a_plan_that_cannot_be_is_shown_with_its_rule():
    widget = memory_estimator(plan=Plan(pp=7, batch=7))
    rule = "GPT-3 175B has 96 layers, which pp × chunks = 7 does not divide: take a divisor of 96."
    assert repr(widget) == f"GPT-3 175B on A100 (80 GB): not possible: {rule}"
    assert f"✗ not possible: {rule}" in " ".join(texts(widget.svg())) and "–" in texts(widget.svg())
    with pytest.raises(ValueError, match="take a divisor of 96"):
        _ = widget.memory
    widget.state = {"batch": 0}
    with pytest.raises(ValueError, match="batch is 0: it must be at least 1"):
        _ = widget.plan


def test_every_preset_and_an_own_model_and_gpu_can_be_chosen():
    own_gpu = GPU("my card", 2024, 100, 24, 1.0, 32)
    widget = memory_estimator(OWN, own_gpu, Plan(batch=8, microbatch=8))
    assert list(widget.data["models"]) == [*MODELS, "my own"]
    assert widget.data["gpus"]["my card"] == 24 * 10**9 and set(GPUS) < set(widget.data["gpus"])
    assert widget.memory == memory_use(OWN, widget.plan) and widget.gpu is own_gpu
    controls = {name for group in LABELS.values() for name in group}
    assert controls == set(widget.state) - {"overlap_gradients", "gradient_bytes"}


@pytest.mark.parametrize(
    "arguments", [(), (OWN, "B200", Plan(dp=2, batch=2, zero=3)), ("GPT-2", "V100", Plan(tp=4))]
)
def test_the_picture_is_well_formed_and_stands_alone(arguments):
    widget = memory_estimator(*arguments)
    svg = widget.svg()
    root = ElementTree.fromstring(svg)
    assert root.find(f"{SVG}title").text.startswith("Memory of one GPU: ")
    assert root.find(f"{SVG}desc").text == repr(widget)
    assert "var(" not in svg and "http" not in svg.replace("http://www.w3.org/2000/svg", "")
    assert len(svg) < 12_000
    bundle, _ = widget._repr_mimebundle_()
    assert bundle["text/html"].startswith(f'<img alt="{repr(widget)[:20]}')
    assert ElementTree.fromstring(widget.picture).find(f"{SVG}g") is None


def test_bars_stay_on_the_card_and_meet():
    for model, plan, gpu in CASES[::7]:
        root = ElementTree.fromstring(memory_estimator(model, gpu, plan).svg())
        found = [
            node
            for node in root.iter(f"{SVG}rect")
            if "held" in node.get("class") and "sum" in node.get("class")
        ]
        ends = [(float(node.get("x")), float(node.get("x")) + float(node.get("width"))) for node in found]
        assert len(ends) == 4 and ends[-1][1] <= 760
        assert all(abs(a[1] - b[0]) < 0.02 for a, b in zip(ends, ends[1:]))


def test_the_same_choice_gives_the_same_picture_in_another_process():
    code = "from course_lib.viz import memory_estimator as m; print(m('Llama 3 70B', 'H100').svg())"
    there = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    assert there.stdout == memory_estimator("Llama 3 70B", "H100").svg() + "\n"


# --- what it refuses


def test_an_unknown_name_lists_what_there_is():
    with pytest.raises(ValueError) as error:
        memory_estimator("GPT-4")
    assert str(error.value) == (
        f"there is no Transformer called 'GPT-4': take {', '.join(MODELS)}, or pass one of your own."
    )
    with pytest.raises(ValueError, match="there is no GPU called 'H300': take P100, V100, A100"):
        memory_estimator(gpu="H300")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": 7}, "pass a name or a Transformer, not a int"),
        ({"gpu": None}, "pass a name or a GPU, not a NoneType"),
        ({"plan": {"tp": 8}}, r"plan is a Plan\(tp=..., pp=..., dp=...\), not a dict"),
    ],
)
def test_what_is_neither_a_name_nor_a_value_is_refused(arguments, message):
    with pytest.raises(TypeError, match=message):
        memory_estimator(**arguments)


def test_an_own_model_does_not_take_a_presets_name():
    with pytest.raises(
        ValueError, match="'GPT-2' is a preset with other numbers: give yours a name of its own"
    ):
        memory_estimator(replace(OWN, name="GPT-2"))
    memory_estimator(MODELS["GPT-2"])


def test_a_state_that_names_nothing_is_refused_and_the_old_one_stays():
    widget = memory_estimator()
    for wrong, message in [
        ({"model": "GPT-4"}, "there is no Transformer"),
        ({"tensor": 8}, "nothing called tensor"),
    ]:
        with pytest.raises(ValueError, match=message):
            widget.state = wrong
        assert widget.state["model"] == "GPT-3 175B" and "tensor" not in widget.state
