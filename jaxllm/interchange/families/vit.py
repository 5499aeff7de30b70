"""ViT, and DeiT, which has a second token beside the class token."""

from typing import Any

from jaxllm.interchange.config_reader import ConfigReader
from jaxllm.interchange.family import Family
from jaxllm.interchange.fields import read_activation, write_activation
from jaxllm.interchange.keymap import Tensor
from jaxllm.interchange.labels import read_labels, write_labels
from jaxllm.interchange.rows import from_heads, linear, norm, to_heads
from jaxllm.models import TransformerConfig, VisionConfig


def _read(reader: ConfigReader, *, distillation_token: bool) -> VisionConfig:
    reader.ignore("attention_probs_dropout_prob", "encoder_stride", "pooler_output_size", "pooler_act")
    encoder = TransformerConfig(
        num_layers=reader.read("num_hidden_layers"),
        embed_dim=reader.read("hidden_size"),
        num_heads=reader.read("num_attention_heads"),
        ffw_dim=reader.read("intermediate_size"),
        causal=False,
        position="none",
        activation=read_activation(reader, "hidden_act", "gelu"),
        norm_epsilon=reader.read("layer_norm_eps", 1e-12),
        qkv_bias=reader.read("qkv_bias", True),
        dropout=float(reader.read("hidden_dropout_prob", 0.0)),
    )
    return VisionConfig(
        image_size=reader.read("image_size", 224),
        patch_size=reader.read("patch_size", 16),
        channels=reader.read("num_channels", 3),
        distillation_token=distillation_token,
        encoder=encoder,
        **read_labels(reader),
    )


def _write(config: VisionConfig, architecture: str, model_type: str) -> dict[str, Any]:
    encoder = config.encoder
    return {
        "architectures": [architecture],
        "model_type": model_type,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "num_channels": config.channels,
        "num_hidden_layers": encoder.num_layers,
        "hidden_size": encoder.embed_dim,
        "num_attention_heads": encoder.num_heads,
        "intermediate_size": encoder.ffw_width,
        "hidden_act": write_activation(encoder.activation),
        "layer_norm_eps": encoder.norm_epsilon,
        "qkv_bias": _qkv_bias(config),
        "hidden_dropout_prob": encoder.dropout,
        "attention_probs_dropout_prob": encoder.dropout,
        **write_labels(config.num_labels, config.label_names),
    }


def _qkv_bias(config: VisionConfig) -> bool:
    return config.encoder.bias if config.encoder.qkv_bias is None else config.encoder.qkv_bias


def _tensors(config: VisionConfig, model: str) -> list[Tensor]:
    block, layer, size = f"{model}.encoder.layer.{{layer}}", "layers", config.patch_size
    patches = linear(f"{model}.embeddings.patch_embeddings.projection", "patch", f"D C {size} {size} -> ({size} {size} C) D")
    marks = ("cls_token", "class_token"), ("distillation_token", "distillation_token")
    rows = [Tensor(f"{model}.embeddings.{name}", ours, "1 1 D -> D") for name, ours in marks[: 1 + config.distillation_token]]
    rows += [*patches, Tensor(f"{model}.embeddings.position_embeddings", "position", "1 T D -> T D")]
    for part in ("query", "key", "value"):
        rows += to_heads(f"{block}.attention.attention.{part}", f"{layer}/attention/{part}", use_bias=_qkv_bias(config))
    return [
        *rows,
        *from_heads(f"{block}.attention.output.dense", f"{layer}/attention/output"),
        *norm(f"{block}.layernorm_before", f"{layer}/attention_norm"),
        *norm(f"{block}.layernorm_after", f"{layer}/ffw_norm"),
        *linear(f"{block}.intermediate.dense", f"{layer}/ffw/up"),
        *linear(f"{block}.output.dense", f"{layer}/ffw/down"),
        *norm(f"{model}.layernorm", "final_norm"),
        *linear("classifier", "classifier"),
    ]


def _family(architecture: str, model: str, *, distillation_token: bool) -> Family:
    return Family(
        architectures=(architecture,),
        read_config=lambda reader: _read(reader, distillation_token=distillation_token),
        write_config=lambda config: _write(config, architecture, model),
        tensors=lambda config: _tensors(config, model),
        ignored=("*pooler.*",),
        prefix=f"{model}.",
    )


FAMILIES = (
    _family("ViTForImageClassification", "vit", distillation_token=False),
    _family("DeiTForImageClassification", "deit", distillation_token=True),
)
