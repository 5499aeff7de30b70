"""How long steps take, compile time apart, and what share of the device's peak that is (MFU)."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jaxllm.hardware.device import peak_flops


@dataclass(frozen=True, kw_only=True)
class Interval:
    """The steps between two marks of a `StepTimer`."""

    steps: int
    """Steps finished since the mark before."""
    seconds: float
    """Wall time of those steps, pauses left out."""
    tokens_per_step: int
    """Tokens in a global batch."""

    @property
    def step_seconds(self) -> float:
        return self.seconds / self.steps

    @property
    def tokens_per_second(self) -> float:
        return self.steps * self.tokens_per_step / self.seconds


class StepTimer:
    """Times the steps of a training loop. The first mark ends the step that compiles and is kept apart.

    JAX runs ahead of Python: mark a step only after a value that it computed has been read.

        timer = StepTimer(tokens_per_step=768)
        for step in range(1, 101):
            state, metrics = train_step(state, batch)
            if step == 1 or step % 10 == 0:
                loss = float(metrics["loss"])
                interval = timer.mark(step)   # None at the first mark
    """

    def __init__(self, *, tokens_per_step: int, first_step: int = 0):
        self.tokens_per_step = tokens_per_step
        self.compile_seconds: float | None = None
        """Wall time from the timer's making to the first mark: compiling and the first steps."""
        self._step = first_step
        self._paused = 0.0
        self._since = time.perf_counter()

    def mark(self, step: int) -> Interval | None:
        """Say that `step` is finished; returns the interval since the mark before, None at the first mark."""
        assert step > self._step, f"a timer's marks go up: marked step {self._step}, then {step}"
        now = time.perf_counter()
        steps, seconds = step - self._step, now - self._since - self._paused
        self._step, self._since, self._paused = step, now, 0.0
        if self.compile_seconds is None:
            self.compile_seconds = seconds
            return None
        return Interval(steps=steps, seconds=seconds, tokens_per_step=self.tokens_per_step)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what runs inside, such as an evaluation between two steps."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._paused += time.perf_counter() - start


def mfu(flops_per_token: float, tokens_per_second: float, devices: Sequence[Any], dtype: str) -> float | None:
    """Model FLOPs utilisation: flops_per_token · tokens_per_second / peak of all devices; None where no peak is known.

    Args:
      flops_per_token: model FLOPs of forward and backward, counted analytically.
      devices: the JAX devices of the mesh. Virtual CPU devices share one machine, whose measured peak counts once.
      dtype: the compute dtype, `float32` or `bfloat16`.
    """
    kind = devices[0].device_kind
    peak = peak_flops(kind, dtype)
    if peak is None:
        return None
    count = len({device.process_index for device in devices}) if devices[0].platform == "cpu" else len(devices)
    return flops_per_token * tokens_per_second / (peak * count)
