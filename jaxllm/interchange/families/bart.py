"""BART, with the bias of its output and, as BartModel, without. What it shares with Marian is public here.

`final_logits_bias` is a parameter here; transformers keeps it as it was published. A BartModel has logits all the same: its
output matrix is its embedding, so the class that a config names does not decide whether it can write.
"""

from typing import Any

from jaxllm.interchange.config_reader import ConfigReader
from jaxllm.interchange.family import Family
from jaxllm.interchange.fields import read_activation, write_activation
from jaxllm.interchange.keymap import Tensor
from jaxllm.interchange.rows import from_heads, linear, norm, to_heads
from jaxllm.models import EncoderDecoderConfig, HeadConfig, TransformerConfig

POSITION_OFFSET = 2
"""Rows of the table of positions before that of the first token."""


def read_config(reader: ConfigReader, *, output_bias: bool = True) -> EncoderDecoderConfig:
    reader.must_be("normalize_embedding", True)
    reader.must_be("static_position_embeddings", False)
    reader.must_be("extra_pos_embeddings", POSITION_OFFSET)
    reader.must_be("tie_word_embeddings", True)
    reader.ignore("force_bos_token_to_be_generated")
    return read_stacks(reader, start_id=2, output_bias=output_bias, embed_norm=True, position_offset=POSITION_OFFSET)


def read_stacks(
    reader: ConfigReader,
    *,
    start_id: int | None,
    share_embeddings: bool = True,
    tie_embeddings: bool = True,
    output_bias: bool = True,
    **more: Any,
) -> EncoderDecoderConfig:
    """The fields that BART and Marian share.

    Args:
      start_id: what the decoder begins with where the config does not say.
      more: fields of both stacks.
    """
    reader.must_be("is_encoder_decoder", True)
    reader.must_be("normalize_before", False)
    reader.must_be("add_final_layer_norm", False)
    reader.ignore("_num_labels", "activation_dropout", "attention_dropout", "classif_dropout", "classifier_dropout")
    reader.ignore("add_bias_logits", "decoder_layerdrop", "encoder_layerdrop", "init_std", "num_hidden_layers", "output_past")
    vocab_size, embed_dim = reader.read("vocab_size"), reader.read("d_model")
    shared = {
        "context_len": reader.read("max_position_embeddings", 1024),
        "embed_dim": embed_dim,
        "activation": read_activation(reader, "activation_function", "gelu"),
        "norm_placement": "post",
        "embed_scale": embed_dim**0.5 if reader.read("scale_embedding", False) else None,
        "dropout": float(reader.read("dropout", 0.1)),
        **more,
    }
    sizes = {"num_layers": "layers", "num_heads": "attention_heads", "ffw_dim": "ffn_dim"}
    encoder, decoder = (
        {ours: reader.read(f"{stack}_{theirs}") for ours, theirs in sizes.items()} for stack in ("encoder", "decoder")
    )
    written = vocab_size if share_embeddings else reader.read("decoder_vocab_size", None) or vocab_size
    return EncoderDecoderConfig(
        encoder=TransformerConfig(vocab_size=vocab_size, causal=False, head=HeadConfig(kind="none"), **encoder, **shared),
        decoder=TransformerConfig(
            vocab_size=written,
            cross_attention=True,
            tie_embeddings=tie_embeddings,
            head=HeadConfig(bias=output_bias),
            **decoder,
            **shared,
        ),
        share_embeddings=share_embeddings,
        start_id=reader.read("decoder_start_token_id", start_id),
    )


def write_stacks(config: EncoderDecoderConfig, architecture: str, model_type: str, **more: Any) -> dict[str, Any]:
    """The fields that `read_stacks` reads, and more."""
    sizes = {}
    for name, stack in (("encoder", config.encoder), ("decoder", config.decoder)):
        sizes |= {
            f"{name}_layers": stack.num_layers,
            f"{name}_attention_heads": stack.num_heads,
            f"{name}_ffn_dim": stack.ffw_width,
        }
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "is_encoder_decoder": True,
        "vocab_size": config.encoder.vocabulary,
        "max_position_embeddings": config.context_len,
        "d_model": config.decoder.embed_dim,
        **sizes,
        "activation_function": write_activation(config.decoder.activation),
        "scale_embedding": config.decoder.embed_scale is not None,
        "dropout": config.decoder.dropout,
        "decoder_start_token_id": config.start_id,
        "tie_word_embeddings": config.decoder.tie_embeddings,
        **more,
    }


def tensors(config: EncoderDecoderConfig) -> list[Tensor]:
    root = "model." if config.decoder.head.bias else ""
    rows = [Tensor(f"{root}shared.weight", "encoder/embed/table", "V D -> V D"), *stack_rows(root)]
    for name in ("encoder", "decoder"):
        rows.append(Tensor(f"{root}{name}.embed_positions.weight", f"{name}/position/table", "C D -> C D"))
        rows += norm(f"{root}{name}.layernorm_embedding", f"{name}/embed_norm")
    return [*rows, OUTPUT_BIAS] if config.decoder.head.bias else rows


OUTPUT_BIAS = Tensor("final_logits_bias", "decoder/unembed/bias", "1 V -> V")


def stack_rows(root: str) -> list[Tensor]:
    """The key map of both stacks' layers, under names that begin with `root`."""
    rows = []
    for name in ("encoder", "decoder"):
        block, ours = f"{root}{name}.layers.{{layer}}", f"{name}/layers"
        attentions = {"self_attn": "attention"} | ({"encoder_attn": "cross_attention"} if name == "decoder" else {})
        for published, attention in attentions.items():
            for letter, part in (("q", "query"), ("k", "key"), ("v", "value")):
                rows += to_heads(f"{block}.{published}.{letter}_proj", f"{ours}/{attention}/{part}")
            rows += from_heads(f"{block}.{published}.out_proj", f"{ours}/{attention}/output")
            rows += norm(f"{block}.{published}_layer_norm", f"{ours}/{attention}_norm")
        rows += linear(f"{block}.fc1", f"{ours}/ffw/up")
        rows += linear(f"{block}.fc2", f"{ours}/ffw/down")
        rows += norm(f"{block}.final_layer_norm", f"{ours}/ffw_norm")
    return rows


def tied(root: str) -> dict[str, str]:
    """Names that may stand for the one embedding of both stacks."""
    return {
        "lm_head.weight": f"{root}decoder.embed_tokens.weight",
        f"{root}decoder.embed_tokens.weight": f"{root}shared.weight",
        f"{root}encoder.embed_tokens.weight": f"{root}shared.weight",
    }


def _family(architecture: str, root: str, *, output_bias: bool) -> Family:
    return Family(
        architectures=(architecture,),
        read_config=lambda reader: read_config(reader, output_bias=output_bias),
        write_config=lambda config: write_stacks(config, architecture, "bart"),
        tensors=tensors,
        ignored=("*encoder.version", "*decoder.version"),
        tied=tied(root),
        prefix="model.",
    )


FAMILIES = (
    _family("BartForConditionalGeneration", "model.", output_bias=True),
    _family("BartModel", "", output_bias=False),
)
