"""The algorithms that take about log2(n) steps: binomial trees for one root, recursive doubling for all."""

import torch

from course_lib.collectives.messages import Member, Reduction


def tree_broadcast(me: Member, row: torch.Tensor, root: int) -> None:
    """Fill `row` on every member with the root's, in ⌈log2 n⌉ steps; in each, all who have it pass it on.

        rank − root    0 ─────────────▶ 4        step 1
                       0 ──────▶ 2      4 ──────▶ 6        step 2
                       0 ─▶ 1   2 ─▶ 3  4 ─▶ 5   6 ─▶ 7   step 3

    With v = rank − root (mod n), member v has its data from v minus its lowest set bit, and gives it to v
    plus each smaller bit, the largest first, since that one has the most members behind it.
    communication: every member but the root receives once, n−1 messages of |row| in all.
    The root sends ⌈log2 n⌉ of them.
    """
    place = (me.rank - root) % me.size
    bit = 1
    while bit < me.size and not place & bit:
        bit *= 2
    if place:
        me.receive(row, me.rank - bit).wait()
    sending = []
    while bit > 1:
        bit //= 2
        if place + bit < me.size:
            sending.append(me.send(row, me.rank + bit))
    for work in sending:
        work.wait()


def tree_reduce(me: Member, row: torch.Tensor, root: int, reduction: Reduction) -> torch.Tensor:
    """The reduction of all members' rows, at the root, in its `row`. The others' rows stay as they are.

    The broadcast's tree backwards: ⌈log2 n⌉ steps, and each member but the root sends once, |row| bytes.
    The mean is not taken yet: `reduction.finish` is the caller's.
    """
    place = (me.rank - root) % me.size
    total, incoming = row, None
    bit = 1
    while bit < me.size and not place & bit:
        if place + bit < me.size:
            if incoming is None:
                incoming = torch.empty_like(row)
                total = row.clone() if place else row
            me.receive(incoming, me.rank + bit).wait()
            reduction.combine(total, incoming, out=total)
        bit *= 2
    if place:
        me.send(total, me.rank - bit).wait()
    return total


def doubling_all_reduce(me: Member, row: torch.Tensor, reduction: Reduction) -> None:
    """Reduce `row` in place on all members in log2(n) steps: in step k, partners 2ᵏ apart swap all they have.

        step 1   0 ⇄ 1   2 ⇄ 3        step 2   0 ⇄ 2   1 ⇄ 3        (partner = rank XOR 2ᵏ)

    Where n is no power of two, let c be the next one below: each of the last n−c ranks gives its row to the
    rank c below it before the first step, and has the result from it after the last.
    communication: ⌊log2 n⌋ messages of |row| a rank (one more for a rank that stands in for another; one in
    all for a rank that is stood in for). Few steps but all the bytes in each: for small messages.
    Both partners combine lower rank first, so that all ranks hold the same bits at the end.
    """
    core = 1 << (me.size.bit_length() - 1)
    stood_in_for = me.rank + core < me.size
    if me.rank >= core:
        me.send(row, me.rank - core).wait()
        me.receive(row, me.rank - core).wait()
        return
    incoming = torch.empty_like(row)
    if stood_in_for:
        me.receive(incoming, me.rank + core).wait()
        reduction.combine(row, incoming, out=row)
    distance = 1
    while distance < core:
        partner = me.rank ^ distance
        me.exchange(row, partner, incoming, partner)
        low, high = (row, incoming) if me.rank < partner else (incoming, row)
        reduction.combine(low, high, out=row)
        distance *= 2
    if stood_in_for:
        me.send(row, me.rank + core).wait()
