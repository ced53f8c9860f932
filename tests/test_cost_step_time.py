"""The time of a step does what the physics says, when one thing at a time is changed."""

from dataclasses import replace

import pytest

from course_lib.cost.hardware import SYSTEMS
from course_lib.cost.kernels import linear_s, matmul_s
from course_lib.cost.links import Link
from course_lib.cost.plan import Plan
from course_lib.cost.shapes import MODELS, Transformer
from course_lib.cost.step_time import layer_time, step_time

A100 = SYSTEMS["A100"]
GPT3 = Transformer("GPT-3", 96, 12288, 96)
PLAN = Plan(pp=8, dp=4, tp=8, batch=256, recompute="full")


def of(plan=PLAN, model=GPT3, system=A100, software=1.0):
    return step_time(model, plan, system, software)


def test_the_parts_add_up_and_none_is_negative():
    time = of()
    parts = vars(time)
    assert len(parts) == 6 and min(parts.values()) > 0
    assert time.total_s == pytest.approx(sum(parts.values()))


def test_a_step_is_never_faster_than_the_peak_allows():
    for name, model in MODELS.items():
        plan = Plan(dp=2, batch=8)
        least = model.hardware_flops(8) / (2 * 312e12)
        assert of(plan, model).total_s > least, name


def test_the_bubble_is_p_minus_1_over_v_m_of_the_work():
    for chunks in (1, 2, 3):
        time = of(replace(PLAN, chunks=chunks))
        model = replace(GPT3, vocab_size=1)  # without a head every stage has the same work
        time = of(replace(PLAN, chunks=chunks), model)
        work = time.compute_s + time.tensor_parallel_s + time.pipeline_messages_s
        assert time.bubble_s / work == pytest.approx(7 / (chunks * 64), rel=0.01)


def test_recomputation_costs_a_forward():
    none, selective, full = (of(replace(PLAN, recompute=r)) for r in ("none", "selective", "full"))
    layer = layer_time(GPT3, A100, 1, 8, False)
    assert full.compute_s - none.compute_s == pytest.approx(64 * 12 * layer.forward_s)
    assert selective.compute_s - none.compute_s == pytest.approx(64 * 12 * layer.core_s)
    assert full.tensor_parallel_s > none.tensor_parallel_s == selective.tensor_parallel_s


def test_interleaving_trades_bubble_for_messages():
    plain, interleaved = of(), of(replace(PLAN, chunks=3))
    assert interleaved.bubble_s < plain.bubble_s / 2.5
    assert interleaved.pipeline_messages_s == pytest.approx(3 * plain.pipeline_messages_s)


def test_sequence_parallel_shortens_what_is_near_the_norms_and_gathers_once_more():
    plain, cut = layer_time(GPT3, A100, 1, 8, False), layer_time(GPT3, A100, 1, 8, True)
    assert cut.forward_s < plain.forward_s and cut.backward_s < plain.backward_s
    assert cut.forward_message_s == plain.forward_message_s
    assert cut.backward_message_s == pytest.approx(1.5 * plain.backward_message_s, rel=0.01)


def test_a_slower_network_costs_data_and_pipeline_parallel_only():
    slow = replace(A100, across=Link(1e-5, 2.5))
    fast_time, slow_time = of(), of(system=slow)
    assert slow_time.compute_s == fast_time.compute_s and slow_time.tensor_parallel_s == fast_time.tensor_parallel_s
    assert slow_time.data_parallel_s > 5 * fast_time.data_parallel_s
    assert slow_time.pipeline_messages_s > 2 * fast_time.pipeline_messages_s


def test_gradients_that_travel_during_backward_cost_nothing_if_backward_is_long():
    model, plan = Transformer("1.7B", 24, 2304, 24), Plan(dp=32, batch=512, microbatch=16, recompute="full")
    assert of(plan, model).data_parallel_s > 0.02
    assert of(replace(plan, overlap_gradients=True), model).data_parallel_s == 0
    slow = replace(A100, inside=Link(0, 0.1))
    assert of(replace(plan, overlap_gradients=True), model, slow).data_parallel_s > 1


def test_fully_sharded_pays_for_each_micro_batch_and_shares_the_optimizer():
    model = MODELS["Llama 3 8B"]
    slow = replace(A100, across=Link(1e-5, 0.5))
    plans = [Plan(dp=64, batch=64 * m, zero=3) for m in (1, 4)]
    once, often = (of(plan, model, slow).data_parallel_s for plan in plans)
    assert often == pytest.approx(4 * once, rel=0.01) and once > 0
    assert of(plans[0], model).optimizer_s == pytest.approx(of(replace(plans[0], zero=0), model).optimizer_s / 64)


def test_software_stretches_kernels_and_leaves_messages():
    one, two = of(), of(software=2.0)
    assert two.compute_s == pytest.approx(2 * one.compute_s)
    assert two.optimizer_s == pytest.approx(2 * one.optimizer_s)
    assert two.tensor_parallel_s == one.tensor_parallel_s


def test_tensor_parallel_does_not_leave_its_node():
    with pytest.raises(ValueError, match="tp = 16 spans more than a node of 8 GPUs"):
        of(Plan(tp=16))
    with pytest.raises(ValueError, match="96 layers, which pp × chunks = 64 does not divide"):
        of(Plan(pp=64, batch=64))


def test_a_product_is_limited_by_arithmetic_or_by_memory():
    flops, nbytes = 2 * 8192**3, 2 * 3 * 8192**2
    large = matmul_s(A100, 8192, 8192, 8192)
    assert large == pytest.approx(flops / (0.869 * 312e12), rel=0.03) and large > nbytes / 2e12
    row = matmul_s(A100, 1, 8192, 8192)  # one token: it reads the matrix, and that is all it does
    assert row == pytest.approx(2 * 8192**2 / 1.8e12 + 4e-6, rel=0.01)
    forward, backward = linear_s(A100, 4096, 4096, 4096)
    assert 2 < backward / forward < 2.3
