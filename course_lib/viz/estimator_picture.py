"""The memory of one GPU as bars: a row a kind, each where the one before ends, and all in the last row."""

from course_lib.viz.estimator_model import KINDS, Estimate, capacity_bytes, gb_text, heading, suggestions
from course_lib.viz.picture import MARGIN, WIDTH, standalone_style
from course_lib.viz.svg import document, element, rect, text

AMOUNT, LEFT = 178, 192  # where the numbers end and the bars begin
HEIGHT = 184
_TOP, _PITCH, _BAR = 28, 27, 17
_LAST = _TOP + len(KINDS) * _PITCH + 9
NOT_COUNTED = (
    "GB: 10⁹ bytes. Not counted: what libraries take for themselves, "
    "buffers of messages, gaps of the allocator."
)


def draw(estimate: Estimate) -> str:
    """Choices, bars, verdict and what would help, as a standalone SVG, the same for the same estimate."""
    head = f"{estimate.model.name} on {estimate.gpu.name} ({estimate.gpu.memory_gb:g} GB)"
    title = f"Memory of one GPU: {head}"
    lines = [] if estimate.rule else ["", *_advice(estimate)]
    bars_at = 70
    verdict_at = bars_at + HEIGHT + 26
    body = [
        text(MARGIN, 32, title, class_="title"),
        text(MARGIN, 54, _choices(estimate), class_="note"),
        element("g", bars(estimate, WIDTH - 2 * MARGIN), transform=f"translate({MARGIN} {bars_at})"),
    ]
    verdict = _wrapped(f"{_mark(estimate)} {estimate.verdict}")
    body += [text(MARGIN, verdict_at + 19 * i, line, class_="verdict") for i, line in enumerate(verdict)]
    down = verdict_at + 19 * len(verdict) + 2
    notes = [*filter(None, (estimate.sizes, estimate.idle)), *lines, "", NOT_COUNTED]
    body += [text(MARGIN, down + 18 * i, note, class_="note") for i, note in enumerate(notes) if note]
    height = down + 18 * len(notes) + 2
    card = rect(0.5, 0.5, WIDTH - 1, height - 1, rx=8, class_="card")
    style = standalone_style("picture.css", "estimator.css")
    return document(WIDTH, height, title, str(estimate), style, card, *body)


def bars(estimate: Estimate, right: int) -> str:
    """The bars between LEFT and `right`; the page moves them for another choice."""
    capacity, use = capacity_bytes(estimate.gpu), estimate.use
    scale = (right - LEFT) / (1.04 * max(capacity, use.total))
    limit = LEFT + capacity * scale
    parts = [
        rect(limit, _TOP - 6, right - limit, HEIGHT - _TOP + 4, class_="over"),
        rect(LEFT, _LAST + 3, limit - LEFT, _BAR + 6, class_="box room"),
        rect(LEFT - 3, _LAST, 0, _BAR + 12, class_="before", display="none"),
    ]
    start = 0
    for k, kind in enumerate(KINDS):
        size, y = getattr(use, kind), _TOP + k * _PITCH
        amount = "–" if estimate.rule else gb_text(size, use.total)
        parts += [
            text(0, y + 13, kind.replace("_", " "), class_="kind"),
            text(AMOUNT, y + 13, amount, class_="number end"),
            rect(LEFT + start * scale, y, size * scale, _BAR, class_=f"held r{k}"),
            rect(LEFT + start * scale, _LAST + 3, size * scale, _BAR + 6, class_=f"held sum r{k}"),
        ]
        start += size
    flip = limit > (LEFT + right) / 2
    total = "–" if estimate.rule else gb_text(use.total)
    parts += [
        rect(0, _LAST - 6, right, 1, class_="rule"),
        text(0, _LAST + 20, "total", class_="kind sum"),
        text(AMOUNT, _LAST + 20, total, class_="number end sum"),
        rect(limit - 1, _TOP - 6, 2, HEIGHT - _TOP + 4, class_="limit"),
        text(
            limit,
            14,
            f"{estimate.gpu.name}: {estimate.gpu.memory_gb:g} GB",
            class_="caption end" if flip else "caption",
        ),
    ]
    return "".join(parts)


def _choices(estimate: Estimate) -> str:
    """What was chosen, beside the sizes that `Estimate.sizes` tells."""
    s = estimate.settings
    parts = [f"tp {s['tp']}", f"pp {s['pp']}", f"dp {s['dp']}"] if estimate.rule else []
    parts += [f"{s['chunks']} chunks per stage"] if s["chunks"] > 1 else []
    parts += [f"batch {s['batch']}", f"ZeRO stage {s['zero']}", f"recomputation {s['recompute']}"]
    return " · ".join([*parts, f"sequence parallel {'on' if s['sequence_parallel'] else 'off'}"])


def _mark(estimate: Estimate) -> str:
    return "✗" if estimate.rule or estimate.spare_bytes < 0 else "✓"


def _advice(estimate: Estimate) -> list[str]:
    found = suggestions(estimate.model, estimate.plan, estimate.gpu)
    lines = [heading(found, estimate.spare_bytes >= 0)]
    for s in found[:4]:
        gpus = f"{s.num_gpus:,} GPU{'' if s.num_gpus == 1 else 's'}"
        lines.append(f"{'✓' if s.fits else '✗'} {s.change}: {gb_text(s.total_bytes)} on each of {gpus}")
    return lines


def _wrapped(sentence: str, most: int = 92) -> list[str]:
    lines = [""]
    for word in sentence.split(" "):
        if len(lines[-1]) + len(word) > most:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
