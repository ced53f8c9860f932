"""The picture of a block over ranks: its shapes are a real block's, its bytes those of the formula, and it says so in words."""

import xml.etree.ElementTree as ET

import pytest

from course_lib import launch
from course_lib.models.gpt import GPT
from course_lib.parallel.tensor_model import tensor_parallelize
from course_lib.viz import transformer_block
from course_lib.viz.transformer_block_model import BlockSplit

EVERY = [(t, mode) for t in (1, 2, 4, 8) for mode in (False, True)]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(("t", "mode"), EVERY)
def test_shapes_and_parameters_are_those_of_a_real_block_on_real_ranks(t, mode):
    def shapes():
        block = tensor_parallelize(
            GPT(context=64, width=32, num_layers=1, num_heads=8), sequence_parallel=mode
        ).blocks[0]
        named = {
            name.split(".")[-2]: tuple(p.shape) for name, p in block.named_parameters() if "weight" in name
        }
        return named, sum(p.numel() for p in block.parameters())

    split = BlockSplit(2, 64, 32, 8, t, mode)
    weights = [w for row in split.rows for w in row.weights]
    assert [w.name for w in weights] == ["q", "k", "v", "o", "up", "down"]
    for named, parameters in launch(shapes, t):
        assert all(split.local_shape(w.shape, w.placement) == named[w.name] for w in weights)
        assert parameters == split.parameters


@pytest.mark.parametrize(("t", "mode"), EVERY)
def test_a_block_sends_8bsh_numbers_times_t_minus_1_over_t_in_both_modes(t, mode):
    assert BlockSplit(2, 64, 128, 8, t, mode).total_sent_bytes == 8 * 2 * 64 * 128 * (t - 1) // t * 4


def test_collectives_stand_where_the_library_calls_them():
    plain, sequence = BlockSplit(1, 8, 8, 8, 4), BlockSplit(1, 8, 8, 8, 4, True)
    calls = [[(r.forward, r.backward) for r in split.rows if r.kind == "band"] for split in (plain, sequence)]
    assert calls[0] == [("", "all_reduce"), ("all_reduce", "")] * 2
    assert calls[1] == [("all_gather", "reduce_scatter"), ("reduce_scatter", "all_gather")] * 2


@pytest.mark.parametrize(("t", "mode"), EVERY)
def test_the_picture_is_well_formed_deterministic_and_numbers_every_slice(t, mode):
    view = transformer_block(t=t, sequence_parallel=mode)
    root = ET.fromstring(view.svg())
    assert view.svg() == transformer_block(t=t, sequence_parallel=mode).svg()
    numbers = [e.text for e in root.iter(f"{SVG}text") if e.get("class") == "slice mid" and e.text != "Σ"]
    assert numbers == [str(rank) for _ in range(6) for rank in range(t)]
    title, description = (root.find(f"{SVG}{tag}").text for tag in ("title", "desc"))
    assert (
        title.startswith("A transformer block on") and f"{view.split.total_sent_bytes:,} bytes" in description
    )
    widths = [float(e.get("x")) + float(e.get("width")) for e in root.iter(f"{SVG}rect")]
    assert max(widths) <= 800


def test_the_saved_notebook_gets_one_small_picture():
    data, _ = transformer_block(t=8, sequence_parallel=True)._repr_mimebundle_()
    assert data["text/html"].startswith("<img alt=") and len(data["text/html"]) < 30_000


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: transformer_block(num_heads=6, h=96, t=4), "the number of heads is 6, which 4 ranks cannot share equally; 4 or 8 would do"),
        (lambda: transformer_block(s=6, t=4), "the number of tokens is 6"),
        (lambda: transformer_block(num_heads=3, h=96, s=63, t=3), "t is 3: the picture is for 1 ranks"),
        (lambda: transformer_block(num_heads=5), "a width of 128 is not divisible by 5 heads"),
    ],
)  # fmt: skip
def test_what_cannot_be_split_is_refused_in_a_sentence(call, words):
    with pytest.raises(ValueError, match=words):
        call()
