"""The animation of a collective: what stands in every cell after every step, what flies where, and that it stays small."""

import subprocess
import sys

import pytest

from course_lib.schedules.moves import ALGORITHMS, final, label, moves, part_of, states
from course_lib.viz import animate
from course_lib.viz.pictures.collective import SIZES, build

CASES = [(operation, algorithm) for operation, names in ALGORITHMS.items() for algorithm in names]


def texts(frame):
    """The words in cells and where they stand; chips have a key."""
    return [(mark.text, (mark.x, mark.y)) for mark in frame.marks if mark.shape == "text" and not mark.key]


def chips(frame):
    return [mark for mark in frame.marks if mark.key]


def boxes(scene):
    return [mark for mark in scene.panels[0].marks if mark.kind == "box"]


@pytest.mark.parametrize(
    ("ranks", "chunk", "n", "want"),
    [
        ({0}, 2, 4, "a2"),
        ({1, 0}, 3, 4, "a3+b3"),
        ({1, 2, 3}, 0, 4, "b0…d0"),
        ({3, 0, 1}, 1, 5, "a1+b1+d1"),
        ({4, 0, 1}, 1, 5, "e1…b1"),
        ({0, 1, 4, 5}, None, 7, "a+b+e+f"),
        ({0, 1, 2}, None, 3, "Σ"),
    ],
)
def test_a_partial_sum_is_named_after_whose_it_is(ranks, chunk, n, want):
    assert label(frozenset(ranks), chunk, n) == want


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("operation", "algorithm"), CASES)
def test_after_every_step_the_cells_hold_what_the_ranks_hold(operation, algorithm, n):
    found, promised = states(operation, algorithm, n), final(operation, algorithm, n)
    stops = [frame for frame in build(operation, algorithm, n).frames if not frame.passing]
    assert [frame.name for frame in stops] == ["start", *(f"step {k}" for k in range(1, len(found)))]
    for k, (frame, held) in enumerate(zip(stops, found, strict=True)):
        if operation == "all_to_all" and k:
            held = promised  # what was there to send is no longer shown
        said = [
            label(ranks, part_of(operation, algorithm, chunk, n), n)
            for chunks in held
            for chunk, ranks in chunks.items()
        ]
        assert sorted(words for words, _ in texts(frame)) == sorted(said)
        assert len({place for _, place in texts(frame)}) == len(said), "two chunks in one cell"
    framed = sum(mark.kind == "frame" for mark in stops[-1].marks)
    bold = sum("strong" in mark.kind for mark in stops[-1].marks)
    assert framed == bold == sum(map(len, promised))
    assert not any(mark.kind == "frame" for mark in stops[0].marks)


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize(("operation", "algorithm"), [case for case in CASES if case[1] != "doubling"])
def test_chunks_fly_from_their_senders_cell_to_their_receivers(operation, algorithm, n):
    frames = build(operation, algorithm, n).frames
    for k, step in enumerate(moves(operation, algorithm, n)):
        before, under_way, after = frames[2 * k : 2 * k + 3]
        assert under_way.passing and len(chips(under_way)) == 2 * len(step)
        for chip in chips(under_way):
            if chip.shape == "text":
                (x, y), (dx, dy) = (chip.x, chip.y), chip.came
                assert (chip.text, (x + dx, y + dy)) in texts(before)
                assert (chip.x, chip.y) in [place for _, place in texts(after)]


def test_in_doubling_chunks_fly_over_and_under_the_ranks_in_between():
    scene = build("all_reduce", "doubling", 8)
    high, low = boxes(scene)[0].y, boxes(scene)[0].y + boxes(scene)[0].h
    for frame in scene.frames[1::2]:
        for chip in (mark for mark in chips(frame) if mark.shape == "rect"):
            assert chip.came[1] == 0
            assert chip.y + chip.h < high if chip.came[0] < 0 else chip.y > low


def test_many_chunks_fly_without_their_names():
    assert {mark.shape for mark in chips(build("all_reduce", "ring", 6).frames[1])} == {"rect"}


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("operation", "algorithm"), CASES)
def test_every_rank_has_a_box_of_its_own_and_all_of_them_fit(operation, algorithm, n):
    scene = build(operation, algorithm, n)
    panel, found = scene.panels[0], boxes(scene)
    assert len(found) == n and panel.w <= (245 if n <= 4 else 380)
    for i, a in enumerate(found):
        assert a.x >= 0 and a.y >= 0 and a.x + a.w <= panel.w and a.y + a.h <= panel.h
        for b in found[:i]:
            assert a.x + a.w < b.x or b.x + b.w < a.x or a.y + a.h < b.y or b.y + b.h < a.y
    for frame in scene.frames:
        assert all(0 <= mark.y <= panel.h for mark in frame.marks)


