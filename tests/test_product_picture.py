"""The picture of a product on several ranks: what it derives from the placements, and what it shows of it."""

import pytest
import torch

from course_lib.layout import Partial, Replicate, Shard
from course_lib.viz import product

CUTS = {
    "nothing": (Replicate(), Replicate(), Replicate(), "nothing"),
    "rows of x": (Shard(0), Replicate(), Shard(0), "all-gather on dim 0"),
    "columns of w": (Replicate(), Shard(1), Shard(1), "all-gather on dim 1"),
    "columns of x, rows of w": (Shard(1), Shard(0), Partial(), "all-reduce"),
}


def marks(picture, kind=""):
    return [mark for mark in picture.scene.panels[0].marks if kind in mark.kind.split() or not kind]


def texts(picture):
    return [mark.text for panel in picture.scene.panels for mark in panel.marks if mark.shape == "text"]


def hold(placement, t, world_size):
    """What each rank holds of t."""
    return t.tensor_split(world_size, placement.dim) if isinstance(placement, Shard) else [t] * world_size


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_the_derived_placement_is_what_multiplying_the_parts_gives(cut, world_size):
    a_at, b_at, out, needs = CUTS[cut]
    a, b = torch.arange(32.0).reshape(4, 8), torch.arange(96.0).reshape(8, 12) % 7
    said = str(product(a, b, a_at, b_at, world_size))
    words = f"sharded on dim {out.dim}" if isinstance(out, Shard) else "partial" if out == Partial() else "whole"
    assert f"\n  out: {words}" in said and said.endswith(f"all of out on every rank takes: {needs}")
    parts = [x @ y for x, y in zip(hold(a_at, a, world_size), hold(b_at, b, world_size), strict=True)]
    if out == Partial():
        assert torch.equal(sum(parts), a @ b)
    else:
        assert all(torch.equal(x, y) for x, y in zip(parts, hold(out, a @ b, world_size), strict=True))
    assert f"= ({parts[0].shape[0]}×{parts[0].shape[1]})" in said


@pytest.mark.parametrize("cut", CUTS)
def test_each_rank_is_named_where_its_part_is_and_lights_up_what_it_multiplies(cut):
    a_at, b_at, out, _ = CUTS[cut]
    picture = product((4, 5), (5, 8), a_at, b_at)
    shown, sharded = texts(picture), [isinstance(at, Shard) for at in (a_at, b_at, out)]
    assert shown.count("rank 0") == shown.count("rank 1") == sum(sharded)
    assert shown.count("every rank") == [a_at, b_at, out].count(Replicate())
    assert shown.count("rank 0 + rank 1") == (out == Partial())
    assert {"x (4×5)", "w (5×8)", "out (4×8)"} <= set(shown)
    for rank in (0, 1):
        lit = [mark for mark in marks(picture) if f"r{rank}" in mark.of and mark.tip]
        assert [mark.focus for mark in lit] == ["x", "w", "out"]
    assert not any(mark.of for mark in marks(picture, "line"))


def test_a_part_tells_what_its_rank_multiplies():
    tips = [mark.tip for mark in marks(product((4, 5), (5, 8), Shard(1), Shard(0))) if mark.tip]
    first = "rank 0 · x[:, 0:3] · w[0:3, :] = its summand of out: (4×3) · (3×8) = (4×8)"
    second = "rank 1 · x[:, 3:5] · w[3:5, :] = its summand of out: (4×2) · (2×8) = (4×8)"
    assert tips == [second, first] * 3
    tips = [mark.tip for mark in marks(product((4, 5), (5, 8), Shard(0))) if mark.tip]
    assert tips[0] == "rank 1 · x[2:4, :] · w = out[2:4, :]: (2×5) · (5×8) = (2×8)"
    assert tips[2] == "w (5×8), whole on every rank"


def test_the_result_lies_right_of_a_and_under_b():
    a, b, out = marks(product((4, 5), (5, 8)), "all")
    assert (out.y, out.h) == (a.y, a.h) and out.x > a.x + a.w
    assert (out.x, out.w) == (b.x, b.w) and out.y > b.y + b.h


