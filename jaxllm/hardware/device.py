"""What a device can do: peak FLOP/s, memory and bandwidth of the accelerators by JAX's `device_kind`."""

import functools
import hashlib
import os
import time
from dataclasses import dataclass

from jaxllm.hardware.cache import cache_dir, read_json, write_json
from jaxllm.hardware.machine import cpu_model, num_cores


@dataclass(frozen=True, kw_only=True)
class DeviceKind:
    """One JAX device (one chip, or one core of a chip where JAX shows cores) by its maker's figures."""

    name: str
    """What people call it."""
    kinds: tuple[str, ...]
    """The strings `jax.Device.device_kind` gives for it."""
    bf16_flops: float | None
    """Peak dense bfloat16 FLOP/s on the matrix units; None where it has no bfloat16 matrix units."""
    f32_flops: float | None
    """Peak float32 FLOP/s as JAX multiplies by default. None where the maker gives none."""
    hbm_bytes: int
    """Memory of the device."""
    hbm_bandwidth: float
    """Bytes per second between that memory and the chip."""
    source: str
    """Where the figures come from."""


def _kind(
    name: str,
    kinds: str,
    bf16: int | float | None,
    f32: int | float | None,
    hbm: int | float,
    bandwidth: int | float,
    source: str,
):
    """A row in TFLOP/s, GB and GB/s; `kinds` are separated by `|`."""
    return DeviceKind(
        name=name,
        kinds=tuple(kinds.split("|")),
        bf16_flops=None if bf16 is None else bf16 * 1e12,
        f32_flops=None if f32 is None else f32 * 1e12,
        hbm_bytes=int(hbm * 1e9),
        hbm_bandwidth=bandwidth * 1e9,
        source=source,
    )


_TPU = "cloud.google.com/tpu/docs, system architecture"
_TPU_CORE = f"{_TPU}; half a chip's figures, because JAX shows its two cores as devices"
_NVIDIA = "NVIDIA data sheet, dense; float32 is TF32, XLA's default"

DEVICE_KINDS: tuple[DeviceKind, ...] = (
    _kind("TPU v2 core", "TPU v2", 22.5, None, 8.6, 350, _TPU_CORE),
    _kind("TPU v3 core", "TPU v3", 61.5, None, 17.2, 450, _TPU_CORE),
    _kind("TPU v4", "TPU v4", 275, None, 34.4, 1228, _TPU),
    _kind("TPU v5e", "TPU v5 lite|TPU v5e", 197, None, 17.2, 819, _TPU),
    _kind("TPU v5p", "TPU v5|TPU v5p", 459, None, 102, 2765, _TPU),
    _kind("TPU v6e", "TPU v6 lite|TPU v6e", 918, None, 34.4, 1640, _TPU),
    _kind("TPU7x core", "TPU7x", 1153.5, None, 103, 3690, _TPU_CORE),
    _kind("A100 40GB", "NVIDIA A100-SXM4-40GB|NVIDIA A100-PCIE-40GB", 312, 156, 40, 1555, _NVIDIA),
    _kind("A100 80GB", "NVIDIA A100-SXM4-80GB|NVIDIA A100 80GB PCIe", 312, 156, 80, 2039, _NVIDIA),
    _kind("H100 SXM", "NVIDIA H100 80GB HBM3", 989, 494.5, 80, 3350, _NVIDIA),
    _kind("H100 PCIe", "NVIDIA H100 PCIe", 756, 378, 80, 2000, _NVIDIA),
    _kind("H200", "NVIDIA H200", 989, 494.5, 141, 4800, _NVIDIA),
    _kind("B200", "NVIDIA B200", 2250, 1125, 180, 7700, _NVIDIA),
    _kind("L4", "NVIDIA L4", 121, 60, 24, 300, _NVIDIA),
    _kind("L40S", "NVIDIA L40S", 362, 183, 48, 864, _NVIDIA),
    _kind("T4", "Tesla T4|NVIDIA T4", None, 8.1, 16, 320, "NVIDIA data sheet; no bfloat16 units, no TF32"),
)


def device_kind(kind: str) -> DeviceKind | None:
    """The table's row for a `jax.Device.device_kind`, or None for a device that is not in the table."""
    return next((row for row in DEVICE_KINDS if kind in row.kinds), None)


def peak_flops(kind: str, dtype: str) -> float | None:
    """Peak FLOP/s of one device of `kind` in `float32` or `bfloat16`; None where it is not known.

    For `cpu` it is the whole machine's float32 peak, measured by NumPy (`measured_cpu_flops`), not a maker's figure.
    """
    if dtype not in ("float32", "bfloat16"):
        raise ValueError(f"dtype must be float32 or bfloat16 to look up a peak: got {dtype!r}.")
    if kind == "cpu":
        return measured_cpu_flops() if dtype == "float32" else None
    row = device_kind(kind)
    if row is None:
        return None
    return row.bf16_flops if dtype == "bfloat16" else row.f32_flops


@functools.cache
def measured_cpu_flops() -> float:
    """This machine's float32 FLOP/s: NumPy's matmul of two 1024-square matrices on all cores, the best ever seen here.

    Each process measures for a quarter of a second and raises the cached figure if it was better, so that a first
    measurement on a busy machine does not stand.
    """
    import numpy as np

    path = cache_dir() / f"cpu_peak-{num_cores()}cores-{hashlib.sha256(cpu_model().encode()).hexdigest()[:12]}.json"
    cached = (read_json(path) or {}).get("flops")
    seen = float(cached) if isinstance(cached, (int, float)) else 0.0
    size, shortest, end = 1024, float("inf"), time.perf_counter() + 0.25
    a = np.ones((size, size), np.float32)
    while time.perf_counter() < end:
        start = time.perf_counter()
        _ = a @ a
        shortest = min(shortest, time.perf_counter() - start)
    flops = 2.0 * size**3 / shortest
    if flops > seen:
        write_json(path, {"flops": flops, "cpu": cpu_model(), "what": f"NumPy float32 {size}x{size} matmul, best ever seen"})
    return max(flops, seen)


def require_devices() -> None:
    """Starts JAX's devices; refuses a JAX_PLATFORMS that has none here."""
    import jax

    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX asserts where no platform that was named is there
        asked = os.environ.get("JAX_PLATFORMS", "")
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"no such device: JAX_PLATFORMS={asked} cannot be used here{f' ({reason})' if reason else ''}; "
            "leave it out, or set it to cpu; `jaxllm doctor` says what there is"
        ) from None
