"""Which gradients travel together: many small messages cost more than one that holds them all."""

from collections.abc import Iterable
from typing import Any

from torch import nn

MB = 2**20


def fill_buckets(
    parameters: Iterable[nn.Parameter], cap_bytes: float, first_bytes: float | None = None
) -> list[list[nn.Parameter]]:
    """Parameters of one dtype and device together, in their order, as long as they fit `cap_bytes`.

    The very first bucket holds at most `first_bytes`, if given: a small one is soon full, so that the first message leaves
    early. A parameter larger than the cap has a bucket to itself. A function of shapes and dtypes alone: the same on all ranks.
    Source: Li et al. 2020, "PyTorch Distributed", section 3.2.3.
    """
    buckets: list[list[nn.Parameter]] = []
    being_filled: dict[Any, list[nn.Parameter]] = {}
    for parameter in parameters:
        kind = parameter.dtype, parameter.device
        bucket = being_filled.get(kind)
        cap = first_bytes if first_bytes is not None and len(buckets) == 1 else cap_bytes
        if bucket is None or sum(p.nbytes for p in bucket) + parameter.nbytes > cap:
            bucket = being_filled[kind] = []
            buckets.append(bucket)
        bucket.append(parameter)
    return buckets
