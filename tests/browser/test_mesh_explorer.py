"""The mesh explorer in a real browser, without Jupyter or a kernel: its arithmetic, words and shapes are Python's."""

import random

import pytest

from course_lib.cost.hardware import SYSTEMS
from course_lib.cost.shapes import MODELS, Transformer
from course_lib.layout import Layout
from course_lib.viz import mesh_explorer
from course_lib.viz.mesh_model import Mesh, bytes_text, describe, group_rows, holdings, seconds_text
from course_lib.viz.mesh_picture import Map
from tests.browser.widget import contrast, control, luminance, mount, state

pytestmark = pytest.mark.browser

SMALL = Transformer("small GPT", 24, 96, 24, vocab_size=384, context=64)


def cases(count, seed=0):
    """Meshes of all kinds, each with a rank."""
    draw = random.Random(seed)
    for _ in range(count):
        order = list(("pp", "dp", "cp", "tp"))
        draw.shuffle(order)
        sizes = [draw.choice((1, 2, 3, 4, 6, 8)) for _ in range(4)]
        sizes[2] = draw.choice((1, 1, 1, 2, 3))
        if draw.random() < 0.2:
            sizes[0] = draw.choice((12, 16, 64))
        layout = Layout(*sizes, tuple(order))
        if layout.world_size <= 3072:
            yield (
                layout,
                draw.choice((1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 64, 72)),
                draw.randrange(layout.world_size),
            )


def chosen(layout, ranks_per_node, rank):
    return layout.sizes._asdict() | {
        "order": " ".join(layout.order),
        "ranks_per_node": ranks_per_node,
        "rank": rank,
    }


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("Megatron 1T", {}),
        (SMALL, {"sequence_parallel": True, "recompute": "none", "num_microbatches": 7, "microbatch": 2}),
        ("Llama 3 70B", {"recompute": "selective", "num_microbatches": 8, "system": "H100"}),
    ],
)
def test_the_page_says_of_every_rank_what_python_says(page, model, settings):
    widget = mesh_explorer(model=model, **settings)
    mount(page, widget)
    meshes = list(cases(600, seed=len(settings)))
    got = page.evaluate(
        """(cases) => cases.map((state) => {
          const {groupRows, holdings, describe} = widget.module;
          const data = widget.state.data;
          return [groupRows(data, state), holdings(data, state), describe(data, state)];
        })""",
        [chosen(*mesh) for mesh in meshes],
    )
    cut = 0
    for case, found in zip(meshes, got, strict=True):
        widget.state = chosen(*case)
        mesh = widget.mesh
        assert found == [group_rows(mesh), holdings(mesh), describe(mesh)], case
        cut += not mesh.rule
    assert 100 < cut < len(meshes)


def test_coordinates_and_groups_are_pythons_on_all_of_the_large_mesh(page):
    layout = Layout(pp=64, dp=6, tp=8)
    mount(page, mesh_explorer(layout))
    got = page.evaluate(
        """() => [...Array(3072).keys()].map((rank) => {
          const {coordinate, group, AXES} = widget.module;
          const {state} = widget.state;
          return [AXES.map((axis) => coordinate(state, rank, axis)), AXES.map((axis) => group(state, rank, axis).reduce((a, b) => 31 * a % 1000003 + b, 0))];
        })"""
    )
    for rank, (places, sums) in enumerate(got):
        assert tuple(places) == layout.coordinates(rank)
        for axis, found in zip(("pp", "dp", "cp", "tp"), sums, strict=True):
            want = 0
            for other in layout.group(rank, axis):
                want = 31 * want % 1000003 + other
            assert found == want


def test_the_page_draws_what_python_draws(page):
    mount(page, mesh_explorer())
    meshes = [
        *cases(120, seed=5),
        (Layout(64, 6, 1, 8), 8, 1234),
        (Layout(), 8, 0),
        (Layout(2, 2, 2, 2), 4, 9),
    ]
    got = page.evaluate(
        """(cases) => cases.map((state) => {
          const map = new widget.module.Map2D(state, 760);
          const corners = [...Array(map.n).keys()].map((rank) => map.corner(rank));
          const back = corners.every(([x, y], rank) => map.at(x + 1, y + 1) === rank);
          return [map.cells, map.marks(state.rank), map.height, back, corners.at(-1)];
        })""",
        [chosen(*mesh) for mesh in meshes],
    )
    for (layout, ranks_per_node, rank), (cells, marks, height, back, last) in zip(meshes, got, strict=True):
        want = Map(layout, ranks_per_node, 760)
        assert back, (layout, ranks_per_node)
        assert (height, tuple(last)) == (want.height, want.corner(layout.world_size - 1))
        assert cells == want.cells, (layout, ranks_per_node)
        assert marks == want.marks(rank), (layout, ranks_per_node, rank)


