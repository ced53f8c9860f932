"""Plots: shown as an image that follows the page's theme, also in a notebook that nobody has trusted."""

import io
import re
import subprocess
import sys
from html import unescape
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest

from course_lib.viz.palette import COLORS
from course_lib.viz.plots import SVG, html, new_plot, plt, slim


@pytest.fixture
def axes():
    axes = new_plot("step", "loss", "a title", log=True)
    axes.plot([1, 2], [1, 10], label="one")
    axes.axhline(3, color="gray")
    axes.legend()
    yield axes
    plt.close(axes.figure)


def drawn(figure):
    return unquote(re.search(r'src="data:image/svg\+xml,([^"]+)"', html(figure))[1])


def test_a_plot_has_both_themes_and_no_colour_of_its_own(axes):
    svg = drawn(axes.figure)
    ElementTree.fromstring(svg)
    style, rest = svg.split("</style>", 1)
    assert "prefers-color-scheme:dark" in style
    for word in ("quiet", "line-0", "edge", "paper"):
        light, dark = COLORS[word]
        assert f"--{word}:{light}" in style and f"--{word}:{dark}" in style and f"var(--{word})" in rest
    assert not re.findall(r"#[0-9a-f]{6}", rest), "every colour is a word"


def test_a_plot_says_what_it_shows_and_is_the_same_each_time(axes):
    assert html(axes.figure).startswith('<img alt="Plot: a title; loss over step; one"')
    assert html(axes.figure) == html(axes.figure)


def test_a_notebook_gets_the_image_and_not_what_jupyterlab_hides():
    program = """
from IPython.testing.globalipapp import start_ipython
shell = start_ipython()
shell.display_formatter.active_types = shell.display_formatter.format_types
from course_lib.viz.plots import new_plot
data, _ = shell.display_formatter.format(new_plot("x", "y").figure)
print(sorted(data), data["text/html"][:9])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "['text/html', 'text/plain'] <img alt="


def test_a_plot_is_slim_and_looks_the_same():
    axes = new_plot("a < b & c", "share, 100% of #1", "a title")
    axes.plot(range(40), range(40), label="one")
    axes.legend()
    file = io.StringIO()
    axes.figure.savefig(file, format="svg")
    plt.close(axes.figure)
    drawn = slim(file.getvalue())
    assert len(drawn) < len(file.getvalue()) / 2
    words = {text.text for text in ElementTree.fromstring(drawn).iter(f"{SVG}text")}
    assert {"a < b & c", "share, 100% of #1", "a title", "one"} <= words
    assert set(re.findall(r"#(\w+)[\')\"]", drawn)) <= set(re.findall(r'id="(\w+)"', drawn))
    there = set(re.findall(r"\.(s\d+){", drawn))
    assert there == set(re.findall(r'class="(s\d+)"', drawn))


def test_a_plots_words_come_through_the_address_of_its_image():
    axes = new_plot("a < b & c", "share, 100% of #1", 'a "title"')
    shown = html(axes.figure)
    plt.close(axes.figure)
    address = unescape(re.search(r'src="data:image/svg\+xml,([^"]*)"', shown)[1])
    words = {text.text for text in ElementTree.fromstring(unquote(address)).iter(f"{SVG}text")}
    assert {"a < b & c", "share, 100% of #1", 'a "title"'} <= words
