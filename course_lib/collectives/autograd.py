"""The collectives that tensor parallelism needs inside a model, with their backward: three conjugate pairs.

    function                 forward x → y                backward ∂y → ∂x             Shoeybi  Korthikanti
    copy_to_group            y = x                        ∂x = all-reduce of ∂y        f        f
    reduce_from_group        y = all-reduce of x          ∂x = ∂y                      g        f̄
    split_to_group           y = this rank's part of x    ∂x = all-gather of ∂y
    gather_from_group        y = all-gather of x          ∂x = this rank's part of ∂y
    gather_sequence          y = all-gather of x          ∂x = reduce-scatter of ∂y             g
    reduce_scatter_sequence  y = reduce-scatter of x      ∂x = all-gather of ∂y                 ḡ

In each pair the backward of one is the forward of the other, and so each is the backward of the other's
backward.

Which all-gather? After gather_from_group every rank does the same with y and has the same ∂y, so each takes
its part of it. After gather_sequence the ranks do different work with y, each has a part of the true ∂y, so
those are added up first.

Sums are over the ranks of the group. All collectives are torch.distributed's own.
Source: Shoeybi et al. 2019, "Megatron-LM", section 3; Korthikanti et al. 2022, "Reducing Activation
Recomputation in Large Transformer Models", section 4.2.2.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.distributed as dist

from course_lib.collectives.along import all_gather_along, reduce_scatter_along
from course_lib.layout import even_share, nearest_multiples

Group = dist.ProcessGroup | None


def copy_to_group(x: torch.Tensor, group: Group = None) -> torch.Tensor:
    """f: forward x itself, backward all-reduce. Stands where a replicated x enters work split over the ranks.

    x (…) replicated  ->  y (…) replicated, to be used differently by each rank.
    forward: nothing;  backward: all-reduce of ∂y, 2(t−1)/t · |x| bytes sent by each of t ranks.
    """
    _require_member(group)
    return _Conjugate.apply(x, _same, partial(_all_reduce, group=group))


def reduce_from_group(x: torch.Tensor, group: Group = None) -> torch.Tensor:
    """g: forward all-reduce, backward ∂y itself. Stands where the ranks' partial results become one.

    x (…) partial, a summand on each rank  ->  y (…) replicated. x is not changed.
    forward: all-reduce of x, 2(t−1)/t · |x| bytes sent by each of t ranks;  backward: nothing.
    """
    _require_member(group)
    return _Conjugate.apply(x, partial(_all_reduce, group=group), _same)


def split_to_group(x: torch.Tensor, dim: int = -1, group: Group = None) -> torch.Tensor:
    """Forward this rank's part of x along dim, backward all-gather. The opposite of gather_from_group.

    x (…, k, …) replicated  ->  y (…, k/t, …) sharded on dim.
    forward: nothing;  backward: all-gather of ∂y, (t−1)/t · |x| bytes sent by each of t ranks.
    Raises ValueError if t does not divide k.
    """
    along = {"dim": _require_even(x, dim, group), "group": group}
    return _Conjugate.apply(x, partial(_split, **along), partial(_all_gather, **along))


def gather_from_group(x: torch.Tensor, dim: int = -1, group: Group = None, *, check: bool = True) -> torch.Tensor:
    """Forward all-gather along dim, backward this rank's part of ∂y. For a y that all ranks use alike.

    x (…, k/t, …) sharded on dim  ->  y (…, k, …) replicated.
    forward: all-gather of x, (t−1)/t · |y| bytes sent by each of t ranks;  backward: nothing.
    check: learn first, from an all-gather of 8 bytes a rank, whether the ranks' parts are equal. A layer that
    made them equal itself passes False.
    Raises ValueError if the parts differ in size.
    """
    along = {"dim": _require_equal(x, dim, group, check), "group": group}
    return _Conjugate.apply(x, partial(_all_gather, **along), partial(_split, **along))


def gather_sequence(x: torch.Tensor, dim: int = 0, group: Group = None, *, check: bool = True) -> torch.Tensor:
    """g of sequence parallelism: forward all-gather along dim, backward reduce-scatter.

    x (…, s/t, …) sharded on dim  ->  y (…, s, …) replicated, to be used differently by each rank.
    forward: all-gather of x;  backward: reduce-scatter of ∂y;  in each (t−1)/t · |y| bytes sent by each of t
    ranks.
    check: as in gather_from_group.
    Raises ValueError if the parts differ in size.
    """
    along = {"dim": _require_equal(x, dim, group, check), "group": group}
    return _Conjugate.apply(x, partial(_all_gather, **along), partial(_reduce_scatter, **along))


def reduce_scatter_sequence(x: torch.Tensor, dim: int = 0, group: Group = None) -> torch.Tensor:
    """ḡ of sequence parallelism: forward reduce-scatter along dim, backward all-gather.

    x (…, s, …) partial, a summand on each rank  ->  y (…, s/t, …) sharded on dim. x is not changed.
    forward: reduce-scatter of x;  backward: all-gather of ∂y;  in each (t−1)/t · |x| bytes sent by each of t
    ranks.
    Raises ValueError if t does not divide s.
    """
    along = {"dim": _require_even(x, dim, group), "group": group}
    return _Conjugate.apply(x, partial(_reduce_scatter, **along), partial(_all_gather, **along))


class _Conjugate(torch.autograd.Function):
    """y = there(x), ∂x = back(∂y). The backward is a _Conjugate too, so it can be differentiated."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, there: Callable, back: Callable) -> torch.Tensor:
        ctx.there, ctx.back = there, back
        return there(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _Conjugate.apply(grad, ctx.back, ctx.there), None, None


def _same(x: torch.Tensor) -> torch.Tensor:
    return x.view_as(x)


def _all_reduce(x: torch.Tensor, group: Group) -> torch.Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=group)
    return total


