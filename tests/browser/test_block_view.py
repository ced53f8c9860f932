"""The sharding view of a transformer block in a real browser, without Jupyter or a kernel."""

import pytest

from course_lib.viz.block import transformer_block
from tests.browser.widget import contrast, luminance, mount

pytestmark = pytest.mark.browser

# Texts that lie over one another or leave the card, and the smallest size of letters.
CROWDED = """() => {
  const svg = document.querySelector("svg");
  const boxes = [...svg.querySelectorAll("text:not(.which)")].map((node) => [node.textContent, node.getBoundingClientRect()]);
  const card = svg.querySelector(".card").getBoundingClientRect();
  const found = boxes.filter(([, box]) => box.left < card.left + 8 || box.right > card.right - 8 || box.bottom > card.bottom);
  boxes.forEach(([, a], i) => boxes.slice(i + 1).forEach(([words, b]) => {
    if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 4 && b.top < a.bottom - 4) found.push([words, b]);
  }));
  const sizes = [...svg.querySelectorAll("text")].map((node) => parseFloat(getComputedStyle(node).fontSize));
  return [found.map(([words]) => words), Math.min(...sizes)];
}"""


def bars(widget):
    return widget.locator(".says").all_text_contents()


def test_every_choice_answers_without_a_kernel_and_shows_pythons_picture(page):
    view = transformer_block(t=2)
    widget = mount(page, view)
    sequence = widget.get_by_role("checkbox")
    for t in view.data["options"]:
        for on in (False, True):
            widget.locator(".segments label", has_text=str(t)).click()
            sequence.set_checked(on)
            want = transformer_block(t=t, sequence_parallel=on)
            assert page.evaluate("[widget.state.t, widget.state.sequence_parallel]") == [t, on]
            assert widget.locator(".title").text_content() in repr(want)
            assert (
                widget.locator("svg").get_attribute("aria-label").splitlines()[1:]
                == repr(want).splitlines()[1:]
            )
            assert len(bars(widget)) == (0 if t == 1 else 8 if on else 4)
            assert widget.locator(".column").count() == t
    assert (
        "tensor and sequence parallel. parameters on each rank: 25,456"
        in widget.locator(".status").text_content()
    )
    assert bars(widget)[:2] == [
        "↓ forward: all-gather of x, 57.3 kB from each rank",
        "↑ backward: reduce-scatter of ∂x, 57.3 kB from each rank",
    ]


def test_all_of_it_can_be_reached_by_keyboard(page):
    widget = mount(page, transformer_block(t=2))
    details = widget.locator(".details")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("widget.state.t") == 4
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert page.evaluate("widget.state.sequence_parallel")
    page.keyboard.press("Tab")
    assert details.inner_text().startswith("rank 0 · heads 0–1 · outside of g … ḡ tokens 0:16")
    for key, rank in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("ArrowDown", 1)):
        page.keyboard.press(key)
        assert details.inner_text().startswith(f"rank {rank} ")
    assert widget.locator(".column.faded").count() == 3
    page.evaluate("widget.model.set('t', 2)")  # from Python: the same rank keeps the focus
    assert details.inner_text().startswith("rank 1 · heads 4–7")
    takers = widget.locator("input, [tabindex]")
    assert takers.count() == 4 + 1 + 2
    assert not takers.locator("xpath=self::*[not(@data-lm-suppress-shortcuts='true')]").count()


def test_pointing_at_a_column_shows_that_rank(page):
    widget = mount(page, transformer_block(t=4))
    widget.locator(".column").nth(2).hover()
    assert widget.locator(".details").inner_text().startswith("rank 2 · heads 4–5 · q, k, v: columns 64:96")
    assert widget.locator(".column.faded").count() == 3


def test_what_cannot_be_cannot_be_chosen_and_says_why(page):
    widget = mount(page, transformer_block(b=1, s=6, h=16, num_heads=8, t=2))
    sequence, four = widget.get_by_role("checkbox"), widget.get_by_role("radio", name="4 ranks")
    sequence.check()
    assert four.is_disabled() and not widget.get_by_role("radio", name="1 rank", exact=True).is_disabled()
    assert widget.locator(".why").inner_text().startswith("The sequence length s is 6, which 4 ranks cannot")
    sequence.uncheck()
    widget.locator(".segments label", has_text="4").click()
    assert sequence.is_disabled() and widget.locator(".why").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_crowded_and_text_stands_out_in_both_themes(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 820, "height": 900})
    sizes = {"b": 1, "s": 131_072, "h": 16_384, "num_heads": 128}
    widget = mount(page, transformer_block(**(sizes if scheme == "dark" else {})))
    for t in (1, 2, 4, 8):
        for on in ("false", "true"):
            page.evaluate(f"(widget.model.set('t', {t}), widget.model.set('sequence_parallel', {on}))")
            crowded, smallest = page.evaluate(CROWDED)
            assert not crowded and smallest >= 11, (t, on)
    card = widget.locator(".card").evaluate("node => getComputedStyle(node).fill")
    for selector, least in ((".title", 7), (".small", 4.5), (".says", 7), (".where", 4.5)):
        ink = widget.locator(selector).first.evaluate("node => getComputedStyle(node).fill")
        assert contrast(card, ink) > least, selector
    assert (luminance(card) < 0.5) == (scheme == "dark")


def test_a_choice_is_drawn_at_once(page):
    mount(page, transformer_block(t=8))
    times = page.evaluate(
        """() => [...Array(60).keys()].map((k) => {
          const begin = performance.now();
          widget.model.set('t', [8, 4][k % 2]);
          return performance.now() - begin;
        }).sort((a, b) => a - b)"""
    )
    print(f"a choice: median {times[30]:.2f} ms, slowest of 60 {times[-1]:.2f} ms")
    assert times[30] < 50


@pytest.mark.parametrize("width", [340, 700])
def test_it_fits_a_narrow_notebook(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    mount(page, transformer_block(t=8))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
