"""A mesh of ranks on nodes with one rank chosen: its groups, its links, what it sends in a step and what it holds, in words."""

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import product
from math import floor

from course_lib.cost.hardware import System
from course_lib.cost.plan import Plan
from course_lib.cost.shapes import Transformer
from course_lib.cost.traffic import stage_parameters, step_traffic
from course_lib.layout import Layout, check_rank, nodes_of, split_bounds
from course_lib.numbers import bytes_text, count, seconds_text, three

MAX_RANKS = 4096
GROUPS = {  # from those that talk most
    "tp": "tensor parallel",
    "cp": "context parallel",
    "dp": "data parallel",
    "pp": "pipeline",
    "ends": "both ends share the embedding",
}


@dataclass(frozen=True)
class Mesh:
    """A layout on nodes of `ranks_per_node`, the rank that is chosen, and the training that it is used for.

    Each copy works through num_microbatches of `microbatch` sequences in a step, with the recomputation and the sequence
    parallelism of a Plan. Raises ValueError for a layout that is too large, and for a rank that it does not have.
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
        n = self.layout.world_size
        if n > MAX_RANKS:
            raise ValueError(f"{self.layout} has {n:,} ranks: there is room for {MAX_RANKS:,}.")
        check_rank(self.rank, n)

    def __str__(self) -> str:
        rows = [" · ".join(filter(None, row)) for row in self.group_rows]
        held = [" ".join(pair) for pair in self.holdings] or [str(self.plan)]
        return "\n".join([self.title, self.place, *rows, *held])

    @property
    def title(self) -> str:
        """ "pp 64 × dp 6 × tp 8: 3,072 ranks on 384 nodes of 8"."""
        n, k = self.layout.world_size, self.ranks_per_node
        words = f"{self.layout}: {count(n, 'rank')} on {count(-(-n // k), 'node')} of {k}"
        return words.replace("1 rank: ", "")

    @property
    def place(self) -> str:
        """Where the rank is."""
        return places(self.layout, self.ranks_per_node)[self.rank]

    @cached_property
    def plan(self) -> Plan | str:
        """How the model is trained, or the rule that keeps it from being cut in this way."""
        pp, dp, cp, tp = self.layout.sizes
        if cp > 1:
            return "What a rank holds and sends is counted here for cp = 1."
        ways = {"recompute": self.recompute, "sequence_parallel": self.sequence_parallel}
        try:
            plan = Plan(pp, dp, tp, dp * self.num_microbatches * self.microbatch, self.microbatch, **ways)
            plan.check_fits(self.model)
        except ValueError as rule:
            return str(rule)
        return plan

    @cached_property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """The groups of the rank along axes of more than one rank, from those that talk most."""
        axes = (axis for axis in GROUPS if axis in axes_of(self.layout))
        return {axis: self.layout.group(self.rank, axis) for axis in axes}

    def node(self, rank: int) -> int:
        """The node of a rank."""
        return rank // self.ranks_per_node

    def neighbours(self, axis: str, ranks: tuple[int, ...]) -> list[tuple[str, int]]:
        """The ranks before and behind, with arrows; a pipeline is no ring, and two are neighbours once."""
        at, n = ranks.index(self.rank), len(ranks)
        steps = [(-1, "←"), (1, "→")] if n > 2 or axis == "pp" else [(1 - 2 * at, "↔")]
        return [(a, ranks[(at + step) % n]) for step, a in steps if axis != "pp" or 0 <= at + step < n]

    @property
    def group_rows(self) -> list[tuple[str, ...]]:
        """For each group: axis, its ranks, where they are, both neighbours and the links to them, bytes, seconds."""
        sent, groups, rows, here = {}, dict(self.groups), [], self.node(self.rank)
        if isinstance(self.plan, Plan):
            system = replace(self.system, gpus_per_node=self.ranks_per_node)
            traffic = step_traffic(self.model, self.plan, system, self.rank, self.layout)
            sent = {group.axis: group for group in traffic.groups}
            groups |= {"ends": sent["ends"].ranks} if "ends" in sent else {}
        for axis, ranks in groups.items():
            near = self.neighbours(axis, ranks)
            links = (f"{a} {rank} {'inside' if self.node(rank) == here else 'across'}" for a, rank in near)
            nodes = f"{len(ranks)} on {len(nodes_of(ranks, self.ranks_per_node))}"
            amount = takes = ""
            if group := sent.get(axis):
                amount = f"{bytes_text(floor(group.sent_bytes + 0.5))} in {count(group.messages, 'message')}"
                takes = f"{seconds_text(group.seconds)} at {three(group.link.bandwidth_gb_s)} GB/s"
            rows.append((axis, _ranks(ranks), nodes, ", ".join(links), amount, takes))
        return rows

    @property
    def holdings(self) -> list[tuple[str, str]]:
        """Layers, and slices of each weight, as names and words; nothing if a rule is broken."""
        model, plan, here = self.model, self.plan, self.layout.coordinates(self.rank)
        if isinstance(plan, str):
            return []

        def cut(length: int, last: int = 0, sign: str = ":") -> str:
            start, stop = split_bounds(length, plan.tp)[here.tp : here.tp + 2]
            return f"{start:,}{sign}{stop - last:,}"

        each = model.num_layers // plan.pp
        layers = f"{here.pp * each}–{(here.pp + 1) * each - 1}" if each > 1 else f"{here.pp}"
        q, kv, up = cut(model.query_width), cut(model.kv_width), cut(model.mlp_width)
        columns = f"q, k, v columns {q}" if kv == q else f"q columns {q}, k and v columns {kv}"
        first = f", rows {cut(model.vocab_size)} of the token embedding" if here.pp == 0 else ""
        last = f", the head for tokens {cut(model.vocab_size)}" if here.pp == plan.pp - 1 else ""
        same = ", the same as on the other ranks of its dp group" if plan.dp > 1 else ""
        return [
            ("layers" if each > 1 else "layer", f"{layers} of {model.name}'s {model.num_layers}{first}{last}"),
            ("of each layer", f"heads {cut(model.num_heads, 1, '–')}: {columns}, o rows {q}"),
            ("of each MLP", f"{'gate and up' if model.gated else 'up'} columns {up}, down rows {up}"),
            ("in all", f"{stage_parameters(model, plan, here.pp):,} parameters{same}"),
        ]


def axes_of(layout: Layout) -> list[str]:
    """The axes of more than one rank, the outermost first."""
    return [axis for axis in layout.order if getattr(layout, axis) > 1]


@lru_cache(16)
def places(layout: Layout, ranks_per_node: int) -> list[str]:
    """Where each rank is: "rank 1234 · pp 25, dp 4, tp 2 · node 154"."""
    ways = product(*([f"{axis} {i}" for i in range(getattr(layout, axis))] for axis in axes_of(layout)))
    along = (f" · {', '.join(words)}" if words else "" for words in ways)
    return [f"rank {rank}{words} · node {rank // ranks_per_node}" for rank, words in enumerate(along)]


def _ranks(ranks: tuple[int, ...]) -> str:
    if ranks[-1] - ranks[0] == len(ranks) - 1 > 1:
        return f"{ranks[0]}–{ranks[-1]}"
    return ", ".join(map(str, ranks)) if len(ranks) <= 4 else f"{ranks[0]}, {ranks[1]}, … {ranks[-1]}"
