"""The planner explorer without a page: its marks, its best and its words are the search's, and it says what it leaves out."""

import re
import subprocess
import sys
from dataclasses import replace
from functools import cache

import pytest

from course_lib.cost.candidate import LIMITS
from course_lib.cost.hardware import SYSTEMS
from course_lib.cost.overview import ANY, FILTERS, LIMIT_NAMES, PARTS, WHY, Overview
from course_lib.cost.planner import search
from course_lib.cost.shapes import MODELS
from course_lib.numbers import seconds_text
from course_lib.viz import planner_explorer
from course_lib.viz.palette import COLORS, PART_COLORS
from course_lib.viz.pictures.planner import SHAPES

EVERYTHING = dict.fromkeys(FILTERS, ANY)


@cache
def found(model="GPT-3 175B", gpus=1024, batch=1536):
    return search(MODELS[model], SYSTEMS["A100"], gpus, batch)


def small():
    return found("GPT-2", 8, 64)


def empty():
    return found("Megatron 1T", 8, 8)


@cache
def overview(make):
    return Overview(make())


def choices_of(candidate):
    plan = candidate.plan
    return {name: candidate.schedule if name == "schedule" else getattr(plan, name) for name in FILTERS}


def shown(picture, width=760):
    picture.width = width
    return picture.scene


def hits(scene):
    """Where each mark can be pointed at, by its rank."""
    return {m.sets[0][1]: m for m in scene.ground if m.sets}


def words(panel):
    return [m.text for m in panel.marks if m.shape == "text"]


@pytest.mark.parametrize("make", [found, small])
def test_the_best_of_every_single_choice_is_the_searchs(make):
    over, candidates = overview(make), make().candidates
    assert over.marks[0].rank == 1
    for name, options in over.options.items():
        assert set(options) == {choices_of(c)[name] for c in candidates}
        for value in options:
            fitting = [rank for rank, c in enumerate(candidates, 1) if choices_of(c)[name] == value]
            left = over.left(EVERYTHING | {name: value})
            assert left[0].rank == fitting[0] and sum(mark.ways for mark in left) == len(fitting)


def test_choices_together_leave_what_has_all_of_them():
    chosen = {"tp": 4, "schedule": "1F1B", "sequence_parallel": False}
    fitting = [
        (rank, c)
        for rank, c in enumerate(found().candidates, 1)
        if c.plan.tp == 4 and c.schedule == "1F1B" and not c.plan.sequence_parallel
    ]
    picture = planner_explorer(found()).choose(**chosen)
    rank, best = fitting[0]
    said = picture.scene.notes[1]
    assert f"{len(fitting):,} of 3,956 candidates. The best of them: {best.layout}, " in said
    assert f"{best.total_s:.1f} s, number {rank:,}, " in said and f"Number {rank:,} of 3,956" in str(picture)
    assert sorted(hits(picture.scene)) == [mark.rank for mark in overview(found).left(EVERYTHING | chosen)]


@pytest.mark.parametrize("make", [found, small])
def test_a_mark_is_its_candidate_where_its_bytes_and_seconds_are(make):
    over = overview(make)
    scene = planner_explorer(make()).scene
    at, box = hits(scene), next(m for m in scene.ground if m.kind == "box")
    limit = next(m for m in scene.ground if "limit" in m.kind)
    assert sorted(at) == [mark.rank for mark in over.marks]
    first, last = (at[over.marks[i].rank] for i in (0, -1))
    for mark in over.marks:
        c = make().candidates[mark.rank - 1]
        assert c is mark.candidate and mark.choices == tuple(choices_of(c).values())
        assert LIMIT_NAMES[mark.limit] == c.limit and sum(mark.parts.values()) == pytest.approx(c.total_s)
        x, y, tip = at[mark.rank].x, at[mark.rank].y, at[mark.rank].tip
        share = c.memory.total / make().limit_bytes
        assert (x - box.x) / (limit.x - box.x) == pytest.approx(share, abs=1e-3) and share <= 1
        assert first.y >= y >= last.y > box.y and y < box.y + box.h
        assert tip.startswith(f"{c.layout}, ") and tip.endswith(f" GB, {c.limit}")


