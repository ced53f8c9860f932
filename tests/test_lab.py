"""`course lab` and `course update`: the environment's settings, and the learner's own copies of the pages."""

import json

import nbformat
import pytest

from course_lib import cli
from course_lib.lab import copy_pages, update, write_settings


def page(*sources, outputs=()):
    cells = [nbformat.v4.new_code_cell(source, id=f"c{i}", outputs=list(outputs)) for i, source in enumerate(sources)]
    return nbformat.writes(nbformat.v4.new_notebook(cells=cells))


@pytest.fixture
def course(tmp_path):
    for name in ("notebooks/00_a.ipynb", "exercises/00_a.ipynb", "solutions/00_a.ipynb"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(page(name), encoding="utf-8")
    return tmp_path


def ran(path, *sources):
    """The learner's page after a run, with these sources."""
    path.write_text(page(*sources, outputs=[nbformat.v4.new_output("stream", text="42")]), encoding="utf-8")


def test_every_page_is_copied_once_and_never_overwritten(course):
    assert copy_pages(course) == (3, [])
    ran(course / "work/exercises/00_a.ipynb", "my answer")
    assert copy_pages(course) == (0, [])
    (course / "notebooks/01_b.ipynb").write_text(page("new"), encoding="utf-8")
    assert copy_pages(course) == (1, [])
    assert "my answer" in (course / "work/exercises/00_a.ipynb").read_text("utf-8")


def test_links_lead_to_where_they_led(course):
    text = "[a](../exercises/00_a.ipynb) [b](../README.md#x) [c](01_b.ipynb)"
    (course / "notebooks/00_a.ipynb").write_text(page(text), encoding="utf-8")
    copy_pages(course)
    copied = nbformat.read(course / "work/notebooks/00_a.ipynb", as_version=4).cells[0].source
    assert copied == "[a](../exercises/00_a.ipynb) [b](../../README.md#x) [c](01_b.ipynb)"
    assert copy_pages(course) == (0, []), "the copy is not taken for an older version"


def test_update_renews_what_nobody_wrote_in_and_puts_the_rest_beside(course):
    copy_pages(course)
    ran(course / "work/notebooks/00_a.ipynb", "notebooks/00_a.ipynb")  # only run
    ran(course / "work/exercises/00_a.ipynb", "my answer")
    for folder in ("notebooks", "exercises"):
        (course / folder / "00_a.ipynb").write_text(page("better"), encoding="utf-8")
    assert copy_pages(course) == (0, ["notebooks/00_a.ipynb", "exercises/00_a.ipynb"])
    assert update(course) == {"new": 0, "renewed": 1, "beside": 1}
    assert "better" in (course / "work/notebooks/00_a.ipynb").read_text("utf-8")
    assert "my answer" in (course / "work/exercises/00_a.ipynb").read_text("utf-8")
    assert "better" in (course / "work/exercises/00_a.new.ipynb").read_text("utf-8")
    assert update(course) == {"new": 0} and copy_pages(course) == (0, [])


def test_the_command_says_what_it_brought(course, capsys, monkeypatch):
    monkeypatch.chdir(course)
    assert cli.main(["update"]) == 0
    assert capsys.readouterr().out == "course update: 3 new pages, 0 renewed in work/.\n"
    ran(course / "work/exercises/00_a.ipynb", "my answer")
    (course / "exercises/00_a.ipynb").write_text(page("better"), encoding="utf-8")
    cli.main(["update"])
    assert "yours stay as they are, the new ones lie beside them as NAME.new.ipynb" in capsys.readouterr().out


def test_settings_are_written_beside_those_that_are_there(tmp_path):
    path = tmp_path / "share/jupyter/lab/settings/overrides.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"theirs": {"a": 1}}', encoding="utf-8")
    write_settings(tmp_path)
    found = json.loads(path.read_text("utf-8"))
    assert found["theirs"] == {"a": 1}
    assert found["@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"
    assert found["@jupyter-widgets/jupyterlab-manager:plugin"] == {"saveState": True}
    export = json.loads((tmp_path / "etc/jupyter/jupyter_nbconvert_config.json").read_text("utf-8"))
    assert export["NbConvertBase"]["display_data_priority"][0] == "text/html"
    before = path.stat().st_mtime_ns
    write_settings(tmp_path)
    assert path.stat().st_mtime_ns == before
