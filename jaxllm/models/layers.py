"""The primitives that own parameters: projection, normalization, embedding.

Each asks for its parameter by logical axes. During `init` the axes are recorded in the collection `axes`, beside
`params`; `apply` sees plain nested dicts of arrays.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jaxtyping import Float, Int

from jaxllm.models.config import TransformerConfig
from jaxllm.models.options import Activation
from jaxllm.sharding import Axes, einsum, gather, reshard, shard, spec
from jaxllm.sharding.constrain import current_mesh, is_explicit


def gelu(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """x Φ(x) = x/2 (1 + erf(x/√2)). `jax.nn.gelu` goes by erfc, which takes longer on a CPU."""
    return 0.5 * x * (1.0 + jax.lax.erf(x * 0.5**0.5))


ACTIVATIONS: dict[Activation, Callable[[Array], Array]] = {
    "gelu": gelu,
    "gelu_tanh": jax.nn.gelu,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "swiglu": jax.nn.silu,
    "geglu": gelu,
    "geglu_tanh": jax.nn.gelu,
    "reglu": jax.nn.relu,
}
GATED: frozenset[Activation] = frozenset(("swiglu", "geglu", "geglu_tanh", "reglu"))


def parameter(
    module: nn.Module, name: str, initializer: Callable, shape: Sequence[int], axes: Sequence[str], dtype: jnp.dtype
) -> Array:
    """A parameter of `module` in the layout it is computed with, and in its stored type."""
    if module.is_initializing():
        module.put_variable("axes", name, Axes(tuple(axes)))
    return gather(module.param(name, initializer, tuple(shape), dtype), *axes)


class Project(nn.Module):
    """x · W + b for any number of contracted and produced dimensions, as one einsum.

    `equation` names x and W, e.g. "BTD,DNH->BTNH"; `axes` are W's logical axes, `out` those of the result.
    """

    config: TransformerConfig
    equation: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    out: tuple[str | None, ...]
    std: float
    use_bias: bool

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        dtype, param_dtype = jnp.dtype(self.config.compute_dtype), jnp.dtype(self.config.param_dtype)
        kernel = parameter(self, "kernel", nn.initializers.normal(self.std), self.shape, self.axes, param_dtype)
        y = einsum(self.equation, x, kernel.astype(dtype), out=self.out)
        if not self.use_bias:
            return y
        inputs, result = self.equation.split("->")
        letters = inputs.split(",")[1]
        kept = [letter in result for letter in letters]
        shape = [size for size, keep in zip(self.shape, kept, strict=True) if keep]
        axes = [axis for axis, keep in zip(self.axes, kept, strict=True) if keep]
        bias = parameter(self, "bias", nn.initializers.zeros, shape, axes, param_dtype)
        return y + jnp.expand_dims(bias.astype(dtype), tuple(range(y.ndim - len(shape))))


class Norm(nn.Module):
    """LayerNorm, (x - mean) / sqrt(var + ε) · scale + bias, or RMSNorm, x / sqrt(mean(x²) + ε) · scale, in float32.

    `axes` are the logical axes of the dimensions, the last of x, over which mean and variance are taken.
    """

    config: TransformerConfig
    axes: tuple[str, ...] = ("embed",)
    rms: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        config, dims = self.config, len(self.axes)
        over, shape = tuple(range(-dims, 0)), x.shape[-dims:]
        keep = jax.lax.optimization_barrier if config.norm_barrier else lambda value: value
        y = keep(x).astype(jnp.float32)
        rms = self.rms or config.norm == "rms_norm"
        if not rms:
            y = y - jnp.mean(y, axis=over, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=over, keepdims=True) + config.norm_epsilon)
        if config.norm_scale:
            initial = nn.initializers.zeros if config.norm_unit_offset else nn.initializers.ones
            scale = self._vector("scale", initial, shape, x.ndim)
            y = y * (1.0 + scale if config.norm_unit_offset else scale)
        if config.norm_scale and config.norm_bias and not rms:
            y = y + self._vector("bias", nn.initializers.zeros, shape, x.ndim)
        return keep(y.astype(x.dtype))

    def _vector(self, name: str, initial: Callable, shape: Sequence[int], ndim: int) -> Float[Array, "..."]:
        vector = parameter(self, name, initial, shape, self.axes, jnp.dtype(self.config.param_dtype))
        return jnp.expand_dims(vector.astype(jnp.float32), tuple(range(ndim - len(shape))))


class Embed(nn.Module):
    """table[ids]: one learned vector an id."""

    config: TransformerConfig
    size: int
    axis: str

    @nn.compact
    def __call__(self, ids: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        config = self.config
        table_VD = parameter(
            self,
            "table",
            nn.initializers.normal(config.init_std),
            (self.size, config.embed_dim),
            (self.axis, "embed"),
            jnp.dtype(config.param_dtype),
        ).astype(config.compute_dtype)
        return take(table_VD, ids)


def take(table_VD: Float[Array, "V D"], ids: Int[Array, "B T"]) -> Float[Array, "B T D"]:
    """table[ids], laid out as an activation also where the table is split over its rows."""
    mesh = current_mesh()
    if mesh is None:
        return table_VD[ids]
    out = spec(("batch", "time", "embed"), (*ids.shape, table_VD.shape[1]), mesh)
    if is_explicit(mesh):
        return reshard(table_VD, jax.sharding.PartitionSpec(None, None)).at[ids].get(out_sharding=out)
    return reshard(table_VD[ids], out)


RESIDUAL = ("batch", "time", "embed")
"""Logical axes of the residual stream."""


def dropout(x: Float[Array, "*S"], rate: float, key: Array | None, site: int, axes: Sequence[str]) -> Float[Array, "*S"]:
    """`x` with each value dropped with probability `rate` and the rest scaled up; `x` itself without a key.

    Args:
      site: tells apart the places in a block that share one key.
      axes: the logical axes of `x`.
    """
    if key is None or rate == 0:
        return x
    keep = shard(jax.random.bernoulli(jax.random.fold_in(key, site), 1 - rate, x.shape), *axes)
    return jnp.where(keep, shard(x, *axes) / (1 - rate), jnp.zeros_like(x))
