"""A question to answer before the next cell is run. Nothing is graded, and nothing leaves the page."""

from html import escape
from typing import Any

import anywidget
import traitlets

from course_lib.viz.shards import STATIC


class Prediction(anywidget.AnyWidget):
    """A question with its options as radio buttons. `chosen` is the option the reader picked, -1 before that."""

    _esm = STATIC / "prediction.js"
    _css = STATIC / "prediction.css"
    question = traitlets.Unicode().tag(sync=True)
    options = traitlets.List(traitlets.Unicode()).tag(sync=True)
    chosen = traitlets.Int(-1).tag(sync=True)

    def __repr__(self) -> str:
        return "\n".join([f"Predict: {self.question}", *(f"  ( ) {option}" for option in self.options)])

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict, dict]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        items = "".join(f"<li>{escape(option)}</li>" for option in self.options)
        data["text/html"] = f"<p><b>Predict.</b> {escape(self.question)}</p><ul>{items}</ul>"
        return data, metadata


def predict(question: str, options: list[str]) -> Prediction:
    """Ask the reader for a prediction; the next cell holds the answer."""
    if len(options) < 2:
        raise ValueError(f"a prediction needs at least two options, not {len(options)}.")
    return Prediction(question=question, options=list(options))
