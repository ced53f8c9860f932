"""Pipeline schedules in a page: pointing, keys, controls, time, and a schedule that is written there."""

import pytest

from course_lib.numbers import count
from course_lib.schedules import interleaved
from course_lib.schedules.simulation import Costs, simulate
from course_lib.viz import arena, pipeline
from tests.browser.widget import choose, mount, said, settle, texts

pytestmark = pytest.mark.browser


def control(widget, label):
    """By the beginning of its label: a slider's value stands in its label, too."""
    return widget.locator(".controls").get_by_label(label)


def point(page, words, which=0):
    """Move the pointer to the middle of a mark whose tip has these words."""
    place = """([words, which]) => {
      const {nodes, panels} = document.querySelector('#widget').picture;
      const {x, y, w, h} = nodes.filter(({mark}) => mark.shape === 'rect' && mark.tip.includes(words))[which].mark;
      const at = new DOMPoint(x + w / 2, y + h / 2).matrixTransform(panels[0].getScreenCTM());
      return [at.x, at.y];
    }"""
    page.mouse.move(*page.evaluate(place, [words, which]))


def lit(page):
    return page.evaluate("[...document.querySelectorAll('#widget .lit[aria-label]')].map((n) => n.mark.of[0]).sort()")


def test_pointing_at_a_box_lights_what_it_needed_and_at_a_gap_tells_why(page):
    widget = mount(page, pipeline())
    point(page, "backward of micro-batch 0, from 6 s")
    assert said(widget) == "rank 2, stage 2: backward of micro-batch 0, from 6 s to 8 s; waited 2 s for 3B0"
    assert lit(page) == ["2B0", "2F0", "3B0"] and widget.locator(".wire").count() == 1
    assert widget.locator("text.lit").all_text_contents() == ["F0", "B0", "B0"]
    point(page, "rank 2 is idle from 4 s")
    assert said(widget) == "rank 2 is idle from 4 s to 6 s, until 2B0 can start: waited 2 s for 3B0"
    assert lit(page) == ["2B0", "2F0", "3B0"] and not widget.locator(".wire").count()
    page.mouse.move(2, 2)
    assert said(widget).startswith("Point at a box") and not lit(page)


def test_among_many_boxes_those_that_are_meant_get_their_colour(page):
    widget = mount(page, pipeline("1F1B", p=16, m=32))
    opacity = "(node) => getComputedStyle(node).fillOpacity"
    box = widget.locator("rect[aria-label^='rank 2, stage 2: backward of micro-batch 9,']")
    assert not box.count(), "it has no node before it is meant"
    point(page, "rank 2, stage 2: backward of micro-batch 9,")
    assert box.evaluate(opacity) == "1" and lit(page) == ["2B9", "2F9", "3B9"]
    assert widget.locator("path.strokes").first.evaluate("(node) => getComputedStyle(node).opacity") == "0.3"


def test_arrow_keys_walk_along_a_rank_and_to_the_next_and_space_plays(page):
    widget = mount(page, pipeline("interleaved", p=4, m=8, v=2))
    widget.locator(".stage [tabindex='0']").focus()
    order = [str(action) for action in interleaved(4, 8, 2).actions[0]]
    seen = []
    for _ in order:
        seen.append(widget.locator(":focus").evaluate("(node) => node.mark.of[0]"))
        page.keyboard.press("ArrowRight")
    assert seen == order, "no action is left out, of whatever stage it is"
    page.keyboard.press("ArrowDown")
    assert said(widget).startswith("rank 1, stage 1: backward")
    page.keyboard.press("Home")
    assert said(widget).startswith("rank 0, stage 0: forward of micro-batch 0")
    page.keyboard.press("Space")
    page.wait_for_function("document.querySelector('.where').textContent.includes('of 4 work')")
    page.keyboard.press("Space")
    assert widget.locator(".stage rect.cursor").count() == 1


def test_time_shows_what_is_held(page):
    widget = mount(page, pipeline("GPipe", p=2, m=4))
    held = "[...document.querySelectorAll('#widget .stage g:nth-child(3) text')].map((node) => node.textContent)"
    assert page.evaluate(held) == []
    widget.get_by_role("slider", name="step").fill("24")
    assert said(widget) == widget.locator(".where").inner_text() == "7.5 s: 2 of 2 work"
    assert page.evaluate(held) == ["4", "3"] and widget.locator("rect.veil").count() == 2
    point(page, "forward of micro-batch 2")
    assert said(widget).startswith("rank 0, stage 0: forward of micro-batch 2"), "the veil does not hide what is below"
    choose(page, m=2)
    assert page.evaluate(held) == ["2", "2"], "time stays where it is"


def test_every_control_answers_and_what_cannot_be_is_explained(page):
    widget = mount(page, pipeline("DualPipeV", p=4, m=8))
    assert control(widget, "chunks v").is_disabled()
    control(widget, "ranks p").fill("5")
    settle(page)
    want = "✗ DualPipeV needs at least 2p = 10 micro-batches, not m = 8: take more, or another schedule."
    assert widget.locator(".rule").inner_text() == want and texts(widget).count("rank 4") == 0
    control(widget, "micro-batches m").fill("10")
    settle(page)
    assert not widget.locator(".rule").inner_text() and texts(widget).count("rank 4") == 1
    control(widget, "schedule").select_option("interleaved")
    for name, value in {
        "chunks v": "3",
        "forward": "2",
        "backward (I and W: half each)": "3",
        "message": "0.25",
    }.items():
        control(widget, name).fill(value)
        settle(page)
    simulation = simulate(interleaved(5, 10, 3), Costs(2 / 3, 1, message_s=0.25))
    assert f"{count(simulation.makespan_s)} s" in texts(widget)
    control(widget, "schedule").select_option("relay")
    settle(page)
    why = "the relay does not cut the batch"
    assert (
        control(widget, "micro-batches m").is_disabled()
        and control(widget, "micro-batches m").get_attribute("title") == why
    )


def test_a_schedule_is_written_and_judged_in_the_page(page):
    widget = mount(page, arena(["0F0 0F1 0B1 0B0", "1F0 1F1 1B1 1B0"]))
    box = widget.get_by_label("actions, a line a rank")
    assert box.bounding_box()["width"] > 400 and "ZB-H1" in texts(widget)

    def write(words, then):
        box.fill(words)
        page.locator(f"#widget {then[0]}", has_text=then[1]).first.wait_for()
        settle(page)

    write("0F0 0B0 0F1 0B1\n1F1 1F0 1B0 1B1", (".notes", "rank 0 waits at 0B0 for 1B0"))
    assert widget.locator("rect.wrong").count() == 1 and "mine, as far as it goes" in texts(widget)
    write("0F0 0B0 0F1 0B1\n1F1 1F0 1B0 1X1", (".rule", "'1X1' is no action"))
    write("0F0 0B0 0F1 0B1\n1F0 1B0 1F1 1B1", (".notes", "mine is"))
    assert not widget.locator("rect.wrong").count() and not widget.locator(".rule").inner_text()
