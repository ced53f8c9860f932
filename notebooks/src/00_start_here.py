# %% [markdown]
# # 00 · Start here
#
# In fifteen minutes you will be able to
#
# - start several real processes from a notebook cell, and say which one is which,
# - send a tensor from one to another, and add one up over all of them,
# - read what you are told when a process fails, and when all of them hang.
#
# You need Python and a little PyTorch. You do not need a GPU, or a network. Run each cell with **Shift + Enter**, from the
# top. Where the page asks you to predict something, choose an answer and lock it in; what follows is covered until then. It is the
# quickest way to learn, and nobody sees what you chose.
#
# Here are four processes. One has a tensor, and sends it to each of the others:

# %% jupyter={"source_hidden": true}
from course_lib.viz import animate

animate("broadcast", algorithm="flat")

# %% [markdown]
# ## One process, or many?
#
# Behind this page runs one Python process, the *kernel*. Every program that a computer runs is a process, and each has a
# number. Here is yours:

# %%
import os

import torch
import torch.distributed as dist

from course_lib import launch
from course_lib.viz import predict, tally

os.getpid()


# %% [markdown]
# To train on many devices you run the *same* program once for each of them, and let the copies talk. `launch` does that
# from a cell. It starts fresh processes, calls your function in each, and shows what each of them prints:


# %%
def hello():
    print(f"I am process {os.getpid()}, rank {dist.get_rank()} of {dist.get_world_size()}")


launch(hello, 4)

# %% [markdown]
# Four new process numbers, none of them the kernel's. The last line is what `launch` returned. Two words that you will
# meet on every page:
#
# | word | meaning | in PyTorch |
# |---|---|---|
# | **rank** | the number of a process within its job, counted from 0 | `dist.get_rank()` |
# | **world size** | how many processes there are | `dist.get_world_size()` |
#
# Usually a rank has one GPU to itself. Here each is an ordinary process on your CPU. To the code it makes no difference.

# %% [markdown]
# ## A variable of the notebook
#
# A function may change a variable that stands outside it. Here `count` adds to one of the notebook's, on each of four ranks.

# %%
counter = 0


def count():
    global counter
    counter += 1 + dist.get_rank()
    return counter


# %% jupyter={"source_hidden": true}
predict(
    "Four ranks run count(). What is `counter` in the notebook afterwards?",
    {
        "0": (
            "Each rank is a process with a `counter` of its own in its own memory, so no rank can "
            "change the notebook's."
        ),
        "4": (
            "Rank 3 does reach 4, with 0 + 1 + 3, but in its own copy. What a process writes into its "
            "memory ends with it."
        ),
        "10": (
            "1 + 2 + 3 + 4 is what threads of one process could add up, since they share its memory. "
            "Ranks are processes, and share none."
        ),
    },
    right=0,
)

# %% tags=["nbval-check-output"]
run = launch(count, 4)
print("returned by the ranks:", list(run))
print("in the notebook:      ", counter)

# %% [markdown]
# **Nothing is shared.** A process has its own memory: each rank got its own copy of `counter`, changed it, and ended. The notebook's
# is still 0. What a rank *returns* does come back: `run[2]` is what rank 2 returned. Nothing else does.
#
# That is the whole difficulty of distributed training, and the whole art: **no rank sees another rank's tensors unless
# both take part in sending them.**

# %% [markdown]
# ## Sending
#
# `dist.send(x, dst=1)` sends a tensor to rank 1. On rank 1, `dist.recv(y, src=0)` waits for it and writes it into `y`.
# Both ranks run the same function; an `if` gives each its part.


# %% tags=["nbval-check-output"]
def send_one_tensor():
    x = torch.zeros(3)
    if dist.get_rank() == 0:
        x += 7
        dist.send(x, dst=1)
    else:
        dist.recv(x, src=0)
    return x


print(launch(send_one_tensor, 2)[1])

# %% [markdown]
# ## All together: your first collective
#
# An operation in which all ranks take part is called a **collective**. The one that data parallel training lives on is
# *all-reduce*: every rank hands in a tensor, and every rank gets their sum, in place.


# %%
def add_up():
    x = torch.tensor([float(dist.get_rank())])
    dist.all_reduce(x)
    return x.item()


# %% jupyter={"source_hidden": true}
predict(
    "Four ranks call add_up(). What does rank 2 return?",
    {
        "2.0": (
            "2.0 is what rank 2 hands in. The all-reduce is in place: it writes the sum over that "
            "number, on every rank."
        ),
        "6.0": (
            "All-reduce adds up what the ranks hand in, 0 + 1 + 2 + 3, and gives the sum to every one "
            "of them."
        ),
        "0.0": (
            "Rank 0's number on all ranks is what a broadcast would give. An all-reduce adds up the "
            "numbers of all ranks."
        ),
    },
    right=1,
)

# %% tags=["nbval-check-output"]
print(list(launch(add_up, 4)))

# %% [markdown]
# Every rank has the sum of all. Chapter 03 builds this operation out of `send` and `recv`, and counts its bytes.
#
# `launch` takes arguments for your function after the world size, and any number of ranks. (On a laptop, 64 of them start
# in a second or two.)


