"""The GPT: causal, of the size it says, with GPT-2's first values, and able to learn."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from course_lib.data import text, text_batch
from course_lib.models.gpt import GPT, Attention, Block


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_it_has_as_many_parameters_as_it_says():
    width, layers, around = 128, 8, 256 * 128 + 64 * 128 + 2 * 128
    assert count(Block(width, 4)) == 12 * width**2 + 13 * width
    assert count(GPT()) == layers * (12 * width**2 + 13 * width) + around == 1_627_392
    assert count(GPT(tied=False)) == 1_627_392 + 256 * 128
    assert "1,627,392" in GPT.__doc__


def test_tied_head_and_embedding_are_one_parameter_and_get_both_gradients():
    tied, untied = GPT(width=16, num_layers=1), GPT(width=16, num_layers=1, tied=False)
    assert tied.head.weight is tied.wte.weight and untied.head.weight is not untied.wte.weight
    untied.load_state_dict(tied.state_dict())
    for model in (tied, untied):
        x, y = text_batch(0, 2, 8)
        F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
    both = untied.wte.weight.grad + untied.head.weight.grad
    assert torch.allclose(tied.wte.weight.grad, both) and untied.wte.weight.grad.any()


def test_a_logit_depends_on_no_later_token_and_on_every_earlier_one():
    torch.manual_seed(0)
    model = GPT(vocab_size=11, context=8, width=16, num_layers=2, num_heads=2).double()
    tokens = torch.randint(11, (3, 8))
    logits = model(tokens)
    assert logits.shape == (3, 8, 11)
    for i in range(8):
        other = tokens.clone()
        other[:, i] = (other[:, i] + 1) % 11
        difference = (model(other) - logits).abs().amax((0, 2))  # (t,)
        assert (difference[:i] == 0).all() and (difference[i:] > 0).all()


def test_attention_is_the_formula_written_out():
    torch.manual_seed(0)
    width, heads, t = 12, 3, 5
    attention = Attention(width, heads).double()
    x = torch.randn(2, t, width, dtype=torch.float64)
    parts = []
    for head in range(heads):
        columns = slice(head * width // heads, (head + 1) * width // heads)
        q, k, v = (project(x)[..., columns] for project in (attention.q, attention.k, attention.v))
        scores = q @ k.transpose(1, 2) / math.sqrt(width // heads)  # (b, t, t)
        later = torch.ones(t, t).triu(1).bool()
        parts.append(scores.masked_fill(later, -torch.inf).softmax(-1) @ v)
    assert torch.allclose(attention(x), attention.o(torch.cat(parts, -1)), atol=1e-12)


def test_initial_values_are_those_of_gpt_2():
    torch.manual_seed(0)
    model = GPT()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "ln" in name:
            assert (parameter == 1).all(), name
        else:
            is_last = name.endswith(("attention.o.weight", "down.weight"))
            std = 0.02 / math.sqrt(2 * 8) if is_last else 0.02
            assert parameter.std().item() == pytest.approx(std, rel=0.05), name
    x, y = torch.randint(256, (2, 4, 64))
    loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten()).item()
    assert loss == pytest.approx(math.log(256), abs=0.15), "at first every byte is about as likely"


def test_it_learns():
    torch.manual_seed(0)
    model = GPT(width=64, num_layers=2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(120):
        x, y = text_batch(step, 8, 64)
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    frequencies = text().bincount()
    alone = torch.distributions.Categorical(frequencies.double()).entropy()
    assert loss < alone - 0.2, "better than to know the bytes' frequencies alone"


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="width 10 is not divisible by num_heads 4"):
        GPT(width=10)
    with pytest.raises(ValueError, match="9 tokens do not fit a context of 8"):
        GPT(context=8, width=8, num_layers=1)(torch.zeros(1, 9, dtype=torch.int64))
    assert isinstance(GPT(width=8, num_layers=2).blocks, nn.ModuleList)
