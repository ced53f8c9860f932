"""ZeRO-1 and ZeRO-2: every rank has the whole model, but optimizer state, and gradients, for its own part only."""

import weakref
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.optim import Optimizer

from course_lib.parallel.broadcast_model import require_same
from course_lib.parallel.buckets import MB, fill_buckets
from course_lib.parallel.clip import clip_shards_
from course_lib.parallel.optimizer_state import cut_state, whole_state
from course_lib.parallel.sharded_bucket import Piece, ShardedBucket


class ShardedOptimizer(Optimizer):
    """`optimizer_cls` for n ranks that train one model together: each updates its n-th, and sends it to the others.

        parameters                             whole on every rank, the same before and after each step
        gradients, shard_gradients=False       whole, each rank's own          ZeRO-1
        gradients, shard_gradients=True        1/n a rank, their mean          ZeRO-2
        optimizer state                        1/n a rank

    Use: `optimizer = ShardedOptimizer(model.parameters(), torch.optim.AdamW, lr=1e-3)` on an ordinary model, without
    DataParallel around it: `step()` averages the gradients. Forward, backward, `clip_grad_norm_`, `step`, `zero_grad`
    and learning-rate schedulers as ever. Parameters start as the group's rank 0 has them; buffers are the caller's.

    communication, for Ψ trained elements and n ranks, each of them sends: at the start a broadcast of the parameters;
    a step: reduce-scatter of the gradients, (n−1)/n · Ψ, all-gather of the parameters, (n−1)/n · Ψ: as much as an
    all-reduce, and a byte a tensor to learn which were used. ZeRO-1 reduces in `step()`, once; ZeRO-2 while backward
    goes on, once in every backward. The reduce-scatter is an all-to-all and a sum at the owner.
    memory: a bucket's message and what comes back for it, for the one bucket under way, and with ZeRO-2 the message
    that is being filled: about 3 × `bucket_cap_mb` (of 2²⁰ bytes; a larger parameter has a bucket to itself).

    Sizes need not divide: chunks are padded. Parameters become views of flat buckets, and each rank's optimizer works
    on 1-D slices of them, so `optimizer_cls` must treat every element by itself: SGD, Adam, AdamW, RMSprop, Adagrad,
    but not LBFGS, Adafactor, Muon. A parameter that only some ranks used counts as zero on the others; one that nobody
    used is skipped, as in one process. Frozen ones stay as they are.
    ZeRO-2 sets every `p.grad` to None as backward makes it, and every rank must run the same number of backwards.

    Raises ValueError if the caller is not in the group, if no parameter requires a gradient, if the ranks' parameters
    differ, or for a closure; RuntimeError for a backward between `clip_grad_norm_` and `step` (ZeRO-1), and for a
    parameter that was frozen when the optimizer was built and is not now.
    Source: Rajbhandari et al. 2020, "ZeRO", sections 5.1, 5.2 and 7.
    """

    def __init__(
        self,
        params: Any,
        optimizer_cls: type[Optimizer],
        *,
        group: dist.ProcessGroup | None = None,
        shard_gradients: bool = False,
        bucket_cap_mb: float = 25.0,
        **kwargs: Any,
    ):
        self._inner: Optimizer | None = None
        super().__init__(params, {})
        self._group = group
        self._shard_gradients = shard_gradients
        self._parameters = [p for own in self.param_groups for p in own["params"]]
        self._trained = [p for p in self._parameters if p.requires_grad]
        numbered = enumerate((g, p) for g, own in enumerate(self.param_groups) for p in own["params"])
        require_same(
            {f"parameter {i} (group {g})": p for i, (g, p) in numbered},
            group,
            "give every rank's optimizer the same parameters in the same groups, with the same ones frozen.",
        )
        if not self._trained:
            raise ValueError("no parameter requires a gradient: there is nothing to optimize.")
        for p in self._parameters:
            if not p.requires_grad:
                dist.broadcast(p.detach(), group=group, group_src=0)

        buckets_of_group = []
        for own in self.param_groups:  # reversed: backward makes the gradient of the last parameter first
            trained = [p for p in reversed(own["params"]) if p.requires_grad]
            buckets_of_group.append([ShardedBucket(ps, group) for ps in fill_buckets(trained, bucket_cap_mb * MB)])
        pieces = [[piece for b in buckets for piece in b.pieces()] for buckets in buckets_of_group]
        self._inner = optimizer_cls(
            [
                {**_hyperparameters(own), "params": [piece.values for piece in mine]}
                for own, mine in zip(self.param_groups, pieces, strict=True)
            ],
            **kwargs,
        )
        self.defaults, self.state = self._inner.defaults, self._inner.state
        for own, inner in zip(self.param_groups, self._inner.param_groups, strict=True):
            own |= _hyperparameters(inner)

        self._pieces = list(chain(*pieces))  # in the order of the inner optimizer's parameters
        # Buckets leave in one order on all ranks. The largest group first: a small one, say of all biases, is soon
        # begun and late complete, and what waits behind it would be held whole.
        buckets_of_group.sort(key=lambda buckets: sum(p.nbytes for b in buckets for p in b.parameters))
        self._buckets = [b for buckets in reversed(buckets_of_group) for b in buckets]
        self._bucket_of = {p: b for b in self._buckets for p in b.parameters}
        self._used: set[nn.Parameter] = set()  # had a gradient on this rank since zero_grad
        self._reduced = False  # whether the shards are the mean of all gradients so far
        self._under_way: ShardedBucket | None = None
        self._next: int | None = None  # while backward runs, and shard_gradients: the bucket to send next
        on_gradient = weakref.WeakMethod(self._on_gradient)  # a parameter outlives its optimizer
        for p in self._trained:
            p.register_post_accumulate_grad_hook(lambda p: (call := on_gradient()) and call(p))

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Part of building. Raises RuntimeError afterwards: the shards are laid out."""
        if self._inner is not None:
            raise RuntimeError("the shards are laid out already: give all groups to a new ShardedOptimizer.")
        super().add_param_group(param_group)

    @torch.no_grad()
    def _on_gradient(self, p: nn.Parameter) -> None:
        """Backward has accumulated p.grad."""
        if not self._shard_gradients:
            if self._reduced:
                raise RuntimeError(
                    "a backward after clip_grad_norm_, which has reduced the gradients: call step() and zero_grad() first."
                )
            return
        if self._next is None:
            self._next = 0
            torch.autograd.Variable._execution_engine.queue_callback(self._end_backward)
        self._bucket_of[p].take(p)
        p.grad = None
        self._used.add(p)
        while self._next < len(self._buckets) and not self._buckets[self._next].missing:
            self._send(self._buckets[self._next])
            self._next += 1

    @torch.no_grad()
    def _end_backward(self) -> None:
        for bucket in self._buckets[self._next :]:  # those that wait for a parameter that was not used
            self._send(bucket)
        self._receive()
        self._next = None
        self._reduced = False

    def _send(self, bucket: ShardedBucket) -> None:
        self._receive()  # one bucket at a time under way bounds the memory for messages
        bucket.send()
        self._under_way = bucket

    def _receive(self) -> None:
        if self._under_way is not None:
            self._under_way.receive()
            self._under_way = None

    def _send_gradients(self) -> None:
        """Each rank's shards become the mean of all ranks' gradients, and its pieces get theirs; once a step."""
        if any(p.grad is not None and p not in self._bucket_of for p in self._parameters):
            raise RuntimeError(
                "a parameter that was frozen has a gradient: build a new ShardedOptimizer after unfreezing."
            )
        if self._reduced:
            return
        if not self._shard_gradients:
            self._used = {p for p in self._trained if p.grad is not None}
        flags = torch.tensor([p in self._used for p in self._trained], dtype=torch.uint8)
        flags = flags.to(self._trained[0].device)
        dist.all_reduce(flags, dist.ReduceOp.MAX, group=self._group)
        used_somewhere = {p for p, flag in zip(self._trained, flags.tolist(), strict=True) if flag}
        if not self._shard_gradients:
            for bucket in self._buckets:
                if not used_somewhere.isdisjoint(bucket.parameters):
                    for p in self._used.intersection(bucket.parameters):
                        bucket.take(p)
                    self._send(bucket)
            self._receive()
        for piece in self._pieces:
            used = piece.parameter in used_somewhere
            piece.values.grad = self._bucket_of[piece.parameter].gradient_of(piece) if used else None
        self._reduced = True

    def _update_own_part(self) -> None:
        """The ordinary optimizer steps this rank's pieces, and no others."""
        self._pass_on_hyperparameters()
        self._inner.step()

    def _send_parameters(self) -> None:
        """Every rank gets what the others have updated."""
        for work in [bucket.gather() for bucket in self._buckets if bucket.shard is not None]:
            work.wait()
        if not self._shard_gradients:
            self._forget_shards()

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Send gradients to whom they belong, update this rank's own part, send parameters to all. Call it on all ranks."""
        if closure is not None:
            raise ValueError("a closure would have to run backward inside step: run it before, then step().")
        self._send_gradients()
        self._update_own_part()
        self._send_parameters()

    @torch.no_grad()
    def clip_grad_norm_(self, max_norm: float) -> torch.Tensor:
        """Scale the gradients so that their norm, over all parameters of all ranks, is at most `max_norm`; return the norm.

        Call it on all ranks, between backward and step, in place of torch.nn.utils.clip_grad_norm_, whose result it
        gives: the reduction of `step()` happens here, and an all-reduce of one number.
        """
        self._send_gradients()
        return clip_shards_(self.gradient_shards(), max_norm, self._trained[0], self._group)

    @property
    def pieces(self) -> list[Piece]:
        """The parts of parameters that this rank steps; `state[piece.values]` is the state of one."""
        return self._pieces

    def gradient_pieces(self) -> list[tuple[nn.Parameter, torch.Tensor]]:
        """(parameter, mean gradient of the part of it that this rank owns), 1-D views of the shards; for a norm of one's own.

        Call it on all ranks, between backward and step: the reduction of `step()` happens here.
        """
        self._send_gradients()
        return [(piece.parameter, piece.values.grad) for piece in self._pieces if piece.values.grad is not None]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients, whole ones and shards; with set_to_none=False make them zero instead."""
        super().zero_grad(set_to_none)
        if self._shard_gradients and not set_to_none:
            for shard in self.gradient_shards():
                shard.zero_()
        else:
            self._forget_shards()
            self._used.clear()

    def gradient_shards(self) -> list[torch.Tensor]:
        """The mean gradients that this rank holds now, a flat chunk of each bucket."""
        return [b.shard for b in self._buckets if b.shard is not None]

    def _forget_shards(self) -> None:
        for bucket in self._buckets:
            bucket.shard = None
        for piece in self._pieces:
            piece.values.grad = None
        self._reduced = False

    def _pass_on_hyperparameters(self) -> None:
        for own, inner in zip(self.param_groups, self._inner.param_groups, strict=True):
            inner |= _hyperparameters(own)

    def state_dict(self) -> dict[str, Any]:
        """The whole state, as `optimizer_cls` in one process would give it. Call it on all ranks: all get all of it."""
        state = whole_state(self._pieces, self.state, self._parameters, self._group)
        number = {p: i for i, p in enumerate(self._parameters)}
        groups = [{**own, "params": [number[p] for p in own["params"]]} for own in self.param_groups]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the whole state of an ordinary `optimizer_cls`, or of a ShardedOptimizer on any number of ranks."""
        super().load_state_dict({**state_dict, "state": {}})
        state = cut_state(state_dict["state"], self._pieces, self._parameters)
        self._pass_on_hyperparameters()
        self._inner.load_state_dict({**self._inner.state_dict(), "state": state})
        self.state = self._inner.state


def _hyperparameters(group: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name not in ("params", "param_names")}
