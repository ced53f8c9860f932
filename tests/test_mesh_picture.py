"""The mesh explorer without a page: what it says of a rank is what layout and cost model say, and every rank has its cell."""

import re
import subprocess
import sys
from dataclasses import replace

import pytest

from course_lib.cost.hardware import SYSTEMS
from course_lib.cost.memory import parameters_per_gpu
from course_lib.cost.mesh import Mesh
from course_lib.cost.plan import Plan
from course_lib.cost.shapes import MODELS, Transformer
from course_lib.cost.traffic import step_traffic
from course_lib.layout import Layout
from course_lib.viz import mesh_explorer

A100 = SYSTEMS["A100"]
SMALL = Transformer("small GPT", 4, 32, 4, vocab_size=64, context=16)
LARGE = Mesh(Layout(64, 6, 1, 8), 8, 1234, MODELS["Megatron 1T"], A100, 512, recompute="full")
EIGHT = Mesh(Layout(2, 2, 1, 2), 4, 5, SMALL, A100, 4)


def drawn(layout, ranks_per_node, rank=0, width=760, **training):
    picture = mesh_explorer(layout, ranks_per_node, rank, **training)
    picture.width = width
    return picture.scene


def cells(scene):
    """The cell of each rank, as (x, y, width, height)."""
    return {m.sets[0][1]: (m.x, m.y, m.w, m.h) for m in scene.ground if m.sets}


def words(scene, panel=None):
    marks = scene.ground if panel is None else scene.panels[panel].marks
    return [m.text for m in marks if m.shape == "text"]


def test_what_it_says_of_rank_1234_is_written_out():
    assert LARGE.title == "pp 64 × dp 6 × tp 8: 3,072 ranks on 384 nodes of 8"
    assert LARGE.place == "rank 1234 · pp 25, dp 4, tp 2 · node 154"
    rows = {axis: row for axis, *row in LARGE.group_rows}
    assert list(rows) == ["tp", "dp", "pp"]
    assert rows["tp"][:3] == ["1232–1239", "8 on 1", "← 1233 inside, → 1235 inside"]
    assert rows["dp"][:3] == ["1202, 1210, … 1242", "6 on 6", "← 1226 across, → 1242 across"]
    assert rows["pp"][:3] == ["34, 82, … 3058", "64 on 64", "← 1186 across, → 1282 across"]
    assert LARGE.holdings[:2] == [
        ("layers", "50–51 of Megatron 1T's 128"),
        ("of each layer", "heads 40–59: q, k, v columns 6,400:9,600, o rows 6,400:9,600"),
    ]


def test_a_pipeline_is_no_ring_and_two_are_neighbours_once():
    rows = {axis: row[2] for axis, *row in EIGHT.group_rows}
    assert rows == {"tp": "↔ 4 inside", "dp": "↔ 7 inside", "pp": "← 1 across", "ends": "↔ 1 across"}
    middle = replace(EIGHT, layout=Layout(4, 1, 1, 2), rank=3)
    assert middle.group_rows[1][3] == "← 1 inside, → 5 across"
    assert replace(middle, rank=0).group_rows[1][3] == "→ 2 inside"


def test_bytes_and_seconds_are_those_of_the_cost_model():
    plan = Plan(64, 6, 8, 3072, recompute="full")
    for rank in (0, 1234, 3071):
        mesh = replace(LARGE, rank=rank)
        wanted = step_traffic(MODELS["Megatron 1T"], plan, A100, rank)
        for (axis, *_, amount, takes), group in zip(mesh.group_rows, wanted.groups, strict=True):
            assert axis == group.axis and amount.endswith(f" in {group.messages:,} messages")
            number, unit, *_ = takes.split()
            seconds = float(number) * {"s": 1, "ms": 1e-3, "µs": 1e-6}[unit]
            assert seconds == pytest.approx(group.seconds, rel=0.006)
    first = str(replace(LARGE, rank=0))
    assert f"{parameters_per_gpu(MODELS['Megatron 1T'], plan):,} parameters" in first


def test_the_slices_of_all_ranks_make_up_each_weight():
    for layout in (Layout(2, 1, 1, 4), Layout(1, 2, 1, 2), Layout(4, 1, 1, 1)):
        found = {"layers": set(), "columns": set()}
        for rank in range(layout.world_size):
            said = str(Mesh(layout, 2, rank, SMALL, A100))
            first, last = re.search(r"layers? (\d+)(?:–(\d+))? of", said).groups()
            found["layers"] |= set(range(int(first), int(last or first) + 1))
            start, stop = map(int, re.search(r"up columns (\d+):(\d+)", said).groups())
            found["columns"] |= set(range(start, stop))
        assert found == {"layers": set(range(4)), "columns": set(range(128))}


