"""One call of a collective as data, and how a rank makes it, once with PyTorch's collectives and once with ours.

It imports nothing of the test tools, because every rank of every launch imports it.
"""

import hashlib
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.distributed import ReduceOp

from course_lib import collectives

INTEGERS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
MOVED = [*INTEGERS, *FLOATS, torch.bool, torch.complex64, torch.uint16, torch.float8_e4m3fn]
# What gloo itself cannot move or add: PyTorch's collective works on the same values in a wider type.
WIDER = {torch.int16: torch.int32, torch.uint16: torch.int32, torch.float8_e4m3fn: torch.float32}
WIDER |= {torch.bool: torch.uint8}  # a true that gloo adds to a true has the bits of 2
REDUCED = {
    "SUM": [*INTEGERS, *FLOATS, torch.bool, torch.complex64],
    "PRODUCT": [*INTEGERS, *FLOATS, torch.bool],
    "MIN": [*INTEGERS, *FLOATS, torch.bool],
    "MAX": [*INTEGERS, *FLOATS, torch.bool],
    "AVG": FLOATS,
}
REDUCTIONS = ("all_reduce", "reduce", "reduce_scatter")
MOVES = ("broadcast", "scatter", "gather", "all_gather", "all_to_all")
ALGORITHMS = {"all_reduce": ["ring", "doubling", "reduce_broadcast"], "broadcast": ["tree", "flat"]}
ASYNC = ("broadcast", "scatter", "gather", "all_to_all")


@dataclass(frozen=True)
class Case:
    """One call. group: which of the batch's groups, 0 for the whole world;  root: its place in the group, modulo n."""

    call: str
    op: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    layout: str
    algorithm: str | None
    group: int
    root: int
    async_op: bool
    seed: int


class Scene:
    """A case as one rank sees it, with either library: `lib` is torch.distributed or ours."""

    def __init__(self, case, group, lib):
        self.case, self.group, self.lib = case, group, lib
        self.me, self.n = dist.get_rank(group), dist.get_world_size(group)
        self.root = case.root % self.n
        self.options = {}
        if lib is collectives:
            self.options |= {"algorithm": case.algorithm} if case.algorithm else {}
            self.options |= {"async_op": True} if case.async_op else {}

    def values(self, salt, shape=None):
        """The same on every rank that asks with the same salt."""
        dtype, shape = self.case.dtype, self.case.shape if shape is None else shape
        generator = torch.Generator().manual_seed(1000 * self.case.seed + salt)
        if dtype.is_floating_point or dtype.is_complex:
            part = torch.rand(2, *shape, generator=generator, dtype=torch.float64)
            part = part + 0.5 if self.case.op == "PRODUCT" else (2 * part - 1) * (part > 0.2)  # zeros of one sign
            values = torch.complex(*part).to(dtype) if dtype.is_complex else part[0].to(dtype)
        else:
            least = -3 if dtype.is_signed else 0
            values = torch.randint(least, 2 if dtype == torch.bool else 4, shape, generator=generator)
            values = values.to(dtype)
        return self.laid_out(values)

    def laid_out(self, values):
        if self.lib is dist:
            return values.to(WIDER.get(self.case.dtype, self.case.dtype))
        if self.case.layout == "transposed" and values.dim() > 1:
            return values.mT.contiguous().mT
        if self.case.layout == "gaps":
            whole = values.new_empty(*values.shape, 2)
            whole.view(torch.uint8).fill_(77)
            whole[..., 0] = values
            return whole[..., 0]
        return values

    def blank(self, shape=None):
        return self.laid_out(torch.zeros(self.case.shape if shape is None else shape, dtype=self.case.dtype))

    def several(self, salt):
        return [self.values(salt + 10 * rank) for rank in range(self.n)]

    def run(self):
        """The results on this rank, and the tensors that must still be what they were."""
        case, group, me, n = self.case, self.group, self.me, self.n
        op = getattr(ReduceOp, case.op)
        function = getattr(self.lib, case.call)
        top = dist.get_global_rank(group, self.root) if group else self.root

        def call(*arguments):
            work = function(*arguments, group=group, **self.options)
            if case.async_op and self.lib is collectives:
                assert work.wait() and work.wait()

        if case.call in ("all_reduce", "reduce", "broadcast"):
            x = self.values(me)
            call(x, *{"all_reduce": [op], "reduce": [top, op], "broadcast": [top]}[case.call])
            if case.call == "reduce" and me != self.root:
                return [], [(x, self.values(me))]
            return [x], []
        if case.call == "scatter":
            whole, output = self.several(0), self.blank()
            call(output, whole if me == self.root else None, top)
            return [output], list(zip(whole, self.several(0)))
        if case.call in ("gather", "all_gather"):
            mine, outputs = self.values(me), [self.blank() for _ in range(n)]
            if case.call == "all_gather":
                call(outputs, mine)
            elif self.lib is dist and case.dtype.is_complex:  # which gloo's gather does not take
                dist.all_gather(outputs, mine, group)
            else:
                call(mine, outputs if me == self.root else None, top)
            keeps = case.call == "all_gather" or me == self.root
            return outputs if keeps else [], [(mine, self.values(me))]
        inputs = self.several(me)
        outputs = [self.blank() for _ in range(n if case.call == "all_to_all" else 1)]
        call(outputs, inputs) if case.call == "all_to_all" else call(outputs[0], inputs, op)
        return outputs, list(zip(inputs, self.several(me)))


def compare(case, group):
    """What is wrong with this case on this rank, in words; and a digest of its result."""
    ours, kept = Scene(case, group, collectives).run()
    theirs, _ = Scene(case, group, dist).run()
    for tensor, before in kept:
        if not same(tensor, before):
            return "an input was changed", b""
    for mine, yours in zip(ours, theirs, strict=True):
        if case.layout == "gaps" and (mine._base.view(torch.uint8)[..., mine.itemsize :] != 77).any():
            return "something was written between the elements of the tensor", b""
        if not close(case, mine, yours.to(case.dtype)):
            return f"{mine.tolist()} where PyTorch has {yours.tolist()}"[:2000], b""
    return None, hashlib.sha256(b"".join(bits(tensor).numpy().tobytes() for tensor in ours)).digest()


def bits(tensor):
    return tensor.reshape(-1).clone(memory_format=torch.contiguous_format).view(torch.uint8)


def same(a, b):
    return torch.equal(bits(a), bits(b))


def close(case, a, b):
    if case.call in MOVES:
        return same(a, b)
    if case.op in ("MIN", "MAX") or not case.dtype.is_floating_point and not case.dtype.is_complex:
        return torch.equal(a, b)
    eps = torch.finfo(case.dtype).eps
    largest = b.abs().max().item() if b.numel() else 0
    return torch.allclose(a, b, rtol=16 * eps, atol=16 * eps * max(1, largest))


def run_batch(groups, cases):
    groups = [None, *(dist.new_group(ranks, sort_ranks=False) for ranks in groups)]
    return [compare(case, groups[case.group]) if dist.get_rank(groups[case.group]) >= 0 else None for case in cases]
