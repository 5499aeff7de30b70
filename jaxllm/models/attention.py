"""Attention: who may look at whom, the weighted mean, and the layer around it."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Bool, Float, Int

from jaxllm.models.cache import write
from jaxllm.models.config import TransformerConfig
from jaxllm.models.layers import Norm, Project, dropout
from jaxllm.models.position import alibi_slopes, rope
from jaxllm.sharding import einsum, shard
from jaxllm.sharding.constrain import current_mesh

# B batch, T query time, S key time, D residual width, N query heads, K key/value heads, G = N / K, H head width


def attention_mask(
    query_positions: Int[Array, "B T"],
    key_positions: Int[Array, "B S"],
    query_segments: Int[Array, "B T"],
    key_segments: Int[Array, "B S"],
    window: int | None,
) -> Bool[Array, "B T S"]:
    """True where a query may look at a key: not later, in the same segment, within the window, and not padding."""
    distance = query_positions[:, :, None] - key_positions[:, None, :]
    allowed = (distance >= 0) & (query_segments[:, :, None] == key_segments[:, None, :])
    allowed &= (key_segments != 0)[:, None, :]
    return allowed if window is None else allowed & (distance < window)


def alibi_bias(query_positions: Int[Array, "B T"], key_positions: Int[Array, "B S"], num_heads: int) -> Float[Array, "B N T S"]:
    """-slope_n · distance, to be added to the attention logits."""
    distance = query_positions[:, None, :, None] - key_positions[:, None, None, :]
    return -jnp.asarray(alibi_slopes(num_heads))[None, :, None, None] * jnp.abs(distance).astype(jnp.float32)


def attention_weights(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B K S H"],
    mask: Bool[Array, "B T S"],
    bias: Float[Array, "B N T S"] | None = None,
    softcap: float | None = None,
) -> Float[Array, "B N T S"]:
    """softmax(q kᵀ / √H + bias) over the keys that `mask` allows, in float32.

    Args:
      mask: a row with no True gets equal weights, not NaN.
      softcap: c in c · tanh(logit / c), applied before the bias.
    """
    q_BTKGH = _group(q * q.shape[-1] ** -0.5, k.shape[1])
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


class Attention(nn.Module):
    """Multi-head, grouped-query or multi-query self-attention, with the cache passed in and handed back."""

    config: TransformerConfig

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B T D"],
        positions: Int[Array, "B T"],
        mask: Bool[Array, "B T S"],
        bias: Float[Array, "B N T S"] | None,
        cache: tuple[Array, Array] | None,
        start: Int[Array, ""] | None,
        dropout_key: Array | None,
    ) -> tuple[Float[Array, "B T D"], tuple[Array, Array] | None, Float[Array, "B N T S"]]:
        """Returns the output, the updated (keys, values), and the attention weights (unused ones cost nothing)."""
        config = self.config
        q = self._heads("query", "heads", config.num_heads, x)
        k = self._heads("key", "kv_heads", config.kv_heads, x)
        v = self._heads("value", "kv_heads", config.kv_heads, x)
        if config.qk_norm:
            q = Norm(config, axis="head_dim", rms=True, name="query_norm")(q)
            k = Norm(config, axis="head_dim", rms=True, name="key_norm")(k)
        if config.position == "rotary":
            q, k = rope(q, positions, config.rope_theta), rope(k, positions, config.rope_theta)
        k, v = jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2)
        if cache is not None and start is not None:
            k, v = write(cache[0], k, start, axis=2), write(cache[1], v, start, axis=2)
            cache = (k, v)
        k, v = self._match_mesh(k), self._match_mesh(v)
        weights = attention_weights(q, k, mask, bias, config.attention_softcap)
        dropped = dropout(weights, config.dropout, dropout_key, 0, ("batch", "heads", "time", "cache")).astype(v.dtype)
        mean = shard(attend(dropped, v), "batch", "time", "heads", "head_dim")
        output = Project(
            config,
            equation="BTNH,NHD->BTD",
            shape=(config.num_heads, config.head_width, config.embed_dim),
            axes=("heads", "head_dim", "embed"),
            out=("batch", "time", "embed"),
            std=config.init_std / (2 * config.num_layers) ** 0.5,
            use_bias=config.bias,
            name="output",
        )(mean)
        return output, cache, weights

    def _heads(self, name: str, axis: str, count: int, x: Array) -> Array:
        config = self.config
        return Project(
            config,
            equation="BTD,DNH->BTNH",
            shape=(config.embed_dim, count, config.head_width),
            axes=("embed", axis, "head_dim"),
            out=("batch", "time", axis, "head_dim"),
            std=config.init_std,
            use_bias=config.bias,
            name=name,
        )(x)

    def _match_mesh(self, k: Float[Array, "B K S H"]) -> Float[Array, "B K S H"] | Float[Array, "B N S H"]:
        """Repeats key/value heads for the query heads where the tensor axis splits the latter but not the former."""
        mesh = current_mesh()
        if mesh is None or k.shape[1] % mesh.shape["tensor"] == 0:
            return k
        return shard(jnp.repeat(k, self.config.num_heads // k.shape[1], axis=1), "batch", "heads", "cache", "head_dim")
