"""Tokenizers of the `tokenizers` package out of a published vocabulary: byte-level BPE, WordPiece, and SentencePiece's two.

The same vocabularies come in files of their own (`published`) and inside GGUF files.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

SPACE = "\u2581"
"""What SentencePiece writes for a space."""
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Kinds of pieces, with the numbers of SentencePiece and GGUF."""

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SIGNS_AND_SPACE = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
Split = Literal["gpt2", "digits", "llama3", "qwen2"]
"""How byte-level BPE cuts a text into words first. gpt2: words, numbers and signs, each with the space before it. digits: the
same, each digit alone. llama3: numbers of up to three digits, line ends together. qwen2: the same, each digit alone."""


def byte_level_bpe(
    vocab: Mapping[str, int], merges: Iterable[tuple[str, str]], *, split: Split = "gpt2", unicode: Literal["NFC"] | None = None
) -> tokenizers.Tokenizer:
    """Merges of bytes, as GPT-2 has them: a byte is written as a printable character, the space as \u0120.

    Args:
      unicode: the form that text is brought into first.
    """
    whole_words = split == "llama3"  # its vocabulary has words that no sequence of merges makes
    core = tokenizers.Tokenizer(models.BPE(vocab=dict(vocab), merges=list(merges), ignore_merges=whole_words))
    if unicode == "NFC":
        core.normalizer = normalizers.NFC()
    core.pre_tokenizer = pre_tokenizers.Sequence(_split(split))
    core.decoder = decoders.ByteLevel()
    return core


def _split(split: Split) -> list[pre_tokenizers.PreTokenizer]:
    if split in ("gpt2", "digits"):
        words = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        return [pre_tokenizers.Digits(individual_digits=True), words] if split == "digits" else [words]
    numbers = r"\p{N}{1,3}" if split == "llama3" else r"\p{N}"
    pattern = Regex("|".join([_CONTRACTIONS, _WORDS, numbers, _SIGNS_AND_SPACE]))
    return [pre_tokenizers.Split(pattern, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]


def word_piece(
    vocab: Mapping[str, int],
    *,
    unk: str = "[UNK]",
    lowercase: bool,
    strip_accents: bool | None = None,
    chinese_apart: bool = True,
) -> tokenizers.Tokenizer:
    """BERT's longest pieces from the left; a piece inside a word begins with ##.

    Args:
      strip_accents: None does as `lowercase`.
      chinese_apart: each Chinese character is a word.
    """
    core = tokenizers.Tokenizer(models.WordPiece(vocab=dict(vocab), unk_token=unk))
    core.normalizer = normalizers.BertNormalizer(
        lowercase=lowercase, strip_accents=strip_accents, handle_chinese_chars=chinese_apart
    )
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece(prefix="##")
    return core


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """A vocabulary of SentencePiece; the id of a piece is its place."""

    pieces: Sequence[str]
    """A space is written as \u2581."""
    scores: Sequence[float]
    """Log-probabilities (unigram), or greater for those merged first (bpe)."""
    kinds: Sequence[int]
    """NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED or BYTE."""
    algorithm: Literal["bpe", "unigram"]
    """Merges from single characters, or the most probable pieces."""
    unk_id: int = 0
    """Stands for what has no piece."""
    prefix: bool = True
    """A space is put before the text."""
    collapse: bool = False
    """Spaces at both ends go away, several become one."""
    charsmap: bytes = b""
    """SentencePiece's own table of characters to replace; empty for none."""

    @property
    def has_bytes(self) -> bool:
        return BYTE in self.kinds


def sentence_piece(vocabulary: Pieces) -> tokenizers.Tokenizer:
    """The tokenizer of a SentencePiece vocabulary, its pieces with a meaning of their own recognized in text."""
    steps: list[normalizers.Normalizer] = []
    if vocabulary.charsmap:
        steps.append(normalizers.Precompiled(vocabulary.charsmap))
    if vocabulary.collapse:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if vocabulary.algorithm == "unigram":
        scores = [float(str(np.float32(score))) for score in vocabulary.scores]  # short decimals are read from JSON exactly
        scored = list(zip(vocabulary.pieces, scores, strict=True))
        core = tokenizers.Tokenizer(models.Unigram(scored, vocabulary.unk_id, vocabulary.has_bytes))
        core.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, "always" if vocabulary.prefix else "never")
    else:
        vocab = {piece: i for i, piece in enumerate(vocabulary.pieces)}
        unk = vocabulary.pieces[vocabulary.unk_id]
        core = tokenizers.Tokenizer(
            models.BPE(
                vocab=vocab, merges=_merges(vocabulary), unk_token=unk, fuse_unk=True, byte_fallback=vocabulary.has_bytes
            )
        )
        steps += [normalizers.Prepend(SPACE)] if vocabulary.prefix else []
        steps.append(normalizers.Replace(" ", SPACE))
    core.normalizer = normalizers.Sequence(steps)
    strip = [decoders.Strip(" ", 1, 0)] if vocabulary.prefix else []
    core.decoder = decoders.Sequence([decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    kinds = zip(vocabulary.pieces, vocabulary.kinds, strict=True)
    marks = [(piece, kind) for piece, kind in kinds if kind in (UNKNOWN, CONTROL, USER_DEFINED)]
    add_tokens(core, [AddedToken(piece, normalized=False, special=kind != USER_DEFINED) for piece, kind in marks])
    return core


def _merges(vocabulary: Pieces) -> list[tuple[str, str]]:
    """All pairs of pieces that make a piece, the one with the greatest score first: SentencePiece merges by score."""
    usable = {
        piece: (-score, i)
        for i, (piece, score, kind) in enumerate(zip(vocabulary.pieces, vocabulary.scores, vocabulary.kinds, strict=True))
        if kind in (NORMAL, USER_DEFINED)
    }
    ranked = [
        (*rank, i, piece)
        for piece, rank in usable.items()
        for i in range(1, len(piece))
        if piece[:i] in usable and piece[i:] in usable
    ]
    return [(piece[:i], piece[i:]) for _, _, i, piece in sorted(ranked)]


def add_tokens(core: tokenizers.Tokenizer, tokens: Iterable[AddedToken]) -> None:
    """Have tokens recognized in text, whatever stands around them; those not in the vocabulary get the next ids."""
    for token in tokens:
        core.add_special_tokens([token]) if token.special else core.add_tokens([token])


def set_template(core: tokenizers.Tokenizer, single: str, pair: str, tokens: Mapping[str, str]) -> None:
    """Special tokens around a text and around two, as in "cls $A sep $B:1 sep:1": `tokens` says which they are, ":1" a type."""

    def named(template: str) -> list[str]:
        words = [word.partition(":") for word in template.split()]
        return [f"{tokens.get(word, word)}:{kind or 0}" for word, _, kind in words]

    ids = [(token, core.token_to_id(token)) for role, token in tokens.items() if role in f"{single} {pair}"]
    core.post_processor = processors.TemplateProcessing(single=named(single), pair=named(pair), special_tokens=ids)


def set_ends(core: tokenizers.Tokenizer, tokens: Mapping[str, str], *, begin: bool, end: bool) -> None:
    """The bos token before each text, the eos token after it; none that `tokens` does not have."""
    first, last = ["bos"] if begin and "bos" in tokens else [], ["eos"] if end and "eos" in tokens else []
    if first or last or core.num_special_tokens_to_add(False):
        single = [*first, "$A", *last]
        second = [f"{word}:1" for word in [*first, "$B", *last]]
        set_template(core, " ".join(single), " ".join(single + second), tokens)
