"""Answers to the exercise of chapter 13: plausible wrong ones, and right ones that are not the teacher's."""

# pieces put one after the other, along the dim that was cut
PART = """def my_part(shape, old, n, new, m, rank, read):
    mine = region(shape, Shard(new), m, rank)
    pieces = []
    for file in range(n):
        theirs = region(shape, Shard(old), n, file)
        begin = [max(a, c) for (a, _), (c, _) in zip(mine, theirs)]
        end = [min(b, d) for (_, b), (_, d) in zip(mine, theirs)]
        if begin[0] < end[0] and begin[1] < end[1]:
            rows, columns = [(s - c, t - c) for s, t, (c, _) in zip(begin, end, theirs)]
            pieces.append(read(file, rows, columns))
    return torch.cat(pieces, old) if pieces else torch.zeros([b - a for a, b in mine])"""

EVERY = """def save_every(job):
    delta = job.parameters * job.bytes_each / job.write_gb_s / 1e9
    mtbf = job.gpu_mtbf_years * 365 * 86400 / job.gpus
    lost = lambda k: delta / (k * job.step_s) + (k * job.step_s / 2 + job.restart_s) / mtbf
    young = int((2 * delta * mtbf) ** 0.5 / job.step_s)
    k = young if young >= 1 and lost(young) <= lost(young + 1) else young + 1
    return k, lost(k)"""

FAULT = """def diagnose(run, healthy):
    gone = difference(run.trace, healthy.trace).missing[0]
    tp = run.layout.groups("tp") if run.layout.tp > 1 else ()
    letters = copies(rank["weights"] for rank in run.ranks).letters
    good = copies(rank["weights"] for rank in healthy.ranks).letters
    ratio = run.ranks[0]["norms"][0] / healthy.ranks[0]["norms"][0]
    drifted = [name for name in good if letters[name] != good[name]]
    if any(call.ranks in tp for call in gone): return "norms drift"
    if sum(gone.values()) > 1: return "no all-reduce"
    if gone: return "mean of means" if min(call.nbytes for call in gone) == 8 else "one forgotten"
    if drifted: return "other order"
    if abs(ratio - run.layout.dp) < 1e-6: return "sum for mean"
    if abs(ratio - run.m) < 1e-6: return "not divided"
    seen = {tuple(rank["losses"]) for rank in run.ranks}
    return "same rows" if len(seen) == 1 else "healthy\""""

KEEP = """def save(trainer, folder):
    me = dist.get_rank()
    if me == 0:
        torch.save([trainer.model.state_dict(), trainer.optimizer.state_dict(), trainer.schedule.state_dict()], folder / "net")
        torch.save([trainer.order.get_state(), trainer.queue.tolist()], folder / "data")
    torch.save(torch.get_rng_state(), folder / f"random{me}")

def load(trainer, folder):
    model, optimizer, schedule = torch.load(folder / "net")
    trainer.model.load_state_dict(model)
    trainer.optimizer.load_state_dict(optimizer)
    trainer.schedule.load_state_dict(schedule)
    order, queue = torch.load(folder / "data")
    trainer.order.set_state(order)
    trainer.queue = torch.tensor(queue, dtype=torch.long)
    torch.set_rng_state(torch.load(folder / f"random{dist.get_rank()}"))"""


def but(answer, *changes):
    """The answer with one thing in it changed."""
    for old, new in changes:
        assert old in answer, old
        answer = answer.replace(old, new)
    return answer


