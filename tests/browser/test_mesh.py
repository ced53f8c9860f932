"""The mesh explorer in a page: ranks that are pointed at, clicked and walked to; sizes that change; rules that are broken."""

import pytest

from course_lib.layout import Layout
from course_lib.viz import mesh_explorer
from tests.browser.widget import control, mount, said, settle, texts

pytestmark = pytest.mark.browser


def middle(page, picture, rank):
    """Where the cell of a rank is on the page."""
    cell = next(m for m in picture.scene.ground if m.sets == (("rank", rank),))
    box = page.locator(".stage svg").first.bounding_box()
    zoom = box["width"] / picture.scene.panels[0].w
    return box["x"] + (cell.x + cell.w / 2) * zoom, box["y"] + (cell.y + cell.h / 2) * zoom


@pytest.mark.parametrize(
    ("make", "ranks"),
    [(lambda: mesh_explorer(rank=1), (0, 1234, 3071)), (lambda: mesh_explorer(Layout(2, 2, 1, 2), 4), (3, 6))],
)
def test_a_rank_is_told_when_pointed_at_and_chosen_by_a_click(page, make, ranks):
    picture = make()
    widget = mount(page, picture)
    for rank in ranks:
        page.mouse.move(*middle(page, picture, rank))
        assert said(widget).startswith(f"rank {rank} · pp ")
        page.mouse.click(*middle(page, picture, rank))
        settle(page)
        assert picture.choices["rank"] == rank and any(t.startswith(f"rank {rank} · pp") for t in texts(widget))
        assert control(widget, "rank").input_value() == str(rank)


def test_every_rank_can_be_reached_by_keyboard(page):
    picture = mesh_explorer(rank=1234)
    widget = mount(page, picture)
    widget.locator(".stage svg").first.focus()
    steps = [
        ("ArrowRight", 1235), ("ArrowLeft", 1234), ("t", 1235), ("Shift+T", 1234), ("d", 1242), ("d", 1202), ("Shift+D", 1242),
        ("p", 1290), ("Shift+P", 1242), ("ArrowDown", 1246), ("ArrowUp", 1242), ("c", 1242), ("End", 3071), ("ArrowRight", 3071),
        ("ArrowDown", 3071), ("Home", 0), ("ArrowLeft", 0),
    ]  # fmt: skip
    for key, rank in steps:
        page.keyboard.press(key)
        settle(page)
        assert picture.choices["rank"] == rank, key
    assert said(widget).startswith("rank 0 · pp 0, dp 0, tp 0 · node 0.")


def test_a_group_lights_up_when_its_row_is_pointed_at(page):
    widget = mount(page, mesh_explorer(Layout(2, 2, 1, 2), 4, 5, model="GPT-3 Small", num_microbatches=4))
    widget.locator(".stage svg").nth(1).get_by_text("dp", exact=True).hover(force=True)
    assert said(widget).startswith("dp, data parallel: 5, 7, 2 on 1, ↔ 7 inside, ")
    lit = widget.locator(".stage svg").first.locator(".lit")
    assert {node.get_attribute("class").split()[0] for node in lit.all()} == {"link", "dp"}


def test_sizes_order_and_nodes_change_and_a_model_that_cannot_be_cut_says_why(page):
    widget = mount(page, mesh_explorer(rank=3071))
    for label, value in (("pp", "32"), ("ranks a node", "16")):
        control(widget, label).fill(value)
        settle(page)
    widget.get_by_role("combobox", name="order", exact=True).select_option(label="cp · tp · dp · pp")
    settle(page)
    assert widget.locator(".title").inner_text() == "tp 8 × dp 6 × pp 32: 1,536 ranks on 96 nodes of 16"
    assert "There is no rank 3,071 here" in widget.locator(".notes").inner_text()
    assert "rank 1535 · tp 7, dp 5, pp 31 · node 95" in texts(widget) and "8 on 8" in texts(widget)
    control(widget, "tp").fill("3")
    settle(page)
    assert "Megatron 1T has 160 heads, which tp = 3 does not divide" in widget.locator(".notes").inner_text()


def test_too_many_ranks_are_refused_and_the_picture_stays(page):
    widget = mount(page, mesh_explorer(rank=7))
    before = texts(widget)
    control(widget, "pp").fill("640")
    settle(page)
    rule = widget.locator(".rule[role=status]")
    assert "pp 640 × dp 6 × tp 8 has 30,720 ranks: there is room for 4,096." in rule.inner_text()
    assert texts(widget) == before
    control(widget, "pp").fill("64")
    settle(page)
    assert not rule.inner_text()


def test_on_a_phone_the_groups_are_a_list_and_the_cells_still_answer(page):
    page.set_viewport_size({"width": 360, "height": 800})
    picture = mesh_explorer(rank=1234)
    widget = mount(page, picture)
    page.wait_for_function("document.querySelector('.stage svg').viewBox.baseVal.width < 360")
    assert picture.width < 360 and "tensor parallel" in texts(widget) and "takes" not in texts(widget)
    page.mouse.click(*middle(page, picture, 2000))
    settle(page)
    assert picture.choices["rank"] == 2000
