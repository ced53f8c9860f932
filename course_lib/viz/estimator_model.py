"""What the memory estimator knows without a page: what a plan needs, whether it fits, and what would help.

static/estimator_model.js has the same in the page; tests/browser/test_memory_estimator.py holds the two to
the same bytes and words.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from course_lib.cost.hardware import GPU, GPUS
from course_lib.cost.memory import MemoryUse, memory_use
from course_lib.cost.plan import Plan
from course_lib.cost.shapes import RECOMPUTE, Transformer

KINDS = tuple(kind.name for kind in fields(MemoryUse))
LABELS = {  # what the reader can change: groups of fields, and how each is called
    "Train": {"model": "model", "gpu": "GPU"},
    "Cut into": {
        "tp": "tensor parallel",
        "pp": "pipeline stages",
        "dp": "data-parallel copies",
        "chunks": "chunks per stage",
    },
    "Each step": {"batch": "batch", "microbatch": "micro-batch"},
    "Save memory": {
        "zero": "ZeRO stage",
        "recompute": "recomputation",
        "sequence_parallel": "sequence parallel",
    },
}
_NAMES = {name: label for group in LABELS.values() for name, label in group.items()}


def gb_text(nbytes: int, of: int | None = None) -> str:
    """Bytes as "12.3 GB" (10⁹ bytes), with three digits of `of` (by default themselves) or one decimal."""
    decimals, limit = 1, 10 * 10**9
    while decimals < 6 and (nbytes if of is None else of) < limit:
        decimals, limit = decimals + 1, limit // 10
    unit = 10 ** (9 - decimals)
    whole, part = divmod((nbytes + unit // 2) // unit, 10**decimals)
    return f"{whole:,}.{part:0{decimals}d} GB"


def capacity_bytes(gpu: GPU) -> int:
    """The memory of a GPU in bytes."""
    return round(gpu.memory_gb * 1e9)


@dataclass(frozen=True)
class Estimate:
    """The memory of one GPU of the first pipeline stage under a plan, beside what the GPU has.

    settings: the fields of a Plan, possible or not.  rule: the sentence that says why they are impossible.
    plan, use: the plan and what it needs; None and zeros if it is impossible, else rule is "".
    """

    model: Transformer
    gpu: GPU
    settings: Mapping[str, Any]
    rule: str = field(init=False, default="")
    plan: Plan | None = field(init=False, default=None)
    use: MemoryUse = field(init=False, default=MemoryUse())

    def __post_init__(self) -> None:
        try:
            plan = Plan(**self.settings)
            found = {"plan": plan, "use": memory_use(self.model, plan)}
        except ValueError as error:
            found = {"rule": str(error)}
        for name, value in found.items():
            object.__setattr__(self, name, value)

    @property
    def spare_bytes(self) -> int:
        """What is left of the GPU's memory; below 0, what is missing."""
        return capacity_bytes(self.gpu) - self.use.total

    @property
    def verdict(self) -> str:
        """Whether it fits and by how much, or the rule that is broken."""
        if self.rule:
            return f"not possible: {self.rule}"
        spare = self.spare_bytes
        return (
            f"fits: {gb_text(spare)} to spare" if spare >= 0 else f"does not fit: {gb_text(-spare)} too many"
        )

    @property
    def sizes(self) -> str:
        """The number of GPUs and of micro-batches, in words."""
        plan = self.plan
        if plan is None:
            return ""
        counts = [
            (plan.num_gpus, "GPU"),
            (plan.num_microbatches, "micro-batch"),
            (plan.microbatch, "sequence"),
        ]
        gpus, steps, each = (
            f"{n:,} {word}{'' if n == 1 else 'es' if word.endswith('h') else 's'}" for n, word in counts
        )
        return f"{gpus} = tp {plan.tp} × pp {plan.pp} × dp {plan.dp} · {steps} of {each} per pipeline"

    @property
    def idle(self) -> str:
        """The choices that change nothing here, and why."""
        plan = self.plan
        notes = []
        if plan and plan.zero and plan.dp == 1:
            notes.append("ZeRO divides by dp, which is 1.")
        if plan and plan.sequence_parallel and plan.tp == 1:
            notes.append("Sequence parallel divides by tp, which is 1.")
        return " ".join(notes)

    def __str__(self) -> str:
        head = f"{self.model.name} on {self.gpu.name} ({self.gpu.memory_gb:g} GB)"
        if self.rule:
            return f"{head}: {self.verdict}"
        total = self.use.total
        parts = ", ".join(
            f"{kind.replace('_', ' ')} {gb_text(size, total)}" for kind, size in vars(self.use).items()
        )
        bars = f"{head}, one GPU of the first stage: {parts}, total {gb_text(total)}"
        return f"{bars}; {self.verdict}; {self.sizes}"


