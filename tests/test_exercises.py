"""The checks of every exercise: plausible wrong answers are rejected for the right reason, unusual right ones accepted.

Most run as a learner runs them, the check cell after the answer; a few go through the grader from end to end.
"""

import json
import re
import shutil
from pathlib import Path

import pytest

from course_lib.grading.grade import Grader

ROOT = Path(__file__).parents[1]

# task -> (answer, words that the verdict must hold); an answer is a whole cell, `def` included
WRONG = {
    "0.1": [
        (
            "def who_am_i(): return dist.get_rank(), dist.get_world_size(), dist.get_rank() + 1",
            "closes|neighbour",
        ),
        (
            "def who_am_i(): return dist.get_world_size(), dist.get_rank(), (dist.get_rank() + 1) % dist.get_world_size()",
            "1 ranks|ranks",
        ),
        ("def who_am_i(): return dist.get_rank(), 4, (dist.get_rank() + 1) % 4", "ranks"),
        (
            "def who_am_i(): return dist.get_rank(), dist.get_world_size(), (dist.get_rank() - 1) % dist.get_world_size()",
            "neighbour",
        ),
        ("def who_am_i(): return None", "TypeError"),
    ],
    "0.2": [
        ("def ping_pong(x, rounds): return x + rounds", "messages that reached rank 1"),
        (
            """def ping_pong(x, rounds):
    if dist.get_rank() == 0: dist.send(x, 1); dist.recv(x, 1)
    else: dist.recv(x, 0); x += rounds; dist.send(x, 0)
    return x""",
            "messages that reached rank 1",
        ),
        (
            """def ping_pong(x, rounds):
    for _ in range(rounds):
        if dist.get_rank() == 0: x += 1; dist.send(x, 1)
        else: dist.recv(x, 0)
    return x * 1.0 + 1""",
            "what rank 0 ends with",
        ),
        (
            """def ping_pong(x, rounds):
    for _ in range(rounds):
        if dist.get_rank() == 0: dist.recv(x, 1); dist.send(x, 1)
        else: dist.recv(x, 0); x += 1; dist.send(x, 0)
    return x""",
            "RankTimeout",
        ),
    ],
    "0.3": [
        ("def all_stuck(x): return x", "ranks waiting"),
        ("import time\ndef all_stuck(x): time.sleep(60)", "ranks waiting"),
        ("def all_stuck(x):\n    while True: pass", "ranks waiting"),
        ("def all_stuck(x):\n    if dist.get_rank() == 0: dist.recv(x, 1)", "ranks waiting|RankError"),
    ],
    "0.4": [
        (
            """def pass_to_the_right(x):
    rank, n = dist.get_rank(), dist.get_world_size()
    y = x.clone()
    if n > 1: dist.send(x, (rank + 1) % n); dist.recv(y, (rank - 1) % n)
    return y""",
            "RankTimeout",
        ),
        (
            """def pass_to_the_right(x):
    rank, n = dist.get_rank(), dist.get_world_size()
    y = x.clone()
    if n > 1:
        s = dist.isend(x, (rank - 1) % n); dist.recv(y, (rank + 1) % n); s.wait()
    return y""",
            "3 ranks",
        ),
        ("def pass_to_the_right(x): return x", "2 ranks"),
        (
            """def pass_to_the_right(x):
    rank, n = dist.get_rank(), dist.get_world_size()
    y = torch.empty_like(x)
    s = dist.isend(x, (rank + 1) % n); dist.recv(y, (rank - 1) % n); s.wait()
    return y""",
            "1 ranks|RankError",
        ),
    ],
    "5.1": [
        (
            "def my_slice(x, rank, n): parts = x.chunk(n); return parts[rank] if rank < len(parts) else x[:0]",
            "9 samples",
        ),
        (
            "def my_slice(x, rank, n): size = len(x) // n; return x[rank * size : (rank + 1) * size]",
            "9 samples",
        ),
        (
            "def my_slice(x, rank, n): size = len(x) // n; return x[rank * size : None if rank == n - 1 else (rank + 1) * size]",
            "samples",
        ),
        ("def my_slice(x, rank, n): return x[rank::n]", "12 samples"),
        (
            "def my_slice(x, rank, n): size = -(-len(x) // n); return x[rank * size : (rank + 1) * size]",
            "9 samples",
        ),
        (
            "def my_slice(x, rank, n): size = len(x) // n; return x[rank * size + 1 : (rank + 1) * size + 1]",
            "12 samples",
        ),
        ("def my_slice(x, rank, n): return x.tensor_split(4)[rank]", "samples"),
    ],
    "5.2": [
        (
            """def average_gradients(model):
    for p in model.parameters():
        if p.grad is not None: dist.all_reduce(p.grad)""",
            "2 ranks.*divide it by the world size",
        ),
        (
            """def average_gradients(model):
    for p in model.parameters():
        if p.grad is not None: dist.all_reduce(p.grad); p.grad /= 2""",
            "1 ranks|3 ranks",
        ),
        (
            """def average_gradients(model):
    for p in model.parameters():
        if p.grad is not None: p.grad /= dist.get_world_size()""",
            "2 ranks",
        ),
        ("def average_gradients(model): pass", "2 ranks"),
        (
            "def average_gradients(model):\n    for p in model.parameters():\n        dist.all_reduce(p.grad)",
            "RankError|Error",
        ),
        (
            """def average_gradients(model):
    for p in model.parameters():
        if p.grad is not None: dist.all_reduce(p.grad, dist.ReduceOp.MAX)""",
            "2 ranks",
        ),
        (
            """def average_gradients(model):
    for p in model.parameters():
        dist.all_reduce(p.data); p.data /= dist.get_world_size()""",
            "2 ranks",
        ),
        (
            """def average_gradients(model):
    for p in list(model.parameters())[:2]:
        dist.all_reduce(p.grad); p.grad /= dist.get_world_size()""",
            "2 ranks",
        ),
        (
            """def average_gradients(model):
    for p in model.parameters():
        if p.grad is not None: dist.broadcast(p.grad, 0)""",
            "2 ranks",
        ),
        (
            """def average_gradients(model):
    for p in model.parameters():
        if p.grad is not None:
            total = p.grad.clone(); dist.all_reduce(total)
            p.grad = p.grad / dist.get_world_size()""",
            "2 ranks",
        ),
    ],
    "5.3": [
        ("def start_as_one(model): pass", "weight on 2 ranks"),
        (
            "def start_as_one(model):\n    for p in model.parameters(): dist.broadcast(p.detach(), 0)",
            "running_mean on 2 ranks.*buffers",
        ),
        ("def start_as_one(model):\n    for b in model.buffers(): dist.broadcast(b, 0)", "weight on 2 ranks"),
        (
            """def start_as_one(model):
    for t in [*model.parameters(), *model.buffers()]:
        if t.requires_grad or not isinstance(t, nn.Parameter): dist.broadcast(t.detach(), 0)""",
            "weight on 2 ranks",
        ),
        (
            """def start_as_one(model):
    for t in [*model.parameters(), *model.buffers()]: dist.broadcast(t.detach(), dist.get_world_size() - 1)""",
            "weight on 2 ranks",
        ),
        (
            """def start_as_one(model):
    for t in model.state_dict().values():
        if t.is_floating_point(): dist.all_reduce(t); t /= dist.get_world_size()""",
            "weight on 2 ranks",
        ),
        (
            "def start_as_one(model): torch.manual_seed(0); [m.reset_parameters() for m in model if hasattr(m, 'reset_parameters')]",
            "weight on 1 ranks",
        ),
    ],
    "5.4": [
        (
            """def average_unequal(model, num_samples):
    for p in model.parameters():
        if p.grad is not None: dist.all_reduce(p.grad); p.grad /= dist.get_world_size()""",
            "7 samples on 2 ranks",
        ),
        (
            """def average_unequal(model, num_samples):
    for p in model.parameters():
        if p.grad is not None: p.grad *= num_samples; dist.all_reduce(p.grad)""",
            "5 samples on 1 ranks",
        ),
        (
            """def average_unequal(model, num_samples):
    for p in model.parameters():
        if p.grad is not None: p.grad *= num_samples; dist.all_reduce(p.grad); p.grad /= num_samples or 1""",
            "7 samples on 2 ranks",
        ),
        (
            """def average_unequal(model, num_samples):
    total = dist.get_world_size() * num_samples
    for p in model.parameters():
        if p.grad is not None: p.grad *= num_samples / max(total, 1); dist.all_reduce(p.grad)""",
            "7 samples on 2 ranks",
        ),
        (
            """def average_unequal(model, num_samples):
    if num_samples == 0: return
    total = torch.tensor(num_samples); dist.all_reduce(total)
    for p in model.parameters():
        if p.grad is not None: p.grad *= num_samples / total.item(); dist.all_reduce(p.grad)""",
            "RankError|RankTimeout",
        ),
    ],
}

