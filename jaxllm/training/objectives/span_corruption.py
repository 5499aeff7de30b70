"""Span corruption: spans of a text are taken out, each leaving a mark of its own, and written down after their marks (T5,
arXiv:1910.10683, section 3.1.4)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int64, UInt64

from jaxllm.data import Batch, Data, Tokenizer
from jaxllm.data.rows import Rows
from jaxllm.models import Model, ModelConfig
from jaxllm.training.cross_entropy import LossConfig
from jaxllm.training.loss import Loss
from jaxllm.training.objectives.encoder_decoder import (
    encoder_decoder_batch,
    encoder_decoder_fields,
    make_encoder_decoder_loss,
    one_text_a_row,
    start_id,
)
from jaxllm.training.objectives.examples import Examples
from jaxllm.training.objectives.marks import end_id, sentinel_ids
from jaxllm.training.objectives.noise import compact, interleaved_spans
from jaxllm.training.objectives.objective import (
    AnyData,
    AnyDataConfig,
    Field,
    Reports,
    check_encoder_decoder,
    check_text,
    text_config,
)


@dataclass(frozen=True, kw_only=True)
class SpanCorruption:
    """Write down the spans that were taken out of a text. `data.seq_len` is what the encoder reads of it: the text that a row
    is made of is longer, and what the decoder writes shorter, by as much as `noise` says."""

    reports: ClassVar[Reports] = Reports(accuracy=True)

    noise: float = 0.15
    """Share of the tokens that is taken out."""
    mean_span: float = 3.0
    """Mean tokens of a span."""

    def __post_init__(self) -> None:
        if not 0 < self.noise < 1:
            raise ValueError(f"objective.noise must be in (0, 1): got {self.noise}")
        if self.mean_span < 1:
            raise ValueError(f"objective.mean_span must be at least 1: got {self.mean_span}")

    def check(self, model: ModelConfig, data: AnyDataConfig, loss: LossConfig) -> None:
        seq_len = check_text("SpanCorruption", data).seq_len
        if seq_len < 8:
            raise ValueError(f"objective SpanCorruption needs data.seq_len of at least 8: got {seq_len}")
        check_encoder_decoder("SpanCorruption", model, seq_len, self.lengths(seq_len)[1], loss)

    def lengths(self, seq_len: int) -> tuple[int, int]:
        """Tokens of text in a row, the most that the encoder can read of in `seq_len` tokens; and tokens that the decoder
        writes of it. Both sides end with an end mark."""
        text = 1
        while self._read(text + 1) <= seq_len:
            text += 1
        noise, spans = self.counts(np.array([text]))
        return text, int(noise[0] + spans[0]) + 1

    def counts(self, length: Int64[np.ndarray, " B"]) -> tuple[Int64[np.ndarray, " B"], Int64[np.ndarray, " B"]]:
        """Tokens taken out of texts of these lengths, and in how many spans."""
        most = np.maximum(length - 1, 0)
        noise = np.minimum(np.maximum(np.round(length * self.noise), 1), most).astype(np.int64)
        spans = np.maximum(np.round(noise / self.mean_span), 1).astype(np.int64)
        return noise, np.minimum(spans, np.minimum(noise, length - noise))

    def _read(self, length: int) -> int:
        noise, spans = self.counts(np.array([length]))
        return int(length - noise[0] + spans[0]) + 1

    def _sentinels(self, tokenizer: Tokenizer, seq_len: int) -> tuple[int, ...]:
        return sentinel_ids(tokenizer, int(self.counts(np.array([self.lengths(seq_len)[0]]))[1][0]))

    def vocab_size(self, tokenizer: Tokenizer, data: AnyDataConfig) -> int:
        return max(tokenizer.vocab_size, 1 + max(self._sentinels(tokenizer, text_config(data).seq_len)))

    def fields(self, data: AnyDataConfig) -> dict[str, Field]:
        seq_len = text_config(data).seq_len
        return encoder_decoder_fields(seq_len, self.lengths(seq_len)[1])

    def tokens(self, data: AnyDataConfig) -> int:
        return text_config(data).seq_len

    def rows(self, data: AnyData, model: ModelConfig, split: str, *, seed: int | None) -> Rows:
        assert isinstance(data, Data)
        seq_len, tokenizer = data.config.seq_len, data.tokenizer
        text, target_len = self.lengths(seq_len)
        marks = self._sentinels(tokenizer, seq_len), end_id(tokenizer), start_id(model)
        return Examples(data.rows_of_length(text, split, seed=seed), CorruptSpans(self, seq_len, target_len, *marks))

    def make_loss(self, model: Model, config: LossConfig) -> Loss:
        return make_encoder_decoder_loss(model, config)


@dataclass(frozen=True)
class CorruptSpans:
    """Rows of text as what is left of them and what was taken out."""

    objective: SpanCorruption
    source_len: int
    target_len: int
    sentinels: tuple[int, ...]
    end: int
    start: int

    def __call__(self, batch: Batch, keys: UInt64[np.ndarray, " B"]) -> Batch:
        text = batch["tokens"]
        length = (batch["segment_ids"] > 0).sum(axis=1)
        noise, spans = self.objective.counts(length)
        number = interleaved_spans(keys, 0, length, noise, spans, text.shape[1])
        there = np.arange(text.shape[1]) < length[:, None]
        begins = (number > 0) & (np.diff(number, axis=1, prepend=0) != 0)
        mark = np.array([0, *self.sentinels], np.int32)[number]
        read, read_len = compact(np.where(begins, mark, text), there & ((number == 0) | begins), self.source_len)
        # Beside each token the mark of its span, kept where the span begins.
        pairs = np.stack([mark, text], axis=2).reshape(len(text), -1)
        kept = np.stack([begins, number > 0], axis=2).reshape(len(text), -1)
        written, written_len = compact(pairs, kept, self.target_len)
        row = np.arange(len(text))
        read[row, read_len], written[row, written_len] = self.end, self.end
        sides = read, *one_text_a_row(read_len + 1, self.source_len), written, *one_text_a_row(written_len + 1, self.target_len)
        return encoder_decoder_batch(*sides, self.start)
