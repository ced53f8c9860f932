"""A collective step by step: ranks in a ring, a tree, below their root or in a row, and the chunks that fly between them."""

from collections.abc import Iterator
from functools import partial
from math import cos, hypot, pi, sin

from course_lib.schedules import moves as data
from course_lib.viz.controls import Choice
from course_lib.viz.scene import Frame, Mark, Panel, Scene, arrow, path, rect, text
from course_lib.viz.widget import Picture, picture

Corners = dict[tuple[int, int], tuple[int, int]]  # of the cell in which a rank has a chunk
SIZES, STILL = range(2, 9), (2, 3, 4)  # STILL: without a kernel
HEAD, TALL, PAD = 17, 16, 4  # of a rank's box: its name, a cell, the edge
RADII = {2: (84, 20), 3: (105, 66), 4: (95, 66), 5: (100, 110), 6: (113, 90), 7: (124, 150), 8: (143, 150)}


def animate(operation: str, algorithm: str | None = None, world_size: int = 4) -> Picture:
    """Show a collective step by step; the reader plays it, and changes the algorithm and the world size.

    operation: "broadcast", "scatter", "gather", "reduce", "all_gather", "reduce_scatter", "all_reduce" or "all_to_all".
    algorithm: one of those that the operation has, such as "ring", "doubling" or "reduce_broadcast" of an all_reduce.
    What is drawn are the moves of `pictures/moves.py`, which a test holds equal to what course_lib.collectives sends.

    Raises ValueError for an unknown operation or algorithm, or a world size outside 2 to 8.
    """
    choices = {"algorithm": data.chosen(operation, algorithm), "world_size": world_size}
    if not isinstance(world_size, int) or world_size not in SIZES:
        raise ValueError(f"animate() shows 2 to 8 ranks, not {world_size!r}: pick a number in between.")
    names = {name: name.replace("_", " + ") for name in data.ALGORITHMS[operation]}
    controls = [Choice("algorithm", names, look="buttons"), Choice("world_size", SIZES, look="buttons", still=STILL)]
    return picture(partial(build, operation), controls, choices, name="collective", frames=True)


