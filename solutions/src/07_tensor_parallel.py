# %% [markdown]
# # Exercise 07 · Tensor parallel
#
# You write the two operators that tensor parallel is made of, put them around a linear layer, around attention and under the loss, and sort out which random numbers ranks share.
# Ten minutes each. Replace every `raise NotImplementedError(...)`, run the cell, then the check below it.
#
# The checks compare with one process, in float64, on several numbers of ranks, **and they count what was sent, forward and backward apart**. (They are folded; click the dots to read
# one.) `by_hand` stops an answer that calls what `course_lib.collectives.autograd`, `course_lib.parallel` or PyTorch's DTensor have ready-made: here you write it.
# To have the whole notebook graded: `course check exercises/07_tensor_parallel.ipynb`

# %%
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from course_lib import launch, span
from course_lib.grading import by_hand, check, seed
from course_lib.models.gpt import Attention

# %% [markdown]
# $t$ is the number of ranks. What they send is read from the trace, which knows what each of them handed to a collective; what becomes of that is what a ring sends. Of $N$ bytes, an all-reduce
# sends $2(t-1)N$ over all ranks together; an all-gather that gives $N$ bytes to everybody sends $(t-1)N$.


# %% id="support-numbers" jupyter={"source_hidden": true}
READY_MADE = "course_lib.collectives.autograd", "course_lib.parallel", "torch.distributed.tensor"


def randoms(number, *shapes):
    """Tensors of random numbers, float64."""
    generator = torch.Generator().manual_seed(number)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def part(tensor, dim):
    """This rank's part of a tensor that is cut along dim."""
    return tensor.chunk(dist.get_world_size(), dim)[dist.get_rank()]


def parts(tensor, dim, t):
    """What each of t ranks has of it: a part along dim, or all of it where dim is None."""
    return [tensor] * t if dim is None else list(tensor.chunk(t, dim))


def of_each(runs, name):
    """One result of every rank, for each number of ranks."""
    return {f"{t} ranks": [rank[name] for rank in run] for t, run in runs.items()}


def bytes_sent(trace):
    """How many bytes all ranks together sent."""
    return round(sum(event.ring_bytes for event in trace.events))


def calls(trace):
    """How many collectives the busiest rank called; with nobody to talk to, none counts."""
    events = [e for e in trace.of(kind="collective").events if len(e.ranks) > 1]
    return max(sum(e.rank == rank for e in events) for rank in range(trace.world_size))


# %% [markdown]
# ## 7.1 Column parallel
#
# $y = x\,W^\mathsf{T} + b$ with the *outputs* cut, in the order of the ranks. All of $x$, (…, in), is on every rank; $y$ is (…, out/t).
#
# - `f`: forward, `x`. Backward, the sum of the ranks' `dy`. Leave `dy` itself as it is: whoever handed it to you may need it.
# - `ColumnParallel(whole)` keeps this rank's slices of an `nn.Linear` as its parameters, `weight` (out/t, in) and `bias` (out/t), and lets go of the rest. $t$ divides *out*.
#
# Cost: nothing forward; one all-reduce of $\partial x$ backward.
#
# See for yourself, before the check does: what the first `print` shows, both ranks should show. Then take `f` out and look again.
#
# ```python
# whole, x = nn.Linear(3, 4), torch.ones(1, 3, requires_grad=True)
# print(torch.autograd.grad(whole(x).sum(), x))
# print(launch(lambda: torch.autograd.grad(ColumnParallel(whole)(x).sum(), x), 2))
# ```


# %% id="answer-7-1"
class AllReduceBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        """x itself."""
        ### BEGIN SOLUTION 7.1: column parallel
        return x.view_as(x)
        ### END SOLUTION

    @staticmethod
    def backward(ctx, dy):
        """The sum of dy over the ranks."""
        ### BEGIN SOLUTION 7.1: column parallel
        ### HINT dist.all_reduce changes the tensor that it is given; dy.clone() is yours
        dx = dy.clone()
        dist.all_reduce(dx)
        return dx
        ### END SOLUTION


def f(x):
    return AllReduceBackward.apply(x)