# %% tags=["nbval-check-output"]
def scaled_sum(factor):
    x = torch.tensor([float(dist.get_rank()) * factor])
    dist.all_reduce(x)
    return x.item()


print(launch(scaled_sum, 16, 10)[0])

# %% [markdown]
# ## When a rank fails
#
# Things go wrong, and with several processes they go wrong in several places at once. Below, rank 2 divides by zero. The
# other three wait for it in an all-reduce that can never happen.


# %% tags=["raises-exception"]
def average_of_inverses():
    x = torch.tensor([1 / (2 - dist.get_rank())])
    dist.all_reduce(x)
    return x / dist.get_world_size()


launch(average_of_inverses, 4)

# %% [markdown]
# Read it from the top: *which* rank failed, with *what*, at *which line*. Then what it did to the others: they lost their
# connection. That is a consequence, never the cause, though in a cluster's log it is often all that you see first.

# %% [markdown]
# ## Two ranks swap
#
# Two ranks want to swap tensors. Each sends its own, then receives the other's. It looks right.


# %%
def swap():
    mine = torch.full((3,), float(dist.get_rank()))
    theirs = torch.zeros(3)
    other = 1 - dist.get_rank()
    dist.send(mine, dst=other)
    dist.recv(theirs, src=other)
    return theirs


# %% jupyter={"source_hidden": true}
predict(
    "Two ranks call swap(). What happens?",
    {
        "They swap": (
            "Each line is right on its own. But `send` returns only when the other side has begun to "
            "receive, and neither rank comes that far."
        ),
        "Rank 0 swaps, rank 1 fails": (
            "Both ranks run the same lines at the same time, so neither is first; and waiting is not an "
            "error, so nothing fails."
        ),
        "Neither ever gets past dist.send": (
            "Each `send` waits for a `recv` that the other rank calls only after its own `send`. So "
            "both wait for ever."
        ),
    },
    right=2,
)

# %% tags=["raises-exception"]
launch(swap, 2)

# %% [markdown]
# A **deadlock**. `send` returns only when the other side has begun to receive, and the other side is itself still in
# `send`. Nobody made an error, so on a cluster nobody would report one: the job stands still until somebody looks at it, or until a time
# limit of many minutes ends it. Here every rank notes what it is about to do before it does it. `launch` reads those notes while the ranks run,
# and as soon as they *prove* that nobody can ever go on, it stops them and tells you who waits for whom, and at which line. A rank that is only slow is
# never accused; for one that does nothing at all there is `timeout_s` (60 seconds unless you say otherwise).
#
# The cure is an order in which somebody receives first. You will write it in the exercise.

# %% [markdown]
# ## What the ranks talk through
#
# The library that carries the messages is called the **backend**.

# %%
launch(add_up, 2).backend

# %% [markdown]
# *gloo* works between any processes, over ordinary network sockets. With a GPU for every rank `launch` picks *NCCL*,
# NVIDIA's library, instead. The calls that you write stay the same.
#
# They also stay the same on a cluster. There you put your function into a script, and PyTorch's own launcher, `torchrun`,
# starts it on every machine. Here is `add_up` once more, as such a script; it takes a few seconds, since each rank has to
# import PyTorch first:

# %%
import subprocess
import sys
import tempfile
from pathlib import Path

script = """
import torch
import torch.distributed as dist

dist.init_process_group("gloo")         # the one thing that launch() did for you
x = torch.tensor([float(dist.get_rank())])
dist.all_reduce(x)
if dist.get_rank() == 0:
    print("torchrun:", x.item())
dist.destroy_process_group()
"""

# %% tags=["nbval-check-output"]
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder, "add_up.py")
    path.write_text(script)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*torchrun, "--nproc-per-node=4", path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
print(done.stdout, end="")

# %% [markdown]
# ## Where this ends
#
# Your laptop has a few cores, and all ranks share them. So four ranks will not train four times as fast here; often they are
# slower than one. What is real is everything else: the processes, the messages, the order of events, the bytes, the
# memory each rank holds, and every number that comes out. The chapters measure those, and work out speed from them.

# %% [markdown]
# ## How well did you predict?

# %% jupyter={"source_hidden": true}
tally()

# %% [markdown]
# ## In five lines
#
# - A job is several processes that run the same program; its **rank** tells each of them which one it is.
# - Nothing is shared. What a rank knows of another, it was sent.
# - `send` and `recv` pair two ranks; a **collective** such as `all_reduce` takes all of them.
# - If one rank fails, the first cause matters; if all of them wait, look at where each one stands.
# - `launch(fn, world_size)` runs it here; `torchrun` runs the same function on a cluster.
#
# **To read:** Li et al. 2020, [*PyTorch Distributed: Experiences on Accelerating Data Parallel
# Training*](https://arxiv.org/abs/2006.15704), section 2: what a process group is and what it offers. Skip the rest until
# chapter 05.
#
# **Now you:** open [the exercise](../exercises/00_start_here.ipynb). You will make two ranks play ping-pong, lock four of
# them up on purpose, and set them free.
