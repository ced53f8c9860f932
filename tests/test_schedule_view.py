"""The pictures of pipeline schedules without a page: what is drawn, what a schedule of one's own is told, what is refused."""

import re
from xml.etree import ElementTree

import pytest

from course_lib.schedules import Schedule, dualpipe_v, gpipe, interleaved, one_f_one_b, parse, zb_h1, zb_v
from course_lib.simulate import Costs, simulate
from course_lib.viz import arena, pipeline, schedule_picture
from course_lib.viz.schedule import SCHEDULES
from course_lib.viz.schedule_layout import LEFT, Gantt

SVG = "{http://www.w3.org/2000/svg}"
MADE = [
    gpipe(4, 8), one_f_one_b(4, 8), zb_h1(3, 5), interleaved(4, 8, 4), zb_v(4, 8), dualpipe_v(4, 9), one_f_one_b(1, 1),
    zb_v(16, 64),
]  # fmt: skip


def boxes(svg):
    """(kind and chunk, y, left, right) of every box, in pixels."""
    found = []
    group = next(g for g in ElementTree.fromstring(svg).iter(f"{SVG}g") if g.get("class") == "boxes")
    unit = float(re.match(r"scale\((.+) 1\)", group.get("transform"))[1])
    for path in group:
        x = y = 0.0
        for command, a, b in re.findall(r"([mMh])([-\d.]+)(?: ([-\d.]+))?", path.get("d")):
            if command == "h":
                found.append((path.get("class"), y, x * unit, (x + float(a)) * unit))
                x += float(a)
            else:
                x, y = (float(a), float(b)) if command == "M" else (x + float(a), y + float(b))
    return found


def joined(found):
    """Boxes of a kind that touch as one."""
    whole = []
    for name, y, left, right in sorted(found):
        if whole and whole[-1][:2] == (name, y) and left - whole[-1][3] < 0.3:
            whole[-1] = (name, y, whole[-1][2], right)
        else:
            whole.append((name, y, left, right))
    return whole