class ColumnParallel(nn.Module):
    def __init__(self, whole):
        """Keeps this rank's part of the nn.Linear `whole`."""
        super().__init__()
        ### BEGIN SOLUTION 7.1: column parallel
        ### HINT tensor.chunk(t, dim)[rank] is a view of all of it; nn.Parameter(view.detach().clone()) is a tensor of its own
        rank, t = dist.get_rank(), dist.get_world_size()
        self.weight = nn.Parameter(whole.weight.detach().chunk(t)[rank].clone())
        self.bias = nn.Parameter(whole.bias.detach().chunk(t)[rank].clone())
        ### END SOLUTION

    def forward(self, x):
        """(…, in) on every rank -> (…, out/t)."""
        ### BEGIN SOLUTION 7.1: column parallel
        return F.linear(f(x), self.weight, self.bias)
        ### END SOLUTION


# %% id="support-7-1" jupyter={"source_hidden": true}
B, S, IN, OUT = 2, 5, 24, 12


def linear_case(number):
    """An nn.Linear, x (b, s, in), and dy (b, s, out); neither of the two lies in order in memory."""
    torch.manual_seed(number)
    x, dy = randoms(number, (S, B, IN), (S, B, OUT))
    return nn.Linear(IN, OUT).double(), x.transpose(0, 1), dy.transpose(0, 1)


def rank_operator(answer, number):
    """On a rank: f or g alone, on numbers that only this rank has."""
    x, dy = randoms(100 * number + dist.get_rank(), (3, 4), (3, 4))
    x.requires_grad_()
    y = by_hand(answer, *READY_MADE)(x)
    by_hand(y.backward, *READY_MADE)(dy)
    return {"y": y, "dx": x.grad, "x after": x, "dy after": dy}


def operator_in_one_process(name, t, number):
    """The sum over t ranks of their x or dy, or each rank's own."""
    x, dy = zip(*(randoms(100 * number + rank, (3, 4), (3, 4)) for rank in range(t)))
    return {"sum x": [sum(x)] * t, "sum dy": [sum(dy)] * t, "x": list(x), "dy": list(dy)}[name]


def rank_layer(operator, layer_class, number, x_dim, y_dim):
    """On a rank: the operator alone; then the layer made from one nn.Linear, forward and backward."""
    whole, x, dy = linear_case(number)
    x = x if x_dim is None else part(x, x_dim)
    dy = dy if y_dim is None else part(dy, y_dim)
    x = x.detach().requires_grad_()
    alone = rank_operator(operator, number)

    def both_ways():
        layer = layer_class(whole)
        with span("forward"):
            y = layer(x)
        with span("backward"):
            y.backward(dy)
        return layer, y

    layer, y = by_hand(both_ways, *READY_MADE)()
    held = sum(p.untyped_storage().nbytes() for p in layer.parameters())
    grads = {"dx": x.grad, "dW": layer.weight.grad, "db": layer.bias.grad}
    return {"y": y, **grads, "held": held, **{f"{name} alone": value for name, value in alone.items()}}


def linear_in_one_process(name, t, number, dim):
    """What each of t ranks should have of it."""
    whole, x, dy = linear_case(number)
    x = x.detach().requires_grad_()
    y = whole(x)
    y.backward(dy)
    value = {"y": y, "dx": x.grad, "dW": whole.weight.grad, "db": whole.bias.grad}[name]
    return parts(value.detach(), dim, t)


# %% id="check-7-1" jupyter={"source_hidden": true}
with check("7.1") as c:
    runs = {t: launch(rank_layer, t, f, ColumnParallel, seed(), None, -1, timeout_s=20) for t in (1, 2, 4)}
    for name, key, want, hint in (
        ("f(x)", "y alone", "x", "forward, f does nothing: x itself"),
        ("dx of f", "dx alone", "sum dy", "backward, f adds up the ranks' dy: all_reduce, and divide by nothing"),
        ("dy after f's backward", "dy after alone", "dy", "dy belongs to others as well: all_reduce a clone of it"),
    ):
        c.equal(
            name,
            of_each(runs, key),
            lambda want=want: {f"{t} ranks": operator_in_one_process(want, t, seed()) for t in runs},
            hint=hint,
        )
    for name, dim, hint in (
        ("y", -1, "x @ weight.T + bias with this rank's rows of the weight and its part of the bias: chunk(t, 0)[rank] of both"),
        ("dx", None, "dy @ weight is a partial sum, one for each rank's outputs: x goes through f on its way in"),
        ("dW", 0, "this rank's rows are finished: nothing is added to them"),
        ("db", 0, "dy summed over all tokens, on the rank that has these outputs: finished"),
    ):
        c.equal(
            name,
            of_each(runs, name),
            lambda name=name, dim=dim: {f"{t} ranks": linear_in_one_process(name, t, seed(), dim) for t in runs},
            hint=hint,
        )
    c.at_most(
        "bytes of parameters held by 4 ranks",
        sum(of_each(runs, "held")["4 ranks"]),
        lambda: 8 * (IN * OUT + OUT),
        hint="right, but all of the weight is still there: a view keeps what it is a view of, so clone it",
    )
    c.at_most(
        "bytes sent forward by 4 ranks",
        bytes_sent(runs[4].trace.during("forward")),
        lambda: 0,
        hint="right, but too dear: these outputs need all of x, which is there, and no other rank's weight",
    )
    c.at_most(
        "bytes sent backward by 4 ranks",
        bytes_sent(runs[4].trace.during("backward")),
        lambda: 2 * (4 - 1) * 8 * B * S * IN,
        hint="right, but too dear: one all_reduce, of dx",
    )
    c.at_most(
        "collectives called backward",
        calls(runs[4].trace.during("backward")),
        lambda: 1,
        hint="right, but too many calls: one all_reduce of all of dx",
    )

