"""Every published result beside ours, computed now: one Row each. `report` prints them, a test holds them."""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal

from course_lib.cost import published as paper
from course_lib.cost.hardware import GPUS, SYSTEMS
from course_lib.cost.memory import layer_activations, layers_in_flight, training_state
from course_lib.cost.plan import Plan
from course_lib.cost.shapes import MODELS, RESNET50
from course_lib.cost.step_time import layer_time, step_time

A100 = SYSTEMS["A100"]
GIB = 2**30
TIMES = "time of a step"


@dataclass(frozen=True)
class Row:
    """One published number and ours.

    bound: the largest relative error that passes (None: the row is shown and not held); a number that rounds to the printed
    digits always passes.  slack: an absolute difference that passes as well.
    """

    group: str
    name: str
    published: str
    unit: str
    ours: float
    bound: float | None
    source: str
    slack: float = 0.0
    note: str = ""

    @property
    def error(self) -> float:
        """Ours over theirs, minus 1."""
        return self.ours / float(self.published) - 1

    @property
    def beyond_rounding(self) -> float:
        """The size of the error beyond half a unit of the last printed digit, relative."""
        half = float(Decimal((0, (5,), Decimal(self.published).as_tuple().exponent - 1)))
        return max(0.0, abs(self.ours - float(self.published)) - half) / float(self.published)

    @property
    def ours_text(self) -> str:
        """Ours with about four digits."""
        value = self.ours
        return f"{value:.3g}" if value >= 1e6 else f"{value:.4g}" if value < 1000 else f"{value:,.0f}"

    @property
    def rounds_to_it(self) -> bool:
        """Whether ours, rounded to the printed digits, is what is printed."""
        digits = Decimal(self.published)
        rounded = Decimal(self.ours).quantize(Decimal((0, (1,), digits.as_tuple().exponent)), ROUND_HALF_UP)
        return rounded == digits

    @property
    def passes(self) -> bool:
        """Whether the row is within its bound."""
        if self.bound is None or self.rounds_to_it:
            return True
        return abs(self.error) <= self.bound or abs(self.ours - float(self.published)) <= self.slack

    def __str__(self) -> str:
        mark = "   not held" if self.bound is None else "" if self.passes else "   OUT OF BOUNDS"
        note = f"   ({self.note})" if self.note else ""
        return f"{self.name:42s}{self.published:>9s}{self.ours_text:>10s} {self.unit:8s}{100 * self.error:+7.2f} %{mark}{note}"


def rows() -> list[Row]:
    """All rows, group after group."""
    parts = (_parameters, _flops, _zero, _memory, _days, _times, _pipeline, _hardware)
    return [row for part in parts for row in part()]


def run_s(run: paper.PublishedRun, software: float) -> float:
    """Seconds of a step of a published run, by our model."""
    return step_time(run.model, run.plan, A100, software).total_s


def _parameters() -> Iterator[Row]:
    for name, published, unit, source in paper.PARAMETERS:
        model = RESNET50 if name == "ResNet-50" else MODELS[name]
        symbol = "million" if unit == 1e6 else "billion"
        yield Row("parameters", name, published, symbol, model.parameters / unit, 0.005, source)
    for run in paper.RUNS[:4]:
        billions = run.model.parameters / 1e9
        yield Row("parameters", run.name, run.name[:-1], "billion", billions, 0.005, run.paper + ", table 1")
    for name, published, unit, source, note in paper.CONTRADICTED:
        symbol = "million" if unit == 1e6 else "billion"
        yield Row("parameters", name, published, symbol, MODELS[name].parameters / unit, None, source, note=note)


def _flops() -> Iterator[Row]:
    group, bound = "floating-point operations", 0.003
    printed = {name.removeprefix("GPT-3 "): float(n) * unit for name, n, unit, _ in paper.PARAMETERS}
    for name, flops, days in paper.GPT3_COMPUTE:
        ours = 6 * printed[name] * 300e9
        yield Row(group, f"GPT-3 {name}, training", flops, "FLOP", ours, bound, paper.GPT3)
        yield Row(group, f"GPT-3 {name}, training", days, "PF-days", ours / 8.64e19, bound, paper.GPT3)
    llama = 6 * MODELS["Llama 3 405B"].parameters * 15.6e12
    yield Row(group, "Llama 3 405B, 15.6 trillion tokens", "3.8e25", "FLOP", llama, bound, paper.LLAMA3)
    for tflops, percent in paper.PERCENT_OF_PEAK.items():
        share = 100 * float(tflops) / GPUS["A100"].tflops
        yield Row(group, f"{tflops} TFLOP/s of an A100", percent, "%", share, bound, paper.MEGATRON + ", table 1")
    run = next(run for run in paper.RUNS if run.name == "174.6B on 1024")
    seconds = run.model.hardware_flops(1536, "full") / (1024 * 138e12)
    yield Row(group, "174.6B at 138 TFLOP/s on 1,024 GPUs", "32", "s a step", seconds, bound, "Megatron-LM, README")
    for run in (r for r in paper.RUNS if r.paper == paper.SELECTIVE and r.plan.sequence_parallel):
        for kind, percent, flops in zip(
            ("model", "hardware"), paper.UTILISATION[run.model.name], (run.model.model_flops, _eq8)
        ):
            count = flops(run.plan.batch) if kind == "model" else flops(run.model, run.plan.batch)
            share = 100 * count / (run.seconds * run.plan.num_gpus * GPUS["A100"].tflops * 1e12)
            slack = float(percent) * 0.005 / run.seconds  # the time is printed to 0.01 s
            label = f"{run.model.name}, {kind} FLOPs of peak"
            yield Row(group, label, percent, "%", share, bound, run.paper + ", table 5", slack)
    for name, (added, _) in paper.SELECTIVE_TRADE.items():
        model = paper.megatron_gpt(name)
        more = 100 * (_eq8(model, 1) / model.model_flops(1) - 1)
        note = f"it counts three times the forward of the core; once is {100 * _core_share(model):.1f} %"
        yield Row(group, f"{name}, selective adds", added, "%", more, bound, paper.SELECTIVE + ", section 5", note=note)
    per_token = 6 * MODELS["MT-NLG 530B"].parameters + 12 * 105 * 20480 * 2048
    mfu = 100 * 65.43e3 * per_token / (2240 * 312e12)
    yield Row(group, "MT-NLG 530B, 65,430 tokens/s on 2,240 A100", "30.2", "%", mfu, bound, paper.PALM)


