"""Set-up: which torch is chosen where, and what `make` says and does before there is a virtual environment."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from setup_env import CPU_INDEX, choose_torch, own_sources, torch_pin

ROOT = Path(__file__).resolve().parents[1]
needs_make = pytest.mark.skipif(not shutil.which("make"), reason="needs make")


@pytest.mark.parametrize(
    ("pip_config", "found"),
    [
        ("", []),
        ("global.timeout='60'\nglobal.cert='/etc/ssl/ca.pem'\n:env:.disable-pip-version-check='1'", []),
        ("global.index-url='https://mirror.example/simple'", ["global.index-url"]),
        ("user.extra-index-url='https://a.example https://b.example'", ["user.extra-index-url"]),
        ("site.find-links='wheels'\nglobal.timeout='60'", ["site.find-links"]),
        ("global.find-links='\\nwheels\\nmore'", ["global.find-links"]),
        ("install.no-index='true'", ["install.no-index"]),
        (":env:.index-url='https://mirror.example/simple'", [":env:.index-url"]),
        (":env:.find-links='wheels'\nglobal.no-index='1'", [":env:.find-links", "global.no-index"]),
        ("global.index_url='https://mirror.example/simple'", ["global.index_url"]),
        ("global.no-index='false'\n:env:.no-index='0'", []),
        (":env:.index-url=''", []),
        ("global.trusted-host='index-url=x'", []),
    ],
)
def test_sources_of_its_own_are_seen_in_any_scope(pip_config, found):
    assert own_sources(pip_config) == found


def test_what_pip_itself_prints_is_understood(tmp_path):
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PIP_")}
    environment |= {"PIP_CONFIG_FILE": os.devnull, "PIP_EXTRA_INDEX_URL": "https://a.example/simple"}
    command = [sys.executable, "-m", "pip", "config", "list"]
    listing = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert own_sources(listing) == [":env:.extra-index-url"]


@pytest.mark.parametrize("system", ["Linux", "Darwin", "Windows"])
@pytest.mark.parametrize("nvidia", [False, True])
@pytest.mark.parametrize("sources", [[], ["global.index-url"]])
def test_the_cpu_index_is_contacted_only_by_an_unconfigured_linux_without_a_driver(system, nvidia, sources):
    arguments, why = choose_torch(system, nvidia, sources)
    is_cpu_build = system == "Linux" and not nvidia and not sources
    assert (CPU_INDEX in arguments) == is_cpu_build == bool(arguments)
    assert why and "\n" not in why and all(source in why for source in sources)


def test_the_torch_that_is_installed_first_is_the_pinned_one():
    assert torch_pin("tornado==1\ntorch==2.13.0\ntorchx==9\n") == "torch==2.13.0"
    assert torch_pin((ROOT / "constraints.txt").read_text()) in (ROOT / "constraints.txt").read_text().splitlines()


@pytest.fixture
def fresh(tmp_path):
    """A folder with this Makefile, a set-up script that only tells which Python ran it, and an empty PATH."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    (tmp_path / "setup_env.py").write_text("import os; print('set up by', os.environ['CALLED'])")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("cat", "make", "sh"):
        (programs / name).symlink_to(shutil.which(name))

    def add(name, script):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)

    def make(*arguments):
        environment = {"PATH": str(programs)}
        return subprocess.run(["make", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True)

    make.add = add
    return make


@needs_make
def test_without_a_suitable_python_one_sentence_says_what_to_do(fresh):
    fresh.add("python3.10", "exit 127")  # a shim of a version manager: there, but without its Python
    fresh.add("python3", "exit 1")  # too old, or without venv
    result = fresh("lab")
    assert result.returncode != 0
    assert "needs Python 3.10, 3.11, 3.12 or 3.13" in result.stderr and "PYTHON=/path/to/python" in result.stderr


@needs_make
def test_a_python_that_does_not_work_is_passed_over(fresh):
    fresh.add("python3.11", "exit 127")
    fresh.add("python3.12", f'CALLED=python3.12 exec {sys.executable} "$@"')
    assert "set up by python3.12" in fresh("test").stdout


@needs_make
def test_the_python_that_is_named_is_used(fresh):
    fresh.add("python3.11", f'CALLED=python3.11 exec {sys.executable} "$@"')
    fresh.add("mine", f'CALLED=mine exec {sys.executable} "$@"')
    assert "set up by mine" in fresh("test", "PYTHON=mine").stdout


@needs_make
@pytest.mark.parametrize(("made_in", "is_ready"), [(".", True), ("elsewhere", False)])
def test_an_environment_that_was_moved_is_made_anew(fresh, tmp_path, made_in, is_ready):
    fresh.add("python3.11", f'CALLED=again exec {sys.executable} "$@"')
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    course = tmp_path / ".venv" / "bin" / "course"
    course.write_text('#!/bin/sh\necho "course $*"\n')
    course.chmod(0o755)
    (tmp_path / ".venv" / ".ready").write_text(f"{(tmp_path / made_in).resolve()}\n")
    result = fresh("lab", "ARGS=--no-browser --port=8899")
    assert "course lab --no-browser --port=8899" in result.stdout
    assert ("set up by again" not in result.stdout) == is_ready
