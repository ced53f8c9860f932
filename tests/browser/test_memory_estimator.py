"""The memory estimator in a real browser, without Jupyter or a kernel: it says what Python says."""

import random
from dataclasses import asdict, replace

import pytest

from course_lib.cost.hardware import GPUS
from course_lib.cost.memory import memory_use
from course_lib.cost.plan import Plan
from course_lib.cost.shapes import MODELS, Transformer
from course_lib.viz import memory_estimator
from course_lib.viz.estimator_model import Estimate, gb_text, heading, shape_data, suggestions
from course_lib.viz.estimator_picture import HEIGHT, bars
from course_lib.viz.svg import document
from tests.browser.widget import SEEN, close, contrast, control, luminance, mount, state

pytestmark = pytest.mark.browser

SIZES = {
    "tp": (1, 1, 2, 3, 4, 5, 8, 16),
    "pp": (1, 1, 2, 3, 4, 6, 7, 8, 16),
    "dp": (1, 2, 3, 8, 64, 700),
    "microbatch": (1, 1, 2, 3, 7),
    "chunks": (1, 1, 1, 2, 3),
    "recompute": ("none", "selective", "full"),
    "sequence_parallel": (False, True),
    "zero": (0, 1, 2, 3),
    "gradient_bytes": (2, 4),
}
NEAR = Plan(tp=8, pp=8, dp=2, batch=32)  # of GPT-3 175B: 20 GB too many for an A100


def settings(seed):
    """A model's name and the fields of a plan, possible or not."""
    draw = random.Random(seed)
    plan = {name: draw.choice(values) for name, values in SIZES.items()}
    batch = plan["dp"] * plan["microbatch"] * draw.choice((1, 2, 4, 8, 12, 48))
    odd = draw.random() < 0.05
    plan |= {"batch": batch + odd, "overlap_gradients": False}
    if draw.random() < 0.02:
        plan[draw.choice(("pp", "dp", "tp", "batch", "microbatch", "chunks"))] = 0
    return draw.choice(list(MODELS)), plan


def said(widget):
    return widget.get_by_role("status").inner_text()


def test_the_page_counts_the_same_bytes_and_names_the_same_rules(page):
    cases = [settings(seed) for seed in range(8_000)]
    mount(page, memory_estimator())
    got = page.evaluate(
        """(cases) => cases.map(([name, plan]) => {
          const {rule, memoryUse, describe, idleText} = widget.module;
          const shape = widget.state.data.models[name];
          const broken = rule(shape, plan);
          if (broken) return [broken];
          const use = memoryUse(shape, plan);
          return ["", use, describe(shape, "A100", 80e9, plan, use), idleText(plan)];
        })""",
        cases,
    )
    rules = set()
    for (name, plan), found in zip(cases, got, strict=True):
        want = Estimate(MODELS[name], GPUS["A100"], plan)
        assert found[0] == want.rule, (name, plan)
        rules.add(" ".join(word for word in want.rule.split() if word.isalpha())[:28])
        if not want.rule:
            assert found[1:] == [vars(want.use), str(want), want.idle], (name, plan)
    assert 2_000 < sum(not found[0] for found in got) < len(cases) - 2_000 and len(rules) >= 8


def test_halves_of_a_byte_are_rounded_as_python_rounds_them(page):
    shapes = [
        Transformer(f"odd {n}", 3, 7, 2, vocab_size=11, context=n, head_width=3, mlp_width=10)
        for n in range(5, 25, 2)
    ]
    plan = Plan(pp=3, tp=2, dp=3, batch=3, zero=3)  # 7 wide and cut in two
    mount(page, memory_estimator())
    got = page.evaluate(
        "([shapes, plan]) => shapes.map((shape) => widget.module.memoryUse(shape, plan))",
        [[shape_data(shape) for shape in shapes], asdict(plan)],
    )
    assert got == [vars(memory_use(shape, plan)) for shape in shapes]


def test_the_page_writes_numbers_as_python_does(page):
    mount(page, memory_estimator())
    draw = random.Random(0)
    sizes = [int(10 ** draw.uniform(0, 14)) for _ in range(500)]
    sizes += [k * 5 * 10**e for k in (1, 3, 19, 199) for e in range(3, 12)] + [0, 1, 999_950_000]
    got = page.evaluate("(sizes) => sizes.map((n) => widget.module.gbText(n))", sizes)
    assert got == [gb_text(size) for size in sizes]


