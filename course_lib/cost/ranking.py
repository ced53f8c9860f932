"""What a search found: the candidates that fit, ranked; the best of each kind; why a plan is not the best."""

from dataclasses import dataclass, field
from html import escape

from course_lib.cost.candidate import LIMITS, Candidate, Tools, usual_schedule, weigh
from course_lib.cost.hardware import System
from course_lib.cost.plan import Plan
from course_lib.cost.shapes import Transformer

# What the table shows of a candidate, and how wide.
_COLUMNS = {
    "pp": 4, "dp": 5, "tp": 3, "b": 4, "m": 5, "schedule": 15, "recompute": 9, "ZeRO": 4, "SP": 3, "GB": 6,
    "seconds": 7, "of peak": 6, "what limits it": 24,
}  # fmt: skip


@dataclass(frozen=True, repr=False)
class Search:
    """All candidates that fit, fastest first; of equally fast ones, that which holds less comes first.

    num_layouts: (pp, dp, tp) that cut model, batch and cluster.  num_legal: candidates.  num_weighed: those whose memory was
    worked out; the others need more than these.  seconds: what the search took.  It prints as a table of the ten fastest.
    """

    model: Transformer
    system: System
    num_gpus: int
    batch: int
    memory_gb: float
    reserve_gb: float
    tools: Tools
    software: float
    candidates: tuple[Candidate, ...]
    num_layouts: int
    num_legal: int
    num_weighed: int
    seconds: float = field(compare=False)

    @property
    def num_fit(self) -> int:
        """How many candidates fit."""
        return len(self.candidates)

    @property
    def limit_bytes(self) -> float:
        """What the counted tensors may take of a GPU's memory."""
        return (self.memory_gb - self.reserve_gb) * 1e9

    @property
    def best(self) -> Candidate:
        """The fastest. Raises ValueError, saying what there was, if none fits."""
        if not self.candidates:
            raise ValueError(f"{self.title}: {self._nothing()}")
        return self.candidates[0]

    def best_by(self, *names: str) -> dict[tuple, Candidate]:
        """The best candidate for each combination of these fields of a plan, or "schedule"; the best combination first."""
        found: dict[tuple, Candidate] = {}
        for c in self.candidates:
            key = tuple(c.schedule if name == "schedule" else getattr(c.plan, name) for name in names)
            found.setdefault(key, c)
        return found

    def rank(self, plan: Plan, schedule: str = "") -> int | None:
        """The place of a plan, from 1; None if it is not among the candidates. schedule: default the one the plan implies."""
        schedule = schedule or usual_schedule(plan)
        same = (i for i, c in enumerate(self.candidates, 1) if c.plan == plan and c.schedule == schedule)
        return next(same, None)

    def why_not(self, plan: Plan, schedule: str = "") -> str:
        """Why a plan is not the best, in a sentence: the rule that it breaks, the memory that it lacks, or where it loses time.

        schedule: default the one that the plan implies. A plan may use what `tools` does not have; that is said, too.
        """
        schedule = schedule or usual_schedule(plan)
        if (plan.num_gpus, plan.batch) != (self.num_gpus, self.batch):
            return f"It is for another task: {plan.num_gpus:,} GPUs and a batch of {plan.batch:,}."
        try:
            mine = weigh(self.model, plan, self.system, self.software, schedule)
        except ValueError as error:
            return f"It cannot be: {error}"
        if mine.memory.total > self.limit_bytes:
            kind = max(vars(mine.memory), key=lambda kind: getattr(mine.memory, kind)).replace("_", " ")
            need, have = mine.memory.total / 1e9, self.limit_bytes / 1e9
            return f"It does not fit: {need:.1f} GB, and there are {have:.1f}. Most of it is {kind}."
        if not self.candidates:
            return f"It would fit, but {self._nothing()}"
        place = self.rank(plan, schedule)
        if place == 1:
            return f"It is the best: {mine.total_s:.4g} s."
        place = f"number {place:,} of {self.num_fit:,}" if place else "not among what these tools can do"
        return f"It takes {mine.total_s / self.best.total_s - 1:+.1%}, {place}: {differences(mine, self.best)}."

    @property
    def title(self) -> str:
        """What was asked."""
        return f"{self.model.name} on {self.num_gpus:,} {self.system.gpu.name}, batch {self.batch:,}"

    def table(self, rows: int = 10) -> str:
        """The counts, and a line for each of the fastest."""
        widths = [max(len(name), width) for name, width in _COLUMNS.items()]
        lines = [list(_COLUMNS), *map(self._cells, self.candidates[:rows])] if self.candidates else []
        text = [" ".join(cell.rjust(w) if w < 15 else cell.ljust(w) for cell, w in zip(line, widths)) for line in lines]
        return "\n".join([self._counts(), *map(str.rstrip, text or [self._nothing()])])

    __str__ = __repr__ = table

    def _repr_html_(self, rows: int = 10) -> str:
        if not self.candidates:
            return f"<p>{escape(str(self))}</p>"
        lines = [("th", list(_COLUMNS)), *(("td", self._cells(c)) for c in self.candidates[:rows])]
        unbroken = str.maketrans({" ": "\u00a0", "-": "\u2011"})
        table = "".join(
            f"<tr>{''.join(f'<{tag}>{escape(cell).translate(unbroken)}</{tag}>' for cell in cells)}</tr>"
            for tag, cells in lines
        )
        return f"<p>{escape(self._counts())}</p><table>{table}</table>"

    def _counts(self) -> str:
        room = f"{self.limit_bytes / 1e9:g} of {self.memory_gb:g} GB"
        counts = f"{self.num_layouts:,} layouts, {self.num_legal:,} candidates, {self.num_fit:,} fit into {room}"
        return f"{self.title}: {counts}"

    def _cells(self, c: Candidate) -> list[str]:
        p = c.plan
        useful_s = self.model.model_flops(self.batch) / (self.num_gpus * self.system.gpu.tflops * 1e12)
        return [
            *map(str, (p.pp, p.dp, p.tp, p.microbatch, p.num_microbatches)),
            f"{c.schedule}, {p.chunks}" if p.chunks > 1 else c.schedule,
            p.recompute,
            str(p.zero),
            "yes" if p.sequence_parallel else "no",
            f"{c.memory.total / 1e9:.1f}",
            f"{c.total_s:.4g}",
            f"{useful_s / c.total_s:.1%}",
            c.limit,
        ]

    def _nothing(self) -> str:
        if not self.num_layouts:
            return (
                f"no layout is legal: pp · dp · tp must be {self.num_gpus:,}, with pp dividing {self.model.num_layers} layers, tp "
                f"dividing {self.model.num_heads} heads and the {self.system.gpus_per_node} GPUs of a node, and dp dividing the "
                f"batch of {self.batch:,}. Take another number of GPUs, or another batch."
            )
        if not self.num_legal:
            return "no candidate is legal with these tools: take others."
        return f"none fits into {self.limit_bytes / 1e9:g} GB: take more GPUs, or other tools."


def differences(mine: Candidate, best: Candidate) -> str:
    """Where `mine` loses, and gains, seconds against `best`: the largest part first."""

    def parts(c: Candidate) -> dict[str, float]:
        words = {name: words.removeprefix("memory: ") for name, words in LIMITS.items()}
        return {"kernels": c.time.compute_s - c.recomputation_s} | {words[n]: s for n, s in c.losses.items()}

    theirs = parts(best)
    gaps = {words: seconds - theirs[words] for words, seconds in parts(mine).items()}
    shown = [words for words in sorted(gaps, key=lambda w: -abs(gaps[w])) if abs(gaps[words]) > 0.01 * best.total_s]
    return ", ".join(f"{gaps[words]:+.3g} s {words}" for words in shown) or "nearly the same in every part"
