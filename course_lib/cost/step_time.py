"""The time of one training step of a transformer under a Plan on a System, from its kernels and messages; nothing is fitted.

One constant is open: `software`, how much longer kernels take than matrix units and memory would allow. Two years of one
library differ in it by a tenth. A step is

    m micro-batches on the slowest stage, and (p - 1)/v on an average one: the bubble
    + gradients of data parallel, as far as backward does not hide them + the optimizer.

Bytes of each operation are those of Megatron-LM: softmax with scale and mask, GELU with bias, and dropout with bias and
residual are one kernel each (Narayanan et al. 2021, section 4.2).
"""

from dataclasses import dataclass
from functools import lru_cache

from course_lib.cost.communication import group_s, ring_bytes
from course_lib.cost.hardware import System
from course_lib.cost.kernels import linear_s, matmul_s, stream_s
from course_lib.cost.memory import parameters_per_gpu
from course_lib.cost.plan import Plan
from course_lib.cost.shapes import Transformer
from course_lib.cost.traffic import calls_s, gradient_calls, hop_bytes, layer_calls

# Memory traffic of Adam in mixed precision, bytes a parameter: gradient to float32 (2 + 4), unscale (4 + 4), norm (4),
# clip (4 + 4), Adam (reads 16, writes 12), weights back to 16 bits (4 + 2).
_OPTIMIZER_BYTES = 60
# The loss over the vocabulary in float32, bytes a logit, forward and backward: to float32 (2 + 4), maximum (4), difference (8),
# exponential (8), sum (4), quotient (8); backward: subtract the target (8), scale (8), to 16 bits (4 + 2).
_LOSS_BYTES = 38, 22


@dataclass(frozen=True)
class StepTime:
    """Seconds of one step on the busiest GPU, by what they are spent on. They add up to total_s."""

    compute_s: float
    tensor_parallel_s: float
    pipeline_messages_s: float
    bubble_s: float
    data_parallel_s: float
    optimizer_s: float

    @property
    def total_s(self) -> float:
        """The whole step."""
        return sum(vars(self).values())

    def __str__(self) -> str:
        parts = ", ".join(f"{name[:-2].replace('_', ' ')} {seconds:.3g}" for name, seconds in vars(self).items())
        return f"{self.total_s:.4g} s a step: {parts}"


@dataclass(frozen=True)
class LayerTime:
    """Seconds of one layer for one micro-batch: kernels forward and backward, the attention core, messages of each direction.

    weights_s: the part of backward that makes the gradients of weights, which no other layer waits for.
    """

    forward_s: float
    backward_s: float
    core_s: float
    forward_message_s: float
    backward_message_s: float
    weights_s: float

    def again_s(self, recompute: str) -> float:
        """What backward computes a second time: "none", the "selective" core, or "full", all of forward."""
        return {"none": 0.0, "selective": self.core_s, "full": self.forward_s}[recompute]


@lru_cache(maxsize=4096)
def layer_time(model: Transformer, system: System, microbatch: int, tp: int, sequence_parallel: bool) -> LayerTime:
    """One layer on one of tp ranks, without recomputation; kernels as fast as the hardware allows (software = 1)."""
    s, h, q, kv, f = model.context, model.width, model.query_width, model.kv_width, model.mlp_width
    tokens, heads = microbatch * s, microbatch * model.num_heads / tp
    pairs, near = heads * s * s, tokens * h / (tp if sequence_parallel else 1)

    scores = matmul_s(system, s, s, model.head_width, heads)  # also what either of its factors' gradients takes
    context = matmul_s(system, s, model.head_width, s, heads)
    core = scores + context + stream_s(system, 4 * pairs) + stream_s(system, 5 * pairs * model.dropout)
    core_back = 2 * scores + 2 * context + stream_s(system, 6 * pairs) + stream_s(system, 5 * pairs * model.dropout)
    shapes = (h, (q + 2 * kv) / tp), (q / tp, h), (h, (2 if model.gated else 1) * f / tp), (f / tp, h)
    linears = [linear_s(system, tokens, inputs, outputs) for inputs, outputs in shapes]
    weights = sum(
        matmul_s(system, outputs, inputs, tokens) + stream_s(system, 4 * inputs * outputs) for inputs, outputs in shapes
    )
    act = tokens * (q / tp) * 4 + tokens * f / tp * (6 if model.gated else 4)  # heads side by side; GELU or SwiGLU
    act_back = tokens * (q / tp) * 4 + tokens * f / tp * (10 if model.gated else 8)
    # forward: a norm (2 + 2); bias, dropout, residual (2 + 2 + 2 + mask). backward: norm (6), dropout (5), bias (2), sum (6)
    near_ops = 2 * (stream_s(system, 4 * near) + stream_s(system, 7 * near))
    near_back = 2 * (2 * stream_s(system, 6 * near) + stream_s(system, 7 * near))
    forward = core + near_ops + stream_s(system, act) + sum(f for f, _ in linears)
    backward = core_back + near_back + stream_s(system, act_back) + sum(b for _, b in linears)

    messages = [calls_s(calls, tp, 1, system) for calls in layer_calls(model, microbatch, sequence_parallel)]
    return LayerTime(forward, backward, core, *messages, weights)


