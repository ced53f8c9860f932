"""On the ranks of tests/test_moves.py: call one of our collectives and record every message it sends and receives."""

import torch
import torch.distributed as dist

from course_lib import collectives

LENGTH = 840  # divisible by 1 to 8: equal chunks


def messages_of(operation, algorithm):
    """This rank's messages: [("send" or "recv", other rank, number of elements, first value)] in the order of posting."""
    n, rank = dist.get_world_size(), dist.get_rank()
    seen, arrived = [], []
    isend, irecv = dist.isend, dist.irecv

    def recorded_isend(tensor, *args, group_dst=None, **more):
        seen.append(("send", group_dst, tensor.numel(), tensor.clone()))
        return isend(tensor, *args, group_dst=group_dst, **more)

    def recorded_irecv(tensor, *args, group_src=None, **more):
        seen.append(("recv", group_src, tensor.numel(), None))
        return irecv(tensor, *args, group_src=group_src, **more)

    dist.isend, dist.irecv = recorded_isend, recorded_irecv
    try:
        _call(operation, algorithm, n, rank, arrived)
    finally:
        dist.isend, dist.irecv = isend, irecv
    return [
        (what, peer, size, None if sent is None else sent.tolist()[:1] + sent.tolist()[-1:])
        for what, peer, size, sent in seen
    ]


def value(rank, chunk):
    """What rank `rank` contributes to a chunk: sums of these tell which ranks are in them, and which chunk it is."""
    return float(1000 * 2**rank + chunk)


def _call(operation, algorithm, n, rank, arrived):
    part = LENGTH // n
    whole = torch.cat([torch.full((part,), value(rank, chunk), dtype=torch.float64) for chunk in range(n)])
    flat = torch.full((LENGTH,), value(rank, 0), dtype=torch.float64)
    mine = torch.full((part,), value(rank, rank), dtype=torch.float64)
    blank = [torch.zeros(part, dtype=torch.float64) for _ in range(n)]
    named = {"algorithm": algorithm} if operation in ("broadcast", "all_reduce") else {}
    parts = list(whole.chunk(n))
    if operation == "broadcast":
        collectives.broadcast(flat, 0, **named)
    elif operation == "reduce":
        collectives.reduce(flat, 0)
    elif operation == "scatter":
        collectives.scatter(blank[0], parts if rank == 0 else None, src=0)
    elif operation == "gather":
        collectives.gather(mine, blank if rank == 0 else None, dst=0)
    elif operation == "all_gather":
        collectives.all_gather(blank, mine)
    elif operation == "reduce_scatter":
        collectives.reduce_scatter(blank[0], parts)
    elif operation == "all_to_all":
        collectives.all_to_all(blank, parts)
    else:
        collectives.all_reduce(whole if algorithm == "ring" else flat, **named)
