"""The loss of a batch: hidden states, what they are unembedded with, and the targets."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from jaxllm.models import Output, Transformer, TransformerConfig, router_losses, unembed, unembed_parts
from jaxllm.sharding import balanced_order, in_order, shard
from jaxllm.training.cross_entropy import LossConfig, LossSums, cross_entropy
from jaxllm.training.pieces import loss_in_pieces

Batch = Mapping[str, Any]
Loss = Callable[[Any, Batch, Array | None], LossSums]
"""`loss(params, batch, dropout_key) -> LossSums`."""


def token_loss(
    stack: TransformerConfig,
    config: LossConfig,
    parts: Any,
    hidden: Float[Array, "B T D"],
    targets: Int[Array, "B T"],
    weights: Float[Array, "B T"],
) -> LossSums:
    """The cross-entropy of last hidden states, with the logits of `config.chunk` time steps at once.

    Args:
      stack: what made the hidden states.
      parts: what they are unembedded with, from `unembed_parts`.
    """
    if config.chunk is not None and config.chunk < hidden.shape[1]:
        return loss_in_pieces(stack, config, parts, hidden, targets, weights)
    targets, weights = shard(targets, "batch", "time"), shard(weights, "batch", "time")
    return cross_entropy(unembed(stack, parts, hidden), targets, weights, config)


def make_loss(model: Transformer, config: LossConfig) -> Loss:
    """For models of one stack: the targets of a batch by the hidden states of its tokens."""

    def loss(params: Any, batch: Batch, dropout_key: Array | None) -> LossSums:
        order = balanced_order(batch["tokens"].shape[1]) if model.config.causal else None
        batch = in_order(dict(batch), order)
        prefix: dict[str, Any] = {"prefix": batch["prefix"] > 0} if "prefix" in batch else {}
        output: Output = model.apply(  # type: ignore[assignment]
            {"params": params},
            batch["tokens"],
            positions=batch["positions"],
            segment_ids=batch["segment_ids"],
            **prefix,
            order=order,
            dropout_key=dropout_key,
            unembed=False,
        )
        parts = unembed_parts(model.config, params)
        sums = token_loss(model.config, config, parts, output.hidden, batch["targets"], batch["loss_weights"])
        return with_router_losses(sums, model.config, output, batch["segment_ids"])

    return loss


def with_router_losses(sums: LossSums, config: TransformerConfig, output: Output, segment_ids: Int[Array, "B T"]) -> LossSums:
    """Adds what a model with experts asks of its routers, for all tokens but padding; it counts as much as the batch has
    targets."""
    experts = config.experts
    if experts is None or output.router_logits is None:
        return sums
    balance, z = router_losses(output.router_logits, (segment_ids != 0).astype(jnp.float32), experts)
    return sums._replace(total=sums.total + (experts.load_balance * balance + experts.router_z_loss * z) * sums.weight)
