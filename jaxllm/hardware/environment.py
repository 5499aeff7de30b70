"""What a run ran on: versions, devices, machine, commit, flags. Written into every run folder and every record."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from jaxllm.hardware.cpu import chosen_setup
from jaxllm.hardware.machine import cpu_model, memory_bytes, num_cores

PACKAGES = (
    *("jaxllm", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets"),
    *("transformers", "tokenizers", "numpy"),
)


def environment() -> dict[str, Any]:
    """Versions, devices, machine, commit and CPU flags as one JSON-able dict. Starts JAX's backend; no host name."""
    import jax

    devices = jax.devices()
    setup = chosen_setup()
    return {
        "versions": versions(),
        "platform": devices[0].platform,
        "device_kind": devices[0].device_kind,
        "device_count": len(devices),
        "local_device_count": jax.local_device_count(),
        "process_count": jax.process_count(),
        "cpu": cpu_model(),
        "cores": num_cores(),
        "memory_bytes": memory_bytes(),
        "system": f"{platform.system()} {platform.machine()}",
        "commit": commit(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "cpu_setup": setup.reason,
    }


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages a run rests on; None for one that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def commit() -> str | None:
    """The commit of the checkout this package runs from, with `+changes` if files differ; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None

    def git(*args: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *args], capture_output=True, text=True, check=True, timeout=10)
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None
