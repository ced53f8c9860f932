"""A pipeline schedule in a real browser, without Jupyter or a kernel: its orders, times and shapes are Python's."""

from itertools import product

import pytest

from course_lib.viz import pipeline
from course_lib.viz.schedule import SCHEDULES
from course_lib.viz.schedule_gantt import describe
from course_lib.viz.schedule_layout import Gantt
from tests.browser.widget import contrast, control, luminance, mount, state

pytestmark = pytest.mark.browser

COSTS = [(1.0, 2.0, 0.0), (1.0, 1.0, 0.5), (0.37, 1.913, 0.11)]


def said(widget):
    return widget.locator(".details").inner_text()


def readout(widget):
    return widget.locator("dd").all_inner_texts()


def test_orders_and_times_are_pythons(page):
    """Every schedule, p to 8, m to 17, v to 3: the same actions in the same order, at the same times, or the same refusal."""
    sizes = [
        (name, p, m, v) for name, p, m in product(SCHEDULES, range(1, 9), range(1, 18)) for v in (1, 2, 3)
    ]
    sizes = [s for s in sizes if (s[0] == "interleaved 1F1B" or s[3] == 1) and (s[0] != "relay" or s[2] == 1)]
    cases = [(s, COSTS[k % len(COSTS)]) for k, s in enumerate(sizes)]
    mount(page, pipeline())
    got = page.evaluate(
        """(cases) => cases.map(([[schedule, p, m, v], [forward, backward, message]]) => {
          try {
            const sim = widget.module.simulate({schedule, p, m, v, forward, backward, message});
            const rows = sim.ranks.map((rank) => rank.map(widget.module.nameOf).join(" "));
            return [rows, sim.ranks.map((rank) => rank.flatMap(({start, end}) => [start, end])), sim.bubble, sim.peaks];
          } catch (error) { return error.message; }
        })""",
        cases,
    )
    widget, refused, drawn = pipeline(), 0, 0
    for ((name, p, m, v), costs), found in zip(cases, got, strict=True):
        widget.state = {"schedule": name, "p": p, "m": m, "v": v} | dict(
            zip(("forward", "backward", "message"), costs)
        )
        try:
            want = widget.simulation
        except ValueError as error:
            assert found == str(error)
            refused += 1
            continue
        rows, times, bubble, peaks = found
        assert rows == [" ".join(map(str, actions)) for actions in want.schedule.actions], (name, p, m, v)
        for mine, theirs in zip(times, want.times, strict=True):
            flat = [t for pair in theirs for t in pair]
            assert len(mine) == len(flat) and (
                mine == flat or all(abs(a - b) < 1e-9 for a, b in zip(mine, flat))
            ), (
                name,
                p,
                m,
                v,
            )
        assert bubble == pytest.approx(want.bubble, abs=1e-9) and tuple(peaks) == want.peak_activations
        drawn += 1
    assert drawn > 900 and refused > 100


@pytest.mark.parametrize("width", [780, 340.5])
def test_the_page_draws_what_python_draws(page, width):
    mount(page, pipeline())
    widget = pipeline()
    for k, (name, (p, m, v)) in enumerate(product(SCHEDULES, [(1, 2, 1), (3, 6, 4), (4, 8, 2), (16, 64, 4)])):
        forward, backward, message = COSTS[k % len(COSTS)]
        chosen = {
            "schedule": name,
            "p": p,
            "m": m,
            "v": v,
            "forward": forward,
            "backward": backward,
            "message": message,
        }
        widget.state = chosen
        got = page.evaluate(
            """([state, width]) => {
              const {Gantt, simulate, describeAll} = widget.module;
              const gantt = new Gantt(simulate(state), width);
              return [gantt.shapes, gantt.height, describeAll(gantt.sim)];
            }""",
            [chosen, width],
        )
        gantt = Gantt(widget.simulation, width)
        assert got == [gantt.shapes, gantt.height, describe(widget.simulation).split("\n")[0]], chosen


