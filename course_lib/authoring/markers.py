"""Solution markers: checking them in a source's text, and turning an answer into the solution or the learner's stub."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

HEADER = re.compile(r"# %%(?P<rest>.*)")
CELL_ID = re.compile(r"""\bid\s*=\s*["'](?P<id>[^"']*)["']""")
MARKER = re.compile(r"(?P<indent>\s*)###\s*(?P<word>BEGIN SOLUTION|END SOLUTION|HINT)\b\s*(?P<rest>.*)")
TITLE = re.compile(r"(?P<number>\d+\.\d+)\s*:\s*(?P<title>\S.*)")
TASK_CELL = re.compile(r"(?P<kind>answer|check)-(?P<number>\d+-\d+)")


class AuthoringError(Exception):
    """A source that cannot be built; the message is one sentence that names the file and, where there is one, the line."""


@dataclass(frozen=True)
class Task:
    """One task of an exercise: its number ("5.1") and the title that reports show."""

    number: str
    title: str

    @property
    def answer_id(self) -> str:
        return "answer-" + self.number.replace(".", "-")

    @property
    def check_id(self) -> str:
        return "check-" + self.number.replace(".", "-")


def find_tasks(text: str, name: str) -> list[Task]:
    """The tasks of a solution's source, in order; AuthoringError for the first marker or task cell that is wrong."""
    titles, checks, first_line = {}, {}, {}
    for cell_id, start, lines in _cells(text):
        blocks = _blocks(lines, start, name)
        task_cell = TASK_CELL.fullmatch(cell_id)
        number = task_cell["number"].replace("-", ".") if task_cell else None
        for line, block_number, title in blocks:
            if not task_cell or task_cell["kind"] != "answer" or block_number != number:
                wanted = "answer-" + block_number.replace(".", "-")
                raise AuthoringError(f'{name}:{line}: task {block_number} belongs in a cell with id="{wanted}"')
            titles.setdefault(number, title)
            first_line.setdefault(number, line)
        if not task_cell:
            continue
        if task_cell["kind"] == "answer" and not blocks:
            raise AuthoringError(f"{name}:{start}: the answer cell {cell_id} has no BEGIN SOLUTION marker")
        if task_cell["kind"] == "check":
            if number not in titles:
                raise AuthoringError(f"{name}:{start}: {cell_id} comes before its answer cell, or has none")
            _validate_check("\n".join(lines), number, f"{name}:{start}: {cell_id}")
            checks[number] = start
    for number in titles:
        if number not in checks:
            wanted = "check-" + number.replace(".", "-")
            raise AuthoringError(f'{name}:{first_line[number]}: task {number} has no cell with id="{wanted}"')
    return [Task(number, title) for number, title in titles.items()]


def without_markers(source: str) -> str:
    """The solution's code: marker and hint lines dropped, all else kept."""
    return "\n".join(line for line in source.splitlines() if not MARKER.match(line))


def to_stub(source: str) -> str:
    """The learner's version: each solution block becomes its hints and a NotImplementedError with the task's title."""
    kept, inside = [], False
    for line in source.splitlines():
        marker = MARKER.match(line)
        if marker and marker["word"] == "BEGIN SOLUTION":
            inside, indent = True, marker["indent"]
            title = TITLE.fullmatch(marker["rest"].strip())
            message = f"Task {title['number']}: {title['title']}"
        elif marker and marker["word"] == "HINT":
            kept.append(f"{indent}# Hint: {marker['rest'].strip()}")
        elif marker:
            inside = False
            kept.append(f"{indent}raise NotImplementedError({_quoted(message)})")
        elif not inside:
            kept.append(line)
    return "\n".join(kept)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _cells(text: str):
    """(id, line of the header, lines) of each cell of a percent source; lines are counted from 1."""
    cell_id, start, lines = "", 0, []
    for number, line in enumerate(text.splitlines(), 1):
        header = HEADER.match(line)
        if header:
            yield cell_id, start, lines
            found = CELL_ID.search(header["rest"])
            cell_id, start, lines = found["id"] if found else "", number, []
        else:
            lines.append(line)
    yield cell_id, start, lines


def _blocks(lines: list[str], start: int, name: str) -> list[tuple[int, str, str]]:
    """(line, task number, title) of each solution block in one cell; AuthoringError where a marker is wrong."""
    blocks, opened, code_lines = [], None, 0
    for number, line in enumerate(lines, start + 1):
        marker = MARKER.match(line)
        if not marker:
            code_lines += bool(line.strip() and not line.strip().startswith("#"))
            continue
        where = f"{name}:{number}"
        if marker["word"] == "BEGIN SOLUTION":
            if opened:
                raise AuthoringError(f"{where}: BEGIN SOLUTION inside the block that line {opened[0]} began")
            title = TITLE.fullmatch(marker["rest"].strip())
            if not title:
                raise AuthoringError(f"{where}: write BEGIN SOLUTION as '### BEGIN SOLUTION 5.1: title of the task'")
            if not _in_function(lines[: number - start - 1], len(marker["indent"])):
                raise AuthoringError(f"{where}: BEGIN SOLUTION must stand inside the body of a function")
            opened, code_lines = (number, marker["indent"]), 0
            blocks.append((number, title["number"], title["title"]))
        elif not opened:
            raise AuthoringError(f"{where}: {marker['word']} without a BEGIN SOLUTION before it in the same cell")
        elif marker["word"] == "END SOLUTION":
            if marker["indent"] != opened[1]:
                raise AuthoringError(f"{where}: END SOLUTION is not indented like its BEGIN in line {opened[0]}")
            if not code_lines:
                raise AuthoringError(f"{where}: the solution block that line {opened[0]} began holds no code")
            opened = None
    if opened:
        raise AuthoringError(f"{name}:{opened[0]}: BEGIN SOLUTION without an END SOLUTION in the same cell")
    if blocks:
        try:
            ast.parse(to_stub("\n".join(lines)))
        except SyntaxError as error:
            raise AuthoringError(
                f"{name}:{blocks[0][0]}: without its solution the cell is no Python: {error.msg}"
            ) from None
    return blocks


def _validate_check(source: str, number: str, where: str) -> None:
    try:
        calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    except SyntaxError as error:
        raise AuthoringError(f"{where} is no Python: {error.msg}") from None
    named = [c.args[0] for c in calls if isinstance(c.func, ast.Name) and c.func.id == "check" and c.args]
    if not any(isinstance(arg, ast.Constant) and arg.value == number for arg in named):
        raise AuthoringError(f'{where} does not contain check("{number}")')
    compared = [c for c in calls if isinstance(c.func, ast.Attribute) and c.func.attr in ("equal", "at_most")]
    if not compared:
        raise AuthoringError(f"{where} compares nothing: call equal or at_most")
    for call in compared:
        if len(call.args) < 3 or not isinstance(call.args[2], ast.Lambda):
            what = ast.unparse(call)[:60]
            raise AuthoringError(
                f"{where}: the third argument of {what} must be a lambda, because grading takes it out"
            )


def _in_function(above: list[str], indent: int) -> bool:
    """Whether a line indented by `indent` below the lines `above` is in a function's body."""
    for line in reversed(above):
        depth = len(line) - len(line.lstrip())
        if line.strip() and depth < indent:
            if re.match(r"\s*(async\s+)?def\b|\s*\).*:\s*$", line):
                return True
            indent = depth
    return False
