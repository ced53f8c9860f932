"""A collective as data: in which step which chunk goes from which rank to which, and what is said of it.

This is what `collective.py` draws, and what a test holds a real run to.
Chunks: 0 is a whole tensor where nobody cuts it (broadcast, reduce, all-reduce by doubling or by a tree); otherwise
chunk r is the part that belongs to rank r; in an all-to-all chunk n·i + j is what rank i has for rank j.
"""

from dataclasses import dataclass

Ranks = frozenset[int]
Holdings = tuple[dict[int, Ranks], ...]  # of each rank: chunk -> the ranks whose contribution is in it
SUMS = ("reduce", "reduce_scatter", "all_reduce")
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
    return [step for step in _MAKE[operation, algorithm](world_size) if step]


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
    if operation in ("broadcast", "scatter"):
        return tuple({rank % len(chunks): frozenset({0})} for rank in ranks)
    if operation in ("gather", "all_gather"):
        whole = {c: frozenset({c}) for c in chunks}
        return tuple(whole if rank == 0 or operation == "all_gather" else {} for rank in ranks)
    if operation == "reduce":
        return tuple({0: everyone} if rank == 0 else {} for rank in ranks)
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


def _tree_broadcast(n: int) -> Steps:
    """In each step all who have it give it to one more, the farthest first."""
    bits = [1 << k for k in reversed(range((n - 1).bit_length()))]
    return [[Move(rank, rank + bit, 0) for rank in range(0, n - bit, 2 * bit)] for bit in bits]


def _tree_reduce(n: int) -> Steps:
    """The broadcast's tree backwards."""
    return [[Move(m.dst, m.src, m.chunk, True) for m in step] for step in reversed(_tree_broadcast(n))]


def _ring(n: int, behind: int = 0, combine: bool = False) -> Steps:
    """Each rank passes on what it has just received; it starts with the chunk that belongs `behind` ranks before it."""
    ranks = range(n)
    return [[Move(r, (r + 1) % n, (r - behind - k) % n, combine) for r in ranks] for k in range(n - 1)]


def _doubling(n: int) -> Steps:
    """Ranks beyond the last power of two give theirs to a stand-in first, and have the result from it at the end."""
    core = 1 << (n.bit_length() - 1)
    before = [Move(rank, rank - core, 0, True) for rank in range(core, n)]
    after = [Move(rank - core, rank, 0) for rank in range(core, n)]
    bits = [1 << k for k in range(core.bit_length() - 1)]
    return [before, *([Move(rank, rank ^ bit, 0, True) for rank in range(core)] for bit in bits), after]


def _all_to_all(n: int) -> Steps:
    pairs = ((rank, (rank + turn) % n) for turn in range(1, n) for rank in range(n))
    return [[Move(src, dst, n * src + dst) for src, dst in pairs]]


_MAKE = {
    ("broadcast", "tree"): _tree_broadcast,
    ("broadcast", "flat"): lambda n: [[Move(0, rank, 0) for rank in range(1, n)]],
    ("scatter", "flat"): lambda n: [[Move(0, rank, rank) for rank in range(1, n)]],
    ("gather", "flat"): lambda n: [[Move(rank, 0, rank) for rank in range(1, n)]],
    ("reduce", "tree"): _tree_reduce,
    ("all_gather", "ring"): _ring,
    ("reduce_scatter", "ring"): lambda n: _ring(n, 1, True),
    ("all_reduce", "ring"): lambda n: _ring(n, 1, True) + _ring(n),
    ("all_reduce", "doubling"): _doubling,
    ("all_reduce", "reduce_broadcast"): lambda n: _tree_reduce(n) + _tree_broadcast(n),
    ("all_to_all", "pairwise"): _all_to_all,
}


# --- in words


def label(ranks: Ranks, part: int | None, world_size: int) -> str:
    """Whose contributions are in a chunk.

    "a2" is rank 0's part 2; "a2+b2" a sum of two; "b2…d2" the sum of all from b to d; "Σ2" that of all ranks.
    """
    number = "" if part is None else str(part)
    if len(ranks) == world_size > 1:
        return f"Σ{number}"
    starts = [rank for rank in ranks if (rank - 1) % world_size not in ranks]
    if len(ranks) >= 3 and len(starts) == 1:
        ends = starts[0], (starts[0] + len(ranks) - 1) % world_size
        return "…".join(chr(97 + rank) + number for rank in ends)
    return "+".join(chr(97 + rank) + number for rank in sorted(ranks))


def part_of(operation: str, algorithm: str, chunk: int, world_size: int) -> int | None:
    """The number beside the letter: which part of the tensor. None for a whole one, and for a rank's whole contribution."""
    is_whole = num_chunks(operation, algorithm, world_size) == 1 or operation in ("gather", "all_gather")
    return None if is_whole else chunk % world_size


def shares(operation: str, chunk: int, ranks: Ranks, n: int, slots: int) -> list[tuple[int, float, float]]:
    """What is coloured of a chunk's cell: the rank whose colour it is, from where and to where.

    Of a sum as much as ranks are in it: each rank's own place of a whole tensor, or a length of a part.
    """
    if operation in SUMS and slots == 1:
        return [(rank, rank / n, (rank + 1) / n) for rank in sorted(ranks)]
    color = chunk // n if operation == "all_to_all" else chunk
    return [(color, 0, len(ranks) / n if operation in SUMS else 1)]


def sentences(operation: str, algorithm: str, world_size: int) -> list[str]:
    """What it is and how many messages it takes; the start; then, a sentence a step, who sends what to whom."""
    n, steps = world_size, moves(operation, algorithm, world_size)
    found = states(operation, algorithm, n)
    counts = (len(steps), "step"), (sum(map(len, steps)), "message")
    counted = ", ".join(f"{number} {word}{'s' * (number != 1)}" for number, word in counts)
    title = f"{operation} · {algorithm} · {n} ranks: {counted}"
    said = [title, f"{title}. Start: what every rank holds before the first message."]
    for k, step in enumerate(steps):
        names = (label(found[k][m.src][m.chunk], part_of(operation, algorithm, m.chunk, n), n) for m in step)
        sent = [f"{m.src}→{m.dst} {name}" for m, name in zip(step, names)]
        more = f" and {len(sent) - 12} more" * (len(sent) > 12) + " · receivers add" * step[0].combine
        done = " · done" * (k + 1 == len(steps))
        said.append(f"Step {k + 1} of {len(steps)}: {', '.join(sent[:12])}{more}{done}")
    return said


def legend(operation: str, algorithm: str, world_size: int) -> str:
    """What letters, numbers, colours and frames mean."""
    said = "Letters are ranks: a is what rank 0 had at first"
    said += "." if operation in ("broadcast", "scatter") else ", b what rank 1 had, …"
    is_whole = num_chunks(operation, algorithm, world_size) == 1
    if operation == "all_to_all":
        said += " Numbers are parts: a2 is what rank 0 has for rank 2."
    elif part_of(operation, algorithm, 0, world_size) is not None:
        said += " Numbers are parts of the tensor, each in the colour of the rank that it belongs to."
    if operation in SUMS:
        coloured = "Coloured: which" if is_whole else "Filled: how many"
        said += f" {coloured} ranks are in a sum; Σ: all of them."
    said += " ▸ has just arrived." * (algorithm == "ring")
    return f"{said} Bold, in a frame: what {operation} promises to deliver."
