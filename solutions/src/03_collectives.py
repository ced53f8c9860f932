# %% [markdown]
# # Exercise 03 · Collectives
#
# You build two collectives from messages, free a program that is stuck, and work out which algorithm is faster. Ten minutes each.
# Replace every `raise NotImplementedError(...)`, run the cell, then the check below it.
#
# A check looks at the result *and* at what it cost: messages and bytes are counted in the trace of your own run. (The checks are
# folded; click the dots to read one.) In tasks 3.1 to 3.3
# use `dist.send`, `dist.recv`, `dist.isend` and `dist.irecv` only, none of PyTorch's own collectives.
# To have the whole notebook graded: `course check exercises/03_collectives.ipynb`

# %%
import numpy as np
import torch
import torch.distributed as dist

from course_lib import RankDeadlock, launch
from course_lib.grading import check, seed

# %% [markdown]
# What the checks use. Every rank draws numbers of its own, which no other rank has; and three functions count what a run has sent.


# %% id="support-counts" jupyter={"source_hidden": true}
def numbers(secret, length):
    """Numbers that only this rank has, float64."""
    return numbers_of(dist.get_rank(), secret, length)


def numbers_of(rank, secret, length):
    generator = torch.Generator().manual_seed(1000 * secret + rank)
    return torch.randn(length, dtype=torch.float64, generator=generator)


def all_numbers(n, length):
    """The numbers of all of n ranks."""
    return [numbers_of(rank, seed(), length) for rank in range(n)]


def messages_of(run):
    """How many messages each rank sent."""
    return [run.trace.messages(rank) for rank in range(run.world_size)]


def bytes_of(run):
    """How many bytes each rank sent in messages."""
    return [run.trace.sent_bytes(rank) for rank in range(run.world_size)]


def collectives_of(run):
    """How many calls of PyTorch's own collectives there were, on all ranks together."""
    return len(run.trace.of(kind="collective").events)


ONLY_MESSAGES = (
    "here only send, recv, isend and irecv count: build the collective from those"
)

# %% [markdown]
# ## 3.1 Ring all-gather
#
# Every rank hands in a tensor `mine`, all of the same shape. Return the list of all ranks' tensors in the order of the ranks, the
# same on every rank. Each rank sends to its right neighbour, rank + 1, only: $n-1$ messages, each as large as `mine`. Leave `mine`
# as it is. One rank alone sends nothing.


# %% id="answer-3-1"
def ring_all_gather(mine):
    """The tensors of all ranks, as a list: entry r is rank r's."""
    ### BEGIN SOLUTION 3.1: pass on what came in last
    ### HINT in step s, pass on the tensor of rank - s; whose tensor arrives meanwhile?
    ### HINT all send at the same time: isend first, then receive, then wait for the isend
    rank, n = dist.get_rank(), dist.get_world_size()
    gathered = [torch.empty_like(mine) for _ in range(n)]
    gathered[rank].copy_(mine)
    for step in range(n - 1):
        sending = dist.isend(gathered[(rank - step) % n], dst=(rank + 1) % n)
        dist.recv(gathered[(rank - step - 1) % n], src=(rank - 1) % n)
        sending.wait()
    return gathered
    ### END SOLUTION


# %% id="support-3-1" jupyter={"source_hidden": true}
def gather_mine(answer, secret, length):
    """On a rank: the answer for its numbers, and those numbers afterwards."""
    mine = numbers(secret, length)
    return answer(mine), mine


def receivers_of(run):
    """To which ranks each rank sent."""
    sends = [event for event in run.trace.events if event.is_send]
    return [
        sorted({to for e in sends if e.rank == rank for to in e.peers})
        for rank in range(run.world_size)
    ]


