"""Answers to the exercise of chapter 03: plausible wrong ones, and right ones that are not the teacher's."""

GATHER = """def ring_all_gather(mine):
    rank, n = dist.get_rank(), dist.get_world_size()
    gathered = [torch.zeros_like(mine) for _ in range(n)]
    gathered[rank].copy_(mine)
    for step in range(n - 1):
        sending = dist.isend(gathered[(rank - step) % n], (rank + 1) % n)
        dist.recv(gathered[(rank - step - 1) % n], (rank - 1) % n)
        sending.wait()
    return gathered"""

REDUCE = """def ring_all_reduce(x):
    rank, n = dist.get_rank(), dist.get_world_size()
    chunks = x.tensor_split(n)
    for step in range(n - 1):
        mine = chunks[(rank - 2 - step) % n]
        incoming = torch.zeros_like(mine)
        sending = dist.isend(chunks[(rank - 1 - step) % n], (rank + 1) % n)
        dist.recv(incoming, (rank - 1) % n)
        sending.wait()
        mine += incoming
    for step in range(n - 1):
        sending = dist.isend(chunks[(rank - step) % n], (rank + 1) % n)
        dist.recv(chunks[(rank - 1 - step) % n], (rank - 1) % n)
        sending.wait()"""

EDGES = """def edges(x, k):
    rank, n = dist.get_rank(), dist.get_world_size()
    left, right = (rank - 1) % n, (rank + 1) % n
    from_left, from_right = x.new_zeros(k), x.new_zeros(k)
    sending = [dist.isend(x[-k:], right), dist.isend(x[:k], left)]
    dist.recv(from_left, left)
    dist.recv(from_right, right)
    for work in sending:
        work.wait()
    return from_left, from_right"""

FIT = """def fit(sizes, seconds):
    beta, alpha = np.polyfit(sizes, seconds, 1)
    return alpha, beta
"""

FASTER = """def faster(n, nbytes, alpha, beta):
    ring = 2 * (n - 1) * (alpha + beta * nbytes / n)
    doubling = np.log2(n) * (alpha + beta * nbytes)
    return "ring" if ring < doubling else "doubling"
"""


def but(answer, *changes):
    """The answer with one thing in it changed."""
    for old, new in changes:
        assert old in answer, old
        answer = answer.replace(old, new)
    return answer


ISEND = "sending = dist.isend("
GATHER_BLOCKING = but(GATHER, (ISEND, "dist.send("), ("        sending.wait()\n", ""))
REDUCE_BLOCKING = but(REDUCE, (ISEND, "dist.send("), ("        sending.wait()", "        pass"))

