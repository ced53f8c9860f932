"""Answers to the exercise of chapter 08: plausible wrong ones, and right ones that are not the teacher's."""

HALF = """def half_block(x, gamma, A, B):
    z = gather_sequence(F.layer_norm(x, gamma.shape, copy_to_group(gamma)), 1)
    m = reduce_scatter_sequence(F.gelu(z @ A) @ B, 1)
    return x + m"""

COLUMN = """class Regather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, A):
        ctx.save_for_backward(x, A)
        t = dist.get_world_size()
        whole = x.new_zeros(t * len(x), *x.shape[1:])
        dist.all_gather_single(whole, x.contiguous())
        return whole @ A
    @staticmethod
    def backward(ctx, dz):
        x, A = ctx.saved_tensors
        t = dist.get_world_size()
        whole = x.new_zeros(t * len(x), *x.shape[1:])
        dist.all_gather_single(whole, x.contiguous())
        dx = torch.empty_like(x)
        dist.reduce_scatter_single(dx, dz @ A.T)
        dA = torch.einsum("sbh,sbf->hf", whole, dz)
        return dx, dA

def regather(x, A):
    return Regather.apply(x, A)"""

MERGE = """def merge(one, other):
    (o1, l1, m1), (o2, l2, m2) = one, other
    m = torch.maximum(m1, m2)
    a1 = torch.nan_to_num((m1 - m).exp())
    a2 = torch.nan_to_num((m2 - m).exp())
    o = o1 * a1 + o2 * a2
    l = l1 * a1 + l2 * a2
    return o, l, m"""

RING = """def ring_attention(q, k, v, places=None):
    rank, c = dist.get_rank(), dist.get_world_size()
    here, found = torch.stack([k, v]), None
    for step in range(c):
        last = step == c - 1
        if not last:
            coming = torch.empty_like(here)
            sending = dist.isend(here, (rank + 1) % c)
            receiving = dist.irecv(coming, (rank - 1) % c)
        source = (rank - step) % c
        seen = None if places is None else places[source][None, :] <= places[rank][:, None]
        found = look_at(q, here[0], here[1], seen, found)
        if not last:
            sending.wait()
            receiving.wait()
            here = coming
    return found[0] / found[1]"""


def but(answer, *changes):
    """The answer with one thing in it changed."""
    for old, new in changes:
        assert old in answer, old
        answer = answer.replace(old, new)
    return answer


LN = "F.layer_norm(x, gamma.shape, copy_to_group(gamma))"
SCATTER = "reduce_scatter_sequence(F.gelu(z @ A) @ B, 1)"
MORE = "from course_lib.collectives.autograd import gather_from_group, reduce_from_group, split_to_group\n"
KEPT_WHOLE = r"tensors of \(b, s, h\) kept.*gather after the norm"
TOO_DEAR = "bytes sent by .*too dear"
STILL_THERE = "bytes kept for backward.*still there"
SAVE = "        ctx.save_for_backward(x, A)\n"
GATHER_AGAIN = """        t = dist.get_world_size()
        whole = x.new_zeros(t * len(x), *x.shape[1:])
        dist.all_gather_single(whole, x.contiguous())
        dx ="""
REDUCE_SCATTER = "dist.reduce_scatter_single(dx, dz @ A.T)"
POST = """            sending = dist.isend(here, (rank + 1) % c)
            receiving = dist.irecv(coming, (rank - 1) % c)
"""
WAIT = """            sending.wait()
            receiving.wait()
"""
LOOK = "        found = look_at(q, here[0], here[1], seen, found)\n"
SEEN = "places[source][None, :] <= places[rank][:, None]"
TAKE_TURNS = "looks while a block is coming.*take turns"

