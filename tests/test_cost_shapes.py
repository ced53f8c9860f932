"""Shapes against real modules, a real count of FLOPs, and the closed formulas of the papers."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from course_lib.cost.shapes import MODELS, RESNET50, Transformer
from course_lib.models.gpt import GPT

SIZES = [(256, 64, 128, 8, 4), (65, 33, 48, 3, 6), (1000, 16, 32, 1, 1)]  # V, s, h, l, a


def shape_of(vocab_size, context, width, num_layers, num_heads, **more):
    return Transformer("small", num_layers, width, num_heads, vocab_size, context, **more)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("sizes", SIZES)
def test_parameters_are_those_of_a_real_gpt(sizes, tied):
    real = sum(p.numel() for p in GPT(*sizes, tied=tied).parameters())
    assert shape_of(*sizes, tied=tied).parameters == real


@pytest.mark.parametrize("sizes", SIZES)
def test_flops_are_those_that_pytorch_counts(sizes):
    model, batch = GPT(*sizes), 3
    tokens = torch.randint(0, sizes[0], (batch, sizes[1]))
    shape = shape_of(*sizes)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as forward:  # it sees through no fused kernel
        out = model(tokens)
    assert forward.get_total_flops() == shape.forward_flops(batch)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as backward:
        out.sum().backward()
    assert backward.get_total_flops() == 2 * shape.forward_flops(batch)


@given(
    layers=st.integers(1, 200), heads=st.integers(1, 160), head_width=st.integers(1, 256),
    s=st.integers(1, 9000), v=st.integers(1, 300_000), batch=st.integers(1, 4000),
)  # fmt: skip
def test_a_gpt_has_the_flops_and_parameters_of_the_papers(layers, heads, head_width, s, v, batch):
    h = heads * head_width
    model = Transformer("gpt", layers, h, heads, v, s)
    # Narayanan et al. 2021, equations 2 and 3; Korthikanti et al. 2022, equation 7
    parameters = 12 * layers * h**2 * (1 + 13 / (12 * h) + (v + s) / (12 * layers * h))
    assert model.parameters - 2 * h == pytest.approx(parameters, rel=1e-12)
    full = 96 * batch * s * layers * h**2 * (1 + s / (6 * h) + v / (16 * layers * h))
    assert model.hardware_flops(batch, "full") == pytest.approx(full, rel=1e-12)
    needed = 72 * batch * layers * s * h**2 * (1 + s / (6 * h) + v / (12 * h * layers))
    assert model.model_flops(batch) == pytest.approx(needed, rel=1e-12)
    again = model.hardware_flops(batch, "selective") - model.model_flops(batch)
    assert again == pytest.approx(4 * layers * batch * s**2 * h, rel=1e-6)


def test_grouped_queries_and_a_gated_mlp_have_the_matrices_of_llama():
    llama = MODELS["Llama 3 8B"]
    h, kv, f = 4096, 1024, 14336
    assert llama.layer_matrices == 2 * h * h + 2 * h * kv + 3 * h * f
    assert llama.layer_parameters == llama.layer_matrices + 2 * h  # no biases, and norms that only scale
    assert llama.parameters == 32 * llama.layer_parameters + 2 * 128_000 * h + h


def test_bert_has_the_parameters_that_its_release_has():
    assert MODELS["BERT-Base"].parameters == 109_482_240
    assert MODELS["BERT-Large"].parameters == 335_141_888


def test_resnet50_has_its_published_size():
    assert RESNET50.parameters == 25_557_032
    assert len(RESNET50.convolutions) == 53
    assert RESNET50.forward_flops(1) / 2e9 == pytest.approx(4.09, abs=0.005)  # billions of multiply-adds
    assert RESNET50.model_flops(7) == 21 * RESNET50.forward_flops(1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_layers": 0}, "num_layers is 0: a transformer needs at least 1"),
        ({"num_heads": 5}, "width 64 is not divisible by num_heads 5: pass head_width"),
        ({"vocab_size": -1}, "vocab_size is -1"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(change, words):
    sizes = {"num_layers": 2, "width": 64, "num_heads": 4} | change
    with pytest.raises(ValueError, match=words):
        Transformer("odd", **sizes)


def test_an_unknown_recomputation_is_refused():
    with pytest.raises(ValueError, match="one of none, selective, full, not 'some'"):
        MODELS["GPT-2"].hardware_flops(1, "some")
