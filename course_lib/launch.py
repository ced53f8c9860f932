"""launch(fn, world_size): run a function on real ranks, from a notebook cell, in about a tenth of a second."""

import inspect
import os
import pickle
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from course_lib.ranks import client, failure, report
from course_lib.ranks.output import Output, wants_waiting_line
from course_lib.ranks.worker import Spec

MAX_WORLD_SIZE = 256
_GRACE_S = 0.3  # after a failure: time for the others to say how it hit them, before they are stopped
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Run:
    """What a launch gave: `run[2]` is what rank 2 returned.

    results: one value a rank;  seconds: from the call to the last rank's end;  backend: and why it was chosen;
    start: how the processes were started.
    """

    results: tuple[Any, ...]
    seconds: float
    backend: str
    start: str

    @property
    def world_size(self) -> int:
        return len(self.results)

    def __getitem__(self, rank: int) -> Any:
        return self.results[rank]

    def __len__(self) -> int:
        return len(self.results)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.results)

    def __repr__(self) -> str:
        ranks = "1 rank" if len(self) == 1 else f"{len(self)} ranks"
        lines = [f"{ranks}, {self.backend}, {self.start}, {self.seconds:.2f} s"]
        for rank, result in enumerate(self.results):
            text = " ".join(repr(result).split())
            lines.append(f"  rank {rank}: {text if len(text) <= 88 else text[:87] + '…'}")
        return "\n".join(lines if any(result is not None for result in self.results) else lines[:1])


def launch(
    fn: Callable,
    world_size: int,
    *args: Any,
    timeout_s: float = 60,
    backend: str | None = None,
    memory_limit_gb: float | None = None,
) -> Run:
    """Call `fn(*args)` on `world_size` fresh processes joined in one process group, and return what each returned.

    Inside fn it is plain PyTorch: torch.distributed is initialised, `dist.get_rank()` tells the ranks apart, and the
    same body runs in a script under torchrun. fn may be a lambda, a closure, or use classes of earlier cells.
    Each rank computes on one thread, as under torchrun; torch.set_num_threads inside fn changes that.

    timeout_s: seconds after which the ranks are stopped and their stacks shown.
    backend: None picks "nccl" when there is a GPU for every rank, otherwise "gloo" on CPU.
    memory_limit_gb: address space of each rank in GiB (gloo on Linux only); by default a fair share of the machine's memory.

    Raises ValueError or TypeError, before any process starts, for arguments that cannot work; RankError when a rank
    fails (the first that did); RankTimeout when time runs out. No process outlives the call.
    """
    _check(fn, world_size, args, timeout_s, memory_limit_gb)
    backend, backend_reason = _choose_backend(backend, world_size)
    payload = _pickle(fn, args)
    with _one_at_a_time:
        starter = client.starter()
        starter.wait_ready()
        folder = Path(starter.folder, f"run-{time.monotonic_ns()}")
        folder.mkdir()
        spec = _spec(folder, world_size, backend, timeout_s, memory_limit_gb)
        spec.file("payload").write_bytes(payload)
        spec.file("spec").write_bytes(pickle.dumps(spec))
        spec.file("board").write_bytes(bytes(world_size))
        output = Output(spec, wants_waiting_line())
        try:
            begin = time.monotonic()
            starter.start(spec)
            _wait(starter, spec, output, begin)
            results = tuple(_load(spec, rank) for rank in range(world_size))
            return Run(results, time.monotonic() - begin, backend_reason, starter.describe)
        finally:
            if not output.clipped:
                shutil.rmtree(folder, ignore_errors=True)


def _wait(starter: "client.ForkServer | client.Spawner", spec: Spec, output: Output, begin: float) -> None:
    """Return when every rank has ended well; otherwise stop the rest and raise the story of the first failure."""
    stop_at = begin + spec.timeout_s
    exits: dict[int, tuple[int, float]] = {}
    over = False
    with _Interrupt() as interrupt:
        while not (over or interrupt.came or time.monotonic() >= stop_at):
            for kind, value in starter.events(min(0.02, max(0, stop_at - time.monotonic()))):
                over = over or kind == "over"
                if kind == "exit":
                    rank, status, when = value
                    exits[rank] = (status, when)
                    if status != 0 or not spec.file("result", rank).exists():
                        stop_at = min(stop_at, time.monotonic() + _GRACE_S)
            output.follow()
        stopped = set() if over else _stop(starter, spec, exits)
    output.finish()
    ends = failure.collect(spec, exits, stopped)
    if interrupt.came:
        print(f"Interrupted. Where each rank was:\n{report.where_ranks_were(ends)}", file=sys.stderr)
        raise KeyboardInterrupt
    cause = failure.first_cause(ends)
    if cause:
        raise report.describe_failure(cause, ends, spec.memory_limit_bytes) from _original(cause)
    if stopped:
        raise report.describe_timeout(ends, spec.timeout_s)


class _Interrupt:
    """Notes an interrupt instead of raising it, so that it cannot strike in the middle of a message or of cleaning up."""

    came = False

    def __enter__(self) -> "_Interrupt":
        self.here = threading.current_thread() is threading.main_thread()  # signals reach no other thread
        if self.here:
            self.previous = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self.here:
            signal.signal(signal.SIGINT, self.previous)

    def _note(self, *_: object) -> None:
        self.came = True


