"""Pictures as data: marks, scenes, the still form, the palette, and the one widget, without a page."""

import base64
import gzip
import json
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest

from course_lib.viz.controls import Button, Choice, Number, Switch, Text, View
from course_lib.viz.page import Pool, all_scenes
from course_lib.viz.palette import COLORS, css
from course_lib.viz.scene import Frame, Panel, Scene, arrow, line, path, rect, text, text_width, wrapped
from course_lib.viz.svg import svg
from course_lib.viz.widget import picture
from tests import small_picture
from tests.browser.widget import contrast

SVG = "{http://www.w3.org/2000/svg}"
STATIC = Path(small_picture.__file__).parents[1] / "course_lib/viz/static"


def numbers(n, width=760):
    if n == 7:
        raise ValueError("seven cannot be: take six or eight.")
    return Scene(f"n = {n}", (Panel(width, 40, [rect(9 * i, 0, 8, 8, "rank-0 held") for i in range(n)]),))


def block_of(shown):
    return json.loads(gzip.decompress(shown._block))


# --- marks


def test_words_that_do_not_fit_shrink_are_cut_or_left_out():
    room = text_width("wide words") - 1
    assert text(0, 0, "wide words", room=room).w == room
    cut = text(0, 0, "wide words", room=room, fit="clip").text
    assert cut.endswith("…") and text_width(cut) <= room
    assert text(0, 0, "wide words", room=room, fit="drop") is None
    assert text(0, 0, "wide words", room=200) == text(0, 0, "wide words")
    assert Panel(9, 9, [None, text(0, 0, "a")]).marks == (text(0, 0, "a"),)


def test_a_sentence_is_broken_where_it_must_be_and_loses_nothing():
    sentence = "Each value lives on exactly one rank, and no rank holds two of them."
    lines = wrapped(sentence, 120)
    assert " ".join(lines) == sentence and len(lines) > 2
    assert all(text_width(words) <= 120 for words in lines)


@pytest.mark.parametrize("bend", [0.0, 14.0])
def test_an_arrow_ends_where_it_leads(bend):
    mark = arrow(10, 20, 50, 60, bend=bend)
    assert (mark.x, mark.y) == (10, 20)
    heads = re.findall(r"L([\d.-]+) ([\d.-]+)", mark.text)
    assert ("40", "40") in heads and len(heads) == (2 if bend else 3)


# --- the still form


def test_a_still_picture_is_well_formed_says_what_it_shows_and_follows_the_readers_theme():
    marks = [rect(0, 0, 5, 5, "rank-3 held"), text(0, 9, "<&>"), line(0, 0, 9, 9), path("M0 0h4", "line", 2, 2)]
    drawn = svg(Scene("a < b", (Panel(100, 20, marks),), ("one & two",)))
    root = ElementTree.fromstring(drawn)
    assert root.find(f"{SVG}title").text == "a < b" and root.find(f"{SVG}desc").text == "a < b\none & two"
    style = root.find(f"{SVG}style").text
    light, dark = COLORS["rank-3"]
    assert f"--rank-3:{light}" in style.split("@media (prefers-color-scheme:dark)")[0]
    assert f"--rank-3:{dark}" in style.split("@media (prefers-color-scheme:dark)")[1]
    assert "rank-4" not in style, "only what is used is written"
    assert not re.search(r"http(?!://www.w3.org)", drawn)


def test_boxes_of_a_kind_are_one_path_and_lie_where_they_were():
    marks = [rect(10 * i, 2, 8, 6, f"rank-{i % 2}") for i in range(400)]
    drawn = svg(Scene("many", (Panel(4000, 10, marks),)))
    paths = {node.get("class"): node.get("d") for node in ElementTree.fromstring(drawn).iter(f"{SVG}path")}
    assert set(paths) == {"rank-0", "rank-1"}
    assert paths["rank-1"].startswith("M10 2h8v6h-8zM30 2") and len(drawn) < 12_000


