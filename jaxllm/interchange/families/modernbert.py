"""ModernBERT: rotary positions, gated feed-forward, and windows in most layers (arXiv:2412.13663)."""

from typing import Any

from jaxllm.interchange.config_reader import ConfigReader
from jaxllm.interchange.family import Family
from jaxllm.interchange.fields import read_activation, read_rope_group, write_activation, write_rope
from jaxllm.interchange.keymap import Tensor
from jaxllm.interchange.rows import from_heads, linear, norm
from jaxllm.models import HeadConfig, TransformerConfig

_FULL, _LOCAL = "full_attention", "sliding_attention"


def read_config(reader: ConfigReader) -> TransformerConfig:
    reader.ignore(
        "attention_dropout", "embedding_dropout", "classifier_dropout", "classifier_pooling", "deterministic_flash_attn",
        "initializer_cutoff_factor", "reference_compile", "repad_logits_with_grad", "sparse_prediction",
        "sparse_pred_ignore_index", "position_embedding_type", "layer_norm_eps",
    )  # fmt: skip
    embed_dim, num_heads = reader.read("hidden_size"), reader.read("num_attention_heads")
    norm_bias, attention_bias = reader.read("norm_bias", False), reader.read("attention_bias", False)
    head = HeadConfig(
        bias=reader.read("decoder_bias", True),
        transform=True,
        transform_activation=read_activation(reader, "classifier_activation", "gelu"),
        transform_bias=reader.read("classifier_bias", False),
    )
    return TransformerConfig(
        vocab_size=reader.read("vocab_size"),
        context_len=reader.read("max_position_embeddings"),
        num_layers=reader.read("num_hidden_layers"),
        embed_dim=embed_dim,
        num_heads=num_heads,
        ffw_dim=reader.read("intermediate_size"),
        causal=False,
        activation=read_activation(reader, "hidden_activation", "gelu", gated=True),
        norm_bias=norm_bias,
        norm_epsilon=reader.read("norm_eps", 1e-5),
        first_attention_norm=False,
        embed_norm=True,
        position="rotary",
        bias=reader.read("mlp_bias", False),
        qkv_bias=attention_bias,
        attention_output_bias=attention_bias,
        dropout=float(reader.read("mlp_dropout", 0.0)),
        tie_embeddings=reader.read("tie_word_embeddings", True),
        head=head,
        **_read_layers(reader),
        **_read_rope(reader, embed_dim // num_heads),
    )


def _read_layers(reader: ConfigReader) -> dict[str, Any]:
    """Which layers see everything: every third, unless the file says it otherwise."""
    every, layers = reader.read("global_attn_every_n_layers", 3), reader.read("num_hidden_layers")
    # The published width is that of both sides together; ours is the first distance that is not seen.
    window = reader.read("local_attention", 128) // 2 + 1
    kinds = reader.read("layer_types", None) or [_LOCAL if layer % every else _FULL for layer in range(layers)]
    if len(kinds) != layers or set(kinds) - {_FULL, _LOCAL}:
        raise ValueError(f"layer_types in {reader.source} must be {layers} of {_FULL!r} or {_LOCAL!r}: got {kinds!r}")
    if _LOCAL not in kinds:
        return {}
    return {"window": window, "full_attention_layers": tuple(layer for layer, kind in enumerate(kinds) if kind == _FULL)}


def _read_rope(reader: ConfigReader, head_dim: int) -> dict[str, Any]:
    """The two bases, from `rope_parameters` or, in older files, from `global_rope_theta` and `local_rope_theta`."""
    reader.must_be("rope_scaling", None)
    theta, local_theta = float(reader.read("global_rope_theta", 160_000.0)), reader.read("local_rope_theta", None)
    found: dict[str, Any] = {"rope_theta": theta, "local_rope_theta": 10_000.0 if local_theta is None else float(local_theta)}
    groups = reader.group("rope_parameters")
    if groups is not None and (full := groups.group(_FULL)) is not None:
        found |= read_rope_group(reader, full, head_dim, theta=theta)
    if groups is not None and (local := groups.group(_LOCAL)) is not None:
        local.must_be("rope_type", "default")
        found["local_rope_theta"] = float(local.read("rope_theta", found["local_rope_theta"]))
    return found


def write_config(config: TransformerConfig) -> dict[str, Any]:
    head, full = config.head, config.full_attention_layers
    kinds = [_FULL if config.window is None or layer in full else _LOCAL for layer in range(config.num_layers)]
    rope = write_rope(config)["rope_parameters"]
    local_rope = rope if config.local_rope_theta is None else {"rope_type": "default", "rope_theta": config.local_rope_theta}
    return {
        "architectures": ["ModernBertForMaskedLM"],
        "model_type": "modernbert",
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context_len,
        "num_hidden_layers": config.num_layers,
        "hidden_size": config.embed_dim,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.ffw_width,
        "hidden_activation": write_activation(config.activation),
        "norm_bias": config.norm_bias,
        "norm_eps": config.norm_epsilon,
        "attention_bias": config.bias if config.qkv_bias is None else config.qkv_bias,
        "mlp_bias": config.bias,
        "mlp_dropout": config.dropout,
        "embedding_dropout": config.dropout,
        "attention_dropout": config.dropout,
        "layer_types": kinds,
        "local_attention": 128 if config.window is None else 2 * (config.window - 1),
        "rope_parameters": {_FULL: rope, _LOCAL: local_rope},
        "classifier_activation": write_activation(head.transform_activation),
        "classifier_bias": head.transform_bias,
        "decoder_bias": head.bias,
        "tie_word_embeddings": config.tie_embeddings,
    }


def tensors(config: TransformerConfig) -> list[Tensor]:
    block, layer, norm_bias = "model.layers.{layer}", "layers", config.norm_bias
    attention_bias = config.bias if config.qkv_bias is None else config.qkv_bias
    qkv = [f"{layer}/attention/{part}" for part in ("query", "key", "value")]
    halves = [f"{layer}/ffw/{part}" for part in ("gate", "up")]
    rows = [
        Tensor("model.embeddings.tok_embeddings.weight", "embed/table", "V D -> V D"),
        *norm("model.embeddings.norm", "embed_norm", use_bias=norm_bias),
        *norm(f"{block}.attn_norm", f"{layer}/attention_norm", use_bias=norm_bias, absent=(0,)),
        Tensor(f"{block}.attn.Wqkv.weight", tuple(f"{part}/kernel" for part in qkv), "(P N H) D -> P D N H"),
        *from_heads(f"{block}.attn.Wo", f"{layer}/attention/output", use_bias=attention_bias),
        *norm(f"{block}.mlp_norm", f"{layer}/ffw_norm", use_bias=norm_bias),
        Tensor(f"{block}.mlp.Wi.weight", tuple(f"{part}/kernel" for part in halves), "(P F) D -> P D F"),
        *linear(f"{block}.mlp.Wo", f"{layer}/ffw/down", use_bias=config.bias),
        *norm("model.final_norm", "final_norm", use_bias=norm_bias),
        *linear("head.dense", "unembed/transform", use_bias=config.head.transform_bias),
        *norm("head.norm", "unembed/norm", use_bias=norm_bias),
    ]
    if attention_bias:
        rows.append(Tensor(f"{block}.attn.Wqkv.bias", tuple(f"{part}/bias" for part in qkv), "(P N H) -> P N H"))
    if config.bias:
        rows.append(Tensor(f"{block}.mlp.Wi.bias", tuple(f"{part}/bias" for part in halves), "(P F) -> P F"))
    if config.head.bias:
        rows.append(Tensor("decoder.bias", "unembed/bias", "V -> V"))
    if not config.tie_embeddings:
        rows.append(Tensor("decoder.weight", "unembed/kernel", "V D -> D V"))
    return rows


FAMILIES = (
    Family(
        architectures=("ModernBertForMaskedLM",),
        read_config=read_config,
        write_config=write_config,
        tensors=tensors,
        ignored=("*rotary_emb.*",),
        tied={"decoder.weight": "model.embeddings.tok_embeddings.weight"},
        prefix="model.",
    ),
)
