"""A mesh of ranks on nodes, with one rank chosen: its groups, links and weights, in words. The value that the explorer draws.

static/mesh_model.js has the same in the page; tests/browser/test_mesh_explorer.py holds the two to the same words.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from math import floor

from course_lib.cost.hardware import System
from course_lib.cost.plan import Plan
from course_lib.cost.shapes import Transformer
from course_lib.cost.traffic import GroupTraffic, StepTraffic, stage_parameters, step_traffic
from course_lib.layout import Layout, nodes_of, split_bounds
from course_lib.viz.ownership import bytes_text

SHOWN = ("tp", "cp", "dp", "pp")  # the axes, from those that talk most
MAX_RANKS = 4096


@dataclass(frozen=True)
class Mesh:
    """A layout on nodes of `ranks_per_node`, the rank that is chosen, and the training that it is used for.

    Each copy works through num_microbatches of `microbatch` sequences in a step, with the recomputation and the sequence
    parallelism of a Plan. Raises ValueError for a rank or a size out of range.
    """

    layout: Layout
    ranks_per_node: int
    rank: int
    model: Transformer
    system: System
    num_microbatches: int = 1
    microbatch: int = 1
    recompute: str = "none"
    sequence_parallel: bool = False

    def __post_init__(self) -> None:
        if self.layout.world_size > MAX_RANKS:
            raise ValueError(
                f"{self.layout} has {self.layout.world_size:,} ranks: there is room for {MAX_RANKS:,}."
            )
        nodes_of((), self.ranks_per_node)
        self.layout.coordinates(self.rank)

    @property
    def num_nodes(self) -> int:
        return -(-self.layout.world_size // self.ranks_per_node)

    @cached_property
    def plan(self) -> Plan:
        """How the model is trained. Raises ValueError, naming the rule, if it cannot be cut like that."""
        if self.layout.cp > 1:
            raise ValueError("What a rank holds and sends is counted here for cp = 1.")
        pp, dp, _, tp = self.layout.sizes
        batch = dp * self.num_microbatches * self.microbatch
        plan = Plan(
            pp, dp, tp, batch, self.microbatch, recompute=self.recompute, sequence_parallel=self.sequence_parallel
        )  # fmt: skip
        plan.check_fits(self.model)
        return plan

    @property
    def rule(self) -> str:
        """Why the model cannot be cut in this way: "" if it can."""
        try:
            return "" if self.plan else ""
        except ValueError as error:
            return str(error)

    @property
    def traffic(self) -> StepTraffic:
        """What the chosen rank sends in a step. Raises ValueError if the model cannot be cut in this way."""
        system = replace(self.system, gpus_per_node=self.ranks_per_node)
        return step_traffic(self.model, self.plan, system, self.rank, self.layout)


def title(mesh: Mesh) -> str:
    """ "pp 64 × dp 6 × tp 8: 3,072 ranks on 384 nodes of 8"."""
    ranks, nodes = (
        _count(n, word) for n, word in ((mesh.layout.world_size, "rank"), (mesh.num_nodes, "node"))
    )
    return f"{mesh.layout}: {ranks} on {nodes} of {mesh.ranks_per_node}".replace("1 rank: ", "")


def place(mesh: Mesh, rank: int) -> str:
    """ "rank 1234 · pp 25, dp 4, tp 2 · node 154"."""
    here = mesh.layout.coordinates(rank)
    along = [f"{axis} {getattr(here, axis)}" for axis in mesh.layout.order if getattr(mesh.layout, axis) > 1]
    return " · ".join(
        [f"rank {rank}", *([", ".join(along)] if along else []), f"node {rank // mesh.ranks_per_node}"]
    )


def group_rows(mesh: Mesh) -> list[list[str]]:
    """For each group of the rank: axis, its ranks, where they are, both neighbours and the links to them, bytes, seconds."""
    traffic = {} if mesh.rule else {group.axis: group for group in mesh.traffic.groups}
    groups = {axis: mesh.layout.group(mesh.rank, axis) for axis in SHOWN if getattr(mesh.layout, axis) > 1}
    if "ends" in traffic:
        groups["ends"] = traffic["ends"].ranks
    return [
        [axis, _ranks(ranks), _nodes(mesh, ranks), _neighbours(mesh, axis, ranks), *_sent(traffic.get(axis))]
        for axis, ranks in groups.items()
    ]


def holdings(mesh: Mesh) -> list[str]:
    """Which layers and which slice of each weight the rank holds, a line each; or the rule that the layout breaks."""
    if mesh.rule:
        return [mesh.rule]
    model, plan, here = mesh.model, mesh.plan, mesh.layout.coordinates(mesh.rank)
    each = model.num_layers // plan.pp
    layers = f"layers {here.pp * each}–{(here.pp + 1) * each - 1}" if each > 1 else f"layer {here.pp}"
    heads = _span(model.num_heads, plan.tp, here.tp)

    def cut(length: int) -> str:
        return "{:,}:{:,}".format(*_span(length, plan.tp, here.tp))

    q, kv, up = cut(model.query_width), cut(model.kv_width), cut(model.mlp_width)
    columns = (
        f"q, k, v columns {q}"
        if model.kv_width == model.query_width
        else f"q columns {q}, k and v columns {kv}"
    )
    number = stage_parameters(model, plan, here.pp)
    ends = [f"rows {cut(model.vocab_size)} of the token embedding"] if here.pp == 0 else []
    ends += [f"the head for tokens {cut(model.vocab_size)}"] if here.pp == plan.pp - 1 else []
    return [
        f"holds {layers} of {model.name}'s {model.num_layers}" + (", " + ", ".join(ends) if ends else ""),
        f"of each layer heads {heads[0]}–{heads[1] - 1}: {columns}, o rows {q}",
        f"of each MLP {'gate and up' if model.gated else 'up'} columns {up}, down rows {up}",
        f"{number:,} parameters"
        + (", the same as on the other ranks of its dp group" if plan.dp > 1 else ""),
    ]


def describe(mesh: Mesh) -> str:
    """All of it in words."""
    rows = [" · ".join(filter(None, row)) for row in group_rows(mesh)]
    return "\n".join([title(mesh), place(mesh, mesh.rank), *rows, *holdings(mesh)])


def seconds_text(seconds: float) -> str:
    """ "5.66 s", "291 ms", "12.3 µs": three digits, halves rounded up as the page does it."""
    for unit, name in ((1.0, "s"), (1e-3, "ms")):
        if seconds >= unit:
            return f"{_three(seconds / unit)} {name}"
    return f"{_three(seconds / 1e-6)} µs"


def _three(value: float) -> str:
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{floor(value * 10**digits + 0.5) / 10**digits:.{digits}f}"


def _span(length: int, parts: int, part: int) -> tuple[int, int]:
    bounds = split_bounds(length, parts)
    return bounds[part], bounds[part + 1]


def _count(n: int, word: str) -> str:
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def _ranks(ranks: tuple[int, ...]) -> str:
    if ranks[-1] - ranks[0] == len(ranks) - 1 > 1:
        return f"{ranks[0]}–{ranks[-1]}"
    if len(ranks) <= 4:
        return ", ".join(map(str, ranks))
    return f"{ranks[0]}, {ranks[1]}, … {ranks[-1]}"


def _nodes(mesh: Mesh, ranks: tuple[int, ...]) -> str:
    return f"{len(ranks)} on {len(nodes_of(ranks, mesh.ranks_per_node))}"


def _neighbours(mesh: Mesh, axis: str, ranks: tuple[int, ...]) -> str:
    """The rank before and the rank behind, each with the kind of link; a pipeline is no ring."""
    at, n = ranks.index(mesh.rank), len(ranks)
    steps = [(-1, "←"), (1, "→")] if n > 2 or axis == "pp" else [(1 if at == 0 else -1, "↔")]
    found = []
    for step, arrow in steps:
        if axis != "pp" or 0 <= at + step < n:
            other = ranks[(at + step) % n]
            same = other // mesh.ranks_per_node == mesh.rank // mesh.ranks_per_node
            found.append(f"{arrow} {other} {'inside' if same else 'across'}")
    return ", ".join(found)


def _sent(group: GroupTraffic | None) -> tuple[str, str]:
    if group is None:
        return "", ""
    amount = f"{bytes_text(floor(group.sent_bytes + 0.5))} in {_count(group.messages, 'message')}"
    return amount, f"{seconds_text(group.seconds)} at {_three(group.link.bandwidth_gb_s)} GB/s"


def shape_data(model: Transformer) -> dict[str, object]:
    """What the page needs to know of a model."""
    names = (
        "name num_layers width num_heads query_width kv_width mlp_width gated tied context vocab_size".split()
    )
    names += ["layer_parameters", "embedding_parameters", "head_parameters", "extra_parameters"]
    return {name: getattr(model, name) for name in names}


def system_data(system: System) -> dict[str, list[float]]:
    """What the page needs to know of the links."""
    return {
        name: [link.latency_s, link.bandwidth_gb_s]
        for name, link in (("inside", system.inside), ("across", system.across))
    }
