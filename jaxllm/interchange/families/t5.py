"""T5: version 1.0 has ReLU and a tied output matrix read from a scaled hidden state, 1.1 a gated GELU and an output matrix of
its own. Positions are a bias of the first layer of each stack, which all its layers add; attention is not scaled.
"""

import dataclasses
from collections.abc import Collection
from typing import Any

from jaxllm.interchange.config_reader import ConfigReader
from jaxllm.interchange.family import Family
from jaxllm.interchange.keymap import Tensor
from jaxllm.interchange.rows import from_heads, linear, norm, to_heads
from jaxllm.models import EncoderDecoderConfig, HeadConfig, TransformerConfig

_ACTIVATIONS = {
    "relu": ("relu", "relu"),
    "gelu": ("gelu", "gelu"),
    "gelu_new": ("gelu_new", "gelu_tanh"),
    "silu": ("silu", "silu"),
    "gated-gelu": ("gelu_new", "geglu_tanh"),
    "gated-silu": ("silu", "swiglu"),
    "gated-relu": ("relu", "reglu"),
}
"""feed_forward_proj -> the name of its function, and our activation. The gelu of "gated-gelu" is the one by tanh."""


def read_config(reader: ConfigReader) -> EncoderDecoderConfig:
    reader.must_be("is_encoder_decoder", True)
    reader.ignore("classifier_dropout", "output_past")
    projection = reader.must_be("feed_forward_proj", *_ACTIVATIONS)
    function, activation = _ACTIVATIONS[projection]
    reader.must_be("dense_act_fn", function)
    reader.must_be("is_gated_act", projection.startswith("gated-"))
    # A published version 1.1 says that nothing is tied; transformers 5 writes that all is, and scale_decoder_outputs=false.
    tied = reader.read("tie_word_embeddings", True)
    scaled = reader.read("scale_decoder_outputs", tied)
    layers = reader.read("num_layers")
    size = {
        "vocab_size": reader.read("vocab_size"),
        "context_len": reader.read("n_positions", 512),
        "embed_dim": reader.read("d_model"),
        "num_heads": reader.read("num_heads"),
        "head_dim": reader.read("d_kv"),
        "ffw_dim": reader.read("d_ff"),
        "activation": activation,
        "norm": "rms_norm",
        "norm_epsilon": reader.read("layer_norm_epsilon", 1e-6),
        "position": "relative",
        "relative_buckets": reader.read("relative_attention_num_buckets", 32),
        "relative_max_distance": reader.read("relative_attention_max_distance", 128),
        "bias": False,
        "attention_scale": 1.0,
        "dropout": float(reader.read("dropout_rate", 0.1)),
    }
    return EncoderDecoderConfig(
        encoder=TransformerConfig(num_layers=layers, causal=False, head=HeadConfig(kind="none"), **size),
        decoder=TransformerConfig(
            num_layers=reader.read("num_decoder_layers", None) or layers,
            cross_attention=True,
            tie_embeddings=tied,
            unembed_scale=size["embed_dim"] ** -0.5 if scaled else None,
            **size,
        ),
        start_id=reader.read("decoder_start_token_id", reader.read("pad_token_id", 0)),
    )


def settle(config: EncoderDecoderConfig, names: Collection[str]) -> EncoderDecoderConfig:
    """An output matrix of its own is there where it is stored, whatever the config says of ties, unless its input is scaled."""
    if "lm_head.weight" not in names or config.decoder.unembed_scale is not None:
        return config
    return dataclasses.replace(config, decoder=dataclasses.replace(config.decoder, tie_embeddings=False))


def write_config(config: EncoderDecoderConfig) -> dict[str, Any]:
    decoder = config.decoder
    known = {ours: published for published, (_, ours) in _ACTIVATIONS.items()}
    return {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "is_encoder_decoder": True,
        "vocab_size": decoder.vocabulary,
        "n_positions": config.context_len,
        "d_model": decoder.embed_dim,
        "num_heads": decoder.num_heads,
        "d_kv": decoder.head_width,
        "d_ff": decoder.ffw_width,
        "num_layers": config.encoder.num_layers,
        "num_decoder_layers": decoder.num_layers,
        "feed_forward_proj": known.get(decoder.activation, decoder.activation),
        "layer_norm_epsilon": decoder.norm_epsilon,
        "relative_attention_num_buckets": decoder.relative_buckets,
        "relative_attention_max_distance": decoder.relative_max_distance,
        "dropout_rate": decoder.dropout,
        "decoder_start_token_id": config.start_id,
        "tie_word_embeddings": decoder.tie_embeddings,
        "scale_decoder_outputs": decoder.unembed_scale is not None,
    }


def tensors(config: EncoderDecoderConfig) -> list[Tensor]:
    rows = [Tensor("shared.weight", "encoder/embed/table", "V D -> V D")]
    for name, stack in (("encoder", config.encoder), ("decoder", config.decoder)):
        block, ours = f"{name}.block.{{layer}}.layer", f"{name}/layers"
        bias = f"{name}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        sublayers = ["attention", "cross_attention", "ffw"] if stack.cross_attention else ["attention", "ffw"]
        rows += [
            Tensor(bias, f"{name}/relative_bias", "C N -> C N"),
            *norm(f"{name}.final_layer_norm", f"{name}/final_norm", use_bias=False),
        ]
        for place, sublayer in enumerate(sublayers):
            rows += norm(f"{block}.{place}.layer_norm", f"{ours}/{sublayer}_norm", use_bias=False)
        rows += _attention_rows(f"{block}.0.SelfAttention", f"{ours}/attention")
        if stack.cross_attention:
            rows += _attention_rows(f"{block}.1.EncDecAttention", f"{ours}/cross_attention")
        rows += _ffw_rows(f"{block}.{len(sublayers) - 1}.DenseReluDense", f"{ours}/ffw", stack.activation)
    if not config.decoder.tie_embeddings:
        rows.append(Tensor("lm_head.weight", "decoder/unembed/kernel", "V D -> D V"))
    return rows


def _attention_rows(published: str, ours: str) -> list[Tensor]:
    rows = from_heads(f"{published}.o", f"{ours}/output", use_bias=False)
    for letter, part in (("q", "query"), ("k", "key"), ("v", "value")):
        rows += to_heads(f"{published}.{letter}", f"{ours}/{part}", use_bias=False)
    return rows


def _ffw_rows(published: str, ours: str, activation: str) -> list[Tensor]:
    names = {"wi_0": "gate", "wi_1": "up"} if activation in ("geglu_tanh", "swiglu", "reglu") else {"wi": "up"}
    rows = [linear(f"{published}.{theirs}", f"{ours}/{part}", use_bias=False) for theirs, part in names.items()]
    return [*sum(rows, []), *linear(f"{published}.wo", f"{ours}/down", use_bias=False)]


FAMILIES = (
    Family(
        architectures=("T5ForConditionalGeneration",),
        read_config=read_config,
        write_config=write_config,
        tensors=tensors,
        settle=settle,
        ignored=("decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",),
        tied={
            name: "shared.weight" for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
        },
    ),
)
