"""A mesh drawn by nodes: a block a node, a cell a rank; the chosen rank's groups are marked by shape and colour.

static/mesh_draw.js draws the same in the page; tests/browser/test_mesh_explorer.py holds the two to the same shapes.
"""

from dataclasses import dataclass
from functools import cached_property
from math import ceil, isqrt

from course_lib.layout import Layout
from course_lib.viz.mesh_model import SHOWN, Mesh, describe, group_rows, holdings, place, title
from course_lib.viz.picture import MARGIN, WIDTH, standalone_style
from course_lib.viz.svg import document, element, number, rect, text

LEFT, TALL, LARGEST, ROOMY = (
    64,
    470,
    56,
    26,
)  # of the names of rows; of all rows; of a cell; from where numbers fit in
COLUMNS = (34, 70, 196, 300, 486, 652)  # of the table of groups


@dataclass(frozen=True)
class Map:
    """Where the cells of a mesh are, on `width` pixels."""

    layout: Layout
    ranks_per_node: int
    width: int

    @property
    def num_nodes(self) -> int:
        return ceil(self.layout.world_size / self.ranks_per_node)

    @cached_property
    def wide(self) -> int:
        """Cells side by side in a node: as square as its ranks allow."""
        k = self.ranks_per_node
        root = isqrt(k - 1) + 1
        found = next(w for w in range(root, k + 1) if k % w == 0)
        return found if found <= 8 or found < k else root

    @property
    def left(self) -> int:
        return 0 if self.named else LEFT

    @property
    def tall(self) -> int:
        return ceil(self.ranks_per_node / self.wide)

    @cached_property
    def grid(self) -> tuple[int, int]:
        """(nodes in a row, size of a cell): as large as fits; a whole step of the outermost axis in a row if that costs little."""
        block = next((self.layout.stride(a) for a in self.layout.order if getattr(self.layout, a) > 1), 1)
        block = block // self.ranks_per_node or 1
        best, chosen = -1.0, (self.num_nodes, 4)
        for columns in range(1, self.num_nodes + 1):
            size = min(LARGEST, ((self.width - self.left) // columns - self.gap) // self.wide)
            rows = ceil(self.num_nodes / columns)
            if size < 4 or (rows * (size * self.tall + self.between) > TALL and columns < self.num_nodes):
                continue
            score = size * (1.25 if columns % block == 0 or block % columns == 0 else 1.0)
            if score >= best:
                best, chosen = score, (columns, size)
        return chosen

    @property
    def named(self) -> bool:
        """Whether each node has room for its name above it; else each row of nodes has that of its first."""
        return self.num_nodes <= 32

    @property
    def gap(self) -> int:
        """Between nodes, side by side."""
        return 4 if self.layout.world_size > 256 else 12

    @property
    def between(self) -> int:
        """Between nodes, one below the other: with their names."""
        return 26 if self.named else self.gap

    @property
    def rows(self) -> int:
        return ceil(self.num_nodes / self.grid[0])

    @property
    def height(self) -> int:
        return self.rows * (self.grid[1] * self.tall + self.between)

    def corner(self, rank: int) -> tuple[int, int]:
        """The upper left corner of a rank's cell."""
        (columns, size), (node, cell) = self.grid, divmod(rank, self.ranks_per_node)
        x = self.left + node % columns * (size * self.wide + self.gap) + cell % self.wide * size
        y = node // columns * (size * self.tall + self.between) + cell // self.wide * size
        return x, y + (18 if self.named else 0)

    @cached_property
    def cells(self) -> str:
        """All cells, a dashed line for each row of them, and the names of nodes."""
        (columns, size), n = self.grid, self.layout.world_size
        inner, parts = size - (2 if size >= ROOMY else 1), []
        for node in range(0, self.num_nodes, columns):
            y = self.corner(node * self.ranks_per_node)[1]
            if not self.named:
                parts.append(text(LEFT - 8, y + size * self.tall / 2 + 4, f"node {node}", class_="axis end"))
            for row in range(self.tall):
                beside = min(self.wide, self.ranks_per_node - row * self.wide)
                dashes = [inner, size - inner] * beside
                dashes[-1] += size * (self.wide - beside) + self.gap
                last = min(n, (node + columns) * self.ranks_per_node) - 1  # of this row of nodes
                firsts = range(node * self.ranks_per_node + row * self.wide, last + 1, self.ranks_per_node)
                if not firsts:
                    continue
                end = min(last, firsts[-1] + beside - 1)
                d = f"M{self.left} {number(y + row * size + inner / 2)}H{self.corner(end)[0] + inner}"
                dash = " ".join(map(str, dashes))
                parts.append(element("path", d=d, stroke_width=inner, stroke_dasharray=dash, class_="ranks"))
        for node in range(self.num_nodes if self.named else 0):
            x, y = self.corner(node * self.ranks_per_node)
            name = f"node {node}" if size * self.wide >= 42 else str(node)
            parts.append(text(x, y - 5, name, class_="axis"))
        return "".join(parts)

    def marks(self, rank: int) -> str:
        """What is laid over the cells: the groups of a rank, itself, and numbers where there is room."""
        size = self.grid[1]
        inner = size - (2 if size >= ROOMY else 1)
        parts = []
        roomy = " roomy" if size >= ROOMY else ""
        for axis in SHOWN:
            others = [other for other in self.layout.group(rank, axis) if other != rank]
            if others:
                path = "".join(_shape(axis, *self.corner(other), inner) for other in others)
                parts.append(element("path", d=path, class_=f"mark {axis}{roomy}"))
        x, y = self.corner(rank)
        parts.append(rect(x - 2, y - 2, inner + 4, inner + 4, class_="chosen"))
        if size < ROOMY:
            return "".join(parts)
        names = {other: axis for axis in SHOWN[::-1] for other in self.layout.group(rank, axis)} | {rank: ""}
        for other in range(self.layout.world_size):
            x, y = self.corner(other)
            middle, name = x + inner / 2, names.get(other, "")
            parts.append(text(middle, y + inner / 2 + (0 if name else 4), str(other), class_="rank mid"))
            if name:
                parts.append(text(middle, y + inner / 2 + 12, name, class_="axis mid"))
        return "".join(parts)


def _shape(axis: str, x: float, y: float, side: float) -> str:
    """tp a square, dp a disc, pp a diamond, cp a cross."""
    h, third = side / 2, side / 3
    if axis == "tp":
        return _path(f"M{x} {y}", ("h", side), ("v", side), ("h", -side))
    if axis == "dp":
        arcs = "".join(f"a{number(h)} {number(h)} 0 1 1 {way}{number(side)} 0" for way in ("", "-"))
        return f"M{x} {number(y + h)}{arcs}z"
    if axis == "pp":
        legs = "".join(
            f"l{a}{number(h + 1)} {b}{number(h + 1)}" for a, b in (("", ""), ("-", ""), ("-", "-"))
        )
        return f"M{number(x + h)} {y - 1}{legs}z"
    turns = "hvhvhvhvhvh", (1, 1, 1, 1, -1, 1, -1, -1, -1, -1, 1)
    return _path(
        f"M{number(x + third)} {y}", *((way, sign * third) for way, sign in zip(*turns, strict=True))
    )


def _path(start: str, *steps: tuple[str, float]) -> str:
    return start + "".join(f"{way}{number(float(length))}" for way, length in steps) + "z"


def draw(mesh: Mesh) -> str:
    """The map, and below it the chosen rank in words, as a standalone SVG."""
    found = Map(mesh.layout, mesh.ranks_per_node, WIDTH - 2 * MARGIN)
    y = 54 + found.height + 30
    parts = [
        text(MARGIN, 32, title(mesh), class_="title"),
        element("g", found.cells, found.marks(mesh.rank), transform=f"translate({MARGIN} 54)"),
        text(MARGIN, y, place(mesh, mesh.rank), class_="caption"),
    ]
    heads = ("group", "ranks", "on nodes", "neighbours, over links", "sent in one step", "takes")
    parts += [
        text(MARGIN + x - 12, y + 22, head, class_="axis") for x, head in zip(COLUMNS, heads, strict=True)
    ]
    for axis, *row in group_rows(mesh):
        y += 20
        if axis in SHOWN:
            parts.append(element("path", d=_shape(axis, MARGIN, y + 12, 11), class_=f"mark {axis}"))
        cells = zip(COLUMNS, (axis, *row), strict=True)
        parts += [text(MARGIN + x - 12, y + 22, words, class_="small") for x, words in cells if words]
    for line in holdings(mesh):
        y += 19
        parts.append(text(MARGIN, y + 28, line, class_="small"))
    height = y + 46
    card = rect(0.5, 0.5, WIDTH - 1, height - 1, rx=8, class_="card")
    style = standalone_style("picture.css", "mesh.css")
    return document(WIDTH, height, title(mesh), describe(mesh), style, card, *parts)