# task -> (answer, words that the verdict must hold); an answer is a whole cell, `def` included
WRONG = {
    "13.1": [
        # counted in the whole tensor
        (but(PART, ("(s - c, t - c)", "(s, t)")), r"IndexError.*of file \d, which has"),
        # everything is read, then cut
        (
            """def my_part(shape, old, n, new, m, rank, read):
    sizes = [[b - a for a, b in region(shape, Shard(old), n, f)] for f in range(n)]
    whole = torch.cat([read(f, (0, r), (0, c)) for f, (r, c) in enumerate(sizes)], old)
    (a, b), (c, d) = region(shape, Shard(new), m, rank)
    return whole[a:b, c:d]""",
            "numbers read.*reads too much",
        ),
        # only the files that meet, but all of each
        (
            """def my_part(shape, old, n, new, m, rank, read):
    mine = region(shape, Shard(new), m, rank)
    part = torch.zeros([b - a for a, b in mine], dtype=torch.float64)
    for f in range(n):
        theirs = region(shape, Shard(old), n, f)
        both = [(max(a, c), min(b, d)) for (a, b), (c, d) in zip(mine, theirs)]
        if all(a < b for a, b in both):
            file = read(f, *[(0, d - c) for c, d in theirs])
            here, there = ([slice(a - o, b - o) for (a, b), (o, _) in zip(both, whose)] for whose in (mine, theirs))
            part[tuple(here)] = file[tuple(there)]
    return part""",
            "numbers read.*reads too much",
        ),
        # one row at a time
        (
            but(
                PART,
                (
                    "pieces.append(read(file, rows, columns))",
                    "pieces.append(torch.cat([read(file, (r, r + 1), columns) for r in range(*rows)]))",
                ),
            ),
            "reads.*too many reads",
        ),
        # looks into every file, if only for nothing
        (
            but(
                PART,
                (
                    "        if begin[0] < end[0] and begin[1] < end[1]:\n",
                    "        end = [max(*x) for x in zip(begin, end)]\n        if all(c <= s and t <= d for s, t, (c, d) in zip(begin, end, theirs)):\n",
                ),
            ),
            "reads.*too many reads",
        ),
        # reads once to see how much there is
        (
            but(
                PART,
                (
                    "pieces.append(read(file, rows, columns))",
                    "size = read(file, rows, columns).numel()\n            if size: pieces.append(read(file, rows, columns))",
                ),
            ),
            "numbers read.*reads too much",
        ),
        # the old number of ranks for the new cut
        (but(PART, ("Shard(new), m, rank", "Shard(new), n, min(rank, n - 1)")), "rows, fewer ranks.*Try"),
        # the old dim for the new cut
        (but(PART, ("Shard(new), m, rank", "Shard(old), m, rank")), r"rows, then columns.*Try"),
        # always rows
        (but(PART, ("Shard(new)", "Shard(0)"), ("Shard(old)", "Shard(0)")), "columns, nothing fits|IndexError"),
        # equal parts, what is left over is lost
        (
            but(
                PART,
                (
                    "    mine = region(shape, Shard(new), m, rank)\n",
                    "    mine = [(0, s) for s in shape]\n    k = shape[new] // m\n    mine[new] = rank * k, (rank + 1) * k\n",
                ),
            ),
            "rows, nothing fits.*Try",
        ),
        # the first ranks have one more, as numpy.array_split cuts
        (
            but(
                PART,
                (
                    "    mine = region(shape, Shard(new), m, rank)\n",
                    "    mine = [(0, s) for s in shape]\n    k, more = divmod(shape[new], m)\n    first = rank * k + min(rank, more)\n    mine[new] = first, first + k + (rank < more)\n",
                ),
            ),
            "rows, nothing fits.*Try",
        ),
        # put together along the new dim
        (but(PART, ("torch.cat(pieces, old)", "torch.cat(pieces, new)")), "rows, then columns.*Try|RuntimeError"),
        # nothing to put together on a rank without rows
        (but(PART, (" if pieces else torch.zeros([b - a for a, b in mine])", "")), "Error.*non-empty"),
        # a tensor without columns either
        (
            but(PART, ("torch.zeros([b - a for a, b in mine])", "torch.empty(0)")),
            "ranks that hold nothing.*0 rows and all columns",
        ),
        # the last piece wins
        (but(PART, ("return torch.cat(pieces, old)", "return pieces[-1]")), "rows, fewer ranks.*several files"),
        # in the order of the ranks that read, not of the files
        (but(PART, ("in range(n)", "in reversed(range(n))")), "rows, fewer ranks.*Try"),
        # the stop is the last one that is read
        (but(PART, ("(s - c, t - c)", "(s - c, max(t - c - 1, s - c))")), "rows, the same cut.*Try"),
    ],
    "13.2": [
        # down, up, nearest
        (
            but(
                EVERY,
                ("k = young if young >= 1 and lost(young) <= lost(young + 1) else young + 1", "k = max(1, young)"),
            ),
            "steps.*Try",
        ),
        (
            but(EVERY, ("k = young if young >= 1 and lost(young) <= lost(young + 1) else young + 1", "k = young + 1")),
            "steps.*Try",
        ),
        (
            but(
                EVERY,
                ("int((2 * delta * mtbf) ** 0.5 / job.step_s)", "round((2 * delta * mtbf) ** 0.5 / job.step_s)"),
                ("k = young if young >= 1 and lost(young) <= lost(young + 1) else young + 1", "k = max(1, young)"),
            ),
            "steps, (between|just above).*rounding is not enough|steps, just above.*below Young",
        ),
        # no step at all
        (
            but(
                EVERY,
                (
                    "k = young if young >= 1 and lost(young) <= lost(young + 1) else young + 1",
                    "k = min((young, young + 1), key=lost)",
                ),
            ),
            "ZeroDivisionError",
        ),
        # what is lost at Young's own time
        (
            but(EVERY, ("return k, lost(k)", "return k, (2 * delta / mtbf) ** 0.5 + job.restart_s / mtbf")),
            "lost, .*with the whole k",
        ),
        # nobody has to be restarted
        (but(EVERY, ("(k * job.step_s / 2 + job.restart_s)", "(k * job.step_s / 2)")), "lost, like Llama 3.*δ/τ"),
        # restarting as a part of saving
        (but(EVERY, ("/ job.write_gb_s / 1e9", "/ job.write_gb_s / 1e9 + job.restart_s")), "steps, like Llama 3.*Try"),
        # a failure costs all of τ
        (
            but(
                EVERY,
                ("(k * job.step_s / 2 + job.restart_s)", "(k * job.step_s + job.restart_s)"),
                ("2 * delta * mtbf", "delta * mtbf"),
            ),
            "steps, like Llama 3.*Try",
        ),
        # Young without his 2
        (but(EVERY, ("2 * delta * mtbf", "delta * mtbf")), "steps, like Llama 3.*Try"),
        # the job fails as rarely as one GPU, or more rarely still
        (but(EVERY, (" / job.gpus", "")), "steps, like Llama 3.*/ gpus"),
        (but(EVERY, (" / job.gpus", " * job.gpus")), "steps, like Llama 3.*/ gpus"),
        # GiB, years with a quarter of a day, bits
        (but(EVERY, ("1e9", "2**30")), "lost, like Llama 3.*Try|steps, like Llama 3.*Try"),
        (but(EVERY, ("365 *", "365.25 *")), "lost, like Llama 3.*Try|steps, like Llama 3.*Try"),
        (but(EVERY, ("job.bytes_each /", "job.bytes_each * 8 /")), "steps, like Llama 3.*Try"),
        # seconds, not steps
        (but(EVERY, ("return k, lost(k)", "return k * job.step_s, lost(k)")), "steps, like Llama 3.*Try"),
        # per cent
        (but(EVERY, ("return k, lost(k)", "return k, 100 * lost(k)")), "lost, like Llama 3.*Try"),
        # each GPU writes alone, in turn
        (but(EVERY, ("/ job.write_gb_s", "* job.gpus / job.write_gb_s")), "steps, like Llama 3.*Try"),
        # the share of all time
        (but(EVERY, ("return k, lost(k)", "return k, lost(k) / (1 + lost(k))")), "lost, like Llama 3.*Try"),
    ],
    "13.3": [
        ("def diagnose(run, healthy): return 'healthy'", "run.*Try"),
        # loses sight of groups
        (but(FAULT, ("call.ranks in tp", "False")), "run.*in a group along tp, not dp"),
        # the norm's bytes, whatever the group
        (
            but(FAULT, ("any(call.ranks in tp for call in gone)", "[call.nbytes for call in gone] == [64]")),
            "run.*(which one differs from run to run|along tp)",
        ),
        # the tensor is always the same
        (
            but(
                FAULT,
                ('"one forgotten"\n', '"one forgotten" if letters["bias"] != good["bias"] else "no all-reduce"\n'),
            ),
            "which one differs|for every tensor",
        ),
        # any missing call is the all-reduce
        (but(FAULT, ("sum(gone.values()) > 1", "gone")), "run.*Try"),
        # drift alone, no calls
        (
            but(
                FAULT,
                ("sum(gone.values()) > 1", "len(drifted) > 1"),
                ("if gone:", "if gone and not drifted or len(drifted) == 1:"),
            ),
            "run.*two tensors of one shape differ between the copies",
        ),
        # half of the copies instead of twice the gradient
        (but(FAULT, ("ratio - run.layout.dp", "1 / ratio - run.layout.dp")), "exactly layout.dp times"),
        # four ranks, not two copies
        (but(FAULT, ("ratio - run.layout.dp", "ratio - len(run.ranks)")), "exactly layout.dp times|exactly m times"),
        (but(FAULT, ("ratio - run.layout.dp", "ratio - 2")), "exactly layout.dp times"),
        # m as in the lesson
        (but(FAULT, ("ratio - run.m", "ratio - 3")), "exactly m times|exactly layout.dp"),
        # any factor is the copies'
        (but(FAULT, ("abs(ratio - run.layout.dp) < 1e-6", "ratio > 1.5")), "exactly m times"),
        # the last step, where weights have parted
        (but(FAULT, ('["norms"][0]', '["norms"][-1]')), "exactly layout.dp times|exactly m times"),
        # means differ a little: so all that is not quite 1 is a mean of means
        (
            but(
                FAULT,
                (
                    "    if any(call.ranks",
                    "    if 1e-9 < abs(ratio - 1) < 0.5: return 'mean of means'\n    if any(call.ranks",
                ),
            ),
            "run.*Try",
        ),
        # ranks of one copy have the same losses too
        (
            but(FAULT, ("len(seen) == 1", 'run.ranks[0]["losses"] == run.ranks[1]["losses"]')),
            "run.*(nothing is wrong with this run|equal losses)",
        ),
        # all see the same rows if their losses are near
        (
            but(FAULT, ("len(seen) == 1", "max(x[0] for x in seen) - min(x[0] for x in seen) < 1")),
            "nothing is wrong with this run",
        ),
        # weights that differ from the healthy run's are an order
        (
            but(
                FAULT,
                (
                    "if drifted:",
                    'if any((a["weights"]["norm"] != b["weights"]["norm"]).any() for a, b in zip(run.ranks, healthy.ranks)):',
                ),
            ),
            "run.*Try",
        ),
        # letters without a healthy run: slices of a weight differ by right
        (but(FAULT, ("letters[name] != good[name]", "len(set(letters[name])) > 1")), "run.*Try"),
        # names of one's own
        (but(FAULT, ('"sum for mean"', '"sum instead of mean"')), "exactly layout.dp times"),
    ],
    "13.4": [
        # one thing forgotten
        (
            but(KEEP, ("    trainer.model.load_state_dict(model)\n", "")),
            "weights after loading.*state_dict, on both ranks",
        ),
        (but(KEEP, ("    trainer.optimizer.load_state_dict(optimizer)\n", "")), "optimizer after loading.*two moments"),
        (
            but(KEEP, ("    trainer.schedule.load_state_dict(schedule)\n", "")),
            "rate after loading.*learning rate begins anew",
        ),
        (but(KEEP, ("    trainer.order.set_state(order)\n", "")), "order after loading.*another order"),
        (
            but(KEEP, ("    trainer.queue = torch.tensor(queue, dtype=torch.long)\n", "")),
            "rows after loading.*left of this epoch",
        ),
        (
            but(KEEP, ('    torch.set_rng_state(torch.load(folder / f"random{dist.get_rank()}"))', "    pass")),
            "dropout after loading.*get_rng_state",
        ),
        # rank 0's random numbers for all
        (
            but(KEEP, ('folder / f"random{dist.get_rank()}"', 'folder / "random0"')),
            "dropout after loading.*of each rank",
        ),
        # a seed is not a state
        (
            but(
                KEEP,
                (
                    'torch.set_rng_state(torch.load(folder / f"random{dist.get_rank()}"))',
                    "torch.manual_seed(dist.get_rank())",
                ),
            ),
            "dropout after loading.*get_rng_state",
        ),
        # only rank 0 loads
        (
            but(
                KEEP,
                (
                    "    trainer.model.load_state_dict(model)\n",
                    "    if dist.get_rank() == 0: trainer.model.load_state_dict(model)\n",
                ),
            ),
            "weights after loading.*on both ranks",
        ),
        # each rank writes all
        (
            but(
                KEEP,
                ("    if me == 0:", "    if True:"),
                ('schedule.state_dict()], folder / "net")', 'schedule.state_dict()], folder / f"net{me}")'),
                ('torch.load(folder / "net")', 'torch.load(folder / f"net{dist.get_rank()}")'),
                ('tolist()], folder / "data")', 'tolist()], folder / f"data{me}")'),
                ('torch.load(folder / "data")', 'torch.load(folder / f"data{dist.get_rank()}")'),
            ),
            "bytes in the folder.*too much is written",
        ),
        # keeps all checkpoints
        (
            but(
                KEEP,
                (
                    'schedule.state_dict()], folder / "net")',
                    'schedule.state_dict()], folder / f"net-{trainer.schedule.last_epoch:03d}")',
                ),
                ('torch.load(folder / "net")', 'torch.load(sorted(folder.glob("net-*"))[-1])'),
            ),
            "bytes in the folder.*no older states",
        ),
        # draws a number while saving
        (
            but(KEEP, ("    me = dist.get_rank()\n", "    me = dist.get_rank()\n    torch.rand(1)\n")),
            "the run that was saved.*must not draw random numbers",
        ),
        # looks at the next epoch in order to save it
        (
            but(
                KEEP,
                (
                    "    me = dist.get_rank()\n",
                    "    me = dist.get_rank()\n    following = torch.randperm(len(DATA[0]), generator=trainer.order)\n",
                ),
            ),
            "the run that was saved.*nor change the trainer",
        ),
        # a new optimizer, of which the schedule knows nothing
        (
            but(
                KEEP,
                (
                    "    trainer.optimizer.load_state_dict(optimizer)\n",
                    "    trainer.optimizer = torch.optim.AdamW(trainer.model.parameters(), lr=0.01)\n    trainer.optimizer.load_state_dict(optimizer)\n",
                ),
            ),
            "losses.*trainer's own parts",
        ),
        # a new model, which the optimizer does not step
        (
            but(
                KEEP,
                (
                    "    trainer.model.load_state_dict(model)\n",
                    "    import copy\n    trainer.model = copy.deepcopy(trainer.model)\n    trainer.model.load_state_dict(model)\n",
                ),
            ),
            "losses.*trainer's own parts",
        ),
        # builds something with random values after the random state is back
        (
            but(KEEP, ("    model, optimizer, schedule =", "    later = None\n    model, optimizer, schedule ="))
            + "\n    nn.Linear(8, 8)",
            "dropout after loading.*as the last thing",
        ),
        # float32 halves the files
        (
            but(
                KEEP, ("trainer.model.state_dict(),", "{k: v.float() for k, v in trainer.model.state_dict().items()},")
            ),
            "weights after loading",
        ),
        # the order from the start, as it was seeded
        (
            but(
                KEEP,
                (
                    "trainer.order.get_state()",
                    "torch.Generator().manual_seed(trainer.order.initial_seed()).get_state()",
                ),
            ),
            "order after loading.*another order",
        ),
    ],
}

