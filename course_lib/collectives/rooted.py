"""The collectives with one special rank: broadcast, reduce, scatter, gather. src and dst are global ranks."""

from collections.abc import Sequence
from functools import partial

import torch
import torch.distributed as dist
from torch.distributed import ReduceOp

from course_lib.collectives.messages import Member, Pending, Reduction, check_list, end, flat, put_back
from course_lib.collectives.trees import tree_broadcast, tree_reduce


def broadcast(
    tensor: torch.Tensor,
    src: int,
    group: dist.ProcessGroup | None = None,
    async_op: bool = False,
    *,
    algorithm: str = "tree",
) -> Pending | None:
    """Give src's tensor to every rank of the group, in place.

    algorithm "tree": ⌈log2 n⌉ steps; src sends ⌈log2 n⌉ messages of |tensor| bytes, the others what is left
    of n−1.
    algorithm "flat": one step; src sends all n−1 messages itself, all its bytes through one link.
    async_op: with "flat" only, returns a handle; call its wait(). In the tree a rank can pass on only what
    has arrived, and no thread runs in the background to do so.

    Raises ValueError if src or the caller is not in the group, or for an unknown algorithm.
    """
    me = Member.of(group)
    root = me.translate(src, "src")
    if algorithm not in ("tree", "flat") or (async_op and algorithm == "tree"):
        raise ValueError(
            f"rank {dist.get_rank()}: broadcast knows the algorithms tree and flat, and async_op with flat "
            f"only; this is algorithm={algorithm!r}, async_op={async_op}."
        )
    row = flat(tensor)
    if algorithm == "tree":
        tree_broadcast(me, row, root)
        return put_back(row, tensor)
    others = [rank for rank in range(me.size) if rank != root]
    works = [me.send(row, rank) for rank in others] if me.rank == root else [me.receive(row, root)]
    return end(Pending(works, partial(put_back, row, tensor)), async_op)


def reduce(
    tensor: torch.Tensor, dst: int, op: ReduceOp.RedOpType = ReduceOp.SUM, group: dist.ProcessGroup | None = None
) -> None:
    """Combine all ranks' tensors into dst's, in place there; the others keep theirs.

    A binomial tree: ⌈log2 n⌉ steps; every rank but dst sends one message of |tensor| bytes. There is no
    async_op: a rank in the middle of the tree has to add before it can send.

    Raises ValueError if dst or the caller is not in the group, or if op is not defined for the dtype.
    """
    me = Member.of(group)
    root, reduction = me.translate(dst, "dst"), Reduction(op, tensor.dtype)
    row = flat(tensor)
    total = tree_reduce(me, row, root, reduction)
    if me.rank == root:
        reduction.finish(total, me.size)
        put_back(total, tensor)


def scatter(
    tensor: torch.Tensor,
    scatter_list: Sequence[torch.Tensor] | None = None,
    src: int = 0,
    group: dist.ProcessGroup | None = None,
    async_op: bool = False,
) -> Pending | None:
    """Fill rank r's tensor with src's scatter_list[r]; r counts within the group. Only src gives a list.

    One step; src sends n−1 messages, all of its list but its own entry. Entries may differ in shape from rank
    to rank.
    async_op: returns a handle; call its wait().

    Raises ValueError if src or the caller is not in the group, or if the list does not fit the ranks or the
    tensor.
    """
    me = Member.of(group)
    root = me.translate(src, "src")
    row = flat(tensor)
    if me.rank != root:
        works = [me.receive(row, root)]
    else:
        check_list(me, "scatter_list", scatter_list, tensor)
        works = [me.send(flat(t), rank) for rank, t in enumerate(scatter_list) if rank != root]
        row.copy_(flat(scatter_list[root]))
    return end(Pending(works, partial(put_back, row, tensor)), async_op)


def gather(
    tensor: torch.Tensor,
    gather_list: Sequence[torch.Tensor] | None = None,
    dst: int = 0,
    group: dist.ProcessGroup | None = None,
    async_op: bool = False,
) -> Pending | None:
    """Fill dst's gather_list[r] with rank r's tensor, where r counts within the group. Only dst gives a list.

    One step; every rank but dst sends one message of |tensor| bytes. Shapes may differ from rank to rank.
    async_op: returns a handle; call its wait().

    Raises ValueError if dst or the caller is not in the group, or if the list does not fit the ranks or the
    tensor.
    """
    me = Member.of(group)
    root = me.translate(dst, "dst")
    if me.rank != root:
        return end(Pending([me.send(flat(tensor), root)]), async_op)
    check_list(me, "gather_list", gather_list, tensor)
    rows = [flat(t) for t in gather_list]
    works = [me.receive(row, rank) for rank, row in enumerate(rows) if rank != root]
    rows[root].copy_(flat(tensor))

    def finish() -> None:
        for row, target in zip(rows, gather_list, strict=True):
            put_back(row, target)

    return end(Pending(works, finish), async_op)
