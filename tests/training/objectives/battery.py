"""A row for each objective: itself, the data it reads, and a small model that learns by it."""

from typing import Any, NamedTuple

from jaxllm.data import TokenizerConfig
from jaxllm.models import EncoderDecoderConfig, HeadConfig, ModelConfig, TransformerConfig, VisionConfig
from jaxllm.training.objectives import (
    AnyObjective,
    CausalLM,
    Denoising,
    ImageClassification,
    MaskedLM,
    PrefixLM,
    SequenceToSequence,
    SpanCorruption,
)

SIZE: dict[str, Any] = dict(vocab_size=384, num_layers=2, num_heads=2, embed_dim=16, context_len=64, init_std=0.1)
DECODER = TransformerConfig(**SIZE)
ENCODER = TransformerConfig(causal=False, head=HeadConfig(transform=True, bias=True), **SIZE)
BOTH = EncoderDecoderConfig(
    encoder=TransformerConfig(causal=False, head=HeadConfig(kind="none"), **SIZE),
    decoder=TransformerConfig(cross_attention=True, **SIZE),
    start_id=2,
)
VISION = VisionConfig(
    image_size=8, patch_size=4, num_labels=2, encoder=TransformerConfig(causal=False, **{**SIZE, "position": "none"})
)
BPE = TokenizerConfig(kind="bpe", vocab_size=320)


class Row(NamedTuple):
    objective: AnyObjective
    model: ModelConfig
    data: dict[str, Any] = {}

    @property
    def classes(self) -> int:
        """What a target is chosen among."""
        return 2 if isinstance(self.model, VisionConfig) else SIZE["vocab_size"]


ROWS = {
    "causal": Row(CausalLM(), DECODER),
    "prefix": Row(PrefixLM(), DECODER, {"packing": "fit"}),
    "masked": Row(MaskedLM(), ENCODER),
    "masked words": Row(MaskedLM(whole_words=True), ENCODER, {"packing": "fit"}),
    "masked spans": Row(MaskedLM(spans="geometric"), ENCODER, {"tokenizer": TokenizerConfig()}),
    "spans": Row(SpanCorruption(), BOTH, {"tokenizer": BPE}),
    "denoising": Row(Denoising(), BOTH, {"tokenizer": BPE}),
    "pairs": Row(SequenceToSequence(target_len=24), BOTH, {"dataset": "pairs", "tokenizer": BPE}),
    "images": Row(ImageClassification(crop_padding=1), VISION),
    "mixed images": Row(ImageClassification(mixup=0.5, cutmix=0.5), VISION),
}
