"""What ranks do in tests/test_collectives_autograd.py: a whole program over several ranks, as one function for gradcheck."""

import torch
import torch.distributed as dist
from torch.nn import functional as F

from course_lib.collectives import autograd as pairs


class WholeProgram(torch.autograd.Function):
    """The loss of all ranks together, as a function of all inputs of all ranks; every rank evaluates it in step.

    kind_in "replicated": one input, the same on all ranks. "own": one input a rank.
    kind_out "replicated": all ranks compute the same loss, which counts once. "own": the losses of the ranks are added.
    The backward is each rank's own autograd through the operator under test, with the gradients then put together.
    """

    @staticmethod
    def forward(ctx, local_loss, kind_in, kind_out, *inputs):
        rank = dist.get_rank()
        with torch.enable_grad():
            ctx.mine = inputs[0 if kind_in == "replicated" else rank].detach().requires_grad_()
            ctx.loss = local_loss(ctx.mine)
        ctx.kind_in = kind_in
        total = ctx.loss.detach().clone()
        if kind_out == "own":
            dist.all_reduce(total)
        else:
            assert len(set(everyones(total))) == 1, "the ranks' losses differ where they should be the same"
        return total

    @staticmethod
    def backward(ctx, grad):
        (mine,) = torch.autograd.grad(ctx.loss, ctx.mine, grad, retain_graph=True)
        grads = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
        dist.all_gather(grads, mine.contiguous())
        if ctx.kind_in == "replicated":
            assert all(torch.equal(other, mine) for other in grads), (
                "the ranks' gradients differ where they should agree"
            )
            grads = [mine]
        return None, None, None, *grads


def everyones(scalar):
    values = [torch.empty_like(scalar) for _ in range(dist.get_world_size())]
    dist.all_gather(values, scalar)
    return [value.item() for value in values]


# name: operator, what x is, what y is, and whether a dim of x must be divisible by n
OPERATORS = {
    "copy_to_group": (lambda x, dim: pairs.copy_to_group(x), "replicated", "own", False),
    "reduce_from_group": (lambda x, dim: pairs.reduce_from_group(x), "own", "replicated", False),
    "split_to_group": (pairs.split_to_group, "replicated", "own", True),
    "gather_from_group": (pairs.gather_from_group, "own", "replicated", False),
    "gather_sequence": (pairs.gather_sequence, "own", "own", False),
    "reduce_scatter_sequence": (pairs.reduce_scatter_sequence, "own", "own", True),
}


def check_gradient(name, dim):
    """torch.autograd.gradcheck of one operator, inside a loss that weights every element, on every rank differently."""
    operator, kind_in, kind_out, is_cut = OPERATORS[name]
    rank, n = dist.get_rank(), dist.get_world_size()
    shape = [2, 2]
    shape[dim] *= n if is_cut else 1
    generator = torch.Generator().manual_seed(7)
    inputs = [
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for _ in range(1 if kind_in == "replicated" else n)
    ]

    def local_loss(x):
        y = operator(torch.sin(x).mT.contiguous().mT, dim)  # what reaches the operator has awkward strides
        seed = 100 if kind_out == "replicated" else 100 + rank
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        return (weights * y * y).sum()

    return torch.autograd.gradcheck(lambda *inputs: WholeProgram.apply(local_loss, kind_in, kind_out, *inputs), inputs)


def forward_along(dim):
    """Whether the four operators that cut or join do so as torch.chunk and torch.cat do."""
    rank, n = dist.get_rank(), dist.get_world_size()
    parts = [torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(r)) for r in range(n)]
    whole = torch.cat(parts, dim)
    found = [pairs.gather_from_group(parts[rank], dim), pairs.gather_sequence(parts[rank], dim)]
    found += [pairs.split_to_group(whole, dim), pairs.reduce_scatter_sequence(whole * (rank + 1), dim)]
    expected = [whole, whole, parts[rank], parts[rank] * (n * (n + 1) / 2)]
    return [torch.allclose(a, b) for a, b in zip(found, expected, strict=True)]


