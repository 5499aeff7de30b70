"""Configs of models that people use are accepted, give models of the right size, and can be written again."""

import math
from typing import Any

import jax
import pytest

from jaxllm.interchange import ConfigReader, find_family
from jaxllm.interchange.export import published_config
from jaxllm.interchange.keymap import bind_all, published_shapes
from jaxllm.interchange.open import read_config
from jaxllm.models import abstract_params, make_model
from tests.interchange.published_configs import PUBLISHED


def read(fields: dict[str, Any]) -> tuple[Any, Any]:
    reader = ConfigReader(fields, "config.json")
    family = find_family(reader.architecture)
    return family, read_config(family, reader)


@pytest.mark.parametrize("name", PUBLISHED)
def test_size_and_key_map(name):
    """Every parameter is in the key map, and the published tensors hold as many numbers."""
    count, fields = PUBLISHED[name]
    family, config = read(fields)
    leaves = jax.tree_util.tree_leaves_with_path(abstract_params(make_model(config))[0])
    shapes = {"/".join(str(key.key) for key in keys): tuple(leaf.shape) for keys, leaf in leaves}
    published = published_shapes(bind_all(family.tensors(config), shapes))
    assert sum(map(math.prod, shapes.values())) == count
    assert sum(map(math.prod, published.values())) == count


@pytest.mark.parametrize("name", PUBLISHED)
def test_writing_it_again_loses_nothing(name):
    family, config = read(PUBLISHED[name][1])
    published_config(family, config)  # raises where reading back gives something else


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pythia-70m", {"rotary_dim": 16, "parallel_block": True, "parallel_norms": "separate"}),
        ("SmolLM2-135M", {"rope_theta": 100_000.0, "tie_embeddings": True, "num_kv_heads": 3}),
        ("Mistral-7B-v0.1", {"window": 4096}),
        ("Mistral-7B-v0.3", {"window": None}),
        ("Qwen2.5-0.5B", {"window": None, "qkv_bias": True, "bias": False}),
        ("gemma-2-2b", {"window": 4096, "full_attention_layers": tuple(range(1, 26, 2)), "attention_scale": None}),
        ("gemma-2-27b", {"attention_scale": 144**-0.5, "attention_softcap": 50.0, "logit_softcap": 30.0}),
        (
            "gemma-3-1b-it",
            {"window": 512, "full_attention_layers": (5, 11, 17, 23), "rope_theta": 1e6, "local_rope_theta": 1e4},
        ),
        ("phi-2", {"rotary_dim": 32, "dropout": 0.1}),
        ("Phi-3-mini-4k-instruct", {"window": 2047, "rotary_dim": None}),
        ("OLMo-2-0425-1B", {"norm_placement": "output", "qk_norm": "width"}),
    ],
)
def test_fields_that_are_easily_missed(name, expected):
    _, config = read(PUBLISHED[name][1])
    assert {field: getattr(config, field) for field in expected} == expected


@pytest.mark.parametrize(
    ("name", "silent", "expected"),
    [
        ("pythia-70m", "rotary_pct", {"rotary_dim": 16}),
        ("Llama-2-7b-hf", "num_key_value_heads", {"kv_heads": 32}),
        ("Mistral-7B-v0.1", "num_key_value_heads", {"kv_heads": 8}),
        ("Mistral-7B-v0.1", "sliding_window", {"window": 4096}),
        ("Qwen3-0.6B", "head_dim", {"head_width": 128}),
        ("gemma-2-2b", "num_key_value_heads", {"kv_heads": 4}),
        ("gemma-2-2b", "tie_word_embeddings", {"tie_embeddings": True}),
        ("gemma-3-1b-it", "sliding_window_pattern", {"full_attention_layers": (5, 11, 17, 23)}),
        ("phi-2", "partial_rotary_factor", {"rotary_dim": 40}),
        ("Mixtral-8x7B-v0.1", "rope_theta", {"rope_theta": 1e6}),
        ("OLMo-2-0425-1B", "rms_norm_eps", {"norm_epsilon": 1e-5}),
    ],
)
def test_where_the_file_is_silent_the_class_decides(name, silent, expected):
    fields = {field: value for field, value in PUBLISHED[name][1].items() if field != silent}
    _, config = read(fields)
    assert {field: getattr(config, field) for field in expected} == expected


