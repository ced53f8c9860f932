"""One way to train a model, weighed: its plan, its pipeline schedule, what it holds, how long it takes, and what limits it.

`memory` and `step_time` know 1F1B, plain and interleaved. Two more schedules differ from plain 1F1B in one thing each:

    GPipe    the time of 1F1B; a stage holds all m micro-batches, not the p that are under way (Huang et al. 2019)
    ZB-H1    the memory of 1F1B; weight gradients fill the bubble, which is (p-1)(F + I - W) for F = I = W (Qi et al. 2023, table 2),
             and in general (p-1) times the largest of F + I - W, F and I, as `simulate` has it
"""

from dataclasses import dataclass, replace

from course_lib.cost.hardware import System
from course_lib.cost.memory import MemoryUse, activation_bytes, layer_activations, parameters_per_gpu, training_state
from course_lib.cost.plan import Plan
from course_lib.cost.shapes import RECOMPUTE, Transformer
from course_lib.cost.step_time import StepTime, layer_time, step_time

ONE_STAGE = "one stage"  # no pipeline: micro-batches one after the other
SCHEDULES = ("GPipe", "1F1B", "interleaved", "ZB-H1")
_OVERLAP = ("always", "without a pipeline", "never")

# What a step spends beyond forward and backward of the model itself, and what is then the limit. Forward again is for want of memory.
LIMITS = {
    "recomputation_s": "memory: recomputation",
    "tensor_parallel_s": "tensor-parallel messages",
    "pipeline_messages_s": "messages between stages",
    "bubble_s": "bubble",
    "data_parallel_s": "messages of data parallel",
    "optimizer_s": "optimizer",
}


@dataclass(frozen=True)
class Tools:
    """What the training software offers, so that a paper's choice can be held against what its authors could choose.

    schedules: of SCHEDULES.  recompute: of "none", "selective", "full".  zero: stages of 0 to 3.  sequence_parallel: without,
    with, or both.  overlap: gradients of data parallel travel during backward "always", "without a pipeline" (PyTorch's DDP
    under Megatron-LM did so) or "never".  gradient_bytes: of a gradient that is kept and sent.
    Raises ValueError for what is not known, and for none at all.
    """

    schedules: tuple[str, ...] = SCHEDULES
    recompute: tuple[str, ...] = RECOMPUTE
    zero: tuple[int, ...] = (0, 1, 2, 3)
    sequence_parallel: tuple[bool, ...] = (False, True)
    overlap: str = "always"
    gradient_bytes: int = 2

    def __post_init__(self) -> None:
        known = dict(schedules=SCHEDULES, recompute=RECOMPUTE, zero=(0, 1, 2, 3), sequence_parallel=(False, True))
        for name, all_of_them in known.items():
            given = getattr(self, name)
            if not isinstance(given, tuple) or not given or not set(given) <= set(all_of_them):
                raise ValueError(f"{name} is {given!r}: it must be a tuple with some of {all_of_them}.")
        if self.overlap not in _OVERLAP:
            raise ValueError(f"overlap is {self.overlap!r}: it must be one of {', '.join(_OVERLAP)}.")

    @classmethod
    def like(cls, plan: Plan) -> "Tools":
        """Those that a plan uses and no others: what is left to choose is layout, micro-batch and number of chunks."""
        overlap = "without a pipeline" if plan.pp == 1 or not plan.overlap_gradients else "always"
        return cls(
            ("1F1B", "interleaved") if plan.chunks > 1 else ("1F1B",),
            (plan.recompute,),
            (plan.zero,),
            (plan.sequence_parallel,),
            overlap,
            plan.gradient_bytes,
        )

    def overlaps(self, pp: int) -> bool:
        """Whether gradients travel during backward with so many stages."""
        return self.overlap == "always" or (self.overlap == "without a pipeline" and pp == 1)


# What Megatron-LM had for Narayanan et al. 2021, and a year later for Korthikanti et al. 2022.
MEGATRON_2021 = Tools(("1F1B", "interleaved"), ("none", "full"), (0,), (False,), "without a pipeline")
MEGATRON_2022 = replace(MEGATRON_2021, recompute=RECOMPUTE, sequence_parallel=(False, True))
TODAY = Tools()


@dataclass(frozen=True, slots=True)
class Candidate:
    """A plan with its schedule, the bytes on its fullest GPU, and the seconds of its step.

    recomputation_s: the part of time.compute_s that does forward again.
    """

    plan: Plan
    schedule: str
    memory: MemoryUse
    time: StepTime
    recomputation_s: float

    @property
    def total_s(self) -> float:
        """Seconds of the step."""
        return self.time.total_s

    @property
    def losses(self) -> dict[str, float]:
        """Seconds by the names in LIMITS; the rest of the step is forward and backward of the model itself."""
        return {name: getattr(self if name == "recomputation_s" else self.time, name) for name in LIMITS}

    @property
    def limit(self) -> str:
        """What costs most of them; "arithmetic" where none costs a hundredth of the step."""
        losses = self.losses
        name = max(losses, key=losses.get)
        return LIMITS[name] if losses[name] > 0.01 * self.total_s else "arithmetic"

    @property
    def layout(self) -> str:
        """The three numbers."""
        return f"pp {self.plan.pp} × dp {self.plan.dp} × tp {self.plan.tp}"

    def __str__(self) -> str:
        p = self.plan
        chunks = f" in {p.chunks}" if p.chunks > 1 else ""
        parts = [
            f"{self.layout}, sequence parallel" if p.sequence_parallel else self.layout,
            f"{self.schedule}{chunks}, {p.num_microbatches} × micro-batch {p.microbatch}",
            f"recompute {p.recompute}, ZeRO {p.zero}",
            f"{self.total_s:.4g} s, {self.memory.total / 1e9:.1f} GB",
            f"limit: {self.limit}",
        ]
        return "; ".join(parts)


