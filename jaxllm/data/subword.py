"""Subword tokenizers, by the `tokenizers` package: published ones, and BPE, WordPiece and Unigram trained here.

Saved in the layout of published tokenizers (`tokenizer.json`, `tokenizer_config.json`), so others can read them.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from jaxllm.data.vocabulary import set_template, word_piece

if TYPE_CHECKING:
    from jaxllm.data.chat import Message

ROLES = ("bos", "eos", "pad", "unk", "cls", "sep", "mask")
"""What a special token can be for: `eos_token` in tokenizer_config.json is the one with the role eos."""
_EOS = "<|endoftext|>"


class Encoded(NamedTuple):
    """Ids with the special tokens that a model expects."""

    ids: list[int]
    token_types: list[int]
    """0 for the first text, 1 for the second; all 0 for models that do not tell them apart."""


class SubwordTokenizer:
    """A tokenizer of the `tokenizers` package behind the `Tokenizer` protocol; text is encoded without special tokens.

    Args:
      special: tokens by role, `ROLES`.
      chat_template: the published Jinja template.
      max_len: the longest text that the model was trained on, as published.
    """

    def __init__(
        self,
        core: tokenizers.Tokenizer,
        special: Mapping[str, str],
        *,
        chat_template: str | None = None,
        max_len: int | None = None,
    ):
        self._core = core
        self._core.no_padding()
        self._core.no_truncation()
        self.special_tokens = {role: special[role] for role in ROLES if role in special}
        self.chat_template, self.max_len = chat_template, max_len
        self.vocab_size: int = 1 + max(core.get_vocab(with_added_tokens=True).values())
        self.bos_id, self.eos_id, self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = map(self._id, ROLES)

    def _id(self, role: str) -> int | None:
        token = self.special_tokens.get(role)
        token_id = None if token is None else self._core.token_to_id(token)
        if token is not None and token_id is None:
            raise ValueError(
                f"the tokenizer's configuration names {token!r} as {role}_token, but its vocabulary has no such entry; correct "
                "tokenizer_config.json or special_tokens_map.json"
            )
        return token_id

    @property
    def fingerprint(self) -> str:
        special = {f"{role}_token": self.special_tokens.get(role) for role in ("eos", "bos", "pad")}
        content = self._core.to_str() + json.dumps(special)
        return "subword-" + hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def token_id(self, token: str) -> int | None:
        """The id of an entry of the vocabulary, such as "<extra_id_0>"."""
        return self._core.token_to_id(token)

    def encode(self, text: str) -> list[int]:
        return self._core.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        encodings = self._core.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, np.int32) for encoding in encodings]

    def encode_special(self, text: str, pair: str | None = None, *, max_len: int | None = None) -> Encoded:
        """A text, or two, with the special tokens around them that the model was trained with: BERT's [CLS] and [SEP].

        Args:
          max_len: ids in all, at most; the longer text loses its end first.
        """
        texts = [text] if pair is None else [text, pair]
        parts = [self._core.encode(part, add_special_tokens=False) for part in texts]
        if max_len is not None:
            room = max_len - self._core.num_special_tokens_to_add(pair is not None)
            if room < 0:
                raise ValueError(f"max_len must leave room for the special tokens, {max_len - room}: got {max_len}")
            for part, length in zip(parts, _shortened([len(part.ids) for part in parts], room), strict=True):
                part.truncate(length)
        if self._core.post_processor is None:
            return Encoded([i for part in parts for i in part.ids], [kind for kind, part in enumerate(parts) for _ in part.ids])
        whole = self._core.post_process(parts[0], parts[1] if pair is not None else None)
        return Encoded(whole.ids, whole.type_ids)

    def special_around(self, *, pair: bool) -> tuple[list[int], list[int], list[int]]:
        """The special tokens before a text, between it and a second one, and at the end."""
        text = self._core.encode("a", add_special_tokens=False)
        whole = text if self._core.post_processor is None else self._core.post_process(text, text if pair else None)
        count = len(text.ids)
        marks = [place for place, special in enumerate(whole.special_tokens_mask) if special]
        if self._core.post_processor is None or not marks:
            return [], [], []
        first = next(place for place in range(len(whole.ids)) if place not in marks)
        last = next(place for place in reversed(range(len(whole.ids))) if place not in marks) + 1
        between = whole.ids[first + count : last - count] if pair else []
        return whole.ids[:first], between, whole.ids[last:]

    def encode_words(self, words: Sequence[str]) -> tuple[list[int], list[int]]:
        """Ids of words that are apart already, as in a text with spaces between them, and the number of each id's word."""
        spaced = getattr(self._core.pre_tokenizer, "add_prefix_space", None) is False  # of bytes: a space belongs to its word
        given = [word if not spaced or number == 0 else f" {word}" for number, word in enumerate(words)]
        encoded = self._core.encode(given, is_pretokenized=True, add_special_tokens=False)
        return encoded.ids, [word for word in encoded.word_ids if word is not None]

    def encode_spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids, and from and to which character of the text each stands."""
        encoded = self._core.encode(text, add_special_tokens=False)
        return encoded.ids, encoded.offsets

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids; special tokens have none."""
        return self._core.decode([int(i) for i in ids], skip_special_tokens=True)

    def apply_chat_template(
        self, messages: "Sequence[Message]", *, add_generation_prompt: bool = True, **variables: Any
    ) -> str:
        """A conversation as the model was trained to read it, with the special tokens in the text.

            tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}])

        Args:
          add_generation_prompt: end with what comes before the model's next answer.
          variables: what the template may use besides, such as `tools`.
        """
        from jaxllm.data.chat import render_chat

        if self.chat_template is None:
            raise ValueError(
                "this tokenizer has no chat template: its model is probably not trained for conversations; write the prompt as "
                "plain text, or put a chat_template into tokenizer_config.json"
            )
        special = {f"{role}_token": token for role, token in self.special_tokens.items()}
        known = special | variables
        return render_chat(self.chat_template, messages, add_generation_prompt=add_generation_prompt, **known)

    def encode_chat(self, messages: "Sequence[Message]", *, add_generation_prompt: bool = True, **variables: Any) -> list[int]:
        """Ids of `apply_chat_template`."""
        return self.encode(self.apply_chat_template(messages, add_generation_prompt=add_generation_prompt, **variables))

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._core.save(str(folder / "tokenizer.json"))
        config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
        config |= {f"{role}_token": token for role, token in self.special_tokens.items()}
        config |= {"chat_template": self.chat_template} if self.chat_template is not None else {}
        config |= {"model_max_length": self.max_len} if self.max_len is not None else {}
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False), "utf-8")


