"""A collective step by step, as small pictures side by side: what each rank holds, and what moved to get there."""

from dataclasses import dataclass

from course_lib.viz.moves import Holdings, Move, chosen, final, moves, num_chunks, states
from course_lib.viz.picture import MARGIN, WIDTH, standalone_style
from course_lib.viz.svg import document, element, number, rect, text

CELL = 19  # height of a cell
SUMS = ("reduce", "reduce_scatter", "all_reduce")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def label(ranks: frozenset[int], chunk: int | None, world_size: int) -> str:
    """Whose contributions are in a chunk.

    "a2" is rank 0's part 2; "a2+b2" a sum of two; "b2…d2" the sum of all from b to d; "Σ2" that of all ranks.
    """
    names = [LETTERS[rank % 26] + ("" if chunk is None else str(chunk)) for rank in range(world_size)]
    if len(ranks) == world_size > 1:
        return "Σ" + ("" if chunk is None else str(chunk))
    if len(ranks) >= 3:
        starts = [rank for rank in sorted(ranks) if (rank - 1) % world_size not in ranks]
        if len(starts) == 1:
            return f"{names[starts[0]]}…{names[(starts[0] + len(ranks) - 1) % world_size]}"
    return "+".join(names[rank] for rank in sorted(ranks))


def slot_of(operation: str, chunk: int, rank: int, world_size: int, has_begun: bool) -> int | None:
    """The row of a chunk on a rank; in an all-to-all what is there to send gives way to what has come."""
    if operation != "all_to_all":
        return chunk
    src, dst = divmod(chunk, world_size)
    if has_begun:
        return src if dst == rank else None
    return dst if src == rank else None


def part_of(operation: str, algorithm: str, chunk: int, world_size: int) -> int | None:
    """The number written beside the letter: which part of the tensor it is; None for a whole one."""
    if num_chunks(operation, algorithm, world_size) == 1:
        return None
    if operation in ("gather", "all_gather"):
        return None  # a rank's whole contribution, named by the rank alone
    return chunk % world_size if operation == "all_to_all" else chunk


def caption(operation: str, algorithm: str, world_size: int) -> str:
    """What is shown, and how many messages it takes."""
    steps = moves(operation, algorithm, world_size)
    count = sum(map(len, steps))
    ranks = "1 rank" if world_size == 1 else f"{world_size} ranks"
    plural = [f"{n} {word}{'s' * (n != 1)}" for n, word in ((len(steps), "step"), (count, "message"))]
    return f"{operation} · {algorithm} · {ranks}: {plural[0]}, {plural[1]}"


def sentence(step: list[Move]) -> str:
    """A step in words: who sends to whom, and whether the receivers add."""
    combines = any(move.combine for move in step)
    sent = ", ".join(f"{move.src}→{move.dst}" for move in step)
    return f"{sent}{'; receivers add' if combines else ''}"