def test_the_page_suggests_what_python_suggests(page):
    cases = [(*settings(seed), random.Random(seed).choice(list(GPUS))) for seed in range(4_000)]
    cases = [case for case in cases if not Estimate(MODELS[case[0]], GPUS[case[2]], case[1]).rule]
    assert len(cases) > 300
    mount(page, memory_estimator())
    got = page.evaluate(
        """(cases) => cases.map(([model, plan, gpu]) => {
          const {suggestions, heading} = widget.module;
          const found = suggestions(widget.state.data, {...plan, model, gpu});
          return [found, heading(found, found.length % 2 === 0)];
        })""",
        cases,
    )
    for (model, plan, gpu), (found, head) in zip(cases, got, strict=True):
        want = suggestions(MODELS[model], Plan(**plan), GPUS[gpu])
        assert found == [vars(suggestion) for suggestion in want], (model, plan, gpu)
        assert head == heading(want, len(want) % 2 == 0)


@pytest.mark.parametrize("gpu", ["P100", "A100", "B200"])
def test_the_page_draws_what_python_draws(page, gpu):
    widget = memory_estimator(plan=NEAR)
    mount(page, widget)
    for changed in ({}, {"zero": 1}, {"tp": 1, "pp": 1}, {"tp": 7}, {"recompute": "full"}):
        widget.state = {"gpu": gpu, **asdict(NEAR), **changed}
        page.evaluate("(state) => widget.model.set('state', state)", widget.state)
        page.evaluate("document.querySelector('.before').setAttribute('display', 'none')")
        seen = page.evaluate(f"({SEEN})(document.querySelector('.picture svg'))")
        svg = document(540, HEIGHT, "", "", "", bars(widget.estimate, 540))
        want = page.evaluate(
            f"(text) => ({SEEN})(new DOMParser().parseFromString(text, 'image/svg+xml'))", svg
        )
        assert close(seen, want), changed


def test_every_control_answers_without_a_kernel(page):
    widget = mount(page, memory_estimator(plan=NEAR))
    assert said(widget).startswith("✗ does not fit: 20.4 GB too many")
    assert "128 GPUs = tp 8 × pp 8 × dp 2 · 16 micro-batches of 1 sequence per pipeline" in said(widget)
    control(widget, "recomputation").select_option("selective")
    control(widget, "sequence parallel").check()
    control(widget, "ZeRO stage").select_option("1")
    control(widget, "tensor parallel tp").fill("16")
    control(widget, "pipeline stages pp").fill("6")
    control(widget, "data-parallel copies dp").fill("4")
    control(widget, "batch").fill("96")
    control(widget, "micro-batch").fill("2")
    control(widget, "chunks per stage").fill("4")
    control(widget, "GPU").select_option("H200")
    want = Plan(6, 4, 16, 96, 2, 4, "selective", True, 1)
    assert state(page) == {"model": "GPT-3 175B", "gpu": "H200", **asdict(want)}
    total = gb_text(memory_use(MODELS["GPT-3 175B"], want).total)
    assert widget.locator(".number.sum").text_content() == total and said(widget).startswith("✓ fits")
    described = widget.locator("svg").get_attribute("aria-label")
    assert described == str(Estimate(MODELS["GPT-3 175B"], GPUS["H200"], asdict(want)))
    control(widget, "model").select_option("Llama 3 8B")
    assert "Llama 3 8B on H200" in widget.locator("h4").inner_text()


def test_what_is_impossible_stays_as_it_was_typed_and_names_the_rule(page):
    widget = mount(page, memory_estimator(plan=NEAR))
    stages = control(widget, "pipeline stages pp")
    stages.fill("7")
    assert stages.input_value() == "7" and state(page)["pp"] == 7
    assert said(widget).startswith("✗ not possible: GPT-3 175B has 96 layers, which pp × chunks = 7")
    assert widget.locator(".number").all_text_contents() == ["–"] * 5
    assert widget.locator("li:visible").count() == 0
    stages.fill("8")
    assert widget.locator("li:visible").count() == 6


@pytest.mark.parametrize("wrong", ["", "1.5", "9000000"])
def test_what_is_no_whole_number_stays_as_it_was_typed_and_is_told(page, wrong):
    widget = mount(page, memory_estimator(plan=NEAR))
    page.evaluate("""() => {  // as in a notebook, setting what is already there tells nobody
      const [set, text] = [widget.model.set, JSON.stringify];
      widget.model.set = (name, value) => text(value) === text(widget.state[name]) || set(name, value);
    }""")
    copies = control(widget, "data-parallel copies dp")
    copies.fill(wrong)
    assert copies.input_value() == wrong and copies.get_attribute("aria-invalid") == "true"
    assert said(widget) == "✗ not possible: dp takes a whole number of at most 1,000,000."
    control(widget, "ZeRO stage").select_option("1")
    assert copies.input_value() == wrong
    copies.fill("2")
    assert said(widget).startswith("✗ does not fit: 3.58 GB")
    assert copies.get_attribute("aria-invalid") == "false"


