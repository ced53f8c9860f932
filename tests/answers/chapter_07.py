"""Answers to the exercise of chapter 07: plausible wrong ones, and right ones that are not the teacher's."""

COLUMN = """class Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)
    @staticmethod
    def backward(ctx, dy):
        dx = dy.clone()
        dist.all_reduce(dx)
        return dx

def f(x): return Sum.apply(x)

class ColumnParallel(nn.Module):
    def __init__(self, whole):
        super().__init__()
        rank, t = dist.get_rank(), dist.get_world_size()
        self.weight = nn.Parameter(whole.weight.detach().chunk(t)[rank].clone())
        self.bias = nn.Parameter(whole.bias.detach().chunk(t)[rank].clone())
    def forward(self, x):
        return F.linear(f(x), self.weight, self.bias)"""

ROW = """class Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        y = x.clone()
        dist.all_reduce(y)
        return y
    @staticmethod
    def backward(ctx, dy):
        return dy

def g(x): return Sum.apply(x)

class RowParallel(nn.Module):
    def __init__(self, whole):
        super().__init__()
        rank, t = dist.get_rank(), dist.get_world_size()
        self.weight = nn.Parameter(whole.weight.detach().chunk(t, 1)[rank].clone())
        self.bias = nn.Parameter(whole.bias.detach().clone())
    def forward(self, x):
        return g(F.linear(x, self.weight)) + self.bias"""

HEADS = """def attention_by_heads(x, q, k, v, o, head_width):
    x = f(x)
    queries, keys, values = q(x), k(x), v(x)
    queries, keys, values = (y.unflatten(-1, (-1, head_width)).transpose(1, 2) for y in (queries, keys, values))
    found = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
    found = found.transpose(1, 2).flatten(2)
    return g(F.linear(found, o.weight)) + o.bias"""

LOSS = """def vocab_parallel_cross_entropy(logits, targets, ignore_index=-100):
    held = logits.shape[1]
    largest = logits.detach().amax(-1)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    shifted = logits - largest[:, None]
    local = targets - dist.get_rank() * held
    mine = (local >= 0) & (local < held)
    picked = shifted.gather(-1, local.clamp(0, held - 1)[:, None])[:, 0] * mine
    total, picked = g(shifted.exp().sum(-1)), g(picked)
    losses = total.log() - picked
    count = targets != ignore_index
    return losses[count].mean()"""

# the same as one Function, with its backward written out
LOSS_FUNCTION = """class Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, targets, ignore_index):
        n, held = logits.shape
        largest = logits.amax(-1)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        powers = (logits - largest[:, None]).exp()
        hits = torch.arange(held) + dist.get_rank() * held == targets[:, None]
        sums = torch.cat((powers.sum(-1), (logits * hits).sum(-1)))
        dist.all_reduce(sums)
        count = (targets != ignore_index).double()
        ctx.save_for_backward(powers / sums[:n, None] - hits.double(), count / count.sum())
        return ((sums[:n].log() + largest - sums[n:]) * count).sum() / count.sum()
    @staticmethod
    def backward(ctx, grad):
        rows, weights = ctx.saved_tensors
        return grad * rows * weights[:, None], None, None

def vocab_parallel_cross_entropy(logits, targets, ignore_index=-100):
    return Loss.apply(logits, targets, ignore_index)"""

DROP = """class Dropouts:
    def __init__(self, seed, t):
        rank = dist.get_rank()
        self.agreeing = torch.Generator().manual_seed(seed + rank // t)
        self.own = torch.Generator().manual_seed(seed + 1000 + rank)
    def whole(self, x, p):
        return x * (torch.rand(x.shape, generator=self.agreeing) >= p) / (1 - p)
    def cut(self, x, p):
        return x * (torch.rand(x.shape, generator=self.own) >= p) / (1 - p)"""


def but(answer, *changes):
    """The answer with one thing in it changed."""
    for old, new in changes:
        assert old in answer, old
        answer = answer.replace(old, new)
    return answer


SUM_DX = "        dx = dy.clone()\n        dist.all_reduce(dx)\n        return dx"
SUM_Y = "        y = x.clone()\n        dist.all_reduce(y)\n        return y"
USE_F = "F.linear(f(x), self.weight, self.bias)"
USE_G = "g(F.linear(x, self.weight)) + self.bias"
SLICE = "chunk(t)[rank].clone()"
COLUMNS = "chunk(t, 1)[rank].clone()"
PARTS = "parts = [torch.empty_like({0}) for _ in range(dist.get_world_size())]; dist.all_gather(parts, {0})"
TOTALS = "g(shifted.exp().sum(-1)), g(picked)"
MAXIMA = "    dist.all_reduce(largest, dist.ReduceOp.MAX)\n"
READY_MADE = r"this answer calls course_lib\.(collectives\.autograd|parallel)"


def gathered(name, dim):
    """Lines of a forward after which `whole` is all of `name`, this rank's part of it the one that autograd knows."""
    return (
        f"        mine = {name}.contiguous(); parts = [torch.empty_like(mine) for _ in range(dist.get_world_size())]\n"
        f"        dist.all_gather(parts, mine.detach()); parts[dist.get_rank()] = mine; whole = torch.cat(parts, {dim})\n"
    )


