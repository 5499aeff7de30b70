"""Batches from rows, by Grain: prepared ahead in a thread or in worker processes, the same stream either way."""

import sys
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass

import grain
import numpy as np

from jaxllm.data.rows import Batch, Rows
from jaxllm.data.workers import in_workers


@dataclass(frozen=True)
class _Batches:
    """Element i: this process's rows of global batch i."""

    source: Rows
    first: int
    """Global position of the first row of batch 0 for this process."""
    rows: int
    stride: int
    """Rows of a global batch."""
    count: int | None

    def __len__(self) -> int:
        return sys.maxsize // self.stride // 2 if self.count is None else self.count

    def __getitem__(self, index: int) -> Batch:
        begin = self.first + index * self.stride
        if self.count is None:
            return self.source.rows(np.arange(begin, begin + self.rows))
        there = max(0, min(self.rows, self.source.rows_per_epoch - begin))
        batch = self.source.rows(np.arange(begin, begin + there))
        missing = self.rows - there
        if not missing:
            return batch
        return {name: np.pad(value, ((0, missing), *[(0, 0)] * (value.ndim - 1))) for name, value in batch.items()}


def train_batches(
    source: Rows,
    *,
    batch_size: int,
    start: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    num_workers: int = 0,
    prefetch: int = 2,
) -> Generator[Batch, None, None]:
    """Batches without end, from global position `start` (examples consumed).

    Process k of n gets rows k B/n to (k+1) B/n - 1 of each global batch of B = `batch_size` rows. Close the iterator, or
    let it go, to end its threads and worker processes.

        batches = train_batches(data.train, batch_size=12)
        next(batches)["tokens"].shape  # (12, seq_len)
    """
    if source.seed is None:
        raise ValueError("training needs a source with a seed, such as open_data(config, seed=0).train: got seed None")
    rows = _rows_of_process(batch_size, process_index, process_count)
    if start < 0:
        raise ValueError(f"start counts examples consumed, from 0: got {start}")
    batches = _Batches(source, start + process_index * rows, rows, batch_size, count=None)
    return _run(batches, num_workers, prefetch)


def eval_batches(
    source: Rows,
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    num_workers: int = 0,
    prefetch: int = 2,
) -> Generator[Batch, None, None]:
    """Every row of the split once, in order; rows of padding with weight 0 complete the last batch.

    All processes get the same number of batches.
    """
    rows = _rows_of_process(batch_size, process_index, process_count)
    source = source.for_evaluation()
    count = -(-source.rows_per_epoch // batch_size)
    return _run(_Batches(source, process_index * rows, rows, batch_size, count), num_workers, prefetch)


def _rows_of_process(batch_size: int, process_index: int, process_count: int) -> int:
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"batch_size (rows over all processes) must be a multiple of the {process_count} processes: got {batch_size}"
        )
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index must be in 0..{process_count - 1}: got {process_index}")
    return batch_size // process_count


def _run(batches: _Batches, num_workers: int, prefetch: int) -> Generator[Batch, None, None]:
    threads = 1 if prefetch and not num_workers else 0
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch if threads else 0)
    dataset = grain.MapDataset.source(batches).to_iter_dataset(options)
    return in_workers(dataset, num_workers, prefetch) if num_workers else _closing(iter(dataset))


def _closing(elements: grain.DatasetIterator[Batch]) -> Generator[Batch, None, None]:
    with closing(elements):
        yield from elements