# %% id="check-3-1" jupyter={"source_hidden": true}
with check("3.1") as c:
    sizes = {f"{n} ranks": (n, 3 + seed() % 4 + n) for n in (2, 5)}
    runs = {
        name: launch(gather_mine, n, ring_all_gather, seed(), length, timeout_s=20)
        for name, (n, length) in sizes.items()
    }
    c.equal(
        "list",
        {name: [list(gathered) for gathered, _ in run] for name, run in runs.items()},
        lambda: {name: [all_numbers(*size)] * size[0] for name, size in sizes.items()},
        hint="in step s send the tensor of rank - s, receive that of rank - s - 1, all modulo n",
    )
    c.equal(
        "mine afterwards",
        {name: [mine for _, mine in run] for name, run in runs.items()},
        lambda: {name: all_numbers(*size) for name, size in sizes.items()},
        hint="leave mine as it is: copy it into the list before anything is received",
    )
    c.equal(
        "calls of PyTorch's own collectives",
        {name: collectives_of(run) for name, run in runs.items()},
        lambda: dict.fromkeys(sizes, 0),
        hint=ONLY_MESSAGES,
    )
    c.equal(
        "messages sent",
        {name: messages_of(run) for name, run in runs.items()},
        lambda: {name: [n - 1] * n for name, (n, _) in sizes.items()},
        hint="n - 1 steps, one message in each",
    )
    c.equal(
        "bytes sent",
        {name: bytes_of(run) for name, run in runs.items()},
        lambda: {name: [(n - 1) * 8 * length] * n for name, (n, length) in sizes.items()},
        hint="each message is one rank's tensor, no more",
    )
    c.equal(
        "sent to",
        {name: receivers_of(run) for name, run in runs.items()},
        lambda: {name: [[(r + 1) % n] for r in range(n)] for name, (n, _) in sizes.items()},
        hint="send to the right neighbour only, (rank + 1) % n",
    )
    alone = launch(gather_mine, 1, ring_all_gather, seed(), 3, timeout_s=20)
    c.equal("one rank alone", list(alone[0][0]), lambda: all_numbers(1, 3))

# %% [markdown]
# ## 3.2 All-reduce with the fewest bytes
#
# Replace `x`, a tensor of one dimension, by the sum over all ranks, in place and on every rank. With $S$ bytes in `x`, all $n$ ranks
# together send no more than $2(n-1)\,S$ bytes, and each rank no more than $2(n-1)$ messages of one chunk. `x` is at least $n$ long, but $n$
# need not divide its length: let chunks differ by one value at most, as those of `x.tensor_split(n)` do.


# %% id="answer-3-2"
def ring_all_reduce(x):
    """Replace x by the sum over the ranks, in place."""
    ### BEGIN SOLUTION 3.2: reduce-scatter, then all-gather
    ### HINT a chunk from tensor_split is a view: what you write into it is written into x
    ### HINT first n - 1 steps in which you add what arrives, then n - 1 in which you keep it
    ### HINT if n does not divide the length, chunks differ: receive into a buffer of the size of the chunk that arrives
    rank, n = dist.get_rank(), dist.get_world_size()
    chunks = x.tensor_split(n)
    for step in range(2 * (n - 1)):
        outgoing = chunks[(rank - 1 - step) % n]
        mine = chunks[(rank - 2 - step) % n]
        incoming = torch.empty_like(mine)
        sending = dist.isend(outgoing, dst=(rank + 1) % n)
        dist.recv(incoming, src=(rank - 1) % n)
        sending.wait()
        if step < n - 1:
            mine += incoming  # the first time round: on its way to being complete
        else:
            mine.copy_(incoming)  # the second time round: complete
    ### END SOLUTION


# %% id="support-3-2" jupyter={"source_hidden": true}
def reduce_mine(answer, secret, length):
    """On a rank: its numbers after the answer has run on them."""
    x = numbers(secret, length)
    answer(x)
    return x


