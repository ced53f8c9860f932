"""The timeline, the matrix of traffic and the animation of collectives in a real browser, without Jupyter or a kernel."""

import pytest

from course_lib.viz import animate, timeline, traffic
from course_lib.viz.collective_picture import label, part_of, slot_of
from course_lib.viz.moves import ALGORITHMS, num_chunks, states
from tests.browser.widget import contrast, mount
from tests.traces import data_parallel, ring

pytestmark = pytest.mark.browser


def on_screen(page, widget):
    found = mount(page, widget)
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return found


def view(page):
    return page.evaluate("document.querySelector('#widget').timeline.view")


def press(page, *keys):
    for key in keys:
        page.keyboard.press(key)


def all_guarded(widget):
    """Everything that takes focus keeps its keys from JupyterLab."""
    takers = widget.locator("button, input, select, [tabindex]")
    return (
        takers.count() > 0
        and not takers.locator("xpath=self::*[not(@data-lm-suppress-shortcuts='true')]").count()
    )


# --- the timeline


@pytest.mark.parametrize("trace", [data_parallel(3), ring(5, rounds=2)], ids=["step", "ring"])
def test_the_page_cuts_a_ranks_time_as_python_does(page, trace):
    widget = timeline(trace)
    on_screen(page, widget)
    lanes = page.evaluate("widget.module.lanes(widget.state.data).map((lane) => lane.segments)")
    tick, begin = widget.data["tick_s"], widget.data["begin_s"]
    kinds = ["compute", "communication", "wait"]
    for rank, lane in enumerate(lanes):
        want = [s for s in trace.segments(rank) if s[1] - s[0] > 3 * tick]
        got = [s for s in lane if s[1] - s[0] > 3]
        assert [kinds[s[3]] for s in got] == [s[2] for s in want]
        for (start, stop, event, _), segment in zip(got, want, strict=True):
            assert begin + start * tick == pytest.approx(segment[0], abs=3 * tick)
            assert begin + stop * tick == pytest.approx(segment[1], abs=3 * tick)
            assert (event < 0) == (segment[3] is None)
            assert event < 0 or trace.of(rank=rank).events[event] == segment[3]


def test_keys_walk_over_the_events_and_tell_all_about_each(page):
    widget = on_screen(page, timeline(data_parallel(4)))
    details = widget.locator(".details")
    assert details.get_attribute("aria-live") == "polite" and "press N" in details.inner_text()
    widget.locator(".picture").focus()
    press(page, "n")
    assert details.inner_text().startswith("rank 0 · step · step 0 · 100.0")
    press(page, "n", "n", "n")
    said = details.inner_text()
    assert said.startswith(
        "rank 0 · all_reduce (asynchronous) · world (ranks 0–3) · 100,000 bytes · 25,000 × float32 · sum · "
    )
    assert said.endswith(" · In[3], line 10: work.append(dist.all_reduce(bucket[0], async_op=True))")
    press(page, "ArrowDown")
    assert details.inner_text().startswith("rank 1 · all_reduce")
    press(page, "End")
    assert "1 × float32" in details.inner_text() and "its thread waited" in details.inner_text()
    press(page, "p", "Home")
    assert details.inner_text().startswith("rank 1 · step")


def test_messages_tell_their_peers(page):
    widget = on_screen(page, timeline(ring(4)))
    widget.locator(".picture").focus()
    press(page, "n")
    assert (
        "rank 0 · irecv ← rank 3 (asynchronous) · world (ranks 0–3) · 1,000 bytes"
        in widget.locator(".details").inner_text()
    )
    press(page, "n")
    assert "isend → rank 1" in widget.locator(".details").inner_text()


def test_zoom_pan_and_fit_by_keyboard_buttons_wheel_and_drag(page):
    widget = on_screen(page, timeline(data_parallel(4)))
    picture = widget.locator(".picture")
    whole = view(page)
    picture.focus()
    press(page, "+")
    nearer = view(page)
    assert nearer[1] - nearer[0] == pytest.approx(0.6 * (whole[1] - whole[0]))
    press(page, "ArrowRight")
    assert view(page)[0] > nearer[0]
    press(page, "ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight")
    assert view(page)[1] == pytest.approx(whole[1]), "the view stays on the trace"
    press(page, "0")
    assert view(page) == whole
    widget.get_by_label("zoom in").click()
    assert view(page) == pytest.approx(nearer)
    box = picture.bounding_box()
    page.mouse.move(box["x"] + 400, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 60, steps=4)
    page.mouse.up()
    assert view(page)[0] > nearer[0]
    widget.get_by_label("show all").click()
    page.mouse.move(box["x"] + 400, box["y"] + 60)
    page.mouse.wheel(0, -200)
    assert view(page) == whole, "without ctrl the page scrolls"
    page.keyboard.down("Control")
    page.mouse.wheel(0, -200)
    page.keyboard.up("Control")
    page.wait_for_function(
        "whole => document.querySelector('#widget').timeline.view[0] > whole", arg=whole[0]
    )
    after = view(page)
    assert after[1] - after[0] < whole[1] - whole[0]


