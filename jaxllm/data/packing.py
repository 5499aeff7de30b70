"""Layouts: which tokens stand in which row. `Concat` cuts a stream of documents, `Fit` packs whole documents.

B rows of T tokens; `N` is the number of tokens in all.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from jaxllm.data.shuffle import random_order


class Cells(NamedTuple):
    """Where the tokens of some rows come from. Padding has segment 0 and loss weight 0."""

    source: Int64[np.ndarray, "B T"]
    """Index into all tokens."""
    target: Int64[np.ndarray, "B T"]
    """Index into all tokens of the token that follows."""
    positions: Int32[np.ndarray, "B T"]
    segment_ids: Int32[np.ndarray, "B T"]
    loss_weights: Float32[np.ndarray, "B T"]


@dataclass(frozen=True, eq=False)
class Concat:
    """Documents end to end, cut into rows of `seq_len`.

    For training (with a seed) the documents stand in a random order and the stream is a ring, so that a row may begin at
    any offset and no token is left over at an end. For evaluation the stream is a line: every token once.
    """

    offsets: Int64[np.ndarray, " ends"]
    seq_len: int
    seed: int | None

    @cached_property
    def _order(self) -> Int64[np.ndarray, " documents"]:
        count = len(self.offsets) - 1
        return np.arange(count) if self.seed is None else random_order(self.seed, count)

    @cached_property
    def _starts(self) -> Int64[np.ndarray, " documents"]:
        """Where each document begins in the stream, in stream order."""
        ends = np.cumsum(np.diff(self.offsets)[self._order])
        return np.concatenate([np.zeros(1, np.int64), ends[:-1]])

    @cached_property
    def _shifts(self) -> Int64[np.ndarray, " documents"]:
        """From the stream to the array of all tokens."""
        return self.offsets[:-1][self._order] - self._starts

    @property
    def num_tokens(self) -> int:
        return int(self.offsets[-1])

    @property
    def num_rows(self) -> int:
        return -(-(self.num_tokens - 1) // self.seq_len) if self.seed is None else self.num_tokens // self.seq_len

    def cells(self, rows: Int64[np.ndarray, " B"], offsets: Int64[np.ndarray, " B"]) -> Cells:
        """The rows, when the cuts are moved to the right by `offsets`."""
        T = self.seq_len
        stream = (rows * T + offsets)[:, None] + np.arange(T + 1)
        inside = np.ones_like(stream, bool)
        if self.seed is None:
            inside = stream < self.num_tokens
            stream = np.minimum(stream, self.num_tokens - 1)
        else:
            stream = np.where(stream >= self.num_tokens, stream - self.num_tokens, stream)
        document = np.searchsorted(self._starts, stream, side="right") - 1
        source = stream if self.seed is None else stream + self._shifts[document]
        begins = stream == self._starts[document]
        return _cells(source, begins, inside)


def _cells(source: Int64[np.ndarray, "B T1"], begins: Bool[np.ndarray, "B T1"], inside: Bool[np.ndarray, "B T1"]) -> Cells:
    new = begins[:, :-1].copy()
    new[:, 0] = True
    column = np.arange(new.shape[1], dtype=np.int32)
    positions = column - np.maximum.accumulate(np.where(new, column, 0), axis=1)
    token_inside = inside[:, :-1]
    return Cells(
        source=source[:, :-1],
        target=source[:, 1:],
        positions=positions * token_inside,
        segment_ids=np.cumsum(new, axis=1, dtype=np.int32) * token_inside,
        loss_weights=(inside[:, 1:] & ~begins[:, 1:]).astype(np.float32),
    )


@dataclass(frozen=True, eq=False)
class Fit:
    """Documents whole where they fit, several in a row, best fit first; a longer one is cut every `seq_len` targets.

    A document of n tokens takes n - 1 places: its last token is only a target. With a seed, which of the documents of
    equal length goes where is random; the plan is the same in every epoch, the order of its rows is not.
    """

    offsets: Int64[np.ndarray, " ends"]
    seq_len: int
    seed: int | None

    @cached_property
    def _plan(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Begin and length of each piece, in row order, and the first piece of each row (and one past the last)."""
        begin, length = _pieces(self.offsets, self.seq_len)
        order = np.arange(len(begin)) if self.seed is None else random_order(self.seed, len(begin))
        order = order[np.argsort(-length[order], kind="stable")]
        row = best_fit(length[order][:, None], (self.seq_len,))
        by_row = np.argsort(row, kind="stable")
        first = np.searchsorted(row[by_row], np.arange(int(row.max(initial=-1)) + 2))
        return begin[order][by_row], length[order][by_row], first

    @property
    def num_rows(self) -> int:
        return len(self._plan[2]) - 1

    def cells(self, rows: Int64[np.ndarray, " B"], offsets: Int64[np.ndarray, " B"]) -> Cells:
        """The rows; whole documents have no cuts for `offsets` to move."""
        source, positions, segment_ids = fill(*self._plan, rows, self.seq_len)
        weights = (segment_ids > 0).astype(np.float32)
        return Cells(source, source + weights.astype(np.int64), positions, segment_ids, weights)


