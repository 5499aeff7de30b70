"""Random choices for whole batches of rows, each a pure function of one 64-bit key a row.

B rows; W columns, of which a row uses its first `length`. A `stream` keeps independent choices of one row apart.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64, Shaped, UInt64

from jaxllm.data.shuffle import mix

_AFTER_ALL = 2**40


def uniforms(keys: UInt64[np.ndarray, " B"], stream: int, count: int) -> Float64[np.ndarray, "B count"]:
    """Numbers in [0, 1)."""
    counters = np.arange(count, dtype=np.uint64) + np.uint64(stream << 32)
    bits = mix(keys[:, None] ^ mix(counters)[None, :])
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def choose(
    keys: UInt64[np.ndarray, " B"],
    stream: int,
    count: Int64[np.ndarray, " B"],
    length: Int64[np.ndarray, " B"],
    width: int,
) -> Bool[np.ndarray, "B width"]:
    """`count` of the first `length` columns, every choice as likely as any other."""
    numbers = uniforms(keys, stream, width)
    numbers[np.arange(width) >= length[:, None]] = 2.0
    chosen = np.zeros(numbers.shape, bool)
    np.put_along_axis(chosen, np.argsort(numbers, axis=1), np.arange(width) < count[:, None], axis=1)
    return chosen


def interleaved_spans(
    keys: UInt64[np.ndarray, " B"],
    stream: int,
    length: Int64[np.ndarray, " B"],
    noise: Int64[np.ndarray, " B"],
    spans: Int64[np.ndarray, " B"],
    width: int,
) -> Int64[np.ndarray, "B width"]:
    """Number of the noise span that each column is in, from 1; 0 where it is kept.

    `noise` columns in `spans` spans and the others in as many stretches, in turn, the first of them kept; both cut into
    parts of at least one column, every cut as likely as any other (T5, arXiv:1910.10683, section 3.1.4).
    """

    def parts(stream: int, items: Int64[np.ndarray, " B"]) -> Int64[np.ndarray, "B width"]:
        cuts = choose(keys, stream, np.maximum(spans - 1, 0), np.maximum(items - 1, 0), width - 1)
        part = np.cumsum(np.pad(cuts, ((0, 0), (1, 0))), axis=1)
        return np.where(np.arange(width) < items[:, None], part, _AFTER_ALL)

    turns = np.concatenate([2 * parts(stream, length - noise), 2 * parts(stream + 1, noise) + 1], axis=1)
    turns = np.sort(turns, axis=1)[:, :width]
    return np.where((turns % 2 == 1) & (turns < _AFTER_ALL), turns // 2 + 1, 0)


class Spans(NamedTuple):
    """A row's columns in order, with spans standing for the columns that they cover: kept columns and spans are items."""

    is_span: Bool[np.ndarray, "B items"]
    start: Int64[np.ndarray, "B items"]
    """First column of an item."""
    length: Int64[np.ndarray, "B items"]
    """Columns of an item: 1 for a kept column, 0 or more for a span; 0 after the last item."""
    count: Int64[np.ndarray, " B"]
    """Items of a row."""


def drawn_spans(
    keys: UInt64[np.ndarray, " B"],
    stream: int,
    length: Int64[np.ndarray, " B"],
    budget: Int64[np.ndarray, " B"],
    probabilities: Float64[np.ndarray, " lengths"],
    width: int,
) -> Spans:
    """Spans that cover `budget` columns, placed anywhere without overlap.

    Args:
      probabilities: of a span of 0, 1, 2, ... columns; the last span is cut where the budget ends.
    """
    mean = float(probabilities @ np.arange(len(probabilities)))
    draws = math.ceil(2 * width / max(mean, 1.0)) + 16
    lengths = np.searchsorted(np.cumsum(probabilities)[:-1], uniforms(keys, stream, draws), side="right")
    before = np.cumsum(lengths, axis=1) - lengths
    lengths = np.minimum(lengths, np.maximum(budget[:, None] - before, 0))
    used = before < budget[:, None]
    # With as many empty spans as a small budget may draw, a row would grow: there are no more spans than covered columns.
    empty = used & (lengths == 0)
    spare = lengths.sum(axis=1) - (lengths > 0).sum(axis=1)
    used &= ~empty | (np.cumsum(empty, axis=1) <= spare[:, None])
    lengths, number = np.where(used, lengths, 0), used.sum(axis=1)
    count = length - lengths.sum(axis=1) + number
    is_span = choose(keys, stream + 1, number, count, width)
    # The used lengths first, in their order; then item by item.
    lengths = np.take_along_axis(lengths, np.argsort(~used, axis=1, kind="stable"), axis=1)
    which = np.minimum(np.maximum(np.cumsum(is_span, axis=1) - 1, 0), draws - 1)
    item = np.where(is_span, np.take_along_axis(lengths, which, axis=1), 1)
    item = np.where(np.arange(width) < count[:, None], item, 0)
    return Spans(is_span, np.cumsum(item, axis=1) - item, item, count)


def covered(spans: Spans) -> Int64[np.ndarray, "B items"]:
    """Number of the span that covers each column, from 1; 0 where none does."""
    B, width = spans.is_span.shape
    number = np.where(spans.is_span, np.cumsum(spans.is_span, axis=1), 0)
    starts = np.zeros((B, width + 1), np.int64)
    rows = np.broadcast_to(np.arange(B)[:, None], number.shape)
    held = spans.is_span & (spans.length > 0)
    starts[rows[held], spans.start[held]] += number[held]
    ends = (spans.start + spans.length)[held]
    np.subtract.at(starts, (rows[held], ends), number[held])
    return np.cumsum(starts, axis=1)[:, :width]


def compact(
    values: Shaped[np.ndarray, "B W"], keep: Bool[np.ndarray, "B W"], width: int
) -> tuple[Int32[np.ndarray, "B width"], Int64[np.ndarray, " B"]]:
    """The kept values of each row moved to its left end, 0 after them; and how many there are."""
    place = np.cumsum(keep, axis=1) - 1
    out = np.zeros((len(values), width), np.int32)
    rows = np.broadcast_to(np.arange(len(values))[:, None], keep.shape)
    out[rows[keep], place[keep]] = values[keep]
    return out, keep.sum(axis=1)


def poisson(mean: float, most: int) -> Float64[np.ndarray, " lengths"]:
    """Probabilities of 0 to `most`, the last with all that is above."""
    values = [math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(most)]
    return np.array([*values, 1.0 - sum(values)])


def geometric(p: float, most: int) -> Float64[np.ndarray, " lengths"]:
    """Probabilities of 0 to `most` of a geometric distribution from 1 on, cut at `most` (SpanBERT, arXiv:1907.10529)."""
    values = np.array([0.0, *(p * (1 - p) ** (k - 1) for k in range(1, most + 1))])
    return values / values.sum()
