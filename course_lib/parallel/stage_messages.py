"""What goes between pipeline stages: activations forward, their gradients back, from one rank to another or on one rank."""

from typing import Any

import torch
import torch.distributed as dist

from course_lib.schedules import Action, Schedule

_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
_HEADER = 10  # int64: the dtype's number, the number of dims, up to 8 lengths
Key = tuple[str, int, int]  # ("F", stage, micro-batch): that stage's input;  ("I", …): the gradient of its output


class StageMessages:
    """One rank's messages during one batch. Nobody waits for what was sent; what comes is awaited before it is there.

    The first activation over a border is preceded by its shape. gloo keeps messages of different tags apart: each has its own, so
    that none can be taken for another in whatever order they come.
    """

    def __init__(self, schedule: Schedule, group: dist.ProcessGroup | None, device: torch.device | None):
        self.schedule, self.group, self.device = schedule, group, device
        self.rank, self.last, self.rank_of = dist.get_rank(group), schedule.num_stages - 1, schedule.rank_of
        self.arrived: dict[Key, Any] = {}  # a tensor, or (a tensor, the work that fills it)
        self.shapes: dict[tuple[str, int], tuple[torch.Size, torch.dtype]] = {}  # by kind and stage
        self.sent: list[tuple[dist.Work, torch.Tensor]] = []

    def expect(self, action: Action) -> None:
        """Post the receive of what this action needs from another rank, if its shape is known."""
        key, source = self._wants(action)
        if source in (None, self.rank) or key in self.arrived or key[:2] not in self.shapes:
            return
        shape, dtype = self.shapes[key[:2]]
        buffer = torch.empty(shape, dtype=dtype, device=self.device)
        self.arrived[key] = buffer, dist.irecv(buffer, group=self.group, group_src=source, tag=self._tag(key))

    def wait_for(self, action: Action) -> None:
        """Stand still until what this action needs is here."""
        key, source = self._wants(action)
        if source not in (None, self.rank) and key[:2] not in self.shapes:  # so it is an activation, the first
            header = torch.empty(_HEADER, dtype=torch.int64)
            dist.recv(header, group=self.group, group_src=source, tag=self._tag(("H", action.stage, 0)))
            dtype, dims, *lengths = header.tolist()
            self.shapes[key[:2]] = torch.Size(lengths[:dims]), _DTYPES[dtype]
            self.expect(action)
        if isinstance(self.arrived.get(key), tuple):
            buffer, work = self.arrived[key]
            work.wait()
            self.arrived[key] = buffer

    def take(self, action: Action) -> torch.Tensor:
        """What this action needs, once: the input of its stage, or the gradient of its output."""
        return self.arrived.pop(self._wants(action)[0])

    def expect_gradient_like(self, stage: int, output: torch.Tensor) -> None:
        """The gradient of a stage's output will have its shape."""
        self.shapes["I", stage] = output.shape, output.dtype

    def hand_on(self, action: Action, result: torch.Tensor | None) -> None:
        """Give an action's result to the stage that wants it, on this rank or another."""
        kind, stage, i = action
        to = stage + 1 if kind == "F" else stage - 1
        if kind == "W" or not 0 <= to <= self.last:
            return
        key, owner = ("F" if kind == "F" else "I", to, i), self.rank_of[to]
        if owner == self.rank:
            self.arrived[key] = result
            return
        if kind == "F" and i == self._first_microbatch(stage):
            self._send(_header(result), owner, self._tag(("H", to, 0)))
        self._send(result.contiguous(), owner, self._tag(key))

    def add_from(self, other: int, tensor: torch.Tensor) -> None:
        """Add the other rank's tensor to this one, while it does the same."""
        theirs, tag = torch.empty_like(tensor), self._tag(("H", 0, 0))
        self._send(tensor.clone(), other, tag)
        dist.recv(theirs, group=self.group, group_src=other, tag=tag)
        tensor += theirs

    def finish(self) -> None:
        """Wait for what is still being sent."""
        for work, _ in self.sent:
            work.wait()

    def _wants(self, action: Action) -> tuple[Key, int | None]:
        """(what an action needs of a neighbouring stage, the rank that has that stage); None if there is no such stage."""
        kind, stage, i = action
        source = stage - 1 if kind == "F" else stage + 1
        there = kind != "W" and 0 <= source <= self.last
        return ("F" if kind == "F" else "I", stage, i), self.rank_of[source] if there else None

    def _first_microbatch(self, stage: int) -> int:
        """The one whose forward a stage does first: its message brings the shape."""
        return next(a.microbatch for a in self.schedule.actions[self.rank] if a[:2] == ("F", stage))

    def _send(self, tensor: torch.Tensor, to: int, tag: int) -> None:
        self.sent = [(work, kept) for work, kept in self.sent if not work.is_completed()]
        self.sent.append((dist.isend(tensor, group=self.group, group_dst=to, tag=tag), tensor))

    def _tag(self, key: Key) -> int:
        kind, stage, i = key
        return ("FIH".index(kind) * (self.last + 1) + stage) * self.schedule.num_microbatches + i


def _header(tensor: torch.Tensor) -> torch.Tensor:
    fields = [_DTYPES.index(tensor.dtype), tensor.dim(), *tensor.shape]
    return torch.tensor(fields + [0] * (_HEADER - len(fields)))
