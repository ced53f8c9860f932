"""Answers to the exercise of chapter 06: plausible wrong ones, and right ones that are not the teacher's."""

RANKS = """def ranks_needed(num_parameters, memory_bytes, stage):
    shared = [0, 12, 14, 16][stage] * num_parameters
    whole = 16 * num_parameters - shared
    if whole > memory_bytes or (whole == memory_bytes and shared): return None
    return -(-shared // (memory_bytes - whole)) if shared else 1"""

REDUCE = """def reduce_to_owners(parameters):
    rank, n = dist.get_rank(), dist.get_world_size()
    for i, p in enumerate(parameters):
        if p.grad is not None:
            dist.reduce(p.grad, dst=i % n)
            p.grad = p.grad / n if i % n == rank else None"""

STEP = """class ShardedOptimizer:
    def __init__(self, parameters, make_optimizer):
        self.parameters = list(parameters)
        rank, n = dist.get_rank(), dist.get_world_size()
        self.mine = [p for i, p in enumerate(self.parameters) if i % n == rank]
        self.optimizer = make_optimizer(self.mine) if self.mine else None
    def step(self):
        if self.optimizer: self.optimizer.step()
        for i, p in enumerate(self.parameters):
            dist.broadcast(p.data, i % dist.get_world_size())"""

GATHER = """class GatherOnUse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, shard, out_features):
        ctx.save_for_backward(x, shard)
        whole = shard.new_zeros(dist.get_world_size() * len(shard), shard.shape[1])
        dist.all_gather_single(whole, shard.detach())
        return x @ whole[:out_features].T
    @staticmethod
    def backward(ctx, dy):
        x, shard = ctx.saved_tensors
        n = dist.get_world_size()
        whole = shard.new_zeros(n * len(shard), shard.shape[1])
        dist.all_gather_single(whole, shard.detach())
        dx = dy @ whole[:dy.shape[1]]
        whole.zero_()
        whole[:dy.shape[1]] = dy.T @ x
        mine = torch.zeros_like(shard)
        dist.reduce_scatter_single(mine, whole)
        return dx, mine / n, None

def sharded_linear(x, shard, out_features):
    return GatherOnUse.apply(x, shard, out_features)"""


def but(answer, *changes):
    """The answer with one thing in it changed."""
    for old, new in changes:
        assert old in answer, old
        answer = answer.replace(old, new)
    return answer


REGATHER = """        whole = shard.new_zeros(n * len(shard), shard.shape[1])
        dist.all_gather_single(whole, shard.detach())
        dx = dy @ whole[:dy.shape[1]]
        whole.zero_()
"""
KEPT = """        dx = dy @ ctx.whole[:dy.shape[1]]
        whole = torch.zeros_like(ctx.whole)
"""
SCATTER = "dist.reduce_scatter_single(mine, whole)"
TOO_DEAR = r"bytes sent by .*too dear"
STILL_THERE = "bytes kept for backward.*gathered weight is still there"

