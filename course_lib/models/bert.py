"""A BERT-style encoder: every token sees all the others, and learns by filling in bytes that were masked out."""

import torch
from torch import nn
from torch.nn import functional as F

from course_lib.models.gpt import Attention, initialise, positions_of


class EncoderBlock(nn.Module):
    """ln1(x + attention(x)), then ln2(x + down(gelu(up(x)))): (b, s, width) -> (b, s, width). The norm comes last, as in 2017."""

    def __init__(self, width: int, num_heads: int):
        super().__init__()
        self.attention = Attention(width, num_heads, causal=False)
        self.ln1 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        self.ln2 = nn.LayerNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.ln1(x + self.attention(x))
        return self.ln2(x + self.down(F.gelu(self.up(x))))


class BERT(nn.Module):
    """Tokens (b, s) int64, s <= context -> logits (b, s, vocab_size) of what stood at each place.

    The head's weight is the token embedding's. Left out of the original: segment embeddings, the head's extra linear, dropout.
    Raises ValueError for a width that num_heads does not divide, and for more tokens than the context holds.
    Source: Devlin et al. 2018, "BERT", section 3; its released code for the head's bias and the initial values.
    """

    def __init__(
        self, vocab_size: int = 256, context: int = 64, width: int = 128, num_layers: int = 4, num_heads: int = 4
    ):
        super().__init__()
        self.context = context
        self.wte = nn.Embedding(vocab_size, width)
        self.wpe = nn.Embedding(context, width)
        self.ln = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(EncoderBlock(width, num_heads) for _ in range(num_layers))
        self.head = nn.Linear(width, vocab_size)
        self.apply(initialise)
        self.head.weight = self.wte.weight

    def forward(self, tokens: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        """positions (s,): where in the text each token stands, 0, 1, 2 … unless given."""
        if positions is None:
            positions = positions_of(tokens, self.context)
        x = self.ln(self.wte(tokens) + self.wpe(positions))  # (b, s, width)
        for block in self.blocks:
            x = block(x)
        return self.head(x)  # (b, s, vocab_size)
