"""A folder is opened, or refused in a sentence that says what to do."""

import json

import pytest

from jaxllm.interchange import find_family, known_families, open_published
from tests.interchange.battery import ROWS, golden, write_published


@pytest.mark.parametrize("name", ROWS)
def test_opened_without_reading_weights(name, tmp_path, monkeypatch):
    write_published(tmp_path, name)
    monkeypatch.setattr("numpy.memmap", None)
    published = open_published(tmp_path)
    assert published.source == tmp_path and published.family == find_family(name.split(".")[0])
    assert set(published.tensors.names) == set(golden(name)["shapes"])


def test_every_family_is_found_by_its_classes():
    assert known_families().keys() >= {"GPT2LMHeadModel", "LlamaForCausalLM", "MistralForCausalLM", "Qwen3ForCausalLM"}


def test_an_unknown_architecture_gets_the_known_ones_nearest_first(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["LamaForCausalLM"]}))
    with pytest.raises(ValueError, match="LamaForCausalLM is not .* nearest first: LlamaForCausalLM, .*GPT2LMHeadModel"):
        open_published(tmp_path)


def open_with(tmp_path, name, **changes):
    write_published(tmp_path, name)
    fields = {**golden(name)["config"], **changes}
    (tmp_path / "config.json").write_text(json.dumps({key: value for key, value in fields.items() if value != "drop"}))
    return open_published(tmp_path).config


LLAMA, GPT2 = "LlamaForCausalLM", "GPT2LMHeadModel"


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (LLAMA, {"hidden_size": "drop"}, "config.json must have a value for hidden_size: it has none"),
        (LLAMA, {"hidden_act": "quick_gelu"}, "hidden_act in .*config.json must be one of 'silu', .* got 'quick_gelu'"),
        (LLAMA, {"embedding_multiplier": 12.0}, r"not known here: embedding_multiplier=12.0; where"),
        (LLAMA, {"quantization_config": {"bits": 4}}, "not known here: quantization_config="),
        (LLAMA, {"num_attention_heads": 5, "head_dim": None}, "does not describe a LlamaForCausalLM: num_heads must divide"),
        (LLAMA, {"num_key_value_heads": "two"}, "does not describe a LlamaForCausalLM"),
        (LLAMA, {"architectures": "drop"}, "must name its class"),
        (LLAMA, {"architectures": ["MistralForCausalLM"], "layer_types": ["chunked"] * 2}, "layer_types in .* must be one of"),
        (GPT2, {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx in .* must be False to be computed"),
        (GPT2, {"add_cross_attention": True}, "not known here: add_cross_attention=True"),
    ],
)
def test_configs_that_are_refused(tmp_path, name, changes, message):
    with pytest.raises(ValueError, match=message):
        open_with(tmp_path, name, **changes)


def test_windows_of_mistral_and_qwen(tmp_path):
    mistral = {"architectures": ["MistralForCausalLM"], "mlp_bias": "drop", "attention_bias": "drop"}
    assert open_with(tmp_path, LLAMA, **mistral).window == 4096
    assert open_with(tmp_path, LLAMA, **mistral, sliding_window=None).window is None
    qwen = {**mistral, "architectures": ["Qwen2ForCausalLM"], "sliding_window": 8, "max_window_layers": 1}
    assert open_with(tmp_path, LLAMA, **qwen).window is None
    windowed = open_with(tmp_path, LLAMA, **qwen, use_sliding_window=True)
    assert (windowed.window, windowed.full_attention_layers) == (8, (0,))


def test_a_folder_that_holds_no_model(tmp_path):
    with pytest.raises(FileNotFoundError, match="expected config.json in .*: it holds nothing; name the folder of a published"):
        open_published(tmp_path)
