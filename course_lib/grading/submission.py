"""Reading what a learner handed in, and splicing the answers into the teacher's solution."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import nbformat

MAX_BYTES = 10 << 20
NAME = re.compile(r"\d\d_[a-z0-9_]+")
ANSWER_ID = re.compile(r"answer-\d+-\d+")
# What nbval reads in a comment as an order to skip a cell or not to compare it.
ORDERS = re.compile(r"^(\s*)#+\s*(NBVAL_\w+|PYTEST_VALIDATE_IGNORE_OUTPUT)\s*$", re.MULTILINE)


class GradingError(Exception):
    """A notebook that cannot be graded at all; the message is one sentence for the person who ran the command."""


@dataclass(frozen=True)
class Submission:
    """A learner's notebook: the exercise's name and the source of each answer cell; None where it is no code cell."""

    name: str
    answers: dict[str, str | None]


def load(file: Path) -> Submission:
    """Reads an exercise that a learner filled in; only its answer cells matter. GradingError where it is none."""
    notebook = _read_json(file)
    cells = notebook.get("cells") if isinstance(notebook, dict) else None
    if not isinstance(cells, list) or not all(isinstance(cell, dict) for cell in cells):
        raise GradingError(f"{file} is no notebook: it has no list of cells")
    course = _mapping(_mapping(notebook.get("metadata")).get("course"))
    name = course.get("exercise")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        what = "a solution" if "solution" in course else "a notebook but no exercise of this course"
        raise GradingError(f"{file} is {what}; hand in a file that was made from exercises/")
    ids = Counter(cell.get("id") for cell in cells if isinstance(cell.get("id"), str))
    for cell_id, count in ids.items():
        if count > 1 and ANSWER_ID.fullmatch(cell_id):
            raise GradingError(f"{file} has {count} cells with the id {cell_id}: delete the copies and keep one")
    if cells and not ids:
        raise GradingError(f"{file} has lost its cell ids: put the answers into a fresh copy of the exercise")
    return Submission(name, {c["id"]: _source(c) for c in cells if ANSWER_ID.fullmatch(str(c.get("id")))})


def find_solution(name: str, folders: list[Path]) -> Path:
    """solutions/<name>.ipynb in the first of `folders`, or of the folders above each, that has it."""
    for start in folders:
        for folder in (start.resolve(), *start.resolve().parents):
            path = folder / "solutions" / f"{name}.ipynb"
            if path.is_file():
                return path
    raise GradingError(f"there is no solutions/{name}.ipynb in or above {folders[0].resolve()}")


def splice(
    solution: nbformat.NotebookNode, answers: dict[str, str | None], used: set[str], checks: set[str]
) -> nbformat.NotebookNode:
    """The notebook that nbval runs: `solution` as executed for this grading, with the cells of `used` replaced.

    An answer that is not used, because it failed, leaves its imports before the teacher's code: a later answer may
    count on them. Only the cells of `checks` keep their outputs, which nbval compares, and they lose the expressions
    that say what is expected: nothing in the kernel knows the values.
    """
    merged = nbformat.from_dict(solution)
    merged.cells = [nbformat.from_dict(cell) for cell in solution.cells if cell.cell_type == "code"]
    merged.metadata = nbformat.from_dict({"kernelspec": solution.metadata.kernelspec})
    for cell in merged.cells:
        tags = [tag for tag in cell.metadata.get("tags", []) if tag == "raises-exception"]
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if cell.id in used:
            cell.source = without_orders(answers[cell.id])
        elif answers.get(cell.id):
            cell.source = _imports_of(answers[cell.id]) + cell.source
        if cell.id in checks:
            cell.source = without_expectations(cell.source)
            cell.metadata["tags"] = ["nbval-check-output"]
        else:
            cell.outputs, cell.execution_count = [], None
    return merged


def without_orders(source: str) -> str:
    """The source with nbval's comment markers made harmless; lines keep their numbers."""
    return ORDERS.sub(r"\1# (removed)", source)


def without_expectations(source: str) -> str:
    """A check cell without the third argument of `equal` and `at_most`."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("equal", "at_most")
        ):
            node.args = node.args[:2]
            node.keywords = [k for k in node.keywords if k.arg not in ("want", "bound")]
    return ast.unparse(tree)


def syntax_problem(source: str) -> str:
    """What is wrong with the grammar of an answer cell, or nothing. IPython's own commands are understood."""
    from IPython.core.inputtransformer2 import TransformerManager

    try:
        text = TransformerManager().transform_cell(source)
        compile(text, "answer", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f" in line {error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        return f"{type(error).__name__}{line}: {getattr(error, 'msg', None) or error}"
    return ""


def is_unsolved(source: str, stub: str) -> bool:
    """Whether an answer is still the stub, whatever was done to its comments and blank lines."""
    if source.strip() == stub.strip():
        return True
    try:
        return ast.dump(ast.parse(source)) == ast.dump(ast.parse(stub))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _imports_of(source: str) -> str:
    """The imports of an answer as code that goes before the teacher's."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    imports = [ast.unparse(node) for node in body if isinstance(node, (ast.Import, ast.ImportFrom))]
    return "".join(f"try:\n    {line}\nexcept ImportError:\n    pass\n" for line in imports)


def _read_json(file: Path):
    if not file.is_file():
        raise GradingError(f"there is no file {file}")
    if file.stat().st_size > MAX_BYTES:
        raise GradingError(f"{file} is larger than {MAX_BYTES >> 20} MiB: clear its outputs and save it again")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise GradingError(f"{file} is no notebook: it is not text") from None
    except ValueError as error:
        line = getattr(error, "lineno", None)
        raise GradingError(
            f"{file} is no notebook, or a truncated one: its JSON breaks off{f' in line {line}' if line else ''}"
        ) from None
    except RecursionError:
        raise GradingError(f"{file} is no notebook: it is nested too deeply") from None


def _mapping(value) -> dict:
    return value if isinstance(value, dict) else {}


def _source(cell: dict) -> str | None:
    source = cell.get("source", "")
    if isinstance(source, list) and all(isinstance(line, str) for line in source):
        source = "".join(source)
    return source if cell.get("cell_type") == "code" and isinstance(source, str) else None
