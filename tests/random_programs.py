"""Random correct programs: every rank takes the same random decisions, and its own random time over them."""

import random
import sys
import time

import torch
import torch.distributed as dist

from course_lib import span
from course_lib.ranks import hooks, ledger, spans


def run_program(seed, length, pauses=0.003):
    """Run one program on this rank; returns a number that every rank must agree on."""
    rank, n = dist.get_rank(), dist.get_world_size()
    shared, own = random.Random(seed), random.Random(seed * 1000 + rank)
    groups = [None]
    for _ in range(shared.randrange(3) if n > 1 else 0):
        members = shared.sample(range(n), shared.randint(1, n))
        groups.append(dist.new_group(members))
    state = {"pending": [], "x": torch.full((shared.randint(1, 300),), float(rank))}
    for _ in range(length):
        step = shared.choice(STEPS)
        group = shared.choice(groups)
        decide = random.Random(shared.random())
        if own.random() < 0.3:
            time.sleep(own.random() * pauses)
        if group is None or dist.get_rank(group) >= 0:
            with span(step.__name__):
                step(state, decide, group)
    for handle in state["pending"]:
        handle.wait()
    total = torch.ones(1)
    dist.all_reduce(total)
    return total.item()


def put_aside(seed, chance=0.004, longest_s=0.4):
    """From now on this rank stands still at random lines of what writes the ledger, as a busy system may let it.

    For longer, often, than nothing must happen before the caller asks whether anything still can.
    """
    own, files = random.Random(seed), {module.__file__ for module in (hooks, ledger, spans)}

    def at_a_line(frame, event, argument):
        if own.random() < chance:
            time.sleep(own.uniform(longest_s / 2, longest_s))
        return at_a_line

    sys.settrace(lambda frame, *_: at_a_line if frame.f_code.co_filename in files else None)


def members(group):
    return dist.get_process_group_ranks(group or dist.group.WORLD)


def reduce_all(state, decide, group):
    x = torch.ones(decide.randint(1, 2000), dtype=decide.choice([torch.float32, torch.int64, torch.float64]))
    handle = dist.all_reduce(
        x, decide.choice([dist.ReduceOp.SUM, dist.ReduceOp.MAX]), group=group, async_op=decide.random() < 0.4
    )
    if handle is not None:
        state["pending"].append(handle)


def rooted(state, decide, group):
    ranks = members(group)
    root, me, x = decide.choice(ranks), dist.get_rank(), torch.ones(decide.randint(1, 50))
    kind = decide.choice(["broadcast", "reduce", "gather", "scatter", "object"])
    if kind == "broadcast":
        if me == root:
            dist.broadcast(x, root, group=group)
        else:
            dist.broadcast(torch.empty_like(x), root, group=group)
    elif kind == "reduce":
        dist.reduce(x, root, group=group)
    elif kind == "gather":
        dist.gather(x, [torch.empty_like(x) for _ in ranks] if me == root else None, root, group=group)
    elif kind == "scatter":
        dist.scatter(x, [torch.ones_like(x) for _ in ranks] if me == root else None, root, group=group)
    else:
        dist.broadcast_object_list([decide.random() if me == root else None], root, group=group)


def gather_all(state, decide, group):
    n, x = len(members(group)), torch.ones(decide.randint(1, 64))
    kind = decide.choice(["list", "single", "scatter", "all_to_all", "object"])
    if kind == "list":
        dist.all_gather([torch.empty_like(x) for _ in range(n)], x, group=group)
    elif kind == "single":
        dist.all_gather_single(torch.empty(n * len(x)), x, group=group)
    elif kind == "scatter":
        dist.reduce_scatter_single(x, torch.ones(n * len(x)), group=group)
    elif kind == "all_to_all":
        dist.all_to_all_single(torch.empty(n * len(x)), torch.ones(n * len(x)), group=group)
    else:
        dist.all_gather_object([None] * n, {"rank": dist.get_rank(), "text": "x" * dist.get_rank()}, group=group)


def around_the_ring(state, decide, group):
    ranks = members(group)
    if len(ranks) == 1:
        return
    place, tag = ranks.index(dist.get_rank()), decide.randrange(3)
    right, left = ranks[(place + 1) % len(ranks)], ranks[(place - 1) % len(ranks)]
    x, y = torch.ones(8), torch.empty(8)
    handles = [dist.isend(x, right, group=group, tag=tag), dist.irecv(y, left, group=group, tag=tag)]
    for handle in handles if decide.random() < 0.5 else handles[::-1]:
        handle.wait()


def pairwise(state, decide, group):
    ranks = decide.sample(members(group), len(members(group)))
    me = dist.get_rank()
    for a, b in zip(ranks[::2], ranks[1::2], strict=False):
        if me == a:
            dist.send(torch.ones(3), b, group=group)
        elif me == b:
            dist.recv(torch.empty(3), a, group=group)


def to_one(state, decide, group):
    """Everybody sends to one, which takes them as they come."""
    ranks = members(group)
    one = decide.choice(ranks)
    if dist.get_rank() == one:
        for _ in ranks[1:]:
            dist.recv(torch.empty(2), group=group, tag=7)
    else:
        dist.send(torch.ones(2), one, group=group, tag=7)
    dist.barrier(group=group)  # or a fast rank's next message could be taken for a slow one's


def taking_turns(state, decide, group):
    for root in members(group):
        if dist.get_rank() == root:
            dist.all_reduce(torch.ones(3), group=group)
        else:
            dist.all_reduce(torch.zeros(3), group=group)


def wait_for_some(state, decide, group):
    if group is None:
        for handle in state["pending"][: len(state["pending"]) // 2]:
            handle.wait()
        state["pending"] = state["pending"][len(state["pending"]) // 2 :]


def pause(state, decide, group):
    time.sleep(0.002 * (dist.get_rank() % 3))


STEPS = [
    reduce_all,
    reduce_all,
    rooted,
    gather_all,
    around_the_ring,
    pairwise,
    to_one,
    taking_turns,
    wait_for_some,
    pause,
]
