"""What a rank sends in one training step: in each of its groups, how much, in how many messages, over which link.

Counted is what depends on the model's width: activations (tp), gradients (dp), what goes from stage to stage (pp), the tied
embedding (its two ends). Left out are single numbers, such as loss and norm, and of the vocabulary's loss three numbers a token.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from course_lib.cost.communication import group_s, ranks_link, ring_bytes, ring_messages
from course_lib.cost.hardware import System
from course_lib.cost.links import Link
from course_lib.cost.memory import parameters_per_gpu
from course_lib.cost.plan import Plan
from course_lib.cost.shapes import Transformer
from course_lib.layout import Layout, nodes_of


@dataclass(frozen=True)
class Call:
    """`times` times the same: a collective over an array of `nbytes` in all, or a message of them ("send")."""

    operation: str
    nbytes: float
    times: int = 1


@dataclass(frozen=True)
class GroupTraffic:
    """What one rank sends in one of its groups in a step.

    axis: "tp", "dp", "pp", or "ends": first and last stage, which share the embedding.  ranks: the group.  calls: of what it
    consists.  sent_bytes, messages: of this rank, collectives as rings send them.  nodes: of the group.  inside: whether all that this rank
    waits for stays in its node.  link: the slowest of those it goes over.  seconds: one after the other; they may hide behind
    computing.
    """

    axis: str
    ranks: tuple[int, ...]
    calls: tuple[Call, ...]
    sent_bytes: float
    messages: int
    nodes: tuple[int, ...]
    inside: bool
    link: Link
    seconds: float

    def __str__(self) -> str:
        many = f"{len(self.nodes)} node{'s' * (len(self.nodes) > 1)}"
        return (
            f"{self.axis:4s} {len(self.ranks):4d} ranks on {many:9s} {self.sent_bytes / 1e9:10.4g} GB {self.messages:8d} messages"
            f" {self.seconds:9.3g} s at {self.link.bandwidth_gb_s:5.4g} GB/s, {'inside' if self.inside else 'across'}"
        )


@dataclass(frozen=True)
class StepTraffic:
    """What a rank sends in one step, group by group; `traffic["tp"]` is one of them. Groups of one rank have none."""

    rank: int
    layout: Layout
    groups: tuple[GroupTraffic, ...]

    def __getitem__(self, axis: str) -> GroupTraffic:
        return next(group for group in self.groups if group.axis == axis)

    def __str__(self) -> str:
        places = zip(self.layout.order, map(self.layout.sizes._asdict().get, self.layout.order), strict=True)
        here = self.layout.coordinates(self.rank)._asdict()
        where = ", ".join(f"{axis} {here[axis]}" for axis, size in places if size > 1)
        return "\n".join([f"rank {self.rank} of {self.layout}: {where}", *map(str, self.groups)])


def step_traffic(
    model: Transformer, plan: Plan, system: System, rank: int = 0, layout: Layout | None = None
) -> StepTraffic:
    """What `rank` sends in one step. layout: the plan's axes in another order; by default tp is innermost and pp outermost.

    Raises ValueError if the plan cannot cut the model, the layout has other sizes than the plan, or there is no such rank.
    """
    plan.check_fits(model)
    layout = layout or Layout(pp=plan.pp, dp=plan.dp, tp=plan.tp)
    if layout.sizes != (plan.pp, plan.dp, 1, plan.tp):
        raise ValueError(
            f"the layout is {layout}, and the plan pp {plan.pp}, dp {plan.dp}, tp {plan.tp}: they must agree."
        )
    stage = layout.coordinates(rank).pp
    parameters, layers = stage_parameters(model, plan, stage), model.num_layers // plan.pp
    found = [
        _collectives("tp", tensor_parallel_calls(model, plan, stage), layout.group(rank, "tp"), system),
        _collectives("dp", gradient_calls(plan, parameters, layers), layout.group(rank, "dp"), system),
        _sends(model, plan, layout.group(rank, "pp"), rank, system),
    ]
    if model.tied and plan.pp > 1 and stage in (0, plan.pp - 1):
        ends = layout.group(rank, "pp")[:: plan.pp - 1]
        shared = Call("all_reduce", plan.gradient_bytes * model.width * model.vocab_size / plan.tp)
        found.append(_collectives("ends", (shared,), ends, system))
    return StepTraffic(rank, layout, tuple(group for group in found if len(group.ranks) > 1))


def layer_calls(
    model: Transformer, microbatch: int, sequence_parallel: bool
) -> tuple[tuple[Call, ...], tuple[Call, ...]]:
    """Collectives of the tensor-parallel ranks for one layer and one micro-batch: forward, backward.

    Two all-reduces each way (Narayanan et al. 2021, section 3.2), or an all-gather and a reduce-scatter in place of each, and
    then backward also gathers the inputs of the two first linears again (Korthikanti et al. 2022, section 4.2.2).
    """
    nbytes = 2 * microbatch * model.context * model.width
    if not sequence_parallel:
        return (Call("all_reduce", nbytes, 2),), (Call("all_reduce", nbytes, 2),)
    halves = Call("all_gather", nbytes, 2), Call("reduce_scatter", nbytes, 2)
    return halves, (*halves, Call("all_gather", nbytes, 2))


def calls_s(calls: Iterable[Call], n: int, stride: int, system: System) -> float:
    """Seconds of these collectives, one after the other, in a group of n ranks that lie `stride` ranks apart."""
    return sum(call.times * group_s(call.operation, call.nbytes, n, stride, system) for call in calls)


def tensor_parallel_calls(model: Transformer, plan: Plan, stage: int) -> tuple[Call, ...]:
    """All that the tensor-parallel ranks of a stage do together in a step.

    Besides the layers: an all-reduce of the activations at either end (of the embedding's rows forward, of the head's input
    gradient backward), and without sequence parallel the all-gather of what came in slices from a neighbouring stage.
    """
    m, layers = plan.num_microbatches, model.num_layers // plan.pp
    forward, backward = layer_calls(model, plan.microbatch, plan.sequence_parallel)
    again = forward if plan.recompute == "full" else ()
    calls = [Call(c.operation, c.nbytes, c.times * layers * m) for c in (*forward, *backward, *again)]
    nbytes = 2 * plan.microbatch * model.context * model.width
    ends = (stage == 0) + (stage == plan.pp - 1)
    calls.append(Call("all_reduce", nbytes, ends * m))
    if not plan.sequence_parallel:
        calls.append(Call("all_gather", nbytes, m * sum(_borders(plan, stage))))
    return tuple(call for call in calls if call.times)


def gradient_calls(plan: Plan, num_parameters: float, layers: float) -> tuple[Call, ...]:
    """Collectives of the data-parallel copies in a step: of all gradients of a stage, as if they were one array.

    ZeRO 1 and 2 send the same in two halves, ZeRO 2 the first of them for each micro-batch, as ZeRO 3 does, layer by layer; that
    also gathers the weights, for forward and for backward of each. Source: Rajbhandari et al. 2020, section 7.
    """
    nbytes, m = plan.gradient_bytes * num_parameters, plan.num_microbatches
    if plan.zero == 0:
        return (Call("all_reduce", nbytes),)
    if plan.zero < 3:
        return Call("reduce_scatter", nbytes, m if plan.zero == 2 else 1), Call("all_gather", nbytes)
    gathers = Call("all_gather", 2 * num_parameters / layers, round(2 * m * layers))
    return Call("reduce_scatter", nbytes / layers, round(m * layers)), gathers


def hop_bytes(model: Transformer, plan: Plan) -> float:
    """Bytes of a message from stage to stage, each way: 2bsh, of which the t ranks of a stage send a t-th each.

    Source: Narayanan et al. 2021, section 4.1.
    """
    return 2 * plan.microbatch * model.context * model.width / plan.tp


def stage_parameters(model: Transformer, plan: Plan, stage: int) -> int:
    """Parameters on each GPU of a stage: its layers, at the first stage the embedding, at the last the norm and the head."""
    if stage == 0:
        return parameters_per_gpu(model, plan)
    last = model.head_parameters + model.extra_parameters + model.tied * model.width * model.vocab_size
    ends = last if stage == plan.pp - 1 else 0
    return -(-(model.num_layers // plan.pp * model.layer_parameters + ends) // plan.tp)


def _borders(plan: Plan, stage: int) -> tuple[int, int]:
    """How often a micro-batch comes in from the stage before, and its gradient from the stage behind."""
    return plan.chunks - (stage == 0), plan.chunks - (stage == plan.pp - 1)


def _collectives(axis: str, calls: tuple[Call, ...], ranks: tuple[int, ...], system: System) -> GroupTraffic:
    n, link, nodes = len(ranks), ranks_link(system, ranks), nodes_of(ranks, system.gpus_per_node)
    sent = sum(call.times * ring_bytes(call.operation, call.nbytes, n) for call in calls)
    messages = sum(call.times * ring_messages(call.operation, n) for call in calls)
    seconds = messages * link.latency_s + link.transfer_s(sent)
    return GroupTraffic(axis, ranks, calls, sent, messages, nodes, len(nodes) == 1, link, seconds)


def _sends(model: Transformer, plan: Plan, ranks: tuple[int, ...], rank: int, system: System) -> GroupTraffic:
    """Activations to the next stage, their gradients to the one before; the last stage's next is the first, if there are chunks."""
    stage, nbytes, m = ranks.index(rank), hop_bytes(model, plan), plan.num_microbatches
    back, ahead = _borders(plan, stage)  # as often as something comes in, its gradient goes back
    ways = [(m * times, ranks[(stage + step) % plan.pp]) for step, times in ((1, ahead), (-1, back)) if times]
    links = [(times, ranks_link(system, (rank, other))) for times, other in ways if plan.pp > 1]
    messages = sum(times for times, _ in links)
    slowest = max((link for _, link in links), key=lambda link: link.seconds(nbytes), default=system.inside)
    seconds = sum(times * link.seconds(nbytes) for times, link in links)
    nodes = nodes_of(ranks, system.gpus_per_node)
    inside = len(nodes_of([rank, *(other for _, other in ways)], system.gpus_per_node)) == 1
    calls = (Call("send", nbytes, messages),)
    return GroupTraffic("pp", ranks, calls, messages * nbytes, messages, nodes, inside, slowest, seconds)
