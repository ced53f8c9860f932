"""matplotlib, set up so that a plot reads well on a light and on a dark page."""

from contextlib import suppress

import matplotlib
import numpy as np
from matplotlib import pyplot as plt

COLORS = (
    "#3a7ebf",
    "#d1671e",
    "#2f9e77",
    "#b0589e",
    "#8a7a1f",
    "#c2453d",
)  # told apart by eyes of every kind
MARKERS = ("o", "s", "^", "D", "v", "P")
_INK = "#808891"  # as far from white as from black

_STYLE = {
    "figure.figsize": (7.4, 3.2),
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.prop_cycle": matplotlib.cycler(color=COLORS, marker=MARKERS, markevery=[4] * len(COLORS)),
    "grid.color": _INK,
    "grid.alpha": 0.25,
    "lines.linewidth": 1.8,
    "lines.markersize": 4,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
    "font.size": 10,
    "font.sans-serif": ["DejaVu Sans"],
    "svg.fonttype": "none",  # text stays text: smaller, sharper, and it can be searched
    "svg.hashsalt": "course",  # the same plot gives the same bytes
}


def new_plot(xlabel: str, ylabel: str, title: str = "", log: bool = False) -> plt.Axes:
    """Empty axes in the course's style; in a notebook the plot is drawn as SVG. `log` makes the y axis logarithmic."""
    _prepare()
    _, axes = plt.subplots(layout="constrained")
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if log:
        axes.set_yscale("log")
        axes.minorticks_off()
    return axes


def show_images(images, labels) -> None:
    """A row of grey images (n, 1, h, w) with values in [0, 1], each under its label."""
    _prepare()
    count, _, height, width = images.shape
    pitch = width + 1
    row = np.full((height, count * pitch - 1), np.nan)  # nan: transparent
    for n, image in enumerate(images):
        row[:, n * pitch : n * pitch + width] = image[0]
    _, axes = plt.subplots(figsize=(7.4, 0.8), layout="constrained")
    axes.imshow(row, cmap="gray_r", vmin=0, vmax=1)
    axes.axis("off")
    for n, label in enumerate(labels):
        axes.text(n * pitch + width / 2 - 0.5, -1.5, str(int(label)), ha="center")


def _prepare() -> None:
    with suppress(ImportError):  # outside a notebook there is nothing to set
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg", metadata={"Date": None})
    plt.rcParams.update(_STYLE)
