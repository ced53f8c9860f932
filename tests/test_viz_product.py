"""The picture of a product on several ranks: what it derives from the placements, and what it shows of it."""

import re
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
import torch

from course_lib.layout import Partial, Replicate, Shard
from course_lib.viz.product import Product, product

SVG = "{http://www.w3.org/2000/svg}"
CUTS = [
    (Replicate(), Replicate(), Replicate(), "nothing"),
    (Shard(0), Replicate(), Shard(0), "all-gather on dim 0"),
    (Replicate(), Shard(1), Shard(1), "all-gather on dim 1"),
    (Shard(1), Shard(0), Partial(), "all-reduce"),
]


def texts(svg):
    return [node.text or "" for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def hold(placement, t, world_size):
    """What each rank holds of t."""
    return t.tensor_split(world_size, placement.dim) if isinstance(placement, Shard) else [t] * world_size


@pytest.mark.parametrize(("a_at", "b_at", "out", "needs"), CUTS)
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_derived_placement_is_what_multiplying_the_parts_gives(a_at, b_at, out, needs, world_size):
    a, b = torch.arange(32.0).reshape(4, 8), torch.arange(96.0).reshape(8, 12) % 7
    value = Product((4, 8), (8, 12), a_at, b_at, world_size)
    assert (value.out, value.needs) == (out, needs)
    parts = [x @ y for x, y in zip(hold(a_at, a, world_size), hold(b_at, b, world_size), strict=True)]
    if isinstance(out, Partial):
        assert torch.equal(sum(parts), a @ b)
    else:
        assert all(torch.equal(x, y) for x, y in zip(parts, hold(out, a @ b, world_size), strict=True))


@pytest.mark.parametrize(("a_at", "b_at", "out", "needs"), CUTS)
def test_the_picture_names_each_rank_where_its_part_is_and_says_what_it_takes(a_at, b_at, out, needs):
    shown = texts(product((4, 5), (5, 8), a_at, b_at).svg())
    cut = [isinstance(placement, Shard) for placement in (a_at, b_at, out)]
    assert shown.count("rank 0") == shown.count("rank 1") == sum(cut)
    assert shown.count("every rank") == [a_at, b_at, out].count(Replicate())
    assert shown.count("rank 0 + rank 1") == (out == Partial())
    assert {"x (4×5)", "w (5×8)", "out (4×8)"} <= set(shown)
    assert any(line.endswith(needs) for line in shown)


def test_the_result_lies_right_of_a_and_under_b():
    root = ElementTree.fromstring(product((4, 5), (5, 8)).svg())
    boxes = [rect for rect in root.iter(f"{SVG}rect") if rect.get("class") == "owned"]
    a, b, out = ({key: float(box.get(key)) for key in ("x", "y", "width", "height")} for box in boxes)
    assert (out["y"], out["height"]) == (a["y"], a["height"]) and out["x"] > a["x"] + a["width"]
    assert (out["x"], out["width"]) == (b["x"], b["width"]) and out["y"] > b["y"] + b["height"]


@pytest.mark.parametrize(
    "shapes", [((4, 5), (5, 8)), ((14, 14), (14, 14)), ((1, 1), (1, 1)), ((2, 14), (14, 1))]
)
def test_nothing_is_drawn_outside_the_picture(shapes):
    picture = product(*shapes, Shard(1), Shard(0), 4)
    root = ElementTree.fromstring(picture.svg())
    width, height = (float(root.get(key)) for key in ("width", "height"))
    for rect in root.iter(f"{SVG}rect"):
        assert float(rect.get("x")) + float(rect.get("width")) <= width
        assert float(rect.get("y")) + float(rect.get("height")) <= height
    for node in root.iter(f"{SVG}text"):
        assert (
            float(node.get("x")) + (6.5 * len(node.text) if "mid" not in node.get("class", "") else 0)
            <= width
        )
        assert float(node.get("y")) <= height


def test_in_one_process_a_row_and_a_column_point_at_the_value_that_they_make():
    root = ElementTree.fromstring(product((4, 5), (5, 8), world_size=1).svg())
    row, column, value = (r for r in root.iter(f"{SVG}rect") if r.get("class") == "one r0")
    assert value.get("y") == row.get("y") and value.get("x") == column.get("x")
    assert not any(
        r.get("class") == "one r0" for r in ElementTree.fromstring(product((4, 5), (5, 8)).svg()).iter()
    )


def test_ranks_without_a_row_are_not_drawn():
    shown = texts(product((2, 3), (3, 4), Shard(0), world_size=4).svg())
    assert shown.count("rank 1") == 2 and shown.count("rank 2") == 0


def test_factors_that_a_rank_cannot_multiply_are_refused():
    with pytest.raises(ValueError, match="cannot be multiplied"):
        product((4, 5), (4, 8))
    with pytest.raises(ValueError, match="rank 0 would hold \\(4×3\\) and \\(5×8\\)"):
        product((4, 5), (5, 8), Shard(1))
    with pytest.raises(ValueError, match="rank 0 would hold \\(2×5\\) and \\(5×4\\)"):
        product((4, 5), (5, 8), Shard(0), Shard(1))
    with pytest.raises(ValueError, match="smaller example"):
        product((40, 5), (5, 8))


def test_tensors_and_shapes_give_the_same_picture_every_time():
    first = product(torch.zeros(4, 5), torch.zeros(5, 8), Shard(0))
    assert first.svg() == product((4, 5), (5, 8), Shard(0)).svg()


def test_a_page_without_widgets_shows_the_picture_with_its_words():
    picture = product((5, 4), (4, 8), Shard(1), Shard(0), names=("xᵀ", "∂out", "∂w"))
    html = picture._repr_mimebundle_()[0]["text/html"]
    ElementTree.fromstring(unquote(re.search(r'src="data:image/svg\+xml,([^"]+)"', html)[1]))
    assert "∂w: partial" in html.split("src=")[0] and "var(" not in picture.svg()
    assert "∂w: partial" in repr(picture)


@pytest.mark.parametrize(
    ("placements", "count"),
    [((None, None), 0), ((Shard(0), None), 1), ((None, Shard(1)), 1), ((Shard(1), Shard(0)), 2)],
)
def test_each_cut_is_drawn_and_one_that_stays_runs_on_through_the_result(placements, count):
    root = ElementTree.fromstring(product((4, 5), (5, 8), *placements).svg())
    lines = "".join(path.get("d") for path in root.iter(f"{SVG}path") if path.get("class") == "cut")
    assert lines.count("M") == count
    boxes = [r for r in root.iter(f"{SVG}rect") if r.get("class") == "owned"]
    right, bottom = (
        max(float(box.get(at)) + float(box.get(size)) for box in boxes)
        for at, size in (("x", "width"), ("y", "height"))
    )
    if count == 1:
        x1, y1, x2, y2 = map(float, re.findall(r"[\d.]+", lines))
        assert x2 > right if y1 == y2 else y2 > bottom
