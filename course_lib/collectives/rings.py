"""The ring: every rank sends only to its right neighbour and receives only from its left one.

    ┌─▶ rank 0 ──▶ rank 1 ──▶ rank 2 ──▶ … ──▶ rank n−1 ─┐
    └─────────────────────────────────────────────────────┘

Every link carries the same number of bytes at the same time, so that none waits for another.
Source: Patarasuk & Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of workstations".
None of these has an async_op: what a rank sends in a step is what the step before brought it, and there is no
thread in the background that could add and pass it on.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch.distributed import ReduceOp

from course_lib.collectives.messages import Member, Reduction, check_list, flat, put_back
from course_lib.collectives.trees import doubling_all_reduce, tree_broadcast, tree_reduce


def ring_all_gather(me: Member, rows: Sequence[torch.Tensor]) -> None:
    """Fill every row r with member r's. In step s a rank sends row rank−s and receives row rank−s−1.

        n = 4, who has what     start   step 1   step 2   step 3
        rank 0                  0···    0··3     0·23     0123
        rank 1                  ·1··    01··     01·3     0123

    communication: n−1 steps, each one message; a rank sends all rows but that of its right neighbour.
    All receives are posted at the start, so that a message never waits for its receiver.
    """
    steps = range(me.size - 1)
    arriving = [me.receive(rows[(me.rank - step - 1) % me.size], me.rank - 1) for step in steps]
    leaving = []
    for step in steps:
        leaving.append(me.send(rows[(me.rank - step) % me.size], me.rank + 1))
        arriving[step].wait()
    for work in leaving:
        work.wait()


def ring_reduce_scatter(me: Member, rows: Sequence[torch.Tensor], output: torch.Tensor, reduction: Reduction) -> None:
    """Write the reduction of all members' rows[me.rank] into `output`. The rows are only read.

    Row r starts at rank r+1 and goes once around, each rank adding its own, until it ends, complete, at rank
    r. So in step s a rank sends on row rank−1−s and receives row rank−2−s, to which it adds its own.
    communication: n−1 steps, each one message; a rank sends all rows but its own.
    memory: two buffers of a row, one that is sent while the other is received into. output may be a row.
    """
    if me.size == 1:
        output.copy_(rows[0])
    longest = max(rows, key=torch.Tensor.numel)
    buffers = [torch.empty_like(longest) for _ in range(min(2, me.size - 1))]
    partial = rows[me.rank - 1]
    for step in range(me.size - 1):
        mine = rows[(me.rank - 2 - step) % me.size]
        incoming = buffers[step % 2][: mine.numel()]
        me.exchange(partial, me.rank + 1, incoming, me.rank - 1)
        is_last = step == me.size - 2
        partial = reduction.combine(incoming, mine, out=output if is_last else incoming)
    reduction.finish(output, me.size)


def all_reduce(
    tensor: torch.Tensor,
    op: ReduceOp.RedOpType = ReduceOp.SUM,
    group: dist.ProcessGroup | None = None,
    *,
    algorithm: str = "ring",
) -> None:
    """Combine all ranks' tensors, in place on every rank. All ranks end with the same bits.

    algorithm "ring": the tensor is cut into n chunks, as torch.tensor_split does. A ring reduce-scatter
    leaves chunk r complete on rank r; a ring all-gather hands the complete chunks round.
        messages a rank: (n−1) + (n−1) = 2(n−1), one a step
        bytes a rank:    each message is a chunk, V/n of the tensor's V bytes, so 2(n−1)/n · V; never 2V.
    No algorithm gets by with fewer: to add up n contributions to a byte, n−1 of them have to move, and the
    sum then has to reach n−1 more ranks, so that 2(n−1)·V are sent in all, 2(n−1)/n · V by each of n equal
    ranks.
    If n does not divide the length, chunks differ by one element, and rank r sends 2V less its own chunk and
    the next.
    algorithm "doubling": recursive doubling, about log2(n) messages of V a rank; for small tensors.
    algorithm "reduce_broadcast": a tree to the group's first rank and back: 2⌈log2 n⌉ steps, each of V; for
    comparison.

    Raises ValueError if the caller is not in the group, if op is not defined for the dtype, or for an unknown
    algorithm.
    """
    me, reduction = Member.of(group), Reduction(op, tensor.dtype)
    row = flat(tensor)
    if algorithm == "ring":
        chunks = row.tensor_split(me.size)
        ring_reduce_scatter(me, chunks, chunks[me.rank], reduction)
        ring_all_gather(me, chunks)
    elif algorithm == "doubling":
        doubling_all_reduce(me, row, reduction)
        reduction.finish(row, me.size)
    elif algorithm == "reduce_broadcast":
        total = tree_reduce(me, row, 0, reduction)
        if me.rank == 0:
            reduction.finish(total, me.size)
        tree_broadcast(me, row, 0)
    else:
        raise ValueError(
            f"rank {dist.get_rank()}: algorithm is {algorithm!r}; all_reduce knows ring, doubling and reduce_broadcast."
        )
    put_back(row, tensor)


def all_gather(
    tensor_list: Sequence[torch.Tensor], tensor: torch.Tensor, group: dist.ProcessGroup | None = None
) -> None:
    """Fill tensor_list[r] on every rank with rank r's tensor. Shapes may differ from rank to rank.

    n−1 messages a rank; for equal shapes (n−1)·|tensor| bytes.
    Raises ValueError if the caller is not in the group, or if the list does not fit the ranks or the tensor.
    """
    me = Member.of(group)
    check_list(me, "tensor_list", tensor_list, tensor)
    rows = [flat(t) for t in tensor_list]
    rows[me.rank].copy_(flat(tensor))
    ring_all_gather(me, rows)
    for row, target in zip(rows, tensor_list, strict=True):
        put_back(row, target)


def reduce_scatter(
    output: torch.Tensor,
    input_list: Sequence[torch.Tensor],
    op: ReduceOp.RedOpType = ReduceOp.SUM,
    group: dist.ProcessGroup | None = None,
) -> None:
    """Write the reduction of all ranks' input_list[r] into rank r's output. Entries may differ in shape.

    n−1 messages a rank; for equal shapes (n−1)·|output| bytes. The inputs are left as they are.
    Raises ValueError if the caller is not in the group, if the list does not fit the ranks or output, or if
    op is not defined for the dtype.
    """
    me, reduction = Member.of(group), Reduction(op, output.dtype)
    check_list(me, "input_list", input_list, output)
    row = flat(output)
    ring_reduce_scatter(me, [flat(t) for t in input_list], row, reduction)
    put_back(row, output)
