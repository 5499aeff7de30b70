"""Tokens that a text must have, or must not have, at some of its places: the same for drawing and for beam search.

Letters: B rows, V vocabulary. A token that must not be written has the score -inf.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int


class Constraints(NamedTuple):
    """Masks over the vocabulary, as a pytree: a compiled program depends on which are None, not on their values."""

    suppress: Bool[ArrayLike, " V"] | None = None
    """Never to be written."""
    begin_suppress: Bool[ArrayLike, " V"] | None = None
    """Not to be written first; behind a first token that is forced, not second."""
    forced_bos: Bool[ArrayLike, " V"] | None = None
    """The first token of rows whose prompt is a single one, as it always is in a model with encoder and decoder."""
    single: Bool[ArrayLike, " B"] | None = None
    """Which rows those are; only there with `forced_bos`."""
    forced_eos: Bool[ArrayLike, " V"] | None = None
    """One of these is the last token, where as many are written as there may be."""
    last: Int[ArrayLike, ""] | None = None
    """Tokens before that one; only there with `forced_eos`."""


def make_constraints(
    prompts: Sequence[Sequence[int]],
    vocab_size: int,
    *,
    max_tokens: int,
    suppress: Sequence[int] = (),
    begin_suppress: Sequence[int] = (),
    forced_bos: int | None = None,
    forced_eos: Sequence[int] = (),
) -> Constraints | None:
    """The constraints of a batch; None without any.

    Args:
      prompts: what each row begins with.
      vocab_size: tokens that may be written.

    Raises:
      ValueError: a token is forced that cannot be written.
    """
    first = () if forced_bos is None else (forced_bos,)
    for name, forced in (("forced_bos", first), ("forced_eos", forced_eos)):
        if forced and max(forced) >= vocab_size:
            raise ValueError(f"{name} must be a token that can be written, below {vocab_size}: got {max(forced)}")
    if not (suppress or begin_suppress or first or forced_eos):
        return None
    return Constraints(
        suppress=_mask(suppress, vocab_size),
        begin_suppress=_mask(begin_suppress, vocab_size),
        forced_bos=_mask(first, vocab_size),
        single=np.asarray([len(prompt) == 1 for prompt in prompts]) if first else None,
        forced_eos=_mask(forced_eos, vocab_size),
        last=np.int32(max_tokens - 1) if forced_eos else None,
    )


def _mask(tokens: Sequence[int], vocab_size: int) -> Bool[np.ndarray, " V"] | None:
    """A token beyond the vocabulary cannot be written anyway."""
    return np.isin(np.arange(vocab_size), tokens) if tokens else None


def constrain(scores: Float[Array, "B V"], constraints: Constraints, drawn: Int[Array, ""]) -> Float[Array, "B V"]:
    """Scores with -inf for tokens that must not come next, and 0 for those of which one must, as transformers has it.

    What is forced is written even where it is suppressed.

    Args:
      drawn: tokens written so far.
    """
    if constraints.suppress is not None:
        scores = jnp.where(_row(constraints.suppress), -jnp.inf, scores)
    if constraints.begin_suppress is not None:
        first = jnp.asarray(False) if constraints.single is None else jnp.asarray(constraints.single)
        here = drawn == first.astype(jnp.int32)
        scores = jnp.where(_column(here) & _row(constraints.begin_suppress), -jnp.inf, scores)
    if constraints.forced_bos is not None:
        here = jnp.asarray(constraints.single) & (drawn == 0)
        scores = jnp.where(_column(here), _only(constraints.forced_bos), scores)
    if constraints.forced_eos is not None:
        scores = jnp.where(drawn == constraints.last, _only(constraints.forced_eos), scores)
    return scores


def _row(mask: Bool[ArrayLike, " V"]) -> Bool[Array, "1 V"]:
    return jnp.asarray(mask)[None, :]


def _column(rows: Bool[Array, "*B"]) -> Bool[Array, "_ 1"]:
    return rows.reshape(-1, 1)


def _only(mask: Bool[ArrayLike, " V"]) -> Float[Array, "1 V"]:
    return jnp.where(_row(mask), 0.0, -jnp.inf)
