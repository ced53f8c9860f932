"""`make count`: lines of Python in each folder, beside the budget that a test holds it to. What grows must be argued for."""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUDGETS = json.loads((ROOT / "tests" / "budgets.json").read_text("utf-8"))["lines"]
CORE = [f"course_lib/{name}" for name in ("layout", "models", "collectives", "schedules", "parallel")]


def lines(folder: str, suffixes: tuple[str, ...] = (".py",)) -> int:
    """Lines of the folder's files, those of its folders included."""
    files = [path for path in (ROOT / folder).rglob("*") if path.suffix in suffixes]
    return sum(len(path.read_text("utf-8").splitlines()) for path in files)


def counted() -> dict[str, int]:
    """What `budgets.json` has a budget for, and how many lines it has."""
    special = {"core": sum(map(lines, CORE)), "course_lib/viz/static": lines("course_lib/viz/static", (".js", ".css"))}
    return {name: special[name] if name in special else lines(name) for name in BUDGETS}


if __name__ == "__main__":
    for name, found in counted().items():
        print(f"{name:28s}{found:7,d} of {BUDGETS[name]:7,d}")
