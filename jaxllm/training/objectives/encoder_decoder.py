"""What objectives for an encoder and a decoder share: the arrays of an example, and the loss."""

from typing import Any

import numpy as np
from jax import Array
from jaxtyping import Int32

from jaxllm.data import Batch
from jaxllm.models import EncoderDecoder, EncoderDecoderConfig, Model, ModelConfig, Output, decoder_unembed_parts
from jaxllm.training.cross_entropy import LossConfig, LossSums
from jaxllm.training.loss import Batch as DeviceBatch
from jaxllm.training.loss import Loss, token_loss, with_router_losses
from jaxllm.training.objectives.objective import Field


def encoder_decoder_fields(source_len: int, target_len: int) -> dict[str, Field]:
    """What is read, [S], and what is written, [T]; a decoder's token sees the encoder's tokens of its own segment."""
    read = {name: Field((source_len,)) for name in ("tokens", "positions", "segment_ids")}
    written = ("decoder_tokens", "targets", "decoder_positions", "decoder_segment_ids")
    return read | {name: Field((target_len,)) for name in written} | {"loss_weights": Field((target_len,), np.float32)}


def encoder_decoder_batch(
    tokens: Int32[np.ndarray, "B S"],
    positions: Int32[np.ndarray, "B S"],
    segment_ids: Int32[np.ndarray, "B S"],
    targets: Int32[np.ndarray, "B T"],
    target_positions: Int32[np.ndarray, "B T"],
    target_segment_ids: Int32[np.ndarray, "B T"],
    start: int,
) -> Batch:
    """A batch of which each target text is to be written, the decoder reading `start` before its first token."""
    before = np.pad(targets[:, :-1], ((0, 0), (1, 0)))
    there = target_segment_ids > 0
    return {
        "tokens": tokens,
        "positions": positions,
        "segment_ids": segment_ids,
        "decoder_tokens": np.where(there, np.where(target_positions == 0, np.int32(start), before), 0),
        "targets": targets,
        "decoder_positions": target_positions,
        "decoder_segment_ids": target_segment_ids,
        "loss_weights": there.astype(np.float32),
    }


def one_text_a_row(length: np.ndarray, width: int) -> tuple[Int32[np.ndarray, "B width"], Int32[np.ndarray, "B width"]]:
    """Positions and segments of rows with one text of `length` tokens each."""
    column = np.arange(width, dtype=np.int32)
    there = column < length[:, None]
    return np.where(there, column, 0).astype(np.int32), there.astype(np.int32)


def start_id(model: ModelConfig) -> int:
    """What the decoder reads before the first token that it writes."""
    assert isinstance(model, EncoderDecoderConfig)
    if model.start_id is None:
        raise ValueError(
            "the decoder needs a token to begin with: set model.start_id, for the tokenizer has none that would do"
        )
    return model.start_id


def make_encoder_decoder_loss(model: Model, config: LossConfig) -> Loss:
    assert isinstance(model, EncoderDecoder)

    def loss(params: Any, batch: DeviceBatch, dropout_key: Array | None) -> LossSums:
        output: Output = model.apply(  # type: ignore[assignment]
            {"params": params},
            batch["tokens"],
            batch["decoder_tokens"],
            positions=batch["positions"],
            segment_ids=batch["segment_ids"],
            decoder_positions=batch["decoder_positions"],
            decoder_segment_ids=batch["decoder_segment_ids"],
            dropout_key=dropout_key,
            unembed=False,
        )
        parts = decoder_unembed_parts(model.config, params)
        sums = token_loss(model.config.decoder, config, parts, output.hidden, batch["targets"], batch["loss_weights"])
        if output.encoder is not None:
            sums = with_router_losses(sums, model.config.encoder, output.encoder, batch["segment_ids"])
        return with_router_losses(sums, model.config.decoder, output, batch["decoder_segment_ids"])

    return loss
