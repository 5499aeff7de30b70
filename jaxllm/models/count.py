"""Parameters and floating-point operations, counted rather than measured."""

import math

import jax

from jaxllm.models.config import TransformerConfig
from jaxllm.models.layers import GATED
from jaxllm.models.transformer import Transformer, abstract_params


def count_params(config: TransformerConfig) -> int:
    """Parameters, tied ones once."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract_params(Transformer(config))[0]))


def train_flops_per_token(config: TransformerConfig, seq_len: int) -> float:
    """Floating-point operations of forward and backward a token: 6 for each matrix parameter it meets, plus
    12 L N H T of attention (arXiv:2204.02311, appendix B). Recomputation by remat does not count.
    """
    D, F, H = config.embed_dim, config.ffw_width, config.head_width
    projections = D * H * (2 * config.num_heads + 2 * config.kv_heads)
    gates = 3 if config.activation in GATED else 2
    matrices = config.num_layers * (projections + gates * D * F) + D * config.vocabulary
    seen = min(seq_len, config.window or seq_len)
    return 6.0 * matrices + 12.0 * config.num_layers * config.num_heads * H * seen
