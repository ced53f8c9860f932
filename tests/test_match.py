"""Which calls belong together, in which order lines run, and what circles of waiting ranks there are: without any process."""

import linecache
import textwrap

import pytest

from course_lib.ranks.exclusive import in_sequence
from course_lib.ranks.ledger_reader import Entry, Site
from course_lib.ranks.match import Matcher
from course_lib.ranks.stall import _cycle

SOURCE = textwrap.dedent("""\
    def program():
        if rank == 0:
            all_reduce(a)
            all_reduce(b)
        else:
            all_reduce(b)
            all_reduce(a)

    def turns():
        for root in range(n):
            if rank == root:
                all_reduce(a)
            else:
                all_reduce(b)

    def choice():
        all_reduce(a) if rank == 0 else all_reduce(b)
        match rank:
            case 0:
                all_reduce(a)
            case _:
                all_reduce(b)
        try:
            all_reduce(a)
        except ValueError:
            all_reduce(b)

    def nested():
        helper(a)
        helper(b)
""")


@pytest.fixture(autouse=True)
def source():
    linecache.cache["program.py"] = (len(SOURCE), None, SOURCE.splitlines(keepends=True), "program.py")
    yield
    del linecache.cache["program.py"]


def stack(*lines, function="program"):
    return tuple(("program.py", line, function) for line in lines)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (stack(3), stack(4), True),
        (stack(6), stack(7), True),
        (stack(3), stack(6), False),  # the branches of an if
        (stack(12, function="turns"), stack(14, function="turns"), False),
        (stack(17, function="choice"), stack(17, function="choice"), False),  # one line
        (stack(20, function="choice"), stack(22, function="choice"), False),  # the cases of a match
        (stack(24, function="choice"), stack(26, function="choice"), False),  # try and except
        (
            (*stack(29, function="nested"), ("h.py", 1, "helper")),
            (*stack(30, function="nested"), ("h.py", 1, "helper")),
            True,
        ),
        ((("gone.py", 1, "f"),), (("gone.py", 2, "f"),), True),  # no source: no branch is known of
        (stack(3), stack(12, function="turns"), False),  # different functions, called from one line or from none
    ],
)
def test_lines_that_follow_each_other_are_told_from_alternatives(one, other, expected):
    assert in_sequence(one, other) is expected


def call(operation, group="0", ranks=(0, 1), peer=None, tag=0, agree=None, nbytes=4):
    agree = agree or [operation, ["float32"], 1, "", None]
    return {
        "operation": operation,
        "group": group,
        "ranks": ranks,
        "peer": peer,
        "tag": tag,
        "agree": agree,
        "nbytes": nbytes,
    }


class Ranks:
    """Makes entries as ranks would, one after the other."""

    def __init__(self):
        self.clock, self.numbers = 0.0, {}

    def __call__(self, rank, operation, line=3, ended=0.0, source=None, **fields):
        self.clock += 1
        number = self.numbers[rank] = self.numbers.get(rank, -1) + 1
        return Entry(
            rank,
            number,
            call(operation, **fields),
            Site(operation, operation, stack(line)),
            self.clock,
            ended=ended,
            source=source,
        )


def test_a_mismatch_is_seen_when_two_of_many_ranks_have_called():
    ranks, matcher = Ranks(), Matcher()
    assert matcher.add([ranks(0, "all_reduce", ranks=(0, 1, 2))]) is None
    mismatch = matcher.add([ranks(2, "broadcast", ranks=(0, 1, 2))])
    assert mismatch.kind == "operation" and mismatch.number == 0


@pytest.mark.parametrize("place, kind", [(1, "dtype"), (2, "size"), (3, "reduction"), (4, "root")])
def test_what_collectives_must_agree_on(place, kind):
    ranks, matcher = Ranks(), Matcher()
    same, other = ["all_reduce", ["float32"], 8, "sum", 0], ["all_reduce", ["float32"], 8, "sum", 0]
    other[place] = "another"
    assert matcher.add([ranks(0, "all_reduce", agree=same), ranks(1, "all_reduce", agree=same)]) is None
    mismatch = matcher.add([ranks(0, "all_reduce", agree=same), ranks(1, "all_reduce", agree=other)])
    assert mismatch.kind == kind and mismatch.number == 1


def test_the_earliest_of_several_mismatches_is_the_one_reported():
    ranks, matcher = Ranks(), Matcher()
    entries = [ranks(rank, op, ranks=(0, 1)) for op in ("all_reduce", "barrier") for rank in (0,)]
    entries += [ranks(1, "broadcast"), ranks(1, "gather")]
    assert matcher.add(entries).number == 0