def texts(svg):
    return [node.text or "" for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


# --- the picture


@pytest.mark.parametrize("schedule", MADE, ids=lambda s: f"{s.name}, {s.num_ranks}, {s.num_microbatches}")
def test_every_action_has_its_box_where_it_happens(schedule):
    simulation = simulate(schedule, Costs(0.7, 1.9, message_s=0.25))
    gantt = Gantt(simulation, 780)
    want = []
    for rank, (actions, times) in enumerate(zip(schedule.actions, simulation.times, strict=True)):
        for action, (start, end) in zip(actions, times, strict=True):
            chunk = gantt.chunks[rank][action.stage]
            left, right = (LEFT + t * gantt.scale for t in (start, end))
            want.append((f"{action.kind} k{chunk}", gantt.middle(rank, chunk), left, right))
    found = boxes(schedule_picture(simulation))
    if len(found) < len(want):  # those that touch and are narrow are one
        assert min(right - left for *_, left, right in want) < 2
        found, want = joined(found), joined(want)
    assert len(found) == len(want)
    for got, asked in zip(sorted(found), sorted(want), strict=True):
        assert got[0] == asked[0] and abs(got[1] - asked[1]) < 0.1 and abs(got[2] - asked[2]) < 0.3
        assert asked[3] - 1.3 < got[3] < asked[3] + 0.3


def test_boxes_of_a_lane_do_not_overlap_and_stay_in_it():
    gantt = Gantt(simulate(dualpipe_v(8, 20)), 780)
    lanes = {}
    for _, y, left, right in boxes(schedule_picture(gantt.simulation)):
        lane = int((y - 24) // gantt.pitch)
        assert (
            24 + lane * gantt.pitch <= y - gantt.box / 2
            and y + gantt.box / 2 <= 24 + (lane + 1) * gantt.pitch - 4 + 0.1
        )
        lanes.setdefault(lane, []).append((left, right))
    assert sorted(lanes) == list(range(8))
    for spans in lanes.values():
        spans.sort()
        assert all(a[1] <= b[0] + 1e-6 for a, b in zip(spans, spans[1:], strict=False))


def test_the_picture_is_the_same_each_time_and_says_what_was_reached():
    simulation = simulate(one_f_one_b(4, 8))
    svg = schedule_picture(simulation)
    assert svg == schedule_picture(simulate(one_f_one_b(4, 8)))
    assert "1F1B: 4 ranks, 8 micro-batches" in texts(svg)
    assert (
        "makespan 33 s · bubble 0.375: 36 s idle / 96 s of work · a rank holds at most 4 stage activations"
        in texts(svg)
    )
    assert {f"F{i}" for i in range(8)} | {f"B{i}" for i in range(8)} <= set(texts(svg))
    assert [text for text in texts(svg) if text in "1234"] == ["4", "3", "2", "1"]
    desc = ElementTree.fromstring(svg).find(f"{SVG}desc").text
    assert "rank 3: works 24 s, idle 9 s, holds at most 1" in desc


def test_narrow_boxes_drop_their_numbers_all_of_a_length_together():
    def labels(m):
        svg = schedule_picture(simulate(one_f_one_b(4, m)))
        return {text for text in texts(svg) if re.fullmatch(r"[FB]?\d+", text)}

    assert {"F0", "B7"} <= labels(8)
    assert not any(text.startswith("F") for text in labels(16)) and {"0", "15"} <= labels(16)
    assert labels(64) <= {"1", "2", "3", "4"}  # only what is held


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("costs", [Costs(), Costs(0.5, 1), Costs(0.37, 1.913, message_s=0.11)])
def test_a_large_picture_stays_light(name, costs):
    assert len(schedule_picture(simulate(SCHEDULES[name](16, 64, 4), costs)).encode()) < 60_000


def test_text_is_large_enough_to_read():
    svg = schedule_picture(simulate(zb_v(16, 64)))
    css = ElementTree.fromstring(svg).find(f"{SVG}style").text
    sizes = dict(re.findall(r"\.shards \.([\w-]+)(?: text)?[^{}]*\{[^}]*?font-size: ([\d.]+)px", css))
    used = {
        name
        for node in ElementTree.fromstring(svg).iter(f"{SVG}text")
        for name in (node.get("class") or "").split()
    }
    assert all(float(sizes[name]) >= 11 for name in used if name in sizes)


def test_schedules_and_simulations_show_themselves():
    for value in (gpipe(2, 3), simulate(gpipe(2, 3))):
        html = value._repr_html_()
        assert html.startswith("<img") and "GPipe: 2 ranks, 3 micro-batches" in html
    wrong = parse("wrong", ["0F0", "1F0 1B0"])._repr_html_()
    assert "rank 0 never does 0B0" in wrong and "<img" not in wrong
    assert Schedule("none", ())._repr_html_() and Schedule("none", ((),))._repr_html_()


# --- the arena


def test_a_circle_of_waiting_is_told_and_shown():
    found = arena(["0F0 0B0 0F1 0B1", "1F1 1F0 1B0 1B1"])
    assert repr(found).startswith("mine: rank 0 waits at 0B0 for 1B0, which rank 1 has not done yet")
    html = found._repr_html_()
    assert "<b>rank 0</b>" in html and "0F0 <mark>0B0</mark> 0F1" in html and "<u>1F1</u> 1F0" in html
    assert "mine, as far as it goes" in html


@pytest.mark.parametrize(
    ("rows", "why", "marked"),
    [
        (["0F0 0F0 0B0"], "rank 0 does 0F0 twice", "0F0 <mark>0F0</mark> 0B0"),
        (["0F0 0B0", "1F0"], "rank 1 never does 1B0", "<b>rank 1</b>"),
        (["0F0 0B0 1F0", "1F0 1B0"], "rank 1 does 1F0, but rank 0 holds stage 1", "<mark>1F0</mark> 1B0"),
        (["0F0 0B0 0W0"], "rank 0 does 0W0 though the backward is there already", "0B0 <mark>0W0</mark>"),
        ([], "there is no action in it", "✗"),
        ([""], "there is no action in it", "✗"),
    ],
)
def test_what_is_wrong_is_told_and_marked(rows, why, marked):
    found = arena(rows)
    assert why in repr(found) and why in found._repr_html_() and marked in found._repr_html_()


def test_of_a_long_list_what_is_near_the_mistake_is_shown():
    ranks = [list(actions) for actions in one_f_one_b(4, 40).actions]
    ranks[2][50], ranks[2][51] = ranks[2][51], ranks[2][50]
    ranks[2].insert(60, ranks[2][50])
    html = arena(Schedule("long", tuple(map(tuple, ranks))))._repr_html_()
    shown = re.search(r"<b>rank 2</b>.*?<code>(.*?)</code>", html)[1].split()
    assert len(shown) == 21 and shown[0] == shown[-1] == "…" and any("<mark>" in word for word in shown)


def test_one_that_runs_is_compared_with_the_known_ones():
    found = arena(["0F0 0F1 0B1 0B0", "1F0 1F1 1B1 1B0"])
    rows = {row[0]: row[1:] for row in found.rows}
    assert rows["mine"] == ("9 s", "0.5", "2 2") and rows["1F1B"] == ("9 s", "0.5", "2 1")
    assert rows["interleaved 1F1B, v = 2"] == (
        "7.5 s",
        "0.25",
        "2 1.5",
    )  # two stages a rank, each half as large
    assert set(rows) == {"mine", "GPipe", "1F1B", "interleaved 1F1B, v = 2", "ZB-H1", "ZB-V"}
    assert found.verdict == "mine is 2 s behind ZB-H1; its fullest rank holds as little as any."
    html = found._repr_html_()
    assert "<img" in html and "<th style=text-align:left>mine</th>" in html and found.verdict in html
    assert repr(found).splitlines()[-1] == found.verdict


def test_a_known_schedule_is_not_compared_with_itself_and_the_text_of_it_is_the_same():
    found = arena(zb_v(4, 8))
    assert [row[0] for row in found.rows].count("ZB-V") == 1
    assert found.verdict == "ZB-V is as fast as the fastest; its fullest rank holds as little as any."
    assert arena("0F0 0B0\n").rows == arena(["0F0 0B0"]).rows


def test_it_may_be_better_than_those_it_is_compared_with():
    found = arena(zb_h1(4, 8), against=[gpipe(4, 8)])
    assert found.verdict == "ZB-H1 is 6 s ahead of all; its fullest rank holds less than any other's."
    assert len(found.rows) == 2 and arena(zb_h1(4, 8), against=[]).verdict == ""


def test_costs_stage_by_stage_are_compared_with_as_many_stages():
    found = arena(one_f_one_b(2, 4), costs=Costs([1, 1.5], [2, 3]))
    assert [row[0] for row in found.rows] == ["1F1B", "GPipe", "ZB-H1"]
    assert found.rows[1][1] == f"{simulate(gpipe(2, 4), found.costs).makespan_s:g} s"


def test_what_is_no_action_is_refused():
    with pytest.raises(ValueError, match="is no action"):
        arena(["F0"])


# --- the widget's values


def test_a_stage_takes_its_share_of_a_rank_so_that_schedules_compare():
    for name in SCHEDULES:
        found = pipeline(name, p=4, m=8).simulation
        assert sum(found.work_s) == pytest.approx(4 * 3 * (1 if name == "relay" else 8))
    assert pipeline("interleaved 1F1B", v=4).simulation.bubble == pytest.approx(3 / 32)


def test_sizes_that_cannot_be_are_told_and_a_change_from_python_mends_them():
    found = pipeline("DualPipeV", p=4, m=7)
    assert (
        "needs at least 2p = 8" in repr(found)
        and "needs at least 2p = 8" in found._repr_mimebundle_()[0]["text/html"]
    )
    with pytest.raises(ValueError, match="2p = 8"):
        found.svg()
    found.state = {"m": 8}
    assert found.state["p"] == 4 and found.simulation.schedule == dualpipe_v(4, 8)
    assert found._repr_mimebundle_()[0]["text/html"].startswith("<img")
    assert repr(found).startswith("DualPipeV: 4 ranks, 8 micro-batches. makespan")


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"schedule": "2F2B"}, "no schedule is called '2F2B': take relay, GPipe"),
        ({"p": 17}, "p is a whole number from 1 to 16, not 17"),
        ({"m": 0}, "m is a whole number from 1 to 64"),
        ({"m": 2.5}, "m is a whole number"),
        ({"v": True}, "v is a whole number"),
        ({"forward": 0}, "forward is a number from 0.01 to 100"),
        ({"message": -1}, "message is a number from 0 to 100"),
        ({"backward": float("nan")}, "backward is a number"),
    ],
)
def test_what_is_out_of_range_is_refused(wrong, why):
    with pytest.raises(ValueError, match=why):
        pipeline(**wrong)
    with pytest.raises(ValueError, match="nothing called size"):
        pipeline().state = {"size": 3}
