"""Weights that need not be stored: each is a function of its published name and shape. The oracle imports this, too."""

import zlib

import numpy as np


def seeded(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Normal numbers of variance 1 / (last axis); scales of norms lie around 1, biases around 0."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    values = rng.standard_normal(shape)
    if len(shape) > 1:
        return (values * shape[-1] ** -0.5).astype(np.float32)
    return (0.1 * values + (1.0 if name.endswith("weight") else 0.0)).astype(np.float32)
