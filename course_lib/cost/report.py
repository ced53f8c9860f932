"""The published results beside ours as text, and how well each time is predicted by the others."""

from collections.abc import Iterable

from course_lib.cost import published as paper
from course_lib.cost.validate import TIMES, Row, rows, run_s


def table(found: Iterable[Row] | None = None) -> str:
    """The rows (default: all) as text; a line sums up each group's errors, and for the times the leave-one-out errors too."""
    lines, group, members = [], None, []
    for row in [*(rows() if found is None else found), None]:
        if row is None or row.group != group:
            lines += _summary(group, members)
            if row is None:
                break
            group, members = row.group, []
            lines += ["", f"{group.upper():42s}{'published':>9s}{'ours':>10s} {'':8s}{'error':>7s}"]
        members.append(row)
        lines.append(str(row))
    return "\n".join(lines).strip()


def _summary(group: str | None, members: list[Row]) -> list[str]:
    held = [abs(row.error) for row in members if row.bound is not None]
    if not held:
        return []
    beyond = max(row.beyond_rounding for row in members if row.bound is not None)
    text = f"{100 * sum(held) / len(held):9.2f} %, largest {100 * max(held):.2f} %; beyond the printed digits {100 * beyond:.2f} %"
    lines = [f"{'mean':>42s}{text}"]
    if group == TIMES:
        alone = [abs(error) for error in leave_one_out().values()]
        text = f"{100 * sum(alone) / len(alone):9.2f} %, largest {100 * max(alone):.2f} %"
        lines.append(f"{'each run left out of its constant: mean':>42s}{text}")
    return lines


def leave_one_out() -> dict[str, float]:
    """For each run, the error of its step time when the constant of its paper comes from that paper's other runs alone."""
    found = {}
    for run in paper.RUNS:
        others = [other for other in paper.RUNS if other.paper == run.paper and other is not run]
        found[f"{run.paper}: {run.name}"] = run_s(run, fit_software(others)) / run.seconds - 1
    return found


def fit_software(runs: Iterable[paper.PublishedRun]) -> float:
    """The constant with which the errors of these runs are 0 on average."""
    runs = list(runs)

    def mean_error(software: float) -> float:
        return sum(run_s(run, software) / run.seconds - 1 for run in runs) / len(runs)

    low, high = 0.5, 3.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if mean_error(middle) < 0 else (low, middle)
    return (low + high) / 2
