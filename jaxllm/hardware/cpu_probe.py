"""The CPU probe: which number of virtual devices and which XLA flags make a small training step fastest here.

Each candidate is one short subprocess (`cpu_step`), because XLA reads its flags once a process. A flag that this XLA
does not know ends its subprocess; the candidate is recorded as failed and the others go on. No candidate changes
results beyond float rounding. The result is kept in the cache folder for this JAX version, CPU model and core count.
"""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from jaxllm.hardware.cache import cache_dir, read_json, write_json
from jaxllm.hardware.machine import cpu_model

YNN_DOT = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT --xla_cpu_multi_thread_eigen=false"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One setting and what the probe measured with it."""

    num_devices: int
    """Virtual CPU devices."""
    flags: str
    """XLA flags, `""` for XLA's own."""
    step_seconds: float | None = None
    """Median time of the representative training step; None before measuring and where it failed."""
    error: str | None = None
    """Why it failed."""


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """What the probe found for one JAX version, CPU model and core count."""

    candidates: tuple[Candidate, ...]

    def best(self) -> Candidate | None:
        """The fastest candidate that worked, or None."""
        worked = [candidate for candidate in self.candidates if candidate.step_seconds is not None]
        return min(worked, key=lambda candidate: candidate.step_seconds or 0.0) if worked else None


def candidates(cores: int) -> tuple[Candidate, ...]:
    """The settings worth measuring on `cores` cores; the first is JAX as it comes."""
    plain = (Candidate(num_devices=1, flags=""),)
    if cores == 1:
        return (*plain, Candidate(num_devices=1, flags=YNN_DOT))
    return (*plain, Candidate(num_devices=cores, flags=""), Candidate(num_devices=cores, flags=YNN_DOT))


def probe_path(cores: int) -> Path:
    """The cached result's file; its name changes with whatever could change the result."""
    key = hashlib.sha256(repr((cpu_model(), cores, candidates(cores))).encode()).hexdigest()[:12]
    return cache_dir() / f"cpu_probe_jax{version('jax')}_{cores}cores_{key}.json"


def cached_probe(cores: int) -> ProbeResult | None:
    """The result of an earlier probe, or None."""
    found = read_json(probe_path(cores))
    if found is None:
        return None
    try:
        return ProbeResult(candidates=tuple(Candidate(**row) for row in found["candidates"]))
    except (KeyError, TypeError):
        return None


def probe(cores: int) -> ProbeResult:
    """Measure every candidate, write the result into the cache folder and return it."""
    todo = candidates(cores)
    print(
        f"jaxllm: measuring the CPU's fastest setting, once ({len(todo)} short trials) ...", file=sys.stderr, flush=True
    )
    result = ProbeResult(candidates=tuple(_measure(candidate) for candidate in todo))
    write_json(probe_path(cores), asdict(result))
    return result


def _measure(candidate: Candidate) -> Candidate:
    env = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(candidate.num_devices)}
    env["XLA_FLAGS"] = candidate.flags
    row = {"num_devices": candidate.num_devices, "flags": candidate.flags}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "jaxllm.hardware.cpu_step"], env=env, capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as failure:
        return Candidate(**row, error=str(failure))
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        return Candidate(**row, error=lines[-1] if lines else f"exit code {done.returncode}")
    return Candidate(**row, step_seconds=json.loads(done.stdout.splitlines()[-1])["step_seconds"])
