"""Real data that is already on the learner's disk: nothing is downloaded."""

from dataclasses import dataclass

import torch


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
