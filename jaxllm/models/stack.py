"""All blocks in turn: scanned over parameters stacked by layer, or unrolled."""

import dataclasses
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, Int

from jaxllm.models.attention import Seen
from jaxllm.models.block import Block, BlockInput, BlockOutput, Memory, block_function
from jaxllm.models.cache import Cache
from jaxllm.models.config import TransformerConfig
from jaxllm.models.kernels import Segments
from jaxllm.models.pipeline import run_stages, stage_count
from jaxllm.models.position import Rotation
from jaxllm.sharding import Axes, Order, shard


class StackInput(NamedTuple):
    """What the blocks are given beside the residual stream."""

    masks: tuple[Bool[Array, "B T S"], ...]
    """Of layers that see everything and of layers with a window; only one where all layers are alike."""
    rotations: tuple[Rotation, ...] = ()
    """Likewise."""
    bias: Float[Array, "B N T S"] | None = None
    distance: Int[Array, "B T S"] | None = None
    head_mask: Float[Array, "L N"] | None = None
    segments: Segments | None = None
    """For kernels; None where they could not tell who sees whom."""
    order: Order | None = None
    """Of the tokens, where it is not that of their sequence."""
    memory: Memory | None = None
    cache: Cache | None = None
    dropout_key: Array | None = None


class StackOutput(NamedTuple):
    """What the blocks hand back, each with one entry a layer; None where there is nothing to hand back."""

    keys_values: tuple[Any, Any] | None
    memory_keys_values: tuple[Any, Any] | None
    hidden: Float[Array, "L+1 B T D"] | None
    attention: Float[Array, "L B N T S"] | None
    cross_attention: Float[Array, "L B N T S"] | None
    router_logits: Float[Array, "L B T E"] | None


class _Layer(NamedTuple):
    """What belongs to one layer."""

    params: Any
    index: Int[Array, ""] | int
    local: Bool[Array, ""] | bool
    head_mask: Float[Array, " N"] | None
    keys_values: tuple[Array, Array] | None
    memory_keys_values: tuple[Array, Array] | None


def run_layers(
    config: TransformerConfig, layers: Any, x: Float[Array, "B T D"], given: StackInput, capture: Collection[str]
) -> tuple[Float[Array, "B T D"], StackOutput]:
    """All blocks in turn: scanned, or unrolled when the config says so or the layers come separately.

    Args:
      layers: parameters, each array stacked over layers, or a tuple with one tree a layer.
    """
    stacked = _Layer(layers, jnp.arange(config.num_layers), _local(config), given.head_mask, *_cached(given.cache))
    plain = given.cache is None and given.memory is None and not capture and not isinstance(layers, tuple)
    if plain and stage_count(len(x)) > 1:
        return _through_stages(config, stacked, x, given)
    return _run(config, stacked, x, given, capture)


def _through_stages(
    config: TransformerConfig, stacked: _Layer, x: Float[Array, "B T D"], given: StackInput
) -> tuple[Float[Array, "B T D"], StackOutput]:
    """The layers split over the mesh's stages. Dropout draws anew for each part of the batch."""
    told = given._replace(head_mask=None, dropout_key=None, order=None)
    is_static = isinstance(stacked.local, bool)

    def run(own: tuple[_Layer, Array | None], x: Array, told: StackInput, number: Array) -> tuple[Array, Array | None]:
        layers, keys = own
        key = None if keys is None else jax.random.fold_in(keys[0], number)
        layers = layers._replace(local=stacked.local) if is_static else layers
        x, out = _run(config, layers, x, told._replace(dropout_key=key, order=given.order), ())
        return x, out.router_logits

    layers = stacked._replace(local=None) if is_static else stacked
    # One key, as many times as there are layers: on an Explicit mesh a stage sees no array but those split for it.
    keys = None if given.dropout_key is None else jnp.broadcast_to(given.dropout_key, config.num_layers)
    x, router_logits = run_stages(run, (layers, keys), x, told, config.microbatches)
    if router_logits is not None:  # outside the layers the stages split rows
        router_logits = shard(router_logits, None, "batch", "time", "label")
    return x, StackOutput(None, None, None, None, None, router_logits)


