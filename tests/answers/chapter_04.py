"""Answers to the exercise of chapter 04: plausible wrong ones, and right ones that are not the teacher's."""

LENGTHS = "def my_parts(x, w, cut, rank, n):\n    length = {'i': len(x), 'k': len(w), 'j': w.shape[1]}[cut]\n"
REFUSE = LENGTHS + "    if length % n: raise ValueError(f'{length} on {n}')\n"


def by_data(*lines):
    return "\n    ".join(["def by_data(x_i, w, dout_i):", *lines])


def by_model(*lines):
    start = "rank, n = dist.get_rank(), dist.get_world_size()"
    return "\n    ".join(["def by_model(x, w_j, dout):", start, *lines])


def two_products(*lines):
    return "\n    ".join(["def two_products(x, a_j, b_j):", *lines])


GATHER = (
    "out_j = x @ w_j; parts = [torch.empty_like(out_j) for _ in range(n)]; dist.all_gather(parts, out_j)",
    "out = torch.cat(parts, 1); dout_j = dout.chunk(n, 1)[rank]",
)
RIGHT_DX = "dx = dout_j @ w_j.T; dist.all_reduce(dx)"
GATHER_H = "parts = [torch.empty_like(h) for _ in range(dist.get_world_size())]; dist.all_gather(parts, h)"