def test_a_model_that_cannot_be_cut_in_this_way_leaves_the_mesh_and_says_why():
    rule = "small GPT has 4 layers, which pp × chunks = 3 does not divide: take a divisor of 4."
    scene = drawn(Layout(3, 2, 1, 2), 4, model=SMALL)
    assert rule in scene.notes and str(scene).endswith(rule) and len(cells(scene)) == 12
    assert not any("holds" in word for panel in (0, 1) for word in words(scene, panel))
    cut = replace(EIGHT, layout=Layout(1, 2, 2, 2))
    assert cut.plan == "What a rank holds and sends is counted here for cp = 1." and cut.holdings == []
    assert [row[4:] for row in cut.group_rows] == [("", "")] * 3


@pytest.mark.parametrize("width", [320, 1100])
@pytest.mark.parametrize("ranks_per_node", [1, 3, 8, 13, 72, 4078])
def test_every_rank_has_a_cell_in_the_panel_and_no_two_overlap(ranks_per_node, width):
    for layout in (Layout(), Layout(2, 2, 1, 2), Layout(3, 5, 1, 7), Layout(16, 6, 1, 8), Layout(1, 512, 1, 8)):
        scene = drawn(layout, ranks_per_node, width=width)
        found = cells(scene)
        assert sorted(found) == list(range(layout.world_size))
        assert len({(x, y) for x, y, *_ in found.values()}) == layout.world_size
        columns = {}
        for x, y, w, h in found.values():
            assert x >= 2 and y >= 2 and x + w <= scene.panels[0].w <= width and y + h <= scene.panels[0].h
            columns.setdefault(x, []).append((y, h))
        for column in columns.values():
            column.sort()
            assert all(y + h <= below for (y, h), (below, _) in zip(column, column[1:]))


def test_stages_are_named_and_have_their_nodes_together():
    scene = drawn(Layout(64, 6, 1, 8), 8)
    assert [word for word in words(scene) if word.startswith("pp")] == [f"pp {stage}" for stage in range(64)]
    found = cells(scene)
    for stage in range(64):  # 48 ranks, two rows of cells
        assert len({found[rank][1] for rank in range(48 * stage, 48 * stage + 48)}) == 2
        name = next(m for m in scene.ground if m.text == f"pp {stage}")
        beside = [x + w for x, y, w, h in found.values() if y <= name.y <= y + 2 * h and x < name.x]
        assert name.x < found[48 * stage][0] and name.x - 32 > max(beside, default=0) - 1
    nodes = [m for m in scene.ground if m.kind.startswith("node")]
    assert len(nodes) == 384 and [m.kind for m in nodes[::6]] == ["node", "node odd"] * 32
    inner = drawn(Layout(64, 6, 1, 8, ("cp", "tp", "dp", "pp")), 8)
    assert [word for word in words(inner) if word.startswith("tp")] == [f"tp {place}" for place in range(8)]
    spread = drawn(Layout(64, 6, 1, 8), 72)  # a node has a stage and a half
    assert not any(word.startswith("pp") for word in words(spread)) and "node 0" in words(spread)


def test_three_axes_of_few_ranks_are_a_cube_with_a_direction_each():
    layout = Layout(2, 3, 1, 4)
    scene = drawn(layout, 4, model="GPT-3 Small")
    at = cells(scene)
    steps = {}
    for axis in ("pp", "dp", "tp"):
        pairs = [pair for group in layout.groups(axis) for pair in zip(group, group[1:])]
        steps[axis] = {tuple(round(at[b][i] - at[a][i], 6) for i in (0, 1)) for a, b in pairs}
        assert len(steps[axis]) == 1  # the same way everywhere
    (down,), (deep,), (right,) = steps["pp"], steps["dp"], steps["tp"]
    assert down[0] == 0 < down[1] and deep[0] > 0 > deep[1] and right[0] > 0 == right[1]
    assert {"pp 0", "pp 1", "dp 0", "dp 2", "tp 0", "tp 3", "node 0", "node 5"} <= set(words(scene))
    slabs = [m for m in scene.ground if m.kind.startswith("node")]
    assert len(slabs) == 6 and "nodes 0–1" in words(drawn(layout, 3, model="GPT-3 Small"))
    assert not [m for m in drawn(Layout(4, 6, 1, 8), 8).ground if m.kind == "blank"]  # too many
    assert not [m for m in drawn(Layout(2, 1, 1, 4), 4).ground if m.kind == "blank"]  # two axes


