"""Attention: who may look at whom, the weighted mean, and the layer around it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Bool, Float, Int

from jaxllm.models.cache import EVERY, WHOLE, write
from jaxllm.models.config import TransformerConfig
from jaxllm.models.kernels import Segments, kernel_attention, kernel_takes
from jaxllm.models.layers import READ, RESIDUAL, Norm, Project, dropout, parameter, read, take
from jaxllm.models.position import Rotation, rope
from jaxllm.sharding import Order, einsum, gather_activation, shard
from jaxllm.sharding.constrain import current_mesh

# B batch, T query time, S key time, D residual width, N query heads, K key/value heads, G = N / K, H head width

APART = ("batch", "kv_heads", "time", "head_dim")
"""Logical axes of keys and values as they are made: where a mesh splits sequences, each device has its part."""


def attention_mask(
    query_positions: Int[Array, "B T"],
    key_positions: Int[Array, "B S"],
    query_segments: Int[Array, "B T"],
    key_segments: Int[Array, "B S"],
    *,
    window: int | None = None,
    causal: bool = True,
    prefix: Bool[Array, "B S"] | None = None,
) -> Bool[Array, "B T S"]:
    """True where a query may look at a key: in the same segment, within the window, not padding, and not later if causal.

    Args:
      prefix: keys that the whole segment sees, later ones too.
    """
    distance = query_positions[:, :, None] - key_positions[:, None, :]
    allowed = segments_match(query_segments, key_segments)
    if causal:
        earlier = distance >= 0
        allowed &= earlier if prefix is None else earlier | prefix[:, None, :]
    return allowed if window is None else allowed & (jnp.abs(distance) < window)


def segments_match(query_segments: Int[Array, "B T"], key_segments: Int[Array, "B S"]) -> Bool[Array, "B T S"]:
    """True where query and key are of one segment, or the key is there for all, and the key is not padding."""
    keys = key_segments[:, None, :]
    return ((query_segments[:, :, None] == keys) | (keys == EVERY)) & (keys != 0)


def attention_weights(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B K S H"],
    mask: Bool[Array, "B T S"],
    bias: Float[Array, "B N T S"] | None = None,
    softcap: float | None = None,
    scale: float | None = None,
) -> Float[Array, "B N T S"]:
    """softmax(scale · q kᵀ + bias) over the keys that `mask` allows, in float32.

    Args:
      mask: a row with no True gets equal weights, not NaN.
      softcap: c in c · tanh(logit / c), applied before the bias.
      scale: by default 1 / √H.
    """
    q_BTKGH = _group(q * (q.shape[-1] ** -0.5 if scale is None else scale), k.shape[1])
    logits = einsum(
        "BTKGH,BKSH->BKGTS", q_BTKGH, k, out=("batch", "kv_heads", None, "time", "cache"), dtype=jnp.dtype(jnp.float32)
    )
    if softcap is not None:
        logits = softcap * jnp.tanh(logits / softcap)
    if bias is not None:
        logits = logits + bias.reshape(logits.shape)
    logits = jnp.where(mask[:, None, None], logits, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(logits, axis=-1)
    return weights.reshape(q.shape[0], q.shape[2], q.shape[1], k.shape[2])


def attend(weights: Float[Array, "B N T S"], v: Float[Array, "B K S H"]) -> Float[Array, "B T N H"]:
    """The weighted mean of values; each group of N / K query heads shares a value head."""
    B, N, T, S = weights.shape
    K, H = v.shape[1], v.shape[3]
    weights_BKGTS = weights.reshape(B, K, N // K, T, S)
    out = einsum("BKGTS,BKSH->BTKGH", weights_BKGTS, v, out=("batch", "time", "kv_heads", None, "head_dim"))
    return out.reshape(B, T, N, H)


def _group(q: Float[Array, "B T N H"], num_kv_heads: int) -> Float[Array, "B T K G H"]:
    B, T, N, H = q.shape
    return q.reshape(B, T, num_kv_heads, N // num_kv_heads, H)


class Seen(NamedTuple):
    """What the queries of one layer may look at, and how."""

    mask: Bool[Array, "B T S"]
    bias: Float[Array, "B N T S"] | None = None
    """Added to the attention logits."""
    rotation: Rotation | None = None
    """Of queries and keys."""
    distance: Int[Array, "B T S"] | None = None
    """Query position - key position, for position="relative_key" and "relative_key_query"."""
    head_mask: Float[Array, " N"] | None = None
    """Factor on each head's attention weights."""
    segments: Segments | None = None
    """What a kernel is told instead of `mask`; None where it would not be the same, or where the weights are asked for."""
    local: Bool[Array, ""] | None = None
    """Whether the window holds in this layer, where the config leaves it open."""
    order: Order | None = None
    """Of the tokens, where it is not that of their sequence."""


