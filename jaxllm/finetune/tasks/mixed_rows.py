"""Rows of several data sets: which set each position of the stream is from, and which example of it.

Position p is in block p // SLOTS, and each block has the same number of places for a set, in an order of its own. So both
follow from the seed and p alone, and the places of a set count its own positions without gaps: each of its examples comes
once before any comes again.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from jaxllm.data.example_table import ExampleTable
from jaxllm.data.shuffle import keys_of, permute
from jaxllm.data.task_data import Records
from jaxllm.data.whole import write_whole
from jaxllm.finetune.tasks.text_rows import TextRows
from jaxllm.hardware import cache_dir

SLOTS = 1024
"""Places of a block: the finest share of a set is 1 / SLOTS."""


def mixing_rates(
    sizes: Sequence[int], weights: Sequence[float], temperature: float, limit: int | None
) -> Float[np.ndarray, " sets"]:
    """The share of each set: (weight · min(size, limit)) ** (1 / temperature) over their sum (arXiv:1910.10683, 3.5.2)."""
    counted = np.array(weights, np.float64) * np.minimum(sizes, np.inf if limit is None else limit)
    raised = counted ** (1 / temperature)
    return raised / raised.sum()


def places_of(rates: Float[np.ndarray, " sets"]) -> Int64[np.ndarray, " sets"]:
    """Places of each set in a block: those nearest to its share, and one at least."""
    places = np.maximum(np.floor(rates * SLOTS).astype(np.int64), 1)
    short = SLOTS - int(places.sum())
    if short > 0:
        places[np.argsort(places - rates * SLOTS, kind="stable")[:short]] += 1
    while places.sum() > SLOTS:
        places[np.argmax(places)] -= 1
    return places


def mixed_positions(
    positions: Int64[np.ndarray, " N"], places: Int64[np.ndarray, " sets"], seed: int
) -> tuple[Int64[np.ndarray, " N"], Int64[np.ndarray, " N"]]:
    """The set of each position, and the position in that set's own stream."""
    blocks, offsets = np.divmod(positions, SLOTS)
    ends = np.cumsum(places)
    sets, inside = np.empty_like(blocks), np.empty_like(blocks)
    for block in np.unique(blocks):  # a batch is in one, or in a few
        order = permute(np.arange(SLOTS), SLOTS, keys_of(seed, np.full(SLOTS, block, np.int64)))
        whole = np.searchsorted(ends, order, side="right")
        before = np.empty(SLOTS, np.int64)
        for k, count in enumerate(places):
            before[whole == k] = np.arange(count)
        here = blocks == block
        sets[here] = whole[offsets[here]]
        inside[here] = block * places[sets[here]] + before[offsets[here]]
    return sets, inside


@dataclass(frozen=True)
class MixedRecords(Records):
    """The records of several sets, one set behind the other; folder and split are the first one's."""

    parts: tuple[Records, ...] = ()

    @classmethod
    def of(cls, parts: Sequence[Records]) -> "MixedRecords":
        return cls(parts[0].folder, parts[0].split, None, tuple(parts))

    def __reduce__(self) -> tuple[Any, ...]:
        return MixedRecords.of, (self.parts,)

    @cached_property
    def fingerprint(self) -> str:
        return hashlib.sha256(" ".join(part.fingerprint for part in self.parts).encode()).hexdigest()

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for part in self.parts:
            yield from part

    def __getitem__(self, number: int) -> dict[str, Any]:
        part, place = self._find(number)
        return part[place]

    def describe(self, number: int) -> str:
        """The set and the place in it."""
        part, place = self._find(number)
        return f"{part.folder.parent.name} {part.describe(place)}"

    def _find(self, number: int) -> tuple[Records, int]:
        for part in self.parts:
            if number < len(part):
                return part, number
            number -= len(part)
        raise IndexError(f"there are {len(self)} records: got one behind them")


