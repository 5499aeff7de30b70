"""Workers that are timed in turn, so that whatever else the machine does hits all alike.

A worker prints `ready` when it is; then for each number N it reads, it takes N steps and prints the seconds of one.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def serve(steps: Callable[[int], None]) -> None:
    """A worker's side, once it is warm: `steps` takes so many steps and waits for the last. Needs nothing but Python."""
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        steps(int(line))
        print((time.perf_counter() - start) / int(line), flush=True)


def alternate(
    commands: dict[str, list[str]],
    steps: int,
    rounds: int,
    told: dict[str, list[str]] | None = None,
    peaks: dict[str, int] | None = None,
) -> dict[str, list[float]]:
    """Seconds a step of each worker, one value a round; the workers take turns, so that only one computes at a time.

    Args:
      told: takes the lines that each worker prints before it is ready.
      peaks: takes the most bytes that each worker has had in memory, on Linux.
    """
    pipe = subprocess.PIPE
    workers = {name: subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for name, command in commands.items()}
    times: dict[str, list[float]] = {name: [] for name in workers}
    try:
        for name, worker in workers.items():
            line = _read(worker, name)
            while line != "ready":
                if told is not None:
                    told.setdefault(name, []).append(line)
                line = _read(worker, name)
        for _ in range(rounds):
            for name, worker in workers.items():
                assert worker.stdin is not None
                worker.stdin.write(f"{steps}\n")
                worker.stdin.flush()
                times[name].append(float(_read(worker, name)))
                time.sleep(0.3)  # threads of the one that stopped may still spin
        if peaks is not None:
            peaks.update({name: _peak(worker) for name, worker in workers.items()})
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()
    return times


def _peak(worker: subprocess.Popen[str]) -> int:
    lines = Path(f"/proc/{worker.pid}/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith("VmHWM")))


def _read(worker: subprocess.Popen[str], name: str) -> str:
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        raise SystemExit(f"the worker {name} ended early: see its message above")
    return line.strip()
