"""The project as a whole: who imports whom, lengths and docstrings, pins, and that README and CONTRIBUTING tell the truth."""

import ast
import importlib.metadata
import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from course_lib.cli import main

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LIBRARY = sorted((ROOT / "course_lib").rglob("*.py"))
STATIC = [path for path in sorted((ROOT / "course_lib/viz/static").iterdir()) if path.suffix in {".js", ".css"}]
PAGES = ("README.md", "CONTRIBUTING.md")


def text(name):
    return (ROOT / name).read_text("utf-8")


def tracked():
    """Every file that git keeps or would keep, as paths relative to the root."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        result = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is not a git checkout")
    return [name for name in result.stdout.decode().split("\0") if name and (ROOT / name).exists()]


# --- imports -----------------------------------------------------------------------------------------------------------


def imports(source, package):
    """All that Python code in `package` imports, as full dotted names; attribute access `torch.distributed` counts."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.add(f"{node.value.id}.{node.attr}")
    return found


def forbidden(part, source, package):
    """The imports that a part of the library (`viz`, `layout`, ...) may not have."""
    data = {"layout", "links", "numbers", "trace", "trace_tables", "trace_export", "schedules", "cost", "simulate"}
    running = {"runtime", "ranks", "collectives", "parallel", "models", "memory", "checkpoint"}
    banned = set() if part in {"grading", "authoring", "cli"} else {"grading", "authoring", "lab"}
    banned |= (
        {"launch", "runtime", "ranks", "parallel", "collectives"}
        if part in data | {"viz", "models", "memory"}
        else set()
    )
    banned |= {"viz"} if part in data | running else set()  # a value does not know its picture
    pure = data | {"viz"}
    names = {f"course_lib.{name}" for name in banned}
    names |= {"torch.distributed"} if part in pure | {"models"} else set()
    found = imports(source, package)
    return sorted(f for f in found if any(f == name or f.startswith(name + ".") for name in names))


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_one_way(path):
    relative = path.relative_to(ROOT / "course_lib")
    part = relative.parts[0].removesuffix(".py")
    package = ".".join(["course_lib", *relative.parent.parts])
    assert not forbidden(part, path.read_text("utf-8"), package)


@pytest.mark.parametrize(
    ("part", "source", "found"),
    [
        ("viz", "import torch.distributed as dist", "torch.distributed"),
        ("viz", "from torch import distributed", "torch.distributed"),
        ("viz", "from torch.distributed import all_reduce", "torch.distributed"),
        ("viz", "import torch\ndef f(): return torch.distributed.get_rank()", "torch.distributed"),
        ("layout", "from course_lib import launch", "course_lib.launch"),
        ("trace", "def f():\n    from course_lib.viz.show import show", "course_lib.viz"),
        ("schedules", "from course_lib.viz import pipeline", "course_lib.viz"),
        ("runtime", "from course_lib.lab import copy_pages", "course_lib.lab"),
        ("trace", "from course_lib.ranks.record import Record", "course_lib.ranks"),
        ("schedules", "from .parallel import data", "course_lib.parallel"),
        ("models", "from course_lib.parallel.data import DataParallel", "course_lib.parallel"),
        ("runtime", "def f():\n    from course_lib.grading import check", "course_lib.grading"),
        ("parallel", "from ..authoring import markers", "course_lib.authoring"),
        ("ranks", "import course_lib.viz.primitives", "course_lib.viz"),
    ],
)
def test_an_import_in_the_wrong_direction_is_found(part, source, found):
    package = "course_lib.parallel" if ".." in source else "course_lib"
    assert found in {name[: len(found)] for name in forbidden(part, source, package)}


def test_an_import_in_the_right_direction_is_not():
    assert not forbidden("parallel", "import torch.distributed as dist\nfrom course_lib import launch", "course_lib")
    assert not forbidden("cli", "from course_lib.grading.grade import Grader", "course_lib")


# --- how code is written -----------------------------------------------------------------------------------------------


