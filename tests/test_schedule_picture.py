"""Pictures of pipeline schedules: every action where it happens, what it waited for, and what is wrong with a schedule."""

import re
import subprocess
import sys
from dataclasses import replace

import pytest

from course_lib.numbers import count
from course_lib.schedules import Schedule, dualpipe_v, gpipe, interleaved, one_f_one_b, parse, zb_h1, zb_v
from course_lib.schedules.known import SCHEDULES
from course_lib.schedules.simulation import Costs, simulate
from course_lib.viz import arena, pipeline, schedule_picture
from course_lib.viz.palette import COLORS, STATIC
from course_lib.viz.pictures.schedule import LEFT, LOOKS, build
from course_lib.viz.scene import text_width
from course_lib.viz.show import show
from course_lib.viz.svg import image, svg
from tests.browser.widget import contrast

COSTS = Costs(0.7, 1.9, message_s=0.25)
MADE = [gpipe(4, 8), zb_h1(3, 5), interleaved(4, 8, 4), zb_v(4, 8), dualpipe_v(8, 20), one_f_one_b(1, 1), zb_v(16, 64)]
STUCK = ["0F0 0B0 0F1 0B1", "1F1 1F0 1B0 1B1"]


def marks(picture):
    return [mark for panel in picture.scene.panels for mark in panel.marks]


def texts(picture):
    return [mark.text for mark in marks(picture) if mark.shape == "text"]


def boxes(picture):
    return {mark.key.partition("=")[2]: mark for mark in marks(picture) if mark.focus == "actions"}


def tips(picture, words):
    return [mark.tip for mark in marks(picture) if words in mark.tip]


def same(a, b):
    return a == pytest.approx(b, abs=1e-6)


# --- what is drawn


@pytest.mark.parametrize("schedule", MADE, ids=lambda s: f"{s.name}, {s.num_ranks}, {s.num_microbatches}")
def test_every_action_has_its_box_where_it_happens(schedule):
    simulation = simulate(schedule, COSTS)
    drawn = marks(schedule_picture(simulation))
    found = {mark.key[1:]: mark for mark in drawn if mark.focus == "actions"}
    assert list(found) == [str(action) for rank in schedule.actions for action in rank]
    lanes = [mark for mark in drawn if mark.kind == "shade" and mark.x == LEFT]
    scale = lanes[0].w / simulation.makespan_s
    for lane, actions, times in zip(lanes, schedule.actions, simulation.times, strict=True):
        end_before, first = 0.0, min(action.stage for action in actions)
        for action, (start, end) in zip(actions, times, strict=True):
            box = found[str(action)]
            assert same(box.x, LEFT + start * scale) and -1e-6 <= LEFT + end * scale - box.x - box.w < 1.1
            assert lane.y <= box.y and box.y + box.h <= lane.y + lane.h and end_before <= box.x + 1e-6
            assert LOOKS[action.kind] in box.kind.split() and ("later" in box.kind) == (action.stage != first)
            assert same(box.h, lane.h) if action.stage == first else box.h < lane.h, "later stages are less high"
            end_before = box.x + box.w


@pytest.mark.parametrize(("p", "m"), [(8, 64), (16, 64)])
def test_many_boxes_are_strokes_of_the_same_length_and_light_up(p, m):
    drawn = marks(pipeline("ZB-H1", p=p, m=m))
    found = [mark for mark in drawn if mark.focus == "actions"]
    assert all(mark.kind.startswith("hit ") for mark in found)
    for kind in ("forward", "input", "weight"):
        strokes = [mark for mark in drawn if mark.kind.startswith(f"{kind} strokes")]
        assert len(strokes) == p and all(mark.kind.endswith(f"-{found[0].h}") for mark in strokes)
        long = sum(float(wide) for mark in strokes for wide in re.findall(r"h([\d.]+)", mark.text))
        assert long == pytest.approx(sum(mark.w for mark in found if kind in mark.kind), rel=0.05)