@pytest.mark.parametrize("n", range(3, 9))
def test_a_ring_is_drawn_as_a_ring(n):
    found = [(box.x + box.w / 2, box.y + box.h / 2) for box in boxes(build("all_gather", "ring", n))]
    middle = [sum(place[i] for place in found) / n for i in (0, 1)]
    spokes = [(x - middle[0], y - middle[1]) for x, y in found]
    turns = [a[0] * b[1] - a[1] * b[0] for a, b in zip(spokes, spokes[1:] + spokes[:1], strict=True)]
    assert min(turns) > 0, "each rank is the next one clockwise"
    assert len([m for m in build("all_gather", "ring", n).panels[0].marks if m.kind == "faint"]) == n


def test_in_a_tree_each_step_reaches_the_level_below():
    tops = [box.y for box in boxes(build("broadcast", "tree", 8))]
    assert len(set(tops)) == 4
    for k, step in enumerate(moves("broadcast", "tree", 8), 1):
        assert {tops[move.dst] for move in step} == {sorted(set(tops))[k]}


def test_the_fill_is_as_wide_as_the_share_of_ranks_in_a_sum():
    for frame in build("reduce_scatter", "ring", 4).frames:
        fills = {(mark.x, mark.y): mark.w for mark in frame.marks if mark.kind.endswith(" share")}
        for words, (x, y) in texts(frame):
            ranks = 4 if words[0] == "Σ" else 3 if "…" in words else words.count("+") + 1
            assert fills[x - 21, y - 12] == pytest.approx(42 * ranks / 4, abs=0.6)
    kinds = [mark.kind for mark in build("all_reduce", "doubling", 4).frames[2].marks if "share" in mark.kind]
    assert sorted(kinds) == sorted([f"rank-{rank} share" for rank in (0, 1, 2, 3)] * 2)


def test_an_all_to_all_is_seen_to_transpose():
    start, _, end = build("all_to_all", "pairwise", 4).frames
    xs, ys = (sorted({place[i] for _, place in texts(start)}) for i in (0, 1))
    before = {(xs.index(x), ys.index(y)): words for words, (x, y) in texts(start)}
    after = {(ys.index(y), xs.index(x)): words for words, (x, y) in texts(end)}
    assert before == after and before[2, 1] == "c1"


def test_every_step_is_said():
    scene = build("all_reduce", "ring", 4)
    title = "all_reduce · ring · 4 ranks: 6 steps, 24 messages"
    said = [frame.say for frame in scene.frames if not frame.passing]
    assert scene.title == title and said[0].startswith(f"{title}. Start: what every rank holds")
    assert said[1] == "Step 1 of 6: 0→1 a3, 1→2 b0, 2→3 c1, 3→0 d2 · receivers add"
    assert said[6] == "Step 6 of 6: 0→1 Σ2, 1→2 Σ3, 2→3 Σ0, 3→0 Σ1 · done"
    assert all(sentence in str(scene) for sentence in [title, *said[1:]])
    assert " and 44 more · done" in build("all_to_all", "pairwise", 8).frames[-1].say
    assert "1 step, 1 message" in build("broadcast", "flat", 2).title


def test_what_it_draws_is_explained_in_plain_words():
    (note,) = build("reduce_scatter", "ring", 4).notes
    assert note.endswith("Bold, in a frame: what reduce_scatter promises to deliver.")
    assert "Numbers are parts" in note and "how many ranks are in a sum" in note and "▸" in note
    (note,) = build("broadcast", "tree", 4).notes
    assert not any(words in note for words in ("Numbers", "sum", "▸", "rank 1"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("all_reduce", "tree"), "all_reduce has ring and doubling and reduce_broadcast"),
        (("all_reduce", "ring", 9), "shows 2 to 8 ranks, not 9"),
        (("all_reduce", "ring", 1), "shows 2 to 8 ranks, not 1"),
        (("all_reduce", "ring", True), "shows 2 to 8 ranks, not True"),
        (("allreduce",), "operation is 'allreduce'"),
    ],
)
def test_a_wrong_argument_is_refused_in_a_sentence(arguments, words):
    with pytest.raises(ValueError, match=words):
        animate(*arguments)


def test_it_is_the_same_in_another_process():
    code = "from course_lib.viz import animate; print(animate('all_reduce', 'doubling', 6).svg())"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, encoding="utf-8")
    assert there.stdout == animate("all_reduce", "doubling", 6).svg() + "\n"


@pytest.mark.parametrize(
    ("operation", "most"), [("all_reduce", 19_000), ("reduce_scatter", 9_000), ("all_to_all", 5_000)]
)
def test_what_a_page_keeps_of_it_is_small(operation, most):
    picture = animate(operation)
    assert len(picture._block) < most and len(picture.svg()) < 25_000