def weigh(model: Transformer, plan: Plan, system: System, software: float = 1.0, schedule: str = "") -> Candidate:
    """The plan, weighed.

    software: by what factor kernels take longer than the hardware needs.  schedule: one of SCHEDULES, or ONE_STAGE where
    pp = 1; default the one that the plan implies.
    Raises ValueError, naming the rule, if plan, schedule, model and system do not go together.
    """
    schedule = schedule or usual_schedule(plan)
    _check(plan, schedule, system)
    plan.check_fits(model)
    memory = with_activations(state_bytes(model, plan), held_activations(model, plan, schedule))
    return timed(model, plan, schedule, memory, system, software)


def usual_schedule(plan: Plan) -> str:
    """The schedule that a plan implies: 1F1B, or interleaved if it has chunks."""
    return ONE_STAGE if plan.pp == 1 else "interleaved" if plan.chunks > 1 else "1F1B"


def _check(plan: Plan, schedule: str, system: System) -> None:
    p, m = plan.pp, plan.num_microbatches
    if system.gpus_per_node % plan.tp:
        raise ValueError(
            f"tp = {plan.tp} does not divide a node of {system.gpus_per_node} GPUs: its groups would reach into another node."
        )
    if schedule not in (*SCHEDULES, ONE_STAGE):
        raise ValueError(f"no schedule is called {schedule!r}: take one of {', '.join(SCHEDULES)}.")
    if (schedule == ONE_STAGE) != (p == 1):
        raise ValueError(f"{schedule} with pp = {p}: {ONE_STAGE!r} is for pp = 1, and nothing else is.")
    if (schedule == "interleaved") != (plan.chunks > 1):
        raise ValueError(f"{schedule} with chunks = {plan.chunks}: only interleaved has more than 1.")
    if schedule == "ZB-H1" and (m < p or plan.recompute == "full"):
        raise ValueError(
            f"ZB-H1 needs at least pp = {p} micro-batches (here {m}), and no full recomputation: what is computed again would have "
            "to be kept until the weight gradients."
        )


def state_bytes(model: Transformer, plan: Plan) -> MemoryUse:
    """Parameters, gradients, optimizer state; and, as activations, what is whole for a moment when those are shared out.

    ZeRO 2 has the gradients of a layer whole until they are scattered, ZeRO 3 also the parameters of two: of the one at work and
    of the one that is fetched ahead.
    """
    state = training_state(parameters_per_gpu(model, plan), plan.dp, plan.zero, 2, plan.gradient_bytes, 12)
    if plan.dp == 1 or plan.zero < 2:
        return state
    whole = plan.gradient_bytes + (2 * 2 if plan.zero == 3 else 0)
    return replace(state, activations=-(-whole * model.layer_parameters // plan.tp))


def held_activations(model: Transformer, plan: Plan, schedule: str) -> int:
    """Activations on the first stage: `activation_bytes`, and in GPipe those of the micro-batches that 1F1B would not hold."""
    nbytes = activation_bytes(model, plan)
    more = plan.num_microbatches - plan.pp
    if schedule == "GPipe" and more > 0:
        layers = model.num_layers // plan.pp * layer_activations(model, plan)
        masks = plan.microbatch * model.context * model.width * model.dropout / plan.tp
        nbytes += round(more * (layers + masks))
    return nbytes


def with_activations(state: MemoryUse, nbytes: int) -> MemoryUse:
    """The state, with so many bytes of activations beside it."""
    return MemoryUse(state.parameters, state.gradients, state.optimizer_state, state.activations + nbytes)


def timed(
    model: Transformer, plan: Plan, schedule: str, memory: MemoryUse, system: System, software: float
) -> Candidate:
    """A candidate whose memory is known."""
    time = step_time(model, plan, system, software)
    if schedule != "ZB-H1" and plan.recompute == "none":
        return Candidate(plan, schedule, memory, time, 0.0)
    layer = layer_time(model, system, plan.microbatch, plan.tp, plan.sequence_parallel)
    layers, m = model.num_layers / plan.pp, plan.num_microbatches
    if schedule == "ZB-H1":
        both = time.bubble_s / (plan.pp - 1)  # F + I + W of a stage: what a stage idles for in 1F1B
        weights = software * layers * layer.weights_s
        forward = layers * (software * layer.forward_s + layer.forward_message_s)
        forward += time.pipeline_messages_s / m / 2
        rest = both - forward - weights
        bubble = (plan.pp - 1) * max(forward, rest, forward + rest - weights)
        time = replace(time, bubble_s=bubble)
    again = software * layers * m * layer.again_s(plan.recompute)
    return Candidate(plan, schedule, memory, time, again)