def color_of(operation: str, chunk: int, world_size: int) -> int:
    """A colour number: of the part, or of the rank that it comes from in an all-to-all."""
    return (chunk // world_size if operation == "all_to_all" else chunk) % 8


@dataclass(frozen=True)
class Grid:
    """The cells of one panel: a column a rank, a row a slot. Coordinates count from the panel's corner."""

    world_size: int
    slots: int
    cell: int
    between: int
    gap: int
    header: int

    @classmethod
    def of(cls, world_size: int, slots: int, width: float) -> "Grid":
        """As wide as fits into `width`."""
        between = 13 if world_size <= 4 else 9
        cell = min(70, int((width - between * (world_size - 1)) / world_size))
        return cls(world_size, slots, cell, between, *((24, 66) if slots == 1 else (9, 44)))

    def x(self, rank: int) -> int:
        """Left edge of a rank's column."""
        return rank * (self.cell + self.between)

    def y(self, slot: int) -> int:
        """Upper edge of a row."""
        return self.header + slot * (CELL + self.gap)

    def box(self, rank: int, slot: int, share: float = 1.0) -> str:
        """A path around a cell, or around its left part."""
        width = round(self.cell * share)
        return f"M{self.x(rank)} {self.y(slot)}h{width}v{CELL}h-{width}z"

    @property
    def height(self) -> int:
        """With the space to the panel below."""
        return self.y(self.slots) + 12


def draw(operation: str, algorithm: str | None = None, world_size: int = 4) -> str:
    """The start and every step as SVG, the same for the same arguments. See `animate` for what is drawn."""
    algorithm = chosen(operation, algorithm)
    steps = [[], *moves(operation, algorithm, world_size)]
    across = 1 if world_size > 12 else 2 if world_size > 5 else 3 if world_size > 2 else 4
    pitch = (WIDTH - 2 * MARGIN + 26) / across
    grid = Grid.of(world_size, num_chunks(operation, algorithm, world_size), pitch - 26)
    panels = []
    for k, held in enumerate(states(operation, algorithm, world_size)):
        place = f"translate({number(MARGIN + k % across * pitch)} {64 + k // across * grid.height})"
        panel = _panel(grid, operation, algorithm, k, held, steps[k])
        panels.append(element("g", panel, transform=place))
    title = caption(operation, algorithm, world_size)
    height = 64 + -(-len(steps) // across) * grid.height
    said = [f"step {k}: {sentence(step)}" for k, step in enumerate(steps) if k]
    style = standalone_style("picture.css", "collective.css")
    cells = "".join(grid.box(rank, slot) for rank in range(world_size) for slot in range(grid.slots))
    parts = [
        element("defs", _HEAD, element("path", id="cells", d=cells)),
        rect(0.5, 0.5, WIDTH - 1, height - 1, rx=8, class_="card"),
        text(MARGIN, 30, title, class_="title"),
        text(MARGIN, 50, legend(operation), class_="note"),
    ]
    return document(WIDTH, height, title, "\n".join([title, *said]), style, *parts, *panels)


def legend(operation: str) -> str:
    """What the letters, the fillings and the frames mean."""
    sums = "; Σ: of all, the fill: how many ranks are in it" if operation in SUMS else ""
    return f"a: from rank 0, b: from rank 1, …{sums}; thick frame: promised by {operation}"


_HEAD = (
    '<marker id="head" viewBox="0 0 6 6" refX="5" refY="3" markerWidth="5" markerHeight="5" orient="auto">'
    '<path d="M0 0L6 3L0 6z" class="tip"/></marker>'
)


def _panel(grid: Grid, operation: str, algorithm: str, k: int, held: Holdings, step: list[Move]) -> str:
    n, goal = grid.world_size, final(operation, algorithm, grid.world_size)
    fills: dict[int, str] = {}
    frames, words = "", {"chunk mid": "", "chunk mid done": ""}
    for rank, chunks in enumerate(held):
        for chunk, ranks in chunks.items():
            slot = slot_of(operation, chunk, rank, n, k > 0)
            if slot is None:
                continue
            share = len(ranks) / n if operation in SUMS else 1.0
            color = color_of(operation, chunk, n)
            fills[color] = fills.get(color, "") + grid.box(rank, slot, share)
            is_final = goal[rank].get(chunk) == ranks and k > 0
            frames += grid.box(rank, slot) if is_final else ""
            name = label(ranks, part_of(operation, algorithm, chunk, n), n)
            words["chunk mid done" if is_final else "chunk mid"] += text(
                grid.x(rank) + grid.cell // 2, grid.y(slot) + 13, name
            )
    heads = "".join(
        text(
            grid.x(r) + grid.cell // 2,
            grid.header - 12 - (18 if grid.slots == 1 else 0),
            f"rank {r}" if grid.cell > 34 else str(r),
        )
        for r in range(n)
    )
    arrows = "".join(
        element("path", d=arrow(grid, operation, move)) for move in step if operation != "all_to_all"
    )
    return "".join(
        [
            text(0, 14, f"step {k}" if k else "start", class_="caption"),
            element("g", heads, class_="axis mid"),
            '<use href="#cells" class="cell"/>',
            *(element("path", d=d, class_=f"fill r{color}") for color, d in sorted(fills.items())),
            element("path", d=frames, class_="goal") if frames else "",
            element("g", arrows, class_="arrows") if arrows else "",
            *(element("g", inside, class_=kind) for kind, inside in words.items() if inside),
        ]
    )


def arrow(grid: Grid, operation: str, move: Move) -> str:
    """The path of a move: straight to a neighbour, else through the gap below the row (to the right) or above it."""
    slot = slot_of(operation, move.chunk, move.dst, grid.world_size, True)
    a, b, y = grid.x(move.src), grid.x(move.dst), grid.y(slot)
    right = 1 if b > a else -1
    if abs(move.dst - move.src) == 1:
        start = a + grid.cell if b > a else a
        level = y + CELL / 2 + (4 * right if grid.slots == 1 else 0)
        return f"M{start} {number(level)}h{right * grid.between}"
    edge = y + CELL if b > a else y
    deep = edge + right * (11 if grid.slots > 1 else 16 + 7 * (move.src % 3))
    start, stop = (round(x + grid.cell * (0.5 + 0.1 * side * right)) for x, side in ((a, 1), (b, -1)))
    return f"M{start} {edge}C{start} {deep} {stop} {deep} {stop} {edge}"
