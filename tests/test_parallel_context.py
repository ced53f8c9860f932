"""Context parallel must attend and train exactly as one process does: float64, other seeds on every rank, both methods."""

import re

import pytest
import torch
import torch.distributed as dist
from torch import nn

from course_lib import launch, span
from course_lib.collectives.messages import Member
from course_lib.memory import MemoryMeter, saved_for_backward
from course_lib.models.gpt import GPT
from course_lib.parallel import context
from course_lib.parallel import ring_attention as ring
from course_lib.parallel.context import (
    all_to_all_attention,
    context_parallelize,
    join_sequence,
    local_positions,
    split_sequence,
)
from course_lib.parallel.ring_attention import ring_attention
from tests.context_cases import MODELS, all_errors, distance, error, one_process, places, ranks

# --- attention ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("c", [1, 2, 3, 4])
def test_attention_and_its_gradients_equal_one_process(c):
    for rank in launch(all_errors, c):
        wrong = {case: found for case, found in rank.items() if not found <= 1e-10}
        assert not wrong


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_lower_precision_stays_what_it_is_and_is_as_close_as_it_can_be(dtype, limit):
    def fn():
        large = {"dtype": dtype, "scale": 1000.0 if dtype == torch.float32 else 1.0}
        return [error(method, causal=True, kv_heads=4, dtype=dtype) for method in ("ring", "all_to_all")] + [
            error("ring", **large)
        ]

    for found in launch(fn, 4):
        assert max(found) < limit


# --- attention broken on purpose ------------------------------------------------------------------------------------------


def sums_do_not_shrink():
    """What was summed before a larger score came is left as it was."""
    whole = torch.Tensor.__sub__
    torch.Tensor.__sub__ = lambda a, b: torch.zeros_like(a) if a.shape[-1] == 1 else whole(a, b)


def gradients_do_not_come_home():
    arrived = ring._Relay.arrived
    ring._Relay.arrived = lambda self: 0 * arrived(self)


def a_block_counts_as_its_neighbour():
    around = ring._around
    ring._around = lambda me, kv: (((source + 1) % me.size, kv) for source, kv in around(me, kv))


def nothing_is_hidden_on_the_diagonal():
    scores = ring._scores
    ring._scores = lambda q, k, hidden: scores(q, k, 0)


def heads_do_not_go_back_in_backward():
    context._AllToAll.backward = staticmethod(lambda ctx, grad: (grad, None))


def sequence_stays_in_the_order_of_the_ranks():
    context._join = lambda parts, dim, zigzag: torch.cat(list(parts), dim)


@pytest.mark.parametrize(
    ("broken", "case"),
    [
        (sums_do_not_shrink, {"method": "ring"}),
        (gradients_do_not_come_home, {"method": "ring"}),
        (a_block_counts_as_its_neighbour, {"method": "ring", "causal": True}),
        (nothing_is_hidden_on_the_diagonal, {"method": "ring", "causal": True}),
        (bool, {"method": "ring", "causal": True, "split_zigzag": False}),
        (heads_do_not_go_back_in_backward, {"method": "all_to_all"}),
        (sequence_stays_in_the_order_of_the_ranks, {"method": "all_to_all", "causal": True}),
    ],
)
def test_the_comparison_catches_broken_attention(broken, case):
    def fn():
        whole = error(**{**case, "split_zigzag": None})
        broken()
        return whole, error(**case)

    run = launch(fn, 4)
    assert max(whole for whole, _ in run) <= 1e-10 and max(found for _, found in run) > 1e-3


# --- whole models ---------------------------------------------------------------------------------------------------------

TRAINED = [
    ("gpt", "sgd", {}),
    *((model, "adamw", {}) for model in MODELS),
    *((model, "adamw", {"method": "all_to_all"}) for model in ("gpt", "bert")),
    ("gpt", "adamw", {"zigzag": False}),
]