def _split(x: torch.Tensor, dim: int, group: Group) -> torch.Tensor:
    return x.chunk(dist.get_world_size(group), dim)[dist.get_rank(group)].contiguous()


def _all_gather(x: torch.Tensor, dim: int, group: Group) -> torch.Tensor:
    return all_gather_along(x, dim, group).wait()


def _reduce_scatter(x: torch.Tensor, dim: int, group: Group) -> torch.Tensor:
    return reduce_scatter_along(x, dim, group).wait()


def _require_member(group: Group) -> int:
    """The group's size. Raises ValueError if the caller is not in the group."""
    if dist.get_rank(group) < 0:
        raise ValueError(f"rank {dist.get_rank()} is not in the group: only its members make this call.")
    return dist.get_world_size(group)


def _dim(x: torch.Tensor, dim: int) -> int:
    if not -x.dim() <= dim < x.dim():
        raise ValueError(
            f"rank {dist.get_rank()}: dim {dim} does not exist in a tensor of shape "
            f"{tuple(x.shape)}; name one that does."
        )
    return dim % x.dim()


def _require_even(x: torch.Tensor, dim: int, group: Group) -> int:
    """dim, counted from the front. Raises ValueError unless the group's ranks can have equal parts of it."""
    t, dim = _require_member(group), _dim(x, dim)
    even_share(x.shape[dim], t, f"rank {dist.get_rank()}: dim {dim} of {tuple(x.shape)}")
    return dim


def _require_equal(x: torch.Tensor, dim: int, group: Group, check: bool) -> int:
    """dim, counted from the front. Raises ValueError, on every rank, unless all hold equally much of it."""
    t, dim = _require_member(group), _dim(x, dim)
    if check and t > 1:
        sizes = torch.empty(t, dtype=torch.int64, device=x.device)
        dist.all_gather_single(sizes, sizes.new_tensor([x.shape[dim]]), group=group)
        sizes = sizes.tolist()
        if len(set(sizes)) > 1:
            raise ValueError(
                f"rank {dist.get_rank()}: the ranks of the group hold {sizes} of dim {dim}, {sum(sizes)} in all, "
                f"and must hold equal parts; {nearest_multiples(sum(sizes), t)} in all would do."
            )
    return dim
