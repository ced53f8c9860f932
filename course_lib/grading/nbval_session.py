"""One nbval run of one notebook, in a process of its own; `session.py` starts this file as a script.

It speaks JSON lines on its standard output, which the kernel does not inherit. What it adds to nbval: limits on what the
kernel may use, a dead kernel is seen within a second, only the checks' values are compared, the references leave the disk
before the kernel starts, and the run ends at the first cell that decides a task and fails.
"""

import ctypes
import hashlib
import json
import math
import os
import sys
import time
from functools import partial
from pathlib import Path
from queue import Empty

from values import LINE, differ, same, short, within

sys.path.pop(0)  # this file's folder: it was needed for `values` and must not shadow anything else

import nbval.plugin
import pytest

KERNEL_STARTS = 3
SHOWN_LINES, SHOWN_CHARACTERS = 20, 300  # of a difference: pytest's explanation of long texts takes minutes
CPU_S, MEMORY_GIB, FILE_MIB = (900, 16, 512)  # memory: address space, at least; torch and gloo reserve a gigabyte


class DeadKernel(RuntimeError):
    """The kernel's process ended while a cell was running."""


def start_kernel(start) -> None:
    """Start a kernel; again if it died before it said a word, for nothing of the notebook has run by then.

    Jupyter picks free ports and lets go of them until the kernel takes them: in between, another kernel may.
    """
    for _ in range(KERNEL_STARTS - 1):
        try:
            return start()
        except RuntimeError:
            continue
    start()


class WatchedKernel(nbval.plugin.RunningKernel):
    """nbval's kernel, with a look at the process while waiting: alone, nbval waits for the whole cell timeout."""

    def __init__(self, *args, **kwargs):
        # Inherited, this variable would make ipykernel lose what a child process writes to file descriptor 1.
        hidden = os.environ.pop("PYTEST_CURRENT_TEST", None)
        try:
            start_kernel(partial(super().__init__, *args, **kwargs))
        finally:
            if hidden is not None:
                os.environ["PYTEST_CURRENT_TEST"] = hidden

    def get_message(self, stream, timeout=None):
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            slice_s = 0.5 if end is None else max(0.0, min(0.5, end - time.monotonic()))
            try:
                return super().get_message(stream, timeout=slice_s)
            except Empty:
                if not self.is_alive():
                    raise DeadKernel("the kernel died") from None
                if end is not None and time.monotonic() >= end:
                    raise


class Session:
    """A pytest plugin that reports every cell to `send` and stops the run where a task is decided."""

    def __init__(self, job: dict, send):
        self.judged, self.send, self.compared = set(job["judged"]), send, {}
        self.notebook = Path(job["notebook"])
        plain_compare = nbval.plugin.IPyNbCell.compare_outputs

        def compare(cell, test, ref, skip_compare=None):
            got, want = value_lines(test), value_lines(ref)
            self.compared[cell.cell.id] = explain(got, want)
            got = settle(got, want)
            return plain_compare(cell, as_output(got, want), as_output(want, got), skip_compare)

        nbval.plugin.IPyNbCell.compare_outputs = compare
        nbval.plugin.RunningKernel = WatchedKernel

    def pytest_collection_finish(self):
        self.notebook.unlink()

    def pytest_runtest_logstart(self, nodeid):
        self.send(event="start")

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item, call):
        outcome = yield
        failed = outcome.get_result().failed
        if call.when == "teardown" or not (failed or call.when == "call"):
            return
        cell_id, kind, error = item.cell.id, "", ""
        if failed:
            kind, error = cause(item, call)
        name, reason = self.compared.get(cell_id, ("", "")) if kind == "differs" else ("", "")
        self.send(event="end", cell=cell_id, kind=kind, error=error, name=name, reason=reason)
        if kind in ("dead", "timeout", "setup") or (failed and cell_id in self.judged):
            item.session.shouldstop = "decided"


def cause(item, call) -> tuple[str, str]:
    """(setup, dead, timeout, differs or error; what the kernel said) of a cell that failed."""
    if call.when == "setup":
        return "setup", str(call.excinfo.value)
    if isinstance(call.excinfo.value, DeadKernel) or not item.parent.kernel.is_alive() and not item.parent.timed_out:
        return "dead", ""
    if item.parent.timed_out:
        return "timeout", ""
    raised = [o for o in item.test_outputs or [] if o.output_type == "error"]
    if raised:
        return "error", f"{raised[0].ename}: {raised[0].evalue}"[:2000]
    return "differs", str(call.excinfo.value)[:2000]


