"""Batches from rows, by Grain: prepared ahead in a thread or in worker processes, the same stream either way."""

import sys
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

import grain
import numpy as np

from jaxllm.data.rows import Batch, BatchRows, Rows, Share
from jaxllm.data.workers import in_workers


@dataclass(frozen=True)
class _Batches:
    """Element i: this process's rows of global batch i."""

    source: Rows
    start: int
    """Global position of the first row of batch 0."""
    rows: np.ndarray
    """The rows of each batch that are this process's, from 0."""
    stride: int
    """Rows, or examples, of a global batch."""
    count: int | None
    share: Share

    def __len__(self) -> int:
        return sys.maxsize // self.stride // 2 if self.count is None else self.count

    def __getitem__(self, index: int) -> Batch:
        if isinstance(self.source, BatchRows):
            first = self.start + index * self.stride
            last = first + self.stride if self.count is None else min(first + self.stride, self.source.rows_per_epoch)
            return self.source.batch(np.arange(first, last), self.share)
        positions = self.start + index * self.stride + self.rows
        if self.count is None:
            return self.source.rows(positions)
        there = positions[positions < self.source.rows_per_epoch]
        batch = self.source.rows(there)
        missing = len(positions) - len(there)
        if not missing:
            return batch
        return {name: np.pad(value, ((0, missing), *[(0, 0)] * (value.ndim - 1))) for name, value in batch.items()}


def train_batches(
    source: Rows,
    *,
    batch_size: int,
    start: int = 0,
    rows: Sequence[int] | None = None,
    share: Share = Share(),  # noqa: B008
    num_workers: int = 0,
    prefetch: int = 2,
) -> Generator[Batch, None, None]:
    """Batches without end, from global position `start` (examples consumed).

    Close the iterator, or let it go, to end its threads and worker processes.

        batches = train_batches(data.train, batch_size=12)
        next(batches)["tokens"].shape  # (12, seq_len)

    Args:
      batch_size: rows over all processes.
      rows: those of each batch that this process gets, from 0 and ascending; by default all.
      share: the same for `BatchRows`, of which a batch has `batch_size` examples in rows of their own number.
    """
    if source.seed is None:
        raise ValueError("training needs a source with a seed, such as open_data(config, seed=0).train: got seed None")
    chosen = _chosen_rows(batch_size, rows)
    if start < 0:
        raise ValueError(f"start counts examples consumed, from 0: got {start}")
    return _run(_Batches(source, start, chosen, batch_size, None, share), num_workers, prefetch)


def eval_batches(
    source: Rows,
    *,
    batch_size: int,
    rows: Sequence[int] | None = None,
    share: Share = Share(),  # noqa: B008
    num_workers: int = 0,
    prefetch: int = 2,
) -> Generator[Batch, None, None]:
    """Every row of the split once, in order; rows of padding with weight 0 complete the last batch.

    All processes get the same number of batches. Arguments as for `train_batches`.
    """
    chosen = _chosen_rows(batch_size, rows)
    source = source.for_evaluation()
    count = -(-source.rows_per_epoch // batch_size)
    return _run(_Batches(source, 0, chosen, batch_size, count, share), num_workers, prefetch)


def _chosen_rows(batch_size: int, rows: Sequence[int] | None) -> np.ndarray:
    if batch_size < 1:
        raise ValueError(f"batch_size (rows over all processes) must be at least 1: got {batch_size}")
    chosen = np.arange(batch_size) if rows is None else np.asarray(rows, np.int64)
    if len(chosen) == 0 or chosen[0] < 0 or chosen[-1] >= batch_size or (np.diff(chosen) <= 0).any():
        raise ValueError(f"rows must be numbers from 0 to {batch_size - 1}, ascending: got {chosen.tolist()}")
    return chosen


def _run(batches: _Batches, num_workers: int, prefetch: int) -> Generator[Batch, None, None]:
    threads = 1 if prefetch and not num_workers else 0
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch if threads else 0)
    dataset = grain.MapDataset.source(batches).to_iter_dataset(options)
    return in_workers(dataset, num_workers, prefetch) if num_workers else _closing(iter(dataset))


def _closing(elements: grain.DatasetIterator[Batch]) -> Generator[Batch, None, None]:
    with closing(elements):
        yield from elements
