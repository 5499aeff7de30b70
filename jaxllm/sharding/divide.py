"""Does a mesh split a model and its batches into equal parts? Asked when a recipe is built; told by field, with what works."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jax.sharding import Mesh

from jaxllm.sharding.axes import BATCH_AXES, MESH_AXES, RULES
from jaxllm.sharding.mesh_config import MeshConfig, MeshError


class AxisSize(NamedTuple):
    """A dimension that a mesh may split."""

    axis: str
    """Its logical axis."""
    field: str
    """The config field that sets it."""
    size: int


def check_divides(mesh: Mesh | MeshConfig, sizes: Sequence[AxisSize]) -> None:
    """Refuses a model that the mesh cannot split evenly, and sequences.

    Raises:
      MeshError: the first size that does not divide.
    """
    parts = _parts(mesh)
    for axis, field, size in sizes:
        rule = RULES[axis]
        split = {name: parts[name] for name in rule.stored or rule.computed if parts[name] > 1}
        if size % math.prod(split.values()) and (axis == "time" or not rule.may_replicate):
            raise MeshError(_refusal(split, field, size))


def left_whole(mesh: Mesh | MeshConfig, sizes: Sequence[AxisSize]) -> list[str]:
    """Sentences about dimensions that the mesh does not divide and that every device therefore holds whole."""
    parts, found = _parts(mesh), []
    for axis, field, size in sizes:
        rule = RULES[axis]
        split = {name: parts[name] for name in rule.stored if parts[name] > 1}
        if rule.may_replicate and size % math.prod(split.values()):
            found.append(f"{field}={size} is not split: {_product(split)} does not divide it; {_works(split, size)}")
    return found


def check_batch(config: MeshConfig, batch_size: int, accumulate: int = 1, microbatches: int | None = None) -> None:
    """Refuses rows that the mesh, or the parts in which they pass its stages, cannot split evenly. Where `data` is left out it
    is chosen to fit.

    Args:
      accumulate: parts of the batch that are computed in turn; the mesh splits each.

    Raises:
      MeshError: the first number that does not divide.
    """
    check_rows(_parts(config), batch_size, accumulate)
    split, rows, field = _row_split(_parts(config)), batch_size // accumulate, _rows_field(accumulate)
    if microbatches is None or config.stage == 1:
        return
    inside = math.prod(size for name, size in split.items() if name != "stage")
    if microbatches % config.stage or rows % (microbatches * inside):
        works = [count for count in range(config.stage, rows + 1, config.stage) if rows % (count * inside) == 0]
        others = " x ".join(f"mesh.{name}" for name in split if name != "stage")
        raise MeshError(
            f"model.microbatches must be a multiple of mesh.stage={config.stage}"
            f"{f' that, times {others},' if others else ' that'} divides {field}: got {microbatches} and {field}={rows}; "
            f"numbers that work: {', '.join(map(str, works)) or 'none'}"
        )


def check_rows(parts: Mapping[str, int], batch_size: int, accumulate: int = 1) -> None:
    """Refuses rows that mesh axes of these sizes cannot split evenly.

    Raises:
      MeshError: with sizes, and batch sizes, that work.
    """
    split, rows = _row_split(parts), batch_size // accumulate
    at_once = math.prod(split.values())
    if rows % at_once:
        near = _near_multiples(batch_size, at_once * accumulate)
        raise MeshError(f"{_refusal(split, _rows_field(accumulate), rows)}; or a batch_size of {near}")


def use_all(config: MeshConfig, devices: int, batch_size: int, accumulate: int = 1) -> str:
    """What to set so that a mesh uses all devices, for a message: "set --batch-size 16 or 32 and --mesh.data 16". Empty where
    nothing has to change."""
    fixed = math.prod(getattr(config, axis) for axis in MESH_AXES if axis != "data")
    if devices % fixed:
        return f"choose --mesh sizes whose product divides {devices}"
    at_once = devices // math.prod(getattr(config, axis) for axis in MESH_AXES if axis not in BATCH_AXES) * accumulate
    words = [f"--batch-size {_near_multiples(batch_size, at_once)}"] if batch_size % at_once else []
    words += [f"--mesh.data {devices // fixed}"] if config.data not in (None, devices // fixed) else []
    return f"set {' and '.join(words)}" if words else ""


def _near_multiples(size: int, of: int) -> str:
    """The multiples of a number next to `size`: "8 or 12"."""
    below = size // of * of
    return " or ".join(str(near) for near in (below, below + of) if near)


def _row_split(parts: Mapping[str, int]) -> dict[str, int]:
    return {name: parts[name] for name in BATCH_AXES if parts[name] > 1}


def _rows_field(accumulate: int) -> str:
    return "batch_size" if accumulate == 1 else "batch_size / accumulate"


def _parts(mesh: Mesh | MeshConfig) -> Mapping[str, int]:
    if isinstance(mesh, Mesh):
        return mesh.shape
    return {name: getattr(mesh, name) or 1 for name in MESH_AXES}


def _refusal(split: Mapping[str, int], field: str, size: int) -> str:
    return (
        f"{' x '.join(f'mesh.{name}' for name in split)} must divide {field}: got "
        f"{', '.join(f'{name}={parts}' for name, parts in split.items())}, {field}={size}; {_works(split, size)}"
    )


def _product(split: Mapping[str, int]) -> str:
    return " x ".join(f"mesh.{name}={parts}" for name, parts in split.items())


def _works(split: Mapping[str, int], size: int) -> str:
    most = max(16, 2 * math.prod(split.values()))
    return f"{'products' if len(split) > 1 else 'sizes'} that work: {_divisors(size, most)}"


def _divisors(size: int, limit: int) -> str:
    return ", ".join(str(part) for part in range(1, min(size, limit) + 1) if size % part == 0)