def _run(
    config: TransformerConfig, stacked: _Layer, x: Float[Array, "B T D"], given: StackInput, capture: Collection[str]
) -> tuple[Float[Array, "B T D"], StackOutput]:
    """These layers in turn: all, or those of a stage."""
    layers = stacked.params
    unrolled = isinstance(layers, tuple) or (config.layer_loop == "unroll" and jnp.size(stacked.index) == config.num_layers)
    if unrolled:  # whatever the config says of stacked layers
        config = dataclasses.replace(config, layer_loop="unroll")
    block = block_function(config)
    heads = [config.heads_kept(layer) for layer in range(config.num_layers)]
    start = None if given.cache is None else given.cache.length

    def step(x: Array, layer: _Layer) -> tuple[Array, dict[str, Any]]:
        key = None if given.dropout_key is None else jax.random.fold_in(given.dropout_key, layer.index)
        rotation = _pick(given.rotations, layer.local) if given.rotations else None
        segments = None if "attention" in capture else given.segments
        local = None if isinstance(layer.local, bool) and not config.full_attention_layers else jnp.asarray(layer.local)
        mask = _pick(given.masks, layer.local)
        seen = Seen(mask, given.bias, rotation, given.distance, layer.head_mask, segments, local, given.order)
        own = layer.keys_values, layer.memory_keys_values
        function = block
        if config.pruned_heads:
            assert isinstance(layer.index, int)
            function = block_function(config, config.num_heads - len(heads[layer.index]))
            seen = _of_heads(seen, heads[layer.index])
        new_x, out = function(layer.params, x, BlockInput(seen, given.memory, *own, start, layer.index, key))
        if config.pruned_heads and "attention" in capture:
            out = out._replace(attention=_with_removed(out.attention, heads[layer.index], config.num_heads))
        return new_x, _kept(config, x, out, capture, cached=given.cache is not None)

    if unrolled:
        x, out = _unrolled(step, config, stacked, x)
    else:
        is_static = isinstance(stacked.local, bool)
        local, scanned = stacked.local, stacked._replace(local=None) if is_static else stacked
        x, out = jax.lax.scan(lambda x, layer: step(x, layer._replace(local=local) if is_static else layer), x, scanned)
    if "hidden" in out:
        out["hidden"] = jnp.concatenate([out["hidden"], x[None]])
    return x, StackOutput(**{name: out.get(name) for name in StackOutput._fields})


def _of_heads(seen: Seen, heads: tuple[int, ...]) -> Seen:
    """What is told for every head, for these alone."""
    bias, mask = seen.bias, seen.head_mask
    if bias is not None:
        whole = shard(bias, "batch", None, "time", "cache")
        bias = shard(jnp.concatenate([whole[:, n : n + 1] for n in heads], axis=1), "batch", "heads", "time", "cache")
    return seen._replace(bias=bias, head_mask=None if mask is None else jnp.stack([mask[n] for n in heads]))


def _with_removed(attention: Float[Array, "B M T S"], heads: tuple[int, ...], num_heads: int) -> Float[Array, "B N T S"]:
    """The attention of these heads, at their places before pruning, and 0 for those removed."""
    whole = shard(attention, "batch", None, "time", "cache")
    removed = jnp.zeros_like(whole[:, 0])
    return jnp.stack([whole[:, heads.index(n)] if n in heads else removed for n in range(num_heads)], axis=1)


def _local(config: TransformerConfig) -> Bool[Array, " L"] | bool:
    """Which layers have a window; one answer where all are alike."""
    if config.window is None or not config.full_attention_layers:
        return config.window is not None
    return jnp.asarray([layer not in config.full_attention_layers for layer in range(config.num_layers)])


def _pick(choices: tuple[Any, ...], local: Array | bool) -> Any:
    """The last for layers with a window, the first for others."""
    if len(choices) == 1 or local is False:
        return choices[0]
    if local is True:
        return choices[1]
    return jax.tree.map(lambda full, windowed: jnp.where(local, windowed, full), *choices)


