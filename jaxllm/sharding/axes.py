"""Logical axis names and the one table that maps them to mesh axes.

An array dimension has a logical name everywhere; only this file knows which mesh axes exist. Parameters are *stored*
spread over `fsdp` (as ZeRO-3 does) and *computed with* gathered over it, so each name has two entries.

| mesh axis | splits | a step sends over it |
|---|---|---|
| `replica` | the batch; the model is there once each | gradients, once: for slices joined by a slow network |
| `stage` | the layers; outside them the batch | activations between neighbours: for slices joined by a slow network |
| `data` | the batch | gradients |
| `fsdp` | the batch; parameters, gradients and optimizer state at rest | parameters of a layer at a time, and its gradients |
| `expert` | the batch; experts | tokens to their experts and back |
| `context` | the sequence | keys and values |
| `tensor` | heads, feed-forward width, vocabulary; the residual stream along the sequence | activations, twice a sublayer |
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, PartitionSpec

MESH_AXES = ("replica", "stage", "data", "fsdp", "expert", "context", "tensor")
"""From the slowest network to the fastest: neighbours along the last axis are neighbours in the machine."""
BATCH_AXES = ("stage", "replica", "data", "fsdp", "expert")
"""Mesh axes over which the rows of a batch are spread."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    stored: tuple[str, ...] = ()
    """Mesh axes that split this dimension of a parameter at rest (and of its gradient and optimizer state)."""
    computed: tuple[str, ...] = ()
    """Mesh axes that split this dimension of an activation, or of a parameter while it is used."""
    may_replicate: bool = False
    """Whether a size that the mesh axes do not divide is split over fewer of them, or none, instead of refused."""


RULES: dict[str, Rule] = {
    "batch": Rule(computed=BATCH_AXES, may_replicate=True),  # a prompt alone has batch 1
    "time": Rule(computed=("context",), may_replicate=True),
    "residual_time": Rule(computed=("context", "tensor"), may_replicate=True),  # between sublayers, where tokens are apart
    "cache": Rule(),
    "embed": Rule(stored=("fsdp", "context", "expert")),
    "heads": Rule(stored=("tensor",), computed=("tensor",)),
    "kv_heads": Rule(stored=("tensor",), computed=("tensor",), may_replicate=True),
    "head_dim": Rule(),
    "ffw": Rule(stored=("tensor",), computed=("tensor",)),
    "vocab": Rule(stored=("tensor",), computed=("tensor",), may_replicate=True),  # its size is the tokenizer's choice
    "layers": Rule(stored=("stage",), computed=("stage",)),
    "experts": Rule(stored=("expert",), computed=("expert",)),
    "label": Rule(),
    "token_type": Rule(),
    "bucket": Rule(),
    "patch": Rule(),
    "position": Rule(),
    "rank": Rule(),  # of adapters
}


@jax.tree_util.register_static
@dataclass(frozen=True)
class Axes:
    """The logical names of one parameter's dimensions; a pytree node without leaves, so it passes through tracing."""

    names: tuple[str, ...]


def check_names(names: Sequence[str | None]) -> None:
    unknown = [name for name in names if name is not None and name not in RULES]
    if unknown:  # an unknown name would silently mean "replicated"
        raise ValueError(f"unknown logical axis {unknown[0]!r}: expected one of {', '.join(RULES)}")


def spec(
    names: Sequence[str | None], shape: Sequence[int], mesh: Mesh | AbstractMesh, *, stored: bool = False
) -> PartitionSpec:
    """The PartitionSpec of an array with these logical axes on this mesh. A mesh axis splits the first dimension that asks
    for it.

    Args:
      names: one logical axis a dimension; None for a dimension without one, which is never split.
      stored: the layout of a parameter at rest, instead of the layout in which it is computed with.

    Raises:
      ValueError: an unknown name, or a size that the mesh does not divide and that may not be replicated.
    """
    check_names(names)
    if len(names) != len(shape):
        raise ValueError(f"one logical axis a dimension: got axes {tuple(names)} for shape {tuple(shape)}")
    sizes = _split_sizes(mesh)
    entries: list[tuple[str, ...] | None] = []
    taken: set[str] = set()
    for name, size in zip(names, shape, strict=True):
        rule = RULES[name] if name is not None else Rule()
        wanted = rule.stored if stored else rule.computed
        mesh_axes = tuple(axis for axis in wanted if sizes.get(axis, 1) > 1 and axis not in taken)
        while size % (parts := math.prod(sizes[axis] for axis in mesh_axes)):
            if not rule.may_replicate:
                raise ValueError(
                    f"axis {name!r} of size {size} is split over mesh axes {mesh_axes} into {parts} equal parts: "
                    f"choose mesh sizes whose product divides {size}"
                )
            mesh_axes = mesh_axes[:-1]
        taken.update(mesh_axes)
        entries.append(mesh_axes or None)
    return PartitionSpec(*(entry[0] if entry is not None and len(entry) == 1 else entry for entry in entries))


def axis_names(entry: Any) -> tuple[str, ...]:
    """The mesh axes of one entry of a PartitionSpec."""
    return (entry,) if isinstance(entry, str) else tuple(entry or ())


def _split_sizes(mesh: Mesh | AbstractMesh) -> dict[str, int]:
    """Sizes of the mesh axes that layouts may speak of: all but those that `jax.shard_map` has taken apart already."""
    kinds = zip(mesh.axis_names, mesh.axis_types, strict=True)
    return {axis: mesh.shape[axis] for axis, kind in kinds if kind != AxisType.Manual}