def _eq8(model, batch: float) -> float:
    """Hardware FLOPs with selective recomputation as the paper counts them: backward of the core a second time, too."""
    return model.model_flops(batch) + 3 * model.num_layers * model.core_flops(batch)


def _core_share(model) -> float:
    return model.hardware_flops(1, "selective") / model.model_flops(1) - 1


def _zero() -> Iterator[Row]:
    for ranks, cells in paper.ZERO_TABLE.items():
        for stage, published in enumerate(cells, 1):
            ours = training_state(7_500_000_000, ranks, stage, 2, 2, 12).total / 1e9
            yield Row("ZeRO", f"7.5 billion on {ranks}, stage {stage}", published, "GB", ours, 0.0, paper.ZERO)


def _memory() -> Iterator[Row]:
    group, bound = "memory", 0.01
    for old, new in zip(*[iter(r for r in paper.RUNS if r.paper == paper.SELECTIVE)] * 2):
        model, p = old.model, old.plan
        none = Plan(p.pp, 1, p.tp, p.batch, p.microbatch, p.chunks)
        for label, plan, published in zip(
            ("nothing recomputed", new.name.split(", ", 1)[1]), (none, new.plan), paper.ACTIVATIONS_GIB[model.name]
        ):
            ours = layers_in_flight(model, plan) * layer_activations(model, plan) / GIB
            yield Row(group, f"{model.name}, {label}", published, "GiB", ours, bound, paper.SELECTIVE)
        states = model.num_layers * model.layer_parameters / (p.tp * p.pp)
        ours = training_state(round(states), 1, 0, 2, 4, 12).total / GIB
        yield Row(
            group,
            f"{model.name}, states of the layers",
            paper.STATES_GIB[model.name],
            "GiB",
            ours,
            bound,
            paper.SELECTIVE,
        )
    for name, (_, saved) in paper.SELECTIVE_TRADE.items():
        model = paper.megatron_gpt(name)
        some, none = (layer_activations(model, Plan(recompute=kind)) for kind in ("selective", "none"))
        yield Row(
            group,
            f"{name}, selective saves",
            saved,
            "%",
            100 * (1 - some / none),
            bound,
            paper.SELECTIVE + ", section 5",
        )
    for billions, cells in paper.PLAYBOOK_STATES.items():
        for more, published in zip((2, 6), cells):
            ours = training_state(billions * 10**9, 1, 0, 2, more, 12).total / 1e9
            label = f"{billions} billion parameters, {more} bytes a gradient"
            yield Row(group, label, published, "GB", ours, bound, "Tazi et al. 2025, The Ultra-Scale Playbook")


def _days() -> Iterator[Row]:
    for name, tokens, gpus, tflops, published in paper.DAYS:
        model = paper.megatron_gpt(name)
        flops = model.hardware_flops(tokens / model.context, "full")
        days = flops / (gpus * tflops * 1e12) / 86400
        label = f"{name}, {tokens / 1e9:.0f} billion tokens, {gpus:,} GPUs"
        source = paper.MEGATRON + ", section 5.1 and table 2"
        yield Row("days to train", label, published, "days", days, 0.015, source, slack=1.0)


def _times() -> Iterator[Row]:
    for run in paper.RUNS:
        ours = run_s(run, paper.SOFTWARE[run.paper])
        published = run.step_s or f"{run.seconds:.2f}"
        table_of = "table 5" if run.step_s else "tables 1 and 2"
        yield Row(TIMES, f"{run.name} ({run.paper[-4:]})", published, "s", ours, 0.08, f"{run.paper}, {table_of}")
    model, software = paper.RUNS[9].model, paper.SOFTWARE[paper.SELECTIVE]
    for label, plan, published in paper.LAYERS_MS:
        layer = layer_time(model, A100, 4, 8, plan.sequence_parallel)
        forward = software * layer.forward_s + layer.forward_message_s
        total = forward + software * layer.backward_s + layer.backward_message_s
        total += forward if plan.recompute == "full" else 0
        name = f"one layer of 22B, {label}"
        yield Row(TIMES, name, published, "ms", 1000 * total, 0.08, paper.SELECTIVE + ", table 4")


def _pipeline() -> Iterator[Row]:
    for microbatches, chunks, published in paper.BUBBLES:
        ours = Plan(pp=8, batch=microbatches, chunks=chunks).bubble
        label = f"8 stages of {chunks}, m = {microbatches}"
        yield Row("bubble", label, published, "", ours, 0.0, "Tazi et al. 2025, The Ultra-Scale Playbook")


def _hardware() -> Iterator[Row]:
    for name, flops, published in paper.PEAKS:
        yield Row("peaks", f"{name}, clock × units", published, "TFLOP/s", flops / 1e12, 0.001, "ml-engineering")
