"""What a training run shows: a line a second with a bar, and at the end the curve of its loss, as text."""

import time
from collections.abc import Sequence
from math import isfinite
from typing import TextIO

from course_lib.layout import Layout
from course_lib.train.options import Options

BAR = 20  # characters
MARK = "step "  # how a line begins that the next one of its kind may replace


class Progress:
    """The first rank's report. Lines come every second, later ever more rarely, so that a long run does not print without end."""

    def __init__(
        self, options: Options, layout: Layout, num_parameters: int, flops_per_token: float, peak: float | None
    ):
        self.options, self.layout, self.num_parameters = options, layout, num_parameters
        self.flops_per_token, self.peak = flops_per_token, peak

    def begin(self, first: int) -> None:
        """Say what is being trained, from which step on."""
        o = self.options
        how = [f"ZeRO-{o.zero}"] * bool(o.zero) + ["sequence parallel"] * o.sequence_parallel
        how += [f"{o.make_schedule(o.pp, o.num_microbatches).name}"] * (o.pp > 1)
        how += [f"{o.num_microbatches} micro-batches"] * (o.num_microbatches > 1)
        ranks = f"{self.layout.world_size} ranks" + f" ({self.layout})" * (self.layout.world_size > 1)
        print(
            f"GPT of {self.num_parameters:,} parameters, {o.batch} × {o.context} tokens a step, on {', '.join([ranks, *how])}",
            flush=True,
        )
        self.first = self.shown_step = first
        self.start = self.shown = time.perf_counter()

    def show(self, step: int, loss: float) -> None:
        """After each step; prints if it is time to, and after the last."""
        now = time.perf_counter()
        if now - self.shown < max(1.0, (now - self.start) / 60) and step < self.options.steps:
            return
        rate = (step - self.shown_step) / (now - self.shown)  # steps a second, since the last line
        left = (self.options.steps - step) * (now - self.start) / (step - self.first)
        self.shown, self.shown_step = now, step
        print(self.line(step, loss, rate * self.options.batch * self.options.context, left), flush=True)

    def line(self, step: int, loss: float, tokens_per_s: float, left_s: float) -> str:
        """One line: step, bar, loss, speed, time left."""
        steps = self.options.steps
        done = BAR * step // steps
        return (
            f"{MARK}{step:{len(str(steps))}}/{steps} {'█' * done}{'░' * (BAR - done)} loss {loss:.3f}  "
            f"{self.speed(tokens_per_s)}  {clock(left_s)} left"
        )

    def speed(self, tokens_per_s: float) -> str:
        """Tokens a second, and what that is of the peak (model FLOPs utilisation), or in GFLOP/s where no peak is known."""
        flops = tokens_per_s * self.flops_per_token
        share = f"MFU {100 * flops / self.peak:.1f} %" if self.peak else f"{flops / 1e9:,.1f} GFLOP/s"
        return f"{tokens_per_s:,.0f} tokens/s  {share}"

    def end(self, losses: Sequence[float]) -> None:
        """The curve, and a summary."""
        seconds, made = time.perf_counter() - self.start, len(losses) - self.first
        print("\n" + curve(losses))
        tokens = made * self.options.batch * self.options.context
        last = losses[-20:]
        where = f"; checkpoint in {self.options.checkpoint}" if self.options.checkpoint else ""
        print(
            f"loss {sum(last) / len(last):.3f} nats a byte (mean of the last {len(last)} steps) after {len(losses)} steps; "
            f"{made} steps in {clock(seconds)}, {self.speed(tokens / max(seconds, 1e-9))}{where}",
            flush=True,
        )


def clock(seconds: float) -> str:
    """1:05, or 2:03:00."""
    minutes, s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{s:02d}" if hours else f"{minutes}:{s:02d}"


def curve(losses: Sequence[float], width: int = 60, height: int = 9) -> str:
    """The loss over the steps, in characters; each column is a mean of its steps, and empty where that is no number."""
    columns = min(width, len(losses))
    cuts = [i * len(losses) // columns for i in range(columns + 1)]
    means = [sum(losses[a:b]) / (b - a) for a, b in zip(cuts, cuts[1:], strict=False)]
    finite = [mean for mean in means if isfinite(mean)] or [0.0]
    low, high = min(finite), max(finite)
    per_row = (high - low) / (height - 1) or 1.0
    rows = [round((high - mean) / per_row) if isfinite(mean) else None for mean in means]
    lines = []
    for row in range(height):
        label = f"{high - per_row * row:6.2f}" if row in (0, height - 1) else " " * 6
        lines.append(f"{label} │" + "".join("•" if r == row else " " for r in rows).rstrip())
    axis = f"steps 1 to {len(losses)}"
    return "\n".join([*lines, "  loss └" + "─" * columns, " " * 8 + axis])


class Screen:
    """A stream for what `launch` shows of rank 0: without its label, each line of progress over the one before on a terminal."""

    def __init__(self, stream: TextIO):
        self.stream, self.in_place, self.width = stream, stream.isatty(), 0

    def write(self, text: str) -> int:
        """Takes whole lines, as launch gives them."""
        for line in text.splitlines():
            line = line.removeprefix("[rank 0] ")
            if self.in_place and line.startswith(MARK):
                self.stream.write("\r" + line.ljust(self.width))
                self.width = len(line)
            else:
                self.stream.write(("\n" if self.width else "") + line + "\n")
                self.width = 0
        return len(text)

    def flush(self) -> None:
        """As any stream."""
        self.stream.flush()

    def isatty(self) -> bool:
        """No: `launch` must not write a line of its own in place."""
        return False
