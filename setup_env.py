"""Set up the course: `python setup_env.py` makes .venv with everything the course and its tests need, at pinned versions.

`make` calls this when .venv is missing or out of date; without make, call it yourself. It stands at the top level so that
a newcomer finds it, and uses the standard library only, because it runs before anything is installed.

torch comes first, because it is the one package with a choice. The usual Linux package carries gigabytes of CUDA, so a
Linux machine without an NVIDIA driver gets the build from PyTorch's own index of CPU builds. A machine whose pip already
has sources of its own is left to them: no other host is contacted.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
READY = VENV / ".ready"
PROGRAMS = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = PROGRAMS / "python"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
SOURCES = {"index-url", "extra-index-url", "find-links", "no-index"}


def has_nvidia_driver() -> bool:
    """Whether this machine shows any sign of an NVIDIA driver."""
    devices = (Path("/proc/driver/nvidia"), Path("/dev/nvidiactl"))
    return shutil.which("nvidia-smi") is not None or any(path.exists() for path in devices)


def own_sources(pip_config: str) -> list[str]:
    """The settings in the output of `pip config list` (files and PIP_ variables alike) that say where packages come from."""
    found = []
    for line in pip_config.splitlines():
        match = re.fullmatch(r"[\w:]+\.([\w-]+)=(.*)", line.strip())
        if not match:
            continue
        name, value = match[1].lower().replace("_", "-"), match[2].strip("'\" ")
        is_off = not value or (name == "no-index" and value.lower() in {"0", "false", "no", "off", "n", "f"})
        if name in SOURCES and not is_off:
            found.append(line.strip().split("=", 1)[0])
    return found


def choose_torch(system: str, nvidia: bool, sources: list[str]) -> tuple[list[str], str]:
    """pip's arguments for the build of torch that suits this machine, and why, in a few words."""
    if sources:
        return [], f"from the sources that pip is configured with ({', '.join(sources)})"
    if system == "Linux" and not nvidia:
        # Only torch itself: that index does not promise the pinned versions of what torch needs.
        return ["--no-deps", "--index-url", CPU_INDEX], "the CPU build, as there is no NVIDIA driver here"
    return [], f"the usual build for {system}" + (" with an NVIDIA driver" if nvidia else "")


def torch_pin(constraints: str) -> str:
    """The line of constraints.txt that pins torch."""
    return re.search(r"^torch==\S+$", constraints, re.MULTILINE)[0]


def make_venv() -> None:
    """An empty .venv, unless one made here with a suitable Python can be kept."""
    made_here = not READY.exists() or READY.read_text("utf-8").strip() == str(ROOT)
    works = "import sys, pip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))"
    try:
        if made_here and subprocess.run([PYTHON, "-c", works], stderr=subprocess.DEVNULL).returncode == 0:
            return
    except OSError:
        pass
    say(f"making .venv with Python {platform.python_version()}")
    venv.create(VENV, with_pip=True, clear=True)


def pip(*arguments: str, brief: bool = False) -> None:
    """Runs pip inside .venv, if `brief` without the lines about what is there already; its failure ends the set-up."""
    command = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE if brief else None, text=True) as process:
        for line in process.stdout or ():
            if not line.startswith(("Requirement already satisfied", "Looking in ")):
                print(line, end="", flush=True)
    if process.returncode:
        sys.exit("set-up: pip failed (see above). Nothing is lost: run the same command again to go on from here.")


def say(text: str) -> None:
    """One line of progress."""
    print(f"set-up: {text}", flush=True)


def main() -> None:
    """Makes .venv whole and leaves the stamp that says so."""
    if not (3, 10) <= sys.version_info[:2] <= (3, 13):
        sys.exit(
            f"set-up: this is Python {platform.python_version()}; the course needs 3.10, 3.11, 3.12 or 3.13. "
            "Call one of those by name, for example: python3.12 setup_env.py (Windows: py -3.12 setup_env.py)"
        )
    make_venv()
    READY.unlink(missing_ok=True)
    listing = subprocess.run([PYTHON, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    arguments, why = choose_torch(platform.system(), has_nvidia_driver(), own_sources(listing))
    pin = torch_pin((ROOT / "constraints.txt").read_text("utf-8"))
    say(f"installing {pin}: {why}")
    pip(*arguments, "--constraint", "constraints.txt", pin)
    say("installing everything else, pinned by constraints.txt")
    pip("--constraint", "constraints.txt", "--editable", ".[dev]", brief=True)
    subprocess.run([PYTHON, "-m", "course_lib.lab"], check=True)  # JupyterLab's settings for this environment
    READY.write_text(f"{ROOT}\n", encoding="utf-8")
    say(f"done; `make lab` opens the course (without make: {PROGRAMS.relative_to(ROOT) / 'course'} lab)")


if __name__ == "__main__":
    main()
