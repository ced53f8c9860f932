"""Every way to train a model on a cluster: those that fit into memory, the fastest first, with what limits each.

    found = search(MODELS["MT-NLG 530B"], SYSTEMS["A100"], num_gpus=2520, batch=2520)
    found                      # a table of the fastest            found.best           the fastest, a Candidate
    found.best_by("pp", "tp")  # the best of each pp and tp        found.why_not(plan)  why a plan is not the best

A candidate is a layout (pp, dp, tp) × a pipeline schedule with its chunks × micro-batch × recomputation × ZeRO stage × sequence
parallel, or not. It is legal if

    pp · dp · tp is all GPUs             tp divides heads, MLP columns and the GPUs of a node (so that no group leaves its node)
    pp · chunks divides the layers       dp · micro-batch divides the batch       the schedule has the micro-batches it needs

and it fits if the fullest GPU holds at most memory_gb - reserve_gb. Pruning leaves nothing out: the list is the one that trying
every candidate would give. Memory is a sum of two parts, and each is worked out once for all candidates that share it; it grows with the
micro-batch, so beyond the first with which nothing fits, larger ones are only counted. And only what fits is timed.

Source: Narayanan et al. 2021, section 3, for what is weighed against what; Isaev et al. 2023 (Calculon) for searching all of it.
"""

import time
from collections.abc import Iterator

from course_lib.cost.candidate import ONE_STAGE, TODAY, Tools, held_activations, state_bytes, timed, with_activations
from course_lib.cost.hardware import System
from course_lib.cost.memory import activation_bytes
from course_lib.cost.plan import Plan
from course_lib.cost.ranking import Search
from course_lib.cost.shapes import Transformer

# Of a GPU's memory, what none of the counted tensors gets: the driver, libraries' buffers, messages, an allocator's gaps. By our count the
# largest published run holds 58 of 80 GB, and one of 66 GB did not fit (Narayanan et al. 2021, section 5.6: 145 billion parameters,
# t = 8, p = 16, nothing recomputed; memory grows up to p micro-batches, and larger batches needed recomputation).
RESERVE_SHARE = 0.2


def search(
    model: Transformer,
    system: System,
    num_gpus: int,
    batch: int,
    memory_gb: float | None = None,
    *,
    reserve_gb: float | None = None,
    tools: Tools = TODAY,
    software: float = 1.0,
) -> Search:
    """Every legal candidate that fits, ranked by the predicted time of a step of `batch` sequences.

    memory_gb: of a GPU, default what it has.  reserve_gb: the part that the counted tensors do not get, default a fifth.
    tools: what the training software offers.  software: by what factor kernels take longer than the hardware needs.
    Raises ValueError for a number of GPUs or a batch below 1.
    """
    for name, value in (("num_gpus", num_gpus), ("batch", batch)):
        if value < 1:
            raise ValueError(f"{name} is {value}: it must be at least 1.")
    begin = time.perf_counter()
    memory_gb = system.gpu.memory_gb if memory_gb is None else memory_gb
    reserve_gb = RESERVE_SHARE * memory_gb if reserve_gb is None else reserve_gb
    limit, found, counts = (memory_gb - reserve_gb) * 1e9, [], [0, 0, 0]
    for layout in layouts(model, system, num_gpus, batch):
        counts[0] += 1
        _search_layout(model, system, layout, batch, limit, tools, software, found, counts)
    found.sort(key=lambda c: (c.total_s, c.memory.total))
    asked = model, system, num_gpus, batch, memory_gb, reserve_gb, tools, software
    return Search(*asked, tuple(found), *counts, time.perf_counter() - begin)


def layouts(model: Transformer, system: System, num_gpus: int, batch: int) -> Iterator[tuple[int, int, int]]:
    """The legal (pp, dp, tp): those that cut the cluster, the model and the batch."""
    for tp in divisors(system.gpus_per_node):
        if model.num_heads % tp or model.mlp_width % tp:
            continue
        for pp in divisors(model.num_layers):
            dp, left = divmod(num_gpus, tp * pp)
            if left == 0 and batch % dp == 0:
                yield pp, dp, tp


def schedules(model: Transformer, pp: int, m: int, recompute: str, tools: Tools) -> list[tuple[str, int]]:
    """The schedules, each with its chunks, that go with m micro-batches on pp stages."""
    if pp == 1:
        return [(ONE_STAGE, 1)]
    found = []
    for name in tools.schedules:
        if name == "interleaved":
            found += [(name, v) for v in divisors(model.num_layers // pp) if v > 1 and m % pp == 0]
        elif name != "ZB-H1" or (m >= pp and recompute != "full"):
            found.append((name, 1))
    return found


def divisors(n: int) -> list[int]:
    """Of n, in order."""
    small = [k for k in range(1, int(n**0.5) + 1) if n % k == 0]
    return small + [n // k for k in reversed(small) if k * k != n]


def _search_layout(model, system, layout, batch, limit, tools, software, found, counts) -> None:
    """Adds what fits of one layout to `found`; to `counts`, how many candidates there are and how many were weighed."""
    pp, dp, tp = layout
    overlap = dp > 1 and tools.overlaps(pp)
    stages = tools.zero if dp > 1 else (min(tools.zero),)  # one copy: nothing to share out
    for sp in tools.sequence_parallel:
        if sp and (tp == 1 or model.context % tp):
            continue

        def plan(microbatch=1, chunks=1, recompute="none", zero=0, sp=sp):
            cut = pp, dp, tp, batch, microbatch, chunks
            return Plan(*cut, recompute, sp, zero, overlap, tools.gradient_bytes)

        states = {zero: state_bytes(model, plan(zero=zero)) for zero in stages}
        least, room = min(state.total for state in states.values()), True
        for microbatch in divisors(batch // dp):
            m = batch // (dp * microbatch)
            options = [(r, *made) for r in tools.recompute for made in schedules(model, pp, m, r, tools)]
            counts[1] += len(options) * len(stages)
            # No schedule holds less than 1F1B, and what that holds grows with the micro-batch.
            thrifty = (activation_bytes(model, plan(microbatch, recompute=r)) for r in tools.recompute)
            room = room and least + min(thrifty) <= limit
            if not room:
                continue
            counts[2] += len(options) * len(stages)
            for recompute, schedule, chunks in options:
                held = held_activations(model, plan(microbatch, chunks, recompute), schedule)
                for zero, state in states.items():
                    if state.total + held <= limit:
                        made, memory = (plan(microbatch, chunks, recompute, zero), with_activations(state, held))
                        found.append(timed(model, made, schedule, memory, system, software))