# %% id="check-3-2" jupyter={"source_hidden": true}
with check("3.2") as c:
    lengths = {4: 4 * (2 + seed() % 3), 5: 11 + seed() % 2, 1: 5}
    runs = {
        n: launch(reduce_mine, n, ring_all_reduce, seed(), lengths[n], timeout_s=20)
        for n in lengths
    }
    c.equal(
        "sum",
        {f"{lengths[n]} values on {n} ranks": list(run) for n, run in runs.items()},
        lambda: {
            f"{lengths[n]} values on {n} ranks": [sum(all_numbers(n, lengths[n]))] * n
            for n in lengths
        },
        hint="x itself must hold the sum, on every rank; start with ones and look at it",
    )
    c.equal(
        "calls of PyTorch's own collectives",
        sum(collectives_of(run) for run in runs.values()),
        lambda: 0,
        hint=ONLY_MESSAGES,
    )
    for n in (4, 5):
        c.at_most(
            f"bytes sent by {n} ranks",
            sum(bytes_of(runs[n])),
            lambda n=n: 2 * (n - 1) * 8 * lengths[n],
            hint="right, but too many bytes: send chunks, each n - 1 times to be added up and "
            "n - 1 times to be handed round",
        )
        c.at_most(
            f"bytes sent by one of {n} ranks",
            max(bytes_of(runs[n])),
            lambda n=n: 2 * (n - 1) * 8 * -(-lengths[n] // n),
            hint="right, but one rank sends more than its share: let all send in every step",
        )
        c.at_most(
            f"messages sent by one of {n} ranks",
            max(messages_of(runs[n])),
            lambda n=n: 2 * (n - 1),
            hint="right, but too many messages: one chunk a step, 2(n - 1) steps",
        )

# %% [markdown]
# ## 3.3 Set it free
#
# A long sequence lies on $n$ ranks, a slice on each, and is closed to a circle. To go on, each rank needs the last `k` values of its left
# neighbour and the first `k` of its right one. The function below does that, or would:


# %% id="support-stuck"
def stuck_edges(x, k):
    """The left neighbour's last k values, and the right neighbour's first k."""
    rank, n = dist.get_rank(), dist.get_world_size()
    left, right = (rank - 1) % n, (rank + 1) % n
    from_left, from_right = x.new_empty(k), x.new_empty(k)
    dist.send(x[-k:], right)
    dist.recv(from_left, left)
    dist.send(x[:k], left)
    dist.recv(from_right, right)
    return from_left, from_right


try:
    launch(stuck_edges, 3, torch.arange(9.0), 2)
except RankDeadlock as deadlock:
    print(deadlock)

# %% [markdown]
# Repair it, for any $n$ from 2 up, without any further message. On two ranks the left neighbour is the right one: how do you tell
# its two messages apart?


# %% id="answer-3-3"
def edges(x, k):
    """The left neighbour's last k values, and the right neighbour's first k."""
    ### BEGIN SOLUTION 3.3: the same messages without the deadlock
    ### HINT copy the function above; which calls must not wait for the other side?
    ### HINT between two ranks, messages arrive in the order in which they were sent
    rank, n = dist.get_rank(), dist.get_world_size()
    left, right = (rank - 1) % n, (rank + 1) % n
    from_left, from_right = x.new_empty(k), x.new_empty(k)
    sending = [dist.isend(x[-k:], right), dist.isend(x[:k], left)]
    dist.recv(from_left, left)
    dist.recv(from_right, right)
    for work in sending:
        work.wait()
    return from_left, from_right
    ### END SOLUTION


# %% id="support-3-3" jupyter={"source_hidden": true}
def edges_of_mine(answer, secret, length, k):
    """On a rank: what the answer returns for its slice."""
    return list(answer(numbers(secret, length), k))


def edges_wanted(n, length, k):
    """What every rank must get, worked out from all slices."""
    slices = all_numbers(n, length)
    return [[slices[rank - 1][-k:], slices[(rank + 1) % n][:k]] for rank in range(n)]


# %% id="check-3-3" jupyter={"source_hidden": true}
with check("3.3") as c:
    length, k = 6 + seed() % 5, 1 + seed() % 3
    runs = {
        n: launch(edges_of_mine, n, edges, seed(), length, k, timeout_s=20) for n in (3, 2)
    }
    c.equal(
        "edges on 3 ranks",
        list(runs[3]),
        lambda: edges_wanted(3, length, k),
        hint="first the left neighbour's last k values, then the right neighbour's first k",
    )
    c.equal(
        "edges on 2 ranks",
        list(runs[2]),
        lambda: edges_wanted(2, length, k),
        hint="both messages are from the same rank: receive them in the order in which it sends",
    )
    c.equal(
        "calls of PyTorch's own collectives",
        sum(collectives_of(run) for run in runs.values()),
        lambda: 0,
        hint=ONLY_MESSAGES,
    )
    c.equal(
        "messages sent",
        {f"{n} ranks": messages_of(run) for n, run in runs.items()},
        lambda: {f"{n} ranks": [2] * n for n in runs},
        hint="right, but not with the same messages: one to each neighbour",
    )
    c.equal(
        "bytes sent",
        {f"{n} ranks": bytes_of(run) for n, run in runs.items()},
        lambda: {f"{n} ranks": [2 * 8 * k] * n for n in runs},
        hint="right, but too many bytes: k values to each side, not the whole slice",
    )

# %% [markdown]
# ## 3.4 Which is faster?
#
# `fit` gets the sizes of some messages in bytes and the seconds they took, as numpy arrays, and returns $\alpha$ in seconds and $\beta$ in seconds a byte, such
# that $t = \alpha + \beta S$. (The measurements here lie on a line; yours in the lesson did not quite.) `faster` says which all-reduce of
# `nbytes` bytes on `n` ranks is predicted to end first, `"ring"` or `"doubling"`. $n$ is a power of two.


# %% id="answer-3-4"
def fit(sizes, seconds):
    """alpha in seconds and beta in seconds a byte."""
    ### BEGIN SOLUTION 3.4: two numbers that predict
    ### HINT np.polyfit(x, y, 1) fits a line; which of its two numbers is the slope?
    beta, alpha = np.polyfit(sizes, seconds, 1)
    return alpha, beta
    ### END SOLUTION


def faster(n, nbytes, alpha, beta):
    """The name of the algorithm that is predicted to be faster, "ring" or "doubling"."""
    ### BEGIN SOLUTION 3.4: two numbers that predict
    ### HINT how many steps does each take, and how many bytes go in one step?
    ring = 2 * (n - 1) * (alpha + beta * nbytes / n)
    doubling = np.log2(n) * (alpha + beta * nbytes)
    return "ring" if ring < doubling else "doubling"
    ### END SOLUTION


# %% id="support-3-4" jupyter={"source_hidden": true}
def network(number):
    """A network: its alpha in microseconds, its bandwidth in megabytes a second."""
    return 20 + number % 480, 100 + number % 1900


def measurements(number):
    """Sizes in bytes, and the seconds that messages of those sizes take on it."""
    latency_us, mb_s = network(number)
    sizes = 1000 * 4.0 ** np.arange(6)
    return sizes, latency_us * 1e-6 + sizes / (mb_s * 1e6)


def near_the_crossing(number):
    """(n, nbytes, the faster) on both sides of where the two are equal."""
    latency_us, mb_s = network(number)
    found = [(2, 1000, "doubling"), (2, 100_000_000, "doubling")]
    for n, more_steps, fewer_bytes in ((4, 4, 1 / 2), (8, 11, 5 / 4), (64, 120, 129 / 32)):
        crossing = latency_us * mb_s * more_steps / fewer_bytes
        found += [(n, round(crossing * part), "doubling") for part in (0.1, 0.9)]
        found += [(n, round(crossing * part), "ring") for part in (1.1, 10)]
    return found


# %% id="check-3-4" jupyter={"source_hidden": true}
with check("3.4") as c:
    draws = [seed(), seed() + 137]
    fits = [[float(number) for number in fit(*measurements(draw))] for draw in draws]
    c.equal(
        "alpha in microseconds",
        [round(alpha * 1e6, 2) for alpha, _ in fits],
        lambda: [float(network(draw)[0]) for draw in draws],
        hint="alpha, the first of the two, is the line's value at 0: a message of no bytes",
    )
    c.equal(
        "bandwidth 1/beta in MB/s",
        [round(1e-6 / beta, 2) for _, beta in fits],
        lambda: [float(network(draw)[1]) for draw in draws],
        hint="beta is the slope of the line, in seconds a byte",
    )
    c.equal(
        "faster",
        {
            f"{n} ranks, {nbytes:,} bytes": faster(n, nbytes, alpha, beta)
            for draw, (alpha, beta) in zip(draws, fits)
            for n, nbytes, _ in near_the_crossing(draw)
        },
        lambda: {
            f"{n} ranks, {nbytes:,} bytes": winner
            for draw in draws
            for n, nbytes, winner in near_the_crossing(draw)
        },
        hint="ring: 2(n - 1) steps of nbytes / n; doubling: log2 n steps of nbytes",
    )

# %% [markdown]
# With the ring of task 3.2 you have what moves the gradients in [lesson 05](../notebooks/05_data_parallel.ipynb). The next one,
# [lesson 04](../notebooks/04_one_product_two_splits.ipynb), asks what has to be moved at all when one product is split over ranks.