@pytest.mark.parametrize("c", [1, 2, 4])
def test_losses_gradients_and_weights_equal_one_process(c):
    run = launch(lambda: [ranks(model, optimizer, **options) for model, optimizer, options in TRAINED], c)
    for (model, optimizer, options), found in zip(TRAINED, zip(*run), strict=True):
        assert distance(found, one_process(model, optimizer)) <= 1e-10, f"{model}, {optimizer}, {options}"


def test_training_moves_what_is_compared():
    still, moved = one_process("gpt", "sgd", 1), one_process("gpt", "sgd", 3)
    unmoved = {name for name in moved[2] if (still[2][name] - moved[2][name]).abs().max() < 1e-5}
    # The same number added to all scores of a query changes no softmax: this bias has no gradient, whatever the loss.
    assert unmoved == {name for name in moved[2] if name.endswith("attention.k.bias")}


def not_parallel(model, **_):
    return model


def consecutive_positions(s, **_):
    return torch.arange(s).chunk(dist.get_world_size())[dist.get_rank()]


def other_split_than_the_model(model, method, zigzag):
    return context_parallelize(model, method=method, zigzag=not zigzag)


@pytest.mark.parametrize(
    "broken",
    [{"parallelize": not_parallel}, {"parallelize": other_split_than_the_model}, {"positions": consecutive_positions}],
)
def test_the_comparison_catches_broken_training(broken):
    run = launch(lambda: ranks("gpt", "sgd", **broken), 2)
    assert distance(run, one_process("gpt", "sgd")) > 1e-6


# --- the split ------------------------------------------------------------------------------------------------------------


def test_a_sequence_is_split_early_with_late_and_joined_again():
    def fn():
        c, x = dist.get_world_size(), torch.arange(2 * 24 * 3).view(2, 24, 3)
        for zigzag in (True, False):
            part = split_sequence(x, zigzag=zigzag)
            assert part.is_contiguous() and torch.equal(part, x[:, places(24, zigzag)])
            assert torch.equal(join_sequence(part, zigzag=zigzag), x)
            assert local_positions(24, zigzag=zigzag).tolist() == places(24, zigzag)
            assert torch.equal(join_sequence(split_sequence(x.mT, -1, zigzag=zigzag), -1, zigzag=zigzag), x.mT)
        part = split_sequence(x.double()).requires_grad_()
        (join_sequence(part) * x).sum().backward()  # alike on every rank
        assert torch.equal(part.grad, split_sequence(x.double()))
        return local_positions(4 * c).tolist()

    assert launch(fn, 2)[0] == [0, 1, 6, 7] and launch(fn, 2)[1] == [2, 3, 4, 5]
    for c in (1, 3, 4):
        launch(fn, c)