# task -> (answer, words that the verdict must hold); an answer is a whole cell, `def` included
WRONG = {
    "8.1": [
        # no f in front of gamma: nothing fails, and its gradient is of this rank's tokens
        (but(HALF, ("copy_to_group(gamma)", "gamma")), "∂γ.*added up.*what stands before"),
        # f twice
        (but(HALF, ("copy_to_group(gamma)", "copy_to_group(copy_to_group(gamma))")), "∂γ.*added up"),
        # a mean
        (
            but(HALF, ("def half_block", "def half"))
            + """
def half_block(x, gamma, A, B):
    gamma.register_hook(lambda gradient: gradient / dist.get_world_size())
    return half(x, gamma, A, B)""",
            "∂γ.*added up",
        ),
        # gathers before the norm: t times the same norm, and all of its input is kept
        (but(HALF, (f"gather_sequence({LN}, 1)", LN.replace("(x,", "(gather_sequence(x, 1),"))), KEPT_WHOLE),
        # only the weight comes after the gather
        (
            but(
                HALF,
                (
                    f"gather_sequence({LN}, 1)",
                    "gather_sequence(F.layer_norm(x, gamma.shape), 1) * copy_to_group(gamma)",
                ),
            ),
            KEPT_WHOLE,
        ),
        # an all-reduce, of which a part is used: twice the bytes
        (MORE + but(HALF, (SCATTER, "split_to_group(reduce_from_group(F.gelu(z @ A) @ B), 1)")), TOO_DEAR),
        # the same with a plain cut: other ranks' tokens have no gradient here
        (MORE + but(HALF, (SCATTER, "part(reduce_from_group(F.gelu(z @ A) @ B), 1)")), "∂A"),
        # nobody adds up
        (but(HALF, (SCATTER, "part(F.gelu(z @ A) @ B, 1)")), "y.*reduce_scatter adds"),
        # x is added before the reduce-scatter, once by each rank
        (
            but(
                HALF, (SCATTER, "reduce_scatter_sequence(gather_sequence(x, 1) + F.gelu(z @ A) @ B, 1)"), ("x + m", "m")
            ),
            "y.*x is added after it, once",
        ),
        (but(HALF, ("x + m", "x + m / dist.get_world_size()")), "y.*adds"),
        (but(HALF, ("x + m", "m")), "y.*x is added"),
        (but(HALF, ("x + m", f"{LN} + m")), "y.*x is added"),
        # two different dims
        (but(HALF, ("@ B, 1)", "@ B, 0)")), "RankError"),
        (but(HALF, ("(gamma)), 1)", "(gamma)), 0)")), "RankError"),
        # the wrong gather: what others' columns say of this rank's tokens is lost
        (MORE + but(HALF, ("gather_sequence(F", "gather_from_group(F")), "∂x.*adds the parts up"),
        # a gather that autograd does not see
        (but(HALF, (f"gather_sequence({LN}, 1)", f"gather_sequence({LN}.detach(), 1).requires_grad_()")), "∂x"),
        # f where tokens are cut already
        (but(HALF, ("layer_norm(x,", "layer_norm(copy_to_group(x),")), "∂x.*nothing else may"),
        # f on a weight that is cut
        (but(HALF, ("z @ A", "z @ copy_to_group(A)")), "∂A|RankError"),
        # no gather at all: this rank's tokens, this rank's columns
        (but(HALF, (f"gather_sequence({LN}, 1)", LN), (SCATTER, "F.gelu(z @ A) @ B")), "y.*adds"),
        # gathers the weights instead of the tokens
        (
            but(
                HALF,
                (f"gather_sequence({LN}, 1)", LN),
                (SCATTER, "F.gelu(z @ gather_sequence(A, 1)) @ gather_sequence(B, 0)"),
            ),
            TOO_DEAR,
        ),
        (but(HALF, ("copy_to_group(gamma))", ")")), "y"),
        (but(HALF, ("F.gelu(z @ A)", "z @ A")), "y"),
    ],
    "8.2": [
        # what was gathered is kept: by autograd, on ctx, as a view of it
        (
            but(
                COLUMN,
                (SAVE, ""),
                ("        return whole @ A", "        ctx.save_for_backward(x, A, whole)\n        return whole @ A"),
                ("x, A = ctx.saved_tensors", "x, A, whole = ctx.saved_tensors"),
                (GATHER_AGAIN, "        dx ="),
            ),
            STILL_THERE,
        ),
        (
            but(
                COLUMN,
                ("        return whole @ A", "        ctx.whole = whole\n        return whole @ A"),
                (GATHER_AGAIN, "        whole = ctx.whole\n        dx ="),
            ),
            STILL_THERE,
        ),
        (
            but(
                COLUMN,
                (SAVE, ""),
                (
                    "        return whole @ A",
                    "        ctx.save_for_backward(whole.chunk(t)[dist.get_rank()], A)\n        return whole @ A",
                ),
            ),
            STILL_THERE,
        ),
        # an operator that autograd knows
        ("def regather(x, A): return gather_sequence(x, 0) @ A", STILL_THERE),
        # does not gather again
        (but(COLUMN, (GATHER_AGAIN, "        whole = x\n        dx =")), "RankError"),
        (
            but(COLUMN, (GATHER_AGAIN, "        dx ="), ('"sbh,sbf->hf", whole, dz', '"sbh,sbf->hf", x, part(dz, 0)')),
            "∂A.*all tokens' x, gathered",
        ),
        # and adds up over the ranks, whose columns are different ones
        (
            but(
                COLUMN,
                (GATHER_AGAIN, "        dx ="),
                ('"sbh,sbf->hf", whole, dz)', '"sbh,sbf->hf", x, part(dz, 0)); dist.all_reduce(dA)'),
            ),
            "∂A.*nothing is added",
        ),
        (but(COLUMN, ("        return dx, dA", "        dist.all_reduce(dA); return dx, dA")), "∂A.*nothing is added"),
        (but(COLUMN, ("return dx, dA", "return dx, dA / t")), "∂A"),
        (but(COLUMN, ("return dx, dA", "return dx, None")), "∂A"),
        (but(COLUMN, ('torch.einsum("sbh,sbf->hf", whole, dz)', "whole[:, 0].T @ dz[:, 0]")), "∂A"),
        # all-reduced and cut: right, and twice the bytes
        (but(COLUMN, (REDUCE_SCATTER, "every = dz @ A.T; dist.all_reduce(every); dx = part(every, 0)")), TOO_DEAR),
        # all-reduced and not cut
        (but(COLUMN, (REDUCE_SCATTER, "dx = dz @ A.T; dist.all_reduce(dx)")), "RankError"),
        (but(COLUMN, (REDUCE_SCATTER, "dx = part(dz @ A.T, 0)")), "∂x.*reduce_scatter"),
        (but(COLUMN, ("return dx, dA", "return dx / t, dA")), "∂x.*no mean"),
        # gathers one more time, for ∂x, where x is not needed
        (
            but(COLUMN, ("        dx =", "        dist.all_gather_single(whole, x.contiguous())\n        dx =")),
            TOO_DEAR,
        ),
        # a gather by adding up zeros
        (
            but(
                COLUMN,
                (
                    "dist.all_gather_single(whole, x.contiguous())",
                    "whole.chunk(t)[dist.get_rank()].copy_(x); dist.all_reduce(whole)",
                ),
            ),
            TOO_DEAR,
        ),
        ("def regather(x, A): return x @ A", "z.*gather x"),
        ("def regather(x, A): return gather_sequence(x, 1) @ A", "z.*along dim 0"),
        (but(COLUMN, ("t * len(x)", "4 * len(x)")), "RankError"),
        (but(COLUMN, ("return dx, dA", "return dA, dx")), "RankError"),
    ],
    "8.3": [
        (but(MERGE, ("return o, l, m", "return o, l, m1")), "m: .*larger of the two"),
        (but(MERGE, ("m = torch.maximum(m1, m2)", "m = m1")), "m: .*larger of the two"),
        (but(MERGE, ("torch.maximum", "torch.minimum")), "m: "),
        # the largest of all queries
        (but(MERGE, ("torch.maximum(m1, m2)", "torch.maximum(m1, m2).max().expand_as(m1)")), "m: .*each query"),
        # upside down
        (but(MERGE, ("(m1 - m)", "(m - m1)"), ("(m2 - m)", "(m - m2)")), "l: .*old m - the new m"),
        (but(MERGE, ("o1 * a1 + o2 * a2", "o1 + o2")), "o: .*same factors"),
        (but(MERGE, ("l1 * a1 + l2 * a2", "l1 + l2")), "l: .*bring each"),
        (but(MERGE, ("o1 * a1 + o2 * a2", "o1 + o2"), ("l1 * a1 + l2 * a2", "l1 + l2")), "l: "),
        # as if the other one always had the larger scores
        (but(MERGE, ("l2 * a2", "l2"), ("o2 * a2", "o2")), "l: "),
        # one decision for all queries
        (but(MERGE, ("torch.maximum(m1, m2)", "m1 if m1.sum() > m2.sum() else m2")), "m: "),
        # crossed
        (but(MERGE, ("o1 * a1 + o2 * a2", "o1 * a2 + o2 * a1")), "o: "),
        # quotients, of which no sum can be made any more
        (but(MERGE, ("return o, l", "return o / l, l")), "o: "),
        (but(MERGE, ("return o, l", "return o / 2, l / 2")), "l: "),
        # powers without a maximum
        (
            """def merge(one, other):
    (o1, l1, m1), (o2, l2, m2) = one, other
    m = torch.maximum(m1, m2)
    e1, e2, e = m1.exp(), m2.exp(), m.exp()
    return (o1 * e1 + o2 * e2) / e, (l1 * e1 + l2 * e2) / e, m""",
            "large scores.*never exp",
        ),
        (
            but(MERGE, ("(m1 - m).exp()", "m1.exp() / m.exp()"), ("(m2 - m).exp()", "m2.exp() / m.exp()")),
            "large scores.*never exp",
        ),
        # not a number where all is hidden
        (but(MERGE, ("torch.nan_to_num", "")), "hidden.*is nan"),
        (but(MERGE, ("a2 = torch.nan_to_num", "a2 = ")), "hidden.*is nan"),
        # as if no score were below -1e9
        (but(MERGE, ("torch.maximum(m1, m2)", "torch.maximum(m1, m2).clamp(min=-1e9)")), "hidden"),
        (but(MERGE, ("    o =", "    if m.isinf().any(): return other\n    o =")), "hidden"),
        (but(MERGE, ("o1 * a1 + o2", "o1.mul_(a1) + o2")), "afterwards.*no \\*="),
        (but(MERGE, ("o1 * a1 + o2", "o2.mul_(a2).add_(o1 * a1) + 0 * o2")), "o: |afterwards"),
        # a power for every column
        (
            but(MERGE, ("(m1 - m).exp()", "(m1 - m).expand_as(o1).exp()"), ("l1 * a1", "l1 * a1[..., :1]")),
            "exponentials a query.*too dear",
        ),
    ],
    "8.4": [
        # everything to everybody
        (
            """def ring_attention(q, k, v, places=None):
    rank, c = dist.get_rank(), dist.get_world_size()
    every = torch.empty(c, 2, *k.shape, dtype=k.dtype)
    dist.all_gather_single(every, torch.stack([k, v])[None])
    found = None
    for source, (key, value) in enumerate(every):
        seen = None if places is None else places[source] <= places[rank][:, None]
        found = look_at(q, key, value, seen, found)
    return found[0] / found[1]""",
            "collectives.*holds all keys",
        ),
        # the same, for the causal one only
        (
            but(
                RING,
                (
                    "    here, found",
                    """    if places is not None:
        every = [torch.empty(2, *k.shape, dtype=k.dtype) for _ in range(c)]
        dist.all_gather(every, torch.stack([k, v]))
        seen = places.flatten() <= places[rank][:, None]
        return F.scaled_dot_product_attention(q, *torch.cat(every, 3), seen)
    here, found""",
                ),
            ),
            "collectives.*holds all keys",
        ),
        # computed on rank 0 and broadcast
        (
            """def ring_attention(q, k, v, places=None):
    rank, c = dist.get_rank(), dist.get_world_size()
    mine, every = torch.stack([q, k, v]), None
    if rank == 0: every = [torch.empty_like(mine) for _ in range(c)]
    dist.gather(mine, every, 0)
    out = torch.empty(c, *q.shape, dtype=q.dtype)
    if rank == 0:
        q, k, v = torch.cat(every, 3)
        seen = None if places is None else places.flatten() <= places.flatten()[:, None]
        out = torch.stack(F.scaled_dot_product_attention(q, k, v, seen).chunk(c, 2))
    dist.broadcast(out, 0)
    return out[rank]""",
            "collectives.*holds all keys",
        ),
        # all wait for each other
        (
            but(
                RING,
                (POST, ""),
                (WAIT, "            dist.send(here, (rank + 1) % c)\n            dist.recv(coming, (rank - 1) % c)\n"),
            ),
            "RankDeadlock: deadlock.*waits in send",
        ),
        # to the right and from the right
        (but(RING, ("irecv(coming, (rank - 1)", "irecv(coming, (rank + 1)")), "RankDeadlock: deadlock"),
        # the other way round the ring
        (
            but(
                RING,
                ("isend(here, (rank + 1)", "isend(here, (rank - 1)"),
                ("irecv(coming, (rank - 1)", "irecv(coming, (rank + 1)"),
                ("(rank - step)", "(rank + step)"),
            ),
            "sent: to.*next rank",
        ),
        # first compute, then send
        (but(RING, (POST, ""), (WAIT, POST + WAIT)), TAKE_TURNS),
        # send, wait, then compute
        (
            but(
                RING,
                (POST, POST + WAIT),
                (f"        if not last:\n{WAIT}            here = coming", "        if not last: here = coming"),
            ),
            TAKE_TURNS,
        ),
        # the receive only after the look
        (
            but(
                RING,
                ("            receiving = dist.irecv(coming, (rank - 1) % c)\n", ""),
                ("receiving.wait()", "dist.recv(coming, (rank - 1) % c)"),
            ),
            "RankDeadlock|looks while a block is coming.*take turns",
        ),
        # everything round first, then one attention over all
        (
            """def ring_attention(q, k, v, places=None):
    rank, c = dist.get_rank(), dist.get_world_size()
    every = torch.empty(c, 2, *k.shape, dtype=k.dtype)
    every[rank] = torch.stack([k, v])
    for step in range(c - 1):
        sending = dist.isend(every[(rank - step) % c], (rank + 1) % c)
        dist.recv(every[(rank - step - 1) % c], (rank - 1) % c)
        sending.wait()
    key, value = torch.cat(list(every), 3)
    seen = None if places is None else places.flatten() <= places[rank][:, None]
    return F.scaled_dot_product_attention(q, key, value, seen)""",
            TAKE_TURNS,
        ),
        # a block too few
        (
            but(RING, ("for step in range(c)", "for step in range(max(1, c - 1))"), ("step == c - 1", "step >= c - 2")),
            "attention: |attention\\[.*all c blocks",
        ),
        # the last one goes home, for nothing
        (but(RING, ("last = step == c - 1", "last = c == 1")), "sent: messages.*nothing is sent"),
        # two messages
        (
            but(
                RING,
                (
                    "sending = dist.isend(here,",
                    "sending = dist.isend(here[0], (rank + 1) % c); more = dist.isend(here[1],",
                ),
                (
                    "receiving = dist.irecv(coming,",
                    "receiving = dist.irecv(coming[0], (rank - 1) % c); too = dist.irecv(coming[1],",
                ),
                ("sending.wait()", "sending.wait(); more.wait(); too.wait()"),
            ),
            "sent: messages.*one message",
        ),
        # queries travel along
        (but(RING, ("torch.stack([k, v])", "torch.stack([k, v, q])")), "sent: blocks.*too many bytes"),
        # each time the own block
        (but(RING, ("isend(here,", "isend(torch.stack([k, v]),")), "attention.*what was received is what is sent"),
        # the own block to everybody, one after the other
        (
            but(
                RING,
                ("isend(here, (rank + 1)", "isend(torch.stack([k, v]), (rank + step + 1)"),
                ("irecv(coming, (rank - 1)", "irecv(coming, (rank - step - 1)"),
            ),
            "sent: to.*next rank",
        ),
        # all blocks stay
        (
            but(
                RING,
                ("found = torch.stack([k, v]), None", "found = torch.stack([k, v]), None\n    blocks = []"),
                ("            here = coming", "            blocks.append(here); here = coming"),
            ),
            "a rank of 4 holds more.*pile up",
        ),
        # room for all of them from the start
        (
            but(
                RING,
                (
                    "found = torch.stack([k, v]), None",
                    "found = torch.stack([k, v]), None\n    room = torch.empty(c, *here.shape, dtype=k.dtype)",
                ),
                ("coming = torch.empty_like(here)", "coming = room[step]"),
            ),
            "a rank of 4 holds more.*pile up",
        ),
        # the mask of a text in one piece; of ranks in order; strict; transposed; of the wrong rank; none
        (
            but(RING, (SEEN, "torch.ones(q.shape[2], q.shape[2], dtype=torch.bool).tril()")),
            "causal attention.*key's place <= query's place",
        ),
        (
            but(
                RING,
                (
                    SEEN,
                    "torch.arange(q.shape[2]) + source * q.shape[2] <= (torch.arange(q.shape[2]) + rank * q.shape[2])[:, None]",
                ),
            ),
            "causal attention.*key's place",
        ),
        (but(RING, ("[None, :] <= ", "[None, :] < ")), "causal attention.*key's place <= query's"),
        (but(RING, ("[None, :] <= ", "[None, :] >= ")), "causal attention"),
        (but(RING, ("(rank - step)", "(rank + step)")), "causal attention.*keys of rank - i"),
        (but(RING, (SEEN, "None")), "causal attention"),
        # a mean of the blocks' results
        (
            but(
                RING,
                (
                    LOOK,
                    "        o, l, m = look_at(q, here[0], here[1], seen)\n        found = o / l / c + (0 if found is None else found)\n",
                ),
                ("found[0] / found[1]", "found"),
            ),
            "attention",
        ),
        (but(RING, ("found[0] / found[1]", "found[0]")), "attention"),
        # a fixed number of ranks
        (
            but(RING, ("dist.get_rank(), dist.get_world_size()", "dist.get_rank(), 4")),
            "Rank(Error|Deadlock|Mismatch)|attention",
        ),
        # keys and values come into the caller's tensors
        (
            but(
                RING, ("            here = coming", "            k.copy_(coming[0]); v.copy_(coming[1]); here = coming")
            ),
            "afterwards.*new memory",
        ),
    ],
}

