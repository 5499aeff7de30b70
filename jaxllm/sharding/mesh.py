"""The device mesh: how many ways to split over data, parameters (fsdp) and tensors."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh

from jaxllm.sharding.axes import MESH_AXES, RULES


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    data: int | None = None
    """Copies of the model, each on its share of the batch. By default as many as the devices and the batch size allow."""
    fsdp: int = 1
    """Parts into which parameters, gradients and optimizer state are spread; the batch is split over it, too."""
    tensor: int = 1
    """Parts into which heads, the feed-forward width and the vocabulary are split."""
    explicit: bool = False
    """Make layouts part of array types (JAX's Explicit mode), so that a sharding slip is an error while tracing."""

    def __post_init__(self) -> None:
        for name in MESH_AXES:
            size = getattr(self, name)
            if size is not None and size < 1:
                raise ValueError(f"mesh.{name} must be at least 1: got {size}")


class MeshError(ValueError):
    """A mesh that this machine, the batch or the model does not allow."""


def make_mesh(config: MeshConfig, batch_size: int | None = None, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with axes data, fsdp and tensor over this machine's devices.

    Args:
      batch_size: examples a step. Bounds the default of `data` to a number that divides it, and is checked.

    Raises:
      ValueError: more devices asked for than there are, or a batch that does not divide.
    """
    devices = list(jax.devices() if devices is None else devices)
    inner = config.fsdp * config.tensor
    data = config.data
    if data is None:
        data = max(1, len(devices) // inner)
        while batch_size is not None and data > 1 and batch_size % (data * config.fsdp):
            data -= 1
    needed = data * inner
    if needed > len(devices):
        hint = f" (or set JAX_NUM_CPU_DEVICES={needed} to try it on virtual devices)" if _all_cpu(devices) else ""
        raise MeshError(
            f"mesh data={data} x fsdp={config.fsdp} x tensor={config.tensor} needs {needed} devices: this machine has "
            f"{len(devices)} ({devices[0].device_kind}); choose sizes whose product is at most {len(devices)}{hint}"
        )
    if batch_size is not None and batch_size % (data * config.fsdp):
        raise MeshError(
            f"mesh.data x mesh.fsdp must divide batch_size: got {data} x {config.fsdp} and batch_size={batch_size}; "
            f"products that work: {_divisors(batch_size, len(devices))}"
        )
    grid = np.array(devices[:needed]).reshape(data, config.fsdp, config.tensor)
    kind = AxisType.Explicit if config.explicit else AxisType.Auto
    return Mesh(grid, MESH_AXES, axis_types=(kind,) * len(MESH_AXES))


def check_divides(mesh: Mesh, sizes: dict[str, tuple[str, int]]) -> None:
    """Refuses a model that the mesh cannot split evenly.

    Args:
      sizes: for a logical axis, the config field that sets its size, and the size.
    """
    for axis, (field, size) in sizes.items():
        rule = RULES[axis]
        for mesh_axis in () if rule.may_replicate else rule.stored:
            parts = mesh.shape[mesh_axis]
            if size % parts:
                raise MeshError(
                    f"mesh.{mesh_axis} must divide {field}: got {mesh_axis}={parts}, {field}={size}; "
                    f"sizes that work: {_divisors(size, mesh.devices.size)}"
                )


def _divisors(size: int, limit: int) -> str:
    return ", ".join(str(part) for part in range(1, min(size, limit) + 1) if size % part == 0)


def _all_cpu(devices: Sequence[Any]) -> bool:
    return all(device.platform == "cpu" for device in devices)
