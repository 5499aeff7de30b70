"""One vector a text, from an encoder: sentence embedding."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from jaxllm.data import Tokenizer
from jaxllm.data.subword import SubwordTokenizer
from jaxllm.inference.padded import padded_batches
from jaxllm.models import Transformer

Pooling = Literal["mean", "first"]


def embed(
    model: Transformer,
    params: Any,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    pooling: Pooling = "mean",
    normalize: bool = True,
    batch_size: int = 32,
    max_len: int | None = None,
) -> Float32[np.ndarray, "B D"]:
    """A vector for each text, from the encoder's last hidden states.

        similarity = embed(model, params, tokenizer, ["a cat", "a kitten"]) @ embed(model, params, tokenizer, ["a dog"]).T

    Texts of like length are computed together; a program is compiled for each power of two that lengths and numbers of texts
    are rounded up to. A vector does not depend on the texts beside it.

    Args:
      pooling: the mean over a text's tokens, special ones included, or its first token.
      normalize: scale vectors to length 1, so that products are cosines.
      batch_size: texts that are computed at once, at most.
      max_len: tokens of a text, special ones included; what is beyond is left out. By default the model's context.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1: got {batch_size}")
    limit = min(model.context_len, max_len or model.context_len)
    rows = [_token_ids(tokenizer, text, limit) for text in texts]
    vectors = np.zeros((len(rows), model.config.embed_dim), np.float32)
    for members, tokens, segment_ids in padded_batches(rows, limit, batch_size):
        found = _embed(model, pooling, normalize, params, tokens, segment_ids)
        vectors[members] = np.asarray(found)[: len(members)]
    return vectors


def _token_ids(tokenizer: Tokenizer, text: str, limit: int) -> Sequence[int]:
    if isinstance(tokenizer, SubwordTokenizer):
        ids = tokenizer.encode_special(text, max_len=limit).ids
    else:
        ids = tokenizer.encode(text)[:limit]
    if not ids:
        raise ValueError(f"a text must have at least one token to be embedded: got {text!r}; leave it out")
    return ids


@partial(jax.jit, static_argnums=(0, 1, 2))
def _embed(
    model: Transformer,
    pooling: Pooling,
    normalize: bool,
    params: Any,
    tokens: Int[Array, "B T"],
    segment_ids: Int[Array, "B T"],
) -> Float[Array, "B D"]:
    """Of rows padded on the right."""
    output: Any = model.apply({"params": params}, tokens, segment_ids=segment_ids, unembed=False)
    hidden = output.hidden.astype(jnp.float32)
    vectors = hidden[:, 0]
    if pooling == "mean":
        real = segment_ids.astype(jnp.float32)[:, :, None]
        vectors = jnp.sum(hidden * real, axis=1) / jnp.maximum(jnp.sum(real, axis=1), 1)
    if normalize:
        vectors = vectors / jnp.maximum(jnp.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return vectors
