"""Noise on the embeddings of a text while it is learned (NEFTune, arXiv:2310.05914).

    x + u · alpha / √(L · D),    u uniform in [-1, 1]

L is the number of tokens of the text, D the residual width. Texts that share a row each have their own L; padding has no noise,
nor have the tokens of a decoder behind an encoder, and the virtual ones of a method.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float, Int

from jaxllm.models import Transformer
from jaxllm.models.layers import RESIDUAL, Embed
from jaxllm.sharding import shard
from jaxllm.training.loss import Batch, Loss

# B batch, T time, D residual width

PLACE = 0x0EF7
"""Tells the noise's key apart from those of dropout."""


def noisy(loss: Loss, alpha: float) -> Loss:
    """The loss of a model whose stacks read noisy embeddings where they get a dropout key; `loss` itself for alpha 0."""
    if alpha == 0:
        return loss

    def with_noise(params: Any, batch: Batch, dropout_key: Array | None) -> Any:
        with nn.intercept_methods(partial(_stack, alpha)):
            return loss(params, batch, dropout_key)

    return with_noise


def _stack(alpha: float, call: Callable, inputs: tuple, given: dict, context: Any) -> Any:
    """Stands in for each stack: its embedding is noisy while it is called with a dropout key."""
    module, key = context.module, given.get("dropout_key")
    if context.method_name != "__call__" or not isinstance(module, Transformer) or key is None or module.config.cross_attention:
        return call(*inputs, **given)
    tokens = given["tokens"] if "tokens" in given else inputs[0]
    segment_ids = given.get("segment_ids")
    scale = noise_scale(jnp.ones_like(tokens) if segment_ids is None else segment_ids, alpha, module.config.embed_dim)
    with nn.intercept_methods(partial(_embedding, scale, jax.random.fold_in(key, PLACE))):
        return call(*inputs, **given)


def _embedding(scale: Float[Array, "B T"], key: Array, call: Callable, inputs: tuple, given: dict, context: Any) -> Any:
    x = call(*inputs, **given)
    if context.method_name != "__call__" or not isinstance(context.module, Embed) or context.module.name != "embed":
        return x
    virtual = x.shape[1] - scale.shape[1]  # tokens that a method has put before the text
    scale = jnp.pad(scale, ((0, 0), (virtual, 0)))
    noise = shard(jax.random.uniform(key, x.shape, jnp.float32, -1, 1), *RESIDUAL)
    return shard(x, *RESIDUAL) + (noise * shard(scale, *RESIDUAL[:2])[:, :, None]).astype(x.dtype)


def noise_scale(segment_ids: Int[Array, "B T"], alpha: float, width: int) -> Float[Array, "B T"]:
    """alpha / √(L · D) of each token; 0 for padding."""
    ids = shard(segment_ids, "batch", None)
    lengths = jnp.sum(ids[:, :, None] == ids[:, None, :], axis=2).astype(jnp.float32)
    return jnp.where(ids == 0, 0.0, alpha / jnp.sqrt(lengths * width))
