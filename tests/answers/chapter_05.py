"""Answers to the exercise of chapter 05: plausible wrong ones, and right ones that are not the teacher's."""

# a right answer to 5.5, with three places to go wrong
_BUCKETS = """def average_in_buckets(model, cap_bytes):
    n, buckets, filled = dist.get_world_size(), [], 0
    for p in {order}:
        if p.grad is None: continue
        size = {size}
        if not buckets or filled + size > cap_bytes: buckets.append([]); filled = 0
        buckets[-1].append(p.grad); filled += size
    for bucket in buckets:
        flat = torch.cat([g.flatten() for g in bucket]); dist.all_reduce(flat)
        {after}
        for g, part in zip(bucket, flat.split([g.numel() for g in bucket])): g.copy_(part.view_as(g))"""

# task -> (answer, words that the verdict must hold); an answer is a whole cell, `def` included
WRONG = {
    "5.1": [
        (
            "def my_slice(x, rank, n): parts = x.chunk(n); return parts[rank] if rank < len(parts) else x[:0]",
            "9 samples",
        ),
        ("def my_slice(x, rank, n): size = len(x) // n; return x[rank * size : (rank + 1) * size]", "9 samples"),
        (
            "def my_slice(x, rank, n): size = len(x) // n; return x[rank * size : None if rank == n - 1 else (rank + 1) * size]",
            "samples",
        ),
        ("def my_slice(x, rank, n): return x[rank::n]", "12 samples"),
        ("def my_slice(x, rank, n): size = -(-len(x) // n); return x[rank * size : (rank + 1) * size]", "9 samples"),
        (
            "def my_slice(x, rank, n): size = len(x) // n; return x[rank * size + 1 : (rank + 1) * size + 1]",
            "12 samples",
        ),
        ("def my_slice(x, rank, n): return x.tensor_split(4)[rank]", "samples"),
    ],
    "5.2": [
        (
            """def average_gradients(model):
    for p in model.parameters():
        if p.grad is not None: dist.all_reduce(p.grad)""",
            "gradients.*2 ranks.*divide it by the world size",
        ),
        (
            """def average_gradients(model):
    for p in model.parameters():
        if p.grad is not None: dist.all_reduce(p.grad); p.grad /= 2""",
            "gradients.*1 ranks.*divide it by the world size",
        ),
        (
            """def average_gradients(model):
    for p in model.parameters():
        if p.grad is not None: p.grad /= dist.get_world_size()""",
            "did not wait.*2 ranks",
        ),
        ("def average_gradients(model): pass", "did not wait.*2 ranks"),
        (
            """def average_gradients(model):
    works = []
    for p in model.parameters():
        if p.grad is not None:
            p.grad /= dist.get_world_size(); works.append(dist.all_reduce(p.grad, async_op=True))""",
            "did not wait.*2 ranks.*async_op",
        ),
        (
            """def average_gradients(model):
    for p in model.parameters():
        if p.grad is not None:
            every = [torch.empty_like(p.grad) for _ in range(dist.get_world_size())]
            dist.all_gather(every, p.grad); p.grad = torch.stack(every).mean(0)""",
            "bytes that one of 4 ranks sends.*right, but more bytes",
        ),
        (
            """def average_gradients(model):
    every = [None] * dist.get_world_size()
    dist.all_gather_object(every, [None if p.grad is None else p.grad.clone() for p in model.parameters()])
    for i, p in enumerate(model.parameters()):
        if p.grad is not None: p.grad = sum(theirs[i] for theirs in every) / len(every)""",
            "bytes that one of 4 ranks sends.*right, but more bytes",
        ),
        (
            """def average_gradients(model):
    for _ in range(2):
        for p in model.parameters():
            if p.grad is not None: dist.all_reduce(p.grad); p.grad /= dist.get_world_size()""",
            "bytes that one of 4 ranks sends.*right, but more bytes",
        ),
        (
            "def average_gradients(model):\n    for p in model.parameters():\n        dist.all_reduce(p.grad)",
            "RankError|Error",
        ),
        (
            """def average_gradients(model):
    for p in model.parameters():
        if p.grad is not None: dist.all_reduce(p.grad, dist.ReduceOp.MAX)""",
            "2 ranks",
        ),
        (
            """def average_gradients(model):
    for p in model.parameters():
        dist.all_reduce(p.data); p.data /= dist.get_world_size()""",
            "2 ranks",
        ),
        (
            """def average_gradients(model):
    for p in list(model.parameters())[:2]:
        dist.all_reduce(p.grad); p.grad /= dist.get_world_size()""",
            "2 ranks",
        ),
        (
            """def average_gradients(model):
    for p in model.parameters():
        if p.grad is not None: dist.broadcast(p.grad, 0)""",
            "2 ranks",
        ),
        (
            """def average_gradients(model):
    for p in model.parameters():
        if p.grad is not None:
            total = p.grad.clone(); dist.all_reduce(total)
            p.grad = p.grad / dist.get_world_size()""",
            "2 ranks",
        ),
    ],
    "5.3": [
        ("def start_as_one(model): pass", "weight on 2 ranks"),
        (
            "def start_as_one(model):\n    for p in model.parameters(): dist.broadcast(p.detach(), 0)",
            "running_mean on 2 ranks.*buffers",
        ),
        ("def start_as_one(model):\n    for b in model.buffers(): dist.broadcast(b, 0)", "weight on 2 ranks"),
        (
            """def start_as_one(model):
    for t in [*model.parameters(), *model.buffers()]:
        if t.requires_grad or not isinstance(t, nn.Parameter): dist.broadcast(t.detach(), 0)""",
            "weight on 2 ranks",
        ),
        (
            """def start_as_one(model):
    for t in [*model.parameters(), *model.buffers()]: dist.broadcast(t.detach(), dist.get_world_size() - 1)""",
            "weight on 2 ranks",
        ),
        (
            """def start_as_one(model):
    for t in model.state_dict().values():
        if t.is_floating_point(): dist.all_reduce(t); t /= dist.get_world_size()""",
            "weight on 2 ranks",
        ),
        (
            "def start_as_one(model): torch.manual_seed(0); [m.reset_parameters() for m in model if hasattr(m, 'reset_parameters')]",
            "weight on 1 ranks",
        ),
    ],
    "5.4": [
        (
            """def average_unequal(model, num_samples):
    for p in model.parameters():
        if p.grad is not None: dist.all_reduce(p.grad); p.grad /= dist.get_world_size()""",
            "7 samples on 2 ranks",
        ),
        (
            """def average_unequal(model, num_samples):
    for p in model.parameters():
        if p.grad is not None: p.grad *= num_samples; dist.all_reduce(p.grad)""",
            "5 samples on 1 ranks",
        ),
        (
            """def average_unequal(model, num_samples):
    for p in model.parameters():
        if p.grad is not None: p.grad *= num_samples; dist.all_reduce(p.grad); p.grad /= num_samples or 1""",
            "7 samples on 2 ranks",
        ),
        (
            """def average_unequal(model, num_samples):
    total = dist.get_world_size() * num_samples
    for p in model.parameters():
        if p.grad is not None: p.grad *= num_samples / max(total, 1); dist.all_reduce(p.grad)""",
            "7 samples on 2 ranks",
        ),
        (
            """def average_unequal(model, num_samples):
    if num_samples == 0: return
    total = torch.tensor(num_samples); dist.all_reduce(total)
    for p in model.parameters():
        if p.grad is not None: p.grad *= num_samples / total.item(); dist.all_reduce(p.grad)""",
            "RankError|RankTimeout|RankDeadlock",
        ),
    ],
    "5.5": [
        ("def average_in_buckets(model, cap_bytes): pass", "did not wait"),
        (
            """def average_in_buckets(model, cap_bytes):
    bucket, size = [], 0
    def flush():
        flat = torch.cat([g.flatten() for g in bucket]); dist.all_reduce(flat); flat /= dist.get_world_size()
        for g, part in zip(bucket, flat.split([g.numel() for g in bucket])): g.copy_(part.view_as(g))
    for p in reversed(list(model.parameters())):
        if p.grad is None: continue
        if bucket and size + p.grad.nbytes > cap_bytes: flush(); bucket, size = [], 0
        bucket.append(p.grad); size += p.grad.nbytes""",
            "bytes sent in all.*is the last bucket sent",
        ),
        (
            _BUCKETS.format(size="p.grad.numel()", after="flat /= n", order="reversed(list(model.parameters()))"),
            "largest message.*bytes, not elements",
        ),
        (
            _BUCKETS.format(size="cap_bytes", after="flat /= n", order="reversed(list(model.parameters()))"),
            "messages, cap 200.*too many messages",
        ),
        (
            _BUCKETS.format(size="p.grad.nbytes", after="flat /= n", order="model.parameters()"),
            "bytes of each message.*from the last parameter",
        ),
        (
            _BUCKETS.format(size="p.grad.nbytes", after="", order="reversed(list(model.parameters()))"),
            "gradients.*becomes a mean",
        ),
        (
            _BUCKETS.format(size="p.grad.nbytes", after="flat /= 2", order="reversed(list(model.parameters()))"),
            "gradients.*on [13] ranks",
        ),
        (
            _BUCKETS.format(
                size="p.grad.nbytes", after="flat = flat / n; continue", order="reversed(list(model.parameters()))"
            ),
            "gradients.*go back",
        ),
        (
            """def average_in_buckets(model, cap_bytes):
    for p in reversed(list(model.parameters())):
        if p.grad is not None: dist.all_reduce(p.grad); p.grad /= dist.get_world_size()""",
            "messages, cap 200.*too many messages",
        ),
        (
            """def average_in_buckets(model, cap_bytes):
    grads = [p.grad for p in reversed(list(model.parameters())) if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads]); dist.all_reduce(flat); flat /= dist.get_world_size()
    for g, part in zip(grads, flat.split([g.numel() for g in grads])): g.copy_(part.view_as(g))""",
            "largest message.*cap 200",
        ),
        (
            """def average_in_buckets(model, cap_bytes):
    grads = [p.grad for p in reversed(list(model.parameters())) if p.grad is not None]
    flat = torch.cat([g.flatten() for g in grads])
    for part in flat.split(max(cap_bytes // 8, 1)): dist.all_reduce(part)
    flat /= dist.get_world_size()
    for g, part in zip(grads, flat.split([g.numel() for g in grads])): g.copy_(part.view_as(g))""",
            "bytes of each message",
        ),
        (
            """def average_in_buckets(model, cap_bytes):
    from course_lib.parallel.buckets import fill_buckets
    for bucket in fill_buckets([p for p in reversed(list(model.parameters())) if p.grad is not None], cap_bytes):
        flat = torch.cat([p.grad.flatten() for p in bucket]) / dist.get_world_size()
        dist.all_reduce(flat, async_op=True)
        for p, part in zip(bucket, flat.split([p.numel() for p in bucket])): p.grad = part.view_as(p)""",
            "did not wait.*async_op",
        ),
        (
            """def average_in_buckets(model, cap_bytes):
    from course_lib.parallel.buckets import fill_buckets
    for bucket in fill_buckets(reversed(list(model.parameters())), cap_bytes):
        flat = torch.cat([p.grad.flatten() for p in bucket]); dist.all_reduce(flat)
        for p, part in zip(bucket, flat.split([p.numel() for p in bucket])): p.grad = part.view_as(p)""",
            "RankError.*NoneType",
        ),
    ],
    "5.6": [
        (
            """def accumulate(model, micro_batches):
    for x, y in micro_batches:
        (F.mse_loss(model(x), y) / len(micro_batches)).backward(); model.finish_gradient_sync()""",
            "all-reduces of a rank.*sent more than once",
        ),
        (
            """def accumulate(model, micro_batches):
    for x, y in micro_batches:
        with model.no_sync(): F.mse_loss(model(x), y).backward()
    model.finish_gradient_sync()""",
            "gradients.*micro-batches on.*divide each loss",
        ),
        (
            """def accumulate(model, micro_batches):
    for x, y in micro_batches:
        with model.no_sync(): (F.mse_loss(model(x), y) / len(micro_batches)).backward()""",
            "gradients.*2 ranks.*send their sum",
        ),
        (
            """def accumulate(model, micro_batches):
    x, y = micro_batches[-1]
    F.mse_loss(model(x), y).backward(); model.finish_gradient_sync()""",
            "backwards.*one backward for each",
        ),
        (
            """def accumulate(model, micro_batches):
    x, y = (torch.cat(part) for part in zip(*micro_batches))
    F.mse_loss(model(x), y).backward(); model.finish_gradient_sync()""",
            "backwards.*one backward for each",
        ),
        (
            """def accumulate(model, micro_batches):
    total = sum(F.mse_loss(model(x), y) for x, y in micro_batches) / len(micro_batches)
    total.backward(); model.finish_gradient_sync()""",
            "backwards.*one backward for each",
        ),
        (
            """def accumulate(model, micro_batches):
    for x, y in micro_batches:
        (F.mse_loss(model(x), y) / len(micro_batches)).backward()
    model.finish_gradient_sync()""",
            "RankError.*no_sync|RuntimeError.*no_sync",
        ),
        (
            """def accumulate(model, micro_batches):
    for k, (x, y) in enumerate(micro_batches):
        model.zero_grad()
        with model.no_sync(): (F.mse_loss(model(x), y) / len(micro_batches)).backward()
    model.finish_gradient_sync()""",
            "gradients.*micro-batches on",
        ),
        (
            """def accumulate(model, micro_batches):
    x, y = micro_batches[0]
    (F.mse_loss(model(x), y) / len(micro_batches)).backward(); model.finish_gradient_sync()
    for x, y in micro_batches[1:]:
        with model.no_sync(): (F.mse_loss(model(x), y) / len(micro_batches)).backward()""",
            "gradients.*micro-batches on",
        ),
    ],
}