def test_the_results_are_the_models_with_the_formula_and_what_it_asks_for():
    assert {"33 s", "without bubble 24 s", "0.375", "36 s / 96 s · formula (p−1)/m = 0.375"} <= set(texts(pipeline()))
    assert {"at most 4", "of 8 stage activations, on rank 0"} <= set(texts(pipeline()))
    picture = pipeline("interleaved", p=2, m=6, v=3, forward=2, backward=3, message=0.25)
    want = simulate(interleaved(2, 6, 3), Costs(2 / 3, 1, message_s=0.25))
    said = " ".join(texts(picture))
    assert f"{count(want.makespan_s)} s" in said and f"{want.bubble:.4g}" in said
    assert "(p−1)/(v·m) = 0.05556, if p divides m and messages are free" in said
    assert f"of 18 stage activations, on rank 0: {max(want.peak_activations) / 3:.4g} whole micro-batches" in said
    peaks = [mark.text for mark in marks(picture) if mark.kind == "strong digits"]
    assert peaks == [str(n) for n in want.peak_activations]


def test_a_stage_takes_its_share_of_a_rank_so_that_schedules_compare():
    for name in SCHEDULES:
        assert f"without bubble {3 if name == 'relay' else 24} s" in texts(pipeline(name))


def test_a_box_says_what_it_waited_for_and_lights_it():
    picture = pipeline()
    box = boxes(picture)["2B0"]
    assert box.tip == "rank 2, stage 2: backward of micro-batch 0, from 6 s to 8 s; waited 2 s for 3B0"
    assert box.lights == ("2B0", "2F0", "3B0", "=3B0") and picture.scene.wires, "a line comes from the other rank alone"
    assert boxes(picture)["0F0"].tip.endswith("from 0 s to 1 s; no wait")
    assert boxes(pipeline("GPipe", p=2, m=2, message=0.5))["1F0"].tip.endswith("waited 1.5 s for 0F0 and its message")


def test_a_gap_says_why():
    picture = pipeline()
    assert tips(picture, "rank 2 is idle from 4 s") == [
        "rank 2 is idle from 4 s to 6 s, until 2B0 can start: waited 2 s for 3B0"
    ]
    assert tips(picture, "rank 3 is idle from 27 s") == ["rank 3 is idle from 27 s to 33 s: all of its work is done"]
    idle = sum(mark.w for mark in marks(picture) if "is idle" in mark.tip)
    lane = next(mark for mark in marks(picture) if mark.kind == "shade" and mark.x == LEFT)
    assert same(idle, 36 * lane.w / 33)


def test_time_passes_over_it():
    frames = pipeline("GPipe", p=2, m=4).scene.frames  # of 15 s
    assert len(frames) == 48 and frames[0].say == "0.0 s: 1 of 2 work" and not any(frame.name for frame in frames)
    frame = frames[24]
    assert frame.say == "7.5 s: 2 of 2 work"
    held = [mark.text for mark in frame.marks if mark.shape == "text"]
    assert held == [str(n) for n in simulate(gpipe(2, 4)).activations_at(7.5)]
    cursor, veil = (next(mark for mark in frame.marks if mark.kind == kind) for kind in ("cursor", "veil"))
    lane = next(mark for mark in marks(pipeline("GPipe", p=2, m=4)) if mark.kind == "shade" and mark.x == LEFT)
    assert same(cursor.x + 1, LEFT + lane.w / 2) and same(veil.x + veil.w, LEFT + lane.w)


@pytest.mark.parametrize("width", [320, 500, 760, 1100])
@pytest.mark.parametrize("name", SCHEDULES)
def test_it_reflows_and_no_label_is_wider_than_its_box(name, width):
    for p, m in ((1, 2), (4, 8), (16, 32)):
        panel = build(name, p, m, 3, width, forward=1.0, backward=2.0, message=0.0).panels[0]
        found = {mark.of[0]: mark for mark in panel.marks if mark.focus == "actions"}
        assert panel.w == min(width, 820)
        for mark in panel.marks:
            room = text_width(mark.text, mark.kind) if mark.shape == "text" and not mark.w else mark.w
            kinds = mark.kind.split()
            left = mark.x - (room if "end" in kinds else room / 2 if "mid" in kinds else 0)
            assert -3 <= left and left + 0.9 * room <= panel.w and 0 <= mark.y <= panel.h, mark
            if mark.shape == "text" and mark.key:
                box = found[mark.key]
                assert room <= box.w and box.x < left


