"""Layers split over a mesh's stages: the batch passes through them in parts, one behind the other (GPipe, arXiv:1811.06965).

Outside the layers the rows of a batch are spread over the stages, too, so that embedding and loss are not computed twice.
Inside, at each tick every stage computes one part and hands it to the next stage; the first and last ticks leave stages
idle, S - 1 of M + S - 1 with S stages and M parts.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec
from jaxtyping import Float, Int

from jaxllm.sharding import gather_parts, map_shards, reshard, scatter_sum
from jaxllm.sharding.axes import BATCH_AXES
from jaxllm.sharding.constrain import current_mesh, is_explicit

AXIS = "stage"
Run = Callable[[Any, Float[Array, "b T D"], Any, Int[Array, ""]], tuple[Float[Array, "b T D"], Any]]
"""`run(layers, x, examples, number) -> (x, kept)`: some layers over part `number` of a batch; what is kept of them has axes
[layers, b, ...]."""


def stage_count(rows: int) -> int:
    """Stages that a batch of this many rows can pass through; 1 where the mesh has none, or the rows do not divide, which is
    warned of where there are several."""
    mesh = current_mesh()
    stages = 1 if mesh is None else mesh.shape[AXIS]
    if rows % stages == 0:
        return stages
    if rows > 1:  # a row alone, such as a prompt, has no parts
        warnings.warn(
            f"{rows} rows do not pass through the {stages} stages of the mesh, which do not divide them: each device gathers "
            f"and computes all layers; give a multiple of {stages} rows",
            stacklevel=2,
        )
    return 1


def run_stages(run: Run, layers: Any, x: Float[Array, "B T D"], examples: Any, microbatches: int | None) -> tuple[Array, Any]:
    """All layers over a batch.

    Args:
      layers: a tree of arrays [L, ...].
      examples: a tree of arrays [B, ...], what the layers are told about each row.
      microbatches: parts of the batch. By default twice the stages where the mesh splits the rows of such parts evenly, or
        else the stages.

    Raises:
      ValueError: parts that do not divide the batch.
    """
    stages, rows = stage_count(len(x)), len(x)
    count = _parts(rows, stages, microbatches)

    def local(layers: Any, x: Array, examples: Any) -> tuple[Array, Any]:
        stage = jax.lax.axis_index(AXIS)
        xs, told = jax.tree.map(lambda array: gather_parts(_split(array, count // stages), AXIS), (x, examples))

        def tick(received: Array, time: Array) -> tuple[Array, Any]:
            number = jnp.clip(time - stage, 0, count - 1)
            here, told_here = jax.tree.map(
                lambda array: jax.lax.dynamic_index_in_dim(array, number, keepdims=False), (xs, told)
            )
            y, kept = run(layers, jnp.where(stage == 0, here, received), told_here, number)
            return jax.lax.ppermute(y, AXIS, [(place, place + 1) for place in range(stages - 1)]), (y, kept)

        _, (ys, kept) = jax.lax.scan(tick, jnp.zeros_like(xs[0]), jnp.arange(count + stages - 1))
        last = jnp.where(stage == stages - 1, ys[stages - 1 :], jnp.zeros_like(ys[stages - 1 :]))
        own = scatter_sum(last, AXIS, 0)
        kept = jax.tree.map(lambda array: _rows_in_order(jax.lax.dynamic_slice_in_dim(array, stage, count), stages), kept)
        return _joined(own), kept

    given = (PartitionSpec(AXIS), PartitionSpec(AXIS), PartitionSpec(AXIS))
    return map_shards(local, given, (PartitionSpec(AXIS), PartitionSpec(AXIS)), axes=(AXIS,))(layers, x, examples)


def _parts(rows: int, stages: int, microbatches: int | None) -> int:
    if microbatches is None:
        mesh = current_mesh()
        assert mesh is not None
        others = math.prod(mesh.shape[axis] for axis in BATCH_AXES if axis != AXIS)
        return 2 * stages if rows % (2 * stages * others) == 0 else stages
    if microbatches % stages or rows % microbatches:
        raise ValueError(
            f"microbatches must be a multiple of mesh.stage that divides the batch: got {microbatches}, {stages} stages and "
            f"{rows} rows"
        )
    return microbatches


def _split(array: Array, count: int) -> Array:
    """[b, ...] as [count, b / count, ...]; each part takes every count-th row, so that rows stay on their device."""
    return jnp.moveaxis(array.reshape(array.shape[0] // count, count, *array.shape[1:]), 1, 0)


def _joined(parts: Array) -> Array:
    """The other way round."""
    rows = jnp.moveaxis(parts, 0, 1)
    return rows.reshape(-1, *parts.shape[2:])


def _rows_in_order(kept: Array, stages: int) -> Array:
    """[M, layers, b, ...] as [layers, B, ...]."""
    parts, layers, rows = kept.shape[:3]
    apart = kept.reshape(stages, parts // stages, layers, rows, *kept.shape[3:])
    apart = jnp.moveaxis(apart, (2, 0, 3, 1), (0, 1, 2, 3))
    mesh = current_mesh()
    if mesh is not None and is_explicit(mesh):  # JAX does not join axes there of which an inner one is split
        apart = reshard(apart, PartitionSpec(None, None, None, None, *jax.typeof(apart).sharding.spec[4:]))
    return apart.reshape(layers, parts * rows, *kept.shape[3:])
