"""Shardings of whole trees, from one abstract tree and its logical axes."""

import math
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxllm.sharding.axes import BATCH_AXES, Axes, spec


def use_mesh(mesh: Mesh):
    """A context in which `shard`, `gather` and `einsum` see this mesh; under `with mesh:` they would not."""
    return jax.set_mesh(mesh)


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch_parts(mesh: Mesh) -> int:
    """Parts into which the rows of a batch are split."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The layout of every array of a batch: split by rows."""
    split = tuple(axis for axis in BATCH_AXES if mesh.shape[axis] > 1)
    return NamedSharding(mesh, PartitionSpec(split or None))


def shardings_for(abstract: Any, axes: Any, mesh: Mesh) -> Any:
    """A tree of NamedShardings for parameters at rest.

    Args:
      abstract: a tree of arrays or ShapeDtypeStructs.
      axes: the same tree with an `Axes` in place of each array.
    """
    return jax.tree.map(
        lambda names, leaf: NamedSharding(mesh, spec(names.names, leaf.shape, mesh, stored=True)),
        axes,
        abstract,
        is_leaf=lambda node: isinstance(node, Axes),
    )


def placed_shapes(abstract: Any, axes: Any, mesh: Mesh) -> Any:
    """The shapes and types of parameters, each with its sharding at rest; arguments as those of `shardings_for`."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        abstract,
        shardings_for(abstract, axes, mesh),
    )
