"""The key/value cache: an explicit value, passed into the model and handed back."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Int

from jaxllm.models.config import TransformerConfig
from jaxllm.sharding import shard

EVERY = -1
"""Segment of slots that tokens of all segments see."""


class CachedMemory(NamedTuple):
    """What each decoder block sees of an encoder's output: keys and values, computed once."""

    keys: Array | tuple[Array, ...]
    """[L, B, K, S, H], or one [B, K, S, H] a layer."""
    values: Array | tuple[Array, ...]
    """As `keys`."""
    segment_ids: Int[Array, "B S"]
    """Segments of the encoder's tokens; 0 is padding."""


class Cache(NamedTuple):
    """Keys and values of tokens already seen.

    A token is written to the slot `length`, whatever its position; what a slot holds is told by `positions` and
    `segment_ids`, so rows may be padded on either side. Slots with segment 0 are empty.
    """

    keys: Array | tuple[Array, ...]
    """[L, B, K, S, H], or one [B, K, S, H] a layer: heads before slots, as the products with queries read them."""
    values: Array | tuple[Array, ...]
    """As `keys`."""
    positions: Int[Array, "B S"]
    """Position of the token in each slot."""
    segment_ids: Int[Array, "B S"]
    """Its segment; 0 where the slot is empty or holds padding, -1 where tokens of all segments see it."""
    length: Int[Array, ""]
    """Slots written, the same for all rows."""
    memory: CachedMemory | None = None
    """For a decoder with cross-attention, once it has been called with an encoder's output."""


def init_cache(config: TransformerConfig, batch_size: int, cache_len: int, *, stacked: bool = True) -> Cache:
    """An empty cache.

    Args:
      cache_len: slots, S.
      stacked: one array over all layers, or one array a layer, which a CPU updates in place. Where heads were pruned,
        always the latter.
    """
    heads = [len(config.heads_kept(layer)) * config.kv_heads // config.num_heads for layer in range(config.num_layers)]
    shapes = [(batch_size, count, cache_len, config.head_width) for count in heads]

    def zeros():
        if stacked and not config.pruned_heads:
            return shard(jnp.zeros((config.num_layers, *shapes[0]), config.compute_dtype), None, *WHOLE)
        return tuple(shard(jnp.zeros(shape, config.compute_dtype), *WHOLE) for shape in shapes)

    slots = shard(jnp.zeros((batch_size, cache_len), jnp.int32), *SLOTS)
    return Cache(zeros(), zeros(), slots, jnp.zeros_like(slots), jnp.zeros((), jnp.int32))


def slotted_cache(
    config: TransformerConfig,
    keys: Float[Array, "L R K n H"],
    values: Float[Array, "L R K n H"],
    batch_size: int,
    cache_len: int,
    *,
    stacked: bool = True,
) -> Cache:
    """A cache whose first n slots hold these keys and values, at positions 0 to n - 1 and seen by tokens of all segments, with
    `cache_len` empty slots behind them.

    Args:
      keys: one set for all rows, R = 1, or one for each.
    """
    slots = keys.shape[3]

    def widened(x: Array) -> Array:
        x = jnp.pad(x.astype(config.compute_dtype), [(0, 0)] * 3 + [(0, cache_len), (0, 0)])
        return shard(jnp.broadcast_to(x, (x.shape[0], batch_size, *x.shape[2:])), None, *WHOLE)

    def told(of_slots: Array) -> Array:
        row = jnp.pad(of_slots.astype(jnp.int32), (0, cache_len))[None]
        return shard(jnp.broadcast_to(row, (batch_size, slots + cache_len)), *SLOTS)

    positions, segment_ids = told(jnp.arange(slots)), told(jnp.full((slots,), EVERY))
    cache = Cache(widened(keys), widened(values), positions, segment_ids, jnp.asarray(slots, jnp.int32))
    return cache if stacked else unstack_cache(cache, config.num_layers)


WHOLE = ("batch", "kv_heads", "cache", "head_dim")
"""Logical axes of a layer's keys and values, as queries read them."""
SLOTS = ("batch", "cache")
"""Logical axes of what is told of each slot."""


def write(buffer: Array, new: Array, start: Int[Array, ""], axes: tuple[str, ...] = SLOTS) -> Array:
    """`buffer` with `new` at slots start, start + 1, ...; `axes` are the logical axes of both."""
    new = shard(new.astype(buffer.dtype), *axes)
    return jax.lax.dynamic_update_slice_in_dim(shard(buffer, *axes), new, start, axis=axes.index("cache"))


def widen_cache(cache: Cache, cache_len: int) -> Cache:
    """The same cache with empty slots added, up to `cache_len`."""

    def widened(x: Array, axis: int) -> Array:
        padding = [(0, 0)] * x.ndim
        padding[axis] = (0, cache_len - x.shape[axis])
        return jnp.pad(x, padding)

    keys, values = jax.tree.map(lambda x: widened(x, -2), (cache.keys, cache.values))
    positions, segment_ids = widened(cache.positions, 1), widened(cache.segment_ids, 1)
    return cache._replace(keys=keys, values=values, positions=positions, segment_ids=segment_ids)


def unstack_cache(cache: Cache, num_layers: int) -> Cache:
    """The same cache with one array a layer, from one whose layers are stacked."""

    def separate(stacked: Any) -> tuple[Array, ...]:
        return tuple(stacked[layer] for layer in range(num_layers))

    memory = cache.memory
    if memory is not None:
        memory = memory._replace(keys=separate(memory.keys), values=separate(memory.values))
    return cache._replace(keys=separate(cache.keys), values=separate(cache.values), memory=memory)


def take_rows(cache: Cache, rows: Int[Array, " B"]) -> Cache:
    """The cache with its rows chosen anew: row b becomes what row `rows[b]` was, as beam search asks for."""

    def taken(x: Any) -> Any:
        # [B, S] tables have the rows first; keys and values have four dimensions, or five when stacked over layers.
        return x if x.ndim == 0 else jnp.take(x, rows, axis=1 if x.ndim == 5 else 0)

    return jax.tree.map(taken, cache)