def _shortened(lengths: list[int], room: int) -> list[int]:
    """Lengths that sum to `room` at most, the greatest cut down first; of an odd number the second text gets more."""
    if sum(lengths) <= room:
        return lengths
    if len(lengths) == 1:
        return [room]
    first, second = lengths
    if first > second:
        second = min(second, room // 2)
        return [room - second, second]
    first = min(first, room // 2)
    return [first, room - first]


def train_subword(kind: Literal["bpe", "wordpiece", "unigram"], vocab_size: int, texts: Iterable[str]) -> SubwordTokenizer:
    """Learn a vocabulary of at most `vocab_size` entries; little text gives a smaller one. The same text gives the same ids.

    bpe and unigram work on bytes and give back any text exactly; wordpiece, as in BERT, gives back words with one space
    between them, and [UNK] for a word with a character too rare to have an entry.

    Args:
      texts: Read twice for wordpiece, so not a generator.
    """
    if kind == "wordpiece":
        return _train_wordpiece(vocab_size, texts)
    core = tokenizers.Tokenizer(models.BPE() if kind == "bpe" else models.Unigram())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    make_trainer = trainers.BpeTrainer if kind == "bpe" else trainers.UnigramTrainer
    trainer = make_trainer(
        vocab_size=vocab_size,
        special_tokens=[_EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    _train(core, trainer, texts)
    if kind == "unigram":
        core.model = _in_fixed_order(json.loads(core.to_str())["model"]["vocab"])
    return SubwordTokenizer(core, {"eos": _EOS})


def _in_fixed_order(vocab: list[list[Any]]) -> models.Unigram:
    """The trainer sums in threads and numbers unseen characters by hash order: round, give those one score, sort."""
    pieces = [(piece, round(score, 6)) for piece, score in vocab if piece != _EOS]
    rarest = min((score for piece, score in pieces if len(piece) > 1), default=0.0)
    lowest = min(score for _, score in pieces)
    pieces = [(piece, lowest if len(piece) == 1 and score < rarest else score) for piece, score in pieces]
    return models.Unigram([(_EOS, 0.0), *sorted(pieces, key=lambda item: (-item[1], item[0]))])


def _train_wordpiece(vocab_size: int, texts: Iterable[str]) -> SubwordTokenizer:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    normalizer = normalizers.BertNormalizer(lowercase=False, strip_accents=False)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(normalizer.normalize_str(text))
    common = sorted((c for c in counts if not c.isspace()), key=lambda c: (-counts[c], c))[: vocab_size // 3]
    inner = ["##" + c for c in sorted(common)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=special + inner,  # named here to have fixed ids: the trainer numbers them by hash order
        initial_alphabet=common,
        limit_alphabet=len(common),
        show_progress=False,
    )
    learner = word_piece({}, lowercase=False, strip_accents=False)
    _train(learner, trainer, texts)
    core = word_piece(learner.get_vocab(), lowercase=False, strip_accents=False)
    core.add_special_tokens(special)
    roles = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    set_template(core, "cls $A sep", "cls $A sep $B:1 sep:1", roles)
    return SubwordTokenizer(core, {"eos": "[SEP]", "bos": "[CLS]", **roles})


def _train(core: tokenizers.Tokenizer, trainer: Any, texts: Iterable[str]) -> None:
    seen = False

    def counted() -> Iterable[str]:
        nonlocal seen
        for text in texts:
            seen = True
            yield text

    core.train_from_iterator(counted(), trainer)
    if not seen:
        raise ValueError("a tokenizer needs text to learn from: the training split has none")
