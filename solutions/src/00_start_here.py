# %% [markdown]
# # Exercise 00 · Start here
#
# Four small tasks on ranks and messages, five minutes each. Replace every `raise NotImplementedError(...)` by your code, run the
# cell, then run the check below it: it says in one line what is right, or what to try.
#
# When all four are done, have the whole notebook graded from a terminal: `course check exercises/00_start_here.ipynb`

# %%
import random

import torch
import torch.distributed as dist

from course_lib import RankDeadlock, RankTimeout, launch
from course_lib.grading import check, seed

# %% [markdown]
# ## 0.1 Who am I?
#
# Stand the ranks in a circle: the right neighbour of rank 0 is rank 1, and that of the last rank is rank 0. Return three
# numbers: this rank, the world size, and the rank of the right neighbour.


# %% id="answer-0-1"
def who_am_i():
    """Return (rank, world size, rank of the right neighbour)."""
    ### BEGIN SOLUTION 0.1: rank, world size and right neighbour
    ### HINT dist.get_rank(), dist.get_world_size(); the remainder % closes the circle
    rank, n = dist.get_rank(), dist.get_world_size()
    return rank, n, (rank + 1) % n
    ### END SOLUTION


# %% id="check-0-1"
with check("0.1") as c:
    for n in random.Random(seed()).sample(range(1, 8), 3):
        run = launch(who_am_i, n)
        c.equal(
            f"{n} ranks",
            [list(answer) for answer in run],
            lambda n=n: [[rank, n, (rank + 1) % n] for rank in range(n)],
            hint="the last rank's neighbour is rank 0: (rank + 1) % n",
        )

# %% [markdown]
# ## 0.2 Ping-pong
#
# Rank 0 has a tensor. In each round it sends it to rank 1; rank 1 adds 1 to every number and sends it back. After
# `rounds` rounds rank 0 returns what it has. Rank 1 may return anything. What rank 1 is given as `x` is only paper to write on:
# it has the right shape and no content.


# %% id="answer-0-2"
def ping_pong(x, rounds):
    """On rank 0: return x + rounds, every 1 added by rank 1."""
    ### BEGIN SOLUTION 0.2: a tensor goes to and fro
    ### HINT for each round: rank 0 sends then receives, rank 1 receives, adds, then sends
    for _ in range(rounds):
        if dist.get_rank() == 0:
            dist.send(x, dst=1)
            dist.recv(x, src=1)
        else:
            dist.recv(x, src=0)
            x += 1
            dist.send(x, dst=0)
    return x
    ### END SOLUTION


# %% id="support-0-2"
def numbers(secret):
    """Four numbers that nobody can guess."""
    generator = torch.Generator().manual_seed(secret)
    return torch.randn(4, dtype=torch.float64, generator=generator)


def play(answer, rounds, start):
    """Run the answer on two ranks; rank 1 notes how many messages reached it."""
    received = 0
    real_recv = dist.recv

    def counting_recv(*args, **kwargs):
        nonlocal received
        received += 1
        return real_recv(*args, **kwargs)

    dist.recv = counting_recv
    x = start.clone() if dist.get_rank() == 0 else torch.zeros_like(start)
    return answer(x, rounds), received


# %% id="check-0-2"
with check("0.2") as c:
    start = numbers(seed())
    rounds = 2 + seed() % 5
    run = launch(play, 2, ping_pong, rounds, start, timeout_s=5)
    c.equal(
        "what rank 0 ends with",
        run[0][0],
        lambda: start + rounds,
        hint="rank 1 adds 1 in every round",
    )
    c.equal(
        "messages that reached rank 1",
        run[1][1],
        lambda: rounds,
        hint="one message to rank 1 in each round",
    )

# %% [markdown]
# ## 0.3 Provoke a deadlock
#
# To know a thing, make it. Write a function in which *every* rank waits for ever, for any world size from 2 up. There must
# be no loop and no sleep in it: only ranks that wait for each other.


# %% id="answer-0-3"
def all_stuck(x):
    """Never returns, on any rank."""
    ### BEGIN SOLUTION 0.3: every rank waits for another
    ### HINT what if each rank first receives from its neighbour?
    rank, n = dist.get_rank(), dist.get_world_size()
    dist.recv(x, src=(rank + 1) % n)
    dist.send(x, dst=(rank - 1) % n)
    ### END SOLUTION


# %% id="support-0-3"
def who_waits(answer, n):
    """The ranks of which it was proven that they wait for ever."""
    try:
        launch(answer, n, torch.zeros(1), timeout_s=1.5)
    except RankDeadlock as deadlock:
        return sorted(deadlock.waiting)
    except RankTimeout:
        pass  # time ran out, but a rank was still at work
    return []


# %% id="check-0-3"
with check("0.3") as c:
    for n in (2, 3 + seed() % 2):
        c.equal(
            f"ranks waiting, of {n}",
            who_waits(all_stuck, n),
            lambda n=n: list(range(n)),
            hint="let every rank begin with a recv from a neighbour that has not sent yet",
        )

# %% [markdown]
# ## 0.4 Set them free
#
# Every rank hands its tensor to its right neighbour and returns what it got from its left one. With all ranks sending first, nobody
# receives (you saw that in the lesson). Find an order that works for every world size from 1 up, odd ones too.


# %% id="answer-0-4"
def pass_to_the_right(x):
    """Return the left neighbour's x."""
    ### BEGIN SOLUTION 0.4: a circle without a deadlock
    ### HINT somebody must receive first: what if odd ranks do? Or look up dist.isend
    rank, n = dist.get_rank(), dist.get_world_size()
    received = x.clone()
    if n > 1:
        sending = dist.isend(x, dst=(rank + 1) % n)
        dist.recv(received, src=(rank - 1) % n)
        sending.wait()
    return received
    ### END SOLUTION


# %% id="support-0-4"
def pass_once(answer, secret):
    """Give each rank its own number, unknown to the others."""
    return answer(numbers(secret + dist.get_rank()))


# %% id="check-0-4"
with check("0.4") as c:
    for n in (1, 2, 3, 4, 5):
        run = launch(pass_once, n, pass_to_the_right, seed(), timeout_s=5)
        c.equal(
            f"{n} ranks",
            list(run),
            lambda n=n: [numbers(seed() + (rank - 1) % n) for rank in range(n)],
            hint="receive from (rank − 1) % n, send to (rank + 1) % n",
        )

# %% [markdown]
# Done? Chapter 03 takes it from here: with `send` and `recv` in a circle you can build every collective there is.
