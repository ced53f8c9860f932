"""The unit of sharding: parameters that are gathered together just before use, and freed together after it."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from course_lib.parallel.buckets import fill_buckets
from course_lib.parallel.fsdp_collectives import Gather, Message, Piece, Places


class Call:
    """The whole parameters of one forward of a unit and of its backward; there only while they are used.

    Autograd remembers the tensors that `wholes` hands out, so these stay; what comes and goes is the memory below them.
    """

    def __init__(self, messages: list[Message], compute_dtype: torch.dtype | None):
        self.messages = messages
        self.flats = [m.home.new_empty(m.world_size * m.size, dtype=compute_dtype or m.home.dtype) for m in messages]
        self.free()
        self.replaced: list[tuple[nn.Module, str, torch.Tensor]] = []
        self.gathers: list[Gather] | None = None
        self.start()

    @property
    def trained(self) -> list[Piece]:
        return [piece for message in self.messages for piece in message.trained]

    def start(self) -> None:
        """Send for the parameters, unless they are here or on the way."""
        if not self.is_here and self.gathers is None:
            self.gathers = [Gather(m, flat) for m, flat in zip(self.messages, self.flats, strict=True)]

    def finish(self) -> None:
        """Have them here."""
        self.start()
        for gather in self.gathers or []:
            gather.finish()
        self.gathers, self.is_here = None, True

    def free(self) -> None:
        """Give their memory back."""
        for flat in self.flats:
            flat.untyped_storage().resize_(0)
        self.is_here = False

    def wholes(self) -> list[torch.Tensor]:
        """Every parameter whole, in its own shape, as new tensors over the memory of `flats`.

        No views: autograd would take the refilling before backward for a change of what it has saved.
        """
        return [
            flat.new_empty(0).set_(flat.untyped_storage(), message.world_size * piece.offset, piece.shape)
            for message, flat in zip(self.messages, self.flats, strict=True)
            for piece in message.pieces
        ]

    def owns(self, tensor: torch.Tensor) -> bool:
        """Whether `tensor` lies in the memory that `free` gives back."""
        return any(tensor.untyped_storage()._cdata == flat.untyped_storage()._cdata for flat in self.flats)

    def held(self) -> list[torch.Tensor]:
        """What takes memory now: the whole parameters, and the messages on their way."""
        arriving = [g.arrived for g in self.gathers or [] if g.arrived is not g.flat]
        return [t for t in (*self.flats, *arriving) if t.untyped_storage().nbytes()]


class Enter(torch.autograd.Function):
    """A unit's inputs, as they are, and shards -> whole parameters; after backward `is_over(call, gradients)` is called.

    Autograd runs nodes in the reverse order of their making, so that this one's backward comes when the whole unit is done.
    """

    @staticmethod
    def forward(ctx, is_over, call, num_inputs, *tensors):
        ctx.is_over, ctx.call, ctx.num_inputs = is_over, call, num_inputs
        ctx.trained = [shard.requires_grad for shard in tensors[num_inputs:]]
        wholes = call.wholes()
        ctx.mark_non_differentiable(*(w for w, is_trained in zip(wholes, ctx.trained, strict=True) if not is_trained))
        ctx.set_materialize_grads(False)
        return (*tensors[:num_inputs], *wholes)

    @staticmethod
    def backward(ctx, *gradients):
        of_wholes = zip(gradients[ctx.num_inputs :], ctx.trained, strict=True)
        ctx.is_over(ctx.call, [g for g, is_trained in of_wholes if is_trained])
        return None, None, None, *gradients[: ctx.num_inputs], *[None] * len(ctx.trained)


@dataclass(eq=False)
class Unit:
    """Parameters that come and go together, and the modules that use them."""

    messages: list[Message]
    modules: list[nn.Module]

    @property
    def pieces(self) -> list[Piece]:
        return [piece for message in self.messages for piece in message.pieces]

    @property
    def shards(self) -> list[nn.Parameter]:
        return [piece.shard for piece in self.pieces]


def make_units(module: nn.Module, group: dist.ProcessGroup | None, cap_bytes: float) -> list[Unit]:
    """Cut a module into units, and replace its parameters by this rank's shards. No communication.

    An element of a ModuleList or a Sequential is a unit with all that is in it; elsewhere each module that has parameters
    of its own is one, with those. Units that share a tied parameter are merged.
    """
    parts: list[tuple[list[nn.Module], dict[nn.Parameter, Places]]] = []
    for root, insides in _parts(module):
        modules, places = [root], {}
        for inside in insides:
            for name, parameter in inside._parameters.items():
                if parameter is not None:
                    places.setdefault(parameter, []).append((inside, name))
        for other in [other for other in parts if other[1].keys() & places.keys()]:
            parts.remove(other)
            modules = other[0] + modules
            for parameter, where in other[1].items():
                places[parameter] = where + places.get(parameter, [])
        if places:
            parts.append((modules, places))
    units = []
    for modules, places in parts:
        filled = fill_buckets(places, cap_bytes)
        messages = [Message({p: places[p] for p in bucket}, group) for bucket in filled]
        units.append(Unit(messages, modules))
        for piece in units[-1].pieces:
            for inside, name in piece.places:
                inside._parameters[name] = piece.shard
    return units


def _parts(module: nn.Module) -> Iterator[tuple[nn.Module, list[nn.Module]]]:
    """(root of a unit, the modules whose own parameters it takes), from the outside in; a shared module once."""
    seen: set[nn.Module] = set()

    def visit(module: nn.Module, is_element: bool) -> Iterator[tuple[nn.Module, list[nn.Module]]]:
        if module in seen:
            return
        insides = [m for m in (module.modules() if is_element else [module]) if m not in seen]
        seen.update(insides)
        yield module, insides
        if not is_element:
            for child in module.children():
                yield from visit(child, isinstance(module, (nn.ModuleList, nn.Sequential)))

    return visit(module, False)
