# %% [markdown]
# # 03 · Collectives
#
# In three quarters of an hour you will be able to
#
# - build the operations that all ranks do together out of `send` and `recv`, and say which kind of training needs which,
# - count the messages and bytes that each of them costs, on paper and in the trace of a run, and have the two agree,
# - predict how long one will take on a network, from two numbers, and pick the better of two algorithms.
#
# You need [chapter 00](00_start_here.ipynb): ranks, `launch`, `send` and `recv`. The lesson follows the introduction to section 8.2 of
# [the source](../README.md#where-it-comes-from): to stack up machines is not enough, *compute and communication must be coordinated*.
#
# **The question:** four ranks each have a gradient of $S$ bytes, and all four need the sum. *How few bytes must the busiest rank send?*
#
# One way: add up on the way to rank 0, then hand out the sum. Play it, and count what rank 0 sends and receives:

# %% jupyter={"source_hidden": true}
from course_lib.viz import animate

animate("all_reduce", algorithm="reduce_broadcast")

# %%
import os
import time
from functools import partial

import numpy as np
import torch
import torch.distributed as dist

from course_lib import Link, collectives, launch, span
from course_lib.viz import predict, tally
from course_lib.viz.plots import new_plot

# %% jupyter={"source_hidden": true}
predict(
    "Four ranks, S bytes each, all need the sum. How much must a rank send, if the work is shared out "
    "evenly?",
    {
        "3 S": (
            "Each would send all it has to the three others, and add up alone. It is less if ranks add "
            "on the way and pass on sums."
        ),
        "2 S": (
            "S to have all of it added and S to hand out the sums looks right. But in each half a rank "
            "has one quarter that it need not send."
        ),
        "1.5 S": (
            "Each rank is in charge of one quarter. It sends the other three to their ranks, 3/4 S, and "
            "its finished quarter to three ranks, 3/4 S."
        ),
        "1 S": (
            "S from each rank is enough to add everything up, but then each sum is known in one place "
            "only. It must also get back to everybody."
        ),
    },
    right=2,
)

# %% [markdown]
# You will count these bytes in a run, and see why there cannot be fewer.

# %% [markdown]
# ## One message, seen from both ends
#
# Rank 0 works for 30 ms, then sends 1,000 numbers to rank 1, which has nothing to do but wait for them. `span` gives a name to what a rank
# does, so that it shows.


# %%
def hand_over():
    x = torch.zeros(1000)  # float32: 4,000 bytes
    if dist.get_rank() == 0:
        with span("work"):
            time.sleep(0.03)
        dist.send(x, dst=1)
    else:
        dist.recv(x, src=0)


run = launch(hand_over, 2)
run.trace

# %% [markdown]
# A lane for each rank, on one clock. Rank 1 stands still from its call of `recv` until the message is there. It lost those milliseconds because rank 0
# was late, and no faster network would give them back: this is what "coordinated" means. Move the mouse over a bar for
# the details.
#
# ## From one to all
#
# At the start of training, rank 0's weights go to everybody: a **broadcast**. With `send` and `recv` it takes a loop:


# %%
def flat_broadcast(x):
    rank, n = dist.get_rank(), dist.get_world_size()
    if rank == 0:
        for other in range(1, n):
            dist.send(x, dst=other)
    else:
        dist.recv(x, src=0)


animate("broadcast", algorithm="flat", world_size=8)

# %% [markdown]
# Press *play*: seven messages for eight ranks. Fewer is impossible, since seven ranks need one each. But all seven leave through one link, rank 0's, and so
# one after the other. (The picture counts as one step what need not wait for another *rank*.) The ranks that are served already have nothing to do. They could help:


# %%
def tree_broadcast(x):
    rank, n = dist.get_rank(), dist.get_world_size()
    gap = n // 2  # n is a power of two here
    while gap:
        if rank % (2 * gap) == 0:
            dist.send(x, dst=rank + gap)
        elif rank % (2 * gap) == gap:
            dist.recv(x, src=rank - gap)
        gap //= 2