# %% [markdown]
# ## 7.2 Row parallel
#
# The same product with the *inputs* cut: each rank has its part of $x$, (…, in/t), and what it computes is a summand. $y$ is (…, out), on every rank.
#
# - `g`: forward, the sum of the ranks' `x`; leave `x` as it is. Backward, `dy`.
# - `RowParallel(whole)` keeps `weight` (out, in/t), and **all of** `bias` (out): it is added once, and must have its whole gradient on every rank. Else the ranks' copies drift apart with the first step.
#
# Cost: one all-reduce of $y$ forward; nothing backward.
#
# See for yourself: column, then row, with ones everywhere. The first gives $3 + 1 = 4$, the second $4 \cdot 4 + 1 = 17$, on two ranks as on four.
#
# ```python
# first, second = nn.Linear(3, 4), nn.Linear(4, 1)
# for p in [*first.parameters(), *second.parameters()]: nn.init.ones_(p)
# print(launch(lambda: RowParallel(second)(ColumnParallel(first)(torch.ones(3))), 2))
# ```


# %% id="answer-7-2"
class AllReduceForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        """The sum of x over the ranks."""
        ### BEGIN SOLUTION 7.2: row parallel
        y = x.clone()
        dist.all_reduce(y)
        return y
        ### END SOLUTION

    @staticmethod
    def backward(ctx, dy):
        """dy itself."""
        ### BEGIN SOLUTION 7.2: row parallel
        ### HINT every rank goes on with the same y and gets the same dy: a summand's gradient is that of the sum
        return dy
        ### END SOLUTION


def g(x):
    return AllReduceForward.apply(x)


class RowParallel(nn.Module):
    def __init__(self, whole):
        """Keeps this rank's part of the nn.Linear `whole`."""
        super().__init__()
        ### BEGIN SOLUTION 7.2: row parallel
        weight = whole.weight.detach().chunk(dist.get_world_size(), dim=1)[dist.get_rank()]
        self.weight = nn.Parameter(weight.clone())
        self.bias = nn.Parameter(whole.bias.detach().clone())
        ### END SOLUTION

    def forward(self, x):
        """(…, in/t) -> (…, out) on every rank."""
        ### BEGIN SOLUTION 7.2: row parallel
        ### HINT what is added before g is added t times
        return g(F.linear(x, self.weight)) + self.bias
        ### END SOLUTION


