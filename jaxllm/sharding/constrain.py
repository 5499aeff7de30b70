"""Layout constraints inside a model: the same call without a mesh, on an Auto mesh, and on an Explicit mesh.

Without a mesh these functions do nothing. On an Auto mesh they pin layouts for the compiler; on an Explicit mesh the
layout is part of the type, and a slip is an error while tracing.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import AxisType, PartitionSpec

from jaxllm.sharding.axes import spec


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
    """A stored parameter in the layout it is computed with: gathered over `fsdp`, still split over `tensor`."""
    return shard(parameter, *names)


def einsum(
    equation: str, *operands: Array, out: tuple[str | None, ...], dtype: jnp.dtype | None = None, precision: str | None = None
) -> Array:
    """`jnp.einsum` whose result has the logical axes `out`.

    Args:
      out: one logical axis for each letter of the result; a contraction over a split axis then becomes a sum over devices.
      dtype: accumulate in and return this type; the operands' type by default.
      precision: "highest" where an accelerator would multiply float32 in fewer bits.
    """
    mesh = current_mesh()
    if mesh is None:
        return jnp.einsum(equation, *operands, preferred_element_type=dtype, precision=precision)
    inputs, letters_out = equation.split("->")
    sizes = {
        letter: size
        for letters, operand in zip(inputs.split(","), operands, strict=True)
        for letter, size in zip(letters, operand.shape, strict=True)
    }
    partition = spec(out, [sizes[letter] for letter in letters_out], mesh)
    if is_explicit(mesh):
        return jnp.einsum(equation, *operands, preferred_element_type=dtype, precision=precision, out_sharding=partition)
    result = jnp.einsum(equation, *operands, preferred_element_type=dtype, precision=precision)
    return jax.lax.with_sharding_constraint(result, partition)
