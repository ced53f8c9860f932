"""What `course lab` sees to before JupyterLab starts: its settings, and a copy of every page for the learner to work in.

Learners run, change and save the copies in `work/`, which git does not track, so that `git pull` never meets their work.
A copy is made once and never overwritten; `course update` brings what is new.
"""

import hashlib
import json
import re
import sys
from collections import Counter
from pathlib import Path

FOLDERS = ("notebooks", "exercises", "solutions")
WORK, MADE_FROM = "work", ".made_from.json"
_OUT = re.compile(r"\]\(\.\./(?!notebooks/|exercises/|solutions/)")  # a link out of these folders: one level further up

_SETTINGS = {  # of JupyterLab, for this environment; a user's own settings win
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyter-widgets/jupyterlab-manager:plugin": {"saveState": True},  # widgets come back when a page is reopened
}
_EXPORT = {  # pictures in an exported page bring what they need with them; widgets would ask a server for it
    "NbConvertBase": {
        "display_data_priority": [
            "text/html", "text/markdown", "image/svg+xml", "text/latex", "image/png", "image/jpeg", "text/plain",
        ]
    }
}  # fmt: skip


def write_settings(prefix: Path | None = None) -> None:
    """Settings of JupyterLab and nbconvert for this environment, beside those that are there already."""
    prefix = prefix or Path(sys.prefix)
    for name, ours in (
        ("share/jupyter/lab/settings/overrides.json", _SETTINGS),
        ("etc/jupyter/jupyter_nbconvert_config.json", _EXPORT),
    ):
        path = prefix / name
        there = json.loads(path.read_text("utf-8")) if path.exists() else {}
        wanted = {**there, **ours}
        if wanted != there:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(wanted, indent=1), encoding="utf-8")


def copy_pages(root: Path) -> tuple[int, list[str]]:
    """Copy each page of the course that has no copy yet. Returns how many, and the copies of which a newer page is there."""
    work, made_from = _work(root)
    made, old = 0, []
    for name, page in _pages(root).items():
        copy = work / name
        if not copy.exists():
            _write(copy, page)
            made_from[name] = _sources(page)
            made += 1
        elif made_from.get(name) != _sources(page):
            old.append(name)
    _remember(work, made_from)
    return made, old


def update(root: Path) -> Counter:
    """Bring what is new: a copy in which nobody wrote is renewed; beside one in which somebody did, the new page is put.

    Returns how many pages were copied ("new"), renewed, and put beside.
    """
    done = Counter(new=copy_pages(root)[0])
    work, made_from = _work(root)
    for name, page in _pages(root).items():
        copy, now = work / name, _sources(page)
        if made_from.get(name) == now:
            continue
        if _sources(copy.read_text("utf-8")) == made_from.get(name):
            _write(copy, page)
            done["renewed"] += 1
        else:
            _write(copy.with_suffix(".new.ipynb"), page)
            done["beside"] += 1
        made_from[name] = now
    _remember(work, made_from)
    return done


def _work(root: Path) -> tuple[Path, dict[str, str]]:
    work = root / WORK
    record = work / MADE_FROM
    return work, json.loads(record.read_text("utf-8")) if record.exists() else {}


def _pages(root: Path) -> dict[str, str]:
    """Every page of the course, as its copy is to be, under its name from the root."""
    paths = (path for folder in FOLDERS for path in sorted((root / folder).glob("[0-9][0-9]_*.ipynb")))
    return {path.relative_to(root).as_posix(): _OUT.sub("](../../", path.read_text("utf-8")) for path in paths}


def _sources(page: str) -> str:
    """A hash of what is written in the cells: running them does not change it."""
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(page)["cells"]]
    return hashlib.sha256(json.dumps(cells).encode()).hexdigest()


def _write(path: Path, page: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8", newline="\n")


def _remember(work: Path, made_from: dict[str, str]) -> None:
    work.mkdir(exist_ok=True)
    (work / MADE_FROM).write_text(json.dumps(made_from, indent=1), encoding="utf-8")


if __name__ == "__main__":
    write_settings()
