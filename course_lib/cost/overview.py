"""A search at a glance: the best of each choice, what filters leave of them, and what limits each and where it loses, in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from course_lib.cost.candidate import LIMITS, ONE_STAGE, SCHEDULES, Candidate
from course_lib.cost.ranking import Search, differences
from course_lib.cost.shapes import RECOMPUTE
from course_lib.numbers import count, seconds_text

MOST, ANY = 600, "any"  # marks; what a filter has that leaves all
FILTERS = {  # what can be chosen, and how it is called
    "pp": "pp", "dp": "dp", "tp": "tp", "schedule": "schedule", "recompute": "recomputation", "zero": "ZeRO",
    "sequence_parallel": "sequence parallel",
}  # fmt: skip
PARTS = {"kernels": "kernels"} | {part: words.removeprefix("memory: ") for part, words in LIMITS.items()}
LIMIT_NAMES = {"kernels": "arithmetic"} | LIMITS
WHY = {
    "kernels": "Nothing beyond forward and backward costs a hundredth of the step.",
    "recomputation_s": "Not all that forward computed can be kept, and backward computes it again.",
    "tensor_parallel_s": "The ranks of a tensor-parallel group wait for the sums that they make together.",
    "pipeline_messages_s": "Stages wait for activations from their neighbours, and for the gradients of them.",
    "bubble_s": "Stages stand idle while the pipeline fills and empties.",
    "data_parallel_s": "Gradients, and with ZeRO 3 parameters too, travel for longer than arithmetic hides.",
    "optimizer_s": "The update of the parameters reads and writes much memory.",
}
AGAIN = {
    "none": "nothing is computed again",
    "selective": "attention cores are computed again (selective)",
    "full": "forward is computed again (full)",
}
SHARED = (
    "every copy holds all of it",
    "copies share out the optimizer state",
    "copies share out optimizer state and gradients",
    "copies share out optimizer state, gradients and parameters",
)


class Pick(NamedTuple):
    """The fastest candidate with its choices of FILTERS: a mark of the plot.

    rank: its place, from 1.  ways: how many candidates it stands for, itself too.  limit: what costs most beyond the model
    itself, a name of PARTS.  said: which it is, in a line.
    """

    rank: int
    ways: int
    choices: tuple
    candidate: Candidate
    limit: str
    said: str

    @property
    def parts(self) -> dict[str, float]:
        """Seconds, by PARTS."""
        c = self.candidate
        return {"kernels": c.time.compute_s - c.recomputation_s} | c.losses


@dataclass(frozen=True, eq=False)
class Overview:
    """A search as marks of a plot, the fastest first: the best of each choice of FILTERS, and of those the MOST fastest.

    So the best of what a choice leaves is the best of all candidates with that choice, if it has a mark.
    """

    search: Search

    @cached_property
    def groups(self) -> list[list]:
        """For each choice of FILTERS: rank, ways, choices and candidate of a Pick; the fastest first."""
        found: dict[tuple, list] = {}
        for rank, c in enumerate(self.search.candidates, 1):
            choices = tuple(c.schedule if name == "schedule" else getattr(c.plan, name) for name in FILTERS)
            found.setdefault(choices, [rank, 0, choices, c])[1] += 1
        return list(found.values())

    @cached_property
    def marks(self) -> list[Pick]:
        """The groups that are drawn."""
        part_of = {words: part for part, words in LIMIT_NAMES.items()}
        found = []
        for *group, c in self.groups[:MOST]:
            said = f"{c.layout}, {seconds_text(c.total_s)}, {gb(c.memory.total)} GB, {c.limit}"
            found.append(Pick(*group, c, part_of[c.limit], said))
        return found

    @cached_property
    def options(self) -> dict[str, list]:
        """What the marks have of each of FILTERS, in order."""
        orders = {"schedule": (ONE_STAGE, *SCHEDULES).index, "recompute": RECOMPUTE.index}
        columns = zip(*(mark.choices for mark in self.marks))
        return {name: sorted(set(column), key=orders.get(name)) for name, column in zip(FILTERS, columns)}

    def left(self, filters: Mapping[str, Any]) -> list[Pick]:
        """The marks that have all that was chosen: of each of FILTERS a value, or ANY."""
        wanted = [(i, filters[name]) for i, name in enumerate(FILTERS) if filters[name] != ANY]
        return [mark for mark in self.marks if all(mark.choices[i] == value for i, value in wanted)]

    @property
    def room_gb(self) -> str:
        """What the counted tensors may take."""
        return f"{self.search.limit_bytes / 1e9:g}"

    # --- words

    @property
    def counts(self) -> str:
        """How many candidates there are, and which of them have a mark."""
        s, shown = self.search, len(self.marks)
        if not shown:
            return s.table().splitlines()[-1]
        words = f"{s.num_fit:,} of {s.num_legal:,} candidates fit into {self.room_gb} of {s.memory_gb:g} GB."
        standing = sum(mark.ways for mark in self.marks)
        if standing > shown:
            words += (
                f" A mark is the fastest with its layout, schedule, recomputation, ZeRO and sequence parallel: {shown:,} marks. "
                f"Left out: {standing - shown:,} that differ from one only in micro-batch or pieces, none faster."
            )
        if rest := self.groups[MOST:]:
            ways, fastest = sum(ways for _, ways, *_ in rest), rest[0][-1].total_s
            words += f" Left out, too: the {len(rest):,} slowest such marks ({ways:,} candidates), of {fastest:.3g} s and more."
        return words

    def left_text(self, left: list[Pick]) -> str:
        """How many a choice leaves, and the best of them."""
        shown = len(self.marks)
        if not left:
            return f"None of {shown:,} marks is left: set something back to “{ANY}”."
        ways, standing = (sum(mark.ways for mark in some) for some in (left, self.marks))
        words = f"Left: {len(left):,} of {shown:,} marks, {ways:,} of {standing:,} candidates."
        if len(left) == shown:
            words = f"All {shown:,} marks are shown." if shown > 1 else "There is one mark."
        best, c = left[0], left[0].candidate
        more = "the best of all" if best.rank == 1 else f"number {best.rank:,}, {self._more(c)}"
        return f"{words} The best of them: {c.layout}, {seconds_text(c.total_s)}, {more}."

    def name(self, mark: Pick) -> str:
        """ "Number 2 of 3,956: pp 8 × dp 32 × tp 4"."""
        return f"Number {mark.rank:,} of {self.search.num_fit:,}: {mark.candidate.layout}"

    def facts(self, mark: Pick) -> list[tuple[str, str]]:
        """Its plan; what limits it; its difference to the best: names and words."""
        c, p, cost = mark.candidate, mark.candidate.plan, mark.parts[mark.limit]
        pieces = f", {p.chunks} pieces of the model on each stage" if p.chunks > 1 else ""
        batches = f"{count(p.num_microbatches, 'micro-batch')} of {count(p.microbatch, 'sequence')}"
        sequence = f"{'with' if p.sequence_parallel else 'without'} sequence parallel"
        share = f": {seconds_text(cost)}, {100 * cost / c.total_s:.0f} % of the step" * (mark.limit in LIMITS)
        lost = ": the fastest of all that fit"
        if mark.rank > 1:
            lost = f", {self._more(c)}: {differences(c, self.search.best)}"
        return [
            ("schedule", f"{c.schedule}{pieces}; {batches}"),
            ("memory", f"{AGAIN[p.recompute]}; ZeRO {p.zero}: {SHARED[p.zero]}; {sequence}"),
            ("limited by", f"{c.limit}{share}. {WHY[mark.limit]}"),
            ("time", f"{seconds_text(c.total_s)}{lost}."),
        ]

    def describe(self, left: list[Pick], mark: Pick | None) -> str:
        """What is left and, if there is one, all about a mark in words, with its memory and time by part."""
        lines = [self.search.title, self.counts, *([self.left_text(left)] if self.marks else [])]
        if mark:
            memory = mark.candidate.memory
            held = ", ".join(f"{kind.replace('_', ' ')} {gb(size)}" for kind, size in vars(memory).items())
            spent = (f"{PARTS[part]} {seconds_text(size)}" for part, size in mark.parts.items() if size)
            lines += [self.name(mark), *(f"{name}: {words}" for name, words in self.facts(mark))]
            lines.append(f"Memory: {gb(memory.total)} of {self.room_gb} GB: {held}.")
            lines.append(f"Time: {', '.join(spent)}.")
        return "\n".join(lines)

    def _more(self, c: Candidate) -> str:
        more = c.total_s / self.search.best.total_s - 1
        return (
            "nearly as fast as the best of all" if more < 0.005 else f"{100 * more:,.0f} % slower than the best of all"
        )


def gb(nbytes: float) -> str:
    """ "58.7", "0.35": three digits, at most two of them after the point."""
    size = nbytes / 1e9
    return f"{size:.{2 if size < 9.995 else 1 if size < 99.95 else 0}f}"