# task -> (answer, words that the verdict must hold); an answer is a whole cell, `def` included
WRONG = {
    "6.1": [
        # all 16 bytes shared out, whatever the stage
        (
            "def ranks_needed(num_parameters, memory_bytes, stage): return -(-16 * num_parameters // memory_bytes)",
            "stage 0.*nothing is shared",
        ),
        (but(RANKS, ("[0, 12, 14, 16]", "[0, 8, 12, 16]")), "stage 1.*12 of the 16"),
        (but(RANKS, ("[0, 12, 14, 16]", "[0, 12, 12, 16]")), "stage 2.*weights stay"),
        (but(RANKS, ("[0, 12, 14, 16]", "[0, 12, 14, 14]")), "stage 3.*all 16"),
        (but(RANKS, ("[0, 12, 14, 16]", "[12, 14, 16, 16]")), "stage 0"),
        # rounds down
        (but(RANKS, ("-(-shared // (memory_bytes - whole))", "shared // (memory_bytes - whole)")), "stage 1"),
        # one rank more than needed where it just fits
        (but(RANKS, ("-(-shared // (memory_bytes - whole))", "shared // (memory_bytes - whole) + 1")), "stage 1"),
        # forgets that what stays whole takes room too
        (but(RANKS, ("(memory_bytes - whole)", "memory_bytes")), "stage 1"),
        # no number of ranks is enough, and it gives one
        (but(RANKS, ("return None", "return 0")), "stage 0"),
        (but(RANKS, (" or (whole == memory_bytes and shared)", "")), "ZeroDivisionError"),
        (but(RANKS, (" or (whole == memory_bytes and shared)", " or whole == memory_bytes")), "stage 0"),
    ],
    "6.2": [
        ("def reduce_to_owners(parameters): pass", "gradients held.*only the owner keeps"),
        # data parallel as ever: right gradients, on every rank
        (
            """def reduce_to_owners(parameters):
    for p in parameters:
        if p.grad is not None: dist.all_reduce(p.grad); p.grad /= dist.get_world_size()""",
            "gradients held.*only the owner keeps",
        ),
        (but(REDUCE, ("p.grad / n if i % n == rank else None", "p.grad / n")), "gradients held"),
        (but(REDUCE, ("p.grad / n if", "p.grad if")), "mean at the owner.*divide"),
        (but(REDUCE, ("            dist.reduce(p.grad, dst=i % n)\n", "")), "mean at the owner"),
        (but(REDUCE, ("dst=i % n)", "dst=0)")), "mean at the owner"),
        # zeros are no freed gradients
        (but(REDUCE, ("else None", "else torch.zeros_like(p.grad)")), "gradients held"),
        (but(REDUCE, ("dist.reduce(p.grad, dst=i % n)", "dist.all_reduce(p.grad)")), TOO_DEAR),
        # blocks of parameters instead of in turn
        (but(REDUCE, ("i % n", "min(i, n - 1)")), "gradients held"),
        # the frozen one is not counted when they are numbered
        (
            but(REDUCE, ("enumerate(parameters)", "enumerate([p for p in parameters if p.requires_grad])")),
            "gradients held",
        ),
        # a frozen one
        (but(REDUCE, ("if p.grad is not None", "if True")), "RankError"),
        # only the owner calls
        (
            but(
                REDUCE,
                (
                    "            dist.reduce(p.grad, dst=i % n)\n",
                    "            if i % n == rank: dist.reduce(p.grad, dst=rank)\n",
                ),
            ),
            "RankDeadlock|RankMismatch|RankTimeout",
        ),
        # more ranks than parameters
        (
            but(REDUCE, ("    for i", "    if rank >= len(parameters): return\n    for i")),
            "RankDeadlock|RankMismatch|RankTimeout",
        ),
    ],
    "6.3": [
        # not sharded at all: only the parameters that have a gradient here are stepped, and nobody says so
        (
            """class ShardedOptimizer:
    def __init__(self, parameters, make_optimizer): self.optimizer = make_optimizer(parameters)
    def step(self): self.optimizer.step()""",
            "weights, Adam.*broadcast",
        ),
        # the same, and gradients are brought back first: right, with all of the state on every rank
        (
            """class ShardedOptimizer:
    def __init__(self, parameters, make_optimizer):
        self.parameters = list(parameters); self.optimizer = make_optimizer(self.parameters)
    def step(self):
        for i, p in enumerate(self.parameters):
            if p.grad is None: p.grad = torch.zeros_like(p)
            dist.broadcast(p.grad, i % dist.get_world_size())
        self.optimizer.step()""",
            "bytes of state for what others own, Adam.*too much",
        ),
        # Adam makes no state without a gradient; Adagrad does
        (
            but(STEP, ("make_optimizer(self.mine) if self.mine else None", "make_optimizer(self.parameters)")),
            "bytes of state for what others own, Adagrad.*too much",
        ),
        (but(STEP, (" if self.mine else None", "")), "empty parameter list"),
        # a rank with nothing to own goes home
        (
            but(
                STEP,
                ("if self.optimizer: self.optimizer.step()", "if not self.mine: return\n        self.optimizer.step()"),
            ),
            "RankDeadlock|RankMismatch|RankTimeout",
        ),
        # no broadcast
        (STEP[: STEP.index("        for i, p in enumerate(self.parameters):\n")], "weights, Adam.*broadcast"),
        (
            but(STEP, ("dist.broadcast(p.data, i % dist.get_world_size())", "dist.broadcast(p.data, 0)")),
            "weights, Adam",
        ),
        # the broadcast before the step
        (
            """class ShardedOptimizer:
    def __init__(self, parameters, make_optimizer):
        self.parameters = list(parameters)
        mine = self.parameters[dist.get_rank()::dist.get_world_size()]
        self.optimizer = make_optimizer(mine) if mine else None
    def step(self):
        for i, p in enumerate(self.parameters): dist.broadcast(p.data, i % dist.get_world_size())
        if self.optimizer: self.optimizer.step()""",
            "weights, Adam",
        ),
        # a mean of one new copy and n - 1 old ones
        (
            but(
                STEP,
                (
                    "dist.broadcast(p.data, i % dist.get_world_size())",
                    "dist.all_reduce(p.data); p.data /= dist.get_world_size()",
                ),
            ),
            "weights, Adam",
        ),
        # zeros from those that do not own it: right, but twice the bytes
        (
            but(
                STEP,
                (
                    "dist.broadcast(p.data, i % dist.get_world_size())",
                    "p.data *= i % dist.get_world_size() == dist.get_rank(); dist.all_reduce(p.data)",
                ),
            ),
            TOO_DEAR,
        ),
        # ownership in blocks: the gradients are elsewhere
        (but(STEP, ("if i % n == rank]", "if i * n // len(self.parameters) == rank]")), "weights, Adam"),
        # a new optimizer each time forgets its state
        (
            but(
                STEP,
                ("if self.optimizer: self.optimizer.step()", "if self.mine: self.make(self.mine).step()"),
                ("        self.parameters =", "        self.make = make_optimizer; self.parameters ="),
            ),
            "weights, Adam",
        ),
        # all broadcasts from one rank's point of view
        (
            but(STEP, ("dist.broadcast(p.data, i % dist.get_world_size())", "dist.broadcast(p.data, dist.get_rank())")),
            "RankMismatch|RankDeadlock|RankTimeout",
        ),
        # broadcasts copies, not the parameters
        (but(STEP, ("dist.broadcast(p.data,", "dist.broadcast(p.detach().clone(),")), "weights, Adam.*in place"),
    ],
    "6.4": [
        # no rank talks
        ("def sharded_linear(x, shard, out_features): return x @ shard.T", "y:|y.*gathered rows|RankError"),
        # an all-gather that autograd knows adds up the gradients
        (
            """from course_lib.collectives.autograd import gather_sequence
def sharded_linear(x, shard, out_features):
    return F.linear(x, gather_sequence(shard, check=False)[:out_features])""",
            "dW.*divided by their number",
        ),
        (
            """from course_lib.collectives.autograd import gather_sequence
class Mean(torch.autograd.Function):
    forward = staticmethod(lambda ctx, shard: shard.view_as(shard))
    backward = staticmethod(lambda ctx, grad: grad / dist.get_world_size())
def sharded_linear(x, shard, out_features):
    return F.linear(x, gather_sequence(Mean.apply(shard), check=False)[:out_features])""",
            STILL_THERE,
        ),
        (
            but(
                GATHER,
                ("        ctx.save_for_backward(x, shard)\n", ""),
                (
                    "        return x @ whole",
                    "        ctx.save_for_backward(x, shard, whole)\n        return x @ whole",
                ),
                ("x, shard = ctx.saved", "x, shard, ctx.whole = ctx.saved"),
                (REGATHER, KEPT),
            ),
            STILL_THERE,
        ),
        # the same, kept on ctx, where autograd does not see it
        (
            but(
                GATHER,
                ("        return x @ whole", "        ctx.whole = whole\n        return x @ whole"),
                (REGATHER, KEPT),
            ),
            STILL_THERE,
        ),
        # gathers again, and keeps it all the same
        (but(GATHER, ("        return x @ whole", "        ctx.whole = whole\n        return x @ whole")), STILL_THERE),
        # a view keeps what it is a view of
        (
            but(
                GATHER,
                ("        return x @ whole", "        ctx.weight = whole[:out_features]\n        return x @ whole"),
            ),
            STILL_THERE,
        ),
        (but(GATHER, ("mine / n", "mine")), "dW.*divided by their number"),
        (but(GATHER, ("return dx, mine / n", "return dx / n, mine / n")), "dx.*nothing is added"),
        (but(GATHER, ("return dx, mine", "dist.all_reduce(dx); return dx, mine")), "dx.*nothing is added"),
        # this rank's rows of its own gradient: what the others' samples say is lost
        (but(GATHER, (SCATTER, "mine = whole.chunk(n)[dist.get_rank()] * n")), "dW.*reduce_scatter"),
        # padding rows in y
        (but(GATHER, ("whole[:out_features].T", "whole.T")), "y|RankError"),
        (but(GATHER, (SCATTER, "dist.all_reduce(whole); mine = whole.chunk(n)[dist.get_rank()].clone()")), TOO_DEAR),
        # everything to everybody, then add
        (
            but(
                GATHER,
                (
                    SCATTER,
                    "every = whole.new_zeros(n * len(whole), whole.shape[1]); dist.all_gather_single(every, whole); mine = every.view(n, *whole.shape).sum(0).chunk(n)[dist.get_rank()].clone()",
                ),
            ),
            TOO_DEAR,
        ),
        # the transposed gradient
        (but(GATHER, ("dy.T @ x", "(x.T @ dy).T * 2")), "dW"),
        # only as many rows as this rank's shard
        (
            but(
                GATHER,
                (
                    "dist.get_world_size() * len(shard), shard.shape[1])\n        dist.all_gather_single(whole, shard.detach())\n        return",
                    "len(shard), shard.shape[1])\n        dist.all_reduce(whole)\n        return",
                ),
            ),
            "RankError|y",
        ),
    ],
}

