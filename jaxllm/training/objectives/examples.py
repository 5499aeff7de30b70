"""Examples by global position: the rows of a data set, each changed by a pure function of the row and a random key."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt64

from jaxllm.data.rows import Batch, Rows
from jaxllm.data.shuffle import keys_of

_NOISE = 0x6E6F697365


def noise_keys(seed: int | None, positions: Int64[np.ndarray, " B"]) -> UInt64[np.ndarray, " B"]:
    """One key for each global position; without a seed, as in evaluation, always the same."""
    return keys_of(_NOISE + (0 if seed is None else 1 + seed) * 2**40, positions)


@dataclass(frozen=True)
class Examples:
    """The rows of `base`, changed by `make`.

    The example at a global position is the same however the stream is cut into batches, processes and workers; in another
    epoch the same row stands at another position and is changed otherwise.
    """

    base: Rows
    make: Callable[[Batch, UInt64[np.ndarray, " B"]], Batch]
    """Of rows and their keys; a frozen dataclass, so that worker processes can have it, whose `repr` says all that decides
    the result but the tokenizer."""

    @property
    def seed(self) -> int | None:
        return self.base.seed

    @property
    def rows_per_epoch(self) -> int:
        return self.base.rows_per_epoch

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.base.fingerprint} {self.make!r}".encode()).hexdigest()[:24]

    def for_evaluation(self) -> "Examples":
        return Examples(self.base.for_evaluation(), self.make)

    def rows(self, positions: Int64[np.ndarray, " B"]) -> Batch:
        return self.make(self.base.rows(positions), noise_keys(self.seed, positions))

    def describe(self, position: int) -> list[str]:
        return self.base.describe(position)
