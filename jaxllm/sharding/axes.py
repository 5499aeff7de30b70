"""Logical axis names and the one table that maps them to mesh axes.

An array dimension has a logical name everywhere; only this file knows which mesh axes exist. Parameters are *stored*
spread over `fsdp` (as ZeRO-3 does) and *computed with* gathered over it, so each name has two entries.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
from jax.sharding import AbstractMesh, Mesh, PartitionSpec

MESH_AXES = ("data", "fsdp", "tensor")


@dataclass(frozen=True, kw_only=True)
class Rule:
    stored: tuple[str, ...] = ()
    """Mesh axes that split this dimension of a parameter at rest (and of its gradient and optimizer state)."""
    computed: tuple[str, ...] = ()
    """Mesh axes that split this dimension of an activation, or of a parameter while it is used."""
    may_replicate: bool = False
    """Whether a size that the mesh axes do not divide is kept whole on every device instead of refused."""


RULES: dict[str, Rule] = {
    "batch": Rule(computed=("data", "fsdp"), may_replicate=True),  # a prompt alone has batch 1
    "time": Rule(),
    "cache": Rule(),
    "embed": Rule(stored=("fsdp",)),
    "heads": Rule(stored=("tensor",), computed=("tensor",)),
    "kv_heads": Rule(stored=("tensor",), computed=("tensor",), may_replicate=True),
    "head_dim": Rule(),
    "ffw": Rule(stored=("tensor",), computed=("tensor",)),
    "vocab": Rule(stored=("tensor",), computed=("tensor",), may_replicate=True),  # its size is the tokenizer's choice
    "layers": Rule(),
    "experts": Rule(),
    "label": Rule(),
    "token_type": Rule(),
    "bucket": Rule(),
    "patch": Rule(),
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
    """The PartitionSpec of an array with these logical axes on this mesh.

    Args:
      names: one logical axis a dimension; None for a dimension without one, which is never split.
      stored: the layout of a parameter at rest, instead of the layout in which it is computed with.

    Raises:
      ValueError: an unknown name, or a size that the mesh does not divide and that may not be replicated.
    """
    check_names(names)
    if len(names) != len(shape):
        raise ValueError(f"one logical axis a dimension: got axes {tuple(names)} for shape {tuple(shape)}")
    entries: list[tuple[str, ...] | str | None] = []
    for name, size in zip(names, shape, strict=True):
        rule = RULES[name] if name is not None else Rule()
        wanted = rule.stored if stored else rule.computed
        mesh_axes = tuple(axis for axis in wanted if axis in mesh.shape and mesh.shape[axis] > 1)
        parts = 1
        for axis in mesh_axes:
            parts *= mesh.shape[axis]
        if size % parts:
            if not rule.may_replicate:
                raise ValueError(
                    f"axis {name!r} of size {size} is split over mesh axes {mesh_axes} into {parts} equal parts: "
                    f"choose mesh sizes whose product divides {size}"
                )
            mesh_axes = ()
        entries.append(mesh_axes[0] if len(mesh_axes) == 1 else mesh_axes or None)
    return PartitionSpec(*entries)