@pytest.mark.parametrize("name", ["1F1B", "ZB-V"])
def test_a_large_one_has_no_labels(name):
    assert not [mark for mark in marks(pipeline(name, p=16, m=64)) if mark.shape == "text" and mark.key]


def test_the_legend_is_of_what_is_there():
    assert "backward for inputs" not in texts(pipeline()) and "forward" in texts(pipeline())
    said = texts(pipeline("ZB-V"))
    assert "backward" not in said and {"backward for inputs", "backward for weights"} <= set(said)
    assert any(words.startswith("paler") for words in said)


@pytest.mark.parametrize("theme", [0, 1])
def test_letters_stand_out_on_every_box(theme):
    css = (STATIC / "marks.css").read_text()

    def blend(front, back, opacity):
        return [opacity * a + (1 - opacity) * b for a, b in zip(front, back, strict=True)]

    def color(name):
        return [int(COLORS[name][theme][i : i + 2], 16) for i in (1, 3, 5)]

    def rgb(channels):
        return f"rgb({','.join(str(round(c)) for c in channels)})"

    lane = blend(color("ink"), color("paper"), 0.07)
    for kind, letter in (("forward", "dark"), ("backward", "bright"), ("input", "dark"), ("weight", "dark")):
        rules = dict(re.findall(r"(?m)^\.([a-z.]*later) { opacity: (.+) }", css))
        pale = float(rules.get(f"{kind}.later", rules["later"]))
        written = {"bright": "rgb(255,255,255)", "dark": "rgb(16,32,44)"}[letter]
        for opacity in (1, pale):
            assert contrast(rgb(blend(color(kind), lane, opacity)), written) > 4.5, (kind, opacity)


@pytest.mark.parametrize("m", [8, 48, 64])
@pytest.mark.parametrize("name", SCHEDULES)
def test_it_stays_light_at_any_size(name, m):
    scene = build(name, 16, m if name != "DualPipeV" else max(m, 32), 4, forward=1.0, backward=2.0, message=0.0)
    assert len(image(svg(scene), str(scene))) < 45_000


def test_it_is_light_as_lessons_open_with_it():
    assert len(pipeline().html()) < 12_000


def test_it_is_the_same_in_another_process():
    code = "from course_lib.viz import pipeline; print(hash(pipeline('ZB-V').svg()))"
    run = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONHASHSEED": "0"})
        for _ in range(2)
    ]
    assert run[0].stdout and run[0].stdout == run[1].stdout


def test_controls_without_a_meaning_are_off_and_what_cannot_be_is_said():
    assert set(pipeline().scene.off) == {"v"} and set(pipeline("relay").scene.off) == {"v", "m"}
    assert not pipeline("interleaved").scene.off
    picture = pipeline("DualPipeV", p=4, m=7)
    assert "needs at least 2p = 8" in str(picture) and "needs at least 2p = 8" in picture.html()
    picture.choose(m=8)
    assert str(picture).startswith(
        "DualPipeV: 4 ranks, 8 micro-batches.\nmakespan 25.5 s · bubble 0.0625: 6 s idle / 96 s of work"
    )
    assert "rank 3: works 24 s, idle 1.5 s, holds at most 9" in str(picture)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"schedule": "2F2B"}, "take one of relay, GPipe, 1F1B"),
        ({"p": 17}, "p is a whole number from 1 to 16, not 17"),
        ({"m": 2.5}, "m is a whole number"),
        ({"v": True}, "v is a whole number"),
        ({"forward": 0}, "forward is a number from 0.01 to 100"),
        ({"backward": float("nan")}, "backward is a number"),
    ],
)
def test_what_is_out_of_range_is_refused(wrong, why):
    with pytest.raises(ValueError, match=why):
        pipeline(**wrong)


# --- a value, or several


