"""A collective as data: in which step which chunk goes from which rank to which.

This is what is drawn, and what a test holds a real run to.
Chunks: 0 is a whole tensor where nobody cuts it (broadcast, reduce, all-reduce by doubling or by a tree); otherwise
chunk r is the part that belongs to rank r; in an all-to-all chunk n·i + j is what rank i has for rank j.
"""

from dataclasses import dataclass

Holdings = tuple[
    dict[int, frozenset[int]], ...
]  # of each rank: chunk -> the ranks whose contribution is in it
ALGORITHMS = {
    "broadcast": ("tree", "flat"),
    "scatter": ("flat",),
    "gather": ("flat",),
    "reduce": ("tree",),
    "all_gather": ("ring",),
    "reduce_scatter": ("ring",),
    "all_reduce": ("ring", "doubling", "reduce_broadcast"),
    "all_to_all": ("pairwise",),
}


@dataclass(frozen=True, slots=True)
class Move:
    """One message: `chunk` goes from rank src to rank dst, which adds it to its own (combine) or keeps it as it is."""

    src: int
    dst: int
    chunk: int
    combine: bool = False


Steps = list[list[Move]]


def moves(operation: str, algorithm: str | None = None, world_size: int = 4) -> Steps:
    """The messages of a collective, step by step; within a step in the order in which each rank sends them.

    algorithm: None is the operation's first one in ALGORITHMS. The root of a rooted collective is rank 0.
    Raises ValueError for an unknown operation or algorithm, or a world size below 1.
    """
    algorithm = chosen(operation, algorithm)
    if not isinstance(world_size, int) or isinstance(world_size, bool) or world_size < 1:
        raise ValueError(f"world_size must be a whole number of at least 1, not {world_size!r}.")
    return _MAKE[operation, algorithm](world_size)


def chosen(operation: str, algorithm: str | None) -> str:
    """The algorithm's name, the usual one for None. Raises ValueError for one that is not there."""
    if operation not in ALGORITHMS:
        raise ValueError(f"operation is {operation!r}: there are {', '.join(ALGORITHMS)}.")
    if algorithm is None:
        return ALGORITHMS[operation][0]
    if algorithm not in ALGORITHMS[operation]:
        known = " and ".join(ALGORITHMS[operation])
        raise ValueError(f"algorithm is {algorithm!r}: {operation} has {known}.")
    return algorithm


def num_chunks(operation: str, algorithm: str, world_size: int) -> int:
    """How many chunks a rank has room for side by side."""
    is_whole = operation in ("broadcast", "reduce") or algorithm in ("doubling", "reduce_broadcast")
    return 1 if is_whole else world_size


def initial(operation: str, algorithm: str, world_size: int) -> Holdings:
    """What every rank holds before the first step."""
    ranks = range(world_size)
    chunks = range(num_chunks(operation, algorithm, world_size))
    if operation in ("broadcast", "scatter"):
        return tuple({c: frozenset({0}) for c in chunks} if rank == 0 else {} for rank in ranks)
    if operation in ("gather", "all_gather"):
        return tuple({rank: frozenset({rank})} for rank in ranks)
    if operation == "all_to_all":
        return tuple({world_size * rank + to: frozenset({rank}) for to in ranks} for rank in ranks)
    return tuple({c: frozenset({rank}) for c in chunks} for rank in ranks)


def final(operation: str, algorithm: str, world_size: int) -> Holdings:
    """What the operation promises: of each rank the chunks it asked for. It may hold more, left over from the way there."""
    ranks = range(world_size)
    chunks = range(num_chunks(operation, algorithm, world_size))
    everyone = frozenset(ranks)
    if operation == "broadcast":
        return tuple({0: frozenset({0})} for _ in ranks)
    if operation == "scatter":
        return tuple({rank: frozenset({0})} for rank in ranks)
    if operation == "gather":
        return tuple({c: frozenset({c}) for c in chunks} if rank == 0 else {} for rank in ranks)
    if operation == "reduce":
        return tuple({0: everyone} if rank == 0 else {} for rank in ranks)
    if operation == "all_gather":
        return tuple({c: frozenset({c}) for c in chunks} for _ in ranks)
    if operation == "reduce_scatter":
        return tuple({rank: everyone} for rank in ranks)
    if operation == "all_to_all":
        return tuple({world_size * src + rank: frozenset({src}) for src in ranks} for rank in ranks)
    return tuple(dict.fromkeys(chunks, everyone) for _ in ranks)


