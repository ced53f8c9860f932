"""run.trace holds every operation that a learner can call, and what PyTorch's own parallel modules issue."""

import time

import pytest
import torch
import torch.distributed as dist

from course_lib import launch, span


def of_rank(run, rank=0):
    return [event for event in run.trace.events if event.rank == rank and event.kind != "span"]


def every_collective():
    n, rank = dist.get_world_size(), dist.get_rank()
    x, many = torch.ones(n), [torch.ones(n) for _ in range(n)]
    first, last = rank == 0, None
    dist.all_reduce(x)
    dist.broadcast(x, 0)
    dist.reduce(x, 0, op=dist.ReduceOp.MAX)
    dist.all_gather(many, x)
    dist.all_gather_single(torch.ones(n * n), x)
    dist.reduce_scatter(torch.ones(n), many)
    dist.reduce_scatter_single(torch.ones(1), x)
    dist.gather(x, many if first else None, 0)
    dist.scatter(x, many if first else None, 0)
    dist.all_to_all(many, [torch.ones(n) for _ in range(n)])
    dist.all_to_all_single(x, torch.ones(n))
    dist.barrier()
    dist.monitored_barrier()
    dist.all_gather_object([None] * n, "text")
    dist.broadcast_object_list(["text"], 0)
    dist.gather_object("text", [None] * n if first else None, 0)
    dist.scatter_object_list([last], ["text"] * n if first else None, 0)


EVERY = [
    ("all_reduce", 12, "sum"),
    ("broadcast", 12, "root 0"),
    ("reduce", 12, "max, root 0"),
    ("all_gather", 12, ""),
    ("all_gather_single", 12, ""),
    ("reduce_scatter", 36, "sum"),
    ("reduce_scatter_single", 12, "sum"),
    ("gather", 12, "root 0"),
    ("scatter", 12, "root 0"),
    ("all_to_all", 36, ""),
    ("all_to_all_single", 12, ""),
    ("barrier", 0, ""),
    ("monitored_barrier", 0, ""),
]


def test_every_collective_is_recorded_as_it_was_called():
    run = launch(every_collective, 3)
    for rank in range(3):
        events = of_rank(run, rank)
        assert [(e.operation, e.nbytes, e.detail) for e in events[: len(EVERY)]] == EVERY
        assert [e.operation for e in events[len(EVERY) :]] == [
            *["all_gather_object"] * 2,
            *["broadcast_object_list"] * 2,
            *["gather_object"] * 2,
            *["scatter_object_list"] * 3,
        ]
        assert all(e.complete and e.end_s >= e.start_s and e.group == "world" for e in events)
        assert all("test_recording.py, line" in e.line and "dist." in e.source for e in events)
        assert {e.ranks for e in events} == {(0, 1, 2)}


def messages():
    n, rank = dist.get_world_size(), dist.get_rank()
    right, left, x, y = (rank + 1) % n, (rank - 1) % n, torch.ones(2), torch.ones(2)
    handle = dist.isend(x, right, tag=3)
    dist.recv(y, left, tag=3)
    handle.wait()
    for work in dist.batch_isend_irecv([dist.P2POp(dist.isend, x, right), dist.P2POp(dist.irecv, y, left)]):
        work.wait()
    if rank == 0:
        for _ in range(n - 1):
            dist.recv(y)  # from any rank
    else:
        dist.send(x, 0)


def test_messages_are_recorded_with_their_peers_and_bytes():
    run = launch(messages, 3)
    found = [(e.operation, e.peers, e.nbytes, e.sent_bytes, e.detail) for e in of_rank(run, 1)]
    assert found == [
        ("isend", (2,), 8, 8, "tag 3"),
        ("recv", (0,), 8, 0, "tag 3"),
        ("isend", (2,), 8, 8, ""),
        ("irecv", (0,), 8, 0, ""),
        ("send", (0,), 8, 8, ""),
    ]
    from_any = [e.peers for e in of_rank(run, 0) if e.operation == "recv"][1:]
    assert sorted(from_any) == [(1,), (2,)]
    assert all(e.complete for e in run.trace.events)


def test_asynchronous_operations_end_before_they_are_waited_for():
    def fn():
        handle = dist.all_reduce(torch.ones(1000), async_op=True)
        time.sleep(0.2)
        handle.wait()

    for rank in (0, 1):
        (event,) = of_rank(launch(fn, 2), rank)
        ((begin, end),) = event.waits
        assert event.async_op and event.complete
        assert event.end_s < begin and begin - event.start_s > 0.19 and end - begin < 0.1


