"""The machine's roofline: the arithmetic of operations, and the timing, with a clock of our own wherever time is compared."""

import itertools
import random
import time
from functools import partial

import pytest
import torch

from course_lib.cost import machine
from course_lib.cost.machine import Operation, measure_roofline, predicted_and_measured, time_in_turns, time_operation

SMALL = {
    "matmul": (machine.matmul(3, 5, 7), 2 * 3 * 5 * 7, 4 * (15 + 35 + 21)),
    "linear": (machine.linear(2, 8, 16), 2 * 2 * 8 * 16, 4 * (16 + 128 + 32)),
    "add": (machine.add(100), 100, 1200),
    "copy": (machine.copy(100), 0, 800),
    "relu": (machine.relu(100), 100, 800),
    "sum": (machine.total(100), 100, 400),
    "dot": (machine.dot(100), 200, 800),
}


class Clock:
    """A clock that goes on only when an operation of ours says so."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def lasts(self, *seconds):
        """A function whose calls last so long, one after the other, over and over."""
        durations = itertools.cycle(seconds)

        def fn():
            self.now += next(durations)

        return fn


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(machine, "perf_counter", clock)
    return clock


@pytest.mark.parametrize("name", SMALL)
def test_an_operation_counts_its_flops_and_bytes(name):
    operation, flops, nbytes = SMALL[name]
    assert (operation.flops, operation.nbytes) == (flops, nbytes)
    assert operation.intensity == flops / nbytes
    assert operation.name.startswith(name)


@pytest.mark.parametrize("name", SMALL)
def test_an_operation_runs_and_allocates_no_result(name):
    run = SMALL[name][0].build()
    first, second = run(), run()
    assert first.numel() == 1 or first.data_ptr() == second.data_ptr()


def test_operations_compute_what_they_are_called(monkeypatch):
    x, w = torch.full((2, 3), 2.0), torch.full((4, 3), 3.0)
    monkeypatch.setattr(torch, "rand", lambda *shape: {(2, 3): x, (4, 3): w, (3, 4): w.T}[shape])
    assert torch.equal(machine.linear(2, 3, 4).build()(), x @ w.T)
    assert torch.equal(machine.matmul(2, 3, 4).build()(), x @ w.T)
    assert torch.equal(machine.add(5).build()(), torch.full((5,), 2.0))
    assert torch.equal(machine.copy(5).build()(), torch.ones(5))
    assert torch.equal(machine.relu(5).build()(), torch.ones(5))
    assert machine.total(5).build()() == machine.dot(5).build()() == 5


def test_nothing_is_allocated_before_build():
    huge = machine.matmul(10**7, 10**7, 10**7)
    assert huge.flops == 2 * 10**21 and machine.add().nbytes == 12 * machine.LENGTH


def test_operations_of_the_same_cost_and_name_are_equal_and_print_without_their_functions():
    assert machine.add(10) == machine.add(10) != machine.add(11)
    assert repr(machine.add(1000)) == "Operation(name='add 1,000', flops=1000, nbytes=12000)"


def test_a_disturbance_of_eight_calls_in_ten_does_not_show(clock):
    calls = [0.1, 0.1, *(0.2 + n / 100 for n in range(8))]
    random.Random(0).shuffle(calls)
    assert time_operation(clock.lasts(5.0, *calls * 10), seconds=20) == pytest.approx(0.1)


def test_a_single_lucky_call_does_not_show(clock):
    assert time_operation(clock.lasts(1, *[0.1] * 50, 0.001, *[0.1] * 50), seconds=9) == pytest.approx(0.1)


def test_the_first_call_is_not_counted(clock):
    durations = iter([100.0, 1.0, 2.0, 3.0, 4.0])
    assert time_operation(lambda: clock.lasts(next(durations))(), seconds=0.5) == 1.0
    assert clock.now == 100 + 1 + 2 + 3  # and there are at least three others


def test_functions_are_called_in_turns_and_their_times_come_in_the_order_given(clock):
    order = []

    def fn(name, seconds):
        def call():
            order.append(name)
            clock.lasts(seconds)()

        return call

    assert time_in_turns(fn("a", 3), fn("b", 1), fn("c", 2), seconds=24) == [3, 1, 2]
    assert "".join(order) == "abc" * 5  # one turn is not counted, and four take the time


def test_a_sleep_takes_as_long_as_it_says():
    assert 0.02 <= time_operation(lambda: time.sleep(0.02), seconds=0.2) < 0.1


def test_the_roofline_is_the_rate_of_a_product_and_of_an_add(clock, monkeypatch):
    product = Operation("product", 600, 1, lambda: clock.lasts(2.0))
    vector = Operation("vector", 1, 900, lambda: clock.lasts(3.0))
    monkeypatch.setattr(machine, "matmul", lambda *sizes: product)
    monkeypatch.setattr(machine, "add", lambda: vector)
    roofline = measure_roofline(seconds=100)
    assert (roofline.flops_per_s, roofline.bytes_per_s) == (300, 300)
    assert clock.now < 110  # the time it was given, and at most one more turn


def test_a_slow_second_hits_both_rates_alike(clock, monkeypatch):
    def lasts(seconds):  # three times as long in the second half of the time
        return lambda: clock.lasts(seconds if clock.now < 50 else 3 * seconds)()

    monkeypatch.setattr(machine, "matmul", lambda *sizes: Operation("product", 1000, 1, lambda: lasts(1.0)))
    monkeypatch.setattr(machine, "add", lambda: Operation("vector", 1, 500, lambda: lasts(0.5)))
    roofline = measure_roofline(seconds=100)
    assert (roofline.flops_per_s, roofline.bytes_per_s) == (1000, 1000)


def test_an_operation_is_predicted_from_the_roofline_of_the_same_seconds(clock, monkeypatch):
    def lasts(seconds):  # the machine gets slower and slower
        return lambda: clock.lasts(seconds * (1 + clock.now / 100))()

    monkeypatch.setattr(machine, "matmul", lambda *sizes: Operation("product", 1000, 1, lambda: lasts(1.0)))
    monkeypatch.setattr(machine, "add", lambda: Operation("vector", 1, 500, lambda: lasts(0.5)))
    other = Operation("other", 3000, 600, lambda: lasts(2.0))
    for _ in range(2):  # arithmetic: 3 s at the rate of the product, while the operation itself takes 2
        predicted, measured = predicted_and_measured(other, seconds=100)
        assert predicted / measured == pytest.approx(1.5, rel=0.1)
    assert measured > 2.5  # the second time everything was slower, and so was what was predicted


def test_this_machine_has_a_roofline(monkeypatch):
    monkeypatch.setattr(machine.add, "__defaults__", (10**6,))
    threads, roofline = torch.get_num_threads(), measure_roofline(seconds=0.05)
    assert roofline.flops_per_s > 0 and roofline.bytes_per_s > 0
    assert torch.get_num_threads() == threads
    assert machine.add(1000).measure(seconds=0.01) > 0


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "8", None])
@pytest.mark.parametrize("kind", ["add", "copy", "relu", "total", "dot"])
def test_a_length_that_is_none_is_refused(kind, size):
    with pytest.raises(ValueError, match=r"whole numbers from 1 up, not .*: pass"):
        getattr(machine, kind)(size)


@pytest.mark.parametrize("position", range(3))
@pytest.mark.parametrize("kind", ["matmul", "linear"])
def test_a_matrix_size_that_is_none_is_refused(kind, position):
    sizes = [4, 4, 4]
    sizes[position] = 0
    with pytest.raises(ValueError, match=f"{kind} needs sizes that are whole numbers from 1 up, not 0: pass"):
        getattr(machine, kind)(*sizes)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_no_time_is_refused(seconds):
    empty = partial(time_operation, lambda: None), lambda s: time_in_turns(lambda: None, seconds=s)
    for fn in (measure_roofline, machine.add(10).measure, partial(predicted_and_measured, machine.add(10)), *empty):
        with pytest.raises(ValueError, match=r"more than 0 seconds, not .*: 0\.3 is enough"):
            fn(seconds)


def test_what_cannot_be_called_is_refused_with_what_to_pass():
    with pytest.raises(TypeError, match=r"a function is timed, and Operation\(.*\) is none: pass .*\.build\(\)"):
        time_operation(machine.add(10))