def undocumented(tree):
    """The public classes and functions of a module without a docstring. (A method may be clear from its class's.)"""
    kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    found = [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
    return [node.name for node in found if not ast.get_docstring(node)]


@pytest.mark.parametrize("path", [*LIBRARY, ROOT / "setup_env.py"], ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_file_is_short_and_says_what_it_holds(path):
    source = path.read_text("utf-8")
    tree = ast.parse(source)
    assert len(source.splitlines()) <= 300
    assert ast.get_docstring(tree), "the module has no docstring"
    assert not undocumented(tree)


@pytest.mark.parametrize("path", STATIC, ids=lambda path: path.name)
def test_a_script_is_short_and_says_what_it_holds_and_a_style_sheet_is_short(path):
    source = path.read_text("utf-8")
    assert len(source.splitlines()) <= 300
    assert path.suffix == ".css" or source.startswith("// ")


def test_nothing_tells_on_the_machine_it_was_written_on():
    places = [str(ROOT), str(Path.home()), "/opt/" + "pypi", "/wo" + "rk/main", "/wo" + "rk/shared"]
    pattern = re.compile("|".join(rf"(?<![\w.*-]){re.escape(place)}\b" for place in places if place != "/"))
    for name in tracked():
        try:
            found = pattern.search(text(name))
        except UnicodeDecodeError:  # a picture
            continue
        assert not found, f"{name} contains {found[0]}"


# --- dependencies ------------------------------------------------------------------------------------------------------

DIRECT = [Requirement(r) for r in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]]
PINS = [Requirement(line) for line in text("constraints.txt").splitlines() if line and not line.startswith("#")]
MACHINES = [
    {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": a,
        "os_name": b,
        "platform_system": c,
    }
    for python, (a, b, c) in product(
        ("3.10", "3.11", "3.12", "3.13"),
        (("linux", "posix", "Linux"), ("darwin", "posix", "Darwin"), ("win32", "nt", "Windows")),
    )
]


def pinned(name, machine):
    """The versions that constraints.txt allows of a package on a machine."""
    fitting = [pin for pin in PINS if canonicalize_name(pin.name) == canonicalize_name(name)]
    return [str(pin.specifier) for pin in fitting if pin.marker is None or pin.marker.evaluate(machine)]


def installed_closure(machine):
    """The names of all packages that the project needs on a machine, as far as the packages installed here tell."""
    seen, todo = set(), [(r.name, extra) for r in DIRECT for extra in ("", *r.extras)]
    while todo:
        name, extra = todo.pop()
        if (canonicalize_name(name), extra) in seen:
            continue
        seen.add((canonicalize_name(name), extra))
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:  # not for this machine
            continue
        for need in map(Requirement, needs):
            if need.marker is None or need.marker.evaluate(machine | {"extra": extra}):
                todo += [(need.name, extra) for extra in ("", *need.extras)]
    return {name for name, _ in seen}


@pytest.mark.parametrize("machine", MACHINES, ids=lambda m: f"{m['platform_system']}-{m['python_version']}")
def test_every_dependency_has_exactly_one_pin(machine):
    pins = {name: pinned(name, machine) for name in installed_closure(machine)}
    of_a_gpu_build = {name for name in pins if name.startswith(("nvidia-", "cuda-")) or name == "triton"}
    wrong = {name: found for name, found in pins.items() if len(found) != 1 and name not in of_a_gpu_build}
    assert not wrong, "constraints.txt must give each of these one version: torch itself pins those of a GPU build"
    assert all(re.fullmatch(r"==[\w.]+", found[0]) for name, found in pins.items() if name not in of_a_gpu_build)


def test_what_is_installed_is_what_is_pinned():
    for requirement in DIRECT:
        version = importlib.metadata.version(requirement.name).split("+")[0]
        here = {"python_full_version": sys.version.split()[0], "sys_platform": sys.platform}
        assert pinned(requirement.name, here) == [f"=={version}"], requirement.name
        assert version in requirement.specifier


def test_conda_installs_the_same():
    environment = yaml.safe_load(text("environment.yml"))
    python, pip, section = environment["dependencies"]
    assert environment["channels"] == ["conda-forge"] and environment["name"] == PROJECT["name"]
    assert pip == "pip" and python.startswith(f"python {PROJECT['requires-python']},")
    # These lines go to pip as a requirements file in this folder: the project itself, with all its dependencies, pinned.
    assert section == {"pip": ["-c constraints.txt", "-e .[dev]"]}
    assert set(PROJECT["optional-dependencies"]) == {"dev"}


def test_every_dependency_says_why_it_is_there():
    rows = re.findall(r"^\| ([\w-]+) \| (.+) \|$", text("CONTRIBUTING.md").split("## Dependencies")[1], re.MULTILINE)
    reasons = dict(rows[1:] if rows[0][0] == "package" else rows)
    assert set(reasons) == {requirement.name for requirement in DIRECT}
    assert all(len(reason) > 15 for reason in reasons.values())


# --- README and CONTRIBUTING -------------------------------------------------------------------------------------------


def test_the_map_of_folders_is_true():
    block = text("README.md").split("## What is where")[1].split("```")[1]
    listed = [line.split()[0] for line in block.strip().splitlines()]
    top = {f"{name.split('/')[0]}/" if "/" in name else name for name in tracked()}
    assert sorted(listed) == sorted(set(listed)) and set(listed) == top
    for path in re.findall(r"\b(?:notebooks|solutions|tests)/\w+", block):
        assert (ROOT / path).is_dir(), path


@pytest.mark.parametrize("page", PAGES)
def test_every_command_exists(page):
    code = "\n".join(re.findall(r"```sh.*?```|`[^`\n]+`", text(page), re.DOTALL))
    targets = set(re.findall(r"^([a-z]+):.*## ", text("Makefile"), re.MULTILINE))
    used = set(re.findall(r"\bmake ([a-z]+)", code))
    assert used and used <= targets
    for command in set(re.findall(r"(?<![-\w])course ([a-z]+)\b", code)):
        with pytest.raises(SystemExit) as end:
            main([command, "--help"])
        assert end.value.code == 0, f"there is no `course {command}`"
    for path in re.findall(r"(?:^|[\s`])((?:tests|\.ci)/[\w./]+)", code):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", text(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        goal = ROOT / (path or page)
        assert goal.exists(), target
        headings = re.findall(r"^#+ (.+)$", goal.read_text("utf-8"), re.MULTILINE) if anchor else []
        assert not anchor or anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings}, target


def test_the_table_of_chapters_is_true():
    rows = re.findall(r"^\| (\d\d) \| (.+?) \| .+ \| (there|planned) \|$", text("README.md"), re.MULTILINE)
    assert [number for number, _, _ in rows] == [f"{n:02d}" for n in range(len(rows))] and len(rows) == 14
    there = {number for number, title, status in rows if status == "there" and f"(notebooks/{number}_" in title}
    assert there == {number for number, _, status in rows if status == "there"}
    assert there == {path.name[:2] for path in (ROOT / "notebooks" / "src").glob("[0-9][0-9]_*.py")}
