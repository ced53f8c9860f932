"""The memory estimator: what a plan needs on one GPU beside what the GPU has, and single changes that would make it fit."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from course_lib.cost.advice import NAMES, Estimate, Suggestion, suggestions
from course_lib.cost.hardware import GPU, GPUS
from course_lib.cost.plan import Plan
from course_lib.cost.shapes import MODELS, RECOMPUTE, Transformer
from course_lib.numbers import count, gb_text
from course_lib.viz.controls import Choice, Control, Number, Switch
from course_lib.viz.scene import Mark, Panel, Scene, line, rect, text
from course_lib.viz.widget import Picture, picture

GROUPS = {
    "Train": ("model", "gpu"), "Cut into": ("tp", "pp", "dp", "chunks"), "Each step": ("batch", "microbatch"),
    "Save memory": ("zero", "recompute", "sequence_parallel"),
}  # fmt: skip
NOT_COUNTED = (
    "1 GB = 10⁹ bytes. Not counted: what libraries take for themselves, buffers of messages, gaps of the allocator."
)
HINT = "Click a change, or reach it with Tab and arrow keys and press Enter. Point at a bar for its bytes."


def memory_estimator(
    model: str | Transformer = "GPT-3 175B", gpu: str | GPU = "A100", plan: Plan | None = None
) -> Picture:
    """Show what one GPU of the first pipeline stage holds, beside what it has; the reader changes everything.

    model, gpu: names of MODELS and GPUS, or one of your own, under a name of its own.
    plan: Plan() by default; in place of one that cannot cut the model the rule that it breaks is shown.
    Raises ValueError for an unknown name, TypeError for anything but a name and a Transformer, GPU or Plan.
    """
    plan, models, gpus = plan or Plan(), _with_own(model, MODELS, Transformer), _with_own(gpu, GPUS, GPU)
    if not isinstance(plan, Plan):
        raise TypeError(f"plan is a Plan(tp=..., pp=..., dp=...), not a {type(plan).__name__}.")
    lists = {"model": tuple(models), "gpu": tuple(gpus), "zero": (0, 1, 2, 3), "recompute": RECOMPUTE}
    controls = [_control(name, group, lists) for group, names in GROUPS.items() for name in names]
    named = {"model": getattr(model, "name", model), "gpu": getattr(gpu, "name", gpu)}
    chosen = {c.name: named.get(c.name) or getattr(plan, c.name) for c in controls}
    return picture(partial(build, models, gpus, plan), controls, chosen)


def _with_own(what: Any, presets: Mapping[str, Any], kind: type) -> Mapping[str, Any]:
    """The presets, and with them `what` if it is a value of that kind."""
    if not isinstance(what, str | kind):
        raise TypeError(f"pass a name or a {kind.__name__}, not a {type(what).__name__}.")
    if isinstance(what, kind) and presets.get(what.name, what) != what:
        raise ValueError(f"{what.name!r} is a preset with other numbers: give yours a name of its own.")
    return presets if isinstance(what, str) else {**presets, what.name: what}


def _control(name: str, group: str, lists: Mapping[str, tuple]) -> Control:
    label = f"{NAMES[name]} {name}" if len(name) == 2 else NAMES[name]  # sentences say tp, pp, dp
    if name in lists:
        return Choice(name, lists[name], label, group=group)
    plain = Switch if name == "sequence_parallel" else partial(Number, low=1, high=10**6)
    return plain(name, label=label, group=group)


def build(models: Mapping, gpus: Mapping, given: Plan, width: int = 760, **chosen: Any) -> Scene:
    """Bars, verdict and changes as a scene. Raises ValueError, naming the rule, for a plan that cannot be."""
    model, gpu = models[chosen.pop("model")], gpus[chosen.pop("gpu")]
    now = Estimate(model, gpu, replace(given, **chosen))
    found, use, plan, width = suggestions(now), now.use, now.plan, min(width, 820)  # wider pages enlarge it
    narrow, column = width < 560, width * 0.42  # where it is narrow, bars are under their words
    left, edge, down = (8, width - 8, 18) if narrow else (column, column - 14, 0)
    most = max(e.use.total + max(0, e.spare_bytes) for e in (now, *(s.after for s in found)))
    bars = partial(_bars, lambda nbytes: left + nbytes * (width - left - 8) / most)
    limit, y = bars.args[0](use.total + now.spare_bytes), 26.0
    marks = [text(limit, 12, f"{gpu.name}: {gpu.memory_gb:g} GB", f"strong{' end' * (limit > 0.6 * width)}")]
    for name, size in (*vars(use).items(), ("", use.total)):
        bold, y = ("", y) if name else (" strong", y + 8)
        marks.append(text(8, y + 13, name.replace("_", " ") or "total", bold.strip()))
        marks.append(text(edge, y + 13, gb_text(size, use.total), f"end digits{bold}"))
        marks += bars(now, y + down, 17, name or "total", only=name)
        y += 27 + down
    fit, kind = sum(s.after.fits for s in found), "big" if now.fits else "big bad"
    head = f"The total after one change: {fit or 'none'} of {len(found)} {'fits' if fit == 1 else 'fit'}."
    head = head if found else "No single change needs less memory."
    marks.append(text(8, y + 26, f"{'✓' if now.fits else '✗'} {now.verdict}", kind, width - 16))
    marks.append(text(8, y + 58, head, "strong", width - 16))
    for k, s in enumerate(found):
        marks += _change(s, y + 68 + k * (42 + down), width, edge, down, bars)
    idle = "ZeRO divides by dp, which is 1. " * (plan.zero > 0 and plan.dp == 1)
    idle += "Sequence parallel divides by tp, which is 1. " * (plan.sequence_parallel and plan.tp == 1)
    kept = f"ZeRO stage {plan.zero} · recomputation {plan.recompute}{' · sequence parallel' * plan.sequence_parallel}"
    panel = Panel(width, y + 68 + len(found) * (42 + down), marks)
    alt = [str(now), *filter(None, [idle.strip()]), *(f"{s.change}: {s.after.verdict}" for s in found)]
    title = f"{model.name} on {gpu.name}: memory of one GPU of the first stage"
    return Scene(title, (panel,), (f"{now.sizes} · {kept}.", idle + NOT_COUNTED), HINT, "\n  ".join(alt))


def _bars(at: Callable, e: Estimate, y: float, high: float, key: str, only: str = "") -> list[Mark]:
    """The kinds one after the other, or one of them where it would stand, and the limit that the GPU sets."""
    start, end = 0, at(e.use.total + e.spare_bytes)
    marks = [] if only else [rect(at(0), y, end - at(0), high, "box", key=f"{key} room")]
    for name, size in vars(e.use).items():
        tip = f"{name.replace('_', ' ')}: {size:,} bytes, {size / e.use.total:.0%} of the total"
        more = {"key": f"{key} {name}", "of": (name,), "tip": tip if key in (only, "total") else ""}
        if only in ("", name):
            wide, kind = at(start + size) - at(start), name.partition("_")[0]
            marks.append(rect(at(start), y, wide, high, kind, **more))
        start += size
    return [*marks, line(end, y - 5, end, y + high + 5, "limit", key=f"{key} limit")]


def _change(s: Suggestion, y: float, width: float, edge: float, down: float, bars: Callable) -> list:
    """A row that a click chooses: the change, what it leads to, and the bars after it."""
    after, key, bold = s.after, "+".join(s.settings), " strong" if s.after.fits else ""
    gpus, total = count(after.plan.num_gpus, "GPU"), gb_text(after.use.total)
    tip, sets = f"{s.change}: {after.verdict}, {total} on each of {gpus}", tuple(s.settings.items())
    return [
        text(8, y + 16, f"{'✓' if after.fits else '✗'} {s.change}", bold.strip(), edge - 84, key=key),
        text(edge, y + 16, total, f"end digits{bold}", key=f"{key} total"),
        text(23, y + 31, f"{gpus} · {after.verdict}", "small quiet", edge - 30, key=f"{key} under"),
        *bars(after, y + 12 + down * 1.4, 14, key),
        rect(0, y, width, 38 + down, "tap", key=f"row at {y:.0f}", tip=tip, sets=sets, focus="changes"),
    ]
