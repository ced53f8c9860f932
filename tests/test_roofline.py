"""The operations of a layer against numbers worked out by hand, and what is said of them."""

import pytest

from course_lib.cost.hardware import GPUS, Roofline
from course_lib.cost.operations import operations
from course_lib.cost.shapes import MODELS, Transformer

LINEARS = ("QKV projection", "output projection", "MLP up", "MLP down")
TINY = Transformer("tiny", 2, 8, 2, 64, 16)  # h = 8, two heads of 4, MLP of 32, sequences of 16
GATED = Transformer("gated", 2, 8, 4, 64, 16, kv_heads=2, mlp_width=12, gated=True, bias=False, learned_positions=False)


# --- FLOPs and bytes


@pytest.mark.parametrize(
    ("name", "flops", "nbytes"),
    [
        # 32 tokens: two sequences of 16
        ("layer norm", 7 * 32 * 8, 2 * (2 * 32 * 8 + 2 * 8)),
        ("QKV projection", 2 * 32 * 8 * 24, 2 * (32 * 8 + 8 * 24 + 32 * 24)),
        ("attention scores", 2 * 2 * (2 * 16 * 16 * 4), 2 * 2 * (2 * (16 * 4 + 16 * 4 + 16 * 16))),
        ("softmax", 5 * 2 * 2 * 16 * 16, 2 * 2 * (2 * 2 * 16 * 16)),
        ("fused attention", 2 * 2 * (4 * 16 * 16 * 4 + 5 * 16 * 16), 2 * 2 * (2 * 4 * 16 * 4)),
        ("output projection", 2 * 32 * 8 * 8, 2 * (32 * 8 + 8 * 8 + 32 * 8)),
        ("MLP up", 2 * 32 * 8 * 32, 2 * (32 * 8 + 8 * 32 + 32 * 32)),
        ("activation", 9 * 32 * 32, 2 * (2 * 32 * 32)),
        ("MLP down", 2 * 32 * 32 * 8, 2 * (32 * 32 + 32 * 8 + 32 * 8)),
        ("Adam step", 14 * (12 * 64 + 13 * 8), 28 * (12 * 64 + 13 * 8)),
        ("generating: linear layers", 2 * 32 * 12 * 64, 2 * (12 * 64 + 32 * (8 + 24 + 8 + 8 + 8 + 32 + 32 + 8))),
        ("generating: attention", 32 * 2 * (4 * 16 * 4 + 5 * 16), 32 * 2 * 2 * (4 + 16 * 4 + 16 * 4 + 4)),
    ],
)  # fmt: skip
def test_flops_and_bytes_are_those_worked_out_by_hand(name, flops, nbytes):
    operation = operations(TINY)[name]
    assert (operation.flops(32), operation.nbytes(32)) == (flops, nbytes)


@pytest.mark.parametrize(
    ("name", "flops", "nbytes"),
    [
        # 4 tokens are one short sequence; 4 heads of 2 share 2 heads of keys
        ("layer norm", 6 * 4 * 8, 2 * (2 * 4 * 8 + 8)),
        ("QKV projection", 2 * 4 * 8 * 16, 2 * (4 * 8 + 8 * 16 + 4 * 16)),
        ("attention scores", 4 * 2 * 4 * 4 * 2, 2 * (4 * 4 * 2 + 2 * 4 * 2 + 4 * 4 * 4)),
        ("fused attention", 4 * (4 * 4 * 4 * 2 + 5 * 4 * 4), 2 * (2 * 4 * 4 * 2 + 2 * 2 * 4 * 2)),
        ("MLP up", 2 * 4 * 8 * 24, 2 * (4 * 8 + 8 * 24 + 4 * 24)),
        ("activation", 5 * 4 * 12, 2 * (4 * 24 + 4 * 12)),
        ("generating: attention", 4 * 4 * (4 * 16 * 2 + 5 * 16), 4 * 2 * (2 * 4 * 2 + 2 * 2 * 16 * 2)),
    ],
)
def test_shared_keys_a_gate_and_a_short_sequence_count_too(name, flops, nbytes):
    operation = operations(GATED)[name]
    assert (operation.flops(4), operation.nbytes(4)) == (flops, nbytes)


@pytest.mark.parametrize("model", [*MODELS.values(), TINY, GATED], ids=lambda model: model.name)
@pytest.mark.parametrize("batch", [1, 3, 64])
def test_the_products_of_a_layer_are_the_flops_that_shapes_counts(model, batch):
    there, tokens = operations(model), batch * model.context
    linears = sum(there[name].flops(tokens) for name in LINEARS)
    assert linears == there["generating: linear layers"].flops(tokens)
    assert 2 * there["attention scores"].flops(tokens) == model.core_flops(batch)
    assert linears + model.core_flops(batch) == model.layer_flops(batch)


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_the_batch_at_the_ridge_is_the_smallest_one_that_reaches_it(model):
    for gpu in GPUS.values():
        for operation in operations(model).values():
            enough = operation.tokens_at_ridge(gpu.roofline)
            if enough is None:
                assert operation.limit(gpu.roofline, 2**45) == "memory"
            else:
                assert operation.limit(gpu.roofline, enough) == "arithmetic"
                assert enough == 1 or operation.limit(gpu.roofline, enough - 1) == "memory"


def test_a_larger_batch_never_lowers_the_intensity():
    for model in MODELS.values():
        for operation in operations(model).values():
            found = [operation.intensity(tokens) for tokens in (1, 2, 3, 100, 1000, 4096, 10_000, 65_536)]
            assert all(b >= a * (1 - 1e-12) for a, b in zip(found, found[1:])), (model.name, operation.name)


def test_a_linear_layer_reaches_the_ridge_where_algebra_says():
    # 2Tio / (2io + 2T(i + o)) = r  gives  T = r · io / (io - r(i + o))
    h, roof = 4096, GPUS["A100"].roofline
    r = roof.ridge
    exact = r * 4 * h * h / (4 * h * h - r * 5 * h)
    assert exact <= operations(MODELS["GPT-3 6.7B"])["MLP up"].tokens_at_ridge(roof) < exact + 1


# --- words


def said(name, roof, tokens, model="GPT-3 6.7B"):
    return operations(MODELS[model])[name].sentences(roof, tokens)


def test_the_words_say_what_is_done_how_fast_and_what_limits_it():
    a100 = GPUS["A100"].roofline
    assert said("MLP up", a100, 2048) == [
        "Matrix product (2,048 × 4,096) · (4,096 × 16,384).",
        "275 GFLOP over 218 MB are 1,260 FLOPs a byte. At best 312 TFLOP/s, 100 % of the peak; at least 881 µs.",
        "Limited by arithmetic: the ridge is at 156 FLOPs a byte. With fewer than 164 tokens, memory would be the limit.",
    ]
    assert str(a100) == "312 TFLOP/s, 2.00 TB/s, ridge at 156 FLOPs a byte"


@pytest.mark.parametrize(
    ("name", "tokens", "end"),
    [
        ("MLP up", 16, "From 164 tokens on, arithmetic would be the limit."),
        ("generating: linear layers", 1, "From 165 sequences on, arithmetic would be the limit."),
        ("softmax", 16, "No batch is large enough to change that."),
        ("generating: attention", 16, "No batch is large enough to change that."),
        ("Adam step", 16, "The batch has no part in it."),
    ],
)
def test_the_words_say_what_batch_would_change_the_limit(name, tokens, end):
    assert said(name, GPUS["A100"].roofline, tokens)[2].endswith(end)
    assert said("MLP up", Roofline(1e9, 1e10), tokens)[2].endswith("It is so with any batch.")
