"""Index ranges: what each rank holds under a placement, against torch.chunk and NumPy-style slicing."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from course_lib.layout import (
    Partial,
    Replicate,
    Shard,
    contains,
    num_elements,
    owners,
    region,
    shard_shape,
    slice_text,
    split_bounds,
)

shapes = st.lists(st.integers(1, 7), min_size=1, max_size=3)
world_sizes = st.integers(1, 9)


def take(tensor, part):
    return tensor[tuple(slice(start, stop) for start, stop in part)]


@given(shapes, world_sizes, st.data())
def test_a_shard_is_what_torch_chunk_gives(shape, world_size, data):
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    whole = torch.arange(torch.Size(shape).numel()).reshape(shape)
    chunks = whole.chunk(world_size, dim)
    for rank in range(world_size):
        mine = take(whole, region(shape, Shard(dim), world_size, rank))
        if rank < len(chunks):
            assert torch.equal(mine, chunks[rank])
        else:  # torch.chunk returns fewer chunks; the ranks without one hold nothing
            assert mine.numel() == 0
        assert shard_shape(shape, Shard(dim), world_size, rank) == tuple(mine.shape)


@given(shapes, world_sizes, st.data())
def test_a_sharded_value_has_one_owner(shape, world_size, data):
    dim = data.draw(st.integers(0, len(shape) - 1))
    index = [data.draw(st.integers(0, length - 1)) for length in shape]
    (owner,) = owners(shape, Shard(dim), world_size, index)
    assert contains(region(shape, Shard(dim), world_size, owner), index)


@given(shapes, world_sizes)
def test_a_replicated_or_partial_value_is_on_every_rank(shape, world_size):
    everyone = tuple(range(world_size))
    for placement in (Replicate(), Partial()):
        assert owners(shape, placement, world_size, [0] * len(shape)) == everyone
        assert num_elements(region(shape, placement, world_size, world_size - 1)) == torch.Size(shape).numel()


def test_uneven_splits_leave_the_last_ranks_short():
    assert split_bounds(5, 4) == (0, 2, 4, 5, 5)
    assert split_bounds(0, 3) == (0, 0, 0, 0)


def test_placements_and_regions_read_as_python():
    assert [str(p) for p in (Replicate(), Shard(1), Partial())] == ["replicate", "shard dim 1", "partial sum"]
    assert slice_text(((0, 2), (0, 5)), (4, 5)) == "[0:2, :]"


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: split_bounds(4, 0), ValueError, "world_size must be at least 1, not 0"),
        (lambda: split_bounds(4, 2.0), TypeError, "whole number, not 2.0"),
        (lambda: region((4, 5), Shard(2), 2, 0), ValueError, r"Shard\(2\).*shape \(4, 5\).*dims -2 to 1"),
        (lambda: region((), Shard(0), 2, 0), ValueError, r"no dim at all.*Replicate\(\)"),
        (lambda: region((4,), Replicate(), 2, 2), ValueError, "ranks go from 0 to 1"),
        (lambda: owners((4, 5), Replicate(), 2, (4, 0)), ValueError, r"index \[4, 0\].*shape \(4, 5\)"),
        (lambda: Shard("rows"), TypeError, r"as in Shard\(0\), not 'rows'"),
    ],
)
def test_a_wrong_argument_is_refused_in_a_sentence(call, error, words):
    with pytest.raises(error, match=words):
        call()
