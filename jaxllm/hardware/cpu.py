"""JAX on a CPU: one virtual device a core, and the XLA flags that a probe found fastest for this JAX on this machine.

XLA's CPU matmul makes poor use of many threads, so a data-parallel mesh over one virtual device a core is faster than
one device with all cores. Which compiler flags help changes with the JAX version, so they are measured once
(`cpu_probe`), kept in the cache folder, and never assumed. `JAXLLM_CPU_TUNING=off` leaves JAX as it comes;
`JAX_NUM_CPU_DEVICES` and `XLA_FLAGS` that are set already win.
"""

import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from jaxllm.hardware.cache import cache_dir
from jaxllm.hardware.cpu_probe import cached_probe, probe
from jaxllm.hardware.machine import num_cores


@dataclass(frozen=True, kw_only=True)
class CpuSetup:
    """What `set_up_cpu` decided."""

    num_devices: int | None = None
    """Virtual CPU devices asked for; None where JAX's own number stands."""
    flags: str | None = None
    """XLA flags set; None where none were."""
    reason: str
    """Why, in one line."""


_chosen = CpuSetup(reason="set_up() has not run in this process")


def chosen_setup() -> CpuSetup:
    """What `set_up_cpu` decided in this process."""
    return _chosen


def set_up() -> CpuSetup:
    """Make JAX ready, once, at a program's entry point: the CPU's devices and flags, and the compilation cache.

    Call it before anything asks JAX for a device. On a machine with a GPU or TPU only the cache is switched on.
    """
    set_up_compilation_cache()
    _leave_out_absent_tpu()
    return set_up_cpu()


def set_up_compilation_cache() -> None:
    """Keep compiled programs in `cache_dir()/xla`, so that the second run of a recipe starts at once.

    A folder that the user gave JAX (`JAX_COMPILATION_CACHE_DIR`) stays.
    """
    import jax

    if jax.config.jax_compilation_cache_dir is None:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _leave_out_absent_tpu() -> None:
    """Where libtpu is installed to plan for TPUs and there is none, JAX would look for one, with a page of errors."""
    import jax

    named = jax.config.jax_platforms  # type: ignore[attr-defined]
    if not named and not _backend_started() and runs_on_cpu() and importlib.util.find_spec("libtpu") is not None:
        jax.config.update("jax_platforms", "cpu")
        os.environ["JAX_PLATFORMS"] = "cpu"


def set_up_cpu() -> CpuSetup:
    """Choose the number of virtual CPU devices and the XLA flags, where JAX will run on the CPU and nobody chose yet.

    Without a cached measurement it runs the probe first (under 30 s, once a machine and JAX version). A second call
    in the same process changes nothing.
    """
    global _chosen
    if _chosen.num_devices is not None:
        return _chosen
    _chosen = _decide()
    if _chosen.num_devices is not None:
        import jax

        jax.config.update("jax_num_cpu_devices", _chosen.num_devices)
        # Both into the environment, so that a process started from here is set up in the same way.
        os.environ["JAX_NUM_CPU_DEVICES"] = str(_chosen.num_devices)
        os.environ["XLA_FLAGS"] = _chosen.flags or ""
    return _chosen


def _decide() -> CpuSetup:
    if os.environ.get("JAXLLM_CPU_TUNING", "on").lower() in ("off", "0", "false"):
        return CpuSetup(reason="JAXLLM_CPU_TUNING=off")
    if _backend_started():
        return CpuSetup(reason="JAX had chosen its devices before set_up() ran")
    if not runs_on_cpu():
        return CpuSetup(reason="JAX runs on an accelerator here")
    for name in ("JAX_NUM_CPU_DEVICES", "XLA_FLAGS"):
        if os.environ.get(name):
            return CpuSetup(reason=f"{name} is set and wins")
    result = cached_probe(num_cores()) or probe(num_cores())
    best = result.best()
    if best is None:
        return CpuSetup(reason="every candidate of the CPU probe failed")
    return CpuSetup(num_devices=best.num_devices, flags=best.flags or None, reason="fastest in the CPU probe")


def runs_on_cpu() -> bool:
    """Whether JAX's default platform will be the CPU, judged without starting a backend."""
    import jax

    platforms = jax.config.jax_platforms  # type: ignore[attr-defined]
    if platforms:
        return platforms.split(",")[0] == "cpu"
    gpu_plugins = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm60_plugin", "jax_rocm7_plugin")
    gpu = any(map(importlib.util.find_spec, gpu_plugins)) and any(map(os.path.exists, ("/dev/nvidiactl", "/dev/kfd")))
    tpu_files = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev").glob("vfio/[0-9]*")]
    tpu = importlib.util.find_spec("libtpu") is not None and bool(tpu_files)
    return not (gpu or tpu)


def _backend_started() -> bool:
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bridge is not None and bridge.backends_are_initialized()
