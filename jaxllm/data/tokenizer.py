"""Tokenizers: text to ids and back. Bytes and characters here, those of the `tokenizers` package in `subword` and `published`.

A tokenizer never adds special tokens by itself: the data pipeline puts `eos_id` at the end of each document.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32

from jaxllm.data.config import TokenizerConfig
from jaxllm.data.published import load_published
from jaxllm.data.subword import train_subword

_FILE = "jaxllm_tokenizer.json"


@runtime_checkable
class Tokenizer(Protocol):
    """What every tokenizer offers."""

    @property
    def vocab_size(self) -> int:
        """Number of ids: every id is below it."""
        ...

    @property
    def eos_id(self) -> int | None:
        """Marks the end of a document."""
        ...

    @property
    def bos_id(self) -> int | None:
        """Marks the beginning of a sequence, for the published tokenizers that have one."""
        ...

    @property
    def pad_id(self) -> int | None:
        """Fills a row, for the published tokenizers that have one."""
        ...

    @property
    def unk_id(self) -> int | None:
        """Stands for what the vocabulary cannot express."""
        ...

    @property
    def cls_id(self) -> int | None:
        """Begins a text, in encoders; its output describes the whole text."""
        ...

    @property
    def sep_id(self) -> int | None:
        """Ends each of two texts, in encoders."""
        ...

    @property
    def mask_id(self) -> int | None:
        """Hides a token that the model has to guess."""
        ...

    @property
    def fingerprint(self) -> str:
        """The same for two tokenizers exactly when they give the same ids."""
        ...

    def encode(self, text: str) -> list[int]: ...

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]: ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def save(self, folder: Path) -> None: ...


@dataclass(frozen=True)
class ByteTokenizer:
    """UTF-8 bytes as ids 0 to 255, and 256 for the end of a document: reads any text."""

    vocab_size: int = field(default=257, init=False)
    eos_id: int = field(default=256, init=False)
    bos_id: None = field(default=None, init=False)
    pad_id: None = field(default=None, init=False)
    unk_id: None = field(default=None, init=False)
    cls_id: None = field(default=None, init=False)
    sep_id: None = field(default=None, init=False)
    mask_id: None = field(default=None, init=False)
    fingerprint: str = field(default="bytes-257", init=False)

    def encode(self, text: str) -> list[int]:
        return list(text.encode("utf-8", "surrogatepass"))

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        return [np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8).astype(np.int32) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ids; the end mark has none, and bytes that are not UTF-8 show as U+FFFD."""
        values = _checked_ids(ids, self.vocab_size)
        return values[values < 256].astype(np.uint8).tobytes().decode("utf-8", "replace")

    def save(self, folder: Path) -> None:
        _write_json(folder, {"kind": "bytes"})


@dataclass(frozen=True)
class CharacterTokenizer:
    """One id a character, in the order of `characters`.

    `CharacterTokenizer.train(["to be"])` has the entries " beot".
    """

    characters: str
    eos_id: None = field(default=None, init=False)
    bos_id: None = field(default=None, init=False)
    pad_id: None = field(default=None, init=False)
    unk_id: None = field(default=None, init=False)
    cls_id: None = field(default=None, init=False)
    sep_id: None = field(default=None, init=False)
    mask_id: None = field(default=None, init=False)

    @classmethod
    def train(cls, texts: Iterable[str]) -> "CharacterTokenizer":
        """The sorted distinct characters of the texts."""
        found: set[str] = set()
        for text in texts:
            found.update(text)
        if not found:
            raise ValueError("a character tokenizer needs text to take its characters from: got none")
        return cls("".join(sorted(found)))

    @property
    def vocab_size(self) -> int:
        return len(self.characters)

    @property
    def fingerprint(self) -> str:
        return "characters-" + hashlib.sha256(self.characters.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    @cached_property
    def _code_points(self) -> Int32[np.ndarray, " V"]:
        return _code_points(self.characters)

    @cached_property
    def _id_of_code_point(self) -> Int32[np.ndarray, " points"]:
        table = np.full(int(self._code_points.max()) + 2, -1, np.int32)
        table[self._code_points] = np.arange(len(self.characters), dtype=np.int32)
        return table

    def encode(self, text: str) -> list[int]:
        return self._ids(text).tolist()

    def encode_batch(self, texts: list[str]) -> list[np.ndarray]:
        ids = self._ids("".join(texts))
        ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
        return np.split(ids, ends[:-1]) if texts else []

    def _ids(self, text: str) -> Int32[np.ndarray, " T"]:
        points = _code_points(text)
        table = self._id_of_code_point
        ids = table[np.minimum(points, len(table) - 1)]  # the last entry of the table stands for all that are above it
        if (ids < 0).any():
            unknown = chr(points[int(np.argmax(ids < 0))])
            raise ValueError(
                f"the text holds {unknown!r} (U+{ord(unknown):04X}), which is not among the {self.vocab_size} characters of "
                "this tokenizer; take it out of the text, or train on data that holds it (tokenizer.kind 'bytes' reads "
                "any text)"
            )
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        points = self._code_points[_checked_ids(ids, self.vocab_size)]
        return points.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")

    def save(self, folder: Path) -> None:
        _write_json(folder, {"kind": "characters", "characters": self.characters})


def train_tokenizer(config: TokenizerConfig, texts: Iterable[str]) -> Tokenizer:
    """The tokenizer that `config` describes; `texts` is read only by the kinds that learn from it."""
    match config.kind:
        case "bytes":
            return ByteTokenizer()
        case "characters":
            return CharacterTokenizer.train(texts)
        case "pretrained":
            assert config.path is not None  # DataConfig has seen to it
            return load_tokenizer(Path(config.path).expanduser())
        case _:
            assert config.vocab_size is not None
            return train_subword(config.kind, config.vocab_size, texts)


def load_tokenizer(folder: Path | str) -> Tokenizer:
    """The tokenizer in a folder, saved by `Tokenizer.save` or published with a model; `published` says which files are read.

    Raises:
      FileNotFoundError: no such folder, or no tokenizer in it.
      ValueError: files that are damaged, contradict each other, or are of a kind that is not known.
    """
    folder = Path(folder)
    if folder.name == "tokenizer.json":
        folder = folder.parent
    if not folder.is_dir():
        raise FileNotFoundError(f"expected a tokenizer folder at {folder}: there is no such folder")
    if (folder / _FILE).is_file():
        try:
            saved = json.loads((folder / _FILE).read_text("utf-8"))
            return ByteTokenizer() if saved["kind"] == "bytes" else CharacterTokenizer(saved["characters"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{folder / _FILE} is not a tokenizer that jaxllm saved ({error}); restore the file") from error
    return load_published(folder)


def _code_points(text: str) -> Int32[np.ndarray, " T"]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.int32)


def _checked_ids(ids: Sequence[int], vocab_size: int) -> Int32[np.ndarray, " T"]:
    values = np.asarray(ids, np.int32)
    if values.size and (values.min() < 0 or values.max() >= vocab_size):
        raise ValueError(f"token ids must be in 0..{vocab_size - 1}: got {values.min()}..{values.max()}")
    return values


def _write_json(folder: Path, content: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _FILE).write_text(json.dumps(content), "utf-8")
