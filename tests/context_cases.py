"""What context parallel is held to: attention and whole models, on the ranks and in one process."""

import math

import torch
import torch.distributed as dist
from torch.nn import functional as F

from course_lib.data import masked_batch, text_batch
from course_lib.models.bert import BERT
from course_lib.models.gpt import GPT, Attention
from course_lib.parallel import ring_attention as ring
from course_lib.parallel.context import all_to_all_attention, context_parallelize, local_positions, split_sequence
from course_lib.parallel.data import BucketedDataParallel, DataParallel
from course_lib.parallel.ring_attention import ring_attention
from tests.tensor_cases import OPTIMIZERS, shaken

METHODS = {"ring": ring_attention, "all_to_all": all_to_all_attention}
HEADS = 12  # and so many of keys and values, or as many as there are ranks: both divide by 1, 2, 3 and 4
CONTEXT = 16


def places(s, zigzag, rank=None, c=None):
    """Where the tokens of a rank stand, worked out in another way than the library does."""
    rank, c = dist.get_rank() if rank is None else rank, c or dist.get_world_size()
    if not zigzag or c == 1:
        return [i for i in range(s) if i * c // s == rank]
    return [i for i in range(s) if i * 2 * c // s in (rank, 2 * c - 1 - rank)]


# --- attention ------------------------------------------------------------------------------------------------------------


def whole_case(s, kv_heads, dtype=torch.float64, scale=1.0, seed=0):
    """q, k, v and the gradient of the output, whole, the same on every rank. `scale` makes the scores large."""
    draw = torch.Generator().manual_seed(seed)
    shapes = [(2, HEADS, s, 4), (2, kv_heads, s, 4), (2, kv_heads, s, 4), (2, HEADS, s, 4)]
    q, k, v, grad = (torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes)
    return [x.to(dtype) for x in (q * scale, k, v, grad)]


def run(attention, q, k, v, grad, **options):
    """(output, ∂q, ∂k, ∂v)."""
    leaves = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    output = attention(*leaves, **options)
    output.backward(grad)
    return [output.detach(), *(leaf.grad for leaf in leaves)]


def one_process_attention(q, k, v, **options):
    return F.scaled_dot_product_attention(q, k, v, is_causal=options["causal"], enable_gqa=q.shape[1] != k.shape[1])


def error(method, s=48, kv_heads=HEADS, causal=False, zigzag=True, split_zigzag=None, **case):
    """On a rank: the largest difference of the output and the three gradients from one process, on this rank's part.

    As a share of the largest value, where that is above 1.
    """
    whole = whole_case(s, kv_heads, **case)
    mine = places(s, zigzag if split_zigzag is None else split_zigzag)
    found = run(METHODS[method], *(x[:, :, mine] for x in whole), causal=causal, zigzag=zigzag)
    truth = run(one_process_attention, *whole, causal=causal)
    assert all(x.dtype == whole[0].dtype and x.isfinite().all() for x in found)
    return max(
        ((a - b[:, :, mine]).abs().max() / b.abs().max().clamp(min=1)).item() for a, b in zip(found, truth, strict=True)
    )


def all_errors():
    """On a rank: the error of every case."""
    c = dist.get_world_size()
    cases = [
        (method, {"kv_heads": kv_heads, "causal": causal, "zigzag": zigzag})
        for method in METHODS
        for kv_heads in (HEADS, c)
        for causal in (False, True)
        for zigzag in (True, False)
    ]
    for causal in (False, True):  # scores up to some thousands, whose exp is infinite
        cases.append(("ring", {"causal": causal, "scale": 1000.0, "kv_heads": c}))
    found = {str(case): error(case[0], **case[1]) for case in cases}
    ring.TILE = 1  # so that a rank's part of the sequence takes several tiles, the last a short one
    for causal in (False, True):
        found[f"tiles, {causal}"] = error("ring", 80 * c, kv_heads=c, causal=causal)
    return found


# --- models ---------------------------------------------------------------------------------------------------------------


def gpt():
    return GPT(context=CONTEXT, width=32, num_layers=2, num_heads=8, num_kv_heads=4)


def gpt_without_mask():
    model = gpt()
    for module in model.modules():
        if isinstance(module, Attention):
            module.causal = False
    return model


def bert():
    return BERT(context=CONTEXT, width=32, num_layers=2, num_heads=8)


MODELS = {"gpt": gpt, "gpt, not causal": gpt_without_mask, "bert": bert}


def batch(model_name, step):
    return (masked_batch if model_name == "bert" else text_batch)(step, 3, CONTEXT)


def train(build, optimizer_name, step_loss, finish=lambda: None, steps=3):
    """(losses, gradients of the first step, weights)."""
    model = build()
    optimizer, losses = OPTIMIZERS[optimizer_name](model.parameters()), []
    for step in range(steps):
        optimizer.zero_grad()
        loss = step_loss(model, step)
        loss.backward()
        if hasattr(model, "finish_gradient_sync"):
            model.finish_gradient_sync()
        model_parameters = dict(getattr(model, "module", model).named_parameters())
        if step == 0:
            grads = {name: p.grad.clone() for name, p in model_parameters.items()}
        optimizer.step()
        losses.append(loss.item())
    return losses, grads, {name: p.detach() for name, p in model_parameters.items()}


def one_process(model_name, optimizer_name, steps=3):
    """The truth."""

    def build():
        torch.manual_seed(0)
        return shaken(MODELS[model_name]().double())

    def loss(model, step):
        x, y = batch(model_name, step)
        return F.cross_entropy(model(x).flatten(0, 1), y.flatten())

    return train(build, optimizer_name, loss, steps=steps)


def ranks(model_name, optimizer_name, method="ring", zigzag=True, parallelize=context_parallelize, positions=None):
    """On a rank: the same from this rank's part of each sequence, and from other weights on every rank."""

    def build():
        torch.manual_seed(dist.get_rank())
        plain = shaken(MODELS[model_name]().double())
        average = DataParallel if optimizer_name == "sgd" else BucketedDataParallel  # the latter is quicker
        return average(parallelize(plain, method=method, zigzag=zigzag))

    here = (positions or local_positions)(CONTEXT, zigzag=zigzag)

    def loss(model, step):
        x, y = batch(model_name, step)
        share = dist.get_world_size() / (y != -100).sum().item()  # as the module's docstring has it
        x, y = (split_sequence(t, zigzag=zigzag) for t in (x, y))
        return F.cross_entropy(model(x, here).flatten(0, 1), y.flatten(), reduction="sum") * share

    return train(build, optimizer_name, loss)


def distance(run, truth):
    """The largest difference of the mean loss, and of a gradient or a weight on any rank."""
    losses, grads, weights = truth
    found = [
        abs(math.fsum(mine) / len(mine) - whole) for mine, whole in zip(zip(*(r[0] for r in run)), losses, strict=True)
    ]
    for rank in run:
        for mine, whole in ((rank[1], grads), (rank[2], weights)):
            found += [(mine[name] - whole[name]).abs().max().item() for name in whole]
    return max(found)