def test_the_formulas_hold_where_they_say(page):
    mount(page, pipeline())
    wrong = page.evaluate(
        """() => {
          const {simulate, formulaOf} = widget.module;
          const found = [];
          for (const schedule of ["relay", "GPipe", "1F1B", "interleaved 1F1B", "ZB-H1"])
            for (let p = 1; p <= 8; p++) for (let m = p; m <= 24; m += schedule === "interleaved 1F1B" ? p : 1) for (const v of [1, 2, 4]) {
              const sim = simulate({schedule, p, m, v, forward: 0.5, backward: 1, message: 0});
              if (Math.abs(formulaOf(sim)[1] - sim.bubble) > 1e-9) found.push([schedule, p, m, v]);
            }
          return found;
        }"""
    )
    assert wrong == []


def test_every_control_answers_without_a_kernel(page):
    widget = mount(page, pipeline())
    assert readout(widget) == [
        "33 s", "without bubble 24 s", "0.375", "36 s / 96 s · formula (p−1)/m = 0.375",
        "at most 4", "of 8 stage activations, on rank 0",
    ]  # fmt: skip
    assert control(widget, "chunks v").is_disabled()
    control(widget, "schedule").select_option("interleaved 1F1B")
    control(widget, "ranks p").fill("2")
    control(widget, "micro-batches m").fill("6")
    control(widget, "chunks v").fill("3")
    control(widget, "forward").fill("2")
    control(widget, "backward (I and W: half each)").fill("3")
    control(widget, "message").fill("0.25")
    chosen = {
        "schedule": "interleaved 1F1B",
        "p": 2,
        "m": 6,
        "v": 3,
        "forward": 2,
        "backward": 3,
        "message": 0.25,
    }
    assert state(page) == chosen
    want = pipeline(**chosen).simulation
    assert widget.locator("h4").inner_text() == "interleaved 1F1B, v = 3: 2 ranks, 6 micro-batches"
    assert readout(widget)[0] == f"{want.makespan_s:.6g} s" and readout(widget)[2] == f"{want.bubble:.4g}"
    assert readout(widget)[3].endswith("formula (p−1)/(v·m) = 0.05556, if p divides m and messages are free")
    assert (
        readout(widget)[5] == f"of 18, on rank 0 · {max(want.peak_activations) / 3:.4g} whole micro-batches"
    )
    assert widget.locator(".holds").all_text_contents() == [str(n) for n in want.peak_activations]
    assert widget.locator(".picture").get_attribute("aria-label").startswith(describe(want).split("\n")[0])
    control(widget, "schedule").select_option("relay")
    assert control(widget, "micro-batches m").is_disabled() and widget.locator("text.rank").count() == 2


def test_sizes_that_cannot_be_are_explained_and_the_picture_is_kept(page):
    widget = mount(page, pipeline("DualPipeV", p=4, m=8))
    before = widget.locator("svg").inner_html()
    control(widget, "ranks p").fill("5")
    rule = widget.get_by_role("status")
    want = "✗ DualPipeV needs at least 2p = 10 micro-batches, not m = 8: take more, or another schedule."
    assert rule.inner_text() == f"{want} Shown is what was before."
    assert widget.locator("svg").inner_html() == before and "stale" in widget.locator(
        ".picture"
    ).get_attribute("class")
    control(widget, "micro-batches m").fill("10")
    assert not rule.is_visible() and widget.locator("text.rank").count() == 5
    control(widget, "forward").fill("")
    assert rule.inner_text() == "✗ forward takes a number from 0.01 to 100. Shown is what was before."
    assert control(widget, "forward").get_attribute("aria-invalid") == "true" and state(page)["forward"] == 1
    control(widget, "forward").fill("2")
    assert not rule.is_visible()
    page.evaluate(
        "widget.model.set('state', {...widget.state.state, p: 7, schedule: 'interleaved 1F1B', m: 23})"
    )
    assert "cannot go in 3 equal rounds of about p = 7; 21 or 28 would do." in rule.inner_text()


