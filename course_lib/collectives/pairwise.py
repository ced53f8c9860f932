"""All-to-all: every rank has a message for every other."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.distributed as dist

from course_lib.collectives.messages import Member, Pending, check_list, end, flat, put_back


def all_to_all(
    output_list: Sequence[torch.Tensor],
    input_list: Sequence[torch.Tensor],
    group: dist.ProcessGroup | None = None,
    async_op: bool = False,
) -> Pending | None:
    """Give rank r input_list[r]; fill output_list[r] with what rank r gives to this one.

        rank 0 has  a0 a1 a2          a0 b0 c0
        rank 1 has  b0 b1 b2    ──▶   a1 b1 c1
        rank 2 has  c0 c1 c2          a2 b2 c2

    One step, all messages posted at once: n−1 a rank, all of input_list but the entry for itself. No two
    ranks start with the same partner. Entries may differ in shape and be empty.
    async_op: returns a handle; call its wait().

    Raises ValueError if the caller is not in the group, or if a list does not fit the ranks or the other
    list.
    """
    me = Member.of(group)
    check_list(me, "output_list", output_list)
    check_list(me, "input_list", input_list, output_list[me.rank])
    return _start(me, output_list, input_list, async_op)


def all_to_all_single(
    output: torch.Tensor,
    input: torch.Tensor,
    output_split_sizes: Sequence[int] | None = None,
    input_split_sizes: Sequence[int] | None = None,
    group: dist.ProcessGroup | None = None,
    async_op: bool = False,
) -> Pending | None:
    """all_to_all of the parts of input along dim 0, written one after the other along dim 0 of output.

    Part r goes to rank r and has input_split_sizes[r] rows; None means n equal parts. What rank r sends must
    have output_split_sizes[r] rows. One step, n−1 messages a rank, all of input but the part for itself.
    async_op: returns a handle; call its wait().

    Raises ValueError if the caller is not in the group, or if the sizes do not add up to dim 0.
    """
    me = Member.of(group)
    sources = flat(input).view(input.shape).split(_split_sizes(me, "input", input, input_split_sizes))
    whole = flat(output).view(output.shape)
    targets = whole.split(_split_sizes(me, "output", output, output_split_sizes))
    check_list(me, "input parts", sources, targets[me.rank])
    return _start(me, targets, sources, async_op, partial(put_back, whole, output))


def _start(
    me: Member,
    targets: Sequence[torch.Tensor],
    sources: Sequence[torch.Tensor],
    async_op: bool,
    then: Callable[[], object] = bool,
) -> Pending | None:
    """Post all messages; in turn s a rank sends to the one s to its right, receives from s to its left."""
    rows = [flat(target) for target in targets]
    works = []
    for turn in range(1, me.size):
        left = (me.rank - turn) % me.size
        right = (me.rank + turn) % me.size
        works += [me.receive(rows[left], left), me.send(flat(sources[right]), right)]
    rows[me.rank].copy_(flat(sources[me.rank]))

    def finish() -> None:
        for row, target in zip(rows, targets, strict=True):
            put_back(row, target)
        then()

    return end(Pending(works, finish), async_op)


def _split_sizes(me: Member, name: str, tensor: torch.Tensor, sizes: Sequence[int] | None) -> list[int]:
    length = tensor.shape[0] if tensor.dim() else 0
    if sizes is None and length % me.size == 0 and tensor.dim():
        return [length // me.size] * me.size
    if sizes is None or len(sizes) != me.size or sum(sizes) != length or min(sizes) < 0:
        raise ValueError(
            f"rank {dist.get_rank()}: {name} has shape {tuple(tensor.shape)} and {name}_split_sizes={sizes}; "
            f"give one size for each of the group's {me.size} ranks, {length} in all "
            f"(or None where {me.size} divides it)."
        )
    return list(sizes)
