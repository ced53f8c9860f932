"""Do two lines of a program follow each other, or are they alternatives? Read from its source text."""

import ast
import linecache
from functools import lru_cache

Frame = tuple[str, int, str]  # file, line, function


def line_text(frame: Frame) -> str:
    """The source line of a frame, without the white space around it."""
    return linecache.getline(frame[0], frame[1]).strip()


def in_sequence(one: tuple[Frame, ...], other: tuple[Frame, ...]) -> bool:
    """Whether two calls (their stacks, outermost first) come from lines of one function that are run one after the other.

    False when that is not certain: the lines are branches of one choice, or the same, or the source is not there.
    """
    for a, b in zip(one, other, strict=False):
        if a != b:
            same_function = (a[0], a[2]) == (b[0], b[2])
            return same_function and a[1] != b[1] and not _alternatives(a[0], a[1], b[1])
    return False


def _alternatives(file: str, one: int, other: int) -> bool:
    tree = _tree(file)
    if tree is None:
        return True
    for node in ast.walk(tree):
        branches = _branches(node)
        sides = [{n for n, branch in enumerate(branches) if _holds(branch, line)} for line in (one, other)]
        if all(sides) and sides[0] != sides[1]:
            return True
    return False


def _branches(node: ast.AST) -> list[list[ast.AST]]:
    if isinstance(node, ast.If):
        return [node.body, node.orelse]
    if isinstance(node, ast.IfExp):
        return [[node.body], [node.orelse]]
    if isinstance(node, ast.Match):
        return [case.body for case in node.cases]
    if isinstance(node, ast.Try):
        return [node.body, *(handler.body for handler in node.handlers)]
    return []


def _holds(branch: list[ast.AST], line: int) -> bool:
    return any(node.lineno <= line <= (node.end_lineno or node.lineno) for node in branch)


@lru_cache(maxsize=32)
def _parsed(source: str) -> ast.AST | None:
    try:
        return ast.parse(source)
    except SyntaxError:
        return None


def _tree(file: str) -> ast.AST | None:
    return _parsed("".join(linecache.getlines(file)))
