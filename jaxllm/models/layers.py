"""The primitives that own parameters: projection, normalization, embedding.

Each asks for its parameter by logical axes. During `init` the axes are recorded in the collection `axes`, beside
`params`; `apply` sees plain nested dicts of arrays.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.sharding import PartitionSpec
from jaxtyping import Float, Int

from jaxllm.models.config import TransformerConfig
from jaxllm.models.options import Activation
from jaxllm.models.quantized import quantized_einsum
from jaxllm.sharding import Axes, axis_names, einsum, gather, reshard, shard, spec
from jaxllm.sharding.constrain import current_mesh, is_explicit


def gelu(x: Float[Array, "*S"]) -> Float[Array, "*S"]:
    """x Φ(x) = x/2 (1 + erf(x/√2)). `jax.nn.gelu` goes by erfc, which takes longer on a CPU."""
    return 0.5 * x * (1.0 + jax.lax.erf(x * 0.5**0.5))


RESIDUAL = ("batch", "residual_time", "embed")
"""Logical axes of the residual stream: where a mesh splits heads, it splits the tokens between sublayers."""
READ = ("batch", "time", "embed")
"""Logical axes of what a sublayer reads."""


def read(x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    """The residual stream, or a norm of it, as a sublayer reads it. The first constraint keeps the compiler from gathering what
    it was converted from, twice as many bytes."""
    return shard(shard(x, *RESIDUAL), *READ)


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
    module: nn.Module,
    config: TransformerConfig,
    name: str,
    initializer: Callable,
    shape: Sequence[int],
    axes: Sequence[str],
    dtype: str | None = None,
    gathered: bool = True,
) -> Array:
    """A parameter of `module` in the layout and in the type it is computed with.

    Args:
      dtype: that type, where it is not the config's. What travels between devices is already in it.
      gathered: False leaves it in the layout in which it is stored.
    """
    if module.is_initializing():
        module.put_variable("axes", name, Axes(tuple(axes)))
    stored = module.param(name, initializer, tuple(shape), jnp.dtype(config.param_dtype))
    converted = stored.astype(dtype or config.compute_dtype)
    mesh = current_mesh()
    if gathered or mesh is None:
        return gather(converted, *axes)
    return reshard(converted, spec(axes, converted.shape, mesh, stored=True))


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
    quantize: bool = False
    """Whether the config's `matmul_dtype` is meant for this one."""

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        config = self.config
        kernel = parameter(self, config, "kernel", nn.initializers.normal(self.std), self.shape, self.axes)
        if self.quantize and config.matmul_dtype is not None and not self.is_initializing():
            y = quantized_einsum(self.equation, x, kernel, out=self.out, dtype=config.matmul_dtype)
        else:
            y = einsum(self.equation, x, kernel, out=self.out)
        if not self.use_bias:
            return y
        inputs, result = self.equation.split("->")
        letters = inputs.split(",")[1]
        kept = [letter in result for letter in letters]
        shape = [size for size, keep in zip(self.shape, kept, strict=True) if keep]
        axes = [axis for axis, keep in zip(self.axes, kept, strict=True) if keep]
        bias = parameter(self, config, "bias", nn.initializers.zeros, shape, axes)
        return y + jnp.expand_dims(bias, tuple(range(y.ndim - len(shape))))


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
        vector = parameter(self, self.config, name, initial, shape, self.axes, "float32")
        return jnp.expand_dims(vector, tuple(range(ndim - len(shape))))


class Embed(nn.Module):
    """table[ids]: one learned vector an id."""

    config: TransformerConfig
    size: int
    axis: str

    @nn.compact
    def __call__(self, ids: Int[Array, "B T"]) -> Float[Array, "B T D"]:
        config = self.config
        axes, initial = (self.axis, "embed"), nn.initializers.normal(config.init_std)
        if self.is_initializing():
            self.put_variable("axes", "table", Axes(axes))
        table_VD = self.param("table", initial, (self.size, config.embed_dim), jnp.dtype(config.param_dtype))
        return look_up(table_VD, ids, self.axis, config.compute_dtype)


def look_up(table_VD: Float[Array, "V D"], ids: Int[Array, "B T"], axis: str, dtype: str) -> Float[Array, "B T D"]:
    """table[ids] of a table as it is stored: where its width is split, each device looks up its share of the width for the
    tokens of all, and the shares are exchanged. That moves tokens instead of the table, and its gradient does not move.

    Args:
      dtype: of the result, and of what is exchanged, there and back.
    """
    mesh = current_mesh()
    if mesh is None:
        return table_VD[ids].astype(dtype)
    stored = spec((axis, "embed"), table_VD.shape, mesh, stored=True)
    out = spec(RESIDUAL, (*ids.shape, table_VD.shape[1]), mesh)
    if stored[1] is None:
        return take(reshard(table_VD, stored), ids).astype(dtype)
    first, *others = _exchanges(out, stored[1])
    ids = reshard(ids, PartitionSpec(*first[:2]))
    if is_explicit(mesh):
        x = reshard(table_VD, PartitionSpec(None, stored[1])).at[ids].get(out_sharding=first)
    else:
        x = reshard(reshard(table_VD, stored)[ids], first)
    x = x.astype(dtype)
    for layout in (first, *others):
        x = reshard(x, layout)
    return x


def _exchanges(out: PartitionSpec, stored: Any) -> list[PartitionSpec]:
    """Layouts between [B, T, D] with its width split as a table's is stored, and `out`. Mesh axes move to the sequence first,
    then to the rows: of both at once the compiler would make a gathering of everything."""
    (rows, time), width = (axis_names(entry) for entry in out[:2]), axis_names(stored)
    rows = tuple(name for name in rows if name not in width)
    moved = tuple(name for name in time if name in width)
    left = tuple(name for name in width if name not in moved)
    steps = [(rows, () if moved else time, width), (rows, moved or time, left), (rows, time, left)]
    return [*(PartitionSpec(*(names or None for names in step)) for step in steps), out]


def take(table_VD: Float[Array, "V D"], ids: Int[Array, "B T"], axes: tuple[str, str, str] = RESIDUAL) -> Float[Array, "B T D"]:
    """table[ids], laid out as an activation with these axes also where the table is split over its rows."""
    mesh = current_mesh()
    if mesh is None:
        return table_VD[ids]
    out = spec(axes, (*ids.shape, table_VD.shape[1]), mesh)
    if is_explicit(mesh):
        return reshard(table_VD, PartitionSpec(None, None)).at[ids].get(out_sharding=out)
    return reshard(table_VD[ids], out)


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
