"""Starts an nbval run, follows it, and leaves no process behind whatever the graded code did."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

SCRIPT = Path(__file__).with_name("nbval_session.py")
START_S, GRACE_S = 120, 20  # for the kernel to start; for nbval to interrupt a cell and report it


@dataclass(frozen=True)
class Outcome:
    """How one cell went: kind is "" when it passed, else error, differs, timeout, dead or setup."""

    kind: str
    error: str = ""
    name: str = ""
    reason: str = ""


@dataclass
class Run:
    """The cells that ran, in order, what confined them, and what the checks noted."""

    cells: dict[str, Outcome] = field(default_factory=dict)
    limits: list[str] = field(default_factory=list)
    notes: list[dict] = field(default_factory=list)
    log: str = ""


def run_nbval(notebook: nbformat.NotebookNode, judged: set[str], *, env: dict[str, str], timeout_s: float) -> Run:
    """Runs `notebook` under nbval until a cell of `judged` fails, a cell takes `timeout_s` or the kernel dies.

    `env` is added to the environment of the kernel. A run that gets stuck itself is ended, and its cell is a timeout.
    """
    code_cells = [cell.id for cell in notebook.cells if cell.cell_type == "code"]
    with tempfile.TemporaryDirectory(prefix="course-grading-", ignore_cleanup_errors=True) as temporary:
        private, folder = Path(temporary, "job"), Path(temporary, "kernel")
        private.mkdir()
        folder.mkdir()
        job = {
            "notebook": str(folder / "graded.ipynb"),
            "config": str(private / "pytest.ini"),
            "timeout_s": timeout_s,
            "judged": sorted(judged),
        }
        Path(job["config"]).write_text("[pytest]\n", encoding="utf-8")
        nbformat.write(notebook, job["notebook"])
        (private / "job.json").write_text(json.dumps(job), encoding="utf-8")
        notes, log = folder / "notes.jsonl", private / "log.txt"
        with log.open("wb") as log_file:
            process = subprocess.Popen(
                [sys.executable, str(SCRIPT), str(private / "job.json")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log_file,
                cwd=folder,
                env=_environment({**env, "COURSE_NOTES": str(notes)}),
                start_new_session=True,
            )
            try:
                run = _follow(process, code_cells, timeout_s)
            finally:
                end_tree(process)
        run.notes = _read_notes(notes)
        run.log = log.read_text(encoding="utf-8", errors="replace")[-4000:]
        return run


def end_tree(process: subprocess.Popen) -> None:
    """Ends everything that `process` started, then the process itself."""
    if os.name == "nt":
        subprocess.run(["taskkill", "/T", "/F", "/PID", str(process.pid)], capture_output=True, check=False)
    else:
        # Several rounds, because a process may start another one between the look and the signal.
        end = time.monotonic() + 5
        while process.poll() is None and (below := _descendants(process.pid)) and time.monotonic() < end:
            for pid in below:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            pipe.close()


def _follow(process: subprocess.Popen, code_cells: list[str], timeout_s: float) -> Run:
    messages: queue.Queue = queue.Queue()

    def read() -> None:
        for line in process.stdout:
            messages.put(json.loads(line))
        messages.put({"event": "gone"})

    threading.Thread(target=read, daemon=True).start()
    run = Run()
    while True:
        try:
            message = messages.get(timeout=max(timeout_s, START_S) + GRACE_S if not run.cells else timeout_s + GRACE_S)
        except queue.Empty:
            message = {"event": "stuck"}
        event = message["event"]
        if event == "limits":
            run.limits = message["held"]
        elif event == "end":
            run.cells[message["cell"]] = Outcome(message["kind"], message["error"], message["name"], message["reason"])
        elif event == "done":
            return run
        elif event in ("stuck", "gone"):
            reached = len(run.cells)
            if reached < len(code_cells):
                run.cells[code_cells[reached]] = Outcome("timeout" if event == "stuck" else "dead")
            return run


def _environment(extra: dict[str, str]) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST") and k != "PYTHONSTARTUP"}
    return {**env, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONUTF8": "1", **extra}


def _descendants(pid: int) -> list[int]:
    """Every living process below `pid`."""
    below, found = {}, []
    for child, parent in _processes():
        below.setdefault(parent, []).append(child)
    waiting = [pid]
    while waiting:
        children = below.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def _processes() -> list[tuple[int, int]]:
    """(process, its parent) for every living process."""
    pairs = []
    if not Path("/proc/self/stat").exists():
        listed = subprocess.run(["ps", "-axo", "pid=,ppid=,stat="], capture_output=True, text=True, check=False)
        rows = [line.split() for line in listed.stdout.splitlines()]
        return [(int(pid), int(parent)) for pid, parent, state in rows if not state.startswith("Z")]
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                pairs.append((int(stat.parent.name), int(parent)))
    return pairs


def _read_notes(path: Path) -> list[dict]:
    notes = []
    with contextlib.suppress(OSError), path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines.readlines(1_000_000):
            with contextlib.suppress(ValueError):
                note = json.loads(line)
                if isinstance(note, dict):
                    notes.append(note)
    return notes
