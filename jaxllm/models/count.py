"""Parameters and floating-point operations, counted rather than measured."""

import math

import jax

from jaxllm.models.config import TransformerConfig
from jaxllm.models.encoder_decoder import EncoderDecoderConfig
from jaxllm.models.init import ModelConfig, abstract_params, make_model
from jaxllm.models.layers import GATED
from jaxllm.models.vision import VisionConfig


def count_params(config: ModelConfig) -> int:
    """Parameters, tied ones once."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract_params(make_model(config))[0]))


def train_flops_per_token(config: ModelConfig, seq_len: int) -> float:
    """Floating-point operations of forward and backward a token: 6 for each matrix parameter it meets, plus
    12 N H T of attention a layer (arXiv:2204.02311, appendix B). Recomputation by remat does not count.

    Of a model with encoder and decoder: of a token of each together, the texts being of one length. Of one over images: of
    a whole image, `seq_len` being its tokens.
    """
    if isinstance(config, EncoderDecoderConfig):
        return _stack_flops(config.encoder, seq_len) + _stack_flops(config.decoder, seq_len) + _unembed_flops(config.decoder)
    if isinstance(config, VisionConfig):
        patches = 6.0 * config.encoder.embed_dim * config.patch_size**2 * config.channels * config.num_patches
        return config.num_tokens * _stack_flops(config.encoder, config.num_tokens) + patches
    return _stack_flops(config, seq_len) + _unembed_flops(config)


def _stack_flops(config: TransformerConfig, seq_len: int) -> float:
    D, H = config.embed_dim, config.head_width
    projections = D * H * (2 * config.num_heads + 2 * config.kv_heads) * (1 + config.cross_attention)
    gates = 3 if config.activation in GATED else 2
    widths, experts = config.ffw_width, config.experts
    if experts is not None:
        widths = experts.top_k * config.ffw_width + (experts.shared_ffw_dim or 0)
        projections += D * experts.num_experts
    windowed = 0 if config.window is None else config.num_layers - len(config.full_attention_layers)
    seen = windowed * min(seq_len, config.window or seq_len) + (config.num_layers - windowed) * seq_len
    seen += config.num_layers * seq_len * config.cross_attention
    return 6.0 * config.num_layers * (projections + gates * D * widths) + 12.0 * config.num_heads * H * seen


def _unembed_flops(config: TransformerConfig) -> float:
    return 6.0 * config.embed_dim * config.vocabulary if config.head.kind == "vocabulary" else 0.0
