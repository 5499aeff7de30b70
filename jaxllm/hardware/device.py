"""What a device can do: peak FLOP/s, memory and bandwidth of the accelerators by JAX's `device_kind`."""

import time
from dataclasses import dataclass

from jaxllm.hardware.cache import cache_dir, read_json, write_json


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


_TPU = "cloud.google.com/tpu/docs/system-architecture-tpu-vm"
_GIB, _GB, _TERA = 2**30, 10**9, 1e12

DEVICE_KINDS: tuple[DeviceKind, ...] = (
    DeviceKind(
        name="TPU v2 core",
        kinds=("TPU v2",),
        bf16_flops=22.5 * _TERA,
        f32_flops=None,
        hbm_bytes=8 * _GIB,
        hbm_bandwidth=350e9,
        source=f"{_TPU}: v2, 45 TFLOP/s and 16 GiB a chip of two cores; JAX shows cores",
    ),
    DeviceKind(
        name="TPU v3 core",
        kinds=("TPU v3",),
        bf16_flops=61.5 * _TERA,
        f32_flops=None,
        hbm_bytes=16 * _GIB,
        hbm_bandwidth=450e9,
        source=f"{_TPU}: v3, 123 TFLOP/s, 32 GiB and 900 GB/s a chip of two cores; JAX shows cores",
    ),
    DeviceKind(
        name="TPU v4",
        kinds=("TPU v4",),
        bf16_flops=275 * _TERA,
        f32_flops=None,
        hbm_bytes=32 * _GIB,
        hbm_bandwidth=1228e9,
        source=f"{_TPU}: v4",
    ),
    DeviceKind(
        name="TPU v5e",
        kinds=("TPU v5 lite", "TPU v5e"),
        bf16_flops=197 * _TERA,
        f32_flops=None,
        hbm_bytes=16 * _GB,
        hbm_bandwidth=819e9,
        source=f"{_TPU}: v5e",
    ),
    DeviceKind(
        name="TPU v5p",
        kinds=("TPU v5", "TPU v5p"),
        bf16_flops=459 * _TERA,
        f32_flops=None,
        hbm_bytes=95 * _GB,
        hbm_bandwidth=2765e9,
        source=f"{_TPU}: v5p",
    ),
    DeviceKind(
        name="TPU v6e",
        kinds=("TPU v6 lite", "TPU v6e"),
        bf16_flops=918 * _TERA,
        f32_flops=None,
        hbm_bytes=32 * _GB,
        hbm_bandwidth=1640e9,
        source=f"{_TPU}: v6e",
    ),
    DeviceKind(
        name="TPU7x core",
        kinds=("TPU7x",),
        bf16_flops=1153.5 * _TERA,
        f32_flops=None,
        hbm_bytes=96 * _GB,
        hbm_bandwidth=3690e9,
        source="cloud.google.com/tpu/docs/tpu7x: 2307 TFLOP/s, 192 GiB and 7380 GB/s a chip of two cores",
    ),
    DeviceKind(
        name="A100 40GB",
        kinds=("NVIDIA A100-SXM4-40GB", "NVIDIA A100-PCIE-40GB"),
        bf16_flops=312 * _TERA,
        f32_flops=156 * _TERA,
        hbm_bytes=40 * _GB,
        hbm_bandwidth=1555e9,
        source="NVIDIA A100 data sheet; float32 is TF32, XLA's default",
    ),
    DeviceKind(
        name="A100 80GB",
        kinds=("NVIDIA A100-SXM4-80GB", "NVIDIA A100 80GB PCIe"),
        bf16_flops=312 * _TERA,
        f32_flops=156 * _TERA,
        hbm_bytes=80 * _GB,
        hbm_bandwidth=2039e9,
        source="NVIDIA A100 data sheet; float32 is TF32, XLA's default",
    ),
    DeviceKind(
        name="H100 SXM",
        kinds=("NVIDIA H100 80GB HBM3",),
        bf16_flops=989 * _TERA,
        f32_flops=494.5 * _TERA,
        hbm_bytes=80 * _GB,
        hbm_bandwidth=3350e9,
        source="NVIDIA H100 data sheet, without sparsity; float32 is TF32, XLA's default",
    ),
    DeviceKind(
        name="H100 PCIe",
        kinds=("NVIDIA H100 PCIe",),
        bf16_flops=756 * _TERA,
        f32_flops=378 * _TERA,
        hbm_bytes=80 * _GB,
        hbm_bandwidth=2000e9,
        source="NVIDIA H100 data sheet, without sparsity; float32 is TF32, XLA's default",
    ),
    DeviceKind(
        name="H200",
        kinds=("NVIDIA H200",),
        bf16_flops=989 * _TERA,
        f32_flops=494.5 * _TERA,
        hbm_bytes=141 * _GB,
        hbm_bandwidth=4800e9,
        source="NVIDIA H200 data sheet, without sparsity; float32 is TF32, XLA's default",
    ),
    DeviceKind(
        name="B200",
        kinds=("NVIDIA B200",),
        bf16_flops=2250 * _TERA,
        f32_flops=1125 * _TERA,
        hbm_bytes=180 * _GB,
        hbm_bandwidth=7700e9,
        source="NVIDIA DGX B200 data sheet, a GPU's eighth, without sparsity; float32 is TF32, XLA's default",
    ),
    DeviceKind(
        name="L4",
        kinds=("NVIDIA L4",),
        bf16_flops=121 * _TERA,
        f32_flops=60 * _TERA,
        hbm_bytes=24 * _GB,
        hbm_bandwidth=300e9,
        source="NVIDIA L4 data sheet, without sparsity; float32 is TF32, XLA's default",
    ),
    DeviceKind(
        name="T4",
        kinds=("Tesla T4", "NVIDIA T4"),
        bf16_flops=None,
        f32_flops=8.1 * _TERA,
        hbm_bytes=16 * _GB,
        hbm_bandwidth=320e9,
        source="NVIDIA T4 data sheet; it has no bfloat16 units",
    ),
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


def measured_cpu_flops() -> float:
    """The machine's float32 FLOP/s as NumPy multiplies two 1024-square matrices on all cores; measured once, cached."""
    path = cache_dir() / "cpu_peak.json"
    cached = read_json(path)
    if cached is not None and isinstance(cached.get("flops"), float):
        return cached["flops"]
    import numpy as np

    size = 1024
    a = np.ones((size, size), np.float32)
    best = float("inf")
    for _ in range(12):
        start = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - start)
    flops = 2.0 * size**3 / best
    write_json(path, {"flops": flops, "what": f"NumPy float32 {size}x{size} matmul, best of 12"})
    return flops


def require_platform(name: str) -> None:
    """Refuse a platform (`cpu`, `gpu`, `tpu`) that JAX does not see here, and say which there are."""
    import jax

    try:
        jax.devices(name)
    except RuntimeError:
        have = ", ".join(f"{len(jax.devices(p))} {p}" for p in sorted({device.platform for device in jax.devices()}))
        raise ValueError(
            f"no {name} device here: JAX sees {have}. Choose one of these, or install JAX for {name} "
            f"(`pip install 'jaxllm[{'tpu' if name == 'tpu' else 'gpu'}]'`) and run `jaxllm doctor`."
        ) from None
