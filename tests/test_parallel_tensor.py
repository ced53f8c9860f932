"""Tensor parallel, with and without sequence parallel, must train exactly as one process does: float64, other seeds on every rank."""

import pytest
import torch
import torch.distributed as dist
from torch import nn

from course_lib import RankError, launch, span
from course_lib.cost.plan import Plan
from course_lib.cost.shapes import Transformer
from course_lib.cost.step_time import tensor_parallel_bytes
from course_lib.data import text_batch
from course_lib.models.gpt import GPT, Attention
from course_lib.parallel import tensor, tensor_model
from course_lib.parallel.context import context_parallelize
from course_lib.parallel.tensor import ColumnParallelLinear, RowParallelLinear
from course_lib.parallel.tensor_model import full_state_dict, tensor_parallelize
from course_lib.parallel.vocabulary import vocab_parallel_cross_entropy
from tests.tensor_cases import MODELS, MODES, SIZES, distance, one_process, ranks

PAIRS = [("gpt", "sgd"), *((model, "adamw") for model in MODELS)]
CASES = [(*pair, mode) for pair in PAIRS for mode in MODES]


@pytest.mark.parametrize("t", SIZES)
def test_losses_gradients_and_weights_equal_one_process(t):
    cases = [case for case in CASES if t < 8 or case[2] != "regathered"]
    run = launch(lambda: {case: ranks(*case) for case in cases}, t)
    for model, optimizer, mode in cases:
        found = [rank[model, optimizer, mode] for rank in run]
        assert distance(found, one_process(model, optimizer)) <= 1e-10, f"{model}, {optimizer}, {mode}"


def test_training_moves_what_is_compared():
    still, moved = one_process("gpt", "sgd", 1), one_process("gpt", "sgd", 3)
    unmoved = {name for name in moved[2] if (still[2][name] - moved[2][name]).abs().max() < 1e-5}
    # The same number added to all scores of a query changes no softmax: this bias has no gradient, whatever the loss.
    assert unmoved == {name for name in moved[2] if name.endswith("attention.k.bias")}