def _stop(
    starter: "client.ForkServer | client.Spawner", spec: Spec, exits: dict[int, tuple[int, float]]
) -> set[int]:
    """Take the stacks of the ranks that are left, then kill them and all they started. Returns those ranks."""
    stopped = set(range(spec.world_size)) - set(exits)
    starter.ask_for_stacks()
    time.sleep(0.1)
    starter.kill()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and not any(kind == "over" for kind, _ in starter.events(0.1)):
        pass
    return stopped


def _load(spec: Spec, rank: int) -> Any:
    import torch

    with open(spec.file("result", rank), "rb") as file:  # our own rank wrote it, so unpickling it is safe
        return torch.load(file, map_location="cpu", weights_only=False)


def _original(cause: failure.RankEnd) -> BaseException | None:
    try:
        return pickle.loads(cause.exception) if cause.exception else None
    except Exception:
        return None  # an exception class that cannot be rebuilt here: the report has its words


def _check(
    fn: Callable, world_size: int, args: tuple, timeout_s: float, memory_limit_gb: float | None
) -> None:
    if "COURSE_LIB_RANK" in os.environ:
        raise RuntimeError(
            f"launch() was called on rank {os.environ['COURSE_LIB_RANK']}: a rank cannot start ranks."
        )
    if not callable(fn):
        raise TypeError(
            f"launch() needs a function as its first argument, not {fn!r}: launch(train, 4), without brackets."
        )
    if isinstance(world_size, bool) or not isinstance(world_size, int):
        raise TypeError(f"world_size is the number of ranks, a whole number, not {world_size!r}.")
    if not 1 <= world_size <= MAX_WORLD_SIZE:
        raise ValueError(f"world_size must be between 1 and {MAX_WORLD_SIZE}, not {world_size}.")
    for name, value in (("timeout_s", timeout_s), ("memory_limit_gb", memory_limit_gb)):
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0
        ):
            raise ValueError(f"{name} must be a positive number, not {value!r}.")
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):
        return  # some built-ins have none
    try:
        signature.bind(*args)
    except TypeError as error:
        name = getattr(fn, "__name__", "fn")
        given = ", ".join(["fn", "world_size", *(type(arg).__name__ for arg in args)])
        raise TypeError(
            f"{name}{signature} cannot be called by launch({given}): {error}. "
            f"What follows world_size is passed to {name}."
        ) from None


def _choose_backend(backend: str | None, world_size: int) -> tuple[str, str]:
    """(backend, what to tell the reader about it)."""
    import torch
    import torch.distributed as dist

    gpus = torch.cuda.device_count() if dist.is_nccl_available() else 0
    if backend is None:
        if gpus >= world_size:
            return "nccl", f"nccl on {world_size} of {gpus} GPUs"
        return "gloo", "gloo on CPU" + (f" ({gpus} GPUs are too few for {world_size} ranks)" if gpus else "")
    names = [name for name in ("gloo", "nccl", "mpi", "ucc") if dist.is_backend_available(name)]
    if backend not in names:
        raise ValueError(
            f"backend {backend!r} is not available here, only {', '.join(names)}; backend=None picks one."
        )
    if backend == "nccl" and gpus < world_size:
        raise ValueError(
            f"backend 'nccl' needs a GPU for each of the {world_size} ranks and there are {gpus}; backend=None picks gloo."
        )
    return backend, f"{backend} on {'GPU' if backend == 'nccl' else 'CPU'}"


def _pickle(fn: Callable, args: tuple) -> bytes:
    import cloudpickle

    try:
        return cloudpickle.dumps((fn, args))
    except Exception as error:
        name = getattr(fn, "__name__", repr(fn))
        culprits = [
            f"argument {n} ({type(arg).__name__})" for n, arg in enumerate(args) if not _can_pickle(arg)
        ]
        culprits += [f"the variable {key!r}" for key, value in _reached(fn).items() if not _can_pickle(value)]
        raise TypeError(
            f"{name} cannot be sent to the ranks because of {', '.join(culprits) or 'something that it uses'}: {error}. "
            f"Create it inside {name} instead."
        ) from None


def _reached(fn: Callable) -> dict[str, Any]:
    """The outside variables that a function uses."""
    try:
        variables = inspect.getclosurevars(fn)
    except (TypeError, ValueError):
        return {}
    return {**variables.globals, **variables.nonlocals}


def _can_pickle(value: Any) -> bool:
    import cloudpickle

    try:
        cloudpickle.dumps(value)
    except Exception:
        return False
    return True


def _spec(
    folder: Path, world_size: int, backend: str, timeout_s: float, memory_limit_gb: float | None
) -> Spec:
    import torch

    limit = None
    if (
        sys.platform == "linux" and backend != "nccl"
    ):  # CUDA reserves more addresses than any machine has memory
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        limit = (
            int(memory_limit_gb * 2**30)
            if memory_limit_gb
            else max(2 * 2**30, int(0.8 * memory / world_size))
        )
    return Spec(
        folder=str(folder),
        world_size=world_size,
        backend=backend,
        timeout_s=timeout_s,
        memory_limit_bytes=limit,
        default_dtype=str(torch.get_default_dtype()).removeprefix("torch."),
        cwd=os.getcwd(),
        sys_path=tuple(sys.path),
        environ=dict(os.environ),
    )
