"""From a choice to the painted picture, in the real JupyterLab: p50 and p95 of each picture in ms; frames, and asking the kernel.

The first two lines are of a picture of a single mark: what JupyterLab and the browser take on this machine, and the way to the
kernel and back. The rest is to be read beside them: "beyond" is what a picture takes more.
"""

import shutil
import statistics
import tempfile
from itertools import cycle
from pathlib import Path

import nbformat
from playwright.sync_api import sync_playwright

from tests.browser.chromium import find_chromium
from tests.browser.conftest import FLAGS, new_page
from tests.browser.jupyter import Lab
from tests.browser.page import open_notebook, run_all, show_cell

ROUNDS = 30
ONE_MARK = """
from course_lib.viz.controls import Switch
from course_lib.viz.scene import Panel, Scene, rect
from course_lib.viz.widget import picture

def one_mark(on):
    return Scene("one mark", (Panel(100, 30, [rect(4, 4, 20 + 20 * on, 20, "held rank-0")]),))

for way in (True, False):
    PICTURES[f"one mark, {'frames' if way else 'kernel'}"] = lambda way=way: picture(
        one_mark, [Switch("on")], {"on": False}, frames=way)
"""
CHANGES = {  # what is chosen in turn, of pictures in tests/every_picture.py
    "one mark, frames": [{"on": True}, {"on": False}],
    "one mark, kernel": [{"on": True}, {"on": False}],
    "sharding": [{"world_size": 4}, {"world_size": 3}, {"placement": "replicate"}, {"placement": "shard dim 0"}],
    "sharding of a model": [{"world_size": 8}, {"world_size": 2}],
    "product": [{"world_size": 4}, {"world_size": 2}],
    "transformer block": [{"t": 2}, {"t": 8}, {"t": 4}],
    "ring": [{"world_size": 8}, {"world_size": 4}],
    "timeline": [{"view": [0.0, 0.02]}, {"view": [0.0, 0.05]}],
    "pipeline": [{"m": 12}, {"m": 8}, {"schedule": "ZB-V"}, {"schedule": "1F1B"}],
    "pipeline of 16": [{"m": 63}, {"m": 64}],
    "mesh, a cube": [{"rank": 3}, {"rank": 6}],
    "mesh": [{"rank": 7}, {"rank": 3000}],
    "mesh, laid out": [{"ranks_per_node": 16}, {"ranks_per_node": 8}],
    "memory": [{"tp": 2}, {"tp": 4}, {"zero": 1}, {"zero": 0}],
    "roofline": [{"tokens": 1024}, {"tokens": 2048}],
    "planner": [{"mark": 5}, {"mark": 9}, {"zero": 1}, {"zero": "any"}],
    "prediction": [{"answer": 0}, {"answer": 1}],  # the last: until it is answered, what follows is covered by a blur
}
# Chooses, and resolves to the ms until the browser has painted what was chosen.
MEASURE = """async ([index, changes]) => {
  const cell = document.querySelectorAll('.jp-Notebook .jp-Cell')[index];
  const {picture} = cell.querySelector('.course-picture').parentElement;
  const before = JSON.stringify(picture.choices);
  const begin = performance.now();
  const shown = new Promise((done) => {
    const show = picture.show.bind(picture);
    picture.show = (...all) => { show(...all); if (!picture.waits) { delete picture.show; done(); } };
  });
  picture.choose(changes);
  if (JSON.stringify(picture.choices) === before) return null;
  await shown;
  const { port1, port2 } = new MessageChannel(); // its message comes right after the frame, a timer's later
  await new Promise((done) => ((port1.onmessage = done), requestAnimationFrame(() => port2.postMessage(0))));
  return performance.now() - begin;
}"""


def main():
    """Print the table."""
    home = Path(tempfile.mkdtemp(prefix="bench-widgets-"))
    for folder in ("notebooks", "solutions", "exercises"):
        (home / "course" / folder).mkdir(parents=True)
    root = Path(__file__).resolve().parents[2]
    setup = f"import sys; sys.path.insert(0, {str(root)!r})\nfrom tests.every_picture import PICTURES" + ONE_MARK
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    cells = [nbformat.v4.new_code_cell(setup)]
    for name in CHANGES:
        cells.append(nbformat.v4.new_markdown_cell("As in a lesson, text stands between pictures.\n\n" * 40))
        cells.append(nbformat.v4.new_code_cell(f"PICTURES[{name.split(', laid')[0]!r}]()"))
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), home / "course/notebooks/all.ipynb")
    lab = Lab(home / "course", home)
    try:
        lab.wait_until_ready()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
            page = new_page(browser)
            page.set_viewport_size({"width": 1440, "height": 900})
            open_notebook(page, lab, "notebooks/all.ipynb")
            run_all(page, within_s=120)
            print(f"{'picture':22s}{'how':8s}{'p50 ms':>8s}{'p95 ms':>8s}{'beyond':>8s}   marks")
            least: dict[str, float] = {}
            for index, (name, changes) in enumerate(CHANGES.items(), 1):
                measure(page, 2 * index, name, changes, least)
            browser.close()
    finally:
        lab.stop()
        shutil.rmtree(home, ignore_errors=True)


def measure(page, index, name, changes, least):
    """One line: a picture's times. least: the median of a single mark, by the way it is shown."""
    show_cell(page, index)
    page.wait_for_timeout(1500)
    times, turn = [], cycle(changes)
    while len(times) < ROUNDS + 5:
        page.wait_for_timeout(200)  # a reader's choices are not that close to each other
        taken = page.evaluate(MEASURE, [index, next(turn)])
        times += [] if taken is None else [taken]
    cell = page.locator(".jp-Notebook .jp-Cell").nth(index)
    marks = cell.locator(".stage svg > g > *").count()
    way = cell.locator(".course-picture").evaluate("node => (node.parentElement.picture.block ? 'frames' : 'kernel')")
    ordered = sorted(times[5:])
    median, late = statistics.median(ordered), ordered[int(0.95 * len(ordered))]
    beyond = median - least.setdefault(way, median)
    print(f"{name:22s}{way:8s}{median:8.1f}{late:8.1f}{beyond:8.1f}{marks:8d}", flush=True)


if __name__ == "__main__":
    main()
