"""The Transformer over text: decoder or encoder. Train, prefill and decode are the same call, without or with a cache."""

from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Bool, Float, Int

from jaxllm.models.attention import attention_mask, segments_match
from jaxllm.models.block import Memory
from jaxllm.models.cache import EVERY, Cache, CachedMemory, init_cache, write
from jaxllm.models.config import TransformerConfig
from jaxllm.models.head import LabelHead, VocabularyHead, unembed_hidden
from jaxllm.models.kernels import Segments
from jaxllm.models.layers import RESIDUAL, Embed, Norm, dropout, look_up, parameter, read
from jaxllm.models.position import alibi_bias, relative_bucket, rotations, sinusoids
from jaxllm.models.stack import StackInput, StackOutput, init_layers, run_layers
from jaxllm.sharding import Order, shard

CAPTURES = ("hidden", "attention", "cross_attention")


class Output(NamedTuple):
    logits: Float[Array, "..."] | None
    """float32 [B, T, V], or what the config's head gives; None when called with unembed=False or without a head."""
    hidden: Float[Array, "B T D"]
    """The last hidden state, normalized: what the logits are read from."""
    cache: Cache | None = None
    """The updated cache, when one was given."""
    captured: dict[str, Array] = {}
    """`hidden` [L+1, B, T, D]: the residual stream before each block and after the last; `attention` [L, B, N, T, S];
    `cross_attention` likewise."""
    pooled: Float[Array, "B D"] | None = None
    """What the pooler made of the first token, for a config with one."""
    router_logits: Float[Array, "L B T E"] | None = None
    """Each layer's router logits, for a config with experts."""
    encoder: "Output | None" = None
    """Of a model with encoder and decoder: the encoder's output."""


class Encoded(NamedTuple):
    """An encoder's output, to be attended to."""

    hidden: Float[Array, "B S M"]
    segment_ids: Int[Array, "B S"]


def encoded(hidden: Float[Array, "B S M"], segment_ids: Int[Array, "B T"]) -> Encoded:
    """What an encoder made of tokens with these segments; what it has put before them is seen by all."""
    before = hidden.shape[1] - segment_ids.shape[1]
    return Encoded(hidden, jnp.pad(segment_ids, ((0, 0), (before, 0)), constant_values=EVERY))


