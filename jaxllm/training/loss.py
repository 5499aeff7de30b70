"""Cross-entropy of next tokens, as a weighted sum and its weight."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from jaxllm.models import Output, Transformer, unembed_hidden

Batch = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    z_loss: float = 0.0
    """Weight of log² Z, which keeps the softmax normalizer near 1 (arXiv:2204.02311, section 5)."""
    chunk: int | None = None
    """Time steps whose logits exist at once; the others are recomputed in the backward pass. By default all."""

    def __post_init__(self) -> None:
        if self.z_loss < 0:
            raise ValueError(f"loss.z_loss must be at least 0: got {self.z_loss}")
        if self.chunk is not None and self.chunk < 1:
            raise ValueError(f"loss.chunk must be at least 1: got {self.chunk}; leave it out for all time steps at once")


class LossSums(NamedTuple):
    """Sums over the tokens of a batch; divided once, over the global batch, by `weight`."""

    cross_entropy: Float[Array, ""]
    """Weighted sum of -log p(target), in nats."""
    z: Float[Array, ""]
    """Weighted sum of log² Z."""
    weight: Float[Array, ""]
    """Sum of the weights."""


def cross_entropy(logits: Float[Array, "B T V"], targets: Int[Array, "B T"], weights: Float[Array, "B T"]) -> LossSums:
    """Σ w (log Z - logit[target]), Σ w log² Z and Σ w, with log Z = log Σ exp(logits), in float32."""
    logits = logits.astype(jnp.float32)
    log_z = jax.nn.logsumexp(logits, axis=-1)
    # A comparison instead of a gather: it stays local where the vocabulary is split, and its gradient is no scatter.
    hit = targets[:, :, None] == jnp.arange(logits.shape[-1], dtype=targets.dtype)[None, None, :]
    target_logit = jnp.sum(jnp.where(hit, logits, 0.0), axis=-1)
    return LossSums(jnp.sum(weights * (log_z - target_logit)), jnp.sum(weights * jnp.square(log_z)), jnp.sum(weights))


def make_loss(model: Transformer, config: LossConfig) -> Callable[[Any, Batch, Array | None], LossSums]:
    """`loss(params, batch, dropout_key) -> LossSums` for next-token prediction."""

    def loss(params: Any, batch: Batch, dropout_key: Array | None) -> LossSums:
        output: Output = model.apply(  # type: ignore[assignment]
            {"params": params},
            batch["tokens"],
            positions=batch["positions"],
            segment_ids=batch["segment_ids"],
            dropout_key=dropout_key,
            unembed=False,
        )
        return _in_chunks(model, config.chunk, params, output.hidden, batch["targets"], batch["loss_weights"])

    return loss


def _in_chunks(model: Transformer, chunk: int | None, params: Any, hidden: Array, targets: Array, weights: Array) -> LossSums:
    def piece(hidden: Array, targets: Array, weights: Array) -> LossSums:
        return cross_entropy(unembed_hidden(model.config, params, hidden), targets, weights)

    time = hidden.shape[1]
    if chunk is None or chunk >= time:
        return piece(hidden, targets, weights)
    if time % chunk:
        raise ValueError(f"loss.chunk must divide the sequence length: got chunk={chunk} and {time} time steps")
    recomputed = jax.checkpoint(piece)

    def add(sums: LossSums, start: Array) -> tuple[LossSums, None]:
        here = [jax.lax.dynamic_slice_in_dim(x, start, chunk, axis=1) for x in (hidden, targets, weights)]
        return jax.tree.map(jnp.add, sums, recomputed(*here)), None

    zeros = LossSums(*(jnp.zeros((), jnp.float32) for _ in range(3)))
    return jax.lax.scan(add, zeros, jnp.arange(0, time, chunk))[0]
