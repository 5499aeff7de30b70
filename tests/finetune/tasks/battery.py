"""A row for each task: itself, its data, and a small model that learns by it."""

from typing import Any, NamedTuple

from jaxllm.finetune.tasks import (
    AnyTask,
    QuestionAnswering,
    Regression,
    SentenceEmbedding,
    TextClassification,
    TokenClassification,
)
from jaxllm.models import HeadConfig, ModelConfig, TransformerConfig

SIZE: dict[str, Any] = dict(vocab_size=320, num_layers=1, num_heads=2, embed_dim=16, context_len=64, init_std=0.1)
ENCODER = TransformerConfig(causal=False, token_types=2, head=HeadConfig(kind="none"), **SIZE)
DECODER = TransformerConfig(position="rotary", **SIZE)


class Row(NamedTuple):
    task: AnyTask
    model: ModelConfig
    dataset: str = "reviews"


ROWS = {
    "classes": Row(TextClassification(), ENCODER),
    "classes, decoder": Row(TextClassification(), DECODER),
    "classes, mean": Row(TextClassification(read="mean", pooler=False), ENCODER),
    "weighted": Row(TextClassification(class_weights="balanced"), ENCODER),
    "several": Row(TextClassification(several=True), ENCODER, "topics"),
    "pairs": Row(Regression(), ENCODER, "scores"),
    "questions": Row(QuestionAnswering(stride=8, max_question=16, max_answer=6), ENCODER, "questions"),
    "vectors": Row(SentenceEmbedding(), ENCODER, "scores"),
    "vectors, scores": Row(SentenceEmbedding(loss="cosine", pooling="first"), ENCODER, "scores"),
    "words": Row(TokenClassification(), ENCODER, "names"),
    "words, decoder": Row(TokenClassification(), DECODER, "names"),
}
