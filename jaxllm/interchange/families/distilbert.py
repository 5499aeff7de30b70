"""DistilBERT: BERT with half the layers, without kinds of tokens."""

from typing import Any

from jaxllm.interchange.config_reader import ConfigReader
from jaxllm.interchange.family import Family
from jaxllm.interchange.fields import read_activation, write_activation
from jaxllm.interchange.keymap import Tensor
from jaxllm.interchange.rows import from_heads, linear, norm, to_heads
from jaxllm.models import HeadConfig, TransformerConfig


def read_config(reader: ConfigReader) -> TransformerConfig:
    # Sinusoids, too, are published as a table of positions.
    reader.ignore(
        "sinusoidal_pos_embds", "attention_dropout", "qa_dropout", "seq_classif_dropout", "output_past", "tie_weights_"
    )
    activation = read_activation(reader, "activation", "gelu")
    return TransformerConfig(
        vocab_size=reader.read("vocab_size"),
        context_len=reader.read("max_position_embeddings"),
        num_layers=reader.read("n_layers"),
        embed_dim=reader.read("dim"),
        num_heads=reader.read("n_heads"),
        ffw_dim=reader.read("hidden_dim"),
        causal=False,
        activation=activation,
        norm_placement="post",
        norm_epsilon=1e-12,
        embed_norm=True,
        dropout=float(reader.read("dropout", 0.1)),
        tie_embeddings=reader.read("tie_word_embeddings", True),
        head=HeadConfig(bias=True, transform=True, transform_activation=activation),
    )


def write_config(config: TransformerConfig) -> dict[str, Any]:
    return {
        "architectures": ["DistilBertForMaskedLM"],
        "model_type": "distilbert",
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context_len,
        "n_layers": config.num_layers,
        "dim": config.embed_dim,
        "n_heads": config.num_heads,
        "hidden_dim": config.ffw_width,
        "activation": write_activation(config.activation),
        "dropout": config.dropout,
        "attention_dropout": config.dropout,
        "tie_word_embeddings": config.tie_embeddings,
    }


def tensors(config: TransformerConfig) -> list[Tensor]:
    model, block, layer = "distilbert.embeddings", "distilbert.transformer.layer.{layer}", "layers"
    rows = [
        Tensor(f"{model}.word_embeddings.weight", "embed/table", "V D -> V D"),
        Tensor(f"{model}.position_embeddings.weight", "position/table", "C D -> C D"),
        *norm(f"{model}.LayerNorm", "embed_norm"),
        *from_heads(f"{block}.attention.out_lin", f"{layer}/attention/output"),
        *norm(f"{block}.sa_layer_norm", f"{layer}/attention_norm"),
        *linear(f"{block}.ffn.lin1", f"{layer}/ffw/up"),
        *linear(f"{block}.ffn.lin2", f"{layer}/ffw/down"),
        *norm(f"{block}.output_layer_norm", f"{layer}/ffw_norm"),
        *linear("vocab_transform", "unembed/transform"),
        *norm("vocab_layer_norm", "unembed/norm"),
        Tensor("vocab_projector.bias", "unembed/bias", "V -> V"),
    ]
    for published, ours in (("q", "query"), ("k", "key"), ("v", "value")):
        rows += to_heads(f"{block}.attention.{published}_lin", f"{layer}/attention/{ours}")
    if not config.tie_embeddings:
        rows.append(Tensor("vocab_projector.weight", "unembed/kernel", "V D -> D V"))
    return rows


FAMILIES = (
    Family(
        architectures=("DistilBertForMaskedLM",),
        read_config=read_config,
        write_config=write_config,
        tensors=tensors,
        ignored=("*embeddings.position_ids",),
        tied={"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"},
        prefix="distilbert.",
    ),
)
