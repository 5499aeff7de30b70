"""Subword tokenizers, by the `tokenizers` package: trained BPE, WordPiece and Unigram, and published `tokenizer.json` folders.

Saved in the layout of published tokenizers (`tokenizer.json`, `tokenizer_config.json`), so others can read them.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

_EOS = "<|endoftext|>"
_USUAL_EOS = (_EOS, "</s>", "<eos>", "<|end_of_text|>")


class SubwordTokenizer:
    """A tokenizer of the `tokenizers` package behind the `Tokenizer` protocol; text is encoded without special tokens."""

    def __init__(self, core: tokenizers.Tokenizer, *, eos: str | None, bos: str | None = None, pad: str | None = None):
        self._core = core
        self._core.no_padding()
        self._core.no_truncation()
        self._special = {"eos_token": eos, "bos_token": bos, "pad_token": pad}
        self.vocab_size: int = 1 + max(core.get_vocab(with_added_tokens=True).values())
        self.eos_id, self.bos_id, self.pad_id = (self._id(name) for name in ("eos_token", "bos_token", "pad_token"))

    def _id(self, name: str) -> int | None:
        token = self._special[name]
        if token is None:
            return None
        token_id = self._core.token_to_id(token)
        if token_id is None:
            raise ValueError(
                f"the tokenizer's configuration names {token!r} as {name}, but its vocabulary has no such entry; correct "
                "tokenizer_config.json or special_tokens_map.json"
            )
        return token_id

    @property
    def fingerprint(self) -> str:
        content = self._core.to_str() + json.dumps(self._special)
        return "subword-" + hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def encode(self, text: str) -> list[int]:
        return self._core.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        encodings = self._core.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, np.int32) for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids; special tokens have none."""
        return self._core.decode([int(i) for i in ids], skip_special_tokens=True)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._core.save(str(folder / "tokenizer.json"))
        config = {"tokenizer_class": "PreTrainedTokenizerFast"} | {k: v for k, v in self._special.items() if v is not None}
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False), "utf-8")

    @classmethod
    def load(cls, folder: Path) -> "SubwordTokenizer":
        """Read `tokenizer.json` and the special tokens that the files beside it name.

        Where no file names an end-of-text token, a special entry of the vocabulary with one of the usual names is taken.
        """
        path = folder / "tokenizer.json"
        if not path.is_file():
            there = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
            raise FileNotFoundError(
                f"expected tokenizer.json in {folder}: it holds {there}; write one with transformers, "
                "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
            )
        try:
            core = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the package raises bare Exception
            raise ValueError(f"{path} is not a tokenizer that the tokenizers package reads: {error}") from error
        names: dict[str, Any] = {}
        for file in ("special_tokens_map.json", "tokenizer_config.json"):
            if (folder / file).is_file():
                names |= {k: _token(v) for k, v in json.loads((folder / file).read_text("utf-8")).items() if _token(v)}
        special = {token.content for token in core.get_added_tokens_decoder().values() if token.special}
        eos = names.get("eos_token") or next((name for name in _USUAL_EOS if name in special), None)
        return cls(core, eos=eos, bos=names.get("bos_token"), pad=names.get("pad_token"))


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
    return SubwordTokenizer(core, eos=_EOS)


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
    learner = _wordpiece(normalizer, models.WordPiece(unk_token="[UNK]"))
    _train(learner, trainer, texts)
    core = _wordpiece(normalizer, models.WordPiece(vocab=learner.get_vocab(), unk_token="[UNK]"))
    core.add_special_tokens(special)
    return SubwordTokenizer(core, eos="[SEP]", bos="[CLS]", pad="[PAD]")


def _wordpiece(normalizer: normalizers.Normalizer, model: models.WordPiece) -> tokenizers.Tokenizer:
    core = tokenizers.Tokenizer(model)
    core.normalizer = normalizer
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece(prefix="##")
    return core


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


def _token(value: object) -> str | None:
    """A special token in the published files is a string, or an object with a `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None
