"""The picture of a transformer block: its numbers are a real block's and the papers', and it draws and says them."""

import subprocess
import sys
from dataclasses import replace
from math import prod

import pytest
import torch

from course_lib.collectives import autograd
from course_lib.cost.block import PARAMETERS, SEQUENCE, SplitBlock
from course_lib.cost.communication import ring_bytes
from course_lib.layout import Partial, Replicate, Shard, region
from course_lib.models.gpt import Block
from course_lib.parallel.tensor import ColumnParallelLinear, RowParallelLinear
from course_lib.viz import transformer_block
from course_lib.viz.pictures.block import build, rank_line

ONE = SplitBlock(2, 64, 128, 8, t=1)
ALL = [replace(ONE, t=t, sequence_parallel=on) for t in (1, 2, 4, 8) for on in (False, True)]
ODD = SplitBlock(3, 15, 12, 6, t=3, sequence_parallel=True, itemsize=2)


def drawn(block):
    return build(block, block.t, block.sequence_parallel)


def marks(block, kind=""):
    return [m for panel in drawn(block).panels for m in panel.marks if not kind or kind in m.kind.split()]


def exchanges(block):
    return [step for step in block.steps if not step.pieces]


# --- what it knows


@pytest.mark.parametrize("block", [*ALL, ODD])
def test_parameters_are_those_of_a_real_block_cut_as_the_parallel_linears_cut_them(block):
    with torch.device("meta"):
        real = Block(block.h, block.num_heads)
    whole = replace(block, t=1)
    shapes = {name: whole.held(piece) for name, piece in PARAMETERS.items()}
    assert shapes == {n: tuple(p.shape) for n, p in real.named_parameters()}
    for name, piece in PARAMETERS.items():
        module, kind = name.rsplit(".", 1)
        dims = RowParallelLinear.shard_dims if module in ("attention.o", "down") else {}
        dims = ColumnParallelLinear.shard_dims if module[-1:] in "qkvp" else dims
        assert piece.placement == (Shard(dims[kind]) if kind in dims else Replicate()), name


@pytest.mark.parametrize("block", [*ALL, ODD])
def test_the_parts_of_all_ranks_make_up_the_whole(block):
    whole = replace(block, t=1, sequence_parallel=False)
    for piece in (*PARAMETERS.values(), *(piece for step in block.steps for piece in step.pieces)):
        copies = 1 if isinstance(piece.placement, Shard) else block.t
        assert block.t * prod(block.held(piece)) == copies * prod(whole.held(piece)), piece


def test_the_share_of_a_rank_is_written_out():
    h = 128
    for block in ALL:
        assert block.held_numbers() == (12 * h * h + 7 * h) // block.t + 6 * h


@pytest.mark.parametrize("block", [*ALL, ODD])
def test_both_modes_send_the_same_bytes_and_those_of_the_formula(block):
    numbers = block.b * block.s * block.h
    assert block.block_sent_bytes == 8 * numbers * (block.t - 1) / block.t * block.itemsize
    sent = [operation for step in exchanges(block) for operation in (step.forward, step.backward)]
    rings = sum(ring_bytes(op, numbers * block.itemsize, block.t) for op in sent if op)
    assert rings == block.block_sent_bytes and len(exchanges(block)) == 4


@pytest.mark.parametrize("block", ALL)
def test_the_messages_are_those_of_the_conjugate_pairs(block):
    table = {
        line.split()[0]: line
        for line in autograd.__doc__.splitlines()
        if line.split() and hasattr(autograd, line.split()[0])
    }
    for exchange in exchanges(block):
        forward, backward = table[exchange.place].split("∂x = ")
        for operation, words in ((exchange.forward, forward), (exchange.backward, backward)):
            named = [op for op in ("all-reduce", "all-gather", "reduce-scatter") if op in words]
            assert named == ([operation.replace("_", "-")] if operation else [])
        assert exchange.words in table[exchange.place].split()[-2:]


@pytest.mark.parametrize("block", ALL)
def test_what_is_kept_is_the_papers_formula(block):
    b, s, h, a, t = block.b, block.s, block.h, block.num_heads, block.t
    want = 10 + 24 / t + 5 * a * s / (h * t)
    if block.sequence_parallel:
        want = (34 + 5 * a * s / h) / t
    assert block.kept_bytes == s * b * h * want


def test_sequence_parallel_cuts_the_tokens_outside_of_the_pairs_and_nothing_else():
    plain, cut = (replace(ONE, t=4, sequence_parallel=on) for on in (False, True))
    passed = 0
    for before, after in zip(plain.steps, cut.steps, strict=True):
        passed += not after.pieces
        if after.pieces and passed % 2:
            assert before == after
        elif after.pieces:
            assert (before.pieces[0].placement, after.pieces[0].placement) == (Replicate(), SEQUENCE)


@pytest.mark.parametrize("block", [*ALL, ODD])
def test_a_rank_is_told_the_indices_that_it_holds(block):
    whole = replace(block, t=1, sequence_parallel=False)
    for rank in range(block.t):
        said = rank_line(block, rank)
        for name, words in (("attention.q", "q, k, v: columns"), ("attention.o", "o: rows"), ("up", "up: columns")):
            piece = PARAMETERS[f"{name}.weight"]
            start, stop = region(whole.held(piece), piece.placement, block.t, rank)[piece.placement.dim]
            assert f" · {words} {start}:{stop} · " in said
        assert ("outside of g … ḡ tokens" in said) == block.cuts_tokens
    assert rank_line(replace(ONE, t=4), 2) == (
        "rank 2 · heads 4–5 · q, k, v: columns 64:96 · o: rows 64:96 · up: columns 256:384 · down: rows 256:384 · "
        f"{replace(ONE, t=4).held_numbers():,} parameters"
    )


