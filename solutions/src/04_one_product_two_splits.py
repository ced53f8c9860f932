# %% [markdown]
# # Exercise 04 · One product, two splits
#
# You cut a product by data and by model, forward and backward, and then two products in a row. Ten minutes each. Replace every
# `raise NotImplementedError(...)`, run the cell, then the check below it.
#
# The checks compare with one process, exactly, on several numbers of ranks; **and they count what was sent**. An answer that is right and sends
# more than it must is told so. To have the whole notebook graded: `course check exercises/04_one_product_two_splits.ipynb`

# %%
import re

import torch
import torch.distributed as dist

from course_lib import launch
from course_lib.grading import check, seed

# %% [markdown]
# As in the lesson: $x$ is $(i, k)$, $w$ is $(k, j)$, and $\text{out} = x\,w$ is $(i, j)$. All numbers are whole numbers in float64.
#
# What is sent is read from the run's trace. It knows what each rank handed to a collective; what becomes of that is what a ring sends: of $V$
# bytes, an all-reduce sends $2(n-1)V$ over all ranks together, and an all-gather that gives $V$ bytes to everybody $(n-1)V$.


# %% id="support-numbers"
def numbers(number, *shapes):
    """Matrices of random whole numbers from -9 to 9, as float64."""
    generator = torch.Generator().manual_seed(number)
    return [torch.randint(-9, 10, shape, generator=generator).double() for shape in shapes]


def bytes_sent(run):
    """How many bytes all ranks together sent."""
    return round(sum(event.ring_bytes for event in run.trace.events))


def calls(run):
    """How many collectives the busiest rank called; with nobody to talk to, none counts."""
    events = [e for e in run.trace.of(kind="collective").events if len(e.ranks) > 1]
    return max(sum(e.rank == rank for e in events) for rank in range(len(run)))


# %% [markdown]
# ## 4.1 My parts
#
# `cut` is the letter that is cut: `"i"`, `"j"` or `"k"`. Return what `rank` of `n` needs of $x$ and of $w$. A matrix that carries the letter is cut
# into $n$ equal parts, in the order of the ranks; one that lacks it is whole. Where $n$ does not divide the letter's length, raise a `ValueError` whose
# message names both numbers.
#
# Try it: `my_parts(torch.zeros(4, 5), torch.zeros(5, 8), "j", rank=0, n=2)`


# %% id="answer-4-1"
def my_parts(x, w, cut, rank, n):
    """(x_r, w_r): what `rank` of `n` needs of x (i, k) and w (k, j) when `cut` is cut."""
    ### BEGIN SOLUTION 4.1: cut the matrices that carry the letter
    ### HINT x carries i on dim 0 and k on dim 1; w carries k on dim 0 and j on dim 1
    ### HINT tensor.chunk(n, dim)[rank] is a part, if n divides tensor.shape[dim]
    parts = []
    for tensor, letters in ((x, "ik"), (w, "kj")):
        if cut in letters:
            dim = letters.index(cut)
            length = tensor.shape[dim]
            if length % n:
                raise ValueError(f"{n} ranks cannot share {length} numbers of {cut}.")
            tensor = tensor.chunk(n, dim)[rank]
        parts.append(tensor)
    return tuple(parts)
    ### END SOLUTION


# %% id="support-4-1" jupyter={"source_hidden": true}
def parts_of(tensor, dim, n):
    """What n ranks hold of it: parts along dim, or all of it where dim is None."""
    return [tensor] * n if dim is None else list(tensor.tensor_split(n, dim))


def refused(answer, cut, n, length):
    """Which of the two numbers the ValueError names, for x (4, 5) and w (5, 8)."""
    try:
        answer(torch.zeros(4, 5), torch.zeros(5, 8), cut, 0, n)
    except ValueError as error:
        named = re.findall(r"\d+", str(error))
        return [number for number in (length, n) if str(number) in named]
    return "no ValueError"


# %% id="check-4-1" jupyter={"source_hidden": true}
with check("4.1") as c:
    size = 2 + seed() % 5
    for cut, x_dim, w_dim, cases in (
        ("i", 0, None, [(2, (4, 5, 8)), (3, (3 * size, 5, 7))]),
        ("j", None, 1, [(2, (4, 5, 8)), (4, (3, 7, 4 * size))]),
        ("k", 1, 0, [(5, (4, 5, 8)), (3, (4, 3 * size, 5)), (1, (2, 3, 5))]),
    ):
        for n, (i, k, j) in cases:
            x, w = numbers(seed(), (i, k), (k, j))
            c.equal(
                f"{cut} on {n} ranks",
                {
                    f"{i}×{k} · {k}×{j}, rank {rank}": my_parts(x, w, cut, rank, n)
                    for rank in range(n)
                },
                lambda i=i, k=k, j=j, x=x, w=w, x_dim=x_dim, w_dim=w_dim, n=n: {
                    f"{i}×{k} · {k}×{j}, rank {rank}": both
                    for rank, both in enumerate(
                        zip(parts_of(x, x_dim, n), parts_of(w, w_dim, n), strict=True)
                    )
                },
                hint="cut each matrix that carries the letter, on its dim, in the order of the ranks",
            )
    for cut, n, length in (("i", 3, 4), ("j", 3, 8), ("k", 2, 5)):
        c.equal(
            f"{length} numbers on {n} ranks refused",
            refused(my_parts, cut, n, length),
            lambda n=n, length=length: [length, n],
            hint=f"where n does not divide it, a ValueError that names {length} and {n}",
        )

