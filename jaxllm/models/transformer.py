"""The decoder Transformer. Train, prefill and decode are the same call, without or with a cache."""

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Bool, Float, Int

from jaxllm.models.attention import alibi_bias, attention_mask
from jaxllm.models.block import Block, block_function
from jaxllm.models.cache import Cache, write
from jaxllm.models.config import TransformerConfig
from jaxllm.models.layers import RESIDUAL, Embed, Norm, Project, dropout
from jaxllm.models.position import sinusoids
from jaxllm.sharding import Axes, einsum, gather, shard

CAPTURES = ("hidden", "attention")


class Output(NamedTuple):
    logits: Float[Array, "B T V"] | None
    """float32; None when called with unembed=False."""
    hidden: Float[Array, "B T D"]
    """The last hidden state, normalized: what the logits are read from."""
    cache: Cache | None
    """The updated cache, when one was given."""
    captured: dict[str, Array]
    """`hidden` [L+1, B, T, D]: the residual stream before each block and after the last; `attention` [L, B, N, T, S]."""


class Transformer(nn.Module):
    """A decoder-only Transformer as its config says.

    >>> model = Transformer(TransformerConfig(vocab_size=65))
    >>> params = init_params(model, jax.random.key(0))
    >>> model.apply({"params": params}, jnp.zeros((1, 8), jnp.int32)).logits.shape
    (1, 8, 65)
    """

    config: TransformerConfig

    @nn.compact
    def __call__(
        self,
        tokens: Int[Array, "B T"],
        *,
        positions: Int[Array, "B T"] | None = None,
        segment_ids: Int[Array, "B T"] | None = None,
        cache: Cache | None = None,
        dropout_key: Array | None = None,
        capture: Collection[str] = (),
        unembed: bool = True,
    ) -> Output:
        """Next-token logits for each token.

        Args:
          positions: by default counted from 0, or from the number of cached tokens.
          segment_ids: tokens see only their own segment; 0 is padding. By default all in segment 1.
          cache: keys and values of earlier tokens; these tokens are added to it. The caller keeps room: tokens beyond its
            last slot would overwrite earlier ones.
          dropout_key: without one nothing is dropped.
          capture: names from `CAPTURES` to hand out in `Output.captured`.
          unembed: False leaves the logits out, for a loss that computes them in pieces.
        """
        config = self.config
        unknown = set(capture) - set(CAPTURES)
        if unknown:
            raise ValueError(f"capture must be among {', '.join(CAPTURES)}: got {sorted(unknown)[0]!r}")
        if positions is None:
            first = 0 if cache is None else cache.length
            positions = jnp.broadcast_to(first + jnp.arange(tokens.shape[1], dtype=jnp.int32)[None, :], tokens.shape)
        if segment_ids is None:
            segment_ids = jnp.ones_like(tokens)
        if cache is not None and tokens.shape[1] > cache.positions.shape[1]:
            raise ValueError(f"the cache must have room for the tokens: {tokens.shape[1]} for {cache.positions.shape[1]} slots")
        x = Embed(config, config.vocabulary, "vocab", name="embed")(tokens)
        if config.position == "learned":
            x = x + Embed(config, config.context_len, "time", name="position")(positions)
        elif config.position == "sinusoidal":
            x = x + sinusoids(positions, config.embed_dim).astype(x.dtype)
        embed_key = None if dropout_key is None else jax.random.fold_in(dropout_key, config.num_layers)
        x = dropout(shard(x, "batch", "time", "embed"), config.dropout, embed_key, 0, RESIDUAL)

        key_positions, key_segments = positions, segment_ids
        if cache is not None:
            key_positions = write(cache.positions, positions, cache.length)
            key_segments = write(cache.segment_ids, segment_ids, cache.length)
        mask = attention_mask(positions, key_positions, segment_ids, key_segments, config.window)
        bias = alibi_bias(positions, key_positions, config.num_heads) if config.position == "alibi" else None

        layers = self._layer_params(x, positions, mask, bias)
        x, keys_values, captured = run_layers(config, layers, x, positions, mask, bias, cache, dropout_key, capture)
        if config.norm_placement != "post":
            x = Norm(config, name="final_norm")(x)
        if cache is not None and keys_values is not None:
            cache = Cache(*keys_values, key_positions, key_segments, cache.length + tokens.shape[1])
        if not config.tie_embeddings and self.is_initializing():
            _unembed_project(config, name="unembed")(x)
        logits = unembed_hidden(config, self.variables["params"], x) if unembed else None
        return Output(logits, x, cache, captured)

    def _layer_params(self, x: Array, positions: Array, mask: Array, bias: Array | None) -> Any:
        """Parameters of all blocks: each array stacked over layers, or a tuple with one tree a layer."""
        if self.is_initializing():
            block = Block(self.config, parent=None)
            keys = jax.random.split(self.make_rng("params"), self.config.num_layers)
            variables = jax.vmap(lambda key: block.init(key, x, positions, mask, bias))(keys)
            is_axes = lambda node: isinstance(node, Axes)  # noqa: E731
            axes = jax.tree.map(lambda a: Axes(("layers", *a.names)), variables["axes"], is_leaf=is_axes)
            self.put_variable("params", "layers", variables["params"])
            self.put_variable("axes", "layers", axes)
        return self.get_variable("params", "layers")


