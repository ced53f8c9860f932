"""The encoder is an ordinary module: it sees both sides, its parts add up, and it learns to fill in masked bytes."""

import torch
from torch.nn import functional as F

from course_lib.data import masked_batch
from course_lib.models.bert import BERT


def test_every_token_sees_all_the_others():
    torch.manual_seed(0)
    model = BERT(context=8, width=16, num_layers=1, num_heads=2).double()
    x = torch.arange(8).unsqueeze(0)
    before, after = model(x), model(torch.cat((x[:, :7], x[:, 7:] + 1), 1))
    assert (before - after)[0].abs().amax(-1).gt(1e-9).all(), "the first token feels the last"


def test_parameters_are_those_of_the_formula():
    V, s, h, layers = 256, 64, 128, 4
    expected = (
        V * h + s * h + 2 * h + layers * (12 * h * h + 13 * h) + V
    )  # the head's weight is tied, its bias is its own
    assert sum(p.numel() for p in BERT().parameters()) == expected


def test_it_learns_to_fill_in_bytes():
    torch.manual_seed(0)
    model = BERT(context=32, width=32, num_layers=1, num_heads=4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for step in range(60):
        x, y = masked_batch(step, 16, 32)
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 5 and sum(losses[-5:]) / 5 < 3.6
