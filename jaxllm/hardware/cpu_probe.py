"""The CPU probe: which number of virtual devices and which XLA flags make a small training step fastest here.

Each candidate is a subprocess (`cpu_step`), because XLA reads its flags once a process. They are timed in turn, in
many short rounds, and the best round counts, so that other work on the machine does not decide. A flag that this XLA
does not know ends its subprocess; the candidate is recorded as failed and the others go on. A candidate must compute
the same losses as JAX as it comes. The result is kept in the cache folder for this JAX version, CPU and core count.
"""

import contextlib
import fcntl
import hashlib
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

from jaxllm.hardware.cache import cache_dir, read_json, write_json
from jaxllm.hardware.machine import cpu_model

YNN_DOT = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT --xla_cpu_multi_thread_eigen=false"
WORTH = 0.97
"""A candidate must take less than this share of a simpler one's time to be preferred to it."""
ROUNDS, ROUND_SECONDS = 30, 7.0
"""Rounds of timing, and the time after which no further one begins."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One setting and what the probe measured with it."""

    num_devices: int
    """Virtual CPU devices."""
    flags: str
    """XLA flags, `""` for XLA's own."""
    step_seconds: float | None = None
    """Time of the trial's training step in its best round; None before measuring and where it failed."""
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
        say = "jaxllm: finding this CPU's fastest setting, once (under half a minute) ..."
        print(say, end="", file=sys.stderr, flush=True)
        result = _measure(todo, cores)
        write_json(probe_path(cores), asdict(result))
        best = result.best()
        outcome = f"{best.num_devices} devices {best.flags}" if best else "every trial failed; JAX stays as it comes"
        print(f" {outcome.rstrip()}", file=sys.stderr, flush=True)
        return result


def forget_probe(cores: int) -> None:
    """Drop the cached result, so that the next `set_up` measures again."""
    probe_path(cores).unlink(missing_ok=True)


def _measure(todo: tuple[Candidate, ...], cores: int) -> ProbeResult:
    trials = [_start(candidate, cores) for candidate in todo]
    try:
        rows = [_answer(trial, candidate, "loss") for trial, candidate in zip(trials, todo, strict=True)]
        end = time.perf_counter() + ROUND_SECONDS
        for _ in range(ROUNDS):
            rows = [_time_once(trial, row) for trial, row in zip(trials, rows, strict=True)]
            if time.perf_counter() > end:
                break
    finally:
        for trial in trials:
            trial.kill()
            trial.communicate()
    return _agreeing(tuple(rows))


def _start(candidate: Candidate, cores: int) -> subprocess.Popen[str]:
    env = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(candidate.num_devices),
        "XLA_FLAGS": candidate.flags,
        "JAXLLM_PROBE_CORES": str(cores),
    }
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "jaxllm.hardware.cpu_step"]
    return subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def _time_once(trial: subprocess.Popen[str], row: Candidate) -> Candidate:
    if row.error is not None:
        return row
    assert trial.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        trial.stdin.write("\n")
        trial.stdin.flush()
    timed = _answer(trial, row, "step_seconds")
    if timed.step_seconds is None or row.step_seconds is None:
        return timed
    return replace(row, step_seconds=min(row.step_seconds, timed.step_seconds))


def _answer(trial: subprocess.Popen[str], row: Candidate, field: str) -> Candidate:
    """`row` with the number that the trial prints next, or with the reason why it printed none."""
    assert trial.stdout is not None and trial.stderr is not None
    try:
        return replace(row, **{field: float(trial.stdout.readline())})
    except ValueError:
        lines = trial.stderr.read().strip().splitlines()
        reason = next((line for line in lines if "Unknown flag" in line), lines[-1] if lines else "it ended early")
        return replace(row, step_seconds=None, error=reason)


def _agreeing(measured: tuple[Candidate, ...]) -> ProbeResult:
    """Drops the time of a candidate whose loss is not that of the first that worked."""
    expected = next((row.loss for row in measured if row.loss is not None), None)
    rows = []
    for row in measured:
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
