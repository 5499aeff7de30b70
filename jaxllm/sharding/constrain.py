"""Layout constraints inside a model: the same call without a mesh, on an Auto mesh, and on an Explicit mesh.

Without a mesh these functions do nothing. On an Auto mesh they pin layouts for the compiler; on an Explicit mesh the
layout is part of the type, and a slip is an error while tracing.
"""

import functools
import math
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import AxisType, PartitionSpec

from jaxllm.sharding.axes import axis_names, spec


def current_mesh() -> jax.sharding.AbstractMesh | None:
    """The mesh set by `use_mesh`, or None."""
    mesh = jax.sharding.get_abstract_mesh()
    return None if mesh.empty else mesh


def is_explicit(mesh: jax.sharding.AbstractMesh) -> bool:
    return AxisType.Explicit in mesh.axis_types


def reshard(x: Array, partition: PartitionSpec) -> Array:
    """`x` in the layout `partition` on the current mesh."""
    mesh = current_mesh()
    if mesh is None:
        return x
    if is_explicit(mesh):
        return jax.sharding.reshard(x, partition)
    return jax.lax.with_sharding_constraint(x, partition)


def shard(x: Array, *names: str | None) -> Array:
    """An activation with its dimensions laid out as the rules say for these logical axes."""
    mesh = current_mesh()
    return x if mesh is None else reshard(x, spec(names, x.shape, mesh))


def gather(parameter: Array, *names: str | None) -> Array:
    """A stored parameter in the layout it is computed with: gathered over `fsdp`, still split over `tensor`. Its gradient is
    summed into the stored layout: each device receives its own part of the sum and no more. On an Auto mesh JAX refuses
    forward-mode differentiation (`jax.jvp`) of it, as of `einsum` with a `dtype`."""
    mesh = current_mesh()
    if mesh is None:
        return parameter
    computed = spec(names, parameter.shape, mesh)
    if is_explicit(mesh):
        return jax.sharding.reshard(parameter, computed)
    return _gathered(parameter, computed, spec(names, parameter.shape, mesh, stored=True))


def gather_activation(x: Array, apart: tuple[str | None, ...], whole: tuple[str | None, ...]) -> Array:
    """An activation laid out as logical axes `apart`, in the layout `whole`. As with `gather`, each device receives its own
    part of the gradient and no more."""
    mesh = current_mesh()
    if mesh is None:
        return x
    if is_explicit(mesh):
        return jax.sharding.reshard(x, spec(whole, x.shape, mesh))
    return _gathered(x, spec(whole, x.shape, mesh), spec(apart, x.shape, mesh))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gathered(parameter: Array, computed: PartitionSpec, stored: PartitionSpec) -> Array:
    # The first constraint keeps the compiler from gathering what the parameter was converted from, twice as many bytes.
    parameter = jax.lax.with_sharding_constraint(parameter, stored)
    return jax.lax.with_sharding_constraint(parameter, computed)


def _forward(parameter: Array, computed: PartitionSpec, stored: PartitionSpec) -> tuple[Array, None]:
    return _gathered(parameter, computed, stored), None


def _backward(computed: PartitionSpec, stored: PartitionSpec, _: None, gradient: Array) -> tuple[Array]:
    return (jax.lax.with_sharding_constraint(gradient, stored),)


_gathered.defvjp(_forward, _backward)


def einsum(
    equation: str, *operands: Array, out: tuple[str | None, ...], dtype: jnp.dtype | None = None, precision: str | None = None
) -> Array:
    """`jnp.einsum` whose result has the logical axes `out`.

    Args:
      out: one logical axis for each letter of the result; a contraction over a split axis then becomes a sum over devices.
      dtype: accumulate in and return this type; the operands' type by default. Gradients are products of the operands' type
        then, too: an accelerator multiplies float32 many times slower.
      precision: "highest" where an accelerator would multiply float32 in fewer bits.
    """
    mesh = current_mesh()
    if mesh is None:
        return _multiply(equation, None, dtype, precision, *operands)
    inputs, letters_out = equation.split("->")
    sizes = {
        letter: size
        for letters, operand in zip(inputs.split(","), operands, strict=True)
        for letter, size in zip(letters, operand.shape, strict=True)
    }
    partition = spec(out, [sizes[letter] for letter in letters_out], mesh)
    if is_explicit(mesh):
        return _multiply(equation, partition, dtype, precision, *operands)
    return jax.lax.with_sharding_constraint(_multiply(equation, None, dtype, precision, *operands), partition)


