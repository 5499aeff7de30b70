"""The most memory that this process, or one of its devices, has used so far."""

import resource
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

_shared = ContextVar("shared", default=False)


@contextmanager
def shared_process() -> Iterator[None]:
    """Here the process does several runs one after the other, so that its peak is that of none of them."""
    token = _shared.set(True)
    try:
        yield
    finally:
        _shared.reset(token)


def peak_memory_bytes(devices: Sequence[Any]) -> int | None:
    """Of accelerators that of the device that used most; on CPU the largest resident size of the process. Since the process
    began; None where the device does not say, and inside `shared_process`.

    Args:
      devices: JAX devices; those of other processes do not count.
    """
    if _shared.get():
        return None
    if devices[0].platform != "cpu":
        import jax

        own = [device for device in devices if device.process_index == jax.process_index()]
        peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in own]
        return max((peak for peak in peaks if peak is not None), default=None)
    return _peak_resident_bytes()


def _peak_resident_bytes() -> int:
    # Linux adds to ru_maxrss what the process was before it became this program; VmHWM is of this program alone.
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
