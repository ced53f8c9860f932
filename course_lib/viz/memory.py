"""Memory by kind, measured beside predicted: bars that show what a rank's memory is taken for."""

from collections.abc import Mapping

from matplotlib import pyplot as plt
from matplotlib.patches import Patch

from course_lib.cost.memory import MemoryUse
from course_lib.viz.plots import COLORS, new_plot

_KINDS = ("parameters", "gradients", "optimizer_state", "activations")
_UNITS = ((2**30, "GB"), (2**20, "MB"), (2**10, "KB"), (1, "bytes"))
_BAR = 0.36  # of the pitch from label to label


def memory_bars(uses: Mapping[str, tuple[MemoryUse, MemoryUse]], limit_bytes: int | None = None) -> plt.Axes:
    """Two stacked bars for each label's (measured, predicted): what was measured is full, what was predicted an outline.

    A part tall enough has its number on it and every bar its total above it, all in the unit that suits the tallest
    (1 MB = 2**20 bytes). limit_bytes is a dashed line. Raises ValueError if there is nothing to draw.
    """
    if not uses:
        raise ValueError("nothing to draw: pass at least one label with its (measured, predicted) MemoryUse.")
    tallest = max(limit_bytes or 0, *(use.total for pair in uses.values() for use in pair))
    unit_bytes, unit = next((u for u in _UNITS if tallest >= u[0]), _UNITS[-1])
    axes = new_plot("", f"{unit} on a rank")
    for place, (measured, predicted) in enumerate(uses.values()):
        _bar(axes, place - 0.2, measured, unit_bytes, tallest, filled=True)
        _bar(axes, place + 0.2, predicted, unit_bytes, tallest, filled=False)
    axes.set_xticks(range(len(uses)), list(uses))
    axes.set_xlim(-0.6, len(uses) - 0.4)
    axes.set_ylim(0, max(tallest, 1) / unit_bytes * 1.12)
    axes.grid(False, axis="x")
    handles = [Patch(color=color, label=kind.replace("_", " ")) for kind, color in zip(_KINDS, COLORS)]
    if limit_bytes is not None:
        line = axes.axhline(
            limit_bytes / unit_bytes, color=COLORS[5], linestyle="--", marker="", label="limit"
        )
        handles.append(line)
    title = "left: measured\nright (outline): predicted"
    axes.legend(
        handles=handles[::-1], title=title, loc="center left", bbox_to_anchor=(1, 0.5), alignment="left"
    )
    return axes


def _bar(axes: plt.Axes, x: float, use: MemoryUse, unit_bytes: int, tallest: int, filled: bool) -> None:
    bottom = 0.0
    for kind, color in zip(_KINDS, COLORS):
        size = getattr(use, kind)
        height = size / unit_bytes
        face = color if filled else "none"
        axes.bar(x, height, _BAR, bottom, facecolor=face, edgecolor=color, linewidth=1.4, label=kind)
        if size > tallest / 20:  # room for a number
            ink = {"color": "white"} if filled else {}
            axes.text(x, bottom + height / 2, f"{height:.3g}", ha="center", va="center", fontsize=9, **ink)
        bottom += height
    axes.text(x, bottom, f"{bottom:.3g}", ha="center", va="bottom", fontsize=9)
