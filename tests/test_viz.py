"""The sharding picture: what it says of plans and of real tensors, and what a notebook saves of it."""

import re
import subprocess
import sys
from collections import OrderedDict
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from course_lib.layout import Partial, Replicate, Shard
from course_lib.viz import predict, sharding
from course_lib.viz.locate import find
from course_lib.viz.ownership import bytes_text
from course_lib.viz.plots import new_plot, plt

SVG = "{http://www.w3.org/2000/svg}"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
whole = torch.arange(40.0).reshape(8, 5)


def model():
    return nn.Sequential(OrderedDict(first=nn.Linear(6, 4), second=nn.Linear(4, 3)))


def texts(widget, kind):
    """The texts of the standalone picture with a class, in its order."""
    root = ElementTree.fromstring(widget.svg())
    return [node.text or "" for node in root.iter(f"{SVG}text") if kind in node.get("class", "").split()]


def owner_numbers(widget):
    """What the picture writes into each value."""
    groups = ElementTree.fromstring(widget.svg()).iter(f"{SVG}g")
    return [g.find(f"{SVG}text").text for g in groups if "value" in g.get("class", "").split()]


def fallback_svg(widget):
    html = widget._repr_mimebundle_()[0]["text/html"]
    return unquote(re.search(r'src="data:image/svg\+xml,([^"]+)"', html)[1])


# --- a plan


def test_each_value_shows_its_rank():
    assert owner_numbers(sharding(torch.zeros(4, 2), 2)) == list("00001111")
    assert owner_numbers(sharding(torch.zeros(2, 4), 4, Shard(-1))) == list("01230123")
    assert owner_numbers(sharding(torch.zeros(2, 1), 4, Replicate())) == ["0–3", "0–3"]


def test_each_rank_shows_its_range_and_bytes():
    picture = sharding(torch.zeros(5, 2, dtype=torch.float64), 4)
    assert texts(picture, "range") == ["[0:2, :]", "[2:4, :]", "[4:5, :]", "nothing"]
    assert texts(picture, "amount")[:4] == ["32 bytes", "32 bytes", "16 bytes", "0 bytes"]
    assert "2, 2, 1, 0" in texts(picture, "note")[1]


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_replicating_a_model_holds_world_size_copies_and_sharding_one(world_size):
    one_copy = sum(p.nbytes for p in model().parameters())
    replicated = sharding(model(), world_size, Replicate()).ownership
    assert sum(map(sum, replicated.nbytes)) == world_size * one_copy
    sharded = sharding(model(), world_size, Shard(0)).ownership
    assert sum(map(sum, sharded.nbytes)) == one_copy


def test_a_models_vectors_stay_replicated_where_they_have_no_dim():
    picture = sharding(model(), 2, Shard(1))
    assert texts(picture, "range") == ["0:3", "3:6", "all", "all", "0:2", "2:4", "all", "all"]
    assert "2 tensors have no dim 1 and stay replicated" in texts(picture, "note")[1]


def test_names_and_shapes_of_a_model_are_shown():
    assert texts(sharding(model()), "name") == ["first.weight", "first.bias", "second.weight", "second.bias"]
    assert "4×6" in texts(sharding(model()), "index")


@pytest.mark.parametrize(
    "what",
    [
        (3, 4),
        torch.zeros(7),
        torch.zeros(()),
        torch.zeros(0, 3),
        torch.zeros(2, 3, 4, 5),
        torch.zeros(900, 900),
    ],
)
@pytest.mark.parametrize("placement", [None, Replicate(), Partial()])
def test_any_shape_gives_well_formed_svg_with_a_text_alternative(what, placement):
    picture = sharding(what, 3, placement, name="<w> & 'x'")
    for svg in (picture.svg(), picture.picture):
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img"
        assert root.find(f"{SVG}title").text.startswith("<w> & 'x' · ")
        assert "rank 2: " in root.find(f"{SVG}desc").text


def test_a_huge_model_is_counted_where_it_is_not_drawn():
    picture = sharding({f"layer{i}": (2, 2) for i in range(100)}, 2)
    assert texts(picture, "name")[-1] == "layer38" and "… and 61 more tensors" in picture.svg()
    assert texts(picture, "sum") == ["800 bytes", "800 bytes"]


def test_the_data_for_the_page_stays_small():
    parameters = {f"encoder.layer.{i}.weight": (64 + i, 3 * i + 1, 3, 3) for i in range(60)}
    picture = sharding(parameters, 8)
    assert len(picture.picture) + len(str(picture.data)) < 120_000


