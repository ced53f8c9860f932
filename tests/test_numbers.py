"""How numbers are written, in one place for all that prints and draws them."""

import pytest

from course_lib.numbers import amount, bytes_text, count, gb_text, seconds_text, three


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1.125, "1.13"), (9.996, "10.0"), (0.5, "0.500"), (99.95, "100"), (999.4, "999"), (999.5, "1,000"),
        (0.00001234, "0.0000123"), (0, "0"), (-2.5, "-2.50"),
    ],
)  # fmt: skip
def test_numbers_have_three_digits(value, said):
    assert three(value) == said


def test_amounts_take_the_unit_that_suits_them():
    assert [amount(312e12, "FLOP/s"), amount(999.6e9, "B"), amount(7, "B")] == ["312 TFLOP/s", "1.00 TB", "7.00 B"]  # fmt: skip
    assert [amount(2.5e-10, "s"), amount(1.5e-6, "s"), amount(12, "s")] == ["0.250 ns", "1.50 µs", "12.0 s"]
    assert [amount(0, "B"), seconds_text(0.2905)] == ["0 B", "291 ms"]


def test_an_amount_that_is_compared_has_the_unit_of_the_other():
    assert [amount(0.0125, "s", of=25.0), amount(25.0, "s", of=25.0)] == ["0.0125 s", "25.0 s"]
    assert amount(5e6, "B", of=2e9) == "0.00500 GB"


def test_counts_have_commas_and_a_plural():
    assert [count(2048), count(1.5)] == ["2,048", "1.50"]
    assert [count(1, "GPU"), count(1024, "GPU"), count(0, "byte"), count(2, "micro-batch")] == [
        "1 GPU", "1,024 GPUs", "0 bytes", "2 micro-batches",
    ]  # fmt: skip


def test_bytes_are_rounded_to_a_tenth():
    written = [bytes_text(n) for n in (0, 999, 1000, 1049, 1050, 1_500_000, 10**9)]
    assert written == ["0 bytes", "999 bytes", "1.0 kB", "1.0 kB", "1.1 kB", "1.5 MB", "1.0 GB"]


@pytest.mark.parametrize(
    ("nbytes", "said"),
    [
        (0, "0.000000 GB"), (80 * 10**9, "80.0 GB"), (2_798_449_999_999, "2,798.4 GB"), (1_835_000_000, "1.84 GB"),
        (31_249_999, "0.0312 GB"), (9_999_999_999, "10.00 GB"),
    ],
)  # fmt: skip
def test_gigabytes_have_three_digits_or_one_decimal(nbytes, said):
    assert gb_text(nbytes) == said
    assert gb_text(31_249_999, of=80 * 10**9) == "0.0 GB"
