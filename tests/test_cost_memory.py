"""Activations by the formulas of Korthikanti et al. 2022, plans that cannot be, and the fullest GPU of a plan."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib.cost.memory import ends_activations, layer_activations, layers_in_flight, memory_use, parameters_per_gpu
from course_lib.cost.plan import Plan
from course_lib.cost.shapes import MODELS, Transformer

GPT3 = Transformer("GPT-3", 96, 12288, 96)


@given(st.sampled_from([1, 2, 3, 4, 6, 8]), st.integers(1, 8), st.sampled_from([128, 2048, 8192]), st.integers(1, 200))
def test_a_layers_activations_are_those_of_the_paper(t, b, s, head_width):
    a = 24
    h = a * head_width
    model, sbh = Transformer("gpt", 2, h, a, context=s), s * b * h
    core = 5 * a * s / h
    want = {
        ("none", False): sbh * (10 + 24 / t + core / t),
        ("none", True): sbh * (34 / t + core / t),
        ("selective", False): sbh * (10 + 24 / t),
        ("selective", True): sbh * 34 / t,
        ("full", False): 2 * sbh,
    }
    for (recompute, cut), nbytes in want.items():
        plan = Plan(tp=t, batch=b, microbatch=b, recompute=recompute, sequence_parallel=cut)
        assert layer_activations(model, plan) == pytest.approx(nbytes, rel=1e-12)


@pytest.mark.parametrize(
    ("plan", "layers"),
    [
        (Plan(batch=4), 96),
        (Plan(pp=8, batch=64), 96),  # stage 0 has 8 micro-batches of 12 layers under way: the same
        (Plan(pp=8, batch=64, chunks=3), 96 * (1 + 7 / 24)),
        (Plan(pp=8, batch=4), 96 * 4 / 8),
        (Plan(pp=2, dp=2, batch=2), 48),
    ],
)
def test_layers_in_flight(plan, layers):
    assert layers_in_flight(GPT3, plan) == pytest.approx(layers)


def test_the_ends_of_the_model_are_those_of_the_paper():
    s, h, v = 2048, 12288, 51200
    assert ends_activations(GPT3, Plan(tp=8)) == pytest.approx(s * h * (1 + 4 * (1 + v / h)) / 8)
    assert ends_activations(GPT3, Plan(tp=8, pp=4, batch=8)) == pytest.approx(s * h * 4 / 8)


def test_parameters_of_the_fullest_gpu():
    one = Plan()
    assert parameters_per_gpu(GPT3, one) == GPT3.parameters
    assert parameters_per_gpu(GPT3, replace(one, dp=8, batch=8)) == GPT3.parameters
    split = replace(one, pp=8, tp=8, batch=64)
    assert parameters_per_gpu(GPT3, split) == -(-(12 * GPT3.layer_parameters + GPT3.embedding_parameters) // 8)


def test_each_zero_stage_takes_one_kind_more_from_every_gpu():
    model = MODELS["Llama 3 8B"]
    kinds = ("optimizer_state", "gradients", "parameters")
    whole = memory_use(model, Plan(dp=8, batch=8, recompute="selective"))
    for stage in (1, 2, 3):
        use = memory_use(model, Plan(dp=8, batch=8, recompute="selective", zero=stage))
        for number, kind in enumerate(kinds, 1):
            share = 8 if number <= stage else 1
            assert getattr(use, kind) == pytest.approx(getattr(whole, kind) / share, rel=1e-9)
        assert use.activations == whole.activations


def test_more_recomputation_keeps_less_and_one_layer_is_whole_while_it_runs_again():
    plans = [Plan(tp=8, batch=1, recompute=kind) for kind in ("none", "selective", "full")]
    none, selective, full = (memory_use(GPT3, plan).activations for plan in plans)
    assert none > selective > full
    kept = 96 * layer_activations(GPT3, plans[2]) + ends_activations(GPT3, plans[2])
    assert full == round(kept + layer_activations(GPT3, plans[0]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dp": 3, "batch": 8}, "a batch of 8 does not split .* dp = 3 copies: it must be a multiple of 3"),
        ({"chunks": 2, "batch": 8}, "interleaved schedule .* needs pp > 1"),
        ({"chunks": 2, "pp": 4, "batch": 6}, "micro-batches in multiples of pp; here pp = 4 and there are 6"),
        ({"zero": 4}, "zero is 4: it must be 0, 1, 2 or 3"),
        ({"tp": 0}, "tp is 0: it must be at least 1"),
        ({"recompute": "all"}, "recompute is one of none, selective, full"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        Plan(**change)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (Plan(pp=64, batch=64), "GPT-3 has 96 layers, which pp × chunks = 64 does not divide: take a divisor of 96"),
        (Plan(pp=48, chunks=4, batch=48), "96 layers, which pp × chunks = 192 does not divide"),
        (Plan(tp=64), "96 heads, which tp = 64 does not divide"),
    ],
)
def test_a_plan_that_cannot_cut_the_model_is_refused(plan, words):
    with pytest.raises(ValueError, match=words):
        memory_use(GPT3, plan)
