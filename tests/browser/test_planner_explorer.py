"""The planner explorer in a real browser, without Jupyter or a kernel: its marks, its best and its words are Python's."""

import random
from functools import cache
from xml.etree import ElementTree

import pytest

from course_lib.cost.hardware import SYSTEMS
from course_lib.cost.planner import search
from course_lib.cost.shapes import MODELS
from course_lib.viz import planner_explorer
from course_lib.viz.planner_model import ANY, FILTERS, PARTS, Overview
from course_lib.viz.planner_picture import Axes, live
from course_lib.viz.planner_words import describe, left_text, time, words
from tests.browser.widget import contrast, luminance, mount, state

pytestmark = pytest.mark.browser

EVERYTHING = dict.fromkeys(FILTERS, ANY) | {"mark": 0}


@cache
def overview(model="GPT-3 175B", system="A100", gpus=1024, batch=1536):
    return Overview(search(MODELS[model], SYSTEMS[system], gpus, batch))


def shown(page, over=None):
    return mount(page, planner_explorer((over or overview()).search))


def pick(widget, label, value):
    widget.locator(".controls").get_by_label(label, exact=True).select_option(label=value)


def states(over, count, seed=0):
    """Choices of one to three filters, each with a mark that may be left or not."""
    draw = random.Random(seed)
    for _ in range(count):
        names = draw.sample(list(FILTERS), draw.choice((0, 1, 1, 2, 3)))
        chosen = {name: draw.choice(over.options[name]) for name in names}
        left = over.left(EVERYTHING | chosen) or over.marks
        yield (
            EVERYTHING
            | chosen
            | {"mark": draw.choice([0, draw.choice(left).rank, draw.choice(over.marks).rank])}
        )


@pytest.mark.parametrize(
    "task",
    [("GPT-3 175B", "A100", 1024, 1536), ("BERT-Large", "V100", 16, 256), ("GPT-2", "H100", 512, 512)],
)
def test_the_page_says_and_draws_what_python_does(page, task):
    over = overview(*task)
    shown(page, over)
    cases = [EVERYTHING, *states(over, 200), *(EVERYTHING | {"mark": mark.rank} for mark in over.marks[::3])]
    got = page.evaluate(
        """(cases) => cases.map((state, i) => {
          const {marksOf, leftOf, chosenOf, describe, place, live} = widget.module;
          const {data} = widget.state;
          const marks = marksOf(data);
          for (const mark of marks) mark.at = place(data, mark);
          const left = leftOf(data, marks, state);
          return [describe(data, marks, state), i < 60 ? live(data, marks, left, chosenOf(left, state)) : ""];
        })""",
        cases,
    )
    axes, none_left = Axes(over), 0
    for case, (said, drawn) in zip(cases, got, strict=True):
        assert said == describe(over, case), case
        none_left += over.chosen(case) is None
        if drawn:
            assert same(drawn, live(over, axes, case)), case
    assert 0 < none_left < 100


def same(got, want):
    """Equal elements, but for the order of attributes and the last digit of a place."""
    got, want = (list(ElementTree.fromstring(f"<g>{parts}</g>")) for parts in (got, want))
    assert [(a.tag, a.get("class"), a.text) for a in got] == [(b.tag, b.get("class"), b.text) for b in want]
    return all(
        abs(p - q) < 0.15
        for a, b in zip(got, want, strict=True)
        for name in set(b.keys()) - {"class"}
        for p, q in zip(numbers(a.get(name)), numbers(b.get(name)), strict=True)
    )


def numbers(text):
    return [
        float(part)
        for part in "".join(c if c in "0123456789.-" else " " for c in text).replace("-", " -").split()
    ]


