"""The faults that `course_lib.faults.museum` can show: what is wrong, and where it was found in a real project."""

from dataclasses import dataclass

from course_lib.layout import Layout

TENSOR, PIPELINE = Layout(dp=2, tp=2), Layout(pp=2, dp=2)  # the layouts of the museum's job


@dataclass(frozen=True)
class Fault:
    """what: the mistake.  found: an issue or pull request that reports it, or one much like it.  layout: the room it is shown in.

    stops: the ranks cannot go on; otherwise they train, and nothing is said.  max_norm: what the job clips at when it is shown.
    """

    what: str
    found: str
    layout: Layout = TENSOR
    stops: bool = False
    max_norm: float | None = None


GITHUB = "https://github.com/"
FAULTS = {
    "no broadcast": Fault("every rank starts from weights of its own", GITHUB + "pytorch/torchtitan/issues/166"),
    "sum for mean": Fault("gradients of the copies are added up, and not divided", GITHUB + "horovod/horovod/issues/2654"),
    "no all-reduce": Fault("gradients of the copies never meet", GITHUB + "jingyaogong/minimind/issues/853"),
    "one forgotten": Fault("one tensor is left out when gradients are averaged", GITHUB + "pytorch/pytorch/issues/12603"),
    "step too early": Fault("the optimizer steps before gradients are averaged", GITHUB + "NVIDIA/Megatron-LM/issues/3670"),
    "same rows": Fault("all copies train on the same rows", GITHUB + "k2-fsa/icefall/issues/1616"),
    "not divided": Fault("micro-batches add up, and are not divided by their number", GITHUB + "deepspeedai/DeepSpeed/issues/7773"),
    "mean of means": Fault("a mean of micro-batches' means, though they count unequally many tokens",
                           GITHUB + "huggingface/transformers/pull/34191"),
    "other order": Fault("two ranks average two tensors of one shape in opposite order", GITHUB + "deepspeedai/DeepSpeed/issues/2343"),
    "norms drift": Fault("gradients of the norm are not added up over the parts of the sequence",
                         GITHUB + "NVIDIA/Megatron-LM/issues/1446"),
    "no backward reduce": Fault("the gradient that enters split work is not added up over its slices",
                                GITHUB + "pytorch/torchtitan/issues/1805"),
    "bias twice": Fault("the bias of a row-parallel layer is added on every rank", GITHUB + "huggingface/text-generation-inference/issues/1036"),
    "clips alone": Fault("each rank clips by the norm of its own slices", GITHUB + "NVIDIA-NeMo/Automodel/issues/3816", max_norm=0.05),
    "untied": Fault("the two ends of a pipeline step their copies of one embedding alone",
                    GITHUB + "uw-syfi/piper/issues/13", layout=PIPELINE),
    "swapped": Fault("one rank averages its tensors in another order", GITHUB + "NVIDIA/Megatron-LM/pull/2218", stops=True),
    "rank 0 only": Fault("a collective inside `if rank == 0`", GITHUB + "EleutherAI/bergson/pull/380", stops=True),
    "one step more": Fault("one rank has a batch more than the others", GITHUB + "pytorch/pytorch/issues/33148", stops=True),
}  # fmt: skip