def apply(holdings: Holdings, step: list[Move]) -> Holdings:
    """What every rank holds after a step, in which all messages leave before any arrives.

    Raises ValueError for a move of a chunk that its sender lacks, or a sum that would count a contribution twice.
    """
    after = tuple(dict(held) for held in holdings)
    for move in step:
        chunk = holdings[move.src].get(move.chunk)
        if chunk is None:
            raise ValueError(f"rank {move.src} has no chunk {move.chunk} to send to rank {move.dst}.")
        mine = after[move.dst].get(move.chunk, frozenset()) if move.combine else frozenset()
        if mine & chunk:
            twice = sorted(mine & chunk)
            raise ValueError(f"rank {move.dst} would add the contributions of ranks {twice} twice.")
        after[move.dst][move.chunk] = mine | chunk
    return after


def states(operation: str, algorithm: str | None = None, world_size: int = 4) -> list[Holdings]:
    """What every rank holds at the start and after each step."""
    algorithm = chosen(operation, algorithm)
    found = [initial(operation, algorithm, world_size)]
    for step in moves(operation, algorithm, world_size):
        found.append(apply(found[-1], step))
    return found


def _flat_broadcast(n: int) -> Steps:
    return [[Move(0, rank, 0) for rank in range(1, n)]] if n > 1 else []


def _scatter(n: int) -> Steps:
    return [[Move(0, rank, rank) for rank in range(1, n)]] if n > 1 else []


def _gather(n: int) -> Steps:
    return [[Move(rank, 0, rank) for rank in range(1, n)]] if n > 1 else []


def _tree_broadcast(n: int) -> Steps:
    """In each step all who have it give it to one more, the farthest first."""
    steps, bit = [], 1 << max(0, (n - 1).bit_length() - 1)
    while n > 1 and bit:
        steps.append([Move(rank, rank + bit, 0) for rank in range(0, n - bit, 2 * bit)])
        bit //= 2
    return steps


def _tree_reduce(n: int) -> Steps:
    """The broadcast's tree backwards."""
    return [[Move(m.dst, m.src, m.chunk, True) for m in step] for step in reversed(_tree_broadcast(n))]


def _ring_all_gather(n: int) -> Steps:
    return [[Move(rank, (rank + 1) % n, (rank - step) % n) for rank in range(n)] for step in range(n - 1)]


def _ring_reduce_scatter(n: int) -> Steps:
    return [
        [Move(rank, (rank + 1) % n, (rank - 1 - step) % n, True) for rank in range(n)]
        for step in range(n - 1)
    ]


def _doubling(n: int) -> Steps:
    """Ranks beyond the last power of two give theirs to a stand-in first, and have the result from it at the end."""
    core = 1 << (n.bit_length() - 1)
    before = [Move(rank, rank - core, 0, True) for rank in range(core, n)]
    after = [Move(rank - core, rank, 0) for rank in range(core, n)]
    swaps = [
        [Move(rank, rank ^ (1 << k), 0, True) for rank in range(core)] for k in range(core.bit_length() - 1)
    ]
    return [step for step in (before, *swaps, after) if step]


def _all_to_all(n: int) -> Steps:
    turns = range(1, n)
    step = [
        Move(rank, (rank + turn) % n, n * rank + (rank + turn) % n) for turn in turns for rank in range(n)
    ]
    return [step] if step else []


_MAKE = {
    ("broadcast", "tree"): _tree_broadcast,
    ("broadcast", "flat"): _flat_broadcast,
    ("scatter", "flat"): _scatter,
    ("gather", "flat"): _gather,
    ("reduce", "tree"): _tree_reduce,
    ("all_gather", "ring"): _ring_all_gather,
    ("reduce_scatter", "ring"): _ring_reduce_scatter,
    ("all_reduce", "ring"): lambda n: _ring_reduce_scatter(n) + _ring_all_gather(n),
    ("all_reduce", "doubling"): _doubling,
    ("all_reduce", "reduce_broadcast"): lambda n: _tree_reduce(n) + _tree_broadcast(n),
    ("all_to_all", "pairwise"): _all_to_all,
}
