"""Cross-entropy of tokens, as a weighted sum and its weight."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from jaxllm.models import Output, Transformer, TransformerConfig, router_losses, unembed_hidden

Batch = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    z_loss: float = 0.0
    """Weight of log² Z, which keeps the softmax normalizer near 1 (arXiv:2204.02311, section 5)."""
    label_smoothing: float = 0.0
    """Share of the target's probability that is spread over all classes (arXiv:1512.00567, section 7). The losses that are
    reported are without it."""
    chunk: int | None = None
    """Time steps whose logits exist at once; the others are recomputed in the backward pass. By default all."""

    def __post_init__(self) -> None:
        if self.z_loss < 0:
            raise ValueError(f"loss.z_loss must be at least 0: got {self.z_loss}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"loss.label_smoothing must be in [0, 1): got {self.label_smoothing}")
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
    aux: Float[Array, ""]
    """What else is minimized: label smoothing and the losses of routers, each times its own weight."""

    @classmethod
    def zeros(cls) -> "LossSums":
        return cls(*(jnp.zeros((), jnp.float32) for _ in cls._fields))


Loss = Callable[[Any, Batch, Array | None], LossSums]
"""`loss(params, batch, dropout_key) -> LossSums`."""
Unembed = Callable[[Any, Float[Array, "B T D"]], Float[Array, "B T V"]]
"""Logits of parameters and last hidden states."""


def cross_entropy(
    logits: Float[Array, "B T V"], targets: Int[Array, "B T"], weights: Float[Array, "B T"], label_smoothing: float = 0.0
) -> LossSums:
    """Σ w (log Z - logit[target]), Σ w log² Z, Σ w and Σ w [target has the largest logit], with log Z = log Σ exp(logits), in
    float32. With label smoothing ε, `aux` is ε Σ w (logit[target] - mean logit): what the spread target adds."""
    logits = logits.astype(jnp.float32)
    log_z = jax.nn.logsumexp(logits, axis=-1)
    # A comparison instead of a gather: it stays local where the vocabulary is split, and its gradient is no scatter.
    hit = targets[:, :, None] == jnp.arange(logits.shape[-1], dtype=targets.dtype)[None, None, :]
    target_logit = jnp.sum(jnp.where(hit, logits, 0.0), axis=-1)
    aux = jnp.zeros((), jnp.float32)
    if label_smoothing:
        aux = label_smoothing * jnp.sum(weights * (target_logit - jnp.mean(logits, axis=-1)))
    best = target_logit >= jax.lax.stop_gradient(jnp.max(logits, axis=-1))
    return LossSums(
        cross_entropy=jnp.sum(weights * (log_z - target_logit)),
        z=jnp.sum(weights * jnp.square(log_z)),
        weight=jnp.sum(weights),
        correct=jnp.sum(weights * best),
        aux=aux,
    )


def token_loss(
    unembed: Unembed,
    config: LossConfig,
    params: Any,
    hidden: Float[Array, "B T D"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
) -> LossSums:
    """The cross-entropy of last hidden states, with the logits of `config.chunk` time steps at once."""

    def piece(hidden: Array, targets: Array, weights: Array) -> LossSums:
        return cross_entropy(unembed(params, hidden), targets, weights, config.label_smoothing)

    time = hidden.shape[1]
    if config.chunk is None or config.chunk >= time:
        return piece(hidden, targets, weights)
    chunk = config.chunk
    if time % chunk:
        raise ValueError(f"loss.chunk must divide the sequence length: got chunk={chunk} and {time} time steps")
    recomputed = jax.checkpoint(piece)

    def add(sums: LossSums, start: Array) -> tuple[LossSums, None]:
        here = [jax.lax.dynamic_slice_in_dim(x, start, chunk, axis=1) for x in (hidden, targets, weights)]
        return jax.tree.map(jnp.add, sums, recomputed(*here)), None

    return jax.lax.scan(add, LossSums.zeros(), jnp.arange(0, time, chunk))[0]


def make_loss(model: Transformer, config: LossConfig) -> Loss:
    """For models of one stack: the targets of a batch by the hidden states of its tokens."""

    def loss(params: Any, batch: Batch, dropout_key: Array | None) -> LossSums:
        output: Output = model.apply(  # type: ignore[assignment]
            {"params": params},
            batch["tokens"],
            positions=batch["positions"],
            segment_ids=batch["segment_ids"],
            **({"prefix": batch["prefix"] > 0} if "prefix" in batch else {}),
            dropout_key=dropout_key,
            unembed=False,
        )
        unembed = lambda params, hidden: unembed_hidden(model.config, params, hidden)  # noqa: E731
        sums = token_loss(unembed, config, params, output.hidden, batch["targets"], batch["loss_weights"])
        return with_router_losses(sums, model.config, output, batch["segment_ids"])

    return loss


def with_router_losses(sums: LossSums, config: TransformerConfig, output: Output, segment_ids: Int[Array, "B T"]) -> LossSums:
    """Adds what a model with experts asks of its routers, for all tokens but padding; it counts as much as the batch has
    targets."""
    experts = config.experts
    if experts is None or output.router_logits is None:
        return sums
    balance, z = router_losses(output.router_logits, (segment_ids != 0).astype(jnp.float32), experts)
    return sums._replace(aux=sums.aux + (experts.load_balance * balance + experts.router_z_loss * z) * sums.weight)
