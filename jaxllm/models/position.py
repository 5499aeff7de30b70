"""How a model is told where a token stands."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Float32, Int

from jaxllm.models.config import TransformerConfig
from jaxllm.models.options import RopeScaling

# B batch, T query time, S key time, D residual width, N query heads, H head width, P pairs of dimensions that are turned


class Rotation(NamedTuple):
    """By how much each pair of dimensions is turned at each position."""

    cos: Float[Array, "B T P"]
    sin: Float[Array, "B T P"]


def rope_frequencies(width: int, theta: float, scaling: RopeScaling | None = None) -> tuple[Float32[np.ndarray, " P"], float]:
    """Radians a position for each pair, theta^(-2i/width), changed as `scaling` says; and the factor on sine and cosine."""
    # In float32 step by step, as the models were trained: a context of 100,000 tokens shows the last bit.
    exponents = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    frequencies = (np.float32(1.0) / np.power(np.float32(theta), exponents, dtype=np.float32)).astype(np.float32)
    if scaling is None:
        return frequencies, 1.0
    slowed = frequencies / np.float32(scaling.factor)
    if scaling.kind == "linear":
        return slowed, 1.0
    context = scaling.original_context_len
    assert context is not None
    if scaling.kind == "llama3":
        low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
        turns = context * frequencies / np.float32(2 * math.pi)
        keep = np.clip((turns - low) / (high - low), 0, 1)
        return (keep * frequencies + (1 - keep) * slowed).astype(np.float32), 1.0

    def pair_that_turns(times: float) -> float:
        return width * math.log(context / (times * 2 * math.pi)) / (2 * math.log(theta))

    first = max(math.floor(pair_that_turns(scaling.beta_fast)), 0)
    last = min(math.ceil(pair_that_turns(scaling.beta_slow)), width - 1)
    keep = 1 - np.clip((np.arange(width // 2) - first) / max(last - first, 0.001), 0, 1)
    factor = scaling.attention_factor
    if factor is None:
        factor = 0.1 * math.log(scaling.factor) + 1.0
    return (keep * frequencies + (1 - keep) * slowed).astype(np.float32), factor


def rotations(config: TransformerConfig, positions: Int[Array, "B T"]) -> tuple[Rotation, ...]:
    """The rotation of layers that see everything, and where it differs that of layers with a window."""
    found = [_rotation(positions, *rope_frequencies(config.rotary_width, config.rope_theta, config.rope_scaling))]
    if config.local_rope_theta is not None:
        found.append(_rotation(positions, *rope_frequencies(config.rotary_width, config.local_rope_theta)))
    return tuple(found)


def _rotation(positions: Int[Array, "B T"], frequencies: np.ndarray, factor: float) -> Rotation:
    angles = positions[:, :, None].astype(jnp.float32) * jnp.asarray(frequencies)[None, None, :]
    return Rotation(jnp.cos(angles) * factor, jnp.sin(angles) * factor)


def rope(x: Float[Array, "B T N H"], rotation: Rotation) -> Float[Array, "B T N H"]:
    """Rotary embedding (arXiv:2104.09864): the pairs (x_i, x_{i+P}), i < P, turned; dimensions from 2P on stay."""
    cos, sin = rotation.cos[:, :, None], rotation.sin[:, :, None]
    pairs = cos.shape[-1]
    x1, x2 = x[..., :pairs].astype(jnp.float32), x[..., pairs : 2 * pairs].astype(jnp.float32)
    turned = jnp.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin], axis=-1).astype(x.dtype)
    return turned if 2 * pairs == x.shape[-1] else jnp.concatenate([turned, x[..., 2 * pairs :]], axis=-1)


def sinusoids(positions: Int[Array, "B T"], dim: int, layout: str = "interleaved") -> Float[Array, "B T D"]:
    """sin and cos of position · 10000^(-2i/D) (arXiv:1706.03762, section 3.5), in the layout that the config names."""
    pairs = -(-dim // 2)
    steps = max(dim // 2 - 1, 1) if layout == "tensor2tensor" else dim / 2
    frequencies = 10_000.0 ** (-jnp.arange(pairs, dtype=jnp.float32) / steps)
    angles = positions[:, :, None].astype(jnp.float32) * frequencies[None, None, :]
    sin, cos = jnp.sin(angles), jnp.cos(angles)
    if layout == "interleaved":
        return jnp.stack([sin, cos], axis=-1).reshape(*positions.shape, -1)[:, :, :dim]
    return jnp.concatenate([sin, cos], axis=-1)[:, :, :dim]


def alibi_slopes(num_heads: int) -> np.ndarray:
    """One slope a head (arXiv:2108.12409): 2^(-8n/N), and for N not a power of two every other one of the next."""
    whole = 2 ** math.floor(math.log2(num_heads))
    slopes = 2.0 ** (-8.0 / whole * np.arange(1, whole + 1))
    extra = 2.0 ** (-4.0 / whole * np.arange(1, 2 * (num_heads - whole) + 1, 2))
    return np.concatenate([slopes, extra]).astype(np.float32)


def alibi_bias(query_positions: Int[Array, "B T"], key_positions: Int[Array, "B S"], num_heads: int) -> Float[Array, "B N T S"]:
    """-slope_n · distance, to be added to the attention logits."""
    distance = query_positions[:, None, :, None] - key_positions[:, None, None, :]
    return -jnp.asarray(alibi_slopes(num_heads))[None, :, None, None] * jnp.abs(distance).astype(jnp.float32)


def relative_bucket(distance: Int[Array, "*S"], num_buckets: int, max_distance: int, causal: bool) -> Int[Array, "*S"]:
    """The bucket of key position - query position: one each for small distances, then logarithmically wider ones
    (arXiv:1910.10683, section 2.1). A causal model has none for later keys, others give those the upper half.
    """
    if causal:
        first, steps = jnp.zeros_like(distance), jnp.maximum(-distance, 0)
    else:
        num_buckets //= 2
        first, steps = jnp.where(distance > 0, num_buckets, 0), jnp.abs(distance)
    exact = num_buckets // 2
    ratio = jnp.log(jnp.maximum(steps, 1).astype(jnp.float32) / exact) / math.log(max_distance / exact)
    wide = exact + (ratio * (num_buckets - exact)).astype(distance.dtype)
    return first + jnp.where(steps < exact, steps, jnp.minimum(wide, num_buckets - 1))
