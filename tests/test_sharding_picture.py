"""The sharding picture: what it says of plans and of real tensors."""

from collections import OrderedDict
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from course_lib.layout import Partial, Replicate, Shard
from course_lib.layout.locate import find, located
from course_lib.layout.ownership import describe, planned
from course_lib.viz import sharding

whole = torch.arange(40.0).reshape(8, 5)


def model():
    return nn.Sequential(OrderedDict(first=nn.Linear(6, 4), second=nn.Linear(4, 3)))


def marks(picture, focus=None):
    found = [mark for panel in picture.scene.panels for mark in panel.marks]
    return [mark for mark in found if focus is None or mark.focus == focus]


def said(picture, kind):
    """The texts of a kind, in order."""
    return [mark.text for mark in marks(picture) if mark.shape == "text" and mark.kind == kind]


# --- a plan


def test_each_value_shows_its_rank():
    assert said(sharding(torch.zeros(4, 2), 2), "strong mid") == list("00001111")
    assert said(sharding(torch.zeros(2, 4), 4, Shard(-1)), "strong mid") == list("01230123")
    assert said(sharding(torch.zeros(2, 1), 4, Replicate()), "strong mid") == ["0–3", "0–3"]
    kinds = [mark.kind for mark in marks(sharding(torch.zeros(4, 1), 2), "values")]
    assert kinds == ["rank-0 held"] * 2 + ["rank-1 held"] * 2


def test_each_rank_shows_its_range_and_bytes():
    picture = sharding(torch.zeros(5, 2, dtype=torch.float64), 4)
    assert [t for t in said(picture, "small") if t[0] in "[n"] == ["[0:2, :]", "[2:4, :]", "[4:5, :]", "nothing"]
    assert [t for t in said(picture, "small quiet") if "bytes" in t][:4] == [
        "32 bytes",
        "32 bytes",
        "16 bytes",
        "0 bytes",
    ]
    assert "2, 2, 1, 0" in picture.scene.notes[1]


def test_what_is_pointed_at_is_told_exactly_and_lights_up_all_of_its_rank():
    picture = sharding(torch.zeros(4, 5), 2, name="w")
    value = marks(picture, "values")[11]
    assert value.tip == "w[2, 1] · 4 bytes · on rank 1, which holds [2:4, :]: 40 bytes" and value.of == ("r1",)
    assert marks(picture, "ranks")[0].tip == "rank 0 · w [0:2, :] · 10 of 20 values · 40 bytes"
    together = marks(picture.choose(world_size=4, placement="replicate"), "values")[0]
    assert together.tip == "w[0, 0] · 4 bytes · on ranks 0–3: 16 bytes together" and len(together.of) == 4


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_replicating_a_model_holds_world_size_copies_and_sharding_one(world_size):
    one_copy = sum(p.nbytes for p in model().parameters())
    widths = {}
    for placement in (Replicate(), Shard(0)):
        bars = [
            mark.w
            for mark in marks(sharding(model(), world_size, placement))
            if mark.key[:1] == "m" and mark.shape == "rect"
        ]
        copy = next(mark.w for mark in marks(sharding(model(), world_size, placement)) if mark.key == "copy")
        widths[str(placement)] = sum(bars) / copy
    assert widths == {"replicate": pytest.approx(world_size), "shard dim 0": pytest.approx(1)}
    assert f"{one_copy} bytes = 1 × one copy" in said(sharding(model(), world_size), "small quiet")


def test_a_models_vectors_stay_replicated_where_they_have_no_dim():
    picture = sharding(model(), 2, Shard(1))
    assert [t for t in said(picture, "small")] == ["0:3", "3:6", "all", "all", "0:2", "2:4", "all", "all"]
    assert "2 tensors have no dim 1 and stay replicated" in picture.scene.notes[1]
    assert {"first.weight", "first.bias", "second.weight", "second.bias"} <= set(said(picture, ""))
    assert "4×6" in said(picture, "small quiet")


@pytest.mark.parametrize(
    "what", [(3, 4), torch.zeros(7), torch.zeros(()), torch.zeros(0, 3), torch.zeros(2, 3, 4, 5), torch.zeros(900, 900)]
)
@pytest.mark.parametrize("placement", [None, Replicate(), Partial()])
def test_any_shape_gives_a_picture_inside_its_panels(what, placement):
    picture = sharding(what, 3, placement, name="<w> & 'x'")
    assert picture.scene.title.startswith("<w> & 'x' · ") and "rank 2: " in str(picture)
    assert ElementTree.fromstring(picture.svg()) is not None
    for panel in picture.scene.panels:
        boxes = [mark for mark in panel.marks if mark.shape == "rect"]
        assert all(0 <= m.x and m.x + m.w <= panel.w + 1 and m.y + m.h <= panel.h for m in boxes)


