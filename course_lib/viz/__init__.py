"""Pictures that draw themselves in a notebook: pure functions of a value to SVG, and widgets around them."""

from course_lib.layout import Partial, Replicate, Shard
from course_lib.viz.prediction import Prediction, predict
from course_lib.viz.widgets import Sharding, sharding

__all__ = ["Partial", "Prediction", "Replicate", "Shard", "Sharding", "predict", "sharding"]
