"""Optimizer state in bfloat16: what an update rule keeps between steps in half the memory, rounded so that nothing is lost on
average."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array
from jaxtyping import BFloat16, Float32, Int


class RoundedState(NamedTuple):
    count: Int[Array, ""]
    """Updates made; the same value is rounded differently in each."""
    inner: Any
    """The rule's own state, its float32 arrays in bfloat16."""


def rounded(rule: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same rule with its state kept in bfloat16; it computes in float32.

    Rounding to the nearest would stop a second moment whose decay is over 0.996: what changes in a step is then less than half
    of bfloat16's last bit.
    """

    def init(params: Any) -> RoundedState:
        inner = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16) if _is_kept(leaf) else leaf, rule.init(params))
        return RoundedState(jnp.zeros((), jnp.int32), inner)

    def update(updates: Any, state: RoundedState, params: Any = None) -> tuple[Any, RoundedState]:
        wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if _is_rounded(leaf) else leaf, state.inner)
        updates, new = rule.update(updates, wide, params)
        inner = jax.tree.map(lambda leaf: round_on_average(leaf, state.count) if _is_kept(leaf) else leaf, new)
        return updates, RoundedState(state.count + 1, inner)

    return optax.GradientTransformation(init, update)  # type: ignore[arg-type]


def round_on_average(x: Float32[Array, "*S"], count: Int[Array, ""]) -> BFloat16[Array, "*S"]:
    """`x` rounded up or down, up the more often the nearer it is to that neighbour. The choice is a hash (the last steps of
    MurmurHash3) of `x` and `count`: an accelerator makes that many random numbers far more slowly."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    mixed = bits ^ (count.astype(jnp.uint32) * jnp.uint32(0x9E3779B9))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed = (mixed ^ (mixed >> jnp.uint32(shift))) * jnp.uint32(factor)
    kept = (bits + (mixed >> jnp.uint32(16))) & jnp.uint32(0xFFFF0000)
    near = jax.lax.bitcast_convert_type(kept, jnp.float32)
    return jnp.where(jnp.isfinite(x), near, x).astype(jnp.bfloat16)


def _is_kept(leaf: Array) -> bool:
    return leaf.ndim > 0 and leaf.dtype == jnp.float32


def _is_rounded(leaf: Array) -> bool:
    return leaf.ndim > 0 and leaf.dtype == jnp.bfloat16