class Transformer(nn.Module):
    """One stack of blocks over text, as its config says.

    >>> model = Transformer(TransformerConfig(vocab_size=65))
    >>> params = init_params(model, jax.random.key(0))
    >>> model.apply({"params": params}, jnp.zeros((1, 8), jnp.int32)).logits.shape
    (1, 8, 65)
    """

    config: TransformerConfig

    def example_inputs(self) -> tuple[Array, ...]:
        """The smallest inputs, to make parameters with."""
        return (jnp.zeros((1, 1), jnp.int32),)

    @property
    def context_len(self) -> int:
        """Longest text in tokens."""
        return self.config.context_len

    @nn.nowrap
    def prepare(self, params: Any) -> Any:
        """The parameters as `unembed_parts` reads them."""
        return params

    @nn.nowrap
    def begin_cache(self, params: Any, batch_size: int, cache_len: int, *, stacked: bool = True) -> Cache:
        """The cache that a text begins with, with room for `cache_len` tokens; see `init_cache`."""
        return init_cache(self.config, batch_size, cache_len, stacked=stacked)

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B T"],
        *,
        positions: Int[Array, "B T"] | None = None,
        segment_ids: Int[Array, "B T"] | None = None,
        token_types: Int[Array, "B T"] | None = None,
        prefix: Bool[Array, "B T"] | None = None,
        order: Order | None = None,
        head_mask: Float[Array, "L N"] | None = None,
        memory: Encoded | None = None,
        table: Float[Array, "V D"] | None = None,
        cache: Cache | None = None,
        dropout_key: Array | None = None,
        capture: Collection[str] = (),
        unembed: bool = True,
    ) -> Output:
        """Logits for each token.

        Args:
          positions: by default counted from 0, or from the number of cached tokens; padding counts, too, unless the config has
            position_skips_padding.
          segment_ids: tokens see only their own segment; 0 is padding. By default all in segment 1.
          token_types: which kind each token is, for a config with `token_types`. By default 0.
          prefix: tokens that their whole segment sees, earlier tokens too; for a causal config.
          order: of the tokens, where it is not that of their sequence; their positions must be given then, too.
          head_mask: factor on the attention weights of each layer's heads.
          memory: the encoder's output, for a config with cross_attention. With a cache it is given once, in the first call.
          table: the embedding to use, where it is an encoder's.
          cache: keys and values of earlier tokens; these tokens are added to it. The caller keeps room: tokens beyond its
            last slot would overwrite earlier ones.
          dropout_key: without one nothing is dropped.
          capture: names from `CAPTURES` to hand out in `Output.captured`.
          unembed: False leaves logits out, for a loss that computes them in pieces, or of every token.
        """
        config = self.config
        _check_capture(config, capture)
        _check_given(config, token_types, prefix, memory, cache)
        if segment_ids is None:
            segment_ids = jnp.ones_like(tokens)
        if positions is None:
            positions = _count_positions(config, segment_ids, cache)
        if cache is not None and tokens.shape[1] > cache.positions.shape[1]:
            raise ValueError(f"the cache must have room for the tokens: {tokens.shape[1]} for {cache.positions.shape[1]} slots")
        x = self._embed(tokens, positions, token_types, table)
        embed_key = None if dropout_key is None else jax.random.fold_in(dropout_key, config.num_layers)
        x = dropout(shard(x, *RESIDUAL), config.dropout, embed_key, 0, RESIDUAL)

        whole = [shard(of, "batch", "cache") for of in (positions, segment_ids)]
        keys = _Keys(*whole, prefix=None if prefix is None else shard(prefix, "batch", "cache"))
        positions, segment_ids = shard(positions, "batch", "time"), shard(segment_ids, "batch", "time")
        if cache is not None:
            cached = [write(*pair, cache.length) for pair in ((cache.positions, positions), (cache.segment_ids, segment_ids))]
            keys = _Keys(cached[0], cached[1], None)
            if prefix is not None:
                keys = keys._replace(prefix=write(jnp.zeros(keys.positions.shape, bool), prefix, cache.length))
        given = self._stack_input(positions, segment_ids, keys, _memory(memory, cache, segment_ids))
        segments = Segments(segment_ids, keys.segment_ids) if prefix is None and cache is None else None
        given = given._replace(head_mask=head_mask, cache=cache, dropout_key=dropout_key, segments=segments, order=order)
        x, out = run_layers(config, self._layer_params(x, given), x, given, capture)
        if config.has_final_norm:
            x = Norm(config, name="final_norm")(x)
        x = read(x)
        if cache is not None:
            cache = _updated(cache, keys, out, memory, tokens.shape[1])
        captured = {name: getattr(out, name) for name in capture}
        logits, pooled = self._read(x, segment_ids, table, unembed)
        return Output(logits, x, cache, captured, pooled, out.router_logits)

    def _embed(self, tokens: Array, positions: Array, token_types: Array | None, table: Array | None) -> Array:
        config = self.config
        if table is None:
            x = Embed(config, config.vocabulary, "vocab", name="embed")(tokens)
        else:
            x = look_up(table, tokens, "vocab", config.compute_dtype)
        if config.embed_scale is not None:
            x = x * jnp.asarray(config.embed_scale, x.dtype)
        places = positions + config.position_offset
        if config.position == "learned":
            x = x + Embed(config, config.context_len + config.position_offset, "position", name="position")(places)
        elif config.position == "sinusoidal":
            x = x + shard(sinusoids(places, config.embed_dim, config.sinusoids).astype(x.dtype), *RESIDUAL)
        if config.token_types is not None:
            types = jnp.zeros_like(tokens) if token_types is None else token_types
            x = x + Embed(config, config.token_types, "token_type", name="token_type")(types)
        return Norm(config, name="embed_norm")(x) if config.embed_norm else x

    def _stack_input(self, positions: Array, segment_ids: Array, keys: "_Keys", memory: Memory | None) -> StackInput:
        config, masks = self.config, []
        if config.window is None or config.full_attention_layers:
            masks.append(None)
        if config.window is not None:
            masks.append(config.window)
        distance = positions[:, :, None] - keys.positions[:, None, :]
        bias = None
        if config.position == "alibi":
            bias = alibi_bias(positions, keys.positions, config.num_heads)
        elif config.position == "relative":
            bias = self._relative_bias(-distance)
        return StackInput(
            masks=tuple(
                attention_mask(
                    positions, keys.positions, segment_ids, keys.segment_ids,
                    window=window, causal=config.causal, prefix=keys.prefix,
                )
                for window in masks
            ),
            rotations=rotations(config, positions) if config.position == "rotary" else (),
            bias=bias,
            distance=distance if config.position in ("relative_key", "relative_key_query") else None,
            memory=memory,
        )  # fmt: skip

    def _relative_bias(self, distance: Int[Array, "B T S"]) -> Float[Array, "B N T S"]:
        config = self.config
        shape, axes = (config.relative_buckets, config.num_heads), ("bucket", "heads")
        initial = nn.initializers.normal(config.init_std)
        table = parameter(self, config, "relative_bias", initial, shape, axes, "float32")
        bucket = relative_bucket(distance, config.relative_buckets, config.relative_max_distance, config.causal)
        # A product with one-hot rows instead of a gather: its gradient is no scatter, and layouts follow by themselves.
        one_hot = jax.nn.one_hot(bucket, config.relative_buckets, dtype=jnp.float32)
        return shard(jnp.einsum("BTSC,CN->BNTS", one_hot, table), "batch", "heads", "time", "cache")

    def _layer_params(self, x: Array, given: StackInput) -> Any:
        """Parameters of all blocks: each array stacked over layers, or a tuple with one tree a layer."""
        if self.is_initializing():
            params, axes = init_layers(self.config, self.make_rng("params"), x, given)
            self.put_variable("params", "layers", params)
            self.put_variable("axes", "layers", axes)
        return self.get_variable("params", "layers")

    def _read(self, x: Array, segment_ids: Array, table: Array | None, unembed: bool) -> tuple[Array | None, Array | None]:
        config, head = self.config, self.config.head
        if head.kind != "vocabulary":
            if (head.kind == "none" and not head.pooler) or (head.kind != "none" and not unembed):
                return None, None
            return LabelHead(config, name="head")(x, segment_ids)
        if self.is_initializing() and (head.transform or head.bias or not config.tie_embeddings):
            VocabularyHead(config, name="unembed")(x)
        return (unembed_hidden(config, self.variables["params"], x, table) if unembed else None), None


