"""Writes golden files as families.py does, for encoders of texts and images and their heads.

    python scripts/oracle/encoders.py [NAME ...]        # a Python with torch and transformers; jaxllm is not needed

Beside what families.py writes, a file holds token types and labels. Where a head reads the first token, no row is padded on
the left: transformers would read a padded place. Of a bare encoder `logits` is what its pooler gives, and the loss is a sum of
hidden states and that, with seeded weights.
"""
# pyright: reportMissingImports=false

from typing import Any

import numpy as np
import torch
from families import PADDING, T, build, gradients, main, save

from tests.interchange.seeded import seeded

BERT = {
    "vocab_size": 61,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
}
DISTILBERT = {"vocab_size": 61, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 24}
IMAGE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "image_size": 12,
    "patch_size": 4,
}
CASES: dict[str, dict] = {
    "BertModel": BERT,
    "BertForMaskedLM": {**BERT, "type_vocab_size": 3},
    "BertForSequenceClassification": {
        **BERT,
        "hidden_act": "gelu_new",
        "id2label": {0: "bad", 1: "neither", 2: "good"},
        "label2id": {"bad": 0, "neither": 1, "good": 2},
    },
    "BertForTokenClassification": {**BERT, "num_labels": 5, "layer_norm_eps": 1e-5},
    "BertForQuestionAnswering": BERT,
    "RobertaForMaskedLM": {**BERT, "pad_token_id": 1, "hidden_act": "relu", "type_vocab_size": 1},
    "DistilBertForMaskedLM": DISTILBERT,
    "DistilBertForMaskedLM.untied": {**DISTILBERT, "tie_word_embeddings": False, "activation": "relu"},
    "ModernBertForMaskedLM": {**BERT, "local_attention": 4},
    "ModernBertForMaskedLM.biases": {
        **BERT,
        "local_attention": 5,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "rope_theta": 500.0, "factor": 2.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 20.0},
        },
        "norm_bias": True,
        "attention_bias": True,
        "mlp_bias": True,
        "classifier_bias": True,
        "classifier_activation": "silu",
        "hidden_activation": "gelu_pytorch_tanh",
        "decoder_bias": False,
        "tie_word_embeddings": False,
    },
    "ViTForImageClassification": {**IMAGE, "num_labels": 5, "qkv_bias": False},
    "DeiTForImageClassification": {**IMAGE, "num_labels": 3, "num_channels": 1, "hidden_act": "gelu_pytorch_tanh"},
}
"""Fields of each class's config; those left out have the class's defaults."""
ALONE = {"cls_token_id": None, "sep_token_id": None}
READ_FIRST = ("BertModel", "BertForSequenceClassification")


def text_batch(name: str, config: Any) -> dict[str, torch.Tensor]:
    """Tokens, mask, token types and positions; padded places hold the padding token, which is nowhere else."""
    rng = np.random.default_rng(0)
    mask = np.ones((len(PADDING), T), np.int64)
    for row, (before, after) in enumerate(PADDING):
        if name in READ_FIRST:
            before, after = 0, before + after
        mask[row, :before] = mask[row, T - after :] = 0
    tokens = np.where(mask == 1, rng.integers(2, config.vocab_size, mask.shape), config.pad_token_id)
    batch = {"input_ids": tokens, "attention_mask": mask}
    if getattr(config, "type_vocab_size", None):
        batch["token_type_ids"] = rng.integers(0, config.type_vocab_size, mask.shape)
    if not name.startswith("Roberta"):  # which counts them itself
        batch["position_ids"] = np.maximum(mask.cumsum(1) - 1, 0)
    return {key: torch.from_numpy(value) for key, value in batch.items()}


def labels_of(name: str, config: Any, mask: torch.Tensor) -> torch.Tensor:
    """Labels of each text or image, of each token, or of the two ends of an answer; -100 counts for nothing."""
    rng = np.random.default_rng(1)
    if "SequenceClassification" in name or "Image" in name:
        return torch.from_numpy(rng.integers(0, config.num_labels, len(PADDING)))
    if "QuestionAnswering" in name:
        return torch.from_numpy(np.stack([rng.choice(np.flatnonzero(row), 2) for row in mask.numpy()]))
    count = config.num_labels if "TokenClassification" in name else config.vocab_size
    labels = torch.from_numpy(rng.integers(0, count, mask.shape))
    return labels.masked_fill((mask == 0) | torch.from_numpy(rng.random(mask.shape) < 0.4), -100)


def loss_of(name: str, out: Any, labels: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the file calls logits, and the loss."""
    if name == "BertModel":
        hidden, pooled = out.last_hidden_state, out.pooler_output
        probe = torch.from_numpy(seeded("probe/hidden", tuple(hidden.shape))) * mask[:, :, None]
        other = torch.from_numpy(seeded("probe/pooled", tuple(pooled.shape)))
        return pooled, (hidden * probe).sum() + (pooled * other).sum()
    if "QuestionAnswering" in name:
        logits = torch.stack([out.start_logits, out.end_logits], dim=-1)
        masked = logits.masked_fill(mask[:, :, None] == 0, float("-inf"))
        return logits, torch.nn.functional.cross_entropy(masked.transpose(1, 2).flatten(0, 1), labels.flatten())
    scores, targets = out.logits.flatten(0, -2), labels.flatten()
    return out.logits, torch.nn.functional.cross_entropy(scores, targets, ignore_index=-100)


def forward(name: str, model: torch.nn.Module) -> dict[str, np.ndarray]:
    """Everything one pass gives; the model is of no use afterwards."""
    config: Any = model.config
    if "Image" in name:
        shape = (len(PADDING), config.num_channels, config.image_size, config.image_size)
        batch = {"pixel_values": torch.from_numpy(np.random.default_rng(0).standard_normal(shape).astype(np.float32))}
        tokens = (config.image_size // config.patch_size) ** 2 + (2 if name.startswith("DeiT") else 1)
        mask = torch.ones(len(PADDING), tokens, dtype=torch.int64)
    else:
        batch = text_batch(name, config)
        mask = batch["attention_mask"]
    labels = labels_of(name, config, mask)
    out = model(**batch, output_hidden_states=True, output_attentions=True)
    logits, loss = loss_of(name, out, labels, mask)
    loss.backward()
    names = {"input_ids": "tokens", "token_type_ids": "token_types", "pixel_values": "images"}
    inputs = {ours: batch[theirs].numpy() for theirs, ours in names.items() if theirs in batch}
    if "images" in inputs:
        inputs["images"] = inputs["images"].transpose(0, 2, 3, 1)
    arrays = {**inputs, "mask": mask.numpy(), "labels": labels.numpy()}
    return {
        **{key: value.astype(np.int32) if value.dtype == np.int64 else value for key, value in arrays.items()},
        "logits": logits.detach().numpy(),
        "hidden": torch.stack(out.hidden_states).detach().numpy(),
        "attention": torch.stack(out.attentions).detach().numpy(),
        "loss": loss.detach().numpy(),
        **gradients(model),
    }


def write(name: str) -> None:
    alone = ALONE if name.startswith("ModernBert") else {}
    model, config, shapes = build(name, {**CASES[name], **alone})
    save(name, config, shapes, forward(name, model))


if __name__ == "__main__":
    main("encoders", CASES, write)
