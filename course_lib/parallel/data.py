"""Data parallel: every rank holds the whole model and a slice of the batch; gradients are averaged."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from course_lib.parallel.broadcast_model import start_as_one
from course_lib.parallel.buckets import MB, fill_buckets


def average_gradients(module: nn.Module, group: dist.ProcessGroup | None = None) -> None:
    """All there is to data parallelism: after backward each gradient becomes its mean over the ranks, one all-reduce each."""
    for parameter in module.parameters():
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad, group=group)
            parameter.grad /= dist.get_world_size(group)


class DataParallel(nn.Module):
    """The same model on every rank of `group`, kept the same by averaging gradients.

        x (b, …) whole            rank 0: x[0:b/n]   rank 1: x[b/n:2b/n]   …      a slice each
        parameters, buffers       rank 0: all        rank 1: all           …      a copy each

    Use: `model = DataParallel(net)`; forward and backward as ever; `model.finish_gradient_sync()`; optimizer step.
    With slices of equal size and a loss that is a mean over its slice, the averaged gradient is the gradient of the mean
    loss over the whole batch, so that n ranks train exactly as one process does.

    communication: once at the start a broadcast of every parameter and buffer from the group's rank 0; in each
    `finish_gradient_sync()` an all-reduce of every gradient, under a ring 2(n−1)/n · Ψ elements sent by each of n ranks
    for Ψ parameters, and before it one of a byte a tensor, to learn which parameters were used.
    Frozen parameters are left out. A tied parameter counts once. A parameter that only some ranks used counts as zero
    on the others; one that nobody used keeps `grad = None`, so that the optimizer skips it as in one process.

    Raises ValueError if the caller is not in the group, if no parameter needs a gradient, or if the ranks' models differ.
    Source: Li et al. 2020, "PyTorch Distributed", section 3; without its buckets and its overlap.
    """

    _syncing = True

    def __init__(self, module: nn.Module, group: dist.ProcessGroup | None = None):
        super().__init__()
        self.module = module
        self.group = group
        self.world_size = dist.get_world_size(group)
        self._trained = [p for p in module.parameters() if p.requires_grad]
        if not self._trained:
            raise ValueError("no parameter of this module requires a gradient: there is nothing to average.")
        start_as_one(module, group)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Gradient accumulation: a backward in here adds to this rank's own gradients, and nothing is sent.

        Every micro-batch but the last of a step goes in here; after the last, `finish_gradient_sync()`.
        """
        before, self._syncing = self._syncing, False
        try:
            yield
        finally:
            self._syncing = before

    @torch.no_grad()
    def finish_gradient_sync(self) -> None:
        """Replace every gradient by its mean over the ranks. Call it on all ranks, after backward, before the step."""
        used = torch.tensor(
            [p.grad is not None for p in self._trained], dtype=torch.uint8, device=self._trained[0].device
        )
        dist.all_reduce(used, dist.ReduceOp.MAX, group=self.group)
        waiting = []
        for parameter, is_used in zip(self._trained, used.tolist(), strict=True):
            if is_used:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                waiting.append((parameter.grad, dist.all_reduce(parameter.grad, group=self.group, async_op=True)))
        for gradient, work in waiting:  # all are under way before the first is waited for
            work.wait()
            gradient /= self.world_size


@dataclass
class Bucket:
    """Gradients that travel as one message: `flat` holds them one after the other, and then one flag a parameter.

    A rank that has a gradient for a parameter sets its flag to 1; summed over the ranks it says whether anybody has one.
    """

    parameters: list[nn.Parameter]
    flat: torch.Tensor = field(init=False, repr=False)
    missing: set[nn.Parameter] = field(init=False, repr=False)  # whose gradient backward has yet to make
    work: dist.Work | None = field(init=False, repr=False, default=None)

    def __post_init__(self) -> None:
        sizes = [p.numel() for p in self.parameters]
        count = len(self.parameters)
        self.flat = self.parameters[0].new_zeros(sum(sizes) + count)
        *parts, self.flags = self.flat.split([*sizes, count])
        self.slots = {p: part.view_as(p) for p, part in zip(self.parameters, parts, strict=True)}
        self.missing = set(self.parameters)

    @property
    def bytes(self) -> int:
        """What one message of this bucket carries."""
        return self.flat.nbytes


