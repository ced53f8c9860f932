"""The roofline explorer in a real browser: it computes, says and draws what Python does, and works without a kernel."""

import json
import re
from itertools import product

import pytest

from course_lib.cost.hardware import Roofline
from course_lib.cost.operations import operations
from course_lib.cost.shapes import MODELS
from course_lib.viz import roofline
from course_lib.viz.roofline_picture import shapes
from course_lib.viz.roofline_scene import figures, sentences, title
from tests.browser.test_trace_widgets import all_guarded, press
from tests.browser.widget import contrast, mount

pytestmark = pytest.mark.browser

STATE = ("device", "beside", "model", "operation", "tokens", "everything")
POWERS = [2**power for power in range(17)]
MINE = Roofline(1.3e11, 1.1e10)
OPERATIONS = list(operations(MODELS["GPT-2"]))


def computed(page, script, argument=None):
    """What a function gives in the page, by way of text: faster than as objects, and exact."""
    return json.loads(page.evaluate(f"(argument) => JSON.stringify(({script})(argument))", argument))


def states(explorer, **choices):
    """Every combination of the choices, each as the state of the page and as what Python shows."""
    for values in product(*choices.values()):
        for name, value in zip(choices, values, strict=True):
            setattr(explorer, name, value)
        yield {name: getattr(explorer, name) for name in STATE}, explorer.scene


def chosen(page):
    return page.evaluate("(names) => names.map((name) => widget.state[name])", STATE)


# --- the same as in Python


def test_the_page_computes_what_python_computes(page):
    explorer = roofline(mine=MINE)
    mount(page, explorer)
    found = computed(
        page,
        """(powers) => {
          const {flops, nbytes, attainable, intensity, seconds, limit, tokensAtRidge} = widget.module;
          const {rooflines, models} = widget.state.data;
          return Object.entries(rooflines).map(([device, roof]) => Object.entries(models).map(([model, there]) =>
            Object.entries(there).map(([name, op]) => [device, model, name, tokensAtRidge(op, roof), powers.map((t) => [
              flops(op, t), nbytes(op, t), attainable(roof, intensity(op, t)), seconds(op, roof, t), limit(op, roof, t),
            ])]))).flat(2);
        }""",
        POWERS,
    )
    rooflines = explorer._rooflines
    assert len(found) == len(rooflines) * len(MODELS) * len(OPERATIONS) and len(rooflines) == 7
    there = {name: operations(model) for name, model in MODELS.items()}
    for device, model, name, at_ridge, rows in found:
        roof, operation = rooflines[device], there[model][name]
        assert at_ridge == operation.tokens_at_ridge(roof), (device, model, name)
        for tokens, (flops, nbytes, rate, seconds, limit) in zip(POWERS, rows, strict=True):
            assert (flops, nbytes) == (operation.flops(tokens), operation.nbytes(tokens))
            assert limit == operation.limit(roof, tokens)
            assert abs(rate / roof.attainable(operation.intensity(tokens)) - 1) < 1e-12
            assert abs(seconds / roof.seconds(flops, nbytes) - 1) < 1e-12


def test_the_page_says_what_python_says(page):
    explorer = roofline(mine=MINE)
    mount(page, explorer)
    models = ("BERT-Base", "GPT-2", "Llama 3 405B", "PaLM 540B")
    grid = list(
        states(
            explorer, device=explorer._rooflines, model=models, operation=OPERATIONS, tokens=POWERS[::3] + [2048]
        )
    )  # fmt: skip
    said = computed(
        page,
        """(states) => states.map((state) => {
          const {sceneOf, title, figures, sentences} = widget.module;
          const scene = sceneOf(widget.state.data, state);
          return [title(scene), figures(scene), sentences(scene)];
        })""",
        [state for state, _ in grid],
    )
    for (state, scene), words in zip(grid, said, strict=True):
        assert words == [title(scene), figures(scene), sentences(scene)], state


