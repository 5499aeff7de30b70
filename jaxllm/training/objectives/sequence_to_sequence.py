"""Sequence to sequence: write the second text of a pair, reading the first (arXiv:1706.03762)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import UInt64

from jaxllm.data import Batch, Data, Tokenizer
from jaxllm.data.rows import Rows
from jaxllm.models import Model, ModelConfig
from jaxllm.training.cross_entropy import LossConfig
from jaxllm.training.loss import Loss
from jaxllm.training.objectives.encoder_decoder import (
    encoder_decoder_batch,
    encoder_decoder_fields,
    make_encoder_decoder_loss,
    start_id,
)
from jaxllm.training.objectives.examples import Examples
from jaxllm.training.objectives.marks import end_id, first_id
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
class SequenceToSequence:
    """Write the text of `data.target_feature`, reading that of `data.text_feature`: several pairs in a row of `data.seq_len`
    tokens to read and `target_len` to write."""

    reports: ClassVar[Reports] = Reports(accuracy=True)

    target_len: int | None = None
    """Tokens that the decoder writes in a row. By default data.seq_len."""

    def __post_init__(self) -> None:
        if self.target_len is not None and self.target_len < 1:
            raise ValueError(f"objective.target_len must be at least 1: got {self.target_len}")

    def check(self, model: ModelConfig, data: AnyDataConfig, loss: LossConfig) -> None:
        config = check_text("SequenceToSequence", data)
        if config.target_feature is None:
            raise ValueError("objective SequenceToSequence needs data.target_feature, the second text of each pair: got none")
        check_encoder_decoder("SequenceToSequence", model, *self._lengths(config), loss)

    def _lengths(self, data: AnyDataConfig) -> tuple[int, int]:
        seq_len = text_config(data).seq_len
        return seq_len, self.target_len or seq_len

    def vocab_size(self, tokenizer: Tokenizer, data: AnyDataConfig) -> int:
        return tokenizer.vocab_size

    def fields(self, data: AnyDataConfig) -> dict[str, Field]:
        return encoder_decoder_fields(*self._lengths(data))

    def tokens(self, data: AnyDataConfig) -> int:
        return self._lengths(data)[1]

    def rows(self, data: AnyData, model: ModelConfig, split: str, *, seed: int | None) -> Rows:
        assert isinstance(data, Data)
        end_id(data.tokenizer)  # each text of the pairs ends with it
        pairs = data.pairs(*self._lengths(data.config), split, first=first_id(data.tokenizer), seed=seed)
        return Examples(pairs, Shifted(start_id(model)))

    def make_loss(self, model: Model, config: LossConfig) -> Loss:
        return make_encoder_decoder_loss(model, config)


@dataclass(frozen=True)
class Shifted:
    """Rows of pairs with what the decoder reads: its targets, one later, after `start`."""

    start: int

    def __call__(self, batch: Batch, keys: UInt64[np.ndarray, " B"]) -> Batch:
        return encoder_decoder_batch(
            batch["tokens"],
            batch["positions"],
            batch["segment_ids"],
            batch["target_tokens"],
            batch["target_positions"],
            batch["target_segment_ids"],
            self.start,
        )