# --- what it draws


@pytest.mark.parametrize("block", [*ALL, ODD])
def test_the_picture_has_a_column_for_each_rank_and_bars_where_they_talk(block):
    columns = [mark for mark in marks(block) if mark.focus == "ranks"]
    assert [mark.tip for mark in columns] == [rank_line(block, rank) for rank in range(block.t)]
    steps = len(block.steps) - 4
    for rank, column in enumerate(columns):  # colour is never alone: the number is beside every box
        mine = [mark for mark in marks(block) if mark.of == column.of]
        assert [mark.text for mark in mine].count(str(rank)) == steps
        assert sum(mark.kind == "blank" for mark in mine) == steps
        assert all(
            column.x <= mark.x and mark.x + mark.w <= column.x + column.w for mark in mine if mark.shape == "rect"
        )
    assert len(marks(block, "sent")) == (0 if block.t == 1 else 8 if block.sequence_parallel else 4)
    assert all("from each rank" in mark.tip for mark in marks(block, "sent"))
    assert [mark.text for mark in marks(block)].count("nothing to send") == (4 if block.t == 1 else 0)


@pytest.mark.parametrize("block", [*ALL, ODD])
def test_what_is_filled_is_the_share_that_a_rank_holds(block):
    held = [step.pieces[0].placement for step in block.steps if step.pieces]
    for rank in range(block.t):
        mine = [m for m in marks(block) if m.of == (f"r{rank}",) and m.shape == "rect" and not m.focus]
        blanks = [mark for mark in mine if mark.kind == "blank"]
        fills = [mark for mark in mine if mark.kind not in ("blank", "frame")]
        for at, blank, fill in zip(held, blanks, fills, strict=True):
            share = fill.w * fill.h / (blank.w * blank.h)
            assert share == pytest.approx(1 / block.t if isinstance(at, Shard) else 1)
            if block.t > 1:
                assert ("dashed" in fill.kind) == (at == Partial()) and (fill.kind == "all") == (at == Replicate())


def test_a_bar_is_as_high_as_its_bytes():
    heights = {}
    for on in (False, True):
        bars = marks(replace(ONE, t=4, sequence_parallel=on), "sent")
        heights[on] = [bar.h + 1.2 for bar in bars]  # with the gap around it
    assert heights[False] == pytest.approx([38] * 4) and heights[True] == pytest.approx([19] * 8)


@pytest.mark.parametrize("block", [*ALL, ODD])
def test_all_of_it_is_said_in_words(block):
    said, scene = str(drawn(block)), drawn(block)
    assert said.startswith(f"{scene.title} ({scene.notes[0]})")
    assert ("tensor and sequence parallel" in said) == block.cuts_tokens
    for step in block.steps:
        assert f"\n  {step.words}: " in said
        assert not step.pieces or block.t == 1 or f" {step.place}, " in said
    texts = [mark.text for mark in marks(block)]
    for number in (f"{block.held_numbers():,}", "parameters on each rank", "kept for backward on each rank"):
        assert number in said and number in texts
    assert ("2h numbers for each norm" in " ".join(scene.notes)) == block.cuts_tokens


def test_two_and_four_ranks_fit_on_a_phone():
    for t in (1, 2, 4):
        assert 0.86 * drawn(replace(ONE, t=t)).panels[0].w <= 370


def test_the_same_choice_gives_the_same_picture_in_another_process():
    code = "from course_lib.viz import transformer_block as f; print(f(t=4).svg())"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, encoding="utf-8")
    assert there.stdout == transformer_block(t=4).svg() + "\n"


def test_what_a_page_keeps_of_it_is_small():
    picture = transformer_block(t=8, sequence_parallel=True)
    assert len(picture._block) < 9_000 and len(picture.svg()) < 30_000


def test_the_reader_chooses_and_what_cannot_be_is_said():
    picture = transformer_block(b=1, s=6, h=16, num_heads=8, t=2)
    picture.choose(sequence_parallel=True)
    assert "own tokens" in str(picture) and "tokens 3:6" in rank_line(SplitBlock(1, 6, 16, 8, 2, True), 1)
    picture.choose(t=4)
    assert str(picture) == "The sequence length s is 6, which 4 ranks cannot share equally; 4 or 8 would do."
    picture.choose(t=1)
    assert "whole" in str(picture) and "divides by t, which is 1" in picture.scene.off["sequence_parallel"]
    with pytest.raises(ValueError, match="t is one of 1, 2, 4, 8, not 3"):
        picture.choose(t=3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"h": 130}, ValueError, "h = 130 is not divisible by num_heads = 8, .* 128 or 136 would do"),
        ({"num_heads": 4, "t": 8}, ValueError, "num_heads is 4, which 8 ranks cannot share equally; 8 would do"),
        ({"t": 3}, ValueError, "num_heads is 8, which 3 ranks cannot share equally; 6 or 9 would do"),
        ({"s": 6, "t": 4, "sequence_parallel": True}, ValueError, "s is 6, which 4 ranks .* 4 or 8 would do"),
        ({"num_heads": 16, "t": 16}, ValueError, "t is one of 1, 2, 4, 8, not 16"),
        ({"b": 0}, ValueError, "b is 0: it must be at least 1"),
        ({"s": 1.5}, TypeError, "s is a whole number, not 1.5"),
        ({"t": "2"}, TypeError, "a whole number, not '2'"),
    ],
)
def test_wrong_sizes_are_refused_in_a_sentence(arguments, error, message):
    with pytest.raises(error, match=message):
        transformer_block(**arguments)
