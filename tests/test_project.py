"""The project as a whole: who imports whom, lengths and docstrings, pins, and that README and CONTRIBUTING tell the truth."""

import ast
import importlib.metadata
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from itertools import product
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from course_lib.cli import main
from tests.count import BUDGETS as LINES
from tests.count import counted

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

MAY_IMPORT = {  # floor by floor: a part of the library, and the parts below it that it may import
    "numbers": "",
    "layout": "numbers",
    "cost": "numbers layout",
    "trace": "numbers cost",
    "schedules": "trace",
    "viz": "numbers layout cost trace schedules",
    "models": "",
    "data": "",
    "memory": "cost",
    "collectives": "layout",
    "ranks": "numbers cost trace",
    "runtime": "cost trace ranks",
    "parallel": "layout schedules models collectives ranks",
    "checkpoint": "layout parallel",
    "faults": "layout trace collectives ranks parallel",
    "train": "cost layout schedules data models ranks parallel checkpoint runtime",
    "authoring": "",
    "grading": "authoring",
    "lab": "",
    "cli": "cost train authoring grading lab",
}
NO_PROCESS_GROUP = {"numbers", "layout", "cost", "trace", "schedules", "viz", "models"}


def imports(source, package, everywhere=True):
    """All that Python code in `package` imports, as full dotted names; attribute access `torch.distributed` counts."""
    found, tree = set(), ast.parse(source)
    for node in ast.walk(tree) if everywhere else tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            found.add(f"{node.value.id}.{node.attr}")
    return found


def forbidden(part, source, package="course_lib"):
    """The imports that a part of the library may not have. `from course_lib import launch` is one of runtime's."""
    homes, found = (
        {"launch": "runtime", "span": "ranks", "Link": "cost", "RankError": "ranks"},
        imports(source, package),
    )
    parts = {name: name.split(".")[1] for name in found if name.startswith("course_lib.")}
    allowed = {part, *MAY_IMPORT[part].split()}
    wrong = {name for name, used in parts.items() if homes.get(used, used) not in allowed}
    if part in NO_PROCESS_GROUP:
        wrong |= {name for name in found if name.startswith("torch.distributed")}
    return sorted(wrong)


def test_imports_go_down_floor_by_floor():
    below = set()
    for part, allowed in MAY_IMPORT.items():
        assert set(allowed.split()) <= below, f"{part} may import what is not below it"
        below.add(part)
    wrong = {}
    for path in LIBRARY:
        relative = path.relative_to(ROOT / "course_lib")
        if (
            relative.name != "__init__.py" or len(relative.parts) > 1
        ):  # course_lib/__init__.py only says where things are
            package = ".".join(["course_lib", *relative.parent.parts])
            wrong[str(relative)] = forbidden(relative.parts[0].removesuffix(".py"), path.read_text("utf-8"), package)
    assert not {path: found for path, found in wrong.items() if found}


def test_modules_do_not_import_each_other_in_a_circle():
    def name(path):
        return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")

    modules = {name(path): path for path in LIBRARY}
    graph = {
        m: imports(path.read_text("utf-8"), m, everywhere=False) & modules.keys() - {m} for m, path in modules.items()
    }
    assert len(list(TopologicalSorter(graph).static_order())) == len(modules)  # CycleError names the circle


def test_an_import_in_the_wrong_direction_is_found():
    for part, source, found in (
        ("viz", "import torch.distributed as dist", "torch.distributed"),
        ("viz", "from torch import distributed", "torch.distributed"),
        ("viz", "from torch.distributed import all_reduce", "torch.distributed"),
        ("viz", "import torch\ndef f(): return torch.distributed.get_rank()", "torch.distributed"),
        ("layout", "from course_lib import launch", "course_lib.launch"),
        ("trace", "def f():\n    from course_lib.viz.show import show", "course_lib.viz"),
        ("schedules", "from course_lib.viz import pipeline", "course_lib.viz"),
        ("runtime", "from course_lib.lab import copy_pages", "course_lib.lab"),
        ("trace", "from course_lib.ranks.ledger_reader import Record", "course_lib.ranks"),
        ("schedules", "from .parallel import data", "course_lib.parallel"),
        ("models", "from course_lib.parallel.data import DataParallel", "course_lib.parallel"),
        ("runtime", "def f():\n    from course_lib.grading import check", "course_lib.grading"),
        ("parallel", "from ..authoring import markers", "course_lib.authoring"),
        ("ranks", "import course_lib.viz.svg", "course_lib.viz"),
    ):
        package = "course_lib.parallel" if ".." in source else "course_lib"
        assert found in {name[: len(found)] for name in forbidden(part, source, package)}, source
    assert not forbidden("parallel", "import torch.distributed as dist\nfrom course_lib.ranks import spans")
    assert not forbidden("cli", "from course_lib.grading.grade import Grader")


# --- how code is written -----------------------------------------------------------------------------------------------


def undocumented(tree):
    """The public classes and functions of a module without a docstring. (A method may be clear from its class's.)"""
    kinds = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    found = [node for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")]
    return [node.name for node in found if not ast.get_docstring(node)]


def test_a_file_is_short_and_says_what_it_holds():
    for path in [*LIBRARY, ROOT / "setup_env.py"]:
        source = path.read_text("utf-8")
        tree = ast.parse(source)
        assert len(source.splitlines()) <= 300, path
        assert ast.get_docstring(tree), f"{path} has no docstring"
        assert not undocumented(tree), path
    for path in STATIC:
        source = path.read_text("utf-8")
        assert len(source.splitlines()) <= 300, path
        assert path.suffix == ".css" or source.startswith("// "), path


def test_a_list_of_files_in_a_package_is_true():
    for path in LIBRARY:
        listed = re.findall(r"^ *(\w+\.py) ", ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "", re.MULTILINE)
        if path.name == "__init__.py" and listed:
            assert sorted(listed) == sorted(other.name for other in path.parent.glob("[!_]*.py")), path


def test_no_folder_has_more_lines_than_its_budget():
    over = {name: found for name, found in counted().items() if found > LINES[name]}
    assert not over, f"more lines than tests/budgets.json allows: {over}; what grows must be argued for"


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


def test_every_dependency_has_exactly_one_pin():
    for machine in MACHINES:
        pins = {name: pinned(name, machine) for name in installed_closure(machine)}
        of_a_gpu_build = {name for name in pins if name.startswith(("nvidia-", "cuda-")) or name == "triton"}
        wrong = {name: found for name, found in pins.items() if len(found) != 1 and name not in of_a_gpu_build}
        assert not wrong, (
            f"constraints.txt must give each of these one version on {machine}: torch pins those of a GPU build"
        )
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


def test_every_command_exists():
    code = "\n".join(re.findall(r"```sh.*?```|`[^`\n]+`", "\n".join(map(text, PAGES)), re.DOTALL))
    targets = set(re.findall(r"^([a-z]+):.*## ", text("Makefile"), re.MULTILINE))
    used = set(re.findall(r"\bmake ([a-z]+)", code))
    assert used and used <= targets
    for command in set(re.findall(r"(?<![-\w])course ([a-z]+)\b", code)):
        with pytest.raises(SystemExit) as end:
            main([command, "--help"])
        assert end.value.code == 0, f"there is no `course {command}`"
    for path in re.findall(r"(?:^|[\s`])((?:tests|\.ci|course_lib)/[\w./]+)", code):
        assert (ROOT / path).exists(), path


def test_every_relative_link_leads_somewhere():
    links = [(page, link) for page in PAGES for link in re.findall(r"\]\(([^)\s]+)\)", text(page))]
    for page, target in links:
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
