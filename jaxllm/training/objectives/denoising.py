"""Denoising: a text is damaged, and written down whole: spans replaced by one mask each, sentences in another order (BART,
arXiv:1910.13461)."""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Int32, UInt64

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
from jaxllm.training.objectives.marks import Entries, end_id, mask_id
from jaxllm.training.objectives.noise import drawn_spans, poisson, uniforms
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
class Denoising:
    """Write down a damaged text as it was. Encoder and decoder both have `data.seq_len` tokens a row."""

    reports: ClassVar[Reports] = Reports(accuracy=True)

    noise: float = 0.3
    """Share of the tokens that masks stand for."""
    mean_span: float = 3.0
    """Mean tokens of a span, of a Poisson distribution; a span of none puts a mask where nothing was."""
    permute_sentences: bool = True
    """Put the sentences of each document into a random order."""

    def __post_init__(self) -> None:
        if not 0 <= self.noise < 1:
            raise ValueError(f"objective.noise must be in [0, 1): got {self.noise}")
        if not 0 < self.mean_span <= 10:
            raise ValueError(f"objective.mean_span must be in (0, 10]: got {self.mean_span}")

    def check(self, model: ModelConfig, data: AnyDataConfig, loss: LossConfig) -> None:
        seq_len = check_text("Denoising", data).seq_len
        if seq_len < 2:
            raise ValueError(f"objective Denoising needs data.seq_len of at least 2: got {seq_len}")
        check_encoder_decoder("Denoising", model, seq_len, seq_len, loss)

    def vocab_size(self, tokenizer: Tokenizer, data: AnyDataConfig) -> int:
        return max(tokenizer.vocab_size, mask_id(tokenizer) + 1)

    def fields(self, data: AnyDataConfig) -> dict[str, Field]:
        seq_len = text_config(data).seq_len
        return encoder_decoder_fields(seq_len, seq_len)

    def tokens(self, data: AnyDataConfig) -> int:
        return text_config(data).seq_len

    def rows(self, data: AnyData, model: ModelConfig, split: str, *, seed: int | None) -> Rows:
        assert isinstance(data, Data)
        tokenizer = data.tokenizer
        marks = mask_id(tokenizer), end_id(tokenizer), start_id(model)
        damage = Damage(self, *marks, Entries(tokenizer).sentence_end)
        return Examples(data.rows_of_length(data.config.seq_len - 1, split, seed=seed), damage)

    def make_loss(self, model: Model, config: LossConfig) -> Loss:
        return make_encoder_decoder_loss(model, config)


@dataclass(frozen=True)
class Damage:
    """Rows of text as they are when damaged, and as they were."""

    objective: Denoising
    mask: int
    end: int
    start: int
    sentence_end: Bool[np.ndarray, " V"] = field(repr=False)

    def __call__(self, batch: Batch, keys: UInt64[np.ndarray, " B"]) -> Batch:
        text, segments = batch["tokens"], batch["segment_ids"]
        row, width = np.arange(len(text)), text.shape[1]
        length = (segments > 0).sum(axis=1)
        read = self._permuted(text, segments, keys) if self.objective.permute_sentences else text
        budget = np.ceil(length * self.objective.noise).astype(np.int64)
        spans = drawn_spans(keys, 1, length, budget, poisson(self.objective.mean_span, 40), width)
        kept = np.take_along_axis(read, np.minimum(spans.start, width - 1), axis=1)
        read = np.where(spans.is_span, np.int32(self.mask), kept)
        read = np.pad(np.where(np.arange(width) < spans.count[:, None], read, 0), ((0, 0), (0, 1)))
        written = np.pad(text, ((0, 0), (0, 1)))
        read[row, spans.count], written[row, length] = self.end, self.end
        sides = read, *one_text_a_row(spans.count + 1, width + 1), written, *one_text_a_row(length + 1, width + 1)
        return encoder_decoder_batch(*sides, self.start)

    def _permuted(
        self, text: Int32[np.ndarray, "B T"], segments: Int32[np.ndarray, "B T"], keys: UInt64[np.ndarray, " B"]
    ) -> Int32[np.ndarray, "B T"]:
        """The sentences of each document in a random order; its end mark stays where it is."""
        marks = text == self.end
        ends = self.sentence_end[text] | marks
        sentence = np.cumsum(np.pad(ends[:, :-1], ((0, 0), (1, 0))), axis=1)
        order = np.take_along_axis(uniforms(keys, 0, text.shape[1]), sentence, axis=1)
        document = np.where(segments > 0, segments, segments.shape[1] + 1)
        return np.take_along_axis(
            text, np.argsort(document + np.where(marks, 0.999999, order * 0.99), axis=1, kind="stable"), axis=1
        )