# task -> (answer, words that the verdict must hold); an answer is a whole cell, `def` included
WRONG = {
    "3.1": [
        (but(GATHER, ("gathered[(rank - step - 1)", "gathered[(rank + step + 1)")), "list.*tensor of rank"),
        (but(GATHER, ("gathered[(rank - step) % n]", "gathered[rank]")), "list"),
        (but(GATHER, ("range(n - 1)", "range(n - 2)")), "list"),
        (but(GATHER, ("range(n - 1)", "range(n)")), "messages sent.*n - 1 steps"),
        (but(GATHER, ("range(n - 1)", "range(n + 1 if n > 1 else 0)")), "messages sent.*n - 1 steps"),
        (GATHER_BLOCKING, "RankDeadlock: deadlock.*waits in send"),
        (but(GATHER, ("dist.get_world_size()", "4")), "RankError|list"),
        (but(GATHER, ("(rank + 1) % n)", "1 % n)")), "RankDeadlock|RankError|list"),
        (
            but(
                GATHER,
                ("(rank + 1) % n)", "(rank - 1) % n)"),
                (
                    "dist.recv(gathered[(rank - step - 1) % n], (rank - 1)",
                    "dist.recv(gathered[(rank + step + 1) % n], (rank + 1)",
                ),
                ("gathered[(rank - step) % n]", "gathered[(rank + step) % n]"),
            ),
            "sent to.*right neighbour only",
        ),
        (
            """def ring_all_gather(mine):
    rank, n = dist.get_rank(), dist.get_world_size()
    gathered = [torch.zeros_like(mine) for _ in range(n)]
    gathered[rank].copy_(mine)
    works = [dist.isend(mine, r) for r in range(n) if r != rank]
    for r in range(n):
        if r != rank: dist.recv(gathered[r], r)
    for work in works: work.wait()
    return gathered""",
            "sent to.*right neighbour only",
        ),
        (
            """def ring_all_gather(mine):
    gathered = [torch.zeros_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, mine)
    return gathered""",
            "PyTorch's own collectives.*only send, recv",
        ),
        (
            """def ring_all_gather(mine):
    rank, n = dist.get_rank(), dist.get_world_size()
    gathered = [None] * n
    gathered[rank] = mine.clone()
    for step in range(n - 1):
        outgoing = mine.clone()
        sending = dist.isend(outgoing, (rank + 1) % n)
        dist.recv(mine, (rank - 1) % n)
        sending.wait()
        gathered[(rank - step - 1) % n] = mine.clone()
    return gathered""",
            "mine afterwards.*leave mine as it is",
        ),
        (
            """def ring_all_gather(mine):
    rank, n = dist.get_rank(), dist.get_world_size()
    gathered, current = [mine], mine
    for step in range(n - 1):
        arrived = torch.zeros_like(mine)
        sending = dist.isend(current, (rank + 1) % n)
        dist.recv(arrived, (rank - 1) % n)
        sending.wait()
        gathered.append(arrived); current = arrived
    return gathered""",
            "list",  # in the order of arrival
        ),
        (
            """def ring_all_gather(mine):
    rank, n = dist.get_rank(), dist.get_world_size()
    gathered = torch.zeros(n, *mine.shape, dtype=mine.dtype)
    gathered[rank] = mine
    for step in range(n - 1):
        arrived = torch.zeros_like(gathered)
        sending = dist.isend(gathered, (rank + 1) % n)
        dist.recv(arrived, (rank - 1) % n)
        sending.wait()
        arrived[rank] = mine; gathered = arrived
    return list(gathered)""",
            "bytes sent.*no more",
        ),
        ("def ring_all_gather(mine): return [mine] * dist.get_world_size()", "list"),
    ],
    "3.2": [
        (but(REDUCE, ("chunks[(rank - 2 - step) % n]", "chunks[(rank - 1 - step) % n]")), "sum|Mismatch|RankError"),
        (but(REDUCE, ("chunks[(rank - step) % n]", "chunks[(rank - 1 - step) % n]")), "sum|Mismatch|RankError"),
        (but(REDUCE, ("range(n - 1)", "range(n - 2)")), "sum.*start with ones"),
        (but(REDUCE, ("mine += incoming", "mine.copy_(incoming)")), "sum"),
        (but(REDUCE, ("mine += incoming", "mine = mine + incoming")), "sum"),
        (
            but(
                REDUCE,
                (
                    "dist.recv(chunks[(rank - 1 - step) % n],",
                    "incoming = torch.zeros_like(chunks[(rank - 1 - step) % n]); dist.recv(incoming,",
                ),
            )
            + "; chunks[(rank - 1 - step) % n].add_(incoming)",
            "sum",
        ),
        (but(REDUCE, ("x.tensor_split(n)", "[x[i * (len(x) // n):][:len(x) // n] for i in range(n)]")), "sum"),
        (but(REDUCE, ("x.tensor_split(n)", "x.chunk(n)")), "IndexError"),
        (but(REDUCE, ("x.tensor_split(n)", "x.view(n, -1)")), "RuntimeError|shape"),
        (but(REDUCE, ("x.tensor_split(n)", "x.clone().tensor_split(n)")), "sum.*x itself"),
        (REDUCE_BLOCKING, "RankDeadlock: deadlock.*waits in send"),
        (but(REDUCE, ("dist.get_world_size()", "4")), "RankDeadlock|RankError|sum"),
        (REDUCE + "\n    x /= n", "sum"),
        ("def ring_all_reduce(x): dist.all_reduce(x)", "PyTorch's own collectives.*only send, recv"),
        (
            """def ring_all_reduce(x):
    rank, n = dist.get_rank(), dist.get_world_size()
    total, current = x.clone(), x.clone()
    for step in range(n - 1):
        incoming = torch.zeros_like(x)
        sending = dist.isend(current, (rank + 1) % n)
        dist.recv(incoming, (rank - 1) % n)
        sending.wait()
        current = incoming; total += incoming
    x.copy_(total)""",
            "bytes sent by 4 ranks.*too many bytes",
        ),
        (
            """def ring_all_reduce(x):
    rank, n = dist.get_rank(), dist.get_world_size()
    if rank == 0:
        part = torch.zeros_like(x)
        for r in range(1, n): dist.recv(part, r); x += part
        for r in range(1, n): dist.send(x, r)
    else:
        dist.send(x, 0); dist.recv(x, 0)""",
            "bytes sent by one of 4 ranks.*more than its share",
        ),
        (
            "def ring_all_reduce(x):\n    n = dist.get_world_size()\n"
            "    padded = torch.cat([x, x.new_zeros(-len(x) % n)])\n    in_place(padded); x.copy_(padded[:len(x)])\n"
            + REDUCE.replace("ring_all_reduce", "in_place"),
            "bytes sent by 5 ranks.*too many bytes",
        ),
        (
            "def ring_all_reduce(x):\n    n = dist.get_world_size()\n"
            "    for part in x.split(n): in_place(part)\n" + REDUCE.replace("ring_all_reduce", "in_place"),
            "messages sent by one of 4 ranks.*too many messages",
        ),
    ],
    "3.3": [
        (
            but(
                EDGES,
                (
                    "    sending = [dist.isend(x[-k:], right), dist.isend(x[:k], left)]\n",
                    "    dist.send(x[-k:], right)\n",
                ),
                ("    for work in sending:\n        work.wait()\n", ""),
                ("dist.recv(from_left, left)", "dist.recv(from_left, left); dist.send(x[:k], left)"),
            ),
            "RankDeadlock: deadlock.*waits in send",
        ),
        (
            """def edges(x, k):
    rank, n = dist.get_rank(), dist.get_world_size()
    left, right = (rank - 1) % n, (rank + 1) % n
    a, b = x.new_zeros(k), x.new_zeros(k)
    dist.recv(a, left); dist.send(x[-k:], right); dist.recv(b, right); dist.send(x[:k], left)
    return a, b""",
            "RankDeadlock: deadlock.*waits in recv",
        ),
        (
            but(
                EDGES,
                (
                    "    dist.recv(from_left, left)\n    dist.recv(from_right, right)\n",
                    "    dist.recv(from_right, right)\n    dist.recv(from_left, left)\n",
                ),
            ),
            "edges on 2 ranks.*in the order in which it sends",
        ),
        (
            but(
                EDGES,
                ("isend(x[-k:], right), dist.isend(x[:k], left)", "isend(x[:k], right), dist.isend(x[-k:], left)"),
            ),
            "edges on 3 ranks.*first the left",
        ),
        (
            but(EDGES, ("return from_left, from_right", "return from_right, from_left")),
            "edges on 3 ranks.*first the left",
        ),
        (but(EDGES, ("(rank - 1) % n, (rank + 1) % n", "rank - 1, rank + 1")), "Error"),
        (but(EDGES, ("dist.get_world_size()", "3")), "Error|edges|Deadlock"),
        (
            """def edges(x, k):
    rank, n = dist.get_rank(), dist.get_world_size()
    every = [torch.zeros_like(x) for _ in range(n)]
    dist.all_gather(every, x)
    return every[rank - 1][-k:], every[(rank + 1) % n][:k]""",
            "PyTorch's own collectives.*only send, recv",
        ),
        (
            but(
                EDGES,
                ("x.new_zeros(k), x.new_zeros(k)", "torch.zeros_like(x), torch.zeros_like(x)"),
                ("dist.isend(x[-k:], right), dist.isend(x[:k], left)", "dist.isend(x, right), dist.isend(x, left)"),
                ("return from_left, from_right", "return from_left[-k:], from_right[:k]"),
            ),
            "bytes sent.*too many bytes",
        ),
        (
            but(
                EDGES,
                ("sending = [", "ready = torch.zeros(1); sending = [dist.isend(ready, right), "),
                (
                    "    dist.recv(from_left, left)",
                    "    dist.recv(torch.zeros(1), left)\n    dist.recv(from_left, left)",
                ),
            ),
            "messages sent.*one to each neighbour",
        ),
    ],
    "3.4": [
        (but(FIT, ("return alpha, beta", "return beta, alpha")) + FASTER, "alpha in microseconds"),
        (but(FIT, ("return alpha, beta", "return alpha, 1 / beta")) + FASTER, "bandwidth 1/beta.*slope"),
        (
            "def fit(sizes, seconds): return 0.0, float((sizes * seconds).sum() / (sizes**2).sum())\n" + FASTER,
            "alpha in microseconds.*value at 0",
        ),
        (
            "def fit(sizes, seconds): return seconds[0], (seconds[-1] - seconds[0]) / (sizes[-1] - sizes[0])\n"
            + FASTER,
            "alpha in microseconds.*value at 0",
        ),
        (but(FIT, ("return alpha, beta", "return alpha, seconds[-1] / sizes[-1]")) + FASTER, "bandwidth 1/beta"),
        (FIT + but(FASTER, ("2 * (n - 1)", "(n - 1)")), "faster"),
        (FIT + but(FASTER, ("nbytes / n", "nbytes")), "faster"),
        (FIT + but(FASTER, ("2 * (n - 1)", "2 * n")), "faster"),
        (FIT + but(FASTER, ("np.log2", "np.log")), "faster"),
        (FIT + but(FASTER, ("np.log2(n) * (alpha", "2 * np.log2(n) * (alpha")), "faster"),
        (FIT + but(FASTER, ("ring < doubling", "ring > doubling")), "faster"),
        (FIT + "def faster(n, nbytes, alpha, beta): return 'ring'\n", "faster"),
        (FIT + "def faster(n, nbytes, alpha, beta): return 'ring' if nbytes > 1_000_000 else 'doubling'\n", "faster"),
    ],
}

