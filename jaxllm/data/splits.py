"""Which documents go to train, validation and test, and the documents themselves while they wait for it."""

import tempfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from jaxllm.data.shuffle import random_order
from jaxllm.data.tfds_builder import Record

_FRACTION = 0.05


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """How documents go to train, validation and test. A split with files of its own gets those and no others."""

    validation_fraction: float | None = None
    """Share of the documents for validation; None means 0.05, or 0 when validation or test has files of its own."""
    test_fraction: float | None = None
    """Share of the documents for test; None as above."""
    by: Literal["documents", "characters"] = "documents"
    """documents: each goes whole to one split, at random. characters: each document is cut, its beginning to train, its end
    to test, validation between; for a single long text."""
    seed: int = 0
    """Chooses the documents."""

    def __post_init__(self) -> None:
        fractions = {"validation_fraction": self.validation_fraction, "test_fraction": self.test_fraction}
        for name, value in fractions.items():
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"{name} must be 0 or more and below 1: got {value}")
        if (total := sum(value or 0 for value in fractions.values())) >= 1:
            raise ValueError(
                f"validation_fraction and test_fraction must leave something to train on: they add up to {total:g}; lower them"
            )
        if self.by not in ("documents", "characters"):
            raise ValueError(f"split by documents or characters: got {self.by!r}")


class Spool:
    """Documents on disk while they wait for their split; a temporary file, gone at the end."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()
        self._ends = array("q", [0])
        self._kinds: list[type] = []
        self.characters = array("q")

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self.characters)

    def append(self, document: Record) -> None:
        """Every document has the same kinds of fields."""
        self._kinds = self._kinds or [type(field) for field in document]
        for field in document:
            data = field.encode("utf-8", "surrogatepass") if isinstance(field, str) else field
            self._file.write(data)
            self._ends.append(self._ends[-1] + len(data))
        self.characters.append(len(document[1]))

    def __getitem__(self, number: int) -> Record:
        count = len(self._kinds)
        begin, *ends = self._ends[number * count : (number + 1) * count + 1]
        self._file.seek(begin)
        fields: list[str | bytes] = []
        for kind, end in zip(self._kinds, ends, strict=True):
            data = self._file.read(end - begin)
            fields.append(data.decode("utf-8", "surrogatepass") if kind is str else data)
            begin = end
        return tuple(fields)


@dataclass(frozen=True)
class Part:
    """The documents of one split, or the same share of each: what lies between `begin` and `end` of its characters."""

    spool: Spool
    numbers: np.ndarray
    begin: float = 0.0
    end: float = 1.0

    def __len__(self) -> int:
        return len(self.numbers)

    def _cut(self, number: int) -> slice:
        count = self.spool.characters[number]
        return slice(round(self.begin * count), round(self.end * count))

    def __iter__(self) -> Iterator[Record]:
        for number in self.numbers.tolist():
            document_id, content, *second = self.spool[number]
            yield document_id, content[self._cut(number)], *second

    @property
    def num_characters(self) -> int:
        return sum((cut := self._cut(number)).stop - cut.start for number in self.numbers.tolist())


def with_fractions(split: SplitConfig, own: dict[str, list[str | Path]]) -> SplitConfig:
    """Fill in the fractions that were not given."""
    if unknown := set(own) - {"validation", "test"}:
        raise ValueError(f"own_files are for validation and test: got {', '.join(sorted(unknown))}")
    given = {"validation": split.validation_fraction, "test": split.test_fraction}
    for part in own:
        if given[part]:
            raise ValueError(f"{part} must have a fraction of the documents or files of its own: got both; leave one out")
    filled = {f"{k}_fraction": (0.0 if own else _FRACTION) if v is None else v for k, v in given.items()}
    return replace(split, **filled)


def assign(spool: Spool, numbers: dict[str, np.ndarray], split: SplitConfig) -> dict[str, Part]:
    """The documents of each split, in the order in which they were read."""
    fractions = {"validation": split.validation_fraction or 0.0, "test": split.test_fraction or 0.0}
    train = numbers["train"]
    parts: dict[str, Part] = {}
    if split.by == "characters":
        begin = 1.0 - sum(fractions.values())
        parts["train"] = Part(spool, train, 0.0, begin)
        for part, fraction in fractions.items():
            if fraction:
                parts[part] = Part(spool, train, begin, begin + fraction)
                begin += fraction
    else:
        counts = {part: max(1, round(fraction * len(train))) if fraction else 0 for part, fraction in fractions.items()}
        if sum(counts.values()) >= len(train):
            raise ValueError(
                f"{sum(counts.values()) + 1} documents or more are needed for the splits: there are {len(train)}; set "
                "--validation-fraction and --test-fraction to 0, or, of plain text, cut each document with --split-by "
                "characters, or make smaller ones with --documents"
            )
        order = train[random_order(split.seed, len(train))]
        first = 0
        for part, count in counts.items():
            if count:
                parts[part] = Part(spool, np.sort(order[first : first + count]))
            first += count
        parts = {"train": Part(spool, np.sort(order[first:]))} | parts
    parts |= {part: Part(spool, own) for part, own in numbers.items() if part != "train"}
    return {part: parts[part] for part in ("train", "validation", "test") if part in parts}