class _Keys(NamedTuple):
    """What is known of the tokens that may be looked at."""

    positions: Int[Array, "B S"]
    segment_ids: Int[Array, "B S"]
    prefix: Bool[Array, "B S"] | None


def _count_positions(config: TransformerConfig, segment_ids: Int[Array, "B T"], cache: Cache | None) -> Int[Array, "B T"]:
    if config.position_skips_padding:
        before = 0 if cache is None else jnp.sum(cache.segment_ids != 0, axis=1, keepdims=True, dtype=jnp.int32)
        return jnp.maximum(before + jnp.cumsum(segment_ids != 0, axis=1, dtype=jnp.int32) - 1, 0)
    first = 0 if cache is None else cache.length
    return jnp.broadcast_to(first + jnp.arange(segment_ids.shape[1], dtype=jnp.int32)[None, :], segment_ids.shape)


def _check_capture(config: TransformerConfig, capture: Collection[str]) -> None:
    known = CAPTURES if config.cross_attention else CAPTURES[:2]
    unknown = set(capture) - set(known)
    if unknown:
        raise ValueError(f"capture must be among {', '.join(known)}: got {sorted(unknown)[0]!r}")


def _check_given(config: TransformerConfig, token_types: Any, prefix: Any, memory: Encoded | None, cache: Cache | None) -> None:
    """Refuses what the config would not read, and a missing encoder's output."""
    if token_types is not None and config.token_types is None:
        raise ValueError("token_types were given to a config without them: leave them out, or set token_types")
    if prefix is not None and not config.causal:
        raise ValueError("prefix was given to a config with causal=False, where every token is seen already: leave it out")
    if memory is not None and not config.cross_attention:
        raise ValueError("memory was given to a config without cross_attention: leave it out, or set cross_attention=True")
    if config.cross_attention and memory is None and (cache is None or cache.memory is None):
        raise ValueError("a config with cross_attention needs memory, the encoder's output; with a cache, in the first call")


def _memory(memory: Encoded | None, cache: Cache | None, segment_ids: Array) -> Memory | None:
    if memory is not None:
        return Memory(memory.hidden, segments_match(segment_ids, memory.segment_ids))
    if cache is None or cache.memory is None:
        return None
    return Memory(None, segments_match(segment_ids, cache.memory.segment_ids))


def _updated(cache: Cache, keys: _Keys, out: StackOutput, memory: Encoded | None, count: int) -> Cache:
    assert out.keys_values is not None
    kept = cache.memory
    if memory is not None and out.memory_keys_values is not None:
        kept = CachedMemory(*out.memory_keys_values, memory.segment_ids)
    return Cache(*out.keys_values, keys.positions, keys.segment_ids, cache.length + count, kept)
