"""`course train` as it stands, 4 ranks: the loss that it reaches and how long it takes; and how long a checkpoint takes."""

import tempfile
import time
from dataclasses import replace

import torch.distributed as dist

from course_lib import checkpoint, launch
from course_lib.parallel.hybrid import HybridParallel
from course_lib.train.loop import batch_of, gpt, train
from course_lib.train.options import Options

ROUNDS = 5


def checkpoints(options, folder):
    """On a rank: seconds of each save, and of each load."""
    layout = options.layout(dist.get_world_size())
    hybrid = HybridParallel(gpt(options), layout, zero=options.zero)
    hybrid.step(*batch_of(options, 0))
    saves, loads = [], []
    for step in range(ROUNDS):
        dist.barrier()
        begin = time.perf_counter()
        path = checkpoint.save(hybrid, folder, step, {})
        saves.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        checkpoint.load(hybrid, path)
        dist.barrier()
        loads.append(time.perf_counter() - begin)
    return min(saves), min(loads)


def main():
    """Print the curve's end, seconds and speed; then the best of a few saves and loads by layout."""
    options = Options()
    begin = time.perf_counter()
    run = launch(train, options.wanted_ranks, options, timeout_s=600)
    losses = run[0]["losses"]
    below = next((step for step in range(20, len(losses)) if sum(losses[step - 20 : step]) / 20 < 2.3), None)
    print(
        f"loss {losses[0]:.2f} -> {sum(losses[-20:]) / 20:.3f} nats a byte in {len(losses)} steps, "
        f"{time.perf_counter() - begin:.0f} s with the start of the ranks, {run[0]['tokens_per_s']:,.0f} tokens/s; "
        f"the mean of 20 steps is below 2.3 from step {below} on"
    )
    for name, changed in (("dp 4", {}), ("dp 4, ZeRO-1", {"zero": 1}), ("dp 2 × tp 2, ZeRO-3", {"tp": 2, "zero": 3})):
        with tempfile.TemporaryDirectory() as folder:
            best = launch(checkpoints, 4, replace(options, **changed), folder, timeout_s=300)
        save, load = max(best)
        print(f"  checkpoint of {name}: saved in {1000 * save:.0f} ms, loaded in {1000 * load:.0f} ms")


if __name__ == "__main__":
    main()
