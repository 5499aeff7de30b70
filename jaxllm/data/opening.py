"""From a `DataConfig` to rows: find the data set, get the tokenizer, tokenize the splits when they are first used."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

from jaxllm.data.config import DataConfig
from jaxllm.data.rows import RowSource
from jaxllm.data.source import TextSet, TextSplit, find_text_set
from jaxllm.data.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from jaxllm.data.tokens import tokenize_split, write_whole
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
        return _test_split(self.config, self.text_set)

    def has_split(self, split: str) -> bool:
        """Whether there is a split of this name, or the name is a TFDS slice of one, such as "validation[:50%]"."""
        return self.text_set.has_split(split)

    def rows(self, split: str, *, seed: int | None = None) -> RowSource:
        """The rows of any split; in its own order without a seed."""
        documents = self.text_set.open(split)
        table = tokenize_split(documents, self.tokenizer, num_workers=self.config.num_workers)
        return RowSource(
            table=table,
            documents=documents,
            seq_len=self.config.seq_len,
            packing=self.config.packing,
            cross_document_attention=self.config.cross_document_attention,
            seed=seed,
        )


def open_data(config: DataConfig, *, seed: int, tokenizer: Tokenizer | None = None) -> Data:
    """Open the data set that `config` describes.

        data = open_data(DataConfig(dataset="tiny_shakespeare", seq_len=64), seed=0)
        data.train.rows_per_epoch, data.tokenizer.vocab_size

    Args:
      seed: Of the run; orders the training split.
      tokenizer: The one stored with a run that goes on; None trains or loads the one that `config` names.
    """
    text_set = find_text_set(config.dataset, data_dir=config.data_dir, text_feature=config.text_feature)
    names = (config.train_split, config.validation_split, _test_split(config, text_set))
    splits = [text_set.open(split) for split in names if split]
    return Data(config, seed, text_set, tokenizer or _tokenizer(config, splits))


def _test_split(config: DataConfig, text_set: TextSet) -> str | None:
    """ "test", the default, may be missing; another name was chosen by someone, who wants to know."""
    return None if config.test_split == "test" and not text_set.has_split("test") else config.test_split


def _tokenizer(config: DataConfig, splits: list[TextSplit]) -> Tokenizer:
    """Trained tokenizers are kept in the cache: learnt from the training split, characters from all splits in use."""
    if config.tokenizer.kind in ("bytes", "pretrained"):
        return train_tokenizer(config.tokenizer, [])
    texts = _Texts(splits if config.tokenizer.kind == "characters" else splits[:1])
    name = hashlib.sha256(repr((config.tokenizer, [s.fingerprint for s in texts.splits])).encode()).hexdigest()[:24]
    folder = cache_dir() / "tokenizers" / name
    if not folder.is_dir():
        write_whole(folder, train_tokenizer(config.tokenizer, texts).save)
    return load_tokenizer(folder)


class _Texts:
    """The texts of some splits, one after the other, as often as wanted."""

    def __init__(self, splits: list[TextSplit]):
        self.splits = list(splits)

    def __iter__(self):
        for split in self.splits:
            yield from split
