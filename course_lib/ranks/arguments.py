"""In the caller, before any process starts: are the arguments of launch() any good, and what do the ranks need to know?"""

import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from course_lib.cost.links import Cluster, Link
from course_lib.ranks.worker import Spec

MAX_WORLD_SIZE = 256


def check(
    fn: Callable,
    world_size: int,
    args: tuple,
    timeout_s: float,
    memory_limit_gb: float | None,
    link: Link | Cluster | None,
) -> None:
    """Refuse what cannot work, with ValueError, TypeError or RuntimeError and one sentence."""
    if "COURSE_LIB_RANK" in os.environ:
        raise RuntimeError(f"launch() was called on rank {os.environ['COURSE_LIB_RANK']}: a rank cannot start ranks.")
    if not callable(fn):
        raise TypeError(
            f"launch() needs a function as its first argument, not {fn!r}: launch(train, 4), without brackets."
        )
    if isinstance(world_size, bool) or not isinstance(world_size, int):
        raise TypeError(f"world_size is the number of ranks, a whole number, not {world_size!r}.")
    if not 1 <= world_size <= MAX_WORLD_SIZE:
        raise ValueError(f"world_size must be between 1 and {MAX_WORLD_SIZE}, not {world_size}.")
    for name, value in (("timeout_s", timeout_s), ("memory_limit_gb", memory_limit_gb)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0):
            raise ValueError(f"{name} must be a positive number, not {value!r}.")
    if link is not None and not isinstance(link, Link | Cluster):
        raise TypeError(
            f"link is a Link or a Cluster of course_lib, not {link!r}: Link(latency_s=1e-5, bandwidth_gb_s=1.25)."
        )
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


def choose_backend(backend: str | None, world_size: int) -> tuple[str, str]:
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
        raise ValueError(f"backend {backend!r} is not available here, only {', '.join(names)}; backend=None picks one.")
    if backend == "nccl" and gpus < world_size:
        raise ValueError(
            f"backend 'nccl' needs a GPU for each of the {world_size} ranks and there are {gpus}; backend=None picks gloo."
        )
    return backend, f"{backend} on {'GPU' if backend == 'nccl' else 'CPU'}"


def pickled(fn: Callable, args: tuple) -> bytes:
    """fn and its arguments as bytes; TypeError that names the culprit where something cannot be pickled."""
    import cloudpickle

    try:
        return cloudpickle.dumps((fn, args))
    except Exception as error:
        name = getattr(fn, "__name__", repr(fn))
        culprits = [f"argument {n} ({type(arg).__name__})" for n, arg in enumerate(args) if not _can_pickle(arg)]
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


def make_spec(
    folder: Path,
    world_size: int,
    backend: str,
    timeout_s: float,
    memory_limit_gb: float | None,
    link: Link | Cluster | None,
) -> Spec:
    """All that the ranks need to know besides the function."""
    import torch

    limit = None
    if sys.platform == "linux" and backend != "nccl":  # CUDA reserves more addresses than there is memory
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        fair_share = max(2 * 2**30, int(0.8 * memory / world_size))
        limit = int(memory_limit_gb * 2**30) if memory_limit_gb else fair_share
    return Spec(
        folder=str(folder),
        world_size=world_size,
        backend=backend,
        timeout_s=timeout_s,
        memory_limit_bytes=limit,
        link=link,
        default_dtype=str(torch.get_default_dtype()).removeprefix("torch."),
        cwd=os.getcwd(),
        sys_path=tuple(sys.path),
        environ=dict(os.environ),
    )
