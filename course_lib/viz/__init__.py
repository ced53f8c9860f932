"""Pictures that draw themselves in a notebook: pure functions of a value to SVG, and widgets around them."""

from course_lib.layout import Partial, Replicate, Shard
from course_lib.viz.block import TransformerBlock, transformer_block
from course_lib.viz.collective import Collective, animate
from course_lib.viz.estimator import MemoryEstimator, memory_estimator
from course_lib.viz.mesh import MeshExplorer, mesh_explorer
from course_lib.viz.planner import PlannerExplorer, planner_explorer
from course_lib.viz.prediction import Prediction, predict
from course_lib.viz.roofline import RooflineExplorer, roofline
from course_lib.viz.schedule import Pipeline, pipeline
from course_lib.viz.schedule_arena import Arena, arena
from course_lib.viz.schedule_gantt import schedule_picture
from course_lib.viz.timeline import Timeline, timeline
from course_lib.viz.traffic import TrafficMatrix, traffic
from course_lib.viz.widgets import Sharding, sharding

__all__ = [
    "Arena",
    "Collective",
    "MemoryEstimator",
    "MeshExplorer",
    "Partial",
    "Pipeline",
    "PlannerExplorer",
    "Prediction",
    "Replicate",
    "RooflineExplorer",
    "Shard",
    "Sharding",
    "Timeline",
    "TrafficMatrix",
    "TransformerBlock",
    "animate",
    "arena",
    "memory_estimator",
    "mesh_explorer",
    "pipeline",
    "planner_explorer",
    "predict",
    "roofline",
    "schedule_picture",
    "sharding",
    "timeline",
    "traffic",
    "transformer_block",
]
