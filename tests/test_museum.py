"""The museum of faults: the healthy job is one process, and every exhibit shows its symptom; the tools that find it."""

import math
from functools import cache

import pytest
import torch

from course_lib import RankError, launch
from course_lib.faults.diagnosis import Call, copies, difference, operations
from course_lib.faults.museum import FAULTS, PIPELINE, SHAPES, SPLIT, TENSOR, train
from course_lib.layout import Layout

COPIES = "no broadcast", "no all-reduce", "one forgotten", "step too early", "other order"  # differ along dp
SLICES = "norms drift", "clips alone"  # differ along tp
SAME_CALLS = ("sum for mean", "step too early", "same rows", "not divided", "other order", "bias twice", "no broadcast")
MISSING = {  # in a step, on each rank
    "no all-reduce": 5, "one forgotten": 1, "mean of means": 1, "norms drift": 1, "no backward reduce": 3, "clips alone": 1, "untied": 1,
}  # fmt: skip
QUIET = [name for name, fault in FAULTS.items() if not fault.stops]


@cache
def shown(fault, layout=TENSOR, max_norm=None):
    return launch(train, layout.world_size, layout, fault, 0, 3, max_norm)


def pair(name):
    """An exhibit, and the same job without its fault."""
    fault = FAULTS[name]
    return shown(name, fault.layout), shown("", fault.layout, fault.max_norm)


def last_step(run):
    return run.trace.during("step", last=1)


def letters(run, when="weights"):
    return copies(rank[when] for rank in run).letters


@pytest.mark.parametrize(
    ("layout", "max_norm"),
    [(TENSOR, None), (TENSOR, 0.05), (PIPELINE, None), (PIPELINE, 0.05), (Layout(dp=3), None), (Layout(tp=2), 0.05)],
    ids=str,
)
def test_the_healthy_job_is_one_process(layout, max_norm):
    run = launch(train, layout.world_size, layout, "", 7, 4, max_norm)
    one = launch(train, 1, Layout(), "", 7, 4 * layout.dp, max_norm)[0]  # as many rows
    for rank, found in enumerate(run):
        for name, w in found["weights"].items():
            whole = one["weights"][name]
            if name in SPLIT:
                whole = whole.chunk(layout.tp, SPLIT[name])[layout.coordinates(rank).tp]
            assert (w - whole).abs().max() < 1e-12
        assert all(math.isclose(a, b, rel_tol=1e-12) for a, b in zip(found["norms"], one["norms"], strict=True))
    assert (one["first"]["wte"] - one["weights"]["wte"]).abs().max() > 1e-3


def test_every_tensor_is_held_and_every_quiet_fault_has_its_symptom_here():
    named = {*COPIES, *SLICES, *SAME_CALLS, *MISSING}
    assert named == set(QUIET) and len(FAULTS) >= 12
    assert set(letters(shown("", PIPELINE))) == set(SHAPES)
    assert all(fault.found.startswith("https://github.com/") for fault in FAULTS.values())


@pytest.mark.parametrize("name", QUIET)
def test_ranks_that_should_hold_the_same_do_so_exactly_where_the_fault_lets_them(name):
    run, healthy = pair(name)
    differ = {tensor for tensor, row in letters(run).items() if row != letters(healthy)[tensor]}
    expected = {
        "no broadcast": set(SHAPES),
        "no all-reduce": set(SHAPES),
        "step too early": set(SHAPES),
        "one forgotten": {"wte"},
        "other order": {"norm", "bias"},
        "norms drift": {"norm"},
        "clips alone": {"wte", "norm", "bias"},
        "untied": {"wte"},
    }
    assert differ == expected.get(name, set())
    if name in COPIES:
        assert min(letters(run)[tensor] for tensor in differ) in ("aabb", "abcd")
    if name in SLICES:
        assert letters(run)["norm"] == "abab"


@pytest.mark.parametrize("name", QUIET)
def test_calls_are_missing_exactly_where_the_fault_leaves_them_out(name):
    run, healthy = pair(name)
    found = difference(last_step(run), last_step(healthy))
    missing = [sum(calls.values()) for calls in found.missing]
    assert missing == [MISSING.get(name, 0)] * 4
    assert not any(found.extra)
    assert bool(found) == (name in MISSING)