def test_panels_stand_in_rows_that_fit_and_shrink_if_they_must():
    found = re.findall(r"translate\(([\d.]+) ([\d.]+)\)( scale\([\d.]+\))?", svg(Scene("p", (Panel(300, 50, []),) * 3)))
    assert [(x, y == found[0][1]) for x, y, _ in found] == [("20", True), ("336", True), ("20", False)]
    assert "scale(0.5)" in svg(Scene("w", (Panel(1520, 50, []),)))


def test_named_frames_are_shown_side_by_side_and_the_others_are_not():
    base = Panel(100, 20, [rect(0, 0, 5, 5, "box")])
    frames = (
        Frame((text(1, 9, "first"),), name="a"),
        Frame((text(1, 9, "way"),), passing=True),
        Frame((text(1, 9, "last"),), name="b"),
    )
    assert re.findall(r">(first|way|last)<", svg(Scene("t", (base,), frames=frames))) == ["first", "last"]
    unnamed = tuple(Frame(frame.marks) for frame in frames)
    assert ">first<" not in svg(Scene("t", (base,), frames=unnamed))


# --- the palette


def test_text_stands_out_in_both_themes():
    for ground in ("paper", "ground"):
        for theme in (0, 1):
            colors = {name: _rgb(COLORS[name][theme]) for name in ("ink", "quiet", "wrong", ground)}
            assert contrast(colors["ink"], colors[ground]) > 7
            assert contrast(colors["quiet"], colors[ground]) > 4.5 and contrast(colors["wrong"], colors[ground]) > 4.5


@pytest.mark.parametrize("theme", [0, 1])
@pytest.mark.parametrize(
    "words",
    [
        [f"rank-{n}" for n in range(8)],
        ["parameters", "gradients", "optimizer", "activations"],
        ["tp", "cp", "dp", "pp", "ep", "world"],
        ["forward", "backward", "input", "weight"],
        ["compute", "wait", "span"],
    ],
    ids=lambda words: words[0],
)
def test_what_is_shown_together_can_be_told_apart_by_colour_blind_readers_too(words, theme):
    """Deuteranopia by Viénot et al. 1999; a distance of 8 in CIELAB is seen at a glance."""
    for see in (lambda rgb: rgb, _deuteranope):
        labs = {word: _lab(see(_parts(COLORS[word][theme]))) for word in words}
        close = [
            (a, b)
            for i, a in enumerate(words)
            for b in words[i + 1 :]
            if sum((x - y) ** 2 for x, y in zip(labs[a], labs[b], strict=True)) ** 0.5 < 8
        ]
        assert not close


def test_every_rule_names_colours_that_there_are():
    named = set(re.findall(r"var\(--([\w-]+)\)", css()))
    assert named - {"tint"} <= set(COLORS)
    assert not re.search(r"#(?!10202c|fff\b)[0-9a-f]{3,6}", (STATIC / "marks.css").read_text("utf-8"))


def test_no_script_knows_a_formula_or_a_colour():
    scripts = "".join(path.read_text("utf-8") for path in STATIC.glob("*.js"))
    words = r"#[0-9a-fA-F]{6}\b|\blog10\b|toFixed|toPrecision|\b(FLOPs?|ranks?|micro-?batch\w*|nbytes)\b"
    assert not re.search(words, scripts)


def _rgb(hexadecimal):
    return f"rgb({', '.join(str(round(255 * part)) for part in _parts(hexadecimal))})"


