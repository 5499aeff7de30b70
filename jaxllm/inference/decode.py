"""The device's part of generation: prefill a cache with prompts of any length, then add token after token.

Letters: B rows, P prompt slots, S cache slots, V vocabulary. Programs are compiled once per (B, P, S) and set of sampling
steps that are on; P and S only take the sizes that `bucket` gives.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Int32, Key

from jaxllm.inference.sampling import Drawing, sample
from jaxllm.inference.writer import DecodeParams, Writer, prompt_model, unembed, write_tokens, writer_config
from jaxllm.models import Cache, Encoded, unstack_cache, widen_cache

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


class PaddedPrompts(NamedTuple):
    """Prompts as rows of one array: padded on the left to the longest, and on the right up to a bucket."""

    tokens: Int32[np.ndarray, "B P"]
    positions: Int32[np.ndarray, "B P"]
    segment_ids: Int32[np.ndarray, "B P"]
    """1 where a token is, 0 for padding."""
    longest: int
    """Tokens of the longest prompt. All rows end in slot `longest - 1`, so the next token has one slot for all."""
    prefix: Bool[np.ndarray, "B P"] | None = None
    """Tokens that are seen by earlier ones, too, for a model that reads a prompt from both sides."""


def pad_prompts(prompts: Sequence[Sequence[int]], limit: int, prefix_lens: Sequence[int] | None = None) -> PaddedPrompts:
    """Prompts in one array.

    Args:
      prefix_lens: tokens at the beginning of each that are read from both sides. By default none are, and no mask is made.
    """
    longest = max(len(prompt) for prompt in prompts)
    shape = (len(prompts), bucket(longest, limit))
    tokens, positions, segment_ids = (np.zeros(shape, np.int32) for _ in range(3))
    for row, prompt in enumerate(prompts):
        slots = slice(longest - len(prompt), longest)
        tokens[row, slots] = prompt
        positions[row, slots] = np.arange(len(prompt))
        segment_ids[row, slots] = 1
    padded = PaddedPrompts(tokens, positions, segment_ids, longest)
    if prefix_lens is None:
        return padded
    return padded._replace(prefix=(positions < np.asarray(prefix_lens)[:, None]) & (segment_ids != 0))


def prefill(
    model: Writer,
    vocab_size: int,
    cache_len: int,
    params: DecodeParams,
    drawing: Drawing,
    prompts: PaddedPrompts,
    drawn: int,
    row_keys: Key[Array, " B"],
    seen: Bool[np.ndarray, "B V"] | None,
    memory: Encoded | None = None,
) -> DecodeState:
    """Reads the prompts into a cache of `cache_len` slots and draws the next token of each row.

    Args:
      vocab_size: tokens that may be drawn. A model's table can have more rows than its tokenizer has tokens.
      memory: what an encoder made of the texts to write from.
    """
    last = prompts.positions[:, prompts.longest - 1]
    prompts = prompts._replace(longest=np.int32(prompts.longest))
    return _prefill(model, vocab_size, cache_len, params, drawing, prompts, last, np.int32(drawn), row_keys, seen, memory)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _prefill(model, vocab_size, cache_len, params, drawing, prompts, last, drawn, row_keys, seen, memory) -> DecodeState:
    hidden, cache = read_prompts(model, cache_len, params, prompts, memory)
    state = DecodeState(cache, prompts.tokens[:, 0], last, drawn, seen)
    return _draw(model, vocab_size, params, drawing, hidden, row_keys, state)


def read_prompts(
    model: Writer, cache_len: int, params: DecodeParams, prompts: PaddedPrompts, memory: Encoded | None
) -> tuple[Float[Array, "B 1 D"], Cache]:
    """The hidden state of each prompt's last token, and a cache with the prompts in it and room for `cache_len` tokens."""
    tokens, positions, segment_ids, longest, prefix = prompts
    reader, config = prompt_model(model, params.prompts), writer_config(model)
    cache = reader.begin_cache(params.prompts, *tokens.shape, stacked=reader is not model)
    before, slots = cache.length, cache.positions.shape[1] - tokens.shape[1]
    given = {"positions": positions, "segment_ids": segment_ids} | ({} if prefix is None else {"prefix": prefix})
    out = write_tokens(reader, params.prompts, jnp.asarray(tokens), cache, memory, **given)
    hidden = jax.lax.dynamic_slice_in_dim(out.hidden, longest - 1, 1, axis=1)
    # The prompt attends to its own slots only; the empty ones are added after. Padding on the right is overwritten.
    assert out.cache is not None
    cache = widen_cache(out.cache, slots + cache_len)._replace(length=before + longest)
    return hidden, unstack_cache(cache, config.num_layers) if reader is not model else cache


def _draw(model, vocab_size, params, drawing, hidden, row_keys, state: DecodeState) -> DecodeState:
    logits = unembed(model, params.tokens, hidden)[:, 0, :vocab_size]
    keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(row_keys, state.drawn)
    token = sample(keys, logits, drawing, state.seen, state.drawn)
    seen = state.seen
    if seen is not None:
        seen = seen.at[jnp.arange(seen.shape[0]), token].set(True)
    return state._replace(token=token.astype(jnp.int32), position=state.position + 1, drawn=state.drawn + 1, seen=seen)


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=(5,))
def decode(
    model: Writer,
    vocab_size: int,
    params: DecodeParams,
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
        out = write_tokens(model, params.tokens, state.token[:, None], state.cache, positions=state.position[:, None])
        state = _draw(model, vocab_size, params, drawing, out.hidden, row_keys, state._replace(cache=out.cache))
        return state, tokens.at[index].set(state.token)

    tokens = jnp.zeros((MOST_STEPS, state.token.shape[0]), jnp.int32)
    return jax.lax.fori_loop(0, steps, step, (state, tokens))


def row_keys(seed: int, sample_numbers: Sequence[int]) -> Key[Array, " B"]:
    """One key a row, from the seed and which sample of its prompt a row is: its place in the batch does not count."""
    numbers = jnp.asarray(np.asarray(sample_numbers, np.uint32))
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(jax.random.key(seed), numbers)
