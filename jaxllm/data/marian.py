"""Marian's translation tokenizers: one SentencePiece model a language, and one table of ids for the pieces of both.

Published with sacremoses, which makes unusual punctuation usual before; here, as in transformers without it, nothing does.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import AddedToken

from jaxllm.data.sentencepiece_file import read_sentencepiece
from jaxllm.data.subword import Encoded
from jaxllm.data.vocabulary import SPACE, sentence_piece

_FILES = ("source.spm", "target.spm", "vocab.json")


class MarianTokenizer:
    """Encodes the language to translate from, decodes the one to translate to; text gets no special tokens.

    Args:
      folder: holds source.spm, target.spm and vocab.json.
      special: tokens by role; Marian has eos, pad and unk.
      max_len: the longest text that the model was trained on, as published.
    """

    bos_id = cls_id = sep_id = mask_id = None
    chat_template = None

    def __init__(self, folder: Path, *, special: dict[str, str], max_len: int | None = None):
        for name in _FILES:
            if not (folder / name).is_file():
                raise FileNotFoundError(f"a Marian tokenizer has {', '.join(_FILES)}: {folder} has no {name}; copy it, too")
        self._folder, self.max_len = folder, max_len
        self._source, self._target = (sentence_piece(read_sentencepiece(folder / name)) for name in _FILES[:2])
        self._ids: dict[str, int] = json.loads((folder / "vocab.json").read_text("utf-8"))
        for core in (self._source, self._target):
            core.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special.values()])
        self._tokens = {i: token for token, i in self._ids.items()}
        self.special_tokens = special
        missing = [token for token in special.values() if token not in self._ids]
        if missing:
            raise ValueError(
                f"{folder / 'vocab.json'} must have the special tokens {', '.join(missing)}: it has not; copy it again"
            )
        self.vocab_size: int = 1 + max(self._ids.values())
        self.eos_id, self.pad_id, self.unk_id = (self._ids[special[role]] for role in ("eos", "pad", "unk"))

    @classmethod
    def load(cls, folder: Path) -> "MarianTokenizer":
        """The tokenizer in a published folder."""
        path = folder / "tokenizer_config.json"
        config: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
        if config.get("separate_vocabs"):
            raise ValueError(f"a Marian tokenizer must have one vocab.json for both languages: {path} says separate_vocabs")
        special = {"eos": "</s>", "pad": "<pad>", "unk": "<unk>"}
        special |= {role: token for role in special if isinstance(token := config.get(f"{role}_token"), str)}
        return cls(folder, special=special, max_len=config.get("model_max_length"))

    @property
    def fingerprint(self) -> str:
        content = b"".join((self._folder / name).read_bytes() for name in _FILES)
        return "marian-" + hashlib.sha256(content).hexdigest()[:16]

    def token_id(self, token: str) -> int | None:
        """The id of an entry of the vocabulary, such as ">>fra<<"."""
        return self._ids.get(token)

    def encode(self, text: str) -> list[int]:
        """Ids of a text to translate; ">>fra<<" at its beginning chooses the language of models with many."""
        language, text = _language(text)
        return [self._ids.get(token, self.unk_id) for token in language + _surfaces(self._source, text)]

    def encode_target(self, text: str) -> list[int]:
        """Ids of a translation."""
        language, text = _language(text)
        return [self._ids.get(token, self.unk_id) for token in language + _surfaces(self._target, text)]

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        return [np.array(self.encode(text), np.int32) for text in texts]

    def encode_special(self, text: str, pair: str | None = None, *, max_len: int | None = None) -> Encoded:
        """A text with the end token behind it.

        Args:
          pair: not for these models.
          max_len: ids in all, at most.
        """
        if pair is not None:
            raise ValueError("a Marian tokenizer encodes one text at a time: got a pair; encode each by itself")
        ids = [*self.encode(text)[: None if max_len is None else max_len - 1], self.eos_id]
        return Encoded(ids, [0] * len(ids))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids; special tokens have none."""
        special = set(self.special_tokens.values())
        tokens = [self._tokens.get(int(i), self.special_tokens["unk"]) for i in ids]
        return "".join(token for token in tokens if token not in special).replace(SPACE, " ").strip()

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            if not (folder / name).exists() or not (folder / name).samefile(self._folder / name):
                shutil.copyfile(self._folder / name, folder / name)
        config: dict[str, Any] = {"tokenizer_class": "MarianTokenizer"}
        config |= {f"{role}_token": token for role, token in self.special_tokens.items()}
        config |= {"model_max_length": self.max_len} if self.max_len is not None else {}
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1, ensure_ascii=False), "utf-8")


def _language(text: str) -> tuple[list[str], str]:
    """The mark of a language at the beginning, if there is one, and the rest."""
    end = text.find("<<")
    return ([text[: end + 2]], text[end + 2 :]) if text.startswith(">>") and end >= 0 else ([], text)


def _surfaces(core: tokenizers.Tokenizer, text: str) -> list[str]:
    """Pieces as text, also those that the model has no id for: the table of ids may know them."""
    return core.encode(text, add_special_tokens=False).tokens