class Attention(nn.Module):
    """Multi-head, grouped-query or multi-query attention to the same tokens, or to an encoder's output (`cross`)."""

    config: TransformerConfig
    cross: bool = False
    removed: int = 0
    """Heads that pruning has taken from this layer."""

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        seen: Seen,
        memory: Float[Array, "B S M"] | None = None,
        keys_values: tuple[Array, Array] | None = None,
        start: Int[Array, ""] | None = None,
        dropout_key: Array | None = None,
    ) -> tuple[Float[Array, "B T D"], tuple[Array, Array] | None, Float[Array, "B N T S"] | None]:
        """Returns the output, the (keys, values) to keep, and the attention weights: unused they cost nothing, and a
        kernel has none.

        Args:
          memory: the encoder's output, to make keys and values from; without it `keys_values` are those of an earlier call.
          keys_values: the cache; of the same tokens, it is written at `start`.
        """
        config, num_heads = self.config, self.config.num_heads - self.removed
        kv_heads = num_heads * config.kv_heads // config.num_heads
        x = read(x)
        q = self._normalized(self._clipped(self._heads("query", "heads", num_heads, x)), "query", "heads")
        if self.cross and memory is None and keys_values is not None:
            k, v = keys_values
        else:
            source = x if memory is None else memory
            k = self._normalized(self._clipped(self._heads("key", "kv_heads", kv_heads, source)), "key", "kv_heads")
            v = self._clipped(self._heads("value", "kv_heads", kv_heads, source))
            if seen.rotation is not None:
                q, k = rope(q, seen.rotation), rope(k, seen.rotation)
            k, v = (shard(jnp.swapaxes(x, 1, 2), *APART) for x in (k, v))
            if keys_values is not None and start is not None:
                k, v = (write(cached, new, start, WHOLE) for cached, new in zip(keys_values, (k, v), strict=True))
            elif self.cross:
                k, v = gather_activation(k, APART, WHOLE), gather_activation(v, APART, WHOLE)
        kept = (k, v) if self.cross or keys_values is not None else None
        k, v = (self._match_mesh(x, num_heads, APART if kept is None else WHOLE) for x in (k, v))
        if self._kernel_computes(seen, cached=keys_values is not None):
            assert seen.segments is not None
            local = config.window is not None if seen.local is None else seen.local
            mean = kernel_attention(config, q, k, v, seen.segments, local, seen.order)
            return self._output(shard(mean, "batch", "time", "heads", "head_dim")), kept, None
        if kept is None:
            k, v = gather_activation(k, APART, WHOLE), gather_activation(v, APART, WHOLE)
        bias = seen.bias if seen.distance is None else self._distance_bias(q, k, seen.distance)
        weights = attention_weights(q, k, seen.mask, bias, config.attention_softcap, config.attention_scale)
        site = 3 if self.cross else 0
        used = dropout(weights, config.dropout, dropout_key, site, ("batch", "heads", "time", "cache"))
        if seen.head_mask is not None:
            used = used * seen.head_mask[None, :, None, None]
        mean = shard(attend(used.astype(v.dtype), v), "batch", "time", "heads", "head_dim")
        return self._output(mean), kept, weights

    def _kernel_computes(self, seen: Seen, *, cached: bool) -> bool:
        plain = seen.bias is None and seen.distance is None and seen.head_mask is None
        if self.cross or cached or seen.segments is None or not plain:
            return False
        return kernel_takes(self.config, seen.segments.queries.shape[1], seen.order)

    def _heads(self, name: str, axis: str, count: int, x: Array) -> Array:
        config = self.config
        return Project(
            config,
            equation="BTD,DNH->BTNH",
            shape=(x.shape[-1], count, config.head_width),
            axes=("embed", axis, "head_dim"),
            out=("batch", "time", axis, "head_dim"),
            std=config.init_std,
            use_bias=config.bias if config.qkv_bias is None else config.qkv_bias,
            quantize=True,
            name=name,
        )(x)

    def _output(self, mean: Float[Array, "B T N H"]) -> Float[Array, "B T D"]:
        config = self.config
        return Project(
            config,
            equation="BTNH,NHD->BTD",
            shape=(*mean.shape[2:], config.embed_dim),
            axes=("heads", "head_dim", "embed"),
            out=RESIDUAL,
            std=config.init_std / (2 * config.num_layers) ** 0.5,
            use_bias=config.bias if config.attention_output_bias is None else config.attention_output_bias,
            quantize=True,
            name="output",
        )(mean)

    def _clipped(self, x: Array) -> Array:
        clip = self.config.qkv_clip
        return x if clip is None else jnp.clip(x, -clip, clip)

    def _normalized(self, x: Array, name: str, axis: str) -> Array:
        if self.config.qk_norm is None:
            return x
        axes = ("head_dim",) if self.config.qk_norm == "head" else (axis, "head_dim")
        return Norm(self.config, axes=axes, rms=True, name=f"{name}_norm")(x)

    def _distance_bias(
        self, q: Float[Array, "B T N H"], k: Float[Array, "B K S H"], distance: Int[Array, "B T S"]
    ) -> Float[Array, "B N T S"]:
        """scale · q · r(distance), and with relative_key_query + scale · k · r(distance), r a learned vector a distance."""
        config = self.config
        shape = (2 * config.context_len - 1, config.head_width)
        initial = nn.initializers.normal(config.init_std)
        table = parameter(self, config, "distance", initial, shape, ("position", "head_dim"))
        index = distance + config.context_len - 1
        r = take(table, index.reshape(index.shape[0], -1), READ).reshape(*index.shape, -1)
        bias = einsum("BTNH,BTSH->BNTS", q, r, out=("batch", "heads", "time", "cache"))
        if config.position == "relative_key_query":
            of_key = einsum("BKSH,BTSH->BKTS", k, r, out=("batch", "kv_heads", "time", "cache"))
            B, K, T, S = of_key.shape
            bias = (bias.reshape(B, K, -1, T, S) + of_key[:, :, None]).reshape(bias.shape)
        return bias * (config.head_width**-0.5 if config.attention_scale is None else config.attention_scale)

    def _match_mesh(
        self, k: Float[Array, "B K S H"], num_heads: int, axes: tuple[str, ...]
    ) -> Float[Array, "B K S H"] | Float[Array, "B N S H"]:
        """Repeats key/value heads for the query heads where the tensor axis splits the latter but not the former."""
        mesh = current_mesh()
        if mesh is None or k.shape[1] % mesh.shape["tensor"] == 0:
            return k
        return shard(jnp.repeat(k, num_heads // k.shape[1], axis=1), axes[0], "heads", *axes[2:])