def _cached(cache: Cache | None) -> tuple[Any, Any]:
    if cache is None:
        return None, None
    memory = cache.memory
    return (cache.keys, cache.values), None if memory is None else (memory.keys, memory.values)


def _kept(config: TransformerConfig, x: Array, out: BlockOutput, capture: Collection[str], *, cached: bool) -> dict[str, Any]:
    """What is kept of one block's by-products."""
    found = {"hidden": x, "attention": out.attention, "cross_attention": out.cross_attention}
    kept: dict[str, Any] = {name: found[name] for name in capture}
    if cached:
        kept["keys_values"] = out.keys_values
        if config.cross_attention:
            kept["memory_keys_values"] = out.memory_keys_values
    if config.experts is not None:
        kept["router_logits"] = out.router_logits
    return kept


def _unrolled(step: Callable, config: TransformerConfig, stacked: _Layer, x: Array) -> tuple[Array, dict[str, Any]]:
    count = config.num_layers
    local = stacked.local if isinstance(stacked.local, bool) else None
    columns = [_separate(part, count) for part in (stacked.params, stacked.head_mask, *stacked[4:])]
    outs = []
    for index, (params, head_mask, keys_values, memory_keys_values) in enumerate(zip(*columns, strict=True)):
        here = index not in config.full_attention_layers if local is None else local
        x, out = step(x, _Layer(params, index, here, head_mask, keys_values, memory_keys_values))
        outs.append(out)
    joined, cached = {}, stacked.keys_values
    for name in outs[0]:
        if name.endswith("keys_values") and cached is not None and isinstance(cached[0], tuple):  # as they came: one a layer
            joined[name] = tuple(tuple(out[name][part] for out in outs) for part in (0, 1))
        else:
            joined[name] = jax.tree.map(lambda *rows: jnp.stack(rows), *[out[name] for out in outs])
    return x, joined


def _separate(part: Any, count: int) -> Any:
    """One entry a layer: of a stack, of a tuple with one tree a layer, of a pair of such tuples, or of None."""
    if part is None:
        return [None] * count
    if isinstance(part, tuple) and len(part) == 2 and isinstance(part[0], tuple):
        return list(zip(*part, strict=True))
    return part if isinstance(part, tuple) and not isinstance(part[0], Array) else unstack_layers(part, count)


def unstack_layers(stacked: Any, num_layers: int) -> tuple[Any, ...]:
    """One tree a layer from arrays stacked over layers. The gradient is one concatenation, not a sum of paddings."""
    leaves, structure = jax.tree.flatten(stacked)
    parts = [jax.lax.split(leaf, [1] * num_layers, axis=0) for leaf in leaves]
    return tuple(jax.tree.unflatten(structure, [jnp.squeeze(part[index], 0) for part in parts]) for index in range(num_layers))


def init_layers(config: TransformerConfig, key: Array, x: Array, given: StackInput) -> tuple[Any, Any]:
    """Initial parameters of all blocks, and their logical axes: stacked, or where heads were pruned one tree a layer."""
    rotation = given.rotations[0] if given.rotations else None
    seen, keys = Seen(given.masks[0], given.bias, rotation, given.distance), jax.random.split(key, config.num_layers)
    if config.pruned_heads:
        apart = []
        for layer in range(config.num_layers):
            kept = config.heads_kept(layer)
            block = Block(config, config.num_heads - len(kept), parent=None)
            apart.append(block.init(keys[layer], x, BlockInput(_of_heads(seen, kept), given.memory)))
        return tuple(variables["params"] for variables in apart), tuple(variables["axes"] for variables in apart)
    block = Block(config, parent=None)
    variables = jax.vmap(lambda key: block.init(key, x, BlockInput(seen, given.memory)))(keys)
    is_axes = lambda node: isinstance(node, Axes)  # noqa: E731
    axes = jax.tree.map(lambda a: Axes(("layers", *a.names)), variables["axes"], is_leaf=is_axes)
    return variables["params"], axes
