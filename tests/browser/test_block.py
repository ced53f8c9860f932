"""The transformer block in a page, with nothing but its frames behind it: choosing, pointing, and what cannot be."""

import pytest

from course_lib.viz import transformer_block
from tests.browser.widget import choose, mount, said, settle, texts

pytestmark = pytest.mark.browser

# Texts of the first panel that lie over one another or leave it.
CROWDED = """() => {
  const svg = document.querySelector(".stage svg");
  const boxes = [...svg.querySelectorAll("text")].map((node) => [node.textContent, node.getBoundingClientRect()]);
  const card = svg.getBoundingClientRect();
  const found = boxes.filter(([, box]) => box.left < card.left || box.right > card.right + 1 || box.bottom > card.bottom);
  boxes.forEach(([, a], i) => boxes.slice(i + 1).forEach(([words, b]) => {
    if (a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 5 && b.top < a.bottom - 5) found.push([words, b]);
  }));
  return found.map(([words]) => words);
}"""


def test_every_choice_answers_without_a_kernel(page):
    widget = mount(page, transformer_block(t=2), alive=False)
    for t in (1, 2, 4, 8):
        widget.get_by_role("radio", name=str(t), exact=True).check()
        for on in (False, True) if t > 1 else (False,):
            widget.get_by_role("checkbox").set_checked(on)
            settle(page)
            want = transformer_block(t=t, sequence_parallel=on)
            assert widget.locator(".title").inner_text() == want.scene.title
            assert widget.locator(".sent").count() == (0 if t == 1 else 8 if on else 4)
            assert widget.locator(".hit").count() == t
        widget.get_by_role("checkbox").set_checked(False) if t > 1 else None
    assert "8bsh · (t−1)/t numbers" in texts(widget)


def test_pointing_at_a_column_or_walking_there_tells_what_the_rank_holds(page):
    widget = mount(page, transformer_block(t=4), alive=False)
    assert said(widget).startswith("Point at a rank's column")
    column = widget.locator(".hit").nth(2).bounding_box()
    page.mouse.move(column["x"] + 5, column["y"] + 30)
    assert said(widget).startswith("rank 2 · heads 4–5 · q, k, v: columns 64:96")
    assert widget.locator(".blank.lit").count() == widget.locator(".blank").count() / 4
    bar = widget.locator(".sent").first.bounding_box()
    page.mouse.move(bar["x"] + 5, bar["y"] + 5)
    assert said(widget) == "copy_to_group, backward all-reduce of ∂x, 98.3 kB from each rank"
    page.mouse.move(0, 0)
    widget.locator(".hit").first.focus()
    for key, rank in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1)):
        page.keyboard.press(key)
        assert said(widget).startswith(f"rank {rank} ")


def test_what_cannot_be_is_said_in_place_of_the_picture(page):
    widget = mount(page, transformer_block(b=1, s=6, h=16, num_heads=8, t=2), alive=False)
    choose(page, sequence_parallel=True, t=4)
    assert "The sequence length s is 6, which 4 ranks cannot share" in widget.locator("p.rule").inner_text()
    choose(page, t=1)
    assert not widget.locator("p.rule").inner_text() and widget.get_by_role("checkbox").is_disabled()


@pytest.mark.parametrize("sizes", [{}, {"b": 1, "s": 131_072, "h": 16_384, "num_heads": 128}])
def test_nothing_is_crowded(page, sizes):
    mount(page, transformer_block(**sizes), alive=False)
    for t in (1, 2, 4, 8):
        for on in (False, True):
            choose(page, t=t, sequence_parallel=on)
            assert not page.evaluate(CROWDED), (t, on)
