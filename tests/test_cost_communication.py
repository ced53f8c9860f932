"""Collectives by formula: what a ring and a tree send and take, and which link limits a group."""

import pytest

from course_lib.cost.communication import group_link, group_s, ring_bytes, ring_s, tree_s
from course_lib.cost.hardware import GPUS, SYSTEMS, Roofline, System
from course_lib.cost.links import Link
from course_lib.cost.plan import Plan
from course_lib.cost.shapes import Transformer
from course_lib.cost.step_time import tensor_parallel_bytes

LINK = Link(latency_s=1.0, bandwidth_gb_s=1e-9)  # one byte a second
A100 = SYSTEMS["A100"]


def test_a_ring_sends_each_half_of_an_all_reduce_once():
    assert ring_bytes("all_reduce", 800, 4) == 1200
    assert ring_bytes("all_gather", 800, 4) == ring_bytes("reduce_scatter", 800, 4) == 600
    assert ring_bytes("broadcast", 800, 4) == 600
    assert ring_bytes("all_reduce", 800, 1) == 0


def test_a_ring_takes_so_many_steps_of_a_part_each():
    assert ring_s("all_reduce", 8, 4, LINK) == 6 * (1 + 2)
    assert ring_s("all_gather", 8, 4, LINK) == ring_s("reduce_scatter", 8, 4, LINK) == 3 * (1 + 2)
    assert ring_s("all_to_all", 8, 4, LINK) == 1 + 6
    assert ring_s("all_reduce", 8, 1, LINK) == 0


@pytest.mark.parametrize(("n", "depth"), [(2, 1), (4, 2), (5, 3), (8, 3)])
def test_a_tree_takes_logarithmically_many_steps_of_the_whole(n, depth):
    assert tree_s("broadcast", 8, n, LINK) == depth * 9
    assert tree_s("all_reduce", 8, n, LINK) == 2 * depth * 9


def test_trees_are_faster_for_small_arrays_and_rings_for_large_ones():
    assert tree_s("all_reduce", 1, 64, LINK) < ring_s("all_reduce", 1, 64, LINK)
    assert tree_s("all_reduce", 1e6, 64, LINK) > ring_s("all_reduce", 1e6, 64, LINK)


def test_an_unknown_collective_is_refused():
    with pytest.raises(ValueError, match="'all_sum' is no collective that has a formula here: take one of all_reduce"):
        ring_bytes("all_sum", 8, 4)
    with pytest.raises(ValueError, match="no tree does 'all_gather'"):
        tree_s("all_gather", 8, 4, LINK)


@pytest.mark.parametrize(
    ("n", "stride", "bandwidth"),
    [
        (8, 1, 235),  # inside a node
        (2, 4, 235),
        (32, 1, 180),  # 8 members in a node: 8 network links of 22.5
        (32, 4, 45),  # 2 members in a node
        (32, 8, 22.5),  # one
        (64, 512, 22.5),
    ],
)
def test_a_group_uses_the_network_links_of_its_members(n, stride, bandwidth):
    assert group_link(A100, n, stride).bandwidth_gb_s == pytest.approx(bandwidth)


def test_more_members_in_a_node_are_never_faster_than_the_node():
    slow_inside = System(GPUS["A100"], inside=Link(0, 50), across=Link(0, 22.5))
    assert group_link(slow_inside, 64, 1).bandwidth_gb_s == 50
    assert group_s("all_reduce", 1e9, 1, 1, A100) == 0


def test_tensor_parallel_sends_what_the_paper_says():
    model, t = Transformer("gpt", 4, 1024, 16, context=512), 8
    elements = 8 * 2 * 512 * 1024 * (t - 1) / t  # 8bsh(t-1)/t, Narayanan et al. 2021, section 3.2
    assert tensor_parallel_bytes(model, Plan(tp=t, batch=2, microbatch=2)) == 2 * elements


def test_a_roofline_is_the_lower_of_its_two_roofs():
    roof = Roofline(100, 10)
    assert roof.ridge == 10
    assert [roof.attainable(x) for x in (1, 10, 1000)] == [10, 100, 100]
    assert roof.seconds(200, 5) == 2 and roof.seconds(5, 200) == 20
    with pytest.raises(ValueError, match="needs rates above 0, not 0 FLOP/s"):
        Roofline(0, 10)