@pytest.mark.parametrize("name", QUIET)
def test_every_quiet_fault_trains_another_model(name):
    run, healthy = pair(name)
    away = max((a["weights"][k] - w).abs().max() for a, b in zip(run, healthy) for k, w in b["weights"].items())
    assert away > 1e-5
    assert all(math.isfinite(x) for rank in run for x in rank["losses"] + rank["norms"])


def test_the_scale_of_the_gradient_tells_a_sum_over_copies_from_one_over_micro_batches():
    ratios = {}
    for name in QUIET:
        run, healthy = pair(name)
        ratios[name] = run[0]["norms"][0] / healthy[0]["norms"][0]
    assert math.isclose(ratios["sum for mean"], 2, rel_tol=1e-9)
    assert math.isclose(ratios["not divided"], 3, rel_tol=1e-9)
    others = {name: ratio for name, ratio in ratios.items() if name not in ("sum for mean", "not divided")}
    assert not any(abs(ratio - n) < 1e-3 for ratio in others.values() for n in (2, 3))


def test_what_is_particular_to_an_exhibit():
    losses = {name: [rank["losses"] for rank in shown(name)] for name in ("", "same rows", "bias twice")}
    assert losses["same rows"][0] == losses["same rows"][2] and losses[""][0] != losses[""][2]
    assert losses["bias twice"][0][0] != losses[""][0][0]
    assert letters(shown("no broadcast"), "first")["norm"] == "abcd"
    assert letters(shown("no all-reduce"), "first")["norm"] == "aaaa"


@pytest.mark.parametrize("name", [name for name, fault in FAULTS.items() if fault.stops])
def test_a_fault_that_stops_the_ranks_is_explained(name):
    words = {"swapped": "RankMismatch", "rank 0 only": "RankDeadlock|RankMismatch", "one step more": "returned while"}
    with pytest.raises(RankError) as caught:
        launch(train, 4, FAULTS[name].layout, name, timeout_s=30)
    assert any(w in f"{type(caught.value).__name__} {caught.value}" for w in words[name].split("|"))


def test_an_unknown_fault_is_refused():
    with pytest.raises(KeyError):
        train(TENSOR, "no such")


def test_copies_gives_equal_ranks_equal_letters():
    x, nan = torch.arange(3.0), torch.tensor([math.nan, 1])
    found = copies([{"x": x, "n": nan}, {"x": x + 0.5, "n": nan}, {"n": nan}, {"x": x.clone(), "n": nan}, {"x": x[:2]}])
    assert found.letters == {"x": "ab·ac", "n": "aaaa·"}
    assert found.apart["x"] == 0.5 and found.apart["n"] == 0
    assert math.isnan(copies([{"x": x}, {"x": x * math.nan}]).apart["x"])
    assert repr(found).splitlines() == [
        "rank   0  1  2  3  4   furthest apart",
        "x      a  b  ·  a  c   5.0e-01",
        "n      a  a  a  a  ·   0",
    ]
    assert repr(copies([])) == "rank     furthest apart"


def test_operations_are_counted_by_name_group_and_bytes():
    import torch.distributed as dist

    def talk():
        x = torch.zeros(4)
        dist.all_reduce(x)
        dist.all_reduce(x)
        dist.send(x, 1) if dist.get_rank() == 0 else dist.recv(x, 0)

    trace = launch(talk, 2).trace
    assert operations(trace, 1) == {Call("all_reduce", (0, 1), 16): 2, Call("recv", (1, 0), 16): 1}
    assert str(Call("all_reduce", (0, 1), 1600)) == "all_reduce among ranks 0, 1, 1,600 bytes"
    assert repr(difference(trace, trace)) == "the same calls, equally often, with as many bytes"
    with pytest.raises(ValueError, match="2 ranks, the other 4"):
        difference(trace, shown("").trace)
    less = difference(trace.of(kind="collective"), trace)
    assert repr(less).splitlines() == [
        "missing 1 × send among ranks 0, 1, 16 bytes, on ranks [0]",
        "missing 1 × recv among ranks 1, 0, 16 bytes, on ranks [1]",
    ]
