"""The sharding picture in a page, with nothing but its frames behind it: pointing, walking, choosing."""

import pytest
import torch

from course_lib.viz import sharding
from tests.browser.widget import mount, said, settle

pytestmark = pytest.mark.browser


def choose(page, widget, world_size, placement):
    for group, value in (("world size", str(world_size)), ("placement", placement)):
        widget.get_by_role("radiogroup", name=group).get_by_role("radio", name=value, exact=True).check()
    settle(page)


def test_pointing_and_focusing_show_range_rank_and_bytes_and_light_up_the_rank(page):
    widget = mount(page, sharding(torch.zeros(4, 5), 2, name="w"), alive=False)
    assert said(widget).startswith("Point at a value")
    values = widget.locator("rect[tabindex]")
    values.nth(11).hover()
    assert said(widget) == "w[2, 1] · 4 bytes · on rank 1, which holds [2:4, :]: 40 bytes"
    lit = widget.locator("rect.lit")
    assert lit.count() == 10 + 2 + 1, "its values, what rank 1 holds, and its bytes"
    choose(page, widget, 4, "replicate")
    widget.locator("rect[tabindex]").first.focus()
    assert said(widget) == "w[0, 0] · 4 bytes · on ranks 0–3: 16 bytes together"
    assert widget.locator("rect[tabindex]").first.get_attribute("aria-label") == said(widget)


def test_arrow_keys_walk_over_the_cells_and_tab_leads_from_group_to_group(page):
    widget = mount(page, sharding(torch.zeros(4, 5), 2, name="w"), alive=False)
    widget.get_by_role("radiogroup", name="placement").locator("input:checked").focus()
    page.keyboard.press("Tab")
    for key, where in [("ArrowRight", "w[0, 1]"), ("ArrowDown", "w[1, 1]"), ("ArrowLeft", "w[1, 0]"), ("ArrowLeft", "w[1, 0]"), ("ArrowUp", "w[0, 0]"), ("End", "w[3, 4]")]:  # fmt: skip
        page.keyboard.press(key)
        assert said(widget).startswith(where + " "), key
    page.keyboard.press("Tab")  # one stop for the values, one for the ranks
    assert said(widget).startswith("rank 0 ")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")  # there is no rank 2
    assert said(widget).startswith("rank 1 ")
    choose(page, widget, 1, "replicate")  # rank 1 is gone, and the ranks can still be reached
    widget.locator("rect[tabindex]").first.focus()
    page.keyboard.press("Tab")
    assert said(widget).startswith("rank 0 ")


def test_a_mark_that_stays_is_moved_and_not_made_anew(page):
    widget = mount(page, sharding(torch.zeros(4, 5), 2, name="w"), alive=False)
    page.evaluate("document.querySelectorAll('.stage rect').forEach((node) => (node.seen = true))")
    choose(page, widget, 4, "shard dim 1")
    kept = page.evaluate("[...document.querySelectorAll('.stage rect')].filter((node) => node.seen).length")
    assert kept >= 20 + 2 + 3


def test_what_a_run_held_has_details_and_no_controls(page):
    whole = torch.arange(20.0).reshape(4, 5)
    widget = mount(page, sharding([whole[:2], whole[1:3], whole + 1], whole=whole, name="w"), alive=False)
    assert widget.locator("input, select").count() == 0
    tips = [node.get_attribute("aria-label") for node in widget.locator("rect[tabindex]").all()]
    assert "on ranks 0–1" in tips[5] and "on no rank" in tips[19] and "not a shard" in tips[-1]