def test_the_page_writes_numbers_as_python_does(page):
    mount(page, mesh_explorer())
    draw = random.Random(0)
    values = [10 ** draw.uniform(-7, 4) for _ in range(500)] + [1, 9.995, 99.95, 0.001, 0.000999999]
    sizes = [int(10 ** draw.uniform(0, 15)) for _ in range(500)]
    got = page.evaluate(
        "([s, b]) => [s.map(widget.module.secondsText), b.map(widget.module.bytesText)]", [values, sizes]
    )
    assert got == [[seconds_text(value) for value in values], [bytes_text(size) for size in sizes]]


def test_a_click_on_any_cell_chooses_its_rank(page):
    widget = mount(page, mesh_explorer())
    box = widget.locator(".picture svg").first.bounding_box()
    zoom = box["width"] / 766
    for rank in (0, 7, 1234, 2000, 3071):
        x, y = Map(Layout(64, 6, 1, 8), 8, 760).corner(rank)
        page.mouse.click(box["x"] + (x + 3 + 3) * zoom, box["y"] + (y + 3 + 3) * zoom)
        assert state(page)["rank"] == rank
        assert widget.locator(".details").inner_text().startswith(f"rank {rank} ·")
    rows = widget.locator("tbody tr")
    assert rows.count() == 4  # tp, dp, pp, and the ends
    assert rows.nth(0).inner_text().split("\t")[:3] == ["tp", "3064–3071", "8 on 1"]
    assert widget.locator(".mark.pp").count() >= 1 and "head for tokens" in widget.locator("ul").inner_text()
    page.mouse.move(box["x"] + 70 * zoom, box["y"] + 6 * zoom)
    assert widget.locator(".hint").inner_text().startswith("Under the pointer: rank 0 · pp 0, dp 0, tp 0")


def test_all_of_it_can_be_reached_by_keyboard(page):
    widget = mount(page, mesh_explorer(rank=1234))
    widget.locator(".picture").focus()
    steps = [
        ("ArrowRight", 1235), ("ArrowLeft", 1234), ("t", 1235), ("Shift+T", 1234), ("d", 1242), ("d", 1202),
        ("Shift+D", 1242), ("p", 1290), ("Shift+P", 1242), ("ArrowDown", 1246), ("ArrowUp", 1242),
        ("c", 1242), ("End", 3071), ("ArrowRight", 3071), ("ArrowDown", 3071), ("Home", 0), ("ArrowLeft", 0),
    ]  # fmt: skip
    for key, rank in steps:
        page.keyboard.press(key)
        assert state(page)["rank"] == rank, key
    label = widget.locator(".picture").get_attribute("aria-label")
    assert label.startswith(describe(mesh_explorer(rank=0).mesh))
    takers = widget.locator("input, select, [tabindex]")
    assert takers.count() == 8
    assert not takers.locator("xpath=self::*[not(@data-lm-suppress-shortcuts='true')]").count()
    assert widget.locator(".details").get_attribute("aria-live") == "polite"


def test_sizes_order_and_nodes_change_in_the_page(page):
    widget = mount(page, mesh_explorer(rank=3071))
    control(widget, "pp").fill("32")
    assert widget.locator("h4").inner_text() == "pp 32 × dp 6 × tp 8: 1,536 ranks on 192 nodes of 8"
    assert state(page)["rank"] == 1535
    control(widget, "order").select_option("cp tp dp pp")
    assert widget.locator("tbody tr").first.inner_text().split("\t")[2] == "8 on 8"
    control(widget, "ranks a node").fill("16")
    assert "96 nodes of 16" in widget.locator("h4").inner_text()
    control(widget, "rank").fill("40")
    assert widget.locator(".details").inner_text() == "rank 40 · tp 0, dp 1, pp 8 · node 2"
    control(widget, "tp").fill("3")
    assert widget.locator("li").all_inner_texts() == [
        "Megatron 1T has 160 heads, which tp = 3 does not divide: take a divisor of 160."
    ]
    assert widget.locator("tbody tr").nth(0).inner_text().split("\t")[1] == "40, 232, 424"


