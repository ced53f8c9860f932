"""Facts as a panel: names, and beside them what is said of each. What pictures of numbers share."""

from collections.abc import Iterable

from course_lib.viz.scene import Mark, Panel, text, wrapped

WIDEST = 820  # wider pages show the same, larger
LABEL, NARROW = 118, 480  # how wide names are; on less than that a name stands above its words


def facts(head: str, pairs: Iterable[tuple[str, str]], width: float) -> Panel:
    """A heading, and below it a line or more for each name and what is said of it."""
    marks: list[Mark | None] = [text(0, 14, head, "strong", width)]
    y, left = 38.0, 0 if width < NARROW else LABEL
    for name, words in pairs:
        marks.append(text(0, y, name, "small quiet"))
        y += 0 if left else 16
        for row in wrapped(words, width - left):
            marks.append(text(left, y, row))
            y += 17
        y += 4
    return Panel(width, y - 8, marks)
