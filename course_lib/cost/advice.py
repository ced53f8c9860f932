"""What a plan needs beside what a GPU has, and single changes that would need less."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from course_lib.cost.hardware import GPU, GPUS
from course_lib.cost.memory import MemoryUse, memory_use
from course_lib.cost.plan import Plan
from course_lib.cost.shapes import RECOMPUTE, Transformer
from course_lib.numbers import count, gb_text

NAMES = {  # of what can be changed
    "model": "model", "gpu": "GPU", "tp": "tensor parallel", "pp": "pipeline stages", "dp": "data-parallel copies",
    "chunks": "chunks per stage", "batch": "batch", "microbatch": "micro-batch", "zero": "ZeRO stage",
    "recompute": "recomputation", "sequence_parallel": "sequence parallel",
}  # fmt: skip


@dataclass(frozen=True)
class Estimate:
    """The memory of one GPU of the first pipeline stage under a plan, beside what the GPU has.

    use: what the plan needs.  spare_bytes: what the GPU has beyond that; below 0, what is missing.
    Raises ValueError, naming the rule, if the plan cannot cut the model.
    """

    model: Transformer
    gpu: GPU
    plan: Plan
    use: MemoryUse = field(init=False)
    spare_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "use", memory_use(self.model, self.plan))
        object.__setattr__(self, "spare_bytes", round(self.gpu.memory_gb * 1e9) - self.use.total)

    @property
    def fits(self) -> bool:
        return self.spare_bytes >= 0

    @property
    def verdict(self) -> str:
        """Whether it fits, and by how much."""
        spare = self.spare_bytes
        return f"fits: {gb_text(spare)} to spare" if self.fits else f"does not fit: {gb_text(-spare)} too many"

    @property
    def sizes(self) -> str:
        """The number of GPUs and of micro-batches, in words."""
        p, steps = self.plan, count(self.plan.num_microbatches, "micro-batch")
        cuts = f"{count(p.num_gpus, 'GPU')} = tp {p.tp} × pp {p.pp} × dp {p.dp}"
        return f"{cuts} · {steps} of {count(p.microbatch, 'sequence')} per pipeline"

    def __str__(self) -> str:
        total, sizes = self.use.total, vars(self.use).items()
        parts = ", ".join(f"{kind.replace('_', ' ')} {gb_text(size, total)}" for kind, size in sizes)
        head = f"{self.model.name} on {self.gpu.name} ({self.gpu.memory_gb:g} GB), one GPU of the first stage"
        return f"{head}: {parts}, total {gb_text(total)}; {self.verdict}; {self.sizes}"


@dataclass(frozen=True)
class Suggestion:
    """One change, in words and as fields of the plan (or "gpu") to set, and what it leads to."""

    change: str
    settings: Mapping[str, Any]
    after: Estimate


def suggestions(now: Estimate) -> list[Suggestion]:
    """The single changes that need less memory, those that fit first, the others by what is missing.

    Of those that fit the fewest GPUs come first, and another kind of GPU last.
    The changes: the next ZeRO stage; one more recomputation; sequence parallel; no interleaving; tp and pp at least doubled,
    to the next size that divides the model; dp doubled, with the batch where it must be; half the micro-batch; and, if the
    plan does not fit, the smallest GPU on which it does, else the largest.
    """
    found, before = [], {**vars(now.plan), "gpu": now.gpu.name, "sequence_parallel": "off"}
    for choices in _steps(now):
        for settings in choices:
            fields = dict(settings)
            gpu = GPUS.get(fields.pop("gpu", ""), now.gpu)
            try:
                after = Estimate(now.model, gpu, replace(now.plan, **fields))
            except ValueError:
                continue
            words = (f"{NAMES[k]} {before[k]} → {'on' if v is True else v}" for k, v in settings.items())
            if after.spare_bytes > now.spare_bytes:
                found.append(Suggestion(", ".join(words), settings, after))
            break  # the rest of these choices goes further than it must
    found.sort(key=lambda s: -s.after.spare_bytes)
    found.sort(key=lambda s: ("gpu" in s.settings, s.after.plan.num_gpus) if s.after.fits else (2, 0))
    return found


def _steps(now: Estimate) -> Iterator[list[dict[str, Any]]]:
    """One step of each field towards less memory: settings, of which the first that is possible is taken."""
    model, plan = now.model, now.plan
    yield [{"zero": plan.zero + 1}] if plan.zero < 3 else []
    yield [{"recompute": more} for more in RECOMPUTE[RECOMPUTE.index(plan.recompute) + 1 :][:1]]
    yield [{"sequence_parallel": True}]
    yield [{"chunks": 1}]
    for name, most in (("tp", model.num_heads), ("pp", model.num_layers)):
        yield [{name: n} for n in range(2 * getattr(plan, name), most + 1) if most % n == 0]
    yield [{"dp": 2 * plan.dp}, {"dp": 2 * plan.dp, "batch": 2 * plan.batch}]
    yield [{"microbatch": plan.microbatch // 2}] if plan.microbatch % 2 == 0 else []
    larger = sorted((g for g in GPUS.values() if g.memory_gb > now.gpu.memory_gb), key=lambda g: g.memory_gb)
    enough = [g for g in larger if now.use.total <= g.memory_gb * 1e9]
    yield [] if now.fits else [{"gpu": gpu.name} for gpu in enough[:1] or larger[-1:]]
