"""What a model gives the target of each token, with the logits of a few time steps at once."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from jaxllm.models import TransformerConfig, unembed
from jaxllm.training import LossConfig, LossSums


class TargetProbs(NamedTuple):
    log_probs: Float[Array, "B T"]
    """log p(target), in nats."""
    best: Bool[Array, "B T"]
    """Whether the target is the most likely token."""

    def sums(self, weights: Float[Array, "B T"]) -> LossSums:
        """The cross-entropy of some targets."""
        loss = -jnp.sum(weights * self.log_probs)
        return LossSums(loss, jnp.zeros_like(loss), jnp.sum(weights), jnp.sum(weights * self.best), loss)


def target_probs(
    stack: TransformerConfig,
    parts: Any,
    hidden: Float[Array, "B T D"],
    targets: Int[Array, "B T"],
    chunk: int | None = None,
) -> TargetProbs:
    """log softmax(logits)[target], in float32.

    Args:
      stack: what made the hidden states.
      parts: what they are unembedded with, from `unembed_parts`.
      chunk: time steps whose logits exist at once; those are computed again for the gradient. None means all.
    """

    def piece(hidden: Array, targets: Array) -> TargetProbs:
        logits = unembed(stack, parts, hidden)
        # As in `cross_entropy`: a comparison stays local where the vocabulary is split.
        hit = targets[:, :, None] == jnp.arange(logits.shape[-1], dtype=targets.dtype)[None, None, :]
        logit = jnp.sum(jnp.where(hit, logits, 0.0), axis=-1)
        best = logit >= jax.lax.stop_gradient(jnp.max(logits, axis=-1))
        return TargetProbs(logit - jax.nn.logsumexp(logits, axis=-1), best)

    time = hidden.shape[1]
    chunk = time if chunk is None else math.gcd(chunk, time)
    if chunk == time:
        return piece(hidden, targets)

    def apart(x: Array) -> Array:
        return jnp.moveaxis(x.reshape(x.shape[0], time // chunk, chunk, *x.shape[2:]), 1, 0)

    found = jax.lax.map(jax.checkpoint(lambda each: piece(*each)), (apart(hidden), apart(targets)))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(x.shape[1], time), found)


def chunk_for(config: LossConfig, time: int) -> int | None:
    """`loss.chunk`, or the largest part of it that divides the length of a row."""
    return None if config.chunk is None else math.gcd(config.chunk, time)
