"""Is this machine ready? What `jaxllm doctor` looks at: versions, devices, memory, disk, caches, CPU settings."""

import contextlib
import glob
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Literal

from jaxllm.hardware.cache import cache_dir
from jaxllm.hardware.counted import counted
from jaxllm.hardware.cpu import chosen_setup, runs_on_cpu
from jaxllm.hardware.cpu_probe import cached_probe
from jaxllm.hardware.device import device_kind, peak_flops
from jaxllm.hardware.environment import commit, versions
from jaxllm.hardware.machine import cpu_model, free_memory_bytes, memory_bytes, num_cores

GIB = 2**30


@dataclass(frozen=True)
class Finding:
    """One line of the check-up."""

    level: Literal["ok", "note", "broken"]
    """`broken`: jaxllm cannot work so. `note`: it works, and could do better."""
    text: str
    advice: str | None = None
    """What to do about it."""


def checkup() -> dict[str, list[Finding]]:
    """Findings by subject. Call `set_up()` first; starts JAX's backend."""
    subjects = {
        "versions": _versions,
        "devices": _devices,
        "CPU settings": _cpu_settings,
        "memory and disk": _memory_and_disk,
        "caches": _caches,
    }
    return {name: list(look()) for name, look in subjects.items()}


def usable(findings: dict[str, list[Finding]]) -> bool:
    """Whether nothing is broken."""
    return all(finding.level != "broken" for rows in findings.values() for finding in rows)


def _versions() -> Iterator[Finding]:
    found = versions()
    yield Finding("ok", ", ".join(f"{name} {found[name]}" for name in ("jaxllm", "python", "jax", "jaxlib", "flax", "optax")))
    if commit():
        yield Finding("ok", f"running from a checkout at {commit()}")
    yield from wrong_versions(requires("jaxllm") or [], platform.python_version())
    for package in ("jax", "flax", "optax", "orbax-checkpoint"):
        with contextlib.suppress(PackageNotFoundError):  # already told
            yield from wrong_versions(requires(package) or [], platform.python_version(), asked_by=package)
    yield from _libtpu()
    for plugin in ("jax-cuda12-plugin", "jax-cuda13-plugin"):
        try:
            if version(plugin) != version("jaxlib"):
                told = f"{plugin} {version(plugin)} does not fit jaxlib {version('jaxlib')}"
                yield Finding("broken", told, "pip install --upgrade 'jaxllm[gpu]'")
        except PackageNotFoundError:
            continue


def _libtpu() -> Iterator[Finding]:
    """The TPU's compiler and runtime must be the one that this JAX was made for."""
    from packaging.requirements import Requirement

    needs = [need for need in map(Requirement, requires("jax") or []) if need.name == "libtpu"]
    wanted = next((need.specifier for need in needs if need.marker and need.marker.evaluate({"extra": "tpu"})), None)
    try:
        have = version("libtpu")
    except PackageNotFoundError:
        use, advice = "a TPU, and `jaxllm plan --topology`, need it", "pip install 'jaxllm[tpu]'"
        here = bool(glob.glob("/dev/accel[0-9]*") or glob.glob("/dev/vfio/[0-9]*"))
        found = "; there seems to be a TPU here" if here else ""
        yield Finding("note" if here else "ok", f"libtpu is not installed: {use} ({advice}){found}", advice if here else None)
        return
    if wanted is None or wanted.contains(have, prereleases=True):
        yield Finding("ok", f"libtpu {have}" + ("" if wanted is None else f", which jax {version('jax')} was made for"))
    else:
        told = f"libtpu {have} is installed, and jax {version('jax')} was made for {wanted}"
        yield Finding("note", told, "pip install --upgrade 'jaxllm[tpu]'")


def wrong_versions(requirements: list[str], python: str, asked_by: str = "jaxllm") -> Iterator[Finding]:
    """A finding for each requirement, without extras, that is missing or installed in a version that does not fit."""
    from packaging.requirements import Requirement

    if tuple(map(int, python.split(".")[:2])) < (3, 11):
        yield Finding("broken", f"Python must be 3.11 or later: this is {python}", "make the environment with a newer Python")
    for text in requirements:
        need = Requirement(text)
        if need.marker is not None and not need.marker.evaluate({"extra": ""}):
            continue
        try:
            have = version(need.name)
        except PackageNotFoundError:
            yield Finding("broken", f"{need.name} is not installed", f"pip install '{need.name}{need.specifier}'")
            continue
        if not need.specifier.contains(have, prereleases=True):
            told = f"{need.name} must be {need.specifier} for {asked_by}: {have} is installed"
            yield Finding("broken", told, f"pip install --upgrade '{need.name}{need.specifier}'")


