"""Ids that an objective needs beside those of text, and what each id of a vocabulary is.

Where the tokenizer has no such entry, new ids after its last one are taken, and the model's vocabulary grows by them.
"""

from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool

from jaxllm.data import Tokenizer

_SENTENCE_ENDS = (".", "!", "?", "。", "！", "？", "…", "\n")


@runtime_checkable
class _NamesTokens(Protocol):
    def token_id(self, token: str) -> int | None: ...

    def encode_special(self, text: str) -> Any: ...


def token_id(tokenizer: Tokenizer, token: str) -> int | None:
    """The id of an entry by its name, for tokenizers whose entries have names."""
    return tokenizer.token_id(token) if isinstance(tokenizer, _NamesTokens) else None


def mask_id(tokenizer: Tokenizer) -> int:
    """The id that hides a token."""
    return tokenizer.vocab_size if tokenizer.mask_id is None else tokenizer.mask_id


def sentinel_ids(tokenizer: Tokenizer, count: int) -> tuple[int, ...]:
    """Ids of <extra_id_0>, <extra_id_1>, ..., which stand for the first, the second, ... hidden span."""
    if token_id(tokenizer, "<extra_id_0>") is None:
        return tuple(range(tokenizer.vocab_size, tokenizer.vocab_size + count))
    ids = [token_id(tokenizer, f"<extra_id_{k}>") for k in range(count)]
    known = [id for id in ids if id is not None]
    if len(known) < count:
        raise ValueError(
            f"rows of this length hide {count} spans: the tokenizer has only {ids.index(None)} marks for them, <extra_id_0> "
            "and so on; shorten data.seq_len, or raise objective.mean_span"
        )
    return tuple(known)


def first_start_id(tokenizer: Tokenizer) -> int | None:
    """What a decoder reads before the first token that it writes, where its config leaves that to the tokenizer."""
    return next((id for id in (tokenizer.bos_id, tokenizer.pad_id, tokenizer.eos_id) if id is not None), None)


def first_id(tokenizer: Tokenizer) -> int | None:
    """The id that the tokenizer was published to put before a text, such as [CLS]; `[CLS] text [SEP]` has one, `text </s>`
    none."""
    around = tokenizer.encode_special("").ids if isinstance(tokenizer, _NamesTokens) else []
    return around[0] if around and around[0] != tokenizer.eos_id else None


def end_id(tokenizer: Tokenizer) -> int:
    """The id that ends a text, which models that write texts of their own need."""
    if tokenizer.eos_id is None:
        raise ValueError(
            "this objective needs a tokenizer with an end mark: this one has none; take tokenizer.kind bytes, bpe or unigram"
        )
    return tokenizer.eos_id


class Entries:
    """What each id of a vocabulary is, by the text it has after a letter."""

    def __init__(self, tokenizer: Tokenizer):
        before = tokenizer.encode("a")
        letter = tokenizer.decode(before)
        self.texts = [tokenizer.decode([*before, id])[len(letter) :] for id in range(tokenizer.vocab_size)]

    @property
    def special(self) -> Bool[np.ndarray, " V"]:
        """Ids without a text: marks, and whatever is unknown."""
        return np.array([not text for text in self.texts])

    @property
    def first_letter(self) -> Bool[np.ndarray, " V"]:
        """Ids whose text goes on with a word that the id before ended in: no space first, but a letter or a digit."""
        return np.array([bool(text) and _is_letter(text[0]) for text in self.texts])

    @property
    def last_letter(self) -> Bool[np.ndarray, " V"]:
        """Ids whose text ends inside a word."""
        return np.array([bool(text) and _is_letter(text[-1]) for text in self.texts])

    @property
    def sentence_end(self) -> Bool[np.ndarray, " V"]:
        """Ids whose text ends a sentence."""
        return np.array([text.rstrip(" ").endswith(_SENTENCE_ENDS) for text in self.texts])


def _is_letter(character: str) -> bool:
    """Letters and digits of scripts that put spaces between words, and pieces of characters (U+FFFD). Chinese and Japanese
    characters are words of their own."""
    if "\u3040" <= character <= "\u30ff" or "\u3400" <= character <= "\u9fff" or "\uf900" <= character <= "\ufaff":
        return False
    return character.isalnum() or character == "\ufffd"
