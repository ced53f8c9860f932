"""The fork server: a process that imports torch once, then forks every rank of every launch from itself.

Forking a process that already has torch takes milliseconds where importing it takes seconds. The caller (a notebook's
kernel) cannot do the forking itself: it has threads, and may have used CUDA; neither survives a fork. This process has
one thread, never touches CUDA, and does nothing but fork, wait and kill. It ends, and takes every rank with it, as soon as its
connection to the caller closes, which the operating system sees to even when the caller is killed.
"""

import ctypes
import gc
import os
import pickle
import shutil
import signal
import sys
import time
from multiprocessing.connection import Connection, wait
from pathlib import Path

from course_lib.ranks.worker import Spec, run_rank

PRELOAD = (
    "numpy",
    "cloudpickle",
    "torch",
    "torch.distributed",
    "torch.nn.parallel",
    "course_lib.ranks.dispatcher_hooks",
    "torch._dynamo",  # an optimizer's first step imports it: a second of every rank's time otherwise
)
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


class Server:
    """Forks the ranks of one run at a time and tells the caller when each exits."""

    def __init__(self, connection: Connection, folder: str):
        self.connection = connection
        self.folder = folder  # all runs of this caller; removed when it ends
        self.caller = os.getppid()
        self.run: int | None = None
        self.ranks: dict[int, int] = {}  # pid -> rank
        self.prctl = ctypes.CDLL(None, use_errno=True).prctl if sys.platform == "linux" else lambda *_: None
        self.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans of a rank become our children, so we can find them
        self.wake_read, self.wake_write = os.pipe()
        os.set_blocking(self.wake_write, False)
        os.set_blocking(self.wake_read, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(
            signal.SIGUSR1, signal.SIG_IGN
        )  # a rank asked for its stack before it is set up must not die of it
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)

    def serve(self) -> None:
        """Answer the caller until it is gone."""
        self.connection.send(("ready", None))
        try:
            while os.getppid() == self.caller:
                ready = wait([self.connection, self.wake_read], timeout=0.5)
                if self.wake_read in ready:
                    os.read(self.wake_read, 4096)
                    self.reap()
                if self.connection in ready:
                    command, run, argument = self.connection.recv()
                    if command == "start":
                        self.start(run, argument)
                    elif run == self.run:
                        self.signal_ranks(argument)
        except (EOFError, OSError):
            pass  # the caller is gone
        finally:
            self.sweep()
            shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, run: int, folder: str) -> None:
        """Fork the ranks of a new run, whatever an interrupted one has left behind."""
        self.sweep()
        self.run = run
        spec = pickle.loads(Path(folder, "spec").read_bytes())
        for rank in range(spec.world_size):
            pid = os.fork()
            if pid == 0:
                self.become_rank(rank, spec)
            os.setpgid(pid, pid)
            self.ranks[pid] = rank

    def become_rank(self, rank: int, spec: Spec) -> None:
        """In the child: cut the ties to the server, then be a rank."""
        try:
            os.setpgid(0, 0)  # a group of its own, so that the processes it starts can be killed with it
            self.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self.connection.close()
            os.close(self.wake_read)
            os.close(self.wake_write)
            run_rank(rank, spec)
        finally:
            os._exit(1)

    def reap(self) -> None:
        """Tell the caller about ranks that have exited; when the last one has, sweep up and say so."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid in self.ranks:
                rank = self.ranks.pop(pid)
                _kill_group(pid)  # what it started and left behind
                self.connection.send(("exit", (self.run, rank, os.waitstatus_to_exitcode(status), time.monotonic())))
        if not self.ranks and self.run is not None:
            self.sweep()
            self.connection.send(("swept", self.run))
            self.run = None

    def signal_ranks(self, number: int) -> None:
        """Send a signal to every rank that is left: SIGUSR1 alone asks for its stack, SIGKILL goes to its children too."""
        for pid in self.ranks:
            os.kill(pid, number)  # not reaped yet, so the pid is still its own
            if number == signal.SIGKILL:
                _kill_group(pid)

    def sweep(self) -> None:
        """Kill every process that is left below this one, also those that a rank started and orphaned."""
        self.signal_ranks(signal.SIGKILL)
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            for pid in _children():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    time.sleep(0.002)
            except ChildProcessError:
                break
        self.ranks.clear()


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # empty; macOS says so of a group of zombies
        pass


def _children() -> list[int]:
    """Process ids of our children, where the system lists them (Linux)."""
    try:
        return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]
    except OSError:
        return []


def main() -> None:
    """Entry point: `python -m course_lib.ranks.server FD FOLDER`."""
    connection = Connection(int(sys.argv[1]))
    for name in PRELOAD:
        __import__(name)
    gc.collect()
    gc.freeze()  # keep the collector from touching, and so copying, the pages that all ranks share
    Server(connection, sys.argv[2]).serve()


if __name__ == "__main__":
    main()