RIGHT = {
    "0.1": [
        "def who_am_i():\n    r, n = dist.get_rank(), dist.get_world_size()\n    return [r, n, 0 if r == n - 1 else r + 1]"
    ],
    "0.2": [
        """def ping_pong(x, rounds):
    for _ in range(rounds):
        if dist.get_rank() == 1: dist.recv(x); dist.send(x + 1, 0)
        else: dist.send(x, 1); dist.recv(x)
    return x"""
    ],
    "0.3": [
        "def all_stuck(x): dist.send(x, (dist.get_rank() + 1) % dist.get_world_size())",
        """def all_stuck(x):
    group = dist.new_group([0]); rank = dist.get_rank()
    dist.all_reduce(x) if rank == 0 else dist.recv(x, 0)""",
    ],
    "0.4": [
        """def pass_to_the_right(x):
    rank, n = dist.get_rank(), dist.get_world_size()
    if n == 1: return x
    y = torch.empty_like(x)
    for part in ("send", "recv") if rank % 2 == 0 else ("recv", "send"):
        dist.send(x, (rank + 1) % n) if part == "send" else dist.recv(y, (rank - 1) % n)
    return y""",
        """def pass_to_the_right(x):
    rank, n = dist.get_rank(), dist.get_world_size()
    y = x.clone()
    if n > 1:
        ops = [dist.P2POp(dist.isend, x, (rank + 1) % n), dist.P2POp(dist.irecv, y, (rank - 1) % n)]
        for work in dist.batch_isend_irecv(ops): work.wait()
    return y""",
    ],
    "5.1": [
        "def my_slice(x, rank, n): return x.tensor_split(n)[rank]",
        "def my_slice(x, rank, n):\n    sizes = [len(x) // n + (r < len(x) % n) for r in range(n)]\n    return x.split(sizes)[rank]",
    ],
    "5.2": [
        """def average_gradients(model):
    trained = [p for p in model.parameters() if p.grad is not None]
    flat = torch.cat([p.grad.flatten() for p in trained]); dist.all_reduce(flat); flat /= dist.get_world_size()
    for p, g in zip(trained, flat.split([p.numel() for p in trained])): p.grad = g.view_as(p)""",
        """def average_gradients(model):
    works = [(p, dist.all_reduce(p.grad, async_op=True)) for p in model.parameters() if p.requires_grad]
    for p, work in works: work.wait(); p.grad.div_(dist.get_world_size())""",
        """def average_gradients(model):
    for p in model.parameters():
        if p.grad is not None:
            every = [torch.empty_like(p.grad) for _ in range(dist.get_world_size())]
            dist.all_gather(every, p.grad); p.grad = torch.stack(every).mean(0)""",
    ],
    "5.3": [
        "def start_as_one(model):\n    for t in model.state_dict().values(): dist.broadcast(t, 0)",
        """def start_as_one(model):
    box = [model.state_dict()]; dist.broadcast_object_list(box, src=0); model.load_state_dict(box[0])""",
    ],
    "5.4": [
        """def average_unequal(model, num_samples):
    counts = torch.tensor([float(num_samples)], dtype=torch.float64); dist.all_reduce(counts)
    for p in filter(lambda p: p.grad is not None, model.parameters()):
        p.grad.mul_(num_samples); dist.all_reduce(p.grad); p.grad.div_(counts.item())"""
    ],
}


