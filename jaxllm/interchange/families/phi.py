"""Phi-1, 1.5 and 2: attention and feed-forward side by side under one norm, biases everywhere, a part of each head turned.

Phi-3, which is Llama with projections fused, is in `phi3`.
"""

from typing import Any

from jaxllm.interchange.config_reader import ConfigReader
from jaxllm.interchange.families.llama import BLOCK, llama_like
from jaxllm.interchange.fields import read_activation, read_rope, write_activation, write_rope
from jaxllm.interchange.keymap import Tensor
from jaxllm.models import HeadConfig, TransformerConfig


def read_config(reader: ConfigReader) -> TransformerConfig:
    embed_dim, num_heads = reader.read("hidden_size"), reader.read("num_attention_heads")
    head_dim = reader.read("head_dim", None)
    reader.must_be("qk_layernorm", False)
    reader.ignore("embd_pdrop", "attention_dropout")
    return TransformerConfig(
        vocab_size=reader.read("vocab_size"),
        context_len=reader.read("max_position_embeddings", 2048),
        num_layers=reader.read("num_hidden_layers"),
        embed_dim=embed_dim,
        num_heads=num_heads,
        num_kv_heads=reader.read("num_key_value_heads", None),
        head_dim=head_dim,
        ffw_dim=reader.read("intermediate_size"),
        activation=read_activation(reader, "hidden_act", "gelu_new"),
        norm_epsilon=reader.read("layer_norm_eps", 1e-5),
        parallel_block=True,
        position="rotary",
        dropout=float(reader.read("resid_pdrop", 0.0)),
        tie_embeddings=reader.read("tie_word_embeddings", False),
        head=HeadConfig(bias=True),
        **read_rope(reader, head_dim or embed_dim // num_heads, partial=0.5),
    )


def write_config(config: TransformerConfig) -> dict[str, Any]:
    rope = write_rope(config)["rope_parameters"]
    return {
        "architectures": ["PhiForCausalLM"],
        "model_type": "phi",
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context_len,
        "num_hidden_layers": config.num_layers,
        "hidden_size": config.embed_dim,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_width,
        "intermediate_size": config.ffw_width,
        "hidden_act": write_activation(config.activation),
        "layer_norm_eps": config.norm_epsilon,
        "attention_dropout": config.dropout,
        "embd_pdrop": config.dropout,
        "resid_pdrop": config.dropout,
        "tie_word_embeddings": config.tie_embeddings,
        "rope_parameters": rope | {"partial_rotary_factor": config.rotary_width / config.head_width},
    }


def tensors(config: TransformerConfig) -> list[Tensor]:
    rows = [Tensor("model.embed_tokens.weight", "embed/table", "V D -> V D"), Tensor("lm_head.bias", "unembed/bias", "V -> V")]
    if not config.tie_embeddings:
        rows.append(Tensor("lm_head.weight", "unembed/kernel", "V D -> D V"))
    for published, ours in {f"{BLOCK}.input_layernorm": "layers/attention_norm", "model.final_layernorm": "final_norm"}.items():
        rows += [
            Tensor(f"{published}.weight", f"{ours}/scale", "D -> D"),
            Tensor(f"{published}.bias", f"{ours}/bias", "D -> D"),
        ]
    projections = {
        "self_attn.q_proj": ("attention/query", "(N H) D -> D N H", "(N H) -> N H"),
        "self_attn.k_proj": ("attention/key", "(N H) D -> D N H", "(N H) -> N H"),
        "self_attn.v_proj": ("attention/value", "(N H) D -> D N H", "(N H) -> N H"),
        "self_attn.dense": ("attention/output", "D (N H) -> N H D", "D -> D"),
        "mlp.fc1": ("ffw/up", "F D -> D F", "F -> F"),
        "mlp.fc2": ("ffw/down", "D F -> F D", "D -> D"),
    }
    for published, (ours, kernel, bias) in projections.items():
        rows += [
            Tensor(f"{BLOCK}.{published}.weight", f"layers/{ours}/kernel", kernel),
            Tensor(f"{BLOCK}.{published}.bias", f"layers/{ours}/bias", bias),
        ]
    return rows


FAMILIES = (llama_like("PhiForCausalLM", read_config, write_config, tensors),)
