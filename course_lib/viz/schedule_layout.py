"""Where the boxes of a pipeline schedule go: a lane a rank, a box an action, at any width.

static/schedule_draw.js has the same in the page; tests/browser/test_schedule_view.py holds the two to the same shapes.
"""

from dataclasses import dataclass
from functools import cached_property
from math import floor, log10

from course_lib.simulate import Simulation
from course_lib.viz.svg import element, rect, text

LEFT, RIGHT, TOP = 62, 112, 24  # of the lanes: what is beside and above them
KINDS = {"F": "forward", "B": "backward", "I": "backward, input only", "W": "backward, weights only"}
LATER = "lower and paler: a rank's later stages"
_BAR, _ROW = 64, 20  # the longest bar of what is held; a row of the legend


@dataclass(frozen=True)
class Gantt:
    """A simulation as shapes. `shapes` is all of them, from y = 0 to `height`."""

    simulation: Simulation
    width: float

    @cached_property
    def chunks(self) -> tuple[dict[int, int], ...]:
        """For each rank, its stages, and which of its chunks each is."""
        ranks = self.simulation.schedule.actions
        return tuple({s: k for k, s in enumerate(sorted({a.stage for a in rank}))} for rank in ranks)

    @cached_property
    def num_chunks(self) -> int:
        return max([1, *map(len, self.chunks)])

    @cached_property
    def pitch(self) -> int:
        """From one lane to the next."""
        p = self.simulation.schedule.num_ranks
        return 38 if p <= 4 else 30 if p <= 8 else 22

    @cached_property
    def lower(self) -> int:
        """How much lower than the first chunk's boxes the last one's are."""
        return 0 if self.num_chunks == 1 else 8 if self.pitch > 30 else 6 if self.pitch > 22 else 4

    @cached_property
    def box(self) -> int:
        """The height of a box."""
        return self.pitch - 4 - self.lower

    @cached_property
    def scale(self) -> float:
        return (self.width - LEFT - RIGHT) / (self.simulation.makespan_s or 1.0)

    @cached_property
    def bottom(self) -> int:
        """Where the lanes end and the legend begins."""
        return TOP + self.pitch * self.simulation.schedule.num_ranks

    @cached_property
    def unit(self) -> int:
        """Steps in a pixel: few where there are many boxes, for short numbers."""
        return 10 if sum(map(len, self.simulation.times)) <= 2000 else 4

    @property
    def height(self) -> int:
        return self.bottom + 6 + _ROW * (1 + self.legend[-1][2])

    def middle(self, rank: int, chunk: int) -> float:
        """The y of the middle of a box."""
        down = self.lower * chunk / (self.num_chunks - 1) if chunk else 0.0
        return TOP + rank * self.pitch + _tenths(down + self.box / 2) / 10

    @property
    def shapes(self) -> str:
        lanes = [
            rect(LEFT, TOP + r * self.pitch, self.width - LEFT - RIGHT, self.pitch - 4, class_="lane")
            for r in range(self.simulation.schedule.num_ranks)
        ]
        return "".join([*lanes, self._axis(), self._boxes(), self._held(), self._legend()])

    def _boxes(self) -> str:
        """A path of thick strokes for each kind and chunk, then the labels that fit. Boxes too narrow for a gap run together."""
        digits, u = len(str(self.simulation.schedule.num_microbatches - 1)), self.unit
        paths: dict[tuple[str, int], list] = {}  # in turn how to go to a box, and how wide it is
        labels: dict[str, list[str]] = {}
        for rank, (actions, times) in enumerate(
            zip(self.simulation.schedule.actions, self.simulation.times, strict=True)
        ):
            pen: dict[tuple[str, int], int] = {}
            for action, (start, end) in zip(actions, times, strict=True):
                key = action.kind, self.chunks[rank][action.stage]
                left = floor((LEFT + start * self.scale) * u + 0.5)
                wide = floor((LEFT + end * self.scale) * u + 0.5) - left
                shown = max(1, wide - (u if wide >= 4 * u else u // 2 if wide >= 2 * u else 0))
                if pen.get(key) == left:
                    paths[key][-1] += shown
                else:
                    y = self.middle(rank, key[1])
                    move = f"m{left - pen[key]} 0h" if key in pen else f"M{left} {y:g}h"
                    paths.setdefault(key, []).extend([move, shown])
                pen[key] = left + shown
                if shown / u >= 6.6 * digits + 2:  # the kind as well, where there is room
                    label = f"{action.kind if shown / u >= 6.6 * digits + 9.6 else ''}{action.microbatch}"
                    middle = floor((left / u + shown / u / 2) * 10 + 0.5) / 10
                    labels.setdefault(action.kind, []).append(text(middle, y + 4, label))
        strokes = [
            element(
                "path",
                d="".join(map(str, paths[key])),
                class_=f"{key[0]} k{min(key[1], 3)}",
                stroke_width=self.box,
            )
            for key in sorted(paths)
        ]
        names = [element("g", *labels[kind], class_=f"mid on{kind}") for kind in sorted(labels)]
        boxes = element("g", *strokes, transform=f"scale({1 / u:g} 1)", class_="boxes")
        return element("g", boxes, *names, class_="actions")

    def _axis(self) -> str:
        makespan = self.simulation.makespan_s
        if not makespan:
            return ""
        step = _nice(makespan / max(2, floor((self.width - LEFT - RIGHT) / 75)))
        parts = []
        for k in range(floor(makespan / step + 1e-9) + 1):
            x = LEFT + _tenths(k * step * self.scale) / 10
            parts.append(element("path", d=f"M{x:g} {TOP - 5}V{self.bottom - 4}", class_="grid"))
            at_end = x > self.width - RIGHT - 20
            parts.append(text(x, TOP - 9, f"{k * step:.6g} s", class_="axis end" if at_end else "axis mid"))
        return "".join(parts)

    def _held(self) -> str:
        """The ranks' names before the lanes, and behind them how much of all activations each holds at most."""
        x, schedule = self.width - RIGHT + 14, self.simulation.schedule
        most = schedule.num_microbatches * self.num_chunks
        parts = [text(x, TOP - 9, f"holds, of {most}", class_="axis")]
        for rank, peak in enumerate(self.simulation.peak_activations):
            y = TOP + rank * self.pitch + (self.pitch - 4) / 2
            bar = _tenths(_BAR * peak / most) / 10 if most else 0.0
            parts += [
                text(LEFT - 10, y + 4, f"rank {rank}", class_="rank end"),
                rect(x, y - 5, _BAR, 10, class_="lane"),
                rect(x, y - 5, bar, 10, class_="peak"),
                text(x + _BAR + 6, y + 4, str(peak), class_="holds"),
            ]
        return "".join(parts)

    @cached_property
    def legend(self) -> list[tuple[str, int, int]]:
        """(kind or "", x, row) of what the legend says, in as many rows as that takes."""
        found, x, row = [], LEFT, 0
        kinds = {a.kind for rank in self.simulation.schedule.actions for a in rank}
        for kind in [*(k for k in KINDS if k in kinds), *([""] if self.num_chunks > 1 else [])]:
            wide = 40 + 6 * len(KINDS[kind]) if kind else 6 * len(LATER)
            if x + wide > self.width and x > LEFT:
                x, row = LEFT, row + 1
            found.append((kind, x, row))
            x += wide
        return found or [("", -10_000, 0)]

    def _legend(self) -> str:
        parts = []
        for kind, x, row in self.legend:
            y = self.bottom + 16 + _ROW * row
            if kind:
                parts.append(element("path", d=f"M{x} {y - 4}h18", class_=f"{kind} k0", stroke_width=14))
                parts.append(element("g", text(x + 9, y, kind), class_=f"mid on{kind}"))
            parts.append(text(x + 24 if kind else x, y, KINDS.get(kind, LATER), class_="axis"))
        return "".join(parts)


def _tenths(value: float) -> int:
    """As JavaScript rounds: halves up."""
    return floor(value * 10 + 0.5)


def _nice(rough: float) -> float:
    """The next of 1, 2, 5, 10, 20, …"""
    power = 10.0 ** floor(log10(rough))
    return next(k * power for k in (1, 2, 5, 10) if k * power >= rough * 0.999)