# task -> answers that must be accepted
RIGHT = {
    "8.1": [
        """def half_block(x, gamma, A, B):
    z = gather_sequence(F.layer_norm(x, gamma.shape) * copy_to_group(gamma), dim=1, check=False)
    return reduce_scatter_sequence(F.linear(F.gelu(F.linear(z, A.T)), B.T), dim=-2).add(x)""",
        # the norm written out
        """def half_block(x, gamma, A, B):
    centred = x - x.mean(-1, keepdim=True)
    z = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * copy_to_group(gamma)
    return x + reduce_scatter_sequence(F.gelu(gather_sequence(z, 1) @ A) @ B, 1)""",
        # the sequence in front
        """def half_block(x, gamma, A, B):
    z = F.layer_norm(x, gamma.shape, copy_to_group(gamma)).transpose(0, 1)
    return x + reduce_scatter_sequence(F.gelu(gather_sequence(z) @ A) @ B).transpose(0, 1)""",
        # another order of the tokens, which know nothing of each other: both along dim 0
        """def half_block(x, gamma, A, B):
    z = gather_sequence(F.layer_norm(x, gamma.shape, copy_to_group(gamma)), 0)
    return x + reduce_scatter_sequence(F.gelu(z @ A) @ B, 0)""",
        # gamma's gradient by a hook
        """def half_block(x, gamma, A, B):
    def summed(gradient):
        gradient = gradient.clone()
        dist.all_reduce(gradient)
        return gradient
    gamma.register_hook(summed)
    z = gather_sequence(F.layer_norm(x, gamma.shape, gamma), 1)
    return x + reduce_scatter_sequence(F.gelu(z @ A) @ B, 1)""",
        # sample by sample
        """def half_block(x, gamma, A, B):
    z = F.layer_norm(x, gamma.shape, copy_to_group(gamma))
    mlp = [reduce_scatter_sequence(F.gelu(gather_sequence(one, 0) @ A) @ B, 0) for one in z]
    return x + torch.stack(mlp)""",
    ],
    "8.2": [
        # checkpointing does it
        """from torch.utils.checkpoint import checkpoint
def regather(x, A):
    return checkpoint(lambda x, A: gather_sequence(x, 0, check=False) @ A, x, A, use_reentrant=False)""",
        # the reduce-scatter under way while ∂A is computed
        """class Regather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, A):
        ctx.save_for_backward(x, A)
        return gather_sequence(x.detach(), 0) @ A
    @staticmethod
    def backward(ctx, dz):
        x, A = ctx.saved_tensors
        whole = gather_sequence(x.detach(), 0, check=False)
        dx = torch.empty_like(x)
        under_way = dist.reduce_scatter_single(dx, dz.matmul(A.T), async_op=True)
        dA = (whole.transpose(1, 2) @ dz).sum(0)
        under_way.wait()
        return dx, dA
def regather(x, A): return Regather.apply(x, A)""",
        # lists of tensors; the input on ctx
        """class Regather(torch.autograd.Function):
    @staticmethod
    def whole(x):
        every = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(every, x)
        return torch.cat(every)
    @staticmethod
    def forward(ctx, x, A):
        ctx.x, ctx.A = x.detach(), A.detach()
        return Regather.whole(ctx.x) @ A
    @staticmethod
    def backward(ctx, dz):
        dx = torch.empty_like(ctx.x)
        dist.reduce_scatter(dx, [p.contiguous() for p in (dz @ ctx.A.T).chunk(dist.get_world_size())])
        return dx, torch.einsum("sbh,sbf->hf", Regather.whole(ctx.x), dz)
def regather(x, A): return Regather.apply(x, A)""",
        # part by part, each broadcast by its owner and used at once
        """class Regather(torch.autograd.Function):
    @staticmethod
    def each(x):
        for owner in range(dist.get_world_size()):
            one = x.detach().clone()
            dist.broadcast(one, owner)
            yield one
    @staticmethod
    def forward(ctx, x, A):
        ctx.save_for_backward(x, A)
        return torch.cat([one @ A for one in Regather.each(x)])
    @staticmethod
    def backward(ctx, dz):
        x, A = ctx.saved_tensors
        rank, t, dA = dist.get_rank(), dist.get_world_size(), torch.zeros_like(A)
        for owner, one in enumerate(Regather.each(x)):
            dA += one.flatten(0, 1).T @ dz.chunk(t)[owner].flatten(0, 1)
        for owner, summand in enumerate((dz @ A.T).chunk(t)):
            summand = summand.clone()
            dist.reduce(summand, owner)
            if owner == rank: dx = summand
        return dx, dA
def regather(x, A): return Regather.apply(x, A)""",
        # a copy of its part is kept
        but(COLUMN, ("ctx.save_for_backward(x, A)", "ctx.save_for_backward(x.clone(), A)")),
        # hooks that keep a part of what autograd wants to keep
        """def regather(x, A):
    whole = gather_sequence(x, 0, check=False)
    address, mine = whole.data_ptr(), x.detach()
    def pack(tensor):
        return tensor.shape if tensor.data_ptr() == address else tensor
    def unpack(kept):
        if torch.is_tensor(kept): return kept
        return gather_sequence(mine, 0, check=False).view(kept)
    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        return whole @ A""",
    ],
    "8.3": [
        """def merge(one, other):
    m = torch.maximum(one[2], other[2])
    finite = torch.where(m.isinf(), torch.zeros_like(m), m)
    a, b = torch.exp(one[2] - finite), torch.exp(other[2] - finite)
    return a * one[0] + b * other[0], a * one[1] + b * other[1], m""",
        # equal maxima, infinite ones too: nothing shrinks
        """def merge(one, other):
    m = torch.maximum(one[2], other[2])
    a, b = (torch.where(p[2] == m, 1.0, (p[2] - m).exp()) for p in (one, other))
    return one[0] * a + other[0] * b, one[1] * a + other[1] * b, m""",
        # one exponential: only one of the two shrinks
        """def merge(one, other):
    ahead = torch.nan_to_num(one[2] - other[2], nan=0.0, posinf=math.inf, neginf=-math.inf)
    shrink = (-ahead.abs()).exp()
    a, b = torch.where(ahead >= 0, 1.0, shrink), torch.where(ahead >= 0, shrink, 1.0)
    return one[0] * a + other[0] * b, one[1] * a + other[1] * b, one[2].maximum(other[2])""",
        # any number of blocks
        """def merge(*blocks):
    o, l, m = (torch.stack(parts) for parts in zip(*blocks))
    top = m.amax(0)
    shrink = (m - top.clamp(min=torch.finfo(m.dtype).min)).exp()
    return (o * shrink).sum(0), (l * shrink).sum(0), top""",
        # a softmax over the two maxima gives the two factors, up to the larger one
        """def merge(one, other):
    weights = torch.softmax(torch.cat([one[2], other[2]], -1), -1).nan_to_num()
    a, b = (weights / weights.amax(-1, keepdim=True)).nan_to_num().split(1, -1)
    return one[0] * a + other[0] * b, one[1] * a + other[1] * b, torch.maximum(one[2], other[2])""",
        # powers of two; o and l side by side
        """def merge(one, other):
    m = torch.maximum(one[2], other[2])
    both = 0
    for o, l, old in (one, other):
        both = both + torch.cat([o, l], -1) * torch.nan_to_num(torch.exp2((old - m) / math.log(2)), nan=0.0)
    return both[..., :-1], both[..., -1:], m""",
    ],
    "8.4": [
        """def ring_attention(q, k, v, places=None):
    rank, c = dist.get_rank(), dist.get_world_size()
    here, found, works = torch.cat([k, v], -1), None, []
    for source in [(rank - step) % c for step in range(c)]:
        if source != (rank + 1) % c:
            coming = torch.empty_like(here)
            ops = [dist.P2POp(dist.isend, here, (rank + 1) % c), dist.P2POp(dist.irecv, coming, (rank - 1) % c)]
            works = dist.batch_isend_irecv(ops)
        seen = None if places is None else places[rank].unsqueeze(1) >= places[source]
        found = look_at(q, *here.chunk(2, -1), seen, found)
        while works: works.pop().wait()
        here = coming if source != (rank + 1) % c else None
    return found[0] / found[1]""",
        # each block by itself, merged as in 8.3
        """def ring_attention(q, k, v, places=None):
    rank, c = dist.get_rank(), dist.get_world_size()
    here, found = torch.stack([k, v]), None
    for step in range(c):
        if step + 1 < c:
            coming = torch.empty_like(here)
            works = [dist.irecv(coming, (rank - 1) % c), dist.isend(here, (rank + 1) % c)]
        seen = None if places is None else places[rank - step] <= places[rank][:, None]
        piece = look_at(q, *here, seen)
        found = piece if found is None else merge(found, piece)
        if step + 1 < c:
            [work.wait() for work in works]
            here = coming
    return found[0] / found[1]""",
        # two buffers in turn; what is not seen is not computed
        """def ring_attention(q, k, v, places=None):
    rank, c = dist.get_rank(), dist.get_world_size()
    buffers = [torch.stack([k, v]), torch.empty(2, *k.shape, dtype=k.dtype)]
    half = q.shape[2] // 2
    for step in range(c):
        here, coming = buffers[step % 2], buffers[1 - step % 2]
        if step < c - 1: works = dist.isend(here, (rank + 1) % c), dist.irecv(coming, (rank - 1) % c)
        source = (rank - step) % c
        if places is None: found = look_at(q, *here, None, found if step else None)
        elif source == rank: found = look_at(q, *here, places[rank] <= places[rank][:, None], None)
        elif source < rank: found = look_at(q, *here[:, :, :, :half], None, found)
        else:
            late = look_at(q[:, :, half:], *here, None, tuple(x[:, :, half:] for x in found))
            found = tuple(torch.cat([x[:, :, :half], y], 2) for x, y in zip(found, late))
        if step < c - 1:
            for work in works: work.wait()
    return found[0] / found[1]""",
        # a generator passes on; the rest is a plain loop
        """def around(here):
    rank, c = dist.get_rank(), dist.get_world_size()
    for left in reversed(range(c)):
        if left:
            coming = here.new_empty(here.shape)
            works = dist.irecv(coming, (rank - 1) % c), dist.isend(here, (rank + 1) % c)
        yield (rank + left + 1) % c, here
        if left:
            for work in works: work.wait()
            here = coming
def ring_attention(q, k, v, places=None):
    found, rank = None, dist.get_rank()
    for source, (key, value) in around(torch.stack([k, v])):
        seen = None if places is None else places[source] <= places[rank][:, None]
        found = look_at(q, key, value, seen, found)
    o, l, _ = found
    return o / l""",
        # without look_at: means of the blocks, weighted by logarithms of their sums
        """def ring_attention(q, k, v, places=None):
    rank, c = dist.get_rank(), dist.get_world_size()
    here, out, log_sum = torch.stack([v, k]), 0, torch.full((*q.shape[:3], 1), -math.inf, dtype=q.dtype)
    for step in range(c):
        if step < c - 1:
            coming = torch.empty_like(here)
            works = dist.isend(here, (rank + 1) % c), dist.irecv(coming, (rank - 1) % c)
        z = torch.einsum("bhqd,bhkd->bhqk", q, here[1]) * q.shape[-1] ** -0.5
        if places is not None: z = z.masked_fill(places[rank - step] > places[rank][:, None], -1e30)
        this = z.logsumexp(-1, keepdim=True)
        new = torch.logaddexp(log_sum, this)
        out = out * (log_sum - new).exp() + (this - new).exp() * (z.softmax(-1) @ here[0])
        log_sum = new
        if step < c - 1:
            for work in works: work.wait()
            here = coming
    return out""",
        # sends are waited for at the end
        """def ring_attention(q, k, v, places=None):
    me, c = dist.get_rank(), dist.get_world_size()
    def step(here, i, found):
        if i < c - 1:
            coming = torch.empty_like(here)
            receiving, sending = dist.irecv(coming, (me + c - 1) % c), dist.isend(here, (me + 1) % c)
        seen = None if places is None else places[(me + c - i) % c] <= places[me].view(-1, 1)
        found = look_at(q, here[0], here[1], seen, found)
        if i == c - 1: return found[0] / found[1]
        receiving.wait()
        sending.wait()
        del here
        return coming, found
    state = torch.stack([k, v]), None
    for i in range(c):
        state = step(*state[:1], i, state[1])
    return state""",
    ],
}
