"""Memory of training on one GPU, predicted: the states by ZeRO stage, and the activations by kind of recomputation."""

from dataclasses import dataclass

from course_lib.cost.plan import Plan
from course_lib.cost.shapes import Transformer

MB = 10**6


@dataclass(frozen=True)
class MemoryUse:
    """Bytes on one rank, by kind. Activations are all that is none of the other three: temporaries and logits, too."""

    parameters: int = 0
    gradients: int = 0
    optimizer_state: int = 0
    activations: int = 0

    @property
    def total(self) -> int:
        return self.parameters + self.gradients + self.optimizer_state + self.activations

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind.replace('_', ' ')} {size / MB:.2f}" for kind, size in vars(self).items())
        return f"{self.total / MB:.2f} MB: {kinds}"


def training_state(
    num_parameters: int,
    world_size: int,
    stage: int,
    parameter_bytes: int = 4,
    gradient_bytes: int = 4,
    optimizer_bytes: int = 8,
) -> MemoryUse:
    """What each rank holds between backward and step, activations aside, at ZeRO stage 0 (nothing sharded), 1, 2 or 3.

    Stage 1 divides the optimizer's state by world_size, 2 the gradients as well, 3 the parameters as well; a part is
    rounded up to whole bytes. The last three arguments are bytes per parameter: as they stand those of Adam in float32,
    whose two moments are the 8. In mixed precision they are 2, 2 and 12: a float32 copy of the parameters and the moments.
    Raises ValueError for another stage, and for a world_size below 1.  Source: Rajbhandari et al. 2020, section 5, figure 1.
    """
    if stage not in (0, 1, 2, 3):
        raise ValueError(f"stage is {stage!r}: it must be 0, 1, 2 or 3.")
    if world_size < 1:
        raise ValueError(f"world_size is {world_size}: at least one rank has to hold the model.")
    parts = [
        -(-num_parameters * bytes_each // (world_size if stage >= sharded_from else 1))
        for bytes_each, sharded_from in ((parameter_bytes, 3), (gradient_bytes, 2), (optimizer_bytes, 1))
    ]
    return MemoryUse(*parts)


def layer_activations(model: Transformer, plan: Plan) -> float:
    """Bytes that one layer keeps on each GPU for the backward of one micro-batch, in 16 bits with masks of one byte.

    Of a GPT: sbh(34 + 5as/h) on one GPU; with t tensor-parallel ranks sbh(10 + 24/t + 5as/(ht)); sequence parallel divides the
    10 as well; "selective" drops the term with a; "full" keeps the layer's input alone, 2sbh. Keys and values are counted as cut by t even
    where there are fewer of their heads than ranks, which then hold copies.
    Source: Korthikanti et al. 2022, equations 1 to 6 and table 2.
    """
    tokens, t = plan.microbatch * model.context, plan.tp  # bs
    parts = t if plan.sequence_parallel else 1
    if plan.recompute == "full":
        return 2 * tokens * model.width / parts
    # By every rank whole, or cut along the sequence: inputs of both norms and of both first linears, masks of both dropouts.
    whole = (8 + 2 * model.dropout) * model.width
    # Cut by t: q, the input of the last linear, k and v; in the MLP what goes into and comes out of the activation function.
    mlp = (8 if model.gated else 4) * model.mlp_width  # SwiGLU: both products, the activation, their product
    cut = 4 * model.query_width + 4 * model.kv_width + mlp
    core = 0  # per pair of tokens and head: softmax in 2 bytes, its dropout in 2, the mask in 1
    if plan.recompute == "none":
        core = (5 if model.dropout else 2) * model.num_heads * model.context
    return tokens * (whole / parts + (cut + core) / t)


def layers_in_flight(model: Transformer, plan: Plan) -> float:
    """Layers' worth of activations on the first stage, the fullest: l whatever p, since stage 0 has p micro-batches under way.

    Interleaved it is 1 + (p - 1)/(pv) times that; with fewer than p micro-batches, m/p of it.
    Source: Korthikanti et al. 2022, section 4.2.3.
    """
    p, m = plan.pp, plan.num_microbatches
    interleaved = 1 + (p - 1) / (p * plan.chunks) if plan.chunks > 1 else 1
    return model.num_layers * interleaved * min(1, m / p)


def ends_activations(model: Transformer, plan: Plan) -> float:
    """Bytes outside the layers on the first stage: masks of the embedding's dropout and, if it is also the last, the head.

    Source: Korthikanti et al. 2022, section 4.3: sbh/t for each micro-batch under way; for p = 1 also 4sbh(1 + V/h)/t, the
    inputs of last norm and head in 16 bits and the logits in 32.
    """
    tokens, t = plan.microbatch * model.context, plan.tp
    under_way = min(plan.pp, plan.num_microbatches) * model.dropout
    head = 4 * (model.width + model.vocab_size) if plan.pp == 1 else 0
    return tokens * (model.width * under_way + head) / t


def parameters_per_gpu(model: Transformer, plan: Plan) -> int:
    """Parameters on a GPU of the fullest stage: its layers and the embedding, cut by tp (norms, too, which is a little less
    than there is); with one stage the head as well."""
    ends = model.embedding_parameters + (model.head_parameters + model.extra_parameters) * (plan.pp == 1)
    return -(-(model.num_layers // plan.pp * model.layer_parameters + ends) // plan.tp)


def memory_use(model: Transformer, plan: Plan) -> MemoryUse:
    """The bytes on a GPU of the first pipeline stage, which holds the most, with Adam in mixed precision.

    Not counted: what a library takes for itself, buffers of messages, an allocator's gaps; and with zero=3 the layers that are
    whole for a moment. Raises ValueError if the plan cannot cut the model.
    """
    plan.check_fits(model)
    state = training_state(parameters_per_gpu(model, plan), plan.dp, plan.zero, 2, plan.gradient_bytes, 12)
    activations = activation_bytes(model, plan)
    return MemoryUse(state.parameters, state.gradients, state.optimizer_state, activations)


def activation_bytes(model: Transformer, plan: Plan) -> int:
    """The activations of memory_use: those of all layers in flight, of the ends, and of the layer that is running again."""
    layers = layers_in_flight(model, plan) * layer_activations(model, plan)
    if plan.recompute == "full":  # while a layer runs again, its activations are there, too
        one = Plan(
            tp=plan.tp, microbatch=plan.microbatch, batch=plan.microbatch, sequence_parallel=plan.sequence_parallel
        )
        layers += layer_activations(model, one)
    return round(layers + ends_activations(model, plan))
