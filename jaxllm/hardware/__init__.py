"""The machine a program runs on: devices and what they can do, time and profiles, the CPU's devices and flags, the cache.

    from jaxllm.hardware import set_up
    set_up()                      # first line of an entry point, before JAX chooses its devices

JAX is imported inside the functions that need it, so that the light parts (`cache_dir`) stay light.
"""

from jaxllm.hardware.cache import cache_dir
from jaxllm.hardware.checkup import Finding, checkup, usable
from jaxllm.hardware.cpu import CpuSetup, chosen_setup, set_up, set_up_compilation_cache, set_up_cpu
from jaxllm.hardware.cpu_probe import forget_probe
from jaxllm.hardware.device import DeviceKind, device_kind, peak_flops, require_devices
from jaxllm.hardware.environment import environment
from jaxllm.hardware.machine import num_cores
from jaxllm.hardware.profile import ProfileConfig, ProfileWindow
from jaxllm.hardware.timing import Interval, StepTimer, mfu

__all__ = [
    "CpuSetup",
    "DeviceKind",
    "Finding",
    "Interval",
    "ProfileConfig",
    "ProfileWindow",
    "StepTimer",
    "cache_dir",
    "checkup",
    "chosen_setup",
    "device_kind",
    "environment",
    "forget_probe",
    "mfu",
    "num_cores",
    "peak_flops",
    "require_devices",
    "set_up",
    "set_up_compilation_cache",
    "set_up_cpu",
    "usable",
]
