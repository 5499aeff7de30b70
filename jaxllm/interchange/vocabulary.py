"""Another number of tokens: rows added to the embedding and the output matrix, or the last ones taken off."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxllm.models import EncoderDecoderConfig

NOISE = 1e-9**0.5
"""Standard deviation of the noise in new rows, as a share of that of the old ones."""
_VOCABULARY_AXIS = {("embed", "table"): 0, ("unembed", "kernel"): 1, ("unembed", "bias"): 0}


def resize_vocabulary(params: Any, config: Any, new_size: int, key: Array) -> tuple[Any, Any]:
    """Parameters and config for a vocabulary of `new_size`.

    A new row is the mean of the old ones with a little noise: an unseen token is then predicted no more often than an average
    one, where a random row would take most of the probability away (Hewitt 2021, "Initializing new word embeddings for
    pretrained language models"). The noise, 3e-5 of the old rows' spread, is as small as transformers has it.
    Of a smaller vocabulary the first `new_size` rows stay.

    Raises:
      ValueError: `new_size` is less than 1.
    """
    if new_size < 1:
        raise ValueError(f"new_size must be at least 1: got {new_size}")
    resized = []
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    for number, (keys, leaf) in enumerate(leaves):
        axis = _VOCABULARY_AXIS.get(tuple(str(key.key) for key in keys[-2:]))  # type: ignore[arg-type]
        resized.append(leaf if axis is None else _resize(leaf, axis, new_size, jax.random.fold_in(key, number)))
    return jax.tree.unflatten(structure, resized), _resized_config(config, new_size)


def _resized_config(config: Any, new_size: int) -> Any:
    if not isinstance(config, EncoderDecoderConfig):
        return dataclasses.replace(config, vocab_size=new_size)
    stacks = {name: dataclasses.replace(getattr(config, name), vocab_size=new_size) for name in ("encoder", "decoder")}
    return dataclasses.replace(config, **stacks)


def _resize(array: Array, axis: int, new_size: int, key: Array) -> Array:
    old_size = array.shape[axis]
    if new_size <= old_size:
        return jax.lax.slice_in_dim(array, 0, new_size, axis=axis)
    old = array.astype(jnp.float32)
    mean, spread = jnp.mean(old, axis=axis, keepdims=True), jnp.std(old, axis=axis, keepdims=True)
    shape = list(array.shape)
    shape[axis] = new_size - old_size
    new = mean + NOISE * spread * jax.random.normal(key, shape)
    return jnp.concatenate([array, new.astype(array.dtype)], axis=axis)