def test_schedules_and_simulations_show_themselves():
    for value in (gpipe(2, 3), simulate(gpipe(2, 3))):
        assert show(value).scene.title == "GPipe: 2 ranks, 3 micro-batches"
    assert show(parse("wrong", ["0F0", "1F0 1B0"])).scene.notes == ("✗ rank 0 never does 0B0: add it.",)
    assert "there is no action in it" in str(show(Schedule("none", ()))) + show(Schedule("none", ((),))).html()


def test_several_have_one_scale_and_a_measured_one_says_so():
    quick, slow = simulate(gpipe(2, 4)), simulate(gpipe(2, 4), Costs(2, 4))
    measured = replace(slow, source="measured, emulated links: 10 Gb/s")
    picture = schedule_picture({"simulated": quick, "on a slow machine": measured})
    lanes = [mark.w for mark in marks(picture) if mark.kind == "shade" and mark.x == LEFT]
    assert same(lanes[2], 2 * lanes[0]) and picture.scene.title == "GPipe: 2 ranks, 4 micro-batches"
    assert picture.scene.notes == ("Measured, emulated links: 10 Gb/s.",)
    assert {"simulated", "on a slow machine"} <= set(texts(picture))
    keys = [mark.key for mark in marks(picture) if mark.focus]
    assert len(keys) == len(set(keys)) == 32
    assert picture.scene.frames[30].say == "18.8 s: 0 of 2 and 2 of 2 work"
    found = texts(schedule_picture(gpipe(2, 4), measured))
    assert {f"GPipe: 2 ranks, 4 micro-batches, {how}" for how in ("simulated", "measured")} <= set(found)
    with pytest.raises(ValueError, match="never does 0B0"):
        schedule_picture(gpipe(2, 4), parse("wrong", ["0F0", "1F0 1B0"]))


# --- the arena


def row_of(picture, rank):
    """A rank's actions as they are written, with [what is wrong] and _where it waits_."""
    drawn = marks(picture)
    y = next(mark.y for mark in drawn if mark.text == f"rank {rank}")
    places = [mark for mark in drawn if mark.kind == "wrong" or mark.tip.endswith("waits here for ever")]
    found = []
    for mark in drawn:
        if mark.shape == "text" and mark.y == y and "mid" in mark.kind:
            around = [p.kind for p in places if p.x < mark.x < p.x + p.w and abs(p.y - y) < 20]
            found.append({"wrong": f"[{mark.text}]", "line": f"_{mark.text}_"}[around[0]] if around else mark.text)
    return " ".join(found)


def test_a_circle_of_waiting_is_told_and_shown():
    picture = arena(STUCK)
    assert str(picture).startswith("mine: rank 0 waits at 0B0 for 1B0, which rank 1 has not done yet")
    assert row_of(picture, 0) == "0F0 [0B0] 0F1 0B1" and row_of(picture, 1) == "_1F1_ 1F0 1B0 1B1"
    assert "mine, as far as it goes" in texts(picture) and list(boxes(picture)) == ["0F0"]


@pytest.mark.parametrize(
    ("rows", "why", "rank", "shown"),
    [
        (["0F0 0F0 0B0"], "rank 0 does 0F0 twice", 0, "0F0 [0F0] 0B0"),
        (["0F0 0B0", "1F0"], "rank 1 never does 1B0", 1, "1F0"),
        (["0F0 0B0 1F0", "1F0 1B0"], "rank 1 does 1F0, but rank 0 holds stage 1", 1, "[1F0] 1B0"),
        (["0F0 0B0 0W0"], "rank 0 does 0W0 though the backward is there already", 0, "0F0 0B0 [0W0]"),
    ],
)
def test_what_is_wrong_is_told_and_marked(rows, why, rank, shown):
    picture = arena(rows)
    assert why in str(picture) and why in picture.scene.notes[0] and row_of(picture, rank) == shown
    assert next(mark for mark in marks(picture) if mark.text == f"rank {rank}").kind == "end strong"
    assert not boxes(picture)


def test_no_rows_are_told_too():
    for rows in ([], [""], "\n"):
        assert "there is no action in it" in str(arena(rows))


