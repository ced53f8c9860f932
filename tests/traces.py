"""Traces made by hand for tests and pictures: a data-parallel step, and messages around a ring."""

from course_lib.trace import Event, Trace


def data_parallel(world_size=4, steps=3, buckets=4, seed=0, begin_s=0.1):
    """Forward, backward with one asynchronous all-reduce a bucket, their wait(), the optimizer's step and a blocking loss."""
    events, at, world = [], [begin_s] * world_size, tuple(range(world_size))
    number = [0] * world_size
    noise = _noise(seed)

    def add(rank, kind, operation, start, end, **more):
        if kind != "span":
            more = {"ranks": world, "shape": "25,000 × float32", "nbytes": 100_000, "detail": "sum"} | more
        events.append(Event(rank, kind, operation, start, end, number=number[rank], **more))
        number[rank] += 1

    for step in range(steps):
        begins = list(at)
        forward = [begin + 0.004 * (1 + 0.3 * noise()) for begin in begins]
        backward = [start + 0.008 * (1 + 0.3 * noise()) for start in forward]
        ready = [[f + (b - f) * (k + 1) / buckets for f, b in zip(forward, backward)] for k in range(buckets)]
        over = [max(times) + 0.002 for times in ready]
        for rank in world:
            add(rank, "span", "step", begins[rank], max(over[-1], backward[rank]) + 0.0015, labels=(("step", step),))
            add(rank, "span", "forward", begins[rank], forward[rank])
            add(rank, "span", "backward", forward[rank], backward[rank])
            done = backward[rank]
            for k in range(buckets):
                waits = ((done, over[k]),) if over[k] > done else ()
                done = max(done, over[k])
                line = {
                    "line": f"In[3], line {10 + k}",
                    "source": f"work.append(dist.all_reduce(bucket[{k}], async_op=True))",
                }
                add(rank, "collective", "all_reduce", ready[k][rank], over[k], waits=waits, async_op=True, **line)
            add(rank, "span", "optimizer", done, done + 0.0015)
            at[rank] = done + 0.0015
        meet = max(at) + 0.0004
        for rank in world:
            line = {"line": "In[3], line 19", "source": "dist.all_reduce(loss)"}
            small = {"shape": "1 × float32", "nbytes": 4}
            add(rank, "collective", "all_reduce", at[rank], meet, waits=((at[rank], meet),), **small, **line)
            at[rank] = meet
    return trace_of(world_size, events, max(at) + 0.02)


def ring(world_size=4, rounds=1, nbytes=1000, begin_s=0.0, seed=1):
    """Every rank sends to the next and receives from the one before, 2(n-1) times a round, with pauses of compute."""
    events, noise = [], _noise(seed)
    at, number = [begin_s] * world_size, [0] * world_size
    world = tuple(range(world_size))
    for _ in range(rounds * 2 * (world_size - 1)):
        starts = [time + 0.0002 * (1 + noise()) for time in at]
        for rank in world:
            left, right = (rank - 1) % world_size, (rank + 1) % world_size
            arrives = max(starts[left], starts[rank]) + 0.0003
            common = {"ranks": world, "nbytes": nbytes, "shape": f"{nbytes // 4} × float32", "async_op": True}
            send = {
                "peers": (right,),
                "sent_bytes": nbytes,
                "line": "In[5], line 7",
                "source": "dist.isend(chunk, right)",
            }
            recv = {"peers": (left,), "sent_bytes": 0, "line": "In[5], line 6", "source": "dist.irecv(chunk, left)"}
            recv["waits"] = ((starts[rank] + 2e-5, arrives),)
            for name, more in (("irecv", recv), ("isend", send)):
                start = starts[rank] + 1e-5 * (name == "isend")
                end = arrives if name == "irecv" else starts[rank] + 1e-4
                events.append(Event(rank, "message", name, start, end, number=number[rank], **common, **more))
                number[rank] += 1
            at[rank] = arrives
    return trace_of(world_size, events, max(at) + 0.001)


def trace_of(world_size, events, seconds, **more):
    """A trace with its events in order."""
    ordered = sorted(events, key=lambda event: (event.start_s, event.rank, event.number))
    return Trace(world_size, seconds, tuple(ordered), **more)


def _noise(seed):
    """A function that gives numbers in 0 to 1, the same ones in every run."""
    state = seed

    def draw():
        nonlocal state
        state = (state * 1103515245 + 12345) % 2**31
        return state / 2**31

    return draw
