"""What a plan needs beside what a GPU has, and the changes that are suggested."""

from dataclasses import replace
from itertools import product

import pytest

from course_lib.cost.advice import Estimate, suggestions
from course_lib.cost.hardware import GPUS
from course_lib.cost.memory import memory_use
from course_lib.cost.plan import Plan
from course_lib.cost.shapes import MODELS

NEAR = Plan(tp=8, pp=8, dp=2, batch=32)  # of GPT-3 175B: 20 GB too many for an A100
PLANS = [
    Plan(),
    NEAR,
    Plan(tp=2, pp=2, dp=4, batch=64, microbatch=2, chunks=2, zero=1),
    Plan(tp=4, dp=8, batch=96, microbatch=6, recompute="selective", sequence_parallel=True, zero=2),
    Plan(pp=2, batch=2, recompute="full", zero=3),
]
CASES = [
    Estimate(model, gpu, plan)
    for model, plan, gpu in product(MODELS.values(), PLANS, GPUS.values())
    if not (model.num_layers % (plan.pp * plan.chunks) or model.num_heads % plan.tp)
]


def changes(model, gpu, plan):
    return [s.change for s in suggestions(Estimate(MODELS[model], GPUS[gpu], plan))]


def test_an_estimate_is_said_in_one_sentence():
    near = Estimate(MODELS["GPT-3 175B"], GPUS["H200"], NEAR)
    assert near.use == memory_use(near.model, NEAR) and near.spare_bytes == 141 * 10**9 - near.use.total
    assert str(near) == (
        "GPT-3 175B on H200 (141 GB), one GPU of the first stage: parameters 5.6 GB, gradients 5.6 GB, "
        "optimizer state 33.6 GB, activations 55.6 GB, total 100.4 GB; fits: 40.6 GB to spare; "
        "128 GPUs = tp 8 × pp 8 × dp 2 · 16 micro-batches of 1 sequence per pipeline"
    )
    assert Estimate(near.model, GPUS["A100"], NEAR).verdict == "does not fit: 20.4 GB too many"


def test_a_suggestion_leads_where_it_says():
    fitting = 0
    for now in CASES:
        for found in suggestions(now):
            settings = dict(found.settings)
            gpu = GPUS[settings.pop("gpu", now.gpu.name)]
            assert found.after == Estimate(now.model, gpu, replace(now.plan, **settings))
            assert found.after.use.total < now.use.total or gpu.memory_gb > now.gpu.memory_gb
            fitting += found.after.fits
    assert fitting > 100


def test_those_that_fit_come_first_and_those_that_change_nothing_do_not_come():
    for now in CASES:
        found = suggestions(now)
        fits = [s.after.fits for s in found]
        assert fits == sorted(fits, reverse=True)
        gpus = [(("gpu" in s.settings), s.after.plan.num_gpus) for s in found if s.after.fits]
        rest = [s.after.spare_bytes for s in found if not s.after.fits]
        assert gpus == sorted(gpus) and rest == sorted(rest, reverse=True)
        names = {name for s in found for name in s.settings}
        assert now.plan.tp > 1 or "sequence_parallel" not in names
        assert now.plan.dp > 1 or "zero" not in names
        assert len({s.change for s in found}) == len(found)
        assert not (now.fits and "gpu" in names)


def test_what_would_help_gpt_3():
    assert changes("GPT-3 175B", "A100", NEAR) == [
        "recomputation none → selective",
        "sequence parallel off → on",
        "tensor parallel 8 → 16",
        "pipeline stages 8 → 16",
        "GPU A100 → H200",
        "ZeRO stage 0 → 1",
    ]
    assert changes("GPT-3 175B", "A100", Plan())[0] == "pipeline stages 1 → 2"


def test_a_doubled_degree_goes_on_to_the_next_that_divides_the_model():
    assert "pipeline stages 2 → 6" in changes("Llama 3 405B", "H100", Plan(pp=2, tp=8, batch=2))  # 126 layers
    assert "tensor parallel 1 → 5" in changes("GPT-2", "P100", Plan(zero=1))  # 25 heads


def test_twice_the_copies_take_the_batch_along_only_where_they_must():
    found = changes("GPT-3 13B", "A100", Plan(dp=4, batch=4, zero=1))
    assert "data-parallel copies 4 → 8, batch 4 → 8" in found
    assert "data-parallel copies 4 → 8" in changes("GPT-3 13B", "A100", Plan(dp=4, batch=8, zero=1))


@pytest.mark.parametrize(
    ("model", "gpu", "change"),
    [
        ("GPT-3 2.7B", "P100", ["GPU P100 → A100"]),  # 60 GB: the smallest that is enough
        ("GPT-3 175B", "A100", ["GPU A100 → B200"]),  # none is enough: the largest
        ("GPT-3 175B", "B200", []),
    ],
)
def test_another_gpu_is_the_smallest_that_is_enough(model, gpu, change):
    assert [found for found in changes(model, gpu, Plan()) if found.startswith("GPU")] == change


def test_what_is_impossible_names_the_rule():
    with pytest.raises(ValueError, match="96 layers, which pp × chunks = 7"):
        Estimate(MODELS["GPT-3 175B"], GPUS["A100"], Plan(pp=7, batch=7))
