"""The planner explorer without a page: its marks, its best and its words are the search's, and it says what it leaves out."""

import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from xml.etree import ElementTree

import pytest

from course_lib.cost.hardware import SYSTEMS
from course_lib.cost.planner import search
from course_lib.cost.ranking import differences
from course_lib.cost.shapes import MODELS
from course_lib.viz import planner_explorer
from course_lib.viz.planner_model import ANY, FILTERS, KINDS, LIMIT_NAMES, PARTS, Overview
from course_lib.viz.planner_picture import SHAPES, Axes, draw
from course_lib.viz.planner_words import counts, describe, difference, left_text, words

SVG = "{http://www.w3.org/2000/svg}"
EVERYTHING = dict.fromkeys(FILTERS, ANY)


@cache
def found(model="GPT-3 175B", gpus=1024, batch=1536, **options):
    return search(MODELS[model], SYSTEMS["A100"], gpus, batch, **options)


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


@pytest.mark.parametrize("make", [found, small])
def test_the_best_of_every_single_choice_is_the_searchs(make):
    over, candidates = overview(make), make().candidates
    assert over.marks[0].rank == over.chosen(EVERYTHING).rank == 1
    for name, options in over.options.items():
        assert set(options) == {choices_of(c)[name] for c in candidates}
        for value in options:
            fitting = [rank for rank, c in enumerate(candidates, 1) if str(choices_of(c)[name]) == str(value)]
            left = over.left(EVERYTHING | {name: value})
            assert left[0].rank == fitting[0] and sum(mark.ways for mark in left) == len(fitting)


def test_choices_together_leave_what_has_all_of_them():
    chosen = {"tp": 4, "schedule": "1F1B", "sequence_parallel": False}
    fitting = [
        (rank, c)
        for rank, c in enumerate(found().candidates, 1)
        if c.plan.tp == 4 and c.schedule == "1F1B" and not c.plan.sequence_parallel
    ]
    left = overview(found).left(EVERYTHING | chosen)
    assert left[0].rank == fitting[0][0] and sum(mark.ways for mark in left) == len(fitting) > 10
    best = left_text(overview(found), EVERYTHING | chosen)
    assert f"{len(fitting):,} of 3,956 candidates. The best of them: {fitting[0][1].layout}, " in best
    assert f"{fitting[0][1].total_s:.1f} s, number {fitting[0][0]:,}, " in best


@pytest.mark.parametrize("make", [found, small])
def test_a_mark_has_the_plan_the_bytes_the_seconds_and_the_limit_of_its_candidate(make):
    over = overview(make)
    for mark in over.marks:
        c = make().candidates[mark.rank - 1]
        assert mark.choices == tuple(choices_of(c).values()) and mark.layout == c.layout
        assert (mark.microbatch, mark.num_microbatches) == (c.plan.microbatch, c.plan.num_microbatches)
        assert LIMIT_NAMES[mark.limit] == c.limit
        assert sum(mark.seconds) == pytest.approx(c.total_s * over.per_second, abs=0.51)
        assert sum(mark.memory) == pytest.approx(c.memory.total / 1e9 * over.per_gb, abs=0.51)
        for units, seconds in zip(mark.seconds[1:], c.losses.values(), strict=True):
            assert units == pytest.approx(seconds * over.per_second, abs=1)
        for units, size in zip(mark.memory, vars(c.memory).values(), strict=True):
            assert units == pytest.approx(size / 1e9 * over.per_gb, abs=1)
    assert len(KINDS) == len(vars(c.memory)) and len(PARTS) == len(LIMIT_NAMES) == len(SHAPES)


def test_it_says_where_a_candidate_loses_time_as_the_search_does():
    over, best = overview(found), found().best
    for mark in over.marks[1:]:
        theirs = differences(found().candidates[mark.rank - 1], best).split(", ")
        theirs = [re.fullmatch(r"([+-])\S+ s (.+)", part) for part in theirs if "nearly" not in part]
        mine = re.findall(r"[:,] ([a-z -]+?) [\d.]+ m?s (more|less)", difference(over, mark))
        want = [(part[2], "more" if part[1] == "+" else "less") for part in theirs]
        near = 0.01 * best.total_s  # where a part counts; a unit beside it, rounding decides
        assert sorted(mine) == sorted(want) or any(
            abs(abs(a - b) / over.per_second - near) < 2 / over.per_second
            for a, b in zip(mark.seconds, over.marks[0].seconds)
        )


def test_what_it_says_of_the_best_is_written_out():
    lines = words(overview(found), overview(found).marks[0])
    assert lines == [
        "Number 1 of 3,956: pp 8 × dp 32 × tp 4",
        "interleaved, 12 pieces of the model on each stage; 24 micro-batches of 2 sequences; attention cores are computed again "
        "(selective); ZeRO 2: copies share out optimizer state and gradients; with sequence parallel.",
        "Limited by tensor-parallel messages: 985 ms, 6 % of the step. "
        "The ranks of a tensor-parallel group wait for the sums that they make together.",
        "16.7 s: the fastest of all that fit.",
    ]


def test_it_says_what_it_leaves_out():
    over = overview(found)
    assert len(over.marks) == 578 and sum(mark.ways for mark in over.marks) == found().num_fit == 3956
    assert counts(over).startswith(
        "3,956 of 16,648 candidates fit into 64 of 80 GB. A mark is the fastest with"
    )
    assert "578 marks. Left out: 3,378 that differ" in counts(over) and "slowest" not in counts(over)
    every_one = Overview(replace(small(), candidates=tuple(small().best_by(*FILTERS).values())))
    assert "Left out" not in counts(every_one)


