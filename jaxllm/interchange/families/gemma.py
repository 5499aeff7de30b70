"""Gemma 2 and the text side of Gemma 3: norms around each sublayer with scales less 1, scaled embeddings, layers with and
without a window in turn."""

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
from jaxllm.interchange.fields import read_activation, read_rope, read_rope_group, write_activation, write_rope
from jaxllm.interchange.keymap import Tensor
from jaxllm.models import TransformerConfig

_WINDOW = 4096
_FULL, _LOCAL = "full_attention", "sliding_attention"


def read_gemma2(reader: ConfigReader) -> TransformerConfig:
    reader.must_be("sliding_window_size", reader.read("sliding_window", _WINDOW))
    return _read(
        reader,
        full_layers=slice(1, None, 2),
        rope=read_rope(reader, reader.read("head_dim", 256)),
        attention_softcap=_read_cap(reader, "attn_logit_softcapping", 50.0),
        logit_softcap=_read_cap(reader, "final_logit_softcapping", 30.0),
    )


def read_gemma3(reader: ConfigReader) -> TransformerConfig:
    reader.must_be("attn_logit_softcapping", None)
    pattern = reader.read("sliding_window_pattern", reader.read("_sliding_window_pattern", 6))
    return _read(
        reader,
        full_layers=slice(pattern - 1, None, pattern),
        rope=_read_two_ropes(reader, reader.read("head_dim", 256)),
        qk_norm="head",
        logit_softcap=_read_cap(reader, "final_logit_softcapping", None),
    )


def _read_cap(reader: ConfigReader, name: str, default: float | None) -> float | None:
    cap = reader.read(name, default)
    return None if cap is None else float(cap)


def _read(reader: ConfigReader, *, full_layers: slice, rope: dict[str, Any], **more: Any) -> TransformerConfig:
    """Args:
    full_layers: the layers without a window, where the file does not list them.
    """
    embed_dim, head_dim, num_layers = reader.read("hidden_size"), reader.read("head_dim", 256), reader.read("num_hidden_layers")
    reader.must_be("use_bidirectional_attention", False, None)
    reader.ignore("hidden_act", "cache_implementation")
    kinds = [_LOCAL] * num_layers
    kinds[full_layers] = [_FULL] * len(kinds[full_layers])
    kinds = reader.read("layer_types", None) or kinds
    full = tuple(layer for layer, kind in enumerate(kinds) if kind == _FULL)
    if len(kinds) != num_layers or set(kinds) - {_FULL, _LOCAL}:
        raise ValueError(
            f"layer_types in {reader.source} must be {_FULL} or {_LOCAL} for each of {num_layers} layers: got {kinds}"
        )
    window, scale = reader.read("sliding_window", _WINDOW), reader.read("query_pre_attn_scalar", 256)
    return read_shared(
        reader,
        rope=rope,
        head_dim=head_dim,
        num_kv_heads=reader.read("num_key_value_heads", 4),
        activation=read_activation(reader, "hidden_activation", "gelu_pytorch_tanh", gated=True),
        norm_unit_offset=True,
        norm_placement="sandwich",
        embed_scale=embed_dim**0.5,
        attention_scale=None if scale == head_dim else scale**-0.5,
        window=None if len(full) == num_layers else window,
        full_attention_layers=() if len(full) == num_layers else full,
        tie_embeddings=reader.read("tie_word_embeddings", True),
        **read_attention_bias(reader),
        **more,
    )


def _read_two_ropes(reader: ConfigReader, head_dim: int) -> dict[str, Any]:
    """Rotary positions of layers without and with a window: of the two groups in `rope_parameters` or, in older files, of
    `rope_theta` with `rope_scaling`, and of `rope_local_base_freq`."""
    theta = float(reader.read("rope_theta", 1_000_000.0))
    local_theta = float(reader.read("rope_local_base_freq", 10_000.0))
    both, scaling = reader.group("rope_parameters"), reader.group("rope_scaling")
    if both is None:
        full = ConfigReader({}, reader.source) if scaling is None else scaling
        return read_rope_group(reader, full, head_dim, theta=theta) | {"local_rope_theta": local_theta}
    if scaling is not None:
        raise ValueError(f"{reader.source} must have rope_parameters or rope_scaling: it has both; take the older one out")
    groups = {name: both.group(name) or ConfigReader({}, reader.source) for name in (_FULL, _LOCAL)}
    local = read_rope_group(reader, groups[_LOCAL], head_dim, theta=local_theta)
    if local["rope_scaling"] is not None:
        raise ValueError(f"rope_type of {_LOCAL} in {both.source} must be 'default': got {local['rope_scaling'].kind!r}")
    return read_rope_group(reader, groups[_FULL], head_dim, theta=theta) | {"local_rope_theta": local["rope_theta"]}


def _write(config: TransformerConfig, architecture: str, model_type: str, **more: Any) -> dict[str, Any]:
    full = range(config.num_layers) if config.window is None else config.full_attention_layers
    scale = config.head_width if config.attention_scale is None else round(config.attention_scale**-2)
    return write_shared(
        config,
        architecture,
        model_type,
        hidden_activation=write_activation(config.activation),
        query_pre_attn_scalar=scale,
        sliding_window=config.window or _WINDOW,
        layer_types=[_FULL if layer in full else _LOCAL for layer in range(config.num_layers)],
        attention_bias=has_qkv_bias(config),
        final_logit_softcapping=config.logit_softcap,
        **more,
    )


def write_gemma2(config: TransformerConfig) -> dict[str, Any]:
    return _write(config, "Gemma2ForCausalLM", "gemma2", attn_logit_softcapping=config.attention_softcap)


def write_gemma3(config: TransformerConfig) -> dict[str, Any]:
    full = write_rope(config)["rope_parameters"]
    local = {"rope_type": "default", "rope_theta": config.local_rope_theta} if config.local_rope_theta else full
    return _write(config, "Gemma3ForCausalLM", "gemma3_text", rope_parameters={_FULL: full, _LOCAL: local})


def tensors(config: TransformerConfig) -> list[Tensor]:
    norms = {
        "model.norm": "final_norm",
        f"{BLOCK}.input_layernorm": "layers/attention_norm",
        f"{BLOCK}.post_attention_layernorm": "layers/attention_post_norm",
        f"{BLOCK}.pre_feedforward_layernorm": "layers/ffw_norm",
        f"{BLOCK}.post_feedforward_layernorm": "layers/ffw_post_norm",
    }
    return [*table_rows(config), *scale_rows(norms), *attention_rows(config), *ffw_rows(config)]


FAMILIES = (
    llama_like("Gemma2ForCausalLM", read_gemma2, write_gemma2, tensors),
    llama_like("Gemma3ForCausalLM", read_gemma3, write_gemma3, tensors),
)