def cells_of(name):
    notebook = json.loads((ROOT / "solutions" / f"{name}.ipynb").read_text("utf-8"))
    return [
        (cell["id"], "".join(cell["source"])) for cell in notebook["cells"] if cell["cell_type"] == "code"
    ]


NAMES = {
    path.stem.split("_")[0].lstrip("0") or "0": path.stem for path in (ROOT / "solutions").glob("*.ipynb")
}


def verdict(task, answer, capsys):
    """What the check of one task says of an answer, the other cells being the teacher's."""
    number = task.replace(".", "-")
    space = {"__name__": "__main__"}
    for cell_id, source in cells_of(NAMES[task.split(".")[0]]):
        if cell_id.startswith("check-") and cell_id != f"check-{number}":
            continue
        if cell_id == f"check-{number}":
            capsys.readouterr()
        exec(answer if cell_id == f"answer-{number}" else source, space)
        if cell_id == f"check-{number}":
            return [line for line in capsys.readouterr().out.splitlines() if line[:1] in "✓✗○"][-1]
    raise AssertionError(f"there is no check of task {task}")


def cases(table):
    return [
        pytest.param(task, case, id=f"{task}-{number}")
        for task, found in table.items()
        for number, case in enumerate(found)
    ]


@pytest.mark.parametrize(("task", "case"), cases(WRONG))
def test_a_wrong_answer_is_rejected_with_its_reason(task, case, capsys, monkeypatch):
    monkeypatch.setenv("COURSE_SEED", "20261123")
    answer, words = case
    said = verdict(task, answer, capsys)
    assert said.startswith(f"✗ Task {task}:") and re.search(words, said), said