LLAMA_3, GEMMA_3 = PUBLISHED["Llama-3.2-1B"][1], PUBLISHED["gemma-3-1b-it"][1]
_OLD = ("rope_theta", "rope_scaling", "rope_local_base_freq", "sliding_window_pattern")


def in_new_spelling(fields: dict[str, Any], **rope: Any) -> dict[str, Any]:
    """As transformers 5 writes it."""
    return {name: value for name, value in fields.items() if name not in _OLD} | {"rope_parameters": rope}


def test_old_and_new_spelling_of_rotary_positions():
    scaling = LLAMA_3["rope_scaling"]
    assert read(in_new_spelling(LLAMA_3, rope_theta=500000.0, **scaling)) == read(LLAMA_3)
    older = scaling | {"type": scaling["rope_type"]}
    del older["rope_type"]
    assert read(LLAMA_3 | {"rope_scaling": older}) == read(LLAMA_3)


def test_old_and_new_spelling_of_two_rotary_positions():
    layers = ["full_attention" if (layer + 1) % 6 == 0 else "sliding_attention" for layer in range(26)]
    linear = {"rope_type": "linear", "factor": 8.0}
    local = {"rope_type": "default", "rope_theta": 10000.0}
    new = in_new_spelling(GEMMA_3, full_attention=linear | {"rope_theta": 1e6}, sliding_attention=local)
    assert read(new | {"layer_types": layers}) == read(GEMMA_3 | {"rope_scaling": linear})


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("Llama-3.2-1B", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "type in rope_scaling .* 'dynamic'"),
        ("Llama-3.2-1B", {"rope_scaling": {"rope_type": "longrope"}}, "rope_type in rope_scaling .* 'longrope'"),
        ("Llama-3.2-1B", {"partial_rotary_factor": 0.5}, "partial_rotary_factor in config.json must be 1.0"),
        ("Llama-3.2-1B", {"quantization_config": {"bits": 4}}, "quantization_config="),
        ("pythia-70m", {"rope_theta": 500.0}, "rope_theta in config.json must be 10000"),
        ("Qwen2.5-0.5B", {"layer_types": ["sliding_attention"] * 24}, "layer_types in config.json"),
        ("Qwen2.5-0.5B", {"use_mrope": True}, "use_mrope=True"),
        ("gemma-2-2b", {"use_bidirectional_attention": True}, "use_bidirectional_attention in config.json"),
        ("gemma-2-2b", {"layer_types": ["chunked_attention"] * 26}, "layer_types in config.json must be full_attention or"),
        ("gemma-3-1b-it", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping in config.json must be None"),
        (
            "gemma-3-1b-it",
            {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}, "rope_scaling": None},
            "rope_type of sliding_attention in rope_parameters in config.json must be 'default'",
        ),
        ("phi-2", {"qk_layernorm": True}, "qk_layernorm in config.json must be False"),
        ("Phi-3-mini-4k-instruct", {"rope_scaling": {"type": "longrope"}}, "type in rope_scaling .* 'longrope'"),
        ("Phi-3-mini-4k-instruct", {"rope_scaling": {"type": "yarn", "factor": 2.0}}, "rope_type .* 'default' .* 'yarn'"),
        ("Mixtral-8x7B-v0.1", {"router_jitter_noise": 0.1}, "router_jitter_noise in config.json must be 0.0"),
        ("Qwen3-30B-A3B", {"mlp_only_layers": [0]}, "mlp_only_layers in config.json"),
        ("Qwen3-30B-A3B", {"decoder_sparse_step": 2}, "decoder_sparse_step in config.json must be 1"),
        ("OLMo-2-0425-1B", {"clip_qkv": 8.0}, "clip_qkv=8.0"),
        ("t5-small", {"feed_forward_proj": "gated-tanh"}, "feed_forward_proj in config.json must be one of 'relu'"),
        ("flan-t5-small", {"dense_act_fn": "gelu"}, "dense_act_fn in config.json must be gelu_new"),
        ("bart-base", {"normalize_before": True}, "normalize_before in config.json must be False"),
        ("bart-base", {"tie_word_embeddings": False}, "tie_word_embeddings in config.json must be True"),
        ("opus-mt-en-de", {"static_position_embeddings": False}, "static_position_embeddings in config.json must be True"),
        ("opus-mt-en-de", {"decoder_vocab_size": 9}, "decoder_vocab_size in config.json must be one of 58101"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(name, change, message):
    with pytest.raises(ValueError, match=message):
        read(PUBLISHED[name][1] | change)