def value_lines(outputs) -> list[str]:
    """The lines that a check printed as values, without whatever else stands in its output."""
    text = "".join(o.get("text", "") for o in outputs if o.output_type == "stream" and o.name == "stdout")
    return [line for line in text.splitlines() if LINE.match(line)]


def agree(got: str, want: str) -> bool:
    """Whether a printed line stands for what the reference's line says; a cost may be lower than its bound."""
    g, w = LINE.fullmatch(got), LINE.fullmatch(want)
    if not (g and w) or any(g[part] != w[part] for part in ("task", "name", "relation")):
        return False
    if w["relation"] == "=":
        return same(g["text"], w["text"])
    return within(g["text"], w["text"])


def settle(got: list[str], want: list[str]) -> list[str]:
    """`got` with every line that agrees with the reference replaced by it: what is left differs for nbval too."""
    return [w if agree(g, w) else g for g, w in zip(got, want, strict=False)] + got[len(want) :]


def explain(got: list[str], want: list[str]) -> tuple[str, str]:
    """(name of the first value that is not right, why), for the report only."""
    for g, w in zip(got, want, strict=False):
        if not agree(g, w):
            g, w = LINE.fullmatch(g), LINE.fullmatch(w)
            if g["name"] != w["name"]:
                break
            if w["relation"] == "<=":
                return w["name"], f"{w['name']}: yours {short(g['text'])}, should be at most {short(w['text'])}"
            return w["name"], f"{w['name']}: {differ(g['text'], w['text'])}"
    return "", ""


def as_output(lines: list[str], others: list[str]) -> list:
    """The lines as one output of a cell: the first that are not among `others`, and a digest of all of them."""
    known = set(others)
    shown = [line[:SHOWN_CHARACTERS] for line in lines if line not in known][:SHOWN_LINES]
    digest = hashlib.sha256("\n".join(lines).encode("utf-8", "replace")).hexdigest()
    text = "\n".join([*shown, f"{len(lines)} values, sha256 {digest}"])
    return [nbval.plugin.NotebookNode(output_type="stream", name="stdout", text=text)]


def confine() -> list[str]:
    """Limits this process and all that it starts; returns in words what took hold."""
    try:
        import resource
    except ImportError:  # Windows
        return []
    wanted = [
        (resource.RLIMIT_CPU, CPU_S, f"{CPU_S} s of CPU"),
        (resource.RLIMIT_FSIZE, FILE_MIB << 20, f"{FILE_MIB} MiB a file"),
    ]
    # CUDA reserves far more addresses than it uses memory, and only Linux holds a process to this limit.
    if sys.platform == "linux" and not Path("/proc/driver/nvidia").exists():
        # Never below what the machine has: launch() sets its ranks' limits below that, and none may be raised.
        machine_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        memory_gib = max(MEMORY_GIB, math.ceil(machine_gib))
        wanted.append((resource.RLIMIT_AS, memory_gib << 30, f"{memory_gib} GiB of memory"))
    held = []
    for limit, value, words in wanted:
        try:
            hard = resource.getrlimit(limit)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(limit, (value, value))
            held.append(words)
        except (OSError, ValueError):
            continue
    return held


def adopt_orphans() -> None:
    """Processes that leave their parent stay below this one, so that they can be found and ended (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


def main() -> None:
    """Entry point of the confined process: run nbval on the merged notebook and report each cell to the grader."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")  # not inheritable, unlike descriptor 1
    os.dup2(2, 1)

    def send(**message) -> None:
        print(json.dumps(message), file=channel, flush=True)

    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    adopt_orphans()
    send(event="limits", held=confine())
    folder = Path(job["notebook"]).parent
    line = [job["notebook"], "--nbval-lax", "--nbval-current-env", "-p", "nbval.plugin", "-p", "no:cacheprovider"]
    line += ["-c", job["config"], f"--rootdir={folder}", f"--nbval-cell-timeout={job['timeout_s']}", "-q", "--color=no"]
    status = pytest.main(line, plugins=[Session(job, send)])
    send(event="done", status=int(status))
    sys.stdin.read()  # the caller ends this process, and first all that it left behind


if __name__ == "__main__":
    main()