# %% id="check-7-2" jupyter={"source_hidden": true}
with check("7.2") as c:
    runs = {t: launch(rank_layer, t, g, RowParallel, seed(), -1, None, timeout_s=20) for t in (1, 3, 4)}
    for name, key, want, hint in (
        ("g(x)", "y alone", "sum x", "forward, g adds up the ranks' x: all_reduce, and divide by nothing"),
        ("dx of g", "dx alone", "dy", "backward, g does nothing: dy itself, not its sum"),
        ("x after g", "x after alone", "x", "x belongs to others as well: all_reduce a clone of it"),
    ):
        c.equal(
            name,
            of_each(runs, key),
            lambda want=want: {f"{t} ranks": operator_in_one_process(want, t, seed()) for t in runs},
            hint=hint,
        )
    for name, dim, hint in (
        ("y", None, "x @ weight.T, through g, and then the bias, once: what is added before the sum is added t times"),
        ("dx", -1, "dy @ weight, this rank's inputs: finished, nothing is added"),
        ("dW", 1, "this rank's columns are finished: nothing is added to them"),
        ("db", None, "dy summed over all tokens, the same on every rank: the bias is whole and stands behind g"),
    ):
        c.equal(
            name,
            of_each(runs, name),
            lambda name=name, dim=dim: {f"{t} ranks": linear_in_one_process(name, t, seed(), dim) for t in runs},
            hint=hint,
        )
    c.at_most(
        "bytes of parameters held by 4 ranks",
        sum(of_each(runs, "held")["4 ranks"]),
        lambda: 8 * (IN * OUT + 4 * OUT),
        hint="right, but all of the weight is still there: a view keeps what it is a view of, so clone it",
    )
    c.at_most(
        "bytes sent backward by 4 ranks",
        bytes_sent(runs[4].trace.during("backward")),
        lambda: 0,
        hint="right, but too dear: all of dy is on every rank, and nobody needs more",
    )
    c.at_most(
        "bytes sent forward by 4 ranks",
        bytes_sent(runs[4].trace.during("forward")),
        lambda: 2 * (4 - 1) * 8 * B * S * OUT,
        hint="right, but too dear: one all_reduce, of y; x and the weights stay where they are",
    )
    c.at_most(
        "collectives called forward",
        calls(runs[4].trace.during("forward")),
        lambda: 1,
        hint="right, but too many calls: one all_reduce of all of y",
    )

# %% [markdown]
# ## 7.3 Attention by heads
#
# Causal attention of $a$ heads, of which this rank has $a/t$. It gets its slices as plain `nn.Linear`s with biases: `q`, `k` and `v` give $h/t$ numbers for each token, this rank's heads side by side; `o` takes those $h/t$
# and gives all $h$. **`o.bias` is all of the bias**, the same on every rank. Return what one process gets, (b, s, h), on every rank. `f` and `g` are yours from 7.1 and 7.2.
#
# Cost: one all-reduce forward, one backward, each of $b \cdot s \cdot h$ numbers.
#
# See for yourself: run the folded cell below, and then these two. How far are you off, and how often do you send?
#
# ```python
# run = launch(rank_attends, 2, attention_by_heads, 0)
# print((run[0]["y"] - attention_in_one_process("y", 2, 0)[0]).abs().max())
# run.trace
# ```


# %% id="answer-7-3"
def attention_by_heads(x, q, k, v, o, head_width):
    """x (b, s, h) on every rank -> (b, s, h) on every rank, with this rank's heads."""
    ### BEGIN SOLUTION 7.3: attention by heads
    ### HINT q(x).unflatten(-1, (-1, head_width)).transpose(1, 2) is (b, heads, s, head_width), for as many heads as there are
    ### HINT F.scaled_dot_product_attention(q, k, v, is_causal=True), and back: transpose(1, 2).flatten(2)
    ### HINT o(…) adds a bias; F.linear(…, o.weight) does not
    x = f(x)  # once: what q, k and v give back is added up before it is sent
    heads = [y(x).unflatten(-1, (-1, head_width)).transpose(1, 2) for y in (q, k, v)]
    found = F.scaled_dot_product_attention(*heads, is_causal=True)
    return g(F.linear(found.transpose(1, 2).flatten(2), o.weight)) + o.bias
    ### END SOLUTION


# %% id="support-7-3" jupyter={"source_hidden": true}
H, HEADS = 24, 12


def attention_case(number):
    """An attention of 12 heads, x (b, s, h), dy (b, s, h)."""
    torch.manual_seed(number)
    return Attention(H, HEADS).double(), *randoms(number, (B, S, H), (B, S, H))


def sliced(whole, dim):
    """A plain nn.Linear with this rank's part of a whole one; for dim 1 the bias is whole."""
    linear = nn.Linear(1, 1)
    linear.weight = nn.Parameter(part(whole.weight.detach(), dim).clone())
    linear.bias = nn.Parameter((whole.bias if dim else part(whole.bias, 0)).detach().clone())
    return linear


def rank_attends(answer, number):
    """On a rank: the answer with this rank's heads, forward and backward."""
    whole, x, dy = attention_case(number)
    slices = {name: sliced(getattr(whole, name), int(name == "o")) for name in "qkvo"}
    x.requires_grad_()

    def both_ways():
        with span("forward"):
            y = answer(x, *slices.values(), whole.head_width)
        with span("backward"):
            y.backward(dy)
        return y

    y = by_hand(both_ways, *READY_MADE)()
    grads = {name: [linear.weight.grad, linear.bias.grad] for name, linear in slices.items()}
    return {"y": y, "dx": x.grad, **grads}