# %% [markdown]
# ## 4.2 By data
#
# The samples are cut. A rank has its rows `x_i`, all of `w`, and its rows `dout_i` of the gradient with respect to $\text{out}$. It returns
#
# - `out_i`, its rows of $\text{out}$, and `dx_i`, its rows of $\partial x$,
# - `dw`: all of $\partial w$, **on every rank**, of all samples.
#
# Cost: one collective, and of no more values than $w$ has. `dout` is the gradient of one loss of all samples, so nothing is divided.


# %% id="answer-4-2"
def by_data(x_i, w, dout_i):
    """(out_i, dx_i, dw) of a rank that has some of the samples."""
    ### BEGIN SOLUTION 4.2: forward and backward, split by data
    ### HINT out = x w,  dx = dout wᵀ,  dw = xᵀ dout
    ### HINT which of the three sums over the samples? Its partial sums must be added up
    dw = x_i.T @ dout_i
    dist.all_reduce(dw)
    return x_i @ w, dout_i @ w.T, dw
    ### END SOLUTION


# %% id="support-4-2" jupyter={"source_hidden": true}
def rank_by_data(answer, number, shapes):
    """On a rank: its rows only, then the answer."""
    rank, n = dist.get_rank(), dist.get_world_size()
    x, w, dout = numbers(number, *shapes)
    out, dx, dw = answer(x.chunk(n)[rank].clone(), w, dout.chunk(n)[rank].clone())
    return {"out": out, "dx": dx, "dw": dw}


def of_all(runs, name):
    """One result of every rank, for each number of ranks."""
    return {f"{n} ranks": [rank[name] for rank in run] for n, run in runs.items()}


def by_data_in_one_process(name, n, number, shapes):
    """What n ranks should return."""
    x, w, dout = numbers(number, *shapes)
    whole = {"out": x @ w, "dx": dout @ w.T, "dw": x.T @ dout}[name]
    return [whole] * n if name == "dw" else list(whole.chunk(n))


# %% id="check-4-2" jupyter={"source_hidden": true}
with check("4.2") as c:
    k, j = 3 + seed() % 3, 4
    shapes = (24, k), (k, j), (24, j)
    runs = {n: launch(rank_by_data, n, by_data, seed(), shapes, timeout_s=20) for n in (1, 2, 3)}
    for name, hint in (
        ("out", "x_i @ w: these rows are finished, nothing is added to them"),
        ("dx", "dout_i @ w.T: it sums over the outputs, and those are not cut"),
        ("dw", "x_i.T @ dout_i is a partial sum: all_reduce adds them up; divide by nothing"),
    ):
        c.equal(
            name,
            of_all(runs, name),
            lambda name=name: {
                f"{n} ranks": by_data_in_one_process(name, n, seed(), shapes) for n in (1, 2, 3)
            },
            hint=hint,
        )
    c.at_most(
        "bytes sent by 3 ranks",
        bytes_sent(runs[3]),
        lambda: 2 * (3 - 1) * 8 * k * j,
        hint="right, but too dear: send only the partial sums of dw, by an all_reduce",
    )
    c.at_most(
        "collectives called",
        calls(runs[3]),
        lambda: 1,
        hint="right, but too many calls: one all_reduce of all of dw",
    )

# %% [markdown]
# ## 4.3 By model
#
# The outputs are cut. A rank has all of `x` and its columns `w_j`. It returns
#
# - `out`: **all** of it, on every rank, because the next layer wants it as its input,
# - `dx`: all of $\partial x$, on every rank,
# - `dw_j`: the gradient of its own columns.
#
# As every rank has all of $\text{out}$, every rank is given all of `dout`. Write forward and backward into one function.
# Cost: two collectives; the weights are the large ones here and must not be sent.


# %% id="answer-4-3"
def by_model(x, w_j, dout):
    """(out, dx, dw_j) of a rank that has some of the columns of w."""
    ### BEGIN SOLUTION 4.3: forward and backward, split by model
    ### HINT forward: the ranks' columns side by side: dist.all_gather into a list, then torch.cat
    ### HINT backward: which columns of dout belong to w_j? And which gradient sums over the columns?
    rank, n = dist.get_rank(), dist.get_world_size()
    out_j = x @ w_j
    parts = [torch.empty_like(out_j) for _ in range(n)]
    dist.all_gather(parts, out_j)
    dout_j = dout.chunk(n, dim=1)[rank]
    dx = dout_j @ w_j.T
    dist.all_reduce(dx)
    return torch.cat(parts, dim=1), dx, x.T @ dout_j
    ### END SOLUTION


