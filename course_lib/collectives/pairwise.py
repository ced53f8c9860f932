"""All-to-all: every rank has a message for every other."""

from collections.abc import Sequence

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
    rows = [flat(output) for output in output_list]
    works = []
    for turn in range(1, me.size):  # in each a rank sends so many to its right, and receives from as many to its left
        left, right = (me.rank - turn) % me.size, (me.rank + turn) % me.size
        works += [me.receive(rows[left], left), me.send(flat(input_list[right]), right)]
    rows[me.rank].copy_(flat(input_list[me.rank]))

    def finish() -> None:
        for row, output in zip(rows, output_list, strict=True):
            put_back(row, output)

    return end(Pending(works, finish), async_op)
