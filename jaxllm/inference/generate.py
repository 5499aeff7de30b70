"""Text from a model: prompts in, completions out, in one batch."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Int32

from jaxllm.data import Tokenizer
from jaxllm.inference.beam import beam_search
from jaxllm.inference.decode import MOST_STEPS, DecodeState, bucket, decode, pad_prompts, prefill, row_keys
from jaxllm.inference.sampling import SamplingConfig, find_constraints, make_drawing
from jaxllm.inference.stream import TextStream
from jaxllm.inference.writer import DecodeParams, Writer, check_writer, decode_params, encode
from jaxllm.models import Encoded, EncoderDecoder

SECONDS_BETWEEN_LOOKS = 0.05

Prompt = str | Sequence[int]
"""A text, or ids that are taken as they are."""


def generate(
    model: Writer,
    params: Any,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    sampling: SamplingConfig,
    *,
    num_samples: int = 1,
    eos_ids: Sequence[int] | None = None,
    prefix: bool = False,
    on_text: Callable[[int, str], None] | None = None,
) -> list[str]:
    """Completions of the prompts: `num_samples` of the first prompt, then as many of the next, and so on.

        generate(model, params, tokenizer, ["ROMEO:"], SamplingConfig(max_tokens=100, temperature=0.8))

    A completion depends on its prompt, the sampling and the seed, not on the prompts beside it. It ends with
    `max_tokens`, a stop text, or an end token. Text longer than the model's context is written with a context that
    moves, see `stream_tokens`. A model with encoder and decoder reads the prompts and writes a text for each.

    Args:
      prompts: texts, which get the tokens around them that their tokenizer was published with, or ids.
      params: the model's, or what `decode_params` made of them; that saves a copy when generating often.
      eos_ids: tokens that end a text. By default the tokenizer's.
      prefix: read prompts from both sides, as a model that was trained with a prefix does; the rest is written causally.
      on_text: called as `on_text(row, text)` with each new piece of the completion that is returned at `row`.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples must be at least 1: got {num_samples}")
    if num_samples > 1 and sampling.num_beams is not None:
        raise ValueError(f"num_samples must be 1 with num_beams, which finds one text: got {num_samples}")
    check_writer(model)
    if prefix and isinstance(model, EncoderDecoder):
        raise ValueError("prefix is for a model that continues its prompt: one with an encoder reads it from both sides anyway")
    if not prompts:
        return []
    if eos_ids is None:
        eos_ids = () if tokenizer.eos_id is None else (tokenizer.eos_id,)
    params = decode_params(model, params)
    starts, memory = _begin(model, params, tokenizer, prompts)
    given: Any = {"memory": memory, "vocab_size": min(tokenizer.vocab_size, model.config.vocabulary), "prefix": prefix}
    if sampling.num_beams is not None:
        found = beam_search(model, params, starts, sampling, eos_ids=eos_ids, **given)
        pieces: Iterable[list[list[int]]] = [found]
    else:
        drawn = stream_tokens(model, params, starts, sampling, num_samples=num_samples, **given)
        pieces = (tokens.T.tolist() for tokens in drawn)
    rows = [
        TextStream(tokenizer.decode, start, max_tokens=sampling.max_tokens, stop=sampling.stop, eos_ids=eos_ids)
        for start in starts
        for _ in range(num_samples)
    ]
    for piece in pieces:
        for number, (row, ids) in enumerate(zip(rows, piece, strict=True)):
            text = row.feed(ids)
            if text and on_text is not None:
                on_text(number, text)
        if all(row.finished for row in rows):
            break
    return [row.text for row in rows]


def _begin(
    model: Writer, params: DecodeParams, tokenizer: Tokenizer, prompts: Sequence[Prompt]
) -> tuple[list[list[int]], Encoded | None]:
    """What each text begins with, and what the encoder makes of the prompts where there is one."""
    if not isinstance(model, EncoderDecoder):
        return [encode_prompt(tokenizer, prompt, model.context_len) for prompt in prompts], None
    start = model.config.start_id
    if start is None:
        start = next((i for i in (tokenizer.bos_id, tokenizer.pad_id, tokenizer.eos_id) if i is not None), None)
    if start is None:
        raise ValueError(
            "the decoder needs a token to begin with: set model.start_id, for the tokenizer has none that would do"
        )
    sources = [encode_prompt(tokenizer, prompt, model.source_len, ended=True) for prompt in prompts]
    return [[start] for _ in prompts], encode_sources(model, params.prompts, sources)


