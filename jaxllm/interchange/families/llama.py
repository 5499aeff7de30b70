"""Llama, and Mistral, Qwen2 and Qwen3, which differ from it in biases, windows and norms of queries and keys.

Fields and rows that more families have are public here.
"""

from collections.abc import Callable, Mapping
from typing import Any

from jaxllm.interchange.config_reader import ConfigReader
from jaxllm.interchange.family import Family
from jaxllm.interchange.fields import read_activation, read_rope, write_activation, write_rope
from jaxllm.interchange.keymap import Tensor
from jaxllm.models import TransformerConfig


def read_shared(reader: ConfigReader, *, rope: Mapping[str, Any] | None = None, **more: Any) -> TransformerConfig:
    """The fields that these families and others share; `more` stands in place of what they say.

    Args:
      rope: what `read_rope` gives, where it is not read as Llama's.

    Raises:
      ValueError: rotary positions turn a part of each head.
    """
    num_heads, embed_dim = reader.read("num_attention_heads"), reader.read("hidden_size")
    head_dim = reader.read("head_dim", None)
    if rope is None:
        rope = read_rope(reader, head_dim or embed_dim // num_heads)
        if rope["rotary_dim"] is not None:
            raise ValueError(f"partial_rotary_factor in {reader.source} must be 1.0 to be computed here for this class")
    fields = {
        "vocab_size": reader.read("vocab_size"),
        "context_len": reader.read("max_position_embeddings"),
        "num_layers": reader.read("num_hidden_layers"),
        "embed_dim": embed_dim,
        "num_heads": num_heads,
        "num_kv_heads": reader.read("num_key_value_heads", None),
        "head_dim": head_dim,
        "ffw_dim": reader.read("intermediate_size"),
        "activation": read_activation(reader, "hidden_act", "silu", gated=True),
        "norm": "rms_norm",
        "norm_epsilon": reader.read("rms_norm_eps", 1e-6),
        "position": "rotary",
        "dropout": float(reader.read("attention_dropout", 0.0)),
        "tie_embeddings": reader.read("tie_word_embeddings", False),
    }
    return TransformerConfig(**fields | dict(rope) | more)


def read_attention_bias(reader: ConfigReader) -> dict[str, Any]:
    """`attention_bias`, which is for all four projections, in a model whose feed-forward layers have no bias."""
    attention_bias = reader.read("attention_bias", False)
    return {"bias": False, "qkv_bias": attention_bias, "attention_output_bias": attention_bias}


def read_llama(reader: ConfigReader) -> TransformerConfig:
    return read_shared(reader, **read_attention_bias(reader) | {"bias": reader.read("mlp_bias", False)})


def read_mistral(reader: ConfigReader) -> TransformerConfig:
    _check_layer_types(reader, "sliding_attention" if reader.has("sliding_window") else "full_attention")
    kv_heads = reader.read("num_key_value_heads", 8)
    return read_shared(reader, bias=False, num_kv_heads=kv_heads, window=reader.read("sliding_window", 4096))


def read_qwen2(reader: ConfigReader) -> TransformerConfig:
    kv_heads = reader.read("num_key_value_heads", 32)
    return read_shared(reader, bias=False, qkv_bias=True, num_kv_heads=kv_heads, **_qwen_window(reader))


def read_qwen3(reader: ConfigReader) -> TransformerConfig:
    return read_shared(
        reader,
        head_dim=reader.read("head_dim", 128),
        num_kv_heads=reader.read("num_key_value_heads", 32),
        qk_norm="head",
        **read_attention_bias(reader),
        **_qwen_window(reader),
    )


def _qwen_window(reader: ConfigReader) -> dict[str, Any]:
    """Qwen's window is in the layers from `max_window_layers` on, when it is used at all."""
    window, layers = reader.read("sliding_window", 4096), reader.read("num_hidden_layers")
    full = min(reader.read("max_window_layers", 28), layers)
    if not reader.read("use_sliding_window", False) or window is None or full == layers:
        _check_layer_types(reader, "full_attention")
        return {}
    expected = ["full_attention"] * full + ["sliding_attention"] * (layers - full)
    reader.must_be("layer_types", expected, None)
    return {"window": window, "full_attention_layers": tuple(range(full))}


def _check_layer_types(reader: ConfigReader, kind: str) -> None:
    reader.must_be("layer_types", None, [kind] * reader.read("num_hidden_layers"))


def write_shared(config: TransformerConfig, architecture: str, model_type: str, **more: Any) -> dict[str, Any]:
    """The fields that `read_shared` reads, and more."""
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context_len,
        "num_hidden_layers": config.num_layers,
        "hidden_size": config.embed_dim,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_width,
        "intermediate_size": config.ffw_width,
        "hidden_act": write_activation(config.activation),
        "rms_norm_eps": config.norm_epsilon,
        "attention_dropout": config.dropout,
        "tie_word_embeddings": config.tie_embeddings,
        **write_rope(config),
        **more,
    }


