"""A fingerprint of an array's bits, computed where the array lies, the same under every sharding and device count.

    digest(x) = sum over i of mix(bits(x_i) xor hash(i))   mod 2^32

`mix` is a bijection of 32-bit words (the finalizer of MurmurHash3), so a change of any one element always changes the
sum, and other changes escape with probability 2^-32. Integer addition has no order, so neither sharding nor the number
of devices can change the result. Only words are compared, never values: NaN payloads and signed zeros count.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped, UInt32


def digest(x: Shaped[Array, "*shape"]) -> UInt32[Array, ""]:
    """The fingerprint of the bits of `x`, each with its position; of equal replicas one is looked at."""
    if x.sharding.memory_kind == "pinned_host":  # a program computes with what is on its device
        x = jax.device_put(x, x.sharding.with_memory_kind("device"))
    return _digest(x.addressable_data(0) if x.is_fully_replicated else x)


@jax.jit
def _digest(x: Shaped[Array, "*shape"]) -> UInt32[Array, ""]:
    index = jnp.zeros(x.shape, jnp.uint32)
    for axis, size in enumerate(x.shape):
        index = index * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    position = index * jnp.uint32(0x9E3779B1) + jnp.uint32(0x7F4A7C15)
    total = jnp.uint32(0)
    for word in _words(x):
        position = position ^ jnp.uint32(0x5BD1E995)  # the two halves of a 64-bit element are told apart
        total = total + jnp.sum(_mix(word ^ position), dtype=jnp.uint32)
    return total


def _words(x: Shaped[Array, "*shape"]) -> list[UInt32[Array, "*shape"]]:
    """The bits of each element as one or two 32-bit words."""
    if x.dtype == jnp.bool_:
        return [x.astype(jnp.uint32)]
    bits = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[x.dtype.itemsize]
    words = jax.lax.bitcast_convert_type(x, bits)
    if x.dtype.itemsize == 8:
        return [words[..., 0], words[..., 1]]
    return [words.astype(jnp.uint32)]


def _mix(word: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    word = (word ^ (word >> 16)) * jnp.uint32(0x85EBCA6B)
    word = (word ^ (word >> 13)) * jnp.uint32(0xC2B2AE35)
    return word ^ (word >> 16)
