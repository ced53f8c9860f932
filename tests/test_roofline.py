"""The operations of a layer against numbers worked out by hand, and the roofline explorer's words and saved picture."""

import json
import re
import subprocess
import sys
from xml.etree import ElementTree

import pytest

from course_lib.cost.hardware import GPUS, Roofline
from course_lib.cost.operations import PHASES, operations
from course_lib.cost.shapes import MODELS, Transformer
from course_lib.viz import roofline
from course_lib.viz.roofline_scene import amount, count, three

SVG = "{http://www.w3.org/2000/svg}"
LINEARS = ("QKV projection", "output projection", "MLP up", "MLP down")
TINY = Transformer("tiny", 2, 8, 2, 64, 16)  # h = 8, two heads of 4, MLP of 32, sequences of 16
GATED = Transformer(
    "gated", 2, 8, 4, 64, 16, kv_heads=2, mlp_width=12, gated=True, bias=False, learned_positions=False
)


def texts(svg):
    return [node.text or "" for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


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


@pytest.mark.parametrize(
    ("value", "said"),
    [(1.125, "1.13"), (9.996, "10.0"), (0.5, "0.500"), (99.95, "100"), (999.4, "999"), (999.5, "1,000")],
)
def test_numbers_have_three_digits(value, said):
    assert three(value) == said


def test_amounts_take_the_unit_that_suits_them():
    assert [amount(312e12, "FLOP/s"), amount(999.6e9, "B"), amount(7, "B")] == ["312 TFLOP/s", "1.00 TB", "7.00 B"]  # fmt: skip
    assert [amount(2.5e-10, "s"), amount(1.5e-6, "s"), amount(12, "s")] == ["0.250 ns", "1.50 µs", "12.0 s"]
    assert [count(2048), count(1.5)] == ["2,048", "1.50"]


def test_the_words_say_what_limits_and_what_batch_would_change_it():
    assert repr(roofline()) == (
        "MLP up · GPT-3 6.7B · A100\n"
        "Matrix product (2,048 × 4,096) · (4,096 × 16,384).\n"
        "275 GFLOP over 218 MB are 1,260 FLOPs a byte. "
        "At best 312 TFLOP/s, 100 % of the peak; at least 881 µs.\n"
        "Limited by arithmetic: the ridge is at 156 FLOPs a byte. "
        "With fewer than 164 tokens, memory would be the limit."
    )
    ends = {
        ("MLP up", 16): "From 164 tokens on, arithmetic would be the limit.",
        ("generating: linear layers", 1): "From 165 sequences on, arithmetic would be the limit.",
        ("softmax", 16): "No batch is large enough to change that.",
        ("generating: attention", 16): "No batch is large enough to change that.",
        ("Adam step", 16): "The batch has no part in it.",
    }
    for (name, tokens), end in ends.items():
        assert repr(roofline(operation=name, tokens=tokens)).endswith(end)
    slow = Roofline(1e9, 1e10)
    assert repr(roofline("this machine", mine=slow)).endswith("It is so with any batch.")


@pytest.mark.parametrize(
    ("wrong", "there"),
    [
        ({"device": "A10"}, "device is one of P100, V100, A100, H100, H200, B200, not 'A10'."),
        ({"device": "this machine"}, "device is one of P100, V100, A100, H100, H200, B200, not 'this machine'."),
        ({"beside": "TPU"}, "beside is one of nothing, P100, V100, A100, H100, H200, B200, not 'TPU'."),
        ({"operation": "dropout"}, f"operation is one of {', '.join(operations(TINY))}, not 'dropout'."),
        ({"model": "GPT-5"}, f"model is one of {', '.join(MODELS)}, not 'GPT-5'."),
        ({"tokens": 3}, "tokens is a power of two from 1 to 65,536: 1, 2, 4 and so on, not 3."),
        ({"tokens": 0}, "tokens is a power of two from 1 to 65,536: 1, 2, 4 and so on, not 0."),
        ({"tokens": 2**17}, "tokens is a power of two from 1 to 65,536: 1, 2, 4 and so on, not 131072."),
    ],
)  # fmt: skip
def test_a_wrong_name_or_number_is_answered_with_those_there_are(wrong, there):
    with pytest.raises(ValueError) as error:
        roofline(**wrong)
    assert str(error.value) == there
    explorer = roofline()
    (name, value) = next(iter(wrong.items()))
    before = getattr(explorer, name)
    with pytest.raises(ValueError):
        setattr(explorer, name, value)
    assert getattr(explorer, name) == before


def test_what_is_no_roofline_is_refused():
    with pytest.raises(TypeError, match="mine is a Roofline, measured or made up, not a GPU"):
        roofline(mine=GPUS["A100"])


def test_a_machine_and_a_model_of_ones_own_can_be_chosen():
    mine = Roofline(1.3e11, 1.1e10)
    explorer = roofline("this machine", "MLP up", TINY, 64, beside="H100", mine=mine)
    assert explorer.scene.roofline == mine and explorer.scene.beside[0] == "H100"
    assert explorer.scene.operation == operations(TINY)["MLP up"]
    assert any(t == "this machine: 130 GFLOP/s" for t in texts(explorer.svg()))


# --- the saved picture


def corners():
    for operation in operations(TINY):
        for tokens in (1, 2048, 65_536):
            yield roofline("H200", operation, "Llama 3 405B", tokens, beside="H100")
    yield roofline("this machine", "layer norm", TINY, mine=Roofline(3e9, 1e9), everything=False)
    yield roofline(model=Transformer("a < b & c", 1, 8, 2, 64))


def test_every_scene_gives_well_formed_svg_with_a_text_alternative():
    for explorer in corners():
        svg = explorer.svg()
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img"
        assert root.find(f"{SVG}title").text == repr(explorer).split("\n")[0]
        assert root.find(f"{SVG}desc").text == " ".join(repr(explorer).split("\n")[1:])
        assert "var(" not in svg and "http" not in svg.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"\bnan\b|\binf\b", svg)
        json.dumps(explorer.data)


def test_a_notebook_gets_a_widget_a_picture_that_stands_alone_and_a_text():
    bundle, _ = roofline()._repr_mimebundle_()
    assert set(bundle) == {"application/vnd.jupyter.widget-view+json", "text/html", "text/plain"}
    assert bundle["text/html"].startswith('<img alt="MLP up · GPT-3 6.7B · A100; ')
    assert len(bundle["text/html"]) < 15_000


def test_the_saved_picture_is_the_same_in_every_run():
    program = "from course_lib.viz import roofline; print(roofline('H100', 'softmax', beside='V100').svg())"
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert there == roofline("H100", "softmax", beside="V100").svg() + "\n"


def test_the_chosen_operation_is_there_with_the_others_of_its_kind_or_alone():
    named = set(operations(TINY))
    for name, operation in operations(TINY).items():
        alike = {other.name for other in operations(TINY).values() if other.phase == operation.phase}
        assert operation.phase in PHASES
        assert named & set(texts(roofline(operation=name).svg())) == alike
        assert named & set(texts(roofline(operation=name, everything=False).svg())) == {name}


def test_what_limits_is_told_by_the_shape_of_the_mark():
    for tokens, tag in ((1, "circle"), (4096, "rect")):
        root = ElementTree.fromstring(roofline(tokens=tokens).svg())
        (chosen,) = [node for node in root.iter() if "roof-chosen by-" in node.get("class", "")]
        assert chosen.tag == SVG + tag
