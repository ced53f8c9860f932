"""A mesh of ranks: numbers, coordinates, groups and nodes, as they must be for any layout, and as PyTorch's DeviceMesh has them."""

from itertools import permutations

import pytest
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore

from course_lib.layout import AXES, Coordinates, Layout, nodes_of

LARGE = Layout(pp=64, dp=6, tp=8)
sizes = st.integers(1, 5)
layouts = st.builds(Layout, sizes, sizes, st.integers(1, 3), sizes, st.permutations(AXES).map(tuple))
axes = st.sets(st.sampled_from(AXES)).map(sorted)


# --- what must hold for every layout


@given(layouts)
def test_coordinates_and_ranks_are_inverse(layout):
    found = [layout.coordinates(rank) for rank in range(layout.world_size)]
    assert [layout.rank(*place) for place in found] == list(range(layout.world_size))
    assert len(set(found)) == layout.world_size


@given(layouts, st.data())
def test_a_step_along_an_axis_is_a_stride(layout, data):
    rank = data.draw(st.integers(0, layout.world_size - 1))
    axis = data.draw(st.sampled_from(AXES))
    here = layout.coordinates(rank)
    if getattr(here, axis) + 1 < getattr(layout, axis):
        beside = here._replace(**{axis: getattr(here, axis) + 1})
        assert layout.rank(*beside) - rank == layout.stride(axis)


@settings(deadline=None)
@given(layouts, axes)
def test_groups_share_out_the_ranks(layout, along):
    groups = layout.groups(*along)
    assert sorted(rank for group in groups for rank in group) == list(range(layout.world_size))
    for group in groups:
        assert list(group) == sorted(group)
        places = [layout.coordinates(rank) for rank in group]
        for axis in AXES:
            values = {getattr(place, axis) for place in places}
            assert len(values) == (getattr(layout, axis) if axis in along else 1)
        assert layout.group(group[len(group) // 2], *along) == group == layout.group(group[-1], *along)


@given(layouts, st.integers(1, 9))
def test_nodes_hold_consecutive_ranks(layout, ranks_per_node):
    everyone = range(layout.world_size)
    nodes = nodes_of(everyone, ranks_per_node)
    assert nodes == tuple(range(-(-layout.world_size // ranks_per_node)))
    for group in layout.groups("tp"):
        assert nodes_of(group, ranks_per_node) == tuple(sorted({r // ranks_per_node for r in group}))
    assert nodes_of(everyone, 1) == tuple(everyone)


def test_the_first_axis_of_an_order_is_the_outermost():
    assert [LARGE.stride(axis) for axis in AXES] == [48, 8, 8, 1]
    other = Layout(pp=64, dp=6, tp=8, order=("tp", "dp", "pp"))
    assert [other.stride(axis) for axis in AXES] == [1, 64, 3072, 384]
    assert (LARGE.coordinates(1234), other.coordinates(1234)) == ((25, 4, 0, 2), (18, 1, 0, 3))
    assert LARGE.group(1234, "tp") == tuple(range(1232, 1240)) and other.group(1, "pp")[:3] == (0, 1, 2)
    assert other == Layout(pp=64, dp=6, tp=8, order=("cp", "tp", "dp", "pp"))


def test_it_reads_as_a_mesh():
    assert str(LARGE) == "pp 64 × dp 6 × tp 8" and str(Layout()) == "1 rank"
    assert str(Layout(2, 1, 2, 2, order=("tp", "cp", "pp"))) == "tp 2 × cp 2 × pp 2"
    assert LARGE.coordinates(0) == Coordinates() and LARGE.sizes == (64, 6, 1, 8)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: Layout(pp=0), ValueError, "pp is 0: an axis has at least 1 rank"),
        (lambda: Layout(tp=2.0), TypeError, "tp is the number of ranks along an axis, a whole number, not 2.0"),
        (lambda: Layout(cp=True), TypeError, "not True"),
        (lambda: LARGE.coordinates(3072), ValueError, "rank 3072 is not in a world of 3072.*0 to 3071"),
        (lambda: LARGE.coordinates(-1), ValueError, "rank -1 is not"),
        (lambda: LARGE.rank(dp=6), ValueError, "dp = 6 is outside pp 64 × dp 6 × tp 8: .* from 0 to 5"),
        (lambda: LARGE.group(0, "ep"), ValueError, "'ep' is no axis of a layout: take one of pp, dp, cp, tp"),
        (lambda: Layout(dp=2, tp=2, order=("tp",)), ValueError, "names each axis of more than one rank once"),
        (lambda: Layout(dp=2, order=("dp", "dp")), ValueError, "outermost first"),
        (lambda: Layout(dp=2, order=("dp", "ep")), ValueError, "out of pp, dp, cp, tp"),
        (lambda: nodes_of([0], 0), ValueError, "at least 1"),
    ],
)
def test_a_wrong_argument_is_refused_in_a_sentence(call, error, words):
    with pytest.raises(error, match=words):
        call()


# --- as PyTorch has it


def pytorchs(layout, rank):
    """What DeviceMesh says on one rank of a world that exists in this process alone: coordinates and groups, by axis."""
    dist.init_process_group("fake", rank=rank, world_size=layout.world_size, store=FakeStore())
    try:
        shape = tuple(getattr(layout, axis) for axis in layout.order)
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=layout.order)
        groups = {axis: tuple(dist.get_process_group_ranks(mesh.get_group(axis))) for axis in AXES}
        return {axis: mesh.get_local_rank(axis) for axis in AXES}, groups
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("rank", [0, 7, 8, 47, 48, 383, 1234, 2048, 3064, 3071])
def test_the_large_mesh_is_pytorchs(rank):
    places, groups = pytorchs(LARGE, rank)
    assert LARGE.coordinates(rank)._asdict() == places
    assert {axis: LARGE.group(rank, axis) for axis in AXES} == groups


@settings(max_examples=25, deadline=None)
@given(layouts, st.data())
def test_every_mesh_is_pytorchs(layout, data):
    rank = data.draw(st.integers(0, layout.world_size - 1))
    places, groups = pytorchs(layout, rank)
    assert layout.coordinates(rank)._asdict() == places
    assert {axis: layout.group(rank, axis) for axis in AXES} == groups


def test_every_order_of_the_axes_is_pytorchs():
    for order in permutations(AXES):
        layout = Layout(2, 3, 2, 2, order)
        places, groups = pytorchs(layout, 13)
        assert layout.coordinates(13)._asdict() == places
        assert {axis: layout.group(13, axis) for axis in AXES} == groups
