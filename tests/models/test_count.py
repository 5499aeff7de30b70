"""Parameters against the published numbers, operations against sums by hand."""

import pytest

from jaxllm.models import (
    EncoderDecoderConfig,
    ExpertsConfig,
    HeadConfig,
    TransformerConfig,
    VisionConfig,
    count_params,
    train_flops_per_token,
)

GPT2 = TransformerConfig(vocab_size=50257, context_len=1024, num_layers=12, embed_dim=768, num_heads=12)
BERT = TransformerConfig(
    vocab_size=30522, context_len=512, num_layers=12, embed_dim=768, num_heads=12, causal=False, norm_placement="post",
    embed_norm=True, token_types=2, head=HeadConfig(kind="none", pooler=True),
)  # fmt: skip
_T5 = dict(
    vocab_size=32128, num_layers=6, embed_dim=512, num_heads=8, ffw_dim=2048, activation="relu", norm="rms_norm", bias=False,
    position="relative",
)  # fmt: skip
T5_SMALL = EncoderDecoderConfig(
    encoder=TransformerConfig(**_T5, causal=False, head=HeadConfig(kind="none")),
    decoder=TransformerConfig(**_T5, cross_attention=True),
)
VIT_B16 = VisionConfig(
    num_labels=1000,
    encoder=TransformerConfig(num_layers=12, embed_dim=768, num_heads=12, causal=False, position="none"),
)
MIXTRAL = TransformerConfig(
    vocab_size=32000, num_layers=32, embed_dim=4096, num_heads=32, num_kv_heads=8, ffw_dim=14336, activation="swiglu",
    norm="rms_norm", bias=False, position="rotary", tie_embeddings=False, experts=ExpertsConfig(num_experts=8),
)  # fmt: skip


@pytest.mark.parametrize(
    ("config", "published"),
    [
        pytest.param(GPT2, 124_439_808, id="gpt2"),
        pytest.param(BERT, 109_482_240, id="bert-base"),
        pytest.param(T5_SMALL, 60_506_624, id="t5-small"),
        pytest.param(VIT_B16, 86_567_656, id="vit-b16"),
        pytest.param(MIXTRAL, 46_702_792_704, id="mixtral-8x7b"),
    ],
)
def test_exactly_the_published_parameters(config, published):
    assert count_params(config) == published


def test_flops_per_token_of_gpt2():
    """6 for each of the 85.0M block and 38.6M unembedding matrix parameters, and 12 L N H T of attention."""
    assert train_flops_per_token(GPT2, 1024) == 6 * (12 * 12 * 768**2 + 768 * 50257) + 12 * 12 * 768 * 1024


def test_flops_per_token_of_a_masked_lm():
    """The head's dense layer is a matrix more; without a vocabulary none is counted."""
    blocks = 6 * 12 * 12 * 768**2 + 12 * 12 * 768 * 512
    assert train_flops_per_token(BERT, 512) == blocks
    masked = TransformerConfig(vocab_size=30522, num_layers=12, embed_dim=768, num_heads=12, head=HeadConfig(transform=True))
    assert train_flops_per_token(masked, 512) == blocks + 6 * (768 * 30522 + 768**2)


def test_flops_per_token_of_experts():
    """Two experts of eight and the router; a shared expert is met always."""
    attention, expert = 4096**2 * 2 + 2 * 4096 * 1024, 3 * 4096 * 14336
    want = 6 * (32 * (attention + 2 * expert + 8 * 4096) + 4096 * 32000) + 12 * 32 * 4096 * 2048
    assert train_flops_per_token(MIXTRAL, 2048) == want
    shared = TransformerConfig(
        vocab_size=10,
        num_layers=1,
        embed_dim=8,
        num_heads=2,
        ffw_dim=16,
        experts=ExpertsConfig(num_experts=4, shared_ffw_dim=6),
    )
    assert train_flops_per_token(shared, 5) == 6 * (4 * 64 + 2 * (2 * 8 * 16) + 2 * 8 * 6 + 8 * 4 + 80) + 12 * 8 * 5


def test_flops_per_token_of_a_window():
    config = TransformerConfig(vocab_size=10, num_layers=3, embed_dim=8, num_heads=2, window=4, full_attention_layers=(1,))
    assert train_flops_per_token(config, 16) == 6 * (3 * 12 * 64 + 80) + 12 * 8 * (4 + 16 + 4)
    assert train_flops_per_token(config, 2) == 6 * (3 * 12 * 64 + 80) + 12 * 8 * (2 + 2 + 2)


def test_flops_per_token_of_an_encoder_and_decoder():
    """Three attentions and two feed-forward layers a pair of layers; keys and values of the third have the encoder's width."""
    attention, widen = 4 * 512**2, 2 * 512 * 2048
    want = 6 * (6 * (3 * attention + 2 * widen) + 512 * 32128) + 3 * 12 * 6 * 512 * 100
    assert train_flops_per_token(T5_SMALL, 100) == want
    small = EncoderDecoderConfig(
        encoder=TransformerConfig(
            vocab_size=9, num_layers=1, embed_dim=4, num_heads=2, causal=False, head=HeadConfig(kind="none")
        ),
        decoder=TransformerConfig(vocab_size=10, num_layers=1, embed_dim=8, num_heads=2, cross_attention=True),
        share_embeddings=False,
    )
    matrices = 12 * 4**2 + 12 * 8**2 + (2 * 8 * 8 + 2 * 4 * 8) + 8 * 10
    assert train_flops_per_token(small, 7) == 6 * matrices + 12 * 7 * (4 + 8 + 8)


def test_flops_of_an_image():
    """197 tokens meet the blocks, 196 the patch projection, one the classifier."""
    blocks = 197 * (6 * 12 * 12 * 768**2 + 12 * 12 * 768 * 197)
    assert train_flops_per_token(VIT_B16, 197) == blocks + 196 * 6 * 768 * 768 + 6 * 768 * 1000