def write_llama(config: TransformerConfig) -> dict[str, Any]:
    return write_shared(config, "LlamaForCausalLM", "llama", attention_bias=has_qkv_bias(config), mlp_bias=config.bias)


def write_mistral(config: TransformerConfig) -> dict[str, Any]:
    return write_shared(config, "MistralForCausalLM", "mistral", sliding_window=config.window)


def write_qwen2(config: TransformerConfig) -> dict[str, Any]:
    return write_shared(config, "Qwen2ForCausalLM", "qwen2", **_write_qwen_window(config))


def write_qwen3(config: TransformerConfig) -> dict[str, Any]:
    window = _write_qwen_window(config)
    return write_shared(config, "Qwen3ForCausalLM", "qwen3", attention_bias=has_qkv_bias(config), **window)


def _write_qwen_window(config: TransformerConfig) -> dict[str, Any]:
    if config.window is None:
        return {"use_sliding_window": False, "sliding_window": None}
    return {"use_sliding_window": True, "sliding_window": config.window, "max_window_layers": len(config.full_attention_layers)}


def has_qkv_bias(config: TransformerConfig) -> bool:
    return config.bias if config.qkv_bias is None else config.qkv_bias


BLOCK = "model.layers.{layer}"
NORMS = {
    "model.norm": "final_norm",
    f"{BLOCK}.input_layernorm": "layers/attention_norm",
    f"{BLOCK}.post_attention_layernorm": "layers/ffw_norm",
}


def tensors(config: TransformerConfig) -> list[Tensor]:
    return [*table_rows(config), *scale_rows(NORMS), *attention_rows(config), *ffw_rows(config)]


def table_rows(config: TransformerConfig) -> list[Tensor]:
    """The embedding and, where it is not tied, the output matrix."""
    rows = [Tensor("model.embed_tokens.weight", "embed/table", "V D -> V D")]
    if not config.tie_embeddings:
        rows.append(Tensor("lm_head.weight", "unembed/kernel", "V D -> D V"))
    return rows


def scale_rows(norms: Mapping[str, str]) -> list[Tensor]:
    """Scales of norms, published name -> ours."""
    return [Tensor(f"{published}.weight", f"{ours}/scale", "D -> D") for published, ours in norms.items()]


def attention_rows(config: TransformerConfig) -> list[Tensor]:
    published, ours = f"{BLOCK}.self_attn", "layers/attention"
    rows = [Tensor(f"{published}.o_proj.weight", f"{ours}/output/kernel", "D (N H) -> N H D")]
    if config.bias if config.attention_output_bias is None else config.attention_output_bias:
        rows.append(Tensor(f"{published}.o_proj.bias", f"{ours}/output/bias", "D -> D"))
    for letter, name in (("q", "query"), ("k", "key"), ("v", "value")):
        rows.append(Tensor(f"{published}.{letter}_proj.weight", f"{ours}/{name}/kernel", "(N H) D -> D N H"))
        if has_qkv_bias(config):
            rows.append(Tensor(f"{published}.{letter}_proj.bias", f"{ours}/{name}/bias", "(N H) -> N H"))
        if config.qk_norm is not None and name != "value":
            pattern = "H -> H" if config.qk_norm == "head" else "(N H) -> N H"
            rows.append(Tensor(f"{published}.{letter}_norm.weight", f"{ours}/{name}_norm/scale", pattern))
    return rows


def ffw_rows(config: TransformerConfig) -> list[Tensor]:
    rows = []
    for name in ("up", "gate", "down"):
        pattern = "D F -> F D" if name == "down" else "F D -> D F"
        rows.append(Tensor(f"{BLOCK}.mlp.{name}_proj.weight", f"layers/ffw/{name}/kernel", pattern))
        if config.bias:
            rows.append(Tensor(f"{BLOCK}.mlp.{name}_proj.bias", f"layers/ffw/{name}/bias", "D -> D"))
    return rows


def llama_like(
    architecture: str, read_config: Callable, write_config: Callable, tensors: Callable[[Any], list[Tensor]] = tensors
) -> Family:
    """A family whose tables have Llama's names."""
    return Family(
        architectures=(architecture,),
        read_config=read_config,
        write_config=write_config,
        tensors=tensors,
        ignored=("*.rotary_emb.inv_freq",),
        tied={"lm_head.weight": "model.embed_tokens.weight"},
        prefix="model.",
    )


FAMILIES = (
    llama_like("LlamaForCausalLM", read_llama, write_llama),
    llama_like("MistralForCausalLM", read_mistral, write_mistral),
    llama_like("Qwen2ForCausalLM", read_qwen2, write_qwen2),
    llama_like("Qwen3ForCausalLM", read_qwen3, write_qwen3),
)
