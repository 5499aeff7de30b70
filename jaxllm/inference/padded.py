"""Texts of like length, computed together: a program for each power of two that lengths and numbers are rounded up to."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from jaxllm.inference.decode import bucket


class Padded(NamedTuple):
    """A batch of rows, padded on the right, with rows of padding behind."""

    members: list[int]
    """The numbers of its rows among those given."""
    tokens: Int32[np.ndarray, "B T"]
    segment_ids: Int32[np.ndarray, "B T"]
    """1 for tokens, 0 for padding."""


def padded_batches(rows: Sequence[Sequence[int]], limit: int, batch_size: int) -> Iterator[Padded]:
    """All rows, in batches of at most `batch_size`.

    Args:
      limit: the longest row there may be.
    """
    by_length: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        by_length.setdefault(bucket(len(row), limit), []).append(number)
    for length, members in by_length.items():
        for start in range(0, len(members), batch_size):
            chosen = members[start : start + batch_size]
            size = min(1 << (len(chosen) - 1).bit_length(), batch_size)
            lengths = np.array([len(rows[number]) for number in chosen] + [0] * (size - len(chosen)))
            segment_ids = (np.arange(length) < lengths[:, None]).astype(np.int32)
            yield Padded(chosen, pad(rows, chosen, (size, length)), segment_ids)


def pad(rows: Sequence[Sequence[int]], members: Sequence[int], shape: tuple[int, int]) -> Int32[np.ndarray, "B T"]:
    """Some of the rows, with 0 behind each."""
    array = np.zeros(shape, np.int32)
    for place, number in enumerate(members):
        array[place, : len(rows[number])] = rows[number]
    return array
