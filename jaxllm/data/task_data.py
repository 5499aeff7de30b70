"""The examples of a task, opened: by number, as plain Python values."""

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int64

from jaxllm.data.config import TaskDataConfig
from jaxllm.data.opening import tokenizer_of
from jaxllm.data.shuffle import random_order
from jaxllm.data.source import DataSet, files_fingerprint, find_set, open_builder
from jaxllm.data.tokenizer import Tokenizer

_BLOCK = 1000


@dataclass(frozen=True)
class Records:
    """The records of a split by number, each a dict of str, int, float, list and dict. Holds only names, so that worker
    processes open the files themselves."""

    folder: Path
    split: str
    chosen: tuple[int, ...] | None = None
    """Numbers in the split of those that are meant; None means all."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Records, tuple(getattr(self, field.name) for field in dataclasses.fields(self))

    @cached_property
    def _source(self) -> Any:
        return open_builder(self.folder).as_data_source(self.split)

    def __len__(self) -> int:
        return len(self._source) if self.chosen is None else len(self.chosen)

    def __getitem__(self, number: int) -> dict[str, Any]:
        if not 0 <= number < len(self):
            raise IndexError(f"{self.split} has the records 0 to {len(self) - 1}: got {number}")
        return _plain(self._source[self._number(number)])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for start in range(0, len(self), _BLOCK):
            numbers = [self._number(number) for number in range(start, min(start + _BLOCK, len(self)))]
            yield from map(_plain, self._source.__getitems__(numbers))

    def _number(self, number: int) -> int:
        return int(number) if self.chosen is None else self.chosen[number]

    @cached_property
    def fingerprint(self) -> str:
        """Changes when the files of the set, the split or the choice of records do."""
        return files_fingerprint(self.folder, self.split, hashlib.sha256(repr(self.chosen).encode()).hexdigest())

    def describe(self, number: int) -> str:
        """Where a record came from, such as "train.tsv:17", when the set says so, else its number in the split."""
        record = self[number]
        return str(record["id"]) if "id" in record else f"{self.split} record {self._number(number)}"


def _plain(value: Any) -> Any:
    """Bytes are text; arrays and NumPy's numbers are lists and numbers."""
    match value:
        case bytes():
            return value.decode("utf-8")
        case dict():
            return {key: _plain(each) for key, each in value.items()}
        case np.ndarray() | list() | tuple():
            return [_plain(each) for each in value]
        case np.generic():
            return _plain(value.item())
        case _:
            return value


@dataclass(frozen=True)
class TaskData:
    """An opened set of examples of a task."""

    config: TaskDataConfig
    seed: int
    data_set: DataSet
    tokenizer: Tokenizer

    @property
    def test_split(self) -> str | None:
        """The split for the final figure; None where the config names none, or "test" and the set has no such split."""
        return self.data_set.test_split(self.config.test_split)

    def has_split(self, split: str) -> bool:
        """Whether there is a split of this name, or the name is a TFDS slice of one."""
        return self.data_set.has_split(split)

    def require(self, feature: str, field: str) -> None:
        """Refuse a feature that the set has not; `field` of the config chooses it."""
        self.data_set.require(feature, field)

    def label_names(self, feature: str) -> tuple[str, ...]:
        """The names of the classes that a feature holds, one a record or a list."""
        return self.data_set.label_names(feature)

    def records(self, split: str) -> Records:
        """The records of a split; of the training split as many as `config.examples` says."""
        records = Records(self.data_set.folder, self.data_set.check(split))
        if self.config.examples is None or split != self.config.train_split:
            return records
        return dataclasses.replace(records, chosen=self._few(records, self.config.examples))

    def _few(self, records: Records, count: int) -> tuple[int, ...]:
        """So many records by chance, as many of each class where a class runs through the records, in their own order."""
        if count > len(records):
            raise ValueError(
                f"data.examples must be at most the {len(records):,} examples of {records.split!r}: got {count}; leave it out "
                "for all of them"
            )
        order = random_order(self.seed, len(records))
        labels = _classes(records, self.config.label_feature)
        if labels is not None:
            order = order[np.argsort(_turn(labels[order]), kind="stable")]
        return tuple(sorted(order[:count].tolist()))


def _classes(records: Records, feature: str) -> Int64[np.ndarray, " records"] | None:
    """The class of each record, where the feature holds one."""
    kinds = open_builder(records.folder).info.features
    if feature not in kinds or not isinstance(kinds[feature], tfds.features.ClassLabel):
        return None
    return np.array([record[feature] for record in records], np.int64)


def _turn(labels: Int64[np.ndarray, " records"]) -> Int64[np.ndarray, " records"]:
    """How many of the same class stand before each."""
    turns = np.zeros(len(labels), np.int64)
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        turns[places] = np.arange(len(places))
    return turns


@dataclass(frozen=True)
class _Strings:
    """All texts of some records, for a tokenizer to learn from."""

    records: Records

    @property
    def fingerprint(self) -> str:
        return self.records.fingerprint

    def __iter__(self) -> Iterator[str]:
        for record in self.records:
            yield from _strings({name: value for name, value in record.items() if name != "id"})


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)


def open_task_data(config: TaskDataConfig, *, seed: int, tokenizer: Tokenizer | None = None) -> TaskData:
    """Open the examples that `config` describes.

        data = open_task_data(TaskDataConfig(dataset="reviews", seq_len=64), seed=0)
        data.label_names("label"), data.records("train")[0]["text"]

    Args:
      seed: Of the run; chooses the records where `config.examples` says how many.
      tokenizer: That of the model, or the one stored with a run that goes on; None trains or loads the one that `config` names.
    """
    data_set = find_set(config.dataset, data_dir=config.data_dir)
    names = (config.train_split, config.validation_split, data_set.test_split(config.test_split))
    splits = [[_Strings(Records(data_set.folder, data_set.check(split)))] for split in names if split]
    return TaskData(config, seed, data_set, tokenizer or tokenizer_of(config.tokenizer, splits))
