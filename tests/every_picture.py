"""One of every picture that the course has, at the size that lessons open with."""

import torch

from course_lib import viz
from course_lib.cost.hardware import GPUS, SYSTEMS
from course_lib.cost.planner import search
from course_lib.cost.shapes import MODELS
from course_lib.cost.step_time import StepTime
from course_lib.faults.diagnosis import copies
from course_lib.layout import Layout, Replicate, Shard
from course_lib.schedules import gpipe, one_f_one_b, parse
from course_lib.viz.show import show
from tests.traces import data_parallel, ring

MODEL = {"transformer.h.11.mlp.c_proj.weight": (768, 3072), "wte.weight": (50257, 768), "b": (64,)}
STEP = StepTime(25.0, 3.16, 0.13, 2.0, 0.0, 0.02)
PICTURES = {
    "sharding": lambda: viz.sharding((4, 5), 2, name="x"),
    "sharding of 8": lambda: viz.sharding((12, 4), 8, Replicate()),
    "sharding of a model": lambda: viz.sharding(MODEL, 8, Shard(1)),
    "traffic": lambda: viz.traffic(ring(4)),
    "traffic of 16": lambda: viz.traffic(ring(16)),
    "product": lambda: viz.product((4, 5), (5, 8), Shard(1), Shard(0)),
    "transformer block": lambda: viz.transformer_block(t=4, sequence_parallel=True),
    "ring": lambda: viz.animate("all_reduce", "ring", 4),
    "tree": lambda: viz.animate("broadcast", "tree", 8),
    "prediction": lambda: viz.predict("How much is `20 + 22`?", {"42": "It is.", "44": "Two too many."}, right=0),
    "timeline": lambda: viz.timeline(data_parallel(4)),
    "timelines": lambda: viz.timeline({"one message": data_parallel(2, 2, 1), "four messages": data_parallel(2, 2, 4)}),
    "pipeline": lambda: viz.pipeline("1F1B", 4, 8),
    "pipeline of 16": lambda: viz.pipeline("ZB-H1", 16, 64),
    "schedule": lambda: viz.schedule_picture(gpipe(4, 8)),
    "arena": lambda: viz.arena(one_f_one_b(3, 6)),
    "arena, stuck": lambda: viz.arena(parse("mine", ["0F0 0B0 0F1 0B1", "1F1 1B1 1F0 1B0"])),
    "mesh, a cube": lambda: viz.mesh_explorer(Layout(pp=2, dp=2, tp=2), 4, 5, model="GPT-3 Small", num_microbatches=4),
    "mesh": lambda: viz.mesh_explorer(rank=1234),
    "memory": lambda: viz.memory_estimator("GPT-3 175B", "A100"),
    "roofline": lambda: viz.roofline("A100", beside="V100", mine=GPUS["V100"].roofline),
    "parts": lambda: viz.parts({"predicted": vars(STEP), "measured": {"a step": 32.0}}, title="A step"),
    "copies": lambda: show(copies([{"w": torch.ones(3)}, {"w": torch.zeros(3)}])),
    "planner": lambda: viz.planner_explorer(search(MODELS["GPT-3 175B"], SYSTEMS["A100"], 1024, 1536)),
}
