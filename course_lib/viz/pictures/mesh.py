"""The mesh explorer: ranks on their nodes, or as a cube; choose one to see its groups, its links, what it sends and holds."""

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache, partial
from itertools import groupby, pairwise, permutations, product
from math import ceil, isqrt
from typing import Any, NamedTuple

from course_lib.cost.hardware import SYSTEMS, System
from course_lib.cost.mesh import GROUPS, MAX_RANKS, Mesh, axes_of, places
from course_lib.cost.shapes import MODELS, Transformer
from course_lib.layout import AXES, Layout
from course_lib.viz.controls import Choice, Number
from course_lib.viz.pictures.facts import WIDEST, facts
from course_lib.viz.scene import Mark, Panel, Scene, line, num, path, rect, text
from course_lib.viz.widget import Picture, picture

IN_A_CUBE = 64  # ranks; more are drawn by nodes
LARGEST, ROOMY = 56, 25  # pixels of a cell, and of one that has room for its number
BESIDE = 380  # pixels of a drawing that has room for the groups beside it
NOTE = "Signs mark the groups of one rank, lines its links; dashed ones leave the node."
HINT = "Click another, or walk: arrows to the cells beside; t, c, d, p along an axis (with shift back); Home and End."
HEADS = {"ranks": 58, "on nodes": 182, "neighbours, over links": 250, "sent in one step": 430, "takes": 630}


def mesh_explorer(
    layout: Layout | None = None,
    ranks_per_node: int = 8,
    rank: int = 0,
    *,
    model: str | Transformer = "Megatron 1T",
    system: str | System = "A100",
    num_microbatches: int = 512,
    microbatch: int = 1,
    recompute: str = "full",
    sequence_parallel: bool = False,
) -> Picture:
    """Draw a mesh by its nodes, a small one as a cube; the reader chooses a rank, sizes and order of the axes, and nodes.

    layout: 64 × 6 × 8 by default, and then the rest is that row of Narayanan et al. 2021, table 1: a batch of 3,072.
    num_microbatches: of each copy; each has `microbatch` sequences. What is sent and held is that of `cost.traffic`, in 16 bits,
    without ZeRO; where the model cannot be cut in this way, the rule that it breaks stands in its place.
    Raises ValueError for a layout of more than 4,096 ranks, a rank outside it or an unknown name; TypeError for another type.
    """
    layout = layout or Layout(pp=64, dp=6, tp=8)
    model, system = _named(model, MODELS, Transformer), _named(system, SYSTEMS, System)
    how = num_microbatches, microbatch, recompute, sequence_parallel
    mesh = Mesh(layout, ranks_per_node, rank, model, system, *how)
    # cp beside tp, as its ranks talk next to as much; and the order that was given, if it is another
    orders = [" ".join(axes).replace("tp", "cp tp") for axes in permutations(("pp", "dp", "tp"))]
    chosen = {"order": " ".join(layout.order), "ranks_per_node": ranks_per_node, "rank": rank}
    controls = [
        *(Number(axis, 1, MAX_RANKS) for axis in AXES),
        Choice("order", {order: order.replace(" ", " · ") for order in [*orders, chosen["order"]]}),
        Number("ranks_per_node", 1, MAX_RANKS, "ranks a node"),
        Number("rank", 0, MAX_RANKS - 1),
    ]
    return picture(partial(build, mesh), controls, layout.sizes._asdict() | chosen, name="mesh")


def build(mesh: Mesh, *, order: str, ranks_per_node: int, rank: int, width: int = 760, **sizes: int) -> Scene:
    """The mesh with these choices as a scene; for a rank that it does not have, with its last one."""
    layout, width = Layout(**sizes, order=tuple(order.split())), min(width, WIDEST)
    last = layout.world_size - 1
    mesh = replace(mesh, layout=layout, ranks_per_node=ranks_per_node, rank=min(rank, last))
    notes = [NOTE] if rank <= last else [f"There is no rank {rank:,} here: shown is the last. {NOTE}"]
    ground, held = _ground(layout, ranks_per_node, width), mesh.holdings
    beside = width >= 760 and ground.w <= BESIDE
    panels = [Panel(ground.w, ground.h, _chosen(mesh, ground))]
    panels += [_groups(mesh, 744 - ground.w if beside else width)]
    panels += [facts(f"Rank {mesh.rank} holds", held, 760 if beside else width)] if held else []
    notes += [] if held else [str(mesh.plan)]
    say, keys = f"{mesh.place}. {HINT}", _keys(mesh, ground)
    return Scene(mesh.title, tuple(panels), tuple(notes), say, str(mesh), ground.marks, keys=keys)


