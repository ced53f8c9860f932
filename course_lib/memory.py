"""The memory that training takes on one rank, by what it is for: counted while it runs, and predicted."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any
from weakref import ref

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

MB = 2**20
_ADVICE = {  # for the largest kind; of equals for the first, which costs least
    "optimizer_state": "shard the optimizer's state (ZeRO-1)",
    "gradients": "shard the gradients (ZeRO-2)",
    "parameters": "shard the parameters (ZeRO-3)",
    "activations": "take a smaller micro-batch, or recompute activations in backward",
}


@dataclass(frozen=True)
class MemoryUse:
    """Bytes on one rank, by kind. Activations are all that is none of the other three: temporaries and logits, too."""

    parameters: int = 0
    gradients: int = 0
    optimizer_state: int = 0
    activations: int = 0

    @property
    def total(self) -> int:
        return sum(vars(self).values())

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind.replace('_', ' ')} {size / MB:.2f}" for kind, size in vars(self).items())
        return f"{self.total / MB:.2f} MB: {kinds}"


class OutOfMemory(MemoryError):
    """An operation brought this rank over the limit of its MemoryMeter."""


class MemoryMeter(TorchDispatchMode):
    """Looks, after every operation in its block that made something, at what memory is held and what for.

        with MemoryMeter(model, optimizer) as meter:
            loss_of(model(x), y).backward(); optimizer.step()
        print(meter.peak)

    now: what is held at this moment, a MemoryUse; ask in the block or after it.
    peak: what was held when the total was highest.  peak_of: the most there was of each kind, each at its own moment.

    Counted are storages, the memory under tensors: once for all views of one, at the size it has at the moment (one that
    was resized to 0 counts 0), until it is freed. A storage counts as the first of these that it is:
    parameters: `model.parameters()` and `.buffers()`; `model.held_parameters()` if the model has that.
    gradients: every `p.grad`; `model.held_gradients()` if there is that; and `optimizer.gradient_shards()` likewise.
    optimizer state: the tensors in `optimizer.state`.
    activations: what else operations in the block made: also a gradient until backward has put it into `p.grad`, but not
    what was there before, such as a data set.

    Not counted: what a kernel takes for itself while it runs, an allocator's rounding, the libraries.
    limit_bytes: the operation that brings the total above it raises OutOfMemory, as on a GPU of that size.
    It sees this process alone and sends nothing. A step takes several times as long in it: do not time one here.
    """

    def __init__(
        self,
        model: nn.Module | None = None,
        optimizer: Optimizer | None = None,
        limit_bytes: int | None = None,
    ):
        super().__init__()
        self.model, self.optimizer, self.limit_bytes = model, optimizer, limit_bytes
        self.peak = self.peak_of = MemoryUse()
        self._parameters = list(model.parameters()) if model else []  # once: to walk all modules is slow
        self._buffers = list(model.buffers()) if model else []
        self._made: set[ref[torch.UntypedStorage]] = set()  # by operations in the block; what is freed leaves
        self._look_again = False

    @property
    def now(self) -> MemoryUse:
        known: set[torch.UntypedStorage] = set()
        sizes = []
        for tensors in (self._held_parameters(), self._held_gradients(), self._held_state()):
            storages = {*map(torch.Tensor.untyped_storage, tensors)} - known
            sizes.append(_bytes_of(storages))
            known |= storages
        alive = {made() for made in tuple(self._made)} - {None}
        return MemoryUse(*sizes, _bytes_of(alive - known))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        made = set()
        if _makes_storage(func):
            made = {leaf.untyped_storage() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)}
            self._made.update(ref(storage, self._made.discard) for storage in made)
        elif not (self._look_again and func._schema.is_mutable):
            return result  # a view, or one more change in place: all is as it was
        # What was made may be a gradient by the next change in place, which is the optimizer's: that is a look, too.
        self._look_again = bool(made)
        use = self._look()
        if self.limit_bytes is not None and use.total > self.limit_bytes:
            largest = max(_ADVICE, key=lambda kind: getattr(use, kind))
            raise OutOfMemory(
                f"{func} made {_bytes_of(made) / MB:.2f} MB, and with it this rank holds {use}. "
                f"The limit is {self.limit_bytes / MB:.2f} MB: {_ADVICE[largest]}."
            )
        return result

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self._look()

    def _look(self) -> MemoryUse:
        use = self.now
        self.peak = max(self.peak, use, key=lambda use: use.total)
        self.peak_of = MemoryUse(*map(max, vars(self.peak_of).values(), vars(use).values()))
        return use

    def _held_parameters(self) -> list[torch.Tensor]:
        if hasattr(self.model, "held_parameters"):
            return self.model.held_parameters()
        return self._parameters + self._buffers

    def _held_gradients(self) -> list[torch.Tensor]:
        shards = self.optimizer.gradient_shards() if hasattr(self.optimizer, "gradient_shards") else []
        if hasattr(self.model, "held_gradients"):
            return self.model.held_gradients() + shards
        return [grad for p in self._parameters if (grad := p.grad) is not None] + shards

    def _held_state(self) -> list[torch.Tensor]:
        states = self.optimizer.state.values() if self.optimizer else ()
        return [value for state in states for value in state.values() if isinstance(value, torch.Tensor)]


def training_state(
    num_parameters: int,
    world_size: int,
    stage: int,
    parameter_bytes: int = 4,
    gradient_bytes: int = 4,
    optimizer_bytes: int = 8,
) -> MemoryUse:
    """What each rank holds between backward and step, activations aside, at ZeRO stage 0 (nothing sharded), 1, 2 or 3.

    Stage 1 divides the optimizer's state by world_size, 2 the gradients as well, 3 the parameters as well; a part is
    rounded up to whole bytes. The last three arguments are bytes per parameter: as they stand those of Adam in float32,
    whose two moments are the 8. In mixed precision they are 2, 2 and 12: a float32 copy of the parameters and the moments.
    Raises ValueError for another stage, and for a world_size below 1.  Source: Rajbhandari et al. 2020, section 5, figure 1.
    """
    if stage not in (0, 1, 2, 3):
        raise ValueError(f"stage is {stage!r}: it must be 0, 1, 2 or 3.")
    if world_size < 1:
        raise ValueError(f"world_size is {world_size}: at least one rank has to hold the model.")
    parts = [
        -(-num_parameters * bytes_each // (world_size if stage >= sharded_from else 1))
        for bytes_each, sharded_from in ((parameter_bytes, 3), (gradient_bytes, 2), (optimizer_bytes, 1))
    ]
    return MemoryUse(*parts)


@cache
def _makes_storage(operation: Any) -> bool:
    """Not if the result lies in an argument's memory, as a view does, a change in place, and what a collective received."""
    if operation.namespace in ("c10d", "profiler"):
        return False
    if operation.name() == "aten::lift_fresh":  # torch.tensor([1, 2]): a view, it says, of what it just made
        return True
    return all(result.alias_info is None for result in operation._schema.returns)


def _bytes_of(storages: Iterable[torch.UntypedStorage]) -> int:
    return sum(map(torch.UntypedStorage.nbytes, storages))