def second_derivative(name):
    """The first and second derivative of a sum of cubes of y, both through autograd."""
    operator, _, _, _ = OPERATORS[name]
    x = torch.arange(1.0, 1 + 8 * dist.get_world_size(), dtype=torch.float64).requires_grad_()
    (first,) = torch.autograd.grad((operator(x, 0) ** 3).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    return first.detach(), second


def keeps_its_input(name):
    operator, _, _, _ = OPERATORS[name]
    x = torch.randn(4 * dist.get_world_size(), 3)
    before = x.clone()
    operator(x, 0)
    return torch.equal(x, before)


# --- a layer made of them ----------------------------------------------------------------------------------------------


def mlp(style):
    """Output and gradients of x → gelu(x A) B over all ranks, beside those of one process; float64.

    "tensor": x replicated, f before and g after. "sequence": x and y sharded on their rows, ring operators instead.
    """
    rank, n = dist.get_rank(), dist.get_world_size()
    generator = torch.Generator().manual_seed(3)
    x, a, b, weights = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in [(2 * n, 5), (5, 3 * n), (3 * n, 4), (2 * n, 4)]
    )
    whole = [t.clone().requires_grad_() for t in (x, a, b)]
    (weights * (F.gelu(whole[0] @ whole[1]) @ whole[2])).sum().backward()
    expected = [t.grad for t in whole]

    rows, columns = slice(2 * rank, 2 * rank + 2), slice(3 * rank, 3 * rank + 3)
    parts = [x if style == "tensor" else x[rows], a[:, columns], b[columns]]
    mine = [t.clone().requires_grad_() for t in parts]
    if style == "tensor":
        y = pairs.reduce_from_group(F.gelu(pairs.copy_to_group(mine[0]) @ mine[1]) @ mine[2])
    else:
        y = pairs.reduce_scatter_sequence(F.gelu(pairs.gather_sequence(mine[0]) @ mine[1]) @ mine[2])
        weights, expected[0] = weights[rows], expected[0][rows]
    (weights * y).sum().backward()
    expected = [expected[0], expected[1][:, columns], expected[2][columns]]
    return max((t.grad - e).abs().max().item() for t, e in zip(mine, expected, strict=True))


# --- refusals ----------------------------------------------------------------------------------------------------------


def refusals():
    group = dist.new_group([0, 1])
    rank = dist.get_rank()
    calls = {
        "split": lambda: pairs.split_to_group(torch.ones(2, 7), 1),
        "short": lambda: pairs.split_to_group(torch.ones(2, 7), 0),
        "reduce_scatter": lambda: pairs.reduce_scatter_sequence(torch.ones(8, 2)),
        "gather": lambda: pairs.gather_from_group(torch.ones(2, 3 + (rank == 1))),
        "gather_sequence": lambda: pairs.gather_sequence(torch.ones(3 + (rank == 1), 2)),
        "dim": lambda: pairs.split_to_group(torch.ones(2, 7), 2),
    }
    if rank == 2:
        calls["member"] = lambda: pairs.copy_to_group(torch.ones(2), group)
    return {name: refusal(call) for name, call in calls.items()}


def refusal(call):
    try:
        call()
    except ValueError as error:
        return str(error)
    return "it was not refused"


def unchecked():
    """The two gathers with check=False send nothing but the gather itself."""
    calls = []
    original = dist.all_gather_single
    dist.all_gather_single = lambda *a, **k: (calls.append(1), original(*a, **k))[1]
    try:
        pairs.gather_from_group(torch.ones(2, 3), check=False)
        pairs.gather_sequence(torch.ones(2, 3), check=False)
        pairs.gather_sequence(torch.ones(2, 3))
    finally:
        dist.all_gather_single = original
    return len(calls)
