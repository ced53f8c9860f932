"""How the ranks come to be: launched on this machine, or started by torchrun on one or more."""

import contextlib
import os
import sys

from course_lib.checkpoint.folder import found
from course_lib.ranks.arguments import MAX_WORLD_SIZE, choose_backend
from course_lib.train.options import Options, check, check_checkpoints

WITHOUT_END_S = 10 * 365 * 24 * 3600.0


def start(options: Options) -> int:
    """Train, and return the exit status: 0 done, 1 a rank failed, 2 refused, 130 interrupted."""
    torchrun = "TORCHELASTIC_RUN_ID" in os.environ
    try:
        backend = _checked(options, torchrun)
        note = "" if torchrun else check_checkpoints(options, options.resume)
    except ValueError as error:
        return refuse(error)
    if torchrun:
        from course_lib.train.torchrun import train_as_a_rank

        return train_as_a_rank(options, backend)
    if note:
        print(note, flush=True)
    return _here(options, backend)


def refuse(error: ValueError) -> int:
    """Say it once, in the words of rank 0, and return the exit status."""
    if int(os.environ.get("RANK", "0")) == 0:
        print(f"course train: {error}", file=sys.stderr, flush=True)
    return 2


def device_of(backend: str) -> str:
    """What this rank computes on."""
    return f"cuda:{os.environ['LOCAL_RANK']}" if backend == "nccl" else "cpu"


def _checked(options: Options, torchrun: bool) -> str:
    """The backend, nccl or gloo. Raises ValueError for options that cannot be."""
    world_size = int(os.environ["WORLD_SIZE"]) if torchrun else options.wanted_ranks
    if torchrun and options.ranks not in (None, world_size):
        raise ValueError(f"--ranks is {options.ranks}, and torchrun has started {world_size}: leave it out.")
    if not torchrun and world_size > MAX_WORLD_SIZE:
        raise ValueError(f"{world_size} ranks are too many for one machine: take up to {MAX_WORLD_SIZE}, or torchrun.")
    check(options, world_size)
    local = int(os.environ["LOCAL_WORLD_SIZE"]) if torchrun else world_size
    backend = choose_backend(options.backend, local)[0]
    axis = "pp" if options.pp > 1 else "cp" if options.cp > 1 else None
    if backend == "nccl" and axis:
        raise ValueError(
            f"--{axis} {getattr(options, axis)} over NCCL is not there: its messages between two ranks are posted one by one and may "
            f"cross, which gloo allows and NCCL does not. Take --backend gloo, or --{axis} 1."
        )
    return backend


def _here(options: Options, backend: str) -> int:
    """On this machine: `launch` starts the ranks, watches them, and leaves none behind."""
    from course_lib import RankError, launch
    from course_lib.train.progress import Screen

    ranks = options.wanted_ranks
    print(f"starting {ranks} rank{'s' * (ranks > 1)}, {backend}", flush=True)
    try:
        with contextlib.redirect_stdout(Screen(sys.stdout)):
            launch(on_a_rank, ranks, options, backend, backend=backend, timeout_s=WITHOUT_END_S)
        return 0
    except RankError as error:
        print(f"\n{error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        status = 130
    print(how_to_go_on(options), file=sys.stderr)
    return status


def on_a_rank(options: Options, backend: str) -> None:
    """What launch calls."""
    from course_lib.train.loop import train

    train(options, device_of(backend), options.resume)


def how_to_go_on(options: Options) -> str:
    """What to do after a run that ended early."""
    if options.checkpoint is None:
        return "course train: stopped; with --checkpoint DIR it could be gone on with."
    if not found(options.checkpoint):
        return f"course train: stopped before the first checkpoint; --every {options.every} says when there is one."
    return f"course train: stopped; {found(options.checkpoint)[-1]} is complete: add --resume to the same command to go on."
