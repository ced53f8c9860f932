"""What a rank sends in a step: the bytes of the papers, the seconds of step_time, and the links that the layout gives it."""

from dataclasses import replace

import pytest

from course_lib.cost.communication import group_link, ranks_link
from course_lib.cost.hardware import SYSTEMS
from course_lib.cost.memory import parameters_per_gpu
from course_lib.cost.plan import Plan
from course_lib.cost.shapes import MODELS, Transformer
from course_lib.cost.step_time import head_time, layer_time, step_time, tensor_parallel_bytes
from course_lib.cost.traffic import hop_bytes, stage_parameters, step_traffic
from course_lib.layout import Layout

A100, TRILLION = SYSTEMS["A100"], MODELS["Megatron 1T"]
LARGE = Plan(pp=64, dp=6, tp=8, batch=3072, recompute="full")
GPT3 = MODELS["GPT-3 175B"]
SMALL = Transformer("small", 8, 64, 8, vocab_size=128, context=32)


def test_tensor_parallel_sends_what_the_paper_says_for_each_layer():
    m = 4
    for t in (2, 4, 8):
        plan = Plan(pp=4, tp=t, batch=m, sequence_parallel=False)
        found = step_traffic(SMALL, plan, A100, rank=t)  # slice 0 of stage 1
        layers = 8 // 4 * m * tensor_parallel_bytes(SMALL, plan)
        came_in = 2 * m * 2 * 32 * 64 * (t - 1) / t  # 2bsh bytes from either side, gathered
        assert found["tp"].sent_bytes == pytest.approx(layers + came_in)
        cut = step_traffic(SMALL, replace(plan, sequence_parallel=True), A100, rank=t)
        assert cut["tp"].sent_bytes == pytest.approx(layers * 10 / 8)  # backward gathers again
        first, last = (step_traffic(SMALL, plan, A100, rank)["tp"] for rank in (0, 4 * t - 1))
        at_an_end = m * 2 * 2 * 32 * 64 * (t - 1) / t  # an all-reduce of the embedding's rows, or of the head's input
        assert first.sent_bytes == last.sent_bytes == pytest.approx(layers + came_in / 2 + at_an_end)


def test_data_parallel_sends_each_gradient_twice_but_for_its_own_part():
    for dp in (2, 3, 8):
        plan = Plan(dp=dp, batch=dp, gradient_bytes=4)
        traffic = step_traffic(SMALL, plan, A100, 0)["dp"]
        assert traffic.sent_bytes == pytest.approx(2 * (dp - 1) / dp * 4 * SMALL.parameters, rel=1e-3)
        assert traffic.messages == 2 * (dp - 1)
        for zero in (1, 2):
            assert step_traffic(SMALL, replace(plan, zero=zero), A100, 0)["dp"].sent_bytes == traffic.sent_bytes
        whole = step_traffic(SMALL, replace(plan, zero=3, gradient_bytes=2), A100, 0)["dp"]
        assert whole.sent_bytes == pytest.approx(3 * (dp - 1) / dp * 2 * SMALL.parameters, rel=1e-3)


def test_a_stage_sends_to_its_neighbours_and_the_ends_to_one():
    plan = Plan(pp=4, tp=2, batch=12)
    sent = [step_traffic(SMALL, plan, A100, rank)["pp"] for rank in range(8)]
    assert [s.messages for s in sent] == [12, 12, 24, 24, 24, 24, 12, 12]
    assert all(s.sent_bytes == s.messages * 2 * 32 * 64 / 2 for s in sent)
    chunked = [step_traffic(SMALL, replace(plan, chunks=2), A100, rank)["pp"] for rank in range(8)]
    assert [s.messages for s in chunked] == [36, 36, 48, 48, 48, 48, 36, 36]


def test_all_that_is_sent_forward_over_the_borders_comes_in():
    """Every border is crossed by 2bsh bytes each way, for each micro-batch and copy."""
    for chunks in (1, 2):
        plan = Plan(pp=4, dp=2, tp=2, batch=8, chunks=chunks)
        total = sum(step_traffic(SMALL, plan, A100, rank)["pp"].sent_bytes for rank in range(16))
        borders = 4 * chunks - 1
        assert total == 2 * borders * 8 * 2 * 32 * 64


@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
@pytest.mark.parametrize("cut", [False, True])
def test_seconds_are_those_of_step_time(recompute, cut):
    plan = Plan(pp=8, dp=4, tp=8, batch=256, recompute=recompute, sequence_parallel=cut)
    time, layer = step_time(GPT3, plan, A100), layer_time(GPT3, A100, 1, 8, cut)
    middle, last = (step_traffic(GPT3, plan, A100, Layout(8, 4, 1, 8).rank(pp=stage)) for stage in (3, 7))
    again = layer.forward_message_s if recompute == "full" else 0
    messages = 64 * 12 * (layer.forward_message_s + layer.backward_message_s + again)
    assert middle["tp"].seconds + middle["pp"].seconds == pytest.approx(messages + time.pipeline_messages_s)
    gathers = 0 if cut else (time.pipeline_messages_s - 2 * last["pp"].seconds) / 2
    assert last["tp"].seconds == pytest.approx(time.tensor_parallel_s + gathers)


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_seconds_of_gradients_are_those_of_step_time(zero):
    plan = Plan(pp=1 if zero > 1 else 8, dp=4, tp=8, batch=256, zero=zero)
    m, time = plan.num_microbatches, step_time(GPT3, plan, A100)
    sent = step_traffic(GPT3, plan, A100, 0)["dp"].seconds
    if zero == 3:  # hidden behind the kernels of the layers
        hidden = time.compute_s - m * head_time(GPT3, A100, 1, 8)[0]
        assert sent - hidden == pytest.approx(time.data_parallel_s) and sent > hidden
    else:  # with a copy into and out of each message
        copies = (m if zero == 2 else 1) * 4 * 2 * parameters_per_gpu(GPT3, plan)
        assert sent == pytest.approx(time.data_parallel_s - copies / A100.roofline.bytes_per_s)


