"""Tensor parallel linear layers: a weight split over the ranks of a group, each of which computes with its slice.

                     column parallel                           row parallel
    weight           rank 0 │ rank 1  over its outputs         rank 0 │ rank 1  over its inputs
    x                replicated                                sharded on the last dim
    y = x Wᵀ + b     sharded on the last dim                   replicated
    forward          nothing                                   all-reduce of y
    backward         all-reduce of ∂x                          nothing

So one column parallel layer, whatever works on each element or head by itself, and one row parallel layer need one message
in each direction. With a sequence_dim, x of the first and y of the second are sharded on the sequence too: an all-gather
and a reduce-scatter, each half of an all-reduce, take its place (see `course_lib.parallel.tensor_model`).

t is the size of the group, |x| the elements of the whole x. Source: Shoeybi et al. 2019, "Megatron-LM", section 3;
Korthikanti et al. 2022, "Reducing Activation Recomputation in Large Transformer Models", section 4.2.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from course_lib.collectives.along import all_gather_along, all_reduce_in_place, reduce_scatter_along
from course_lib.collectives.autograd import (
    Group,
    copy_to_group,
    gather_from_group,
    gather_sequence,
    reduce_from_group,
    reduce_scatter_sequence,
    split_to_group,
)
from course_lib.layout import even_share
from course_lib.parallel.broadcast_model import start_as_one


class ColumnParallelLinear(nn.Module):
    """y = x Wᵀ + b with W and b split over the outputs, an equal slice a rank.

    x (…, in_features) replicated  ->  y (…, out_features / t) sharded on the last dim.
    weight (out_features / t, in_features), bias (out_features / t).
    forward: nothing;  backward: all-reduce of ∂x, 2(t−1)/t · |x| elements sent by each rank, while ∂W is computed.

    gather_output=True: y (…, out_features) replicated, for an all-gather of it, (t−1)/t · |y| elements, in forward.
    sequence_dim: x holds this rank's part of that dim only. forward: all-gather of x;  backward: reduce-scatter of ∂x,
    (t−1)/t · |x| elements each. regather=True keeps only the part for backward, and gathers x there once more.
    whole: the plain layer to take this rank's slices of; unless given, a new nn.Linear of the group's rank 0.
    overlap=False: the same from f and F.linear, without computing while messages are on their way. For reading.

    Raises ValueError if t does not divide out_features, or if the caller is not in the group.
    """

    shard_dims = {"weight": 0, "bias": 0}

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        group: Group = None,
        gather_output: bool = False,
        sequence_dim: int | None = None,
        regather: bool = False,
        whole: nn.Linear | None = None,
        overlap: bool = True,
    ):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.group, self.gather_output = group, gather_output
        self.sequence_dim, self.regather, self.overlap = sequence_dim, regather, overlap
        take_slices(self, whole or _new_linear(in_features, out_features, bias, group))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.overlap:
            (y,) = column_parallel(x, self)
        elif self.sequence_dim is None:
            y = F.linear(copy_to_group(x, self.group), self.weight, self.bias)
        else:
            whole = gather_sequence(x, self.sequence_dim, self.group, check=False)
            y = F.linear(whole, self.weight, self.bias)
        return gather_from_group(y, -1, self.group, check=False) if self.gather_output else y

    def extra_repr(self) -> str:
        """What print(layer) shows."""
        return f"in_features={self.in_features}, out_features={self.out_features}, holds {tuple(self.weight.shape)}"


class RowParallelLinear(nn.Module):
    """y = x Wᵀ + b with W split over the inputs, an equal slice a rank; b is replicated and added once, to the sum.

    x (…, in_features / t) sharded on the last dim  ->  y (…, out_features) replicated.
    weight (out_features, in_features / t), bias (out_features).
    forward: all-reduce of y, 2(t−1)/t · |y| elements sent by each rank;  backward: nothing.

    input_is_parallel=False: x (…, in_features) is replicated and each rank takes its part;  backward: all-gather of ∂x.
    sequence_dim: y is this rank's part of that dim only. forward: reduce-scatter of y;  backward: all-gather of ∂y,
    (t−1)/t · |y| elements each. From the gathered ∂y every rank has the whole ∂b, as without.
    whole, overlap: as in ColumnParallelLinear.

    Raises ValueError if t does not divide in_features, or if the caller is not in the group.
    """

    shard_dims = {"weight": 1}

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        group: Group = None,
        input_is_parallel: bool = True,
        sequence_dim: int | None = None,
        whole: nn.Linear | None = None,
        overlap: bool = True,
    ):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.group, self.input_is_parallel = group, input_is_parallel
        self.sequence_dim, self.overlap = sequence_dim, overlap
        take_slices(self, whole or _new_linear(in_features, out_features, bias, group))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.input_is_parallel:
            x = split_to_group(x, -1, self.group)
        if not self.overlap:
            y = F.linear(x, self.weight)  # a summand
            if self.sequence_dim is None:
                y = reduce_from_group(y, self.group)
                return y if self.bias is None else y + self.bias
            y = reduce_scatter_sequence(y, self.sequence_dim, self.group)
            return (
                y if self.bias is None else y + copy_to_group(self.bias, self.group)
            )  # each rank adds it to other tokens
        return _RowProduct.apply(x, self.weight, self.bias, self.group, self.sequence_dim)

    extra_repr = ColumnParallelLinear.extra_repr


def column_parallel(x: torch.Tensor, *layers: ColumnParallelLinear) -> tuple[torch.Tensor, ...]:
    """The products of one x with several column parallel layers alike, for the messages of one: their ∂x are added up first."""
    parameters = [p for layer in layers for p in (layer.weight, layer.bias)]
    return _ColumnProduct.apply(x, layers[0], *parameters)


class _ColumnProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: ColumnParallelLinear, *parameters: Any) -> tuple:
        weights, biases = parameters[::2], parameters[1::2]
        ctx.layer = layer
        ctx.biased = [bias is not None for bias in biases]
        whole = x if layer.sequence_dim is None else all_gather_along(x, layer.sequence_dim, layer.group).wait()
        ctx.save_for_backward(x if layer.regather else whole, *weights)
        return tuple(F.linear(whole, w, b) for w, b in zip(weights, biases, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple:
        x, *weights = ctx.saved_tensors
        group, dim = ctx.layer.group, ctx.layer.sequence_dim
        again = all_gather_along(x, dim, group) if dim is not None and ctx.layer.regather else None
        rows = [grad.reshape(-1, grad.shape[-1]) for grad in grads]  # (b·s, out_features / t)
        coming = None
        if ctx.needs_input_grad[0]:
            grad_x = rows[0] @ weights[0]  # (b·s, in_features)
            for grad, weight in zip(rows[1:], weights[1:], strict=True):
                grad_x.addmm_(grad, weight)
            grad_x = grad_x.view(*grads[0].shape[:-1], -1)
            if dim is None:
                coming = all_reduce_in_place(grad_x, group)
            else:
                coming = reduce_scatter_along(grad_x, dim, group)
        if again:
            x = again.wait()
        x = x.reshape(-1, x.shape[-1])
        of_parameters = []
        for grad, biased in zip(rows, ctx.biased, strict=True):
            of_parameters += [grad.T @ x, grad.sum(0) if biased else None]
        return coming.wait() if coming else None, None, *of_parameters


class _RowProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x, weight, bias, group: Group, sequence_dim: int | None) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.biased, ctx.group, ctx.sequence_dim = bias is not None, group, sequence_dim
        y = F.linear(x, weight)  # a summand
        if sequence_dim is None:
            y = all_reduce_in_place(y, group).wait()
        else:
            y = reduce_scatter_along(y, sequence_dim, group).wait()
        return y if bias is None else y.add_(bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple:
        x, weight = ctx.saved_tensors
        if ctx.sequence_dim is not None:
            grad = all_gather_along(grad, ctx.sequence_dim, ctx.group).wait()
        rows, x_rows = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        grad_x = (rows @ weight).view(x.shape)
        return grad_x, rows.T @ x_rows, rows.sum(0) if ctx.biased else None, None, None


def take_slices(module: nn.Module, whole: nn.Module) -> None:
    """Give `module`, of `module.group`, this rank's slices of the parameters of `whole`, along `module.shard_dims`.

    Raises ValueError if a dim cannot be shared equally, or if the caller is not in the group.
    """
    t, rank = dist.get_world_size(module.group), dist.get_rank(module.group)
    if rank < 0:
        raise ValueError(f"rank {dist.get_rank()} is not in the group: only its members can build this.")
    for name in ("weight", "bias"):
        parameter = getattr(whole, name, None)
        if parameter is None:
            module.register_parameter(name, None)
            continue
        values = parameter.detach()
        if name in module.shard_dims:
            dim = module.shard_dims[name]
            what = f"rank {rank}: dim {dim} of the {name} of {type(module).__name__}, {tuple(values.shape)},"
            even_share(values.shape[dim], t, what)
            values = values.chunk(t, dim)[rank]
        module.register_parameter(name, nn.Parameter(values.clone(), parameter.requires_grad))


def _new_linear(in_features: int, out_features: int, bias: bool, group: Group) -> nn.Linear:
    whole = nn.Linear(in_features, out_features, bias)
    start_as_one(whole, group)
    return whole