def _devices() -> Iterator[Finding]:
    import jax
    import jax.numpy as jnp

    try:
        devices = jax.devices()
        total = float(jnp.sum(jax.jit(jnp.dot)(jnp.ones((64, 64)), jnp.ones((64, 64)))))
    except (RuntimeError, AssertionError) as error:  # with a missing plugin JAX raises either
        yield Finding("broken", f"JAX cannot start: {_first_line(error)}", _advice_for_platform())
        return
    if total != 64.0**3:
        yield Finding("broken", f"a product of ones is wrong: expected {64**3}, got {total}", "unset XLA_FLAGS and try again")
    kind = devices[0].device_kind
    yield Finding("ok", f"{len(devices)} {devices[0].platform} ({kind}), {counted(jax.process_count(), 'process')}")
    if devices[0].platform == "cpu":
        yield Finding("ok", f"{cpu_model()}, {num_cores()} cores, {_tera(peak_flops('cpu', 'float32'))} float32 measured")
        if any(map(os.path.exists, ("/dev/nvidiactl", "/dev/nvidia0"))) and runs_on_cpu():
            yield Finding("note", "there is an NVIDIA GPU that JAX does not use", _advice_for_platform())
        return
    row = device_kind(kind)
    if row is None:
        yield Finding("note", f"{kind} is not in the device table, so MFU is not reported", "add a row to hardware/device.py")
    else:
        yield Finding("ok", f"peak {_tera(row.bf16_flops)} bfloat16, {row.hbm_bytes / 1e9:.0f} GB ({row.source})")


def _advice_for_platform() -> str:
    if os.environ.get("JAX_PLATFORMS"):
        return f"JAX_PLATFORMS={os.environ['JAX_PLATFORMS']} is set: unset it, or set it to cpu"
    return "pip install 'jaxllm[gpu]' (NVIDIA) or 'jaxllm[tpu]'"


def _cpu_settings() -> Iterator[Finding]:
    setup = chosen_setup()
    if not runs_on_cpu():
        yield Finding("ok", "not used: JAX runs on an accelerator")
        return
    chosen = f"{setup.num_devices} virtual devices, XLA_FLAGS={setup.flags or ''}" if setup.num_devices else "JAX as it comes"
    yield Finding("ok", f"{chosen} ({setup.reason})")
    result = cached_probe(num_cores())
    if result is None:
        if setup.num_devices is None and "off" in setup.reason:
            yield Finding("note", "CPU tuning is off: training may take twice as long", "unset JAXLLM_CPU_TUNING")
        return
    slowest = max((row.step_seconds or 0.0 for row in result.candidates), default=0.0)
    for row in result.candidates:
        took = f"{row.step_seconds * 1e3:6.1f} ms, {slowest / row.step_seconds:.2f}x" if row.step_seconds else "failed"
        mark = "*" if row == result.best() else " "
        yield Finding("ok", f"{mark} {took:<16} {counted(row.num_devices, 'device')} {row.flags} {row.error or ''}".rstrip())


def existing(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def _memory_and_disk() -> Iterator[Finding]:
    memory = memory_bytes()
    if memory is not None:
        level = "ok" if memory >= 2 * GIB else "note"
        advice = None if level == "ok" else "expect small models only"
        free = free_memory_bytes()
        available = "" if free is None else f", {free / GIB:.1f} GiB of it free"
        if free is not None and free < GIB:
            level, advice = "note", "end other programs: JAX may be killed for want of memory"
        yield Finding(level, f"{memory / GIB:.1f} GiB of memory{available}", advice)
    for name, folder in (("this folder", Path.cwd()), ("the cache folder", cache_dir())):
        where = existing(folder)
        free = shutil.disk_usage(where).free
        if not os.access(where, os.W_OK):
            advice = (
                "give runs another place with --run-dir" if name == "this folder" else "set JAXLLM_CACHE to a folder of yours"
            )
            yield Finding("note", f"{name} {folder} cannot be written", advice)
        elif free < GIB:
            yield Finding("note", f"{name} {folder} has {free / GIB:.2f} GiB free", "free some space: checkpoints need it")
        else:
            yield Finding("ok", f"{name} {folder}: {free / GIB:.0f} GiB free")


def _caches() -> Iterator[Finding]:
    import jax

    folder: Any = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if folder is None:
        yield Finding("note", "the compilation cache is off: every start compiles again", "call jaxllm.hardware.set_up() first")
        return
    files = [file for file in Path(folder).glob("*") if file.is_file()] if "://" not in folder else []
    size = sum(file.stat().st_size for file in files) / 2**20
    yield Finding(
        "ok", f"compiled programs in {folder}: {counted(len(files), 'file')}, {size:.0f} MiB (may be deleted at any time)"
    )


def _tera(flops: float | None) -> str:
    return "unknown FLOP/s" if flops is None else f"{flops / 1e12:.3g} TFLOP/s"


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
