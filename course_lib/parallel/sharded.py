"""Fully sharded data parallel (ZeRO-3): a rank keeps its share of every parameter, and borrows the rest while it computes."""

from typing import Any
from weakref import WeakSet

import torch
import torch.distributed as dist
from torch import nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from course_lib.layout import Shard, region
from course_lib.parallel.broadcast_model import start_as_one
from course_lib.parallel.buckets import MB
from course_lib.parallel.clip import clip_shards_
from course_lib.parallel.fsdp_collectives import Reduction
from course_lib.parallel.fsdp_units import Call, Enter, Unit, make_units


class FullyShardedDataParallel(nn.Module):
    """The same model on every rank of `group`, of which each rank keeps a share: parameters, gradients, optimizer state.

        between steps   a rank holds its rows of each parameter (dim 0 split as torch.chunk does; a rank may have none)
        forward         unit by unit:  all-gather ─► compute ─► free
        backward        unit by unit:  all-gather ─► compute ─► free, reduce-scatter the gradients

    Use: `model = FullyShardedDataParallel(net)`; an elementwise optimizer (SGD, Adam, …) on `model.parameters()`, which are
    the shards; forward and backward as ever; `model.finish_gradient_sync()`; optimizer step. Each `p.grad` then is the shard
    of the mean gradient, in the shard's shape; further micro-batches add to it. A unit is an element of a ModuleList or
    Sequential, or any other module's own parameters: use a parameter only in the forward of such a module.

    communication: at the start a broadcast of all parameters and buffers from the group's rank 0. In each step, for Ψ
    elements and n ranks, (n−1)/n · Ψ elements sent by each rank in forward, as much to gather again in backward, and as
    much for the gradients: 3Ψ in all, where data parallel sends 2Ψ. Tied modules in different units gather for each.
    With `prefetch` a unit's parameters are on their way while the one before it computes: peak Ψ/n and two units, and
    one unit without. Of smaller parameters up to `bucket_cap_mb` travel as one message, held twice until it is in place.

    compute_dtype: forward and backward run, and all is sent, in this dtype; the shards, the sums of their gradients and
    the optimizer stay in the model's. The model's floating-point inputs are cast to it, so its output has it too.

    Every rank must run the same units in the same order. Frozen, unused and tied parameters are taken care of as in
    `DataParallel`. Raises as `DataParallel` does, and RuntimeError for a forward before the gradients of the last backward
    have been synchronised, and for parts of the model that run by themselves, as under torch.utils.checkpoint.
    Source: Rajbhandari et al. 2020 (ZeRO), sections 5.3 and 7.2.2; Zhao et al. 2023 (PyTorch FSDP), section 3.
    """

    def __init__(
        self,
        module: nn.Module,
        group: dist.ProcessGroup | None = None,
        *,
        compute_dtype: torch.dtype | None = None,
        prefetch: bool = True,
        bucket_cap_mb: float = 1.0,
    ):
        super().__init__()
        if not any(p.requires_grad for p in module.parameters()):
            raise ValueError("no parameter of this module requires a gradient: there is nothing to train.")
        start_as_one(module, group)
        self.module = module
        self.group = group
        self.compute_dtype = compute_dtype
        self.prefetch = prefetch
        self.units = make_units(module, group, bucket_cap_mb * MB)
        self._shards = [shard for unit in self.units for shard in unit.shards]
        homes = [message.home for unit in self.units for message in unit.messages]
        self._kept = [*homes, *module.buffers()]
        self._in_forward = False
        self._order: list[Unit] = []  # of this forward, and of the one before: what to prefetch
        self._order_before: list[Unit] = []
        self._coming: dict[Unit, Call] = {}  # prefetched for forward
        self._running: list[Call] = []  # in forward now, the innermost last
        self._left: list[Call] = []  # whose forward is over, for backward to go through in reverse
        self._to_reduce: dict[Call, None] = {}  # whose backward began and has not ended
        self._reductions: list[Reduction] = []
        self._alive: WeakSet[Call] = WeakSet()
        for unit in self.units:
            for inside in unit.modules:
                inside.register_forward_pre_hook(
                    lambda m, args, kwargs, u=unit: self._enter(u, args, kwargs), with_kwargs=True
                )
                inside.register_forward_hook(lambda m, args, output: self._leave(output))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled():
            if self._reductions or self._to_reduce:
                raise RuntimeError(
                    f"rank {dist.get_rank(self.group)}: the gradients of the last backward have not been synchronised. "
                    "Call finish_gradient_sync() after each backward; several add up in `p.grad`."
                )
            self._left = []
        self._forget_prefetched()
        self._order_before, self._order = self._order, []
        self._in_forward = True
        try:
            return self.module(*self._cast(args), **self._cast(kwargs))
        finally:
            self._in_forward = False

    @torch.no_grad()
    def finish_gradient_sync(self) -> None:
        """Wait until every shard's gradient is the mean over the ranks. Call it on all ranks, after backward."""
        for call in list(self._to_reduce):  # this rank used none of their parameters; another may have
            self._backward_is_over(call, [None] * len(call.trained))
        self._finish_reductions()
        self._forget_prefetched()
        self._left = []

    def clip_grad_norm_(self, max_norm: float) -> torch.Tensor:
        """Scale the gradients so that their norm over all ranks is at most `max_norm`; return what it was.

        communication: one number is all-reduced. Call it on all ranks, after `finish_gradient_sync()`.
        """
        gradients = [shard.grad for shard in self._shards if shard.grad is not None]
        return clip_shards_(gradients, max_norm, self._shards[0], self.group)

    @torch.no_grad()
    def full_state_dict(self) -> dict[str, torch.Tensor]:
        """`module.state_dict()` of the unsharded module, a copy on every rank. Communication: every unit is gathered."""
        wholes: dict[nn.Parameter, torch.Tensor] = {}
        for unit in self.units:
            call = Call(unit.messages, None)
            call.finish()
            wholes |= {shard: whole.clone() for shard, whole in zip(unit.shards, call.wholes(), strict=True)}
        state = self.module.state_dict(keep_vars=True)
        return {name: wholes[t] if t in wholes else t.detach().clone() for name, t in state.items()}

    @torch.no_grad()
    def load_full_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Take this rank's shards, and the buffers, from whole tensors. No communication.

        Raises KeyError for a name that is missing, ValueError for a shape that is not the model's.
        """
        n, rank = dist.get_world_size(self.group), dist.get_rank(self.group)
        shapes = {piece.shard: piece.shape for unit in self.units for piece in unit.pieces}
        for name, mine in self.module.state_dict(keep_vars=True).items():
            whole, shape = state[name], shapes.get(mine, mine.shape)
            if whole.shape != shape:
                raise ValueError(
                    f"{name} has shape {tuple(whole.shape)} in the state and {tuple(shape)} here: load the same model's."
                )
            if mine in shapes:
                start, stop = region(shape or (1,), Shard(0), n, rank)[0]
                whole = whole.reshape(shape or (1,))[start:stop]
            mine.copy_(whole)

    def held_parameters(self) -> list[torch.Tensor]:
        """What parameters take on this rank now: the shards, what is gathered, and what is on its way."""
        return self._kept + [t for call in self._alive for t in call.held()]

    def held_gradients(self) -> list[torch.Tensor]:
        """What gradients take on this rank now: the shards' own, and the messages that are being reduced."""
        return [shard.grad for shard in self._shards if shard.grad is not None] + [
            t for reduction in self._reductions for t in reduction.held()
        ]

    def _enter(self, unit: Unit, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        """Before a unit's forward: its parameters come, and in its modules take the place of the shards."""
        if not self._in_forward:
            raise RuntimeError(
                f"rank {dist.get_rank(self.group)}: a part of the model ran outside the model's own forward. Call the model "
                "itself, and do not wrap its parts in torch.utils.checkpoint, which runs them again in backward."
            )
        call = self._coming.pop(unit, None) or self._new_call(unit)
        call.finish()
        expected = self._order_before[len(self._order) :][:2]  # this unit and the next, if all is as last time
        self._order.append(unit)
        if self.prefetch and len(expected) == 2 and expected[0] is unit and expected[1] not in self._coming:
            self._coming[expected[1]] = self._new_call(expected[1])
        leaves, tree = tree_flatten((args, kwargs))
        through = [i for i, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
        inputs = [leaves[i] for i in through]
        outputs = Enter.apply(self._backward_is_over, call, len(inputs), *inputs, *unit.shards)
        for i, leaf in zip(through, outputs, strict=False):
            leaves[i] = leaf
        for piece, whole in zip(unit.pieces, outputs[len(inputs) :], strict=True):
            for module, name in piece.places:
                call.replaced.append((module, name, module._parameters[name]))
                module._parameters[name] = whole
        self._running.append(call)
        return tree_unflatten(leaves, tree)

    def _leave(self, output: Any) -> Any:
        """After a unit's forward: the shards come back, and the memory is freed until backward arrives at the output."""
        call = self._running.pop()
        while call.replaced:
            module, name, before = call.replaced.pop()
            module._parameters[name] = before
        leaves, tree = tree_flatten(output)
        leaves = [t.clone() if isinstance(t, torch.Tensor) and call.owns(t) else t for t in leaves]
        call.free()
        ends = [t for t in leaves if isinstance(t, torch.Tensor) and t.requires_grad]
        for tensor in ends:
            tensor.register_hook(lambda gradient, call=call: self._backward_begins(call))
        if ends:
            self._left.append(call)
        return tree_unflatten(leaves, tree)

    def _backward_begins(self, call: Call) -> None:
        """Autograd has the gradient of a unit's output and is about to go through the unit."""
        if call in self._to_reduce:
            return
        call.finish()
        self._to_reduce[call] = None
        if call in self._left:
            position = self._left.index(call)
            if self.prefetch and position:
                self._left[position - 1].start()
            del self._left[position:]

    def _backward_is_over(self, call: Call, gradients: list[torch.Tensor | None]) -> None:
        """Autograd has gone through a unit: the gradients of its trained parameters leave, those before have arrived."""
        call.free()
        self._to_reduce.pop(call, None)
        self._finish_reductions()
        for message in call.messages:
            mine, gradients = gradients[: len(message.trained)], gradients[len(message.trained) :]
            if mine:
                self._reductions.append(Reduction(message, mine, self.compute_dtype or message.home.dtype))

    def _finish_reductions(self) -> None:
        while self._reductions:
            self._reductions.pop(0).finish()

    def _new_call(self, unit: Unit) -> Call:
        call = Call(unit.messages, self.compute_dtype)
        self._alive.add(call)
        return call

    def _forget_prefetched(self) -> None:
        """Parameters that came for a forward that never was: the optimizer's next step makes them out of date."""
        while self._coming:
            self._coming.popitem()[1].finish()

    def _cast(self, values: Any) -> Any:
        """Floating-point tensors in the compute dtype."""
        if self.compute_dtype is None:
            return values
        leaves, tree = tree_flatten(values)
        floats = [isinstance(t, torch.Tensor) and t.is_floating_point() for t in leaves]
        return tree_unflatten(
            [t.to(self.compute_dtype) if is_float else t for t, is_float in zip(leaves, floats, strict=True)], tree
        )
