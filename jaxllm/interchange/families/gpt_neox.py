"""GPT-NeoX, and Pythia, which is one."""

from typing import Any

from jaxllm.interchange.config_reader import ConfigReader
from jaxllm.interchange.family import Family
from jaxllm.interchange.fields import read_activation, read_rope, write_activation, write_rope
from jaxllm.interchange.keymap import Tensor
from jaxllm.models import TransformerConfig

_TABLE, _OUTPUT = "gpt_neox.embed_in.weight", "embed_out.weight"


def read_config(reader: ConfigReader) -> TransformerConfig:
    embed_dim, num_heads = reader.read("hidden_size"), reader.read("num_attention_heads")
    theta, partial = float(reader.read("rotary_emb_base", 10_000.0)), float(reader.read("rotary_pct", 0.25))
    reader.must_be("rope_theta", theta)  # some files say both things twice; the class looks at the names above only
    reader.must_be("partial_rotary_factor", partial)
    reader.ignore("attention_dropout", "classifier_dropout")
    attention_bias = reader.read("attention_bias", True)
    return TransformerConfig(
        vocab_size=reader.read("vocab_size"),
        context_len=reader.read("max_position_embeddings", 2048),
        num_layers=reader.read("num_hidden_layers"),
        embed_dim=embed_dim,
        num_heads=num_heads,
        ffw_dim=reader.read("intermediate_size"),
        activation=read_activation(reader, "hidden_act", "gelu"),
        norm_epsilon=reader.read("layer_norm_eps", 1e-5),
        parallel_block=reader.read("use_parallel_residual", True),
        parallel_norms="separate",
        position="rotary",
        qkv_bias=attention_bias,
        attention_output_bias=attention_bias,
        dropout=float(reader.read("hidden_dropout", 0.0)),
        tie_embeddings=reader.read("tie_word_embeddings", False),
        **read_rope(reader, embed_dim // num_heads, theta=theta, partial=partial),
    )


def write_config(config: TransformerConfig) -> dict[str, Any]:
    rope = write_rope(config)["rope_parameters"]
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context_len,
        "num_hidden_layers": config.num_layers,
        "hidden_size": config.embed_dim,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.ffw_width,
        "hidden_act": write_activation(config.activation),
        "layer_norm_eps": config.norm_epsilon,
        "use_parallel_residual": config.parallel_block,
        "attention_bias": config.bias if config.qkv_bias is None else config.qkv_bias,
        "attention_dropout": config.dropout,
        "hidden_dropout": config.dropout,
        "tie_word_embeddings": config.tie_embeddings,
        "rope_parameters": rope | {"partial_rotary_factor": config.rotary_width / config.head_width},
    }


def tensors(config: TransformerConfig) -> list[Tensor]:
    block, layer = "gpt_neox.layers.{layer}", "layers"
    kernels, biases = (
        tuple(f"{layer}/attention/{part}/{leaf}" for part in ("query", "key", "value")) for leaf in ("kernel", "bias")
    )
    rows = [
        Tensor(_TABLE, "embed/table", "V D -> V D"),
        Tensor(f"{block}.attention.query_key_value.weight", kernels, "(N P H) D -> P D N H"),
        Tensor(f"{block}.attention.dense.weight", f"{layer}/attention/output/kernel", "D (N H) -> N H D"),
        Tensor(f"{block}.mlp.dense_h_to_4h.weight", f"{layer}/ffw/up/kernel", "F D -> D F"),
        Tensor(f"{block}.mlp.dense_h_to_4h.bias", f"{layer}/ffw/up/bias", "F -> F"),
        Tensor(f"{block}.mlp.dense_4h_to_h.weight", f"{layer}/ffw/down/kernel", "D F -> F D"),
        Tensor(f"{block}.mlp.dense_4h_to_h.bias", f"{layer}/ffw/down/bias", "D -> D"),
    ]
    if config.bias if config.qkv_bias is None else config.qkv_bias:
        rows += [
            Tensor(f"{block}.attention.query_key_value.bias", biases, "(N P H) -> P N H"),
            Tensor(f"{block}.attention.dense.bias", f"{layer}/attention/output/bias", "D -> D"),
        ]
    norms = {
        f"{block}.input_layernorm": f"{layer}/attention_norm",
        f"{block}.post_attention_layernorm": f"{layer}/ffw_norm",
        "gpt_neox.final_layer_norm": "final_norm",
    }
    for published, ours in norms.items():
        rows += [
            Tensor(f"{published}.weight", f"{ours}/scale", "D -> D"),
            Tensor(f"{published}.bias", f"{ours}/bias", "D -> D"),
        ]
    if not config.tie_embeddings:
        rows.append(Tensor(_OUTPUT, "unembed/kernel", "V D -> D V"))
    return rows


FAMILIES = (
    Family(
        architectures=("GPTNeoXForCausalLM",),
        read_config=read_config,
        write_config=write_config,
        tensors=tensors,
        ignored=("*.attention.bias", "*.attention.masked_bias", "*.rotary_emb.inv_freq"),
        tied={_OUTPUT: _TABLE},
        prefix="gpt_neox.",
        renamed=(("lm_head.weight", _OUTPUT),),
    ),
)