# %% id="support-4-3" jupyter={"source_hidden": true}
def rank_by_model(answer, number, shapes):
    """On a rank: all of x and dout, its columns of w only, then the answer."""
    rank, n = dist.get_rank(), dist.get_world_size()
    x, w, dout = numbers(number, *shapes)
    out, dx, dw = answer(x, w.chunk(n, dim=1)[rank].clone(), dout)
    return {"out": out, "dx": dx, "dw": dw}


def by_model_in_one_process(name, n, number, shapes):
    """What n ranks should return."""
    x, w, dout = numbers(number, *shapes)
    whole = {"out": x @ w, "dx": dout @ w.T, "dw": x.T @ dout}[name]
    return list(whole.chunk(n, dim=1)) if name == "dw" else [whole] * n


# %% id="check-4-3" jupyter={"source_hidden": true}
with check("4.3") as c:
    k, j = 12 + seed() % 5, 24
    shapes = (2, k), (k, j), (2, j)
    runs = {n: launch(rank_by_model, n, by_model, seed(), shapes, timeout_s=20) for n in (1, 2, 4)}
    for name, hint in (
        ("out", "all columns side by side, in the order of the ranks: torch.cat(parts, dim=1)"),
        ("dx", "(this rank's columns of dout) @ w_j.T is a partial sum: all_reduce it"),
        ("dw", "x.T @ (this rank's columns of dout): finished, there is nothing to add"),
    ):
        c.equal(
            name,
            of_all(runs, name),
            lambda name=name: {
                f"{n} ranks": by_model_in_one_process(name, n, seed(), shapes) for n in (1, 2, 4)
            },
            hint=hint,
        )
    c.at_most(
        "bytes sent by 4 ranks",
        bytes_sent(runs[4]),
        lambda: (4 - 1) * 8 * (2 * j + 2 * 2 * k),
        hint="right, but too dear: all_gather out, all_reduce dx, and send no weights",
    )
    c.at_most(
        "collectives called",
        calls(runs[4]),
        lambda: 2,
        hint="right, but too many calls: one all_gather and one all_reduce",
    )

# %% [markdown]
# ## 4.4 Two products in a row
#
# $y = \text{relu}(x\,a)\,b$, forward only. A rank has all of `x`, some columns of $a$, and **the rows of $b$ that go with them**. It returns all of $y$, on
# every rank. Cost: one collective, of no more values than $y$ has.


# %% id="answer-4-4"
def two_products(x, a_j, b_j):
    """relu(x a) b, whole on every rank: a_j are some columns of a, b_j the same rows of b."""
    ### BEGIN SOLUTION 4.4: column, then row, and one collective
    ### HINT relu(x a_j) has the columns that b_j's rows need: multiply them where they are
    ### HINT the second product sums over what is cut
    y = torch.relu(x @ a_j) @ b_j
    dist.all_reduce(y)
    return y
    ### END SOLUTION


# %% id="support-4-4" jupyter={"source_hidden": true}
def rank_two_products(answer, number, shapes):
    """On a rank: all of x, its columns of a and rows of b, then the answer."""
    rank, n = dist.get_rank(), dist.get_world_size()
    x, a, b = numbers(number, *shapes)
    return answer(x, a.chunk(n, dim=1)[rank].clone(), b.chunk(n, dim=0)[rank].clone())


# %% id="check-4-4" jupyter={"source_hidden": true}
with check("4.4") as c:
    k = 4 + seed() % 3
    shapes = (3, k), (k, 12), (12, 5)
    runs = {
        n: launch(rank_two_products, n, two_products, seed(), shapes, timeout_s=20)
        for n in (1, 2, 3)
    }
    x, a, b = numbers(seed(), *shapes)
    c.equal(
        "y",
        {f"{n} ranks": list(run) for n, run in runs.items()},
        lambda: {f"{n} ranks": [torch.relu(x @ a) @ b] * n for n in (1, 2, 3)},
        hint="relu(x @ a_j) @ b_j is a partial sum of y: all_reduce it, after the second product",
    )
    c.at_most(
        "bytes sent by 3 ranks",
        bytes_sent(runs[3]),
        lambda: 2 * (3 - 1) * 8 * 3 * 5,
        hint="right, but too dear: leave relu(x @ a_j) where it is and send only y",
    )
    c.at_most(
        "collectives called",
        calls(runs[3]),
        lambda: 1,
        hint="right, but too many calls: one all_reduce, at the end",
    )

# %% [markdown]
# With 4.2 you have the heart of chapter 05, with 4.3 and 4.4 that of chapter 07.
