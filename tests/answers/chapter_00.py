"""Answers to the exercise of chapter 00: plausible wrong ones, and right ones that are not the teacher's."""

# task -> (answer, words that the verdict must hold); an answer is a whole cell, `def` included
WRONG = {
    "0.1": [
        ("def who_am_i(): return dist.get_rank(), dist.get_world_size(), dist.get_rank() + 1", "closes|neighbour"),
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
            "RankDeadlock",
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
            "RankDeadlock",
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
}

# task -> answers that must be accepted
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
}
