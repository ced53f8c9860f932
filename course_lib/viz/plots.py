"""matplotlib, set up so that a plot reads well on a light and on a dark page, also on one that nobody has trusted yet."""

import io
import re
from contextlib import suppress
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from course_lib.viz.palette import COLORS as WORDS
from course_lib.viz.svg import image

COLORS = tuple(WORDS[f"line-{place}"][0] for place in range(6))  # told apart by eyes of every kind
_INK, _EDGE = WORDS["quiet"][0], WORDS["edge"][0]
SVG = "{http://www.w3.org/2000/svg}"

_STYLE = {
    "figure.figsize": (7.4, 3.4),
    "figure.facecolor": WORDS["paper"][0],
    "savefig.facecolor": WORDS["paper"][0],
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
    "axes.prop_cycle": matplotlib.cycler(color=COLORS, marker=("o", "s", "^", "D", "v", "P"), markevery=[4] * 6),
    "grid.color": _EDGE,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "font.size": 10.5,
    "font.sans-serif": ["DejaVu Sans"],
    "svg.fonttype": "none",  # text stays text: smaller, sharper, and it can be searched
    "svg.hashsalt": "course",  # the same plot gives the same bytes
}


def new_plot(xlabel: str, ylabel: str, title: str = "", log: bool = False) -> plt.Axes:
    """Empty axes in the course's style; a notebook shows them in the colours of its page. `log`: a logarithmic y axis."""
    _prepare()
    _, axes = plt.subplots(layout="constrained")
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title)
    if log:
        axes.set_yscale("log")
        axes.minorticks_off()
    return axes


def color(word: str) -> str:
    """The colour of a word of the palette, "tp" or "parameters", for a plot."""
    return WORDS[word][0]


def show_images(images, labels) -> None:
    """A row of grey images (n, 1, h, w) with values in [0, 1], each under its label."""
    _prepare()
    count, _, height, width = images.shape
    pitch = width + 1
    row = np.full((height, count * pitch - 1), np.nan)  # nan: transparent
    for n, picture in enumerate(images):
        row[:, n * pitch : n * pitch + width] = picture[0]
    _, axes = plt.subplots(figsize=(7.4, 0.8), layout="constrained")
    axes.imshow(row, cmap="gray_r", vmin=0, vmax=1)
    axes.axis("off")
    for n, label in enumerate(labels):
        axes.text(n * pitch + width / 2 - 0.5, -1.5, str(int(label)), ha="center")


def html(figure: Figure) -> str:
    """A figure as an image that follows the page's theme, with its words as its text alternative."""
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    axes = figure.axes[0] if figure.axes else None
    said = [axes.get_title(loc="left"), f"{axes.get_ylabel()} over {axes.get_xlabel()}"] if axes else []
    said += [text.get_text() for text in axes.get_legend().get_texts()] if axes and axes.get_legend() else []
    return image(themed(slim(file.getvalue())), "Plot: " + "; ".join(filter(None, said)))


def themed(drawn: str) -> str:
    """An SVG whose colours are words of the palette: light or dark as the reader's page is."""
    drawn = drawn.replace("#808080", _INK)  # matplotlib's "gray"
    used = [name for name, (light, _) in WORDS.items() if light in drawn]
    for name in used:
        drawn = drawn.replace(WORDS[name][0], f"var(--{name})")
    light, dark = (";".join(f"--{name}:{WORDS[name][theme]}" for name in used) for theme in (0, 1))
    style = f"<style>svg{{{light}}}@media (prefers-color-scheme:dark){{svg{{{dark}}}}}</style>"
    return re.sub(r"(<svg[^>]*>)", lambda found: found[1] + style, drawn, count=1)


def slim(drawn: str) -> str:
    """A plot that looks the same in less than half the bytes: styles as classes, no metadata, places to a tenth of a point."""
    ElementTree.register_namespace("", SVG[1:-1])
    root, used, classes = ElementTree.fromstring(drawn), set(re.findall(r"#(\w+)", drawn)), {}
    for parent in reversed(list(root.iter())):  # children before their parents
        kept: list[ElementTree.Element] = []
        for node in parent:
            node.tail, has = None, node.attrib
            if has.get("id") not in used:
                has.pop("id", None)
            if has.get("transform", "").startswith("rotate(-0"):
                del has["transform"]
            if href := has.pop("{http://www.w3.org/1999/xlink}href", None):
                has["href"] = href
            if style := re.sub(r"([:;,]) ", r"\1", has.pop("style", "")):
                has["class"] = classes.setdefault(style, f"s{len(classes)}")
            for name in {"d", "x", "y"} & has.keys():
                short = re.sub(r"(\d\.\d)\d+", r"\1", has[name]).replace(".0 ", " ")
                has[name] = re.sub(r"\s*([A-Za-z])\s*", r"\1", short)
            if node.tag not in (f"{SVG}metadata", f"{SVG}style"):
                kept += list(node) if node.tag == f"{SVG}g" and not has else [node]
        parent[:], parent.text = kept, (parent.text or "").strip() or None
    style = ElementTree.Element(f"{SVG}style")
    style.text = "*{stroke-linejoin:round}" + "".join(f".{name}{{{rule}}}" for rule, name in classes.items())
    root.insert(0, style)
    return ElementTree.tostring(root, encoding="unicode")


def _prepare() -> None:
    plt.rcParams.update(_STYLE)
    with suppress(ImportError):  # outside a notebook there is nothing to set
        from IPython import get_ipython
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats()  # JupyterLab hides image/svg+xml in a notebook that it does not trust
        if shell := get_ipython():
            shell.display_formatter.formatters["text/html"].for_type(Figure, html)
