"""The examples of a split as arrays, computed once and kept on disk, each found by its number.

The folder is named by a hash of the records and of what encodes them, and appears whole or not at all, so any number of
processes may ask for it at once.
"""

import hashlib
import json
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int64

from jaxllm.data.task_data import Records
from jaxllm.data.whole import write_whole
from jaxllm.hardware import cache_dir

_LAYOUT = 2
_SAY_FROM = 100_000


class Item(NamedTuple):
    """An example, or a piece of a long one, as arrays."""

    arrays: dict[str, Any]
    """With one axis: a value for each token. Those of the first text are as many as `tokens`; of another text names begin with
    its own, as `pair_tokens` and `pair_token_types`. Without an axis: one value for the item."""
    cut: bool = False
    """Whether tokens were left out for its length."""


@runtime_checkable
class Encode(Protocol):
    """From a record to its items. A frozen dataclass whose `fingerprint` says all that decides the result."""

    @property
    def fingerprint(self) -> str: ...

    def __call__(self, record: dict[str, Any]) -> list[Item]:
        """Raises ValueError, without the record's place, for one that cannot be used."""
        ...


@dataclass(frozen=True)
class ExampleTable:
    """The items of a split on disk, mapped into memory when first used."""

    folder: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return ExampleTable, (self.folder,)

    @cached_property
    def _meta(self) -> dict[str, Any]:
        return json.loads((self.folder / "meta.json").read_text("utf-8"))

    @property
    def fingerprint(self) -> str:
        """The same for two tables exactly when they hold the same items."""
        return self._meta["fingerprint"]

    @property
    def texts(self) -> tuple[str, ...]:
        """What the names of each text's arrays begin with: "" for the first."""
        return tuple(name.removesuffix("tokens") for name in self._meta["by_token"] if name.endswith("tokens"))

    def by_token(self, text: str) -> list[str]:
        """Names of the arrays with a value for each token of a text."""
        return [name for name in self._meta["by_token"] if self._text_of(name) == text]

    @property
    def by_item(self) -> list[str]:
        """Names of the arrays with a value for each item."""
        return self._meta["by_item"]

    def _text_of(self, name: str) -> str:
        return max((text for text in self.texts if name.startswith(text)), key=len)

    @cached_property
    def _arrays(self) -> dict[str, np.ndarray]:
        return {}

    def array(self, name: str) -> np.ndarray:
        """All items end to end."""
        if name not in self._arrays:
            self._arrays[name] = np.asarray(np.load(self.folder / f"{name}.npy", mmap_mode="r"))
        return self._arrays[name]

    def offsets(self, text: str) -> Int64[np.ndarray, " ends"]:
        """Where each item begins in the arrays of a text, and where the last one ends."""
        return self.array(f"{text}offsets")

    def lengths(self, text: str) -> Int64[np.ndarray, " items"]:
        """Tokens of each item."""
        return np.diff(self.offsets(text))

    @property
    def records(self) -> Int64[np.ndarray, " items"]:
        """The record that each item is from."""
        return self.array("record")

    @property
    def cut(self) -> Bool[np.ndarray, " items"]:
        """Which items were left without some of their tokens."""
        return self.array("cut")

    def __len__(self) -> int:
        return len(self.records)

    def item(self, number: int, name: str) -> np.ndarray:
        """One array of an item."""
        if name in self.by_item:
            return self.array(name)[number]
        begin, end = self.offsets(self._text_of(name))[number : number + 2]
        return self.array(name)[begin:end]


def encode_records(records: Records, encode: Encode) -> ExampleTable:
    """The items of all records, from the cache or computed now.

    Raises:
      ValueError: a record that cannot be used, with its place; or a split without any item.
    """
    name = hashlib.sha256(f"{_LAYOUT} {records.fingerprint} {encode.fingerprint}".encode()).hexdigest()[:24]
    folder = cache_dir() / "examples" / name
    if not folder.is_dir():
        write_whole(folder, lambda work: _write(records, encode, work))
    return ExampleTable(folder)


def _columns(record: dict[str, Any]) -> list[str]:
    """The names of what a record holds, such as "answers.text"."""
    return [
        name if inner is None else f"{name}.{inner}"
        for name, value in record.items()
        for inner in (value if isinstance(value, dict) and value else (None,))
    ]


def _write(records: Records, encode: Encode, folder: Path) -> None:
    if len(records) >= _SAY_FROM:
        print(f"encoding the {len(records):,} examples of {records.split}, once for all runs", file=sys.stderr, flush=True)
    items: list[Item] = []
    owners: list[int] = []
    for number, record in enumerate(records):
        try:
            found = encode(record)
        except ValueError as error:
            raise ValueError(f"{records.describe(number)}: {error}") from None
        except KeyError as error:
            raise ValueError(
                f"{records.describe(number)}: a record must have {error}: it has {', '.join(_columns(record))}; name another "
                "feature in `data`, or build the set with it"
            ) from error
        items += found
        owners += [number] * len(found)
    if not items:
        raise ValueError(f"the split {records.split!r} must have an example: it has none")
    arrays = {name: [item.arrays[name] for item in items] for name in items[0].arrays}
    by_token = sorted((name for name, values in arrays.items() if np.ndim(values[0])), key=lambda name: name != "tokens")
    columns = {name: np.concatenate(arrays[name]) if name in by_token else np.array(arrays[name]) for name in arrays}
    for tokens in (name for name in by_token if name.endswith("tokens")):
        lengths = [0, *(len(item.arrays[tokens]) for item in items)]
        columns[f"{tokens.removesuffix('tokens')}offsets"] = np.cumsum(np.array(lengths, np.int64))
    columns |= {"record": np.array(owners, np.int64), "cut": np.array([item.cut for item in items])}
    digest = hashlib.sha256()
    for name in sorted(columns):
        np.save(folder / f"{name}.npy", columns[name])
        digest.update(f"{name} {columns[name].dtype.str}".encode() + columns[name].tobytes())
    by_item = [name for name in arrays if name not in by_token]
    meta = {"by_token": by_token, "by_item": by_item, "records": len(records), "fingerprint": digest.hexdigest()[:24]}
    (folder / "meta.json").write_text(json.dumps(meta, indent=1), "utf-8")
