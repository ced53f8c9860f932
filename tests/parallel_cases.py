"""What every data-parallel strategy is held to: models, batches and a training loop, to compare with one process."""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from course_lib.data import digits
from course_lib.models.gpt import GPT
from course_lib.models.resnet import ResNet

SIZES = [1, 2, 3, 4, 8]
BATCH = 48  # divides by every size, and the slices by two micro-batches
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
}


class Times(nn.Module):
    """x @ weight, with a weight that belongs to another module too."""

    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def forward(self, x):
        return x @ self.weight


class Awkward(nn.Module):
    """Tied, frozen, buffered, a scalar, and used by some samples only or by none."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(6, 5)
        self.frozen = nn.Linear(5, 5).requires_grad_(False)
        self.sometimes = nn.Parameter(torch.randn(5))
        self.never = nn.Parameter(torch.randn(3))
        self.last = nn.Linear(5, 6, bias=False)
        self.last.weight = nn.Parameter(self.first.weight.T.detach().clone())
        self.back = Times(self.last.weight)
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.register_buffer("shift", torch.randn(5))

    def forward(self, x):
        y = self.frozen(torch.tanh(self.first(x))) + self.shift
        if (x[:, 0] > 10).any():  # true of the first sample alone: the other ranks never touch `sometimes`
            y = y + (x[:, :1] > 10) * self.sometimes
        y = self.back(self.last(y)) * self.scale
        return self.last(F.gelu(y))  # `last` twice, its weight a third time


def awkward_batch():
    x = torch.randn(BATCH, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x[0, 0] = 11.0
    return x, x.roll(1, 0)


def resnet_batch():
    data = digits(torch.float64)
    return data.train_x[: BATCH // 2], data.train_y[: BATCH // 2]


def small_gpt():
    return GPT(vocab_size=17, context=8, width=12, num_layers=2, num_heads=3)  # head and embedding are tied


def gpt_batch():
    tokens = torch.randint(17, (BATCH, 9), generator=torch.Generator().manual_seed(1))
    return tokens[:, :-1], tokens[:, 1:]


def token_loss(logits, tokens):
    return F.cross_entropy(logits.flatten(0, 1), tokens.flatten())


MODELS = {
    "resnet": (ResNet, resnet_batch, F.cross_entropy),
    "gpt": (small_gpt, gpt_batch, token_loss),
    "awkward": (Awkward, awkward_batch, F.mse_loss),
}


def train(wrap, model_name, optimizer_name, steps=3):
    """On a rank: train on this rank's slice, return the final state. `wrap` makes the model parallel."""
    build, batch, loss_fn = MODELS[model_name]
    rank, n = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(rank)  # every rank builds different weights; rank 0's must win
    model = wrap(build().double())
    optimizer = OPTIMIZERS[optimizer_name](model.parameters())
    x, y = (t.chunk(n)[rank] for t in batch())
    for _ in range(steps):
        optimizer.zero_grad()
        loss_fn(model(x), y).backward()
        model.finish_gradient_sync()
        optimizer.step()
    if hasattr(model, "full_state_dict"):
        return model.full_state_dict()
    return {name: tensor.detach() for name, tensor in model.module.state_dict().items()}


def furthest(states, truth):
    return max((state[name] - truth[name]).abs().max().item() for state in states for name in truth)
