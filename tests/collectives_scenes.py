"""What ranks do in the tests of the collectives beside the drawn cases: count messages, mix calls, make calls that are refused.

It imports nothing of the test tools, because every rank imports it.
"""

from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch.distributed import ReduceOp

from course_lib import collectives
from tests.collectives_cases import ALGORITHMS

# --- what is sent ------------------------------------------------------------------------------------------------------

LENGTH = 840  # every number of ranks up to 8 divides it


@contextmanager
def counted():
    """Count what this rank sends: a list of one number of bytes a message."""
    sent, originals = [], {name: getattr(dist, name) for name in ("isend", "send")}

    def counting(original):
        def call(tensor, *arguments, **options):
            sent.append(tensor.nbytes)
            return original(tensor, *arguments, **options)

        return call

    for name, original in originals.items():
        setattr(dist, name, counting(original))
    try:
        yield sent
    finally:
        for name, original in originals.items():
            setattr(dist, name, original)


def count_all():
    """Messages and bytes that this rank sends in each collective; tensors of LENGTH float64."""
    n, rank = dist.get_world_size(), dist.get_rank()
    root = min(1, n - 1)
    x = torch.ones(LENGTH, dtype=torch.float64)
    parts = list(torch.ones(n, LENGTH // n, dtype=torch.float64))
    outputs, wholes = [torch.empty_like(part) for part in parts], [torch.empty_like(x) for _ in range(n)]
    calls = {
        f"all_reduce {name}": lambda name=name: collectives.all_reduce(x, algorithm=name)
        for name in ALGORITHMS["all_reduce"]
    }
    calls |= {
        f"broadcast {name}": lambda name=name: collectives.broadcast(x, root, algorithm=name)
        for name in ALGORITHMS["broadcast"]
    }
    calls |= {
        "reduce tree": lambda: collectives.reduce(x, root),
        "scatter": lambda: collectives.scatter(x, wholes if rank == root else None, root),
        "gather": lambda: collectives.gather(x, wholes if rank == root else None, root),
        "all_gather": lambda: collectives.all_gather(wholes, x),
        "reduce_scatter": lambda: collectives.reduce_scatter(outputs[0], parts),
        "all_to_all": lambda: collectives.all_to_all(outputs, parts),
    }
    found = {}
    for name, call in calls.items():
        with counted() as sent:
            call()
        found[name] = len(sent), sum(sent)
    return found


def count_awkward(length):
    with counted() as sent:
        collectives.all_reduce(torch.ones(length, dtype=torch.float64))
    return len(sent), sum(sent)


# --- messages do not mix -----------------------------------------------------------------------------------------------


def transpose(base, group=None):
    """Start an all-to-all of 1,000 numbers a pair, base + 10·from + to; return its handle and a check of its result."""
    me, n = dist.get_rank(group), dist.get_world_size(group)
    outputs = [torch.zeros(1000) for _ in range(n)]
    inputs = [torch.full((1000,), base + 10.0 * me + other) for other in range(n)]
    work = collectives.all_to_all(outputs, inputs, group, async_op=True)

    def check():
        work.wait()
        for other, output in enumerate(outputs):
            assert (output == base + 10 * other + me).all(), (base, other, output[0].item())

    return check


def two_groups_at_once():
    """Groups of the same ranks, one in reverse order; half of the ranks start with one group, half with the other."""
    ranks = list(range(dist.get_world_size()))
    groups = [dist.new_group(ranks), dist.new_group(ranks[::-1], sort_ranks=False)]
    for _ in range(5):
        order = [0, 1] if dist.get_rank() % 2 else [1, 0]
        checks = [transpose(1000 * k, groups[k]) for k in order]
        for check in checks if dist.get_rank() < 2 else checks[::-1]:
            check()


def several_under_way():
    """Three transposes under way, a ring and a tree before any of them is waited for, in the opposite order."""
    n = dist.get_world_size()
    checks = [transpose(1000 * k) for k in range(3)]
    x = torch.ones(50)
    collectives.all_reduce(x)
    collectives.broadcast(x, 2)
    for check in checks[::-1]:
        check()
    assert (x == n).all()


def own_messages():
    """Rank 1 waits for a message of its own all the while; rank 0 sends it last."""
    mine, x = torch.zeros(4), torch.ones(4)
    work = dist.irecv(mine, 0) if dist.get_rank() else None
    collectives.all_reduce(x)
    if work is None:
        dist.send(torch.full((4,), 7.0), 1)
    else:
        work.wait()
        assert (mine == 7).all()
    assert (x == 2).all()


# --- the rest of the contract ------------------------------------------------------------------------------------------


def uneven_shapes():
    """Rank r's tensor has shape (r, 2)."""
    n, rank = dist.get_world_size(), dist.get_rank()

    def filled(value, source=None):
        return [torch.full((r, 2), float(r if value is None else value)) for r in range(n)]

    outputs = filled(-1)
    collectives.all_gather(outputs, filled(None)[rank])
    assert all(map(torch.equal, outputs, filled(None)))
    outputs = filled(-1)
    collectives.gather(filled(None)[rank], outputs if rank == 0 else None, 0)
    assert rank or all(map(torch.equal, outputs, filled(None)))
    output = filled(-1)[rank]
    collectives.scatter(output, filled(None) if rank == 0 else None)
    assert torch.equal(output, filled(None)[rank])
    collectives.reduce_scatter(output, filled(1))
    assert torch.equal(output, filled(n)[rank])


def unusual_tensors():
    """Parameters are filled in place, as by PyTorch; a conjugated view counts as the numbers that it shows."""
    n, rank = dist.get_world_size(), dist.get_rank()
    parameter = torch.nn.Parameter(torch.full((4, 3), float(rank)))
    collectives.broadcast(parameter.mT, 2)
    assert (parameter == 2).all() and parameter.grad_fn is None
    collectives.all_reduce(parameter)
    assert (parameter == 2 * n).all() and parameter.grad_fn is None
    x = torch.tensor([1 + 2j, 3 - 1j]).conj()
    collectives.all_reduce(x)
    assert torch.equal(x, n * torch.tensor([1 - 2j, 3 + 1j]))


def signed_zeros():
    """The bits that every algorithm leaves on this rank where each rank has zeros of either sign and much else."""
    bits = []
    for algorithm in ALGORITHMS["all_reduce"]:
        for op in (ReduceOp.SUM, ReduceOp.MIN, ReduceOp.MAX):
            generator = torch.Generator().manual_seed(dist.get_rank())
            x = torch.randint(-1, 2, (500,), generator=generator) * torch.rand(500, generator=generator)
            x = torch.where(x == 0, -0.0 if dist.get_rank() % 2 else 0.0, x)
            collectives.all_reduce(x, op, algorithm=algorithm)
            bits.append(x.view(torch.int32).tolist())
    return bits


def complex_product():
    """Which PyTorch's own do not have."""
    x = torch.tensor([1j, 1 + dist.get_rank() * 1j])
    collectives.all_reduce(x, ReduceOp.PRODUCT)
    expected = torch.tensor([1j, 1]) ** torch.tensor([dist.get_world_size(), 1])
    expected[1] = torch.stack([torch.tensor(1 + r * 1j) for r in range(dist.get_world_size())]).prod()
    assert torch.allclose(x, expected)


def refusals():
    """The first line of every ValueError, by name. All of them come before any message is sent."""
    group = dist.new_group([0, 1])
    x, op = torch.ones(2), ReduceOp
    calls = {"not a member": lambda: collectives.broadcast(x, 0, group)}
    if dist.get_rank(group) >= 0:
        calls = {
            "src": lambda: collectives.broadcast(x, 2, group),
            "dst": lambda: collectives.gather(x, None, 2, group),
            "average of integers": lambda: collectives.all_reduce(x.long(), op.AVG),
            "order of complex": lambda: collectives.reduce(x.to(torch.complex64), 0, op.MAX),
            "sum of bytes": lambda: collectives.all_reduce(x.to(torch.float8_e4m3fn)),
            "operation": lambda: collectives.all_reduce(x, op.BAND),
            "all_reduce": lambda: collectives.all_reduce(x, algorithm="rings"),
            "broadcast": lambda: collectives.broadcast(x, 0, async_op=True),
            "no list": lambda: collectives.scatter(x, None, dist.get_rank()),
            "short list": lambda: collectives.all_gather([x, x], x),
            "shape": lambda: collectives.gather(x, [torch.ones(3)] * 3, dist.get_rank()),
            "dtype": lambda: collectives.reduce_scatter(x.double(), [x] * 3),
        }
    return {name: refusal(call) for name, call in calls.items()}


def refusal(call):
    try:
        call()
    except ValueError as error:
        return str(error)
    return "it was not refused"
