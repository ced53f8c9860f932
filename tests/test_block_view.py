"""The sharding view of a transformer block without a page: its numbers are a real block's, and it draws and says them."""

import subprocess
import sys
from dataclasses import replace
from math import prod
from xml.etree import ElementTree

import pytest
import torch

from course_lib.collectives import autograd
from course_lib.cost.communication import ring_bytes
from course_lib.layout import Replicate, Shard
from course_lib.models.gpt import Block
from course_lib.parallel.tensor import ColumnParallelLinear, RowParallelLinear
from course_lib.viz.block import transformer_block
from course_lib.viz.block_model import SEQUENCE, Activation, SplitBlock, Weights
from course_lib.viz.block_picture import draw
from course_lib.viz.block_words import describe, heads, rank_line

SVG = "{http://www.w3.org/2000/svg}"
ONE = SplitBlock(2, 64, 128, 8, t=1)
ALL = [replace(ONE, t=t, sequence_parallel=on) for t in (1, 2, 4, 8) for on in (False, True)]
ODD = SplitBlock(3, 15, 12, 6, t=3, sequence_parallel=True, itemsize=2)


def texts(svg):
    return ["".join(node.itertext()) for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


# --- what it knows


@pytest.mark.parametrize("block", [*ALL, ODD])
def test_parameters_are_those_of_a_real_block_cut_as_the_parallel_linears_cut_them(block):
    with torch.device("meta"):
        real = Block(block.h, block.num_heads)
    found = {piece.name: piece for piece in block.parameters}
    assert {n: p.shape for n, p in found.items()} == {n: tuple(p.shape) for n, p in real.named_parameters()}
    for name, piece in found.items():
        module, kind = name.rsplit(".", 1)
        dims = RowParallelLinear.shard_dims if module in ("attention.o", "down") else {}
        dims = ColumnParallelLinear.shard_dims if module[-1:] in "qkvp" else dims
        assert piece.placement == (Shard(dims[kind]) if kind in dims else Replicate()), name


@pytest.mark.parametrize("block", [*ALL, ODD])
def test_the_parts_of_all_ranks_make_up_the_whole(block):
    tensors = [step.tensor for step in block.steps if isinstance(step, Activation)]
    for piece in (*block.parameters, *tensors):
        held = sum(prod(block.held(piece, rank)) for rank in range(block.t))
        copies = 1 if isinstance(piece.placement, Shard) else block.t
        assert held == copies * prod(piece.shape), piece
        if isinstance(piece.placement, Shard):
            spans = [block.span(piece, rank) for rank in range(block.t)]
            assert [stop for _, stop in spans[:-1]] == [start for start, _ in spans[1:]]


def test_the_share_of_a_rank_is_written_out():
    h = 128
    for block in ALL:
        assert block.rank_parameters == (12 * h * h + 7 * h) // block.t + 6 * h


@pytest.mark.parametrize("block", [*ALL, ODD])
def test_both_modes_send_the_same_bytes_and_those_of_the_formula(block):
    numbers = block.b * block.s * block.h
    assert block.block_sent_bytes == 8 * numbers * (block.t - 1) / block.t * block.itemsize
    sent = [getattr(e, way) for e in block.exchanges for way in ("forward", "backward")]
    rings = sum(ring_bytes(op, numbers * block.itemsize, block.t) for op in sent if op)
    assert rings == block.block_sent_bytes


@pytest.mark.parametrize("block", ALL)
def test_the_messages_are_those_of_the_conjugate_pairs(block):
    table = {
        line.split()[0]: line
        for line in autograd.__doc__.splitlines()
        if line.split() and hasattr(autograd, line.split()[0])
    }
    for exchange in block.exchanges:
        forward, backward = table[exchange.function].split("∂x = ")
        for operation, words in ((exchange.forward, forward), (exchange.backward, backward)):
            named = [op for op in ("all-reduce", "all-gather", "reduce-scatter") if op in words]
            assert named == ([operation.replace("_", "-")] if operation else [])
        assert exchange.symbol in table[exchange.function].split()[-2:]


@pytest.mark.parametrize("block", ALL)
def test_what_is_kept_is_the_papers_formula(block):
    b, s, h, a, t = block.b, block.s, block.h, block.num_heads, block.t
    want = 10 + 24 / t + 5 * a * s / (h * t)
    if block.sequence_parallel:
        want = (34 + 5 * a * s / h) / t
    assert block.kept_bytes == s * b * h * want


def test_sequence_parallel_cuts_the_tokens_outside_and_nothing_else():
    plain, cut = (replace(ONE, t=4, sequence_parallel=on) for on in (False, True))
    assert plain.parameters == cut.parameters
    for before, after in zip(plain.steps, cut.steps, strict=True):
        if isinstance(after, Activation):
            assert (after.tensor.placement == SEQUENCE) == after.outside
            assert after.outside or before == after
        elif isinstance(after, Weights):
            assert before == after


# --- what it draws


@pytest.mark.parametrize("block", [*ALL, ODD])
def test_the_picture_is_well_formed_and_says_what_it_shows(block):
    svg = draw(block)
    root = ElementTree.fromstring(svg)
    assert root.find(f"{SVG}title").text in describe(block) and root.find(f"{SVG}desc").text == describe(
        block
    )
    assert "var(" not in svg and "http" not in svg.replace("http://www.w3.org/2000/svg", "")
    columns = [node for node in root.iter(f"{SVG}g") if "column" in node.get("class", "")]
    assert [node.get("class").split()[-1] for node in columns] == [f"r{rank}" for rank in range(block.t)]
    steps = len(block.steps) - len(block.exchanges)
    for rank, column in enumerate(columns):  # colour is never alone: the number is beside every box
        assert str(rank) * steps in [node.text for node in column.iter(f"{SVG}text")]
    said = texts(svg)
    assert sum("from each rank" in words for words in said) == (
        0 if block.t == 1 else 8 if block.sequence_parallel else 4
    )
    assert all(heads(block, rank) in said for rank in range(block.t) if block.t > 1)


def test_a_bar_is_as_high_as_its_bytes():
    heights = {}
    for on in (False, True):
        root = ElementTree.fromstring(draw(replace(ONE, t=4, sequence_parallel=on)))
        bars = [float(node.get("height")) for node in root.iter(f"{SVG}rect") if "send" in node.get("class")]
        heights[on] = [bar + 1.2 for bar in bars]  # with the gap around it
    assert len(heights[False]) == 4 and len(heights[True]) == 8
    assert sum(heights[False]) == pytest.approx(sum(heights[True]), abs=0.1)


def test_the_same_choice_gives_the_same_picture_in_another_process():
    code = "from course_lib.viz.block import transformer_block as f; print(f(t=4).svg())"
    there = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    assert there.stdout == transformer_block(t=4).svg() + "\n"


# --- the widget


def test_what_the_page_has_is_small_and_so_is_what_a_notebook_keeps():
    widget = transformer_block(t=8, sequence_parallel=True)
    assert set(widget.data["pictures"]) == {"1", "2", "4", "8", "2s", "4s", "8s"}
    assert sum(map(len, widget.data["pictures"].values())) < 100_000
    saved = widget._repr_mimebundle_()[0]["text/html"]
    assert saved.startswith('<img alt="A transformer block on 8 ranks') and len(saved) < 30_000


def test_a_change_from_python_is_shown_and_a_wrong_one_is_refused():
    widget = transformer_block(b=1, s=6, h=16, num_heads=8, t=2)
    widget.sequence_parallel = True
    assert widget.block == SplitBlock(1, 6, 16, 8, 2, True) and "own tokens" in repr(widget)
    assert rank_line(widget.block, 1).startswith("rank 1 · heads 4–7 · outside of g … ḡ tokens 3:6 · q, k, v")
    with pytest.raises(
        ValueError, match="sequence length s is 6, which 4 ranks cannot share equally; 4 or 8"
    ):
        widget.t = 4
    assert widget.t == 2 and "4s" not in widget.data["pictures"] and 4 in widget.data["refused"]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"h": 130}, ValueError, "h = 130 is not divisible by num_heads = 8, .* 128 or 136 would do"),
        (
            {"num_heads": 4, "t": 8},
            ValueError,
            "num_heads is 4, which 8 ranks cannot share equally; 8 would do",
        ),
        ({"t": 3}, ValueError, "num_heads is 8, which 3 ranks cannot share equally; 6 or 9 would do"),
        ({"s": 6, "t": 4, "sequence_parallel": True}, ValueError, "s is 6, which 4 ranks .* 4 or 8 would do"),
        ({"num_heads": 16, "t": 16}, ValueError, "has room for 8 ranks, not for t = 16"),
        ({"b": 0}, ValueError, "b is 0: it must be at least 1"),
        ({"s": 1.5}, TypeError, "s is a whole number, not 1.5"),
        ({"t": "2"}, TypeError, "a whole number, not '2'"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(arguments, error, message):
    with pytest.raises(error, match=message):
        transformer_block(**arguments)