def _unembed_project(config: TransformerConfig, **kwargs: Any) -> Project:
    return Project(
        config,
        equation="BTD,DV->BTV",
        shape=(config.embed_dim, config.vocabulary),
        axes=("embed", "vocab"),
        out=("batch", "time", "vocab"),
        std=config.init_std,
        use_bias=False,
        **kwargs,
    )


def unembed_hidden(config: TransformerConfig, params: Any, hidden: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
    """Logits, in float32, from the last hidden state."""
    if config.tie_embeddings:
        kernel, axes, equation = params["embed"]["table"], ("vocab", "embed"), "BTD,VD->BTV"
    else:
        kernel, axes, equation = params["unembed"]["kernel"], ("embed", "vocab"), "BTD,DV->BTV"
    kernel = gather(kernel, *axes).astype(config.compute_dtype)
    logits = einsum(equation, hidden, kernel, out=("batch", "time", "vocab"), dtype=jnp.dtype(jnp.float32))
    cap = config.logit_softcap
    return logits if cap is None else cap * jnp.tanh(logits / cap)


def run_layers(
    config: TransformerConfig,
    layers: Any,
    x: Float[Array, "B T D"],
    positions: Int[Array, "B T"],
    mask: Bool[Array, "B T S"],
    bias: Array | None,
    cache: Cache | None,
    dropout_key: Array | None,
    capture: Collection[str],
) -> tuple[Array, tuple[Any, Any] | None, dict[str, Array]]:
    """All blocks in turn: scanned, or unrolled when the config says so or the layers come separately."""
    block = block_function(config)
    start = None if cache is None else cache.length

    def step(x: Array, layer: tuple[Any, Any, Any]) -> tuple[Array, tuple[Any, dict[str, Array]]]:
        params, keys_values, index = layer
        key = None if dropout_key is None else jax.random.fold_in(dropout_key, index)
        new_x, keys_values, weights = block(params, x, positions, mask, bias, keys_values, start, key)
        seen = {"hidden": x, "attention": weights}
        return new_x, (keys_values, {name: seen[name] for name in capture})

    keys_values = None if cache is None else (cache.keys, cache.values)
    separate = isinstance(layers, tuple)
    if config.layer_loop == "unroll" or separate:
        x, keys_values, seen = _unrolled(step, config.num_layers, layers, keys_values, x)
    else:
        x, (keys_values, seen) = jax.lax.scan(step, x, (layers, keys_values, jnp.arange(config.num_layers)))
    if "hidden" in seen:
        seen["hidden"] = jnp.concatenate([seen["hidden"], x[None]])
    return x, keys_values, seen


def _unrolled(step: Callable, num_layers: int, layers: Any, keys_values: Any, x: Array):
    separate = layers if isinstance(layers, tuple) else unstack_layers(layers, num_layers)
    kv_stacked = keys_values is not None and not isinstance(keys_values[0], tuple)
    if kv_stacked:
        kv = unstack_layers(keys_values, num_layers)
    else:
        kv = [None] * num_layers if keys_values is None else list(zip(*keys_values, strict=True))
    new_kv, seen = [], []
    for index in range(num_layers):
        x, (kv_out, seen_here) = step(x, (separate[index], kv[index], index))
        new_kv.append(kv_out)
        seen.append(seen_here)
    stacked_seen = jax.tree.map(lambda *rows: jnp.stack(rows), *seen)
    if keys_values is None:
        return x, None, stacked_seen
    if kv_stacked:
        return x, jax.tree.map(lambda *rows: jnp.stack(rows), *new_kv), stacked_seen
    return x, (tuple(kv[0] for kv in new_kv), tuple(kv[1] for kv in new_kv)), stacked_seen


def unstack_layers(stacked: Any, num_layers: int) -> tuple[Any, ...]:
    """One tree a layer from arrays stacked over layers. The gradient is one concatenation, not a sum of paddings."""
    leaves, structure = jax.tree.flatten(stacked)
    parts = [jax.lax.split(leaf, [1] * num_layers, axis=0) for leaf in leaves]
    return tuple(jax.tree.unflatten(structure, [jnp.squeeze(part[index], 0) for part in parts]) for index in range(num_layers))


def init_params(model: Transformer, key: Array) -> Any:
    """Initial parameters, as plain nested dicts with block parameters stacked over layers."""
    return model.init(key, jnp.zeros((1, 1), jnp.int32))["params"]


def abstract_params(model: Transformer) -> tuple[Any, Any]:
    """Shapes and types of the parameters, and their logical axes, without computing anything."""
    variables = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 1), jnp.int32))
    return variables["params"], variables["axes"]
