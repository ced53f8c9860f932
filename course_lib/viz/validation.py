"""The published results beside ours, as a table for a notebook: a line for each group, its rows behind a click."""

from html import escape

from course_lib.cost.report import table
from course_lib.cost.validate import Row, rows

_RIGHT = "<td align=right>"


class Validation:
    """Rows of `cost.validate`, grouped. In a notebook each group opens on a click; printed, it is what `course validate` says."""

    def __init__(self, found: list[Row], opened: str = ""):
        self.rows, self.opened = found, opened

    def __repr__(self) -> str:
        return table(self.rows)

    def _repr_html_(self) -> str:
        return "".join(self._group(group) for group in dict.fromkeys(row.group for row in self.rows))

    def _group(self, group: str) -> str:
        members = [row for row in self.rows if row.group == group]
        held = [100 * abs(row.error) for row in members if row.bound is not None]
        wrong = [row for row in members if not row.passes]
        verdict = f"{len(wrong)} out of bounds" if wrong else "all within their bounds"
        summary = f"<b>{escape(group)}</b>: {len(held)} rows, {verdict}; mean error {sum(held) / len(held):.2f} %, "
        beyond = max(100 * row.beyond_rounding for row in members if row.bound is not None)
        summary += f"largest {max(held):.2f} %, beyond the printed digits {beyond:.2f} %"
        sources = "; ".join(dict.fromkeys(row.source for row in members))
        return (
            f"<details{' open' if group == self.opened else ''}><summary>{summary}</summary><table><tr><th><th>published"
            f"<th>ours<th><th>error</tr>{''.join(map(_line, members))}</table><small>{escape(sources)}</small></details>"
        )


def validation(*groups: str, opened: str = "") -> Validation:
    """Every published result beside ours, computed now; of the named groups only, if there are names.

    opened: the group whose rows are in sight at first. Raises ValueError for a name that is no group's.
    """
    found = rows()
    known = list(dict.fromkeys(row.group for row in found))
    unknown = [name for name in (*groups, *([opened] if opened else [])) if name not in known]
    if unknown:
        raise ValueError(f"no group is called {unknown[0]!r}: there are {', '.join(known)}.")
    return Validation([row for row in found if not groups or row.group in groups], opened)


def _line(row: Row) -> str:
    error = f"{100 * row.error:+.2f} %" + ("" if row.bound is not None else " (not held)")
    name = f"{row.name} <small>({escape(row.note)})</small>" if row.note else row.name
    return f"<tr><td style=text-align:left>{name}{_RIGHT}{row.published}{_RIGHT}{row.ours_text}<td align=left>{row.unit}{_RIGHT}{error}</tr>"
