"""Bytes and seconds of collectives: rings and trees, by the α–β model, over one link or inside and across nodes.

In all of this a collective is given by the bytes of the *whole* array: what each rank has before an all-reduce, a broadcast or
a reduce-scatter, and after an all-gather.
"""

from collections import Counter
from collections.abc import Sequence
from math import ceil, log2

from course_lib.cost.hardware import System
from course_lib.cost.links import Cluster, Link

# What each rank sends in a ring, in units of (n - 1) / n of the array.
# Source: NVIDIA, nccl-tests, doc/PERFORMANCE.md; Thakur, Rabenseifner and Gropp 2005, sections 3 and 4.
_PASSES = {"all_reduce": 2, "all_gather": 1, "reduce_scatter": 1, "all_to_all": 1}
_ROOTED = ("broadcast", "reduce")


def ring_bytes(operation: str, nbytes: float, n: int) -> float:
    """Bytes that each of n ranks sends: 2(n-1)/n of the array for an all-reduce, half of that for either half of it.

    For a broadcast or a reduce, where not every rank sends, the mean over the ranks.
    """
    return _passes(operation) * (n - 1) / n * nbytes


def ring_messages(operation: str, n: int) -> int:
    """Messages that each of n ranks sends in a ring: 2(n-1) for an all-reduce, n - 1 for either half of it."""
    return _passes(operation) * (n - 1)


def ring_s(operation: str, nbytes: float, n: int, link: Link) -> float:
    """Seconds in a ring of n ranks (an all-to-all: directly): so many steps of α + a part's bytes / bandwidth."""
    if n == 1:
        return 0.0
    if operation == "all_to_all":
        return link.latency_s + link.transfer_s(ring_bytes(operation, nbytes, n))
    return ring_messages(operation, n) * link.seconds(nbytes / n)


def tree_s(operation: str, nbytes: float, n: int, link: Link) -> float:
    """Seconds in a binomial tree that sends the whole array each time: ⌈log₂ n⌉ steps; twice that for an all-reduce.

    Raises ValueError for an operation that no tree does: a tree is for broadcast, reduce and all_reduce.
    """
    if operation not in (*_ROOTED, "all_reduce"):
        raise ValueError(f"no tree does {operation!r}: take broadcast, reduce or all_reduce, or ring_s.")
    up_and_down = 2 if operation == "all_reduce" else 1
    return up_and_down * ceil(log2(n)) * link.seconds(nbytes)


def group_link(system: System, n: int, stride: int = 1) -> Link:
    """The link that limits a ring of n ranks that lie `stride` ranks apart.

    Inside a node it is the link inside. Across nodes, the members that a group has in a node share out its array and use
    the network link of each, so k of them have k times its bandwidth, up to that of the link inside.
    """
    if n * stride <= system.gpus_per_node:
        return system.inside
    return _shared_out(system, max(1, system.gpus_per_node // stride))


def ranks_link(system: System, ranks: Sequence[int]) -> Link:
    """The same for the very ranks of a group, wherever their nodes begin: the node with the fewest of them is the limit."""
    nodes = Counter(rank // system.gpus_per_node for rank in ranks)
    return system.inside if len(nodes) <= 1 else _shared_out(system, min(nodes.values()))


def _shared_out(system: System, members: int) -> Link:
    bandwidth = min(members * system.across.bandwidth_gb_s, system.inside.bandwidth_gb_s)
    return Link(system.across.latency_s, bandwidth)


def group_s(operation: str, nbytes: float, n: int, stride: int, system: System) -> float:
    """Seconds of a ring collective in a group of n ranks that lie `stride` ranks apart, on this system."""
    return ring_s(operation, nbytes, n, group_link(system, n, stride)) if n > 1 else 0.0


def collective_s(operation: str, nbytes: int, ranks: tuple[int, ...], links: Link | Cluster) -> float:
    """Seconds that a collective of the backend is made to last over emulated links, from the last rank's call.

    nbytes: what one rank hands in (a scatter: what it gets). The formulas are those of the usual algorithms over the slowest
    link of the ring of ranks: rings for all_reduce, all_gather and reduce_scatter, binomial trees for broadcast and
    reduce, everything through the root for gather and scatter. Source: Thakur, Rabenseifner and Gropp 2005, sections 3 and 4.
    """
    n = len(ranks)
    if n == 1:
        return 0.0
    pairs = zip(ranks, ranks[1:] + ranks[:1], strict=True)
    link = max((links.between(a, b) for a, b in pairs), key=lambda link: link.seconds(max(nbytes, 1)))
    if operation in _ROOTED:
        return tree_s(operation, nbytes, n, link)
    if operation in _PASSES:
        return ring_s(operation, nbytes * (n if operation == "all_gather" else 1), n, link)
    if operation in ("gather", "scatter"):
        return link.latency_s + (n - 1) * link.transfer_s(nbytes)
    return 2 * ceil(log2(n)) * link.latency_s  # a barrier, a new group: messages without content


def _passes(operation: str) -> int:
    if operation in _ROOTED:
        return 1
    if operation not in _PASSES:
        known = ", ".join((*_PASSES, *_ROOTED))
        raise ValueError(f"{operation!r} is no collective that has a formula here: take one of {known}.")
    return _PASSES[operation]