@dataclass(frozen=True)
class MixedRows(TextRows):
    """Items of several sets by global position, each set with its share."""

    chosen: tuple[tuple[int, ...], ...] = ()
    """Of each set, where its items begin in the table, and where they end."""
    places: tuple[int, ...] = ()
    """Places of each set in a block; for training."""
    names: tuple[str, ...] = ()
    """What the sets are called."""

    @property
    def told(self) -> str:
        """The share of each set, in words."""
        shares = (f"{name} {count / SLOTS:.1%}" for name, count in zip(self.names, self.places, strict=True))
        return f"a mixture: {', '.join(shares)}"

    @cached_property
    def items(self) -> Int64[np.ndarray, " items"]:
        """Without a seed the sets go on side by side, the first item of each first: an evaluation may end before the last."""
        if self.seed is not None:
            return super().items
        sizes = [end - begin for begin, end in self.chosen]
        return np.argsort(np.concatenate([np.arange(size) / size for size in sizes]), kind="stable")

    @cached_property
    def _sets(self) -> list[Int64[np.ndarray, " items"]]:
        """The items of each set that are trained on."""
        whole = ~self.table.cut if self.drop_cut and self.seed is not None else np.ones(len(self.table), bool)
        found = [begin + np.flatnonzero(whole[begin:end]) for begin, end in self.chosen]
        if not all(len(items) for items in found):
            raise ValueError(f"each set of a mixture must have an example within data.seq_len={self.row_len} tokens")
        return found

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{super().fingerprint} {self.chosen} {self.places}".encode()).hexdigest()[:24]

    def _numbers(self, positions: Int64[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
        if self.seed is None:
            return super()._numbers(positions)
        sets, inside = mixed_positions(positions, np.array(self.places, np.int64), self.seed)
        numbers = np.empty(len(positions), np.int64)
        for k, items in enumerate(self._sets):
            here = sets == k
            epochs, index = np.divmod(inside[here], len(items))
            numbers[here] = items[permute(index, len(items), keys_of(self.seed + 1 + k, epochs))]
        return numbers


def joined_table(tables: Sequence[ExampleTable], lengths: Sequence[int]) -> ExampleTable:
    """The items of several tables as one; kept on disk.

    Args:
      lengths: records of each set, so that the records of the joined table can be told from each other.
    """
    names = [[*sum((table.by_token(text) for text in table.texts), []), *table.by_item] for table in tables]
    if any(sorted(other) != sorted(names[0]) for other in names):
        raise ValueError(f"the sets of a mixture must give the same arrays: got {names}")
    key = hashlib.sha256(" ".join(["mixture", *(table.fingerprint for table in tables), *map(str, lengths)]).encode())
    folder = cache_dir() / "examples" / key.hexdigest()[:24]
    if not folder.is_dir():
        write_whole(folder, lambda work: _join(tables, lengths, names[0], key.hexdigest()[:24], work))
    return ExampleTable(folder)


def _join(tables: Sequence[ExampleTable], lengths: Sequence[int], names: list[str], fingerprint: str, folder: Path) -> None:
    for name in [*names, "cut"]:
        np.save(folder / f"{name}.npy", np.concatenate([table.array(name) for table in tables]))
    for text in tables[0].texts:
        inside = np.concatenate([table.lengths(text) for table in tables])
        np.save(folder / f"{text}offsets.npy", np.concatenate([[0], np.cumsum(inside)]).astype(np.int64))
    begins = np.cumsum([0, *lengths[:-1]])
    records = [table.records + begin for table, begin in zip(tables, begins, strict=True)]
    np.save(folder / "record.npy", np.concatenate(records))
    by_token = [name for name in names if name not in tables[0].by_item]
    by_token.sort(key=lambda name: name != "tokens")
    meta = {"by_token": by_token, "by_item": tables[0].by_item, "records": int(sum(lengths)), "fingerprint": fingerprint}
    (folder / "meta.json").write_text(json.dumps(meta, indent=1), "utf-8")