def test_calls_in_the_opposite_order_are_found_by_the_text_of_their_lines():
    ranks, matcher = Ranks(), Matcher()
    rows = [ranks(0, "all_reduce", line=3), ranks(0, "all_reduce", line=4)]
    rows += [ranks(1, "all_reduce", line=6), ranks(1, "all_reduce", line=7)]
    assert matcher.add(rows).kind == "order"


def test_taking_turns_is_not_the_opposite_order():
    ranks, matcher = Ranks(), Matcher()
    rows = [ranks(0, "all_reduce", line=12), ranks(0, "all_reduce", line=14)]
    rows += [ranks(1, "all_reduce", line=14), ranks(1, "all_reduce", line=12)]
    assert matcher.add(rows) is None


def test_what_a_waiting_operation_lacks():
    ranks, matcher = Ranks(), Matcher()
    waiting = ranks(0, "all_reduce", ranks=(0, 1, 2))
    matcher.add([waiting, ranks(2, "all_reduce", ranks=(0, 1, 2))])
    assert matcher.missing(waiting) == (1,) and matcher.number_of(waiting) == 0
    matcher.add([ranks(1, "all_reduce", ranks=(0, 1, 2))])
    assert matcher.missing(waiting) == () and waiting.matched


def test_messages_match_by_pair_and_tag():
    ranks, matcher = Ranks(), Matcher()
    sent, received = ranks(0, "send", peer=1, tag=1), ranks(1, "recv", peer=0, tag=2)
    matcher.add([sent, received])
    assert matcher.missing(sent) == (1,) and matcher.missing(received) == (0,)
    matcher.add([ranks(1, "recv", peer=0, tag=1)])
    assert matcher.missing(sent) == ()


def test_a_receive_from_any_may_take_a_message_from_anybody():
    ranks, matcher = Ranks(), Matcher()
    receive = ranks(0, "recv", ranks=(0, 1, 2))
    matcher.add([receive])
    assert matcher.missing(receive) == (1, 2)
    sent = ranks(2, "send", peer=0, ranks=(0, 1, 2))
    matcher.add([sent])
    assert matcher.missing(receive) == () and matcher.missing(sent) == ()


def test_a_message_that_a_receive_from_any_has_taken_lacks_nobody():
    ranks, matcher = Ranks(), Matcher()
    three = {"ranks": (0, 1, 2)}
    taken = [ranks(0, "recv", ended=9.0, source=source, **three) for source in (1, 2, 1)]
    sent = [ranks(sender, "send", peer=0, **three) for sender in (1, 2)]
    matcher.add([*taken, *sent])  # the receiver's calls come before those of any sender
    assert all(entry.matched for entry in sent)
    late = ranks(1, "send", peer=0, **three)  # its receive was read first
    matcher.add([late])
    assert late.matched and matcher.missing(late) == ()
    again = ranks(1, "send", peer=0, **three)
    matcher.add([again])
    assert matcher.missing(again) == (0,)


def test_a_message_is_not_given_to_a_receive_while_an_earlier_one_from_any_may_take_it():
    ranks, matcher = Ranks(), Matcher()
    small, large = (["", ["float32"], size, "", None] for size in (1, 9))
    from_any, named = ranks(0, "recv", agree=small), ranks(0, "recv", peer=1, agree=large)
    assert matcher.add([from_any, named]) is None
    assert matcher.missing(named) == (1,)
    assert matcher.add([ranks(1, "send", peer=0, agree=small), ranks(1, "send", peer=0, agree=large)]) is None
    assert matcher.missing(named) == ()
    from_any.ended, from_any.source = 9.0, 1
    assert matcher.add([]) is None
    assert named.matched


@pytest.mark.parametrize(
    ("needs", "cycle"),
    [
        ({0: (1,), 1: (0,)}, (0, 1)),
        ({0: (1,), 1: (2,), 2: (0,), 3: (0,)}, (0, 1, 2)),
        ({0: (1, 2), 1: (9,), 2: (0,)}, (0, 2)),
        ({0: (1,), 1: (9,)}, ()),
        ({3: (3,)}, (3,)),
        ({0: (1, 2, 3), 1: (2,), 2: (3,), 3: (1,)}, (1, 2, 3)),
    ],
)
def test_the_shortest_circle_is_found(needs, cycle):
    assert _cycle(needs) == cycle