@pytest.mark.parametrize("make", [found, small])
def test_each_limit_has_a_shape_and_a_colour_of_its_own_and_a_name_in_the_legend(make):
    scene, limits = planner_explorer(make()).scene, [mark.limit for mark in overview(make).marks]
    drawn = {m.kind: m.text for m in scene.ground if m.shape == "path" and not m.x}
    assert {kind: d.count("M") for kind, d in drawn.items()} == {
        f"{PART_COLORS[part]} edged": limits.count(part) for part in set(limits)
    }
    assert all(
        d.count(SHAPES[part]) == d.count("M")
        for part in set(limits)
        for kind, d in drawn.items()
        if PART_COLORS[part] in kind
    )
    legend = {m.text for m in scene.ground if m.shape == "text"}
    assert {LIMIT_NAMES[part] for part in set(limits)} <= legend and LIMIT_NAMES["kernels"] not in legend
    parts = ["kernels", *LIMITS]
    assert parts == list(SHAPES) == list(PART_COLORS) == list(PARTS) == list(WHY)
    assert len(set(SHAPES.values())) == len(set(PART_COLORS.values())) == len(parts)
    assert set(PART_COLORS.values()) <= set(COLORS)


def test_what_is_filtered_out_stays_as_dots_and_rings_are_around_best_and_chosen():
    picture = planner_explorer(found())
    assert not any(m.kind == "some" for m in picture.scene.ground)
    picture.choose(zero=1)
    scene, left = picture.scene, overview(found).left(EVERYTHING | {"zero": 1})
    dots = next(m for m in scene.ground if m.kind == "some" and m.shape == "path")
    assert dots.text.count("M") == 578 - len(left)
    picture.choose(mark=left[5].rank)
    rings = {m.key: (m.x, m.y) for m in picture.scene.panels[0].marks if m.shape == "dot"}
    places = hits(scene)
    assert rings == {key: (places[m.rank].x, places[m.rank].y) for key, m in (("best", left[0]), ("chosen", left[5]))}
    assert "best of these" in words(picture.scene.panels[0])
    picture.choose(zero=2)  # the mark is not left: the best of what is
    best = overview(found).left(EVERYTHING | {"zero": 2})[0]
    assert picture.scene.say.startswith(f"Number {best.rank:,}: ")


def test_keys_lead_to_slower_and_faster_less_and_more():
    picture = planner_explorer(found()).choose(schedule="1F1B")
    left = overview(found).left(EVERYTHING | {"schedule": "1F1B"})
    by_memory = sorted(left, key=lambda mark: (mark.candidate.memory.total, mark.rank))
    at = by_memory.index(left[7])
    keys = picture.choose(mark=left[7].rank).scene.keys
    assert {key: to["mark"] for key, to in keys.items()} == {
        "Home": left[0].rank, "End": left[-1].rank, "ArrowUp": left[8].rank, "ArrowDown": left[6].rank,
        "ArrowLeft": by_memory[at - 1].rank, "ArrowRight": by_memory[at + 1].rank,
    }  # fmt: skip
    for mark, key, end in ((left[-1], "ArrowUp", "End"), (left[0], "ArrowDown", "Home")):
        keys = picture.choose(mark=mark.rank).scene.keys
        assert keys[key] == keys[end] == {"mark": mark.rank}


def test_what_it_says_of_the_best_is_written_out():
    over = overview(found)
    assert over.name(over.marks[0]) == "Number 1 of 3,956: pp 8 × dp 32 × tp 4"
    assert over.facts(over.marks[0]) == [
        ("schedule", "interleaved, 12 pieces of the model on each stage; 24 micro-batches of 2 sequences"),
        (
            "memory",
            "attention cores are computed again (selective); ZeRO 2: copies share out optimizer state and gradients; "
            "with sequence parallel",
        ),
        (
            "limited by",
            "tensor-parallel messages: 985 ms, 6 % of the step. "
            "The ranks of a tensor-parallel group wait for the sums that they make together.",
        ),
        ("time", "16.7 s: the fastest of all that fit."),
    ]
    slow = dict(over.facts(over.marks[-1]))["time"]
    assert re.fullmatch(r"[\d.]+ s, \d+ % slower than the best of all: \+[\d.]+ s .*\.", slow)


def test_it_says_what_it_leaves_out():
    over = overview(found)
    assert len(over.marks) == 578 and sum(mark.ways for mark in over.marks) == found().num_fit == 3956
    assert over.counts.startswith("3,956 of 16,648 candidates fit into 64 of 80 GB. A mark is the fastest with")
    assert "578 marks. Left out: 3,378 that differ" in over.counts and "slowest" not in over.counts
    every_one = Overview(replace(small(), candidates=tuple(small().best_by(*FILTERS).values())))
    assert "Left out" not in every_one.counts
    many = found("GPT-3 6.7B", 4096, 4096)
    over, groups = Overview(many), list(many.best_by(*FILTERS).values())
    rest = many.num_fit - sum(mark.ways for mark in over.marks)
    assert len(over.marks) == 600 < len(groups)
    assert f"the {len(groups) - 600:,} slowest such marks ({rest:,} candidates)" in over.counts
    assert f"of {groups[600].total_s:.3g} s and more" in over.counts