@pytest.mark.parametrize(("task", "case"), cases(RIGHT))
def test_an_unusual_right_answer_is_accepted(task, case, capsys, monkeypatch):
    for seed in (
        ("1",) if task == "0.3" else ("0", "1", "987654321")
    ):  # each look at a deadlock takes two seconds
        monkeypatch.setenv("COURSE_SEED", seed)
        assert verdict(task, case, capsys).startswith(f"✓ Task {task}:")


def test_every_task_has_wrong_and_right_answers():
    tasks = {
        cell_id[6:].replace("-", ".")
        for name in NAMES.values()
        for cell_id, _ in cells_of(name)
        if cell_id.startswith("check-")
    }
    assert set(WRONG) == set(RIGHT) == tasks


@pytest.fixture(scope="module")
def grader():
    return Grader()


def hand_in(folder, name, answers):
    """The exercise with its answers filled in: the solution's, or those given by task."""
    solved = dict(cells_of(name))
    path = folder / f"{name}.ipynb"
    shutil.copy(ROOT / "exercises" / f"{name}.ipynb", path)
    notebook = json.loads(path.read_text("utf-8"))
    for cell in notebook["cells"]:
        if cell["id"].startswith("answer-"):
            cell["source"] = answers.get(cell["id"][7:].replace("-", "."), solved[cell["id"]])
    path.write_text(json.dumps(notebook), "utf-8")
    return path


def lost(result):
    return [row.task for row in result.tasks if row.result != "passed"]


@pytest.mark.parametrize("name", NAMES.values())
def test_solved_as_in_the_solution_gets_full_marks_and_unsolved_none(name, grader, tmp_path):
    assert lost(grader.grade(hand_in(tmp_path, name, {}), solutions_near=[ROOT])) == []
    result = grader.grade(ROOT / "exercises" / f"{name}.ipynb", solutions_near=[ROOT])
    assert lost(result) == [row.task for row in result.tasks] != []


def test_sum_and_missing_broadcast_lose_exactly_their_tasks(grader, tmp_path):
    wrong = {"5.2": WRONG["5.2"][0][0], "5.3": WRONG["5.3"][0][0]}
    result = grader.grade(hand_in(tmp_path, NAMES["5"], wrong), solutions_near=[ROOT])
    assert lost(result) == ["5.2", "5.3"]
    reasons = {row.task: row.why + row.hint for row in result.tasks}
    assert "divide" in reasons["5.2"] and "broadcast" in reasons["5.3"]
