"""The caller's end: something that can start ranks, and that reports when each of them exits.

`ForkServer` is used wherever processes can fork. `Spawner` starts every rank as a new interpreter, seconds instead of
milliseconds; Windows has nothing else. Both speak the same way, so `launch` does not know which one it has.
"""

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing.connection import Pipe
from pathlib import Path

from course_lib.ranks.worker import Spec

CAN_FORK = hasattr(os, "fork") and os.environ.get("COURSE_LIB_START") != "spawn"
_PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])
_starter: "ForkServer | Spawner | None" = None


def starter() -> "ForkServer | Spawner":
    """The one starter of this process, made (or made anew, if it died) when it is asked for."""
    global _starter
    if _starter is None or not _starter.alive():
        _starter = ForkServer() if CAN_FORK else Spawner()
        atexit.register(_starter.close)
    return _starter


def _environment() -> dict[str, str]:
    """Environment for a process that will be, or will fork, ranks: importable package, one thread, no chatter."""
    path = os.pathsep.join(filter(None, [_PACKAGE_PARENT, os.environ.get("PYTHONPATH")]))
    defaults = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    return {
        **defaults,
        **os.environ,
        "PYTHONPATH": path,
        "COURSE_LIB_RANK": "server",  # importing course_lib there must not start a server of its own
        "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES",  # macOS: we fork before any Objective-C work is done
    }


class ForkServer:
    """A connection to one fork server process."""

    describe = "forked"

    def __init__(self):
        self.pid = os.getpid()
        self.folder = tempfile.mkdtemp(prefix="course_lib-")
        self.connection, theirs = Pipe()
        os.set_inheritable(theirs.fileno(), True)
        log = Path(self.folder, "server.log")
        with open(log, "w") as log_file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "course_lib.ranks.server", str(theirs.fileno()), self.folder],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                start_new_session=True,  # an interrupt meant for the caller must not reach the server
                env=_environment(),
            )
        theirs.close()
        self.log = log
        self.ready = False
        self.runs = 0

    def alive(self) -> bool:
        return self.pid == os.getpid() and self.process.poll() is None

    def wait_ready(self) -> None:
        """Return once ranks can start at once; the first call waits for `import torch` in the server."""
        while not self.ready:
            try:
                self.ready = self.connection.recv()[0] == "ready"
            except (EOFError, OSError):
                self.process.wait()
                said = self.log.read_text()[-2000:] if self.log.exists() else ""
                raise RuntimeError(
                    f"the process that starts ranks ended before it was ready; it said:\n{said}"
                ) from None

    def start(self, spec: Spec) -> None:
        """Ask for the ranks of a run; its spec is already in its folder."""
        self.runs += 1
        self.connection.send(("start", self.runs, spec.folder))

    def events(self, timeout_s: float) -> list[tuple[str, object]]:
        """What happened within the next `timeout_s` seconds: ("exit", (rank, status, time)), at last ("over", None)."""
        found = []
        try:
            while self.connection.poll(0 if found else timeout_s):
                kind, value = self.connection.recv()
                run = value if kind == "swept" else value[0]
                if run == self.runs:
                    found.append(("over", None) if kind == "swept" else ("exit", value[1:]))
        except (EOFError, OSError):
            self.process.wait()  # its sockets close a moment before it is gone
            raise RuntimeError(
                "the process that starts ranks was killed; run the cell again to start a new one"
            ) from None
        return found

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def ask_for_stacks(self) -> None:
        self._signal(signal.SIGUSR1)

    def _signal(self, number: int) -> None:
        try:
            self.connection.send(("signal", self.runs, number))
        except OSError:
            pass  # the server is gone, and its ranks with it

    def close(self) -> None:
        """End the server, and with it everything it started."""
        if self.pid == os.getpid():
            self.connection.close()
            try:
                self.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self.process.kill()


class Spawner:
    """Starts every rank as a fresh Python interpreter: no fork server, seconds instead of milliseconds."""

    describe = "spawned, several seconds each: this system cannot fork"

    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="course_lib-")
        self.processes: dict[int, subprocess.Popen] = {}
        self.over = True

    def alive(self) -> bool:
        return True

    def wait_ready(self) -> None:
        pass

    def start(self, spec: Spec) -> None:
        self.spec, self.over = spec, False
        command = [sys.executable, "-m", "course_lib.ranks.worker", spec.folder]
        for rank in range(spec.world_size):
            # The pipe to its standard input closes when we end, however we end; the rank then ends too.
            self.processes[rank] = subprocess.Popen(
                [*command, str(rank)], stdin=subprocess.PIPE, env=_environment(), start_new_session=os.name != "nt"
            )

    def events(self, timeout_s: float) -> list[tuple[str, object]]:
        deadline = time.monotonic() + timeout_s
        while True:
            found = []
            for rank, process in list(self.processes.items()):
                if process.poll() is not None:
                    found.append(("exit", (rank, process.returncode, time.monotonic())))
                    self.processes.pop(rank).stdin.close()
            if not self.processes and not self.over:
                self.over = True
                found.append(("over", None))
            if found or time.monotonic() >= deadline:
                return found
            time.sleep(0.01)

    def kill(self) -> None:
        for process in self.processes.values():
            if os.name == "nt":
                tree = ["taskkill", "/F", "/T", "/PID", str(process.pid)]
                subprocess.run(tree, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
            else:
                os.killpg(process.pid, signal.SIGKILL)

    def ask_for_stacks(self) -> None:
        if hasattr(signal, "SIGUSR1"):  # on Windows each rank writes its stack by itself at the timeout
            for rank, process in self.processes.items():
                if self.spec.file("stack", rank).exists():  # before that, the signal would kill the rank
                    process.send_signal(signal.SIGUSR1)

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)
