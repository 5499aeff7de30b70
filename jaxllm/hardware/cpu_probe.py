"""The CPU probe: which number of virtual devices and which XLA flags make a small training step fastest here.

Each candidate is one short subprocess (`cpu_step`), because XLA reads its flags once a process. A flag that this XLA
does not know ends its subprocess; the candidate is recorded as failed and the others go on. A candidate must compute
the same losses as JAX as it comes. The result is kept in the cache folder for this JAX version, CPU and core count.
"""

import contextlib
import fcntl
import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

from jaxllm.hardware.cache import cache_dir, read_json, write_json
from jaxllm.hardware.machine import cpu_model

YNN_DOT = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT --xla_cpu_multi_thread_eigen=false"
WORTH = 0.97
"""A candidate must take less than this share of a simpler one's time to be preferred to it."""
TRIAL_SECONDS = 60


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One setting and what the probe measured with it."""

    num_devices: int
    """Virtual CPU devices."""
    flags: str
    """XLA flags, `""` for XLA's own."""
    step_seconds: float | None = None
    """Best time of the trial's training step; None before measuring and where it failed."""
    loss: float | None = None
    """Loss after a few steps, the same for all candidates up to rounding."""
    error: str | None = None
    """Why it failed."""


@dataclass(frozen=True, kw_only=True)
class ProbeResult:
    """What the probe found for one JAX version, CPU and core count."""

    candidates: tuple[Candidate, ...]
    """From the simplest on."""

    def best(self) -> Candidate | None:
        """The fastest candidate that worked, a simpler one where it is about as fast; None where all failed."""
        chosen: Candidate | None = None
        for row in self.candidates:
            if row.step_seconds is None:
                continue
            if chosen is None or chosen.step_seconds is None or row.step_seconds < WORTH * chosen.step_seconds:
                chosen = row
        return chosen


def candidates(cores: int) -> tuple[Candidate, ...]:
    """The settings worth measuring on `cores` cores, the simplest first: JAX as it comes."""
    settings = [(1, ""), (cores, ""), (cores, YNN_DOT)]
    return tuple(Candidate(num_devices=devices, flags=flags) for devices, flags in dict.fromkeys(settings))


def probe_path(cores: int) -> Path:
    """The cached result's file; its name changes with whatever could change the result."""
    key = hashlib.sha256(repr((cpu_model(), cores, candidates(cores))).encode()).hexdigest()[:12]
    return cache_dir() / f"cpu_probe-jax{version('jax')}-{cores}cores-{key}.json"


def cached_probe(cores: int) -> ProbeResult | None:
    """The result of an earlier probe, or None."""
    found = read_json(probe_path(cores))
    try:
        return None if found is None else ProbeResult(candidates=tuple(Candidate(**row) for row in found["candidates"]))
    except (KeyError, TypeError):
        return None


def probe(cores: int) -> ProbeResult:
    """Measure every candidate, keep the result in the cache folder and return it. One process measures at a time."""
    with _lock(probe_path(cores).with_suffix(".lock")):
        earlier = cached_probe(cores)
        if earlier is not None:
            return earlier
        todo = candidates(cores)
        say = f"jaxllm: finding this CPU's fastest setting, once ({len(todo)} trials of a few seconds) ..."
        print(say, end="", file=sys.stderr, flush=True)
        result = _agreeing(ProbeResult(candidates=tuple(_measure(candidate, cores) for candidate in todo)))
        write_json(probe_path(cores), asdict(result))
        best = result.best()
        outcome = f"{best.num_devices} devices {best.flags}" if best else "every trial failed; JAX stays as it comes"
        print(f" {outcome.rstrip()}", file=sys.stderr, flush=True)
        return result


def forget_probe(cores: int) -> None:
    """Drop the cached result, so that the next `set_up` measures again."""
    probe_path(cores).unlink(missing_ok=True)


def _measure(candidate: Candidate, cores: int) -> Candidate:
    env = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(candidate.num_devices),
        "XLA_FLAGS": candidate.flags,
        "JAXLLM_PROBE_CORES": str(cores),
    }
    command = [sys.executable, "-m", "jaxllm.hardware.cpu_step"]
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=TRIAL_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as failure:
        return replace(candidate, error=str(failure))
    if done.returncode != 0:
        told = [line for line in done.stderr.splitlines() if "Unknown flag" in line] or done.stderr.splitlines()[-1:]
        return replace(candidate, error=told[0].strip() if told else f"exit code {done.returncode}")
    return replace(candidate, **json.loads(done.stdout.splitlines()[-1]))


def _agreeing(result: ProbeResult) -> ProbeResult:
    """Drops the time of a candidate whose loss is not that of the first that worked."""
    expected = next((row.loss for row in result.candidates if row.loss is not None), None)
    rows = []
    for row in result.candidates:
        agrees = row.loss is None or (expected is not None and math.isclose(row.loss, expected, rel_tol=1e-4))
        wrong = f"computes a loss of {row.loss} where JAX as it comes has {expected}"
        rows.append(row if agrees else replace(row, step_seconds=None, error=wrong))
    return ProbeResult(candidates=tuple(rows))


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Holds the file's lock; without one where the cache folder cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError:
        yield
        return
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
