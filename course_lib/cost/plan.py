"""How a model is to be trained: over how many GPUs each way, in what pieces, and what is kept or computed again."""

from dataclasses import dataclass

from course_lib.cost.shapes import Transformer, check_recompute


@dataclass(frozen=True)
class Plan:
    """Pipeline stages, data-parallel copies and tensor-parallel slices; `batch` sequences a step, `microbatch` at a time.

    chunks: how many pieces of the model each pipeline stage holds (v; above 1 the schedule is interleaved 1F1B).
    recompute: "none", "selective" (the attention cores) or "full".  sequence_parallel: norms and dropout cut along the
    sequence by the tensor-parallel ranks.  zero: its stage, 0 to 3.  overlap_gradients: the gradients of data parallel
    travel while backward still runs.  gradient_bytes: of a gradient that is kept and sent, 2 or 4.

    Raises ValueError, naming the rule, for what cannot be: a batch that the copies and micro-batches do not divide, an
    interleaved schedule whose micro-batches the stages do not divide. What depends on a model is checked by `check_fits`.
    """

    pp: int = 1
    dp: int = 1
    tp: int = 1
    batch: int = 1
    microbatch: int = 1
    chunks: int = 1
    recompute: str = "none"
    sequence_parallel: bool = False
    zero: int = 0
    overlap_gradients: bool = False
    gradient_bytes: int = 2

    def __post_init__(self) -> None:
        for name in ("pp", "dp", "tp", "batch", "microbatch", "chunks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least 1.")
        if self.batch % (self.dp * self.microbatch):
            raise ValueError(
                f"a batch of {self.batch} does not split into micro-batches of {self.microbatch} on dp = {self.dp} copies: "
                f"it must be a multiple of {self.dp * self.microbatch}."
            )
        if self.chunks > 1 and (self.pp == 1 or self.num_microbatches % self.pp):
            raise ValueError(
                f"an interleaved schedule (chunks = {self.chunks}) needs pp > 1 and micro-batches in multiples of pp; here "
                f"pp = {self.pp} and there are {self.num_microbatches}. Take chunks=1, or another batch."
            )
        if self.zero not in (0, 1, 2, 3):
            raise ValueError(f"zero is {self.zero!r}: it must be 0, 1, 2 or 3.")
        check_recompute(self.recompute)

    @property
    def num_gpus(self) -> int:
        return self.pp * self.dp * self.tp

    @property
    def num_microbatches(self) -> int:
        """Micro-batches that each pipeline works through in a step: m."""
        return self.batch // (self.dp * self.microbatch)

    @property
    def bubble(self) -> float:
        """Idle time of the pipeline over its working time: (p - 1) / (v m). Narayanan et al. 2021, section 2.2."""
        return (self.pp - 1) / (self.chunks * self.num_microbatches)

    def check_fits(self, model: Transformer) -> None:
        """Raise ValueError, naming the rule, if this plan cannot cut this model."""
        rules = (
            (model.num_layers, self.pp * self.chunks, "layers", "pp × chunks"),
            (model.num_heads, self.tp, "heads", "tp"),
            (model.mlp_width, self.tp, "columns of the MLP", "tp"),
        )
        for size, parts, what, name in rules:
            if size % parts:
                raise ValueError(
                    f"{model.name} has {size} {what}, which {name} = {parts} does not divide: take a divisor of {size}."
                )
        if self.sequence_parallel and model.context % self.tp:
            raise ValueError(
                f"sequence parallel cuts {model.context} tokens by tp = {self.tp}, which does not divide them."
            )
