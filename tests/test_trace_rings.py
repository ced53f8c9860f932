"""Traffic with collectives counted as rings: each call from a rank to the next one of its group."""

from course_lib.trace import Event, Trace


def event(rank, kind, operation, nbytes, **more):
    return Event(rank, kind, operation, 0.0, 1.0, nbytes=nbytes, **more)


GROUP = {"group": "group 1", "ranks": (0, 2, 3)}
EVENTS = (
    *(event(rank, "collective", "all_reduce", 300, **GROUP) for rank in (0, 2, 3)),
    *(event(rank, "collective", "all_gather_into_tensor", 30, **GROUP) for rank in (0, 2, 3)),
    event(1, "collective", "all_reduce", 300, group="group 2", ranks=(1,)),
    event(1, "message", "isend", 7, ranks=(0, 1, 2, 3), peers=(3,), sent_bytes=7),
    event(0, "span", "step", 0),
    event(0, "collective", "barrier", 0, ranks=(0, 1, 2, 3)),
)
TRACE = Trace(4, 1.0, EVENTS)


def test_a_collective_goes_from_each_rank_to_the_next_of_its_group():
    found = TRACE.traffic(rings=True)
    assert [[r for r in range(4) if row[r]] for row in found.nbytes] == [[2], [3], [3], [0]]
    assert found.nbytes[0][2] == found.nbytes[2][3] == found.nbytes[3][0] == 400 + 60  # 2 · 2/3 of 300, twice 30
    assert found.messages[0][2] == 2 and found.nbytes[1][3] == 7 and found.messages[1][3] == 1
    assert not found.unplaced_bytes and "counted as rings" in repr(found)


def test_without_rings_only_messages_have_a_path():
    found = TRACE.traffic()
    assert sum(map(sum, found.nbytes)) == 7 and found.unplaced_bytes == 4 * 300 + 3 * 30
    assert "counted as rings" not in repr(found)
