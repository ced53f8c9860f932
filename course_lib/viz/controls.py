"""What a reader can change in a picture. A control knows its values, and how it is called; a page makes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from course_lib.viz.scene import Value


@dataclass(frozen=True)
class Choice:
    """One of several values. options: values, or value -> what is written.  look: "list", "buttons", "radio" or "slider".

    empty: a value that stands for nothing chosen yet, and cannot be chosen again.  still: the options that a page has which no
    kernel runs, beside the one that is chosen, to keep it small; by default all.
    """

    name: str
    options: Sequence[Value] | Mapping[Value, str]
    label: str = ""
    look: str = "list"
    group: str = ""
    empty: Value | None = None
    still: Sequence[Value] | None = None

    @property
    def values(self) -> tuple[Value, ...]:
        """All that it can be."""
        return (*([] if self.empty is None else [self.empty]), *self.options)

    @property
    def labels(self) -> dict[Value, str]:
        """What is written of each option."""
        return dict(self.options) if isinstance(self.options, Mapping) else {v: str(v) for v in self.options}

    def in_a_page(self, chosen: Value) -> "Choice":
        """The same with the options that it has without a kernel."""
        there = self.options if self.still is None else (*self.still, chosen)
        return replace(self, options={v: words for v, words in self.labels.items() if v in there})

    def check(self, value: Any) -> None:
        """Raise ValueError, with what there is, for another value."""
        if not any(value == option and type(value) is type(option) for option in self.values):
            there = ", ".join(map(repr, self.options))
            raise ValueError(f"{self.name} is one of {there}, not {value!r}.")


@dataclass(frozen=True)
class Number:
    """A number from low to high. whole: 1, 2, 3, …  look: "box" or "slider".  hidden: as of a Switch."""

    name: str
    low: float
    high: float
    label: str = ""
    look: str = "box"
    whole: bool = True
    group: str = ""
    hidden: bool = False

    def check(self, value: Any) -> None:
        """Raise ValueError, naming the range, for what is outside it."""
        kinds = int if self.whole else int | float
        if isinstance(value, bool) or not isinstance(value, kinds) or not self.low <= value <= self.high:
            what = "a whole number" if self.whole else "a number"
            raise ValueError(f"{self.name} is {what} from {self.low:,} to {self.high:,}, not {value!r}.")


@dataclass(frozen=True)
class Switch:
    """On or off. hidden: only a Button or a mark changes it."""

    name: str
    label: str = ""
    group: str = ""
    hidden: bool = False

    def check(self, value: Any) -> None:
        """Raise ValueError for what is neither."""
        if not isinstance(value, bool):
            raise ValueError(f"{self.name} is True or False, not {value!r}.")


@dataclass(frozen=True)
class Text:
    """Text to write, several lines of it."""

    name: str
    label: str = ""
    rows: int = 4
    group: str = ""

    def check(self, value: Any) -> None:
        """Raise ValueError for what is no text."""
        if not isinstance(value, str):
            raise ValueError(f"{self.name} is text, not {value!r}.")


@dataclass(frozen=True)
class View:
    """The part of a long axis that is shown, as two numbers `start` and `stop` from low to high: zoom and pan."""

    low: float
    high: float
    name: str = "view"
    label: str = "zoom"
    group: str = ""

    def check(self, value: Any) -> None:
        """Raise ValueError for what is no part of the axis."""
        pair, least = isinstance(value, list | tuple) and len(value) == 2, 1e-9 * (self.high - self.low)
        if not pair or not self.low - least <= value[0] < value[1] <= self.high + least:
            raise ValueError(f"{self.name} is (start, stop) from {self.low:g} to {self.high:g}, not {value!r}.")


@dataclass(frozen=True)
class Button:
    """What a click chooses. name: for Scene.off."""

    name: str
    label: str
    sets: Mapping[str, Value]
    group: str = ""


Control = Choice | Number | Switch | Text | View | Button
