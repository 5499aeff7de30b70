"""Mixtral, and Qwen3 with experts: Llama's blocks with a mixture of experts in each."""

from typing import Any

from jaxllm.interchange.config_reader import ConfigReader
from jaxllm.interchange.families.llama import (
    BLOCK,
    NORMS,
    attention_rows,
    has_qkv_bias,
    llama_like,
    read_attention_bias,
    read_shared,
    scale_rows,
    table_rows,
    write_shared,
)
from jaxllm.interchange.fields import read_rope
from jaxllm.interchange.keymap import Tensor
from jaxllm.models import ExpertsConfig, TransformerConfig


def read_mixtral(reader: ConfigReader) -> TransformerConfig:
    head_dim = reader.read("head_dim", None) or reader.read("hidden_size") // reader.read("num_attention_heads")
    reader.must_be("router_jitter_noise", 0.0)
    return read_shared(
        reader,
        rope=read_rope(reader, head_dim, theta=1_000_000.0),
        norm_epsilon=reader.read("rms_norm_eps", 1e-5),
        bias=False,
        num_kv_heads=reader.read("num_key_value_heads", 8),
        window=reader.read("sliding_window", None),
        experts=_read_experts(reader, reader.read("num_local_experts", 8), chosen=2, normalize=True),
    )


def read_qwen3_moe(reader: ConfigReader) -> TransformerConfig:
    reader.must_be("decoder_sparse_step", 1)
    reader.must_be("mlp_only_layers", [], None)
    reader.ignore("max_window_layers", "num_experts")
    count = reader.read("num_local_experts") if reader.has("num_local_experts") else reader.read("num_experts", 128)
    window = reader.read("sliding_window", 4096)
    return read_shared(
        reader,
        ffw_dim=reader.read("moe_intermediate_size", 768),
        num_kv_heads=reader.read("num_key_value_heads", 4),
        qk_norm="head",
        window=window if reader.read("use_sliding_window", False) else None,
        experts=_read_experts(reader, count, chosen=8, normalize=reader.read("norm_topk_prob", False)),
        **read_attention_bias(reader),
    )


def _read_experts(reader: ConfigReader, count: int, *, chosen: int, normalize: bool) -> ExpertsConfig:
    reader.ignore("output_router_logits")
    return ExpertsConfig(
        num_experts=count,
        top_k=reader.read("num_experts_per_tok", chosen),
        normalize=normalize,
        load_balance=float(reader.read("router_aux_loss_coef", 0.001)),
    )


def write_mixtral(config: TransformerConfig) -> dict[str, Any]:
    experts = _experts(config)
    return write_shared(
        config,
        "MixtralForCausalLM",
        "mixtral",
        sliding_window=config.window,
        num_local_experts=experts.num_experts,
        num_experts_per_tok=experts.top_k,
        router_aux_loss_coef=experts.load_balance,
    )


def write_qwen3_moe(config: TransformerConfig) -> dict[str, Any]:
    experts = _experts(config)
    return write_shared(
        config,
        "Qwen3MoeForCausalLM",
        "qwen3_moe",
        attention_bias=has_qkv_bias(config),
        use_sliding_window=config.window is not None,
        sliding_window=config.window,
        moe_intermediate_size=config.ffw_width,
        num_experts=experts.num_experts,
        num_experts_per_tok=experts.top_k,
        norm_topk_prob=experts.normalize,
        router_aux_loss_coef=experts.load_balance,
        decoder_sparse_step=1,
        mlp_only_layers=[],
    )


def _experts(config: TransformerConfig) -> ExpertsConfig:
    if config.experts is None:
        raise ValueError("this architecture needs a config with experts: got none; export as another architecture")
    return config.experts


def _tensors(config: TransformerConfig, mixture: str, names: dict[str, str]) -> list[Tensor]:
    rows = [
        *table_rows(config),
        *scale_rows(NORMS),
        *attention_rows(config),
        Tensor(f"{BLOCK}.{mixture}.gate.weight", "layers/experts/router/kernel", "E D -> D E"),
    ]
    for published, ours in names.items():
        pattern = "D F -> F D" if ours == "down" else "F D -> D F"
        rows.append(Tensor(f"{BLOCK}.{mixture}.experts.{{expert}}.{published}.weight", f"layers/experts/{ours}", pattern))
    return rows


def mixtral_tensors(config: TransformerConfig) -> list[Tensor]:
    return _tensors(config, "block_sparse_moe", {"w1": "gate", "w3": "up", "w2": "down"})


def qwen3_moe_tensors(config: TransformerConfig) -> list[Tensor]:
    return _tensors(config, "mlp", {"gate_proj": "gate", "up_proj": "up", "down_proj": "down"})


FAMILIES = (
    llama_like("MixtralForCausalLM", read_mixtral, write_mixtral, mixtral_tensors),
    llama_like("Qwen3MoeForCausalLM", read_qwen3_moe, write_qwen3_moe, qwen3_moe_tensors),
)
