"""What a chip has to hold in a step, by the compiler's own count, against what it can hold."""

import math
import re
from dataclasses import dataclass
from typing import Any

import jax

from jaxllm.hardware import device_kind
from jaxllm.hardware.machine import memory_bytes

GIB = 2**30
USABLE = {
    "TPU v4": int(30.75 * GIB),
    "TPU v5 lite": int(15.75 * GIB),
    "TPU v5": int(95.73 * GIB),
    "TPU v6 lite": int(31.24 * GIB),
}
"""Bytes of a TPU chip that programs may use, by `device_kind`: what libtpu's compiler says is available when it refuses one."""
GPU_SHARE = 0.75
"""Share of a GPU's memory that JAX takes for itself unless it is told otherwise."""
_REFUSED = re.compile(r"\(?\b(?:Used )?([\d.]+)([KMGT]?)\)? (?:exceeds available HBM \(|of )([\d.]+)([KMGT]?)")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one device."""

    parameters: int
    optimizer: int
    """Optimizer state; none outside training."""
    gradients: int
    """As large as the parameters; among `temporaries`. None outside training."""
    cache: int
    """Keys and values of earlier tokens, where there is a cache."""
    batch: int
    arguments: int
    """What a step is given: parameters, optimizer state or cache, batch."""
    temporaries: int
    """What it needs besides: gradients, activations, gathered parameters."""
    outputs: int
    aliased: int
    """Outputs that take the place of arguments."""
    capacity: int | None
    """What programs may use of the device; None where it is not known."""

    @property
    def peak(self) -> int:
        return self.arguments + self.temporaries + self.outputs - self.aliased

    @property
    def activations(self) -> int:
        """What is left of the peak: activations, gathered parameters, and what else a step needs for a while."""
        return max(0, self.peak - self.parameters - self.optimizer - self.gradients - self.cache - self.batch)

    @property
    def fits(self) -> bool | None:
        return None if self.capacity is None else self.peak <= self.capacity


def compiled_memory(compiled: Any, capacity: int | None, **known: int) -> Memory:
    """Of a program that was compiled.

    Args:
      known: bytes of parameters, optimizer, gradients, cache and batch.
    """
    measured = compiled.memory_analysis()
    return Memory(
        **known,
        arguments=measured.argument_size_in_bytes,
        temporaries=measured.temp_size_in_bytes,
        outputs=measured.output_size_in_bytes,
        aliased=measured.alias_size_in_bytes,
        capacity=capacity,
    )


def refused_memory(error: Exception, capacity: int | None, **known: int) -> Memory | None:
    """Of a program that the compiler refused because it does not fit; None where the error says something else."""
    said = str(error)
    found = _REFUSED.search(said)
    if found is None or "Ran out of memory" not in said:
        return None
    needed, available = (int(float(found[place]) * _UNITS[found[place + 1]]) for place in (1, 3))
    arguments = sum(known.values()) - known.get("gradients", 0)
    return Memory(
        **known,
        arguments=arguments,
        temporaries=max(0, needed - arguments),
        outputs=0,
        aliased=0,
        capacity=min(available, capacity or available),
    )


def usable_bytes(device: Any) -> int | None:
    """Bytes that programs may use of a device that is here or that is planned for; virtual CPU devices share the machine's."""
    if device.platform == "cpu":
        whole = memory_bytes()
        return None if whole is None else whole // jax.local_device_count("cpu")
    if device.device_kind in USABLE:
        return USABLE[device.device_kind]
    known = device_kind(device.device_kind)
    return None if known is None else int(GPU_SHARE * known.hbm_bytes)


def local_bytes(tree: Any) -> int:
    """Bytes of one device's share of arrays that are laid out but need not exist; those that wait in the host's memory do not
    count."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if leaf.sharding.memory_kind != "pinned_host"]
    return sum(math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize for leaf in leaves)


def advice(memory: Memory) -> list[str]:
    """What to change so that it fits, the most promising first."""
    state = memory.parameters + memory.optimizer + memory.gradients
    spread = "spread parameters further: a larger --mesh.fsdp on more chips, or --mesh.tensor inside a host"
    if not memory.optimizer:  # nothing is trained
        shorter = "hold fewer keys and values: a smaller --batch-size, a shorter --length, or --mesh.tensor"
        return [spread, shorter] if memory.parameters > memory.cache + memory.activations else [shorter, spread]
    smaller = (
        "keep fewer activations: --model.remat block, fewer rows at once by a smaller --batch-size or a larger --accumulate, "
        "or logits in pieces by --loss.chunk 1024"
    )
    return [spread, smaller] if state > memory.activations else [smaller, spread]
