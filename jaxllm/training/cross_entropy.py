"""Cross-entropy of logits, as a weighted sum and its weight."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    z_loss: float = 0.0
    """Weight of log² Z, which keeps the softmax normalizer near 1 (arXiv:2204.02311, section 5)."""
    label_smoothing: float = 0.0
    """Share of the target's probability that is spread over all classes (arXiv:1512.00567, section 7). The losses that are
    reported are without it."""
    chunk: int | None = None
    """Time steps whose logits exist at once; their gradients are made in the same pass. By default all."""
    neftune: float = 0.0
    """Train on embeddings with uniform noise of up to this over √(tokens · width) (NEFTune, arXiv:2310.05914); 5 is usual."""

    def __post_init__(self) -> None:
        if self.z_loss < 0:
            raise ValueError(f"loss.z_loss must be at least 0: got {self.z_loss}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"loss.label_smoothing must be in [0, 1): got {self.label_smoothing}")
        if self.neftune < 0:
            raise ValueError(f"loss.neftune must be at least 0: got {self.neftune}")
        if self.chunk is not None and self.chunk < 1:
            raise ValueError(f"loss.chunk must be at least 1: got {self.chunk}; leave it out for all time steps at once")


class LossSums(NamedTuple):
    """Sums over the targets of a batch; divided once, over the global batch, by `weight`."""

    cross_entropy: Float[Array, ""]
    """Weighted sum of -log p(target), in nats."""
    z: Float[Array, ""]
    """Weighted sum of log² Z."""
    weight: Float[Array, ""]
    """Sum of the weights."""
    correct: Float[Array, ""]
    """Weighted count of targets that are the most likely class."""
    total: Float[Array, ""]
    """What is minimized: the cross-entropy, with label smoothing, z_loss · z, and what routers are asked for. The other sums
    have no gradient where the logits were computed in pieces."""

    @classmethod
    def zeros(cls) -> "LossSums":
        return cls(*(jnp.zeros((), jnp.float32) for _ in cls._fields))


def cross_entropy(
    logits: Float[Array, "B T V"], targets: Int[Array, "B T"], weights: Float[Array, "B T"], config: LossConfig
) -> LossSums:
    """Σ w (log Z - logit[target]), Σ w log² Z, Σ w and Σ w [target has the largest logit], with log Z = log Σ exp(logits), in
    float32. Label smoothing ε adds ε Σ w (logit[target] - mean logit) to the total: what the spread target costs more."""
    logits = logits.astype(jnp.float32)
    log_z = jax.nn.logsumexp(logits, axis=-1)
    # A comparison instead of a gather: it stays local where the vocabulary is split, and its gradient is no scatter.
    hit = targets[:, :, None] == jnp.arange(logits.shape[-1], dtype=targets.dtype)[None, None, :]
    target_logit = jnp.sum(jnp.where(hit, logits, 0.0), axis=-1)
    best = target_logit >= jax.lax.stop_gradient(jnp.max(logits, axis=-1))
    total = loss = jnp.sum(weights * (log_z - target_logit))
    z = jnp.sum(weights * jnp.square(log_z))
    if config.z_loss:
        total = total + config.z_loss * z
    if config.label_smoothing:
        total = total + config.label_smoothing * jnp.sum(weights * (target_logit - jnp.mean(logits, axis=-1)))
    return LossSums(loss, z, jnp.sum(weights), jnp.sum(weights * best), total)
