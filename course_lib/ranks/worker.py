"""What one rank does: set up, join the process group, run the function, leave the result in the run's folder."""

import faulthandler
import os
import pickle
import random
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from course_lib.cost.links import Cluster, Link
from course_lib.ranks import spans
from course_lib.ranks.ledger import DONE, FAILED, RUNNING, STARTED, Ledger

LINGER_S = 1.0  # a rank that is done keeps its sockets open this long, so that the others can finish with it


@dataclass(frozen=True)
class Spec:
    """Everything a rank needs to know besides the function; `folder` holds the files of this run."""

    folder: str
    world_size: int
    backend: str
    timeout_s: float
    memory_limit_bytes: int | None
    link: Link | Cluster | None
    default_dtype: str
    cwd: str
    sys_path: tuple[str, ...]
    environ: dict[str, str]

    def file(self, kind: str, rank: int | None = None) -> Path:
        """The path of one file of this run, e.g. `file("out", 2)`."""
        return Path(self.folder, kind if rank is None else f"rank-{rank}.{kind}")


def run_rank(rank: int, spec: Spec) -> None:
    """Be rank `rank` of the run; never returns. The exit status is 0 exactly when a result was left."""
    try:
        ledger = _set_up(rank, spec)
        status = _run(rank, spec, ledger)
    except BaseException:
        traceback.print_exc()
        status = 1
    os._exit(status)  # without destructors: a process group torn down at exit may abort a correct run


def _run(rank: int, spec: Spec, ledger: Ledger) -> int:
    import cloudpickle
    import torch
    import torch.distributed as dist

    from course_lib.ranks.dispatcher_hooks import watch_functional, watch_reducer
    from course_lib.ranks.hooks import Hooks
    from course_lib.ranks.network import Network

    try:
        torch.set_num_threads(1)  # ranks share the cores; torchrun does the same
        torch.set_default_dtype(getattr(torch, spec.default_dtype))
        device_id = None
        if spec.backend == "nccl":
            device_id = torch.device("cuda", rank)
            torch.cuda.set_device(device_id)
        fn, args = pickle.loads(spec.file("payload").read_bytes())
        dist.init_process_group(
            # With NCCL, CPU tensors still have gloo: the default of PyTorch itself.
            "cpu:gloo,cuda:nccl" if spec.backend == "nccl" else spec.backend,
            store=dist.FileStore(str(spec.file("store")), spec.world_size),
            rank=rank,
            world_size=spec.world_size,
            timeout=timedelta(seconds=spec.timeout_s + 30),  # ours comes first and says more
            device_id=device_id,
        )
        network = Network(spec.file("network"), rank, spec.world_size, spec.link) if spec.link else None
        hooks = Hooks(ledger, network)
        hooks.install()
        watch_functional(hooks)
        watch_reducer(hooks)
        ledger.set_state(RUNNING)
        result = fn(*args)
        try:
            with open(spec.file("result", rank), "wb") as file:
                torch.save(result, file, pickle_module=cloudpickle)
        except Exception as error:
            raise TypeError(
                f"rank {rank} returned a {type(result).__name__} that cannot be sent back ({error}). "
                "Return tensors, numbers, strings, or lists and dicts of them."
            ) from error
    except BaseException as error:
        _leave_failure(rank, spec, error)
        ledger.set_state(FAILED)
        status = 1
    else:
        ledger.set_state(DONE)
        status = 0
    _flush()
    if status == 0:
        deadline = time.monotonic() + LINGER_S
        while time.monotonic() < deadline and any(state not in (DONE, FAILED) for state in ledger.states()):
            time.sleep(0.002)
    return status


def _set_up(rank: int, spec: Spec) -> Ledger:
    """Give this process the caller's environment, its own output files, its limits, and its ledger."""
    os.environ.clear()
    os.environ.update(spec.environ)
    local = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": spec.world_size, "LOCAL_WORLD_SIZE": spec.world_size}
    os.environ.update({name: str(value) for name, value in local.items()}, COURSE_LIB_RANK=str(rank))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", {"linux": "lo", "darwin": "lo0"}.get(sys.platform, ""))
    if not os.environ["GLOO_SOCKET_IFNAME"]:
        del os.environ["GLOO_SOCKET_IFNAME"]
    sys.path[:] = spec.sys_path
    os.chdir(spec.cwd)

    sys.stdin = open(os.devnull)
    for fd, kind in ((1, "out"), (2, "err")):
        file = os.open(spec.file(kind, rank), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, fd)
        os.close(file)
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)

    stack_file = open(spec.file("stack", rank), "w")
    faulthandler.enable(stack_file)
    if hasattr(faulthandler, "register"):
        faulthandler.register(signal.SIGUSR1, stack_file)
    else:
        faulthandler.dump_traceback_later(spec.timeout_s, file=stack_file)
    _remember_early_exit(stack_file)

    if spec.memory_limit_bytes is not None:
        import resource

        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = spec.memory_limit_bytes if hard == resource.RLIM_INFINITY else min(spec.memory_limit_bytes, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # a fork copies its parent's state; a fresh process would not have it

    ledger = Ledger(spec.file("ledger"), spec.file("names", rank), rank, spec.world_size)
    ledger.set_state(STARTED)
    spans.write_to(ledger)
    return ledger


def _remember_early_exit(stack_file) -> None:
    """Let os._exit, which leaves no trace, write down the line it was called from."""
    leave, pid = os._exit, os.getpid()

    def exit_with_stack(status):
        if os.getpid() == pid and sys._getframe(1).f_globals is not globals():
            faulthandler.dump_traceback(stack_file, all_threads=False)
            _flush()
        leave(status)

    os._exit = exit_with_stack


def _leave_failure(rank: int, spec: Spec, error: BaseException) -> None:
    import cloudpickle

    frames = [(f.filename, f.lineno, f.name) for f in traceback.extract_tb(error.__traceback__)]
    record = {
        "time": time.monotonic(),  # one clock for all processes of a machine: the first failure is the cause
        "type": type(error).__name__,
        "message": str(error),
        "frames": frames,
        "text": "".join(traceback.format_exception(error)),
    }
    try:
        record["exception"] = cloudpickle.dumps(error.with_traceback(None))
    except Exception:
        record["exception"] = None
    partial = spec.file("failure.partial", rank)
    partial.write_bytes(pickle.dumps(record))
    partial.rename(spec.file("failure", rank))


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass


def main() -> None:
    """Entry point where processes cannot be forked: `python -m course_lib.ranks.worker FOLDER RANK`."""
    spec = pickle.loads(Path(sys.argv[1], "spec").read_bytes())
    parent = os.dup(0)  # a pipe that closes when the caller ends, however it ends

    def leave_with_parent():
        os.read(parent, 1)
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()
    run_rank(int(sys.argv[2]), spec)


if __name__ == "__main__":
    from course_lib.ranks.worker import main as main_of_the_module  # so that Spec unpickles as itself

    main_of_the_module()
