"""Gradient clipping when every rank holds a part of the gradient."""

import torch
import torch.distributed as dist


@torch.no_grad()
def clip_shards_(
    shards: list[torch.Tensor],
    max_norm: float,
    like: torch.Tensor,
    group: dist.ProcessGroup | None,
    copies: list[int] | None = None,
) -> torch.Tensor:
    """Scale the ranks' shards of one gradient so that its norm is at most `max_norm`; return what it was.

    What torch.nn.utils.clip_grad_norm_ does to the whole. A rank may have no shard; the norm is in `like`'s dtype, on its
    device. Communication: an all-reduce of one number. Squares are added up in float64, as shards are added up in another
    order than whole gradients would be.
    copies: on how many ranks of the group each shard is found; each counts for its part, so that all of them count once.
    """
    square = torch.zeros((), dtype=torch.float64, device=like.device)
    for shard, count in zip(shards, copies or [1] * len(shards), strict=True):
        square += torch.linalg.vector_norm(shard, dtype=torch.float64) ** 2 / count
    dist.all_reduce(square, group=group)
    norm = square.sqrt().to(like.dtype)
    for shard in shards:
        shard *= (max_norm / (norm + 1e-6)).clamp(max=1.0)
    return norm