def fill(
    begin: Int64[np.ndarray, " pieces"],
    length: Int64[np.ndarray, " pieces"],
    first: Int64[np.ndarray, " ends"],
    rows: Int64[np.ndarray, " B"],
    seq_len: int,
) -> tuple[Int64[np.ndarray, "B T"], Int32[np.ndarray, "B T"], Int32[np.ndarray, "B T"]]:
    """Index of the token, position and segment of each cell: row r holds the pieces `first[r]` to `first[r + 1] - 1`, end
    to end."""
    counts = first[rows + 1] - first[rows]
    piece_row = np.repeat(np.arange(len(rows)), counts)
    piece_number = np.arange(len(piece_row)) - np.repeat(np.cumsum(counts) - counts, counts)
    piece = first[rows][piece_row] + piece_number
    lengths = length[piece]
    cumulative = np.cumsum(lengths) - lengths
    row_begin = cumulative[np.cumsum(counts) - counts]
    in_piece = np.arange(int(lengths.sum())) - np.repeat(cumulative, lengths)
    cell = np.repeat(piece_row, lengths), np.repeat(cumulative - row_begin[piece_row], lengths) + in_piece
    shape = (len(rows), seq_len)
    source, positions, segment_ids = np.zeros(shape, np.int64), np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    source[cell] = np.repeat(begin[piece], lengths) + in_piece
    positions[cell] = in_piece
    segment_ids[cell] = np.repeat(piece_number + 1, lengths)
    return source, positions, segment_ids


def _pieces(offsets: Int64[np.ndarray, " ends"], seq_len: int) -> tuple[np.ndarray, np.ndarray]:
    """Begin and length of the pieces into which documents are cut."""
    places = np.maximum(np.diff(offsets) - 1, 0)
    counts = -(-places // seq_len)
    document = np.repeat(np.arange(len(places)), counts)
    number = np.arange(len(document)) - np.repeat(np.cumsum(counts) - counts, counts)
    begin = offsets[:-1][document] + number * seq_len
    return begin, np.minimum(places[document] - number * seq_len, seq_len)


def best_fit(length: Int64[np.ndarray, "pieces sides"], sides: tuple[int, ...]) -> Int64[np.ndarray, " pieces"]:
    """The row of each piece: the fullest row that has room on every side, else a new one.

    A row has `sides[k]` places on side k, a piece needs `length[piece, k]` of them; largest pieces first, equal ones side by
    side. Equal pieces are placed together, so the work grows with the number of sizes, not of pieces.
    """
    row = np.empty(len(length), np.int64)
    open_rows: dict[tuple[int, ...], np.ndarray] = {}
    num_rows = 0
    firsts = np.flatnonzero(np.concatenate([[True], (np.diff(length, axis=0) != 0).any(axis=1)])[: len(length)])
    ends = np.append(firsts, len(length))[1:]
    for size, first, end in zip(map(tuple, length[firsts].tolist()), firsts.tolist(), ends.tolist(), strict=True):
        done, count = 0, end - first
        fitting = (room for room in open_rows if all(map(int.__ge__, room, size)))
        for room in sorted(fitting, key=lambda room: (sum(room), room)):
            if done == count:
                break
            each = _times(room, size)
            used = min(len(open_rows[room]), -(-(count - done) // each))
            rows, open_rows[room] = open_rows[room][:used], open_rows[room][used:]
            done += _place(row[first + done : end], rows, each, room, size, open_rows)
            if not open_rows[room].size:
                del open_rows[room]
        each = _times(sides, size)
        new = np.arange(num_rows, num_rows + -(-(count - done) // each))
        num_rows += len(new)
        _place(row[first + done : end], new, each, sides, size, open_rows)
    return row


def _times(room: tuple[int, ...], size: tuple[int, ...]) -> int:
    """How often a piece fits into a room."""
    return min(have // need for have, need in zip(room, size, strict=True) if need)


def _place(
    row: np.ndarray,
    rows: np.ndarray,
    each: int,
    room: tuple[int, ...],
    size: tuple[int, ...],
    open_rows: dict[tuple[int, ...], np.ndarray],
) -> int:
    """Put up to `each` pieces of `size` into each of `rows`, which have `room`; returns how many were put."""
    filled = np.repeat(rows, each)[: len(row)]
    row[: len(filled)] = filled
    full, rest = divmod(len(filled), each)
    for group, times in ((rows[:full], each), (rows[full:], rest)):
        left = tuple(have - times * need for have, need in zip(room, size, strict=True))
        if group.size and all(left):
            open_rows[left] = np.concatenate([open_rows.get(left, np.zeros(0, np.int64)), group])
    return len(filled)