# task -> answers that must be accepted
RIGHT = {
    "3.1": [
        """def ring_all_gather(mine):
    rank, n = dist.get_rank(), dist.get_world_size()
    arrived = [mine.clone()]
    for step in range(n - 1):
        incoming = torch.empty_like(mine)
        works = [dist.irecv(incoming, (rank - 1) % n), dist.isend(arrived[-1], (rank + 1) % n)]
        for work in works: work.wait()
        arrived.append(incoming)
    return [arrived[(rank - r) % n] for r in range(n)]""",
        """def ring_all_gather(mine):
    rank, n = dist.get_rank(), dist.get_world_size()
    gathered = torch.empty(n, *mine.shape, dtype=mine.dtype)
    gathered[rank] = mine
    for step in range(n - 1):
        there = dist.P2POp(dist.isend, gathered[(rank - step) % n], (rank + 1) % n)
        here = dist.P2POp(dist.irecv, gathered[(rank - step - 1) % n], (rank - 1) % n)
        for work in dist.batch_isend_irecv([there, here]): work.wait()
    return gathered.unbind()""",
        """def ring_all_gather(mine):
    rank, n = dist.get_rank(), dist.get_world_size()
    gathered = [torch.empty_like(mine) for _ in range(n)]
    gathered[rank] = mine
    for step in range(n - 1):
        calls = [lambda: dist.send(gathered[(rank - step) % n], (rank + 1) % n),
                 lambda: dist.recv(gathered[(rank - step - 1) % n], (rank - 1) % n)]
        for call in calls if rank % 2 else calls[::-1]: call()
    return gathered""",
    ],
    "3.2": [
        REDUCE,
        """def ring_all_reduce(x):
    # the other way round the ring, and another rank ends with another chunk
    rank, n = dist.get_rank(), dist.get_world_size()
    chunks = list(x.tensor_split(n))
    for step in range(n - 1):
        mine = chunks[(rank + step + 1) % n]
        incoming = torch.empty_like(mine)
        works = [dist.irecv(incoming, (rank + 1) % n), dist.isend(chunks[(rank + step) % n], (rank - 1) % n)]
        for work in works: work.wait()
        mine.add_(incoming)
    for step in range(n - 1):
        works = [dist.irecv(chunks[(rank + step) % n], (rank + 1) % n)]
        works += [dist.isend(chunks[(rank + step - 1) % n], (rank - 1) % n)]
        for work in works: work.wait()""",
        """def ring_all_reduce(x):
    # no ring at all: everybody adds up one chunk for everybody, directly
    rank, n = dist.get_rank(), dist.get_world_size()
    chunks = x.tensor_split(n)
    others = [r for r in range(n) if r != rank]
    works = [dist.isend(chunks[r].clone(), r) for r in others]
    for r in others:
        part = torch.empty_like(chunks[rank]); dist.recv(part, r); chunks[rank].add_(part)
    for work in works: work.wait()
    works = [dist.isend(chunks[rank], r) for r in others]
    for r in others: dist.recv(chunks[r], r)
    for work in works: work.wait()""",
    ],
    "3.3": [
        """def edges(x, k):
    rank, n = dist.get_rank(), dist.get_world_size()
    left, right = (rank - 1) % n, (rank + 1) % n
    a, b = x.new_empty(k), x.new_empty(k)
    works = [dist.irecv(a, left, tag=1), dist.irecv(b, right, tag=2)]
    works += [dist.isend(x[:k], left, tag=2), dist.isend(x[-k:], right, tag=1)]
    for work in works: work.wait()
    return a, b""",
        """def edges(x, k):
    rank, n = dist.get_rank(), dist.get_world_size()
    left, right = (rank - 1) % n, (rank + 1) % n
    a, b = x.new_empty(k), x.new_empty(k)
    if rank == 0:
        dist.send(x[-k:], right); dist.recv(a, left); dist.send(x[:k], left); dist.recv(b, right)
    else:
        dist.recv(a, left); dist.send(x[-k:], right); dist.recv(b, right); dist.send(x[:k], left)
    return a, b""",
        """def edges(x, k):
    rank, n = dist.get_rank(), dist.get_world_size()
    left, right = (rank - 1) % n, (rank + 1) % n
    got = []
    for piece, to, source in ((x[-k:], right, left), (x[:k], left, right)):
        sending, room = dist.isend(piece, to), torch.zeros(k, dtype=x.dtype)
        dist.recv(room, source); sending.wait(); got.append(room)
    return got""",
    ],
    "3.4": [
        """def fit(sizes, seconds):
    rows = np.stack([1 / seconds, sizes / seconds], axis=1)
    alpha, beta = np.linalg.lstsq(rows, np.ones(len(sizes)), rcond=None)[0]
    return alpha, beta
"""
        + FASTER,
        """def fit(sizes, seconds):
    beta = (seconds[1] - seconds[0]) / (sizes[1] - sizes[0])
    return seconds[0] - beta * sizes[0], beta
def faster(n, nbytes, alpha, beta):
    steps = n.bit_length() - 1
    return min(("doubling", steps * alpha + steps * nbytes * beta), ("ring", (2*n - 2) * alpha + (2 - 2/n) * nbytes * beta), key=lambda p: p[1])[0]
""",
        FIT
        + """def faster(n, nbytes, alpha, beta):
    steps = np.log2(n)
    if n == 2: return "doubling"
    return "ring" if nbytes > alpha / beta * (2 * (n - 1) - steps) / (steps - 2 * (n - 1) / n) else "doubling"
""",
    ],
}
