"""What tensor parallel is held to: models, batches and a training loop on the ranks, to compare with one process."""

import torch
import torch.distributed as dist
from torch.nn import functional as F

from course_lib.data import masked_batch, text_batch
from course_lib.models.bert import BERT
from course_lib.models.gpt import GPT
from course_lib.parallel.tensor_model import full_state_dict, tensor_parallelize
from course_lib.parallel.vocabulary import vocab_parallel_cross_entropy

SIZES = [1, 2, 4, 8]
MODELS = {
    "gpt": lambda: GPT(context=16, width=32, num_layers=2, num_heads=8),
    "gpt, grouped heads, untied": lambda: GPT(
        context=16, width=32, num_layers=2, num_heads=16, num_kv_heads=8, tied=False
    ),
    "bert": lambda: BERT(context=16, width=32, num_layers=2, num_heads=8),
}
MODES = {
    "plain": {},
    "sequence": {"sequence_parallel": True},
    "regathered": {"sequence_parallel": True, "regather": True},
}
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
}


def batch(model_name, step):
    return (masked_batch if model_name == "bert" else text_batch)(step, 3, 16)


def shaken(model):
    """Biases and norms start at 0 and 1: moved, so that a mistake in one of them shows."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def one_process(model_name, optimizer_name, steps=3):
    """(losses, gradients of the first step, weights), the truth."""
    torch.manual_seed(0)
    model = shaken(MODELS[model_name]().double())
    optimizer, losses = OPTIMIZERS[optimizer_name](model.parameters()), []
    for step in range(steps):
        x, y = batch(model_name, step)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        loss.backward()
        if step == 0:
            grads = {name: p.grad.clone() for name, p in model.named_parameters()}
        optimizer.step()
        losses.append(loss.item())
    return losses, grads, {name: p.detach() for name, p in model.named_parameters()}


def ranks(model_name, optimizer_name, mode, steps=3, parallelize=tensor_parallelize):
    """On a rank: the same, from a model that starts with other weights on every rank."""
    torch.manual_seed(dist.get_rank())
    model = parallelize(shaken(MODELS[model_name]().double()), **MODES[mode])
    optimizer, losses = OPTIMIZERS[optimizer_name](model.parameters()), []
    for step in range(steps):
        x, y = batch(model_name, step)
        optimizer.zero_grad()
        loss = vocab_parallel_cross_entropy(model(x), y)
        loss.backward()
        if step == 0:
            grads = full_gradients(model)
        optimizer.step()
        losses.append(loss.item())
    return losses, grads, full_state_dict(model)


def full_gradients(model):
    """The gradients, put together as full_state_dict puts the weights together."""
    weights = {p: p.data for p in model.parameters()}
    for parameter in weights:
        parameter.data = parameter.grad
    grads = full_state_dict(model)
    for parameter, values in weights.items():
        parameter.data = values
    return grads


def distance(run, truth):
    """The largest difference of a loss, a gradient or a weight on any rank."""
    losses, grads, weights = truth
    found = [abs(a - b) for rank in run for a, b in zip(rank[0], losses, strict=True)]
    for rank in run:
        for mine, whole in ((rank[1], grads), (rank[2], weights)):
            found += [(mine[name] - whole[name]).abs().max().item() for name in whole]
    return max(found)