# task -> (answer, words that the verdict must hold); an answer is a whole cell, `def` included
WRONG = {
    "4.1": [
        (
            "def my_parts(x, w, cut, rank, n):\n    dims = {'i': (0, None), 'j': (None, 1), 'k': (1, 0)}[cut]\n"
            "    return [t if d is None else t.chunk(n, d)[rank] for t, d in zip((x, w), dims)]",
            "4 numbers on 3 ranks refused.*no ValueError",
        ),
        (
            REFUSE + "    dims = {'i': (1, None), 'j': (None, 0), 'k': (0, 1)}[cut]\n"
            "    return [t if d is None else t.chunk(n, d)[rank] for t, d in zip((x, w), dims)]",
            "i on 2 ranks.*4×5.*shape",
        ),
        (
            REFUSE + "    dims = {'i': (0, 0), 'j': (1, 1), 'k': (1, 0)}[cut]\n"
            "    return [t.chunk(n, d)[rank] for t, d in zip((x, w), dims)]",
            "i on . ranks.*shape",
        ),
        (
            REFUSE + "    dims = {'i': (0, None), 'j': (None, 1), 'k': (None, 0)}[cut]\n"
            "    return [t if d is None else t.chunk(n, d)[rank] for t, d in zip((x, w), dims)]",
            "k on . ranks.*shape",
        ),
        (
            REFUSE + "    if cut == 'i': return x[rank::n], w\n    if cut == 'j': return x, w[:, rank::n]\n"
            "    return x[:, rank::n], w[rank::n]",
            "i on . ranks.*in the order of the ranks",
        ),
        (
            REFUSE + "    if cut == 'i': return x.chunk(n)[n - 1 - rank], w\n"
            "    if cut == 'j': return x, w.chunk(n, 1)[n - 1 - rank]\n"
            "    return x.chunk(n, 1)[n - 1 - rank], w.chunk(n, 0)[n - 1 - rank]",
            "i on . ranks.*in the order of the ranks",
        ),
        (
            "def my_parts(x, w, cut, rank, n):\n"
            "    if any(size % n for size in (*x.shape, *w.shape)): raise ValueError(f'{x.shape} {w.shape} {n}')\n"
            "    dims = {'i': (0, None), 'j': (None, 1), 'k': (1, 0)}[cut]\n"
            "    return [t if d is None else t.chunk(n, d)[rank] for t, d in zip((x, w), dims)]",
            "ValueError",
        ),
        (
            LENGTHS + "    if length % n: raise ValueError('does not divide')\n"
            "    dims = {'i': (0, None), 'j': (None, 1), 'k': (1, 0)}[cut]\n"
            "    return [t if d is None else t.chunk(n, d)[rank] for t, d in zip((x, w), dims)]",
            "refused.*names 4 and 3",
        ),
        (
            LENGTHS + "    assert length % n == 0, f'{length} on {n}'\n"
            "    dims = {'i': (0, None), 'j': (None, 1), 'k': (1, 0)}[cut]\n"
            "    return [t if d is None else t.chunk(n, d)[rank] for t, d in zip((x, w), dims)]",
            "AssertionError",
        ),
        (
            REFUSE + "    rank, n = dist.get_rank(), dist.get_world_size()\n    return x.chunk(n)[rank], w",
            "ValueError|Default process group",
        ),
    ],
    "4.2": [
        (by_data("return x_i @ w, dout_i @ w.T, x_i.T @ dout_i"), "dw..2 ranks.*all_reduce adds them up"),
        (
            by_data(
                "dw = x_i.T @ dout_i; dist.all_reduce(dw); dw /= dist.get_world_size()",
                "return x_i @ w, dout_i @ w.T, dw",
            ),
            "dw..2 ranks.*divide by nothing",
        ),
        (
            by_data("dw = x_i.T @ dout_i; dist.reduce(dw, dst=0)", "return x_i @ w, dout_i @ w.T, dw"),
            r"dw..2 ranks..\[1\]",
        ),
        (
            by_data(
                "out = x_i @ w; dist.all_reduce(out)",
                "dw = x_i.T @ dout_i; dist.all_reduce(dw); return out, dout_i @ w.T, dw",
            ),
            "out..2 ranks.*nothing is added",
        ),
        (
            by_data(
                "dx = dout_i @ w.T; dist.all_reduce(dx)",
                "dw = x_i.T @ dout_i; dist.all_reduce(dw); return x_i @ w, dx, dw",
            ),
            "dx..2 ranks.*not cut",
        ),
        (by_data("dw = x_i.T @ dout_i; dist.broadcast(dw, src=0)", "return x_i @ w, dout_i @ w.T, dw"), "dw..2 ranks"),
        (
            by_data("dw = x_i.T @ dout_i; dist.all_reduce(dw, dist.ReduceOp.MAX)", "return x_i @ w, dout_i @ w.T, dw"),
            "dw..2 ranks",
        ),
        (
            by_data(
                "n = dist.get_world_size(); whole = []",
                "for t in (x_i, dout_i):",
                "    parts = [torch.empty_like(t) for _ in range(n)]; dist.all_gather(parts, t)",
                "    whole.append(torch.cat(parts))",
                "return x_i @ w, dout_i @ w.T, whole[0].T @ whole[1]",
            ),
            r"bytes sent by \d ranks.*too dear",
        ),
        (
            by_data(
                "dw = x_i.T @ dout_i; parts = [torch.empty_like(dw) for _ in range(dist.get_world_size())]",
                "dist.all_gather(parts, dw); return x_i @ w, dout_i @ w.T, sum(parts)",
            ),
            r"bytes sent by \d ranks.*too dear",
        ),
        (
            by_data("dw = x_i.T @ dout_i; [dist.all_reduce(row) for row in dw]", "return x_i @ w, dout_i @ w.T, dw"),
            "collectives called.*too many",
        ),
        (
            by_data(
                "dw = x_i.T @ dout_i; dist.all_reduce(dw); scratch = w.clone(); dist.broadcast(scratch, 0)",
                "return x_i @ w, dout_i @ w.T, dw",
            ),
            r"bytes sent by \d ranks",
        ),
        (by_data("dw = x_i.T @ dout_i; dist.all_reduce(dw); return x_i @ w, dout_i @ w, dw"), "RankError"),
    ],
    "4.3": [
        (by_model(*GATHER, "return out, dout_j @ w_j.T, x.T @ dout_j"), "dx..2 ranks.*partial sum"),
        (by_model(*GATHER, RIGHT_DX, "dx /= n; return out, dx, x.T @ dout_j"), "dx..2 ranks"),
        (
            by_model(
                "out = x @ w_j; dist.broadcast(out, src=0); dout_j = dout.chunk(n, 1)[rank]",
                RIGHT_DX,
                "return out, dx, x.T @ dout_j",
            ),
            r"out..2 ranks.*shape",
        ),
        (
            by_model(GATHER[0], "out = torch.cat(parts, 0); dout_j = dout.chunk(n, 1)[rank]", RIGHT_DX)
            + "\n    return out, dx, x.T @ dout_j",
            "out..2 ranks.*dim=1",
        ),
        (
            by_model(
                "out_j = x @ w_j; both = out_j.new_empty(n * len(x), out_j.shape[1])",
                "dist.all_gather_single(both, out_j); out = both.view(len(x), -1)",
                "dout_j = dout.chunk(n, 1)[rank]",
                RIGHT_DX,
                "return out, dx, x.T @ dout_j",
            ),
            "out..2 ranks.*numbers differ.*dim=1",
        ),
        (
            by_model(GATHER[0], "out = torch.cat(parts[::-1], 1); dout_j = dout.chunk(n, 1)[rank]", RIGHT_DX)
            + "\n    return out, dx, x.T @ dout_j",
            "out..2 ranks.*order of the ranks",
        ),
        (
            by_model(*GATHER, RIGHT_DX, "dw = x.T @ dout_j; dist.all_reduce(dw); return out, dx, dw"),
            "dw..2 ranks.*nothing to add",
        ),
        (by_model(*GATHER, RIGHT_DX, "return out, dx, x.T @ dout"), "dw..2 ranks.*shape"),
        (
            by_model(
                "w_t = w_j.T.contiguous(); parts = [torch.empty_like(w_t) for _ in range(n)]",
                "dist.all_gather(parts, w_t); w = torch.cat(parts, 0).T",
                "return x @ w, dout @ w.T, x.T @ dout.chunk(n, 1)[rank]",
            ),
            r"bytes sent by \d ranks.*send no weights",
        ),
        (
            by_model(
                "out = torch.zeros_like(dout); size = w_j.shape[1]",
                "out[:, rank * size : (rank + 1) * size] = x @ w_j; dist.all_reduce(out)",
                "dout_j = dout.chunk(n, 1)[rank]",
                RIGHT_DX,
                "return out, dx, x.T @ dout_j",
            ),
            r"bytes sent by \d ranks.*too dear",
        ),
        (
            by_model(
                *GATHER,
                "dx = dout_j @ w_j.T; all_dx = [torch.empty_like(dx) for _ in range(n)]",
                "dist.all_gather(all_dx, dx); return out, sum(all_dx), x.T @ dout_j",
            ),
            r"bytes sent by \d ranks.*too dear",
        ),
        (
            by_model(
                "out_j = x @ w_j; parts = []",
                "for r in range(n):",
                "    part = out_j.clone(); dist.broadcast(part, src=r); parts.append(part)",
                "out = torch.cat(parts, 1); dout_j = dout.chunk(n, 1)[rank]",
                RIGHT_DX,
                "return out, dx, x.T @ dout_j",
            ),
            "collectives called.*too many",
        ),
    ],
    "4.4": [
        (two_products("return torch.relu(x @ a_j) @ b_j"), "y..2 ranks.*partial sum"),
        (two_products("y = (x @ a_j) @ b_j; dist.all_reduce(y); return torch.relu(y)"), "y..1 ranks"),
        (two_products("y = torch.relu(torch.relu(x @ a_j) @ b_j); dist.all_reduce(y); return y"), "y..1 ranks"),
        (
            two_products("h = x @ a_j; dist.all_reduce(h); return torch.relu(h) @ b_j"),
            "y..2 ranks.*after the second product",
        ),
        (
            two_products("y = torch.relu(x @ a_j) @ b_j; dist.all_reduce(y); return y / dist.get_world_size()"),
            "y..2 ranks",
        ),
        (two_products("y = torch.relu(x @ a_j) @ b_j; dist.broadcast(y, src=0); return y"), "y..2 ranks"),
        (two_products("h = torch.relu(x @ a_j)", GATHER_H, "h = torch.cat(parts, 1)", "return h @ b_j"), "RankError"),
        (
            two_products(
                "h = torch.relu(x @ a_j)",
                GATHER_H,
                "h = torch.cat(parts, 1)",
                "rows = [torch.empty_like(b_j) for _ in parts]; dist.all_gather(rows, b_j)",
                "return h @ torch.cat(rows)",
            ),
            r"bytes sent by \d ranks.*leave relu",
        ),
        (
            two_products("h = torch.relu(x @ a_j) @ b_j", GATHER_H, "return sum(parts)"),
            r"bytes sent by \d ranks.*too dear",
        ),
        (
            two_products("y = torch.relu(x @ a_j) @ b_j; [dist.all_reduce(row) for row in y]; return y"),
            "collectives called.*too many",
        ),
        (two_products("y = torch.relu(x @ a_j) @ b_j; dist.reduce(y, dst=0); return y"), r"y..2 ranks..\[1\]"),
        (two_products("y = torch.relu(x @ a_j) @ b_j", "return dist.all_reduce(y)"), "y..1 ranks"),
    ],
}

