"""The device mesh: which device has which part."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from jaxllm.sharding.axes import BATCH_AXES, MESH_AXES
from jaxllm.sharding.divide import check_rows
from jaxllm.sharding.mesh_config import MeshConfig, MeshError


def make_mesh(config: MeshConfig, batch_size: int | None = None, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with the axes of `MESH_AXES` over this machine's devices.

    Args:
      batch_size: examples that are computed at once. Bounds the default of `data` to a number that divides it, and is checked.
      devices: others than this machine's, to plan for.

    Raises:
      MeshError: more devices asked for than there are, a batch that does not divide, slices that the mesh does not fit, a part
        of a TPU slice whose chips are not joined as a mesh.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = mesh_sizes(config, len(devices), batch_size)
    needed = math.prod(sizes.values())
    if needed > len(devices):
        hint = f" (or set JAX_NUM_CPU_DEVICES={needed} to try it on virtual devices)" if _all_cpu(devices) else ""
        raise MeshError(
            f"mesh {_product(sizes)} needs {needed} devices: this machine has {len(devices)} ({devices[0].device_kind}); "
            f"choose sizes whose product is at most {len(devices)}{hint}"
        )
    if batch_size is not None:
        check_rows(sizes, batch_size)
    kind = AxisType.Explicit if config.explicit else AxisType.Auto
    try:
        grid = _grid(sizes, devices[:needed])
    except (AssertionError, NotImplementedError, ValueError) as error:
        if isinstance(error, MeshError) or needed == len(devices):
            raise
        raise MeshError(
            f"a mesh that leaves TPU chips over must take a block of them: got {_product(sizes)}, {needed} of {len(devices)}; "
            f"choose mesh sizes and a batch_size that use all {len(devices)}"
        ) from error
    return Mesh(grid, MESH_AXES, axis_types=(kind,) * len(MESH_AXES))


def mesh_sizes(config: MeshConfig, count: int, batch_size: int | None = None) -> dict[str, int]:
    """The size of each mesh axis on so many devices; `data`, where it is left out, as large as devices and batch let it be."""
    sizes = {axis: getattr(config, axis) for axis in MESH_AXES}
    return sizes | ({"data": _default_data(sizes, count, batch_size)} if config.data is None else {})


def _default_data(sizes: dict[str, Any], count: int, batch_size: int | None) -> int:
    others = math.prod(size for axis, size in sizes.items() if axis != "data")
    rows = math.prod(sizes[axis] for axis in BATCH_AXES if axis != "data")
    data = max(1, count // others)
    while batch_size is not None and data > 1 and batch_size % (data * rows):
        data -= 1
    return data


def _grid(sizes: dict[str, int], devices: list[Any]) -> np.ndarray:
    """The devices so that neighbours along the mesh's last axes are neighbours in the machine."""
    shape = tuple(sizes.values())
    if devices[0].platform != "tpu":
        return np.array(devices).reshape(shape)
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if slices == 1:
        return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    across, left = [], slices
    for axis in MESH_AXES:
        part = math.gcd(left, sizes[axis]) if axis in ("replica", "stage") else 1
        across.append(part)
        left //= part
    if left > 1:
        raise MeshError(
            f"mesh.replica x mesh.stage must be a multiple of the {slices} slices, which a slow network joins: got "
            f"{sizes['replica']} x {sizes['stage']}; set mesh.replica={slices} for a copy of the model on each slice"
        )
    inside = [size // part for size, part in zip(shape, across, strict=True)]
    return mesh_utils.create_hybrid_device_mesh(inside, across, devices, allow_split_physical_axes=True)


def _product(sizes: dict[str, int]) -> str:
    shown = {axis: size for axis, size in sizes.items() if size > 1 or axis in ("data", "fsdp", "tensor")}
    return " x ".join(f"{axis}={size}" for axis, size in shown.items())


def _all_cpu(devices: Sequence[Any]) -> bool:
    return all(device.platform == "cpu" for device in devices)