def encode_sources(model: EncoderDecoder, params: Any, sources: Sequence[Sequence[int]]) -> Encoded:
    """What the encoder makes of texts of any length, padded on the right up to a bucket."""
    longest = max(len(source) for source in sources)
    shape = (len(sources), bucket(longest, max(longest, model.source_len)))
    tokens, segment_ids = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for row, source in enumerate(sources):
        tokens[row, : len(source)], segment_ids[row, : len(source)] = source, 1
    return encode(model, params, tokens, segment_ids)


def encode_prompt(tokenizer: Tokenizer, prompt: Prompt, context_len: int, *, ended: bool = False) -> list[int]:
    """Ids of a prompt. An empty one stands for the start of a text: the tokenizer's start or end token.

    Args:
      ended: with the end token after it, as an encoder reads a text; otherwise without, since the text goes on.
    """
    ids = _ids(tokenizer, prompt)
    if isinstance(prompt, str) and tokenizer.eos_id is not None:
        last_is_end = ids[-1:] == [tokenizer.eos_id]
        if ended and not last_is_end:
            ids = [*ids, tokenizer.eos_id]
        elif not ended and last_is_end and len(ids) > 1:
            ids = ids[:-1]
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


def _ids(tokenizer: Tokenizer, prompt: Prompt) -> list[int]:
    if not isinstance(prompt, str):
        return [int(i) for i in prompt]
    with_special = getattr(tokenizer, "encode_special", None)
    return list(tokenizer.encode(prompt)) if with_special is None else with_special(prompt).ids


def stream_tokens(
    model: Writer,
    params: Any,
    prompts: Sequence[Sequence[int]],
    sampling: SamplingConfig,
    *,
    num_samples: int = 1,
    vocab_size: int | None = None,
    memory: Encoded | None = None,
    prefix: bool = False,
) -> Iterator[Int32[np.ndarray, "T B"]]:
    """Draws `max_tokens` tokens a row and yields them as they come, a few at a time; end tokens are not looked at.

    A row that outgrows `context_len` keeps the last half of it: those tokens are read again, from position 0, and the
    row goes on from there. Which tokens a row sees depends on its own length only.

    Args:
      memory: what an encoder made of the texts to write from, a row a prompt.
      prefix: read prompts from both sides; where the context has moved, what is left of them.
    """
    context_len = model.context_len
    params = decode_params(model, params)
    vocab_size = vocab_size or model.config.vocabulary
    if memory is not None and num_samples > 1:
        memory = jax.tree.map(lambda x: np.repeat(x, num_samples, axis=0), memory)
    keys = row_keys(sampling.seed, list(range(num_samples)) * len(prompts))
    texts = [list(prompt) for prompt in prompts for _ in range(num_samples)]
    prompt_lens = [len(text) for text in texts]
    drawing = make_drawing(sampling, find_constraints(sampling, texts, vocab_size))
    starts, drawn = [0] * len(texts), 0
    while drawn < sampling.max_tokens:
        starts = [_start(start, len(text), context_len) for start, text in zip(starts, texts, strict=True)]
        prefix_lens = [max(0, n - start) for start, n in zip(starts, prompt_lens, strict=True)] if prefix else None
        padded = pad_prompts([text[start:] for start, text in zip(starts, texts, strict=True)], context_len, prefix_lens)
        room = min(context_len - padded.longest, sampling.max_tokens - drawn - 1)
        cache_len = max(bucket(padded.longest + room, context_len), padded.tokens.shape[1])
        assert padded.longest + room <= cache_len, "a full cache would be written over"
        seen = None if sampling.repetition_penalty is None else _seen(texts, vocab_size)
        state = prefill(model, vocab_size, cache_len, params, drawing, padded, drawn, keys, seen, memory)
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