RIGHT = {
    "13.1": [
        PART,
        # row and column numbers: what I need, where each lies
        """def my_part(shape, old, n, new, m, rank, read):
    def numbers(dim, cut, k, r):
        every = list(range(shape[dim]))
        return [t.tolist() for t in torch.tensor(every).chunk(k)][r:r + 1] or [[]] if dim == cut else [every]
    mine = [numbers(d, new, m, rank)[0] for d in (0, 1)]
    part = torch.full((len(mine[0]), len(mine[1])), -1, dtype=torch.float64)
    for f in range(n):
        there = [numbers(d, old, n, f)[0] for d in (0, 1)]
        r, c = (sorted(set(a) & set(b)) for a, b in zip(mine, there))
        if r and c:
            got = read(f, (there[0].index(r[0]), there[0].index(r[-1]) + 1), (there[1].index(c[0]), there[1].index(c[-1]) + 1))
            part[mine[0].index(r[0]):mine[0].index(r[-1]) + 1, mine[1].index(c[0]):mine[1].index(c[-1]) + 1] = got
    return part""",
        # same dim, other dim: two cases by hand
        """def my_part(shape, old, n, new, m, rank, read):
    size = -(-shape[old] // n)
    mine = region(shape, Shard(new), m, rank)
    a, b = mine[old]
    if a >= b or mine[1 - old][0] >= mine[1 - old][1]:
        return torch.zeros([y - x for x, y in mine], dtype=torch.float64)
    found = []
    for f in range(a // size, (b - 1) // size + 1):
        along = max(a - f * size, 0), min(b - f * size, size)
        found.append(read(f, along, mine[1]) if old == 0 else read(f, mine[0], along))
    return torch.cat(found, dim=old)""",
        # works on transposed files where columns were cut
        """def my_part(shape, old, n, new, m, rank, read):
    if old == 1:
        turned = lambda f, r, c: read(f, c, r).T
        return my_part(shape[::-1], 0, n, 1 - new, m, rank, turned).T.contiguous()
    (a, b), columns = region(shape, Shard(new), m, rank)
    rows = []
    for f in range(n):
        (c, d), _ = region(shape, Shard(0), n, f)
        s, t = max(a, c), min(b, d)
        if s < t and columns[0] < columns[1]:
            rows.append(read(f, (s - c, t - c), columns))
    return torch.vstack(rows) if rows else torch.empty(b - a, columns[1] - columns[0], dtype=torch.float64)""",
        # lists, no tensors until the end
        """def my_part(shape, old, n, new, m, rank, read):
    mine = region(shape, Shard(new), m, rank)
    table = [[None] * (mine[1][1] - mine[1][0]) for _ in range(*mine[0])]
    for f in range(n):
        t = region(shape, Shard(old), n, f)
        r0, r1 = max(mine[0][0], t[0][0]), min(mine[0][1], t[0][1])
        c0, c1 = max(mine[1][0], t[1][0]), min(mine[1][1], t[1][1])
        if r1 - r0 > 0 and c1 - c0 > 0:
            for i, row in enumerate(read(f, [r0 - t[0][0], r1 - t[0][0]], [c0 - t[1][0], c1 - t[1][0]]).tolist(), r0 - mine[0][0]):
                table[i][c0 - mine[1][0]:c1 - mine[1][0]] = row
    return torch.tensor(table, dtype=torch.float64).reshape([b - a for a, b in mine])""",
        # numpy, with a canvas of the whole shape in the rank's own coordinates
        """import numpy as np
def my_part(shape, old, n, new, m, rank, read):
    canvas = np.zeros(shape)
    mine = region(shape, Shard(new), m, rank)
    for f in reversed(range(n)):
        theirs = region(shape, Shard(old), n, f)
        low, high = np.maximum(*np.array([mine, theirs])[:, :, 0]), np.minimum(*np.array([mine, theirs])[:, :, 1])
        if (low < high).all():
            o = np.array(theirs)[:, 0]
            canvas[low[0]:high[0], low[1]:high[1]] = read(f, *(tuple(map(int, x)) for x in zip(low - o, high - o))).numpy()
    return torch.from_numpy(canvas[tuple(slice(*x) for x in mine)].copy())""",
        # a generator of pieces
        """def pieces(mine, shape, old, n):
    for f in range(n):
        theirs = region(shape, Shard(old), n, f)
        both = tuple(range(max(a, c), min(b, d)) for (a, b), (c, d) in zip(mine, theirs))
        if all(both):
            yield f, both, [c for c, _ in theirs]
def my_part(shape, old, n, new, m, rank, read):
    mine = region(shape, Shard(new), m, rank)
    out = torch.zeros(*(b - a for a, b in mine)).double()
    for f, both, at in pieces(mine, shape, old, n):
        view = out
        for d, (r, (a, _)) in enumerate(zip(both, mine)): view = view.narrow(d, r.start - a, len(r))
        view.copy_(read(f, *((r.start - o, r.stop - o) for r, o in zip(both, at))))
    return out""",
    ],
    "13.2": [
        EVERY,
        # all numbers up to where it only gets worse
        """def save_every(job):
    delta = job.parameters * job.bytes_each / (job.write_gb_s * 10**9)
    rate = job.gpus / (job.gpu_mtbf_years * 8760 * 3600)
    best = None
    k = 0
    while True:
        k += 1
        tau = job.step_s * k
        now = delta / tau + rate * (tau / 2 + job.restart_s)
        if best is not None and now > best[1]: return best
        best = k, now""",
        # the next step pays as long as k(k+1) is below
        """def save_every(job):
    delta = job.parameters * job.bytes_each / 1e9 / job.write_gb_s
    m = job.gpu_mtbf_years * YEAR_S / job.gpus
    limit = 2 * delta * m / job.step_s**2
    k = max(1, math.ceil((math.sqrt(1 + 4 * limit) - 1) / 2))
    return k, delta / k / job.step_s + (k * job.step_s / 2 + job.restart_s) / m""",
        # bisection over whole numbers
        """def save_every(job):
    delta = job.parameters * job.bytes_each / (job.write_gb_s * 1e9)
    m = job.gpu_mtbf_years * 365 * 24 * 60 * 60 / job.gpus
    f = lambda k: delta / (k * job.step_s) + (k * job.step_s / 2 + job.restart_s) / m
    low, high = 1, 10**9
    while low < high:
        middle = (low + high) // 2
        if f(middle) <= f(middle + 1): high = middle
        else: low = middle + 1
    return low, f(low)""",
        # a tensor of candidates near Young's
        """def save_every(job):
    delta = job.parameters * job.bytes_each / (job.write_gb_s * 1e9)
    m = job.gpu_mtbf_years * 31_536_000 / job.gpus
    young = int((2 * delta * m) ** 0.5 // job.step_s)
    k = torch.arange(max(1, young - 3), young + 5, dtype=torch.float64)
    lost = delta / (k * job.step_s) + (k * job.step_s / 2 + job.restart_s) / m
    at = lost.argmin()
    return int(k[at]), lost[at].item()""",
        # exact fractions
        """from fractions import Fraction
def save_every(job):
    F_ = Fraction
    delta = F_(job.parameters) * F_(job.bytes_each) / (F_(job.write_gb_s) * 10**9)
    m = F_(job.gpu_mtbf_years) * 365 * 86400 / job.gpus
    s = F_(job.step_s)
    root = math.isqrt(int(2 * delta * m / s**2))
    lost = lambda k: delta / (k * s) + (k * s / 2 + F_(job.restart_s)) / m
    k = min(range(max(1, root - 1), root + 3), key=lost)
    return [k, float(lost(k))]""",
        # in hours
        """def save_every(job):
    d = job.parameters * job.bytes_each / 1e9 / job.write_gb_s / 3600
    m, s, r = job.gpu_mtbf_years * 8760 / job.gpus, job.step_s / 3600, job.restart_s / 3600
    x = math.sqrt(2 * d * m) / s
    options = {k: d / (k * s) + (k * s / 2 + r) / m for k in (math.floor(x), math.ceil(x)) if k > 0}
    return min(options.items(), key=lambda item: item[1])""",
    ],
    "13.3": [
        FAULT,
        # no tools: the events and the tensors themselves
        """def diagnose(run, healthy):
    def calls(r, groups):
        return sorted(e.nbytes for e in r.trace.by_rank[0] if not e.is_span and e.operation == "all_reduce" and e.ranks in groups)
    dp, tp = run.layout.groups("dp"), run.layout.groups("tp") if run.layout.tp > 1 else ()
    if calls(run, tp) != calls(healthy, tp): return "norms drift"
    less = len(calls(healthy, dp)) - len(calls(run, dp))
    if less == 1: return "mean of means" if 8 in calls(healthy, dp) and 8 not in calls(run, dp) else "one forgotten"
    if less: return "no all-reduce"
    group = dp[0]
    for name in run.ranks[0]["weights"]:
        if any(not torch.equal(run.ranks[r]["weights"][name], run.ranks[group[0]]["weights"][name]) for r in group): return "other order"
    times = round(run.ranks[0]["norms"][0] / healthy.ranks[0]["norms"][0], 6)
    if times == run.layout.dp: return "sum for mean"
    if times == run.m: return "not divided"
    return "same rows" if run.ranks[group[0]]["losses"] == run.ranks[group[1]]["losses"] else "healthy\"""",
        # gradients first, from the first weights and the last
        but(
            FAULT,
            (
                "    if any(call.ranks in tp",
                "    if round(ratio, 7) == run.layout.dp and not gone: return 'sum for mean'\n    if round(ratio, 7) == run.m and not gone: return 'not divided'\n    if any(call.ranks in tp",
            ),
        ),
        # a table from signs to names
        """def diagnose(run, healthy):
    gone = sum(difference(run.trace, healthy.trace).missing, start=type(difference(run.trace, healthy.trace).missing[0])())
    dp = set(run.layout.groups("dp"))
    in_dp = sorted({c.nbytes for c in gone if c.ranks in dp})
    in_tp = any(c.ranks not in dp for c in gone)
    count = sum(difference(run.trace, healthy.trace).missing[-1].values())
    apart = copies(r["weights"] for r in run.ranks).letters != copies(r["weights"] for r in healthy.ranks).letters
    factor = run.ranks[-1]["norms"][0] / healthy.ranks[-1]["norms"][0]
    first = {run.layout.coordinates(i).dp: r["losses"][0] for i, r in enumerate(run.ranks)}
    table = [
        ("norms drift", in_tp), ("mean of means", in_dp == [8]), ("one forgotten", in_dp and count == 1), ("no all-reduce", in_dp),
        ("other order", apart), ("sum for mean", math.isclose(factor, run.layout.dp)), ("not divided", math.isclose(factor, run.m)),
        ("same rows", len(set(first.values())) == 1), ("healthy", True),
    ]
    return next(name for name, sign in table if sign)""",
        # by what drifted: the forgotten one alone, all, the norm along tp, two
        """def diagnose(run, healthy):
    a, b = (copies(r["weights"] for r in x.ranks).letters for x in (run, healthy))
    drifted = {name for name in a if a[name] != b[name]}
    quiet = not difference(run.trace, healthy.trace)
    if len(drifted) == len(a): return "no all-reduce"
    if len(drifted) == 2: return "other order"
    if len(drifted) == 1:
        name = drifted.pop()
        x, y = run.layout.groups("dp")[0][:2]
        same = torch.equal(run.ranks[x]["weights"][name], run.ranks[y]["weights"][name])
        return "norms drift" if same else "one forgotten"
    if not quiet: return "mean of means"
    twice = run.ranks[0]["norms"][0] / healthy.ranks[0]["norms"][0]
    for name, times in (("sum for mean", run.layout.dp), ("not divided", run.m)):
        if abs(twice / times - 1) < 1e-9: return name
    return "healthy" if torch.equal(run.ranks[0]["weights"]["wte"], healthy.ranks[0]["weights"]["wte"]) else "same rows\"""",
        # against the healthy run in every number: nothing differs, so healthy
        but(
            FAULT,
            (
                "    gone =",
                "    if all(x['norms'] == y['norms'] for x, y in zip(run.ranks, healthy.ranks)): return 'healthy'\n    gone =",
            ),
        ),
        # it may change what it is given
        but(
            FAULT,
            ("    gone =", "    weights = [rank['weights'] for rank in run.ranks]\n    gone ="),
            ("    if drifted:", "    for w in weights:\n        for t in w.values(): t.zero_()\n    if drifted:"),
        ),
        # the losses of copies, rounded, and by sets of ranks
        but(
            FAULT,
            (
                '{tuple(rank["losses"]) for rank in run.ranks}',
                '{tuple(round(x, 12) for x in run.ranks[g[0]]["losses"]) for g in run.layout.groups("tp")}',
            ),
        ),
    ],
    "13.4": [
        KEEP,
        # one file, written by rank 0, who asks the others
        """def save(trainer, folder):
    states = [None] * dist.get_world_size()
    dist.all_gather_object(states, torch.get_rng_state())
    if dist.get_rank() == 0:
        parts = {name: getattr(trainer, name).state_dict() for name in ("model", "optimizer", "schedule")}
        torch.save(parts | {"order": trainer.order.get_state(), "queue": trainer.queue.tolist(), "random": states}, folder / "all.pt")
def load(trainer, folder):
    got = torch.load(folder / "all.pt")
    for name in ("model", "optimizer", "schedule"): getattr(trainer, name).load_state_dict(got[name])
    trainer.order.set_state(got["order"]); trainer.queue = torch.tensor(got["queue"]).long()
    torch.set_rng_state(got["random"][dist.get_rank()])""",
        # only rank 0 reads, and tells the others
        """def save(trainer, folder):
    rank = dist.get_rank()
    torch.save(torch.get_rng_state(), folder / str(rank))
    if rank: return
    torch.save((trainer.model.state_dict(), trainer.optimizer.state_dict(), trainer.schedule.state_dict(), trainer.order.get_state(), trainer.queue.numpy().tolist()), folder / "shared")
def load(trainer, folder):
    box = [torch.load(folder / "shared") if dist.get_rank() == 0 else None]
    dist.broadcast_object_list(box, src=0)
    model, optimizer, schedule, order, queue = box[0]
    trainer.optimizer.load_state_dict(optimizer)
    trainer.schedule.load_state_dict(schedule)
    trainer.model.load_state_dict(model)
    trainer.order.set_state(order)
    trainer.queue = torch.LongTensor(queue)
    torch.set_rng_state(torch.load(folder / str(dist.get_rank())))""",
        # complete under another name first
        but(
            KEEP,
            (
                'schedule.state_dict()], folder / "net")',
                'schedule.state_dict()], folder / "net.new")\n        (folder / "net.new").replace(folder / "net")',
            ),
        ),
        # shared between the ranks: one writes the model, the other the moments
        """def save(trainer, folder):
    if dist.get_rank() == 0:
        torch.save(trainer.model.state_dict(), folder / "model.pt")
    else:
        torch.save(trainer.optimizer.state_dict(), folder / "optimizer.pt")
        torch.save({"schedule": trainer.schedule.state_dict(), "order": trainer.order.get_state(), "queue": trainer.queue.clone()}, folder / "rest.pt")
    torch.save(torch.random.get_rng_state(), folder / f"rng.{dist.get_rank()}")
    dist.barrier()
def load(trainer, folder):
    trainer.model.load_state_dict(torch.load(folder / "model.pt"))
    trainer.optimizer.load_state_dict(torch.load(folder / "optimizer.pt"))
    rest = torch.load(folder / "rest.pt")
    trainer.schedule.load_state_dict(rest["schedule"])
    trainer.order.set_state(rest["order"])
    trainer.queue = rest["queue"]
    torch.random.set_rng_state(torch.load(folder / f"rng.{dist.get_rank()}"))""",
        # plain pickle and numpy
        """import pickle
def save(trainer, folder):
    if dist.get_rank() == 0:
        weights = [p.detach().numpy() for p in trainer.model.parameters()]
        moments = [(s["step"].item(), s["exp_avg"].numpy(), s["exp_avg_sq"].numpy()) for s in (trainer.optimizer.state[p] for p in trainer.model.parameters())]
        rest = trainer.schedule.state_dict(), [g["lr"] for g in trainer.optimizer.param_groups], trainer.order.get_state().numpy(), trainer.queue.tolist()
        (folder / "it").write_bytes(pickle.dumps((weights, moments, rest)))
    (folder / f"rng{dist.get_rank()}").write_bytes(torch.get_rng_state().numpy().tobytes())
def load(trainer, folder):
    weights, moments, (schedule, rates, order, queue) = pickle.loads((folder / "it").read_bytes())
    with torch.no_grad():
        for p, w, (step, m, v) in zip(trainer.model.parameters(), weights, moments):
            p.copy_(torch.from_numpy(w))
            trainer.optimizer.state[p] = {"step": torch.tensor(step), "exp_avg": torch.from_numpy(m), "exp_avg_sq": torch.from_numpy(v)}
    trainer.schedule.load_state_dict(schedule)
    for g, lr in zip(trainer.optimizer.param_groups, rates): g["lr"] = lr
    trainer.order.set_state(torch.from_numpy(order)); trainer.queue = torch.tensor(queue, dtype=torch.int64)
    torch.set_rng_state(torch.frombuffer(bytearray((folder / f"rng{dist.get_rank()}").read_bytes()), dtype=torch.uint8))""",
        # a checkpoint of torch.distributed.checkpoint, and the rest beside it
        """import torch.distributed.checkpoint as dcp
def save(trainer, folder):
    moments = {f"{i}.{k}": v for i, s in trainer.optimizer.state_dict()["state"].items() for k, v in s.items()}
    dcp.save({"model": trainer.model.state_dict(), "moments": moments}, checkpoint_id=folder / "dcp")
    torch.save([torch.get_rng_state()] + ([trainer.order.get_state(), trainer.queue.clone(), trainer.schedule.state_dict(), trainer.optimizer.state_dict()["param_groups"]] if dist.get_rank() == 0 else []), folder / f"r{dist.get_rank()}")
def load(trainer, folder):
    names = range(len(list(trainer.model.parameters())))
    shapes = [p.shape for p in trainer.model.parameters()]
    moments = {f"{i}.{k}": torch.zeros(shapes[i], dtype=torch.float64) for i in names for k in ("exp_avg", "exp_avg_sq")}
    moments |= {f"{i}.step": torch.zeros(()) for i in names}
    model = trainer.model.state_dict()
    dcp.load({"model": model, "moments": moments}, checkpoint_id=folder / "dcp")
    trainer.model.load_state_dict(model)
    _, order, queue, schedule, groups = torch.load(folder / "r0")
    state = {i: {k: moments[f"{i}.{k}"] for k in ("step", "exp_avg", "exp_avg_sq")} for i in names}
    trainer.optimizer.load_state_dict({"state": state, "param_groups": groups})
    trainer.schedule.load_state_dict(schedule)
    trainer.order.set_state(order); trainer.queue = queue
    torch.set_rng_state(torch.load(folder / f"r{dist.get_rank()}")[0])""",
        # the schedule counts steps: it is walked there again
        but(
            KEEP,
            ("trainer.schedule.state_dict()]", "trainer.schedule.last_epoch]"),
            (
                "    trainer.schedule.load_state_dict(schedule)\n",
                "    trainer.schedule.last_epoch = schedule\n    trainer.schedule._last_lr = [g['lr'] for g in trainer.optimizer.param_groups]\n",
            ),
        ),
    ],
}