def test_bytes_are_rounded_to_a_tenth():
    written = [bytes_text(n) for n in (0, 999, 1000, 1049, 1050, 1_500_000, 10**9)]
    assert written == ["0 bytes", "999 bytes", "1.0 kB", "1.0 kB", "1.1 kB", "1.5 MB", "1.0 GB"]


# --- what a notebook saves


def test_the_mime_bundle_has_a_widget_a_picture_and_a_text():
    bundle, _ = sharding(torch.zeros(4, 2), 2)._repr_mimebundle_()
    assert set(bundle) == {WIDGET_VIEW, "text/html", "text/plain"}
    assert bundle["text/plain"].splitlines()[-2:] == [
        "  rank 0: [0:2, :], 16 bytes",
        "  rank 1: [2:4, :], 16 bytes",
    ]
    assert 'alt="tensor · 4 × 2 · float32; ' in bundle["text/html"]


def test_the_saved_picture_is_the_same_in_every_run():
    program = (
        "import torch; from course_lib.viz import sharding;"
        "b = sharding(torch.nn.Linear(3, 4), 2)._repr_mimebundle_()[0]; print(b['text/plain'] + b['text/html'])"
    )
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    bundle, _ = sharding(nn.Linear(3, 4), 2)._repr_mimebundle_()
    assert there == bundle["text/plain"] + bundle["text/html"] + "\n"


def test_the_saved_picture_stands_alone():
    svg = fallback_svg(sharding(torch.zeros(4, 2), 2))
    assert "var(" not in svg and "http" not in svg.replace("http://www.w3.org/2000/svg", "")
    assert "class='card'" in svg and ".card { fill: #ffffff" in svg  # readable on a dark page too


def test_the_saved_picture_follows_the_controls():
    picture = sharding(torch.zeros(4, 2), 2)
    picture.world_size, picture.placement = 4, "replicate"
    assert owner_numbers(picture) == ["0–3"] * 8
    assert "0–3" in fallback_svg(picture) and "replicate on 4 ranks" in repr(picture)


# --- real tensors


class FakeRun:
    """What launch returns, as far as the picture reads it."""

    def __init__(self, *results):
        self.results = results


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("dim", [0, 1])
def test_real_shards_are_found_where_they_are(world_size, dim):
    chunks = [c.clone() for c in whole.chunk(world_size, dim)]
    chunks += [whole.narrow(dim, 0, 0)] * (world_size - len(chunks))
    found = sharding(FakeRun(*chunks), whole=whole).ownership
    planned = sharding(whole, world_size, Shard(dim)).ownership
    for got, want in zip(found.regions[0], planned.regions[0], strict=True):
        assert got == want or (got[dim][0] == got[dim][1] and want[dim][0] == want[dim][1])
    assert found.nbytes == planned.nbytes
    said = "Replicated" if world_size == 1 else f"Sharded on dim {dim}: each value is on exactly one rank."
    assert any(said in note for note in found.notes)


def test_swapped_shards_are_drawn_where_they_really_are():
    found = sharding(FakeRun(whole[4:], whole[:4]), whole=whole).ownership
    assert found.regions[0] == (((4, 8), (0, 5)), ((0, 4), (0, 5)))


def test_repeated_values_are_found_where_the_rank_ought_to_have_them():
    zeros = torch.zeros(8, 5)
    found = sharding(FakeRun(*zeros.chunk(4)), whole=zeros).ownership
    assert [part[0] for part in found.regions[0]] == [(0, 2), (2, 4), (4, 6), (6, 8)]


def test_a_block_is_found_exactly():
    assert find(whole[2:5, 1:3], whole) == ((2, 5), (1, 3))
    assert find(whole[2:5, 1:3] + 1e-6, whole) is None
    nan = whole.clone()
    nan[3, 3] = float("nan")
    assert find(nan[3:4, 2:5], nan) == ((3, 4), (2, 5))
    late = torch.zeros(6, 50)
    late[4, 49] = 1.0
    assert find(late[3:5], late) == ((3, 5), (0, 50))


