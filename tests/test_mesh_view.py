"""The mesh explorer without a page: what it says of a rank is what the layout and the cost model say, and it draws every rank."""

import re
import subprocess
import sys
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from course_lib.cost.hardware import SYSTEMS
from course_lib.cost.memory import parameters_per_gpu
from course_lib.cost.plan import Plan
from course_lib.cost.shapes import MODELS, Transformer
from course_lib.cost.traffic import step_traffic
from course_lib.layout import Layout
from course_lib.viz import mesh_explorer
from course_lib.viz.mesh_model import Mesh, describe, group_rows, holdings, place, title
from course_lib.viz.mesh_picture import Map, draw

SVG = "{http://www.w3.org/2000/svg}"
A100 = SYSTEMS["A100"]
SMALL = Transformer("small GPT", 4, 32, 4, vocab_size=64, context=16)
LARGE = Mesh(Layout(64, 6, 1, 8), 8, 1234, MODELS["Megatron 1T"], A100, 512, recompute="full")
EIGHT = Mesh(Layout(2, 2, 1, 2), 4, 5, SMALL, A100, 4)


def test_what_it_says_of_rank_1234_is_written_out():
    assert title(LARGE) == "pp 64 × dp 6 × tp 8: 3,072 ranks on 384 nodes of 8"
    assert place(LARGE, 1234) == "rank 1234 · pp 25, dp 4, tp 2 · node 154"
    rows = {axis: row for axis, *row in group_rows(LARGE)}
    assert list(rows) == ["tp", "dp", "pp"]
    assert rows["tp"][:3] == ["1232–1239", "8 on 1", "← 1233 inside, → 1235 inside"]
    assert rows["dp"][:3] == ["1202, 1210, … 1242", "6 on 6", "← 1226 across, → 1242 across"]
    assert rows["pp"][:3] == ["34, 82, … 3058", "64 on 64", "← 1186 across, → 1282 across"]
    assert holdings(LARGE)[:2] == [
        "holds layers 50–51 of Megatron 1T's 128",
        "of each layer heads 40–59: q, k, v columns 6,400:9,600, o rows 6,400:9,600",
    ]


def test_a_pipeline_is_no_ring_and_two_are_neighbours_once():
    rows = {axis: row[2] for axis, *row in group_rows(EIGHT)}
    assert rows == {"tp": "↔ 4 inside", "dp": "↔ 7 inside", "pp": "← 1 across", "ends": "↔ 1 across"}
    middle = replace(EIGHT, layout=Layout(4, 1, 1, 2), rank=3)
    assert group_rows(middle)[1][3] == "← 1 inside, → 5 across"
    assert group_rows(replace(middle, rank=0))[1][3] == "→ 2 inside"


def test_bytes_and_seconds_are_those_of_the_cost_model():
    plan = Plan(64, 6, 8, 3072, recompute="full")
    for rank in (0, 1234, 3071):
        mesh = replace(LARGE, rank=rank)
        wanted = step_traffic(MODELS["Megatron 1T"], plan, A100, rank)
        for (axis, *_, amount, takes), group in zip(group_rows(mesh), wanted.groups, strict=True):
            assert axis == group.axis
            assert amount.endswith(f" in {group.messages:,} messages")
            number, unit, *_ = takes.split()
            assert float(number) * {"s": 1, "ms": 1e-3, "µs": 1e-6}[unit] == pytest.approx(
                group.seconds, rel=0.006
            )
    assert f"{parameters_per_gpu(MODELS['Megatron 1T'], plan):,} parameters" in describe(
        replace(LARGE, rank=0)
    )


def test_the_slices_of_all_ranks_make_up_each_weight():
    for layout in (Layout(2, 1, 1, 4), Layout(1, 2, 1, 2), Layout(4, 1, 1, 1)):
        found = {"layers": set(), "columns": set()}
        for rank in range(layout.world_size):
            words = "\n".join(holdings(Mesh(layout, 2, rank, SMALL, A100)))
            first, last = re.search(r"layers? (\d+)(?:–(\d+))?", words).groups()
            found["layers"] |= set(range(int(first), int(last or first) + 1))
            start, stop = map(int, re.search(r"up columns (\d+):(\d+)", words).groups())
            found["columns"] |= set(range(start, stop))
        assert found == {"layers": set(range(4)), "columns": set(range(128))}


def test_a_model_that_cannot_be_cut_in_this_way_leaves_the_mesh_and_says_why():
    mesh = replace(EIGHT, layout=Layout(3, 2, 1, 2))
    assert holdings(mesh) == [
        "small GPT has 4 layers, which pp × chunks = 3 does not divide: take a divisor of 4."
    ]
    assert [row[4:] for row in group_rows(mesh)] == [["", ""]] * 3
    assert holdings(replace(EIGHT, layout=Layout(1, 2, 2, 2))) == [
        "What a rank holds and sends is counted here for cp = 1."
    ]