def test_the_page_draws_what_python_draws(page):
    explorer = roofline(mine=MINE)
    mount(page, explorer)
    devices, tokens = explorer._rooflines, (1, 64, 2048, 65536)
    grid = list(
        states(
            explorer,
            beside=("H100", "this machine", "nothing"),
            device=devices,
            operation=OPERATIONS,
            tokens=tokens,
        )
    )
    grid += states(explorer, everything=(False,), model=MODELS, tokens=tokens)
    drawn = computed(
        page,
        """(states) => states.map((state) =>
          widget.module.shapes(widget.module.sceneOf(widget.state.data, state), widget.state.data.plot))""",
        [state for state, _ in grid],
    )
    for (state, scene), got in zip(grid, drawn, strict=True):
        want = shapes(scene, explorer._plot)
        assert len(got) == len(want), state
        for one, other in zip(got, want, strict=True):
            assert alike(one, other), (state, one, other)


def alike(got, want):
    """The same tag, text and attributes, and coordinates equal but for their last digit."""
    if got[0] != want[0] or got[2] != want[2] or set(got[1]) != set(want[1]):
        return False
    return all(close(str(got[1][name]), str(value)) for name, value in want[1].items())


def close(got, want):
    digits = r"-?\d+(?:\.\d+)?(?:e-?\d+)?"
    numbers = zip(re.findall(digits, got), re.findall(digits, want), strict=True)
    return re.sub(digits, "#", got) == re.sub(digits, "#", want) and all(
        abs(float(a) - float(b)) < 0.0101 for a, b in numbers
    )


# --- what the reader sees


@pytest.mark.parametrize("device", ["P100", "H100", "this machine"])
def test_names_do_not_overlap(page, device):
    mount(page, roofline(device, mine=MINE, beside="A100"))
    overlaps = computed(
        page,
        """([operations, powers]) => {
          const found = [];
          const models = ['GPT-2', 'GPT-3 175B', 'Llama 3 70B'];
          for (const operation of operations) for (const tokens of powers) for (const model of models) {
            widget.model.set('operation', operation);
            widget.model.set('model', model);
            widget.model.set('tokens', tokens);
            const words = [...document.querySelectorAll('.live text:not([transform])')];
            const boxes = words.map((node) => [node.textContent, node.getBBox()]);
            boxes.forEach(([a, p], i) => boxes.slice(i + 1).forEach(([b, q]) => {
              const wide = Math.min(p.x + p.width, q.x + q.width) - Math.max(p.x, q.x);
              const tall = Math.min(p.y + p.height, q.y + q.height) - Math.max(p.y, q.y);
              if (wide > 1 && tall > 4) found.push([operation, model, tokens, a, b]);
            }));
          }
          return found;
        }""",
        [OPERATIONS, POWERS],
    )
    assert overlaps == []


def test_a_choice_changes_picture_readout_and_words_without_a_kernel(page):
    explorer = roofline("V100", "MLP up", tokens=16)
    widget = mount(page, explorer)
    widget.get_by_label("device").select_option("H100")
    widget.get_by_role("combobox", name="operation").select_option("softmax")
    widget.get_by_label("model").select_option("GPT-2")
    widget.get_by_label("all operations of the layer").uncheck()
    want = roofline("H100", "softmax", "GPT-2", 16, beside="V100", everything=False)
    assert chosen(page) == [getattr(want, name) for name in STATE]
    assert widget.locator(".live [data-operation]").count() == 1
    assert widget.locator("dd").all_inner_texts() == list(figures(want.scene).values())
    heading, *words = repr(want).split("\n")
    assert widget.locator(".details").inner_text() == f"{words[0]} {words[2]}"
    status = widget.get_by_role("status")
    assert status.text_content() == f"{heading}. {' '.join(words)}"
    assert widget.locator("svg").get_attribute("aria-label") == status.text_content()


