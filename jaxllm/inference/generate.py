"""Text from a model: prompts in, completions out, in one batch."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32

from jaxllm.data import Tokenizer
from jaxllm.inference.decode import (
    MOST_STEPS,
    DecodeState,
    bucket,
    decode,
    decode_params,
    pad_prompts,
    prefill,
    row_keys,
)
from jaxllm.inference.sampling import SamplingConfig, make_drawing
from jaxllm.inference.stream import TextStream
from jaxllm.models import Transformer

SECONDS_BETWEEN_LOOKS = 0.05


def generate(
    model: Transformer,
    params: Any,
    tokenizer: Tokenizer,
    prompts: list[str],
    sampling: SamplingConfig,
    *,
    num_samples: int = 1,
    on_text: Callable[[int, str], None] | None = None,
) -> list[str]:
    """Completions of the prompts: `num_samples` of the first prompt, then as many of the next, and so on.

        generate(model, params, tokenizer, ["ROMEO:"], SamplingConfig(max_tokens=100, temperature=0.8))

    A completion depends on its prompt, the sampling and the seed, not on the prompts beside it. It ends with
    `max_tokens`, a stop text, or the tokenizer's end token. Text longer than the model's context is written with a
    context that moves, see `stream_tokens`.

    Args:
      params: the model's, or what `decode_params` made of them; that saves a copy when generating often.
      on_text: called as `on_text(row, text)` with each new piece of the completion that is returned at `row`.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1: got {num_samples}")
    ids = [encode_prompt(tokenizer, prompt, model.config.context_len) for prompt in prompts]
    rows = [
        TextStream(tokenizer.decode, prompt, max_tokens=sampling.max_tokens, stop=sampling.stop, eos_id=tokenizer.eos_id)
        for prompt in ids
        for _ in range(num_samples)
    ]
    vocab_size = min(tokenizer.vocab_size, model.config.vocabulary)
    for tokens in stream_tokens(model, params, ids, sampling, num_samples=num_samples, vocab_size=vocab_size):
        for number, row in enumerate(rows):
            text = row.feed(tokens[:, number].tolist())
            if text and on_text is not None:
                on_text(number, text)
        if all(row.finished for row in rows):
            break
    return [row.text for row in rows]


def encode_prompt(tokenizer: Tokenizer, prompt: str, context_len: int) -> list[int]:
    """Ids of a prompt. An empty one stands for the start of a text: the tokenizer's start or end token."""
    ids = list(tokenizer.encode(prompt))
    if not ids:
        start = tokenizer.bos_id if tokenizer.bos_id is not None else tokenizer.eos_id
        if start is None:
            raise ValueError(
                "A prompt must hold at least one token: got an empty one, and this tokenizer has no token that starts "
                "or ends a text to begin from. Give some text, for example a line break."
            )
        return [start]
    if len(ids) > context_len:
        raise ValueError(
            f"A prompt must fit into the model's context of {context_len} tokens: got {len(ids)} tokens, beginning "
            f"{prompt[:30]!r}. Shorten it, or keep its last part only."
        )
    return ids


def stream_tokens(
    model: Transformer,
    params: Any,
    prompts: Sequence[Sequence[int]],
    sampling: SamplingConfig,
    *,
    num_samples: int = 1,
    vocab_size: int | None = None,
) -> Iterator[Int32[np.ndarray, "T B"]]:
    """Draws `max_tokens` tokens a row and yields them as they come, a few at a time; end tokens are not looked at.

    A row that outgrows `context_len` keeps the last half of it: those tokens are read again, from position 0, and the
    row goes on from there. Which tokens a row sees depends on its own length only.
    """
    context_len = model.config.context_len
    params = decode_params(model, params)
    vocab_size = vocab_size or model.config.vocabulary
    drawing = make_drawing(sampling)
    keys = row_keys(sampling.seed, list(range(num_samples)) * len(prompts))
    texts = [list(prompt) for prompt in prompts for _ in range(num_samples)]
    starts, drawn = [0] * len(texts), 0
    while drawn < sampling.max_tokens:
        starts = [_start(start, len(text), context_len) for start, text in zip(starts, texts, strict=True)]
        padded = pad_prompts([text[start:] for start, text in zip(starts, texts, strict=True)], context_len)
        room = min(context_len - padded.longest, sampling.max_tokens - drawn - 1)
        cache_len = max(bucket(padded.longest + room, context_len), padded.tokens.shape[1])
        assert padded.longest + room <= cache_len, "a full cache would be written over"
        seen = None if sampling.repetition_penalty is None else _seen(texts, vocab_size)
        state = prefill(model, vocab_size, cache_len, params, drawing, padded, drawn, keys, seen)
        for tokens in _decode_stretch(partial(decode, model, vocab_size, params, drawing, keys), state, room):
            texts = [text + tokens[:, row].tolist() for row, text in enumerate(texts)]
            drawn += len(tokens)
            yield tokens


def _start(start: int, length: int, context_len: int) -> int:
    """Where a row's context begins: it moves only when the row has outgrown it."""
    return start if length - start <= context_len else length - max(context_len // 2, 1)


def _seen(texts: Sequence[Sequence[int]], vocab_size: int) -> Bool[np.ndarray, "B V"]:
    seen = np.zeros((len(texts), vocab_size), bool)
    for row, text in enumerate(texts):
        seen[row, [token for token in text if token < vocab_size]] = True
    return seen


def _decode_stretch(
    decode: Callable[[DecodeState, np.int32], tuple[DecodeState, Any]], state: DecodeState, room: int
) -> Iterator[Int32[np.ndarray, "T B"]]:
    """The token drawn by the prefill, then `room` more, in calls long enough that looking at them costs nothing."""
    yield np.asarray(state.token)[None]
    steps = 1
    while room:
        started = time.perf_counter()
        count = min(steps, room)
        state, tokens = decode(state, np.int32(count))
        tokens = np.asarray(tokens)[:count]
        quick = time.perf_counter() - started < SECONDS_BETWEEN_LOOKS
        steps = min(2 * steps, MOST_STEPS) if quick else max(steps // 2, 1)
        room -= count
        yield tokens
