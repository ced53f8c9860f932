"""The data: the same on every rank and in every run, and laid out as its docstring says."""

import sysconfig
from pathlib import Path

import pytest
import torch

from course_lib import launch
from course_lib.data import MASK, digits, masked_batch, text, text_batch


def test_digits_are_split_once_and_for_all():
    data, again = digits(), digits(torch.float64)
    assert data.train_x.shape == (1440, 1, 8, 8) and data.test_x.shape == (357, 1, 8, 8)
    assert torch.equal(data.train_x.double(), again.train_x) and torch.equal(data.test_y, again.test_y)
    assert data.train_x.min() == 0 and data.train_x.max() == 1 and set(data.train_y.tolist()) == set(range(10))


def test_text_is_the_library_from_its_first_module_on():
    first = min(Path(sysconfig.get_path("stdlib")).glob("[!_]*.py"))
    source = first.read_bytes()
    assert bytes(text(len(source)).tolist()) == source
    assert text().shape == (1_000_000,) and text().dtype == torch.uint8
    assert torch.equal(text()[:1000], text(1000))


def test_who_writes_into_the_text_has_a_copy():
    before = text(100)
    text(100).zero_()
    assert torch.equal(text(100), before) and before.any()


def test_y_is_the_byte_that_follows():
    x, y = text_batch(3, batch=5, context=16)
    assert x.shape == y.shape == (5, 16) and x.dtype == y.dtype == torch.int64
    assert torch.equal(x[:, 1:], y[:, :-1])
    source = bytes(text().tolist())
    for row, following in zip(x.tolist(), y.tolist(), strict=True):
        assert bytes([*row, following[-1]]) in source


def test_a_batch_depends_on_the_step_alone():
    x, _ = text_batch(3, 5, 16)
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert torch.equal(text_batch(3, 5, 16)[0], x) and not torch.equal(text_batch(4, 5, 16)[0], x)
    assert torch.equal(torch.get_rng_state(), state), "the caller's own random numbers are left alone"
    run = launch(text_batch, 2, 3, 5, 16)
    assert all(torch.equal(run[rank][0], x) for rank in range(2))


@pytest.mark.parametrize("num_bytes", [0, -1, 10**12])
def test_more_text_than_there_is_is_refused(num_bytes):
    with pytest.raises(ValueError, match=f"num_bytes is {num_bytes}"):
        text(num_bytes)


def test_a_window_longer_than_the_text_is_refused():
    with pytest.raises(ValueError, match="context is 1000000"):
        text_batch(0, 1, 1_000_000)
    assert text_batch(0, 1, 999_999)[1].shape == (1, 999_999)


def test_masked_bytes_keep_what_stood_there_and_nothing_else():
    x, y = masked_batch(3, 64, 50)
    whole, _ = text_batch(3, 64, 50)
    hidden = y != -100
    assert torch.equal(torch.where(hidden, y, x), whole) and (x[hidden] == MASK).all()
    assert (whole != MASK).all(), "no byte of the text looks like a masked one"
    assert 0.12 < hidden.float().mean() < 0.19 and hidden.any(1).all()
    again = masked_batch(3, 64, 50)
    assert torch.equal(again[0], x) and not torch.equal(masked_batch(4, 64, 50)[0], x)
    assert masked_batch(0, 8, 5, masked=0.0)[1].ne(-100).sum(1).tolist() == [1] * 8