# task -> (answer, words that the verdict must hold); an answer is a whole cell, `def` included
WRONG = {
    "7.1": [
        # no all-reduce in backward
        (but(COLUMN, (SUM_DX, "        return dy")), "dx of f..2 ranks.*adds up"),
        (but(COLUMN, ("return dx", "return dx / dist.get_world_size()")), "dx of f.*divide by nothing"),
        (but(COLUMN, ("return dx", "return dx * dist.get_world_size()")), "dx of f..2 ranks"),
        (but(COLUMN, ("dist.all_reduce(dx)", "dist.broadcast(dx, src=0)")), "dx of f..2 ranks"),
        # Megatron's own way: what it was handed is changed
        (
            but(COLUMN, (SUM_DX, "        dist.all_reduce(dy)\n        return dy")),
            "dy after f's backward.*all_reduce a clone",
        ),
        # f and g mistaken for each other
        (
            but(
                COLUMN,
                ("return x.view_as(x)", "y = x.clone(); dist.all_reduce(y); return y"),
                (SUM_DX, "        return dy"),
            ),
            r"f\(x\)..2 ranks.*does nothing",
        ),
        # f is right and not used: y, dW and db are right all the same
        (but(COLUMN, ("f(x), self", "x, self")), "✗ Task 7.1: dx..2 ranks.*partial sum"),
        (but(COLUMN, ("f(x), self", "f(x.detach()), self")), "✗ Task 7.1: dx..1 ranks.*None"),
        # split along the wrong dim
        (but(COLUMN, ("weight.detach().chunk(t)", "weight.detach().chunk(t, 1)")), "RankError"),
        (but(COLUMN, (SLICE, "chunk(t)[t - 1 - rank].clone()")), "y..2 ranks.*this rank's rows"),
        # another rank's part of the bias
        (but(COLUMN, ("bias.detach().chunk(t)[rank]", "bias.detach().chunk(t)[0]")), r"✗ Task 7.1: y..2 ranks..\[1\]"),
        # the world size of the example
        (but(COLUMN, ("dist.get_world_size()", "2")), "RankError|shape"),
        # the whole bias as a parameter, of which forward takes a part
        (
            but(
                COLUMN,
                ("bias.detach().chunk(t)[rank]", "bias.detach()"),
                (USE_F, "F.linear(f(x), self.weight, part(self.bias, 0))"),
            ),
            "db..2 ranks.*shape",
        ),
        (but(COLUMN, (USE_F, "F.linear(f(x), Sum.apply(self.weight), self.bias)")), "dW..2 ranks.*nothing is added"),
        # views
        (but(COLUMN, (".clone())", ")")), "bytes of parameters held.*clone it"),
        (but(COLUMN, ("        rank, t", "        self.whole = whole\n        rank, t")), "bytes of parameters held"),
        # gathers the weights
        (
            but(
                COLUMN,
                (
                    "        return " + USE_F,
                    gathered("self.weight", 0) + "        return part(F.linear(f(x), whole), -1) + self.bias",
                ),
            ),
            "bytes sent forward.*no other rank's weight",
        ),
        # gathers everything, and takes its part
        (
            but(
                COLUMN,
                (
                    "        return " + USE_F,
                    "        y = " + USE_F + "\n" + gathered("y", -1) + "        return part(whole, -1)",
                ),
            ),
            "bytes sent forward.*too dear",
        ),
        (
            but(COLUMN, ("        dist.all_reduce(dx)\n", "        " + PARTS.format("dx") + "; dx = sum(parts)\n")),
            "bytes sent backward.*one all_reduce, of dx",
        ),
        (
            but(COLUMN, ("        dist.all_reduce(dx)\n", "        for row in dx: dist.all_reduce(row)\n")),
            "collectives called backward.*too many",
        ),
        # only where everything lies in order
        (
            but(COLUMN, (USE_F, "(f(x.view(-1, x.shape[-1])) @ self.weight.T + self.bias).view(*x.shape[:-1], -1)")),
            "RankError.*view",
        ),
        # ready-made
        (
            but(
                COLUMN,
                ("def f(x): return Sum.apply(x)", "from course_lib.collectives.autograd import copy_to_group as f"),
            ),
            READY_MADE,
        ),
        (
            but(
                COLUMN,
                (
                    "        return " + USE_F,
                    """        from torch.distributed.tensor import DTensor
        whole = DTensor.from_local(self.weight, run_check=False)
        return F.linear(x, whole.to_local(), self.bias)""",
                ),
            ),
            r"this answer calls torch\.distributed\.tensor",
        ),
        (
            COLUMN[: COLUMN.index("class Column")]
            + "from course_lib.parallel.tensor import ColumnParallelLinear\n"
            + "def ColumnParallel(whole): return ColumnParallelLinear(24, 12, whole=whole)",
            READY_MADE,
        ),
    ],
    "7.2": [
        # the bias once for each rank
        (but(ROW, (USE_G, "g(F.linear(x, self.weight, self.bias))")), "✗ Task 7.2: y..3 ranks.*added t times"),
        # right y, and a bias that learns t times too slowly
        (but(ROW, (USE_G, "g(F.linear(x, self.weight, self.bias / dist.get_world_size()))")), "db..3 ranks.*behind g"),
        # right y, and copies of the bias that drift apart
        (
            but(ROW, (USE_G, "g(F.linear(x, self.weight) + self.bias * (dist.get_rank() == 0))")),
            r"db..3 ranks..\[1\].*the same on every rank",
        ),
        # all-reduce in both directions: PyTorch's own differentiable one, too
        (
            but(ROW, ("        return dy", "        dx = dy.clone(); dist.all_reduce(dx); return dx")),
            "dx of g..3 ranks.*dy itself",
        ),
        (
            but(
                ROW,
                (
                    "def g(x): return Sum.apply(x)",
                    "import torch.distributed.nn\ndef g(x): return dist.nn.functional.all_reduce(x)",
                ),
            ),
            "dx of g..3 ranks.*dy itself",
        ),
        # no wrong number, and a message too many
        (
            but(ROW, (USE_G, "g(Half.apply(F.linear(x, self.weight))) + self.bias"))
            + """
class Half(torch.autograd.Function):
    forward = staticmethod(lambda ctx, x: x.view_as(x))
    @staticmethod
    def backward(ctx, dy):
        dy = dy / dist.get_world_size(); dist.all_reduce(dy); return dy""",
            "bytes sent backward.*nobody needs more",
        ),
        (but(ROW, ("return y", "return y / dist.get_world_size()")), r"g\(x\)..3 ranks.*divide by nothing"),
        (but(ROW, (SUM_Y, "        return x.clone()")), r"g\(x\)..3 ranks.*adds up"),
        (but(ROW, (SUM_Y, "        dist.all_reduce(x)\n        return x")), "x after g.*clone"),
        (but(ROW, ("dist.all_reduce(y)", "dist.reduce(y, dst=0)")), r"g\(x\)..3 ranks..\[1\]"),
        # g is right and not used
        (but(ROW, (USE_G, "F.linear(x, self.weight) + self.bias")), "✗ Task 7.2: y..3 ranks.*through g"),
        # split along the wrong dim
        (but(ROW, ("chunk(t, 1)", "chunk(t)")), "RankError"),
        (but(ROW, (COLUMNS, "chunk(t, 1)[rank - 1].clone()")), "✗ Task 7.2: y..3 ranks"),
        (but(ROW, ("dist.get_world_size()", "4")), "RankError"),
        (but(ROW, ("whole.bias.detach()", "whole.bias.detach().chunk(t)[rank]")), "RankError"),
        # the bias's gradient summed over ranks that all have it
        (
            but(ROW, (" + self.bias", " + Twice.apply(self.bias)"))
            + """
class Twice(torch.autograd.Function):
    forward = staticmethod(lambda ctx, x: x.view_as(x))
    @staticmethod
    def backward(ctx, dy): dist.all_reduce(dy := dy.clone()); return dy""",
            "db..3 ranks",
        ),
        (but(ROW, ("chunk(t, 1)[rank].clone()", "chunk(t, 1)[rank]")), "bytes of parameters held.*clone it"),
        # gathers the weights, and x
        (
            but(
                ROW,
                (
                    "        return " + USE_G,
                    gathered("x", -1)
                    + "        x = whole\n"
                    + gathered("self.weight", 1)
                    + "        return F.linear(x, whole, self.bias)",
                ),
            ),
            "bytes sent forward.*weights stay where they are",
        ),
        (
            but(ROW, ("        dist.all_reduce(y)\n", "        " + PARTS.format("y") + "; y = sum(parts)\n")),
            "bytes sent forward.*one all_reduce, of y",
        ),
        (
            but(ROW, ("dist.all_reduce(y)", "[dist.all_reduce(row) for row in y]")),
            "collectives called forward.*too many",
        ),
        (but(ROW, ("F.linear(x, self", "F.linear(x.view(10, -1), self")), "RankError.*view"),
        (
            but(
                ROW,
                ("def g(x): return Sum.apply(x)", "from course_lib.collectives.autograd import reduce_from_group as g"),
            ),
            READY_MADE,
        ),
    ],
    "7.3": [
        # no all-reduce in backward
        (but(HEADS, ("    x = f(x)\n", "")), "✗ Task 7.3: dx..2 ranks.*before q, k and v"),
        # an f before each
        (
            but(HEADS, ("    x = f(x)\n", ""), ("q(x), k(x), v(x)", "q(f(x)), k(f(x)), v(f(x))")),
            "bytes sent backward.*added up first and sent once",
        ),
        (
            but(
                HEADS,
                ("    x = f(x)\n", ""),
                ("q(x), k(x), v(x)", "q(f(x)), *(linear(z) for z in [f(x)] for linear in (k, v))"),
            ),
            "bytes sent backward.*sent once",
        ),
        # one f a sample
        (but(HEADS, ("x = f(x)", "x = torch.stack([f(row) for row in x])")), "collectives called backward.*too many"),
        # f behind the projections, where each rank has other heads
        (
            but(HEADS, ("    x = f(x)\n", ""), ("q(x), k(x), v(x)", "f(q(x)), f(k(x)), f(v(x))")),
            "✗ Task 7.3: dx..2 ranks",
        ),
        # f and g mistaken for each other
        (but(HEADS, ("x = f(x)", "x = g(x)")), "✗ Task 7.3: y..2 ranks"),
        (but(HEADS, ("g(F.linear", "f(F.linear")), "✗ Task 7.3: y..2 ranks.*then g"),
        (but(HEADS, ("g(F.linear(found, o.weight))", "F.linear(found, o.weight)")), "✗ Task 7.3: y..2 ranks.*then g"),
        (but(HEADS, ("o.weight))", "o.weight)) / dist.get_world_size()")), "✗ Task 7.3: y..2 ranks"),
        # o adds its bias on every rank
        (but(HEADS, ("g(F.linear(found, o.weight)) + o.bias", "g(o(found))")), "✗ Task 7.3: y..2 ranks.*o.bias once"),
        (
            but(HEADS, ("o.weight)) + o.bias", "o.weight, o.bias / dist.get_world_size()))")),
            "weight and bias gradient of o..2 ranks.*behind g",
        ),
        (but(HEADS, ("is_causal=True", "is_causal=False")), "✗ Task 7.3: y..1 ranks.*causal"),
        # the scale of one large head
        (but(HEADS, ("is_causal=True", "is_causal=True, scale=x.shape[-1] ** -0.5")), "✗ Task 7.3: y..1 ranks"),
        # heads run across instead of side by side
        (
            but(
                HEADS,
                (
                    "unflatten(-1, (-1, head_width)).transpose(1, 2)",
                    "unflatten(-1, (head_width, -1)).permute(0, 3, 1, 2)",
                ),
            ),
            "✗ Task 7.3: y..1 ranks.*side by side",
        ),
        # all twelve heads, narrower ones
        (but(HEADS, ("(-1, head_width)", "(12, -1)")), "RankError.*unflatten"),
        # attends over heads instead of tokens
        (
            but(
                HEADS,
                (".unflatten(-1, (-1, head_width)).transpose(1, 2)", ".unflatten(-1, (-1, head_width))"),
                ("found.transpose(1, 2)", "found"),
            ),
            "✗ Task 7.3: y..1 ranks",
        ),
        # adds up heads that are not summands
        (but(HEADS, ("g(F.linear(found, o.weight))", "F.linear(g(found), o.weight)")), "✗ Task 7.3: y..2 ranks"),
        # gathers heads and weights
        (
            but(
                HEADS,
                (
                    "    return g(F.linear(found, o.weight))",
                    gathered("found", -1).replace("        ", "    ")
                    + "    found = whole\n"
                    + gathered("o.weight", 1).replace("        ", "    ")
                    + "    return F.linear(found, whole)",
                ),
            ),
            "bytes sent forward.*stay where they are",
        ),
        (
            but(HEADS, ("g(F.linear(found, o.weight))", "torch.stack([g(row) for row in F.linear(found, o.weight)])")),
            "collectives called forward.*too many",
        ),
        (
            but(HEADS, ("x = f(x)", "from course_lib.collectives.autograd import copy_to_group; x = copy_to_group(x)")),
            READY_MADE,
        ),
    ],
    "7.4": [
        # each rank's own maximum
        (but(LOSS, (MAXIMA, "")), "loss, no target ignored..2 ranks.*of all ranks"),
        # somebody's maximum: right until the ranks' logits are far apart
        (
            but(LOSS, ("dist.all_reduce(largest, dist.ReduceOp.MAX)", "dist.broadcast(largest, src=0)")),
            "loss, logits of ±1000",
        ),
        # none
        (but(LOSS, ("logits - largest[:, None]", "logits")), "loss, logits of ±1000.*before exp"),
        # the largest of the whole batch: in rows far below it all is 0
        (
            but(LOSS, ("logits.detach().amax(-1)", "logits.detach().amax().expand(len(logits)).clone()")),
            "loss, logits of ±1000.*the row's largest",
        ),
        # subtracted in the sum alone
        (
            but(LOSS, ("picked = shifted.gather", "picked = logits.gather")),
            "loss, no target ignored..1 ranks.*the target's z - m",
        ),
        # off by one
        (but(LOSS, ("dist.get_rank() * held", "dist.get_rank() * held - 1")), "loss, no target ignored"),
        (but(LOSS, ("dist.get_rank() * held", "dist.get_rank() * (held - 1)")), "loss, no target ignored..2 ranks"),
        # no offset
        (but(LOSS, ("targets - dist.get_rank() * held", "targets")), "loss, no target ignored..2 ranks"),
        # not masked
        (but(LOSS, ("[:, 0] * mine", "[:, 0]")), "loss, no target ignored..2 ranks.*which one rank has"),
        (but(LOSS, ("local.clamp(0, held - 1)", "local")), "RankError"),
        (but(LOSS, ("losses[count].mean()", "losses.mean()")), "loss, some ignored.*divided by their number"),
        # the mean over all
        (but(LOSS, ("losses[count].mean()", "(losses * count).mean()")), "loss, some ignored.*divided by their number"),
        (but(LOSS, ("targets != ignore_index", "targets != -100")), "loss, another ignore_index"),
        (
            but(LOSS, ("targets != ignore_index", "targets >= 0")),
            "loss, another ignore_index.*a token of the vocabulary",
        ),
        # a sum of logs
        (
            but(LOSS, ("g(shifted.exp().sum(-1))", "g(shifted.exp().sum(-1).log()).exp()")),
            "loss, no target ignored..2 ranks",
        ),
        # no communication
        (but(LOSS, (TOTALS, "shifted.exp().sum(-1), picked")), "loss, no target ignored..2 ranks"),
        # only one rank has the sums
        (
            but(
                LOSS,
                ("    losses = total", "    [dist.reduce(z.detach(), 0) for z in (total, picked)]\n    losses = total"),
                (TOTALS, "shifted.exp().sum(-1), picked"),
            ),
            r"loss, no target ignored..2 ranks..\[1\]",
        ),
        # the world size of the example
        (but(LOSS, ("dist.get_rank() * held", "dist.get_rank() * 12")), "loss, no target ignored..4 ranks"),
        # the gradient t times
        (
            but(LOSS, (TOTALS, "(dist.nn.functional.all_reduce(z) for z in (shifted.exp().sum(-1), picked))"))
            + "\nimport torch.distributed.nn",
            "gradient, no target ignored..2 ranks",
        ),
        # a sum that autograd does not know
        (
            but(
                LOSS,
                (TOTALS, "shifted.exp().sum(-1).detach(), picked.clone()"),
                ("    losses =", "    dist.all_reduce(total); picked = g(picked)\n    losses ="),
            ),
            "gradient, no target ignored",
        ),
        (
            but(LOSS_FUNCTION, ("return grad * rows", "return rows")),
            "gradient, no target ignored.*what backward is given",
        ),
        (but(LOSS_FUNCTION, ("count / count.sum())", "count)")), "gradient, no target ignored.*number of targets"),
        (but(LOSS_FUNCTION, (" - hits.double(),", ",")), "gradient, no target ignored.*less 1 at the target"),
        (
            but(LOSS_FUNCTION, ("powers / sums[:n, None]", "powers / powers.sum(-1, keepdim=True)")),
            "gradient, no target ignored..2 ranks",
        ),
        # changes what it was given
        (
            but(LOSS, ("shifted = logits - largest[:, None]", "logits.data -= largest[:, None]; shifted = logits * 1")),
            "logits and targets afterwards.*new tensor",
        ),
        (
            but(
                LOSS,
                ("    count = targets != ignore_index\n", ""),
                (
                    "    local = targets - dist.get_rank() * held",
                    "    count = targets != ignore_index; targets -= dist.get_rank() * held; local = targets",
                ),
            ),
            "logits and targets afterwards.*new tensor",
        ),
        # gathers the logits
        (
            """def vocab_parallel_cross_entropy(logits, targets, ignore_index=-100):
"""
            + gathered("logits", 1).replace("        ", "    ")
            + "    return F.cross_entropy(whole, targets, ignore_index=ignore_index)",
            "bytes sent forward.*logits stay where they are",
        ),
        # the whole vocabulary for each target
        (
            but(
                LOSS,
                (
                    "shifted.gather(-1, local.clamp(0, held - 1)[:, None])[:, 0] * mine",
                    "(shifted * part(F.one_hot(targets.clamp(0), held * dist.get_world_size()), 1)).sum(1)",
                ),
            ),
            "bytes of the largest tensor.*whole vocabulary",
        ),
        (
            but(LOSS, (MAXIMA, "    for i in range(len(largest)): dist.all_reduce(largest[i], dist.ReduceOp.MAX)\n")),
            "collectives called forward.*too many",
        ),
        # right, and a message in backward
        (
            but(
                LOSS,
                (
                    "    losses =",
                    "    if logits.requires_grad: logits.register_hook(lambda dz: dist.broadcast(torch.ones(1), 0) and None)\n    losses =",
                ),
            ),
            "bytes sent backward",
        ),
        (
            """from course_lib.parallel.vocabulary import vocab_parallel_cross_entropy as ready
def vocab_parallel_cross_entropy(logits, targets, ignore_index=-100): return ready(logits, targets, ignore_index=ignore_index)""",
            READY_MADE,
        ),
    ],
    "7.5": [
        # PyTorch's generator, which is somewhere else on every rank
        (
            """class Dropouts:
    def __init__(self, seed, t): pass
    def whole(self, x, p): return F.dropout(x, p)
    cut = whole""",
            "masks of first whole..t = 2",
        ),
        # seeded, and others draw from it
        (
            """class Dropouts:
    def __init__(self, seed, t): torch.manual_seed(seed + dist.get_rank() // t)
    def whole(self, x, p): return F.dropout(x, p)
    cut = whole""",
            "masks of first whole..t = 2.*whatever else is drawn",
        ),
        # one generator for both: in step once
        (but(DROP, ("generator=self.own", "generator=self.agreeing")), "masks of second whole..t = 2.*two generators"),
        (but(DROP, ("generator=self.agreeing", "generator=self.own")), "masks of first whole..t = 2"),
        # the same mask each time
        (
            but(
                DROP,
                (
                    "return x * (torch.rand(x.shape, generator=self.agreeing)",
                    "self.agreeing.manual_seed(self.agreeing.initial_seed()); return x * (torch.rand(x.shape, generator=self.agreeing)",
                ),
            ),
            "masks of second whole.*a new mask in each call",
        ),
        (
            but(
                DROP,
                (
                    "return x * (torch.rand(x.shape, generator=self.own)",
                    "self.own.manual_seed(self.own.initial_seed()); return x * (torch.rand(x.shape, generator=self.own)",
                ),
            ),
            "masks of (first|second) cut",
        ),
        # all copies alike
        (but(DROP, ("seed + rank // t", "seed")), "masks of first whole..t = 1.*another one for the next copy"),
        # counts the place in the copy instead of the copies
        (but(DROP, ("rank // t", "rank % t")), "masks of first whole..t = 1"),
        (but(DROP, ("rank // t", "rank // 2")), "masks of first whole..t = 1"),
        # all heads alike
        (but(DROP, ("1000 + rank", "1000")), "masks of first cut..t = 1.*nobody else has"),
        # the copies' heads alike
        (but(DROP, ("1000 + rank", "1000 + rank % t")), "masks of first cut..t = 1.*nobody else has"),
        # rank 0 starts where the others' whole starts
        (but(DROP, ("seed + 1000 + rank", "seed + rank")), "masks of first cut..t = 1.*neither cut nor whole"),
        (but(DROP, ("seed + 1000 + rank", "seed + 1 + rank")), "masks of first cut..t = 1.*same number"),
        # never the same twice
        (
            but(DROP, ("manual_seed(seed + 1000 + rank)", "manual_seed(torch.Generator().seed())")),
            "masks of cut, same seed",
        ),
        # whatever the seed
        (but(DROP, ("(seed + rank // t)", "(rank // t)")), "masks of whole, other seed"),
        # not scaled, scaled wrongly
        (but(DROP, (" / (1 - p)", "")), "values.*becomes 4.0"),
        (but(DROP, (" / (1 - p)", " / p")), "values"),
        (but(DROP, (" / (1 - p)", " * (1 - p)")), "values"),
        (but(DROP, (">= p", "< p")), "distance of the share kept.*zero with probability p"),
        # whole tokens, whole channels
        (but(DROP, ("torch.rand(x.shape,", "torch.rand(len(x), 1,")), "distance of the share kept.*by itself"),
        (but(DROP, ("torch.rand(x.shape,", "torch.rand(x.shape[-1],")), "distance of the share kept.*by itself"),
        # no gradient, a gradient without the mask
        (but(DROP, ("return x *", "return x.detach() *")), "RankError"),
        (
            but(
                DROP, ("return x * (torch", "return x + (x.detach() * (torch"), ("/ (1 - p)", "/ (1 - p) - x.detach())")
            ),
            "values.*its gradient",
        ),
        (
            but(
                DROP,
                (
                    "    def whole(self, x, p):\n        return x *",
                    "    def whole(self, x, p):\n        z = x.clone(); x.data.zero_(); return z *",
                ),
            ),
            "x afterwards.*leave x",
        ),
        # moves PyTorch's own generator
        (
            but(DROP, ("    def whole(self, x, p):\n", "    def whole(self, x, p):\n        torch.rand(1)\n")),
            "torch.rand gives afterwards.*leave PyTorch's own",
        ),
        (
            """class Dropouts:
    def __init__(self, seed, t): self.seed, self.t, self.calls = seed, t, [0, 0]
    def drop(self, x, p, kind, number):
        self.calls[kind] += 1
        torch.manual_seed(1_000_000 * self.calls[kind] + number + self.seed)
        return F.dropout(x, p)
    def whole(self, x, p): return self.drop(x, p, 0, dist.get_rank() // self.t)
    def cut(self, x, p): return self.drop(x, p, 1, 5000 + dist.get_rank())""",
            "torch.rand gives afterwards.*leave PyTorch's own",
        ),
        # one draws and sends
        (
            but(
                DROP,
                (
                    "        return x * (torch.rand(x.shape, generator=self.agreeing) >= p)",
                    "        mask = torch.rand(x.shape, generator=self.agreeing); scratch = mask.clone(); dist.broadcast(scratch, 0)\n        return x * (mask >= p)",
                ),
            ),
            "bytes sent.*need not send it",
        ),
    ],
}

