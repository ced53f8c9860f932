"""launch(fn, world_size): run a function on real ranks, from a notebook cell, in about a tenth of a second."""

import pickle
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from course_lib.cost.links import Cluster, Link
from course_lib.ranks import arguments, client, explain, failure, ledger, network, report
from course_lib.ranks.ledger_reader import Record
from course_lib.ranks.match import Mismatch
from course_lib.ranks.output import Output, wants_waiting_line
from course_lib.ranks.stall import Stall, Watch
from course_lib.ranks.tracing import trace_of
from course_lib.ranks.worker import Spec
from course_lib.trace import Trace

_GRACE_S = 0.3  # after a failure: time for the others to say how it hit them, before they are stopped
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Run:
    """What a launch gave: `run[2]` is what rank 2 returned.

    results: one value a rank;  seconds: from the call to the last rank's end;  backend: and why it was chosen;
    start: how the processes were started.  `run.trace` is what each rank did, when, with whom, how many bytes.
    """

    results: tuple[Any, ...]
    seconds: float
    backend: str
    start: str
    _make_trace: Callable[[], Trace] = field(repr=False, compare=False)

    @cached_property
    def trace(self) -> Trace:
        """Every operation of every rank, and their spans; made from the record when it is first asked for."""
        return self._make_trace()

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
    link: Link | Cluster | None = None,
) -> Run:
    """Call `fn(*args)` on `world_size` fresh processes joined in one process group, and return what each returned.

    Inside fn it is plain PyTorch: torch.distributed is initialised, `dist.get_rank()` tells the ranks apart, and the
    same body runs in a script under torchrun. fn may be a lambda, a closure, or use classes of earlier cells.
    Each rank computes on one thread, as under torchrun; torch.set_num_threads inside fn changes that.

    timeout_s: seconds after which the ranks are stopped and their stacks shown.
    backend: None picks "nccl" when there is a GPU for every rank, otherwise "gloo" on CPU.
    memory_limit_gb: address space of each rank in GiB (gloo on Linux only); by default a fair share of the machine's memory.
    link: emulate a network: every operation lasts as long as it would on this Link, or on this Cluster of nodes.

    Raises ValueError or TypeError, before any process starts, for arguments that cannot work; RankError when a rank
    fails (the first that did); RankMismatch when the ranks' calls do not belong together, RankDeadlock when it is certain that
    they can never go on, both without waiting for the timeout; RankTimeout when time runs out. No process outlives the call.
    """
    arguments.check(fn, world_size, args, timeout_s, memory_limit_gb, link)
    backend, backend_reason = arguments.choose_backend(backend, world_size)
    payload = arguments.pickled(fn, args)
    with _one_at_a_time:
        starter = client.starter()
        starter.wait_ready()
        folder = Path(starter.folder, f"run-{time.monotonic_ns()}")
        folder.mkdir()
        spec = arguments.make_spec(folder, world_size, backend, timeout_s, memory_limit_gb, link)
        spec.file("payload").write_bytes(payload)
        spec.file("spec").write_bytes(pickle.dumps(spec))
        with open(spec.file("ledger"), "wb") as file:
            file.truncate(ledger.size(world_size))
        if link:
            with open(spec.file("network"), "wb") as file:
                file.truncate(network.size(world_size))
        output = Output(spec, wants_waiting_line())
        record = Record(spec)
        try:
            begin = time.monotonic()
            starter.start(spec)
            _wait(starter, spec, output, record, begin)
            results = tuple(_load(spec, rank) for rank in range(world_size))
            end = time.monotonic()
            emulated = f"emulated links: {link}" if link else ""
            make_trace = partial(trace_of, record.kept(), begin, end, emulated)
            return Run(results, end - begin, backend_reason, starter.describe, make_trace)
        finally:
            record.close()
            if not output.clipped:
                shutil.rmtree(folder, ignore_errors=True)


def _wait(
    starter: "client.ForkServer | client.Spawner", spec: Spec, output: Output, record: Record, begin: float
) -> None:
    """Return when every rank has ended well; otherwise stop the rest and raise the story of what went wrong first."""
    stop_at = begin + spec.timeout_s
    exits: dict[int, tuple[int, float]] = {}
    over, wrong, watch = False, None, Watch(record)
    with _Interrupt() as interrupt:
        try:
            while not (over or wrong or interrupt.came or time.monotonic() >= stop_at):
                for kind, value in starter.events(min(0.02, max(0, stop_at - time.monotonic()))):
                    over = over or kind == "over"
                    if kind == "exit":
                        rank, status, when = value
                        exits[rank] = (status, when)
                        if status != 0 or not spec.file("result", rank).exists():
                            stop_at = min(stop_at, time.monotonic() + _GRACE_S)
                wrong = watch.look(time.monotonic(), set(exits))
                output.follow()
            waiting, done = watch.waiting(set(exits)), record.done()
        finally:
            stopped = set() if over else _stop(starter, spec, exits)
    output.finish()
    ends = failure.collect(spec, exits, stopped, done)
    if interrupt.came:
        print(f"Interrupted. Where each rank was:\n{report.where_ranks_were(ends, waiting)}", file=sys.stderr)
        raise KeyboardInterrupt
    cause = failure.first_cause(ends)
    if isinstance(wrong, Mismatch) and not (cause and cause.is_before(wrong.time)):
        raise explain.describe_mismatch(wrong, ends, waiting)
    if isinstance(wrong, Stall) and (cause is None or cause.is_consequence):
        raise explain.describe_stall(wrong, ends, waiting)
    if cause:
        raise report.describe_failure(cause, ends, spec.memory_limit_bytes) from _original(cause)
    if stopped:
        raise report.describe_timeout(ends, spec.timeout_s, waiting)


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


def _stop(starter: "client.ForkServer | client.Spawner", spec: Spec, exits: dict[int, tuple[int, float]]) -> set[int]:
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
