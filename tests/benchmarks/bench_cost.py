"""Evaluating one layout: memory and step time of a plan, with everything computed anew and with layers seen before."""

import random
import statistics
import time

from course_lib.cost import step_time as module
from course_lib.cost.hardware import SYSTEMS
from course_lib.cost.memory import memory_use
from course_lib.cost.plan import Plan
from course_lib.cost.shapes import MODELS
from course_lib.cost.step_time import step_time


def plans(count):
    """Legal plans for the 530-billion model, drawn at random."""
    draw = random.Random(0)
    model, found = MODELS["MT-NLG 530B"], []
    while len(found) < count:
        pp, chunks, tp = draw.choice((1, 5, 7, 15, 35)), draw.choice((1, 3)), draw.choice((1, 2, 4, 8))
        dp, microbatch = draw.choice((1, 2, 9, 16)), draw.choice((1, 2, 4))
        recompute = draw.choice(("none", "selective", "full"))
        batch = dp * microbatch * pp * draw.randint(1, 20)
        try:
            plan = Plan(pp, dp, tp, batch, microbatch, chunks if pp > 1 else 1, recompute, draw.random() < 0.5)
            plan.check_fits(model)
        except ValueError:
            continue
        found.append(plan)
    return model, found


def main():
    """Milliseconds a layout, as medians of blocks of 500; the bar is 0.2."""
    model, found = plans(5000)
    system = SYSTEMS["A100"]
    for name, forget in (("layers computed anew", True), ("layers seen before", False)):
        blocks = []
        for start in range(0, len(found), 500):
            begin = time.perf_counter()
            for plan in found[start : start + 500]:
                if forget:
                    module.layer_time.cache_clear()
                    module.head_time.cache_clear()
                memory_use(model, plan)
                step_time(model, plan, system, 1.1)
            blocks.append((time.perf_counter() - begin) / 500 * 1e3)
        print(f"  {name:22s}{statistics.median(blocks):8.4f} ms a layout ({min(blocks):.4f} to {max(blocks):.4f})")


if __name__ == "__main__":
    main()
