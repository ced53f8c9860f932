"""The memory that training takes on one rank, by what it is for, counted while it runs. `cost.memory` predicts it."""

from collections.abc import Iterable
from functools import cache
from typing import Any
from weakref import ref

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from course_lib.cost.memory import MB, MemoryUse

_ADVICE = {  # for the largest kind; of equals for the first, which costs least
    "optimizer_state": "shard the optimizer's state (ZeRO-1)",
    "gradients": "shard the gradients (ZeRO-2)",
    "parameters": "shard the parameters (ZeRO-3)",
    "activations": "take a smaller micro-batch, or recompute activations in backward",
}


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
        self, model: nn.Module | None = None, optimizer: Optimizer | None = None, limit_bytes: int | None = None
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


def saved_for_backward(module: nn.Module, *inputs: torch.Tensor) -> list[tuple[tuple[int, ...], torch.dtype, int]]:
    """What autograd keeps of module(*inputs) for backward: the shape, dtype and bytes of each tensor, in the order of saving.

    Each storage is listed once, under the first tensor that was saved of it; parameters are left out, as they are there
    anyway. Runs forward once. Parts that checkpoint runs again are not seen: they keep their inputs by other means.
    """
    known = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    found = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            known.add(storage.data_ptr())  # the graph keeps the tensor, so no other one gets its address
            found.append((tuple(tensor.shape), tensor.dtype, storage.nbytes()))
        return tensor.detach()  # an output that held itself would never be freed

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = module(*inputs)
    del output
    return found


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
