"""A small GPT: an ordinary decoder-only transformer that knows nothing of parallelism."""

import math

import torch
from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Causal self-attention, (b, t, width) -> (b, t, width). Vaswani et al. 2017, section 3.2.

    q, k and v are separate linears, so that each can be split by heads as it is. width must be divisible by num_heads,
    else ValueError.
    """

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        if width % num_heads:
            raise ValueError(
                f"width {width} is not divisible by num_heads {num_heads}: every head takes an equal part of the width."
            )
        self.head_width = width // num_heads
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.o = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            self._heads(project(x)) for project in (self.q, self.k, self.v)
        )  # each (b, heads, t, head_width)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (b, heads, t, head_width)
        return self.o(y.transpose(1, 2).flatten(2))

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        # Heads are counted from what came: a rank that holds some of the heads runs the same code.
        return x.unflatten(-1, (-1, self.head_width)).transpose(1, 2)


class Block(nn.Module):
    """x + attention(ln1(x)), then x + down(gelu(up(ln2(x)))): (b, t, width) -> (b, t, width)."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.ln1 = nn.LayerNorm(width)
        self.attention = Attention(width, num_heads)
        self.ln2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.ln1(x))
        return x + self.down(F.gelu(self.up(self.ln2(x)), approximate="tanh"))


class GPT(nn.Module):
    """Tokens (b, t) int64, t <= context -> logits (b, t, vocab_size); 1,627,392 parameters as it stands.

    A block has 12 width² + 13 width parameters; around the blocks are vocab_size × width for the tokens, context × width
    for the positions and 2 width for the last norm. tied=True: the head's weight is the token embedding's, one and the same
    parameter (Press and Wolf 2016); tied=False adds another vocab_size × width. No dropout, so a step can be repeated.
    Raises ValueError for a width that num_heads does not divide, and for more tokens than the context holds.

    Source: Radford et al. 2019 (GPT-2), sections 2.2 and 2.3, and its released code for the initial values.
    """

    def __init__(
        self,
        vocab_size: int = 256,
        context: int = 64,
        width: int = 128,
        num_layers: int = 8,
        num_heads: int = 4,
        tied: bool = True,
    ):
        super().__init__()
        self.context = context
        self.wte = nn.Embedding(vocab_size, width)
        self.wpe = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, num_heads) for _ in range(num_layers))
        self.ln_f = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab_size, bias=False)
        self.apply(_initialise)
        for (
            block
        ) in self.blocks:  # 2 num_layers branches add up on the residual stream: keep their sum's variance
            for last in (block.attention.o, block.down):
                nn.init.normal_(last.weight, std=0.02 / math.sqrt(2 * num_layers))
        if tied:
            self.head.weight = self.wte.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        t = tokens.shape[-1]
        if t > self.context:
            raise ValueError(
                f"{t} tokens do not fit a context of {self.context}: pass fewer, or build a GPT with more."
            )
        x = self.wte(tokens) + self.wpe(torch.arange(t, device=tokens.device))  # (b, t, width)
        for block in self.blocks:
            x = block(x)
        return self.head(self.ln_f(x))  # (b, t, vocab_size)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
