"""BERT: the bare encoder with its pooler, masked-LM, and labels of texts, tokens and answers."""

from collections.abc import Callable
from typing import Any

from jaxllm.interchange.config_reader import ConfigReader
from jaxllm.interchange.family import Family
from jaxllm.interchange.fields import read_activation, write_activation
from jaxllm.interchange.keymap import Tensor
from jaxllm.interchange.labels import read_labels, read_several, write_labels, write_several
from jaxllm.interchange.rows import from_heads, linear, norm, to_heads
from jaxllm.models import HeadConfig, TransformerConfig


def read_encoder(reader: ConfigReader, head: HeadConfig, position_offset: int = 0, **more: Any) -> TransformerConfig:
    """What BERT and RoBERTa share, and more fields of our config."""
    reader.must_be("position_embedding_type", "absolute")
    reader.ignore("attention_probs_dropout_prob", "classifier_dropout", *_UNREAD)
    return TransformerConfig(
        vocab_size=reader.read("vocab_size"),
        context_len=reader.read("max_position_embeddings") - position_offset,
        num_layers=reader.read("num_hidden_layers"),
        embed_dim=reader.read("hidden_size"),
        num_heads=reader.read("num_attention_heads"),
        ffw_dim=reader.read("intermediate_size"),
        causal=False,
        activation=read_activation(reader, "hidden_act", "gelu"),
        norm_placement="post",
        norm_epsilon=reader.read("layer_norm_eps", 1e-12),
        embed_norm=True,
        position_offset=position_offset,
        token_types=reader.read("type_vocab_size", 2),
        dropout=float(reader.read("hidden_dropout_prob", 0.1)),
        tie_embeddings=reader.read("tie_word_embeddings", True),
        head=head,
        **more,
    )


_UNREAD = (
    "directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head",
    "pooler_type",
)  # fmt: skip
"""Written by the first release into many files, and read by nobody."""


def write_encoder(config: TransformerConfig, architecture: str, model_type: str, **more: Any) -> dict[str, Any]:
    """The fields that `read_encoder` reads."""
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context_len + config.position_offset,
        "num_hidden_layers": config.num_layers,
        "hidden_size": config.embed_dim,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.ffw_width,
        "hidden_act": write_activation(config.activation),
        "layer_norm_eps": config.norm_epsilon,
        "type_vocab_size": config.token_types,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.dropout,
        "tie_word_embeddings": config.tie_embeddings,
        **write_labels(config.head.num_labels, config.head.label_names),
        **write_several(config.head.several),
        **more,
    }


def encoder_tensors(model: str) -> list[Tensor]:
    """The key map of embeddings and layers, under names that begin with `model`."""
    block, layer = f"{model}encoder.layer.{{layer}}", "layers"
    rows = [
        Tensor(f"{model}embeddings.word_embeddings.weight", "embed/table", "V D -> V D"),
        Tensor(f"{model}embeddings.position_embeddings.weight", "position/table", "C D -> C D"),
        Tensor(f"{model}embeddings.token_type_embeddings.weight", "token_type/table", "Y D -> Y D"),
        *norm(f"{model}embeddings.LayerNorm", "embed_norm"),
    ]
    for part in ("query", "key", "value"):
        rows += to_heads(f"{block}.attention.self.{part}", f"{layer}/attention/{part}")
    return [
        *rows,
        *from_heads(f"{block}.attention.output.dense", f"{layer}/attention/output"),
        *norm(f"{block}.attention.output.LayerNorm", f"{layer}/attention_norm"),
        *linear(f"{block}.intermediate.dense", f"{layer}/ffw/up"),
        *linear(f"{block}.output.dense", f"{layer}/ffw/down"),
        *norm(f"{block}.output.LayerNorm", f"{layer}/ffw_norm"),
    ]


def _masked_lm_head(reader: ConfigReader) -> HeadConfig:
    activation = read_activation(reader, "hidden_act", "gelu")
    return HeadConfig(bias=True, transform=True, transform_activation=activation)


def _sequence_head(reader: ConfigReader) -> HeadConfig:
    return HeadConfig(kind="sequence", pooler=True, several=read_several(reader), **read_labels(reader))


def _span_head(reader: ConfigReader) -> HeadConfig:
    if (count := read_labels(reader)["num_labels"]) != 2:
        raise ValueError(f"{reader.source} must have two labels, for an answer's start and end: got {count}")
    return HeadConfig(kind="span")


def tensors(config: TransformerConfig) -> list[Tensor]:
    head, model = config.head, "" if config.head.kind == "none" else "bert."
    rows = encoder_tensors(model)
    if head.pooler:
        rows += linear(f"{model}pooler.dense", "head/pooler")
    if head.kind in ("sequence", "tokens", "span"):
        rows += linear("qa_outputs" if head.kind == "span" else "classifier", "head/classifier")
    if head.kind == "vocabulary":
        rows += linear("cls.predictions.transform.dense", "unembed/transform")
        rows += norm("cls.predictions.transform.LayerNorm", "unembed/norm")
        # transformers 5 reads the bias above the tied matrix under the one name, above an untied one under the other.
        owner = "cls.predictions" if config.tie_embeddings else "cls.predictions.decoder"
        rows.append(Tensor(f"{owner}.bias", "unembed/bias", "V -> V"))
        if not config.tie_embeddings:
            rows.append(Tensor("cls.predictions.decoder.weight", "unembed/kernel", "V D -> D V"))
    return rows


def _family(architecture: str, read_head: Callable[[ConfigReader], HeadConfig], ignored: tuple[str, ...] = ()) -> Family:
    return Family(
        architectures=(architecture,),
        read_config=lambda reader: read_encoder(reader, read_head(reader)),
        write_config=lambda config: write_encoder(config, architecture, "bert"),
        tensors=tensors,
        ignored=("*embeddings.position_ids", "cls.*", *ignored),
        tied={
            "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
            "cls.predictions.decoder.bias": "cls.predictions.bias",
        },
        prefix="bert.",
        renamed=((".gamma", ".weight"), (".beta", ".bias")),
    )


FAMILIES = (
    _family("BertModel", lambda reader: HeadConfig(kind="none", pooler=True)),
    _family("BertForMaskedLM", _masked_lm_head, ("*pooler.*",)),
    _family("BertForSequenceClassification", _sequence_head),
    _family("BertForTokenClassification", lambda reader: HeadConfig(kind="tokens", **read_labels(reader)), ("*pooler.*",)),
    _family("BertForQuestionAnswering", _span_head, ("*pooler.*",)),
)
