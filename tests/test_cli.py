"""The `course` command: what it starts, how fast it answers, how it refuses."""

import os
import subprocess
import sys

import pytest

from course_lib import cli


def test_help_loads_nothing_heavy():
    code = (
        "import sys; sys.argv = ['course']\n"
        "from course_lib import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'nbformat', 'nbclient', 'jupytext', 'IPython', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    for command in ("lab", "check", "grade", "build"):
        assert f"\n    {command} " in done.stdout


@pytest.mark.skipif(os.name != "posix", reason="elsewhere JupyterLab is a child process")
def test_lab_opens_the_first_lesson_in_the_courses_folder(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(os, "execv", lambda path, line: started.append(line))
    for folder in ("notebooks", "solutions"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    monkeypatch.setattr("course_lib.lab.write_settings", lambda: None)
    cli.main(["lab"])
    (tmp_path / "notebooks/00_start_here.ipynb").write_text('{"cells": []}', encoding="utf-8")
    cli.main(["lab", "--no-browser", "--port", "8899"])
    as_root = ["--ServerApp.allow_root=True"] if os.geteuid() == 0 else []
    quiet = "--log-level=WARN"
    assert started[0][3:] == [quiet, f"--ServerApp.root_dir={tmp_path}", "--LabApp.default_url=/lab", *as_root]
    assert started[1] == [
        sys.executable,
        "-m",
        "jupyterlab",
        quiet,
        f"--ServerApp.root_dir={tmp_path}",
        "--LabApp.default_url=/lab/tree/work/notebooks/00_start_here.ipynb",
        *as_root,
        "--no-browser",
        "--port",
        "8899",
    ]


@pytest.mark.parametrize(
    "line", [[], ["nothing"], ["check"], ["check", "a.ipynb", "--no-such"], ["build", "--everything"]]
)
def test_a_wrong_command_line_ends_with_status_2(line, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(line)
    assert caught.value.code == 2
    assert "usage: course" in capsys.readouterr().err
