"""OLMo, with norms that have no parameters, and OLMo 2, with norms after each sublayer only."""

from typing import Any

from jaxllm.interchange.config_reader import ConfigReader
from jaxllm.interchange.families.llama import (
    BLOCK,
    attention_rows,
    ffw_rows,
    has_qkv_bias,
    llama_like,
    read_attention_bias,
    read_shared,
    scale_rows,
    table_rows,
    write_shared,
)
from jaxllm.interchange.keymap import Tensor
from jaxllm.models import TransformerConfig


def read_olmo(reader: ConfigReader) -> TransformerConfig:
    clip = reader.read("clip_qkv", None)
    return read_shared(
        reader,
        norm="layer_norm",
        norm_scale=False,
        norm_bias=False,
        norm_epsilon=1e-5,
        qkv_clip=None if clip is None else float(clip),
        **read_attention_bias(reader),
    )


def read_olmo2(reader: ConfigReader) -> TransformerConfig:
    return read_shared(
        reader,
        norm_epsilon=reader.read("rms_norm_eps", 1e-5),
        norm_placement="output",
        qk_norm="width",
        **read_attention_bias(reader),
    )


def write_olmo(config: TransformerConfig) -> dict[str, Any]:
    fields = write_shared(config, "OlmoForCausalLM", "olmo", attention_bias=has_qkv_bias(config), clip_qkv=config.qkv_clip)
    return {name: value for name, value in fields.items() if name != "rms_norm_eps"}


def write_olmo2(config: TransformerConfig) -> dict[str, Any]:
    return write_shared(config, "Olmo2ForCausalLM", "olmo2", attention_bias=has_qkv_bias(config))


def olmo_tensors(config: TransformerConfig) -> list[Tensor]:
    return [*table_rows(config), *attention_rows(config), *ffw_rows(config)]


def olmo2_tensors(config: TransformerConfig) -> list[Tensor]:
    norms = {
        "model.norm": "final_norm",
        f"{BLOCK}.post_attention_layernorm": "layers/attention_post_norm",
        f"{BLOCK}.post_feedforward_layernorm": "layers/ffw_post_norm",
    }
    return [*table_rows(config), *scale_rows(norms), *attention_rows(config), *ffw_rows(config)]


FAMILIES = (
    llama_like("OlmoForCausalLM", read_olmo, write_olmo, olmo_tensors),
    llama_like("Olmo2ForCausalLM", read_olmo2, write_olmo2, olmo2_tensors),
)