def both_layers(sequence_dim):
    """On a rank: y, ∂x and the gradients of a column and a row parallel layer, overlapped and plain."""
    t, found = dist.get_world_size(), []
    for overlap in (True, False):
        torch.manual_seed(0)
        options = {"sequence_dim": sequence_dim, "overlap": overlap}
        column = ColumnParallelLinear(6, 8, whole=nn.Linear(6, 8).double(), **options)
        row = RowParallelLinear(8, 6, whole=nn.Linear(8, 6).double(), **options)
        x = torch.randn(2, 4, 6, dtype=torch.float64)
        x = (x if sequence_dim is None else x.chunk(t, sequence_dim)[dist.get_rank()].clone()).requires_grad_()
        y = row(torch.tanh(column(x)))
        (y * torch.arange(y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
        found.append([y.detach(), x.grad, *(p.grad for layer in (column, row) for p in layer.parameters())])
    return found


@pytest.mark.parametrize("sequence_dim", [None, 1])
@pytest.mark.parametrize("t", [1, 2, 4])
def test_overlapped_layers_give_what_f_and_a_linear_give(t, sequence_dim):
    for overlapped, plain in launch(both_layers, t, sequence_dim):
        for a, b in zip(overlapped, plain, strict=True):
            assert (a - b).abs().max() <= 1e-12


# --- broken on purpose ----------------------------------------------------------------------------------------------------


def no_sum_of_the_input_gradient(model, **mode):
    class Alone:
        def __init__(self, x):
            self.x = x

        def wait(self):
            return self.x

    whole = tensor.all_reduce_in_place
    tensor.all_reduce_in_place = lambda x, group: (
        Alone(x) if torch._C._current_graph_task_id() != -1 else whole(x, group)
    )
    return tensor_parallelize(model, **mode)


def bias_added_by_every_rank(model, **mode):
    model = tensor_parallelize(model, **mode)
    for module in model.modules():
        if isinstance(module, RowParallelLinear):
            module.register_forward_hook(lambda module, args, y: y + (dist.get_world_size() - 1) * module.bias)
    return model


def norms_drift_apart(model, **mode):
    tensor_model.copy_to_group = lambda x, group: x
    return tensor_parallelize(model, **mode)


def no_broadcast_at_the_start(model, **mode):
    tensor_model.start_as_one = lambda model, group: None
    return tensor_parallelize(model, **mode)


def heads_cut_across(model, **mode):
    """Rank r takes every t-th row of q, in place of whole heads."""
    for attention in (m for m in model.modules() if isinstance(m, Attention)):
        whole, t = attention.q.weight.data, dist.get_world_size()
        attention.q.weight.data = torch.cat([whole[r::t] for r in range(t)])
    return tensor_parallelize(model, **mode)


@pytest.mark.parametrize(
    ("broken", "mode"),
    [
        (no_sum_of_the_input_gradient, "plain"),
        (bias_added_by_every_rank, "plain"),
        (bias_added_by_every_rank, "sequence"),
        (norms_drift_apart, "sequence"),
        (no_broadcast_at_the_start, "plain"),
        (heads_cut_across, "plain"),
    ],
)
def test_the_comparison_catches_broken_versions(broken, mode):
    run = launch(lambda: ranks("gpt", "sgd", mode, parallelize=broken), 2)
    assert distance(run, one_process("gpt", "sgd")) > 1e-6


# --- what it costs --------------------------------------------------------------------------------------------------------


def step_of(num_layers, b, s, h, mode):
    model = tensor_parallelize(GPT(context=s, width=h, num_layers=num_layers, num_heads=4), **MODES[mode])
    x, y = text_batch(0, b, s)
    with span("step"):
        vocab_parallel_cross_entropy(model(x), y).backward()


def sent(t, num_layers, *args):
    """(bytes that rank 0 sends in a step, calls)."""
    events = launch(step_of, t, num_layers, *args).trace.of(rank=0).during("step").events
    calls = [e for e in events if not e.is_span]
    return sum(e.ring_bytes for e in calls), len(calls)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("t", [2, 4])
def test_a_layer_sends_8bsh_elements_times_t_minus_1_over_t(t, mode):
    b, s, h = 3, 16, 32
    (two, calls_of_two), (three, calls_of_three) = (sent(t, n, b, s, h, mode) for n in (2, 3))
    plan = Plan(tp=t, batch=b, microbatch=b, sequence_parallel=mode != "plain")
    model = Transformer("test", num_layers=1, width=h, num_heads=4, context=s, vocab_size=256)
    expected = 8 * b * s * h * (t - 1) / t * 4  # float32
    assert expected == 2 * tensor_parallel_bytes(model, plan)  # the calculator counts elements of 2 bytes
    if mode == "regathered":
        expected *= 10 / 8
    norms = 2 * 2 * h * 2 * (t - 1) / t * 4 if mode != "plain" else 0  # the gradients of two norms' weights
    assert three - two == expected + norms
    assert calls_of_three - calls_of_two == {"plain": 4, "sequence": 10, "regathered": 12}[mode]


def test_the_gradient_of_the_weights_is_computed_while_that_of_x_travels():
    def fn():
        layer = ColumnParallelLinear(768, 768 * dist.get_world_size())
        x = torch.randn(512, 768, requires_grad=True)
        layer(x).sum().backward()

    (event,) = (e for e in launch(fn, 2).trace.of(rank=0).events if e.operation == "all_reduce")
    (waited_from, _), *_ = event.waits
    assert waited_from - event.start_s > 1e-3, "∂W takes milliseconds, and nothing waits for ∂x before it is done"


# --- the layers by themselves ---------------------------------------------------------------------------------------------


def layers_against_linear(t):
    """On a rank: the largest difference of y, ∂x, ∂W and ∂b between each kind of layer and nn.Linear."""
    rank, found = dist.get_rank(), {}
    for name, dim, build, bias in (
        ("column", 0, lambda **o: ColumnParallelLinear(12, 24, **o, gather_output=True), True),
        ("row", 1, lambda **o: RowParallelLinear(12, 24, **o, input_is_parallel=False), True),
        ("column without bias", 0, lambda **o: ColumnParallelLinear(12, 24, **o, gather_output=True), False),
        ("row without bias", 1, lambda **o: RowParallelLinear(12, 24, **o, input_is_parallel=False), False),
    ):
        torch.manual_seed(rank)
        layer = build(bias=bias).double()
        plain = nn.Linear(12, 24, bias).double()
        plain.load_state_dict(full_state_dict(layer))
        x = torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
        x, mine = x.clone().requires_grad_(), x.clone().requires_grad_()
        scale = torch.arange(24)
        (plain(x) * scale).pow(2).sum().backward()
        (layer(mine) * scale).pow(2).sum().backward()
        pairs = [(plain(x), layer(mine)), (x.grad, mine.grad)]
        pairs.append((plain.weight.grad.chunk(t, dim)[rank], layer.weight.grad))
        if bias:
            whole = plain.bias.grad
            pairs.append((whole.chunk(t)[rank] if dim == 0 else whole, layer.bias.grad))
        found[name] = max((a - b).abs().max().item() for a, b in pairs)
    return found


@pytest.mark.parametrize("t", [1, 2, 3, 4])
def test_each_layer_equals_a_linear(t):
    for rank in launch(layers_against_linear, t, t):
        assert max(rank.values()) < 1e-10, rank


def test_layers_of_one_seed_are_slices_of_one_matrix_not_copies():
    def fn():
        torch.manual_seed(0)
        return ColumnParallelLinear(4, 8).weight.detach()

    run = launch(fn, 2)
    assert not torch.equal(run[0], run[1])


def test_works_inside_a_group_and_reads_back_into_the_plain_model():
    def fn():
        group = [dist.new_group([0, 1]), dist.new_group([2, 3])][dist.get_rank() // 2]
        torch.manual_seed(dist.get_rank())
        plain = GPT(width=8, num_layers=1, num_heads=2, context=4)
        start = {name: p.clone() for name, p in plain.state_dict().items()}
        state = full_state_dict(tensor_parallelize(plain, group, sequence_parallel=True))
        again = GPT(width=8, num_layers=1, num_heads=2, context=4)
        again.load_state_dict(state)
        return state, start

    run = launch(fn, 4)
    for pair in ((0, 1), (2, 3)):
        for rank in pair:
            assert list(run[rank][0]) == list(run[rank][1])
            assert all(torch.equal(run[rank][0][name], p) for name, p in run[pair[0]][1].items())


REFUSED = [
    (lambda: ColumnParallelLinear(4, 7), r"dim 0 of the weight of ColumnParallelLinear, \(7, 4\), is 7, which 2 ranks cannot share equally; 6 or 8 would do"),
    (lambda: RowParallelLinear(1, 4), r"dim 1 of the weight of RowParallelLinear, \(4, 1\), is 1, which 2 ranks cannot share equally; 2 would do"),
    (lambda: tensor_parallelize(GPT(width=12, num_heads=3)), "the number of heads is 3, which 2 ranks cannot share equally; 2 or 4 would do"),
    (lambda: tensor_parallelize(GPT(width=16, num_heads=4, num_kv_heads=1)), "the number of key and value heads is 1"),
    (lambda: tensor_parallelize(GPT(vocab_size=257)), r"weight of VocabParallelEmbedding, \(257, 128\), is 257"),
    (lambda: tensor_parallelize(tensor_parallelize(GPT())), "attention is a HeadParallelAttention already: start from a plain model"),
    (lambda: context_parallelize(context_parallelize(GPT())), "attention is a RingAttention already"),
    (lambda: tensor_parallelize(context_parallelize(GPT())), r"ranks \[0, 1\] would split attention by heads and by sequence at once"),
    (lambda: context_parallelize(tensor_parallelize(GPT())), r"ranks \[0, 1\] would split attention by heads and by sequence at once"),
    (lambda: tensor_parallelize(nn.Linear(2, 2)), "Linear has no Attention of course_lib.models"),
    (lambda: ColumnParallelLinear(2, 2, group=dist.new_group([0])), "rank 1 is not in the group"),
    (lambda: tensor_parallelize(GPT(context=8, num_layers=1), sequence_parallel=True)(torch.zeros(1, 5, dtype=torch.int64)),
     r"is 5, which 2 ranks cannot share equally; 4 or 6 would do"),
]  # fmt: skip


@pytest.mark.parametrize(("build", "words"), REFUSED)
def test_what_cannot_be_shared_equally_is_refused_with_the_rule_and_what_would_do(build, words):
    with pytest.raises(RankError, match=words):
        launch(lambda: build() and None, 2, timeout_s=20)
