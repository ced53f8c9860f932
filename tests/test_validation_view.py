"""The table of published results as a notebook shows it."""

import re

import pytest

from course_lib.cost.validate import TIMES, Row, rows
from course_lib.viz.validation import Validation, validation


def text_of(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_every_row_is_in_the_page_with_its_error_and_source():
    html = validation()._repr_html_()
    for row in rows():
        assert row.name in html and row.published in html and f"{100 * row.error:+.2f} %" in html
        assert row.source.split(",")[0] in html
    assert html.count("<details") == html.count("</details>") == len({row.group for row in rows()})
    assert len(html) < 25_000, "a page of over 100 kB is slow to read"


def test_groups_are_chosen_and_opened_by_name():
    one = validation("ZeRO", opened="ZeRO")
    assert {row.group for row in one.rows} == {"ZeRO"} and "<details open>" in one._repr_html_()
    assert "<details open>" not in validation("ZeRO")._repr_html_()
    assert repr(one).startswith("ZERO")
    with pytest.raises(ValueError, match="no group is called 'times': there are parameters, .*" + TIMES):
        validation("times")


def test_a_row_out_of_bounds_and_one_that_is_not_held_are_told_apart():
    found = [
        Row("sizes", "right", "10", "GB", 10.2, 0.01, "A 2020"),
        Row("sizes", "wrong", "10", "GB", 11.0, 0.01, "A 2020"),
        Row("sizes", "odd", "10", "GB", 20.0, None, "B 2021", note="it counts twice & more"),
    ]
    text = text_of(Validation(found)._repr_html_())
    assert (
        "sizes : 2 rows, 1 out of bounds; mean error 6.00 %, largest 10.00 %, beyond the printed digits 5.00 %" in text
    )
    assert "(not held)" in text and "it counts twice &amp; more" in text and "A 2020; B 2021" in text
