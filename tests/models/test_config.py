"""Every impossible config is refused, with what was expected and what was given."""

import pytest

from jaxllm.models import ExpertsConfig, HeadConfig, RopeScaling, TransformerConfig


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(num_layers=0), "num_layers must be at least 1: got 0"),
        (dict(rotary_dim=0), "rotary_dim must be at least 1: got 0"),
        (dict(token_types=0), "token_types must be at least 1: got 0"),
        (dict(qkv_clip=0.0), "qkv_clip must be positive: got 0.0; leave it out to switch it off"),
        (dict(attention_softcap=-1.0), "attention_softcap must be positive: got -1.0"),
        (dict(dropout=1.0), r"dropout must be in \[0, 1\): got 1.0"),
        (dict(embed_dim=768, num_heads=7), "num_heads must divide embed_dim: got embed_dim=768, num_heads=7"),
        (dict(num_heads=4, num_kv_heads=3), "num_kv_heads must divide num_heads: got num_heads=4, num_kv_heads=3"),
        (dict(position="rotary", head_dim=7), "rotary positions need an even head_dim: got 7"),
        (dict(position="rotary", rotary_dim=3), "rotary positions need an even rotary_dim: got 3"),
        (dict(head_dim=8, rotary_dim=10), "rotary_dim must be at most head_dim: got 10 and 8"),
        (dict(position="relative", relative_buckets=1), "at least 2 relative_buckets and .* over 0: got 1 and 128"),
        (dict(position="relative", causal=False, relative_buckets=3), "at least 4 relative_buckets"),
        (dict(position="relative", relative_max_distance=16), "a relative_max_distance over 16: got 32 and 16"),
        (dict(parallel_block=True, norm_placement="post"), "parallel_block needs norm_placement='pre': got 'post'"),
        (dict(parallel_block=True, cross_attention=True), "cross_attention needs parallel_block=False"),
        (dict(first_attention_norm=False, norm_placement="post"), "first_attention_norm=False needs norm_placement='pre' or"),
        (dict(full_attention_layers=(0,)), r"full_attention_layers needs a window: got \(0,\) and window=None"),
        (dict(window=2, full_attention_layers=(1, 4)), r"full_attention_layers must be in 0..3: got \(1, 4\)"),
    ],
)
def test_impossible_configs_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        TransformerConfig(**fields)


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (RopeScaling, dict(kind="linear", factor=0.5), "rope_scaling.factor must be at least 1: got 0.5"),
        (RopeScaling, dict(kind="yarn", factor=2.0), "rope_scaling.original_context_len must be set for kind='yarn'"),
        (
            RopeScaling,
            dict(kind="llama3", factor=2.0, original_context_len=8, low_frequency_factor=4.0),
            "rope_scaling.low_frequency_factor must be under high_frequency_factor: got 4.0 and 4.0",
        ),
        (ExpertsConfig, dict(num_experts=2, top_k=3), "experts.top_k must be in 1..num_experts: got top_k=3, num_experts=2"),
        (ExpertsConfig, dict(num_experts=2, top_k=0), "got top_k=0, num_experts=2"),
        (HeadConfig, dict(kind="sequence", num_labels=0), "head.num_labels must be at least 1 for head.kind='sequence': got 0"),
        (HeadConfig, dict(kind="tokens", num_labels=0), "head.num_labels must be at least 1 for head.kind='tokens': got 0"),
        (
            HeadConfig,
            dict(kind="tokens", num_labels=3, label_names=("a", "b")),
            "head.label_names must be num_labels names: got 2 for 3",
        ),
    ],
)
def test_impossible_parts_are_refused(kind, fields, message):
    with pytest.raises(ValueError, match=message):
        kind(**fields)


def test_a_vocabulary_must_be_known():
    with pytest.raises(ValueError, match="vocab_size is not set: give it, or let the recipe take it from the tokenizer"):
        _ = TransformerConfig().vocabulary