def _parts(hexadecimal):
    return [int(hexadecimal[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def _linear(rgb):
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]


def _deuteranope(rgb):
    r, g, b = _linear(rgb)
    seen = (0.29275 * r + 0.70725 * g, 0.29275 * r + 0.70725 * g, -0.02234 * r + 0.02234 * g + b)
    return [max(0.0, 12.92 * c if c <= 0.0031308 else 1.055 * c ** (1 / 2.4) - 0.055) for c in seen]


def _lab(rgb):
    r, g, b = _linear(rgb)
    xyz = (
        (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505,
        0.2126 * r + 0.7152 * g + 0.0722 * b,
        (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089,
    )
    x, y, z = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in xyz)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


# --- controls and choices


@pytest.mark.parametrize(
    ("control", "right", "wrong", "words"),
    [
        (Choice("n", (1, 2)), 2, 3, "n is one of 1, 2, not 3"),
        (Choice("n", (1, 2)), 2, True, "not True"),
        (Choice("n", {0: "a"}, empty=-1), -1, 1, "n is one of 0, not 1"),
        (Number("n", 1, 64), 64, 65, "n is a whole number from 1 to 64, not 65"),
        (Number("n", 1, 64), 1, 1.5, "not 1.5"),
        (Number("s", 0.5, 2, whole=False), 0.7, 3, "s is a number from 0.5 to 2"),
        (Switch("on"), True, 1, "on is True or False, not 1"),
        (Text("rows"), "0F0", 3, "rows is text, not 3"),
        (View(0, 9), (2, 3.5), (3, 2), r"view is \(start, stop\) from 0 to 9"),
    ],
)
def test_a_control_takes_what_it_offers_and_refuses_the_rest_in_a_sentence(control, right, wrong, words):
    control.check(right)
    with pytest.raises(ValueError, match=words):
        control.check(wrong)


def test_choices_can_be_changed_from_python_and_wrong_ones_are_refused():
    shown = picture(numbers, [Number("n", 1, 9)], {"n": 3})
    assert shown.choose(n=5).scene.title == "n = 5" and '"n = 5"' in shown._scene
    with pytest.raises(ValueError, match="nothing called m: choices are n"):
        shown.choose(m=1)
    with pytest.raises(ValueError, match="from 1 to 9, not 12"):
        shown.choose(n=12)
    assert shown.choices == {"n": 5}


def test_a_rule_stands_in_the_place_of_the_picture():
    shown = picture(numbers, [Number("n", 1, 9)], {"n": 7})
    assert str(shown) == "seven cannot be: take six or eight."
    assert json.loads(shown._scene)["scene"] == {"rule": "seven cannot be: take six or eight."}
    assert "<p>seven cannot be" in shown.html()
    with pytest.raises(ValueError, match="seven"):
        shown.svg()


def test_a_picture_that_takes_a_width_is_built_for_that_of_its_page():
    shown = picture(numbers, [Number("n", 1, 9)], {"n": 3})
    shown.width = 400
    assert json.loads(shown._scene)["scene"]["panels"][0]["w"] == 400


# --- frames


def test_frames_hold_the_scene_of_every_choice_with_each_mark_once():
    shown = small_picture.ring()
    block = block_of(shown)
    assert len(block["scenes"]) == 7 * 2
    assert block["scenes"][4]["title"] == "A ring of 4" and block["scenes"][1]["rule"].startswith("two ranks have")
    rows = list(zip(*block["pool"].values(), strict=True))
    assert len(rows) == len({json.dumps(row) for row in rows}) < sum(3 * n for n in range(2, 9)) * 2


def test_a_pool_gives_back_its_marks():
    pool, marks = (
        Pool(),
        [rect(1.26, 2, 3, 4, "box", key="a", of=("g",), tip="t"), text(5, 6, "words"), rect(1.26, 2, 3, 4, "box")],
    )
    places = pool.add([*marks, marks[0]])
    columns = pool.columns()
    assert places == [0, 1, 1, -2] and columns["x"] == [1.3, 5, 1.3] and columns["text"] == ["", "words", ""]
    assert "lights" not in columns and columns["of"] == [("g",), (), ()]


def test_too_many_frames_and_numbers_are_refused():
    many = [Choice(name, range(21)) for name in "ab"]
    with pytest.raises(ValueError, match="441 sets of choices are too many for frames"):
        all_scenes(lambda a, b: Scene("s"), many)
    with pytest.raises(TypeError, match="n has too many values for frames"):
        all_scenes(numbers, [Number("n", 1, 9)])


def test_what_is_under_a_picture_is_sent_again_only_if_it_changes():
    def build(rank):
        ground = tuple(rect(i, 0, 1, 1, "box") for i in range(50))
        return Scene(f"rank {rank}", (Panel(90, 9, [rect(rank, 0, 1, 1, "chosen")]),), ground=ground)

    shown, sent = picture(build, [Number("rank", 0, 49)], {"rank": 0}), []
    shown.observe(lambda change: sent.append(change.name), ["_ground", "_scene"])
    shown.choose(rank=3)
    assert sent == ["_scene"] and len(shown._scene) < 400 < len(shown._ground)
    assert shown.svg().count("h1v1") == 51, "a still picture has both"


# --- what a notebook gets


def test_a_notebook_gets_a_widget_a_still_picture_and_a_text():
    bundle, _ = small_picture.ring()._repr_mimebundle_()
    assert set(bundle) == {"application/vnd.jupyter.widget-view+json", "text/html", "text/plain"}
    assert bundle["text/plain"] == "A ring of 4"
    image = re.search(r'<img alt="A ring of 4" .*?src="data:image/svg\+xml,([^"]+)"', bundle["text/html"])
    assert ElementTree.fromstring(unquote(image[1])).get("role") == "img"
    assert "Run this cell to change ranks and backwards, point at its parts." in bundle["text/html"]


def test_a_page_without_a_kernel_has_all_that_frames_need():
    html = small_picture.ring().html()
    frames, name = re.search(r'data-frames="(\w+)".*load\("(\w+)"\)', html, re.DOTALL).groups()
    blocks = dict(re.findall(r'data-course-block="(\w+)">([^<]+)</script>', html))
    assert set(blocks) == {frames, name}
    assert json.loads(gzip.decompress(base64.b64decode(blocks[frames])))["scenes"]
    assert "export async function hydrate" in gzip.decompress(base64.b64decode(blocks[name])).decode()
    still = picture(numbers, [Number("n", 1, 9)], {"n": 3}).html()
    assert "data-course-block" not in still and "<img" in still


def test_a_page_without_a_kernel_may_have_fewer_options_and_always_the_chosen_one():
    sizes = Choice("n", range(1, 9), still=(1, 2))
    shown = picture(lambda n: Scene(f"{n}"), [sizes], {"n": 5}, name="t", frames=True)
    frames = re.search(r'data-frames="(\w+)"', shown.html())[1]
    block = re.search(rf'data-course-block="{frames}">([^<]+)<', shown.html())[1]
    page = json.loads(gzip.decompress(base64.b64decode(block)))
    assert [scene["title"] for scene in page["scenes"]] == ["1", "2", "5"]
    assert page["controls"][0]["values"] == [1, 2, 5] and len(block_of(shown)["scenes"]) == 8


def test_the_same_picture_is_the_same_in_another_process():
    program = "from tests.small_picture import ring; print(ring(5).html())"
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert there == small_picture.ring(5).html() + "\n"


def test_a_new_picture_is_one_short_python_file():
    source = Path(small_picture.__file__).read_text("utf-8").splitlines()
    assert len(source) <= 40


def test_nothing_heavy_is_imported_before_it_is_asked_for():
    program = (
        "import sys, multiprocessing, course_lib.layout, course_lib.cost, course_lib.schedules, course_lib.viz\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'anywidget', 'IPython'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "from course_lib.viz import sharding, predict, traffic, timeline, pipeline, mesh_explorer, animate\n"
        "heavy = {'torch', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy and 'course_lib.ranks.client' not in sys.modules, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_asking_for_launch_starts_the_server_and_asking_for_the_rest_does_not():
    program = (
        "from course_lib import Link, RankError, span\n"
        "import sys; assert 'course_lib.ranks.client' not in sys.modules\n"
        "from course_lib import launch\n"
        "from course_lib.ranks import client\n"
        "assert client._starter is not None and client._starter.alive() and callable(launch)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
    assert Button("b", "text", {}).sets == {}
