"""Attention heads removed from the weights: what a `head_mask` of 0 computes, with fewer parameters and less work
(arXiv:1905.10650).
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

import jax.numpy as jnp

from jaxllm.models.config import TransformerConfig
from jaxllm.models.stack import unstack_layers

HEAD_AXES = {
    "query": {"kernel": 1, "bias": 0},
    "key": {"kernel": 1, "bias": 0},
    "value": {"kernel": 1, "bias": 0},
    "output": {"kernel": 0},
}
"""Where the heads are in each parameter of the attention layer; others have none."""


def prune_heads(config: TransformerConfig, params: Any, heads: Mapping[int, Collection[int]]) -> tuple[TransformerConfig, Any]:
    """The model without these heads of its self-attention: a config that names them, and smaller parameters.

    >>> config, params = prune_heads(config, params, {0: [2], 3: [0, 1]})
    >>> Transformer(config).apply({"params": params}, tokens)

    Of a model with encoder and decoder, prune either half's config and parameters; of one over images, its config's encoder
    and its parameters. Where query heads share a key/value head, the whole group goes together.

    Args:
      params: with arrays stacked over layers, or a tuple with one tree a layer; the result has the latter.
      heads: for a layer, its heads to remove, numbered as before any pruning.

    Raises:
      ValueError: a head that is not there, part of a group, or all heads of a layer.
    """
    removed = {(layer, head) for layer, some in heads.items() for head in some}
    for layer, head in sorted(removed & set(config.pruned_heads)):
        raise ValueError(f"heads must still be there: head {head} of layer {layer} was removed before")
    pruned = dataclasses.replace(config, pruned_heads=tuple(sorted(removed | set(config.pruned_heads))))
    if not pruned.pruned_heads:
        return config, params
    layers = params["layers"]
    trees = layers if isinstance(layers, tuple) else unstack_layers(layers, config.num_layers)
    return pruned, {**params, "layers": tuple(_without(config, pruned, layer, tree) for layer, tree in enumerate(trees))}


def _without(config: TransformerConfig, pruned: TransformerConfig, layer: int, tree: Any) -> Any:
    """One layer's parameters with the heads that `pruned` keeps."""
    before, after = config.heads_kept(layer), pruned.heads_kept(layer)
    if before == after:
        return tree
    group = config.num_heads // config.kv_heads
    queries = [before.index(head) for head in after]
    keys = [index // group for index in queries[::group]]
    attention = dict(tree["attention"])
    for name, axes in HEAD_AXES.items():
        own = dict(attention[name])
        for leaf in own.keys() & axes.keys():
            kept = jnp.asarray(keys if name in ("key", "value") else queries)
            own[leaf] = jnp.take(own[leaf], kept, axis=axes[leaf])
        attention[name] = own
    return {**tree, "attention": attention}
