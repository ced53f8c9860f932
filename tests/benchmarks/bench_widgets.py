"""From a choice to the painted picture, in the real JupyterLab: p50 and p95 of each picture in ms; frames, and asking the kernel."""

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
CHANGES = {  # what is chosen in turn, of pictures in tests/every_picture.py
    "sharding": [
        {"world_size": 4},
        {"world_size": 3},
        {"placement": "replicate"},
        {"placement": "shard dim 0"},
    ],
    "sharding of a model": [{"world_size": 8}, {"world_size": 2}],
    "product": [{"world_size": 4}, {"world_size": 2}],
    "transformer block": [{"t": 2}, {"t": 8}, {"t": 4}],
    "ring": [{"world_size": 8}, {"world_size": 4}],
    "prediction": [{"answer": 0}, {"answer": 1}],
    "timeline": [{"view": [0.0, 0.1]}, {"view": [0.0, 0.3]}],
    "pipeline": [{"m": 12}, {"m": 8}, {"schedule": "ZB-V"}, {"schedule": "1F1B"}],
    "pipeline of 16": [{"m": 63}, {"m": 64}],
    "mesh, a cube": [{"rank": 3}, {"rank": 6}],
    "mesh": [{"rank": 7}, {"rank": 3000}],
    "mesh, laid out": [{"ranks_per_node": 16}, {"ranks_per_node": 8}],
    "memory": [{"tp": 2}, {"tp": 4}, {"zero": 1}, {"zero": 0}],
    "roofline": [{"tokens": 1024}, {"tokens": 2048}],
    "planner": [{"mark": 5}, {"mark": 9}, {"zero": 1}, {"zero": "any"}],
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
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return performance.now() - begin;
}"""


def main():
    """Print the table."""
    home = Path(tempfile.mkdtemp(prefix="bench-widgets-"))
    for folder in ("notebooks", "solutions", "exercises"):
        (home / "course" / folder).mkdir(parents=True)
    root = Path(__file__).resolve().parents[2]
    setup = f"import sys; sys.path.insert(0, {str(root)!r})\nfrom tests.every_picture import PICTURES"
    cells = [setup, *(f"PICTURES[{name.split(', laid')[0]!r}]()" for name in CHANGES)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    code = [nbformat.v4.new_code_cell(source) for source in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=code, metadata=kernel), home / "course/notebooks/all.ipynb")
    lab = Lab(home / "course", home)
    try:
        lab.wait_until_ready()
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
            page = new_page(browser)
            page.set_viewport_size({"width": 1440, "height": 900})
            open_notebook(page, lab, "notebooks/all.ipynb")
            run_all(page, within_s=120)
            print(f"{'picture':22s}{'how':8s}{'p50 ms':>8s}{'p95 ms':>8s}   marks")
            for index, (name, changes) in enumerate(CHANGES.items(), 1):
                measure(page, index, name, changes)
            browser.close()
    finally:
        lab.stop()
        shutil.rmtree(home, ignore_errors=True)


def measure(page, index, name, changes):
    """One line: a picture's times."""
    show_cell(page, index)
    page.wait_for_timeout(1500)
    times, turn = [], cycle(changes)
    while len(times) < ROUNDS + 5:
        page.wait_for_timeout(200)  # a reader's choices are not that close to each other
        taken = page.evaluate(MEASURE, [index, next(turn)])
        times += [] if taken is None else [taken]
    cell = page.locator(".jp-Notebook .jp-Cell").nth(index)
    marks = cell.locator(".stage svg > g > *").count()
    way = cell.locator(".course-picture").evaluate(
        "node => (node.parentElement.picture.block ? 'frames' : 'kernel')"
    )
    ordered = sorted(times[5:])
    print(
        f"{name:22s}{way:8s}{statistics.median(ordered):8.1f}{ordered[int(0.95 * len(ordered))]:8.1f}{marks:8d}",
        flush=True,
    )


if __name__ == "__main__":
    main()
