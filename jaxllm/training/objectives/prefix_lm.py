"""Prefix language modeling: the beginning of a text is seen whole, the rest is predicted (arXiv:1910.10683, section 3.2.3)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import UInt64

from jaxllm.data import Batch, Data, Tokenizer
from jaxllm.data.rows import Rows
from jaxllm.models import Model, ModelConfig, Transformer
from jaxllm.training.cross_entropy import LossConfig
from jaxllm.training.loss import Loss, make_loss
from jaxllm.training.objectives.examples import Examples
from jaxllm.training.objectives.noise import uniforms
from jaxllm.training.objectives.objective import AnyData, AnyDataConfig, Field, Reports, check_stack, text_config, text_fields


@dataclass(frozen=True, kw_only=True)
class PrefixLM:
    """Predict what follows a prefix whose tokens all see each other; its length is drawn anew for each document of a row,
    every length from one token to all but one as likely."""

    reports: ClassVar[Reports] = Reports()

    def check(self, model: ModelConfig, data: AnyDataConfig, loss: LossConfig) -> None:
        check_stack("PrefixLM", model, data, loss, causal=True)

    def vocab_size(self, tokenizer: Tokenizer, data: AnyDataConfig) -> int:
        return tokenizer.vocab_size

    def fields(self, data: AnyDataConfig) -> dict[str, Field]:
        return text_fields(data, "prefix")

    def tokens(self, data: AnyDataConfig) -> int:
        return text_config(data).seq_len

    def rows(self, data: AnyData, model: ModelConfig, split: str, *, seed: int | None) -> Rows:
        assert isinstance(data, Data)
        return Examples(data.rows(split, seed=seed), with_prefix)

    def make_loss(self, model: Model, config: LossConfig) -> Loss:
        assert isinstance(model, Transformer)
        return make_loss(model, config)


def with_prefix(batch: Batch, keys: UInt64[np.ndarray, " B"]) -> Batch:
    """The batch with `prefix`, 1 for tokens of a prefix, and no weight on targets that the prefix shows."""
    segments = batch["segment_ids"]
    row = np.broadcast_to(np.arange(len(segments))[:, None], segments.shape)
    length = np.zeros((len(segments), segments.max(initial=0) + 1), np.int64)
    np.add.at(length, (row, segments), 1)
    drawn = 1 + np.floor(uniforms(keys, 0, length.shape[1]) * np.maximum(length - 1, 1)).astype(np.int64)
    column = np.arange(segments.shape[1])
    begins = np.pad(segments[:, 1:] != segments[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    in_document = column - np.maximum.accumulate(np.where(begins, column, 0), axis=1)
    left = drawn[row, segments] - in_document
    prefix = (left > 0) & (segments > 0)
    return batch | {
        "prefix": prefix.astype(np.int32),
        "loss_weights": np.where(prefix & (left > 1), np.float32(0), batch["loss_weights"]),
    }
