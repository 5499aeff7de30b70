"""Every choice a config offers, as a row: a new option adds a row here and inherits the battery."""

from jaxllm.models import TransformerConfig

TINY = dict(
    vocab_size=32, context_len=16, num_layers=2, embed_dim=32, num_heads=4, ffw_dim=48, init_std=0.2, layer_loop="unroll"
)

OPTIONS: dict[str, dict] = {
    "gpt2": {},
    "scan": dict(layer_loop="scan"),
    "rms_norm": dict(norm="rms_norm"),
    "no_norm_bias": dict(norm_bias=False, bias=False),
    "post_norm": dict(norm_placement="post"),
    "sandwich_norm": dict(norm_placement="sandwich"),
    "sinusoidal": dict(position="sinusoidal"),
    "rotary": dict(position="rotary"),
    "alibi": dict(position="alibi"),
    "no_positions": dict(position="none"),
    "gelu": dict(activation="gelu"),
    "relu": dict(activation="relu"),
    "swiglu": dict(activation="swiglu", bias=False),
    "geglu": dict(activation="geglu"),
    "grouped_query": dict(num_kv_heads=2, head_dim=12),
    "multi_query": dict(num_kv_heads=1),
    "window": dict(window=3, position="rotary"),
    "qk_norm": dict(qk_norm="head", position="rotary"),
    "softcap": dict(attention_softcap=2.0, logit_softcap=3.0),
    "untied": dict(tie_embeddings=False),
    "parallel": dict(parallel_block=True),
    "llama": dict(norm="rms_norm", position="rotary", activation="swiglu", bias=False, num_kv_heads=2, tie_embeddings=False),
    "norm_barrier": dict(norm_barrier=True),
    "remat_full": dict(remat="full"),
    "remat_dots": dict(remat="dots", layer_loop="scan"),
}


def tiny(name: str, **more) -> TransformerConfig:
    return TransformerConfig(**{**TINY, **OPTIONS[name], **more})