@pytest.mark.parametrize("mesh", [LARGE, EIGHT, replace(EIGHT, layout=Layout(1, 1, 1, 1), rank=0)])
def test_the_picture_is_well_formed_small_and_says_what_it_shows(mesh):
    svg = draw(mesh)
    root = ElementTree.fromstring(svg)
    assert root.find(f"{SVG}title").text == title(mesh) and root.find(f"{SVG}desc").text == describe(mesh)
    assert "var(" not in svg and "http" not in svg.replace("http://www.w3.org/2000/svg", "")
    assert len(svg) < 16_000


def cells_drawn(layout, ranks_per_node):
    """How many cells the dashed lines of a map have."""
    total = 0
    for line in ElementTree.fromstring(f"<g>{Map(layout, ranks_per_node, 760).cells}</g>").iter("path"):
        start, end = map(float, re.fullmatch(r"M([\d.]+) [\d.]+H([\d.]+)", line.get("d")).groups())
        dashes, at, k = list(map(int, line.get("stroke-dasharray").split())), start, 0
        while at < end:
            total += k % 2 == 0
            at += dashes[k % len(dashes)]
            k += 1
    return total


@pytest.mark.parametrize("ranks_per_node", [1, 2, 3, 5, 6, 7, 8, 12, 13, 16, 72])
def test_every_rank_has_a_cell_and_no_two_the_same(ranks_per_node):
    for layout in (Layout(2, 2, 1, 2), Layout(3, 5, 1, 7), Layout(16, 6, 1, 8)):
        found = Map(layout, ranks_per_node, 760)
        corners = {found.corner(rank) for rank in range(layout.world_size)}
        assert len(corners) == layout.world_size == cells_drawn(layout, ranks_per_node)
        below = found.grid[0] * ranks_per_node  # the node under node 0
        if below < layout.world_size:
            bottom = found.corner(0)[1] + found.grid[1] * found.tall
            assert found.corner(below)[1] >= bottom + (16 if found.named else 4)  # with room for its name
        assert all(x + found.grid[1] <= 760 and y + found.grid[1] <= found.height for x, y in corners)


def test_the_large_mesh_is_whole_stages_in_a_row_and_fits_a_screen():
    found = Map(LARGE.layout, 8, 760)
    assert found.grid[0] % 6 == 0 and found.grid[1] >= 8 and found.height <= 470


def test_the_same_choice_gives_the_same_picture_in_another_process():
    code = "from course_lib.viz import mesh_explorer as f; print(f(rank=1234).svg())"
    command = [sys.executable, "-c", code]
    there = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8")
    assert there.stdout == mesh_explorer(rank=1234).svg() + "\n"


def test_what_a_notebook_keeps_is_small_and_a_change_from_python_is_checked():
    widget = mesh_explorer(rank=1234)
    saved = widget._repr_mimebundle_()[0]["text/html"]
    assert saved.startswith('<img alt="pp 64 × dp 6 × tp 8: 3,072 ranks') and len(saved) < 25_000
    widget.state = {"pp": 2, "rank": 3}
    assert widget.mesh.layout == Layout(2, 6, 1, 8) and "rank 3" in repr(widget)
    with pytest.raises(ValueError, match="dp is a whole number from 1 to 4,096, not 0"):
        widget.state = {"dp": 0}
    with pytest.raises(ValueError, match="nothing called ep: state has pp, dp, cp, tp, order"):
        widget.state = {"ep": 2}
    widget.state = {"rank": 96}  # the page says so, too, and so does what is kept
    assert repr(widget) == "rank 96 is not in a world of 96: ranks go from 0 to 95."
    assert "rank 96 is not" in widget._repr_mimebundle_()[0]["text/html"]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (
            lambda: mesh_explorer(Layout(pp=4097)),
            ValueError,
            "pp 4097 has 4,097 ranks: there is room for 4,096",
        ),
        (lambda: mesh_explorer(rank=3072), ValueError, "rank 3072 is not in a world of 3072"),
        (lambda: mesh_explorer(ranks_per_node=0), ValueError, "must be at least 1"),
        (
            lambda: mesh_explorer(model="GPT-5"),
            ValueError,
            "there is no Transformer called 'GPT-5': take BERT-Base",
        ),
        (lambda: mesh_explorer(system=8), TypeError, "pass a name or a System, not a int"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(call, error, words):
    with pytest.raises(error, match=words):
        call()