def test_of_a_long_list_what_is_near_the_mistake_is_shown():
    ranks = [list(actions) for actions in one_f_one_b(4, 40).actions]
    ranks[2].insert(60, ranks[2][50])
    picture = arena(Schedule("long", tuple(map(tuple, ranks))))
    shown = row_of(picture, 2).split()
    assert shown[0] == shown[-1] == "…" and f"[{ranks[2][50]}]" in shown and len(shown) < 20


def test_what_is_written_in_the_page_is_judged():
    picture = arena(["0F0 0F1 0B1 0B0", "1F0 1F1 1B1 1B0"])
    assert picture.scene.title == "mine: 2 ranks, 2 micro-batches"
    picture.choose(mine="\n".join(STUCK) + "\n")
    assert row_of(picture, 0) == "0F0 [0B0] 0F1 0B1"
    with pytest.raises(ValueError, match="'0X1' is no action: write the stage"):
        picture.choose(mine="0F0 0X1").scene  # noqa: B018
    with pytest.raises(ValueError, match="is no action"):
        arena(["F0"])


def rows_of(picture):
    """The table: {schedule: its numbers}."""
    lines = {}
    for mark in picture.scene.panels[-1].marks:
        if mark.shape == "text":
            lines.setdefault(mark.y, []).append(mark)
    for line in lines.values():
        assert [mark.x for mark in line] == sorted(mark.x for mark in line)
        assert all("end" in mark.kind for mark in line[1:]), "numbers stand right"
    return {line[0].text: [mark.text for mark in line[1:]] for line in lines.values()}


def test_one_that_runs_is_compared_with_the_known_ones():
    picture = arena(["0F0 0F1 0B1 0B0", "1F0 1F1 1B1 1B0"])
    rows = rows_of(picture)
    assert rows["schedule"] == ["makespan", "bubble", "0", "1"]
    assert rows["mine"] == ["9 s", "0.5", "2", "2"] and rows["1F1B"] == ["9 s", "0.5", "2", "1"]
    assert rows["interleaved 1F1B, v = 2"] == ["7.5 s", "0.25", "2", "1.5"], "two stages a rank, each half as large"
    assert list(rows)[2:] == ["mine", "GPipe", "1F1B", "interleaved 1F1B, v = 2", "ZB-H1", "ZB-V"]
    verdict = "mine is 2 s behind ZB-H1; its fullest rank holds as little as any."
    assert picture.scene.notes[-1] == str(picture).splitlines()[-1] == verdict


def test_where_not_every_rank_fits_the_fullest_is_told():
    picture = arena(one_f_one_b(8, 8))
    assert rows_of(picture)["1F1B"][2:] == list("87654321")
    picture.width = 320
    assert rows_of(picture)["1F1B"][2:] == ["8"] and picture.scene.panels[-1].w <= 320


def test_it_may_be_better_than_those_it_is_compared_with():
    picture = arena(zb_h1(4, 8), against=[gpipe(4, 8)])
    assert picture.scene.notes == ("ZB-H1 is 6 s ahead of all; its fullest rank holds less than any other's.",)
    assert list(rows_of(picture))[2:] == ["ZB-H1", "GPipe"]
    assert len(arena(zb_h1(4, 8), against=[]).scene.panels) == 1
    assert (
        "ZB-V is as fast as the fastest" in str(arena(zb_v(4, 8)))
        and list(rows_of(arena(zb_v(4, 8)))).count("ZB-V") == 1
    )


def test_costs_stage_by_stage_are_compared_with_as_many_stages():
    picture = arena(one_f_one_b(2, 4), costs=Costs([1, 1.5], [2, 3]))
    rows = rows_of(picture)
    assert list(rows)[2:] == ["1F1B", "GPipe", "ZB-H1"]
    assert rows["GPipe"][0] == f"{simulate(gpipe(2, 4), Costs([1, 1.5], [2, 3])).makespan_s:g} s"
    with pytest.raises(ValueError, match="costs of 2 stages and none of stage 2"):
        picture.choose(mine="0F0 0B0\n1F0 1B0\n2F0 2B0").scene  # noqa: B018