def test_filters_redraw_and_say_how_many_are_left_and_the_best_of_them(page):
    widget, over = shown(page), overview()
    line, head = widget.locator(".left[role=status]"), widget.locator(".details b")
    assert line.inner_text() == left_text(over, EVERYTHING)
    assert (
        head.inner_text() == words(over, over.marks[0])[0] == f"Number 1 of 3,956: {over.search.best.layout}"
    )
    chosen = {}
    for name, label, value in (
        ("tp", "tp", 2),
        ("schedule", "schedule", "1F1B"),
        ("sequence_parallel", "sequence parallel", False),
        ("recompute", "recomputation", "full"),
        ("zero", "ZeRO", 1),
        ("pp", "pp", 16),
        ("dp", "dp", 32),
    ):
        chosen[name] = value
        pick(widget, label, "no" if value is False else str(value))
        left = over.left(EVERYTHING | chosen)
        assert line.inner_text() == left_text(over, EVERYTHING | chosen)
        assert head.inner_text() == words(over, left[0])[0]
        drawn = widget.locator(".picture .plan-mark").evaluate_all(
            "nodes => nodes.map((node) => node.getAttribute('d').split('M').length - 1)"
        )
        assert sum(drawn) == len(left) > 0
    pick(widget, "dp", "128")
    assert line.inner_text().startswith("None of 578 marks is left")
    assert head.inner_text() == "Nothing is left to show." and not widget.locator("table").count()
    widget.get_by_role("button", name="all again").click()
    assert state(page) == EVERYTHING and line.inner_text() == left_text(over, EVERYTHING)