@pytest.mark.parametrize(("layout", "rank"), [(Layout(2, 3, 1, 4), 4), (Layout(4, 6, 2, 8), 100)])
def test_the_groups_of_the_rank_are_marked_by_shape_colour_and_lines(layout, rank):
    scene = drawn(layout, 4, rank)
    at, marks = cells(scene), scene.panels[0].marks
    for axis in ("pp", "dp", "cp", "tp"):
        group = layout.group(rank, axis)
        signs = [m for m in marks if axis in m.kind.split() and "link" not in m.kind]
        links = [m for m in marks if m.kind.startswith(f"link {axis}")]
        if len(group) == 1:
            assert not signs and not links
            continue
        assert [m.text.count("M") for m in signs] == [len(group) - 1]
        assert len({"".join(c for c in m.text.split("M")[1] if c.isalpha()) for m in signs}) == 1
        same = {m.kind for m in links} == {f"link {axis}"}
        assert same == (len({other // 4 for other in group}) == 1) and links
    ring = next(m for m in marks if m.key == "chosen")
    assert (ring.x + ring.w / 2, ring.y + ring.h / 2) == pytest.approx(
        (at[rank][0] + at[rank][2] / 2, at[rank][1] + at[rank][3] / 2)
    )


def test_keys_lead_to_the_cells_beside_and_along_each_axis():
    scene = mesh_explorer(rank=1234).scene
    to = {key: choice["rank"] for key, choice in scene.keys.items()}
    assert to == {
        "Home": 0, "End": 3071, "ArrowLeft": 1233, "ArrowRight": 1235, "ArrowUp": 1234 - 3 * 48 + 4, "ArrowDown": 1238,
        "t": 1235, "T": 1233, "d": 1242, "D": 1226, "p": 1282, "P": 1186,
    }  # fmt: skip
    corner = {key: choice["rank"] for key, choice in mesh_explorer(rank=0).scene.keys.items()}
    assert "ArrowLeft" not in corner and "ArrowUp" not in corner and (corner["T"], corner["P"]) == (7, 3024)
    cube = {key: choice["rank"] for key, choice in drawn(Layout(2, 2, 1, 2), 4, 0).keys.items()}
    assert (cube["ArrowUp"], cube["ArrowDown"]) == (2, 6)  # behind it; of the layer below, the one behind


def test_the_table_has_the_same_words_wide_and_narrow():
    rows = [word for row in LARGE.group_rows for word in row]
    for width in (320, 760):
        scene = drawn(LARGE.layout, 8, 1234, width)
        said = " ".join(words(scene, 1))
        assert all(word in said for word in rows) and words(scene, 1)[0] == LARGE.place
        assert all(m.x + m.w <= width for panel in scene.panels for m in panel.marks)
    narrow = drawn(LARGE.layout, 8, 1234, 320)
    assert "tensor parallel" in words(narrow, 1) and narrow.panels[1].h > 2 * drawn(LARGE.layout, 8, 1234).panels[1].h


def test_a_rank_that_the_mesh_lost_is_said_and_the_last_is_shown():
    picture = mesh_explorer(rank=3071)
    picture.choose(pp=2)
    assert picture.scene.notes[0].startswith("There is no rank 3,071 here: shown is the last.")
    assert "rank 95 · pp 1, dp 5, tp 7 · node 11" in str(picture)


def test_while_only_the_rank_changes_the_cells_are_not_sent_again():
    picture = mesh_explorer(rank=1234)
    cells_sent, scene_sent = picture._ground, picture._scene
    ground = picture.scene.ground
    picture.choose(rank=77)
    assert picture.scene.ground is ground and picture._ground == cells_sent != ""
    assert picture._scene != scene_sent and len(picture._scene) < 12_000
    picture.choose(pp=32)
    assert picture._ground != cells_sent


def test_the_still_is_small_and_the_same_in_another_process():
    code = "from course_lib.viz import mesh_explorer as f; print(f(rank=1234).html())"
    command = [sys.executable, "-c", code]
    there = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8")
    here = mesh_explorer(rank=1234).html()
    assert there.stdout == here + "\n" and len(here) < 30_000
    assert 'alt="pp 64 × dp 6 × tp 8: 3,072 ranks' in here


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: mesh_explorer(Layout(pp=4097)), ValueError, "pp 4097 has 4,097 ranks: there is room for 4,096"),
        (lambda: mesh_explorer(rank=3072), ValueError, "rank 3072 is not in a world of 3072"),
        (lambda: mesh_explorer(ranks_per_node=0), ValueError, "ranks_per_node is a whole number from 1 to"),
        (lambda: mesh_explorer(model="GPT-5"), ValueError, "there is no Transformer called 'GPT-5': take BERT-Base"),
        (lambda: mesh_explorer(system=8), TypeError, "pass a name or a System, not a int"),
        (lambda: mesh_explorer().choose(pp=640).scene, ValueError, "has 30,720 ranks: there is room for 4,096."),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(call, error, said):
    with pytest.raises(error, match=said):
        call()
