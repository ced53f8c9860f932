"""What `course train` can be asked for. Pure arithmetic: nothing here needs torch, so that a wrong option is refused at once."""

import argparse
from dataclasses import asdict, dataclass, field, fields
from math import cos, pi
from pathlib import Path
from typing import Any

from course_lib.checkpoint.folder import about, found
from course_lib.layout import AXES, Layout, nearest_multiples
from course_lib.schedules import Schedule
from course_lib.schedules.known import SCHEDULES, spelled

VOCABULARY = 256  # the text is bytes
ORDERS = [name for name in SCHEDULES if name != "relay"]  # of a pipeline
MODEL = ("context", "width", "layers", "heads")  # what a checkpoint and the model that reads it must agree on
CURVE = ("batch", "steps", "lr", "warmup", "max_norm", "dtype", "seed")  # what two runs of one curve have in common


def _option(default: Any, text: str, **how: Any) -> Any:
    return field(default=default, metadata={"help": text, **how})


@dataclass(frozen=True)
class Options:
    """One run. The names are those of the command line, where `max_norm` is --max-norm."""

    pp: int = _option(1, "pipeline stages")
    dp: int | None = _option(None, "copies of the model (default: what the other axes leave of the ranks)", type=int)
    cp: int = _option(1, "parts of the sequence")
    tp: int = _option(1, "slices of each weight")
    ranks: int | None = _option(
        None, "how many ranks (default: as --dp says, or about 4; torchrun: all of its)", type=int
    )
    order: str = _option(",".join(AXES), "axes, the one whose neighbours are farthest apart first", metavar="AXES")
    zero: int = _option(0, "stage of ZeRO, 0 to 3", metavar="STAGE")
    schedule: str = _option("1F1B", f"order of a pipeline: {', '.join(ORDERS)}", metavar="NAME")
    chunks: int = _option(2, "stages on each rank, with --schedule interleaved")
    microbatches: int | None = _option(
        None, "parts of a copy's rows (default: 1, or 2 for each pipeline stage)", type=int
    )
    sequence_parallel: bool = _option(False, "cut the sequence between the split weights too")
    context: int = _option(64, "tokens of a sequence; a token is a byte")
    width: int = _option(128, "width of the model")
    layers: int = _option(4, "transformer blocks")
    heads: int = _option(4, "attention heads")
    batch: int = _option(16, "sequences of a step, over all ranks")
    steps: int = _option(400, "steps in all, those before a resumption included")
    lr: float = _option(3e-3, "learning rate of the whole batch, at its highest")
    warmup: int = _option(20, "steps until it is reached; from there a cosine goes down to a tenth")
    max_norm: float = _option(1.0, "clip the gradient to this norm")
    dtype: str = _option("float32", "of weights, gradients and optimizer: float32, float64 or bfloat16")
    seed: int = _option(0, "of the initial weights and of the order of the text")
    checkpoint: Path | None = _option(None, "folder for checkpoints; on several machines, one that all of them see",
                                      type=Path, metavar="DIR")  # fmt: skip
    every: int = _option(100, "steps between two checkpoints; the last step has one too")
    resume: bool = _option(
        False, "go on from the newest checkpoint, whatever layout wrote it; from the start if there is none"
    )
    backend: str | None = _option(
        None, "gloo or nccl (default: nccl where every rank has a GPU)", type=str, metavar="NAME"
    )
    peak_tflops: float | None = _option(
        None, "what a device can do at most, for the MFU, where it is not known", type=float
    )

    def layout(self, world_size: int) -> Layout:
        """The mesh of so many ranks. Raises ValueError if they cannot form it."""
        others = self.pp * self.cp * self.tp
        if self.dp is None and world_size % others:
            raise ValueError(
                f"{world_size} ranks cannot form pp {self.pp} × cp {self.cp} × tp {self.tp}, which takes {others} for each copy: "
                f"{nearest_multiples(world_size, others)} would do."
            )
        dp = world_size // others if self.dp is None else self.dp
        layout = Layout(self.pp, dp, self.cp, self.tp, tuple(self.order.split(",")))
        if layout.world_size != world_size:
            raise ValueError(
                f"pp {layout.pp} × dp {layout.dp} × cp {layout.cp} × tp {layout.tp} are {layout.world_size} ranks, and there are "
                f"{world_size}: change --dp or leave it out."
            )
        return layout

    @property
    def wanted_ranks(self) -> int:
        """How many ranks to start where nobody else has said so."""
        others = self.pp * self.cp * self.tp
        return self.ranks or others * (self.dp or max(1, 4 // others))

    @property
    def num_microbatches(self) -> int:
        """Into how many parts each copy cuts its rows."""
        return self.microbatches or (2 * self.pp if self.pp > 1 else 1)

    def make_schedule(self, p: int, m: int) -> Schedule:
        """The order of a pipeline of p ranks and m micro-batches."""
        return SCHEDULES[spelled(self.schedule)].make(p, m, self.chunks)

    def lr_at(self, step: int) -> float:
        """Of the step that follows `step` others: up in a line, down in half a cosine, to a tenth. A function of the step alone."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.lr * (0.1 + 0.9 * (1 + cos(pi * min(1.0, done))) / 2)

    def as_json(self) -> dict[str, Any]:
        """What a checkpoint keeps of them."""
        return {name: value for name, value in asdict(self).items() if name in MODEL + CURVE}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every field of Options as an option of a command."""
    for option in fields(Options):
        how = dict(option.metadata)
        text = how.pop("help")
        flag = "--" + option.name.replace("_", "-")
        if isinstance(option.default, bool):
            parser.add_argument(flag, action="store_true", help=text)
            continue
        kind = how.pop("type", None) or type(option.default)
        default = "" if option.default is None else f" (default: {option.default})"
        how.setdefault("metavar", "X" if kind is float else "N" if kind is int else "NAME")
        parser.add_argument(flag, type=kind, default=option.default, help=text + default, **how)


def options_from(namespace: argparse.Namespace) -> Options:
    """The options that a command was given."""
    return Options(**{option.name: getattr(namespace, option.name) for option in fields(Options)})


def check(options: Options, world_size: int) -> Layout:
    """The layout. Raises ValueError, in a sentence with the rule and the next step, for what cannot be trained."""
    _check_values(options)
    layout = options.layout(world_size)
    o, m = options, options.num_microbatches
    spelled(o.schedule, ORDERS)
    if o.zero > 1 and o.pp > 1:
        raise ValueError(f"--zero {o.zero} does not go with --pp {o.pp}: take --zero 1, or --pp 1.")
    if o.sequence_parallel and o.tp == 1:
        raise ValueError("--sequence-parallel cuts between slices of weights: it needs --tp of 2 or more.")
    sequence = o.tp if o.sequence_parallel else 1
    rules = (
        ("--width", o.width, "--heads", o.heads),
        ("--heads", o.heads, "--tp", o.tp),
        ("the vocabulary of bytes", VOCABULARY, "--tp", o.tp),
        ("--context", o.context, "2 × --cp" if o.cp > 1 else "--cp", (2 if o.cp > 1 else 1) * o.cp),
        ("--context / cp", o.context // o.cp, "--tp, with --sequence-parallel,", sequence),
        ("--batch", o.batch, f"dp {layout.dp} × {m} micro-batches", layout.dp * m),
    )  # fmt: skip
    for what, length, by, parts in rules:
        if length % parts:
            raise ValueError(
                f"{what}, {length}, is not divisible by {by}, {parts}: {nearest_multiples(length, parts)} would do."
            )
    if o.pp > 1:
        schedule = o.make_schedule(o.pp, m)
        if schedule.num_stages > o.layers:
            raise ValueError(
                f"--layers {o.layers} are too few for the {schedule.num_stages} stages of {schedule.name}: take more layers."
            )
    return layout


def _check_values(o: Options) -> None:
    least = {"pp": 1, "dp": 1, "cp": 1, "tp": 1, "ranks": 1, "chunks": 1, "microbatches": 1, "context": 1, "width": 1,
             "layers": 1, "heads": 1, "batch": 1, "steps": 1, "warmup": 0, "every": 1}  # fmt: skip
    for name, lowest in least.items():
        value = getattr(o, name)
        if value is not None and value < lowest:
            raise ValueError(f"--{name} is {value}: it must be at least {lowest}.")
    for name in ("lr", "max_norm", "peak_tflops"):
        value = getattr(o, name)
        if value is not None and not value > 0:
            raise ValueError(f"--{name.replace('_', '-')} is {value}: it must be above 0.")
    for name, allowed in (
        ("zero", (0, 1, 2, 3)),
        ("dtype", ("float32", "float64", "bfloat16")),
        ("backend", (None, "gloo", "nccl")),
    ):
        if getattr(o, name) not in allowed:
            raise ValueError(
                f"--{name} is {getattr(o, name)}: take one of {', '.join(str(a) for a in allowed if a is not None)}."
            )
    if o.resume and o.checkpoint is None:
        raise ValueError("--resume needs --checkpoint DIR, the folder that the checkpoints are in.")


def check_checkpoints(options: Options, resume: bool) -> str:
    """A line to say about the checkpoints that are there. Raises ValueError if they cannot be gone on from, or are in the way."""
    if options.checkpoint is None:
        return ""
    checkpoints = found(options.checkpoint)
    if not checkpoints:
        return f"no checkpoint in {options.checkpoint} yet: starting at step 0" if resume else ""
    newest = checkpoints[-1]
    before = about(newest)
    if not resume:
        raise ValueError(
            f"{options.checkpoint} holds a run that is at step {before['step']}: add --resume to go on with it, or name another folder."
        )
    for name in MODEL:
        if before[name] != getattr(options, name):
            raise ValueError(
                f"{newest} is of a model with --{name} {before[name]}, not {getattr(options, name)}: give the same, or name another folder."
            )
    changed = [
        f"--{name.replace('_', '-')} was {before[name]}" for name in CURVE if before[name] != getattr(options, name)
    ]
    note = f"; another curve than before, for {', '.join(changed)}" if changed else ""
    if before["step"] >= options.steps:
        return f"{newest} has all of its {options.steps} steps: --steps asks for more"
    return f"going on from {newest}{note}"