def build(operation: str, algorithm: str, world_size: int) -> Scene:
    """The start and every step as frames; before each step one in which its chunks fly."""
    n, what = world_size, (operation, algorithm, world_size)
    slots, found, promised = data.num_chunks(*what), data.states(*what), data.final(*what)
    corners, wide = LAYOUTS[algorithm](n, slots)
    ring, doubling = algorithm == "ring", algorithm == "doubling"
    boxes = [_box([at for (owner, _), at in corners.items() if owner == rank], wide) for rank in range(n)]

    def words(x: int, y: int, chunk: int, ranks: data.Ranks, kind: str = "small mid") -> Mark | None:
        label = data.label(ranks, data.part_of(operation, algorithm, chunk, n), n)
        return text(x + wide // 2, y + 12, label, kind, wide - 2)

    def held(k: int) -> list[Mark | None]:
        rects, frames, texts = [], [], []
        cells = [(rank, chunk) for rank, chunks in enumerate(found[k]) for chunk in chunks]
        for rank, chunk in sorted(cells, key=lambda cell: (cell[0] - cell[1] - 1) % n):  # as a ring fills
            (x, y), ranks = corners[rank, chunk], found[k][rank][chunk]
            if operation == "all_to_all" and k and chunk not in promised[rank]:
                continue  # what was there to send has given way to what has come
            for color, start, stop in data.shares(operation, chunk, ranks, n, slots):
                x1, x2 = round(start * wide), round(stop * wide)
                rects.append(rect(x + x1, y, x2 - x1, TALL, f"rank-{color} share"))
            done = k > 0 and promised[rank].get(chunk) == ranks
            frames += [rect(x, y, wide, TALL, "frame")] * done
            texts.append(words(x, y, chunk, ranks, "small mid" + " strong" * done))
        return [*rects, *frames, *texts]

    def flying(move: data.Move, ranks: data.Ranks) -> Iterator[Mark]:
        (x0, y0), (x, y) = corners[move.src, move.chunk], corners[move.dst, move.chunk]
        past = (TALL + PAD + 3 if x < x0 else -HEAD - TALL - 3) * doubling  # over or under those in between
        named, color = slots == 1 or n < 6, data.shares(operation, move.chunk, ranks, n, slots)[0][0]
        kind = f"rank-{color}" + " chip" * named
        chip = rect(x, y, wide, TALL, kind), words(x, y, move.chunk, ranks)
        for mark in chip if named else chip[:1]:  # many chips are too quick to be read
            yield mark._replace(y=mark.y + past, key=f"{move.src}{move.dst}", came=(x0 - x, y0 - y))

    def way(move: data.Move, kind: str) -> Mark:
        (x1, y1, w1, h1), (x2, y2, w2, h2) = boxes[move.src], boxes[move.dst]
        dx, dy = x2 - x1, y2 - y1
        if doubling:
            y = y1 + (h1 / 2 + 2) * (1 if dx < 0 else -1)
            return arrow(x1, y, x2, y, kind, 6 + abs(dx) / 16)
        out, into = (min(w / abs(dx or 0.1), h / abs(dy or 0.1)) / 2 for w, h in ((w1, h1), (w2, h2)))
        bend = hypot(dx, dy) * (1 - out - into) / 7 * ring
        return arrow(x1 + dx * out, y1 + dy * out, x2 - dx * into, y2 - dy * into, kind, bend)

    title, start, *said = data.sentences(*what)
    frames, steps = [Frame(tuple(held(0)), start, "start")], data.moves(*what)
    for k, step in enumerate(steps):
        arrows = [way(move, "line") for move in step if algorithm not in ("ring", "pairwise")]
        heads = [path("M-6 4l5 4l-5 4z", "solid", *corners[m.dst, m.chunk]) for m in step if ring]
        chips = [mark for m in step for mark in flying(m, found[k][m.src][m.chunk])]
        frames.append(Frame((*arrows, *held(k), *chips), said[k], passing=True))
        frames.append(Frame((*arrows, *held(k + 1), *heads), said[k], f"step {k + 1}"))
    drawn = [m for step in steps for m in step if algorithm not in ("doubling", "pairwise")]
    ways = {(m.src, m.dst)[:: 1 if ring or m.src < m.dst else -1]: way(m, "faint") for m in drawn}
    tracks = [w if ring else w._replace(text=w.text[: w.text.rindex("M")]) for w in ways.values()]
    outlines = [rect(x - w / 2, y - h / 2, w, h, "box") for x, y, w, h in boxes]
    cells = [rect(*at, wide, TALL, "blank") for at in dict.fromkeys(corners.values())]
    names = [text(x, y - h / 2 + 12, f"rank {r}", "small mid", w) for r, (x, y, w, h) in enumerate(boxes)]
    w, h = max(x + w / 2 for x, _, w, _ in boxes) + 1, max(y + h / 2 for _, y, _, h in boxes) + 1
    panel = Panel(w, h + 24 * doubling, [*tracks, *outlines, *cells, *names])
    return Scene(title, (panel,), (data.legend(*what),), frames=tuple(frames), seconds=0.7)


def _box(cells: list[tuple[int, int]], wide: int) -> tuple[float, float, int, int]:
    """The middle and the size of the box around a rank's cells and its name."""
    (x, *_, right), (y, *_, low) = (sorted([*at, *at]) for at in zip(*cells))
    w, h = right - x + wide + 2 * PAD, low - y + HEAD + TALL + PAD
    return x - PAD + w / 2, y - HEAD + h / 2, w, h


# --- where things stand: the corner of each cell, and how wide it is


def _ring(n: int, slots: int) -> tuple[Corners, int]:
    """Clockwise on an ellipse; what a rank holds in one column, from 6 ranks on in two."""
    (rx, ry), (rows, wide) = RADII[n], (n, 42) if n < 6 else (-(-n // 2), 38)
    angles = [2 * pi * (k / n - (0.5 if n == 2 else 0.25)) for k in range(n)]
    x0, y0 = (1 - min(map(f, angles)) * radius for f, radius in ((cos, rx), (sin, ry)))
    lefts = [(round(x0 + rx * cos(a)) + PAD, round(y0 + ry * sin(a)) + HEAD) for a in angles]
    spots = [(c // rows * wide, c % rows * TALL) for c in range(n)]
    return {(r, c): (x + u, y + v) for r, (x, y) in enumerate(lefts) for c, (u, v) in enumerate(spots)}, wide


def _tree(n: int, slots: int) -> tuple[Corners, int]:
    """From left to right by rank; down to the step of a broadcast in which a rank is reached."""
    level = {0: 0} | {m.dst: k for k, step in enumerate(data.moves("broadcast", "tree", n), 1) for m in step}
    return {(r, 0): (38 * r + PAD + 1, 62 * level[r] + HEAD + 1) for r in range(n)}, 50


def _flat(n: int, slots: int) -> tuple[Corners, int]:
    """The root above with all its cells, the others below with one each."""
    pitch = min(76, 366 // (n - 1))
    wide = min(54, pitch - 12)
    middle = max(pitch * (n - 1), wide * slots) // 2 + PAD + 1
    x0, x1 = middle - wide * slots // 2, middle - pitch * (n - 1) // 2 + (pitch - wide) // 2
    root = {(0, chunk): (x0 + wide * chunk, HEAD + 1) for chunk in range(slots)}
    return root | {(r, r % slots): (x1 + pitch * (r - 1), HEAD + 96) for r in range(1, n)}, wide


def _row(n: int, slots: int) -> tuple[Corners, int]:
    """Side by side. In an all-to-all a chunk has two cells: one on its rank, by where it goes, and one there, by whence it came."""
    top = HEAD + 1 + (24 if slots == 1 else 0)
    cells = {(r, s): (46 * r + PAD + 1, top + TALL * s) for r in range(n) for s in range(slots)}
    if slots > 1:
        pairs = {(r, n * r + s): at for (r, s), at in cells.items()}
        cells = pairs | {(r, n * s + r): at for (r, s), at in cells.items()}
    return cells, 34


LAYOUTS = {"ring": _ring, "tree": _tree, "reduce_broadcast": _tree, "flat": _flat}
LAYOUTS |= {"doubling": _row, "pairwise": _row}
