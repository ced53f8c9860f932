"""A real JupyterLab for the tests: started as a learner starts it, driven through its page, and stopped whole."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

QUIET = {"@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False}}
ARGUMENTS = (
    "--no-browser",
    "--expose-app-in-browser",
    "--IdentityProvider.token=",
    "--LabApp.extension_manager=readonly",
    "--ServerApp.port_retries=0",
    *(("--allow-root",) if hasattr(os, "geteuid") and os.geteuid() == 0 else ()),
)


class Lab:
    """`course lab` as a process of its own over the course in `course`, with settings of its own in `home`.

    Nothing of the user's own Jupyter is read, no host is contacted, and no token is asked for.
    """

    def __init__(self, course: Path, home: Path):
        self.course, self.home = course, home
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        for name, settings in QUIET.items():
            path = home / "config" / "lab" / "user-settings" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(settings), "utf-8")
        self.log = home / "jupyter.log"
        environment = os.environ | {
            "JUPYTER_CONFIG_DIR": str(home / "config"),
            "JUPYTER_DATA_DIR": str(home / "data"),
            "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
            "IPYTHONDIR": str(home / "ipython"),
            "JUPYTER_PREFER_ENV_PATH": "1",
        }
        course_command = Path(sys.executable).with_name("course")
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [course_command, "lab", f"--port={self.port}", *ARGUMENTS],
                cwd=course,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_ready(self, within_s: float = 60) -> None:
        """Returns when the server answers; shows its log when it does not."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/api/status", timeout=5):
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError(f"JupyterLab did not answer within {within_s:.0f} s:\n{self.log.read_text()[-4000:]}")

    def stop(self, within_s: float = 20) -> None:
        """Ends the server, its kernels and their ranks; raises if any process had to be killed."""
        self.process.terminate()
        deadline = time.monotonic() + within_s
        while (left := self._alive()) and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        assert not left, f"still running {within_s:.0f} s after JupyterLab was asked to stop: {left}"

    def _alive(self) -> list[int]:
        """The server while it runs and, where /proc tells, every process that was started with this home's settings."""
        found = [] if self.process.poll() is not None else [self.process.pid]
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if str(self.home).encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
            except OSError:  # another user's, or it ended meanwhile
                pass
        return found