# %% [markdown]
# Choose *tree* in the picture, and play it. Still seven messages, but in three steps: after each, twice as many ranks have the data. This is a *binomial tree*.
#
# On your own machine a message takes a fraction of a millisecond, and the difference would drown in noise. So we **emulate a slow
# network**: with `link=`, a message arrives when it would arrive there. Each rank has one link to the
# network. It carries one message at a time in each direction, here at 10 MB/s; the message arrives 5 ms after its last byte has left. The messages themselves are real.

# %%
slow = Link(latency_s=0.005, bandwidth_gb_s=0.01)


def timed(collective, sizes, rounds=2):
    """On a rank: seconds (sizes, rounds) of a collective; all ranks start together."""
    collective(torch.zeros(8))  # the first one also opens the connections
    seconds = np.zeros((len(sizes), rounds))
    for which in np.ndindex(seconds.shape):
        x = torch.zeros(sizes[which[0]] // 4)
        dist.barrier()  # all wait here for each other
        start = time.perf_counter()
        collective(x)
        seconds[which] = time.perf_counter() - start
    return seconds


def seconds_of(run):
    """For each size: a round ends with its slowest rank; the fastest round counts."""
    return np.max(list(run), axis=0).min(axis=-1)


# %% jupyter={"source_hidden": true}
predict(
    "300,000 bytes take 30 ms to leave a rank, and 5 ms more to arrive. Eight ranks: how long do the "
    "two broadcasts take?",
    {
        "Both 245 ms": (
            "7 · 35 ms counts each message as if it waited for the one before to arrive. Flat sends do "
            "not wait for that, and the tree sends several at once."
        ),
        "flat 215 ms, tree 105 ms": (
            "Flat: seven times 30 ms through one link, then 5 ms. Tree: three steps of 35 ms, since a "
            "message must arrive before it is passed on."
        ),
        "flat 245 ms, tree 35 ms": (
            "The flat one pays the 5 ms once, since the next message leaves while the last one travels. "
            "And the tree's three steps cannot overlap."
        ),
    },
    right=1,
)

# %%
for broadcast in (flat_broadcast, tree_broadcast):
    run = launch(timed, 8, broadcast, [300_000], link=slow)
    print(f"{broadcast.__name__}: {1e3 * seconds_of(run)[0]:.0f} ms (emulated network)")

# %% [markdown]
# Flat: seven transfers through one link, then one latency, $7 \cdot 30 + 5 = 215$ ms. Tree: three steps of $30 + 5$ ms, $105$ ms. (What
# you see above that is your own machine.) For 1,024 ranks it would be 1,023 transfers against 10 steps. **Same messages, same bytes: what
# differs is how many of them have to wait for another.**

# %% [markdown]
# ## The eight collectives
#
# An operation in which all ranks of a group take part is called a *collective*. There are eight that you will meet again and again. Below, each entry lists what
# ranks 0 · 1 · 2 · 3 hold. The tensors are $a, b, c, d$, and $a_2$ is the part of $a$ that is meant for rank 2; $\Sigma$ is the sum $a+b+c+d$, and
# $\Sigma_2$ its part for rank 2. "–" is nothing. The last column says where the course uses it; you need not know its words yet.
#
# | operation | before | after | in training |
# |---|---|---|---|
# | broadcast | $a$ · – · – · – | $a$ · $a$ · $a$ · $a$ | the same first weights on all ranks |
# | scatter | $a_0a_1a_2a_3$ · – · – · – | $a_0$ · $a_1$ · $a_2$ · $a_3$ | one rank reads the data, all get their part |
# | gather | $a$ · $b$ · $c$ · $d$ | $abcd$ · – · – · – | results to one rank, which writes them down |
# | reduce | $a$ · $b$ · $c$ · $d$ | $\Sigma$ · – · – · – | the loss of the whole batch, to be printed |
# | **all-gather** | $a$ · $b$ · $c$ · $d$ | $abcd$ on each | sharded weights, before they are used (chapter 06) |
# | **reduce-scatter** | $a$ · $b$ · $c$ · $d$ | $\Sigma_0$ · $\Sigma_1$ · $\Sigma_2$ · $\Sigma_3$ | gradients of sharded weights (06) |
# | **all-reduce** | $a$ · $b$ · $c$ · $d$ | $\Sigma$ on each | gradients in data parallel (05), activations in tensor parallel (07) |
# | **all-to-all** | $a_0a_1a_2a_3$ · $b_0b_1b_2b_3$ · … | $a_0b_0c_0d_0$ · $a_1b_1c_1d_1$ · … | tokens to their experts and back (10) |
#
# Only pipeline parallel (09) gets by with plain `send` and `recv`, from each stage to the next. Put any of the eight names into the next cell, with `_` for the
# hyphen, and step through it:

# %%
animate("all_to_all")

# %% [markdown]
# The table hides a fact that the rest of this lesson stands on: **a reduce-scatter followed by an all-gather is an all-reduce.** First every rank has
# its part of the sum, then all parts go to everybody. Here both ways on real ranks, with PyTorch's own collectives:


# %% tags=["nbval-check-output"]
def two_ways():
    x = torch.arange(4) + 10 * dist.get_rank()
    part = torch.zeros(1, dtype=x.dtype)
    dist.reduce_scatter(part, list(x.chunk(4)))
    whole = torch.zeros_like(x)
    dist.all_gather(list(whole.chunk(4)), part)
    dist.all_reduce(x)
    return part.tolist(), whole.tolist(), x.tolist()


for rank, (part, whole, reduced) in enumerate(launch(two_ways, 4)):
    print(f"rank {rank}: reduce-scatter {part}, + all-gather {whole}, all-reduce {reduced}")

# %% [markdown]
# ## All-reduce, the obvious way
#
# Send everything to rank 0, let it add, and have it send the sum back:


# %%
def naive_all_reduce(x):
    rank, n = dist.get_rank(), dist.get_world_size()
    if rank == 0:
        theirs = torch.empty_like(x)
        for other in range(1, n):
            dist.recv(theirs, src=other)
            x += theirs
    else:
        dist.send(x, dst=0)
    flat_broadcast(x)


def sum_of_ones(all_reduce, length):
    x = torch.ones(length)
    all_reduce(x)
    return x


# %% jupyter={"source_hidden": true}
predict(
    "Four ranks, 8,000 bytes each. How many bytes go out or in at rank 0, and how many at rank 3?",
    {
        "48,000 at rank 0, 16,000 at rank 3": (
            "Three tensors of 8,000 bytes come in at rank 0, and three sums go out. Each other rank "
            "sends once and receives once."
        ),
        "32,000 at rank 0, 8,000 at rank 3": (
            "32,000 counts rank 0's own tensor, which is not sent, and leaves out the way back, on "
            "which the sum goes to three ranks."
        ),
        "16,000 at each": (
            "So it is at ranks 1 to 3, which send 8,000 bytes and receive as many. But all their "
            "messages have rank 0 at the other end."
        ),
    },
    right=0,
)

# %%
run = launch(sum_of_ones, 4, naive_all_reduce, 2000)
run.trace.traffic()

# %% [markdown]
# *Who sent how much to whom* is another view of a trace: a row a sender, a column a receiver. Every byte of this run goes in or out at rank 0: $3 \cdot 8{,}000$ in, and as many out. The other links lie idle nearly all the time. With twice the ranks,
# rank 0 has twice the work, and all the others wait for it. (Trees in place of the loops, as in the picture
# at the top, take away some of that, not all.)

# %% [markdown]
# ## All-reduce in a ring, in three small steps
#
# Two ideas. **Cut** the tensor into $n$ chunks, so that every rank can be in charge of one. And let each rank talk to its neighbours only,
# sending to the right and receiving from the left **at the same time**, so that all links are busy all the time.
#
# *One: pass something on.* With a plain `send` in every rank nobody would receive (the deadlock of chapter 00). `isend` starts the
# message and returns at once:


# %%
def pass_on(outgoing, incoming):
    """Send to the right neighbour, receive from the left one, at the same time."""
    rank, n = dist.get_rank(), dist.get_world_size()
    sending = dist.isend(outgoing, dst=(rank + 1) % n)
    dist.recv(incoming, src=(rank - 1) % n)
    sending.wait()


# %% [markdown]
# *Two: reduce-scatter.* Chunk $r$ starts at rank $r+1$ and goes once around the ring. Each rank adds its own numbers and passes it on. The
# last to add is rank $r$ itself, and there the chunk is complete. All chunks travel at once, each one rank behind the next:


# %%
def ring_reduce_scatter(chunks):
    """Add up; afterwards chunk r is complete on rank r."""
    rank, n = dist.get_rank(), dist.get_world_size()
    incoming = torch.empty_like(chunks[0])
    for step in range(n - 1):
        pass_on(chunks[(rank - 1 - step) % n], incoming)
        mine = chunks[(rank - 2 - step) % n]
        mine += incoming  # in place: a chunk is a view of the whole tensor


# %% [markdown]
# In step 0 rank 2 sends chunk 1 and receives chunk 0 from rank 1, to which it adds its own. In step 1 it sends that chunk 0 on: always what it has just added to. It is the first half of this picture. Step through it:

# %%
animate("all_reduce", algorithm="ring", world_size=4)

# %% [markdown]
# To see it in numbers, let every rank start with ones. Then each number *is* the count of contributions in it:


# %% tags=["nbval-check-output"]
def count_contributions():
    x = torch.ones(4, dtype=torch.int64)
    ring_reduce_scatter(x.chunk(4))
    return x.tolist()


for rank, counts in enumerate(launch(count_contributions, 4)):
    print(f"rank {rank}: chunks hold {counts} contributions")

# %% [markdown]
# On the diagonal 4, complete. The other numbers are partial sums that were passed on; nobody needs them any more.
#
# *Three: all-gather.* The complete chunks go around once more, and this time replace what they meet: the other half of the picture. The two halves make the whole:


# %%
def ring_all_gather(chunks):
    """Hand round; before it chunk r is right on rank r, afterwards on every rank."""
    rank, n = dist.get_rank(), dist.get_world_size()
    for step in range(n - 1):
        pass_on(chunks[(rank - step) % n], chunks[(rank - 1 - step) % n])


def ring_all_reduce(x):
    chunks = x.chunk(dist.get_world_size())  # the length must be a multiple of n here
    ring_reduce_scatter(chunks)
    ring_all_gather(chunks)


# %% jupyter={"source_hidden": true}
predict(
    "Four ranks, 8,000 bytes each, in the ring. What does each rank send?",
    {
        "3 messages of 8,000 bytes": (
            "Whole tensors handed once around the ring would do, for 24,000 bytes. Here a message "
            "carries one chunk, which is a quarter."
        ),
        "4 messages of 2,000 bytes": (
            "One message for each chunk is not enough: it takes three steps to complete the chunks, and "
            "three more to hand them round."
        ),
        "6 messages of 2,000 bytes": (
            "Three steps of reduce-scatter and three of all-gather, each with one chunk of 2,000 bytes. "
            "That makes 12,000 bytes, or 1.5 S."
        ),
        "8 messages of 2,000 bytes": (
            "Four chunks twice would be eight. But in each half a chunk gets from its first rank to its "
            "last in three steps, not four."
        ),
    },
    right=2,
)

# %% tags=["nbval-check-output"]
run = launch(sum_of_ones, 4, ring_all_reduce, 2000)
print("right on every rank:", all((x == 4).all().item() for x in run))
for rank in range(4):
    sent, count = run.trace.sent_bytes(rank), run.trace.messages(rank)
    print(f"rank {rank} sent {sent:,} bytes in {count} messages")

# %% [markdown]
# These are the bytes of the first question: $12{,}000 = 1.5 \cdot 8{,}000$. And the traffic is even:

# %%
run.trace.traffic()

# %% [markdown]
# In all 48,000 bytes, *not one fewer than the obvious way took*. But there one rank had half of the sending to do and all of the adding; here each has
# its quarter of both.
#
# **Why.** Each of the $n-1$ steps of the first half sends one chunk of $S/n$ bytes, and so does each of the second half:
#
# $$
# \text{messages of a rank} = 2\,(n-1), \qquad
# \text{bytes of a rank} = 2\,(n-1)\cdot\frac{S}{n} = 2\,\frac{n-1}{n}\,S \;<\; 2S .
# $$
#
# The last sign is what makes data parallel training possible: *however many ranks there are, none sends more than twice its gradient.* Count it
# in your own runs, to the byte:

# %% tags=["nbval-check-output"]
for n in (2, 3, 5, 8):
    run = launch(sum_of_ones, n, ring_all_reduce, 1200)  # 4,800 bytes; n divides 1,200
    sent = {run.trace.sent_bytes(rank) for rank in range(n)}  # one entry: all agree
    count = {run.trace.messages(rank) for rank in range(n)}
    formula = 2 * (n - 1) * 4800 // n
    print(f"n={n}: sent {sent} bytes, formula {formula}; {count} messages, {2 * (n - 1)}")

# %% [markdown]
# ### Could it be done with less?
#
# Not by any algorithm that moves the numbers, or sums of them, as they are (without compressing them). Follow a single number of the gradient.
# Each rank has its own summand of it.
#
# - Look at the first moment at which *some* rank knows the sum. By then the summands of the other $n-1$ ranks have left them, on their own or within a
#   partial sum. So at least $n-1$ messages that carry this number have *arrived* somewhere. (Let
#   messages arrive one at a time; two that arrive at the same instant may be taken in either order.)
# - At that moment the $n-1$ other ranks still lack something. To each of them at least one more message must arrive: $n-1$ further ones.
#
# That makes $2(n-1)$ transfers for each number of the gradient, $2(n-1)\,S$ bytes in all. $n$ ranks share the sending, so the busiest of them
# sends at least the mean, $2\frac{n-1}{n}S$. In the ring no rank sends more than that: in bytes, **it is optimal** (Patarasuk and Yuan 2009).
#
# In *time* it need not be. For that we have to know what a message costs.
#
# ## Two numbers that describe a network
#
# A message has a fixed price, the *latency* $\alpha$, and a price for each byte, $\beta$, which is one over the bandwidth:
#
# $$ t(S) = \alpha + \beta S $$
#
# Measure it, between two of your own processes. They play ping-pong with messages of many sizes; half a round trip is one message. We
# take the fastest of 20 rounds, since whatever else your machine does can only slow one down.


# %%
def ping_pong(sizes, rounds=20):
    """Seconds of a message, for each size in bytes: the fastest of the rounds."""
    rank, times = dist.get_rank(), np.zeros((rounds, len(sizes)))
    for which in np.ndindex(times.shape):
        x = torch.zeros(sizes[which[1]], dtype=torch.uint8)
        start = time.perf_counter()
        for sender in (0, 1):
            if rank == sender:
                dist.send(x, 1 - rank)
            else:
                dist.recv(x, 1 - rank)
        times[which] = (time.perf_counter() - start) / 2
    return times.min(axis=0)


sizes = 2 ** np.arange(8, 25, 2)  # 256 bytes to 16 MiB
seconds = launch(ping_pong, 2, sizes.tolist())[0]

# %% [markdown]
# The sizes span nearly five orders of magnitude. An ordinary least-squares fit would look at the largest only, so we divide every equation
# by its measured time: then it is the *relative* error whose squares are summed.

# %%
rows = np.stack([np.ones(len(sizes)), sizes], axis=1) / seconds[:, None]
alpha, beta = np.linalg.lstsq(rows, np.ones(len(sizes)), rcond=None)[0]
print(f"alpha {1e6 * alpha:.0f} µs, bandwidth 1/beta {1 / beta / 1e9:.2f} GB/s")

# %%
axes = new_plot("bytes (log scale)", "seconds of a message (log scale)", log=True)
axes.set_xscale("log")
axes.minorticks_off()
axes.plot(sizes, seconds, linestyle="none", markevery=1, label="measured, fastest of 20")
line = np.geomspace(sizes[0], sizes[-1], 30)
axes.plot(line, alpha + beta * line, marker="", label="alpha + beta S")
axes.axvline(alpha / beta, color="gray", linestyle=":")
axes.legend();

# %% [markdown]
# Two regimes. On the left the line is flat: a message of 256 bytes costs as much as one of a few thousand, all latency. On the right ten times the bytes
# cost ten times the time, all bandwidth. The border lies where the two are equal, at $S = \alpha/\beta$, the dotted line. The points do not lie
# exactly on the line: a model with two numbers knows nothing of caches and buffers.
#
# ### Predict an all-reduce that was never timed
#
# In the ring, a step starts when the one before it has ended, and each sends $S/n$ bytes. So
#
# $$ t_\text{ring} = 2\,(n-1)\left(\alpha + \beta\,\frac{S}{n}\right). $$


# %%
def ring_seconds(n, nbytes, alpha, beta):
    return 2 * (n - 1) * (alpha + beta * nbytes / n)


print(f"this machine has {os.cpu_count()} cores")
for n in (2, 4):
    measured = seconds_of(launch(timed, n, ring_all_reduce, [2_000_000], 10))[0]
    predicted = ring_seconds(n, 2_000_000, alpha, beta)
    print(f"{n} ranks, ms: predicted {1e3 * predicted:.1f}, measured {1e3 * measured:.1f}")

# %% [markdown]
# The prediction is too low: with two ranks on two cores by a factor of two or three, with four ranks by up to ten. That is worth understanding. In ping-pong one rank sends
# while the other waits; in the ring *all* of them send, receive and add at once. The formula counts neither the adding nor the waiting for a core: it takes for granted that each rank has
# a core and a link of its own, while
# yours share the cores and the memory of one machine. On a network where that assumption holds, so does the formula:

# %%
for n in (2, 4, 8):
    measured = seconds_of(launch(timed, n, ring_all_reduce, [400_000], link=slow))[0]
    predicted = ring_seconds(n, 400_000, 0.005, 1 / 10e6)
    times = f"predicted {1e3 * predicted:.0f} ms, measured {1e3 * measured:.0f} ms"
    print(f"{n} ranks: {times} (emulated network)")

# %% [markdown]
# (What is left over is your machine's own time for each step. With eight ranks on few cores it shows.)
#
# ## Ring or doubling?
#
# The ring is optimal in bytes, but takes $2(n-1)$ steps. *Recursive doubling* takes $\log_2 n$. In each step two ranks swap all they have and
# add: first with the neighbour, then two away, then four. After $k$ steps each has the sum of $2^k$ ranks.
# (Choose *doubling* and 8 ranks in the picture of the ring to see all three.)
#
# Every step moves the whole tensor, $\log_2 n \cdot S$ bytes a rank. Few expensive steps, or many cheap ones:
#
# $$ t_\text{doubling} = \log_2 n\,\left(\alpha + \beta S\right) $$

# %% jupyter={"source_hidden": true}
predict(
    "Eight ranks. Which all-reduce is faster?",
    {
        "The ring, always": (
            "It sends the fewest bytes, but in 14 steps, each of which pays the latency. For small "
            "tensors latency is nearly all."
        ),
        "Doubling, always": (
            "It has 3 steps against 14, but each moves the whole tensor: 3 S bytes against 1.75 S. For "
            "large tensors bytes are nearly all."
        ),
        "The ring for small tensors, doubling for large ones": (
            "Chunks are small, so the ring seems made for small tensors. But these cost latency, and "
            "the ring pays it 14 times, doubling 3 times."
        ),
        "Doubling for small tensors, the ring for large ones": (
            "Small tensors cost latency: 3 steps against 14. Large ones cost bytes: 3 S against 1.75 S "
            "in the ring."
        ),
    },
    right=3,
)


# %%
def doubling_seconds(n, nbytes, alpha, beta):
    return np.log2(n) * (alpha + beta * nbytes)


some = [30_000, 120_000, 480_000, 1_920_000]  # bytes
measured = {}
for way in ("ring", "doubling"):
    all_reduce = partial(collectives.all_reduce, algorithm=way)
    measured[way] = seconds_of(launch(timed, 8, all_reduce, some, link=slow))

# %% [markdown]
# `course_lib.collectives` has all eight operations, built as here, for any length and any number of ranks. The lines are the two formulas, the points are
# measured runs on eight real ranks over the same emulated network as before, $\alpha = 5$ ms and $1/\beta = 10$ MB/s.

# %%
title = "all-reduce on 8 ranks, emulated network"
axes = new_plot("bytes (log scale)", "ms (log scale)", title, log=True)
axes.set_xscale("log")
axes.minorticks_off()
line = np.geomspace(some[0], some[-1], 30)
for way, formula in (("ring", ring_seconds), ("doubling", doubling_seconds)):
    times, predicted = 1e3 * measured[way], 1e3 * formula(8, line, 0.005, 1 / 10e6)
    points, *_ = axes.plot(some, times, linestyle="none", markevery=1, label=way)
    axes.plot(line, predicted, marker="", color=points.get_color())
axes.set_yticks([30, 100, 300], ["30", "100", "300"])
axes.legend();

# %% [markdown]
# The lines cross where the two formulas are equal:
#
# $$
# S^* = \frac{\alpha}{\beta}\cdot\frac{2(n-1)-\log_2 n}{\log_2 n - 2\frac{n-1}{n}}
# $$

# %% tags=["nbval-check-output"]
for n in (4, 8, 64, 1024):
    steps = np.log2(n)
    factor = (2 * (n - 1) - steps) / (steps - 2 * (n - 1) / n)
    print(f"n={n}: the ring wins above {factor:.1f} times alpha / beta")

# %% [markdown]
# In our run $\alpha/\beta = 0.005\,\text{s}\cdot 10\,\text{MB/s} = 50$ kB, so that $S^* = 8.8\cdot 50 = 440$ kB: where the lines cross above. (On 2 ranks the denominator is 0: doubling always
# wins.) What lies above a line is your own machine's time.
#
# A third algorithm takes the best of both: a reduce-scatter by swapping *halves*, then quarters, and so on, and an all-gather the same way back. That is
# $2\log_2 n$ steps and only $2\frac{n-1}{n}S$ bytes (Rabenseifner's algorithm; Thakur, Rabenseifner and Gropp 2005, section 4). By our formula it is never slower than the ring. But its
# partners are far apart, and on a real network their messages share links, which our model does not know. Libraries choose by size and
# by number of ranks. It is also why frameworks pack many small gradients into one large bucket: then $\alpha$ is paid once.

# %% [markdown]
# ## What benchmarks call bandwidth
#
# The tool that everybody uses to measure GPU networks, `nccl-tests`, prints two numbers for an all-reduce of $S$ bytes in $t$ seconds
# ([definitions](https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md)):
#
# $$
# \text{algbw} = \frac{S}{t}, \qquad \text{busbw} = \text{algbw}\cdot 2\,\frac{n-1}{n} .
# $$
#
# *algbw* is what your program gets. *busbw* is what each rank's link carries, the bytes that it must send over the time that it took, and so can be compared
# with what the link can do. (With $S$ the whole tensor, the factor is $\frac{n-1}{n}$ for all-gather, reduce-scatter and all-to-all, and 1 for broadcast and reduce.)

# %%
print("ranks     time     algbw     busbw      link   (emulated)")
for n in (2, 4, 8):
    t = seconds_of(launch(timed, n, ring_all_reduce, [1_600_000], link=slow))[0]
    algbw = 1.6 / t  # MB/s
    busbw = algbw * 2 * (n - 1) / n
    print(f"{n:5d} {1e3 * t:5.0f} ms {algbw:4.1f} MB/s {busbw:4.1f} MB/s {10:4.0f} MB/s")

# %% [markdown]
# The same link every time. algbw falls to about half from 2 to 8 ranks, which is no defect: each rank has 1.75 times as much to send. busbw stays close to
# what the link gives; most of what is missing is latency. **To judge a network, look at busbw; to know how long your step takes, at algbw.**
#
# ## Break it on purpose
#
# A collective is a promise of all ranks: the same call, in the same order, with tensors of the same size. Here are the three ways to break it. Each
# happens in real training code. On a cluster you then see that everything stands still, or, worse, nothing at all. `launch` compares what the ranks call, and says it.
#
# *Sizes that differ:* the last rank got fewer samples, and hands in one number for each. Two ranks are late here, but the two that have come are
# enough to tell.


# %% tags=["raises-exception"]
def uneven():
    if dist.get_rank() in (0, 2):
        time.sleep(5)  # still at work
    loss = torch.zeros(100 if dist.get_rank() == 3 else 360)
    dist.all_reduce(loss)


launch(uneven, 4)


# %% [markdown]
# *Swapped order:* the right calls, but one rank makes them the other way round. The sizes are equal, so nothing stops the backend from adding
# rank 1's loss to the other ranks' gradients. That is the worst of the three: without a check it *works*.


# %% tags=["raises-exception"]
def swapped():
    grad, loss = torch.zeros(8), torch.zeros(8)
    if dist.get_rank() == 1:
        dist.all_reduce(loss)
        dist.all_reduce(grad)
    else:
        dist.all_reduce(grad)
        dist.all_reduce(loss)


launch(swapped, 4)


# %% [markdown]
# *A rank that skips one:* it had no data left, and returned early.


# %% tags=["raises-exception"]
def early():
    samples_left = 0 if dist.get_rank() == 2 else 5
    if samples_left == 0:
        return
    grad = torch.ones(8)
    dist.all_reduce(grad)


launch(early, 4)

# %% [markdown]
# Read each from the top: what does not fit, where every rank stood, what to try.
#
# ## PyTorch's own
#
# `dist.all_reduce` promises what our ring does. Do the numbers agree?


# %% tags=["nbval-check-output"]
def same_numbers():
    torch.manual_seed(dist.get_rank())
    ours = torch.randn(1000, dtype=torch.float64)
    theirs = ours.clone()
    ring_all_reduce(ours)
    dist.all_reduce(theirs)
    return (ours - theirs).abs().max().item()


print("as PyTorch's, to 1e-12:", max(launch(same_numbers, 4)) < 1e-12)


# %%
CALLS = {
    "this lesson's": ring_all_reduce,
    "the library's": collectives.all_reduce,
    "PyTorch's": dist.all_reduce,
}


def all_three():
    return np.concatenate([timed(call, [4_000_000], 10) for call in CALLS.values()])


for name, t in zip(CALLS, seconds_of(launch(all_three, 4))):
    print(f"{name:14s} {1e3 * t:5.1f} ms for 4 MB on 4 ranks")

# %% [markdown]
# The last digits may differ, since the numbers were added in another order. The times are of one and the same run, on cores that four ranks share.
# On a cluster GPUs send straight from their own memory, much faster; the count of messages and bytes stays.
#
# ## Where this ends
#
# The model of this lesson knows one kind of link, and ranks that all start at once. Real clusters have fast links inside a node and slow ones between nodes, so rings
# are laid to cross the slow ones as seldom as possible (chapter 11). And a collective starts when the *last* rank arrives: the best one cannot mend a rank that is late.

# %% [markdown]
# ## How well did you predict?

# %% jupyter={"source_hidden": true}
tally()

# %% [markdown]
# ## In five lines
#
# - Every collective is made of messages. What it costs: how many, how large, and how many must wait for one another.
# - All-reduce = reduce-scatter + all-gather. In a ring each rank sends $2\frac{n-1}{n}S$ bytes in $2(n-1)$ messages, and no algorithm lets its busiest rank send fewer bytes.
# - $t = \alpha + \beta S$: small messages cost latency, large ones bandwidth. Of our two, doubling for the small, the ring for the large.
# - algbw is what the program gets; busbw is what a link carries, and can be compared with the hardware.
# - A collective is a promise of all ranks: same call, same order, same size.
#
# | symbol | meaning |
# |---|---|
# | $n$, $r$ | world size, rank |
# | $S$ | bytes of the whole tensor: what a rank hands in, for all-gather what it gets (the letter of `nccl-tests`) |
# | $\alpha$ | latency, seconds a message |
# | $\beta$ | seconds a byte; $1/\beta$ is the bandwidth |
# | $t$ | seconds of a message or of a collective |
#
# **To read**
#
# - Thakur, Rabenseifner and Gropp 2005, [*Optimization of Collective Communication Operations in MPICH*](https://doi.org/10.1177/1094342005051521): each
#   collective with two or three algorithms, each with its $\alpha$ and $\beta$. Look at where MPICH switches
#   from one to the other, and why.
# - Patarasuk and Yuan 2009, [*Bandwidth optimal all-reduce algorithms for clusters of workstations*](https://doi.org/10.1016/j.jpdc.2008.09.002): the lower
#   bound, proved, and the ring that meets it. Look for what the ring asks of the switches.
# - Sergeev and Del Balso 2018, [*Horovod*](https://arxiv.org/abs/1802.05799), section 3: how the ring came from supercomputers into deep learning, and what it replaced.
#
# **Now you:** [the exercise](../exercises/03_collectives.ipynb). Then [chapter 04](04_one_product_two_splits.ipynb): when one
# product is split over ranks, which collective does it take to put it together?