def test_a_click_on_a_mark_chooses_it(page):
    widget, over = shown(page), overview()
    box = widget.locator(".picture svg").bounding_box()
    axes, zoom = Axes(over), box["width"] / 800
    places = [axes.place(mark) for mark in over.marks]
    alone = [
        i
        for i, (x, y) in enumerate(places)
        if all(abs(x - u) + abs(y - v) > 6 for k, (u, v) in enumerate(places) if k != i)
    ]
    for i in alone[:: len(alone) // 6]:
        mark, (x, y) = over.marks[i], places[i]
        page.mouse.move(box["x"] + x * zoom, box["y"] + y * zoom)
        assert widget.locator(".hint").inner_text().startswith(f"Under the pointer: {mark.layout}, ")
        page.mouse.click(box["x"] + x * zoom, box["y"] + y * zoom)
        assert state(page)["mark"] == mark.rank or mark.rank == 1
        assert widget.locator(".details > *").all_inner_texts() == words(over, mark)
    page.mouse.click(box["x"] + 75 * zoom, box["y"] + 300 * zoom)  # nothing is there
    assert widget.locator(".details > *").all_inner_texts() == words(over, mark)


def test_all_marks_can_be_reached_by_keyboard(page):
    widget, over = shown(page), overview()
    widget.locator(".picture").focus()
    left = over.left(EVERYTHING)
    by_memory = sorted(left, key=lambda mark: (sum(mark.memory), mark.rank))
    at = by_memory.index(left[2])
    for key, want in (
        ("ArrowUp", left[1]), ("ArrowUp", left[2]), ("ArrowRight", by_memory[at + 1]), ("ArrowLeft", left[2]),
        ("ArrowLeft", by_memory[at - 1]), ("ArrowRight", left[2]), ("ArrowDown", left[1]), ("End", left[-1]),
        ("ArrowUp", left[-1]), ("Home", left[0]), ("ArrowDown", left[0]),
    ):  # fmt: skip
        page.keyboard.press(key)
        assert widget.locator(".details b").inner_text() == words(over, want)[0], key
    pick(widget, "schedule", "1F1B")
    walked = page.evaluate(
        """() => {
          const picture = document.querySelector('.picture');
          const heads = new Set();
          for (let i = 0; i < 600; i++) {
            heads.add(document.querySelector('.details b').textContent);
            picture.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowUp', bubbles: true}));
          }
          return [...heads];
        }"""
    )
    assert walked == [words(over, mark)[0] for mark in over.left(EVERYTHING | {"schedule": "1F1B"})]


def test_keys_and_choices_are_kept_from_jupyterlab_and_said_aloud(page):
    widget, over = shown(page), overview()
    takers = widget.locator("select, button, [tabindex]")
    assert takers.count() == 9
    assert not takers.locator("xpath=self::*[not(@data-lm-suppress-shortcuts='true')]").count()
    label = widget.locator(".picture").get_attribute("aria-label")
    assert label.startswith(describe(over, EVERYTHING)) and "Click a mark, or walk" in label
    assert widget.locator(".details").get_attribute("aria-live") == "polite"
    assert all(
        widget.locator(".controls").get_by_label(name, exact=True).count() for name in FILTERS.values()
    )


def test_the_tables_have_the_parts_the_best_and_the_difference(page):
    widget, over = shown(page), overview()
    assert widget.locator("table").nth(0).locator("thead th").all_inner_texts() == ["this one"]
    page.evaluate("widget.model.set('state', {...widget.state.state, zero: 3, mark: 0})")
    mark, best = over.chosen(EVERYTHING | {"zero": 3}), over.marks[0]
    rows = widget.locator("table").nth(0).locator("tbody tr")
    assert rows.locator("th").all_inner_texts() == [*PARTS, "together"]
    last = rows.last.locator("td").all_inner_texts()[1:]
    mine, theirs = sum(mark.seconds), sum(best.seconds)
    assert last[:2] == [f"{units / over.per_second:.1f} s" for units in (mine, theirs)]
    assert last[2] == f"+{time(over, mine - theirs)}"
    held = widget.locator("table").nth(1).locator("tbody tr").last.locator("td").all_inner_texts()[1:]
    assert float(held[0]) == pytest.approx(sum(mark.memory) / over.per_gb, abs=0.06)
    bars = widget.locator("table").nth(0).locator("tbody tr:not(.sum) rect:not(.room)")
    ends = bars.evaluate_all("nodes => nodes.map((n) => [+n.getAttribute('x'), +n.getAttribute('width')])")
    assert ends[0][0] == 0 and sum(ends[-1]) == pytest.approx(100)
    assert all(a[0] + a[1] == pytest.approx(b[0]) for a, b in zip(ends, ends[1:]))


def test_limits_differ_by_shape_and_not_by_colour_alone(page):
    widget = shown(page)
    shapes = widget.locator(".picture .plan-mark").evaluate_all(
        "nodes => nodes.map((node) => node.getAttribute('d').split('M')[1].replace(/^[\\d.]+ [\\d.]+/, ''))"
    )
    fills = widget.locator(".picture .plan-mark").evaluate_all(
        "nodes => nodes.map((n) => getComputedStyle(n).fill)"
    )
    assert len(shapes) == len(set(shapes)) == len(set(fills)) >= 4
    legend = widget.locator(".picture text.name").all_text_contents()
    assert "bubble" in legend and "tensor-parallel messages" in legend and len(legend) == len(shapes)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_and_nothing_is_cut_off_in_both_themes(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 860, "height": 1100})
    widget = shown(page)
    page.add_style_tag(content=f"body {{ background: {'#0d1117' if scheme == 'dark' else '#fff'} }}")
    page.evaluate("widget.model.set('state', {...widget.state.state, tp: 1, mark: 0})")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    for selector, least in (
        ("h4", 7),
        (".left", 7),
        ("tbody td", 7),
        ("thead th", 4.5),
        (".hint", 4.5),
        (".details p", 7),
    ):
        ink = widget.locator(selector).first.evaluate("node => getComputedStyle(node).color")
        assert contrast(ground, ink) > least, selector
    assert (luminance(ground) < 0.5) == (scheme == "dark")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    cut = widget.locator("th, td").evaluate_all(
        "nodes => nodes.filter((n) => n.scrollWidth > n.clientWidth + 1).length"
    )
    assert cut == 0


def test_a_search_that_found_nothing_says_so_without_a_picture(page):
    over = overview("Megatron 1T", "A100", 8, 8)
    widget = shown(page, over)
    assert widget.inner_text().splitlines()[-1].startswith("none fits into 64 GB")
    assert not widget.locator("select, svg, table").count()


def test_a_choice_is_drawn_at_once(page):
    shown(page)
    took = page.evaluate(
        """() => [...Array(60).keys()].map((k) => {
          const begin = performance.now();
          widget.model.set('state', {...widget.state.state, mark: 0, tp: k % 3 ? 'any' : 2, zero: k % 2 ? 'any' : 1});
          document.querySelector('#widget').getBoundingClientRect();
          return performance.now() - begin;
        }).sort((a, b) => a - b)"""
    )
    print(f"a choice: median {took[30]:.2f} ms, slowest {took[-1]:.2f}")
    assert took[30] < 50
