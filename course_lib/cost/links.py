"""Emulated links between ranks: how long a message would take on another network. Plain values and arithmetic.

`launch(fn, 4, link=Link(latency_s=5e-6, bandwidth_gb_s=12.5))` lets every operation last as long as it would there, if that is
longer than it takes here: an emulated link cannot be faster than this machine.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """A link of the α–β model: a message of n bytes takes latency_s + n / bandwidth.

    latency_s: α, seconds;  bandwidth_gb_s: 1/β in gigabytes (10⁹ bytes) a second, in each direction. Networks are sold in
    gigabits: 100 Gb/s Ethernet is 12.5 GB/s.
    """

    latency_s: float
    bandwidth_gb_s: float

    def __post_init__(self) -> None:
        if not self.latency_s >= 0 or not self.bandwidth_gb_s > 0:
            raise ValueError(
                f"a link needs a latency of at least 0 s and a bandwidth above 0 GB/s, not {self.latency_s!r} s and "
                f"{self.bandwidth_gb_s!r} GB/s."
            )

    def transfer_s(self, nbytes: float) -> float:
        """Seconds for which a message keeps the link busy: n / bandwidth, without the latency."""
        return nbytes / (self.bandwidth_gb_s * 1e9)

    def seconds(self, nbytes: float) -> float:
        """Seconds from the start of a message to its arrival: α + n / bandwidth."""
        return self.latency_s + self.transfer_s(nbytes)

    def between(self, src: int, dst: int) -> "Link":
        """The link that joins two ranks: always this one."""
        return self

    def __str__(self) -> str:
        micros = self.latency_s * 1e6
        latency = f"{micros / 1000:g} ms" if micros >= 1000 else f"{micros:g} µs"
        return f"{self.bandwidth_gb_s:g} GB/s, {latency}"


@dataclass(frozen=True)
class Cluster:
    """Nodes of `ranks_per_node` ranks each (ranks 0 … k−1 in the first): one link inside a node, another between nodes."""

    ranks_per_node: int
    inside: Link
    across: Link

    def __post_init__(self) -> None:
        if isinstance(self.ranks_per_node, bool) or not isinstance(self.ranks_per_node, int) or self.ranks_per_node < 1:
            raise ValueError(f"ranks_per_node is a whole number from 1 up, not {self.ranks_per_node!r}.")

    def between(self, src: int, dst: int) -> Link:
        """The link that joins two ranks."""
        return self.inside if src // self.ranks_per_node == dst // self.ranks_per_node else self.across

    def __str__(self) -> str:
        return f"{self.ranks_per_node} ranks a node, inside {self.inside}, across {self.across}"
