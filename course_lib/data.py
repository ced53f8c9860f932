"""Real data that is already on the learner's disk: nothing is downloaded."""

import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

MASK = 0  # stands for a byte that was masked out: no text holds a byte 0


@dataclass(frozen=True)
class Digits:
    """Handwritten digits: images (n, 1, 8, 8) with values in [0, 1], labels (n,) in 0..9."""

    train_x: torch.Tensor
    train_y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor


def digits(dtype: torch.dtype = torch.float32) -> Digits:
    """1,797 scanned digits, shuffled once and for all: 1,440 to train on, 357 to test on.

    Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits (UCI), as shipped inside scikit-learn.
    """
    from sklearn.datasets import load_digits

    raw = load_digits()
    order = torch.randperm(len(raw.target), generator=torch.Generator().manual_seed(0))
    x = torch.tensor(raw.images / 16, dtype=dtype)[order].unsqueeze(1)  # (n, 1, 8, 8)
    y = torch.tensor(raw.target)[order]
    return Digits(x[:1440], y[:1440], x[1440:], y[1440:])


def text(num_bytes: int = 1_000_000) -> torch.Tensor:
    """The first num_bytes of the source of Python's own standard library, as uint8 (num_bytes,): a language to learn.

    The modules come in the order of their names, without those whose name starts with "_" (some of them say how this
    Python was built). The same Python gives the same bytes on every rank and machine, another version gives others.
    Raises ValueError if the library is shorter than num_bytes; it has several millions.
    """
    source = _library_source()
    if not 0 < num_bytes <= len(source):
        raise ValueError(
            f"num_bytes is {num_bytes}, and there are {len(source)} bytes of text: ask for 1 to that many."
        )
    return source[:num_bytes].clone()


def text_batch(step: int, batch: int, context: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of `text()` to train on: x and y, each (batch, context) int64, where y[:, i] is the byte that follows x[:, i].

    The same step gives the same batch, whatever was drawn before: every rank can make the whole one and take its rows.
    Raises ValueError for a context that text() has no room for.
    """
    source = text()
    if not 0 < context < len(source):
        raise ValueError(f"context is {context}: pass 1 to {len(source) - 1}, for the byte after it has to exist too.")
    generator = torch.Generator().manual_seed(step)
    starts = torch.randint(len(source) - context, (batch, 1), generator=generator)
    windows = source[starts + torch.arange(context + 1)].long()  # (batch, context + 1)
    return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()


def masked_batch(step: int, batch: int, context: int, masked: float = 0.15) -> tuple[torch.Tensor, torch.Tensor]:
    """Bytes to fill in: x (batch, context) int64 of `text()` with a share of its bytes set to MASK, y what stood there.

    y is -100 wherever nothing was masked: a loss with ignore_index=-100 counts the masked places alone. One place a row is
    always masked. The same step gives the same batch, as in text_batch. Devlin et al. 2018, section 3.1, mask 15 %; they put a
    random token or the right one in a fifth of those places, which is left out here.
    """
    x, _ = text_batch(step, batch, context)
    chance = torch.rand(batch, context, generator=torch.Generator().manual_seed(step))
    hidden = chance <= chance.amin(1, keepdim=True).clamp(min=masked)
    return x.masked_fill(hidden, MASK), x.masked_fill(~hidden, -100)


@cache
def _library_source() -> torch.Tensor:
    modules = sorted(Path(sysconfig.get_path("stdlib")).glob("[!_]*.py"))
    return torch.frombuffer(bytearray(b"".join(module.read_bytes() for module in modules)), dtype=torch.uint8)
