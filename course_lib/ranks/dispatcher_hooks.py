"""In a rank: the operations that PyTorch issues below torch.distributed's Python functions, for the ledger.

`watch_functional`: functional collectives, on which DTensor stands. `watch_reducer`: DistributedDataParallel, whose
all-reduces come from C++; they pass through the dispatcher, which is watched from the moment that one is built, since it costs tens
of microseconds an operation.
"""

import threading
import time
import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d as c10d
from torch.nn.parallel import DistributedDataParallel

from course_lib.ranks.hooks import Hooks
from course_lib.ranks.operations import Parts

_FUNCTIONAL = {
    "all_reduce": "all_reduce",
    "all_reduce_": "all_reduce",
    "all_reduce_coalesced": "all_reduce",
    "broadcast": "broadcast",
    "broadcast_": "broadcast",
    "all_gather_into_tensor": "all_gather",
    "all_gather_into_tensor_coalesced": "all_gather",
    "reduce_scatter_tensor": "reduce_scatter",
    "reduce_scatter_tensor_coalesced": "reduce_scatter",
    "all_to_all_single": "all_to_all",
}
# Looked up when this is imported, in the fork server, and not again in every rank.
_OPERATORS = {
    name: getattr(torch.ops._c10d_functional, name)
    for name in (*_FUNCTIONAL, "wait_tensor")
    if hasattr(torch.ops._c10d_functional, name)
}


class _Watched:
    """A torch operator that is recorded when it is called, and is itself in every other respect."""

    def __init__(self, operator: Any, call: Any):
        self._operator, self._call = operator, call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(self._operator, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._operator, name)


def watch_functional(hooks: Hooks) -> None:
    """Record functional collectives, and the wait for each of their results."""
    namespace = torch.ops._c10d_functional
    under_way: dict[int, int] = {}  # address of a result -> its operation's number

    def issue(operation: str):
        def call(operator, tensors, *args, **kwargs):
            group = c10d._resolve_process_group(kwargs.get("group_name", args[-1] if args else ""))
            number = hooks.begin(group, _parts(operation, tensors, args), True, 3, blocks=False)
            result = operator(tensors, *args, **kwargs)
            for tensor in result if isinstance(result, list | tuple) else [result]:
                under_way[tensor.data_ptr()] = number
            return result

        return call

    def wait(operator, tensor):
        number = under_way.pop(tensor.data_ptr(), -1)
        if number < 0:
            return operator(tensor)
        begin = time.monotonic()
        hooks.ledger.block(number, begin)
        try:
            result = operator(tensor)
            if hooks.network:
                hooks.network.wait(number)
        finally:
            hooks.ledger.resume()
        hooks.ledger.end(number, begin, time.monotonic())
        return result

    for name, operator in _OPERATORS.items():
        watched = wait if name == "wait_tensor" else issue(_FUNCTIONAL[name])
        setattr(namespace, name, _Watched(operator, watched))


def _parts(operation: str, tensors: Any, args: tuple) -> Parts:
    if operation in ("all_reduce", "reduce_scatter"):
        return operation, tensors, {"reduce": args[0]}
    if operation == "broadcast":
        return operation, tensors, {"root": args[0]}
    if operation == "all_to_all":
        return operation, tensors, {"splits": (tuple(args[1]), tuple(args[0]))}
    return operation, tensors, {}


def watch_reducer(hooks: Hooks) -> None:
    """Record what DistributedDataParallel sends, once the first one is built."""
    build = DistributedDataParallel.__init__

    def building(module, *args, **kwargs):
        if hooks.inside is None:
            hooks.inside = threading.local()
            _watch_dispatcher(hooks)
        build(module, *args, **kwargs)

    DistributedDataParallel.__init__ = building


def _watch_dispatcher(hooks: Hooks) -> None:
    library = hooks.library = torch.library.Library("c10d", "IMPL")  # kept: it unregisters itself when it is dropped
    below = torch._C._after_autograd_keyset
    for name, operation, fields in (
        ("allreduce_", "all_reduce", {"reduce": "sum"}),
        ("broadcast_", "broadcast", {}),
        ("allgather_", "all_gather", {}),
    ):
        operator = getattr(torch.ops.c10d, name).default

        def kernel(keyset, tensors, *args, operator=operator, operation=operation, fields=fields):
            if getattr(hooks.inside, "python", False):  # recorded where Python called it
                return operator.redispatch(keyset & below, tensors, *args)
            ours, boxed = (args[0], args[1]) if operation == "all_gather" else (tensors, args[0])
            root = {"root": args[1]} if operation == "broadcast" else {}
            group = dist.ProcessGroup.unbox(boxed)
            number = hooks.begin(group, (operation, ours, {**fields, **root}), True, 2, blocks=False)
            result = operator.redispatch(keyset & below, tensors, *args)
            work = dist.Work.unbox(result[-1])
            work.get_future().add_done_callback(lambda _: hooks.ledger.end(number))
            return result

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there was a kernel before: it only passed the call on
            library.impl(name, kernel, "AutogradCPU", with_keyset=True)
            if torch.cuda.is_available():
                library.impl(name, kernel, "AutogradCUDA", with_keyset=True)