def attention_in_one_process(name, t, number):
    """What each of t ranks should have of it."""
    whole, x, dy = attention_case(number)
    x.requires_grad_()
    y = whole(x)
    y.backward(dy)
    if name not in "qkvo":
        return [{"y": y, "dx": x.grad}[name]] * t
    linear = getattr(whole, name)
    weights = parts(linear.weight.grad, int(name == "o"), t)
    biases = parts(linear.bias.grad, None if name == "o" else 0, t)
    return [list(both) for both in zip(weights, biases)]


# %% id="check-7-3" jupyter={"source_hidden": true}
with check("7.3") as c:
    runs = {t: launch(rank_attends, t, attention_by_heads, seed(), timeout_s=20) for t in (1, 2, 4)}
    for name, hint in (
        ("y", "this rank's heads, causal, side by side through o.weight; then g, then o.bias once"),
        ("dx", "each rank's heads give a summand of it: x goes through f before q, k and v"),
        ("o", "the gradients of this rank's part of o.weight and of all of o.bias: finished; the bias stands behind g"),
        ("q", "the gradients of this rank's heads are finished: f stands before q, k and v, and nothing behind them but o and g"),
        ("k", "the gradients of this rank's heads are finished: f stands before q, k and v"),
        ("v", "the gradients of this rank's heads are finished: f stands before q, k and v"),
    ):
        c.equal(
            name if name in ("y", "dx") else f"weight and bias gradient of {name}",
            of_each(runs, name),
            lambda name=name: {f"{t} ranks": attention_in_one_process(name, t, seed()) for t in runs},
            hint=hint,
        )
    for way, hint in (
        ("forward", "one all_reduce, of what comes out of o; the heads and the weights stay where they are"),
        ("backward", "one f before q, k and v together, so that their dx are added up first and sent once"),
    ):
        c.at_most(
            f"bytes sent {way} by 4 ranks",
            bytes_sent(runs[4].trace.during(way)),
            lambda: 2 * (4 - 1) * 8 * B * S * H,
            hint=f"right, but too dear: {hint}",
        )
        c.at_most(
            f"collectives called {way}",
            calls(runs[4].trace.during(way)),
            lambda: 1,
            hint=f"right, but too many calls: {hint}",
        )

# %% [markdown]
# ## 7.4 The loss of a split vocabulary
#
# `logits` are (n, V/t): rank $r$ has the tokens from $rV/t$ up to $(r+1)V/t - 1$. `targets`, (n,), are tokens of the whole vocabulary, the same on every rank. Return the mean of
#
# $$ -\log \frac{e^{z_y}}{\sum_j e^{z_j}} $$
#
# over the targets that are not `ignore_index`, on every rank, as `F.cross_entropy` does in one process. `backward()` is called on every rank and must give this rank's part of the gradient. Logits may be
# ±1000, and $e^{1000}$ is no number that a computer has. Change neither `logits` nor `targets`.
#
# Cost: three all-reduces of $n$ numbers (or fewer, larger ones), none backward. **No tensor is larger than this rank's logits.**
#
# See for yourself: with all logits 0 the loss is $\log V$, and the gradient of each row adds up to 0 over all ranks.
#
# ```python
# print(launch(lambda: vocab_parallel_cross_entropy(torch.zeros(2, 5), torch.tensor([1, 8])).exp(), 2))  # 10
# ```


# %% id="answer-7-4"
def vocab_parallel_cross_entropy(logits, targets, ignore_index=-100):
    """The mean loss, on every rank, of logits (n, V/t) cut along the vocabulary and targets (n,)."""
    ### BEGIN SOLUTION 7.4: the loss of a split vocabulary
    ### HINT exp(z - m) does not overflow if m is the row's largest logit on all ranks: all_reduce with dist.ReduceOp.MAX, no gradient
    ### HINT targets - rank * V/t is an index into this rank's logits, where it is from 0 to V/t - 1; elsewhere, take any index and put a 0 in
    ### HINT g adds up over the ranks what each has of a sum, and knows its backward
    held = logits.shape[-1]
    largest = logits.detach().amax(-1)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    shifted = logits - largest[:, None]
    local = targets - dist.get_rank() * held
    mine = (local >= 0) & (local < held)
    picked = shifted.gather(-1, local.where(mine, 0)[:, None])[:, 0].where(mine, 0)
    total, picked = g(torch.stack((shifted.exp().sum(-1), picked)))  # (2, n), in one message
    return (total.log() - picked)[targets != ignore_index].mean()
    ### END SOLUTION