@dataclass(frozen=True)
class Suggestion:
    """One change of a plan or of the GPU, with what it leads to. settings: the fields to change, or "gpu"."""

    change: str
    settings: Mapping[str, Any]
    total_bytes: int
    spare_bytes: int
    num_gpus: int

    @property
    def fits(self) -> bool:
        return self.spare_bytes >= 0


def suggestions(model: Transformer, plan: Plan, gpu: GPU) -> list[Suggestion]:
    """The single changes that need less memory, those that fit first, the others by what is missing.

    Of those that fit the fewest GPUs come first, and another kind of GPU last.
    The changes: the next ZeRO stage; one more recomputation; sequence parallel; no interleaving; tp and pp at
    least doubled, to the next size that divides the model; dp doubled, with the batch where it must be; half
    the micro-batch; and, if the plan does not fit, the smallest GPU on which it does, else the largest.
    Raises ValueError if the plan cannot cut the model.
    """
    now = memory_use(model, plan).total
    found = []
    for settings in _steps(model, plan):
        after = replace(plan, **settings)
        total = memory_use(model, after).total
        if total < now:
            spare = capacity_bytes(gpu) - total
            found.append(Suggestion(_change(settings, vars(plan)), settings, total, spare, after.num_gpus))
    larger = sorted((g for g in GPUS.values() if g.memory_gb > gpu.memory_gb), key=lambda g: g.memory_gb)
    if larger and now > capacity_bytes(gpu):
        best = next((g for g in larger if now <= capacity_bytes(g)), larger[-1])
        settings = {"gpu": best.name}
        change = _change(settings, {"gpu": gpu.name})
        found.append(Suggestion(change, settings, now, capacity_bytes(best) - now, plan.num_gpus))
    return sorted(
        found,
        key=lambda s: ("gpu" in s.settings, s.num_gpus, -s.spare_bytes) if s.fits else (2, 0, -s.spare_bytes),
    )


def _steps(model: Transformer, plan: Plan) -> Iterator[dict[str, Any]]:
    """One step of each field towards less memory; all of them are possible."""
    if plan.zero < 3:
        yield {"zero": plan.zero + 1}
    if plan.recompute != RECOMPUTE[-1]:
        yield {"recompute": RECOMPUTE[RECOMPUTE.index(plan.recompute) + 1]}
    candidates = [[{"sequence_parallel": True}], [{"chunks": 1}]]
    for name, most in (("tp", model.num_heads), ("pp", model.num_layers)):
        candidates.append([{name: n} for n in range(2 * getattr(plan, name), most + 1)])
    candidates.append([{"dp": 2 * plan.dp}, {"dp": 2 * plan.dp, "batch": 2 * plan.batch}])
    if plan.microbatch % 2 == 0:
        candidates.append([{"microbatch": plan.microbatch // 2}])
    for choices in candidates:
        possible = (settings for settings in choices if _is_possible(model, plan, settings))
        yield from [settings for settings in [next(possible, None)] if settings]


def _is_possible(model: Transformer, plan: Plan, settings: Mapping[str, Any]) -> bool:
    try:
        replace(plan, **settings).check_fits(model)
    except ValueError:
        return False
    return True


def _change(after: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    """ "ZeRO stage 0 → 1"."""

    def word(value: Any) -> str:
        return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)

    return ", ".join(f"{_NAMES[name]} {word(before[name])} → {word(value)}" for name, value in after.items())


def heading(found: list[Suggestion], now_fits: bool) -> str:
    """The sentence above the suggestions."""
    fit = sum(s.fits for s in found)
    if not found:
        return "No single change needs less memory."
    if now_fits:
        return "The total after one change:"
    if not fit:
        return "No single change is enough. The best ones:"
    return f"The total after one change: {fit} of {len(found)} {'makes' if fit == 1 else 'make'} it fit."


def shape_data(model: Transformer) -> dict[str, Any]:
    """What the page needs of a model, so that no shape and no count of parameters is written twice."""
    names = (
        "name", "num_layers", "width", "num_heads", "vocab_size", "context", "mlp_width", "gated", "dropout",
        "query_width", "kv_width", "layer_parameters", "embedding_parameters",
    )  # fmt: skip
    return {name: getattr(model, name) for name in names} | {
        "last_parameters": model.head_parameters + model.extra_parameters
    }
