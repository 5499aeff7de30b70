"""Where a value stands along an axis of a picture, and which values are written there."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from jaxllm.checkpoint import Direction
from jaxllm.sweep.field import Value, as_text
from jaxllm.sweep.space import Choice, Range

MARGIN = 0.06
"""Of an axis, left free at both ends."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """Numbers from `low` to `high`, or labels side by side."""

    low: int | float = 0.0
    high: int | float = 1.0
    log: bool = False
    whole: bool = False
    labels: tuple[str, ...] | None = None

    def place(self, value: Value) -> float:
        """From 0 at the beginning to 1 at the end; what lies beyond is put at the end."""
        if self.labels is not None:
            return (self.labels.index(as_text(value)) + 0.5) / len(self.labels)
        assert isinstance(value, int | float)
        low, high, at = (math.log(x) if self.log else x for x in (self.low, self.high, max(value, self.low)))
        share = (at - low) / (high - low) if high > low else 0.5
        return MARGIN + (1 - 2 * MARGIN) * min(share, 1.0)

    def ticks(self, most: int = 6) -> list[tuple[float, str]]:
        """Places and what is written there."""
        if self.labels is not None:
            return [(self.place(label), label) for label in self.labels]
        values = _log_ticks(self.low, self.high, most) if self.log else _even_ticks(self.low, self.high, most, self.whole)
        return [(self.place(value), f"{value:g}") for value in values]


def field_axis(each: Range | Choice) -> Axis:
    if isinstance(each, Choice):
        return Axis(labels=each.labels)
    return Axis(low=each.low, high=each.high, log=each.log, whole=each.whole)


def metric_axis(values: Sequence[float], direction: Direction) -> Axis:
    """From the best value to the worst, or to where one very bad value does not flatten all others."""
    known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high, middle = min(known), max(known), statistics.median(known)
    if direction == "lowest" and middle > low:
        high = min(high, low + 4 * (middle - low))
    elif direction == "highest" and middle < high:
        low = max(low, high - 4 * (high - middle))
    return Axis(low=low, high=high if high > low else low + max(abs(low), 1.0) * 0.01)


def _even_ticks(low: int | float, high: int | float, most: int, whole: bool) -> list[int | float]:
    unit = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(unit * size for size in (1, 2, 2.5, 5, 10, 20) if (high - low) / (unit * size) <= most)
    step = max(math.ceil(step), 1) if whole else step
    first = math.ceil(low / step - 1e-9)
    return [round(number * step, 12) for number in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: int | float, high: int | float, most: int) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for sizes in ((1, 2, 5), (1, 3), (1,)):
        values = [size * 10.0**power for power in powers for size in sizes]
        within = [value for value in values if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
        if len(within) <= most:
            return within
    return within[:: -(-len(within) // most)]
