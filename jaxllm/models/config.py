"""What a Transformer is made of."""

from dataclasses import dataclass
from typing import Literal

Activation = Literal["gelu", "gelu_tanh", "relu", "silu", "swiglu", "geglu", "geglu_tanh"]
DType = Literal["float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """A decoder-only Transformer. The defaults are GPT-2's choices at a size that trains on a laptop."""

    vocab_size: int | None = None
    """Entries of the vocabulary. By default the tokenizer's."""
    context_len: int = 1024
    """Longest sequence in tokens; with learned positions also the number of position embeddings."""
    num_layers: int = 4
    """Blocks."""
    embed_dim: int = 128
    """Width of the residual stream."""
    num_heads: int = 4
    """Query heads."""
    num_kv_heads: int | None = None
    """Key/value heads: fewer than num_heads is grouped-query attention, 1 is multi-query. By default num_heads."""
    head_dim: int | None = None
    """Width of a head. By default embed_dim / num_heads."""
    ffw_dim: int | None = None
    """Width of the feed-forward layer. By default 4 x embed_dim."""
    activation: Activation = "gelu_tanh"
    """Feed-forward non-linearity; swiglu, geglu and geglu_tanh are gated."""
    norm: Literal["layer_norm", "rms_norm"] = "layer_norm"
    """Normalization, always computed in float32."""
    norm_bias: bool = True
    """Whether layer_norm adds a bias; rms_norm never does."""
    norm_epsilon: float = 1e-5
    """Added to the variance."""
    norm_placement: Literal["pre", "post", "sandwich"] = "pre"
    """Before each sublayer; after each residual sum; or before and after each sublayer."""
    parallel_block: bool = False
    """Attention and feed-forward read the same normalized input, and both are added at once."""
    position: Literal["learned", "sinusoidal", "rotary", "alibi", "none"] = "learned"
    """How a position is told."""
    rope_theta: float = 10_000.0
    """Base of the rotary wavelengths."""
    bias: bool = True
    """Whether attention and feed-forward projections add a bias."""
    window: int | None = None
    """Sliding-window attention: a query sees this many latest positions, itself included. By default all."""
    qk_norm: bool = False
    """RMS-normalize each query and key head, with a learned scale, before positions are applied."""
    attention_softcap: float | None = None
    """Squash attention logits to c tanh(x / c)."""
    logit_softcap: float | None = None
    """Squash output logits to c tanh(x / c)."""
    tie_embeddings: bool = True
    """Use the token embedding as the output matrix, too."""
    dropout: float = 0.0
    """Probability of dropping a value after the embedding, in attention weights and after each sublayer."""
    init_std: float = 0.02
    """Standard deviation of initial weights; projections into the residual stream get 1/sqrt(2 num_layers) of it."""
    param_dtype: DType = "float32"
    """Type in which parameters are kept."""
    compute_dtype: DType = "float32"
    """Type of activations; softmax, norms and losses accumulate in float32 anyway."""
    layer_loop: Literal["scan", "unroll"] | None = None
    """Compile one block and loop over it, or every block. By default by device and depth."""
    norm_barrier: bool | None = None
    """Compute each norm's input and output once and keep them, where XLA would compute them again for each reader. By
    default on CPU, where that saves a tenth of a small model's step."""
    remat: Literal["none", "dots", "full"] = "none"
    """What the backward pass recomputes: nothing; all but matrix products with weights; whole blocks."""

    def __post_init__(self) -> None:
        for field in ("context_len", "num_layers", "embed_dim", "num_heads"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1: got {getattr(self, field)}")
        for field in ("vocab_size", "num_kv_heads", "head_dim", "ffw_dim", "window"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ValueError(f"{field} must be at least 1: got {value}")
        for field in ("attention_softcap", "logit_softcap"):
            value = getattr(self, field)
            if value is not None and value <= 0:
                raise ValueError(f"{field} must be positive: got {value}; leave it out to switch it off")
        if self.head_dim is None and self.embed_dim % self.num_heads:
            raise ValueError(
                f"num_heads must divide embed_dim: got embed_dim={self.embed_dim}, num_heads={self.num_heads}; "
                "change one of them, or set head_dim"
            )
        if self.num_heads % self.kv_heads:
            raise ValueError(
                f"num_kv_heads must divide num_heads: got num_heads={self.num_heads}, num_kv_heads={self.kv_heads}"
            )
        if self.position == "rotary" and self.head_width % 2:
            raise ValueError(f"rotary positions need an even head_dim: got {self.head_width}")
        if self.parallel_block and self.norm_placement != "pre":
            raise ValueError(f"parallel_block needs norm_placement='pre': got {self.norm_placement!r}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1): got {self.dropout}")

    @property
    def kv_heads(self) -> int:
        """K: key/value heads."""
        return self.num_kv_heads or self.num_heads

    @property
    def head_width(self) -> int:
        """H: width of a head."""
        return self.head_dim or self.embed_dim // self.num_heads

    @property
    def ffw_width(self) -> int:
        """F: width of the feed-forward layer."""
        return self.ffw_dim or 4 * self.embed_dim

    @property
    def vocabulary(self) -> int:
        """V: entries of the vocabulary, once known."""
        if self.vocab_size is None:
            raise ValueError("vocab_size is not set: give it, or let the recipe take it from the tokenizer")
        return self.vocab_size

    def axis_sizes(self) -> dict[str, tuple[str, int]]:
        """For each logical axis that a mesh may split: the field that sets it, and its size."""
        return {
            "embed": ("model.embed_dim", self.embed_dim),
            "heads": ("model.num_heads", self.num_heads),
            "ffw": ("model.ffw_dim", self.ffw_width),
        }