def test_a_handle_can_also_be_asked_whether_it_is_done():
    def fn():
        handle = dist.all_reduce(torch.ones(10), async_op=True)
        while not handle.is_completed():
            time.sleep(0.001)

    assert of_rank(launch(fn, 2))[0].complete


def test_a_group_has_its_members_and_ranks_outside_record_nothing():
    def fn():
        group = dist.new_group([0, 2])
        if dist.get_rank() != 1:
            dist.broadcast(torch.ones(1), src=2, group=group)

    run = launch(fn, 3)
    made, used = of_rank(run, 2)
    assert (made.operation, made.ranks) == ("new_group", (0, 2))
    assert (used.operation, used.ranks, used.peers, used.detail) == ("broadcast", (0, 2), (2,), "root 2")
    assert used.group != "world" and of_rank(run, 1) == []


def test_spans_are_recorded_nested_and_labelled():
    def fn():
        for microbatch in range(2):
            with span("step", microbatch=microbatch), span("forward"):
                time.sleep(0.01)

    spans = [event for event in launch(fn, 2).trace.events if event.rank == 1]
    assert [(e.kind, e.operation, e.labels) for e in spans] == [
        ("span", "step", (("microbatch", 0),)),
        ("span", "forward", ()),
        ("span", "step", (("microbatch", 1),)),
        ("span", "forward", ()),
    ]
    assert all(e.complete and e.end_s - e.start_s >= 0.01 for e in spans)
    assert spans[0].end_s >= spans[1].end_s


def test_a_span_outside_launch_does_nothing():
    with span("alone", number=1):
        pass


def test_all_times_are_on_one_clock():
    def fn():
        for _ in range(20):
            dist.barrier()

    trace = launch(fn, 4).trace
    rounds = [[e for e in trace.events if e.number == number] for number in range(20)]
    for events in rounds:  # nobody leaves a barrier before the last has come
        assert min(e.end_s for e in events) >= max(e.start_s for e in events) - 1e-4
    assert all(0 <= e.start_s <= e.end_s <= trace.seconds for e in trace.events)


def test_more_operations_than_the_ring_holds_are_all_there():
    def fn():
        for number in range(10_000):
            with span("s", even=number % 2):
                pass
        dist.barrier()

    trace = launch(fn, 1).trace
    assert len(trace.events) + trace.dropped == 10_001
    assert trace.events[-1].operation == "barrier"


def with_ddp():
    from torch.nn.parallel import DistributedDataParallel

    model = DistributedDataParallel(torch.nn.Linear(10, 10))
    model(torch.ones(4, 10)).sum().backward()


def with_fsdp():
    from torch.distributed.fsdp import fully_shard

    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
    for layer in model:
        fully_shard(layer)
    fully_shard(model)
    model(torch.ones(2, 8)).sum().backward()


def with_dtensor():
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    tensor = distribute_tensor(torch.ones(8, 8), mesh, [Shard(0)])
    tensor.redistribute(mesh, [Replicate()]).to_local()


def with_pipelining():
    from torch.distributed.pipelining import PipelineStage, ScheduleGPipe

    rank = dist.get_rank()
    stage = PipelineStage(torch.nn.Linear(4, 4), rank, dist.get_world_size(), torch.device("cpu"))
    schedule = ScheduleGPipe(stage, n_microbatches=2, loss_fn=torch.nn.functional.mse_loss)
    schedule.step(*([torch.ones(4, 4)] if rank == 0 else []), **({} if rank == 0 else {"target": torch.ones(4, 4)}))


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (with_ddp, {"all_reduce", "broadcast", "all_gather"}),
        (with_fsdp, {"all_gather_single", "reduce_scatter_single"}),
        (with_dtensor, {"scatter", "all_gather"}),
        (with_pipelining, {"isend", "irecv"}),
    ],
    ids=["DDP", "FSDP2", "DTensor", "pipelining"],
)
def test_what_pytorch_itself_issues_is_recorded(fn, expected):
    run = launch(fn, 2)
    events = of_rank(run) + of_rank(run, 1)
    assert expected <= {event.operation for event in events}
    assert all("test_recording.py" in event.line for event in events)
    # What C++ issues is noted as done by a callback, which may come after the rank has returned.
    assert fn is with_ddp or all(event.complete for event in events)
    if fn is with_ddp:
        gradients = [e for e in events if e.operation == "all_reduce" and ".backward()" in e.source]
        assert [e.nbytes for e in gradients] == [440, 440]
