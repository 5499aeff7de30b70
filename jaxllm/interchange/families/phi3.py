"""Phi-3 and Phi-3.5-mini at their first context length: Llama with fused projections, and a window."""

from typing import Any

from jaxllm.interchange.config_reader import ConfigReader
from jaxllm.interchange.families.llama import BLOCK, NORMS, llama_like, read_shared, scale_rows, table_rows, write_shared
from jaxllm.interchange.fields import read_rope
from jaxllm.interchange.keymap import Tensor
from jaxllm.models import TransformerConfig


def read_config(reader: ConfigReader) -> TransformerConfig:
    head_dim = reader.read("head_dim", None) or reader.read("hidden_size") // reader.read("num_attention_heads")
    rope = read_rope(reader, head_dim)
    if rope["rope_scaling"] is not None:  # transformers reads yarn here as another name of longrope, and refuses the rest
        raise ValueError(
            f"rope_type in {reader.source} must be 'default' to be computed here: got {rope['rope_scaling'].kind!r}"
        )
    reader.must_be("attention_bias", False)
    reader.ignore("original_max_position_embeddings", "resid_pdrop", "embd_pdrop")
    return read_shared(
        reader,
        rope=rope,
        norm_epsilon=reader.read("rms_norm_eps", 1e-5),
        bias=False,
        window=reader.read("sliding_window", None),
        dropout=float(reader.read("resid_pdrop", 0.0)),
    )


def write_config(config: TransformerConfig) -> dict[str, Any]:
    return write_shared(
        config,
        "Phi3ForCausalLM",
        "phi3",
        sliding_window=config.window,
        resid_pdrop=config.dropout,
        embd_pdrop=config.dropout,
        original_max_position_embeddings=config.context_len,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )


def tensors(config: TransformerConfig) -> list[Tensor]:
    attention = "layers/attention"
    projections = tuple(f"{attention}/{name}/kernel" for name in ("query", "key", "value"))
    return [
        *table_rows(config),
        *scale_rows(NORMS),
        Tensor(f"{BLOCK}.self_attn.qkv_proj.weight", projections, ("(N H) D -> D N H",) * 3),
        Tensor(f"{BLOCK}.self_attn.o_proj.weight", f"{attention}/output/kernel", "D (N H) -> N H D"),
        Tensor(f"{BLOCK}.mlp.gate_up_proj.weight", ("layers/ffw/gate/kernel", "layers/ffw/up/kernel"), "(P F) D -> P D F"),
        Tensor(f"{BLOCK}.mlp.down_proj.weight", "layers/ffw/down/kernel", "D F -> F D"),
    ]


FAMILIES = (llama_like("Phi3ForCausalLM", read_config, write_config, tensors),)