def test_what_cannot_be_says_why_and_keeps_the_picture(page):
    widget = mount(page, mesh_explorer(rank=3071))
    rule = widget.locator(".rule[role=status]")
    before = widget.locator(".picture svg").first.inner_html()
    for label, value, words in (
        ("pp", "640", "pp 640 × dp 6 × tp 8 has 30,720 ranks: there is room for 4,096."),
        ("dp", "", "dp takes a whole number from 1 to 4,096."),
        ("rank", "3072", "rank 3072 is not in a world of 3072: ranks go from 0 to 3071."),
    ):
        old = control(widget, label).input_value()
        control(widget, label).fill(value)
        assert rule.inner_text() == f"✗ {words} Shown is what was before."
        assert widget.locator(".picture svg").first.inner_html() == before
        control(widget, label).fill(old)
        assert not rule.inner_text()
    assert state(page)["rank"] == 3071


def test_groups_differ_by_shape_and_not_by_colour_alone(page):
    widget = mount(page, mesh_explorer(Layout(4, 6, 2, 8), rank=100))
    shapes = {
        axis: widget.locator(f".picture .mark.{axis}").get_attribute("d") for axis in ("tp", "cp", "dp", "pp")
    }
    letters = {axis: "".join(sorted(set(c for c in d if c.isalpha()))) for axis, d in shapes.items()}
    assert letters == {"tp": "Mhvz", "cp": "Mhvz", "dp": "Maz", "pp": "Mlz"}
    assert shapes["cp"].count("h") == 6 * shapes["cp"].count("M") and shapes["tp"].count("h") == 2 * 7
    small = mount(page, mesh_explorer(Layout(2, 2, 1, 2), 4, 5, model=SMALL))
    said = small.locator(".picture svg text").all_text_contents()
    assert all(axis in said for axis in ("tp", "dp", "pp")) and all(str(rank) in said for rank in range(8))


def test_a_change_from_python_is_shown(page):
    widget = mount(page, mesh_explorer())
    page.evaluate("widget.model.set('state', {...widget.state.state, rank: 77})")
    assert widget.locator(".details").inner_text().startswith("rank 77 · pp 1, dp 3, tp 5")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_and_nothing_is_cut_off_in_both_themes(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": 768 + 16, "height": 900})  # what JupyterLab leaves on a laptop
    widget = mount(page, mesh_explorer(rank=1234))
    page.add_style_tag(content=f"body {{ background: {'#0d1117' if scheme == 'dark' else '#fff'} }}")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    for selector, least in (("h4", 7), ("tbody td", 7), ("thead th", 4.5), ("li", 7), (".hint", 4.5)):
        ink = widget.locator(selector).first.evaluate("node => getComputedStyle(node).color")
        assert contrast(ground, ink) > least, selector
    for axis in ("tp", "dp", "pp"):
        fill = widget.locator(f".picture .mark.{axis}").evaluate("node => getComputedStyle(node).fill")
        assert contrast(ground, fill) > 3, axis
    assert (luminance(ground) < 0.5) == (scheme == "dark")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    inner, outer = (widget.locator(s).bounding_box() for s in ("table", "> .shards"))
    assert inner["x"] + inner["width"] <= outer["x"] + outer["width"] + 1


def test_a_click_is_drawn_at_once(page):
    mount(page, mesh_explorer())
    clicks = page.evaluate(
        """() => [...Array(60).keys()].map((k) => {
          const begin = performance.now();
          widget.model.set('state', {...widget.state.state, rank: (k * 997) % 3072});
          document.querySelector('#widget').getBoundingClientRect();
          return performance.now() - begin;
        }).sort((a, b) => a - b)"""
    )
    sizes = page.evaluate(
        """() => [...Array(20).keys()].map((k) => {
          const begin = performance.now();
          widget.model.set('state', {...widget.state.state, pp: k % 2 ? 64 : 32, rank: 0});
          document.querySelector('#widget').getBoundingClientRect();
          return performance.now() - begin;
        }).sort((a, b) => a - b)"""
    )
    print(f"a click: median {clicks[30]:.2f} ms, slowest {clicks[-1]:.2f}; a size: median {sizes[10]:.2f} ms")
    assert clicks[30] < 50 and sizes[10] < 100


def test_the_value_behind_it_is_the_one_that_is_shown():
    widget = mesh_explorer(Layout(2, 2, 1, 2), 4, model=SMALL)
    assert widget.mesh == Mesh(Layout(2, 2, 1, 2), 4, 0, SMALL, SYSTEMS["A100"], 512, 1, "full")
    assert MODELS["Megatron 1T"].name in repr(mesh_explorer())
