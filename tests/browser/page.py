"""What a learner does in JupyterLab's page: open a notebook, run all its cells, look at an output."""

import os
import re
import time
from pathlib import Path

RUN_ALL = """async () => {
  const panel = window.jupyterapp.shell.currentWidget;
  await panel.sessionContext.ready;
  window.courseRun = window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => 'done');
}"""

PROGRESS = """async () => {
  const panel = window.jupyterapp.shell.currentWidget;
  const finished = await Promise.race([window.courseRun, new Promise(r => setTimeout(() => r(''), 50))]);
  return {finished: finished === 'done', kernel: panel.sessionContext.session?.kernel?.status};
}"""

CELLS = """() => [...window.jupyterapp.shell.currentWidget.content.model.cells].map(cell => cell.toJSON())"""

SHOW = """index => {
  const notebook = window.jupyterapp.shell.currentWidget.content;
  notebook.activeCellIndex = index;
  return notebook.scrollToItem(index, 'start');
}"""


class NotebookFailed(AssertionError):
    """A cell raised, or did not end in time."""


def open_notebook(page, lab, path: str, within_s: float = 60) -> None:
    """Opens `path` alone, without the tabs of an earlier page; returns when its first cells are on the screen."""
    page.goto(f"{lab.url}/lab/tree/{path}?reset")
    page.wait_for_function(
        "path => window.jupyterapp?.shell?.currentWidget?.context?.path === path", arg=path, timeout=within_s * 1e3
    )
    page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=within_s * 1e3)


def run_all(page, within_s: float) -> list[dict]:
    """Runs every cell from the top and returns the cells, outputs and all; NotebookFailed shows the cell that failed."""
    page.evaluate(RUN_ALL)
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        page.wait_for_timeout(250)
        progress = page.evaluate(PROGRESS)
        if progress["finished"] and progress["kernel"] == "idle":
            break
    else:
        raise NotebookFailed(_unfinished(cells(page), within_s, progress["kernel"]))
    finished = cells(page)
    for index, cell in enumerate(finished):
        if "raises-exception" not in cell["metadata"].get("tags", []):
            for output in cell.get("outputs", []):
                if output["output_type"] == "error":
                    raise NotebookFailed(_describe(index, cell, "raised"))
    return finished


def cells(page) -> list[dict]:
    """The cells of the open notebook as JupyterLab would save them."""
    return page.evaluate(CELLS)


def show_cell(page, index: int) -> None:
    """Scrolls to a cell; JupyterLab draws only those near the screen."""
    page.evaluate(SHOW, index)


def screenshot(page, name: str) -> None:
    """Keeps what the page looks like as NAME.png in the folder of COURSE_SCREENSHOTS, when that is set."""
    if folder := os.environ.get("COURSE_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / (re.sub(r"[^\w-]+", "_", name)[:80] + ".png"))


def text_of(cell: dict) -> str:
    """All that a cell printed, returned and raised, as text without colours."""
    parts = []
    for output in cell.get("outputs", []):
        found = output.get("text") or output.get("data", {}).get("text/plain") or output.get("traceback") or ""
        parts.append(found if isinstance(found, str) else "\n".join(found))
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(parts))


def _describe(index: int, cell: dict, what: str) -> str:
    source = "".join(cell["source"])
    return f"cell {index} {what}:\n{source}\n--- its output ---\n{text_of(cell)[-4000:]}"


def _unfinished(found: list[dict], within_s: float, kernel: str) -> str:
    waiting = [
        (index, cell)
        for index, cell in enumerate(found)
        if cell["cell_type"] == "code" and cell["source"] and cell.get("execution_count") is None
    ]
    head = f"not all cells had run after {within_s:.0f} s (the kernel is {kernel})"
    return f"{head}; {_describe(*waiting[0], 'is the first without an end')}" if waiting else head
