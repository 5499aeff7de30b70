"""Marian: translation models with sinusoidal positions, all sines and then all cosines, which are no parameters."""

from typing import Any

from jaxllm.interchange.config_reader import ConfigReader
from jaxllm.interchange.families.bart import OUTPUT_BIAS, read_stacks, stack_rows, tied, write_stacks
from jaxllm.interchange.family import Family
from jaxllm.interchange.keymap import Tensor
from jaxllm.models import EncoderDecoderConfig


def read_config(reader: ConfigReader) -> EncoderDecoderConfig:
    reader.must_be("normalize_embedding", False)
    reader.must_be("static_position_embeddings", True)
    reader.ignore("extra_pos_embeddings")
    shared = reader.read("share_encoder_decoder_embeddings", True)
    tied = reader.must_be("tie_word_embeddings", True) if shared else reader.read("tie_word_embeddings", True)
    vocab_size = reader.read("vocab_size")
    if shared:
        reader.must_be("decoder_vocab_size", vocab_size, None)
    return read_stacks(
        reader,
        start_id=reader.read("pad_token_id", None),
        share_embeddings=shared,
        tie_embeddings=tied,
        position="sinusoidal",
        sinusoids="concatenated",
    )


def write_config(config: EncoderDecoderConfig) -> dict[str, Any]:
    return write_stacks(
        config,
        "MarianMTModel",
        "marian",
        share_encoder_decoder_embeddings=config.share_embeddings,
        decoder_vocab_size=config.vocabulary,
    )


def tensors(config: EncoderDecoderConfig) -> list[Tensor]:
    tables = {"model.shared": "encoder"}
    if not config.share_embeddings:
        tables = {"model.encoder.embed_tokens": "encoder", "model.decoder.embed_tokens": "decoder"}
    rows = [Tensor(f"{name}.weight", f"{stack}/embed/table", "V D -> V D") for name, stack in tables.items()]
    if not config.decoder.tie_embeddings:
        rows.append(Tensor("lm_head.weight", "decoder/unembed/kernel", "V D -> D V"))
    return [*rows, *stack_rows("model."), OUTPUT_BIAS]


FAMILIES = (
    Family(
        architectures=("MarianMTModel",),
        read_config=read_config,
        write_config=write_config,
        tensors=tensors,
        ignored=("model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight"),
        tied=tied("model."),
        prefix="model.",
    ),
)
