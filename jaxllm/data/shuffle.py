"""Reproducible orders: the same numbers for ever, on every machine and with every version of NumPy."""

import numpy as np
from jaxtyping import Int64, UInt64

_ROUNDS = 4


def mix(values: UInt64[np.ndarray, "*n"]) -> UInt64[np.ndarray, "*n"]:
    """The finalizer of SplitMix64 (Steele, Lea, Flood 2014): a bijection of 64-bit numbers that looks random."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def keys_of(seed: int, numbers: Int64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """One random 64-bit key for each number, for example for each epoch."""
    return mix(mix(np.array([seed % 2**64], np.uint64)) + numbers.astype(np.uint64))


def random_order(seed: int, count: int) -> Int64[np.ndarray, " count"]:
    """A random order of 0 to count - 1."""
    return np.argsort(keys_of(seed, np.arange(count)), kind="stable")


def permute(index: Int64[np.ndarray, " B"], size: int, keys: UInt64[np.ndarray, " B"]) -> Int64[np.ndarray, " B"]:
    """Where each index goes in the random permutation of 0 to size - 1 that its key stands for; no table is kept.

    A Feistel network on the next power of four, walked until it falls below `size` (Black, Rogaway 2002).
    """
    half = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
    low = (np.uint64(1) << half) - np.uint64(1)
    round_keys = [mix(keys + np.uint64(r)) for r in range(_ROUNDS)]

    def walk(values: np.ndarray, keys: list[np.ndarray]) -> np.ndarray:
        left, right = values >> half, values & low
        for key in keys:
            left, right = right, left ^ (mix(right ^ key) & low)
        return (left << half) | right

    values = walk(index.astype(np.uint64), round_keys)
    outside = np.flatnonzero(values >= size)
    while outside.size:
        values[outside] = walk(values[outside], [key[outside] for key in round_keys])
        outside = outside[values[outside] >= size]
    return values.astype(np.int64)


def epoch_order(
    positions: Int64[np.ndarray, " B"], count: int, seed: int | None
) -> tuple[Int64[np.ndarray, " B"], UInt64[np.ndarray, " B"]]:
    """Which of `count` rows stands at each global position, in a new order each epoch, and the key of its epoch.

    Without a seed there is one epoch, in its own order.
    """
    epochs, rows = np.divmod(positions, count)
    if seed is None:
        if (epochs != 0).any():
            raise IndexError(f"a split in its own order has rows 0 to {count - 1}: got {positions.max()}")
        return rows, np.zeros(len(rows), np.uint64)
    keys = keys_of(seed, epochs)
    return permute(rows, count, keys), keys