class BucketedDataParallel(DataParallel):
    """`DataParallel` with fewer, larger messages, sent while backward still computes. Same use, same result.

        backward   layer 3 ──► layer 2 ──► layer 1 ──►         gradients appear last layer first
        bucket 0   [ layer 3, layer 2 ] ═══ all-reduce ═══►    leaves as soon as it is full
        bucket 1                           [ layer 1 ] ═════►  finish_gradient_sync() waits for the last

    Parameters fill buckets in reverse order, since that is about the order in which backward reaches them: the first of
    `first_bucket_mb`, the others of `bucket_cap_mb` (of 2²⁰ bytes). Buckets leave in the same order on every rank, because
    collectives match by order; hence a full one waits for those before it. With overlap=False all of them wait for
    `finish_gradient_sync()`. Afterwards each gradient is a view into its bucket, so nothing is copied back.

    communication: as `DataParallel`, but one all-reduce a bucket; whether a parameter was used travels in the bucket.
    Gradient accumulation: all micro-batches of a step but the last inside `with model.no_sync():`.

    Raises RuntimeError for a second backward, or a forward, before the gradients of the first have been synchronised.
    Source: Li et al. 2020, "PyTorch Distributed", sections 3.2.2 to 3.2.4.
    """

    def __init__(
        self,
        module: nn.Module,
        group: dist.ProcessGroup | None = None,
        *,
        bucket_cap_mb: float = 25.0,
        first_bucket_mb: float = 1.0,
        overlap: bool = True,
    ):
        super().__init__(module, group)
        if min(bucket_cap_mb, first_bucket_mb) <= 0:
            raise ValueError("bucket_cap_mb and first_bucket_mb are sizes in MB: give numbers above 0.")
        self.overlap = overlap
        filled = fill_buckets(reversed(self._trained), bucket_cap_mb * MB, first_bucket_mb * MB)
        self.buckets = [Bucket(parameters) for parameters in filled]
        self._num_sent = 0
        for bucket in self.buckets:
            for parameter in bucket.parameters:
                parameter.register_post_accumulate_grad_hook(lambda p, b=bucket: self._gradient_ready(p, b))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled() and any(len(b.missing) < len(b.parameters) for b in self.buckets):
            raise RuntimeError(
                f"rank {dist.get_rank(self.group)}: the gradients of the last backward have not been synchronised. Call "
                "finish_gradient_sync() after backward, or accumulate inside `with model.no_sync():`."
            )
        return super().forward(*args, **kwargs)

    @torch.no_grad()
    def finish_gradient_sync(self) -> None:
        for bucket in self.buckets[self._num_sent :]:
            unused = {p for p in bucket.missing if p.grad is None}  # others have an earlier micro-batch's
            for parameter in bucket.missing:
                self._put(parameter, bucket)
            self._send(bucket, unused)
        for bucket in self.buckets:
            bucket.work.wait()
            if bucket.missing:  # only then can there be a parameter that no rank used
                for parameter, used in zip(bucket.parameters, bucket.flags.tolist(), strict=True):
                    parameter.grad = bucket.slots[parameter] if used else None
            bucket.missing = set(bucket.parameters)
        self._num_sent = 0

    def _gradient_ready(self, parameter: nn.Parameter, bucket: Bucket) -> None:
        """Called by autograd when `parameter.grad` is complete."""
        if not self._syncing:
            return
        if parameter not in bucket.missing:
            raise RuntimeError(
                f"rank {dist.get_rank(self.group)}: a second backward reached a parameter of shape "
                f"{tuple(parameter.shape)} whose gradient is being synchronised. Call finish_gradient_sync() after each "
                "backward, or accumulate inside `with model.no_sync():`."
            )
        with torch.no_grad():
            self._put(parameter, bucket)
        bucket.missing.discard(parameter)
        while self.overlap and self._num_sent < len(self.buckets) and not self.buckets[self._num_sent].missing:
            self._send(self.buckets[self._num_sent])

    def _put(self, parameter: nn.Parameter, bucket: Bucket) -> None:
        """This rank's part of the mean into its slot; from then on the slot is the parameter's gradient."""
        slot = bucket.slots[parameter]
        if parameter.grad is None:
            slot.zero_()
        else:  # it may be the slot itself, if zero_grad did not set it to None
            torch.div(parameter.grad, self.world_size, out=slot)
        parameter.grad = slot

    def _send(self, bucket: Bucket, unused: Collection[nn.Parameter] = ()) -> None:
        bucket.flags.fill_(1)
        for index, parameter in enumerate(bucket.parameters):
            if parameter in unused:
                bucket.flags[index] = 0
        bucket.work = dist.all_reduce(bucket.flat, group=self.group, async_op=True)
        self._num_sent += 1