def test_the_device_before_stays_as_a_dashed_roof(page):
    widget = mount(page, roofline("V100"))
    assert widget.locator(".roof-beside").count() == 0
    widget.get_by_label("device").select_option("H100")
    assert widget.get_by_label("compared with").input_value() == "V100"
    assert widget.locator(".roof-beside").count() == 1
    assert "V100: 125 TFLOP/s, ridge 139" in widget.locator(".live text").all_text_contents()
    widget.get_by_label("compared with").select_option("nothing")
    assert widget.locator(".roof-beside").count() == 0


def test_the_slider_goes_by_powers_of_two_from_the_keyboard(page):
    widget = mount(page, roofline(tokens=2048))
    slider = widget.get_by_role("slider")
    slider.focus()
    press(page, "ArrowLeft", "ArrowLeft")
    assert widget.locator(".number").inner_text() == "512"
    assert slider.get_attribute("aria-valuetext") == "512 tokens"
    press(page, "Home")
    assert chosen(page)[4] == 1 and "Limited by memory" in widget.locator(".details").inner_text()
    press(page, "End")
    assert chosen(page)[4] == 65536
    widget.get_by_role("combobox", name="operation").select_option("generating: attention")
    assert slider.get_attribute("aria-valuetext") == "65,536 sequences"
    assert widget.get_by_label("sequences (one new token each)").count() == 1


def test_a_click_on_a_mark_chooses_its_operation(page):
    widget = mount(page, roofline())
    widget.locator(".live [data-operation=softmax]").click()
    assert (
        chosen(page)[3] == "softmax"
        and widget.get_by_role("combobox", name="operation").input_value() == "softmax"
    )
    assert widget.locator(".live text.roof-chosen").text_content() == "softmax"


def test_a_change_from_python_is_drawn(page):
    widget = mount(page, roofline())
    page.evaluate("widget.model.set('device', 'B200')")
    assert widget.get_by_label("device").input_value() == "B200"
    assert "B200: 2.25 PFLOP/s" in widget.locator(".live text").all_text_contents()


def test_a_redraw_takes_less_than_ten_milliseconds(page):
    mount(page, roofline("H100", beside="V100"))
    quickest = page.evaluate("""() => Math.min(...Array.from({length: 40}, (_, k) => {
      widget.state.tokens = 2 ** (k % 17);
      const begin = performance.now();
      document.querySelector('#widget').redraw();
      document.querySelector('#widget').offsetHeight;
      return performance.now() - begin;
    }))""")
    assert quickest < 10


def test_everything_that_takes_focus_keeps_its_keys_from_jupyterlab(page):
    widget = mount(page, roofline())
    assert all_guarded(widget)
    assert widget.locator("select, input").count() == 6


@pytest.mark.parametrize("width", [460, 700])
def test_it_fits_a_narrow_notebook(page, width):
    page.set_viewport_size({"width": width, "height": 900})
    widget = mount(page, roofline("H100", "generating: linear layers", "Llama 3 405B"))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    boxes = [node.bounding_box() for node in widget.locator("dl div").all()]
    ends = page.evaluate(
        """() => [...document.querySelectorAll('#widget dd')].map((node) => {
      const range = document.createRange();
      range.selectNodeContents(node);
      return range.getBoundingClientRect().right;
    })"""
    )
    assert all(end <= box["x"] + box["width"] + 8 for end, box in zip(ends, boxes, strict=True))


def test_the_saved_picture_holds_its_words(page):
    page.goto("about:blank")
    for operation in OPERATIONS:
        for tokens in (1, 65536):
            page.set_content(roofline("H100", operation, "Megatron 1T", tokens).svg())
            ends = page.evaluate(
                "() => [...document.querySelectorAll('text')].map((node) => node.getBBox()).map((box) => box.x + box.width)"
            )
            assert max(ends) < 797, operation


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(page, scheme):
    page.emulate_media(color_scheme=scheme)
    widget = mount(page, roofline(beside="H100"))
    card, ink, muted = (
        widget.locator(selector).first.evaluate("node => getComputedStyle(node).fill")
        for selector in (".card", ".roof-name", ".roof-muted")
    )
    # text has an outline in the card's colour
    assert contrast(card, ink) > 7 and contrast(card, muted) > 4.5