@pytest.mark.parametrize("ranks", [2, 8])
def test_no_two_texts_of_a_model_lie_over_each_other(ranks):
    from course_lib.viz.scene import text_width

    big = {"transformer.h.11.mlp.c_proj.weight": (12, 4), "w": (768, 3072), "b": (64,)}
    picture = sharding(big, ranks, Shard(1))
    lines = {}
    for mark in picture.scene.panels[0].marks:
        if mark.shape == "text":
            lines.setdefault(mark.y, []).append((mark.x, mark.x + (mark.w or text_width(mark.text, mark.kind))))
    for spans in lines.values():
        ordered = sorted(spans)
        assert all(stop <= start for (_, stop), (start, _) in zip(ordered, ordered[1:], strict=False))


def test_a_huge_model_is_counted_where_it_is_not_drawn_and_asks_the_kernel():
    picture = sharding({f"layer{i}": (2, 2) for i in range(100)}, 2)
    assert "layer38" in said(picture, "") and "… and 61 more tensors" in said(picture, "small quiet")
    assert [t for t in said(picture, "strong") if "bytes" in t] == ["800 bytes", "800 bytes"]
    assert not picture.frames and len(picture.html()) < 25_000
    assert sharding(model()).frames and len(sharding(model())._block) < 20_000


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
    found = located(FakeRun(*chunks), whole)
    plan = planned("w", (describe("w", whole),), Shard(dim), world_size)
    for got, want in zip(found.regions[0], plan.regions[0], strict=True):
        assert got == want or (got[dim][0] == got[dim][1] and want[dim][0] == want[dim][1])
    assert found.nbytes == plan.nbytes
    said = "Replicated" if world_size == 1 else f"Sharded on dim {dim}: each value is on exactly one rank."
    assert any(said in note for note in found.notes)


def test_swapped_shards_are_drawn_where_they_really_are():
    found = located(FakeRun(whole[4:], whole[:4]), whole)
    assert found.regions[0] == (((4, 8), (0, 5)), ((0, 4), (0, 5)))


def test_repeated_values_are_found_where_the_rank_ought_to_have_them():
    zeros = torch.zeros(8, 5)
    found = located(FakeRun(*zeros.chunk(4)), zeros)
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
        ([whole[:4].double(), whole[4:]], "Rank 0's 4 × 5 tensor is no shard of it: it is float64, not float32."),
        ([whole[:4].flatten(), whole[4:]], "it has 1 dims, not 2 (for flat pieces pass whole=w.flatten())."),
        ([torch.zeros(9, 5), whole], "it is larger than 8 × 5."),
        ([whole / 2, whole / 2], "Partial sums: each rank holds the full shape, and only their sum is the whole."),
    ],
)
def test_what_the_ranks_hold_is_said_in_words(results, says):
    picture = sharding(FakeRun(*results), whole=whole)
    assert says in " ".join(picture.scene.notes)
    assert ElementTree.fromstring(picture.svg()) is not None


def test_a_models_tensors_are_found_by_name():
    net = model()
    state = net.state_dict()
    half = {name: value.chunk(2)[0] for name, value in state.items()}
    rest = {name: value.chunk(2)[1] for name, value in state.items()}
    notes = " ".join(sharding(FakeRun(half, rest), whole=net).scene.notes)
    assert "4 of 4 tensors: sharded on dim 0" in notes
    half["first.bias"] = half["first.bias"] + 1
    del rest["second.bias"]
    picture = sharding(FakeRun(half, rest), whole=net)
    notes = " ".join(picture.scene.notes)
    assert "first.bias: Rank 0's 2 tensor is no shard" in notes and "second.bias: Rank 1 returned none" in notes
    shown = said(picture, "small")
    assert shown[-2:] == ["0:2", "–"] and shown[2] == "?"


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
        (lambda: sharding(FakeRun(whole, None), whole=whole), TypeError, "rank 1 returned None and not a tensor"),
        (lambda: sharding(FakeRun({"b": whole}), whole={"a": whole}), ValueError, "rank 0 holds 'b'.*it has a"),
        (lambda: sharding(FakeRun(*[whole] * 9), whole=whole), ValueError, "this run has 9"),
    ],
)
def test_a_wrong_argument_is_refused_in_a_sentence(call, error, words):
    with pytest.raises(error, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