def test_pointing_shows_what_is_there(page):
    widget = on_screen(page, timeline(ring(2)))
    place = page.evaluate("""() => {
      const t = document.querySelector('#widget').timeline;
      const y = t.data.geometry.top + t.data.geometry.strips + t.data.geometry.body / 2;
      return t.lanes[0].segments.slice(0, 4).map(([a, b]) => [t.x((a + b) / 2), y]);
    }""")
    box = widget.locator("canvas").bounding_box()
    seen = []
    for x, y in place:
        page.mouse.move(box["x"] + x, box["y"] + y)
        seen.append(widget.locator(".details").inner_text())
    assert any("compute or other Python" in text for text in seen)
    assert any("irecv" in text and "its thread waited" in text for text in seen)
    page.mouse.move(0, 0)
    assert "press N" in widget.locator(".details").inner_text()


def test_what_never_completed_says_so(page):
    from course_lib.trace import Event
    from tests.traces import trace_of

    stuck = Event(
        0, "message", "recv", 0.2, 1.0, ranks=(0, 1), peers=(1,), complete=False, waits=((0.2, 1.0),)
    )
    widget = on_screen(page, timeline(trace_of(2, [stuck], 1.0)))
    widget.locator(".picture").focus()
    press(page, "n")
    assert "never complete" in widget.locator(".details").inner_text()


def redraw_ms(page):
    """The quickest of several redraws, in each of three views: what the drawing takes when nobody else wants the processor."""
    return page.evaluate("""() => {
      const timeline = document.querySelector('#widget').timeline;
      return [1, 0.3, 0.01].map((share) => {
        const times = [];
        for (let k = 0; k < 25; k++) {
          timeline.fit();
          timeline.zoom(share);
          timeline.pan(k / 100);
          const begin = performance.now();
          timeline.draw();
          times.push(performance.now() - begin);
        }
        return Math.min(...times);
      });
    }""")


@pytest.mark.parametrize(("ranks", "steps", "buckets"), [(4, 3, 4), (64, 8, 8), (64, 250, 15)])
def test_a_redraw_fits_into_a_frame(page, ranks, steps, buckets):
    widget = on_screen(page, timeline(data_parallel(ranks, steps, buckets)))
    assert max(redraw_ms(page)) < 16
    assert widget.locator("*").count() < 60
    drawn = page.evaluate("""() => {
      const canvas = document.querySelector('canvas');
      const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
      return new Set(new Uint32Array(data.buffer)).size;
    }""")
    assert drawn > 5


# --- the matrix


def test_the_matrix_tells_each_cell_by_pointer_and_keyboard(page):
    widget = on_screen(page, traffic(ring(4)))
    details = widget.locator(".details")
    press(page, "Tab")
    assert details.inner_text() == "rank 0 → rank 0: no message"
    press(page, "ArrowRight")
    assert details.inner_text() == "rank 0 → rank 1: 6,000 bytes in 6 messages"
    press(page, "ArrowUp", "ArrowDown", "ArrowRight")
    assert details.inner_text().startswith("rank 1 → rank 2: 6,000")
    data = traffic(ring(4)).data
    box = widget.locator("svg").bounding_box()
    scale = box["width"] / 800
    page.mouse.move(
        box["x"] + scale * (data["x"] + 0.5 * data["size"]),
        box["y"] + scale * (data["y"] + 3.5 * data["size"]),
    )
    assert details.inner_text() == "rank 3 → rank 0: 6,000 bytes in 6 messages"


# --- collectives


@pytest.mark.parametrize("operation", ALGORITHMS)
def test_the_page_holds_what_python_says_after_every_step(page, operation):
    on_screen(page, animate(operation))
    for algorithm in ALGORITHMS[operation]:
        for n in range(2, 9):
            slots = num_chunks(operation, algorithm, n)
            want = [
                [
                    sorted(
                        [slot, label(ranks, part_of(operation, algorithm, chunk, n), n)]
                        for chunk, ranks in held.items()
                        if (slot := slot_of(operation, chunk, rank, n, k > 0)) is not None
                    )
                    for rank, held in enumerate(holdings)
                ]
                for k, holdings in enumerate(states(operation, algorithm, n))
            ]
            got = page.evaluate(
                """([operation, algorithm, n, slots]) => {
                  const {states, label, slotOf, partOf} = widget.module;
                  return states(widget.state.data[algorithm][n]).map((held, k) => held.map((chunks, rank) =>
                    [...chunks].map(([chunk, ranks]) => [slotOf(operation, chunk, rank, n, k > 0), label(ranks, partOf(operation, slots, chunk, n), n)])
                      .filter(([slot]) => slot !== null).sort((a, b) => a[0] - b[0])));
                }""",
                [operation, algorithm, n, slots],
            )
            assert got == want, (algorithm, n)


