"""What config.json says of models that people use, and how many parameters they have, tied ones once.

Fields as they were published, each file in the spelling of its time; of tokens and versions a few.
"""

from typing import Any

SMALL_PRINT = {
    "bos_token_id": 1,
    "eos_token_id": [2, 3],
    "initializer_range": 0.02,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.40.1",
    "use_cache": True,
}
"""In every file."""


def _llama_like(architecture: str, kind: str, vocab: int, context: int, layers: int, width: int, ffw: int, heads: int, **more):
    return {
        "architectures": [architecture],
        "model_type": kind,
        "vocab_size": vocab,
        "max_position_embeddings": context,
        "num_hidden_layers": layers,
        "hidden_size": width,
        "intermediate_size": ffw,
        "num_attention_heads": heads,
        "hidden_act": "silu",
        **SMALL_PRINT,
        **more,
    }


_LLAMA = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "mlp_bias": False,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}
_LLAMA_32 = {
    "factor": 32.0,
    "high_freq_factor": 4.0,
    "low_freq_factor": 1.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
_QWEN = {"attention_dropout": 0.0, "rms_norm_eps": 1e-6, "use_sliding_window": False}
_QWEN3 = _QWEN | {
    "attention_bias": False,
    "head_dim": 128,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
}
_GEMMA = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "cache_implementation": "hybrid",
    "head_dim": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "pad_token_id": 0,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-6,
}
_GEMMA2 = _GEMMA | {
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "hidden_act": "gelu_pytorch_tanh",
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "sliding_window_size": 4096,
}
_GEMMA3 = _GEMMA | {
    "attn_logit_softcapping": None,
    "final_logit_softcapping": None,
    "rope_local_base_freq": 10000,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
}
_OLMO = {"attention_bias": False, "attention_dropout": 0.0, "pad_token_id": 1, "rope_scaling": None}
_PHI3 = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "auto_map": {"AutoConfig": "configuration_phi3.Phi3Config", "AutoModelForCausalLM": "modeling_phi3.Phi3ForCausalLM"},
    "embd_pdrop": 0.0,
    "num_key_value_heads": 32,
    "original_max_position_embeddings": 4096,
    "pad_token_id": 32000,
    "resid_pdrop": 0.0,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
}

_T5 = {
    "architectures": ["T5ForConditionalGeneration"],
    "d_kv": 64,
    "d_model": 512,
    "decoder_start_token_id": 0,
    "dropout_rate": 0.1,
    "eos_token_id": 1,
    "initializer_factor": 1.0,
    "is_encoder_decoder": True,
    "layer_norm_epsilon": 1e-6,
    "model_type": "t5",
    "n_positions": 512,
    "output_past": True,
    "pad_token_id": 0,
    "relative_attention_num_buckets": 32,
    "use_cache": True,
    "vocab_size": 32128,
}
_BART = {
    "_num_labels": 3,
    "activation_dropout": 0.0,
    "add_bias_logits": False,
    "add_final_layer_norm": False,
    "attention_dropout": 0.0,
    "classif_dropout": 0.0,
    "classifier_dropout": 0.0,
    "decoder_layerdrop": 0.0,
    "decoder_layers": 6,
    "dropout": 0.1,
    "encoder_layerdrop": 0.0,
    "encoder_layers": 6,
    "gradient_checkpointing": False,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"},
    "init_std": 0.02,
    "is_encoder_decoder": True,
    "label2id": {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2},
    "normalize_before": False,
    "num_hidden_layers": 6,
    "transformers_version": "4.22.0.dev0",
    "use_cache": True,
}


def _stacks(width: int, heads: int, ffw: int) -> dict[str, int]:
    sizes = {"attention_heads": heads, "ffn_dim": ffw}
    return {"d_model": width} | {f"{stack}_{name}": size for stack in ("encoder", "decoder") for name, size in sizes.items()}


