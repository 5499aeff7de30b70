"""The digest sees every bit, and nothing but the bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxllm.checkpoint.digest import digest
from tests.checkpoint.states import DTYPES, random_bits


def reference(x: np.ndarray) -> int:
    """The formula in Python integers, for types of up to 32 bits."""
    words = x.astype(np.uint32) if x.dtype == bool else x.view(f"u{x.dtype.itemsize}")
    total = 0
    for i, word in enumerate(words.ravel().tolist()):
        h = word ^ ((i * 0x9E3779B1 + 0x7F4A7C15) & 0xFFFFFFFF) ^ 0x5BD1E995
        h = ((h ^ (h >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
        h = ((h ^ (h >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
        total += h ^ (h >> 16)
    return total % 2**32


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (7,), (3, 4, 5)])
def test_formula(dtype, shape):
    x = random_bits(dtype, shape)
    assert int(digest(x)) == reference(np.asarray(x))


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("sizes", [(8, 1), (2, 4), (1, 8)])
@pytest.mark.parametrize("spec", [P(), P("a"), P("a", "b"), P(("a", "b")), P(None, "b")])
def test_same_under_every_sharding(sizes, spec, axis_type):
    x = random_bits("float32", (16, 24))
    mesh = jax.make_mesh(sizes, ("a", "b"), axis_types=(axis_type,) * 2)
    assert int(digest(jax.device_put(x, NamedSharding(mesh, spec)))) == int(digest(x))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_bit_counts(dtype):
    x = np.asarray(random_bits(dtype, (2, 3)))
    before = int(digest(jnp.asarray(x)))
    width = 1 if dtype == "bool" else 8 * x.dtype.itemsize
    for element in range(x.size):
        for bit in range(width):
            raw = bytearray(x.tobytes())
            raw[element * x.dtype.itemsize + bit // 8] ^= 1 << bit % 8
            changed = np.frombuffer(bytes(raw), x.dtype).reshape(x.shape)
            assert int(digest(jnp.asarray(changed))) != before


def test_order_counts():
    x = jnp.arange(12, dtype=jnp.float32)
    assert int(digest(x)) != int(digest(x[::-1]))
    assert int(digest(x)) != int(digest(x.at[jnp.array([3, 4])].set(x[jnp.array([4, 3])])))


def test_lost_block_of_ones():
    """Ones in float32 end in 23 zero bits: a sum that only multiplies by the position would not miss 512 of them."""
    x = jnp.ones(2048)
    for start in (0, 512, 1024):
        assert int(digest(x)) != int(digest(x.at[start : start + 512].set(0)))


def test_64_bits():
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).integers(0, 2**63, 50))
        seen = {int(digest(x))}
        seen.add(int(digest((x >> 32) | (x << 32))))  # halves swapped
        seen.add(int(digest(x ^ (1 << 40))))
        seen.add(int(digest(x ^ 1)))
        assert x.dtype == jnp.int64 and len(seen) == 4
