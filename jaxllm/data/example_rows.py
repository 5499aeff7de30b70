"""Examples as the rows of a batch: several in a row of one length, or one a row; in few shapes, each compiled once.

N examples, R rows of T tokens.
"""

import dataclasses
import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from jaxllm.data.example_table import ExampleTable
from jaxllm.data.packing import best_fit
from jaxllm.data.rows import Batch, Share
from jaxllm.data.shuffle import epoch_order
from jaxllm.data.task_data import Records

WIDTH_UNIT = 16
"""Rows with one example are a multiple of so many tokens long."""


def few_sizes(count: int, unit: int = 1) -> int:
    """`count` rounded up to 1, 2, ..., 8, 10, 12, 14, 16, 20, 24, ... times `unit`: four sizes for each doubling."""
    units = max(-(-count // unit), 1)
    step = 1 << max((units - 1).bit_length() - 3, 0)
    return -(-units // step) * step * unit


class Placed(NamedTuple):
    """Where the items of a part stand: in which of its rows, from which column, as which segment."""

    rows: Int64[np.ndarray, " N"]
    begins: Int64[np.ndarray, " N"]
    segments: Int64[np.ndarray, " N"]

    @property
    def num_rows(self) -> int:
        return int(self.rows.max(initial=-1)) + 1


def pack(lengths: Int64[np.ndarray, " N"], row_len: int) -> Placed:
    """Items whole, several in a row, best fit first."""
    largest_first = np.argsort(-lengths, kind="stable")
    rows = np.empty(len(lengths), np.int64)
    rows[largest_first] = best_fit(lengths[largest_first][:, None], (row_len,))
    by_row = np.argsort(rows, kind="stable")
    ends = np.cumsum(lengths[by_row])
    firsts = np.searchsorted(rows[by_row], rows[by_row])
    begins, segments = np.empty_like(rows), np.empty_like(rows)
    begins[by_row] = ends - lengths[by_row] - (ends - lengths[by_row])[firsts]
    segments[by_row] = np.arange(len(rows)) - firsts + 1
    return Placed(rows, begins, segments)


def apart(count: int) -> Placed:
    """Each item in a row of its own."""
    return Placed(np.arange(count), np.zeros(count, np.int64), np.ones(count, np.int64))


@dataclass(frozen=True)
class ExampleRows:
    """The items of a split by global position, and batches of them.

    With a seed, each epoch has its own order. Without one they come in their own, once, and a batch has `items`: 1 + an item's
    number where its loss weights are above 0 (or for its row, where it has none), 0 elsewhere.
    """

    table: ExampleTable
    records: Records
    row_len: int
    """T of rows that are packed; the most tokens of a row with one item."""
    packed: bool
    seed: int | None = None
    drop_cut: bool = False
    """Leave out, with a seed, the items that lost tokens."""
    class_weights: tuple[float, ...] | None = None
    """With a seed, factors on the loss weights, by the number of the class in `targets`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return ExampleRows, tuple(getattr(self, field.name) for field in dataclasses.fields(self))

    def for_evaluation(self) -> "ExampleRows":
        return dataclasses.replace(self, seed=None)

    @cached_property
    def items(self) -> Int64[np.ndarray, " items"]:
        """The numbers of those that an epoch has."""
        whole = ~self.table.cut if self.drop_cut and self.seed is not None else np.ones(len(self.table), bool)
        if not whole.any():
            raise ValueError(f"the split {self.records.split!r} must have an example within data.seq_len={self.row_len} tokens")
        return np.flatnonzero(whole)

    @property
    def rows_per_epoch(self) -> int:
        """Items of an epoch."""
        return len(self.items)

    @property
    def fingerprint(self) -> str:
        stream = (self.table.fingerprint, self.row_len, self.packed, self.seed, self.drop_cut, self.class_weights)
        return hashlib.sha256(" ".join(map(str, stream)).encode()).hexdigest()[:24]

    @property
    def tokens_per_item(self) -> float:
        """In the mean, padding not counted."""
        return sum(float(self.table.lengths(text)[self.items].mean()) for text in self.table.texts)

    def describe(self, position: int) -> list[str]:
        (number,) = self._numbers(np.array([position]))
        return [self.records.describe(int(self.table.records[number]))]

    def rows(self, positions: Int64[np.ndarray, " N"]) -> Batch:
        return self.batch(positions, Share())

    def _numbers(self, positions: Int64[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
        places, _ = epoch_order(positions, self.rows_per_epoch, self.seed)
        return self.items[places]

    def batch(self, positions: Int64[np.ndarray, " N"], share: Share) -> Batch:
        """Rows with the items at some global positions; each of the parts has its own, in rows that no other part's are in."""
        numbers = self._numbers(np.asarray(positions))
        lengths = np.stack([self.table.lengths(text)[numbers] for text in self.table.texts])
        width = self.row_len if self.packed else min(few_sizes(int(lengths.max()), WIDTH_UNIT), self.row_len)
        parts = np.array_split(np.arange(len(numbers)), share.parts)
        placed = [pack(lengths[0, part], width) if self.packed else apart(len(part)) for part in parts]
        num_rows = few_sizes(max(each.num_rows for each in placed), share.multiple)
        mine = [self._fill(numbers[parts[k]], placed[k], num_rows, width) for k in share.mine]
        return {name: np.concatenate([part[name] for part in mine]) for name in mine[0]}

    def _fill(self, numbers: Int64[np.ndarray, " N"], placed: Placed, num_rows: int, width: int) -> Batch:
        batch: Batch = {}
        for text in self.table.texts:
            offsets = self.table.offsets(text)
            lengths = offsets[numbers + 1] - offsets[numbers]
            inside = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            cells = np.repeat(placed.rows, lengths), np.repeat(placed.begins, lengths) + inside
            source = np.repeat(offsets[numbers], lengths) + inside

            def put(name: str, values: np.ndarray, cells: Any = cells) -> None:
                batch[name] = np.zeros(
                    (num_rows, width, *values.shape[1:]), np.float32 if values.dtype.kind == "f" else np.int32
                )
                batch[name][cells] = values

            for name in self.table.by_token(text):
                put(name, self.table.array(name)[source])
            put(f"{text}positions", inside)
            put(f"{text}segment_ids", np.repeat(placed.segments, lengths))
            if self.seed is None and f"{text}loss_weights" in batch:
                put(f"{text}items", np.repeat(numbers + 1, lengths) * (batch[f"{text}loss_weights"][cells] > 0))
        for name in self.table.by_item:
            values = self.table.array(name)[numbers]
            batch[name] = np.zeros((num_rows, *values.shape[1:]), np.float32 if values.dtype.kind == "f" else np.int32)
            batch[name][placed.rows] = values
        if self.seed is None and "items" not in batch:
            batch["items"] = np.zeros(num_rows, np.int32)
            batch["items"][placed.rows] = numbers + 1
        if self.class_weights is not None and self.seed is not None:
            batch["loss_weights"] *= np.array(self.class_weights, np.float32)[batch["targets"]]
        return batch
