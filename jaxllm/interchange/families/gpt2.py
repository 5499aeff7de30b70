"""GPT-2. Of its three rates of dropout, which are alike in published models, ours is that of the residual stream."""

from typing import Any

from jaxllm.interchange.config_reader import ConfigReader
from jaxllm.interchange.family import Family
from jaxllm.interchange.fields import read_activation, write_activation
from jaxllm.interchange.keymap import Tensor
from jaxllm.models import TransformerConfig


def read_config(reader: ConfigReader) -> TransformerConfig:
    reader.must_be("scale_attn_weights", True)
    reader.must_be("scale_attn_by_inverse_layer_idx", False)
    reader.ignore("reorder_and_upcast_attn", "embd_pdrop", "attn_pdrop", "n_ctx")
    reader.ignore(*(name for name in reader.fields if name.startswith("summary_")))
    return TransformerConfig(
        vocab_size=reader.read("vocab_size"),
        context_len=reader.read("n_positions", 1024),
        num_layers=reader.read("n_layer"),
        embed_dim=reader.read("n_embd"),
        num_heads=reader.read("n_head"),
        ffw_dim=reader.read("n_inner", None),
        activation=read_activation(reader, "activation_function", "gelu_new"),
        norm_epsilon=reader.read("layer_norm_epsilon", 1e-5),
        dropout=float(reader.read("resid_pdrop", 0.1)),
        tie_embeddings=reader.read("tie_word_embeddings", True),
    )


def write_config(config: TransformerConfig) -> dict[str, Any]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "vocab_size": config.vocabulary,
        "n_positions": config.context_len,
        "n_layer": config.num_layers,
        "n_embd": config.embed_dim,
        "n_head": config.num_heads,
        "n_inner": config.ffw_dim,
        "activation_function": write_activation(config.activation),
        "layer_norm_epsilon": config.norm_epsilon,
        "resid_pdrop": config.dropout,
        "embd_pdrop": config.dropout,
        "attn_pdrop": config.dropout,
        "tie_word_embeddings": config.tie_embeddings,
    }


def tensors(config: TransformerConfig) -> list[Tensor]:
    block, layer = "transformer.h.{layer}", "layers"
    kernels, biases = (
        tuple(f"{layer}/attention/{part}/{leaf}" for part in ("query", "key", "value")) for leaf in ("kernel", "bias")
    )
    rows = [
        Tensor("transformer.wte.weight", "embed/table", "V D -> V D"),
        Tensor("transformer.wpe.weight", "position/table", "C D -> C D"),
        Tensor(f"{block}.attn.c_attn.weight", kernels, "D (P N H) -> P D N H"),
        Tensor(f"{block}.attn.c_attn.bias", biases, "(P N H) -> P N H"),
        Tensor(f"{block}.attn.c_proj.weight", f"{layer}/attention/output/kernel", "(N H) D -> N H D"),
        Tensor(f"{block}.attn.c_proj.bias", f"{layer}/attention/output/bias", "D -> D"),
        Tensor(f"{block}.mlp.c_fc.weight", f"{layer}/ffw/up/kernel", "D F -> D F"),
        Tensor(f"{block}.mlp.c_fc.bias", f"{layer}/ffw/up/bias", "F -> F"),
        Tensor(f"{block}.mlp.c_proj.weight", f"{layer}/ffw/down/kernel", "F D -> F D"),
        Tensor(f"{block}.mlp.c_proj.bias", f"{layer}/ffw/down/bias", "D -> D"),
    ]
    norms = {f"{block}.ln_1": f"{layer}/attention_norm", f"{block}.ln_2": f"{layer}/ffw_norm", "transformer.ln_f": "final_norm"}
    for published, ours in norms.items():
        rows += [
            Tensor(f"{published}.weight", f"{ours}/scale", "D -> D"),
            Tensor(f"{published}.bias", f"{ours}/bias", "D -> D"),
        ]
    if not config.tie_embeddings:
        rows.append(Tensor("lm_head.weight", "unembed/kernel", "V D -> D V"))
    return rows


FAMILIES = (
    Family(
        architectures=("GPT2LMHeadModel",),
        read_config=read_config,
        write_config=write_config,
        tensors=tensors,
        ignored=("*.attn.bias", "*.attn.masked_bias"),
        tied={"lm_head.weight": "transformer.wte.weight"},
        prefix="transformer.",
    ),
)
