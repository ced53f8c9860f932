"""Emulated links: the arithmetic, and that runs really last as long as the arithmetic says."""

import time

import pytest
import torch
import torch.distributed as dist

from course_lib import Cluster, Link, launch
from course_lib.cost.communication import collective_s

SLOW = Link(latency_s=0.02, bandwidth_gb_s=0.1)  # slower than this machine by far, so that its own time does not show


def test_a_message_takes_latency_and_bytes_over_bandwidth():
    link = Link(latency_s=0.5, bandwidth_gb_s=2)
    assert link.seconds(3_000_000_000) == pytest.approx(0.5 + 1.5)
    assert link.transfer_s(3_000_000_000) == pytest.approx(1.5)


def test_a_cluster_has_one_link_inside_a_node_and_another_across():
    inside, across = Link(1e-6, 100), Link(1e-5, 10)
    cluster = Cluster(4, inside, across)
    assert cluster.between(0, 3) == inside and cluster.between(3, 4) == across and cluster.between(5, 6) == inside


def test_collectives_follow_their_algorithms():
    link, ranks = Link(1.0, 1e-9), (0, 1, 2, 3)  # one byte a second
    assert collective_s("all_reduce", 8, ranks, link) == pytest.approx(6 * (1 + 2))
    assert collective_s("all_gather", 8, ranks, link) == pytest.approx(3 * (1 + 8))
    assert collective_s("reduce_scatter", 8, ranks, link) == pytest.approx(3 * (1 + 2))
    assert collective_s("broadcast", 8, ranks, link) == pytest.approx(2 * (1 + 8))
    assert collective_s("gather", 8, ranks, link) == pytest.approx(1 + 3 * 8)
    assert collective_s("all_to_all", 8, ranks, link) == pytest.approx(1 + 6)
    assert collective_s("barrier", 0, ranks, link) == pytest.approx(4)
    assert collective_s("all_reduce", 8, (2,), link) == 0
    slow = Cluster(2, Link(0, 1e-9), Link(0, 1e-10))
    assert collective_s("all_reduce", 8, ranks, slow) == pytest.approx(6 * 20)  # the slowest link of the ring


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((-1, 1), "latency of at least 0"), ((0, 0), "bandwidth above 0"), ((0, float("nan")), "bandwidth above 0")],
)
def test_impossible_links_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        Link(*arguments)


def test_what_is_no_link_is_refused_before_any_rank_starts():
    with pytest.raises(TypeError, match=r"link is a Link or a Cluster"):
        launch(lambda: None, 2, link=10)


def ping_pong(sizes, repeats):
    """The shortest one-way time for each size."""
    best = []
    for nbytes in sizes:
        x, times = torch.zeros(nbytes, dtype=torch.uint8), []
        for _ in range(repeats):
            dist.barrier()
            begin = time.perf_counter()
            if dist.get_rank() == 0:
                dist.send(x, 1)
                dist.recv(x, 1)
            else:
                dist.recv(x, 0)
                dist.send(x, 0)
            times.append((time.perf_counter() - begin) / 2)
        best.append(min(times))
    return best


def test_a_message_lasts_as_long_as_the_model_says_from_1_kb_to_16_mb():
    sizes = [1_000, 30_000, 1_000_000, 4_000_000, 16_000_000]
    for nbytes, seconds in zip(sizes, launch(ping_pong, 2, sizes, 3, link=SLOW)[0], strict=True):
        assert seconds == pytest.approx(SLOW.seconds(nbytes), rel=0.1), f"{nbytes} bytes"


def seconds_of(fn, world_size, link, repeats=3):
    """The shortest of a few tries, each from its first rank's start to its last one's end: a busy machine only adds to it."""

    def timed():
        found = []
        for _ in range(repeats):
            dist.barrier()
            begin = time.monotonic()  # one clock for all processes
            fn()
            found.append((begin, time.monotonic()))
        return found

    tries = zip(*launch(timed, world_size, link=link), strict=True)
    return min(max(end for _, end in ranks) - min(begin for begin, _ in ranks) for ranks in tries)


@pytest.mark.parametrize("world_size", [2, 4])
def test_a_collective_lasts_as_long_as_its_formula(world_size):
    expected = collective_s("all_reduce", 4_000_000, tuple(range(world_size)), SLOW)
    measured = seconds_of(lambda: dist.all_reduce(torch.zeros(1_000_000)), world_size, SLOW)
    assert 0.95 * expected <= measured < 1.5 * expected


def test_computing_hides_the_time_of_a_message():
    def overlapped():
        handle = dist.all_reduce(torch.zeros(1_000_000), async_op=True)
        time.sleep(0.2)  # the all-reduce lasts 0.08 s
        handle.wait()

    assert 0.2 <= seconds_of(overlapped, 2, SLOW) < 0.27


def test_one_port_sends_one_message_at_a_time():
    def fan_out():
        x = torch.zeros(2_000_000, dtype=torch.uint8)  # 0.02 s on the link, and 0.02 s of latency
        if dist.get_rank() == 0:
            for handle in [dist.isend(x, rank) for rank in (1, 2, 3)]:
                handle.wait()
        else:
            dist.recv(x, 0)

    def fan_in():
        x = torch.zeros(2_000_000, dtype=torch.uint8)
        if dist.get_rank() == 0:
            for handle in [dist.irecv(x.clone(), rank) for rank in (1, 2, 3)]:
                handle.wait()
        else:
            dist.send(x, 0)

    for fn in (fan_out, fan_in):
        assert 0.075 <= seconds_of(fn, 4, SLOW) < 0.2  # all at once it would be 0.04


def test_the_link_across_nodes_is_felt_only_across():
    def to_neighbour(distance):
        def fn():
            x = torch.zeros(1000)
            if dist.get_rank() == 0:
                dist.send(x, distance)
            elif dist.get_rank() == distance:
                dist.recv(x, 0)

        return fn

    cluster = Cluster(2, inside=Link(0.01, 1), across=Link(0.2, 1))
    assert seconds_of(to_neighbour(1), 4, cluster) < 0.1
    assert 0.18 <= seconds_of(to_neighbour(2), 4, cluster) < 0.3


def test_a_handle_is_not_done_before_its_time():
    def fn():
        handle, asked = dist.all_reduce(torch.ones(1), async_op=True), []
        for _ in range(8):
            asked.append(handle.is_completed())
            time.sleep(0.05)
        return asked

    asked = launch(fn, 2, link=Link(0.1, 1))[1]  # 2 steps of 0.1 s
    assert asked[:3] == [False] * 3 and asked[-1] is True


def test_every_emulated_trace_says_so():
    trace = launch(dist.barrier, 2, link=SLOW).trace
    assert trace.emulated == "emulated links: 0.1 GB/s, 20 ms"
    assert launch(dist.barrier, 2).trace.emulated == ""
