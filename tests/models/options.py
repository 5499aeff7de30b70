"""Every choice a config offers, in rows: a new option goes into a row, or adds one, and inherits the batteries.

Options share a row where one cannot hide the other: each changes the numbers by itself, so the reference sees it missing.
"""

from jaxllm.models import EncoderDecoderConfig, ExpertsConfig, HeadConfig, RopeScaling, TransformerConfig

TINY = dict(vocab_size=48, context_len=16, num_layers=2, embed_dim=32, num_heads=4, ffw_dim=48, init_std=0.2, layer_loop="scan")

_GEMMA = dict(
    norm="rms_norm", norm_unit_offset=True, norm_placement="sandwich", embed_scale=5.5, attention_scale=0.3, num_kv_heads=2,
    attention_softcap=2.0, logit_softcap=3.0, qk_norm="head", window=3, full_attention_layers=(1,), activation="geglu_tanh",
    bias=False, position="rotary", rope_theta=50.0, local_rope_theta=7.0,
    rope_scaling=RopeScaling(kind="linear", factor=3.0),
)  # fmt: skip

OPTIONS: dict[str, dict] = {
    "gpt2": dict(layer_loop="unroll", position_offset=2),
    "post_norm": dict(norm_placement="post", final_norm=True, position="sinusoidal", activation="gelu"),
    "no_biases": dict(norm_bias=False, bias=False, attention_output_bias=True, position="sinusoidal", sinusoids="concatenated",
                      position_offset=2, activation="relu", remat="block"),
    "llama": dict(norm="rms_norm", position="rotary", activation="swiglu", bias=False, num_kv_heads=2, head_dim=12,
                  tie_embeddings=False, rope_theta=100.0, rope_scaling=RopeScaling(
                      kind="llama3", factor=4.0, original_context_len=16, low_frequency_factor=0.1, high_frequency_factor=2.0)),
    "alibi": dict(position="alibi", num_kv_heads=1, activation="geglu", norm_barrier=True),
    "gptj": dict(parallel_block=True, position="rotary", rotary_dim=2, qkv_bias=False, attention_output_bias=False,
                 qkv_clip=0.3, norm_scale=False),
    "neox": dict(parallel_block=True, parallel_norms="separate", position="rotary", rotary_dim=4, activation="silu", window=3,
                 final_norm=False, remat="dots"),
    "gemma": _GEMMA,
    "gemma_unrolled": {**_GEMMA, "layer_loop": "unroll"},
    "olmo2": dict(norm="rms_norm", norm_placement="output", qk_norm="width", bias=False, position="rotary", num_kv_heads=2),
    "qwen2": dict(bias=False, qkv_bias=True, position="rotary", activation="swiglu", qk_norm="head", window=4,
                  full_attention_layers=(0,), rope_theta=100.0, head_dim=16, rope_scaling=RopeScaling(
                      kind="yarn", factor=4.0, original_context_len=16, beta_fast=1.5, beta_slow=0.2)),
    "t5": dict(position="relative", relative_buckets=8, relative_max_distance=10, attention_scale=1.0, unembed_scale=0.4,
               norm="rms_norm", bias=False, activation="reglu"),
    "embed_norm": dict(embed_norm=True, first_attention_norm=False, token_types=3, position="sinusoidal",
                       sinusoids="tensor2tensor", position_offset=2),
    "experts": dict(position="none", experts=ExpertsConfig(num_experts=6, top_k=2), activation="swiglu", bias=False),
    "relative_key_query": dict(position="relative_key_query", num_kv_heads=2, attention_scale=0.5),
    "shared_expert": dict(experts=ExpertsConfig(num_experts=4, top_k=3, normalize=False, shared_ffw_dim=20, dispatch="dense")),
}  # fmt: skip

MASKED = HeadConfig(transform=True, bias=True)

ENCODERS: dict[str, dict] = {
    "bert": dict(norm_placement="post", embed_norm=True, token_types=2, activation="gelu", head=MASKED),
    "modernbert": dict(window=3, full_attention_layers=(0,), position="rotary", local_rope_theta=7.0, embed_norm=True,
                       first_attention_norm=False, norm_bias=False, bias=False, activation="geglu", layer_loop="unroll",
                       head=HeadConfig(transform=True, transform_bias=False, transform_activation="silu", bias=True)),
    "relative_bert": dict(position="relative", relative_buckets=8, relative_max_distance=5, num_kv_heads=2, window=4),
    "relative_key_bert": dict(position="relative_key", head=HeadConfig(bias=True), tie_embeddings=False),
    "alibi_bert": dict(position="alibi", norm_scale=False, head=HeadConfig(transform=True, transform_activation="relu")),
}  # fmt: skip


def tiny(name: str, **more) -> TransformerConfig:
    return TransformerConfig(**{**TINY, **OPTIONS[name], **more})


def tiny_encoder(name: str, **more) -> TransformerConfig:
    return TransformerConfig(**{**TINY, "causal": False, **ENCODERS[name], **more})


_RELATIVE = dict(
    position="relative", relative_buckets=8, relative_max_distance=7, attention_scale=1.0, norm="rms_norm", bias=False,
    activation="reglu",
)  # fmt: skip
_BART = dict(position_offset=2, norm_placement="post", embed_norm=True, embed_scale=2.0, activation="gelu")
_UNLIKE = dict(position="rotary", qk_norm="head", norm_placement="post", activation="silu")

PAIRS: dict[str, dict] = {
    "t5": dict(both=_RELATIVE, decoder=dict(tie_embeddings=False)),
    "bart": dict(both=_BART, decoder=dict(head=HeadConfig(bias=True))),
    "separate": dict(both=_UNLIKE, encoder=dict(embed_dim=16, num_layers=1), decoder=dict(num_kv_heads=2), share=False),
}


def tiny_pair(name: str) -> EncoderDecoderConfig:
    row = {"both": {}, "encoder": {}, "decoder": {}, "share": True, **PAIRS[name]}
    shared = {**TINY, **row["both"]}
    return EncoderDecoderConfig(
        encoder=TransformerConfig(**{**shared, "causal": False, "head": HeadConfig(kind="none"), **row["encoder"]}),
        decoder=TransformerConfig(**{**shared, "cross_attention": True, **row["decoder"]}),
        share_embeddings=row["share"],
    )
