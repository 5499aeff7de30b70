"""RoBERTa: BERT with positions that begin behind the padding token's id and count tokens only."""

from typing import Any

from jaxllm.interchange.config_reader import ConfigReader
from jaxllm.interchange.families.bert import encoder_tensors, read_encoder, write_encoder
from jaxllm.interchange.family import Family
from jaxllm.interchange.keymap import Tensor
from jaxllm.interchange.rows import linear, norm
from jaxllm.models import HeadConfig, TransformerConfig


def read_config(reader: ConfigReader) -> TransformerConfig:
    head = HeadConfig(bias=True, transform=True)  # its activation is GELU, whatever hidden_act is
    return read_encoder(reader, head, position_offset=reader.read("pad_token_id", 1) + 1, position_skips_padding=True)


def write_config(config: TransformerConfig) -> dict[str, Any]:
    return write_encoder(config, "RobertaForMaskedLM", "roberta", pad_token_id=config.position_offset - 1)


def tensors(config: TransformerConfig) -> list[Tensor]:
    rows = [
        *encoder_tensors("roberta."),
        *linear("lm_head.dense", "unembed/transform"),
        *norm("lm_head.layer_norm", "unembed/norm"),
        Tensor("lm_head.bias" if config.tie_embeddings else "lm_head.decoder.bias", "unembed/bias", "V -> V"),
    ]
    return rows if config.tie_embeddings else [*rows, Tensor("lm_head.decoder.weight", "unembed/kernel", "V D -> D V")]


FAMILIES = (
    Family(
        architectures=("RobertaForMaskedLM",),
        read_config=read_config,
        write_config=write_config,
        tensors=tensors,
        ignored=("*embeddings.position_ids", "*pooler.*", "lm_head.bias"),
        tied={
            "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
            "lm_head.decoder.bias": "lm_head.bias",
        },
        prefix="roberta.",
        renamed=((".gamma", ".weight"), (".beta", ".bias")),
    ),
)
