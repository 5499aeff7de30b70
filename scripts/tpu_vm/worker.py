"""How workers are spoken to: the commands that `gcloud ... ssh` carries to worker.sh, and its answers."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MARK = "jaxllm-worker"
"""Begins the line in which a worker answers; the exit code of ssh to several workers says too little."""
SCRIPT = "scripts/tpu_vm/worker.sh"
INSTALLED = f"jaxllm/{SCRIPT}"


@dataclass(frozen=True)
class Worker:
    host: str
    state: str
    """idle, running, ended, interrupted (its machine went down), stopped (by the user), or installed."""
    run: str | None = None
    code: int | None = None
    """Exit code of training, where it ended."""

    def __str__(self) -> str:
        run = f" {self.run}" if self.run else ""
        return f"{self.state}{run}" + (f", exit code {self.code}" if self.code is not None else "")


def answers(text: str) -> list[Worker]:
    """The workers whose answers are in what ssh printed."""
    found = re.findall(rf"^{MARK} (\S+) (\S+)(?: (\S+))?(?: (\d+))?\s*$", text, re.MULTILINE)
    return [Worker(host, state, run or None, int(code) if code else None) for host, state, run, code in found]


def report() -> str:
    return f'if [ -f {INSTALLED} ]; then bash {INSTALLED} report; else echo "{MARK} $(hostname) idle"; fi'


def install(archive: str, prepare: str | None) -> str:
    return (
        shlex.join(["tar", "-xzf", archive, SCRIPT, "--to-stdout"])
        + " | "
        + shlex.join(["bash", "-s", "install", archive, *([prepare] if prepare else [])])
    )


def start(run: str, options: Sequence[str], environment: Mapping[str, str], logs: str) -> str:
    """Training, in the background; where it runs already, nothing.

    Args:
      options: what follows `jaxllm train`.
      logs: gs:// folder where each worker leaves its log at the end.
    """
    settings = [f"{name}={shlex.quote(value)}" for name, value in environment.items()]
    return " ".join([*settings, shlex.join(["bash", INSTALLED, "start", run, logs, *options])])


def follow(lines: int, *, named: bool) -> str:
    """Args:
    named: each line begins with the worker's name.
    """
    return f"bash {INSTALLED} follow {lines}" + (' | sed --unbuffered "s/^/$(hostname): /"' if named else "")


def tail(lines: int) -> str:
    return f"bash {INSTALLED} tail {lines}"


def stop() -> str:
    return f"bash {INSTALLED} stop"


def end() -> str:
    return f"bash {INSTALLED} end"
