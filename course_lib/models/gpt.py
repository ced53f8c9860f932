"""A small GPT: an ordinary decoder-only transformer that knows nothing of parallelism."""

import math

import torch
from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Self-attention, (b, s, width) -> (b, s, width). Vaswani et al. 2017, section 3.2.

    causal: a token attends to itself and to those before it, and to no others.
    num_kv_heads: fewer heads of keys and values than of queries, each for a group of neighbouring query heads (Ainslie et al.
    2023, "GQA"). q, k and v are separate linears, so that each can be split by heads as it is.
    width must be divisible by num_heads, and num_heads by num_kv_heads, else ValueError.
    """

    def __init__(self, width: int, num_heads: int, num_kv_heads: int | None = None, causal: bool = True):
        super().__init__()
        num_kv_heads = num_kv_heads or num_heads
        if width % num_heads:
            raise ValueError(
                f"width {width} is not divisible by num_heads {num_heads}: every head takes an equal part of the width."
            )
        if num_heads % num_kv_heads:
            raise ValueError(
                f"num_heads {num_heads} is not divisible by num_kv_heads {num_kv_heads}: every head of keys and values serves "
                "equally many heads of queries."
            )
        self.head_width = width // num_heads
        self.causal = causal
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, num_kv_heads * self.head_width)
        self.v = nn.Linear(width, num_kv_heads * self.head_width)
        self.o = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # Heads are counted from what came: a rank that holds some of the heads runs the same code.
        q, k, v = (
            part.unflatten(-1, (-1, self.head_width)).transpose(1, 2) for part in self.project(x)
        )  # each (b, heads, s, head_width)
        return self.o(self.attend(q, k, v).transpose(1, 2).flatten(2))

    def project(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries (b, s, width), keys and values (b, s, num_kv_heads · head_width), heads side by side."""
        return self.q(x), self.k(x), self.v(x)

    def attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """softmax(q kᵀ / √head_width) v for each head, (b, heads, s, head_width); the part without parameters."""
        grouped = q.shape[1] != k.shape[1]
        return F.scaled_dot_product_attention(q, k, v, is_causal=self.causal, enable_gqa=grouped)


class Block(nn.Module):
    """x + attention(ln1(x)), then x + down(gelu(up(ln2(x)))): (b, s, width) -> (b, s, width)."""

    def __init__(self, width: int, num_heads: int, num_kv_heads: int | None = None):
        super().__init__()
        self.ln1 = nn.LayerNorm(width)
        self.attention = Attention(width, num_heads, num_kv_heads)
        self.ln2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(self.ln1(x))
        return x + self.down(F.gelu(self.up(self.ln2(x)), approximate="tanh"))


class GPT(nn.Module):
    """Tokens (b, s) int64, s <= context -> logits (b, s, vocab_size); 1,627,392 parameters as it stands.

    A block has 12 width² + 13 width parameters; around the blocks are vocab_size × width for the tokens, context × width
    for the positions and 2 width for the last norm; fewer num_kv_heads than num_heads make k and v narrower.
    tied=True: the head's weight is the token embedding's, one and the same parameter (Press and Wolf 2016); tied=False adds
    another vocab_size × width. No dropout, so a step can be repeated.
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
        num_kv_heads: int | None = None,
    ):
        super().__init__()
        self.context = context
        self.wte = nn.Embedding(vocab_size, width)
        self.wpe = nn.Embedding(context, width)
        self.blocks = nn.ModuleList(Block(width, num_heads, num_kv_heads) for _ in range(num_layers))
        self.ln_f = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab_size, bias=False)
        self.apply(initialise)
        for block in self.blocks:  # 2 num_layers branches add up on the residual stream: keep their sum's variance
            for last in (block.attention.o, block.down):
                nn.init.normal_(last.weight, std=0.02 / math.sqrt(2 * num_layers))
        if tied:
            self.head.weight = self.wte.weight

    def forward(self, tokens: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        """positions (s,): where in the text each token stands, 0, 1, 2 … unless given."""
        if positions is None:
            positions = positions_of(tokens, self.context)
        x = self.wte(tokens) + self.wpe(positions)  # (b, s, width)
        for block in self.blocks:
            x = block(x)
        return self.head(self.ln_f(x))  # (b, s, vocab_size)


def positions_of(tokens: torch.Tensor, context: int) -> torch.Tensor:
    """0, 1, 2 … for tokens (…, s). Raises ValueError if they are more than the context has room for."""
    s = tokens.shape[-1]
    if s > context:
        raise ValueError(f"{s} tokens do not fit a context of {context}: pass fewer, or build a model with more.")
    return torch.arange(s, device=tokens.device)


def initialise(module: nn.Module) -> None:
    """The initial values of GPT-2 and BERT: normal with a deviation of 0.02, biases 0."""
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)