@lru_cache(maxsize=4096)
def head_time(model: Transformer, system: System, microbatch: int, tp: int) -> tuple[float, float]:
    """Last norm, logits and loss of one micro-batch, forward and backward: (kernels, messages) in seconds."""
    tokens, columns = microbatch * model.context, model.vocab_size / tp
    kernels = sum(linear_s(system, tokens, model.width, columns))
    kernels += sum(stream_s(system, nbytes * tokens * columns) for nbytes in _LOSS_BYTES)
    kernels += stream_s(system, 10 * tokens * model.width)
    return kernels, group_s("all_reduce", 2 * tokens * model.width, tp, 1, system)


def step_time(model: Transformer, plan: Plan, system: System, software: float = 1.0) -> StepTime:
    """The time of a step, from the start of forward to the end of the optimizer's step.

    software: by what factor kernels take longer than the hardware needs.
    Raises ValueError if the plan cannot cut the model, or tp spans more than a node.
    """
    plan.check_fits(model)
    if plan.tp > system.gpus_per_node:
        raise ValueError(
            f"tp = {plan.tp} spans more than a node of {system.gpus_per_node} GPUs: tensor parallel needs the fast links inside."
        )
    layers, m = model.num_layers / plan.pp, plan.num_microbatches
    layer = layer_time(model, system, plan.microbatch, plan.tp, plan.sequence_parallel)
    kernels = software * layers * (layer.forward_s + layer.backward_s + layer.again_s(plan.recompute))
    messages = layers * (layer.forward_message_s + layer.backward_message_s)
    if plan.recompute == "full":
        messages += layers * layer.forward_message_s
    head_kernels, head_messages = head_time(model, system, plan.microbatch, plan.tp)
    head_kernels *= software
    hops = _hop_s(model, plan, system)
    bubble = (plan.pp - 1) / plan.chunks * (kernels + messages + hops)

    num_parameters = parameters_per_gpu(model, plan)
    gradients = _gradients_s(plan, system, num_parameters, layers, kernels * m)
    mine = num_parameters / (plan.dp if plan.zero else 1)
    optimizer = software * mine * _OPTIMIZER_BYTES / system.roofline.bytes_per_s
    return StepTime(
        m * (kernels + head_kernels), m * (messages + head_messages), m * hops, bubble, gradients, optimizer
    )


def _hop_s(model: Transformer, plan: Plan, system: System) -> float:
    """Messages to and from the neighbouring stages for one micro-batch: 2bsh bytes each way for each chunk.

    The t ranks of a stage send a t-th each and gather it on the other side (Narayanan et al. 2021, section 4.1).
    """
    if plan.pp == 1:
        return 0.0
    nbytes = hop_bytes(model, plan)
    # stages lie tp × dp ranks apart, so neighbours share a node only if all of the data-parallel copies do
    link = system.inside if plan.num_gpus <= system.gpus_per_node else system.across
    gather = 0.0 if plan.sequence_parallel else group_s("all_gather", nbytes * plan.tp, plan.tp, 1, system)
    return 2 * plan.chunks * (link.seconds(nbytes) + gather)


def _gradients_s(plan: Plan, system: System, num_parameters: float, layers: float, hidden_s: float) -> float:
    """What data parallel adds to a step: the messages that nothing hides, and a copy into and out of them.

    zero = 2 keeps no whole gradients from one micro-batch to the next, so each scatters its own. zero = 3 also gathers the
    weights for forward and again for backward of every micro-batch, layer by layer, fetching ahead of the kernels.
    """
    if plan.dp == 1:
        return 0.0
    nbytes, m = plan.gradient_bytes * num_parameters, plan.num_microbatches
    send = calls_s(gradient_calls(plan, num_parameters, layers), plan.dp, plan.tp, system)
    if plan.zero == 3:
        return max(0.0, send - hidden_s)
    times = m if plan.zero == 2 else 1
    if plan.overlap_gradients:  # behind backward, two thirds of the time: of the last micro-batch, or of each
        return max(0.0, send - hidden_s * times / m * 2 / 3)
    return send + times * 4 * nbytes / system.roofline.bytes_per_s


def tensor_parallel_bytes(model: Transformer, plan: Plan) -> float:
    """Bytes that each rank sends for one layer and one micro-batch, forward and backward: 8bsh(t-1)/t elements of 2 bytes.

    Source: Narayanan et al. 2021, section 3.2.
    """
    return 4 * ring_bytes("all_reduce", 2 * plan.microbatch * model.context * model.width, plan.tp)