# %% id="support-7-4" jupyter={"source_hidden": true}
N, V = 8, 24
GRADIENT = "in each row that counts: softmax over all ranks, less 1 at the target, by the number of targets that count, times what backward is given"
LOSSES = {"no target ignored": -100, "some ignored": -100, "another ignore_index": 0, "logits of ±1000": -100}


class LargestTensor(TorchDispatchMode):
    """Notes the bytes of the largest tensor that an operation in its block made."""

    nbytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for made in result if isinstance(result, (tuple, list)) else [result]:
            if torch.is_tensor(made):
                self.nbytes = max(self.nbytes, made.untyped_storage().nbytes())
        return result


def loss_case(name, number):
    """Logits (n, V) and targets (n,) of one of LOSSES."""
    number += 1000 * list(LOSSES).index(name)
    (logits,) = randoms(number, (N, V))
    if "1000" in name:
        logits = 1000 * logits.sign() + logits
        for row in range(4):  # the largest, on one rank after the other, is far from what the others have
            logits[row], logits[row, (number + row * V // 4) % V] = -1000, 1000
        logits[4] -= 1000 * logits[4].sign() + 1000  # a row far below the others
    generator = torch.Generator().manual_seed(number)
    targets = torch.randint(1, V, (N,), generator=generator)
    targets[:4] = torch.tensor([0, V // 4, V // 2 - 1, V - 1])  # where slices begin and end
    if name in ("some ignored", "another ignore_index"):
        targets[1 + number % 4 :: 3] = LOSSES[name]
    return logits, targets


def rank_losses(answer, number):
    """On a rank: loss and gradient of all LOSSES from this rank's logits, and the largest tensor made."""
    yours, found = by_hand(answer, *READY_MADE), {}
    for name, ignore_index in LOSSES.items():
        logits, targets = loss_case(name, number)
        logits, args = part(logits, -1).clone().requires_grad_(), [] if ignore_index < 0 else [ignore_index]
        with LargestTensor() as largest:
            with span("forward " + name):
                loss = yours(logits, targets, *args)
            with span("backward " + name):
                by_hand(torch.autograd.backward, *READY_MADE)(loss, torch.tensor(3.0).double())
        found |= {name: loss, name + " grad": logits.grad, name + " inputs": [logits, targets]}
        found[name + " bytes"] = largest.nbytes
    return found


def loss_in_one_process(name, what, t, number):
    """What each of t ranks should have of it."""
    logits, targets = loss_case(name, number)
    if what == " inputs":
        return [[z, targets] for z in parts(logits, -1, t)]
    logits.requires_grad_()
    loss = F.cross_entropy(logits, targets, ignore_index=LOSSES[name])
    (3 * loss).backward()
    return [loss] * t if what == "" else parts(logits.grad, -1, t)


# %% id="check-7-4" jupyter={"source_hidden": true}
with check("7.4") as c:
    runs = {t: launch(rank_losses, t, vocab_parallel_cross_entropy, seed(), timeout_s=20) for t in (1, 2, 4)}
    hints = {
        "no target ignored": "log of the sum of exp(z - m) over all ranks, less the target's z - m, which one rank has; m is the largest z of all ranks",
        "some ignored": "the mean is over the targets that are not ignore_index, and is divided by their number",
        "another ignore_index": "ignore_index may be any number, a token of the vocabulary too",
        "logits of ±1000": "subtract the row's largest logit of all ranks before exp, and from the target's logit too",
    }
    for name, hint in hints.items():
        for what, says in (("", hint), (" grad", GRADIENT)):
            c.equal(
                f"{'gradient' if what else 'loss'}, {name}",
                of_each(runs, name + what),
                lambda name=name, what=what: {
                    f"{t} ranks": loss_in_one_process(name, what, t, seed()) for t in runs
                },
                hint=says,
            )
    c.equal(
        "logits and targets afterwards",
        of_each(runs, "some ignored inputs"),
        lambda: {f"{t} ranks": loss_in_one_process("some ignored", " inputs", t, seed()) for t in runs},
        hint="leave logits and targets as they are: a new tensor instead of -= and the like",
    )
    c.at_most(
        "bytes sent forward by 4 ranks",
        bytes_sent(runs[4].trace.during("forward some ignored")),
        lambda: 2 * (4 - 1) * 8 * 3 * N,
        hint="right, but too dear: for each target a maximum, a sum and a logit are enough; logits stay where they are",
    )
    c.at_most(
        "collectives called forward",
        calls(runs[4].trace.during("forward some ignored")),
        lambda: 3,
        hint="right, but too many calls: one all_reduce of all maxima, and one or two of sums",
    )
    c.at_most(
        "bytes sent backward by 4 ranks",
        bytes_sent(runs[4].trace.during("backward some ignored")),
        lambda: 0,
        hint="right, but too dear: all that backward needs is there when forward has ended",
    )
    c.at_most(
        "bytes of the largest tensor on 4 ranks",
        max(of_each(runs, "some ignored bytes")["4 ranks"]),
        lambda: 8 * N * V // 4,
        hint="right, but something of the whole vocabulary is made: nothing larger than this rank's logits is needed",
    )

# %% [markdown]
# ## 7.5 Which masks agree
#
# Ranks $0 \dots t-1$ hold one copy of the model, the next $t$ ranks another copy that has other samples, and so on. Write dropout for both kinds of activations: zero a number with probability `p`, multiply
# the others by $1/(1-p)$.
#
# - `whole(x, p)`: `x` is the same on all ranks of a copy, and must stay so. Other copies have other masks.
# - `cut(x, p)`: `x` is a part. No other rank has the same mask, and `whole` does not have it either.
#
# Each call has a new mask; the same `seed` gives the same masks again. Ranks may call `cut` differently often, and draw other random numbers in between: `whole` must not get out of step. Others count on PyTorch's own
# generator, that of `torch.manual_seed` and `torch.rand`: leave it as you found it.
#
# Cost: nothing is sent.
#
# See for yourself. Two copies, two calls: how many different rows should `whole` give, and how many `cut`?
#
# ```python
# def rows(name):
#     drop = getattr(Dropouts(0, 2), name)
#     return [drop(torch.ones(9), 0.5).int().tolist() for call in range(2)]
#
# print(launch(rows, 4, "whole"), launch(rows, 4, "cut"))
# ```


# %% id="answer-7-5"
class Dropouts:
    def __init__(self, seed, t):
        """seed is the same on all ranks; t ranks hold a copy of the model."""
        ### BEGIN SOLUTION 7.5: which masks agree
        ### HINT torch.Generator().manual_seed(number) is a generator of its own: two are enough
        ### HINT rank // t counts the copies; which number does each generator start from, and is it nobody else's?
        rank = dist.get_rank()
        self.agreeing = torch.Generator().manual_seed(2 * (seed + rank // t))
        self.own = torch.Generator().manual_seed(2 * (seed + rank) + 1)
        ### END SOLUTION

    def whole(self, x, p):
        """Dropout of an x that all ranks of a copy have."""
        ### BEGIN SOLUTION 7.5: which masks agree
        ### HINT torch.rand(x.shape, generator=generator) is below p with probability p
        return x * (torch.rand(x.shape, generator=self.agreeing) >= p) / (1 - p)
        ### END SOLUTION

    def cut(self, x, p):
        """Dropout of an x that is this rank's part."""
        ### BEGIN SOLUTION 7.5: which masks agree
        return x * (torch.rand(x.shape, generator=self.own) >= p) / (1 - p)
        ### END SOLUTION


# %% id="support-7-5" jupyter={"source_hidden": true}
P, SHAPE, VALUE = 0.25, (64, 64), 3.0


def rank_drops(answer, number):
    """On a rank of 4: for t = 1, 2 and 4, what two calls of whole and of cut do."""
    rank, found = dist.get_rank(), {}
    for t in (1, 2, 4):
        torch.manual_seed(rank)
        dropouts, calls_made = answer(number, t), []
        for _ in range(2):
            torch.rand(rank)  # others draw as well
            calls_made.append(dropped(dropouts.whole))
            calls_made += [dropped(dropouts.cut) for _ in range(rank + 1)][:1]
        found[t] = dict(zip(("first whole", "first cut", "second whole", "second cut"), calls_made))
        again = answer(number, t)
        found[t] |= {"whole, same seed": dropped(again.whole), "cut, same seed": dropped(again.cut)}
        found[t]["whole, other seed"] = dropped(answer(number + 123_457, t).whole)
        found[t]["torch.rand"] = torch.rand(3, dtype=torch.float64)
    return found


def dropped(drop):
    """Which numbers were kept, which values y and dx have, and x afterwards."""
    x = torch.full(SHAPE, VALUE, dtype=torch.float64, requires_grad=True)
    y = drop(x, P)
    y.sum().backward()
    values = {"y": y.unique(), "dx": x.grad.unique(), "dx less y / x": (x.grad - y / VALUE).abs().max()}
    return {"kept": y.detach() != 0, "values": values, "x": x[0, :2]}


CALLS = "first whole", "second whole", "first cut", "second cut"
CALLS += "whole, same seed", "cut, same seed", "whole, other seed"


def numbered(run, t):
    """All masks of four ranks by number, for each of CALLS: equal numbers are equal masks."""
    seen = {}
    return {
        call: [seen.setdefault(rank[t][call]["kept"].numpy().tobytes(), len(seen)) for rank in run]
        for call in CALLS
    }


def shares_kept(run):
    """The share that all masks together kept of each row and of each column."""
    kept = torch.stack([rank[t][call]["kept"] for rank in run for t in (1, 2, 4) for call in CALLS[:4]])
    return torch.cat([kept.double().mean((0, dim)) for dim in (1, 2)])


def rand_undisturbed(rank):
    torch.manual_seed(rank)
    for _ in range(2):
        torch.rand(rank)
    return torch.rand(3, dtype=torch.float64)


AGREEING = {
    1: [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15], [0, 1, 2, 3], [8, 9, 10, 11], [16, 17, 18, 19]],
    2: [[0, 0, 1, 1], [2, 2, 3, 3], [4, 5, 6, 7], [8, 9, 10, 11], [0, 0, 1, 1], [4, 5, 6, 7], [12, 12, 13, 13]],
    4: [[0, 0, 0, 0], [1, 1, 1, 1], [2, 3, 4, 5], [6, 7, 8, 9], [0, 0, 0, 0], [2, 3, 4, 5], [10, 10, 10, 10]],
}

# %% id="check-7-5" jupyter={"source_hidden": true}
with check("7.5") as c:
    run = launch(rank_drops, 4, Dropouts, seed(), timeout_s=20)
    c.equal(
        "values",
        {call: [rank[2][call]["values"] for rank in run] for call in CALLS[:4]},
        lambda: dict.fromkeys(
            CALLS[:4],
            [{"y": [0.0, VALUE / (1 - P)], "dx": [0.0, 1 / (1 - P)], "dx less y / x": 0.0}] * 4,
        ),
        hint=f"a kept number becomes x / (1 - p), and its gradient 1 / (1 - p): {VALUE} becomes {VALUE / (1 - P)} for p = {P}",
    )
    c.equal(
        "x afterwards",
        [rank[2]["first whole"]["x"] for rank in run],
        lambda: [[VALUE, VALUE]] * 4,
        hint="leave x as it is: y is a new tensor",
    )
    c.at_most(
        "distance of the share kept of a row or column from 1 - p",
        (shares_kept(run) - (1 - P)).abs().max().item(),
        lambda: 0.1,
        hint="zero with probability p, each number by itself",
    )
    masks = {t: numbered(run, t) for t in AGREEING}
    for i, hint in enumerate(
        (
            "one mask for the t ranks of a copy, another one for the next copy: start from seed and rank // t, whatever else is drawn",
            "a new mask in each call, and in step however often each rank calls cut: two generators, made once",
            "a mask that nobody else has, neither cut nor whole: no two generators may start from the same number",
            "a new mask in each call, on each rank its own",
            "from the same seed the same masks once more",
            "from the same seed the same masks once more",
            "from another seed other masks",
        )
    ):
        c.equal(
            f"masks of {CALLS[i]}",
            {f"t = {t}": masks[t][CALLS[i]] for t in masks},
            lambda i=i: {f"t = {t}": lists[i] for t, lists in AGREEING.items()},
            hint=f"{hint} (equal numbers: equal masks)",
        )
    c.equal(
        "what torch.rand gives afterwards",
        [rank[2]["torch.rand"] for rank in run],
        lambda: [rand_undisturbed(rank) for rank in range(4)],
        hint="leave PyTorch's own generator alone: torch.Generator() makes others",
    )
    c.at_most(
        "bytes sent by 4 ranks",
        bytes_sent(run.trace),
        lambda: 0,
        hint="right, but too dear: ranks that start from the same number draw the same mask, and need not send it",
    )

# %% [markdown]
# With `f`, `g`, a loss in three numbers a token, and two generators you have all that is special in a tensor parallel transformer. The norms and the sums between the blocks are still whole on every rank. That is for
# chapter 08.
