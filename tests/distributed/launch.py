"""Runs of several processes on this machine, each with its own CPU device, joined over loopback."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

SETTINGS = {
    "JAX_PLATFORMS": "cpu",
    "JAX_NUM_CPU_DEVICES": "1",
    "JAXLLM_CPU_TUNING": "off",
    "PYTHONUNBUFFERED": "1",
}
"""Environment variables of each process, besides those of the tests."""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@dataclass
class Process:
    """One of them, with what it prints."""

    popen: subprocess.Popen
    lines: list[str] = field(default_factory=list)
    ended: float = 0.0
    """When its output ended."""

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        with self.popen.stdout as lines:
            for line in lines:
                self.lines.append(line)
        self.popen.wait()
        self.ended = time.monotonic()

    @property
    def said(self) -> str:
        return "".join(self.lines)

    def wait(self, seconds: float = 240) -> int:
        self._reader.join(seconds)
        assert not self._reader.is_alive(), f"still there after {seconds} s:\n{self.said[-3000:]}"
        return self.popen.returncode

    def wait_for(self, text: str, seconds: float = 240) -> None:
        """Until it has printed `text`."""
        deadline = time.monotonic() + seconds
        while text not in self.said:
            assert self._reader.is_alive() and time.monotonic() < deadline, f"no {text!r} in:\n{self.said[-3000:]}"
            time.sleep(0.02)

    def signal(self, number: int) -> float:
        """Sends it; when that was."""
        self.popen.send_signal(number)
        return time.monotonic()


@contextlib.contextmanager
def processes(
    commands: Sequence[Sequence[str]], own: Sequence[Mapping[str, str]] | None = None, **environment: str
) -> Iterator[list[Process]]:
    """Starts a Python command for each process; the ones left are killed at the end.

    Args:
      own: environment variables of each process, besides those of all.
    """
    started = [
        Process(
            subprocess.Popen(
                [sys.executable, *command],
                env={**os.environ, **SETTINGS, **environment, **variables},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        for command, variables in zip(commands, own or [{}] * len(commands), strict=True)
    ]
    try:
        yield started
    finally:
        for each in started:
            each.popen.send_signal(signal.SIGCONT)
            each.popen.kill()
        for each in started:
            each.wait(10)


def commands(count: int, *arguments: str) -> list[list[str]]:
    """`jaxllm train` for so many processes, `arguments` for all of them."""
    where = ["--coordinator", f"127.0.0.1:{free_port()}", "--num-processes", str(count)]
    return [["-m", "jaxllm", "train", *arguments, *where, "--process-index", str(index)] for index in range(count)]


def training(count: int, *arguments: str, **environment: str):
    """The same, started."""
    return processes(commands(count, *arguments), **environment)


def train_to_end(count: int, *arguments: str, **environment: str) -> list[str]:
    """What each process printed of a run that must succeed."""
    with training(count, *arguments, **environment) as started:
        codes = [each.wait() for each in started]
        assert codes == [0] * count, "\n".join(each.said[-3000:] for each in started)
        return [each.said for each in started]