def test_of_too_many_the_slowest_are_left_out_and_named():
    many = found("GPT-3 6.7B", 4096, 4096)
    over = Overview(many)
    groups = list(many.best_by(*FILTERS).values())
    assert len(over.marks) == 600 < len(groups)
    rest = many.num_fit - sum(mark.ways for mark in over.marks)
    assert f"Left out, too: the {len(groups) - 600:,} slowest such marks ({rest:,} candidates)" in counts(
        over
    )
    assert f"of {groups[600].total_s:.3g} s and more" in counts(over)
    assert len(planner_explorer(many).data["rows"]) < 55_000


@pytest.mark.parametrize("make", [found, small])
def test_the_picture_has_a_shape_a_mark_inside_its_box_and_says_it_in_words(make):
    over = overview(make)
    svg = draw(over, EVERYTHING)
    root = ElementTree.fromstring(svg)
    assert root.find(f"{SVG}title").text == make().title
    assert f"{make().title}\n{root.find(f'{SVG}desc').text}" == describe(over, EVERYTHING)
    assert "var(" not in svg and "http" not in svg.replace("http://www.w3.org/2000/svg", "")
    drawn = {
        p.get("class"): p.get("d").count("M")
        for p in root.iter(f"{SVG}path")
        if "plan-mark" in p.get("class")
    }
    limits = [mark.limit for mark in over.marks]
    assert drawn == {f"plan-mark plan-{k}": limits.count(k) for k in sorted(set(limits))}
    assert len(set(SHAPES)) == len(SHAPES)
    axes, edges = Axes(over), Axes(over).data
    for x, y in map(axes.place, over.marks):
        assert edges["left"] < x <= axes.x(over.limit) + 0.1 and edges["top"] < y < edges["bottom"]
    rings = [c for c in root.iter(f"{SVG}circle") if c.get("class") == "plan-best"]
    assert [(float(c.get("cx")), float(c.get("cy"))) for c in rings] == [axes.place(over.marks[0])]
    filtered = draw(over, EVERYTHING | {"zero": 1})
    assert 'class="plan-others"' in filtered and 'class="plan-others"' not in svg


def test_the_same_search_gives_the_same_picture_in_another_process():
    code = (
        "from course_lib.cost.hardware import SYSTEMS; from course_lib.cost.planner import search\n"
        "from course_lib.cost.shapes import MODELS; from course_lib.viz import planner_explorer\n"
        "w = planner_explorer(search(MODELS['GPT-2'], SYSTEMS['A100'], 8, 64)); print(w.svg(), w.data)"
    )
    there = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    widget = planner_explorer(small())
    assert there.stdout == f"{widget.svg()} {widget.data}\n"


def test_a_name_with_signs_of_html_is_escaped():
    odd = search(replace(MODELS["GPT-2"], name='<b>"GPT" & co</b>'), SYSTEMS["A100"], 4, 8)
    widget = planner_explorer(odd)
    assert ElementTree.fromstring(widget.svg()).find(f"{SVG}title").text.startswith('<b>"GPT" & co</b> on 4')
    assert "<b>" not in widget._repr_mimebundle_()[0]["text/html"]


def test_a_search_that_found_nothing_says_so():
    widget = planner_explorer(empty())
    assert widget.chosen is None and repr(widget) == f"{empty().title}\n{str(empty()).splitlines()[-1]}"
    assert "fits into 64 GB" in repr(widget) and widget.picture == widget.data["rows"] == ""
    assert "fits into 64 GB" in "".join(ElementTree.fromstring(widget.svg()).itertext())


def test_a_search_with_one_candidate_is_drawn():
    one = replace(small(), candidates=small().candidates[:1])
    root = ElementTree.fromstring(planner_explorer(one).svg())
    ticks = [node.text for node in root.iter(f"{SVG}text") if node.get("class") == "axis end"]
    assert len(ticks) >= 3 and "There is one mark. The best of them" in repr(planner_explorer(one))


def test_what_is_sent_and_kept_is_small_and_a_change_from_python_is_checked():
    widget = planner_explorer(found())
    assert len(str(widget.data)) + len(widget.picture) < 50_000
    assert len(widget._repr_mimebundle_()[0]["text/html"]) < 40_000
    widget.state = {"tp": 2}
    assert widget.chosen.choices[2] == 2 and widget.chosen.rank > 1
    widget.state = {"mark": widget.overview.left(widget.state)[3].rank}
    assert repr(widget).count(f"Number {widget.chosen.rank:,} of 3,956") == 1
    widget.state = {"tp": 4}  # the mark is not left: the best of what is
    assert widget.chosen.rank == 1
    for change, error in (
        ({"tp": 3}, "no mark has tp = 3: take 'any' or one of 1, 2, 4, 8."),
        ({"mark": 2}, "number 2 has no mark"),
        ({"cp": 1}, "nothing called cp: state has pp, dp, tp, schedule"),
    ):
        with pytest.raises(ValueError, match=re.escape(error)):
            widget.state = change


def test_choices_that_go_with_nothing_leave_nothing_and_say_so():
    widget = planner_explorer(found())
    widget.state = {"pp": 1, "schedule": "1F1B"}
    assert widget.chosen is None
    assert repr(widget).splitlines()[-1] == "None of 578 marks is left: set something back to “any”."
    assert "plan-chosen" not in "".join(re.findall("<circle.*?>", widget.svg()))


def test_what_is_no_search_is_refused_in_a_sentence():
    with pytest.raises(TypeError, match="draws what course_lib.cost.planner.search returns, not a list"):
        planner_explorer([])
