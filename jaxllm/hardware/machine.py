"""The host machine: cores, CPU model, memory."""

import ctypes
import os
import platform
from pathlib import Path


def num_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model() -> str:
    """The CPU's name with family, model and stepping where Linux tells them."""
    fields: dict[str, str] = {}
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if not line.strip():
                break
            name, _, value = line.partition(":")
            fields[name.strip()] = value.strip()
    except OSError:
        pass
    if "model name" not in fields:
        return platform.processor() or platform.machine()
    numbers = [fields.get(name, "?") for name in ("cpu family", "model", "stepping")]
    return f"{fields['model name']} ({'/'.join(numbers)})"


def free_memory_bytes() -> int | None:
    """Memory that a new program could have, or None where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) * 1024
    except (OSError, ValueError):
        pass
    return None


def memory_bytes() -> int | None:
    """Memory of the machine, or None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (OSError, ValueError, AttributeError):
        return None


def return_memory() -> None:
    """Give what has been freed back to the system, which glibc does not do by itself: hundreds of MB when a program has been
    compiled. Does nothing where there is no glibc."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return
