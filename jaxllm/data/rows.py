"""A split as rows of tokens, each found directly from its global position: examples consumed since the beginning."""

import dataclasses
import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from jaxllm.data.packing import Concat, Fit
from jaxllm.data.shuffle import epoch_order, mix
from jaxllm.data.source import TextSplit
from jaxllm.data.tokens import TokenTable

Batch = dict[str, np.ndarray]
"""Arrays whose first axis counts the rows; their shapes are those of every batch of a run, but for `BatchRows`.

Of plain text `tokens`, `targets`, `positions`, `segment_ids` (int32) and `loss_weights` (float32), each [B, T]. Segments
count the documents of a row from 1; 0 is padding. A loss weight is 0 where the target is padding or another document's."""


@runtime_checkable
class Rows(Protocol):
    """Rows by global position: what batches are made of, whatever is in the rows."""

    @property
    def seed(self) -> int | None:
        """Orders the rows, anew in each epoch; None keeps them as they are, for one epoch."""
        ...

    @property
    def rows_per_epoch(self) -> int: ...

    @property
    def fingerprint(self) -> str:
        """The same for two sources exactly when they give the same rows."""
        ...

    def rows(self, positions: np.ndarray) -> Batch: ...

    def for_evaluation(self) -> "Rows":
        """The same in its own order."""
        ...

    def describe(self, position: int) -> list[str]:
        """What the row at a global position was made from, for an error message."""
        ...


class Share(NamedTuple):
    """How a batch lies on the devices, and which of it is this process's."""

    parts: int = 1
    """Parts of equal size into which a batch's rows are split, one after the other."""
    mine: tuple[int, ...] = (0,)
    """Those that this process gets, ascending."""
    multiple: int = 1
    """What the rows of a part must be a multiple of."""


@runtime_checkable
class BatchRows(Rows, Protocol):
    """Rows whose number and length differ from batch to batch: a position is an example's, and they are asked for together."""

    def batch(self, positions: np.ndarray, share: Share) -> Batch:
        """The rows of a batch of examples that are this process's.

        Shapes follow from `positions` and `share` alone, whatever parts are this process's.

        Args:
          positions: the global positions of all examples of the batch.
        """
        ...


@dataclass(frozen=True)
class RowSource:
    """Rows of a split by global position.

    With a seed, position p is in epoch p // rows_per_epoch, and each epoch has its own order (and for "concat" its own
    cuts). Without one, the rows come in their order and there is one epoch, in which each target counts once: the loss
    weights add up to tokens minus documents.
    """

    table: TokenTable
    documents: TextSplit
    seq_len: int
    packing: Literal["concat", "fit"] = "concat"
    cross_document_attention: bool = False
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.rows_per_epoch < 1:
            needed = self.seq_len if self.seed is not None and self.packing == "concat" else 2
            raise ValueError(
                f"the split {self.documents.split!r} must have at least {needed} tokens for rows of {self.seq_len}: it has "
                f"{self.table.num_tokens}; lower seq_len or add text"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return RowSource, tuple(getattr(self, field.name) for field in dataclasses.fields(self))

    def for_evaluation(self) -> "RowSource":
        """The same split in its own order, each target once."""
        return dataclasses.replace(self, seed=None)

    @cached_property
    def _layout(self) -> Concat | Fit:
        layout = Concat if self.packing == "concat" else Fit
        return layout(self.table.offsets, self.seq_len, self.seed)

    @property
    def rows_per_epoch(self) -> int:
        """Rows of an epoch, the same in each."""
        return self._layout.num_rows

    @property
    def fingerprint(self) -> str:
        """The same for two sources exactly when they give the same rows: by the tokens themselves, wherever they are kept."""
        stream = (self.table.fingerprint, self.seq_len, self.packing, self.cross_document_attention, self.seed)
        return hashlib.sha256(" ".join(map(str, stream)).encode()).hexdigest()[:24]

    def rows(self, positions: Int64[np.ndarray, " B"]) -> Batch:
        """The rows at some global positions."""
        cells = self._layout.cells(*self._rows_and_offsets(positions))
        padding = cells.segment_ids == 0
        tokens = self.table.tokens
        positions_in_row, segment_ids = cells.positions, cells.segment_ids
        if self.cross_document_attention:
            positions_in_row = np.where(padding, 0, np.arange(self.seq_len, dtype=np.int32))
            segment_ids = (~padding).astype(np.int32)
        return {
            "tokens": np.where(padding, 0, tokens[cells.source]).astype(np.int32),
            "targets": np.where(padding, 0, tokens[cells.target]).astype(np.int32),
            "loss_weights": cells.loss_weights,
            "positions": positions_in_row,
            "segment_ids": segment_ids,
        }

    def describe(self, position: int) -> list[str]:
        """The ids of the documents in the row at a global position; of one that is not whole, also the first and the last of
        its tokens in the row, counted from 0: "tiny_shakespeare:train tokens 12345-12408"."""
        cells = self._layout.cells(*self._rows_and_offsets(np.array([position])))
        source, segments = cells.source[0], cells.segment_ids[0]
        described = []
        for segment in range(1, segments.max() + 1):
            first, last = source[segments == segment][[0, -1]]
            number = int(np.searchsorted(self.table.offsets, first, side="right")) - 1
            begin, end = self.table.offsets[number : number + 2]
            whole = first == begin and last >= end - 2  # the last token may be a target only
            name = self.documents.document_id(number)
            described.append(name if whole else f"{name} tokens {first - begin}-{last - begin}")
        return described

    def _rows_and_offsets(self, positions: Int64[np.ndarray, " B"]) -> tuple[np.ndarray, np.ndarray]:
        rows, keys = epoch_order(positions, self.rows_per_epoch, self.seed)
        if self.seed is None:
            return rows, np.zeros_like(rows)
        return rows, (mix(keys) % np.uint64(self.seq_len)).astype(np.int64)
