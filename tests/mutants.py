"""`make mutants`: plants some thirty faults in a copy of the library, one at a time, and shows that the tests catch each of them.

A fault is one line changed: in which file, what stands there, what is put in its place, and the tests that are to fail. Not part of
`make test`: it takes half an hour.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUCKETS, SHARDED = "tests/test_parallel_buckets.py", "tests/test_parallel_sharded.py"
VOCABULARY, CONTEXT = "tests/test_parallel_vocabulary.py", "tests/test_parallel_context.py"
FAULTS = [  # file, what stands there, what is put in its place, tests
    ("parallel/data.py", "            gradient /= self.world_size", "            pass", "tests/test_parallel_data.py"),
    ("parallel/data.py", "dist.ReduceOp.MAX, group", "dist.ReduceOp.MIN, group", "tests/test_parallel_data.py"),
    ("parallel/data.py", "torch.div(parameter.grad, self.world_size, out=slot)", "slot.copy_(parameter.grad)", BUCKETS),
    ("parallel/data.py", "if parameter in unused:", "if False:", BUCKETS),
    (
        "parallel/broadcast_model.py",
        "dist.broadcast(tensor.detach(), group=group, group_src=0)",
        "pass",
        "tests/test_parallel_data.py",
    ),
    ("parallel/clip.py", " ** 2 / count", " ** 2", "tests/test_parallel_hybrid.py"),
    ("parallel/clip.py", "    dist.all_reduce(square, group=group)", "    pass", "tests/test_parallel_zero.py"),
    (
        "parallel/zero.py",
        "dist.ReduceOp.MAX, group=self._group",
        "dist.ReduceOp.MIN, group=self._group",
        "tests/test_parallel_zero.py",
    ),
    ("parallel/sharded_bucket.py", "-1).mean(0)", "-1).sum(0)", "tests/test_parallel_zero.py"),
    ("parallel/fsdp_collectives.py", "total[:-count] /= message.world_size", "pass", SHARDED),
    ("parallel/fsdp_collectives.py", "shard.grad += mean", "shard.grad = mean", SHARDED),
    ("parallel/fsdp_by_hand.py", "self.shard.grad /= self.n", "pass", "tests/test_fsdp_by_hand.py"),
    ("parallel/tensor.py", "grad_x.addmm_(grad, weight)", "pass", "tests/test_parallel_tensor.py"),
    ("parallel/tensor.py", "return y if bias is None else y.add_(bias)", "return y", "tests/test_parallel_tensor.py"),
    ("parallel/vocabulary.py", "dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)", "pass", VOCABULARY),
    ("parallel/vocabulary.py", "weights /= weights.sum()", "weights /= weights.numel()", VOCABULARY),
    ("parallel/ring_attention.py", "output[:, rows] * shrink, powers", "output[:, rows], powers", CONTEXT),
    ("parallel/ring_attention.py", "home += relay.arrived()", "relay.arrived()", CONTEXT),
    ("parallel/pipeline.py", "self.targets[i]) / self.m", "self.targets[i])", "tests/test_parallel_pipeline.py"),
    (
        "parallel/hybrid.py",
        "total * self.layout.pp / self.layout",
        "total / self.layout",
        "tests/test_parallel_hybrid.py",
    ),
    ("parallel/hybrid.py", "1 if name in self.splits else self.layout.tp", "1", "tests/test_parallel_hybrid.py"),
    ("checkpoint/shards.py", "local[split.dim] * dist.get_rank(split.group)", "0", "tests/test_checkpoint.py"),
    ("collectives/rings.py", "    reduction.finish(output, me.size)", "    pass", "tests/test_collectives.py"),
    ("schedules/loops.py", "first = (v - 1) * a_round", "first = v * a_round", "tests/test_schedules.py"),
    (
        "ranks/match.py",
        '"size", "reduction", "root")',
        '"size", "reduction")',
        "tests/test_match.py tests/test_faults.py",
    ),
    (
        "ranks/stall.py",
        "any(rank in may_go_on for",
        "all(rank in may_go_on for",
        "tests/test_stalls.py tests/test_false_alarms.py",
    ),
    (
        "ranks/stall.py",
        "for rank in needs} & gone",
        "for rank in needs} & set()",
        "tests/test_stalls.py tests/test_faults.py",
    ),
    (
        "ranks/operations.py",
        "t.numel() * t.element_size() for",
        "t.numel() for",
        "tests/test_recording.py tests/test_trace.py",
    ),
    (
        "grading/submission.py",
        "cell.source = without_orders(answers[cell.id])",
        "cell.source = answers[cell.id]",
        "tests/test_grading.py",
    ),
    (
        "grading/values.py",
        "return float(got) <= float(bound)",
        "return float(got) < float(bound)",
        "tests/test_checks.py",
    ),
    ("cost/memory.py", "* min(1, m / p)", "* 1", "tests/test_cost_memory.py"),
    (
        "cost/step_time.py",
        "_OPTIMIZER_BYTES = 60",
        "_OPTIMIZER_BYTES = 30",
        "tests/test_cost_step_time.py tests/test_published.py",
    ),
    ("cost/communication.py", "(n - 1) / n * nbytes", "nbytes", "tests/test_cost_communication.py"),
]


def plant(root: Path, file: str, old: str, new: str) -> None:
    """Change one place of a file. Raises ValueError unless it is there exactly once."""
    path = root / "course_lib" / file
    source = path.read_text("utf-8")
    if source.count(old) != 1:
        raise ValueError(f"{file} has {source.count(old)} times, not once: {old}")
    path.write_text(source.replace(old, new), "utf-8")


def caught(root: Path, tests: str) -> tuple[bool, str]:
    """Whether the tests fail, and the last line of what they say."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests.split()]
    environment = os.environ | {"PYTHONPATH": str(root)}
    ran = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=600)
    failed = [line for line in ran.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return ran.returncode == 1 and bool(failed), (failed or ran.stdout.splitlines()[-1:])[0][:100]


def main() -> int:
    """Print a line for each fault; the number of those that no test caught."""
    lived = 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "course"
        for file, old, new, tests in FAULTS:
            shutil.rmtree(root, ignore_errors=True)
            shutil.copytree(ROOT, root, ignore=shutil.ignore_patterns(".venv", ".git", "__pycache__"))
            plant(root, file, old, new)
            begin = time.monotonic()
            found, said = caught(root, tests)
            lived += not found
            print(
                f"{'caught' if found else 'LIVES ':7s}{time.monotonic() - begin:4.0f} s  {file}: {new.strip()}\n    {said}",
                flush=True,
            )
    print(f"{len(FAULTS) - lived} of {len(FAULTS)} faults were caught")
    return lived


if __name__ == "__main__":
    sys.exit(main())
