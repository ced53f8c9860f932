"""Running a notebook in a fresh kernel, and taking out of its outputs whatever belongs to one machine or one moment."""

from __future__ import annotations

import os
import re
import sysconfig
import tempfile
import time
from pathlib import Path

import nbformat

from course_lib.authoring.markers import AuthoringError

ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
CELL_FILE = re.compile(r"[^\s\"'(<]*ipykernel_\d+[/\\]\d+\.py")
SCRIPT = re.compile(r"<script[^>]*>[^<]*</script>")
WIDGET = "application/vnd.jupyter.widget-view+json"
ADDRESS = re.compile(r"(?<= at )0x[0-9a-fA-F]{6,}")


def execute(
    notebook: nbformat.NotebookNode, folder: Path, *, name: str, env: dict | None = None, timeout_s: float = 300
) -> dict[str, float]:
    """Runs every cell of `notebook` in place, with `folder` as the working folder; returns the seconds by cell id.

    A cell that raises (and is not tagged raises-exception), runs longer than `timeout_s` or loses its kernel gives
    AuthoringError with `name`, the cell's id and the traceback.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    started, seconds = {}, {}
    client = NotebookClient(
        notebook,
        timeout=timeout_s,
        startup_timeout=120,
        kernel_name="python3",
        record_timing=False,
        store_widget_state=False,  # a kernel's memory: megabytes, and random ids; the page keeps the static picture
        coalesce_streams=True,
        extra_arguments=["--log-level=ERROR"],
        resources={"metadata": {"path": str(folder)}},
        on_cell_execute=lambda cell, cell_index: started.setdefault(cell.id, time.monotonic()),
        on_cell_executed=lambda cell, cell_index, execute_reply: seconds.setdefault(
            cell.id, time.monotonic() - started[cell.id]
        ),
    )
    try:
        client.execute(env={**os.environ, "COURSE_LIB_PROGRESS": "0", **(env or {})})
    except CellExecutionError as error:
        trace = ANSI.sub("", error.traceback).strip()
        raise AuthoringError(f"{name}: cell {_last(started)} raised {error.ename}.\n{trace}") from None
    except CellTimeoutError:
        raise AuthoringError(f"{name}: cell {_last(started)} ran longer than {timeout_s:g} s.") from None
    except DeadKernelError:
        raise AuthoringError(f"{name}: the kernel died while cell {_last(started)} was running.") from None
    return seconds


def clean(notebook: nbformat.NotebookNode, root: Path) -> nbformat.NotebookNode:
    """The notebook without ANSI colours, machine paths, memory addresses, and widgets that have no kernel any more.

    What pictures bring for pages without a kernel, their script and scenes, is kept once a page.
    """
    seen: set[str] = set()

    def once(found: re.Match) -> str:
        first = found[0] not in seen
        seen.add(found[0])
        return found[0] if first else ""

    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            _clean_output(output, root)
            if "text/html" in output.get("data", {}):
                output.data["text/html"] = SCRIPT.sub(once, output.data["text/html"])
        if cell.metadata.get("jupyter", {}).get("outputs_hidden") and cell.get("outputs"):
            # JupyterLab writes the first line of a folded cell's first output beside it: let that be an empty one
            cell.outputs.insert(0, nbformat.v4.new_output("display_data"))
    return notebook


def clean_text(text: str, root: Path) -> str:
    """One output's text as `clean` leaves it: `<root>/course_lib/launch.py` reads `course_lib/launch.py`."""
    text = CELL_FILE.sub("cell", ANSI.sub("", text))
    for path, short in _machine_paths(root):
        text = re.sub(re.escape(path) + r"[/\\]", lambda _, short=short: short, text)
        text = re.sub(re.escape(path) + r"(?![\w.-])", lambda _, short=short: short.rstrip("/") or ".", text)
    return ADDRESS.sub("0x…", text)


def _clean_output(output, root: Path) -> None:
    if "text" in output:
        output.text = clean_text(output.text, root)
    if output.output_type == "error":
        output.evalue = clean_text(output.evalue, root)
        output.traceback = [clean_text(line, root) for line in output.traceback]
    data = output.get("data", {})
    data.pop(WIDGET, None)
    for mime, value in data.items():
        if mime.startswith("text/") and isinstance(value, str):
            parts = re.split(f"({SCRIPT.pattern})", value)  # base64 is left as it is
            data[mime] = "".join(part if i % 2 else clean_text(part, root) for i, part in enumerate(parts))


def _machine_paths(root: Path) -> list[tuple[str, str]]:
    """(path, what is shown in its place), the longest first, so that a folder inside another one is met before it."""
    paths = sysconfig.get_paths()
    short = {
        str(Path.home()): "~/",
        tempfile.gettempdir(): "tmp/",
        paths["stdlib"]: "python/",
        paths["purelib"]: "site-packages/",
        paths["platlib"]: "site-packages/",
        str(root.resolve()): "",
        str(root.absolute()): "",
    }
    short = {path: name for path, name in short.items() if len(path) > 1}
    return sorted(short.items(), key=lambda item: -len(item[0]))


def _last(started: dict) -> str:
    return list(started)[-1] if started else "(none)"
