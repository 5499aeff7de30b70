"""Parameters and floating-point operations, counted rather than measured."""

import math
from typing import Any

import jax

from jaxllm.models.config import TransformerConfig
from jaxllm.models.encoder_decoder import EncoderDecoderConfig
from jaxllm.models.init import ModelConfig, abstract_params, make_model
from jaxllm.models.layers import GATED
from jaxllm.models.vision import VisionConfig


def count_params(config: ModelConfig) -> int:
    """Parameters, tied ones once."""
    return num_params(abstract_params(make_model(config))[0])


def num_params(params: Any) -> int:
    """Parameters in a tree of arrays, or of their shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def train_flops_per_token(config: ModelConfig, seq_len: int) -> float:
    """Floating-point operations of forward and backward a token: 6 for each matrix parameter it meets, plus
    12 N H T of attention a layer (arXiv:2204.02311, appendix B). Recomputation by remat does not count.

    Of a model with encoder and decoder: of a token of each together, the texts being of one length. Of one over images: of
    a whole image, `seq_len` being its tokens.
    """
    if isinstance(config, EncoderDecoderConfig):
        decoder = _stack_flops(config.decoder, seq_len, config.encoder.embed_dim) + _unembed_flops(config.decoder)
        return _stack_flops(config.encoder, seq_len) + decoder
    if isinstance(config, VisionConfig):
        patches = 6.0 * config.encoder.embed_dim * config.patch_size**2 * config.channels * config.num_patches
        classifier = 6.0 * config.encoder.embed_dim * (config.num_labels or 0)
        return config.num_tokens * _stack_flops(config.encoder, config.num_tokens) + patches + classifier
    return _stack_flops(config, seq_len) + _unembed_flops(config)


def _stack_flops(config: TransformerConfig, seq_len: int, memory_dim: int = 0) -> float:
    D, H, group = config.embed_dim, config.head_width, config.num_heads // config.kv_heads
    gates = 3 if config.activation in GATED else 2
    widths, experts, router = config.ffw_width, config.experts, 0
    if experts is not None:
        widths, router = experts.top_k * config.ffw_width + (experts.shared_ffw_dim or 0), D * experts.num_experts
    total = 0.0
    for layer in range(config.num_layers):
        heads, windowed = len(config.heads_kept(layer)), layer not in config.full_attention_layers
        seen = min(seq_len, config.window) if config.window is not None and windowed else seq_len
        matrices = D * H * (2 * heads + 2 * heads // group) + gates * D * widths + router
        attention = heads * seen
        if config.cross_attention:
            matrices += H * (2 * D * config.num_heads + 2 * memory_dim * config.kv_heads)
            attention += config.num_heads * seq_len
        total += 6.0 * matrices + 12.0 * H * attention
    return total


def _unembed_flops(config: TransformerConfig) -> float:
    D, head = config.embed_dim, config.head
    return 6.0 * D * (config.vocabulary + D * head.transform) if head.kind == "vocabulary" else 0.0
