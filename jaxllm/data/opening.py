"""From a `DataConfig` to rows: find the data set, get the tokenizer, tokenize the splits when they are first used."""

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jaxllm.data.config import DataConfig, TokenizerConfig
from jaxllm.data.pairs import PairSource
from jaxllm.data.rows import RowSource
from jaxllm.data.source import TextSet, TextSplit, find_text_set
from jaxllm.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from jaxllm.data.tokens import TokenTable, tokenize_split
from jaxllm.data.whole import write_whole
from jaxllm.hardware import cache_dir


@dataclass(frozen=True)
class Data:
    """An opened data set: its tokenizer, and its splits as rows, tokenized when first used."""

    config: DataConfig
    seed: int
    text_set: TextSet
    tokenizer: Tokenizer

    @cached_property
    def train(self) -> RowSource:
        """The training split, shuffled by the seed, without end."""
        return self.rows(self.config.train_split, seed=self.seed)

    @property
    def test_split(self) -> str | None:
        """The split for the final figure; None where the config names none, or "test" and the set has no such split."""
        return self.text_set.test_split(self.config.test_split)

    def has_split(self, split: str) -> bool:
        """Whether there is a split of this name, or the name is a TFDS slice of one, such as "validation[:50%]"."""
        return self.text_set.has_split(split)

    def rows(self, split: str, *, seed: int | None = None) -> RowSource:
        """The rows of any split; in its own order without a seed."""
        return self.rows_of_length(self.config.seq_len, split, seed=seed)

    def rows_of_length(self, seq_len: int, split: str, *, seed: int | None) -> RowSource:
        """The same with rows of another length, for examples whose tokens do not end up as they are in one row."""
        documents = self.text_set.open(split)
        return RowSource(
            table=self._table(documents),
            documents=documents,
            seq_len=seq_len,
            packing=self.config.packing,
            cross_document_attention=self.config.cross_document_attention,
            seed=seed,
        )

    def pairs(self, source_len: int, target_len: int, split: str, *, first: int | None, seed: int | None) -> PairSource:
        """The pairs of a split, several in a row, `first` before each source."""
        if self.config.target_feature is None:
            raise ValueError("pairs need data.target_feature, the feature that holds the second text: got none")
        documents = self.text_set.open(split)
        second = dataclasses.replace(documents, text_feature=self.config.target_feature)
        return PairSource(
            source=self._table(documents),
            target=self._table(second),
            documents=documents,
            source_len=source_len,
            target_len=target_len,
            first=first,
            seed=seed,
        )

    def _table(self, documents: TextSplit) -> TokenTable:
        return tokenize_split(documents, self.tokenizer, num_workers=self.config.num_workers)


def open_data(config: DataConfig, *, seed: int, tokenizer: Tokenizer | None = None) -> Data:
    """Open the data set that `config` describes.

        data = open_data(DataConfig(dataset="tiny_shakespeare", seq_len=64), seed=0)
        data.train.rows_per_epoch, data.tokenizer.vocab_size

    Args:
      seed: Of the run; orders the training split.
      tokenizer: The one stored with a run that goes on; None trains or loads the one that `config` names.
    """
    text_set = find_text_set(config.dataset, data_dir=config.data_dir, text_feature=config.text_feature)
    names = (config.train_split, config.validation_split, text_set.test_split(config.test_split))
    splits = [[text_set.open(split)] for split in names if split]
    if config.target_feature is not None:
        text_set.require(config.target_feature, "data.target_feature")
        splits = [[split, dataclasses.replace(split, text_feature=config.target_feature)] for (split,) in splits]
    return Data(config, seed, text_set, tokenizer or tokenizer_of(config.tokenizer, splits))


def tokenizer_of(config: TokenizerConfig, splits: Sequence[Sequence[Any]]) -> Tokenizer:
    """Trained tokenizers are kept in the cache: learnt from the first split, of pairs from both texts; characters from all.

    Args:
      splits: Of each split what gives its texts one after the other, as often as wanted, and has a `fingerprint`.
    """
    if config.kind in ("bytes", "pretrained"):
        return train_tokenizer(config, [])
    texts = _Texts([texts for split in (splits if config.kind == "characters" else splits[:1]) for texts in split])
    name = hashlib.sha256(repr((config, [s.fingerprint for s in texts.splits])).encode()).hexdigest()[:24]
    folder = cache_dir() / "tokenizers" / name
    if not folder.is_dir():
        write_whole(folder, train_tokenizer(config, texts).save)
    return load_tokenizer(folder)


class _Texts:
    """The texts of some splits, one after the other, as often as wanted."""

    def __init__(self, splits: list[Any]):
        self.splits = splits

    def __iter__(self):
        for split in self.splits:
            yield from split