@pytest.mark.parametrize(
    ("results", "says"),
    [
        ([whole, whole.clone()], "Replicated: every rank holds all of it."),
        ([whole[:5], whole[3:]], "Ranks 0 and 1 overlap: both hold 10 of its values."),
        ([whole[:2], whole[3:]], "5 of 40 values are on no rank, the first at [2, 0]."),
        ([whole[:4], whole[4:] + 1], "Rank 1's 4 × 5 tensor is no shard of it: its values stand nowhere"),
        (
            [whole[:4].double(), whole[4:]],
            "Rank 0's 4 × 5 tensor is no shard of it: it is float64, not float32.",
        ),
        ([whole[:4].flatten(), whole[4:]], "it has 1 dims, not 2 (for flat pieces pass whole=w.flatten())."),
        ([torch.zeros(9, 5), whole], "it is larger than 8 × 5."),
        (
            [whole / 2, whole / 2],
            "Partial sums: each rank holds the full shape, and only their sum is the whole.",
        ),
    ],
)
def test_what_the_ranks_hold_is_said_in_words(results, says):
    picture = sharding(FakeRun(*results), whole=whole)
    assert says in " ".join(picture.ownership.notes)
    assert ElementTree.fromstring(picture.svg()) is not None


def test_a_models_tensors_are_found_by_name():
    net = model()
    state = net.state_dict()
    half = {name: value.chunk(2)[0] for name, value in state.items()}
    rest = {name: value.chunk(2)[1] for name, value in state.items()}
    notes = " ".join(sharding(FakeRun(half, rest), whole=net).ownership.notes)
    assert "4 of 4 tensors: sharded on dim 0" in notes
    half["first.bias"] = half["first.bias"] + 1
    del rest["second.bias"]
    picture = sharding(FakeRun(half, rest), whole=net)
    notes = " ".join(picture.ownership.notes)
    assert (
        "first.bias: Rank 0's 2 tensor is no shard" in notes and "second.bias: Rank 1 returned none" in notes
    )
    assert texts(picture, "range")[-2:] == ["0:2", "–"] and texts(picture, "range")[2] == "?"


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: sharding(whole, 0), ValueError, "world_size must be at least 1, not 0"),
        (lambda: sharding(whole, 9), ValueError, "at most 8 ranks side by side, not 9: pick fewer"),
        (lambda: sharding(whole, "4"), TypeError, "a whole number, not '4'"),
        (lambda: sharding(whole, 2, Shard(2)), ValueError, r"Shard\(2\).*\(8, 5\).*dims -2 to 1"),
        (lambda: sharding((2, 3, 4), 2, Shard(-1)), ValueError, r"draws dims 0 and 1; Shard\(-1\)"),
        (lambda: sharding(whole, 2, 0), TypeError, r"Shard\(0\) or Shard\(1\), not 0"),
        (lambda: sharding("model"), TypeError, "tensor is a str: sharding.. draws tensors"),
        (lambda: sharding(nn.ReLU()), ValueError, "ReLU has no parameters to draw"),
        (lambda: sharding(FakeRun(whole)), TypeError, r"sharding\(run, whole=w\)"),
        (
            lambda: sharding(FakeRun(whole, None), whole=whole),
            TypeError,
            "rank 1 returned None and not a tensor",
        ),
        (
            lambda: sharding(FakeRun({"b": whole}), whole={"a": whole}),
            ValueError,
            "rank 0 holds 'b'.*it has a",
        ),
        (lambda: sharding(FakeRun(*[whole] * 9), whole=whole), ValueError, "this run has 9"),
    ],
)
def test_a_wrong_argument_is_refused_in_a_sentence(call, error, words):
    with pytest.raises(error, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


# --- predictions


def test_a_prediction_is_readable_without_its_widget():
    widget = predict("2 < 3?", ["yes", "no"])
    data = widget._repr_mimebundle_()[0]
    assert data["text/html"] == "<p><b>Predict.</b> 2 &lt; 3?</p><ul><li>yes</li><li>no</li></ul>"
    assert data["text/plain"] == "Predict: 2 < 3?\n  ( ) yes\n  ( ) no" and widget.chosen == -1
    with pytest.raises(ValueError, match="at least two options, not 1"):
        predict("why?", ["because"])


# --- plots


def test_a_plot_is_drawn_for_both_themes(tmp_path):
    axes = new_plot("step", "loss", "a title", log=True)
    axes.plot([1, 2], [1, 10], label="one")
    first, second = tmp_path / "a.svg", tmp_path / "b.svg"
    for path in (first, second):
        axes.figure.savefig(path, metadata={"Date": None})
    assert first.read_text() == second.read_text(), "the same plot must give the same bytes"
    assert axes.figure.get_facecolor()[3] == 0, "the page must show through"
    plt.close(axes.figure)
