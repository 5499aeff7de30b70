"""States to save: one array of every type, and one that looks like training."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

DTYPES = ("float32", "bfloat16", "float16", "int32", "uint32", "int16", "uint16", "int8", "uint8", "bool", "float8_e4m3fn")


class State(NamedTuple):
    step: Any
    params: Any
    opt_state: Any


def random_bits(dtype: str, shape: tuple[int, ...], seed: int = 0) -> jax.Array:
    """Every bit pattern of the type is as likely as any other: NaN payloads, infinities, subnormal numbers."""
    rng = np.random.default_rng([seed, *dtype.encode()])
    if dtype == "bool":
        return jnp.asarray(rng.integers(0, 2, shape).astype(bool))
    size = jnp.dtype(dtype).itemsize
    words = rng.integers(0, 2 ** (8 * size), shape, dtype=np.uint64).astype(f"u{size}")
    return jnp.asarray(words.view(jnp.dtype(dtype)))


def train_state(seed: int = 0) -> State:
    """Parameters, two moments and a counter: 47 kB, every leaf different."""
    key = jax.random.key(seed)

    def params(number: int) -> dict[str, Any]:
        keys = jax.random.split(jax.random.fold_in(key, number), 3)
        return {
            "table": jax.random.normal(keys[0], (64, 16)),
            "layers": {"kernel": jax.random.normal(keys[1], (2, 16, 64)), "bias": jax.random.normal(keys[2], (2, 64))},
        }

    moments = {"count": jnp.int32(seed), "mu": params(1), "nu": params(2)}
    return State(jnp.int32(seed), params(0), ({}, moments))


def abstract(state: Any) -> Any:
    """The shapes, types and shardings of a state."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)


def bits(array: jax.Array) -> bytes:
    """The bytes of an array, whose equality is equality to the last bit."""
    return np.asarray(array).tobytes()


def assert_same(found: Any, expected: Any) -> None:
    """Same structure, types and bits."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        assert bits(one) == bits(other)