# task -> answers that must be accepted
RIGHT = {
    "6.1": [
        """def ranks_needed(num_parameters, memory_bytes, stage):
    fits = lambda n: (16 if stage == 0 else 4 + 12 / n if stage == 1 else 2 + 14 / n if stage == 2 else 16 / n) * num_parameters <= memory_bytes
    return next((n for n in range(1, 2000) if fits(n)), None)""",
        """from fractions import Fraction
from math import ceil
def ranks_needed(num_parameters, memory_bytes, stage):
    kinds = [12, 2, 2]
    shared, whole = sum(kinds[:stage]) * num_parameters, sum(kinds[stage:]) * num_parameters
    if not shared: return 1 if whole <= memory_bytes else None
    return ceil(Fraction(shared, memory_bytes - whole)) if whole < memory_bytes else None""",
    ],
    "6.2": [
        # all under way at once, freed by a list comprehension of its own
        """def reduce_to_owners(parameters):
    rank, n = dist.get_rank(), dist.get_world_size()
    trained = [(i % n, p) for i, p in enumerate(parameters) if p.grad is not None]
    works = [dist.reduce(p.grad.div_(n), owner, async_op=True) for owner, p in trained]
    for work in works: work.wait()
    for owner, p in trained:
        if owner != rank: p.grad = None""",
        # with messages only
        """def reduce_to_owners(parameters):
    rank, n = dist.get_rank(), dist.get_world_size()
    for i, p in enumerate(parameters):
        if not p.requires_grad: continue
        if i % n == rank:
            for other in range(n):
                if other != rank:
                    theirs = torch.empty_like(p.grad); dist.recv(theirs, other); p.grad += theirs
            p.grad /= n
        else:
            dist.send(p.grad, i % n); p.grad = None""",
        # gathered by the owner, which adds them up
        """def reduce_to_owners(parameters):
    rank, n = dist.get_rank(), dist.get_world_size()
    for i, p in enumerate(parameters):
        if p.grad is None: continue
        mine = i % n == rank
        parts = [torch.empty_like(p.grad) for _ in range(n)] if mine else None
        dist.gather(p.grad, parts, dst=i % n)
        p.grad = torch.stack(parts).mean(0) if mine else None""",
    ],
    "6.3": [
        """class ShardedOptimizer:
    def __init__(self, parameters, make_optimizer):
        rank, n = dist.get_rank(), dist.get_world_size()
        self.owned = [(i % n, p) for i, p in enumerate(parameters)]
        mine = [p for owner, p in self.owned if owner == rank]
        self.steps = [make_optimizer([p]).step for p in mine]
    def step(self):
        for step in self.steps: step()
        works = [dist.broadcast(p.detach(), owner, async_op=True) for owner, p in self.owned]
        for work in works: work.wait()""",
        # a placeholder for a rank with nothing to own
        """class ShardedOptimizer:
    def __init__(self, parameters, make_optimizer):
        self.p = list(parameters); self.r, self.n = dist.get_rank(), dist.get_world_size()
        self.o = make_optimizer(self.p[self.r::self.n] or [nn.Parameter(torch.empty(0))])
    @torch.no_grad()
    def step(self):
        self.o.step()
        for first in range(0, len(self.p), self.n):
            for owner, p in enumerate(self.p[first : first + self.n]): dist.broadcast(p, owner)""",
        # all parameters of an owner in one message
        """class ShardedOptimizer:
    def __init__(self, parameters, make_optimizer):
        every, n = list(parameters), dist.get_world_size()
        self.of = [every[owner::n] for owner in range(n)]
        mine = self.of[dist.get_rank()]
        self.optimizer = make_optimizer(mine) if mine else None
    def step(self):
        if self.optimizer: self.optimizer.step()
        for owner, owned in enumerate(self.of):
            if owned:
                flat = torch.cat([p.detach().flatten() for p in owned])
                dist.broadcast(flat, owner)
                for p, values in zip(owned, flat.split([p.numel() for p in owned])): p.data.copy_(values.view_as(p))""",
    ],
    "6.4": [
        # lists instead of one tensor, and a sum after an all-to-all
        """class GatherOnUse(torch.autograd.Function):
    @staticmethod
    def weight(shard, rows):
        parts = [torch.empty_like(shard) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, shard.detach())
        return torch.cat(parts)[:rows]
    @staticmethod
    def forward(ctx, x, shard, out_features):
        ctx.save_for_backward(x.clone(), shard)
        return F.linear(x, GatherOnUse.weight(shard, out_features))
    @staticmethod
    def backward(ctx, dy):
        x, shard = ctx.saved_tensors
        n = dist.get_world_size()
        dx = dy @ GatherOnUse.weight(shard, dy.shape[1])
        dW = F.pad(dy, (0, n * len(shard) - dy.shape[1])).T @ x
        parts = torch.empty_like(dW)
        dist.all_to_all_single(parts, dW)
        return dx, parts.view(n, *shard.shape).mean(0), None
def sharded_linear(x, shard, out_features):
    return GatherOnUse.apply(x, shard, out_features)""",
        # ordinary autograd over a differentiable gather, and checkpointing gathers again
        """from torch.utils.checkpoint import checkpoint
from course_lib.collectives.autograd import gather_sequence
class Mean(torch.autograd.Function):
    forward = staticmethod(lambda ctx, shard: shard.view_as(shard))
    backward = staticmethod(lambda ctx, grad: grad / dist.get_world_size())
def linear(x, shard, out_features):
    return F.linear(x, gather_sequence(Mean.apply(shard), check=False)[:out_features])
def sharded_linear(x, shard, out_features):
    return checkpoint(linear, x, shard, out_features, use_reentrant=False)""",
        # what autograd would keep is packed: the shard for the weight
        """from course_lib.collectives.autograd import gather_sequence
class Mean(torch.autograd.Function):
    forward = staticmethod(lambda ctx, shard: shard.view_as(shard))
    backward = staticmethod(lambda ctx, grad: grad / dist.get_world_size())
def sharded_linear(x, shard, out_features):
    whole = gather_sequence(Mean.apply(shard), check=False)
    at = whole.untyped_storage().data_ptr()
    def pack(t): return (t.shape, t.stride()) if t.untyped_storage().data_ptr() == at else t
    def unpack(kept):
        if torch.is_tensor(kept): return kept
        again = shard.new_empty(dist.get_world_size() * len(shard), shard.shape[1])
        dist.all_gather_single(again, shard.detach())
        return again.as_strided(*kept)
    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return F.linear(x, whole[:out_features])""",
    ],
}
