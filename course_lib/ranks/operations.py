"""What each method of a process group is asked to do: which operation, with which tensors, and what the ranks must agree on.

torch.distributed offers many functions (all_gather, all_gather_into_tensor, all_gather_object …), but all of them end in one
of the methods below, so that seeing these is seeing everything that Python code sends.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Call:
    """One way of calling one operation on one group; what the ledger writes once and names by a number.

    tensors: (dtype, shape) of what this rank hands in, of what it gets for recv and scatter.
    agree: what must be the same on every member for a collective, on both sides for a message.
    """

    operation: str
    group: str
    ranks: tuple[int, ...]
    tensors: tuple[tuple[str, tuple[int, ...]], ...] = ()
    nbytes: int = 0
    reduce: str = ""
    root: int | None = None  # global rank
    peer: int | None = None  # global rank; for a recv from any source None
    tag: int = 0
    asynchronous: bool = False
    agree: tuple = ()

    def describe(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return self.__dict__


Parts = tuple[str, Sequence[torch.Tensor], dict[str, Any]]  # operation, tensors, other fields of a Call


def _flat(tensors: Any) -> list[torch.Tensor]:
    if isinstance(tensors, torch.Tensor):
        return [tensors]
    return [tensor for part in tensors for tensor in _flat(part)]


def _reduction(opts: Any) -> Any:
    op = getattr(opts, "reduceOp", opts)  # some overloads take the ReduceOp itself
    return getattr(op, "op", op) if op is not None else dist.ReduceOp.SUM


def _all_reduce(tensors, opts=None, *_):
    return "all_reduce", tensors, {"reduce": _reduction(opts)}


def _broadcast(tensors, opts=None, *_):
    return "broadcast", tensors, {"root": getattr(opts, "rootRank", opts)}


def _reduce(tensors, opts=None, *rest):
    return "reduce", tensors, {"root": getattr(opts, "rootRank", opts), "reduce": _reduction(opts)}


def _all_gather(outputs, inputs, *_):
    return "all_gather", inputs, {}


def _reduce_scatter(outputs, inputs, opts=None, *_):
    return "reduce_scatter", inputs, {"reduce": _reduction(opts)}


def _gather(outputs, inputs, opts=None, *_):
    return "gather", inputs, {"root": getattr(opts, "rootRank", opts)}


def _scatter(outputs, inputs, opts=None, *_):
    return "scatter", outputs, {"root": getattr(opts, "rootRank", opts)}


def _all_to_all(outputs, inputs, *_):
    return "all_to_all", inputs, {"splits": (len(inputs), len(outputs))}


def _all_to_all_single(output, input, output_splits=(), input_splits=(), *_):
    return "all_to_all", input, {"splits": (tuple(input_splits), tuple(output_splits))}


def _barrier(*_, **__):
    return "barrier", (), {}


def monitored_barrier(*_: Any, **__: Any) -> Parts:
    """Parts of the one operation whose call returns only when it is over."""
    return "monitored_barrier", (), {}


def _send(tensors, dst, tag=0):
    return "send", tensors, {"peer": dst, "tag": tag}


def _recv(tensors, src, tag=0):
    return "recv", tensors, {"peer": src, "tag": tag}


def receive_from_any(tensors: Any, tag: int = 0) -> Parts:
    """Parts of a recv without a source."""
    return "recv", tensors, {"peer": None, "tag": tag}


METHODS: dict[str, Callable[..., Parts]] = {
    "allreduce": _all_reduce,
    "allreduce_coalesced": _all_reduce,
    "broadcast": _broadcast,
    "reduce": _reduce,
    "allgather": _all_gather,
    "allgather_coalesced": _all_gather,
    "allgather_into_tensor_coalesced": _all_gather,
    "_allgather_base": _all_gather,
    "all_gather_single": _all_gather,
    "all_gather_single_coalesced": _all_gather,
    "reduce_scatter": _reduce_scatter,
    "_reduce_scatter_base": _reduce_scatter,
    "reduce_scatter_single": _reduce_scatter,
    "reduce_scatter_single_coalesced": _reduce_scatter,
    "reduce_scatter_tensor_coalesced": _reduce_scatter,
    "gather": _gather,
    "scatter": _scatter,
    "alltoall": _all_to_all,
    "alltoall_base": _all_to_all_single,
    "all_to_all_single": _all_to_all_single,
    "barrier": _barrier,
    "monitored_barrier": monitored_barrier,
    "send": _send,
    "recv": _recv,
    "recv_anysource": receive_from_any,
}


def key_of(group: str, parts: Parts, asynchronous: bool) -> tuple:
    """What makes a call this call and no other: quick to make and to compare."""
    operation, tensors, fields = parts
    if len(tensors) == 1 and isinstance(tensors, list) and isinstance(tensors[0], torch.Tensor):  # the usual case
        return (operation, group, tensors[0].dtype, tensors[0].shape, asynchronous, *fields.values())
    sizes = tuple([(tensor.dtype, tensor.shape) for tensor in _flat(tensors)])
    return (operation, group, sizes, asynchronous, *fields.values())


def call_of(group: str, ranks: Sequence[int], parts: Parts, asynchronous: bool) -> Call:
    """The whole description, for the first call with its key. Group ranks become global ones."""
    operation, tensors, fields = parts
    flat = _flat(tensors)
    sizes = tuple((str(t.dtype).removeprefix("torch."), tuple(t.shape)) for t in flat)
    named = dict(fields)
    splits = named.pop("splits", None)
    for end in ("root", "peer"):
        if named.get(end) is not None:
            named[end] = ranks[named[end]]
    if "reduce" in named:
        named["reduce"] = str(named["reduce"]).rsplit(".", 1)[-1].lower()
    dtypes = tuple(dict.fromkeys(dtype for dtype, _ in sizes))
    numbers = sum(t.numel() for t in flat)
    # How an all-to-all is split is a matter between each two ranks: not one number for all.
    agree = (operation, dtypes, None if splits else numbers, named.get("reduce", ""), named.get("root"))
    return Call(
        operation=operation,
        group=group,
        ranks=tuple(ranks),
        tensors=sizes,
        nbytes=sum(t.numel() * t.element_size() for t in flat),
        asynchronous=asynchronous,
        agree=agree,
        **named,
    )