def test_a_suggestion_is_applied_by_keyboard_and_the_bars_show_what_was_before(page):
    widget = mount(page, memory_estimator(plan=NEAR))
    assert widget.locator(".heading").inner_text() == "The total after one change: 5 of 6 make it fit."
    before = widget.locator(".before")
    assert not before.is_visible()
    first = widget.locator("li button").first
    assert (
        first.get_attribute("aria-label") == "recomputation none → selective, 76.2 GB, fits: 3.79 GB to spare"
    )
    first.focus()
    page.keyboard.press("Enter")
    assert state(page)["recompute"] == "selective"
    assert control(widget, "recomputation").input_value() == "selective"
    assert said(widget).startswith("✓ fits: 3.79 GB to spare") and before.is_visible()
    assert page.evaluate("document.activeElement.tagName") == "BUTTON"


def test_typing_a_number_is_one_change(page):
    widget = mount(page, memory_estimator("GPT-3 13B", plan=Plan(tp=8, dp=4, batch=64)))
    control(widget, "tensor parallel tp").focus()
    page.keyboard.press("Control+a")
    page.keyboard.type("20")  # passes 2
    ghost = widget.locator(".before").bounding_box()["width"]
    for key in ("Tab", "Shift+Tab", "Control+a"):
        page.keyboard.press(key)
    page.keyboard.type("8")
    total = [widget.locator(f".sum.r{k}").bounding_box() for k in range(4)]
    assert total[3]["x"] + total[3]["width"] - total[0]["x"] == pytest.approx(ghost - 6, abs=4)


def test_when_all_that_could_be_changed_is_gone_the_focus_stays_in_the_widget(page):
    tiny = Transformer("tiny", 1, 64, 1, vocab_size=256, context=64)
    widget = mount(page, memory_estimator(tiny, plan=Plan(zero=3, recompute="selective")))
    while widget.locator("li:visible").count() and state(page)["dp"] < 10**6:
        widget.locator("li:visible button").last.focus()
        page.keyboard.press("Enter")
    assert page.evaluate("document.querySelector('#widget').contains(document.activeElement)")


def test_everything_that_takes_focus_keeps_its_keys_from_jupyterlab(page):
    widget = mount(page, memory_estimator())
    takers = widget.locator("button, input, select, [tabindex]")
    assert takers.count() == 11 + 9
    assert not takers.locator("xpath=self::*[not(@data-lm-suppress-shortcuts='true')]").count()


def test_a_redraw_is_quick(page):
    mount(page, memory_estimator(plan=replace(NEAR, microbatch=4, batch=256)))
    drawn, laid_out = page.evaluate(
        """() => [false, true].map((laidOut) => [...Array(200).keys()].map((k) => {
          const begin = performance.now();
          widget.model.set('state', {...widget.state.state, zero: k % 4, tp: [1, 2, 4, 8][k % 4]});
          if (laidOut) document.querySelector('#widget').getBoundingClientRect();
          return performance.now() - begin;
        }).sort((a, b) => a - b))"""
    )
    for name, times in (("redraw", drawn), ("redraw and layout", laid_out)):
        print(f"{name}: median {times[100]:.2f} ms, slowest of 200 {times[-1]:.2f} ms")
    assert drawn[100] < 50


@pytest.mark.parametrize("width", [340, 560, 820])
def test_it_fits_a_narrow_notebook(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    mount(page, memory_estimator())
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_themes(page, scheme):
    page.emulate_media(color_scheme=scheme)
    widget = mount(page, memory_estimator())
    card = {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}[scheme]
    for selector, kind in (("text.kind", "fill"), (".outcome strong", "color"), (".foot", "color")):
        ink = widget.locator(selector).first.evaluate(f"node => getComputedStyle(node).{kind}")
        assert contrast(card, ink) > (4.5 if selector == ".foot" else 7), selector
        assert (luminance(ink) > luminance(card)) == (scheme == "dark")


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"model": "MT-NLG 530B", "tp": 7},
        {"model": "PaLM 540B", "chunks": 2, "batch": 1024},
        {"tp": 2, "pp": 8, "dp": 4, "batch": 64, "chunks": 3, "zero": 3, "recompute": "full"},
    ],
)  # fmt: skip
def test_the_picture_that_stands_alone_keeps_its_words_on_the_card(page, chosen):
    widget = memory_estimator()
    widget.state = chosen
    page.set_content(widget.svg())
    boxes = [node.bounding_box() for node in page.locator("text").all()]
    card = page.locator(".card").bounding_box()
    assert len(boxes) > 12
    for box in boxes:
        assert card["x"] + 15 < box["x"] and box["x"] + box["width"] < card["x"] + card["width"] - 10
        assert box["y"] + box["height"] < card["y"] + card["height"]