# task -> answers that must be accepted
RIGHT = {
    "5.1": [
        "def my_slice(x, rank, n): return x.tensor_split(n)[rank]",
        "def my_slice(x, rank, n):\n    sizes = [len(x) // n + (r < len(x) % n) for r in range(n)]\n    return x.split(sizes)[rank]",
    ],
    "5.2": [
        """def average_gradients(model):
    trained = [p for p in model.parameters() if p.grad is not None]
    flat = torch.cat([p.grad.flatten() for p in trained]); dist.all_reduce(flat); flat /= dist.get_world_size()
    for p, g in zip(trained, flat.split([p.numel() for p in trained])): p.grad = g.view_as(p)""",
        """def average_gradients(model):
    works = [(p, dist.all_reduce(p.grad, async_op=True)) for p in model.parameters() if p.requires_grad]
    for p, work in works: work.wait(); p.grad.div_(dist.get_world_size())""",
        """def average_gradients(model):
    from course_lib import collectives
    trained = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in trained]) / dist.get_world_size()
    collectives.all_reduce(flat)  # out of send and recv
    for g, part in zip(trained, flat.split([g.numel() for g in trained])): g.copy_(part.view_as(g))""",
        """def average_gradients(model):
    futures = [(p, dist.all_reduce(p.grad, async_op=True).get_future()) for p in model.parameters() if p.grad is not None]
    for p, future in futures: future.wait(); p.grad /= dist.get_world_size()""",
    ],
    "5.3": [
        "def start_as_one(model):\n    for t in model.state_dict().values(): dist.broadcast(t, 0)",
        """def start_as_one(model):
    box = [model.state_dict()]; dist.broadcast_object_list(box, src=0); model.load_state_dict(box[0])""",
    ],
    "5.4": [
        """def average_unequal(model, num_samples):
    counts = torch.tensor([float(num_samples)], dtype=torch.float64); dist.all_reduce(counts)
    for p in filter(lambda p: p.grad is not None, model.parameters()):
        p.grad.mul_(num_samples); dist.all_reduce(p.grad); p.grad.div_(counts.item())"""
    ],
    "5.5": [
        """def average_in_buckets(model, cap_bytes):
    from course_lib.parallel.buckets import fill_buckets
    works = []
    for bucket in fill_buckets([p for p in reversed(list(model.parameters())) if p.grad is not None], cap_bytes):
        flat = torch.cat([p.grad.flatten() for p in bucket]) / dist.get_world_size()
        works.append(dist.all_reduce(flat, async_op=True))
        for p, part in zip(bucket, flat.split([p.numel() for p in bucket])): p.grad = part.view_as(p)
    for work in works: work.wait()""",
        _BUCKETS.format(size="p.grad.numel() * 8", after="flat.div_(n)", order="reversed([*model.parameters()])"),
    ],
    "5.6": [
        """def accumulate(model, micro_batches):
    for x, y in micro_batches:
        with model.no_sync(): (F.mse_loss(model(x), y) / len(micro_batches)).backward()
    model.finish_gradient_sync()""",
        """def accumulate(model, micro_batches):
    from contextlib import nullcontext
    for k, (x, y) in enumerate(micro_batches):
        with nullcontext() if k == len(micro_batches) - 1 else model.no_sync(): F.mse_loss(model(x), y).backward()
    model.finish_gradient_sync()
    for p in model.parameters():
        if p.grad is not None: p.grad /= len(micro_batches)""",
    ],
}