SUM = """class Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return x.view_as(x)
    @staticmethod
    def backward(ctx, dy): {}
def f(x): return Sum.apply(x)
"""
COLUMN_CLASS = COLUMN[COLUMN.index("class Column") :]
ROW_CLASS = ROW[ROW.index("class Row") :]

# task -> answers that must be accepted
RIGHT = {
    "7.1": [
        # the layer as one Function, which computes dW while dx travels
        SUM.format("dx = dy.clone(); dist.all_reduce(dx); return dx")
        + """class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return torch.einsum('...i,oi->...o', x, weight) + bias
    @staticmethod
    def backward(ctx, dy):
        x, weight = ctx.saved_tensors
        dx = dy @ weight
        work = dist.all_reduce(dx, async_op=True)
        dW = torch.einsum('...o,...i->oi', dy, x)
        work.wait()
        return dx, dW, dy.sum((0, 1))
"""
        + but(COLUMN_CLASS, (USE_F, "Product.apply(x, self.weight, self.bias)")),
        # a hook instead of a Function
        """def f(x):
    def add_up(dy):
        total = dy.detach().clone()
        dist.all_reduce(total)
        return total
    y = x.view_as(x)
    y.register_hook(add_up)
    return y
"""
        + COLUMN_CLASS,
        # by messages round a ring
        "from course_lib import collectives\n"
        + SUM.format("dx = dy.clone(); collectives.all_reduce(dx, algorithm='ring'); return dx")
        + COLUMN_CLASS,
        # out of place, and an nn.Linear of its own
        "import torch.distributed._functional_collectives as functional\n"
        + SUM.format("return functional.all_reduce(dy.contiguous(), 'sum', dist.group.WORLD).clone()")
        + """class ColumnParallel(nn.Linear):
    def __init__(self, whole):
        size = whole.out_features // dist.get_world_size()
        super().__init__(whole.in_features, size, dtype=whole.weight.dtype)
        mine = slice(dist.get_rank() * size, (dist.get_rank() + 1) * size)
        with torch.no_grad():
            self.weight.copy_(whole.weight[mine])
            self.bias.copy_(whole.bias[mine])
    def forward(self, x): return super().forward(f(x))""",
        # under way while nothing else is done; x as it came
        but(
            COLUMN,
            ("return x.view_as(x)", "return x"),
            ("dist.all_reduce(dx)", "dist.all_reduce(dx, group=dist.group.WORLD, async_op=True).wait()"),
        ),
        # the slices by index, and the product by columns
        but(
            COLUMN,
            (
                "whole.weight.detach().chunk(t)[rank].clone()",
                "whole.weight.detach().view(t, -1, whole.in_features)[rank].clone()",
            ),
            (
                "whole.bias.detach().chunk(t)[rank].clone()",
                "torch.tensor(whole.bias.detach().view(t, -1)[rank].tolist()).double()",
            ),
            (
                USE_F,
                "torch.stack([(f_x * w).sum(-1) + b for f_x in [f(x)] for w, b in zip(self.weight, self.bias)], -1)",
            ),
        ),
    ],
    "7.2": [
        # the layer as one Function
        ROW[: ROW.index("class Row")]
        + """class Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        y = torch.einsum('...i,oi->...o', x, weight)
        dist.all_reduce(y)
        return y.add_(bias)
    @staticmethod
    def backward(ctx, dy):
        x, weight = ctx.saved_tensors
        return dy @ weight, torch.einsum('...o,...i->oi', dy, x), dy.flatten(0, -2).sum(0)
"""
        + but(ROW_CLASS, (USE_G, "Product.apply(x, self.weight, self.bias)")),
        # by messages round a ring
        "from course_lib import collectives\n"
        + but(ROW, ("dist.all_reduce(y)", "collectives.all_reduce(y, algorithm='ring')")),
        # no Function: what the others add is a constant
        """def g(x):
    total = x.detach().clone()
    dist.all_reduce(total)
    return x + (total - x.detach())
"""
        + ROW_CLASS,
        # PyTorch's differentiable all-reduce is right where nobody differentiates it
        "import torch.distributed._functional_collectives as functional\n"
        + but(ROW, (SUM_Y, "        return functional.all_reduce(x.contiguous(), 'sum', dist.group.WORLD).clone()")),
        # an nn.Linear without a bias, and the bias beside it
        ROW[: ROW.index("class Row")]
        + """class RowParallel(nn.Linear):
    def __init__(self, whole):
        size = whole.in_features // dist.get_world_size()
        super().__init__(size, whole.out_features, dtype=torch.float64)
        self.load_state_dict({'weight': whole.weight.split(size, 1)[dist.get_rank()], 'bias': whole.bias})
    def forward(self, x): return torch.add(self.bias, g(x @ self.weight.T))""",
        # the bias within, on rank 0's count only, but known to everybody's backward
        but(
            ROW,
            (
                USE_G,
                "g(F.linear(x, self.weight) + self.bias.detach() * (dist.get_rank() == 0)) + self.bias - self.bias.detach()",
            ),
        ),
    ],
    "7.3": [
        # written out
        """def attention_by_heads(x, q, k, v, o, head_width):
    x = f(x); b, s, _ = x.shape
    q, k, v = (z(x).view(b, s, -1, head_width) for z in (q, k, v))
    scores = torch.einsum('bihw,bjhw->bhij', q, k) / head_width ** 0.5
    scores = scores.masked_fill(torch.ones(s, s).triu(1).bool(), float('-inf')).softmax(-1)
    found = torch.einsum('bhij,bjhw->bihw', scores, v).reshape(b, s, -1)
    return g(found @ o.weight.T) + o.bias""",
        # head by head, each with its own columns of o
        """def attention_by_heads(x, q, k, v, o, head_width):
    x, total = f(x), 0
    q, k, v = q(x), k(x), v(x)
    for at in range(0, q.shape[-1], head_width):
        one = slice(at, at + head_width)
        found = F.scaled_dot_product_attention(q[..., one], k[..., one], v[..., one], is_causal=True)
        total = total + found @ o.weight[:, one].T
    return o.bias + g(total)""",
        # one product for q, k and v
        """def attention_by_heads(x, q, k, v, o, head_width):
    weight, bias = torch.cat([z.weight for z in (q, k, v)]), torch.cat([z.bias for z in (q, k, v)])
    qkv = F.linear(f(x), weight, bias).unflatten(-1, (3, -1, head_width)).permute(2, 0, 3, 1, 4)
    found = F.scaled_dot_product_attention(*qkv, is_causal=True)
    return g(torch.einsum('bnsw,onw->bso', found, o.weight.unflatten(1, (-1, head_width)))) + o.bias""",
        # the model's own code for the part without parameters
        """class Mine(Attention):
    def __init__(self, q, k, v, o, head_width):
        nn.Module.__init__(self)
        self.q, self.k, self.v, self.o, self.head_width, self.causal = q, k, v, lambda found: found @ o.weight.T, head_width, True
def attention_by_heads(x, q, k, v, o, head_width):
    return g(Mine(q, k, v, o, head_width)(f(x))) + o.bias""",
        # operators of its own, and recomputed in backward
        """from torch.utils.checkpoint import checkpoint
def enter(x):
    y = x.view_as(x)
    def add_up(dy):
        dist.all_reduce(dx := dy.clone()); return dx
    y.register_hook(add_up)
    return y
def heads(x, q, k, v, weight, head_width):
    q, k, v = (z(x).unflatten(-1, (-1, head_width)).transpose(1, 2) for z in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2) @ weight.T
def attention_by_heads(x, q, k, v, o, head_width):
    y = checkpoint(heads, enter(x), q, k, v, o.weight, head_width, use_reentrant=False)
    rest = y.detach().clone(); dist.all_reduce(rest)
    return y + (rest - y.detach() + o.bias)""",
        # batch and heads in one dim
        """def attention_by_heads(x, q, k, v, o, head_width):
    b, s, _ = x.shape
    x = f(x)
    fold = lambda z: z.reshape(b, s, -1, head_width).permute(0, 2, 1, 3).reshape(-1, s, head_width)
    q, k, v = fold(q(x)), fold(k(x)), fold(v(x))
    weights = (q @ k.mT * head_width ** -0.5 + torch.full((s, s), -torch.inf).triu(1)).softmax(2)
    found = torch.bmm(weights, v).view(b, -1, s, head_width).movedim(1, 2).reshape(b, s, -1)
    return g(F.linear(found, o.weight)).add(o.bias)""",
    ],
    "7.4": [
        LOSS_FUNCTION,
        # a log of each rank's sum, gathered: t numbers a target
        """def vocab_parallel_cross_entropy(logits, targets, ignore_index=-100):
    rank, t, held = dist.get_rank(), dist.get_world_size(), logits.shape[1]
    mine = logits.logsumexp(-1)
    every = [torch.empty_like(mine) for _ in range(t)]
    dist.all_gather(every, mine.detach())
    every[rank] = mine
    local = targets - rank * held
    at = ((local >= 0) & (local < held)).nonzero()[:, 0]
    picked = g(torch.zeros_like(mine).index_put((at,), logits[at, local[at]]))
    losses = torch.stack(every).logsumexp(0) - picked
    keep = targets != ignore_index
    return (losses * keep).sum() / keep.sum()""",
        # three messages, a comparison instead of an index
        """def vocab_parallel_cross_entropy(logits, targets, ignore_index=-100):
    first = dist.get_rank() * logits.shape[-1]
    hits = torch.arange(first, first + logits.shape[-1]) == targets.unsqueeze(-1)
    top = logits.max(dim=-1).values.detach().clone()
    dist.all_reduce(top, op=dist.ReduceOp.MAX)
    total = g(torch.exp(logits - top.unsqueeze(-1)).sum(-1))
    target = g(torch.where(hits, logits, 0.0).sum(-1))
    losses = torch.log(total) + top - target
    return losses.masked_select(targets.ne(ignore_index)).mean()""",
        # the targets that do not count are left out from the start
        """def vocab_parallel_cross_entropy(logits, targets, ignore_index=-100):
    logits, targets = logits[targets != ignore_index], targets[targets != ignore_index]
    held = logits.shape[1]
    top = logits.detach().max(1)[0]
    work = dist.all_reduce(top, dist.ReduceOp.MAX, async_op=True)
    local = targets - dist.get_rank() * held
    mine = (local // held) == 0
    z = logits[torch.arange(len(logits)), local * mine] * mine
    work.wait()
    sums, zs = g(torch.stack([(logits - top[:, None]).exp().sum(1), z])).unbind()
    return sum(sums.log() + top - zs) / len(targets)""",
        # one row after the other, apart from messages
        """def vocab_parallel_cross_entropy(logits, targets, ignore_index=-100):
    held, rank = logits.shape[1], dist.get_rank()
    top = torch.stack([row.detach().max() for row in logits])
    dist.all_reduce(top, dist.ReduceOp.MAX)
    totals = [(row - m).exp().sum() for row, m in zip(logits, top)]
    picked = [row[y % held] if y // held == rank and y != ignore_index else row[0] * 0 for row, y in zip(logits, targets.tolist())]
    both = g(torch.stack([*totals, *picked]))
    totals, picked = both.chunk(2)
    kept = [i for i, y in enumerate(targets.tolist()) if y != ignore_index]
    return (totals.log() + top - picked)[kept].mean()""",
        # the value of everybody's sum, the gradient of this rank's: no Function
        but(
            LOSS,
            (TOTALS, "(z + (total - z.detach()) for z, total in zip((shifted.exp().sum(-1), picked), totals))"),
            (
                "    total, picked =",
                "    totals = torch.stack((shifted.detach().exp().sum(-1), picked.detach())); dist.all_reduce(totals)\n    total, picked =",
            ),
        ),
    ],
    "7.5": [
        DROP,
        # PyTorch's generator lent and given back, from a counter
        """class Dropouts:
    def __init__(self, seed, t): self.seed, self.t, self.calls = seed, t, [0, 0]
    def drop(self, x, p, kind, number):
        self.calls[kind] += 1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(hash((self.seed, kind, number, self.calls[kind])) % 2**62)
            return F.dropout(x, p)
    def whole(self, x, p): return self.drop(x, p, 0, dist.get_rank() // self.t)
    def cut(self, x, p): return self.drop(x, p, 1, dist.get_rank())""",
        # as Megatron-LM does it: states that are swapped
        """class Dropouts:
    def __init__(self, seed, t):
        rank = dist.get_rank()
        before = torch.get_rng_state(); self.states = {}
        for name, number in (('whole', seed + 7919 * (rank // t)), ('cut', seed + 2718 + 7919 * rank)):
            torch.manual_seed(number); self.states[name] = torch.get_rng_state()
        torch.set_rng_state(before)
    def drop(self, name, x, p):
        before = torch.get_rng_state()
        torch.set_rng_state(self.states[name])
        try: return F.dropout(x, p)
        finally: self.states[name] = torch.get_rng_state(); torch.set_rng_state(before)
    def whole(self, x, p): return self.drop('whole', x, p)
    def cut(self, x, p): return self.drop('cut', x, p)""",
        # numpy's
        """import numpy as np
class Dropouts:
    def __init__(self, seed, t):
        self.whole_rng = np.random.default_rng([seed, 0, dist.get_rank() // t])
        self.cut_rng = np.random.default_rng([seed, 1, dist.get_rank()])
    def whole(self, x, p): return torch.where(torch.from_numpy(self.whole_rng.random(x.shape) < p), 0.0, x / (1 - p))
    def cut(self, x, p): return torch.where(torch.from_numpy(self.cut_rng.random(x.shape) < p), 0.0, x / (1 - p))""",
        # Python's
        """import random
class Dropouts:
    def __init__(self, seed, t):
        rank = dist.get_rank()
        self.rngs = random.Random(f'{seed} whole {rank // t}'), random.Random(f'{seed} cut {rank}')
    def drop(self, rng, x, p):
        keep = torch.tensor([rng.random() >= p for _ in range(x.numel())]).view(x.shape)
        return x * keep / (1 - p)
    def whole(self, x, p): return self.drop(self.rngs[0], x, p)
    def cut(self, x, p): return self.drop(self.rngs[1], x, p)""",
        # a Function, and a mask by bernoulli
        """class Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, mask): ctx.mask = mask; return x * mask
    @staticmethod
    def backward(ctx, dy): return dy * ctx.mask, None
class Dropouts:
    def __init__(self, seed, t):
        first = torch.Generator().manual_seed(seed)
        numbers = torch.randint(2**62, (2 * dist.get_world_size(),), generator=first).tolist()
        self.own = torch.Generator().manual_seed(numbers[2 * dist.get_rank()])
        self.agreeing = torch.Generator().manual_seed(numbers[2 * (dist.get_rank() // t) + 1])
    def drop(self, x, p, generator):
        return Drop.apply(x, torch.empty_like(x).bernoulli_(1 - p, generator=generator) / (1 - p))
    def whole(self, x, p): return self.drop(x, p, self.agreeing)
    def cut(self, x, p): return self.drop(x, p, self.own)""",
        # everybody draws everybody's, and takes its own
        """class Dropouts:
    def __init__(self, seed, t):
        self.copy = dist.get_rank() // t
        self.agreeing = torch.Generator().manual_seed(3 * seed)
        self.own = torch.Generator().manual_seed(3 * seed + 1)
    def whole(self, x, p):
        masks = torch.rand(dist.get_world_size(), *x.shape, generator=self.agreeing)
        return x * (masks[self.copy] >= p) / (1 - p)
    def cut(self, x, p):
        masks = torch.rand(dist.get_world_size(), *x.shape, generator=self.own)
        return x * (masks[dist.get_rank()] >= p) / (1 - p)""",
    ],
}