PUBLISHED: dict[str, tuple[int, dict[str, Any]]] = {
    "gpt2": (
        124_439_808,
        {
            "activation_function": "gelu_new",
            "architectures": ["GPT2LMHeadModel"],
            "attn_pdrop": 0.1,
            "bos_token_id": 50256,
            "embd_pdrop": 0.1,
            "initializer_range": 0.02,
            "layer_norm_epsilon": 1e-5,
            "model_type": "gpt2",
            "n_ctx": 1024,
            "n_embd": 768,
            "n_head": 12,
            "n_layer": 12,
            "n_positions": 1024,
            "resid_pdrop": 0.1,
            "summary_activation": None,
            "summary_first_dropout": 0.1,
            "summary_proj_to_labels": True,
            "summary_type": "cls_index",
            "summary_use_proj": True,
            "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
            "vocab_size": 50257,
        },
    ),
    "pythia-70m": (
        70_426_624,
        {
            "architectures": ["GPTNeoXForCausalLM"],
            "bos_token_id": 0,
            "eos_token_id": 0,
            "hidden_act": "gelu",
            "hidden_size": 512,
            "initializer_range": 0.02,
            "intermediate_size": 2048,
            "layer_norm_eps": 1e-5,
            "max_position_embeddings": 2048,
            "model_type": "gpt_neox",
            "num_attention_heads": 8,
            "num_hidden_layers": 6,
            "rotary_emb_base": 10000,
            "rotary_pct": 0.25,
            "tie_word_embeddings": False,
            "torch_dtype": "float16",
            "transformers_version": "4.24.0",
            "use_cache": True,
            "use_parallel_residual": True,
            "vocab_size": 50304,
        },
    ),
    "SmolLM2-135M": (
        134_515_008,
        _llama_like("LlamaForCausalLM", "llama", 49152, 8192, 30, 576, 1536, 9, num_key_value_heads=3, rope_theta=100000)
        | _LLAMA
        | {
            "is_llama_config": True,
            "rope_interleaved": False,
            "rope_scaling": None,
            "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}},
        },
    ),
    "Llama-2-7b-hf": (
        6_738_415_616,
        _llama_like("LlamaForCausalLM", "llama", 32000, 4096, 32, 4096, 11008, 32, num_key_value_heads=32, rope_scaling=None)
        | {"pretraining_tp": 1, "rms_norm_eps": 1e-5, "tie_word_embeddings": False},
    ),
    "Llama-3.2-1B": (
        1_235_814_400,
        _llama_like("LlamaForCausalLM", "llama", 128256, 131072, 16, 2048, 8192, 32, num_key_value_heads=8, head_dim=64)
        | _LLAMA
        | {"rope_scaling": _LLAMA_32, "rope_theta": 500000.0},
    ),
    "Mistral-7B-v0.1": (
        7_241_732_096,
        _llama_like("MistralForCausalLM", "mistral", 32000, 32768, 32, 4096, 14336, 32, num_key_value_heads=8)
        | {"rms_norm_eps": 1e-5, "rope_theta": 10000.0, "sliding_window": 4096, "tie_word_embeddings": False},
    ),
    "Mistral-7B-v0.3": (
        7_248_023_552,
        _llama_like("MistralForCausalLM", "mistral", 32768, 32768, 32, 4096, 14336, 32, num_key_value_heads=8)
        | {"attention_dropout": 0.0, "rms_norm_eps": 1e-5, "rope_theta": 1000000.0, "sliding_window": None}
        | {"tie_word_embeddings": False},
    ),
    "Qwen2.5-0.5B": (
        494_032_768,
        _llama_like("Qwen2ForCausalLM", "qwen2", 151936, 32768, 24, 896, 4864, 14, num_key_value_heads=2, max_window_layers=24)
        | _QWEN
        | {"rope_theta": 1000000.0, "sliding_window": 32768, "tie_word_embeddings": True, "use_mrope": False},
    ),
    "Qwen2.5-7B-Instruct": (
        7_615_616_512,
        _llama_like(
            "Qwen2ForCausalLM", "qwen2", 152064, 32768, 28, 3584, 18944, 28, num_key_value_heads=4, max_window_layers=28
        )
        | _QWEN
        | {"rope_theta": 1000000.0, "sliding_window": 131072, "tie_word_embeddings": False},
    ),
    "Qwen3-0.6B": (
        596_049_920,
        _llama_like("Qwen3ForCausalLM", "qwen3", 151936, 40960, 28, 1024, 3072, 16, num_key_value_heads=8, max_window_layers=28)
        | _QWEN3
        | {"tie_word_embeddings": True},
    ),
    "gemma-2-2b": (
        2_614_341_888,
        _llama_like("Gemma2ForCausalLM", "gemma2", 256000, 8192, 26, 2304, 9216, 8, num_key_value_heads=4) | _GEMMA2,
    ),
    "gemma-2-27b": (
        27_227_128_320,
        _llama_like("Gemma2ForCausalLM", "gemma2", 256000, 8192, 46, 4608, 36864, 32, num_key_value_heads=16)
        | _GEMMA2
        | {"head_dim": 128, "query_pre_attn_scalar": 144},
    ),
    "gemma-3-1b-it": (
        999_885_952,
        {
            name: value
            for name, value in _llama_like("Gemma3ForCausalLM", "gemma3_text", 262144, 32768, 26, 1152, 6912, 4).items()
            if name != "hidden_act"
        }
        | _GEMMA3
        | {"num_key_value_heads": 1},
    ),
    "phi-2": (
        2_779_683_840,
        _llama_like("PhiForCausalLM", "phi", 51200, 2048, 32, 2560, 10240, 32, num_key_value_heads=32, rope_scaling=None)
        | {
            "attention_dropout": 0.0,
            "embd_pdrop": 0.0,
            "hidden_act": "gelu_new",
            "layer_norm_eps": 1e-5,
            "partial_rotary_factor": 0.4,
            "qk_layernorm": False,
            "resid_pdrop": 0.1,
            "rope_theta": 10000.0,
            "tie_word_embeddings": False,
        },
    ),
    "Phi-3-mini-4k-instruct": (
        3_821_079_552,
        _llama_like("Phi3ForCausalLM", "phi3", 32064, 4096, 32, 3072, 8192, 32, rope_scaling=None, sliding_window=2047) | _PHI3,
    ),
    "Mixtral-8x7B-v0.1": (
        46_702_792_704,
        _llama_like("MixtralForCausalLM", "mixtral", 32000, 32768, 32, 4096, 14336, 32, num_key_value_heads=8)
        | {
            "attention_dropout": 0.0,
            "num_experts_per_tok": 2,
            "num_local_experts": 8,
            "output_router_logits": False,
            "rms_norm_eps": 1e-5,
            "rope_theta": 1000000.0,
            "router_aux_loss_coef": 0.02,
            "sliding_window": None,
            "tie_word_embeddings": False,
        },
    ),
    "Qwen3-30B-A3B": (
        30_532_122_624,
        _llama_like("Qwen3MoeForCausalLM", "qwen3_moe", 151936, 40960, 48, 2048, 6144, 32, num_key_value_heads=4)
        | _QWEN3
        | {
            "decoder_sparse_step": 1,
            "max_window_layers": 48,
            "mlp_only_layers": [],
            "moe_intermediate_size": 768,
            "norm_topk_prob": True,
            "num_experts": 128,
            "num_experts_per_tok": 8,
            "output_router_logits": False,
            "router_aux_loss_coef": 0.001,
            "tie_word_embeddings": False,
        },
    ),
    "OLMo-1B-hf": (
        1_176_764_416,
        _llama_like("OlmoForCausalLM", "olmo", 50304, 2048, 16, 2048, 8192, 16, num_key_value_heads=16)
        | _OLMO
        | {"clip_qkv": None, "pretraining_tp": 1, "rope_theta": 10000.0, "tie_word_embeddings": True},
    ),
    "OLMo-2-0425-1B": (
        1_484_916_736,
        _llama_like("Olmo2ForCausalLM", "olmo2", 100352, 4096, 16, 2048, 8192, 16, num_key_value_heads=16)
        | _OLMO
        | {"rms_norm_eps": 1e-6, "rope_theta": 500000, "tie_word_embeddings": False},
    ),
    "t5-small": (
        60_506_624,
        _T5 | {"d_ff": 2048, "num_heads": 8, "num_layers": 6, "task_specific_params": {"summarization": {"num_beams": 4}}},
    ),
    "flan-t5-small": (
        76_961_152,
        _T5
        | {"d_ff": 1024, "num_heads": 6, "num_layers": 8, "num_decoder_layers": 8, "relative_attention_max_distance": 128}
        | {"feed_forward_proj": "gated-gelu", "dense_act_fn": "gelu_new", "is_gated_act": True, "tie_word_embeddings": False},
    ),
    "bart-base": (
        139_420_416,
        _BART
        | _stacks(768, 12, 3072)
        | {
            "activation_function": "gelu",
            "architectures": ["BartModel"],
            "decoder_start_token_id": 2,
            "early_stopping": True,
            "eos_token_id": 2,
            "forced_bos_token_id": 0,
            "forced_eos_token_id": 2,
            "max_position_embeddings": 1024,
            "model_type": "bart",
            "no_repeat_ngram_size": 3,
            "normalize_embedding": True,
            "num_beams": 4,
            "pad_token_id": 1,
            "scale_embedding": False,
            "vocab_size": 50265,
        },
    ),
    "opus-mt-en-de": (
        73_944_309,
        _BART
        | _stacks(512, 8, 2048)
        | {
            "activation_function": "swish",
            "architectures": ["MarianMTModel"],
            "bad_words_ids": [[58100]],
            "decoder_start_token_id": 58100,
            "decoder_vocab_size": 58101,
            "eos_token_id": 0,
            "forced_eos_token_id": 0,
            "max_length": 512,
            "max_position_embeddings": 512,
            "model_type": "marian",
            "normalize_embedding": False,
            "num_beams": 6,
            "pad_token_id": 58100,
            "scale_embedding": True,
            "share_encoder_decoder_embeddings": True,
            "static_position_embeddings": True,
            "vocab_size": 58101,
        },
    ),
}
"""Name -> number of parameters, fields."""
