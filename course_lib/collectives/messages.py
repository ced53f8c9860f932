"""What every collective is made of: members that send and receive, flat tensors, and reductions."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.distributed import ReduceOp

TAG = 8000  # gloo keeps messages of different tags apart: ours never meet an isend or irecv of the caller's own
_COMBINE = {
    ReduceOp.SUM: torch.add,
    ReduceOp.AVG: torch.add,
    ReduceOp.PRODUCT: torch.mul,
    ReduceOp.MIN: torch.minimum,
    ReduceOp.MAX: torch.maximum,
}
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_COMPLEX = (torch.complex64, torch.complex128)


@dataclass(frozen=True)
class Member:
    """This process as member `rank` of the `size` members of `group`. Ranks here count within it.

    Between two members of a group, messages of one tag arrive in the order in which they were sent, and each
    group has connections of its own. So two collectives cannot mix as long as all members call them in the
    same order.
    """

    group: dist.ProcessGroup | None
    rank: int
    size: int

    @classmethod
    def of(cls, group: dist.ProcessGroup | None) -> "Member":
        """The calling process as a member of the group. Raises ValueError if it is none."""
        rank = dist.get_rank(group)
        if rank < 0:
            raise ValueError(f"rank {dist.get_rank()} is not in the group: only its members make this call.")
        return cls(group, rank, dist.get_world_size(group))

    def translate(self, global_rank: int, name: str) -> int:
        """The rank within the group of a rank of the world. Raises ValueError if that one is no member."""
        ranks = dist.get_process_group_ranks(self.group)
        if global_rank not in ranks:
            raise ValueError(
                f"rank {dist.get_rank()}: {name}={global_rank} is not in the group of ranks {ranks}; "
                f"{name} counts in the whole world, so name one of these."
            )
        return ranks.index(global_rank)

    def send(self, flat: torch.Tensor, to: int) -> dist.Work:
        """Start sending; the tensor may be changed once wait() on the result has returned."""
        return dist.isend(flat, group=self.group, tag=TAG, group_dst=to % self.size)

    def receive(self, flat: torch.Tensor, source: int) -> dist.Work:
        """Start receiving into the tensor; it holds the message once wait() on the result has returned."""
        return dist.irecv(flat, group=self.group, tag=TAG, group_src=source % self.size)

    def exchange(self, outgoing: torch.Tensor, to: int, incoming: torch.Tensor, source: int) -> None:
        """Send and receive at the same time. (One after the other, on every rank, would be a deadlock.)"""
        pending = self.receive(incoming, source), self.send(outgoing, to)
        for work in pending:
            work.wait()


class Pending:
    """Messages under way, all of them posted. wait() returns when the result is in its place."""

    def __init__(self, works: Sequence[dist.Work], finish: Callable[[], object] = bool):
        self._works = list(works)
        self._finish = finish

    def wait(self) -> bool:
        while self._works:
            self._works.pop(0).wait()
        self._finish()
        self._finish = bool  # a second wait() changes nothing
        return True


def end(pending: Pending, async_op: bool) -> Pending | None:
    """Hand the messages under way to the caller if it asked for them with async_op; otherwise wait here."""
    if async_op:
        return pending
    pending.wait()
    return None


@dataclass(frozen=True)
class Reduction:
    """How two contributions become one: `combine(a, b, out=c)`; `finish` then turns a sum into a mean.

    A NaN in any contribution gives NaN, for MIN and MAX too.
    """

    op: ReduceOp.RedOpType
    dtype: torch.dtype

    def __post_init__(self) -> None:
        allowed = {ReduceOp.AVG: _FLOATS + _COMPLEX, ReduceOp.MIN: _INTEGERS + _FLOATS}
        allowed[ReduceOp.MAX] = allowed[ReduceOp.MIN]
        if self.op not in _COMBINE:
            names = ", ".join(op.name for op in _COMBINE)
            raise ValueError(f"rank {dist.get_rank()}: op is {self.op}; these collectives know {names}.")
        if self.dtype not in allowed.get(self.op, _INTEGERS + _FLOATS + _COMPLEX):
            raise ValueError(
                f"rank {dist.get_rank()}: {self.op.name} is not defined for {self.dtype}; "
                "convert the tensor on every rank, for example to float32."
            )

    @property
    def combine(self) -> Callable[..., torch.Tensor]:
        return _COMBINE[self.op]

    def finish(self, total: torch.Tensor, size: int) -> None:
        if self.op == ReduceOp.AVG:
            total /= size


def flat(tensor: torch.Tensor) -> torch.Tensor:
    """The elements in one row without gaps: the tensor's own memory where it lies so, otherwise a copy."""
    return tensor.detach().resolve_conj().resolve_neg().contiguous().view(-1)


def put_back(row: torch.Tensor, tensor: torch.Tensor) -> None:
    """Write a row from `flat(tensor)` into the tensor, unless the row is the tensor's own memory."""
    if row.data_ptr() != tensor.data_ptr():
        tensor.detach().copy_(row.view(tensor.shape))


def check_list(me: Member, name: str, tensors: Sequence[torch.Tensor] | None, mine: torch.Tensor | None = None) -> None:
    """Raise ValueError unless there is one tensor a member, of one dtype, this rank's like `mine`."""
    if tensors is None or len(tensors) != me.size:
        found = "is missing" if tensors is None else f"has {len(tensors)} entries"
        raise ValueError(
            f"rank {dist.get_rank()}: {name} {found}; give one tensor for each of the group's {me.size} ranks."
        )
    entry = tensors[me.rank]
    mine = entry if mine is None else mine
    if entry.shape != mine.shape or any(t.dtype != mine.dtype for t in tensors):
        raise ValueError(
            f"rank {dist.get_rank()}: {name}[{me.rank}] is {tuple(entry.shape)} {entry.dtype} and belongs "
            f"with {tuple(mine.shape)} {mine.dtype}; make the two equal, and all of {name} of one dtype."
        )
