"""Spans: what a rank calls the parts of its own work, so that they appear in the trace."""

from types import TracebackType
from typing import Any

from course_lib.ranks.ledger import Ledger

_ledger: Ledger | None = None  # of this process, if it is a rank that launch() started


def write_to(ledger: Ledger) -> None:
    """Spans of this process go to this ledger from now on."""
    global _ledger
    _ledger = ledger


class span:
    """A named part of a rank's work: `with span("forward", microbatch=3): …`. It shows in `run.trace`; spans may nest.

    labels: numbers and short texts. Outside launch(), under torchrun say, it does nothing.
    """

    def __init__(self, name: str, **labels: Any):
        self.name, self.labels = name, labels

    def __enter__(self) -> "span":
        self.ledger = _ledger
        if self.ledger is not None:
            key = ("span", self.name, *self.labels.items())
            call = self.ledger.name(key, lambda: _describe(self.name, self.labels))
            self.number = self.ledger.begin(call, call, blocks=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.ledger is not None:
            self.ledger.end(self.number)


def _describe(name: str, labels: dict[str, Any]) -> dict:
    plain = {key: value if isinstance(value, (int, float, str, bool)) else str(value) for key, value in labels.items()}
    return {"operation": "span", "name": str(name), "labels": plain}