def test_sizes_that_cannot_be_at_first_leave_the_controls(page):
    widget = mount(page, pipeline("DualPipeV", p=4, m=7))
    assert widget.get_by_role("status").inner_text().endswith("take more, or another schedule.")
    assert not widget.locator(".picture").is_visible() and not widget.locator(".play").is_visible()
    control(widget, "micro-batches m").fill("8")
    assert widget.locator(".picture").is_visible() and widget.locator("text.rank").count() == 4


def point(page, rank, time):
    """Move the pointer to a time of a rank's lane."""
    x, y = page.evaluate(
        """([rank, time]) => {
          const {gantt} = document.querySelector('#widget').schedule;
          const box = document.querySelector('.picture svg').getBoundingClientRect();
          return [box.left + gantt.x(time), box.top + gantt.middle(rank, 0)];
        }""",
        [rank, time],
    )
    page.mouse.move(x, y)


def test_pointing_at_a_box_tells_what_it_waited_for(page):
    widget = mount(page, pipeline("1F1B", p=4, m=8))
    point(page, 2, 6.5)
    assert said(widget) == "rank 2, stage 2: backward of micro-batch 0, from 6 s to 8 s; waited 2 s for 3B0"
    marks = page.evaluate(
        "document.querySelector('#widget').schedule.selected.needs.map(widget.module.nameOf)"
    )
    assert marks == ["2F0", "3B0"] and widget.locator(".mark.need").count() == 2
    assert widget.locator(".mark.previous").count() == 1 and widget.locator(".mark.here").count() == 1
    point(page, 2, 5)
    assert said(widget).startswith("rank 2 is idle from 4 s to 6 s, until 2B0 can start: waited 2 s for 3B0")
    point(page, 0, 0.5)
    assert said(widget) == "rank 0, stage 0: forward of micro-batch 0, from 0 s to 1 s; no wait"
    assert widget.locator(".mark").count() == 1
    point(page, 3, 30)
    assert said(widget) == "rank 3 is idle from 27 s to 33 s: all of its work is done"
    page.mouse.move(2, 2)
    assert said(widget).startswith("Point at a box") and not widget.locator(".mark").count()


def test_waiting_for_a_message_is_told(page):
    widget = mount(page, pipeline("GPipe", p=2, m=2, message=0.5))
    point(page, 1, 2)
    assert said(widget).endswith("from 1.5 s to 2.5 s; waited 1.5 s for 0F0 and its message")


def test_arrow_keys_walk_and_space_plays(page):
    widget = mount(page, pipeline("1F1B", p=4, m=8))
    picture = widget.locator(".picture")
    picture.focus()
    steps = [("ArrowRight", "rank 0, stage 0: forward of micro-batch 0"), ("ArrowRight", "rank 0, stage 0: forward of micro-batch 1"),
             ("ArrowDown", "rank 1, stage 1: forward of micro-batch 0"), ("End", "rank 1, stage 1: backward of micro-batch 7"),
             ("ArrowLeft", "rank 1, stage 1: backward of micro-batch 6"), ("ArrowUp", "rank 0, stage 0: backward of micro-batch 5"),
             ("ArrowUp", "rank 0, stage 0: backward"), ("Home", "rank 0, stage 0: forward of micro-batch 0")]  # fmt: skip
    for key, want in steps:
        page.keyboard.press(key)
        assert said(widget).startswith(want), key
    page.keyboard.press("Escape")
    assert said(widget).startswith("Point at")
    play = widget.get_by_role("button")
    page.keyboard.press("Space")
    page.wait_for_timeout(200)
    assert play.inner_text() == "❚❚ pause" and widget.locator(".cursor").is_visible()
    page.keyboard.press("Space")
    clock = widget.locator(".clock").inner_text()
    page.wait_for_timeout(100)
    assert (
        play.inner_text() == "▶ play"
        and widget.locator(".clock").inner_text() == clock
        and clock.endswith("of 4 work")
    )


