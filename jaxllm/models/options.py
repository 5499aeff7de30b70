"""The parts of a model's config that come as a group: RoPE scaling, experts, output head."""

import math
from dataclasses import dataclass
from typing import Literal

Activation = Literal["gelu", "gelu_tanh", "relu", "silu", "swiglu", "geglu", "geglu_tanh", "reglu"]


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How rotary frequencies are changed for contexts longer than those trained on."""

    kind: Literal["linear", "llama3", "yarn"]
    """linear: positions divided by `factor` (arXiv:2306.15595); llama3: long wavelengths only, with a ramp
    (arXiv:2407.21783); yarn: by how often a dimension turns over the original context (arXiv:2309.00071)."""
    factor: float
    """How many times longer the context is."""
    original_context_len: int | None = None
    """Context before the change; for llama3 and yarn."""
    low_frequency_factor: float = 1.0
    """llama3: wavelengths above original_context_len over this are divided by `factor`."""
    high_frequency_factor: float = 4.0
    """llama3: wavelengths below original_context_len over this stay."""
    beta_fast: float = 32.0
    """yarn: dimensions that turn more often than this over the original context stay."""
    beta_slow: float = 1.0
    """yarn: dimensions that turn less often than this are divided by `factor`."""
    attention_factor: float | None = None
    """yarn: factor on sine and cosine. By default 0.1 ln(factor) + 1."""

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise ValueError(f"rope_scaling.factor must be at least 1: got {self.factor}")
        if self.kind != "linear" and self.original_context_len is None:
            raise ValueError(f"rope_scaling.original_context_len must be set for kind={self.kind!r}")
        if self.kind == "llama3" and self.low_frequency_factor >= self.high_frequency_factor:
            raise ValueError(
                "rope_scaling.low_frequency_factor must be under high_frequency_factor: got "
                f"{self.low_frequency_factor} and {self.high_frequency_factor}"
            )


@dataclass(frozen=True, kw_only=True)
class ExpertsConfig:
    """A mixture of experts in place of each feed-forward layer: each token goes to its `top_k` best experts."""

    num_experts: int
    """Feed-forward layers to choose from."""
    top_k: int = 2
    """Experts a token is sent to."""
    normalize: bool = True
    """Whether a token's `top_k` weights are scaled to add up to 1."""
    shared_ffw_dim: int | None = None
    """Width of one more feed-forward layer that every token passes. By default none."""
    load_balance: float = 0.01
    """Weight in the loss of num_experts · Σ (share of tokens · mean probability) (arXiv:2101.03961); of the tokens that are
    computed at once: of a batch whose gradients are accumulated, of each part."""
    router_z_loss: float = 0.0
    """Weight in the loss of the squared log-sum-exp of router logits (arXiv:2202.08906)."""
    dispatch: Literal["sorted", "dense"] = "sorted"
    """sorted: tokens grouped by expert, each expert sees its own, on a mesh on the device that holds it; dense: every expert
    sees every token, the weights decide."""
    capacity_factor: float | None = None
    """Room for tokens that one device sends to another's experts, as a multiple of what it sends when all experts are chosen
    equally often; tokens beyond it skip the expert. By default room for all: none is ever dropped."""
    exchange: Literal["padded", "ragged"] | None = None
    """How tokens travel to their experts: in parcels of one size, or each as large as it is. By default by device: CPUs have
    only the first."""

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= self.num_experts:
            raise ValueError(f"experts.top_k must be in 1..num_experts: got top_k={self.top_k}, num_experts={self.num_experts}")
        if self.capacity_factor is not None and self.capacity_factor <= 0:
            raise ValueError(
                f"experts.capacity_factor must be positive: got {self.capacity_factor}; leave it out to drop nothing"
            )

    def room(self, rows: int, parts: int) -> int:
        """Rows that one of `parts` devices may send to another, of `rows` in all."""
        if self.capacity_factor is None:
            return rows
        return min(rows, math.ceil(self.capacity_factor * rows / parts))


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """What is read from the last hidden state."""

    kind: Literal["vocabulary", "sequence", "tokens", "span", "none"] = "vocabulary"
    """vocabulary: logits of tokens; sequence: labels of the whole text; tokens: labels of each token; span: start and end
    logits of an answer; none: hidden states only."""
    num_labels: int | None = None
    """Labels of a sequence or tokens head. By default as many as the data has."""
    label_names: tuple[str, ...] | None = None
    """What the labels are called, in order; for people, the network does not read it. By default they have numbers."""
    several: bool = False
    """Whether a text may have several labels, each decided by itself."""
    bias: bool = False
    """Whether vocabulary logits have a bias."""
    transform: bool = False
    """Dense, activation and norm before the vocabulary, as BERT's masked-LM head."""
    transform_activation: Activation = "gelu"
    """Its activation."""
    transform_bias: bool = True
    """Whether its dense layer adds a bias."""
    pooler: bool = False
    """Dense and tanh on the hidden state that is read; a sequence head reads its result, and it is in `Output.pooled`."""
    read: Literal["first", "last", "mean"] = "first"
    """Which hidden state of a text a sequence head and the pooler read: that of its first token, of its last, as a causal model
    must, or the mean of all."""

    def __post_init__(self) -> None:
        if self.kind in ("sequence", "tokens") and self.num_labels is not None and self.num_labels < 1:
            raise ValueError(f"head.num_labels must be at least 1 for head.kind={self.kind!r}: got {self.num_labels}")
        if self.label_names is not None and len(self.label_names) != self.num_labels:
            raise ValueError(f"head.label_names must be num_labels names: got {len(self.label_names)} for {self.num_labels}")

    @property
    def outputs(self) -> int:
        """Values a sequence, tokens or span head gives."""
        if self.kind in ("sequence", "tokens") and self.num_labels is None:
            raise ValueError(
                f"head.num_labels is not set for head.kind={self.kind!r}: give it, or let the recipe take it from the data"
            )
        return 2 if self.kind == "span" else self.num_labels or 0
