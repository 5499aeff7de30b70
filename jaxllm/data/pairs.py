"""Pairs of texts as rows: several pairs in a row, segment k of its source beside segment k of its target."""

import dataclasses
import hashlib
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Int64

from jaxllm.data.packing import best_fit, fill
from jaxllm.data.rows import Batch
from jaxllm.data.shuffle import epoch_order, random_order
from jaxllm.data.source import TextSplit
from jaxllm.data.tokens import TokenTable
from jaxllm.hardware.counted import counted


@dataclass(frozen=True)
class PairSource:
    """Rows of a split of pairs by global position.

    The sources of a row's pairs stand end to end in `source_len` places, their targets in `target_len`, each text whole with
    its end mark. Which pairs share a row depends on the seed; the order of the rows is new in each epoch. A pair too long
    for a row is left out of training, and cut for evaluation, which looks at every pair.
    """

    source: TokenTable
    target: TokenTable
    documents: TextSplit
    source_len: int
    target_len: int
    first: int | None = None
    """Id that stands before each source, for models whose texts begin with a mark."""
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.rows_per_epoch < 1:
            raise ValueError(
                f"the split {self.documents.split!r} must have a pair that fits into {self.source_len} and "
                f"{self.target_len} tokens: it has none; widen data.seq_len and objective.target_len"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return PairSource, tuple(getattr(self, field.name) for field in dataclasses.fields(self))

    def for_evaluation(self) -> "PairSource":
        return dataclasses.replace(self, seed=None)

    @cached_property
    def _plan(self) -> tuple[Int64[np.ndarray, " pairs"], Int64[np.ndarray, "pairs sides"], Int64[np.ndarray, " ends"]]:
        """Number and lengths of each pair, in row order, and the first pair of each row (and one past the last)."""
        room = (self.source_len, self.target_len)
        lengths = np.stack([np.diff(self.source.offsets), np.diff(self.target.offsets)], axis=1)
        pairs = np.flatnonzero(lengths.all(axis=1))
        lengths[:, 0] += self.first is not None
        fits = (lengths[pairs] <= room).all(axis=1)
        if self.seed is None:
            lengths = np.minimum(lengths, room)
        else:
            if not fits.all() and fits.any():
                self._say_left_out(int((~fits).sum()), len(pairs))
            pairs = pairs[fits]
            pairs = pairs[random_order(self.seed, len(pairs))]
        source, target = lengths[pairs].T
        pairs = pairs[np.lexsort((-target, -source, -np.maximum(source, target)))]
        row = best_fit(lengths[pairs], room)
        if self.seed is None:  # so that the first rows hold the first pairs, not the longest
            earliest = np.full(int(row.max(initial=-1)) + 1, len(lengths))
            np.minimum.at(earliest, row, pairs)
            row = np.argsort(np.argsort(earliest))[row]
        by_row = np.argsort(row, kind="stable")
        first = np.searchsorted(row[by_row], np.arange(int(row.max(initial=-1)) + 2))
        return pairs[by_row], lengths[pairs[by_row]], first

    def _say_left_out(self, count: int, total: int) -> None:
        print(
            f"{count:,} of the {counted(total, 'pair')} of {self.documents.split} {'is' if count == 1 else 'are'} longer than "
            f"{self.source_len} and {self.target_len} tokens and {'is' if count == 1 else 'are'} left out of training",
            file=sys.stderr,
            flush=True,
        )

    @property
    def rows_per_epoch(self) -> int:
        return len(self._plan[2]) - 1

    @property
    def fingerprint(self) -> str:
        shape = self.source_len, self.target_len, self.first, self.seed
        stream = (self.source.fingerprint, self.target.fingerprint, *shape)
        return hashlib.sha256(" ".join(map(str, stream)).encode()).hexdigest()[:24]

    def rows(self, positions: Int64[np.ndarray, " B"]) -> Batch:
        """`tokens`, `positions`, `segment_ids` [B, S] of the sources, and the same [B, T] as `target_...` of the targets."""
        rows, _ = epoch_order(positions, self.rows_per_epoch, self.seed)
        pairs, lengths, first = self._plan
        batch: Batch = {}
        sides = (("", self.source, self.source_len, self.first), ("target_", self.target, self.target_len, None))
        for side, (prefix, table, seq_len, mark) in enumerate(sides):
            begin = table.offsets[:-1][pairs] - (mark is not None)
            cells, in_text, segments = fill(begin, lengths[:, side], first, rows, seq_len)
            tokens = table.tokens[np.maximum(cells, 0)]
            tokens = tokens if mark is None else np.where(in_text == 0, mark, tokens)
            batch[f"{prefix}tokens"] = np.where(segments > 0, tokens, 0).astype(np.int32)
            batch[f"{prefix}positions"] = in_text
            batch[f"{prefix}segment_ids"] = segments
        return batch

    def describe(self, position: int) -> list[str]:
        (row,), _ = epoch_order(np.array([position]), self.rows_per_epoch, self.seed)
        pairs, _, first = self._plan
        return [self.documents.document_id(int(pair)) for pair in pairs[first[row] : first[row + 1]]]
