"""The ledger as its reader in another process sees it: numbers whole, in order, none twice."""

import multiprocessing
import struct
import time

import pytest

from course_lib.ranks import ledger
from course_lib.ranks.ledger_reader import Record
from course_lib.ranks.worker import Spec


def spec_in(folder, world_size):
    spec = Spec(str(folder), world_size, "gloo", 60, None, None, "float32", ".", (), {})
    with open(spec.file("ledger"), "wb") as file:
        file.truncate(ledger.size(world_size))
    return spec


def pen(spec, rank=0):
    return ledger.Ledger(spec.file("ledger"), spec.file("names", rank), rank, spec.world_size)


def write_many(spec, count):
    here = pen(spec)
    call = here.name("call", lambda: {"operation": "span", "name": "s", "labels": {}})
    for _ in range(count):
        number = here.begin(call, call)
        here.resume()
        here.end(number)
    here.set_state(ledger.DONE)


def test_a_reader_sees_every_operation_once_while_they_are_written(tmp_path):
    """A counter written byte by byte would now and then be read as 0 or as far too large, at every multiple of 256."""
    spec = spec_in(tmp_path, 1)
    record = Record(spec)
    writer = multiprocessing.get_context("fork").Process(target=write_many, args=(spec, 200_000))
    writer.start()
    numbers, begun = [], 0
    while not record.done():
        for _ in range(500):
            seen = record.states()[0].begun
            assert begun <= seen <= 200_000
            begun = seen
        numbers += [entry.number for entry in record.update()]
    writer.join()
    numbers += [entry.number for entry in record.update()]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) + record.states()[0].lost == 200_000
    assert numbers


def test_a_full_ring_loses_what_is_new_and_counts_it(tmp_path):
    spec = spec_in(tmp_path, 1)
    write_many(spec, ledger.CAPACITY + 5)
    record = Record(spec)
    assert len(record.update()) == ledger.CAPACITY
    assert record.states()[0].lost == 5 and record.kept().dropped == 5


def test_an_operation_that_never_completes_does_not_hold_up_the_ring(tmp_path):
    spec = spec_in(tmp_path, 1)
    here, record = pen(spec), Record(spec)
    call = here.name("call", lambda: {"operation": "span", "name": "s", "labels": {}})
    first = here.begin(call, call)
    for _ in range(3 * ledger.CAPACITY):
        here.end(here.begin(call, call))
        if here.begun % 1000 == 0:
            record.update()
    record.update()
    here.end(first)  # its place has long been given away: nothing else may change
    assert record.states()[0].lost == 0
    assert all(entry.number == at for at, entry in enumerate(record.entries))
    assert [entry.number for entry in record.entries if not entry.complete] == [first]


def test_each_rank_has_its_own_region(tmp_path):
    spec = spec_in(tmp_path, 3)
    pens = [pen(spec, rank) for rank in range(3)]
    for rank, here in enumerate(pens):
        call = here.name("call", lambda rank=rank: {"operation": "span", "name": f"of {rank}", "labels": {}})
        for _ in range(rank + 1):
            here.begin(call, call)
    entries = Record(spec).update()
    assert [(e.rank, e.call["name"]) for e in entries] == [(r, f"of {r}") for r in range(3) for _ in range(r + 1)]


@pytest.mark.parametrize("state", [ledger.RUNNING, ledger.DONE])
def test_states_are_those_of_the_ranks(tmp_path, state):
    spec = spec_in(tmp_path, 2)
    pen(spec, 1).set_state(state)
    states = Record(spec).states()
    assert [s.state for s in states] == [0, state] and states[1].blocked == 0
    here = pen(spec, 1)
    here.block(6, time.monotonic())
    assert Record(spec).states()[1].blocked == 7
    here.resume()
    assert Record(spec).states()[1].blocked == 0


def test_whoever_sees_that_a_receive_is_complete_sees_whom_it_came_from(tmp_path, monkeypatch):
    spec, sources = spec_in(tmp_path, 1), []
    here, record = pen(spec), Record(spec)

    class Times:
        """Looks just before and just after the times are written."""

        def pack_into(self, *args):
            assert not record.update()[0].complete
            struct.Struct("@ddd").pack_into(*args)
            record.update()
            sources.append((record.entries[0].complete, record.entries[0].source))

    monkeypatch.setattr(ledger, "_TIMES", Times())
    call = here.name("call", lambda: {"operation": "recv", "peer": None})
    here.end(here.begin(call, call), 1.0, 2.0, peer=3)
    assert sources == [(True, 3)]