def test_time_shows_what_is_held(page):
    widget = mount(page, pipeline("GPipe", p=2, m=4))
    slider = control(widget, "time")
    slider.fill("400")  # of 15 s: 6 s
    assert widget.locator(".clock").inner_text() == "6.0 s: 1 of 2 work"
    assert widget.locator(".holds").all_text_contents() == ["4", "4"] and widget.locator(".veil").is_visible()
    slider.fill("700")
    assert widget.locator(".clock").inner_text() == "10.5 s: 2 of 2 work"
    assert widget.locator(".holds").all_text_contents() == ["3", "2"]
    page.evaluate("widget.model.set('state', {...widget.state.state, m: 2})")  # over before that
    assert widget.locator(".clock").inner_text() == "all of it" and not widget.locator(".veil").is_visible()
    assert widget.locator(".holds").all_text_contents() == ["2", "2"]


def test_playing_comes_to_an_end_and_reduced_motion_is_heeded(page):
    page.emulate_media(reduced_motion="reduce")
    page.clock.install()
    widget = mount(page, pipeline("1F1B", p=2, m=2))
    widget.get_by_role("button").click()
    seen = []
    for _ in range(20):
        seen.append(widget.locator(".clock").inner_text())
        page.clock.run_for(500)
    assert seen[0].startswith("0.0") and len(set(seen)) > 15 and seen[-1] == "all of it"
    assert widget.get_by_role("button").inner_text() == "▶ play"


def test_everything_that_takes_focus_keeps_its_keys_from_jupyterlab(page):
    widget = mount(page, pipeline())
    takers = widget.locator("button, input, select, [tabindex]")
    assert takers.count() == 7 + 3
    assert not takers.locator("xpath=self::*[not(@data-lm-suppress-shortcuts='true')]").count()


def test_an_update_is_quick(page):
    mount(page, pipeline())
    times = page.evaluate(
        """() => {
          const time = (state, laidOut) => {
            const begin = performance.now();
            widget.model.set('state', {...widget.state.state, ...state});
            if (laidOut) document.querySelector('#widget').getBoundingClientRect();
            return performance.now() - begin;
          };
          const all = [];
          for (const laidOut of [false, true]) for (const [schedule, p, m] of [["1F1B", 4, 8], ["ZB-V", 8, 32], ["1F1B", 16, 64], ["ZB-V", 16, 64]]) {
            const found = [...Array(15).keys()].map((k) => time({schedule, p, m: m - k % 2}, laidOut)).sort((a, b) => a - b);
            all.push([`${schedule} p=${p} m=${m}${laidOut ? " and layout" : ""}`, found[7], found[14]]);
          }
          return all;
        }"""
    )
    for name, median, slowest in times:
        print(f"{name}: median {median:.2f} ms, slowest of 15 {slowest:.2f} ms")
    assert all(median < 100 for _, median, _ in times)


@pytest.mark.parametrize("width", [360, 560, 880])
def test_it_fits_a_narrow_notebook(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    widget = mount(page, pipeline("DualPipeV", p=4, m=10))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = widget.locator(".picture").bounding_box()
    for text in widget.locator(".picture text.axis").all():
        seen = text.bounding_box()
        assert box["x"] <= seen["x"] and seen["x"] + seen["width"] <= box["x"] + box["width"] + 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_themes(page, scheme):
    page.emulate_media(color_scheme=scheme)
    widget = mount(page, pipeline("DualPipeV", p=4, m=8))
    card = {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}[scheme]
    for selector, kind in (
        ("text.rank", "fill"),
        ("text.axis", "fill"),
        ("dd", "color"),
        (".clock", "color"),
    ):
        ink = widget.locator(selector).first.evaluate(f"node => getComputedStyle(node).{kind}")
        assert contrast(card, ink) > 4.5, selector
        assert (luminance(ink) > luminance(card)) == (scheme == "dark")
    fills = {}
    for kind in "FBIW":
        fills[kind] = widget.locator(f"path.{kind}").first.evaluate("node => getComputedStyle(node).stroke")
        ink = widget.locator(f".on{kind} text").first.evaluate("node => getComputedStyle(node).fill")
        assert contrast(fills[kind], ink) > 4.5, kind
    shades = sorted(luminance(color) for color in fills.values())  # told apart without colour, too
    assert all((b + 0.05) / (a + 0.05) > 1.15 for a, b in zip(shades, shades[1:], strict=False))