def test_the_animation_steps_by_keyboard_and_slider_and_says_what_moved(page):
    page.emulate_media(reduced_motion="reduce")
    widget = on_screen(page, animate("all_reduce", "ring", 4))
    details = widget.locator(".details")
    assert details.inner_text().startswith("all_reduce · ring · 4 ranks: 6 steps, 24 messages. Start")
    widget.locator(".picture").focus()
    press(page, "ArrowRight")
    assert details.inner_text() == "Step 1 of 6: 0→1 a3, 1→2 b0, 2→3 c1, 3→0 d2 · receivers add"
    assert "a3+b3" in widget.locator("svg").text_content()
    press(page, "End")
    assert details.inner_text().endswith("done")
    assert widget.locator("svg .done").count() == 16
    press(page, "ArrowLeft", "ArrowLeft")
    assert widget.locator(".position").inner_text() == "step 4 of 6"
    widget.get_by_label("step", exact=True).focus()
    press(page, "ArrowLeft")
    assert widget.locator(".position").inner_text() == "step 3 of 6"
    widget.get_by_label("algorithm").select_option("doubling")
    widget.get_by_label("world size").select_option("6")
    assert widget.locator("h4").inner_text() == "all_reduce · doubling · 6 ranks: 4 steps, 12 messages"
    assert widget.locator(".position").inner_text() == "start, 4 to come"


def test_the_animation_plays_and_pauses(page):
    widget = on_screen(page, animate("broadcast", "tree", 8))
    widget.locator(".picture").focus()
    press(page, " ")
    widget.locator(".chip").first.wait_for()
    assert widget.get_by_label("play or pause").inner_text().endswith("pause")
    page.wait_for_function("document.querySelector('.position').textContent === 'step 2 of 3'")
    press(page, " ")
    assert widget.get_by_label("play or pause").inner_text().endswith("play")
    page.wait_for_function("!document.querySelector('.chip')")
    assert widget.locator("svg .chunk text").count() == 4
    page.wait_for_timeout(1700)
    assert widget.locator(".position").inner_text() == "step 2 of 3"


def test_who_asks_for_less_motion_sees_none(page):
    page.emulate_media(reduced_motion="reduce")
    widget = on_screen(page, animate("all_gather", None, 4))
    widget.locator(".picture").focus()
    press(page, "ArrowRight")
    assert widget.locator(".chip").count() == 0 and widget.locator("svg .chunk text").count() == 8


# --- all of them

EVERY = {
    "timeline": lambda: timeline(data_parallel(4)),
    "traffic": lambda: traffic(ring(4)),
    "animate": lambda: animate("all_reduce"),
}


@pytest.mark.parametrize("name", EVERY)
def test_everything_that_takes_focus_keeps_its_keys_from_jupyterlab(page, name):
    assert all_guarded(on_screen(page, EVERY[name]()))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("width", [560, 760])
def test_it_fits_a_narrow_notebook(page, name, width):
    page.set_viewport_size({"width": width, "height": 800})
    on_screen(page, EVERY[name]())
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_both_themes(page, name, scheme):
    page.emulate_media(color_scheme=scheme)
    widget = on_screen(page, EVERY[name]())
    card = {"light": "rgb(255, 255, 255)", "dark": "rgb(13, 17, 23)"}[scheme]
    ink = widget.locator(".details").evaluate("node => getComputedStyle(node).color")
    assert contrast(card, ink) > 7


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_canvas_takes_the_pages_colours_and_follows_a_change(page, scheme):
    other = {"light": "dark", "dark": "light"}[scheme]
    page.emulate_media(color_scheme=other)
    on_screen(page, timeline(data_parallel(2)))
    before = page.evaluate("document.querySelector('#widget').timeline.colors.fg")
    page.emulate_media(color_scheme=scheme)
    page.wait_for_function(
        "before => document.querySelector('#widget').timeline.colors.fg !== before", arg=before
    )
    colors = page.evaluate("document.querySelector('#widget').timeline.colors")
    for name in ("wait", "flight", "fg"):
        assert contrast(colors["card"], colors[name]) > 3, name