# task -> answers that must be accepted
RIGHT = {
    "4.1": [
        LENGTHS + "    part, left = divmod(length, n)\n"
        "    if left: raise ValueError(f'{n} ranks cannot share {length}')\n"
        "    mine = slice(rank * part, rank * part + part)\n"
        "    return {'i': lambda: (x[mine], w), 'j': lambda: (x, w[:, mine]), 'k': lambda: (x[:, mine], w[mine])}[cut]()",
        REFUSE + "    if cut == 'i': return [x.split(length // n)[rank], w]\n"
        "    if cut == 'j': return [x, w.T.split(length // n)[rank].T]\n"
        "    return [x.T.split(length // n)[rank].T, w.split(length // n)[rank]]",
        REFUSE + "    at = torch.arange(length).view(n, -1)[rank]\n"
        "    return (x.index_select(0 if cut == 'i' else 1, at) if cut in 'ik' else x,\n"
        "            w.index_select(0 if cut == 'k' else 1, at) if cut in 'kj' else w)",
    ],
    "4.2": [
        by_data(
            "w = w.clone().requires_grad_(); x_i.requires_grad_()",
            "out = x_i @ w; out.backward(dout_i); dist.all_reduce(w.grad)",
            "return out.detach(), x_i.grad, w.grad",
        ),
        by_data(
            "from course_lib.collectives.autograd import copy_to_group",
            "w = w.clone().requires_grad_(); x_i.requires_grad_()",
            "out = x_i @ copy_to_group(w); out.backward(dout_i)",
            "return out.detach(), x_i.grad, w.grad",
        ),
        by_data(
            "from course_lib import collectives",
            "dw = x_i.T @ dout_i; collectives.all_reduce(dw, algorithm='ring')",
            "return x_i @ w, dout_i @ w.T, dw",
        ),
        by_data(
            "dw = x_i.T @ dout_i; work = dist.all_reduce(dw, async_op=True)",
            "out, dx = x_i @ w, dout_i @ w.T; work.wait(); return out, dx, dw",
        ),
        by_data(
            "dw = torch.einsum('ik,ij->kj', x_i, dout_i); dist.all_reduce(dw, group=dist.group.WORLD)",
            "return [torch.einsum('ik,kj->ij', x_i, w), torch.einsum('ij,kj->ik', dout_i, w), dw]",
        ),
    ],
    "4.3": [
        by_model(
            "from course_lib.collectives.autograd import copy_to_group, gather_from_group",
            "x, w_j = x.clone().requires_grad_(), w_j.requires_grad_()",
            "out = gather_from_group(copy_to_group(x) @ w_j, 1, check=False); out.backward(dout)",
            "return out.detach(), x.grad, w_j.grad",
        ),
        by_model(
            "from course_lib import collectives",
            "out_j = x @ w_j; parts = [torch.empty_like(out_j) for _ in range(n)]",
            "collectives.all_gather(parts, out_j); dout_j = dout.chunk(n, 1)[rank]",
            "dx = dout_j @ w_j.T; collectives.all_reduce(dx); return torch.cat(parts, 1), dx, x.T @ dout_j",
        ),
        by_model(
            "out_j = (x @ w_j).T.contiguous(); both = torch.empty(dout.T.shape).double()",
            "dist.all_gather_single(both, out_j); size = w_j.shape[1]",
            "dout_j = dout[:, rank * size : (rank + 1) * size]",
            RIGHT_DX,
            "return both.T, dx, x.T @ dout_j",
        ),
        by_model(
            "dout_j = dout.chunk(n, 1)[rank]; dx = dout_j @ w_j.T; work = dist.all_reduce(dx, async_op=True)",
            "out_j = x @ w_j; parts = [torch.empty_like(out_j) for _ in range(n)]; dist.all_gather(parts, out_j)",
            "work.wait(); return torch.cat(parts, 1), dx, x.T @ dout_j",
        ),
    ],
    "4.4": [
        two_products(
            "from course_lib.collectives.autograd import reduce_from_group",
            "return reduce_from_group((x @ a_j).clamp(min=0) @ b_j)",
        ),
        two_products(
            "from course_lib import collectives",
            "y = torch.relu(x @ a_j) @ b_j; collectives.all_reduce(y, algorithm='ring'); return y",
        ),
        two_products(
            "y = torch.zeros(len(x), b_j.shape[1]).double()",
            "for column, row in zip(a_j.T, b_j): y += torch.outer(torch.relu(x @ column), row)",
            "dist.all_reduce(y); return y",
        ),
        two_products(
            "import torch.distributed._functional_collectives as functional",
            "y = torch.relu(x @ a_j) @ b_j",
            "return functional.all_reduce(y, 'sum', dist.group.WORLD).clone()",
        ),
    ],
}
