"""The sharding widget alone in a real browser, with no Jupyter and no kernel behind it."""

from itertools import combinations

import pytest
import torch
from torch import nn

from course_lib.layout import Replicate, Shard
from course_lib.viz import sharding
from course_lib.viz.shards import draw
from tests.browser.widget import SEEN, close, contrast, luminance, mount

pytestmark = pytest.mark.browser


def choose(widget, world_size, placement):
    widget.get_by_label("world size").select_option(str(world_size))
    widget.get_by_label("placement").select_option(placement)


def seen_after_update(page):
    return page.evaluate(f"({SEEN})(document.querySelector('.shards'))")


def seen_of(page, svg):
    return page.evaluate(f"(text) => ({SEEN})(new DOMParser().parseFromString(text, 'image/svg+xml'))", svg)


@pytest.mark.parametrize(
    "what",
    [
        torch.zeros(4, 5),
        torch.zeros(7),
        (1024, 4096),
        (5, 3, 2),
        nn.Sequential(nn.Conv2d(1, 6, 3), nn.Linear(50, 7)),
    ],
    ids=["matrix", "vector", "large", "three dims", "model"],
)
def test_the_page_draws_what_python_draws(page, what):
    widget = sharding(what)
    shown = mount(page, widget)
    for (world_size, placement), ownership in widget._ownerships.items():
        choose(shown, world_size, placement)
        want = seen_of(page, draw(ownership, 8, standalone=False))
        assert close(seen_after_update(page), want), (world_size, placement)


def test_pointing_and_focusing_show_range_rank_and_bytes(page):
    widget = mount(page, sharding(torch.zeros(4, 5), 2, name="w"))
    details, values = widget.locator(".details"), widget.locator(".value")
    values.nth(11).hover()
    assert details.inner_text() == "w[2, 1] · 4 bytes · on rank 1, which holds [2:4, :]: 40 bytes"
    widget.locator(".panel").nth(0).focus()
    assert details.inner_text() == "rank 0 · w [0:2, :] · 10 of 20 values · 40 bytes"
    choose(widget, 4, "replicate")
    values.nth(0).focus()
    assert details.inner_text() == "w[0, 0] · 4 bytes · on ranks 0–3: 16 bytes together"
    assert values.nth(0).get_attribute("aria-label") == details.inner_text()


def test_arrow_keys_walk_over_the_cells(page):
    widget = mount(page, sharding(torch.zeros(4, 5), 2, name="w"))
    placement = widget.get_by_label("placement")
    placement.focus()
    page.keyboard.press("Tab")
    details = widget.locator(".details")
    for key, where in [("ArrowRight", "w[0, 1]"), ("ArrowDown", "w[1, 1]"), ("ArrowLeft", "w[1, 0]"), ("ArrowLeft", "w[1, 0]"), ("ArrowUp", "w[0, 0]")]:  # fmt: skip
        page.keyboard.press(key)
        assert details.inner_text().startswith(where + " ")
    page.keyboard.press("Tab")  # one stop for the values, one for the ranks
    assert details.inner_text().startswith("rank 0 ")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")  # there is no rank 2
    assert details.inner_text().startswith("rank 1 ")
    choose(widget, 1, "replicate")  # rank 1 is gone, and the ranks can still be reached
    widget.locator(".value").first.focus()
    page.keyboard.press("Tab")
    assert details.inner_text().startswith("rank 0 ")


def test_everything_that_takes_focus_keeps_its_keys_from_jupyterlab(page):
    widget = mount(page, sharding(torch.zeros(2, 2)))
    focusable = widget.locator("select, [tabindex]")
    assert focusable.count() == 2 + 4 + 8
    assert widget.locator(":is(select, [tabindex]):not([data-lm-suppress-shortcuts='true'])").count() == 0


def test_a_change_from_python_is_drawn(page):
    widget = mount(page, sharding(torch.zeros(4, 1), 2))
    page.evaluate("widget.model.set('world_size', 4)")
    assert widget.locator(".value text").all_text_contents() == list("0123")
    assert widget.get_by_label("world size").input_value() == "4"


def test_what_a_run_held_has_details_and_no_controls(page):
    whole = torch.arange(20.0).reshape(4, 5)
    widget = mount(page, sharding([whole[:2], whole[1:3], whole + 1], whole=whole, name="w"))
    assert widget.locator("select").count() == 0
    details = widget.locator(".details")
    for cell, text in [(".value >> nth=5", "on ranks 0–1"), (".value >> nth=19", "on no rank"), (".panel >> nth=2", "not a shard")]:  # fmt: skip
        widget.locator(cell).hover()
        assert text in details.inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(page, scheme):
    page.emulate_media(color_scheme=scheme)
    widget = mount(page, sharding(nn.Linear(4, 4), 8, Replicate()))
    card, ink, muted = (
        widget.locator(selector).first.evaluate("node => getComputedStyle(node).fill")
        for selector in (".card", ".title", ".note")
    )
    assert contrast(card, ink) > 7 and contrast(card, muted) > 4.5
    assert (luminance(card) < 0.5) == (scheme == "dark")


@pytest.mark.parametrize(
    "what", [(1024, 4096), {"transformer.h.11.mlp.c_proj.weight": (768, 3072), "b": (64,)}]
)
def test_the_picture_fits_a_notebook(page, what):
    page.set_viewport_size({"width": 700, "height": 800})
    widget = mount(page, sharding(what, 8, Shard(1)))
    assert page.evaluate("document.documentElement.scrollWidth") <= 700
    card = widget.locator(".card").bounding_box()
    words = [node.bounding_box() for node in widget.locator(".panel .range, .panel .amount").all()]
    assert all(box["x"] + box["width"] <= card["x"] + card["width"] for box in words)
    same_line = [(a, b) for a, b in combinations(words, 2) if abs(a["y"] - b["y"]) < 2]
    assert same_line and all(
        min(a["x"] + a["width"], b["x"] + b["width"]) < max(a["x"], b["x"]) for a, b in same_line
    )
