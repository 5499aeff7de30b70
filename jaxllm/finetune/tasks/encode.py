"""Text as the token ids that a model reads, whatever tokenizer it has."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32

from jaxllm.data import Tokenizer
from jaxllm.data.subword import SubwordTokenizer


class Tokens(NamedTuple):
    ids: Int32[np.ndarray, " T"]
    token_types: Int32[np.ndarray, " T"]
    """0 for the first text, 1 for the second."""
    cut: bool
    """Whether tokens were left out."""


def encode_text(tokenizer: Tokenizer, text: str, pair: str | None, limit: int) -> Tokens:
    """A text, or two, with the special tokens that the model expects around them; the longer text loses its end first.

    Raises:
      ValueError: no text, or no token.
    """
    for part in (text, pair):
        if part is not None and not part.strip():
            raise ValueError(f"a text must have at least one token: got {part[:60]!r}; leave it out of the data")
    if isinstance(tokenizer, SubwordTokenizer):
        encoded = tokenizer.encode_special(text, pair)
        cut = len(encoded.ids) > limit
        if cut:
            encoded = tokenizer.encode_special(text, pair, max_len=limit)
        ids, types = encoded
    else:
        parts = [tokenizer.encode(part) for part in (text, pair) if part is not None]
        end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
        room = limit - len(end) * len(parts)
        cut = sum(map(len, parts)) > room
        if cut:
            each = max(room // len(parts), room - min(map(len, parts)), 0)  # the shorter leaves what it does not need
            parts = [part[:each] for part in parts]
        ids = [i for part in parts for i in part + end]
        types = [kind for kind, part in enumerate(parts) for _ in part + end]
    if not ids:
        raise ValueError(f"a text must have at least one token: got {text[:60]!r}; leave it out of the data")
    return Tokens(np.array(ids, np.int32), np.array(types, np.int32), cut)


class Words(NamedTuple):
    ids: list[int]
    """Without special tokens."""
    words: list[int]
    """The number of the word that each token is from."""


def encode_words(tokenizer: Tokenizer, words: Sequence[str]) -> Words:
    """Words that the data has apart, as the tokens of a text of them; each token belongs to one."""
    if isinstance(tokenizer, SubwordTokenizer):
        return Words(*tokenizer.encode_words(words))
    encoded = [tokenizer.encode(word) for word in words]
    return Words([i for ids in encoded for i in ids], [number for number, ids in enumerate(encoded) for _ in ids])


def encode_spans(tokenizer: Tokenizer, text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids without special tokens, and from and to which character of the text each stands."""
    if isinstance(tokenizer, SubwordTokenizer):
        return tokenizer.encode_spans(text)
    encoded = [tokenizer.encode(character) for character in text]
    return [i for ids in encoded for i in ids], [(at, at + 1) for at, ids in enumerate(encoded) for _ in ids]


class Around(NamedTuple):
    """Special tokens of a model around one text, or before, between and after two."""

    before: list[int]
    between: list[int]
    after: list[int]


def around(tokenizer: Tokenizer, *, pair: bool) -> Around:
    """The special tokens that `encode_text` puts there."""
    if not isinstance(tokenizer, SubwordTokenizer):
        end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
        return Around([], end if pair else [], end)
    return Around(*tokenizer.special_around(pair=pair))
