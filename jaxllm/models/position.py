"""How a model is told where a token stands."""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Int


def rope(x: Float[Array, "B T N H"], positions: Int[Array, "B T"], theta: float) -> Float[Array, "B T N H"]:
    """Rotary embedding (arXiv:2104.09864): pairs (x_i, x_{i+H/2}) turned by position · theta^(-2i/H)."""
    half = x.shape[-1] // 2
    frequencies = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions[:, :, None, None].astype(jnp.float32) * frequencies[None, None, None, :]
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    x1, x2 = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([x1 * cos - x2 * sin, x2 * cos + x1 * sin], axis=-1).astype(x.dtype)


def sinusoids(positions: Int[Array, "B T"], dim: int) -> Float[Array, "B T D"]:
    """sin and cos of position · 10000^(-2i/D), interleaved (arXiv:1706.03762, section 3.5)."""
    frequencies = 10_000.0 ** (-jnp.arange(0, dim, 2, dtype=jnp.float32) / dim)
    angles = positions[:, :, None].astype(jnp.float32) * frequencies[None, None, :]
    pairs = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return pairs.reshape(*positions.shape, -1)[:, :, :dim]


def alibi_slopes(num_heads: int) -> np.ndarray:
    """One slope a head (arXiv:2108.12409): 2^(-8n/N), and for N not a power of two every other one of the next."""
    whole = 2 ** math.floor(math.log2(num_heads))
    slopes = 2.0 ** (-8.0 / whole * np.arange(1, whole + 1))
    extra = 2.0 ** (-4.0 / whole * np.arange(1, 2 * (num_heads - whole) + 1, 2))
    return np.concatenate([slopes, extra]).astype(np.float32)