class Ground(NamedTuple):
    """What stays while a rank is chosen: size, marks, and of each rank the middle of its cell and the column that it is in."""

    w: float
    h: float
    side: float
    at: list[tuple[float, float]]
    columns: list[float]
    marks: tuple[Mark, ...]
    cube: bool


@lru_cache(16)
def _ground(layout: Layout, ranks_per_node: int, width: int) -> Ground:
    """The cube or the nodes, and on them a cell a rank, to point at and to choose."""
    cube = _cube(layout, ranks_per_node, width)
    w, h, side, at, columns, marks = cube or _nodes(layout, ranks_per_node, width)
    kind = "blank" if cube else "hit"
    for rank, ((x, y), tip) in enumerate(zip(at, places(layout, ranks_per_node))):
        cell = x - side / 2, y - side / 2, side, side
        marks.append(Mark("rect", kind, *cell, tip=tip, sets=(("rank", rank),)))
    marks += [text(x, y + 4, str(rank), "mid") for rank, (x, y) in enumerate(at if side >= ROOMY else [])]
    return Ground(w, h, side, at, columns, tuple(filter(None, marks)), bool(cube))


def _nodes(layout: Layout, k: int, width: int) -> tuple:
    """A block a node, a cell a rank, as large as fits; a stage (a place along the outermost axis) together, if it has whole nodes."""
    n, axes, root = layout.world_size, axes_of(layout), isqrt(k - 1) + 1
    found = next(w for w in range(root, k + 1) if k % w == 0)
    wide = found if found <= 8 or found * found <= 2 * k else root  # cells side by side in a node
    nodes, tall, step = -(-n // k), -(-k // wide), layout.stride(axes[0]) if axes else n
    per = step // k if step % k == 0 and n <= 128 * step else nodes  # nodes of a stage
    stages, named, gap = nodes // per, nodes <= 32, 12 if n <= 256 else 4 if k > 1 else 2
    label, apart = (40, 4) if stages > 1 else (4 if named else 70, 0)
    top, below = (18, 24) if named else (4, gap)  # of a node
    for size in range(LARGEST, 3, -1):
        block, row = size * wide + gap, size * tall + below
        columns = max(1, min(per, (width - label + gap) // block))
        band, high = label + columns * block + apart, -(-per // columns) * row + apart
        across = max(1, min(stages, (width + gap + apart) // band))
        h = top + -(-stages // across) * high
        if h <= (500 if width > 560 else 640) and label + block - gap <= width:
            break
    corners, marks, names = [], [], []
    for node in range(nodes):
        (stage, i), (full, rest) = divmod(node, per), divmod(min(k, n - node * k), wide)
        x = label + stage % across * band + i % columns * block
        y = top + stage // across * high + i // columns * row
        corners.append((x, y))
        kind = "node odd" if stage % 2 else "node"
        marks += [rect(x, y, wide * size - 1, full * size - 1, kind)] if full else []
        marks += [rect(x, y + full * size, rest * size - 1, size - 1, kind)] if rest else []
        if named:
            names.append(text(x, y - 5, f"node {node}", "small quiet", block - 4, "drop"))
        v = y + min(size * tall / 2 + 4, 24)
        if stages > 1 and i == 0:
            names.append(text(x - 8, v, f"{axes[0]} {stage}", f"small end {axes[0]}"))
        elif stages == 1 and not named and i % (columns * -(-13 // row)) == 0:
            names.append(text(x - 8, v, f"node {node}", "small quiet end"))
    xs = sorted({x + j * size - 0.5 for x, _ in corners for j in range(1, wide)})
    ys = sorted({y + j * size - 0.5 for _, y in corners for j in range(1, tall)})
    marks += [*(line(x, 0, x, h, "gap") for x in xs), *(line(label, y, width, y, "gap") for y in ys), *names]
    cells = [((j % wide + 0.5) * size - 0.5, (j // wide + 0.5) * size - 0.5) for j in range(k)]
    at = [(x + u, y + v) for x, y in corners for u, v in cells][:n]
    return min(width, across * band - gap - apart + 4), h, size - 1, at, [x for x, _ in at], marks


def _cube(layout: Layout, k: int, width: int) -> tuple | None:
    """A point a rank: the inmost axis to the right, the next into the depth, the outermost down; slabs are nodes."""
    if len(axes := axes_of(layout)) != 3 or layout.world_size > IN_A_CUBE:
        return None
    high, deep, long = (getattr(layout, axis) for axis in axes)
    c = min(46.0, max(28.0, (520 / high - 30) / deep))  # from a point to the next one behind it, up; across
    layer = deep * c + 30
    fits = (min(80.0, (w - 176) / (long + 1 - 1 / deep)) for w in (min(width, BESIDE), width))
    a = next((a for a in fits if a >= 34), 0)  # from a point to the next one to the right
    if not a or high * layer > 660:
        return None
    w = ceil(176 + a * (long + 1 - 1 / deep))
    points = list(product(range(high), range(deep), range(long)))
    at = [(90 + a / 2 + (x + z / deep) * a, (deep - z - 0.5) * c + 4 + y * layer) for y, z, x in points]
    marks, names = [], []
    for (*_, node), (first, *rest) in groupby(range(len(at)), lambda rank: (*points[rank][:2], rank // k)):
        (u, v), far = at[first], (1 + len(rest)) * a
        d = f"M{num(u - a / 2 - a / deep / 2)} {num(v + c / 2)}h{num(far)}l{num(a / deep)} {num(-c)}h{num(-far)}z"
        marks.append(path(d, "node odd" if node % 2 else "node"))
    pairs = (pair for axis in axes for group in layout.groups(axis) for pair in pairwise(group))
    marks += [line(*at[rank], *at[other], "faint thin") for rank, other in pairs]
    tops, left, front = at[:: long * deep], at[: long * deep : long], at[-long * deep :][:long]
    one, two, three = axes
    names += [text(0, v + 4, f"{one} {y}", f"strong {one}") for y, (_, v) in enumerate(tops)]
    names += [text(u - a / 2 - 10, v + 4, f"{two} {z}", f"small end {two}") for z, (u, v) in enumerate(left)]
    names += [text(u, v + c / 2 + 15, f"{three} {x}", f"small mid {three}") for x, (u, v) in enumerate(front)]
    for end in range(long - 1, len(at), long):  # the last rank of each row
        first, last, (u, v) = (end - long + 1) // k, end // k, at[end]
        if end % (long * deep) < long or first != last or (end - long) // k != last:
            words = f"node {last}" if first == last else f"nodes {first}–{last}"
            names.append(text(u + a / 2 + 8, v + 4, words, "small quiet"))
    return w, high * layer + 6, 25, at, [x for *_, x in points], [*marks, *names]


def _chosen(mesh: Mesh, ground: Ground) -> list[Mark | None]:
    """The groups of the chosen rank, each with its sign; lines to its neighbours, dashed where they leave the node; itself."""
    at, side, rank, roomy = ground.at, ground.side, mesh.rank, ground.side >= ROOMY
    lines, signs = [], []
    for axis, ranks in mesh.groups.items():
        row = set(pairwise(ranks)) if ground.cube else set()
        near = {tuple(sorted((rank, other))) for _, other in mesh.neighbours(axis, ranks)}
        for one, other in sorted(near | row):
            (x, y), (u, v), bend = at[one], at[other], 0 if (one, other) in row else 0.15
            across = " dashed" if mesh.node(one) != mesh.node(other) else ""
            curve = f"Q{num((x + u) / 2 + bend * (v - y))} {num((y + v) / 2 - bend * (u - x))}"
            d = f"M{num(x)} {num(y)}{curve} {num(u)} {num(v)}"
            lines.append(path(d, f"link {axis}{across}", of=(axis,)))
        d = "".join(sign(axis, *at[other], side) for other in ranks if other != rank)
        signs.append(path(d, f"{axis} held" if roomy else axis, of=(axis,)))
    members = [(r, *at[r]) for r in sorted({rank}.union(*mesh.groups.values()))] if roomy else []
    cells = [rect(x - side / 2, y - side / 2, side, side, "blank") for _, x, y in members]
    numbers = [text(x, y + 4, str(r), "mid") for r, x, y in members]
    (x, y), far = at[rank], side / 2 + 2
    ring = rect(x - far, y - far, 2 * far, 2 * far, "chosen", key="chosen")
    return [*lines, *cells, *signs, ring, *numbers]


def sign(axis: str, x: float, y: float, side: float) -> str:
    """tp a square, dp a disc, pp a diamond, cp a cross, around (x, y)."""
    h, t, leg = side / 2, round(side / 3, 1), side / 2 + 1
    signs = {
        "tp": f"M{num(x - h)} {num(y - h)}h{side}v{side}h{-side}z",
        "dp": f"M{num(x - h)} {num(y)}a{h} {h} 0 1 1 {side} 0a{h} {h} 0 1 1 {-side} 0z",
        "pp": f"M{num(x)} {num(y - leg)}l{leg} {leg}l{-leg} {leg}l{-leg} {-leg}z",
        "cp": f"M{num(x - t / 2)} {num(y - 1.5 * t)}h{t}v{t}h{t}v{t}h{-t}v{t}h{-t}v{-t}h{-t}v{-t}h{t}z",
    }
    return signs.get(axis, "M0 0")


def _keys(mesh: Mesh, ground: Ground) -> dict[str, dict[str, int]]:
    """Where each key leads from the chosen rank."""
    rank, columns, n = mesh.rank, ground.columns, len(ground.columns)
    above = [other for other in range(n) if columns[other] == columns[rank]]
    above.sort(key=lambda other: ground.at[other][1])
    here = above.index(rank)
    to = {"Home": 0, "End": n - 1, "ArrowLeft": rank - 1, "ArrowRight": rank + 1}
    to |= {"ArrowUp": above[here - 1]} if here else {}
    to |= {"ArrowDown": above[here + 1]} if here + 1 < len(above) else {}
    for axis, ranks in mesh.groups.items():
        i = ranks.index(rank)
        to |= {axis[0]: ranks[(i + 1) % len(ranks)], axis[0].upper(): ranks[i - 1]}
    return {key: {"rank": other} for key, other in to.items() if 0 <= other < n}


def _groups(mesh: Mesh, width: float) -> Panel:
    """The table of groups: a row each; on narrow ground a name each, and below it what is said of it."""
    y, wide, scale = 38, width >= 720, width / 760
    marks: list[Mark | None] = [text(0, 14, mesh.place, "strong", width)]
    marks += [text(x * scale, y, head, "small quiet") for head, x in HEADS.items()] if wide else []
    y += 20 if wide else 0
    for axis, *words in mesh.group_rows:
        of = ("pp" if axis == "ends" else axis,)
        tip = f"{axis}, {GROUPS[axis]}: {', '.join(filter(None, words))}"
        ranks, nodes, near, *sent = words
        if not wide:
            many = "" if nodes.endswith(" 1") else "s"
            words = [f"{ranks} · {nodes} node{many}", near, " · ".join(filter(None, sent))]
            marks.append(text(58, y, GROUPS[axis], "quiet", of=of))
        spots = [(x * scale, y) for x in HEADS.values()] if wide else [(20, y + 17 * i) for i in (1, 2, 3)]
        marks += [path(sign(axis, 6, y - 4, 11), axis, of=of), text(20, y, axis, "strong", of=of)]
        marks += [text(*spot, said, "small" if wide else "", of=of) for spot, said in zip(spots, words)]
        high = 21 if wide else 76
        marks.append(rect(0, y - 14, width, high, "hit", of=of, tip=tip))
        y += high
    return Panel(width, y - 10, marks)


def _named(what: Any, presets: Mapping[str, Any], kind: type) -> Any:
    """The preset of that name, or `what` itself if it is such a value."""
    found = presets.get(what, what) if isinstance(what, str) else what
    if isinstance(found, kind):
        return found
    if not isinstance(what, str):
        raise TypeError(f"pass a name or a {kind.__name__}, not a {type(what).__name__}.")
    there = ", ".join(presets)
    raise ValueError(f"there is no {kind.__name__} called {what!r}: take {there}, or pass one of your own.")
