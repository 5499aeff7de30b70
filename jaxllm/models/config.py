"""What a Transformer is made of."""

from dataclasses import dataclass
from typing import Literal

from jaxllm.models.options import Activation, ExpertsConfig, HeadConfig, RopeScaling
from jaxllm.sharding import AxisSize

DType = Literal["float32", "bfloat16"]
MatmulDType = Literal["int8", "fp8"]
Remat = Literal["none", "minimal", "dots", "block", "offload"]
AttentionKernel = Literal["xla", "cudnn", "splash"]
Position = Literal["learned", "sinusoidal", "rotary", "alibi", "relative", "relative_key", "relative_key_query", "none"]


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """One stack of Transformer blocks over text: a decoder, or with `causal=False` an encoder.

    The defaults are GPT-2's choices at a size that trains on a laptop.
    """

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
    """Width of the feed-forward layer, or of each expert. By default 4 x embed_dim."""
    causal: bool = True
    """Whether a token sees only itself and earlier ones."""
    activation: Activation = "gelu_tanh"
    """Feed-forward non-linearity; swiglu, geglu, geglu_tanh and reglu are gated."""
    experts: ExpertsConfig | None = None
    """A mixture of experts in place of the feed-forward layer. By default one plain layer."""
    norm: Literal["layer_norm", "rms_norm"] = "layer_norm"
    """Normalization, always computed in float32."""
    norm_scale: bool = True
    """Whether norms multiply by a learned scale."""
    norm_unit_offset: bool = False
    """Whether the learned scale is stored less 1, as Gemma does."""
    norm_bias: bool = True
    """Whether layer_norm adds a bias; rms_norm never does."""
    norm_epsilon: float = 1e-5
    """Added to the variance."""
    norm_placement: Literal["pre", "post", "sandwich", "output"] = "pre"
    """Before each sublayer; after each residual sum; before and after each sublayer; or only after, before the sum."""
    final_norm: bool | None = None
    """Whether the last hidden state is normalized once more. By default unless norm_placement is "post": then it already is."""
    first_attention_norm: bool = True
    """Whether the first block's attention has a norm before it; without, it reads the embedding as it is."""
    embed_norm: bool = False
    """Whether the sum of embeddings is normalized."""
    embed_scale: float | None = None
    """Factor on token embeddings. By default 1."""
    parallel_block: bool = False
    """Attention and feed-forward read the same input, and both are added at once."""
    parallel_norms: Literal["shared", "separate"] = "shared"
    """Whether the two halves of a parallel block read one norm of that input, or each its own."""
    position: Position = "learned"
    """How a position is told. relative: a learned bias a head for each bucket of distances (T5); relative_key(_query): a
    learned vector for each distance that meets queries (and keys) (arXiv:1803.02155, arXiv:2009.13658)."""
    position_offset: int = 0
    """Position that the first token has in the table or the sinusoids."""
    position_skips_padding: bool = False
    """Whether positions that are not given count tokens only, as in RoBERTa, and not the padding before them."""
    sinusoids: Literal["interleaved", "concatenated", "tensor2tensor"] = "interleaved"
    """Layout of sinusoidal positions: sine and cosine in turn; all sines, then all cosines; and that with wavelengths from
    2 pi to 10,000 x 2 pi, both ends included."""
    relative_buckets: int = 32
    """Buckets of relative positions."""
    relative_max_distance: int = 128
    """Distance from which all share the last bucket."""
    rope_theta: float = 10_000.0
    """Base of the rotary wavelengths."""
    local_rope_theta: float | None = None
    """Base in layers with a window, which are never scaled. By default rope_theta, scaled as the others."""
    rope_scaling: RopeScaling | None = None
    """Change of the rotary frequencies for longer contexts."""
    rotary_dim: int | None = None
    """Leading dimensions of a head that rotary positions turn. By default all."""
    bias: bool = True
    """Whether attention and feed-forward projections add a bias."""
    qkv_bias: bool | None = None
    """Whether queries, keys and values do. By default `bias`."""
    attention_output_bias: bool | None = None
    """Whether attention's output projection does. By default `bias`."""
    window: int | None = None
    """Sliding-window attention: a query sees this many latest positions, itself included; in an encoder those nearer than
    this on both sides. By default all."""
    full_attention_layers: tuple[int, ...] = ()
    """Layers, counted from 0, that see everything in spite of `window`."""
    attention_scale: float | None = None
    """Factor on products of queries and keys. By default 1/sqrt(head_dim)."""
    qk_norm: Literal["head", "width"] | None = None
    """RMS-normalize queries and keys, each head or all heads together, with a learned scale, before positions are applied."""
    qkv_clip: float | None = None
    """Clip queries, keys and values to [-c, c]."""
    attention_softcap: float | None = None
    """Squash attention logits to c tanh(x / c)."""
    logit_softcap: float | None = None
    """Squash output logits to c tanh(x / c)."""
    tie_embeddings: bool = True
    """Use the token embedding as the output matrix, too."""
    unembed_scale: float | None = None
    """Factor on the last hidden state before the output matrix. By default 1."""
    token_types: int | None = None
    """Kinds of token, such as first and second text of a pair, each with an embedding. By default none."""
    pruned_heads: tuple[tuple[int, int], ...] = ()
    """(layer, head) of each attention head that `prune_heads` removed, numbered as before. Parameters are then one tree a
    layer."""
    cross_attention: bool = False
    """Whether each block also attends to the hidden states of an encoder."""
    head: HeadConfig = HeadConfig()
    """What is read from the last hidden state."""
    dropout: float = 0.0
    """Probability of dropping a value after the embedding, in attention weights and after each sublayer."""
    init_std: float = 0.02
    """Standard deviation of initial weights; projections into the residual stream get 1/sqrt(2 num_layers) of it."""
    param_dtype: DType = "float32"
    """Type in which parameters are kept."""
    compute_dtype: DType = "float32"
    """Type of activations; softmax, norms and losses accumulate in float32 anyway."""
    matmul_dtype: MatmulDType | None = None
    """Multiply by the kernels of attention and feed-forward in 8 bits while training, by qwix: see `jaxllm.models.quantized`.
    By default in compute_dtype."""
    layer_loop: Literal["scan", "unroll"] | None = None
    """Compile one block and loop over it, or every block. By default by device and depth."""
    norm_barrier: bool | None = None
    """Compute each norm's input and output once and keep them, where XLA would compute them again for each reader. By
    default on CPU, where that saves a tenth of a small model's step."""
    attention_kernel: AttentionKernel | None = None
    """Who computes attention: XLA, cuDNN on NVIDIA GPUs, Pallas splash attention on TPUs. By default by device; what the others
    cannot do is always XLA's."""
    microbatches: int | None = None
    """Parts of a batch that follow each other through a mesh's stages: more leave them idle for less. By default twice the
    stages."""
    remat: Remat = "none"
    """What the backward pass recomputes of a block, to keep less of it in memory. none: nothing. minimal: what is cheap (norms,
    rotations, activations, softmax); kept is every matrix product, of experts and of queries with keys ([B, N, T, S] a layer,
    unless a kernel computes attention), and what a kernel hands out. dots: attention, experts and what is cheap; kept are the
    products of attention's and feed-forward's projections. block: all; kept is the block's input. offload: all; the blocks'
    inputs wait in the host's memory."""

    def __post_init__(self) -> None:
        self._check_sizes()
        self._check_combinations()
        self._check_pruned_heads()

    def _check_sizes(self) -> None:
        for field in ("context_len", "num_layers", "embed_dim", "num_heads"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1: got {getattr(self, field)}")
        for field in ("vocab_size", "num_kv_heads", "head_dim", "ffw_dim", "window", "rotary_dim", "token_types"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ValueError(f"{field} must be at least 1: got {value}")
        for field in ("attention_softcap", "logit_softcap", "qkv_clip"):
            value = getattr(self, field)
            if value is not None and value <= 0:
                raise ValueError(f"{field} must be positive: got {value}; leave it out to switch it off")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1): got {self.dropout}")

    def _check_combinations(self) -> None:
        if self.head_dim is None and self.embed_dim % self.num_heads:
            raise ValueError(
                f"num_heads must divide embed_dim: got embed_dim={self.embed_dim}, num_heads={self.num_heads}; "
                "change one of them, or set head_dim"
            )
        if self.num_heads % self.kv_heads:
            raise ValueError(
                f"num_kv_heads must divide num_heads: got num_heads={self.num_heads}, num_kv_heads={self.kv_heads}"
            )
        if self.position == "rotary" and self.rotary_width % 2:
            field = "head_dim" if self.rotary_dim is None else "rotary_dim"
            raise ValueError(f"rotary positions need an even {field}: got {self.rotary_width}")
        if self.rotary_width > self.head_width:
            raise ValueError(f"rotary_dim must be at most head_dim: got {self.rotary_dim} and {self.head_width}")
        if self.position == "relative":
            exact = self.relative_buckets // (2 if self.causal else 4)
            if exact < 1 or self.relative_max_distance <= exact:
                raise ValueError(
                    f"relative positions need at least {2 if self.causal else 4} relative_buckets and a relative_max_distance "
                    f"over {exact}: got {self.relative_buckets} and {self.relative_max_distance}"
                )
        if not self.first_attention_norm and self.norm_placement not in ("pre", "sandwich"):
            raise ValueError(
                f"first_attention_norm=False needs norm_placement='pre' or 'sandwich': got {self.norm_placement!r}, "
                "which has no norm there"
            )
        if self.parallel_block and self.norm_placement != "pre":
            raise ValueError(f"parallel_block needs norm_placement='pre': got {self.norm_placement!r}")
        if self.parallel_block and self.cross_attention:
            raise ValueError("cross_attention needs parallel_block=False")
        if self.full_attention_layers and self.window is None:
            raise ValueError(f"full_attention_layers needs a window: got {self.full_attention_layers} and window=None")
        if any(not 0 <= layer < self.num_layers for layer in self.full_attention_layers):
            raise ValueError(
                f"full_attention_layers must be in 0..{self.num_layers - 1}: got {tuple(self.full_attention_layers)}"
            )

    def _check_pruned_heads(self) -> None:
        group = self.num_heads // self.kv_heads
        for layer, head in self.pruned_heads:
            if not (0 <= layer < self.num_layers and 0 <= head < self.num_heads):
                raise ValueError(
                    f"pruned_heads must be (layer, head) in 0..{self.num_layers - 1} and 0..{self.num_heads - 1}: "
                    f"got ({layer}, {head})"
                )
            mates = range(head // group * group, head // group * group + group)
            missing = [mate for mate in mates if (layer, mate) not in self.pruned_heads]
            if missing:
                raise ValueError(
                    f"pruned_heads must be whole groups of the {group} query heads that share a key/value head: "
                    f"({layer}, {head}) also needs head {missing[0]}"
                )
            if not self.heads_kept(layer):
                raise ValueError(f"pruned_heads must leave a head in each layer: got all {self.num_heads} of layer {layer}")
        if len(set(self.pruned_heads)) < len(self.pruned_heads):
            raise ValueError(f"pruned_heads must name each head once: got {self.pruned_heads}")
        if self.pruned_heads and self.qk_norm == "width":
            raise ValueError(
                "pruned_heads needs qk_norm=None or 'head': qk_norm='width' normalizes all heads together, so the others "
                "would change"
            )

    def heads_kept(self, layer: int) -> tuple[int, ...]:
        """The attention heads that a layer still has, by their numbers before pruning."""
        return tuple(head for head in range(self.num_heads) if (layer, head) not in self.pruned_heads)

    @property
    def kv_heads(self) -> int:
        """K: key/value heads."""
        return self.num_kv_heads or self.num_heads

    @property
    def head_width(self) -> int:
        """H: width of a head."""
        return self.head_dim or self.embed_dim // self.num_heads

    @property
    def rotary_width(self) -> int:
        """Dimensions of a head that rotary positions turn."""
        return self.rotary_dim or self.head_width

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

    @property
    def has_final_norm(self) -> bool:
        """Whether the last hidden state is normalized once more."""
        return self.norm_placement != "post" if self.final_norm is None else self.final_norm

    def axis_sizes(self, name: str = "model") -> tuple[AxisSize, ...]:
        """Of each dimension that a mesh may split; `name` is this config's in a recipe."""
        sizes = [
            AxisSize("embed", f"{name}.embed_dim", self.embed_dim),
            AxisSize("heads", f"{name}.num_heads", self.num_heads),
            AxisSize("kv_heads", f"{name}.num_kv_heads", self.kv_heads),
            AxisSize("ffw", f"{name}.ffw_dim", self.ffw_width),
            AxisSize("layers", f"{name}.num_layers", self.num_layers),
        ]
        if self.experts is not None:
            sizes.append(AxisSize("experts", f"{name}.experts.num_experts", self.experts.num_experts))
            if self.experts.shared_ffw_dim is not None:
                sizes.append(AxisSize("ffw", f"{name}.experts.shared_ffw_dim", self.experts.shared_ffw_dim))
        if self.vocab_size is not None and self.head.kind == "vocabulary":
            sizes.append(AxisSize("vocab", f"{name}.vocab_size", self.vocab_size))
        return tuple(sizes)