@pytest.mark.parametrize("width", [320, 760])
def test_the_tables_have_the_parts_the_best_and_the_difference_and_bars_that_meet(width):
    over, picture = overview(found), planner_explorer(found())
    alone = shown(picture, width).panels[2]
    assert "the best" not in words(alone) and "this one" in words(alone)
    picture.choose(zero=3)
    mark, best = over.left(EVERYTHING | {"zero": 3})[0], over.marks[0]
    facts, time, memory = shown(picture, width).panels[1:]
    assert words(facts)[0] == over.name(mark)
    said = words(time)
    assert said[1:4] == ["this one", "the best", "difference"]
    assert said[4::4] == [*PARTS.values(), "together"]
    assert said[-3:-1] == [f"{one.candidate.total_s:.1f} s" for one in (mark, best)]
    assert said[-1] == f"+{seconds_text(mark.candidate.total_s - best.candidate.total_s)}"
    assert words(memory)[4::4] == ["parameters", "gradients", "optimizer state", "activations", "together"]
    assert float(words(memory)[-3]) == pytest.approx(mark.candidate.memory.total / 1e9, abs=0.06)
    for panel, kinds, scale in (
        (time, [*PART_COLORS.values()], mark.candidate.total_s),
        (memory, ["parameters", "gradients", "optimizer", "activations"], found().limit_bytes),
    ):
        bars = [m for m in panel.marks if m.shape == "rect" and m.kind != "blank"]
        room = next(m for m in panel.marks if m.kind == "blank")
        assert [m.kind for m in bars] == [*kinds, "some"] and bars[0].x == bars[-1].x == room.x
        assert all(a.x + a.w == pytest.approx(b.x) for a, b in zip(bars, bars[1:-1]))
        total = mark.candidate.total_s if panel is time else mark.candidate.memory.total
        assert bars[-1].w / room.w == pytest.approx(total / scale)
        assert all(0 <= m.x and m.x + m.w <= width + 0.1 and m.y < panel.h for m in panel.marks)


def test_a_search_that_found_nothing_says_so():
    picture = planner_explorer(empty())
    assert str(picture) == f"{empty().title}\n{str(empty()).splitlines()[-1]}" and not picture.scene.panels
    assert "fits into 64 GB" in picture.html() and picture.choices == {}


def test_a_search_with_one_candidate_is_drawn():
    picture = planner_explorer(replace(small(), candidates=small().candidates[:1]))
    assert "There is one mark. The best of them" in str(picture) and len(hits(picture.scene)) == 1
    ticks = [m.text for m in picture.scene.ground if "digits end" in m.kind]
    assert len(ticks) >= 3


def test_choices_that_go_with_nothing_leave_nothing_and_say_so():
    picture = planner_explorer(found()).choose(pp=1, schedule="1F1B")
    scene = picture.scene
    assert str(picture).splitlines()[-1] == "None of 578 marks is left: set something back to “any”."
    assert len(scene.panels) == 1 and not scene.panels[0].marks and not scene.keys and not scene.off
    assert "all" in planner_explorer(found()).scene.off


def test_the_still_is_small_and_the_same_in_another_process():
    code = (
        "from course_lib.cost.hardware import SYSTEMS; from course_lib.cost.planner import search\n"
        "from course_lib.cost.shapes import MODELS; from course_lib.viz import planner_explorer\n"
        "print(planner_explorer(search(MODELS['GPT-2'], SYSTEMS['A100'], 8, 64)).html())"
    )
    command = [sys.executable, "-c", code]
    there = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8")
    assert there.stdout == planner_explorer(small()).html() + "\n"
    picture = planner_explorer(found())
    assert len(picture.html()) < 40_000 and len(picture._ground) < 110_000
    ground = picture._ground
    picture.choose(mark=overview(found).marks[9].rank)
    assert picture._ground == ground and len(picture._scene) < 10_000


def test_what_cannot_be_is_refused_in_a_sentence():
    with pytest.raises(TypeError, match="draws what course_lib.cost.planner.search returns, not a list"):
        planner_explorer([])
    picture = planner_explorer(found())
    with pytest.raises(ValueError, match="tp is one of 'any', 1, 2, 4, 8, not 3"):
        picture.choose(tp=3)
    with pytest.raises(ValueError, match="nothing called cp"):
        picture.choose(cp=1)
