"""The colours of the course: each word one meaning, in every picture and plot, with a light and a dark value.

Rank colours are Okabe and Ito's, which colour-blind readers tell apart, and belong to ranks alone. Colour never stands
alone: a number, a name or a shape says the same. `tests/test_scene.py` holds contrast and distance.
"""

import re
from functools import cache
from pathlib import Path

STATIC = Path(__file__).parent / "static"
TINT = (0.32, 0.45)  # how strong a fill is behind text

COLORS: dict[str, tuple[str, str]] = {
    # the page
    "ink": ("#1f2328", "#e6edf3"),
    "quiet": ("#57606a", "#9da7b1"),
    "paper": ("#ffffff", "#0d1117"),
    "edge": ("#d0d7de", "#3d444d"),
    "ground": ("#f3f5f7", "#1a2028"),
    "focus": ("#0969da", "#58a6ff"),
    "wrong": ("#b9360c", "#ff9470"),
    # ranks
    "rank-0": ("#0072b2", "#4aa3dc"),
    "rank-1": ("#e69f00", "#f0b429"),
    "rank-2": ("#009e73", "#2cc295"),
    "rank-3": ("#cc79a7", "#e07fb5"),
    "rank-4": ("#56b4e9", "#8ccdf2"),
    "rank-5": ("#d55e00", "#f07f3c"),
    "rank-6": ("#dfcf00", "#f4ee7a"),
    "rank-7": ("#7d7d7d", "#b9b9b9"),
    # what is in memory
    "parameters": ("#4059ad", "#93a5f2"),
    "gradients": ("#c2553c", "#f29278"),
    "optimizer": ("#d7a21a", "#f0c75a"),
    "activations": ("#5f8f7b", "#93c9b2"),
    # curves and marks of a plot, in the order in which they are taken
    "line-0": ("#2f74b5", "#6aa9e6"),
    "line-1": ("#c2570c", "#f0904f"),
    "line-2": ("#21805f", "#4cc49a"),
    "line-3": ("#a54f93", "#d68ac6"),
    "line-4": ("#7d6d16", "#e6d98b"),
    "line-5": ("#b83b34", "#ef7b72"),
    # axes of a mesh, and what their groups send
    "tp": ("#7a3fc4", "#bb96f5"),
    "cp": ("#b8266b", "#f48ab9"),
    "dp": ("#b45f06", "#f5a85c"),
    "pp": ("#0b7a75", "#25aea5"),
    "ep": ("#557a12", "#d2ec8c"),
    "world": ("#3b4a63", "#b4c1d8"),
    # what limits an operation
    "by-memory": ("#8f5a24", "#d2a273"),
    "by-arithmetic": ("#2b6cb3", "#78b0ea"),
    # what a rank does
    "forward": ("#8fc3ef", "#7ab5e4"),
    "backward": ("#0b6350", "#13705a"),
    "input": ("#3a9c81", "#3fa98c"),
    "weight": ("#f3d68a", "#ecc96f"),
    "again": ("#3f8ad6", "#3f86d8"),
    "compute": ("#dbe4ee", "#2b3644"),
    "wait": ("#f7c9c0", "#6b322a"),
    "span": ("#b5c3d4", "#475467"),
}
PART_COLORS = {  # what a step is spent on, by the names in cost.candidate.LIMITS: the words of its colours
    "kernels": "span", "recomputation_s": "again", "tensor_parallel_s": "tp", "pipeline_messages_s": "pp",
    "bubble_s": "wait", "data_parallel_s": "dp", "optimizer_s": "optimizer",
}  # fmt: skip


def css(kinds: set[str] | None = None, *, live: bool = False) -> str:
    """The style sheet of marks: rules for these kinds (all by default) and the colours that they name.

    live: for a page, whose theme decides; else for a picture that stands alone and follows the reader's system.
    """
    rules = [rule for rule in _rules() if kinds is None or _words(rule) <= kinds]
    body = "\n".join(rules)
    if live:
        colors = "".join(f"--{name}: light-dark({a}, {b}); " for name, (a, b) in COLORS.items())
        return f".course-picture {{ {colors}--tint: {TINT[0]}; & :where(.stage svg) {{\n{body}\n}} }}"
    used = [name for name in COLORS if f"--{name})" in body]
    light, dark = (
        "".join(f"--{name}:{COLORS[name][theme]};" for name in used) + f"--tint:{TINT[theme]}" for theme in (0, 1)
    )
    squeezed = re.sub(r"\s*([{};:,>])\s*", r"\1", body).replace("\n", "")
    return f"svg{{{light}}}@media (prefers-color-scheme:dark){{svg{{{dark}}}}}{squeezed}"


@cache
def _rules() -> tuple[str, ...]:
    """The rules of marks.css, a line each."""
    text = re.sub(r"/\*.*?\*/", "", (STATIC / "marks.css").read_text(encoding="utf-8"), flags=re.DOTALL)
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _words(rule: str) -> set[str]:
    """The kinds that a rule is for."""
    return set(re.findall(r"\.([\w-]+)", rule.partition("{")[0]))
