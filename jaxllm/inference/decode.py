"""The device's part of generation: prefill a cache with prompts of any length, then add token after token.

Letters: B rows, P prompt slots, S cache slots, V vocabulary. Programs are compiled once per (B, P, S) and set of sampling
steps that are on; P and S only take the sizes that `bucket` gives.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Int32, Key

from jaxllm.inference.sampling import Drawing, sample
from jaxllm.models import Cache, Output, Transformer, init_cache, unembed_hidden, unstack_layers, widen_cache

SMALLEST_BUCKET = 32
MOST_STEPS = 64
"""Steps that one call of `decode` can make: the length of the buffer for its tokens."""


class DecodeState(NamedTuple):
    cache: Cache
    token: Int[Array, " B"]
    """The last token of each row: drawn, but not yet in the cache."""
    position: Int[Array, " B"]
    """Its position."""
    drawn: Int[Array, ""]
    """Tokens drawn so far, the same for all rows. A draw folds it into the row's key."""
    seen: Bool[Array, "B V"] | None
    """Tokens that each row has had, prompt included; only there for a repetition penalty."""


def bucket(length: int, limit: int) -> int:
    """The next power of two, at least `SMALLEST_BUCKET` and at most `limit`."""
    assert length <= limit
    return min(max(1 << (length - 1).bit_length(), SMALLEST_BUCKET), limit)


def decode_params(model: Transformer, params: Any) -> Any:
    """Parameters as decoding wants them: one tree a layer, matrices and tables in the compute type.

    One token needs every weight once, so reading them is what takes the time: a stack would be copied layer by layer,
    and a wider type read and converted for each token. Parameters that are like this already come back as they are.
    """
    if isinstance(params["layers"], tuple):
        return params
    return _decode_params(model.config.num_layers, model.config.compute_dtype, params)


@partial(jax.jit, static_argnums=(0, 1))
def _decode_params(num_layers: int, compute_dtype: str, params: Any) -> Any:
    def cast(path, x):
        return x.astype(compute_dtype) if path[-1].key in ("kernel", "table") else x

    params = jax.tree_util.tree_map_with_path(cast, params)
    return {**params, "layers": unstack_layers(params["layers"], num_layers)}


class PaddedPrompts(NamedTuple):
    """Prompts as rows of one array: padded on the left to the longest, and on the right up to a bucket."""

    tokens: Int32[np.ndarray, "B P"]
    positions: Int32[np.ndarray, "B P"]
    segment_ids: Int32[np.ndarray, "B P"]
    """1 where a token is, 0 for padding."""
    longest: int
    """Tokens of the longest prompt. All rows end in slot `longest - 1`, so the next token has one slot for all."""


def pad_prompts(prompts: Sequence[Sequence[int]], limit: int) -> PaddedPrompts:
    longest = max(len(prompt) for prompt in prompts)
    shape = (len(prompts), bucket(longest, limit))
    tokens, positions, segment_ids = (np.zeros(shape, np.int32) for _ in range(3))
    for row, prompt in enumerate(prompts):
        slots = slice(longest - len(prompt), longest)
        tokens[row, slots] = prompt
        positions[row, slots] = np.arange(len(prompt))
        segment_ids[row, slots] = 1
    return PaddedPrompts(tokens, positions, segment_ids, longest)


def prefill(
    model: Transformer,
    vocab_size: int,
    cache_len: int,
    params: Any,
    drawing: Drawing,
    prompts: PaddedPrompts,
    drawn: int,
    row_keys: Key[Array, " B"],
    seen: Bool[np.ndarray, "B V"] | None,
) -> DecodeState:
    """Reads the prompts into a cache of `cache_len` slots and draws the next token of each row.

    Args:
      vocab_size: tokens that may be drawn. A model's table can have more rows than its tokenizer has tokens.
    """
    tokens, positions, segment_ids, longest = prompts
    last = positions[:, longest - 1]
    return _prefill(
        model, vocab_size, cache_len, params, drawing, tokens, positions, segment_ids,
        np.int32(longest), last, np.int32(drawn), row_keys, seen,
    )  # fmt: skip


@partial(jax.jit, static_argnums=(0, 1, 2))
def _prefill(
    model, vocab_size, cache_len, params, drawing, tokens, positions, segment_ids, longest, last, drawn, row_keys, seen
) -> DecodeState:
    B, P = tokens.shape
    cache = init_cache(model.config, B, P, stacked=False)
    out = _apply(model, params, tokens, positions, segment_ids, cache)
    hidden = jax.lax.dynamic_slice_in_dim(out.hidden, longest - 1, 1, axis=1)
    # The prompt attends to its own slots only; the empty ones are added after. Padding on the right is overwritten.
    assert out.cache is not None
    cache = widen_cache(out.cache, cache_len)._replace(length=longest)
    state = DecodeState(cache, tokens[:, 0], last, drawn, seen)
    return _draw(model, vocab_size, params, drawing, hidden, row_keys, state)


def _apply(model, params, tokens, positions, segment_ids, cache: Cache) -> Output:
    """The model without its logits: only one position's are needed, and they are as wide as the vocabulary."""
    variables = {"params": params}
    out = model.apply(variables, tokens, positions=positions, segment_ids=segment_ids, cache=cache, unembed=False)
    return cast(Output, out)


def _draw(model, vocab_size, params, drawing, hidden, row_keys, state: DecodeState) -> DecodeState:
    logits = unembed_hidden(model.config, params, hidden)[:, 0, :vocab_size]
    keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(row_keys, state.drawn)
    token = sample(keys, logits, drawing, state.seen)
    seen = state.seen
    if seen is not None:
        seen = seen.at[jnp.arange(seen.shape[0]), token].set(True)
    return state._replace(token=token.astype(jnp.int32), position=state.position + 1, drawn=state.drawn + 1, seen=seen)


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=(5,))
def decode(
    model: Transformer,
    vocab_size: int,
    params: Any,
    drawing: Drawing,
    row_keys: Key[Array, " B"],
    state: DecodeState,
    steps: Int[Array, ""] | np.int32,
) -> tuple[DecodeState, Int[Array, "steps B"]]:
    """Adds `steps` tokens to each row, at most `MOST_STEPS`, and returns them in the first rows of a buffer.

    The cache must have that many free slots: the number is only known to the caller, who has to see to it.
    The number of steps is an argument, not a shape: one program serves streaming word by word and long stretches.
    """

    def step(index: Array, carry: tuple[DecodeState, Array]) -> tuple[DecodeState, Array]:
        state, tokens = carry
        out = _apply(model, params, state.token[:, None], state.position[:, None], None, state.cache)
        state = _draw(model, vocab_size, params, drawing, out.hidden, row_keys, state._replace(cache=out.cache))
        return state, tokens.at[index].set(state.token)

    tokens = jnp.zeros((MOST_STEPS, state.token.shape[0]), jnp.int32)
    return jax.lax.fori_loop(0, steps, step, (state, tokens))


def row_keys(seed: int, sample_numbers: Sequence[int]) -> Key[Array, " B"]:
    """One key a row, from the seed and which sample of its prompt a row is: its place in the batch does not count."""
    numbers = jnp.asarray(np.asarray(sample_numbers, np.uint32))
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(seed), numbers)