@pytest.mark.parametrize("zigzag", [True, False])
@pytest.mark.parametrize("c", [1, 2, 3, 4])
def test_a_causal_ring_computes_what_is_seen_and_the_zigzag_shares_it_equally(c, zigzag, monkeypatch):
    monkeypatch.setattr(ring, "TILE", 1)  # several tiles a block
    s, tile = 128 * c, 64
    work = []
    for rank in range(c):
        mine, seen = places(c * s, zigzag, rank, c), 0
        queries, keys = torch.empty(2, 3 * s, 1), torch.empty(2, s, 1)
        for source in range(c):
            theirs = torch.tensor(places(c * s, zigzag, source, c))
            for causal in (True, False):
                computed, visible = torch.zeros(s, s, dtype=torch.bool), torch.zeros(s, s, dtype=torch.bool)
                for rows, n, hidden in ring._tiles(Member(None, rank, c), source, queries, keys, causal, zigzag):
                    block = slice(rows.start // 3, rows.stop // 3)
                    assert not computed[block].any(), "no query comes twice"
                    computed[block, :n] = visible[block, :n] = True
                    visible[block, n - hidden : n] = torch.ones(tile, hidden).tril().bool() if hidden else True
                    seen += causal * tile * n
                truth = torch.tensor(mine)[:, None] >= theirs if causal else torch.ones(s, s)
                assert torch.equal(visible, truth.bool())
                assert causal and source == rank or torch.equal(visible, computed)
        work.append(seen)
    triangles = s * (s + tile) // 2  # of tiles, on the diagonal of one rank
    if zigzag:
        assert work == [triangles + (c - 1) * s * s // 2] * c
    else:
        assert work == [triangles + rank * s * s for rank in range(c)]


# --- what it costs --------------------------------------------------------------------------------------------------------


def attend(method, b=2, heads=8, kv_heads=4, s=16, d=4, causal=True):
    c, attention = dist.get_world_size(), {"ring": ring_attention, "all_to_all": all_to_all_attention}[method]
    q, k, v = (torch.randn(b, h, s // c, d, requires_grad=True) for h in (heads, kv_heads, kv_heads))
    with span("forward"):
        output = attention(q, k, v, causal=causal)
    with span("backward"):
        output.sum().backward()


@pytest.mark.parametrize("c", [1, 2, 4])
def test_bytes_are_those_of_the_docstrings(c):
    q_elements, k_elements = 2 * 8 * 16 // c * 4, 2 * 4 * 16 // c * 4
    trace = launch(attend, c, "ring").trace
    for rank in range(c):
        there, back = trace.during("forward"), trace.during("backward")
        assert there.sent_bytes(rank) == 2 * (c - 1) * k_elements * 4 and there.messages(rank) == c - 1
        assert back.sent_bytes(rank) == 4 * (c - 1) * k_elements * 4 and back.messages(rank) == 2 * (c - 1)
    assert {e.kind for e in trace.events} <= {"span", "message"}

    trace = launch(attend, c, "all_to_all").trace
    for rank in range(c):
        for way in ("forward", "backward"):
            calls = [e for e in trace.of(rank=rank).during(way).events if not e.is_span]
            assert [e.operation for e in calls] == ["all_to_all_single"] * 2
            assert sum(e.ring_bytes for e in calls) == (c - 1) / c * 2 * (q_elements + k_elements) * 4


def test_the_next_keys_are_on_their_way_while_a_block_is_computed():
    c = 4

    def fn():
        around = ring._around

        def watched(me, kv):
            for source, block in around(me, kv):
                with span("block"):  # ends when the caller comes back for the next one
                    yield source, block

        ring._around = watched
        attend("ring", s=1024)

    trace = launch(fn, c).trace
    for rank in range(c):
        events = trace.of(rank=rank).during("forward").events
        blocks = [e for e in events if e.operation == "block"]
        posted = [[e for e in events if e.operation == name] for name in ("isend", "irecv")]
        assert len(blocks) == c and all(len(works) == c - 1 for works in posted)
        for step, block in enumerate(blocks[:-1]):
            for works in posted:
                assert works[step].start_s < block.start_s
                assert all(start >= block.end_s for start, _ in works[step].waits)
        assert blocks[-1].end_s > max(e.start_s for works in posted for e in works)


def test_backward_keeps_q_k_v_the_output_and_a_number_a_query():
    class Whole(nn.Module):
        def forward(self, q, k, v):
            return ring_attention(q * 1, k * 1, v * 1)

    def fn():
        shapes = [(2, 8, 16, 4), (2, 4, 16, 4), (2, 4, 16, 4)]
        kept = saved_for_backward(Whole(), *(torch.randn(shape, requires_grad=True) for shape in shapes))
        return [shape for shape, _, _ in kept], sum(nbytes for _, _, nbytes in kept)

    shapes, nbytes = launch(fn, 2)[0]
    assert shapes == [(2, 8, 16, 4), (2, 4, 16, 4), (2, 4, 16, 4), (2, 8, 16, 4), (8, 32, 1)]
    assert nbytes == 4 * (3 * 1024 + 256)


def test_memory_of_a_rank_grows_with_its_part_of_the_sequence_not_with_its_square():
    def fn(s):
        ring.TILE = 1  # tiles of 64 places
        with MemoryMeter() as meter:
            attend("ring", b=1, heads=4, s=s, d=8)
        return meter.peak.activations

    (once, _), (twice, _) = (launch(fn, 2, s) for s in (1024, 2048))
    assert 1.9 * once < twice < 2.1 * once
    assert twice < 4 * 1024**2 * 4 / 2, "all scores of 1024 places in 4 heads are twice as much"


# --- groups and refusals --------------------------------------------------------------------------------------------------


def test_works_inside_a_group_and_ranks_count_within_it():
    def fn():
        group = [dist.new_group([3, 1]), dist.new_group([0, 2])][dist.get_rank() % 2 == 0]
        x = torch.arange(8.0, dtype=torch.float64).view(1, 2, 4, 1) + dist.get_rank() % 2
        truth = nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)
        part = split_sequence(x, 2, group)
        for attention in (ring_attention, all_to_all_attention):
            output = join_sequence(attention(part, part, part, group=group, causal=True), 2, group)
            assert torch.allclose(output, truth, rtol=0, atol=1e-12)
        return local_positions(4, group).tolist()

    run = launch(fn, 4)
    assert run[0] == run[1] == [0, 3] and run[2] == run[3] == [1, 2]


def attends(*shapes, attention=ring_attention, **options):
    return attention(*(torch.zeros(shape) for shape in shapes), **options)


EVEN = [(1, 3, 4, 2)] * 3
REFUSED = [
    (lambda: split_sequence(torch.zeros(2, 6)),
     r"rank RANK: dim 1 of \(2, 6\) is 6, which 2 ranks cannot have in 4 equal chunks; 4 or 8 would do"),
    (lambda: split_sequence(torch.zeros(3), 0, zigzag=False),
     r"dim 0 of \(3,\) is 3, which 2 ranks cannot have in 2 equal chunks; 2 or 4 would do"),
    (lambda: local_positions(2), "which 2 ranks cannot have in 4 equal chunks; 4 would do"),
    (lambda: join_sequence(torch.zeros(1, 2 + 2 * dist.get_rank())), r"hold \[2, 4\] of dim 1"),
    (lambda: attends(*[(1, 3, 5, 2)] * 3, causal=True),
     r"rank RANK: q of shape \(1, 3, 5, 2\) has 5 places of the sequence, and zigzag needs two equal chunks of it; 4 or 6"),
    (lambda: attends(*[(1, 4, 3, 2)] * 3, attention=all_to_all_attention), "has 3 places of the sequence, and zigzag needs two"),
    (lambda: attends((1, 3, 4, 2), (1, 2, 4, 2), (1, 2, 4, 2)), r"rank RANK: q \(1, 3, 4, 2\) torch.float32, k \(1, 2, 4, 2\)"),
    (lambda: attends((1, 3, 4, 2), (1, 3, 8, 2), (1, 3, 8, 2)), "do not go together"),
    (lambda: attends(*EVEN, attention=all_to_all_attention), "the number of heads is 3, which 2 ranks cannot share equally"),
    (lambda: attends((1, 4, 4, 2), (1, 1, 4, 2), (1, 1, 4, 2), attention=all_to_all_attention),
     "the number of key and value heads is 1, which 2 ranks cannot share equally; 2 would do"),
    (lambda: context_parallelize(GPT(width=12, num_heads=3), method="all_to_all"), "the number of heads is 3"),
    (lambda: context_parallelize(GPT(), method="tree"), "method is 'tree': attention goes across ranks by ring or all_to_all"),
    (lambda: context_parallelize(nn.Linear(2, 2)), "Linear has no Attention of course_lib.models"),
    (lambda: split_sequence(torch.zeros(1, 4), group=dist.new_group([0])), "rank 1 is not in the group"),
    (lambda: attends(*EVEN, group=dist.new_group([0])), "rank 1 is not in the group"),
]  # fmt: skip


def refusal(build):
    try:
        build()
    except ValueError as error:
        return str(error)
    return "it was done"


def test_what_cannot_be_done_is_refused_with_the_rule_and_what_would_do():
    for rank, said in enumerate(launch(lambda: [refusal(build) for build, _ in REFUSED], 2)):
        for words, (_, expected) in zip(said, REFUSED, strict=True):
            if rank == 1 or "group" not in expected:
                assert re.search(expected.replace("RANK", str(rank)), words), (rank, expected, words)
