"""A small residual network for 8×8 images: an ordinary module that knows nothing of parallelism."""

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """relu(x + conv(relu(conv(x)))): (b, in, h, w) -> (b, out, h / stride, w / stride). He et al. 2015, figure 2."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: str):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm1 = _norm(norm, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = _norm(norm, out_channels)
        self.shortcut = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """Images (b, 1, 8, 8) -> logits (b, num_classes); 33,946 parameters as it stands.

    norm="group" normalises each image by itself, so that an image's output does not depend on which other images share
    its batch. norm="batch" is the choice of the original paper: it normalises by the batch at hand, and keeps buffers.
    """

    def __init__(self, widths: tuple[int, int] = (16, 48), num_classes: int = 10, norm: str = "group"):
        super().__init__()
        narrow, wide = widths
        self.stem = nn.Conv2d(1, narrow, 3, padding=1, bias=False)
        self.norm = _norm(norm, narrow)
        self.blocks = nn.Sequential(Block(narrow, narrow, 1, norm), Block(narrow, wide, 2, norm))
        self.head = nn.Linear(wide, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.norm(self.stem(x)))  # (b, narrow, 8, 8)
        x = self.blocks(x)  # (b, wide, 4, 4)
        return self.head(x.mean((2, 3)))  # (b, num_classes)


def _norm(kind: str, channels: int) -> nn.Module:
    if kind == "group":
        return nn.GroupNorm(min(8, channels // 2), channels)
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    raise ValueError(f"norm must be 'group' or 'batch', not {kind!r}.")