def test_the_order_of_the_axes_decides_which_links_are_used():
    found = {}
    for order in (("pp", "dp", "tp"), ("tp", "dp", "pp"), ("pp", "tp", "dp")):
        traffic = step_traffic(TRILLION, LARGE, A100, 1234, Layout(64, 6, 1, 8, order))
        found[order[-1]] = {group.axis: (group.inside, len(group.nodes)) for group in traffic.groups}
        assert [group.sent_bytes for group in traffic.groups] == [
            group.sent_bytes for group in step_traffic(TRILLION, LARGE, A100, 1234 // 48 * 48).groups
        ]
    assert found["tp"] == {"tp": (True, 1), "dp": (False, 6), "pp": (False, 64)}
    assert found["pp"] == {"tp": (False, 8), "dp": (False, 6), "pp": (True, 8)}
    assert found["dp"]["tp"] == (False, 6) and not found["dp"]["dp"][0]


def test_tensor_parallel_across_nodes_takes_ten_times_as_long():
    inside = step_traffic(TRILLION, LARGE, A100, 1234)["tp"]
    across = step_traffic(TRILLION, LARGE, A100, 1234, Layout(64, 6, 1, 8, ("tp", "dp", "pp")))["tp"]
    assert across.sent_bytes == inside.sent_bytes and 9 < across.seconds / inside.seconds < 235 / 22.5


def test_a_rank_of_a_pipeline_inside_nodes_still_crosses_where_a_node_ends():
    layout = Layout(16, 1, 1, 2, ("tp", "dp", "pp"))
    plan = Plan(pp=16, tp=2, batch=4)
    model = replace(SMALL, num_layers=16)
    at = [step_traffic(model, plan, A100, rank, layout)["pp"].inside for rank in range(16)]
    assert at == [True] * 7 + [False, False] + [True] * 7


def test_members_of_a_group_share_their_network_links_wherever_nodes_begin():
    for n, stride in ((8, 1), (2, 4), (32, 1), (32, 4), (32, 8), (64, 512)):
        assert ranks_link(A100, range(0, n * stride, stride)) == group_link(A100, n, stride)
    assert ranks_link(A100, range(4, 12)).bandwidth_gb_s == 4 * 22.5  # half of it in either node
    assert ranks_link(A100, range(6, 12)).bandwidth_gb_s == 2 * 22.5
    assert ranks_link(A100, [5]) == A100.inside


def test_the_stages_together_have_the_model_and_the_tied_embedding_twice():
    plan = Plan(pp=8, batch=8)
    for name in ("GPT-2", "GPT-3 175B", "Llama 3 8B"):
        model = MODELS[name]
        held = sum(stage_parameters(model, plan, stage) for stage in range(8))
        assert held == model.parameters + (model.width * model.vocab_size if model.tied else 0)
    ends = [stage_parameters(GPT3, plan, stage) - 12 * GPT3.layer_parameters for stage in range(8)]
    assert ends == [GPT3.embedding_parameters, *[0] * 6, 12288 * (50257 + 2)]
    assert stage_parameters(GPT3, plan, 0) == parameters_per_gpu(GPT3, plan)


def test_first_and_last_stage_add_up_the_gradient_of_the_embedding_they_share():
    plan = Plan(pp=4, dp=2, tp=2, batch=8)
    at = [step_traffic(SMALL, plan, A100, rank) for rank in range(16)]
    assert [len(traffic.groups) for traffic in at] == [4] * 4 + [3] * 8 + [4] * 4
    assert at[1]["ends"].ranks == (1, 13) == at[13]["ends"].ranks
    assert at[1]["ends"].sent_bytes == 2 * 64 * 128 / 2
    assert len(step_traffic(replace(SMALL, tied=False), plan, A100, 1).groups) == 3


def test_it_prints_itself():
    words = str(step_traffic(TRILLION, LARGE, A100, 1234)).splitlines()
    assert words[0] == "rank 1234 of pp 64 × dp 6 × tp 8: pp 25, dp 4, tp 2"
    assert [line.split()[0] for line in words[1:]] == ["tp", "dp", "pp"]
    assert words[1].endswith("inside") and words[2].endswith("across") and "ranks on 1 node " in words[1]
    assert hop_bytes(TRILLION, LARGE) == 2 * 2048 * 25600 / 8


@pytest.mark.parametrize(
    ("plan", "rank", "layout", "words"),
    [
        (Plan(pp=3), 0, None, "8 layers, which pp × chunks = 3 does not divide"),
        (Plan(pp=2, tp=2), 4, None, "rank 4 is not in a world of 4"),
        (Plan(pp=2, tp=2), 0, Layout(pp=4), "the layout is pp 4, and the plan pp 2, dp 1, tp 2: they must agree"),
        (Plan(pp=2), 0, Layout(pp=2, cp=2), "they must agree"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(plan, rank, layout, words):
    with pytest.raises(ValueError, match=words):
        step_traffic(SMALL, plan, A100, rank, layout)
