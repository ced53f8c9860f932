"""Models as shapes: how many parameters they have and how many FLOPs they take. Nothing is built, nothing is run.

A FLOP is one multiplication or one addition. Counted are matrix products, as the papers do: the rest (norms, softmax, GELU)
is below one percent of the FLOPs, though not of the time.
"""

from dataclasses import dataclass
from functools import cached_property

RECOMPUTE = ("none", "selective", "full")


def check_recompute(recompute: str) -> None:
    """Raise ValueError, in a sentence, for what is no kind of recomputation."""
    if recompute not in RECOMPUTE:
        raise ValueError(f"recompute is one of {', '.join(RECOMPUTE)}, not {recompute!r}.")


@dataclass(frozen=True)
class Transformer:
    """The shape of a transformer: l layers of width h with a heads, a vocabulary of V, sequences of s tokens.

    As it stands a GPT-2 or GPT-3: LayerNorm, biases, learned positions, an MLP of 4h with GELU, embedding and head tied.
    Others change: kv_heads (grouped-query attention; default num_heads), head_width (default width / num_heads), mlp_width,
    gated (SwiGLU: three matrices in the MLP), bias (of linear layers and norms), learned_positions, tied; dropout says
    whether masks are kept for backward. extra_parameters: what else there is, such as BERT's pooler.

    Raises ValueError for a size below 1 or a width that num_heads does not divide when head_width is not given.
    """

    name: str
    num_layers: int
    width: int
    num_heads: int
    vocab_size: int = 51200
    context: int = 2048
    kv_heads: int = 0
    head_width: int = 0
    mlp_width: int = 0
    gated: bool = False
    bias: bool = True
    learned_positions: bool = True
    tied: bool = True
    dropout: bool = True
    extra_parameters: int = 0

    def __post_init__(self) -> None:
        for name in ("num_layers", "width", "num_heads", "vocab_size", "context"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: a transformer needs at least 1.")
        if not self.head_width and self.width % self.num_heads:
            raise ValueError(
                f"width {self.width} is not divisible by num_heads {self.num_heads}: pass head_width, or other sizes."
            )
        defaults = {"kv_heads": self.num_heads, "head_width": self.width // self.num_heads, "mlp_width": 4 * self.width}
        for name, value in defaults.items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)

    @cached_property
    def query_width(self) -> int:
        """The width of all heads together: h, if heads are as wide as usual."""
        return self.num_heads * self.head_width

    @cached_property
    def kv_width(self) -> int:
        """The width of all keys, and of all values."""
        return self.kv_heads * self.head_width

    @cached_property
    def layer_matrices(self) -> int:
        """Parameters in the matrices of one layer: 12h² in a GPT."""
        attention = self.width * (2 * self.query_width + 2 * self.kv_width)
        return attention + (3 if self.gated else 2) * self.width * self.mlp_width

    @cached_property
    def layer_parameters(self) -> int:
        """Parameters of one layer: 12h² + 13h in a GPT."""
        norms = 2 * self.width * (2 if self.bias else 1)
        biases = self.query_width + 2 * self.kv_width + self.width
        biases += (2 if self.gated else 1) * self.mlp_width + self.width
        return self.layer_matrices + norms + (biases if self.bias else 0)

    @cached_property
    def embedding_parameters(self) -> int:
        """Parameters of the token embedding and of the learned positions: Vh + sh in a GPT."""
        return self.width * (self.vocab_size + (self.context if self.learned_positions else 0))

    @cached_property
    def head_parameters(self) -> int:
        """Parameters of the last norm and of a head that is not tied to the embedding."""
        return self.width * ((2 if self.bias else 1) + (0 if self.tied else self.vocab_size))

    @cached_property
    def parameters(self) -> int:
        """All of them: Narayanan et al. 2021, equation 2, for a GPT (which leaves out the 2h of the last norm)."""
        layers = self.num_layers * self.layer_parameters
        return layers + self.embedding_parameters + self.head_parameters + self.extra_parameters

    def core_flops(self, batch: float) -> float:
        """Forward FLOPs of one layer's attention itself, QKᵀ and its product with V: 4bs²h. No causal saving is counted."""
        return 4 * batch * self.context**2 * self.query_width

    def layer_flops(self, batch: float) -> float:
        """Forward FLOPs of one layer for `batch` sequences: 24bsh² + 4bs²h in a GPT. Narayanan et al. 2021, appendix."""
        return 2 * batch * self.context * self.layer_matrices + self.core_flops(batch)

    def head_flops(self, batch: float) -> float:
        """Forward FLOPs of the logits: 2bshV."""
        return 2 * batch * self.context * self.width * self.vocab_size

    def forward_flops(self, batch: float) -> float:
        """Forward FLOPs for `batch` sequences of `context` tokens. Backward takes twice as many."""
        return self.num_layers * self.layer_flops(batch) + self.head_flops(batch)

    def model_flops(self, batch: float) -> float:
        """FLOPs that training on `batch` sequences needs: three times forward. Korthikanti et al. 2022, equation 7."""
        return 3 * self.forward_flops(batch)

    def hardware_flops(self, batch: float, recompute: str = "none") -> float:
        """FLOPs that are really done: recomputation does forward again, of all layers ("full") or of the attention cores.

        Full: Narayanan et al. 2021, equation 3.
        """
        check_recompute(recompute)
        again = {"none": 0.0, "selective": self.core_flops(batch), "full": self.layer_flops(batch)}[recompute]
        return self.model_flops(batch) + self.num_layers * again

    def __str__(self) -> str:
        sizes = f"{self.num_layers} layers, width {self.width}, {self.num_heads} heads"
        return f"{self.name}: {self.parameters / 1e9:.4g} billion parameters, {sizes}"


def _gpt3(name: str, num_layers: int, width: int, num_heads: int) -> Transformer:
    return Transformer(name, num_layers, width, num_heads, vocab_size=50257)


def _llama3(name: str, num_layers: int, width: int, num_heads: int, mlp_width: int) -> Transformer:
    modern = {"gated": True, "bias": False, "learned_positions": False, "tied": False, "dropout": False}
    return Transformer(name, num_layers, width, num_heads, 128_000, 8192, 8, mlp_width=mlp_width, **modern)


def _bert(name: str, num_layers: int, width: int, num_heads: int, vocab_size: int = 30522) -> Transformer:
    more = 2 * width + width * (width + 1)  # two token types, and the pooler
    return Transformer(name, num_layers, width, num_heads, vocab_size, 512, extra_parameters=more)


# GPT-3: Brown et al. 2020, table 2.1 (13B prints a width of 5140; 40 heads of 128 are 5120, which gives the total of table
# D.1). Llama 3: Grattafiori et al. 2024, table 3. BERT: Devlin et al. 2018. MT-NLG: Smith et al. 2022. PaLM: Chowdhery et al. 2022.
MODELS = {
    model.name: model
    for model in (
        _bert("BERT-Base", 12, 768, 12),
        _bert("BERT-Large", 24, 1024, 16),
        _bert("RoBERTa-Large", 24, 1024, 16, vocab_size=50265),
        Transformer("GPT-2", 48, 1600, 25, 50257, 1024),
        _gpt3("GPT-3 Small", 12, 768, 12),
        _gpt3("GPT-3 Medium", 24, 1024, 16),
        _gpt3("GPT-3 Large", 24, 1536, 16),
        _gpt3("GPT-3 XL", 24, 2048, 16),
        _gpt3("GPT-3 2.7B", 32, 2560, 32),
        _gpt3("GPT-3 6.7B", 32, 4096, 32),
        _gpt3("GPT-3 13B", 40, 5120, 40),
        _gpt3("GPT-3 175B", 96, 12288, 96),
        _llama3("Llama 3 8B", 32, 4096, 32, 14336),
        _llama3("Llama 3 70B", 80, 8192, 64, 28672),
        _llama3("Llama 3 405B", 126, 16384, 128, 53248),
        Transformer("MT-NLG 530B", 105, 20480, 128),
        Transformer(
            "PaLM 540B", 118, 18432, 48, 256_000, kv_heads=1, head_width=256, mlp_width=73728,
            gated=True, bias=False, learned_positions=False, dropout=False,
        ),
        Transformer("Megatron 1T", 128, 25600, 160),
    )
}  # fmt: skip


@dataclass(frozen=True)
class ConvNet:
    """A network of convolutions: for each (in channels, out channels, kernel, size of the output image), and a last linear."""

    name: str
    convolutions: tuple[tuple[int, int, int, int], ...]
    classes: int

    @property
    def parameters(self) -> int:
        """Weights of the convolutions, two for each channel of the norm behind each, and the last linear layer."""
        weights = sum(i * o * k * k + 2 * o for i, o, k, _ in self.convolutions)
        return weights + self.classes * (self.convolutions[-1][1] + 1)

    def forward_flops(self, batch: float) -> float:
        """FLOPs of the products, for `batch` images."""
        products = sum(2 * i * o * k * k * size * size for i, o, k, size in self.convolutions)
        return batch * (products + 2 * self.classes * self.convolutions[-1][1])

    def model_flops(self, batch: float) -> float:
        """FLOPs that training on `batch` images needs: three times forward."""
        return 3 * self.forward_flops(batch)


def _resnet50() -> ConvNet:
    """He et al. 2015, table 1, with the stride in the 3×3 convolution, on images of 224 × 224."""
    found, last = [(3, 64, 7, 112)], 64
    for blocks, width, size in ((3, 64, 56), (4, 128, 28), (6, 256, 14), (3, 512, 7)):
        for block in range(blocks):
            before = size * 2 if block == 0 and width > 64 else size
            shortcut = [(last, 4 * width, 1, size)] if block == 0 else []
            inner = [(last, width, 1, before), (width, width, 3, size), (width, 4 * width, 1, size)]
            # the last convolution of the list must be the block's own: it has the channels that go on
            found += shortcut + inner
            last = 4 * width
    return ConvNet("ResNet-50", tuple(found), 1000)


RESNET50 = _resnet50()
