"""Numbers as text, for everything that prints or draws them, and rows of them. Halves are rounded up, as one does by hand."""

from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal

_LARGE = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""))
_SMALL = ((1, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))


def three(value: float) -> str:
    """A number with three digits: 0.0125, 1.13, 99.0; from 1,000 on whole: 12,346. 0 is "0"."""
    if value <= 0:
        return f"-{three(-value)}" if value else "0"
    if value >= 999.5:
        return f"{int(value + 0.5):,}"
    exact = Decimal(value)
    for _ in range(2):  # 9.996 becomes 10.00, and then 10.0
        exact = exact.quantize(Decimal((0, (1,), exact.adjusted() - 2)), ROUND_HALF_UP)
    return format(exact, "f")


def amount(value: float, unit: str, of: float | None = None) -> str:
    """312e12 and "FLOP/s" give "312 TFLOP/s"; a unit of seconds goes down to nanoseconds.

    of: an amount that the reader compares it with; both then have the same unit, "1.25 s" and "0.0125 s".
    """
    if not value:
        return f"0 {unit}"
    prefixes = _SMALL if unit == "s" else _LARGE
    size, prefix = next((p for p in prefixes if (of or value) >= 0.9995 * p[0]), prefixes[-1])
    return f"{three(value / size)} {prefix}{unit}"


def seconds_text(seconds: float) -> str:
    """ "5.66 s", "291 ms", "12.3 µs"."""
    return amount(seconds, "s")


def count(value: float, word: str = "") -> str:
    """ "2,048", "1 GPU", "16 micro-batches"; what is not whole has three digits."""
    number = f"{int(value):,}" if value == int(value) else three(value)
    ending = "" if value == 1 else "es" if word.endswith(("h", "s")) else "s"
    return f"{number} {word}{ending}" if word else number


def bytes_text(nbytes: int) -> str:
    """80 bytes, 133.9 kB, 1.2 GB: decimal units, one decimal."""
    if nbytes < 1000:
        return f"{nbytes} bytes"
    unit, name = next((10**p, n) for p, n in ((12, "TB"), (9, "GB"), (6, "MB"), (3, "kB")) if nbytes >= 10**p)
    tenths = (10 * nbytes + unit // 2) // unit
    return f"{tenths // 10}.{tenths % 10} {name}"


def gb_text(nbytes: int, of: int | None = None) -> str:
    """ "12.3 GB" (10⁹ bytes): three digits, or one decimal. of: an amount that the reader compares it with, by default itself."""
    decimals, limit = 1, 10 * 10**9
    while decimals < 6 and (nbytes if of is None else of) < limit:
        decimals, limit = decimals + 1, limit // 10
    unit = 10 ** (9 - decimals)
    whole, part = divmod((nbytes + unit // 2) // unit, 10**decimals)
    return f"{whole:,}.{part:0{decimals}d} GB"


def columns(rows: Sequence[Sequence[str]], left: int = 0) -> list[str]:
    """A line for each row: cells of the first `left` columns begin below each other, those of the others end below each other."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    aligned = ([c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths))] for row in rows)
    return ["  ".join(cells).rstrip() for cells in aligned]
