"""Answers to the exercise of chapter 05: plausible wrong ones, and right ones that are not the teacher's."""

# task -> (answer, words that the verdict must hold); an answer is a whole cell, `def` included
WRONG = {
    "5.1": [
        (
            "def my_slice(x, rank, n): parts = x.chunk(n); return parts[rank] if rank < len(parts) else x[:0]",
            "9 samples",
        ),
        (
            "def my_slice(x, rank, n): size = len(x) // n; return x[rank * size : (rank + 1) * size]",
            "9 samples",
        ),
        (
            "def my_slice(x, rank, n): size = len(x) // n; return x[rank * size : None if rank == n - 1 else (rank + 1) * size]",
            "samples",
        ),
        ("def my_slice(x, rank, n): return x[rank::n]", "12 samples"),
        (
            "def my_slice(x, rank, n): size = -(-len(x) // n); return x[rank * size : (rank + 1) * size]",
            "9 samples",
        ),
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
            "2 ranks.*divide it by the world size",
        ),
        (
            """def average_gradients(model):
    for p in model.parameters():
        if p.grad is not None: dist.all_reduce(p.grad); p.grad /= 2""",
            "1 ranks|3 ranks",
        ),
        (
            """def average_gradients(model):
    for p in model.parameters():
        if p.grad is not None: p.grad /= dist.get_world_size()""",
            "2 ranks",
        ),
        ("def average_gradients(model): pass", "2 ranks"),
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
    for p in model.parameters():
        if p.grad is not None:
            every = [torch.empty_like(p.grad) for _ in range(dist.get_world_size())]
            dist.all_gather(every, p.grad); p.grad = torch.stack(every).mean(0)""",
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
}