def test_each_cut_is_drawn_and_one_that_stays_runs_on_through_the_result():
    for cut, count in zip(CUTS, (0, 1, 1, 2), strict=True):
        picture = product((4, 5), (5, 8), *CUTS[cut][:2])
        lines = marks(picture, "dashed")
        assert len(lines) == count
        out = [mark for mark in marks(picture) if mark.focus == "out"]
        right, bottom = max(mark.x + mark.w for mark in out), max(mark.y + mark.h for mark in out)
        for line in lines if count == 1 else []:
            assert line.x + line.w > right if line.h == 0 else line.y + line.h > bottom


def test_partial_sums_lie_behind_each_other_the_first_on_top():
    sheets = [mark for mark in marks(product((4, 5), (5, 8), Shard(1), Shard(0), 4)) if mark.focus == "out"]
    assert [mark.kind for mark in sheets] == [f"rank-{rank} held" for rank in (3, 2, 1, 0)]
    assert all(behind.x > before.x for behind, before in zip(sheets, sheets[1:], strict=False))


def test_ranks_without_a_row_are_not_drawn():
    picture = product((2, 3), (3, 4), Shard(0), world_size=4)
    assert texts(picture).count("rank 1") == 2 and texts(picture).count("rank 2") == 0
    assert len(marks(picture, "dashed")) == 1


def test_in_one_process_a_value_lights_up_the_row_and_the_column_that_make_it():
    picture = product((4, 5), (5, 8), world_size=1)
    row, column, value = marks(picture, "rank-0")
    assert value.y == row.y and value.x == column.x and value.lights == row.of + column.of
    assert value.tip == "out[2, 4] · row 2 of x times column 4 of w: a sum of 5 products"
    assert len([mark for mark in marks(picture) if mark.focus == "out"]) == 4 * 8
    assert "nothing to cut" in picture.scene.off["cut"] and "rank 0" not in texts(picture)


def test_the_reader_switches_the_cut_and_the_world_size():
    picture = product((5, 4), (4, 8), Shard(1), Shard(0), 3, names=("xᵀ", "∂out", "∂w"))
    assert picture.choices == {"cut": "columns of xᵀ, rows of ∂out", "world_size": 3}
    assert "∂w: partial" in str(picture) and "on 3 ranks" in str(picture)
    for cut in ("nothing", "rows of xᵀ", "columns of ∂out"):
        for n in (1, 2, 3, 4):
            picture.choose(cut=cut, world_size=n)
            assert picture.scene.panels[1].marks
    assert "∂w: sharded on dim 1" in str(picture)


@pytest.mark.parametrize("shapes", [((4, 5), (5, 8)), ((14, 14), (14, 14)), ((1, 1), (1, 1)), ((2, 14), (14, 1))])
def test_nothing_is_drawn_outside_the_picture(shapes):
    panel = product(*shapes, Shard(1), Shard(0), 4).scene.panels[0]
    for mark in (mark for mark in panel.marks if mark.shape != "text"):
        assert 0 <= mark.x and mark.x + mark.w <= panel.w and 0 <= mark.y and mark.y + mark.h <= panel.h


def test_factors_that_a_rank_cannot_multiply_are_refused():
    with pytest.raises(ValueError, match="cannot be multiplied"):
        product((4, 5), (4, 8))
    with pytest.raises(ValueError, match="rank 0 would hold \\(4×3\\) and \\(5×8\\)"):
        product((4, 5), (5, 8), Shard(1))
    with pytest.raises(ValueError, match="rank 0 would hold \\(2×5\\) and \\(5×4\\)"):
        product((4, 5), (5, 8), Shard(0), Shard(1))
    for arguments in (((40, 5), (5, 8)), ((4, 5), (5, 8), None, None, 5)):
        with pytest.raises(ValueError, match="smaller example"):
            product(*arguments)


def test_tensors_and_shapes_give_the_same_picture_and_a_small_one():
    first = product(torch.zeros(4, 5), torch.zeros(5, 8), Shard(0))
    assert first.svg() == product((4, 5), (5, 8), Shard(0)).svg()
    assert len(first._block) < 4_000 and len(product((14, 14), (14, 14))._block) < 7_000