def _multiply(
    equation: str, partition: PartitionSpec | None, dtype: jnp.dtype | None, precision: str | None, *operands: Array
) -> Array:
    own = jnp.result_type(*operands)
    if dtype is None or dtype == own:
        return jnp.einsum(equation, *operands, precision=precision, out_sharding=partition)
    return _widened(equation, partition, dtype, precision, *(operand.astype(own) for operand in operands))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _widened(
    equation: str, partition: PartitionSpec | None, dtype: jnp.dtype, precision: str | None, *operands: Array
) -> Array:
    return jnp.einsum(equation, *operands, preferred_element_type=dtype, precision=precision, out_sharding=partition)


def _widened_forward(equation, partition, dtype, precision, *operands):
    return _widened(equation, partition, dtype, precision, *operands), operands


def _widened_backward(equation, partition, dtype, precision, operands, cotangent):
    multiply = lambda *operands: jnp.einsum(equation, *operands, precision=precision, out_sharding=partition)  # noqa: E731
    return jax.vjp(multiply, *operands)[1](cotangent.astype(operands[0].dtype))


_widened.defvjp(_widened_forward, _widened_backward)


def map_shards(function: Callable, given: Any, out: Any, axes: Collection[str] | None = None) -> Callable:
    """`jax.shard_map` on the current mesh, where it may stand inside another one.

    Args:
      axes: mesh axes that the function sees taken apart. By default all that are not already.
    """
    mesh = current_mesh()
    assert mesh is not None
    free = {name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind != AxisType.Manual}
    names = free if axes is None else set(axes)
    mapped = jax.shard_map(function, in_specs=given, out_specs=out, axis_names=names, check_vma=False)
    if not is_explicit(mesh):
        return mapped

    def call(*operands: Any) -> Any:  # JAX 0.12 refuses operands in another layout there
        is_spec = lambda node: isinstance(node, PartitionSpec)  # noqa: E731
        lay_out = lambda spec, part: jax.tree.map(lambda x: _split_as(x, spec, names), part)  # noqa: E731
        return mapped(*jax.tree.map(lay_out, given, operands, is_leaf=is_spec))

    return call


def _split_as(x: Array, partition: PartitionSpec, axes: Collection[str]) -> Array:
    """`x` on an Explicit mesh, split over some mesh axes as `partition` says, and over others as it is."""
    own = jax.typeof(x).sharding.spec
    wanted = [axis_names(entry) for entry in (*partition, *[None] * (len(own) - len(partition)))]
    kept = [tuple(axis for axis in axis_names(entry) if axis not in axes) for entry in own]
    return jax.sharding.reshard(x, PartitionSpec(*((*new, *old) or None for new, old in zip(wanted, kept, strict=True))))


def scatter_sum(x: Array, axes: str | tuple[str, ...], dimension: int) -> Array:
    """Inside `map_shards`: the sum over mesh axes, of which each device keeps its part along a dimension."""
    mesh = current_mesh()
    assert mesh is not None
    if not is_explicit(mesh):
        return jax.lax.psum_scatter(x, axes, scatter_dimension=dimension, tiled=True)
    names = (axes,) if isinstance(axes, str) else axes  # JAX cannot do that beside Explicit axes yet
    size = x.shape[dimension] // math.prod(mesh.shape[name] for name in names)
    start = jax.lax.axis_index(names) * size
    return jax.lax.dynamic_slice_in_dim(jax.lax.psum(x, names), start, size, axis=dimension)


def gather_parts(x: Array, axis: str) -> Array:
    """Inside `map_shards`: [n, ...] of each of P devices along a mesh axis as [P n, ...] on all of them."""
    mesh = current_mesh()
    assert mesh is not None
    if not is_explicit(mesh):
        return jax.lax.all_gather(x, axis, axis=0, tiled=True)
    if x.dtype == jnp.bool_:  # JAX cannot do that beside Explicit axes yet, but it can sum
        return gather_parts(x.astype(jnp.int8), axis).astype(jnp.bool_)
    parts = mesh.shape[axis]
    here = jnp.expand_dims(jnp.arange(parts) == jax.lax.axis_index(axis), tuple(range(1, x.ndim + 1)))
    apart = jax.lax.psum(jnp.where(here, x[None], jnp.zeros_like(x)[None]), axis)
    return apart.reshape(parts * x.shape[0], *x.shape[1:])
